package lexlint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/barograph/baro/lexicon"
)

// role says what data of a definition is for.
type role uint8

const (
	inRecord role = 1 << iota
	inParams
	inInput
	inOutput
	inMessage
)

// site is a definition at its place in a schema and its text.
type site struct {
	doc   *doc
	d     *lexicon.Def
	steps []string
	node  *value
	up    *site  // nil for a named definition
	name  string // of the definition, or of a property or parameter; "" for others
	role  role

	required, nullable bool // of a property
}

func (at *site) path() string { return strings.Join(at.steps, ".") }

// named is the definition that at is in.
func (at *site) named() *site {
	for at.up != nil {
		at = at.up
	}
	return at
}

// isNamed reports whether at is a named definition.
func (at *site) isNamed() bool { return at.up == nil }

// isField reports whether at is a property or a parameter.
func (at *site) isField() bool { return at.up != nil && at.name != "" }

// isMain reports whether at is what the schema is about.
func (at *site) isMain() bool { return at.isNamed() && at.name == "main" }

// found tells of a finding at a site.
func (l *linter) found(at *site, rule, format string, args ...any) *Finding {
	return l.foundIn(at, at.node, rule, format, args...)
}

// foundIn is found with a closer place in the text.
func (l *linter) foundIn(at *site, node *value, rule, format string, args ...any) *Finding {
	if node == nil {
		node = at.node
	}
	l.add(at.doc, Finding{Rule: rule, Level: levels[rule], NSID: at.doc.id, Def: at.named().name, Path: at.path(), Message: fmt.Sprintf(format, args...)}, node)
	return &l.findings[len(l.findings)-1]
}

// fix gives a finding its remedy.
func (f *Finding) fix(description string, edits ...Edit) {
	f.Fix = &Fix{Description: description, Edits: edits}
}

// visit checks a definition and all within it.
func (l *linter) visit(at *site) {
	l.checkFieldsOf(at)
	l.checkSite(at)
	d := at.d
	down := func(sub *lexicon.Def, name string, r role, steps ...string) *site {
		if sub == nil {
			return nil
		}
		node := at.node
		for _, s := range steps {
			node = node.get(s)
		}
		return &site{doc: at.doc, d: sub, steps: slices.Concat(at.steps, steps), node: node, up: at, name: name, role: r}
	}
	visit := func(s *site) {
		if s != nil {
			l.visit(s)
		}
	}
	visit(down(d.Items, "", at.role, "items"))
	if len(d.Properties) > 0 {
		required, nullable := set(d.Required), set(d.Nullable)
		for _, p := range d.Properties {
			s := down(p.Def, p.Name, at.role, "properties", p.Name)
			s.required, s.nullable = required[p.Name], nullable[p.Name]
			l.visit(s)
		}
	}
	visit(down(d.Record, "", inRecord, "record"))
	visit(down(d.Parameters, "", inParams, "parameters"))
	if d.Input != nil {
		visit(down(d.Input.Schema, "", inInput, "input", "schema"))
	}
	if d.Output != nil {
		visit(down(d.Output.Schema, "", inOutput, "output", "schema"))
	}
	visit(down(d.Message, "", inMessage, "message", "schema"))
}

func set(names []string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}

// findRoles finds out what every definition of the set is used for, through all references, and which are used by other
// schemas.
func (l *linter) findRoles() {
	uses := map[string][]string{} // definition → what it refers to
	type start struct {
		ref string
		r   role
	}
	var todo []start
	for _, d := range l.docs {
		if d.schema == nil {
			continue
		}
		for _, link := range d.schema.Links() {
			if link.Kind == lexicon.LinkPermission {
				continue
			}
			if id, _, _ := strings.Cut(link.To, "#"); id != string(d.id) && l.users[link.To] == "" {
				l.users[link.To] = d.id
			}
			if link.Kind == lexicon.LinkValue {
				continue
			}
			uses[link.From] = append(uses[link.From], link.To)
			if m := d.schema.Main(); m != nil && link.From == string(d.id) {
				if r := roleOf(m.Type, link.Path); r != 0 {
					todo = append(todo, start{link.To, r})
				}
			}
		}
		if m := d.schema.Main(); m != nil && m.Type == lexicon.TypeRecord {
			todo = append(todo, start{string(d.id), inRecord})
		}
	}
	for len(todo) > 0 {
		next := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if l.roles[next.ref]&next.r == next.r {
			continue
		}
		l.roles[next.ref] |= next.r
		for _, to := range uses[next.ref] {
			todo = append(todo, start{to, next.r})
		}
	}
}

// roleOf is the role of what is at a path in a main definition.
func roleOf(t lexicon.Type, path string) role {
	rest, _ := strings.CutPrefix(path, "defs.main.")
	part, _, _ := strings.Cut(rest, ".")
	switch {
	case t == lexicon.TypeRecord:
		return inRecord
	case part == "input":
		return inInput
	case part == "output":
		return inOutput
	case part == "message":
		return inMessage
	}
	return 0
}
