package stream

import (
	"context"
	"sync"
)

// Tracker knows up to which event of a stream everything has been dealt with, in whatever order that happens, and holds the
// reader back while too much is under way. It is for consumers that work on several events at once.
type Tracker struct {
	maxEvents, maxBytes int

	mu      sync.Mutex
	queue   []*Tracked // in the order of the stream
	events  int
	bytes   int
	cursor  int64
	changed chan struct{} // closed when there is less under way; nil if nobody waits
}

// Tracked is an event that has been read and is not dealt with yet.
type Tracked struct {
	seq  int64
	size int
	done bool
}

// NewTracker returns a tracker of a stream that goes on after the event with the number after (0: from the beginning, or
// unknown). At most maxEvents of maxBytes in all are under way at a time, or a single larger one.
func NewTracker(after int64, maxEvents, maxBytes int) *Tracker {
	return &Tracker{cursor: after, maxEvents: maxEvents, maxBytes: maxBytes}
}

// Add notes an event of so many bytes that was read; a seq of 0 is one without a number. It waits while too much is under
// way, and fails only when ctx ends. One goroutine at a time may call it, in the order of the stream.
func (t *Tracker) Add(ctx context.Context, seq int64, size int) (*Tracked, error) {
	e := &Tracked{seq: seq, size: size}
	err := t.wait(ctx, func() bool {
		if t.events > 0 && (t.events >= t.maxEvents || t.bytes+size > t.maxBytes) {
			return false
		}
		if t.cursor == 0 && len(t.queue) == 0 && seq > 0 {
			t.cursor = seq - 1
		}
		t.queue = append(t.queue, e)
		t.events++
		t.bytes += size
		return true
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}

// Skip is Add and Done for an event that there is nothing to do for.
func (t *Tracker) Skip(seq int64) {
	if seq == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.queue) == 0 {
		t.cursor = seq
		return
	}
	// It ends where the one before it does.
	last := t.queue[len(t.queue)-1]
	if last.done {
		last.seq = seq
		return
	}
	t.queue = append(t.queue, &Tracked{seq: seq, done: true})
}

// Done notes that events have been dealt with, and returns the cursor.
func (t *Tracker) Done(es ...*Tracked) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range es {
		e.done = true
		t.events--
		t.bytes -= e.size
	}
	n := 0
	for n < len(t.queue) && t.queue[n].done {
		if s := t.queue[n].seq; s != 0 {
			t.cursor = s
		}
		t.queue[n] = nil
		n++
	}
	if t.queue = t.queue[n:]; len(t.queue) == 0 {
		t.queue = nil // or a burst's memory would stay
	}
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
	return t.cursor
}

// Cursor returns the number of the event up to which all have been dealt with.
func (t *Tracker) Cursor() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cursor
}

// Drain waits until nothing is under way.
func (t *Tracker) Drain(ctx context.Context) error {
	return t.wait(ctx, func() bool { return t.events == 0 })
}

// wait calls f, with the lock, until it returns true.
func (t *Tracker) wait(ctx context.Context, f func() bool) error {
	for {
		t.mu.Lock()
		if f() {
			t.mu.Unlock()
			return nil
		}
		if t.changed == nil {
			t.changed = make(chan struct{})
		}
		changed := t.changed
		t.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
