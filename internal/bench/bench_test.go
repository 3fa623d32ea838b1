package bench

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/repo"
)

// TestScan holds the floor against the real thing: a floor that checks less would be none.
func TestScan(t *testing.T) {
	g := NewGenerator(11)
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		_, b := g.Record()
		if rnd.IntN(4) > 0 {
			b[rnd.IntN(len(b))] = byte(rnd.Uint32())
		}
		if rnd.IntN(8) == 0 {
			b = b[:rnd.IntN(len(b))]
		}
		ours, floor := cbor.Valid(b), Scan(b)
		if ours != nil && floor == nil && !strings.Contains(ours.Error(), "CID") && !strings.Contains(ours.Error(), "cid") {
			t.Fatalf("the floor takes %x, of which we say %v", b, ours)
		}
		if ours == nil && floor != nil {
			t.Fatalf("the floor doesn't take %x", b)
		}
	}
}

func TestGenerated(t *testing.T) {
	r := GenerateRepository(5, 500)
	key := SigningKey(keys.K256).Public()
	if n := Walk(r.File, key, repo.RecordsStrict); n != 500 || WalkBytes(r.File, key, repo.RecordsStrict) != n {
		t.Fatalf("%d records", n)
	}
	s := r.Shuffled()
	if bytes.Equal(s, r.File) || len(s) != len(r.File) || Walk(s, key, repo.RecordsStrict) != 500 {
		t.Fatal("the shuffled file is not the same repository in another order")
	}
	if !bytes.Equal(GenerateRepository(5, 500).File, r.File) {
		t.Fatal("the same seed gives another repository")
	}
}
