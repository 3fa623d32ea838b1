package pds

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// describeServer is com.atproto.server.describeServer.
func (s *Service) describeServer(context.Context, *xrpc.Request, *xrpc.None) (*comatproto.ServerDescribeServer_Output, error) {
	out := &comatproto.ServerDescribeServer_Output{
		Did:                  string(s.cfg.DID),
		AvailableUserDomains: append([]string{}, s.cfg.HandleDomains...),
		InviteCodeRequired:   new(s.cfg.InviteRequired),
		BlobUploadLimit:      new(s.cfg.MaxBlobBytes),
	}
	if s.cfg.PrivacyPolicyURL != "" || s.cfg.TermsURL != "" {
		out.Links = &comatproto.ServerDescribeServer_Links{PrivacyPolicy: optional(s.cfg.PrivacyPolicyURL), TermsOfService: optional(s.cfg.TermsURL)}
	}
	if s.cfg.ContactEmail != "" {
		out.Contact = &comatproto.ServerDescribeServer_Contact{Email: optional(s.cfg.ContactEmail)}
	}
	return out, nil
}

// createSession is com.atproto.server.createSession: sign-in with a handle, a DID or an e-mail address. An unknown name and a wrong password
// give the same answer after the same time.
func (s *Service) createSession(ctx context.Context, r *xrpc.Request, in *comatproto.ServerCreateSession_Input) (*comatproto.ServerCreateSession_Output, error) {
	a, err := s.findAccount(in.Identifier)
	if err != nil && !errors.Is(err, errNoAccount) {
		return nil, err
	}
	// Counted by account where there is one, so that its three names don't give three times the guesses.
	who, hash := strings.ToLower(strings.TrimSpace(in.Identifier)), ""
	if a != nil {
		who, hash = string(a.DID), a.Password
	}
	giveBack, err := s.guess(r, who)
	if err != nil {
		return nil, err
	}
	ok, err := s.accounts.passwords.verify(ctx, hash, in.Password)
	if err != nil {
		giveBack()
		return nil, passwordFailure(err)
	}
	sc, app, unlock := scopeAccess, "", func() {}
	if !ok && a != nil {
		// After the slow hash, so that the time tells neither which kind a password is nor whether there is an account.
		unlock = sync.OnceFunc(s.lockAppPasswords(a.DID))
		defer unlock()
		if app, sc, ok, err = s.findAppPassword(a.DID, in.Password); err != nil {
			return nil, err
		}
	}
	if !ok {
		return nil, refuse(http.StatusUnauthorized, "AuthenticationRequired", "wrong name or password")
	}
	if a.Status == hostingTakendown || a.Status == hostingSuspended {
		if !value(in.AllowTakendown) || sc.isApp() {
			giveBack()
			return nil, refuse(http.StatusUnauthorized, "AccountTakedown", "the account has been taken down")
		}
		sc = scopeTakendown
	}
	if !sc.isApp() && a.emailFactor() {
		release, err := s.checkFactor(ctx, r, a, value(in.AuthFactorToken))
		if errors.Is(err, errFactorMailed) {
			giveBack()
		}
		if err != nil {
			return nil, err
		}
		defer release()
	}
	giveBack()
	t, put, err := s.newAppSession(a.DID, sc, app, a.Epoch)
	if err != nil {
		return nil, err
	}
	err = s.write(ctx, func(b kv.Batch) {
		put(b)
		if !sc.isApp() && a.emailFactor() {
			b.Delete(tokenKey(a.DID, tokenSignIn))
		}
	})
	if err != nil {
		return nil, err
	}
	unlock() // finding the document may take longer
	return s.sessionOutput(ctx, a, sc, t), nil
}

// sessionOutput tells a client about its session. An app password doesn't learn the e-mail address.
func (s *Service) sessionOutput(ctx context.Context, a *account, sc scope, t tokens) *comatproto.ServerCreateSession_Output {
	out := &comatproto.ServerCreateSession_Output{
		AccessJwt: t.access, RefreshJwt: t.refresh, Handle: string(a.Handle), Did: string(a.DID), DidDoc: s.sessionDocument(ctx, a.DID),
		EmailAuthFactor: new(a.emailFactor()), Active: new(a.active()), Status: optional(string(a.Status)),
	}
	if !sc.isApp() {
		out.Email, out.EmailConfirmed = optional(a.Email), new(a.EmailConfirmed)
	}
	return out
}

// getSession is com.atproto.server.getSession.
func (s *Service) getSession(ctx context.Context, r *xrpc.Request, _ *xrpc.None) (*comatproto.ServerGetSession_Output, error) {
	info, err := s.requireAuth(r.Request, scopeAccess, scopeAppPass, scopeAppPassPrivileged, scopeTakendown)
	if err != nil {
		return nil, err
	}
	a := info.Account
	out := &comatproto.ServerGetSession_Output{
		Handle: string(a.Handle), Did: string(a.DID), DidDoc: s.sessionDocument(ctx, a.DID),
		EmailAuthFactor: new(a.emailFactor()), Active: new(a.active()), Status: optional(string(a.Status)),
	}
	if info.Scope == scopeAccess || info.Scope == scopeTakendown {
		out.Email, out.EmailConfirmed = optional(a.Email), new(a.EmailConfirmed)
	}
	return out, nil
}

// refreshSession is com.atproto.server.refreshSession.
func (s *Service) refreshSession(ctx context.Context, r *xrpc.Request, _ *xrpc.None) (*comatproto.ServerRefreshSession_Output, error) {
	info, err := s.requireAuth(r.Request, scopeRefresh)
	if err != nil {
		return nil, err
	}
	a := info.Account
	if a.Status == hostingTakendown || a.Status == hostingSuspended {
		row, err := s.loadSession(a.DID, info.session)
		if err != nil {
			return nil, err
		}
		if row == nil || row.Scope != scopeTakendown {
			return nil, refuse(http.StatusUnauthorized, "AccountTakedown", "the account has been taken down")
		}
	}
	t, sc, err := s.rotate(ctx, info)
	if err != nil {
		return nil, err
	}
	return s.sessionOutput(ctx, a, sc, t), nil
}

// deleteSession is com.atproto.server.deleteSession: with any refresh token of a session, the session ends. An expired one does as well: who
// comes back after months can still sign out, and one that was exchanged in time expires before its session does.
func (s *Service) deleteSession(ctx context.Context, r *xrpc.Request, _ *xrpc.None) (*xrpc.None, error) {
	info, err := s.readToken(r.Request, true, scopeRefresh)
	if err != nil {
		return nil, err
	}
	defer s.accounts.sessions.lock(info.session)()
	return nil, s.endSession(ctx, info.DID, info.session)
}

// getServiceAuth is com.atproto.server.getServiceAuth.
func (s *Service) getServiceAuth(_ context.Context, r *xrpc.Request, p *comatproto.ServerGetServiceAuth_Params) (*comatproto.ServerGetServiceAuth_Output, error) {
	info, err := s.requireAuth(r.Request, scopeAccess, scopeAppPass, scopeAppPassPrivileged, scopeTakendown)
	if err != nil {
		return nil, err
	}
	if strings.Contains(p.Aud, "#") {
		_, err = parseServiceRef(p.Aud)
	} else {
		_, err = syntax.ParseDID(p.Aud)
	}
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "InvalidRequest", "aud: want a DID, with #service or without")
	}
	lxm := value(p.Lxm)
	if lxm != "" {
		n, err := syntax.ParseNSID(lxm)
		if err != nil {
			return nil, refuse(http.StatusBadRequest, "InvalidRequest", "lxm: want the NSID of a method")
		}
		lxm = string(n.Normalize())
	}
	switch {
	case protectedMethods[lxm]:
		return nil, refuse(http.StatusBadRequest, "InvalidRequest", "no token is made for %s: it manages the account", lxm)
	case info.Scope == scopeTakendown && lxm != methodCreateAccount:
		return nil, refuse(http.StatusBadRequest, "InvalidToken", "an account that was taken down can only move")
	case info.Scope == scopeAppPass && lxm == "":
		return nil, refuse(http.StatusBadRequest, "InvalidToken", "this app password does not allow every method: name one in lxm")
	case info.Scope == scopeAppPass && privilegedMethod(lxm):
		return nil, refuse(http.StatusBadRequest, "InvalidToken", "this app password does not allow %s", lxm)
	}
	now := s.world.Clock.Now()
	exp := now.Add(serviceAuthDefault)
	if p.Exp != nil {
		exp = time.Unix(*p.Exp, 0)
		left := exp.Sub(now)
		switch {
		case left <= 0:
			return nil, refuse(http.StatusBadRequest, "BadExpiration", "exp is in the past")
		case left > serviceAuthMax:
			return nil, refuse(http.StatusBadRequest, "BadExpiration", "exp is more than an hour away")
		case lxm == "" && left > serviceAuthMaxMethod:
			return nil, refuse(http.StatusBadRequest, "BadExpiration", "a token for every method can't live longer than a minute")
		}
	}
	token, err := s.mintServiceAuth(info.Account, p.Aud, lxm, exp)
	if err != nil {
		return nil, err
	}
	return &comatproto.ServerGetServiceAuth_Output{Token: token}, nil
}

// sessionDocument is the DID document that session answers carry, which tells a client where its PDS is. A directory that doesn't answer
// mustn't keep anybody from signing in: then the field is left out.
func (s *Service) sessionDocument(ctx context.Context, did syntax.DID) data.Raw {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	doc, err := s.resolveDocument(ctx, did, false)
	if err != nil {
		s.world.Log.Debug("no DID document for a session", "did", string(did), "err", err)
		return nil
	}
	return rawDocument(doc.Raw)
}

func rawDocument(json []byte) data.Raw {
	raw, err := data.AppendCBOR(nil, json)
	if err != nil {
		return nil
	}
	return raw
}
