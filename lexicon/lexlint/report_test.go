package lexlint_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/lexicon/lexlint"
	"github.com/barograph/baro/syntax"
)

func parse(t testing.TB, f lexlint.File) *lexicon.Schema {
	t.Helper()
	s, err := lexicon.ParseSchema(f.JSON)
	if err != nil {
		t.Fatalf("%s: %v", f.JSON, err)
	}
	return s
}

// TestPublished is quiet about what can't be changed, and strict about what is new.
func TestPublished(t *testing.T) {
	published := parse(t, record(`"old":{"type":"string"},"gone":{"type":"ref","ref":"com.example.gone"}`))
	now := record(`"old":{"type":"string"},"new":{"type":"string","maxGraphemes":3},"later":{"type":"string"},"gone":{"type":"ref","ref":"com.example.gone"}`)
	o := lexlint.Options{Published: func(id syntax.NSID) *lexicon.Schema {
		if id == "com.example.note" {
			return published
		}
		return nil
	}}
	got := map[string]lexlint.Finding{}
	for _, f := range lexlint.Lint(files{now}, o) {
		got[f.Rule+" "+f.Path] = f
	}
	for key, want := range map[string]struct {
		level     lexlint.Level
		published bool
	}{
		"unlimited-string defs.main.record.properties.old":        {lexlint.Info, true},
		"unlimited-string defs.main.record.properties.later":      {lexlint.Warn, false},
		"graphemes-without-bytes defs.main.record.properties.new": {lexlint.Warn, false},
		"unresolved-ref defs.main.record.properties.gone":         {lexlint.Error, false}, // wrong is wrong
	} {
		if f := got[key]; f.Level != want.level || f.Published != want.published {
			t.Errorf("%s: %+v", key, f)
		}
	}
	o.Level = lexlint.Warn
	o.Ignore = []string{"unresolved-ref"}
	if list := lexlint.Lint(files{now}, o); len(list) != 2 {
		t.Errorf("%v", list)
	}
	// A fix is for what is new.
	published = parse(t, record(`"x":{"type":"string","maxGraphemes":3}`))
	text, fixed := lexlint.FixAll(files{record(`"x":{"type":"string","maxGraphemes":3},"y":{"type":"string","maxGraphemes":3}`)}, 0, o)
	if len(fixed) != 1 || strings.Count(string(text), "maxLength") != 1 {
		t.Errorf("%s: %v", text, fixed)
	}
}

const untidy = `{
    "lexicon": 1,  "id": "com.example.getIt",
	"defs": {
		"main": {
			"type": "query",
			"description": "Public: gets \u0069t.",
			"parameters": { "type": "params", "properties": { "actor": {"type":"string","format":"handle"} } }
		},
		"o": {"type":"object","properties":{
			"createdAt":{"type":"string"},
			"t" : { "type" : "string", "maxGraphemes" : 10 },
			"u": {"maxLength": 9, "minLength": 1, "type": "string", "format": "uri"}
		}}
	}, "$type": "com.atproto.lexicon.schema"
}`

const tidied = `{
    "lexicon": 1,  "id": "com.example.getIt",
	"defs": {
		"main": {
			"type": "query",
			"description": "Public: gets \u0069t.",
			"parameters": { "type": "params", "properties": { "actor": {"type":"string","format":"at-identifier"} } },
			"output": {
				"encoding": "application/json",
				"schema": {
					"type": "object",
					"properties": {}
				}
			}
		},
		"o": {"type":"object","properties":{
			"createdAt":{"type":"string","format":"datetime"},
			"t" : { "type" : "string", "maxGraphemes" : 10, "maxLength": 100 },
			"u": {"type": "string", "format": "uri"}
		}}
	}
}`

func TestFixesKeepFormatting(t *testing.T) {
	in := files{{Path: "com/example/getIt.json", JSON: []byte(untidy)}}
	text, fixed := lexlint.FixAll(in, 0, lexlint.Options{})
	if string(text) != tidied {
		t.Errorf("%s", text)
	}
	if len(fixed) != 6 || string(in[0].JSON) != untidy {
		t.Errorf("%d: %v", len(fixed), fixed)
	}
	if again, more := lexlint.FixAll(files{{JSON: text}}, 0, lexlint.Options{}); !bytes.Equal(again, text) || len(more) != 0 {
		t.Errorf("%s: %v", again, more)
	}
}

func TestApply(t *testing.T) {
	fix := func(edits ...lexlint.Edit) *lexlint.Fix { return &lexlint.Fix{Edits: edits} }
	e := func(start, end int, s string) lexlint.Edit { return lexlint.Edit{Start: start, End: end, New: s} }
	for _, c := range []struct {
		fixes   []*lexlint.Fix
		want    string
		applied string
	}{
		{nil, "0123456789", "[]"},
		{[]*lexlint.Fix{fix(e(8, 9, "x")), fix(e(1, 2, "yy"))}, "0yy234567x9", "[true true]"},
		{[]*lexlint.Fix{fix(e(1, 4, "")), fix(e(3, 5, "z")), fix(e(6, 6, "i"))}, "045i6789", "[true false true]"},
		{[]*lexlint.Fix{fix(e(1, 2, ""), e(1, 3, "")), fix(e(5, 6, "k"))}, "01234k6789", "[false true]"},
		{[]*lexlint.Fix{fix(e(5, 50, "")), fix(e(-1, 2, "")), fix(e(4, 3, "")), nil}, "0123456789", "[false false false false]"},
		{[]*lexlint.Fix{fix(e(0, 1, "a"), e(9, 10, "b"))}, "a12345678b", "[true]"},
	} {
		out, applied := lexlint.Apply([]byte("0123456789"), c.fixes...)
		if string(out) != c.want || fmt.Sprint(applied) != c.applied {
			t.Errorf("%s %v, want %s %s", out, applied, c.want, c.applied)
		}
	}
}

func TestReports(t *testing.T) {
	in := files{{Path: "a b/com/example/getIt.json", JSON: []byte(untidy)}, {JSON: []byte("{")}}
	found := lexlint.Lint(in, lexlint.Options{})
	var out bytes.Buffer
	if err := lexlint.WriteJSON(&out, found); err != nil {
		t.Fatal(err)
	}
	var back []lexlint.Finding
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || len(back) != len(found) || back[0].Message != found[0].Message || strings.Count(out.String(), "\n") != len(found)+2 {
		t.Errorf("%v: %s", err, out.String())
	}
	out.Reset()
	if err := lexlint.WriteJSON[lexlint.Change](&out, nil); err != nil || out.String() != "[\n]\n" {
		t.Errorf("%v: %q", err, out.String())
	}
	out.Reset()
	if err := lexlint.WriteSARIF(&out, lexlint.Tool{Name: "baro", Version: "1"}, found); err != nil {
		t.Fatal(err)
	}
	var log struct {
		Version string
		Schema  string `json:"$schema"`
		Runs    []struct {
			Tool struct {
				Driver struct{ Rules []struct{ ID string } }
			}
			Results []struct {
				RuleID    string
				RuleIndex int
				Level     string
				Message   struct{ Text string }
				Locations []struct {
					PhysicalLocation struct {
						ArtifactLocation struct{ URI string }
						Region           struct{ StartLine int }
					}
				}
				Fixes []struct {
					ArtifactChanges []struct {
						Replacements []struct {
							DeletedRegion   struct{ ByteOffset, ByteLength *int }
							InsertedContent struct{ Text string }
						}
					}
				}
			}
		}
	}
	if err := json.Unmarshal(out.Bytes(), &log); err != nil {
		t.Fatal(err)
	}
	run := log.Runs[0]
	if log.Version != "2.1.0" || !strings.Contains(log.Schema, "sarif-2.1.0") || len(run.Results) != len(found) || len(run.Tool.Driver.Rules) != len(lexlint.Rules()) {
		t.Errorf("%+v", log)
	}
	fixes := 0
	for i, r := range run.Results {
		f := found[i]
		if r.RuleID != f.Rule || run.Tool.Driver.Rules[r.RuleIndex].ID != f.Rule || r.Message.Text != f.Message {
			t.Errorf("%+v is not %+v", r, f)
		}
		if at := r.Locations[0].PhysicalLocation; f.File != "" && (at.ArtifactLocation.URI != "a%20b/com/example/getIt.json" || at.Region.StartLine != f.Line) {
			t.Errorf("%+v", at)
		}
		if len(r.Fixes) > 0 {
			fixes++
			x := r.Fixes[0].ArtifactChanges[0].Replacements[0]
			if *x.DeletedRegion.ByteOffset != f.Fix.Edits[0].Start || x.InsertedContent.Text != f.Fix.Edits[0].New {
				t.Errorf("%+v", x)
			}
		}
	}
	if fixes == 0 {
		t.Error("no fixes")
	}
	if s := found[len(found)-1].String(); !strings.HasPrefix(s, ":1: error schema-json-parse: ") {
		t.Error(s)
	}
}

// TestPositions finds the place of a finding in the text.
func TestPositions(t *testing.T) {
	for _, f := range lexlint.Lint(files{{Path: "x.json", JSON: []byte(untidy)}}, lexlint.Options{}) {
		line := strings.Split(untidy, "\n")[f.Line-1]
		at := line[f.Column-1:]
		want := map[string]string{"graphemes-without-bytes": `{ "type" : "string", "max`, "missing-format": `{"type":"string"}`, "file-path": `"com.example.getIt"`}[f.Rule]
		if !strings.HasPrefix(at, want) {
			t.Errorf("%v is at %s", f, at)
		}
	}
}

// TestHostile lints schemas that are made to be large in every way.
func TestHostile(t *testing.T) {
	var props, defs, refs, perms []string
	for i := range 9000 {
		props = append(props, fmt.Sprintf(`"p%d":{"type":"string","required":true}`, i))
		defs = append(defs, fmt.Sprintf(`"d%d":{"type":"object","properties":{"p":{"type":"ref","ref":"#d%d"}}}`, i, (i+1)%9000))
		refs = append(refs, fmt.Sprintf(`"com.example.n%d"`, i))
		perms = append(perms, fmt.Sprintf(`{"type":"permission","resource":"repo","collection":["com.other.n%d"]}`, i))
	}
	asked := 0
	o := lexlint.Options{Source: askCounter{&asked}}
	for name, f := range map[string]lexlint.File{
		"properties":  record(strings.Join(props, ",")),
		"required":    object("", `,"required":[`+strings.Join(refs, ",")+`]`),
		"chain":       record(`"a":{"type":"ref","ref":"#d0"}`, defs...),
		"refs":        record(`"a":{"type":"union","refs":[` + strings.Join(refs, ",") + `]}`),
		"values":      record(`"a":{"type":"string","maxLength":3,"knownValues":[` + strings.Join(refs, ",") + `]}`),
		"permissions": permissions(strings.Join(perms, ",")),
		"description": record(`"a":{"type":"integer","description":"` + strings.Repeat("x", 900000) + `"}`),
		"depth":       {JSON: []byte(strings.Repeat(`{"defs":`, 100000))},
		"huge":        {JSON: bytes.Repeat([]byte("\n"), 10<<20)},
	} {
		start := time.Now()
		found := lexlint.Lint(files{f}, o)
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("%s took %v", name, d)
		}
		if fine := name == "chain" || name == "description"; (len(found) == 0) != fine {
			t.Errorf("%s: %d findings", name, len(found))
		}
		if s, err := lexicon.ParseSchema(f.JSON); err == nil {
			lexlint.Breaking(s, s, lexlint.BreakingOptions{})
		}
	}
	if asked > 2000 {
		t.Errorf("%d look-ups", asked)
	}
}

type askCounter struct{ n *int }

func (a askCounter) Lookup(syntax.NSID) (*lexicon.Schema, error) {
	*a.n++
	return nil, lexicon.ErrUnknownSchema
}

// FuzzLint feeds texts to all that reads them: nothing may panic, positions lie within, and what is fixed is a schema still.
func FuzzLint(f *testing.F) {
	f.Add([]byte(untidy))
	f.Add([]byte(`{`))
	for _, set := range rules {
		for _, x := range append(append([]files(nil), set.bad...), set.good...) {
			if len(x[0].JSON) < 10000 {
				f.Add(x[0].JSON)
			}
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		in := files{{Path: "x.json", JSON: text}}
		found := lexlint.Lint(in, lexlint.Options{})
		s, err := lexicon.ParseSchema(text)
		for _, x := range found {
			if x.Line < 1 || x.Column < 1 || x.Line > bytes.Count(text, []byte{'\n'})+1 || x.Level.AtLeast(lexlint.Info) == false {
				t.Errorf("%+v", x)
			}
		}
		if err != nil {
			if len(found) == 0 || found[0].Level != lexlint.Error {
				t.Errorf("no schema (%v), but %v", err, found)
			}
			return
		}
		fixed, _ := lexlint.FixAll(in, 0, lexlint.Options{})
		after, err := lexicon.ParseSchema(fixed)
		if err != nil {
			t.Fatalf("%s became %s: %v", text, fixed, err)
		}
		for _, c := range append(lexlint.Breaking(s, after, lexlint.BreakingOptions{}), lexlint.Breaking(after, s, lexlint.BreakingOptions{})...) {
			if c.Rule == "" || c.Level == "" {
				t.Errorf("%+v", c)
			}
		}
		if list := lexlint.Breaking(s, s, lexlint.BreakingOptions{}); len(list) > 0 {
			t.Errorf("a schema breaks itself: %v", list)
		}
	})
}
