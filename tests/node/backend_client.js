// A client in the manner of the Node.js backend. Reads {method, data, key} lines,
// prints the gateway's answers; {lookup: topic} prints the keys found under it.
const readline = require('readline')
const { open, findAll, call, say } = require('./backend_common')
open().then(async ({ dht, rpc }) => {
  say({ ready: true })
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { lookup, to, method, data, key, raw } = JSON.parse(line)
    try {
      if (lookup) { say({ keys: (await findAll(dht, lookup)).map(k => k.toString('hex')) }); continue }
      const target = to ? Buffer.from(to, 'hex') : (await findAll(dht, 'gateway'))[0]
      say(await call(rpc, target, method, raw !== undefined ? raw : { data, meta: { key } }))
    } catch (error) { say({ threw: error.message, code: error.code }) }
  }
  await dht.destroy()
})
