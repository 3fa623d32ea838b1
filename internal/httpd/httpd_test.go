package httpd_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/barograph/baro/internal/httpd"
)

func start(t *testing.T, h http.Handler) (*httpd.Server, func() error) {
	t.Helper()
	s, err := httpd.Listen("test", "127.0.0.1:0", h, httpd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var err2 error
	ended := false
	stop := func() error {
		if !ended {
			ended = true
			cancel()
			err2 = <-done
		}
		return err2
	}
	t.Cleanup(func() { stop() })
	return s, stop
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestServe(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ok", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "fine") })
	mux.HandleFunc("GET /panic", func(http.ResponseWriter, *http.Request) { panic("boom") })
	s, stop := start(t, mux)
	if !strings.HasPrefix(s.URL(), "http://localhost:") || s.Port() == 0 {
		t.Errorf("URL() = %s, Port() = %d", s.URL(), s.Port())
	}
	if code, body := get(t, s.URL()+"/ok"); code != 200 || body != "fine" {
		t.Errorf("/ok: %d %q", code, body)
	}
	for range 2 { // the process survives
		if code, body := get(t, s.URL()+"/panic"); code != 500 || !strings.Contains(body, `"error":"InternalServerError"`) || strings.Contains(body, "boom") {
			t.Errorf("/panic: %d %q", code, body)
		}
	}
	if err := stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if _, err := http.Get(s.URL() + "/ok"); err == nil {
		t.Error("the server answers after its shutdown")
	}
}

func TestPortInUse(t *testing.T) {
	s, _ := start(t, http.NotFoundHandler())
	_, err := httpd.Listen("pds", s.Addr(), nil, httpd.Options{})
	var le *httpd.ListenError
	if !errors.As(err, &le) || le.Service != "pds" || !strings.Contains(err.Error(), "another program uses that port") {
		t.Errorf("Listen on a used port: %v", err)
	}
}

func TestShutdownWithStuckRequest(t *testing.T) {
	entered, ended := make(chan struct{}), make(chan struct{})
	s, stop := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
		close(ended)
	}))
	go http.Get(s.URL())
	<-entered
	begin := time.Now()
	if err := stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	<-ended
	if d := time.Since(begin); d > 2*time.Second {
		t.Errorf("the shutdown took %v", d)
	}
}

func TestLongHeaderIsRefused(t *testing.T) {
	s, _ := start(t, http.NotFoundHandler())
	c, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("a", 64<<10)+"\r\n\r\n")
	b := make([]byte, 64)
	n, _ := c.Read(b)
	if !strings.Contains(string(b[:n]), " 431 ") {
		t.Errorf("answer to a header of 64 KiB: %q", b[:n])
	}
}

func TestDebugHandler(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "baro_test_total", Help: "x"}))
	s, _ := start(t, httpd.DebugHandler(reg))
	for path, want := range map[string]string{"/metrics": "baro_test_total 0", "/debug/pprof/": "goroutine", "/_health": "ok"} {
		if code, body := get(t, s.URL()+path); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %.100q", path, code, body)
		}
	}
}
