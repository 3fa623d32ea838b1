package kv

import (
	"errors"
	"strings"
	"syscall"
)

const errSharingViolation = syscall.Errno(32)

// lockHeld tells a lock that is taken from a directory that cannot be written.
func lockHeld(err error) bool {
	return errors.Is(err, errSharingViolation) || strings.Contains(err.Error(), "held by current process")
}
