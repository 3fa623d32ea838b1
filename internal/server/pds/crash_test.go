//go:build faulttest && unix

package pds

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/syntax"
)

// crashPoints are the places of this package and of the log below it, with how often each is passed before the process dies there.
var crashPoints = []struct {
	name string
	hits []int
}{
	{"pds/commit/before-submit", []int{1, 40}}, {"pds/commit/submitted", []int{1, 40}}, {"pds/commit/durable", []int{1, 40}},
	{"eventlog/before-apply", []int{1, 2, 40}}, {"eventlog/after-apply", []int{1, 2, 40}},
	{"pds/blob/intent", []int{1, 3}}, {"pds/blob/renamed", []int{1, 3}}, {"pds/blob/row", []int{1, 3}},
	{"pds/blob/before-delete", []int{1}}, {"pds/blob/deleted", []int{1}},
	{"pds/import/started", []int{1}}, {"pds/import/batch", []int{1}}, {"pds/import/loaded", []int{1}}, {"pds/import/done", []int{1}},
}

// TestCrashPoints lets a child process die at each named point and opens what it left: everything it said was acknowledged is there, and
// repository, stream, blobs and index agree.
func TestCrashPoints(t *testing.T) {
	if dir := os.Getenv("PDS_CRASH_DIR"); dir != "" {
		crashChild(t, dir)
		return
	}
	for _, point := range crashPoints {
		for _, hit := range point.hits {
			t.Run(fmt.Sprintf("%s:%d", point.name, hit), func(t *testing.T) {
				dir := t.TempDir()
				cmd := exec.Command(os.Args[0], "-test.run=^TestCrashPoints$", "-test.v")
				cmd.Env = append(os.Environ(), "PDS_CRASH_DIR="+dir, fmt.Sprintf("BARO_CRASHPOINT=%s:%d", point.name, hit))
				var out, stderr bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &stderr
				if err := cmd.Run(); err == nil {
					t.Fatal("the child did not die: the point was never reached")
				}
				if !strings.Contains(stderr.String(), "crashpoint fired: "+point.name) {
					t.Fatalf("died of something else: %s %s", out.String(), stderr.String())
				}
				afterCrash(t, dir, &out)
			})
		}
	}
}

func crashChild(t *testing.T, dir string) {
	w := testWorld(1)
	w.FS = vfs.Default
	p := openPDS(t, w, Config{Dir: dir})
	say := func(format string, args ...any) { fmt.Printf("ack "+format+"\n", args...) }
	a := p.account("alice")
	say("account %s", a.did)
	for i := range 60 {
		wr := testWrite(actPut, fmt.Sprintf("com.example.thing/%d", i), fmt.Sprint(i))
		if _, err := p.commit(a.did, []write{wr}, nil); err != nil {
			t.Fatal(err)
		}
		say("record %s %s", wr.Path, wr.CID)
	}
	for i := range 4 {
		body := append(bytes.Clone(png), byte(i))
		up := a.upload("image/png", body)
		want(t, up, 200, "")
		say("upload %s", cid.Sum(cid.Raw, body))
		made := a.create("com.example.thing", fmt.Sprint("blob", i), withBlob(up.JSON["blob"]))
		want(t, made, 200, "")
		say("record com.example.thing/blob%d %s", i, made.str("cid"))
		if i%2 == 1 {
			say("going com.example.thing/blob%d", i)
			want(t, a.post("com.atproto.repo.deleteRecord", map[string]any{"repo": a.did, "collection": "com.example.thing", "rkey": fmt.Sprint("blob", i)}), 200, "")
		}
	}
	body := p.get("com.atproto.sync.getRepo?did=" + string(a.did)).Body
	if _, err := p.commit(a.did, []write{testWrite(actPut, "com.example.thing/later", "later")}, nil); err != nil {
		t.Fatal(err)
	}
	want(t, a.importCAR(body), 200, "")
	say("import")
	p.stop()
}

func afterCrash(t *testing.T, dir string, out *bytes.Buffer) {
	t.Helper()
	w := testWorld(1)
	w.FS = vfs.Default
	p := startPDS(t, w, Config{Dir: dir})
	acked := map[string]string{}
	var did syntax.DID
	for lines := bufio.NewScanner(out); lines.Scan(); {
		f := strings.Fields(lines.Text())
		switch {
		case len(f) == 3 && f[0] == "ack" && f[1] == "account":
			did = syntax.DID(f[2])
		case len(f) == 4 && f[0] == "ack" && f[1] == "record":
			acked[f[2]] = f[3]
		case len(f) == 3 && f[0] == "ack" && f[1] == "going": // both are right until the answer

			delete(acked, f[2])
		}
	}
	if did == "" {
		return // died before the account was acknowledged
	}
	key, err := p.signingKey(did)
	if err != nil {
		t.Fatal(err)
	}
	a := p.login(did, key)
	got, _ := p.checkRepo(did, key.Public())
	for path, c := range acked {
		if got[path].String() != c {
			t.Errorf("acknowledged record %s is lost", path)
		}
	}
	p.checkStore(did)
	if n := leftovers(t, p); n != 0 {
		t.Errorf("%d rows of unfinished imports", n)
	}
	if err := p.sweepGarbage(context.Background()); err != nil {
		t.Fatal(err)
	}
	// Files and rows agree, both ways.
	for i := range 4 {
		c := cid.Sum(cid.Raw, append(bytes.Clone(png), byte(i)))
		row, err := p.blobRow(p.store, mustHead(t, a).account, c)
		if err != nil {
			t.Fatal(err)
		}
		f, err := p.files.Open(string(did), c)
		if err == nil {
			f.Close()
		}
		if row.exists != (err == nil) {
			t.Errorf("blob %d: row %v, file %v", i, row.exists, err)
		}
	}
	if _, err := p.commit(did, []write{testWrite(actPut, "com.example.thing/after", "x")}, nil); err != nil {
		t.Fatal(err)
	}
	if _, ok := acked["import"]; !ok {
		p.checkRepo(did, key.Public())
	}
}
