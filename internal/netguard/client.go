package netguard

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// ContextDialer is what a client connects through; a *[Dialer] in production.
type ContextDialer interface {
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
}

// ClientOptions say how far a [Client] goes. The zero value is a client for small documents: 10 s for the whole exchange,
// no redirect followed, 1 MiB of body.
type ClientOptions struct {
	// Timeout covers the whole exchange, the body included, so that a peer that drips bytes is cut. 0: 10 s; negative: none
	// (for streams, whose caller sets a deadline through the context).
	Timeout time.Duration
	// HeaderTimeout is how long a peer may take to begin its answer. 0: 10 s.
	HeaderTimeout time.Duration
	// Redirects is how many redirects are followed. 0: none, the 3xx answer is returned as it is. Each hop is dialed through
	// the guard, so each hop is checked.
	Redirects int
	// AllowHTTP permits redirects to plain http, which otherwise end with an error. The first request is the caller's choice.
	AllowHTTP bool
	// MaxBody caps each response body, after decompression. 0: 1 MiB; negative: no cap. Past it, reads give
	// [*BodyTooLargeError].
	MaxBody int64
	// MaxHeader caps the response header in bytes. 0: 32 KiB.
	MaxHeader int64
	// IdleConns is how many idle connections are kept per host. 0: 4.
	IdleConns int
	// UserAgent is sent when the request has none.
	UserAgent string
	// TLS is the base configuration of TLS connections, for tests with their own authority.
	TLS *tls.Config
}

// BodyTooLargeError says that a response or a stream went past its cap.
type BodyTooLargeError struct{ Limit int64 }

func (e *BodyTooLargeError) Error() string {
	return fmt.Sprintf("the body is larger than %d bytes", e.Limit)
}

// ErrRedirect says that a redirect was not followed because of where it led or how many came before it.
var ErrRedirect = errors.New("redirect refused")

// Client makes an HTTP client whose every connection goes through d. It uses no proxy, keeps no cookies, and its answers
// are capped in header, body and time.
func Client(d ContextDialer, o ClientOptions) *http.Client {
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.HeaderTimeout <= 0 {
		o.HeaderTimeout = 10 * time.Second
	}
	if o.MaxBody == 0 {
		o.MaxBody = 1 << 20
	}
	if o.MaxHeader <= 0 {
		o.MaxHeader = 32 << 10
	}
	if o.IdleConns <= 0 {
		o.IdleConns = 4
	}
	t := &http.Transport{
		Proxy:                  nil, // a proxy would be told the name and would connect without the guard
		DialContext:            d.DialContext,
		TLSClientConfig:        o.TLS.Clone(),
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           64,
		MaxIdleConnsPerHost:    o.IdleConns,
		IdleConnTimeout:        30 * time.Second,
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  o.HeaderTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: o.MaxHeader,
	}
	c := &http.Client{
		Transport: &transport{base: t, max: o.MaxBody, agent: o.UserAgent},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if o.Redirects <= 0 {
				return http.ErrUseLastResponse
			}
			if len(via) > o.Redirects {
				return fmt.Errorf("%w: more than %d", ErrRedirect, o.Redirects)
			}
			if req.URL.Scheme != "https" && !(o.AllowHTTP && req.URL.Scheme == "http") {
				return fmt.Errorf("%w: to scheme %q", ErrRedirect, req.URL.Scheme)
			}
			return nil
		},
	}
	if o.Timeout > 0 {
		c.Timeout = o.Timeout
	}
	return c
}

type transport struct {
	base  *http.Transport
	max   int64
	agent string
}

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.agent != "" && req.Header.Get("User-Agent") == "" {
		req = req.Clone(req.Context())
		req.Header.Set("User-Agent", t.agent)
	}
	resp, err := t.base.RoundTrip(req)
	if err != nil || t.max < 0 {
		return resp, err
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return resp, nil // the body is the connection, whose user has its own limits
	}
	if resp.ContentLength > t.max && req.Method != http.MethodHead {
		resp.Body.Close()
		return nil, &BodyTooLargeError{t.max}
	}
	resp.Body = LimitBody(resp.Body, t.max)
	return resp, nil
}

// CloseIdleConnections lets http.Client.CloseIdleConnections through.
func (t *transport) CloseIdleConnections() { t.base.CloseIdleConnections() }

// LimitBody passes max bytes of rc through; a read past them gives [*BodyTooLargeError], never a silent end.
func LimitBody(rc io.ReadCloser, max int64) io.ReadCloser {
	return &limited{rc: rc, left: max, max: max}
}

type limited struct {
	rc        io.ReadCloser
	left, max int64
	err       error
}

func (l *limited) Read(p []byte) (int, error) {
	if l.err != nil {
		return 0, l.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	// One byte more than is allowed is asked for: only its arrival tells a body of exactly max bytes from a larger one.
	if int64(len(p)) > l.left+1 {
		p = p[:l.left+1]
	}
	n, err := l.rc.Read(p)
	if int64(n) > l.left {
		n, err = int(l.left), &BodyTooLargeError{l.max}
	}
	l.left -= int64(n)
	l.err = err
	return n, err
}

func (l *limited) Close() error { return l.rc.Close() }
