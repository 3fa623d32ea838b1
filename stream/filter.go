package stream

import (
	"fmt"
	"strings"

	"github.com/barograph/baro/syntax"
)

// Filter is a set of collections. The zero value holds all of them.
type Filter struct {
	exact    map[string]bool
	prefixes []string // with the last dot; "" for all
}

// NewFilter returns the set of the collections that the patterns name: app.bsky.feed.post is one collection, app.bsky.*
// all those whose names begin with app.bsky., and * all. Without patterns it is all of them, too.
func NewFilter(patterns ...string) (*Filter, error) {
	f := &Filter{}
	for _, p := range patterns {
		prefix, ok := strings.CutSuffix(p, "*")
		if ok && (prefix == "" || strings.HasSuffix(prefix, ".") && syntax.ValidNSID(prefix+"a.a")) {
			f.prefixes = append(f.prefixes, prefix)
			continue
		}
		n, err := syntax.ParseNSID(p)
		if err != nil {
			return nil, fmt.Errorf("%q is neither a collection, such as app.bsky.feed.post, nor a prefix, such as app.bsky.*", p)
		}
		if f.exact == nil {
			f.exact = map[string]bool{}
		}
		f.exact[string(n.Normalize())] = true
	}
	return f, nil
}

// All reports whether it leaves nothing out.
func (f *Filter) All() bool { return len(f.exact) == 0 && len(f.prefixes) == 0 }

// Collection reports whether a collection is in the set.
func (f *Filter) Collection(c string) bool {
	if f.All() || f.exact[c] {
		return true
	}
	for _, p := range f.prefixes {
		if strings.HasPrefix(c, p) {
			return true
		}
	}
	return false
}

// Path reports whether the collection of a record path is in the set.
func (f *Filter) Path(p string) bool {
	c, _, _ := strings.Cut(p, "/")
	return f.Collection(c)
}
