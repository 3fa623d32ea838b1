package lexicon_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/syntax"
)

func TestDependencies(t *testing.T) {
	for _, c := range []struct {
		schema string
		want   []syntax.NSID
	}{
		{`{"lexicon":1,"id":"com.example.a","defs":{"main":{"type":"token"}}}`, nil},
		{`{"lexicon":1,"id":"com.example.a","defs":{"main":{"type":"object","properties":{
			"self":{"type":"ref","ref":"#other"},"me":{"type":"ref","ref":"com.example.a#other"},
			"b":{"type":"array","items":{"type":"ref","ref":"com.example.b"}},
			"u":{"type":"union","refs":["com.example.c#x","com.example.d","com.example.b"]},
			"s":{"type":"string","knownValues":["com.example.tokens#one","com.example.notAToken","!hide","Com.Example.tokens#two","x#y"]}
		}},"other":{"type":"object","properties":{}}}}`, []syntax.NSID{"com.example.b", "com.example.c", "com.example.d", "com.example.tokens"}},
		{`{"lexicon":1,"id":"com.example.get","defs":{"main":{"type":"procedure",
			"parameters":{"type":"params","properties":{"sort":{"type":"string","knownValues":["com.example.sort#new"]}}},
			"input":{"encoding":"application/json","schema":{"type":"ref","ref":"com.example.in#x"}},
			"output":{"encoding":"application/json","schema":{"type":"ref","ref":"com.example.out#x"}}}}}`,
			[]syntax.NSID{"com.example.in", "com.example.out", "com.example.sort"}},
		{`{"lexicon":1,"id":"com.example.sub","defs":{"main":{"type":"subscription","message":{"schema":{"type":"union","refs":["com.example.msg","#here"]}}},"here":{"type":"object","properties":{}}}}`,
			[]syntax.NSID{"com.example.msg"}},
		{`{"lexicon":1,"id":"com.example.authAll","defs":{"main":{"type":"permission-set","permissions":[
			{"type":"permission","resource":"repo","collection":["com.example.post","*"]},
			{"type":"permission","resource":"rpc","lxm":["com.example.get"],"aud":"*"}]}}}`, []syntax.NSID{"com.example.get", "com.example.post"}},
	} {
		s, err := lexicon.ParseSchema([]byte(c.schema))
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Dependencies(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", s.ID, got, c.want)
		}
	}
}

func TestGraph(t *testing.T) {
	a, err := lexicon.ParseSchema([]byte(`{"lexicon":1,"id":"com.example.a","defs":{"main":{"type":"record","key":"tid","record":{"type":"object","required":["z"],"nullable":["y"],"properties":{
		"x":{"type":"ref","ref":"com.example.b#o"},"y":{"type":"array","maxLength":3,"items":{"type":"union","refs":["#o","com.example.b#main"]}},
		"z":{"type":"string","format":"did","description":"who","maxLength":9,"knownValues":["com.example.b#tok","#o","plain"],"default":"d"}}}},
		"o":{"type":"object","properties":{}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	b, err := lexicon.ParseSchema([]byte(`{"lexicon":1,"id":"com.example.b","defs":{"main":{"type":"permission-set","permissions":[{"type":"permission","resource":"repo","collection":["com.example.a"]}]},
		"o":{"type":"object","properties":{}},"tok":{"type":"token"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	c := lexicon.NewCatalog()
	c.Add(a)
	c.Add(b)
	g := c.Graph()
	want := []lexicon.Link{
		{"com.example.a", "defs.main.record.properties.x", lexicon.LinkRef, "com.example.b#o"},
		{"com.example.a", "defs.main.record.properties.y.items", lexicon.LinkUnion, "com.example.a#o"},
		{"com.example.a", "defs.main.record.properties.y.items", lexicon.LinkUnion, "com.example.b"},
		{"com.example.a", "defs.main.record.properties.z", lexicon.LinkValue, "com.example.a#o"},
		{"com.example.a", "defs.main.record.properties.z", lexicon.LinkValue, "com.example.b#tok"},
	}
	if got := g.From("com.example.a"); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if got := g.To("com.example.a"); len(got) != 1 || got[0].Kind != lexicon.LinkPermission || got[0].From != "com.example.b" {
		t.Errorf("%v", got)
	}
	var text []string
	for _, f := range a.Main().Fields() {
		text = append(text, fmt.Sprint(f.Name, f.Required, f.Nullable, f.Def.Description, f.Def.TypeText(), f.Def.Limits()))
	}
	wantText := []string{
		"ztrue falsewhostring (did)[at most 9 bytes such as: com.example.b#tok, #o, plain default d]",
		"xfalse falseref to com.example.b#o[]", "yfalse truearray of open union of 2[at most 3 items]",
	}
	if !slices.Equal(text, wantText) {
		t.Errorf("%q", text)
	}
}

func TestProblems(t *testing.T) {
	doc := `{"lexicon":2,"id":"x","defs":{
		"q":{"type":"query"},
		"main":{"type":"record","key":"any","record":{"type":"object","properties":{
			"a":{"type":"string","minLength":3,"maxLength":1},"b":{"type":"blob","accept":["image"]},"c":{"type":"array"},"d":{"type":"novel"},"e":{"type":"ref","ref":"#q"},"f":{"type":"array","items":{"type":"token"}}}}}}}`
	var got []string
	for _, p := range lexicon.Problems([]byte(doc)) {
		got = append(got, string(p.Rule)+"@"+p.Path)
	}
	want := []string{
		"lexicon-version@", "invalid-nsid@", "contradictory-limits@defs.main.record.properties.a", "accept-syntax@defs.main.record.properties.b",
		"lexicon-schema@defs.main.record.properties.c", "lexicon-schema@defs.main.record.properties.d", "lexicon-schema@defs.main.record.properties.f.items",
		"non-main-primary@defs.q",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	many := `{"lexicon":1,"id":"com.example.many","defs":{"main":{"type":"object","properties":{`
	for i := range 300 {
		many += fmt.Sprintf(`"p%d":{"type":"none"},`, i)
	}
	many += `"z":{"type":"string"}}}}}`
	if n := len(lexicon.Problems([]byte(many))); n != 100 {
		t.Errorf("%d problems", n)
	}
}
