package netguard

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// counter is a loopback listener that counts who comes.
type counter struct {
	net.Listener
	n atomic.Int64
}

func (c *counter) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.n.Add(1)
	}
	return conn, err
}

func listen(t *testing.T) (*counter, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &counter{Listener: ln}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return c, port
}

func serve(t *testing.T, h http.HandlerFunc) (*counter, string) {
	c, port := listen(t)
	srv := &httptest.Server{Listener: c, Config: &http.Server{Handler: h}}
	srv.Start()
	t.Cleanup(srv.Close)
	return c, port
}

// fakeDNS answers in turn with the addresses of a name, the last of them for ever.
type fakeDNS struct {
	mu    sync.Mutex
	names map[string][][]string
	asked int
}

func (d *fakeDNS) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	answers := d.names[host]
	if len(answers) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	var out []netip.Addr
	for _, a := range answers[0] {
		out = append(out, netip.MustParseAddr(a))
	}
	if len(answers) > 1 {
		d.names[host] = answers[1:]
	}
	return out, nil
}

var refused = []string{
	"127.0.0.1", "127.8.8.8", "localhost", "LOCALHOST", "localhost.", "a.localhost", "2130706433", "0x7f000001", "0x7f.1", "0X7F.0.0.1", "127.1",
	"0177.0.0.1", "127.0.0.1.", "0", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "100.100.100.200",
	"169.254.169.254", "192.0.0.8", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
	"::1", "::", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:10.0.0.1", "::ffff:0:127.0.0.1", "0:0:0:0:0:0:0:1", "fe80::1", "fe80::1%lo", "::1%lo", "fec0::1",
	"fc00::1", "fd00:ec2::254", "ff02::1", "64:ff9b::7f00:1", "64:ff9b::127.0.0.1", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::1", "3fff::1", "5f00::1",
	"", ".", "exa mple.com", "example.com\x00", "127.0.0.1%2f", "１２７.0.0.1", "ⓛocalhost", "[::1]",
}

// TestRefused asks for every spelling of addresses that are not public, at a port where somebody listens on loopback.
func TestRefused(t *testing.T) {
	ln, port := listen(t)
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	dns := &fakeDNS{names: map[string][][]string{
		"rebind.example":  {{"93.184.216.34"}, {"127.0.0.1"}},
		"inside.example":  {{"127.0.0.1"}},
		"mixed.example":   {{"93.184.216.34", "127.0.0.1"}},
		"mapped.example":  {{"::ffff:127.0.0.1"}},
		"v6.example":      {{"::1"}},
		"nat64.example":   {{"64:ff9b::7f00:1"}},
		"linked.example":  {{"169.254.169.254"}},
		"inside.example.": {{"127.0.0.1"}},
	}}
	d := NewDialer(Options{Resolver: dns, Timeout: 2 * time.Second, Allow: []string{"127.0.0.1:1", "other.example:" + port}})
	hosts := append([]string{"inside.example", "mixed.example", "mapped.example", "v6.example", "nat64.example", "linked.example", "inside.example."}, refused...)
	for _, host := range hosts {
		conn, err := d.DialContext(context.Background(), "tcp", net.JoinHostPort(host, port))
		var be *BlockedError
		if err == nil {
			conn.Close()
			t.Errorf("%q: connected to %v", host, conn.RemoteAddr())
		} else if !errors.As(err, &be) && host != "[::1]" {
			t.Errorf("%q: %v", host, err)
		}
	}
	for _, network := range []string{"udp", "unix", "ip", "tcp5", ""} {
		if _, err := d.DialContext(context.Background(), network, "93.184.216.34:80"); err == nil {
			t.Errorf("network %q was dialed", network)
		}
	}
	if n := ln.n.Load(); n != 0 {
		t.Fatalf("the listener was reached %d times", n)
	}
}

func TestCheckAddrPublic(t *testing.T) {
	for _, s := range []string{"1.1.1.1", "8.8.8.8", "93.184.216.34", "172.15.255.255", "172.32.0.1", "100.63.255.255", "100.128.0.1", "192.0.1.1", "198.20.0.1",
		"223.255.255.255", "::ffff:8.8.8.8", "2606:4700::1111", "2a00::1", "2001:4860:4860::8888", "2400::1"} {
		if reason := CheckAddr(netip.MustParseAddr(s)); reason != "" {
			t.Errorf("%s: %s", s, reason)
		}
	}
	if CheckAddr(netip.Addr{}) == "" {
		t.Error("no address at all is fine")
	}
	for _, s := range []string{"example.com", "example.com.", "a-b.c_d.example", "xn--bcher-kva.example", "1.2.3.4.example", "0x7f.example"} {
		if reason := CheckHost(s); reason != "" {
			t.Errorf("%s: %s", s, reason)
		}
	}
}

// TestRebinding has a name that is public when it is asked for first and private afterwards: what is dialed is what was
// checked, so the second answer is never asked for.
func TestRebinding(t *testing.T) {
	ln, port := listen(t)
	defer ln.Close()
	dns := &fakeDNS{names: map[string][][]string{"rebind.example": {{"192.0.3.1"}, {"127.0.0.1"}}}}
	d := NewDialer(Options{Resolver: dns})
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // nobody lives at 192.0.3.1: don't wait for it
	_, err := d.DialContext(ctx, "tcp", "rebind.example:"+port)
	if err == nil || dns.asked != 1 || ln.n.Load() != 0 {
		t.Errorf("%v, asked %d times, reached %d times", err, dns.asked, ln.n.Load())
	}
}

func TestAllow(t *testing.T) {
	ln, port := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	dns := &fakeDNS{names: map[string][][]string{"localhost": {{"127.0.0.1"}}, "evil.example": {{"127.0.0.1"}}, "pds.test": {{"127.0.0.1"}}}}
	d := NewDialer(Options{Resolver: dns})
	c := Client(d, ClientOptions{})
	get := func(host string) error {
		defer c.CloseIdleConnections()
		resp, err := c.Get("http://" + net.JoinHostPort(host, port) + "/")
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	if get("127.0.0.1") == nil || ln.n.Load() != 0 {
		t.Fatal("reached before it was allowed")
	}
	for range 2 {
		if err := d.Allow("127.0.0.1:" + port); err != nil {
			t.Fatal(err)
		}
	}
	if err := get("127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	// Only this spelling and this port.
	for _, host := range []string{"localhost", "evil.example", "::ffff:127.0.0.1", "127.0.0.2", "2130706433"} {
		if get(host) == nil {
			t.Errorf("%s was let through", host)
		}
	}
	if err := d.Allow("PDS.test:" + port); err != nil {
		t.Fatal(err)
	}
	if err := get("pds.test"); err != nil {
		t.Error(err)
	}
	d.Disallow("127.0.0.1:" + port)
	if err := get("127.0.0.1"); err != nil {
		t.Errorf("allowed twice, disallowed once: %v", err)
	}
	d.Disallow("127.0.0.1:" + port)
	if get("127.0.0.1") == nil || d.Allowed("127.0.0.1:"+port) {
		t.Error("reached after it was disallowed")
	}
	for _, bad := range []string{"", "127.0.0.1", ":80", "a:b", "a:0", "a:65536", "*:80:80"} {
		if d.Allow(bad) == nil {
			t.Errorf("allowed %q", bad)
		}
	}
}

func TestRedirects(t *testing.T) {
	secret, secretPort := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "secret") })
	var port string
	_, port = serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/private":
			http.Redirect(w, r, "http://127.0.0.1:"+secretPort+"/", http.StatusFound)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/scheme":
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		case "/once":
			http.Redirect(w, r, "/", http.StatusFound)
		}
	})
	d := NewDialer(Options{Allow: []string{"127.0.0.1:" + port}})
	base := "http://127.0.0.1:" + port
	var be *BlockedError

	none := Client(d, ClientOptions{})
	if resp, err := none.Get(base + "/private"); err != nil || resp.StatusCode != 302 {
		t.Errorf("without redirects: %v", err)
	}
	some := Client(d, ClientOptions{Redirects: 2, AllowHTTP: true})
	if _, err := some.Get(base + "/private"); !errors.As(err, &be) {
		t.Errorf("to a private address: %v", err)
	}
	for _, path := range []string{"/loop", "/scheme"} {
		if _, err := some.Get(base + path); !errors.Is(err, ErrRedirect) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if resp, err := some.Get(base + "/once"); err != nil || resp.StatusCode != 200 {
		t.Errorf("one redirect: %v", err)
	}
	if _, err := Client(d, ClientOptions{Redirects: 2}).Get(base + "/once"); !errors.Is(err, ErrRedirect) {
		t.Errorf("redirect to plain http: %v", err)
	}
	if n := secret.n.Load(); n != 0 {
		t.Errorf("the private server was reached %d times", n)
	}
}

func TestNoProxy(t *testing.T) {
	proxy, port := serve(t, func(w http.ResponseWriter, r *http.Request) {})
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:"+port)
	t.Setenv("ALL_PROXY", "http://127.0.0.1:"+port)
	d := NewDialer(Options{Resolver: &fakeDNS{}, Allow: []string{"127.0.0.1:" + port}})
	if _, err := Client(d, ClientOptions{}).Get("http://example.com/"); err == nil || proxy.n.Load() != 0 {
		t.Errorf("%v; the proxy was asked %d times", err, proxy.n.Load())
	}
}

func TestBodyAndHeaderCaps(t *testing.T) {
	_, port := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/declared":
			w.Header().Set("Content-Length", "1001")
			w.Write(make([]byte, 1001))
		case "/stream":
			for range 11 {
				w.Write(make([]byte, 100))
				w.(http.Flusher).Flush()
			}
		case "/exact":
			w.Write(make([]byte, 1000))
		case "/bomb":
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			for range 64 {
				z.Write(make([]byte, 1<<20))
			}
			z.Close()
		case "/header":
			w.Header().Set("X", strings.Repeat("x", 64<<10))
		case "/agent":
			io.WriteString(w, r.UserAgent())
		}
	})
	d := NewDialer(Options{Allow: []string{"127.0.0.1:" + port}})
	c := Client(d, ClientOptions{MaxBody: 1000, UserAgent: "barograph-test"})
	for path, ok := range map[string]bool{"/declared": false, "/stream": false, "/exact": true, "/bomb": false, "/header": false, "/agent": true} {
		resp, err := c.Get("http://127.0.0.1:" + port + path)
		var n int
		if err == nil {
			var b []byte
			b, err = io.ReadAll(resp.Body)
			n = len(b)
			resp.Body.Close()
			if path == "/agent" && string(b) != "barograph-test" {
				t.Errorf("agent %q", b)
			}
		}
		var be *BodyTooLargeError
		if ok != (err == nil) || !ok && path != "/header" && (!errors.As(err, &be) || be.Limit != 1000) || n > 1000 {
			t.Errorf("%s: %d bytes, %v", path, n, err)
		}
	}
}

// TestDrip has a server that sends a byte whenever it was read: the deadline covers the body.
func TestDrip(t *testing.T) {
	stop := make(chan struct{})
	_, port := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for {
			select {
			case <-stop:
				return
			case <-r.Context().Done():
				return
			case <-time.After(5 * time.Millisecond):
				w.Write([]byte{'.'})
				w.(http.Flusher).Flush()
			}
		}
	})
	defer close(stop)
	d := NewDialer(Options{Allow: []string{"127.0.0.1:" + port}})
	resp, err := Client(d, ClientOptions{Timeout: 100 * time.Millisecond}).Get("http://127.0.0.1:" + port)
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	var ue interface{ Timeout() bool }
	if !errors.As(err, &ue) || !ue.Timeout() {
		t.Errorf("%v", err)
	}
}

func TestWebSocketThroughTheGuard(t *testing.T) {
	up := websocket.Upgrader{}
	ln, port := serve(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		c.WriteMessage(websocket.TextMessage, []byte("hello"))
	})
	d := NewDialer(Options{})
	ws := websocket.Dialer{NetDialContext: d.DialContext}
	var be *BlockedError
	if _, _, err := ws.Dial("ws://127.0.0.1:"+port, nil); !errors.As(err, &be) || ln.n.Load() != 0 {
		t.Fatalf("%v", err)
	}
	d.Allow("127.0.0.1:" + port)
	c, _, err := ws.Dial("ws://127.0.0.1:"+port, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, b, err := c.ReadMessage(); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
}

// FuzzCheckHost dials what a fuzzer makes of hosts with a resolver that sends every name to loopback: nothing connects.
func FuzzCheckHost(f *testing.F) {
	for _, h := range refused {
		f.Add(h)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	d := NewDialer(Options{Resolver: loopbackDNS{}, Timeout: 50 * time.Millisecond})
	f.Fuzz(func(t *testing.T, host string) {
		// A public literal would be dialed for real; the rest must be refused.
		if a, err := netip.ParseAddr(host); err == nil && CheckAddr(a) == "" {
			return
		}
		conn, err := d.DialContext(context.Background(), "tcp", net.JoinHostPort(host, port))
		if err == nil {
			conn.Close()
			t.Fatalf("%q connected", host)
		}
	})
}

type loopbackDNS struct{}

func (loopbackDNS) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
}

func ExampleDialer() {
	d := NewDialer(Options{})
	_, err := Client(d, ClientOptions{}).Get("http://169.254.169.254/latest/meta-data/")
	var ue *url.Error
	if errors.As(err, &ue) {
		fmt.Println(ue.Err)
	}
	// Output: refusing to connect to "169.254.169.254:80": the address is not public (link-local)
}
