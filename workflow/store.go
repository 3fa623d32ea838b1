package workflow

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"sync"
)

// Store keeps what a [Handler] has to remember of each flow, under the flow's token.
type Store interface {
	// Update gives f what is kept under a token, nil if nothing is, and keeps what f returns, unless that is nil. No other
	// Update of the token runs at the same time. What is kept is on disk when Update returns. An error of f is returned and
	// changes nothing.
	Update(ctx context.Context, token string, f func(old []byte) ([]byte, error)) error
}

// MemoryStore keeps flows as long as the process lives, the most recent Max ones; 0: 10,000. It is for tests, and for
// services that may forget.
type MemoryStore struct {
	Max int

	mu    sync.Mutex
	locks keyLocks
	flows map[string][]byte
	order []string
}

// Update implements [Store].
func (m *MemoryStore) Update(_ context.Context, token string, f func([]byte) ([]byte, error)) error {
	defer m.locks.lock(token)()
	m.mu.Lock()
	old := m.flows[token]
	m.mu.Unlock()
	b, err := f(old)
	if err != nil || b == nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.flows == nil {
		m.flows = map[string][]byte{}
	}
	if old == nil {
		m.order = append(m.order, token)
	}
	m.flows[token] = b
	limit := m.Max
	if limit <= 0 {
		limit = 10_000
	}
	for len(m.order) > limit {
		delete(m.flows, m.order[0])
		m.order = m.order[1:]
	}
	return nil
}

// FileStore keeps each flow in a file, in a folder that one process works on. A file is replaced as a whole: written, synced
// and renamed. Nothing is ever removed: a service removes files that are older than it promises to remember.
type FileStore struct {
	root  *os.Root
	locks keyLocks
}

// NewFileStore returns the store in a folder. The caller keeps the folder open, and closes it.
func NewFileStore(root *os.Root) *FileStore { return &FileStore{root: root} }

// Update implements [Store].
func (s *FileStore) Update(_ context.Context, token string, f func([]byte) ([]byte, error)) (err error) {
	defer s.locks.lock(token)()
	sum := sha256.Sum256([]byte(token)) // a token is the caller's text
	name := hex.EncodeToString(sum[:]) + ".json"
	old, err := s.root.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	b, err := f(old)
	if err != nil || b == nil {
		return err
	}
	next, err := s.root.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = next.Write(b)
	err = errors.Join(err, next.Sync())
	if err = errors.Join(err, next.Close()); err != nil {
		return err
	}
	if err := s.root.Rename(name+".new", name); err != nil {
		return err
	}
	d, err := s.root.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// keyLocks is a lock for each key that is in use.
type keyLocks struct {
	mu    sync.Mutex
	locks map[string]*keyLock
}

type keyLock struct {
	mu    sync.Mutex
	users int
}

func (k *keyLocks) lock(key string) (unlock func()) {
	k.mu.Lock()
	if k.locks == nil {
		k.locks = map[string]*keyLock{}
	}
	l := k.locks[key]
	if l == nil {
		l = new(keyLock)
		k.locks[key] = l
	}
	l.users++
	k.mu.Unlock()
	l.mu.Lock()
	return func() {
		l.mu.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.locks, key)
		}
	}
}
