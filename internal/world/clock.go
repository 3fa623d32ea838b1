package world

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Clock tells the time and waits for it.
type Clock interface {
	Now() time.Time
	// NewTimer makes a timer that fires once after d. A timer of no or negative duration fires at once.
	NewTimer(d time.Duration) Timer
	// After is the channel of a timer that nobody needs to stop.
	After(d time.Duration) <-chan time.Time
}

// Timer is a [time.Timer] behind an interface. Stop and Reset never leave an old tick in the channel.
type Timer interface {
	C() <-chan time.Time
	Stop() bool
	Reset(d time.Duration) bool
}

// System is the clock of the machine. Inside a testing/synctest bubble it is the bubble's clock.
var System Clock = systemClock{}

type systemClock struct{}

func (systemClock) Now() time.Time                         { return time.Now() }
func (systemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }
func (systemClock) NewTimer(d time.Duration) Timer         { return systemTimer{time.NewTimer(d)} }

type systemTimer struct{ t *time.Timer }

func (t systemTimer) C() <-chan time.Time        { return t.t.C }
func (t systemTimer) Stop() bool                 { return t.t.Stop() }
func (t systemTimer) Reset(d time.Duration) bool { return t.t.Reset(d) }

// Sleep waits for d on the clock, or until ctx is done, whose error it then returns.
func Sleep(ctx context.Context, c Clock, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := c.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Manual is a clock that moves only when told to. It is safe for concurrent use.
type Manual struct {
	mu     sync.Mutex
	now    time.Time
	timers []*manualTimer // those that wait, in no order
	change chan struct{}  // closed and replaced when a timer is added
}

// NewManual makes a clock that stands at start.
func NewManual(start time.Time) *Manual {
	return &Manual{now: start, change: make(chan struct{})}
}

// Now is the time the clock was last moved to.
func (m *Manual) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// Advance moves the clock by d and fires the timers that come due, in the order of their times.
func (m *Manual) Advance(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.set(m.now.Add(d))
}

// Set moves the clock to t, which may be in the past: clocks of machines jump both ways.
func (m *Manual) Set(t time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.set(t)
}

func (m *Manual) set(t time.Time) {
	m.now = t
	slices.SortStableFunc(m.timers, func(a, b *manualTimer) int { return a.at.Compare(b.at) })
	n := 0
	for n < len(m.timers) && !m.timers[n].at.After(t) {
		m.timers[n].fire(m.timers[n].at)
		n++
	}
	m.timers = slices.Delete(m.timers, 0, n)
}

// Waiting is the number of timers that wait on the clock.
func (m *Manual) Waiting() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.timers)
}

// AwaitTimers returns when at least n timers wait on the clock. Tests call it before Advance, in place of a sleep.
func (m *Manual) AwaitTimers(ctx context.Context, n int) error {
	for {
		m.mu.Lock()
		have, change := len(m.timers), m.change
		m.mu.Unlock()
		if have >= n {
			return nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// NewTimer implements [Clock].
func (m *Manual) NewTimer(d time.Duration) Timer {
	t := &manualTimer{clock: m, c: make(chan time.Time, 1)}
	m.mu.Lock()
	defer m.mu.Unlock()
	t.start(d)
	return t
}

// After implements [Clock].
func (m *Manual) After(d time.Duration) <-chan time.Time { return m.NewTimer(d).C() }

type manualTimer struct {
	clock *Manual
	at    time.Time
	c     chan time.Time
}

func (t *manualTimer) C() <-chan time.Time { return t.c }

func (t *manualTimer) Stop() bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	return t.stop()
}

func (t *manualTimer) Reset(d time.Duration) bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	was := t.stop()
	t.start(d)
	return was
}

// stop, start and fire are called with the clock's lock held.
func (t *manualTimer) stop() bool {
	select {
	case <-t.c: // fired and not looked at: a stopped timer must not deliver it later
	default:
	}
	i := slices.Index(t.clock.timers, t)
	if i < 0 {
		return false
	}
	t.clock.timers = slices.Delete(t.clock.timers, i, i+1)
	return true
}

func (t *manualTimer) start(d time.Duration) {
	t.at = t.clock.now.Add(d)
	if d <= 0 {
		t.fire(t.at)
		return
	}
	t.clock.timers = append(t.clock.timers, t)
	close(t.clock.change)
	t.clock.change = make(chan struct{})
}

func (t *manualTimer) fire(at time.Time) {
	select {
	case t.c <- at:
	default:
	}
}

var _ Clock = (*Manual)(nil)
