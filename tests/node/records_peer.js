// A HyperDHT node that puts and gets records by JSON lines: {op, ...} in, one answer
// or {error} out. Environment: BOOTSTRAP [{host, port}], PERSISTENT=1.
const crypto = require('crypto')
const readline = require('readline')
const DHT = require('hyperdht')

const hex = b => Buffer.from(b).toString('hex')
const bytes = s => Buffer.from(s, 'hex')
const say = message => process.stdout.write(JSON.stringify(message) + '\n')
const keyPair = name => DHT.keyPair(crypto.createHash('sha256').update(name).digest())

const options = { bootstrap: JSON.parse(process.env.BOOTSTRAP || '[]'), host: '127.0.0.1' }
if (process.env.PERSISTENT === '1') Object.assign(options, { ephemeral: false, firewalled: false, port: 0 })
const dht = new DHT(options)

// npm's puts do not look at what nodes answer; this does.
const answered = []
const request = dht.request.bind(dht)
dht.request = async (...args) => {
  const answer = await request(...args)
  answered.push(answer.error)
  return answer
}
const record = got => got && { seq: got.seq, value: hex(got.value), signature: hex(got.signature) }

const ops = {
  async mutablePut ({ name, value, seq }) {
    answered.length = 0
    const { publicKey, signature } = await dht.mutablePut(keyPair(name), bytes(value), { seq })
    return { publicKey: hex(publicKey), signature: hex(signature), answered: [...answered] }
  },
  async mutableGet ({ key, seq, latest }) { return { record: record(await dht.mutableGet(bytes(key), { seq, latest })) } },
  async immutablePut ({ value }) {
    answered.length = 0
    const { hash } = await dht.immutablePut(bytes(value))
    return { target: hex(hash), answered: [...answered] }
  },
  async immutableGet ({ target }) {
    const got = await dht.immutableGet(bytes(target))
    return { value: got && hex(got.value) }
  }
}

async function main () {
  await dht.fullyBootstrapped()
  say({ host: '127.0.0.1', port: dht.address().port })
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { op, ...rest } = JSON.parse(line)
    await ops[op](rest).then(say, error => say({ error: error.message }))
  }
}
main()
