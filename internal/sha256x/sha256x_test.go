package sha256x_test

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/barograph/baro/internal/sha256x"
)

func Example() {
	words := []string{"abc", ""}
	var sums [2][sha256x.Size]byte
	var q sha256x.Queue
	for i, w := range words {
		q.Add([]byte(w), &sums[i])
	}
	q.Flush()
	for i, w := range words {
		fmt.Printf("%q %x\n", w, sums[i][:4])
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

// check hashes messages through a queue, and reports the first one that comes out wrong.
func check(q *sha256x.Queue, messages [][]byte) error {
	sums := make([][sha256x.Size]byte, len(messages))
	for i, m := range messages {
		q.Add(m, &sums[i])
	}
	q.Flush()
	for i, m := range messages {
		if sums[i] != sha256.Sum256(m) {
			return fmt.Errorf("message %d of %d, %d bytes", i, len(messages), len(m))
		}
	}
	return nil
}

func TestQueue(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	buf := message(1 << 16)
	var q sha256x.Queue
	for round := range 2000 {
		messages := make([][]byte, r.IntN(60))
		for i := range messages {
			size := r.IntN(1 << (1 + r.IntN(13)))
			at := r.IntN(len(buf) - size)
			messages[i] = buf[at : at+size]
		}
		if err := check(&q, messages); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
}

// FuzzDifferential cuts the input into messages of the lengths that it names, and compares with crypto/sha256.
func FuzzDifferential(f *testing.F) {
	f.Add([]byte(nil), uint16(0), uint16(0))
	f.Add(message(1000), uint16(55), uint16(300))
	f.Add(message(130), uint16(64), uint16(1))
	f.Fuzz(func(t *testing.T, b []byte, n, m uint16) {
		var messages [][]byte
		for rest := b; len(rest) > 0 && len(messages) < 100; n, m = m+1, n {
			k := min(int(n), len(rest))
			messages = append(messages, rest[:k])
			rest = rest[k:]
		}
		if err := check(new(sha256x.Queue), messages); err != nil {
			t.Fatal(err)
		}
		k := min(int(n), len(b))
		if x, y := sha256x.Sum2(b[:k], b[k:]); x != sha256.Sum256(b[:k]) || y != sha256.Sum256(b[k:]) {
			t.Fatalf("%d and %d bytes", k, len(b)-k)
		}
	})
}

func TestNoAllocation(t *testing.T) {
	a, b := message(300), message(32)
	var q sha256x.Queue
	sums := make([][sha256x.Size]byte, 2)
	if n := testing.AllocsPerRun(100, func() {
		sums[0], sums[1] = sha256x.Sum2(a, b)
		sums[0] = sha256x.Sum(a)
		q.Add(a, &sums[0])
		q.Add(b, &sums[1])
		q.Flush()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The benchmarks hash single keys, pairs of them, and records of a usual size: with the queue, and one by one.
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

func BenchmarkQueue(b *testing.B) {
	r := rand.New(rand.NewPCG(3, 4))
	var messages [][]byte
	total := 0
	for range 100 {
		messages = append(messages, message(150+r.IntN(280)))
		total += len(messages[len(messages)-1])
	}
	sums := make([][sha256x.Size]byte, len(messages))
	b.Run("queue", func(b *testing.B) {
		b.SetBytes(int64(total))
		var q sha256x.Queue
		for b.Loop() {
			for i, m := range messages {
				q.Add(m, &sums[i])
			}
			q.Flush()
		}
	})
	b.Run("std", func(b *testing.B) {
		b.SetBytes(int64(total))
		for b.Loop() {
			for i, m := range messages {
				sums[i] = sha256.Sum256(m)
			}
		}
	})
}
