package reposync

import (
	"context"
	"fmt"
	"time"

	"github.com/barograph/baro/stream"
)

// maxUndone bounds the bytes of events that were read and aren't dealt with: a slow sink slows the stream down.
const maxUndone = 64 << 20

// result is the outcome of a task: a change to store, an event that is dealt with, and what to do when that is stored.
type result struct {
	change  *Change
	pending *stream.Tracked
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
	var ps []*stream.Tracked
	stored := s.track.Cursor() // as loaded
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
			low = s.track.Done(ps...)
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
