// The npm tool @atproto/lex works on the files of `baro lex install`, and the other way round: it adds schemas that are published on a
// local network, or goes through a manifest that is there, and prints one JSON object that says what it thinks of it.
//
//   node lex.mjs FOLDER [NSID] '{"plc": URL, "pds": URL}'
//
// The network's own DNS answers _lexicon.alice.test by the handle alice.test, and so does the hook.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { LexInstaller } from '@atproto/lex-installer'

const { plc, pds } = JSON.parse(process.argv.at(-1))
const [folder, ...additions] = process.argv.slice(2, -1)
console.debug = console.error // what it tells on the way

const file = join(folder, 'lexicons.json')
let manifest
try {
  manifest = JSON.parse(readFileSync(file, 'utf8'))
} catch {
  // the first time there is none
}
const installer = new LexInstaller({
  lexicons: join(folder, 'lexicons'),
  manifest: file,
  plcDirectoryUrl: plc,
  allowHttp: true,
  hooks: {
    onResolveAuthority: async ({ nsid }) => {
      const url = new URL('/xrpc/com.atproto.identity.resolveHandle', pds)
      url.searchParams.set('handle', nsid.authority)
      return (await (await fetch(url)).json()).did
    },
  },
})
await installer.install({ additions: new Set(additions), manifest })
if (additions.length > 0) await installer.save()
console.log(JSON.stringify({ equal: manifest !== undefined && installer.equals(manifest) }))
