// Package blob keeps the blobs of accounts as files: streamed in under a size limit, named by their content, made
// durable before they are acked, and checked against their name whenever they are read.
//
// Specification: https://atproto.com/specs/blob. It does not know which blob a record refers to, nor of which type it is:
// the server's rows say that. It looks into no blob.
//
//	s, err := blob.Open(w.FS, filepath.Join(dir, "blobs"))
//	temp, err := s.Put(ctx, r.Body, 50<<20) // *http.MaxBytesError when it is larger
//	defer temp.Discard()
//	mime := http.DetectContentType(temp.Head)
//	err = s.Commit(temp, did)               // on disk, under its DID and CID
//	f, err := s.Open(did, temp.CID)         // its last bytes come only when all of it was right
//
// Files lie in <dir>/<xx>/<account>/<cid>, where the account's folder is named after the DID if that is a plain did:plc,
// and after its hash otherwise, so that no DID can choose a path, nor two DIDs differ by case alone. Files have mode 0600,
// folders 0700. What was not committed lies in <dir>/tmp and is removed by [Store.Sweep].
//
// Limits: one process per directory. The store itself sets no limit on size or number.
package blob

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/crashpoint"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/syntax"
)

// HeadSize is how many of the first bytes of a blob [Temp] keeps for sniffing its type.
const HeadSize = 512

// ErrNotFound says that there is no such blob.
var ErrNotFound = errors.New("blob not found")

// CorruptError says that the bytes of a blob are not those it is named after.
type CorruptError struct {
	Path string
	Want cid.CID
	Got  cid.CID // undefined when the file has another length than it had when it was opened
}

func (e *CorruptError) Error() string {
	if !e.Got.Defined() {
		return fmt.Sprintf("blob file %s is cut short", e.Path)
	}
	return fmt.Sprintf("blob file %s holds %s", e.Path, e.Got)
}

// Store keeps blobs under one directory. It is safe for concurrent use.
type Store struct {
	fs  vfs.FS
	dir string
	tmp string

	mu     sync.Mutex
	next   uint64              // name of the next temporary file
	active map[string]struct{} // temporary files of uploads that run

	folders sync.Mutex
	made    map[string]struct{} // folders that are known to be durable
}

const maxMade = 4096

var buffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// Open uses the store in dir, making it when needed. Memory stores pass a vfs.NewMem.
func Open(fs vfs.FS, dir string) (*Store, error) {
	s := &Store{fs: fs, dir: dir, tmp: fs.PathJoin(dir, "tmp"), active: map[string]struct{}{}, made: map[string]struct{}{}}
	if err := world.MkdirAll(fs, s.tmp); err != nil {
		return nil, fmt.Errorf("opening the blob store: %w", err)
	}
	names, err := fs.List(s.tmp)
	if err != nil {
		return nil, fmt.Errorf("opening the blob store: %w", err)
	}
	for _, name := range names {
		if n, err := strconv.ParseUint(name, 10, 64); err == nil && n >= s.next {
			s.next = n + 1
		}
	}
	return s, nil
}

// mkdir makes the folder of an account, once per process: a folder that is there may have been made just before a
// crash, and then it is not durable yet.
func (s *Store) mkdir(folder string) error {
	s.folders.Lock()
	defer s.folders.Unlock()
	if _, ok := s.made[folder]; ok {
		return nil
	}
	for _, path := range []string{s.fs.PathDir(folder), folder} {
		if err := world.MkdirAll(s.fs, path); err != nil {
			return err
		}
	}
	if len(s.made) >= maxMade {
		clear(s.made)
	}
	s.made[folder] = struct{}{}
	return nil
}

// Temp is a blob that was received and not committed. Its bytes are in a file, not yet synced.
type Temp struct {
	CID  cid.CID
	Size int64
	Head []byte // the first bytes, at most HeadSize

	store *Store
	path  string
	file  vfs.File
}

// Put receives a blob of at most limit bytes; a larger one gives a [*http.MaxBytesError]. The caller ends it with Commit
// or Discard, or both.
func (s *Store) Put(ctx context.Context, r io.Reader, limit int64) (*Temp, error) {
	s.mu.Lock()
	path := s.fs.PathJoin(s.tmp, strconv.FormatUint(s.next, 10))
	s.next++
	s.active[path] = struct{}{}
	s.mu.Unlock()

	t := &Temp{store: s, path: path}
	if err := t.receive(ctx, r, limit); err != nil {
		t.Discard()
		return nil, err
	}
	return t, nil
}

func (t *Temp) receive(ctx context.Context, r io.Reader, limit int64) (err error) {
	if t.file, err = t.store.create(t.path); err != nil {
		return err
	}
	h := sha256.New()
	bp := buffers.Get().(*[]byte)
	defer buffers.Put(bp)
	buf := *bp
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("receiving a blob: %w", err)
		}
		n, rerr := r.Read(buf)
		if n > 0 {
			if t.Size += int64(n); t.Size > limit {
				return &http.MaxBytesError{Limit: limit}
			}
			if want := HeadSize - len(t.Head); want > 0 {
				t.Head = append(t.Head, buf[:min(n, want)]...)
			}
			h.Write(buf[:n])
			if _, err := t.file.Write(buf[:n]); err != nil { // may change buf
				return fmt.Errorf("writing %s: %w", t.path, err)
			}
		}
		if rerr == io.EOF {
			break
		}
		if rerr != nil {
			return fmt.Errorf("receiving a blob: %w", rerr)
		}
	}
	t.CID, err = rawCID(h)
	return err
}

// rawCID is the CID of the bytes that h has seen.
func rawCID(h hash.Hash) (cid.CID, error) {
	return cid.FromBytes(h.Sum([]byte{0x01, byte(cid.Raw), 0x12, sha256.Size}))
}

// create makes a file that only the process's user can read. The seam has no modes, so a real file gets its mode after
// it was made; until then the folder keeps others out.
func (s *Store) create(path string) (vfs.File, error) {
	f, err := s.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, fmt.Errorf("creating %s: %w", path, err)
	}
	if f.Fd() != vfs.InvalidFd {
		if err := os.Chmod(path, 0o600); err != nil {
			f.Close()
			return nil, fmt.Errorf("creating %s: %w", path, err)
		}
	}
	return f, nil
}

// Discard removes the temporary file. After Commit, or a second time, it does nothing.
func (t *Temp) Discard() {
	if t.store == nil {
		return
	}
	if t.file != nil {
		_ = t.file.Close()
	}
	_ = t.store.fs.Remove(t.path) // what stays is swept
	t.end()
}

func (t *Temp) end() {
	t.store.mu.Lock()
	delete(t.store.active, t.path)
	t.store.mu.Unlock()
	t.store, t.file = nil, nil
}

// Commit makes the blob durable under its account. When it returns nil, the blob survives a crash. A blob that is there
// already is replaced by the same bytes, which also mends a damaged one. When it fails, the temporary file is gone.
func (s *Store) Commit(t *Temp, did string) error {
	if t.store != s {
		return errors.New("committing a blob: it was committed or discarded already")
	}
	defer t.Discard()
	folder, err := s.folder(did)
	if err != nil {
		return fmt.Errorf("committing a blob: %w", err)
	}
	crashpoint.Hit("blob/before-sync")
	err = t.file.Sync()
	if cerr := t.file.Close(); err == nil {
		err = cerr
	}
	t.file = nil
	if err != nil {
		return fmt.Errorf("syncing %s: %w", t.path, err)
	}
	if err := s.mkdir(folder); err != nil {
		return err
	}
	path := s.fs.PathJoin(folder, t.CID.String())
	crashpoint.Hit("blob/before-rename")
	if err := s.fs.Rename(t.path, path); err != nil {
		return fmt.Errorf("keeping %s: %w", path, err)
	}
	crashpoint.Hit("blob/after-rename")
	t.end()
	return world.SyncDir(s.fs, folder)
}

// folder is where the blobs of an account are.
func (s *Store) folder(did string) (string, error) {
	d, err := syntax.ParseDID(did)
	if err != nil {
		return "", err
	}
	name := folderName(string(d))
	return s.fs.PathJoin(s.dir, name[len(name)-2:], name), nil
}

var base32lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func folderName(did string) string {
	if id, ok := strings.CutPrefix(did, "did:plc:"); ok && len(id) == 24 &&
		strings.Trim(id, "abcdefghijklmnopqrstuvwxyz234567") == "" {
		return "plc-" + id
	}
	sum := sha256.Sum256([]byte(did))
	return "did-" + base32lower.EncodeToString(sum[:])
}

func (s *Store) path(did string, c cid.CID) (string, error) {
	if c.Codec() != cid.Raw || !c.Defined() {
		return "", fmt.Errorf("%s is not the CID of a blob", c)
	}
	folder, err := s.folder(did)
	if err != nil {
		return "", err
	}
	return s.fs.PathJoin(folder, c.String()), nil
}

// Has says whether the account has the blob, and of which size, without reading it.
func (s *Store) Has(did string, c cid.CID) (size int64, ok bool, err error) {
	path, err := s.path(did, c)
	if err != nil {
		return 0, false, fmt.Errorf("looking for a blob: %w", err)
	}
	fi, err := s.fs.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("looking for a blob: %w", err)
	}
	return fi.Size(), true, nil
}

// File is an open blob. Read gives its bytes in order; the last of them come together with the certainty that all were
// right, and a [*CorruptError] comes instead of them otherwise.
type File struct {
	Size int64

	f    vfs.File
	path string
	want cid.CID
	h    hash.Hash
	left int64
	err  error
}

// Open opens a blob for reading, or returns [ErrNotFound].
func (s *Store) Open(did string, c cid.CID) (*File, error) {
	path, err := s.path(did, c)
	if err != nil {
		return nil, fmt.Errorf("opening a blob: %w", err)
	}
	f, err := s.fs.Open(path, vfs.SequentialReadsOption)
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("opening a blob: %w", err)
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("opening a blob: %w", err)
	}
	return &File{Size: fi.Size(), f: f, path: path, want: c, h: sha256.New(), left: fi.Size()}, nil
}

// Read implements [io.Reader].
func (f *File) Read(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	if len(p) == 0 && f.left > 0 {
		return 0, nil
	}
	n := 0
	if f.left > 0 {
		var err error
		n, err = f.f.Read(p[:min(int64(len(p)), f.left)])
		f.left -= int64(n)
		f.h.Write(p[:n])
		if err == io.EOF && f.left > 0 {
			err = &CorruptError{Path: f.path, Want: f.want}
		}
		if err != nil && err != io.EOF {
			f.err = err
			return 0, f.err
		}
	}
	if f.left > 0 {
		return n, nil
	}
	got, err := rawCID(f.h)
	switch {
	case err != nil:
		f.err = err
	case got != f.want:
		f.err = &CorruptError{Path: f.path, Want: f.want, Got: got}
	default:
		f.err = io.EOF
		return n, io.EOF
	}
	return 0, f.err // the bytes at hand are withheld, so that a reader that counts them notices too
}

// Close implements [io.Closer].
func (f *File) Close() error { return f.f.Close() }

// ReadAll reads a blob that is known to be small enough for memory.
func (s *Store) ReadAll(did string, c cid.CID) ([]byte, error) {
	f, err := s.Open(did, c)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("reading a blob: %w", err)
	}
	return b, nil
}

// Delete removes a blob. One that is not there is fine. The removal is not synced: after a crash the blob may be there
// again, which the server that keeps the rows finds out.
func (s *Store) Delete(did string, c cid.CID) error {
	path, err := s.path(did, c)
	if err != nil {
		return fmt.Errorf("deleting a blob: %w", err)
	}
	if err := s.fs.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("deleting a blob: %w", err)
	}
	return nil
}

// DeleteAll removes all blobs of an account.
func (s *Store) DeleteAll(did string) error {
	folder, err := s.folder(did)
	if err != nil {
		return fmt.Errorf("deleting blobs: %w", err)
	}
	s.folders.Lock()
	defer s.folders.Unlock()
	delete(s.made, folder)
	if err := s.fs.RemoveAll(folder); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("deleting the blobs of %s: %w", did, err)
	}
	return nil
}

// List gives the CIDs of the blobs of an account that are on disk, in no order.
func (s *Store) List(did string) ([]cid.CID, error) {
	folder, err := s.folder(did)
	if err != nil {
		return nil, fmt.Errorf("listing blobs: %w", err)
	}
	names, err := s.fs.List(folder)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing blobs: %w", err)
	}
	var out []cid.CID
	for _, name := range names {
		if c, err := cid.Parse(name); err == nil {
			out = append(out, c)
		}
	}
	return out, nil
}

// Sweep removes the temporary files that were last written before the given time and belong to no upload that runs: what
// a crash left behind. It says how many.
func (s *Store) Sweep(before time.Time) (int, error) {
	names, err := s.fs.List(s.tmp)
	if err != nil {
		return 0, fmt.Errorf("sweeping temporary blobs: %w", err)
	}
	n := 0
	for _, name := range names {
		path := s.fs.PathJoin(s.tmp, name)
		s.mu.Lock()
		_, busy := s.active[path]
		s.mu.Unlock()
		if busy {
			continue
		}
		fi, err := s.fs.Stat(path)
		if errors.Is(err, os.ErrNotExist) || err == nil && !fi.ModTime().Before(before) {
			continue
		}
		if err == nil {
			err = s.fs.Remove(path)
		}
		if err != nil {
			return n, fmt.Errorf("sweeping temporary blobs: %w", err)
		}
		n++
	}
	return n, nil
}
