package xrpc_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/barograph/baro/data"
	"github.com/barograph/baro/xrpc"
)

type listParams struct {
	Did    string   `lex:"did"`
	Limit  *int64   `lex:"min=1,max=100,default=50"`
	Cursor *string  `lex:"maxLength=10"`
	Sort   *string  `lex:"enum=asc|desc"`
	Deep   *bool    `lex:"default=false"`
	Uris   []string `lex:"maxItems=2,at-uri,required"`
	Ids    []int64
}

type listOutput struct {
	Cursor *string    `json:"cursor,omitzero"`
	Items  []string   `json:"items"`
	Extra  data.Extra `json:"-"`
}

type putInput struct {
	Text  string     `json:"text"`
	Extra data.Extra `json:"-"`
}

const errTooLong xrpc.ErrorName = "TooLong"

var (
	list   = xrpc.Query[listParams, listOutput]{NSID: "com.example.list"}
	put    = xrpc.Procedure[putInput, listOutput]{NSID: "com.example.put"}
	reset  = xrpc.Procedure[xrpc.None, xrpc.None]{NSID: "com.example.reset"}
	upload = xrpc.Procedure[xrpc.Body, listOutput]{NSID: "com.example.upload", Accepts: "image/*"}
	get    = xrpc.Query[xrpc.None, xrpc.Stream]{NSID: "com.example.get", Returns: "application/vnd.ipld.car"}
	part   = xrpc.ProcedureWithParams[listParams, xrpc.Body, listOutput]{NSID: "com.example.part", Accepts: "application/octet-stream"}
	watch  = xrpc.Subscription[listParams, data.Union[func()]]{NSID: "com.example.watch"}
)

// newServer serves the methods above; what reaches the log goes to the test.
func newServer(t *testing.T, o xrpc.ServerOptions) (*xrpc.Client, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	s := xrpc.NewServer(o)
	xrpc.HandleQuery(s, list, func(_ context.Context, r *xrpc.Request, p *listParams) (*listOutput, error) {
		r.Out.Set("Atproto-Repo-Rev", "3kabc")
		return &listOutput{Items: append([]string{p.Did, fmt.Sprint(*p.Limit, *p.Deep, p.Ids)}, p.Uris...), Cursor: p.Cursor}, nil
	})
	xrpc.HandleProcedure(s, put, func(_ context.Context, r *xrpc.Request, in *putInput) (*listOutput, error) {
		switch in.Text {
		case "long":
			return nil, fmt.Errorf("storing: %w", errTooLong.With("%d characters", len(in.Text)))
		case "name":
			return nil, errTooLong
		case "secret":
			return nil, errors.New("the password is swordfish")
		case "full":
			return nil, fmt.Errorf("storing: %w", &fs.PathError{Op: "write", Path: "/srv/swordfish", Err: syscall.ENOSPC})
		case "panic":
			panic("swordfish")
		case "nil":
			return nil, nil
		}
		return &listOutput{Items: []string{in.Text, fmt.Sprint(r.Auth)}, Extra: in.Extra}, nil
	})
	xrpc.HandleProcedure(s, reset, func(context.Context, *xrpc.Request, *xrpc.None) (*xrpc.None, error) { return nil, nil })
	xrpc.HandleProcedure(s, upload, func(_ context.Context, _ *xrpc.Request, in *xrpc.Body) (*listOutput, error) {
		b, err := io.ReadAll(in.Reader)
		if err != nil {
			return nil, err
		}
		return &listOutput{Items: []string{in.Type, fmt.Sprint(len(b))}}, nil
	}, xrpc.RouteOptions{MaxBody: 100, Public: true})
	xrpc.HandleQuery(s, get, func(context.Context, *xrpc.Request, *xrpc.None) (*xrpc.Stream, error) {
		return &xrpc.Stream{Body: io.NopCloser(strings.NewReader("car")), Length: 3}, nil
	})
	xrpc.HandleProcedureWithParams(s, part, func(_ context.Context, _ *xrpc.Request, p *listParams, in *xrpc.Body) (*listOutput, error) {
		b, err := io.ReadAll(in.Reader)
		return &listOutput{Items: []string{p.Did, string(b)}}, err
	})
	xrpc.HandleSubscription(s, watch, func(w http.ResponseWriter, r *xrpc.Request, p *listParams) error {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return err
		}
		defer c.Close()
		fmt.Fprintf(c, "HTTP/1.1 101 Switching\r\nX: %s\r\n\r\n", p.Did)
		return errors.New("after the answer")
	})
	xrpc.HandleRaw(s, "com.example.half", "", func(w http.ResponseWriter, r *xrpc.Request) error {
		w.Header().Set("Content-Length", "10")
		io.WriteString(w, "half")
		return errors.New("no more")
	})
	s.Handle("GET /_health", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }))
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	return &xrpc.Client{Host: h.URL, HTTP: h.Client()}, &log
}

func TestCalls(t *testing.T) {
	c, _ := newServer(t, xrpc.ServerOptions{Auth: func(r *http.Request, nsid string) (any, error) {
		return nsid + " " + r.Header.Get("Authorization"), nil
	}})
	ctx := t.Context()
	want := func(got *listOutput, err error, items ...string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(items, got.Items); d != "" {
			t.Error(d)
		}
	}
	uri := "at://did:web:a.b/x.y.z/k"
	out, err := list.Call(ctx, c, &listParams{Did: "did:web:a.b", Uris: []string{uri, uri}, Ids: []int64{-1, 2}})
	want(out, err, "did:web:a.b", "50 false [-1 2]", uri, uri)
	out, err = put.Call(ctx, c.WithAuth(xrpc.Bearer("tok")), &putInput{Text: "ü&+ ", Extra: data.NewExtra(data.ExtraField{Key: "more", Value: data.Raw{1}})})
	want(out, err, "ü&+ ", "com.example.put Bearer tok")
	if out.Extra.Len() != 1 {
		t.Errorf("the unknown field got lost: %v", out.Extra)
	}
	if _, err := reset.Call(ctx, c, nil); err != nil {
		t.Error(err)
	}
	out, err = upload.Call(ctx, c, &xrpc.Body{Reader: strings.NewReader("12345"), Type: "image/png"})
	want(out, err, "image/png", "5")
	out, err = part.Call(ctx, c, &listParams{Did: "did:web:a.b", Uris: []string{uri}}, &xrpc.Body{Reader: strings.NewReader("abc")})
	want(out, err, "did:web:a.b", "abc")
	s, err := get.Call(ctx, c, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Body.Close()
	if b, _ := io.ReadAll(s.Body); string(b) != "car" || s.Type != "application/vnd.ipld.car" || s.Length != 3 {
		t.Errorf("%q %+v", b, s)
	}
	if u, err := watch.URL("https://a.b/", &listParams{Did: "did:web:x.y"}); err != nil || u != "wss://a.b/xrpc/com.example.watch?did=did%3Aweb%3Ax.y&limit=50&deep=false" {
		t.Error(u, err)
	}
	d := c.WithProxy("did:web:a.b#svc").WithLabelers("did:web:l.b").WithHost("https://other")
	if len(c.Header) != 0 || d.Header.Get("Atproto-Proxy") == "" || d.WithProxy("").Header.Get("Atproto-Proxy") != "" || c.Host == d.Host {
		t.Errorf("a client was changed: %v %v", c, d)
	}
}

func TestErrors(t *testing.T) {
	c, log := newServer(t, xrpc.ServerOptions{MaxBody: 1000})
	ctx := t.Context()
	for text, want := range map[string]struct {
		status        int
		name, message string
	}{
		"long": {400, "TooLong", "4 characters"}, "name": {400, "TooLong", ""},
		"secret": {500, "InternalServerError", "internal server error"}, "panic": {500, "InternalServerError", "internal server error"},
		"full": {503, "NotEnoughResources", "the server has no space left to write to"},
		"nil":  {500, "InternalServerError", "internal server error"}, strings.Repeat("x", 2000): {413, "PayloadTooLarge", "the body has 2011 bytes, at most 1000 are accepted"},
	} {
		_, err := put.Call(ctx, c, &putInput{Text: text})
		var e *xrpc.Error
		if !errors.As(err, &e) {
			t.Errorf("%.10s: %v", text, err)
			continue
		}
		if e.Status != want.status || e.Name != want.name || e.Message != want.message {
			t.Errorf("%.10s: got %+v, want %+v", text, e, want)
		}
		if errors.Is(err, errTooLong) != (want.name == "TooLong") {
			t.Errorf("%.10s: errors.Is is wrong", text)
		}
	}
	if n := strings.Count(log.String(), "swordfish"); n < 2 {
		t.Errorf("the log has %d of the unexpected errors:\n%s", n, log)
	}
	s, err := c.Do(ctx, "GET", "com.example.half", "", nil, "")
	if err == nil {
		_, err = io.ReadAll(s.Body)
		s.Body.Close()
	}
	if err == nil {
		t.Error("half an answer was taken for a whole one")
	}
}

// TestWire sends requests as they come from anywhere.
func TestWire(t *testing.T) {
	c, _ := newServer(t, xrpc.ServerOptions{MaxBody: 1000})
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	io.WriteString(z, `{"text":"zip"}`)
	z.Close()
	var bomb bytes.Buffer
	z = gzip.NewWriter(&bomb)
	z.Write(make([]byte, 1<<20))
	z.Close()
	ok := "did=did:web:a.b&uris=at://did:web:a.b"
	for _, x := range []struct {
		method, path, kind, body string
		status                   int
		contains                 string
	}{
		{"GET", "/xrpc/com.example.list?" + ok, "", "", 200, `["did:web:a.b","50 false []"`},
		{"GET", "/xrpc/com.example.list?unknown=1&unknown=2&" + ok, "", "", 200, `{"items"`},
		{"HEAD", "/xrpc/com.example.list?" + ok, "", "", 200, ``},
		{"HEAD", "/xrpc/com.example.get", "", "", 200, ``},
		{"GET", "/xrpc/com.example.list?uris=at://did:web:a.b", "", "", 400, "parameter did is required"},
		{"GET", "/xrpc/com.example.list?did=did:web:a.b", "", "", 400, "parameter uris is required"},
		{"GET", "/xrpc/com.example.list?did=bogus&uris=at://a.b", "", "", 400, "invalid did"},
		{"GET", "/xrpc/com.example.list?did=did:web:b.c&" + ok, "", "", 400, "2 times"},
		{"GET", "/xrpc/com.example.list?limit=0&" + ok, "", "", 400, "between 1 and 100"},
		{"GET", "/xrpc/com.example.list?limit=1e1&" + ok, "", "", 400, "isn't an integer"},
		{"GET", "/xrpc/com.example.list?deep=1&" + ok, "", "", 400, "neither true nor false"},
		{"GET", "/xrpc/com.example.list?sort=up&" + ok, "", "", 400, "none of asc, desc"},
		{"GET", "/xrpc/com.example.list?cursor=12345678901&" + ok, "", "", 400, "at most 10"},
		{"GET", "/xrpc/com.example.list?uris=at://a.b&uris=at://a.b&" + ok, "", "", 400, "3 values"},
		{"GET", "/xrpc/com.example.list?%zz", "", "", 400, "malformed"},
		{"POST", "/xrpc/com.example.list?" + ok, "", "", 405, "takes GET, not POST"},
		{"GET", "/xrpc/com.example.put", "", "", 405, "takes POST"},
		{"DELETE", "/xrpc/com.example.put", "", "", 405, "takes POST"},
		{"GET", "/xrpc/com.example.nothing", "", "", 501, `"error":"MethodNotImplemented"`},
		{"POST", "/xrpc/com.example.nothing", "", "", 501, `"error":"MethodNotImplemented"`},
		{"GET", "/xrpc/", "", "", 404, `"error":"InvalidRequest"`},
		{"GET", "/xrpc/a/b", "", "", 404, `"error":"InvalidRequest"`},
		{"GET", "/xrpc/com.example.list/x", "", "", 404, `"error":"InvalidRequest"`},
		{"GET", "/_health", "", "", 200, "ok"},
		{"GET", "/nothing", "", "", 404, ""},
		{"OPTIONS", "/xrpc/com.example.put", "", "", 204, ""},
		{"POST", "/xrpc/com.example.put", "", "", 400, "a body is required"},
		{"POST", "/xrpc/com.example.put", "text/plain", "{}", 400, "must be of type application/json"},
		{"POST", "/xrpc/com.example.put", "application/json; charset=utf-8", `{"text":"a"}`, 200, `["a",`},
		{"POST", "/xrpc/com.example.put", "application/json", `{"text":"a","text":"b"}`, 400, "key-duplicate"},
		{"POST", "/xrpc/com.example.put", "application/json", `{}`, 400, "missing: text"},
		{"POST", "/xrpc/com.example.put", "application/json", `{"text":`, 400, "malformed"},
		{"POST", "/xrpc/com.example.put", "application/json+gzip", zipped.String(), 200, `["zip",`},
		{"POST", "/xrpc/com.example.put", "application/json+gzip", bomb.String(), 413, `PayloadTooLarge`},
		{"POST", "/xrpc/com.example.put", "application/json+gzip", "no gzip", 400, "can't be read"},
		{"POST", "/xrpc/com.example.put", "application/json+br", "x", 415, "isn't supported"},
		{"POST", "/xrpc/com.example.put", "application/json+chunked", `{"text":"` + strings.Repeat("x", 2000) + `"}`, 413, `PayloadTooLarge`},
		{"POST", "/xrpc/com.example.upload", "image/png", strings.Repeat("x", 101), 413, `PayloadTooLarge`},
		{"POST", "/xrpc/com.example.upload", "image/png+chunked", strings.Repeat("x", 101), 413, `PayloadTooLarge`},
		{"POST", "/xrpc/com.example.upload", "text/html", "x", 400, `must be of type image/*`},
		{"POST", "/xrpc/com.example.upload", "image/", "x", 400, `malformed`},
		{"POST", "/xrpc/com.example.reset", "application/json", `{}`, 200, ""},
	} {
		kind, encoding, _ := strings.Cut(x.kind, "+")
		var body io.Reader = strings.NewReader(x.body)
		if encoding == "chunked" {
			body = io.NopCloser(body)
			encoding = ""
		}
		req, err := http.NewRequestWithContext(t.Context(), x.method, c.Host+x.path, body)
		if err != nil {
			t.Fatal(err)
		}
		if kind != "" {
			req.Header.Set("Content-Type", kind)
		}
		if encoding != "" {
			req.Header.Set("Content-Encoding", encoding)
		}
		resp, err := c.HTTP.Do(req)
		if err != nil {
			t.Errorf("%s %s: %v", x.method, x.path, err)
			continue
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != x.status || !strings.Contains(string(b), x.contains) {
			t.Errorf("%s %s %s %.40q: got %d %.300s, want %d with %q", x.method, x.path, x.kind, x.body, resp.StatusCode, b, x.status, x.contains)
		}
		if strings.HasPrefix(x.path, "/xrpc/") && resp.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s %s: no CORS header", x.method, x.path)
		}
		if x.method == "HEAD" && (len(b) > 0 || resp.ContentLength <= 0) {
			t.Errorf("HEAD %s: %d bytes, length %d", x.path, len(b), resp.ContentLength)
		}
	}
}

func TestHooks(t *testing.T) {
	denied := errors.New("denied")
	c, _ := newServer(t, xrpc.ServerOptions{
		Auth: func(r *http.Request, _ string) (any, error) {
			if r.Header.Get("Authorization") == "" {
				return nil, &xrpc.Error{Status: 401, Name: "AuthMissing", Header: http.Header{"Www-Authenticate": {"Bearer"}}}
			}
			return nil, denied
		},
		Fallback: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "fallback") }),
		Before: func(w http.ResponseWriter, r *http.Request, nsid string) bool {
			if r.Header.Get("Atproto-Proxy") == "" {
				return false
			}
			xrpc.WriteError(w, r, xrpc.ErrUpstreamFailure.With("no %s", nsid))
			return true
		},
	})
	ctx := t.Context()
	_, err := put.Call(ctx, c, &putInput{})
	var e *xrpc.Error
	if !errors.As(err, &e) || e.Status != 401 || e.Header.Get("Www-Authenticate") != "Bearer" {
		t.Errorf("%+v", err)
	}
	if _, err = put.Call(ctx, c.WithAuth(xrpc.Basic{User: "admin", Password: "x"}), &putInput{}); !errors.Is(err, xrpc.ErrInternal) {
		t.Error(err)
	}
	if _, err = put.Call(ctx, c.WithProxy("did:web:a.b#c"), &putInput{}); !errors.Is(err, xrpc.ErrUpstreamFailure) {
		t.Error(err)
	}
	if _, err := upload.Call(ctx, c, &xrpc.Body{Reader: strings.NewReader("x"), Type: "image/png"}); err != nil {
		t.Errorf("a public route: %v", err)
	}
	s, err := c.Do(ctx, "GET", "com.example.other", "", nil, "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Body.Close()
	if b, _ := io.ReadAll(s.Body); string(b) != "fallback" {
		t.Errorf("%s", b)
	}
}

// renewing is an Auth whose first token has expired.
type renewing struct {
	token string
	calls int
	fail  error
}

func (a *renewing) Authorize(_ context.Context, r *http.Request) error {
	r.Header.Set("Authorization", a.token)
	return nil
}

func (a *renewing) Refresh(_ context.Context, _ *http.Request, e *xrpc.Error) (bool, error) {
	a.calls++
	a.token = "new"
	return e.Name == "ExpiredToken", a.fail
}

func TestRefresh(t *testing.T) {
	c, _ := newServer(t, xrpc.ServerOptions{Auth: func(r *http.Request, _ string) (any, error) {
		if r.Header.Get("Authorization") == "old" {
			return nil, xrpc.ErrExpiredToken
		}
		return r.Header.Get("Authorization"), nil
	}})
	ctx := t.Context()
	a := &renewing{token: "old"}
	out, err := put.Call(ctx, c.WithAuth(a), &putInput{Text: "again"})
	if err != nil || a.calls != 1 || out.Items[0] != "again" || out.Items[1] != "new" {
		t.Errorf("%+v %v %+v", out, err, a)
	}
	a = &renewing{token: "old"}
	if _, err := part.Call(ctx, c.WithAuth(a), &listParams{}, &xrpc.Body{Reader: io.MultiReader(strings.NewReader("x"))}); !errors.Is(err, xrpc.ErrExpiredToken) || a.calls != 0 {
		t.Errorf("a body that can't be read twice: %v %+v", err, a)
	}
	a = &renewing{token: "old", fail: errors.New("locked out")}
	if _, err := put.Call(ctx, c.WithAuth(a), &putInput{}); err == nil || !strings.Contains(err.Error(), "locked out") {
		t.Error(err)
	}
}

func TestForeignAnswers(t *testing.T) {
	var status int
	var kind, body string
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	defer h.Close()
	c := &xrpc.Client{Host: h.URL + "/", HTTP: h.Client(), MaxResponse: 50}
	for _, x := range []struct {
		status           int
		kind, body, want string
	}{
		{200, "application/json", `{"items":[]}`, ""},
		{200, "application/json", `{"items":["` + strings.Repeat("x", 50) + `"]}`, "at most 50 are read"},
		{200, "text/html", `<html>`, "not JSON"},
		{200, "application/json", `{"items":[`, "truncated"},
		{502, "text/html", `<html>bad gateway</html>`, "502: Bad Gateway"},
		{400, "application/json", `{"error":"X","message":"y"}`, "400 X: y"},
		{429, "application/json", `[]`, "429: Too Many Requests"},
		{500, "application/json", `{"error":` + strings.Repeat(" ", 1<<20), "500: Internal Server Error"},
	} {
		status, kind, body = x.status, x.kind, x.body
		_, err := list.Call(t.Context(), c, &listParams{})
		if x.want == "" && err != nil || x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)) {
			t.Errorf("%d %.40s: got %v, want %q", x.status, x.body, err, x.want)
		}
		var e *xrpc.Error
		if errors.As(err, &e) {
			if d, ok := e.RetryAfter(); !ok || d.Seconds() != 7 {
				t.Error(d, ok)
			}
		}
	}
	for _, host := range []string{"", "example.com", "ftp://example.com", "http://%zz"} {
		if _, err := reset.Call(t.Context(), &xrpc.Client{Host: host}, nil); err == nil {
			t.Errorf("host %q: no error", host)
		}
	}
}

func TestPages(t *testing.T) {
	s := xrpc.NewServer(xrpc.ServerOptions{})
	xrpc.HandleQuery(s, list, func(_ context.Context, _ *xrpc.Request, p *listParams) (*listOutput, error) {
		switch {
		case p.Cursor == nil:
			return &listOutput{Items: []string{"a"}, Cursor: new("1")}, nil
		case *p.Cursor == "1":
			return &listOutput{Items: []string{"b"}, Cursor: new("2")}, nil
		case *p.Cursor == "2" && *p.Limit == 3:
			return nil, errTooLong
		}
		return &listOutput{Items: []string{"c"}, Cursor: new("2")}, nil // the same again
	})
	h := httptest.NewServer(s)
	defer h.Close()
	c := &xrpc.Client{Host: h.URL, HTTP: h.Client()}
	p := listParams{Did: "did:web:a.b", Uris: []string{"at://a.b"}}
	got := ""
	for out, err := range list.Pages(t.Context(), c, p) {
		if err != nil {
			if !errors.Is(err, xrpc.ErrPaging) {
				t.Error(err)
			}
			got += "!"
			continue
		}
		got += out.Items[0]
	}
	if got != "abc!" || p.Cursor != nil {
		t.Errorf("%s, cursor %v", got, p.Cursor)
	}
	p.Limit = new(int64(3))
	got = ""
	for out, err := range list.Pages(t.Context(), c, p) {
		if err != nil {
			if !errors.Is(err, errTooLong) {
				t.Error(err)
			}
			got += "!"
			continue
		}
		got += out.Items[0]
	}
	if got != "ab!" {
		t.Error(got)
	}
}

// TestPageGuard ends lists that don't end.
func TestPageGuard(t *testing.T) {
	for _, x := range []struct {
		name  string
		items int
		next  func(page int) string
		pages int // at most
		err   bool
	}{
		{"ends", 1, func(n int) string { return strings.Repeat("x", max(0, 7-n)) }, 8, false},
		{"the same", 1, func(int) string { return "x" }, 2, true},
		{"a circle of 10", 1, func(n int) string { return fmt.Sprint("x", n%10) }, 40, true},
		{"a circle behind a way in", 1, func(n int) string { return fmt.Sprint("x", min(n, 20+n%7)) }, 80, true},
		{"always empty", 0, func(n int) string { return fmt.Sprint(n) }, xrpc.MaxEmptyPages, true},
	} {
		var g xrpc.PageGuard
		n, more, err := 0, true, error(nil)
		for more && n <= 1000 {
			more, err = g.Next(x.items, x.next(n))
			n++
		}
		if n > x.pages || (err != nil) != x.err || err != nil && !errors.Is(err, xrpc.ErrPaging) {
			t.Errorf("%s: %d pages, %v", x.name, n, err)
		}
	}
}

func FuzzDecodeParams(f *testing.F) {
	f.Add("did=did:web:a.b&uris=at://a.b&limit=5&deep=true&ids=1&ids=2&cursor=x&sort=asc")
	f.Add("%zz;&&=")
	f.Fuzz(func(t *testing.T, query string) {
		var p listParams
		if xrpc.DecodeParams(query, &p) != nil {
			return
		}
		again, err := xrpc.EncodeParams(&p)
		if err != nil {
			t.Fatal(err)
		}
		var q listParams
		if err := xrpc.DecodeParams(again, &q); err != nil {
			t.Fatalf("%q became %q: %v", query, again, err)
		}
		if d := cmp.Diff(p, q); d != "" {
			t.Fatal(d)
		}
	})
}
