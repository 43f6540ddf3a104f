// A stand-alone secret stream over TCP with protomux-rpc on it, as server or client.
// MODE=server prints {port}; MODE=client PORT=n calls the server there and prints what it got.
const crypto = require('crypto')
const net = require('net')
const NoiseSecretStream = require('@hyperswarm/secret-stream')
const ProtomuxRPC = require('protomux-rpc')
const Protomux = require('protomux')
const c = require('compact-encoding')

const keyPair = NoiseSecretStream.keyPair(Buffer.alloc(32, process.env.MODE === 'server' ? 2 : 1))
const serverKey = NoiseSecretStream.keyPair(Buffer.alloc(32, 2)).publicKey
const print = message => console.log(JSON.stringify(message))
const sha = b => crypto.createHash('sha256').update(b).digest('hex')
const pattern = n => Buffer.alloc(n, 'peerchat')

function serveRaw (stream) {
  stream.on('data', data => stream.write(data))
  stream.on('end', () => stream.end())
}

function serve (stream) {
  const mux = Protomux.from(stream)
  mux.pair({ protocol: 'count' }, id => {
    let total = 0
    const channel = mux.createChannel({
      protocol: 'count',
      id,
      handshake: c.string,
      onopen: handshake => print({ channel: id.toString(), handshake }),
      messages: [{ encoding: c.raw, onmessage: data => { total += data.byteLength; channel.messages[0].send(Buffer.from(String(total))) } }],
      onclose: () => print({ closed: id.toString(), total })
    })
    channel.open('hello from node')
  })
  const rpc = new ProtomuxRPC(stream, { id: serverKey })
  rpc.respond('echo', value => value)
  rpc.respond('later', value => new Promise(resolve => setTimeout(resolve, 20, value)))
  rpc.respond('size', value => Buffer.from(String(value.byteLength) + ' ' + sha(value)))
  rpc.respond('make', value => pattern(Number(value)))
  rpc.respond('fail', () => { throw new Error('no such thing') })
  rpc.respond('note', value => { rpc.event('noted', value) })
}

async function call (stream) {
  const rpc = new ProtomuxRPC(stream, { id: serverKey })
  rpc.respond('reverse', value => Buffer.from(value).reverse())
  const outcome = p => p.then(v => v === null ? null : v.toString(), err => ({ message: err.message, code: err.code, cause: err.cause && err.cause.message }))
  rpc.cork()
  const batch = Array.from({ length: 50 }, (_, i) => rpc.request('echo', Buffer.from('n' + i)))
  batch.push(rpc.request('later', Buffer.from('slow')))
  rpc.uncork()
  print({ batch: (await Promise.all(batch)).map(String) })
  print({ empty: await outcome(rpc.request('echo', null)) })
  print({ fail: await outcome(rpc.request('fail', null)) })
  print({ absent: await outcome(rpc.request('absent', null)) })
  const big = pattern(Number(process.env.BIG))
  print({ size: await outcome(rpc.request('size', big)), sha: sha(big) })
  print({ made: sha(await rpc.request('make', Buffer.from(process.env.BIG))) })
  print({ reversed: await outcome(rpc.request('callback', Buffer.from('abc'))) })
  rpc.destroy()
  stream.end()
}

if (process.env.MODE === 'client') {
  const socket = net.connect(Number(process.env.PORT), '127.0.0.1')
  const stream = new NoiseSecretStream(true, socket, { keyPair, keepAlive: 5000 })
  stream.on('error', err => print({ error: err.message }))
  stream.on('close', () => { print({ closed: true }); process.exit(0) })
  call(stream)
} else {
  net.createServer(socket => {
    const stream = new NoiseSecretStream(false, socket, { keyPair, keepAlive: 5000 })
    stream.on('error', err => print({ error: err.message }))
    stream.on('close', () => print({ gone: true }))
    if (process.env.RAW) serveRaw(stream)
    else serve(stream)
  }).listen(0, '127.0.0.1', function () { print({ port: this.address().port }) })
}
