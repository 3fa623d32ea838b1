package lexgen

import (
	"bytes"
	"fmt"
	"go/format"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Options say where the output goes.
type Options struct {
	Module string // import path of the folder of the packages, such as "github.com/barograph/baro/api"
}

const base = "github.com/barograph/baro/"

// maxLines is where a file is continued in another.
const maxLines = 800

// Generate returns the Go files for all documents of a catalog, by path below Options.Module.
func Generate(c *Catalog, o Options) (map[string][]byte, error) {
	g := &generator{cat: c, opt: o, members: map[Ref]bool{}, pkgs: map[string]*pkg{}}
	if err := g.collect(); err != nil {
		return nil, err
	}
	for _, id := range c.IDs() {
		if err := g.document(id); err != nil {
			return nil, fmt.Errorf("generating %s: %w", id, err)
		}
	}
	return g.files()
}

type generator struct {
	cat     *Catalog
	opt     Options
	members map[Ref]bool // definitions that are in a union, or may be in somebody else's
	pkgs    map[string]*pkg
}

// pkg is a package of the output.
type pkg struct {
	name    string
	taken   map[string]bool
	files   map[string]*file
	errors  map[string]bool
	records []string
}

// file is the part of a package that comes from the NSIDs of one group.
type file struct {
	sections [][]byte // one per NSID
}

// section collects the output of one NSID.
type section struct {
	g    *generator
	pkg  *pkg
	id   string
	out  bytes.Buffer
	late bytes.Buffer // what is defined within, after it
}

// collect finds out which definitions need a LexType.
func (g *generator) collect() error {
	for _, id := range g.cat.IDs() {
		for _, name := range sortedKeys(g.cat.Docs[id].Defs) {
			d := g.cat.Docs[id].Defs[name]
			if d != nil && name == "main" && (d.Type == "record" || d.Type == "object") {
				g.members[Ref{id, name}] = true
			}
			if err := g.visit(id, d); err != nil {
				return err
			}
		}
	}
	return nil
}

// visit also finds what is missing, so that the rest can rely on it.
func (g *generator) visit(id string, s *Schema) error {
	switch {
	case s == nil:
		return fmt.Errorf("%s: a schema is null", id)
	case s.Type == "array" && s.Items == nil:
		return fmt.Errorf("%s: an array without items", id)
	case s.Type == "record" && s.Record == nil:
		return fmt.Errorf("%s: a record without its object", id)
	case s.Type == "subscription" && s.Message.schema() == nil:
		return fmt.Errorf("%s: a subscription without messages", id)
	}
	for _, ref := range s.Refs {
		r, d, err := g.cat.Resolve(id, ref)
		if err != nil {
			return err
		}
		if d.Type != "object" && d.Type != "record" {
			return fmt.Errorf("%s: %s in a union is of type %s", id, r, d.Type)
		}
		g.members[r] = true
	}
	for _, name := range sortedKeys(s.Properties) {
		if err := g.visit(id, s.Properties[name]); err != nil {
			return err
		}
	}
	for _, sub := range []*Schema{s.Items, s.Record, s.Parameters, s.Input.schema(), s.Output.schema(), s.Message.schema()} {
		if sub != nil {
			if err := g.visit(id, sub); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *Body) schema() *Schema {
	if b == nil {
		return nil
	}
	return b.Schema
}

func (g *generator) pkg(id string) *pkg {
	name := packageOf(id)
	p := g.pkgs[name]
	if p == nil {
		p = &pkg{name: name, taken: map[string]bool{"Records": true}, files: map[string]*file{}, errors: map[string]bool{}}
		g.pkgs[name] = p
	}
	return p
}

// document writes the section of one NSID.
func (g *generator) document(id string) error {
	s := &section{g: g, pkg: g.pkg(id), id: id}
	doc := g.cat.Docs[id]
	names := sortedKeys(doc.Defs)
	slices.SortStableFunc(names, func(a, b string) int { // main first
		return btoi(b == "main") - btoi(a == "main")
	})
	var tokens bytes.Buffer
	for _, name := range names {
		d := doc.Defs[name]
		r := Ref{id, name}
		if d.Type == "token" {
			fmt.Fprintf(&tokens, "%s = %q\n", s.name(typeName(r)), r)
			continue
		}
		if err := s.definition(r, d); err != nil {
			return err
		}
		s.out.Write(s.late.Bytes())
		s.late.Reset()
	}
	if tokens.Len() > 0 {
		fmt.Fprintf(&s.out, "const ( // tokens\n%s)\n\n", &tokens)
	}
	f := s.pkg.files[groupOf(id)]
	if f == nil {
		f = &file{}
		s.pkg.files[groupOf(id)] = f
	}
	f.sections = append(f.sections, s.out.Bytes())
	return nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// name takes a name.
func (s *section) name(n string) string {
	for s.pkg.taken[n] {
		n += "_"
	}
	s.pkg.taken[n] = true
	return n
}

func (s *section) definition(r Ref, d *Schema) error {
	name := typeName(r)
	switch d.Type {
	case "record":
		s.pkg.records = append(s.pkg.records, name)
		return s.object(&s.out, name, fmt.Sprintf("the record %s", r), r, d.Record, true)
	case "object":
		return s.object(&s.out, name, r.String(), r, d, false)
	case "array":
		t, err := s.goType(name+"_Elem", d.Items, false)
		if err != nil {
			return err
		}
		fmt.Fprintf(&s.out, "// %s is %s.\ntype %s = []%s\n\n", s.name(name), r, name, t)
	case "string":
		s.constants(&s.out, name, d)
	case "query", "procedure", "subscription":
		return s.method(name, r, d)
	case "permission-set":
		fmt.Fprintf(&s.out, "// %s is the permission set %s.\nconst %s = %q\n\n", s.name(name), r, name, r)
	case "boolean", "integer", "bytes", "cid-link", "blob", "unknown": // used where they are referred to
	default:
		return fmt.Errorf("%s: a definition of type %q", r, d.Type)
	}
	return nil
}

// object writes a struct. What is defined in its fields goes to s.late.
func (s *section) object(w *bytes.Buffer, name, is string, r Ref, d *Schema, record bool) error {
	s.name(name)
	var body bytes.Buffer
	taken := map[string]bool{"Extra": true, "LexType": true, "MarshalJSON": true, "UnmarshalJSON": true}
	exact := false // a field that plain encoding/json would get wrong
	for _, key := range sortedKeys(d.Properties) {
		p := d.Properties[key]
		goName := camel(key)
		for taken[goName] {
			goName += "_"
		}
		taken[goName] = true
		required, nullable := d.required(key), d.nullable(key)
		t, err := s.goType(name+"_"+camel(key), p, !required || nullable)
		if err != nil {
			return fmt.Errorf("%s.%s: %w", r, key, err)
		}
		tag := key
		extra := ""
		switch {
		case !required && nullable:
			t = "data.Nullable[" + strings.TrimPrefix(t, "*") + "]"
			tag += ",omitzero"
		case !required:
			tag += ",omitzero"
		case nullable:
			extra = ` lex:"nullable"`
		case p.Type == "ref" && s.contains(p.Ref, s.id, name, nil):
			t = "*" + t // a struct can't be within itself
		}
		exact = exact || strings.Contains(t, "cid.CID") || strings.Contains(t, "[]byte")
		fmt.Fprintf(&body, "%s %s `json:\"%s\"%s`\n", goName, t, tag, extra)
	}
	tag := ""
	if record {
		tag = ` lex:"record"`
	}
	if is != "" {
		fmt.Fprintf(w, "// %s is %s.\n", name, is)
	}
	fmt.Fprintf(w, "type %s struct {\n%sExtra data.Extra `json:\"-\"%s`\n}\n\n", name, &body, tag)
	if g := s.g; r.Name != "" && g.members[r] {
		fmt.Fprintf(w, "func (*%s) LexType() string { return %q }\n\n", name, r)
	}
	if record || exact {
		fmt.Fprintf(w, "func (v %s) MarshalJSON() ([]byte, error) { return data.MarshalJSON(&v) }\n", name)
		fmt.Fprintf(w, "func (v *%s) UnmarshalJSON(b []byte) error { return data.UnmarshalJSON(b, v) }\n\n", name)
	}
	return nil
}

// contains reports whether the definition that ref names has, by value, the struct called name in this package.
func (s *section) contains(ref, id, name string, seen []Ref) bool {
	r, d, err := s.g.cat.Resolve(id, ref)
	if err != nil || d.Type != "object" && d.Type != "record" || slices.Contains(seen, r) {
		return false
	}
	if packageOf(r.ID) == s.pkg.name && typeName(r) == name {
		return true
	}
	if d.Type == "record" {
		d = d.Record
	}
	for key, p := range d.Properties {
		if p.Type == "ref" && d.required(key) && !d.nullable(key) && s.contains(p.Ref, r.ID, name, append(seen, r)) {
			return true
		}
	}
	return false
}

// goType returns the Go type of a field and defines what it needs under the given name.
func (s *section) goType(name string, d *Schema, optional bool) (string, error) {
	pointer := ""
	if optional {
		pointer = "*"
	}
	switch d.Type {
	case "string":
		s.constants(&s.late, name, d)
		return pointer + "string", nil
	case "integer":
		return pointer + "int64", nil
	case "boolean":
		return pointer + "bool", nil
	case "bytes":
		return "[]byte", nil
	case "cid-link":
		return pointer + "cid.CID", nil
	case "blob":
		return pointer + "data.Blob", nil
	case "unknown":
		return "data.Raw", nil
	case "array":
		item := name
		if d.Items.Type == "object" || d.Items.Type == "union" {
			item = name + "_Elem"
		}
		t, err := s.goType(item, d.Items, false)
		return "[]" + t, err
	case "union":
		return name, s.union(name, d)
	case "object":
		var w bytes.Buffer // its own fields may define more, which comes after
		late := s.late
		s.late = bytes.Buffer{}
		if err := s.object(&w, name, "", Ref{ID: s.id}, d, false); err != nil {
			return "", err
		}
		inner := s.late
		s.late = late
		s.late.Write(w.Bytes())
		s.late.Write(inner.Bytes())
		return pointer + name, nil
	case "ref":
		r, t, err := s.g.cat.Resolve(s.id, d.Ref)
		if err != nil {
			return "", err
		}
		switch t.Type {
		case "object", "record":
			return pointer + s.typeRef(r), nil
		case "array":
			return s.typeRef(r), nil
		case "string":
			return pointer + "string", nil
		case "integer", "boolean", "bytes", "cid-link", "blob", "unknown":
			return s.goType(name, t, optional)
		}
		return "", fmt.Errorf("a reference to %s of type %s", r, t.Type)
	}
	return "", fmt.Errorf("a field of type %q", d.Type)
}

// typeRef returns the name of a definition as it is written in this package.
func (s *section) typeRef(r Ref) string {
	if p := packageOf(r.ID); p != s.pkg.name {
		return p + "." + typeName(r)
	}
	return typeName(r)
}

func (s *section) union(name string, d *Schema) error {
	s.name(name)
	var members []string
	for _, ref := range d.Refs {
		r, _, err := s.g.cat.Resolve(s.id, ref)
		if err != nil {
			return err
		}
		members = append(members, "*"+s.typeRef(r))
	}
	result := ""
	if d.Closed {
		result = " data.Closed"
	}
	fmt.Fprintf(&s.late, "type %s = data.Union[func(%s)%s]\n\n", name, strings.Join(members, ", "), result)
	return nil
}

// constants writes the known values of a string, except those that are tokens or definitions and have names as such.
func (s *section) constants(w *bytes.Buffer, name string, d *Schema) {
	var b bytes.Buffer
	for _, v := range d.values() {
		if id, frag, ok := strings.Cut(v, "#"); ok && (id == "" || s.g.cat.Docs[id] != nil) && frag != "" {
			continue
		}
		if s.g.cat.Docs[v] != nil || camel(v) == "" {
			continue
		}
		fmt.Fprintf(&b, "%s = %q\n", s.name(name+"_"+camel(v)), v)
	}
	if b.Len() > 0 {
		fmt.Fprintf(w, "const (\n%s)\n\n", &b)
	}
}

// method writes the descriptor of a query, procedure or subscription, and its structs.
func (s *section) method(name string, r Ref, d *Schema) error {
	s.name(name)
	var types bytes.Buffer
	params, err := s.params(name+"_Params", r, d.Parameters)
	if err != nil {
		return err
	}
	types.Write(s.late.Bytes())
	s.late.Reset()
	body := func(suffix string, b *Body) (goType, encoding string, err error) {
		if b == nil {
			return "xrpc.None", "", nil
		}
		if b.Schema == nil {
			if suffix == "_Input" {
				return "xrpc.Body", b.Encoding, nil
			}
			return "xrpc.Stream", b.Encoding, nil
		}
		t := name + suffix
		if b.Schema.Type == "object" {
			err = s.object(&types, t, "", Ref{ID: s.id}, b.Schema, false)
		} else {
			var target string
			if target, err = s.goType(t, b.Schema, false); target != t { // a reference
				fmt.Fprintf(&s.late, "type %s = %s\n\n", s.name(t), target)
			}
		}
		types.Write(s.late.Bytes())
		s.late.Reset()
		return t, "", err
	}
	in, inEnc, err := body("_Input", d.Input)
	if err != nil {
		return err
	}
	out, outEnc, err := body("_Output", d.Output)
	if err != nil {
		return err
	}
	var errs []string
	for _, e := range d.Errors {
		if n := camel(e.Name); !s.pkg.errors[e.Name] && n != "" {
			s.pkg.errors[e.Name] = true
		}
		errs = append(errs, "[Err"+camel(e.Name)+"]")
	}
	doc := fmt.Sprintf("// %s is the %s %s.", name, d.Type, r)
	if len(errs) > 0 {
		doc += " Errors: " + strings.Join(errs, ", ") + "."
	}
	fields := "NSID: " + strconv.Quote(r.ID)
	if inEnc != "" {
		fields += ", Accepts: " + strconv.Quote(inEnc)
	}
	if outEnc != "" {
		fields += ", Returns: " + strconv.Quote(outEnc)
	}
	var t string
	switch {
	case d.Type == "query":
		t = fmt.Sprintf("Query[%s, %s]", params, out)
	case d.Type == "subscription":
		m := name + "_Message"
		if err := s.union(m, d.Message.Schema); err != nil {
			return err
		}
		types.Write(s.late.Bytes())
		s.late.Reset()
		t = fmt.Sprintf("Subscription[%s, %s]", params, m)
	case d.Parameters != nil:
		t = fmt.Sprintf("ProcedureWithParams[%s, %s, %s]", params, in, out)
	default:
		t = fmt.Sprintf("Procedure[%s, %s]", in, out)
	}
	fmt.Fprintf(&s.out, "%s\nvar %s = xrpc.%s{%s}\n\n%s", doc, name, t, fields, &types)
	return nil
}

// params writes the struct of a method's parameters and returns its type.
func (s *section) params(name string, r Ref, d *Schema) (string, error) {
	if d == nil || len(d.Properties) == 0 {
		return "xrpc.None", nil
	}
	s.name(name)
	fmt.Fprintf(&s.late, "type %s struct {\n", name)
	var consts bytes.Buffer
	for _, key := range sortedKeys(d.Properties) {
		p := d.Properties[key]
		opt := !d.required(key)
		item, pre := p, ""
		if p.Type == "array" {
			item, pre = p.Items, "[]"
		}
		t := map[string]string{"string": "string", "integer": "int64", "boolean": "bool"}[item.Type]
		if t == "" {
			return "", fmt.Errorf("%s: a parameter %s of type %s", r, key, item.Type)
		}
		if opt && pre == "" {
			pre = "*"
		}
		// Package xrpc takes the name from the field, and a pointer or slice for optional.
		var tags []string
		if name := camel(key); strings.ToLower(name[:1])+name[1:] != key {
			tags = append(tags, fmt.Sprintf("json:%q", key))
		}
		rules := paramRules(p, item)
		if pre == "[]" && !opt {
			rules = append(rules, "required")
		}
		if len(rules) > 0 {
			tags = append(tags, fmt.Sprintf("lex:%q", strings.Join(rules, ",")))
		}
		tag := ""
		if len(tags) > 0 {
			tag = " `" + strings.Join(tags, " ") + "`"
		}
		fmt.Fprintf(&s.late, "%s %s%s%s\n", camel(key), pre, t, tag)
		s.constants(&consts, name+"_"+camel(key), item)
	}
	s.late.WriteString("}\n\n")
	s.late.Write(consts.Bytes())
	return name, nil
}

// paramRules returns the limits of a parameter in the form that package xrpc reads from the lex tag.
func paramRules(p, item *Schema) (rules []string) {
	add := func(name string, v *int64) {
		if v != nil {
			rules = append(rules, name+"="+strconv.FormatInt(*v, 10))
		}
	}
	if p != item {
		add("minItems", p.MinLength)
		add("maxItems", p.MaxLength)
	}
	if item.Format != "" {
		rules = append(rules, "format="+item.Format)
	}
	add("min", item.Minimum)
	add("max", item.Maximum)
	add("minLength", item.MinLength)
	add("maxLength", item.MaxLength)
	if v := constant(item.Enum); v != "" {
		rules = append(rules, "enum="+v)
	}
	if v := constant(item.Const); v != "" {
		rules = append(rules, "enum="+v)
	}
	if v := constant(p.Default); v != "" {
		rules = append(rules, "default="+v)
	}
	return rules
}

// constant writes a JSON scalar, or several with "|" between them, without quotes. One that can't be in a tag is left out.
func constant(raw []byte) string {
	s := strings.NewReplacer("[", "", "]", "", ",", "|", `"`, "", " ", "", "\n", "", "\t", "").Replace(string(raw))
	if strings.ContainsAny(s, "`\\,") {
		return ""
	}
	return s
}

// files formats the packages.
func (g *generator) files() (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, name := range sortedKeys(g.pkgs) {
		p := g.pkgs[name]
		for _, group := range sortedKeys(p.files) {
			part, lines := 1, 0
			var body bytes.Buffer
			flush := func() error {
				if body.Len() == 0 {
					return nil
				}
				file := group
				if part > 1 {
					file += strconv.Itoa(part)
				}
				src, err := g.format(p.name, body.Bytes())
				if err != nil {
					return fmt.Errorf("formatting %s/%s.go: %w", name, file, err)
				}
				out[path.Join(name, file+".go")] = src
				body.Reset()
				part, lines = part+1, 0
				return nil
			}
			for _, s := range p.files[group].sections {
				n := bytes.Count(s, []byte("\n"))
				if lines > 0 && lines+n > maxLines {
					if err := flush(); err != nil {
						return nil, err
					}
				}
				body.Write(s)
				lines += n
			}
			if err := flush(); err != nil {
				return nil, err
			}
		}
		if len(p.errors) > 0 || len(p.records) > 0 {
			var body bytes.Buffer
			if len(p.errors) > 0 {
				body.WriteString("// Names of errors.\nconst (\n")
				for _, e := range sortedKeys(p.errors) {
					fmt.Fprintf(&body, "%s xrpc.ErrorName = %q\n", "Err"+camel(e), e)
				}
				body.WriteString(")\n\n")
			}
			if len(p.records) > 0 {
				body.WriteString("// Records returns a new value of each record type of the package.\nfunc Records() []data.Typed {\nreturn []data.Typed{\n")
				for _, r := range p.records {
					fmt.Fprintf(&body, "&%s{},\n", r)
				}
				body.WriteString("}\n}\n")
			}
			src, err := g.format(p.name, body.Bytes())
			if err != nil {
				return nil, err
			}
			out[path.Join(name, "names.go")] = src
		}
		out[path.Join(name, "doc.go")] = g.doc(p)
	}
	return out, nil
}

const header = "// Code generated by lexgen. DO NOT EDIT.\n\n"

func (g *generator) format(pkg string, body []byte) ([]byte, error) {
	var imports []string
	for _, name := range []string{"cid", "data", "xrpc"} {
		if bytes.Contains(body, []byte(name+".")) {
			imports = append(imports, base+name)
		}
	}
	for _, name := range sortedKeys(g.pkgs) {
		if name != pkg && bytes.Contains(body, []byte(name+".")) {
			imports = append(imports, g.opt.Module+"/"+name)
		}
	}
	slices.Sort(imports)
	var b bytes.Buffer
	fmt.Fprintf(&b, "%spackage %s\n\n", header, pkg)
	if len(imports) > 0 {
		b.WriteString("import (\n")
		for _, i := range imports {
			fmt.Fprintf(&b, "%q\n", i)
		}
		b.WriteString(")\n\n")
	}
	b.Write(body)
	src, err := format.Source(b.Bytes())
	if err != nil {
		return b.Bytes(), err
	}
	return append(bytes.TrimRight(src, "\n"), '\n'), nil
}

// doc writes the comment of a package.
func (g *generator) doc(p *pkg) []byte {
	var prefix string
	n := 0
	for _, id := range g.cat.IDs() {
		if packageOf(id) == p.name {
			s := strings.Split(id, ".")
			prefix = s[0] + "." + s[1]
			n++
		}
	}
	var b bytes.Buffer
	b.WriteString(header)
	fmt.Fprintf(&b, `// Package %s holds the wire types and methods of the %d lexicons under %s, generated from the schemas in lexicons/.
//
// Specification: https://atproto.com/specs/lexicon. The page of app.bsky.feed.post is
// https://lexicon.garden/nsid/app.bsky.feed.post, and so on. How names and types come about is told in package
// [github.com/barograph/baro/api]. The package validates nothing beyond types, required fields and `+"`$type`"+`.
package %s
`, p.name, n, prefix, p.name)
	return b.Bytes()
}
