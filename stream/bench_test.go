package stream_test

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/barograph/baro/internal/bench"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/repo/repotest"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// busy is a stream as real ones are: many accounts with repositories of some size that write one record at a time.
func busy(b *testing.B) *world {
	w := newWorld(b)
	rnd := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, 300)
	for i := range text {
		text[i] = 'a' + byte(i%26)
	}
	var accounts []*writer
	for i := range 40 {
		a := w.account(fmt.Sprint("a", i))
		for range 10 {
			var writes []repo.Write
			for range 100 {
				writes = append(writes, repo.Write{Path: fmt.Sprintf("%s/%016x", posts, rnd.Uint64()), Record: repotest.Record("x")})
			}
			a.commit(writes...) // not sent
		}
		accounts = append(accounts, a)
	}
	for i := range 1000 {
		a := accounts[rnd.IntN(len(accounts))]
		a.write(repo.Write{Path: fmt.Sprintf("%s/%08x", posts, i), Record: repotest.Record(string(text))})
	}
	return w
}

// again parses the frames anew, as a connection would.
func (w *world) again() iter.Seq2[stream.Frame, error] {
	return func(yield func(stream.Frame, error) bool) {
		for _, f := range w.frames {
			f, err := stream.ParseFrame(f.Raw)
			if !yield(f, err) {
				return
			}
		}
	}
}

// BenchmarkRecords compares reading records with what can't be avoided: verifying each commit, one after the other, or parsing
// each frame. Both are measured in turns, in the same run: by the clock, which shows what workers gain, and in CPU time on one
// core, which other work on the machine doesn't change. An operation is 1,000 commits.
func BenchmarkRecords(b *testing.B) {
	w := busy(b)
	size := 0
	for _, f := range w.frames {
		size += len(f.Raw)
	}
	b.Logf("mean frame %d bytes", size/len(w.frames))
	verify := func() {
		chain := map[string]repo.State{}
		for f := range w.again() {
			m, err := f.Message()
			if err != nil {
				b.Fatal(err)
			}
			c := m.(*stream.Commit)
			var prev *repo.State
			if s, ok := chain[c.Repo]; ok {
				prev = &s
			}
			st, err := repo.VerifyCommit(c.Verifiable(len(f.Raw)), w.keys.keys[syntax.DID(c.Repo)], prev, repo.VerifyOptions{Now: w.now})
			if err != nil {
				b.Fatal(err)
			}
			chain[c.Repo] = st
		}
	}
	scan := func() {
		for f, err := range w.again() {
			if err != nil || f.Seq == 0 {
				b.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		name  string
		o     stream.Options
		floor func()
		of    string
	}{
		{"verified/workers=1", stream.Options{Workers: 1}, verify, "ours/verifying"},
		{"verified/workers=2", stream.Options{Workers: 2}, verify, "ours/verifying"},
		{"filtered", stream.Options{Workers: 2, Collections: []string{other}}, scan, "ours/parsing"},
		{"unverified", stream.Options{Unverified: true}, scan, "ours/parsing"},
	} {
		b.Run(tt.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(size))
			read := func() {
				o := tt.o
				o.Keys, o.Now = w.keys, func() time.Time { return w.now }
				n := 0
				for _, err := range stream.RecordsFrom(b.Context(), w.again(), &o) {
					if err != nil {
						b.Fatal(err)
					}
					n++
				}
				if want := len(w.frames); n != want && o.Collections == nil {
					b.Fatalf("%d of %d", n, want)
				}
			}
			var ours, floor time.Duration
			for b.Loop() {
				start := time.Now()
				read()
				ours += time.Since(start)
				b.StopTimer()
				start = time.Now()
				tt.floor()
				floor += time.Since(start)
				b.StartTimer()
			}
			b.ReportMetric(ours.Seconds()/floor.Seconds(), tt.of)
			b.ReportMetric(float64(b.N*len(w.frames))/ours.Seconds(), "events/s")
			row, err := bench.Run(bench.Bench{Name: tt.name, Of: bench.OursOverFloor, Allocs: -1, Setup: func() (ours, floor bench.Work) {
				return bench.Work{Ops: len(w.frames), Do: read}, bench.Work{Ops: len(w.frames), Do: tt.floor}
			}}, bench.Brief)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(row.Ratio, "cpu-"+tt.of)
		})
	}
}
