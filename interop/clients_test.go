package interop

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/barograph/baro/interop/tool"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
)

// network is a running `baro up --memory --empty --json`.
type network struct {
	PLC, PDS, Relay, Links, Explorer string

	bin   string
	line  string
	log   output
	mails int // how many of the mails in the log were looked at
}

// output is what a program has written so far.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func node(t *testing.T) string {
	return tool.Node(t, "clients", "@atproto/api", "@atproto/sync")
}

func python(t *testing.T) string {
	return tool.Program(t, "INTEROP_PYTHON", "python3", "clients", "-c", "import atproto")
}

// start runs a network until the test ends.
func start(t *testing.T) *network {
	t.Helper()
	n := &network{bin: build(t)}
	cmd := exec.Command(n.bin, "up", "--memory", "--empty", "--json", "--port-base", "0")
	cmd.Stderr = &n.log
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		begin := time.Now()
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Errorf("stopping the network: %v", err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the network ended with %v\n%s", err, &n.log)
		}
		if d := time.Since(begin); d > 2*time.Second {
			t.Errorf("the network took %v to stop", d)
		}
	})
	n.line, err = bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("the network did not start: %v\n%s", err, &n.log)
	}
	go io.Copy(io.Discard, stdout)
	if err := json.Unmarshal([]byte(n.line), n); err != nil {
		t.Fatalf("the first line %q: %v", n.line, err)
	}
	return n
}

// outcome is what a client says about what it did.
type outcome struct {
	Accounts map[string]string // DID → handle
	Records  []struct{ URI, CID string }
	Deleted  []string
	Counts   map[string]map[string]int // DID → collection → records
	Links    []struct {
		Subject, Source string
		Total           int
	} `json:"backlinks"`
}

func run(t *testing.T, n *network, name string, args ...string) outcome {
	t.Helper()
	cmd := exec.Command(name, append(args, strings.TrimSpace(n.line))...)
	cmd.Dir = "clients"
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", args, err, log.Bytes())
	}
	var o outcome
	if err := json.Unmarshal(out.Bytes(), &o); err != nil {
		t.Fatalf("%s printed %q: %v", args, out.Bytes(), err)
	}
	return o
}

func get(t *testing.T, base, path string, query url.Values, out any) int {
	t.Helper()
	resp, err := http.Get(base + path + "?" + query.Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return resp.StatusCode
}

// check holds what the network says now against what the client did.
func check(t *testing.T, n *network, o outcome) {
	t.Helper()
	for did, handle := range o.Accounts {
		var got struct{ DID string }
		if get(t, n.PDS, "/xrpc/com.atproto.identity.resolveHandle", url.Values{"handle": {handle}}, &got); got.DID != did {
			t.Errorf("handle %s leads to %q, want %s", handle, got.DID, did)
		}
		records := export(t, n, did)
		counts := map[string]int{}
		for path := range records {
			counts[path[:strings.IndexByte(path, '/')]]++
		}
		if fmt.Sprint(counts) != fmt.Sprint(o.Counts[did]) {
			t.Errorf("the exported repository of %s has %v, want %v", handle, counts, o.Counts[did])
		}
		for _, r := range o.Records {
			if path, ok := strings.CutPrefix(r.URI, "at://"+did+"/"); ok && records[path] != r.CID {
				t.Errorf("%s is %q in the export, want %s", r.URI, records[path], r.CID)
			}
		}
		for _, uri := range o.Deleted {
			if path, ok := strings.CutPrefix(uri, "at://"+did+"/"); ok && records[path] != "" {
				t.Errorf("%s was deleted, but is in the export", uri)
			}
		}
		if out, err := exec.Command(n.bin, "repo", "verify", "--plc", n.PLC, "--pds", n.PDS, did).CombinedOutput(); err != nil {
			t.Errorf("baro repo verify %s: %v\n%s", did, err, out)
		}
	}
	for _, l := range o.Links {
		var got struct{ Total int }
		deadline := time.Now().Add(10 * time.Second)
		for {
			got.Total = -1
			get(t, n.Links, "/xrpc/blue.microcosm.links.getBacklinksCount", url.Values{"subject": {l.Subject}, "source": {l.Source}}, &got)
			if got.Total == l.Total || time.Now().After(deadline) {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if got.Total != l.Total {
			t.Errorf("%d links to %s from %s, want %d", got.Total, l.Subject, l.Source, l.Total)
		}
	}
}

// export reads a whole repository with its proofs, by our own reader: path → CID.
func export(t *testing.T, n *network, did string) map[string]string {
	t.Helper()
	resp, err := http.Get(n.Relay + "/xrpc/com.atproto.sync.getRepo?did=" + did) // leads to the PDS
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	r, err := repo.Open(resp.Body, repo.ReadOptions{DID: syntax.DID(did), Records: repo.RecordsStrict})
	if err != nil {
		t.Fatalf("the export of %s: %v", did, err)
	}
	records := map[string]string{}
	for rec, err := range r.Records() {
		if err != nil {
			t.Fatalf("the export of %s: %v", did, err)
		}
		records[string(rec.Path)] = rec.CID.String()
	}
	return records
}

// follower is the npm consumer, which verifies the relay's stream as it comes.
type follower struct {
	cmd   *exec.Cmd
	stdin io.Closer
	log   bytes.Buffer
	done  chan struct{}

	mu   sync.Mutex
	seen map[string]string // URI → last CID, "" when deleted
	n    int
}

func follow(t *testing.T, n *network, node string) *follower {
	t.Helper()
	f := &follower{cmd: exec.Command(node, "firehose.mjs", strings.TrimSpace(n.line)), seen: map[string]string{}, done: make(chan struct{})}
	f.cmd.Dir = "clients"
	f.cmd.Stderr = &f.log
	stdin, err := f.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := f.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f.stdin = stdin
	go func() {
		defer close(f.done)
		for sc := bufio.NewScanner(stdout); sc.Scan(); {
			var ev struct{ Event, URI, CID string }
			if json.Unmarshal(sc.Bytes(), &ev) != nil {
				continue
			}
			f.mu.Lock()
			f.n++
			if ev.URI != "" {
				f.seen[ev.URI] = ev.CID
			}
			f.mu.Unlock()
		}
	}()
	return f
}

// check waits until the consumer has seen what the client did, and ends it.
func (f *follower) check(t *testing.T, o outcome) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		lacks := ""
		f.mu.Lock()
		for _, r := range o.Records {
			if f.seen[r.URI] != r.CID {
				lacks = fmt.Sprintf("%s as %s, but as %q", r.URI, r.CID, f.seen[r.URI])
			}
		}
		for _, uri := range o.Deleted {
			if cid, ok := f.seen[uri]; !ok || cid != "" {
				lacks = "the deletion of " + uri
			}
		}
		f.mu.Unlock()
		if lacks == "" {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("@atproto/sync has not seen %s", lacks)
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	f.stdin.Close()
	<-f.done
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go func() {
		<-ctx.Done()
		f.cmd.Process.Kill()
	}()
	if err := f.cmd.Wait(); err != nil {
		t.Errorf("@atproto/sync: %v\n%s", err, f.log.Bytes())
	}
	t.Logf("@atproto/sync verified %d events", f.n)
}

func TestNodeClient(t *testing.T) {
	node := node(t)
	n := start(t)
	f := follow(t, n, node)
	o := run(t, n, node, "api.mjs")
	check(t, n, o)
	f.check(t, o)
}

func TestPythonClient(t *testing.T) {
	node, python := node(t), python(t)
	n := start(t)
	f := follow(t, n, node)
	o := run(t, n, python, "high_level.py")
	check(t, n, o)
	f.check(t, o)
}
