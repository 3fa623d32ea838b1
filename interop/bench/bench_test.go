package main

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
	g := newGenerator(11)
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		_, b := g.record()
		if rnd.IntN(4) > 0 {
			b[rnd.IntN(len(b))] = byte(rnd.Uint32())
		}
		if rnd.IntN(8) == 0 {
			b = b[:rnd.IntN(len(b))]
		}
		ours, floor := cbor.Valid(b), validate(b)
		if ours != nil && floor == nil && !strings.Contains(ours.Error(), "CID") && !strings.Contains(ours.Error(), "cid") {
			t.Fatalf("the floor takes %x, of which we say %v", b, ours)
		}
		if ours == nil && floor != nil {
			t.Fatalf("the floor doesn't take %x", b)
		}
	}
}

func TestGenerated(t *testing.T) {
	r := generateRepository(5, 500)
	key := signingKey(keys.K256).Public()
	if n := walk(r.file, key, repo.RecordsStrict); n != 500 {
		t.Fatalf("%d records", n)
	}
	s := r.shuffled()
	if bytes.Equal(s, r.file) || len(s) != len(r.file) || walk(s, key, repo.RecordsStrict) != 500 {
		t.Fatal("the shuffled file is not the same repository in another order")
	}
	if !bytes.Equal(generateRepository(5, 500).file, r.file) {
		t.Fatal("the same seed gives another repository")
	}
}

func TestCheck(t *testing.T) {
	a := &accepted{known: map[string]shortfall{"slow": {Ratio: 3, Why: "because"}}, allocs: map[string]float64{"fast": 2}}
	limit := 5.0
	for _, c := range []struct {
		row  row
		want int
	}{
		{row{Name: "fast", Of: peerOverOurs, Ratio: 9, Target: new(10.0), Allocs: 2}, 0},
		{row{Name: "fast", Of: peerOverOurs, Ratio: 7, Target: new(10.0), Allocs: 2}, 1},
		{row{Name: "fast", Of: peerOverOurs, Ratio: 7, Target: new(10.0), Allocs: 3}, 2},
		{row{Name: "slow", Of: peerOverOurs, Ratio: 2.5, Target: new(10.0)}, 0},
		{row{Name: "slow", Of: peerOverOurs, Ratio: 2, Target: new(10.0)}, 1},
		{row{Name: "floor", Of: oursOverFloor, Ratio: 1.5, Target: new(1.3)}, 0},
		{row{Name: "floor", Of: oursOverFloor, Ratio: 1.8, Target: new(1.3)}, 1},
		{row{Name: "new", MaxAllocs: &limit, Allocs: 6}, 1},
		{row{Name: "info", Of: peerOverOurs, Ratio: 0.1, Allocs: 1e6}, 0},
	} {
		if bad := a.check([]row{c.row}); len(bad) != c.want {
			t.Errorf("%+v: %q", c.row, bad)
		}
	}
}
