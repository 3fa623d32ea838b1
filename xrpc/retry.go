package xrpc

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"

	"github.com/barograph/baro/data"
)

// TransportError says that a call has no usable answer: the request could not be sent, or what came isn't an answer. The
// cause is found by errors.Is and errors.As, as far as there is one: context.DeadlineExceeded, an error of package net, a
// [data.Error], [ErrTooLarge].
type TransportError struct {
	NSID string
	// Sent says whether the server may have got the request, and acted on it. It is false only if no connection was had.
	Sent bool
	Err  error
}

// Error names the method and the cause.
func (e *TransportError) Error() string { return fmt.Sprintf("calling %s: %v", e.NSID, e.Err) }

// Unwrap returns the cause.
func (e *TransportError) Unwrap() error { return e.Err }

// ErrTooLarge says that an answer is larger than [Client.MaxResponse].
var ErrTooLarge = errors.New("the answer is too large")

// Retry says when a call is repeated: a query after an error of the transport and after the statuses 408, 429, 500, 502, 503
// and 504, a procedure only if the request was surely not sent. So nothing is written twice. The zero value is one of use.
//
// Between attempts it waits as long as the server asks, and else a random time below a limit that doubles.
type Retry struct {
	Attempts int           // with the first one; 0: 4
	Base     time.Duration // the limit of the first wait; 0: 500 ms
	Max      time.Duration // of any wait, also what a server may ask for; 0: 30 s
	Budget   time.Duration // of all waits of a call; 0: 1 min
	// Refused repeats procedures too that were refused with the status 429. Servers count before they act, but that is their
	// promise and nobody's proof.
	Refused bool
	Rand    func() float64 // of [0,1); nil: a generator of its own
}

func (r *Retry) attempts() int {
	if r.Attempts == 0 {
		return 4
	}
	return r.Attempts
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

// wait returns how long to wait after the n-th attempt, counted from 1, failed with err; false if it isn't to be repeated.
func (r *Retry) wait(method string, n int, spent time.Duration, err error) (time.Duration, bool) {
	if r == nil || n >= r.attempts() {
		return 0, false
	}
	longest := orDefault(r.Max, 30*time.Second)
	budget := orDefault(r.Budget, time.Minute)
	limit := min(longest, orDefault(r.Base, 500*time.Millisecond)<<min(n-1, 16))
	d := time.Duration(r.random() * float64(limit))
	if te, ok := errors.AsType[*TransportError](err); ok {
		de, malformed := errors.AsType[*data.Error](err)
		if te.Sent && method != http.MethodGet || errors.Is(err, ErrTooLarge) || malformed && de.Rule != data.RuleTruncated {
			return 0, false
		}
		return d, spent+d <= budget
	}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return 0, false
	}
	switch e.Status {
	case http.StatusTooManyRequests:
		if method != http.MethodGet && !r.Refused {
			return 0, false
		}
	case http.StatusRequestTimeout, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		if method != http.MethodGet {
			return 0, false
		}
	default:
		return 0, false
	}
	if after, ok := e.RetryAfter(); ok {
		d = after
	}
	return d, d <= longest && spent+d <= budget
}

var (
	seed      = maphash.MakeSeed()
	generator struct {
		sync.Mutex
		*rand.Rand
	}
)

func (r *Retry) random() float64 {
	if r.Rand != nil {
		return r.Rand()
	}
	generator.Lock()
	defer generator.Unlock()
	if generator.Rand == nil {
		generator.Rand = rand.New(rand.NewPCG(maphash.String(seed, "a"), maphash.String(seed, "b")))
	}
	return generator.Float64()
}

// sleep waits for d or the end of the context.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// sent finds out whether a request has had a connection. A transport that doesn't tell is taken to have had one.
type sent struct{ asked, had atomic.Bool }

func (s *sent) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { s.asked.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { s.had.Store(true) },
	})
}

func (s *sent) maybe() bool { return s.had.Load() || !s.asked.Load() }

// Pacer slows calls down when the budget of requests that a server tells of runs low: the last tenth of it is spread over
// what is left of its window. Several clients may share one. The zero value is ready.
//
// No more than Max passes between two calls of a budget, whatever a server says. When the budget is used up and the server
// wants a longer wait than that, calls fail at once with a [*PaceError]; each time Max has passed, one is made to see
// whether it still does.
type Pacer struct {
	Max time.Duration // 0: 5 min, the window of most limits in the network

	mu      sync.Mutex
	methods map[string]string // host and method to host and policy
	budgets map[string]*budget
}

// PaceError says that a server wants a longer wait before the next call than a [Pacer] makes. The call was not made.
type PaceError struct {
	Host string
	NSID string
	Wait time.Duration // from the answer on that said so
}

// Error says who wants to wait for how long.
func (e *PaceError) Error() string {
	return fmt.Sprintf("%s allows no more calls of %s for %s", e.Host, e.NSID, e.Wait.Round(time.Second))
}

type budget struct {
	gate  chan struct{} // closed when the next call may go; nil: at once
	gap   time.Duration // between calls; 0: none
	wants time.Duration // a wait that is longer than Max; 0: it is not
	reset *time.Timer   // the end of the window
}

// maxBudgets bounds what a Pacer remembers.
const maxBudgets = 1024

// wait waits until a call may go.
func (p *Pacer) wait(ctx context.Context, host, nsid string) error {
	if p == nil {
		return nil
	}
	for {
		p.mu.Lock()
		b := p.budgets[p.methods[host+nsid]]
		if b == nil || b.gate == nil {
			p.mu.Unlock()
			return nil
		}
		gate := b.gate
		select {
		case <-gate:
			b.gate = nil
			if b.gap > 0 { // who comes next waits behind this one
				b.close()
			}
			p.mu.Unlock()
			return nil
		default:
		}
		wants := b.wants
		p.mu.Unlock()
		if wants > 0 {
			return &PaceError{Host: host, NSID: nsid, Wait: wants}
		}
		select {
		case <-gate:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// close shuts the gate for the time of a gap.
func (b *budget) close() {
	gate := make(chan struct{})
	b.gate = gate
	time.AfterFunc(b.gap, func() { close(gate) })
}

// note takes the budget from an answer.
func (p *Pacer) note(host, nsid string, h http.Header) {
	r, ok := rateLimit(h)
	if p == nil || !ok {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.methods == nil || len(p.methods) >= maxBudgets {
		p.methods, p.budgets = map[string]string{}, map[string]*budget{}
	}
	key := fmt.Sprint(host, " ", r.Limit, " ", h.Get("RateLimit-Policy"))
	p.methods[host+nsid] = key
	b := p.budgets[key]
	if b == nil {
		b = new(budget)
		p.budgets[key] = b
	}
	if r.Remaining > r.Limit/10 || r.Left == 0 {
		b.gap, b.gate, b.wants = 0, nil, 0
		return
	}
	longest := orDefault(p.Max, 5*time.Minute)
	b.gap = min(r.Left/time.Duration(r.Remaining+1), longest)
	b.wants = 0
	if r.Remaining == 0 && r.Left > longest {
		b.wants = r.Left
	}
	if b.reset != nil {
		b.reset.Stop()
	}
	b.reset = time.AfterFunc(r.Left, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		b.gap, b.wants = 0, 0
	})
	if b.gate == nil {
		b.close()
	}
}
