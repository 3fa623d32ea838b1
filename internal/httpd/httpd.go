// Package httpd runs the HTTP side of a service: it listens first, so that the bound address is known, sets the limits
// that every server needs, answers a panic with an error, and stops within two seconds.
//
// The errors it answers by itself have the shape of https://atproto.com/specs/xrpc. It does not route, authenticate,
// limit rates or speak TLS: that is the handler's, the service's and the reverse proxy's.
//
//	srv, err := httpd.Listen(httpd.Options{Addr: "127.0.0.1:0", Name: "pds", Log: w.Log})
//	fmt.Println(srv.URL())
//	err = srv.Run(ctx, svc.Handler()) // until ctx ends
//
// Limits: 5 s and 32 KiB for a request's header, 1 KiB/s for its body after 10 s, 30 s for a client to take each 64 KiB of
// the answer, 4,096 connections. The size of a body is limited by the handler that knows what it is for.
package httpd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/barograph/baro/internal/figures"
	"github.com/barograph/baro/internal/world"
)

// Defaults of [Options].
const (
	DefaultShutdown       = 2 * time.Second
	DefaultMaxConnections = 4096
	headerTimeout         = 5 * time.Second
	headerBytes           = 32 << 10
	idleTimeout           = 90 * time.Second
	bodyGrace             = 10 * time.Second
	bodyRate              = 1 << 10 // bytes per second
	writePiece            = 64 << 10
	writeTimeout          = 30 * time.Second // for a client to take one piece
)

// Options of a [Server].
type Options struct {
	Addr           string        // host:port; port 0 takes a free one
	Name           string        // of the service, for log lines
	Log            *slog.Logger  // nil: nothing is logged
	Shutdown       time.Duration // how long stopping may take; 0: [DefaultShutdown]
	MaxConnections int           // more are closed at once; 0: [DefaultMaxConnections]
}

// ListenError says why an address cannot be listened on, and what to do about it.
type ListenError struct {
	Name, Addr string
	InUse      bool // another program has the port
	Hint       string
	Err        error
}

func (e *ListenError) Error() string {
	who := ""
	if e.Name != "" {
		who = e.Name + ": "
	}
	if e.Hint == "" {
		return fmt.Sprintf("%scannot listen on %s: %v", who, e.Addr, e.Err)
	}
	return fmt.Sprintf("%scannot listen on %s: %s", who, e.Addr, e.Hint)
}

func (e *ListenError) Unwrap() error { return e.Err }

func listenError(o Options, err error) error {
	e := &ListenError{Name: o.Name, Addr: o.Addr, Err: err}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		e.InUse = true
		e.Hint = "the port is in use: stop the program that has it, or choose another port (0 takes a free one)"
	case errors.Is(err, syscall.EACCES):
		e.Hint = "not allowed: ports below 1024 need privileges, so choose a higher one"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		e.Hint = "this machine does not have that address"
	}
	return e
}

// Server is a listener that waits for its handler.
type Server struct {
	o        Options
	ln       net.Listener
	stopping chan struct{} // closed when Run begins to stop
	handlers running
	conns    atomic.Int64
	answers  [6]atomic.Uint64 // by the first digit of their status; 0: none was given
}

// Listen binds the address. Connections wait until Run.
func Listen(o Options) (*Server, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Shutdown <= 0 {
		o.Shutdown = DefaultShutdown
	}
	if o.MaxConnections <= 0 {
		o.MaxConnections = DefaultMaxConnections
	}
	ln, err := net.Listen("tcp", o.Addr)
	if err != nil {
		return nil, listenError(o, err)
	}
	return &Server{o: o, ln: ln, stopping: make(chan struct{})}, nil
}

// Addr is the bound address.
func (s *Server) Addr() netip.AddrPort {
	a := s.ln.Addr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// Port is the bound port.
func (s *Server) Port() int { return int(s.Addr().Port()) }

// URL is where the server can be reached from this machine, without a slash at the end.
func (s *Server) URL() string {
	a := s.Addr()
	if a.Addr().IsUnspecified() { // all addresses, of which this one is near
		a = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), a.Port())
	}
	return "http://" + a.String()
}

// Close gives the address up when Run is not going to be called. After Run it does nothing.
func (s *Server) Close() error {
	if err := s.ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("closing the listener: %w", err)
	}
	return nil
}

// Run serves until ctx ends, and then stops: no new connections, streams (WebSockets and server-sent events) are told at
// once through the contexts of their requests, other requests get most of Options.Shutdown to finish, and what is left
// is cut. It returns when all handlers have returned or the time is up, nil unless serving failed. It is called once.
func (s *Server) Run(ctx context.Context, h http.Handler) error {
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	srv := &http.Server{
		Handler:           s.wrap(h),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    headerBytes - 8192, // net/http adds 4 KiB, and on a used connection what it has read ahead
		ErrorLog:          slog.NewLogLogger(s.o.Log.With("server", s.o.Name).Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnState:         s.connState,
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(s.ln) }()
	select {
	case err := <-served:
		cut()
		srv.Close()
		s.handlers.await(context.WithoutCancel(ctx))
		return fmt.Errorf("serving %s: %w", s.o.Name, err)
	case <-ctx.Done():
	}

	close(s.stopping)
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.o.Shutdown)
	defer cancel()
	polite, cancel := context.WithTimeout(end, s.o.Shutdown*3/4)
	defer cancel()
	_ = srv.Shutdown(polite) // closes the listener; an error only says that the time is up
	s.handlers.await(polite) // hijacked connections, which Shutdown does not know of
	cut()
	_ = srv.Close()
	<-served
	if !s.handlers.await(end) {
		s.o.Log.Warn("handlers still run after the server stopped", "server", s.o.Name)
	}
	return nil
}

// running counts the handlers that run. A WaitGroup would not do: requests may still begin while somebody waits.
type running struct {
	mu   sync.Mutex
	n    int
	idle chan struct{} // made by who waits, closed when n gets to 0
}

func (r *running) begin() {
	r.mu.Lock()
	r.n++
	r.mu.Unlock()
}

func (r *running) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n--; r.n == 0 && r.idle != nil {
		close(r.idle)
		r.idle = nil
	}
}

// await returns when no handler runs, true, or when ctx ends.
func (r *running) await(ctx context.Context) bool {
	r.mu.Lock()
	if r.n == 0 {
		r.mu.Unlock()
		return true
	}
	if r.idle == nil {
		r.idle = make(chan struct{})
	}
	idle := r.idle
	r.mu.Unlock()
	select {
	case <-idle:
		return true
	case <-ctx.Done():
		return false
	}
}

// connState keeps count of connections and closes those that are too many. Hijacked ones are their handler's to limit.
func (s *Server) connState(c net.Conn, st http.ConnState) {
	switch st {
	case http.StateNew:
		if s.conns.Add(1) > int64(s.o.MaxConnections) {
			c.Close()
		}
	case http.StateClosed, http.StateHijacked:
		s.conns.Add(-1)
	}
}

// wrap puts around each request what the package promises.
func (s *Server) wrap(h http.Handler) http.Handler {
	debug := s.o.Log.Enabled(context.Background(), slog.LevelDebug)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.handlers.begin()
		defer s.handlers.end()
		if isStream(r) {
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			done := make(chan struct{})
			defer close(done)
			go func() {
				select {
				case <-s.stopping:
					cancel()
				case <-done:
				}
			}()
			r = r.WithContext(ctx)
		}
		rw := &response{ResponseWriter: w}
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = &pacedBody{ReadCloser: r.Body, rc: http.NewResponseController(w), now: world.System.Now}
		}
		var start time.Time
		if debug {
			start = world.System.Now()
		}
		defer func() {
			err := recover()
			if err != nil && err != http.ErrAbortHandler {
				s.o.Log.Error("a handler panicked", "server", s.o.Name, "method", r.Method, "path", clip(r.URL.Path), "panic", fmt.Sprint(err), "stack", stack())
				if !rw.begun {
					WriteError(rw, http.StatusInternalServerError, "InternalServerError", "the server failed to handle this request")
					err = nil
				}
			}
			s.answers[min(max(rw.code()/100, 0), len(s.answers)-1)].Add(1)
			if debug {
				// The query is left out: parameters may hold what must not be in a log.
				s.o.Log.Debug("request", "server", s.o.Name, "method", r.Method, "path", clip(r.URL.Path), "status", rw.code(),
					"bytes", rw.written, "took", world.System.Now().Sub(start), "from", r.RemoteAddr)
			}
			if err != nil {
				panic(http.ErrAbortHandler) // part of an answer is out: break it off, so that it is not taken for whole
			}
		}()
		h.ServeHTTP(rw, r)
	})
}

// Metrics writes the figures of the server down, in the name of the service that it serves.
func (s *Server) Metrics(w *figures.Writer) {
	for class := range s.answers {
		if n := s.answers[class].Load(); n > 0 {
			w.Counter("http_requests_total", "Requests by the class of their answer; 0xx: cut off.", float64(n), "code", strconv.Itoa(class)+"xx")
		}
	}
	w.Gauge("http_connections", "Open connections.", float64(s.conns.Load()))
}

func isStream(r *http.Request) bool {
	return r.Header.Get("Upgrade") != "" || strings.Contains(r.Header.Get("Accept"), "text/event-stream")
}

// clip keeps what a client sent to a length that a log line can bear.
func clip(s string) string {
	if len(s) > 256 {
		return s[:256] + "…"
	}
	return s
}

// response notes what was answered.
type response struct {
	http.ResponseWriter
	begun   bool
	status  int
	written int64
}

func (w *response) code() int {
	if w.status == 0 {
		return http.StatusOK
	}
	return w.status
}

func (w *response) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		if !w.begun {
			w.status = status
		}
		w.begun = true
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write sends in pieces, each with its own deadline, so that a client that stops reading doesn't hold the handler and its
// answer for ever.
func (w *response) Write(p []byte) (int, error) {
	w.begun = true
	done := 0
	for {
		piece := p[done:min(len(p), done+writePiece)]
		w.hurry()
		n, err := w.ResponseWriter.Write(piece)
		done += n
		w.written += int64(n)
		if err != nil || done >= len(p) {
			return done, err
		}
	}
}

// hurry gives the client its time for the next piece. What is no network connection has no deadlines; net/http takes them
// away after each request.
func (w *response) hurry() {
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(world.System.Now().Add(writeTimeout))
}

// Flush and Hijack are what WebSocket and event-stream handlers look for; Unwrap is for http.ResponseController.
func (w *response) Flush() {
	w.begun = true
	w.hurry()
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// pacedBody ends a body that comes too slowly, by giving each read the time that its bytes may take. Only the time that
// reads wait counts: a handler may take its time between them.
type pacedBody struct {
	io.ReadCloser
	rc    *http.ResponseController
	now   func() time.Time
	spent time.Duration
	n     int64
	done  bool
}

func (b *pacedBody) Read(p []byte) (int, error) {
	start := b.now()
	if !b.done {
		_ = b.rc.SetReadDeadline(start.Add(bodyGrace + time.Duration(b.n)*time.Second/bodyRate - b.spent))
	}
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	if b.done {
		return n, err
	}
	b.spent += b.now().Sub(start)
	if err != nil {
		b.done = true
		_ = b.rc.SetReadDeadline(time.Time{}) // net/http goes on reading, to notice when the client goes away
	}
	return n, err
}
