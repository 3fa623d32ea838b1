package repo

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/barograph/baro/cid"
)

// TestRing holds the ring against a list: what it finds is right, and the newest blocks are always there.
func TestRing(t *testing.T) {
	for _, size := range []int{1 << 12, 1 << 16} {
		rnd := rand.New(rand.NewPCG(1, uint64(size)))
		g := ring{max: int64(size)}
		var model [][]byte
		for i := range 12_000 {
			var b []byte
			if len(model) > 0 && rnd.IntN(10) == 0 {
				b = model[rnd.IntN(len(model))] // once more
			} else {
				b = make([]byte, 8+rnd.IntN(size/40))
				if i%3000 < 1000 {
					b = b[:8] // many tiny ones
				}
				for j := range b {
					b[j] = byte(rnd.Uint32())
				}
			}
			c := cid.Sum(cid.DagCBOR, b)
			before := g.get(&c)
			if before != nil && !bytes.Equal(before, b) {
				t.Fatalf("block %d has other bytes", i)
			}
			g.add(&c, b)
			if !bytes.Equal(g.get(&c), b) {
				t.Fatalf("block %d is not there", i)
			}
			if before == nil {
				model = append(model, b)
			}
			if len(g.buf) > size || len(g.items)-g.head > size/ringShare+1 {
				t.Fatalf("%d bytes, %d blocks", len(g.buf), len(g.items)-g.head)
			}
			if i%197 != 0 {
				continue
			}
			bytesLeft := size / 2
			for k := len(model) - 1; k >= 0 && k > len(model)-size/ringShare; k-- {
				if bytesLeft -= len(model[k]); bytesLeft < 0 {
					break
				}
				c := cid.Sum(cid.DagCBOR, model[k])
				if !bytes.Equal(g.get(&c), model[k]) {
					t.Fatalf("after %d blocks the one %d before the last is gone", i, len(model)-1-k)
				}
			}
		}
	}
	g := ring{max: -1}
	c := cid.Sum(cid.DagCBOR, []byte{1})
	if g.add(&c, []byte{1}); g.get(&c) != nil {
		t.Error("a ring without room holds a block")
	}
}
