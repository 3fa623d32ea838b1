package pds

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// testPDS is a service behind a real HTTP server.
type testPDS struct {
	*Service
	t    testing.TB
	URL  string
	http *httptest.Server
}

type testAccount struct {
	p     *testPDS
	did   syntax.DID
	key   *keys.PrivateKey
	token string
}

func testWorld(seed byte) world.World {
	w := world.Real(slog.New(slog.DiscardHandler))
	w.FS = vfs.NewMem()
	w.Rand = &lockedRand{r: mrand.NewChaCha8([32]byte{seed})}
	w.Fatal = func(error) {}
	w.Resolver = &fakeDNS{}
	return w
}

type lockedRand struct {
	mu chan struct{}
	r  *mrand.ChaCha8
}

func (l *lockedRand) Read(b []byte) (int, error) { return l.r.Read(b) }

func startPDS(t testing.TB, w world.World, cfg Config) *testPDS {
	t.Helper()
	p := openPDS(t, w, cfg)
	t.Cleanup(func() { p.stop() })
	return p
}

func openPDS(t testing.TB, w world.World, cfg Config) *testPDS {
	t.Helper()
	if cfg.PublicURL == "" {
		cfg.PublicURL = "http://localhost:2583"
	}
	if cfg.Dir == "" {
		cfg.Dir = "data"
	}
	cfg.HandleDomains = []string{".test"}
	s, err := New(cfg, w)
	if err != nil {
		t.Fatal(err)
	}
	p := &testPDS{Service: s, t: t}
	p.http = httptest.NewServer(s.Handler())
	p.URL = p.http.URL
	return p
}

func (p *testPDS) stop() {
	p.http.CloseClientConnections()
	if err := p.Close(); err != nil {
		p.t.Errorf("closing: %v", err)
	}
	p.http.Close()
}

// account makes an account past sign-up: the engine's side of it, and a session.
func (p *testPDS) account(name string) *testAccount {
	p.t.Helper()
	seed := [32]byte{}
	copy(seed[:], name)
	key, err := keys.Generate(keys.K256, mrand.NewChaCha8(seed))
	if err != nil {
		p.t.Fatal(err)
	}
	sum := cid.Sum(cid.Raw, []byte(name)).String()
	return p.accountWith(syntax.DID("did:plc:"+sum[len(sum)-24:]), syntax.Handle(name+".test"), key, true)
}

func (p *testPDS) accountWith(did syntax.DID, handle syntax.Handle, key *keys.PrivateKey, active bool) *testAccount {
	p.t.Helper()
	a := &account{
		DID: did, Handle: handle, Key: p.accounts.secrets.seal([]byte(key.Multikey()), "signing key of "+string(did)),
		PublicKey: key.Public().DIDKey(), Created: p.world.Clock.Now(), Activated: active,
	}
	c := accountChange{Ops: a.put, Identity: active, Handle: handle, Account: active, Sync: active}
	if !active {
		c.Status = hostingDeactivated
	}
	if err := p.createRepo(context.Background(), did, key, c); err != nil {
		p.t.Fatal(err)
	}
	return p.login(did, key)
}

func (p *testPDS) login(did syntax.DID, key *keys.PrivateKey) *testAccount {
	p.t.Helper()
	tok, rows, err := p.newSession(did, scopeAccess)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.write(context.Background(), rows); err != nil {
		p.t.Fatal(err)
	}
	return &testAccount{p: p, did: did, key: key, token: tok.access}
}

// answerOf is what a call came to.
type answerOf struct {
	Status int
	Name   string // error name
	JSON   map[string]any
	Body   []byte
	Header http.Header
}

func (a answerOf) str(key string) string {
	v, _ := a.JSON[key].(string)
	return v
}

func (a answerOf) commit() (c, rev string) {
	m, _ := a.JSON["commit"].(map[string]any)
	c, _ = m["cid"].(string)
	rev, _ = m["rev"].(string)
	return c, rev
}

func (p *testPDS) do(method, path, token, contentType string, body io.Reader) answerOf {
	p.t.Helper()
	req, err := http.NewRequest(method, p.URL+"/xrpc/"+path, body)
	if err != nil {
		p.t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	out := answerOf{Status: resp.StatusCode, Header: resp.Header}
	if out.Body, err = io.ReadAll(resp.Body); err != nil {
		p.t.Fatalf("%s: %v", path, err)
	}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") && len(out.Body) > 0 {
		if err := json.Unmarshal(out.Body, &out.JSON); err != nil {
			p.t.Fatalf("%s: %v in %q", path, err, out.Body)
		}
	}
	if out.Status/100 != 2 {
		out.Name = out.str("error")
	}
	return out
}

func (p *testPDS) get(path string) answerOf {
	p.t.Helper()
	return p.do(http.MethodGet, path, "", "", nil)
}

// post calls a procedure with a JSON body; fields are pairs of name and value.
func (a *testAccount) post(nsid string, fields map[string]any) answerOf {
	a.p.t.Helper()
	b, err := json.Marshal(fields)
	if err != nil {
		a.p.t.Fatal(err)
	}
	return a.p.do(http.MethodPost, nsid, a.token, "application/json", bytes.NewReader(b))
}

func (a *testAccount) create(collection, rkey string, record map[string]any) answerOf {
	a.p.t.Helper()
	in := map[string]any{"repo": a.did, "collection": collection, "record": record}
	if rkey != "" {
		in["rkey"] = rkey
	}
	return a.post("com.atproto.repo.createRecord", in)
}

func (a *testAccount) post1(text string) map[string]any {
	return map[string]any{"$type": "app.bsky.feed.post", "text": text, "createdAt": "2026-01-02T03:04:05.678Z"}
}

func want(t testing.TB, a answerOf, status int, name string) {
	t.Helper()
	if a.Status != status || a.Name != name {
		t.Fatalf("got %d %s, want %d %s: %s", a.Status, a.Name, status, name, a.Body)
	}
}

// frames reads all events of the log.
func (p *testPDS) frames() []stream.Message {
	p.t.Helper()
	var out []stream.Message
	next := p.log.Floor()
	for next <= p.log.Head() {
		events, err := p.log.Read(context.Background(), next, 100)
		if err != nil {
			p.t.Fatal(err)
		}
		for _, e := range events {
			f, err := stream.ParseFrame(e.Frame)
			if err != nil {
				p.t.Fatalf("event %d: %v", e.Seq, err)
			}
			m, err := f.Message()
			if err != nil {
				p.t.Fatalf("event %d: %v", e.Seq, err)
			}
			if m.Sequence() != e.Seq {
				p.t.Fatalf("event %d says that it is %d", e.Seq, m.Sequence())
			}
			out = append(out, m)
			next = e.Seq + 1
		}
	}
	return out
}

// checkRepo exports a repository over HTTP, verifies it with the walker, which shares no code with the store, and returns its records.
// The file has to be in streamable order.
func (p *testPDS) checkRepo(did syntax.DID, key *keys.PublicKey) (map[string]cid.CID, *repo.Commit) {
	p.t.Helper()
	a := p.get("com.atproto.sync.getRepo?did=" + string(did))
	want(p.t, a, 200, "")
	return readRepo(p.t, a.Body, key)
}

func readRepo(t testing.TB, body []byte, key *keys.PublicKey) (map[string]cid.CID, *repo.Commit) {
	t.Helper()
	r, err := car.NewReader(bytes.NewReader(body), car.Options{})
	if err != nil {
		t.Fatal(err)
	}
	next := func(c cid.CID) []byte {
		t.Helper()
		got, b, err := r.Next()
		if err != nil {
			t.Fatalf("want block %s: %v", c, err)
		}
		if got != c {
			t.Fatalf("block %s where %s should be: not in streamable order", got, c)
		}
		return b
	}
	commit, err := repo.DecodeCommit(next(r.Roots()[0]))
	if err != nil {
		t.Fatal(err)
	}
	if err := commit.Verify(key); err != nil {
		t.Fatal(err)
	}
	records := map[string]cid.CID{}
	w := mst.NewWalker(commit.Data, repo.CheckPath)
	for {
		switch step := w.Next(); step.Kind {
		case mst.StepNode:
			if err := w.Node(next(step.CID)); err != nil {
				t.Fatal(err)
			}
		case mst.StepRecord:
			path, c := string(step.Key), step.CID
			next(c)
			records[path] = c
		case mst.StepDone:
			if _, _, err := r.Next(); err != io.EOF {
				t.Fatalf("something follows the last block: %v", err)
			}
			return records, commit
		}
	}
}

// checkStore compares every row of a generation with the tree: nothing is missing, nothing is left over.
func (p *testPDS) checkStore(did syntax.DID) {
	p.t.Helper()
	head, err := loadHead(p.store, did)
	if err != nil || head == nil {
		p.t.Fatalf("head of %s: %v", did, err)
	}
	blocks, records, index := 0, 0, 0
	nodes := map[cid.CID][]byte{}
	lo, hi := genRange(tableBlock, head.Gen)
	it := p.store.Iter(lo, hi)
	for ok := it.First(); ok; ok = it.Next() {
		blocks++
		_, c, block, err := splitBlock(it.Value())
		if err != nil {
			p.t.Fatal(err)
		}
		if !c.Verify(block) {
			p.t.Fatalf("block %s does not hash to its CID", c)
		}
		if _, layer, err := splitBlockKey(it.Key()); err != nil {
			p.t.Fatal(err)
		} else if layer >= 0 {
			nodes[c] = append([]byte(nil), block...)
			continue
		}
		records++
		if _, err := p.store.Get(byCIDKey(c, it.Key())); err != nil {
			p.t.Fatalf("record %s is not in the index: %v", c, err)
		}
	}
	it.Close()
	lo, hi = genRange(tableByCID, head.Gen)
	it = p.store.Iter(lo, hi)
	for ok := it.First(); ok; ok = it.Next() {
		index++
	}
	it.Close()
	if records != index {
		p.t.Fatalf("%d records, %d index entries", records, index)
	}
	w := mst.NewWalker(head.Data, repo.CheckPath)
	n := 0
	for step := w.Next(); step.Kind != mst.StepDone; step = w.Next() {
		n++
		if step.Kind == mst.StepNode {
			b := nodes[step.CID]
			if b == nil {
				p.t.Fatalf("node %s is missing", step.CID)
			}
			if err := w.Node(b); err != nil {
				p.t.Fatal(err)
			}
		}
	}
	if n != blocks {
		p.t.Fatalf("%d blocks in the tree, %d in the store", n, blocks)
	}
}

var (
	_ = fmt.Sprint
	_ = time.Second
	_ data.Raw
	_ kv.Store
)
