package kv

import (
	"errors"
	"strings"
	"syscall"
)

const (
	errSharingViolation = syscall.Errno(32)
	errDiskFull         = syscall.Errno(112)
	errHandleDiskFull   = syscall.Errno(39)
)

// lockHeld tells a lock that is taken from a directory that cannot be written.
func lockHeld(err error) bool {
	return errors.Is(err, errSharingViolation) || strings.Contains(err.Error(), "held by current process")
}

// diskFailed tells errors that do not go away by trying again.
func diskFailed(err error) bool {
	return errors.Is(err, errDiskFull) || errors.Is(err, errHandleDiskFull)
}
