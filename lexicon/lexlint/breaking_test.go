package lexlint_test

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/barograph/baro/data"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/lexicon/lexlint"
)

// either tries a comparison both ways: what is tightened in one direction is loosened in the other.
type either struct {
	name          string
	before, after lexlint.File
	there, back   string // "rule level direction; …", sorted by path
}

func method2(input, output, errs string) lexlint.File {
	return doc("com.example.putNote", `"main":{"type":"procedure"`+input+output+errs+`}`)
}

func in(props, rest string) string {
	return `,"input":{"encoding":"application/json","schema":{"type":"object","properties":{` + props + `}` + rest + `}}`
}

func out(props, rest string) string {
	return `,"output":{"encoding":"application/json","schema":{"type":"object","properties":{` + props + `}` + rest + `}}`
}

func parameters(props, rest string) string {
	return `,"parameters":{"type":"params","properties":{` + props + `}` + rest + `}`
}

const (
	oldReader = "old-reader-new-data"
	newReader = "new-reader-old-data"
)

var comparisons = func() []either {
	set := permissions
	list := []either{
		{"nothing", record(`"a":{"type":"string"}`), record(`"a":{"type":"string","description":"better"},"b":{"type":"integer"}`), "", "field-removed warn " + oldReader},
		{"a definition", record("", `"x":{"type":"token"}`), record(""), "def-removed error " + newReader, ""},
		{"main type", record(""), doc("com.example.note", `"main":{"type":"object","properties":{}}`), "type-change error both", "type-change error both"},
		{"key any", doc("com.example.note", `"main":{"type":"record","key":"any","record":{"type":"object","properties":{}}}`), record(""), "record-key-type error " + newReader, "record-key-type error " + oldReader},
		{"key nsid", doc("com.example.note", `"main":{"type":"record","key":"nsid","record":{"type":"object","properties":{}}}`), record(""), "record-key-type error both", "record-key-type error both"},
		{"required there is", object(`"a":{"type":"integer"}`, ""), object(`"a":{"type":"integer"}`, `,"required":["a"]`), "object-required error " + newReader, "object-optional error " + oldReader},
		{"required new", object(``, ""), object(`"a":{"type":"integer"}`, `,"required":["a"]`), "required-field-added error " + newReader, "object-optional error " + oldReader},
		{"nullable", object(`"a":{"type":"integer"}`, ""), object(`"a":{"type":"integer"}`, `,"nullable":["a"]`), "object-nullable error " + oldReader, "object-nullable error " + newReader},
		{"encoding", method2(`,"input":{"encoding":"*/*"}`, "", ""), method2(`,"input":{"encoding":"image/png"}`, "", ""), "body-encoding error " + newReader, "body-encoding info " + oldReader},
		{"other encoding", method2("", `,"output":{"encoding":"image/gif"}`, ""), method2("", `,"output":{"encoding":"image/png"}`, ""), "body-encoding error both", "body-encoding error both"},
		{"input", method2("", "", ""), method2(in("", ""), "", ""), "input-added error " + newReader, "body-removed error both"},
		{"output", method2("", out("", ""), ""), method2("", "", ""), "body-removed error both", ""},
		{"schema of a body", method2("", `,"output":{"encoding":"application/json"}`, ""), method2("", out("", ""), ""), "type-change warn " + newReader, "type-change error " + oldReader},
		{"errors", method2("", "", `,"errors":[{"name":"A"},{"name":"B"}]`), method2("", "", `,"errors":[{"name":"B"},{"name":"C"}]`), "error-removed warn " + newReader, "error-removed warn " + newReader},
		{"params where none were", method2("", "", ""), method2(parameters(`"a":{"type":"string"}`, `,"required":["a"]`), "", ""), "params-required error " + newReader, "params-optional info " + oldReader},
		{"params required", method2(parameters(`"a":{"type":"string"}`, ``), "", ""), method2(parameters(`"a":{"type":"string"}`, `,"required":["a"]`), "", ""), "params-required error " + newReader, "params-optional info " + oldReader},
		{"an optional parameter", method2("", "", ""), method2(parameters(`"a":{"type":"string"}`, ``), "", ""), "", "field-removed info " + oldReader},
		{"required input", method2(in(`"a":{"type":"integer"}`, ""), "", ""), method2(in(`"a":{"type":"integer"}`, `,"required":["a"]`), "", ""), "object-required error " + newReader, "object-optional info " + oldReader},
		{"required output", method2("", out(`"a":{"type":"integer"}`, ""), ""), method2("", out(`"a":{"type":"integer"}`, `,"required":["a"]`), ""), "object-required warn " + newReader, "object-optional error " + oldReader},
		{"a definition of the output only", doc("com.example.getNote", `"main":{"type":"query","output":{"encoding":"application/json","schema":{"type":"ref","ref":"#o"}}},"o":{"type":"object","properties":{"l":{"type":"ref","ref":"#p"}}},"p":{"type":"object","properties":{"a":{"type":"integer"}}}`),
			doc("com.example.getNote", `"main":{"type":"query","output":{"encoding":"application/json","schema":{"type":"ref","ref":"#o"}}},"o":{"type":"object","properties":{"l":{"type":"ref","ref":"#p"}}},"p":{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}`),
			"object-required warn " + newReader, "object-optional error " + oldReader},
		{"a definition of the input only", doc("com.example.putNote", `"main":{"type":"procedure","input":{"encoding":"application/json","schema":{"type":"ref","ref":"#o"}}},"o":{"type":"object","properties":{"a":{"type":"integer"}}}`),
			doc("com.example.putNote", `"main":{"type":"procedure","input":{"encoding":"application/json","schema":{"type":"ref","ref":"#o"}}},"o":{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}`),
			"object-required error " + newReader, "object-optional info " + oldReader},
		{"messages", subscription("subscribeNotes", "", `"#event","#bare"`, ""), subscription("subscribeNotes", `"parameters":{"type":"params","properties":{"k":{"type":"string"}},"required":["k"]},`, `"#event"`, ""),
			"union-ref-removed warn " + newReader + "; params-required error " + newReader, "params-optional info " + oldReader},
		{"permissions", set(`{"type":"permission","resource":"repo","collection":["com.example.note"],"action":["create"]}`), set(`{"type":"permission","resource":"repo","collection":["com.example.note"]}`), "permission-widened error " + newReader, "permission-narrowed warn " + oldReader},
		{"audience", set(`{"type":"permission","resource":"rpc","lxm":["com.example.getNote"],"inheritAud":true}`), set(`{"type":"permission","resource":"rpc","lxm":["com.example.getNote"],"aud":"*"}`), "permission-narrowed warn " + oldReader + "; permission-widened error " + newReader, "permission-narrowed warn " + oldReader + "; permission-widened error " + newReader},
		{"permissions that are ignored", set(`{"type":"permission","resource":"repo","collection":["com.example.note"]}`), set(`{"type":"permission","resource":"repo","collection":["com.example.note"]},{"type":"permission","resource":"blob"}`), "", ""},
		{"inline for ref", record(`"a":{"type":"object","properties":{"x":{"type":"integer"}}}`), record(`"a":{"type":"ref","ref":"#o"}`, `"o":{"type":"object","properties":{"x":{"type":"integer"}}}`), "ref-change warn both", "ref-change warn both; def-removed error " + newReader},
		{"another ref with a required field", record(`"a":{"type":"ref","ref":"#o"}`, `"o":{"type":"object","properties":{}}`, `"p":{"type":"object","required":["x"],"properties":{"x":{"type":"integer"}}}`),
			record(`"a":{"type":"ref","ref":"#p"}`, `"o":{"type":"object","properties":{}}`, `"p":{"type":"object","required":["x"],"properties":{"x":{"type":"integer"}}}`),
			"ref-change warn both; required-field-added error " + newReader, "ref-change warn both; object-optional error " + oldReader},
		{"a ref to nowhere", record(`"a":{"type":"ref","ref":"com.example.x"}`), record(`"a":{"type":"ref","ref":"com.example.y"}`), "ref-change warn both", "ref-change warn both"},
		{"items", record(`"a":{"type":"array","items":{"type":"string"}}`), record(`"a":{"type":"array","items":{"type":"integer"}}`), "array-items error both", "array-items error both"},
	}
	for _, c := range []struct{ name, before, after, there, back string }{
		{"type", `{"type":"string"}`, `{"type":"integer"}`, "type-change error both", "type-change error both"},
		{"const", `{"type":"string"}`, `{"type":"string","const":"x"}`, "const-value error " + newReader, "const-value error " + oldReader},
		{"const changed", `{"type":"integer","const":1}`, `{"type":"integer","const":2}`, "const-value error both", "const-value error both"},
		{"default", `{"type":"boolean"}`, `{"type":"boolean","default":false}`, "default-change warn both", "default-change warn both"},
		{"enum", `{"type":"string","enum":["a","b"]}`, `{"type":"string","enum":["b"]}`, "enum-values error " + newReader, "enum-values error " + oldReader},
		{"enum new", `{"type":"integer"}`, `{"type":"integer","enum":[1]}`, "enum-values error " + newReader, "enum-values error " + oldReader},
		{"known values", `{"type":"string","knownValues":["a","b"]}`, `{"type":"string","knownValues":["b","c"]}`, "known-values-removed warn " + oldReader, "known-values-removed warn " + oldReader},
		{"format", `{"type":"string"}`, `{"type":"string","format":"did"}`, "string-format error " + newReader, "string-format error " + oldReader},
		{"wider format", `{"type":"string","format":"did"}`, `{"type":"string","format":"at-identifier"}`, "string-format error " + oldReader, "string-format error " + newReader},
		{"other format", `{"type":"string","format":"did"}`, `{"type":"string","format":"tid"}`, "string-format error both", "string-format error both"},
		{"maximum", `{"type":"integer","maximum":3}`, `{"type":"integer","maximum":2}`, "integer-range warn " + newReader, "integer-range warn " + oldReader},
		{"minimum", `{"type":"integer","minimum":3}`, `{"type":"integer","minimum":2}`, "integer-range warn " + oldReader, "integer-range warn " + newReader},
		{"a limit", `{"type":"string"}`, `{"type":"string","maxGraphemes":2}`, "limit-added warn " + newReader, "string-length warn " + oldReader},
		{"length", `{"type":"string","maxLength":3}`, `{"type":"string","maxLength":2}`, "string-length warn " + newReader, "string-length warn " + oldReader},
		{"bytes", `{"type":"bytes","minLength":3}`, `{"type":"bytes","minLength":4}`, "bytes-length warn " + newReader, "bytes-length warn " + oldReader},
		{"array", `{"type":"array","items":{"type":"integer"},"maxLength":3}`, `{"type":"array","items":{"type":"integer"},"maxLength":2}`, "array-length warn " + newReader, "array-length warn " + oldReader},
		{"blob size", `{"type":"blob","maxSize":3}`, `{"type":"blob","maxSize":2}`, "blob-size warn " + newReader, "blob-size warn " + oldReader},
		{"blob accept", `{"type":"blob"}`, `{"type":"blob","accept":["image/*"]}`, "blob-accept warn " + newReader, "blob-accept warn " + oldReader},
		{"blob accept narrowed", `{"type":"blob","accept":["image/*"]}`, `{"type":"blob","accept":["image/png"]}`, "blob-accept warn " + newReader, "blob-accept warn " + oldReader},
		{"blob accept all", `{"type":"blob"}`, `{"type":"blob","accept":["*/*"]}`, "", ""},
		{"open and closed", `{"type":"union","refs":["com.example.x"]}`, `{"type":"union","refs":["com.example.x"],"closed":true}`, "union-open-closed error " + newReader, "union-open-closed error " + oldReader},
		{"closed refs", `{"type":"union","refs":["com.example.x","com.example.y"],"closed":true}`, `{"type":"union","refs":["com.example.x"],"closed":true}`, "union-closed-refs error " + newReader, "union-closed-refs error " + oldReader},
		{"open refs", `{"type":"union","refs":["com.example.x","com.example.y"]}`, `{"type":"union","refs":["com.example.x"]}`, "union-ref-removed error " + newReader, ""},
	} {
		list = append(list, either{c.name, record(`"a":` + c.before), record(`"a":` + c.after), c.there, c.back})
	}
	return list
}()

func summary(changes []lexlint.Change) string {
	var out []string
	for _, c := range changes {
		out = append(out, fmt.Sprint(c.Rule, " ", c.Level, " ", c.Direction))
	}
	return strings.Join(out, "; ")
}

func TestBreaking(t *testing.T) {
	used := map[string]bool{}
	for _, c := range comparisons {
		a, b := parse(t, c.before), parse(t, c.after)
		for _, x := range []struct {
			before, after *lexicon.Schema
			want          string
		}{{a, b, c.there}, {b, a, c.back}, {a, a, ""}, {b, b, ""}} {
			changes := lexlint.Breaking(x.before, x.after, lexlint.BreakingOptions{})
			for _, y := range changes {
				used[y.Rule] = true
				if y.Message == "" || y.NSID != a.ID || !strings.HasPrefix(y.Path, "defs.") || !strings.Contains(y.String(), string(y.Direction)) {
					t.Errorf("%s: %+v", c.name, y)
				}
			}
			if got := summary(changes); got != x.want {
				t.Errorf("%s: %q, want %q\n%v", c.name, got, x.want, changes)
			}
		}
	}
	list := lexlint.ChangeRules()
	for _, r := range list {
		if !used[r.ID] {
			t.Errorf("%s has no example", r.ID)
		}
		delete(used, r.ID)
	}
	if len(used) > 0 || !slices.IsSortedFunc(list, func(a, b lexlint.Rule) int { return strings.Compare(a.ID, b.ID) }) {
		t.Errorf("rules that aren't in the table, or not sorted: %v", used)
	}
	a, b := parse(t, record(`"a":{"type":"string","maxLength":3}`)), parse(t, record(`"a":{"type":"integer"}`))
	if got := lexlint.Breaking(a, b, lexlint.BreakingOptions{Ignore: []string{"type-change"}}); len(got) != 0 {
		t.Error(got)
	}
	if got := lexlint.Breaking(parse(t, record(`"a":{"type":"string"}`)), a, lexlint.BreakingOptions{Level: lexlint.Error}); len(got) != 0 {
		t.Error(got)
	}
}

// TestBreakingElsewhere follows references into schemas that have changed themselves.
func TestBreakingElsewhere(t *testing.T) {
	note := parse(t, record(`"a":{"type":"union","refs":["com.example.defs#o"]}`))
	catalog := func(rest string) *lexicon.Catalog {
		c := lexicon.NewCatalog()
		c.Add(parse(t, doc("com.example.defs", `"o":{"type":"object","properties":{"l":{"type":"array","items":{"type":"ref","ref":"com.example.deep#o"}}}}`)))
		c.Add(parse(t, doc("com.example.deep", `"o":{"type":"object","properties":{"x":{"type":"integer"},"again":{"type":"ref","ref":"com.example.defs#o"}}`+rest+`}`)))
		return c
	}
	o := lexlint.BreakingOptions{Old: catalog(""), New: catalog(`,"required":["x"]`)}
	got := lexlint.Breaking(note, note, o)
	if summary(got) != "object-required error "+newReader || got[0].Via != "com.example.deep#o.properties.x" || got[0].Path != "defs.main.record.properties.a.refs" {
		t.Errorf("%v", got)
	}
	o.New = nil
	if got := lexlint.Breaking(note, note, o); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

func TestReferenceBreaksNothing(t *testing.T) {
	c := lexicon.NewCatalog()
	var all []*lexicon.Schema
	for _, f := range reference(t) {
		s := parse(t, f)
		all = append(all, s)
		c.Add(s)
	}
	for _, s := range all {
		if got := lexlint.Breaking(s, s, lexlint.BreakingOptions{Old: c, New: c}); len(got) > 0 {
			t.Errorf("%v", got)
		}
	}
}

func TestCheckRecords(t *testing.T) {
	before, after := lexicon.NewCatalog(), lexicon.NewCatalog()
	before.Add(parse(t, record(`"a":{"type":"string","maxLength":5},"l":{"type":"array","items":{"type":"integer"}}`)))
	after.Add(parse(t, record(`"a":{"type":"string","maxLength":3},"l":{"type":"array","items":{"type":"integer","minimum":0}}`)))
	records := func(broken error, values ...string) iter.Seq2[lexlint.Record, error] {
		return func(yield func(lexlint.Record, error) bool) {
			for i, v := range values {
				raw, err := data.AppendCBOR(nil, []byte(`{"$type":"com.example.note",`+v+`}`))
				if !yield(lexlint.Record{Name: fmt.Sprint("r", i), Key: "3jzfcijpj2z2a", Raw: raw}, err) {
					return
				}
			}
			if broken != nil {
				yield(lexlint.Record{}, broken)
			}
		}
	}
	all := []string{`"a":"x"`, `"a":"long"`, `"a":"far too long"`, `"l":[1,-1,-2],"a":"long"`, `"l":[-3]`}
	got, err := lexlint.CheckRecords("com.example.note", before, after, records(nil, all...))
	if err != nil || got.Records != 5 || got.Refused != 4 || got.Newly != 3 || len(got.Reasons) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	if x := got.Reasons[0]; x.Rule != lexicon.RuleMaxLength || x.Path != "a" || x.Records != 3 || x.Newly != 2 || x.Example != "r1" || !strings.Contains(x.Message, "4 bytes") {
		t.Errorf("%+v", x)
	}
	if x := got.Reasons[1]; x.Rule != lexicon.RuleMinimum || x.Path != "l[]" || x.Records != 2 || x.Newly != 2 || x.Example != "r3" {
		t.Errorf("%+v", x)
	}
	down := errors.New("down")
	if got, err := lexlint.CheckRecords("com.example.note", nil, after, records(down, all...)); !errors.Is(err, down) || got.Records != 5 || got.Newly != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := lexlint.CheckRecords("com.example.gone", nil, after, records(nil, all...)); !errors.Is(err, lexicon.ErrUnknownSchema) {
		t.Error(err)
	}
	if got, err := lexlint.CheckRecords("com.example.note", nil, after, func(yield func(lexlint.Record, error) bool) {
		yield(lexlint.Record{Key: "no tid", Raw: []byte{0xa0}}, nil)
	}); err != nil || got.Refused != 1 || len(got.Reasons) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
}

func ExampleBreaking() {
	schema := func(maxLength, required string) *lexicon.Schema {
		s, err := lexicon.ParseSchema([]byte(`{"lexicon":1,"id":"com.example.note","defs":{"main":{"type":"record","key":"tid","record":{
			"type":"object","required":[` + required + `],"properties":{"text":{"type":"string","maxLength":` + maxLength + `},"lang":{"type":"string"}}}}}}`))
		if err != nil {
			panic(err)
		}
		return s
	}
	for _, c := range lexlint.Breaking(schema("300", `"text"`), schema("3000", `"text","lang"`), lexlint.BreakingOptions{}) {
		fmt.Println(c.Level, c.Rule, c.Direction)
	}
	// Output:
	// error object-required new-reader-old-data
	// warn string-length old-reader-new-data
}

func ExampleLint() {
	text := []byte(`{"lexicon": 1, "id": "com.example.note", "defs": {
  "main": {"type": "record", "description": "A note.", "key": "tid", "record": {"type": "object", "properties": {
    "text": {"type": "string", "maxGraphemes": 300}}}}}}`)
	set := []lexlint.File{{Path: "com/example/note.json", JSON: text}}
	for _, f := range lexlint.Lint(set, lexlint.Options{}) {
		fmt.Println(f)
	}
	fixed, _ := lexlint.FixAll(set, 0, lexlint.Options{})
	fmt.Println(string(fixed))
	// Output:
	// com/example/note.json:3: warn graphemes-without-bytes: defs.main.record.properties.text: a grapheme can have any number of bytes: set maxLength too
	// {"lexicon": 1, "id": "com.example.note", "defs": {
	//   "main": {"type": "record", "description": "A note.", "key": "tid", "record": {"type": "object", "properties": {
	//     "text": {"type": "string", "maxGraphemes": 300, "maxLength": 3000}}}}}}
}
