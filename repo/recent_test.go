package repo

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
)

// TestRecent holds what is found of the blocks read last against a list of them.
func TestRecent(t *testing.T) {
	for _, keep := range []int{1, 10_000, 200_000} {
		rnd := rand.New(rand.NewPCG(1, uint64(keep)))
		var blocks [][]byte
		file := car.AppendHeader(nil)
		for i := range 30_000 {
			b := make([]byte, 8+rnd.IntN(300))
			if i%3000 < 1000 {
				b = b[:8] // many tiny ones
			}
			for j := range b {
				b[j] = byte(rnd.Uint32())
			}
			if rnd.IntN(10) == 0 && i > 0 {
				b = blocks[max(0, i-1-rnd.IntN(2000))] // once more
			}
			blocks = append(blocks, b)
			file = car.AppendBlock(file, cid.Sum(cid.DagCBOR, b), b)
		}
		cr, err := car.NewReader(bytes.NewReader(file), car.Options{Keep: keep})
		if err != nil {
			t.Fatal(err)
		}
		var r recent
		r.reset(cr)
		for i := 0; ; i++ {
			c, b, err := cr.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			r.add(len(b))
			if i < 5000 && i%4 != 0 || i%97 != 0 { // nobody asks for a while, then often, then seldom
				continue
			}
			if !bytes.Equal(r.get(&c), b) {
				t.Fatalf("block %d is not there", i)
			}
			behind := 0
			for k := i; k >= 0 && k > i-3000; k-- {
				behind += car.BlockSize(len(blocks[k]))
				c := cid.Sum(cid.DagCBOR, blocks[k])
				got := r.get(&c)
				if got == nil && behind <= keep {
					t.Fatalf("keep %d: after %d blocks the one %d bytes behind is gone", keep, i, behind)
				}
				if got != nil && !bytes.Equal(got, blocks[k]) {
					t.Fatalf("keep %d: block %d has other bytes", keep, k)
				}
			}
			if len(r.list) > 1<<15 || len(r.table) > 1<<17 {
				t.Fatalf("%d blocks noted, table of %d", len(r.list), len(r.table))
			}
		}
		gone := cid.Sum(cid.DagCBOR, []byte("never there"))
		if r.get(&gone) != nil {
			t.Error("found what was never there")
		}
	}
}

// A block that comes again and again takes one slot.
func TestRecentRepeated(t *testing.T) {
	b := bytes.Repeat([]byte{7}, 50)
	c := cid.Sum(cid.DagCBOR, b)
	file := car.AppendHeader(nil)
	for range 20_000 {
		file = car.AppendBlock(file, c, b)
	}
	cr, err := car.NewReader(bytes.NewReader(file), car.Options{Keep: DefaultRetain})
	if err != nil {
		t.Fatal(err)
	}
	var r recent
	r.reset(cr)
	for {
		_, _, err := cr.Next()
		if err == io.EOF {
			break
		}
		r.add(len(b))
		if r.get(&c) == nil || r.used != 1 {
			t.Fatalf("%d slots used", r.used)
		}
	}
}
