package auth

import (
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
	// Suffix is what followed the PDS in the session string that this was read from, "/xrpc" or "". Only CompatString uses
	// it, so that the string comes out as it went in.
	Suffix string `json:"suffix,omitempty"`
	// Grant is nil unless OAuth made the session. Then the tokens are of use only together with it, Refresh may be "", and
	// the one-line form of [Session.CompatString] leaves out what matters.
	Grant *Grant `json:"grant,omitempty"`
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
	if s.Suffix != "" && s.Suffix != xrpcSuffix {
		return fmt.Errorf("a session whose PDS is followed by %.64q", s.Suffix)
	}
	// Sending one for the other would tell a server that has no business with it the token that makes all others.
	if c, ok := s.AccessClaims(); ok && c.Type == typeRefresh {
		return errors.New("a session with a refresh token in the place of the access token")
	}
	if c, ok := s.RefreshClaims(); ok && c.Type == typeAccess {
		return errors.New("a session with an access token in the place of the refresh token")
	}
	tokens := []string{s.Access, s.Refresh}
	if s.Grant != nil {
		if err := s.Grant.check(); err != nil {
			return err
		}
		if s.Refresh == "" { // a client may do without
			tokens = tokens[:1]
		}
	}
	for _, t := range tokens {
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

// Types of tokens, as they say themselves.
const (
	typeAccess  = "at+jwt"
	typeRefresh = "refresh+jwt"
)

// Claims are what a token says of itself. Nothing of it is verified: the tokens of a session are its server's own business.
type Claims struct {
	Type     string // "at+jwt" or "refresh+jwt"; "" at servers that don't say
	Issuer   string
	Subject  string // the account's DID
	Audience string // the PDS's DID
	Scope    string // what the token allows, such as "com.atproto.appPass"
	ID       string
	Issued   time.Time // zero if the token doesn't say
	Expires  time.Time // zero if the token doesn't say
}

// AccessClaims returns what the access token says of itself. It is false if that isn't a JWT.
func (s Session) AccessClaims() (Claims, bool) { return claimsOf(s.Access) }

// RefreshClaims returns what the refresh token says of itself. It is false if that isn't a JWT.
func (s Session) RefreshClaims() (Claims, bool) { return claimsOf(s.Refresh) }

// AccessExpires returns when the access token expires. It is false if the token doesn't tell.
func (s Session) AccessExpires() (time.Time, bool) {
	if s.Grant != nil { // the tokens of OAuth are for servers to read
		return s.Grant.Expires, !s.Grant.Expires.IsZero()
	}
	return expiry(s.Access)
}

// RefreshExpires returns when the refresh token expires. It is false if the token doesn't tell.
func (s Session) RefreshExpires() (time.Time, bool) { return expiry(s.Refresh) }

func expiry(token string) (time.Time, bool) {
	c, ok := claimsOf(token)
	return c.Expires, ok && !c.Expires.IsZero()
}

func claimsOf(token string) (Claims, bool) {
	j, err := splitJWT(token)
	if err != nil {
		return Claims{}, false
	}
	return Claims{
		Type: j.header.Typ, Issuer: j.claims.Iss, Subject: j.claims.Sub, Audience: j.claims.audience(), Scope: j.claims.Scope, ID: j.claims.Jti,
		Issued: moment(j.claims.Iat), Expires: moment(j.claims.Exp),
	}, true
}

// Version of the text of a session.
const textVersion = 1

type sessionText struct {
	Version int `json:"version"`
	Session
}

// Text returns the session in one line of JSON, for [ParseSession]. It holds the tokens.
func (s Session) Text() (string, error) {
	b, err := json.Marshal(sessionText{textVersion, s})
	if err != nil {
		return "", fmt.Errorf("encoding a session: %w", err)
	}
	return string(b), nil
}

// ParseSession reads what [Session.Text] or [Session.CompatString] wrote.
func ParseSession(text string) (Session, error) {
	text = strings.TrimSpace(text)
	if !strings.HasPrefix(text, "{") {
		return ParseCompatString(text)
	}
	var s sessionText
	switch {
	case len(text) > maxFile:
		return Session{}, fmt.Errorf("a session of more than %d bytes", maxFile)
	case json.Unmarshal([]byte(text), &s) != nil: // the error itself may quote a token
		return Session{}, errors.New("the text of a session is damaged")
	case s.Version != textVersion:
		return Session{}, fmt.Errorf("the text of a session has version %d, this program knows %d", s.Version, textVersion)
	}
	return s.Session, s.Check()
}

// compatSeparator stands between the fields of a session string, and xrpcSuffix may stand at its end.
const (
	compatSeparator = ":::"
	xrpcSuffix      = "/xrpc"
)

// CompatString returns the session in the one-line form that the Python client atproto exports and imports. It holds the
// tokens.
func (s Session) CompatString() string {
	return strings.Join([]string{string(s.Handle), string(s.DID), s.Access, s.Refresh, s.PDS + s.Suffix}, compatSeparator)
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
	pds, suffix := strings.TrimRight(f[4], "/"), ""
	if cut, ok := strings.CutSuffix(pds, xrpcSuffix); ok {
		pds, suffix = cut, xrpcSuffix
	}
	origin, err := originOf(pds)
	if err != nil {
		return Session{}, err
	}
	s := Session{Handle: syntax.Handle(f[0]), DID: syntax.DID(f[1]), Access: f[2], Refresh: f[3], PDS: origin, Suffix: suffix}
	if strings.Contains(s.Access+s.Refresh, ":") {
		return Session{}, errors.New("a session string whose tokens could not be told from what is between them")
	}
	return s, s.Check()
}
