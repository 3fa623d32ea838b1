package lexicon

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/barograph/baro/syntax"
)

// Walk visits every definition of the schema with its path, such as defs.main.record.properties.text, outer ones first.
func (s *Schema) Walk(visit func(path string, d *Def)) {
	for _, n := range s.Defs {
		n.Def.Walk("defs."+n.Name, visit)
	}
}

// Walk visits the definition, at the given path, and all those within it.
func (d *Def) Walk(path string, visit func(path string, d *Def)) {
	if d == nil {
		return
	}
	visit(path, d)
	d.Items.Walk(path+".items", visit)
	for _, p := range d.Properties {
		p.Def.Walk(path+".properties."+p.Name, visit)
	}
	d.Record.Walk(path+".record", visit)
	d.Parameters.Walk(path+".parameters", visit)
	if d.Input != nil {
		d.Input.Schema.Walk(path+".input.schema", visit)
	}
	if d.Output != nil {
		d.Output.Schema.Walk(path+".output.schema", visit)
	}
	d.Message.Walk(path+".message.schema", visit)
}

// LinkKind says in which way one definition leads to another.
type LinkKind string

// The kinds of links.
const (
	LinkRef        LinkKind = "ref"
	LinkUnion      LinkKind = "union"      // a variant
	LinkValue      LinkKind = "value"      // a token, or another definition, among knownValues or enum
	LinkPermission LinkKind = "permission" // a collection or method of a permission set
)

// Link is one mention of a definition in a schema.
type Link struct {
	From string   `json:"from"` // absolute reference of the definition that holds it
	Path string   `json:"path"` // within the schema, such as "defs.main.record.properties.embed"
	Kind LinkKind `json:"kind"`
	To   string   `json:"to"` // absolute reference
}

// Links returns what the schema leads to, its own definitions too, in the order of [Schema.Walk].
func (s *Schema) Links() []Link {
	var links []Link
	for _, n := range s.Defs {
		from := s.Reference(n.Name)
		n.Def.Walk("defs."+n.Name, func(path string, d *Def) {
			add := func(kind LinkKind, to string) { links = append(links, Link{from, path, kind, to}) }
			if d.Ref != "" {
				add(LinkRef, d.Ref)
			}
			for _, r := range d.Refs {
				add(LinkUnion, r)
			}
			for _, v := range slices.Concat(d.KnownValues, d.Enum) {
				if to := s.namedBy(v); to != "" {
					add(LinkValue, to)
				}
			}
			for _, p := range d.Permissions {
				for _, id := range slices.Concat(p.Collection, p.LXM) {
					if syntax.ValidNSID(id) {
						add(LinkPermission, id)
					}
				}
			}
		})
	}
	return links
}

// namedBy returns the definition that a known value names ("nsid#name" or, against the advice, "#name"), "" if it names
// none.
func (s *Schema) namedBy(value string) string {
	id, name, ok := strings.Cut(value, "#")
	if id == "" {
		id = string(s.ID)
	}
	switch {
	case !ok || !syntax.ValidNSID(id) || !plainName(name):
		return ""
	case name == mainName:
		return id
	}
	return id + "#" + name
}

// Reference returns the absolute reference to the definition of that name: "nsid#name", or "nsid" for main.
func (s *Schema) Reference(name string) string {
	if name == mainName {
		return string(s.ID)
	}
	return string(s.ID) + "#" + name
}

// References returns the absolute references that refs and unions of the schema hold, sorted, each once.
func (s *Schema) References() []string {
	var refs []string
	for _, l := range s.Links() {
		if l.Kind == LinkRef || l.Kind == LinkUnion {
			refs = append(refs, l.To)
		}
	}
	slices.Sort(refs)
	return slices.Compact(refs)
}

// Dependencies returns the NSIDs of the other schemas that this one needs to be understood, sorted: those that its refs and
// unions lead to, the tokens among its known values ("nsid#name"), and the collections and methods of a permission set.
func (s *Schema) Dependencies() []syntax.NSID {
	var ids []syntax.NSID
	for _, l := range s.Links() {
		if id := refNSID(l.To).Normalize(); id != s.ID.Normalize() {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// Graph is who leads to whom among schemas.
type Graph struct {
	from, to map[string][]Link
}

// NewGraph returns the graph of the links of schemas. What they lead to needn't be among them.
func NewGraph(schemas ...*Schema) *Graph {
	g := &Graph{from: map[string][]Link{}, to: map[string][]Link{}}
	for _, s := range schemas {
		for _, l := range s.Links() {
			g.from[l.From] = append(g.from[l.From], l)
			g.to[l.To] = append(g.to[l.To], l)
		}
	}
	for _, m := range []map[string][]Link{g.from, g.to} {
		for _, links := range m {
			slices.SortFunc(links, func(a, b Link) int {
				return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.Path, b.Path), cmp.Compare(a.To, b.To))
			})
		}
	}
	return g
}

// Graph returns the graph of all schemas that the catalog holds.
func (c *Catalog) Graph() *Graph {
	c.store.mu.RLock()
	defer c.store.mu.RUnlock()
	return NewGraph(slices.Collect(maps.Values(c.store.schemas))...)
}

// From returns what a definition leads to, by its absolute reference, in the order of the paths.
func (g *Graph) From(ref string) []Link { return g.from[ref] }

// To returns what leads to a definition, sorted by where it is.
func (g *Graph) To(ref string) []Link { return g.to[ref] }
