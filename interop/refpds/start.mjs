// The reference PDS and, unless another one is named, the reference PLC directory, on 127.0.0.1 and ports that are free.
// The settings come as one JSON object in the first argument. When both are up it prints {"ready": …} on a line of its own;
// it ends when its standard input does, so that nothing is left behind by a test that was killed.
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import net from 'node:net'
import path from 'node:path'

import { PDS } from '@atproto/pds'
import plc from '@did-plc/server'

const set = JSON.parse(process.argv[2])

const listening = async (server) => {
  await once(server, 'listening')
  return server.address().port
}

if (!set.plc) {
  const { app } = plc.PlcServer.create({ db: plc.Database.mock() })
  set.plc = `http://localhost:${await listening(app.listen(0, '127.0.0.1'))}`
}

// The PDS writes its port into documents, so that it has to know it before it listens, and it would listen on all
// addresses. It gets a socket that is bound already.
const socket = net.createServer()
const port = await listening(socket.listen(0, '127.0.0.1'))

const secret = () => randomBytes(32).toString('hex')
const pds = await PDS.fromEnv({
  devMode: true,
  port,
  hostname: 'localhost',
  serviceDid: `did:web:localhost%3A${port}`,
  serviceName: 'reference',
  dataDirectory: set.data,
  blobstoreDiskLocation: path.join(set.data, 'blobs'),
  blobstoreDiskTmpLocation: path.join(set.data, 'blobs-new'),
  didPlcUrl: set.plc,
  serviceHandleDomains: [set.handles],
  inviteRequired: false,
  disableSsrfProtection: true,
  emailSmtpUrl: set.smtp,
  emailFromAddress: 'pds@example.com',
  adminPassword: set.admin,
  jwtSecret: set.jwt,
  dpopSecret: secret(),
  plcRotationKeyK256PrivateKeyHex: secret(),
  crawlers: set.crawlers ?? [],
  // Nothing of these is there: what the PDS would pass on to them fails.
  bskyAppViewUrl: 'http://127.0.0.1:9',
  bskyAppViewDid: 'did:web:appview.invalid',
  modServiceUrl: 'http://127.0.0.1:9',
  modServiceDid: 'did:web:moderation.invalid',
})
const { listen } = pds.app
pds.app.listen = () => listen.call(pds.app, socket)
await pds.start()

process.stdin.resume().on('end', () => process.exit(0))
console.log(JSON.stringify({ ready: { url: `http://localhost:${port}`, did: pds.ctx.cfg.service.did, plc: set.plc } }))
