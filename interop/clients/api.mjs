// The npm client @atproto/api lives on a local network: accounts, sessions, posts with facets and an image, replies,
// likes, follows, deletes. It prints one JSON object that says what must be true afterwards.
//
//   node api.mjs '{"pds": URL}'
import assert from 'node:assert/strict'
import { AtpAgent, RichText, XRPCError } from '@atproto/api'

const { pds } = JSON.parse(process.argv[2])

const signUp = async (name) => {
  const agent = new AtpAgent({ service: pds })
  await agent.createAccount({ handle: `${name}.test`, email: `${name}@example.com`, password: `${name}-long-password` })
  return agent
}
const alice = await signUp('node-alice')
const bob = await signUp('node-bob')
assert.match(alice.did, /^did:plc:[a-z2-7]{24}$/)

// A fresh agent logs in with handle and password, and goes on from a saved session.
const saved = []
const login = new AtpAgent({ service: pds, persistSession: (event, session) => saved.push([event, session]) })
await login.login({ identifier: 'node-alice.test', password: 'node-alice-long-password' })
assert.equal(login.did, alice.did)
assert.equal(login.session.handle, 'node-alice.test')
const resumed = new AtpAgent({ service: pds })
await resumed.resumeSession(saved.at(-1)[1])
const before = resumed.session.refreshJwt
await resumed.sessionManager.refreshSession()
assert.notEqual(resumed.session.refreshJwt, before, 'a refresh rotates the token')
assert.equal((await resumed.com.atproto.server.getSession()).data.did, alice.did)
await assert.rejects(new AtpAgent({ service: pds }).login({ identifier: 'node-alice.test', password: 'wrong' }), (e) => e instanceof XRPCError && e.status === 401)

// A post with facets that the client detects, which makes it resolve the handle here.
const text = new RichText({ text: 'Hello @node-bob.test 👋🏽, see https://example.com/page #atproto' })
await text.detectFacets(alice)
assert.deepEqual(text.facets.map((f) => f.features[0].$type), [
  'app.bsky.richtext.facet#mention', 'app.bsky.richtext.facet#link', 'app.bsky.richtext.facet#tag'])
assert.equal(text.facets[0].features[0].did, bob.did)
const png = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==', 'base64')
const blob = (await alice.uploadBlob(png, { encoding: 'image/png' })).data.blob
assert.equal(blob.mimeType, 'image/png')
assert.equal(blob.size, png.length)
const post = await alice.post({
  text: text.text, facets: text.facets, langs: ['en'],
  embed: { $type: 'app.bsky.embed.images', images: [{ alt: 'one pixel', image: blob, aspectRatio: { width: 1, height: 1 } }] },
})
const back = await alice.com.atproto.sync.getBlob({ did: alice.did, cid: blob.ref.toString() })
assert.deepEqual(Buffer.from(back.data), png)

const ref = { uri: post.uri, cid: post.cid }
const reply = await bob.post({ text: 'A reply', reply: { root: ref, parent: ref } })
const like = await bob.like(post.uri, post.cid)
const repost = await bob.repost(post.uri, post.cid)
const follow = await bob.follow(alice.did)
const gone = await bob.like(reply.uri, reply.cid)
await bob.deleteLike(gone.uri)
const dropped = await alice.post({ text: 'This one will be deleted' })
await alice.deletePost(dropped.uri)
await alice.upsertProfile((old) => ({ ...old, displayName: 'Alice of Node', description: 'written by @atproto/api' }))
await alice.upsertProfile((old) => ({ ...old, description: 'written twice' }))
const profile = (await alice.getProfile({ actor: alice.did })).data
assert.equal(profile.displayName, 'Alice of Node')

// Many writes at once to one repository.
await Promise.all(Array.from({ length: 20 }, (_, i) => bob.post({ text: `at the same time ${i}` })))

// Reads, page by page.
const list = async (agent, repo, collection, limit) => {
  const uris = []
  for (let cursor; ; ) {
    const { data } = await agent.com.atproto.repo.listRecords({ repo, collection, limit, cursor })
    uris.push(...data.records.map((r) => r.uri))
    if (!(cursor = data.cursor)) return uris
  }
}
const bobs = await list(alice, bob.did, 'app.bsky.feed.post', 7)
assert.equal(new Set(bobs).size, 21)
const rkey = post.uri.split('/').pop()
const got = await bob.com.atproto.repo.getRecord({ repo: alice.did, collection: 'app.bsky.feed.post', rkey })
assert.equal(got.data.cid, post.cid)
assert.equal(got.data.value.text, text.text)
await assert.rejects(bob.com.atproto.repo.getRecord({ repo: alice.did, collection: 'app.bsky.feed.post', rkey: dropped.uri.split('/').pop() }),
  (e) => e.error === 'RecordNotFound')
await assert.rejects(bob.com.atproto.repo.putRecord({ repo: alice.did, collection: 'app.bsky.feed.post', rkey, record: { $type: 'app.bsky.feed.post', text: '', createdAt: new Date().toISOString() } }),
  (e) => e.status === 400 || e.status === 401 || e.status === 403)
await assert.rejects(alice.com.atproto.repo.createRecord({ repo: alice.did, collection: 'app.bsky.feed.post', record: { $type: 'app.bsky.feed.post', text: 1 } }), (e) => e.status === 400)

console.log(JSON.stringify({
  accounts: { [alice.did]: 'node-alice.test', [bob.did]: 'node-bob.test' },
  records: [post, reply, like, repost, follow].map(({ uri, cid }) => ({ uri, cid })),
  deleted: [gone.uri, dropped.uri],
  counts: {
    [alice.did]: { 'app.bsky.feed.post': 1, 'app.bsky.actor.profile': 1 },
    [bob.did]: { 'app.bsky.feed.post': 21, 'app.bsky.feed.like': 1, 'app.bsky.feed.repost': 1, 'app.bsky.graph.follow': 1 },
  },
  // The client gives mention facets a $type and link facets none, and the path of a link tells.
  backlinks: [
    { subject: post.uri, source: 'app.bsky.feed.like:subject.uri', total: 1 },
    { subject: post.uri, source: 'app.bsky.feed.repost:subject.uri', total: 1 },
    { subject: post.uri, source: 'app.bsky.feed.post:reply.parent.uri', total: 1 },
    { subject: reply.uri, source: 'app.bsky.feed.like:subject.uri', total: 0 },
    { subject: alice.did, source: 'app.bsky.graph.follow:subject', total: 1 },
    { subject: bob.did, source: 'app.bsky.feed.post:facets[app.bsky.richtext.facet].features[app.bsky.richtext.facet#mention].did', total: 1 },
    { subject: 'https://example.com/page', source: 'app.bsky.feed.post:facets[].features[app.bsky.richtext.facet#link].uri', total: 1 },
  ],
}))
