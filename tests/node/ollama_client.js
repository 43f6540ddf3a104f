// The npm package ollama against a bridge: node ollama_client.js URL MODEL
// Prints one JSON line with what it saw.
const { Ollama } = require('ollama')

async function main () {
  const [host, model] = process.argv.slice(2)
  const client = new Ollama({ host })
  const messages = [{ role: 'user', content: 'What is a gateway?' }]
  const seen = { pieces: 0, streamed: '' }
  seen.models = (await client.list()).models.map((one) => one.name)
  const shown = await client.show({ model })
  seen.capabilities = shown.capabilities
  seen.architecture = shown.model_info['general.architecture']
  seen.loaded = (await client.ps()).models.length

  const whole = await client.chat({ model, messages })
  seen.whole = whole.message.content
  seen.reason = whole.done_reason

  for await (const part of await client.chat({ model, messages, stream: true })) {
    seen.pieces++
    seen.streamed += part.message.content
    if (part.done) seen.tokens = part.eval_count
  }
  seen.generated = (await client.generate({ model, prompt: 'hello' })).response

  const stopped = await client.chat({ model, messages, stream: true })
  for await (const part of stopped) {
    if (part.message.content) {
      stopped.abort()
      break
    }
  }

  try {
    await client.chat({ model: 'no-such-model', messages })
  } catch (error) {
    seen.error = [error.constructor.name, error.status_code, error.message]
  }
  console.log(JSON.stringify(seen))
}

main()
