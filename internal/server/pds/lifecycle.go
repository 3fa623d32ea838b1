package pds

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// checkAccountStatus is com.atproto.server.checkAccountStatus: how far a migration has come.
func (s *Service) checkAccountStatus(ctx context.Context, r *xrpc.Request, _ *xrpc.None) (*comatproto.ServerCheckAccountStatus_Output, error) {
	info, err := s.requireAuth(r.Request, scopeAccess, scopeTakendown)
	if err != nil {
		return nil, err
	}
	snap := s.store.Snapshot()
	defer snap.Close()
	head, err := loadHead(snap, info.DID)
	if err != nil {
		return nil, err
	}
	if head == nil {
		return nil, answer(errRepoNotFound)
	}
	out := &comatproto.ServerCheckAccountStatus_Output{
		Activated: head.Status == hostingActive, ValidDid: s.checkIdentity(ctx, info.Account) == nil,
		RepoCommit: head.Commit.String(), RepoRev: string(head.Rev),
	}
	if out.IndexedRecords, out.RepoBlocks, err = countRows(snap, head.Gen); err != nil {
		return nil, err
	}
	if out.ExpectedBlobs, out.ImportedBlobs, err = s.countBlobRefs(snap, head); err != nil {
		return nil, err
	}
	prefs, err := s.preferences(info.DID)
	out.PrivateStateValues = int64(len(prefs))
	return out, err
}

// checkIdentity says why an account's identity doesn't let it be active here; nil when it does.
func (s *Service) checkIdentity(ctx context.Context, a *account) error {
	bad := func(format string, args ...any) error {
		return refuse(http.StatusBadRequest, "InvalidRequest", format, args...)
	}
	if a.DID.Method() == "plc" {
		last, err := s.accounts.plc.Last(ctx, a.DID)
		if err != nil {
			return plcFailure(err)
		}
		state, ok := last.State()
		switch {
		case !ok:
			return bad("the identity has ended")
		case trimURL(state.PDS()) != s.cfg.PublicURL || state.Services[plc.AtprotoPDS].Type != plc.AtprotoPDSType:
			return bad("the DID document names another PDS")
		case state.SigningKey() != a.PublicKey:
			return bad("the DID document has another signing key")
		}
		return nil
	}
	s.forgetIdentity(a.DID)
	doc, err := s.resolveDocument(ctx, a.DID, false)
	if err != nil {
		return bad("the DID document can't be resolved")
	}
	key := doc.SigningKey
	switch {
	case doc.PDS != s.cfg.PublicURL:
		return bad("the DID document names another PDS")
	case key == nil || key.DIDKey() != a.PublicKey:
		return bad("the DID document has another signing key")
	}
	return nil
}

// activateAccount is com.atproto.server.activateAccount. An account that comes to life here for the first time gets a commit of its own, with a
// higher revision than any it brought, signed by its key here.
func (s *Service) activateAccount(ctx context.Context, r *xrpc.Request, _ *xrpc.None) (*xrpc.None, error) {
	info, err := s.requireAuth(r.Request, scopeAccess)
	if err != nil {
		return nil, err
	}
	return nil, s.activate(ctx, info.Account)
}

func (s *Service) activate(ctx context.Context, a *account) error {
	if a.active() {
		return nil
	}
	if a.Status != hostingDeactivated {
		return refuse(http.StatusBadRequest, "InvalidRequest", "the account is %s", string(a.Status))
	}
	if err := s.checkIdentity(ctx, a); err != nil {
		return err
	}
	first := !a.Activated
	return s.changeAccount(ctx, a.DID, func(a *account) error {
		a.Activated, a.DeleteAfter, a.Deactivated = true, "", time.Time{}
		return nil
	}, accountChange{Identity: true, Handle: a.Handle, Account: true, Status: hostingActive, Sync: true, NewCommit: first, KeyChanged: first})
}

// deactivateAccount is com.atproto.server.deactivateAccount. deleteAfter is acted on by deadline.go.
func (s *Service) deactivateAccount(ctx context.Context, r *xrpc.Request, in *comatproto.ServerDeactivateAccount_Input) (*xrpc.None, error) {
	info, err := s.requireAuth(r.Request, scopeAccess)
	if err != nil {
		return nil, err
	}
	if in.DeleteAfter != nil {
		at, err := deadlineOf(*in.DeleteAfter)
		if err != nil {
			return nil, invalid("deleteAfter: want a datetime")
		}
		if !at.After(s.world.Clock.Now()) {
			return nil, invalid("deleteAfter: that time has passed; deleteAccount deletes an account at once")
		}
	}
	deleteAfter := value(in.DeleteAfter)
	return nil, s.deactivate(ctx, info.DID, &deleteAfter)
}

// deactivate deactivates an account, or sees to it that one that is taken down is deactivated when it comes back. With a nil deleteAfter, what
// its owner has wished stays.
func (s *Service) deactivate(ctx context.Context, did syntax.DID, deleteAfter *string) error {
	is, err := s.account(did)
	if err != nil {
		return noAccount(err)
	}
	defer s.wakeChores()
	return s.changeAccount(ctx, did, func(a *account) error {
		if a.active() != is.active() {
			return refuse(http.StatusConflict, "InvalidRequest", "the account is being changed: try again")
		}
		if a.Takedown != nil {
			a.Takedown.Was = hostingDeactivated
		}
		if deleteAfter != nil {
			a.DeleteAfter = *deleteAfter
		}
		if a.Deactivated.IsZero() {
			a.Deactivated = s.world.Clock.Now().UTC()
		}
		return nil
	}, accountChange{Account: is.active(), Status: hostingDeactivated})
}

// changeAccount edits an account's row in the same batch as a change of its status and the rows of c. One change of an account happens at a
// time.
func (s *Service) changeAccount(ctx context.Context, did syntax.DID, edit func(*account) error, c accountChange) error {
	defer s.accounts.changes.lock(string(did))()
	a, err := s.account(did)
	if err != nil { // it may have been deleted since the request was authenticated
		return noAccount(err)
	}
	if c.Account && a.Status != hostingActive && a.Status != hostingDeactivated { // taken down since then: not the owner's to change
		return refuse(http.StatusBadRequest, "InvalidRequest", "the account is %s", string(a.Status))
	}
	old := *a
	if err := edit(a); err != nil {
		return err
	}
	more := c.Ops
	c.Ops = func(b kv.Batch) {
		a.replace(b, &old)
		if more != nil {
			more(b)
		}
	}
	return s.submitAccountEvents(context.WithoutCancel(ctx), did, c)
}

// requestAccountDelete is com.atproto.server.requestAccountDelete.
func (s *Service) requestAccountDelete(ctx context.Context, r *xrpc.Request, _ *xrpc.None) (*xrpc.None, error) {
	info, err := s.requireAuth(r.Request, scopeAccess, scopeTakendown)
	if err != nil {
		return nil, err
	}
	return nil, s.mailToken(ctx, r, info.Account, tokenDelete)
}

// deleteAccount is com.atproto.server.deleteAccount: with the password and the token that was sent.
func (s *Service) deleteAccount(ctx context.Context, r *xrpc.Request, in *comatproto.ServerDeleteAccount_Input) (*xrpc.None, error) {
	giveBack, err := s.guess(r, in.Did) // the same tries as those of signing in
	if err != nil {
		return nil, err
	}
	hash := ""
	a, err := s.account(syntax.DID(in.Did))
	if err == nil {
		hash = a.Password
	} else if !errors.Is(err, errNoAccount) {
		return nil, err
	}
	ok, err := s.accounts.passwords.verify(ctx, hash, in.Password)
	if ok || err != nil {
		giveBack()
	}
	if err != nil {
		return nil, passwordFailure(err)
	}
	if !ok {
		return nil, refuse(http.StatusUnauthorized, "AuthenticationRequired", "wrong account or password")
	}
	release, err := s.useToken(ctx, a, tokenDelete, in.Token)
	if err != nil {
		return nil, err
	}
	defer release()
	return nil, s.removeAccount(ctx, a)
}

// noAccount is the answer to a request that is about an account that isn't here.
func noAccount(err error) error {
	if errors.Is(err, errNoAccount) {
		return refuse(http.StatusForbidden, "AccountNotFound", "the account is not hosted here")
	}
	return err
}

// removeAccount deletes an account with everything it has. Its repository's head stays, so that the hosting status can still be asked for.
func (s *Service) removeAccount(ctx context.Context, a *account) error {
	return s.removeAccountIf(ctx, a, func(*account) bool { return true })
}

// removeAccountIf is removeAccount for an account that is still as it has to be.
func (s *Service) removeAccountIf(ctx context.Context, a *account, still func(*account) bool) error {
	release, ok := s.claim("rename:"+string(a.DID), "handle:"+string(a.Handle))
	if !ok {
		return refuse(http.StatusConflict, "InvalidRequest", "the account is being changed: try again")
	}
	defer release()
	defer s.accounts.changes.lock(string(a.DID))()
	a, err := s.account(a.DID)
	if errors.Is(err, errNoAccount) {
		return nil
	}
	if err != nil {
		return err
	}
	if !still(a) {
		return nil
	}
	r, err := s.acquire(a.DID)
	if err != nil {
		return err
	}
	f, err := s.submitRemoval(r, a)
	s.release(r)
	if err != nil {
		return err
	}
	if _, err = s.wait(r, f); err == nil {
		s.dropPending(a.DID)
	}
	return err
}

func (s *Service) submitRemoval(r *openRepo, a *account) (*inflight, error) {
	if err := r.drain(); err != nil {
		return nil, err
	}
	head := r.head
	var blobs []cid.CID
	lo, hi := genRange(tableBlob, head.account)
	it := s.store.Iter(lo, hi)
	for ok := it.First(); ok; ok = it.Next() {
		var c cid.CID
		copy(c[:], it.Key()[len(lo):])
		blobs = append(blobs, c)
	}
	if err := errors.Join(it.Err(), it.Close()); err != nil {
		return nil, err
	}
	codes, err := s.ownInvites(a.DID)
	if err != nil {
		return nil, err
	}
	var bar *barred
	if head.Status == hostingTakendown || head.Status == hostingSuspended {
		bar = s.bar(a)
		s.world.Log.Info("an account that is taken down is deleted: its DID, handle and e-mail address stay barred", "did", string(a.DID),
			"handle", string(a.Handle), "since", bar.takenAt())
	}
	head.Status = hostingDeleted
	f := s.submit(r, func(b kv.Batch) {
		a.erase(b)
		if bar != nil {
			bar.put(b, a.DID)
		}
		for _, i := range codes {
			i.Disabled = true
			i.put(b)
		}
		deleteGeneration(b, head.Gen)
		b.DeleteRange(lo, hi)
		for _, c := range blobs {
			b.Set(garbageKey(head.account, c), nil) // the files go after the batch
		}
		b.Set(idKey(tableHead, head.account), head.encode())
	}, []event{s.accountEvent(a.DID, hostingDeleted)}, nil)
	r.head = head
	r.forget()
	return f, nil
}
