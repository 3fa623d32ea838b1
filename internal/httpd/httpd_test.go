package httpd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/barograph/baro/internal/figures"
)

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start runs a server until stop is called, which returns what Run did and how long it took to stop.
func start(t *testing.T, o Options, h http.Handler) (srv *Server, stop func() (time.Duration, error)) {
	t.Helper()
	o.Addr = "127.0.0.1:0"
	srv, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx, h) }()
	var once sync.Once
	var took time.Duration
	var rerr error
	stop = func() (time.Duration, error) {
		once.Do(func() {
			at := time.Now()
			cancel()
			rerr = <-done
			took = time.Since(at)
		})
		return took, rerr
	}
	t.Cleanup(func() { stop() })
	return srv, stop
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

func TestServeAndStop(t *testing.T) {
	srv, stop := start(t, Options{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }))
	if srv.Port() == 0 || srv.URL() != fmt.Sprintf("http://127.0.0.1:%d", srv.Port()) {
		t.Fatalf("URL %s", srv.URL())
	}
	if code, body := get(t, srv.URL()+"/"); code != 200 || body != "hello" {
		t.Fatal(code, body)
	}
	if took, err := stop(); err != nil || took > time.Second {
		t.Fatalf("stopping took %v, %v", took, err)
	}
	if _, err := http.Get(srv.URL()); err == nil {
		t.Fatal("it still answers")
	}
}

func TestPortInUse(t *testing.T) {
	a, err := Listen(Options{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	_, err = Listen(Options{Addr: a.Addr().String(), Name: "pds"})
	var le *ListenError
	if !errors.As(err, &le) || !le.InUse {
		t.Fatal(err)
	}
	for _, want := range []string{"pds", a.Addr().String(), "in use", "another port"} {
		if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q does not say %q in one line", err, want)
		}
	}
	if _, err = Listen(Options{Addr: "127.0.0.1:99999"}); !errors.As(err, &le) || le.InUse {
		t.Error(err)
	}
}

func TestURLOfAllAddresses(t *testing.T) {
	s, err := Listen(Options{Addr: ":0"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.URL() != fmt.Sprintf("http://127.0.0.1:%d", s.Port()) {
		t.Error(s.URL())
	}
}

func TestPanic(t *testing.T) {
	var log syncBuffer
	srv, _ := start(t, Options{Log: slog.New(slog.NewJSONHandler(&log, nil))}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/early":
			w.Header().Set("Content-Length", "5")
			panic("the secret reason")
		case "/late":
			io.WriteString(w, "half an ans")
			w.(http.Flusher).Flush()
			panic("late")
		case "/abort":
			panic(http.ErrAbortHandler)
		}
	}))
	code, body := get(t, srv.URL()+"/early")
	if code != 500 || !strings.Contains(body, `"error":"InternalServerError"`) || strings.Contains(body, "secret") {
		t.Errorf("%d %s", code, body)
	}
	if !strings.Contains(log.String(), "the secret reason") || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("log: %s", log.String())
	}
	resp, err := http.Get(srv.URL() + "/late")
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("a broken answer looked whole")
	}
	if _, err := http.Get(srv.URL() + "/abort"); err == nil {
		t.Error("an aborted answer came")
	}
}

func TestAccessLog(t *testing.T) {
	var log syncBuffer
	srv, stop := start(t, Options{Log: slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))},
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(418); io.WriteString(w, "tea") }))
	get(t, srv.URL()+"/a%0ab"+strings.Repeat("x", 1000)+"?token=hunter2")
	stop()
	s := log.String()
	if !strings.Contains(s, `"status":418`) || !strings.Contains(s, `"bytes":3`) || strings.Contains(s, "hunter2") || len(s) > 1000 {
		t.Error(s)
	}
}

// TestStopTellsStreams has open streams of both kinds and a slow ordinary request: the streams end at once, and the
// request is finished.
func TestStopTellsStreams(t *testing.T) {
	up := websocket.Upgrader{}
	entered := make(chan string, 3)
	finish := make(chan struct{})
	srv, stop := start(t, Options{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ws":
			c, err := up.Upgrade(w, r, nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			entered <- "ws"
			<-r.Context().Done()
			c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseGoingAway, ""), time.Now().Add(time.Second))
		case "/sse":
			w.Header().Set("Content-Type", "text/event-stream")
			w.WriteHeader(200)
			http.NewResponseController(w).Flush()
			entered <- "sse"
			<-r.Context().Done()
			io.WriteString(w, "event: bye\n\n")
		case "/slow":
			entered <- "slow"
			<-finish
			if r.Context().Err() != nil {
				t.Error("an ordinary request was cut")
			}
			io.WriteString(w, "done")
		}
	}))
	ws, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(srv.URL(), "http")+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	req, _ := http.NewRequest("GET", srv.URL()+"/sse", nil)
	req.Header.Set("Accept", "text/event-stream")
	sse, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer sse.Body.Close()
	slow := make(chan string)
	go func() {
		resp, err := http.Get(srv.URL() + "/slow")
		if err != nil {
			slow <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		slow <- string(b)
	}()
	for range 3 {
		<-entered
	}
	stopped := make(chan time.Duration)
	go func() {
		took, err := stop()
		if err != nil {
			t.Error(err)
		}
		stopped <- took
	}()
	if _, _, err := ws.NextReader(); !websocket.IsCloseError(err, websocket.CloseGoingAway) {
		t.Errorf("websocket: %v", err)
	}
	if b, _ := io.ReadAll(sse.Body); string(b) != "event: bye\n\n" {
		t.Errorf("events: %q", b)
	}
	close(finish)
	if s := <-slow; s != "done" {
		t.Errorf("slow request: %s", s)
	}
	if took := <-stopped; took > DefaultShutdown {
		t.Errorf("stopping took %v", took)
	}
}

func TestStopCutsWhatHangs(t *testing.T) {
	entered := make(chan struct{})
	srv, stop := start(t, Options{Shutdown: 200 * time.Millisecond}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	}))
	go http.Get(srv.URL())
	<-entered
	if took, err := stop(); err != nil || took < 100*time.Millisecond || took > time.Second {
		t.Errorf("stopping took %v, %v", took, err)
	}
}

func TestHeaderLimit(t *testing.T) {
	srv, _ := start(t, Options{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	for size, want := range map[int]int{20 << 10: 200, 33 << 10: 431} {
		req, _ := http.NewRequest("GET", srv.URL(), nil)
		req.Header.Set("X-Big", strings.Repeat("x", size))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("header of %d bytes: %d", size, resp.StatusCode)
		}
	}
}

func TestConnectionLimit(t *testing.T) {
	srv, _ := start(t, Options{MaxConnections: 2}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	ask := func(c net.Conn) bool {
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		_, err := http.ReadResponse(bufio.NewReader(c), nil)
		return err == nil
	}
	var conns []net.Conn
	for i := range 3 {
		c, err := net.Dial("tcp", srv.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
		if ok := ask(c); ok != (i < 2) {
			t.Errorf("connection %d: %v", i, ok)
		}
	}
	conns[0].Close()
	for { // the server notices the end of the connection by itself
		c, err := net.Dial("tcp", srv.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		ok := ask(c)
		c.Close()
		if ok {
			return
		}
	}
}

// deadlineRecorder notes the deadlines that the pacing sets.
type deadlineRecorder struct {
	http.ResponseWriter
	set     []time.Time
	written []time.Time
}

func (d *deadlineRecorder) SetWriteDeadline(t time.Time) error {
	d.written = append(d.written, t)
	return nil
}

func (d *deadlineRecorder) SetReadDeadline(t time.Time) error { d.set = append(d.set, t); return nil }

func TestBodyPace(t *testing.T) {
	rec := &deadlineRecorder{}
	clock := time.Unix(1000, 0)
	b := &pacedBody{ReadCloser: io.NopCloser(bytes.NewReader(make([]byte, 2048))), rc: http.NewResponseController(rec),
		now: func() time.Time { clock = clock.Add(time.Second); return clock }} // each read takes a second, and so does what comes between them
	buf := make([]byte, 1024)
	var left []time.Duration
	for err := error(nil); err == nil; {
		at := clock.Add(time.Second)
		_, err = b.Read(buf)
		left = append(left, rec.set[len(rec.set)-1].Sub(at))
		if err == io.EOF {
			left[len(left)-1] = rec.set[len(rec.set)-2].Sub(at)
		}
		clock = clock.Add(time.Hour)
	}
	want := []time.Duration{10 * time.Second, 10 * time.Second, 10 * time.Second}
	if fmt.Sprint(left) != fmt.Sprint(want) || !rec.set[len(rec.set)-1].IsZero() {
		t.Errorf("time left %v, want %v; deadlines %v", left, want, rec.set)
	}
}

// A client that doesn't read its answer is cut, and the handler with it.
func TestAnswerNotRead(t *testing.T) {
	rec := &deadlineRecorder{ResponseWriter: httptest.NewRecorder()}
	w := &response{ResponseWriter: rec}
	if n, err := w.Write(make([]byte, 3*writePiece+1)); n != 3*writePiece+1 || err != nil || len(rec.written) != 4 {
		t.Errorf("wrote %d, %v, with %d deadlines", n, err, len(rec.written))
	}
	if n, err := w.Write(nil); n != 0 || err != nil {
		t.Errorf("wrote %d, %v", n, err)
	}
}

func TestDebug(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "baro_test_total"})
	reg.MustRegister(c)
	c.Inc()
	srv, _ := start(t, Options{}, Debug(reg))
	for path, want := range map[string]string{"/metrics": "baro_test_total 1", "/debug/pprof/": "goroutine", "/debug/pprof/heap?debug=1": "heap profile"} {
		if code, body := get(t, srv.URL()+path); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %.80s", path, code, body)
		}
	}
}

func TestMetrics(t *testing.T) {
	srv, _ := start(t, Options{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/none" {
			http.NotFound(w, r)
		}
	}))
	for _, path := range []string{"/", "/", "/none"} {
		get(t, srv.URL()+path)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(figures.New("hello", srv.Metrics))
	rec := httptest.NewRecorder()
	Debug(reg).ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{`baro_hello_http_requests_total{code="2xx"} 2`, `baro_hello_http_requests_total{code="4xx"} 1`, "baro_hello_http_connections "} {
		if !strings.Contains(rec.Body.String(), "\n"+want) {
			t.Errorf("no %s in\n%s", want, rec.Body)
		}
	}
}

func ExampleServer() {
	srv, err := Listen(Options{Addr: "127.0.0.1:0", Name: "hello"})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error)
	go func() {
		done <- srv.Run(ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }))
	}()
	resp, err := http.Get(srv.URL())
	if err != nil {
		fmt.Println(err)
		return
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	stop()
	fmt.Println(string(body), <-done)
	// Output: hello <nil>
}
