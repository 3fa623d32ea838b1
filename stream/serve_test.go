package stream_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/barograph/baro/stream"
)

// memLog is the naive model of a log: everything in a slice, a floor, and a broadcast.
type memLog struct {
	mu     sync.Mutex
	events []stream.Event
	floor  int64
	head   int64
	wake   chan struct{}
	idle   chan struct{} // a token for each Read that has begun to wait
}

var errTrimmed = errors.New("events are gone")

func newMemLog(seqs ...int64) *memLog {
	l := &memLog{wake: make(chan struct{}), idle: make(chan struct{}, 1000), floor: 1}
	for i, s := range seqs {
		if i == 0 {
			l.floor = s
		}
		l.add(s)
	}
	return l
}

func (l *memLog) add(seq int64) { l.addFrame(seq, nil) }

func (l *memLog) addFrame(seq int64, frame []byte) {
	if frame == nil {
		frame = stream.AppendFrame(nil, &stream.Identity{Seq: seq, DID: "did:web:a.test", Time: "t"})
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.head = seq
	l.events = append(l.events, stream.Event{Seq: seq, Frame: frame})
	close(l.wake)
	l.wake = make(chan struct{})
}

func (l *memLog) trim(floor int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.floor = floor
	l.events = slices.DeleteFunc(l.events, func(e stream.Event) bool { return e.Seq < floor })
}

func (l *memLog) Head() int64  { l.mu.Lock(); defer l.mu.Unlock(); return l.head }
func (l *memLog) Floor() int64 { l.mu.Lock(); defer l.mu.Unlock(); return l.floor }

func (l *memLog) Read(ctx context.Context, from int64, max int, dst []stream.Event) ([]stream.Event, error) {
	for {
		l.mu.Lock()
		if from < l.floor {
			l.mu.Unlock()
			return nil, errTrimmed
		}
		i, _ := slices.BinarySearchFunc(l.events, from, func(e stream.Event, seq int64) int { return cmp.Compare(e.Seq, seq) })
		dst = append(dst, l.events[i:min(len(l.events), i+max)]...)
		wake := l.wake
		l.mu.Unlock()
		if len(dst) > 0 {
			return dst, nil
		}
		select {
		case l.idle <- struct{}{}:
		default:
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-wake:
		}
	}
}

type server struct {
	*httptest.Server
	h       *stream.Handler
	cancel  context.CancelFunc
	reasons chan error
}

func serve(t *testing.T, src stream.Source, o stream.ServeOptions) *server {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &server{cancel: cancel, reasons: make(chan error, 100)}
	o.OnClose = func(_ *http.Request, _ int64, err error) { s.reasons <- err }
	if o.CloseGrace == 0 {
		o.CloseGrace = 200 * time.Millisecond
	}
	s.h = stream.NewHandler(ctx, src, o)
	mux := http.NewServeMux()
	mux.Handle("/xrpc/com.atproto.sync.subscribeRepos", s.h)
	s.Server = httptest.NewServer(mux)
	t.Cleanup(func() { cancel(); s.Server.Close(); s.h.Wait() })
	return s
}

func (s *server) ws(t *testing.T, query string) string {
	t.Helper()
	u, err := stream.URL(s.URL, stream.SubscribeRepos, nil)
	if err != nil {
		t.Fatal(err)
	}
	return u + query
}

// collect reads n frames as words: a sequence number, or a name.
func collect(t *testing.T, c *stream.Conn, n int) string {
	t.Helper()
	var words []string
	for len(words) < n {
		f, err := c.Next()
		var e *stream.Error
		if errors.As(err, &e) {
			words = append(words, e.Name)
			break
		}
		if err != nil {
			t.Fatalf("after %v: %v", words, err)
		}
		m, err := f.Message()
		if err != nil {
			t.Fatal(err)
		}
		if i, ok := m.(*stream.Info); ok {
			words = append(words, i.Name)
		} else {
			words = append(words, fmt.Sprint(f.Seq))
		}
	}
	return strings.Join(words, " ")
}

func dial(t *testing.T, s *server, query string, o stream.DialOptions) *stream.Conn {
	t.Helper()
	c, err := stream.Dial(t.Context(), s.ws(t, query), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestCursor(t *testing.T) {
	for _, tc := range []struct{ query, want string }{
		{"?cursor=0", "10 12 13 20"},
		{"?cursor=10", "10 12 13 20"},
		{"?cursor=11", "12 13 20"},
		{"?cursor=13", "13 20"},
		{"", "20"},
		{"?cursor=1", "OutdatedCursor 10 12 13 20"},
		{"?cursor=9", "OutdatedCursor 10 12 13 20"},
		{"?cursor=14", "FutureCursor"},
		{"?cursor=9007199254740993", "FutureCursor"},
	} {
		l := newMemLog(10, 12, 13)
		s := serve(t, l, stream.ServeOptions{})
		c := dial(t, s, tc.query, stream.DialOptions{})
		if tc.query == "" {
			<-l.idle // only now the start is fixed
		}
		l.add(20)
		if got := collect(t, c, len(strings.Fields(tc.want))); got != tc.want {
			t.Errorf("%q: got %s, want %s", tc.query, got, tc.want)
		}
		if tc.want == "FutureCursor" {
			if err := <-s.reasons; !errors.Is(err, stream.ErrFutureCursor) {
				t.Errorf("%q: reason %v", tc.query, err)
			}
		}
	}
}

func TestCursorAtEmptyLog(t *testing.T) {
	l := newMemLog()
	s := serve(t, l, stream.ServeOptions{})
	c := dial(t, s, "?cursor=0", stream.DialOptions{})
	l.add(1)
	if got := collect(t, c, 1); got != "1" {
		t.Error(got)
	}
	if got := collect(t, dial(t, s, "?cursor=2", stream.DialOptions{}), 1); got != "FutureCursor" {
		t.Error(got)
	}
	// All events are gone: who has seen the newest has missed nothing, who hasn't has.
	l.add(2)
	l.trim(3)
	seen := dial(t, s, "?cursor=2", stream.DialOptions{})
	missed := dial(t, s, "?cursor=1", stream.DialOptions{})
	if got := collect(t, missed, 1); got != "OutdatedCursor" {
		t.Error(got)
	}
	l.add(3)
	if got := collect(t, seen, 1) + " " + collect(t, missed, 1); got != "3 3" {
		t.Error(got)
	}
}

// What happens once a client is connected is after the start of its stream, however late the server's goroutine gets to run.
func TestStartIsFixedAtUpgrade(t *testing.T) {
	for _, tc := range []struct{ name, query, want string }{
		{"now", "", "3"},
		{"newest, and gone", "?cursor=2", "3"},
		{"outdated", "?cursor=1", "OutdatedCursor 3"},
		{"oldest", "?cursor=0", "3"},
		{"future", "?cursor=3", "FutureCursor"},
	} {
		l := newMemLog(1, 2)
		l.trim(3)
		s := serve(t, l, stream.ServeOptions{OnOpen: func(*http.Request, *stream.Progress) { l.add(3) }})
		if got := collect(t, dial(t, s, tc.query, stream.DialOptions{IdleTimeout: 10 * time.Second}), len(strings.Fields(tc.want))); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
		}
	}
}

func TestBeforeUpgrade(t *testing.T) {
	s := serve(t, newMemLog(1, 2), stream.ServeOptions{MaxSubscribers: 1})
	addr := s.URL + "/xrpc/" + stream.SubscribeRepos
	upgrade := http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}
	badVersion := upgrade.Clone()
	badVersion.Set("Sec-Websocket-Version", "7")
	for _, tc := range []struct {
		name, method, query string
		header              http.Header
		status              int
		errName, respHeader string
	}{
		{"no upgrade", "GET", "", nil, 426, "UpgradeRequired", "Upgrade"},
		{"post", "POST", "", nil, 405, "MethodNotAllowed", "Allow"},
		{"post upgrade", "POST", "", upgrade, 405, "MethodNotAllowed", "Allow"},
		{"negative", "GET", "?cursor=-1", upgrade, 400, "InvalidRequest", ""},
		{"garbage", "GET", "?cursor=abc", upgrade, 400, "InvalidRequest", ""},
		{"empty", "GET", "?cursor=", upgrade, 400, "InvalidRequest", ""},
		{"plus", "GET", "?cursor=%2B1", upgrade, 400, "InvalidRequest", ""},
		{"too large", "GET", "?cursor=99999999999999999999", upgrade, 400, "InvalidRequest", ""},
		{"twice", "GET", "?cursor=1&cursor=2", upgrade, 400, "InvalidRequest", ""},
		{"version", "GET", "", badVersion, 400, "InvalidRequest", "Sec-WebSocket-Version"},
	} {
		r, err := http.NewRequest(tc.method, addr+tc.query, nil)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range tc.header {
			r.Header[k] = v
		}
		resp, err := s.Client().Do(r)
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		var body struct{ Error, Message string }
		err = json.NewDecoder(resp.Body).Decode(&body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != tc.status || body.Error != tc.errName || body.Message == "" {
			t.Errorf("%s: %d %+v %v", tc.name, resp.StatusCode, body, err)
		}
		if tc.respHeader != "" && resp.Header.Get(tc.respHeader) == "" {
			t.Errorf("%s: no %s header", tc.name, tc.respHeader)
		}
		<-s.reasons
	}
	c := dial(t, s, "?cursor=1", stream.DialOptions{})
	if got := collect(t, c, 2); got != "1 2" {
		t.Error(got)
	}
	var refused *stream.HandshakeError
	if _, err := stream.Dial(t.Context(), s.ws(t, ""), stream.DialOptions{}); !errors.As(err, &refused) || refused.Status != 429 || refused.RetryAfter == 0 || refused.Name != "RateLimitExceeded" {
		t.Errorf("second subscriber: %v", err)
	}
}

func TestShutdownSendsClose(t *testing.T) {
	l := newMemLog(1)
	s := serve(t, l, stream.ServeOptions{CloseGrace: 5 * time.Second})
	ws, _, err := websocket.DefaultDialer.Dial(s.ws(t, ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	<-l.idle
	s.cancel()
	if _, _, err := ws.NextReader(); !websocket.IsCloseError(err, websocket.CloseGoingAway) {
		t.Errorf("got %v, want close 1001", err)
	}
	if err := <-s.reasons; !errors.Is(err, stream.ErrShutdown) {
		t.Errorf("reason %v", err)
	}
	var refused *stream.HandshakeError
	if _, err := stream.Dial(t.Context(), s.ws(t, ""), stream.DialOptions{}); !errors.As(err, &refused) || refused.Status != 503 {
		t.Errorf("after shutdown: %v", err)
	}
}

func TestClientFramesIgnored(t *testing.T) {
	l := newMemLog(1)
	s := serve(t, l, stream.ServeOptions{})
	ws, _, err := websocket.DefaultDialer.Dial(s.ws(t, "?cursor=1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	pong := make(chan string, 1)
	ws.SetPongHandler(func(p string) error { pong <- p; return nil })
	for range 3 {
		if err := ws.WriteMessage(websocket.TextMessage, []byte(`{"type":"hello"}`)); err != nil {
			t.Fatal(err)
		}
	}
	if err := ws.WriteControl(websocket.PingMessage, []byte("you there?"), time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ws.NextReader(); err != nil {
		t.Fatal(err)
	}
	go func() { _, _, _ = ws.NextReader() }() // reads the pong until the connection ends
	if got := <-pong; got != "you there?" {
		t.Errorf("pong %q", got)
	}
	// A message beyond all measure ends the connection.
	_ = ws.WriteMessage(websocket.BinaryMessage, make([]byte, 1<<20))
	if err := <-s.reasons; err == nil || errors.Is(err, stream.ErrShutdown) {
		t.Errorf("reason %v", err)
	}
}

func TestPingPong(t *testing.T) {
	l := newMemLog(1)
	s := serve(t, l, stream.ServeOptions{PingInterval: 20 * time.Millisecond, PongTimeout: 60 * time.Millisecond})
	// A reader that answers pings stays.
	pings := make(chan struct{}, 100)
	live, _, err := websocket.DefaultDialer.Dial(s.ws(t, ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	h := live.PingHandler()
	live.SetPingHandler(func(p string) error { pings <- struct{}{}; return h(p) })
	go func() { _, _, _ = live.NextReader() }()
	for range 8 {
		<-pings
	}
	// One that doesn't is closed.
	dead, _, err := websocket.DefaultDialer.Dial(s.ws(t, ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close()
	if err := <-s.reasons; err == nil {
		t.Error("no reason")
	}
	if n := s.h.Subscribers(); n != 1 {
		t.Errorf("%d subscribers, want the live one", n)
	}
}

func TestTooSlow(t *testing.T) {
	frame := func(seq int64) []byte {
		return stream.AppendFrame(nil, &stream.Sync{Seq: seq, DID: "did:web:a.test", Rev: "r", Time: "t", Blocks: make([]byte, 1<<20)})
	}
	fill := func(l *memLog, n int64) {
		for range n {
			seq := l.Head() + 1
			l.addFrame(seq, frame(seq))
		}
	}
	t.Run("stalled write", func(t *testing.T) {
		l := newMemLog()
		s := serve(t, l, stream.ServeOptions{WriteTimeout: 100 * time.Millisecond})
		ws, _, err := websocket.DefaultDialer.Dial(s.ws(t, ""), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer ws.Close()
		<-l.idle
		fill(l, 64) // more than the sockets' buffers hold
		if err := <-s.reasons; !errors.Is(err, stream.ErrTooSlow) {
			t.Errorf("reason %v", err)
		}
	})
	for name, o := range map[string]stream.ServeOptions{"lag budget": {MaxLag: 20, BatchEvents: 1}, "retention": {BatchEvents: 1}} {
		t.Run(name, func(t *testing.T) {
			l := newMemLog()
			s := serve(t, l, o)
			c := dial(t, s, "", stream.DialOptions{})
			<-l.idle
			fill(l, 64)
			if name == "retention" {
				l.trim(60)
			}
			// Only now the client reads: what is in flight comes through, then the reason.
			words := strings.Fields(collect(t, c, 65))
			if last := words[len(words)-1]; last != "ConsumerTooSlow" {
				t.Errorf("last word %s of %d", last, len(words))
			}
			if err := <-s.reasons; !errors.Is(err, stream.ErrTooSlow) {
				t.Errorf("reason %v", err)
			}
		})
	}
}

// wrapped hides the TCP connection, as TLS does.
type wrapped struct{ net.Listener }

func (w wrapped) Accept() (net.Conn, error) {
	c, err := w.Listener.Accept()
	return struct{ net.Conn }{c}, err
}

func TestManyEvents(t *testing.T) {
	for _, kind := range []string{"tcp", "wrapped", "tls"} {
		t.Run(kind, func(t *testing.T) {
			l := newMemLog()
			ctx, cancel := context.WithCancel(t.Context())
			h := stream.NewHandler(ctx, l, stream.ServeOptions{CloseGrace: 100 * time.Millisecond, PingInterval: time.Millisecond})
			s := httptest.NewUnstartedServer(h)
			o := stream.DialOptions{PingInterval: time.Millisecond}
			switch kind {
			case "tls":
				s.StartTLS()
				o.TLS = s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
				o.TLS.NextProtos = nil
			case "wrapped":
				s.Listener = wrapped{s.Listener}
				s.Start()
			default:
				s.Start()
			}
			defer func() { cancel(); h.Wait(); s.Close() }()
			const n = 3000
			u, err := stream.URL(s.URL, "x", nil)
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for range 3 {
				c, err := stream.Dial(ctx, u+"?cursor=0", o)
				if err != nil {
					t.Fatal(err)
				}
				wg.Go(func() {
					defer c.Close()
					for want := int64(1); want <= n; want++ {
						f, err := c.Next()
						if err != nil || f.Seq != want {
							t.Errorf("event %d: %d, %v", want, f.Seq, err)
							return
						}
						m, err := f.Message()
						if err != nil || len(m.(*stream.Sync).Blocks) != int(want%777*want%70000) {
							t.Errorf("event %d: %v", want, err)
							return
						}
					}
				})
			}
			for seq := int64(1); seq <= n; seq++ {
				m := &stream.Sync{Seq: seq, DID: "did:web:a.test", Rev: "r", Time: "t", Blocks: make([]byte, seq%777*seq%70000)}
				l.addFrame(seq, stream.AppendFrame(nil, m))
			}
			wg.Wait()
		})
	}
}

func ExampleNewHandler() {
	var source stream.Source = newMemLog(1, 2, 3) // a service's log
	ctx, cancel := context.WithCancel(context.Background())
	h := stream.NewHandler(ctx, source, stream.ServeOptions{})
	s := httptest.NewServer(h)
	defer func() { cancel(); h.Wait(); s.Close() }()

	for f, err := range stream.Subscribe(ctx, s.URL, stream.SubscribeOptions{After: new(int64(1))}) {
		if err != nil {
			fmt.Println(err)
			break
		}
		fmt.Println(f.Type, f.Seq)
		if f.Seq == 3 {
			break
		}
	}
	// Output:
	// #identity 2
	// #identity 3
}

func BenchmarkFanOut(b *testing.B) {
	const subscribers, events = 8, 2000
	l := newMemLog()
	blocks := make([]byte, 5000)
	for seq := int64(1); seq <= events; seq++ {
		l.addFrame(seq, stream.AppendFrame(nil, &stream.Sync{Seq: seq, DID: "did:web:a.test", Rev: "r", Time: "t", Blocks: blocks}))
	}
	ctx, cancel := context.WithCancel(b.Context())
	h := stream.NewHandler(ctx, &readOnce{memLog: l}, stream.ServeOptions{})
	s := httptest.NewServer(h)
	defer func() { cancel(); h.Wait(); s.Close() }()
	u, err := stream.URL(s.URL, "x", nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		var wg sync.WaitGroup
		for range subscribers {
			wg.Go(func() {
				c, err := stream.Dial(ctx, u+"?cursor=0", stream.DialOptions{ReuseBuffer: true})
				if err != nil {
					b.Error(err)
					return
				}
				defer c.Close()
				for range events {
					if _, err := c.Next(); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	b.ReportMetric(float64(b.N)*subscribers*events/b.Elapsed().Seconds(), "frames/s")
}

// readOnce reads by index: the model's linear search isn't what is measured.
type readOnce struct{ *memLog }

func (r *readOnce) Read(ctx context.Context, from int64, max int, dst []stream.Event) ([]stream.Event, error) {
	if int(from) > len(r.events) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return append(dst, r.events[from-1:min(len(r.events), int(from)-1+max)]...), nil
}

func TestProgress(t *testing.T) {
	log := newMemLog(3, 4, 9)
	opened := make(chan *stream.Progress, 1)
	s := serve(t, log, stream.ServeOptions{OnOpen: func(_ *http.Request, p *stream.Progress) {
		if p.Sent() != 0 || p.Last() != 0 {
			t.Errorf("at the start: %d, %d", p.Sent(), p.Last())
		}
		opened <- p
	}})
	c, err := stream.Dial(t.Context(), s.ws(t, "?cursor=4"), stream.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := collect(t, c, 2); got != "4 9" {
		t.Errorf("got %s", got)
	}
	p := <-opened
	for deadline := time.Now().Add(5 * time.Second); p.Sent() != 2 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if p.Sent() != 2 || p.Last() != 9 {
		t.Errorf("sent %d events, the last %d", p.Sent(), p.Last())
	}
}

// TestServeAndFrames: one subscription without a handler around it, read as a loop, which a break ends on both sides.
func TestServeAndFrames(t *testing.T) {
	over := make(chan error, 2)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		over <- stream.Serve(r.Context(), w, r, newMemLog(10, 12, 13), stream.ServeOptions{})
	}))
	defer srv.Close()
	u, err := stream.URL(srv.URL, stream.SubscribeRepos, url.Values{"cursor": {"11"}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := stream.Dial(t.Context(), u, stream.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var seqs []int64
	for f, err := range c.Frames() {
		if err != nil {
			t.Fatal(err)
		}
		if seqs = append(seqs, f.Seq); len(seqs) == 2 {
			break
		}
	}
	if !slices.Equal(seqs, []int64{12, 13}) {
		t.Errorf("events %v", seqs)
	}
	if err := <-over; err == nil {
		t.Error("a subscription is over without a reason")
	}
	n := 0
	for _, err := range c.Frames() {
		if n++; err == nil {
			t.Fatal("a closed connection has a frame")
		}
	}
	if n != 1 {
		t.Errorf("a closed connection tells so %d times", n)
	}

	resp, err := http.Get(srv.URL) // no WebSocket
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if err := <-over; !errors.Is(err, stream.ErrRefused) || resp.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("%v, status %d", err, resp.StatusCode)
	}
}
