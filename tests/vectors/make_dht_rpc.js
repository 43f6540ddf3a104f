// Makes dht_rpc.json: datagrams, ids, tokens and NAT samples of the npm packages.
// node tests/vectors/make_dht_rpc.js   (after `npm ci` in tests/node)
const fs = require('fs')
const path = require('path')
const modules = path.join(__dirname, '..', 'node', 'node_modules')
const load = name => require(path.join(modules, name))

const IO = load('dht-rpc/lib/io.js')
const peer = load('dht-rpc/lib/peer.js')
const Table = load('kademlia-routing-table')
const NatSampler = load('nat-sampler')

const hex = b => (b ? Buffer.from(b).toString('hex') : null)
const fill = n => Buffer.alloc(32, n)
const version = name => load(name + '/package.json').version
const out = {
  versions: Object.fromEntries(['dht-rpc', 'kademlia-routing-table', 'nat-sampler'].map(n => [n, version(n)]))
}

let sent = null
const socket = { trySend: buffer => { sent = buffer } }
const other = { trySend: buffer => { sent = buffer } }
const udx = { watchNetworkInterfaces: () => ({}) }
const to = { host: '10.20.30.40', port: 50001 }
const ownId = fill(7)

function makeIO (ephemeral) {
  const io = new IO(new Table(ownId), udx, { onrequest () {} })
  io.ephemeral = ephemeral
  io.serverSocket = socket
  io.clientSocket = other
  io.token({ host: to.host }, 1)
  io._secrets[0].fill(3)
  io._secrets[1].fill(4)
  return io
}

out.ids = [to, { host: '127.0.0.1', port: 1 }, { host: '255.254.253.252', port: 65535 }]
  .map(a => ({ ...a, id: hex(peer.id(a.host, a.port)) }))

out.requests = []
for (const ephemeral of [true, false]) {
  for (const [internal, command, target, token, value] of [
    [true, 0, null, null, null],
    [true, 1, null, null, Buffer.from([0x51, 0xc3])],
    [true, 2, fill(9), null, null],
    [false, 3, fill(9), null, null],
    [false, 4, fill(9), fill(5), Buffer.alloc(300, 1)],
    [false, 70000, null, fill(5), Buffer.alloc(0)]
  ]) {
    const io = makeIO(ephemeral)
    io._tid = 0xabcd
    io.firewalled = false
    const req = io.createRequest(to, token, internal, command, target, value, null)
    out.requests.push({
      tid: 0xabcd, to, id: ephemeral ? null : hex(ownId), internal, command,
      target: hex(target), token: hex(token), value,
      hex: hex(req._encodeRequest(token, value, to, socket))
    })
  }
}
for (const r of out.requests) if (r.value) r.value = hex(r.value) || ''

out.responses = []
for (const ephemeral of [true, false]) {
  for (const [error, token, closer, value] of [
    [0, false, 0, null],
    [0, true, 2, null],
    [1, false, 0, null],
    [2, true, 0, null],
    [300, true, 20, Buffer.alloc(260, 2)],
    [0, false, 0, Buffer.alloc(0)]
  ]) {
    const io = makeIO(ephemeral)
    const nodes = []
    for (let i = 0; i < closer; i++) nodes.push({ host: '10.0.0.' + i, port: 1000 + i })
    io.table.closest = () => nodes
    let req = null
    io.onrequest = r => { req = r }
    const asked = out.requests[2].hex
    io.onmessage(socket, Buffer.from(asked, 'hex'), to)
    req._sendReply(error, value, token, closer > 0, to, socket)
    out.responses.push({
      tid: 0xabcd, to, id: ephemeral ? null : hex(ownId), error,
      token: token ? hex(io.token(to, 1)) : null,
      closer: nodes, value: value && (hex(value) || ''), hex: hex(sent)
    })
  }
}

{
  const io = makeIO(false)
  let req = null
  io.onrequest = r => { req = r }
  io.onmessage(socket, Buffer.from(out.requests[2].hex, 'hex'), to)
  req.relay(Buffer.from('relayed'), { host: '1.2.3.4', port: 5 })
  out.relayed = { request: out.requests[2].hex, to: { host: '1.2.3.4', port: 5 }, value: hex(Buffer.from('relayed')), hex: hex(sent) }
}

{
  const io = makeIO(true)
  const steps = []
  for (let i = 0; i < 4; i++) {
    steps.push({ current: hex(io.token(to, 1)), previous: hex(io.token(to, 0)) })
    for (let j = 0; j < 10; j++) io._drain()
  }
  out.tokens = { seed: hex(Buffer.concat([fill(3), fill(4)])), host: to.host, steps }
}

{
  // A small linear congruential generator: the same on both sides.
  let state = 12345
  const next = n => { state = (state * 1103515245 + 12345) % 2147483648; return state % n }
  const nat = new NatSampler()
  out.nat = []
  for (let i = 0; i < 200; i++) {
    const host = '10.0.0.' + (next(10) < 8 ? 1 : next(4))
    const port = next(10) < (i < 100 ? 9 : 5) ? 5000 : next(3) + 1
    nat.add(host, port)
    out.nat.push([host, port, nat.host, nat.port, nat.size])
  }
}

fs.writeFileSync(path.join(__dirname, 'dht_rpc.json'), JSON.stringify(out, null, 1) + '\n')
