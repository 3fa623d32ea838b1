package car_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
)

// TestKept holds what a reader has kept against the archive: all of the last Options.Keep bytes, unless there was a
// large block, and nothing wrong.
func TestKept(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	b := archive(emptyHeader)
	for range 12_000 {
		data := make([]byte, r.IntN(1200))
		if r.IntN(3000) == 0 {
			data = make([]byte, 100_000+r.IntN(500_000))
		}
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		b = car.AppendBlock(b, cid.Sum(cid.DagCBOR, data), data)
	}
	for _, c := range []struct {
		name string
		keep int
		from io.Reader
	}{
		{"nothing", 0, bytes.NewReader(b)},
		{"a little", 1, bytes.NewReader(b)},
		{"less than a read", 10_000, bytes.NewReader(b)},
		{"a lot", 1 << 20, bytes.NewReader(b)},
		{"in small portions", 100_000, iotest.HalfReader(bytes.NewReader(b))},
		{"everything", len(b), bytes.NewReader(b)},
		{"of bytes, nothing", 0, nil},
		{"of bytes, a lot", 100_000, nil},
	} {
		var cr *car.Reader
		var err error
		if c.from == nil {
			cr, err = car.NewBytesReader(b, car.Options{Keep: c.keep})
		} else {
			cr, err = car.NewReader(c.from, car.Options{Keep: c.keep})
		}
		if err != nil {
			t.Fatal(err)
		}
		var starts []int64
		longest, large := int64(0), int64(0)
		for {
			at := cr.Offset()
			_, data, err := cr.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(c.name, err)
			}
			starts = append(starts, at)
			if len(data) > 256<<10 {
				large = cr.Offset()
			}
			if kept := cr.Kept(cr.Offset()-int64(len(data)), len(data)); !bytes.Equal(kept, data) {
				t.Fatalf("%s: the block itself, %d bytes, is not there", c.name, len(data))
			}
			if cr.Kept(cr.Offset()-1, 2) != nil {
				t.Fatalf("%s: what has not been returned yet is there", c.name)
			}
			for range 5 {
				i := r.IntN(len(starts))
				if near := r.IntN(20); near < len(starts) && r.IntN(2) == 0 {
					i = len(starts) - 1 - near
				}
				from, n := starts[i], int(cr.Offset()-starts[i])
				if i+1 < len(starts) {
					n = int(starts[i+1] - from)
				}
				kept := cr.Kept(from, n)
				behind := cr.Offset() - from
				switch {
				case kept == nil && behind <= int64(c.keep) && cr.Offset()-large > 2*int64(c.keep)+1<<20:
					t.Fatalf("%s: what lies %d bytes behind is gone", c.name, behind)
				case kept != nil && !bytes.Equal(kept, b[from:from+int64(n)]):
					t.Fatalf("%s: what lies %d bytes behind is wrong", c.name, behind)
				case kept != nil:
					longest = max(longest, behind)
				}
			}
		}
		t.Logf("%s: up to %d bytes behind", c.name, longest)
		cr.Release()
		cr.Release()
		if _, _, err := cr.Next(); err == nil || err == io.EOF {
			t.Errorf("%s: after the release: %v", c.name, err)
		}
		if cr.Kept(starts[len(starts)-1], 1) != nil {
			t.Errorf("%s: something is kept after the release", c.name)
		}
	}
}
