package auth

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/barograph/baro/auth/internal/secretfile"
	"github.com/barograph/baro/internal/filelock"
	"github.com/barograph/baro/syntax"
)

// Store keeps sessions, one for each account. Its methods are called concurrently.
type Store interface {
	Load(ctx context.Context, did syntax.DID) (Session, error) // [ErrLoginRequired] if there is none
	Save(ctx context.Context, s Session) error                 // replaces the one before, whole or not at all
	Delete(ctx context.Context, did syntax.DID) error          // no error if there is none
	List(ctx context.Context) ([]Session, error)               // by DID
}

// Locker is a [Store] that several processes share: only the one that holds the lock renews the session of an account.
type Locker interface {
	Lock(ctx context.Context, did syntax.DID) (unlock func(), err error)
}

// MemoryStore keeps sessions as long as the process lives.
type MemoryStore struct {
	mu       sync.Mutex
	sessions map[syntax.DID]Session
}

// NewMemoryStore returns an empty store.
func NewMemoryStore() *MemoryStore { return &MemoryStore{sessions: map[syntax.DID]Session{}} }

// Load implements [Store].
func (m *MemoryStore) Load(_ context.Context, did syntax.DID) (Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.sessions[did]
	if !ok {
		return Session{}, ErrLoginRequired
	}
	return s, nil
}

// Save implements [Store].
func (m *MemoryStore) Save(_ context.Context, s Session) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sessions[s.DID] = s
	return nil
}

// Delete implements [Store].
func (m *MemoryStore) Delete(_ context.Context, did syntax.DID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.sessions, did)
	return nil
}

// List implements [Store].
func (m *MemoryStore) List(context.Context) ([]Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Session
	for _, s := range m.sessions {
		out = append(out, s)
	}
	sortSessions(out)
	return out, nil
}

func sortSessions(s []Session) {
	slices.SortFunc(s, func(a, b Session) int { return cmp.Compare(a.DID, b.DID) })
}

const (
	filePrefix = "session-"
	fileSuffix = ".json"
	maxFile    = 64 << 10 // bytes of a session file
	lockSuffix = ".lock"
)

// FileStore keeps each session in a file that only its owner may read, in a folder that the caller opened. A file is
// replaced as a whole: written, synced and renamed. Processes that share a folder renew one at a time.
//
// There is no store in the keyrings of operating systems. The libraries for Go that are kept up run other programs or speak
// to a desktop's bus, hold a few kilobytes an entry at some systems, less than the tokens of some servers, and have no lock
// that a renewal across processes needs; and a bot on a server has nobody who unlocks a keyring. Who has one implements
// [Store] over it, in four methods.
type FileStore struct {
	root *os.Root
	own  bool // to be closed here
}

// NewFileStore returns the store in a folder, which should have mode 0700. The caller keeps the folder open, and closes it.
func NewFileStore(root *os.Root) *FileStore { return &FileStore{root: root} }

var (
	_ Store = (*MemoryStore)(nil)
	_ Store = (*FileStore)(nil)

	_ Locker = (*FileStore)(nil)
)

// StateFolder returns the folder for the sessions of an application, by the XDG rules for what programs keep between runs:
// below $XDG_STATE_HOME if that is an absolute path, and else below ~/.local/state. Getenv is os.Getenv.
func StateFolder(getenv func(string) string, application string) (string, error) {
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, application, "sessions"), nil
	}
	home := getenv("HOME")
	if home == "" {
		home = getenv("USERPROFILE")
	}
	if !filepath.IsAbs(home) {
		return "", errors.New("there is no home folder to keep sessions in: set XDG_STATE_HOME")
	}
	return filepath.Join(home, ".local", "state", application, "sessions"), nil
}

// OpenFileStore returns the store in a folder, which it makes if need be, with mode 0700. Close it when done.
func OpenFileStore(folder string) (*FileStore, error) {
	fail := func(err error) (*FileStore, error) {
		return nil, fmt.Errorf("opening the folder of sessions: %w", err)
	}
	folder, err := filepath.Abs(folder)
	if err != nil {
		return fail(err)
	}
	// From the nearest folder above that is there.
	above := folder
	root, err := os.OpenRoot(above)
	for errors.Is(err, fs.ErrNotExist) && filepath.Dir(above) != above {
		above = filepath.Dir(above)
		root, err = os.OpenRoot(above)
	}
	if err != nil {
		return fail(err)
	}
	rest, err := filepath.Rel(above, folder)
	if err == nil && rest != "." {
		defer root.Close()
		if err = root.MkdirAll(rest, 0o700); err == nil {
			var inner *os.Root
			if inner, err = root.OpenRoot(rest); err == nil {
				return &FileStore{root: inner, own: true}, nil
			}
		}
	}
	if err != nil {
		return fail(err)
	}
	return &FileStore{root: root, own: true}, nil
}

// Close closes a folder that [OpenFileStore] opened.
func (f *FileStore) Close() error {
	if !f.own {
		return nil
	}
	return f.root.Close()
}

// Lock implements [Locker]: by a lock of the operating system on a file in the folder, which ends with the process. Each account
// has its own, so that a server that doesn't answer holds up its own accounts only; the file stays, and is empty.
func (f *FileStore) Lock(ctx context.Context, did syntax.DID) (unlock func(), err error) {
	h, err := f.root.OpenFile(strings.TrimSuffix(fileName(did), fileSuffix)+lockSuffix, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock of a session: %w", err)
	}
	if err := filelock.Lock(ctx, h); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return func() { _ = h.Close() }, nil // closing unlocks, whatever it returns
}

// fileName is made of the DID's hash, since a DID may hold anything that a file system trips over.
func fileName(did syntax.DID) string {
	h := sha256.Sum256([]byte(did))
	return filePrefix + hex.EncodeToString(h[:8]) + fileSuffix
}

// Load implements [Store].
func (f *FileStore) Load(_ context.Context, did syntax.DID) (Session, error) {
	s, err := f.read(fileName(did))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Session{}, ErrLoginRequired
	case err != nil:
		return Session{}, err
	case s.DID != did:
		return Session{}, fmt.Errorf("the session file %s is of %s, not of %s", fileName(did), s.DID, did)
	}
	return s, nil
}

func (f *FileStore) read(name string) (Session, error) {
	b, err := secretfile.Read(f.root, name, maxFile)
	if err != nil {
		return Session{}, fmt.Errorf("reading the session file %s: %w", name, err)
	}
	var s sessionText
	if err := json.Unmarshal(b, &s); err != nil {
		// Not the error itself: it may quote a token.
		return Session{}, fmt.Errorf("the session file %s is damaged: log in again", name)
	}
	if s.Version != textVersion {
		return Session{}, fmt.Errorf("the session file %s has version %d, this program knows %d", name, s.Version, textVersion)
	}
	return s.Session, nil
}

// Save implements [Store].
func (f *FileStore) Save(_ context.Context, s Session) error {
	b, err := json.Marshal(sessionText{textVersion, s})
	if err != nil {
		return fmt.Errorf("encoding a session: %w", err)
	}
	if err := secretfile.Write(f.root, fileName(s.DID), append(b, '\n')); err != nil {
		return fmt.Errorf("writing a session file: %w", err)
	}
	return nil
}

// Delete implements [Store].
func (f *FileStore) Delete(_ context.Context, did syntax.DID) error {
	if err := f.root.Remove(fileName(did)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing a session file: %w", err)
	}
	secretfile.Sync(f.root)
	return nil
}

// List implements [Store]. A file that can't be read is an error, after those that can.
func (f *FileStore) List(context.Context) ([]Session, error) {
	entries, err := fs.ReadDir(f.root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("listing session files: %w", err)
	}
	var out []Session
	var errs []error
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), filePrefix) || !strings.HasSuffix(e.Name(), fileSuffix) {
			continue
		}
		s, err := f.read(e.Name())
		switch {
		case err == nil:
			out = append(out, s)
		case !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, err)
		}
	}
	sortSessions(out)
	return out, errors.Join(errs...)
}
