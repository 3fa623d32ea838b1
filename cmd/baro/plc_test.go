package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/barograph/baro/internal/fixtures"
)

// TestPLCVerify holds the command to the logs that were made to be accepted and to be refused.
func TestPLCVerify(t *testing.T) {
	ownHome(t)
	for folder, want := range map[string]int{"valid": exitOK, "invalid": exitVerification} {
		logs, err := filepath.Glob(filepath.Join(fixtures.Path(t, "plc/audit_log"), folder, "*.json"))
		if err != nil || len(logs) != 10 {
			t.Fatalf("%d logs are %s: %v", len(logs), folder, err)
		}
		for _, path := range logs {
			code, stdout, stderr := baro(t, "plc", "verify", path, "--json")
			if code != want || !strings.Contains(stdout, `"identities":1`) || (want != exitOK) != strings.Contains(stdout, `"rule":"`) {
				t.Errorf("%s: exit code %d, want %d\n%s%s", path, code, want, stdout, stderr)
			}
		}
	}
}

// TestPLCOtherLog meets a directory that answers with a log of another identity: it is a good one, but not the one that was asked for.
func TestPLCOtherLog(t *testing.T) {
	ownHome(t)
	logs, err := filepath.Glob(filepath.Join(fixtures.Path(t, "plc/audit_log"), "valid", "*.json"))
	if err != nil || len(logs) == 0 {
		t.Fatal(err)
	}
	log, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	var entries []struct{ DID string }
	if err := json.Unmarshal(log, &entries); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(log) }))
	defer s.Close()
	for did, want := range map[string]int{entries[0].DID: exitOK, "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa": exitVerification} {
		for _, command := range []string{"verify", "history", "data"} {
			if code, stdout, stderr := baro(t, "plc", command, did, "--network", "public", "--plc", s.URL); code != want {
				t.Errorf("%s %s: exit code %d, want %d\n%s%s", command, did, code, want, stdout, stderr)
			}
		}
	}
}

// plcCommands are those of scripts about operations.
//
//	public VAR           sets a variable to the did:key in the last output, of key inspect --json
//	word VAR FILE        sets a variable to what a file holds
//	field VAR NAME FILE  sets a variable to a field of the JSON in the first line of a file
//	swap FILE OLD NEW    replaces text in a file, which has to have it
var plcCommands = map[string]func(*testscript.TestScript, bool, []string){
	"public": func(ts *testscript.TestScript, _ bool, args []string) {
		var v struct{ DidKey string }
		ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &v))
		ts.Setenv(args[0], v.DidKey)
	},
	"word": func(ts *testscript.TestScript, _ bool, args []string) {
		ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
	},
	"field": func(ts *testscript.TestScript, _ bool, args []string) {
		var v map[string]any
		line, _, _ := strings.Cut(ts.ReadFile(args[2]), "\n")
		ts.Check(json.Unmarshal([]byte(line), &v))
		s, ok := v[args[1]].(string)
		if !ok {
			ts.Fatalf("%s has no field %s", args[2], args[1])
		}
		ts.Setenv(args[0], s)
	},
	"swap": func(ts *testscript.TestScript, _ bool, args []string) {
		text := ts.ReadFile(args[0])
		if !strings.Contains(text, args[1]) {
			ts.Fatalf("%s doesn't have %q", args[0], args[1])
		}
		ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.ReplaceAll(text, args[1], args[2])), 0o600))
	},
}
