package bench

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/mst"
)

// List is what a tree is built from: keys in order, and values.
type List struct {
	Keys   []string
	Values []cid.CID
}

// NewList makes one of n posts.
func NewList(n int) *List {
	g := NewGenerator(4)
	l := &List{}
	for range n {
		l.Keys = append(l.Keys, "app.bsky.feed.post/"+string(g.TID()))
		l.Values = append(l.Values, g.CID(cid.DagCBOR))
	}
	return l
}

// insert builds a tree of the list, one by one, and its root. All of it is in memory.
func (l *List) insert() *mst.Tree {
	t := mst.New()
	for i, k := range l.Keys {
		_, _, err := t.Put(k, l.Values[i])
		Check(err)
	}
	Must(t.Root())
	return t
}

// Tree builds a tree of the list, flushed, and returns it with its nodes.
func (l *List) Tree() (*mst.Tree, mst.MapSource) {
	t := l.insert()
	nodes := mst.MapSource{}
	for _, n := range Must(t.Flush()).Added {
		nodes[n.CID] = n.Bytes
	}
	return t, nodes
}

// hashes is the floor of building: of the keys, for their layers, and of the nodes.
func (l *List) hashes() Work {
	_, nodes := l.Tree()
	return Work{1, func() {
		for _, k := range l.Keys {
			mst.Layer(k)
		}
		for _, b := range nodes {
			Hash(b)
		}
	}}
}

// TreeSize is how many keys the trees have that things are done to.
const TreeSize = 100_000

// OneMore returns the i-th key to be put into a tree of the list, somewhere, and its value.
func (l *List) OneMore(i int) (string, cid.CID) {
	return l.Keys[i*7919%len(l.Keys)] + strconv.FormatInt(int64(i), 32), l.Values[i%len(l.Values)]
}

// Tree returns tree-insert, tree-bulk, tree-one-op and tree-diff in some sizes.
func Tree() []Bench {
	what := func(s string) string { return s + ", " + strconv.Itoa(TreeSize) + " sequential keys" }
	rows := []Bench{
		{Name: "tree-insert", What: what("insert one by one, and the root"), Floor: "SHA-256 of keys and nodes", Of: FloorOverOurs, Allocs: -1,
			Bound: "SHA-256, finding the place of each key, and allocating nodes", Setup: func() (Work, Work) {
				l := NewList(TreeSize)
				return Work{1, func() { l.insert() }}, l.hashes()
			}},
		{Name: "tree-bulk", What: what("bulk build"), Floor: "SHA-256 of keys and nodes", Of: FloorOverOurs, Allocs: -1, Bound: "SHA-256", Setup: func() (Work, Work) {
			l := NewList(TreeSize)
			return Work{1, func() {
				var b mst.Builder
				for i, k := range l.Keys {
					Check(b.Add(k, l.Values[i]))
				}
				Must(b.Finish())
			}}, l.hashes()
		}},
		{Name: "tree-one-op", What: what("one insertion somewhere and the new root"), Floor: "SHA-256 of the changed nodes", Of: FloorOverOurs, Allocs: -1,
			Bound: "SHA-256 of the changed nodes, one after another, and writing them", Setup: func() (Work, Work) {
				l := NewList(TreeSize)
				var changed [][]byte
				probe, _ := l.Tree()
				_, _, err := probe.Put(l.Keys[TreeSize/2]+"2", l.Values[0])
				Check(err)
				for _, b := range Must(probe.Flush()).Added {
					changed = append(changed, bytes.Clone(b.Bytes))
				}
				t, i := l.insert(), 0
				return Work{1, func() {
						i++
						k, v := l.OneMore(i)
						_, _, err := t.Put(k, v)
						Check(err)
						Must(t.Root())
					}}, Work{1, func() {
						for _, b := range changed {
							Hash(b)
						}
					}}
			}},
	}
	diff := func(name, what string, long bool, setup func() Work) {
		rows = append(rows, Bench{Name: "tree-diff/" + name, What: what, Of: OursOverLimit, Target: 1, Limit: diffLimit, Allocs: -1, Long: long,
			Bound: "loading and checking the nodes on the path that differs", Setup: func() (Work, Work) { return setup(), Work{} }})
	}
	for _, size := range []int{1000, TreeSize, 1_000_000} {
		diff(Short(size), fmt.Sprintf("diff of one change in %d keys, trees in memory", size), size > TreeSize, func() Work {
			l := NewList(size)
			a, _ := l.Tree()
			b := a.Clone()
			_, _, err := b.Put(l.Keys[size/2]+"2", l.Values[0])
			Check(err)
			Must(b.Flush())
			return Work{1, func() { oneChange(a, b) }}
		})
	}
	diff("stored", what("diff of one change, both trees opened from a map of blocks, every node checked"), false, func() Work {
		l := NewList(TreeSize)
		t, nodes := l.Tree()
		before := Must(t.Root())
		_, _, err := t.Put(l.Keys[TreeSize/2]+"2", l.Values[0])
		Check(err)
		ch := Must(t.Flush())
		for _, b := range ch.Added {
			nodes[b.CID] = b.Bytes
		}
		return Work{1, func() { oneChange(mst.Open(before, nodes), mst.Open(ch.Root, nodes)) }}
	})
	return rows
}

func oneChange(a, b *mst.Tree) {
	n := 0
	for _, err := range mst.Diff(a, b) {
		Check(err)
		n++
	}
	if n != 1 {
		Check(fmt.Errorf("%d differences, want 1", n))
	}
}
