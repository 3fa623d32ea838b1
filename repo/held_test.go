package repo

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/barograph/baro/cid"
)

// TestHeld holds the set against a map, with blocks of all sizes, some of them twice, and uses it again: with copies, and in turn
// with blocks in a file.
func TestHeld(t *testing.T) {
	var s heldSet
	rnd := rand.New(rand.NewPCG(1, 2))
	for round, n := range []int{10, 30, 3000, 3000, 0, 0, 200, 200, 50_000, 20_000} {
		if round%2 == 1 {
			s.file = []byte{}
		}
		model := map[cid.CID][]byte{}
		var order []cid.CID
		var size, again int64
		wanted := map[cid.CID]bool{}
		for i := range n {
			b := make([]byte, rnd.IntN(400))
			if i%1000 == 7 {
				b = make([]byte, 1<<20)
			}
			for k := range b[:min(len(b), 400)] {
				b[k] = byte(rnd.Uint32())
			}
			c := cid.Sum(cid.DagCBOR, b)
			if len(order) > 0 && rnd.IntN(10) == 0 {
				c = order[rnd.IntN(len(order))]
				b = model[c]
			}
			if s.file != nil {
				s.file = append(append(s.file, c[:]...), b...)
			}
			s.keep(&c, b, int64(len(s.file)))
			if model[c] != nil {
				again += int64(len(b))
			} else {
				model[c] = b
				order = append(order, c)
				size += int64(len(b))
			}
			if rnd.IntN(20) == 0 {
				c := order[rnd.IntN(len(order))]
				if got, ok := s.find(&c); !ok || !bytes.Equal(got, model[c]) {
					t.Fatalf("round %d: a block of %d bytes is not found", round, len(model[c]))
				}
				wanted[c] = true
			}
		}
		for c, b := range model {
			if got, ok := s.find(&c); !s.has(&c) || !ok || !bytes.Equal(got, b) {
				t.Fatalf("round %d: a block of %d bytes is not found", round, len(b))
			}
			break
		}
		for c := range wanted {
			s.find(&c)
		}
		gone := cid.Sum(cid.Raw, []byte{1})
		if _, ok := s.find(&gone); ok || s.has(&gone) {
			t.Error("found what isn't there")
		}
		s.settle()
		if s.count != len(model) || s.bytes != size || s.againBytes != again || s.wanted < len(wanted) || s.wanted > len(wanted)+1 || s.wantedBytes > size {
			t.Errorf("round %d: %d blocks of %d bytes, %d bytes again, %d wanted; want %d, %d, %d, %d", round, s.count, s.bytes, s.againBytes, s.wanted, len(model), size, again, len(wanted))
		}
		s.recycle()
		if s.count != 0 || s.bytes != 0 || s.n != 0 || s.file != nil {
			t.Error("not empty")
		}
		for c := range model {
			if s.has(&c) {
				t.Fatal("a block of the file before")
			}
			break
		}
	}
}
