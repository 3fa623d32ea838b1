package lexicons_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/lexicons"
)

func Example() {
	b, err := lexicons.Schema("app.bsky.feed.like")
	if err != nil {
		fmt.Println(err)
		return
	}
	var schema struct {
		ID   string
		Defs map[string]struct{ Type, Key string }
	}
	if err := json.Unmarshal(b, &schema); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(schema.ID, schema.Defs["main"].Type, schema.Defs["main"].Key)
	// Output: app.bsky.feed.like record tid
}

// own are the schemas that no upstream has.
var own = map[string]bool{"com.atiproto.actions": true}

// TestLock tells that every schema is in the lock, under its name and with a CID, and the other way round.
func TestLock(t *testing.T) {
	b, err := lexicons.FS.ReadFile("lock.json")
	if err != nil {
		t.Fatal(err)
	}
	var lock struct {
		Commit   string
		Lexicons map[string]string
	}
	if err := json.Unmarshal(b, &lock); err != nil {
		t.Fatal(err)
	}
	if lock.Commit == "" || len(lock.Lexicons) < 402 {
		t.Errorf("commit %q, %d schemas", lock.Commit, len(lock.Lexicons))
	}
	for nsid, c := range lock.Lexicons {
		if _, err := cid.Parse(c); err != nil {
			t.Errorf("%s: %v", nsid, err)
		}
		if _, err := lexicons.Schema(nsid); err != nil {
			t.Error(err)
		}
	}
	err = fs.WalkDir(lexicons.FS, ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || path == "lock.json" {
			return err
		}
		if nsid := strings.ReplaceAll(strings.TrimSuffix(path, ".json"), "/", "."); lock.Lexicons[nsid] == "" && !own[nsid] {
			t.Errorf("%s isn't in the lock", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lexicons.Schema("com.example.nothing"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
