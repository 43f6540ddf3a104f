// A dht-rpc node on loopback that stores values, driven by JSON lines.
// BOOTSTRAP: comma-separated host:port; without it a first node.
// Prints {"port","id"} when ready; then answers {"op":"put"|"get"|"find"|"ping"|"status"|"table", ...}.
const readline = require('readline')
const DHT = require('dht-rpc')

const PUT = 3
const values = new Map()
const hex = b => (b ? b.toString('hex') : null)
const print = message => console.log(JSON.stringify(message))
const bootstrap = process.env.BOOTSTRAP ? process.env.BOOTSTRAP.split(',') : []

async function main () {
  const count = Number(process.env.COUNT || 1)
  const nodes = []
  for (let i = 0; i < count; i++) nodes.push(await start())
  const dht = nodes[0]
  print({ ports: nodes.map(n => n.io.serverSocket.address().port), id: hex(dht.id) })
  for await (const line of readline.createInterface({ input: process.stdin })) {
    try {
      print(await run(dht, nodes, JSON.parse(line)))
    } catch (error) {
      print({ error: error.message })
    }
  }
  process.exit(0)
}

async function start () {
  let dht
  if (bootstrap.length) {
    dht = new DHT({ bootstrap, ephemeral: false, firewalled: process.env.FIREWALLED === '1', host: '127.0.0.1' })
  } else {
    dht = new DHT({ bootstrap: [], ephemeral: false, firewalled: false, host: '127.0.0.1' })
  }
  dht.on('request', req => {
    const key = hex(req.target)
    if (req.command !== PUT) return req.error(99)
    if (req.token) {
      values.set(key + dht.io.serverSocket.address().port, req.value)
      return req.reply(null)
    }
    req.reply(values.get(key + dht.io.serverSocket.address().port) || null)
  })
  await dht.fullyBootstrapped()
  if (!bootstrap.length) {
    dht._nat.add('127.0.0.1', dht.io.serverSocket.address().port)
    await dht._updateNetworkState()
  }
  return dht
}

async function run (dht, nodes, { op, target, value, host, port }) {
  target = target && Buffer.from(target, 'hex')
  if (op === 'put') {
    const query = dht.query({ target, command: PUT, value: Buffer.from(value, 'hex') }, { commit: true })
    await query.finished()
    return { closest: query.closestNodes.map(n => n.port) }
  }
  if (op === 'get') {
    // No query asks the node itself.
    const own = values.get(hex(target) + dht.io.serverSocket.address().port)
    const found = own ? [hex(own)] : []
    for await (const reply of dht.query({ target, command: PUT })) if (reply.value) found.push(hex(reply.value))
    return { found }
  }
  if (op === 'find') {
    const query = dht.findNode(target)
    await query.finished()
    return { closest: query.closestNodes.map(n => n.port) }
  }
  if (op === 'ping') {
    const res = await dht.ping({ host, port })
    return { id: hex(res.from.id), to: res.to.port }
  }
  if (op === 'delayedPing') {
    await dht.delayedPing({ host, port }, 50)
    return { ok: true }
  }
  if (op === 'badToken') {
    const res = await dht.request({ token: Buffer.alloc(32), command: PUT, target }, { host, port })
    return { error: res.error, token: hex(res.token) }
  }
  if (op === 'status') return { nodes: nodes.map(n => ({ id: hex(n.id), ephemeral: n.ephemeral, firewalled: n.firewalled, known: n.nodes.length })) }
  return { error: 'unknown op ' + op }
}

main()
