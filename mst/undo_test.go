package mst_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/mst"
)

// blockSource are blocks under CIDs, which may be false.
type blockSource struct {
	blocks map[cid.CID][]byte
	asked  map[cid.CID]bool
	list   [][]byte
}

func (s *blockSource) Node(c *cid.CID) ([]byte, int, bool) {
	b, ok := s.blocks[*c]
	if !ok {
		return nil, 0, false
	}
	again := s.asked[*c]
	s.asked[*c] = true
	s.list = append(s.list, b)
	return b, len(s.list) - 1, again
}

func (s *blockSource) Some() *[4]uint64 {
	var some [4]uint64
	for c := range s.blocks {
		last := c[cid.Size-1]
		some[last>>6] |= 1 << (last & 63)
	}
	return &some
}

func (s *blockSource) Rehash(id int, block []byte, same int) [32]byte {
	if same > len(block) || !strings.HasPrefix(string(s.list[id]), string(block[:same])) {
		panic("the beginning isn't the same")
	}
	return sha256.Sum256(block)
}

// Load implements [mst.Source].
func (s *blockSource) Load(c cid.CID, _ mst.Pos) ([]byte, error) {
	b, _, again := s.Node(&c)
	switch {
	case again:
		return nil, &mst.Error{Rule: mst.RuleBounds, CID: c}
	case b == nil:
		return nil, mst.ErrNotFound
	}
	return b, nil
}

var partial mst.Partial // used again and again

// checkPartial holds a Partial against a Tree: the nodes that both load, and the root after ops are undone. It reports whether
// the operations went through. Which nodes several of them need depends on their order in a Tree, but not in a Partial: one may
// lack a node that the other does without. With all that a message has to have, neither does.
func checkPartial(t tb, top cid.CID, blocks map[cid.CID][]byte, ops []mst.Op) bool {
	t.Helper()
	keyOK := func(key []byte) error {
		if key[0] == 'Z' {
			return errors.New("not a key")
		}
		return nil
	}
	var last []byte
	loaded := partial.Load(top, &blockSource{blocks: blocks, asked: map[cid.CID]bool{}}, func(key []byte, same int) error {
		if same > len(key) || same > len(last) || string(key[:same]) != string(last[:same]) {
			t.Fatalf("%q has %d bytes in common with %q", key, same, last)
		}
		last = key
		return keyOK(key)
	})
	src := &blockSource{blocks: blocks, asked: map[cid.CID]bool{}}
	tree := mst.OpenOptions(top, src, mst.Options{HashChecked: true, CheckKey: keyOK})
	n, err := tree.LoadPresent(func(c *cid.CID) bool { _, ok := blocks[*c]; return ok })
	if loaded != (err == nil && n > 0) {
		t.Fatalf("%d blocks: loaded %v; a tree loads %d nodes, %v", len(blocks), loaded, n, err)
	}
	if !loaded {
		return false
	}
	for _, o := range ops {
		got, known := partial.Get(o.Key)
		want, _, err := tree.Get(o.Key)
		if known != (err == nil) || known && got != want {
			t.Fatalf("%s: %v, %v; a tree has %v, %v", o.Key, got, known, want, err)
		}
	}
	got, ok := partial.Invert(ops)
	err = tree.Invert(ops)
	missing := (*mst.MissingError)(nil)
	honest := true // else it matters which nodes are encoded again though nothing in them changes
	for c, b := range blocks {
		honest = honest && c.Verify(b)
	}
	switch {
	case err == nil && !ok && len(ops) == 1:
		t.Fatal("an operation is refused, but a tree undoes it")
	case err == nil && ok && honest && root(t, tree) != got:
		t.Fatalf("%d operations lead back to %s, those of a tree to %s", len(ops), got, root(t, tree))
	case err != nil && ok && !(errors.As(err, &missing) && len(ops) > 1):
		t.Fatalf("%d operations go through, in a tree: %v", len(ops), err)
	}
	return ok
}

// message makes a tree, changes it, and returns what a message about that would have: the new root, the operations and the
// nodes that are new or needed.
func message(r *rand.Rand, records, changes int) (before, after cid.CID, blocks map[cid.CID][]byte, ops []mst.Op) {
	key := func() string {
		switch r.IntN(8) {
		case 0: // too long for a block of the hash
			return fmt.Sprintf("com.example.note/%0*d", 30+r.IntN(60), r.IntN(2*records+2))
		case 1:
			return fmt.Sprintf("com.example.other/%d", r.IntN(2*records+2))
		}
		return fmt.Sprintf("com.example.note/%06d", r.IntN(2*records+2))
	}
	tree := mst.New()
	var have []string
	for i := range records {
		k := key()
		if _, had, _ := tree.Put(k, value(i)); !had {
			have = append(have, k)
		}
	}
	ch, err := tree.Flush()
	if err != nil {
		panic(err)
	}
	before = ch.Root
	var keys []string
	for i := range changes {
		k := key()
		if len(have) > 0 && r.IntN(2) == 0 {
			k = have[r.IntN(len(have))]
		}
		if slices.ContainsFunc(ops, func(o mst.Op) bool { return o.Key == k }) {
			continue
		}
		prev, had, _ := tree.Get(k)
		o := mst.Op{Key: k, Value: value(-1 - i), Prev: prev}
		if had && r.IntN(2) == 0 {
			o.Value = cid.CID{}
		}
		ops, keys = append(ops, o), append(keys, k)
	}
	if err := tree.Apply(ops); err != nil {
		panic(err)
	}
	if ch, err = tree.Flush(); err != nil {
		panic(err)
	}
	cover, err := tree.CoverBeside(ch.Added, keys...)
	if err != nil {
		panic(err)
	}
	blocks = map[cid.CID][]byte{}
	for _, b := range ch.Added {
		blocks[b.CID] = b.Bytes
	}
	for _, b := range cover {
		blocks[b.CID] = b.Bytes
	}
	return before, ch.Root, blocks, ops
}

// corrupt spoils a message in a way of its own.
func corrupt(r *rand.Rand, blocks map[cid.CID][]byte, ops []mst.Op) []mst.Op {
	ops = slices.Clone(ops)
	cids := slices.SortedFunc(mapKeys(blocks), cid.Compare)
	pick := func() cid.CID { return cids[r.IntN(len(cids))] }
	switch r.IntN(7) {
	case 0:
		delete(blocks, pick())
	case 1: // a byte
		c := pick()
		b := slices.Clone(blocks[c])
		b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		blocks[c] = b
	case 2: // a link to somewhere else
		c := pick()
		b := slices.Clone(blocks[c])
		if i := strings.LastIndex(string(b[:r.IntN(len(b))+1]), "\x01\x71\x12\x20"); i >= 0 && len(b) >= i+cid.Size {
			to := pick()
			copy(b[i:], to[:])
		}
		blocks[c] = b
	case 3: // one node instead of another
		blocks[pick()] = blocks[pick()]
	case 4: // a node with other entries
		c := pick()
		var n mst.Node
		if n.Decode(blocks[c]) != nil {
			break
		}
		switch k := r.IntN(len(n.Entries) + 1); {
		case k == len(n.Entries):
			n.Left = cid.CID{}
		case r.IntN(2) == 0:
			n.Entries[k].Right = pick()
		default:
			n.Entries = slices.Delete(n.Entries, k, k+1)
		}
		blocks[c] = n.Append(nil)
	case 5: // other operations
		if len(ops) > 0 {
			o := &ops[r.IntN(len(ops))]
			switch r.IntN(4) {
			case 0:
				o.Prev, o.Value = o.Value, o.Prev
			case 1:
				o.Value = value(r.IntN(3))
			case 2:
				o.Prev = value(r.IntN(3))
			default:
				o.Key += "0"
			}
		}
	default:
		if len(ops) > 0 {
			k := r.IntN(len(ops))
			ops = slices.Delete(ops, k, k+1)
		}
	}
	return ops
}

// relink gives all nodes below c the CIDs that they have now, and returns that of c.
func relink(blocks map[cid.CID][]byte, c cid.CID, depth int) cid.CID {
	var n mst.Node
	if !c.Defined() || blocks[c] == nil || depth > 10 || n.Decode(blocks[c]) != nil {
		return c
	}
	n.Left = relink(blocks, n.Left, depth+1)
	for i := range n.Entries {
		n.Entries[i].Right = relink(blocks, n.Entries[i].Right, depth+1)
	}
	b := n.Append(nil)
	delete(blocks, c)
	blocks[cid.Sum(cid.DagCBOR, b)] = b
	return cid.Sum(cid.DagCBOR, b)
}

func mapKeys(m map[cid.CID][]byte) func(func(cid.CID) bool) {
	return func(yield func(cid.CID) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func TestPartial(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	refused := 0
	for round := range 3000 {
		records, changes := r.IntN(4), 1
		if round%4 > 0 {
			records = r.IntN(300)
		}
		if round%3 == 0 {
			changes = r.IntN(12)
		}
		before, after, blocks, ops := message(r, records, changes)
		r.Shuffle(len(ops), func(i, j int) { ops[i], ops[j] = ops[j], ops[i] })
		if len(blocks) == 0 {
			continue // nothing changed
		}
		if !checkPartial(t, after, blocks, ops) {
			t.Fatalf("round %d: %d operations on %d records are refused", round, len(ops), records)
		}
		if got, ok := partial.Invert(ops); !ok || got != before {
			t.Fatalf("round %d: %d operations on %d records lead back to %s, want %s", round, len(ops), records, got, before)
		}
		for range 4 {
			if ops = corrupt(r, blocks, ops); len(blocks) == 0 {
				break
			}
			if round%2 == 0 {
				after = relink(blocks, after, 0)
			}
			if !checkPartial(t, after, blocks, ops) {
				refused++
			}
		}
	}
	if refused < 1000 {
		t.Errorf("only %d messages were refused", refused)
	}
}

// What a message leaves behind doesn't change what the next one gets, and keeps nothing of it but memory.
func TestPartialReset(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	var p mst.Partial
	for round := range 60 {
		size := 1 + r.IntN(40)
		if round%10 == 0 {
			size = 1500
		}
		before, after, blocks, ops := message(r, size, 1+size/10)
		src := &blockSource{blocks: blocks, asked: map[cid.CID]bool{}}
		if len(blocks) == 0 {
			continue
		}
		if !p.Load(after, src, nil) {
			t.Fatal("an honest message is refused")
		}
		if got, ok := p.Invert(ops); !ok || got != before {
			t.Fatalf("%d operations lead back to %s, want %s", len(ops), got, before)
		}
		p.Reset()
		if n := testing.AllocsPerRun(1, func() { p.Reset() }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

func TestPartialHostile(t *testing.T) {
	for _, c := range hostileTrees {
		blocks := map[cid.CID][]byte{}
		top := c.root(func(n *mst.Node) cid.CID {
			b := n.Append(nil)
			k := cid.Sum(cid.DagCBOR, b)
			blocks[k] = b
			return k
		})
		if checkPartial(t, top, blocks, nil) {
			t.Errorf("%s: accepted", c.name)
		}
	}
	_, after, blocks, ops := message(rand.New(rand.NewPCG(1, 1)), 100, 1)
	raw := after
	raw[1] = byte(cid.Raw)
	if checkPartial(t, raw, map[cid.CID][]byte{raw: blocks[after]}, nil) {
		t.Error("a root with the codec of blobs: accepted")
	}
	noCID := value(1)
	noCID[2]++
	for _, wrong := range [][]mst.Op{
		{ops[0], ops[0]},
		{{Key: ops[0].Key, Value: ops[0].Value, Prev: noCID}},
		{{Key: "com.example.note/x", Prev: noCID}},
		{{Key: "", Value: value(1)}},
		{{Key: strings.Repeat("a", mst.MaxKey+1), Prev: value(1)}},
		{{Key: "com.example.note/x"}},
	} {
		if checkPartial(t, after, blocks, wrong) {
			t.Errorf("%v went through", wrong)
		}
	}
}

// FuzzPartial changes the bytes of a node and of the operations in a message.
func FuzzPartial(f *testing.F) {
	f.Add(uint64(1), uint64(2), uint16(0), []byte(nil))
	f.Add(uint64(3), uint64(4), uint16(9), []byte("\xf6"))
	for i := range uint64(8) {
		f.Add(i, i<<8|i, uint16(40*i), []byte("\x61p\x05\x61t"))
	}
	f.Fuzz(func(t *testing.T, seed, shape uint64, at uint16, bytes []byte) {
		r := rand.New(rand.NewPCG(seed, shape))
		_, after, blocks, ops := message(r, int(shape%200), int(shape>>8%10))
		if len(blocks) == 0 {
			return
		}
		if !checkPartial(t, after, blocks, ops) {
			t.Fatal("an honest message is refused")
		}
		cids := slices.SortedFunc(mapKeys(blocks), cid.Compare)
		c := cids[r.IntN(len(cids))]
		b := slices.Clone(blocks[c])
		k := min(int(at), len(b))
		blocks[c] = append(b[:k:k], append(bytes, b[min(len(b), k+len(bytes)):]...)...)
		checkPartial(t, after, blocks, ops)
		if len(bytes)%2 == 1 {
			checkPartial(t, after, blocks, corrupt(r, blocks, ops))
		}
	})
}
