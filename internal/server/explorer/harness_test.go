package explorer

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// network is a small network of fakes, each a server of its own that can fail.
type network struct {
	t                      *testing.T
	pds, plc, relay, links *httptest.Server
	guard                  *netguard.Dialer
	now                    time.Time

	mu       sync.Mutex
	accounts map[string]*fakeAccount // by DID
	order    []string
	txt      map[string]string // handle to DID
	down     map[string]bool   // "pds", "plc", "relay", "links": answers 503
	mangle   func(car []byte) []byte
	noProof  bool
	errText  string // message of errors
	host     string // name of the host in listHosts
	drops    map[string]uint64
	linked   map[string]map[string]map[string][]string // subject, collection, path, uris
	noAll    bool                                      // the link index can't list sources
	log      *fakeLog
	clock    world.Clock
}

type fakeAccount struct {
	did     string
	handle  string
	aka     []string
	key     *keys.PrivateKey
	entries []plc.Entry
	data    plc.Data
	tree    *mst.Tree
	records map[string][]byte
	blobs   map[string][]byte
	commit  *repo.Update
	clock   *syntax.TIDClock
}

// fakeLog is the log of the relay.
type fakeLog struct {
	mu     sync.Mutex
	frames [][]byte
	more   chan struct{}
}

func (l *fakeLog) add(m stream.Message) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	seq := int64(len(l.frames) + 1)
	m.SetSequence(seq)
	l.frames = append(l.frames, stream.AppendFrame(nil, m))
	close(l.more)
	l.more = make(chan struct{})
	return seq
}

func (l *fakeLog) Head() int64  { l.mu.Lock(); defer l.mu.Unlock(); return int64(len(l.frames)) }
func (l *fakeLog) Floor() int64 { return 1 }

func (l *fakeLog) Read(ctx context.Context, from int64, max int, dst []stream.Event) ([]stream.Event, error) {
	for {
		l.mu.Lock()
		more := l.more
		for i := from; i <= int64(len(l.frames)) && len(dst) < max; i++ {
			dst = append(dst, stream.Event{Seq: i, Frame: l.frames[i-1]})
		}
		l.mu.Unlock()
		if len(dst) > 0 {
			return dst, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return dst, ctx.Err()
		}
	}
}

func newNetwork(t *testing.T) *network {
	n := &network{
		t: t, accounts: map[string]*fakeAccount{}, txt: map[string]string{}, down: map[string]bool{}, now: time.Now(), errText: "no such thing",
		linked: map[string]map[string]map[string][]string{}, drops: map[string]uint64{"signature": 3}, log: &fakeLog{more: make(chan struct{})}, clock: world.System,
	}
	n.guard = netguard.NewDialer(netguard.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	serve := func(name string, h http.Handler) *httptest.Server {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n.mu.Lock()
			down := n.down[name]
			n.mu.Unlock()
			if down {
				http.Error(w, "down", http.StatusServiceUnavailable)
				return
			}
			h.ServeHTTP(w, r)
		}))
		t.Cleanup(s.Close)
		u, _ := url.Parse(s.URL)
		if err := n.guard.Allow(u.Host); err != nil {
			t.Fatal(err)
		}
		return s
	}
	n.plc = serve("plc", http.HandlerFunc(n.servePLC))
	n.pds = serve("pds", http.HandlerFunc(n.servePDS))
	n.links = serve("links", http.HandlerFunc(n.serveLinks))
	sub := stream.NewHandler(ctx, n.log, stream.ServeOptions{CloseGrace: time.Millisecond})
	n.relay = serve("relay", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, stream.SubscribeRepos) {
			sub.ServeHTTP(w, r)
			return
		}
		n.serveRelay(w, r)
	}))
	t.Cleanup(cancel) // runs first
	u, _ := url.Parse(n.pds.URL)
	n.host = u.Host
	return n
}

// explorer returns a service that looks at the network.
func (n *network) explorer(change ...func(*Config)) *Service {
	n.t.Helper()
	cfg := Config{RelayURL: n.relay.URL, LinksURL: n.links.URL, PLCURL: n.plc.URL, Version: "test", Timeout: 5 * time.Second}
	for _, f := range change {
		f(&cfg)
	}
	w := world.World{Clock: n.clock, Dialer: n.guard, Resolver: n, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler)}
	s, err := New(cfg, w)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { s.Close() })
	return s
}

// run starts Run and ends it with the test.
func (n *network) run(s *Service) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Run(ctx); err != nil {
			n.t.Error(err)
		}
	}()
	n.t.Cleanup(func() { cancel(); <-done })
}

func (n *network) LookupTXT(_ context.Context, name string) ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if did := n.txt[strings.TrimPrefix(name, "_atproto.")]; did != "" {
		return []string{"did=" + did}, nil
	}
	return nil, &net.DNSError{Err: "no such name", Name: name, IsNotFound: true}
}

func (n *network) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// account makes an account. Its document claims the handle and whatever else is given.
func (n *network) account(handle string, aka ...string) *fakeAccount {
	n.t.Helper()
	key, err := keys.Generate(keys.K256, rand.Reader)
	if err != nil {
		n.t.Fatal(err)
	}
	d := plc.AtprotoData(key.Public().DIDKey(), syntax.Handle(handle), n.pds.URL, key.Public().DIDKey())
	d.AlsoKnownAs = append(d.AlsoKnownAs, aka...)
	op := plc.NewOperation(d, cid.CID{})
	if err := op.Sign(key); err != nil {
		n.t.Fatal(err)
	}
	a := &fakeAccount{
		did: string(op.DID()), handle: handle, key: key, data: d, tree: mst.New(), records: map[string][]byte{}, blobs: map[string][]byte{},
		clock:   syntax.NewTIDClock(3),
		entries: []plc.Entry{{DID: op.DID(), Operation: op, CID: op.CID(), CreatedAt: n.now.Add(-time.Hour).UTC().Truncate(time.Millisecond)}},
	}
	n.mu.Lock()
	n.accounts[a.did] = a
	n.order = append(n.order, a.did)
	n.txt[handle] = a.did
	n.mu.Unlock()
	return a
}

// put writes a record given as JSON.
func (n *network) put(a *fakeAccount, path, record string) string {
	n.t.Helper()
	b, err := data.AppendCBOR(nil, []byte(record))
	if err != nil {
		n.t.Fatalf("%s: %v", record[:min(len(record), 200)], err)
	}
	return n.putRaw(a, path, b)
}

func (n *network) putRaw(a *fakeAccount, path string, b []byte) string {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	var since syntax.TID
	if a.commit != nil {
		since = a.commit.Commit.Rev
	}
	if _, err := a.tree.Root(); err != nil {
		n.t.Fatal(err)
	}
	u, tree, err := repo.Apply(a.tree, []repo.Write{{Path: path, Record: b}}, syntax.DID(a.did), a.clock.Next(n.now), a.key)
	if err != nil {
		n.t.Fatal(err)
	}
	a.tree, a.commit = tree, u
	a.records[path] = b
	m := u.Message(since, syntax.NewDatetime(n.now))
	c := stream.NewCommit(&m)
	n.log.add(c)
	return cid.Sum(cid.DagCBOR, b).String()
}

// blob stores a blob and returns its CID.
func (n *network) blob(a *fakeAccount, b []byte) string {
	c := cid.Sum(cid.Raw, b).String()
	n.mu.Lock()
	a.blobs[c] = b
	n.mu.Unlock()
	return c
}

// link tells the link index of a link.
func (n *network) link(subject, collection, path, uri string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.linked[subject] == nil {
		n.linked[subject] = map[string]map[string][]string{}
	}
	if n.linked[subject][collection] == nil {
		n.linked[subject][collection] = map[string][]string{}
	}
	n.linked[subject][collection][path] = append(n.linked[subject][collection][path], uri)
}

func (n *network) fail(w http.ResponseWriter, name string) {
	w.WriteHeader(http.StatusBadRequest)
	answer(w, map[string]any{"error": name, "message": n.errText})
}

func answer(w http.ResponseWriter, v any) {
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	_ = json.NewEncoder(w).Encode(v)
}

func (n *network) servePLC(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	did, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	a := n.accounts[did]
	switch {
	case a == nil:
		http.Error(w, `{"message":"not registered"}`, http.StatusNotFound)
	case rest == "":
		doc := a.data.AppendDocument(nil, syntax.DID(did))
		w.Header().Set("Content-Type", "application/did+ld+json")
		_, _ = w.Write(doc)
	case rest == "log/audit":
		answer(w, a.entries)
	}
}

func (n *network) servePDS(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	q := r.URL.Query()
	id := q.Get("repo") + q.Get("did")
	a := n.accounts[id]
	if a == nil {
		n.fail(w, "RepoNotFound")
		return
	}
	value := func(b []byte) json.RawMessage {
		j, err := data.AppendJSON(nil, b)
		if err != nil {
			return json.RawMessage(`{}`)
		}
		return j
	}
	path := q.Get("collection") + "/" + q.Get("rkey")
	switch strings.TrimPrefix(r.URL.Path, "/xrpc/") {
	case "com.atproto.repo.describeRepo":
		seen := map[string]bool{}
		for p := range a.records {
			c, _, _ := strings.Cut(p, "/")
			seen[c] = true
		}
		names := []string{}
		for c := range seen {
			names = append(names, c)
		}
		answer(w, map[string]any{"did": a.did, "handle": a.handle, "handleIsCorrect": true, "collections": names, "didDoc": map[string]any{}})
	case "com.atproto.repo.listRecords":
		type rec struct {
			URI   string          `json:"uri"`
			CID   string          `json:"cid"`
			Value json.RawMessage `json:"value"`
		}
		paths := []string{}
		for p := range a.records {
			if strings.HasPrefix(p, q.Get("collection")+"/") && (q.Get("cursor") == "" || p < q.Get("collection")+"/"+q.Get("cursor")) {
				paths = append(paths, p)
			}
		}
		slices.Sort(paths)
		slices.Reverse(paths)
		limit := 50
		_, _ = fmt.Sscan(q.Get("limit"), &limit)
		out := map[string]any{}
		if len(paths) > limit {
			paths = paths[:limit]
			_, out["cursor"], _ = strings.Cut(paths[limit-1], "/")
		}
		recs := []rec{}
		for _, p := range paths {
			recs = append(recs, rec{"at://" + a.did + "/" + p, cid.Sum(cid.DagCBOR, a.records[p]).String(), value(a.records[p])})
		}
		out["records"] = recs
		answer(w, out)
	case "com.atproto.repo.getRecord":
		b := a.records[path]
		if b == nil {
			n.fail(w, "RecordNotFound")
			return
		}
		answer(w, map[string]any{"uri": "at://" + a.did + "/" + path, "cid": cid.Sum(cid.DagCBOR, b).String(), "value": value(b)})
	case "com.atproto.sync.getRecord":
		if n.noProof || a.commit == nil {
			n.fail(w, "MethodNotImplemented")
			return
		}
		car, err := repo.MakeProof(a.commit.Block, a.tree, path, a.records[path])
		if err != nil {
			n.fail(w, "RecordNotFound")
			return
		}
		if n.mangle != nil {
			car = n.mangle(car)
		}
		w.Header().Set("Content-Type", "application/vnd.ipld.car")
		_, _ = w.Write(car)
	case "com.atproto.sync.getRepoStatus":
		answer(w, map[string]any{"did": a.did, "active": true, "rev": a.rev()})
	case "com.atproto.sync.getLatestCommit":
		if a.commit == nil {
			n.fail(w, "RepoNotFound")
			return
		}
		answer(w, map[string]any{"cid": a.commit.CommitCID.String(), "rev": a.rev()})
	case "com.atproto.sync.getBlob":
		b, ok := a.blobs[q.Get("cid")]
		if !ok {
			n.fail(w, "BlobNotFound")
			return
		}
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write(b)
	default:
		n.fail(w, "MethodNotImplemented")
	}
}

func (a *fakeAccount) rev() string {
	if a.commit == nil {
		return ""
	}
	return string(a.commit.Commit.Rev)
}

func (n *network) serveRelay(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	q := r.URL.Query()
	switch strings.TrimPrefix(r.URL.Path, "/xrpc/") {
	case "/_status":
		answer(w, map[string]any{"head": n.log.Head(), "floor": 1, "drops": n.drops})
	case "com.atproto.sync.listHosts":
		answer(w, map[string]any{"hosts": []any{map[string]any{"hostname": n.host, "accountCount": len(n.order), "status": "active", "seq": 9}}})
	case "com.atproto.sync.listRepos":
		limit := 500
		_, _ = fmt.Sscan(q.Get("limit"), &limit)
		repos := []any{}
		out := map[string]any{}
		for _, did := range n.order {
			if did <= q.Get("cursor") {
				continue
			}
			if len(repos) == limit {
				out["cursor"] = repos[limit-1].(map[string]any)["did"]
				break
			}
			a := n.accounts[did]
			if a.commit != nil {
				repos = append(repos, map[string]any{"did": did, "head": a.commit.CommitCID.String(), "rev": a.rev(), "active": true})
			}
		}
		out["repos"] = repos
		answer(w, out)
	case "com.atproto.sync.getRepoStatus":
		a := n.accounts[q.Get("did")]
		if a == nil {
			n.fail(w, "RepoNotFound")
			return
		}
		answer(w, map[string]any{"did": a.did, "active": true, "rev": a.rev()})
	case "com.atproto.sync.getLatestCommit":
		a := n.accounts[q.Get("did")]
		if a == nil || a.commit == nil {
			n.fail(w, "RepoNotFound")
			return
		}
		answer(w, map[string]any{"cid": a.commit.CommitCID.String(), "rev": a.rev()})
	default:
		n.fail(w, "MethodNotImplemented")
	}
}

func (n *network) serveLinks(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	q := r.URL.Query()
	collection, path, _ := strings.Cut(q.Get("source"), ":")
	uris := n.linked[q.Get("subject")][collection][path]
	switch r.URL.Path {
	case "/":
		answer(w, map[string]any{"stats": map[string]any{"dids": 2, "targetables": 7, "linking_records": 12345}})
	case "/links/all":
		if n.noAll {
			http.NotFound(w, r)
			return
		}
		out := map[string]map[string]any{}
		for c, paths := range n.linked[q.Get("target")] {
			out[c] = map[string]any{}
			for p, u := range paths {
				out[c]["."+p] = map[string]any{"records": len(u), "distinct_dids": len(u)}
			}
		}
		answer(w, map[string]any{"links": out})
	case "/xrpc/blue.microcosm.links.getBacklinksCount":
		answer(w, map[string]any{"total": len(uris)})
	case "/xrpc/blue.microcosm.links.getBacklinks":
		limit := 16
		_, _ = fmt.Sscan(q.Get("limit"), &limit)
		start := 0
		_, _ = fmt.Sscan(q.Get("cursor"), &start)
		out := map[string]any{"total": len(uris), "cursor": nil}
		recs := []any{}
		for i := start; i < len(uris) && i < start+limit; i++ {
			u, err := syntax.ParseATURI(uris[i])
			if err != nil {
				recs = append(recs, map[string]any{"did": uris[i], "collection": uris[i], "rkey": uris[i]}) // a hostile answer
				continue
			}
			recs = append(recs, map[string]any{"did": u.Authority(), "collection": u.Collection(), "rkey": u.RecordKey()})
		}
		if start+limit < len(uris) {
			out["cursor"] = fmt.Sprint(start + limit)
		}
		out["records"] = recs
		answer(w, out)
	default:
		http.NotFound(w, r)
	}
}

// get asks the explorer for a page.
func get(t *testing.T, s *Service, path string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w.Result()
}

// page asks for a page that must have a status, and checks what must be so of every page.
func page(t *testing.T, s *Service, path string, status int) string {
	t.Helper()
	resp := get(t, s, path)
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != status {
		t.Fatalf("%s: status %d, want %d\n%s", path, resp.StatusCode, status, b)
	}
	checkHTML(t, path, string(b))
	checkHeaders(t, path, resp.Header)
	return string(b)
}

func contains(t *testing.T, html string, want ...string) {
	t.Helper()
	_, main, _ := strings.Cut(html, "<main")
	for _, s := range want {
		if !strings.Contains(html, s) {
			t.Errorf("the page lacks %q\n%.6000s", s, main)
		}
	}
}
