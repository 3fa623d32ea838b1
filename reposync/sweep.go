package reposync

import (
	"context"
	"errors"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/syntax"
)

// sweep asks for a listing of all repositories, one that compares revisions if events are known to be missing.
func (s *Syncer) sweep(compare bool) {
	for {
		select {
		case s.sweeping <- compare:
			return
		case was := <-s.sweeping:
			compare = compare || was
		}
	}
}

// underWay is how long an event may take from the upstream's listing to here: a revision that is older and isn't known was
// missed.
const underWay = 10 * time.Minute

// sweeps lists the repositories of the upstream when asked to, and now and then.
func (s *Syncer) sweeps(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	compare, retries := false, 0
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-s.sweeping:
			compare = compare || c
		case <-timer.C:
		}
		wait := s.o.SweepEvery
		if err := s.list(ctx, compare); err != nil {
			if ctx.Err() != nil {
				return
			}
			wait = min(s.o.RetryMin<<min(retries, 12), 10*time.Minute)
			retries++
			s.o.Log.Info("listing the repositories failed", "upstream", s.o.Upstream, "wait", wait, "error", err)
		} else {
			compare, retries = false, 0
			s.stats.listed.Store(true)
		}
		if wait > 0 {
			timer.Reset(wait + time.Duration(s.o.Rand()*float64(wait)/8))
		}
	}
}

// list hands the status of each repository that the upstream lists to its worker.
func (s *Syncer) list(ctx context.Context, compare bool) error {
	p := comatproto.SyncListRepos_Params{Limit: new(int64(1000))}
	for {
		seq := s.stats.lastSeq.Load()
		page, cancel := context.WithTimeout(ctx, time.Minute)
		out, err := comatproto.SyncListRepos.Call(page, s.sched.fetch.at(s.o.Upstream), &p)
		cancel()
		if err != nil {
			return err
		}
		for i := range out.Repos {
			r := &out.Repos[i]
			did, err := syntax.ParseDID(r.Did)
			if err != nil {
				s.stats.drop("listing-did")
				continue
			}
			st := &status{did: did, seq: seq, active: r.Active == nil || *r.Active}
			if r.Status != nil {
				st.status = *r.Status
			}
			if rev, err := syntax.ParseTID(r.Rev); err == nil {
				st.rev = rev
				st.old = compare || rev.Time().Before(s.o.Now().Add(-underWay))
			}
			if err := s.give(ctx, did, st); err != nil {
				return err
			}
		}
		if out.Cursor == nil || *out.Cursor == "" {
			break
		}
		if p.Cursor != nil && *p.Cursor == *out.Cursor {
			return errors.New("the listing goes in circles")
		}
		p.Cursor = out.Cursor
	}
	// What was given is not done before the workers have seen it: a task of each comes back behind them.
	for _, w := range s.workers {
		seen := make(mark)
		select {
		case w.in <- seen:
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case <-seen:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// mark is a task that says when all tasks before it are done.
type mark chan struct{}

func (m mark) run(context.Context, *worker) error {
	close(m)
	return nil
}
