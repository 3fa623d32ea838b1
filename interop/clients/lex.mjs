// The npm tool @atproto/lex works on the files of `baro lex install`, and the other way round: it adds schemas that are published on a
// local network, or goes through a manifest that is there, and prints one JSON object that says what it thinks of it.
//
//   node lex.mjs FOLDER [NSID] '{"plc": URL, "pds": URL}'
//
// The network's own DNS answers _lexicon.alice.test by the handle alice.test, and so does the hook.
import { join } from 'node:path'
import { install } from '@atproto/lex-installer'

const { plc, pds } = JSON.parse(process.argv.at(-1))
const [folder, ...add] = process.argv.slice(2, -1)
console.debug = console.error // what it tells on the way

const options = {
  lexicons: join(folder, 'lexicons'),
  manifest: join(folder, 'lexicons.json'),
  plcDirectoryUrl: plc,
  allowHttp: true,
  hooks: {
    onResolveAuthority: async ({ nsid }) => {
      const url = new URL('/xrpc/com.atproto.identity.resolveHandle', pds)
      url.searchParams.set('handle', nsid.authority)
      return (await (await fetch(url)).json()).did
    },
  },
}
if (add.length > 0) await install({ ...options, add, save: true })
// With ci the tool fails if what the manifest says and what is published and in the folder differ.
let equal = true
try {
  await install({ ...options, ci: true })
} catch (err) {
  console.error(err)
  equal = false
}
console.log(JSON.stringify({ equal }))
