package pds

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// Tokens between services, https://atproto.com/specs/xrpc#inter-service-authentication-jwt.

const (
	serviceAuthDefault   = time.Minute
	serviceAuthMax       = time.Hour   // with a method
	serviceAuthMaxMethod = time.Minute // without one
)

const methodCreateAccount = "com.atproto.server.createAccount"

// protectedMethods manage the account itself. Another service has no business calling them in the account's name, so no token is made for
// them.
var protectedMethods = map[string]bool{
	"com.atproto.admin.sendEmail":                       true,
	"com.atproto.identity.requestPlcOperationSignature": true,
	"com.atproto.identity.signPlcOperation":             true,
	"com.atproto.identity.updateHandle":                 true,
	"com.atproto.server.activateAccount":                true,
	"com.atproto.server.confirmEmail":                   true,
	"com.atproto.server.createAppPassword":              true,
	"com.atproto.server.deactivateAccount":              true,
	"com.atproto.server.getAccountInviteCodes":          true,
	"com.atproto.server.getSession":                     true,
	"com.atproto.server.listAppPasswords":               true,
	"com.atproto.server.requestAccountDelete":           true,
	"com.atproto.server.requestEmailConfirmation":       true,
	"com.atproto.server.requestEmailUpdate":             true,
	"com.atproto.server.revokeAppPassword":              true,
	"com.atproto.server.updateEmail":                    true,
}

// privilegedMethod reports whether an app password needs the privileged flag for a method.
func privilegedMethod(lxm string) bool {
	return strings.HasPrefix(lxm, "chat.bsky.") || lxm == methodCreateAccount
}

// mintServiceAuth makes a token with which another service sees that the account asks it for the method lxm ("" for any).
func (s *Service) mintServiceAuth(a *account, aud, lxm string, exp time.Time) (string, error) {
	key, err := s.openKey(a)
	if err != nil {
		return "", err
	}
	t := auth.ServiceToken{Issuer: a.DID, Audience: aud, Method: syntax.NSID(lxm), Issued: s.world.Clock.Now(), Expires: exp, ID: s.randomName(16)}
	return t.Sign(key)
}

// openServiceAuth gets ready what checks tokens of other services.
func (s *Service) openServiceAuth() {
	s.accounts.services = &auth.ServiceValidator{
		Audiences: []string{string(s.cfg.DID), string(s.cfg.DID) + "#atproto_pds"},
		Keys:      s.accounts.directory.Key,
		Now:       s.world.Clock.Now,
	}
}

// requireServiceAuth checks a token of another service that speaks for an account hosted elsewhere, and gives that account's DID. Each
// token is good once.
func (s *Service) requireServiceAuth(r *http.Request, method syntax.NSID) (syntax.DID, error) {
	token, err := bearer(r)
	if err != nil {
		return "", err
	}
	t, err := s.accounts.services.Validate(r.Context(), token, method)
	var refused *xrpc.Error
	switch {
	case err == nil && t.Service != "":
		return "", auth.ErrBadTokenIssuer.WithStatus(http.StatusUnauthorized, "service token: it speaks for a service of an account, not for the account")
	case err == nil:
		return t.Issuer, nil
	case errors.As(err, &refused):
		return "", refused
	case identity.KindOf(err) != "":
		return "", refuse(http.StatusBadRequest, "UnresolvableDid", "the issuer of the token can't be resolved")
	}
	return "", err
}
