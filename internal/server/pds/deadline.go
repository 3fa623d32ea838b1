package pds

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/barograph/baro/internal/crashpoint"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/syntax"
)

// An owner who deactivates an account may say when it is to be deleted. A row in the order of time leads to the account, so that a start
// after that time finds it as well.

// chorePause is the longest time between two looks at what is due, should the clock of the machine jump.
const chorePause = time.Hour

// deadlineOf reads the time of deleteAfter.
func deadlineOf(text string) (time.Time, error) {
	d, err := syntax.ParseDatetime(text)
	if err != nil {
		return time.Time{}, err
	}
	return d.Time(), nil
}

// deadline is when the account is to be deleted, if it is.
func (a *account) deadline() (at time.Time, ok bool) {
	if a.DeleteAfter == "" {
		return time.Time{}, false
	}
	at, err := deadlineOf(a.DeleteAfter)
	return at, err == nil && at.UnixMicro() > 0
}

func deadlineKey(at time.Time, did syntax.DID) []byte {
	return append(binary.BigEndian.AppendUint64([]byte(rowDeadline), uint64(at.UnixMicro())), did...)
}

// wakeChores makes runChores look again at what is to be done.
func (s *Service) wakeChores() {
	select {
	case s.chores <- struct{}{}:
	default:
	}
}

// runChores does what comes due, until ctx is done: it finishes changes of identities, deletes accounts whose time has come, and forgets
// reserved keys.
func (s *Service) runChores(ctx context.Context) {
	for ctx.Err() == nil {
		left := s.finishPending(ctx)
		next, err := s.deleteDue(ctx)
		if err != nil && ctx.Err() == nil {
			s.world.Log.Error("deleting accounts whose time has come", "err", err)
			left = true // and try again soon
		}
		expiry, err := s.expireReserved(ctx)
		if err != nil && ctx.Err() == nil {
			s.world.Log.Error("forgetting reserved keys", "err", err)
			left = true
		}
		if next.IsZero() || !expiry.IsZero() && expiry.Before(next) {
			next = expiry
		}
		wait := time.Duration(-1)
		if !next.IsZero() {
			wait = min(max(next.Sub(s.world.Clock.Now()), 0), chorePause)
		}
		if left && (wait < 0 || wait > pendingEvery) {
			wait = pendingEvery
		}
		if wait < 0 {
			select {
			case <-ctx.Done():
			case <-s.chores:
			}
			continue
		}
		t := s.world.Clock.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-s.chores:
		case <-t.C():
		}
		t.Stop()
	}
}

// deleteDue deletes the accounts whose time has come, and says when the next one's is; zero if there is none.
func (s *Service) deleteDue(ctx context.Context) (next time.Time, err error) {
	type due struct {
		key []byte
		did syntax.DID
	}
	var list []due
	now := s.world.Clock.Now()
	lo := []byte(rowDeadline)
	it := s.store.Iter(lo, kv.PrefixEnd(lo))
	for ok := it.First(); ok; ok = it.Next() {
		k := it.Key()
		if len(k) < len(lo)+8 {
			return next, errors.Join(fmt.Errorf("deadline %q: %w", k, errCorrupt), it.Close())
		}
		at := time.UnixMicro(int64(binary.BigEndian.Uint64(k[len(lo):])))
		if at.After(now) {
			next = at
			break
		}
		list = append(list, due{append([]byte(nil), k...), syntax.DID(k[len(lo)+8:])})
	}
	if err := errors.Join(it.Err(), it.Close()); err != nil {
		return next, fmt.Errorf("looking for accounts to delete: %w", err)
	}
	var errs []error
	for _, d := range list {
		if ctx.Err() != nil {
			return next, ctx.Err()
		}
		if err := s.deleteOne(ctx, d.did, d.key, now); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", d.did, err))
		}
	}
	return next, errors.Join(errs...)
}

func (s *Service) deleteOne(ctx context.Context, did syntax.DID, key []byte, now time.Time) error {
	a, err := s.account(did)
	if errors.Is(err, errNoAccount) {
		return s.write(ctx, func(b kv.Batch) { b.Delete(key) })
	}
	if err != nil {
		return err
	}
	at, ok := a.deadline()
	switch {
	case !ok || at.After(now):
		return s.write(ctx, func(b kv.Batch) { b.Delete(key) }) // another time was set
	case a.Status != hostingDeactivated:
		return nil // taken down meanwhile: that decides, and afterwards the owner's wish does again
	}
	crashpoint.Hit("pds/deadline/before-delete")
	s.world.Log.Info("deleting an account as its owner wished", "did", string(did), "after", a.DeleteAfter)
	return s.removeAccountIf(ctx, a, func(now *account) bool { return now.Status == hostingDeactivated && now.DeleteAfter == a.DeleteAfter })
}
