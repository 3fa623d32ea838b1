package syntax

import "strings"

// ATURI points at a repository, a collection or a record: "at://alice.test/app.bsky.feed.post/3jzfcijpj2z2a".
type ATURI string

const atScheme = "at://"

// ParseATURI reads the restricted form that records hold: no query, no fragment, no trailing slash.
func ParseATURI(s string) (ATURI, error) { return parse[ATURI](KindATURI, s, checkATURI(s)) }

// ValidATURI reports whether s is an AT-URI of the restricted form.
func ValidATURI[S ~string | ~[]byte](s S) bool { return checkATURI(s) == "" }

func checkATURI[S text](s S) string {
	if len(s) > MaxURI {
		return "longer than 8192 bytes"
	}
	if len(s) < len(atScheme) || string(s[:len(atScheme)]) != atScheme {
		return `must start with "at://"`
	}
	// Each part is checked and ends in one pass.
	rest := s[len(atScheme):]
	i, r := 0, ""
	if isDID(rest) {
		if i, r = spanDID(rest); r == "" && i < len(rest) && rest[i] != '/' {
			r = "character not allowed"
		}
	} else {
		i = slash(rest)
		r = checkHandle(rest[:i])
	}
	if r != "" {
		return "authority: " + r
	}
	if i == len(rest) {
		return ""
	}
	rest = rest[i+1:]
	if len(rest) == 0 || rest[0] == '/' {
		return "empty path segment"
	}
	if i, r = spanNSID(rest); r == "" && i < len(rest) && rest[i] != '/' {
		r = "character not allowed"
	}
	if r != "" {
		return "collection: " + r
	}
	if i == len(rest) {
		return ""
	}
	if r := checkRecordKey(rest[i+1:]); r != "" {
		return "record key: " + r
	}
	return ""
}

// slash returns the index of the first slash, or the length.
func slash[S text](s S) int {
	for i := range len(s) {
		if s[i] == '/' {
			return i
		}
	}
	return len(s)
}

// NewATURI joins parts that have been parsed; collection and rkey may be empty, rkey must be when collection is.
func NewATURI(authority AtIdentifier, collection NSID, rkey RecordKey) ATURI {
	switch {
	case collection == "":
		return ATURI(atScheme + string(authority))
	case rkey == "":
		return ATURI(atScheme + string(authority) + "/" + string(collection))
	}
	return ATURI(atScheme + string(authority) + "/" + string(collection) + "/" + string(rkey))
}

// ReadATURI is the forgiving parser for what a person types or pastes: it drops surrounding space, an at sign before a
// handle, query, fragment and trailing slashes, adds a missing scheme, and then wants a restricted AT-URI. Never use it on records.
func ReadATURI(s string) (ATURI, error) {
	t := strings.TrimSpace(s)
	if len(t) >= len(atScheme) && strings.EqualFold(t[:len(atScheme)], atScheme) {
		t = t[len(atScheme):]
	}
	if i := strings.IndexAny(t, "?#"); i >= 0 {
		t = t[:i]
	}
	t = atScheme + strings.TrimPrefix(strings.TrimRight(t, "/"), "@")
	return parse[ATURI](KindATURI, t, checkATURI(t))
}

func (u ATURI) split() (authority, collection, rkey string) {
	s := strings.TrimPrefix(string(u), atScheme)
	authority, s, _ = strings.Cut(s, "/")
	collection, rkey, _ = strings.Cut(s, "/")
	return authority, collection, rkey
}

// Authority returns the DID or handle.
func (u ATURI) Authority() AtIdentifier { a, _, _ := u.split(); return AtIdentifier(a) }

// Collection returns the collection, "" if there is none.
func (u ATURI) Collection() NSID { _, c, _ := u.split(); return NSID(c) }

// RecordKey returns the record key, "" if there is none.
func (u ATURI) RecordKey() RecordKey { _, _, k := u.split(); return RecordKey(k) }

// WithAuthority returns u in the repository of another account, or of the same under another name: of the DID that a handle led
// to, for example.
func (u ATURI) WithAuthority(a AtIdentifier) ATURI {
	_, c, k := u.split()
	return NewATURI(a, NSID(c), RecordKey(k))
}

// Path returns the repository path "collection/rkey", or the collection alone, or "".
func (u ATURI) Path() string {
	_, p, _ := strings.Cut(strings.TrimPrefix(string(u), atScheme), "/")
	return p
}

// Normalize returns u with a handle and the collection's authority in lower case.
func (u ATURI) Normalize() ATURI {
	a, c, k := u.split()
	if c != "" {
		c = string(NSID(c).Normalize())
	}
	return NewATURI(AtIdentifier(a).Normalize(), NSID(c), RecordKey(k))
}
