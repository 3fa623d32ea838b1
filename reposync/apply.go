package reposync

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// pending is an event that was read and isn't dealt with yet.
type pending struct {
	seq  int64
	size int
	done bool
}

// maxUndone bounds the bytes of events that were read and aren't dealt with: a slow sink slows the stream down.
const maxUndone = 64 << 20

// tracker knows up to which event of the stream everything is dealt with, in whatever order that happens.
type tracker struct {
	mu    sync.Mutex
	queue []*pending // in the order of the stream
	bytes int
	low   int64 // every event up to this one is done
	room  chan struct{}
}

// add notes an event that was read. It waits while too much is undone.
func (t *tracker) add(ctx context.Context, seq int64, size int) (*pending, error) {
	p := &pending{seq: seq, size: size}
	for {
		t.mu.Lock()
		if t.bytes == 0 || t.bytes+size <= maxUndone {
			t.queue, t.bytes = append(t.queue, p), t.bytes+size
			t.mu.Unlock()
			return p, nil
		}
		room := make(chan struct{})
		t.room = room
		t.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// done notes that events are dealt with, and returns the low-water mark.
func (t *tracker) done(ps ...*pending) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range ps {
		p.done = true
		t.bytes -= p.size
	}
	n := 0
	for n < len(t.queue) && t.queue[n].done {
		t.low = t.queue[n].seq
		t.queue[n] = nil
		n++
	}
	t.queue = t.queue[n:]
	if t.room != nil {
		close(t.room)
		t.room = nil
	}
	return t.low
}

// result is the outcome of a task: a change to store, an event that is dealt with, and what to do when that is stored.
type result struct {
	change  *Change
	pending *pending
	then    func()
}

const (
	batchResults = 1024
	batchBytes   = 4 << 20
	cursorEvery  = 250 * time.Millisecond // when there is nothing else to store
)

// apply stores results in the order in which they came, many at once when the sink is the slower side.
func (s *Syncer) apply(ctx context.Context) error {
	var rs []result
	var ps []*pending
	stored := s.track.done() // as loaded
	low := stored
	timer := time.NewTimer(cursorEvery)
	timer.Stop()
	defer timer.Stop()
	idle := true // the timer doesn't run
	for {
		rs, ps = rs[:0], ps[:0]
		late := false
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			late, idle = true, true
		case r := <-s.results:
			rs = append(rs, r)
		}
		size := 0
	gather:
		for len(rs) < batchResults && size < batchBytes {
			select {
			case r := <-s.results:
				rs = append(rs, r)
				if r.change != nil {
					for i := range r.change.Ops {
						size += len(r.change.Ops[i].Data)
					}
				}
			default:
				break gather
			}
		}
		var b Batch
		for _, r := range rs {
			if r.change != nil {
				b.Changes = append(b.Changes, *r.change)
			}
			if r.pending != nil {
				ps = append(ps, r.pending)
			}
		}
		if len(ps) > 0 {
			low = s.track.done(ps...)
		}
		if len(b.Changes) == 0 && !late {
			if low > stored && idle {
				timer.Reset(cursorEvery)
				idle = false
			}
			continue
		}
		if low > stored {
			b.Cursor = low
		}
		if len(b.Changes) > 0 || b.Cursor != 0 {
			if err := s.sink.Apply(ctx, b); err != nil {
				return fmt.Errorf("storing changes: %w", err)
			}
			stored = max(stored, b.Cursor)
			s.stats.cursor.Store(stored)
		}
		for _, r := range rs {
			if r.then != nil {
				r.then()
			}
		}
		clear(rs)
	}
}
