// A plain UDX stream for the interop tests.
//
//   node udx_peer.js <remote port> <remote stream id>
//
// Prints {port, id} and connects to 127.0.0.1. Commands on standard input:
//   {"op": "write", "bytes": n}   write n pseudo-random bytes, then end; gives {hash}
//   {"op": "message", "text": t}  send an unreliable message
//   {"op": "destroy"}             destroy the stream
// Prints {event: ...} for what the stream does: message, end (with hash and bytes), close.
const crypto = require('crypto')
const readline = require('readline')
const UDX = require('udx-native')

const [remotePort, remoteId] = process.argv.slice(2).map(Number)
const BLOCK = 65536

const print = (value) => process.stdout.write(JSON.stringify(value) + '\n')

const udx = new UDX()
const socket = udx.createSocket()
socket.bind(0, '127.0.0.1')
const stream = udx.createStream(2024)
stream.connect(socket, remoteId, remotePort, '127.0.0.1')

const received = crypto.createHash('sha256')
let bytes = 0
stream.on('data', (data) => {
  bytes += data.byteLength
  received.update(data)
})
stream.on('end', () => {
  print({ event: 'end', bytes, hash: received.digest('hex') })
})
stream.on('message', (data) => {
  print({ event: 'message', text: data.toString() })
})
stream.on('error', (error) => print({ event: 'error', code: error.code }))
stream.on('close', () => print({ event: 'close' }))

async function write (total) {
  const sent = crypto.createHash('sha256')
  for (let left = total; left > 0; left -= BLOCK) {
    const block = crypto.randomBytes(Math.min(BLOCK, left))
    sent.update(block)
    if (!stream.write(block)) {
      await new Promise((resolve) => stream.once('drain', resolve))
    }
  }
  stream.end()
  print({ event: 'written', hash: sent.digest('hex') })
}

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const command = JSON.parse(line)
  if (command.op === 'write') write(command.bytes)
  if (command.op === 'message') stream.trySend(Buffer.from(command.text))
  if (command.op === 'destroy') stream.destroy()
})

print({ port: socket.address().port, id: stream.id })
