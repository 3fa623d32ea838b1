package explorer

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/barograph/baro/internal/foreign"
	"github.com/barograph/baro/syntax"
)

// How the stream of the tail behaves.
const (
	streamWrite = 10 * time.Second // a browser that takes nothing for so long is gone
	streamTrace = 2 * time.Second  // between two drawings of the trace
	streamIdle  = 15 * time.Second // between two signs of life
)

// LivePage is the tail.
type LivePage struct {
	Notices []Notice   `json:"notices,omitempty"`
	Tail    TailStatus `json:"tail"`
	Fast    Chart      `json:"fiveMinutes"`
	Live    LiveList   `json:"live"`
	Common  []string   `json:"collections"` // among the newest events
	Actor   *Actor     `json:"account,omitempty"`
}

// liveFilter reads the filter of a request.
func liveFilter(r *http.Request) (collection, did string, err error) {
	q := r.URL.Query()
	collection, did = strings.TrimSpace(q.Get("collection")), strings.TrimSpace(q.Get("did"))
	if name, below := strings.CutSuffix(collection, ".*"); collection != "" && !syntax.ValidNSID(collection) &&
		!(below && (syntax.ValidHandle(name) || syntax.ValidNSID(name))) {
		return "", "", badRequest("“"+foreign.Line(collection, 100)+"” is not the name of a collection.", "Try app.bsky.feed.post, or app.bsky.feed.* for all below.")
	}
	if did != "" && !syntax.ValidDID(did) {
		return "", "", badRequest("“"+foreign.Line(did, 100)+"” is not a DID.", "")
	}
	return collection, did, nil
}

// named adds the handles that are known by now, of the accounts in events and of those that their records are about.
func (s *Service) named(events []*Event) []*Event {
	for i, e := range events {
		named := *e
		if a, ok := s.names.get(e.DID); ok {
			named.Handle = a.Handle
		}
		named.Rows = slices.Clone(e.Rows)
		for k := range named.Rows {
			if r := &named.Rows[k]; r.Target != "" {
				r.Preview = foreign.Segments("→ " + s.aim(r.Target))
			}
		}
		events[i] = &named
	}
	return events
}

// aim names an at-uri or DID for people.
func (s *Service) aim(target string) string {
	uri, _ := strings.CutPrefix(target, "at://")
	did, path, _ := strings.Cut(uri, "/")
	name := short(did)
	if a, ok := s.names.get(did); ok && a.Handle != "" {
		name = a.Handle
	}
	if path != "" {
		name += " · " + path
	}
	return name
}

func (s *Service) live(ctx context.Context, r *http.Request) (*View, error) {
	collection, did, err := liveFilter(r)
	if err != nil {
		return nil, err
	}
	p := &LivePage{Tail: s.tail.status(), Fast: s.fastChart(), Common: []string{}}
	var n notices
	s.notLive(&n)
	p.Notices = n.list
	p.Live = LiveList{Collection: collection, DID: did, Max: 60, Events: s.named(s.tail.recent(60, filter(collection, did)))}
	p.Live.Href = "/live/events" + strings.TrimPrefix(liveHref(collection, did), "/live")
	p.Live.Paused = r.URL.Query().Get("refresh") == "off"
	if did != "" {
		a := s.actor(ctx, did)
		p.Actor = &a
	}
	seen := map[string]int{}
	for _, e := range s.tail.recent(ringEvents, filter("", "")) {
		for _, row := range e.Rows {
			if row.Collection == "" {
				continue
			}
			if seen[row.Collection] == 0 && len(p.Common) < 12 {
				p.Common = append(p.Common, row.Collection)
			}
			seen[row.Collection]++
		}
	}
	v := &View{Title: "Live", Nav: "live", Name: "live", Data: p}
	if !p.Live.Paused {
		v.Refresh = 5
	}
	return v, nil
}

// liveEvents is the tail as server-sent events: "event" for each event of the relay, "trace" for the drawing.
func (s *Service) liveEvents(w http.ResponseWriter, r *http.Request) {
	collection, did, err := liveFilter(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	after, err := strconv.ParseInt(r.Header.Get("Last-Event-ID"), 10, 64)
	if err != nil {
		after, _ = strconv.ParseInt(r.URL.Query().Get("after"), 10, 64) // 0: only what comes from now on
	}
	f, missed := s.tail.subscribe(after, filter(collection, did))
	if f == nil {
		w.Header().Set("Retry-After", "10")
		s.fail(w, r, errBusy)
		return
	}
	defer s.tail.unsubscribe(f)
	h := w.Header()
	secure(h)
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	rc := http.NewResponseController(w)
	var b []byte
	send := func(id int64, name string, v any) error {
		j, err := json.Marshal(v)
		if err != nil {
			return err
		}
		b = b[:0]
		if id != 0 {
			b = fmt.Appendf(b, "id: %d\n", id)
		}
		b = fmt.Appendf(b, "event: %s\ndata: %s\n\n", name, j)
		_ = rc.SetWriteDeadline(s.w.Clock.Now().Add(streamWrite)) // not all writers have deadlines
		if _, err := w.Write(b); err != nil {
			return err
		}
		return rc.Flush()
	}
	event := func(e *Event) error { return send(e.Seq, "event", s.named([]*Event{e})[0]) }
	if _, err := w.Write([]byte("retry: 3000\n\n")); err != nil {
		return
	}
	for _, e := range missed {
		if event(e) != nil {
			return
		}
	}
	if rc.Flush() != nil {
		return
	}
	var drawn Chart
	draw := func() error {
		c := s.tail.fast.draw(s.w.Clock.Now(), "events a second", 1)
		c.Rates = nil
		if c.Line == drawn.Line {
			return nil // nothing to tell
		}
		drawn = c
		return send(0, "trace", c)
	}
	if draw() != nil {
		return
	}
	timer := s.w.Clock.NewTimer(streamTrace)
	defer timer.Stop()
	quiet := time.Duration(0)
	for {
		select {
		case e, ok := <-f.ch:
			if !ok || event(e) != nil {
				return
			}
		case <-timer.C():
			timer.Reset(streamTrace)
			if draw() != nil {
				return
			}
			if quiet += streamTrace; quiet >= streamIdle {
				quiet = 0
				_ = rc.SetWriteDeadline(s.w.Clock.Now().Add(streamWrite))
				if _, err := w.Write([]byte(": still here\n\n")); err != nil || rc.Flush() != nil {
					return
				}
			}
		case <-r.Context().Done():
			return
		case <-s.closed:
			return
		}
	}
}
