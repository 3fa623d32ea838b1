package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/time/rate"
)

// Event is one event of a [Source]: its sequence number and its final frame, header and payload, as all subscribers get
// it. Nobody may change the bytes any more.
type Event struct {
	Seq   int64
	Frame []byte
}

// Source is the log that a stream serves. Its methods are called concurrently.
type Source interface {
	// Head returns the sequence number of the newest durable event, 0 if there never was one.
	Head() int64
	// Floor returns the sequence number of the oldest event that is kept, or one above Head if none is.
	Floor() int64
	// Read appends to dst up to max events with seq ≥ from, in order, and returns it. Numbers are left out only where an
	// event is not to be replayed any more. It waits until there is at least one or ctx ends. It fails when from is below
	// Floor and events are gone.
	Read(ctx context.Context, from int64, max int, dst []Event) ([]Event, error)
}

// ServeOptions tune the serving side. The zero value is good for a public stream.
type ServeOptions struct {
	MaxSubscribers int           // more get 429; default 1,000; for a [Handler]
	MaxLag         int64         // events behind the head, once caught up, that end in ConsumerTooSlow; 0: only the source's floor
	WriteTimeout   time.Duration // for each write of at most 256 KiB (or one frame); default 30 s
	PingInterval   time.Duration // default 30 s
	PongTimeout    time.Duration // silence after a ping that ends the connection; default 30 s
	CloseGrace     time.Duration // wait for the other side after a close frame; default 1 s
	BatchEvents    int           // most events read at once; default 128
	// OnOpen is called when a connection of a [Handler] was upgraded, with what will tell how far it is.
	OnOpen func(r *http.Request, p *Progress)
	// OnClose is called when a connection of a [Handler] ends, with the number of events sent and the reason.
	OnClose func(r *http.Request, sent int64, reason error)
}

func (o ServeOptions) withDefaults() ServeOptions {
	def(&o.MaxSubscribers, 1000)
	def(&o.WriteTimeout, 30*time.Second)
	def(&o.PingInterval, 30*time.Second)
	def(&o.PongTimeout, 30*time.Second)
	def(&o.CloseGrace, time.Second)
	def(&o.BatchEvents, 128)
	return o
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Reasons why serving a connection ended, besides errors of source and network.
var (
	ErrFutureCursor = errors.New("cursor is in the future")
	ErrTooSlow      = errors.New("consumer too slow")
	ErrShutdown     = errors.New("the server is shutting down")
	ErrRefused      = errors.New("refused before the upgrade")
)

// Progress tells how far a connection is. It is safe for concurrent use.
type Progress struct{ sent, last atomic.Int64 }

// Sent returns the number of events that were sent.
func (p *Progress) Sent() int64 { return p.sent.Load() }

// Last returns the sequence number of the last event that was sent, 0 before the first.
func (p *Progress) Last() int64 { return p.last.Load() }

// Handler serves one stream to many subscribers.
type Handler struct {
	ctx context.Context
	src Source
	o   ServeOptions
	n   atomic.Int64
	wg  sync.WaitGroup
}

// NewHandler returns a handler that serves src until ctx ends, then sends every subscriber a close frame.
func NewHandler(ctx context.Context, src Source, o ServeOptions) *Handler {
	return &Handler{ctx: ctx, src: src, o: o.withDefaults()}
}

// Subscribers returns the number of open connections.
func (h *Handler) Subscribers() int { return int(h.n.Load()) }

// Wait returns when no connection is open. Call it after the handler's context has ended and no request can come.
func (h *Handler) Wait() { h.wg.Wait() }

// ServeHTTP is [Serve] with the bound on subscribers.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.wg.Add(1)
	defer h.wg.Done()
	sent, err := h.serve(w, r)
	if h.o.OnClose != nil {
		h.o.OnClose(r, sent, err)
	}
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request) (int64, error) {
	defer h.n.Add(-1)
	if h.n.Add(1) > int64(h.o.MaxSubscribers) {
		w.Header().Set("Retry-After", "30")
		refuse(w, http.StatusTooManyRequests, "RateLimitExceeded", "too many subscribers")
		return 0, ErrRefused
	}
	return serve(h.ctx, w, r, h.src, h.o)
}

// Serve answers one subscription from src and returns when it is over, with the reason: never nil. Before the upgrade it
// answers 405 (with Allow), 426 and 400 (bad cursor) as XRPC errors. The cursor decides where the stream begins:
//
//   - absent: after the newest event;
//   - 0: at the oldest event that is kept;
//   - within what is kept: at that event, inclusive;
//   - older: an #info OutdatedCursor frame first, then everything that is kept;
//   - above the newest: an error frame FutureCursor, and the end.
//
// A cursor equal to the newest event is never outdated, even if retention has removed that event: nothing was missed.
//
// Events are pulled from src when the connection can take them, so a slow subscriber costs no memory. One that stalls a
// write, falls below the source's floor or behind MaxLag is closed; in the last two cases a ConsumerTooSlow frame tells
// why. What the client sends is read slowly and ignored.
func Serve(ctx context.Context, w http.ResponseWriter, r *http.Request, src Source, o ServeOptions) error {
	_, err := serve(ctx, w, r, src, o.withDefaults())
	return err
}

var upgrader = websocket.Upgrader{
	ReadBufferSize:  1024,
	WriteBufferSize: 1024,
	CheckOrigin:     func(*http.Request) bool { return true }, // public, without cookies
	Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
		w.Header().Set("Sec-WebSocket-Version", "13")
		refuse(w, status, "InvalidRequest", reason.Error())
	},
}

func refuse(w http.ResponseWriter, status int, name, message string) {
	body, err := json.Marshal(map[string]string{"error": name, "message": message})
	if err != nil {
		panic(err) // two strings always encode
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may be gone: nobody to tell
}

func serve(ctx context.Context, w http.ResponseWriter, r *http.Request, src Source, o ServeOptions) (int64, error) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		refuse(w, http.StatusMethodNotAllowed, "MethodNotAllowed", "a stream wants GET")
		return 0, ErrRefused
	}
	if !websocket.IsWebSocketUpgrade(r) {
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		refuse(w, http.StatusUpgradeRequired, "UpgradeRequired", "this is a WebSocket endpoint")
		return 0, ErrRefused
	}
	cursor, err := parseCursor(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, "InvalidRequest", err.Error())
		return 0, ErrRefused
	}
	if ctx.Err() != nil {
		w.Header().Set("Retry-After", "5")
		refuse(w, http.StatusServiceUnavailable, "ServiceUnavailable", "the server is shutting down")
		return 0, ErrShutdown
	}
	// Before the answer: what happens once the client knows that it is connected is after the start.
	head, floor := src.Head(), src.Floor()
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return 0, fmt.Errorf("upgrading: %w", err)
	}
	c := newServerConn(ws, o)
	if o.OnOpen != nil {
		o.OnOpen(r, &c.progress)
	}
	return c.run(ctx, src, cursor, head, floor)
}

// noCursor is the cursor of a request without one.
const noCursor = -1

func parseCursor(r *http.Request) (int64, error) {
	q := r.URL.Query()
	if !q.Has("cursor") {
		return noCursor, nil
	}
	if len(q["cursor"]) > 1 {
		return 0, errors.New("more than one cursor")
	}
	s := q.Get("cursor")
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || strings.HasPrefix(s, "+") {
		return 0, errors.New("cursor is not a number from 0 up")
	}
	return n, nil
}

// serverConn is the server's end of a connection. All writes go through it; gorilla's connection only reads. That lets a
// batch of shared frames leave in one system call, without a copy.
type serverConn struct {
	ws  *websocket.Conn
	net net.Conn
	tcp *net.TCPConn // nil when the connection is wrapped (TLS)
	o   ServeOptions

	mu     sync.Mutex // held while writing
	pong   atomic.Pointer[string]
	closed bool // a close frame was sent

	pongTimer  *time.Timer   // closes the connection when no sign of life came after a ping
	writeTimer *time.Timer   // closes the connection when a write takes too long
	stalled    atomic.Bool   // writeTimer has fired
	waiting    atomic.Bool   // a ping went out and pongTimer runs
	gone       chan struct{} // closed when reading has ended
	limit      *rate.Limiter

	bufs    net.Buffers // reused for each batch
	headers []byte
	flat    []byte

	progress Progress
}

// Limits of what a client may send: nothing is expected from it.
const (
	clientBytesPerSecond = 64 << 10
	clientBurst          = 256 << 10
	clientMessage        = 64 << 10
	writeChunk           = 256 << 10
)

// Opcodes of WebSocket frames, with the bit that marks a whole message.
const (
	wsFinal  = 0x80
	wsBinary = 2
	wsClose  = 8
	wsPing   = 9
	wsPong   = 10
)

func newServerConn(ws *websocket.Conn, o ServeOptions) *serverConn {
	c := &serverConn{
		ws:    ws,
		net:   ws.NetConn(),
		o:     o,
		gone:  make(chan struct{}),
		limit: rate.NewLimiter(clientBytesPerSecond, clientBurst),
	}
	c.tcp, _ = c.net.(*net.TCPConn)
	// Timers and not deadlines: no clock is needed, and a timer that is reset doesn't allocate.
	c.pongTimer = time.AfterFunc(time.Hour, func() { c.net.Close() })
	c.pongTimer.Stop()
	c.writeTimer = time.AfterFunc(time.Hour, func() { c.stalled.Store(true); c.net.Close() })
	c.writeTimer.Stop()
	return c
}

func (c *serverConn) run(service context.Context, src Source, cursor, head, floor int64) (sent int64, reason error) {
	ctx, cancel := context.WithCancelCause(service)
	defer cancel(nil)
	pingerDone := make(chan struct{})
	go c.read(ctx, cancel)
	go c.ping(ctx, pingerDone)

	err := c.stream(ctx, src, cursor, head, floor)
	switch {
	case errors.Is(err, ErrFutureCursor):
		c.fail(ErrorFutureCursor, "the cursor is above the newest sequence number")
	case errors.Is(err, ErrTooSlow):
		c.fail(ErrorConsumerTooSlow, "the consumer has fallen too far behind")
	case service.Err() != nil:
		err = ErrShutdown
		c.writeControl(wsClose, websocket.FormatCloseMessage(websocket.CloseGoingAway, "shutting down"))
	case ctx.Err() != nil:
		err = context.Cause(ctx)
		c.writeControl(wsClose, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""))
	default:
		c.writeControl(wsClose, websocket.FormatCloseMessage(websocket.CloseInternalServerErr, ""))
	}
	// The client has to read the last frames before the connection goes: closing at once could reset it.
	if c.tcp != nil {
		_ = c.tcp.CloseWrite() // fails when already closed
	}
	grace := time.NewTimer(c.o.CloseGrace)
	select {
	case <-c.gone:
	case <-grace.C:
	}
	grace.Stop()
	cancel(nil)
	c.net.Close()
	<-c.gone
	<-pingerDone
	c.pongTimer.Stop()
	return c.progress.Sent(), err
}

// stream sends events until something ends it. What head and floor were when the client came decides where it begins.
func (c *serverConn) stream(ctx context.Context, src Source, cursor, head, floor int64) error {
	from := cursor
	switch {
	case cursor == noCursor:
		from = head + 1
	case cursor > head:
		return ErrFutureCursor
	case cursor == 0:
		from = floor
	case cursor == head && floor > head:
		from = head + 1
	case cursor < floor:
		if err := c.outdated(); err != nil {
			return err
		}
		from = floor
	}
	caughtUp := cursor == noCursor
	var events []Event
	for first := true; ; first = false {
		var err error
		events, err = src.Read(ctx, from, c.o.BatchEvents, events[:0])
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			floor := src.Floor()
			if from >= floor {
				return fmt.Errorf("reading the log: %w", err)
			}
			// Retention has overtaken the subscriber. Before the first event that is an old cursor, later it is slowness.
			if !first {
				return ErrTooSlow
			}
			if cursor > 0 {
				if err := c.outdated(); err != nil {
					return err
				}
			}
			from = floor
			continue
		}
		if from, err = c.send(events, from); err != nil {
			return err
		}
		if head := src.Head(); from > head {
			caughtUp = true
		} else if caughtUp && c.o.MaxLag > 0 && head-from >= c.o.MaxLag {
			return ErrTooSlow
		}
	}
}

func (c *serverConn) outdated() error {
	frame := AppendFrame(nil, &Info{Name: InfoOutdatedCursor, Text: "the cursor is older than what is kept; some events are missing"})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(frame)
	return c.flush()
}

// send writes events in chunks and returns the sequence number to go on with.
func (c *serverConn) send(events []Event, from int64) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	size := 0
	for i := range events {
		e := &events[i]
		if e.Seq < from {
			return from, fmt.Errorf("the log returned event %d, wanted %d or later", e.Seq, from)
		}
		if size > 0 && size+len(e.Frame) > writeChunk {
			if err := c.flush(); err != nil {
				return from, err
			}
			size = 0
		}
		c.add(e.Frame)
		size += len(e.Frame)
		from = e.Seq + 1
	}
	if err := c.flush(); err != nil {
		return from, err
	}
	if len(events) > 0 {
		c.progress.sent.Add(int64(len(events)))
		c.progress.last.Store(from - 1)
	}
	return from, nil
}

// add queues one binary message: its WebSocket header and the shared frame.
func (c *serverConn) add(frame []byte) {
	if len(c.headers)+10 > cap(c.headers) {
		c.headers = make([]byte, 0, max(2048, 10*c.o.BatchEvents)) // queued headers keep the old array
	}
	at := len(c.headers)
	c.headers = appendWSHeader(c.headers, wsFinal|wsBinary, len(frame))
	c.bufs = append(c.bufs, c.headers[at:len(c.headers):len(c.headers)], frame)
}

func appendWSHeader(b []byte, first byte, n int) []byte {
	switch {
	case n < 126:
		return append(b, first, byte(n))
	case n <= 0xffff:
		return append(b, first, 126, byte(n>>8), byte(n))
	}
	return append(b, first, 127, 0, 0, 0, 0, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

// flush writes what add has queued, and an answer to a ping that came meanwhile. c.mu is held.
func (c *serverConn) flush() error {
	defer func() {
		clear(c.bufs[:cap(c.bufs)]) // let go of the shared frames
		c.bufs, c.headers = c.bufs[:0], c.headers[:0]
	}()
	if p := c.pong.Swap(nil); p != nil {
		c.bufs = append(c.bufs, appendWSHeader(nil, wsFinal|wsPong, len(*p)), []byte(*p))
	}
	if len(c.bufs) == 0 {
		return nil
	}
	if c.closed {
		return net.ErrClosed
	}
	// A stalled write is ended from outside: the connection can't be used after half a frame anyway.
	c.writeTimer.Reset(c.o.WriteTimeout)
	defer c.writeTimer.Stop()
	var err error
	if c.tcp != nil {
		bufs := c.bufs // WriteTo consumes its receiver
		_, err = bufs.WriteTo(c.tcp)
	} else {
		// TLS and wrapped connections would make a write of each part.
		c.flat = c.flat[:0]
		for _, b := range c.bufs {
			c.flat = append(c.flat, b...)
		}
		_, err = c.net.Write(c.flat)
		if cap(c.flat) > 2*writeChunk {
			c.flat = nil
		}
	}
	if err != nil && c.stalled.Load() {
		return fmt.Errorf("%w: a write took more than %v", ErrTooSlow, c.o.WriteTimeout)
	}
	if err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}

// fail sends an error frame and a close frame.
func (c *serverConn) fail(name, message string) {
	c.mu.Lock()
	if !c.closed {
		c.add(AppendErrorFrame(nil, name, message))
		_ = c.flush() // the connection ends in any case
	}
	c.mu.Unlock()
	c.writeControl(wsClose, websocket.FormatCloseMessage(websocket.ClosePolicyViolation, name))
}

func (c *serverConn) writeControl(opcode byte, payload []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.bufs = append(c.bufs, appendWSHeader(nil, wsFinal|opcode, len(payload)), payload)
	_ = c.flush() // a broken connection shows in reading
	c.closed = opcode == wsClose
}

// read discards what the client sends, at a bounded rate, until the connection ends.
func (c *serverConn) read(ctx context.Context, cancel context.CancelCauseFunc) {
	defer close(c.gone)
	alive := func(n int) error {
		if c.waiting.Swap(false) {
			c.pongTimer.Stop()
		}
		if err := c.limit.WaitN(ctx, n+16); err != nil && ctx.Err() == nil {
			return err
		}
		return nil
	}
	c.ws.SetReadLimit(clientMessage)
	c.ws.SetPongHandler(func(p string) error { return alive(len(p)) })
	c.ws.SetPingHandler(func(p string) error {
		// Only the newest ping needs an answer. While a batch is being written, it goes out after it.
		c.pong.Store(&p)
		if c.mu.TryLock() {
			_ = c.flush() // a broken connection shows in reading
			c.mu.Unlock()
		}
		return alive(len(p))
	})
	c.ws.SetCloseHandler(func(int, string) error { return nil })
	sink := clientSink(alive)
	buf := make([]byte, 512)
	for {
		_, r, err := c.ws.NextReader()
		if err == nil {
			_, err = io.CopyBuffer(sink, r, buf)
		}
		if err != nil {
			cancel(fmt.Errorf("the client left: %w", err))
			return
		}
	}
}

// clientSink swallows what a client sends, as fast as the function allows.
type clientSink func(n int) error

func (f clientSink) Write(p []byte) (int, error) { return len(p), f(len(p)) }

// ping asks for a sign of life now and then.
func (c *serverConn) ping(ctx context.Context, done chan<- struct{}) {
	defer close(done)
	tick := time.NewTicker(c.o.PingInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if c.waiting.CompareAndSwap(false, true) {
				c.pongTimer.Reset(c.o.PongTimeout)
			}
			c.writeControl(wsPing, nil)
		}
	}
}
