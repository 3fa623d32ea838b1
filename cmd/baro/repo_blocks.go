package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
)

// blockFile finds the blocks of a CAR file by their CIDs. It keeps 24 bytes for each.
type blockFile struct {
	file  io.ReaderAt
	name  string
	root  cid.CID
	index []blockAt // in the order of their keys
	buf   []byte
}

type blockAt struct {
	key uint64 // the first bytes of the digest
	off int64
	n   int32
}

func digestKey(c cid.CID) uint64 { d := c.Digest(); return binary.BigEndian.Uint64(d[:8]) }

// indexBlocks reads through a CAR file to see where its blocks are. What they hold is checked when they are loaded.
func indexBlocks(ctx context.Context, file *os.File, name string) (*blockFile, error) {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	r, err := car.NewReader(contextReader{ctx, file}, car.Options{Unverified: true})
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
	slices.SortFunc(f.index, func(a, b blockAt) int { return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.off, b.off)) })
	return f, nil
}

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
	key := digestKey(c)
	i, _ := slices.BinarySearchFunc(f.index, key, func(b blockAt, k uint64) int { return cmp.Compare(b.key, k) })
	for ; i < len(f.index) && f.index[i].key == key; i++ {
		at := f.index[i]
		f.buf = slices.Grow(f.buf[:0], int(at.n))[:at.n]
		if _, err := f.file.ReadAt(f.buf, at.off); err != nil {
			return nil, fmt.Errorf("reading %s: %w", f.name, err)
		}
		if cid.Sum(c.Codec(), f.buf) == c {
			return f.buf, nil
		}
	}
	return nil, mst.ErrNotFound
}

// Load has a blockFile serve as the source of a tree.
func (f *blockFile) Load(c cid.CID, _ mst.Pos) ([]byte, error) { return f.load(c) }

// commit reads the commit that the file begins with.
func (f *blockFile) commit() (*repo.Commit, []byte, error) {
	if !f.root.Defined() {
		return nil, nil, notVerified(fmt.Errorf("%s names no root", f.name))
	}
	b, err := f.load(f.root)
	if err != nil {
		return nil, nil, notVerified(fmt.Errorf("the commit of %s: %w", f.name, err))
	}
	b = slices.Clone(b)
	c, err := repo.DecodeLegacyCommit(b)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", f.name, err)
	}
	return c, b, nil
}

// writeInOrder writes a repository in the order of its tree: the commit, then each node before what is below it. Its blocks are looked for in
// several files, in their order, and are checked. Memory does not grow with the repository.
func writeInOrder(ctx context.Context, w io.Writer, c *repo.Commit, block []byte, from ...*blockFile) (mst.WalkStats, error) {
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
}

// createFile begins a file that is called NAME.partial until it is kept.
func createFile(name string, overwrite bool) (*newFile, error) {
	if _, err := os.Lstat(name); err == nil && !overwrite {
		return nil, withHint(fmt.Errorf("%s is there already", name), "--overwrite replaces it, or name another one")
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	h, err := os.OpenFile(name+".partial", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("writing the file: %w", err)
	}
	return &newFile{h, name}, nil
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
	return nil
}

// drop takes the file away. After keep it does nothing.
func (f *newFile) drop() {
	if f.Close() == nil { // else it was closed before, and has its name
		os.Remove(f.File.Name())
	}
}
