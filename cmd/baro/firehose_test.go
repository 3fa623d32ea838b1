package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/label"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/repo/repotest"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// commitFrame makes a commit in its frame.
func commitFrame(t *testing.T, seq int64, tree *mst.Tree, since, rev syntax.TID, key *keys.PrivateKey, change func(*stream.Commit)) ([]byte, *mst.Tree) {
	t.Helper()
	u, tree, err := repo.Apply(tree, []repo.Write{{Path: fmt.Sprintf("com.example.note/%d", seq), Record: repotest.Record("hello")}}, repotest.DID, rev, key)
	if err != nil {
		t.Fatal(err)
	}
	m := u.Message(since, syntax.NewDatetime(time.Now().UTC()))
	c := stream.NewCommit(&m)
	c.Seq = seq
	if change != nil {
		change(c)
	}
	return stream.AppendFrame(nil, c), tree
}

func stranger(t *testing.T) *keys.PrivateKey {
	k, err := keys.Generate(keys.K256, rand.NewChaCha8(sha256.Sum256([]byte("stranger"))))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Each part of the verification finds what is its own, and what keeps it from being made.
func TestFirehoseParts(t *testing.T) {
	ownHome(t)
	l := newLiar(t)
	now := time.Now()
	rev := func(i int) syntax.TID { return syntax.NewTID(now.Add(time.Duration(i-10)*time.Second).UnixMicro(), 0) }
	good, tree := commitFrame(t, 1, mst.New(), "", rev(1), repotest.Key(), nil)
	since := rev(1)
	for name, tt := range map[string]struct {
		key    *keys.PrivateKey
		change func(*stream.Commit)
		fails  string // of the parts
	}{
		"good":          {repotest.Key(), nil, ""},
		"form":          {repotest.Key(), func(c *stream.Commit) { c.Time = "now" }, "basic sig mst all"},
		"signature":     {stranger(t), nil, "sig all"},
		"tree and ops":  {repotest.Key(), func(c *stream.Commit) { c.Ops = nil }, "mst all"},
		"another chain": {repotest.Key(), func(c *stream.Commit) { c.Since = "2222222222222" }, "mst all"},
	} {
		bad, _ := commitFrame(t, 2, tree, since, rev(2), tt.key, tt.change)
		l.methods[stream.SubscribeRepos] = frames(good, bad)
		for part, flag := range map[string]string{"basic": "--verify-basic", "sig": "--verify-sig", "mst": "--verify-mst", "all": "--verify"} {
			code, out, errs := l.baro(t, "firehose", "--limit", "2", flag)
			want := exitOK
			if strings.Contains(" "+tt.fails+" ", " "+part+" ") {
				want = exitVerification
			}
			if code != want || strings.Contains(out, `"verified":false`) != (want != exitOK) || strings.Count(out, `"verified":`) != 2 {
				t.Errorf("%s, %s: exit code %d\n%s%s", name, part, code, out, errs)
			}
		}
	}
	// Nobody is asked for keys if no signature is to be checked.
	l.methods[stream.SubscribeRepos] = frames(good)
	before := l.asked.Load()
	if code, _, errs := l.baro(t, "firehose", "--limit", "1", "--verify-mst"); code != exitOK || l.asked.Load() != before+1 {
		t.Errorf("exit code %d, %d requests: %s", code, l.asked.Load()-before, errs)
	}
}

func TestFirehoseLabels(t *testing.T) {
	ownHome(t)
	l := newLiar(t)
	say := func(val string, key *keys.PrivateKey) label.Label {
		x := label.Label{Src: string(repotest.DID), URI: "did:web:alice.example.com", Val: val, Cts: "2026-11-21T08:00:00Z"}
		if err := x.Sign(key); err != nil {
			t.Fatal(err)
		}
		return x
	}
	batch := func(seq int64, labels ...label.Label) []byte {
		return stream.AppendFrame(nil, &stream.LabelBatch{Seq: seq, Labels: labels})
	}
	one, two := say("one", repotest.Key()), say("two", repotest.Key())
	l.methods[stream.SubscribeLabels] = frames(stream.AppendFrame(nil, &stream.Info{Name: stream.InfoOutdatedCursor}), batch(1, one, say("forged", stranger(t))), batch(2, two))
	run := func(args ...string) (int, []labelLine, string) {
		t.Helper()
		code, out, errs := l.baro(t, append([]string{"firehose", "--labels"}, args...)...)
		var lines []labelLine
		for s := range strings.Lines(out) {
			var v labelLine
			if err := json.Unmarshal([]byte(s), &v); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, v)
		}
		return code, lines, errs
	}
	place := filepath.Join(t.TempDir(), "place")
	code, lines, errs := run(l.URL, "--limit", "4", "--verify", "--cursor-file", place)
	if code != exitVerification || len(lines) != 4 || lines[0].Name != stream.InfoOutdatedCursor || !*lines[1].Verified || lines[1].Label.Verify(repotest.Key().Public()) != nil ||
		*lines[2].Verified || lines[2].Label != nil || lines[2].Reason != "signature" || lines[3].Label.Val != "two" {
		t.Errorf("exit code %d, %+v: %s", code, lines, errs)
	}
	if b, err := os.ReadFile(place); err != nil || string(b) != "2 "+l.URL+"/xrpc/"+stream.SubscribeLabels+"\n" {
		t.Errorf("place %q, %v", b, err)
	}
	if code, lines, errs = run(l.URL, "--limit", "4"); code != exitOK || len(lines) != 4 || lines[2].Label.Val != "forged" || lines[2].Verified != nil {
		t.Errorf("unverified: exit code %d, %+v: %s", code, lines, errs)
	}
	if code, lines, errs = run(l.URL, "--verify-sig", "--strict"); code != exitVerification || len(lines) != 3 {
		t.Errorf("strict: exit code %d, %+v: %s", code, lines, errs)
	}
	if code, lines, _ = run(string(repotest.DID), "--limit", "1", "--did", string(repotest.DID)); code != exitOK && len(lines) > 0 {
		t.Errorf("by its name: exit code %d, %+v", code, lines)
	}
}

func TestFirehoseBlocksAndOps(t *testing.T) {
	ownHome(t)
	l := newLiar(t)
	var c *stream.Commit
	frame, _ := commitFrame(t, 7, mst.New(), "", syntax.NewTID(time.Now().UnixMicro(), 0), repotest.Key(), func(x *stream.Commit) { c = x })
	broken := append(stream.AppendHeader(nil, stream.TypeCommit), 0xa1, 0x63, 's', 'e', 'q', 8)
	l.methods[stream.SubscribeRepos] = frames(frame, broken)
	code, out, errs := l.baro(t, "firehose", "--limit", "2", "--blocks")
	if code != exitOK || !strings.Contains(out, `"blocks":"`+base64.StdEncoding.EncodeToString(c.Blocks)+`"`) || !strings.Contains(out, `"kind":"malformed"`) {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
	code, out, errs = l.baro(t, "firehose", "--limit", "1", "--records")
	var line opEvent
	if err := json.Unmarshal([]byte(out), &line); err != nil || code != exitOK || line.Path != "com.example.note/7" || line.Seq != 7 || line.DID != string(repotest.DID) || line.Rev != c.Rev || line.Record == nil {
		t.Errorf("exit code %d, %+v, %v: %s%s", code, line, err, out, errs)
	}
	// A run that ends within a commit leaves all of it to the next one.
	two, _ := commitFrame(t, 9, mst.New(), "", syntax.NewTID(time.Now().UnixMicro(), 0), repotest.Key(), func(x *stream.Commit) {
		x.Ops = append(x.Ops, x.Ops[0])
		x.Ops[1].Path = "com.example.note/again"
	})
	l.methods[stream.SubscribeRepos] = frames(two)
	place := filepath.Join(t.TempDir(), "place-")
	for limit, want := range map[int]string{1: "8 ", 2: "9 "} {
		place := place + want
		code, out, errs = l.baro(t, "firehose", "--ops", "--limit", strconv.Itoa(limit), "--cursor-file", place)
		if b, err := os.ReadFile(place); code != exitOK || strings.Count(out, "\n") != limit || err != nil || !strings.HasPrefix(string(b), want) {
			t.Errorf("limit %d: exit code %d, place %q, %v: %s%s", limit, code, b, err, out, errs)
		}
	}
	l.methods[stream.SubscribeRepos] = frames(frame, broken)
	if code, out, _ = l.baro(t, "firehose", "--limit", "2", "--verify", "--quiet"); code != exitVerification || out != "" {
		t.Errorf("quiet: exit code %d: %s", code, out)
	}
}

func TestMeter(t *testing.T) {
	now := time.Date(2026, 11, 21, 8, 0, 4, 0, time.UTC)
	if got := rateAndLag(30, 2*time.Second, now, "2026-11-21T08:00:01.5Z"); got != "15 events/s, 2.5s behind" {
		t.Error(got)
	}
	if got := rateAndLag(30, 2*time.Second, now, "?"); got != "15 events/s" {
		t.Error(got)
	}
	var b bytes.Buffer
	m := &meter{w: &b, shown: true}
	m.say("a line")
	m.done()
	if b.String() != eraseLine+"a line\n" {
		t.Errorf("%q", b.String())
	}
}
