package links

import (
	"context"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/reposync"
	"github.com/barograph/baro/reposync/reposynctest"
	"github.com/barograph/baro/syntax"
)

func openBench(b *testing.B) *index {
	b.Helper()
	store, err := kv.Open(vfs.Default, b.TempDir(), false, kv.PebbleOptions{CacheBytes: 64 << 20, MemTableBytes: 64 << 20})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = store.Close() })
	return benchIndex(b, store)
}

// generator makes likes of recent posts by accounts of which some are busy.
type generator struct {
	n    int
	dids []syntax.DID
}

func newGenerator(accounts int) *generator {
	g := &generator{}
	for i := range accounts {
		g.dids = append(g.dids, reposynctest.DID(fmt.Sprint(i)))
	}
	return g
}

const firstMicros = 1_767_225_600_000_000

func (g *generator) change(target string) reposync.Change {
	g.n++
	who := g.n * 7919 % len(g.dids)
	who = who * who / len(g.dids) // the first ones write most
	rec := like(target)
	path := "app.bsky.feed.like/" + string(syntax.NewTID(firstMicros+int64(g.n)*1000, 1))
	r := reposync.NewRepo(g.dids[who])
	r.State, r.Rev = reposync.Synchronized, syntax.NewTID(firstMicros+int64(g.n)*1000, 2)
	return reposync.Change{Repo: r, Live: true, Ops: []reposync.Op{{Action: repo.ActionCreate, Path: path, CID: cid.Sum(cid.DagCBOR, rec), Data: rec}}}
}

func (g *generator) post() string {
	n := g.n/5 - g.n*31%1000
	if n < 0 {
		n = 0
	}
	return "at://" + string(g.dids[n%len(g.dids)]) + "/app.bsky.feed.post/" + string(syntax.NewTID(firstMicros-int64(n)*1000, 3))
}

// BenchmarkInsert measures links that are written one record per change, as the stream brings them, in batches of 1,000, and in
// batches of one.
func BenchmarkInsert(b *testing.B) {
	for _, size := range []int{1000, 1} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			ix := openBench(b)
			g := newGenerator(20_000)
			var batch reposync.Batch
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				batch.Changes = append(batch.Changes, g.change(g.post()))
				if len(batch.Changes) == size || i == b.N-1 {
					batch.Cursor++
					if err := ix.Apply(context.Background(), batch); err != nil {
						b.Fatal(err)
					}
					batch.Changes = batch.Changes[:0]
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "links/s")
		})
	}
}

// BenchmarkLarge measures counts and pages of one target with a million links (20,000 with -short).
func BenchmarkLarge(b *testing.B) {
	links := 1_000_000
	if testing.Short() {
		links = 20_000
	}
	ix := openBench(b)
	g := newGenerator(50_000)
	target := "at://" + string(g.dids[0]) + "/app.bsky.feed.post/self"
	for done := 0; done < links; {
		var batch reposync.Batch
		for ; done < links && len(batch.Changes) < 2000; done++ {
			batch.Changes = append(batch.Changes, g.change(target))
		}
		if err := ix.Apply(context.Background(), batch); err != nil {
			b.Fatal(err)
		}
	}
	find := func(r reader) list {
		l, err := r.list(target, "app.bsky.feed.like", "subject.uri")
		if err != nil || l.links != uint64(links) {
			b.Fatal(l.links, err)
		}
		return l
	}
	run := func(name string, f func(r reader)) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := ix.reader()
				f(r)
				r.Close()
			}
		})
	}
	r := ix.reader()
	l := find(r)
	_, middle, err := r.records(&l, nil, false, nil, links/2)
	if err != nil {
		b.Fatal(err)
	}
	r.Close()
	page := func(cursor string, reverse bool, filter []string, want int) func(reader) {
		return func(r reader) {
			after, err := parseCursor(cursor)
			if err != nil {
				b.Fatal(err)
			}
			l := find(r)
			recs, _, err := r.records(&l, after, reverse, filter, 100)
			if err != nil || len(recs) != want {
				b.Fatal(len(recs), err)
			}
		}
	}
	run("count", func(r reader) { find(r) })
	run("newest100", page("", false, nil, 100))
	run("middle100", page(middle, false, nil, 100))
	run("oldest100", page("", true, nil, 100))
	run("ofTwoAccounts", page("", false, []string{string(g.dids[0]), string(g.dids[1])}, 100))
	run("accounts100", func(r reader) {
		l := find(r)
		if dids, _, err := r.distinct(&l, nil, 100); err != nil || len(dids) != 100 {
			b.Fatal(len(dids), err)
		}
	})
}
