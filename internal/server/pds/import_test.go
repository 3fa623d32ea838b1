package pds

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	mrand "math/rand/v2"
	"net/http"
	"testing"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/internal/fixtures"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
)

func (a *testAccount) importCAR(body []byte) answerOf {
	a.p.t.Helper()
	return a.p.do(http.MethodPost, "com.atproto.repo.importRepo", a.token, carType, bytes.NewReader(body))
}

// exported makes a repository of n records, of which some are equal when they are more than a hundred, and exports it.
func exported(t *testing.T, name string, n int) (*testAccount, []byte) {
	t.Helper()
	p := startPDS(t, testWorld(9), Config{Memory: true})
	a := p.account(name)
	var writes []write
	for i := range n {
		writes = append(writes, testWrite(actCreate, fmt.Sprintf("com.example.%c/%d", 'a'+rune(i%3), i), fmt.Sprint(i%max(n/2, 100))))
		if len(writes) == 150 || i == n-1 {
			if _, err := p.commit(a.did, writes, nil); err != nil {
				t.Fatal(err)
			}
			writes = nil
		}
	}
	return a, p.get("com.atproto.sync.getRepo?did=" + string(a.did)).Body
}

type block struct {
	cid  cid.CID
	data []byte
}

func splitCAR(t testing.TB, body []byte) (root cid.CID, blocks []block) {
	t.Helper()
	r, err := car.NewReader(bytes.NewReader(body), car.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		c, b, err := r.Next()
		if err != nil {
			return r.Roots()[0], blocks
		}
		blocks = append(blocks, block{c, bytes.Clone(b)})
	}
}

func joinCAR(root cid.CID, blocks []block) []byte {
	b := car.AppendHeader(nil, root)
	for _, x := range blocks {
		b = car.AppendBlock(b, x.cid, x.data)
	}
	return b
}

func newHome(t testing.TB, a *testAccount, active bool) *testAccount {
	t.Helper()
	p := startPDS(t, testWorld(10), Config{Memory: true})
	key, err := keys.Generate(keys.P256, mrand.NewChaCha8([32]byte{77}))
	if err != nil {
		t.Fatal(err)
	}
	return p.accountWith(a.did, "moved.test", key, active)
}

// TestImportRoundTrip imports an export, in order, shuffled, and without its duplicates, into an account that is empty or not.
func TestImportRoundTrip(t *testing.T) {
	a, body := exported(t, "alice", 700)
	records, _ := a.p.checkRepo(a.did, a.key.Public())
	root, blocks := splitCAR(t, body)
	shuffled := append([]block(nil), blocks...)
	mrand.New(mrand.NewPCG(1, 2)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	var single []block
	seen := map[cid.CID]bool{}
	for _, x := range blocks {
		if !seen[x.cid] {
			seen[x.cid] = true
			single = append(single, x)
		}
	}
	if len(single) == len(blocks) {
		t.Fatal("the export has no block twice")
	}
	stray := testWrite(actCreate, "x", "a record that nothing links to")
	for what, file := range map[string][]byte{
		"in order": body, "shuffled": joinCAR(root, shuffled), "each block once": joinCAR(root, single),
		"with strays": joinCAR(root, append(append([]block{{stray.CID, stray.Record}}, blocks...), block{stray.CID, stray.Record})),
	} {
		for _, active := range []bool{true, false} {
			t.Run(fmt.Sprint(what, " active ", active), func(t *testing.T) {
				b := newHome(t, a, active)
				if active {
					if _, err := b.p.commit(b.did, []write{
						testWrite(actCreate, "com.example.a/0", "0"), testWrite(actCreate, "com.example.a/old", "was here before"),
					}, nil); err != nil {
						t.Fatal(err)
					}
				}
				before := b.p.log.Head()
				want(t, b.importCAR(file), 200, "")
				if !active {
					if b.p.log.Head() != before {
						t.Error("an import into an inactive account made an event")
					}
					if err := b.p.submitAccountEvents(context.Background(), b.did, accountChange{Account: true, Sync: true, Identity: true}); err != nil {
						t.Fatal(err)
					}
				}
				got, commit := b.p.checkRepo(b.did, b.key.Public())
				if !maps.Equal(got, records) {
					t.Fatalf("%d records, want %d", len(got), len(records))
				}
				b.p.checkStore(b.did)
				if n := len(b.p.frames()); n < 3 {
					t.Fatalf("%d events", n)
				}
				last := b.p.frames()[len(b.p.frames())-1].(*stream.Sync)
				state, err := repo.VerifySync(repo.SyncMessage{DID: last.DID, Rev: last.Rev, Time: last.Time, Blocks: last.Blocks}, b.key.Public(), nil, repo.VerifyOptions{})
				if err != nil || state.Rev != commit.Rev || state.Data != commit.Data {
					t.Fatalf("#sync %v: %v", state, err)
				}
				// Life goes on.
				if _, err := b.p.commit(b.did, []write{testWrite(actUpdate, "com.example.a/0", "new"), testWrite(actCreate, "com.example.z/1", "z")}, nil); err != nil {
					t.Fatal(err)
				}
				m := b.p.frames()[len(b.p.frames())-1].(*stream.Commit)
				if m.PrevData != state.Data || m.Since != string(state.Rev) {
					t.Error("the commit after an import does not follow it")
				}
				b.p.checkRepo(b.did, b.key.Public())
				b.p.checkStore(b.did)
				if left := leftovers(t, b.p); left != 0 {
					t.Errorf("%d rows of other generations are left", left)
				}
				if blk, _ := recordByCID(b.p.store, mustHead(t, b).Gen, stray.CID); blk != nil {
					t.Error("a block that nothing links to was stored")
				}
				// The same file once more: a step back to an older state is an import like any other.
				want(t, b.importCAR(file), 200, "")
				got, _ = b.p.checkRepo(b.did, b.key.Public())
				if !maps.Equal(got, records) {
					t.Fatal("second import")
				}
				b.p.checkStore(b.did)
			})
		}
	}
}

func mustHead(t testing.TB, a *testAccount) *headRow {
	t.Helper()
	h, err := loadHead(a.p.store, a.did)
	if err != nil || h == nil {
		t.Fatalf("head: %v", err)
	}
	return h
}

// leftovers counts rows of generations that no account points at.
func leftovers(t testing.TB, p *testPDS) int {
	t.Helper()
	used := map[uint64]bool{}
	heads, _, err := headsPage(p.store, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range heads {
		used[h.Gen] = true
	}
	n := 0
	for _, table := range []byte{tableBlock, tableByCID, tableBlobRef, tableParked, tableStaging} {
		it := p.store.Iter([]byte{table}, []byte{table + 1})
		for ok := it.First(); ok; ok = it.Next() {
			if !used[beUint64(it.Key()[1:])] {
				n++
			}
		}
		it.Close()
	}
	return n
}

// TestImportRefusals checks that a bad file changes nothing at all.
func TestImportRefusals(t *testing.T) {
	a, body := exported(t, "alice", 60)
	other, foreign := exported(t, "carol", 5)
	_ = other
	root, blocks := splitCAR(t, body)
	b := newHome(t, a, true)
	if _, err := b.p.commit(b.did, []write{testWrite(actCreate, "com.example.a/mine", "mine")}, nil); err != nil {
		t.Fatal(err)
	}
	before, _ := b.p.checkRepo(b.did, b.key.Public())
	head, events := mustHead(t, b), b.p.log.Head()
	same := func(what string) {
		t.Helper()
		if h := mustHead(t, b); h.Commit != head.Commit || h.Gen != head.Gen || b.p.log.Head() != events {
			t.Fatalf("%s: the account changed", what)
		}
		if n := leftovers(t, b.p); n != 0 {
			t.Fatalf("%s: %d rows left", what, n)
		}
	}
	refuse := func(what string, file []byte) {
		t.Helper()
		if got := b.importCAR(file); got.Status != 400 || got.Name != "InvalidRequest" {
			t.Fatalf("%s: %d %s", what, got.Status, got.Body)
		}
		same(what)
	}
	refuse("another account's", foreign)
	refuse("nothing", nil)
	refuse("no CAR", []byte("hello"))
	for i := range blocks {
		refuse(fmt.Sprintf("without block %d", i), joinCAR(root, append(append([]block(nil), blocks[:i]...), blocks[i+1:]...)))
		refuse(fmt.Sprintf("cut after block %d", i), joinCAR(root, blocks[:i]))
	}
	for i := 0; i < len(body); i += 97 {
		refuse(fmt.Sprintf("cut at byte %d", i), body[:i])
		bad := bytes.Clone(body)
		bad[i] ^= 0x40
		if got := b.importCAR(bad); got.Status == 200 {
			t.Fatalf("byte %d changed: accepted", i)
		}
		same("changed byte")
	}
	key := keysOf(t, 5)
	build := func(records map[string][]byte, edit func(c *repo.Commit)) []byte {
		tree := mst.New()
		var blocks []block
		for path, r := range records {
			c := cid.Sum(cid.DagCBOR, r)
			if _, _, err := tree.Put(path, c); err != nil {
				t.Fatal(err)
			}
			blocks = append(blocks, block{c, r})
		}
		change, err := tree.Flush()
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range change.Added {
			blocks = append(blocks, block{n.CID, n.Bytes})
		}
		c := repo.Commit{DID: a.did, Data: change.Root, Rev: b.p.tids.Next(b.p.world.Clock.Now())}
		if edit != nil {
			edit(&c)
		}
		if err := c.Sign(key); err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, block{c.CID(), c.Encode()})
		return joinCAR(c.CID(), blocks)
	}
	good, _ := data.Encode(map[string]any{"$type": "com.example.thing"})
	refuse("a path without a collection", build(map[string][]byte{"nothing": good}, nil))
	refuse("a path with dots", build(map[string][]byte{"com.example.thing/..": good}, nil))
	refuse("a record that is no CBOR", build(map[string][]byte{"com.example.thing/x": []byte("\xff")}, nil))
	refuse("a revision in the future", build(map[string][]byte{"com.example.thing/x": good}, func(c *repo.Commit) { c.Rev = "jzzzzzzzzzzzz" }))
	want(t, b.importCAR(build(map[string][]byte{"com.example.thing/x": good}, nil)), 200, "")
	after, _ := b.p.checkRepo(b.did, b.key.Public())
	if len(after) != 1 || len(before) != 1 {
		t.Fatalf("%d records", len(after))
	}
}

func keysOf(t testing.TB, seed byte) *keys.PrivateKey {
	t.Helper()
	key, err := keys.Generate(keys.K256, mrand.NewChaCha8([32]byte{seed}))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestImportBlobs follows blobs through an import: missing ones are listed, uploading them makes them downloadable at once, and those of
// the state before go.
func TestImportBlobs(t *testing.T) {
	src := startPDS(t, testWorld(9), Config{})
	a := src.account("alice")
	var refs []any
	for i := range 3 {
		up := a.upload("image/png", append(bytes.Clone(png), byte(i)))
		want(t, up, 200, "")
		refs = append(refs, up.JSON["blob"])
		want(t, a.create("com.example.thing", fmt.Sprint("r", i), withBlob(up.JSON["blob"])), 200, "")
	}
	body := src.get("com.atproto.sync.getRepo?did=" + string(a.did)).Body

	p := startPDS(t, testWorld(10), Config{})
	b := p.accountWith(a.did, "moved.test", keysOf(t, 6), false)
	old := b.upload("image/png", append(bytes.Clone(png), "old"...))
	want(t, old, 200, "")
	early := append(bytes.Clone(png), 0)
	want(t, b.upload("image/png", early), 200, "")
	want(t, b.importCAR(body), 200, "")
	missing := func() []any {
		r := p.do(http.MethodGet, "com.atproto.repo.listMissingBlobs", b.token, "", nil)
		want(t, r, 200, "")
		return r.JSON["blobs"].([]any)
	}
	if got := missing(); len(got) != 2 {
		t.Fatalf("missing %v", got)
	}
	for i := range 3 {
		want(t, b.upload("application/octet-stream", append(bytes.Clone(png), byte(i))), 200, "")
	}
	if got := missing(); len(got) != 0 {
		t.Fatalf("missing %v", got)
	}
	if err := p.submitAccountEvents(context.Background(), b.did, accountChange{Account: true, Sync: true}); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		want(t, b.blob(cid.Sum(cid.Raw, append(bytes.Clone(png), byte(i)))), 200, "")
	}
	want(t, b.blob(cid.Sum(cid.Raw, append(bytes.Clone(png), "old"...))), 400, "BlobNotFound")

	// An import of a state without them takes them away.
	empty := startPDS(t, testWorld(11), Config{Memory: true})
	c := empty.accountWith(a.did, "x.test", keysOf(t, 7), true)
	if _, err := empty.commit(c.did, []write{testWrite(actCreate, "com.example.thing/new", "x")}, nil); err != nil {
		t.Fatal(err)
	}
	want(t, b.importCAR(empty.get("com.atproto.sync.getRepo?did="+string(a.did)).Body), 200, "")
	for i := range 3 {
		k := cid.Sum(cid.Raw, append(bytes.Clone(png), byte(i)))
		want(t, b.blob(k), 400, "BlobNotFound")
		if f, err := p.files.Open(string(b.did), k); err == nil {
			f.Close()
			t.Error("file of an unreferenced blob is left")
		}
	}
}

// TestImportFixtures imports real repositories.
func TestImportFixtures(t *testing.T) {
	for _, name := range []string{"cars/tiny.car", "cars/little.car", "cars/empty.car"} {
		t.Run(name, func(t *testing.T) {
			body := fixtures.Read(t, name)
			root, blocks := splitCAR(t, body)
			var commit *repo.Commit
			for _, x := range blocks {
				if x.cid == root {
					var err error
					if commit, err = repo.DecodeCommit(x.data); err != nil {
						t.Skip(err)
					}
				}
			}
			p := startPDS(t, testWorld(10), Config{})
			a := p.accountWith(commit.DID, "real.test", keysOf(t, 8), true)
			want(t, a.importCAR(body), 200, "")
			got, mine := p.checkRepo(a.did, a.key.Public())
			if mine.Data != commit.Data {
				t.Fatalf("root %s, want %s", mine.Data, commit.Data)
			}
			p.checkStore(a.did)
			t.Logf("%d records", len(got))
			if _, err := p.commit(a.did, []write{testWrite(actCreate, "com.example.thing/x", "x")}, nil); err != nil {
				t.Fatal(err)
			}
			p.checkRepo(a.did, a.key.Public())
		})
	}
}

// TestUnfinishedImport checks that the next start removes what a crash in an import left.
func TestUnfinishedImport(t *testing.T) {
	w := testWorld(1)
	p := openPDS(t, w, Config{})
	a := p.account("alice")
	b := p.store.NewBatch()
	b.Set(idKey(tableStaging, 99), appendID(nil, 1))
	b.Set(recordKey(99, "com.example.thing/x"), []byte("x"))
	b.Set(parkedKey(99, cid.Sum(cid.Raw, nil)), []byte("x"))
	if err := p.store.Apply(b, true); err != nil {
		t.Fatal(err)
	}
	b.Close()
	p.stop()
	q := startPDS(t, w, Config{})
	if n := leftovers(t, q); n != 0 {
		t.Fatalf("%d rows left", n)
	}
	q.checkRepo(a.did, a.key.Public())
}

var _ kv.Reader
