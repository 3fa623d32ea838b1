package api_test

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/barograph/baro/data"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

var update = flag.Bool("update", false, "write table_test.go")

// TestTable tells that the variable methods, in table_test.go, has every descriptor of every package.
func TestTable(t *testing.T) {
	paths, err := filepath.Glob("*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	pkgs := map[string]bool{}
	var imports, list strings.Builder
	for _, path := range paths {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			d, ok := decl.(*ast.GenDecl)
			if !ok || d.Tok != token.VAR {
				continue
			}
			if name := file.Name.Name; !pkgs[name] {
				pkgs[name] = true
				fmt.Fprintf(&imports, "%q\n", "github.com/barograph/baro/api/"+name)
			}
			for _, spec := range d.Specs {
				fmt.Fprintf(&list, "%s.%s,\n", file.Name.Name, spec.(*ast.ValueSpec).Names[0].Name)
			}
		}
	}
	want, err := format.Source(fmt.Appendf(nil, "package api_test\n\nimport (\n%s)\n\n// methods are all descriptors: go test ./api -update\nvar methods = []any{\n%s}\n", imports.String(), list.String()))
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("table_test.go", want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile("table_test.go"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("table_test.go doesn't list the methods there are (%v): go test ./api -update", err)
	}
}

// typesOf returns the NSID of a descriptor and its types, nil where it has none.
func typesOf(t *testing.T, method any) (nsid string, params, in, out reflect.Type) {
	t.Helper()
	v := reflect.ValueOf(method)
	nsid = v.FieldByName("NSID").String()
	if m, ok := v.Type().MethodByName("URL"); ok { // a subscription
		return nsid, m.Type.In(2).Elem(), nil, nil
	}
	m, ok := v.Type().MethodByName("Call")
	if !ok {
		t.Fatalf("%v can't be called", v.Type())
	}
	first, last := m.Type.In(3).Elem(), m.Type.In(m.Type.NumIn()-1).Elem()
	out = m.Type.Out(0).Elem()
	switch name := v.Type().Name(); {
	case strings.HasPrefix(name, "Query["):
		return nsid, first, nil, out
	case strings.HasPrefix(name, "Procedure["):
		return nsid, nil, last, out
	}
	return nsid, first, last, out
}

func hasJSON(b *lexicon.Body) bool { return b != nil && b.Schema != nil }

// TestMethods holds every descriptor against its schema, and does with inputs and outputs what TestRecords does with records.
func TestMethods(t *testing.T) {
	cat := catalog()
	found := map[string]bool{}
	bodies := 0
	for _, m := range methods {
		nsid, params, in, out := typesOf(t, m)
		d := cat.Resolve(nsid)
		if d == nil || !d.Type.Primary() || d.Type == lexicon.TypeRecord {
			t.Errorf("%s is no method", nsid)
			continue
		}
		found[nsid] = true
		if params != nil && params != reflect.TypeFor[xrpc.None]() {
			testParams(t, nsid, params, d.Parameters)
		}
		id := syntax.NSID(nsid)
		for _, body := range []struct {
			name     string
			schema   *lexicon.Body
			typ      reflect.Type
			validate func([]byte) error
		}{
			{"input", d.Input, in, func(b []byte) error { return cat.ValidateInput(id, b) }},
			{"output", d.Output, out, func(b []byte) error { return cat.ValidateOutput(id, b) }},
		} {
			if !hasJSON(body.schema) {
				if body.typ != nil && body.typ.PkgPath() != "github.com/barograph/baro/xrpc" {
					t.Errorf("%s has %v as its %s, and no schema", nsid, body.typ, body.name)
				}
				continue
			}
			bodies++
			testBody(t, nsid+" "+body.name, body.schema.Schema, body.typ, body.validate)
		}
	}
	for _, id := range cat.NSIDs() {
		if d := cat.Resolve(string(id)); d != nil && !found[string(id)] && (d.Type == lexicon.TypeQuery || d.Type == lexicon.TypeProcedure || d.Type == lexicon.TypeSubscription) {
			t.Errorf("%s has no descriptor", id)
		}
	}
	t.Logf("%d methods, %d bodies", len(found), bodies)
}

func testBody(t *testing.T, name string, schema *lexicon.Def, typ reflect.Type, validate func([]byte) error) {
	t.Helper()
	for seed := range rounds(t, 3, 30) {
		g := newMaker(catalog(), uint64(seed))
		v := g.value(schema, 0)
		in, err := data.Encode(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(in); err != nil {
			t.Fatalf("%s, seed %d: not valid as made: %v\n%s", name, seed, err, asJSON(in))
		}
		roundTrip(t, in, typ)
		if in, err = data.Encode(g.spoil(v)); err != nil {
			t.Fatal(err)
		}
		agree(t, in, typ, validate)
	}
}

// testParams holds the struct of a method's parameters against the schema: what one accepts the other does.
func testParams(t *testing.T, nsid string, typ reflect.Type, schema *lexicon.Def) {
	t.Helper()
	cat := catalog()
	id := syntax.NSID(nsid)
	for seed := range rounds(t, 5, 50) {
		g := newMaker(cat, uint64(seed))
		q := map[string][]string{}
		for _, p := range schema.Properties {
			if !schema.IsRequired(p.Name) && g.r.IntN(2) == 0 {
				continue
			}
			v := g.value(p.Def, 0)
			if g.r.IntN(8) == 0 {
				v = g.spoil(v)
			}
			list, ok := v.([]any)
			if !ok {
				list = []any{v}
			}
			for _, v := range list {
				q[p.Name] = append(q[p.Name], fmt.Sprint(v))
			}
			if g.r.IntN(20) == 0 {
				delete(q, p.Name)
			}
		}
		p := reflect.New(typ).Interface()
		err := xrpc.DecodeParams(url.Values(q).Encode(), p)
		want := cat.ValidateParams(id, q)
		if (err == nil) != (want == nil) {
			t.Fatalf("%s?%s: the schema says %v, the struct %v", nsid, url.Values(q).Encode(), want, err)
		}
		if err != nil {
			continue
		}
		again, err := xrpc.EncodeParams(p)
		if err != nil {
			t.Fatal(err)
		}
		r := reflect.New(typ).Interface()
		if err := xrpc.DecodeParams(again, r); err != nil || !reflect.DeepEqual(p, r) {
			t.Fatalf("%s?%s became %s (%v)", nsid, url.Values(q).Encode(), again, err)
		}
	}
}
