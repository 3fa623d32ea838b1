package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/repo/repotest"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// blockServer gives a repository whole and in blocks, and counts what it sends.
type blockServer struct {
	*liar
	mu      sync.Mutex
	whole   []byte
	head    cid.CID
	rev     syntax.TID
	blocks  map[cid.CID][]byte
	instead map[string]http.HandlerFunc // of its own methods

	room int // bytes that may still be sent before every connection is cut; < 0: any number
	most int // CIDs that a call may have
	traffic
}

// traffic is what a server had to do.
type traffic struct {
	sent  int // bytes of CAR files
	repos int // calls of getRepo
	calls int // calls of getBlocks
}

func newBlockServer(t *testing.T, r *testRepo) *blockServer {
	t.Helper()
	s := &blockServer{liar: newLiar(t), room: -1, most: 1000}
	s.has(t, r)
	for name, h := range map[string]http.HandlerFunc{"getRepo": s.getRepo, "getLatestCommit": s.getLatestCommit, "getBlocks": s.getBlocks} {
		s.methods["com.atproto.sync."+name] = func(w http.ResponseWriter, r *http.Request) {
			s.mu.Lock()
			if name == "getBlocks" {
				s.calls++
				if len(r.URL.RawQuery) > 8000 {
					t.Errorf("a URL of %d bytes", len(r.URL.RawQuery))
				}
			}
			other := s.instead[name]
			s.mu.Unlock()
			if other != nil {
				other(w, r)
				return
			}
			h(w, r)
		}
	}
	s.asked.Add(0) // what the server does in answer to another process comes after this
	return s
}

// lie has a method answered by something else; nil: by itself again.
func (s *blockServer) lie(method string, h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.instead = map[string]http.HandlerFunc{method: h}
}

func (s *blockServer) getRepo(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.repos++
	s.send(w, s.whole)
}

func (s *blockServer) getLatestCommit(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.room == 0 {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"cid":%q,"rev":%q}`, s.head, s.rev)
}

func (s *blockServer) getBlocks(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := r.URL.Query()["cids"]
	if len(names) > s.most {
		xrpc.WriteError(w, r, &xrpc.Error{Status: http.StatusBadRequest, Name: "InvalidRequest", Message: "too many"})
		return
	}
	body := car.AppendHeader(nil)
	for _, n := range names {
		c, err := cid.Parse(n)
		b, ok := s.blocks[c]
		if err != nil || !ok {
			xrpc.WriteError(w, r, &xrpc.Error{Status: http.StatusBadRequest, Name: "InvalidRequest", Message: "Could not find cids: " + n})
			return
		}
		body = car.AppendBlock(body, c, b)
	}
	s.send(w, body)
}

// has puts a repository in place of the one that the server had, whose blocks it forgets.
func (s *blockServer) has(t *testing.T, r *testRepo) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.whole, s.head, s.rev, s.blocks = r.car(t), r.u.CommitCID, r.u.Commit.Rev, map[cid.CID][]byte{}
	_, blocks, err := car.Parse(s.whole, car.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for b, err := range blocks {
		if err != nil {
			t.Fatal(err)
		}
		s.blocks[b.CID] = bytes.Clone(b.Data)
	}
}

func (s *blockServer) send(w http.ResponseWriter, b []byte) {
	w.Header().Set("Content-Type", car.MediaType)
	if s.room >= 0 && len(b) > s.room {
		_, _ = w.Write(b[:s.room])
		s.sent += s.room
		s.room = 0
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	if s.room >= 0 {
		s.room -= len(b)
	}
	s.sent += len(b)
	_, _ = w.Write(b)
}

// export runs the command with a connection that is good for so many bytes.
func (s *blockServer) export(t *testing.T, room int) (code int, did traffic, errs string) {
	t.Helper()
	s.mu.Lock()
	s.room, s.traffic = room, traffic{}
	s.mu.Unlock()
	code, _, errs = s.baro(t, "repo", "export", "alice.test", "--overwrite")
	s.mu.Lock()
	defer s.mu.Unlock()
	return code, s.traffic, errs
}

// same checks that the file is there, is what getRepo would have given, and is alone.
func (s *blockServer) same(t *testing.T, what string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if b, err := os.ReadFile("alice.test.car"); err != nil || !bytes.Equal(b, s.whole) {
		t.Errorf("%s: the file has %d bytes, not the %d that it should have: %v", what, len(b), len(s.whole), err)
	}
	for _, end := range []string{".partial", newSuffix} {
		if _, err := os.Stat("alice.test.car" + end); err == nil {
			t.Errorf("%s: alice.test.car%s is left", what, end)
		}
	}
}

// next is the repository with some records more, changed and fewer.
func (r *testRepo) next(t *testing.T) *testRepo {
	t.Helper()
	n := &testRepo{data: maps.Clone(r.data)}
	var writes []repo.Write
	paths := slices.Sorted(maps.Keys(r.data))
	for i, p := range slices.Concat(paths[:20], paths[len(paths)-20:]) {
		switch i % 10 {
		case 3:
			n.data[p] = repotest.Record("changed")
			writes = append(writes, repo.Write{Path: p, Record: n.data[p]})
		case 7:
			delete(n.data, p)
			writes = append(writes, repo.Write{Path: p})
		}
	}
	p := "com.example.other/new"
	n.data[p] = repotest.Record("new")
	writes = append(writes, repo.Write{Path: p, Record: n.data[p]})
	rev := syntax.NewTID(r.u.Commit.Rev.Time().Add(time.Second).UnixMicro(), 0)
	var err error
	if n.u, n.tree, err = repo.Apply(r.tree, writes, repotest.DID, rev, repotest.Key()); err != nil {
		t.Fatal(err)
	}
	return n
}

// Wherever a download is cut off, the next run ends with the same file, and fetches little more than what was missing.
func TestExportGoesOn(t *testing.T) {
	t.Chdir(ownHome(t))
	noPause(t)
	s := newBlockServer(t, newTestRepoOf(t, 300, ""))
	n := len(s.whole)
	resumed := 0
	for k := 0; k < n; k += 1 + n/60 {
		what := fmt.Sprintf("cut after %d of %d bytes", k, n)
		if code, did, errs := s.export(t, k); code != exitFailure || did.sent != k {
			t.Fatalf("%s: exit code %d, %d bytes sent: %s", what, code, did.sent, errs)
		}
		code, did, errs := s.export(t, -1)
		if code != exitOK {
			t.Fatalf("%s: exit code %d: %s", what, code, errs)
		}
		s.same(t, what)
		if did.repos == 0 {
			resumed++
			if did.sent >= n || did.sent > n-k+2000 {
				t.Errorf("%s: %d bytes were sent", what, did.sent)
			}
		} else if did.sent != n || k > n*4/5 {
			t.Errorf("%s: all was fetched anew, %d bytes: %s", what, did.sent, errs)
		}
		os.Remove("alice.test.car")
	}
	if resumed < 15 {
		t.Errorf("only %d downloads went on", resumed)
	}
}

// Any number of cuts, in whole repositories as in blocks, while the repository changes, ends with the file that the server has.
func TestExportCutAnywhere(t *testing.T) {
	t.Chdir(ownHome(t))
	noPause(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	first := newTestRepoOf(t, 300, "")
	for round := range 40 {
		r := first
		s := newBlockServer(t, r)
		s.most = []int{1000, 50, 7, 1}[rnd.IntN(4)]
		var log []string
		for range rnd.IntN(6) {
			if rnd.IntN(3) == 0 {
				r = r.next(t)
				s.has(t, r)
				log = append(log, "change")
			}
			k := rnd.IntN(len(s.whole))
			code, _, errs := s.export(t, k)
			log = append(log, fmt.Sprintf("cut after %d: %s", k, errs))
			if code == exitOK {
				s.same(t, strings.Join(log, "\n"))
				os.Remove("alice.test.car")
			} else if code != exitFailure {
				t.Fatalf("round %d: exit code %d\n%s", round, code, strings.Join(log, "\n"))
			}
		}
		code, _, errs := s.export(t, -1)
		if log = append(log, errs); code != exitOK {
			t.Fatalf("round %d: exit code %d\n%s", round, code, strings.Join(log, "\n"))
		}
		s.same(t, strings.Join(log, "\n"))
	}
}

// A connection that is never good for more than a part of the repository gets all of it in the end, in one run.
func TestExportInPieces(t *testing.T) {
	t.Chdir(ownHome(t))
	noPause(t)
	s := newBlockServer(t, newTestRepoOf(t, 300, ""))
	s.lie("getRepo", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.room = len(s.whole) / 3
		s.mu.Unlock()
		defer func() { // for the next call
			s.mu.Lock()
			s.room = -1
			s.mu.Unlock()
		}()
		s.getRepo(w, r)
	})
	code, did, errs := s.export(t, -1)
	if code != exitOK || did.repos != 1 || did.sent > len(s.whole)*6/5 {
		t.Errorf("exit code %d, %d bytes of %d were sent in %d calls of getRepo: %s", code, did.sent, len(s.whole), did.repos, errs)
	}
	s.same(t, "in pieces")
}

// What is in NAME.partial needn't be from us: nothing wrong of it gets into the file.
func TestExportFromPartial(t *testing.T) {
	t.Chdir(ownHome(t))
	noPause(t)
	r := newTestRepoOf(t, 300, "")
	s := newBlockServer(t, r)
	n := len(s.whole)
	hostile := repotest.Hostile()
	unsigned := hostile[slices.IndexFunc(hostile, func(c repotest.Case) bool { return c.Reason == repo.ReasonSignature })].CAR
	root := func(b []byte, c cid.CID) []byte { // the same blocks under another root
		in, err := car.NewReader(bytes.NewReader(b), car.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return append(car.AppendHeader(nil, c), b[in.Offset():]...)
	}
	foreign, _, err := repo.Apply(r.tree, []repo.Write{{Path: "com.example.note/x", Record: repotest.Record("x")}}, "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb", r.u.Commit.Rev, repotest.Key())
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		partial []byte
		anew    bool
	}{
		"nothing":                    {nil, true},
		"zeros":                      {make([]byte, 5000), true},
		"text":                       {[]byte(strings.Repeat("not a CAR file\n", 100)), true},
		"a wrong signature":          {unsigned, true},
		"half a header":              {s.whole[:20], true},
		"a header only":              {s.whole[:60], true},
		"another account":            {car.AppendBlock(root(s.whole[:n*9/10], foreign.CommitCID), foreign.CommitCID, foreign.Block), true},
		"no commit":                  {root(s.whole, foreign.CommitCID), true},
		"no root":                    {append(car.AppendHeader(nil), s.whole...), true},
		"all of it":                  {s.whole, false},
		"all of it and a torn block": {append(bytes.Clone(s.whole), s.whole[100:150]...), false},
		"zeros behind":               {append(bytes.Clone(s.whole[:n*9/10]), make([]byte, 4096)...), false},
		"a changed byte":             {flip(s.whole[:n*9/10], n/2), false},
		"everything twice":           {append(bytes.Clone(s.whole), root(s.whole, s.head)[len(car.AppendHeader(nil, s.head)):]...), false},
	} {
		write(t, "alice.test.car.partial", tt.partial)
		code, did, errs := s.export(t, -1)
		if code != exitOK || did.repos > 0 != tt.anew || !tt.anew && did.sent > n/2 {
			t.Errorf("%s: exit code %d, %d bytes and %d times the repository were sent: %s", name, code, did.sent, did.repos, errs)
		}
		s.same(t, name)
		os.Remove("alice.test.car")
	}
}

// The repository goes on while nobody downloads it: what hasn't changed is not fetched again.
func TestExportGoesOnWithChanges(t *testing.T) {
	t.Chdir(ownHome(t))
	noPause(t)
	r := newTestRepoOf(t, 300, strings.Repeat(".", 500))
	s := newBlockServer(t, r)
	if code, _, errs := s.export(t, len(s.whole)*9/10); code != exitFailure {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	r = r.next(t)
	s.has(t, r)
	code, did, errs := s.export(t, -1)
	if code != exitOK || did.repos > 0 || did.sent > len(s.whole)/4 {
		t.Errorf("exit code %d, %d bytes of %d were sent: %s", code, did.sent, len(s.whole), errs)
	}
	s.same(t, "changed")

	// Before the last cut a process was killed while it wrote the file in order.
	write(t, "alice.test.car"+newSuffix, s.whole[:100])
	// It changes between two requests: the block that is asked for is gone.
	if code, _, errs := s.export(t, len(s.whole)*7/10); code != exitFailure {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	next := r.next(t)
	moved := false
	s.lie("getBlocks", func(w http.ResponseWriter, q *http.Request) {
		s.mu.Lock()
		move := s.calls == 2
		moved = moved || move
		s.mu.Unlock()
		if move {
			s.has(t, next)
		}
		s.getBlocks(w, q)
	})
	code, did, errs = s.export(t, -1)
	s.mu.Lock()
	if code != exitOK || did.repos > 0 || !moved {
		t.Errorf("exit code %d, %d calls: %s", code, did.calls, errs)
	}
	s.mu.Unlock()
	s.same(t, "changed on the way")
	s.lie("getBlocks", nil)

	// A server that has gone back to what it was counts for what it says now.
	old := newTestRepoOf(t, 300, "older")
	old.u, old.tree, _ = repo.Apply(old.tree, nil, repotest.DID, syntax.NewTID(repotest.Rev.Time().Add(-time.Hour).UnixMicro(), 0), repotest.Key())
	if code, _, errs := s.export(t, len(s.whole)*9/10); code != exitFailure {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	s.has(t, old)
	if code, did, errs := s.export(t, -1); code != exitOK || did.repos != 1 {
		t.Errorf("exit code %d: %s", code, errs)
	}
	s.same(t, "gone back")
}

// A server that lies about blocks ends the command soon, and gets nothing into a file.
func TestExportBlocksFromLiar(t *testing.T) {
	t.Chdir(ownHome(t))
	noPause(t)
	r := newTestRepoOf(t, 300, "")
	s := newBlockServer(t, r)
	n := len(s.whole)
	respond := func(f func(names []string) []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, q *http.Request) {
			serveCAR(f(q.URL.Query()["cids"]))(w, q)
		}
	}
	blocks := func(names []string, change func(i int, c cid.CID, b []byte) []byte) []byte {
		body := car.AppendHeader(nil)
		for i, name := range names {
			c, _ := cid.Parse(name)
			body = append(body, change(i, c, s.blocks[c])...)
		}
		return body
	}
	for name, tt := range map[string]struct {
		method string
		h      http.HandlerFunc
		code   int // with exitOK the repository was fetched anew
	}{
		"a wrong block": {"getBlocks", respond(func(names []string) []byte {
			return blocks(names, func(_ int, c cid.CID, b []byte) []byte { return car.AppendBlock(nil, c, flip(b, 3)) })
		}), exitVerification},
		"another block": {"getBlocks", respond(func(names []string) []byte {
			return blocks(names, func(_ int, _ cid.CID, b []byte) []byte {
				return car.AppendBlock(nil, cid.Sum(cid.DagCBOR, []byte{1}), []byte{1})
			})
		}), exitVerification},
		"every block twice": {"getBlocks", respond(func(names []string) []byte {
			return blocks(names, func(_ int, c cid.CID, b []byte) []byte { return car.AppendBlock(car.AppendBlock(nil, c, b), c, b) })
		}), exitVerification},
		"no CAR file": {"getBlocks", respond(func([]string) []byte {
			return []byte("<html>not today, not tomorrow, and not on any other day either, as far as anybody can tell</html>")
		}), exitVerification},
		"no blocks": {"getBlocks", respond(func([]string) []byte { return car.AppendHeader(nil) }), exitOK},
		"nothing":   {"getBlocks", respond(func([]string) []byte { return nil }), exitFailure},
		"half a block": {"getBlocks", respond(func(names []string) []byte {
			return blocks(names[:1], func(_ int, c cid.CID, b []byte) []byte { return car.AppendBlock(nil, c, b)[:20] })
		}), exitFailure},
		"not the last": {"getBlocks", respond(func(names []string) []byte {
			return blocks(names[:max(1, len(names)-1)], func(_ int, c cid.CID, b []byte) []byte { return car.AppendBlock(nil, c, b) })
		}), exitOK},
		"no such method": {"getBlocks", func(w http.ResponseWriter, q *http.Request) { xrpc.WriteError(w, q, xrpc.ErrNotImplemented) }, exitOK},
		"not here":       {"getBlocks", http.NotFound, exitOK},
		"never":          {"getBlocks", func(w http.ResponseWriter, q *http.Request) { http.Error(w, "no", http.StatusBadRequest) }, exitOK},
		"overloaded": {"getBlocks", func(w http.ResponseWriter, q *http.Request) {
			http.Error(w, "no", http.StatusServiceUnavailable)
		}, exitFailure},
		"taken down": {"getLatestCommit", func(w http.ResponseWriter, q *http.Request) {
			xrpc.WriteError(w, q, &xrpc.Error{Status: http.StatusBadRequest, Name: "RepoTakendown", Message: "gone"})
		}, exitFailure},
		"a commit that isn't": {"getLatestCommit", func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"cid":%q,"rev":%q}`, cid.Sum(cid.DagCBOR, []byte("?")), r.u.Commit.Rev)
		}, exitOK},
		"a record for a commit": {"getLatestCommit", func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"cid":%q,"rev":%q}`, cid.Sum(cid.DagCBOR, r.data["com.example.note/0299"]), r.u.Commit.Rev)
		}, exitOK},
		"no CID": {"getLatestCommit", func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"cid":"x","rev":"y"}`)
		}, exitVerification},
	} {
		os.Remove("alice.test.car")
		s.lie(tt.method, nil)
		if code, _, errs := s.export(t, n*4/5); code != exitFailure {
			t.Fatalf("exit code %d: %s", code, errs)
		}
		s.lie(tt.method, tt.h)
		code, did, errs := s.export(t, -1)
		if code != tt.code || did.calls > 40 {
			t.Errorf("%s: exit code %d, want %d, after %d calls: %s", name, code, tt.code, did.calls, errs)
		}
		if tt.code == exitOK {
			s.same(t, name)
			continue
		}
		if _, err := os.Stat("alice.test.car"); err == nil {
			t.Errorf("%s: there is a file", name)
		}
		// What can be of use later is kept.
		if _, err := os.Stat("alice.test.car.partial"); (err == nil) != (tt.code == exitFailure) {
			t.Errorf("%s: the partial file: %v", name, err)
		}
		s.lie(tt.method, nil)
		if code, did, errs := s.export(t, -1); code != exitOK || did.repos > 0 != (tt.code != exitFailure) {
			t.Errorf("%s: afterwards: exit code %d: %s", name, code, errs)
		}
		s.same(t, name)
	}
}

// A tree of which more and more is missing than can be is not followed for ever.
func TestExportEndless(t *testing.T) {
	t.Chdir(ownHome(t))
	noPause(t)
	s := newBlockServer(t, newTestRepoOf(t, 20, ""))
	write(t, "alice.test.car.partial", s.whole)
	big := newTestRepoOf(t, 4000, "")
	s.has(t, big)
	code, did, errs := s.export(t, -1)
	if code != exitOK || did.repos != 1 || did.calls > 60 || !strings.Contains(errs, "more is missing") {
		t.Errorf("exit code %d after %d calls: %s", code, did.calls, errs)
	}
	s.same(t, "endless")
}

// A process that is killed, or interrupted, leaves what the next one goes on from; two at once don't write one file.
func TestExportKilled(t *testing.T) {
	t.Chdir(ownHome(t))
	s := newBlockServer(t, newTestRepoOf(t, 300, strings.Repeat(".", 8000)))
	whole, n := s.whole, len(s.whole)
	signals := []os.Signal{os.Kill, os.Interrupt, syscall.SIGTERM}
	if runtime.GOOS == "windows" {
		signals = signals[:1] // there are no others to be sent
	}
	for _, sig := range signals {
		release := make(chan struct{})
		s.lie("getRepo", func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(whole[:n*9/10])
			_ = http.NewResponseController(w).Flush()
			select {
			case <-release:
			case <-r.Context().Done():
			}
		})
		args := []string{"repo", "export", "alice.test", "--network", "public", "--plc", s.URL, "--pds", s.URL}
		cmd := exec.Command("baro", args...)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
			if info, err := os.Stat("alice.test.car.partial"); err == nil && info.Size() > int64(n*7/10) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("nothing is written: %s", errs.String())
			}
		}
		if code, _, errs := s.export(t, -1); code != exitFailure || !strings.Contains(errs, "another process") {
			t.Errorf("two at once: exit code %d: %s", code, errs)
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		err := cmd.Wait()
		close(release)
		if err == nil {
			t.Errorf("%s: %s", sig, errs.String())
		}
		s.lie("getRepo", nil)
		code, did, out := s.export(t, -1)
		if code != exitOK || did.repos > 0 || did.sent > n*4/10 {
			t.Errorf("%s: exit code %d, %d bytes of %d were sent: %s%s", sig, code, did.sent, n, errs.String(), out)
		}
		s.same(t, sig.String())
		os.Remove("alice.test.car")
	}
}

// A file that is sent is sent again after what may pass, and not when the account has it already.
func TestImportAgain(t *testing.T) {
	ownHome(t)
	noPause(t)
	r := newTestRepo(t)
	whole := r.car(t)
	type server struct {
		fail  func(n int, w http.ResponseWriter, r *http.Request) bool // the n-th import
		has   *testRepo
		code  int
		tries int
		sent  bool
	}
	cut := func(until int) func(int, http.ResponseWriter, *http.Request) bool {
		return func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n <= until {
				_, _ = io.CopyN(io.Discard, r.Body, int64(len(whole)/2))
				panic(http.ErrAbortHandler)
			}
			return false
		}
	}
	status := func(code, until int) func(int, http.ResponseWriter, *http.Request) bool {
		return func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n <= until {
				_, _ = io.Copy(io.Discard, r.Body)
				xrpc.WriteError(w, r, &xrpc.Error{Status: code, Name: "Nope", Message: "no"})
			}
			return n <= until
		}
	}
	for name, tt := range map[string]server{
		"at once":           {nil, nil, exitOK, 1, true},
		"another is there":  {nil, r.next(t), exitOK, 1, true},
		"there already":     {nil, r, exitOK, 0, false},
		"cut once":          {cut(1), nil, exitOK, 2, true},
		"cut three times":   {cut(3), nil, exitOK, 4, true},
		"cut always":        {cut(99), nil, exitFailure, 4, false},
		"busy":              {status(http.StatusServiceUnavailable, 2), nil, exitOK, 3, true},
		"too many requests": {status(http.StatusTooManyRequests, 1), nil, exitOK, 2, true},
		"refused":           {status(http.StatusBadRequest, 1), nil, exitFailure, 1, false},
		"not implemented":   {status(http.StatusNotImplemented, 1), nil, exitFailure, 1, false},
		"in each other's way": {func(n int, w http.ResponseWriter, r *http.Request) bool {
			return n == 1 && status(http.StatusBadGateway, 1)(n, w, r) || status(http.StatusConflict, 2)(n, w, r)
		}, nil, exitOK, 2, true},
		"the answer is lost": {func(n int, w http.ResponseWriter, r *http.Request) bool {
			_, _ = io.Copy(io.Discard, r.Body)
			panic(http.ErrAbortHandler)
		}, nil, exitOK, 1, true},
	} {
		p := newPlainPDS(t)
		write(t, "alice.test.car", whole)
		var mu sync.Mutex // calls that were given up may be under way still
		has, tries := tt.has, 0
		p.methods["com.atproto.sync.getLatestCommit"] = func(w http.ResponseWriter, q *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			if has == nil {
				xrpc.WriteError(w, q, &xrpc.Error{Status: http.StatusBadRequest, Name: "RepoNotFound", Message: "none"})
				return
			}
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"cid":%q,"rev":%q}`, has.u.CommitCID, has.u.Commit.Rev)
		}
		p.methods["com.atproto.sync.getBlocks"] = func(w http.ResponseWriter, q *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			serveCAR(car.AppendBlock(car.AppendHeader(nil), has.u.CommitCID, has.u.Block))(w, q)
		}
		p.methods["com.atproto.repo.listMissingBlobs"] = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"blobs":[{"cid":%q,"recordUri":"at://%s/com.example.note/0001"}]}`, cid.Sum(cid.Raw, nil), testDID)
		}
		p.methods["com.atproto.repo.importRepo"] = func(w http.ResponseWriter, q *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			tries++
			if name == "the answer is lost" || name == "in each other's way" && tries == 2 {
				has = r
			}
			if tt.fail != nil && tt.fail(tries, w, q) {
				return
			}
			b, err := io.ReadAll(q.Body)
			if err != nil || !bytes.Equal(b, whole) {
				t.Errorf("%s: %d bytes came, %v", name, len(b), err)
			}
			has = r
		}
		code, out, errs := p.baro(t, "repo", "import", "alice.test.car")
		mu.Lock()
		if code != tt.code || tries != tt.tries || strings.Contains(out, "imported 60 records") != tt.sent || strings.Contains(out, "nothing was sent") != (code == exitOK && !tt.sent) {
			t.Errorf("%s: exit code %d after %d tries\n%s%s", name, code, tries, out, errs)
		}
		mu.Unlock()
		if code == exitOK && !strings.Contains(errs, "baro blob upload --missing DIR") {
			t.Errorf("%s: no hint: %s", name, errs)
		}
	}
}
