package kv

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/barograph/baro/internal/world"
)

// Defaults of [PebbleOptions]: small, because several stores share one process.
const (
	DefaultCacheBytes    = 8 << 20
	DefaultMemTableBytes = 4 << 20
)

// PebbleOptions tune a store on disk. The zero value is a small store on the real filesystem.
type PebbleOptions struct {
	FS            vfs.FS // nil: the real one
	CacheBytes    int64  // own block cache; 0: [DefaultCacheBytes]; ignored when Cache is set
	Cache         *Cache // a block cache that several stores share
	MemTableBytes int    // 0: [DefaultMemTableBytes]
	MaxOpenFiles  int    // 0: 500
	Log           *slog.Logger

	// OnFatal is called once, when a write to disk failed for good: a failed fsync must never be tried again, since the
	// kernel may have dropped the pages. It is expected to end the process. When it returns, the store refuses all writes with
	// a [*FatalError]. nil: panic.
	OnFatal func(error)
}

// Cache is a block cache that stores of one process share.
type Cache struct{ c *pebble.Cache }

// NewCache makes a cache of the given size. Close it after the stores that use it.
func NewCache(bytes int64) *Cache { return &Cache{pebble.NewCache(bytes)} }

// Close gives up the caller's hold on the cache.
func (c *Cache) Close() { c.c.Unref() }

// OpenPebble opens the store in dir, making dir (mode 0700) when needed. It takes the directory's lock: a second open,
// of this process or another, gives a [*LockedError].
func OpenPebble(dir string, o PebbleOptions) (Store, error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MemTableBytes <= 0 {
		o.MemTableBytes = DefaultMemTableBytes
	}
	if o.MaxOpenFiles <= 0 {
		o.MaxOpenFiles = 500
	}
	if o.OnFatal == nil {
		o.OnFatal = func(err error) { panic(err) }
	}
	if err := world.MkdirAll(o.FS, dir); err != nil {
		return nil, err
	}
	lock, err := pebble.LockDirectory(dir, o.FS)
	if err != nil {
		if lockHeld(err) {
			return nil, &LockedError{Dir: dir, Lock: o.FS.PathJoin(dir, "LOCK"), Err: err}
		}
		return nil, fmt.Errorf("locking the data directory %s: %w", dir, err)
	}
	s := &pebbleStore{lock: lock, onFatal: o.OnFatal}
	po := &pebble.Options{
		FS:                          walFS{o.FS},
		Lock:                        lock,
		MemTableSize:                uint64(o.MemTableBytes),
		MemTableStopWritesThreshold: 4,
		MaxOpenFiles:                o.MaxOpenFiles,
		FormatMajorVersion:          pebble.FormatNewest,
		Logger:                      pebbleLog{s, o.Log},
	}
	if o.Cache != nil {
		po.Cache = o.Cache.c
	} else {
		po.CacheSize = o.CacheBytes
		if po.CacheSize <= 0 {
			po.CacheSize = DefaultCacheBytes
		}
	}
	po.EventListener = &pebble.EventListener{
		// Pebble tries a failed flush again at once and for ever. A disk that is full or broken stays so: better stop with one
		// line than fill what is left with log lines.
		BackgroundError: func(err error) {
			if diskFailed(err) {
				s.fail(fmt.Errorf("writing in %s: %w", dir, err))
				return
			}
			o.Log.Error("storage background error", "dir", dir, "err", err)
		},
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			s.fail(fmt.Errorf("corrupt data in %s: %w", info.Path, info.Details))
		},
	}
	for i := range po.Levels {
		po.Levels[i].FilterPolicy = bloom.FilterPolicy(10) // ~1 % of Gets for a missing key read a block
	}
	po.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionFastest })
	if err := s.open(dir, po); err != nil {
		return nil, fmt.Errorf("opening the store in %s: %w", dir, err)
	}
	return s, nil
}

// open opens the database. Pebble writes while it does, and tries what fails again for ever: when the disk does not take it, its goroutine
// is left behind with the lock, for the process has nothing else to do but end.
func (s *pebbleStore) open(dir string, po *pebble.Options) error {
	failed := make(chan error, 1)
	onFatal := s.onFatal
	s.onFatal = func(err error) { failed <- err }
	type opened struct {
		db  *pebble.DB
		err error
	}
	done := make(chan opened, 1)
	go func() {
		db, err := pebble.Open(dir, po)
		done <- opened{db, err}
	}()
	select {
	case o := <-done:
		if o.err != nil {
			s.lock.Close()
			return o.err
		}
		s.db = o.db
	case err := <-failed:
		return err
	}
	s.failing.Lock()
	s.onFatal = onFatal
	s.failing.Unlock()
	select {
	case err := <-failed: // in the last moment
		return errors.Join(err, s.Close())
	default:
		return nil
	}
}

type pebbleStore struct {
	db      *pebble.DB
	lock    *pebble.Lock
	closed  atomic.Bool
	onFatal func(error)
	fatal   atomic.Pointer[FatalError]
	once    sync.Once
	failing sync.Mutex // guards onFatal
}

// fail remembers the first fatal error before it tells of it: Pebble's Apply returns nil after its logger's Fatalf did, and
// the check of s.fatal that follows is what keeps such a batch from being acked.
func (s *pebbleStore) fail(err error) {
	s.once.Do(func() {
		fe := &FatalError{err}
		s.fatal.Store(fe)
		s.failing.Lock()
		onFatal := s.onFatal
		s.failing.Unlock()
		onFatal(fe)
	})
}

type pebbleLog struct {
	s   *pebbleStore
	log *slog.Logger
}

func (pebbleLog) Infof(string, ...any) {} // compaction chatter
func (l pebbleLog) Errorf(format string, args ...any) {
	l.log.Error("storage", "err", fmt.Sprintf(format, args...))
}
func (l pebbleLog) Fatalf(format string, args ...any) {
	e := &pebbleError{msg: strings.TrimPrefix(strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " "), "pebble: ")}
	for _, a := range args {
		if err, ok := a.(error); ok {
			e.cause = err
		}
	}
	l.s.fail(e)
}

// pebbleError is what Pebble says when it gives up, on one line, with the cause that its words already name.
type pebbleError struct {
	msg   string
	cause error
}

func (e *pebbleError) Error() string { return e.msg }
func (e *pebbleError) Unwrap() error { return e.cause }

func (s *pebbleStore) Get(key []byte) ([]byte, error) {
	if s.closed.Load() {
		return nil, ErrClosed
	}
	return pebbleGet(s.db, key)
}

func pebbleGet(r pebble.Reader, key []byte) ([]byte, error) {
	v, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("reading a key: %w", err)
	}
	own := make([]byte, len(v))
	copy(own, v)
	return own, closer.Close()
}

func (s *pebbleStore) Iter(lo, hi []byte) Iterator {
	if s.closed.Load() {
		return &pebbleIter{err: ErrClosed}
	}
	return newPebbleIter(s.db, lo, hi)
}

func newPebbleIter(r pebble.Reader, lo, hi []byte) Iterator {
	if emptyRange(lo, hi) {
		return &pebbleIter{}
	}
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lo, UpperBound: hi})
	if err != nil {
		return &pebbleIter{err: fmt.Errorf("opening an iterator: %w", err)}
	}
	return &pebbleIter{it: it, fresh: true}
}

func (s *pebbleStore) Snapshot() Snapshot {
	if s.closed.Load() {
		return &pebbleSnapshot{}
	}
	return &pebbleSnapshot{s: s.db.NewSnapshot()}
}

func (s *pebbleStore) NewBatch() Batch { return &pebbleBatch{b: s.db.NewBatch()} }

func (s *pebbleStore) Apply(batch Batch, sync bool) error {
	if s.closed.Load() {
		return ErrClosed
	}
	if fe := s.fatal.Load(); fe != nil {
		return fe
	}
	b := batch.(*pebbleBatch)
	if b.applied {
		return ErrBatchApplied
	}
	if b.err != nil {
		return b.err
	}
	wo := pebble.NoSync
	if sync {
		wo = pebble.Sync // an empty synced batch still waits for what came before it
	}
	b.applied = true
	err := s.db.Apply(b.b, wo)
	if fe := s.fatal.Load(); fe != nil {
		return fe
	}
	if err != nil {
		return fmt.Errorf("applying a batch: %w", err)
	}
	return nil
}

func (s *pebbleStore) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	if fe := s.fatal.Load(); fe != nil {
		// A clean shutdown would flush and could wait for a commit pipeline that will never move again.
		return errors.Join(fe, s.lock.Close())
	}
	err := s.db.Close()
	if lerr := s.lock.Close(); err == nil {
		err = lerr
	}
	if err != nil {
		return fmt.Errorf("closing the store: %w", err)
	}
	return nil
}

type pebbleSnapshot struct{ s *pebble.Snapshot }

func (s *pebbleSnapshot) Get(key []byte) ([]byte, error) {
	if s.s == nil {
		return nil, ErrClosed
	}
	return pebbleGet(s.s, key)
}

func (s *pebbleSnapshot) Iter(lo, hi []byte) Iterator {
	if s.s == nil {
		return &pebbleIter{err: ErrClosed}
	}
	return newPebbleIter(s.s, lo, hi)
}

func (s *pebbleSnapshot) Close() error {
	if s.s == nil {
		return nil
	}
	snap := s.s
	s.s = nil
	return snap.Close()
}

// pebbleBatch keeps the first error of its changes for Apply to return.
type pebbleBatch struct {
	b       *pebble.Batch
	applied bool
	err     error
}

func (b *pebbleBatch) keep(err error) {
	if err != nil && b.err == nil {
		b.err = fmt.Errorf("filling a batch: %w", err)
	}
}

func (b *pebbleBatch) Set(key, value []byte) { b.keep(b.b.Set(key, value, nil)) }
func (b *pebbleBatch) Delete(key []byte)     { b.keep(b.b.Delete(key, nil)) }
func (b *pebbleBatch) DeleteRange(lo, hi []byte) {
	if !emptyRange(lo, hi) {
		b.keep(b.b.DeleteRange(lo, hi, nil))
	}
}

func (b *pebbleBatch) Append(other Batch) {
	o := other.(*pebbleBatch)
	b.keep(o.err)
	if !o.b.Empty() {
		b.keep(b.b.Apply(o.b, nil))
	}
}

func (b *pebbleBatch) Len() int  { return int(b.b.Count()) }
func (b *pebbleBatch) Size() int { return b.b.Len() }
func (b *pebbleBatch) Reset()    { b.b.Reset(); b.applied, b.err = false, nil }
func (b *pebbleBatch) Close()    { _ = b.b.Close() }

// pebbleIter is a Pebble iterator, or, without one, the empty iteration with its error.
type pebbleIter struct {
	it    *pebble.Iterator
	fresh bool // not moved yet
	err   error
}

func (i *pebbleIter) moved() bool {
	i.fresh = false
	return i.it != nil
}

func (i *pebbleIter) First() bool { return i.moved() && i.it.First() }
func (i *pebbleIter) Last() bool  { return i.moved() && i.it.Last() }

func (i *pebbleIter) SeekGE(key []byte) bool {
	if len(key) == 0 { // Pebble seeks to no empty key
		return i.First()
	}
	return i.moved() && i.it.SeekGE(key)
}

func (i *pebbleIter) SeekLT(key []byte) bool {
	if len(key) == 0 {
		return i.First() && i.Prev()
	}
	return i.moved() && i.it.SeekLT(key)
}

func (i *pebbleIter) Next() bool {
	if i.fresh {
		return i.First()
	}
	return i.it != nil && i.it.Next()
}

func (i *pebbleIter) Prev() bool {
	if i.fresh {
		return i.Last()
	}
	return i.it != nil && i.it.Prev()
}

func (i *pebbleIter) Key() []byte {
	if i.it == nil || !i.it.Valid() {
		return nil
	}
	return i.it.Key()
}

func (i *pebbleIter) Value() []byte {
	if i.it == nil || !i.it.Valid() {
		return nil
	}
	v, err := i.it.ValueAndErr()
	if err != nil && i.err == nil {
		i.err = fmt.Errorf("reading a value: %w", err)
	}
	return v
}

func (i *pebbleIter) Err() error {
	if i.err != nil || i.it == nil {
		return i.err
	}
	return i.it.Error()
}

func (i *pebbleIter) Close() error {
	err := i.Err()
	if i.it != nil {
		if cerr := i.it.Close(); err == nil {
			err = cerr
		}
		i.it = nil
	}
	i.err = nil
	return err
}

var (
	_ Store    = (*pebbleStore)(nil)
	_ Snapshot = (*pebbleSnapshot)(nil)
	_ Batch    = (*pebbleBatch)(nil)
	_ Iterator = (*pebbleIter)(nil)
)
