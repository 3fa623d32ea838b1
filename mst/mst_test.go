package mst_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/fixtures"
	"github.com/barograph/baro/mst"
	"pgregory.net/rapid"
)

// tb is what testing.T and rapid.T have in common.
type tb interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func value(n int) cid.CID { return cid.Sum(cid.DagCBOR, fmt.Appendf(nil, "value %d", n)) }

// naive builds the tree from the definition: the keys of the highest layer split the rest. It returns all its blocks.
func naive(m map[string]cid.CID) (root cid.CID, blocks map[cid.CID][]byte, refs map[cid.CID]mst.NodeRef) {
	keys := slices.Sorted(maps.Keys(m))
	blocks, refs = map[cid.CID][]byte{}, map[cid.CID]mst.NodeRef{}
	top := 0
	for _, k := range keys {
		top = max(top, mst.Layer(k))
	}
	var build func(keys []string, layer int) cid.CID
	build = func(keys []string, layer int) cid.CID {
		var n mst.Node
		start := 0
		link := func(end int) {
			if start == end {
				return
			}
			c := build(keys[start:end], layer-1)
			if k := len(n.Entries); k > 0 {
				n.Entries[k-1].Right = c
			} else {
				n.Left = c
			}
		}
		for i, k := range keys {
			if mst.Layer(k) == layer {
				link(i)
				n.Entries = append(n.Entries, mst.NodeEntry{Key: []byte(k), Value: m[k]})
				start = i + 1
			}
		}
		link(len(keys))
		b := n.Append(nil)
		c := cid.Sum(cid.DagCBOR, b)
		blocks[c] = b
		first := ""
		if len(keys) > 0 {
			first = keys[0]
		}
		refs[c] = mst.NodeRef{CID: c, First: first, Layer: layer}
		return c
	}
	return build(keys, top), blocks, refs
}

func build(t tb, m map[string]cid.CID) *mst.Tree {
	tree := mst.New()
	for k, v := range m {
		if _, _, err := tree.Put(k, v); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

func root(t tb, tree *mst.Tree) cid.CID {
	t.Helper()
	c, err := tree.Root()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLayers(t *testing.T) {
	var cases []struct {
		Key    string
		Height int
	}
	if err := json.Unmarshal(fixtures.Read(t, "atproto-interop/mst/key_heights.json"), &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		if got := mst.Layer(c.Key); got != c.Height {
			t.Errorf("%q: layer %d, want %d", c.Key, got, c.Height)
		}
		if got := mst.Layer([]byte(c.Key)); got != c.Height {
			t.Errorf("%q: layer %d, want %d", c.Key, got, c.Height)
		}
	}
	if n := testing.AllocsPerRun(10, func() { mst.Layer(cases[len(cases)-1].Key) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestExampleKeys(t *testing.T) {
	keys := strings.Fields(string(fixtures.Read(t, "atproto-interop/mst/example_keys.txt")))
	m := map[string]cid.CID{}
	for i, k := range keys {
		m[k] = value(i)
	}
	want, _, _ := naive(m)
	r := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		r.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		tree := mst.New()
		for _, k := range keys {
			tree.Put(k, m[k])
		}
		if got := root(t, tree); got != want {
			t.Fatalf("root %s, want %s", got, want)
		}
		for _, k := range keys[:100] {
			tree.Delete(k)
		}
		rest := map[string]cid.CID{}
		for _, k := range keys[100:] {
			rest[k] = m[k]
		}
		if want, _, _ := naive(rest); root(t, tree) != want {
			t.Fatal("wrong root after deletions")
		}
	}
}

func TestKnownRoots(t *testing.T) {
	// The empty tree, and the one-entry tree that several implementations publish as a test vector.
	if got := root(t, mst.New()).String(); got != "bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm" {
		t.Errorf("empty tree: %s", got)
	}
	leaf, _ := cid.Parse("bafyreie5cvv4h45feadgeuwhbcutmh6t2ceseocckahdoe6uat64zmz454")
	tree := build(t, map[string]cid.CID{"com.example.record/3jqfcqzm3fo2j": leaf})
	if got := root(t, tree).String(); got != "bafyreibj4lsc3aqnrvphp5xmrnfoorvru4wynt6lwidqbm2623a6tatzdu" {
		t.Errorf("one entry: %s", got)
	}
}

type proofFixture struct {
	Comment          string
	LeafValue        string
	Keys, Adds, Dels []string
	RootBeforeCommit string
	RootAfterCommit  string
	BlocksInProof    []string
}

func TestCommitProofs(t *testing.T) {
	var cases []proofFixture
	if err := json.Unmarshal(fixtures.Read(t, "atproto-interop/firehose/commit-proof-fixtures.json"), &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.Comment, func(t *testing.T) {
			leaf, err := cid.Parse(c.LeafValue)
			if err != nil {
				t.Fatal(err)
			}
			tree := mst.New()
			for _, k := range c.Keys {
				tree.Put(k, leaf)
			}
			if got := root(t, tree).String(); got != c.RootBeforeCommit {
				t.Fatalf("root before: %s, want %s", got, c.RootBeforeCommit)
			}
			var ops []mst.Op
			for _, k := range c.Adds {
				ops = append(ops, mst.Op{Key: k, Value: leaf})
			}
			for _, k := range c.Dels {
				ops = append(ops, mst.Op{Key: k, Prev: leaf})
			}
			if err := tree.Apply(ops); err != nil {
				t.Fatal(err)
			}
			if got := root(t, tree).String(); got != c.RootAfterCommit {
				t.Fatalf("root after: %s, want %s", got, c.RootAfterCommit)
			}
			cover, err := tree.Cover(slices.Concat(c.Adds, c.Dels)...)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			src := mst.MapSource{}
			for _, n := range cover {
				got = append(got, n.CID.String())
				src[n.CID] = n.Bytes
			}
			slices.Sort(got)
			slices.Sort(c.BlocksInProof)
			if !slices.Equal(got, c.BlocksInProof) {
				t.Errorf("proof is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.BlocksInProof, "\n"))
			}
			partial := mst.Open(root(t, tree), src)
			if err := partial.Invert(ops); err != nil {
				t.Fatal(err)
			}
			if got := root(t, partial).String(); got != c.RootBeforeCommit {
				t.Errorf("root after inversion: %s, want %s", got, c.RootBeforeCommit)
			}
		})
	}
}

// store keeps nodes by position, like a repository's storage, and refuses what doesn't fit its content.
type store struct {
	nodes map[[2]string]mst.NodeBlock
	knows bool // LoadFirst tells the smallest key
}

func position(first string, layer int) [2]string { return [2]string{first, string(rune('A' + layer))} }

func (s *store) apply(t tb, ch mst.Change) {
	for _, r := range ch.Removed {
		if s.nodes[position(r.First, r.Layer)].CID != r.CID {
			t.Fatalf("removed node %v is not at its position", r)
		}
		delete(s.nodes, position(r.First, r.Layer))
	}
	for _, b := range ch.Added {
		if old, ok := s.nodes[position(b.First, b.Layer)]; ok {
			t.Fatalf("added node %s at the position of %s", b.CID, old.CID)
		}
		s.nodes[position(b.First, b.Layer)] = b
	}
}

func (s *store) Load(c cid.CID, at mst.Pos) ([]byte, error) {
	b, _, err := s.LoadFirst(c, at)
	return b, err
}

func (s *store) LoadFirst(c cid.CID, at mst.Pos) ([]byte, string, error) {
	first := at.After
	if at.Exclusive {
		first = ""
		for k := range s.nodes {
			// Leaves and entries begin at each key that can be a smallest key, so nodes alone tell it.
			if k[0] > at.After && (first == "" || k[0] < first) {
				first = k[0]
			}
		}
	}
	layer := at.Layer
	if layer == mst.Top {
		for k := range s.nodes {
			if k[0] == first {
				layer = max(layer, int(k[1][0]-'A'))
			}
		}
	}
	b, ok := s.nodes[position(first, layer)]
	if !ok || b.CID != c {
		return nil, "", fmt.Errorf("position %+v doesn't lead to %s", at, c)
	}
	if !s.knows {
		first = ""
	}
	return b.Bytes, first, nil
}

func (s *store) blocks() map[cid.CID]mst.NodeRef {
	m := map[cid.CID]mst.NodeRef{}
	for _, b := range s.nodes {
		m[b.CID] = mst.NodeRef{CID: b.CID, First: b.First, Layer: b.Layer}
	}
	return m
}

// collection of few keys with a good spread over the layers, so that every shape comes up
var pool = func() (keys []string) {
	perLayer := map[int]int{}
	for i := 0; len(keys) < 60; i++ {
		k := fmt.Sprintf("com.example.%c/%d", 'a'+i%7, i)
		l := mst.Layer(k)
		if perLayer[l] < 20 {
			perLayer[l]++
			keys = append(keys, k)
		}
	}
	return keys
}()

func TestTreeAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		model := map[string]cid.CID{}
		st := &store{nodes: map[[2]string]mst.NodeBlock{}, knows: rapid.Bool().Draw(t, "knows")}
		tree := mst.New()
		ch, err := tree.Flush()
		if err != nil {
			t.Fatal(err)
		}
		st.apply(t, ch)
		tree.SetSource(st, mst.Options{})
		key := rapid.SampledFrom(pool)
		snapshot, snapshotModel := tree.Clone(), maps.Clone(model)
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				k, v := key.Draw(t, "key"), value(rapid.IntRange(0, 5).Draw(t, "value"))
				prev, had, err := tree.Put(k, v)
				if err != nil {
					t.Fatal(err)
				}
				if old, ok := model[k]; ok != had || old != prev {
					t.Fatalf("put %s: previous value %v %v, want %v %v", k, prev, had, old, ok)
				}
				model[k] = v
			},
			"delete": func(t *rapid.T) {
				k := key.Draw(t, "key")
				prev, had, err := tree.Delete(k)
				if err != nil {
					t.Fatal(err)
				}
				if old, ok := model[k]; ok != had || old != prev {
					t.Fatalf("delete %s: previous value %v %v, want %v %v", k, prev, had, old, ok)
				}
				delete(model, k)
			},
			"get": func(t *rapid.T) {
				k := key.Draw(t, "key")
				v, found, err := tree.Get(k)
				if err != nil {
					t.Fatal(err)
				}
				if want, ok := model[k]; ok != found || want != v {
					t.Fatalf("get %s: %v %v, want %v %v", k, v, found, want, ok)
				}
			},
			"walk": func(t *rapid.T) {
				from := rapid.OneOf(key, rapid.Just(""), rapid.Just("com.example.d"), rapid.Just("zz")).Draw(t, "from")
				want := slices.Sorted(maps.Keys(model))
				i, _ := slices.BinarySearch(want, from)
				want = want[i:]
				for e, err := range tree.WalkFrom(from) {
					if err != nil {
						t.Fatal(err)
					}
					if len(want) == 0 || e.Key != want[0] || e.Value != model[e.Key] {
						t.Fatalf("walk gives %s, want %v", e.Key, want)
					}
					want = want[1:]
				}
				if len(want) > 0 {
					t.Fatalf("walk lacks %v", want)
				}
			},
			"root": func(t *rapid.T) {
				want, _, _ := naive(model)
				if got := root(t, tree); got != want {
					t.Fatalf("root %s, want %s", got, want)
				}
			},
			"trim": func(t *rapid.T) {
				n := rapid.IntRange(0, 10).Draw(t, "nodes")
				tree.Trim(n)
			},
			"clone": func(t *rapid.T) {
				snapshot, snapshotModel = tree.Clone(), maps.Clone(model)
			},
			"diff": func(t *rapid.T) {
				checkDiff(t, snapshot, tree, snapshotModel, model)
			},
			"flush": func(t *rapid.T) {
				// All of the old snapshot has to be loaded before the store moves on.
				for _, err := range snapshot.Walk() {
					if err != nil {
						t.Fatal(err)
					}
				}
				before := st.blocks()
				ch, err := tree.Flush()
				if err != nil {
					t.Fatal(err)
				}
				want, _, refs := naive(model)
				if ch.Root != want {
					t.Fatalf("root %s, want %s", ch.Root, want)
				}
				// A proof is made while the store is still behind.
				if _, err := tree.Cover(key.Draw(t, "proof"), key.Draw(t, "proof")); err != nil {
					t.Fatal(err)
				}
				for _, b := range ch.Added {
					if _, ok := before[b.CID]; ok {
						t.Fatalf("node %s was added but was there", b.CID)
					}
					if !b.CID.Verify(b.Bytes) {
						t.Fatalf("block of node %s doesn't fit its CID", b.CID)
					}
				}
				st.apply(t, ch)
				if got := st.blocks(); !maps.Equal(got, refs) {
					t.Fatalf("stored nodes\n%v\nwant\n%v", got, refs)
				}
				if rapid.Bool().Draw(t, "reopen") {
					tree = mst.Open(ch.Root, st)
				}
				// The nodes of the old snapshot may be gone from the store; with all its nodes in memory it goes on working.
				checkDiff(t, snapshot, tree, snapshotModel, model)
				snapshot, snapshotModel = tree.Clone(), maps.Clone(model)
			},
		})
	})
}

func checkDiff(t *rapid.T, a, b *mst.Tree, ma, mb map[string]cid.CID) {
	want := map[string][2]cid.CID{}
	for k, v := range ma {
		if mb[k] != v {
			want[k] = [2]cid.CID{v, mb[k]}
		}
	}
	for k, v := range mb {
		if ma[k] != v {
			want[k] = [2]cid.CID{ma[k], v}
		}
	}
	last := ""
	for d, err := range mst.Diff(a, b) {
		if err != nil {
			t.Fatal(err)
		}
		if d.Key <= last {
			t.Fatalf("diff gives %s after %s", d.Key, last)
		}
		last = d.Key
		if w, ok := want[d.Key]; !ok || w != [2]cid.CID{d.Old, d.New} {
			t.Fatalf("diff gives %v, want %v", d, w)
		}
		delete(want, d.Key)
	}
	if len(want) > 0 {
		t.Fatalf("diff lacks %v", want)
	}
}

func TestInvertCoveredChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		model := map[string]cid.CID{}
		for _, k := range rapid.SliceOfDistinct(rapid.SampledFrom(pool), rapid.ID).Draw(t, "keys") {
			model[k] = value(0)
		}
		tree := build(t, model)
		before, err := tree.Flush()
		if err != nil {
			t.Fatal(err)
		}
		var ops []mst.Op
		var keys []string
		for _, k := range rapid.SliceOfNDistinct(rapid.SampledFrom(pool), 0, 8, rapid.ID).Draw(t, "ops") {
			v, had := model[k]
			switch {
			case !had:
				ops = append(ops, mst.Op{Key: k, Value: value(1)})
				keys = append(keys, k)
			case rapid.Bool().Draw(t, "update"):
				ops = append(ops, mst.Op{Key: k, Value: value(2), Prev: v})
			default:
				ops = append(ops, mst.Op{Key: k, Prev: v})
				keys = append(keys, k)
			}
		}
		if err := tree.Apply(ops); err != nil {
			t.Fatal(err)
		}
		after, err := tree.Flush()
		if err != nil {
			t.Fatal(err)
		}
		src := mst.MapSource{}
		for _, b := range after.Added {
			src[b.CID] = b.Bytes
		}
		cover, err := tree.Cover(keys...)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range cover {
			src[n.CID] = n.Bytes
		}
		if len(ops) == 0 {
			return
		}
		shuffled := rapid.Permutation(ops).Draw(t, "order")
		partial := mst.Open(after.Root, src)
		if err := partial.Invert(shuffled); err != nil {
			t.Fatalf("inverting %v: %v", shuffled, err)
		}
		if got := root(t, partial); got != before.Root {
			t.Fatalf("root after inversion %s, want %s", got, before.Root)
		}
		// Leaving an op out, or claiming another previous value, must not go through.
		wrong := slices.Clone(shuffled)
		if rapid.Bool().Draw(t, "drop") {
			wrong = wrong[1:]
		} else if wrong[0].Prev.Defined() {
			wrong[0].Prev = value(9)
		} else {
			wrong[0].Value = value(9)
		}
		partial = mst.Open(after.Root, src)
		if err := partial.Invert(wrong); err == nil && root(t, partial) == before.Root {
			t.Fatalf("inversion of wrong ops %v went through", wrong)
		}
	})
}

func TestBuilderAndWalker(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		model := map[string]cid.CID{}
		for i, k := range rapid.SliceOfDistinct(rapid.SampledFrom(pool), rapid.ID).Draw(t, "keys") {
			model[k] = value(i)
		}
		want, _, refs := naive(model)
		src := mst.MapSource{}
		b := mst.Builder{Emit: func(n mst.NodeBlock) error {
			if refs[n.CID] != (mst.NodeRef{CID: n.CID, First: n.First, Layer: n.Layer}) {
				return fmt.Errorf("emitted %v, want %v", n, refs[n.CID])
			}
			src[n.CID] = slices.Clone(n.Bytes)
			return nil
		}}
		keys := slices.Sorted(maps.Keys(model))
		for _, k := range keys {
			if err := b.Add(k, model[k]); err != nil {
				t.Fatal(err)
			}
		}
		got, err := b.Finish()
		if err != nil {
			t.Fatal(err)
		}
		if got != want || len(src) != len(refs) {
			t.Fatalf("root %s with %d nodes, want %s with %d", got, len(src), want, len(refs))
		}
		w := mst.NewWalker(got, nil)
		items, stop := iter.Pull2(mst.Open(got, src).Items())
		defer stop()
		for {
			s := w.Next()
			item, err, ok := items()
			if err != nil || ok != (s.Kind != mst.StepDone) {
				t.Fatalf("items end %v: %v", ok, err)
			}
			if s.Kind == mst.StepDone {
				break
			}
			if item.CID != s.CID || item.Key != string(s.Key) || (item.Node != nil) != (s.Kind == mst.StepNode) {
				t.Fatalf("item %+v, walker %+v", item, s)
			}
			if s.Kind == mst.StepNode {
				if !bytes.Equal(item.Node, src[s.CID]) {
					t.Fatal("wrong block of a node")
				}
				if err := w.Node(src[s.CID]); err != nil {
					t.Fatal(err)
				}
				continue
			}
			if len(keys) == 0 || string(s.Key) != keys[0] || s.CID != model[keys[0]] {
				t.Fatalf("walker gives %s, want %v", s.Key, keys)
			}
			keys = keys[1:]
		}
		if len(keys) > 0 || w.Stats().Nodes != len(refs) || w.Stats().Records != len(model) {
			t.Fatalf("walker stopped before %v, %+v", keys, w.Stats())
		}
	})
}

func TestProofs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		model := map[string]cid.CID{}
		for i, k := range rapid.SliceOfDistinct(rapid.SampledFrom(pool), rapid.ID).Draw(t, "keys") {
			model[k] = value(i)
		}
		tree := build(t, model)
		key := rapid.SampledFrom(pool).Draw(t, "key")
		p, err := tree.Prove(key)
		if err != nil {
			t.Fatal(err)
		}
		if p.Value != model[key] {
			t.Fatalf("proves %s, want %s", p.Value, model[key])
		}
		src := mst.MapSource{}
		for _, n := range p.Nodes {
			src[n.CID] = n.Bytes
		}
		again, err := mst.Open(root(t, tree), src).Prove(key)
		if err != nil || again.Value != p.Value || len(again.Nodes) != len(p.Nodes) {
			t.Fatalf("proof verifies as %v, %v", again, err)
		}
		delete(src, p.Nodes[rapid.IntRange(0, len(p.Nodes)-1).Draw(t, "node")].CID)
		_, err = mst.Open(root(t, tree), src).Prove(key)
		if missing := (*mst.MissingError)(nil); !errors.As(err, &missing) || !errors.Is(err, mst.ErrNotFound) {
			t.Fatalf("proof without a node: %v", err)
		}
	})
}

func TestFailedEditChangesNothing(t *testing.T) {
	model := map[string]cid.CID{}
	for i, k := range pool {
		model[k] = value(i)
	}
	tree := build(t, model)
	ch, err := tree.Flush()
	if err != nil {
		t.Fatal(err)
	}
	all := mst.MapSource{}
	for _, b := range ch.Added {
		all[b.CID] = b.Bytes
	}
	for _, gone := range ch.Added {
		src := maps.Clone(all)
		delete(src, gone.CID)
		for i, k := range append([]string{"com.example.d/new"}, pool...) {
			partial := mst.Open(ch.Root, src)
			var err error
			if i%2 == 0 {
				_, _, err = partial.Delete(k)
			} else {
				_, _, err = partial.Put(k+"x", value(99))
			}
			if err != nil {
				if !errors.Is(err, mst.ErrNotFound) {
					t.Fatal(err)
				}
				if root(t, partial) != ch.Root {
					t.Fatalf("failed edit of %s changed the tree", k)
				}
			}
		}
	}
}
