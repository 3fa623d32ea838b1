package lexlint_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/barograph/baro/internal/fixtures"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/lexicon/lexlint"
	"github.com/barograph/baro/syntax"
)

// doc writes a schema; the definitions are JSON without the braces around them.
func doc(id, defs string) lexlint.File {
	return lexlint.File{Path: strings.ReplaceAll(id, ".", "/") + ".json", JSON: []byte(fmt.Sprintf("{\n  \"lexicon\": 1,\n  \"id\": %q,\n  \"defs\": {\n%s\n  }\n}\n", id, defs))}
}

// record is a schema with one record of the given properties.
func record(props string, more ...string) lexlint.File {
	return doc("com.example.note", strings.Join(append([]string{`"main":{"type":"record","description":"A note.","key":"tid","record":{"type":"object","properties":{` + props + `}}}`}, more...), ",\n"))
}

func object(props, rest string) lexlint.File {
	return doc("com.example.note", `"thing":{"type":"object","properties":{`+props+`}`+rest+`}`)
}

func query(id, rest string) lexlint.File {
	return doc(id, `"main":{"type":"query","description":"Public."`+rest+`}`)
}

func params(props string) lexlint.File {
	return query("com.example.getNote", `,"parameters":{"type":"params","properties":{`+props+`}},"output":{"encoding":"application/json"}`)
}

func output(props, rest string) lexlint.File {
	return query("com.example.getNote", `,"output":{"encoding":"application/json","schema":{"type":"object","properties":{`+props+`}`+rest+`}}`)
}

func permissions(list string) lexlint.File {
	return doc("com.example.authFull", `"main":{"type":"permission-set","title":"All","permissions":[`+list+`]}`)
}

func method(kind, name string) lexlint.File {
	return doc("com.example."+name, `"main":{"type":"`+kind+`","description":"Public.","output":{"encoding":"application/json"}}`)
}

func subscription(name, params, refs, info string) lexlint.File {
	return doc("com.example."+name, `"main":{"type":"subscription","description":"Public.",`+params+`"message":{"schema":{"type":"union","refs":[`+refs+`]}}},
		"event":{"type":"object","properties":{"seq":{"type":"integer"}}},"bare":{"type":"object","properties":{}},"info":{"type":"object","properties":{"name":{"type":"string","knownValues":[`+info+`]}}}`)
}

type files = []lexlint.File

const goodCursor = `"parameters":{"type":"params","properties":{"cursor":{"type":"integer"}}},`

// rules has for each rule sets of schemas that break it, and that don't.
var rules = map[string]struct{ bad, good []files }{
	"schema-json-parse":    {[]files{{{JSON: []byte(`{`)}}, {{JSON: []byte(strings.Repeat(" ", 10<<20))}}, {{JSON: []byte(`{"a":1.5}`)}}}, []files{{{JSON: []byte(`{}`)}}}},
	"lexicon-version":      {[]files{{{JSON: []byte(`{"lexicon":2,"id":"com.example.a","defs":{"a":{"type":"token"}}}`)}}}, []files{{record("")}}},
	"invalid-nsid":         {[]files{{{JSON: []byte(`{"lexicon":1,"id":"com.ехample.a","defs":{"a":{"type":"token"}}}`)}}}, []files{{record("")}}},
	"lexicon-schema":       {[]files{{record(`"a":{"type":"novel"}`)}, {object("", `,"required":1`)}}, []files{{record("")}}},
	"def-name-syntax":      {[]files{{doc("com.example.defs", `"a-b":{"type":"token"}`)}}, []files{{doc("com.example.defs", `"aB1":{"type":"token"}`)}}},
	"non-main-primary":     {[]files{{doc("com.example.defs", `"other":{"type":"query"}`)}}, []files{{record("")}}},
	"accept-syntax":        {[]files{{record(`"a":{"type":"blob","accept":["image"]}`)}, {record(`"a":{"type":"blob","accept":["text/ht*"]}`)}}, []files{{record(`"a":{"type":"blob","accept":["image/*","text/html","*/*"]}`)}}},
	"unspecified-encoding": {[]files{{query("com.example.getNote", `,"output":{}`)}}, []files{{output("", "")}}},
	"contradictory-limits": {
		[]files{{record(`"a":{"type":"integer","minimum":3,"maximum":1}`)}, {record(`"a":{"type":"integer","minimum":3,"default":1}`)}, {record(`"a":{"type":"boolean","const":true,"default":true}`)},
			{record(`"a":{"type":"string","maxLength":2,"knownValues":["abc"]}`)}, {record(`"a":{"type":"string","enum":[]}`)}, {record(`"a":{"type":"string","minGraphemes":9,"maxLength":3}`)},
			{record(`"a":{"type":"string","enum":["a"],"const":"b"}`)}, {record(`"a":{"type":"string","format":"did","default":"x"}`)}, {record(`"a":{"type":"integer","maximum":3,"enum":[4]}`)}},
		[]files{{record(`"a":{"type":"integer","minimum":1,"maximum":3,"default":3,"enum":[1,3]}`)}, {record(`"a":{"type":"string","enum":["a","b"],"default":"b","minGraphemes":1,"maxLength":3}`)}},
	},
	"unresolved-ref": {
		[]files{{record(`"a":{"type":"ref","ref":"#gone"}`)}, {record(`"a":{"type":"ref","ref":"com.example.gone"}`)}, {record(`"a":{"type":"union","refs":["com.example.defs#gone"]}`), doc("com.example.defs", `"a":{"type":"token"}`)},
			{record(`"a":{"type":"string","knownValues":["#gone"]}`)}, {record(`"a":{"type":"string","knownValues":["com.example.note#gone"]}`)}},
		[]files{{record(`"a":{"type":"union","refs":["com.example.defs#o","#o"]}`, `"o":{"type":"object","properties":{}}`), doc("com.example.defs", `"o":{"type":"object","properties":{}}`)}},
	},
	"ref-target": {
		[]files{{record(`"a":{"type":"ref","ref":"#t"}`, `"t":{"type":"token"}`)}, {record(`"a":{"type":"union","refs":["#s"]}`, `"s":{"type":"string"}`)}, {record(`"a":{"type":"ref","ref":"com.example.getNote"}`), output("", "")}},
		[]files{{record(`"a":{"type":"ref","ref":"#s"},"b":{"type":"union","refs":["com.example.note"]}`, `"s":{"type":"string"}`)}},
	},
	"ref-unchecked":                {[]files{{record(`"a":{"type":"ref","ref":"com.example.down"}`)}}, []files{{record(`"a":{"type":"ref","ref":"com.example.gone"}`)}}},
	"file-path":                    {[]files{{{Path: "lexicons/note.json", JSON: record("").JSON}}}, []files{{record("")}, {{Path: "lexicons/com/example/note.json", JSON: record("").JSON}}, {{JSON: record("").JSON}}}},
	"permission-ignored":           {[]files{{permissions(`{"type":"permission","resource":"repo","collection":["*"]}`)}, {permissions(`{"type":"permission","resource":"rpc","lxm":["com.example.getNote"],"aud":"did:web:a.test#x"}`)}, {permissions(`{"type":"permission","resource":"repo","collection":["com.other.note"]}`)}, {permissions(`{"type":"permission","resource":"blob","accept":["*/*"]}`)}}, []files{{permissions(`{"type":"permission","resource":"repo","collection":["com.example.note","com.example.sub.note"]},{"type":"permission","resource":"rpc","lxm":["com.example.getNote"],"inheritAud":true}`)}}},
	"defs-main-definition":         {[]files{{doc("com.example.defs", `"main":{"type":"object","properties":{}}`)}}, []files{{doc("com.example.defs", `"a":{"type":"object","properties":{}}`)}}},
	"dollar-field":                 {[]files{{record(`"$a":{"type":"integer"}`)}, {record(`"a":{"type":"object","properties":{"$b":{"type":"integer"}}}`)}}, []files{{record(`"a":{"type":"integer"}`)}}},
	"field-name-syntax":            {[]files{{record(`"a-b":{"type":"integer"}`)}, {record(`"1a":{"type":"integer"}`)}, {record(`"é":{"type":"integer"}`)}}, []files{{record(`"a1":{"type":"integer"}`)}}},
	"lower-camel-case":             {[]files{{record(`"AB":{"type":"integer"}`)}, {doc("com.example.defs", `"Thing":{"type":"object","properties":{}}`)}, {doc("com.example.Note", `"a":{"type":"token"}`)}}, []files{{record(`"aB":{"type":"integer"}`)}}},
	"error-name-case":              {[]files{{query("com.example.getNote", `,"errors":[{"name":"notFound"}]`)}, {query("com.example.getNote", `,"errors":[{"name":"NOT_FOUND"}]`)}}, []files{{query("com.example.getNote", `,"errors":[{"name":"NotFound"}]`)}}},
	"known-value-case":             {[]files{{record(`"a":{"type":"string","knownValues":["NotSo"]}`)}}, []files{{record(`"a":{"type":"string","knownValues":["so-good","OutdatedCursor","!hide","com.example.defs#tok","image/png"]}`)}}},
	"record-name":                  {[]files{{doc("com.example.notes", `"main":{"type":"record","key":"tid","record":{"type":"object","properties":{}}}`)}}, []files{{record("")}, {doc("com.example.status", `"main":{"type":"record","key":"tid","record":{"type":"object","properties":{}}}`)}}},
	"query-verb":                   {[]files{{method("query", "noteOf")}}, []files{{method("query", "searchNotes")}}},
	"procedure-verb":               {[]files{{method("procedure", "noteIt")}}, []files{{method("procedure", "putNote")}}},
	"subscription-name":            {[]files{{subscription("listenNotes", goodCursor, `"#event"`, "")}, {subscription("subscribeNote", goodCursor, `"#event"`, "")}}, []files{{subscription("subscribeNotes", goodCursor, `"#event"`, "")}, {subscription("subscribeRepos", goodCursor, `"#event"`, "")}}},
	"subscription-no-messages":     {[]files{{subscription("subscribeNotes", goodCursor, ``, "")}, {doc("com.example.subscribeNotes", `"main":{"type":"subscription"}`)}}, []files{{subscription("subscribeNotes", goodCursor, `"#event"`, "")}}},
	"subscription-cursor":          {[]files{{subscription("subscribeNotes", "", `"#event","#info"`, `"OutdatedCursor"`)}, {subscription("subscribeNotes", goodCursor, `"#event"`, ``)}, {subscription("subscribeNotes", goodCursor, `"#bare","#info"`, `"OutdatedCursor"`)}}, []files{{subscription("subscribeNotes", goodCursor, `"#event","#info"`, `"OutdatedCursor"`)}}},
	"permissionset-name":           {[]files{{doc("com.example.full", `"main":{"type":"permission-set","permissions":[]}`)}}, []files{{permissions("")}}},
	"permissionset-no-title":       {[]files{{doc("com.example.authFull", `"main":{"type":"permission-set","permissions":[]}`)}}, []files{{permissions("")}}},
	"permissionset-no-permissions": {[]files{{permissions("")}}, []files{{permissions(`{"type":"permission","resource":"repo","collection":["com.example.note"]}`)}}},
	"experimental-marker":          {[]files{{doc("com.example.note", `"main":{"type":"object","description":"An experimental thing.","properties":{}}`)}}, []files{{doc("com.example.temp.note", `"main":{"type":"object","description":"An experimental thing.","properties":{}}`)}, {record("")}}},
	"reserved-name":                {[]files{{doc("com.example.default", `"a":{"type":"token"}`)}, {doc("com.example.defs", `"range":{"type":"object","properties":{}}`)}, {record(`"length":{"type":"integer"}`)}}, []files{{record(`"size":{"type":"integer"}`)}}},
	"missing-primary-description":  {[]files{{method("query", "getNote"), doc("com.example.a", `"main":{"type":"object","properties":{}}`)}}, []files{{method("query", "getNote")}, {record("")}}},
	"endpoint-auth-undescribed":    {[]files{{doc("com.example.getNote", `"main":{"type":"query","description":"Gets it."}`)}}, []files{{doc("com.example.getNote", `"main":{"type":"query","description":"Gets it. Requires authentication."}`)}}},
	"ambiguous-field":              {[]files{{record(`"uri":{"type":"string","format":"at-uri"}`)}}, []files{{record(`"uri":{"type":"string","format":"at-uri","description":"Of the post."}`)}}},
	"shared-def":                   {[]files{{record(`"a":{"type":"ref","ref":"com.example.other#o"}`), doc("com.example.other", `"o":{"type":"object","properties":{}}`)}}, []files{{record(`"a":{"type":"ref","ref":"com.example.defs#o"}`), doc("com.example.defs", `"o":{"type":"object","properties":{}}`)}}},
	"name-group-conflict":          {[]files{{record(""), doc("com.example.note.part", `"a":{"type":"token"}`)}, {doc("com.example.note.main", `"a":{"type":"token"}`)}}, []files{{record(""), doc("com.example.notePart", `"a":{"type":"token"}`)}}},
	"confusable-name":              {[]files{{record(""), doc("com.example.nOte", `"a":{"type":"token"}`)}, {record(`"ab":{"type":"integer"},"aB":{"type":"integer"}`)}, {record(`"x1":{"type":"integer"},"xI":{"type":"integer"}`)}, {record(""), record("")}, {doc("com.example.defs", `"o0":{"type":"token"},"oO":{"type":"token"}`)}}, []files{{record(`"uri":{"type":"integer"},"url":{"type":"integer"}`)}}},
	"missing-format":               {[]files{{record(`"did":{"type":"string","description":"d"}`)}, {record(`"subjectUri":{"type":"string","maxLength":9}`)}, {record(`"seenAt":{"type":"string"}`)}, {record(`"dids":{"type":"array","items":{"type":"string"}}`)}}, []files{{record(`"did":{"type":"string","format":"did"},"format":{"type":"string"},"uri":{"type":"string","format":"uri"}`)}}},
	"unlimited-string":             {[]files{{record(`"a":{"type":"string"}`)}, {record(`"a":{"type":"ref","ref":"com.example.defs#o"}`), doc("com.example.defs", `"o":{"type":"object","properties":{"s":{"type":"string"}}}`)}}, []files{{record(`"a":{"type":"string","maxLength":9},"b":{"type":"string","format":"did"},"c":{"type":"string","knownValues":["x"]}`)}, {output(`"a":{"type":"string"}`, "")}}},
	"unlimited-bytes":              {[]files{{record(`"a":{"type":"bytes"}`)}}, []files{{record(`"a":{"type":"bytes","maxLength":9}`)}}},
	"large-string":                 {[]files{{record(`"a":{"type":"string","maxLength":20481}`)}}, []files{{record(`"a":{"type":"string","maxLength":20480}`)}}},
	"large-bytes":                  {[]files{{record(`"a":{"type":"bytes","maxLength":20481}`)}}, []files{{record(`"a":{"type":"bytes","maxLength":20480}`)}}},
	"format-and-length":            {[]files{{record(`"a":{"type":"string","format":"did","maxLength":99,"minLength":3}`)}, {record(`"a":{"maxGraphemes":9,"type":"string","format":"uri"}`)}}, []files{{record(`"a":{"type":"string","format":"did"}`)}}},
	"graphemes-without-bytes":      {[]files{{record(`"a":{"type":"string","maxGraphemes":30}`)}}, []files{{record(`"a":{"type":"string","maxGraphemes":30,"maxLength":300}`)}}},
	"graphemes-ratio":              {[]files{{record(`"a":{"type":"string","maxGraphemes":30,"maxLength":299}`)}, {record(`"a":{"type":"string","maxGraphemes":30,"maxLength":640}`)}}, []files{{record(`"a":{"type":"string","maxGraphemes":30,"maxLength":600}`)}}},
	"closed-enum":                  {[]files{{record(`"a":{"type":"string","enum":["x"]}`)}, {record(`"a":{"type":"integer","enum":[1]}`)}}, []files{{record(`"a":{"type":"string","knownValues":["x"]}`)}}},
	"known-string-local-ref":       {[]files{{record(`"a":{"type":"string","knownValues":["#tok"]}`, `"tok":{"type":"token"}`)}}, []files{{record(`"a":{"type":"string","knownValues":["com.example.note#tok"]}`, `"tok":{"type":"token"}`)}}},
	"undescribed-token":            {[]files{{doc("com.example.defs", `"tok":{"type":"token"}`)}}, []files{{doc("com.example.defs", `"tok":{"type":"token","description":"It."}`)}}},
	"reuse-shared-def":             {[]files{{object(`"uri":{"type":"string","format":"at-uri"},"cid":{"type":"string","format":"cid"}`, "")}, {object(`"src":{"type":"string"},"uri":{"type":"string"},"val":{"type":"string"},"cts":{"type":"string"}`, "")}}, []files{{object(`"uri":{"type":"string"},"cid":{"type":"string"},"more":{"type":"integer"}`, "")}}},
	"account-param-identifier":     {[]files{{params(`"actor":{"type":"string"}`)}, {params(`"repo":{"type":"string","format":"did"}`)}}, []files{{params(`"actor":{"type":"string","format":"at-identifier"},"did":{"type":"string","format":"did"}`)}}},
	"record-handle":                {[]files{{record(`"a":{"type":"string","format":"handle"}`)}, {record(`"a":{"type":"array","items":{"type":"string","format":"at-identifier"}}`)}}, []files{{record(`"a":{"type":"string","format":"did"}`)}, {params(`"a":{"type":"string","format":"handle"}`)}}},
	"endpoint-output-undefined":    {[]files{{query("com.example.getNote", "")}, {{JSON: []byte(`{"lexicon":1,"id":"com.example.getNote","defs":{"main":{"type":"query"}}}`)}}}, []files{{output("", "")}}},
	"boolean-default-true":         {[]files{{params(`"a":{"type":"boolean","default":true}`)}}, []files{{params(`"a":{"type":"boolean","default":false}`)}}},
	"cid-link-in-record":           {[]files{{record(`"a":{"type":"cid-link"}`)}}, []files{{record(`"a":{"type":"string","format":"cid"}`)}, {output(`"a":{"type":"cid-link"}`, "")}}},
	"many-required":                {[]files{{object("", `,"required":["a","b","c","d","e","f","g","h"]`)}}, []files{{object("", `,"required":["a","b"]`)}}},
	"scalar-array":                 {[]files{{output(`"a":{"type":"array","items":{"type":"string"}}`, "")}}, []files{{output(`"a":{"type":"array","items":{"type":"object","properties":{}}}`, "")}}},
	"closed-union":                 {[]files{{record(`"a":{"type":"union","refs":["#o"],"closed":true}`, `"o":{"type":"object","properties":{}}`)}}, []files{{record(`"a":{"type":"union","refs":["#o"]}`, `"o":{"type":"object","properties":{}}`)}}},
	"paging": {
		[]files{{params(`"cursor":{"type":"string"}`)}, {output(`"cursor":{"type":"string"}`, "")},
			{query("com.example.getNote", `,"parameters":{"type":"params","required":["limit"],"properties":{"limit":{"type":"integer"},"cursor":{"type":"string"}}},"output":{"encoding":"application/json","schema":{"type":"ref","ref":"#page"}}}, "page":{"type":"object","required":["list"],"properties":{"cursor":{"type":"string"},"list":{"type":"array","items":{"type":"integer"}}}`)}},
		[]files{{query("com.example.getNote", `,"parameters":{"type":"params","properties":{"limit":{"type":"integer"},"cursor":{"type":"string"}}},"output":{"encoding":"application/json","schema":{"type":"ref","ref":"#page"}}}, "page":{"type":"object","required":["list"],"properties":{"cursor":{"type":"string"},"list":{"type":"array","items":{"type":"integer"}}}`)},
			{params(`"limit":{"type":"integer"}`)}},
	},
	"view-without-record":   {[]files{{doc("com.example.defs", `"noteView":{"type":"object","properties":{"uri":{"type":"string"},"cid":{"type":"string"},"text":{"type":"string"}}}`)}}, []files{{doc("com.example.defs", `"noteView":{"type":"object","properties":{"uri":{"type":"string"},"cid":{"type":"string"},"record":{"type":"unknown"}}}`)}}},
	"viewer-required":       {[]files{{output(`"viewer":{"type":"object","properties":{}}`, `,"required":["viewer"]`)}}, []files{{output(`"viewer":{"type":"object","properties":{}}`, ``)}}},
	"version-suffix":        {[]files{{method("query", "getNoteV2")}, {doc("com.example.defs", `"noteV3":{"type":"object","properties":{}}`)}}, []files{{method("query", "getNoteV2"), method("query", "getNote")}, {doc("com.example.defs", `"ipV6x":{"type":"token"}`)}}},
	"unknown-in-record":     {[]files{{record(`"a":{"type":"unknown"}`)}}, []files{{output(`"a":{"type":"unknown"}`, "")}}},
	"nullable-and-optional": {[]files{{object(`"a":{"type":"integer"}`, `,"nullable":["a"]`)}}, []files{{object(`"a":{"type":"integer"}`, `,"nullable":["a"],"required":["a"]`)}}},
	"undefined-property":    {[]files{{object(`"a":{"type":"integer"}`, `,"required":["b"]`)}, {object(``, `,"nullable":["b"]`)}}, []files{{object(`"a":{"type":"integer"}`, `,"required":["a"]`)}}},
	"unexpected-field":      {[]files{{record(`"a":{"type":"integer","required":true}`)}, {{JSON: []byte(`{"$type":"com.atproto.lexicon.schema","lexicon":1,"id":"com.example.a","defs":{"a":{"type":"token"}}}`)}}, {{JSON: []byte(`{"lexicon":1,"id":"com.example.a","defs":{"a":{"type":"token"}},"revision":3}`)}}, {query("com.example.getNote", `,"output":{"encoding":"a/b","x":1},"errors":[{"name":"A","x":1}]`)}}, []files{{record(`"a":{"type":"integer","description":"x"}`)}}},
	"unsafe-integer":        {[]files{{record(`"a":{"type":"integer","maximum":9007199254740992}`)}, {record(`"a":{"type":"integer","enum":[-9007199254740992]}`)}}, []files{{record(`"a":{"type":"integer","maximum":9007199254740991}`)}}},
}

// source knows com.atproto.repo.strongRef, and fails for com.example.down.
type source struct{}

func (source) Lookup(id syntax.NSID) (*lexicon.Schema, error) {
	switch id {
	case "com.example.down":
		return nil, errors.New("no answer")
	case "com.atproto.repo.strongRef":
		return lexicon.ParseSchema([]byte(`{"lexicon":1,"id":"com.atproto.repo.strongRef","defs":{"main":{"type":"object","properties":{}}}}`))
	}
	return nil, lexicon.ErrUnknownSchema
}

func rulesOf(findings []lexlint.Finding) []string {
	var out []string
	for _, f := range findings {
		out = append(out, f.Rule)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestRules holds every rule to what breaks it and what doesn't, and every fix to its promise.
func TestRules(t *testing.T) {
	o := lexlint.Options{Source: source{}}
	known := map[string]lexlint.Rule{}
	for _, r := range lexlint.Rules() {
		known[r.ID] = r
		if len(rules[r.ID].bad) == 0 || len(rules[r.ID].good) == 0 {
			t.Errorf("%s has no examples", r.ID)
		}
	}
	if !slices.IsSortedFunc(lexlint.Rules(), func(a, b lexlint.Rule) int { return strings.Compare(a.ID, b.ID) }) {
		t.Error("the rules aren't sorted")
	}
	for _, id := range slices.Sorted(maps.Keys(rules)) {
		rule, ok := known[id]
		if !ok {
			t.Errorf("there is no rule %s", id)
		}
		fixable := false
		for i, set := range rules[id].bad {
			found := lexlint.Lint(set, o)
			k := slices.IndexFunc(found, func(f lexlint.Finding) bool { return f.Rule == id })
			if k < 0 {
				t.Errorf("%s %d: only %v in %s", id, i, rulesOf(found), set[0].JSON)
				continue
			}
			f := found[k]
			if f.Level != rule.Level && !(f.Level == lexlint.Error && rule.Level == lexlint.Warn) || f.Message == "" || f.Line < 1 || f.Column < 1 {
				t.Errorf("%s: %+v", id, f)
			}
			if f.Fix == nil {
				continue
			}
			fixable = true
			file := slices.IndexFunc(set, func(x lexlint.File) bool { return x.Path == f.File })
			text, fixed := lexlint.FixAll(set, file, o)
			after := slices.Clone(set)
			after[file].JSON = text
			if _, err := lexicon.ParseSchema(text); err != nil {
				t.Errorf("%s: the fix made %s: %v", id, text, err)
			}
			if slices.Contains(rulesOf(lexlint.Lint(after, o)), id) || !slices.Contains(rulesOf(fixed), id) {
				t.Errorf("%s isn't fixed in %s: %v", id, text, fixed)
			}
		}
		if fixable != rule.Fix {
			t.Errorf("%s: fix %v, the table says %v", id, fixable, rule.Fix)
		}
		for i, set := range rules[id].good {
			if found := lexlint.Lint(set, o); slices.Contains(rulesOf(found), id) {
				t.Errorf("%s: good %d: %v", id, i, found)
			}
		}
	}
}

// reference returns the public schemas as files.
func reference(t testing.TB) files {
	t.Helper()
	dir := filepath.Join(fixtures.Root(), "..", "shared", "lexicons")
	var out files
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".json" || d.Name() == "lock.json" {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		out = append(out, lexlint.File{Path: filepath.ToSlash(rel), JSON: b})
		return err
	})
	if errors.Is(err, os.ErrNotExist) {
		if os.Getenv("CI") == "true" {
			t.Fatal("the reference schemas are missing")
		}
		t.Skip("the reference schemas are missing")
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}
