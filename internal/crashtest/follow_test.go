//go:build unix

package crashtest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// follower is a subscriber of one stream that outlives all crashes: it remembers what each sequence number stood for, and folds the
// stream to the state of all repositories.
type follower struct {
	name string
	key  func(did string) (*keys.PublicKey, error)
	// onCommit is told of every commit, importOf of every repository that was replaced.
	onCommit func(did, commit string, ops []repo.Op) error
	importOf func(did string, tree cid.CID) map[string]cid.CID

	mu    sync.Mutex
	seen  map[int64][sha256.Size]byte
	last  int64 // folded
	repos map[string]*hosted
}

// hosted is a repository as a stream tells of it.
type hosted struct {
	state   *repo.State
	commit  cid.CID
	records map[string]cid.CID
	commits []cid.CID // all of them, and those of #sync events that changed the tree
	status  string    // "" is active
	handle  string
	gone    map[string]bool // paths that were deleted
}

func newFollower(name string, key func(string) (*keys.PublicKey, error)) *follower {
	return &follower{name: name, key: key, seen: map[int64][sha256.Size]byte{}, repos: map[string]*hosted{}}
}

// note remembers a frame. Seeing it again is fine, seeing another one with its number is not.
func (f *follower) note(fr stream.Frame) error {
	sum := sha256.Sum256(fr.Raw)
	f.mu.Lock()
	defer f.mu.Unlock()
	if was, ok := f.seen[fr.Seq]; ok && was != sum {
		return fmt.Errorf("%s: sequence number %d stands for two events", f.name, fr.Seq)
	}
	f.seen[fr.Seq] = sum
	return nil
}

func dial(ctx context.Context, base string, cursor int64) (*stream.Conn, error) {
	addr, err := stream.URL(base, stream.SubscribeRepos, nil)
	if err != nil {
		return nil, err
	}
	return stream.Dial(ctx, fmt.Sprintf("%s?cursor=%d", addr, cursor), stream.DialOptions{})
}

// watch notes all frames until the connection ends, from the newest that was folded.
func (f *follower) watch(ctx context.Context, base string) error {
	conn, err := dial(ctx, base, f.last)
	if err != nil {
		return nil // the process is dead already
	}
	defer conn.Close()
	for {
		fr, err := conn.Next() // which checks that numbers rise
		var se *stream.Error
		switch {
		case errors.Is(err, stream.ErrFrame), errors.As(err, &se):
			return fmt.Errorf("%s: %w", f.name, err)
		case err != nil:
			return nil
		}
		if err := f.note(fr); err != nil {
			return err
		}
	}
}

// fold reads the stream from a number on and applies what is new, until done says so. Every event noted before must come again.
func (f *follower) fold(ctx context.Context, base string, from int64, done func() bool) error {
	conn, err := dial(ctx, base, from)
	if err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	defer conn.Close()
	f.mu.Lock()
	missing := map[int64]bool{}
	for seq := range f.seen {
		if seq >= from {
			missing[seq] = true
		}
	}
	f.mu.Unlock()
	for len(missing) > 0 || !done() {
		fr, err := conn.Next()
		if err != nil {
			return fmt.Errorf("%s: after %d, with %d events still to come again: %w", f.name, f.last, len(missing), err)
		}
		if fr.Type == stream.TypeInfo {
			return fmt.Errorf("%s: %s", f.name, fr.Payload)
		}
		if err := f.note(fr); err != nil {
			return err
		}
		delete(missing, fr.Seq)
		if fr.Seq <= f.last {
			continue
		}
		f.last = fr.Seq
		if err := f.apply(fr); err != nil {
			return fmt.Errorf("%s: event %d: %w", f.name, fr.Seq, err)
		}
	}
	return nil
}

func (f *follower) repo(did string) *hosted {
	r := f.repos[did]
	if r == nil {
		r = &hosted{records: map[string]cid.CID{}, gone: map[string]bool{}}
		f.repos[did] = r
	}
	return r
}

// apply verifies one event and applies it.
func (f *follower) apply(fr stream.Frame) error {
	m, err := fr.Message()
	if err != nil {
		return err
	}
	if m == nil {
		return fmt.Errorf("unknown type %q", fr.Type)
	}
	r := f.repo(m.Subject())
	switch m := m.(type) {
	case *stream.Commit:
		return f.commit(r, m, len(fr.Raw))
	case *stream.Sync:
		return f.sync(r, m, len(fr.Raw))
	case *stream.Identity:
		r.handle = m.Handle
	case *stream.Account:
		r.status = m.Status
		if !m.Active && m.Status == "" {
			r.status = "inactive"
		}
	}
	return nil
}

func (f *follower) commit(r *hosted, m *stream.Commit, size int) error {
	msg := repo.CommitMessage{
		Repo: m.Repo, Rev: m.Rev, Since: m.Since, Time: m.Time, Commit: m.Commit, PrevData: m.PrevData, Blocks: m.Blocks,
		TooBig: m.TooBig, Rebase: m.Rebase, FrameSize: size,
	}
	for _, op := range m.Ops {
		msg.Ops = append(msg.Ops, repo.Op(op))
	}
	key, err := f.key(m.Repo)
	if err != nil {
		return err
	}
	st, err := repo.VerifyCommit(msg, key, r.state, repo.VerifyOptions{Now: time.Now(), Records: repo.RecordsStrict, RefuseFlags: true})
	if err != nil {
		return fmt.Errorf("commit %s of %s: %w", m.Commit, m.Repo, err)
	}
	first := r.state == nil && len(msg.Ops) == 0 // the commit that a repository begins with
	if f.onCommit != nil && !first {
		if err := f.onCommit(m.Repo, m.Commit.String(), msg.Ops); err != nil {
			return err
		}
	}
	for _, op := range msg.Ops {
		was, had := r.records[op.Path]
		if had != op.Prev.Defined() || was != op.Prev {
			return fmt.Errorf("%s %s of %s: prev is %s, and the record was %s", op.Action, op.Path, m.Repo, op.Prev, was)
		}
		if op.CID.Defined() {
			r.records[op.Path] = op.CID
		} else {
			delete(r.records, op.Path)
			r.gone[op.Path] = true
		}
	}
	r.state, r.commit = &st, m.Commit
	r.commits = append(r.commits, m.Commit)
	return nil
}

func (f *follower) sync(r *hosted, m *stream.Sync, size int) error {
	key, err := f.key(m.DID)
	if err != nil {
		return err
	}
	msg := repo.SyncMessage{DID: m.DID, Rev: m.Rev, Time: m.Time, Blocks: m.Blocks, FrameSize: size}
	st, err := repo.VerifySync(msg, key, r.state, repo.VerifyOptions{Now: time.Now()})
	if err != nil {
		return fmt.Errorf("sync of %s: %w", m.DID, err)
	}
	if r.state != nil && *r.state == st {
		return nil
	}
	switch {
	case st.Data == repo.EmptyRoot && len(r.records) == 0:
	case r.state != nil && st.Data == r.state.Data: // an import of what was there
	default:
		records := f.importOf(m.DID, st.Data)
		if records == nil {
			return fmt.Errorf("the repository of %s was replaced by one that nobody imported: tree %s", m.DID, st.Data)
		}
		for path := range r.records {
			r.gone[path] = true
		}
		r.records = maps.Clone(records)
	}
	c, err := rootOf(m.Blocks)
	if err != nil {
		return err
	}
	r.state, r.commit = &st, c
	r.commits = append(r.commits, c)
	return nil
}

// live returns what is known of the accounts.
func (f *follower) live(did string) *hosted {
	if r := f.repos[did]; r != nil {
		return r
	}
	return &hosted{}
}

func (f *follower) rev(did string) syntax.TID {
	if r := f.repos[did]; r != nil && r.state != nil {
		return r.state.Rev
	}
	return ""
}
