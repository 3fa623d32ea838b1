package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/client/partial"
	"github.com/barograph/baro/internal/filelock"
)

// notCAR says that a file is broken, if it is that.
func notCAR(name string, err error) error {
	bad, ok := errors.AsType[*car.Error](err)
	if !ok {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	err = notVerified(fmt.Errorf("reading %s: %w", name, err))
	if bad.Block < 0 {
		return withHint(err, "is it a CAR file?")
	}
	return err
}

// newFile is a file that gets its name only when it is whole.
type newFile struct {
	*os.File
	name string
	from *newFile // goes away when this file is kept
}

// createFile begins a file that is called NAME.partial until it is kept.
func createFile(name string, overwrite bool) (*newFile, error) {
	return openNew(name, ".partial", os.O_TRUNC, overwrite)
}

// continueFile is createFile, but what an earlier run has left in the file is still there. No two processes have it at once.
func continueFile(name string, overwrite bool) (*newFile, error) {
	f, err := openNew(name, ".partial", 0, overwrite)
	if err != nil {
		return nil, err
	}
	ok, err := filelock.Try(f.File)
	mine := ok || err != nil // there are file systems without locks
	if mine {
		// Whoever had the lock until now may have given the file its name, or taken it away.
		at, err1 := os.Lstat(f.File.Name())
		it, err2 := f.Stat()
		mine = err1 == nil && err2 == nil && os.SameFile(at, it)
	}
	if !mine {
		f.Close()
		return nil, fmt.Errorf("another process is writing %s", f.File.Name())
	}
	return f, nil
}

func openNew(name, suffix string, flag int, overwrite bool) (*newFile, error) {
	if _, err := os.Lstat(name); err == nil && !overwrite {
		return nil, withHint(fmt.Errorf("%s is there already", name), "--overwrite replaces it, or name another one")
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	h, err := os.OpenFile(name+suffix, os.O_RDWR|os.O_CREATE|flag, 0o644)
	if err != nil {
		return nil, fmt.Errorf("writing the file: %w", err)
	}
	return &newFile{File: h, name: name}, nil
}

// empty takes back all that was written.
func (f *newFile) empty() error {
	_, err := f.Seek(0, io.SeekStart)
	return errors.Join(err, f.Truncate(0))
}

// size is how many bytes the file has, 0 if that can't be found out.
func (f *newFile) size() int64 {
	info, err := f.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}

// keep gives the file its name, once it is on the disk.
func (f *newFile) keep() error {
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.File.Name(), f.name); err != nil {
		return err
	}
	syncFolder(filepath.Dir(f.name))
	if f.from != nil {
		f.from.drop()
	}
	return nil
}

// drop takes the file away, but not the one it was made of. After keep it does nothing.
func (f *newFile) drop() {
	if f.Close() == nil { // else it was closed before, and has its name
		os.Remove(f.File.Name())
	}
}

var _ partial.Source = (*blockStream)(nil)

// blockStream gives the blocks of a file in whatever order they are asked for. As long as that is the order of the file nothing is kept.
type blockStream struct {
	ctx  context.Context
	file *os.File
	name string

	r     *car.Reader
	ahead cid.CID // the block that comes next, undefined at the end
	data  []byte
	used  bool          // what is ahead was given away
	index *partial.File // when the order was left
	count int           // blocks that were seen
}

func (s *blockStream) open() (root cid.CID, err error) {
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return root, err
	}
	if s.r, err = car.NewReader(contextReader{s.ctx, s.file}, car.Options{}); err != nil {
		return root, notCAR(s.name, err)
	}
	return s.r.Root(), s.next()
}

func (s *blockStream) next() (err error) {
	s.used = false
	s.ahead, s.data, err = s.r.Next()
	if err == io.EOF {
		s.ahead, s.data = cid.CID{}, nil
		return nil
	}
	if err != nil {
		return notCAR(s.name, err)
	}
	s.count++
	return nil
}

func (s *blockStream) Block(c cid.CID) ([]byte, error) {
	if s.used {
		if err := s.next(); err != nil {
			return nil, err
		}
	}
	if s.index == nil && c == s.ahead {
		s.used = true
		return s.data, nil
	}
	if s.index == nil {
		var err error
		if s.index, err = partial.Index(s.ctx, s.file, s.name, nil); err != nil {
			return nil, err
		}
	}
	return s.index.Block(c)
}

// pass goes over a block that nobody looks at.
func (s *blockStream) pass(c cid.CID) error {
	if s.used {
		if err := s.next(); err != nil {
			return err
		}
	}
	if s.index == nil && c == s.ahead {
		return s.next()
	}
	return nil
}

// total reads what is left, and counts the blocks of the file.
func (s *blockStream) total() (int, error) {
	if s.index != nil {
		return s.index.Len(), nil
	}
	for s.ahead.Defined() {
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	return s.count, nil
}
