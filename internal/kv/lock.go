package kv

import (
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Lock takes a lock of its own on a directory that holds several stores, kept in the file name below it, until the result is closed.
// A lock that is held already gives a [*LockedError].
func Lock(fsys vfs.FS, dir, name string) (io.Closer, error) {
	path := fsys.PathJoin(dir, name)
	lock, err := fsys.Lock(path)
	if err != nil {
		if lockHeld(err) {
			return nil, &LockedError{Dir: dir, Lock: path, Err: err}
		}
		return nil, fmt.Errorf("locking the data directory %s: %w", dir, err)
	}
	return lock, nil
}
