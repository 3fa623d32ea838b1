package directory

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/barograph/baro/internal/eventlog"
)

// Reasons with which the directory ends a stream.
const (
	reasonFutureCursor    = "FutureCursor"
	reasonOutdatedCursor  = "OutdatedCursor"
	reasonConsumerTooSlow = "ConsumerTooSlow"
)

const (
	streamBatch  = 256
	pingEvery    = 30 * time.Second
	writeTimeout = 30 * time.Second
	closeTimeout = time.Second
)

var upgrader = websocket.Upgrader{
	CheckOrigin:     func(*http.Request) bool { return true }, // public data, no credentials
	WriteBufferSize: 16 << 10,
	ReadBufferSize:  1 << 10,
}

func (s *Service) getStream(w http.ResponseWriter, r *http.Request) error {
	if !websocket.IsWebSocketUpgrade(r) {
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		return &refusal{status: 426, name: "UpgradeRequired", message: "this is a WebSocket"}
	}
	// Without a cursor the stream starts now, before the client hears that it is connected, so that nothing which is
	// accepted after that is missing.
	cursor := s.log.Head()
	if q := r.URL.Query(); q.Has("cursor") {
		v := q.Get("cursor")
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || !digits(v) {
			return invalid("cursor")
		}
		cursor = n
	}
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return nil // the upgrader has answered
	}
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	st := &stream{s: s, conn: conn}
	st.alive.Store(true)
	conn.SetReadLimit(4 << 10)
	conn.SetPongHandler(func(string) error { st.alive.Store(true); return nil })

	// The client says nothing of interest; reading notices that it goes away, and answers its pings.
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer cancel()
		for {
			if _, _, err := conn.NextReader(); err != nil {
				return
			}
		}
	}()
	code, reason := st.run(ctx, cursor)
	defer st.guard(closeTimeout)()
	_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Time{})
	<-done // the client's answer, or the guard
	return nil
}

// enter counts a stream in, unless there are too many or the service is ending.
func (s *Service) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.open >= s.cfg.MaxStreams {
		return &refusal{status: 503, name: "ServiceUnavailable", message: "no more streams are accepted", after: time.Minute}
	}
	s.open++
	s.streams.Add(1)
	return nil
}

func (s *Service) leave() {
	s.mu.Lock()
	s.open--
	s.mu.Unlock()
	s.streams.Done()
}

// stream is one subscription.
type stream struct {
	s     *Service
	conn  *websocket.Conn
	alive atomic.Bool // the last ping was answered
}

// guard closes the connection after d, which ends a write that a client blocks by not reading, unless the result is called before.
func (st *stream) guard(d time.Duration) (stop func()) {
	t := time.AfterFunc(d, func() { st.conn.Close() })
	return func() { t.Stop() }
}

// run sends every event after cursor until one side ends it, and returns the code and reason to close with.
func (st *stream) run(ctx context.Context, cursor int64) (code int, reason string) {
	s := st.s
	head := s.log.Head()
	switch {
	case cursor > head:
		return websocket.CloseNormalClosure, reasonFutureCursor
	case cursor < head:
		next, err := s.log.Read(ctx, cursor+1, 1)
		if errors.Is(err, eventlog.ErrOutdated) || err == nil && s.w.Clock.Now().Sub(next[0].Time) > s.cfg.CatchUp {
			return websocket.CloseNormalClosure, reasonOutdatedCursor
		}
		if err != nil {
			return websocket.CloseInternalServerErr, ""
		}
	}
	caughtUp := false
	for {
		wait, stop := context.WithTimeout(ctx, pingEvery)
		events, err := s.log.Read(wait, cursor+1, streamBatch)
		stop()
		switch {
		case s.ctx.Err() != nil:
			return websocket.CloseGoingAway, "shutting down"
		case ctx.Err() != nil:
			return websocket.CloseNormalClosure, ""
		case errors.Is(err, context.DeadlineExceeded):
			if !st.ping() {
				return websocket.CloseNormalClosure, reasonConsumerTooSlow
			}
			continue
		case errors.Is(err, eventlog.ErrOutdated):
			return websocket.CloseNormalClosure, reasonConsumerTooSlow
		case err != nil:
			return websocket.CloseInternalServerErr, ""
		}
		lag := s.log.Head() - cursor
		if caughtUp && lag > s.cfg.MaxLag {
			return websocket.CloseNormalClosure, reasonConsumerTooSlow
		}
		caughtUp = caughtUp || lag <= streamBatch
		if !st.send(events) {
			return websocket.CloseNormalClosure, reasonConsumerTooSlow
		}
		cursor = events[len(events)-1].Seq
	}
}

func (st *stream) send(events []eventlog.Event) bool {
	defer st.guard(writeTimeout)()
	for _, e := range events {
		if st.conn.WriteMessage(websocket.TextMessage, e.Frame) != nil {
			return false
		}
	}
	return true
}

// ping reports whether the client answered the ping before and takes another one.
func (st *stream) ping() bool {
	defer st.guard(writeTimeout)()
	return st.alive.Swap(false) && st.conn.WriteControl(websocket.PingMessage, nil, time.Time{}) == nil
}
