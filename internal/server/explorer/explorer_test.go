package explorer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/stream"
)

const post = "app.bsky.feed.post/3l6oveex3ii2l"

func note(text string) string {
	b, _ := json.Marshal(map[string]any{"$type": "app.bsky.feed.post", "text": text, "createdAt": "2024-10-17T05:06:07Z"})
	return string(b)
}

var png = []byte("\x89PNG\r\n\x1a\n and so on")

func TestPages(t *testing.T) {
	n := newNetwork(t)
	alice, bob := n.account("alice.test"), n.account("bob.test")
	avatar := n.blob(alice, png)
	n.put(alice, profilePath, fmt.Sprintf(`{"$type":"app.bsky.actor.profile","displayName":"Alice Ltd & Co","description":"writes","avatar":{"$type":"blob","ref":{"$link":%q},"mimeType":"image/png","size":%d}}`, avatar, len(png)))
	c := n.put(alice, post, note("hello world"))
	uri := "at://" + alice.did + "/" + post
	n.put(bob, "app.bsky.feed.like/3l6oveex3ii2m", fmt.Sprintf(`{"$type":"app.bsky.feed.like","subject":{"uri":%q,"cid":%q},"createdAt":"2024-10-17T05:06:07Z"}`, uri, c))
	n.link(uri, "app.bsky.feed.like", "subject.uri", "at://"+bob.did+"/app.bsky.feed.like/3l6oveex3ii2m")
	n.link(alice.did, "app.bsky.graph.follow", "subject", "at://"+bob.did+"/app.bsky.graph.follow/3l6oveex3ii2m")
	s := n.explorer()
	n.run(s)
	await(t, func() bool { return s.tail.status().Seq == 3 })

	html := page(t, s, "/", 200)
	contains(t, html, "Alice Ltd &amp; Co", "alice.test", n.host, "12\u202f345", "hello world", "→ alice.test · "+post)
	html = page(t, s, "/accounts", 200)
	contains(t, html, "/at/alice.test", "/at/bob.test", "/blob/"+alice.did+"/"+avatar)
	html = page(t, s, "/live?collection=app.bsky.feed.like", 200)
	contains(t, html, "app.bsky.feed.like", bob.did)
	if strings.Contains(html, "hello world") {
		t.Error("the filter let another collection through")
	}
	html = page(t, s, "/at/alice.test", 200)
	contains(t, html, "handle confirmed", alice.did, alice.key.Public().DIDKey(), "PDS and relay have the same revision", alice.rev(), "replayed", "Followers", "/at/alice.test/app.bsky.feed.post")
	html = page(t, s, "/at/"+alice.did, 200)
	contains(t, html, "handle confirmed")
	html = page(t, s, "/at/alice.test/app.bsky.feed.post", 200)
	contains(t, html, "hello world", "/at/alice.test/"+post)
	html = page(t, s, "/at/alice.test/"+post, 200)
	contains(t, html, ">Verified<", "1 signed operation", "Signature", c, "Likes", "/at/"+bob.did+"/app.bsky.feed.like/3l6oveex3ii2m", "bob.test", ">valid<")
	html = page(t, s, "/at/bob.test/app.bsky.feed.like/3l6oveex3ii2m", 200)
	contains(t, html, `href="/at/`+alice.did+"/"+post+`"`)
	html = page(t, s, "/at/alice.test/"+profilePath, 200)
	contains(t, html, `<img src="/blob/`+alice.did+"/"+avatar)
	html = page(t, s, linksHref(uri, "app.bsky.feed.like:subject.uri", ""), 200)
	contains(t, html, "Likes", "bob.test", bob.did)
	html = page(t, s, "/lexicon/app.bsky.feed.post", 200)
	contains(t, html, `<span class="tag k-record">record</span>`, "maxGraphemes")
	page(t, s, "/lexicon/com.example.unknown", 200)
	page(t, s, "/search", 200)
	html = page(t, s, "/search?q=what+is+this", 404)
	contains(t, html, "what is this")
	page(t, s, "/nothing/here", 404)
	page(t, s, "/at/nobody.test", 404)
	page(t, s, "/at/not%20a%20name", 400)
	page(t, s, "/at/alice.test/notansid", 400)
	page(t, s, "/links?subject=x", 400)

	for _, p := range []string{"/_health", "/_status", "/xrpc/_health"} {
		resp := get(t, s, p)
		checkHeaders(t, p, resp.Header)
		if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
			t.Errorf("%s: %v", p, resp.Status)
		}
	}
}

// await waits for something that happens in another goroutine.
func await(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("waited for too long")
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func TestTwins(t *testing.T) {
	n := newNetwork(t)
	alice := n.account("alice.test")
	c := n.put(alice, post, note("hello"))
	n.put(alice, "com.example.thing/a.json", `{"$type":"com.example.thing","n":1}`)
	s := n.explorer()
	for _, p := range []struct{ html, suffixed string }{
		{"/", "/index.json"}, {"/accounts", "/accounts.json"}, {"/live", "/live.json"}, {"/at/alice.test", "/at/alice.test.json"},
		{"/at/alice.test/app.bsky.feed.post", "/at/alice.test/app.bsky.feed.post.json"}, {"/at/alice.test/" + post, "/at/alice.test/" + post + ".json"},
		{"/lexicon/app.bsky.feed.post", "/lexicon/app.bsky.feed.post.json"}, {"/search", ""}, {"/at/nobody.test", "/at/nobody.test.json"},
	} {
		var bodies [][]byte
		for _, try := range []struct{ path, accept string }{{p.html + "?format=json", ""}, {p.html, "application/json"}, {p.suffixed, "text/html"}} {
			if try.path == "" {
				continue
			}
			resp := get(t, s, try.path, "Accept", try.accept)
			b, _ := io.ReadAll(resp.Body)
			if got := resp.Header.Get("Content-Type"); got != "application/json; charset=utf-8" || !json.Valid(b) {
				t.Fatalf("%s: %s\n%s", try.path, got, b)
			}
			checkHeaders(t, try.path, resp.Header)
			bodies = append(bodies, b)
		}
		for _, b := range bodies[1:] {
			if !bytes.Equal(b, bodies[0]) {
				t.Errorf("%s: two forms of the twin differ:\n%s\n%s", p.html, bodies[0], b)
			}
		}
	}
	var rec RecordPage
	resp := get(t, s, "/at/alice.test/"+post+"?format=json")
	if err := json.NewDecoder(resp.Body).Decode(&rec); err != nil {
		t.Fatal(err)
	}
	if !rec.Proof.Verified || rec.CID != c || rec.Actor.Handle != "alice.test" || rec.Type != "app.bsky.feed.post" || !rec.Schema.Valid {
		t.Errorf("the twin says %+v", rec)
	}
	html := page(t, s, "/at/alice.test/"+post, 200)
	for _, st := range rec.Proof.Steps { // both come from one struct
		contains(t, html, "<b>"+st.Title+"</b>")
		if st.CID != "" {
			contains(t, html, st.CID)
		}
	}
	// A record key that ends in .json can be reached.
	html = page(t, s, "/at/alice.test/com.example.thing", 200)
	contains(t, html, "/at/alice.test/com.example.thing/a.json?format=html")
	html = page(t, s, "/at/alice.test/com.example.thing/a.json?format=html", 200)
	contains(t, html, ">Verified<")
	if e := get(t, s, "/at/nobody.test?format=json"); e.StatusCode != 404 {
		t.Error(e.Status)
	} else if b, _ := io.ReadAll(e.Body); !strings.Contains(string(b), `"error": "NotFound"`) {
		t.Errorf("%s", b)
	}
}

func TestProofFails(t *testing.T) {
	flip := func(find []byte) func([]byte) []byte {
		return func(car []byte) []byte {
			i := bytes.Index(car, find)
			if i < 0 {
				t.Fatal("the proof doesn't hold what was to be changed")
			}
			car = bytes.Clone(car)
			car[i]++
			return car
		}
	}
	for _, tc := range []struct {
		name  string
		setup func(n *network, a *fakeAccount)
		found bool
		want  []string
	}{
		{"record changed", func(n *network, _ *fakeAccount) { n.mangle = flip([]byte("hello")) }, true, []string{"Not verified", "doesn’t hash to its CID"}},
		{"not a CAR", func(n *network, _ *fakeAccount) { n.mangle = func([]byte) []byte { return []byte("<html>") } }, true, []string{"Not verified"}},
		{"empty", func(n *network, _ *fakeAccount) { n.mangle = func([]byte) []byte { return nil } }, true, []string{"Not verified"}},
		{"no proof given", func(n *network, _ *fakeAccount) { n.noProof = true }, true, []string{"Not verified", "The PDS gave no proof", "What you see is what the PDS says"}},
		{"other key", func(_ *network, a *fakeAccount) { // a new operation names another key than the one that signed the commit
			other := newKey(t)
			a.rotate(t, other.Public().DIDKey())
		}, true, []string{"Not verified", "not signed by the account’s key", "not reached"}},
		{"log forged", func(_ *network, a *fakeAccount) { a.entries[0].Operation.Data.AlsoKnownAs = []string{"at://evil.test"} }, true, []string{"Not verified", "log of the identity is wrong"}},
		{"document differs from log", func(_ *network, a *fakeAccount) { a.data.SetSigningKey(newKey(t).Public().DIDKey()) }, true, []string{"Not verified", "another key than the log"}},
		{"PDS down", func(n *network, _ *fakeAccount) { n.down["pds"] = true }, false, []string{"Not verified", "status 503"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := newNetwork(t)
			alice := n.account("alice.test")
			n.put(alice, post, note("hello"))
			tc.setup(n, alice)
			s := n.explorer()
			status := 200
			if !tc.found {
				status = 404
			}
			html := page(t, s, "/at/"+alice.did+"/"+post, status)
			contains(t, html, tc.want...)
			if strings.Contains(html, ">Verified<") || !strings.Contains(html, `class="failed"`) {
				t.Error("the page looks verified")
			}
			if tc.found {
				contains(t, html, "hello")
			}
		})
	}
	t.Run("absent", func(t *testing.T) {
		n := newNetwork(t)
		alice := n.account("alice.test")
		n.put(alice, post, note("hello"))
		html := page(t, n.explorer(), "/at/"+alice.did+"/app.bsky.feed.post/nope", 404)
		contains(t, html, "Absence verified", "There is no such record")
	})
	t.Run("PLC log missing", func(t *testing.T) { // the directory's word is all there is, and the page says so
		n := newNetwork(t)
		alice := n.account("alice.test")
		n.put(alice, post, note("hello"))
		s := n.explorer()
		page(t, s, "/at/"+alice.did, 200) // the document is cached
		s.audits.drop(alice.did)
		n.down["plc"] = true
		html := page(t, s, "/at/"+alice.did+"/"+post, 200)
		contains(t, html, "could not be replayed")
	})
}

func TestKeyRotated(t *testing.T) { // after the document was cached
	n := newNetwork(t)
	clock := world.NewManual(n.now)
	n.clock = clock
	alice := n.account("alice.test")
	n.put(alice, post, note("hello"))
	s := n.explorer()
	contains(t, page(t, s, "/at/"+alice.did+"/"+post, 200), ">Verified<")
	key := newKey(t)
	alice.rotate(t, key.Public().DIDKey())
	alice.key = key
	n.put(alice, "app.bsky.feed.post/3l6oveex3ii2n", note("signed by the new key"))
	clock.Advance(5 * time.Minute)
	html := page(t, s, "/at/"+alice.did+"/"+post, 200)
	contains(t, html, ">Verified<", "2 signed operations", "P-256", key.Public().DIDKey())
	contains(t, page(t, s, "/at/"+alice.did, 200), "signing key")
}

func TestUpstreamDown(t *testing.T) {
	for _, who := range []string{"relay", "links", "pds", "plc"} {
		t.Run(who, func(t *testing.T) {
			n := newNetwork(t)
			alice := n.account("alice.test")
			n.put(alice, post, note("hello"))
			n.down[who] = true
			s := n.explorer()
			for _, p := range []string{"/", "/accounts", "/live", "/at/" + alice.did} {
				html := page(t, s, p, 200)
				told := strings.Contains(html, `class="notices"`)
				if p == "/at/"+alice.did && !told || (p == "/" || p == "/accounts") && who == "relay" && !told {
					t.Errorf("%s doesn't say that %s is down", p, who)
				}
			}
			if who == "plc" {
				html := page(t, s, "/at/alice.test", 502)
				contains(t, html, "can’t be found out now")
			}
		})
	}
	t.Run("private PDS", func(t *testing.T) {
		n := newNetwork(t)
		alice := n.account("alice.test")
		n.put(alice, post, note("hello"))
		n.guard.Disallow(strings.TrimPrefix(n.pds.URL, "http://"))
		html := page(t, n.explorer(), "/at/"+alice.did, 200)
		contains(t, html, "address that the explorer doesn’t connect to")
	})
}

func TestHandleNotConfirmed(t *testing.T) {
	n := newNetwork(t)
	alice, mallory := n.account("alice.test"), n.account("mallory.test")
	n.put(alice, post, note("x"))
	n.put(mallory, post, note("y"))
	mallory.data.SetHandle("alice.test")
	s := n.explorer()
	html := page(t, s, "/at/"+mallory.did, 200)
	contains(t, html, "no confirmed handle", "but that doesn’t lead back")
	page(t, s, "/at/mallory.test", 404)
	html = page(t, s, "/at/alice.test", 200)
	contains(t, html, alice.did, "handle confirmed")
}

func TestBounds(t *testing.T) {
	n := newNetwork(t)
	alice := n.account("alice.test")
	n.put(alice, post, note(strings.Repeat("long ", 190_000)))
	items := make([]string, 5000)
	for i := range items {
		items[i] = fmt.Sprintf(`{"i":%d}`, i)
	}
	n.put(alice, "com.example.many/a", `{"$type":"com.example.many","list":[`+strings.Join(items, ",")+`]}`)
	n.put(alice, "com.example.deep/a", `{"$type":"com.example.deep","x":`+strings.Repeat(`[`, 28)+strings.Repeat(`]`, 28)+`}`)
	s := n.explorer()
	html := page(t, s, "/at/alice.test/"+post, 200)
	contains(t, html, "946\u202f000 more characters are left out", "breaks its lexicon")
	if len(html) > 150<<10 {
		t.Errorf("a page of %d bytes", len(html))
	}
	html = page(t, s, "/at/alice.test/com.example.many/a", 200)
	contains(t, html, "more are left out here")
	if len(html) > 800<<10 {
		t.Errorf("a page of %d bytes", len(html))
	}
	page(t, s, "/at/alice.test/com.example.deep/a", 200)
	html = page(t, s, "/at/alice.test/app.bsky.feed.post", 200)
	if len(html) > 20<<10 {
		t.Errorf("a list of %d bytes", len(html))
	}
	page(t, s, "/search?q="+strings.Repeat("a", 9000), 400)

	for range maxPages {
		s.busy <- struct{}{}
	}
	resp := get(t, s, "/")
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a busy explorer answers %s", resp.Status)
	}
}

func TestDirtyRecord(t *testing.T) { // signed bytes that no JSON can say: shown as far as possible, still verified
	n := newNetwork(t)
	alice := n.account("alice.test")
	b := cbor.AppendMap(nil, 2)
	b = cbor.AppendText(cbor.AppendText(b, "$link"), "no CID")
	b = cbor.AppendText(cbor.AppendText(b, "$type"), "com.example.odd")
	n.putRaw(alice, "com.example.odd/a", b)
	html := page(t, n.explorer(), "/at/alice.test/com.example.odd/a", 200)
	contains(t, html, ">Verified<", "not valid in the data model", "What breaks the data model", "no CID&#34;", "&#34;$link")
}

func TestPaging(t *testing.T) {
	n := newNetwork(t)
	alice := n.account("alice.test")
	for i := range 120 {
		n.put(alice, fmt.Sprintf("com.example.thing/k%03d", i), fmt.Sprintf(`{"$type":"com.example.thing","name":"thing %d"}`, i))
	}
	uri := "at://" + alice.did + "/com.example.thing/k000"
	for i := range 120 {
		n.link(uri, "com.example.thing", "ref", fmt.Sprintf("at://%s/com.example.thing/k%03d", alice.did, i))
	}
	s := n.explorer()
	for _, start := range []string{"/at/alice.test/com.example.thing", linksHref(uri, "com.example.thing:ref", "")} {
		seen, pages := map[string]bool{}, 0
		for p := start; p != ""; pages++ {
			html := page(t, s, p, 200)
			for _, m := range strings.Split(html, "com.example.thing/k")[1:] {
				seen[m[:3]] = true
			}
			p = ""
			if _, rest, ok := strings.Cut(html, `<a rel="next" href="`); ok {
				p, _, _ = strings.Cut(rest, `"`)
				p = strings.ReplaceAll(p, "&amp;", "&")
			}
		}
		if len(seen) != 120 || pages != 3 {
			t.Errorf("%s: %d records on %d pages", start, len(seen), pages)
		}
	}
	html := page(t, s, "/at/alice.test", 200)
	contains(t, html, `<span class="n">120</span>`)
}

func TestBlobs(t *testing.T) {
	n := newNetwork(t)
	alice := n.account("alice.test")
	svg := []byte(`<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script>alert(2)</script></svg>`)
	page := []byte("<html><script>alert(1)</script>")
	s := n.explorer()
	for _, tc := range []struct {
		name, dest, want string
		body             []byte
		attached         bool
	}{
		{"png", "", "image/png", png, false},
		{"gif that is HTML too", "", "image/gif", append([]byte("GIF89a"), page...), false},
		{"html", "image", "application/octet-stream", page, true},
		{"svg in an image", "image", "image/svg+xml", svg, false},
		{"svg opened", "document", "application/octet-stream", svg, true},
		{"svg without a hint", "", "application/octet-stream", svg, true},
		{"nothing", "", "application/octet-stream", nil, true},
	} {
		c := n.blob(alice, tc.body)
		resp := get(t, s, blobHref(alice.did, c), "Sec-Fetch-Dest", tc.dest)
		b, _ := io.ReadAll(resp.Body)
		h := resp.Header
		if resp.StatusCode != 200 || h.Get("Content-Type") != tc.want || !bytes.Equal(b, tc.body) || (h.Get("Content-Disposition") != "") != tc.attached {
			t.Errorf("%s: %s, %v", tc.name, resp.Status, h)
		}
		checkHeaders(t, tc.name, h)
		if csp := h.Get("Content-Security-Policy"); !strings.Contains(csp, "sandbox") || strings.Contains(csp, "script-src") {
			t.Errorf("%s: the policy is %q", tc.name, csp)
		}
	}
	c := n.blob(alice, []byte("true"))
	alice.blobs[c] = []byte("false")
	if resp := get(t, s, blobHref(alice.did, c)); resp.StatusCode != 502 {
		t.Errorf("a blob that doesn't hash: %s", resp.Status)
	}
	big := n.blob(alice, make([]byte, maxBlob+1))
	if resp := get(t, s, blobHref(alice.did, big)); resp.StatusCode != 413 {
		t.Errorf("a blob that is too large: %s", resp.Status)
	}
	whole := n.blob(alice, make([]byte, maxBlob))
	if resp := get(t, s, blobHref(alice.did, whole)); resp.StatusCode != 200 {
		t.Errorf("a blob of the largest size: %s", resp.Status)
	}
	for path, status := range map[string]int{
		blobHref(alice.did, cid.Sum(cid.Raw, []byte("unknown")).String()):  404,
		blobHref(alice.did, cid.Sum(cid.DagCBOR, []byte("node")).String()): 400,
		"/blob/did:plc:x%2f..%2f..%2fetc/" + c:                             400,
		"/blob/" + alice.did + "/%2e%2e":                                   400,
		"/blob/" + alice.did + "/" + c + "%00":                             400,
	} {
		if resp := get(t, s, path); resp.StatusCode != status {
			t.Errorf("%s: %s, want %d", path, resp.Status, status)
		}
	}
}

func TestSearch(t *testing.T) {
	s := newNetwork(t).explorer()
	did := "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
	for q, want := range map[string]string{
		"alice.test":                          "/at/alice.test",
		" @Alice.Test ":                       "/at/alice.test",
		"\u202a@alice.test\u202c":             "/at/alice.test",
		did:                                   "/at/" + did,
		"did:web:example.com":                 "/at/did:web:example.com",
		"did:web:localhost%3A2583":            "/at/did:web:localhost%253A2583",
		"at://" + did + "/" + post:            "/at/" + did + "/" + post,
		"at://alice.test":                     "/at/alice.test",
		"at://alice.test/app.bsky.feed.post/": "/at/alice.test/app.bsky.feed.post",
		"alice.test/" + post:                  "/at/alice.test/" + post,
		"https://pdsls.dev/at://" + did + "/" + post:               "/at/" + did + "/" + post,
		"https://bsky.app/profile/alice.test":                      "/at/alice.test",
		"https://bsky.app/profile/" + did + "/post/3l6oveex3ii2l":  "/at/" + did + "/" + post,
		"https://bsky.app/profile/alice.test/feed/whats-hot?x=1#y": "/at/alice.test/app.bsky.feed.generator/whats-hot",
		"https://bsky.app/profile/alice.test/lists/3l6oveex3ii2l":  "/at/alice.test/app.bsky.graph.list/3l6oveex3ii2l",
		"https://bsky.app/starter-pack/alice.test/3l6oveex3ii2l":   "/at/alice.test/app.bsky.graph.starterpack/3l6oveex3ii2l",
		"app.bsky.feed.post":                "/lexicon/app.bsky.feed.post",
		"com.example.fooBar":                "/lexicon/com.example.fooBar",
		"alice.bsky.social":                 "/at/alice.bsky.social",
		"":                                  "",
		"javascript:alert(1)":               "",
		"//evil.example":                    "",
		"/\\evil.example":                   "",
		"https://evil.example":              "",
		"https://bsky.app/profile/../../x":  "",
		"at://alice.test/<script>/x":        "",
		cid.Sum(cid.DagCBOR, nil).String():  "",
		"data:text/html,<script>1</script>": "",
	} {
		if got := s.target(q); got != want {
			t.Errorf("%q leads to %q, want %q", q, got, want)
		}
	}
	resp := get(t, s, "/search?q=alice.test")
	if resp.StatusCode != 303 || resp.Header.Get("Location") != "/at/alice.test" {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
	resp = get(t, s, "/at://"+did+"/"+post)
	if loc := resp.Header.Get("Location"); resp.StatusCode/100 != 3 || loc != "/at:/"+did+"/"+post {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
	if resp = get(t, s, "/at:/"+did+"/"+post); resp.Header.Get("Location") != "/at/"+did+"/"+post {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
}

func TestMethods(t *testing.T) {
	s := newNetwork(t).explorer()
	for _, m := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH"} {
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest(m, "/accounts", strings.NewReader("x=1")))
		if w.Code != 405 {
			t.Errorf("%s: %d", m, w.Code)
		}
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest("HEAD", "/search", nil))
	if w.Code != 200 || w.Body.Len() != 0 {
		t.Errorf("HEAD: %d, %d bytes", w.Code, w.Body.Len())
	}
	for _, name := range []string{"style.css", "live.js", "mark.svg", "tick.svg"} {
		resp := get(t, s, "/assets/"+name)
		if resp.StatusCode != 200 {
			t.Errorf("%s: %s", name, resp.Status)
		}
		checkHeaders(t, name, resp.Header)
	}
	if resp := get(t, s, "/assets/..%2fexplorer.go"); resp.StatusCode != 404 {
		t.Error(resp.Status)
	}
}

func TestConfig(t *testing.T) {
	w := world.World{Clock: world.System}
	for _, c := range []Config{{}, {RelayURL: "relay.example"}, {RelayURL: "ftp://relay.example"}, {RelayURL: "https://relay.example", LinksURL: "::"}} {
		if _, err := New(c, w); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}

// sse reads server-sent events.
type sse struct {
	resp *http.Response
	r    *bufio.Reader
}

func (e *sse) next(t *testing.T) (id, name, data string) {
	t.Helper()
	for {
		l, err := e.r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		key, v, _ := strings.Cut(strings.TrimRight(l, "\n"), ": ")
		switch key {
		case "id":
			id = v
		case "event":
			name = v
		case "data":
			data = v
		case "":
			if name != "" {
				return id, name, data
			}
		}
	}
}

func (e *sse) event(t *testing.T) (string, *Event) {
	t.Helper()
	for {
		id, name, data := e.next(t)
		if name == "event" {
			var ev Event
			if err := json.Unmarshal([]byte(data), &ev); err != nil {
				t.Fatal(err)
			}
			return id, &ev
		}
	}
}

func TestLiveEvents(t *testing.T) {
	n := newNetwork(t)
	alice := n.account("alice.test")
	n.put(alice, post, note("before"))
	s := n.explorer()
	n.run(s)
	await(t, func() bool { return s.tail.status().Seq == 1 })
	srv := httptest.NewServer(s.Handler())
	defer srv.Close()
	open := func(path string, header ...string) *sse {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		t.Cleanup(cancel)
		req, _ := http.NewRequestWithContext(ctx, "GET", srv.URL+path, nil)
		req.Header.Set("Accept", "text/event-stream")
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		if ct := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || !strings.HasPrefix(ct, "text/event-stream") {
			t.Fatalf("%s %s", resp.Status, ct)
		}
		checkHeaders(t, path, resp.Header)
		return &sse{resp, bufio.NewReader(resp.Body)}
	}
	all, likes := open("/live/events"), open("/live/events?collection=app.bsky.feed.like")
	if _, name, _ := all.next(t); name != "trace" {
		t.Errorf("the first event is %q, not the trace", name)
	}
	n.put(alice, "app.bsky.feed.post/3l6oveex3ii2n", note("line one\nline two <script>\u202e"))
	n.put(alice, "app.bsky.feed.like/3l6oveex3ii2n", `{"$type":"app.bsky.feed.like","subject":{"uri":"at://`+alice.did+`/`+post+`","cid":"bafyreic"}}`)
	n.log.add(&stream.Identity{DID: alice.did, Time: "2024-10-17T05:06:07Z", Handle: "alice.test"})
	n.log.add(&stream.Account{DID: alice.did, Time: "2024-10-17T05:06:07Z", Status: "deactivated"})
	id, e := all.event(t)
	if id != "2" || e.DID != alice.did || len(e.Rows) != 1 || e.Rows[0].Action != "create" || e.Rows[0].Href != "/at/"+alice.did+"/app.bsky.feed.post/3l6oveex3ii2n" {
		t.Errorf("%s %+v", id, e)
	}
	if g := e.Rows[0].Preview; len(g) != 2 || g[0].Text != "line one line two <script>" || g[1].Mark != "U+202E" {
		t.Errorf("the preview is %+v", g)
	}
	for want, i := []string{"create", "identity", "account"}, 0; i < len(want); i++ {
		if _, e := all.event(t); e.Rows[0].Action != want[i] {
			t.Errorf("%+v, want %s", e, want[i])
		}
	}
	if id, e := likes.event(t); id != "3" || e.Rows[0].Collection != "app.bsky.feed.like" || !strings.HasPrefix(e.Rows[0].Preview[0].Text, "→ ") {
		t.Errorf("%s %+v", id, e)
	}
	again := open("/live/events", "Last-Event-ID", "3")
	if id, e := again.event(t); id != "4" || e.Type != "identity" {
		t.Errorf("after event 3 came %s %+v", id, e)
	}
	if resp := get(t, s, "/live/events?collection=%3Cscript%3E"); resp.StatusCode != 400 {
		t.Error(resp.Status)
	}
	s.Close() // ends the streams
	for _, e := range []*sse{all, likes, again} {
		if _, err := io.ReadAll(e.r); err != nil {
			t.Error(err)
		}
	}
}

func TestTailBounds(t *testing.T) {
	now := time.Now()
	tl := newTail(func() time.Time { return now })
	keep := filter("", "")
	slow, _ := tl.subscribe(0, keep)
	for i := range 3 * ringEvents {
		tl.publish(&Event{Seq: int64(i + 1), DID: "did:plc:x", Rows: []Row{{Action: "create"}}}, now, true)
	}
	read := 0
	for range slow.ch {
		read++
	}
	if st := tl.status(); read != cap(slow.ch) || st.Dropped != 1 || st.Followers != 0 || st.Seq != 3*ringEvents {
		t.Errorf("a slow follower read %d; %+v", read, st)
	}
	if r := tl.recent(10*ringEvents, keep); len(r) != ringEvents || r[0].Seq != 3*ringEvents || r[len(r)-1].Seq != 2*ringEvents+1 {
		t.Errorf("%d events, from %d to %d", len(r), r[0].Seq, r[len(r)-1].Seq)
	}
	var f *follower
	for i := range maxStreams + 1 {
		f, _ = tl.subscribe(0, keep)
		if (f == nil) != (i == maxStreams) {
			t.Fatalf("follower %d: %v", i, f)
		}
	}
	tl.end()
	if f, _ = tl.subscribe(0, keep); f != nil {
		t.Error("a follower after the end")
	}
}

func TestRelayComesLate(t *testing.T) {
	n := newNetwork(t)
	alice := n.account("alice.test")
	n.put(alice, post, note("hello"))
	n.mu.Lock()
	n.down["relay"] = true
	n.mu.Unlock()
	s := n.explorer()
	n.run(s)
	await(t, func() bool { return s.tail.status().Problem != "" })
	html := page(t, s, "/live", 200)
	contains(t, html, "interrupted")
	n.mu.Lock()
	n.down["relay"] = false
	n.mu.Unlock()
	await(t, func() bool { return s.tail.status().Seq == 1 })
}

func TestTrace(t *testing.T) {
	tr := newTrace(2*time.Second, 11, false, 14)
	now := time.Unix(1_700_000_000, 0)
	tr.add(now.Add(-10*time.Second), 8)
	tr.add(now, 100) // not over yet
	tr.add(now.Add(-time.Hour), 5)
	v := tr.values(now)
	if len(v) != 10 || v[5] != 4 {
		t.Errorf("%v", v)
	}
	c := tr.draw(now, "x", 1)
	if c.Peak != 4 || c.Max != "4" || !strings.HasPrefix(c.Line, "M") || strings.ContainsAny(c.Line+c.Area, "NaInf") {
		t.Errorf("%+v", c)
	}
	if v = tr.values(now.Add(time.Hour)); v[len(v)-1] != 0 || v[5] != 0 {
		t.Errorf("the drum didn't turn: %v", v)
	}
	tr.add(now, 1) // from the past, of which nothing is left
	if v = tr.values(now.Add(2 * time.Hour)); v[0] != 0 {
		t.Errorf("%v", v)
	}
	for _, tc := range []struct{ peak, top float64 }{{0, 1}, {0.2, 1}, {3, 4}, {11, 20}, {399, 400}, {401, 500}, {999, 1000}} {
		if got := niceTop(tc.peak); got != tc.top {
			t.Errorf("the scale for %v ends at %v", tc.peak, got)
		}
	}
}

func TestUsualSources(t *testing.T) {
	n := newNetwork(t)
	alice, bob := n.account("alice.test"), n.account("bob.test")
	n.put(alice, post, note("hello"))
	n.link("at://"+alice.did+"/"+post, "app.bsky.feed.repost", "subject.uri", "at://"+bob.did+"/app.bsky.feed.repost/3l6oveex3ii2m")
	n.noAll = true // a link index that can't list its sources
	html := page(t, n.explorer(), "/at/alice.test/"+post, 200)
	contains(t, html, "Reposts", "/at/"+bob.did+"/app.bsky.feed.repost/3l6oveex3ii2m")
}

func TestCache(t *testing.T) {
	now := time.Now()
	c := newCache[int, int](3, time.Minute, func() time.Time { return now })
	for i := range 5 {
		c.put(i, i)
		c.get(0)
	}
	if _, ok := c.get(0); !ok || c.len() != 3 {
		t.Errorf("the one used most is gone, or there are %d", c.len())
	}
	if _, ok := c.get(2); ok {
		t.Error("the one used least is there")
	}
	now = now.Add(2 * time.Minute)
	if _, ok := c.get(0); ok {
		t.Error("an old one is there")
	}
}

// TestUnreadableCommit: a commit whose records can't be read shows what was written all the same.
func TestUnreadableCommit(t *testing.T) {
	c := cid.Sum(cid.DagCBOR, []byte{0xa0})
	for _, blocks := range [][]byte{nil, []byte("no CAR file"), car.AppendHeader(nil, c)} {
		e, _ := eventOf(&stream.Commit{Repo: "did:web:a.test", Blocks: blocks, Ops: []stream.Op{
			{Action: stream.ActionCreate, Path: "app.bsky.feed.post/3jzfcijpj2z2a", CID: c}, {Action: stream.ActionDelete, Path: "app.bsky.feed.post/3jzfcijpj2z2b"},
		}})
		if e == nil || len(e.Rows) != 2 || e.Rows[0].CID != c.String() || e.Rows[0].Preview != nil || e.Rows[1].Action != stream.ActionDelete {
			t.Errorf("%q: %+v", blocks, e)
		}
	}
}
