package links

import (
	"strings"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/syntax"
)

// Limits of what one record can add to the index.
const (
	MaxLinks = 4096 // of one record; those that come first in it
	MaxPath  = 1024 // bytes of a path; links with longer ones are passed over
)

// found is a link in a record.
type found struct {
	path   string // without the leading dot
	target string
}

// extract returns the links in a record: every text that is an at-uri, a DID or a URI, with its path, each once. A record
// that isn't valid in the data model has none: its links would be a matter of taste.
func extract(record []byte) []found {
	var out []found
	var seen map[found]struct{}
	var path []byte
	err := data.Walk(record, func(steps []data.Step, v *data.Leaf) error {
		if v.Kind != cbor.KindText || len(out) >= MaxLinks || !linkish(v.Text) {
			return nil
		}
		path = path[:0]
		for _, s := range steps {
			switch {
			case s.Key != nil:
				path = append(append(path, '.'), s.Key...)
			case s.Type != nil:
				path = append(append(append(path, '['), s.Type...), ']')
			default:
				path = append(path, "[]"...)
			}
		}
		if len(path) > MaxPath || len(path) == 0 {
			return nil
		}
		f := found{string(path[1:]), string(v.Text)}
		if seen == nil {
			seen = map[found]struct{}{}
		}
		if _, again := seen[f]; !again {
			seen[f] = struct{}{}
			out = append(out, f)
		}
		return nil
	})
	if err != nil {
		return nil
	}
	return out
}

// linkish reports whether a text is an at-uri, a DID or a URI.
func linkish(b []byte) bool {
	// Most texts aren't, and most of those show it early: a scheme is letters, digits, "+", "-" and ".".
	for i, c := range b {
		switch {
		case c == ':' && i > 0:
			s := string(b)
			return syntax.ValidDID(s) || syntax.ValidATURI(s) || validURI(s)
		case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z':
		case i > 0 && ('0' <= c && c <= '9' || c == '+' || c == '-' || c == '.'):
		default:
			return false
		}
	}
	return false
}

func validURI(s string) bool {
	_, err := syntax.ParseURI(s)
	return err == nil
}

// splitATURI takes an at-uri apart whose authority is a DID and that says nothing else than its parts.
func splitATURI(s string) (did, collection, rkey string, ok bool) {
	rest, ok := strings.CutPrefix(s, "at://")
	if !ok || !syntax.ValidATURI(s) {
		return "", "", "", false
	}
	did, rest, slash := strings.Cut(rest, "/")
	if !syntax.ValidDID(did) {
		return "", "", "", false
	}
	if !slash {
		return did, "", "", true
	}
	collection, rkey, slash = strings.Cut(rest, "/")
	if !syntax.ValidNSID(collection) || slash && !syntax.ValidRecordKey(rkey) {
		return "", "", "", false
	}
	return did, collection, rkey, true
}
