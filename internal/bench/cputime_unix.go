//go:build unix

package bench

import "syscall"

// cpuTime returns the CPU time that the process has used, in nanoseconds.
func cpuTime() float64 {
	var u syscall.Rusage
	Check(syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return float64(u.Utime.Nano() + u.Stime.Nano())
}
