package stream_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/barograph/baro/stream"
)

// script serves one function for each connection, the last one for all further ones.
func script(t *testing.T, steps ...func(cursor string, ws *websocket.Conn)) (url string, conns *atomic.Int64) {
	t.Helper()
	conns = new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(conns.Add(1)) - 1
		u := websocket.Upgrader{}
		ws, err := u.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()
		steps[min(n, len(steps)-1)](r.URL.Query().Get("cursor"), ws)
	}))
	t.Cleanup(s.Close)
	return s.URL, conns
}

func send(ws *websocket.Conn, seqs ...int64) {
	for _, s := range seqs {
		frame := stream.AppendFrame(nil, &stream.Identity{Seq: s, DID: "did:web:a.test", Time: "t"})
		_ = ws.WriteMessage(websocket.BinaryMessage, frame)
	}
}

func fast() stream.SubscribeOptions {
	return stream.SubscribeOptions{MinBackoff: time.Millisecond, MaxBackoff: 2 * time.Millisecond}
}

// follow gathers sequence numbers until one is stop or the loop ends.
func follow(t *testing.T, url string, o stream.SubscribeOptions, stop int64) (string, error) {
	t.Helper()
	var seqs []string
	for f, err := range stream.Subscribe(t.Context(), url, o) {
		if err != nil {
			return strings.Join(seqs, " "), err
		}
		seqs = append(seqs, fmt.Sprint(f.Seq))
		if f.Seq == stop {
			break
		}
	}
	return strings.Join(seqs, " "), nil
}

func TestReconnect(t *testing.T) {
	var cursors []string
	note := func(f func(ws *websocket.Conn)) func(string, *websocket.Conn) {
		return func(c string, ws *websocket.Conn) { cursors = append(cursors, c); f(ws) }
	}
	url, _ := script(t,
		note(func(ws *websocket.Conn) { send(ws, 6, 7) }),
		note(func(ws *websocket.Conn) { send(ws, 7, 8) }),          // inclusive cursor
		note(func(ws *websocket.Conn) { send(ws, 9) }),             // exclusive cursor
		note(func(ws *websocket.Conn) { send(ws, 9, 10, 10, 11) }), // a duplicate: dropped with the connection
		note(func(ws *websocket.Conn) { send(ws, 10, 11, 9, 12) }), // out of order
		note(func(ws *websocket.Conn) { send(ws, 5) }),             // before the cursor
		note(func(ws *websocket.Conn) { _ = ws.WriteMessage(websocket.BinaryMessage, []byte("junk")) }),
		note(func(ws *websocket.Conn) { _ = ws.WriteMessage(websocket.TextMessage, []byte("{}")) }),
		note(func(ws *websocket.Conn) {
			_ = ws.WriteMessage(websocket.BinaryMessage, stream.AppendErrorFrame(nil, "ConsumerTooSlow", ""))
		}),
		note(func(ws *websocket.Conn) {
			_ = ws.WriteMessage(websocket.BinaryMessage, append(header("#commit", 99), 0xa0)) // unknown op: skipped
			send(ws, 11, 13)
		}),
	)
	o := fast()
	o.After = new(int64(5))
	var seqErrs, frameErrs, streamErrs int
	o.OnDisconnect = func(err error, wait time.Duration) {
		var se *stream.SeqError
		var e *stream.Error
		switch {
		case errors.As(err, &se):
			seqErrs++
		case errors.As(err, &e):
			streamErrs++
		case errors.Is(err, stream.ErrFrame):
			frameErrs++
		}
	}
	got, err := follow(t, url, o, 13)
	if err != nil || got != "6 7 8 9 10 11 13" {
		t.Errorf("got %s, %v", got, err)
	}
	if want := "5 7 8 9 10 11 11 11 11 11"; strings.Join(cursors, " ") != want {
		t.Errorf("cursors %v, want %s", cursors, want)
	}
	if seqErrs != 3 || frameErrs != 2 || streamErrs != 1 {
		t.Errorf("%d sequence, %d frame, %d stream errors", seqErrs, frameErrs, streamErrs)
	}
}

func TestSubscribeEnds(t *testing.T) {
	future, _ := script(t, func(_ string, ws *websocket.Conn) {
		_ = ws.WriteMessage(websocket.BinaryMessage, stream.AppendErrorFrame(nil, stream.ErrorFutureCursor, ""))
	})
	var e *stream.Error
	if _, err := follow(t, future, fast(), -1); !errors.As(err, &e) {
		t.Errorf("future cursor: %v", err)
	}
	quiet, conns := script(t, func(string, *websocket.Conn) {})
	o := fast()
	o.MaxAttempts = 4
	if _, err := follow(t, quiet, o, -1); err == nil || conns.Load() != 4 {
		t.Errorf("giving up after %d: %v", conns.Load(), err)
	}
	for status, permanent := range map[int]bool{400: true, 404: true, 501: true, 429: false, 500: false, 503: false} {
		var n atomic.Int64
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			n.Add(1)
			w.WriteHeader(status)
			fmt.Fprint(w, "<html>out of order</html>")
		}))
		o.MaxAttempts = 3
		_, err := follow(t, s.URL, o, -1)
		var h *stream.HandshakeError
		if !errors.As(err, &h) || h.Status != status || !strings.Contains(h.Message, "out of order") || (n.Load() == 1) != permanent {
			t.Errorf("%d after %d: %v", status, n.Load(), err)
		}
		s.Close()
	}
	ctx, cancel := context.WithCancel(t.Context())
	for _, err := range stream.Subscribe(ctx, "http://"+blackHole(t), stream.SubscribeOptions{OnDisconnect: func(error, time.Duration) { cancel() },
		DialOptions: stream.DialOptions{HandshakeTimeout: 20 * time.Millisecond}}) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	}
	for _, bad := range []string{"ftp://a", "http://", "http://u:p@h", "::"} {
		o := fast()
		o.MaxAttempts = 1
		if _, err := follow(t, bad, o, -1); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

// blackHole accepts connections and says nothing.
func blackHole(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func TestDialCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	o := stream.DialOptions{NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		time.AfterFunc(5*time.Millisecond, cancel) // while the handshake waits for an answer
		return c, err
	}}
	if _, err := stream.Dial(ctx, "ws://"+blackHole(t)+"/", o); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestHostileHandshake(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = c.Write([]byte("HTTP/1.1 101 Switching Protocols\r\n"))
		for {
			if _, err := c.Write([]byte(strings.Repeat("X-Fill: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n", 1000))); err != nil {
				return
			}
		}
	}()
	_, err = stream.Dial(t.Context(), "ws://"+l.Addr().String()+"/", stream.DialOptions{})
	if err == nil || !strings.Contains(err.Error(), "too large") || len(err.Error()) > 500 {
		t.Errorf("%.200v", err)
	}
}

func TestIdle(t *testing.T) {
	stop := make(chan struct{})
	url, _ := script(t, func(_ string, ws *websocket.Conn) { send(ws, 1); <-stop }) // never reads: no pongs
	defer close(stop)
	u, err := stream.URL(url, "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := stream.Dial(t.Context(), u, stream.DialOptions{IdleTimeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Next(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := c.Next(); !errors.Is(err, stream.ErrIdle) {
			t.Error(err)
		}
	}
	// A quiet server that answers pings is not idle.
	l := newMemLog(1)
	s := serve(t, l, stream.ServeOptions{})
	quiet := dial(t, s, "", stream.DialOptions{IdleTimeout: 100 * time.Millisecond, PingInterval: 10 * time.Millisecond})
	time.AfterFunc(300*time.Millisecond, func() { l.add(2) })
	if got := collect(t, quiet, 1); got != "2" {
		t.Error(got)
	}
}

func TestTooLargeFrame(t *testing.T) {
	for _, compressed := range []bool{false, true} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if compressed {
				// A server that compresses without having been asked.
				r.Header.Set("Sec-Websocket-Extensions", "permessage-deflate; server_no_context_takeover; client_no_context_takeover")
			}
			u := websocket.Upgrader{EnableCompression: compressed}
			ws, err := u.Upgrade(w, r, nil)
			if err != nil {
				return
			}
			defer ws.Close()
			_ = ws.WriteMessage(websocket.BinaryMessage, make([]byte, 1<<20))
		}))
		u, err := stream.URL(s.URL, "x", nil)
		if err != nil {
			t.Fatal(err)
		}
		c, err := stream.Dial(t.Context(), u, stream.DialOptions{MaxFrame: 1 << 16})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Next(); !errors.Is(err, websocket.ErrReadLimit) {
			t.Errorf("compressed %v: %v", compressed, err)
		}
		s.Close()
	}
}

func TestURL(t *testing.T) {
	for host, want := range map[string]string{
		"pds.example":              "wss://pds.example/xrpc/a.b.c",
		"https://pds.example":      "wss://pds.example/xrpc/a.b.c",
		"http://localhost:2583/":   "ws://localhost:2583/xrpc/a.b.c",
		"wss://relay.example/path": "wss://relay.example/xrpc/a.b.c",
	} {
		if got, err := stream.URL(host, "a.b.c", nil); err != nil || got != want {
			t.Errorf("%s: %s, %v", host, got, err)
		}
	}
}
