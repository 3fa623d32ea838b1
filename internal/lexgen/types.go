package lexgen

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/barograph/baro/lexicon"
)

// section is the output of one NSID, in the order in which it is written.
type section struct {
	g       *generator
	p       *pkg
	nsid    string
	imports map[string]bool // import paths

	vars   bytes.Buffer // methods
	types  []decl
	funcs  bytes.Buffer
	consts []decl
	values map[string]bool // that have constants
}

// decl is a type, or a constant of one line. Types in place come after the one that they are in.
type decl struct {
	comment string // lines that begin with "//", or ""
	line    line   // name, "=" and the rest; or name and "struct {"
	fields  []line // of a struct
}

// line is a line whose columns gofmt aligns with those of the lines around it.
type line struct {
	comment string
	cells   []string
}

// use notes that a package of this module is used, and returns its name with a dot.
func (s *section) use(name string) string {
	s.imports[module+name] = true
	return name + "."
}

// document writes the definitions of one NSID.
func (s *section) document(defs []ref) {
	for _, r := range defs {
		d := s.g.cat.Resolve(string(r))
		name := s.p.names[r]
		switch d.Type {
		case lexicon.TypeRecord:
			s.object(name, s.comment(name, string(r), d), r, d.Record, true)
		case lexicon.TypeObject:
			s.object(name, s.comment(name, string(r), d), r, d, false)
		case lexicon.TypeArray:
			i := s.place(name, s.comment(name, string(r), d))
			is := "= []"
			if s.g.endless(r, d.Items, map[ref]bool{}) { // Go has no alias of itself
				is = "[]"
			}
			t := is + s.goType(r, name+"_Elem", d.Items, false)
			s.types[i].line.cells = []string{name, t}
		case lexicon.TypeString:
			s.constants(name, d)
		case lexicon.TypeQuery, lexicon.TypeProcedure, lexicon.TypeSubscription:
			s.method(name, r, d)
		case lexicon.TypeToken, lexicon.TypePermissionSet:
			s.consts = append(s.consts, decl{comment: s.comment(name, "", d), line: line{cells: []string{name, "= " + strconv.Quote(string(r))}}})
		}
		// The others are used where they are referred to.
	}
}

// place makes room for a type, before those that are within it.
func (s *section) place(name, comment string) int {
	s.types = append(s.types, decl{comment: comment, line: line{cells: []string{name}}})
	return len(s.types) - 1
}

// object writes a struct. It is the definition r, or within it.
func (s *section) object(name, comment string, r ref, d *lexicon.Def, record bool) {
	at := s.place(name, comment)
	top := name == s.p.names[r]
	taken := map[string]bool{"Extra": true, "LexType": true, "MarshalJSON": true, "UnmarshalJSON": true}
	exact := false // a field that plain encoding/json would get wrong
	var fields []line
	for _, required := range []bool{true, false} {
		for _, p := range d.Properties {
			if d.IsRequired(p.Name) != required || !taggable(p.Name) {
				continue
			}
			nullable := d.IsNullable(p.Name)
			t := s.goType(r, name+"_"+camel(p.Name), p.Def, !required || nullable)
			tag := p.Name
			extra := ""
			switch {
			case !required && nullable:
				t = s.use("data") + "Nullable[" + strings.TrimPrefix(t, "*") + "]"
				tag += ",omitzero"
			case !required:
				tag += ",omitzero"
			case nullable:
				extra = ` lex:"nullable"`
			case p.Def.Type == lexicon.TypeRef && s.g.within(r, ref(p.Def.Ref), map[ref]bool{}) && isStruct(s.g.resolve(ref(p.Def.Ref), false)):
				t = "*" + t // a struct can't be within itself
			}
			exact = exact || strings.Contains(t, "cid.CID") || strings.Contains(t, "[]byte")
			fields = append(fields, line{text(s.g.Comments, p.Def.Description), []string{free(taken, identifier(camel(p.Name))), t, fmt.Sprintf("`json:\"%s\"%s`", tag, extra)}})
		}
	}
	if !s.g.Comments {
		sortFields(fields)
	}
	tag := "`json:\"-\"`"
	if record {
		tag = "`json:\"-\" lex:\"record\"`"
	}
	s.types[at].fields = append(fields, line{"", []string{"Extra", "Extra", tag}})
	if s.alias(at, !(top && s.g.member[r]) && !record) {
		return
	}
	if top && s.g.member[r] {
		fmt.Fprintf(&s.funcs, "func (*%s) LexType() string { return %q }\n", name, r)
	}
	if record || exact {
		s.use("data")
		fmt.Fprintf(&s.funcs, "func (v %s) MarshalJSON() ([]byte, error) { return data.MarshalJSON(&v) }\n", name)
		fmt.Fprintf(&s.funcs, "func (v *%s) UnmarshalJSON(b []byte) error { return data.UnmarshalJSON(b, v) }\n", name)
	}
}

// sortFields puts fields of one type together.
func sortFields(fields []line) {
	slices.SortStableFunc(fields, func(a, b line) int {
		return cmp.Or(len(a.cells[1])-len(b.cells[1]), strings.Compare(a.cells[1], b.cells[1]), len(a.cells[0])-len(b.cells[0]))
	})
}

// alias makes a type another name of one of the package that is the same, and reports whether there is one. One
// with methods of its own may not.
func (s *section) alias(at int, may bool) bool {
	d := &s.types[at]
	if s.g.Comments {
		return false
	}
	name := d.line.cells[0]
	var key strings.Builder
	for _, c := range d.line.cells[1:] {
		key.WriteString(c + "\n")
	}
	for _, f := range d.fields {
		for _, c := range f.cells {
			t := strings.TrimLeft(c, "[]*")
			if same := s.p.same[t]; same != "" {
				c = strings.TrimSuffix(c, t) + same
			}
			key.WriteString(c + "\n")
		}
	}
	first := s.p.first[key.String()]
	switch {
	case !may:
		return false
	case first == "":
		s.p.first[key.String()] = name
		return false
	}
	s.p.same[name] = first
	d.fields, d.line.cells = nil, []string{name, "= " + first}
	return true
}

func isStruct(d *lexicon.Def) bool {
	return d.Type == lexicon.TypeObject || d.Type == lexicon.TypeRecord
}

// taggable reports whether a property can have a field.
func taggable(name string) bool {
	if name == "-" || name == "" {
		return false
	}
	for i := range len(name) {
		if c := name[i]; c < ' ' || c > '~' || strings.IndexByte(",\"`\\", c) >= 0 {
			return false
		}
	}
	return true
}

// goType returns the Go type of a field of the definition r, and defines what it needs under the given name.
func (s *section) goType(r ref, name string, d *lexicon.Def, optional bool) string {
	pointer := ""
	if optional {
		pointer = "*"
	}
	switch d.Type {
	case lexicon.TypeString:
		s.constants(name, d)
		return pointer + "string"
	case lexicon.TypeInteger:
		return pointer + "int64"
	case lexicon.TypeBoolean:
		return pointer + "bool"
	case lexicon.TypeBytes:
		return "[]byte"
	case lexicon.TypeCIDLink:
		return pointer + s.use("cid") + "CID"
	case lexicon.TypeBlob:
		return pointer + s.use("data") + "Blob"
	case lexicon.TypeUnknown:
		return s.use("data") + "Raw"
	case lexicon.TypeArray:
		if d.Items.Type == lexicon.TypeObject || d.Items.Type == lexicon.TypeUnion {
			name += "_Elem"
		}
		return "[]" + s.goType(r, name, d.Items, false)
	case lexicon.TypeUnion:
		name = free(s.p.taken, name)
		s.union(name, d)
		return name
	case lexicon.TypeObject:
		name = free(s.p.taken, name)
		s.object(name, s.comment(name, "", d), r, d, false)
		return pointer + name
	}
	// A reference.
	t := s.g.resolve(ref(d.Ref), false)
	switch t.Type {
	case lexicon.TypeObject, lexicon.TypeRecord:
		return pointer + s.typeRef(ref(d.Ref), false)
	case lexicon.TypeArray:
		return s.typeRef(ref(d.Ref), false)
	case lexicon.TypeString: // its constants are written there
		return pointer + "string"
	}
	return s.goType(ref(d.Ref), name, t, optional)
}

// typeRef returns the name of a definition as it is written in this package.
func (s *section) typeRef(r ref, member bool) string {
	p := s.g.existing(r, member)
	if p == nil {
		p = s.g.pkg(r.nsid())
	}
	if p == s.p {
		return p.names[r]
	}
	s.imports[p.path] = true
	return s.p.importPath(p.path, p.name) + "." + p.names[r]
}

func (s *section) union(name string, d *lexicon.Def) {
	at := s.place(name, text(s.g.Comments, d.Description))
	var members []string
	for _, m := range d.Refs {
		members = append(members, "*"+s.typeRef(ref(m), true))
	}
	result := ""
	if d.Closed {
		result = " " + s.use("data") + "Closed"
	}
	s.types[at].line.cells = append(s.types[at].line.cells, fmt.Sprintf("= %sUnion[func(%s)%s]", s.use("data"), strings.Join(members, ", "), result))
	s.alias(at, true)
}

// constants writes the values that are known of a string, except those that are definitions and have names as such. They are
// named after the schema, because those of its fields are often the same; name is for one that would be taken.
func (s *section) constants(name string, d *lexicon.Def) {
	schema, ok := s.p.names[ref(s.nsid)]
	if !ok { // there is no main
		_, prefix := s.g.place(s.nsid)
		schema = typeName(s.nsid, "main", prefix)
	}
	for _, v := range append(append([]string(nil), d.KnownValues...), d.Enum...) {
		n := camel(v)
		if n == "" || s.values[v] || s.g.known(s.nsid, v) != "" {
			continue
		}
		s.values[v] = true
		if s.p.taken[schema+"_"+n] {
			n = free(s.p.taken, name+"_"+n)
		} else {
			n = free(s.p.taken, schema+"_"+n)
		}
		s.consts = append(s.consts, decl{line: line{cells: []string{n, "= " + strconv.Quote(v)}}})
	}
}

// comment returns the comment of a definition, if the output has comments.
func (s *section) comment(name, is string, d *lexicon.Def) string {
	if !s.g.Comments {
		return ""
	}
	switch {
	case is == "":
		return text(true, d.Description)
	case d.Description == "":
		return text(true, name+" is "+is+".")
	}
	return text(true, name+" is "+is+": "+d.Description)
}

// text makes a comment of a description.
func text(wanted bool, s string) string {
	const width = 116
	words := strings.Fields(strings.ToValidUTF8(s, ""))
	if !wanted || len(words) == 0 {
		return ""
	}
	var b strings.Builder
	n := 0
	for i, w := range words {
		if i == 0 || n+1+len(w) > width {
			if i > 0 {
				b.WriteByte('\n')
			}
			b.WriteString("//")
			n = 2
		}
		b.WriteString(" " + w)
		n += 1 + len(w)
	}
	b.WriteByte('\n')
	return b.String()
}
