package api_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/api/chatbsky"
	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/api/comgermnetwork"
	"github.com/barograph/baro/api/sitestandard"
	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/internal/lexgen"
	"github.com/barograph/baro/lexicons"
	"github.com/barograph/baro/xrpc"
)

var records = slices.Concat(comatproto.Records(), appbsky.Records(), chatbsky.Records(), sitestandard.Records(), comgermnetwork.Records())

// TestRecordsIdentity makes random records of every record type from its schema, with entries and union members planted that
// no schema knows, and wants the same bytes back from decoding and encoding, in CBOR and through JSON.
func TestRecordsIdentity(t *testing.T) {
	cat, err := lexgen.Load(lexicons.FS)
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]reflect.Type{}
	for _, r := range records {
		types[r.LexType()] = reflect.TypeOf(r).Elem()
	}
	seen := 0
	for _, id := range cat.IDs() {
		main := cat.Docs[id].Defs["main"]
		if main == nil || main.Type != "record" {
			continue
		}
		seen++
		if types[id] == nil {
			t.Errorf("%s has no Go type in Records", id)
			continue
		}
		planted, members, rounds := 0, 0, 300
		if testing.Short() {
			rounds = 30
		}
		for seed := range rounds {
			g := &maker{cat: cat, r: rand.New(rand.NewPCG(uint64(seed), 7))}
			m := g.object(id, main.Record, 0)
			m["$type"] = id
			in, err := data.Encode(m)
			if err != nil {
				t.Fatal(err)
			}
			v := reflect.New(types[id]).Interface()
			if err := data.Unmarshal(in, v); err != nil {
				js, _ := data.AppendJSON(nil, in)
				t.Fatalf("%s, seed %d: %v\n%s", id, seed, err, js)
			}
			out, err := data.Marshal(v)
			if err != nil {
				t.Fatalf("%s, seed %d: %v", id, seed, err)
			}
			if string(out) != string(in) {
				a, _ := data.AppendJSON(nil, in)
				b, _ := data.AppendJSON(nil, out)
				t.Fatalf("%s, seed %d:\n%s\n%s", id, seed, a, b)
			}
			js, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			w := reflect.New(types[id]).Interface()
			if err := json.Unmarshal(js, w); err != nil {
				t.Fatal(err)
			}
			if out, err = data.Marshal(w); err != nil || string(out) != string(in) {
				t.Fatalf("%s, seed %d, through JSON: %v\n%s", id, seed, err, js)
			}
			planted, members = planted+g.planted, members+g.members
		}
		if planted == 0 {
			t.Errorf("%s: nothing was planted", id)
		}
	}
	if seen != len(records) {
		t.Errorf("%d record schemas, %d types", seen, len(records))
	}
	t.Logf("%d record types", seen)
}

// maker makes random values of schemas.
type maker struct {
	cat              *lexgen.Catalog
	r                *rand.Rand
	planted, members int
}

func (g *maker) object(id string, s *lexgen.Schema, depth int) map[string]any {
	m := map[string]any{}
	for name, p := range s.Properties {
		if !slices.Contains(s.Required, name) && (depth > 6 || g.r.IntN(2) == 0) {
			continue
		}
		m[name] = g.value(id, p, depth+1)
	}
	for g.r.IntN(2) == 0 {
		name := []string{"x", "zz", "unknownField", "$custom", "a", "créé", strings.Repeat("k", 30)}[g.r.IntN(7)]
		if s.Properties[name] == nil {
			m[name] = []any{nil, int64(g.r.Int64()), "text", []any{}, map[string]any{"b": true}, []byte{1}, g.link()}[g.r.IntN(7)]
			g.planted++
		}
	}
	return m
}

func (g *maker) link() cid.CID { return cid.Sum(cid.Raw, []byte{byte(g.r.IntN(256))}) }

func (g *maker) value(id string, s *lexgen.Schema, depth int) any {
	switch s.Type {
	case "string":
		return []string{"", "a", "☺ text", strings.Repeat("long ", g.r.IntN(200))}[g.r.IntN(4)]
	case "integer":
		return g.r.Int64() >> g.r.IntN(64) * int64(1-2*g.r.IntN(2))
	case "boolean":
		return g.r.IntN(2) == 0
	case "bytes":
		return make([]byte, g.r.IntN(40))
	case "cid-link":
		return g.link()
	case "blob":
		if g.r.IntN(4) == 0 {
			return map[string]any{"cid": g.link().String(), "mimeType": "image/jpeg"}
		}
		return map[string]any{"$type": "blob", "ref": g.link(), "mimeType": "image/png", "size": int64(1 + g.r.IntN(1000))}
	case "unknown":
		return map[string]any{"any": []any{int64(1), nil}}
	case "array":
		list := []any{}
		if depth < 7 {
			for range g.r.IntN(4) {
				list = append(list, g.value(id, s.Items, depth+1))
			}
		}
		return list
	case "ref":
		r, d, err := g.cat.Resolve(id, s.Ref)
		if err != nil {
			panic(err)
		}
		switch d.Type {
		case "object":
			return g.object(r.ID, d, depth)
		case "record": // says so wherever it is
			m := g.object(r.ID, d.Record, depth)
			m["$type"] = r.String()
			return m
		}
		return g.value(r.ID, d, depth)
	case "union":
		if !s.Closed && (len(s.Refs) == 0 || g.r.IntN(4) == 0) {
			g.planted++
			return map[string]any{"$type": "org.unheard.of#thing", "deep": []any{map[string]any{"x": g.link()}}}
		}
		r, d, err := g.cat.Resolve(id, s.Refs[g.r.IntN(len(s.Refs))])
		if err != nil {
			panic(err)
		}
		g.members++
		if d.Type == "record" {
			d = d.Record
		}
		m := g.object(r.ID, d, depth)
		m["$type"] = r.String()
		return m
	case "object":
		return g.object(id, s, depth)
	}
	panic("a value of type " + s.Type)
}

// TestParams tells that package xrpc can read the tags of all parameters.
func TestParams(t *testing.T) {
	paths, err := filepath.Glob("*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	kinds := map[string]reflect.Type{"string": reflect.TypeFor[string](), "int64": reflect.TypeFor[int64](), "bool": reflect.TypeFor[bool]()}
	for _, path := range paths {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(node ast.Node) bool {
			ts, ok := node.(*ast.TypeSpec)
			if !ok || !strings.HasSuffix(ts.Name.Name, "_Params") {
				return true
			}
			var fields []reflect.StructField
			for _, f := range ts.Type.(*ast.StructType).Fields.List {
				sf := reflect.StructField{Name: f.Names[0].Name}
				switch e := f.Type.(type) {
				case *ast.Ident:
					sf.Type = kinds[e.Name]
				case *ast.StarExpr:
					sf.Type = reflect.PointerTo(kinds[e.X.(*ast.Ident).Name])
				case *ast.ArrayType:
					sf.Type = reflect.SliceOf(kinds[e.Elt.(*ast.Ident).Name])
				}
				if f.Tag != nil {
					tag, err := strconv.Unquote(f.Tag.Value)
					if err != nil {
						t.Fatal(err)
					}
					sf.Tag = reflect.StructTag(tag)
				}
				fields = append(fields, sf)
			}
			n++
			if _, err := xrpc.EncodeParams(reflect.New(reflect.StructOf(fields)).Interface()); err != nil {
				t.Errorf("%s: %v", ts.Name.Name, err)
			}
			return true
		})
	}
	if n < 150 {
		t.Errorf("only %d parameter structs", n)
	}
}

// TestDeepThread reads and writes an answer that nests deeper than a record may.
func TestDeepThread(t *testing.T) {
	author := `"author":{"did":"did:web:a.b","handle":"a.b"},"cid":"bafy","indexedAt":"2026-01-02T03:04:05Z","record":{"$type":"app.bsky.feed.post"},"uri":"at://a.b"`
	level := `{"$type":"app.bsky.feed.defs#threadViewPost","post":{` + author + `},"parent":`
	end := `{"$type":"app.bsky.feed.defs#notFoundPost","notFound":true,"uri":"at://a.b"}`
	for depth, ok := range map[int]bool{1: true, 100: true, 1000: true, 5000: false} {
		in := `{"thread":` + strings.Repeat(level, depth) + end + strings.Repeat("}", depth) + `}`
		var out appbsky.FeedGetPostThread_Output
		err := data.UnmarshalJSON([]byte(in), &out)
		if (err == nil) != ok {
			t.Errorf("%d levels: %v", depth, err)
		}
		if err != nil {
			continue
		}
		n := 0
		for u := out.Thread.Value; n < depth; n++ {
			u = u.(*appbsky.FeedDefs_ThreadViewPost).Parent.Value
		}
		js, err := data.MarshalJSON(&out)
		if err != nil {
			t.Fatal(err)
		}
		var again appbsky.FeedGetPostThread_Output
		if err := data.UnmarshalJSON(js, &again); err != nil || !reflect.DeepEqual(out, again) {
			t.Errorf("%d levels: %v", depth, err)
		}
	}
}

// post is what an app writes every day: a reply with a link, a mention and an image.
var post = appbsky.FeedPost{
	Text: "Good morning @alice.test, have a look at https://example.com/some/page — the pressure is falling, and the barograph shows it clearly.",
	Facets: []appbsky.RichtextFacet{
		{Index: appbsky.RichtextFacet_ByteSlice{ByteStart: 13, ByteEnd: 24}, Features: []appbsky.RichtextFacet_Features_Elem{{Value: &appbsky.RichtextFacet_Mention{Did: "did:plc:ewvi7nxzyoun6zhxrhs64oiz"}}}},
		{Index: appbsky.RichtextFacet_ByteSlice{ByteStart: 41, ByteEnd: 70}, Features: []appbsky.RichtextFacet_Features_Elem{{Value: &appbsky.RichtextFacet_Link{Uri: "https://example.com/some/page"}}}},
	},
	Langs: []string{"en"},
	Reply: &appbsky.FeedPost_ReplyRef{
		Root:   comatproto.RepoStrongRef{Uri: "at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/app.bsky.feed.post/3jui7kd54zh2y", Cid: "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"},
		Parent: comatproto.RepoStrongRef{Uri: "at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/app.bsky.feed.post/3jui7kd54zh2z", Cid: "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"},
	},
	Embed: appbsky.FeedPost_Embed{Value: &appbsky.EmbedImages{Images: []appbsky.EmbedImages_Image{
		{Alt: "a barograph", Image: data.Blob{Ref: cid.Sum(cid.Raw, nil), MimeType: "image/jpeg", Size: 123456}},
	}}},
	CreatedAt: "2026-01-02T03:04:05.678Z",
}

func Example() {
	raw, err := data.Marshal(&appbsky.FeedPost{
		Text: "hello", CreatedAt: "2026-01-02T03:04:05.678Z",
		Embed: appbsky.FeedPost_Embed{Value: &appbsky.EmbedRecord{Record: comatproto.RepoStrongRef{Uri: "at://did:web:example.com/app.bsky.feed.post/1", Cid: "bafy…"}}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	var post appbsky.FeedPost
	if err := data.Unmarshal(raw, &post); err != nil {
		fmt.Println(err)
		return
	}
	switch e := post.Embed.Value.(type) {
	case *appbsky.EmbedRecord:
		fmt.Println(post.Text, e.Record.Uri)
	case nil:
		fmt.Println("an embed that isn't known here:", post.Embed.Type())
	}
	js, _ := json.Marshal(post)
	fmt.Println(string(js))
	// Output:
	// hello at://did:web:example.com/app.bsky.feed.post/1
	// {"text":"hello","$type":"app.bsky.feed.post","embed":{"$type":"app.bsky.embed.record","record":{"cid":"bafy…","uri":"at://did:web:example.com/app.bsky.feed.post/1"}},"createdAt":"2026-01-02T03:04:05.678Z"}
}

// TestAllocs holds the allocations that the speed table asks for.
func TestAllocs(t *testing.T) {
	raw, err := data.Marshal(&post)
	if err != nil {
		t.Fatal(err)
	}
	var v appbsky.FeedPost
	if n := testing.AllocsPerRun(100, func() { _ = data.Unmarshal(raw, &v) }); n > 10 {
		t.Errorf("decoding a post takes %v allocations, want at most 10", n)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = data.Marshal(&v) }); n > 1 && !raceEnabled {
		t.Errorf("encoding a post takes %v allocations, want at most 1", n)
	}
}

func BenchmarkPost(b *testing.B) {
	raw, err := data.Marshal(&post)
	if err != nil {
		b.Fatal(err)
	}
	js, err := data.MarshalJSON(&post)
	if err != nil {
		b.Fatal(err)
	}
	var v appbsky.FeedPost
	run := func(name string, size int, f func() error) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	run("decode", len(raw), func() error { return data.Unmarshal(raw, &v) })
	run("encode", len(raw), func() error { _, err := data.Marshal(&post); return err })
	run("decode-json", len(js), func() error { return data.UnmarshalJSON(js, &v) })
	run("encode-json", len(js), func() error { _, err := data.MarshalJSON(&post); return err })
	run("valid", len(raw), func() error { return cbor.Valid(raw) })
}
