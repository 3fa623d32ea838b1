// Package eventlog is the sequenced log that the servers' streams are read from. It lives in the key-value store of the
// state it tells of, so that a change and the event that announces it are one batch and one fsync.
//
// It gives the event streams of https://atproto.com/specs/event-stream their sequence numbers, their cursors and their
// backfill window. It does not know what a frame means, does not push to anybody, and keeps no reader's cursor: a reader
// pulls from whatever number it wants, and keeps its cursor with its own data.
//
//	log, err := eventlog.Open(store, eventlog.Options{Prefix: []byte("log/"), Clock: w.Clock, OnFatal: w.Fatal})
//	seq, err := log.Commit(ctx, eventlog.Tx{
//		Ops:    func(b kv.Batch) { b.Set(headKey, head) },
//		Events: []func([]byte, int64) []byte{func(dst []byte, seq int64) []byte { return ev.AppendFrame(dst, seq) }},
//	})
//	events, err := log.Read(ctx, cursor+1, 100) // waits for the first one
//	if errors.Is(err, eventlog.ErrOutdated) { cursor = log.Floor() - 1 }
//
// Sequence numbers start at Options.FirstSeq, have no gaps, and are never given twice, also not after a crash or after
// all events were trimmed. A number is only ever seen by readers when its event is on disk. When a write fails, the log
// stops for good: see [FatalError].
//
// What was said about somebody can be forgotten: see Tx.Forget. Readers find no event at such numbers then.
package eventlog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/barograph/baro/internal/crashpoint"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/internal/world"
)

// ErrOutdated matches an [*OutdatedError].
var ErrOutdated = errors.New("the sequence number is older than the log")

// ErrClosed says that the log was closed.
var ErrClosed = errors.New("the event log is closed")

// OutdatedError says that events from the wanted number on were trimmed.
type OutdatedError struct {
	From  int64 // what was asked for
	Floor int64 // the oldest number that can be read, or that will be written next
}

func (e *OutdatedError) Error() string {
	return fmt.Sprintf("event %d is older than the log, which starts at %d", e.From, e.Floor)
}

// Is makes errors.Is(err, ErrOutdated) true.
func (e *OutdatedError) Is(target error) bool { return target == ErrOutdated }

// FatalError says that the log stopped because a write failed, after which nobody can tell what is on disk. Every
// commit that waited then, and every later call, gets it.
type FatalError struct{ Err error }

func (e *FatalError) Error() string { return "the event log stopped: " + e.Err.Error() }
func (e *FatalError) Unwrap() error { return e.Err }

// Defaults of [Options].
const (
	DefaultRingBytes    = 8 << 20
	DefaultPendingBytes = 16 << 20
	DefaultReadBytes    = 2 << 20
)

// Options of a log. The zero value is a log that keeps everything.
type Options struct {
	Prefix       []byte        // of all keys of the log in the store
	Retention    time.Duration // events older than this are trimmed; 0: kept
	MaxBytes     int64         // frames beyond this many bytes are trimmed, oldest first; 0: kept
	RingBytes    int           // frames kept in memory for readers that keep up; 0: [DefaultRingBytes]; negative: none
	PendingBytes int           // Submit waits while more than this is not on disk yet; 0: [DefaultPendingBytes]
	ReadBytes    int           // one Read returns about this much at most, and always one event; 0: [DefaultReadBytes]
	FirstSeq     int64         // the first number of a new log; 0: 1
	Clock        world.Clock   // nil: the system's
	OnFatal      func(error)   // called once when the log stops for good; it is expected to end the process

	// Subject says whom the event of a frame is about; needed by Tx.Forget. It must be pure, and keep nothing of the frame.
	Subject func(frame []byte) string
}

// Event is a durable event. The frame is shared by all readers and must not be changed.
type Event struct {
	Seq   int64
	Time  time.Time // when it was submitted, to the microsecond; never before the event in front of it
	Frame []byte

	gone bool // erased; only in the ring
}

// Tx is a change of state with the events that tell of it. Either part may be empty.
type Tx struct {
	// Events encode one frame each. They get the number of their event, append the frame to dst and return it; the memory
	// belongs to the log from then on. They run in order, before Ops.
	Events []func(dst []byte, seq int64) []byte
	// Ops adds the changes of state to the batch. It must not keep the batch.
	Ops func(b kv.Batch)
	// Batch holds changes of state that were collected before; it is applied before Ops, and can be reused when Submit
	// has returned.
	Batch kv.Batch
	// Forget names subjects, as Options.Subject does. No event about them from before this transaction is read any more, from
	// the moment at which it is on disk; the frames are erased little by little by [Log.KeepTrimmed].
	Forget []string
	// Waited says that the caller is going to call Wait right away, with a context that cannot end. Wait then writes to disk
	// by itself when nobody else does, which spares two changes of goroutine. Until then, or until another transaction
	// comes along, nothing may be written.
	Waited bool
}

// Log is a sequenced log. It is safe for concurrent use.
type Log struct {
	store kv.Store
	o     Options

	// What is submitted and not on disk yet. One flusher at a time takes it all at once, so that everybody who waits shares an
	// fsync. That is the log's own goroutine, or somebody who waits.
	mu       sync.Mutex
	work     sync.Cond // there is something for the log's goroutine to do
	room     sync.Cond // a flusher took what was there
	batch    kv.Batch
	group    *group
	events   []Event
	forgets  []forget       // of what is pending
	jobs     map[string]job // what has to be erased, with what is pending
	pending  bool           // batch holds a transaction
	roused   bool           // it is for the log's goroutine to flush
	flushing bool           // somebody flushes, and owns spare
	spare    struct {
		batch  kv.Batch
		events []Event
	}
	scratch kv.Batch
	buf     []byte
	next    int64
	total   uint64 // bytes of all frames ever submitted
	last    int64  // time of the newest event, Unix microseconds
	err     error  // ErrClosed or a *FatalError: nothing can be submitted
	stopped chan struct{}

	// What is on disk.
	rmu     sync.RWMutex
	ring    ring
	head    int64
	floor   int64
	durable uint64 // bytes of all frames up to head
	base    uint64 // bytes of all frames before floor
	wake    chan struct{}
	hidden  *hidden // nil when nothing is; never changed, but replaced
	rerr    error

	trimMu sync.Mutex    // held while old events go, or are erased
	erase  chan struct{} // tells KeepTrimmed that there is something to erase
	fatal  sync.Once
	stats  struct{ groups, txs uint64 } // under rmu
}

// group is the transactions of one fsync.
type group struct {
	done chan struct{}
	txs  uint64
	err  error // set before done is closed
}

// Pending is a submitted transaction.
type Pending struct {
	g    *group
	log  *Log // set if Wait may flush
	last int64
}

// Wait returns when the transaction is on disk, with the last number given to an event up to and including it. When ctx
// ends first, its error is returned, and the transaction still takes place.
func (p *Pending) Wait(ctx context.Context) (int64, error) {
	if p.log != nil {
		p.log.push(p.g, ctx.Done() == nil)
	}
	select {
	case <-p.g.done:
	default:
		select {
		case <-p.g.done:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	if p.g.err != nil {
		return 0, p.g.err
	}
	return p.last, nil
}

// Done is closed when Wait has an answer.
func (p *Pending) Done() <-chan struct{} {
	if p.log != nil {
		p.log.push(p.g, false)
	}
	return p.g.done
}

func newGroup() *group { return &group{done: make(chan struct{})} }

func failed(err error) *Pending {
	g := newGroup()
	g.err = err
	close(g.done)
	return &Pending{g: g}
}

// Open opens the log kept under o.Prefix in the store, or starts it there. The store stays the caller's to close, after
// the log.
func Open(store kv.Store, o Options) (*Log, error) {
	if o.Clock == nil {
		o.Clock = world.System
	}
	if o.RingBytes == 0 {
		o.RingBytes = DefaultRingBytes
	}
	if o.PendingBytes <= 0 {
		o.PendingBytes = DefaultPendingBytes
	}
	if o.ReadBytes <= 0 {
		o.ReadBytes = DefaultReadBytes
	}
	if o.FirstSeq <= 0 {
		o.FirstSeq = 1
	}
	l := &Log{
		store: store, o: o,
		batch: store.NewBatch(), scratch: store.NewBatch(), group: newGroup(),
		stopped: make(chan struct{}), wake: make(chan struct{}),
		jobs: map[string]job{}, erase: make(chan struct{}, 1),
	}
	l.spare.batch = store.NewBatch()
	l.work.L, l.room.L = &l.mu, &l.mu
	if err := l.load(); err != nil {
		return nil, fmt.Errorf("opening the event log: %w", err)
	}
	go l.run()
	return l, nil
}

// Submit fixes the place of tx in the log and gives its events their numbers. It does not wait for the disk, unless more
// than Options.PendingBytes wait there already. The functions of tx run in here, in the order of the log, and must not
// call it.
func (l *Log) Submit(tx Tx) *Pending {
	if len(tx.Forget) > 0 && l.o.Subject == nil {
		panic("eventlog: Tx.Forget needs Options.Subject")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.err == nil && l.pending && l.batch.Size() > l.o.PendingBytes {
		l.rouse()
		l.room.Wait()
	}
	if l.err != nil {
		return failed(l.err)
	}
	// Nothing of the log changes before the functions of tx have all returned: one that panics leaves no trace.
	now := max(l.o.Clock.Now().UnixMicro(), l.last)
	at := len(l.events)
	commit := false
	defer func() {
		if !commit {
			clear(l.events[at:])
			l.events = l.events[:at]
		}
	}()
	for i, encode := range tx.Events {
		seq := l.next + int64(i)
		l.events = append(l.events, Event{Seq: seq, Time: time.UnixMicro(now), Frame: encode(nil, seq)})
	}
	if tx.Ops != nil {
		l.scratch.Reset()
		tx.Ops(l.scratch)
	}
	commit = true

	if tx.Batch != nil {
		l.batch.Append(tx.Batch)
	}
	if tx.Ops != nil {
		l.batch.Append(l.scratch)
	}
	l.forget(tx.Forget)
	for _, ev := range l.events[at:] {
		l.total += uint64(len(ev.Frame))
		var key [64]byte
		l.buf = appendValue(l.buf[:0], ev, l.total)
		l.batch.Set(l.eventKey(key[:0], ev.Seq), l.buf)
	}
	if n := len(tx.Events); n > 0 {
		l.next += int64(n)
		l.last = now
	}
	if cap(l.buf) > 1<<20 {
		l.buf = nil
	}
	l.group.txs++
	l.pending = true
	p := &Pending{g: l.group, last: l.next - 1}
	if tx.Waited {
		p.log = l
	} else {
		l.rouse()
	}
	return p
}

// rouse makes the log's goroutine flush what is pending. The caller holds l.mu.
func (l *Log) rouse() {
	l.roused = true
	l.work.Signal()
}

// Commit is Submit and Wait.
func (l *Log) Commit(ctx context.Context, tx Tx) (int64, error) {
	tx.Waited = ctx.Done() == nil
	return l.Submit(tx).Wait(ctx)
}

// run writes what was submitted, group after group, until the log is closed or a write fails.
func (l *Log) run() {
	defer close(l.stopped)
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case l.pending && !l.flushing && (l.roused || l.err != nil):
			l.flush()
		case !l.pending && !l.flushing && l.err != nil: // closed, and all is written
			return
		default:
			l.work.Wait()
		}
	}
}

// push sees to it that g gets written: here and now if lead is set, else by the log's goroutine. When somebody flushes
// already, that one passes it on.
func (l *Log) push(g *group, lead bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !l.pending || l.flushing || l.group != g:
	case lead:
		l.flush()
	default:
		l.rouse()
	}
}

// flush writes everything that is pending. The caller holds l.mu, which is released meanwhile.
func (l *Log) flush() {
	l.flushing = true
	batch, events, forgets, g, total := l.batch, l.events, l.forgets, l.group, l.total
	l.batch, l.events, l.forgets, l.group = l.spare.batch, l.spare.events, nil, newGroup()
	l.pending, l.roused = false, false
	if len(events) > 0 {
		var key [64]byte
		l.buf = appendNext(l.buf[:0], l.next, total, l.last)
		batch.Set(l.metaKey(key[:0], keyNext), l.buf)
	}
	l.room.Broadcast()
	l.mu.Unlock()

	crashpoint.Hit("eventlog/before-apply")
	if err := l.apply(batch); err != nil {
		l.fail(err, g)
	} else {
		crashpoint.Hit("eventlog/after-apply")
		l.publish(events, forgets, total, g.txs)
		close(g.done)
	}

	clear(events)
	if events = events[:0]; cap(events) > 4096 {
		events = nil
	}
	if batch.Size() > 1<<20 { // let go of the memory of a burst
		batch.Close()
		batch = l.store.NewBatch()
	} else {
		batch.Reset()
	}
	l.mu.Lock()
	l.spare.batch, l.spare.events = batch, events
	l.flushing = false
	switch {
	case l.err != nil:
		l.work.Signal()
	case l.pending: // who submitted that found the disk busy, and waits
		l.rouse()
	}
}

// apply makes a batch durable. A panic is a failure like others: on a goroutine that waits, such as that of an HTTP handler,
// somebody might recover from it and go on without a log.
func (l *Log) apply(batch kv.Batch) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("writing the event log: panic: %v\n%s", v, debug.Stack())
		}
	}()
	return l.store.Apply(batch, true)
}

// publish shows durable events to the readers.
func (l *Log) publish(events []Event, forgets []forget, total, txs uint64) {
	l.rmu.Lock()
	defer l.rmu.Unlock()
	l.stats.groups++
	l.stats.txs += txs
	l.hide(forgets)
	if len(events) == 0 {
		return
	}
	for _, ev := range events {
		l.ring.push(ev, l.o.RingBytes)
	}
	l.head, l.durable = events[len(events)-1].Seq, total
	close(l.wake)
	l.wake = make(chan struct{})
}

// fail stops the log for good: g and everything submitted since get the error, and so do the readers.
func (l *Log) fail(err error, g *group) {
	fe := &FatalError{err}
	l.fatal.Do(func() {
		l.mu.Lock()
		l.err = fe
		rest := l.group
		l.group = newGroup()
		l.pending = false
		l.work.Broadcast()
		l.room.Broadcast()
		l.mu.Unlock()

		l.rmu.Lock()
		l.rerr = fe
		close(l.wake)
		l.wake = make(chan struct{})
		l.rmu.Unlock()

		if l.o.OnFatal != nil {
			l.o.OnFatal(fe) // before anybody can answer a client
		}
		rest.err = fe
		close(rest.done)
	})
	if g != nil {
		g.err = fe
		close(g.done)
	}
}

// Close writes what was submitted, ends the waiting of readers and stops. It returns the error that stopped the log
// before, if one did.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.err == nil {
		l.err = ErrClosed
	}
	l.work.Broadcast()
	l.room.Broadcast()
	l.mu.Unlock()
	<-l.stopped

	l.rmu.Lock()
	first := l.rerr == nil
	if first {
		l.rerr = ErrClosed
		l.ring = ring{}
		close(l.wake)
		l.wake = make(chan struct{})
	}
	err := l.rerr
	l.rmu.Unlock()
	if first {
		l.mu.Lock()
		l.batch.Close()
		l.spare.batch.Close()
		l.scratch.Close()
		l.mu.Unlock()
	}
	if errors.Is(err, ErrClosed) {
		return nil
	}
	return err
}

// Stats are figures of a log.
type Stats struct {
	Head, Floor int64
	Bytes       uint64 // of the frames from floor to head; erased ones count until they are trimmed
	Forgetting  int    // subjects whose frames are being erased
	RingEvents  int
	RingBytes   int
	Groups, Txs uint64 // fsyncs, and transactions that shared them, since the log was opened
}

// Stats says how the log is.
func (l *Log) Stats() Stats {
	l.rmu.RLock()
	defer l.rmu.RUnlock()
	return Stats{Head: l.head, Floor: l.floor, Bytes: l.durable - l.base, Forgetting: l.hidden.len(), RingEvents: len(l.ring.events()), RingBytes: l.ring.bytes,
		Groups: l.stats.groups, Txs: l.stats.txs}
}

// Keys of the log: prefix, 'e', number of an event; prefix, 'g', subject to forget; prefix, 'm', name of a fact about the
// log.
const (
	keyEvent  = 'e'
	keyForget = 'g'
	keyMeta   = 'm'
	keyNext   = 'n' // next number, bytes of all frames so far, time of the newest event
	keyFloor  = 'f' // oldest number
)

func (l *Log) eventKey(dst []byte, seq int64) []byte {
	dst = append(append(dst, l.o.Prefix...), keyEvent)
	return kv.AppendUint64(dst, uint64(seq))
}

func (l *Log) metaKey(dst []byte, name byte) []byte {
	return append(append(dst, l.o.Prefix...), keyMeta, name)
}

// A stored event is its time, the bytes of all frames up to and including it, and the frame. The running total lets
// Trim find the event to cut at by bisection. An erased event has a mark in its time and the size of its frame in place of
// the frame, so that time and totals stay what they were.
const (
	valueHeader = 16
	erasedMark  = 1 << 63
)

type value struct {
	time   time.Time
	total  uint64
	frame  []byte
	size   uint64 // of the frame, also when it was erased
	erased bool
}

func appendValue(dst []byte, ev Event, total uint64) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(ev.Time.UnixMicro()))
	dst = binary.BigEndian.AppendUint64(dst, total)
	return append(dst, ev.Frame...)
}

func (v *value) appendErased(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(v.time.UnixMicro())|erasedMark)
	dst = binary.BigEndian.AppendUint64(dst, v.total)
	return binary.BigEndian.AppendUint64(dst, v.size)
}

func cutValue(b []byte) (v value, err error) {
	if len(b) < valueHeader {
		return v, fmt.Errorf("a stored event has %d bytes", len(b))
	}
	at := binary.BigEndian.Uint64(b)
	v = value{time: time.UnixMicro(int64(at &^ erasedMark)), total: binary.BigEndian.Uint64(b[8:]), frame: b[valueHeader:]}
	v.size = uint64(len(v.frame))
	if v.erased = at&erasedMark != 0; v.erased {
		if len(v.frame) != 8 {
			return v, fmt.Errorf("a stored event that was erased has %d bytes", len(b))
		}
		v.size, v.frame = binary.BigEndian.Uint64(v.frame), nil
	}
	return v, nil
}

func appendNext(dst []byte, next int64, total uint64, last int64) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(next))
	dst = binary.BigEndian.AppendUint64(dst, total)
	return binary.BigEndian.AppendUint64(dst, uint64(last))
}

// load reads where the log stood.
func (l *Log) load() error {
	l.next, l.floor = l.o.FirstSeq, 0
	switch v, err := l.store.Get(l.metaKey(nil, keyNext)); {
	case err == nil && len(v) == 24:
		l.next = int64(binary.BigEndian.Uint64(v))
		l.total = binary.BigEndian.Uint64(v[8:])
		l.last = int64(binary.BigEndian.Uint64(v[16:]))
	case err == nil:
		return fmt.Errorf("the stored next number has %d bytes", len(v))
	case !errors.Is(err, kv.ErrNotFound):
		return err
	}
	switch v, err := l.store.Get(l.metaKey(nil, keyFloor)); {
	case err == nil && len(v) == 8:
		l.floor = int64(binary.BigEndian.Uint64(v))
	case err == nil:
		return fmt.Errorf("the stored floor has %d bytes", len(v))
	case !errors.Is(err, kv.ErrNotFound):
		return err
	}
	it := l.store.Iter(l.eventKey(nil, l.floor), kv.PrefixEnd(append(append([]byte(nil), l.o.Prefix...), keyEvent)))
	defer it.Close()
	first, newest := l.next, l.next-1
	if it.First() {
		first = int64(binary.BigEndian.Uint64(it.Key()[len(it.Key())-8:]))
	}
	if it.Last() {
		newest = int64(binary.BigEndian.Uint64(it.Key()[len(it.Key())-8:]))
	}
	if err := it.Err(); err != nil {
		return err
	}
	if newest != l.next-1 {
		// The next number is written in every batch that holds events: they can only disagree when the store is damaged.
		return fmt.Errorf("the newest event is %d, but the next number is %d", newest, l.next)
	}
	l.floor = first
	l.head, l.durable, l.base = l.next-1, l.total, l.total
	if err := l.loadJobs(); err != nil {
		return err
	}
	if l.floor <= l.head {
		var err error
		if _, l.base, err = l.place(l.floor); err != nil {
			return err
		}
	}
	return nil
}
