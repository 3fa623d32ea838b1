//go:build !windows

package kv

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"
)

// lockHeld tells a lock that is taken from a directory that cannot be written: the latter fails in opening the file,
// and so with a path.
func lockHeld(err error) bool {
	var path *fs.PathError
	if errors.As(err, &path) {
		return false
	}
	return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) ||
		strings.Contains(err.Error(), "held by current process")
}

// diskFailed tells errors that do not go away by trying again.
func diskFailed(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EROFS)
}
