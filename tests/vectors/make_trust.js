// Makes trust.json: what a Node.js worker of a private swarm computes.
// node tests/vectors/make_trust.js   (after `npm ci` in tests/node)
const fs = require('fs')
const nodeCrypto = require('crypto')
const path = require('path')
const modules = path.join(__dirname, '..', 'node', 'node_modules')
const load = name => require(path.join(modules, name))

const c = load('compact-encoding')
const Capability = load('hyperswarm-capability')
const crypto = load('hypercore-crypto')
const HyperDHT = load('hyperdht')
const sodium = load('sodium-universal')
const { getEncoding } = load('@hyperswarm/rpc/spec/hyperschema')

const hex = b => Buffer.from(b).toString('hex')
const fill = (n, size = 32) => Buffer.alloc(size, n)
const packages = ['@hyperswarm/rpc', 'hypercore-crypto', 'hyperdht', 'hyperswarm-capability', 'sodium-native']
const out = { versions: Object.fromEntries(packages.map(n => [n, load(n + '/package.json').version])) }

const secret = Buffer.from(Array.from({ length: 32 }, (_, i) => i * 7 + 1))
const handshakeHash = Buffer.from(Array.from({ length: 64 }, (_, i) => 255 - i))
out.secret = hex(secret)
out.handshakeHash = hex(handshakeHash)

// encodeTopic of @tetherto/hp-svc-facs-net, lib/hyperdht.lookup.js, with crypto: { algo: 'hmac-sha256', key: secret }
out.topics = Object.fromEntries(['auth', 'gateway', 'processor'].map(role => [
  role, hex(HyperDHT.hash(nodeCrypto.createHmac('sha256', secret).update(Buffer.from(role, 'utf-8')).digest()))
]))

// The capability of the swarm, and what @hyperswarm/rpc puts into the handshake for it
const [, , hello, ns, fingerprint] = crypto.namespace('peerchat/trust', 6)
const hash = (...parts) => crypto.hash(parts)
const capability = hash(ns, secret)
out.capability = hex(capability)
out.fingerprint = hex(hash(fingerprint, secret).subarray(0, 16))
const sides = { initiator: true, responder: false }
out.rpcHandshakes = Object.fromEntries(Object.entries(sides).map(([side, isInitiator]) => [
  side, hex(c.encode(getEncoding('@rpc/handshake'), { capability: new Capability().generate({ isInitiator, handshakeHash }, capability) }))
]))

// A hello with the chain "chain": MessagePack array of one bin
const nonce = fill(9, 24)
const body = Buffer.concat([Buffer.from([0x91, 0xc4, 5]), Buffer.from('chain')])
out.hellos = Object.fromEntries(Object.entries(sides).map(([side, isInitiator]) => {
  const box = Buffer.alloc(body.length + sodium.crypto_secretbox_MACBYTES)
  sodium.crypto_secretbox_easy(box, body, nonce, hash(hello, secret, handshakeHash, Buffer.from([isInitiator ? 1 : 0])))
  return [side, hex(Buffer.concat([nonce, box]))]
}))

// A sealed box of libsodium for the Ed25519 key of seed 3
const peer = crypto.keyPair(fill(3))
const curvePublic = Buffer.alloc(32)
sodium.crypto_sign_ed25519_pk_to_curve25519(curvePublic, peer.publicKey)
const sealed = Buffer.alloc(secret.length + sodium.crypto_box_SEALBYTES)
sodium.crypto_box_seal(sealed, secret, curvePublic)
out.sealed = { seed: hex(fill(3)), box: hex(sealed) }

fs.writeFileSync(path.join(__dirname, 'trust.json'), JSON.stringify(out, null, 1) + '\n')
