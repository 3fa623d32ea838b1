package relay_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/internal/eventlog"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/internal/server/relay"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// network is a PLC directory and the world that knows nothing but it and the fake hosts.
type network struct {
	t     testing.TB
	w     world.World
	guard *netguard.Dialer
	plc   *httptest.Server

	hold chan struct{} // until it is closed, DIDs in held get no answer
	mu   sync.Mutex
	held map[syntax.DID]bool
	docs map[syntax.DID]string
	txt  map[string]string // handle → DID
	asks int
}

func (n *network) LookupTXT(_ context.Context, name string) ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if did := n.txt[strings.TrimPrefix(name, "_atproto.")]; did != "" {
		return []string{"did=" + did}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (n *network) LookupNetIP(ctx context.Context, nw, host string) ([]netip.Addr, error) {
	if host == "localhost" {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func newNetwork(t testing.TB) *network {
	n := &network{t: t, docs: map[syntax.DID]string{}, txt: map[string]string{}, hold: make(chan struct{}), held: map[syntax.DID]bool{}}
	n.plc = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		held := n.held[syntax.DID(strings.TrimPrefix(r.URL.Path, "/"))]
		n.mu.Unlock()
		if held {
			select {
			case <-n.hold:
			case <-r.Context().Done():
			}
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.asks++
		doc := n.docs[syntax.DID(strings.TrimPrefix(r.URL.Path, "/"))]
		if doc == "" {
			http.Error(w, "{}", http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/did+ld+json")
		w.Write([]byte(doc))
	}))
	t.Cleanup(n.plc.Close)
	n.w = world.Real(nil)
	n.w.Fatal = func(err error) { t.Errorf("fatal: %v", err) }
	n.guard = netguard.NewDialer(netguard.Options{Resolver: n})
	n.w.Dialer, n.w.Resolver = n.guard, n
	n.allow(n.plc)
	return n
}

func (n *network) allow(s *httptest.Server) {
	if err := n.guard.Allow(s.Listener.Addr().String()); err != nil {
		n.t.Fatal(err)
	}
}

func (n *network) directory() *identity.Directory {
	return identity.New(identity.Options{
		HTTP: n.w.HTTPClient(netguard.ClientOptions{}), Resolver: n, Now: n.w.Clock.Now, PLC: n.plc.URL,
		MinRefresh: time.Nanosecond, NegativeTTL: time.Nanosecond, HostRate: 1e6, PLCRate: 1e6,
	})
}

// fakeHost is a host whose stream says whatever the test wants.
type fakeHost struct {
	*network
	srv *httptest.Server
	log *eventlog.Log

	streams *stream.Handler

	hmu     sync.Mutex
	latest  map[syntax.DID]*repo.Update
	all     []*repo.Update
	active  map[syntax.DID]bool
	blocked chan struct{} // if set, getBlocks takes from it twice before it answers
	asked   chan struct{} // if set, getRepoStatus tells that it was asked, and waits for hold
}

type hostSource struct{ *eventlog.Log }

func (s hostSource) Read(ctx context.Context, from int64, max int, dst []stream.Event) ([]stream.Event, error) {
	evs, err := s.Log.Read(ctx, from, max)
	for _, ev := range evs {
		dst = append(dst, stream.Event{Seq: ev.Seq, Frame: ev.Frame})
	}
	return dst, err
}

func (n *network) host() *fakeHost {
	store := kv.NewMem()
	log, err := eventlog.Open(store, eventlog.Options{})
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	streams := stream.NewHandler(ctx, hostSource{log}, stream.ServeOptions{})
	h := &fakeHost{network: n, log: log, streams: streams, latest: map[syntax.DID]*repo.Update{}, active: map[syntax.DID]bool{}}
	mux := http.NewServeMux()
	mux.Handle("/xrpc/com.atproto.sync.subscribeRepos", streams)
	mux.HandleFunc("/xrpc/com.atproto.server.describeServer", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte(`{"did":"did:web:localhost","availableUserDomains":[]}`))
	})
	mux.HandleFunc("/xrpc/com.atproto.sync.getLatestCommit", func(w http.ResponseWriter, r *http.Request) {
		h.hmu.Lock()
		defer h.hmu.Unlock()
		u := h.latest[syntax.DID(r.URL.Query().Get("did"))]
		if u == nil {
			http.Error(w, `{"error":"RepoNotFound"}`, 400)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]string{"cid": u.CommitCID.String(), "rev": string(u.Commit.Rev)})
	})
	mux.HandleFunc("/xrpc/com.atproto.sync.getBlocks", func(w http.ResponseWriter, r *http.Request) {
		if h.blocked != nil {
			<-h.blocked
			<-h.blocked
		}
		h.hmu.Lock()
		defer h.hmu.Unlock()
		w.Header().Set("Content-Type", car.MediaType)
		b := car.AppendHeader(nil)
		for _, u := range h.all {
			if u.CommitCID.String() == r.URL.Query().Get("cids") {
				b = car.AppendBlock(b, u.CommitCID, u.Block)
			}
		}
		w.Write(b)
	})
	mux.HandleFunc("/xrpc/com.atproto.sync.getRepoStatus", func(w http.ResponseWriter, r *http.Request) {
		if h.asked != nil {
			h.asked <- struct{}{}
			select {
			case <-h.hold:
			case <-r.Context().Done():
			}
		}
		h.hmu.Lock()
		defer h.hmu.Unlock()
		did := r.URL.Query().Get("did")
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{"did": did, "active": h.active[syntax.DID(did)]})
	})
	h.srv = httptest.NewServer(mux)
	n.allow(h.srv)
	n.t.Cleanup(func() {
		cancel()
		streams.Wait()
		h.srv.Close()
		log.Close()
		store.Close()
	})
	return h
}

func (h *fakeHost) say(m stream.Message) int64 {
	h.t.Helper()
	seq, err := h.log.Commit(context.Background(), eventlog.Tx{Events: []func([]byte, int64) []byte{func(dst []byte, seq int64) []byte {
		m.SetSequence(seq)
		return stream.AppendFrame(dst, m)
	}}})
	if err != nil {
		h.t.Fatal(err)
	}
	return seq
}

// fakeAccount is an account with its repository.
type fakeAccount struct {
	host   *fakeHost
	did    syntax.DID
	handle string
	key    *keys.PrivateKey
	tree   *mst.Tree
	last   *repo.Update
	n      int
}

var clock = syntax.NewTIDClock(7)

func (n *network) account(h *fakeHost, i int) *fakeAccount {
	key, err := keys.Generate(keys.K256, n.w.Rand)
	if err != nil {
		n.t.Fatal(err)
	}
	a := &fakeAccount{host: h, did: syntax.DID(fmt.Sprintf("did:plc:%024s", strings.Repeat(string(rune('a'+i)), 24))),
		handle: fmt.Sprintf("user%d.test", i), key: key, tree: mst.New()}
	a.publish()
	n.mu.Lock()
	n.txt[a.handle] = string(a.did)
	n.mu.Unlock()
	return a
}

// publish puts the account's DID document into the directory.
func (a *fakeAccount) publish() {
	n := a.host.network
	n.mu.Lock()
	defer n.mu.Unlock()
	n.docs[a.did] = fmt.Sprintf(`{"id":%q,"alsoKnownAs":["at://%s"],"verificationMethod":[{"id":"%s#atproto","type":"Multikey","controller":%q,"publicKeyMultibase":%q}],`+
		`"service":[{"id":"#atproto_pds","type":"AtprotoPersonalDataServer","serviceEndpoint":%q}]}`,
		a.did, a.handle, a.did, a.did, a.key.Public().Multikey(), a.host.srv.URL)
}

func (a *fakeAccount) now() string { return string(syntax.NewDatetime(time.Now())) }

// commit makes a commit with one new record and does not tell anybody.
func (a *fakeAccount) commit() *stream.Commit {
	a.host.t.Helper()
	a.n++
	rec := cbor.AppendText(cbor.AppendText(cbor.AppendMap(nil, 1), "$type"), "com.example.thing")
	path := fmt.Sprintf("com.example.thing/%s", clock.Next(time.Now()))
	var since syntax.TID
	if a.last != nil {
		since = a.last.Commit.Rev
	}
	u, next, err := repo.Apply(a.tree, []repo.Write{{Path: path, Record: rec}}, a.did, clock.Next(time.Now()), a.key)
	if err != nil {
		a.host.t.Fatal(err)
	}
	a.tree, a.last = next, u
	a.host.hmu.Lock()
	a.host.latest[a.did] = u
	a.host.all = append(a.host.all, u)
	a.host.hmu.Unlock()
	return message(u.Message(since, syntax.Datetime(a.now())))
}

// fork makes a commit that the account's next one knows nothing of.
func (a *fakeAccount) fork() *stream.Commit {
	tree, last := a.tree, a.last
	c := a.commit()
	a.tree, a.last = tree, last
	a.host.hmu.Lock()
	a.host.latest[a.did] = last
	a.host.hmu.Unlock()
	return c
}

func message(m repo.CommitMessage) *stream.Commit {
	c := &stream.Commit{Repo: m.Repo, Rev: m.Rev, Since: m.Since, Time: m.Time, Commit: m.Commit, PrevData: m.PrevData, Blocks: m.Blocks}
	for _, op := range m.Ops {
		c.Ops = append(c.Ops, stream.Op(op))
	}
	return c
}

// follower reads the relay's stream.
type follower struct {
	t      *testing.T
	svc    *relay.Service
	frames chan stream.Frame
}

func startRelay(t *testing.T, n *network, cfg relay.Config) (svc *relay.Service, url string, stop func()) {
	t.Helper()
	if cfg.Directory == nil {
		cfg.Directory = n.directory()
	}
	svc, err := relay.New(cfg, n.w)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(svc.Handler())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- svc.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
			srv.Close()
			if err := svc.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return svc, srv.URL, stop
}

func follow(t *testing.T, svc *relay.Service, url string, after int64) *follower {
	f := &follower{t: t, svc: svc, frames: make(chan stream.Frame, 1000)}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	go func() {
		defer close(f.frames)
		for fr, err := range stream.Subscribe(ctx, url, stream.SubscribeOptions{After: &after, MaxAttempts: 3}) {
			if err != nil {
				return
			}
			f.frames <- fr
		}
	}()
	return f
}

func (f *follower) next() stream.Message {
	f.t.Helper()
	select {
	case fr, ok := <-f.frames:
		if !ok {
			f.t.Fatal("the relay's stream ended")
		}
		m, err := fr.Message()
		if err != nil {
			f.t.Fatal(err)
		}
		return m
	case <-time.After(10 * time.Second):
		f.t.Fatalf("no event within 10 s; the relay: %+v", f.svc.Status())
	}
	return nil
}

// eventually waits until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
