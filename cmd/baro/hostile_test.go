package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/repo/repotest"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// Repositories that are wrong in one way each end with exit code 3, in every command that reads them, and leave no file.
func TestHostileFiles(t *testing.T) {
	home := ownHome(t)
	key := repotest.Key().Public().DIDKey()
	for _, c := range repotest.Hostile() {
		name := filepath.Join(home, "hostile.car")
		if err := os.WriteFile(name, c.CAR, 0o600); err != nil {
			t.Fatal(err)
		}
		code, out, errs := baro(t, "repo", "verify", name, "--key", key, "--did", string(repotest.DID), "--json")
		var report struct {
			OK     bool
			Checks []repo.Check
		}
		if err := json.Unmarshal([]byte(out), &report); code != exitVerification || err != nil || report.OK {
			t.Errorf("%s: exit code %d, %v\n%s%s", c.Name, code, err, out, errs)
		}
		if code, out, _ := baro(t, "repo", "verify", name, "--key", key, "--did", string(repotest.DID)); code != exitVerification || !strings.Contains(out, "FAILED") || !strings.Contains(out, "NOT VERIFIED") {
			t.Errorf("%s: exit code %d\n%s", c.Name, code, out)
		}
		if c.Reason == repo.ReasonCommitDID {
			continue // the commands below take any account
		}
		dir := filepath.Join(home, "out")
		code, _, errs = baro(t, "repo", "unpack", name, dir, "--key", key)
		if _, err := os.Stat(dir); code != exitVerification && c.Reason != repo.ReasonFutureRev || err == nil && c.Reason != repo.ReasonFutureRev {
			t.Errorf("%s: unpack: exit code %d: %s", c.Name, code, errs)
		}
		os.RemoveAll(dir)
		if c.Record || c.Reason == repo.ReasonSignature || c.Reason == repo.ReasonHighS || c.Reason == repo.ReasonFutureRev {
			continue // the commands below don't look at these
		}
		for _, cmd := range []string{"ls", "inspect"} {
			if code, _, errs := baro(t, "repo", cmd, name); code != exitVerification {
				t.Errorf("%s: %s: exit code %d: %s", c.Name, cmd, code, errs)
			}
		}
	}
}

func TestSafeName(t *testing.T) {
	taken := map[string]bool{}
	for _, tt := range [][2]string{
		{"3ljg56i4i3d2r", "3ljg56i4i3d2r"}, {"self", "self"}, {"Self", "%53elf"}, {"SELF", "%53%45%4C%46"},
		{"a:b", "a%3Ab"}, {".hidden", "%2Ehidden"}, {"-rf", "%2Drf"}, {"a.", "a%2E"}, {"con", "%63on"}, {"nul.x", "%6Eul.x"},
		{"com7", "%63om7"}, {"console", "console"}, {"lpt10", "lpt10"}, {"~a_b-c.d", "~a_b-c.d"}, {"aux.example.post", "%61ux.example.post"},
	} {
		if got := safeName(tt[0], taken); got != tt[1] {
			t.Errorf("%s: %s, want %s", tt[0], got, tt[1])
		}
	}
	long := strings.Repeat("x", 511)
	a, b := safeName(long+"a", taken), safeName(long+"b", taken)
	if len(a) > maxName || a == b {
		t.Errorf("%s, %s", a, b)
	}
}

func FuzzSafeName(f *testing.F) {
	f.Add("self", "Self")
	f.Add("con", "CON")
	f.Add("a:b", "a.b")
	f.Fuzz(func(t *testing.T, a, b string) {
		if !syntax.ValidRecordKey(a) || !syntax.ValidRecordKey(b) || a == b {
			return
		}
		taken := map[string]bool{}
		x, y := safeName(a, taken), safeName(b, taken)
		if strings.EqualFold(x, y) {
			t.Errorf("%q and %q are both %q", a, b, x)
		}
		for _, n := range []string{x, y} {
			if n == "" || len(n) > maxName || strings.ContainsAny(n, `/\:*?"<>|`) || n[0] == '.' || isDevice(n) || strings.HasSuffix(n, ".") || !filepath.IsLocal(n) {
				t.Errorf("%q and %q: %q", a, b, n)
			}
		}
	})
}

// A symbolic link in the folder is neither followed nor written through.
func TestUnpackLinks(t *testing.T) {
	home := ownHome(t)
	r := newTestRepo(t)
	file := filepath.Join(home, "a.car")
	write(t, file, r.car(t))
	outside := filepath.Join(home, "outside")
	dir := filepath.Join(home, "out")
	for _, d := range []string{outside, dir} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(dir, "com.example.note")
	if err := os.Symlink(outside, link); err != nil {
		t.Skip("no symbolic links here")
	}
	if code, _, errs := baro(t, "repo", "unpack", file, dir, "--overwrite"); code == exitOK {
		t.Errorf("a folder that is a link was followed: %s", errs)
	}
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(link, 0o700); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(outside, "secret")
	write(t, secret, []byte("keep"))
	if err := os.Symlink(secret, filepath.Join(link, "0001.json")); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := baro(t, "repo", "unpack", file, dir); code == exitOK {
		t.Errorf("a link was replaced without --overwrite: %s", errs)
	}
	if code, _, errs := baro(t, "repo", "unpack", file, dir, "--overwrite"); code != exitOK {
		t.Errorf("exit code %d: %s", code, errs)
	}
	if b, _ := os.ReadFile(secret); string(b) != "keep" {
		t.Errorf("written through a link: %q", b)
	}
	if entries, _ := os.ReadDir(outside); len(entries) != 1 {
		t.Errorf("%d files outside", len(entries))
	}
	if b, err := os.ReadFile(filepath.Join(link, "0001.json")); err != nil || !bytes.Contains(b, []byte(`"$type": "com.example.note"`)) {
		t.Errorf("%s, %v", b, err)
	}
}

func write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// testRepo is a signed repository with notes.
type testRepo struct {
	u    *repo.Update
	tree *mst.Tree
	data map[string][]byte
}

func newTestRepo(t *testing.T) *testRepo { return newTestRepoOf(t, 60, "") }

// newTestRepoOf makes a repository of n records, whose texts end in what is given.
func newTestRepoOf(t *testing.T, n int, end string) *testRepo {
	t.Helper()
	r := &testRepo{data: map[string][]byte{}}
	var writes []repo.Write
	for i := range n {
		p := fmt.Sprintf("com.example.note/%04d", i)
		r.data[p] = repotest.Record(p + end)
		writes = append(writes, repo.Write{Path: p, Record: r.data[p]})
	}
	r.tree = mst.New()
	for some := range slices.Chunk(writes, 100) {
		var err error
		if r.u, r.tree, err = repo.Apply(r.tree, some, repotest.DID, repotest.Rev, repotest.Key()); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func (r *testRepo) car(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := repo.WriteCAR(&b, r.u.Block, r.tree, func(p string, _ cid.CID) ([]byte, error) { return r.data[p], nil }); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func (r *testRepo) proof(t *testing.T, path string) []byte {
	t.Helper()
	b, err := repo.MakeProof(r.u.Block, r.tree, path, r.data[path])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// liar is a PLC directory, a PDS and a relay with one account. Methods are answered by functions.
type liar struct {
	*httptest.Server
	key     *keys.PublicKey // in the DID document
	methods map[string]http.HandlerFunc
	asked   atomic.Int64
}

func newLiar(t *testing.T) *liar {
	l := &liar{key: repotest.Key().Public(), methods: map[string]http.HandlerFunc{}}
	l.Server = httptest.NewServer(l)
	t.Cleanup(l.Close)
	return l
}

func (l *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.asked.Add(1)
	if r.URL.Path == "/"+string(repotest.DID) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"id":%q,"alsoKnownAs":["at://alice.test"],
			"verificationMethod":[{"id":"%[1]s#atproto","type":"Multikey","controller":%[1]q,"publicKeyMultibase":%[2]q},
				{"id":"%[1]s#atproto_label","type":"Multikey","controller":%[1]q,"publicKeyMultibase":%[2]q}],
			"service":[{"id":"#atproto_pds","type":"AtprotoPersonalDataServer","serviceEndpoint":%[3]q},
				{"id":"#atproto_labeler","type":"AtprotoLabeler","serviceEndpoint":%[3]q}]}`, repotest.DID, l.key.Multikey(), l.URL)
		return
	}
	nsid := strings.TrimPrefix(r.URL.Path, "/xrpc/")
	if h := l.methods[nsid]; h != nil {
		h(w, r)
		return
	}
	if nsid == "com.atproto.identity.resolveHandle" {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"did":%q}`, repotest.DID)
		return
	}
	xrpc.WriteError(w, r, xrpc.ErrNotImplemented)
}

// baro runs a command against the liar.
func (l *liar) baro(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	flags := []string{"--network", "public", "--plc", l.URL, "--pds", l.URL}
	if args[0] == "firehose" {
		flags = append(flags, "--relay", l.URL)
	}
	return baro(t, append(args, flags...)...)
}

func serveCAR(b []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.ipld.car")
		_, _ = w.Write(b)
	}
}

func flip(b []byte, i int) []byte {
	c := bytes.Clone(b)
	c[i] ^= 1
	return c
}

func TestLyingProofs(t *testing.T) {
	ownHome(t)
	r := newTestRepo(t)
	const path = "com.example.note/0007"
	good := r.proof(t, path)
	uri := "at://alice.test/" + path
	l := newLiar(t)
	l.methods["com.atproto.sync.getRecord"] = serveCAR(good)
	code, out, errs := l.baro(t, "get", uri, "--verify")
	if code != exitOK || !strings.Contains(out, path) || !strings.Contains(errs, "signature") {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
	for name, b := range map[string][]byte{
		"another record":       r.proof(t, "com.example.note/0008"),
		"truncated":            good[:len(good)-5],
		"a changed byte":       flip(good, len(good)-5),
		"a changed commit":     flip(good, 100),
		"nothing":              nil,
		"something else":       []byte("<html>"),
		"the whole repository": r.car(t)[:2000],
	} {
		l.methods["com.atproto.sync.getRecord"] = serveCAR(b)
		if code, out, errs := l.baro(t, "get", uri, "--verify"); code != exitVerification || out != "" || !strings.Contains(errs, "FAILED") {
			t.Errorf("%s: exit code %d\n%s%s", name, code, out, errs)
		}
	}
	stranger, err := keys.NewPrivate(keys.P256, bytes.Repeat([]byte{9}, 32))
	if err != nil {
		t.Fatal(err)
	}
	l.methods["com.atproto.sync.getRecord"] = serveCAR(good)
	l.key = stranger.Public()
	if code, _, errs := l.baro(t, "get", uri, "--verify"); code != exitVerification || !strings.Contains(errs, "FAILED") {
		t.Errorf("signed by somebody else: exit code %d: %s", code, errs)
	}
}

// Without --verify the bytes are held against the CID all the same.
func TestLyingRecord(t *testing.T) {
	ownHome(t)
	l := newLiar(t)
	id := cid.Sum(cid.DagCBOR, repotest.Record("a"))
	l.methods["com.atproto.repo.getRecord"] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"uri":"at://%s/com.example.note/1","cid":%q,"value":{"$type":"com.example.note","text":"b"}}`, repotest.DID, id)
	}
	if code, out, errs := l.baro(t, "get", "at://alice.test/com.example.note/1"); code != exitVerification || out != "" {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
}

// What a terminal would obey comes out as an escape, and is still the same JSON.
func TestHostileText(t *testing.T) {
	ownHome(t)
	const text = "a\x1b[2Jb\u009b31mc\u202ed\U000e0041é"
	raw := repotest.Record(text)
	l := newLiar(t)
	l.methods["com.atproto.repo.getRecord"] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		v, _ := json.Marshal(map[string]string{"$type": "com.example.note", "text": text})
		fmt.Fprintf(w, `{"uri":"at://%s/com.example.note/1","cid":%q,"value":%s}`, repotest.DID, cid.Sum(cid.DagCBOR, raw), v)
	}
	for _, flags := range [][]string{nil, {"--json"}} {
		code, out, errs := l.baro(t, append([]string{"get", "at://alice.test/com.example.note/1"}, flags...)...)
		if code != exitOK || strings.ContainsAny(out, "\x1b\u009b\u202e\U000e0041") || !strings.Contains(out, "é") {
			t.Errorf("exit code %d\n%q%s", code, out, errs)
		}
		var v struct {
			Text  string
			Value struct{ Text string }
		}
		if err := json.Unmarshal([]byte(out), &v); err != nil || v.Text+v.Value.Text != text {
			t.Errorf("%q, %v", v.Text+v.Value.Text, err)
		}
	}
}

func TestExportFromLiar(t *testing.T) {
	home := ownHome(t)
	noPause(t)
	t.Chdir(home)
	r := newTestRepo(t)
	whole := r.car(t)
	l := newLiar(t)
	l.methods["com.atproto.sync.getRepo"] = serveCAR(whole)
	if code, out, errs := l.baro(t, "repo", "export", "alice.test"); code != exitOK || out != "alice.test.car\n" {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
	if b, err := os.ReadFile("alice.test.car"); err != nil || !bytes.Equal(b, whole) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	for name, tt := range map[string]struct {
		h    http.HandlerFunc
		code int
	}{
		"truncated":      {serveCAR(whole[:len(whole)/2]), exitVerification},
		"a changed byte": {serveCAR(flip(whole, len(whole)/2)), exitVerification},
		"cut": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(whole)))
			_, _ = w.Write(whole[:len(whole)/2])
		}, exitFailure},
		"refused": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "3")
			xrpc.WriteError(w, r, xrpc.ErrRateLimitExceeded.With("slow down"))
		}, exitFailure},
	} {
		l.methods["com.atproto.sync.getRepo"] = tt.h
		code, out, errs := l.baro(t, "repo", "export", "alice.test", "--overwrite")
		if code != tt.code || out != "" {
			t.Errorf("%s: exit code %d, want %d\n%s%s", name, code, tt.code, out, errs)
		}
		if name == "refused" && !strings.Contains(errs, "try again in 3s") {
			t.Errorf("%s: %s", name, errs)
		}
		if b, err := os.ReadFile("alice.test.car"); err != nil || !bytes.Equal(b, whole) {
			t.Errorf("%s: the good file is gone: %d bytes, %v", name, len(b), err)
		}
		if _, err := os.Stat("alice.test.car.partial"); (err == nil) != (name == "cut") {
			t.Errorf("%s: half a file is left, or was thrown away: %v", name, err)
		}
		os.Remove("alice.test.car.partial")
	}
}

// noPause has downloads begun again at once.
func noPause(t *testing.T) {
	old := downloadPause
	downloadPause = time.Nanosecond
	t.Cleanup(func() { downloadPause = old })
}

// A download that is cut off is begun again where a server gives no single blocks, and neither mixes with what came before nor goes on for ever.
func TestExportCutOff(t *testing.T) {
	t.Chdir(ownHome(t))
	noPause(t)
	whole := newTestRepo(t).car(t)
	for _, extra := range [][]string{nil, {"--verify=false"}} {
		for cuts := range maxDownloads + 1 {
			l := newLiar(t)
			tries := 0
			l.methods["com.atproto.sync.getRepo"] = func(w http.ResponseWriter, r *http.Request) {
				if tries++; tries > cuts {
					serveCAR(whole)(w, r)
					return
				}
				w.Header().Set("Content-Length", fmt.Sprint(len(whole)))
				_, _ = w.Write(whole[:len(whole)-tries])
			}
			code, out, errs := l.baro(t, append([]string{"repo", "export", "alice.test", "--overwrite"}, extra...)...)
			if cuts == maxDownloads {
				if code != exitFailure || tries != maxDownloads {
					t.Errorf("always cut off: exit code %d after %d tries: %s", code, tries, errs)
				}
				continue
			}
			b, err := os.ReadFile("alice.test.car")
			if code != exitOK || err != nil || !bytes.Equal(b, whole) || strings.Count(errs, "cut off after") != cuts {
				t.Errorf("%d cuts: exit code %d, %d bytes, %v\n%s%s", cuts, code, len(b), err, out, errs)
			}
		}
	}
}

// What is new is put together with an old file, and nothing that a server sends or leaves out gets past the check.
func TestExportSince(t *testing.T) {
	t.Chdir(ownHome(t))
	noPause(t)
	now := time.Now().UTC()
	rev := func(i int) syntax.TID { return syntax.NewTID(now.Add(time.Duration(i-10)*time.Second).UnixMicro(), 0) }
	var writes []repo.Write
	for i := range 40 {
		writes = append(writes, repo.Write{Path: fmt.Sprintf("com.example.note/%04d", i), Record: repotest.Record(fmt.Sprint(i))})
	}
	records := map[string][]byte{}
	file := func(u *repo.Update, tree *mst.Tree) []byte {
		var b bytes.Buffer
		if err := repo.WriteCAR(&b, u.Block, tree, func(path string, _ cid.CID) ([]byte, error) { return records[path], nil }); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	for _, w := range writes {
		records[w.Path] = w.Record
	}
	first, tree, err := repo.Apply(mst.New(), writes, repotest.DID, rev(1), repotest.Key())
	if err != nil {
		t.Fatal(err)
	}
	old := file(first, tree)
	write(t, "old.car", old)
	change := []repo.Write{{Path: writes[7].Path, Record: repotest.Record("changed")}, {Path: "com.example.other/1", Record: repotest.Record("new")}, {Path: writes[9].Path}}
	records[writes[7].Path], records["com.example.other/1"] = change[0].Record, change[1].Record
	second, tree, err := repo.Apply(tree, change, repotest.DID, rev(2), repotest.Key())
	if err != nil {
		t.Fatal(err)
	}
	whole := file(second, tree)
	l := newLiar(t)
	var part []byte
	asked := ""
	l.methods["com.atproto.sync.getRepo"] = func(w http.ResponseWriter, r *http.Request) {
		if since := r.URL.Query().Get("since"); since != "" {
			asked = since
			serveCAR(part)(w, r)
			return
		}
		serveCAR(whole)(w, r)
	}
	lean := second.Blocks()
	for name, tt := range map[string]struct {
		part []byte
		code int
		says string
	}{
		"what is new":     {lean, exitOK, "of it new"},
		"everything":      {whole, exitOK, "of it new"},
		"too little":      {firstBlockOf(t, lean), exitOK, "all of it is fetched"},
		"a changed byte":  {flip(lean, len(lean)-3), exitVerification, ""},
		"nothing":         {nil, exitVerification, ""},
		"an older commit": {old, exitOK, "of it new"},
	} {
		part, asked = tt.part, ""
		os.Remove("new.car")
		code, out, errs := l.baro(t, "repo", "export", "alice.test", "--since", "old.car", "--output", "new.car")
		if code != tt.code || asked != string(rev(1)) || !strings.Contains(errs, tt.says) {
			t.Errorf("%s: exit code %d, since %q\n%s%s", name, code, asked, out, errs)
		}
		b, err := os.ReadFile("new.car")
		want := whole
		if name == "an older commit" {
			want = old
		}
		if tt.code == exitOK && !bytes.Equal(b, want) || tt.code != exitOK && err == nil {
			t.Errorf("%s: %d bytes, %v, want %d", name, len(b), err, len(want))
		}
	}
	part = lean
	if code, _, errs := l.baro(t, "repo", "export", "alice.test", "--since", "old.car", "--output", "old.car"); code != exitOK {
		t.Errorf("in place: %d: %s", code, errs)
	}
	if b, _ := os.ReadFile("old.car"); !bytes.Equal(b, whole) {
		t.Errorf("in place: %d bytes, want %d", len(b), len(whole))
	}
	part = old
	if code, _, errs := l.baro(t, "repo", "export", "alice.test", "--since", "old.car", "--output", "new.car", "--overwrite"); code != exitVerification || !strings.Contains(errs, "older") {
		t.Errorf("back in time: %d: %s", code, errs)
	}
	part = lean
	if code, _, errs := l.baro(t, "repo", "export", "alice.test", "--since", string(rev(1)), "--output", "part.car"); code != exitOK || !strings.Contains(errs, "a part of") {
		t.Errorf("a part: %d: %s", code, errs)
	}
	if code, _, errs := l.baro(t, "repo", "export", "alice.test", "--since", "nothing.car"); code != exitUsage {
		t.Errorf("no file: %d: %s", code, errs)
	}
}

// firstBlockOf is a CAR file with the first block of another one.
func firstBlockOf(t *testing.T, b []byte) []byte {
	t.Helper()
	s, err := car.NewScanner(b, car.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Next(); err != nil {
		t.Fatal(err)
	}
	return b[:s.Offset()]
}

// Blobs are fetched several at a time; what is there stays, what is broken is fetched again, and what a server makes up is not kept.
func TestBlobsFromLiar(t *testing.T) {
	t.Chdir(ownHome(t))
	l := newLiar(t)
	blobs := map[string][]byte{}
	var ids []string
	for i := range 30 {
		b := []byte(fmt.Sprintf("blob %d", i))
		id := cid.Sum(cid.Raw, b).String()
		blobs[id], ids = b, append(ids, id)
	}
	var fetched, most, now atomic.Int32
	l.methods["com.atproto.sync.listBlobs"] = func(w http.ResponseWriter, r *http.Request) {
		at, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
		out := map[string]any{"cids": ids[at:min(at+12, len(ids))]}
		if at+12 < len(ids) {
			out["cursor"] = fmt.Sprint(at + 12)
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out)
	}
	gate := make(chan struct{})
	l.methods["com.atproto.sync.getBlob"] = func(w http.ResponseWriter, r *http.Request) {
		fetched.Add(1)
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if n == 3 {
			close(gate)
		}
		<-gate // so that three are on their way at a time
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(blobs[r.URL.Query().Get("cid")])
	}
	code, out, errs := l.baro(t, "blob", "export", "alice.test", "--jobs", "3")
	if code != exitOK || strings.Count(out, "\n") != 30 || most.Load() != 3 || !strings.Contains(errs, "30 blobs fetched, 0 were there") {
		t.Fatalf("exit code %d, %d at a time\n%s%s", code, most.Load(), out, errs)
	}
	dir := "alice.test-blobs"
	write(t, filepath.Join(dir, ids[4]), []byte("half"))
	if err := os.Remove(filepath.Join(dir, ids[9])); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, ids[9]+".partial"), []byte("what was broken off"))
	lie := blobs[ids[4]]
	blobs[ids[4]] = []byte("made up")
	fetched.Store(0)
	code, _, errs = l.baro(t, "blob", "export", "alice.test")
	if code != exitVerification || fetched.Load() != 2 || !strings.Contains(errs, "1 blob fetched, 28 were there") {
		t.Errorf("exit code %d, %d fetched\n%s", code, fetched.Load(), errs)
	}
	blobs[ids[4]] = lie
	if code, _, errs = l.baro(t, "blob", "export", "alice.test"); code != exitOK || fetched.Load() != 3 {
		t.Errorf("exit code %d, %d fetched\n%s", code, fetched.Load(), errs)
	}
	for id, want := range blobs {
		if b, err := os.ReadFile(filepath.Join(dir, id)); err != nil || !bytes.Equal(b, want) {
			t.Errorf("%s: %q, %v", id, b, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.partial")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	if code, _, _ := l.baro(t, "blob", "export", "alice.test", "--jobs", "0"); code != exitUsage {
		t.Errorf("no jobs: exit code %d", code)
	}
}

// A server that sends its callers to an address beside it gets nowhere.
func TestRedirectToPrivate(t *testing.T) {
	ownHome(t)
	var reached atomic.Bool
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Store(true) }))
	defer other.Close()
	l := newLiar(t)
	l.methods["com.atproto.repo.getRecord"] = func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) }
	code, _, errs := l.baro(t, "get", "at://alice.test/com.example.note/1")
	if code != exitFailure || reached.Load() {
		t.Errorf("exit code %d: %s", code, errs)
	}

	// Nor does a DID document that names another server on this machine.
	far := newLiar(t)
	l.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		l.ServeHTTP(rec, r)
		_, _ = io.WriteString(w, strings.ReplaceAll(rec.Body.String(), l.URL, far.URL))
	})
	asked := far.asked.Load()
	code, _, errs = baro(t, "get", "at://"+string(repotest.DID)+"/com.example.note/1", "--network", "public", "--plc", l.URL)
	if code != exitFailure || far.asked.Load() != asked || !strings.Contains(errs, "if "+strings.TrimPrefix(far.URL, "http://")+" is yours") {
		t.Errorf("exit code %d: %s", code, errs)
	}
}

// frames serves a stream of frames and keeps the connection open.
func frames(list ...[]byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		up := websocket.Upgrader{}
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		for _, f := range list {
			if c.WriteMessage(websocket.BinaryMessage, f) != nil {
				return
			}
		}
		_, _, _ = c.ReadMessage() // until the other side has had enough
	}
}

func TestFirehoseFromLiar(t *testing.T) {
	ownHome(t)
	now := time.Now().UTC()
	key := repotest.Key()
	rev := func(i int) syntax.TID { return syntax.NewTID(now.Add(time.Duration(i-10)*time.Second).UnixMicro(), 0) }
	path := func(i int) string { return fmt.Sprintf("com.example.note/%04d", i) }
	first, tree, err := repo.Apply(mst.New(), []repo.Write{{Path: path(1), Record: repotest.Record("1")}}, repotest.DID, rev(1), key)
	if err != nil {
		t.Fatal(err)
	}
	second, tree, err := repo.Apply(tree, []repo.Write{{Path: path(2), Record: repotest.Record("2")}}, repotest.DID, rev(2), key)
	if err != nil {
		t.Fatal(err)
	}
	third, _, err := repo.Apply(tree, []repo.Write{{Path: path(3), Record: repotest.Record("3")}}, repotest.DID, rev(3), key)
	if err != nil {
		t.Fatal(err)
	}
	frame := func(seq int64, u *repo.Update, since syntax.TID, change func(*stream.Commit)) []byte {
		m := u.Message(since, syntax.NewDatetime(now))
		c := stream.NewCommit(&m)
		c.Seq = seq
		if change != nil {
			change(c)
		}
		return stream.AppendFrame(nil, c)
	}
	l := newLiar(t)
	run := func(extra []string, list ...[]byte) (int, []map[string]any, string) {
		t.Helper()
		l.methods[stream.SubscribeRepos] = frames(list...)
		code, out, errs := l.baro(t, append([]string{"firehose", "--verify", "--limit", fmt.Sprint(len(list))}, extra...)...)
		var lines []map[string]any
		for s := range strings.Lines(out) {
			var v map[string]any
			if err := json.Unmarshal([]byte(s), &v); err != nil {
				t.Fatalf("%s: %v", s, err)
			}
			lines = append(lines, v)
		}
		return code, lines, errs
	}
	code, lines, errs := run(nil, frame(1, first, "", nil), frame(2, second, rev(1), nil), frame(3, third, rev(2), nil))
	if code != exitOK || len(lines) != 3 || lines[2]["verified"] != true {
		t.Errorf("exit code %d, %v: %s", code, lines, errs)
	}
	for name, tt := range map[string]struct {
		frame  []byte
		reason repo.Reason
	}{
		"an operation that wasn't": {frame(2, second, rev(1), func(c *stream.Commit) { c.Ops[0].Path = path(9) }), repo.ReasonOpMismatch},
		"an operation left out":    {frame(2, second, rev(1), func(c *stream.Commit) { c.Ops = nil }), repo.ReasonInversion},
		"another account's":        {frame(2, second, rev(1), func(c *stream.Commit) { c.Blocks = bytes.Clone(c.Blocks); c.Commit = cid.Sum(cid.DagCBOR, nil) }), ""},
		"a commit left out":        {frame(3, third, rev(2), nil), repo.ReasonPrevData},
	} {
		code, lines, errs := run(nil, frame(1, first, "", nil), tt.frame)
		if code != exitVerification || len(lines) != 2 || lines[0]["verified"] != true || lines[1]["verified"] != false || tt.reason != "" && lines[1]["reason"] != string(tt.reason) {
			t.Errorf("%s: exit code %d, %v: %s", name, code, lines, errs)
		}
		if b, _ := json.Marshal(lines[1]); bytes.Contains(b, []byte(`"record"`)) {
			t.Errorf("%s: an unverified record is shown: %s", name, b)
		}
		if code, lines, _ := run([]string{"--strict"}, tt.frame, frame(4, first, "", nil)); code != exitVerification && name != "a commit left out" || len(lines) > 2 {
			t.Errorf("%s: strict: exit code %d, %v", name, code, lines)
		}
	}
}

// A server that isn't there ends every command with exit code 1 and advice, at once.
func TestNobodyThere(t *testing.T) {
	ownHome(t)
	p := newPlainPDS(t)
	car := newTestRepo(t).car(t)
	write(t, "alice.test.car", car)
	write(t, "note.json", []byte(`{"$type":"com.example.note","text":"hello"}`))
	p.Close()
	const dead = "http://localhost:1"
	for _, line := range []string{
		"get at://alice.test/a.b.c/d", "ls alice.test", "ls alice.test a.b.c --verify", "resolve alice.test", "resolve " + testDID,
		"repo verify alice.test", "repo export alice.test --output x.car", "repo mst alice.test", "repo import alice.test.car",
		"blob ls alice.test", "blob export alice.test", "blob upload note.json", "blob upload --missing .",
		"record create note.json", "record update note.json --rkey a", "record delete -c a.b.c -r d",
		"xrpc get " + dead + " com.atproto.server.describeServer", "xrpc get @pds com.atproto.server.getSession", "xrpc get did:web:x.example#y com.example.get",
		"bsky post hello", "bsky timeline", "bsky search x", "bsky thread at://alice.test/app.bsky.feed.post/1", "bsky like at://alice.test/app.bsky.feed.post/1",
		"bsky follow " + testDID, "bsky mute alice.test", "bsky notifications", "bsky prefs export", "bsky profile",
		"account login alice.test", "account create carol.test", "account status alice.test", "account check-auth", "account activate",
		"firehose --relay " + dead,
	} {
		args := append(strings.Fields(line), "--network", "public", "--plc", dead)
		if !strings.HasPrefix(line, "xrpc get "+dead) {
			args = append(args, "--pds", dead)
		}
		start := time.Now()
		code, out, errs := baro(t, args...)
		if took := time.Since(start); code != exitFailure || out != "" || took > 20*time.Second {
			t.Errorf("%s: exit code %d in %s\n%s%s", line, code, took, out, errs)
		}
		if last := strings.TrimSpace(errs); !strings.HasSuffix(last, ")") || !strings.Contains(last, "(nothing listens there: is the server running?)") {
			t.Errorf("%s: no advice: %s", line, errs)
		}
	}
	if left, _ := filepath.Glob("*.partial"); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}
