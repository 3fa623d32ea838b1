package pds

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/internal/mailer"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// Some changes of an account have to be confirmed with a token that goes to its e-mail address: whoever has stolen a session or a
// password can't make them. A token is random (80 bits), good once, for one account, purpose and address, for a quarter of an hour, and
// only its hash is kept. A newer one of the same purpose takes its place.

// Purposes of confirmation tokens.
const (
	tokenDelete   = "delete"
	tokenPLC      = "plc"
	tokenConfirm  = "confirm-email"
	tokenUpdate   = "update-email"
	tokenPassword = "reset-password"
	tokenSignIn   = "sign-in"
)

const (
	confirmationLife  = 15 * time.Minute
	confirmationTries = 5
)

// letters are what the mails say: the subject, and what the code is for.
var letters = map[string]struct{ subject, what string }{
	tokenDelete:   {"Delete your account", "to delete your account %s for good. Your posts and all else that it holds will be gone"},
	tokenPLC:      {"Change your identity", "to change the identity of your account %s: its keys, its handle or the server that it lives on"},
	tokenConfirm:  {"Confirm your e-mail address", "to confirm that this is the e-mail address of your account %s"},
	tokenUpdate:   {"Change your e-mail address", "to change the e-mail address of your account %s"},
	tokenPassword: {"Reset your password", "to give your account %s a new password"},
	tokenSignIn:   {"Your sign-in code", "to sign in to your account %s. Somebody has entered its password just now"},
}

// confirmation is a token that was sent by e-mail.
type confirmation struct {
	Hash    []byte    `json:"hash"`
	Expires time.Time `json:"expires"`
	Email   string    `json:"email,omitempty"`
	Tries   int       `json:"tries"`
}

func tokenKey(did syntax.DID, purpose string) []byte {
	return []byte(rowToken + string(did) + "/" + purpose)
}

// mailToken makes a confirmation token, mails it, and returns when the mail is on its way, or waits for its next try.
func (s *Service) mailToken(ctx context.Context, r *xrpc.Request, a *account, purpose string) error {
	if err := s.limitBy(r, "mail", purpose+" "+string(a.DID)); err != nil {
		return err
	}
	return s.sendToken(ctx, a, purpose)
}

// reachable says why a mail can't be sent to an account; nil when it can.
func (s *Service) reachable(a *account) error {
	switch {
	case s.cfg.Mail == nil && !s.cfg.Accounts.LogTokens:
		return refuse(http.StatusBadRequest, "InvalidRequest", "this server does not send e-mail")
	case a.Email == "" && !s.cfg.Accounts.LogTokens && !s.cfg.Mail.Anyone():
		return refuse(http.StatusBadRequest, "InvalidRequest", "the account has no e-mail address")
	}
	return nil
}

func (s *Service) sendToken(ctx context.Context, a *account, purpose string) error {
	if err := s.reachable(a); err != nil {
		return err
	}
	token := strings.ToUpper(s.randomName(10))
	token = token[:8] + "-" + token[8:]
	if purpose == tokenPassword {
		// Whoever resets a password says nothing of the account, so the token has to: by its number, which is no secret.
		id, _, err := lookupAccount(s.store, a.DID)
		if err != nil {
			return err
		}
		token = strconv.FormatUint(id, 10) + "-" + token
	}
	hash := sha256.Sum256([]byte(token))
	row, err := json.Marshal(confirmation{Hash: hash[:], Expires: s.world.Clock.Now().Add(confirmationLife), Email: a.Email})
	if err != nil {
		return err
	}
	put := func(b kv.Batch) { b.Set(tokenKey(a.DID, purpose), row) }
	if s.cfg.Accounts.LogTokens {
		s.world.Log.Info("confirmation token", "did", string(a.DID), "purpose", purpose, "token", token)
	}
	if s.cfg.Mail == nil || a.Email == "" && !s.cfg.Mail.Anyone() {
		defer s.accounts.confirming.lock(outboxName(a.DID, purpose))()
		return s.write(ctx, put)
	}
	l := letters[purpose]
	_, err = s.send(ctx, a, purpose, &mailer.Message{
		Subject: l.subject, Purpose: purpose, Code: token,
		Text: fmt.Sprintf("Hello %s,\n\nuse this code "+l.what+":\n\n    %s\n\nIt is good for %d minutes. If you didn't ask for it, ignore this mail and tell nobody the code.\n\n-- \n%s\n",
			a.Handle, a.Handle, token, int(confirmationLife/time.Minute), s.hostname()),
	}, confirmationLife, put)
	return err
}

// checkMail tells the operator at once when mails won't get off, before a user finds out.
func (s *Service) checkMail(ctx context.Context) {
	c, ok := s.cfg.Mail.(mailer.Checker)
	if !ok {
		return
	}
	if err := c.Check(ctx); err != nil && ctx.Err() == nil {
		s.world.Log.Error("the mail server doesn't work: no mail will be sent", "err", err)
	}
}

// useToken checks a confirmation token and counts the attempt. A good one is the caller's alone until it calls release; before that it removes
// the token, durably, when what it confirms is done, or leaves it for another attempt.
func (s *Service) useToken(ctx context.Context, a *account, purpose, token string) (release func(), err error) {
	key := tokenKey(a.DID, purpose)
	release, ok := s.claim("token:" + string(key))
	if !ok {
		return nil, refuse(http.StatusBadRequest, "InvalidToken", "the confirmation token is being used")
	}
	if err := s.checkToken(ctx, key, a, token); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

func (s *Service) checkToken(ctx context.Context, key []byte, a *account, token string) error {
	invalid := refuse(http.StatusBadRequest, "InvalidToken", "the confirmation token is not valid")
	// The count of the tries must not take the place of a newer token.
	defer s.accounts.confirming.lock(strings.TrimPrefix(string(key), rowToken))()
	v, err := s.store.Get(key)
	if errors.Is(err, kv.ErrNotFound) {
		return invalid
	}
	if err != nil {
		return err
	}
	var row confirmation
	if err := json.Unmarshal(v, &row); err != nil {
		return fmt.Errorf("confirmation token of %s: %w", a.DID, errCorrupt)
	}
	hash := sha256.Sum256([]byte(strings.ToUpper(strings.TrimSpace(token))))
	same := subtle.ConstantTimeCompare(hash[:], row.Hash) == 1
	if !s.world.Clock.Now().Before(row.Expires) {
		if same {
			return refuse(http.StatusBadRequest, "ExpiredToken", "the confirmation token has expired")
		}
		return invalid
	}
	if row.Tries < confirmationTries && row.Email == a.Email && same {
		return nil
	}
	if strings.HasSuffix(string(key), "/"+tokenPassword) {
		return invalid // anybody can try: counting would let them take the owner's token away, and they don't guess 80 bits
	}
	row.Tries++
	if v, err = json.Marshal(row); err != nil {
		return err
	}
	if err := s.write(ctx, func(b kv.Batch) { b.Set(key, v) }); err != nil {
		return err
	}
	return invalid
}

// emailFactor reports whether signing in takes a code from a mail beside the password. It rests while the address is not confirmed, or a
// typing error would lock the owner out.
func (a *account) emailFactor() bool { return a.EmailFactor && a.EmailConfirmed && a.Email != "" }

// checkFactor asks for the second factor of a sign-in whose password was right, or checks it. release is as in useToken.
func (s *Service) checkFactor(ctx context.Context, r *xrpc.Request, a *account, token string) (release func(), err error) {
	if strings.TrimSpace(token) == "" {
		if err := s.mailToken(ctx, r, a, tokenSignIn); err != nil {
			return nil, err
		}
		return nil, errFactorMailed
	}
	return s.useToken(ctx, a, tokenSignIn, token)
}

// errFactorMailed asks for the second factor.
var errFactorMailed = refuse(http.StatusUnauthorized, "AuthFactorTokenRequired", "a sign-in code has been sent to your e-mail address")

// errands are things that are done after their request was answered, so that the time of the answer doesn't tell what had to be done.
type errands struct {
	mu      sync.Mutex
	running int
	ended   bool
	wg      sync.WaitGroup
}

const maxErrands = 64

// run starts do; false when there are too many already, or the service ends.
func (e *errands) run(do func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended || e.running >= maxErrands {
		return false
	}
	e.running++
	e.wg.Go(func() {
		defer func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.running--
		}()
		do()
	})
	return true
}

func (e *errands) wait() {
	e.mu.Lock()
	e.ended = true
	e.mu.Unlock()
	e.wg.Wait()
}
