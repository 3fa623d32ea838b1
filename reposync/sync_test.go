package reposync_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/reposync"
	"github.com/barograph/baro/reposync/reposynctest"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// memory is a sink that keeps records by path.
type memory struct {
	t       testing.TB
	mu      sync.Mutex
	cursor  int64
	repos   map[syntax.DID]reposync.Repo
	records map[syntax.DID]map[string]cid.CID
	failAt  int // the batch that fails; 0: none
	batches int
	parts   int // changes with records that leave the repository torn
}

func newMemory(t testing.TB) *memory {
	return &memory{t: t, repos: map[syntax.DID]reposync.Repo{}, records: map[syntax.DID]map[string]cid.CID{}}
}

var errSink = errors.New("the sink's disk is full")

func (m *memory) Load() (int64, iter.Seq2[reposync.Repo, error], error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := slices.Collect(maps.Values(m.repos))
	return m.cursor, func(yield func(reposync.Repo, error) bool) {
		for _, r := range all {
			if !yield(r, nil) {
				return
			}
		}
	}, nil
}

func (m *memory) Repo(did syntax.DID) (reposync.Repo, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.repos[did]
	return r, ok, nil
}

func (m *memory) Records(did syntax.DID) iter.Seq2[reposync.Entry, error] {
	m.mu.Lock()
	defer m.mu.Unlock()
	records := maps.Clone(m.records[did])
	return func(yield func(reposync.Entry, error) bool) {
		for _, p := range slices.Sorted(maps.Keys(records)) {
			if !yield(reposync.Entry{Path: p, CID: records[p]}, nil) {
				return
			}
		}
	}
}

func (m *memory) Apply(_ context.Context, b reposync.Batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.batches++; m.batches == m.failAt {
		return errSink
	}
	for _, c := range b.Changes {
		did := c.Repo.DID
		stored, err := reposync.DecodeRepo(did, c.Repo.Append(nil)) // as a real sink would
		if err != nil {
			m.t.Errorf("the state of %s: %v", did, err)
		}
		m.repos[did] = stored
		if c.Purge || m.records[did] == nil {
			m.records[did] = map[string]cid.CID{}
		}
		if c.Repo.Torn && len(c.Ops) > 0 {
			m.parts++
		}
		for _, op := range c.Ops {
			if !op.CID.Defined() {
				delete(m.records[did], op.Path)
				continue
			}
			if cid.Sum(cid.DagCBOR, op.Data) != op.CID {
				m.t.Errorf("%s %s: the record isn't what its CID names", did, op.Path)
			}
			m.records[did][op.Path] = op.CID
		}
	}
	if b.Cursor != 0 {
		if b.Cursor <= m.cursor {
			m.t.Errorf("the cursor went from %d to %d", m.cursor, b.Cursor)
		}
		m.cursor = b.Cursor
	}
	return nil
}

// differs says how the sink differs from an account, "" if it doesn't.
func (m *memory) differs(a *reposynctest.Account) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.repos[a.DID]
	if !ok {
		return "unknown"
	}
	if r.Active != a.Active() {
		return fmt.Sprintf("active is %v", r.Active)
	}
	if !r.Active && r.Status != stream.StatusDeleted {
		return "" // nothing is said of its records
	}
	if r.Active && (r.State != reposync.Synchronized || r.Rev != a.Rev()) {
		return fmt.Sprintf("%s at %s, want %s (%s)", r.State, r.Rev, a.Rev(), r.Error)
	}
	got, want := slices.Sorted(maps.Keys(m.records[a.DID])), a.Paths()
	if !slices.Equal(got, want) {
		return fmt.Sprintf("records %v, want %v", got, want)
	}
	for _, p := range want {
		if m.records[a.DID][p] != cid.Sum(cid.DagCBOR, a.Record(p)) {
			return "another record at " + p
		}
	}
	return ""
}

// rig is a host, a sink and what runs between them.
type rig struct {
	*testing.T
	h    *reposynctest.Host
	sink *memory
	o    reposync.Options
	s    *reposync.Syncer
	stop func() error
}

func newRig(t *testing.T) *rig {
	h := reposynctest.Start(t, time.Now)
	return &rig{T: t, h: h, sink: newMemory(t), o: reposync.Options{
		Upstream: h.URL, Directory: h.Directory(), HTTP: h.Client(), Now: time.Now,
		RetryMin: 5 * time.Millisecond, RetryMax: 50 * time.Millisecond, Settle: 50 * time.Millisecond, FetchRate: 10_000,
	}}
}

func (r *rig) start() {
	r.Helper()
	s, err := reposync.New(r.sink, r.o)
	if err != nil {
		r.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once sync.Once
	r.s = s
	r.stop = func() (err error) { once.Do(func() { cancel(); err = <-done }); return err }
	r.Cleanup(func() { _ = r.stop() })
}

// await waits until the sink is what the accounts are.
func (r *rig) await(accounts ...*reposynctest.Account) {
	r.Helper()
	r.until(func() string {
		for _, a := range accounts {
			if d := r.sink.differs(a); d != "" {
				return string(a.DID) + ": " + d
			}
		}
		return ""
	})
}

func (r *rig) until(missing func() string) {
	r.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		m := missing()
		if m == "" {
			return
		}
		if time.Now().After(deadline) {
			r.Fatalf("%s; %+v", m, r.s.Status())
		}
	}
}

func note(text string) []byte {
	return reposynctest.Record(fmt.Sprintf(`{"$type":"com.example.note","text":%q}`, text))
}

func put(n int, text string) repo.Write {
	return repo.Write{Path: fmt.Sprintf("com.example.note/n%04d", n), Record: note(text)}
}

func del(n int) repo.Write { return repo.Write{Path: put(n, "").Path} }

func TestBackfillAndLive(t *testing.T) {
	r := newRig(t)
	var all []*reposynctest.Account
	for i := range 20 {
		a := r.h.Account(fmt.Sprint("user", i))
		for n := range i {
			a.Write(put(n, "old"))
		}
		all = append(all, a)
	}
	r.h.Trim() // the stream doesn't tell of any of this
	r.start()
	r.await(all...)
	all[3].Write(put(0, "new"), put(100, "more"), del(1))
	all[4].Write(del(0))
	late := r.h.Account("late")
	late.Write(put(1, "x"))
	r.await(append(all, late)...)
	if n := r.h.Fetches(late.DID); n != 0 {
		t.Errorf("an account whose whole life was in the stream was fetched %d times", n)
	}
	if n := r.h.Fetches(all[3].DID); n != 1 {
		t.Errorf("fetched %d times", n)
	}
	r.until(func() string {
		if st := r.s.Status(); !st.Settled() || st.Repos["synchronized"] != 21 || st.Cursor != r.h.Head() {
			return "not settled"
		}
		return ""
	})
	r.h.Redeliver(6) // old numbers are gone, the same events come with new ones
	all[4].Write(put(7, "y"))
	r.await(append(all, late)...)
	if err := r.stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
}

func TestGapIsFetchedWithDeletions(t *testing.T) {
	r := newRig(t)
	a := r.h.Account("alice")
	a.Write(put(1, "a"), put(2, "b"), put(3, "c"))
	r.start()
	r.await(a)
	a.WriteSilently(del(2), put(1, "changed"), put(9, "new"))
	a.Write(put(4, "d"))
	r.await(a)
	if n := r.h.Fetches(a.DID); n != 1 {
		t.Errorf("fetched %d times", n)
	}
	if st := r.s.Status(); st.Dropped[string(repo.ReasonPrevData)] != 1 {
		t.Errorf("dropped %v", st.Dropped)
	}
	// A #sync tells of a gap too.
	a.WriteSilently(del(4))
	a.Sync()
	r.await(a)
}

func TestPartialDelivery(t *testing.T) {
	r := newRig(t)
	r.o.MaxChange = 500
	a := r.h.Account("alice")
	for n := range 40 {
		a.Write(put(n, "text"))
	}
	r.h.Trim()
	r.start()
	r.await(a)
	if r.sink.parts < 5 {
		t.Errorf("%d parts", r.sink.parts)
	}
}

func TestHostingStatus(t *testing.T) {
	r := newRig(t)
	a, b := r.h.Account("alice"), r.h.Account("bob")
	a.Write(put(1, "a"))
	b.Write(put(1, "b"))
	r.start()
	r.await(a, b)
	a.SetStatus(stream.StatusDeactivated)
	a.Write(put(2, "unseen")) // a host that isn't in its right mind
	b.SetStatus(stream.StatusDeleted)
	r.await(a, b)
	r.until(func() string {
		if n := r.s.Status().Dropped["inactive"]; n != 1 {
			return fmt.Sprint(n, " dropped")
		}
		return ""
	})
	if n := len(r.sink.records[b.DID]); n != 0 {
		t.Errorf("a deleted account has %d records", n)
	}
	a.SetStatus("")
	r.await(a, b)
	// The news of a reactivation is lost; that the account writes makes us ask.
	a.SetStatus(stream.StatusTakendown)
	r.await(a)
	r.stop()
	r.start()
	a.SetStatusSilently("")
	a.Write(put(3, "back"))
	r.await(a)
}

func TestKeyRotation(t *testing.T) {
	r := newRig(t)
	a := r.h.Account("alice")
	r.start()
	r.await(a)
	a.ChangeKey("second", false)
	a.Write(put(1, "signed with a key that isn't cached"))
	r.await(a)
	a.ChangeKey("third", true)
	a.Write(put(2, "x"))
	r.await(a)
	if n := r.h.Fetches(a.DID); n != 0 {
		t.Errorf("fetched %d times", n)
	}
}

func TestForgedCommit(t *testing.T) {
	r := newRig(t)
	a := r.h.Account("alice")
	a.Write(put(1, "a"))
	r.start()
	r.await(a)
	forger, err := keys.Generate(keys.P256, rand.NewChaCha8([32]byte{9}))
	if err != nil {
		t.Fatal(err)
	}
	u, _, err := repo.Apply(mst.New(), []repo.Write{put(66, "forged")}, a.DID, syntax.NewTID(time.Now().UnixMicro(), 1), forger)
	if err != nil {
		t.Fatal(err)
	}
	m := u.Message("", syntax.NewDatetime(time.Now()))
	r.h.Push(func(seq int64) []byte {
		return stream.AppendFrame(nil, &stream.Commit{Seq: seq, Repo: m.Repo, Rev: m.Rev, Time: m.Time, Commit: m.Commit, Blocks: m.Blocks,
			Ops: []stream.Op{{Action: m.Ops[0].Action, Path: m.Ops[0].Path, CID: m.Ops[0].CID}}})
	})
	r.h.Push(func(seq int64) []byte {
		return stream.AppendFrame(nil, &stream.Account{Seq: seq, DID: "not a did", Active: true})
	})
	a.Write(put(2, "b"))
	r.await(a)
	st := r.s.Status()
	if st.Dropped[string(repo.ReasonSignature)]+st.Dropped[string(repo.ReasonNoPrevData)] != 1 || st.Dropped[string(repo.ReasonDIDSyntax)] != 1 {
		t.Errorf("dropped %v", st.Dropped)
	}
}

// TestHeldCommits lets commits come while a fetch hangs.
func TestHeldCommits(t *testing.T) {
	for _, max := range []int{100, 2} {
		t.Run(fmt.Sprint(max), func(t *testing.T) {
			r := newRig(t)
			r.o.MaxHeld = max
			gate, asked := make(chan struct{}), make(chan struct{}, 100)
			var stale atomic.Pointer[[]byte]
			r.h.Intercept = func(w http.ResponseWriter, req *http.Request) bool {
				if !strings.HasSuffix(req.URL.Path, "getRepo") {
					return false
				}
				asked <- struct{}{}
				<-gate
				if b := stale.Swap(nil); b != nil {
					_, _ = w.Write(*b)
					return true
				}
				return false
			}
			a := r.h.Account("alice")
			a.Write(put(0, "old"))
			r.h.Trim()
			r.start()
			<-asked
			b := a.CAR() // the answer is from before what follows
			stale.Store(&b)
			for n := range 10 {
				a.Write(put(n, "new"))
			}
			r.until(func() string {
				if st := r.s.Status(); st.Verified < 10 {
					return "not held"
				}
				return ""
			})
			close(gate)
			r.await(a)
			st := r.s.Status()
			if over := st.Dropped["held-overflow"] > 0; over != (max == 2) {
				t.Errorf("dropped %v", st.Dropped)
			}
		})
	}
}

func TestFetchFailures(t *testing.T) {
	r := newRig(t)
	a := r.h.Account("alice")
	a.Write(put(1, "a"), put(2, "b"))
	r.h.Trim()
	var n atomic.Int32
	r.h.Intercept = func(w http.ResponseWriter, req *http.Request) bool {
		if !strings.HasSuffix(req.URL.Path, "getRepo") {
			return false
		}
		car := a.CAR()
		switch n.Add(1) {
		case 1:
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
		case 2:
			w.WriteHeader(http.StatusInternalServerError)
		case 3:
			_, _ = w.Write(car[:len(car)-10]) // cut off
		case 4:
			car[len(car)-1] ^= 1
			_, _ = w.Write(car)
		default:
			return false
		}
		return true
	}
	r.start()
	r.await(a)
	if st := r.s.Status(); st.Failed != 4 || st.Repos["synchronized"] != 1 {
		t.Errorf("%+v", st)
	}
	if got := r.sink.repos[a.DID]; got.Retries != 0 || got.Error != "" || got.Torn {
		t.Errorf("%+v", got)
	}
}

func TestRedirect(t *testing.T) {
	r := newRig(t)
	a := r.h.Account("alice")
	a.Write(put(1, "a"))
	r.h.Trim()
	// A relay in front, which passes everything through but repositories.
	to, err := url.Parse(r.h.URL)
	if err != nil {
		t.Fatal(err)
	}
	relay := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.HasSuffix(req.URL.Path, "getRepo") {
			http.Redirect(w, req, to.String()+req.URL.RequestURI(), http.StatusFound)
			return
		}
		resp, err := http.Get(to.String() + req.URL.RequestURI())
		if err != nil || strings.HasSuffix(req.URL.Path, "subscribeRepos") {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
	}))
	defer relay.Close()
	r.o.Upstream = relay.URL
	r.start()
	r.await(a)
}

func TestOutdatedCursor(t *testing.T) {
	r := newRig(t)
	a, b := r.h.Account("alice"), r.h.Account("bob")
	a.Write(put(1, "a"))
	r.start()
	r.await(a, b)
	r.until(func() string {
		if r.s.Status().Cursor != r.h.Head() {
			return "cursor not stored"
		}
		return ""
	})
	r.stop()
	a.Write(del(1))
	b.Write(put(5, "b"))
	r.h.Account("carol").Write(put(1, "c"))
	r.h.Trim()
	b.Write(put(6, "b"))
	r.start()
	r.await(a, b)
}

func TestDisconnects(t *testing.T) {
	r := newRig(t)
	a := r.h.Account("alice")
	r.start()
	for n := range 30 {
		a.Write(put(n%7, fmt.Sprint(n)))
		if n%10 == 9 {
			r.h.Disconnect()
		}
	}
	r.await(a)
}

func TestSinkFailureEndsRun(t *testing.T) {
	r := newRig(t)
	a := r.h.Account("alice")
	r.sink.failAt = 1
	s, err := reposync.New(r.sink, r.o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(context.Background()); !errors.Is(err, errSink) {
		t.Fatalf("Run: %v", err)
	}
	if r.sink.cursor != 0 || len(r.sink.repos) != 0 {
		t.Error("something was stored")
	}
	r.start()
	r.await(a)
}

// TestRandom lets everything happen in a random order, sinks fail and runs end, and looks whether the sink becomes what the host has.
func TestRandom(t *testing.T) {
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	for seed := range rounds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(uint64(seed), 1))
			r := newRig(t)
			r.o.MaxChange = 1 << (8 + rnd.IntN(8))
			r.o.MaxHeld = 1 + rnd.IntN(20)
			r.o.Workers = 1 + rnd.IntN(4)
			var all []*reposynctest.Account
			gone := map[int]bool{}
			for i := range 6 {
				all = append(all, r.h.Account(fmt.Sprint("u", seed, i)))
			}
			for range 12 {
				r.sink.mu.Lock()
				r.sink.failAt = r.sink.batches + 1 + rnd.IntN(40)
				r.sink.mu.Unlock()
				r.start()
				for range 60 {
					i := rnd.IntN(len(all))
					a := all[i]
					if gone[i] {
						continue
					}
					n := rnd.IntN(12)
					w := put(n, fmt.Sprint(rnd.Int()))
					if a.Has(w.Path) && rnd.IntN(2) == 0 {
						w = del(n)
					}
					switch k := rnd.IntN(100); {
					case k < 70 && a.Active():
						a.Write(w)
					case k < 75 && a.Active():
						a.WriteSilently(w)
						if rnd.IntN(2) == 0 {
							a.Sync()
						}
					case k < 80:
						r.h.Redeliver(1 + rnd.IntN(10))
					case k < 84:
						a.SetStatus(stream.StatusDeactivated)
					case k < 90:
						a.SetStatus("")
					case k < 91 && i > 3:
						a.SetStatus(stream.StatusDeleted)
						gone[i] = true
					case k < 93:
						a.ChangeKey(fmt.Sprint(rnd.Int()), rnd.IntN(2) == 0)
						if a.Active() {
							a.Write(put(50, fmt.Sprint(rnd.Int())))
						}
					case k < 94:
						r.h.Disconnect()
					case k < 95:
						r.h.Trim()
					}
				}
				if rnd.IntN(3) > 0 {
					_ = r.stop()
				}
				_ = r.stop()
			}
			r.sink.mu.Lock()
			r.sink.failAt = 0
			r.sink.mu.Unlock()
			r.start()
			for i, a := range all {
				if !gone[i] && a.Active() {
					a.SetStatus("") // an old word to the contrary may have been sent again
					a.Write(put(99, "the end"))
				}
			}
			r.await(all...)
		})
	}
}

func ExampleStatus_Settled() {
	s := reposync.Status{Listed: true, Cursor: 7, LastSeq: 7, Repos: map[string]int64{"synchronized": 3}}
	fmt.Println(s.Settled())
	// Output: true
}
