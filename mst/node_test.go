package mst_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/mst"
)

// keyOn returns the nth key of the form prefix+number that lies on the layer.
func keyOn(layer int, prefix string, nth int) string {
	for i := 0; ; i++ {
		if k := fmt.Sprintf("%s%d", prefix, i); mst.Layer(k) == layer {
			if nth--; nth < 0 {
				return k
			}
		}
	}
}

func node(left cid.CID, entries ...mst.NodeEntry) *mst.Node {
	return &mst.Node{Left: left, Entries: entries}
}

func ent(key string, right ...cid.CID) mst.NodeEntry {
	e := mst.NodeEntry{Key: []byte(key), Value: value(0)}
	if len(right) > 0 {
		e.Right = right[0]
	}
	return e
}

type hostile struct {
	name string
	rule mst.Rule
	root func(add func(*mst.Node) cid.CID) cid.CID
}

var none cid.CID

// hostileTrees are consistent by hash and wrong by structure.
var hostileTrees = []hostile{
	{"key on the wrong layer", mst.RuleLayer, func(add func(*mst.Node) cid.CID) cid.CID {
		return add(node(none, ent(keyOn(1, "a/", 0)), ent(keyOn(0, "b/", 0))))
	}},
	{"leaf of another layer", mst.RuleDepth, func(add func(*mst.Node) cid.CID) cid.CID {
		leaf := add(node(none, ent(keyOn(0, "a/", 0))))
		return add(node(leaf, ent(keyOn(2, "b/", 0)))) // layer 1 is skipped
	}},
	{"child as high as its parent", mst.RuleDepth, func(add func(*mst.Node) cid.CID) cid.CID {
		leaf := add(node(none, ent(keyOn(1, "a/", 0))))
		return add(node(leaf, ent(keyOn(1, "b/", 0))))
	}},
	{"siblings on different layers", mst.RuleDepth, func(add func(*mst.Node) cid.CID) cid.CID {
		a := add(node(none, ent(keyOn(1, "a/", 0))))
		c := add(node(none, ent(keyOn(0, "c/", 0))))
		return add(node(a, ent(keyOn(2, "b/", 0), c)))
	}},
	{"child of a leaf", mst.RuleDepth, func(add func(*mst.Node) cid.CID) cid.CID {
		leaf := add(node(none, ent(keyOn(0, "a/", 0))))
		return add(node(leaf, ent(keyOn(0, "b/", 0))))
	}},
	{"child of a leaf, to the right", mst.RuleDepth, func(add func(*mst.Node) cid.CID) cid.CID {
		leaf := add(node(none, ent(keyOn(1, "c/", 0)))) // whose layer would be right for a top
		return add(node(none, ent(keyOn(0, "b/", 0), leaf)))
	}},
	{"empty nodes below layer 0", mst.RuleDepth, func(add func(*mst.Node) cid.CID) cid.CID {
		c := add(node(none, ent(keyOn(0, "a/", 0))))
		for range 3 {
			c = add(node(c))
		}
		return add(node(c, ent(keyOn(2, "b/", 0))))
	}},
	{"subtree above its upper bound", mst.RuleBounds, func(add func(*mst.Node) cid.CID) cid.CID {
		leaf := add(node(none, ent(keyOn(0, "a/", 0)), ent(keyOn(0, "c/", 0))))
		return add(node(leaf, ent(keyOn(1, "b/", 0))))
	}},
	{"subtree below its lower bound", mst.RuleBounds, func(add func(*mst.Node) cid.CID) cid.CID {
		leaf := add(node(none, ent(keyOn(0, "a/", 0)), ent(keyOn(0, "c/", 0))))
		return add(node(none, ent(keyOn(1, "b/", 0), leaf)))
	}},
	{"bound of a grandparent", mst.RuleBounds, func(add func(*mst.Node) cid.CID) cid.CID {
		leaf := add(node(none, ent(keyOn(0, "z/", 0))))
		mid := add(node(none, ent(keyOn(1, "a/", 0), leaf)))
		return add(node(mid, ent(keyOn(2, "b/", 0))))
	}},
	{"the same subtree twice", mst.RuleBounds, func(add func(*mst.Node) cid.CID) cid.CID {
		leaf := add(node(none, ent(keyOn(0, "a/", 0))))
		return add(node(leaf, ent(keyOn(1, "b/", 0), leaf)))
	}},
	{"empty leaf", mst.RuleEmpty, func(add func(*mst.Node) cid.CID) cid.CID {
		return add(node(add(node(none)), ent(keyOn(1, "b/", 0))))
	}},
	{"empty top", mst.RuleTop, func(add func(*mst.Node) cid.CID) cid.CID {
		return add(node(add(node(none, ent(keyOn(0, "a/", 0))))))
	}},
	{"keys out of order", mst.RuleOrder, func(add func(*mst.Node) cid.CID) cid.CID {
		return add(node(none, ent(keyOn(0, "b/", 0)), ent(keyOn(0, "a/", 0))))
	}},
	{"duplicate key", mst.RuleOrder, func(add func(*mst.Node) cid.CID) cid.CID {
		return add(node(none, ent(keyOn(0, "b/", 0)), ent(keyOn(0, "b/", 0))))
	}},
	{"long key", mst.RuleKey, func(add func(*mst.Node) cid.CID) cid.CID {
		return add(node(none, ent(keyOn(0, "b/"+string(bytes.Repeat([]byte("x"), mst.MaxKey-2)), 0))))
	}},
	{"empty key", mst.RuleKey, func(add func(*mst.Node) cid.CID) cid.CID {
		return add(node(none, ent("")))
	}},
	{"too many entries", mst.RuleEntries, func(add func(*mst.Node) cid.CID) cid.CID {
		n := node(none)
		for i := 0; len(n.Entries) <= mst.MaxEntries; i++ {
			if k := fmt.Sprintf("a/%06d", i); mst.Layer(k) == 0 {
				n.Entries = append(n.Entries, ent(k))
			}
		}
		return add(n)
	}},
	{"raw link to a node", mst.RuleLink, func(add func(*mst.Node) cid.CID) cid.CID {
		c := add(node(none, ent(keyOn(0, "a/", 0))))
		c[1] = byte(cid.Raw)
		return add(node(c, ent(keyOn(1, "b/", 0))))
	}},
}

func TestHostileTrees(t *testing.T) {
	for _, h := range hostileTrees {
		t.Run(h.name, func(t *testing.T) {
			src := mst.MapSource{}
			c := h.root(func(n *mst.Node) cid.CID {
				b := n.Append(nil)
				c := cid.Sum(cid.DagCBOR, b)
				src[c] = b
				return c
			})
			check := func(err error) {
				t.Helper()
				if e := (*mst.Error)(nil); !errors.As(err, &e) || e.Rule != h.rule || !e.CID.Defined() {
					t.Errorf("error %v, want rule %s", err, h.rule)
				}
			}
			var err error
			for _, err = range mst.Open(c, src).Walk() {
				if err != nil {
					break
				}
			}
			check(err)
			check(walk(c, src))
		})
	}
}

func walk(root cid.CID, src mst.MapSource) error {
	w := mst.NewWalker(root, nil)
	for {
		switch s := w.Next(); s.Kind {
		case mst.StepDone:
			return nil
		case mst.StepNode:
			if err := w.Node(src[s.CID]); err != nil {
				return err
			}
		}
	}
}

func TestHostileBytes(t *testing.T) {
	good := node(value(9), ent(keyOn(1, "app.bsky/a", 0), value(8)), ent(keyOn(1, "app.bsky/b", 0))).Append(nil)
	var n mst.Node
	if err := n.Decode(good); err != nil {
		t.Fatal(err)
	}
	if got := n.Append(nil); !bytes.Equal(got, good) {
		t.Fatalf("encodes as %x, want %x", got, good)
	}
	replace := func(old, new string) []byte {
		if !bytes.Contains(good, []byte(old)) {
			t.Fatalf("no %q in the node", old)
		}
		return bytes.Replace(good, []byte(old), []byte(new), 1)
	}
	second := n.Entries[1].Key
	p := 9 // "app.bsky/"
	suffix := second[p:]
	for _, c := range []struct {
		name string
		rule mst.Rule
		b    []byte
	}{
		{"empty", mst.RuleEncoding, nil},
		{"truncated", mst.RuleEncoding, good[:len(good)-1]},
		{"trailing byte", mst.RuleEncoding, append(slices.Clone(good), 0)},
		{"indefinite array", mst.RuleEncoding, replace("\x61e\x82", "\x61e\x9f")},
		{"long head", mst.RuleEncoding, replace("\x61e\x82", "\x61e\x98\x02")},
		{"huge count", mst.RuleEncoding, replace("\x61e\x82", "\x61e\x9b\xff\xff\xff\xff\xff\xff\xff\xff")},
		{"many declared", mst.RuleEntries, replace("\x61e\x82", "\x61e\x99\xff\xff")},
		{"extra field", mst.RuleEncoding, replace("\xa2\x61e", "\xa3\x61d\x00\x61e")},
		{"shorter prefix", mst.RulePrefix, replace(string(append([]byte{0x40 | byte(len(suffix))}, suffix...))+"\x61p\x09", string(append([]byte{0x40 | byte(len(suffix)+1)}, second[p-1:]...))+"\x61p\x08")},
		{"longer prefix than the key before", mst.RulePrefix, replace("\x61p\x09", "\x61p\x18\x7f")},
		{"prefix of the first key", mst.RulePrefix, replace("\x61p\x00", "\x61p\x01")},
		{"text key", mst.RuleEncoding, replace(string(append([]byte("\x61k"), 0x40|byte(len(n.Entries[0].Key)))), string(append([]byte("\x61k"), 0x60|byte(len(n.Entries[0].Key)))))},
		{"no array", mst.RuleEncoding, []byte("\xa2\x61e\x61l\xf6")},
		{"CID of another hash", mst.RuleLink, replace("\x00\x01\x71\x12\x20", "\x00\x01\x71\x13\x20")},
	} {
		err := n.Decode(c.b)
		if e := (*mst.Error)(nil); !errors.As(err, &e) || e.Rule != c.rule {
			t.Errorf("%s: error %v, want rule %s", c.name, err, c.rule)
		}
		sameNode(t, c.b)
	}
}

// sameNode holds all that reads the block of a top node against [mst.Node], which says what is wrong with one. It reports whether
// nothing is.
func sameNode(t tb, b []byte) bool {
	t.Helper()
	var n mst.Node
	err := n.Decode(b)
	if err == nil {
		_, err = n.Check(mst.Top, nil, nil, nil)
	}
	root := cid.Sum(cid.DagCBOR, b)
	if got := partial.Load(root, &blockSource{blocks: map[cid.CID][]byte{root: b}, asked: map[cid.CID]bool{}}, nil); got != (err == nil) {
		t.Fatalf("%x: loaded %v; as a node: %v", b, got, err)
	}
	if got := mst.NewWalker(root, nil).Node(b); (got == nil) != (err == nil) {
		t.Fatalf("%x: on a walk: %v; as a node: %v", b, got, err)
	}
	w := mst.NewWalker(root, nil)
	w.Prepare(func(i int) []byte { return [][]byte{b, nil}[i] })
	if got := w.NodeAhead(b); (got == nil) != (err == nil) {
		t.Fatalf("%x: looked at ahead: %v; as a node: %v", b, got, err)
	}
	return err == nil
}

// Every change of one byte of a node, and every length in a longer form, is judged the same by all that reads nodes.
func TestSameNode(t *testing.T) {
	long := string(bytes.Repeat([]byte("x"), 260))
	row := node(none)
	for i := range 25 {
		row.Entries = append(row.Entries, ent(keyOn(0, fmt.Sprintf("a/%02d/", i), 0)))
	}
	for _, good := range []*mst.Node{
		node(none),
		node(value(9), ent(keyOn(1, "app.bsky/a", 0), value(8)), ent(keyOn(1, "app.bsky/b", 0))),
		node(none, ent(keyOn(0, "b/", 0)), ent(keyOn(0, "c/"+long, 0)), ent(keyOn(0, "c/"+long+"y", 0)), ent(keyOn(0, "c/"+long[:30]+"y", 0))),
		row,
	} {
		b := good.Append(nil)
		if !sameNode(t, b) {
			t.Fatalf("%x is refused", b)
		}
		for i, c := range b {
			for flip := 1; flip < 256; flip += 1 + len(b)/256*7 {
				b[i] = c ^ byte(flip)
				sameNode(t, b)
			}
			b[i] = c
			with := func(head ...byte) { sameNode(t, slices.Concat(b[:i], head, b[i+1:])) }
			with()
			with(c, c)
			with(c|24, c&31)
			with(c|25, 0, c&31)
			with(c+1, 0) // of one byte that becomes two
		}
	}
}

func FuzzNode(f *testing.F) {
	f.Add([]byte{})
	f.Add(node(none).Append(nil))
	f.Add(node(value(1)).Append(nil))
	f.Add(node(value(9), ent(keyOn(1, "app.bsky/a", 0), value(8)), ent(keyOn(1, "app.bsky/b", 0))).Append(nil))
	f.Add(node(none, ent(keyOn(0, string(bytes.Repeat([]byte("x"), 300)), 0)), ent(keyOn(0, "y", 0))).Append(nil))
	f.Add([]byte("\xa2\x61e\x99\x01\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		sameNode(t, b)
		var n mst.Node
		if n.Decode(b) != nil {
			return
		}
		// What is accepted is canonical, and so comes back byte for byte.
		if got := n.Append(nil); !bytes.Equal(got, b) {
			t.Fatalf("decoded %x, encoded %x", b, got)
		}
		for i, e := range n.Entries {
			if i > 0 && bytes.Compare(n.Entries[i-1].Key, e.Key) >= 0 {
				t.Fatalf("key %q after %q", e.Key, n.Entries[i-1].Key)
			}
		}
		if layer, err := n.Check(mst.Top, nil, nil, nil); err == nil {
			c := cid.Sum(cid.DagCBOR, b)
			if got, err := mst.Open(c, mst.MapSource{c: b}).Layer(); err != nil || got != layer {
				t.Fatalf("layer %d %v, want %d", got, err, layer)
			}
		}
	})
}

// The root is a link like any other: one to a blob is none to a node, whoever reads the tree.
func TestRootCodec(t *testing.T) {
	value := cid.Sum(cid.DagCBOR, []byte("record"))
	for _, n := range []mst.Node{{}, {Entries: []mst.NodeEntry{{Key: []byte("a"), Value: value}}}} {
		block := n.Append(nil)
		for codec, good := range map[cid.Codec]bool{cid.DagCBOR: true, cid.Raw: false} {
			root := cid.Sum(codec, block)
			var e *mst.Error
			_, _, err := mst.Open(root, mst.MapSource{root: block}).Get("a")
			if (err == nil) != good || !good && (!errors.As(err, &e) || e.Rule != mst.RuleLink) {
				t.Errorf("tree, codec 0x%x: %v", codec, err)
			}
			err = mst.NewWalker(root, nil).Node(block)
			if (err == nil) != good || !good && (!errors.As(err, &e) || e.Rule != mst.RuleLink) {
				t.Errorf("walker, codec 0x%x: %v", codec, err)
			}
		}
	}
}

// What isn't a CID of the protocol is no value: no tree that has it could be read.
func TestNoValue(t *testing.T) {
	for _, c := range []cid.CID{{}, {9}, {1, 0x70, 0x12, 0x20}} {
		var e *mst.OpError
		if _, _, err := mst.New().Put("a", c); !errors.As(err, &e) {
			t.Errorf("Put %x: %v", c, err)
		}
		if err := new(mst.Builder).Add("a", c); !errors.As(err, &e) {
			t.Errorf("Add %x: %v", c, err)
		}
	}
}

func TestPartialWithoutNodes(t *testing.T) {
	var p mst.Partial
	if _, known := p.Get("a"); known {
		t.Error("the zero Partial knows something")
	}
	if _, ok := p.Invert(nil); ok {
		t.Error("the zero Partial inverts something")
	}
}
