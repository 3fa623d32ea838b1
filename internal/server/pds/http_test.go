package pds

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

func TestRecordLife(t *testing.T) {
	p := startPDS(t, testWorld(1), Config{Memory: true})
	a := p.account("alice")

	made := a.create("app.bsky.feed.post", "", a.post1("hello"))
	want(t, made, 200, "")
	if made.str("validationStatus") != "valid" {
		t.Errorf("validationStatus %q", made.str("validationStatus"))
	}
	uri, err := syntax.ParseATURI(made.str("uri"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := syntax.ParseTID(string(uri.RecordKey())); err != nil {
		t.Errorf("record key %q is not a TID", uri.RecordKey())
	}
	head, rev := made.commit()
	latest := p.get("com.atproto.sync.getLatestCommit?did=" + string(a.did))
	want(t, latest, 200, "")
	if latest.str("cid") != head || latest.str("rev") != rev {
		t.Errorf("latest commit %s, the write gave %s", latest.Body, made.Body)
	}

	// Reading by DID and by handle.
	for _, repo := range []string{string(a.did), "alice.test"} {
		got := p.get("com.atproto.repo.getRecord?collection=app.bsky.feed.post&rkey=" + string(uri.RecordKey()) + "&repo=" + repo)
		want(t, got, 200, "")
		if got.str("cid") != made.str("cid") || got.str("uri") != made.str("uri") || got.JSON["value"].(map[string]any)["text"] != "hello" {
			t.Errorf("got %s", got.Body)
		}
	}
	want(t, p.get("com.atproto.repo.getRecord?collection=app.bsky.feed.post&rkey=none&repo=alice.test"), 400, "RecordNotFound")
	want(t, p.get("com.atproto.repo.getRecord?collection=app.bsky.feed.post&rkey="+string(uri.RecordKey())+"&repo=alice.test&cid="+head), 400, "RecordNotFound")
	want(t, p.get("com.atproto.repo.getRecord?collection=app.bsky.feed.post&rkey=x&repo=nobody.test"), 400, "RepoNotFound")

	// putRecord: new, the same again (no commit), changed, guarded.
	put := func(text string, more map[string]any) answerOf {
		in := map[string]any{"repo": a.did, "collection": "app.bsky.actor.profile", "rkey": "self",
			"record": map[string]any{"$type": "app.bsky.actor.profile", "displayName": text}}
		for k, v := range more {
			in[k] = v
		}
		return a.post("com.atproto.repo.putRecord", in)
	}
	first := put("Alice", nil)
	want(t, first, 200, "")
	again := put("Alice", nil)
	want(t, again, 200, "")
	if _, ok := again.JSON["commit"]; ok {
		t.Errorf("an update that changes nothing made a commit: %s", again.Body)
	}
	want(t, put("Bob", map[string]any{"swapRecord": made.str("cid")}), 400, "InvalidSwap")
	want(t, put("Bob", map[string]any{"swapRecord": nil}), 400, "InvalidSwap")
	want(t, put("Bob", map[string]any{"swapCommit": head}), 400, "InvalidSwap")
	want(t, put("Bob", map[string]any{"swapRecord": first.str("cid")}), 200, "")
	want(t, a.post("com.atproto.repo.putRecord", map[string]any{"repo": a.did, "collection": "com.example.thing", "rkey": "one",
		"record": map[string]any{}, "swapRecord": nil}), 200, "")

	// deleteRecord: gone, and gone already.
	del := map[string]any{"repo": a.did, "collection": "app.bsky.feed.post", "rkey": uri.RecordKey()}
	gone := a.post("com.atproto.repo.deleteRecord", del)
	want(t, gone, 200, "")
	if c, _ := gone.commit(); c == "" {
		t.Errorf("no commit: %s", gone.Body)
	}
	gone = a.post("com.atproto.repo.deleteRecord", del)
	want(t, gone, 200, "")
	if c, _ := gone.commit(); c != "" {
		t.Errorf("a commit for nothing: %s", gone.Body)
	}

	// describeRepo.
	d := p.get("com.atproto.repo.describeRepo?repo=alice.test")
	if d.Status == 200 {
		if got := fmt.Sprint(d.JSON["collections"]); got != "[app.bsky.actor.profile com.example.thing]" {
			t.Errorf("collections %s", got)
		}
	}
	a.checkChain()
}

func TestWriteRefusals(t *testing.T) {
	p := startPDS(t, testWorld(1), Config{Memory: true})
	a, b := p.account("alice"), p.account("bob")
	before := p.log.Head()
	post := a.post1("x")
	long := strings.Repeat("x", repo.MaxRecord)
	cases := []struct {
		what string
		in   map[string]any
		name string
	}{
		{"another's repository", map[string]any{"repo": b.did, "collection": "app.bsky.feed.post", "record": post}, "InvalidRequest"},
		{"type and collection differ", map[string]any{"repo": a.did, "collection": "app.bsky.feed.like", "record": post}, "InvalidRequest"},
		{"collection is no NSID", map[string]any{"repo": a.did, "collection": "posts", "record": post}, "InvalidRequest"},
		{"no record", map[string]any{"repo": a.did, "collection": "app.bsky.feed.post"}, "InvalidRequest"},
		{"record is no object", map[string]any{"repo": a.did, "collection": "app.bsky.feed.post", "record": "x"}, "InvalidRequest"},
		{"a field is missing", map[string]any{"repo": a.did, "collection": "app.bsky.feed.post", "record": map[string]any{"$type": "app.bsky.feed.post", "text": "x"}}, "InvalidRequest"},
		{"key of the wrong type", map[string]any{"repo": a.did, "collection": "app.bsky.feed.post", "rkey": "not-a-tid", "record": post}, "InvalidRequest"},
		{"key that isn't one", map[string]any{"repo": a.did, "collection": "com.example.thing", "rkey": "..", "record": map[string]any{}}, "InvalidRequest"},
		{"unknown schema, validation asked for", map[string]any{"repo": a.did, "collection": "com.example.thing", "validate": true, "record": map[string]any{}}, "InvalidRequest"},
		{"float", map[string]any{"repo": a.did, "collection": "com.example.thing", "record": map[string]any{"x": 1.5}}, "InvalidRequest"},
		{"record too large", map[string]any{"repo": a.did, "collection": "com.example.thing", "record": map[string]any{"x": long}}, "InvalidRequest"},
		{"blob that isn't there", map[string]any{"repo": a.did, "collection": "com.example.thing", "record": map[string]any{"x": map[string]any{
			"$type": "blob", "ref": map[string]any{"$link": cid.Sum(cid.Raw, []byte("x")).String()}, "mimeType": "image/png", "size": 1}}}, "BlobNotFound"},
		{"bad swapCommit", map[string]any{"repo": a.did, "collection": "com.example.thing", "record": map[string]any{}, "swapCommit": "x"}, "InvalidRequest"},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			p.t = t
			want(t, a.post("com.atproto.repo.createRecord", c.in), 400, c.name)
		})
	}
	p.t = t
	for what, body := range map[string]string{
		"not JSON": `{"repo":`, "duplicate key": `{"repo":"` + string(a.did) + `","repo":"x"}`, "nothing": "", "an array": "[]", "trailing": `{} {}`,
	} {
		got := p.do(http.MethodPost, "com.atproto.repo.createRecord", a.token, "application/json", strings.NewReader(body))
		if got.Status != 400 || got.Name != "InvalidRequest" {
			t.Errorf("%s: %d %s", what, got.Status, got.Body)
		}
	}
	huge := strings.NewReader(`{"repo":"` + strings.Repeat("x", 12<<20) + `"}`)
	if got := p.do(http.MethodPost, "com.atproto.repo.createRecord", a.token, "application/json", huge); got.Status != 413 {
		t.Errorf("huge body: %d %s", got.Status, got.Name)
	}
	if got := p.do(http.MethodPost, "com.atproto.repo.createRecord", "", "application/json", strings.NewReader("{}")); got.Status != 401 {
		t.Errorf("without a token: %d %s", got.Status, got.Body)
	}
	if p.log.Head() != before {
		t.Errorf("refused writes made events")
	}

	// The other meanings of validate: skipped, and unknown schemas accepted.
	ok := a.post("com.atproto.repo.createRecord", map[string]any{"repo": a.did, "collection": "app.bsky.feed.post", "validate": false,
		"record": map[string]any{"$type": "app.bsky.feed.post"}})
	want(t, ok, 200, "")
	if _, there := ok.JSON["validationStatus"]; there {
		t.Errorf("validationStatus without validation: %s", ok.Body)
	}
	ok = a.create("com.example.thing", "", map[string]any{"any": "thing"})
	want(t, ok, 200, "")
	if ok.str("validationStatus") != "unknown" {
		t.Errorf("validationStatus %s", ok.Body)
	}
	want(t, a.create("com.example.thing", "a:b~c_d.e-f", map[string]any{}), 200, "")
	want(t, a.create("com.example.thing", "a:b~c_d.e-f", map[string]any{}), 400, "InvalidRequest")
	a.checkChain()
}

func TestApplyWrites(t *testing.T) {
	p := startPDS(t, testWorld(1), Config{Memory: true})
	a := p.account("alice")
	create := func(rkey string, value map[string]any) map[string]any {
		w := map[string]any{"$type": "com.atproto.repo.applyWrites#create", "collection": "com.example.thing", "value": value}
		if rkey != "" {
			w["rkey"] = rkey
		}
		return w
	}
	apply := func(writes ...map[string]any) answerOf {
		return a.post("com.atproto.repo.applyWrites", map[string]any{"repo": a.did, "writes": append([]map[string]any{}, writes...)})
	}
	head := p.log.Head()
	got := apply(create("one", map[string]any{"n": 1}), create("", map[string]any{"n": 2}), create("three", map[string]any{"n": 3}))
	want(t, got, 200, "")
	if p.log.Head() != head+1 {
		t.Errorf("%d events for one batch", p.log.Head()-head)
	}
	results := got.JSON["results"].([]any)
	if len(results) != 3 || results[0].(map[string]any)["$type"] != "com.atproto.repo.applyWrites#createResult" ||
		results[0].(map[string]any)["uri"] != "at://"+string(a.did)+"/com.example.thing/one" {
		t.Errorf("results %s", got.Body)
	}
	got = apply(
		map[string]any{"$type": "com.atproto.repo.applyWrites#update", "collection": "com.example.thing", "rkey": "one", "value": map[string]any{"n": 4}},
		map[string]any{"$type": "com.atproto.repo.applyWrites#delete", "collection": "com.example.thing", "rkey": "three"})
	want(t, got, 200, "")
	// All or nothing.
	head = p.log.Head()
	want(t, apply(create("four", map[string]any{}), create("one", map[string]any{})), 400, "InvalidRequest")
	want(t, p.get("com.atproto.repo.getRecord?collection=com.example.thing&rkey=four&repo=alice.test"), 400, "RecordNotFound")
	var many []map[string]any
	for i := range repo.MaxOps + 1 {
		many = append(many, create(fmt.Sprint("many", i), map[string]any{}))
	}
	want(t, apply(many...), 400, "InvalidRequest")
	var big []map[string]any
	for i := range 3 {
		big = append(big, create(fmt.Sprint("big", i), map[string]any{"x": fmt.Sprint(i) + strings.Repeat("x", 900_000)}))
	}
	want(t, apply(big...), 400, "InvalidRequest")
	want(t, apply(map[string]any{"$type": "com.atproto.repo.applyWrites#other"}), 400, "InvalidRequest")
	want(t, a.post("com.atproto.repo.applyWrites", map[string]any{"repo": a.did, "writes": []any{create("x", map[string]any{})},
		"swapCommit": cid.Sum(cid.DagCBOR, nil).String()}), 400, "InvalidSwap")
	if p.log.Head() != head {
		t.Errorf("refused batches made events")
	}
	want(t, apply(many[:repo.MaxOps]...), 200, "")
	want(t, apply(big[:2]...), 200, "")
	want(t, apply(), 200, "")
	a.checkChain()
}

func TestListRecords(t *testing.T) {
	p := startPDS(t, testWorld(1), Config{Memory: true})
	a := p.account("alice")
	var writes []write
	for i := range 137 {
		writes = append(writes, testWrite(actCreate, fmt.Sprintf("com.example.thing/k%03d", i), "x"))
	}
	writes = append(writes, testWrite(actCreate, "com.example.thin/x", "x"), testWrite(actCreate, "com.example.things/x", "x"))
	if _, err := p.commit(a.did, writes, nil); err != nil {
		t.Fatal(err)
	}
	for _, reverse := range []bool{false, true} {
		for _, limit := range []int{1, 10, 100} {
			var got []string
			cursor := ""
			for pages := 0; ; pages++ {
				r := p.get(fmt.Sprintf("com.atproto.repo.listRecords?repo=%s&collection=com.example.thing&limit=%d&reverse=%v&cursor=%s", a.did, limit, reverse, cursor))
				want(t, r, 200, "")
				for _, rec := range r.JSON["records"].([]any) {
					uri := rec.(map[string]any)["uri"].(string)
					got = append(got, uri[strings.LastIndexByte(uri, '/')+1:])
				}
				if cursor = r.str("cursor"); cursor == "" {
					break
				}
				if pages > 137 {
					t.Fatal("endless paging")
				}
			}
			if len(got) != 137 {
				t.Fatalf("limit %d, reverse %v: %d records", limit, reverse, len(got))
			}
			for i, k := range got {
				n := 136 - i
				if reverse {
					n = i
				}
				if k != fmt.Sprintf("k%03d", n) {
					t.Fatalf("limit %d, reverse %v: %s at %d", limit, reverse, k, i)
				}
			}
		}
	}
	want(t, p.get("com.atproto.repo.listRecords?repo=alice.test&collection=com.example.thing&limit=0"), 400, "InvalidRequest")
	want(t, p.get("com.atproto.repo.listRecords?repo=alice.test&collection=com.example.thing&limit=101"), 400, "InvalidRequest")
	want(t, p.get("com.atproto.repo.listRecords?repo=alice.test&collection=com.example.thing&cursor=%2F"), 400, "InvalidRequest")
}

func TestSyncReads(t *testing.T) {
	p := startPDS(t, testWorld(1), Config{Memory: true})
	a, b := p.account("alice"), p.account("bob")
	var writes []write
	for i := range 500 {
		writes = append(writes, testWrite(actCreate, fmt.Sprintf("com.example.thing/k%03d", i), fmt.Sprint(i)))
		if len(writes) == 100 {
			if _, err := p.commit(a.did, writes, nil); err != nil {
				t.Fatal(err)
			}
			writes = nil
		}
	}
	_, commit := p.checkRepo(a.did, a.key.Public())

	// since: only what is new.
	w := testWrite(actCreate, "com.example.thing/new", "new")
	done, err := p.commit(a.did, []write{w}, nil)
	if err != nil {
		t.Fatal(err)
	}
	diff := p.get("com.atproto.sync.getRepo?did=" + string(a.did) + "&since=" + string(commit.Rev))
	want(t, diff, 200, "")
	blocks := carBlocks(t, diff.Body)
	if _, ok := blocks[w.CID]; !ok || len(blocks) < 3 || len(blocks) > 12 {
		t.Errorf("a diff of one record has %d blocks", len(blocks))
	}
	if _, ok := blocks[done.Commit]; !ok {
		t.Error("the diff lacks the commit")
	}
	none := p.get("com.atproto.sync.getRepo?did=" + string(a.did) + "&since=" + string(done.Rev))
	if n := len(carBlocks(t, none.Body)); n != 0 {
		t.Errorf("nothing is new, but %d blocks came", n)
	}
	want(t, p.get("com.atproto.sync.getRepo?did="+string(a.did)+"&since=x"), 400, "InvalidRequest")
	want(t, p.get("com.atproto.sync.getRepo?did=did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"), 400, "RepoNotFound")
	want(t, p.get("com.atproto.sync.getRepo?did=nonsense"), 400, "InvalidRequest")

	// Proofs of presence and of absence.
	for path, present := range map[string]bool{"com.example.thing/k123": true, "com.example.thing/nope": false, "aa.bb.cc/x": false} {
		collection, rkey, _ := strings.Cut(path, "/")
		got := p.get("com.atproto.sync.getRecord?did=" + string(a.did) + "&collection=" + collection + "&rkey=" + rkey)
		want(t, got, 200, "")
		checkProof(t, got.Body, a, path, present)
	}

	// Blocks by CID: commit, a record, a node; an unknown one.
	q := url.Values{"did": {string(a.did)}, "cids": {done.Commit.String(), w.CID.String()}}
	head, _ := loadHead(p.store, a.did)
	q.Add("cids", head.Data.String())
	got := p.get("com.atproto.sync.getBlocks?" + q.Encode())
	want(t, got, 200, "")
	if n := len(carBlocks(t, got.Body)); n != 3 {
		t.Errorf("%d blocks, want 3", n)
	}
	q.Add("cids", cid.Sum(cid.Raw, []byte("none")).String())
	want(t, p.get("com.atproto.sync.getBlocks?"+q.Encode()), 400, "BlockNotFound")
	want(t, p.get("com.atproto.sync.getBlocks?did="+string(a.did)), 400, "InvalidRequest")
	want(t, p.get("com.atproto.sync.getBlocks?did="+string(b.did)+"&cids="+w.CID.String()), 400, "BlockNotFound")

	// listRepos by pages, and what an inactive account shows.
	if err := p.submitAccountEvents(context.Background(), b.did, accountChange{Account: true, Status: hostingDeactivated}); err != nil {
		t.Fatal(err)
	}
	page := p.get("com.atproto.sync.listRepos?limit=1")
	want(t, page, 200, "")
	page2 := p.get("com.atproto.sync.listRepos?limit=1&cursor=" + page.str("cursor"))
	want(t, page2, 200, "")
	second := page2.JSON["repos"].([]any)[0].(map[string]any)
	if second["did"] != string(b.did) || second["active"] != false || second["status"] != "deactivated" || page2.str("cursor") != "" {
		t.Errorf("second page %s", page2.Body)
	}
	st := p.get("com.atproto.sync.getRepoStatus?did=" + string(b.did))
	if st.JSON["active"] != false || st.str("status") != "deactivated" || st.str("rev") != "" {
		t.Errorf("status %s", st.Body)
	}
	for _, path := range []string{"getRepo?did=", "getLatestCommit?did=", "listBlobs?did=", "getBlocks?cids=" + w.CID.String() + "&did=", "getRecord?collection=a.b.c&rkey=x&did="} {
		want(t, p.get("com.atproto.sync."+path+string(b.did)), 400, "RepoDeactivated")
	}
	// The owner can still take the repository away.
	want(t, p.do(http.MethodGet, "com.atproto.sync.getRepo?did="+string(b.did), b.token, "", nil), 200, "")
	want(t, b.create("com.example.thing", "", map[string]any{}), 401, "AccountDeactivated")
	for status, name := range map[hosting]string{hostingTakendown: "RepoTakendown", hostingSuspended: "RepoSuspended"} {
		if err := p.submitAccountEvents(context.Background(), b.did, accountChange{Account: true, Status: status}); err != nil {
			t.Fatal(err)
		}
		want(t, p.get("com.atproto.sync.getRepo?did="+string(b.did)), 400, name)
	}
	want(t, p.get("com.atproto.sync.noSuchMethod"), 501, "MethodNotImplemented")
}

func carBlocks(t testing.TB, body []byte) map[cid.CID][]byte {
	t.Helper()
	r, err := car.NewReader(bytes.NewReader(body), car.Options{})
	if err != nil {
		t.Fatal(err)
	}
	out := map[cid.CID][]byte{}
	for {
		c, b, err := r.Next()
		if err != nil {
			return out
		}
		out[c] = bytes.Clone(b)
	}
}

func TestSubscribeRepos(t *testing.T) {
	p := startPDS(t, testWorld(1), Config{Memory: true})
	a := p.account("alice")
	const n = 50
	for i := range n / 2 {
		want(t, a.create("com.example.thing", fmt.Sprint("k", i), map[string]any{}), 200, "")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c := &chain{did: a.did, key: a.key.Public(), records: map[string]cid.CID{}}
	var kinds []string
	zero := int64(0)
	for f, err := range stream.Subscribe(ctx, p.URL, stream.SubscribeOptions{After: &zero}) {
		if err != nil {
			t.Fatal(err)
		}
		m, err := f.Message()
		if err != nil {
			t.Fatal(err)
		}
		if len(kinds) < 4 {
			kinds = append(kinds, m.FrameType())
		}
		c.event(t, m)
		if c.commits >= n/2 && c.commits < n {
			want(t, a.create("com.example.thing", fmt.Sprint("k", c.commits), map[string]any{}), 200, "")
		}
		if c.commits == n {
			break
		}
	}
	if got := strings.Join(kinds, " "); got != "#identity #account #sync #commit" {
		t.Errorf("events begin with %s", got)
	}
	if len(c.records) != n {
		t.Errorf("%d records in the stream", len(c.records))
	}
	var e *stream.Error
	future := p.log.Head() + 10
	for _, err := range stream.Subscribe(ctx, p.URL, stream.SubscribeOptions{After: &future}) {
		if !errors.As(err, &e) || e.Name != stream.ErrorFutureCursor {
			t.Errorf("future cursor: %v", err)
		}
		break
	}
	want(t, p.get("com.atproto.sync.subscribeRepos"), 426, "UpgradeRequired")
}

// TestCrawlRequests checks that a relay is asked until it agrees, and again when a commit finds nobody listening, but not too often.
func TestCrawlRequests(t *testing.T) {
	asked := make(chan string, 10)
	var calls atomic.Int64
	relay := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Hostname string }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		if calls.Add(1) == 1 {
			w.WriteHeader(500) // the first request fails
		}
		asked <- r.URL.Path + " " + in.Hostname
	}))
	defer relay.Close()
	clock := world.NewManual(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC))
	w := testWorld(1)
	w.Clock = clock
	w.Dialer = netguard.NewDialer(netguard.Options{Allow: []string{strings.TrimPrefix(relay.URL, "http://")}})
	p := startPDS(t, w, Config{Memory: true, Relays: []string{relay.URL}})
	a := p.account("alice")
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	const timers = 3 // of the crawler, the collector and the log
	if got := <-asked; got != "/xrpc/com.atproto.sync.requestCrawl localhost:2583" {
		t.Errorf("asked %s", got)
	}
	if err := clock.AwaitTimers(ctx, timers); err != nil {
		t.Fatal(err)
	}
	clock.Advance(crawlFirstRetry)
	<-asked
	if err := clock.AwaitTimers(ctx, timers); err != nil {
		t.Fatal(err)
	}
	want(t, a.create("com.example.thing", "one", map[string]any{}), 200, "")
	if len(asked) != 0 {
		t.Error("asked again at once")
	}
	clock.Advance(p.cfg.CrawlInterval)
	<-asked
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// checkProof verifies a proof as a stranger does.
func checkProof(t testing.TB, body []byte, a *testAccount, path string, present bool) {
	t.Helper()
	proof, err := repo.VerifyProof(body, a.did, path, a.key.Public())
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if proof.Found() != present || !proof.Signed {
		t.Fatalf("%s: found %v, want %v", path, proof.Found(), present)
	}
}
