package main

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/mst"
	peer "github.com/bluesky-social/indigo/atproto/repo/mst"
	gocid "github.com/ipfs/go-cid"
)

// list is what the trees are built from.
type list struct {
	keys   []string
	values []cid.CID
	peers  []gocid.Cid // the same values
}

func generateList(n int) *list {
	g := newGenerator(4)
	l := &list{}
	for range n {
		l.keys = append(l.keys, "app.bsky.feed.post/"+string(g.tid()))
		c := g.cid(cid.DagCBOR)
		l.values = append(l.values, c)
		l.peers = append(l.peers, must(gocid.Cast(c.Bytes())))
	}
	return l
}

// ours builds our tree of the list, flushed, and returns its nodes.
func (l *list) ours() (*mst.Tree, mst.MapSource) {
	t := mst.New()
	for i, k := range l.keys {
		_, _, err := t.Put(k, l.values[i])
		check(err)
	}
	ch := must(t.Flush())
	nodes := mst.MapSource{}
	for _, n := range ch.Added {
		nodes[n.CID] = n.Bytes
	}
	return t, nodes
}

func (l *list) theirs() *peer.Tree {
	t := peer.NewEmptyTree()
	for i, k := range l.keys {
		must(t.Insert([]byte(k), l.peers[i]))
	}
	must(t.RootCID())
	return &t
}

func treeRows() []bench {
	const n = 100_000
	what := func(s string) string { return s + ", " + strconv.Itoa(n) + " sequential keys" }
	hashes := func(l *list) work { // of the keys, for their layers, and of the nodes
		_, nodes := l.ours()
		return work{1, func() {
			for _, k := range l.keys {
				mst.Layer(k)
			}
			for _, b := range nodes {
				hash(b)
			}
		}}
	}
	insert := func(l *list) work {
		return work{1, func() {
			t := peer.NewEmptyTree()
			for i, k := range l.keys {
				must(t.Insert([]byte(k), l.peers[i]))
			}
			must(t.RootCID())
		}}
	}
	rows := []bench{
		{name: "tree-insert", what: what("insert one by one, and the root"), peer: indigo, floor: "SHA-256 of keys and nodes", of: peerOverOurs, target: 5, allocs: -1, setup: func() (work, work, work) {
			l := generateList(n)
			if t, _ := l.ours(); must(t.Root()).String() != must(l.theirs().RootCID()).String() {
				check(fmt.Errorf("the roots of the trees differ"))
			}
			return work{1, func() {
				t := mst.New()
				for i, k := range l.keys {
					_, _, err := t.Put(k, l.values[i])
					check(err)
				}
				must(t.Root())
			}}, insert(l), hashes(l)
		}},
		{name: "tree-bulk", what: what("bulk build"), peer: indigo, floor: "SHA-256 of keys and nodes", of: peerOverOurs, target: 8, allocs: -1, setup: func() (work, work, work) {
			l := generateList(n)
			return work{1, func() {
				var b mst.Builder
				for i, k := range l.keys {
					check(b.Add(k, l.values[i]))
				}
				must(b.Finish())
			}}, insert(l), hashes(l)
		}},
		{name: "tree-one-op", what: what("one insertion somewhere and the new root"), peer: indigo, floor: "SHA-256 of the changed nodes", of: peerOverOurs, target: 3, allocs: -1, setup: func() (work, work, work) {
			l := generateList(n)
			// The key put is one that was deleted in the step before, so that the tree keeps its size.
			ours, _ := l.ours()
			theirs := l.theirs()
			i, j := 0, 0
			var changed [][]byte
			probe := ours.Clone()
			_, _, err := probe.Put(l.keys[n/2]+"2", l.values[0])
			check(err)
			for _, b := range must(probe.Flush()).Added {
				changed = append(changed, bytes.Clone(b.Bytes))
			}
			return work{1, func() {
					i++
					_, _, err := ours.Put(l.keys[i*7919%n]+suffix(i), l.values[i%n])
					check(err)
					must(ours.Root())
				}, // an unflushed tree, like the peer's
				}, work{1, func() {
					j++
					must(theirs.Insert([]byte(l.keys[j*7919%n]+suffix(j)), l.peers[j%n]))
					must(theirs.RootCID())
				}}, work{1, func() {
					for _, b := range changed {
						hash(b)
					}
				}}
		}},
	}
	for _, size := range []int{1000, n, 1_000_000} {
		row := bench{name: "tree-diff/" + short(size), what: fmt.Sprintf("diff of one change in %d keys, trees in memory", size), of: oursOverLimit, target: 1, limit: 30 * time.Microsecond, allocs: -1,
			long: size > n, setup: func() (work, work, work) {
				l := generateList(size)
				a, _ := l.ours()
				b := a.Clone()
				_, _, err := b.Put(l.keys[size/2]+"2", l.values[0])
				check(err)
				must(b.Flush())
				return work{1, func() { oneChange(a, b) }}, work{}, work{}
			}}
		rows = append(rows, row)
	}
	return append(rows, bench{name: "tree-diff/stored", what: what("diff of one change, both trees opened from a map of blocks, every node checked"), of: oursOverLimit, target: 1, limit: 30 * time.Microsecond,
		allocs: -1, setup: func() (work, work, work) {
			l := generateList(n)
			t, nodes := l.ours()
			before := must(t.Root())
			_, _, err := t.Put(l.keys[n/2]+"2", l.values[0])
			check(err)
			ch := must(t.Flush())
			for _, b := range ch.Added {
				nodes[b.CID] = b.Bytes
			}
			return work{1, func() { oneChange(mst.Open(before, nodes), mst.Open(ch.Root, nodes)) }}, work{}, work{}
		}})
}

func oneChange(a, b *mst.Tree) {
	n := 0
	for _, err := range mst.Diff(a, b) {
		check(err)
		n++
	}
	if n != 1 {
		check(fmt.Errorf("%d differences, want 1", n))
	}
}

// suffix makes a new key of an old one each time the old one's turn comes.
func suffix(i int) string { return strconv.FormatInt(int64(i), 32) }

func short(n int) string {
	switch {
	case n >= 1_000_000:
		return strconv.Itoa(n/1_000_000) + "M"
	case n >= 1000:
		return strconv.Itoa(n/1000) + "k"
	}
	return strconv.Itoa(n)
}
