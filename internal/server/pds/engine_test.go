package pds

import (
	"context"
	"fmt"
	"maps"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// record makes a record and the write of it.
func testWrite(act action, path, text string) write {
	b, err := data.Encode(map[string]any{"$type": "com.example.thing", "text": text})
	if err != nil {
		panic(err)
	}
	return write{Action: act, Path: path, Record: b, CID: cid.Sum(cid.DagCBOR, b)}
}

// chain verifies the events of one account in order and folds them into a map, knowing nothing but the key.
type chain struct {
	did     syntax.DID
	key     *keys.PublicKey
	state   repo.State
	records map[string]cid.CID
	rev     string
	commits int
	syncs   int
}

func (c *chain) event(t testing.TB, m stream.Message) {
	t.Helper()
	switch m := m.(type) {
	case *stream.Sync:
		if m.DID != string(c.did) {
			return
		}
		c.syncs++
		var err error
		c.state, err = repo.VerifySync(repo.SyncMessage{DID: m.DID, Rev: m.Rev, Time: m.Time, Blocks: m.Blocks}, c.key, nil, repo.VerifyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c.rev = m.Rev
	case *stream.Commit:
		if m.Repo != string(c.did) {
			return
		}
		c.commits++
		if m.Rev <= c.rev || m.Since != c.rev {
			t.Fatalf("commit of rev %s since %s after %s", m.Rev, m.Since, c.rev)
		}
		if m.PrevData != c.state.Data {
			t.Fatalf("prevData is %s, the commit before has %s", m.PrevData, c.state.Data)
		}
		x := repo.CommitMessage{
			Repo: m.Repo, Rev: m.Rev, Since: m.Since, Time: m.Time, Commit: m.Commit, PrevData: m.PrevData, Blocks: m.Blocks,
			TooBig: m.TooBig, Rebase: m.Rebase,
		}
		for _, op := range m.Ops {
			x.Ops = append(x.Ops, repo.Op(op))
		}
		var err error
		if c.state, err = repo.VerifyCommit(x, c.key, &c.state, repo.VerifyOptions{Records: repo.RecordsStrict, RefuseFlags: true}); err != nil {
			t.Fatalf("seq %d: %v", m.Seq, err)
		}
		c.rev = m.Rev
		for _, op := range m.Ops {
			if c.records[op.Path] != op.Prev {
				t.Fatalf("%s of %s: previous value %s, was %s", op.Action, op.Path, op.Prev, c.records[op.Path])
			}
			if op.CID.Defined() {
				c.records[op.Path] = op.CID
			} else {
				delete(c.records, op.Path)
			}
		}
	}
}

// checkChain folds all events of an account and compares with its export.
func (a *testAccount) checkChain() *chain {
	a.p.t.Helper()
	c := &chain{did: a.did, key: a.key.Public(), records: map[string]cid.CID{}}
	for _, m := range a.p.frames() {
		c.event(a.p.t, m)
	}
	records, commit := a.p.checkRepo(a.did, a.key.Public())
	if string(commit.Rev) != c.rev {
		a.p.t.Fatalf("export has rev %s, the stream %s", commit.Rev, c.rev)
	}
	if !maps.Equal(records, c.records) {
		a.p.t.Fatalf("export has %d records, the stream %d, or other ones", len(records), len(c.records))
	}
	a.p.checkStore(a.did)
	return c
}

// TestEngineAgainstModel does random batches against a plain map, and checks the answers, the export, every row of the store and every
// event of the stream. The tree in memory is trimmed and thrown away now and then.
func TestEngineAgainstModel(t *testing.T) {
	batches := 1500
	if testing.Short() {
		batches = 300
	}
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			p := startPDS(t, testWorld(byte(seed)), Config{Memory: true, OpenRepos: 2})
			a := p.account("alice")
			rnd := mrand.New(mrand.NewPCG(seed, 7))
			model := map[string]cid.CID{}
			path := func() string {
				return fmt.Sprintf("com.example.%c/%d", 'a'+rune(rnd.IntN(3)), rnd.IntN(200))
			}
			for n := range batches {
				next := maps.Clone(model)
				var writes []write
				fits := true
				for range 1 + rnd.IntN(5) {
					at := path()
					_, had := next[at]
					w := testWrite(action(rnd.IntN(5)), at, fmt.Sprint(rnd.IntN(30)))
					if w.Action == actDelete || w.Action == actEnsureGone {
						w.Record, w.CID = nil, cid.CID{}
					}
					switch {
					case w.Action == actCreate && had, w.Action == actUpdate && !had, w.Action == actDelete && !had:
						fits = false
					}
					if w.Record == nil {
						delete(next, at)
					} else {
						next[at] = w.CID
					}
					writes = append(writes, w)
				}
				done, err := p.commit(a.did, writes, nil)
				if fits != (err == nil) {
					t.Fatalf("batch %d: fits is %v, error %v", n, fits, err)
				}
				if !fits {
					continue
				}
				if changed := !maps.Equal(model, next); changed != done.Changed {
					t.Fatalf("batch %d: changed is %v, the engine says %v", n, changed, done.Changed)
				}
				model = next
				if rnd.IntN(40) == 0 {
					r, err := p.acquire(a.did)
					if err != nil {
						t.Fatal(err)
					}
					if rnd.IntN(2) == 0 {
						r.tree.Trim(rnd.IntN(20))
					} else {
						r.forget()
					}
					p.release(r)
				}
			}
			c := a.checkChain()
			if !maps.Equal(c.records, model) {
				t.Fatalf("the model has %d records, the stream %d, or other ones", len(model), len(c.records))
			}
			if c.commits < batches/4 {
				t.Fatalf("only %d commits in %d batches", c.commits, batches)
			}
		})
	}
}

// TestConcurrentWriters has several writers on the same and on different repositories.
func TestConcurrentWriters(t *testing.T) {
	p := startPDS(t, testWorld(1), Config{OpenRepos: 2})
	var accounts []*testAccount
	for i := range 4 {
		accounts = append(accounts, p.account(fmt.Sprint("user", i)))
	}
	const writers, each = 8, 40
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				a := accounts[0]
				if w >= writers/2 {
					a = accounts[(w+i)%len(accounts)]
				}
				path := fmt.Sprintf("com.example.thing/%d-%d", w, i)
				if _, err := p.commit(a.did, []write{testWrite(actCreate, path, path)}, nil); err != nil {
					t.Errorf("writing: %v", err)
					return
				}
				// What was acknowledged is there for every reader at once.
				head, err := loadHead(p.store, a.did)
				if err != nil {
					t.Error(err)
					return
				}
				if rec, err := getStored(p.store, head.Gen, path); err != nil || rec == nil {
					t.Errorf("own write of %s not readable: %v", path, err)
				}
			}
		})
	}
	wg.Wait()
	total := 0
	for _, a := range accounts {
		total += len(a.checkChain().records)
	}
	if total != writers*each {
		t.Fatalf("%d records, %d were acknowledged", total, writers*each)
	}
}

// TestRestart closes and opens a service again and again: everything is as it was, and sequence numbers and revisions go on.
func TestRestart(t *testing.T) {
	w := testWorld(2)
	var key *keys.PrivateKey
	var did syntax.DID
	last := int64(0)
	var head *headRow
	for round := range 4 {
		p := openPDS(t, w, Config{})
		var a *testAccount
		if round == 0 {
			a = p.account("alice")
			did, key = a.did, a.key
		} else {
			now, err := loadHead(p.store, did)
			if err != nil || now == nil || now.Commit != head.Commit || now.Rev != head.Rev {
				t.Fatalf("head after restart: %+v, was %+v (%v)", now, head, err)
			}
			a = p.login(did, key)
			if p.log.Head() < last {
				t.Fatalf("the log's head went back from %d to %d", last, p.log.Head())
			}
		}
		for i := range 30 {
			path := fmt.Sprintf("com.example.thing/%d-%d", round, i)
			if _, err := p.commit(did, []write{testWrite(actCreate, path, path)}, nil); err != nil {
				t.Fatal(err)
			}
		}
		c := a.checkChain()
		if want := 30 * (round + 1); len(c.records) != want {
			t.Fatalf("round %d: %d records, want %d", round, len(c.records), want)
		}
		last = p.log.Head()
		var err error
		if head, err = loadHead(p.store, did); err != nil {
			t.Fatal(err)
		}
		p.stop()
	}
}

// TestPowerLoss takes the disk away while writers are busy, keeping only what was synced and a random part of the rest, and opens what is
// left: everything that was acknowledged is there, nothing is half there, and no sequence number comes twice.
func TestPowerLoss(t *testing.T) {
	rounds := 12
	if testing.Short() {
		rounds = 4
	}
	for seed := range uint64(rounds) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rnd := mrand.New(mrand.NewPCG(seed, 11))
			mem := vfs.NewCrashableMem()
			w := testWorld(byte(seed))
			w.FS = mem
			p := openPDS(t, w, Config{})
			accounts := []*testAccount{p.account("alice"), p.account("bob")}

			type ack struct {
				did  syntax.DID
				path string
				cid  cid.CID
			}
			var mu sync.Mutex
			var acked []ack
			var seen int64 // a subscriber saw this number
			stop := make(chan struct{})
			cut := make(chan struct{})
			var wg sync.WaitGroup
			for n := range 4 {
				wg.Go(func() {
					for i := 0; ; i++ {
						select {
						case <-stop:
							return
						default:
						}
						a := accounts[(n+i)%2]
						wr := testWrite(actPut, fmt.Sprintf("com.example.thing/%d-%d", n, i), fmt.Sprint(i))
						if _, err := p.commit(a.did, []write{wr}, nil); err != nil {
							t.Errorf("writing: %v", err)
							return
						}
						mu.Lock()
						acked = append(acked, ack{a.did, wr.Path, wr.CID})
						if len(acked) == 50+int(seed)*7 {
							close(cut)
						}
						mu.Unlock()
					}
				})
			}
			wg.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					a := accounts[i%2]
					blob, err := p.upload(context.Background(), a.did, strings.NewReader(fmt.Sprint("blob ", i)), "text/plain", -1)
					if err != nil {
						t.Errorf("uploading: %v", err)
						return
					}
					b, err := data.Encode(map[string]any{"$type": "com.example.thing", "file": *blob})
					if err != nil {
						t.Error(err)
						return
					}
					wr := write{Action: actPut, Path: fmt.Sprintf("com.example.thing/file%d", i%7), Record: b, CID: cid.Sum(cid.DagCBOR, b), Blobs: []data.Blob{*blob}}
					if _, err := p.commit(a.did, []write{wr}, nil); err != nil {
						t.Errorf("writing: %v", err)
						return
					}
				}
			})
			<-cut
			mu.Lock()
			before := slices.Clone(acked)
			seen = p.log.Head()
			mu.Unlock()
			left := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rnd.IntN(101), RNG: rnd})
			close(stop)
			wg.Wait()
			p.stop()

			w.FS = left
			q := startPDS(t, w, Config{})
			if q.log.Head() < seen {
				t.Fatalf("the log ends at %d after the crash, subscribers had seen %d", q.log.Head(), seen)
			}
			for _, a := range accounts {
				b := q.login(a.did, a.key)
				got := b.checkChain().records
				for _, x := range before {
					if x.did == a.did && got[x.path] != x.cid {
						t.Fatalf("acknowledged record %s is lost", x.path)
					}
				}
				if _, err := q.commit(a.did, []write{testWrite(actCreate, "com.example.thing/after", "x")}, nil); err != nil {
					t.Fatal(err)
				}
				b.checkChain()
				// Every blob that has a row has its bytes, and every reference a row.
				h := mustHead(t, b)
				lo, hi := genRange(tableBlob, h.account)
				it := q.store.Iter(lo, hi)
				for ok := it.First(); ok; ok = it.Next() {
					if _, err := q.files.ReadAll(string(a.did), cid.CID(it.Key()[9:])); err != nil {
						t.Fatalf("blob %s: %v", cid.CID(it.Key()[9:]), err)
					}
				}
				it.Close()
				if missing, _, err := q.missingPage(q.store, h, cid.CID{}, 10); err != nil || len(missing) > 0 {
					t.Fatalf("missing blobs %v %v", missing, err)
				}
			}
		})
	}
}

// TestStatusGate checks that no commit follows the event that makes an account inactive.
func TestStatusGate(t *testing.T) {
	p := startPDS(t, testWorld(3), Config{Memory: true})
	a := p.account("alice")
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			for i := range 50 {
				if _, err := p.commit(a.did, []write{testWrite(actPut, fmt.Sprintf("com.example.thing/%d-%d", n, i), "x")}, nil); err != nil {
					return
				}
			}
		})
	}
	err := p.submitAccountEvents(context.Background(), a.did, accountChange{Account: true, Status: hostingDeactivated})
	if err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	inactive := false
	for _, m := range p.frames() {
		switch m := m.(type) {
		case *stream.Account:
			inactive = !m.Active
		case *stream.Commit:
			if inactive {
				t.Fatal("a commit after the account was deactivated")
			}
		}
	}
	if !inactive {
		t.Fatal("no #account event")
	}
	if err := p.submitAccountEvents(context.Background(), a.did, accountChange{Account: true, Sync: true, NewCommit: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.commit(a.did, []write{testWrite(actPut, "com.example.thing/again", "x")}, nil); err != nil {
		t.Fatal(err)
	}
	a.checkChain()
}

// seekCounter counts the rows that a reader looks at.
type seekCounter struct {
	kv.Reader
	rows int
}

type countingIter struct {
	kv.Iterator
	c *seekCounter
}

func (c *seekCounter) Iter(lo, hi []byte) kv.Iterator { return countingIter{c.Reader.Iter(lo, hi), c} }
func (i countingIter) Value() []byte                  { i.c.rows++; return i.Iterator.Value() }

// TestTreeSourceSeeksOnly checks that opening and walking a stored tree looks at one row per node: positions lead to every node. With
// rows in the way that commits on their way remove, it still finds them.
func TestTreeSourceSeeksOnly(t *testing.T) {
	p := startPDS(t, testWorld(4), Config{Memory: true})
	a := p.account("alice")
	for i := range 20 {
		var writes []write
		for j := range 50 {
			writes = append(writes, testWrite(actPut, fmt.Sprintf("com.example.thing/%d", (i*50+j)*7919%1000), fmt.Sprint(i)))
		}
		if _, err := p.commit(a.did, writes, nil); err != nil {
			t.Fatal(err)
		}
	}
	head, err := loadHead(p.store, a.did)
	if err != nil {
		t.Fatal(err)
	}
	p.checkStore(a.did)
	nodes := 0
	it := p.store.Iter(genRange(tableBlock, head.Gen))
	for ok := it.First(); ok; ok = it.Next() {
		if _, layer, err := splitBlockKey(it.Key()); err != nil {
			t.Fatal(err)
		} else if layer >= 0 {
			nodes++
		}
	}
	it.Close()
	walk := func(from kv.Reader) {
		t.Helper()
		n := 0
		for _, err := range storedTree(from, head.Gen, head.Data).Walk() {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != 1000 {
			t.Fatalf("walked %d records", n)
		}
	}
	c := &seekCounter{Reader: p.store}
	walk(c)
	if c.rows != nodes {
		t.Fatalf("%d nodes took %d rows", nodes, c.rows)
	}
	b := p.store.NewBatch()
	for i := range 1000 { // a record and a node after each record
		path := fmt.Sprintf("com.example.thing/%d!", i)
		b.Set(recordKey(head.Gen, path), appendBlock(nil, head.Rev, cid.Sum(cid.DagCBOR, []byte(path)), nil))
		b.Set(nodeKey(head.Gen, path, 0), appendBlock(nil, head.Rev, cid.Sum(cid.DagCBOR, []byte(path+"n")), nil))
	}
	if err := p.store.Apply(b, true); err != nil {
		t.Fatal(err)
	}
	b.Close()
	walk(p.store)
	want := map[cid.CID]bool{head.Data: true, cid.Sum(cid.Raw, nil): true}
	if found, err := p.nodes.find(t.Context(), p.store, head, want); err != nil || len(found) != 1 || !head.Data.Verify(found[head.Data]) {
		t.Fatalf("nodes by CID: %v, %v", found, err)
	}
}

var _ kv.Reader

// TestDeletedAccountReturns deletes an account and makes it anew: nothing of the old repository is left and revisions go on.
func TestDeletedAccountReturns(t *testing.T) {
	p := startPDS(t, testWorld(5), Config{Memory: true})
	a := p.account("alice")
	if _, err := p.commit(a.did, []write{testWrite(actCreate, "com.example.thing/old", "x")}, nil); err != nil {
		t.Fatal(err)
	}
	old := mustHead(t, a)
	acc, err := p.Service.account(a.did)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.removeAccount(context.Background(), acc); err != nil {
		t.Fatal(err)
	}
	if lo, hi := genRange(tableBlock, old.Gen); p.store.Iter(lo, hi).First() {
		t.Error("blocks of the deleted account are left")
	}
	want(t, p.get("com.atproto.sync.getRepo?did="+string(a.did)), 400, "RepoNotFound")
	if st := p.get("com.atproto.sync.getRepoStatus?did=" + string(a.did)); st.str("status") != "deleted" {
		t.Errorf("status %s", st.Body)
	}
	b := p.accountWith(a.did, "alice.test", a.key, true)
	if now := mustHead(t, b); now.Rev <= old.Rev || now.Gen == old.Gen {
		t.Errorf("head %+v after %+v", now, old)
	}
	if _, err := p.commit(b.did, []write{testWrite(actCreate, "com.example.thing/new", "x")}, nil); err != nil {
		t.Fatal(err)
	}
	records, _ := p.checkRepo(b.did, b.key.Public())
	if len(records) != 1 {
		t.Errorf("%d records", len(records))
	}
	p.checkStore(b.did)
}
