//go:build unix && !linux

package crashtest

import "os"

// dataSync waits until a file's content is on the disk.
func dataSync(f *os.File) error { return f.Sync() }
