package links

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/reposync"
	"github.com/barograph/baro/reposync/reposynctest"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// dying is a store that dies before or after a certain batch, like a process that is killed.
type dying struct {
	kv.Store
	left  int // batches; below 0: never
	after bool
}

var errKilled = errors.New("killed")

func (d *dying) Apply(b kv.Batch, sync bool) error {
	if d.left == 0 {
		if d.after {
			if err := d.Store.Apply(b, sync); err != nil {
				return err
			}
		}
		return errKilled
	}
	d.left--
	return d.Store.Apply(b, sync)
}

// oracle is the index as plain maps.
type oracle struct {
	accounts map[syntax.DID]*oracleAccount
}

type oracleAccount struct {
	active  bool
	records map[string][]byte
}

func (o *oracle) apply(c *reposync.Change) {
	did := c.Repo.DID
	a := o.accounts[did]
	if a == nil {
		a = &oracleAccount{records: map[string][]byte{}}
		o.accounts[did] = a
	}
	a.active = c.Repo.Active
	if c.Purge {
		clear(a.records)
	}
	for _, op := range c.Ops {
		if op.Data == nil {
			delete(a.records, op.Path)
		} else {
			a.records[op.Path] = op.Data
		}
	}
}

// links returns the linking records of every subject, newest first.
func (o *oracle) links() (map[subject][]record, figures) {
	out := map[subject][]record{}
	var f figures
	for did, a := range o.accounts {
		if !a.active {
			continue
		}
		before := f.Records
		for path, rec := range a.records {
			collection, rkey, _ := strings.Cut(path, "/")
			ls := extract(rec)
			if len(ls) > 0 {
				f.Records++
			}
			for _, l := range ls {
				s := subject{l.target, collection, l.path}
				out[s] = append(out[s], record{string(did), collection, rkey})
			}
			f.Links += uint64(len(ls))
		}
		if f.Records > before {
			f.DIDs++
		}
	}
	f.Targets = uint64(len(out))
	time := func(rkey string) uint64 {
		if syntax.ValidTID(rkey) {
			return syntax.TID(rkey).Integer()
		}
		return 0
	}
	key := func(rkey string) string {
		if syntax.ValidTID(rkey) {
			return ""
		}
		return rkey
	}
	for _, rs := range out {
		slices.SortFunc(rs, func(a, b record) int {
			return -cmp.Or(cmp.Compare(time(a.RKey), time(b.RKey)), cmp.Compare(a.DID, b.DID), cmp.Compare(key(a.RKey), key(b.RKey)))
		})
	}
	return out, f
}

// rows counts the rows of a kind.
func rows(t testing.TB, r kv.Reader, row byte) int {
	t.Helper()
	it := r.Iter([]byte{row}, []byte{row + 1})
	n := 0
	for it.Next() {
		n++
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return n
}

// check compares an index with the oracle.
func (o *oracle) check(t *testing.T, ix *index, rnd *rand.Rand, ever map[subject]bool) {
	t.Helper()
	want, figs := o.links()
	r := ix.reader()
	defer r.Close()
	got, err := readFigures(r)
	if err != nil {
		t.Fatal(err)
	}
	if got.Started = 0; got != figs {
		t.Fatalf("figures %+v, want %+v", got, figs)
	}
	multi, hashes := 0, map[string]int{}
	for s := range want {
		ever[s] = true
	}
	for did, a := range o.accounts {
		n := 0
		for e, err := range ix.Records(did) {
			if err != nil {
				t.Fatal(err)
			}
			if rec := a.records[e.Path]; rec == nil || cid.Sum(cid.DagCBOR, rec) != e.CID {
				t.Fatalf("%s has a record at %s", did, e.Path)
			}
			n++
		}
		if n != len(a.records) {
			t.Fatalf("%s has %d records, want %d", did, n, len(a.records))
		}
		for _, rec := range a.records {
			for _, l := range extract(rec) {
				if _, _, _, ok := splitATURI(l.target); !ok && !syntax.ValidDID(l.target) {
					hashes[l.target]++
				}
			}
		}
	}
	for s := range ever {
		rs := want[s]
		l, err := r.list(s.target, s.collection, s.path)
		if err != nil {
			t.Fatal(err)
		}
		dids := map[string]uint64{}
		for _, x := range rs {
			dids[x.DID]++
		}
		for _, n := range dids {
			if n > 1 {
				multi++
			}
		}
		if l.links != uint64(len(rs)) || l.dids != uint64(len(dids)) {
			t.Fatalf("%v: %d links of %d, want %d of %d", s, l.links, l.dids, len(rs), len(dids))
		}
		filter := []string{string(reposynctest.DID("nobody"))}
		for d := range dids {
			if rnd.IntN(2) == 0 {
				filter = append(filter, d)
			}
		}
		slices.Sort(filter)
		for _, f := range [][]string{nil, filter} {
			expect := rs
			if f != nil {
				expect = slices.DeleteFunc(slices.Clone(rs), func(x record) bool { return !slices.Contains(f, x.DID) })
				if n, err := r.countOf(&l, f); err != nil || n != uint64(len(expect)) {
					t.Fatalf("%v: %d links of %v, %v, want %d", s, n, f, err, len(expect))
				}
			}
			for _, reverse := range []bool{false, true} {
				var all []record
				cursor := ""
				for first := true; first || cursor != ""; first = false {
					after, err := parseCursor(cursor)
					if err != nil {
						t.Fatal(err)
					}
					var page []record
					if page, cursor, err = r.records(&l, after, reverse, f, 1+rnd.IntN(4)); err != nil {
						t.Fatal(err)
					}
					all = append(all, page...)
				}
				if reverse {
					slices.Reverse(all)
				}
				if !slices.Equal(all, expect) {
					t.Fatalf("%v, reverse %v, filter %v:\n%v\nwant\n%v", s, reverse, f, all, expect)
				}
			}
		}
		var ds []string
		cursor := ""
		for first := true; first || cursor != ""; first = false {
			after, err := parseDIDCursor(cursor)
			if err != nil {
				t.Fatal(err)
			}
			var page []string
			if page, cursor, err = r.distinct(&l, after, 1+rnd.IntN(3)); err != nil {
				t.Fatal(err)
			}
			ds = append(ds, page...)
		}
		if !slices.Equal(ds, slices.Sorted(maps.Keys(dids))) {
			t.Fatalf("%v: accounts %v, want %v", s, ds, dids)
		}
		if s.collection == "app.bsky.feed.post" {
			o.checkMany(t, ix, s, rs, []string{"reply.root.uri", "reply.parent.uri", "subject"}[rnd.IntN(3)], rnd)
		}
	}
	for _, c := range []struct {
		row  byte
		want int
	}{{rowByTime, int(figs.Links)}, {rowByDID, int(figs.Links)}, {rowCount, int(figs.Targets)}, {rowMultiple, multi}, {rowURI, len(hashes)}, {rowURIRefs, len(hashes)}} {
		if n := rows(t, r, c.row); n != c.want {
			t.Fatalf("%d rows %c, want %d", n, c.row, c.want)
		}
	}
}

// checkMany compares the many-to-many answers for a subject, whose linking records are rs, with the oracle.
func (o *oracle) checkMany(t *testing.T, ix *index, s subject, rs []record, other string, rnd *rand.Rand) {
	t.Helper()
	var want []item
	totals, dids := map[string]uint64{}, map[string]map[string]bool{}
	for _, x := range rs {
		var others []string
		for _, l := range extract(o.accounts[syntax.DID(x.DID)].records[x.Collection+"/"+x.RKey]) {
			if l.path == other {
				others = append(others, l.target)
			}
		}
		slices.Sort(others)
		for _, l := range others {
			want = append(want, item{x, l})
			totals[l]++
			if dids[l] == nil {
				dids[l] = map[string]bool{}
			}
			dids[l][x.DID] = true
		}
	}
	h := (&Service{ix: ix, w: testWorld()}).routes()
	base := []string{"subject", s.target, "source", s.collection + ":" + s.path, "pathToOther", other, "limit", fmt.Sprint(1 + rnd.IntN(3))}
	var got []item
	for cursor := ""; ; {
		var out struct {
			Items  []item
			Cursor *string
		}
		get(t, h, query(ns+"getManyToMany", append(base, "cursor", cursor)...), &out)
		got = append(got, out.Items...)
		if out.Cursor == nil {
			break
		}
		cursor = *out.Cursor
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%v with %s: %v, want %v", s, other, got, want)
	}
	var counts []otherCount
	for cursor := ""; ; {
		var out struct {
			Counts []otherCount `json:"counts_by_other_subject"`
			Cursor *string
		}
		get(t, h, query(ns+"getManyToManyCounts", append(base, "cursor", cursor)...), &out)
		counts = append(counts, out.Counts...)
		if out.Cursor == nil {
			break
		}
		cursor = *out.Cursor
	}
	var expect []otherCount
	for _, l := range slices.Sorted(maps.Keys(totals)) {
		expect = append(expect, otherCount{l, totals[l], uint64(len(dids[l]))})
	}
	if !slices.Equal(counts, expect) {
		t.Fatalf("%v with %s: counts %v, want %v", s, other, counts, expect)
	}
	if _, body := ask(t, h, query(ns+"getManyToMany", append(base, "otherSubject", "at://nobody.example")...)); body != `{"items":[],"cursor":null}` {
		t.Fatalf("an unknown other subject: %s", body)
	}
	if _, body := ask(t, h, query(ns+"getManyToMany", append(base, "linkDid", string(reposynctest.DID("nobody")))...)); body != `{"items":[],"cursor":null}` {
		t.Fatalf("an unknown account: %s", body)
	}
}

// TestModel lets changes of all kinds come in a random order, batches be killed and delivered again, and compares every answer
// with an oracle of plain maps.
func TestModel(t *testing.T) {
	seeds, steps := 8, 120
	if testing.Short() {
		seeds, steps = 2, 80
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(uint64(seed), 2))
			mem := kv.NewMem()
			defer mem.Close()
			store := &dying{Store: mem, left: -1}
			open := func() *index {
				ix, err := openIndex(store, 0)
				if err != nil && !errors.Is(err, errKilled) {
					t.Fatal(err)
				}
				if err == nil {
					ix.walkRecords, ix.batchRows = 1+rnd.IntN(5), 1+rnd.IntN(60)
				}
				return ix
			}
			ix := open()
			o := &oracle{accounts: map[syntax.DID]*oracleAccount{}}
			ever := map[subject]bool{}
			cursor := int64(0)
			for step := range steps {
				var b reposync.Batch
				for range 1 + rnd.IntN(4) {
					c := o.randomChange(rnd)
					b.Changes = append(b.Changes, c)
					o.apply(&c)
				}
				cursor++
				b.Cursor = cursor
				if rnd.IntN(3) == 0 {
					store.left, store.after = rnd.IntN(4), rnd.IntN(2) == 0
				}
				for {
					err := errKilled
					if ix != nil {
						err = ix.Apply(context.Background(), b)
					}
					if err == nil {
						break
					}
					if !errors.Is(err, errKilled) {
						t.Fatal(err)
					}
					store.left = -1
					if rnd.IntN(3) == 0 {
						store.left = rnd.IntN(3) // kill the recovery too
					}
					ix = open()
				}
				store.left = -1
				if rnd.IntN(10) == 0 { // deliver again
					b.Cursor++
					cursor++
					if err := ix.Apply(context.Background(), b); err != nil {
						t.Fatal(err)
					}
				}
				if step%5 == 4 || step == steps-1 {
					o.check(t, ix, rnd, ever)
					if got, _, err := ix.Load(); err != nil || got != cursor {
						t.Fatalf("cursor %d, %v, want %d", got, err, cursor)
					}
				}
			}
		})
	}
}

// randomChange is something that may happen to one of a few accounts.
func (o *oracle) randomChange(rnd *rand.Rand) reposync.Change {
	did := reposynctest.DID(fmt.Sprint("m", rnd.IntN(7)))
	if rnd.IntN(8) == 0 {
		did = "did:web:odd.example"
	}
	r := reposync.NewRepo(did)
	r.State, r.Active = reposync.Synchronized, true
	a := o.accounts[did]
	if a != nil {
		r.Active = a.active
	}
	c := reposync.Change{Repo: r}
	switch k := rnd.IntN(20); {
	case k == 0:
		c.Repo.Active, c.Repo.Status = false, stream.StatusDeactivated
	case k < 3:
		c.Repo.Active = true
	case k == 3:
		c.Purge, c.Repo.Active = true, rnd.IntN(2) == 0
	}
	for range rnd.IntN(12) {
		targets := []string{
			"did:web:x.example", string(reposynctest.DID("m1")), "https://example.com/" + fmt.Sprint(rnd.IntN(3)), "x:" + strings.Repeat("y", 50),
			"at://" + string(reposynctest.DID("m2")) + "/app.bsky.feed.post/" + tid(rnd.IntN(3)),
			"at://did:web:x.example/app.bsky.feed.post/self", "at://" + string(reposynctest.DID("m2")), "at://" + string(reposynctest.DID("m2")) + "/a.b.c", "at://handle.example/a.b.c/d",
			"not a link",
		}
		pick := func() string { return targets[rnd.IntN(len(targets))] }
		op := reposync.Op{Action: repo.ActionCreate, Path: "app.bsky.feed.like/" + tid(rnd.IntN(12))}
		if rnd.IntN(3) == 0 {
			op.Path = "app.bsky.feed.post/" + []string{"self", "a", "b", "2222222222222", tid(rnd.IntN(4))}[rnd.IntN(5)]
		}
		switch rnd.IntN(4) {
		case 0:
			op.Action = repo.ActionDelete
		case 1:
			op.Data = reply(pick(), pick(), pick())
		case 2:
			op.Data = like(pick())
		default:
			op.Data = follow(pick())
		}
		if op.Data != nil {
			op.CID = cid.Sum(cid.DagCBOR, op.Data)
		}
		c.Ops = append(c.Ops, op)
	}
	return c
}

// TestCursorsAreStable reads pages while links come and go: what was there all the time is read once.
func TestCursorsAreStable(t *testing.T) {
	rnd := rand.New(rand.NewPCG(4, 4))
	ix := benchIndex(t, kv.NewMem())
	defer ix.store.Close()
	const target = "at://did:web:x.example/app.bsky.feed.post/self"
	change := func(did syntax.DID, n int, data []byte) {
		r := reposync.NewRepo(did)
		op := reposync.Op{Path: "app.bsky.feed.like/" + tid(n), Data: data}
		if data != nil {
			op.CID = cid.Sum(cid.DagCBOR, data)
		}
		if err := ix.Apply(context.Background(), reposync.Batch{Changes: []reposync.Change{{Repo: r, Ops: []reposync.Op{op}}}}); err != nil {
			t.Fatal(err)
		}
	}
	stable := map[record]int{}
	for n := range 60 {
		did := reposynctest.DID(fmt.Sprint(n % 3))
		change(did, 2*n, like(target))
		stable[record{string(did), "app.bsky.feed.like", tid(2 * n)}] = 0
	}
	for _, reverse := range []bool{false, true} {
		for _, filter := range [][]string{nil, {string(reposynctest.DID("0")), string(reposynctest.DID("1")), string(reposynctest.DID("2")), string(reposynctest.DID("other"))}} {
			clear(stable)
			cursor := ""
			for first := true; first || cursor != ""; first = false {
				after, err := parseCursor(cursor)
				if err != nil {
					t.Fatal(err)
				}
				r := ix.reader()
				l, err := r.list(target, "app.bsky.feed.like", "subject.uri")
				if err != nil {
					t.Fatal(err)
				}
				var page []record
				if page, cursor, err = r.records(&l, after, reverse, filter, 7); err != nil {
					t.Fatal(err)
				}
				r.Close()
				for _, x := range page {
					stable[x]++
				}
				for range 5 {
					n := 2*rnd.IntN(60) + 1
					if rnd.IntN(2) == 0 {
						change(reposynctest.DID("other"), n, like(target))
					} else {
						change(reposynctest.DID("other"), n, nil)
					}
				}
			}
			n := 0
			for x, times := range stable {
				if times != 1 {
					t.Errorf("%v was read %d times", x, times)
				}
				if x.DID != string(reposynctest.DID("other")) {
					n++
				}
			}
			if n != 60 {
				t.Errorf("%d read, want 60", n)
			}
		}
	}
}

func benchIndex(t testing.TB, store kv.Store) *index {
	t.Helper()
	ix, err := openIndex(store, uint64(time.Now().UnixMicro()))
	if err != nil {
		t.Fatal(err)
	}
	return ix
}
