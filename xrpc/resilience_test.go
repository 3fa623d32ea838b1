package xrpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/barograph/baro/data"
	"github.com/barograph/baro/xrpc"
)

// roundTrip is a transport without a network.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func reply(status int, body string, header ...string) *http.Response {
	h := http.Header{"Content-Type": {"application/json"}}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: -1}
}

// script answers with one reply after the other, and counts.
func script(n *int, replies ...func() (*http.Response, error)) *http.Client {
	return &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		i := min(*n, len(replies)-1)
		*n++
		return replies[i]()
	})}
}

func gives(status int, body string, header ...string) func() (*http.Response, error) {
	return func() (*http.Response, error) { return reply(status, body, header...), nil }
}

func fails(err error) func() (*http.Response, error) {
	return func() (*http.Response, error) { return nil, err }
}

const good = `{"items":["a"]}`

func TestRetry(t *testing.T) {
	date := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	type answer = func() (*http.Response, error)
	for _, x := range []struct {
		name     string
		replies  []answer
		write    bool
		refused  bool
		attempts int
		waited   time.Duration // exactly, with random waits at half of their limit
		ok       bool
	}{
		{"at once", []answer{gives(200, good)}, false, false, 1, 0, true},
		{"overloaded twice", []answer{gives(503, ""), gives(502, "<html>"), gives(200, good)}, false, false, 3, 750 * time.Millisecond, true},
		{"always overloaded", []answer{gives(500, "")}, false, false, 4, 1750 * time.Millisecond, false},
		{"not implemented", []answer{gives(501, "")}, false, false, 1, 0, false},
		{"bad request", []answer{gives(400, `{"error":"X"}`)}, false, false, 1, 0, false},
		{"Retry-After", []answer{gives(429, "", "Retry-After", "9"), gives(200, good)}, false, false, 2, 9 * time.Second, true},
		{"Retry-After, a time", []answer{gives(503, "", "Retry-After", date.Add(7*time.Second).Format(http.TimeFormat), "Date", date.Format(http.TimeFormat)), gives(200, good)}, false, false, 2, 7 * time.Second, true},
		{"reset of the budget", []answer{gives(429, "", "RateLimit-Limit", "10", "RateLimit-Remaining", "0", "RateLimit-Reset", fmt.Sprint(date.Unix()+12), "Date", date.Format(http.TimeFormat)), gives(200, good)}, false, false, 2, 12 * time.Second, true},
		{"asks for too long", []answer{gives(429, "", "Retry-After", "3600")}, false, false, 1, 0, false},
		{"429 without headers", []answer{gives(429, ""), gives(200, good)}, false, false, 2, 250 * time.Millisecond, true},
		{"connection broke", []answer{fails(io.ErrUnexpectedEOF), gives(200, good)}, false, false, 2, 250 * time.Millisecond, true},
		{"half an answer", []answer{gives(200, `{"items":[`), gives(200, good)}, false, false, 2, 250 * time.Millisecond, true},
		{"a write, connection broke", []answer{fails(io.ErrUnexpectedEOF), gives(200, good)}, true, false, 1, 0, false},
		{"a write, half an answer", []answer{gives(200, `{"items":[`), gives(200, good)}, true, false, 1, 0, false},
		{"a write, overloaded", []answer{gives(503, "", "Retry-After", "1"), gives(200, good)}, true, false, 1, 0, false},
		{"a write, refused", []answer{gives(429, "", "Retry-After", "1"), gives(200, good)}, true, false, 1, 0, false},
		{"a write, refused, by option", []answer{gives(429, "", "Retry-After", "1"), gives(200, good)}, true, true, 2, time.Second, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := 0
			c := (&xrpc.Client{Host: "https://pds.test", HTTP: script(&n, x.replies...)}).WithRetry(&xrpc.Retry{Refused: x.refused, Rand: func() float64 { return 0.5 }})
			start := time.Now()
			var m xrpc.Meta
			ctx := xrpc.WithMeta(t.Context(), &m)
			var err error
			if x.write {
				_, err = put.Call(ctx, c, &putInput{Text: "x"})
			} else {
				_, err = list.Call(ctx, c, &listParams{})
			}
			if waited := time.Since(start); n != x.attempts || m.Attempts != n || waited != x.waited || (err == nil) != x.ok {
				t.Errorf("%s: %d attempts (%d told) in %v, error %v; want %d in %v", x.name, n, m.Attempts, waited, err, x.attempts, x.waited)
			}
		})
	}
}

func TestRetryEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		c := (&xrpc.Client{Host: "https://pds.test", HTTP: script(&n, gives(429, "", "Retry-After", "20"))}).WithRetry(new(xrpc.Retry))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := list.Call(ctx, c, &listParams{})
		if e, ok := errors.AsType[*xrpc.Error](err); !errors.Is(err, context.DeadlineExceeded) || !ok || e.Status != 429 || n != 1 {
			t.Errorf("%d attempts: %v", n, err)
		}
	})
}

// TestSent tells requests that surely weren't sent from those that may have been.
func TestSent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	var got atomic.Int32
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got.Add(1)
		panic(http.ErrAbortHandler)
	}))
	defer h.Close()
	redirect := httptest.NewServer(http.RedirectHandler("http://"+closed+"/", http.StatusTemporaryRedirect))
	defer redirect.Close()
	retry := &xrpc.Retry{Attempts: 3, Rand: func() float64 { return 0 }}
	for _, x := range []struct {
		name, host string
		write      bool
		sent       bool
		attempts   int
	}{
		{"nobody listens", "http://" + closed, true, false, 3},
		{"no such host", "http://host.invalid.", true, false, 3},
		{"cut off", h.URL, true, true, 1},
		{"cut off, a query", h.URL, false, true, 3},
		{"sent on to where nobody listens", redirect.URL, false, true, 3},
	} {
		var m xrpc.Meta
		ctx := xrpc.WithMeta(t.Context(), &m)
		transport := &http.Transport{DisableKeepAlives: true}
		c := &xrpc.Client{Host: x.host, HTTP: &http.Client{Transport: transport}, Retry: retry}
		var err error
		if x.write {
			_, err = put.Call(ctx, c, &putInput{})
		} else {
			_, err = list.Call(ctx, c, &listParams{})
		}
		e, ok := errors.AsType[*xrpc.TransportError](err)
		if !ok || e.Sent != x.sent || m.Attempts != x.attempts || m.Status != 0 {
			t.Errorf("%s: %v, %+v", x.name, err, m)
		}
		transport.CloseIdleConnections()
	}
	if n := got.Load(); n != 1+3 {
		t.Errorf("the server got %d requests, one is a write", n)
	}
}

func TestHeaderOrder(t *testing.T) {
	var got []http.Header
	c := &xrpc.Client{Host: "https://pds.test", HTTP: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		got = append(got, r.Header)
		return reply(200, good), nil
	})}}
	n := 0
	sourced := c.WithHeader("User-Agent", "static").WithHeader("X-A", "static").WithHeader("X-B", "static").
		WithHeaderSource(func(context.Context) (http.Header, error) {
			n++
			return http.Header{"x-b": {fmt.Sprint("source ", n)}, "X-C": {"source"}, "X-D": {"source"}}, nil
		}).
		WithHeaderSource(func(context.Context) (http.Header, error) { return http.Header{"X-C": {"second"}}, nil })
	ctx := xrpc.WithCallHeader(t.Context(), http.Header{"X-D": {"call"}})
	for range 2 {
		if _, err := list.Call(ctx, sourced, &listParams{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := list.Call(t.Context(), c, &listParams{}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"static static source 1 second call", "static static source 2 second call", "barograph    "} {
		h := got[i]
		if s := strings.Join([]string{h.Get("User-Agent"), h.Get("X-A"), h.Get("X-B"), h.Get("X-C"), h.Get("X-D")}, " "); s != want {
			t.Errorf("request %d: %q, want %q", i, s, want)
		}
	}
	oops := errors.New("oops")
	bad := c.WithHeaderSource(func(context.Context) (http.Header, error) { return nil, oops })
	if _, err := list.Call(t.Context(), bad, &listParams{}); !errors.Is(err, oops) || len(got) != 3 {
		t.Errorf("%v, %d requests", err, len(got))
	}
}

func TestMeta(t *testing.T) {
	date := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	n := 0
	head := []string{"RateLimit-Limit", "3000", "RateLimit-Remaining", "2999", "RateLimit-Reset", fmt.Sprint(date.Unix() + 60), "RateLimit-Policy", "3000;w=300",
		"Date", date.Format(http.TimeFormat), "Atproto-Repo-Rev", "3kabc", "Atproto-Content-Labelers", "did:web:a, did:web:b;redact"}
	c := &xrpc.Client{Host: "https://pds.test", HTTP: script(&n, gives(200, good, head...), gives(200, good, head...), gives(400, `{"error":"TooLong"}`, head...))}
	check := func(m *xrpc.Meta, status int) {
		t.Helper()
		r, ok := m.RateLimit()
		if !ok || r.Limit != 3000 || r.Remaining != 2999 || !r.Reset.Equal(date.Add(time.Minute)) || r.Left != time.Minute || r.Window != 5*time.Minute {
			t.Errorf("%+v %v", r, ok)
		}
		if m.Status != status || m.Attempts != 1 || m.RepoRev() != "3kabc" || fmt.Sprint(m.ContentLabelers()) != "[did:web:a did:web:b;redact]" {
			t.Errorf("%+v", m)
		}
	}
	q, err := list.Response(t.Context(), c, &listParams{})
	if err != nil || q.Value.Items[0] != "a" {
		t.Fatal(q, err)
	}
	check(&q.Meta, 200)
	var m xrpc.Meta
	for _, err := range list.Pages(xrpc.WithMeta(t.Context(), &m), c, listParams{}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	check(&m, 200)
	w, err := put.Response(t.Context(), c, &putInput{})
	if !errors.Is(err, errTooLong) {
		t.Fatal(err)
	}
	check(&w.Meta, 400)
	for _, bad := range []string{"", "x", "-1", "1.5", "99999999999999999999"} {
		m := xrpc.Meta{Header: http.Header{"Ratelimit-Limit": {bad}, "Ratelimit-Remaining": {"1"}}}
		if r, ok := m.RateLimit(); ok {
			t.Errorf("%q: %+v", bad, r)
		}
	}
}

type person struct {
	Did   string     `json:"did"`
	Name  *string    `json:"name,omitzero"`
	Extra data.Extra `json:"-"`
}

type people struct {
	Cursor *string    `json:"cursor,omitzero"`
	First  person     `json:"first"`
	People []person   `json:"people"`
	Extra  data.Extra `json:"-"`
}

// TestLenient reads what can be read of the answers of servers that don't keep to the lexicon.
func TestLenient(t *testing.T) {
	query := xrpc.Query[xrpc.None, people]{NSID: "com.example.people"}
	for _, x := range []struct {
		body, want string // of the people; "" is an error
		violations int
	}{
		{`{"first":{"did":"a"},"people":[{"did":"b"}]}`, "a b", 0},
		{`{"first":{"did":"a"},"people":[{"did":"b"},{"name":"no did"},{"did":"c"}]}`, "a b  c", 1},
		{`{"first":{"did":"a"},"people":[{"did":"b","name":7},{"did":3},"x",{"did":"c"}]}`, "a b   c", 3},
		{`{"first":{},"people":[]}`, "", 1},
		{`{"first":{"did":"a"}}`, "error", 0},
		{`{"first":{"did":"a"},"people":{}}`, "error", 0},
		{`{"first":{"did":"a"},"people":[],"cursor":1}`, "error", 0},
		{`{"first":3,"people":[]}`, "error", 0},
		{`{"people":[{},{"did":"c"}]}`, "error", 0},
		{`{"people":[` + strings.Repeat("{},", 200) + `{"did":"c"}]}`, "error", 0},
		{`[]`, "error", 0},
	} {
		n := 0
		c := &xrpc.Client{Host: "https://pds.test", HTTP: script(&n, gives(200, x.body))}
		r, err := query.Response(t.Context(), c, new(xrpc.None))
		if x.want == "error" {
			if _, ok := errors.AsType[*xrpc.TransportError](err); !ok {
				t.Errorf("%s: %v", x.body, err)
			}
			if _, ok := errors.AsType[*data.Error](err); !ok {
				t.Errorf("%s: %v", x.body, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", x.body, err)
			continue
		}
		got := r.Value.First.Did
		for _, p := range r.Value.People {
			got += " " + p.Did
		}
		if got != x.want || len(r.Violations) != x.violations {
			t.Errorf("%s: %q, %v", x.body, got, r.Violations)
		}
		_, err = query.Call(t.Context(), c.WithStrict(true), new(xrpc.None))
		if (err == nil) != (x.violations == 0) {
			t.Errorf("%s, strictly: %v", x.body, err)
		}
	}
}

func TestPacer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		remaining, reset := 100, time.Now().Add(20*time.Second)
		transport := roundTrip(func(*http.Request) (*http.Response, error) {
			if time.Now().Before(reset) {
				remaining--
			} else if remaining < 50 {
				remaining, reset = 99, time.Now().Add(20*time.Second)
			}
			if remaining < 0 {
				return reply(429, ""), nil
			}
			return reply(200, good, "RateLimit-Limit", "100", "RateLimit-Remaining", fmt.Sprint(remaining), "RateLimit-Reset", fmt.Sprint(reset.Unix()), "Date", time.Now().UTC().Format(http.TimeFormat)), nil
		})
		c := (&xrpc.Client{Host: "https://pds.test", HTTP: &http.Client{Transport: transport}}).WithPacer(new(xrpc.Pacer))
		start := time.Now()
		call := func() {
			t.Helper()
			if _, err := list.Call(t.Context(), c, &listParams{}); err != nil {
				t.Fatal(err)
			}
		}
		for range 90 {
			call()
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("waited %v while there was plenty", d)
		}
		for range 10 {
			call()
		}
		if d := time.Since(start); d < 10*time.Second || d > 20*time.Second {
			t.Errorf("the last tenth took %v of 20 s", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := list.Call(ctx, c, &listParams{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		call() // in the next window
		at := time.Now()
		for range 30 {
			call()
		}
		if d := time.Since(at); at.Before(start.Add(20*time.Second)) || d != 0 {
			t.Errorf("after the window %v, from %v on", d, at.Sub(start))
		}
	})
}

// TestPacerBound has servers ask for waits that nobody makes.
func TestPacerBound(t *testing.T) {
	for _, x := range []struct {
		name             string
		remaining, reset string
		max              time.Duration
		wait             time.Duration // before each call
		wants            time.Duration // of the error; 0: none
	}{
		{"a day, and some are left", "3", "86400", 0, 5 * time.Minute, 0},
		{"a day, and none is left", "0", "86400", 0, 0, 24 * time.Hour},
		{"a time in milliseconds", "0", "1090000000000", 0, 0, 1 << 62},
		{"for ever, and one is left", "1", "1000000000000", time.Minute, time.Minute, 0},
		{"as long as is allowed", "0", "60", time.Minute, time.Minute, 0},
		{"a second longer", "0", "61", time.Minute, 0, 61 * time.Second},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				made := 0
				transport := roundTrip(func(*http.Request) (*http.Response, error) {
					made++
					return reply(200, good, "RateLimit-Limit", "100", "RateLimit-Remaining", x.remaining, "RateLimit-Reset", x.reset, "Date", time.Now().UTC().Format(http.TimeFormat)), nil
				})
				c := (&xrpc.Client{Host: "https://pds.test", HTTP: &http.Client{Transport: transport}}).WithPacer(&xrpc.Pacer{Max: x.max})
				for i := range 4 {
					start := time.Now()
					_, err := list.Call(t.Context(), c, &listParams{})
					waited := time.Since(start)
					if i == 0 || x.wants == 0 {
						if err != nil || i > 0 && waited != x.wait {
							t.Fatalf("call %d after %v: %v", i, waited, err)
						}
						continue
					}
					pace, ok := errors.AsType[*xrpc.PaceError](err)
					if !ok || waited != 0 || made != 1 || pace.Host != "https://pds.test" || pace.NSID == "" || pace.Wait != x.wants && pace.Wait < 1<<62 {
						t.Fatalf("call %d after %v: %v", i, waited, err)
					}
				}
				if x.wants == 0 {
					return
				}
				// The server is asked again, once, and when it has changed its mind all is well.
				longest := max(x.max, time.Minute)
				if x.max == 0 {
					longest = 5 * time.Minute
				}
				time.Sleep(longest + time.Millisecond)
				if _, err := list.Call(t.Context(), c, &listParams{}); err != nil || made != 2 {
					t.Fatalf("after %v: %v", longest, err)
				}
				if _, err := list.Call(t.Context(), c, &listParams{}); err == nil {
					t.Fatal("a second call")
				}
				time.Sleep(longest + time.Millisecond)
				x.remaining = "90"
				for range 3 {
					if _, err := list.Call(t.Context(), c, &listParams{}); err != nil {
						t.Fatal(err)
					}
				}
			})
		})
	}
}

// TestForeignBodies keeps the beginning of what isn't in the form of the protocol, and says which method was called.
func TestForeignBodies(t *testing.T) {
	for _, x := range []struct{ body, name, kept string }{
		{`{"error":"Gone","message":"m"}`, "Gone", ""},
		{"<html>bad gateway", "", "<html>bad gateway"},
		{`{"message":"m"}`, "", `{"message":"m"}`},
		{strings.Repeat("x", 100_000), "", strings.Repeat("x", xrpc.MaxErrorBody)},
		{"", "", ""},
	} {
		n := 0
		c := &xrpc.Client{Host: "https://pds.test", HTTP: script(&n, gives(410, x.body))}
		_, err := c.Do(t.Context(), http.MethodGet, "com.example.gone", "", nil, "")
		e, ok := errors.AsType[*xrpc.Error](err)
		if !ok || e.Status != 410 || e.Name != x.name || e.NSID != "com.example.gone" || string(e.Body) != x.kept {
			t.Errorf("%.20s: %+v", x.body, err)
		}
	}
}

// TestDoAll reads an answer within the call: one that breaks off is asked for again, one that its reader refuses for what it
// says isn't.
func TestDoAll(t *testing.T) {
	cut := func() (*http.Response, error) {
		r := reply(200, "ab")
		r.Body = io.NopCloser(io.MultiReader(strings.NewReader("ab"), iotest.ErrReader(io.ErrUnexpectedEOF)))
		return r, nil
	}
	for _, x := range []struct {
		name    string
		replies []func() (*http.Response, error)
		max     int64
		take    error
		want    string // "": an error
		calls   int
	}{
		{"whole", []func() (*http.Response, error){gives(200, "abc")}, 3, nil, "abc", 1},
		{"cut once", []func() (*http.Response, error){cut, gives(200, "abc")}, 3, nil, "abc", 2},
		{"cut always", []func() (*http.Response, error){cut, cut}, 3, nil, "", 2},
		{"down once", []func() (*http.Response, error){gives(503, ""), gives(200, "abc")}, 3, nil, "abc", 2},
		{"too large", []func() (*http.Response, error){gives(200, "abcd")}, 3, nil, "", 1},
		{"refused", []func() (*http.Response, error){gives(200, "abc")}, 3, &data.Error{Rule: data.RuleSyntax}, "", 1},
		{"cut within", []func() (*http.Response, error){gives(200, "abc"), gives(200, "abc")}, 3, &data.Error{Rule: data.RuleTruncated}, "", 2},
	} {
		n, got := 0, ""
		c := &xrpc.Client{Host: "https://pds.test", HTTP: script(&n, x.replies...), Retry: &xrpc.Retry{Attempts: 2, Rand: func() float64 { return 0 }}}
		err := c.DoAll(t.Context(), http.MethodGet, "com.example.all", "", nil, "*/*", x.max, func(b []byte) error { got = string(b); return x.take })
		if (err == nil) != (x.want != "") || err == nil && got != x.want || n != x.calls {
			t.Errorf("%s: %q, %v after %d calls", x.name, got, err, n)
		}
		if err != nil {
			if e, ok := errors.AsType[*xrpc.TransportError](err); !ok || !e.Sent {
				t.Errorf("%s: %T %v", x.name, err, err)
			}
		}
	}
	n := 0
	c := &xrpc.Client{Host: "https://pds.test", HTTP: script(&n, func() (*http.Response, error) { return reply(200, "{}", "Content-Type", "text/html"), nil })}
	if err := c.DoAll(t.Context(), http.MethodGet, "com.example.all", "", nil, "", 3, func([]byte) error { return nil }); err == nil {
		t.Error("HTML in the place of JSON")
	}
}
