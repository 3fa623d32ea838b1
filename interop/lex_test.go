package interop

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestNpmLex publishes schemas and has the npm tool @atproto/lex install them, with the proofs that it checks: its files and its manifest
// are ours, byte for byte, and each tool goes on with what the other one wrote.
func TestNpmLex(t *testing.T) {
	node := node(t)
	n := start(t)
	dir := t.TempDir()
	c := &cli{bin: n.bin, home: filepath.Join(dir, "home"), env: []string{"BARO_PLC=" + n.PLC, "BARO_PDS=" + n.PDS, "BARO_PASSWORD=lex-long-password"}}
	baro := func(folder string, args ...string) {
		t.Helper()
		c.dir = filepath.Join(dir, folder)
		if err := os.MkdirAll(c.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		c.run(t, args...)
	}
	npm := func(folder string, args ...string) (equal bool) {
		t.Helper()
		cmd := exec.Command(node, append(append([]string{"lex.mjs", filepath.Join(dir, folder)}, args...), strings.TrimSpace(n.line))...)
		cmd.Dir = "clients"
		var out, log bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &log
		if err := cmd.Run(); err != nil {
			t.Fatalf("lex.mjs: %v\n%s", err, log.Bytes())
		}
		var o struct{ Equal bool }
		if err := json.Unmarshal(out.Bytes(), &o); err != nil {
			t.Fatalf("lex.mjs printed %q: %v", out.Bytes(), err)
		}
		return o.Equal
	}

	baro("author", "account", "create", "npm-author.test")
	for template, name := range map[string]string{"record": "note", "query-view": "getNote", "defs": "defs", "query-list": "listNotes", "procedure": "createNote", "subscription": "subscribeNotes"} {
		baro("author", "lex", "new", template, "test.npm-author."+name)
	}
	file := filepath.Join(dir, "author", "lexicons", "test", "npm-author", "getNote.json")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.Replace(b, []byte(`"type": "unknown"`), []byte(`"type": "ref", "ref": "test.npm-author.note"`), 1)
	b = bytes.Replace(b, []byte("Record of"), []byte("<b>&\u2028 „Größe“ 🌡"), 1)
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	baro("author", "lex", "publish")

	const root = "test.npm-author.getNote"
	baro("ours", "lex", "install", root)
	if err := os.MkdirAll(filepath.Join(dir, "theirs"), 0o700); err != nil {
		t.Fatal(err)
	}
	npm("theirs", root)
	ours, theirs := files(t, filepath.Join(dir, "ours")), files(t, filepath.Join(dir, "theirs"))
	if len(ours) != 3 || len(theirs) != 3 {
		t.Errorf("%d files of ours, %d of theirs; want 3: two schemas and the manifest", len(ours), len(theirs))
	}
	for name, b := range theirs {
		if ours[name] != b {
			t.Errorf("%s is not the same:\n%s\n%s", name, ours[name], b)
		}
	}
	// Each goes on with what the other one wrote.
	if !npm("ours") {
		t.Error("the npm tool finds our manifest out of date")
	}
	baro("theirs", "lex", "install", "--ci")
	if err := os.RemoveAll(filepath.Join(dir, "theirs", "lexicons")); err != nil {
		t.Fatal(err)
	}
	baro("theirs", "lex", "install", "--ci")
	baro("theirs", "lex", "install", "test.npm-author.subscribeNotes")
	npm("ours", "test.npm-author.subscribeNotes")
	ours, theirs = files(t, filepath.Join(dir, "ours")), files(t, filepath.Join(dir, "theirs"))
	for name, b := range theirs {
		if ours[name] != b {
			t.Errorf("after the other tool's turn, %s is not the same:\n%s\n%s", name, ours[name], b)
		}
	}
}

// files reads a folder.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, p))
		out[p] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
