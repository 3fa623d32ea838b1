package explorer

import (
	"strings"
	"sync"
	"time"

	"github.com/barograph/baro/internal/foreign"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// Event is what the tail shows of one event of the relay.
type Event struct {
	Seq  int64  `json:"seq"`
	Time string `json:"time"` // RFC 3339, of the relay
	Type string `json:"type"` // commit, sync, identity or account
	DID  string `json:"did"`
	// Handle that was known when the event came; "" if none was.
	Handle string `json:"handle,omitempty"`
	Rows   []Row  `json:"rows"`
	More   int    `json:"more,omitempty"` // operations that aren't among the rows
}

// Row is one line of the tail.
type Row struct {
	Action     string            `json:"action"` // create, update, delete; or what the event tells of an account
	Collection string            `json:"collection,omitempty"`
	Rkey       string            `json:"rkey,omitempty"`
	CID        string            `json:"cid,omitempty"`
	Preview    []foreign.Segment `json:"preview,omitempty"` // one line of what the record says
	Target     string            `json:"target,omitempty"`  // at-uri or DID that the record is about, if it says nothing else
	Href       string            `json:"href"`
}

// tail holds the newest events and hands new ones to those who follow.
type tail struct {
	now        func() time.Time
	fast, slow *trace

	mu        sync.Mutex
	ring      []*Event
	next      int // place of the next event in the ring
	subs      map[*follower]struct{}
	ended     bool
	connected bool
	problem   string // why it is not connected
	last      int64  // sequence number of the newest event
	events    int64  // since the start
	dropped   int64  // followers that were too slow
}

// follower is somebody who follows the tail. Its channel is closed when it is too slow, or when there is no more.
type follower struct {
	ch   chan *Event
	keep func(*Event) *Event // nil: leave it out
}

func newTail(now func() time.Time) *tail {
	return &tail{now: now, fast: newTrace(2*time.Second, 151, false, 14), slow: newTrace(30*time.Minute, 145, true, 4), subs: map[*follower]struct{}{}}
}

// publish adds an event.
func (t *tail) publish(e *Event, at time.Time, live bool) {
	if now := t.now(); live || at.After(now) {
		at = now
	}
	n := uint32(max(1, len(e.Rows)+e.More))
	t.fast.add(at, n)
	t.slow.add(at, n)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.ring) < ringEvents {
		t.ring = append(t.ring, e)
	} else {
		t.ring[t.next] = e
	}
	t.next = (t.next + 1) % ringEvents
	t.last = e.Seq
	t.events++
	for f := range t.subs {
		kept := f.keep(e)
		if kept == nil {
			continue
		}
		select {
		case f.ch <- kept:
		default: // it doesn't keep up; its browser connects again and gets what it missed from the ring
			t.remove(f)
			t.dropped++
		}
	}
}

// remove ends a follower. The lock is held.
func (t *tail) remove(f *follower) {
	if _, ok := t.subs[f]; ok {
		delete(t.subs, f)
		close(f.ch)
	}
}

// subscribe returns a follower and the events after a sequence number that the ring still has. It is nil when there are too
// many, or when it is over.
func (t *tail) subscribe(after int64, keep func(*Event) *Event) (*follower, []*Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended || len(t.subs) >= maxStreams {
		return nil, nil
	}
	f := &follower{ch: make(chan *Event, 64), keep: keep}
	t.subs[f] = struct{}{}
	var missed []*Event
	if after > 0 {
		for _, e := range t.ordered() {
			if e.Seq > after {
				if e = keep(e); e != nil {
					missed = append(missed, e)
				}
			}
		}
	}
	return f, missed
}

func (t *tail) unsubscribe(f *follower) {
	t.mu.Lock()
	t.remove(f)
	t.mu.Unlock()
}

// end closes all followers; no more come.
func (t *tail) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	for f := range t.subs {
		t.remove(f)
	}
}

// ordered returns the ring's events, the oldest first. The lock is held.
func (t *tail) ordered() []*Event {
	if len(t.ring) < ringEvents {
		return t.ring
	}
	return append(append(make([]*Event, 0, ringEvents), t.ring[t.next:]...), t.ring[:t.next]...)
}

// recent returns the newest events that keep lets through, the newest first, with up to max rows together.
func (t *tail) recent(max int, keep func(*Event) *Event) []*Event {
	t.mu.Lock()
	all := t.ordered()
	out := []*Event{}
	for i := len(all) - 1; i >= 0 && max > 0; i-- {
		e := keep(all[i])
		if e == nil {
			continue
		}
		if len(e.Rows) > max {
			cut := *e
			cut.More += len(e.Rows) - max
			cut.Rows = e.Rows[:max]
			e = &cut
		}
		max -= len(e.Rows)
		out = append(out, e)
	}
	t.mu.Unlock()
	return out
}

// find returns the record with a CID, if an event in the ring has it.
func (t *tail) find(c string) (did, collection, rkey string, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.ring {
		for _, r := range e.Rows {
			if r.CID == c {
				return e.DID, r.Collection, r.Rkey, true
			}
		}
	}
	return "", "", "", false
}

func (t *tail) setConnected(ok bool, problem string) {
	t.mu.Lock()
	t.connected, t.problem = ok, problem
	t.mu.Unlock()
}

// TailStatus is how it stands with the stream of the relay.
type TailStatus struct {
	Connected bool   `json:"connected"`
	Problem   string `json:"problem,omitempty"`
	Seq       int64  `json:"seq"`
	Events    int64  `json:"events"` // since the explorer's start
	Followers int    `json:"followers"`
	Dropped   int64  `json:"droppedFollowers"`
}

func (t *tail) status() TailStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	return TailStatus{t.connected, t.problem, t.last, t.events, len(t.subs), t.dropped}
}

// isTarget reports whether a text is an at-uri or DID and nothing else.
func isTarget(s string) bool { return syntax.ValidATURI(s) || syntax.ValidDID(s) }

// filter returns what keeps the rows of a collection ("com.example.*" for all below) and the events of an account. Empty
// ones keep everything.
func filter(collection, did string) func(*Event) *Event {
	prefix, below := strings.CutSuffix(collection, "*")
	return func(e *Event) *Event {
		if did != "" && e.DID != did {
			return nil
		}
		if collection == "" {
			return e
		}
		var rows []Row
		for _, r := range e.Rows {
			if r.Collection == collection || below && r.Collection != "" && strings.HasPrefix(r.Collection, prefix) {
				rows = append(rows, r)
			}
		}
		switch len(rows) {
		case 0:
			return nil
		case len(e.Rows):
			return e
		}
		kept := *e
		kept.Rows, kept.More = rows, 0
		return &kept
	}
}

// eventOf makes an event for the tail of a message, nil if there is nothing to show. What is no identifier is left out.
func eventOf(m stream.Message) (*Event, time.Time) {
	if !syntax.ValidDID(m.Subject()) {
		return nil, time.Time{}
	}
	e := &Event{Seq: m.Sequence(), Type: strings.TrimPrefix(m.FrameType(), "#"), DID: m.Subject()}
	account := accountHref(e.DID)
	var when string
	switch m := m.(type) {
	case *stream.Commit:
		when = m.Time
		records, err := m.Records()
		if err != nil {
			records = make([][]byte, len(m.Ops)) // the relay has let it through: what was written shows, without a preview
		}
		for i, op := range m.Ops {
			if len(e.Rows) == rowsPerEvent {
				e.More = len(m.Ops) - rowsPerEvent
				break
			}
			collection, rkey, err := syntax.ParsePath(op.Path)
			if err != nil || op.Action != stream.ActionCreate && op.Action != stream.ActionUpdate && op.Action != stream.ActionDelete {
				continue
			}
			r := Row{Action: op.Action, Collection: string(collection), Rkey: string(rkey), Href: recordHref(e.DID, string(collection), string(rkey))}
			if op.CID.Defined() {
				r.CID = op.CID.String()
				if b := records[i]; b != nil {
					if r.Preview = foreign.Segments(preview(b)); len(r.Preview) == 1 && isTarget(r.Preview[0].Text) {
						r.Target = r.Preview[0].Text
					}
				}
			}
			e.Rows = append(e.Rows, r)
		}
		if len(m.Ops) == 0 {
			e.Rows = []Row{{Action: "commit", Href: account}}
		}
	case *stream.Sync:
		when = m.Time
		e.Rows = []Row{{Action: "sync", Href: account, Preview: foreign.Segments("repository reset to revision " + foreign.Line(m.Rev, 40))}}
	case *stream.Identity:
		when = m.Time
		r := Row{Action: "identity", Href: account}
		if syntax.ValidHandle(m.Handle) {
			r.Preview = foreign.Segments("handle " + m.Handle)
		}
		e.Rows = []Row{r}
	case *stream.Account:
		when = m.Time
		r := Row{Action: "account", Href: account, Preview: foreign.Segments("active")}
		if !m.Active {
			r.Preview = foreign.Segments(foreign.Line("inactive: "+m.Status, 80))
		}
		e.Rows = []Row{r}
	default:
		return nil, time.Time{}
	}
	at, ok := syntax.LenientTime(when)
	if ok {
		e.Time = at.UTC().Format("2006-01-02T15:04:05.000Z")
	}
	return e, at
}
