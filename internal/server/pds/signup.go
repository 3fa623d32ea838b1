package pds

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/internal/crashpoint"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/internal/mailer"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// createAccount is com.atproto.server.createAccount in its three forms: a new identity that this server makes, a new identity whose genesis
// the caller signed (plcOp), and an identity that moves here (did, with a token signed by its key); that one starts deactivated and
// silent.
//
// The identity is registered with the PLC directory before the account is written, because an account without a resolvable DID is of no
// use to anyone. A crash in between leaves an identity that nobody knows of and that holds nothing; the handle stays free, and trying
// again makes a new identity. Account, repository, invite use, session and events are then one batch.
func (s *Service) createAccount(ctx context.Context, r *xrpc.Request, in *comatproto.ServerCreateAccount_Input) (*comatproto.ServerCreateAccount_Output, error) {
	if err := s.limit(r, "createAccount", ""); err != nil {
		return nil, err
	}
	n, err := s.checkSignUp(ctx, r.Request, in)
	if err != nil {
		return nil, err
	}
	names := []string{"handle:" + string(n.Handle)}
	if n.Email != "" {
		names = append(names, "email:"+normalizeEmail(n.Email))
	}
	if n.DID != "" {
		names = append(names, "did:"+string(n.DID))
	}
	release, ok := s.claim(names...)
	if !ok {
		return nil, refuse(http.StatusBadRequest, "HandleNotAvailable", "the handle %s is being taken by somebody else", n.Handle)
	}
	defer release()
	if err := s.checkFree(n); err != nil {
		return nil, err
	}
	if s.cfg.InviteRequired {
		done, err := s.holdInvite(n.Invite)
		if errors.Is(err, errInvite) {
			return nil, refuse(http.StatusBadRequest, "InvalidInviteCode", "the invite code is not usable")
		}
		if err != nil {
			return nil, err
		}
		used := false
		defer func() { done(used) }()
		out, err := s.signUp(ctx, n)
		used = err == nil
		return out, err
	}
	n.Invite = ""
	return s.signUp(ctx, n)
}

// newAccount is a sign-up on its way.
type newAccount struct {
	account
	password string
	recovery string
	genesis  *plc.Operation // signed by the caller, or nil
	moving   bool
	key      *keys.PrivateKey
	reserved string // did:key of the reservation that key comes from
}

// checkSignUp checks everything that can be told from the request alone, and from where foreign names point to.
func (s *Service) checkSignUp(ctx context.Context, r *http.Request, in *comatproto.ServerCreateAccount_Input) (*newAccount, error) {
	bad := func(name, why string) (*newAccount, error) {
		return nil, refuse(http.StatusBadRequest, name, "%s", why)
	}
	n := &newAccount{recovery: value(in.RecoveryKey), password: value(in.Password)}
	n.Email, n.Invite = strings.TrimSpace(value(in.Email)), strings.TrimSpace(value(in.InviteCode))

	handle, own, err := s.checkHandle(in.Handle, false)
	if err != nil {
		return nil, err
	}
	n.Handle = handle
	if err := checkPassword(n.password); err != nil {
		return nil, err
	}
	switch {
	case n.Email != "" && !mailer.ValidAddress(n.Email):
		return bad("InvalidRequest", "the e-mail address is not valid")
	case s.cfg.InviteRequired && n.Invite == "":
		return bad("InvalidInviteCode", "an invite code is needed")
	}
	if n.recovery != "" {
		if _, err := keys.ParseDIDKey(n.recovery); err != nil {
			return bad("InvalidRequest", "the recovery key is not a did:key")
		}
	}
	if in.PlcOp != nil {
		if err := s.checkGenesis(n, in); err != nil {
			return nil, err
		}
	} else if did := value(in.Did); did != "" {
		// The header is looked at only here: a browser that is still signed in to another account may send its token with a sign-up.
		caller, err := s.requireServiceAuth(r, methodCreateAccount)
		if err != nil {
			return nil, err
		}
		if string(caller) != did {
			return nil, refuse(http.StatusUnauthorized, "AuthenticationRequired", "the token is not from %s", did)
		}
		n.DID, n.moving = caller, true
	}
	if !own {
		if !n.moving {
			return bad("UnsupportedDomain", "handles of new accounts end in "+strings.Join(s.cfg.HandleDomains, " or "))
		}
		if err := s.confirmHandle(ctx, handle, n.DID); err != nil {
			return nil, err
		}
	}
	return n, s.chooseKey(n)
}

// checkGenesis reads a genesis operation that the caller signed. It has to make this server able to host the identity: its rotation key, its
// endpoint, the handle asked for, and a signing key that was reserved here.
func (s *Service) checkGenesis(n *newAccount, in *comatproto.ServerCreateAccount_Input) error {
	bad := func(why string) error { return refuse(http.StatusBadRequest, "IncompatibleDidDoc", "plcOp: %s", why) }
	op, err := parseOperation(in.PlcOp)
	if err != nil {
		return bad(err.Error())
	}
	if op.Type != plc.TypeOperation || op.Prev.Defined() {
		return bad("not a genesis operation")
	}
	if err := op.Check(); err != nil {
		return bad(err.Error())
	}
	if _, err := op.Signer(op.Data.RotationKeys); err != nil {
		return bad("not signed by one of its rotation keys")
	}
	n.DID, n.genesis, n.reserved = op.DID(), op, op.Data.SigningKey()
	if did := value(in.Did); did != "" && did != string(n.DID) {
		return bad("it is not the genesis of " + did)
	}
	return s.fitsHere(&op.Data, n.Handle, n.reserved, "IncompatibleDidDoc")
}

// fitsHere checks that the state of an identity lets this server host it under a handle with a signing key.
func (s *Service) fitsHere(d *plc.Data, handle syntax.Handle, signingKey, errorName string) error {
	bad := func(why string) error { return refuse(http.StatusBadRequest, errorName, "%s", why) }
	found := false
	for _, k := range d.RotationKeys {
		found = found || k == s.accounts.secrets.rotation.Public().DIDKey()
	}
	service := d.Services[plc.AtprotoPDS]
	switch {
	case !found:
		return bad("the rotation keys do not include this server's")
	case service.Type != plc.AtprotoPDSType:
		return bad("the type of service " + plc.AtprotoPDS + " is wrong")
	case trimURL(service.Endpoint) != s.cfg.PublicURL:
		return bad("the endpoint of service " + plc.AtprotoPDS + " is not this server")
	case d.SigningKey() == "" || d.SigningKey() != signingKey:
		return bad("the signing key is not the account's key on this server")
	case d.Handle() != handle:
		return bad("the handle is not " + string(handle))
	}
	return nil
}

// chooseKey takes the signing key that was reserved for the account, or makes one.
func (s *Service) chooseKey(n *newAccount) error {
	if n.reserved == "" && n.DID != "" {
		v, err := s.store.Get([]byte(rowReserver + string(n.DID)))
		if err != nil && !errors.Is(err, kv.ErrNotFound) {
			return err
		}
		n.reserved = string(v)
	}
	if n.reserved != "" {
		var err error
		n.key, _, err = s.reservedKey(n.reserved)
		return err
	}
	var err error
	n.key, err = keys.Generate(keys.K256, randomReader{s})
	return err
}

// checkFree looks whether the names are free. The caller holds claims on them.
func (s *Service) checkFree(n *newAccount) error {
	if n.DID != "" {
		head, err := loadHead(s.store, n.DID)
		if err != nil {
			return err
		}
		if head != nil && head.Status != hostingDeleted {
			return refuse(http.StatusBadRequest, "AlreadyExists", "%s has an account here", n.DID)
		}
		if err := s.checkBarred(n.DID); err != nil {
			return err
		}
	}
	if err := s.handleFree(n.Handle, n.DID); err != nil {
		return err
	}
	if n.Email != "" {
		return s.emailFree(n.Email, "")
	}
	return nil
}

// handleFree refuses a handle that an account other than did has, or had when it was taken down.
func (s *Service) handleFree(h syntax.Handle, did syntax.DID) error {
	if s.awaited(h, did) {
		return refuse(http.StatusBadRequest, "HandleNotAvailable", "the handle %s is being taken", h)
	}
	v, err := s.store.Get([]byte(rowHandle + string(h)))
	if err == nil && syntax.DID(v) == did {
		return nil
	}
	if err != nil {
		if !errors.Is(err, kv.ErrNotFound) {
			return err
		}
		if held, err := exists(s.store, rowBarredHandle+string(h)); err != nil || !held {
			return err
		}
	}
	return refuse(http.StatusBadRequest, "HandleNotAvailable", "the handle %s is taken", h)
}

func exists(r kv.Reader, key string) (bool, error) {
	_, err := r.Get([]byte(key))
	if errors.Is(err, kv.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// signUp makes the account. Names and invite code are held by the caller.
func (s *Service) signUp(ctx context.Context, n *newAccount) (*comatproto.ServerCreateAccount_Output, error) {
	salt := make([]byte, saltSize)
	s.random(salt)
	hash, err := s.accounts.passwords.hash(ctx, n.password, salt)
	if err != nil {
		return nil, passwordFailure(err)
	}
	// From here on the client's patience no longer matters: a registered identity shall get its account.
	ctx = context.WithoutCancel(ctx)
	n.Password, n.PublicKey = hash, n.key.Public().DIDKey()
	op := n.genesis
	if op == nil && !n.moving {
		if op, err = s.genesis(n.Handle, n.PublicKey, n.recovery); err != nil {
			return nil, err
		}
		n.DID = op.DID()
	}
	if op != nil {
		crashpoint.Hit("pds/account/before-plc")
		if err := s.accounts.plc.Submit(ctx, n.DID, op); err != nil {
			s.world.Log.Warn("registering an identity failed", "handle", string(n.Handle), "err", err)
			return nil, plcFailure(err)
		}
		crashpoint.Hit("pds/account/after-plc")
	}
	now := s.world.Clock.Now().UTC()
	n.Created, n.Activated = now, !n.moving
	n.Key = s.accounts.secrets.seal([]byte(n.key.Multikey()), "signing key of "+string(n.DID))
	t, putSession, err := s.newSession(n.DID, scopeAccess)
	if err != nil {
		return nil, err
	}
	change := accountChange{
		Ops: func(b kv.Batch) {
			n.put(b)
			putSession(b)
			if n.Invite != "" {
				putInviteUse(b, n.Invite, n.DID, now)
			}
			if n.reserved != "" {
				s.unreserve(b, n.reserved)
			}
		},
		Identity: true, Handle: n.Handle, Account: true, Sync: true,
	}
	if n.moving {
		n.Deactivated = now
		change.Identity, change.Account, change.Sync, change.Status = false, false, false, hostingDeactivated
	}
	if err := s.createRepo(ctx, n.DID, n.key, change); err != nil {
		if errors.Is(err, errRepoExists) {
			return nil, refuse(http.StatusBadRequest, "AlreadyExists", "%s has an account here", n.DID)
		}
		return nil, err
	}
	crashpoint.Hit("pds/account/durable")
	out := &comatproto.ServerCreateAccount_Output{AccessJwt: t.access, RefreshJwt: t.refresh, Handle: string(n.Handle), Did: string(n.DID)}
	if op != nil {
		if d, ok := op.State(); ok {
			out.DidDoc = rawDocument(d.AppendDocument(nil, n.DID))
		}
	} else {
		out.DidDoc = s.sessionDocument(ctx, n.DID)
	}
	return out, nil
}

func parseOperation(raw data.Raw) (*plc.Operation, error) {
	text, err := data.AppendJSON(nil, raw)
	if err != nil {
		return nil, err
	}
	return plc.ParseJSON(text)
}

// value is what an optional field holds, or nothing.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func passwordFailure(err error) error {
	if errors.Is(err, errBusy) {
		e := refuse(http.StatusServiceUnavailable, "NotEnoughResources", "too many sign-ins at once: try again")
		e.Header = http.Header{"Retry-After": {"1"}}
		return e
	}
	return err
}
