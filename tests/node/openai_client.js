// The npm package openai against a bridge: node openai_client.js URL TOKEN MODEL
// Prints one JSON line with what it saw.
const OpenAI = require('openai').default

async function main () {
  const [url, apiKey, model] = process.argv.slice(2)
  const client = new OpenAI({ baseURL: url, apiKey, maxRetries: 0 })
  const messages = [{ role: 'user', content: 'What is a gateway?' }]
  const seen = { models: [], pieces: 0, streamed: '' }
  for await (const one of client.models.list()) seen.models.push(one.id)

  const whole = await client.chat.completions.create({ model, messages })
  seen.whole = whole.choices[0].message.content
  seen.reason = whole.choices[0].finish_reason

  const stream = await client.chat.completions.create({
    model, messages, stream: true, stream_options: { include_usage: true }
  })
  for await (const chunk of stream) {
    seen.pieces++
    seen.streamed += chunk.choices[0]?.delta.content ?? ''
    if (chunk.usage) seen.tokens = chunk.usage.completion_tokens
  }

  const stopped = await client.chat.completions.create({ model, messages, stream: true })
  for await (const chunk of stopped) {
    if (chunk.choices[0].delta.content) break
  }

  try {
    await client.chat.completions.create({ model: 'no-such-model', messages })
  } catch (error) {
    seen.error = [error.constructor.name, error.status, error.code]
  }
  console.log(JSON.stringify(seen))
}

main()
