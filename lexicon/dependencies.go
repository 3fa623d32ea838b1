package lexicon

import (
	"slices"
	"strings"

	"github.com/barograph/baro/syntax"
)

// Dependencies returns the NSIDs of the other schemas that this one needs to be understood, sorted: those that its refs and unions lead
// to, the tokens among its known values ("nsid#name"), and the collections and methods of a permission set.
func (s *Schema) Dependencies() []syntax.NSID {
	var ids []syntax.NSID
	add := func(ref string) {
		id, _, _ := strings.Cut(ref, "#")
		if n := syntax.NSID(id).Normalize(); n != s.ID.Normalize() && syntax.ValidNSID(id) {
			ids = append(ids, n)
		}
	}
	s.Walk(func(_ string, d *Def) {
		if d.Ref != "" {
			add(d.Ref)
		}
		for _, r := range d.Refs {
			add(r)
		}
		for _, v := range d.KnownValues {
			if _, name, ok := strings.Cut(v, "#"); ok && plainName(name) {
				add(v)
			}
		}
		for _, p := range d.Permissions {
			for _, id := range slices.Concat(p.Collection, p.LXM) {
				add(id)
			}
		}
	})
	slices.Sort(ids)
	return slices.Compact(ids)
}
