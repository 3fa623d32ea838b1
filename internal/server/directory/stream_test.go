package directory

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/barograph/baro/plc"
)

func (d *server) dial(query string) *websocket.Conn {
	d.t.Helper()
	conn, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(d.web.URL, "http")+"/export/stream"+query, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { conn.Close() })
	return conn
}

func isClose(err error, code int, reason string) bool {
	var c *websocket.CloseError
	return errors.As(err, &c) && c.Code == code && c.Text == reason
}

func TestStream(t *testing.T) {
	d := start(t, Config{})
	create := func(seed int) {
		g := newIdentity(t, seed).genesis()
		d.post(g.DID(), g)
		d.clock.Advance(time.Second)
	}
	for i := range 5 {
		create(i)
	}
	read := func(conn *websocket.Conn) string {
		kind, b, err := conn.ReadMessage()
		if err != nil || kind != websocket.TextMessage {
			t.Fatal(kind, err)
		}
		return string(b)
	}
	live, all, tail, edge := d.dial(""), d.dial("?cursor=0"), d.dial("?cursor=3"), d.dial("?cursor=5")
	lines := strings.Split(d.body("/export?after=0"), "\n")
	for _, want := range lines {
		if got := read(all); got != want {
			t.Errorf("stream says %s, export %s", got, want)
		}
	}
	for _, want := range lines[3:] {
		if got := read(tail); got != want {
			t.Errorf("stream says %s, export %s", got, want)
		}
	}
	create(5)
	want := d.body("/export?after=5")
	for name, conn := range map[string]*websocket.Conn{"live": live, "all": all, "tail": tail, "edge": edge} {
		if got := read(conn); got != want {
			t.Errorf("%s: stream says %s, export %s", name, got, want)
		}
	}

	if _, _, err := d.dial("?cursor=7").ReadMessage(); !isClose(err, 1000, "FutureCursor") {
		t.Error(err)
	}
	for _, bad := range []string{"-1", "x", "", "1.5", "99999999999999999999"} {
		_, r, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(d.web.URL, "http")+"/export/stream?cursor="+bad, nil)
		if err == nil || r == nil || r.StatusCode != http.StatusBadRequest {
			t.Errorf("cursor %q: %v", bad, err)
		}
	}
	d.clock.Advance(defaultCatchUp)
	if _, _, err := d.dial("?cursor=0").ReadMessage(); !isClose(err, 1000, "OutdatedCursor") {
		t.Error(err)
	}
	// A cursor at the head is never outdated, because nothing is missing.
	head := d.dial("?cursor=6")
	create(6)
	if got := read(head); !strings.HasSuffix(got, `"seq":7}`) {
		t.Error(got)
	}
}

// TestStreamConsumerTooSlow has a client that stops reading until the directory is far ahead. Small socket buffers make that soon.
func TestStreamConsumerTooSlow(t *testing.T) {
	d := start(t, Config{MaxLag: 20, NoLimits: true})
	web := httptest.NewUnstartedServer(d.s.Handler())
	web.Config.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateNew {
			_ = c.(*net.TCPConn).SetWriteBuffer(4 << 10)
		}
	}
	web.Start()
	defer web.Close()
	dialer := websocket.Dialer{NetDial: func(network, addr string) (net.Conn, error) {
		c, err := net.Dial(network, addr)
		if err == nil {
			err = c.(*net.TCPConn).SetReadBuffer(4 << 10)
		}
		return c, err
	}}
	conn, _, err := dialer.Dial("ws"+strings.TrimPrefix(web.URL, "http")+"/export/stream?cursor=0", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	id := newIdentity(t, 0)
	for i := range 5 {
		id.data.Services[fmt.Sprint(i)] = plc.Service{Type: "x", Endpoint: strings.Repeat("x", 500)}
	}
	op := id.genesis()
	did := op.DID()
	d.post(did, op)
	if _, _, err := conn.ReadMessage(); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		op = id.update(op.CID(), "n.test", i%3)
		if err := d.s.Submit(did, op); err != nil {
			t.Fatal(err)
		}
	}
	for n := 1; ; n++ {
		_, _, err := conn.ReadMessage()
		if err == nil && n < 300 {
			continue
		}
		if !isClose(err, 1000, "ConsumerTooSlow") {
			t.Errorf("after %d messages: %v", n, err)
		}
		return
	}
}

func TestStreamLimit(t *testing.T) {
	d := start(t, Config{MaxStreams: 2})
	d.dial("")
	gone := d.dial("")
	_, r, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(d.web.URL, "http")+"/export/stream", nil)
	if err == nil || r.StatusCode != 503 {
		t.Error(r, err)
	}
	gone.Close()
	waitFor(t, func() bool { d.s.mu.Lock(); defer d.s.mu.Unlock(); return d.s.open == 1 })
	d.dial("")
}
