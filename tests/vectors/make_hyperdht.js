// Makes hyperdht.json: messages, signatures and a handshake of the npm packages.
// node tests/vectors/make_hyperdht.js   (after `npm ci` in tests/node)
const fs = require('fs')
const path = require('path')
const modules = path.join(__dirname, '..', 'node', 'node_modules')
const load = name => require(path.join(modules, name))

const c = load('compact-encoding')
const curve = load('noise-curve-ed')
const DHT = load('hyperdht')
const { NS } = load('hyperdht/lib/constants.js')
const m = load('hyperdht/lib/messages.js')
const NoiseWrap = load('hyperdht/lib/noise-wrap.js')
const Persistent = load('hyperdht/lib/persistent.js')
const Holepuncher = load('hyperdht/lib/holepuncher.js')
const bogon = load('bogon')

const hex = b => Buffer.from(b).toString('hex')
const fill = n => Buffer.alloc(32, n)
const version = name => load(name + '/package.json').version
const A = DHT.keyPair(fill(1))
const B = DHT.keyPair(fill(2))
const addr = (host, port) => ({ host, port })
const out = { versions: { hyperdht: version('hyperdht'), 'noise-curve-ed': version('noise-curve-ed') } }

out.keys = { seedA: hex(fill(1)), publicKeyA: hex(A.publicKey), seedB: hex(fill(2)), publicKeyB: hex(B.publicKey) }
out.ns = Object.fromEntries(Object.entries(NS).map(([k, v]) => [k, hex(v)]))
out.hash = { input: hex(Buffer.from('gateway')), output: hex(DHT.hash(Buffer.from('gateway'))) }

const relays = [addr('10.0.0.1', 1), addr('255.254.253.252', 65535)]
const peer = { publicKey: A.publicKey, relayAddresses: relays }
out.peer = hex(c.encode(m.peer, peer))
out.peerBare = hex(c.encode(m.peer, { publicKey: B.publicKey, relayAddresses: [] }))
out.lookup = hex(c.encode(m.lookupRawReply, { peers: [c.encode(m.peer, peer), c.encode(m.peer, { publicKey: B.publicKey, relayAddresses: [] })], bump: 1700000000000 }))

const token = fill(21)
const id = fill(22)
const target = DHT.hash(A.publicKey)
const ann = { peer, refresh: fill(23), signature: null, bump: 300 }
ann.signature = Persistent.signAnnounce(target, token, id, ann, A)
const unann = { peer: { publicKey: A.publicKey, relayAddresses: [] }, refresh: null, signature: null }
unann.signature = Persistent.signUnannounce(target, token, id, unann, A)
out.announce = {
  token: hex(token), id: hex(id), target: hex(target), refresh: hex(fill(23)), bump: 300,
  announce: hex(c.encode(m.announce, ann)), announceSignature: hex(ann.signature),
  unannounce: hex(c.encode(m.announce, unann)), unannounceSignature: hex(unann.signature),
  renew: hex(c.encode(m.announce, { peer: null, refresh: fill(24), signature: null, bump: 0 }))
}

// Value lengths and seqs at which an encoding changes its form.
out.mutables = [
  { seq: 0, value: Buffer.alloc(0) },
  { seq: 1, value: Buffer.from('a value') },
  { seq: 253, value: Buffer.alloc(252, 5) },
  { seq: 70000, value: Buffer.alloc(253, 6) },
  { seq: Number.MAX_SAFE_INTEGER, value: Buffer.alloc(1000, 7) }
].map(({ seq, value }) => {
  const signature = Persistent.signMutable(seq, value, A)
  return {
    seq,
    value: hex(value),
    seqBytes: hex(c.encode(c.uint, seq)),
    signature: hex(signature),
    put: hex(c.encode(m.mutablePutRequest, { publicKey: A.publicKey, seq, value, signature })),
    record: hex(c.encode(m.mutableGetResponse, { seq, value, signature }))
  }
})
out.immutables = [Buffer.alloc(0), Buffer.from('a value'), Buffer.alloc(1000, 7)]
  .map(value => ({ value: hex(value), target: hex(DHT.hash(value)) }))

out.handshakes = [
  { mode: 0, noise: Buffer.from([1, 2, 3]), peerAddress: null, relayAddress: null },
  { mode: 1, noise: Buffer.alloc(300, 7), peerAddress: addr('127.0.0.1', 258), relayAddress: null },
  { mode: 3, noise: Buffer.alloc(0), peerAddress: addr('1.2.3.4', 5), relayAddress: addr('6.7.8.9', 10) },
  { mode: 4, noise: Buffer.from([9]), peerAddress: null, relayAddress: addr('6.7.8.9', 10) }
].map(h => ({ ...h, noise: hex(h.noise), bytes: hex(c.encode(m.handshake, h)) }))

out.holepunches = [
  { mode: 0, id: 0, payload: Buffer.from([1]), peerAddress: null },
  { mode: 2, id: 70000, payload: Buffer.alloc(253, 3), peerAddress: addr('127.0.0.1', 258) }
].map(h => ({ ...h, payload: hex(h.payload), bytes: hex(c.encode(m.holepunch, h)) }))

const client = {
  error: 0, firewall: 1, holepunch: null, addresses4: [addr('127.0.0.1', 1234)], addresses6: [],
  udx: { reusableSocket: false, id: 305419896, seq: 0 }, secretStream: {}, relayThrough: null
}
const server = {
  error: 0, firewall: 0,
  holepunch: { id: 3, relays: [{ relayAddress: addr('1.2.3.4', 5), peerAddress: addr('6.7.8.9', 10) }] },
  addresses4: [], addresses6: null, udx: { reusableSocket: true, id: 99, seq: 0 }, secretStream: {},
  relayThrough: { publicKey: B.publicKey, token: fill(31) }, relayAddresses: [addr('9.9.9.9', 9)]
}
const all = {
  error: 3, firewall: 3, holepunch: { id: 70000, relays: [] }, addresses4: relays,
  addresses6: [addr('2001:db8::1', 80)], udx: { reusableSocket: false, id: 4294967295, seq: 4294967295 },
  secretStream: {}, relayThrough: null, relayAddresses: relays
}
out.payloads = { client: hex(c.encode(m.noisePayload, client)), server: hex(c.encode(m.noisePayload, server)), all: hex(c.encode(m.noisePayload, all)) }

const initiator = new NoiseWrap(A, B.publicKey)
const responder = new NoiseWrap(B, null)
const ephemeral = seed => { const k = curve.generateKeyPair(seed); return { publicKey: Buffer.from(k.publicKey), secretKey: Buffer.from(k.secretKey) } }
initiator.handshake.e = ephemeral(fill(11))
responder.handshake.e = ephemeral(fill(12))
// Copies: final() zeroes the remote ephemeral key inside the buffer it was received in.
const message1 = Buffer.from(initiator.send(client))
responder.recv(Buffer.from(message1))
const message2 = Buffer.from(responder.send(server))
initiator.recv(Buffer.from(message2))
const final = initiator.final()
out.noise = {
  ephemeralA: hex(fill(11)), ephemeralB: hex(fill(12)), message1: hex(message1), message2: hex(message2),
  hash: hex(final.hash), tx: hex(final.tx), rx: hex(final.rx)
}

const hosts = ['0.1.2.3', '1.1.1.1', '10.2.3.4', '100.63.0.1', '100.64.0.1', '100.128.0.1', '127.0.0.1', '169.254.9.9', '169.255.0.1',
  '172.15.0.1', '172.16.0.1', '172.31.9.9', '172.32.0.1', '192.0.0.9', '192.0.2.1', '192.168.1.1', '198.18.1.1', '198.19.1.1', '198.20.1.1',
  '198.51.100.7', '203.0.113.9', '223.255.255.255', '224.0.0.1', '240.0.0.1', '255.255.255.255']
out.bogon = hosts.map(host => ({ host, private: bogon.isPrivate(host), reserved: bogon.isReserved(host), bogon: bogon.isBogon(host) }))

const lan = list => list.map(host => addr(host, 1))
out.matches = [
  [['192.168.122.238'], ['192.168.0.23', '192.168.122.1']],
  [['10.1.2.3', '192.168.5.5'], ['172.16.0.1', '192.168.6.6', '192.1.1.1']],
  [['10.1.2.3'], ['172.16.0.1']],
  [['10.1.2.3'], ['10.9.2.3', '10.1.9.3']],
  [['127.0.0.1'], ['127.0.0.1']],
  [['1.2.3.4'], []]
].map(([own, remote]) => {
  const match = Holepuncher.matchAddress(lan(own), lan(remote))
  return { own, remote, match: match && match.host }
})

fs.writeFileSync(path.join(__dirname, 'hyperdht.json'), JSON.stringify(out, null, 1) + '\n')
