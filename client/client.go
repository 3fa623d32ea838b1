// Package client reads and writes the records, repositories and blobs of any PDS.
//
// Specification: https://atproto.com/specs/xrpc and https://atproto.com/specs/repository.
//
// Records are read and written by generic functions: with a type of the packages under api, or with [data.Raw] for what has
// no type. [Fetch] and its like find the account's PDS and key, and verify what they read; for more than one call, a
// [Client] talks to one PDS, which [New] is given and [Open] finds.
//
//	post, err := client.Fetch[appbsky.FeedPost](ctx, "at://alice.example.com/app.bsky.feed.post/3k…", client.FetchOptions{})
//
//	c, err := client.Open(ctx, "alice.example.com", client.Options{})
//	post, err := client.Get[appbsky.FeedPost](ctx, c, "at://did:plc:…/app.bsky.feed.post/3k…", client.GetOptions{})
//	for post, err := range client.List[appbsky.FeedPost](ctx, c, "alice.example.com", client.ListOptions{}) { … }
//
//	c = client.ForAccount(account, client.Options{}) // of package auth
//	ref, err := client.Create(ctx, c, &appbsky.FeedPost{Text: "hi", CreatedAt: now}, client.WriteOptions{})
//
// What can be checked without a key is checked always: a record against its CID, a blob against its hash, an answer against
// the question. Whether a record is really in the signed repository is checked with GetOptions.Key, and for all of it by
// [Client.Repo]. A record that breaks the rules of the data model is a [*DecodeError] and not the loss of its page.
//
// The package doesn't validate records against their schemas (package lexicon does), and doesn't retry but by Options.Retry
// and for what an [xrpc.Refresher] asks for: then whole answers are, a page or a proof that breaks off too.
//
// Limits: see [Options]; 16 MiB for an answer in JSON, 4 MiB for a proof.
package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// Defaults of [Options], and other limits.
const (
	DefaultTimeout = 30 * time.Second
	DefaultStall   = 30 * time.Second
	DefaultMinRate = 1 << 10 // bytes per second

	maxJSON  = 16 << 20
	maxProof = 4 << 20
)

var (
	// ErrRecordNotFound says that there is no such record, as the server says or as a proof shows.
	ErrRecordNotFound = errors.New("record not found")
	// ErrBadAnswer says that an answer isn't one to the question.
	ErrBadAnswer = errors.New("the server's answer makes no sense")
	// ErrPaging is [xrpc.ErrPaging].
	ErrPaging = xrpc.ErrPaging
	// ErrStalled says that a server stopped sending, or sends too slowly.
	ErrStalled = errors.New("the server stopped sending")
	// ErrTooLarge is [xrpc.ErrTooLarge], also of streams.
	ErrTooLarge = xrpc.ErrTooLarge
	// ErrNoKey says that a signature can't be verified, for want of a key.
	ErrNoKey = errors.New("no signing key to verify with")
	// ErrNoAccount says that a write needs an account.
	ErrNoAccount = errors.New("no account to write to")
)

// HashError says that bytes are not what their CID says.
type HashError struct {
	What string // a URI, or "blob"
	Want cid.CID
	Got  cid.CID
}

// Error names both CIDs.
func (e *HashError) Error() string {
	return fmt.Sprintf("%s: its CID is %s, but that of what came is %s", e.What, e.Want, e.Got)
}

// Options of a [Client]. The zero value is one for reading what is public.
type Options struct {
	HTTP *http.Client // nil: the standard transport
	Auth xrpc.Auth    // nil: without credentials
	DID  syntax.DID   // the account that writes go to

	Retry *xrpc.Retry // nil: calls are not repeated

	// Identity is whom [Open] and the functions with Fetch in their name ask where an account is; nil: [identity.Default].
	Identity *identity.Directory

	Timeout time.Duration // of a call that answers in JSON; 0: [DefaultTimeout]; negative: none but the context's
	// Stall is how long a repository or blob may send nothing. 0: [DefaultStall].
	Stall time.Duration
	// MinRate is the least rate in bytes per second of a repository or blob, from a minute on, counting only time spent
	// waiting. 0: [DefaultMinRate]; negative: none. It takes a clock.
	MinRate int64
	Now     func() time.Time // nil: rates are not measured, only stalls noticed
}

// FromSession is [ForAccount] for a session that was kept elsewhere, such as one of [auth.ParseSession]. Its tokens are
// renewed as they are used; who wants to keep the new ones, in a store or by events, makes an [auth.Manager].
func FromSession(ctx context.Context, s auth.Session, o Options) (*Client, error) {
	a, err := auth.New(auth.Options{HTTP: o.HTTP, Now: o.Now}).Import(ctx, s)
	if err != nil {
		return nil, err
	}
	return ForAccount(a, o), nil
}

// Client talks to one PDS. It is safe for concurrent use.
type Client struct {
	x  *xrpc.Client
	o  Options
	id *identity.Identity // nil unless Open looked it up
}

// New returns a client of the PDS with the given URL.
func New(host string, o Options) *Client {
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Stall <= 0 {
		o.Stall = DefaultStall
	}
	if o.MinRate == 0 {
		o.MinRate = DefaultMinRate
	}
	return &Client{x: &xrpc.Client{Host: host, HTTP: o.HTTP, Auth: o.Auth, MaxResponse: maxJSON, Retry: o.Retry}, o: o}
}

// FromXRPC returns a client of a PDS that makes its calls as x does, with its credentials, headers, pacer and checks. Of o, HTTP,
// Auth and Retry go before x's if they are given.
func FromXRPC(x *xrpc.Client, o Options) *Client {
	if o.HTTP == nil {
		o.HTTP = x.HTTP
	}
	if o.Auth == nil {
		o.Auth = x.Auth
	}
	if o.Retry == nil {
		o.Retry = x.Retry
	}
	c, d := New(x.Host, o), *x
	d.HTTP, d.Auth, d.Retry = o.HTTP, o.Auth, o.Retry
	if d.MaxResponse == 0 {
		d.MaxResponse = maxJSON
	}
	c.x = &d
	return c
}

// ForAccount returns a client of an account's PDS that writes to that account. HTTP may be nil for the account's own.
func ForAccount(a *auth.Account, o Options) *Client {
	if o.HTTP == nil {
		o.HTTP = a.Client().HTTP
	}
	o.Auth, o.DID = a, a.DID()
	return New(a.Session().PDS, o)
}

// XRPC returns the client that calls are made with, for methods that this package has no function for.
func (c *Client) XRPC() *xrpc.Client { return c.x }

// Host returns the URL of the PDS.
func (c *Client) Host() string { return c.x.Host }

// Close gives back the connections that the client keeps for later. It may still be used, and so may others with the same
// Options.HTTP.
func (c *Client) Close() {
	if c.o.HTTP != nil {
		c.o.HTTP.CloseIdleConnections()
	}
}

// limit returns the context of a call that answers in JSON.
func (c *Client) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if c.o.Timeout < 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, c.o.Timeout, fmt.Errorf("no answer from %s in %s: %w", c.x.Host, c.o.Timeout, context.DeadlineExceeded))
}

// open makes a call whose answer is a stream, and watches over it.
func open[P any](ctx context.Context, c *Client, q xrpc.Query[P, xrpc.Stream], p *P) (*xrpc.Stream, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	stalled := fmt.Errorf("%w: nothing came from %s for %s", ErrStalled, c.x.Host, c.o.Stall)
	timer := time.AfterFunc(c.o.Stall, func() { cancel(stalled) })
	s, err := q.Call(ctx, c.x, p)
	timer.Stop()
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, ErrStalled) {
			err = cause
		}
		cancel(nil)
		return nil, err
	}
	s.Body = &watched{body: s.Body, c: c, ctx: ctx, cancel: cancel, timer: timer}
	return s, nil
}

// watched is a body that fails when it comes too slowly. Only the time spent in Read counts, not what its reader does between.
type watched struct {
	body   io.ReadCloser
	c      *Client
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	waited time.Duration
	n      int64
}

const rateGrace = time.Minute

func (w *watched) Read(b []byte) (int, error) {
	var start time.Time
	now := w.c.o.Now
	if now != nil {
		start = now()
	}
	w.timer.Reset(w.c.o.Stall)
	n, err := w.body.Read(b)
	w.timer.Stop()
	w.n += int64(n)
	if err != nil && err != io.EOF {
		if cause := context.Cause(w.ctx); cause != nil {
			err = cause
		}
		return n, err
	}
	if now != nil && err == nil {
		w.waited += now().Sub(start)
		if w.waited > rateGrace && w.c.o.MinRate > 0 && w.n/int64(w.waited/time.Second) < w.c.o.MinRate {
			return n, fmt.Errorf("%w: only %d bytes came from %s in %s", ErrStalled, w.n, w.c.x.Host, w.waited.Round(time.Second))
		}
	}
	return n, err
}

func (w *watched) Close() error {
	w.timer.Stop()
	w.cancel(nil)
	return w.body.Close()
}
