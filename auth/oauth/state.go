package oauth

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/barograph/baro/auth/internal/secretfile"
	"github.com/barograph/baro/syntax"
)

// Pending is a login that was started, as a [StateStore] keeps it until the person comes back. Printing and logging it shows no
// secret; its JSON form does.
type Pending struct {
	State       string        `json:"state"` // a secret too: it stands for the rest
	Issuer      string        `json:"issuer"`
	ClientID    string        `json:"clientId"`
	KeyID       string        `json:"keyId,omitempty"`
	RedirectURI string        `json:"redirectUri"`
	Verifier    string        `json:"verifier"` // a secret
	Key         string        `json:"key"`      // a secret
	DID         syntax.DID    `json:"did,omitempty"`
	Handle      syntax.Handle `json:"handle,omitempty"`
	PDS         string        `json:"pds,omitempty"`
	Data        string        `json:"data,omitempty"` // the program's own
	Expires     time.Time     `json:"expires"`
}

// String shows no secret.
func (p Pending) String() string { return fmt.Sprintf("login of %q at %s", p.DID, p.Issuer) }

// GoString shows no secret.
func (p Pending) GoString() string { return p.String() }

// LogValue shows no secret.
func (p Pending) LogValue() slog.Value {
	return slog.GroupValue(slog.String("did", string(p.DID)), slog.String("issuer", p.Issuer), slog.Time("expires", p.Expires), slog.String("state", "[redacted]"))
}

// ErrUnknownState says that a [StateStore] has no login of that state: it was never started, is over, or was finished before.
var ErrUnknownState = errors.New("no such login")

// StateStore keeps logins between their start and their end. Its methods are called concurrently.
type StateStore interface {
	// Put keeps a login at least until it expires.
	Put(ctx context.Context, p Pending) error
	// Take returns a login and forgets it: of several calls for the same state, in whatever process, one gets it.
	// The others get [ErrUnknownState].
	Take(ctx context.Context, state string) (Pending, error)
}

// maxPending is how many logins a MemoryStates keeps: anybody can start one.
const maxPending = 10_000

// MemoryStates keeps logins as long as the process lives, at most 10,000.
type MemoryStates struct {
	mu sync.Mutex
	m  map[string]Pending
}

var (
	_ StateStore = (*MemoryStates)(nil)
	_ StateStore = (*FileStates)(nil)
)

// NewMemoryStates returns an empty store.
func NewMemoryStates() *MemoryStates { return &MemoryStates{m: map[string]Pending{}} }

// Put implements [StateStore].
func (s *MemoryStates) Put(_ context.Context, p Pending) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.m) >= maxPending {
		oldest := p
		for _, q := range s.m {
			if q.Expires.Before(oldest.Expires) {
				oldest = q
			}
		}
		delete(s.m, oldest.State)
		evict(s.m, maxPending)
	}
	s.m[p.State] = p
	return nil
}

// Take implements [StateStore].
func (s *MemoryStates) Take(_ context.Context, state string) (Pending, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.m[state]
	if !ok {
		return Pending{}, ErrUnknownState
	}
	delete(s.m, state)
	return p, nil
}

// FileStates keeps each login in a file that only its owner may read, in a folder that the caller opened, so that any process of a
// program on the web can finish what another one has started. There are as many files as logins were begun and not finished in
// the time of one and an hour: how many that may be is for the program to say, by how often it calls [Client.Start].
type FileStates struct {
	root  *os.Root
	now   func() time.Time
	mu    sync.Mutex
	swept time.Time
}

const (
	pendingPrefix = "login-"
	maxPendingLen = 64 << 10
	// sweepAfter is how long after its end a login that nobody finished stays, when others are put beside it; sweepEvery how often
	// a store looks for such.
	sweepAfter = time.Hour
	sweepEvery = time.Minute
)

// NewFileStates returns the store in a folder, which should have mode 0700 and serve nothing else. The caller keeps it open.
func NewFileStates(root *os.Root, now func() time.Time) *FileStates {
	return &FileStates{root: root, now: now}
}

func pendingName(state string) string {
	h := sha256.Sum256([]byte(state)) // the name of a file is no secret
	return pendingPrefix + hex.EncodeToString(h[:16]) + ".json"
}

// Put implements [StateStore]. It removes logins that were over long ago.
func (s *FileStates) Put(_ context.Context, p Pending) error {
	b, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encoding a login: %w", err)
	}
	name := pendingName(p.State)
	if err := secretfile.Write(s.root, name, b); err != nil {
		return fmt.Errorf("keeping a login: %w", err)
	}
	// The time of the file is the end of the login, for those who sweep; where that can't be set it stays for an hour.
	_ = s.root.Chtimes(name, p.Expires, p.Expires)
	now := s.now()
	s.mu.Lock()
	due := now.Sub(s.swept) > sweepEvery
	if due {
		s.swept = now
	}
	s.mu.Unlock()
	if !due {
		return nil
	}
	entries, err := fs.ReadDir(s.root.FS(), ".")
	if err != nil {
		return fmt.Errorf("listing logins: %w", err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), pendingPrefix) {
			continue
		}
		if i, err := e.Info(); err == nil && now.Sub(i.ModTime()) > sweepAfter {
			_ = s.root.Remove(e.Name()) // another process may have been quicker
		}
	}
	return nil
}

// Take implements [StateStore].
func (s *FileStates) Take(_ context.Context, state string) (Pending, error) {
	// Who removes it has it: of several, one can.
	name := pendingName(state)
	b, err := secretfile.Read(s.root, name, maxPendingLen)
	if err == nil {
		err = s.root.Remove(name)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Pending{}, ErrUnknownState
	case err != nil:
		return Pending{}, fmt.Errorf("taking a login: %w", err)
	}
	secretfile.Sync(s.root)
	var p Pending
	if json.Unmarshal(b, &p) != nil || p.State != state {
		return Pending{}, fmt.Errorf("taking a login: its file is damaged: %w", ErrUnknownState)
	}
	return p, nil
}
