package lexsite

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/barograph/baro/internal/foreign"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/syntax"
)

// Bounds of what a page shows; the JSON of the schema has the rest.
const (
	maxDefs        = 500
	maxRows        = 500      // of a table
	maxValues      = 40       // of an enum, a list of known values or a union
	maxNeighbours  = 14       // on a side of the graph
	maxMentions    = 200      // in the lists of what refers to what
	maxFindings    = 200      //
	maxDescription = 4000     // characters
	maxName        = 120      // characters of a name
	maxJSON        = 64 << 10 // bytes
	maxExamples    = 60       // definitions of a schema that have one
)

// Page is what is shown of a schema. It has the same content in HTML, Markdown and JSON.
type Page struct {
	NSID        string            `json:"nsid"`
	Group       string            `json:"group"` // the NSID without its name
	Name        string            `json:"name"`
	Kind        string            `json:"kind,omitempty"` // type of the main definition; "" if there is none
	Description string            `json:"description,omitempty"`
	Defs        []*Section        `json:"defs"`
	MoreDefs    int               `json:"moreDefs,omitempty"`
	Out         []Neighbour       `json:"refersTo"`
	In          []Neighbour       `json:"referredToBy"`
	Findings    []Finding         `json:"findings,omitempty"`
	MoreFinds   int               `json:"-"`
	JSON        string            `json:"-"`
	JSONSize    int               `json:"-"`
	Files       *Files            `json:"-"` // beside the page; nil if it has none
	anchors     map[string]string // by path in the schema
}

// Files are the addresses of the other forms of a page.
type Files struct{ JSON, Markdown string }

// Finding is something that a linter says of a schema.
type Finding struct {
	Level   string `json:"level"`
	Rule    string `json:"rule"`
	Path    string `json:"path,omitempty"` // such as defs.main.record.properties.text
	Message string `json:"message"`
	Anchor  string `json:"-"`
}

// Section is a definition.
type Section struct {
	Name        string       `json:"name"`
	Ref         string       `json:"ref"`
	Anchor      string       `json:"anchor"`
	Kind        string       `json:"type"`
	Description string       `json:"description,omitempty"`
	Facts       []Fact       `json:"facts,omitempty"`
	Parts       []Part       `json:"parts,omitempty"`
	Errors      []NameText   `json:"errors,omitempty"`
	Permissions []Permission `json:"permissions,omitempty"`
}

// Fact is a short statement about a definition.
type Fact struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// NameText is a name with what is said of it.
type NameText struct {
	Name string `json:"name"`
	Text string `json:"text,omitempty"`
}

// Permission is a part of a permission set.
type Permission struct {
	Resource string `json:"resource"`
	On       []Ref  `json:"on"`
	More     int    `json:"more,omitempty"`
	Terms    string `json:"terms,omitempty"`
	Ignored  string `json:"ignored,omitempty"` // why nobody grants it
}

// Part is what a definition consists of: its fields, its parameters, its input. It has a table, a type, an example, or several.
type Part struct {
	Title    string `json:"title"`
	Anchor   string `json:"-"`
	Encoding string `json:"encoding,omitempty"`
	Text     string `json:"description,omitempty"`
	Type     *Type  `json:"type,omitempty"` // if it has no fields of its own
	Table    bool   `json:"-"`
	Rows     []Row  `json:"fields,omitempty"`
	More     int    `json:"moreFields,omitempty"`
	Example  string `json:"example,omitempty"`
	Lines    bool   `json:"-"` // the example is an HTTP request line, not JSON
}

// Described reports whether any field has a description.
func (p Part) Described() bool {
	return slices.ContainsFunc(p.Rows, func(r Row) bool { return r.Description != "" })
}

// Row is a field. Fields of objects within follow with a path.
type Row struct {
	Path        string `json:"path"`
	Anchor      string `json:"anchor"`
	Depth       int    `json:"-"`
	Required    bool   `json:"required,omitempty"`
	Nullable    bool   `json:"nullable,omitempty"`
	Default     string `json:"default,omitempty"`
	Type        Type   `json:"type"`
	Description string `json:"description,omitempty"`
}

// Ref is a definition that something refers to.
type Ref struct {
	Ref  string `json:"ref"`
	Text string `json:"-"` // shorter where it is clear
	Href string `json:"-"` // "" if there is no page
}

// Type is a type in words, with its constraints.
type Type struct {
	Prefix string   `json:"prefix,omitempty"` // "array of"
	Word   string   `json:"word"`
	Format string   `json:"format,omitempty"`
	Refs   []Ref    `json:"refs,omitempty"`
	Rules  []string `json:"rules,omitempty"`
	Closed bool     `json:"closed,omitempty"` // no others than Values
	Values []Ref    `json:"values,omitempty"`
	More   int      `json:"more,omitempty"` // values or refs that are left out
}

// Neighbour is a schema that refers to this one or is referred to by it.
type Neighbour struct {
	NSID     string    `json:"nsid"`
	Href     string    `json:"-"`
	Mentions []Mention `json:"mentions"`
	More     int       `json:"more,omitempty"`
}

// Mention is one place where a definition is referred to.
type Mention struct {
	From string `json:"from"` // place: "main, text"
	Kind string `json:"kind"`
	To   string `json:"to"`
}

// Entry is a schema to be shown.
type Entry struct {
	Schema   *lexicon.Schema
	JSON     []byte // as its author wrote it; nil: as it is encoded
	Findings []Finding
}

// Options say what surrounds a page.
type Options struct {
	// Catalog holds the schemas that examples are made with. It may resolve others.
	Catalog *lexicon.Catalog
	// Graph knows who refers to whom.
	Graph *lexicon.Graph
	// Href returns the address of a definition's page, "nsid" or "nsid#name"; "" if there is none.
	Href func(ref string) string
	// Files are the other forms of the page.
	Files *Files
}

// anchor returns the id of an element: letters, digits and a few signs, the others by their number. Names that are very long are cut
// and told apart by a count.
func anchor(name string, n int) string {
	var b strings.Builder
	b.WriteString("def-")
	for i := range len(name) {
		c := name[i]
		switch {
		case b.Len() > 160:
			return fmt.Sprintf("%s~%d", b.String(), n)
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "~%02x", c)
		}
	}
	return b.String()
}

// Anchor is the id of a definition's section on its page.
func Anchor(name string) string { return anchor(name, 0) }

// Shown reports whether a schema's page has a section for the definition of that name: there is one, and room for it.
func Shown(s *lexicon.Schema, name string) bool {
	find := func(name string) (int, bool) {
		return slices.BinarySearchFunc(s.Defs, name, func(n lexicon.Named, name string) int { return cmp.Compare(n.Name, name) })
	}
	i, ok := find(name)
	if main, has := find("main"); has && main > i {
		i++ // which comes first
	} else if name == "main" {
		i = 0
	}
	return ok && i < maxDefs
}

// builder makes one page.
type builder struct {
	o        Options
	s        *lexicon.Schema
	p        *Page
	rows     int
	examples int
}

// NewPage makes the page of a schema. Work and size are bounded, whatever the schema holds.
func NewPage(e Entry, o Options) *Page {
	s := e.Schema
	id := string(s.ID)
	group, name := split(id)
	p := &Page{NSID: id, Group: group, Name: name, Description: prose(s.Description), Defs: []*Section{}, Files: o.Files, anchors: map[string]string{}}
	b := &builder{o: o, s: s, p: p}
	if d := s.Main(); d != nil {
		p.Kind = string(d.Type)
	}
	defs := slices.Clone(s.Defs)
	slices.SortStableFunc(defs, func(a, b lexicon.Named) int { // main first
		return cmp.Compare(map[bool]int{false: 1}[a.Name == "main"], map[bool]int{false: 1}[b.Name == "main"])
	})
	if len(defs) > maxDefs {
		p.MoreDefs, defs = len(defs)-maxDefs, defs[:maxDefs]
	}
	for _, n := range defs {
		p.Defs = append(p.Defs, b.section(n))
	}
	b.neighbours()
	if len(e.Findings) > maxFindings {
		p.MoreFinds = len(e.Findings) - maxFindings
	}
	for _, f := range e.Findings[:min(len(e.Findings), maxFindings)] {
		f.Anchor = b.anchorOf(f.Path)
		p.Findings = append(p.Findings, f)
	}
	text := e.JSON
	if text == nil {
		text, _ = indented(s.Raw) // nil if the schema was made by hand and can't be encoded: then there is nothing to show
	}
	p.JSONSize = len(text)
	p.JSON = string(text[:min(len(text), maxJSON)])
	return p
}

func split(id string) (group, name string) {
	i := strings.LastIndexByte(id, '.')
	return id[:max(i, 0)], id[i+1:]
}

// anchorOf is where a path of the schema is on the page: itself, or what is nearest above it.
func (b *builder) anchorOf(path string) string {
	for path != "" {
		if a := b.p.anchors[path]; a != "" {
			return a
		}
		path = path[:max(strings.LastIndexByte(path, '.'), 0)]
	}
	return ""
}

// prose is a description of bounded length.
func prose(s string) string {
	out, cut := foreign.Clip(strings.TrimSpace(s), maxDescription)
	if cut > 0 {
		out += "…"
	}
	return out
}

func name(s string) string { return foreign.Line(s, maxName) }

func (b *builder) section(n lexicon.Named) *Section {
	d := n.Def
	s := &Section{Name: name(n.Name), Ref: b.s.Reference(n.Name), Anchor: Anchor(n.Name), Kind: string(d.Type), Description: prose(d.Description)}
	path := "defs." + n.Name
	b.p.anchors[path] = s.Anchor
	fact := func(name, text string) {
		if text != "" {
			s.Facts = append(s.Facts, Fact{name, prose(text)})
		}
	}
	switch d.Type {
	case lexicon.TypeRecord:
		fact("Record key", recordKey(d.Key))
		s.Parts = append(s.Parts, b.table("Fields", path+".record", n.Name, d.Record, b.example(n.Name)))
	case lexicon.TypeObject:
		s.Parts = append(s.Parts, b.table("Fields", path, n.Name, d, b.example(n.Name)))
	case lexicon.TypeQuery, lexicon.TypeProcedure, lexicon.TypeSubscription:
		b.method(s, path, n.Name, d)
	case lexicon.TypePermissionSet:
		fact("Title", d.Title)
		fact("Detail", d.Detail)
		for _, x := range d.Permissions[:min(len(d.Permissions), maxRows)] {
			s.Permissions = append(s.Permissions, b.permission(x))
		}
	case lexicon.TypeToken:
		fact("Value", s.Ref)
	default:
		t := b.typeOf(d)
		s.Parts = append(s.Parts, Part{Title: "Type", Anchor: s.Anchor + "-type", Type: &t, Example: b.example(n.Name)})
		if d.Type == lexicon.TypeArray && d.Items.Type == lexicon.TypeObject {
			s.Parts = append(s.Parts, b.table("Items", path+".items", n.Name+".[]", d.Items, ""))
		}
		if d.Default != nil {
			fact("Default", name(fmt.Sprint(d.Default)))
		}
	}
	return s
}

func recordKey(key string) string {
	switch key {
	case "tid":
		return "a TID, made from the time of writing"
	case "any":
		return "any valid record key"
	case "nsid":
		return "an NSID"
	}
	if v, ok := strings.CutPrefix(key, "literal:"); ok {
		return "always “" + name(v) + "”: there is one such record in a repository"
	}
	return name(key)
}

// example is an example of a definition, for as many of them as a page has room for.
func (b *builder) example(def string) string {
	if b.examples++; b.examples > maxExamples || b.o.Catalog == nil {
		return ""
	}
	return string(Example(b.o.Catalog, b.s, def))
}

func (b *builder) method(s *Section, path, def string, d *lexicon.Def) {
	verb := "GET"
	if d.Type == lexicon.TypeProcedure {
		verb = "POST"
	}
	address := verb + " /xrpc/" + string(b.s.ID)
	if d.Type == lexicon.TypeSubscription {
		address = "wss://…/xrpc/" + string(b.s.ID)
	}
	cat := b.o.Catalog
	s.Facts = append(s.Facts, Fact{"Address", address})
	if p := d.Parameters; p != nil && len(p.Properties) > 0 {
		part := b.table("Parameters", path+".parameters", def+".parameters", p, "")
		if cat != nil {
			if pairs := exampleQuery(cat, b.s.ID, p); pairs != nil {
				for i, x := range pairs {
					address += map[bool]string{true: "?", false: "&"}[i == 0] + url.QueryEscape(x[0]) + "=" + url.QueryEscape(x[1])
				}
				part.Example, part.Lines = address, true
			}
		}
		s.Parts = append(s.Parts, part)
	}
	body := func(title string, x *lexicon.Body, valid func([]byte) error) {
		if x == nil {
			return
		}
		low := strings.ToLower(title)
		at := path + "." + low
		part := Part{Title: title, Anchor: anchor(def+"."+low, b.rows)}
		if x.Schema != nil {
			ex := ""
			if cat != nil {
				ex = string(exampleBody(cat, x, valid))
			}
			part = b.table(title, at+".schema", def+"."+low, x.Schema, ex)
		}
		b.p.anchors[at] = part.Anchor
		part.Encoding, part.Text = name(x.Encoding), prose(x.Description)
		s.Parts = append(s.Parts, part)
	}
	var in, out func([]byte) error
	if cat != nil {
		in = func(raw []byte) error { return cat.ValidateInput(b.s.ID, raw) }
		out = func(raw []byte) error { return cat.ValidateOutput(b.s.ID, raw) }
	}
	body("Input", d.Input, in)
	body("Output", d.Output, out)
	if d.Message != nil {
		s.Parts = append(s.Parts, b.table("Messages", path+".message.schema", def+".message", d.Message, ""))
	}
	for _, x := range d.Errors[:min(len(d.Errors), maxRows)] {
		s.Errors = append(s.Errors, NameText{name(x.Name), prose(x.Description)})
	}
}

// table is the part of a definition that has fields, or a type in their place.
func (b *builder) table(title, path, at string, d *lexicon.Def, example string) Part {
	p := Part{Title: title, Anchor: anchor(at, b.rows), Example: example}
	if title == "Fields" {
		p.Anchor += "-fields" // the section has the other
	}
	b.p.anchors[path] = p.Anchor
	switch d.Type {
	case lexicon.TypeObject, lexicon.TypeParams:
		p.Table = true
		if title != "Fields" || !strings.HasSuffix(path, "."+at) { // else it is that of the definition
			p.Text = prose(d.Description)
		}
		b.fields(&p, path, at, "", d, 0)
	default:
		t := b.typeOf(d)
		p.Type = &t
	}
	return p
}

// fields adds the rows of an object, and of the objects within it.
func (b *builder) fields(p *Part, path, at, prefix string, d *lexicon.Def, depth int) {
	for _, f := range d.Fields() {
		if b.rows++; len(p.Rows) >= maxRows || b.rows > 10*maxRows {
			p.More++
			continue
		}
		r := Row{
			Path: name(prefix + f.Name), Anchor: anchor(at+"."+prefix+f.Name, b.rows), Depth: min(depth, 6), Required: f.Required, Nullable: f.Nullable,
			Type: b.typeOf(f.Def), Description: prose(f.Def.Description),
		}
		if f.Def.Default != nil {
			r.Default = name(fmt.Sprint(f.Def.Default))
			if r.Default == "" {
				r.Default = "the empty text"
			}
		}
		here := path + ".properties." + f.Name
		b.p.anchors[here] = r.Anchor
		p.Rows = append(p.Rows, r)
		inner, sub := f.Def, ""
		for inner.Type == lexicon.TypeArray && inner.Items != nil {
			inner, sub, here = inner.Items, sub+"[]", here+".items"
		}
		if inner.Type == lexicon.TypeObject && len(inner.Properties) > 0 && len(prefix) < 2000 {
			b.fields(p, here, at, prefix+f.Name+sub+".", inner, depth+1)
		}
	}
}

// ref is a reference as it is shown: one within the schema by its name alone.
func (b *builder) ref(ref string) Ref {
	r := Ref{Ref: ref, Text: ref}
	if id, def, ok := strings.Cut(ref, "#"); id == string(b.s.ID) {
		if r.Text = "#" + def; !ok {
			r.Text, def = "#main", "main"
		}
		if Shown(b.s, def) {
			r.Href = "#" + Anchor(def)
		}
	} else if b.o.Href != nil {
		r.Href = b.o.Href(ref)
	}
	r.Text = name(r.Text)
	return r
}

func (b *builder) typeOf(d *lexicon.Def) Type {
	var t Type
	own := func(d *lexicon.Def) []string { // the constraints without what is shown in another way
		c := *d
		c.Enum, c.IntEnum, c.KnownValues, c.Default, c.Const, c.Accept = nil, nil, nil, nil, nil, d.Accept[:min(len(d.Accept), maxValues)]
		out := c.Limits()
		for i := range out {
			out[i] = foreign.Line(out[i], 400)
		}
		if d.Const != nil {
			out = append(out, "always "+name(fmt.Sprint(d.Const)))
		}
		return out
	}
	for d.Type == lexicon.TypeArray && d.Items != nil && len(t.Prefix) < 200 {
		t.Prefix += "array of "
		t.Rules = append(t.Rules, own(d)...)
		d = d.Items
	}
	t.Word, t.Format = string(d.Type), string(d.Format)
	rules := own(d)
	if t.Prefix != "" {
		for i := range rules {
			rules[i] = "each " + rules[i]
		}
	}
	t.Rules = append(t.Rules, rules...)
	switch d.Type {
	case lexicon.TypeRef:
		t.Word, t.Refs = "", []Ref{b.ref(d.Ref)}
	case lexicon.TypeUnion:
		t.Word = "open union"
		if d.Closed {
			t.Word = "closed union"
		}
		if len(d.Refs) == 0 {
			t.Word += " of nothing yet"
		}
		t.More = max(0, len(d.Refs)-maxValues)
		for _, r := range d.Refs[:min(len(d.Refs), maxValues)] {
			t.Refs = append(t.Refs, b.ref(r))
		}
	case lexicon.TypeString:
		values := d.KnownValues
		if d.Enum != nil {
			values, t.Closed = d.Enum, true
		}
		t.More = max(0, len(values)-maxValues)
		for _, v := range values[:min(len(values), maxValues)] {
			r := Ref{Ref: name(v), Text: name(v)}
			if id, _, ok := strings.Cut(v, "#"); ok && syntax.ValidNSID(id) && len(v) < 700 {
				r = b.ref(v)
				r.Text = name(v) // the value itself is what is written
			}
			t.Values = append(t.Values, r)
		}
	case lexicon.TypeInteger:
		t.Closed = d.IntEnum != nil
		t.More = max(0, len(d.IntEnum)-maxValues)
		for _, v := range d.IntEnum[:min(len(d.IntEnum), maxValues)] {
			s := fmt.Sprint(v)
			t.Values = append(t.Values, Ref{Ref: s, Text: s})
		}
	}
	return t
}

func (b *builder) permission(x lexicon.Permission) Permission {
	p := Permission{Resource: name(x.Resource), Ignored: name(x.Ignore)}
	on := x.Collection
	var terms []string
	if x.Resource == "rpc" {
		on = x.LXM
		switch {
		case x.InheritAud:
			terms = append(terms, "the audience is that of whoever includes the set")
		case x.Aud != "":
			terms = append(terms, "audience "+name(x.Aud))
		}
	} else if len(x.Action) > 0 {
		terms = append(terms, strings.Join(x.Action[:min(len(x.Action), 3)], ", "))
	} else {
		terms = append(terms, "create, update, delete")
	}
	p.Terms, p.More = name(strings.Join(terms, "; ")), max(0, len(on)-maxValues)
	for _, id := range on[:min(len(on), maxValues)] {
		r := Ref{Ref: name(id), Text: name(id)}
		if syntax.ValidNSID(id) {
			r = b.ref(id)
		}
		p.On = append(p.On, r)
	}
	return p
}

// neighbours lists the other schemas that this one refers to, and those that refer to it.
func (b *builder) neighbours() {
	b.p.Out, b.p.In = []Neighbour{}, []Neighbour{}
	if b.o.Graph == nil {
		return
	}
	collect := func(links func(ref string) []lexicon.Link, other func(l lexicon.Link) string) []Neighbour {
		byID := map[string]*Neighbour{}
		var ids []string
		total := 0
		for _, n := range b.s.Defs {
			for _, l := range links(b.s.Reference(n.Name)) {
				id, _, _ := strings.Cut(other(l), "#")
				if id == string(b.s.ID) {
					continue
				}
				x := byID[id]
				if x == nil {
					x = &Neighbour{NSID: id}
					if b.o.Href != nil {
						x.Href = b.o.Href(id)
					}
					byID[id], ids = x, append(ids, id)
				}
				if total++; total > maxMentions && len(x.Mentions) > 0 {
					x.More++
					continue
				}
				x.Mentions = append(x.Mentions, Mention{place(l), string(l.Kind), name(fragment(l.To))})
			}
		}
		slices.Sort(ids)
		out := make([]Neighbour, len(ids))
		for i, id := range ids {
			out[i] = *byID[id]
		}
		return out
	}
	b.p.Out = collect(b.o.Graph.From, func(l lexicon.Link) string { return l.To })
	b.p.In = collect(b.o.Graph.To, func(l lexicon.Link) string { return l.From })
}

// fragment is the name of the definition in a reference.
func fragment(ref string) string {
	if _, def, ok := strings.Cut(ref, "#"); ok {
		return "#" + def
	}
	return "#main"
}

// place says where a link is, shorter than its path: "#main embed.images".
func place(l lexicon.Link) string {
	path := strings.TrimPrefix(l.Path, "defs."+strings.TrimPrefix(fragment(l.From), "#"))
	for _, step := range []string{".properties.", ".record.", ".schema."} {
		path = strings.ReplaceAll(path, step, ".")
	}
	path = strings.TrimPrefix(strings.ReplaceAll(strings.ReplaceAll(path, ".items", "[]"), ".record.", "."), ".")
	return name(strings.TrimSpace(fragment(l.From) + " " + path))
}
