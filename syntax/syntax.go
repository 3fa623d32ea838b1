// Package syntax checks and takes apart the identifiers and string formats of the AT Protocol.
//
// Specifications: https://atproto.com/specs/did, /specs/handle, /specs/nsid, /specs/record-key, /specs/tid,
// /specs/at-uri-scheme and the string formats of https://atproto.com/specs/lexicon#string-formats.
//
// Every type is a string, so that the spelling survives a round trip; nothing is normalised unless Normalize is called. So they
// are text to encoding/json and database/sql, comparable and ordered, and like any conversion these check nothing: what comes
// from outside goes through a Parse function.
// The Parse functions are strict and do not allocate for valid input. Nothing here resolves an identifier: a DID that
// parses may not exist, and a handle that parses may be under a reserved top-level domain.
//
//	u, err := syntax.ParseATURI("at://alice.test/app.bsky.feed.post/3jzfcijpj2z2a")
//	u.Authority()  // "alice.test"
//	u.Collection() // "app.bsky.feed.post"
//	rev := clock.Next(now) // clock is a syntax.TIDClock
//
// Limits: see the Max constants. The API is stable.
package syntax

import (
	"strconv"
	"strings"
)

// Longest accepted values, in bytes.
const (
	MaxDID       = 2048
	MaxHandle    = 253
	MaxNSID      = 317
	MaxRecordKey = 512
	MaxURI       = 8192 // URIs and AT-URIs
	MaxDatetime  = 64
	MaxPath      = MaxNSID + 1 + MaxRecordKey
)

// Kind names a string format; the values are the format names of the lexicon language.
type Kind string

// The kinds that this package knows.
const (
	KindAtIdentifier Kind = "at-identifier"
	KindATURI        Kind = "at-uri"
	KindCID          Kind = "cid"
	KindDatetime     Kind = "datetime"
	KindDID          Kind = "did"
	KindHandle       Kind = "handle"
	KindLanguage     Kind = "language"
	KindNSID         Kind = "nsid"
	KindRecordKey    Kind = "record-key"
	KindTID          Kind = "tid"
	KindURI          Kind = "uri"
	KindPath         Kind = "path" // a repository path; not a lexicon format
)

// Error tells why a string is not of a kind. Every Parse function returns this type.
type Error struct {
	Kind   Kind
	Input  string
	Reason string
}

// Error gives the reason and the input, which is shortened when it is long.
func (e *Error) Error() string {
	in := e.Input
	if len(in) > 80 {
		in = in[:77] + "..."
	}
	return "invalid " + string(e.Kind) + " " + strconv.Quote(in) + ": " + e.Reason
}

// text lets one check serve strings and views into received bytes.
type text interface{ ~string | ~[]byte }

func parse[T ~string](k Kind, s, reason string) (T, error) {
	if reason != "" {
		return "", &Error{Kind: k, Input: s, Reason: reason}
	}
	return T(s), nil
}

// Character classes; a byte may be in several.
const (
	cLower  = 1 << iota
	cUpper  //
	cDigit  //
	cHyphen //
	cDID    // of a DID: letters, digits, . _ : % -
	cKey    // of a record key: letters, digits, . _ : ~ -
	cScheme // + - .
)

const (
	cLetter = cLower | cUpper
	cAlnum  = cLetter | cDigit
	cHost   = cAlnum | cHyphen
)

var class = func() (t [256]uint8) {
	for c := 'a'; c <= 'z'; c++ {
		t[c] = cLower | cDID | cKey
	}
	for c := 'A'; c <= 'Z'; c++ {
		t[c] = cUpper | cDID | cKey
	}
	for c := '0'; c <= '9'; c++ {
		t[c] = cDigit | cDID | cKey
	}
	t['-'] = cHyphen
	for set, chars := range map[uint8]string{cDID: "._:%-", cKey: "._:~-", cScheme: "+-."} {
		for i := range len(chars) {
			t[chars[i]] |= set
		}
	}
	return t
}()

// span returns the index of the first byte from the i-th on that isn't in the set, which is one bit of the classes. It looks at eight bytes at a time as long as it can.
func span[S text](s S, i int, set uint8) int {
	for len(s)-i >= 8 {
		g := s[i : i+8]
		if class[g[0]]&class[g[1]]&class[g[2]]&class[g[3]]&class[g[4]]&class[g[5]]&class[g[6]]&class[g[7]]&set == 0 {
			break
		}
		i += 8
	}
	for i < len(s) && class[s[i]]&set != 0 {
		i++
	}
	return i
}

// CheckFormat reports whether s is of the lexicon string format k: nil or an *[Error]. It differs from the Parse functions in
// one format: language asks for well-formed tags only, not valid ones. Formats that are not known pass, because a newer
// schema may name one.
func CheckFormat(k Kind, s string) error {
	var reason string
	switch k {
	case KindAtIdentifier:
		reason = checkAtIdentifier(s)
	case KindATURI:
		reason = checkATURI(s)
	case KindCID:
		reason = checkCID(s)
	case KindDatetime:
		reason = checkDatetime(s)
	case KindDID:
		reason = checkDID(s)
	case KindHandle:
		reason = checkHandle(s)
	case KindLanguage:
		reason = checkLanguage(s, false)
	case KindNSID:
		reason = checkNSID(s)
	case KindRecordKey:
		reason = checkRecordKey(s)
	case KindTID:
		reason = checkTID(s)
	case KindURI:
		reason = checkURI(s)
	case KindPath:
		reason = checkPath(s)
	}
	_, err := parse[string](k, s, reason)
	return err
}

// ValidCID reports whether s looks like a CID string in any multibase but the old CIDv0 form. It is what the lexicon
// format cid asks for; the CIDs of repositories are read by package cid.
func ValidCID[S ~string | ~[]byte](s S) bool { return checkCID(s) == "" }

func checkCID[S text](s S) string {
	if len(s) < 8 || len(s) > 256 {
		return "length must be 8 to 256"
	}
	if s[0] == 'Q' && s[1] == 'm' {
		return "version 0 is not supported"
	}
	for i := range len(s) {
		if class[s[i]]&cAlnum == 0 && s[i] != '+' && s[i] != '=' {
			return "character outside multibase alphabets"
		}
	}
	return ""
}

// URI is a generic URI of printable ASCII (RFC 3986 scheme, then anything).
type URI string

// ParseURI reads a URI.
func ParseURI(s string) (URI, error) { return parse[URI](KindURI, s, checkURI(s)) }

// ValidURI reports whether s is a URI in the sense of [ParseURI].
func ValidURI[S ~string | ~[]byte](s S) bool { return checkURI(s) == "" }

// Scheme returns the part before the first colon.
func (u URI) Scheme() string {
	s, _, _ := strings.Cut(string(u), ":")
	return s
}

func checkURI[S text](s S) string {
	if len(s) > MaxURI {
		return "longer than 8192 bytes"
	}
	if len(s) == 0 || class[s[0]]&cLetter == 0 {
		return "scheme must start with a letter"
	}
	i := 1
	for i < len(s) && class[s[i]]&(cAlnum|cScheme) != 0 {
		i++
	}
	if i == len(s) || s[i] != ':' {
		return "no scheme"
	}
	if i++; i == len(s) {
		return "nothing after the scheme"
	}
	for ; i < len(s); i++ {
		if s[i] <= ' ' || s[i] > '~' {
			return "character outside printable ASCII"
		}
	}
	return ""
}
