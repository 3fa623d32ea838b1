package api_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/syntax"
)

// maker makes random values of schemas, valid ones, with entries and union members planted that no schema knows.
type maker struct {
	cat              *lexicon.Catalog
	r                *rand.Rand
	planted, members int
}

func newMaker(cat *lexicon.Catalog, seed uint64) *maker {
	return &maker{cat: cat, r: rand.New(rand.NewPCG(seed, 7))}
}

func pick[T any](g *maker, list ...T) T { return list[g.r.IntN(len(list))] }

// record makes a record of the schema id.
func (g *maker) record(id string, d *lexicon.Def) map[string]any {
	m := g.object(d.Record, 0)
	m["$type"] = id
	return m
}

func (g *maker) object(d *lexicon.Def, depth int) map[string]any {
	m := map[string]any{}
	for _, p := range d.Properties {
		switch {
		case !d.IsRequired(p.Name) && (depth > 6 || g.r.IntN(2) == 0):
		case d.IsNullable(p.Name) && g.r.IntN(3) == 0:
			m[p.Name] = nil
		default:
			m[p.Name] = g.value(p.Def, depth+1)
		}
	}
	for g.r.IntN(2) == 0 {
		name := pick(g, "x", "zz", "unknownField", "$custom", "a", "créé", "", strings.Repeat("k", 30))
		if d.Property(name) == nil && name != "" {
			m[name] = pick[any](g, nil, g.r.Int64(), "text", []any{}, map[string]any{"b": true}, []byte{1}, g.link())
			g.planted++
		}
	}
	return m
}

func (g *maker) link() cid.CID { return cid.Sum(cid.Raw, []byte{byte(g.r.IntN(256))}) }

func (g *maker) value(d *lexicon.Def, depth int) any {
	switch d.Type {
	case lexicon.TypeString:
		return g.text(d)
	case lexicon.TypeInteger:
		return g.integer(d)
	case lexicon.TypeBoolean:
		if d.Const != nil {
			return d.Const
		}
		return g.r.IntN(2) == 0
	case lexicon.TypeBytes:
		return make([]byte, g.length(d.MinLength, d.MaxLength, 40))
	case lexicon.TypeCIDLink:
		return g.link()
	case lexicon.TypeBlob:
		return g.blob(d)
	case lexicon.TypeUnknown:
		return map[string]any{"any": []any{int64(1), nil}}
	case lexicon.TypeArray:
		most := 3
		if depth > 6 {
			most = 0
		}
		list := []any{}
		for range g.length(d.MinLength, d.MaxLength, most) {
			list = append(list, g.value(d.Items, depth+1))
		}
		return list
	case lexicon.TypeRef:
		t := g.cat.Resolve(d.Ref)
		if t.Type == lexicon.TypeRecord { // says so wherever it is
			m := g.object(t.Record, depth)
			m["$type"] = d.Ref
			return m
		}
		return g.value(t, depth)
	case lexicon.TypeUnion:
		if !d.Closed && (len(d.Refs) == 0 || depth > 8 || g.r.IntN(4) == 0) {
			g.planted++
			return map[string]any{"$type": "org.unheard.of#thing", "deep": []any{map[string]any{"x": g.link()}}}
		}
		ref := pick(g, d.Refs...)
		t := g.cat.Resolve(ref)
		g.members++
		if t.Type == lexicon.TypeRecord {
			t = t.Record
		}
		m := g.object(t, depth)
		m["$type"] = ref
		return m
	case lexicon.TypeObject:
		return g.object(d, depth)
	}
	panic("a value of type " + d.Type)
}

// length returns a length within limits, at most that much above the lower one.
func (g *maker) length(low, high *int64, room int) int {
	n, most := 0, room
	if low != nil {
		n = int(*low)
		most += n
	}
	if high != nil {
		most = min(most, int(*high))
	}
	return n + g.r.IntN(max(most-n, 0)+1)
}

func (g *maker) integer(d *lexicon.Def) any {
	if d.Const != nil {
		return d.Const
	}
	if len(d.IntEnum) > 0 {
		return pick(g, d.IntEnum...)
	}
	v := g.r.Int64() >> g.r.IntN(64) * int64(1-2*g.r.IntN(2))
	if d.Minimum != nil && v < *d.Minimum {
		v = *d.Minimum + int64(g.r.IntN(3))
	}
	if d.Maximum != nil && v > *d.Maximum {
		v = *d.Maximum
	}
	return v
}

func (g *maker) text(d *lexicon.Def) any {
	if d.Const != nil {
		return d.Const
	}
	if len(d.Enum) > 0 {
		return pick(g, d.Enum...)
	}
	did := fmt.Sprintf("did:plc:%024d", g.r.IntN(1e9))
	switch d.Format {
	case syntax.KindDID, syntax.KindAtIdentifier:
		return did
	case syntax.KindHandle:
		return "alice.test"
	case syntax.KindATURI:
		return "at://" + did + "/app.bsky.feed.post/3jui7kd54zh2y"
	case syntax.KindCID:
		return g.link().String()
	case syntax.KindDatetime:
		return pick(g, "2026-01-02T03:04:05Z", "1985-04-12T23:20:50.123456+01:30")
	case syntax.KindLanguage:
		return pick(g, "en", "pt-BR")
	case syntax.KindNSID:
		return "com.example.fooBar"
	case syntax.KindTID:
		return "3jui7kd54zh2y"
	case syntax.KindRecordKey:
		return pick(g, "self", "3jui7kd54zh2y")
	case syntax.KindURI:
		return "https://example.com/x?y=z#w"
	}
	if len(d.KnownValues) > 0 && g.r.IntN(2) == 0 {
		return pick(g, d.KnownValues...)
	}
	s := pick(g, "", "a", "☺ text", "e\u0301 👩‍👩‍👧‍👦", strings.Repeat("long ", g.r.IntN(200)))
	fits := func() bool {
		n, c := int64(len(s)), int64(lexicon.Graphemes(s))
		return !(d.MaxLength != nil && n > *d.MaxLength || d.MaxGraphemes != nil && c > *d.MaxGraphemes)
	}
	for !fits() {
		s = strings.ToValidUTF8(s[:len(s)/2], "")
	}
	for d.MinLength != nil && int64(len(s)) < *d.MinLength || d.MinGraphemes != nil && int64(lexicon.Graphemes(s)) < *d.MinGraphemes {
		s += "m"
	}
	return s
}

func (g *maker) blob(d *lexicon.Def) any {
	mime := "image/png"
	if len(d.Accept) > 0 {
		mime = strings.ReplaceAll(pick(g, d.Accept...), "*", "x")
	}
	size := int64(1 + g.r.IntN(1000))
	if d.MaxSize != nil {
		size = min(size, *d.MaxSize)
	}
	return map[string]any{"$type": "blob", "ref": g.link(), "mimeType": mime, "size": size}
}

// spoil changes one thing somewhere in a value, which most often makes it invalid.
func (g *maker) spoil(v any) any {
	switch v := v.(type) {
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		if len(keys) == 0 {
			return g.other()
		}
		slices.Sort(keys)
		k := pick(g, keys...)
		switch g.r.IntN(6) {
		case 0:
			delete(v, k)
		case 1:
			v[k] = nil
		case 2:
			v[k] = g.other()
		default:
			v[k] = g.spoil(v[k])
		}
		return v
	case []any:
		if len(v) == 0 || g.r.IntN(6) == 0 {
			return append(v, g.other())
		}
		i := g.r.IntN(len(v))
		v[i] = g.spoil(v[i])
		return v
	case string:
		return pick[any](g, "", v+"!", v+strings.Repeat("x", 5000), "org.other#thing", int64(1))
	case int64:
		return pick[any](g, v+1, -v-1, int64(1)<<52, "1", true)
	}
	return g.other()
}

func (g *maker) other() any {
	return pick[any](g, nil, int64(-1), "other", true, []any{}, []any{nil}, map[string]any{}, map[string]any{"$type": "a.b.c"}, map[string]any{"$type": "blob"}, []byte{1}, g.link())
}
