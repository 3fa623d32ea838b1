package auth

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/barograph/baro/syntax"
)

// maxToken is the longest token that is kept or looked into, in bytes.
const maxToken = 16 << 10

// Session is what a login gives: whoever has it acts for the account. Printing and logging it shows no token; its JSON form,
// which a store keeps, does.
type Session struct {
	DID     syntax.DID    `json:"did"`
	Handle  syntax.Handle `json:"handle"` // as the server said; for people
	PDS     string        `json:"pds"`    // origin, such as "https://pds.example"
	Access  string        `json:"access"`
	Refresh string        `json:"refresh"`
}

// Check tells whether the session may be used.
func (s Session) Check() error {
	if _, err := syntax.ParseDID(string(s.DID)); err != nil {
		return fmt.Errorf("a session without a valid DID: %w", err)
	}
	if s.Handle != "" && !syntax.ValidHandle(s.Handle) {
		return fmt.Errorf("a session with the handle %q, which is none", s.Handle)
	}
	if _, err := originOf(s.PDS); err != nil {
		return err
	}
	for _, t := range []string{s.Access, s.Refresh} {
		// A token goes into a header.
		if t == "" || len(t) > maxToken || strings.ContainsFunc(t, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			return errors.New("a session without valid tokens")
		}
	}
	return nil
}

// String shows no token.
func (s Session) String() string {
	return fmt.Sprintf("session of %s (%s) at %s", s.DID, s.Handle, s.PDS)
}

// GoString shows no token.
func (s Session) GoString() string { return s.String() }

// LogValue shows no token.
func (s Session) LogValue() slog.Value {
	return slog.GroupValue(slog.String("did", string(s.DID)), slog.String("handle", string(s.Handle)), slog.String("pds", s.PDS), slog.String("tokens", "[redacted]"))
}

// AccessExpires returns when the access token expires. It is false if the token doesn't tell.
func (s Session) AccessExpires() (time.Time, bool) { return expiry(s.Access) }

// RefreshExpires returns when the refresh token expires. It is false if the token doesn't tell.
func (s Session) RefreshExpires() (time.Time, bool) { return expiry(s.Refresh) }

// expiry reads the exp claim of a JWT, without verifying anything: the token is the server's own business.
func expiry(token string) (time.Time, bool) {
	if len(token) > maxToken {
		return time.Time{}, false
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}, false
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}, false
	}
	var claims struct {
		Exp json.Number `json:"exp"`
	}
	if json.Unmarshal(b, &claims) != nil {
		return time.Time{}, false
	}
	exp, err := claims.Exp.Int64()
	if err != nil || exp <= 0 || exp > 1<<40 {
		return time.Time{}, false
	}
	return time.Unix(exp, 0), true
}

// compatSeparator stands between the fields of a session string.
const compatSeparator = ":::"

// CompatString returns the session in the one-line form that the Python client atproto exports and imports. It holds the
// tokens.
func (s Session) CompatString() string {
	return strings.Join([]string{string(s.Handle), string(s.DID), s.Access, s.Refresh, s.PDS}, compatSeparator)
}

// ParseCompatString reads the one-line form of the Python client atproto. A string of the older form, without a PDS, is one
// of https://bsky.social.
func ParseCompatString(text string) (Session, error) {
	f := strings.Split(strings.TrimSpace(text), compatSeparator)
	if len(f) == 4 {
		f = append(f, "https://bsky.social")
	}
	if len(f) != 5 {
		return Session{}, fmt.Errorf("a session string has 4 or 5 fields, this one has %d", len(f))
	}
	origin, err := originOf(strings.TrimSuffix(strings.TrimRight(f[4], "/"), "/xrpc"))
	if err != nil {
		return Session{}, err
	}
	s := Session{Handle: syntax.Handle(f[0]), DID: syntax.DID(f[1]), Access: f[2], Refresh: f[3], PDS: origin}
	if strings.Contains(s.Access+s.Refresh, ":") {
		return Session{}, errors.New("a session string whose tokens could not be told from what is between them")
	}
	return s, s.Check()
}
