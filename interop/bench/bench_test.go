package main

import (
	"testing"

	"github.com/barograph/baro/internal/bench"
)

func TestCheck(t *testing.T) {
	a := &accepted{known: map[string]shortfall{"slow": {Ratio: 3, Why: "because"}}, allocs: map[string]float64{"fast": 2}}
	limit := 5.0
	for _, c := range []struct {
		row  bench.Row
		want int
	}{
		{bench.Row{Name: "fast", Of: bench.PeerOverOurs, Ratio: 9, Target: new(10.0), Allocs: 2}, 0},
		{bench.Row{Name: "fast", Of: bench.PeerOverOurs, Ratio: 7, Target: new(10.0), Allocs: 2}, 1},
		{bench.Row{Name: "fast", Of: bench.PeerOverOurs, Ratio: 7, Target: new(10.0), Allocs: 3}, 2},
		{bench.Row{Name: "slow", Of: bench.PeerOverOurs, Ratio: 2.5, Target: new(10.0)}, 0},
		{bench.Row{Name: "slow", Of: bench.PeerOverOurs, Ratio: 2, Target: new(10.0)}, 1},
		{bench.Row{Name: "floor", Of: bench.OursOverFloor, Ratio: 1.5, Target: new(1.3)}, 0},
		{bench.Row{Name: "floor", Of: bench.OursOverFloor, Ratio: 1.8, Target: new(1.3)}, 1},
		{bench.Row{Name: "new", MaxAllocs: &limit, Allocs: 6}, 1},
		{bench.Row{Name: "info", Of: bench.PeerOverOurs, Ratio: 0.1, Allocs: 1e6}, 0},
	} {
		if bad := a.check(c.row); len(bad) != c.want {
			t.Errorf("%+v: %q", c.row, bad)
		}
	}
}
