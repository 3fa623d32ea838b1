package syntax

import "strings"

// DID is a decentralized identifier, case-sensitive: "did:plc:…", "did:web:…" or another method.
type DID string

// ParseDID reads a DID of any method. Percent encoding is not checked.
func ParseDID(s string) (DID, error) {
	if DID(s).IsPLC() {
		return DID(s), nil
	}
	return parse[DID](KindDID, s, checkDID(s))
}

// ValidDID reports whether s is a DID.
func ValidDID[S ~string | ~[]byte](s S) bool { return checkDID(s) == "" }

func checkDID[S text](s S) string {
	n, reason := spanDID(s)
	if reason == "" && n < len(s) {
		return "character not allowed"
	}
	return reason
}

// spanDID checks the DID that s begins with, and returns its length: up to the first byte that no DID has.
func spanDID[S text](s S) (int, string) {
	if n := spanPLC(s); n > 0 && (n == len(s) || class[s[n]]&cDID == 0) {
		return n, ""
	}
	if len(s) < 4 || s[0] != 'd' || s[1] != 'i' || s[2] != 'd' || s[3] != ':' {
		return 0, `must start with "did:"`
	}
	i := 4
	for i < len(s) && class[s[i]]&cLower != 0 {
		i++
	}
	if i == 4 || i == len(s) || s[i] != ':' {
		return 0, "method must be lower-case letters and end with a colon"
	}
	i++
	start := i
	i = span(s, i, cDID)
	switch {
	case i > MaxDID:
		return 0, "longer than 2048 bytes"
	case i == start:
		return 0, "nothing after the method"
	case s[i-1] == ':' || s[i-1] == '%':
		return 0, "must not end with a colon or percent sign"
	}
	return i, ""
}

// sizePLC is the length of a did:plc: the method, and 24 characters of base32.
const sizePLC = 32

// spanPLC returns sizePLC if s begins with a well-formed did:plc, and otherwise 0. Nearly all DIDs are of that method, and it
// has a fixed form, so that eight characters can be looked at in one word.
func spanPLC[S text](s S) int {
	if len(s) < sizePLC || word(s, 0) != 'd'|'i'<<8|'d'<<16|':'<<24|'p'<<32|'l'<<40|'c'<<48|':'<<56 ||
		notBase32(word(s, 8))|notBase32(word(s, 16))|notBase32(word(s, 24)) != 0 {
		return 0
	}
	return sizePLC
}

// word returns the eight bytes at s[i], the first one lowest.
func word[S text](s S, i int) uint64 {
	_ = s[i+7]
	return uint64(s[i]) | uint64(s[i+1])<<8 | uint64(s[i+2])<<16 | uint64(s[i+3])<<24 |
		uint64(s[i+4])<<32 | uint64(s[i+5])<<40 | uint64(s[i+6])<<48 | uint64(s[i+7])<<56
}

// notBase32 returns a word with the highest bit of each byte set that is not one of a to z and 2 to 7. To an ASCII byte,
// 0x80−c is added to see in that bit whether it is c or above; no sum is carried into the next byte.
func notBase32(w uint64) uint64 {
	const each, top = 0x0101010101010101, 0x8080808080808080
	v := w &^ top
	letter := (v + each*(0x80-'a')) &^ (v + each*(0x80-'z'-1))
	digit := (v + each*(0x80-'2')) &^ (v + each*(0x80-'7'-1))
	return (w | ^(letter | digit)) & top
}

// Method returns the method name, such as "plc".
func (d DID) Method() string {
	m, _, _ := strings.Cut(strings.TrimPrefix(string(d), "did:"), ":")
	return m
}

// Identifier returns what follows the method, such as a base32 string (plc) or a host name (web).
func (d DID) Identifier() string {
	_, id, _ := strings.Cut(strings.TrimPrefix(string(d), "did:"), ":")
	return id
}

// IsPLC reports whether d is a well-formed did:plc: 24 characters of lower-case base32 after the method.
func (d DID) IsPLC() bool { return len(d) == sizePLC && spanPLC(d) == sizePLC }

// Host returns the host of a did:web, with a port only for localhost ("localhost:2583"). It is not ok for other
// methods, for paths, and for ports on other hosts, which the protocol does not allow.
func (d DID) Host() (host string, ok bool) {
	rest, found := strings.CutPrefix(string(d), "did:web:")
	if !found {
		return "", false
	}
	host, port, hasPort := strings.Cut(rest, "%3A")
	if host == "localhost" {
		if !hasPort {
			return host, true
		}
		if port == "" || len(port) > 5 || strings.Trim(port, "0123456789") != "" {
			return "", false
		}
		return host + ":" + port, true
	}
	return host, !hasPort && checkHandle(host) == ""
}

// Handle is a host name that stands for an account. It is compared without regard to case: see [Handle.Normalize].
type Handle string

// InvalidHandle stands in for the handle of an account that has none confirmed.
const InvalidHandle Handle = "handle.invalid"

// ParseHandle reads a handle. Reserved top-level domains pass: see [Handle.Reserved].
func ParseHandle(s string) (Handle, error) { return parse[Handle](KindHandle, s, checkHandle(s)) }

// ValidHandle reports whether s is a handle.
func ValidHandle[S ~string | ~[]byte](s S) bool { return checkHandle(s) == "" }

func checkHandle[S text](s S) string {
	n := len(s)
	if n > MaxHandle {
		return "longer than 253 bytes"
	}
	start, labels := 0, 0
	for i := 0; ; i++ {
		if i < n && s[i] != '.' {
			if class[s[i]]&cHost == 0 {
				return "character not allowed"
			}
			continue
		}
		switch {
		case i == start:
			return "empty label"
		case i-start > 63:
			return "label longer than 63 bytes"
		case s[start] == '-' || s[i-1] == '-':
			return "label must not start or end with a hyphen"
		}
		labels++
		if i == n {
			break
		}
		start = i + 1
	}
	if labels < 2 {
		return "must have at least two labels"
	}
	if class[s[start]]&cLetter == 0 {
		return "last label must start with a letter"
	}
	return ""
}

// Normalize returns h in lower case.
func (h Handle) Normalize() Handle { return Handle(lower(string(h))) }

// TLD returns the last label, in lower case.
func (h Handle) TLD() string { return lower(string(h[strings.LastIndexByte(string(h), '.')+1:])) }

// Reserved reports whether h is under a top-level domain that can never be registered or resolved. The domain .test is
// not among them: it is for development, and whether it is allowed is the caller's decision.
func (h Handle) Reserved() bool {
	switch h.TLD() {
	case "alt", "arpa", "example", "internal", "invalid", "local", "localhost", "onion":
		return true
	}
	return false
}

// lower maps A-Z to a-z and returns s itself when there is nothing to map.
func lower(s string) string {
	for i := range len(s) {
		if class[s[i]]&cUpper != 0 {
			b := []byte(s)
			for ; i < len(b); i++ {
				if class[b[i]]&cUpper != 0 {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

// AtIdentifier is a DID or a handle.
type AtIdentifier string

// ParseAtIdentifier reads a DID or a handle; "did:" tells them apart.
func ParseAtIdentifier(s string) (AtIdentifier, error) {
	return parse[AtIdentifier](KindAtIdentifier, s, checkAtIdentifier(s))
}

func checkAtIdentifier[S text](s S) string {
	if isDID(s) {
		return checkDID(s)
	}
	return checkHandle(s)
}

func isDID[S text](s S) bool {
	return len(s) >= 4 && s[0] == 'd' && s[1] == 'i' && s[2] == 'd' && s[3] == ':'
}

// IsDID reports whether the identifier is a DID rather than a handle.
func (a AtIdentifier) IsDID() bool { return strings.HasPrefix(string(a), "did:") }

// DID returns the identifier as a DID, "" if it is a handle.
func (a AtIdentifier) DID() DID {
	if a.IsDID() {
		return DID(a)
	}
	return ""
}

// Handle returns the identifier as a handle, "" if it is a DID.
func (a AtIdentifier) Handle() Handle {
	if a.IsDID() {
		return ""
	}
	return Handle(a)
}

// Normalize returns the identifier with a handle in lower case.
func (a AtIdentifier) Normalize() AtIdentifier {
	if a.IsDID() {
		return a
	}
	return AtIdentifier(lower(string(a)))
}

// NSID names a schema or a collection: a reversed host name and a name, such as "app.bsky.feed.post".
type NSID string

// ParseNSID reads an NSID. Only the whole is limited in length: the specification also limits the authority to 253 bytes,
// but the interoperability vectors hold a longer one as valid, so data with such a name exists.
func ParseNSID(s string) (NSID, error) { return parse[NSID](KindNSID, s, checkNSID(s)) }

// ValidNSID reports whether s is an NSID.
func ValidNSID[S ~string | ~[]byte](s S) bool { return checkNSID(s) == "" }

func checkNSID[S text](s S) string {
	n, reason := spanNSID(s)
	if reason == "" && n < len(s) {
		return "character not allowed"
	}
	return reason
}

// spanNSID checks the NSID that s begins with, and returns its length: up to the first byte that no NSID has.
func spanNSID[S text](s S) (int, string) {
	start, segments := 0, 0
	var seen uint8 // classes that occur in the current segment
	i := 0
	for ; i < len(s); i++ {
		c := class[s[i]]
		if c&cHost != 0 {
			seen |= c
			continue
		}
		if s[i] != '.' {
			break
		}
		switch {
		case i == start:
			return 0, "empty segment"
		case i-start > 63:
			return 0, "segment longer than 63 bytes"
		case s[start] == '-' || s[i-1] == '-':
			return 0, "segment must not start or end with a hyphen"
		case segments == 0 && class[s[0]]&cLetter == 0:
			return 0, "first segment must start with a letter"
		}
		segments++
		start, seen = i+1, 0
	}
	switch {
	case i > MaxNSID:
		return 0, "longer than 317 bytes"
	case i == start:
		return 0, "empty segment"
	case i-start > 63:
		return 0, "segment longer than 63 bytes"
	case segments < 2:
		return 0, "must have at least three segments"
	case class[s[start]]&cLetter == 0 || seen&cHyphen != 0:
		return 0, "name must be letters and digits and start with a letter"
	}
	return i, ""
}

// Authority returns the host name that owns n, in host order and lower case: "feed.bsky.app" for "app.bsky.feed.post".
func (n NSID) Authority() string {
	s := lower(n.Prefix())
	var b strings.Builder
	b.Grow(len(s))
	for {
		i := strings.LastIndexByte(s, '.')
		b.WriteString(s[i+1:])
		if i < 0 {
			return b.String()
		}
		b.WriteByte('.')
		s = s[:i]
	}
}

// Prefix returns everything before the name: "app.bsky.feed" for "app.bsky.feed.post".
func (n NSID) Prefix() string { return string(n[:max(0, strings.LastIndexByte(string(n), '.'))]) }

// Name returns the last segment, with its case.
func (n NSID) Name() string { return string(n[strings.LastIndexByte(string(n), '.')+1:]) }

// Normalize returns n with its authority in lower case; the name keeps its case.
func (n NSID) Normalize() NSID {
	p := n.Prefix()
	if l := lower(p); l != p {
		return NSID(l + "." + n.Name())
	}
	return n
}

// RecordKey names a record within a collection. It is case-sensitive.
type RecordKey string

// ParseRecordKey reads a record key of any type.
func ParseRecordKey(s string) (RecordKey, error) {
	return parse[RecordKey](KindRecordKey, s, checkRecordKey(s))
}

// ValidRecordKey reports whether s is a record key.
func ValidRecordKey[S ~string | ~[]byte](s S) bool { return checkRecordKey(s) == "" }

func checkRecordKey[S text](s S) string {
	n := len(s)
	switch {
	case n == 0:
		return "empty"
	case n > MaxRecordKey:
		return "longer than 512 bytes"
	case s[0] == '.' && (n == 1 || n == 2 && s[1] == '.'):
		return "must not be . or .."
	}
	if span(s, 0, cKey) < n {
		return "character not allowed"
	}
	return ""
}

// ParsePath reads a repository path, "<NSID>/<record key>".
func ParsePath(s string) (NSID, RecordKey, error) {
	if reason := checkPath(s); reason != "" {
		_, err := parse[string](KindPath, s, reason)
		return "", "", err
	}
	i := strings.IndexByte(s, '/')
	return NSID(s[:i]), RecordKey(s[i+1:]), nil
}

// ValidPath reports whether s is a repository path.
func ValidPath[S ~string | ~[]byte](s S) bool { return checkPath(s) == "" }

func checkPath[S text](s S) string {
	n, reason := spanNSID(s)
	switch {
	case reason != "":
		return "collection: " + reason
	case n == len(s):
		return "must be a collection, a slash and a record key"
	case s[n] != '/':
		return "collection: character not allowed"
	}
	if r := checkRecordKey(s[n+1:]); r != "" {
		return "record key: " + r
	}
	return ""
}
