package label

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Key is what there is one label of at any time: the newest one decides.
type Key struct {
	Src, URI, Val string
}

// Key returns what the label is about.
func (l *Label) Key() Key { return Key{l.Src, l.URI, l.Val} }

// Supersedes reports whether the label, which came after old, takes its place: it is about the same, and wasn't created
// before it. A negation is a label like any other in this.
func (l *Label) Supersedes(old *Label) bool {
	return l.Key() == old.Key() && !l.created().Before(old.created())
}

// Set is what some labelers have said so far. The zero value is empty. Its memory grows with the labels: one for each [Key],
// negations and expired ones included.
type Set struct {
	m map[Key]Label
}

// Add adds a label, and reports whether it is now the one that counts. It doesn't verify.
func (s *Set) Add(l Label) bool {
	k := l.Key()
	if old, ok := s.m[k]; ok && !l.Supersedes(&old) {
		return false
	}
	if s.m == nil {
		s.m = map[Key]Label{}
	}
	s.m[k] = l
	return true
}

// Get returns the newest label of a key, whether it holds or not.
func (s *Set) Get(k Key) (Label, bool) {
	l, ok := s.m[k]
	return l, ok
}

// Active returns the labels that hold at a time, by subject, source and value.
func (s *Set) Active(now time.Time) []Label {
	var out []Label
	for l := range maps.Values(s.m) {
		if l.Active(now) {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b Label) int {
		return cmp.Or(cmp.Compare(a.URI, b.URI), cmp.Compare(a.Src, b.Src), cmp.Compare(a.Val, b.Val))
	})
	return out
}
