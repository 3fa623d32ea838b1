package sha256x_test

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/barograph/baro/internal/sha256x"
)

func Example() {
	text := []byte("abcdef")
	spans := []sha256x.Span{{Start: 0, End: 3}, {Start: 6, End: 6}}
	var h sha256x.Hasher
	h.Spans(text, spans)
	for _, s := range spans {
		fmt.Printf("%q %x\n", text[s.Start:s.End], s.Sum[:4])
	}
	// Output:
	// "abc" ba7816bf
	// "" e3b0c442
}

func message(n int) []byte {
	r := rand.New(rand.NewPCG(uint64(n), 9))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// TestSum2 holds all pairs of lengths around the borders of blocks against crypto/sha256.
func TestSum2(t *testing.T) {
	t.Logf("accelerated: %v", sha256x.Accelerated())
	long := message(400)
	for n := range 300 {
		for _, m := range []int{0, 1, 31, 54, 55, 56, 63, 64, 65, 119, 120, 127, 128, 129, 183, 184, 200, n} {
			a, b := long[7:7+n], long[3:3+m]
			x, y := sha256x.Sum2(a, b)
			if x != sha256.Sum256(a) || y != sha256.Sum256(b) || x != sha256x.Sum(a) {
				t.Fatalf("lengths %d and %d", n, m)
			}
		}
	}
}

// check hashes messages that lie in b, and reports the first one that comes out wrong.
func check(h *sha256x.Hasher, b []byte, spans []sha256x.Span) error {
	h.Spans(b, spans)
	for i, s := range spans {
		if s.Sum != sha256.Sum256(b[s.Start:s.End]) {
			return fmt.Errorf("message %d of %d, %d bytes", i, len(spans), s.End-s.Start)
		}
	}
	return nil
}

// TestSpans tries numbers of messages around those that lanes are filled with, up to more than one batch, of lengths in which
// short ones and ones that are longer than all the others together occur. They may overlap.
func TestSpans(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	buf := message(1 << 16)
	var h sha256x.Hasher
	for round := range 2000 {
		n := r.IntN(60)
		if round%100 == 0 {
			n = 400 + r.IntN(1200)
		}
		spans := make([]sha256x.Span, n)
		for i := range spans {
			size := r.IntN(1 << (1 + r.IntN(9+round%8)))
			at := r.IntN(len(buf) - size)
			spans[i] = sha256x.Span{Start: at, End: at + size}
		}
		if err := check(&h, buf, spans); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
}

// TestEqualLengths hashes many messages of about a length, which are as many blocks: these are hashed as groups.
func TestEqualLengths(t *testing.T) {
	buf := message(1 << 12)
	var h sha256x.Hasher
	for n := range 320 {
		spans := make([]sha256x.Span, 15+n%40)
		for i := range spans {
			at := (n + 17*i) % 3000
			spans[i] = sha256x.Span{Start: at, End: at + n + i%(1+n%5)}
		}
		spans[n%len(spans)].End += 700
		if err := check(&h, buf, spans); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
}

// FuzzDifferential cuts the input into messages of the lengths that it names, and compares with crypto/sha256.
func FuzzDifferential(f *testing.F) {
	f.Add([]byte(nil), uint16(0), uint16(0))
	f.Add(message(1000), uint16(55), uint16(300))
	f.Add(message(130), uint16(64), uint16(1))
	f.Add(message(3000), uint16(3), uint16(5))
	f.Fuzz(func(t *testing.T, b []byte, n, m uint16) {
		var spans []sha256x.Span
		k := min(int(n), len(b))
		x, y := sha256x.Sum2(b[:k], b[k:])
		for at := 0; at < len(b) && len(spans) < 600; n, m = m+1, n {
			end := min(at+int(n), len(b))
			spans = append(spans, sha256x.Span{Start: at, End: end})
			at = end
		}
		if err := check(new(sha256x.Hasher), b, spans); err != nil {
			t.Fatal(err)
		}
		if x != sha256.Sum256(b[:k]) || y != sha256.Sum256(b[k:]) {
			t.Fatalf("%d and %d bytes", k, len(b)-k)
		}
	})
}

func TestNoAllocation(t *testing.T) {
	a, b := message(300), message(32)
	var h sha256x.Hasher
	spans := []sha256x.Span{{Start: 0, End: 300}, {Start: 7, End: 39}, {Start: 3, End: 3}}
	if n := testing.AllocsPerRun(100, func() {
		spans[0].Sum, spans[1].Sum = sha256x.Sum2(a, b)
		spans[0].Sum = sha256x.Sum(a)
		h.Spans(a, spans)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkSum2 hashes keys: one, a pair, and two one after the other.
func BenchmarkSum2(b *testing.B) {
	x, y := message(32), message(33)
	b.Run("one", func(b *testing.B) {
		b.SetBytes(32)
		for b.Loop() {
			sha256x.Sum(x)
		}
	})
	b.Run("pair", func(b *testing.B) {
		b.SetBytes(65)
		for b.Loop() {
			sha256x.Sum2(x, y)
		}
	})
	b.Run("std", func(b *testing.B) {
		b.SetBytes(65)
		for b.Loop() {
			sha256.Sum256(x)
			sha256.Sum256(y)
		}
	})
}

// BenchmarkSpans hashes messages of the sizes that records have, and such of which a few are much longer.
func BenchmarkSpans(b *testing.B) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, c := range []struct {
		name string
		size func() int
	}{
		{"even", func() int { return 150 + r.IntN(280) }},
		{"uneven", func() int { return 150 + r.IntN(1<<(6+r.IntN(8))) }},
	} {
		var spans []sha256x.Span
		total := 0
		for range 250 {
			n := c.size()
			spans = append(spans, sha256x.Span{Start: total, End: total + n})
			total += n
		}
		buf := message(total)
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(total))
			var h sha256x.Hasher
			for b.Loop() {
				h.Spans(buf, spans)
			}
		})
		b.Run(c.name+"/std", func(b *testing.B) {
			b.SetBytes(int64(total))
			for b.Loop() {
				for i := range spans {
					s := &spans[i]
					s.Sum = sha256.Sum256(buf[s.Start:s.End])
				}
			}
		})
	}
}
