package mst_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/mst"
)

// counting is a source that counts what is loaded from it.
type counting struct {
	mst.MapSource
	loads int
}

func (c *counting) Load(k cid.CID, at mst.Pos) ([]byte, error) {
	c.loads++
	return c.MapSource.Load(k, at)
}

// stored builds a tree of sorted keys and adds its nodes to the source.
func stored(t testing.TB, model map[string]cid.CID, src mst.MapSource) (root cid.CID, layer int) {
	b := mst.Builder{Emit: func(n mst.NodeBlock) error {
		src[n.CID] = slices.Clone(n.Bytes)
		layer = n.Layer
		return nil
	}}
	for _, k := range slices.Sorted(maps.Keys(model)) {
		if err := b.Add(k, model[k]); err != nil {
			t.Fatal(err)
		}
	}
	root, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return root, layer
}

// TestDiffWork holds the difference of stored trees against that of two maps, and the number of nodes loaded for it against
// the number of changes: in each tree no more than the way to a change and the edges of the subtrees that it divides, however
// many keys there are.
func TestDiffWork(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 100, 3000, 50_000} {
		before := map[string]cid.CID{}
		for i := range n {
			before[fmt.Sprintf("com.example.note/%07d", i*10)] = value(i % 1000)
		}
		src := mst.MapSource{}
		a, la := stored(t, before, src)
		for _, changes := range []int{0, 1, 2, 10, 100} {
			after := maps.Clone(before)
			for i := range changes {
				k := fmt.Sprintf("com.example.note/%07d", rnd.IntN(10*n+10))
				if had := after[k]; had.Defined() && rnd.IntN(2) == 0 {
					delete(after, k)
				} else {
					after[k] = value(2000 + i)
				}
			}
			b, lb := stored(t, after, src)
			var want []mst.Delta
			for _, k := range slices.Sorted(maps.Keys(after)) {
				if before[k] != after[k] {
					want = append(want, mst.Delta{Key: k, Old: before[k], New: after[k]})
				}
			}
			for k, v := range before {
				if _, ok := after[k]; !ok {
					want = append(want, mst.Delta{Key: k, Old: v})
				}
			}
			slices.SortFunc(want, func(x, y mst.Delta) int { return strings.Compare(x.Key, y.Key) })
			from := &counting{MapSource: src}
			var got []mst.Delta
			for d, err := range mst.Diff(mst.Open(a, from), mst.Open(b, from)) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, d)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%d keys, %d changes: %v, want %v", n, changes, got, want)
			}
			if most := 3 * len(want) * (la + lb + 2); from.loads > most {
				t.Errorf("%d keys, %d changes: %d nodes loaded, more than %d", n, len(want), from.loads, most)
			}
			// All of a node's children are known by their CIDs: what is the same isn't loaded.
			if all := len(src); n >= 3000 && len(want) <= 10 && from.loads > all/4 {
				t.Errorf("%d keys, %d changes: %d nodes loaded of %d", n, len(want), from.loads, all)
			}
		}
	}
}

// TestCycles opens trees from a source that has not checked hashes but says so: links that lead back to where they come from.
// Everything ends, and names a rule.
func TestCycles(t *testing.T) {
	c := func(n int) cid.CID { return cid.Sum(cid.DagCBOR, []byte{byte(n)}) }
	for name, src := range map[string]mst.MapSource{
		"a node is its own left child":  {c(0): node(c(0), ent(keyOn(2, "b/", 0))).Append(nil)},
		"a node is its own right child": {c(0): node(none, ent(keyOn(2, "b/", 0), c(0))).Append(nil)},
		"a node without entries is its own child": {
			c(0): node(c(1), ent(keyOn(5, "b/", 0))).Append(nil),
			c(1): node(c(1)).Append(nil)},
		"two nodes link to each other": {
			c(0): node(c(1), ent(keyOn(2, "b/", 0))).Append(nil),
			c(1): node(none, ent(keyOn(1, "a/", 0), c(0))).Append(nil)},
		"a leaf links to the top": {
			c(0): node(c(1), ent(keyOn(1, "b/", 0))).Append(nil),
			c(1): node(none, ent(keyOn(0, "a/", 0), c(0))).Append(nil)},
	} {
		open := func() *mst.Tree { return mst.OpenOptions(c(0), src, mst.Options{HashChecked: true}) }
		for what, err := range map[string]error{
			"walk": func() (err error) {
				for _, err = range open().Walk() {
				}
				return err
			}(),
			"walker": walk(c(0), src),
			"items": func() (err error) {
				for _, err = range open().Items() {
				}
				return err
			}(),
			"diff": func() (err error) {
				for _, err = range mst.Diff(open(), mst.New()) {
				}
				return err
			}(),
			"all that is there": func() error {
				_, err := open().LoadPresent(func(*cid.CID) bool { return true })
				return err
			}(),
		} {
			if e := (*mst.Error)(nil); !errors.As(err, &e) {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
		for _, key := range []string{"a/0", "b/", "b/x", "z"} {
			for i := range 3 { // they end, with an error if they come that far
				tree := open()
				switch i {
				case 0:
					tree.Get(key)
				case 1:
					tree.Put(key, value(1))
					tree.Root()
				case 2:
					tree.Prove(key)
				}
			}
		}
	}
}

// TestForgedProofs changes each byte of a proof's nodes, and swaps nodes for those of another tree.
func TestForgedProofs(t *testing.T) {
	model := map[string]cid.CID{}
	for i := range 300 {
		model[fmt.Sprintf("a/%03d", i)] = value(i)
	}
	tree := build(t, model)
	top := root(t, tree)
	other := build(t, map[string]cid.CID{"a/000": value(1)})
	otherProof, err := other.Prove("a/000")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a/000", "a/123", "a/123x", "b", ""} {
		p, err := tree.Prove(key)
		if err != nil || p.Found() != (model[key] != cid.CID{}) {
			t.Fatal(key, err)
		}
		src := mst.MapSource{}
		for _, n := range p.Nodes {
			src[n.CID] = n.Bytes
		}
		for _, n := range p.Nodes {
			for _, forged := range [][]byte{otherProof.Nodes[0].Bytes, nil} {
				src[n.CID] = forged
				if _, err := mst.Open(top, src).Prove(key); !isRule(err, mst.RuleHash) {
					t.Fatalf("%s with a node of another tree: %v", key, err)
				}
			}
			for i := range n.Bytes {
				b := slices.Clone(n.Bytes)
				b[i] ^= 1
				src[n.CID] = b
				if _, err := mst.Open(top, src).Prove(key); !isRule(err, mst.RuleHash) {
					t.Fatalf("%s with byte %d of a node changed: %v", key, i, err)
				}
			}
			src[n.CID] = n.Bytes
		}
	}
}

func isRule(err error, r mst.Rule) bool {
	var e *mst.Error
	return errors.As(err, &e) && e.Rule == r
}
