package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/barograph/baro/devnet"
)

func TestInvocation(t *testing.T) {
	dir := t.TempDir()
	exe := filepath.Join(dir, "baro")
	other := filepath.Join(dir, "other")
	for _, name := range []string{exe, other} {
		if err := os.WriteFile(name, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const module = "github.com/barograph/baro/cmd/baro"
	cached := "/home/x/.cache/go-build/c6/" + strings.Repeat("0f", 32) + "-d/baro"
	for _, c := range []struct {
		exe, onPath string
		source      bool
		want, where string
	}{
		{exe, exe, true, "baro", ""},
		{exe, other, true, exe, ""},
		{exe, "", false, exe, ""},
		{"/tmp/go-build2738490634/b001/exe/baro", "", true, "go run ./cmd/baro", " in this folder"},
		{"/tmp/go-build2738490634/b001/exe/baro", other, true, "go run ./cmd/baro", " in this folder"},
		{cached, "", true, "go run ./cmd/baro", " in this folder"},
		{cached, "", false, "go run " + module + "@latest", ""},
		{"/opt/my tools/baro", "", false, "'/opt/my tools/baro'", ""},
	} {
		command, where := invocationOf(c.exe, c.onPath, module, c.source)
		if command != c.want || where != c.where {
			t.Errorf("%s with %q on the path: %q%q, want %q%q", c.exe, c.onPath, command, where, c.want, c.where)
		}
	}
}

func TestShellQuote(t *testing.T) {
	for in, want := range map[string]string{
		"/srv/world": "/srv/world", "/srv/my world": "'/srv/my world'", "it's": `'it'\''s'`, "": "''", "$x": "'$x'", "/srv/Zoë": "/srv/Zoë",
	} {
		if got := shellQuote(in); got != want {
			t.Errorf("%q is quoted as %s, want %s", in, got, want)
		}
	}
}

// TestNextSteps holds the advice to commands that exist: each is parsed as it stands.
func TestNextSteps(t *testing.T) {
	ownHome(t)
	u := devnet.URLs{PLC: "http://localhost:1", PDS: "http://localhost:2", Relay: "http://localhost:3", Links: "http://localhost:4", Explorer: "http://localhost:5"}
	demo := &devnet.Demo{Handle: "ines.test", Post: "at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/app.bsky.feed.post/3l6oveex3ii2l"}
	standard, err := dataDir()
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]upFlags{"standard": {data: standard}, "elsewhere": {data: "world"}, "memory": {memory: true}} {
		for _, d := range []*devnet.Demo{nil, demo} {
			for _, step := range nextSteps(u, d, f) {
				root := newRoot()
				cmd, rest, err := root.Find(strings.Fields(step[1]))
				if err != nil {
					t.Errorf("%s: %q: %v", name, step[1], err)
					continue
				}
				if err := cmd.ParseFlags(rest); err != nil {
					t.Errorf("%s: %q: %v", name, step[1], err)
				}
				if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
					t.Errorf("%s: %q: %v", name, step[1], err)
				}
				if named := strings.Contains(step[1], " --network ") || strings.Contains(step[1], " --plc "); named == (name == "standard") {
					t.Errorf("%s: %q says where: %v", name, step[1], named)
				}
			}
		}
	}

	var out bytes.Buffer
	e := &env{stdout: &out}
	if err := e.printNext(u, nil, upFlags{data: standard}); err != nil {
		t.Fatal(err)
	}
	if s := out.String(); !strings.Contains(s, "account create alice.test") || !strings.HasSuffix(s, "\nPress Ctrl-C to stop.\n") || strings.Contains(s, "Sign in as") {
		t.Errorf("of an empty network:\n%s", s)
	}
}
