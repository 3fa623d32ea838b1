// Package kv is the ordered key-value seam that all durable state of the servers stands on: byte keys in byte order,
// atomic batches, snapshots, and two stores behind it, Pebble on a filesystem and a twin in memory.
//
// There is no specification page for storage; the promise it carries is that what Apply(batch, true) returned nil for
// survives a crash, and that a batch is there as a whole or not at all. It knows nothing of what the keys mean, has no
// merge operators and no transactions that read: whoever reads and writes serialises by key itself.
//
//	store, err := kv.Open(w.FS, dir, false, kv.PebbleOptions{OnFatal: w.Fatal})
//	b := store.NewBatch()
//	b.Set(kv.AppendUint64([]byte("row/"), 7), row)
//	b.Set([]byte("cursor"), kv.AppendUint64(nil, seq)) // a projection keeps its cursor in the batch of its data
//	err = store.Apply(b, true)
//	for it := store.Iter(lo, kv.PrefixEnd(lo)); it.Next(); { … } // an iterator starts before its first row
//
// Limits: a key is not empty; keys and values are up to some MiB; a batch is held in memory. Iterators and snapshots must be closed before the
// store is.
package kv

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// ErrNotFound says that a key has no value.
var ErrNotFound = errors.New("key not found")

// ErrClosed says that the store was closed.
var ErrClosed = errors.New("the store is closed")

// ErrBatchApplied says that a batch was applied already and not Reset since.
var ErrBatchApplied = errors.New("the batch was applied already")

// LockedError says that another process, or this one, has the store of a directory open.
type LockedError struct {
	Dir  string
	Lock string // the lock file
	Err  error
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("the data directory %s is in use by another process (lock file %s): stop that process or choose another directory", e.Dir, e.Lock)
}

func (e *LockedError) Unwrap() error { return e.Err }

// FatalError says that the store failed in a way after which nothing it says about durability can be trusted, such as
// an error of fsync. The store answers every later Apply with it.
type FatalError struct{ Err error }

func (e *FatalError) Error() string { return "storage failed: " + e.Err.Error() }
func (e *FatalError) Unwrap() error { return e.Err }

// Reader reads a state of the store.
type Reader interface {
	// Get returns the value of key in memory that belongs to the caller, or ErrNotFound.
	Get(key []byte) ([]byte, error)
	// Iter goes over the keys k with lo ≤ k < hi; nil bounds are open. It sees one unchanging state. The bounds must not be
	// changed while it is open. Errors, also those of opening it, are told by Err and Close.
	Iter(lo, hi []byte) Iterator
}

// Iterator moves over keys in byte order. A fresh one stands before the first key for Next and after the last for Prev.
// The moves say whether it stands on a key then; Key and Value are valid until the next move. Moving past an end and
// turning back is allowed.
type Iterator interface {
	First() bool
	Last() bool
	SeekGE(key []byte) bool // first key ≥ key
	SeekLT(key []byte) bool // last key < key
	Next() bool
	Prev() bool
	Key() []byte
	Value() []byte
	Err() error
	Close() error // returns Err, once
}

// Batch collects changes that are applied at once, in the order they were added. Keys and values are copied when added.
// A batch is used by one goroutine at a time. After Apply, only Reset or Close may follow.
type Batch interface {
	Set(key, value []byte)
	Delete(key []byte)
	DeleteRange(lo, hi []byte) // lo ≤ k < hi; both bounds are needed
	// Append adds the changes of another batch of the same store, which stays as it is.
	Append(other Batch)
	Len() int  // changes added
	Size() int // bytes, roughly
	Reset()
	Close()
}

// Snapshot is the state of the store at one moment. It holds resources until it is closed.
type Snapshot interface {
	Reader
	Close() error
}

// Store is an ordered key-value store. It is safe for concurrent use.
type Store interface {
	Reader
	Snapshot() Snapshot
	NewBatch() Batch
	// Apply makes the changes of b visible as one. With sync it returns after they are on disk; concurrent calls share one
	// fsync. They are visible to readers a little before that. Without sync, a crash may lose them, but never a part of b, and
	// never b when a later synced batch survives.
	Apply(b Batch, sync bool) error
	Close() error
}

// Open opens the store that lives in dir, making the directory when needed; with memory it is a fresh [NewMem] and
// touches no disk.
func Open(fs vfs.FS, dir string, memory bool, o PebbleOptions) (Store, error) {
	if memory {
		return NewMem(), nil
	}
	o.FS = fs
	return OpenPebble(dir, o)
}
