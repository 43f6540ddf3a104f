// A processor worker in the manner of the Node.js backend; knows only unary methods.
const { serve } = require('./backend_common')
serve('processor', {
  ping: () => ({ status: 'healthy', timestamp: Date.now(), service: 'processor' }),
  processRequest: async ({ prompt }) => {
    if (prompt === 'crash') process.exit(1)
    if (prompt === 'throw') throw new Error('engine on fire')
    return {
      prompt,
      response: 'node says: ' + prompt,
      processed_at: new Date().toISOString(),
      requestId: 'node-1',
      model: 'node-model'
    }
  }
})
