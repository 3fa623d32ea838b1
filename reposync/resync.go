package reposync

import (
	"bytes"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
)

// scheduler begins fetches when they are due.
type scheduler struct {
	s     *Syncer
	fetch *fetcher

	mu       sync.Mutex
	heap     dueHeap
	at       map[syntax.DID]*due
	overflow bool // some were not taken in: the sink has to be asked
	jobs     int
	asks     []question
	kick     chan struct{}
	wg       sync.WaitGroup
}

type due struct {
	did   syntax.DID
	at    time.Time
	index int
}

type question struct {
	did syntax.DID
	seq int64
}

const (
	maxScheduled = 200_000
	maxAsks      = 1000
)

func newScheduler(s *Syncer) *scheduler {
	return &scheduler{s: s, at: map[syntax.DID]*due{}, kick: make(chan struct{}, 1), fetch: newFetcher(&s.o)}
}

// add schedules a fetch, or moves one that is scheduled.
func (q *scheduler) add(did syntax.DID, at time.Time) {
	q.mu.Lock()
	if d := q.at[did]; d != nil {
		d.at = at
		heap.Fix(&q.heap, d.index)
	} else if len(q.heap) >= maxScheduled {
		q.overflow = true
	} else {
		d = &due{did: did, at: at}
		q.at[did] = d
		heap.Push(&q.heap, d)
	}
	q.mu.Unlock()
	q.wake()
}

// ask has the upstream asked for the status of an account. Seq is the newest event that told of it.
func (q *scheduler) ask(did syntax.DID, seq int64) {
	q.mu.Lock()
	if len(q.asks) < maxAsks {
		q.asks = append(q.asks, question{did, seq})
	}
	q.mu.Unlock()
	q.wake()
}

func (q *scheduler) wake() {
	select {
	case q.kick <- struct{}{}:
	default:
	}
}

// maxJobs bounds the fetches that have begun, most of which wait for their host.
func (q *scheduler) maxJobs() int { return 16 * q.s.o.Fetches }

func (q *scheduler) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wait := time.Hour
		q.mu.Lock()
		for ctx.Err() == nil && len(q.heap) > 0 && q.jobs < q.maxJobs() {
			d := q.heap[0]
			if wait = d.at.Sub(q.s.o.Now()); wait > 0 {
				break
			}
			heap.Pop(&q.heap)
			delete(q.at, d.did)
			q.jobs++
			q.wg.Go(func() {
				q.job(ctx, d.did)
				q.mu.Lock()
				q.jobs--
				q.mu.Unlock()
				q.wake()
			})
		}
		asks := q.asks
		q.asks = nil
		refill := q.overflow && len(q.heap) < maxScheduled/2
		if refill {
			q.overflow = false
		}
		q.mu.Unlock()
		if len(asks) > 0 {
			q.wg.Go(func() { q.answer(ctx, asks) })
		}
		if refill {
			if err := q.refill(); err != nil {
				q.s.fail(ctx, err)
				return
			}
			continue
		}
		timer.Reset(min(max(wait, time.Millisecond), time.Minute)) // clocks jump: look at least once a minute
		select {
		case <-ctx.Done():
			return
		case <-q.kick:
		case <-timer.C:
		}
	}
}

func (q *scheduler) wait() { q.wg.Wait() }

// refill takes in what had no room before.
func (q *scheduler) refill() error {
	_, repos, err := q.s.sink.Load()
	if err != nil {
		return fmt.Errorf("looking for repositories to fetch: %w", err)
	}
	for r, err := range repos {
		if err != nil {
			return fmt.Errorf("looking for repositories to fetch: %w", err)
		}
		if r.wantsFetch() {
			q.add(r.DID, r.Due)
		}
	}
	return nil
}

// answer asks the upstream for the status of accounts, one after the other.
func (q *scheduler) answer(ctx context.Context, asks []question) {
	for _, a := range asks {
		out, err := comatproto.SyncGetRepoStatus.Call(ctx, q.fetch.at(q.s.o.Upstream), &comatproto.SyncGetRepoStatus_Params{Did: string(a.did)})
		if err != nil {
			q.s.o.Log.Debug("asking for a repository's status failed", "did", a.did, "error", err)
			continue
		}
		st := &status{did: a.did, seq: a.seq, active: out.Active}
		if out.Status != nil {
			st.status = *out.Status
		}
		if q.s.give(ctx, a.did, st) != nil {
			return
		}
	}
}

// stoppedError says that a fetch was stopped from this side, for which no host is to blame.
type stoppedError struct{ err error }

func (e *stoppedError) Error() string { return e.err.Error() }
func (e *stoppedError) Unwrap() error { return e.err }

var errOverrun = &stoppedError{errors.New("the repository changed its status during the fetch")}

// errOld says that a host gave a revision from before what is known.
var errOld = errors.New("the host gave an old revision")

// job fetches one repository, if that is still wanted.
func (q *scheduler) job(ctx context.Context, did syntax.DID) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	started := make(chan granted, 1)
	if q.s.give(ctx, did, &claim{did: did, cancel: cancel, started: started}) != nil {
		return
	}
	var g granted
	select {
	case g = <-started:
	case <-q.s.ctx.Done():
	}
	if !g.ok {
		return
	}
	seq := g.repo.Seq
	last := &part{did: did, job: g.job, last: true}
	err := q.resync(ctx, g, last)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("the fetch took more than %s: %w", q.s.o.FetchTimeout, err)
		}
		last.err = err
		var busy errBusy
		if errors.As(err, &busy) {
			last.after = busy.after
		} else if permanent(err) {
			last.after = q.s.o.RetryMax
		}
		if why, ok := hosting(err); ok {
			last.gone = &status{did: did, seq: seq, status: why}
		}
	}
	_ = q.s.give(q.s.ctx, did, last) // an error: Run has ended
}

// resync gets the repository and delivers what it differs in from the stored records, all but the last part.
func (q *scheduler) resync(ctx context.Context, g granted, last *part) error {
	read := func(r *repo.Reader) error {
		c := r.Commit()
		if g.repo.Rev != "" && c.Rev < g.repo.Rev {
			return fmt.Errorf("%w: %s, and the copy is of %s", errOld, c.Rev, g.repo.Rev)
		}
		if g.repo.Want != "" && c.Rev < g.repo.Want {
			return fmt.Errorf("%w: %s, and there is %s", errOld, c.Rev, g.repo.Want)
		}
		ops, err := q.diff(ctx, g, r)
		if err != nil {
			return err
		}
		last.ops, last.state = ops, r.State()
		return nil
	}
	return q.fetch.fetch(ctx, g.repo.DID, false, read)
}

// diff compares a repository with the stored records as both come in order. It delivers what has grown too large to be kept.
func (q *scheduler) diff(ctx context.Context, g granted, r *repo.Reader) ([]Op, error) {
	next, stop := iter.Pull2(q.s.sink.Records(g.repo.DID))
	defer stop()
	var ops []Op
	size := 0
	add := func(op Op) error {
		ops = append(ops, op)
		if size += len(op.Data) + len(op.Path) + 100; size < q.s.o.MaxChange {
			return nil
		}
		applied := make(chan bool, 1)
		if err := q.s.give(ctx, g.repo.DID, &part{did: g.repo.DID, job: g.job, ops: ops, applied: applied}); err != nil {
			return &stoppedError{err}
		}
		ops, size = nil, 0
		select {
		case ok := <-applied:
			if !ok {
				return errOverrun
			}
			return nil
		case <-ctx.Done():
			return &stoppedError{ctx.Err()}
		}
	}
	old, err, more := next()
	for rec, rerr := range r.Records() {
		if rerr != nil {
			return nil, rerr
		}
		for more && err == nil && old.Path < string(rec.Path) {
			if err := add(Op{Action: repo.ActionDelete, Path: old.Path}); err != nil {
				return nil, err
			}
			old, err, more = next()
		}
		if err != nil {
			return nil, &stoppedError{fmt.Errorf("reading the stored records: %w", err)}
		}
		op := Op{Action: repo.ActionCreate, CID: rec.CID}
		if more && old.Path == string(rec.Path) {
			same := old.CID == rec.CID
			old, err, more = next()
			if same {
				continue
			}
			op.Action = repo.ActionUpdate
		}
		op.Path, op.Data = string(rec.Path), bytes.Clone(rec.Data)
		if err := add(op); err != nil {
			return nil, err
		}
	}
	for ; more && err == nil; old, err, more = next() {
		if err := add(Op{Action: repo.ActionDelete, Path: old.Path}); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, &stoppedError{fmt.Errorf("reading the stored records: %w", err)}
	}
	return ops, nil
}

// dueHeap is a heap of what is due first.
type dueHeap []*due

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *dueHeap) Push(v any) {
	d := v.(*due)
	d.index = len(*h)
	*h = append(*h, d)
}
func (h *dueHeap) Pop() any {
	old := *h
	d := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return d
}
