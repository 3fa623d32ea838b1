package lexsite

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/syntax"
)

// Bounds of an example.
const (
	exampleValues = 400  // in it, so that definitions that refer to each other don't multiply
	exampleDepth  = 12   // of what is required
	exampleExtra  = 3    // depth down to which fields are shown that aren't required
	exampleItems  = 16   // an array that needs more has no example
	exampleText   = 4096 // bytes of a text that a schema wants long
)

// Texts of the formats, all of one account and one note.
const (
	exampleDID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
	exampleTID = "3l6oveex3ii2l"
)

var exampleCID = cid.Sum(cid.DagCBOR, []byte{0xa0})
var exampleBlob = cid.Sum(cid.Raw, []byte("example"))

var exampleFormats = map[syntax.Kind]string{
	syntax.KindAtIdentifier: "alice.example.com",
	syntax.KindATURI:        "at://" + exampleDID + "/com.example.note/" + exampleTID,
	syntax.KindCID:          exampleCID.String(),
	syntax.KindDatetime:     "2026-01-15T09:30:00.000Z",
	syntax.KindDID:          exampleDID,
	syntax.KindHandle:       "alice.example.com",
	syntax.KindNSID:         "com.example.note",
	syntax.KindTID:          exampleTID,
	syntax.KindRecordKey:    exampleTID,
	syntax.KindURI:          "https://example.com/",
	syntax.KindLanguage:     "en",
}

// maker makes values that a catalog's schemas allow.
type maker struct {
	cat   *lexicon.Catalog
	left  int
	extra int
	stack []string // references on the way here
}

// example makes an example with all fields near the top, and, if that isn't valid, one of what is required only. It is nil if
// neither is: every example was validated.
func example(cat *lexicon.Catalog, build func(m *maker) (any, bool), valid func(raw []byte) error) []byte {
	for _, extra := range []int{exampleExtra, 1, 0} {
		v, ok := build(&maker{cat: cat, left: exampleValues, extra: extra})
		if !ok {
			continue
		}
		raw, err := data.Encode(v)
		if err != nil || valid(raw) != nil {
			continue
		}
		if text, err := indented(raw); err == nil {
			return text
		}
	}
	return nil
}

// Example returns an example in JSON of a definition that is data: a record, an object or another type that can be validated by
// itself. It is nil if there is none, such as for a schema that nothing can fulfil or that refers to one which isn't known.
// Every example is valid by the catalog's rules.
func Example(cat *lexicon.Catalog, s *lexicon.Schema, name string) []byte {
	d := s.Def(name)
	if d == nil {
		return nil
	}
	ref := s.Reference(name)
	switch d.Type {
	case lexicon.TypeRecord:
		return example(cat, func(m *maker) (any, bool) { return m.variant(ref) }, func(raw []byte) error { return cat.ValidateRecord(s.ID, raw) })
	case lexicon.TypeObject, lexicon.TypeArray, lexicon.TypeString, lexicon.TypeInteger, lexicon.TypeBoolean, lexicon.TypeBytes, lexicon.TypeCIDLink, lexicon.TypeBlob:
		return example(cat, func(m *maker) (any, bool) {
			m.stack = append(m.stack, ref)
			return m.value(d, name, 0)
		}, func(raw []byte) error { return cat.ValidateType(ref, raw) })
	}
	return nil
}

// exampleBody is an example of a method's input or output.
func exampleBody(cat *lexicon.Catalog, b *lexicon.Body, valid func(raw []byte) error) []byte {
	if b == nil || b.Schema == nil {
		return nil
	}
	return example(cat, func(m *maker) (any, bool) { return m.value(b.Schema, "", 0) }, valid)
}

// exampleQuery is an example of a method's parameters: the pairs of an URL, in order. It is nil if there is nothing to give.
func exampleQuery(cat *lexicon.Catalog, id syntax.NSID, d *lexicon.Def) [][2]string {
	if d == nil || len(d.Properties) == 0 {
		return nil
	}
	for _, extra := range []int{exampleExtra, 0} {
		v, ok := (&maker{cat: cat, left: exampleValues, extra: extra}).value(d, "", 0)
		m, isMap := v.(map[string]any)
		if !ok || !isMap {
			continue
		}
		var pairs [][2]string
		values := map[string][]string{}
		add := func(name string, v any) {
			text := fmt.Sprint(v)
			pairs, values[name] = append(pairs, [2]string{name, text}), append(values[name], text)
		}
		for _, name := range slices.Sorted(maps.Keys(m)) {
			if list, ok := m[name].([]any); ok {
				for _, x := range list {
					add(name, x)
				}
				continue
			}
			add(name, m[name])
		}
		if cat.ValidateParams(id, values) == nil {
			return pairs
		}
	}
	return nil
}

// def finds what a reference leads to.
func (m *maker) def(ref string) *lexicon.Def {
	id, name, ok := strings.Cut(ref, "#")
	if !ok {
		name = "main"
	}
	s, err := m.cat.Lookup(syntax.NSID(id))
	if err != nil {
		return nil
	}
	return s.Def(name)
}

func (m *maker) value(d *lexicon.Def, name string, depth int) (any, bool) {
	if m.left--; m.left < 0 || depth > exampleDepth || d == nil {
		return nil, false
	}
	switch d.Type {
	case lexicon.TypeBoolean:
		return first(d.Const, d.Default, true), true
	case lexicon.TypeInteger:
		return integer(d), true
	case lexicon.TypeString:
		return text(d, name)
	case lexicon.TypeBytes:
		return make([]byte, min(deref(d.MinLength, deref(d.MaxLength, 8)), exampleText)), true
	case lexicon.TypeCIDLink:
		return exampleCID, true
	case lexicon.TypeBlob:
		return data.Blob{Ref: exampleBlob, MimeType: mimeType(d.Accept), Size: max(1, min(deref(d.MaxSize, 120_000), 120_000))}, true
	case lexicon.TypeArray:
		return m.array(d, name, depth)
	case lexicon.TypeObject, lexicon.TypeParams:
		return m.object(d, depth)
	case lexicon.TypeRecord:
		return m.object(d.Record, depth)
	case lexicon.TypeUnknown:
		return map[string]any{"$type": "com.example.anything"}, true
	case lexicon.TypeUnion:
		for _, ref := range d.Refs {
			left := m.left
			if v, ok := m.variant(ref); ok {
				return v, true
			}
			m.left = left
		}
		return map[string]any{"$type": "com.example.anything"}, !d.Closed
	case lexicon.TypeRef:
		if slices.Contains(m.stack, d.Ref) {
			return nil, false
		}
		m.stack = append(m.stack, d.Ref)
		defer func() { m.stack = m.stack[:len(m.stack)-1] }()
		to := m.def(d.Ref)
		v, ok := m.value(to, name, depth)
		if o, isObject := v.(map[string]any); ok && isObject && to.Type == lexicon.TypeRecord {
			o["$type"] = d.Ref
		}
		return v, ok
	}
	return nil, false
}

// variant makes an object that says its type.
func (m *maker) variant(ref string) (any, bool) {
	if slices.Contains(m.stack, ref) {
		return nil, false
	}
	d := m.def(ref)
	if d == nil || lexicon.VariantProblem(d) != "" {
		return nil, false
	}
	m.stack = append(m.stack, ref)
	defer func() { m.stack = m.stack[:len(m.stack)-1] }()
	v, ok := m.value(d, "", len(m.stack))
	o, isObject := v.(map[string]any)
	if !ok || !isObject {
		return nil, false
	}
	o["$type"] = ref
	return o, true
}

func (m *maker) object(d *lexicon.Def, depth int) (any, bool) {
	out := map[string]any{}
	for _, f := range d.Fields() {
		if !f.Required && depth+len(m.stack) > m.extra {
			continue
		}
		left := m.left
		v, ok := m.value(f.Def, f.Name, depth+1)
		switch {
		case ok:
			out[f.Name] = v
		case f.Required && f.Nullable:
			out[f.Name] = nil
		case f.Required:
			return nil, false
		default:
			m.left = max(left, m.left)
		}
	}
	return out, true
}

func (m *maker) array(d *lexicon.Def, name string, depth int) (any, bool) {
	n := deref(d.MinLength, 0)
	if n > exampleItems {
		return nil, false
	}
	if deref(d.MaxLength, 1) == 0 {
		return []any{}, true
	}
	out := []any{}
	for range max(1, n) {
		v, ok := m.value(d.Items, name, depth+1)
		if !ok {
			return []any{}, n == 0 && depth > 0
		}
		out = append(out, v)
	}
	return out, true
}

func integer(d *lexicon.Def) any {
	if len(d.IntEnum) > 0 {
		return first(d.Const, d.Default, d.IntEnum[0])
	}
	return first(d.Const, d.Default, min(max(1, deref(d.Minimum, 1)), deref(d.Maximum, 1<<53-1)))
}

// text makes a text. Its words are the name of the field, since readers see there what it is.
func text(d *lexicon.Def, name string) (any, bool) {
	switch {
	case d.Const != nil:
		return d.Const, true
	case len(d.Enum) > 0:
		return d.Enum[0], true
	case d.Default != nil:
		return d.Default, true
	case d.Format != "":
		s, ok := exampleFormats[d.Format]
		return s, ok
	case len(d.KnownValues) > 0:
		return d.KnownValues[0], true
	}
	s := "example"
	if name != "" && len(name) < 64 {
		s = "an example of " + name
	}
	longest := min(deref(d.MaxLength, exampleText), deref(d.MaxGraphemes, exampleText))
	if int64(len(s)) > longest {
		s = s[:max(0, longest)]
	}
	if shortest := max(deref(d.MinLength, 0), deref(d.MinGraphemes, 0)); int64(len(s)) < shortest {
		if shortest > exampleText {
			return nil, false
		}
		s += strings.Repeat("x", int(shortest)-len(s))
	}
	return s, true
}

func mimeType(accept []string) string {
	if len(accept) == 0 || strings.HasPrefix(accept[0], "*") {
		return "application/octet-stream"
	}
	if major, ok := strings.CutSuffix(accept[0], "/*"); ok {
		switch major {
		case "image":
			return "image/png"
		case "video":
			return "video/mp4"
		case "text":
			return "text/plain"
		}
		return major + "/example"
	}
	return accept[0]
}

func first(values ...any) any {
	for _, v := range values {
		if v != nil {
			return v
		}
	}
	return nil
}

func deref(v *int64, or int64) int64 {
	if v == nil {
		return or
	}
	return *v
}

// indented writes a value in DAG-CBOR as JSON for people, with names in their order, which has $type first.
func indented(raw []byte) ([]byte, error) {
	compact, err := data.AppendJSON(nil, raw)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(compact))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(out.Bytes(), "\n"), nil
}
