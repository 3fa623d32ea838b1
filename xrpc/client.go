package xrpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"reflect"
	"strconv"
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

	Header      http.Header // sent with every request
	MaxResponse int64       // bytes of a JSON answer; 0: 16 MiB

	// Validate, if not nil, is asked about every JSON answer: a pointer to the output of a method. An error of it is that of
	// the call. See the field of the same name in [ServerOptions].
	Validate func(nsid string, out any) error
}

const (
	defaultMaxResponse = 16 << 20
	maxErrorBody       = 64 << 10
	userAgent          = "barograph"
)

// Auth adds credentials to requests. If it implements [Refresher] too it may get a request repeated.
type Auth interface {
	Authorize(ctx context.Context, req *http.Request) error
}

// Refresher is an [Auth] that can answer a refusal, by new tokens or a nonce. It is asked once per request whose answer has
// the status 400, 401 or 403; if it returns true the request is authorized anew and repeated.
type Refresher interface {
	Refresh(ctx context.Context, req *http.Request, refusal *Error) (retry bool, err error)
}

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

func call[O any](ctx context.Context, c *Client, method, nsid, query string, in *Body, accept string) (*O, error) {
	s, err := c.Do(ctx, method, nsid, query, in, accept)
	if err != nil {
		return nil, err
	}
	out := new(O)
	switch out := any(out).(type) {
	case *Stream:
		*out = *s
		return any(out).(*O), nil
	case *None:
		s.Body.Close()
		return any(out).(*O), nil
	}
	if err := c.decode(s, out); err != nil {
		return nil, fmt.Errorf("calling %s: %w", nsid, err)
	}
	if c.Validate != nil {
		if err := c.Validate(nsid, out); err != nil {
			return nil, fmt.Errorf("calling %s: the answer is invalid: %w", nsid, err)
		}
	}
	return out, nil
}

// decode reads a JSON answer.
func (c *Client) decode(s *Stream, out any) error {
	defer s.Body.Close()
	if t, _, _ := strings.Cut(s.Type, ";"); !strings.EqualFold(strings.TrimSpace(t), typeJSON) {
		return fmt.Errorf("the answer is of type %q, not JSON", s.Type)
	}
	limit := c.MaxResponse
	if limit == 0 {
		limit = defaultMaxResponse
	}
	if s.Length > limit {
		return fmt.Errorf("the answer has %d bytes, at most %d are read", s.Length, limit)
	}
	var buf bytes.Buffer
	if s.Length > 0 {
		buf.Grow(int(s.Length) + bytes.MinRead)
	}
	n, err := buf.ReadFrom(io.LimitReader(s.Body, limit+1))
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if n > limit {
		return fmt.Errorf("the answer has more than %d bytes", limit)
	}
	return data.UnmarshalJSON(buf.Bytes(), out)
}

// Do makes one request of a method that may have no descriptor. Query is a query string without "?", in may be nil. The
// answer, which is a success, is not read yet, and the caller closes it. Every other answer is an [*Error].
func (c *Client) Do(ctx context.Context, method, nsid, query string, in *Body, accept string) (*Stream, error) {
	h := c.HTTP
	if h == nil {
		h = new(http.Client)
	}
	refresher, _ := c.Auth.(Refresher)
	for try := 0; ; try++ {
		req, err := c.request(ctx, method, nsid, query, in, accept)
		if err != nil {
			return nil, fmt.Errorf("calling %s: %w", nsid, err)
		}
		resp, err := h.Do(req)
		if err != nil {
			return nil, fmt.Errorf("calling %s: %w", nsid, err)
		}
		if resp.StatusCode >= 200 && resp.StatusCode < 300 {
			return &Stream{Body: resp.Body, Type: resp.Header.Get("Content-Type"), Length: resp.ContentLength, Header: resp.Header}, nil
		}
		refusal := readError(resp)
		if refresher == nil || try > 0 || (refusal.Status != 400 && refusal.Status != 401 && refusal.Status != 403) || !rewind(in) {
			return nil, refusal
		}
		retry, err := refresher.Refresh(ctx, req, refusal)
		if err != nil {
			return nil, fmt.Errorf("calling %s: renewing credentials: %w", nsid, err)
		}
		if !retry {
			return nil, refusal
		}
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

func (c *Client) request(ctx context.Context, method, nsid, query string, in *Body, accept string) (*http.Request, error) {
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
	for k, v := range c.Header {
		req.Header[k] = v
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", userAgent)
	}
	if accept == "" {
		accept = typeJSON
	}
	req.Header.Set("Accept", accept)
	if in != nil {
		if in.Length > 0 {
			req.ContentLength = in.Length
		}
		if in.Type != "" {
			req.Header.Set("Content-Type", in.Type)
		}
	}
	if c.Auth != nil {
		if err := c.Auth.Authorize(ctx, req); err != nil {
			return nil, fmt.Errorf("adding credentials: %w", err)
		}
	}
	return req, nil
}

// readError turns an answer that is no success into an error. It takes any body, since many come from proxies.
func readError(resp *http.Response) *Error {
	defer resp.Body.Close()
	e := &Error{Status: resp.StatusCode, Header: resp.Header}
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	var envelope struct {
		Error   string `json:"error"`
		Message string `json:"message"`
	}
	if json.Unmarshal(b, &envelope) == nil && envelope.Error != "" {
		e.Name, e.Message = envelope.Error, envelope.Message
		return e
	}
	e.Message = http.StatusText(resp.StatusCode)
	return e
}

// RetryAfter returns how long a server asks to wait, from the header Retry-After in seconds.
func (e *Error) RetryAfter() (time.Duration, bool) {
	s, err := strconv.ParseInt(e.Header.Get("Retry-After"), 10, 32)
	return time.Duration(s) * time.Second, err == nil && s >= 0
}

// Pages calls a query that pages again and again, until there is no cursor or the last one comes back. Parameters and output
// must have a field Cursor of type *string, or there is one page. The error ends the loop.
func (q Query[P, O]) Pages(ctx context.Context, c *Client, p P) iter.Seq2[*O, error] {
	return func(yield func(*O, error) bool) {
		for {
			out, err := q.Call(ctx, c, &p)
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(out, nil) {
				return
			}
			next, ok := cursor(out)
			last, ok2 := cursor(&p)
			if !ok || !ok2 || next.IsNil() || next.Elem().String() == "" || !last.IsNil() && last.Elem().String() == next.Elem().String() {
				return
			}
			last.Set(next)
		}
	}
}

// Items returns what pages list, one by one: the items of the array that list picks.
//
//	pages := appbsky.FeedGetTimeline.Pages(ctx, c, appbsky.FeedGetTimeline_Params{})
//	posts := xrpc.Items(pages, func(p *appbsky.FeedGetTimeline_Output) []appbsky.FeedDefs_FeedViewPost { return p.Feed })
//	for post, err := range posts { … }
//
// The pointers point into the pages. The error ends the loop.
func Items[O, T any](pages iter.Seq2[*O, error], list func(*O) []T) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		for page, err := range pages {
			if err != nil {
				yield(nil, err)
				return
			}
			items := list(page)
			for i := range items {
				if !yield(&items[i], nil) {
					return
				}
			}
		}
	}
}

func cursor(v any) (reflect.Value, bool) {
	s := reflect.ValueOf(v).Elem()
	if s.Kind() != reflect.Struct {
		return reflect.Value{}, false
	}
	f := s.FieldByName("Cursor")
	return f, f.IsValid() && f.Type() == reflect.TypeFor[*string]()
}
