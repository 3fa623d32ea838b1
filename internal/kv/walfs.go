package kv

import (
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// walFS writes zeros ahead of what Pebble appends to its write-ahead log. A file that grows with each write makes each fsync write the
// file's size as well, which on ext4 is a commit of the filesystem's own journal: a third of the time of a durable write. Pebble avoids it
// only from the third log on, by using old files again. Zeros after the last record are what it expects to find after a crash.
type walFS struct{ vfs.FS }

// walAhead is how much is written at once; the fsync that follows takes it to disk.
const walAhead = 256 << 10

var walZeros [walAhead]byte

func isWAL(name string) bool { return strings.HasSuffix(name, ".log") }

// Create implements [vfs.FS].
func (fs walFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, c)
	if err != nil || !isWAL(name) {
		return f, err
	}
	return &walFile{File: f}, nil
}

// ReuseForWrite implements [vfs.FS].
func (fs walFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.ReuseForWrite(from, to, c)
	if err != nil || !isWAL(to) {
		return f, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &walFile{File: f, ready: info.Size()}, nil
}

// Unwrap implements [vfs.FS].
func (fs walFS) Unwrap() vfs.FS { return fs.FS }

// walFile is a log that is written from its beginning.
type walFile struct {
	vfs.File
	at    int64 // where the next write goes
	ready int64 // the file's size
}

// Write implements [vfs.File].
func (f *walFile) Write(p []byte) (int, error) {
	if end := f.at + int64(len(p)); end > f.ready {
		// What p covers is written twice, in memory; that keeps the ends of the zeros on whole pages.
		for f.ready < end {
			if _, err := f.File.WriteAt(walZeros[:], f.ready); err != nil {
				break // then the file grows as it used to; a disk that is full tells so below
			}
			f.ready += walAhead
		}
	}
	n, err := f.File.Write(p)
	f.at += int64(n)
	return n, err
}
