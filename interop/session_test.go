package interop

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/bsky"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/interop/refpds"
	"github.com/barograph/baro/syntax"
)

// One session goes from our client to the Python one and back, on the reference PDS and on ours.
func TestSessionStrings(t *testing.T) {
	python := python(t)
	for name, host := range map[string]func() string{
		"reference PDS": func() string { return refpds.Start(t, refpds.Options{}).URL },
		"our PDS":       func() string { return start(t).PDS },
	} {
		t.Run(name, func(t *testing.T) { testSessionStrings(t, python, host()) })
	}
}

type pythonSession struct {
	DID     syntax.DID
	Session string
	URI     syntax.ATURI
	Posts   []string
}

func runPython(t *testing.T, python string, task map[string]string) pythonSession {
	t.Helper()
	arg, err := json.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "clients/session.py", string(arg))
	var log strings.Builder
	cmd.Stderr = &log
	b, err := cmd.Output()
	if err != nil {
		t.Fatalf("session.py: %v\n%s", err, log.String())
	}
	var out pythonSession
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatalf("session.py printed %q: %v", b, err)
	}
	return out
}

func testSessionStrings(t *testing.T, python, pds string) {
	ctx := t.Context()
	account, err := auth.New(auth.Options{}).Create(ctx, pds, &comatproto.ServerCreateAccount_Input{
		Handle: "traveller.test", Email: new("traveller@example.com"), Password: new("a long password"),
	})
	if err != nil {
		t.Fatal(err)
	}
	did := account.DID()
	posts := func() (n int) {
		t.Helper()
		for _, err := range client.List[appbsky.FeedPost](ctx, client.New(pds, client.Options{}), syntax.AtIdentifier(did), client.ListOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		return n
	}
	write := func(c *bsky.Client) {
		t.Helper()
		before := posts()
		if _, err := c.Post(ctx, bsky.Post{Text: "by ours", Plain: true}); err != nil {
			t.Fatal(err)
		}
		if n := posts(); n != before+1 {
			t.Errorf("there are %d posts, were %d", n, before)
		}
	}

	// Ours goes to Python, which reads and writes with it, and gives it back as it was.
	ours := bsky.ForAccount(account, bsky.Options{})
	write(ours)
	text, err := ours.SessionString()
	if err != nil {
		t.Fatal(err)
	}
	if f := strings.Split(text, ":::"); len(f) != 5 || f[0] != "traveller.test" || f[1] != string(did) || f[4] != pds {
		t.Errorf("the session string has the fields %q, %q and %q at %q", f[0], f[1], f[4], pds)
	}
	got := runPython(t, python, map[string]string{"do": "resume", "session": text})
	if got.DID != did || got.Session != text || !slices.Equal(got.Posts, []string{"by the Python client", "by ours"}) {
		t.Errorf("the Python client goes on as %s and sees %q; the string is the same: %v", got.DID, got.Posts, got.Session == text)
	}

	// Python's comes here. Its way of naming the server stays as it is, and ours reads and writes.
	theirs := runPython(t, python, map[string]string{"do": "login", "pds": pds, "handle": "traveller.test", "password": "a long password"})
	s, err := auth.ParseCompatString(theirs.Session)
	if err != nil {
		t.Fatalf("the Python client's string can't be read: %v", err)
	}
	if s.PDS != pds || s.CompatString() != theirs.Session {
		t.Errorf("the Python client's string is of %s; it comes out as it went in: %v", s.PDS, s.CompatString() == theirs.Session)
	}
	imported, err := bsky.Import(ctx, theirs.Session, bsky.Options{})
	if err != nil {
		t.Fatal(err)
	}
	write(imported)
	if p, err := client.Get[appbsky.FeedPost](ctx, imported.PDS(), theirs.URI, client.GetOptions{}); err != nil || p.Value.Text != "by the Python client" {
		t.Errorf("the Python client's post: %+v, %v", p, err)
	}

	// A string that ends with /xrpc, as that client wrote before it stopped to.
	suffixed := strings.TrimSuffix(theirs.Session, "/xrpc") + "/xrpc"
	imported, err = bsky.Import(ctx, suffixed, bsky.Options{})
	if err != nil {
		t.Fatal(err)
	}
	write(imported)
	if again, err := imported.SessionString(); err != nil || again != suffixed {
		t.Errorf("a string that ends with /xrpc doesn't come out as it went in: %v", err)
	}

	// The older form names no server: it is bsky.social's, also there. With the server's name put in, it serves.
	legacy := strings.Join(strings.Split(text, ":::")[:4], ":::")
	if s, err = auth.ParseCompatString(legacy); err != nil || s.PDS != bsky.EntryPDS || s.DID != did {
		t.Fatalf("a string of the older form is read as %v, %v", s, err)
	}
	if got := runPython(t, python, map[string]string{"do": "resume", "session": legacy, "pds": pds}); got.DID != did || got.Session != s.CompatString() {
		t.Errorf("the Python client reads the older form as another session: the string is the same: %v", got.Session == s.CompatString())
	}
	s.PDS = pds
	resumed, err := auth.New(auth.Options{}).Import(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	write(bsky.ForAccount(resumed, bsky.Options{}))

	// What ours has renewed, Python goes on with.
	if err := resumed.Renew(ctx); err != nil {
		t.Fatal(err)
	}
	if got := runPython(t, python, map[string]string{"do": "resume", "session": resumed.Session().CompatString()}); got.DID != did {
		t.Errorf("the Python client goes on as %s after the renewal", got.DID)
	}
}
