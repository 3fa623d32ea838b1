package directory

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/fixtures"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/syntax"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

type server struct {
	t     *testing.T
	s     *Service
	web   *httptest.Server
	clock *world.Manual
	world world.World
}

func start(t *testing.T, cfg Config) *server {
	t.Helper()
	w := world.Real(slog.New(slog.DiscardHandler))
	clock := world.NewManual(epoch)
	w.Clock = clock
	w.FS = vfs.NewMem()
	if cfg.Dir == "" {
		cfg.Memory = true
	}
	return open(t, cfg, w, clock)
}

func open(t *testing.T, cfg Config, w world.World, clock *world.Manual) *server {
	t.Helper()
	s, err := New(cfg, w)
	if err != nil {
		t.Fatal(err)
	}
	d := &server{t: t, s: s, web: httptest.NewServer(s.Handler()), clock: clock, world: w}
	t.Cleanup(d.close)
	return d
}

func (d *server) close() {
	if err := d.s.Close(); err != nil {
		d.t.Error(err)
	}
	d.web.Close()
}

// get returns status and body; a status of 200 is demanded if the caller asks for the body only.
func (d *server) get(path string) (int, string) {
	d.t.Helper()
	r, err := http.Get(d.web.URL + path)
	if err != nil {
		d.t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

func (d *server) body(path string) string {
	d.t.Helper()
	status, b := d.get(path)
	if status != 200 {
		d.t.Fatalf("GET %s: %d %s", path, status, b)
	}
	return b
}

func (d *server) send(did syntax.DID, body []byte) (int, string) {
	r, err := http.Post(d.web.URL+"/"+url.PathEscape(string(did)), "application/json", bytes.NewReader(body))
	if err != nil {
		d.t.Error(err)
		return 0, ""
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	return r.StatusCode, string(b)
}

func (d *server) post(did syntax.DID, op *plc.Operation) {
	d.t.Helper()
	d.refuse(200, did, op)
}

func (d *server) refuse(want int, did syntax.DID, op *plc.Operation) {
	d.t.Helper()
	if status, b := d.send(did, op.AppendJSON(nil)); status != want {
		d.t.Fatalf("POST: %d %s, want %d", status, b, want)
	}
}

func (d *server) audit(did syntax.DID) []plc.Entry {
	d.t.Helper()
	var log []plc.Entry
	if err := json.Unmarshal([]byte(d.body("/"+string(did)+"/log/audit")), &log); err != nil {
		d.t.Fatal(err)
	}
	if _, _, err := plc.Verify(did, log); err != nil {
		d.t.Errorf("audit log: %v", err)
	}
	return log
}

// identity signs operations with keys of falling strength.
type identity struct {
	t    *testing.T
	keys []*keys.PrivateKey
	data plc.Data
}

func newIdentity(t *testing.T, seed int) *identity {
	id := &identity{t: t}
	var rotation []string
	for i := range 3 {
		k, err := keys.Generate([]keys.Curve{keys.K256, keys.P256}[i%2], rand.NewChaCha8([32]byte{byte(i), byte(seed), byte(seed >> 8)}))
		if err != nil {
			t.Fatal(err)
		}
		id.keys = append(id.keys, k)
		rotation = append(rotation, k.Public().DIDKey())
	}
	id.data = plc.AtprotoData(rotation[2], "alice.test", "https://pds.test", rotation...)
	return id
}

func (id *identity) sign(op *plc.Operation, key int) *plc.Operation {
	if err := op.Sign(id.keys[key]); err != nil {
		id.t.Fatal(err)
	}
	return op
}

func (id *identity) genesis() *plc.Operation { return id.update(cid.CID{}, "alice.test", 2) }

func (id *identity) update(prev cid.CID, handle syntax.Handle, key int) *plc.Operation {
	data := id.data.Clone()
	data.SetHandle(handle)
	return id.sign(plc.NewOperation(data, prev), key)
}

func TestLifeOfAnIdentity(t *testing.T) {
	d := start(t, Config{Version: "1.2.3"})
	id := newIdentity(t, 1)
	g := id.genesis()
	did := g.DID()
	if status, b := d.get("/" + string(did)); status != 404 || !strings.Contains(b, "DID not registered: "+string(did)) {
		t.Error(status, b)
	}
	d.post(did, g)
	r, err := http.Get(d.web.URL + "/" + url.QueryEscape(string(did)))
	if err != nil {
		t.Fatal(err)
	}
	doc, _ := io.ReadAll(r.Body)
	r.Body.Close()
	if ct := r.Header.Get("Content-Type"); !strings.HasPrefix(ct, "application/did+ld+json") || r.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Error(ct, r.Header)
	}
	if want := string(id.data.AppendDocument(nil, did)); string(doc) != want {
		t.Errorf("document %s, want %s", doc, want)
	}
	if got, want := d.body("/"+string(did)+"/data"), string(id.data.AppendJSON(nil, did)); got != want {
		t.Errorf("data %s, want %s", got, want)
	}
	u := id.update(g.CID(), "bob.test", 1)
	d.clock.Advance(time.Minute)
	d.post(did, u)
	if got, want := d.body("/"+string(did)+"/log/last"), string(u.AppendJSON(nil)); got != want {
		t.Errorf("last %s, want %s", got, want)
	}
	if got, want := d.body("/"+string(did)+"/log"), "["+string(g.AppendJSON(nil))+","+string(u.AppendJSON(nil))+"]"; got != want {
		t.Errorf("log %s, want %s", got, want)
	}
	stone := id.sign(plc.NewTombstone(u.CID()), 2)
	d.post(did, stone)
	for _, p := range []string{"", "/data"} {
		if status, b := d.get("/" + string(did) + p); status != 404 || !strings.Contains(b, "DID not available") {
			t.Error(p, status, b)
		}
	}
	if got := d.body("/" + string(did) + "/log/last"); got != string(stone.AppendJSON(nil)) {
		t.Error(got)
	}
	d.refuse(400, did, id.update(stone.CID(), "x.test", 0))
	d.clock.Advance(time.Hour)
	d.post(did, id.update(u.CID(), "back.test", 0)) // a stronger key undoes the tombstone
	if log := d.audit(did); len(log) != 4 || !log[2].Nullified || log[3].Nullified {
		t.Error(log)
	}
	if b := d.body("/" + string(did)); !strings.Contains(b, "at://back.test") {
		t.Error(b)
	}
	if b := d.body("/_health"); b != `{"version":"1.2.3"}` {
		t.Error(b)
	}
}

func TestRefusals(t *testing.T) {
	d := start(t, Config{})
	id, other := newIdentity(t, 1), newIdentity(t, 2)
	g := id.genesis()
	did := g.DID()
	d.refuse(400, other.genesis().DID(), g)
	d.refuse(400, did, other.sign(id.genesis(), 0))
	d.refuse(400, did, id.sign(plc.NewTombstone(g.CID()), 0))
	d.refuse(400, "did:web:example.com", g)
	d.refuse(400, "did:plc:short", g)
	d.post(did, g)
	d.refuse(400, did, g)
	d.refuse(400, did, other.update(g.CID(), "x.test", 0))
	d.refuse(400, did, id.update(cid.Sum(cid.DagCBOR, nil), "x.test", 0))
	big := id.data.Clone()
	big.AlsoKnownAs = make([]string, 11)
	d.refuse(400, did, id.sign(plc.NewOperation(big, g.CID()), 0))
	if log := d.audit(did); len(log) != 1 {
		t.Error("a refused operation was stored")
	}
}

func TestHostileRequests(t *testing.T) {
	d := start(t, Config{})
	id := newIdentity(t, 1)
	g := id.genesis()
	did := g.DID()
	for body, want := range map[string]int{
		"": 400, "{": 400, "null": 400, "[]": 400, "\xff": 400,
		strings.Repeat("[", 60_000):                     400,
		strings.Repeat(`{"services":`, 5_000):           400,
		strings.Repeat(" ", maxBody) + "{}":             413,
		string(g.AppendJSON(nil)) + "{}":                400,
		strings.Repeat(`{"a":1}`, 9000):                 400,
		`{"sig":"` + strings.Repeat("A", 60_000) + `"}`: 400,
		strings.Replace(string(g.AppendJSON(nil)), `"prev":null`, `"prev":null,"prev":null`, 1): 400,
	} {
		status, b := d.send(did, []byte(body))
		var e struct{ Error, Message string }
		if status != want || json.Unmarshal([]byte(b), &e) != nil || e.Error == "" || e.Message == "" {
			t.Errorf("%.40q: %d %s, want %d", body, status, b, want)
		}
	}
	for path, want := range map[string]int{
		"/x": 404, "/did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/log": 404, "/did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/log/audit": 404,
		"/did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/log/last": 404, "/did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/data": 404, "/a/b/c/d": 404,
		"/" + strings.Repeat("a", 5000): 404, "/did:plc:%00%ff": 404, "/did:web:example.com": 404,
		"/export?count=0": 400, "/export?count=-1": 400, "/export?count=x": 400, "/export?after=x": 400, "/export?after=-1": 400,
		"/export?after=99999999999999999999": 400, "/export?count=99999999999999999999": 200, "/export?after=2026-01-01": 200,
		"/export/stream": 426, "/": 200,
	} {
		if status, b := d.get(path); status != want {
			t.Errorf("%s: %d %.100s, want %d", path, status, b, want)
		}
	}
	for _, method := range []string{"PUT", "DELETE", "PATCH"} {
		req, _ := http.NewRequest(method, d.web.URL+"/"+string(did), nil)
		r, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != 405 {
			t.Error(method, r.StatusCode)
		}
	}
	req, _ := http.NewRequest("OPTIONS", d.web.URL+"/"+string(did), nil)
	r, err := http.DefaultClient.Do(req)
	if err != nil || r.StatusCode != 204 {
		t.Error(r, err)
	}
	d.post(did, g) // still well
}

func TestRecoveryWindow(t *testing.T) {
	d := start(t, Config{})
	id := newIdentity(t, 1)
	g := id.genesis()
	did := g.DID()
	d.post(did, g)
	d.clock.Advance(time.Second)
	a := id.update(g.CID(), "a.test", 1)
	d.post(did, a)
	accepted := d.clock.Now()
	b := id.update(a.CID(), "b.test", 2)
	d.post(did, b) // the clock stands still; the timestamp moves on
	log := d.audit(did)
	if !log[2].CreatedAt.After(log[1].CreatedAt) {
		t.Error("timestamps of one identity must increase")
	}
	d.refuse(400, did, id.update(g.CID(), "r.test", 1)) // as strong as the disputed key, not stronger
	d.refuse(400, did, id.update(g.CID(), "r.test", 2))
	d.clock.Set(accepted.Add(plc.RecoveryWindow + time.Millisecond))
	d.refuse(400, did, id.update(g.CID(), "r.test", 0))
	d.clock.Set(accepted.Add(plc.RecoveryWindow))
	d.post(did, id.update(g.CID(), "r.test", 0))
	log = d.audit(did)
	if len(log) != 4 || log[0].Nullified || !log[1].Nullified || !log[2].Nullified || log[3].Nullified {
		t.Error("wrong entries are void")
	}
	d.refuse(400, did, id.update(a.CID(), "x.test", 0)) // void history
}

func TestRateLimits(t *testing.T) {
	d := start(t, Config{})
	id := newIdentity(t, 1)
	g := id.genesis()
	did := g.DID()
	d.post(did, g)
	prev := g
	next := func(key int) *plc.Operation {
		return id.update(prev.CID(), syntax.Handle(fmt.Sprintf("n%d.test", rand.Uint64())), key)
	}
	for range 9 {
		d.clock.Advance(time.Minute)
		op := next(2)
		d.post(did, op)
		prev = op
	}
	r, err := http.Post(d.web.URL+"/"+string(did), "application/json", bytes.NewReader(next(2).AppendJSON(nil)))
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != 429 || r.Header.Get("Retry-After") != "3060" { // an hour after the genesis
		t.Error(r.StatusCode, r.Header)
	}
	d.post(did, id.update(g.CID(), "recovered.test", 1)) // a recovery is never limited
	prev = d.audit(did)[10].Operation
	d.post(did, next(2)) // and what it made void does not count
	// The day's limit, then the week's.
	log := d.audit(did)
	prev = log[len(log)-1].Operation
	post := func(gap time.Duration) int {
		d.clock.Advance(gap)
		op := next(2)
		status, _ := d.send(did, op.AppendJSON(nil))
		if status == 200 {
			prev = op
		}
		return status
	}
	d.clock.Advance(8 * 24 * time.Hour)
	for i := range 30 {
		if s := post(30 * time.Minute); s != 200 {
			t.Fatalf("operation %d of the day: %d", i, s)
		}
	}
	if s := post(30 * time.Minute); s != 429 {
		t.Errorf("operation 31 of the day: %d", s)
	}
	d.clock.Advance(24 * time.Hour)
	for i := range 70 {
		if s := post(time.Hour); s != 200 {
			t.Fatalf("operation %d of the week: %d", 31+i, s)
		}
	}
	if s := post(time.Hour); s != 429 {
		t.Errorf("operation 101 of the week: %d", s)
	}
}

func TestRace(t *testing.T) {
	d := start(t, Config{NoLimits: true})
	id := newIdentity(t, 1)
	prev := id.genesis()
	did := prev.DID()
	ops := func(round int) (out []*plc.Operation) {
		for i := range 8 {
			if round == 0 {
				out = append(out, prev)
				continue
			}
			out = append(out, id.update(prev.CID(), syntax.Handle(fmt.Sprintf("r%d-%d.test", round, i)), 2))
		}
		return out
	}
	for round := range 12 {
		candidates := ops(round)
		statuses := make([]int, len(candidates))
		var wg sync.WaitGroup
		for i, op := range candidates {
			wg.Go(func() { statuses[i], _ = d.send(did, op.AppendJSON(nil)) })
		}
		wg.Wait()
		won := -1
		for i, s := range statuses {
			switch {
			case s == 200 && won < 0:
				won = i
			case s != 409 && s != 400:
				t.Fatalf("round %d: %v", round, statuses)
			}
		}
		if won < 0 {
			t.Fatalf("round %d: nobody won: %v", round, statuses)
		}
		prev = candidates[won]
	}
	if log := d.audit(did); len(log) != 12 || slices.ContainsFunc(log, func(e plc.Entry) bool { return e.Nullified }) {
		t.Errorf("the log has forks: %d entries", len(log))
	}
}

// TestOvertaken checks that an operation that came when the log was an older one is told of the race, although its key could
// void what has overtaken it.
func TestOvertaken(t *testing.T) {
	d := start(t, Config{})
	id := newIdentity(t, 1)
	g := id.genesis()
	did := g.DID()
	d.post(did, g)
	d.clock.Advance(time.Second)
	d.post(did, id.update(g.CID(), "first.test", 2))
	var r *refusal
	if err := d.s.submit(did, id.update(g.CID(), "late.test", 0), g.CID()); !errors.As(err, &r) || r.status != 409 {
		t.Errorf("got %v, want a conflict", err)
	}
	if log := d.audit(did); len(log) != 2 || log[1].Nullified {
		t.Error("the overtaken operation was stored")
	}
}

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("timed out")
		}
	}
}

func TestRestart(t *testing.T) {
	d := start(t, Config{Dir: "data", NoLimits: true})
	var dids []syntax.DID
	for seed := range 5 {
		id := newIdentity(t, seed)
		g := id.genesis()
		dids = append(dids, g.DID())
		d.post(g.DID(), g)
		a := id.update(g.CID(), "a.test", 2)
		d.clock.Advance(time.Millisecond)
		d.post(g.DID(), a)
		d.clock.Advance(time.Millisecond)
		d.post(g.DID(), id.update(g.CID(), "r.test", 0))
	}
	all := func() (out []string) {
		out = append(out, d.body("/export"), d.body("/export?after=0"))
		for _, did := range dids {
			for _, p := range []string{"", "/data", "/log", "/log/audit", "/log/last"} {
				out = append(out, d.body("/"+string(did)+p))
			}
		}
		return out
	}
	before := all()
	if err := d.s.Close(); err != nil {
		t.Fatal(err)
	}
	d = open(t, Config{Dir: "data", NoLimits: true}, d.world, d.clock)
	if after := all(); !slices.Equal(before, after) {
		t.Error("answers differ after a restart")
	}
	g := newIdentity(t, 99).genesis()
	d.post(g.DID(), g)
	lines := strings.Split(d.body("/export?after=0"), "\n")
	if len(lines) != 16 || !strings.HasSuffix(lines[15], `"seq":16}`) {
		t.Errorf("%d lines, last %s", len(lines), lines[len(lines)-1])
	}
}

func TestExport(t *testing.T) {
	d := start(t, Config{NoLimits: true})
	if b := d.body("/export?after=0"); b != "" {
		t.Errorf("empty export: %q", b)
	}
	// 40 identities, several per millisecond, one with a void operation.
	var want []string
	for seed := range 40 {
		id := newIdentity(t, seed)
		g := id.genesis()
		d.post(g.DID(), g)
		if seed == 7 {
			d.post(g.DID(), id.update(g.CID(), "a.test", 2))
			d.clock.Advance(10 * time.Millisecond)
			d.post(g.DID(), id.update(g.CID(), "r.test", 0))
		}
		if seed%4 == 3 {
			d.clock.Advance(3 * time.Millisecond)
		}
		want = append(want, string(g.DID()))
	}
	type line struct {
		Type, Did, Cid, CreatedAt string
		Seq                       int64
		Nullified                 *bool
		Operation                 json.RawMessage
	}
	parse := func(body string) (lines []line) {
		if body == "" {
			return nil
		}
		for l := range strings.SplitSeq(body, "\n") {
			var v line
			if err := json.Unmarshal([]byte(l), &v); err != nil {
				t.Fatalf("%v in %q", err, l)
			}
			op, err := plc.ParseJSON(v.Operation)
			if err != nil || op.CID().String() != v.Cid {
				t.Fatalf("line %s: %v", l, err)
			}
			lines = append(lines, v)
		}
		return lines
	}
	var bySeq []line
	for after := int64(0); ; {
		page := parse(d.body(fmt.Sprintf("/export?after=%d&count=9", after)))
		if len(page) > 9 {
			t.Fatal("page is too long")
		}
		if len(page) == 0 {
			break
		}
		for _, l := range page {
			if l.Seq != after+1 || l.Type != "sequenced_op" || l.Nullified != nil {
				t.Fatalf("line %+v after %d", l, after)
			}
			after = l.Seq
		}
		bySeq = append(bySeq, page...)
	}
	if len(bySeq) != 42 {
		t.Errorf("%d lines by sequence", len(bySeq))
	}
	var byTime []line
	for after := ""; ; {
		page := parse(d.body("/export?count=5&after=" + url.QueryEscape(after)))
		if len(page) > 5 {
			t.Fatal("page is too long")
		}
		if len(page) == 0 {
			break
		}
		for _, l := range page {
			if l.Type != "" || l.Seq != 0 || l.Nullified == nil || l.CreatedAt < after {
				t.Fatalf("line %+v after %s", l, after)
			}
			if *l.Nullified != (l.Did == want[7] && strings.Contains(string(l.Operation), "a.test")) {
				t.Errorf("void mark of %+v", l)
			}
		}
		after = page[len(page)-1].CreatedAt
		byTime = append(byTime, page...)
	}
	if len(byTime) != 42 {
		t.Errorf("%d lines by time", len(byTime))
	}
	if all := parse(d.body("/export")); len(all) != 42 {
		t.Errorf("%d lines at once", len(all))
	}
}

func TestFixtureLogs(t *testing.T) {
	valid, _ := filepath.Glob(filepath.Join(fixtures.Path(t, "plc/audit_log"), "*", "*.json"))
	for _, path := range valid {
		t.Run(filepath.Base(path), func(t *testing.T) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var log []plc.Entry
			if err := json.Unmarshal(b, &log); err != nil {
				t.Fatal(err)
			}
			d := start(t, Config{})
			ok := strings.Contains(path, "/valid/")
			did := log[0].DID
			refused := false
			for _, e := range log {
				d.clock.Set(e.CreatedAt)
				status, body := d.send(did, e.Operation.AppendJSON(nil))
				if status != 200 {
					refused = true
					if ok || status != 400 {
						t.Fatalf("%d %s", status, body)
					}
				}
			}
			if refused == ok {
				t.Error("an invalid log was accepted")
			}
			if !ok {
				return
			}
			got := d.audit(did)
			for i := range log {
				if string(got[i].AppendJSON(nil)) != string(log[i].AppendJSON(nil)) {
					t.Errorf("entry %d is %s, want %s", i, got[i].AppendJSON(nil), log[i].AppendJSON(nil))
				}
			}
		})
	}
}

func TestRunEndsOrderly(t *testing.T) {
	d := start(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- d.s.Run(ctx) }()
	conn := d.dial("")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, _, err := conn.ReadMessage(); !isClose(err, 1001, "shutting down") {
		t.Error(err)
	}
	if status, _ := d.get("/_health"); status != 503 {
		t.Error(status)
	}
}
