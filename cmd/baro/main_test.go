package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/barograph/baro/devnet"
	"github.com/barograph/baro/internal/fixtures"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"baro":     func() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
		"xdg-open": fakeBrowser, // on Linux and BSD
		"open":     fakeBrowser, // on macOS
	})
}

// TestScripts runs testdata/*.txtar. A script has a home of its own and, in $FIXTURES, the test data.
//
//	network [demo]   brings up a local network in the data directory that baro looks in
//	code N command   runs a command that has to end with the exit code N
//	hostile          writes files that are wrong in one way each
//	mock VAR SCRIPT  serves a script of workflows, and sets a variable to the URL
//	oauth            starts an authorization server with the account alice.test, and has baro use it
//	oauth active N   checks how many of its sessions are not revoked
//	runid VAR TEXT   sets a variable to the ID of the first workflow in the last output, of lines of JSON, that has TEXT
//	appview          starts an AppView that a network started afterwards can reach: $APPVIEW, as DID#service. What it is asked is in
//	                 appview.log; pixel.png is a picture
//	zone NAME FILE   has the local network's DNS name the DID that is in a file
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, "home")
			env.Setenv("HOME", home)
			env.Setenv("XDG_DATA_HOME", filepath.Join(home, "data"))
			env.Setenv("XDG_STATE_HOME", filepath.Join(home, "state"))
			env.Setenv("XDG_CONFIG_HOME", filepath.Join(home, "config"))
			env.Setenv("XDG_CACHE_HOME", filepath.Join(home, "cache"))
			if dir := fixtureDir(); dir != "" {
				env.Setenv("FIXTURES", dir)
			}
			return os.MkdirAll(home, 0o700)
		},
		Condition: func(cond string) (bool, error) { return cond == "fixtures" && fixtureDir() != "", nil },
		Cmds: withCommands(plcCommands, map[string]func(*testscript.TestScript, bool, []string){
			"network": startNetwork,
			"appview": startAppView,
			"code":    wantCode,
			"hostile": hostileFiles,
			"zone":    addToZone,
			"mock":    startMock,
			"runid":   findRunID,
			"oauth":   oauthServer,
		}),
	})
}

// withCommands joins the commands of scripts.
func withCommands(all ...map[string]func(*testscript.TestScript, bool, []string)) map[string]func(*testscript.TestScript, bool, []string) {
	joined := map[string]func(*testscript.TestScript, bool, []string){}
	for _, some := range all {
		maps.Copy(joined, some)
	}
	return joined
}

// fixtureDir is where the test data is, "" if there is none, which is an error in CI.
func fixtureDir() string {
	dir := os.Getenv("BARO_FIXTURES")
	if dir == "" {
		dir = filepath.Join(fixtures.Root(), "..", "shared", "fixtures")
	}
	if _, err := os.Stat(dir); err != nil {
		if os.Getenv("CI") == "true" {
			panic("the fixtures are missing: set BARO_FIXTURES to the folder of test vectors")
		}
		return ""
	}
	return dir
}

func startNetwork(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 1 || len(args) == 1 && args[0] != "demo" {
		ts.Fatalf("usage: network [demo]")
	}
	o := devnet.Options{Dir: filepath.Join(ts.Getenv("XDG_DATA_HOME"), "baro")}
	if host := ts.Getenv("APPVIEW_HOST"); host != "" {
		o.Allow = []string{host}
	}
	n, err := devnet.Start(context.Background(), o)
	ts.Check(err)
	ts.Defer(func() { ts.Check(n.Close()) })
	u := n.URLs()
	ts.Setenv("PLC", u.PLC)
	ts.Setenv("PDS", u.PDS)
	ts.Setenv("RELAY", u.Relay)
	if len(args) == 1 {
		d, err := n.PlantDemo(context.Background(), devnet.DemoOptions{Accounts: 4})
		ts.Check(err)
		ts.Setenv("DEMO_HANDLE", d.Handle)
		ts.Setenv("DEMO_DID", d.DID)
		ts.Setenv("DEMO_POST", d.Post)
		ts.Setenv("DEMO_PASSWORD", d.Password)
	}
}

// wantCode runs a command and checks its exit code; stdout and stderr can be looked at afterwards.
func wantCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N command…")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

// addToZone adds a TXT record to the zone of the network.
func addToZone(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: zone NAME FILE")
	}
	line := fmt.Sprintf("%s TXT \"did=%s\"\n", args[0], strings.TrimSpace(ts.ReadFile(args[1])))
	ts.Check(os.WriteFile(filepath.Join(ts.Getenv("XDG_DATA_HOME"), "baro", devnet.ZoneFile), []byte(line), 0o600))
}

// baro runs a command in this process.
func baro(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// ownHome gives the test a home with nothing in it.
func ownHome(t *testing.T) string {
	t.Helper()
	home := t.TempDir()
	for k, dir := range map[string]string{"HOME": "", "XDG_DATA_HOME": "data", "XDG_STATE_HOME": "state", "XDG_CONFIG_HOME": "config"} {
		t.Setenv(k, filepath.Join(home, dir))
	}
	return home
}
