package xrpc

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/barograph/baro/data"
)

// Meta is what came with an answer, beside its value.
type Meta struct {
	Status   int         // of HTTP; 0 if there was no answer
	Header   http.Header // of the answer
	Attempts int         // requests that were made for the call, with those that were repeated
	// Violations tell what in the answer's items didn't fit the lexicon, see [Client.Strict]; at most [data.MaxViolations].
	Violations []*data.Error
}

// Response is an answer with what came with it.
type Response[O any] struct {
	Value *O
	Meta
}

// RateLimit is the budget of requests that a server grants.
type RateLimit struct {
	Limit     int64         // requests in a window
	Remaining int64         // of them
	Reset     time.Time     // when the window ends, by the server's clock; zero if it didn't say
	Window    time.Duration // its length; 0 if the server didn't say
	Left      time.Duration // until Reset, from when the server answered; 0 if it didn't say, or it is over
}

// RateLimit returns the budget that the answer tells of. It is false if there is none.
func (m *Meta) RateLimit() (RateLimit, bool) { return rateLimit(m.Header) }

// RateLimit returns the budget that the refusal tells of. It is false if there is none.
func (e *Error) RateLimit() (RateLimit, bool) { return rateLimit(e.Header) }

// RepoRev returns the revision of the caller's repository that the answer takes into account, "" if it doesn't say.
func (m *Meta) RepoRev() string { return m.Header.Get("Atproto-Repo-Rev") }

// ContentLabelers returns the labelers whose labels are in the answer, DIDs that may end in ";redact".
func (m *Meta) ContentLabelers() []string {
	var out []string
	for s := range strings.SplitSeq(strings.Join(m.Header.Values("Atproto-Content-Labelers"), ","), ",") {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}

func rateLimit(h http.Header) (r RateLimit, ok bool) {
	number := func(name string) (int64, bool) {
		n, err := strconv.ParseInt(strings.TrimSpace(h.Get(name)), 10, 64)
		return n, err == nil && n >= 0 && n < 1<<40
	}
	limit, ok1 := number("RateLimit-Limit")
	remaining, ok2 := number("RateLimit-Remaining")
	if !ok1 || !ok2 {
		return RateLimit{}, false
	}
	r.Limit, r.Remaining = limit, remaining
	now, dated := date(h)
	if reset, ok := number("RateLimit-Reset"); ok {
		// Servers of the protocol tell the time in seconds of the epoch; others count from now.
		switch {
		case reset > 1e8:
			r.Reset = time.Unix(reset, 0)
			if dated {
				r.Left = max(0, r.Reset.Sub(now))
			}
		case dated:
			r.Left = time.Duration(reset) * time.Second
			r.Reset = now.Add(r.Left)
		default:
			r.Left = time.Duration(reset) * time.Second
		}
	}
	policy, _, _ := strings.Cut(h.Get("RateLimit-Policy"), ",")
	for p := range strings.SplitSeq(policy, ";") {
		if w, found := strings.CutPrefix(strings.TrimSpace(p), "w="); found {
			if n, err := strconv.ParseInt(w, 10, 32); err == nil && n > 0 {
				r.Window = time.Duration(n) * time.Second
			}
		}
	}
	return r, true
}

// date returns the time of the answer by the clock of who made it, against which the other times in it are read: they are
// then right even if the clock here isn't.
func date(h http.Header) (time.Time, bool) {
	t, err := http.ParseTime(h.Get("Date"))
	return t, err == nil
}

// RetryAfter returns how long a server asks to wait: from the header Retry-After, or of a refusal with the status 429 from
// RateLimit-Reset.
func (e *Error) RetryAfter() (time.Duration, bool) {
	after := strings.TrimSpace(e.Header.Get("Retry-After"))
	if s, err := strconv.ParseInt(after, 10, 32); err == nil && s >= 0 {
		return time.Duration(s) * time.Second, true
	}
	if at, err := http.ParseTime(after); err == nil {
		if now, ok := date(e.Header); ok {
			return max(0, at.Sub(now)), true
		}
	}
	if e.Status == http.StatusTooManyRequests {
		if r, ok := e.RateLimit(); ok && r.Left > 0 {
			return r.Left, true
		}
	}
	return 0, false
}

type (
	metaKey   struct{}
	headerKey struct{}
)

// WithMeta returns a context that notes in m what came with the answer to each call that is made with it; the last one
// counts. It is for the forms of a call that return no [Response]: pages, and functions of other packages that call for
// their caller. Calls that use one Meta must not be made at the same time.
func WithMeta(ctx context.Context, m *Meta) context.Context {
	return context.WithValue(ctx, metaKey{}, m)
}

// WithCallHeader returns a context whose calls send h beside the headers of their client, in the place of those of the same
// name.
func WithCallHeader(ctx context.Context, h http.Header) context.Context {
	return context.WithValue(ctx, headerKey{}, h)
}

func respond[O any](ctx context.Context, call func(context.Context) (*O, error)) (*Response[O], error) {
	var r Response[O]
	out, err := call(WithMeta(ctx, &r.Meta))
	if m, ok := ctx.Value(metaKey{}).(*Meta); ok {
		*m = r.Meta
	}
	r.Value = out
	return &r, err
}

// Response is [Query.Call] with what came with the answer, which it returns beside an error too.
func (q Query[P, O]) Response(ctx context.Context, c *Client, p *P) (*Response[O], error) {
	return respond(ctx, func(ctx context.Context) (*O, error) { return q.Call(ctx, c, p) })
}

// Response is [Procedure.Call] with what came with the answer, which it returns beside an error too.
func (p Procedure[I, O]) Response(ctx context.Context, c *Client, in *I) (*Response[O], error) {
	return respond(ctx, func(ctx context.Context) (*O, error) { return p.Call(ctx, c, in) })
}

// Response is [ProcedureWithParams.Call] with what came with the answer, which it returns beside an error too.
func (p ProcedureWithParams[P, I, O]) Response(ctx context.Context, c *Client, params *P, in *I) (*Response[O], error) {
	return respond(ctx, func(ctx context.Context) (*O, error) { return p.Call(ctx, c, params, in) })
}
