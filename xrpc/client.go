package xrpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/barograph/baro/data"
)

// Client calls methods on one host. Its fields are set once; the With methods return a changed copy and leave the client as
// it was, so that one may be shared. The zero values of all fields but Host are of use.
type Client struct {
	Host string       // URL of the host, such as "https://pds.example.com", without a path
	HTTP *http.Client // nil: the standard transport; no timeout of its own, the context has one
	Auth Auth         // nil: without credentials

	Header http.Header // sent with every request
	// HeaderSources compute more headers, anew for each attempt. Of headers with the same name a source's goes before those of
	// Header, a later source's before an earlier one's, and that of [WithCallHeader] before all of them.
	HeaderSources []func(context.Context) (http.Header, error)

	MaxResponse int64  // bytes of a JSON answer, unpacked; 0: 16 MiB
	Retry       *Retry // nil: a call is one attempt, but for what a [Refresher] asks for
	Pacer       *Pacer // nil: calls go as fast as they are made
	// Strict refuses an answer whenever something in it doesn't fit the lexicon or the data model. Else a list isn't lost for
	// one bad item: what doesn't fit within the items of a list, or deeper, is zero or, in a [data.Raw], kept as it is (see
	// [data.AppendCBORLenient]), and [Meta] tells of it; only what is wrong in the fields of the answer itself is an error.
	Strict bool

	// Validate, if not nil, is asked about every JSON answer: a pointer to the output of a method. An error of it is that of
	// the call. See the field of the same name in [ServerOptions].
	Validate func(nsid string, out any) error
}

const (
	defaultMaxResponse = 16 << 20
	maxErrorBody       = 64 << 10
	userAgent          = "barograph"
)

// Auth adds credentials to requests. They don't go to another origin by a redirect. If it implements [Refresher] too it may get a request repeated.
type Auth interface {
	Authorize(ctx context.Context, req *http.Request) error
}

// Refresher is an [Auth] that can answer a refusal, by new tokens or a nonce. It is asked about an answer with the status 400,
// 401 or 403; if it returns true the request is authorized anew and repeated. A request is repeated twice at most, and only
// once for the same name of an error: it may lack first a nonce and then a fresh token.
type Refresher interface {
	Refresh(ctx context.Context, req *http.Request, refusal *Error) (retry bool, err error)
}

// Observer is an [Auth] that sees the header of every answer, since some tell what the next request must carry.
type Observer interface {
	Observe(req *http.Request, header http.Header)
}

// maxRefusals is how many refusals of one request a [Refresher] may answer.
const maxRefusals = 2

// Bearer is an [Auth] that sends a fixed token.
type Bearer string

// Authorize sets the header.
func (b Bearer) Authorize(_ context.Context, req *http.Request) error {
	req.Header.Set("Authorization", "Bearer "+string(b))
	return nil
}

// Basic is an [Auth] of a user and a password, as administrative methods want it.
type Basic struct{ User, Password string }

// Authorize sets the header.
func (b Basic) Authorize(_ context.Context, req *http.Request) error {
	req.SetBasicAuth(b.User, b.Password)
	return nil
}

// WithHost returns a client of another host, with the same credentials.
func (c *Client) WithHost(host string) *Client {
	d := *c
	d.Host = host
	return &d
}

// WithAuth returns a client with other credentials.
func (c *Client) WithAuth(a Auth) *Client {
	d := *c
	d.Auth = a
	return &d
}

// WithHeader returns a client that sends one more header, or another value of it; none if value is "".
func (c *Client) WithHeader(name, value string) *Client {
	d := *c
	d.Header = maps.Clone(c.Header)
	if d.Header == nil {
		d.Header = http.Header{}
	}
	if value == "" {
		d.Header.Del(name)
	} else {
		d.Header.Set(name, value)
	}
	return &d
}

// WithHeaderSource returns a client that computes more headers for each attempt.
func (c *Client) WithHeaderSource(source func(context.Context) (http.Header, error)) *Client {
	d := *c
	d.HeaderSources = append(slices.Clip(c.HeaderSources), source)
	return &d
}

// WithRetry returns a client that repeats what may be repeated; nil: nothing.
func (c *Client) WithRetry(r *Retry) *Client {
	d := *c
	d.Retry = r
	return &d
}

// WithPacer returns a client whose calls are slowed down before a server's budget ends; nil: they aren't.
func (c *Client) WithPacer(p *Pacer) *Client {
	d := *c
	d.Pacer = p
	return &d
}

// WithStrict returns a client that refuses answers that don't fit the lexicon in full, or not.
func (c *Client) WithStrict(strict bool) *Client {
	d := *c
	d.Strict = strict
	return &d
}

// WithProxy returns a client whose PDS forwards requests to a service, a DID and a fragment such as
// "did:web:api.bsky.app#bsky_appview".
func (c *Client) WithProxy(service string) *Client { return c.WithHeader("Atproto-Proxy", service) }

// WithLabelers returns a client that asks for the labels of the given labelers, DIDs that may end in ";redact".
func (c *Client) WithLabelers(dids ...string) *Client {
	return c.WithHeader("Atproto-Accept-Labelers", strings.Join(dids, ", "))
}

// Call calls the query. An output of the type [Stream] is not read yet, and the caller closes it.
func (q Query[P, O]) Call(ctx context.Context, c *Client, p *P) (*O, error) {
	query, err := EncodeParams(p)
	if err != nil {
		return nil, err
	}
	return call[O](ctx, c, http.MethodGet, q.NSID, query, nil, q.Returns)
}

// Call calls the procedure.
func (p Procedure[I, O]) Call(ctx context.Context, c *Client, in *I) (*O, error) {
	body, err := encodeInput(in, p.Accepts)
	if err != nil {
		return nil, fmt.Errorf("calling %s: %w", p.NSID, err)
	}
	return call[O](ctx, c, http.MethodPost, p.NSID, "", body, p.Returns)
}

// Call calls the procedure.
func (p ProcedureWithParams[P, I, O]) Call(ctx context.Context, c *Client, params *P, in *I) (*O, error) {
	query, err := EncodeParams(params)
	if err != nil {
		return nil, err
	}
	body, err := encodeInput(in, p.Accepts)
	if err != nil {
		return nil, fmt.Errorf("calling %s: %w", p.NSID, err)
	}
	return call[O](ctx, c, http.MethodPost, p.NSID, query, body, p.Returns)
}

// URL returns the address of the event stream on a host, with the scheme ws or wss.
func (s Subscription[P, M]) URL(host string, p *P) (string, error) {
	query, err := EncodeParams(p)
	if err != nil {
		return "", err
	}
	return "ws" + strings.TrimPrefix(methodURL(host, s.NSID, query), "http"), nil
}

func methodURL(host, nsid, query string) string {
	u := strings.TrimRight(host, "/") + pathPrefix + nsid
	if query != "" {
		u += "?" + query
	}
	return u
}

func encodeInput(in any, accepts string) (*Body, error) {
	switch in := in.(type) {
	case *None:
		return nil, nil
	case *Body:
		if in == nil || in.Reader == nil {
			return nil, errors.New("no body")
		}
		b := *in
		if b.Type == "" && !strings.Contains(accepts, "*") {
			b.Type = accepts
		}
		return &b, nil
	}
	b, err := data.MarshalJSON(in)
	if err != nil {
		return nil, err
	}
	return &Body{Reader: bytes.NewReader(b), Type: typeJSON, Length: int64(len(b))}, nil
}

// call is [Client.call] for one type of output. There is little in it, because the compiler makes one of it for each.
func call[O any](ctx context.Context, c *Client, method, nsid, query string, in *Body, accept string) (out *O, err error) {
	err = c.call(ctx, method, nsid, query, in, accept, func() any { out = new(O); return out })
	if err != nil {
		return nil, err
	}
	return out, nil
}

// call fills an output, a new one for each try.
func (c *Client) call(ctx context.Context, method, nsid, query string, in *Body, accept string, fresh func() any) error {
	var decoded any
	err := c.try(ctx, method, nsid, query, in, accept, func(s *Stream, m *Meta) error {
		switch out := fresh().(type) {
		case *Stream:
			*out = *s
			return nil
		case *None:
			return s.Body.Close()
		default:
			decoded = out
			return c.decode(s, out, m)
		}
	})
	if err == nil && c.Validate != nil && decoded != nil {
		if err := c.Validate(nsid, decoded); err != nil {
			return fmt.Errorf("calling %s: the answer is invalid: %w", nsid, err)
		}
	}
	return err
}

// decode reads a JSON answer.
func (c *Client) decode(s *Stream, out any, m *Meta) error {
	if err := isJSON(s); err != nil {
		return err
	}
	limit := c.MaxResponse
	if limit == 0 {
		limit = defaultMaxResponse
	}
	body, err := readAll(s, limit)
	if err != nil {
		return err
	}
	strict := data.UnmarshalJSON(body, out)
	if strict == nil || c.Strict {
		return strict
	}
	l, err := data.UnmarshalJSONLenient(body, out)
	if err != nil {
		return err
	}
	if l.More {
		return strict
	}
	for _, v := range l.Violations {
		if depth(v) < 2 {
			return strict
		}
	}
	m.Violations = l.Violations
	return nil
}

// depth returns how far below the answer a violation is: 1 for one of its own fields.
func depth(v *data.Error) int {
	n := strings.Count(v.Path, "[") + strings.Count(v.Path, ".")
	if v.Path != "" {
		n++
	}
	if v.Rule == data.RuleMissing { // the path is that of the map without the field
		n++
	}
	return n
}

// Do makes one call of a method that may have no descriptor. Query is a query string without "?", in may be nil. The answer,
// which is a success, is not read yet, and the caller closes it. Every other answer is an [*Error], and no answer a
// [*TransportError].
func (c *Client) Do(ctx context.Context, method, nsid, query string, in *Body, accept string) (out *Stream, err error) {
	err = c.try(ctx, method, nsid, query, in, accept, func(s *Stream, _ *Meta) error { out = s; return nil })
	return out, err
}

// DoAll is [Client.Do] for an answer that is read whole: take gets it, of at most max bytes; it must be JSON if accept is "". That is part of the call: it is
// repeated, as [Client.Retry] says, when the answer breaks off as when there is none. An error of take ends in a
// [*TransportError]; take may be called again with another answer after an error of its own, never after it took one.
func (c *Client) DoAll(ctx context.Context, method, nsid, query string, in *Body, accept string, max int64, take func([]byte) error) error {
	return c.try(ctx, method, nsid, query, in, accept, func(s *Stream, _ *Meta) error {
		if accept == "" {
			if err := isJSON(s); err != nil {
				return err
			}
		}
		b, err := readAll(s, max)
		if err != nil {
			return err
		}
		return take(b)
	})
}

// isJSON closes an answer that doesn't say that it is JSON.
func isJSON(s *Stream) error {
	if t, _, _ := strings.Cut(s.Type, ";"); strings.EqualFold(strings.TrimSpace(t), typeJSON) {
		return nil
	}
	return errors.Join(fmt.Errorf("the answer is of type %s, not JSON", clip(s.Type)), s.Body.Close())
}

// readAll reads an answer of at most limit bytes, and closes it.
func readAll(s *Stream, limit int64) ([]byte, error) {
	defer s.Body.Close()
	if s.Length > limit {
		return nil, fmt.Errorf("%w: it has %d bytes, at most %d are read", ErrTooLarge, s.Length, limit)
	}
	// As a bytes.Buffer grows, but never beyond what may be; and little on the server's word alone.
	b := make([]byte, 0, min(max(s.Length, 511), limit, 1<<20)+1)
	for {
		if len(b) == cap(b) {
			b = append(make([]byte, 0, min(2*int64(cap(b)), limit+1)), b...)
		}
		n, err := s.Body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case int64(len(b)) > limit:
			return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)
		case err == io.EOF:
			return b, nil
		case err != nil:
			return nil, fmt.Errorf("reading the answer: %w", err)
		}
	}
}

// try makes a call, again and again as far as may be, until finish has taken an answer.
func (c *Client) try(ctx context.Context, method, nsid, query string, in *Body, accept string, finish func(*Stream, *Meta) error) error {
	m, _ := ctx.Value(metaKey{}).(*Meta)
	if m == nil {
		m = new(Meta)
	}
	*m = Meta{}
	var spent time.Duration
	for n := 1; ; n++ {
		s, err := c.once(ctx, method, nsid, query, in, accept, m)
		if err == nil {
			if err = finish(s, m); err == nil {
				return nil
			}
			err = &TransportError{NSID: nsid, Sent: true, Err: err}
		}
		wait, again := c.Retry.wait(method, n, spent, err)
		if !again || ctx.Err() != nil || !rewind(in) {
			return err
		}
		spent += wait
		if cause := sleep(ctx, wait); cause != nil {
			return fmt.Errorf("calling %s: waiting to repeat it: %w; it failed with: %w", nsid, cause, err)
		}
	}
}

// once makes one attempt, and another as often as there are new credentials for it.
func (c *Client) once(ctx context.Context, method, nsid, query string, in *Body, accept string, m *Meta) (*Stream, error) {
	h := c.HTTP
	if h == nil {
		h = new(http.Client)
	}
	if c.Auth != nil {
		h = faithful(h)
	}
	refresher, _ := c.Auth.(Refresher)
	observer, _ := c.Auth.(Observer)
	refused := make([]string, 0, maxRefusals)
	for {
		if err := c.Pacer.wait(ctx, c.Host, nsid); err != nil {
			return nil, fmt.Errorf("calling %s: waiting for the server's budget: %w", nsid, err)
		}
		var sent sent
		req, err := c.request(sent.trace(ctx), own(ctx), method, nsid, query, in, accept)
		if err != nil {
			return nil, fmt.Errorf("calling %s: %w", nsid, err)
		}
		m.Attempts++
		m.Status, m.Header = 0, nil
		resp, err := h.Do(req)
		if err != nil {
			return nil, &TransportError{NSID: nsid, Sent: sent.maybe(), Err: err}
		}
		m.Status, m.Header = resp.StatusCode, resp.Header
		c.Pacer.note(c.Host, nsid, resp.Header)
		if observer != nil {
			observer.Observe(req, resp.Header)
		}
		if resp.StatusCode >= 200 && resp.StatusCode < 300 {
			return &Stream{Body: resp.Body, Type: resp.Header.Get("Content-Type"), Length: resp.ContentLength, Header: resp.Header}, nil
		}
		refusal := readError(resp)
		refusal.NSID = nsid
		if refresher == nil || len(refused) == maxRefusals || slices.Contains(refused, refusal.Name) || (refusal.Status != 400 && refusal.Status != 401 && refusal.Status != 403) || !rewind(in) {
			return nil, refusal
		}
		retry, err := refresher.Refresh(own(ctx), req, refusal)
		if err != nil {
			return nil, fmt.Errorf("calling %s: renewing credentials: %w", nsid, err)
		}
		if !retry {
			return nil, refusal
		}
		refused = append(refused, refusal.Name)
	}
}

// rewind reports whether a body can be sent again.
func rewind(in *Body) bool {
	if in == nil {
		return true
	}
	s, ok := in.Reader.(io.Seeker)
	if !ok {
		return false
	}
	_, err := s.Seek(0, io.SeekStart)
	return err == nil
}

// faithful is a client that takes credentials to no other origin: a redirect goes there without them. The standard library lets them go
// to other ports, to subdomains and from https to http.
func faithful(h *http.Client) *http.Client {
	g := *h
	g.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if from := via[0].URL; req.URL.Scheme != from.Scheme || !strings.EqualFold(req.URL.Host, from.Host) {
			req.Header.Del("Authorization")
			req.Header.Del("DPoP")
		}
		if h.CheckRedirect != nil {
			return h.CheckRedirect(req, via)
		}
		if len(via) >= maxRedirects {
			return fmt.Errorf("stopped after %d redirects", maxRedirects)
		}
		return nil
	}
	return &g
}

// maxRedirects is that of the standard library.
const maxRedirects = 10

// own is a context for the calls that credentials and headers may take: what the caller has put in for this one call is not for them.
func own(ctx context.Context) context.Context {
	if ctx.Value(metaKey{}) != nil {
		ctx = context.WithValue(ctx, metaKey{}, nil)
	}
	if ctx.Value(headerKey{}) != nil {
		ctx = context.WithValue(ctx, headerKey{}, nil)
	}
	return ctx
}

// request makes a request; inner is the context of calls that are made for it.
func (c *Client) request(ctx, inner context.Context, method, nsid, query string, in *Body, accept string) (*http.Request, error) {
	if !strings.HasPrefix(c.Host, "http://") && !strings.HasPrefix(c.Host, "https://") {
		return nil, fmt.Errorf("the host %q is no http or https URL", c.Host)
	}
	var body io.Reader
	if in != nil {
		body = io.NopCloser(in.Reader) // not closed by the transport: it may be sent again
	}
	req, err := http.NewRequestWithContext(ctx, method, methodURL(c.Host, nsid, query), body)
	if err != nil {
		return nil, err
	}
	maps.Copy(req.Header, c.Header)
	for _, source := range c.HeaderSources {
		h, err := source(inner)
		if err != nil {
			return nil, fmt.Errorf("computing headers: %w", err)
		}
		setAll(req.Header, h)
	}
	if h, ok := ctx.Value(headerKey{}).(http.Header); ok {
		setAll(req.Header, h)
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", userAgent)
	}
	if accept == "" {
		accept = typeJSON
	}
	if req.Header.Get("Accept") == "" {
		req.Header.Set("Accept", accept)
	}
	if in != nil {
		if in.Length > 0 {
			req.ContentLength = in.Length
		}
		if in.Type != "" {
			req.Header.Set("Content-Type", in.Type)
		}
	}
	if c.Auth != nil {
		if err := c.Auth.Authorize(inner, req); err != nil {
			return nil, fmt.Errorf("adding credentials: %w", err)
		}
	}
	return req, nil
}

// setAll replaces headers, in whatever case their names are.
func setAll(dst, h http.Header) {
	for k, v := range h {
		dst[http.CanonicalHeaderKey(k)] = v
	}
}

// readError turns an answer that is no success into an error.
func readError(resp *http.Response) *Error {
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	return ParseError(resp.StatusCode, resp.Header, b)
}

// ParseError makes an error of an answer that is no success. It takes any body, since many come from proxies.
func ParseError(status int, header http.Header, b []byte) *Error {
	e := &Error{Status: status, Header: header}
	var envelope struct {
		Error   string `json:"error"`
		Message string `json:"message"`
	}
	if json.Unmarshal(b, &envelope) == nil && envelope.Error != "" {
		e.Name, e.Message = envelope.Error, envelope.Message
		return e
	}
	e.Message = http.StatusText(status)
	e.Body = bytes.Clone(b[:min(len(b), MaxErrorBody)])
	return e
}
