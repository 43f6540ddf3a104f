// What the workers of the Node.js backend share: a DHT node, an RPC server announced
// under a topic, JSON in and out, errors as "[HRPC_ERR]=message". In a private swarm
// topics are keyed and connections need a capability, as @tetherto/hp-svc-facs-net does it.
const crypto = require('crypto')
const DHT = require('hyperdht')
const RPC = require('@hyperswarm/rpc')

const fromEnv = name => process.env[name] ? Buffer.from(process.env[name], 'hex') : null
const topicKey = fromEnv('SWARM_TOPIC_KEY')
const capability = fromEnv('SWARM_CAPABILITY')

function topicOf (name) {
  const topic = Buffer.from(name, 'utf-8')
  return DHT.hash(topicKey ? crypto.createHmac('sha256', topicKey).update(topic).digest() : topic)
}

const say = message => console.log(JSON.stringify(message))
const secret = () => process.env.JWT_SECRET || 'test-secret'
const b64 = value => Buffer.from(JSON.stringify(value)).toString('base64url')

function sign (claims) {
  const now = Math.floor(Date.now() / 1000)
  const body = b64({ alg: 'HS256', typ: 'JWT' }) + '.' + b64({ ...claims, iat: now, exp: now + 86400 })
  return body + '.' + crypto.createHmac('sha256', secret()).update(body).digest('base64url')
}

function claimsOf (token) {
  const [head, body, mac] = String(token).split('.')
  const want = crypto.createHmac('sha256', secret()).update(head + '.' + body).digest('base64url')
  if (want !== mac) throw new Error('Invalid token')
  return JSON.parse(Buffer.from(body, 'base64url'))
}

async function open () {
  const dht = new DHT({ bootstrap: JSON.parse(process.env.BOOTSTRAP), host: '127.0.0.1' })
  await dht.fullyBootstrapped()
  return { dht, rpc: new RPC({ dht }) }
}

async function serve (topic, methods) {
  const { dht, rpc } = await open()
  const server = rpc.createServer(capability ? { capability } : {})
  for (const [name, handler] of Object.entries(methods)) {
    server.respond(name, async raw => {
      try {
        return Buffer.from(JSON.stringify(await handler(raw && raw.byteLength ? JSON.parse(raw.toString()) : {})))
      } catch (error) {
        return Buffer.from(JSON.stringify('[HRPC_ERR]=' + error.message))
      }
    })
  }
  const keyPair = DHT.keyPair()
  await server.listen(keyPair)
  await dht.announce(topicOf(topic), keyPair, []).finished()
  say({ ready: topic, key: server.publicKey.toString('hex') })
  return { dht, rpc, server }
}

async function findAll (dht, topic) {
  const keys = new Set()
  for await (const reply of dht.lookup(topicOf(topic))) {
    for (const peer of reply.peers) keys.add(peer.publicKey.toString('hex'))
  }
  return [...keys].map(key => Buffer.from(key, 'hex'))
}

async function call (rpc, key, method, body) {
  const raw = await rpc.request(key, method, body === undefined ? Buffer.alloc(0) : Buffer.from(JSON.stringify(body)), { timeout: 30000 })
  return JSON.parse(raw.toString())
}

module.exports = { DHT, open, serve, findAll, call, say, sign, claimsOf, topicOf }
