package pds

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/barograph/baro/internal/httpd"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// scope is what a session token allows.
type scope string

// Scopes of session tokens. A takendown token is for moving out only; an app password doesn't manage the account.
const (
	scopeAccess            scope = "com.atproto.access"
	scopeRefresh           scope = "com.atproto.refresh"
	scopeAppPass           scope = "com.atproto.appPass"
	scopeAppPassPrivileged scope = "com.atproto.appPassPrivileged"
	scopeTakendown         scope = "com.atproto.takendown"
)

const (
	accessLife  = 120 * time.Minute
	refreshLife = 90 * 24 * time.Hour
	// maxSessions is how many sessions an account has at most; the oldest go first.
	maxSessions = 200
)

// authInfo is who makes a request.
type authInfo struct {
	DID   syntax.DID
	Scope scope
	// Account is the account as it was when the request came in.
	Account *account
	// session is the session's id, for refresh tokens.
	session, jti string
	epoch        int // of the password that the token goes back to
}

// requireAuth authenticates a request by its session token and checks the token's scope: access and app passwords when none is named. An
// account that was taken down is refused unless scopeTakendown is among scopes; a deactivated one is not: it may log in and move away.
func (s *Service) requireAuth(r *http.Request, scopes ...scope) (authInfo, error) {
	info, err := s.requireToken(r, scopes...)
	if err != nil {
		return authInfo{}, err
	}
	info.Account, err = s.account(info.DID)
	if errors.Is(err, errNoAccount) {
		return authInfo{}, refuse(http.StatusForbidden, "AccountNotFound", "the account is not hosted here")
	}
	if err != nil {
		return authInfo{}, err
	}
	if info.epoch != info.Account.Epoch {
		return authInfo{}, errOldPassword
	}
	if st := info.Account.Status; st == hostingTakendown || st == hostingSuspended {
		if info.Scope != scopeTakendown && info.Scope != scopeRefresh {
			return authInfo{}, refuse(http.StatusUnauthorized, "AccountTakedown", "the account has been taken down")
		}
	}
	return info, nil
}

// errOldPassword refuses a token that goes back to a password that was changed since.
var errOldPassword = refuse(http.StatusBadRequest, "ExpiredToken", "the token has been revoked: the password was changed")

// requireToken is requireAuth without a look at the account, for callers that look at its state, and at the epoch, by themselves.
func (s *Service) requireToken(r *http.Request, scopes ...scope) (authInfo, error) {
	return s.readToken(r, false, scopes...)
}

// readToken is requireToken; with expired, the time of a token doesn't count.
func (s *Service) readToken(r *http.Request, expired bool, scopes ...scope) (authInfo, error) {
	if len(scopes) == 0 {
		scopes = []scope{scopeAccess, scopeAppPass, scopeAppPassPrivileged}
	}
	token, err := bearer(r)
	if err != nil {
		return authInfo{}, err
	}
	typ := typAccess
	if len(scopes) == 1 && scopes[0] == scopeRefresh {
		typ = typRefresh
	}
	c, err := s.accounts.tokens.verify(s.accounts.secrets.session, typ, string(s.cfg.DID), token, s.world.Clock.Now().Unix())
	switch {
	case errors.Is(err, errExpiredToken) && expired:
	case errors.Is(err, errExpiredToken):
		// 400, not 401: it is what clients watch for to refresh their session.
		return authInfo{}, refuse(http.StatusBadRequest, "ExpiredToken", "the token has expired")
	case err != nil:
		return authInfo{}, refuse(http.StatusBadRequest, "InvalidToken", "the token could not be verified")
	}
	info := authInfo{DID: syntax.DID(c.Sub), Scope: scope(c.Scope), epoch: c.Epoch}
	allowed := false
	for _, want := range scopes {
		allowed = allowed || want == info.Scope
	}
	if !allowed {
		return authInfo{}, refuse(http.StatusBadRequest, "InvalidToken", "the token's scope does not allow this")
	}
	if typ == typRefresh {
		sid, _, ok := strings.Cut(c.Jti, ".")
		if !ok {
			return authInfo{}, refuse(http.StatusBadRequest, "InvalidToken", "the token could not be verified")
		}
		info.session, info.jti = sid, c.Jti
	}
	if info.Scope.isApp() {
		if err := s.checkAppSession(info, c.Jti); err != nil {
			return authInfo{}, err
		}
	}
	return info, nil
}

// optionalAuth is requireAuth for methods that anyone may call; info.DID is empty for a caller without a token.
func (s *Service) optionalAuth(r *http.Request) (authInfo, error) {
	if r.Header.Get("Authorization") == "" {
		return authInfo{}, nil
	}
	return s.requireAuth(r)
}

// requireAdmin checks the operator's Basic credentials.
func (s *Service) requireAdmin(r *http.Request) error {
	refused := refuse(http.StatusUnauthorized, "AuthenticationRequired", "admin credentials are needed")
	refused.Header = http.Header{"Www-Authenticate": {`Basic realm="admin"`}}
	user, password, ok := r.BasicAuth()
	if !ok || s.cfg.AdminPassword == "" {
		return refused
	}
	if err := s.count(r, http.Header{}, "admin", httpd.ClientKey(s.clientAddr(r))); err != nil {
		return err
	}
	// In the clear the password is anybody's on the way, unless there is no way.
	if strings.HasPrefix(s.cfg.PublicURL, "http://") && !s.clientAddr(r).IsLoopback() {
		return refuse(http.StatusForbidden, "Forbidden", "admin requests need HTTPS")
	}
	good, err := s.knock(r.Context(), knock{httpd.ClientKey(s.clientAddr(r)), sha256.Sum256([]byte(user + ":" + password))}, user, password)
	if err != nil {
		return err
	}
	if !good {
		s.world.Log.Warn("admin credentials refused", "path", r.URL.Path)
		return refused
	}
	s.world.Log.Info("admin request", "path", r.URL.Path)
	return nil
}

// knock is a try to come in as the operator: who tries, and a digest of the credentials.
type knock struct {
	caller string
	digest [sha256.Size]byte
}

// answeredKnock is what became of a knock, when done is closed.
type answeredKnock struct {
	done chan struct{}
	good bool
	err  error
}

// knock checks the operator's credentials, and counts the try before it looks at them; a right one is given back. While a check is going
// on, the same credentials from the same caller wait for it, so that many right requests at once are one try.
func (s *Service) knock(ctx context.Context, k knock, user, password string) (bool, error) {
	a := &s.accounts
	for {
		a.mu.Lock()
		first := a.knocks[k]
		if first == nil {
			break
		}
		a.mu.Unlock()
		select {
		case <-first.done:
		case <-ctx.Done():
			return false, ctx.Err()
		}
		if first.err == nil {
			return first.good, nil
		}
		if refused := (*xrpc.Error)(nil); errors.As(first.err, &refused) {
			return false, first.err
		} // else the first one's patience ended, which is not this one's
	}
	giveBack, err := a.limits.take(s.world.Clock.Now(), http.Header{}, "adminGuesses", k.caller, 1, 1)
	if err != nil {
		a.mu.Unlock()
		return false, err
	}
	mine := &answeredKnock{done: make(chan struct{})}
	a.knocks[k] = mine
	a.mu.Unlock()
	mine.good, mine.err = s.adminPassword(ctx, k.digest, user, password)
	if mine.err != nil {
		mine.err = passwordFailure(mine.err)
	}
	if mine.good || mine.err != nil {
		giveBack()
	}
	a.mu.Lock()
	delete(a.knocks, k)
	a.mu.Unlock()
	close(mine.done)
	return mine.good, mine.err
}

// adminPassword checks the operator's name and password, of which got is the digest.
func (s *Service) adminPassword(ctx context.Context, got [sha256.Size]byte, user, password string) (bool, error) {
	// Compared as digests, so that neither content nor length shows in the time it takes.
	if !strings.HasPrefix(s.cfg.AdminPassword, "$") {
		want := sha256.Sum256([]byte("admin:" + s.cfg.AdminPassword))
		return subtle.ConstantTimeCompare(got[:], want[:]) == 1, nil
	}
	// A hash is slow on purpose: what it has accepted once is remembered.
	if known := s.accounts.admin.Load(); known != nil && subtle.ConstantTimeCompare(got[:], known[:]) == 1 {
		return true, nil
	}
	ok, err := s.accounts.passwords.verify(ctx, s.cfg.AdminPassword, password)
	if err != nil || !ok || user != "admin" {
		return false, err
	}
	s.accounts.admin.Store(&got)
	return true, nil
}

func bearer(r *http.Request) (string, error) {
	h := r.Header.Values("Authorization")
	if len(h) == 0 || h[0] == "" {
		e := refuse(http.StatusUnauthorized, "AuthMissing", "authentication required")
		e.Header = http.Header{"Www-Authenticate": {"Bearer"}}
		return "", e
	}
	kind, token, ok := strings.Cut(h[0], " ")
	if len(h) != 1 || !ok || !strings.EqualFold(kind, "Bearer") || token == "" {
		return "", refuse(http.StatusBadRequest, "InvalidToken", "want one Authorization header with a bearer token")
	}
	return strings.TrimSpace(token), nil
}

// refuse is an answer that tells the client why not.
func refuse(status int, name, format string, args ...any) *xrpc.Error {
	return &xrpc.Error{Status: status, Name: name, Message: fmt.Sprintf(format, args...)}
}

// session is a signed-in client: one refresh token is current at a time, and the one before it still works for a moment, so that two
// requests of the client that refresh at once both get the same successor.
type session struct {
	Scope scope `json:"scope"`
	// App is the name of the app password that made the session.
	App      string    `json:"app,omitempty"`
	Epoch    int       `json:"epoch,omitempty"` // of the account's password when the session began
	Current  string    `json:"current"`
	Previous string    `json:"previous,omitempty"`
	Rotated  time.Time `json:"rotated"`
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires"`
}

// tokens is a pair of session tokens.
type tokens struct{ access, refresh string }

func sessionKey(did syntax.DID, sid string) []byte {
	return []byte(rowSession + string(did) + "/" + sid)
}

// newSession makes a session and the rows it needs; it exists once those rows are durable.
func (s *Service) newSession(did syntax.DID, sc scope) (tokens, func(kv.Batch), error) {
	return s.newAppSession(did, sc, "", 0)
}

// newAppSession is newSession for the app password of a name, and for an account whose password was changed before. The caller holds the
// account's app passwords until the rows are durable.
func (s *Service) newAppSession(did syntax.DID, sc scope, app string, epoch int) (tokens, func(kv.Batch), error) {
	sid := s.randomName(12)
	now := s.world.Clock.Now()
	row := session{Scope: sc, App: app, Epoch: epoch, Current: sid + "." + s.randomName(16), Rotated: now, Created: now, Expires: now.Add(refreshLife)}
	t, err := s.issue(did, &row)
	if err != nil {
		return tokens{}, nil, err
	}
	stale, err := s.staleSessions(did)
	if err != nil {
		return tokens{}, nil, err
	}
	return t, func(b kv.Batch) {
		for _, k := range stale {
			b.Delete(k)
		}
		row.put(b, did, sid)
	}, nil
}

func (row *session) put(b kv.Batch, did syntax.DID, sid string) {
	v, err := json.Marshal(row)
	if err != nil {
		panic("pds: a session that cannot be encoded: " + err.Error())
	}
	b.Set(sessionKey(did, sid), v)
}

// issue signs the tokens of a session's current state.
func (s *Service) issue(did syntax.DID, row *session) (tokens, error) {
	now := s.world.Clock.Now().Unix()
	aud := string(s.cfg.DID)
	jti := s.randomName(8)
	if row.Scope.isApp() { // the token is good for as long as its session is there
		sid, _, _ := strings.Cut(row.Current, ".")
		jti = sid + "." + jti
	}
	access, err := signSession(s.accounts.secrets.session, typAccess,
		jwtClaims{Scope: string(row.Scope), Sub: string(did), Aud: aud, Iat: now, Exp: now + int64(accessLife/time.Second), Jti: jti, Epoch: row.Epoch})
	if err != nil {
		return tokens{}, err
	}
	refresh, err := signSession(s.accounts.secrets.session, typRefresh,
		jwtClaims{Scope: string(scopeRefresh), Sub: string(did), Aud: aud, Iat: now, Exp: row.Expires.Unix(), Jti: row.Current, Epoch: row.Epoch})
	return tokens{access, refresh}, err
}

// staleSessions lists the session rows of an account that have expired or are too many.
func (s *Service) staleSessions(did syntax.DID) ([][]byte, error) {
	lo := sessionKey(did, "")
	it := s.store.Iter(lo, kv.PrefixEnd(lo))
	defer it.Close()
	type seen struct {
		key     []byte
		rotated time.Time
	}
	now := s.world.Clock.Now()
	var live []seen
	var stale [][]byte
	for ok := it.First(); ok; ok = it.Next() {
		key := append([]byte(nil), it.Key()...)
		var row session
		if err := json.Unmarshal(it.Value(), &row); err != nil {
			return nil, fmt.Errorf("session of %s: %w", did, errCorrupt)
		}
		if row.Expires.Before(now) {
			stale = append(stale, key)
			continue
		}
		live = append(live, seen{key, row.Rotated})
	}
	for len(live) >= maxSessions {
		oldest := 0
		for i := range live {
			if live[i].rotated.Before(live[oldest].rotated) {
				oldest = i
			}
		}
		stale = append(stale, live[oldest].key)
		live = append(live[:oldest], live[oldest+1:]...)
	}
	return stale, it.Err()
}

// rotate exchanges a refresh token for the next pair. A token that was exchanged before is refused, and takes its whole session with it:
// either its holder or the holder of the successor stole it.
func (s *Service) rotate(ctx context.Context, info authInfo) (tokens, scope, error) {
	defer s.accounts.sessions.lock(info.session)()
	// A password that is revoked meanwhile takes the session along, instead of having it written again.
	defer s.lockAppPasswords(info.DID)()
	revoked := refuse(http.StatusBadRequest, "ExpiredToken", "the token has been revoked")
	row, err := s.loadSession(info.DID, info.session)
	if err != nil {
		return tokens{}, "", err
	}
	if row == nil {
		return tokens{}, "", revoked
	}
	now := s.world.Clock.Now()
	switch {
	case info.jti == row.Current:
		row.Previous, row.Current = row.Current, info.session+"."+s.randomName(16)
		row.Rotated, row.Expires = now, now.Add(refreshLife)
	case info.jti == row.Previous && now.Sub(row.Rotated) <= s.refreshGrace():
		t, err := s.issue(info.DID, row)
		return t, row.Scope, err
	default:
		if err := s.endSession(ctx, info.DID, info.session); err != nil {
			return tokens{}, "", err
		}
		s.world.Log.Warn("refresh token used twice: session ended", "did", info.DID)
		return tokens{}, "", revoked
	}
	t, err := s.issue(info.DID, row)
	if err != nil {
		return tokens{}, "", err
	}
	return t, row.Scope, s.write(ctx, func(b kv.Batch) { row.put(b, info.DID, info.session) })
}

func (s *Service) refreshGrace() time.Duration {
	if g := s.cfg.Accounts.RefreshGrace; g > 0 {
		return g
	}
	return 2 * time.Minute
}

func (s *Service) loadSession(did syntax.DID, sid string) (*session, error) {
	v, err := s.store.Get(sessionKey(did, sid))
	if errors.Is(err, kv.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading a session of %s: %w", did, err)
	}
	row := new(session)
	if err := json.Unmarshal(v, row); err != nil {
		return nil, fmt.Errorf("session of %s: %w", did, errCorrupt)
	}
	return row, nil
}

func (s *Service) endSession(ctx context.Context, did syntax.DID, sid string) error {
	return s.write(ctx, func(b kv.Batch) { b.Delete(sessionKey(did, sid)) })
}
