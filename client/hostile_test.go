package client_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// hostile is a server that answers everything in one bad way. It counts, so that what is done to it can be bounded.
type hostile struct {
	*httptest.Server
	answer   http.HandlerFunc
	requests atomic.Int64
	writes   atomic.Int64 // of records
	renewals atomic.Int64
	sent     atomic.Int64 // bytes of bodies, before compression
}

func newHostile(t *testing.T, answer http.HandlerFunc) *hostile {
	h := &hostile{answer: answer}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.requests.Add(1)
		switch {
		case strings.HasSuffix(r.URL.Path, "createRecord"):
			h.writes.Add(1)
		case strings.HasSuffix(r.URL.Path, "refreshSession"):
			h.renewals.Add(1)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		h.answer(&counted{w, h}, r)
	}))
	t.Cleanup(h.Close)
	return h
}

type counted struct {
	http.ResponseWriter
	h *hostile
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.h.sent.Add(int64(n))
	return n, err
}

func (c *counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }

const never = 64 << 20 // more than anything is read of

// flood sends zeros and more zeros, each time the same piece.
func flood(w io.Writer) {
	piece := make([]byte, 64<<10)
	for range never / len(piece) {
		if _, err := w.Write(piece); err != nil {
			return
		}
	}
}

// bomb is a flood in a few bytes: it is packed once, as that takes longer than all of the tests.
var bomb = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	flood(z)
	if err := z.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
})

func sendBomb(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Encoding", "gzip")
	_, _ = w.Write(bomb())
}

func raw(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(c, text)
		_ = c.Close()
	}
}

func is[E error](err error) bool { _, ok := errors.AsType[E](err); return ok }

func status(n int) func(error) bool {
	return func(err error) bool { e, ok := errors.AsType[*xrpc.Error](err); return ok && e.Status == n }
}

// TestHostileServer meets a server that does one bad thing after the other: each time a read, a list and a write end in a
// typed error, after a bounded number of requests and in bounded memory, and the write is attempted once. No time is measured: it
// says how busy the machine is, and every answer ends.
func TestHostileServer(t *testing.T) {
	bomb()
	transport := func(err error) bool { e, ok := errors.AsType[*xrpc.TransportError](err); return ok && e.Sent }
	head := "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	for _, x := range []struct {
		name   string
		answer http.HandlerFunc
		want   func(error) bool
		again  bool // reads are repeated
	}{
		{"429 with headers", answer(429, `{"error":"RateLimitExceeded"}`, "Retry-After", "86400", "RateLimit-Limit", "1", "RateLimit-Remaining", "0"), status(429), false},
		{"429 without headers", answer(429, ``), status(429), true},
		{"429 with nonsense", answer(429, `{`, "Retry-After", "-5", "RateLimit-Limit", "x", "RateLimit-Reset", "99999999999999999999"), status(429), true},
		{"500", answer(500, `<html>`), status(500), true},
		{"503 without end", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503); flood(w) }, status(503), true},
		{"malformed token", answer(401, `{"error":"InvalidToken"}`), status(401), false},
		{"no answer", raw(""), transport, true},
		{"half a header", raw("HTTP/1.1 200 OK\r\nConte"), transport, true},
		{"header without end", raw("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 4<<20)), transport, true},
		{"chunked garbage", raw(head + "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"uri\r\nzz\r\n"), transport, true},
		{"chunk of 2^64", raw(head + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{"), transport, true},
		{"shorter than it says", raw(head + "Content-Length: 100\r\n\r\n{}"), transport, true},
		{"says 100 GB", raw(head + "Content-Length: 100000000000\r\n\r\n{}"), transport, false},
		{"not JSON", answer(200, `<html>`, "Content-Type", "text/html"), transport, true},
		{"JSON that nests", answer(200, strings.Repeat("[", 1<<20)), transport, false},
		{"the wrong JSON", answer(200, `[]`), transport, false},
		{"without end", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			flood(w)
		}, transport, false},
		{"gzip bomb", sendBomb, transport, false},
		{"broken gzip", answer(200, "\x1f\x8b\x08\x00garbage", "Content-Encoding", "gzip"), transport, true},
		{"redirects in a circle", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, 307) }, nil, true},
	} {
		t.Run(x.name, func(t *testing.T) {
			h := newHostile(t, x.answer)
			c := client.New(h.URL, client.Options{Auth: xrpc.Bearer("t"), DID: account, Timeout: 10 * time.Minute, HTTP: &http.Client{Transport: &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 1 << 20}},
				Retry: &xrpc.Retry{Attempts: 2, Rand: func() float64 { return 0 }}})
			want := x.want
			if want == nil { // a write isn't sent on
				want = func(err error) bool { return transport(err) || status(307)(err) }
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := client.Get[data.Raw](t.Context(), c, uri(t, "at://"+string(account)+"/"+note+"/1"), client.GetOptions{})
			if !want(err) && !errors.Is(err, client.ErrBadAnswer) {
				t.Errorf("a read: %T %v", err, err)
			}
			attempts := h.requests.Load()
			for _, err = range client.List[data.Raw](t.Context(), c, syntax.AtIdentifier(account), client.ListOptions{Collection: note}) {
				if err == nil {
					t.Error("an item")
				}
			}
			if !want(err) && !errors.Is(err, client.ErrBadAnswer) {
				t.Errorf("a list: %T %v", err, err)
			}
			value, _, _ := record("hi")
			_, err = client.Create(t.Context(), c, &value, client.WriteOptions{})
			if !want(err) && !errors.Is(err, client.ErrBadAnswer) {
				t.Errorf("a write: %T %v", err, err)
			}
			runtime.ReadMemStats(&after)
			if n := h.writes.Load(); n != 1 {
				t.Errorf("written %d times", n)
			}
			if x.want != nil && (attempts == 2) != x.again {
				t.Errorf("read %d times", attempts)
			}
			if n := h.requests.Load(); n > 64 { // redirects are followed, ten times
				t.Errorf("%d requests", n)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 5*(2*16<<20)*2 {
				t.Errorf("%d MB allocated", n>>20)
			}
		})
	}
}

// TestHostileBlobs meets blobs that aren't what they should be.
func TestHostileBlobs(t *testing.T) {
	blob := []byte("the blob")
	id := cid.Sum(cid.Raw, blob)
	for _, x := range []struct {
		name   string
		answer http.HandlerFunc
		want   func(error) bool
	}{
		{"another", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "the flop") }, isHash},
		{"truncated", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "the bl") }, isHash},
		{"nothing", func(http.ResponseWriter, *http.Request) {}, isHash},
		{"cut off", raw("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nthe"), func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		{"without end", func(w http.ResponseWriter, _ *http.Request) { flood(w) }, func(err error) bool { return errors.Is(err, client.ErrTooLarge) }},
		{"gzip bomb", sendBomb, func(err error) bool { return errors.Is(err, client.ErrTooLarge) }},
		{"stalls", func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(blob[:3])
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, func(err error) bool { return errors.Is(err, client.ErrStalled) }},
	} {
		h := newHostile(t, x.answer)
		stall := time.Minute // a busy machine is no server that stalls
		if x.name == "stalls" {
			stall = 200 * time.Millisecond
		}
		c := client.New(h.URL, client.Options{Stall: stall, HTTP: new(http.Client)})
		r, err := c.Blob(t.Context(), account, id, 1<<20)
		if err == nil {
			var n int64
			n, err = io.Copy(io.Discard, r)
			if n > 1<<20 {
				t.Errorf("%s: %d bytes given out", x.name, n)
			}
			_ = r.Close()
		}
		if !x.want(err) {
			t.Errorf("%s: %T %v", x.name, err, err)
		}
	}
}

// TestHostileSessions renews what can't be renewed: once, and the write isn't sent again.
func TestHostileSessions(t *testing.T) {
	for _, x := range []struct {
		name, renewal string
		status        int
		ended         bool
	}{
		{"revoked", `{"error":"InvalidToken"}`, 400, true},
		{"expired too", `{"error":"ExpiredToken"}`, 400, true},
		{"taken down", `{"error":"AccountTakedown"}`, 400, true},
		{"limited", `{"error":"RateLimitExceeded"}`, 429, false},
		{"down", `<html>`, 502, false},
		{"malformed", `{"did":`, 200, false},
		{"empty", `{}`, 200, false},
		{"somebody else's", `{"did":"did:plc:zzzzzzzzzzzzzzzzzzzzzzzz","handle":"a.test","accessJwt":"a","refreshJwt":"r"}`, 200, false},
		{"tokens with line breaks", `{"did":"` + string(account) + `","handle":"a.test","accessJwt":"a\r\nX: y","refreshJwt":"r"}`, 200, false},
	} {
		h := newHostile(t, nil)
		h.answer = func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "refreshSession") {
				answer(x.status, x.renewal)(w, r)
				return
			}
			answer(400, `{"error":"ExpiredToken"}`)(w, r)
		}
		m := auth.New(auth.Options{})
		a, err := m.Import(t.Context(), auth.Session{DID: account, PDS: h.URL, Access: "a", Refresh: "r"})
		if err != nil {
			t.Fatal(err)
		}
		value, _, _ := record("hi")
		_, err = client.Create(t.Context(), client.ForAccount(a, client.Options{Retry: new(xrpc.Retry)}), &value, client.WriteOptions{})
		if !is[*auth.RenewalError](err) || errors.Is(err, auth.ErrLoginRequired) != x.ended {
			t.Errorf("%s: %T %v", x.name, err, err)
		}
		if h.writes.Load() != 1 || h.renewals.Load() != 1 {
			t.Errorf("%s: %d writes, %d renewals", x.name, h.writes.Load(), h.renewals.Load())
		}
	}
}

// everywhere knows two handles that point at each other's host.
type everywhere struct{}

func (e everywhere) LookupTXT(_ context.Context, name string) ([]string, error) {
	switch name {
	case "_atproto.alice.example.com":
		return []string{"did=did:web:bob.example.com"}, nil
	case "_atproto.bob.example.com":
		return []string{"did=did:web:alice.example.com"}, nil
	}
	return nil, &net.DNSError{Name: name, IsNotFound: true}
}

// TestHostileIdentities meets documents without end, handles that point at each other, and redirects into the network that
// the program runs in.
func TestHostileIdentities(t *testing.T) {
	private := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a private address was asked") }))
	defer private.Close()
	h := newHostile(t, nil)
	h.answer = func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/did:plc:aaaaaaaaaaaaaaaaaaaaaaaa":
			fmt.Fprint(w, `{"id":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa","x":"`)
			flood(w)
		case "/did:plc:bbbbbbbbbbbbbbbbbbbbbbbb":
			http.Redirect(w, r, private.URL, http.StatusFound)
		case "/did:plc:cccccccccccccccccccccccc":
			fmt.Fprint(w, `{"id":"did:plc:cccccccccccccccccccccccc","alsoKnownAs":["at://alice.example.com"]}`)
		}
	}
	dialer := netguard.NewDialer(netguard.Options{})
	dialer.Allow(strings.TrimPrefix(h.URL, "http://"))
	d := identity.New(identity.Options{
		HTTP:     netguard.Client(dialer, netguard.ClientOptions{Redirects: 3, AllowHTTP: true}),
		Resolver: everywhere{}, Now: time.Now, PLC: h.URL,
	})
	if _, err := d.ResolveDID(t.Context(), "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"); identity.KindOf(err) != identity.KindMalformed && identity.KindOf(err) != identity.KindUnreachable {
		t.Errorf("a document without end: %v", err)
	}
	if n := h.sent.Load(); n > 16<<20 {
		t.Errorf("%d bytes of it were taken", n)
	}
	if _, err := d.ResolveDID(t.Context(), "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"); identity.KindOf(err) != identity.KindUnreachable || !is[*netguard.BlockedError](err) {
		t.Errorf("a redirect to a private address: %v", err)
	}
	// The document claims a handle that leads to a DID at another name, whose handle leads back.
	id, err := d.LookupDID(t.Context(), "did:plc:cccccccccccccccccccccccc")
	if err != nil || id.Handle != syntax.InvalidHandle || identity.KindOf(id.HandleErr) != identity.KindHandleMismatch {
		t.Errorf("%+v, %v", id, err)
	}
}
