package pds

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/barograph/baro/identity/plcdir"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// Some changes happen in two places: the PLC directory first, here second. A row says what is about to be done, before the directory is
// asked, and goes in the batch that does it here. After a crash in between, or when the directory gave no answer, the row is left, and what
// the directory says decides.

// pendingChange is a change of an identity of which one field is set.
type pendingChange struct {
	Handle syntax.Handle `json:"handle,omitempty"` // its new handle
	Key    string        `json:"key,omitempty"`    // did:key of its new signing key
	Op     string        `json:"op,omitempty"`     // the operation that changes something else
}

// pendingEvery is the time between two looks at what is pending.
const pendingEvery = time.Minute

func pendingKey(did syntax.DID) []byte { return []byte(rowPending + string(did)) }

func (s *Service) openPending() error {
	a := &s.accounts
	a.pending = map[syntax.DID]pendingChange{}
	lo := []byte(rowPending)
	it := s.store.Iter(lo, kv.PrefixEnd(lo))
	for ok := it.First(); ok; ok = it.Next() {
		var p pendingChange
		if err := json.Unmarshal(it.Value(), &p); err != nil {
			return errors.Join(fmt.Errorf("pending change %q: %w", it.Key(), errCorrupt), it.Close())
		}
		a.pending[syntax.DID(it.Key()[len(lo):])] = p
	}
	if err := errors.Join(it.Err(), it.Close()); err != nil {
		return fmt.Errorf("reading pending changes: %w", err)
	}
	return nil
}

// intend makes durable what is about to be done. The caller holds the claim rename: of the account.
func (s *Service) intend(ctx context.Context, did syntax.DID, p pendingChange) error {
	row, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := s.write(ctx, func(b kv.Batch) { b.Set(pendingKey(did), row) }); err != nil {
		return err
	}
	s.accounts.mu.Lock()
	defer s.accounts.mu.Unlock()
	s.accounts.pending[did] = p
	s.wakeChores() // which look again later, should the request not get to its end
	return nil
}

func (s *Service) dropPending(did syntax.DID) {
	s.accounts.mu.Lock()
	defer s.accounts.mu.Unlock()
	delete(s.accounts.pending, did)
}

// forgetPending takes a change back that has not happened, or has happened already.
func (s *Service) forgetPending(ctx context.Context, did syntax.DID) error {
	if err := s.write(ctx, func(b kv.Batch) { b.Delete(pendingKey(did)) }); err != nil {
		return err
	}
	s.dropPending(did)
	return nil
}

// awaited reports whether a handle may be about to belong to an account other than did.
func (s *Service) awaited(h syntax.Handle, did syntax.DID) bool {
	s.accounts.mu.Lock()
	defer s.accounts.mu.Unlock()
	for d, p := range s.accounts.pending {
		if p.Handle == h && d != did {
			return true
		}
	}
	return false
}

// changeIdentity changes an identity at the PLC directory in a way that has to be done here as well, next and in a batch that removes the
// pending row. Identities of other methods are their owners' to change.
func (s *Service) changeIdentity(ctx context.Context, did syntax.DID, p pendingChange, change func(*plc.Data) error) error {
	if did.Method() != "plc" {
		return nil
	}
	if err := s.intend(ctx, did, p); err != nil {
		return err
	}
	return s.settled(ctx, did, s.changePLC(ctx, did, change))
}

// settled looks at what became of a change at the directory. One that was refused has not happened; without an answer nobody knows.
func (s *Service) settled(ctx context.Context, did syntax.DID, err error) error {
	if err == nil {
		return nil
	}
	if refused := (*xrpc.Error)(nil); errors.As(err, &refused) || plcdir.StatusOf(err)/100 == 4 {
		if err := s.forgetPending(ctx, did); err != nil {
			return err
		}
	}
	return plcFailure(err)
}

// finishPending completes or drops what is pending, and reports whether something is left.
func (s *Service) finishPending(ctx context.Context) bool {
	s.accounts.mu.Lock()
	dids := make([]syntax.DID, 0, len(s.accounts.pending))
	for did := range s.accounts.pending {
		dids = append(dids, did)
	}
	s.accounts.mu.Unlock()
	for _, did := range dids {
		if err := s.finishOne(ctx, did); err != nil && ctx.Err() == nil {
			s.world.Log.Warn("a change of an identity is not finished yet", "did", string(did), "err", err)
		}
	}
	s.accounts.mu.Lock()
	defer s.accounts.mu.Unlock()
	return len(s.accounts.pending) > 0
}

// finishOne does here what the directory says of an identity with a pending change.
func (s *Service) finishOne(ctx context.Context, did syntax.DID) error {
	s.accounts.mu.Lock()
	p, ok := s.accounts.pending[did]
	s.accounts.mu.Unlock()
	if !ok {
		return nil
	}
	names := []string{"rename:" + string(did)}
	if p.Handle != "" {
		names = append(names, "handle:"+string(p.Handle))
	}
	release, ok := s.claim(names...)
	if !ok {
		return nil // a request is at it
	}
	defer release()
	s.accounts.mu.Lock()
	now, ok := s.accounts.pending[did]
	s.accounts.mu.Unlock()
	if !ok || now != p {
		return nil
	}
	a, err := s.account(did)
	if errors.Is(err, errNoAccount) {
		return s.forgetPending(ctx, did)
	}
	if err != nil {
		return err
	}
	last, err := s.accounts.plc.Last(ctx, did)
	if err != nil {
		if plcdir.StatusOf(err) == http.StatusNotFound {
			return s.forgetPending(ctx, did)
		}
		return err
	}
	state, ok := last.State()
	ctx = context.WithoutCancel(ctx)
	switch {
	case ok && p.Handle != "" && state.Handle() == p.Handle && a.Handle != p.Handle:
		err = s.finishRename(ctx, a, p.Handle)
	case ok && p.Key != "" && state.SigningKey() == p.Key && a.PublicKey != p.Key:
		err = s.adoptKey(ctx, a, p.Key)
	case p.Op != "" && last.CID().String() == p.Op:
		err = s.announce(ctx, a)
	default:
		return s.forgetPending(ctx, did)
	}
	if err == nil {
		s.world.Log.Info("a change of an identity was finished", "did", string(did))
	}
	return err
}

// changeKey makes a key that was reserved here the signing key of an account: in its identity, and for its repository, which it signs anew.
func (s *Service) changeKey(ctx context.Context, a *account, name string) error {
	release, ok := s.claim("rename:"+string(a.DID), "key:"+name)
	if !ok {
		return refuse(http.StatusConflict, "InvalidRequest", "the identity is being changed: try again")
	}
	defer release()
	if a.PublicKey == name {
		return nil
	}
	if _, _, err := s.reservedKey(name); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	err := s.changeIdentity(ctx, a.DID, pendingChange{Key: name}, func(d *plc.Data) error {
		d.VerificationMethods[plc.AtprotoKey] = name
		return nil
	})
	if err != nil {
		return err
	}
	return s.adoptKey(ctx, a, name)
}

// adoptKey does here what the identity says already.
func (s *Service) adoptKey(ctx context.Context, a *account, name string) error {
	key, text, err := s.reservedKey(name)
	if err != nil {
		return err
	}
	sealed := s.accounts.secrets.seal(text, "signing key of "+string(a.DID))
	err = s.changeAccount(ctx, a.DID, func(a *account) error {
		a.Key, a.PublicKey = sealed, name
		return nil
	}, accountChange{
		Identity: true, Handle: a.Handle, NewCommit: true, Sync: a.active(), Key: key,
		Ops: func(b kv.Batch) {
			b.Delete(pendingKey(a.DID))
			s.unreserve(b, name)
		},
	})
	if err == nil {
		s.dropPending(a.DID)
	}
	s.forgetIdentity(a.DID, a.Handle)
	return err
}
