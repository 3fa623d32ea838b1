package lexicon_test

import (
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
