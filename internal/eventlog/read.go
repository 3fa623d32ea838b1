package eventlog

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"sort"
	"time"

	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/internal/world"
)

// Head is the newest number on disk; one less than the first number when there was no event yet.
func (l *Log) Head() int64 {
	l.rmu.RLock()
	defer l.rmu.RUnlock()
	return l.head
}

// Floor is the oldest number that can be read; Head()+1 when no event is kept.
func (l *Log) Floor() int64 {
	l.rmu.RLock()
	defer l.rmu.RUnlock()
	return l.floor
}

// Read returns events from number from on, at most max of them (0: as many as fit in Options.ReadBytes), and waits
// until there is at least one. Numbers are left out where an event was forgotten, and nowhere else. A number that is not given yet is waited for, so a caller that wants to refuse cursors of
// the future compares with Head first. A number below Floor gives an [*OutdatedError].
func (l *Log) Read(ctx context.Context, from int64, max int) ([]Event, error) {
	for {
		l.rmu.RLock()
		err, floor, head, wake, hidden := l.rerr, l.floor, l.head, l.wake, l.hidden
		var events []Event
		next := from
		if err == nil && from >= floor {
			events, next = l.ring.from(from, max, l.o.ReadBytes)
		}
		l.rmu.RUnlock()
		events = l.visible(events, hidden)
		switch {
		case err != nil:
			return nil, err
		case from < floor:
			return nil, &OutdatedError{From: from, Floor: floor}
		case len(events) > 0:
			return events, nil
		case next > from: // nothing but what was forgotten
			from = next
		case from <= head:
			if events, next, err = l.readDisk(from, head, max, hidden); err != nil {
				return nil, fmt.Errorf("reading event %d: %w", from, err)
			}
			if len(events) > 0 {
				return events, nil
			}
			if next > from {
				if err := ctx.Err(); err != nil {
					return nil, err
				}
				from = next
				continue
			}
			// Not there: trimmed since the floor was looked at, which the next look tells, or the store lost it.
			if from >= l.Floor() {
				return nil, fmt.Errorf("event %d is missing in the store", from)
			}
		default:
			// The channel was taken together with head: an event that came in between has closed it.
			select {
			case <-wake:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
}

// maxSkipped is how many forgotten events one look at the disk passes over.
const maxSkipped = 10_000

// readDisk reads the events from..head, as far as max and the size of one read allow, and says with which number to go
// on: with from when it is not there.
func (l *Log) readDisk(from, head int64, max int, hidden *hidden) (events []Event, next int64, err error) {
	it := l.store.Iter(l.eventKey(nil, from), l.eventKey(nil, head+1))
	defer func() {
		if cerr := it.Close(); err == nil {
			err = cerr
		}
	}()
	size, next := 0, from
	for ok := it.First(); ok && next-from < maxSkipped+int64(len(events)); ok = it.Next() {
		k := it.Key()
		seq := int64(binary.BigEndian.Uint64(k[len(k)-8:]))
		if seq != next {
			break
		}
		v, err := cutValue(it.Value())
		if err != nil {
			return nil, 0, err
		}
		ev := Event{Seq: seq, Time: v.time, Frame: v.frame}
		if v.erased || l.hides(hidden, &ev) {
			next++
			continue
		}
		size += len(v.frame)
		if len(events) > 0 && size > l.o.ReadBytes {
			break
		}
		ev.Frame = bytes.Clone(v.frame)
		events = append(events, ev)
		next++
		if len(events) == max {
			break
		}
	}
	return events, next, nil
}

// SeqAt is the number of the first event that was submitted at t or later; Head()+1 when there is none yet.
func (l *Log) SeqAt(t time.Time) (int64, error) {
	l.trimMu.Lock() // keeps the floor still
	defer l.trimMu.Unlock()
	return l.search(func(at time.Time, _ uint64) bool { return !at.Before(t) })
}

// search finds the first event for which ok holds by bisection: the times and the bytes of all frames before an event
// only grow along the log.
func (l *Log) search(ok func(t time.Time, before uint64) bool) (int64, error) {
	floor, head := l.Floor(), l.Head()
	var err error
	n := sort.Search(int(head-floor+1), func(i int) bool {
		if err != nil {
			return true
		}
		t, before, gerr := l.place(floor + int64(i))
		if err = gerr; err != nil {
			return true
		}
		return ok(t, before)
	})
	if err != nil {
		return 0, fmt.Errorf("searching the event log: %w", err)
	}
	return floor + int64(n), nil
}

// place is the time of an event and the bytes of all frames before it.
func (l *Log) place(seq int64) (t time.Time, before uint64, err error) {
	v, err := l.store.Get(l.eventKey(nil, seq))
	if err != nil {
		return time.Time{}, 0, fmt.Errorf("event %d: %w", seq, err)
	}
	row, err := cutValue(v)
	return row.time, row.total - row.size, err
}

// Trim removes the events that the retention at the time now does not keep, and says how many. The number of the next
// event is not touched by it.
func (l *Log) Trim(now time.Time) (int64, error) {
	l.trimMu.Lock()
	defer l.trimMu.Unlock()
	floor := l.Floor()
	cut := floor
	if l.o.Retention > 0 {
		oldest := now.Add(-l.o.Retention)
		at, err := l.search(func(t time.Time, _ uint64) bool { return !t.Before(oldest) })
		if err != nil {
			return 0, err
		}
		cut = at
	}
	if l.o.MaxBytes > 0 {
		l.rmu.RLock()
		durable := l.durable
		l.rmu.RUnlock()
		at, err := l.search(func(_ time.Time, before uint64) bool { return durable <= before+uint64(l.o.MaxBytes) })
		if err != nil {
			return 0, err
		}
		cut = max(cut, at)
	}
	if cut <= floor {
		return 0, nil
	}
	l.rmu.RLock()
	base := l.durable // when all go
	all := cut > l.head
	l.rmu.RUnlock()
	if !all {
		var err error
		if _, base, err = l.place(cut); err != nil {
			return 0, err
		}
	}
	// Readers lose sight of the events before they go: one that finds a hole on disk finds the reason in the floor.
	l.rmu.Lock()
	if l.rerr != nil {
		defer l.rmu.Unlock()
		return 0, l.rerr
	}
	l.floor, l.base = cut, base
	l.ring.dropBelow(cut)
	l.rmu.Unlock()

	b := l.store.NewBatch()
	defer b.Close()
	b.DeleteRange(l.eventKey(nil, floor), l.eventKey(nil, cut))
	b.Set(l.metaKey(nil, keyFloor), kv.AppendUint64(nil, uint64(cut)))
	if err := l.store.Apply(b, true); err != nil {
		l.fail(err, nil)
		return 0, &FatalError{err}
	}
	return cut - floor, nil
}

// KeepTrimmed trims at once and then every so often until ctx ends, erases in between what is to be forgotten, and returns
// what went wrong if something did.
func (l *Log) KeepTrimmed(ctx context.Context, every time.Duration) error {
	for {
		if _, err := l.Trim(l.o.Clock.Now()); err != nil {
			return err
		}
		for more := true; more; {
			var err error
			if more, err = l.Erase(); err != nil {
				return err
			}
			if more && world.Sleep(ctx, l.o.Clock, erasePause) != nil {
				return nil
			}
		}
		t := l.o.Clock.NewTimer(every)
		select {
		case <-t.C():
		case <-l.erase:
		case <-ctx.Done():
		}
		t.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// ring holds the newest events, without a gap, as many as fit in a number of bytes.
type ring struct {
	buf   []Event
	start int // of the events in buf
	bytes int
}

func (r *ring) events() []Event { return r.buf[r.start:] }

func (r *ring) push(ev Event, limit int) {
	r.buf = append(r.buf, ev)
	r.bytes += len(ev.Frame)
	for r.bytes > limit && r.start < len(r.buf) {
		r.drop()
	}
	r.compact()
}

func (r *ring) drop() {
	r.bytes -= len(r.buf[r.start].Frame)
	r.buf[r.start] = Event{}
	r.start++
}

// compact moves the events to the front when more than half of the space is dropped ones, which makes a move cost
// nothing on average.
func (r *ring) compact() {
	if r.start > 64 && r.start > len(r.buf)/2 {
		n := copy(r.buf, r.buf[r.start:])
		clear(r.buf[n:])
		r.buf, r.start = r.buf[:n], 0
	}
}

func (r *ring) dropBelow(seq int64) {
	for r.start < len(r.buf) && r.buf[r.start].Seq < seq {
		r.drop()
	}
	r.compact()
}

// clear lets go of the frame of an event.
func (r *ring) clear(seq int64) {
	evs := r.events()
	if len(evs) == 0 || seq < evs[0].Seq || seq > evs[len(evs)-1].Seq {
		return
	}
	ev := &evs[seq-evs[0].Seq]
	r.bytes -= len(ev.Frame)
	ev.Frame, ev.gone = nil, true
}

// from copies the events from seq on, without those that are gone, and says with which number to go on: with seq when the
// ring does not hold it.
func (r *ring) from(seq int64, max, size int) (out []Event, next int64) {
	evs := r.events()
	if len(evs) == 0 || seq < evs[0].Seq || seq > evs[len(evs)-1].Seq {
		return nil, seq
	}
	evs = evs[seq-evs[0].Seq:]
	if max > 0 && len(evs) > max {
		evs = evs[:max]
	}
	gone := 0
	for i, ev := range evs {
		size -= len(ev.Frame)
		if i > gone && size < 0 {
			evs = evs[:i]
			break
		}
		if ev.gone {
			gone++
		}
	}
	if len(evs) == gone {
		return nil, evs[len(evs)-1].Seq + 1
	}
	out = make([]Event, 0, len(evs)-gone)
	for _, ev := range evs {
		if !ev.gone {
			out = append(out, ev)
		}
	}
	return out, evs[len(evs)-1].Seq + 1
}
