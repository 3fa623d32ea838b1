package reposync

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Status is a look at a running Syncer.
type Status struct {
	Connected bool             `json:"connected"`
	Cursor    int64            `json:"cursor"`  // stored
	LastSeq   int64            `json:"lastSeq"` // read
	Lag       time.Duration    `json:"-"`       // age of the newest commit that was taken, when it was
	Events    int64            `json:"events"`
	Verified  int64            `json:"verified"` // commits and syncs
	Stale     int64            `json:"stale"`    // commits that were known already
	Fetched   int64            `json:"fetched"`  // repositories
	Failed    int64            `json:"failed"`   // fetches
	Listed    bool             `json:"listed"`   // all repositories have been listed since the start
	Dropped   map[string]int64 `json:"dropped"`  // events by reason, and other losses
	Repos     map[string]int64 `json:"repos"`    // by state, or by status if not active
	Unstored  int64            `json:"unstored"` // changes that wait to be stored
}

// Settled says that every repository that is known, and all of the upstream's are, is as it was listed or newer.
func (s *Status) Settled() bool {
	return s.Listed && s.Cursor == s.LastSeq && s.Unstored == 0 &&
		s.Repos[Pending.String()]+s.Repos[Desynchronized.String()]+s.Repos[Resyncing.String()] == 0
}

type stats struct {
	connected, listed                        atomic.Bool
	unstored                                 atomic.Int64
	cursor, lastSeq, lag                     atomic.Int64
	events, verified, stale, fetched, failed atomic.Int64

	mu      sync.Mutex
	dropped map[string]int64
	repos   map[string]int64
}

func (s *stats) init() {
	s.dropped, s.repos = map[string]int64{}, map[string]int64{}
}

func (s *stats) drop(reason string) {
	s.mu.Lock()
	s.dropped[reason]++
	s.mu.Unlock()
}

func (s *stats) count(bucket string, n int64) {
	s.mu.Lock()
	if s.repos[bucket] += n; s.repos[bucket] == 0 {
		delete(s.repos, bucket)
	}
	s.mu.Unlock()
}

// Status returns the present figures.
func (s *Syncer) Status() Status {
	st := &s.stats
	out := Status{
		Connected: st.connected.Load(), Cursor: st.cursor.Load(), LastSeq: st.lastSeq.Load(), Events: st.events.Load(),
		Verified: st.verified.Load(), Stale: st.stale.Load(), Fetched: st.fetched.Load(), Failed: st.failed.Load(),
		Listed: st.listed.Load(),
	}
	out.Lag = time.Duration(st.lag.Load())
	st.mu.Lock()
	out.Dropped, out.Repos = maps.Clone(st.dropped), maps.Clone(st.repos)
	st.mu.Unlock()
	out.Unstored = st.unstored.Load()
	return out
}

func (s *Syncer) fail(ctx context.Context, err error) {
	if ctx.Err() == nil {
		s.cancel(err)
	}
}

// WaitSettled waits until the repositories are [Status.Settled], or ctx ends.
func (s *Syncer) WaitSettled(ctx context.Context) error {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		if st := s.Status(); st.Settled() {
			return nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
