package lexgen

import (
	"fmt"
	"slices"
	"strings"

	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/syntax"
)

// This file finds out what is generated: the definitions asked for and those that they reach, and which package each is in.

func lookup(cat *lexicon.Catalog, id string) *lexicon.Schema { return cat.Schema(syntax.NSID(id)) }

// selectAll chooses the definitions.
func (g *generator) selectAll() error {
	ids, err := g.wanted()
	if err != nil {
		return err
	}
	for _, id := range ids {
		for _, name := range defNames(g.cat, id) {
			if err := g.choose(refTo(id, name)); err != nil {
				return err
			}
		}
	}
	for r := range g.chosen {
		p := g.pkg(r.nsid())
		p.defs = append(p.defs, r)
	}
	for _, p := range g.pkgs {
		slices.SortFunc(p.defs, g.compare)
	}
	return nil
}

// compare orders definitions by NSID, main first in each.
func (g *generator) compare(a, b ref) int {
	if c := strings.Compare(a.nsid(), b.nsid()); c != 0 {
		return c
	}
	if c := boolInt(b.name() == "main") - boolInt(a.name() == "main"); c != 0 {
		return c
	}
	return strings.Compare(a.name(), b.name())
}

// wanted returns the NSIDs that are asked for.
func (g *generator) wanted() ([]string, error) {
	var ids []string
	if len(g.NSIDs) == 0 {
		for _, id := range g.cat.NSIDs() {
			if !slices.ContainsFunc(g.Imports, func(i Import) bool { return below(string(id), i.Prefix) }) {
				ids = append(ids, string(id))
			}
		}
		return ids, nil
	}
	for _, want := range g.NSIDs {
		prefix, all := strings.CutSuffix(want, ".*")
		n := len(ids)
		for _, id := range g.cat.NSIDs() {
			if all && strings.HasPrefix(string(id), prefix+".") || string(id) == want {
				ids = append(ids, string(id))
			}
		}
		if len(ids) == n {
			return nil, fmt.Errorf("generating %s: %w", want, lexicon.ErrUnknownSchema)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// choose takes a definition and what it reaches.
func (g *generator) choose(r ref) error {
	if g.chosen[r] {
		return nil
	}
	d := g.cat.Resolve(string(r))
	g.chosen[r] = true
	if d.Type == lexicon.TypeRecord || d.Type == lexicon.TypeObject && r.name() == "main" {
		g.member[r] = true
	}
	p := g.pkg(r.nsid())
	for _, i := range g.Imports {
		if i.Path == p.path {
			return fmt.Errorf("generating %s: its package %s is also imported, for %s", r.nsid(), i.Path, i.Prefix)
		}
	}
	var err error
	d.Walk("defs."+r.name(), func(path string, d *lexicon.Def) {
		if err == nil {
			err = g.check(r, path, d)
		}
	})
	return err
}

// check looks at one node of a schema, and chooses what it refers to. What it doesn't refuse, the rest can write.
func (g *generator) check(r ref, path string, d *lexicon.Def) error {
	if to := d.Ref; to != "" {
		if why := lexicon.RefProblem(g.resolve(ref(to), false)); why != "" {
			return &lexicon.SchemaError{ID: r.nsid(), Path: path, Reason: to + " " + why}
		}
		if err := g.reach(ref(to), false); err != nil {
			return err
		}
	}
	for _, to := range d.Refs {
		if why := lexicon.VariantProblem(g.resolve(ref(to), true)); why != "" {
			return &lexicon.SchemaError{ID: r.nsid(), Path: path, Reason: to + " " + why}
		}
		if err := g.reach(ref(to), true); err != nil {
			return err
		}
	}
	for _, v := range d.KnownValues {
		if to := g.known(r.nsid(), v); to != "" {
			if err := g.reach(to, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// known returns the definition that a known value names, "" if it names none.
func (g *generator) known(nsid, v string) ref {
	id, name, ok := strings.Cut(v, "#")
	if !ok {
		name = "main"
	}
	if id == "" {
		id = nsid
	}
	if r := refTo(id, name); name != "" && g.resolve(r, false) != nil {
		return r
	}
	return ""
}

// resolve returns a definition, nil if there is none.
func (g *generator) resolve(r ref, member bool) *lexicon.Def {
	if p := g.existing(r, member); p != nil {
		return p.cat.Resolve(string(r))
	}
	return g.cat.Resolve(string(r))
}

// reach chooses a definition unless an import has it.
func (g *generator) reach(r ref, member bool) error {
	if g.existing(r, member) != nil {
		return nil
	}
	if member {
		g.member[r] = true
	}
	return g.choose(r)
}

// uses calls f for the chosen definitions that one refers to.
func (g *generator) uses(r ref, f func(ref)) {
	use := func(to string, member bool) {
		if g.existing(ref(to), member) == nil {
			f(ref(to))
		}
	}
	g.cat.Resolve(string(r)).Walk("", func(_ string, d *lexicon.Def) {
		if d.Ref != "" {
			use(d.Ref, false)
		}
		for _, m := range d.Refs {
			use(m, true)
		}
	})
}

// mergeCycles makes one package of those that refer to each other in a circle, because Go forbids it.
func (g *generator) mergeCycles() {
	for {
		edges := map[*pkg]map[*pkg]bool{}
		for _, p := range g.sorted() {
			edges[p] = map[*pkg]bool{}
			for _, r := range p.defs {
				g.uses(r, func(to ref) { edges[p][g.pkg(to.nsid())] = true })
			}
		}
		host, guest := cycle(g.sorted(), edges)
		if host == nil {
			return
		}
		for _, r := range guest.defs {
			_, prefix := g.place(r.nsid())
			host.hosted[prefix] = true
		}
		for prefix := range guest.hosted {
			host.hosted[prefix] = true
		}
		host.defs = append(host.defs, guest.defs...)
		slices.SortFunc(host.defs, g.compare)
		delete(g.pkgs, guest.dir)
		g.moved[guest.dir] = host
		for dir, p := range g.moved {
			if p == guest {
				g.moved[dir] = host
			}
		}
	}
}

// cycle returns the first two packages that reach each other.
func cycle(list []*pkg, edges map[*pkg]map[*pkg]bool) (a, b *pkg) {
	reach := map[*pkg]map[*pkg]bool{}
	for _, p := range list {
		seen := map[*pkg]bool{}
		for todo := []*pkg{p}; len(todo) > 0; {
			next := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			for to := range edges[next] {
				if !seen[to] {
					seen[to] = true
					todo = append(todo, to)
				}
			}
		}
		reach[p] = seen
	}
	for i, a := range list {
		for _, b := range list[i+1:] {
			if reach[a][b] && reach[b][a] {
				return a, b
			}
		}
	}
	return nil, nil
}

// within reports whether a value of the definition from has one of the definition of in it, without a pointer between.
func (g *generator) within(of, from ref, seen map[ref]bool) bool {
	if from == of {
		return true
	}
	if seen[from] || g.existing(from, false) != nil {
		return false
	}
	seen[from] = true
	d := g.cat.Resolve(string(from))
	if d.Type == lexicon.TypeRecord {
		d = d.Record
	}
	return g.holds(of, d, seen)
}

func (g *generator) holds(of ref, d *lexicon.Def, seen map[ref]bool) bool {
	if d.Type != lexicon.TypeObject {
		return false
	}
	for _, p := range d.Properties {
		if !d.IsRequired(p.Name) || d.IsNullable(p.Name) {
			continue
		}
		if p.Def.Type == lexicon.TypeRef && g.within(of, ref(p.Def.Ref), seen) || p.Def.Type == lexicon.TypeObject && g.holds(of, p.Def, seen) {
			return true
		}
	}
	return false
}

// endless reports whether the items of the array r are arrays of it in turn.
func (g *generator) endless(r ref, d *lexicon.Def, seen map[ref]bool) bool {
	switch {
	case d.Type == lexicon.TypeArray:
		return g.endless(r, d.Items, seen)
	case d.Type != lexicon.TypeRef || seen[ref(d.Ref)]:
		return false
	case ref(d.Ref) == r:
		return true
	}
	seen[ref(d.Ref)] = true
	return g.endless(r, g.resolve(ref(d.Ref), false), seen)
}
