package lexicon_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/rivo/uniseg"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/internal/fixtures"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/syntax"
)

func toCBOR(t testing.TB, json string) []byte {
	t.Helper()
	b, err := data.AppendCBOR(nil, []byte(json))
	if err != nil {
		t.Fatalf("%s: %v", json, err)
	}
	return b
}

// reference is the catalog of the public schemas, which lie beside the module.
var reference = sync.OnceValues(func() (*lexicon.Catalog, error) {
	dir := filepath.Join(fixtures.Root(), "..", "shared", "lexicons")
	if _, err := os.Stat(dir); err != nil {
		return nil, err
	}
	c := lexicon.NewCatalog()
	return c, c.AddFS(os.DirFS(dir))
})

func referenceCatalog(t testing.TB) *lexicon.Catalog {
	t.Helper()
	c, err := reference()
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("the reference schemas are missing")
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestReferenceSchemas(t *testing.T) {
	c := referenceCatalog(t)
	if n := len(c.NSIDs()); n != 402 {
		t.Errorf("%d schemas, want 402", n)
	}
	for _, e := range c.Check() {
		t.Error(e)
	}
	count := map[lexicon.Type]int{}
	for _, id := range c.NSIDs() {
		for _, d := range c.Schema(id).Defs {
			count[d.Def.Type]++
		}
	}
	for typ, want := range map[lexicon.Type]int{lexicon.TypeObject: 394, lexicon.TypeQuery: 177, lexicon.TypeProcedure: 142, lexicon.TypeToken: 76,
		lexicon.TypeRecord: 26, lexicon.TypePermissionSet: 10, lexicon.TypeSubscription: 3, lexicon.TypeString: 20, lexicon.TypeArray: 2} {
		if count[typ] != want {
			t.Errorf("%d definitions of type %s, want %d", count[typ], typ, want)
		}
	}
	for _, id := range c.NSIDs() {
		if d := c.Schema(id).Main(); d != nil && d.Type == lexicon.TypePermissionSet {
			for _, p := range d.Permissions {
				if p.Ignore != "" {
					t.Errorf("%s: %+v", id, p)
				}
			}
		}
	}
}

func interop(t testing.TB) *lexicon.Catalog {
	t.Helper()
	c := lexicon.NewCatalog()
	if err := c.AddFS(os.DirFS(fixtures.Path(t, "atproto-interop/lexicon/catalog"))); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestInteropSchemas(t *testing.T) {
	for file, valid := range map[string]bool{"lexicon-valid.json": true, "lexicon-invalid.json": false} {
		var cases []struct {
			Name    string
			Lexicon json.RawMessage
		}
		if err := json.Unmarshal(fixtures.Read(t, "atproto-interop/lexicon/"+file), &cases); err != nil {
			t.Fatal(err)
		}
		for _, c := range cases {
			_, err := lexicon.ParseSchema(c.Lexicon)
			var e *lexicon.SchemaError
			if (err == nil) != valid || !valid && !errors.As(err, &e) {
				t.Errorf("%s: %v", c.Name, err)
			}
		}
	}
}

// amend mends what the fixtures write carelessly and package data refuses: base64 with leftover bits set, which is a second
// spelling of the same bytes, and blobs whose CID says DAG-CBOR.
var amend = strings.NewReplacer(`"$bytes": "123"`, `"$bytes": "120"`, "bafyrei", "bafkrei")

func TestInteropRecords(t *testing.T) {
	cat := interop(t)
	const id = "example.lexicon.record"
	for file, valid := range map[string]bool{"record-data-valid.json": true, "record-data-invalid.json": false} {
		var cases []struct {
			Name string
			Rkey syntax.RecordKey
			Data json.RawMessage
		}
		if err := json.Unmarshal(fixtures.Read(t, "atproto-interop/lexicon/"+file), &cases); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, c := range cases {
			raw, err := data.AppendCBOR(nil, []byte(amend.Replace(string(c.Data))))
			if err == nil {
				err = cat.ValidateRecord(id, raw)
				n++
			}
			if err == nil {
				err = cat.ValidateRecordKey(id, c.Rkey)
			}
			if (err == nil) != valid {
				t.Errorf("%s: %v", c.Name, err)
			}
			var e *lexicon.Error
			var d *data.Error
			if err != nil && !errors.As(err, &e) && !errors.As(err, &d) {
				t.Errorf("%s: %T", c.Name, err)
			}
		}
		t.Logf("%s: %d of %d reached the schema", file, n, len(cases))
	}
}

func TestInteropPermissionSet(t *testing.T) {
	d := interop(t).Schema("example.lexicon.permissionset").Main()
	if d.Title != "Example for Moderation" || d.TitleLang["fr"] == "" || d.DetailLang["fr-FR"] == "" || len(d.Permissions) != 6 {
		t.Errorf("%+v", d)
	}
	for i, p := range d.Permissions {
		if wildcard := i == 4; (p.Ignore != "") != wildcard { // lxm * is not for permission sets
			t.Errorf("%d: %+v", i, p)
		}
	}
}

const schemaHead = `{"lexicon":1,"id":"com.example.test","defs":{`

// record makes a catalog with one record of one optional property p.
func record(t testing.TB, property string, more ...string) *lexicon.Catalog {
	t.Helper()
	c := lexicon.NewCatalog()
	defs := `"main":{"type":"record","key":"any","record":{"type":"object","nullable":["n"],"properties":{"p":` + property + `,"n":` + property + `}}}`
	for _, m := range more {
		defs += "," + m
	}
	if _, err := c.AddJSON([]byte(schemaHead + defs + "}}")); err != nil {
		t.Fatal(err)
	}
	return c
}

func ruleOf(err error) string {
	var e *lexicon.Error
	if errors.As(err, &e) {
		return string(e.Rule) + "@" + e.Path
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func TestRules(t *testing.T) {
	link := `{"$link":"bafkreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq"}`
	blob := func(mime, size string) string {
		return `{"$type":"blob","ref":` + link + `,"mimeType":"` + mime + `","size":` + size + `}`
	}
	object := `"o":{"type":"object","required":["x"],"properties":{"x":{"type":"integer"},"again":{"type":"ref","ref":"#o"},"list":{"type":"array","items":{"type":"ref","ref":"#o"}}}}`
	for _, tc := range []struct{ property, value, want string }{
		{`{"type":"boolean"}`, `true`, ""},
		{`{"type":"boolean"}`, `1`, "type@p"},
		{`{"type":"boolean"}`, `null`, "null@p"},
		{`{"type":"boolean","const":false}`, `true`, "const@p"},
		{`{"type":"boolean","const":false}`, `false`, ""},
		{`{"type":"integer"}`, `-9007199254740993`, ""},
		{`{"type":"integer"}`, `"1"`, "type@p"},
		{`{"type":"integer","minimum":0}`, `-1`, "minimum@p"},
		{`{"type":"integer","maximum":0}`, `1`, "maximum@p"},
		{`{"type":"integer","minimum":0,"maximum":0}`, `0`, ""},
		{`{"type":"integer","enum":[1,2]}`, `3`, "enum@p"},
		{`{"type":"integer","enum":[]}`, `3`, "enum@p"},
		{`{"type":"integer","const":7}`, `7`, ""},
		{`{"type":"integer","const":7}`, `8`, "const@p"},
		{`{"type":"string"}`, `""`, ""},
		{`{"type":"string","minLength":2}`, `"é"`, ""},
		{`{"type":"string","minLength":3}`, `"é"`, "minLength@p"},
		{`{"type":"string","maxLength":1}`, `"é"`, "maxLength@p"},
		{`{"type":"string","maxGraphemes":1}`, `"é"`, ""},
		{`{"type":"string","maxGraphemes":1}`, `"👩‍👩‍👦‍👦"`, ""},
		{`{"type":"string","maxGraphemes":1}`, `"👩‍👩‍👦‍👦x"`, "maxGraphemes@p"},
		{`{"type":"string","minGraphemes":2}`, `"👩‍👩‍👦‍👦"`, "minGraphemes@p"},
		{`{"type":"string","minGraphemes":2}`, `"a"`, "minGraphemes@p"},
		{`{"type":"string","enum":["a"]}`, `"b"`, "enum@p"},
		{`{"type":"string","knownValues":["a"]}`, `"b"`, ""},
		{`{"type":"string","const":"a"}`, `"b"`, "const@p"},
		{`{"type":"string","default":"a"}`, `"b"`, ""},
		{`{"type":"string","format":"did"}`, `"x"`, "format@p"},
		{`{"type":"string","format":"at-identifier"}`, `"did:web:a.test"`, ""},
		{`{"type":"string","format":"uri"}`, `"x y"`, "format@p"},
		{`{"type":"string","format":"of-tomorrow"}`, `"anything"`, ""},
		{`{"type":"bytes","minLength":2}`, `{"$bytes":"AA"}`, "minLength@p"},
		{`{"type":"bytes","maxLength":1}`, `{"$bytes":"AAAA"}`, "maxLength@p"},
		{`{"type":"bytes"}`, `"AAAA"`, "type@p"},
		{`{"type":"cid-link"}`, link, ""},
		{`{"type":"cid-link"}`, `"bafkreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq"`, "type@p"},
		{`{"type":"blob"}`, blob("image/png", "5"), ""},
		{`{"type":"blob","maxSize":4}`, blob("image/png", "5"), "maxSize@p.size"},
		{`{"type":"blob","accept":["image/*"]}`, blob("image/png", "5"), ""},
		{`{"type":"blob","accept":["image/*"]}`, blob("imagex/png", "5"), "accept@p.mimeType"},
		{`{"type":"blob","accept":["*/*"]}`, blob("a/b", "5"), ""},
		{`{"type":"blob","accept":["text/vtt"]}`, blob("text/vtt; charset=utf-8", "5"), ""},
		{`{"type":"blob"}`, `{"cid":"bafkreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq","mimeType":"image/png"}`, "blob@p"},
		{`{"type":"blob"}`, `{}`, "blob@p"},
		{`{"type":"blob"}`, link, "type@p"},
		{`{"type":"array","items":{"type":"integer"},"minLength":1}`, `[]`, "minLength@p"},
		{`{"type":"array","items":{"type":"integer"},"maxLength":1}`, `[1,2]`, "maxLength@p"},
		{`{"type":"array","items":{"type":"integer"}}`, `[1,"2"]`, "type@p[1]"},
		{`{"type":"array","items":{"type":"integer"}}`, `[null]`, "type@p[0]"},
		{`{"type":"array","items":{"type":"array","items":{"type":"integer"}}}`, `[[1],[2,true]]`, "type@p[1][1]"},
		{`{"type":"ref","ref":"#o"}`, `{"x":1}`, ""},
		{`{"type":"ref","ref":"#o"}`, `{}`, "required@p.x"},
		{`{"type":"ref","ref":"#o"}`, `{"x":1,"again":{"x":2,"list":[{"x":3},{"x":4,"again":{}}]}}`, "required@p.again.list[1].again.x"},
		{`{"type":"ref","ref":"#o"}`, `{"zz":1}`, "required@p.x"},
		{`{"type":"ref","ref":"#gone"}`, `{}`, "unresolved@p"},
		{`{"type":"ref","ref":"com.example.gone"}`, `1`, "unresolved@p"},
		{`{"type":"ref","ref":"#tok"}`, `"x"`, "unresolved@p"},
		{`{"type":"ref","ref":"com.example.test"}`, `{"$type":"com.example.test"}`, ""},
		{`{"type":"ref","ref":"com.example.test#main"}`, `{}`, "$type@p.$type"},
		{`{"type":"union","refs":["#o"]}`, `{"$type":"com.example.test#o","x":1}`, ""},
		{`{"type":"union","refs":["#o"]}`, `{"$type":"com.example.test#o"}`, "required@p.x"},
		{`{"type":"union","refs":["#o"]}`, `{"$type":"com.example.else","y":1}`, ""},
		{`{"type":"union","refs":["#o"]}`, `{"x":1}`, "$type@p.$type"},
		{`{"type":"union","refs":["#o"]}`, `{"a":1,"b":2,"longer-than-type":3}`, "$type@p.$type"},
		{`{"type":"union","refs":["#o"]}`, `[]`, "type@p"},
		{`{"type":"union","refs":["#o"],"closed":true}`, `{"$type":"com.example.else"}`, "union@p.$type"},
		{`{"type":"union","refs":["#o"],"closed":true}`, `{"$type":"#o","x":1}`, "union@p.$type"},
		{`{"type":"union","refs":["com.example.test"],"closed":true}`, `{"$type":"com.example.test#main"}`, "union@p.$type"},
		{`{"type":"union","refs":["com.example.test#main"],"closed":true}`, `{"$type":"com.example.test"}`, ""},
		{`{"type":"union","refs":["#tok"]}`, `{"$type":"com.example.test#tok"}`, "unresolved@p"},
		{`{"type":"union","refs":[]}`, `{"$type":"com.example.else"}`, ""},
		{`{"type":"union","refs":[]}`, `{}`, "$type@p.$type"},
		{`{"type":"unknown"}`, `{"any":[1,null]}`, ""},
		{`{"type":"unknown"}`, `{"$type":"a.b.c"}`, ""},
		{`{"type":"unknown"}`, `[]`, "type@p"},
		{`{"type":"unknown"}`, link, "type@p"},
		{`{"type":"unknown"}`, blob("a/b", "1"), "blob@p"},
		{`{"type":"object","properties":{"a b":{"type":"integer"}}}`, `{"a b":true}`, `type@p["a b"]`},
		{`{"type":"object","properties":{},"required":["whatever"]}`, `{"whatever":[]}`, ""},
		{`{"type":"object","properties":{},"required":["whatever"]}`, `{}`, "required@p.whatever"},
	} {
		c := record(t, tc.property, object, `"tok":{"type":"token"}`)
		raw := toCBOR(t, `{"$type":"com.example.test","p":`+tc.value+`}`)
		if got := ruleOf(c.ValidateRecord("com.example.test", raw)); got != tc.want {
			t.Errorf("%s with %s: %q, want %q", tc.property, tc.value, got, tc.want)
		}
		// The same in a nullable field, and null there.
		raw = toCBOR(t, `{"$type":"com.example.test","n":null}`)
		if got := ruleOf(c.ValidateRecord("com.example.test", raw)); got != "" {
			t.Errorf("%s with null: %q", tc.property, got)
		}
	}
}

func TestRecordEnvelope(t *testing.T) {
	c := record(t, `{"type":"integer"}`)
	for in, want := range map[string]string{
		`{"$type":"com.example.test"}`:      "",
		`{"$type":"com.example.test#main"}`: "$type@$type",
		`{"$type":"com.example.other"}`:     "$type@$type",
		`{"$type":7}`:                       "type@$type",
		`{"p":1}`:                           "$type@$type",
		`{"unknown field":[{"p":"x"}],"$type":"com.example.test"}`: "",
	} {
		raw, err := data.AppendCBOR(nil, []byte(in))
		if err != nil {
			continue // the data model refuses it already
		}
		if got := ruleOf(c.ValidateRecord("com.example.test", raw)); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
	for _, raw := range [][]byte{nil, {0xa0, 0xa0}, {0xbf, 0xff}, {0x80}, append(toCBOR(t, `{"$type":"com.example.test"}`), 0)} {
		if err := c.ValidateRecord("com.example.test", raw); err == nil {
			t.Errorf("%x accepted", raw)
		}
	}
	if err := c.ValidateRecord("com.example.unknown", nil); !errors.Is(err, lexicon.ErrUnknownSchema) {
		t.Error(err)
	}
	deep := toCBOR(t, `{"$type":"com.example.test"}`)
	c2 := record(t, `{"type":"ref","ref":"#o"}`, `"o":{"type":"object","properties":{"o":{"type":"ref","ref":"#o"}}}`)
	b := cbor.AppendMap(nil, 2)
	b = cbor.AppendText(b, "p")
	for range 100 {
		b = cbor.AppendMap(b, 1)
		b = cbor.AppendText(b, "o")
	}
	b = append(b, 0xa0)
	b = append(b, deep[1:]...)
	if got := ruleOf(c2.ValidateRecord("com.example.test", b)); !strings.HasPrefix(got, "depth@p.o.o.") {
		t.Error(got)
	}
}

func TestLegacyBlob(t *testing.T) {
	c := record(t, `{"type":"blob","accept":["image/png"]}`)
	c = c.With(lexicon.Options{AllowLegacyBlobs: true})
	for in, want := range map[string]string{
		`{"cid":"bafkreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq","mimeType":"image/png"}`:  "",
		`{"cid":"bafkreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq","mimeType":"image/jpeg"}`: "accept@p.mimeType",
		`{"cid":7,"mimeType":"image/png"}`: "blob@p",
	} {
		if got := ruleOf(c.ValidateRecord("com.example.test", toCBOR(t, `{"$type":"com.example.test","p":`+in+`}`))); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}

func TestRecordKeys(t *testing.T) {
	for key, cases := range map[string]map[syntax.RecordKey]bool{
		"tid":          {"3jzfcijpj2z2a": true, "self": false},
		"nsid":         {"com.example.x": true, "self": false},
		"any":          {"self": true, ".": false, "a/b": false},
		"literal:self": {"self": true, "self2": false},
	} {
		c := lexicon.NewCatalog()
		_, err := c.AddJSON([]byte(schemaHead + `"main":{"type":"record","key":"` + key + `","record":{"type":"object","properties":{}}}}}`))
		if err != nil {
			t.Fatal(err)
		}
		for k, want := range cases {
			if err := c.ValidateRecordKey("com.example.test", k); (err == nil) != want {
				t.Errorf("%s %s: %v", key, k, err)
			}
		}
	}
}

func TestSchemaRefused(t *testing.T) {
	wrap := func(property string) string {
		return `"main":{"type":"record","key":"any","record":{"type":"object","properties":{"p":` + property + `}}}`
	}
	for name, defs := range map[string]string{
		"empty":                   ``,
		"def not an object":       `"main":7`,
		"no type":                 `"main":{}`,
		"unknown type":            `"main":{"type":"float"}`,
		"union by name":           `"u":{"type":"union","refs":[]}`,
		"params by name":          `"u":{"type":"params","properties":{}}`,
		"permission by name":      `"u":{"type":"permission","resource":"repo"}`,
		"bad name":                `"a-b":{"type":"token"}`,
		"digit first":             `"1a":{"type":"token"}`,
		"query elsewhere":         `"q":{"type":"query"}`,
		"record without key":      `"main":{"type":"record","record":{"type":"object","properties":{}}}`,
		"record key":              `"main":{"type":"record","key":"random","record":{"type":"object","properties":{}}}`,
		"record literal":          `"main":{"type":"record","key":"literal:a b","record":{"type":"object","properties":{}}}`,
		"record of string":        `"main":{"type":"record","key":"any","record":{"type":"string"}}`,
		"object without props":    `"o":{"type":"object"}`,
		"record in property":      wrap(`{"type":"record","key":"any","record":{"type":"object","properties":{}}}`),
		"token in property":       wrap(`{"type":"token"}`),
		"params in property":      wrap(`{"type":"params","properties":{}}`),
		"array without items":     wrap(`{"type":"array"}`),
		"ref without ref":         wrap(`{"type":"ref"}`),
		"bad ref":                 wrap(`{"type":"ref","ref":"nonsense"}`),
		"bad fragment":            wrap(`{"type":"ref","ref":"#a/b"}`),
		"union without refs":      wrap(`{"type":"union"}`),
		"empty closed union":      wrap(`{"type":"union","refs":[],"closed":true}`),
		"double variant":          wrap(`{"type":"union","refs":["com.example.test","com.example.test#main"]}`),
		"closed not boolean":      wrap(`{"type":"union","refs":["#a"],"closed":"yes"}`),
		"const of another type":   wrap(`{"type":"integer","const":"x"}`),
		"default of another type": wrap(`{"type":"string","default":1}`),
		"const and default":       wrap(`{"type":"string","const":"a","default":"a"}`),
		"enum of another type":    wrap(`{"type":"string","enum":[1]}`),
		"negative length":         wrap(`{"type":"string","maxLength":-1}`),
		"min above max":           wrap(`{"type":"integer","minimum":2,"maximum":1}`),
		"length not integer":      wrap(`{"type":"string","maxLength":"1"}`),
		"accept":                  wrap(`{"type":"blob","accept":["*"]}`),
		"accept glob":             wrap(`{"type":"blob","accept":["text/ht*"]}`),
		"required twice":          `"o":{"type":"object","properties":{},"required":["a","a"]}`,
		"object in params":        `"main":{"type":"query","parameters":{"type":"params","properties":{"o":{"type":"object","properties":{}}}}}`,
		"array of arrays params":  `"main":{"type":"query","parameters":{"type":"params","properties":{"o":{"type":"array","items":{"type":"array","items":{"type":"integer"}}}}}}`,
		"query with input":        `"main":{"type":"query","input":{"encoding":"application/json"}}`,
		"body without encoding":   `"main":{"type":"procedure","input":{}}`,
		"body of string":          `"main":{"type":"procedure","input":{"encoding":"application/json","schema":{"type":"string"}}}`,
		"error with whitespace":   `"main":{"type":"query","errors":[{"name":"a b"}]}`,
		"subscription, no msg":    `"main":{"type":"subscription"}`,
		"subscription of object":  `"main":{"type":"subscription","message":{"schema":{"type":"object","properties":{}}}}`,
		"set without permissions": `"main":{"type":"permission-set"}`,
		"set, bad language":       `"main":{"type":"permission-set","permissions":[],"title:lang":{"not a tag":"x"}}`,
		"too deep":                wrap(strings.Repeat(`{"type":"array","items":`, 40) + `{"type":"integer"}` + strings.Repeat("}", 40)),
	} {
		if _, err := lexicon.ParseSchema([]byte(schemaHead + defs + "}}")); err == nil {
			t.Errorf("%s accepted", name)
		}
	}
	for _, doc := range []string{``, `[]`, `{}`, `{"lexicon":2,"id":"a.b.c","defs":{"x":{"type":"token"}}}`, `{"lexicon":1,"id":"a.b.c#d","defs":{"x":{"type":"token"}}}`,
		`{"lexicon":1,"lexicon":1,"id":"a.b.c","defs":{"x":{"type":"token"}}}`, strings.Repeat(" ", lexicon.MaxSchema+1)} {
		if _, err := lexicon.ParseSchema([]byte(doc)); err == nil {
			t.Errorf("%.80s accepted", doc)
		}
	}
}

func TestPermissions(t *testing.T) {
	for in, ok := range map[string]bool{
		`{"type":"permission","resource":"repo","collection":["a.b.c"]}`:                      true,
		`{"type":"permission","resource":"repo","collection":["a.b.c"],"action":["create"]}`:  true,
		`{"type":"permission","resource":"repo","collection":["a.b.c"],"action":["publish"]}`: false,
		`{"type":"permission","resource":"repo","collection":["a.b.c"],"action":[]}`:          false,
		`{"type":"permission","resource":"repo","collection":["*"]}`:                          false,
		`{"type":"permission","resource":"repo","collection":[]}`:                             false,
		`{"type":"permission","resource":"repo","collection":["a.b.c"],"onlyOnSundays":true}`: false,
		`{"type":"permission","resource":"rpc","lxm":["a.b.c"],"aud":"*"}`:                    true,
		`{"type":"permission","resource":"rpc","lxm":["a.b.c"],"inheritAud":true}`:            true,
		`{"type":"permission","resource":"rpc","lxm":["a.b.c"],"inheritAud":true,"aud":"*"}`:  false,
		`{"type":"permission","resource":"rpc","lxm":["a.b.c"]}`:                              false,
		`{"type":"permission","resource":"rpc","lxm":["a.b.c"],"aud":"did:web:a.test#svc"}`:   false,
		`{"type":"permission","resource":"blob","accept":["*/*"]}`:                            false,
		`{"type":"permission","resource":"account","attr":"email"}`:                           false,
		`{"type":"permission","resource":"teleport"}`:                                         false,
	} {
		s, err := lexicon.ParseSchema([]byte(schemaHead + `"main":{"type":"permission-set","permissions":[` + in + `]}}}`))
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if p := s.Main().Permissions[0]; (p.Ignore == "") != ok {
			t.Errorf("%s: %+v", in, p)
		}
	}
}

func TestMethods(t *testing.T) {
	c := referenceCatalog(t)
	for _, tc := range []struct{ id, query, want string }{
		{"app.bsky.feed.getAuthorFeed", "actor=a.test&limit=30&includePins=true", ""},
		{"app.bsky.feed.getAuthorFeed", "limit=30", "required@actor"},
		{"app.bsky.feed.getAuthorFeed", "actor=a.test&limit=0", "minimum@limit"},
		{"app.bsky.feed.getAuthorFeed", "actor=a.test&limit=x", "type@limit"},
		{"app.bsky.feed.getAuthorFeed", "actor=a.test&limit=%2B5", "type@limit"},
		{"app.bsky.feed.getAuthorFeed", "actor=a.test&limit=", "type@limit"},
		{"app.bsky.feed.getAuthorFeed", "actor=a.test&limit=1&limit=2", "repeated@limit"},
		{"app.bsky.feed.getAuthorFeed", "actor=a.test&includePins=1", "type@includePins"},
		{"app.bsky.feed.getAuthorFeed", "actor=a&x=y", "format@actor"},
		{"app.bsky.feed.getPosts", "uris=at://did:web:a.test/a.b.c/d&uris=at://x", "format@uris[1]"},
		{"app.bsky.feed.getPosts", strings.Repeat("uris=at://did:web:a.test&", 26), "maxLength@uris"},
		{"com.atproto.sync.subscribeRepos", "cursor=1", ""},
	} {
		q, err := url.ParseQuery(strings.TrimSuffix(tc.query, "&"))
		if err != nil {
			t.Fatal(err)
		}
		if got := ruleOf(c.ValidateParams(syntax.NSID(tc.id), q)); got != tc.want {
			t.Errorf("%s?%s: %q, want %q", tc.id, tc.query, got, tc.want)
		}
	}
	if err := c.ValidateInput("com.atproto.repo.createRecord", toCBOR(t, `{"repo":"a.test","collection":"a.b.c","record":{}}`)); err != nil {
		t.Error(err)
	}
	if got := ruleOf(c.ValidateInput("com.atproto.repo.createRecord", toCBOR(t, `{"repo":"a.test","collection":"a","record":{}}`))); got != "format@collection" {
		t.Error(got)
	}
	if got := ruleOf(c.ValidateInput("com.atproto.repo.createRecord", nil)); got != "body@" {
		t.Error(got)
	}
	if got := ruleOf(c.ValidateInput("com.atproto.server.deleteSession", toCBOR(t, `{}`))); got != "body@" {
		t.Error(got)
	}
	if got := ruleOf(c.ValidateOutput("com.atproto.identity.resolveHandle", toCBOR(t, `{"did":"x"}`))); got != "format@did" {
		t.Error(got)
	}
	if err := c.ValidateOutput("app.bsky.actor.getProfile", toCBOR(t, `{"did":"did:web:a.test","handle":"a.test"}`)); err != nil {
		t.Error(err)
	}
	if got := ruleOf(c.ValidateMessage("com.atproto.sync.subscribeRepos", "#account", toCBOR(t, `{"seq":1,"did":"did:web:a.test","time":"2026-01-01T00:00:00Z"}`))); got != "required@active" {
		t.Error(got)
	}
	if err := c.ValidateMessage("com.atproto.sync.subscribeRepos", "#tomorrow", toCBOR(t, `{}`)); err != nil {
		t.Error(err)
	}
	b := c.Schema("com.atproto.repo.uploadBlob").Main().Input
	if !b.Accepts("image/png") || b.Accepts("nonsense") || !c.Schema("com.atproto.repo.createRecord").Main().Input.Accepts("application/json; charset=utf-8") {
		t.Error("encodings")
	}
	if err := c.ValidateParams("app.bsky.feed.post", nil); !errors.Is(err, lexicon.ErrUnknownSchema) {
		t.Error(err)
	}
}

func TestAddReplaces(t *testing.T) {
	c := record(t, `{"type":"ref","ref":"com.example.late"}`)
	raw := toCBOR(t, `{"$type":"com.example.test","p":7}`)
	if got := ruleOf(c.ValidateRecord("com.example.test", raw)); got != "unresolved@p" {
		t.Error(got)
	}
	if n := len(c.Check()); n != 2 {
		t.Errorf("%v", c.Check())
	}
	if _, err := c.AddJSON([]byte(`{"lexicon":1,"id":"com.example.late","defs":{"main":{"type":"integer"}}}`)); err != nil {
		t.Fatal(err)
	}
	if err := c.ValidateRecord("com.example.test", raw); err != nil {
		t.Error(err)
	}
	if refs := c.Schema("com.example.test").References(); len(refs) != 1 || refs[0] != "com.example.late" {
		t.Error(refs)
	}
}

func TestConcurrentUse(t *testing.T) {
	c := record(t, `{"type":"array","items":{"type":"ref","ref":"#o"}}`, `"o":{"type":"object","properties":{"o":{"type":"ref","ref":"#o"}}}`)
	raw := toCBOR(t, `{"$type":"com.example.test","p":[{"o":{"o":{}}}]}`)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				if err := c.ValidateRecord("com.example.test", raw); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 50 {
		if _, err := c.AddJSON([]byte(fmt.Sprintf(`{"lexicon":1,"id":"com.example.x%d","defs":{"main":{"type":"integer"}}}`, i))); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
}

// TestGraphemes compares with the plain count of the library on random texts made of everything that joins.
func TestGraphemes(t *testing.T) {
	pieces := []string{"a", "b", " ", "\r", "\n", "\r\n", "é", "e\u0301", "\u0301", "👩", "\u200d", "👦", "🏳", "\ufe0f", "🌈", "🇩", "🇪", "한", "ᄒ", "ᅡ", "ᆫ", "क", "\u094d", "ष", "\u0600", "\x00", "\u00a0"}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		var s strings.Builder
		for range rnd.IntN(12) {
			s.WriteString(pieces[rnd.IntN(len(pieces))])
		}
		want := int64(uniseg.GraphemeClusterCount(s.String()))
		if got, _ := lexicon.CountGraphemes([]byte(s.String()), 1<<40); got != want {
			t.Fatalf("%q: %d, want %d", s.String(), got, want)
		}
		if got, more := lexicon.CountGraphemes([]byte(s.String()), want-1); want > 0 && (got != want-1 || !more) {
			t.Fatalf("%q: with a limit of %d: %d, %v", s.String(), want-1, got, more)
		}
	}
}

func post(t testing.TB) []byte {
	text := "Pressure is falling: 998 hPa and rain before night. " + strings.Repeat("It's wet. ", 12)
	return toCBOR(t, `{"$type":"app.bsky.feed.post","text":"`+text+`","langs":["en"],"createdAt":"2026-11-21T01:02:03.456Z",
		"reply":{"root":{"uri":"at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/app.bsky.feed.post/3jzfcijpj2z2a","cid":"bafyreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq"},
		"parent":{"uri":"at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/app.bsky.feed.post/3jzfcijpj2z2b","cid":"bafyreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq"}},
		"facets":[{"index":{"byteStart":0,"byteEnd":8},"features":[{"$type":"app.bsky.richtext.facet#link","uri":"https://example.com/weather"}]},
		{"index":{"byteStart":10,"byteEnd":12},"features":[{"$type":"app.bsky.richtext.facet#mention","did":"did:plc:ewvi7nxzyoun6zhxrhs64oiz"}]}],
		"embed":{"$type":"app.bsky.embed.images","images":[{"alt":"a barograph","aspectRatio":{"width":4,"height":3},
		"image":{"$type":"blob","ref":{"$link":"bafkreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq"},"mimeType":"image/png","size":12345}}]}}`)
}

func TestPost(t *testing.T) {
	c := referenceCatalog(t)
	if err := c.ValidateRecord("app.bsky.feed.post", post(t)); err != nil {
		t.Fatal(err)
	}
	raw := post(t)
	if n := testing.AllocsPerRun(100, func() {
		if err := c.ValidateRecord("app.bsky.feed.post", raw); err != nil {
			t.Fatal(err)
		}
	}); n > 0 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}

func FuzzValidateRecord(f *testing.F) {
	c := record(f, `{"type":"union","refs":["#o"]}`, `"o":{"type":"object","required":["s"],"properties":{"s":{"type":"string","format":"datetime","maxGraphemes":30},
		"b":{"type":"blob","accept":["image/*"]},"l":{"type":"array","items":{"type":"ref","ref":"#o"}},"u":{"type":"unknown"}}}`)
	f.Add(toCBOR(f, `{"$type":"com.example.test"}`))
	f.Add(toCBOR(f, `{"$type":"com.example.test","p":{"$type":"com.example.test#o","s":"2026-11-21T01:02:03Z","l":[{"s":""}],"u":{}}}`))
	f.Add(toCBOR(f, `{"$type":"com.example.test","p":{"$type":"com.example.test#o","s":"2026-11-21T01:02:03Z","b":{"$type":"blob","ref":{"$link":"`+cid.Sum(cid.Raw, nil).String()+`"},"mimeType":"image/png","size":1}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		err := c.ValidateRecord("com.example.test", b)
		if err == nil && data.TypeOf(b) != "com.example.test" {
			t.Errorf("accepted %x", b)
		}
		if n, verr := cbor.Scan(b); err == nil && (verr != nil || n != len(b)) {
			var e *cbor.Error
			if !errors.As(verr, &e) || e.Rule != cbor.RuleDepth { // depth is counted from fields that the schema knows
				t.Errorf("accepted %x, which is no CBOR: %v", b, verr)
			}
		}
	})
}

func FuzzParseSchema(f *testing.F) {
	f.Add([]byte(schemaHead + `"main":{"type":"record","key":"any","record":{"type":"object","properties":{"p":{"type":"integer"}}}}}}`))
	f.Add([]byte(schemaHead + `"main":{"type":"query","parameters":{"type":"params","properties":{"p":{"type":"array","items":{"type":"integer"}}}},"output":{"encoding":"*/*"}}}}`))
	f.Add([]byte(schemaHead + `"main":{"type":"permission-set","permissions":[{"type":"permission","resource":"repo","collection":["a.b.c"]}]}}}`))
	for _, name := range []string{"lexicon-valid", "lexicon-invalid"} {
		var cases []struct{ Lexicon json.RawMessage }
		if err := json.Unmarshal(fixtures.Read(f, "atproto-interop/lexicon/"+name+".json"), &cases); err != nil {
			f.Fatal(err)
		}
		for _, c := range cases {
			f.Add([]byte(c.Lexicon))
		}
	}
	for _, name := range []string{"record", "query", "procedure", "subscription", "permission-set"} {
		f.Add(fixtures.Read(f, "atproto-interop/lexicon/catalog/"+name+".json"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := lexicon.ParseSchema(b)
		if err != nil {
			return
		}
		again, err := lexicon.ParseRecord(s.Raw)
		if err != nil || again.ID != s.ID || len(again.Defs) != len(s.Defs) {
			t.Errorf("%v", err)
		}
		c := lexicon.NewCatalog()
		c.Add(s)
		c.Check()
		_ = c.ValidateRecord(s.ID, []byte{0xa0})
		_ = c.ValidateParams(s.ID, nil)
	})
}

func ExampleCatalog_ValidateRecord() {
	cat := lexicon.NewCatalog()
	_, err := cat.AddJSON([]byte(`{"lexicon":1,"id":"com.example.note","defs":{"main":{"type":"record","key":"tid","record":{
		"type":"object","required":["text"],"properties":{
			"text":{"type":"string","maxGraphemes":5},
			"tags":{"type":"array","items":{"type":"string","maxLength":3}}}}}}}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, json := range []string{
		`{"$type":"com.example.note","text":"hello"}`,
		`{"$type":"com.example.note","text":"hello!"}`,
		`{"$type":"com.example.note","text":"hello","tags":["a","rain"]}`,
		`{"$type":"com.example.note"}`,
	} {
		raw, err := data.AppendCBOR(nil, []byte(json))
		if err == nil {
			err = cat.ValidateRecord("com.example.note", raw)
		}
		fmt.Println(err)
	}
	// Output:
	// <nil>
	// text: maxGraphemes: more than 5
	// tags[1]: maxLength: 4 bytes, at most 3
	// text: required
}

func BenchmarkCatalog(b *testing.B) {
	dir := filepath.Join(fixtures.Root(), "..", "shared", "lexicons")
	referenceCatalog(b)
	for b.Loop() {
		c := lexicon.NewCatalog()
		if err := c.AddFS(os.DirFS(dir)); err != nil {
			b.Fatal(err)
		}
	}
}

func TestAddFS(t *testing.T) {
	token := &fstest.MapFile{Data: []byte(`{"lexicon":1,"id":"com.example.a","defs":{"x":{"type":"token"}}}`)}
	c := lexicon.NewCatalog()
	err := c.AddFS(fstest.MapFS{"com/example/a.json": token, "lock.json": {Data: []byte(`{}`)}, "README.md": {}})
	if err != nil || len(c.NSIDs()) != 1 {
		t.Errorf("%v, %v", c.NSIDs(), err)
	}
	if err := lexicon.NewCatalog().AddFS(fstest.MapFS{"a.json": token, "b.json": token}); err == nil {
		t.Error("the same id twice was accepted")
	}
	if err := lexicon.NewCatalog().AddFS(fstest.MapFS{"a.json": {Data: []byte(`{}`)}}); err == nil || !strings.Contains(err.Error(), "a.json") {
		t.Error(err)
	}
}

// TestEmptyType tells that an empty $type is none, also where a union would take any.
func TestEmptyType(t *testing.T) {
	cat := lexicon.NewCatalog()
	if _, err := cat.AddJSON([]byte(`{"lexicon":1,"id":"com.example.open","defs":{"main":{"type":"object","required":["u"],"properties":{"u":{"type":"union","refs":[]}}}}}`)); err != nil {
		t.Fatal(err)
	}
	for in, ok := range map[string]bool{`{"u":{"$type":"a.b.c"}}`: true, `{"u":{"$type":""}}`: false, `{"u":{}}`: false} {
		raw, err := data.AppendCBOR(nil, []byte(in))
		if err != nil {
			raw, err = data.Encode(map[string]any{"u": map[string]any{"$type": ""}})
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := cat.ValidateType("com.example.open", raw); (err == nil) != ok {
			t.Errorf("%s: %v", in, err)
		}
	}
}
