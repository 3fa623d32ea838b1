package mst_test

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/mst"
)

// tallKey begins with 34 zero bits when it is hashed: more than the 32 by which the layers of many keys at once are told.
const tallKey = "com.example.note/4kp0fyd"

// layeredKeys are keys that make trees of all shapes: many on high layers, which chance alone gives to few; a row of them in one
// node, more than a length of one byte can count; and long ones, with prefixes and suffixes on both sides of each size of a length.
var layeredKeys = func() (keys []string) {
	mine := func(layer, count int, format string) {
		for i := 0; count > 0; i++ {
			if k := fmt.Sprintf(format, i); mst.Layer(k) == layer {
				keys = append(keys, k)
				count--
			}
		}
	}
	for layer, count := range []int{50, 20, 12, 8, 6, 5} {
		mine(layer, count, "com.example.note/%d")
	}
	mine(0, 40, "com.example.row/%03d")
	mine(1, 30, "com.example.rows/%03d")
	for _, n := range []int{1, 20, 24, 25, 40, 56, 240, 270} {
		mine(0, 2, "com.example.other/"+strings.Repeat("x", n)+"%d")
		mine(1, 2, "com.example.other/"+strings.Repeat("x", n)+"%d")
		mine(0, 2, "com.example."+string(rune('a'+n%26))+"%d/"+strings.Repeat("y", n))
	}
	keys = append(keys, tallKey)
	slices.Sort(keys)
	return slices.Compact(keys)
}()

// A key on a layer that hardly any tree has is on the same one for all that reads nodes.
func TestTallKey(t *testing.T) {
	if got := mst.Layer(tallKey); got != 17 {
		t.Fatalf("layer %d", got)
	}
	if !sameNode(t, node(none, ent(tallKey)).Append(nil)) || !sameNode(t, node(value(1), ent(tallKey, value(2))).Append(nil)) {
		t.Error("refused")
	}
	if sameNode(t, node(none, ent(keyOn(0, "a/", 0)), ent(tallKey)).Append(nil)) {
		t.Error("accepted beside a key on layer 0")
	}
}

// undone returns what the keys and values of a tree were before operations, or that these can't have led to it.
func undone(after map[string]cid.CID, ops []mst.Op) (before map[string]cid.CID, ok bool) {
	before = maps.Clone(after)
	seen := map[string]bool{}
	for _, o := range ops {
		if o.Key == "" || seen[o.Key] || after[o.Key] != o.Value || !o.Value.Defined() && !o.Prev.Defined() {
			return nil, false
		}
		seen[o.Key] = true
		if delete(before, o.Key); o.Prev.Defined() {
			before[o.Key] = o.Prev
		}
	}
	return before, true
}

// Operations on trees of all shapes lead back to the tree that the definition makes of what was there before, if they can be
// true, and else nowhere; also when nodes are missing, except that they may then lead nowhere.
func TestInvertNaive(t *testing.T) {
	r := rand.New(rand.NewPCG(12, 9))
	var p mst.Partial
	led, nowhere, lacking := 0, 0, 0
	for round := range 1500 {
		after := map[string]cid.CID{}
		for k, of := 0, []int{0, 1, 2, 8, 60, 100}[r.IntN(6)]; k < len(layeredKeys); k++ {
			if r.IntN(100) < of {
				after[layeredKeys[k]] = value(k)
			}
		}
		var ops []mst.Op
		for _, k := range r.Perm(len(layeredKeys))[:min(1+r.IntN([]int{1, 3, 20, 300}[r.IntN(4)]), len(layeredKeys))] {
			o := mst.Op{Key: layeredKeys[k], Value: after[layeredKeys[k]]}
			if !o.Value.Defined() || r.IntN(3) == 0 {
				o.Prev = value(1000 + k)
			}
			if r.IntN(60) == 0 { // a lie, or an update to what was there
				o.Value = value(1000 + k*r.IntN(2))
			}
			if r.IntN(60) == 0 {
				o.Value = cid.CID{}
			}
			ops = append(ops, o)
		}
		if round%50 == 0 { // all goes
			ops = ops[:0]
			for k, v := range after {
				ops = append(ops, mst.Op{Key: k, Value: v})
			}
		}
		if r.IntN(20) == 0 { // a key twice
			ops = slices.Insert(ops, r.IntN(len(ops)+1), mst.Op{Key: layeredKeys[r.IntN(len(layeredKeys))], Prev: value(7)})
			if len(ops) > 1 && r.IntN(2) == 0 {
				ops[r.IntN(len(ops))].Key = ops[0].Key
			}
		}
		want, can := undone(after, ops)
		root, _, _ := naive(want)
		top, blocks, _ := naive(after)
		whole := len(blocks)
		for range 3 {
			loaded := p.Load(top, &blockSource{blocks: blocks, asked: map[cid.CID]bool{}}, nil)
			if has := blocks[top] != nil; loaded != has {
				t.Fatalf("round %d: loaded %v, want %v", round, loaded, has)
			}
			got, ok := p.Invert(ops)
			switch {
			case ok && !can:
				t.Fatalf("round %d: %d operations that can't be true lead back to %s", round, len(ops), got)
			case ok && got != root:
				t.Fatalf("round %d: %d operations on %d records lead back to %s, want %s", round, len(ops), len(after), got, root)
			case ok:
				led++
			case !can:
				nowhere++
			case len(blocks) == whole:
				t.Fatalf("round %d: %d true operations on a whole tree of %d records lead nowhere", round, len(ops), len(after))
			default:
				lacking++
			}
			for _, c := range slices.SortedFunc(maps.Keys(blocks), cid.Compare) {
				if r.IntN(8) == 0 {
					delete(blocks, c)
				}
			}
		}
		p.Reset()
	}
	if led < 1000 || nowhere < 300 || lacking < 300 {
		t.Errorf("%d led back, %d could not be true, %d lacked nodes", led, nowhere, lacking)
	}
}

// Operations that are refused leave nothing behind: a Partial is used for one message after the other, and doesn't grow by those
// that fail half way.
func TestInvertRefused(t *testing.T) {
	records := map[string]cid.CID{}
	for k := range layeredKeys {
		records[layeredKeys[k]] = value(k)
	}
	top, blocks, _ := naive(records)
	var ops []mst.Op
	for k, key := range layeredKeys { // all true, but for the last one
		if k%3 == 0 && mst.Layer(key) == 0 {
			ops = append(ops, mst.Op{Key: key, Value: value(k), Prev: value(-1)})
		}
	}
	ops[len(ops)-1].Value = value(-2)
	var p mst.Partial
	refuse := func(times int) {
		for range times {
			if _, ok := p.Invert(ops); ok {
				t.Fatal("a lie leads back")
			}
		}
	}
	if !p.Load(top, frugalSource{&blockSource{blocks: blocks, asked: map[cid.CID]bool{}}}, nil) {
		t.Fatal("an honest tree is refused")
	}
	refuse(10)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	refuse(1000)
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 64<<10 {
		t.Errorf("%d bytes were allocated", got)
	}
}

// frugalSource is a blockSource that hashes without allocating.
type frugalSource struct{ *blockSource }

func (frugalSource) Rehash(_ int, block []byte, _ int) [32]byte { return sha256.Sum256(block) }
