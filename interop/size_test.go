package interop

import (
	"io/fs"
	"os"
	"os/exec"
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
