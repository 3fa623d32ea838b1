package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/barograph/baro/auth/oauth/oauthtest"
)

// deferrer ends what a script has started.
type deferrer struct{ ts *testscript.TestScript }

func (d deferrer) Cleanup(f func()) { d.ts.Defer(f) }

var (
	oauthMu      sync.Mutex
	oauthServers = map[string]*oauthtest.Server{} // by PDS
)

// oauthServer starts an authorization server with a PDS for a script, or looks at it.
func oauthServer(ts *testscript.TestScript, neg bool, args []string) {
	switch {
	case !neg && len(args) == 0:
		srv := oauthtest.NewOneHost(deferrer{ts})
		oauthMu.Lock()
		oauthServers[srv.PDS] = srv
		oauthMu.Unlock()
		ts.Setenv("BARO_PDS", srv.PDS)
		ts.Setenv("BARO_PLC", srv.PLC)
		ts.Setenv("DISPLAY", ":0")
	case !neg && len(args) == 2 && args[0] == "active":
		want, err := strconv.Atoi(args[1])
		ts.Check(err)
		oauthMu.Lock()
		srv := oauthServers[ts.Getenv("BARO_PDS")]
		oauthMu.Unlock()
		if got := srv.Active(); got != want {
			ts.Fatalf("%d sessions at the server, want %d", got, want)
		}
		if p := srv.Problems(); len(p) > 0 {
			ts.Fatalf("%v", p)
		}
	default:
		ts.Fatalf("usage: oauth [active N]")
	}
}

// fakeBrowser goes where it is told and follows where it is sent, as a person's browser does who agrees to everything.
func fakeBrowser() {
	resp, err := http.Get(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode != http.StatusOK {
		os.Exit(1)
	}
}

// Without a browser the address is printed, and whoever goes there finishes the login.
func TestLoginNoBrowser(t *testing.T) {
	ownHome(t)
	srv := oauthtest.NewOneHost(t)
	t.Setenv("BARO_PDS", srv.PDS)
	t.Setenv("BARO_PLC", srv.PLC)
	r, w := io.Pipe()
	visited := make(chan error, 1)
	go func() {
		var seen strings.Builder
		buf := make([]byte, 4096)
		for {
			n, err := r.Read(buf)
			seen.Write(buf[:n])
			if err != nil {
				visited <- fmt.Errorf("no address in %q", seen.String())
				return
			}
			if _, rest, ok := strings.Cut(seen.String(), srv.Issuer+"/oauth/authorize?"); ok && strings.Contains(rest, "\n") {
				break
			}
		}
		go func() { _, _ = io.Copy(io.Discard, r) }()
		_, rest, _ := strings.Cut(seen.String(), srv.Issuer)
		path, _, _ := strings.Cut(rest, "\n")
		resp, err := http.Get(srv.Issuer + path)
		if err == nil {
			resp.Body.Close()
		}
		visited <- err
	}()
	var out strings.Builder
	code := run([]string{"account", "login", "--oauth", "--no-browser", "--scope", "repo:app.bsky.feed.post", "alice.test"}, strings.NewReader(""), &out, w)
	w.Close()
	if err := <-visited; err != nil || code != 0 || !strings.Contains(out.String(), string(oauthtest.DID)) {
		t.Fatalf("exit code %d, %v: %s", code, err, out.String())
	}
	if p := srv.Problems(); len(p) > 0 {
		t.Error(p)
	}
}
