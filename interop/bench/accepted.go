package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"github.com/barograph/baro/internal/bench"
)

// accepted is what -check reads: the shortfalls that are known, and the allocations of every row.
type accepted struct {
	known  map[string]shortfall
	allocs map[string]float64
}

// shortfall is a row below its target: the ratio that it had when it was accepted, and what bounds it.
type shortfall struct {
	Ratio float64 `json:"ratio"`
	Why   string  `json:"why"`
}

// slack is how much worse a ratio may become.
const slack = 0.75

func readAccepted(dir string) *accepted {
	a := &accepted{known: map[string]shortfall{}, allocs: map[string]float64{}}
	for name, v := range map[string]any{"known.json": &a.known, "allocs.json": &a.allocs} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		bench.Check(err)
		if err := json.Unmarshal(b, v); err != nil {
			bench.Check(fmt.Errorf("%s: %w", name, err))
		}
	}
	return a
}

// explain marks a row below its target that is known.
func (a *accepted) explain(r *bench.Row) {
	if k, ok := a.known[r.Name]; ok && !r.OK {
		r.Known, r.Why = true, k.Why
	}
}

// check returns what has become worse.
func (a *accepted) check(rows ...bench.Row) []string {
	var bad []string
	for _, r := range rows {
		want, what := 0.0, "target"
		if r.Target != nil {
			want = *r.Target
		}
		if k, ok := a.known[r.Name]; ok && r.Target != nil && worse(r.Of, k.Ratio, want) {
			want, what = k.Ratio, "accepted ratio"
		}
		switch {
		case want == 0:
		case r.Of.LessIsBetter() && r.Ratio*slack > want:
			bad = append(bad, fmt.Sprintf("%s: %s is %.2f, more than a quarter above the %s %.2f", r.Name, r.Of, r.Ratio, what, want))
		case !r.Of.LessIsBetter() && r.Ratio < want*slack:
			bad = append(bad, fmt.Sprintf("%s: %s is %.2f, more than a quarter below the %s %.2f", r.Name, r.Of, r.Ratio, what, want))
		}
		// A row that isn't in the file has its limit, if it has one. What is measured in few rounds may be off by a little.
		most, ok := a.allocs[r.Name]
		if !ok && r.MaxAllocs != nil {
			most, ok = *r.MaxAllocs, true
		}
		if ok && r.Allocs > most*1.02+0.25 {
			bad = append(bad, fmt.Sprintf("%s: %.2f allocations, were %.2f", r.Name, r.Allocs, most))
		}
	}
	return bad
}

func worse(of bench.Of, a, b float64) bool {
	if of.LessIsBetter() {
		return a > b
	}
	return a < b
}

// write accepts what the rows are now. Reasons stay; a new shortfall needs one, to be written by hand.
func (a *accepted) write(dir string, rows []bench.Row) {
	for _, r := range rows {
		a.allocs[r.Name] = r.Allocs
		k, had := a.known[r.Name]
		delete(a.known, r.Name)
		if r.OK {
			continue
		}
		if !had {
			fmt.Fprintf(os.Stderr, "%s falls short and is new in known.json: say there what bounds it\n", r.Name)
		}
		k.Ratio = math.Round(r.Ratio*100) / 100
		a.known[r.Name] = k
	}
	bench.Check(os.MkdirAll(dir, 0o755))
	bench.Check(os.WriteFile(filepath.Join(dir, "known.json"), append(bench.Must(json.MarshalIndent(a.known, "", "\t")), '\n'), 0o644))
	bench.Check(os.WriteFile(filepath.Join(dir, "allocs.json"), append(bench.Must(json.MarshalIndent(a.allocs, "", "\t")), '\n'), 0o644))
}
