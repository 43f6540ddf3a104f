// A testnet of SIZE nodes on loopback: prints {"bootstrap":[{host,port}]}.
const createTestnet = require('hyperdht/testnet')
createTestnet(Number(process.env.SIZE || 4), { host: '127.0.0.1' }).then(testnet => {
  console.log(JSON.stringify({ bootstrap: testnet.bootstrap }))
})
