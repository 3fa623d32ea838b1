// Package reposynctest is a host of repositories in a process, for tests: a PDS, the stream of a relay and the directory of
// its DIDs behind one address, which does what it is told, lies and failures included.
//
// Specification: https://atproto.com/specs/sync. It keeps no data and checks nothing; only tests import it.
//
//	h := reposynctest.Start(t, time.Now)
//	alice := h.Account("alice")
//	alice.Put("com.example.note/1", reposynctest.Record(`{"$type":"com.example.note","text":"hi"}`))
//	s, err := reposync.New(sink, reposync.Options{Upstream: h.URL, Directory: h.Directory(), HTTP: h.Client(), Now: time.Now})
package reposynctest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// Host is the server. Its exported fields are set before it is asked for anything.
type Host struct {
	URL string
	// Intercept is asked first; true: it has answered.
	Intercept func(w http.ResponseWriter, r *http.Request) bool

	t      testing.TB
	now    func() time.Time
	server *httptest.Server
	stop   context.CancelFunc
	clock  *syntax.TIDClock

	mu       sync.Mutex
	accounts map[syntax.DID]*Account
	events   []stream.Event
	floor    int64
	next     int64
	changed  chan struct{}
	fetches  map[syntax.DID]int
}

// Account is one account of a Host.
type Account struct {
	h       *Host
	DID     syntax.DID
	Key     *keys.PrivateKey
	tree    *mst.Tree
	commit  *repo.Update
	records map[string][]byte
	active  bool
	status  string
}

// Start starts a host, which ends with the test. Now is its clock.
func Start(t testing.TB, now func() time.Time) *Host {
	h := &Host{t: t, now: now, accounts: map[syntax.DID]*Account{}, floor: 1, next: 1, changed: make(chan struct{}), fetches: map[syntax.DID]int{}, clock: syntax.NewTIDClock(3)}
	ctx, stop := context.WithCancel(context.Background())
	h.stop = stop
	streams := stream.NewHandler(ctx, source{h}, stream.ServeOptions{})
	mux := http.NewServeMux()
	mux.Handle("GET /xrpc/com.atproto.sync.subscribeRepos", streams)
	mux.HandleFunc("GET /xrpc/com.atproto.sync.getRepo", h.getRepo)
	mux.HandleFunc("GET /xrpc/com.atproto.sync.getRepoStatus", h.getRepoStatus)
	mux.HandleFunc("GET /xrpc/com.atproto.sync.listRepos", h.listRepos)
	mux.HandleFunc("GET /{did}", h.getDocument)
	h.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h.Intercept == nil || !h.Intercept(w, r) {
			mux.ServeHTTP(w, r)
		}
	}))
	h.URL = h.server.URL
	t.Cleanup(func() { stop(); h.server.CloseClientConnections(); h.server.Close() })
	return h
}

// Directory makes a directory that asks the host.
func (h *Host) Directory() *identity.Directory {
	return identity.New(identity.Options{
		HTTP: h.Client(), Resolver: nobody{}, Now: h.now, PLC: h.URL, MinRefresh: time.Nanosecond, NegativeTTL: time.Millisecond,
		PLCRate: 1e6, HostRate: 1e6,
	})
}

// nobody has no handles.
type nobody struct{}

func (nobody) LookupTXT(_ context.Context, name string) ([]string, error) {
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

// Client is a client that may go anywhere.
func (h *Host) Client() *http.Client { return h.server.Client() }

// Record turns JSON into a record.
func Record(json string) []byte {
	r, err := data.ParseRecord([]byte(json))
	if err != nil {
		panic(err)
	}
	return r
}

// DID is the DID of an account by its name.
func DID(name string) syntax.DID {
	sum := sha256.Sum256([]byte(name))
	const digits = "abcdefghijklmnopqrstuvwxyz234567"
	id := make([]byte, 24)
	for i := range id {
		id[i] = digits[sum[i]&31]
	}
	return syntax.DID("did:plc:" + string(id))
}

// Account makes an account with an empty repository, and tells of it.
func (h *Host) Account(name string) *Account {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := &Account{h: h, DID: DID(name), records: map[string][]byte{}, active: true, tree: mst.New()}
	a.newKey(name)
	h.accounts[a.DID] = a
	a.apply(nil)
	h.emit(&stream.Identity{DID: string(a.DID), Time: h.time()})
	h.emit(&stream.Account{DID: string(a.DID), Time: h.time(), Active: true})
	h.emit(a.syncMessage())
	return a
}

func (a *Account) newKey(seed string) {
	var err error
	if a.Key, err = keys.Generate(keys.K256, rand.NewChaCha8(sha256.Sum256([]byte(seed)))); err != nil {
		a.h.t.Fatal(err)
	}
}

func (h *Host) time() string { return string(syntax.NewDatetime(h.now())) }

// apply makes a commit.
func (a *Account) apply(writes []repo.Write) *repo.Update {
	u, tree, err := repo.Apply(a.tree, writes, a.DID, a.h.clock.Next(a.h.now()), a.Key)
	if err != nil {
		panic(err)
	}
	a.tree, a.commit = tree, u
	for _, w := range writes {
		if w.Record == nil {
			delete(a.records, w.Path)
		} else {
			a.records[w.Path] = w.Record
		}
	}
	return u
}

func (a *Account) syncMessage() *stream.Sync {
	blocks := car.AppendBlock(car.AppendHeader(nil, a.commit.CommitCID), a.commit.CommitCID, a.commit.Block)
	return &stream.Sync{DID: string(a.DID), Rev: string(a.commit.Commit.Rev), Time: a.h.time(), Blocks: blocks}
}

// emit appends an event to the stream. The lock is held.
func (h *Host) emit(m stream.Message) {
	m.SetSequence(h.next)
	h.push(stream.AppendFrame(nil, m))
}

func (h *Host) push(frame []byte) {
	h.events = append(h.events, stream.Event{Seq: h.next, Frame: frame})
	h.next++
	close(h.changed)
	h.changed = make(chan struct{})
}

// message returns the message of a commit.
func (h *Host) message(u *repo.Update, since syntax.TID) *stream.Commit {
	m := u.Message(since, syntax.Datetime(h.time()))
	return stream.NewCommit(&m)
}

// Write makes a commit of several writes and tells of it.
func (a *Account) Write(writes ...repo.Write) {
	a.h.mu.Lock()
	defer a.h.mu.Unlock()
	since := a.commit.Commit.Rev
	a.h.emit(a.h.message(a.apply(writes), since))
}

// WriteSilently makes a commit that the stream doesn't tell of.
func (a *Account) WriteSilently(writes ...repo.Write) {
	a.h.mu.Lock()
	defer a.h.mu.Unlock()
	a.apply(writes)
}

// Put writes one record.
func (a *Account) Put(path string, record []byte) { a.Write(repo.Write{Path: path, Record: record}) }

// Delete removes one record.
func (a *Account) Delete(path string) { a.Write(repo.Write{Path: path}) }

// Has reports whether there is a record.
func (a *Account) Has(path string) bool {
	a.h.mu.Lock()
	defer a.h.mu.Unlock()
	return a.records[path] != nil
}

// Paths returns the paths of all records, in order.
func (a *Account) Paths() []string {
	a.h.mu.Lock()
	defer a.h.mu.Unlock()
	return slices.Sorted(maps.Keys(a.records))
}

// Record returns a record.
func (a *Account) Record(path string) []byte {
	a.h.mu.Lock()
	defer a.h.mu.Unlock()
	return a.records[path]
}

// Rev returns the present revision.
func (a *Account) Rev() syntax.TID {
	a.h.mu.Lock()
	defer a.h.mu.Unlock()
	return a.commit.Commit.Rev
}

// Sync tells of the present state.
func (a *Account) Sync() {
	a.h.mu.Lock()
	defer a.h.mu.Unlock()
	a.h.emit(a.syncMessage())
}

// SetStatus changes the hosting status and tells of it; "" is active. A deleted account loses its records.
func (a *Account) SetStatus(status string) {
	a.h.mu.Lock()
	defer a.h.mu.Unlock()
	a.status, a.active = status, status == ""
	if status == stream.StatusDeleted {
		a.records, a.tree = map[string][]byte{}, mst.New()
		a.apply(nil)
	}
	a.h.emit(&stream.Account{DID: string(a.DID), Time: a.h.time(), Active: a.active, Status: status})
	if a.active {
		a.h.emit(a.syncMessage())
	}
}

// Active reports whether the account is active.
func (a *Account) Active() bool {
	a.h.mu.Lock()
	defer a.h.mu.Unlock()
	return a.active
}

// SetStatusSilently changes the hosting status without telling.
func (a *Account) SetStatusSilently(status string) {
	a.h.mu.Lock()
	defer a.h.mu.Unlock()
	a.status, a.active = status, status == ""
}

// ChangeKey gives the account another key, tells of it if tell is set, and signs what follows with it.
func (a *Account) ChangeKey(seed string, tell bool) {
	a.h.mu.Lock()
	defer a.h.mu.Unlock()
	a.newKey(seed)
	if tell {
		a.h.emit(&stream.Identity{DID: string(a.DID), Time: a.h.time()})
	}
}

// Redeliver sends the n last events again, with new numbers.
func (h *Host) Redeliver(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	from := max(0, len(h.events)-n)
	for _, e := range slices.Clone(h.events[from:]) {
		f, err := stream.ParseFrame(e.Frame)
		if err != nil {
			panic(err)
		}
		h.push(f.AppendResequenced(nil, h.next))
	}
}

// Push sends a frame as it is: its number must be Next.
func (h *Host) Push(frame func(seq int64) []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.push(frame(h.next))
}

// Trim forgets all events so far.
func (h *Host) Trim() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.floor = h.next
}

// Head returns the number of the last event.
func (h *Host) Head() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.next - 1
}

// Fetches returns how often a repository was fetched.
func (h *Host) Fetches(did syntax.DID) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.fetches[did]
}

// Disconnect ends all connections.
func (h *Host) Disconnect() { h.server.CloseClientConnections() }

type source struct{ h *Host }

func (s source) Head() int64 { return s.h.Head() }

func (s source) Floor() int64 {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	return s.h.floor
}

func (s source) Read(ctx context.Context, from int64, max int, dst []stream.Event) ([]stream.Event, error) {
	for {
		s.h.mu.Lock()
		changed := s.h.changed
		if from < s.h.floor {
			s.h.mu.Unlock()
			return dst, fmt.Errorf("%d is gone", from)
		}
		if i := int(from - 1); i < len(s.h.events) {
			dst = append(dst, s.h.events[i:min(len(s.h.events), i+max)]...)
			s.h.mu.Unlock()
			return dst, nil
		}
		s.h.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return dst, ctx.Err()
		}
	}
}

func refuse(w http.ResponseWriter, name string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	fmt.Fprintf(w, `{"error":%q,"message":"no"}`, name)
}

func (h *Host) asked(r *http.Request) *Account { return h.accounts[syntax.DID(r.FormValue("did"))] }

func (h *Host) getRepo(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.asked(r)
	if a == nil || a.status == stream.StatusDeleted {
		refuse(w, "RepoNotFound")
		return
	}
	if !a.active {
		refuse(w, map[string]string{stream.StatusDeactivated: "RepoDeactivated", stream.StatusTakendown: "RepoTakendown", stream.StatusSuspended: "RepoSuspended"}[a.status])
		return
	}
	h.fetches[a.DID]++
	w.Header().Set("Content-Type", "application/vnd.ipld.car")
	_, _ = w.Write(a.car())
}

func (a *Account) car() []byte {
	var b bytes.Buffer
	if err := repo.WriteCAR(&b, a.commit.Block, a.tree, func(path string, _ cid.CID) ([]byte, error) { return a.records[path], nil }); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// CAR returns the repository as it is now.
func (a *Account) CAR() []byte {
	a.h.mu.Lock()
	defer a.h.mu.Unlock()
	return a.car()
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func (h *Host) getRepoStatus(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.asked(r)
	if a == nil {
		refuse(w, "RepoNotFound")
		return
	}
	out := map[string]any{"did": a.DID, "active": a.active}
	if a.status != "" {
		out["status"] = a.status
	}
	answer(w, out)
}

func (h *Host) listRepos(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	dids := slices.Sorted(maps.Keys(h.accounts))
	out := map[string]any{}
	repos := []map[string]any{}
	for _, did := range dids {
		if string(did) <= r.FormValue("cursor") {
			continue
		}
		if len(repos) == 7 { // pages are small, so that there are several
			out["cursor"] = repos[6]["did"]
			break
		}
		a := h.accounts[did]
		e := map[string]any{"did": string(did), "head": a.commit.CommitCID.String(), "rev": string(a.commit.Commit.Rev), "active": a.active}
		if a.status != "" {
			e["status"] = a.status
		}
		repos = append(repos, e)
	}
	out["repos"] = repos
	answer(w, out)
}

func (h *Host) getDocument(w http.ResponseWriter, r *http.Request) {
	did := r.PathValue("did")
	h.mu.Lock()
	a := h.accounts[syntax.DID(did)]
	h.mu.Unlock()
	if a == nil || !strings.HasPrefix(did, "did:") {
		http.NotFound(w, r)
		return
	}
	h.mu.Lock()
	key := a.Key.Public().Multikey()
	h.mu.Unlock()
	answer(w, map[string]any{
		"id":                 did,
		"alsoKnownAs":        []string{},
		"verificationMethod": []any{map[string]any{"id": did + "#atproto", "type": "Multikey", "controller": did, "publicKeyMultibase": key}},
		"service":            []any{map[string]any{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": h.URL}},
	})
}
