//go:build faulttest && unix

package crashpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// Enabled says whether this build can kill itself.
const Enabled = true

var (
	wanted = sync.OnceValues(parse)
	left   atomic.Int64
)

func parse() (name string, err error) {
	v := os.Getenv("BARO_CRASHPOINT")
	if v == "" {
		return "", nil
	}
	name, count, ok := strings.Cut(v, ":")
	n := int64(1)
	if ok {
		n, err = strconv.ParseInt(count, 10, 64)
		if err != nil || n < 1 {
			return "", fmt.Errorf("BARO_CRASHPOINT=%q: want name:n with n ≥ 1", v)
		}
	}
	left.Store(n)
	return name, nil
}

// Hit kills the process when name is the one that BARO_CRASHPOINT asks for and this is the asked-for hit of it.
func Hit(name string) {
	want, err := wanted()
	if err != nil {
		panic(err)
	}
	if want == "" || want != name || left.Add(-1) != 0 {
		return
	}
	// A line on stderr is the proof that the planned fault fired: a run without it is no evidence.
	fmt.Fprintln(os.Stderr, "crashpoint fired:", name)
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
