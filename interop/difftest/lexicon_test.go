package difftest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atdata"
	peerlex "github.com/bluesky-social/indigo/atproto/lexicon"

	"github.com/barograph/baro/data"
	"github.com/barograph/baro/internal/fixtures"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/syntax"
)

// catalogs are the same schemas on both sides: those of the fixtures and those of app.bsky.
type catalogs struct {
	ours   *lexicon.Catalog
	theirs *peerlex.BaseCatalog
}

var loadOnce struct {
	sync.Once
	catalogs
	err error
}

func loadCatalogs(t testing.TB) catalogs {
	t.Helper()
	dirs := []string{fixtures.Path(t, "atproto-interop/lexicon/catalog")}
	for _, sub := range []string{"app", "com"} {
		dirs = append(dirs, filepath.Join(fixtures.Root(), "lexicons", sub))
	}
	loadOnce.Do(func() {
		c := catalogs{lexicon.NewCatalog(), peerlex.NewBaseCatalog()}
		for _, dir := range dirs {
			err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
				if err != nil || e.IsDir() || filepath.Ext(p) != ".json" {
					return err
				}
				b, err := os.ReadFile(p)
				if err != nil {
					return err
				}
				var f peerlex.SchemaFile
				if err := json.Unmarshal(b, &f); err != nil {
					return err
				}
				if err := c.theirs.AddSchemaFile(f); err != nil {
					return nil // indigo knows less of the language
				}
				_, err = c.ours.AddJSON(b)
				return err
			})
			loadOnce.err = errors.Join(loadOnce.err, err)
		}
		loadOnce.catalogs = c
	})
	if loadOnce.err != nil {
		t.Fatal(loadOnce.err)
	}
	return loadOnce.catalogs
}

// FuzzRecord compares the verdict on records by their schemas. Records on which the data models disagree are left to
// FuzzJSON.
func FuzzRecord(f *testing.F) {
	c := loadCatalogs(f)
	for _, s := range recordSeeds(f) {
		f.Add([]byte(s), uint64(0))
	}
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		if seed != 0 {
			b = mutateRecord(b, seed)
		}
		c.compare(t, b)
	})
}

func TestRecordMutations(t *testing.T) {
	c := loadCatalogs(t)
	for _, s := range recordSeeds(t) {
		c.compare(t, []byte(s))
		for seed := range rounds(40) {
			if c.compare(t, mutateRecord([]byte(s), uint64(seed)+1)); t.Failed() {
				return
			}
		}
	}
}

// What the fixtures write carelessly, and package data refuses: see the tables of atdata.
var careless = strings.NewReplacer(`"$bytes": "123"`, `"$bytes": "120"`, "bafyrei", "bafkrei")

func recordSeeds(t testing.TB) []string {
	var list []string
	for _, name := range []string{"valid", "invalid"} {
		var cases []struct{ Data json.RawMessage }
		load(t, "atproto-interop/lexicon/record-data-"+name+".json", &cases)
		for _, c := range cases {
			list = append(list, careless.Replace(string(c.Data)))
		}
	}
	const cid = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
	return append(list,
		`{"$type":"app.bsky.feed.post","text":"hello","createdAt":"2026-01-02T03:04:05.678Z","langs":["en","pt-BR"],"tags":["a"],
		  "facets":[{"index":{"byteStart":0,"byteEnd":5},"features":[{"$type":"app.bsky.richtext.facet#link","uri":"https://example.com"},{"$type":"com.example.other","x":1}]}],
		  "embed":{"$type":"app.bsky.embed.images","images":[{"alt":"x","image":{"$type":"blob","ref":{"$link":"`+cid+`"},"mimeType":"image/png","size":10},"aspectRatio":{"width":1,"height":2}}]},
		  "reply":{"root":{"uri":"at://did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/app.bsky.feed.post/3lscuqc52or2x","cid":"`+cid+`"},"parent":{"uri":"at://did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/app.bsky.feed.post/3lscuqc52or2x","cid":"`+cid+`"}},
		  "labels":{"$type":"com.atproto.label.defs#selfLabels","values":[{"val":"x"}]}}`,
		`{"$type":"app.bsky.actor.profile","displayName":"x","description":"y","avatar":{"$type":"blob","ref":{"$link":"`+cid+`"},"mimeType":"image/jpeg","size":10},"createdAt":"2026-01-02T03:04:05Z"}`,
		`{"$type":"app.bsky.graph.follow","subject":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa","createdAt":"2026-01-02T03:04:05Z"}`,
		`{"$type":"app.bsky.feed.threadgate","post":"at://did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/app.bsky.feed.post/3lscuqc52or2x","allow":[{"$type":"app.bsky.feed.threadgate#mentionRule"}],"createdAt":"2026-01-02T03:04:05Z"}`,
	)
}

// mutateRecord changes a record within the data model, so that it is the schema that matters.
func mutateRecord(b []byte, seed uint64) []byte {
	r := seeded(seed)
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return mutateJSON(b, seed)
	}
	var places []func(change func(any) any)
	var find func(v any)
	var values []any
	find = func(v any) {
		values = append(values, v)
		switch v := v.(type) {
		case []any:
			for i := range v {
				places = append(places, func(change func(any) any) { v[i] = change(v[i]) })
				find(v[i])
			}
		case map[string]any:
			if v["$link"] != nil || v["$bytes"] != nil {
				return
			}
			keys := slices.Sorted(maps.Keys(v))
			for _, k := range keys {
				places = append(places, func(change func(any) any) {
					if n := change(v[k]); n != nil || r.IntN(2) == 0 {
						v[k] = n
					} else {
						delete(v, k)
					}
				})
				find(v[k])
			}
			places = append(places, func(change func(any) any) {
				v[pick(r, "a", "b", "integer", "string", "$type", "cid", "text", "createdAt", "nullableString", "unknown", "closedUnion", "union")] = change(nil)
			})
		}
	}
	find(v)
	for range 1 + r.IntN(3) {
		if len(places) == 0 {
			break
		}
		places[r.IntN(len(places))](func(old any) any { return changedValue(r, old, values) })
	}
	out, err := json.Marshal(v)
	if err != nil {
		return b
	}
	return out
}

func changedValue(r *rand.Rand, old any, values []any) any {
	switch old := old.(type) {
	case json.Number:
		if r.IntN(3) > 0 {
			return json.Number(pick(r, "0", "1", "-1", "3", "4", "5", "9", "10", "19", "20", "21", "41", "42", "43", "9007199254740991", "-9007199254740991"))
		}
	case string:
		switch r.IntN(4) {
		case 0:
			return mutateText(old, r.Uint64())
		case 1:
			return strings.Repeat(pick(r, "a", "é", "e\u0301", "👩‍👧", "🇩🇪", "\r\n", "한"), pick(r, 1, 9, 10, 11, 20, 21, 64, 300, 301, 3000, 3001))
		}
	case []any:
		if r.IntN(2) == 0 && len(old) > 0 {
			return slices.Repeat(old, pick(r, 2, 3, 5, 9))
		}
		return old[:len(old)/2]
	}
	const c = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
	switch r.IntN(9) {
	case 0:
		return nil
	case 1:
		return pick[any](r, true, json.Number("7"), "", []any{}, map[string]any{}, map[string]any{"$bytes": "AQID"}, map[string]any{"$link": c}, []any{json.Number("1"), nil})
	case 2:
		return map[string]any{"$type": "blob", "ref": map[string]any{"$link": c}, "mimeType": pick(r, "image/png", "image/jpeg", "image", "IMAGE/png", "text/plain", "image/png; x=1", "*/*", "image/*"), "size": json.Number(pick(r, "1", "20", "21", "1000000", "9000000"))}
	case 3:
		return map[string]any{"$type": pick(r, "example.lexicon.record#demoObject", "example.lexicon.record#demoObjectTwo", "example.lexicon.record#main", "example.lexicon.record", "example.lexicon.record#demoToken",
			"app.bsky.embed.external", "app.bsky.feed.threadgate#followerRule", "com.example.none", "x", "#demoObject", "com.atproto.label.defs#selfLabels"), pick(r, "a", "c", "integer", "values"): pick[any](r, json.Number("1"), "x", nil)}
	case 4:
		all := syntaxTypes[r.IntN(len(syntaxTypes))]
		if len(all.seeds) > 0 {
			return all.seeds[r.IntN(len(all.seeds))]
		}
		return "did:web:example.com"
	case 5:
		return map[string]any{"cid": c, "mimeType": "image/png"}
	}
	return values[r.IntN(len(values))] // of somewhere else in the record
}

func (c catalogs) compare(t testing.TB, b []byte) string {
	t.Helper()
	raw, err := data.AppendCBOR(nil, b)
	if err != nil || !same(oursJSON(b), askAtdataJSON(b)) {
		return ""
	}
	typ := data.TypeOf(raw)
	if _, err := syntax.ParseNSID(typ); err != nil {
		return ""
	}
	v, err := atdata.UnmarshalJSON(b)
	if err != nil {
		return ""
	}
	mine := ask(func() (any, error) { return nil, c.ours.ValidateRecord(syntax.NSID(typ), raw) })
	theirs := ask(func() (any, error) { return nil, peerlex.ValidateRecord(c.theirs, v, typ, 0) })
	return recordTable.judge(t, b, mine, theirs)
}

// hasBlob reports whether a record has a blob.
func hasBlob(b []byte) bool {
	v, _ := examineJSON(b)
	for _, k := range v.all() {
		if k.kind == '{' && k.field("$type").string() == "blob" {
			return true
		}
	}
	return false
}

// field gives the value of a key, an empty one if there is none.
func (v *value) field(key string) *value {
	for i, k := range v.keys {
		if unquote(k, faults{}) == key {
			return v.kids[i]
		}
	}
	return &value{}
}

// formats reports whether a record has a text on which the tables of syntax know a difference.
func formats(b []byte) bool {
	v, _ := examineJSON(b)
	for _, k := range v.all() {
		if k.kind != '"' {
			continue
		}
		s := k.string()
		for i := range syntaxTypes {
			for _, d := range syntaxTypes[i].table.list {
				mine, peer := ask(func() (any, error) { return syntaxTypes[i].ours(s) }), ask(func() (any, error) { return syntaxTypes[i].theirs(s) })
				if (mine.err == nil) != (peer.err == nil) && d.holds(s, mine, peer) {
					return true
				}
			}
		}
	}
	return false
}

func demo(fields string) []byte {
	return []byte(`{"$type":"example.lexicon.record","integer":1,` + fields + `}`)
}

const blobText = `{"$type":"blob","ref":{"$link":"bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"},"mimeType":"image/png; x=1","size":1}`

var recordTable = table[[]byte]{name: "indigo lexicon", list: []difference[[]byte]{
	{
		name: "string formats", right: open, rule: "as the tables of syntax say",
		holds: func(b []byte, mine, peer answer) bool { return formats(b) },
		shown: [][]byte{demo(`"formats":{"language":"X-fr-CH"}`), demo(`"formats":{"uri":"HTTPS://example.com"}`), demo(`"formats":{"datetime":"1985-04-12T23:20:50,123Z"}`)},
	},
	{
		name: "variant that is a record", right: ours, rule: "a record is an object: an unlisted variant of any kind passes, " + specLexicon,
		holds: func(b []byte, mine, peer answer) bool {
			return mine.err == nil && peer.err != nil && strings.Contains(peer.err.Error(), "unhandled schema type: lexicon.SchemaRecord")
		},
		shown: [][]byte{demo(`"union":{"$type":"app.bsky.graph.follow","subject":"did:web:example.com","createdAt":"2026-01-02T03:04:05Z"}`)},
	},
	{
		name: "blob where an object or a union is", right: open, rule: "a blob is an object with a $type: nothing but the type unknown excludes it, " + specLexicon,
		holds: func(b []byte, mine, peer answer) bool {
			return mine.err == nil && peer.err != nil && hasBlob(b) && strings.Contains(peer.err.Error(), "object")
		},
		shown: [][]byte{demo(`"object":` + blobText), demo(`"union":` + blobText)},
	},
	{
		name: "variant that an open union doesn't list", right: open, rule: "data of a later version has to pass; indigo validates what it has a schema for, we by option, " + specLexicon,
		holds: func(b []byte, mine, peer answer) bool {
			v, _ := examineJSON(b)
			raw, err := data.AppendCBOR(nil, b)
			if mine.err != nil || peer.err == nil || err != nil {
				return false
			}
			ours := loadOnce.ours.With(lexicon.Options{StrictUnions: true})
			return ours.ValidateRecord(syntax.NSID(v.field("$type").string()), raw) != nil
		},
		shown: [][]byte{demo(`"union":{"$type":"com.atproto.label.defs#selfLabels"}`)},
	},
	{
		name: "parameters of a MIME type", right: open, rule: "accept lists types, and says nothing of parameters, " + specBlob,
		holds: func(b []byte, mine, peer answer) bool {
			return mine.err == nil && peer.err != nil && hasBlob(b) && strings.Contains(peer.err.Error(), "; ")
		},
		shown: [][]byte{[]byte(`{"$type":"app.bsky.actor.profile","avatar":` + blobText + `}`)},
	},
}}
