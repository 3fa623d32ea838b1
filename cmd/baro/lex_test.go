package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/data"
	"github.com/barograph/baro/identity/lexres"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/lexicon/lexlint"
	"github.com/barograph/baro/lexicons"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/repo/repotest"
	"github.com/barograph/baro/syntax"
)

const noteID = syntax.NSID("test.alice.note")

func schemaText(id syntax.NSID, fields string) string {
	return fmt.Sprintf(`{"$type":"com.atproto.lexicon.schema","lexicon":1,"id":%q,"defs":{"main":{"type":"record","key":"tid","record":{"type":"object","properties":{%s}}}}}`, id, fields)
}

// newLexRepo is a repository with schemas, by NSID.
func newLexRepo(t *testing.T, did syntax.DID, schemas map[syntax.NSID]string) *testRepo {
	t.Helper()
	r := &testRepo{data: map[string][]byte{}}
	var writes []repo.Write
	for id, text := range schemas {
		b, err := data.AppendCBOR(nil, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		p := lexres.URI(did, id).Path()
		r.data[p] = b
		writes = append(writes, repo.Write{Path: p, Record: b})
	}
	var err error
	if r.u, r.tree, err = repo.Apply(mst.New(), writes, did, repotest.Rev, repotest.Key()); err != nil {
		t.Fatal(err)
	}
	return r
}

// proofs serves the records of a repository with their proofs.
func (r *testRepo) proofs(t *testing.T) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		q := req.URL.Query()
		serveCAR(r.proof(t, q.Get("collection")+"/"+q.Get("rkey")))(w, req)
	}
}

// TestLexLies has a PDS lie about a schema to every command that asks.
func TestLexLies(t *testing.T) {
	truth := newLexRepo(t, repotest.DID, map[syntax.NSID]string{
		noteID: schemaText(noteID, ""), "test.alice.wrong": schemaText(noteID, ""), "test.alice.other": schemaText("test.alice.other", ""),
	})
	stranger := newLexRepo(t, "did:plc:other2222222222222222222", map[syntax.NSID]string{noteID: schemaText(noteID, "")})
	path := lexres.URI(repotest.DID, noteID).Path()
	good := truth.proof(t, path)
	for name, c := range map[string]struct {
		id     syntax.NSID
		serve  http.HandlerFunc
		code   int
		stderr string
	}{
		"the truth":          {noteID, truth.proofs(t), exitOK, "ok\tsignature"},
		"another repository": {noteID, serveCAR(stranger.proof(t, path)), exitVerification, "bad proof"},
		"another record":     {noteID, serveCAR(truth.proof(t, lexres.URI(repotest.DID, "test.alice.other").Path())), exitVerification, "bad proof"},
		"a changed byte":     {noteID, serveCAR(flip(good, len(good)-20)), exitVerification, "bad proof"},
		"half of it":         {noteID, serveCAR(good[:len(good)/2]), exitVerification, "bad proof"},
		"nothing at all":     {noteID, serveCAR(nil), exitVerification, "bad proof"},
		"an unproven no": {noteID, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(400)
			_, _ = w.Write([]byte(`{"error":"RecordNotFound"}`))
		}, exitVerification, "unproven"},
		"another's name": {"test.alice.wrong", truth.proofs(t), exitFailure, "says that it is"},
		"a proven no":    {"test.alice.none", truth.proofs(t), exitFailure, "absence is proven"},
	} {
		t.Run(name, func(t *testing.T) {
			home := ownHome(t)
			t.Chdir(home)
			l := newLiar(t)
			l.methods["com.atproto.sync.getRecord"] = c.serve
			for _, args := range [][]string{{"lex", "resolve", string(c.id)}, {"lex", "pull", string(c.id)}, {"lex", "install", string(c.id)}} {
				code, _, errs := l.baro(t, args...)
				want := c.stderr
				if c.code == exitOK && args[1] != "resolve" {
					want = ""
				}
				if code != c.code || !strings.Contains(errs, want) {
					t.Errorf("%v: exit code %d, want %d: %s", args, code, c.code, errs)
				}
			}
			_, err := os.Stat(filepath.Join(home, "lexicons", "test"))
			if there := err == nil; there != (c.code == exitOK) {
				t.Errorf("schemas were written: %v", there)
			}
			if _, err := os.Stat(filepath.Join(home, manifestName)); (err == nil) != (c.code == exitOK) {
				t.Errorf("the manifest: %v", err)
			}
		})
	}
}

// TestLexPublishLies publishes at a PDS that refuses, or says that it has done what it hasn't.
func TestLexPublishLies(t *testing.T) {
	defer func(d time.Duration) { confirmTime = d }(confirmTime)
	confirmTime = 300 * time.Millisecond
	empty := newLexRepo(t, repotest.DID, map[syntax.NSID]string{"test.alice.other": schemaText("test.alice.other", "")})
	later := syntax.NewTID(repotest.Rev.Micros()+1, 0)
	for name, c := range map[string]struct {
		answer string
		status int
		stderr string
	}{
		"somebody else":      {`{"error":"InvalidSwap","message":"the commit is another one"}`, 400, "somebody else wrote to the repository just now"},
		"a full disk":        {`{"error":"NotEnoughResources"}`, 503, "writing to the repository"},
		"a lie":              {fmt.Sprintf(`{"commit":{"cid":%q,"rev":%q},"results":[]}`, cidOf([]byte{0xa0}), later), 200, "it was written, but is not what others see"},
		"a lie without rev":  {`{"results":[]}`, 200, "it was written, but is not what others see"},
		"a nonsensical rev":  {fmt.Sprintf(`{"commit":{"cid":%q,"rev":"x"},"results":[]}`, cidOf([]byte{0xa0})), 200, "bad revision"},
		"something else":     {`<html>`, 200, "writing to the repository"},
		"an expired session": {`{"error":"ExpiredToken"}`, 400, "writing to the repository"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(ownHome(t))
			t.Setenv("BARO_PASSWORD", "secret")
			l := newLiar(t)
			asked := 0
			json := func(status int, text string) http.HandlerFunc {
				return func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(status)
					_, _ = w.Write([]byte(text))
				}
			}
			l.methods["com.atproto.server.createSession"] = json(200, fmt.Sprintf(`{"did":%q,"handle":"alice.test","accessJwt":"a.b.c","refreshJwt":"d.e.f"}`, repotest.DID))
			l.methods["com.atproto.server.deleteSession"] = json(200, `{}`)
			l.methods["com.atproto.sync.getRecord"] = empty.proofs(t)
			l.methods["com.atproto.sync.getLatestCommit"] = json(200, fmt.Sprintf(`{"cid":%q,"rev":%q}`, cidOf(empty.u.Block), repotest.Rev))
			l.methods["com.atproto.repo.applyWrites"] = func(w http.ResponseWriter, r *http.Request) {
				asked++
				b, _ := io.ReadAll(r.Body)
				if !bytes.Contains(b, []byte(`"swapCommit":"`+cidOf(empty.u.Block).String()+`"`)) {
					t.Errorf("nothing keeps others out: %s", b)
				}
				json(c.status, c.answer)(w, r)
			}
			if code, _, errs := baro(t, "lex", "new", "record", string(noteID)); code != exitOK {
				t.Fatal(errs)
			}
			code, out, errs := l.baro(t, "lex", "publish", "--username", "alice.test")
			if code == exitOK || !strings.Contains(errs, c.stderr) || strings.Contains(out, "live") || asked != 1 {
				t.Errorf("exit code %d, asked %d times: %s%s", code, asked, out, errs)
			}
		})
	}
}

// TestLexCircles pulls schemas that refer to each other in circles, and to one that isn't there.
func TestLexCircles(t *testing.T) {
	home := ownHome(t)
	t.Chdir(home)
	ref := func(id string) string { return fmt.Sprintf(`"x":{"type":"ref","ref":%q}`, id) }
	l := newLiar(t)
	l.methods["com.atproto.sync.getRecord"] = newLexRepo(t, repotest.DID, map[syntax.NSID]string{
		"test.alice.one": schemaText("test.alice.one", ref("test.alice.two")), "test.alice.two": schemaText("test.alice.two", ref("test.alice.three")),
		"test.alice.three": schemaText("test.alice.three", ref("test.alice.one")), "test.alice.lost": schemaText("test.alice.lost", ref("test.alice.nowhere")),
	}).proofs(t)
	if code, out, errs := l.baro(t, "lex", "pull", "test.alice.one"); code != exitOK || strings.Count(out, "wrote") != 3 {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
	if code, _, errs := l.baro(t, "lex", "lint"); code != exitOK {
		t.Logf("lint: %s", errs) // style may be found wanting, references may not
		if code, out, _ := l.baro(t, "lex", "lint", "--lint-level", "error"); code != exitOK {
			t.Errorf("exit code %d: %s", code, out)
		}
	}
	// What is there is kept, and what isn't is told.
	code, out, errs := l.baro(t, "lex", "pull", "test.alice.lost")
	if code != exitFailure || !strings.Contains(out, "test.alice.lost") || !strings.Contains(errs, "test.alice.nowhere") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
	if code, out, _ := l.baro(t, "lex", "lint", "lexicons/test/alice/lost.json", "--lint-level", "error"); code != exitFailure || !strings.Contains(out, "test.alice.nowhere") {
		t.Errorf("exit code %d: %s", code, out)
	}
	// The npm format is all or nothing.
	if code, _, _ := l.baro(t, "lex", "install", "test.alice.lost", "--lexicons", "npm"); code != exitFailure {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Stat("npm"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half of it was installed: %v", err)
	}
}

// TestLexFiles reads what is no schema, however large and however it is called.
func TestLexFiles(t *testing.T) {
	home := ownHome(t)
	t.Chdir(home)
	dir := filepath.Join(home, "lexicons")
	deep := `{"type":"array","items":`
	for name, text := range map[string]string{
		"large.json":          `{"lexicon":1,"id":"com.example.large","description":"` + strings.Repeat("x", 10<<20) + `"}`,
		"deep.json":           schemaText("com.example.deep", `"x":`+strings.Repeat(deep, 200_0)+`{"type":"string"}`+strings.Repeat("}", 200_0)),
		"empty.json":          "",
		"page.json":           "<html>",
		"binary.json":         "\x00\xff\xfe",
		"alike.json":          schemaText("com.exаmple.note", ""),
		"twice.json":          `{"lexicon":1,"lexicon":1,"id":"com.example.twice","defs":{"main":{"type":"token"}}}`,
		".hidden/x.json":      "not looked at",
		"node_modules/x.json": "not looked at",
		"lock.json":           "not looked at",
		"README.md":           "not looked at",
	} {
		if err := writeFile(filepath.Join(dir, name), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(dir, filepath.Join(dir, "loop")); err != nil {
		t.Fatal(err)
	}
	code, out, errs := baro(t, "lex", "parse", dir)
	if code != exitFailure || !strings.Contains(errs, "7 of 7 files") || len(out) > 10_000 || strings.Contains(out, "not looked at") {
		t.Errorf("exit code %d: %.2000s%s", code, out, errs)
	}
	if code, out, _ := baro(t, "lex", "lint", "--offline", "--json"); code != exitFailure || strings.Count(out, "\n") < 7 || !strings.Contains(out, `"rule":"schema-json-parse"`) {
		t.Errorf("exit code %d: %.2000s", code, out)
	}
	for _, args := range [][]string{{"status"}, {"diff"}, {"check-dns"}, {"publish"}} {
		if code, _, errs := baro(t, append([]string{"lex"}, args...)...); code != exitFailure || !strings.Contains(errs, "baro lex lint") {
			t.Errorf("%v: exit code %d: %s", args, code, errs)
		}
	}
	// Two files of one name.
	two := filepath.Join(home, "two")
	for _, name := range []string{"a.json", "b.json"} {
		if err := writeFile(filepath.Join(two, name), []byte(schemaText("com.example.note", ""))); err != nil {
			t.Fatal(err)
		}
	}
	if code, _, errs := baro(t, "lex", "status", two); code != exitFailure || !strings.Contains(errs, "are both com.example.note") {
		t.Errorf("exit code %d: %s", code, errs)
	}
	for _, args := range [][]string{
		{"new", "record", "com.exаmple.note"}, {"new", "record", "com.example"}, {"resolve", "com.example.nоte"}, {"unpublish", "x"}, {"pull", "com..*"},
		{"ls", "com."}, {"install", "at://alice.test/app.bsky.feed.post/x"}, {"check-dns", two, "--did", "alice"}, {"validate", "no such thing", "--offline"}, {"lint", "--lint-level", "loud", two},
	} {
		if code, _, errs := baro(t, append([]string{"lex"}, args...)...); code != exitUsage {
			t.Errorf("%v: exit code %d: %s", args, code, errs)
		}
	}
}

// TestLexVariables makes sure that the variables of goat count, after our own and before nothing.
func TestLexVariables(t *testing.T) {
	home := ownHome(t)
	t.Chdir(home)
	origin := func() string {
		t.Helper()
		code, out, errs := baro(t, "config", "lex", "new", "--json")
		if code != exitOK {
			t.Fatal(errs)
		}
		for line := range strings.Lines(out) {
			var row struct{ Key, Value, From string }
			if err := json.Unmarshal([]byte(line), &row); err != nil {
				t.Fatal(err)
			}
			if row.Key == "lexicons-dir" {
				return row.Value + " " + row.From
			}
		}
		return ""
	}
	if got := origin(); got != "lexicons default" {
		t.Error(got)
	}
	t.Setenv("LEXICONS_DIR", "theirs")
	if got := origin(); got != "theirs LEXICONS_DIR" {
		t.Error(got)
	}
	if code, out, errs := baro(t, "lex", "new", "record", "com.example.note"); code != exitOK || out != filepath.Join("theirs", "com", "example", "note.json")+"\n" {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
	t.Setenv("BARO_LEXICONS_DIR", "ours")
	if got := origin(); got != "ours BARO_LEXICONS_DIR" {
		t.Error(got)
	}
}

// TestLexTemplates makes sure that nobody who begins with a template is told off for it.
func TestLexTemplates(t *testing.T) {
	names := map[string]syntax.NSID{
		"record": "com.example.note", "query": "com.example.getNote", "query-view": "com.example.getNoteView", "query-list": "com.example.listNotes",
		"procedure": "com.example.createNote", "subscription": "com.example.subscribeNotes", "permission-set": "com.example.authNotes", "defs": "com.example.defs",
	}
	var files []lexlint.File
	for _, tpl := range lexTemplates {
		b, err := lexFromTemplate(tpl.name, names[tpl.name])
		if err != nil {
			t.Errorf("%s: %v", tpl.name, err)
			continue
		}
		if s, err := lexicon.ParseSchema(b); err != nil || s.ID != names[tpl.name] || bytes.Contains(b, []byte("NAME")) || bytes.Contains(b, []byte("GROUP")) {
			t.Errorf("%s: %v\n%s", tpl.name, err, b)
		}
		files = append(files, lexlint.File{Path: filepath.ToSlash(lexPath("lexicons", names[tpl.name])), JSON: b})
	}
	for _, f := range lexlint.Lint(files, lexlint.Options{}) {
		if f.Level == lexlint.Info {
			t.Log(f)
			continue
		}
		t.Error(f)
	}
}

// TestSchemaText writes all schemas that come with this program in both ways, and reads the same again.
func TestSchemaText(t *testing.T) {
	n := 0
	err := fs.WalkDir(lexicons.FS, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(name) != ".json" || filepath.Base(name) == "lock.json" {
			return err
		}
		n++
		b, err := lexicons.FS.ReadFile(name)
		if err != nil {
			return err
		}
		s, err := lexicon.ParseSchema(b)
		if err != nil {
			return err
		}
		for what, write := range map[string]func([]byte) ([]byte, error){"pretty": prettySchema, "npm": func(raw []byte) ([]byte, error) { return indentRecord(raw) }} {
			text, err := write(s.Raw)
			if err != nil {
				t.Fatalf("%s: %s: %v", name, what, err)
			}
			again, err := lexicon.ParseSchema(text)
			if err != nil || !bytes.Equal(again.Raw, s.Raw) {
				t.Errorf("%s: %s: %v", name, what, err)
			}
		}
		record, err := recordOf(s)
		if err != nil {
			return err
		}
		if _, err := lexres.ParseRecord(s.ID, record); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if same, err := samePublished(s, cidOf(record)); err != nil || !same {
			t.Errorf("%s is not itself: %v", name, err)
		}
		return nil
	})
	if err != nil || n < 300 {
		t.Errorf("%d schemas, %v", n, err)
	}
}

func TestPrettySchema(t *testing.T) {
	s, err := lexicon.ParseSchema([]byte(`{"id":"com.example.defs","lexicon":1,"defs":{"zeta":{"type":"object","properties":{"type":{"type":"string","maxLength":9,"description":"<b>&"},"id":{"type":"array","items":{"type":"integer"}}},"required":["id"]},"main":{"type":"token"}},"$type":"com.atproto.lexicon.schema"}`))
	if err != nil {
		t.Fatal(err)
	}
	got, err := prettySchema(s.Raw)
	const want = `{
  "$type": "com.atproto.lexicon.schema",
  "lexicon": 1,
  "id": "com.example.defs",
  "defs": {
    "main": {
      "type": "token"
    },
    "zeta": {
      "type": "object",
      "required": [
        "id"
      ],
      "properties": {
        "id": {
          "type": "array",
          "items": {
            "type": "integer"
          }
        },
        "type": {
          "type": "string",
          "description": "<b>&",
          "maxLength": 9
        }
      }
    }
  }
}
`
	if err != nil || string(got) != want {
		t.Errorf("%v\n%s", err, got)
	}
}

const manifestText = `{
  "version": 1,
  "lexicons": [
    "app.bsky.actor.profile",
    "com.example.note"
  ],
  "resolutions": {
    "app.bsky.actor.profile": {
      "uri": "at://did:plc:4v4y5r3lwsbtmsxhile2ljac/com.atproto.lexicon.schema/app.bsky.actor.profile",
      "cid": "bafyreia6umzg3a6d7mjbow4p57tviey45muohklhgsvjoamcctoiusr4pe"
    },
    "com.example.note": {
      "uri": "at://did:web:example.com/com.atproto.lexicon.schema/com.example.note",
      "cid": "bafyreibsxa3prdgatonsuzrwauswwufjoeu6swtlqfi3e443jauz5n6cpq"
    }
  }
}
`

func TestManifest(t *testing.T) {
	for _, text := range []string{manifestText, "{\n  \"version\": 1,\n  \"lexicons\": [],\n  \"resolutions\": {}\n}\n",
		strings.Replace(manifestText, "\n  }\n}\n", "\n  },\n  \"resolvers\": [\n    {\n      \"type\": \"directory\"\n    }\n  ]\n}\n", 1)} {
		m, err := parseManifest([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := m.encode(); err != nil || string(b) != text {
			t.Errorf("%v\n%s", err, b)
		}
	}
	// Whatever the order was, it is written in one.
	mixed := strings.Replace(manifestText, "\"app.bsky.actor.profile\",\n    \"com.example.note\"", `"com.example.note","app.bsky.actor.profile","com.example.note"`, 1)
	m, err := parseManifest([]byte(mixed))
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := m.encode(); string(b) != manifestText {
		t.Errorf("%s", b)
	}
	for name, bad := range map[string]string{
		"nothing": "", "no version": `{"lexicons":[],"resolutions":{}}`, "version 2": `{"version":2,"lexicons":[],"resolutions":{}}`, "no list": `{"version":1,"resolutions":{}}`,
		"no resolutions": `{"version":1,"lexicons":[]}`, "not an NSID": strings.ReplaceAll(manifestText, "com.example.note", "com.exаmple.note"),
		"no uri": strings.Replace(manifestText, "at://did:web", "https://did:web", 1), "no cid": strings.Replace(manifestText, "bafyreia6", "x", 1),
	} {
		if _, err := parseManifest([]byte(bad)); err == nil {
			t.Errorf("%s was read", name)
		}
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(manifestText))
	f.Add([]byte(`{"version":1,"lexicons":null,"resolutions":null,"x":{"y":[]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseManifest(b)
		if err != nil {
			return
		}
		text, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseManifest(text)
		if err != nil || !again.equal(m) {
			t.Errorf("%v\n%s", err, text)
		}
		if second, err := again.encode(); err != nil || !bytes.Equal(second, text) {
			t.Errorf("written twice, it differs: %v\n%s\n%s", err, text, second)
		}
	})
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	real := filepath.Join(dir, "real.json")
	if err := os.WriteFile(real, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link.json")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(link, []byte("new")); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(real)
	info, _ := os.Lstat(link)
	mode, _ := os.Stat(real)
	if string(b) != "new" || info.Mode()&fs.ModeSymlink == 0 || mode.Mode().Perm() != 0o600 {
		t.Errorf("%q, %v, %v", b, info.Mode(), mode.Mode())
	}
	if err := writeFile(filepath.Join(real, "x"), nil); err == nil {
		t.Error("written below a file")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestCompareJSON(t *testing.T) {
	cbor := func(s string) []byte {
		b, err := data.AppendCBOR(nil, []byte(s))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	got, err := jsonChanges(cbor(`{"a":1,"b":{"c":[1,2],"d":"x"},"e":null}`), cbor(`{"b":{"c":[1,3],"d":{"y":1}},"e":null,"f":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := json.Marshal(got)
	const want = `[{"op":"remove","path":"a","old":1},{"op":"replace","path":"b.c[1]","old":2,"new":3},{"op":"replace","path":"b.d","old":"x","new":{"y":1}},{"op":"add","path":"f","new":[]}]`
	if string(b) != want {
		t.Errorf("%s", b)
	}
}
