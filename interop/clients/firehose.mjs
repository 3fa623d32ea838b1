// The npm consumer @atproto/sync follows a relay and verifies every commit: signature, blocks and operations. It prints one
// JSON line per event and ends, with an error if any event could not be verified, when its standard input is closed.
//
//   node firehose.mjs '{"plc": URL, "relay": URL}'
import { IdResolver, MemoryCache } from '@atproto/identity'
import { Firehose, MemoryRunner } from '@atproto/sync'

const { plc, relay } = JSON.parse(process.argv[2])
let errors = 0
const runner = new MemoryRunner({ startCursor: 0 })
const firehose = new Firehose({
  service: relay.replace(/^http/, 'ws'),
  runner,
  // Its own fetch would refuse a directory on this machine. Handles under .test exist in no DNS that it can ask.
  idResolver: new IdResolver({ plcUrl: plc, fetch: globalThis.fetch, didCache: new MemoryCache() }),
  unauthenticatedHandles: true,
  handleEvent: (e) => {
    const { event, seq, did } = e
    const uri = e.uri ? String(e.uri) : undefined
    console.log(JSON.stringify({ event, seq, did, uri, cid: e.cid ? String(e.cid) : undefined, active: e.active, handle: e.handle }))
  },
  onError: (err) => {
    errors++
    console.error(String(err), err.cause ? String(err.cause) : '')
  },
})
firehose.start()
process.stdin.resume()
process.stdin.on('end', async () => {
  await runner.processAll()
  await firehose.destroy()
  process.exit(errors > 0 ? 1 : 0)
})
