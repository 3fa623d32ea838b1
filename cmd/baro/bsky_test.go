package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/barograph/baro/bsky"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/repo/repotest"
	"github.com/barograph/baro/richtext"
	"github.com/barograph/baro/xrpc"
)

// fakeAppView answers what the commands ask of an AppView, and writes down what it was asked and by whom.
type fakeAppView struct {
	did string
	mu  sync.Mutex
	log io.Writer
}

func startAppView(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: appview")
	}
	log, err := os.Create(ts.MkAbs("appview.log"))
	ts.Check(err)
	a := &fakeAppView{log: log}
	srv := httptest.NewServer(a)
	ts.Defer(func() { srv.Close(); log.Close() })
	u, err := url.Parse(srv.URL)
	ts.Check(err)
	a.did = "did:web:localhost%3A" + u.Port()
	pixel, err := base64.StdEncoding.DecodeString(onePixel)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("pixel.png"), pixel, 0o600))
	ts.Setenv("APPVIEW", a.did+"#bsky_appview")
	ts.Setenv("APPVIEW_HOST", "localhost:"+u.Port())
	ts.Setenv("APPVIEW_URL", "http://localhost:"+u.Port())
}

func (a *fakeAppView) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/.well-known/did.json":
		fmt.Fprintf(w, `{"id":%q,"service":[{"id":"#bsky_appview","type":"BskyAppView","serviceEndpoint":"http://%s"}]}`, a.did, strings.Replace(r.Host, "127.0.0.1", "localhost", 1))
		return
	case "/page":
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, `<html><head><title>A plain title</title><meta property="og:title" content="A page &amp; its title"><meta name="description" content="What it says"><meta property="og:image" content="/picture.png"></head></html>`)
		return
	case "/picture.png":
		b, _ := base64.StdEncoding.DecodeString(onePixel)
		_, _ = w.Write(b)
		return
	}
	nsid := strings.TrimPrefix(r.URL.Path, "/xrpc/")
	body, _ := io.ReadAll(r.Body)
	from, ok := a.caller(r, nsid)
	if !ok {
		xrpc.WriteError(w, r, xrpc.ErrAuthRequired.With("want a token of the PDS for me and for this method"))
		return
	}
	a.mu.Lock()
	q, _ := url.QueryUnescape(r.URL.RawQuery)
	fmt.Fprintf(a.log, "%s %s?%s %s %s\n", r.Method, nsid, q, body, from)
	a.mu.Unlock()
	post := func(key, text, parent string) map[string]any {
		rec := map[string]any{"$type": "app.bsky.feed.post", "text": text, "createdAt": "2026-01-01T00:00:00Z"}
		if parent != "" {
			ref := map[string]any{"uri": uriOf(parent), "cid": someCID}
			rec["reply"] = map[string]any{"root": ref, "parent": ref}
		}
		return map[string]any{"uri": uriOf(key), "cid": someCID, "author": map[string]any{"did": "did:plc:ewvi7nxzyoun6zhxrhs64oiz", "handle": "bob.test"},
			"record": rec, "indexedAt": "2026-01-01T00:00:00Z"}
	}
	thread := func(v map[string]any, more ...any) map[string]any {
		t := map[string]any{"$type": "app.bsky.feed.defs#threadViewPost", "post": v}
		for i := 0; i < len(more); i += 2 {
			t[more[i].(string)] = more[i+1]
		}
		return t
	}
	var out any
	switch nsid {
	case "app.bsky.feed.getTimeline", "app.bsky.feed.getAuthorFeed", "app.bsky.feed.getFeed", "app.bsky.feed.getListFeed":
		// Three pages, of which one is empty.
		pages := map[string]map[string]any{
			"": {"cursor": "2", "feed": []any{map[string]any{"post": post("1", "the first\x1b[31m line\nthe second", "")}}}, "2": {"cursor": "3", "feed": []any{}},
			"3": {"feed": []any{map[string]any{"post": post("2", "older", "")}}},
		}
		out = pages[r.URL.Query().Get("cursor")]
	case "app.bsky.feed.searchPosts":
		out = map[string]any{"posts": []any{}}
		if r.URL.Query().Get("q") != "nothing" {
			out = map[string]any{"posts": []any{post("1", "found", "")}}
		}
	case "app.bsky.feed.getPostThread":
		out = map[string]any{"thread": thread(post("1", "the post", "0"), "parent", thread(post("0", "what it answers", "")),
			"replies", []any{thread(post("3", "an answer", "1"), "replies", []any{thread(post("4", "an answer to that", "3"))})})}
	case "app.bsky.actor.getProfile":
		out = map[string]any{"did": "did:plc:ewvi7nxzyoun6zhxrhs64oiz", "handle": "bob.test", "displayName": "Bob", "followersCount": 7}
	case "app.bsky.notification.listNotifications":
		out = map[string]any{"notifications": []any{
			map[string]any{"uri": uriOf("9"), "cid": someCID, "author": map[string]any{"did": "did:plc:ewvi7nxzyoun6zhxrhs64oiz", "handle": "bob.test"}, "reason": "like",
				"reasonSubject": uriOf("1"), "record": map[string]any{"$type": "app.bsky.feed.like"}, "isRead": false, "indexedAt": "2026-01-01T00:00:00Z"}}}
	case "app.bsky.notification.updateSeen", "app.bsky.graph.muteActor", "app.bsky.graph.unmuteActor":
		w.Header().Del("Content-Type")
		return
	default:
		xrpc.WriteError(w, r, xrpc.ErrNotImplemented)
		return
	}
	_ = json.NewEncoder(w).Encode(out)
}

const (
	someCID  = "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"
	onePixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

func uriOf(key string) string {
	return "at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/app.bsky.feed.post/" + key
}

// caller is the account that a token is of, if it is one for this service and method.
func (a *fakeAppView) caller(r *http.Request, nsid string) (string, bool) {
	parts := strings.Split(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), ".")
	if len(parts) != 3 {
		return "", false
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct{ Iss, Aud, Lxm string }
	if err != nil || json.Unmarshal(b, &claims) != nil {
		return "", false
	}
	return claims.Iss, claims.Aud == a.did+"#bsky_appview" && claims.Lxm == nsid
}

func TestThreadOf(t *testing.T) {
	for in, want := range map[string][]string{
		"":                                nil,
		"one":                             {"one"},
		"one\n---\ntwo\n":                 {"one", "two"},
		"---\n one \r\nmore\r\n-----\r\n": {"one \nmore"},
		"a\n--\nb\n --- \nc --- d":        {"a\n--\nb", "c --- d"},
	} {
		if got := threadOf(in); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestReadPageCard(t *testing.T) {
	for name, tt := range map[string][4]string{
		"title alone":    {"<title> A\n title </title>", "A title", "", ""},
		"open graph":     {`<meta property="og:title" content="T"><title>x</title><meta content="D" property="og:description"><meta property="og:image" content="i.png"/>`, "T", "D", "i.png"},
		"not the script": {`<script>var a = "<title>no</title>"</script><title>yes</title>`, "yes", "", ""},
		"nothing":        {"hello", "", "", ""},
		"long":           {"<title>" + strings.Repeat("ä", 400) + "</title>", strings.Repeat("ä", 150) + "…", "", ""},
	} {
		title, description, image, err := readPageCard(strings.NewReader(tt[0]))
		if got := [3]string{title, description, image}; err != nil || got != [3]string(tt[1:]) {
			t.Errorf("%s: %q, %v, want %q", name, got, err, tt[1:])
		}
	}
}

func FuzzReadPageCard(f *testing.F) {
	f.Add(`<meta property="og:title" content="T"><title>x</title>`)
	f.Fuzz(func(t *testing.T, s string) {
		title, description, _, err := readPageCard(strings.NewReader(s))
		if err == nil && (len(title) > maxCardText+len("…") || len(description) > maxCardText+len("…")) {
			t.Errorf("%d and %d bytes", len(title), len(description))
		}
	})
}

// FuzzThreadOf holds the parting of a thread against its text: nothing is lost but separators and white space, and pieces that were split fit.
func FuzzThreadOf(f *testing.F) {
	f.Add("one\n---\ntwo")
	f.Add("---\n\r\n----\nx")
	f.Fuzz(func(t *testing.T, s string) {
		for _, p := range threadOf(s) {
			if strings.TrimSpace(p) != p || p == "" {
				t.Errorf("%q holds the piece %q", s, p)
			}
			for _, q := range bsky.Split(p) {
				if !(richtext.Text{Text: q}).FitsPost() {
					t.Errorf("%q doesn't fit", q)
				}
			}
		}
	})
}

// A thread whose answer is lost, or that is broken off between two commits, is gone on with: nothing is posted twice and nothing left out.
func TestThreadGoesOn(t *testing.T) {
	ownHome(t)
	p := newPlainPDS(t)
	var text strings.Builder
	for i := range 120 {
		fmt.Fprintf(&text, "post %d\n---\n", i)
	}
	write(t, "thread.txt", []byte(text.String()))
	for _, refuse := range []int{1, 2, 3} {
		p.records, p.writes = map[string]string{}, 0
		p.refuse = refuse
		code, _, errs := p.baro(t, "bsky", "post", "--thread", "thread.txt")
		if code != exitFailure || !strings.Contains(errs, "goes on where this one ended") || len(p.records) != 50*(refuse-1) {
			t.Fatalf("refusing commit %d: exit code %d, %d posts: %s", refuse, code, len(p.records), errs)
		}
		p.refuse = 0
		code, out, errs := p.baro(t, "bsky", "post", "--thread", "thread.txt")
		if code != exitOK || len(p.records) != 120 || strings.Count(out, "\n") != 120 || !strings.Contains(errs, "begun before") {
			t.Fatalf("going on: exit code %d, %d posts: %s", code, len(p.records), errs)
		}
		if p.writes != 4 { // three, and the refused one
			t.Errorf("%d commits", p.writes)
		}
	}
	// One that is done is no longer known, and can be posted again.
	if code, _, errs := p.baro(t, "bsky", "post", "--thread", "thread.txt"); code != exitOK || len(p.records) != 240 {
		t.Errorf("once more: exit code %d, %d posts: %s", code, len(p.records), errs)
	}
}

// plainPDS is a PDS that has one account and keeps its records, and can be told to fail.
type plainPDS struct {
	*liar
	records map[string]string // by path
	writes  int
	refuse  int // fail at this commit; 0: at none
}

func newPlainPDS(t *testing.T) *plainPDS {
	p := &plainPDS{liar: newLiar(t), records: map[string]string{}}
	jwt := func(typ string) string {
		enc := base64.RawURLEncoding.EncodeToString
		return enc([]byte(`{"typ":"`+typ+`","alg":"ES256K"}`)) + "." + enc(fmt.Appendf(nil, `{"sub":%q,"exp":%d}`, testDID, time.Now().Add(time.Hour).Unix())) + "." + enc([]byte("x"))
	}
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	p.methods["com.atproto.server.createSession"] = func(w http.ResponseWriter, r *http.Request) {
		answer(w, map[string]any{"did": testDID, "handle": "alice.test", "accessJwt": jwt("at+jwt"), "refreshJwt": jwt("refresh+jwt")})
	}
	p.methods["com.atproto.repo.applyWrites"] = func(w http.ResponseWriter, r *http.Request) {
		if p.writes++; p.writes == p.refuse {
			xrpc.WriteError(w, r, xrpc.ErrRateLimitExceeded.With("slow down"))
			return
		}
		var in struct {
			Writes []struct {
				Collection, Rkey string
				Value            json.RawMessage
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		for _, x := range in.Writes {
			path := x.Collection + "/" + x.Rkey
			if p.records[path] != "" {
				t.Errorf("%s is posted twice", path)
			}
			p.records[path] = string(x.Value)
		}
		answer(w, map[string]any{})
	}
	p.methods["com.atproto.repo.getRecord"] = func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.Query().Get("collection") + "/" + r.URL.Query().Get("rkey")
		value, ok := p.records[path]
		if !ok {
			xrpc.WriteError(w, r, &xrpc.Error{Status: http.StatusBadRequest, Name: "RecordNotFound", Message: "not here"})
			return
		}
		raw := rawOf(t, value)
		answer(w, map[string]any{"uri": "at://" + testDID + "/" + path, "cid": recordCID(raw), "value": json.RawMessage(value)})
	}
	t.Setenv("BARO_PASSWORD", "x")
	if code, _, errs := p.baro(t, "account", "login", "alice.test"); code != exitOK {
		t.Fatal(errs)
	}
	t.Chdir(t.TempDir())
	return p
}

const testDID = string(repotest.DID)

func rawOf(t *testing.T, s string) data.Raw {
	t.Helper()
	var raw data.Raw
	if err := raw.UnmarshalJSON([]byte(s)); err != nil {
		t.Fatal(err)
	}
	return raw
}

func recordCID(raw data.Raw) string { return cid.Sum(cid.DagCBOR, raw).String() }
