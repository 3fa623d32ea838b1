package xrpc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"mime"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"

	"github.com/barograph/baro/data"
	"github.com/barograph/baro/syntax"
)

// ServerOptions configure a [Server]. All fields may be zero.
type ServerOptions struct {
	Auth     AuthFunc     // looks at the credentials of each request, for routes that have none of their own
	MaxBody  int64        // bytes of a JSON input; 0: 2 MiB
	MaxRaw   int64        // bytes of another input; 0: 100 MiB
	Fallback http.Handler // gets requests of methods that have no route; nil: they are not implemented

	// Before sees each request under /xrpc/ first, and returns true if it has answered it. It may be nil.
	Before func(w http.ResponseWriter, r *http.Request, nsid string) bool

	// Validate, if not nil, is asked about every JSON input that has the right shape: a pointer to the input of a method. An
	// error that is neither an [*Error] nor an [ErrorName] is answered as InvalidRequest with its text. With a catalog of
	// package lexicon:
	//
	//	func(nsid string, in any) error {
	//		raw, err := data.Marshal(in)
	//		if err != nil {
	//			return err
	//		}
	//		return catalog.ValidateInput(syntax.NSID(nsid), raw)
	//	}
	Validate func(nsid string, in any) error

	Log *slog.Logger // gets what clients may not see: unexpected errors and panics; nil: nothing
}

// AuthFunc looks at the credentials of a request. What it returns is Request.Auth; an error ends the request.
type AuthFunc func(r *http.Request, nsid string) (any, error)

// RouteOptions are for one route, where it differs from [ServerOptions].
type RouteOptions struct {
	Auth    AuthFunc
	Public  bool  // no AuthFunc is called
	MaxBody int64 // bytes of the input, JSON or not
}

const (
	defaultMaxBody = 2 << 20
	defaultMaxRaw  = 100 << 20
)

// Server is an HTTP handler that routes methods by their NSID, answers errors in the form of the protocol, and lets pages of
// all origins call (CORS). Add all routes before it is used.
type Server struct {
	opts   ServerOptions
	mux    *http.ServeMux
	routes map[string]*route
}

var _ http.Handler = (*Server)(nil)

type route struct {
	method string
	opts   RouteOptions
	handle func(w http.ResponseWriter, r *Request) error
}

// Request is what handlers get: the HTTP request and what is known about it.
type Request struct {
	*http.Request
	NSID string
	Auth any         // what the AuthFunc returned, nil if there is none
	Out  http.Header // headers of the response
}

// NewServer returns a server without methods.
func NewServer(o ServerOptions) *Server {
	s := &Server{opts: o, mux: http.NewServeMux(), routes: map[string]*route{}}
	s.mux.HandleFunc(pathPrefix, s.unknown)
	return s
}

// Handle adds a handler for another path than those of methods, with a pattern as of [http.ServeMux].
func (s *Server) Handle(pattern string, h http.Handler) { s.mux.Handle(pattern, h) }

// Methods returns the NSIDs that have a route, in no order.
func (s *Server) Methods() []string {
	list := make([]string, 0, len(s.routes))
	for nsid := range maps.Keys(s.routes) {
		list = append(list, nsid)
	}
	return list
}

// HandleQuery adds a query. The output may be nil if it is [None].
func HandleQuery[P, O any](s *Server, q Query[P, O], h func(ctx context.Context, r *Request, p *P) (*O, error), o ...RouteOptions) {
	s.add(q.NSID, http.MethodGet, o, func(w http.ResponseWriter, r *Request) error {
		p, err := params[P](r)
		if err != nil {
			return err
		}
		out, err := h(r.Context(), r, p)
		if err != nil {
			return err
		}
		return writeOutput(w, r, out, q.Returns)
	})
}

// HandleProcedure adds a procedure.
func HandleProcedure[I, O any](s *Server, p Procedure[I, O], h func(ctx context.Context, r *Request, in *I) (*O, error), o ...RouteOptions) {
	limit := s.limit(new(I), o)
	s.add(p.NSID, http.MethodPost, o, func(w http.ResponseWriter, r *Request) error {
		in, err := readInput[I](s, w, r, p.Accepts, limit)
		if err != nil {
			return err
		}
		out, err := h(r.Context(), r, in)
		if err != nil {
			return err
		}
		return writeOutput(w, r, out, p.Returns)
	})
}

// HandleProcedureWithParams adds a procedure that has parameters.
func HandleProcedureWithParams[P, I, O any](s *Server, d ProcedureWithParams[P, I, O], h func(ctx context.Context, r *Request, p *P, in *I) (*O, error), o ...RouteOptions) {
	limit := s.limit(new(I), o)
	s.add(d.NSID, http.MethodPost, o, func(w http.ResponseWriter, r *Request) error {
		p, err := params[P](r)
		if err != nil {
			return err
		}
		in, err := readInput[I](s, w, r, d.Accepts, limit)
		if err != nil {
			return err
		}
		out, err := h(r.Context(), r, p, in)
		if err != nil {
			return err
		}
		return writeOutput(w, r, out, d.Returns)
	})
}

// HandleSubscription adds an event stream. The handler turns the request into a WebSocket; an error that it returns before
// is answered as usual, one after goes to the log.
func HandleSubscription[P, M any](s *Server, d Subscription[P, M], h func(w http.ResponseWriter, r *Request, p *P) error, o ...RouteOptions) {
	s.add(d.NSID, http.MethodGet, o, func(w http.ResponseWriter, r *Request) error {
		p, err := params[P](r)
		if err != nil {
			return err
		}
		return h(w, r, p)
	})
}

// HandleRaw adds a method whose handler does everything by itself, in the verb GET or POST; "" is both. An error that it
// returns before it has written anything is answered as usual.
func HandleRaw(s *Server, nsid, method string, h func(w http.ResponseWriter, r *Request) error, o ...RouteOptions) {
	s.add(nsid, method, o, h)
}

func (s *Server) add(nsid, method string, o []RouteOptions, h func(w http.ResponseWriter, r *Request) error) {
	rt := &route{method: method, handle: h}
	if len(o) > 0 {
		rt.opts = o[0]
	}
	s.routes[nsid] = rt
	s.mux.HandleFunc(pathPrefix+nsid, func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, nsid, rt) })
}

func (s *Server) limit(in any, o []RouteOptions) int64 {
	if len(o) > 0 && o[0].MaxBody > 0 {
		return o[0].MaxBody
	}
	limit, def := s.opts.MaxBody, int64(defaultMaxBody)
	if _, raw := in.(*Body); raw {
		limit, def = s.opts.MaxRaw, defaultMaxRaw
	}
	if limit == 0 {
		return def
	}
	return limit
}

// ServeHTTP routes the request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	nsid, ok := strings.CutPrefix(r.URL.Path, pathPrefix)
	if !ok {
		s.mux.ServeHTTP(w, r)
		return
	}
	rec := &recorder{ResponseWriter: w}
	defer s.recover(rec, r, nsid)
	cors(w.Header())
	if r.Method == http.MethodOptions {
		preflight(w, r)
		return
	}
	if s.opts.Before != nil && s.opts.Before(rec, r, nsid) {
		return
	}
	s.mux.ServeHTTP(rec, r)
}

// recover answers after a panic.
func (s *Server) recover(w *recorder, r *http.Request, nsid string) {
	v := recover()
	switch {
	case v == nil:
		return
	case v == http.ErrAbortHandler: // a handler's way to cut the connection
		panic(v)
	}
	if s.opts.Log != nil {
		s.opts.Log.Error("panic in a handler", "method", nsid, "panic", v, "stack", string(debug.Stack()))
	}
	if w.written {
		panic(http.ErrAbortHandler)
	}
	WriteError(w, r, ErrInternal.With("internal server error"))
}

func (s *Server) unknown(w http.ResponseWriter, r *http.Request) {
	nsid := strings.TrimPrefix(r.URL.Path, pathPrefix)
	switch {
	case !syntax.ValidNSID(nsid):
		WriteError(w, r, ErrInvalidRequest.WithStatus(http.StatusNotFound, "the path doesn't name a method"))
	case s.opts.Fallback != nil:
		s.opts.Fallback.ServeHTTP(w, r)
	default:
		WriteError(w, r, ErrNotImplemented.With("the method %s isn't implemented here", nsid))
	}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, nsid string, rt *route) {
	verb := r.Method
	if verb == http.MethodHead {
		verb = http.MethodGet
	}
	if rt.method != "" && verb != rt.method {
		w.Header().Set("Allow", rt.method+", OPTIONS")
		WriteError(w, r, ErrInvalidRequest.WithStatus(http.StatusMethodNotAllowed, "%s takes %s, not %s", nsid, rt.method, r.Method))
		return
	}
	req := &Request{Request: r, NSID: nsid, Out: w.Header()}
	err := s.authorize(req, rt)
	if err == nil {
		err = unpack(r)
	}
	if err == nil {
		err = rt.handle(w, req)
	}
	if err == nil {
		return
	}
	e, expected := asError(err)
	if !expected && r.Context().Err() == nil && s.opts.Log != nil {
		s.opts.Log.Error("a method failed", "method", nsid, "err", err)
	}
	if rec, ok := w.(*recorder); ok && rec.written {
		if !rec.hijacked {
			panic(http.ErrAbortHandler) // the client must not take half an answer for a whole one
		}
		return
	}
	WriteError(w, r, e)
}

func (s *Server) authorize(r *Request, rt *route) (err error) {
	auth := s.opts.Auth
	if rt.opts.Auth != nil {
		auth = rt.opts.Auth
	}
	if auth == nil || rt.opts.Public {
		return nil
	}
	r.Auth, err = auth(r.Request, r.NSID)
	return err
}

func params[P any](r *Request) (*P, error) {
	p := new(P)
	if _, none := any(p).(*None); none {
		return p, nil
	}
	return p, DecodeParams(r.URL.RawQuery, p)
}

// readInput reads and checks the body of a procedure.
func readInput[I any](s *Server, w http.ResponseWriter, r *Request, accepts string, limit int64) (*I, error) {
	in := new(I)
	if _, none := any(in).(*None); none {
		return in, nil
	}
	if r.ContentLength > limit {
		return nil, ErrPayloadTooLarge.With("the body has %d bytes, at most %d are accepted", r.ContentLength, limit)
	}
	r.Body = http.MaxBytesReader(w, r.Body, limit)
	header := r.Header.Get("Content-Type")
	kind, err := header, error(nil)
	if header != typeJSON {
		kind, _, err = mime.ParseMediaType(header)
	}
	if b, raw := any(in).(*Body); raw {
		if header == "" {
			kind = "application/octet-stream"
		} else if err != nil {
			return nil, ErrInvalidRequest.With("the content type %s is malformed", clip(header))
		}
		if !accept(accepts, kind) {
			return nil, ErrInvalidRequest.With("the body must be of type %s, not %s", accepts, kind)
		}
		*b = Body{Reader: r.Body, Type: kind, Length: r.ContentLength}
		return in, nil
	}
	switch {
	case header == "" && r.ContentLength == 0:
		return nil, ErrInvalidRequest.With("a body is required, but there is none")
	case err != nil || kind != typeJSON:
		return nil, ErrInvalidRequest.With("the body must be of type %s, not %s", typeJSON, clip(header))
	}
	buf := buffers.Get().(*bytes.Buffer)
	defer putBuffer(buf)
	if _, err := buf.ReadFrom(r.Body); err != nil {
		return nil, err
	}
	if err := data.UnmarshalJSON(buf.Bytes(), in); err != nil {
		return nil, ErrInvalidRequest.With("the body is malformed: %v", err)
	}
	if s.opts.Validate == nil {
		return in, nil
	}
	if err := s.opts.Validate(r.NSID, in); err != nil {
		if _, ok := asError(err); ok {
			return nil, err
		}
		return nil, ErrInvalidRequest.With("the body is invalid: %v", err)
	}
	return in, nil
}

// accept reports whether a MIME type fits a pattern such as image/*.
func accept(pattern, kind string) bool {
	if pattern == "" || pattern == "*/*" || strings.EqualFold(pattern, kind) {
		return true
	}
	prefix, ok := strings.CutSuffix(pattern, "*")
	return ok && strings.HasPrefix(kind, prefix)
}

// writeOutput answers with what a handler returned.
func writeOutput[O any](w http.ResponseWriter, r *Request, out *O, returns string) error {
	switch out := any(out).(type) {
	case *None:
		w.WriteHeader(http.StatusOK)
		return nil
	case *Stream:
		return writeStream(w, r, out, returns)
	}
	if out == nil {
		return fmt.Errorf("the handler of %s returned nothing", r.NSID)
	}
	return WriteJSON(w, http.StatusOK, out)
}

// WriteJSON answers with a value that package data can encode. It has written nothing if it returns an error of encoding.
func WriteJSON(w http.ResponseWriter, status int, v any) error {
	buf := buffers.Get().(*bytes.Buffer)
	defer putBuffer(buf)
	b, err := data.AppendStructJSON(buf.AvailableBuffer(), v)
	if err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	*buf = *bytes.NewBuffer(b)
	h := w.Header()
	h.Set("Content-Type", typeJSON+"; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	w.Write(b) // the client is gone if this fails
	return nil
}

func writeStream(w http.ResponseWriter, r *Request, out *Stream, returns string) error {
	if out == nil || out.Body == nil {
		return fmt.Errorf("the handler of %s returned nothing", r.NSID)
	}
	defer out.Body.Close()
	h := w.Header()
	maps.Copy(h, out.Header)
	if out.Type != "" {
		returns = out.Type
	}
	if returns == "" || strings.Contains(returns, "*") {
		returns = "application/octet-stream"
	}
	h.Set("Content-Type", returns)
	if out.Length > 0 {
		h.Set("Content-Length", strconv.FormatInt(out.Length, 10))
	}
	if r.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	if _, err := io.Copy(w, out.Body); err != nil {
		return fmt.Errorf("sending the body: %w", err)
	}
	return nil
}

// WriteError answers with an error in the form of the protocol. An error that is neither an [*Error] nor an [ErrorName] is
// an internal one, of which the client is told nothing.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	e, _ := asError(err)
	status := e.Status
	if status < 400 || status > 599 {
		status = http.StatusInternalServerError
	}
	name := e.Name
	if name == "" {
		name = strings.ReplaceAll(http.StatusText(status), " ", "")
	}
	h := w.Header()
	for k, v := range e.Header {
		if _, set := h[k]; !set && k != "Content-Length" && k != "Content-Encoding" && k != "Transfer-Encoding" {
			h[k] = v
		}
	}
	message := e.Message
	if len(message) > maxMessage { // it may quote what the client sent
		message = strings.ToValidUTF8(message[:maxMessage], "") + "…"
	}
	b, _ := json.Marshal(struct {
		Error   string `json:"error"`
		Message string `json:"message,omitempty"`
	}{name, message})
	h.Set("Content-Type", typeJSON+"; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write(b)
	}
}

const (
	allowHeaders  = "Authorization, Content-Type, Content-Encoding, DPoP, Atproto-Proxy, Atproto-Accept-Labelers, X-Bsky-Topics"
	exposeHeaders = "Atproto-Repo-Rev, Atproto-Content-Labelers, DPoP-Nonce, WWW-Authenticate, Retry-After, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, RateLimit-Policy"
	maxEcho       = 1024
	maxMessage    = 2048
)

// cors lets pages of all origins read answers. Browsers send no cookies then, and the protocol uses none.
func cors(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", exposeHeaders)
}

func preflight(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	allow := allowHeaders
	if want := r.Header.Get("Access-Control-Request-Headers"); want != "" && len(want) <= maxEcho {
		allow = want
	}
	h.Set("Access-Control-Allow-Headers", allow)
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, OPTIONS")
	h.Set("Access-Control-Max-Age", "86400")
	w.WriteHeader(http.StatusNoContent)
}

// recorder remembers whether an answer has begun.
type recorder struct {
	http.ResponseWriter
	written, hijacked bool
}

// WriteHeader notes that the answer has begun.
func (w *recorder) WriteHeader(status int) {
	w.written = w.written || status >= 200
	w.ResponseWriter.WriteHeader(status)
}

// Write notes that the answer has begun.
func (w *recorder) Write(b []byte) (int, error) {
	w.written = true
	return w.ResponseWriter.Write(b)
}

// ReadFrom keeps the fast path of io.Copy.
func (w *recorder) ReadFrom(r io.Reader) (int64, error) {
	w.written = true
	return io.Copy(w.ResponseWriter, r)
}

// Flush sends what has been written.
func (w *recorder) Flush() {
	w.written = true
	http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack takes over the connection, for WebSockets.
func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.written, w.hijacked = true, true
	}
	return c, rw, err
}

// Unwrap is for [http.ResponseController].
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

const maxKept = 1 << 20

func putBuffer(b *bytes.Buffer) {
	if b.Cap() <= maxKept {
		b.Reset()
		buffers.Put(b)
	}
}
