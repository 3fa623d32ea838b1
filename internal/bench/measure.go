package bench

import (
	"runtime"
	"slices"
	"time"
)

// Work is something to measure: a function that does Ops operations. Without a function it is not measured.
type Work struct {
	Ops int
	Do  func()
}

// Each is the work of doing something with each item of a list.
func Each[T any](list []T, do func(T)) Work {
	return Work{Ops: len(list), Do: func() {
		for i := range list {
			do(list[i])
		}
	}}
}

// Cost is what an operation costs: CPU time of all threads in nanoseconds, garbage collection included, and allocations.
type Cost struct{ NS, Allocs float64 }

// batch does w n times.
func batch(w Work, n int) Cost {
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	t := cpuTime()
	for range n {
		w.Do()
	}
	t = cpuTime() - t
	runtime.ReadMemStats(&after)
	ops := float64(n * w.Ops)
	return Cost{NS: t / ops, Allocs: float64(after.Mallocs-before.Mallocs) / ops}
}

// calibrate finds out how often w has to be done to fill the time.
func calibrate(w Work, fill time.Duration) int {
	for n := 1; ; {
		t := batch(w, n).NS * float64(n*w.Ops)
		if t >= float64(fill)/4 {
			return max(1, int(float64(n)*float64(fill)/max(t, 1)+0.5))
		}
		n = max(2*n, min(100*n, int(float64(n)*float64(fill)/2/max(t, 1000))))
	}
}

// measure does the works in turn, round by round, so that what disturbs the machine disturbs all of them, and returns the
// costs of each round. It runs on one core.
func measure(rounds int, fill time.Duration, works ...Work) [][]Cost {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	n := make([]int, len(works))
	for i, w := range works {
		if w.Do != nil {
			n[i] = calibrate(w, fill)
		}
	}
	out := make([][]Cost, len(works))
	for range rounds {
		for i, w := range works {
			if w.Do != nil {
				out[i] = append(out[i], batch(w, n[i]))
			}
		}
	}
	return out
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

func medianOf(c []Cost) Cost {
	var ns, allocs []float64
	for _, x := range c {
		ns, allocs = append(ns, x.NS), append(allocs, x.Allocs)
	}
	return Cost{NS: median(ns), Allocs: median(allocs)}
}

// ratioOf returns the median of the rounds' ratios: of two measurements next to each other, not of two medians.
func ratioOf(over, under []Cost) float64 {
	var r []float64
	for i := range min(len(over), len(under)) {
		r = append(r, over[i].NS/under[i].NS)
	}
	return median(r)
}
