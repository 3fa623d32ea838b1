// Package filelock keeps processes from using the same thing at once, by locking an open file. The lock is the operating
// system's, https://man7.org/linux/man-pages/man2/flock.2.html on Unix: it ends with the process that holds it, however that
// ends. It is advisory, and says nothing of who holds it.
//
//	f, err := root.OpenFile("lock", os.O_RDWR|os.O_CREATE, 0o600)
//	if err := filelock.Lock(ctx, f); err != nil { … }
//	defer f.Close() // unlocks
package filelock

import (
	"context"
	"os"
	"time"
)

// How long Lock waits between two tries.
const (
	firstWait = 5 * time.Millisecond
	lastWait  = 100 * time.Millisecond
)

// Lock locks a file, and waits as long as another open file has the lock. The error is the context's or the system's.
func Lock(ctx context.Context, f *os.File) error {
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		if ok, err := Try(f); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// Try locks a file unless it is locked. Closing the file unlocks it.
func Try(f *os.File) (bool, error) {
	ok, err := try(f)
	if err != nil {
		return false, &os.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
	return ok, nil
}
