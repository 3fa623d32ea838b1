package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// serveMock runs 'baro workflow mock' until stop is called, which returns its error.
func serveMock(script string, told io.Writer) (url string, stop func() error, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		e := &env{stdout: w, stderr: told, log: slog.New(slog.DiscardHandler)}
		err := e.workflowMock(ctx, script, "127.0.0.1:0")
		w.CloseWithError(err)
		done <- err
	}()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		cancel()
		<-done
		return "", nil, err
	}
	return strings.TrimSpace(line), func() error { cancel(); return <-done }, nil
}

func startMock(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mock VAR SCRIPT")
	}
	url, stop, err := serveMock(ts.MkAbs(args[1]), io.Discard)
	ts.Check(err)
	ts.Defer(func() { ts.Check(stop()) })
	ts.Setenv(args[0], url)
}

func findRunID(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: runid VAR TEXT")
	}
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		var l runLine
		if strings.Contains(line, args[1]) && json.Unmarshal([]byte(line), &l) == nil && l.Run != "" {
			ts.Setenv(args[0], l.Run)
			return
		}
	}
	ts.Fatalf("no workflow with %q in the output", args[1])
}

// TestMock: what a mock answers to what, by itself.
func TestMock(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script.json")
	err := os.WriteFile(script, []byte(`{"rounds": [
		{"answer": {"workflow": {"intent": "a", "actions": [{"name": "one"}, {"name": "two"}]}, "n": "{{input.n}}", "text": "{{caller}} has {{ input.n }}"}},
		{"answer": {"$workflow": {"intent": "b", "actions": [{"name": "three", "rkey": "{{results.one.rkey}}"}]}},
		 "failed": {"workflow": {"intent": "back", "actions": [{"name": "undo", "rkey": "{{results.one.rkey}}"}]}, "why": "{{error.message}}"}},
		{"answer": {"ok": ["{{results.one.uri}}", "{{results.three.cid}}"]}},
		{"answer": {"error": "Late"}, "status": 418}
	]}`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	var told bytes.Buffer
	url, stop, err := serveMock(script, &told)
	if err != nil {
		t.Fatal(err)
	}
	one := `{"action":"create","name":"one","result":{"uri":"at://did:web:a.test/x.y.z/k1","cid":"c1"}}`
	two := `{"action":"create","name":"two","result":{"uri":"at://did:web:a.test/x.y.z/k2","cid":"c2"}}`
	three := `{"action":"create","name":"three","result":{"uri":"at://did:web:a.test/x.y.z/k3","cid":"c3"}}`
	for _, c := range []struct {
		path, body, want string
		status           int
	}{
		{"com.example.x", `{"n":5}`, `{"n":5,"text":"did:web:a.test has 5","workflow":{"actions":[{"name":"one"},{"name":"two"}],"intent":"a"}}`, 200},
		{"com.example.x?n=6", ``, `{"n":"6","text":"did:web:a.test has 6","workflow":{"actions":[{"name":"one"},{"name":"two"}],"intent":"a"}}`, 200},
		{"com.example.x", `{"workflow":{"intent":"a","responses":[` + one + `,` + two + `]}}`, `{"$workflow":{"actions":[{"name":"three","rkey":"k1"}],"intent":"b"}}`, 200},
		{"com.example.x", `{"$workflow":{"intent":"b","responses":[` + three + `]}}`, `{"ok":["at://did:web:a.test/x.y.z/k1","c3"]}`, 200},
		{"com.example.x", `{"workflow":{"intent":"error","responses":[` + one + `],"error":{"action":"create","name":"two","message":"no"}}}`, `{"why":"no","workflow":{"actions":[{"name":"undo","rkey":"k1"}],"intent":"back"}}`, 200},
		{"com.example.x", `{"workflow":{"intent":"error","responses":[],"error":{"action":"delete","name":"undo","message":"not now","code":"Busy"}}}`, `{"workflow":{"actions":[{"$type":"com.atiproto.actions#raise","code":"Busy","message":"not now"}],"intent":"failed"}}`, 200},
		{"com.example.x", `{"workflow":{"intent":"none","responses":[]}}`, `{"error":"NotInScript","message":"no round has what is reported on: intent none"}`, 400},
		{"com.example.x", `{}`, `{"error":"NotInScript","message":"round 0: there is nothing for {{input.n}}"}`, 400},
		{"com.example.x", `[]`, `{"error":"NotInScript","message":"the input is not a JSON object: json: cannot unmarshal array into Go value of type map[string]interface {}"}`, 400},
		{"nothing", ``, `{"error":"NotFound","message":"methods are below /xrpc/"}`, 404},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/xrpc/"+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Caller", "did:web:a.test")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != c.status || strings.TrimSpace(string(b)) != c.want {
			t.Errorf("%s %s: %d %s (%v), want %s", c.path, c.body, resp.StatusCode, b, err, c.want)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(told.String(), "a report of did:web:a.test, 1 done and two failed: no, answered by round 1") {
		t.Error(told.String())
	}
	for name, bad := range map[string]string{
		"not JSON": `{`, "more": `{"rounds":[{"answer":{}}]} x`, "unknown": `{"steps":[]}`, "empty": `{}`, "no answer": `{"rounds":[{}]}`,
		"failed first": `{"rounds":[{"answer":{},"failed":{}}]}`, "status": `{"rounds":[{"answer":{},"status":1}]}`,
		"same intent": `{"rounds":[{"answer":{"workflow":{"intent":"a"}}},{"answer":{"$workflow":{"intent":"a"}}}]}`,
	} {
		if err := os.WriteFile(script, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, _, stderr := baro(t, "workflow", "mock", script); code != exitUsage || stderr == "" {
			t.Errorf("%s: %d %s", name, code, stderr)
		}
	}
}

// TestCallerOf: a mock takes whoever a token names for the caller.
func TestCallerOf(t *testing.T) {
	claims, err := json.Marshal(map[string]string{"iss": "did:web:a.test#atproto"})
	if err != nil {
		t.Fatal(err)
	}
	r := &http.Request{Header: http.Header{"Authorization": {"Bearer e30." + base64.RawURLEncoding.EncodeToString(claims) + ".x"}}}
	if got := callerOf(r); got != "did:web:a.test" {
		t.Error(got)
	}
	for _, bad := range []string{"", "Bearer x", "Bearer a.!.c", "Bearer a.e30.c"} {
		r.Header.Set("Authorization", bad)
		if got := callerOf(r); got != "" {
			t.Errorf("%q: %s", bad, got)
		}
	}
}
