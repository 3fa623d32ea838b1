package stream

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"iter"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// DialOptions tune one connection to a stream.
type DialOptions struct {
	// NetDialContext opens connections. Services must inject the guarded dialer; nil is the plain one, for tools whose
	// user chose the host.
	NetDialContext   func(ctx context.Context, network, addr string) (net.Conn, error)
	TLS              *tls.Config
	Header           http.Header   // such as User-Agent
	HandshakeTimeout time.Duration // default 15 s
	IdleTimeout      time.Duration // no byte and no answer to a ping for so long: the connection is dead; default 60 s
	PingInterval     time.Duration // default a third of IdleTimeout
	MaxFrame         int64         // default MaxFrame
	// ReuseBuffer makes a frame valid only until the next one is read. Without it each frame has its own memory.
	ReuseBuffer bool
}

// SubscribeOptions tune [Subscribe].
type SubscribeOptions struct {
	DialOptions
	NSID  string     // default com.atproto.sync.subscribeRepos
	Query url.Values // further parameters
	// After is the sequence number of the last event that was processed: the stream goes on after it. 0 asks for
	// everything that the server keeps, nil for what happens from now on.
	After       *int64
	MinBackoff  time.Duration // default 500 ms
	MaxBackoff  time.Duration // default 60 s
	MaxAttempts int           // connections in a row without an event before giving up; 0: never
	// Rand returns numbers from [0,1) for the jitter; default a generator of its own.
	Rand func() float64
	// OnConnect is called when a connection is open.
	OnConnect func()
	// OnDisconnect is called when a connection has failed or ended, before the wait for the next one.
	OnDisconnect func(err error, wait time.Duration)
}

// HandshakeError says that the server answered with HTTP instead of upgrading.
type HandshakeError struct {
	Status     int           // HTTP status
	Name       string        // XRPC error name; may be empty
	Message    string        // XRPC error message, or the start of the body
	RetryAfter time.Duration // from the Retry-After header; 0 if there is none
}

// Error names status and message.
func (e *HandshakeError) Error() string {
	s := fmt.Sprintf("the server answered %d %s instead of a stream", e.Status, http.StatusText(e.Status))
	if e.Name != "" {
		s += ": " + e.Name
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// permanent reports whether trying again is pointless.
func (e *HandshakeError) permanent() bool {
	switch e.Status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return e.Status == http.StatusNotImplemented || e.Status >= 400 && e.Status < 500
}

// ErrIdle says that a connection was silent for longer than the idle timeout.
var ErrIdle = errors.New("the stream was silent for too long")

// URL returns the WebSocket address of a stream: host is a service's http, https, ws or wss URL, or a bare host name
// (then wss).
func URL(host, nsid string, query url.Values) (string, error) {
	return address(host, "/xrpc/"+nsid, query)
}

func address(host, path string, query url.Values) (string, error) {
	if !strings.Contains(host, "://") {
		host = "wss://" + host
	}
	u, err := url.Parse(host)
	if err != nil {
		return "", fmt.Errorf("stream address: %w", err)
	}
	switch u.Scheme {
	case "https", "wss":
		u.Scheme = "wss"
	case "http", "ws":
		u.Scheme = "ws"
	default:
		return "", fmt.Errorf("stream address: scheme %q, want https, wss, http or ws", u.Scheme)
	}
	if u.Host == "" || u.User != nil {
		return "", fmt.Errorf("stream address: %q has no host, or a user", host)
	}
	u.Path = path
	u.RawPath, u.Fragment, u.RawQuery = "", "", query.Encode()
	return u.String(), nil
}

// Conn is one connection to a stream. Next may be used by one goroutine at a time, Close by any.
type Conn struct {
	ws       *websocket.Conn
	o        DialOptions
	idle     *time.Timer
	timedOut atomic.Bool
	stop     func() bool
	quit     chan struct{}
	once     sync.Once
	wg       sync.WaitGroup

	buf  []byte
	last int64
	err  error
}

// Dial opens one connection to a ws or wss URL (see [URL]), without trying again. It ends with ctx.
func Dial(ctx context.Context, addr string, o DialOptions) (*Conn, error) {
	def(&o.HandshakeTimeout, 15*time.Second)
	def(&o.IdleTimeout, time.Minute)
	def(&o.PingInterval, o.IdleTimeout/3)
	def(&o.MaxFrame, MaxFrame)
	guard := &handshakeGuard{}
	d := websocket.Dialer{
		HandshakeTimeout: o.HandshakeTimeout,
		TLSClientConfig:  o.TLS,
		ReadBufferSize:   32 << 10,
		WriteBufferSize:  1024,
		NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			dial := o.NetDialContext
			if dial == nil {
				dial = new(net.Dialer).DialContext
			}
			nc, err := dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			if err := guard.attach(nc); err != nil {
				return nil, err
			}
			return guard, nil
		},
	}
	// gorilla checks ctx only while dialling: a handshake that hangs is ended from here.
	release := context.AfterFunc(ctx, guard.abort)
	ws, resp, err := d.DialContext(ctx, addr, o.Header)
	release()
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if resp != nil && errors.Is(err, websocket.ErrBadHandshake) {
			return nil, handshakeError(resp)
		}
		if guard.read > maxHandshake {
			err = errLargeHandshake // and not what a parser made of its first half
		}
		if text := err.Error(); len(text) > maxErrorText { // it may quote what the server sent
			err = errors.New(strings.ToValidUTF8(text[:maxErrorText], "") + "…")
		}
		return nil, fmt.Errorf("connecting to the stream: %w", err)
	}
	guard.done.Store(true)
	c := &Conn{ws: ws, o: o, quit: make(chan struct{})}
	ws.SetReadLimit(o.MaxFrame)
	nc := ws.NetConn()
	c.idle = time.AfterFunc(o.IdleTimeout, func() { c.timedOut.Store(true); nc.Close() })
	ws.SetPongHandler(func(string) error { c.idle.Reset(o.IdleTimeout); return nil })
	c.stop = context.AfterFunc(ctx, func() { nc.Close() })
	c.wg.Go(c.ping)
	return c, nil
}

// handshakeGuard bounds what a server may send before the stream has begun: HTTP headers have no limit of their own here.
type handshakeGuard struct {
	net.Conn
	done atomic.Bool // the handshake is over
	read int

	mu      sync.Mutex // guards the two below, and setting Conn
	aborted bool
	open    bool
}

const (
	maxHandshake = 1 << 20
	maxErrorText = 300
)

func (g *handshakeGuard) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	if !g.done.Load() {
		if g.read += n; g.read > maxHandshake {
			return 0, errLargeHandshake
		}
	}
	return n, err
}

var errLargeHandshake = errors.New("the answer to the handshake is too large")

// attach takes a new connection, or closes it if the handshake was aborted meanwhile.
func (g *handshakeGuard) attach(nc net.Conn) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.aborted {
		nc.Close()
		return context.Canceled
	}
	g.Conn, g.open = nc, true
	return nil
}

// abort makes a pending handshake fail. Before the connection exists, the dialer's own context does that.
func (g *handshakeGuard) abort() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.aborted = true
	if g.open {
		g.Conn.Close()
	}
}

func handshakeError(resp *http.Response) *HandshakeError {
	e := &HandshakeError{Status: resp.StatusCode}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1024)) // what there is of it, for the message
	var x struct{ Error, Message string }
	if json.Unmarshal(body, &x) == nil && x.Error != "" {
		e.Name, e.Message = x.Error, x.Message
	} else {
		e.Message = strings.ToValidUTF8(strings.TrimSpace(string(body[:min(len(body), 200)])), "�")
	}
	after := resp.Header.Get("Retry-After")
	if s, err := strconv.Atoi(after); err == nil && s > 0 {
		e.RetryAfter = time.Duration(min(s, 24*3600)) * time.Second
	} else if at, err := http.ParseTime(after); err == nil {
		if now, err := http.ParseTime(resp.Header.Get("Date")); err == nil && at.After(now) {
			e.RetryAfter = min(at.Sub(now), 24*time.Hour)
		}
	}
	return e
}

func (c *Conn) ping() {
	tick := time.NewTicker(c.o.PingInterval)
	defer tick.Stop()
	for {
		select {
		case <-c.quit:
			return
		case <-tick.C:
			// A failed ping shows in the reading side.
			_ = c.ws.WriteControl(websocket.PingMessage, nil, time.Time{})
		}
	}
}

// Next reads the next frame. It skips frames with an unknown op and checks that sequence numbers rise. An error frame
// comes as [*Error]. After any error the connection is closed and Next repeats the error.
func (c *Conn) Next() (Frame, error) {
	if c.err != nil {
		return Frame{}, c.err
	}
	// Only the other side's silence counts, not that of a reader who takes its time.
	c.idle.Reset(c.o.IdleTimeout)
	defer c.idle.Stop()
	for {
		f, err := c.next()
		if err != nil {
			return Frame{}, c.fail(err)
		}
		if f.Op == OpMessage {
			return f, nil
		}
	}
}

// fail closes the connection for an error, which stays that of the connection.
func (c *Conn) fail(err error) error {
	if c.timedOut.Load() {
		err = ErrIdle
	}
	c.err = err
	c.Close()
	return err
}

// message reads one message into c.buf, and returns what kind it is.
func (c *Conn) message() (kind int, err error) {
	kind, r, err := c.ws.NextReader()
	if err == nil {
		err = c.fill(r)
	}
	if err != nil {
		return 0, fmt.Errorf("reading the stream: %w", err)
	}
	c.idle.Reset(c.o.IdleTimeout)
	return kind, nil
}

func (c *Conn) next() (Frame, error) {
	kind, err := c.message()
	if err != nil {
		return Frame{}, err
	}
	if kind != websocket.BinaryMessage {
		return Frame{}, frameErr("a text message")
	}
	b := c.buf
	if !c.o.ReuseBuffer {
		b = append(make([]byte, 0, len(b)), b...)
	}
	f, err := ParseFrame(b)
	if err != nil {
		return Frame{}, err
	}
	if err := f.Err(); err != nil {
		return Frame{}, err
	}
	if f.Op == OpMessage && f.Seq != 0 {
		if f.Seq <= c.last {
			return Frame{}, &SeqError{Last: c.last, Seq: f.Seq}
		}
		c.last = f.Seq
	}
	return f, nil
}

// keepBuffer is the capacity of the read buffer that stays between frames.
const keepBuffer = 512 << 10

// fill reads one message into c.buf. Its size is bounded.
func (c *Conn) fill(r io.Reader) error {
	if cap(c.buf) == 0 || cap(c.buf) > keepBuffer {
		c.buf = make([]byte, 0, 16<<10)
	}
	c.buf = c.buf[:0]
	for {
		if len(c.buf) == cap(c.buf) {
			c.buf = append(c.buf, 0)[:len(c.buf)]
		}
		n, err := r.Read(c.buf[len(c.buf):cap(c.buf)])
		c.buf = c.buf[:len(c.buf)+n]
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if int64(len(c.buf)) > c.o.MaxFrame {
			return websocket.ErrReadLimit // the connection's own limit counts compressed bytes
		}
		c.idle.Reset(c.o.IdleTimeout)
	}
}

// Close ends the connection.
func (c *Conn) Close() error {
	c.once.Do(func() {
		c.stop()
		c.idle.Stop()
		force := time.AfterFunc(time.Second, func() { c.ws.NetConn().Close() })
		defer force.Stop()
		_ = c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Time{}) // a courtesy
		c.ws.Close()
		close(c.quit)
		c.wg.Wait()
	})
	return nil
}

// Frames returns the frames of the connection. The error comes last and is never nil; a break closes the connection.
func (c *Conn) Frames() iter.Seq2[Frame, error] {
	return func(yield func(Frame, error) bool) {
		defer c.Close()
		for {
			f, err := c.Next()
			if !yield(f, err) || err != nil {
				return
			}
		}
	}
}

// Subscribe follows a stream of the service at host (see [URL]) and connects again when a connection ends, from the
// event after the last one that it yielded, with a growing, jittered wait. Events come once each and in order.
//
// The loop ends with an error only if going on is impossible or wrong: ctx has ended, the server says FutureCursor
// (its numbers were reset: an operator has to decide), it refuses the stream for good (HTTP 4xx or 501), or MaxAttempts
// connections in a row gave no event. Everything else goes to OnDisconnect. Frames of an unknown type are yielded, so
// that a relay can pass them on: [Frame.Message] returns nil for them.
//
// An #info frame has no sequence number. After OutdatedCursor some events are missing.
func Subscribe(ctx context.Context, host string, o SubscribeOptions) iter.Seq2[Frame, error] {
	def(&o.NSID, SubscribeRepos)
	return func(yield func(Frame, error) bool) {
		s := newSubscription(host, o)
		if err := s.run(ctx, func() error { return s.once(ctx, host, yield) }); err != nil {
			yield(Frame{}, err)
		}
	}
}

// errBreak says that the consumer has left the loop.
var errBreak = errors.New("break")

type subscription struct {
	o        SubscribeOptions
	last     int64 // last event yielded; -1 if unknown
	failures int   // connections in a row without an event
}

func newSubscription(host string, o SubscribeOptions) *subscription {
	def(&o.MinBackoff, 500*time.Millisecond)
	def(&o.MaxBackoff, time.Minute)
	s := &subscription{o: o, last: -1}
	if o.After != nil {
		s.last = *o.After
	}
	if s.o.Rand == nil {
		seed := maphash.String(maphash.MakeSeed(), host)
		s.o.Rand = rand.New(rand.NewPCG(seed, seed>>7)).Float64
	}
	return s
}

// run follows one connection after the other, until the consumer breaks off, which is no error, or going on is pointless.
func (s *subscription) run(ctx context.Context, once func() error) error {
	for {
		err := once()
		if err == errBreak {
			return nil
		}
		if err := s.terminal(ctx, err); err != nil {
			return err
		}
		wait := s.backoff(err)
		if s.o.OnDisconnect != nil {
			s.o.OnDisconnect(err, wait)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// once follows one connection to its end.
func (s *subscription) once(ctx context.Context, host string, yield func(Frame, error) bool) error {
	q := url.Values{}
	for k, v := range s.o.Query {
		q[k] = v
	}
	if s.last >= 0 {
		q.Set("cursor", strconv.FormatInt(s.last, 10))
	}
	s.failures++
	addr, err := URL(host, s.o.NSID, q)
	if err != nil {
		return err
	}
	c, err := Dial(ctx, addr, s.o.DialOptions)
	if err != nil {
		return err
	}
	defer c.Close()
	if s.o.OnConnect != nil {
		s.o.OnConnect()
	}
	// The cursor is inclusive, for some servers exclusive: the event at the cursor may come again, once and first.
	if s.last > 0 {
		c.last = s.last - 1
	}
	for {
		f, err := c.Next()
		if err != nil {
			return err
		}
		if f.Seq != 0 {
			if f.Seq == s.last {
				continue
			}
			s.failures, s.last = 0, f.Seq
		}
		if !yield(f, nil) {
			return errBreak
		}
	}
}

// terminal returns the error that ends the subscription, nil if it should go on.
func (s *subscription) terminal(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var frame *Error
	if errors.As(err, &frame) && frame.Name == ErrorFutureCursor {
		return err
	}
	var refused *HandshakeError
	if errors.As(err, &refused) && refused.permanent() {
		return err
	}
	if s.o.MaxAttempts > 0 && s.failures >= s.o.MaxAttempts {
		return fmt.Errorf("giving up after %d connections without an event: %w", s.failures, err)
	}
	return nil
}

// backoff returns the wait before the next connection: doubling, with full jitter on its upper half.
func (s *subscription) backoff(err error) time.Duration {
	d := s.o.MaxBackoff
	if shift := max(s.failures-1, 0); shift < 30 {
		if b := s.o.MinBackoff << shift; b > 0 && b < d {
			d = b
		}
	}
	d = d/2 + time.Duration(s.o.Rand()*float64(d/2))
	var refused *HandshakeError
	if errors.As(err, &refused) {
		d = max(d, min(refused.RetryAfter, s.o.MaxBackoff*2))
	}
	return d
}
