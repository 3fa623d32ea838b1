package syntax

import (
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/internal/fixtures"
)

// kinds are all kinds with their Parse functions, the checks on bytes where there are any, and the normal form.
var kinds = []struct {
	kind    Kind
	fixture string
	parse   func(string) (string, error)
	bytes   func([]byte) bool
	normal  func(string) string
}{
	{KindDID, "did", func(s string) (string, error) { v, err := ParseDID(s); return string(v), err }, ValidDID[[]byte], nil},
	{KindHandle, "handle", func(s string) (string, error) { v, err := ParseHandle(s); return string(v), err }, ValidHandle[[]byte],
		func(s string) string { return string(Handle(s).Normalize()) }},
	{KindAtIdentifier, "atidentifier", func(s string) (string, error) { v, err := ParseAtIdentifier(s); return string(v), err }, nil,
		func(s string) string { return string(AtIdentifier(s).Normalize()) }},
	{KindNSID, "nsid", func(s string) (string, error) { v, err := ParseNSID(s); return string(v), err }, ValidNSID[[]byte],
		func(s string) string { return string(NSID(s).Normalize()) }},
	{KindRecordKey, "recordkey", func(s string) (string, error) { v, err := ParseRecordKey(s); return string(v), err }, ValidRecordKey[[]byte], nil},
	{KindTID, "tid", func(s string) (string, error) { v, err := ParseTID(s); return string(v), err }, ValidTID[[]byte], nil},
	{KindATURI, "aturi", func(s string) (string, error) { v, err := ParseATURI(s); return string(v), err }, ValidATURI[[]byte],
		func(s string) string { return string(ATURI(s).Normalize()) }},
	{KindDatetime, "datetime", func(s string) (string, error) { v, err := ParseDatetime(s); return string(v), err }, ValidDatetime[[]byte], nil},
	{KindURI, "uri", func(s string) (string, error) { v, err := ParseURI(s); return string(v), err }, nil, nil},
	{KindLanguage, "language", func(s string) (string, error) {
		if !WellFormedLanguage(s) { // the format asks for no more
			return "", &Error{Kind: KindLanguage, Input: s}
		}
		return s, nil
	}, nil, nil},
}

// FuzzKinds holds the ways of checking each kind against each other.
func FuzzKinds(f *testing.F) {
	for _, k := range kinds {
		for _, list := range []string{"valid", "invalid"} {
			for line := range strings.Lines(string(fixtures.Read(f, "atproto-interop/syntax/"+k.fixture+"_syntax_"+list+".txt"))) {
				if line = strings.TrimSuffix(line, "\n"); line != "" && line[0] != '#' {
					f.Add(line)
				}
			}
		}
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, k := range kinds {
			v, err := k.parse(s)
			if err == nil && v != s || err != nil && v != "" {
				t.Errorf("%s: %q is read as %q, %v", k.kind, s, v, err)
			}
			if e, ok := err.(*Error); err != nil && (!ok || e.Kind != k.kind || e.Input != s) {
				t.Errorf("%s: %q: %#v", k.kind, s, err)
			}
			if cerr := CheckFormat(k.kind, s); (cerr == nil) != (err == nil) {
				t.Errorf("%s: %q: %v, as a format %v", k.kind, s, err, cerr)
			}
			if k.bytes != nil && k.bytes([]byte(s)) != (err == nil) {
				t.Errorf("%s: %q: %v, as bytes not so", k.kind, s, err)
			}
			if err == nil && k.normal != nil {
				n := k.normal(s)
				if _, err := k.parse(n); err != nil || k.normal(n) != n || !strings.EqualFold(n, s) {
					t.Errorf("%s: %q has the normal form %q, %v", k.kind, s, n, err)
				}
			}
		}
		// A path is an NSID and a record key, and an AT-URI with an authority before it.
		collection, rkey, err := ParsePath(s)
		_, cerr := ParseNSID(string(collection))
		_, kerr := ParseRecordKey(string(rkey))
		if ValidPath(s) != (err == nil) || ValidPath([]byte(s)) != (err == nil) || ValidATURI("at://did:web:a/"+s) && strings.Contains(s, "/") != (err == nil) {
			t.Errorf("path %q: %v", s, err)
		}
		if err == nil && (cerr != nil || kerr != nil || string(collection)+"/"+string(rkey) != s) {
			t.Errorf("path %q is %q and %q", s, collection, rkey)
		}
		if d := Datetime(s); ValidDatetime(d) {
			if at, ok := LenientTime(s); !ok || !at.Equal(d.Time()) {
				t.Errorf("%q is %v, leniently %v", s, d.Time(), at)
			}
			// What is written again is the same moment, to the millisecond.
			if again := NewDatetime(d.Time()); !ValidDatetime(again) || !again.Time().Equal(d.Time().Truncate(time.Millisecond)) {
				t.Errorf("%q is written as %q", s, again)
			}
		}
		if id := TID(s); ValidTID(id) {
			if again := TIDFromInteger(id.Integer()); s[0] < 'c' && again != id || NewTID(id.Time().UnixMicro(), id.ClockID()) != again {
				t.Errorf("%q came back as %q", s, again)
			}
		}
		if u, err := ReadATURI(s); err == nil && !ValidATURI(u) {
			t.Errorf("%q is read as %q", s, u)
		}
	})
}
