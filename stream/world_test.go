package stream_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/repo/repotest"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// world is a small network: accounts that write, and a stream that tells of it.
type world struct {
	t      testing.TB
	now    time.Time
	clock  *syntax.TIDClock
	frames []stream.Frame
	keys   *keyring
}

// writer is an account of a world.
type writer struct {
	w    *world
	did  syntax.DID
	key  *keys.PrivateKey
	tree *mst.Tree
	last *repo.Update
}

func newWorld(t testing.TB) *world {
	// The tests with fake time have that of the year 2000.
	now := time.Now().UTC()
	return &world{t: t, now: now, clock: syntax.NewTIDClock(3), keys: &keyring{keys: map[syntax.DID]*keys.PublicKey{}}}
}

func newKey(t testing.TB, seed string) *keys.PrivateKey {
	k, err := keys.Generate(keys.K256, rand.NewChaCha8(sha256.Sum256([]byte(seed))))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (w *world) account(name string) *writer {
	a := &writer{w: w, did: syntax.DID("did:web:" + name + ".example.com"), tree: mst.New(), key: newKey(w.t, name)}
	w.keys.set(a.did, a.key.Public())
	return a
}

func (w *world) time() syntax.Datetime { return syntax.NewDatetime(w.now) }

// send puts a message into the stream.
func (w *world) send(m stream.Message) stream.Frame {
	w.t.Helper()
	m.SetSequence(int64(len(w.frames) + 1))
	f, err := stream.ParseFrame(stream.AppendFrame(nil, m))
	if err != nil {
		w.t.Fatal(err)
	}
	w.frames = append(w.frames, f)
	return f
}

// note is a write of a record; an empty text deletes it.
func note(collection string, n int, text string) repo.Write {
	wr := repo.Write{Path: fmt.Sprintf("%s/%04d", collection, n)}
	if text != "" {
		wr.Record = repotest.Record(text)
	}
	return wr
}

// commit makes a commit and returns its message, which is not sent.
func (a *writer) commit(writes ...repo.Write) *stream.Commit {
	a.w.t.Helper()
	since := syntax.TID("")
	if a.last != nil {
		since = a.last.Commit.Rev
	}
	a.w.now = a.w.now.Add(time.Microsecond)
	u, tree, err := repo.Apply(a.tree, writes, a.did, a.w.clock.Next(a.w.now), a.key)
	if err != nil {
		a.w.t.Fatal(err)
	}
	a.tree, a.last = tree, u
	m := u.Message(since, a.w.time())
	return stream.NewCommit(&m)
}

// write makes a commit and sends it.
func (a *writer) write(writes ...repo.Write) { a.w.t.Helper(); a.w.send(a.commit(writes...)) }

// sync is the #sync of the present state.
func (a *writer) sync() *stream.Sync {
	blocks := car.AppendBlock(car.AppendHeader(nil, a.last.CommitCID), a.last.CommitCID, a.last.Block)
	return &stream.Sync{DID: string(a.did), Rev: string(a.last.Commit.Rev), Time: string(a.w.time()), Blocks: blocks}
}

var errEnd = errors.New("the end")

// after yields the frames after a number, and then the error.
func (w *world) after(seq int64) iter.Seq2[stream.Frame, error] {
	return func(yield func(stream.Frame, error) bool) {
		for _, f := range w.frames {
			if (f.Seq > seq || f.Seq == 0) && !yield(f, nil) {
				return
			}
		}
		yield(stream.Frame{}, errEnd)
	}
}

// options of a consumer that knows the world's keys.
func (w *world) options() *stream.Options {
	return &stream.Options{Keys: w.keys, Now: func() time.Time { return w.now }}
}

// keyring is a directory of keys.
type keyring struct {
	mu     sync.Mutex
	keys   map[syntax.DID]*keys.PublicKey
	cached map[syntax.DID]*keys.PublicKey // told instead, unless they are to be fresh or were purged
	errs   map[syntax.DID][]error         // told first
	wait   func(ctx context.Context, did syntax.DID)
	asked  []string
}

func (k *keyring) set(did syntax.DID, key *keys.PublicKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys[did] = key
}

func (k *keyring) Key(ctx context.Context, did syntax.DID, fragment string, fresh bool) (*keys.PublicKey, error) {
	k.mu.Lock()
	wait := k.wait
	k.asked = append(k.asked, fmt.Sprintf("%s%s %v", did, fragment, fresh))
	k.mu.Unlock()
	if wait != nil {
		wait(ctx, did)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if errs := k.errs[did]; len(errs) > 0 {
		k.errs[did] = errs[1:]
		return nil, errs[0]
	}
	if fresh {
		delete(k.cached, did)
	}
	if c := k.cached[did]; c != nil {
		return c, nil
	}
	return k.keys[did], nil
}

func (k *keyring) Purge(did syntax.DID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked = append(k.asked, string(did)+" purged")
	delete(k.cached, did)
}

func (k *keyring) take() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	asked := k.asked
	k.asked = nil
	return asked
}

// exampleTB is for examples, which have no test to fail.
type exampleTB struct{ testing.TB }

func (exampleTB) Helper()           {}
func (exampleTB) Fatal(args ...any) { panic(fmt.Sprint(args...)) }
