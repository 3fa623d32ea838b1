package pds

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/internal/crashpoint"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/internal/mailer"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// requestEmailConfirmation is com.atproto.server.requestEmailConfirmation.
func (s *Service) requestEmailConfirmation(ctx context.Context, r *xrpc.Request, _ *xrpc.None) (*xrpc.None, error) {
	info, err := s.requireAuth(r.Request, scopeAccess)
	if err != nil {
		return nil, err
	}
	if info.Account.Email == "" {
		return nil, invalid("the account has no e-mail address")
	}
	return nil, s.mailToken(ctx, r, info.Account, tokenConfirm)
}

// confirmEmail is com.atproto.server.confirmEmail.
func (s *Service) confirmEmail(ctx context.Context, r *xrpc.Request, in *comatproto.ServerConfirmEmail_Input) (*xrpc.None, error) {
	info, err := s.requireAuth(r.Request, scopeAccess)
	if err != nil {
		return nil, err
	}
	if err := s.limitBy(r, "tokens", string(info.DID)); err != nil {
		return nil, err
	}
	if info.Account.Email == "" || normalizeEmail(in.Email) != normalizeEmail(info.Account.Email) {
		return nil, refuse(http.StatusBadRequest, "InvalidEmail", "this is not the e-mail address of the account")
	}
	release, err := s.useToken(ctx, info.Account, tokenConfirm, in.Token)
	if err != nil {
		return nil, err
	}
	defer release()
	now := s.world.Clock.Now().UTC()
	return nil, s.changeAccount(ctx, info.DID, func(a *account) error {
		if a.Email != info.Account.Email { // it was changed while the token was looked at
			return refuse(http.StatusBadRequest, "InvalidEmail", "this is not the e-mail address of the account")
		}
		a.EmailConfirmed, a.EmailConfirmedAt = true, now
		return nil
	}, accountChange{Ops: func(b kv.Batch) { b.Delete(tokenKey(info.DID, tokenConfirm)) }})
}

// requestEmailUpdate is com.atproto.server.requestEmailUpdate: an address that was confirmed is changed with a token that goes there.
func (s *Service) requestEmailUpdate(ctx context.Context, r *xrpc.Request, _ *xrpc.None) (*comatproto.ServerRequestEmailUpdate_Output, error) {
	info, err := s.requireAuth(r.Request, scopeAccess)
	if err != nil {
		return nil, err
	}
	out := &comatproto.ServerRequestEmailUpdate_Output{TokenRequired: info.Account.EmailConfirmed}
	if out.TokenRequired {
		err = s.mailToken(ctx, r, info.Account, tokenUpdate)
	}
	return out, err
}

// updateEmail is com.atproto.server.updateEmail: changes the address, and whether signing in takes a code from a mail. What weakens a
// confirmed account takes a token: another address, and doing without the code.
func (s *Service) updateEmail(ctx context.Context, r *xrpc.Request, in *comatproto.ServerUpdateEmail_Input) (*xrpc.None, error) {
	info, err := s.requireAuth(r.Request, scopeAccess)
	if err != nil {
		return nil, err
	}
	if err := s.limitBy(r, "tokens", string(info.DID)); err != nil {
		return nil, err
	}
	email := strings.TrimSpace(in.Email)
	if !mailer.ValidAddress(email) {
		return nil, invalid("the e-mail address is not valid")
	}
	a := info.Account
	moves := normalizeEmail(email) != normalizeEmail(a.Email)
	opens := in.EmailAuthFactor != nil && !*in.EmailAuthFactor && a.EmailFactor
	var ops func(kv.Batch)
	if a.EmailConfirmed && (moves || opens) {
		if value(in.Token) == "" {
			return nil, refuse(http.StatusBadRequest, "TokenRequired", "the token that was sent to the present address is needed")
		}
		release, err := s.useToken(ctx, a, tokenUpdate, *in.Token)
		if err != nil {
			return nil, err
		}
		defer release()
		ops = func(b kv.Batch) { b.Delete(tokenKey(info.DID, tokenUpdate)) }
	}
	if value(in.EmailAuthFactor) && (moves || !a.EmailConfirmed) {
		return nil, invalid("confirm the e-mail address first: codes to one that you can't read would lock you out")
	}
	return nil, s.setEmail(ctx, info.DID, email, func(now *account) error {
		if now.Email != a.Email || now.EmailConfirmed != a.EmailConfirmed { // what the token was, or was not, checked for
			return refuse(http.StatusConflict, "InvalidRequest", "the e-mail address is being changed: try again")
		}
		if in.EmailAuthFactor != nil {
			now.EmailFactor = *in.EmailAuthFactor
		}
		return nil
	}, ops)
}

// setEmail gives an account an address that no other account has. One that differs from what was there has to be confirmed again.
func (s *Service) setEmail(ctx context.Context, did syntax.DID, email string, edit func(*account) error, ops func(kv.Batch)) error {
	name := normalizeEmail(email)
	release, ok := s.claim("email:" + name)
	if !ok {
		return invalid("the e-mail address is taken")
	}
	defer release()
	if err := s.emailFree(name, did); err != nil {
		return err
	}
	return s.changeAccount(ctx, did, func(a *account) error {
		if err := edit(a); err != nil {
			return err
		}
		if normalizeEmail(a.Email) != name {
			a.EmailConfirmed = false
		}
		a.Email = email
		return nil
	}, accountChange{Ops: ops})
}

// requestPasswordReset is com.atproto.server.requestPasswordReset. It says the same, as fast, whether there is an account of that address
// or not; what has to be done is done afterwards.
func (s *Service) requestPasswordReset(_ context.Context, r *xrpc.Request, in *comatproto.ServerRequestPasswordReset_Input) (*xrpc.None, error) {
	if err := s.limit(r, "forgotten", ""); err != nil {
		return nil, err
	}
	email := normalizeEmail(in.Email)
	if !mailer.ValidAddress(email) {
		return nil, invalid("the e-mail address is not valid")
	}
	if s.cfg.Mail == nil && !s.cfg.Accounts.LogTokens {
		return nil, refuse(http.StatusBadRequest, "InvalidRequest", "this server does not send e-mail")
	}
	// Anybody may ask, so one address can't use up what the owner, at another, has.
	if err := s.limit(r, "mail", tokenPassword+" "+email); err != nil {
		return nil, err
	}
	if err := s.limitBy(r, "resetMails", email); err != nil {
		return nil, err
	}
	ctx := s.running
	started := s.errands.run(func() {
		a, err := s.accountByEmail(email)
		if err == nil {
			err = s.sendToken(ctx, a, tokenPassword)
		}
		if refused := (*xrpc.Error)(nil); err != nil && !errors.Is(err, errNoAccount) && !errors.As(err, &refused) && ctx.Err() == nil {
			s.world.Log.Error("a password can't be reset", "err", err)
		}
	})
	if !started {
		return nil, xrpc.ErrNotEnoughResources.With("too many mails are on their way: try again later")
	}
	return nil, nil
}

// resetPassword is com.atproto.server.resetPassword.
func (s *Service) resetPassword(ctx context.Context, r *xrpc.Request, in *comatproto.ServerResetPassword_Input) (*xrpc.None, error) {
	if err := s.limit(r, "resetPassword", ""); err != nil {
		return nil, err
	}
	if err := checkPassword(in.Password); err != nil {
		return nil, err
	}
	bad := refuse(http.StatusBadRequest, "InvalidToken", "the confirmation token is not valid")
	number, _, _ := strings.Cut(strings.TrimSpace(in.Token), "-")
	id, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return nil, bad
	}
	did, err := s.didOf(id)
	if errors.Is(err, kv.ErrNotFound) {
		return nil, bad
	}
	if err != nil {
		return nil, err
	}
	a, err := s.account(did)
	if errors.Is(err, errNoAccount) {
		return nil, bad
	}
	if err != nil {
		return nil, err
	}
	release, err := s.useToken(ctx, a, tokenPassword, in.Token)
	if err != nil {
		return nil, err
	}
	defer release()
	now := s.world.Clock.Now().UTC()
	return nil, s.setPassword(ctx, did, in.Password, func(b *account) error {
		if b.Email != a.Email { // that is no longer where the token went
			return bad
		}
		b.EmailConfirmed, b.EmailConfirmedAt = true, now // whoever has the token has read the mail
		return nil
	})
}

// checkPassword refuses what can't be a password of an account.
func checkPassword(password string) error {
	why := ""
	switch {
	case password == "":
		why = "a password is needed"
	case len(password) < minPassword:
		why = fmt.Sprintf("the password is too short: at least %d characters", minPassword)
	case len(password) > maxPassword:
		why = fmt.Sprintf("the password is too long: at most %d bytes", maxPassword)
	default:
		return nil
	}
	return refuse(http.StatusBadRequest, "InvalidPassword", "%s", why)
}

// setPassword gives an account a new password. All its sessions end in the same batch, and so do tokens that are out; app passwords stay.
func (s *Service) setPassword(ctx context.Context, did syntax.DID, password string, edit func(*account) error) error {
	salt := make([]byte, saltSize)
	s.random(salt)
	hash, err := s.accounts.passwords.hash(ctx, password, salt)
	if err != nil {
		return passwordFailure(err)
	}
	err = s.changeAccount(ctx, did, func(a *account) error {
		if err := edit(a); err != nil {
			return err
		}
		a.Password = hash
		a.Epoch++
		return nil
	}, accountChange{Ops: func(b kv.Batch) {
		for _, lo := range [][]byte{sessionKey(did, ""), tokenKey(did, "")} {
			b.DeleteRange(lo, kv.PrefixEnd(lo))
		}
	}})
	crashpoint.Hit("pds/password/changed")
	return err
}
