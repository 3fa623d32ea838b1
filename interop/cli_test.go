package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/barograph/baro/interop/refpds"
)

// built is the program baro, built once.
var built struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// build returns the path of the program baro.
func build(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "baro-interop-"); built.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-o", filepath.Join(built.dir, "baro"), "./cmd/baro")
		cmd.Dir = ".." // the main module, with its own dependencies
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = errors.New(err.Error() + "\n" + string(out))
		}
	})
	if built.err != nil {
		t.Fatalf("building baro: %v", built.err)
	}
	return filepath.Join(built.dir, "baro")
}

// cli runs commands as one user.
type cli struct {
	bin  string
	home string // of sessions and settings
	dir  string // working directory
	env  []string
}

// newCLI returns a user whose commands ask the given servers.
func newCLI(t *testing.T, plc, pds, password string) *cli {
	t.Helper()
	return &cli{bin: build(t), home: t.TempDir(), dir: t.TempDir(), env: []string{"BARO_PLC=" + plc, "BARO_PDS=" + pds, "BARO_PASSWORD=" + password}}
}

// commandTimeout is how long a command may take.
const commandTimeout = 2 * time.Minute

// code runs a command, and returns its exit code and what it printed.
func (c *cli) code(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.bin, args...)
	cmd.Dir = c.dir
	for _, v := range []string{"HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"} {
		cmd.Env = append(cmd.Env, v+"="+filepath.Join(c.home, v))
	}
	cmd.Env = append(append(cmd.Env, "BARO_NETWORK=public"), c.env...)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), out.String(), log.String()
	}
	if err != nil {
		t.Fatalf("baro %s: %v", strings.Join(args, " "), err)
	}
	return 0, out.String(), log.String()
}

// run runs a command that has to succeed, and returns what it printed.
func (c *cli) run(t *testing.T, args ...string) string {
	t.Helper()
	code, out, log := c.code(t, args...)
	if code != 0 {
		t.Fatalf("baro %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, log)
	}
	return out
}

// json runs a command that has to succeed, and reads the JSON that it printed.
func (c *cli) json(t *testing.T, out any, args ...string) {
	t.Helper()
	text := c.run(t, append(args, "--json")...)
	if err := json.Unmarshal([]byte(text), out); err != nil {
		t.Fatalf("baro %s printed %q: %v", strings.Join(args, " "), text, err)
	}
}

// fails runs a command that has to fail with a code and a word about it.
func (c *cli) fails(t *testing.T, want int, word string, args ...string) {
	t.Helper()
	code, _, log := c.code(t, args...)
	if code != want || !strings.Contains(log, word) {
		t.Errorf("baro %s: exit code %d, want %d and %q:\n%s", strings.Join(args, " "), code, want, word, log)
	}
}

// file writes a file into the working directory.
func (c *cli) file(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// The commands that a user of the reference PDS needs.
func TestCommands(t *testing.T) {
	pds := refpds.Start(t, refpds.Options{})
	c := newCLI(t, pds.PLC, pds.URL, "cli-long-password")
	c.run(t, "account", "create", "cli-anna.test", "--email", "anna@example.com")
	c.run(t, "account", "create", "cli-bert.test", "--email", "bert@example.com")
	c.run(t, "account", "logout", "cli-anna.test")
	c.fails(t, 1, "", "record", "ls", "nobody.test")
	c.env = append(c.env, "BARO_PASSWORD=wrong")
	c.fails(t, 1, "Invalid identifier or password", "account", "login", "cli-anna.test")
	c.env = c.env[:len(c.env)-1]
	c.run(t, "account", "login", "cli-anna.test")
	var sessions []string
	for line := range strings.Lines(c.run(t, "account", "ls", "--json")) {
		var s struct{ Handle, PDS string }
		if err := json.Unmarshal([]byte(line), &s); err != nil || s.PDS != pds.URL {
			t.Errorf("a session is %s", line)
		}
		sessions = append(sessions, s.Handle)
	}
	if slices.Sort(sessions); !slices.Equal(sessions, []string{"cli-anna.test", "cli-bert.test"}) {
		t.Errorf("logged in are %v", sessions)
	}
	var id struct{ DID string }
	c.json(t, &id, "account", "check-auth")
	did := id.DID
	if got := strings.TrimSpace(c.run(t, "resolve", "--did", "cli-anna.test")); got != did {
		t.Errorf("the handle resolves to %q, the session is of %q", got, did)
	}
	var status struct{ Active bool }
	if c.json(t, &status, "account", "status", "cli-anna.test"); !status.Active {
		t.Error("the account is not active")
	}

	// Records.
	c.file(t, "note.json", []byte(`{"$type":"com.example.note","text":"first","n":1}`))
	c.file(t, "other.json", []byte(`{"$type":"com.example.note","text":"second"}`))
	c.run(t, "record", "create", "note.json", "--rkey", "one")
	c.fails(t, 1, "", "record", "create", "note.json", "--rkey", "one")
	c.run(t, "record", "create", "note.json")
	c.run(t, "record", "update", "other.json", "--rkey", "one")
	got := c.run(t, "record", "get", "at://cli-anna.test/com.example.note/one", "--verify")
	if !strings.Contains(got, `"second"`) {
		t.Errorf("the record is %s", got)
	}
	if got := c.run(t, "ls", "cli-anna.test", "com.example.note"); strings.Count(got, "\n") < 2 {
		t.Errorf("the list is %q", got)
	}
	c.run(t, "record", "delete", "--collection", "com.example.note", "--rkey", "one")
	c.fails(t, 1, "", "record", "get", "at://cli-anna.test/com.example.note/one", "--verify")

	// Blobs.
	pic := picture(t, 80, 60)
	c.file(t, "pic.png", pic)
	var blob struct {
		Ref struct {
			Link string `json:"$link"`
		}
		Size int
	}
	c.json(t, &blob, "blob", "upload", "pic.png")
	if blob.Size != len(pic) {
		t.Errorf("the blob is %+v", blob)
	}
	var post struct{ URI string }
	c.json(t, &post, "bsky", "post", "sieh da, @cli-bert.test #Wetter", "--image", "pic.png", "--alt", "Punkte", "--lang", "de")
	if got := c.run(t, "get", post.URI, "--verify"); !strings.Contains(got, "facet#mention") || !strings.Contains(got, blob.Ref.Link) {
		t.Errorf("the post is %s", got)
	}
	c.json(t, &post, "bsky", "post", "und noch eins", "--reply-to", post.URI, "--as", "cli-bert.test")
	if got := c.run(t, "blob", "ls", "cli-anna.test"); strings.TrimSpace(got) != blob.Ref.Link {
		t.Errorf("the blobs are %q, want %s", got, blob.Ref.Link)
	}
	c.run(t, "blob", "export", "cli-anna.test", "--output", "blobs")
	kept, err := filepath.Glob(filepath.Join(c.dir, "blobs", "*"+blob.Ref.Link+"*"))
	if err != nil || len(kept) != 1 {
		t.Errorf("the export of the blobs has %v, %v", kept, err)
	} else if b, err := os.ReadFile(kept[0]); err != nil || !bytes.Equal(b, pic) {
		t.Errorf("the exported blob is another, %v", err)
	}
	c.file(t, "prefs.json", []byte(`{"preferences":[{"$type":"app.bsky.actor.defs#adultContentPref","enabled":true}]}`))
	c.run(t, "bsky", "prefs", "import", "prefs.json")
	if got := c.run(t, "bsky", "prefs", "export"); !strings.Contains(got, "adultContentPref") {
		t.Errorf("the preferences are %s", got)
	}

	// The whole repository, out and in again.
	c.run(t, "repo", "export", "cli-anna.test")
	c.run(t, "repo", "verify", "cli-anna.test.car")
	c.run(t, "repo", "verify", "cli-anna.test")
	before := c.run(t, "repo", "ls", "cli-anna.test.car")
	if strings.Count(before, "\n") != 2 {
		t.Errorf("the repository has %q", before)
	}
	if _, rkey, ok := strings.Cut(before, "com.example.note/"); ok {
		c.run(t, "record", "delete", "--collection", "com.example.note", "--rkey", strings.Fields(rkey)[0])
	}
	c.run(t, "repo", "import", "cli-anna.test.car")
	c.run(t, "repo", "export", "cli-anna.test", "--output", "after.car")
	if after := c.run(t, "repo", "ls", "after.car"); after != before {
		t.Errorf("after the import the repository has %q, want %q", after, before)
	}
	c.run(t, "repo", "verify", "after.car")

	// All that happened, verified on the way: four events for each new account, and a commit for each of seven writes. The
	// reference PDS tells nobody of an import.
	lines := c.run(t, "firehose", "--relay", pds.URL, "--verify", "--strict", "--cursor", "0", "--limit", "15")
	if strings.Count(lines, "\n") != 15 || strings.Contains(lines, `"verified":false`) || !strings.Contains(lines, `"verified":true`) {
		t.Errorf("the firehose is\n%s", lines)
	}

	token := strings.TrimSpace(c.run(t, "account", "service-auth", "--audience", "did:web:feed.example", "--endpoint", "app.bsky.feed.getFeedSkeleton"))
	if strings.Count(token, ".") != 2 {
		t.Errorf("the service token is %q", token)
	}
	c.run(t, "account", "update-handle", "cli-renamed.test")
	if got := strings.TrimSpace(c.run(t, "resolve", "--did", "cli-renamed.test")); got != did {
		t.Errorf("the new handle resolves to %q", got)
	}
	c.run(t, "account", "deactivate")
	if c.json(t, &status, "account", "status", did); status.Active {
		t.Error("the account is active after its deactivation")
	}
	c.run(t, "account", "activate")
	c.run(t, "account", "logout")
	c.fails(t, 1, "account login", "record", "create", "note.json", "--as", did)
}
