package main

import (
	"runtime"
	"slices"
	"syscall"
	"time"
)

// work is something to measure: a function that does ops operations. A nil function is not measured.
type work struct {
	ops int
	f   func()
}

// cost is what an operation costs: CPU time of all threads, garbage collection included, and allocations.
type cost struct {
	ns, allocs float64
}

// cpuTime returns the CPU time that the process has used, in nanoseconds.
func cpuTime() float64 {
	var u syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return float64(u.Utime.Nano() + u.Stime.Nano())
}

// batch runs w n times.
func batch(w work, n int) cost {
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	t := cpuTime()
	for range n {
		w.f()
	}
	t = cpuTime() - t
	runtime.ReadMemStats(&after)
	ops := float64(n * w.ops)
	return cost{ns: t / ops, allocs: float64(after.Mallocs-before.Mallocs) / ops}
}

// calibrate finds out how often w has to run to fill the time.
func calibrate(w work, fill time.Duration) int {
	for n := 1; ; {
		t := batch(w, n).ns * float64(n*w.ops)
		if t >= float64(fill)/4 {
			return max(1, int(float64(n)*float64(fill)/max(t, 1)+0.5))
		}
		n = max(2*n, min(100*n, int(float64(n)*float64(fill)/2/max(t, 1000))))
	}
}

// measure runs the works in turn, round by round, so that what disturbs the machine disturbs all of them, and returns the
// costs of each round. It runs on one core.
func measure(rounds int, fill time.Duration, works ...work) [][]cost {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	n := make([]int, len(works))
	for i, w := range works {
		if w.f != nil {
			n[i] = calibrate(w, fill)
		}
	}
	out := make([][]cost, len(works))
	for range rounds {
		for i, w := range works {
			if w.f != nil {
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

func medianOf(c []cost) cost {
	var ns, allocs []float64
	for _, x := range c {
		ns, allocs = append(ns, x.ns), append(allocs, x.allocs)
	}
	return cost{ns: median(ns), allocs: median(allocs)}
}

// ratioOf returns the median of the rounds' ratios: of two measurements next to each other, not of two medians.
func ratioOf(over, under []cost) float64 {
	var r []float64
	for i := range min(len(over), len(under)) {
		r = append(r, over[i].ns/under[i].ns)
	}
	return median(r)
}
