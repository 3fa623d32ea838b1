package mst_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/fixtures"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo/repotest"
)

// FuzzWalk takes each block of a file for the top of a tree and walks over it in two ways, which have to find the same
// entries, and the same fault if there is one.
func FuzzWalk(f *testing.F) {
	for _, c := range repotest.Hostile() {
		if len(c.CAR) < 3000 {
			f.Add(c.CAR)
		}
	}
	f.Add(fixtures.Read(f, "cars/tiny.car"))
	f.Fuzz(func(t *testing.T, b []byte) {
		source := mst.MapSource{}
		honest := true
		_, blocks, err := car.Parse(b, car.Options{Unverified: true})
		if err != nil {
			return
		}
		for k, err := range blocks {
			if err != nil || len(source) == 50 {
				break
			}
			source[k.CID] = k.Data // changed blocks can be reached, too
			source[cid.Sum(cid.DagCBOR, k.Data)] = k.Data
			honest = honest && k.CID.Verify(k.Data)
		}
		for root := range source {
			streamed, nodes, serr := stream(root, source, nil)
			if again, _, err := stream(root, source, nodes); !slices.Equal(again, streamed) || fmt.Sprint(err) != fmt.Sprint(serr) {
				t.Fatalf("%s: %d entries, %v; looked at ahead %d, %v", root, len(streamed), serr, len(again), err)
			}
			var loaded []mst.Entry
			var lerr error
			for e, err := range mst.OpenOptions(root, source, mst.Options{HashChecked: true}).Walk() {
				if lerr = err; err == nil {
					loaded = append(loaded, e)
				}
			}
			if (serr == nil) != (lerr == nil) || lerr == nil && !slices.Equal(streamed, loaded) {
				t.Fatalf("%s: streamed %d entries, %v; loaded %d, %v", root, len(streamed), serr, len(loaded), lerr)
			}
			if lerr != nil {
				if reason(serr) == "" || reason(lerr) == "" {
					t.Fatalf("%s: errors without a reason: %v, %v", root, serr, lerr)
				}
				continue
			}
			if !slices.IsSortedFunc(loaded, func(a, b mst.Entry) int {
				if a.Key < b.Key {
					return -1
				}
				return 1
			}) {
				t.Fatalf("%s: entries out of order: %v", root, loaded)
			}
			if !honest {
				continue
			}
			// A tree is determined by its entries: whatever passes the checks is what the builder makes.
			var again mst.Builder
			for _, e := range loaded {
				if err := again.Add(e.Key, e.Value); err != nil {
					t.Fatal(err)
				}
			}
			got, err := again.Finish()
			if sum := cid.Sum(cid.DagCBOR, source[root]); err != nil || got != sum {
				t.Fatalf("the entries of %s build %s, %v", sum, got, err)
			}
		}
	})
}

// stream walks over a tree with a Walker. It returns the nodes too, which a second walk may be shown ahead.
func stream(root cid.CID, source mst.MapSource, ahead [][]byte) (entries []mst.Entry, nodes [][]byte, err error) {
	w := mst.NewWalker(root, nil)
	w.Prepare(func(i int) []byte {
		if i < len(ahead) {
			return ahead[i]
		}
		return nil
	})
	for {
		switch step := w.Next(); step.Kind {
		case mst.StepDone:
			return entries, nodes, nil
		case mst.StepRecord:
			entries = append(entries, mst.Entry{Key: string(step.Key), Value: step.CID})
		case mst.StepNode:
			b, err := source.Load(step.CID, mst.Pos{})
			if err != nil {
				return entries, nodes, &mst.MissingError{CID: step.CID}
			}
			nodes = append(nodes, b)
			give := w.Node
			if ahead != nil {
				give = w.NodeAhead
			}
			if err := give(b); err != nil {
				return entries, nodes, err
			}
		}
	}
}

func reason(err error) string {
	var e *mst.Error
	var missing *mst.MissingError
	switch {
	case errors.As(err, &e):
		return string(e.Rule)
	case errors.As(err, &missing):
		return "missing"
	}
	return ""
}
