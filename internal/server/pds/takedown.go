package pds

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/syntax"
)

// The operator can take down an account, a record or a blob, https://atproto.com/specs/account#hosting-status. An account is then off the
// network, by its hosting status, and what it said before is not replayed. A record is hidden from the methods that give single records, and a blob is not given out; neither can
// change the repository, which its owner has signed as a whole, so exports still have the record. Owner and operator see what is hidden.

// accountTakedown is why and since when an account is taken down, and what it goes back to.
type accountTakedown struct {
	Ref string    `json:"ref,omitempty"`
	At  time.Time `json:"at"`
	Was hosting   `json:"was,omitempty"`
}

// takedown is that of a record or a blob.
type takedown struct {
	Ref string    `json:"ref,omitempty"`
	CID string    `json:"cid,omitempty"` // of a record
	At  time.Time `json:"at"`
}

// takedowns are those of all records and blobs: few, and asked about with every read. The keys are those of the rows without their prefix.
type takedowns struct {
	mu sync.RWMutex
	of map[syntax.DID]map[string]takedown
}

func (t *takedowns) get(did syntax.DID, subject string) (takedown, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	v, ok := t.of[did][subject]
	return v, ok
}

// hidden reports whether a record, by its path, or a blob, by its CID, was taken down.
func (t *takedowns) hidden(did syntax.DID, subject string) bool {
	_, ok := t.get(did, subject)
	return ok
}

// any reports whether anything of an account was taken down.
func (t *takedowns) any(did syntax.DID) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.of[did]) > 0
}

func (t *takedowns) set(did syntax.DID, subject string, v *takedown) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if v == nil {
		delete(t.of[did], subject)
		if len(t.of[did]) == 0 {
			delete(t.of, did)
		}
		return
	}
	if t.of[did] == nil {
		t.of[did] = map[string]takedown{}
	}
	t.of[did][subject] = *v
}

func takedownKey(did syntax.DID, subject string) []byte {
	return []byte(rowTakedown + string(did) + "/" + subject)
}

func (s *Service) openTakedowns() error {
	s.taken.of = map[syntax.DID]map[string]takedown{}
	lo := []byte(rowTakedown)
	it := s.store.Iter(lo, kv.PrefixEnd(lo))
	for ok := it.First(); ok; ok = it.Next() {
		did, subject, ok := strings.Cut(string(it.Key()[len(lo):]), "/")
		v := new(takedown)
		if err := json.Unmarshal(it.Value(), v); err != nil || !ok {
			return errors.Join(fmt.Errorf("takedown %q: %w", it.Key(), errCorrupt), it.Close())
		}
		s.taken.set(syntax.DID(did), subject, v)
	}
	if err := errors.Join(it.Err(), it.Close()); err != nil {
		return fmt.Errorf("reading takedowns: %w", err)
	}
	return nil
}

// takeDown hides a record or a blob, or shows it again when v is nil.
func (s *Service) takeDown(ctx context.Context, did syntax.DID, subject string, v *takedown) error {
	defer s.accounts.changes.lock(string(did))()
	// The rows stay when the account is deleted: see barred.go. Nobody reads what is about to be hidden; what comes back does so when that is durable.
	if v != nil {
		s.taken.set(did, subject, v)
	}
	var row []byte
	if v != nil {
		var err error
		if row, err = json.Marshal(v); err != nil {
			return err
		}
	}
	err := s.write(ctx, func(b kv.Batch) {
		if v == nil {
			b.Delete(takedownKey(did, subject))
		} else {
			b.Set(takedownKey(did, subject), row)
		}
	})
	if err == nil && v == nil {
		s.taken.set(did, subject, nil)
	}
	return err
}

// takeDownAccount puts an account off the network, or gives it back the status that it had.
func (s *Service) takeDownAccount(ctx context.Context, did syntax.DID, applied bool, ref string) error {
	defer s.accounts.changes.lock(string(did))()
	a, err := s.account(did)
	if err != nil {
		return noAccount(err)
	}
	was := a.Status
	old := *a
	c := accountChange{Account: true, Ops: func(b kv.Batch) { a.replace(b, &old) }}
	if applied {
		t := &accountTakedown{Ref: ref, At: s.world.Clock.Now().UTC(), Was: was}
		if a.Takedown != nil {
			t.Was = a.Takedown.Was
		}
		a.Takedown, c.Status = t, hostingTakendown
	} else {
		if a.Takedown == nil {
			return nil
		}
		c.Status = a.Takedown.Was
		a.Takedown = nil
		if c.Status == hostingActive { // whoever was away meanwhile has lost the events from before
			c.Identity, c.Handle, c.Sync = true, a.Handle, true
		}
	}
	if c.Status == was {
		c.Account, c.Identity, c.Sync = false, false, false // only the reason changed
	}
	defer s.wakeChores() // it may be due for deletion
	return s.submitAccountEvents(context.WithoutCancel(ctx), did, c)
}

// hiddenBlob reports whether a blob of an account was taken down.
func (s *Service) hiddenBlob(did syntax.DID, c cid.CID) bool { return s.taken.hidden(did, c.String()) }
