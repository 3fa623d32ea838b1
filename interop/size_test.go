package interop

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/barograph/baro/internal/lexgen"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/lexicons"
	"github.com/barograph/baro/syntax"
)

var schemaLine = regexp.MustCompile(`(?m)^// Lexicon schema: (\S+)$`)

// TestGeneratedSize holds the generated packages to a quarter of indigo's, in bytes of source, over the lexicons that both
// have. Indigo's are all generated files under api and api-ext: types, methods and CBOR codecs. The hand-written variants in
// api/agnostic are left out, though they serve the same lexicons.
func TestGeneratedSize(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/bluesky-social/indigo").Output()
	if err != nil {
		t.Fatal(err)
	}
	cat := lexicon.NewCatalog()
	if err := cat.AddFS(lexicons.FS); err != nil {
		t.Fatal(err)
	}
	theirs := 0
	var ids []string
	seen := map[string]bool{}
	indigo := os.DirFS(strings.TrimSpace(string(dir)))
	for _, top := range []string{"api", "api-ext"} {
		err := fs.WalkDir(indigo, top, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			b, err := fs.ReadFile(indigo, path)
			if err != nil || !strings.Contains(string(b[:min(len(b), 200)]), "DO NOT EDIT") {
				return err
			}
			theirs += len(b)
			if m := schemaLine.FindSubmatch(b); m != nil && !seen[string(m[1])] {
				seen[string(m[1])] = true
				ids = append(ids, string(m[1]))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range ids {
		if cat.Schema(syntax.NSID(id)) == nil {
			t.Errorf("indigo has %s and this module hasn't: the comparison is off", id)
		}
	}
	size := func(nsids []string) (n int) {
		files, err := lexgen.Generate(lexgen.Config{Catalog: cat, NSIDs: nsids, Module: "github.com/barograph/baro/api"})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			n += len(f.Data)
		}
		return n
	}
	ours := size(ids)
	share := float64(ours) / float64(theirs)
	t.Logf("%d lexicons: %d bytes, indigo %d: %.2f %%; all %d lexicons: %d bytes", len(ids), ours, theirs, 100*share, len(cat.NSIDs()), size(nil))
	if len(ids) < 370 {
		t.Errorf("only %d lexicons in common", len(ids))
	}
	if share >= 0.25 {
		t.Errorf("%.2f %% of indigo's, want less than 25", 100*share)
	}
}

// program is what a user of some packages links.
type program struct {
	name   string
	source string
	most   float64 // bytes, in millions
	// packages outside the standard library, of which others are third parties'
	packages, others int
}

// The first is the bare client, which calls any method with any credentials; its bounds are what was promised. The others hold the
// present state, with some air in the bytes: who needs more says so here.
var programs = []program{
	{"any method, xrpc and comatproto", `package main

import (
	"context"
	"fmt"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/xrpc"
)

func main() {
	c := &xrpc.Client{Host: "https://pds.example", Auth: xrpc.Bearer("token")}
	out, err := comatproto.RepoListRecords.Call(context.Background(), c, &comatproto.RepoListRecords_Params{Repo: "alice.test", Collection: "app.bsky.feed.post"})
	fmt.Println(out, err)
}
`, 10, 14, 0},
	{"sessions kept alive, auth", `package main

import (
	"context"
	"fmt"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
)

func main() {
	a, err := auth.New(auth.Options{}).Login(context.Background(), "https://pds.example", auth.Credentials{Identifier: "alice.test", Password: "…"})
	if err == nil {
		fmt.Println(comatproto.ServerGetSession.Call(context.Background(), a.Client(), nil))
	}
}
`, 11, 20, 7},
	{"verified records by name, client", `package main

import (
	"context"
	"fmt"

	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
)

func main() {
	fmt.Println(client.Fetch[data.Raw](context.Background(), "at://alice.test/app.bsky.feed.post/1", client.FetchOptions{}))
}
`, 11.5, 28, 8},
	{"the bot, bsky", `package main

import (
	"context"
	"fmt"

	"github.com/barograph/baro/bsky"
)

func main() {
	c, err := bsky.Login(context.Background(), "alice.test", "…", bsky.Options{})
	if err == nil {
		fmt.Println(c.Post(context.Background(), bsky.Post{Text: "hello"}))
	}
}
`, 12.5, 33, 10},
}

// indigo's bare client, for comparison.
const indigoClient = `package main

import (
	"context"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/atclient"
)

func main() {
	c, err := atclient.LoginWithPasswordHost(context.Background(), "https://pds.example", "alice.test", "…", "", nil)
	if err == nil {
		var out any
		fmt.Println(c.Get(context.Background(), "com.atproto.server.getSession", nil, &out), out)
	}
}
`

// link builds a program as a user does, and returns its size in bytes, and the packages in it that aren't the standard library's.
func link(t *testing.T, source string) (size int64, packages []string) {
	t.Helper()
	dir, err := os.MkdirTemp(".", "size-") // in this module, for its dependencies
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(t.TempDir(), "program")
	build := exec.Command("go", "build", "-o", bin, "./"+dir)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	info, err := os.Stat(bin)
	if err != nil {
		t.Fatal(err)
	}
	list := exec.Command("go", "list", "-deps", "-f", "{{if and (not .Standard) (ne .Name \"main\")}}{{.ImportPath}}{{end}}", "./"+dir)
	list.Env = build.Env
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	return info.Size(), strings.Fields(string(out))
}

// TestProgramSize holds what the packages of the SDK link to bounds.
func TestProgramSize(t *testing.T) {
	size, packages := link(t, indigoClient)
	t.Logf("indigo's bare client: %.2f MB, %d packages outside the standard library", float64(size)/1e6, len(packages))
	for _, p := range programs {
		size, packages := link(t, p.source)
		others := 0
		for _, path := range packages {
			if !strings.HasPrefix(path, "github.com/barograph/baro/") {
				others++
			}
		}
		t.Logf("%s: %.2f MB, %d packages outside the standard library, %d of third parties", p.name, float64(size)/1e6, len(packages), others)
		if float64(size)/1e6 >= p.most || len(packages) > p.packages || others > p.others {
			t.Errorf("%s: %d bytes, want less than %.1f million; %d packages outside the standard library, want at most %d; %d of third parties, want at most %d: %v",
				p.name, size, p.most, len(packages), p.packages, others, p.others, packages)
		}
	}
}
