package pds

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/kv"
)

// fill writes records, the i-th of which is at a path of its number.
func (a *testAccount) fill(t testing.TB, from, to int, text string) {
	t.Helper()
	for i := from; i < to; {
		var writes []write
		for ; i < to && len(writes) < 200; i++ {
			writes = append(writes, testWrite(actPut, fmt.Sprintf("app.bsky.feed.post/%07d", i*7919%10_000_000), text))
		}
		if _, err := a.p.commit(a.did, writes, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// nodesOf lists the nodes of a repository in the order of its export.
func nodesOf(t testing.TB, from kv.Reader, gen uint64) (nodes []cid.CID, rows int) {
	t.Helper()
	it := from.Iter(genRange(tableBlock, gen))
	defer it.Close()
	all := map[cid.CID]bool{}
	for ok := it.First(); ok; ok = it.Next() {
		rows++
		if _, layer, err := splitBlockKey(it.Key()); err != nil {
			t.Fatal(err)
		} else if layer >= 0 {
			_, c, _, err := splitBlock(it.Value())
			if err != nil || all[c] {
				t.Fatal(c, err)
			}
			all[c] = true
			nodes = append(nodes, c)
		}
	}
	return nodes, rows
}

func wanted(cids ...cid.CID) map[cid.CID]bool {
	m := map[cid.CID]bool{}
	for _, c := range cids {
		m[c] = true
	}
	return m
}

// finds looks for nodes and returns how many rows were read for them.
func (p *testPDS) finds(t testing.TB, a *testAccount, n int, cids ...cid.CID) (rows int) {
	t.Helper()
	snap := p.store.Snapshot()
	defer snap.Close()
	head, err := loadHead(snap, a.did)
	if err != nil {
		t.Fatal(err)
	}
	c := &seekCounter{Reader: snap}
	found, err := p.nodes.find(t.Context(), c, head, wanted(cids...))
	if err != nil || len(found) != n {
		t.Fatalf("%d of %d nodes, want %d: %v", len(found), len(cids), n, err)
	}
	for c, b := range found {
		if !c.Verify(b) {
			t.Fatalf("the node %s is another one", c)
		}
	}
	return c.rows
}

func TestNodeIndex(t *testing.T) {
	p := startPDS(t, testWorld(3), Config{Memory: true})
	a := p.account("alice")
	a.fill(t, 0, 4000, "first")
	nodes, rows := nodesOf(t, p.store, mustHead(t, a).Gen)
	nobody := cid.Sum(cid.DagCBOR, []byte("nobody's"))
	if got := p.finds(t, a, 1, nodes[7], nobody); got != len(nodes) {
		t.Errorf("the first request read %d of %d nodes", got, len(nodes))
	}
	// From then on a node costs its neighbours at most, a batch in tree order hardly more than itself, and what isn't there nothing.
	for i := 0; i < len(nodes); i += 64 {
		batch := nodes[i:min(i+64, len(nodes))]
		if got := p.finds(t, a, len(batch), batch...); got > len(batch)+2*markEvery {
			t.Errorf("%d nodes in order: %d rows", len(batch), got)
		}
	}
	for i := range 64 {
		c := nodes[i*len(nodes)/64]
		if got := p.finds(t, a, 1, c); got > markEvery {
			t.Errorf("one node: %d rows", got)
		}
	}
	if got := p.finds(t, a, 0, nobody); got > 0 {
		t.Errorf("a node that isn't there: %d rows", got)
	}
	// A write leaves the index as good for all that it leaves.
	a.fill(t, 4000, 4020, "second")
	now, _ := nodesOf(t, p.store, mustHead(t, a).Gen)
	was, is := wanted(nodes...), wanted(now...)
	var kept, fresh, gone []cid.CID
	for _, c := range now {
		if was[c] {
			kept = append(kept, c)
		} else {
			fresh = append(fresh, c)
		}
	}
	for _, c := range nodes {
		if !is[c] {
			gone = append(gone, c)
		}
	}
	if len(kept) < len(now)/2 || len(fresh) < 20 || len(gone) < 10 {
		t.Fatalf("%d nodes were kept, %d are new, %d are gone", len(kept), len(fresh), len(gone))
	}
	for i := 0; i < len(kept); i += 64 {
		batch := kept[i:min(i+64, len(kept))]
		if got := p.finds(t, a, len(batch), batch...); got > 2*len(batch)+2*markEvery+len(fresh) {
			t.Errorf("%d nodes of an earlier revision: %d rows", len(batch), got)
		}
	}
	if got := p.finds(t, a, len(fresh), fresh...); got < len(now)/2 {
		t.Errorf("new nodes were found in %d rows: where is the index from?", got)
	}
	for range 3 {
		if got := p.finds(t, a, 1, fresh[0], gone[0]); got > 2*markEvery {
			t.Errorf("a new node and one that is gone: %d rows", got)
		}
	}
	if len(p.nodes.kept) != 1 || p.nodes.bytes != p.nodes.kept[0].size() {
		t.Errorf("%d indexes of %d bytes", len(p.nodes.kept), p.nodes.bytes)
	}
	// A reader with an older snapshot gets what that has, and leaves the newer index alone.
	snap := p.store.Snapshot()
	defer snap.Close()
	old := mustHead(t, a)
	a.fill(t, 4020, 4040, "third")
	latest, _ := nodesOf(t, p.store, old.Gen)
	p.finds(t, a, len(latest), latest...)
	newest := p.nodes.kept[0]
	if found, err := p.nodes.find(t.Context(), snap, old, wanted(now...)); err != nil || len(found) != len(now) {
		t.Errorf("%d of %d nodes of an older snapshot: %v", len(found), len(now), err)
	}
	if p.nodes.kept[0] != newest {
		t.Error("an older index took the place of a newer one")
	}
	if per := float64(newest.size()) / float64(rows); per > 6 {
		t.Errorf("%.1f bytes for a block of the repository", per)
	}
}

// The memory of all indexes is bounded, by forgetting the one that was not used for longest, and not making one that is too large.
func TestNodeIndexBound(t *testing.T) {
	p := startPDS(t, testWorld(3), Config{Memory: true})
	var accounts []*testAccount
	var nodes [][]cid.CID
	for i := range 3 {
		a := p.account(fmt.Sprint("alice", i))
		a.fill(t, 0, 400, fmt.Sprint(i))
		list, _ := nodesOf(t, p.store, mustHead(t, a).Gen)
		accounts, nodes = append(accounts, a), append(nodes, list)
	}
	p.finds(t, accounts[0], 1, nodes[0][0])
	p.nodes.max = 2*p.nodes.bytes + p.nodes.bytes/2
	p.finds(t, accounts[1], 1, nodes[1][0])
	p.finds(t, accounts[0], 1, nodes[0][1])
	p.finds(t, accounts[2], 1, nodes[2][0]) // the second one goes
	if len(p.nodes.kept) != 2 || p.nodes.bytes > p.nodes.max {
		t.Errorf("%d indexes of %d bytes", len(p.nodes.kept), p.nodes.bytes)
	}
	if got := p.finds(t, accounts[0], 1, nodes[0][2]); got > markEvery {
		t.Errorf("the index used last was forgotten: %d rows", got)
	}
	if got := p.finds(t, accounts[1], 1, nodes[1][2]); got < len(nodes[1]) {
		t.Errorf("the index used first was kept: %d rows", got)
	}
	p.nodes = newNodeIndexes(1000)
	for range 2 { // without an index everything still works
		p.finds(t, accounts[0], len(nodes[0]), nodes[0]...)
		p.finds(t, accounts[0], 0, nodes[1][0])
	}
	if p.nodes.bytes != 0 || len(p.nodes.kept) != 0 {
		t.Errorf("%d bytes are kept", p.nodes.bytes)
	}
}

// Readers find every node of their snapshot while somebody writes.
func TestNodeIndexRaces(t *testing.T) {
	p := startPDS(t, testWorld(3), Config{Memory: true})
	a := p.account("alice")
	a.fill(t, 0, 1000, "x")
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 40 {
			a.fill(t, i*25, i*25+10, fmt.Sprint("y", i))
		}
	})
	for range 3 {
		wg.Go(func() {
			for range 25 {
				snap := p.store.Snapshot()
				head, err := loadHead(snap, a.did)
				if err != nil {
					t.Error(err)
				}
				list, _ := nodesOf(t, snap, head.Gen)
				found, err := p.nodes.find(t.Context(), snap, head, wanted(list...))
				if err != nil || len(found) != len(list) {
					t.Errorf("%d of %d nodes: %v", len(found), len(list), err)
				}
				snap.Close()
			}
		})
	}
	wg.Wait()
}

// BenchmarkResume compares fetching the last fifth of a repository in blocks, 64 at a time, with exporting all of it.
func BenchmarkResume(b *testing.B) {
	a := benchPDS(b, 1)[0]
	a.fill(b, 0, 100_000, "a post of some length, as posts are")
	path := "com.atproto.sync.getRepo?did=" + string(a.did)
	_, blocks := splitCAR(b, a.p.get(path).Body)
	missing := blocks[len(blocks)*4/5:]
	for name, max := range map[string]int64{"index": maxNodeIndexBytes, "no-index": 1} {
		b.Run(name, func(b *testing.B) { benchResume(b, a, path, missing, max) })
	}
}

func benchResume(b *testing.B, a *testAccount, path string, missing []block, max int64) {
	var export, resume time.Duration
	for b.Loop() {
		start := time.Now()
		want(b, a.p.get(path), 200, "")
		export += time.Since(start)
		start = time.Now()
		a.p.nodes = newNodeIndexes(max)
		for i := 0; i < len(missing); i += 64 {
			q := "com.atproto.sync.getBlocks?did=" + string(a.did)
			for _, m := range missing[i:min(i+64, len(missing))] {
				q += "&cids=" + m.cid.String()
			}
			want(b, a.p.get(q), 200, "")
		}
		resume += time.Since(start)
	}
	b.ReportMetric(float64(resume)/float64(export), "resume/export")
	b.ReportMetric(export.Seconds()/float64(b.N), "export-s")
}
