// Package httpd runs the HTTP listeners of the services: limits on headers and time, one clear error for a port in use,
// a panic that ends one request and not the process, and a shutdown that is over within two seconds.
//
// It has no specification page. It doesn't route, authenticate or limit bodies: package xrpc and the services do.
//
//	srv, err := httpd.Listen("pds", "127.0.0.1:0", handler, httpd.Options{Log: w.Log})
//	fmt.Println(srv.URL()) // known before the first request
//	err = srv.Run(ctx)     // until ctx ends, then drains
//
// Long-lived requests (event streams) must watch the context of their service, because a hijacked connection is not the
// HTTP server's to close; see [stream.Handler].
package httpd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"
)

// The limits of every listener.
const (
	ReadHeaderTimeout = 5 * time.Second
	IdleTimeout       = 2 * time.Minute
	MaxHeaderBytes    = 32 << 10
	ShutdownTimeout   = 1500 * time.Millisecond
)

// ListenError says that a listener could not be opened. Its text names the service and the address, and has a hint.
type ListenError struct {
	Service string
	Addr    string
	Err     error
}

func (e *ListenError) Error() string {
	hint := ""
	switch {
	case errors.Is(e.Err, syscall.EADDRINUSE):
		hint = ": another program uses that port; stop it, or choose another port (0 takes a free one)"
	case errors.Is(e.Err, syscall.EACCES):
		hint = ": this user may not use that port; choose one above 1023"
	case errors.Is(e.Err, syscall.EADDRNOTAVAIL):
		hint = ": this machine has no such address"
	default:
		hint = ": " + e.Err.Error()
	}
	return fmt.Sprintf("%s can't listen on %s%s", e.Service, e.Addr, hint)
}

func (e *ListenError) Unwrap() error { return e.Err }

// Options of a [Server]. The zero value is good.
type Options struct {
	Log *slog.Logger // nil discards
}

// Server is one listener with its handler.
type Server struct {
	name string
	ln   net.Listener
	srv  *http.Server
	log  *slog.Logger

	base context.Context
	stop context.CancelFunc
}

// Listen opens addr, such as "127.0.0.1:2583", and serves nothing before [Server.Run]. The error is a *ListenError.
func Listen(service, addr string, h http.Handler, o Options) (*Server, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, &ListenError{Service: service, Addr: addr, Err: err}
	}
	return Serve(service, ln, h, o), nil
}

// Serve is [Listen] on a listener that is open already.
func Serve(service string, ln net.Listener, h http.Handler, o Options) *Server {
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	log = log.With("service", service)
	s := &Server{name: service, ln: ln, log: log}
	s.base, s.stop = context.WithCancel(context.Background())
	s.srv = &http.Server{
		Handler:           s.guard(h),
		ReadHeaderTimeout: ReadHeaderTimeout,
		IdleTimeout:       IdleTimeout,
		MaxHeaderBytes:    MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return s.base },
	}
	return s
}

// Addr returns the bound address, such as "127.0.0.1:40123".
func (s *Server) Addr() string { return s.ln.Addr().String() }

// Port returns the bound port.
func (s *Server) Port() int {
	if a, ok := s.ln.Addr().(*net.TCPAddr); ok {
		return a.Port
	}
	return 0
}

// URL returns the origin to reach the server at from this machine, such as "http://localhost:40123" for a loopback
// address. The name localhost is used because the protocol's rules for development (did:web with a port) know only it.
func (s *Server) URL() string {
	host, port, err := net.SplitHostPort(s.Addr())
	if err != nil {
		return "http://" + s.Addr()
	}
	if ip := net.ParseIP(host); ip != nil && (ip.IsLoopback() || ip.IsUnspecified()) {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// Run serves until ctx ends, then refuses new connections, lets requests in flight finish for [ShutdownTimeout], and
// closes what is left. It returns nil after a shutdown that ctx asked for.
func (s *Server) Run(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- s.srv.Serve(s.ln) }()
	select {
	case err := <-done:
		s.stop()
		return fmt.Errorf("serving %s on %s: %w", s.name, s.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), ShutdownTimeout)
	defer cancel()
	err := s.srv.Shutdown(grace)
	s.stop()
	if err != nil {
		s.log.Debug("closing connections that did not finish in time", "err", err)
		err = s.srv.Close()
	}
	<-done
	return err
}

// Close ends the server at once. It is for listeners that never ran.
func (s *Server) Close() error {
	s.stop()
	err := s.srv.Close()
	if lerr := s.ln.Close(); err == nil && !errors.Is(lerr, net.ErrClosed) {
		err = lerr
	}
	return err
}

// guard turns a panic into a 500 of this request and logs requests at debug level.
func (s *Server) guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if v == http.ErrAbortHandler {
				panic(v)
			}
			s.log.Error("a handler panicked", "method", r.Method, "path", truncate(r.URL.Path), "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			WriteError(w, http.StatusInternalServerError, "InternalServerError", "something went wrong on this server")
		}()
		s.log.Debug("request", "method", r.Method, "path", truncate(r.URL.Path), "remote", r.RemoteAddr)
		h.ServeHTTP(w, r)
	})
}

func truncate(s string) string {
	if len(s) > 256 {
		return s[:256] + "…"
	}
	return s
}

// WriteError answers with the error envelope of XRPC, {"error", "message"}.
func WriteError(w http.ResponseWriter, status int, name, message string) {
	body, err := json.Marshal(struct {
		Error   string `json:"error"`
		Message string `json:"message,omitempty"`
	}{name, message})
	if err != nil { // strings always marshal
		body = []byte(`{"error":"InternalServerError"}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(body)
}
