package links

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/reposync"
	"github.com/barograph/baro/reposync/reposynctest"
	"github.com/barograph/baro/stream"
)

func testWorld(allow ...string) world.World {
	w := world.Real(slog.New(slog.DiscardHandler))
	w.FS = vfs.NewMem()
	w.Dialer = netguard.NewDialer(netguard.Options{Allow: allow})
	w.Fatal = func(error) {}
	return w
}

// ask makes a request and returns status and body.
func ask(t testing.TB, h http.Handler, target string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
	return w.Code, w.Body.String()
}

func get(t testing.TB, h http.Handler, target string, out any) {
	t.Helper()
	status, body := ask(t, h, target)
	if status != 200 {
		t.Fatalf("%s: %d %s", target, status, body)
	}
	if err := json.Unmarshal([]byte(body), out); err != nil {
		t.Fatalf("%s: %v in %s", target, err, body)
	}
}

func query(path string, pairs ...string) string {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		q.Add(pairs[i], pairs[i+1])
	}
	return path + "?" + q.Encode()
}

const ns = "/xrpc/blue.microcosm.links."

type page struct {
	Total   uint64
	Records []record
	Cursor  *string
}

// pages collects all pages of backlinks.
func pages(t testing.TB, h http.Handler, limit int, pairs ...string) (uint64, []record) {
	t.Helper()
	var all []record
	base := append([]string{"limit", fmt.Sprint(limit)}, pairs...)
	cursor := ""
	for {
		q := base
		if cursor != "" {
			q = append(slices.Clone(base), "cursor", cursor)
		}
		var p page
		get(t, h, query(ns+"getBacklinks", q...), &p)
		all = append(all, p.Records...)
		if p.Cursor == nil {
			return p.Total, all
		}
		if len(p.Records) != limit {
			t.Fatalf("a page of %d with a cursor, want %d", len(p.Records), limit)
		}
		cursor = *p.Cursor
	}
}

// subject is one thing that is linked to, from one source.
type subject struct{ target, collection, path string }

// subjects reads all of them from the index.
func subjects(t testing.TB, ix *index) []subject {
	t.Helper()
	var out []subject
	r := ix.reader()
	defer r.Close()
	it := r.Iter([]byte{rowCount}, []byte{rowCount + 1})
	defer it.Close()
	for it.Next() {
		k := it.Key()
		n, _, _ := kv.CutUint32(k[len(k)-4:])
		name, err := readName(r, n)
		if err != nil {
			t.Fatal(err)
		}
		target, err := readTarget(r, bytes.Clone(k[1:len(k)-4]))
		if err != nil {
			t.Fatal(err)
		}
		collection, path, _ := strings.Cut(name, ":")
		out = append(out, subject{target, collection, path})
	}
	slices.SortFunc(out, func(a, b subject) int {
		return strings.Compare(a.target+"\n"+a.collection+"\n"+a.path, b.target+"\n"+b.collection+"\n"+b.path)
	})
	return out
}

// listing is all that an index answers.
func listing(t testing.TB, s *Service) string {
	t.Helper()
	h := s.Handler()
	var b strings.Builder
	say := func(target string) {
		status, body := ask(t, h, target)
		fmt.Fprintf(&b, "%s %d %s\n", target, status, body)
	}
	last := ""
	for _, x := range subjects(t, s.ix) {
		source := x.collection + ":" + x.path
		for _, reverse := range []string{"false", "true"} {
			total, all := pages(t, h, 3, "subject", x.target, "source", source, "reverse", reverse)
			fmt.Fprintf(&b, "%v %s %d %v\n", x, reverse, total, all)
		}
		say(query(ns+"getBacklinks", "subject", x.target, "source", source))
		say(query(ns+"getBacklinksCount", "subject", x.target, "source", source))
		say(query(ns+"getBacklinkDids", "subject", x.target, "source", source))
		for _, other := range []string{"reply.root.uri", "reply.parent.uri", "subject.uri", "subject"} {
			say(query(ns+"getManyToMany", "subject", x.target, "source", source, "pathToOther", other))
			say(query(ns+"getManyToManyCounts", "subject", x.target, "source", source, "pathToOther", other))
		}
		legacy := []string{"target", x.target, "collection", x.collection, "path", "." + x.path}
		for _, p := range []string{"/links", "/links/count", "/links/count/distinct-dids", "/links/distinct-dids"} {
			say(query(p, legacy...))
		}
		if x.target != last {
			say(query("/links/all", "target", x.target))
			say(query("/links/all/count", "target", x.target))
			last = x.target
		}
	}
	f, err := readFigures(s.ix.store)
	if err != nil {
		t.Fatal(err)
	}
	f.Started = 0
	fmt.Fprintf(&b, "%+v\n", f)
	return b.String()
}

func tid(n int) string {
	const digits = "234567abcdefghijklmnopqrstuvwxyz"
	return fmt.Sprintf("3lscuqc52%c%c2x", digits[n/32%32], digits[n%32])
}

func like(target string) []byte {
	return reposynctest.Record(fmt.Sprintf(`{"$type":"app.bsky.feed.like","subject":{"uri":%q,"cid":"bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"},"createdAt":"2026-01-01T00:00:00Z"}`, target))
}

func follow(did string) []byte {
	return reposynctest.Record(fmt.Sprintf(`{"$type":"app.bsky.graph.follow","subject":%q,"createdAt":"2026-01-01T00:00:00Z"}`, did))
}

func reply(root, parent, link string) []byte {
	return reposynctest.Record(fmt.Sprintf(`{"$type":"app.bsky.feed.post","text":"hello","createdAt":"2026-01-01T00:00:00Z",`+
		`"facets":[{"index":{"byteStart":0,"byteEnd":2},"features":[{"$type":"app.bsky.richtext.facet#link","uri":%q}]}],`+
		`"reply":{"root":{"uri":%q,"cid":"x"},"parent":{"uri":%q,"cid":"x"}}}`, link, root, parent))
}

// network is a host and an index that follows it.
type network struct {
	testing.TB
	h *reposynctest.Host
	w world.World
	*Service
	cfg    Config
	cancel func() error
}

func newNetwork(t testing.TB) *network {
	h := reposynctest.Start(t, time.Now)
	u, _ := url.Parse(h.URL)
	n := &network{TB: t, h: h, w: testWorld(u.Host)}
	n.cfg = Config{Dir: "links", RelayURL: h.URL, Directory: h.Directory(), Sync: reposync.Options{
		RetryMin: 5 * time.Millisecond, RetryMax: 50 * time.Millisecond, Settle: 10 * time.Millisecond, FetchRate: 10_000,
	}}
	n.open()
	return n
}

func (n *network) open() {
	n.Helper()
	s, err := New(n.cfg, n.w)
	if err != nil {
		n.Fatal(err)
	}
	n.Service = s
	n.Cleanup(func() { _ = s.Close() })
}

func (n *network) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s := n.Service
	go func() { done <- s.Run(ctx) }()
	n.cancel = func() error { cancel(); return <-done }
}

// settle waits until the index has everything.
func (n *network) settle() {
	n.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		st, err := n.Status()
		if err != nil {
			n.Fatal(err)
		}
		if st.Sync != nil && st.Sync.Settled() && st.Sync.Cursor >= n.h.Head() {
			return
		}
		if time.Now().After(deadline) {
			n.Fatalf("%+v %+v", st, st.Sync)
		}
	}
}

func (n *network) count(target, source string) uint64 {
	n.Helper()
	var out totalOnly
	get(n, n.Handler(), query(ns+"getBacklinksCount", "subject", target, "source", source), &out)
	return out.Total
}

func TestNetwork(t *testing.T) {
	n := newNetwork(t)
	alice, bob := n.h.Account("alice"), n.h.Account("bob")
	post := "at://" + string(alice.DID) + "/app.bsky.feed.post/" + tid(1)
	alice.Put("app.bsky.feed.post/"+tid(1), reply("at://did:web:x.example/app.bsky.feed.post/self", post, "https://example.com/a?b=c"))
	bob.Put("app.bsky.feed.like/"+tid(2), like(post))
	bob.Put("app.bsky.graph.follow/"+tid(3), follow(string(alice.DID)))
	alice.Put("app.bsky.feed.like/"+tid(4), like(post))
	n.run()
	n.settle()
	const likes = "app.bsky.feed.like:subject.uri"
	if c := n.count(post, likes); c != 2 {
		t.Fatalf("%d likes", c)
	}
	status, body := ask(t, n.Handler(), query(ns+"getBacklinks", "subject", post, "source", likes))
	want := fmt.Sprintf(`{"total":2,"records":[{"did":%q,"collection":"app.bsky.feed.like","rkey":%q},{"did":%q,"collection":"app.bsky.feed.like","rkey":%q}],"cursor":null}`,
		alice.DID, tid(4), bob.DID, tid(2))
	if status != 200 || body != want {
		t.Errorf("%d %s\nwant %s", status, body, want)
	}
	if c := n.count("https://example.com/a?b=c", "app.bsky.feed.post:facets[].features[app.bsky.richtext.facet#link].uri"); c != 1 {
		t.Errorf("%d links to the URL", c)
	}
	if _, body := ask(t, n.Handler(), query("/links/all", "target", post)); body != `{"links":{"app.bsky.feed.like":{".subject.uri":{"records":2,"distinct_dids":2}},"app.bsky.feed.post":{".reply.parent.uri":{"records":1,"distinct_dids":1}}}}` {
		t.Errorf("%s", body)
	}
	if _, body := ask(t, n.Handler(), query(ns+"getManyToMany", "subject", post, "source", "app.bsky.feed.post:reply.parent.uri", "pathToOther", "reply.root.uri")); body !=
		fmt.Sprintf(`{"items":[{"linkRecord":{"did":%q,"collection":"app.bsky.feed.post","rkey":%q},"otherSubject":"at://did:web:x.example/app.bsky.feed.post/self"}],"cursor":null}`, alice.DID, tid(1)) {
		t.Errorf("%s", body)
	}

	bob.Put("app.bsky.feed.like/"+tid(2), like("at://"+string(bob.DID)+"/app.bsky.feed.post/x")) // now of something else
	n.h.Redeliver(2)
	n.settle()
	if c := n.count(post, likes); c != 1 {
		t.Errorf("%d likes after an update", c)
	}
	alice.SetStatus(stream.StatusDeactivated)
	n.settle()
	if c := n.count(post, likes); c != 0 {
		t.Errorf("%d likes of an inactive account", c)
	}
	alice.SetStatus("")
	alice.Put("app.bsky.feed.like/"+tid(9), like(post))
	n.settle()
	if c := n.count(post, likes); c != 2 {
		t.Errorf("%d likes after the return", c)
	}
	bob.SetStatus(stream.StatusDeleted)
	n.settle()
	if c := n.count(string(alice.DID), "app.bsky.graph.follow:subject"); c != 0 {
		t.Errorf("%d follows of a deleted account", c)
	}

	before := listing(t, n.Service)
	if err := n.cancel(); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n.open()
	if after := listing(t, n.Service); after != before {
		t.Errorf("another index after a restart:\n%s\nwas\n%s", after, before)
	}
	n.h.Trim()
	if err := n.Rebuild(context.Background()); err != nil {
		t.Fatal(err)
	}
	if after := listing(t, n.Service); after != before {
		t.Errorf("another index after a rebuild:\n%s\nwas\n%s", after, before)
	}
}

// TestPowerLoss takes away what was not synced while the index works, goes on from what is left, and compares the outcome with
// a rebuild.
func TestPowerLoss(t *testing.T) {
	n := newNetwork(t)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	fs := vfs.NewCrashableMem()
	n.w.FS = fs
	n.open()
	n.run()
	var accounts []*reposynctest.Account
	for i := range 5 {
		accounts = append(accounts, n.h.Account(fmt.Sprint("p", i)))
	}
	target := func(i int) string {
		return "at://" + string(accounts[i%5].DID) + "/app.bsky.feed.post/" + tid(i%7)
	}
	var left []vfs.FS
	every := 15
	if testing.Short() {
		every = 60
	}
	for i := range 150 {
		a := accounts[i*i%5]
		path := "app.bsky.feed.like/" + tid(i%40)
		switch {
		case i%31 == 30 && a.Active():
			a.SetStatus(stream.StatusDeactivated)
		case !a.Active():
			a.SetStatus("")
		case i%3 == 2 && a.Has(path):
			a.Delete(path)
		case i%17 == 16:
			a.Put("app.bsky.feed.post/"+tid(i%7), reply(target(i), target(i+1), "https://example.com/"+fmt.Sprint(i%4)))
		default:
			a.Put(path, like(target(i)))
		}
		if i%every == every-1 {
			left = append(left, fs.CrashClone(vfs.CrashCloneCfg{}))
		}
	}
	for _, a := range accounts {
		a.SetStatus("")
	}
	n.settle()
	want := listing(t, n.Service)
	if err := n.cancel(); err != nil {
		t.Fatal(err)
	}
	for i, fs := range left {
		n.w.FS = fs
		n.open()
		n.run()
		n.settle()
		if got := listing(t, n.Service); got != want {
			t.Errorf("crash %d: another index:\n%s\nwant\n%s", i, got, want)
		}
		if err := n.cancel(); err != nil {
			t.Fatal(err)
		}
		if i == len(left)-1 {
			if err := n.Rebuild(context.Background()); err != nil {
				t.Fatal(err)
			}
			if got := listing(t, n.Service); got != want {
				t.Errorf("another index after a rebuild:\n%s\nwant\n%s", got, want)
			}
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestHTTP(t *testing.T) {
	w := testWorld()
	s, err := New(Config{Memory: true, RelayURL: "http://127.0.0.1:1", PublicURL: "https://links.example", Version: "v"}, w)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	did := string(reposynctest.DID("alice"))
	const source = "app.bsky.feed.like:subject.uri"
	many := []string{"subject", did, "source", source}
	for range MaxDIDs + 1 {
		many = append(many, "did", did)
	}
	for _, c := range []struct {
		target string
		status int
		body   string // part of it
	}{
		{query(ns+"getBacklinks", "subject", did, "source", source), 200, `{"total":0,"records":[],"cursor":null}`},
		{query(ns+"getBacklinks", "subject", "anything", "source", source), 200, `{"total":0,`},
		{query(ns+"getBacklinks", "subject", did, "source", source, "did", did), 200, `{"total":0,"records":[],"cursor":null}`},
		{query(ns+"getBacklinkDids", "subject", did, "source", source), 200, `{"total":0,"linking_dids":[],"cursor":null}`},
		{query(ns+"getBacklinksCount", "subject", did, "source", source), 200, `{"total":0}`},
		{query(ns+"getManyToMany", "subject", did, "source", source, "pathToOther", "x"), 200, `{"items":[],"cursor":null}`},
		{query(ns+"getManyToManyCounts", "subject", did, "source", source, "pathToOther", "x"), 200, `{"counts_by_other_subject":[],"cursor":null}`},
		{query("/links", "target", did, "collection", "a.b.c", "path", ".x"), 200, `{"total":0,"linking_records":[],"cursor":null}`},
		{query("/links/count", "target", did, "collection", "a.b.c", "path", ".x"), 200, `{"total":0}`},
		{query("/links/count/distinct-dids", "target", did, "collection", "a.b.c", "path", ".x"), 200, `{"total":0}`},
		{query("/links/distinct-dids", "target", did, "collection", "a.b.c", "path", ".x"), 200, `{"total":0,"linking_dids":[],"cursor":null}`},
		{query("/links/all", "target", did), 200, `{"links":{}}`},
		{query("/links/all/count", "target", did), 200, `{"links":{}}`},
		{"/_health", 200, `{"version":"v"}`},
		{"/_status", 200, `"running":false`},
		{"/", 200, `"linking_records":0`},
		{"/robots.txt", 200, "Disallow: /links"},
		{"/.well-known/did.json", 200, `"id":"did:web:links.example","service":[{"id":"#constellation","type":"ConstellationGraphService"`},

		{ns + "getBacklinks", 400, `"error":"InvalidRequest"`},
		{query(ns+"getBacklinks", "subject", did), 400, "source"},
		{query(ns+"getBacklinks", "subject", did, "source", "x"), 400, "source"},
		{query(ns+"getBacklinks", "subject", did, "source", "not a nsid:x"), 400, "source"},
		{query(ns+"getBacklinks", "subject", did, "subject", did, "source", source), 400, "more than once"},
		{query(ns+"getBacklinks", "subject", did, "source", source, "limit", "0"), 400, "limit"},
		{query(ns+"getBacklinks", "subject", did, "source", source, "limit", "1001"), 400, "limit"},
		{query(ns+"getBacklinks", "subject", did, "source", source, "limit", "x"), 400, "limit"},
		{query(ns+"getBacklinks", "subject", did, "source", source, "reverse", "maybe"), 400, "reverse"},
		{query(ns+"getBacklinks", "subject", did, "source", source, "cursor", "zz"), 400, "cursor"},
		{query(ns+"getBacklinks", "subject", did, "source", source, "cursor", "00"), 400, "cursor"},
		{query(ns+"getBacklinks", "subject", did, "source", source, "did", "bob"), 400, "DID"},
		{query(ns+"getBacklinks", many...), 400, "100 times"},
		{query(ns+"getBacklinks", "subject", strings.Repeat("x", 9000), "source", source), 400, "longer"},
		{query(ns+"getBacklinkDids", "subject", did, "source", source, "cursor", "0102"), 400, "cursor"},
		{query(ns+"getManyToMany", "subject", did, "source", source), 400, "pathToOther"},
		{query("/links", "target", did, "collection", "a.b.c", "path", "x"), 400, "dot"},
		{query("/links", "target", did, "collection", "a.b.c", "path", ".x", "did", did, "from_dids", did), 400, "exclude"},
		{"/links?target=%zz", 400, "malformed"},
		{"/links?" + strings.Repeat("a", maxQuery+1), 400, "longer"},
		{ns + "getNothing", 501, "MethodNotImplemented"},
		{"/nothing", 404, "NotFound"},
	} {
		status, body := ask(t, s.Handler(), c.target)
		if status != c.status || !strings.Contains(body, c.body) {
			t.Errorf("%s: %d %s, want %d %s", c.target[:min(len(c.target), 200)], status, body, c.status, c.body)
		}
		if status >= 400 && !strings.Contains(body, `"message"`) {
			t.Errorf("%s: no message: %s", c.target[:min(len(c.target), 200)], body)
		}
	}
	w2 := httptest.NewRecorder()
	s.Handler().ServeHTTP(w2, httptest.NewRequest(http.MethodPost, ns+"getBacklinks", nil))
	if w2.Code != 405 || w2.Header().Get("Allow") == "" || w2.Header().Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("POST: %d %v", w2.Code, w2.Header())
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Accept", "text/html,*/*")
	w2 = httptest.NewRecorder()
	s.Handler().ServeHTTP(w2, r)
	if w2.Code != 200 || !strings.HasPrefix(w2.Body.String(), "<!doctype html>") || w2.Header().Get("Content-Security-Policy") == "" {
		t.Errorf("HTML: %d %v", w2.Code, w2.Header())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if status, _ := ask(t, s.Handler(), query(ns+"getBacklinksCount", "subject", did, "source", source)); status != 503 {
		t.Errorf("a closed index answers %d", status)
	}
}

func TestSecondInstance(t *testing.T) {
	w := testWorld()
	s, err := New(Config{Dir: "d", RelayURL: "http://127.0.0.1:1"}, w)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := New(Config{Dir: "d", RelayURL: "http://127.0.0.1:1"}, w); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("the second index on one folder: %v", err)
	}
}

func TestExtract(t *testing.T) {
	for _, c := range []struct{ json, want string }{
		{`{"$type":"a.b.c"}`, ``},
		{`{"$type":"a.b.c","x":"did:plc:abc","y":["https://e.example/","no"],"z":[{"$type":"a.b#d","u":"at://h.example"},{"u":"mailto:x"}]}`,
			`x did:plc:abc|y[] https://e.example/|z[a.b#d].u at://h.example|z[].u mailto:x`},
		{`{"$type":"a.b.c","l":["https://e.example","https://e.example"]}`, `l[] https://e.example`},
		{`{"$type":"a.b.c","t":"see https://e.example","u":"12:30","v":":x","w":"a: b","q":""}`, ``},
		{`{"$type":"a.b.c","a":[["did:web:e.example"]],"b":{"c":{"d":"at://did:plc:x/a.b.c/r#f"}}}`, `a[][] did:web:e.example|b.c.d at://did:plc:x/a.b.c/r#f`},
	} {
		var got []string
		for _, f := range extract(reposynctest.Record(c.json)) {
			got = append(got, f.path+" "+f.target)
		}
		if s := strings.Join(got, "|"); s != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.json, s, c.want)
		}
	}
	if got := extract([]byte{0xa1, 0x61, 0x78, 0x6b, 'd', 'i', 'd', ':', 'p', 'l', 'c', ':', 'a', 'b', 'c', 0}); got != nil {
		t.Errorf("an invalid record links to %v", got)
	}
}

func FuzzExtract(f *testing.F) {
	f.Add(like("at://did:plc:abc/a.b.c/d"))
	f.Add(reply("https://a.example", "did:web:a.example", "x:y"))
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, l := range extract(b) {
			if l.target == "" || len(l.path) > MaxPath {
				t.Errorf("%+v", l)
			}
		}
	})
}

// FuzzTarget checks that a target comes back as it was, for whatever string.
func FuzzTarget(f *testing.F) {
	for _, s := range []string{"", "did:plc:ewvi7nxzyoun6zhxrhs64oiz", "did:web:a.example", "at://did:plc:abc", "at://did:plc:abc/", "at://did:plc:abc/a.b.c",
		"at://did:plc:abc/a.b.c/3lscuqc52or2x", "at://did:plc:abc/a.b.c/self", "at://h.example/a.b.c/self", "https://e.example", "at://did:plc:abc/a.B.c/self?x", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		store := kv.NewMem()
		defer store.Close()
		ix, err := openIndex(store, 0)
		if err != nil {
			t.Fatal(err)
		}
		w := ix.writer()
		defer w.close()
		target, err := w.target(s)
		if err != nil {
			t.Fatal(err)
		}
		if target[0] == targetHash {
			w.b.Set(append([]byte{rowURI}, target[1:]...), []byte(s))
		}
		if err := w.commit(); err != nil {
			t.Fatal(err)
		}
		if back, err := readTarget(store, target); err != nil || back != s {
			t.Errorf("%q came back as %q, %v", s, back, err)
		}
		if found, err := lookupTarget(store, s); err != nil || !bytes.Equal(found, target) {
			t.Errorf("%q: found %x, %v, want %x", s, found, err, target)
		}
	})
}

func FuzzPlace(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 1, didPLC, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
	f.Add(appendPlace(nil, appendDID(nil, "did:web:e.example"), "self"))
	f.Fuzz(func(t *testing.T, p []byte) {
		did, rkey, ok := cutPlace(p)
		if !ok {
			return
		}
		if turned := turnPlace(nil, p); !bytes.Equal(unturnPlace(nil, turned), p) {
			t.Errorf("%x turned to %x", p, turned)
		}
		_, _ = did, rkey
	})
}

func TestDIDOrder(t *testing.T) {
	var dids []string
	for i := range 200 {
		dids = append(dids, string(reposynctest.DID(fmt.Sprint(i))))
	}
	slices.Sort(dids)
	dids = append(dids, "did:plc:short", "did:web:a.example", "did:web:a.example:b", "did:web:b.example")
	var last []byte
	for _, d := range dids {
		k := appendDID(nil, d)
		if back, rest, ok := cutDID(append(slices.Clone(k), 7)); !ok || back != d || len(rest) != 1 || didSize(append(slices.Clone(k), 7)) != len(k) {
			t.Errorf("%s came back as %s, %x, %v", d, back, rest, ok)
		}
		if bytes.Compare(last, k) >= 0 {
			t.Errorf("%s isn't after its predecessor", d)
		}
		last = k
	}
	if m := maps.Collect(slices.All(dids)); len(m) != len(dids) {
		t.Error("not all different")
	}
}
