package eventlog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/barograph/baro/internal/kv"
)

// Forgetting has two halves. A row of the transaction names the subject and the number below which its events are not read
// any more; as long as that row is there, readers look whom old events are about. Meanwhile the log is gone through once,
// little by little, the frames are erased, and the row with them. New events cost nothing of it, and there is no index to
// keep: subjects are forgotten seldom, and one pass serves all of them.

const (
	eraseBytes = 4 << 20 // read in one step
	eraseRows  = 20_000
	erasePause = 50 * time.Millisecond
)

// job is a subject whose frames are to be erased: those of the events from..below-1.
type job struct{ from, below int64 }

// forget is a job that just began.
type forget struct {
	subject string
	below   int64
}

// hidden is what readers must not see.
type hidden struct {
	below    int64 // nothing is hidden from here on
	subjects map[string]int64
}

func (h *hidden) len() int {
	if h == nil {
		return 0
	}
	return len(h.subjects)
}

// hides says whether an event was forgotten.
func (l *Log) hides(h *hidden, ev *Event) bool {
	if h == nil || ev.Seq >= h.below {
		return false
	}
	below, ok := h.subjects[l.o.Subject(ev.Frame)]
	return ok && ev.Seq < below
}

// visible drops the events that were forgotten.
func (l *Log) visible(events []Event, h *hidden) []Event {
	if h == nil || len(events) == 0 || events[0].Seq >= h.below {
		return events
	}
	return slices.DeleteFunc(events, func(ev Event) bool { return l.hides(h, &ev) })
}

// forget adds jobs to what is pending: the events before l.next. The caller holds l.mu.
func (l *Log) forget(subjects []string) {
	for _, who := range subjects {
		j := job{below: l.next}
		l.jobs[who] = j
		l.batch.Set(l.forgetKey(who), j.append(nil))
		l.forgets = append(l.forgets, forget{who, j.below})
	}
}

// hide adds what is on disk now. The caller holds l.rmu.
func (l *Log) hide(forgets []forget) {
	if len(forgets) == 0 {
		return
	}
	next := &hidden{subjects: make(map[string]int64, l.hidden.len()+len(forgets))}
	if l.hidden != nil {
		next.below = l.hidden.below
		for who, below := range l.hidden.subjects {
			next.subjects[who] = below
		}
	}
	for _, f := range forgets {
		next.subjects[f.subject] = f.below
		next.below = max(next.below, f.below)
	}
	l.hidden = next
	select {
	case l.erase <- struct{}{}:
	default:
	}
}

// unhide drops what was erased, unless it was forgotten anew. The caller holds l.rmu.
func (l *Log) unhide(erased []forget) {
	if len(erased) == 0 {
		return
	}
	left := maps.Clone(l.hidden.subjects)
	for _, f := range erased {
		if left[f.subject] == f.below {
			delete(left, f.subject)
		}
	}
	if len(left) == 0 {
		l.hidden = nil
		return
	}
	next := &hidden{subjects: left}
	for _, below := range left {
		next.below = max(next.below, below)
	}
	l.hidden = next
}

// Erase does one step of erasing the frames that are to be forgotten, and says whether there is more to do.
func (l *Log) Erase() (more bool, err error) {
	l.trimMu.Lock() // an event that is trimmed meanwhile must not come back
	defer l.trimMu.Unlock()
	l.rmu.RLock()
	hidden, floor, err := l.hidden, l.floor, l.rerr
	l.rmu.RUnlock()
	if hidden == nil || err != nil {
		return false, err
	}
	from := hidden.below
	l.mu.Lock()
	for who := range hidden.subjects {
		from = min(from, l.jobs[who].from)
	}
	l.mu.Unlock()
	from = max(from, floor)
	found, next, err := l.findHidden(from, hidden)
	if err != nil {
		return false, fmt.Errorf("looking for events to forget: %w", err)
	}
	var erased []forget
	// Through the log's own batch, so that it has its place among the transactions that name more to forget.
	_, err = l.Commit(context.Background(), Tx{Ops: func(b kv.Batch) {
		var key [64]byte
		for i := range found {
			b.Set(l.eventKey(key[:0], found[i].seq), found[i].value.appendErased(nil))
		}
		for who, below := range hidden.subjects {
			switch j := l.jobs[who]; {
			case j.below != below: // forgotten anew meanwhile
			case next >= below:
				delete(l.jobs, who)
				b.Delete(l.forgetKey(who))
				erased = append(erased, forget{who, below})
			case j.from < next:
				j.from = next
				l.jobs[who] = j
				b.Set(l.forgetKey(who), j.append(nil))
			}
		}
	}})
	if err != nil {
		return false, err
	}
	l.rmu.Lock()
	defer l.rmu.Unlock()
	for i := range found {
		l.ring.clear(found[i].seq)
	}
	l.unhide(erased)
	return l.hidden != nil, nil
}

type foundValue struct {
	seq   int64
	value value // without the frame
}

// findHidden reads a stretch of the log and gives the events in it that are hidden, and the number to go on with.
func (l *Log) findHidden(from int64, hidden *hidden) (found []foundValue, next int64, err error) {
	if from >= hidden.below { // trimmed
		return nil, hidden.below, nil
	}
	it := l.store.Iter(l.eventKey(nil, from), l.eventKey(nil, hidden.below))
	defer func() { err = errors.Join(err, it.Close()) }()
	size, rows := 0, 0
	for ok := it.First(); ok; ok = it.Next() {
		k := it.Key()
		seq := int64(binary.BigEndian.Uint64(k[len(k)-8:]))
		if rows++; size > eraseBytes || rows > eraseRows {
			return found, seq, nil
		}
		v, err := cutValue(it.Value())
		if err != nil {
			return nil, 0, err
		}
		size += len(v.frame)
		if !v.erased && l.hides(hidden, &Event{Seq: seq, Frame: v.frame}) {
			v.frame = nil
			found = append(found, foundValue{seq, v})
		}
	}
	return found, hidden.below, it.Err()
}

func (l *Log) forgetKey(subject string) []byte {
	return append(append(append([]byte(nil), l.o.Prefix...), keyForget), subject...)
}

func (j job) append(dst []byte) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(dst, uint64(j.from)), uint64(j.below))
}

// loadJobs reads what is still to be erased.
func (l *Log) loadJobs() (err error) {
	prefix := l.forgetKey("")
	it := l.store.Iter(prefix, kv.PrefixEnd(prefix))
	defer func() { err = errors.Join(err, it.Close()) }()
	var forgets []forget
	for ok := it.First(); ok; ok = it.Next() {
		v := it.Value()
		if len(v) != 16 || l.o.Subject == nil {
			return fmt.Errorf("a stored wish to forget has %d bytes, or nobody can tell subjects", len(v))
		}
		who := string(it.Key()[len(prefix):])
		j := job{int64(binary.BigEndian.Uint64(v)), int64(binary.BigEndian.Uint64(v[8:]))}
		l.jobs[who] = j
		forgets = append(forgets, forget{who, j.below})
	}
	l.hide(forgets) // nobody reads yet
	return it.Err()
}
