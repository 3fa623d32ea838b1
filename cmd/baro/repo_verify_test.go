package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/repo/repotest"
	"github.com/barograph/baro/stream"
)

// hostileFiles writes files that each break one rule, and are called as the reason: repositories as *.car, messages as
// *.frame. Beside them are good.car and good.frame, and in $KEY and $DID the account's key and name.
func hostileFiles(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: hostile")
	}
	seen := map[string]bool{}
	file := func(name string, b []byte) {
		if !seen[name] {
			seen[name] = true
			ts.Check(os.WriteFile(ts.MkAbs(name), b, 0o600))
		}
	}
	for _, c := range repotest.Hostile() {
		file(string(c.Reason)+".car", c.CAR)
	}
	for _, c := range repotest.HostileMessages() {
		// What the frame or the options make of a message is in no file.
		if c.Bad.Options == (repo.VerifyOptions{}) && c.Reason != repo.ReasonFrameTooBig {
			file(string(c.Reason)+".frame", frameOf(c.Bad))
		}
		if c.Good.Sync == nil && c.Good.Options == (repo.VerifyOptions{}) {
			file("good.frame", frameOf(c.Good))
		} else if c.Good.Sync != nil {
			file("sync.frame", frameOf(c.Good))
		}
	}
	b := repotest.NewBuilder()
	file("good.car", b.CAR(b.Node(b.Node([36]byte{}, b.Entry(repotest.Path("com.example.a", 0, 0))), b.Entry(repotest.Path("com.example.b", 1, 0)))))
	ts.Setenv("KEY", repotest.Key().Public().DIDKey())
	ts.Setenv("DID", string(repotest.DID))
	ts.Setenv("PREVREV", string(repotest.PrevRev))
	ts.Setenv("PREVDATA", repotest.HostileMessages()[0].Good.Prev.Data.String())
}

// frameOf returns a message in its frame.
func frameOf(m repotest.Message) []byte {
	if s := m.Sync; s != nil {
		return stream.AppendFrame(nil, &stream.Sync{Seq: 1, DID: s.DID, Rev: s.Rev, Time: s.Time, Blocks: s.Blocks})
	}
	out := stream.NewCommit(&m.Commit)
	out.Seq = 1
	return stream.AppendFrame(nil, out)
}

// Each hostile message ends with exit code 3 and the name of its rule, and the one beside it passes. What options decide
// that the command doesn't have is left to package repo.
func TestHostileFrames(t *testing.T) {
	home := ownHome(t)
	name := filepath.Join(home, "message")
	check := func(m repotest.Message) (code int, out verifyOutput, text string) {
		t.Helper()
		if err := os.WriteFile(name, frameOf(m), 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"repo", "verify", "--frame", name, "--json", "--lenient"}
		if m.Key != nil {
			args = append(args, "--key", m.Key.DIDKey())
		} else {
			args = append(args, "--offline")
		}
		if m.Prev != nil {
			args = append(args, "--prev-rev", string(m.Prev.Rev), "--prev-data", m.Prev.Data.String())
		}
		if m.Options.Legacy == repo.LegacyAccept {
			args = append(args, "--legacy")
		}
		code, text, errs := baro(t, args...)
		if err := json.Unmarshal([]byte(text), &out); err != nil {
			t.Fatalf("%v: %s%s", err, text, errs)
		}
		return code, out, text + errs
	}
	for _, c := range repotest.HostileMessages() {
		o := c.Bad.Options
		if c.Reason == repo.ReasonFrameTooBig || c.Reason == repo.ReasonNoKey || o.RefuseFlags || !o.Now.IsZero() || o.Records == repo.RecordsStrict {
			continue
		}
		code, out, text := check(c.Bad)
		if want := append([]repo.Reason{c.Reason}, c.Also...); code != exitVerification || out.OK || !slices.Contains(want, out.Reason) {
			t.Errorf("%s: exit code %d, reason %s, want %s\n%s", c.Name, code, out.Reason, c.Reason, text)
		}
		if len(out.Checks) != len(repo.Reasons) {
			t.Errorf("%s: %d checks", c.Name, len(out.Checks))
		}
		if c.Good.Options == o {
			if code, out, text := check(c.Good); code != exitOK || !out.OK || out.Reason != "" {
				t.Errorf("%s: the message beside it: exit code %d\n%s", c.Name, code, text)
			}
		}
	}
}

// What is no frame of a commit, and frames that are too big.
func TestFramesOfOtherKinds(t *testing.T) {
	home := ownHome(t)
	name := filepath.Join(home, "message")
	for what, c := range map[string]struct {
		b      []byte
		code   int
		reason string
	}{
		"nothing":            {nil, exitVerification, `"reason":"frame"`},
		"text":               {[]byte("hello"), exitVerification, `"reason":"frame"`},
		"JSON of nothing":    {[]byte("{}"), exitVerification, `"reason":"frame"`},
		"JSON with a float":  {[]byte(`{"ops":[],"seq":1.5}`), exitVerification, `"reason":"frame"`},
		"a header alone":     {stream.AppendHeader(nil, stream.TypeCommit), exitVerification, `"reason":"frame"`},
		"a type of tomorrow": {append(stream.AppendHeader(nil, "#tomorrow"), 0xa0), exitVerification, `"reason":"frame"`},
		"too big":            {make([]byte, repo.MaxFrame+1), exitVerification, `"reason":"frame-too-big"`},
		"an error":           {stream.AppendErrorFrame(nil, "FutureCursor", "no"), exitVerification, `FutureCursor`},
		"an identity":        {stream.AppendFrame(nil, &stream.Identity{Seq: 1, DID: string(repotest.DID), Time: "2026-11-20T12:00:00.000Z"}), exitFailure, ""},
	} {
		if err := os.WriteFile(name, c.b, 0o600); err != nil {
			t.Fatal(err)
		}
		code, out, errs := baro(t, "repo", "verify", "--frame", name, "--offline", "--json")
		if code != c.code || !strings.Contains(out, c.reason) {
			t.Errorf("%s: exit code %d\n%s%s", what, code, out, errs)
		}
	}
}

// A head that is wrong doesn't keep the rest of a file from being told.
func TestVerifyGoesOn(t *testing.T) {
	home := ownHome(t)
	b := repotest.NewBuilder()
	b.Commit.DID = "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"
	b.Commit.Rev = "7zzzzzzzzzzzz"
	file := b.CAR(b.Node([36]byte{}, b.Entry(repotest.Path("com.example.b", 0, 0)), b.Entry(repotest.Path("com.example.a", 0, 0))))
	name := filepath.Join(home, "a.car")
	write(t, name, file)
	code, out, _ := baro(t, "repo", "verify", name, "--did", string(repotest.DID), "--key", repotest.Key().Public().DIDKey())
	for _, want := range []string{"FAILED   commit-did", "FAILED   future-rev", "FAILED   tree-order", "ok       signature "} {
		if code != exitVerification || !strings.Contains(out, want) {
			t.Errorf("exit code %d, no %q in\n%s", code, want, out)
		}
	}
}

// Standard input is a file like any other, and leaves none behind.
func TestVerifyStdin(t *testing.T) {
	home := ownHome(t)
	t.Setenv("TMPDIR", home)
	for _, c := range repotest.Hostile()[:3] {
		var out, errs bytes.Buffer
		code := run([]string{"repo", "verify", "-", "--key", repotest.Key().Public().DIDKey(), "--json"}, bytes.NewReader(c.CAR), &out, &errs)
		if code != exitVerification || !strings.Contains(out.String(), `"source":"standard input","kind":"file","ok":false,"signature":"ok"`) || !strings.Contains(out.String(), fmt.Sprintf(`"reason":%q`, c.Reason)) {
			t.Errorf("%s: exit code %d\n%s%s", c.Name, code, out.String(), errs.String())
		}
	}
	left, err := filepath.Glob(filepath.Join(home, "baro-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
