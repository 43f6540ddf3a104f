// A HyperDHT node that obeys JSON lines: {op, ...} in, one answer or {error} out, in
// the order they finish, with the "id" of the request.
// Environment: BOOTSTRAP [{host, port}], OPEN=1 (firewalled: false), PERSISTENT=1.
const crypto = require('crypto')
const readline = require('readline')
const DHT = require('hyperdht')
const RPC = require('@hyperswarm/rpc')

const hex = b => Buffer.from(b).toString('hex')
const bytes = s => Buffer.from(s, 'hex')
const say = message => process.stdout.write(JSON.stringify(message) + '\n')
const keyPair = name => DHT.keyPair(crypto.createHash('sha256').update(name).digest())

const options = { bootstrap: JSON.parse(process.env.BOOTSTRAP || '[]'), host: '127.0.0.1' }
if (process.env.OPEN === '1') options.firewalled = false
if (process.env.PERSISTENT === '1') Object.assign(options, { ephemeral: false, firewalled: false, port: 0 })
const dht = new DHT(options)
const rpc = new RPC({ dht })
let server = null
let rpcServer = null
let events = []

// Part number i of the bytes that either side sends: 64 KiB that no other part equals.
function part (name, i) {
  const seed = crypto.createHash('sha256').update(name + ' ' + i).digest()
  return Buffer.concat(new Array(2048).fill(seed))
}

async function send (stream, name, total) {
  for (let i = 0; i * 65536 < total; i++) {
    if (!stream.write(part(name, i).subarray(0, total - i * 65536))) await new Promise(resolve => stream.once('drain', resolve))
  }
  stream.end()
}

function receive (stream) {
  const hash = crypto.createHash('sha256')
  let length = 0
  stream.on('data', data => { hash.update(data); length += data.length })
  return new Promise((resolve, reject) => {
    stream.on('end', () => resolve({ length, hash: hash.digest('hex') }))
    stream.on('error', reject)
  })
}

// Sends and receives at the same time; the answer says what came.
async function exchange (stream, total) {
  const [got] = await Promise.all([receive(stream), send(stream, 'node', total)])
  return { ...got, remote: hex(stream.remotePublicKey), handshakeHash: hex(stream.handshakeHash) }
}

const ops = {
  async address () {
    await dht.fullyBootstrapped()
    return { port: dht.address().port, firewalled: dht.firewalled, ephemeral: dht.ephemeral, nodes: dht.nodes.toArray().length }
  },
  async listen ({ name, total, refuse }) {
    server = dht.createServer({ firewall: key => (refuse || []).includes(hex(key)) }, stream => {
      exchange(stream, total).then(got => say({ connection: got }), error => say({ connection: { error: error.message } }))
    })
    await server.listen(keyPair(name))
    return { publicKey: hex(server.publicKey) }
  },
  async close () { await server.close() },
  async announce ({ topic, name }) {
    await dht.announce(bytes(topic), keyPair(name), []).finished()
    return { publicKey: hex(keyPair(name).publicKey) }
  },
  async unannounce ({ topic, name }) { await dht.unannounce(bytes(topic), keyPair(name)) },
  async lookup ({ topic }) {
    const keys = new Set()
    for await (const { peers } of dht.lookup(bytes(topic))) for (const peer of peers) keys.add(hex(peer.publicKey))
    return { keys: [...keys].sort() }
  },
  async findPeer ({ key }) {
    for await (const { peer } of dht.findPeer(bytes(key))) return { publicKey: hex(peer.publicKey) }
    return { publicKey: null }
  },
  async connect ({ key, name, total }) {
    const stream = dht.connect(bytes(key), { keyPair: keyPair(name) })
    return exchange(stream, total)
  },
  async rpcListen ({ name }) {
    rpcServer = rpc.createServer()
    rpcServer.respond('echo', value => value)
    rpcServer.respond('size', value => Buffer.from(String(value.length)))
    rpcServer.respond('zeros', value => Buffer.alloc(Number(value.toString())))
    rpcServer.respond('fail', () => { throw new Error('it went wrong') })
    rpcServer.respond('note', value => { events.push(value.toString()); return null })
    rpcServer.respond('notes', () => Buffer.from(JSON.stringify(events)))
    await rpcServer.listen(keyPair(name))
    return { publicKey: hex(rpcServer.publicKey) }
  },
  async rpcRequest ({ key, method, value }) {
    const reply = await rpc.request(bytes(key), method, bytes(value))
    return { value: reply && hex(reply) }
  },
  async rpcLarge ({ key, size }) {
    const value = crypto.randomBytes(size)
    const reply = await rpc.request(bytes(key), 'echo', value)
    return { isEqual: value.equals(reply) }
  },
  async rpcBatch ({ key, count }) {
    const values = Array.from({ length: count }, (_, i) => Buffer.from('value ' + i))
    const replies = await Promise.all(values.map(value => rpc.request(bytes(key), 'echo', value)))
    return { equal: replies.filter((reply, i) => reply.equals(values[i])).length }
  },
  async rpcEvent ({ key, method, value }) { await rpc.event(bytes(key), method, bytes(value)) },
  async quit () { await rpc.destroy(); await dht.destroy(); setImmediate(() => process.exit(0)) }
}

async function main () {
  await dht.fullyBootstrapped()
  say({ ready: true, host: '127.0.0.1', port: dht.address().port })
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { id, op, ...rest } = JSON.parse(line)
    ops[op](rest).then(answer => say({ id, ...answer }), error => say({ id, error: error.message, code: error.code, cause: error.cause && error.cause.message }))
  }
}
main()
