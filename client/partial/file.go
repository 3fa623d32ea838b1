package partial

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"slices"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
)

// File finds the blocks of a CAR file by their CIDs. It keeps some 40 bytes for each. One goroutine uses it at a time.
type File struct {
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

// Readable is a file to read from, such as an [*os.File].
type Readable interface {
	io.ReadSeeker
	io.ReaderAt
}

// Index reads through a CAR file to see where its blocks are, and copies its bytes to progress, which may be nil. What the blocks hold
// is checked when they are loaded. A file that isn't a CAR file, or a broken one, is a [*CheckError]; name is for errors.
func Index(ctx context.Context, file Readable, name string, progress io.Writer) (*File, error) {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	var in io.Reader = file
	if progress != nil {
		in = io.TeeReader(file, progress)
	}
	bad := func(err error) error {
		err = fmt.Errorf("reading %s: %w", name, err)
		if _, ok := errors.AsType[*car.Error](err); ok {
			return &CheckError{err}
		}
		return err
	}
	r, err := car.NewReader(in, car.Options{Unverified: true})
	if err != nil {
		return nil, bad(err)
	}
	f := &File{file: file, name: name, root: r.Root()}
	for ctx.Err() == nil {
		c, data, err := r.NextView()
		if err == io.EOF {
			return f, f.rehash()
		} else if err != nil {
			return nil, bad(err)
		}
		f.index = append(f.index, blockAt{digestKey(*c), r.Offset() - int64(len(data)), int32(len(data))})
	}
	return nil, ctx.Err()
}

// Root is the first root of the file, not defined if it has none.
func (f *File) Root() cid.CID { return f.root }

// Name is what errors call the file.
func (f *File) Name() string { return f.name }

// Len is how many blocks the file has.
func (f *File) Len() int { return len(f.index) }

// rehash makes the table anew, at most half full.
func (f *File) rehash() error {
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
func (f *File) enter(i int) {
	at := f.slot(f.index[i].key)
	for f.table[at] != 0 {
		at = (at + 1) % len(f.table)
	}
	f.table[at] = uint32(i + 1)
}

// add tells of a block that the file has got more.
func (f *File) add(c cid.CID, off int64, n int) error {
	f.index = append(f.index, blockAt{digestKey(c), off, int32(n)})
	if 2*len(f.index) >= len(f.table) {
		return f.rehash()
	}
	f.enter(len(f.index) - 1)
	return nil
}

func (f *File) slot(key uint64) int { return int(key & uint64(len(f.table)-1)) }

// Block returns a block, whose hash it has checked. It is valid until the next call. If the file doesn't have it the error is
// [mst.ErrNotFound].
func (f *File) Block(c cid.CID) ([]byte, error) {
	_, b, err := f.find(c)
	return b, err
}

// find is Block, and says where in the index the block is.
func (f *File) find(c cid.CID) (int, []byte, error) {
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
func (f *File) likely(c cid.CID) bool {
	key := digestKey(c)
	for i := f.slot(key); f.table[i] != 0; i = (i + 1) % len(f.table) {
		if f.index[f.table[i]-1].key == key {
			return true
		}
	}
	return false
}

// Load has a File serve as the source of a tree.
func (f *File) Load(c cid.CID, _ mst.Pos) ([]byte, error) { return f.Block(c) }

// Commit reads the commit that the root of a file leads to, and returns its block as well. Its signature is not checked.
func Commit(name string, root cid.CID, from Source) (*repo.Commit, []byte, error) {
	if !root.Defined() {
		return nil, nil, &CheckError{fmt.Errorf("%s names no root", name)}
	}
	b, err := from.Block(root)
	if errors.Is(err, mst.ErrNotFound) {
		err = &CheckError{fmt.Errorf("the commit of %s: %w", name, err)}
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

// Source is where blocks are looked for. What Block returns is checked, and valid until the next call; the error is [mst.ErrNotFound] if
// the block isn't there.
type Source interface {
	Block(cid.CID) ([]byte, error)
}

var (
	_ Source     = (*File)(nil)
	_ mst.Source = (*File)(nil)
)

// WriteInOrder writes a repository in the order of its tree: the commit, then each node before what is below it. Its blocks are looked for in
// several files, in their order, and are checked: a tree that isn't right is a [*CheckError], a block that is missing [mst.ErrNotFound].
// Memory does not grow with the repository.
func WriteInOrder(ctx context.Context, w io.Writer, c *repo.Commit, block []byte, from ...Source) (mst.WalkStats, error) {
	load := func(id cid.CID) ([]byte, error) {
		for _, f := range from {
			if b, err := f.Block(id); err == nil || !errors.Is(err, mst.ErrNotFound) {
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
				return walk.Stats(), &CheckError{err}
			}
		}
		if err = ctx.Err(); err == nil {
			err = out.Write(step.CID, b)
		}
	}
	return walk.Stats(), err
}
