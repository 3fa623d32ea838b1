package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/time/rate"

	"github.com/barograph/baro/internal/eventlog"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// host is one followed host.
type host struct {
	name string // host, or host:port

	mu        sync.Mutex
	row       hostRow
	cursor    int64     // of the last event that was read
	done      int64     // every event up to it was dealt with
	saved     int64     // done as it is in the store
	flight    []pending // events that were read and come after done, in order
	connected bool
	following bool
	stopped   bool               // shut out: not followed, and what is under way from it is not dealt with
	cancel    context.CancelFunc // ends the subscription; nil if there never was one
	ended     chan struct{}      // closed when it has ended
	asking    int                // questions about inactive accounts that are under way
	waiting   int                // bytes of its frames that wait for keys
	events    uint64
	lastEvent time.Time
}

type pending struct {
	seq  int64
	done bool
}

const (
	// problemWait is the wait before a host is tried again whose stream can't be followed.
	problemWait    = 10 * time.Minute
	hostPerSecond  = 50 // events of a host that was not configured
	hostBurst      = 500
	configuredRate = 5000 // and of one that was
)

// ErrHost is wrapped by the errors about hosts that can't be followed.
var ErrHost = errors.New("host can't be followed")

// parseHost reads a host name or an origin. Plain http, ports, addresses and local names are for configured hosts.
func parseHost(s string, configured bool) (name, origin string, err error) {
	if !strings.Contains(s, "://") {
		s = "https://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return "", "", fmt.Errorf("%w: %.100q is not a host name", ErrHost, s)
	}
	name = strings.ToLower(u.Host)
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return "", "", fmt.Errorf("%w: scheme %q", ErrHost, u.Scheme)
	case configured:
	case u.Scheme == "http" || u.Port() != "" || net.ParseIP(u.Hostname()) != nil || !syntax.ValidHandle(name) || syntax.Handle(name).Reserved():
		return "", "", fmt.Errorf("%w: %.100q is not a public host name; the operator can add other hosts", ErrHost, name)
	}
	return name, u.Scheme + "://" + name, nil
}

// origin of a host's name: who wants it followed.
type wish int

const (
	byStranger wish = iota // with requestCrawl
	byOperator             // while the relay runs
	byConfig               // from the start
)

// addHost makes a host known and follows it if the relay runs.
func (s *Service) addHost(spec string, by wish) (*host, error) {
	name, origin, err := parseHost(spec, by != byStranger)
	if err != nil {
		return nil, err
	}
	h, changed, err := s.hostNamed(name, origin, by)
	if err != nil {
		return nil, err
	}
	if changed { // not under s.mu: the disk may take its time
		if _, err := s.log.Commit(s.ctx, eventlog.Tx{Ops: func(b kv.Batch) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.put(b)
		}}); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running {
		s.follow(h)
	}
	return h, nil
}

// hostNamed finds a host or makes it known, and says whether its row has to be written.
func (s *Service) hostNamed(name, origin string, by wish) (h *host, changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	domain := s.bannedBy(name)
	if domain != "" && by != byConfig {
		return nil, false, fmt.Errorf("%w: %w: %s, by its domain %s", ErrHost, ErrBlocked, name, domain)
	}
	if h = s.hosts[name]; h == nil {
		if by == byStranger {
			now := s.w.Clock.Now()
			if now.Sub(s.newSince) > 24*time.Hour {
				s.newSince, s.newHosts = now, 0
			}
			if s.newHosts >= s.newHostsPerDay() {
				return nil, false, fmt.Errorf("%w: no more new hosts today", ErrHost)
			}
			s.newHosts++
		}
		h = &host{name: name, stopped: domain != "", row: hostRow{Since: s.w.Clock.Now().UTC().Round(time.Second)}}
		s.hosts[name] = h
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.row.Blocked && by != byConfig { // what the configuration names is known, but stays shut out
		return nil, false, fmt.Errorf("%w: %w: %s", ErrHost, ErrBlocked, name)
	}
	was := h.row
	h.row.Origin = origin
	h.row.Configured = h.row.Configured || by == byConfig
	h.row.Admitted = h.row.Admitted || by == byOperator
	h.row.Problem = ""
	return h, h.row != was, nil
}

// follow subscribes to a host unless that is done already. The caller holds s.mu.
func (s *Service) follow(h *host) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.following || h.stopped || s.ctx.Err() != nil {
		return
	}
	// A host that an earlier run was configured with and this one isn't may not be reachable under the public rules.
	if _, _, err := parseHost(h.row.Origin, h.row.Configured || h.row.Admitted); err != nil {
		h.row.Problem = err.Error()
		return
	}
	h.following = true
	ctx, cancel := context.WithCancel(s.ctx)
	ended := make(chan struct{})
	h.cancel, h.ended = cancel, ended
	s.wg.Go(func() {
		defer close(ended)
		defer cancel()
		s.subscribe(ctx, h)
	})
}

// subscribe follows a host's stream until ctx ends.
func (s *Service) subscribe(ctx context.Context, h *host) {
	defer func() {
		h.mu.Lock()
		h.following, h.connected = false, false
		h.mu.Unlock()
	}()
	for ctx.Err() == nil {
		err := s.consume(ctx, h)
		if ctx.Err() != nil {
			return
		}
		h.mu.Lock()
		h.row.Problem, h.connected = err.Error(), false
		h.mu.Unlock()
		s.w.Log.Warn("a host can't be followed; trying again later", "host", h.name, "err", err, "wait", problemWait)
		if world.Sleep(ctx, s.w.Clock, problemWait) != nil {
			return
		}
	}
}

// consume reads a host's stream. It returns when going on needs a longer wait or an operator.
func (s *Service) consume(ctx context.Context, h *host) error {
	h.mu.Lock()
	after, origin, configured, events := h.done, h.row.Origin, h.row.Configured, h.rate()
	h.flight = h.flight[:0]
	h.cursor = after
	h.mu.Unlock()
	limit := rate.NewLimiter(rate.Limit(events), max(hostBurst, int(events)))
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	l := &line{s: s, host: h, slots: make(chan struct{}, lookups), tasks: make(chan *task, lookups)}
	wg.Go(func() { l.forward(ctx) })
	told := false // of the present outage
	o := stream.SubscribeOptions{
		After:      &after,
		MinBackoff: 250 * time.Millisecond,
		MaxBackoff: 30 * time.Second,
		OnConnect: func() {
			h.mu.Lock()
			h.connected, h.row.Problem = true, ""
			h.mu.Unlock()
			told = false
		},
		OnDisconnect: func(err error, wait time.Duration) {
			h.mu.Lock()
			h.connected, h.row.Problem = false, err.Error()
			h.mu.Unlock()
			if reason := brokenStream(err); reason != "" {
				s.stats.drop(reason)
			}
			level := slog.LevelDebug
			if configured && !told { // the operator has named it, and wants to know
				level, told = slog.LevelWarn, true
			}
			s.w.Log.Log(ctx, level, "a host's stream ended; trying again", "host", h.name, "err", err, "wait", wait)
		},
	}
	o.NetDialContext = s.w.Dialer.DialContext
	o.MaxFrame = stream.MaxFrame
	for f, err := range stream.Subscribe(ctx, origin, o) {
		if err != nil {
			return err
		}
		if err := limit.Wait(ctx); err != nil {
			return err
		}
		if err := s.receive(ctx, l, f); err != nil {
			return err
		}
	}
	return errors.New("the stream ended")
}

// rate is how many events of a host are taken in a second. The caller holds h.mu.
func (h *host) rate() float64 {
	if h.row.Configured {
		return configuredRate
	}
	return hostPerSecond
}

// accountLimit is how many accounts a host may have; not ok if there is no limit. The caller holds h.mu.
func (h *host) accountLimit(usual int64) (limit int64, ok bool) {
	switch {
	case h.row.Limit != nil:
		return *h.row.Limit, true
	case h.row.Configured:
		return 0, false
	}
	return usual, true
}

// brokenStream is the rule that a host broke when its connection was dropped for it, or "" when the end had another reason.
func brokenStream(err error) string {
	var order *stream.SeqError
	switch {
	case errors.As(err, &order):
		return "seq-order"
	case errors.Is(err, websocket.ErrReadLimit):
		return string(repo.ReasonFrameTooBig)
	case errors.Is(err, stream.ErrFrame):
		return string(repo.ReasonFrame)
	}
	return ""
}

// lookups is how many identities are looked up at once for one host, and how many of its events wait for that.
const lookups = 16

// line is the events of one host on their way to the workers, in order. Looking identities up may take long, above all when
// the host itself serves them; only the host's own events wait for that, and never a worker that others need.
type line struct {
	s     *Service
	host  *host
	slots chan struct{}
	tasks chan *task
}

// add puts a task at the end of the line and starts its lookup.
func (l *line) add(ctx context.Context, t *task) error {
	select {
	case l.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	t.ready = make(chan struct{})
	l.s.wg.Go(func() {
		l.s.lookUp(ctx, t)
		<-l.slots
		close(t.ready)
	})
	select {
	case l.tasks <- t:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// forward hands the tasks to the workers of their accounts.
func (l *line) forward(ctx context.Context) {
	for {
		var t *task
		select {
		case t = <-l.tasks:
			<-t.ready
		case <-ctx.Done():
			return
		}
		if ctx.Err() != nil {
			return // the lookup may have been cut short: the event comes again
		}
		select {
		case l.s.worker(string(t.did)).in <- *t:
		case <-ctx.Done():
			return
		}
	}
}

// receive puts a frame into the host's line.
func (s *Service) receive(ctx context.Context, l *line, f stream.Frame) error {
	h := l.host
	s.stats.received.Add(1)
	if f.Seq == 0 {
		if m, err := f.Message(); err == nil {
			if info, ok := m.(*stream.Info); ok && info.Name == stream.InfoOutdatedCursor {
				s.stats.drop("outdated-cursor")
				s.w.Log.Warn("events of a host are lost: its log no longer reaches back to where we were", "host", h.name)
			}
		}
		return nil
	}
	h.mu.Lock()
	if f.Seq <= h.cursor {
		h.mu.Unlock()
		s.stats.drop("seq-order")
		return nil
	}
	h.cursor = f.Seq
	h.flight = append(h.flight, pending{seq: f.Seq})
	h.events++
	h.lastEvent = s.w.Clock.Now()
	h.mu.Unlock()

	m, err := f.Message()
	if err != nil {
		// A frame that breaks the protocol makes everything after it doubtful; the rules say to drop the connection. But coming
		// back would meet the same frame again, so it is dealt with by being dropped.
		s.drop(h, f.Seq, "message", "", err)
		return nil
	}
	if m == nil { // of a type that is not known yet
		s.drop(h, f.Seq, "unknown-type", "", nil)
		return nil
	}
	did := m.Subject()
	if !syntax.ValidDID(did) {
		s.drop(h, f.Seq, "did-syntax", "", nil)
		return nil
	}
	if m, ok := m.(*stream.Identity); ok { // what comes after it must not be judged by what was known before
		s.dir.Purge(syntax.DID(did))
		if handle, err := syntax.ParseHandle(m.Handle); err == nil {
			s.dir.PurgeHandle(handle)
		}
	}
	return l.add(ctx, &task{host: h, frame: f, msg: m, did: syntax.DID(did)})
}

// finish marks an event of a host as dealt with, so that its cursor can move up to the first that is not. The caller
// holds h.mu.
func (h *host) finish(seq int64) {
	i, ok := slices.BinarySearchFunc(h.flight, seq, func(p pending, seq int64) int { return cmp.Compare(p.seq, seq) })
	if !ok {
		return // of an earlier subscription
	}
	h.flight[i].done = true
	n := 0
	for n < len(h.flight) && h.flight[n].done {
		h.done = h.flight[n].seq
		n++
	}
	if n > 0 {
		h.flight = append(h.flight[:0], h.flight[n:]...)
	}
}

// drop counts an event that is not passed on.
func (s *Service) drop(h *host, seq int64, reason, did string, err error) {
	s.stats.drop(reason)
	s.w.Log.Debug("dropped an event", "host", h.name, "seq", seq, "did", did, "reason", reason, "err", err)
	h.mu.Lock()
	h.finish(seq)
	h.mu.Unlock()
}
