// An auth worker in the manner of the Node.js backend: accounts in memory.
const { serve, sign } = require('./backend_common')
const users = new Map()
serve('auth', {
  ping: () => ({ status: 'healthy', timestamp: Date.now(), service: 'auth' }),
  register: ({ email, password }) => {
    if (!email || !password) return { success: false, status: 400, message: 'Email and password are required' }
    if (users.has(email)) return { success: false, status: 409, message: 'User already exists' }
    users.set(email, password)
    return { success: true, status: 201, message: 'User registered successfully', email }
  },
  login: ({ email, password }) => users.get(email) === password
    ? { success: true, status: 200, email, key: sign({ email, role: 'user' }) }
    : { success: false, status: 401, message: 'Invalid credentials' }
})
