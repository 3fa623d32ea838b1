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
	"unicode"
	"unicode/utf8"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// App passwords let a program in without the account's password, https://atproto.com/specs/xrpc#app-passwords. What they open can't manage
// the account, and ends when the password is revoked: at once, because the access tokens of their sessions are only good while the
// session is there.

const (
	maxAppPasswords    = 100
	maxAppPasswordName = 128
	appPasswordGroups  = 4 // of four letters: 80 bits
)

// appPassword is one of an account's app passwords. It is random enough that a plain digest of it can't be undone, so that signing in with
// one doesn't take a slow hash for each of them.
type appPassword struct {
	Digest     []byte    `json:"digest"`
	Privileged bool      `json:"privileged,omitempty"`
	Created    time.Time `json:"created"`
}

func appPasswordKey(did syntax.DID, name string) []byte {
	return []byte(rowAppPassword + string(did) + "/" + name)
}

func appPasswordDigest(did syntax.DID, password string) []byte {
	sum := sha256.Sum256([]byte("app password of " + string(did) + "\x00" + password))
	return sum[:]
}

// lockAppPasswords holds an account's app passwords, and the sessions they made, as they are.
func (s *Service) lockAppPasswords(did syntax.DID) (unlock func()) {
	return s.accounts.changes.lock("app passwords " + string(did))
}

// appPasswords goes through an account's app passwords in the order of their names, until f returns false.
func (s *Service) appPasswords(did syntax.DID, f func(name string, p *appPassword) bool) error {
	lo := appPasswordKey(did, "")
	it := s.store.Iter(lo, kv.PrefixEnd(lo))
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		var p appPassword
		if err := json.Unmarshal(it.Value(), &p); err != nil {
			return fmt.Errorf("app password of %s: %w", did, errCorrupt)
		}
		if !f(string(it.Key()[len(lo):]), &p) {
			break
		}
	}
	return it.Err()
}

// findAppPassword gives the name of the app password that password is; found is false when it is none of the account's.
func (s *Service) findAppPassword(did syntax.DID, password string) (name string, sc scope, found bool, err error) {
	if len(password) != appPasswordGroups*5-1 || strings.Count(password, "-") != appPasswordGroups-1 {
		return "", "", false, nil
	}
	digest := appPasswordDigest(did, password)
	err = s.appPasswords(did, func(n string, p *appPassword) bool {
		if subtle.ConstantTimeCompare(p.Digest, digest) == 1 {
			name, sc, found = n, scopeAppPass, true
			if p.Privileged {
				sc = scopeAppPassPrivileged
			}
		}
		return true
	})
	return name, sc, found, err
}

// createAppPassword is com.atproto.server.createAppPassword. The answer is the only place where the password can be read.
func (s *Service) createAppPassword(ctx context.Context, r *xrpc.Request, in *comatproto.ServerCreateAppPassword_Input) (*comatproto.ServerCreateAppPassword_Output, error) {
	info, err := s.requireAuth(r.Request, scopeAccess)
	if err != nil {
		return nil, err
	}
	if err := s.limitBy(r, "appPasswords", string(info.DID)); err != nil {
		return nil, err
	}
	if in.Name == "" || len(in.Name) > maxAppPasswordName || !utf8.ValidString(in.Name) || strings.ContainsFunc(in.Name, unicode.IsControl) {
		return nil, invalid("name: want up to %d bytes without control characters", maxAppPasswordName)
	}
	defer s.lockAppPasswords(info.DID)()
	n, taken := 0, false
	err = s.appPasswords(info.DID, func(name string, _ *appPassword) bool {
		n++
		taken = taken || name == in.Name
		return true
	})
	switch {
	case err != nil:
		return nil, err
	case taken:
		return nil, invalid("there is an app password of this name")
	case n >= maxAppPasswords:
		return nil, invalid("an account has at most %d app passwords: revoke one", maxAppPasswords)
	}
	letters := s.randomName(appPasswordGroups * 4 * 5 / 8)
	groups := make([]string, appPasswordGroups)
	for i := range groups {
		groups[i] = letters[4*i : 4*i+4]
	}
	password := strings.Join(groups, "-")
	p := appPassword{Digest: appPasswordDigest(info.DID, password), Privileged: value(in.Privileged), Created: s.world.Clock.Now().UTC()}
	row, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	if err := s.write(ctx, func(b kv.Batch) { b.Set(appPasswordKey(info.DID, in.Name), row) }); err != nil {
		return nil, err
	}
	return &comatproto.ServerCreateAppPassword_Output{Name: in.Name, Password: password, CreatedAt: datetime(p.Created), Privileged: new(p.Privileged)}, nil
}

// listAppPasswords is com.atproto.server.listAppPasswords.
func (s *Service) listAppPasswords(_ context.Context, r *xrpc.Request, _ *xrpc.None) (*comatproto.ServerListAppPasswords_Output, error) {
	info, err := s.requireAuth(r.Request, scopeAccess)
	if err != nil {
		return nil, err
	}
	out := &comatproto.ServerListAppPasswords_Output{Passwords: []comatproto.ServerListAppPasswords_AppPassword{}}
	err = s.appPasswords(info.DID, func(name string, p *appPassword) bool {
		out.Passwords = append(out.Passwords, comatproto.ServerListAppPasswords_AppPassword{
			Name: name, CreatedAt: datetime(p.Created), Privileged: new(p.Privileged),
		})
		return true
	})
	return out, err
}

// revokeAppPassword is com.atproto.server.revokeAppPassword. The password and all sessions it made end in one batch. One that isn't there
// is revoked already.
func (s *Service) revokeAppPassword(ctx context.Context, r *xrpc.Request, in *comatproto.ServerRevokeAppPassword_Input) (*xrpc.None, error) {
	info, err := s.requireAuth(r.Request, scopeAccess)
	if err != nil {
		return nil, err
	}
	if in.Name == "" || len(in.Name) > maxAppPasswordName {
		return nil, nil // no app password has such a name
	}
	defer s.lockAppPasswords(info.DID)()
	_, err = s.store.Get(appPasswordKey(info.DID, in.Name))
	if errors.Is(err, kv.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading an app password of %s: %w", info.DID, err)
	}
	lo := sessionKey(info.DID, "")
	it := s.store.Iter(lo, kv.PrefixEnd(lo))
	defer it.Close()
	var ended [][]byte
	for ok := it.First(); ok; ok = it.Next() {
		var row session
		if err := json.Unmarshal(it.Value(), &row); err != nil {
			return nil, fmt.Errorf("session of %s: %w", info.DID, errCorrupt)
		}
		if row.App == in.Name {
			ended = append(ended, append([]byte(nil), it.Key()...))
		}
	}
	if err := it.Err(); err != nil {
		return nil, err
	}
	return nil, s.write(ctx, func(b kv.Batch) {
		b.Delete(appPasswordKey(info.DID, in.Name))
		for _, k := range ended {
			b.Delete(k)
		}
	})
}

// checkAppSession refuses an access token of an app password whose session has ended.
func (s *Service) checkAppSession(info authInfo, jti string) error {
	sid, _, _ := strings.Cut(jti, ".")
	row, err := s.loadSession(info.DID, sid)
	if err != nil {
		return err
	}
	if row == nil || row.Scope != info.Scope {
		return refuse(http.StatusBadRequest, "ExpiredToken", "the token has been revoked")
	}
	return nil
}

// isApp reports whether a session of this scope was made with an app password.
func (sc scope) isApp() bool { return sc == scopeAppPass || sc == scopeAppPassPrivileged }
