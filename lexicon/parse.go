package lexicon

import (
	"fmt"
	"mime"
	"sort"
	"strings"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/syntax"
)

// ParseSchema reads a schema in JSON. It is strict about what the specification says and passes over fields that it
// doesn't know. References to other schemas aren't followed: that is up to a [Catalog].
func ParseSchema(json []byte) (*Schema, error) {
	s, problems := parseJSON(json, 1)
	if len(problems) > 0 {
		return nil, problems[0]
	}
	return s, nil
}

// Problems returns all that keeps a document from being a schema, at most 100 entries; none if it is one.
func Problems(json []byte) []*SchemaError {
	_, problems := parseJSON(json, maxProblems)
	return problems
}

func parseJSON(json []byte, limit int) (*Schema, []*SchemaError) {
	if len(json) > MaxSchema {
		return nil, tooLarge()
	}
	raw, err := data.AppendCBOR(nil, json)
	if err != nil {
		return nil, []*SchemaError{{Rule: ProblemJSON, Reason: err.Error()}}
	}
	return parseCBOR(raw, limit)
}

func tooLarge() []*SchemaError {
	return []*SchemaError{{Rule: ProblemJSON, Reason: fmt.Sprintf("more than %d bytes", MaxSchema)}}
}

// ParseRecord reads a schema in DAG-CBOR, as com.atproto.lexicon.schema records hold it.
func ParseRecord(raw []byte) (*Schema, error) {
	s, problems := parseCBOR(raw, 1)
	if len(problems) > 0 {
		return nil, problems[0]
	}
	return s, nil
}

func parseCBOR(raw []byte, limit int) (*Schema, []*SchemaError) {
	if len(raw) > MaxSchema {
		return nil, tooLarge()
	}
	tree, err := data.Decode(raw)
	if err != nil {
		return nil, []*SchemaError{{Rule: ProblemJSON, Reason: err.Error()}}
	}
	m, ok := tree.(map[string]any)
	if !ok {
		return nil, []*SchemaError{{Rule: ProblemSchema, Reason: "not an object"}}
	}
	p := &schemaParser{limit: limit}
	s := &Schema{Raw: raw}
	p.schema(m, s)
	if len(p.errs) == 0 {
		return s, nil
	}
	for _, e := range p.errs {
		e.ID = string(s.ID)
	}
	return nil, p.errs
}

// schemaParser keeps the first problems. Once it has one, what it returns is only good for finding more.
type schemaParser struct {
	id    string // "" if that of the schema is none
	errs  []*SchemaError
	limit int
	path  []string
}

// full reports whether there are as many problems as wanted.
func (p *schemaParser) full() bool { return len(p.errs) >= p.limit }

func (p *schemaParser) fail(format string, args ...any) { p.problem(ProblemSchema, format, args...) }

func (p *schemaParser) problem(rule Problem, format string, args ...any) {
	if !p.full() {
		p.errs = append(p.errs, &SchemaError{Path: strings.Join(p.path, "."), Rule: rule, Reason: fmt.Sprintf(format, args...)})
	}
}

// in runs f with a step added to the path.
func (p *schemaParser) in(step string, f func()) {
	p.path = append(p.path, step)
	if !p.full() {
		f()
	}
	p.path = p.path[:len(p.path)-1]
}

// field returns a field of type T and whether it is there.
func field[T any](p *schemaParser, m map[string]any, name string) (v T, ok bool) {
	x, there := m[name]
	if !there {
		return v, false
	}
	if v, ok = x.(T); !ok {
		p.fail("%s has the wrong type", name)
	}
	return v, ok
}

func (p *schemaParser) text(m map[string]any, name string) string {
	s, _ := field[string](p, m, name)
	return s
}

func (p *schemaParser) required(m map[string]any, name string) string {
	if _, ok := m[name]; !ok {
		p.fail("no %s", name)
	}
	return p.text(m, name)
}

func (p *schemaParser) integer(m map[string]any, name string) *int64 {
	if v, ok := field[int64](p, m, name); ok {
		return &v
	}
	return nil
}

// count is an integer that can't be negative.
func (p *schemaParser) count(m map[string]any, name string) *int64 {
	v := p.integer(m, name)
	if v != nil && *v < 0 {
		p.fail("%s is negative", name)
	}
	return v
}

func (p *schemaParser) bounds(low, high *int64, what string) {
	if low != nil && high != nil && *low > *high {
		p.problem(ProblemLimits, "the smallest %s is above the largest", what)
	}
}

// list reads an array of T; nil if there is none, not nil if there is an empty one.
func list[T any](p *schemaParser, m map[string]any, name string) []T {
	a, ok := field[[]any](p, m, name)
	if !ok {
		return nil
	}
	out := make([]T, 0, len(a))
	for i, x := range a {
		v, ok := x.(T)
		if !ok {
			p.fail("%s[%d] has the wrong type", name, i)
			return nil
		}
		out = append(out, v)
	}
	return out
}

func (p *schemaParser) unique(l []string, name string) []string {
	seen := make(map[string]bool, len(l))
	for _, s := range l {
		if seen[s] {
			p.fail("%s has %q twice", name, s)
		}
		seen[s] = true
	}
	return l
}

func (p *schemaParser) schema(m map[string]any, s *Schema) {
	if v, ok := m["lexicon"].(int64); !ok || v != 1 {
		p.problem(ProblemVersion, "lexicon must be 1")
	}
	id, _ := m["id"].(string)
	nsid, err := syntax.ParseNSID(id)
	if err != nil {
		p.problem(ProblemID, "id: %v", err)
	}
	p.id, s.ID = string(nsid), nsid
	s.Description = p.text(m, "description")
	defs, ok := field[map[string]any](p, m, "defs")
	if !ok || len(defs) == 0 {
		p.fail("no defs")
		return
	}
	p.path = []string{"defs"}
	s.Defs = p.named(defs, 0, func(name string, d *Def) {
		switch d.Type {
		case TypeRef, TypeUnion, TypeUnknown, TypeParams, TypePermission:
			p.fail("%s can't be a definition of its own", d.Type)
		}
		if d.Type.Primary() && name != mainName {
			p.problem(ProblemPrimary, "%s must be named main", d.Type)
		}
		if !plainName(name) {
			p.problem(ProblemDefName, "a name is made of letters and digits, and starts with a letter")
		}
	})
}

// plainName is what a definition's name must be, to be the fragment of a reference.
func plainName(s string) bool {
	if s == "" || len(s) > 317 || s[0] >= '0' && s[0] <= '9' {
		return false
	}
	for i := range len(s) {
		c := s[i] | 0x20
		if !(c >= 'a' && c <= 'z' || s[i] >= '0' && s[i] <= '9') {
			return false
		}
	}
	return true
}

// named reads a map of definitions.
func (p *schemaParser) named(m map[string]any, depth int, check func(name string, d *Def)) []Named {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	out := make([]Named, 0, len(names))
	for _, name := range names {
		p.in(name, func() {
			if d := p.def(m[name], depth); d != nil {
				check(name, d)
				out = append(out, Named{name, d})
			}
		})
	}
	return out
}

// child reads a definition in a field; nil if there is none.
func (p *schemaParser) child(m map[string]any, name string, depth int, allowed ...Type) *Def {
	x, ok := m[name]
	if !ok {
		return nil
	}
	var d *Def
	p.in(name, func() {
		if d = p.def(x, depth); d != nil {
			p.allow(d, allowed)
		}
	})
	return d
}

func (p *schemaParser) allow(d *Def, allowed []Type) {
	for _, t := range allowed {
		if d.Type == t {
			return
		}
	}
	if len(allowed) > 0 {
		p.fail("%s is not allowed here", d.Type)
	}
}

// fieldTypes are what a property or an item may be.
var fieldTypes = []Type{TypeBoolean, TypeInteger, TypeString, TypeBytes, TypeCIDLink, TypeBlob, TypeArray, TypeObject, TypeRef, TypeUnion, TypeUnknown}

// paramTypes are what a parameter may be, and the first three what an array of parameters may hold.
var paramTypes = []Type{TypeBoolean, TypeInteger, TypeString, TypeArray}

var bodyTypes = []Type{TypeObject, TypeRef, TypeUnion}

func (p *schemaParser) def(x any, depth int) *Def {
	m, ok := x.(map[string]any)
	if !ok {
		p.fail("not an object")
		return nil
	}
	if depth > maxDepth {
		p.fail("more than %d levels", maxDepth)
		return nil
	}
	before := len(p.errs)
	d := &Def{Type: Type(p.required(m, "type")), Description: p.text(m, "description")}
	switch d.Type {
	case TypeBoolean:
		p.constants(m, d, func(v any) bool { _, ok := v.(bool); return ok })
	case TypeInteger:
		p.integerDef(m, d)
	case TypeString:
		p.stringDef(m, d)
	case TypeBytes:
		p.lengths(m, d)
	case TypeCIDLink, TypeToken, TypeUnknown:
	case TypeBlob:
		p.blobDef(m, d)
	case TypeArray:
		p.lengths(m, d)
		if d.Items = p.child(m, "items", depth+1, fieldTypes...); m["items"] == nil {
			p.fail("no items")
		}
	case TypeObject, TypeParams:
		p.objectDef(m, d, depth)
	case TypeRef:
		d.Ref = p.reference(p.required(m, "ref"))
	case TypeUnion:
		p.unionDef(m, d)
	case TypeRecord:
		p.recordDef(m, d, depth)
	case TypeQuery, TypeProcedure, TypeSubscription:
		p.methodDef(m, d, depth)
	case TypePermissionSet:
		p.permissionSetDef(m, d)
	default:
		p.fail("unknown type %.40q", d.Type)
	}
	if len(p.errs) > before {
		return nil
	}
	return d
}

// constants reads const and default.
func (p *schemaParser) constants(m map[string]any, d *Def, valid func(any) bool) {
	d.Const, d.Default = m["const"], m["default"]
	if d.Const != nil && !valid(d.Const) {
		p.fail("const has the wrong type")
	}
	if d.Default != nil && !valid(d.Default) {
		p.fail("default has the wrong type")
	}
	if d.Const != nil && d.Default != nil && d.Type == TypeString {
		p.fail("const and default exclude each other")
	}
}

func (p *schemaParser) integerDef(m map[string]any, d *Def) {
	p.constants(m, d, func(v any) bool { _, ok := v.(int64); return ok })
	d.Minimum, d.Maximum = p.integer(m, "minimum"), p.integer(m, "maximum")
	p.bounds(d.Minimum, d.Maximum, "value")
	d.IntEnum = list[int64](p, m, "enum")
}

func (p *schemaParser) stringDef(m map[string]any, d *Def) {
	p.constants(m, d, func(v any) bool { _, ok := v.(string); return ok })
	d.Format = syntax.Kind(p.text(m, "format"))
	p.lengths(m, d)
	d.MinGraphemes, d.MaxGraphemes = p.count(m, "minGraphemes"), p.count(m, "maxGraphemes")
	p.bounds(d.MinGraphemes, d.MaxGraphemes, "number of graphemes")
	d.Enum = list[string](p, m, "enum")
	d.KnownValues = list[string](p, m, "knownValues")
}

func (p *schemaParser) lengths(m map[string]any, d *Def) {
	d.MinLength, d.MaxLength = p.count(m, "minLength"), p.count(m, "maxLength")
	p.bounds(d.MinLength, d.MaxLength, "length")
}

func (p *schemaParser) blobDef(m map[string]any, d *Def) {
	d.MaxSize = p.count(m, "maxSize")
	d.Accept = list[string](p, m, "accept")
	for _, a := range d.Accept {
		major, minor, ok := strings.Cut(a, "/")
		if !ok || major == "" || minor == "" || strings.Contains(major, "*") && a != "*/*" || strings.Contains(minor, "*") && minor != "*" {
			p.problem(ProblemAccept, "accept has %.80q", a)
		}
	}
}

func (p *schemaParser) objectDef(m map[string]any, d *Def, depth int) {
	props, ok := field[map[string]any](p, m, "properties")
	if !ok {
		p.fail("no properties")
		return
	}
	allowed := fieldTypes
	if d.Type == TypeParams {
		allowed = paramTypes
	}
	p.in("properties", func() {
		d.Properties = p.named(props, depth+1, func(name string, f *Def) {
			p.allow(f, allowed)
			if d.Type == TypeParams && f.Type == TypeArray {
				p.allow(f.Items, paramTypes[:3])
			}
			if name == "" || len(name) > cbor.MaxKey {
				p.fail("empty or very long name")
			}
		})
	})
	d.Required = p.unique(list[string](p, m, "required"), "required")
	if d.Type == TypeObject {
		d.Nullable = p.unique(list[string](p, m, "nullable"), "nullable")
	}
}

// reference makes a reference absolute.
func (p *schemaParser) reference(ref string) string {
	id, name, hasName := strings.Cut(ref, "#")
	if id == "" {
		if id = p.id; id == "" {
			return ref // the schema has no NSID, which has been told
		}
	}
	if !syntax.ValidNSID(id) || hasName && !plainName(name) {
		p.fail("%.400q is no reference", ref)
	}
	if !hasName || name == mainName {
		return id
	}
	return id + "#" + name
}

func (p *schemaParser) unionDef(m map[string]any, d *Def) {
	if _, ok := m["refs"]; !ok {
		p.fail("no refs")
	}
	for _, r := range list[string](p, m, "refs") {
		d.Refs = append(d.Refs, p.reference(r))
	}
	p.unique(d.Refs, "refs")
	d.Closed, _ = field[bool](p, m, "closed")
	if d.Closed && len(d.Refs) == 0 {
		p.fail("a closed union needs refs")
	}
}

func (p *schemaParser) recordDef(m map[string]any, d *Def, depth int) {
	d.Key = p.required(m, "key")
	switch literal, isLiteral := strings.CutPrefix(d.Key, "literal:"); {
	case isLiteral:
		if !syntax.ValidRecordKey(literal) {
			p.fail("%.80q can't be a record key", literal)
		}
	case d.Key != "tid" && d.Key != "nsid" && d.Key != "any":
		p.fail("unknown record key type %.80q", d.Key)
	}
	if d.Record = p.child(m, "record", depth+1, TypeObject); m["record"] == nil {
		p.fail("no record")
	}
}

func (p *schemaParser) methodDef(m map[string]any, d *Def, depth int) {
	d.Parameters = p.child(m, "parameters", depth+1, TypeParams)
	body := func(name string) *Body {
		b, ok := field[map[string]any](p, m, name)
		if !ok {
			return nil
		}
		out := &Body{Description: p.text(b, "description")}
		p.in(name, func() {
			if out.Encoding = p.text(b, "encoding"); b["encoding"] == nil {
				p.problem(ProblemEncoding, "no encoding")
			} else if _, _, err := mime.ParseMediaType(out.Encoding); err != nil {
				p.problem(ProblemEncoding, "encoding %.80q: %v", out.Encoding, err)
			}
			out.Schema = p.child(b, "schema", depth+1, bodyTypes...)
		})
		return out
	}
	switch d.Type {
	case TypeProcedure:
		d.Input, d.Output = body("input"), body("output")
	case TypeQuery:
		d.Output = body("output")
		if _, ok := m["input"]; ok {
			p.fail("a query has no input")
		}
	case TypeSubscription:
		msg, ok := field[map[string]any](p, m, "message")
		if !ok {
			p.problem(ProblemMessages, "no message")
			break
		}
		p.in("message", func() {
			d.MessageDescription = p.text(msg, "description")
			if d.Message = p.child(msg, "schema", depth+1, TypeUnion); msg["schema"] == nil {
				p.problem(ProblemMessages, "no schema")
			}
		})
	}
	for i, e := range list[map[string]any](p, m, "errors") {
		p.in(fmt.Sprintf("errors[%d]", i), func() {
			name := p.required(e, "name")
			if name == "" || strings.ContainsAny(name, " \t\r\n") {
				p.fail("an error's name has no whitespace")
			}
			d.Errors = append(d.Errors, ErrorName{name, p.text(e, "description")})
		})
	}
}

func (p *schemaParser) permissionSetDef(m map[string]any, d *Def) {
	d.Title, d.Detail = p.text(m, "title"), p.text(m, "detail")
	d.TitleLang, d.DetailLang = p.languages(m, "title:lang"), p.languages(m, "detail:lang")
	if _, ok := m["permissions"]; !ok {
		p.fail("no permissions")
	}
	for i, perm := range list[map[string]any](p, m, "permissions") {
		p.in(fmt.Sprintf("permissions[%d]", i), func() { d.Permissions = append(d.Permissions, p.permission(perm)) })
	}
}

func (p *schemaParser) languages(m map[string]any, name string) map[string]string {
	in, ok := field[map[string]any](p, m, name)
	if !ok {
		return nil
	}
	out := make(map[string]string, len(in))
	for lang, v := range in {
		text, ok := v.(string)
		if !ok || !syntax.WellFormedLanguage(lang) {
			p.fail("%s has %.40q", name, lang)
			return nil
		}
		out[lang] = text
	}
	return out
}

// permission reads one permission. What can't be granted is no error, because the set of permissions will grow: the
// reason is kept in Ignore.
func (p *schemaParser) permission(m map[string]any) Permission {
	if p.required(m, "type") != string(TypePermission) {
		p.fail("type must be permission")
	}
	perm := Permission{Resource: p.required(m, "resource")}
	ignore := func(format string, args ...any) {
		if perm.Ignore == "" {
			perm.Ignore = fmt.Sprintf(format, args...)
		}
	}
	known := map[string]bool{"type": true, "description": true, "resource": true}
	nsids := func(name string) []string {
		known[name] = true
		l := list[string](p, m, name)
		if len(l) == 0 {
			ignore("no %s", name)
		}
		for _, s := range l {
			if !syntax.ValidNSID(s) {
				ignore("%s %.80q is no NSID", name, s)
			}
		}
		return l
	}
	switch perm.Resource {
	case "repo":
		perm.Collection = p.unique(nsids("collection"), "collection")
		known["action"] = true
		perm.Action = p.unique(list[string](p, m, "action"), "action")
		for _, a := range perm.Action {
			if a != "create" && a != "update" && a != "delete" {
				ignore("unknown action %.40q", a)
			}
		}
		if perm.Action != nil && len(perm.Action) == 0 {
			ignore("no action")
		}
	case "rpc":
		perm.LXM = nsids("lxm")
		known["aud"], known["inheritAud"] = true, true
		perm.Aud = p.text(m, "aud")
		perm.InheritAud, _ = field[bool](p, m, "inheritAud")
		switch {
		case perm.Aud != "" && perm.InheritAud:
			ignore("both aud and inheritAud")
		case perm.Aud == "" && !perm.InheritAud:
			ignore("neither aud nor inheritAud")
		case perm.Aud != "" && perm.Aud != "*":
			ignore("a fixed aud")
		}
	default:
		ignore("resource %.40q in a permission set", perm.Resource)
		return perm
	}
	for name := range m {
		if !known[name] {
			ignore("unknown fields")
		}
	}
	return perm
}
