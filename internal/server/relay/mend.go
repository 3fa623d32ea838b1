package relay

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// A relay keeps no records, so all that it needs to follow an account again is its newest signed commit. It fetches that
// one block from the account's host and says #sync to its own subscribers, who may need the whole repository.
const (
	mendEvery = 15 * time.Second // least time between two attempts for one account
	mendMost  = 8                // attempts under way at once
)

// mend fetches the newest commit of an account, unless that was tried a moment ago. The result comes back to the worker
// as a task.
func (w *worker) mend(t task, a *cached) {
	s := w.s
	now := s.w.Clock.Now()
	if a.mending || now.Before(a.mendAfter) || t.mend {
		return
	}
	if s.resyncing.Add(1) > mendMost {
		s.resyncing.Add(-1)
		return // the next event of the account tries again
	}
	a.hasty = a.hasty && a.mendAfter.IsZero()
	a.mending, a.mendAfter = true, now.Add(mendEvery)
	s.wg.Go(func() {
		defer s.resyncing.Add(-1)
		result := task{host: t.host, did: t.did, mend: true}
		m, err := s.newest(s.ctx, t.host, t.did)
		if err == nil {
			result.msg = m
			s.lookUp(s.ctx, &result)
		} else {
			s.stats.drop("mend-fetch")
			s.w.Log.Debug("fetching the newest commit of a broken account", "did", t.did, "err", err)
		}
		select {
		case w.in <- result:
		case <-s.ctx.Done():
		}
	})
}

func (s *Service) client(h *host) *xrpc.Client {
	h.mu.Lock()
	defer h.mu.Unlock()
	return &xrpc.Client{Host: h.row.Origin, HTTP: s.http}
}

// newest fetches the newest commit of an account as a #sync message. Nothing of it is verified yet. An account that commits
// between the two questions has another newest commit then, so it is asked again.
func (s *Service) newest(ctx context.Context, h *host, did syntax.DID) (m *stream.Sync, err error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for range 3 {
		if m, err = s.newestOnce(ctx, s.client(h), did); err == nil {
			return m, nil
		}
	}
	return nil, err
}

func (s *Service) newestOnce(ctx context.Context, c *xrpc.Client, did syntax.DID) (*stream.Sync, error) {
	latest, err := comatproto.SyncGetLatestCommit.Call(ctx, c, &comatproto.SyncGetLatestCommit_Params{Did: string(did)})
	if err != nil {
		return nil, err
	}
	body, err := comatproto.SyncGetBlocks.Call(ctx, c, &comatproto.SyncGetBlocks_Params{Did: string(did), Cids: []string{latest.Cid}})
	if err != nil {
		return nil, err
	}
	defer body.Body.Close()
	b, err := io.ReadAll(io.LimitReader(body.Body, repo.MaxSyncBlocks+1))
	if err != nil {
		return nil, err
	}
	want, err := cid.Parse(latest.Cid)
	if err != nil {
		return nil, err
	}
	_, blocks, err := car.Parse(b, car.Options{})
	if err != nil {
		return nil, err
	}
	for block, err := range blocks {
		if err != nil {
			return nil, err
		}
		if block.CID == want {
			return &stream.Sync{
				DID: string(did), Rev: latest.Rev, Time: string(syntax.NewDatetime(s.w.Clock.Now())),
				Blocks: car.AppendBlock(car.AppendHeader(nil, want), want, block.Data),
			}, nil
		}
	}
	return nil, fmt.Errorf("the host did not send the block of its newest commit %s", want)
}

// Bounds of asking hosts about accounts that they called inactive and that commit.
const (
	recheckEvery = 5 * time.Minute // for one account
	recheckMost  = 4               // questions under way at once, for one host
	recheckWait  = 5 * time.Second
)

// recheck asks the host whether an account that it called inactive and that commits is active after all: the word of a host
// about its accounts goes hop by hop, and a lost #account must not silence one for ever. The answer comes back to the worker
// as a task. What the account says meanwhile is dropped, and mended if it was active.
func (w *worker) recheck(t task, a *cached) {
	s, h := w.s, t.host
	now := s.w.Clock.Now()
	if a.asking || t.mend || now.Sub(a.rechecked) < recheckEvery {
		return
	}
	h.mu.Lock()
	free := h.asking < recheckMost
	if free {
		h.asking++
	}
	h.mu.Unlock()
	if !free {
		return // the next commit asks again
	}
	a.asking, a.rechecked = true, now
	said := a.said
	s.wg.Go(func() {
		result := task{host: h, did: t.did, asked: true, said: said}
		if result.alive = s.askActive(s.ctx, h, t.did); result.alive {
			s.lookUp(s.ctx, &result)
		}
		h.mu.Lock()
		h.asking--
		h.mu.Unlock()
		select {
		case w.in <- result:
		case <-s.ctx.Done():
		}
	})
}

// answered takes the answer to recheck.
func (w *worker) answered(t task, a *cached) {
	a.asking = false
	if !t.alive || a.status == "" || a.takedown || a.said != t.said || w.s.ctx.Err() != nil {
		return // it is inactive, or the host's stream has said something newer
	}
	if _, reason, err := w.authorize(t, a); reason != "" {
		w.s.stats.drop("recheck-" + reason)
		w.s.w.Log.Debug("an inactive account that commits", "did", t.did, "reason", reason, "err", err)
		return
	}
	next := a.account
	next.host, next.status, next.desync = t.host.name, "", true // what it said in between was dropped
	w.pass(t, a, next, encode(&stream.Account{DID: string(t.did), Time: w.now(), Active: true}))
	w.mend(t, a)
}

// askActive asks a host whether an account is active.
func (s *Service) askActive(ctx context.Context, h *host, did syntax.DID) bool {
	ctx, cancel := context.WithTimeout(ctx, recheckWait)
	defer cancel()
	st, err := comatproto.SyncGetRepoStatus.Call(ctx, s.client(h), &comatproto.SyncGetRepoStatus_Params{Did: string(did)})
	return err == nil && st.Active
}

// Bounds of what waits for keys.
const (
	waitMost  = 64       // events of one account
	waitBytes = 16 << 20 // of frames of one host
)

// refresh fetches the account's document again, since its key may have changed. Until that is done t and what the account
// says next wait; the other accounts of the worker don't.
func (w *worker) refresh(t task, a *cached) {
	s := w.s
	w.hold(t, a)
	s.wg.Go(func() {
		result := task{host: t.host, did: t.did, fresh: true}
		if doc, fresh, err := s.dir.Refresh(s.ctx, t.did); err == nil && fresh {
			result.doc = doc
		}
		select {
		case w.in <- result:
		case <-s.ctx.Done():
		}
	})
}

func (w *worker) hold(t task, a *cached) {
	a.waiting = append(a.waiting, t)
	t.host.mu.Lock()
	t.host.waiting += len(t.frame.Raw)
	t.host.mu.Unlock()
}

// wait puts an event behind those that wait, if there is room.
func (w *worker) wait(t task, a *cached) bool {
	t.host.mu.Lock()
	full := t.host.waiting+len(t.frame.Raw) > waitBytes
	t.host.mu.Unlock()
	if !t.mend && (full || len(a.waiting) >= waitMost) {
		return false
	}
	w.hold(t, a)
	return true
}

// goOn deals with what has waited for the document of t, which is nil if there is none newer.
func (w *worker) goOn(t task, a *cached) {
	waiting := a.waiting
	a.waiting = nil
	for i, next := range waiting {
		next.host.mu.Lock()
		next.host.waiting -= len(next.frame.Raw)
		next.host.mu.Unlock()
		next.fresh = i == 0
		if t.doc != nil {
			next.doc, next.docErr = t.doc, nil
		}
		w.handle(next)
	}
	if a.overflow && len(a.waiting) == 0 {
		a.overflow = false
		w.broken(t, a)
	}
}
