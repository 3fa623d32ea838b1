package sha256x_test

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/barograph/baro/internal/sha256x"
)

// checkTrails hashes messages, and then others that differ from each of them from some byte on.
func checkTrails(tr *sha256x.Trails, messages [][]byte, r *rand.Rand) error {
	sums := make([][sha256x.Size]byte, len(messages))
	tr.Sum(sums, messages)
	for i, m := range messages {
		if sums[i] != sha256.Sum256(m) {
			return fmt.Errorf("message %d of %d, %d bytes", i, len(messages), len(m))
		}
	}
	for i, m := range messages {
		same := r.IntN(len(m) + 1)
		changed := append(m[:same:same], message(r.IntN(200))...)
		if tr.Resume(i, changed, same) != sha256.Sum256(changed) {
			return fmt.Errorf("message %d of %d bytes, %d of which begin one of %d", i, len(m), same, len(changed))
		}
		if tr.Resume(i, m[:same], len(m)) != sha256.Sum256(m[:same]) {
			return fmt.Errorf("the first %d of %d bytes of message %d", same, len(m), i)
		}
	}
	return nil
}

func TestTrails(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 2))
	buf := message(1 << 14)
	var tr sha256x.Trails
	for round := range 1000 {
		messages := make([][]byte, r.IntN(14))
		for i := range messages {
			size := r.IntN(1 << (1 + r.IntN(11)))
			at := r.IntN(len(buf) - size)
			messages[i] = buf[at : at+size]
		}
		if err := checkTrails(&tr, messages, r); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
}

func FuzzTrails(f *testing.F) {
	f.Add(message(1000), uint16(300), uint16(7))
	f.Add(message(256), uint16(64), uint16(128))
	f.Add([]byte(nil), uint16(0), uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, n, m uint16) {
		i, j := min(int(n), len(b)), min(int(m), len(b))
		messages := [][]byte{b[:i], b[i:], b[:j], b[min(i, j):max(i, j)]}
		if err := checkTrails(new(sha256x.Trails), messages, rand.New(rand.NewPCG(uint64(n), uint64(m)))); err != nil {
			t.Fatal(err)
		}
	})
}

// TestHeads holds every number of short messages, of all lengths, against crypto/sha256.
func TestHeads(t *testing.T) {
	for n := range 50 {
		messages := make([]sha256x.Short, n)
		heads := make([]uint32, n)
		for i := range messages {
			m := message((i*7 + n) % (sha256x.MaxShort + 1))
			copy(messages[i][:], message(64)) // what was there before
			copy(messages[i][:], m)
			messages[i].Pad(len(m))
			if got := messages[i].Message(); string(got) != string(m) {
				t.Fatalf("%x came back as %x", m, got)
			}
		}
		sha256x.Heads(heads, messages)
		for i := range messages {
			sum := sha256.Sum256(messages[i].Message())
			if want := binary.BigEndian.Uint32(sum[:]); heads[i] != want {
				t.Fatalf("%d of %d messages: %08x, want %08x", i, n, heads[i], want)
			}
		}
	}
}

func BenchmarkHeads(b *testing.B) {
	for _, n := range []int{1, 2, 9, 16, 45} {
		messages, heads := make([]sha256x.Short, n), make([]uint32, n)
		for i := range messages {
			messages[i].Pad(i)
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				sha256x.Heads(heads, messages)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/message")
		})
	}
}

func BenchmarkTrails(b *testing.B) {
	var messages [][]byte
	blocks := 0
	for _, n := range []int{250, 300, 450, 700, 200, 500, 333, 600, 150, 520, 800, 340, 480} {
		messages = append(messages, message(n))
		blocks += n/64 + 1
	}
	sums := make([][sha256x.Size]byte, len(messages))
	var tr sha256x.Trails
	for b.Loop() {
		tr.Sum(sums, messages)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*blocks), "ns/block")
}
