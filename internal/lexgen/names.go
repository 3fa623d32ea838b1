package lexgen

import (
	"cmp"
	"go/token"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/barograph/baro/lexicon"
)

// below reports whether an NSID is the prefix or below it.
func below(nsid, prefix string) bool {
	return strings.HasPrefix(nsid, prefix) && (len(nsid) == len(prefix) || nsid[len(prefix)] == '.')
}

// firstTwo returns the first two segments of an NSID.
func firstTwo(nsid string) string {
	s := strings.SplitN(nsid, ".", 3)
	return strings.Join(s[:min(2, len(s))], ".")
}

// place returns the package of the output that an NSID belongs to: its folder and the prefix that names leave out.
func (g *generator) place(nsid string) (dir, prefix string) {
	prefix = firstTwo(nsid)
	dir = exportable(prefix)
	longest := -1
	for _, p := range g.Packages {
		if below(nsid, p.Prefix) && len(p.Prefix) > longest {
			dir, prefix, longest = p.Dir, p.Prefix, len(p.Prefix)
		}
	}
	return dir, prefix
}

// pkg returns the package of the output that an NSID belongs to.
func (g *generator) pkg(nsid string) *pkg {
	dir, _ := g.place(nsid)
	if p := g.moved[dir]; p != nil {
		return p
	}
	p := g.pkgs[dir]
	if p == nil {
		p = &pkg{dir: dir, path: g.Module + "/" + dir, name: path.Base(dir), hosted: map[string]bool{}}
		g.pkgs[dir] = p
	}
	return p
}

// existing returns the import that has a definition, nil if none has. A member must be made for unions.
func (g *generator) existing(r ref, member bool) *pkg {
	var best *Import
	for i := range g.Imports {
		if m := &g.Imports[i]; below(r.nsid(), m.Prefix) && (best == nil || len(m.Prefix) > len(best.Prefix)) {
			best = m
		}
	}
	if best == nil {
		return nil
	}
	p := g.imported[best.Path+" "+best.Prefix]
	if p == nil {
		cat := cmp.Or(best.Catalog, g.cat)
		p = &pkg{path: best.Path, name: path.Base(best.Path), cat: cat, members: map[ref]bool{}}
		var ids []string
		for _, id := range cat.NSIDs() {
			if below(string(id), best.Prefix) {
				ids = append(ids, string(id))
			}
			cat.Schema(id).Walk(func(_ string, d *lexicon.Def) {
				for _, m := range d.Refs {
					p.members[ref(m)] = true
				}
			})
		}
		p.names = nameDefs(cat, ids, reserved(), func(string) string { return best.Prefix })
		g.imported[best.Path+" "+best.Prefix] = p
	}
	if _, ok := p.names[r]; !ok || member && !p.members[r] && r.name() != "main" {
		return nil
	}
	return p
}

// reserved are the names that every package has.
func reserved() map[string]bool { return map[string]bool{"Extra": true, "Records": true} }

// nameDefs gives names to all definitions of schemas.
func nameDefs(cat *lexicon.Catalog, ids []string, taken map[string]bool, prefix func(nsid string) string) map[ref]string {
	names := map[ref]string{}
	for _, id := range ids {
		for _, name := range defNames(cat, id) {
			names[refTo(id, name)] = free(taken, typeName(id, name, prefix(id)))
		}
	}
	return names
}

// defNames returns the names of a schema's definitions, main first.
func defNames(cat *lexicon.Catalog, id string) []string {
	var names []string
	for _, d := range lookup(cat, id).Defs {
		names = append(names, d.Name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(boolInt(b == "main")-boolInt(a == "main"), strings.Compare(a, b))
	})
	return names
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// free takes a name.
func free(taken map[string]bool, n string) string {
	for taken[n] {
		n += "_"
	}
	taken[n] = true
	return n
}

// nameAll gives names to everything of a package that others refer to.
func (g *generator) nameAll(p *pkg) error {
	p.taken = reserved()
	p.errors, p.first, p.same = map[string]string{}, map[string]string{}, map[string]string{}
	p.imports = map[string]string{}
	for _, name := range []string{"cid", "data", "xrpc"} {
		p.imports[module+name] = name
	}
	var ids []string
	for _, id := range g.cat.NSIDs() {
		if dir, _ := g.place(string(id)); g.pkgs[dir] == p || g.moved[dir] == p {
			ids = append(ids, string(id))
		}
	}
	p.names = nameDefs(g.cat, ids, p.taken, func(nsid string) string {
		_, prefix := g.place(nsid)
		if p.hosted[prefix] {
			return ""
		}
		return prefix
	})
	var errs []string
	for _, r := range p.defs {
		for _, e := range g.cat.Resolve(string(r)).Errors {
			errs = append(errs, e.Name)
		}
	}
	slices.Sort(errs)
	for _, e := range slices.Compact(errs) {
		p.errors[e] = free(p.taken, "Err"+camel(e))
	}
	return nil
}

// typeName returns the name of a definition.
func typeName(nsid, def, prefix string) string {
	rest := strings.TrimPrefix(strings.TrimPrefix(nsid, prefix), ".")
	if rest == "" { // a schema that is a prefix itself
		rest = nsid[strings.LastIndexByte(nsid, '.')+1:]
	}
	var b strings.Builder
	for part := range strings.SplitSeq(rest, ".") {
		b.WriteString(camel(part))
	}
	if def != "main" {
		b.WriteByte('_')
		b.WriteString(camel(def))
	}
	return identifier(b.String())
}

// identifier makes an exported identifier of letters, digits and underscores.
func identifier(s string) string {
	if s == "" || s[0] < 'A' || s[0] > 'Z' {
		return "X" + s
	}
	return s
}

// groupOf returns the name of the file that the types of an NSID go to.
func groupOf(nsid, prefix string) string {
	rest := strings.TrimPrefix(strings.TrimPrefix(nsid, prefix), ".")
	group, _, more := strings.Cut(rest, ".")
	if !more {
		group = prefix[strings.LastIndexByte(prefix, '.')+1:]
	}
	group = exportable(group)
	if group == "" || group == "doc" {
		group += "_"
	}
	return group
}

// exportable makes the name of a package or file: letters and digits.
func exportable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return -1
	}, s)
}

// camel joins the parts of a name, each beginning with an upper-case letter.
func camel(s string) string {
	var b strings.Builder
	up := true
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z' && up:
			b.WriteRune(r - 'a' + 'A')
		case r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9':
			b.WriteRune(r)
		default:
			up = true
			continue
		}
		up = false
	}
	return b.String()
}

// goName reports whether s can be the name of a package.
func goName(s string) bool {
	return token.IsIdentifier(s) && s != "_" && s != "main" && s == strings.ToLower(s) && !strings.HasSuffix(s, "_test")
}

// importPath returns how a package of the output calls another, and notes that it does.
func (p *pkg) importPath(at, name string) string {
	if n, ok := p.imports[at]; ok {
		return n
	}
	if !goName(name) {
		name = "lex" + exportable(name)
	}
	taken := map[string]bool{}
	for n := range maps.Values(p.imports) {
		taken[n] = true
	}
	p.imports[at] = free(taken, name)
	return p.imports[at]
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
