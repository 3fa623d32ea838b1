package main

import (
	"os"
	"syscall"
)

// dataSync waits until a file's content is on the disk.
func dataSync(f *os.File) error { return syscall.Fdatasync(int(f.Fd())) }
