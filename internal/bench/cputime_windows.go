package bench

import "syscall"

// cpuTime returns the CPU time that the process has used, in nanoseconds. The system counts it in steps of some milliseconds.
func cpuTime() float64 {
	self, err := syscall.GetCurrentProcess()
	Check(err)
	var created, exited, kernel, user syscall.Filetime
	Check(syscall.GetProcessTimes(self, &created, &exited, &kernel, &user))
	ticks := func(t syscall.Filetime) float64 {
		return float64(uint64(t.HighDateTime)<<32|uint64(t.LowDateTime)) * 100
	}
	return ticks(kernel) + ticks(user)
}
