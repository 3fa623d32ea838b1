// Package secretfile keeps small secrets in files that only their owner may read, each replaced as a whole.
//
// It serves the stores of https://atproto.com/specs/oauth and of sessions with a password: it writes a file beside the old
// one, syncs it, and renames it. It does not encrypt, and it does not lock.
//
//	err := secretfile.Write(root, "session.json", b)
//	b, err := secretfile.Read(root, "session.json", 64<<10)
//
// Names that begin with "tmp-" are its own.
package secretfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"sync/atomic"
)

const tmpPrefix = "tmp-"

var tmp atomic.Int64

// Write replaces a file, whole or not at all.
func Write(root *os.Root, name string, b []byte) (err error) {
	var fresh string
	var h *os.File
	for range 100 { // a name may be taken by what a process with the same number left behind
		fresh = tmpPrefix + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(tmp.Add(1), 10)
		if h, err = root.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = root.Remove(fresh) // what went wrong before says more
		}
	}()
	if _, err = h.Write(b); err == nil {
		err = h.Sync()
	}
	if cerr := h.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err = root.Rename(fresh, name); err != nil {
		return err
	}
	Sync(root)
	return nil
}

// Read reads a file of at most max bytes.
func Read(root *os.Root, name string, max int) ([]byte, error) {
	h, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	b, err := io.ReadAll(io.LimitReader(h, int64(max)+1))
	if err == nil && len(b) > max {
		err = fmt.Errorf("more than %d bytes", max)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Sync makes renames and removals in the folder last through a loss of power, where the system can; where it can't, files
// are still whole.
func Sync(root *os.Root) {
	if d, err := root.Open("."); err == nil {
		_ = d.Sync()
		_ = d.Close()
	}
}
