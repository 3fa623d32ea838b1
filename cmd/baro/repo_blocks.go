package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"os"
	"path/filepath"
	"slices"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/filelock"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
)

// blockFile finds the blocks of a CAR file by their CIDs. It keeps some 40 bytes for each.
type blockFile struct {
	file  io.ReaderAt
	name  string
	root  cid.CID
	index []blockAt // in the order of the file
	table []uint32  // 1 + a place in the index, at the key of the block or behind it; 0 is free
	buf   []byte
}

type blockAt struct {
	key uint64 // the first bytes of the digest
	off int64
	n   int32
}

func digestKey(c cid.CID) uint64 { d := c.Digest(); return binary.LittleEndian.Uint64(d[:8]) }

// indexBlocks reads through a CAR file to see where its blocks are, and tells t of it. What they hold is checked when they are loaded.
func indexBlocks(ctx context.Context, file *os.File, name string, t *transfer) (*blockFile, error) {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	r, err := car.NewReader(io.TeeReader(contextReader{ctx, file}, t), car.Options{Unverified: true})
	if err != nil {
		return nil, notCAR(name, err)
	}
	f := &blockFile{file: file, name: name, root: r.Root()}
	for {
		c, data, err := r.NextView()
		if err == io.EOF {
			break
		} else if err != nil {
			return nil, notCAR(name, err)
		}
		f.index = append(f.index, blockAt{digestKey(*c), r.Offset() - int64(len(data)), int32(len(data))})
	}
	return f, f.rehash()
}

// rehash makes the table anew, at most half full.
func (f *blockFile) rehash() error {
	if len(f.index) >= math.MaxInt32 {
		return fmt.Errorf("%s has too many blocks: %d", f.name, len(f.index))
	}
	f.table = make([]uint32, 1<<bits.Len(uint(2*len(f.index)+1)))
	for i := range f.index {
		f.enter(i)
	}
	return nil
}

// enter puts a place of the index into the table.
func (f *blockFile) enter(i int) {
	at := f.slot(f.index[i].key)
	for f.table[at] != 0 {
		at = (at + 1) % len(f.table)
	}
	f.table[at] = uint32(i + 1)
}

// add tells of a block that the file has got more.
func (f *blockFile) add(c cid.CID, off int64, n int) error {
	f.index = append(f.index, blockAt{digestKey(c), off, int32(n)})
	if 2*len(f.index) >= len(f.table) {
		return f.rehash()
	}
	f.enter(len(f.index) - 1)
	return nil
}

func (f *blockFile) slot(key uint64) int { return int(key & uint64(len(f.table)-1)) }

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

// load returns a block, whose hash it has checked. It is valid until the next call. If the file doesn't have it the error is
// [mst.ErrNotFound].
func (f *blockFile) load(c cid.CID) ([]byte, error) {
	_, b, err := f.find(c)
	return b, err
}

// find is load, and says where in the index the block is.
func (f *blockFile) find(c cid.CID) (int, []byte, error) {
	key := digestKey(c)
	for i := f.slot(key); f.table[i] != 0; i = (i + 1) % len(f.table) {
		at := f.index[f.table[i]-1]
		if at.key != key {
			continue
		}
		f.buf = slices.Grow(f.buf[:0], int(at.n))[:at.n]
		if _, err := f.file.ReadAt(f.buf, at.off); err != nil {
			return 0, nil, fmt.Errorf("reading %s: %w", f.name, err)
		}
		if cid.Sum(c.Codec(), f.buf) == c {
			return int(f.table[i] - 1), f.buf, nil
		}
	}
	return 0, nil, mst.ErrNotFound
}

// likely says whether the file has a block, going by eight bytes of its hash and without reading it.
func (f *blockFile) likely(c cid.CID) bool {
	key := digestKey(c)
	for i := f.slot(key); f.table[i] != 0; i = (i + 1) % len(f.table) {
		if f.index[f.table[i]-1].key == key {
			return true
		}
	}
	return false
}

// Load has a blockFile serve as the source of a tree.
func (f *blockFile) Load(c cid.CID, _ mst.Pos) ([]byte, error) { return f.load(c) }

// commitOf reads the commit that the root of a file leads to.
func commitOf(name string, root cid.CID, from blocks) (*repo.Commit, []byte, error) {
	if !root.Defined() {
		return nil, nil, notVerified(fmt.Errorf("%s names no root", name))
	}
	b, err := from.load(root)
	if errors.Is(err, mst.ErrNotFound) {
		err = notVerified(fmt.Errorf("the commit of %s: %w", name, err))
	}
	if err != nil {
		return nil, nil, err
	}
	b = slices.Clone(b)
	c, err := repo.DecodeLegacyCommit(b)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, b, nil
}

// blocks are where blocks are looked for. What load returns is checked, and valid until the next call; the error is [mst.ErrNotFound] if the
// block isn't there.
type blocks interface {
	load(cid.CID) ([]byte, error)
}

var (
	_ blocks = (*blockFile)(nil)
	_ blocks = (*blockStream)(nil)
)

// writeInOrder writes a repository in the order of its tree: the commit, then each node before what is below it. Its blocks are looked for in
// several files, in their order, and are checked. Memory does not grow with the repository.
func writeInOrder(ctx context.Context, w io.Writer, c *repo.Commit, block []byte, from ...blocks) (mst.WalkStats, error) {
	load := func(id cid.CID) ([]byte, error) {
		for _, f := range from {
			if b, err := f.load(id); err == nil || !errors.Is(err, mst.ErrNotFound) {
				return b, err
			}
		}
		return nil, fmt.Errorf("the block %s: %w", id, mst.ErrNotFound)
	}
	root := cid.Sum(cid.DagCBOR, block)
	out, err := car.NewWriter(w, root)
	if err == nil {
		err = out.Write(root, block)
	}
	walk := mst.NewWalker(c.Data, repo.CheckPath)
	for err == nil {
		step := walk.Next()
		if step.Kind == mst.StepDone {
			break
		}
		var b []byte
		if b, err = load(step.CID); err != nil {
			return walk.Stats(), err
		}
		if step.Kind == mst.StepNode {
			if err = walk.Node(b); err != nil {
				return walk.Stats(), notVerified(err)
			}
		}
		if err = ctx.Err(); err == nil {
			err = out.Write(step.CID, b)
		}
	}
	return walk.Stats(), err
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

// blockStream gives the blocks of a file in whatever order they are asked for. As long as that is the order of the file nothing is kept.
type blockStream struct {
	ctx  context.Context
	file *os.File
	name string

	r     *car.Reader
	ahead cid.CID // the block that comes next, undefined at the end
	data  []byte
	used  bool       // what is ahead was given away
	index *blockFile // when the order was left
	count int        // blocks that were seen
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

func (s *blockStream) load(c cid.CID) ([]byte, error) {
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
		if s.index, err = indexBlocks(s.ctx, s.file, s.name, &transfer{}); err != nil {
			return nil, err
		}
	}
	return s.index.load(c)
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
		return len(s.index.index), nil
	}
	for s.ahead.Defined() {
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	return s.count, nil
}
