package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/repo/repotest"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

const (
	account = repotest.DID
	note    = "com.example.note"
)

// pds answers methods with functions.
type pds map[string]http.HandlerFunc

func (p pds) start(t *testing.T, o client.Options) *client.Client {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := p[strings.TrimPrefix(r.URL.Path, "/xrpc/")]
		if h == nil {
			xrpc.WriteError(w, r, xrpc.ErrNotImplemented)
			return
		}
		h(w, r)
	}))
	t.Cleanup(s.Close)
	return client.New(s.URL, o)
}

func answer(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func uri(t *testing.T, s string) syntax.ATURI {
	t.Helper()
	u, err := syntax.ParseATURI(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func record(text string) (raw data.Raw, json string, id string) {
	raw = repotest.Record(text)
	return raw, fmt.Sprintf(`{"$type":%q,"text":%q}`, note, text), cid.Sum(cid.DagCBOR, raw).String()
}

func TestGet(t *testing.T) {
	raw, body, id := record("hi")
	at := "at://" + string(account) + "/" + note + "/1"
	good := fmt.Sprintf(`{"uri":%q,"cid":%q,"value":%s,"new":1}`, at, id, body)
	c := pds{"com.atproto.repo.getRecord": answer(200, good)}.start(t, client.Options{})

	r, err := client.Get[data.Raw](t.Context(), c, uri(t, at), client.GetOptions{})
	if err != nil || !bytes.Equal(r.Value, raw) || string(r.URI) != at || r.CID.String() != id {
		t.Errorf("%v, %v", r, err)
	}
	tree, err := client.Get[any](t.Context(), c, uri(t, at), client.GetOptions{})
	if err != nil || cmp.Diff(tree.Value, any(map[string]any{"$type": note, "text": "hi"})) != "" {
		t.Errorf("%v, %v", tree, err)
	}
	if _, err := client.Get[appbsky.FeedPost](t.Context(), c, uri(t, at), client.GetOptions{}); err == nil {
		t.Error("a note as a post")
	}
	if _, err := client.Get[data.Raw](t.Context(), c, uri(t, at), client.GetOptions{CID: cid.Sum(cid.DagCBOR, []byte{0xa0})}); !errors.Is(err, client.ErrBadAnswer) {
		t.Errorf("another version: %v", err)
	}
	if _, err := client.Get[data.Raw](t.Context(), c, uri(t, "at://"+string(account)+"/"+note), client.GetOptions{}); err == nil {
		t.Error("a collection as a record")
	}
}

// What a lying or broken server may answer instead of a record.
func TestGetRefuses(t *testing.T) {
	_, body, id := record("hi")
	_, other, _ := record("ho")
	at := "at://" + string(account) + "/" + note + "/1"
	is := func(target error) func(error) bool { return func(err error) bool { return errors.Is(err, target) } }
	as := func(err error) bool { _, ok := errors.AsType[*client.HashError](err); return ok }
	anyErr := func(err error) bool { return err != nil }
	for _, tt := range []struct {
		name string
		h    http.HandlerFunc
		ok   func(error) bool
	}{
		{"another record's bytes", answer(200, fmt.Sprintf(`{"uri":%q,"cid":%q,"value":%s}`, at, id, other)), as},
		{"another key", answer(200, fmt.Sprintf(`{"uri":%q,"cid":%q,"value":%s}`, at+"2", id, body)), is(client.ErrBadAnswer)},
		{"another account", answer(200, fmt.Sprintf(`{"uri":"at://did:plc:bbbbbbbbbbbbbbbbbbbbbbbb/%s/1","cid":%q,"value":%s}`, note, id, body)), is(client.ErrBadAnswer)},
		{"no URI", answer(200, fmt.Sprintf(`{"uri":"x","cid":%q,"value":%s}`, id, body)), is(client.ErrBadAnswer)},
		{"bad CID", answer(200, fmt.Sprintf(`{"uri":%q,"cid":"bafy","value":%s}`, at, body)), is(client.ErrBadAnswer)},
		{"a float", answer(200, fmt.Sprintf(`{"uri":%q,"cid":%q,"value":{"x":1.5}}`, at, id)), anyErr},
		{"truncated", answer(200, good(at, id, body)[:40]), anyErr},
		{"HTML", answer(200, "<html>", "Content-Type", "text/html"), anyErr},
		{"empty", answer(200, ""), anyErr},
		{"not found", answer(400, `{"error":"RecordNotFound","message":"no"}`), is(client.ErrRecordNotFound)},
		{"not found, the old way", answer(400, `{"error":"InvalidRequest","message":"Could not locate record: x"}`), is(client.ErrRecordNotFound)},
		{"too many", answer(429, `{"error":"RateLimitExceeded"}`, "Retry-After", "7"), func(err error) bool {
			e, ok := errors.AsType[*xrpc.Error](err)
			if !ok || e.Status != 429 {
				return false
			}
			d, ok := e.RetryAfter()
			return ok && d == 7*time.Second
		}},
		{"too many, without a word", answer(429, ""), func(err error) bool {
			e, ok := errors.AsType[*xrpc.Error](err)
			return ok && e.Status == 429
		}},
		{"a proxy's error", answer(502, "<h1>Bad Gateway</h1>"), func(err error) bool {
			e, ok := errors.AsType[*xrpc.Error](err)
			return ok && e.Status == 502 && e.Name == ""
		}},
		{"endless", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			chunk := bytes.Repeat([]byte(" "), 1<<16)
			for {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}, anyErr},
	} {
		var n atomic.Int64
		c := pds{"com.atproto.repo.getRecord": func(w http.ResponseWriter, r *http.Request) { n.Add(1); tt.h(w, r) }}.start(t, client.Options{})
		_, err := client.Get[data.Raw](t.Context(), c, uri(t, at), client.GetOptions{})
		if !tt.ok(err) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if n.Load() != 1 {
			t.Errorf("%s: %d requests", tt.name, n.Load())
		}
	}
}

func good(at, id, body string) string {
	return fmt.Sprintf(`{"uri":%q,"cid":%q,"value":%s}`, at, id, body)
}

func TestTimeout(t *testing.T) {
	done := make(chan struct{})
	c := pds{"com.atproto.repo.getRecord": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{")
		w.(http.Flusher).Flush()
		<-done
	}}.start(t, client.Options{Timeout: 50 * time.Millisecond})
	defer close(done)
	_, err := client.Get[data.Raw](t.Context(), c, uri(t, "at://"+string(account)+"/"+note+"/1"), client.GetOptions{})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// testRepo is a signed repository with n notes.
type testRepo struct {
	block []byte
	tree  *mst.Tree
	data  map[string][]byte
}

func newRepo(t *testing.T, n int) *testRepo {
	t.Helper()
	r := &testRepo{data: map[string][]byte{}}
	var writes []repo.Write
	for i := range n {
		p := fmt.Sprintf("%s/%04d", note, i)
		r.data[p] = repotest.Record(p)
		writes = append(writes, repo.Write{Path: p, Record: r.data[p]})
	}
	u, tree, err := repo.Apply(mst.New(), writes, account, repotest.Rev, repotest.Key())
	if err != nil {
		t.Fatal(err)
	}
	r.block, r.tree = u.Block, tree
	return r
}

func (r *testRepo) proof(t *testing.T, path string) []byte {
	t.Helper()
	b, err := repo.MakeProof(r.block, r.tree, path, r.data[path])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (r *testRepo) car(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	err := repo.WriteCAR(&b, r.block, r.tree, func(p string, _ cid.CID) ([]byte, error) { return r.data[p], nil })
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func bytesAnswer(b []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.ipld.car")
		_, _ = w.Write(b)
	}
}

func TestGetVerified(t *testing.T) {
	r := newRepo(t, 50)
	key := repotest.Key().Public()
	p := note + "/0007"
	at := uri(t, "at://"+string(account)+"/"+p)
	get := func(b []byte, u syntax.ATURI, key *keys.PublicKey) (*client.Record[data.Raw], error) {
		c := pds{"com.atproto.sync.getRecord": bytesAnswer(b)}.start(t, client.Options{})
		return client.Get[data.Raw](t.Context(), c, u, client.GetOptions{Key: key})
	}
	got, err := get(r.proof(t, p), at, key)
	if err != nil || !bytes.Equal(got.Value, r.data[p]) || got.Proof == nil || !got.Proof.Signed || len(got.Proof.Steps) < 4 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := get(r.proof(t, note+"/none"), uri(t, "at://"+string(account)+"/"+note+"/none"), key); !errors.Is(err, client.ErrRecordNotFound) {
		t.Errorf("absent: %v", err)
	}
	if _, err := get(r.proof(t, p), uri(t, "at://alice.test/"+p), key); err == nil {
		t.Error("verified for a handle")
	}
	stranger, _ := keys.NewPrivate(keys.P256, bytes.Repeat([]byte{9}, 32))
	proof := r.proof(t, p)
	for name, tt := range map[string]struct {
		b   []byte
		key *keys.PublicKey
	}{
		"another key":      {proof, stranger.Public()},
		"another record":   {r.proof(t, note+"/0008"), key},
		"a truncated file": {proof[:len(proof)-9], key},
		"a changed byte":   {flip(proof, len(proof)-3), key},
		"nothing":          {nil, key},
		"too much":         {bytes.Repeat([]byte{0}, 5<<20), key},
	} {
		_, err := get(tt.b, at, tt.key)
		if _, ok := errors.AsType[*repo.VerifyError](err); !ok && !errors.Is(err, client.ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func flip(b []byte, i int) []byte {
	c := bytes.Clone(b)
	c[i] ^= 1
	return c
}

func TestRepo(t *testing.T) {
	r := newRepo(t, 150)
	b := r.car(t)
	key := repotest.Key().Public()
	var tee bytes.Buffer
	c := pds{"com.atproto.sync.getRepo": bytesAnswer(b)}.start(t, client.Options{})
	got, err := c.Repo(t.Context(), account, client.RepoOptions{Key: key, Tee: &tee})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for rec, err := range got.Records() {
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(rec.Data, r.data[string(rec.Path)]) {
			t.Errorf("%s is something else", rec.Path)
		}
		n++
	}
	if err := got.Close(); err != nil || n != 150 || !got.Report().OK() || !bytes.Equal(tee.Bytes(), b) {
		t.Errorf("%d records, %v", n, err)
	}
	if _, err := c.Repo(t.Context(), account, client.RepoOptions{}); !errors.Is(err, client.ErrNoKey) {
		t.Errorf("without a key: %v", err)
	}

	read := func(h http.HandlerFunc, o client.Options, did syntax.DID) error {
		c := pds{"com.atproto.sync.getRepo": h}.start(t, o)
		got, err := c.Repo(t.Context(), did, client.RepoOptions{Key: key, Now: time.Now(), Records: repo.RecordsStrict})
		if err != nil {
			return err
		}
		defer got.Close()
		for _, err := range got.Records() {
			if err != nil {
				return err
			}
		}
		if f := got.Report().Failed(); f != nil {
			return &repo.VerifyError{Reason: f.Name, Detail: f.Detail}
		}
		return nil
	}
	verify := func(name string, err error) {
		t.Helper()
		if _, ok := errors.AsType[*repo.VerifyError](err); !ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	verify("another account", read(bytesAnswer(b), client.Options{}, "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"))
	verify("a changed byte", read(bytesAnswer(flip(b, len(b)/2)), client.Options{}, account))
	verify("truncated", read(bytesAnswer(b[:len(b)/2]), client.Options{}, account))
	for _, h := range repotest.Hostile() {
		verify(h.Name, read(bytesAnswer(h.CAR), client.Options{}, account))
	}
	if err := read(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		_, _ = w.Write(b[:len(b)/2])
	}, client.Options{}, account); err == nil {
		t.Error("a connection cut in the middle passed")
	}

	done := make(chan struct{})
	defer close(done)
	if err := read(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(b[:len(b)/2])
		w.(http.Flusher).Flush()
		select {
		case <-done:
		case <-r.Context().Done():
		}
	}, client.Options{Stall: 50 * time.Millisecond}, account); !errors.Is(err, client.ErrStalled) {
		t.Errorf("stalled: %v", err)
	}
	if err := read(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-done:
		case <-r.Context().Done():
		}
	}, client.Options{Stall: 50 * time.Millisecond}, account); !errors.Is(err, client.ErrStalled) {
		t.Errorf("silent: %v", err)
	}
}

type drip struct{ n int }

func (d *drip) Read(p []byte) (int, error) { d.n++; time.Sleep(time.Second); p[0] = 'x'; return 1, nil }
func (d *drip) Close() error               { return nil }

type dripTransport struct{}

func (dripTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, Header: http.Header{}, Body: &drip{}, ContentLength: -1, Request: r}, nil
}

// A server that sends a byte each second is cut, though it never stalls.
func TestDrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := client.New("https://pds.example", client.Options{HTTP: &http.Client{Transport: dripTransport{}}, Now: time.Now})
		start := time.Now()
		b, err := c.Blob(t.Context(), account, cid.Sum(cid.Raw, nil), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if _, err := io.Copy(io.Discard, b); !errors.Is(err, client.ErrStalled) {
			t.Errorf("got %v", err)
		}
		if d := time.Since(start); d > 2*time.Minute {
			t.Errorf("it took %s", d)
		}
	})
}

func TestBlob(t *testing.T) {
	content := bytes.Repeat([]byte("barograph"), 10_000)
	id := cid.Sum(cid.Raw, content)
	read := func(h http.HandlerFunc, max int64) ([]byte, error) {
		c := pds{"com.atproto.sync.getBlob": h}.start(t, client.Options{})
		b, err := c.Blob(t.Context(), account, id, max)
		if err != nil {
			return nil, err
		}
		defer b.Close()
		return io.ReadAll(b)
	}
	if b, err := read(bytesAnswer(content), 0); err != nil || !bytes.Equal(b, content) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if _, err := read(bytesAnswer(flip(content, 5)), 0); !isHash(err) {
		t.Errorf("a lie: %v", err)
	}
	if _, err := read(bytesAnswer(append(bytes.Clone(content), 0)), 0); !isHash(err) {
		t.Errorf("a byte more: %v", err)
	}
	if _, err := read(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(content[:1000])
		w.(http.Flusher).Flush()
	}, 0); !isHash(err) {
		t.Errorf("truncated: %v", err)
	}
	if _, err := read(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "90000")
		_, _ = w.Write(content[:1000])
	}, 0); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut: %v", err)
	}
	if _, err := read(bytesAnswer(content), 1000); !errors.Is(err, client.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if _, err := read(func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := w.Write(content); err != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
	}, 100_000); !errors.Is(err, client.ErrTooLarge) {
		t.Errorf("endless: %v", err)
	}
	if _, err := read(answer(400, `{"error":"BlobNotFound"}`), 0); !errors.Is(err, xrpc.ErrorName("BlobNotFound")) {
		t.Errorf("not found: %v", err)
	}
}

func isHash(err error) bool { _, ok := errors.AsType[*client.HashError](err); return ok }

func TestUploadBlob(t *testing.T) {
	content := []byte("hello")
	var got []byte
	blob := func(b []byte, size int) string {
		return fmt.Sprintf(`{"blob":{"$type":"blob","ref":{"$link":%q},"mimeType":"text/plain","size":%d}}`, cid.Sum(cid.Raw, b), size)
	}
	for _, tt := range []struct {
		body string
		ok   bool
	}{{blob(content, 5), true}, {blob([]byte("other"), 5), false}, {blob(content, 6), false}, {"{}", false}} {
		c := pds{"com.atproto.repo.uploadBlob": func(w http.ResponseWriter, r *http.Request) {
			got, _ = io.ReadAll(r.Body)
			answer(200, tt.body)(w, r)
		}}.start(t, client.Options{})
		for _, in := range []io.Reader{bytes.NewReader(content), io.MultiReader(bytes.NewReader(content))} {
			b, err := c.UploadBlob(t.Context(), in, "text/plain", 0)
			if (err == nil) != tt.ok || tt.ok && b.Ref != cid.Sum(cid.Raw, content) {
				t.Errorf("%s: %v, %v", tt.body, b, err)
			}
			if !bytes.Equal(got, content) {
				t.Errorf("sent %q", got)
			}
		}
	}
}

// renewer refuses to be believed the first time.
type renewer struct{ n int }

func (r *renewer) Authorize(_ context.Context, req *http.Request) error {
	req.Header.Set("Authorization", fmt.Sprint("Bearer ", r.n))
	return nil
}

func (r *renewer) Refresh(context.Context, *http.Request, *xrpc.Error) (bool, error) {
	r.n++
	return true, nil
}

// A blob that is sent again after its token was renewed is hashed once.
func TestUploadAgain(t *testing.T) {
	content := []byte("skip hello")
	c := pds{"com.atproto.repo.uploadBlob": func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if r.Header.Get("Authorization") == "Bearer 0" {
			answer(401, `{"error":"ExpiredToken"}`)(w, r)
			return
		}
		answer(200, fmt.Sprintf(`{"blob":{"$type":"blob","ref":{"$link":%q},"mimeType":"text/plain","size":%d}}`, cid.Sum(cid.Raw, b), len(b)))(w, r)
	}}.start(t, client.Options{Auth: &renewer{}})
	in := bytes.NewReader(content)
	_, _ = in.Seek(5, io.SeekStart)
	b, err := c.UploadBlob(t.Context(), in, "text/plain", 5)
	if err != nil || b.Ref != cid.Sum(cid.Raw, []byte("hello")) {
		t.Errorf("%v, %v", b, err)
	}
}

// page answers listRecords with pages of notes, whose cursors are given by next.
func page(n int, next func(cursor string) string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		cur := r.URL.Query().Get("cursor")
		var items []string
		for i := range n {
			_, body, id := record(fmt.Sprint(cur, i))
			items = append(items, good(fmt.Sprintf("at://%s/%s/%s%d", account, note, cur, i), id, body))
		}
		end := ""
		if c := next(cur); c != "" {
			end = fmt.Sprintf(`,"cursor":%q`, c)
		}
		answer(200, `{"records":[`+strings.Join(items, ",")+`]`+end+`}`)(w, r)
	}
}

func TestList(t *testing.T) {
	var calls atomic.Int64
	next := map[string]string{"": "a", "a": "b", "b": ""}
	h := page(3, func(c string) string { calls.Add(1); return next[c] })
	c := pds{"com.atproto.repo.listRecords": h}.start(t, client.Options{})
	var got []string
	for r, err := range client.List[data.Raw](t.Context(), c, syntax.AtIdentifier(account), client.ListOptions{Collection: note}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(r.URI.RecordKey()))
	}
	if d := cmp.Diff(got, []string{"0", "1", "2", "a0", "a1", "a2", "b0", "b1", "b2"}); d != "" {
		t.Error(d)
	}

	// Lazy: a loop that ends in the first page fetches no other.
	calls.Store(0)
	for range client.List[data.Raw](t.Context(), c, syntax.AtIdentifier(account), client.ListOptions{Collection: note}) {
		break
	}
	if calls.Load() != 1 {
		t.Errorf("%d pages fetched", calls.Load())
	}
}

// Lists that never end do end.
func TestListLoops(t *testing.T) {
	for name, tt := range map[string]struct {
		n    int
		next func(string) string
	}{
		"the same cursor": {1, func(string) string { return "x" }},
		"two in turn": {1, func(c string) string {
			if c == "x" {
				return "y"
			}
			return "x"
		}},
		"a circle after a start": {1, func(c string) string {
			if len(c) < 20 {
				return c + "x"
			}
			return strings.Repeat("x", 12)
		}},
		"empty pages": {0, func(c string) string { return c + "x" }},
	} {
		var calls atomic.Int64
		c := pds{"com.atproto.repo.listRecords": page(tt.n, func(s string) string { calls.Add(1); return tt.next(s) })}.start(t, client.Options{})
		var last error
		for _, err := range client.List[data.Raw](t.Context(), c, syntax.AtIdentifier(account), client.ListOptions{Collection: note}) {
			last = err
		}
		if !errors.Is(last, client.ErrPaging) || calls.Load() > 120 {
			t.Errorf("%s: %v after %d pages", name, last, calls.Load())
		}
	}
}

// A bad record ends the list, or is told and left out; those before it and after it are there.
func TestListBadRecords(t *testing.T) {
	_, body, id := record("0")
	at := func(k string) string { return "at://" + string(account) + "/" + note + "/" + k }
	items := []string{
		good(at("0"), id, body),
		good(at("1"), id, `{"$type":"com.example.note","text":"a lie"}`),
		good(at("2"), id, `{"$type":"com.example.note","text":1.5}`),
		good("at://"+string(account)+"/com.example.other/1", id, body),
		good(at("3"), id, body),
	}
	c := pds{"com.atproto.repo.listRecords": answer(200, `{"records":[`+strings.Join(items, ",")+`]}`)}.start(t, client.Options{})
	var bad []string
	n := 0
	o := client.ListOptions{Collection: note, OnBad: func(e *client.DecodeError) { bad = append(bad, e.URI) }}
	for _, err := range client.List[data.Raw](t.Context(), c, syntax.AtIdentifier(account), o) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 2 || len(bad) != 3 {
		t.Errorf("%d good, bad: %v", n, bad)
	}
	n = 0
	var last error
	for _, err := range client.List[data.Raw](t.Context(), c, syntax.AtIdentifier(account), client.ListOptions{Collection: note}) {
		if last = err; err == nil {
			n++
		}
	}
	if _, ok := errors.AsType[*client.DecodeError](last); !ok || n != 1 {
		t.Errorf("%d good, then %v", n, last)
	}
}

func TestWrites(t *testing.T) {
	var in map[string]any
	rawNote, _, id := record("hi")
	var value any
	reply := func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		in = map[string]any{}
		raw, err := data.AppendCBOR(nil, b)
		if err != nil {
			t.Error(err)
		}
		v, _ := data.Decode(raw)
		in = v.(map[string]any)
		value = in["record"]
		key, _ := in["rkey"].(string)
		if key == "" {
			key = "3kserverchose"
		}
		answer(200, fmt.Sprintf(`{"uri":"at://%s/%s/%s","cid":%q,"commit":{"cid":%q,"rev":%q}}`, account, in["collection"], key, id, id, repotest.Rev))(w, r)
	}
	p := pds{"com.atproto.repo.createRecord": reply, "com.atproto.repo.putRecord": reply, "com.atproto.repo.deleteRecord": reply}
	c := p.start(t, client.Options{DID: account})
	ref, err := client.Create(t.Context(), c, &rawNote, client.WriteOptions{Validate: new(false)})
	if err != nil || ref.URI.RecordKey() != "3kserverchose" || ref.Rev != repotest.Rev || in["repo"] != string(account) || in["validate"] != false || in["rkey"] != nil {
		t.Errorf("%+v, %v, sent %v", ref, err, in)
	}
	if d := cmp.Diff(value, any(map[string]any{"$type": note, "text": "hi"})); d != "" {
		t.Error(d)
	}
	ref, err = client.Put(t.Context(), c, "self", &rawNote, client.WriteOptions{MustNotExist: true, SwapCommit: cid.Sum(cid.DagCBOR, nil)})
	if v, there := in["swapRecord"]; err != nil || ref.URI.RecordKey() != "self" || !there || v != nil || in["swapCommit"] == nil {
		t.Errorf("%+v, %v, sent %v", ref, err, in)
	}
	if ref, err = c.Delete(t.Context(), ref.URI, client.WriteOptions{}); err != nil || ref.Rev != repotest.Rev || in["rkey"] != "self" {
		t.Errorf("%+v, %v, sent %v", ref, err, in)
	}

	// A typed record is written with its type; a server that claims to have written another one is found out.
	post := &appbsky.FeedPost{Text: "hi", CreatedAt: "2026-01-01T00:00:00Z"}
	if _, err := client.Create(t.Context(), c, post, client.WriteOptions{}); !isHash(err) || in["collection"] != "app.bsky.feed.post" {
		t.Errorf("%v, sent %v", err, in)
	}

	for name, f := range map[string]func(*client.Client) error{
		"create": func(c *client.Client) error {
			_, err := client.Create(t.Context(), c, post, client.WriteOptions{})
			return err
		},
		"put": func(c *client.Client) error {
			_, err := client.Put(t.Context(), c, "a", post, client.WriteOptions{})
			return err
		},
		"delete": func(c *client.Client) error {
			_, err := c.Delete(t.Context(), "at://did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/a.b.c/d", client.WriteOptions{})
			return err
		},
	} {
		if err := f(client.New(c.Host(), client.Options{})); !errors.Is(err, client.ErrNoAccount) {
			t.Errorf("%s without an account: %v", name, err)
		}
		var n atomic.Int64
		h := func(w http.ResponseWriter, r *http.Request) { n.Add(1); answer(503, "")(w, r) }
		busy := pds{"com.atproto.repo.createRecord": h, "com.atproto.repo.putRecord": h, "com.atproto.repo.deleteRecord": h}.start(t, client.Options{DID: account})
		if err := f(busy); err == nil || n.Load() != 1 {
			t.Errorf("%s: %d attempts, %v", name, n.Load(), err)
		}
	}
	if _, err := c.Delete(t.Context(), "at://did:plc:bbbbbbbbbbbbbbbbbbbbbbbb/a.b.c/d", client.WriteOptions{}); err == nil {
		t.Error("deleted somebody else's record")
	}
	var floats any = map[string]any{"$type": note, "x": 1.5}
	if _, err := client.Create(t.Context(), c, &floats, client.WriteOptions{}); err == nil {
		t.Error("a float was sent")
	}
}

func TestDescribeAndLists(t *testing.T) {
	c := pds{
		"com.atproto.repo.describeRepo":     answer(200, `{"handle":"alice.test","did":"`+string(account)+`","didDoc":{},"collections":["`+note+`"],"handleIsCorrect":true}`),
		"com.atproto.sync.listRepos":        answer(200, `{"repos":[{"did":"`+string(account)+`","head":"x","rev":"y","active":false,"status":"takendown"},{"did":"did:web:x.example","head":"x","rev":"y"}]}`),
		"com.atproto.repo.listMissingBlobs": answer(200, `{"blobs":[{"cid":"`+cid.Sum(cid.Raw, nil).String()+`","recordUri":"at://a.test/a.b.c/d"}]}`),
	}.start(t, client.Options{})
	d, err := c.DescribeRepo(t.Context(), syntax.AtIdentifier(account))
	if err != nil || len(d.Collections) != 1 || d.Handle != "alice.test" {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := c.DescribeRepo(t.Context(), "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"); !errors.Is(err, client.ErrBadAnswer) {
		t.Errorf("another account: %v", err)
	}
	var repos []client.RepoInfo
	for r, err := range c.ListRepos(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		repos = append(repos, r)
	}
	if len(repos) != 2 || repos[0].Active || repos[0].Status != "takendown" || !repos[1].Active {
		t.Errorf("%+v", repos)
	}
	for b, err := range c.MissingBlobs(t.Context()) {
		if err != nil || b.CID != cid.Sum(cid.Raw, nil) {
			t.Errorf("%v, %v", b, err)
		}
	}
	for _, err := range (pds{"com.atproto.sync.listRepos": answer(200, `{"repos":[{"did":"x","head":"x","rev":"y"}]}`)}).start(t, client.Options{}).ListRepos(t.Context()) {
		if !errors.Is(err, client.ErrBadAnswer) {
			t.Errorf("got %v", err)
		}
	}
}

func TestDecodeAll(t *testing.T) {
	raw, _, _ := record("hi")
	post, err := data.Marshal(&appbsky.FeedPost{Text: "hi", CreatedAt: "2026-01-01T00:00:00Z"})
	if err != nil {
		t.Fatal(err)
	}
	seq := func(yield func(client.Record[data.Raw], error) bool) {
		_ = yield(client.Record[data.Raw]{URI: "at://a.test/a.b.c/1", Value: post}, nil) &&
			yield(client.Record[data.Raw]{URI: "at://a.test/a.b.c/2", Value: raw}, nil) &&
			yield(client.Record[data.Raw]{}, io.ErrUnexpectedEOF)
	}
	ok, bad, err := client.DecodeAll[appbsky.FeedPost](seq)
	if len(ok) != 1 || ok[0].Value.Text != "hi" || len(bad) != 1 || bad[0].URI != "at://a.test/a.b.c/2" || err != io.ErrUnexpectedEOF {
		t.Errorf("%v, %v, %v", ok, bad, err)
	}
}

// TestRepoCAR gets the file as it is, what is newer than a revision if asked for, and gives its connections back.
func TestRepoCAR(t *testing.T) {
	whole := newRepo(t, 5).car(t)
	var since string
	c := pds{"com.atproto.sync.getRepo": func(w http.ResponseWriter, r *http.Request) {
		since = r.URL.Query().Get("since")
		bytesAnswer(whole)(w, r)
	}}.start(t, client.Options{HTTP: new(http.Client)})
	defer c.Close()
	for _, rev := range []syntax.TID{"", "3lbhk2aaaaa2a"} {
		s, err := c.RepoCAR(t.Context(), account, rev)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(s.Body)
		if err != nil || !bytes.Equal(b, whole) || since != string(rev) || s.Type != "application/vnd.ipld.car" {
			t.Errorf("since %q: %d bytes of %s, %v", since, len(b), s.Type, err)
		}
		if err := s.Body.Close(); err != nil {
			t.Error(err)
		}
	}
}
