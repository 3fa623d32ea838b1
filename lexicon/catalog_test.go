package lexicon_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/syntax"
)

func parse(t testing.TB, json string) *lexicon.Schema {
	t.Helper()
	s, err := lexicon.ParseSchema([]byte(json))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// shelf is a set of schemas to resolve from, which counts who asks for what.
type shelf struct {
	mu      sync.Mutex
	schemas map[syntax.NSID]*lexicon.Schema
	asked   []syntax.NSID
	err     error
}

func newShelf(t testing.TB, schemas ...string) *shelf {
	s := &shelf{schemas: map[syntax.NSID]*lexicon.Schema{}, err: lexicon.ErrUnknownSchema}
	for _, json := range schemas {
		x := parse(t, json)
		s.schemas[x.ID] = x
	}
	return s
}

func (s *shelf) resolve(id syntax.NSID) (*lexicon.Schema, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, id)
	if x := s.schemas[id]; x != nil {
		return x, nil
	}
	return nil, fmt.Errorf("%s: %w", id, s.err)
}

var network = []string{
	`{"lexicon":1,"id":"com.example.note","defs":{"main":{"type":"record","key":"tid","record":{"type":"object","properties":{
		"a":{"type":"ref","ref":"com.example.a#o"},"b":{"type":"ref","ref":"com.example.gone"},"u":{"type":"union","refs":["com.example.b"]},"n":{"type":"integer"}}}}}}`,
	`{"lexicon":1,"id":"com.example.a","defs":{"o":{"type":"object","required":["x"],"properties":{"x":{"type":"integer"},"deep":{"type":"ref","ref":"com.example.b"}}}}}`,
	`{"lexicon":1,"id":"com.example.b","defs":{"main":{"type":"object","required":["y"],"properties":{"y":{"type":"string"}}}}}`,
	`{"lexicon":1,"id":"com.example.getNote","defs":{"main":{"type":"query","errors":[{"name":"NoteNotFound"}],"output":{"encoding":"application/json","schema":{"type":"ref","ref":"com.example.b"}},
		"parameters":{"type":"params","required":["q"],"properties":{"q":{"type":"string","maxLength":3},"n":{"type":"integer","maximum":5},"f":{"type":"array","items":{"type":"boolean"},"maxLength":2}}}}}}`,
}

func TestResolvingCatalog(t *testing.T) {
	s := newShelf(t, network...)
	c := lexicon.NewResolvingCatalog(s.resolve)
	check := func(value, want string, asked ...syntax.NSID) {
		t.Helper()
		s.asked = nil
		if got := ruleOf(c.ValidateRecord("com.example.note", toCBOR(t, `{"$type":"com.example.note",`+value+`}`))); got != want {
			t.Errorf("%s: %q, want %q", value, got, want)
		}
		if !slices.Equal(s.asked, asked) {
			t.Errorf("%s: asked for %v, want %v", value, s.asked, asked)
		}
	}
	check(`"n":1`, "", "com.example.note") // only what the data needs
	check(`"a":{"x":1}`, "", "com.example.a")
	check(`"a":{"x":1,"deep":{}}`, "required@a.deep.y", "com.example.b")
	check(`"u":{"$type":"com.example.b","y":"z"}`, "")
	check(`"b":{}`, "unresolved@b", "com.example.gone") // and again each time: how long to remember is the resolver's business
	check(`"b":{}`, "unresolved@b", "com.example.gone")
	s.schemas["com.example.gone"] = parse(t, `{"lexicon":1,"id":"com.example.gone","defs":{"main":{"type":"object","properties":{}}}}`)
	check(`"b":{}`, "", "com.example.gone")

	if err := c.ValidateOutput("com.example.getNote", toCBOR(t, `{"y":"z"}`)); err != nil {
		t.Error(err)
	}
	if got := ruleOf(c.ValidateOutput("com.example.getNote", toCBOR(t, `{}`))); got != "required@y" {
		t.Error(got)
	}
	if err := c.ValidateType("com.example.nowhere#x", nil); !errors.Is(err, lexicon.ErrUnknownSchema) {
		t.Error(err)
	}
	s.err = errors.New("the network is down")
	if err := c.ValidateRecord("com.example.nowhere", nil); err == nil || errors.Is(err, lexicon.ErrUnknownSchema) || !errors.Is(err, s.err) {
		t.Error(err)
	}
	liar := lexicon.NewResolvingCatalog(func(syntax.NSID) (*lexicon.Schema, error) { return s.schemas["com.example.b"], nil })
	if _, err := liar.Lookup("com.example.a"); err == nil || liar.Schema("com.example.b") != nil {
		t.Errorf("another schema than the one asked for was taken: %v", err)
	}
	if x, err := lexicon.NewResolvingCatalog(func(syntax.NSID) (*lexicon.Schema, error) { return nil, nil }).Lookup("com.example.a"); x != nil || !errors.Is(err, lexicon.ErrUnknownSchema) {
		t.Error(x, err)
	}
}

func TestResolveOutputLater(t *testing.T) {
	s := newShelf(t, network...)
	c := lexicon.NewResolvingCatalog(s.resolve)
	c.Add(parse(t, `{"lexicon":1,"id":"com.example.put","defs":{"main":{"type":"procedure","input":{"encoding":"application/json","schema":{"type":"object","properties":{"b":{"type":"ref","ref":"com.example.b"}}}}}}}`))
	if got := ruleOf(c.ValidateInput("com.example.put", toCBOR(t, `{"b":{}}`))); got != "required@b.y" {
		t.Error(got)
	}
	if err := c.ValidateInput("com.example.put", toCBOR(t, `{"b":{"y":""}}`)); err != nil {
		t.Error(err)
	}
}

func TestMissing(t *testing.T) {
	s := newShelf(t, network...)
	c := lexicon.NewCatalog()
	if got := c.Missing("com.example.note"); !slices.Equal(got, []syntax.NSID{"com.example.note"}) {
		t.Error(got)
	}
	c.Add(s.schemas["com.example.note"])
	if got := c.Missing("com.example.note"); !slices.Equal(got, []syntax.NSID{"com.example.a", "com.example.b", "com.example.gone"}) {
		t.Error(got)
	}
	if _, err := c.Lookup("com.example.gone"); !errors.Is(err, lexicon.ErrUnknownSchema) {
		t.Error(err)
	}
}

func TestResolvingConcurrently(t *testing.T) {
	s := newShelf(t, network...)
	c := lexicon.NewResolvingCatalog(s.resolve)
	raw := toCBOR(t, `{"$type":"com.example.note","a":{"x":1,"deep":{"y":""}},"u":{"$type":"com.example.b","y":"z"}}`)
	var wg sync.WaitGroup
	var failed atomic.Int32
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if c.ValidateRecord("com.example.note", raw) != nil {
					failed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d failed", failed.Load())
	}
}

func TestOptions(t *testing.T) {
	c := record(t, `{"type":"union","refs":["#o"]}`, `"o":{"type":"object","properties":{"d":{"type":"string","format":"datetime"}}}`, `"other":{"type":"object","required":["x"],"properties":{}}`)
	lenient, strict := c.With(lexicon.Options{LenientDatetimes: true}), c.With(lexicon.Options{StrictUnions: true})
	for _, x := range []struct {
		c           *lexicon.Catalog
		value, want string
	}{
		{c, `{"$type":"com.example.test#o","d":"2026-01-02T03:04:05"}`, "format@p.d"},
		{lenient, `{"$type":"com.example.test#o","d":"2026-01-02T03:04:05"}`, ""},
		{lenient, `{"$type":"com.example.test#o","d":"yesterday"}`, "format@p.d"},
		{c, `{"$type":"com.example.test#other"}`, ""},
		{strict, `{"$type":"com.example.test#other"}`, "required@p.x"},
		{strict, `{"$type":"com.example.test#other","x":1}`, ""},
		{strict, `{"$type":"com.example.test#none"}`, "unresolved@p"},
		{strict, `{"$type":"com.example.none"}`, "unresolved@p"},
		{strict, `{"$type":"#o"}`, "$type@p.$type"},
		{strict, `{"$type":"com.example.test#main"}`, "$type@p.$type"},
		{strict, `{"$type":"com.example.test#o"}`, ""},
	} {
		if got := ruleOf(x.c.ValidateRecord("com.example.test", toCBOR(t, `{"$type":"com.example.test","p":`+x.value+`}`))); got != x.want {
			t.Errorf("%s: %q, want %q", x.value, got, x.want)
		}
	}
	asking := lexicon.NewResolvingCatalog(newShelf(t, network...).resolve).With(lexicon.Options{StrictUnions: true})
	if got := ruleOf(asking.ValidateRecord("com.example.note", toCBOR(t, `{"$type":"com.example.note","u":{"$type":"com.example.a#o"}}`))); got != "required@u.x" {
		t.Error(got)
	}
}

func TestFindings(t *testing.T) {
	c := record(t, `{"type":"array","items":{"type":"ref","ref":"#o"}}`, `"o":{"type":"object","required":["x","y"],"properties":{"x":{"type":"integer"},"s":{"type":"string","maxLength":2},"u":{"type":"union","refs":["#o"],"closed":true}}}`)
	raw := toCBOR(t, `{"$type":"com.example.other","p":[{"x":"1","y":2},{"s":"long"},7,{"x":1,"y":null,"s":null,"u":{"$type":"com.example.test#o","x":true}},{"x":1,"y":1,"u":{}}]}`)
	all := []string{"type@p[0].x", "maxLength@p[1].s", "required@p[1].x", "required@p[1].y", "type@p[2]", "null@p[3].s", "type@p[3].u.x", "required@p[3].u.y", "$type@p[4].u.$type", "$type@$type"}
	for n := 2; n < 12; n++ {
		err := c.With(lexicon.Options{Findings: n}).ValidateRecord("com.example.test", raw)
		var got []string
		for _, e := range lexicon.Findings(err) {
			got = append(got, string(e.Rule)+"@"+e.Path)
		}
		if want := all[:min(n, len(all))]; !slices.Equal(got, want) {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
		var e *lexicon.Error
		if !errors.As(err, &e) || e.Path != "p[0].x" || !strings.Contains(err.Error(), "more") {
			t.Error(err)
		}
	}
	many := c.With(lexicon.Options{Findings: 50})
	if err := many.ValidateRecord("com.example.test", toCBOR(t, `{"$type":"com.example.test"}`)); err != nil {
		t.Error(err)
	}
	// Nobody goes on behind broken bytes.
	if got := lexicon.Findings(many.ValidateRecord("com.example.test", raw[:len(raw)-3])); len(got) == 0 || got[len(got)-1].Rule != lexicon.RuleEncoding {
		t.Error(got)
	}
	if lexicon.Findings(nil) != nil || lexicon.Findings(errors.New("x")) != nil {
		t.Error("findings from nowhere")
	}
	p := lexicon.NewResolvingCatalog(newShelf(t, network...).resolve).With(lexicon.Options{Findings: 9})
	var got []string
	for _, e := range lexicon.Findings(p.ValidateParams("com.example.getNote", map[string][]string{"n": {"7"}, "f": {"true", "maybe"}})) {
		got = append(got, string(e.Rule)+"@"+e.Path)
	}
	if !slices.Equal(got, []string{"type@f[1]", "maximum@n", "required@q"}) {
		t.Error(got)
	}
}

func TestErrorNames(t *testing.T) {
	c := lexicon.NewResolvingCatalog(newShelf(t, network...).resolve)
	for name, want := range map[string]string{"NoteNotFound": "", "InvalidRequest": "", "Surprise": "error@", "": "error@"} {
		if got := ruleOf(c.ValidateError("com.example.getNote", name)); got != want {
			t.Errorf("%q: %q", name, got)
		}
	}
	if err := c.ValidateError("com.example.note", "X"); !errors.Is(err, lexicon.ErrUnknownSchema) {
		t.Error(err)
	}
}

func TestInNamespace(t *testing.T) {
	for _, x := range []struct {
		set, id syntax.NSID
		want    bool
	}{
		{"app.example.feed.authPost", "app.example.feed.post", true}, {"app.example.feed.authPost", "app.example.feed.sub.post", true},
		{"app.example.feed.authPost", "app.example.actor.profile", false}, {"app.example.feed.authPost", "app.example.post", false},
		{"app.example.authFull", "app.example.feed.post", true}, {"app.example.authFull", "app.examples.post", false}, {"App.Example.authFull", "app.example.post", true}, {"", "a.b.c", false},
	} {
		if got := lexicon.InNamespace(x.set, x.id); got != x.want {
			t.Errorf("%s, %s: %v", x.set, x.id, got)
		}
	}
}

// TestHostileSchemas feeds what somebody may publish to make work for others.
func TestHostileSchemas(t *testing.T) {
	bounded := func(name string, f func()) {
		start := time.Now()
		if f(); time.Since(start) > 20*time.Second {
			t.Errorf("%s took %v", name, time.Since(start))
		}
	}
	bounded("10 MB", func() {
		if _, err := lexicon.ParseSchema([]byte(schemaHead + `"a":{"type":"token","description":"` + strings.Repeat("x", 10<<20) + `"}}}`)); err == nil || !strings.Contains(err.Error(), "1048576") {
			t.Error(err)
		}
	})
	bounded("nesting", func() {
		for _, open := range []string{`{"type":"array","items":`, `{"type":"object","properties":{"p":`} {
			if _, err := lexicon.ParseSchema([]byte(schemaHead + `"a":` + strings.Repeat(open, 15000))); err == nil {
				t.Error("accepted")
			}
		}
	})
	bounded("a long chain of definitions", func() {
		var s strings.Builder
		s.WriteString(schemaHead + `"main":{"type":"record","key":"any","record":{"type":"object","properties":{"p":{"type":"ref","ref":"#d0"}}}}`)
		for i := range 12000 {
			fmt.Fprintf(&s, `,"d%d":{"type":"object","properties":{"p":{"type":"ref","ref":"#d%d"}}}`, i, (i+1)%12000)
		}
		s.WriteString("}}")
		c := lexicon.NewCatalog()
		c.Add(parse(t, s.String()))
		if err := c.ValidateRecord("com.example.test", toCBOR(t, `{"$type":"com.example.test","p":{"p":{"p":{}}}}`)); err != nil {
			t.Error(err)
		}
	})
	bounded("circles", func() {
		c := record(t, `{"type":"ref","ref":"#list"}`, `"list":{"type":"array","items":{"type":"ref","ref":"#list"}}`, `"o":{"type":"object","properties":{"u":{"type":"union","refs":["#o"]}}}`)
		if err := c.ValidateRecord("com.example.test", toCBOR(t, `{"$type":"com.example.test","p":[[],[[]]]}`)); err != nil {
			t.Error(err)
		}
		deep := append(cbor.AppendText(cbor.AppendMap(nil, 2), "p"), strings.Repeat("\x81", 100000)...)
		deep = append(deep, 0x80)
		deep = cbor.AppendText(cbor.AppendText(deep, "$type"), "com.example.test")
		if got := ruleOf(c.ValidateRecord("com.example.test", deep)); !strings.HasPrefix(got, "depth@p[0][0]") {
			t.Error(got)
		}
	})
	bounded("many of everything", func() {
		var names, refs, ints, mimes []string
		props := `"p0":{"type":"integer"}`
		for i := range 9000 {
			names = append(names, fmt.Sprintf(`"v%d"`, i))
			refs = append(refs, fmt.Sprintf(`"com.example.n%d"`, i))
			ints = append(ints, fmt.Sprint(9000-i))
			mimes = append(mimes, fmt.Sprintf(`"a/b%d"`, i))
			props += fmt.Sprintf(`,"q%d":{"type":"integer"}`, i)
		}
		join := func(l []string) string { return "[" + strings.Join(l, ",") + "]" }
		c := record(t, `{"type":"array","items":{"type":"union","refs":["#s","#i","#u","#o"]}}`,
			`"s":{"type":"object","properties":{"s":{"type":"array","items":{"type":"string","enum":`+join(names)+`,"knownValues":["(((a+)+)+)+$"]}}}}`,
			`"i":{"type":"object","properties":{"i":{"type":"array","items":{"type":"integer","enum":`+join(ints)+`}}}}`,
			`"u":{"type":"object","properties":{"u":{"type":"array","items":{"type":"union","refs":`+join(refs)+`}}}}`,
			`"o":{"type":"object","properties":{"o":{"type":"array","items":{"type":"object","properties":{`+props+`}}}}}`,
			`"m":{"type":"blob","accept":`+join(mimes)+`}`)
		list := func(item string) string { return "[" + strings.Repeat(item+",", 50000) + item + "]" }
		for _, value := range []string{
			`{"$type":"com.example.test#s","s":` + list(`"v8999"`) + `}`, `{"$type":"com.example.test#i","i":` + list(`1`) + `}`,
			`{"$type":"com.example.test#u","u":` + list(`{"$type":"z"}`) + `}`, `{"$type":"com.example.test#o","o":` + list(`{"q8999":1}`) + `}`,
		} {
			if err := c.ValidateRecord("com.example.test", toCBOR(t, `{"$type":"com.example.test","p":[`+value+`]}`)); err != nil {
				t.Errorf("%.60s: %v", value, err)
			}
		}
		if got := ruleOf(c.ValidateRecord("com.example.test", toCBOR(t, `{"$type":"com.example.test","p":[{"$type":"com.example.test#s","s":["w"]}]}`))); got != "enum@p[0].s[0]" {
			t.Error(got)
		}
	})
	for name, id := range map[string]string{"Cyrillic": "com.ехample.note", "full width": "com.ｅxample.note", "zero width": "com.exam\u200bple.note", "right to left": "com.example.\u202enote"} {
		if _, err := lexicon.ParseSchema([]byte(`{"lexicon":1,"id":"` + id + `","defs":{"a":{"type":"token"}}}`)); err == nil {
			t.Errorf("%s accepted", name)
		}
		if _, err := lexicon.ParseSchema([]byte(schemaHead + `"a":{"type":"array","items":{"type":"ref","ref":"` + id + `"}}}}`)); err == nil {
			t.Errorf("a reference with %s accepted", name)
		}
	}
	c := lexicon.NewResolvingCatalog(func(id syntax.NSID) (*lexicon.Schema, error) { // a new reference behind each one
		n := strings.TrimPrefix(string(id), "com.example.x")
		return lexicon.ParseSchema([]byte(`{"lexicon":1,"id":"` + string(id) + `","defs":{"main":{"type":"object","properties":{"p":{"type":"ref","ref":"com.example.x` + n + `x"}}}}}`))
	})
	if err := c.ValidateType("com.example.x", toCBOR(t, strings.Repeat(`{"p":`, 20)+"{}"+strings.Repeat("}", 20))); err != nil {
		t.Error(err)
	}
	if n := len(c.NSIDs()); n != 21 {
		t.Errorf("%d schemas were asked for", n)
	}
}
