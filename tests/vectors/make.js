// Makes vectors.json: Noise, secretstream, Protomux and RPC bytes of the npm packages.
// node tests/vectors/make.js   (after `npm ci` in tests/node)
const EventEmitter = require('events')
const fs = require('fs')
const path = require('path')
const modules = path.join(__dirname, '..', 'node', 'node_modules')
const load = name => require(path.join(modules, name))

const c = load('compact-encoding')
const Capability = load('hyperswarm-capability')
const crypto = load('hypercore-crypto')
const curve = load('noise-curve-ed')
const Noise = load('noise-handshake')
const NoiseSecretStream = load('@hyperswarm/secret-stream')
const Protomux = load('protomux')
const ProtomuxRPC = load('protomux-rpc')
const SecretStream = load('sodium-secretstream')

const hex = b => Buffer.from(b).toString('hex')
const fill = n => Buffer.alloc(32, n)
const packages = ['@hyperswarm/secret-stream', 'hypercore-crypto', 'hyperswarm-capability', 'noise-curve-ed',
  'noise-handshake', 'protomux', 'protomux-rpc', 'sodium-native', 'sodium-secretstream']
const out = { versions: Object.fromEntries(packages.map(n => [n, load(n + '/package.json').version])) }

// Keys, hashes, signatures
const A = crypto.keyPair(fill(1))
const B = crypto.keyPair(fill(2))
out.keys = { seedA: hex(fill(1)), publicA: hex(A.publicKey), seedB: hex(fill(2)), publicB: hex(B.publicKey) }
out.dh = hex(curve.dh(B.publicKey, A))
out.hash = { input: hex(Buffer.from('gateway')), output: hex(crypto.hash(Buffer.from('gateway'))) }
out.signature = { message: hex(Buffer.from('signed')), signature: hex(crypto.sign(Buffer.from('signed'), A.secretKey)) }
out.namespaces = {
  stream: crypto.namespace('hyperswarm/secret-stream', 3).map(hex),
  capability: hex(crypto.namespace('hyperswarm-capability', 1)[0])
}

// Noise, both patterns, with given ephemeral keys. Messages are copied: the end of a
// handshake zeroes keys inside the buffers it was given.
function handshake (pattern, prologue, payloads) {
  const sides = [[true, A, 11], [false, B, 12]].map(([isInitiator, keyPair, seed]) => {
    const noise = new Noise(pattern, isInitiator, keyPair, { curve })
    noise.initialise(prologue, isInitiator && pattern === 'IK' ? B.publicKey : undefined)
    const e = curve.generateKeyPair(fill(seed))
    noise.e = { publicKey: Buffer.from(e.publicKey), secretKey: Buffer.from(e.secretKey) }
    return noise
  })
  const messages = payloads.map((payload, i) => {
    const message = Buffer.from(sides[i % 2].send(payload))
    sides[1 - i % 2].recv(Buffer.from(message))
    return { payload: hex(payload), message: hex(message) }
  })
  const [a] = sides
  return { prologue: hex(prologue), ephemeralA: hex(fill(11)), ephemeralB: hex(fill(12)), messages, tx: hex(a.tx), rx: hex(a.rx), hash: hex(a.hash) }
}
out.ik = handshake('IK', Buffer.from('prologue'), [Buffer.from('first payload'), Buffer.alloc(0)])
out.xx = handshake('XX', Buffer.alloc(0), [Buffer.alloc(0), Buffer.from('second'), Buffer.from('third')])

// secretstream: messages, the ids in front, unordered boxes
const hash = Buffer.from(out.ik.hash, 'hex')
const push = new SecretStream.Push(Buffer.from(out.ik.tx, 'hex'))
const plain = [Buffer.from('hello'), Buffer.alloc(0), Buffer.alloc(1000, 7)]
out.secretstream = { key: out.ik.tx, header: hex(push.header), messages: plain.map(m => ({ plain: hex(m), body: hex(push.next(m)) })) }
out.ids = { initiator: hex(NoiseSecretStream.id(hash, true)), responder: hex(NoiseSecretStream.id(hash, false)) }
const sender = new NoiseSecretStream(true, null, { autoStart: false })
sender._setupSecretSend(hash)
out.box = { plain: hex(Buffer.from('datagram')), box: hex(sender._boxMessage(Buffer.from('datagram'))) }
const key = fill(41)
const cap = new Capability()
out.capability = { key: hex(key), initiator: hex(cap.capability(true, key, hash)), responder: hex(cap.capability(false, key, hash)) }

// Protomux: what it writes on a stream that only records
class Recorder extends EventEmitter {
  constructor () { super(); this.userData = null; this.destroyed = false; this.frames = [] }
  write (b) { this.frames.push(hex(b)); return true }
  destroy (err) { this.destroyed = true; this.error = err }
  pause () {}
  resume () {}
  end () {}
  take () { return this.frames.splice(0) }
}
const stream = new Recorder()
const mux = new Protomux(stream)
const open = (protocol, id) => {
  const channel = mux.createChannel({ protocol, id, handshake: c.raw, messages: [{ encoding: c.raw }, { encoding: c.raw }] })
  channel.open(Buffer.from('shake'))
  return channel
}
const first = open('alpha', Buffer.from([1, 2, 3]))
const second = open('beta', null)
out.protomux = { opens: stream.take() }
first.messages[1].send(Buffer.from('alone'))
out.protomux.message = stream.take()
mux.cork()
first.messages[0].send(Buffer.from('a'))
first.messages[1].send(Buffer.alloc(300, 98))
second.messages[0].send(Buffer.from('c'))
second.close()
first.messages[0].send(Buffer.from('d'))
mux.uncork()
out.protomux.batch = stream.take()
first.close()
out.protomux.close = stream.take()

// RPC: a client and a server whose frames are carried across by hand
async function rpc () {
  const left = new Recorder()
  const right = new Recorder()
  const client = new ProtomuxRPC(left, { id: B.publicKey })
  const server = new ProtomuxRPC(right, { id: B.publicKey })
  server.respond('echo', value => value)
  server.respond('fail', () => { throw Object.assign(new Error('no such thing'), { code: 'ENOTHING', context: 'looking' }) })
  server.respond('plain', () => { throw new Error('just words') })
  out.rpc = { open: left.frames.slice() }
  const tick = () => new Promise(resolve => setImmediate(resolve))
  const carry = (from, to) => { const frames = from.take(); for (const f of frames) to.emit('data', Buffer.from(f, 'hex')); return frames }
  carry(left, right); carry(right, left); await tick()
  out.rpc.calls = []
  for (const [method, value] of [['echo', Buffer.from('value')], ['echo', null], ['echo', Buffer.alloc(300, 5)], ['fail', null], ['plain', null], ['absent', null]]) {
    const answer = client.request(method, value).then(v => v && hex(v), err => ({ message: err.message, code: err.code, cause: err.cause && err.cause.message }))
    await tick()
    const request = carry(left, right); await tick()
    const response = carry(right, left)
    out.rpc.calls.push({ method, value: value && hex(value), request, response, answer: await answer })
  }
  client.event('echo', Buffer.from('event'))
  out.rpc.event = left.take()
}

rpc().then(() => {
  fs.writeFileSync(path.join(__dirname, 'vectors.json'), JSON.stringify(out, null, 1) + '\n')
  console.log('vectors.json', Object.keys(out).length)
})
