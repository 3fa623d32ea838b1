package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestServerScripts runs testdata/servers/*.txtar, whose commands are processes that stay.
//
//	start NAME LINES ARGS…   runs baro with ARGS and --json, waits for so many lines on its standard output, and sets a variable for each URL
//	                         of the first: $PDS, and $PDS_PORT, and $PDS_BELOW for the port below
//	end NAME SIGNAL          sends INT or TERM, after which it has to end well within two seconds, or KILL. Its output is in NAME.out
//	                         and NAME.err
//	mailed VAR NAME          sets a variable to the last code that a server with --log-tokens has written to its log
//	code N command           runs a command that has to end with the exit code N
//	metrics FILE             prints what is at /metrics of the debug port that a file with log lines names
func TestServerScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/servers",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, "home")
			env.Setenv("HOME", home)
			env.Setenv("XDG_DATA_HOME", filepath.Join(home, "data"))
			env.Setenv("XDG_STATE_HOME", filepath.Join(home, "state"))
			env.Setenv("XDG_CONFIG_HOME", filepath.Join(home, "config"))
			env.Values["running"] = map[string]*running{}
			return os.MkdirAll(home, 0o700)
		},
		Cmds: withCommands(plcCommands, map[string]func(*testscript.TestScript, bool, []string){
			"start":   startServer,
			"end":     stopServer,
			"code":    wantCode,
			"metrics": printMetrics,
			"mailed":  findCode,
		}),
	})
}

// running is a process that a script has started.
type running struct {
	cmd   *exec.Cmd
	ended chan error
}

func startServer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: start NAME LINES ARGS…")
	}
	name := args[0]
	lines, err := strconv.Atoi(args[1])
	ts.Check(err)
	all := ts.Value("running").(map[string]*running)
	path, err := exec.LookPath("baro") // of the test's own PATH
	if err != nil {
		path = "baro"
	}
	cmd := exec.Command(path, append(args[2:], "--json")...)
	cmd.Dir = ts.MkAbs(".")
	for _, key := range []string{"PATH", "HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "TMPDIR"} {
		cmd.Env = append(cmd.Env, key+"="+ts.Getenv(key))
	}
	stderr, err := os.Create(ts.MkAbs(name + ".err"))
	ts.Check(err)
	defer stderr.Close()
	stdout, err := os.Create(ts.MkAbs(name + ".out"))
	ts.Check(err)
	cmd.Stderr = stderr
	pipe, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	r := &running{cmd, make(chan error, 1)}
	all[name] = r
	ts.Defer(func() { _ = cmd.Process.Kill() })

	got := make(chan string, lines)
	go func() {
		defer stdout.Close()
		defer close(got)
		sc := bufio.NewScanner(pipe)
		for n := 0; sc.Scan(); n++ {
			fmt.Fprintln(stdout, sc.Text())
			if n < lines {
				got <- sc.Text()
			}
		}
		r.ended <- cmd.Wait()
	}()
	deadline := time.After(30 * time.Second)
	for n := range lines {
		select {
		case line, ok := <-got:
			if !ok {
				ts.Fatalf("%s ended: %s", name, ts.ReadFile(name+".err"))
			}
			if n > 0 {
				continue
			}
			urls := map[string]string{}
			ts.Check(json.Unmarshal([]byte(line), &urls))
			for key, value := range urls {
				u, err := url.Parse(value)
				ts.Check(err)
				port, err := strconv.Atoi(u.Port())
				ts.Check(err)
				key = strings.ToUpper(key)
				ts.Setenv(key, value)
				ts.Setenv(key+"_PORT", strconv.Itoa(port))
				ts.Setenv(key+"_BELOW", strconv.Itoa(port-1))
			}
		case <-deadline:
			ts.Fatalf("%s does not get ready", name)
		}
	}
}

func stopServer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: end NAME INT|TERM|KILL")
	}
	r := ts.Value("running").(map[string]*running)[args[0]]
	if r == nil {
		ts.Fatalf("%s does not run", args[0])
	}
	at := time.Now()
	ts.Check(r.cmd.Process.Signal(map[string]os.Signal{"INT": os.Interrupt, "TERM": syscall.SIGTERM, "KILL": os.Kill}[args[1]]))
	select {
	case err := <-r.ended:
		if args[1] != "KILL" {
			ts.Check(err)
		}
		ts.Logf("%s stopped in %v", args[0], time.Since(at).Round(time.Millisecond))
	case <-time.After(2 * time.Second):
		ts.Fatalf("%s did not stop in two seconds", args[0])
	}
}

func printMetrics(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: metrics FILE")
	}
	_, rest, ok := strings.Cut(ts.ReadFile(args[0]), "profiles and metrics at ")
	if !ok {
		ts.Fatalf("%s names no debug port", args[0])
	}
	at, _, _ := strings.Cut(rest, "\n")
	resp, err := http.Get(at + "/metrics")
	ts.Check(err)
	defer resp.Body.Close()
	_, err = io.Copy(ts.Stdout(), resp.Body)
	ts.Check(err)
}

// TestDistance holds the suggestions for misspelt settings to what people expect.
func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"data", "data", 0}, {"dat", "data", 1}, {"port-bse", "port-base", 1}, {"kitten", "sitting", 3}, {"", "abc", 3}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) is %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestDidYouMean(t *testing.T) {
	flags := map[string]bool{"--reply-to": true, "--plc": true, "--pds": true, "--as": true, "--no-replies": true, "--listen": true, "--follow": true}
	for key, want := range map[string]string{"--reply": "--reply-to", "--replyto": "--reply-to", "--port": "", "--pdss": "--pds", "--yes": "", "--host": "", "--folow": "--follow"} {
		if got := didYouMean(key, flags); got != "" && want == "" || want != "" && got != ": did you mean "+want+"?" {
			t.Errorf("%s: %q, want %s", key, got, want)
		}
	}
}

// TestCommandTree holds every command to what the help pages need.
func TestCommandTree(t *testing.T) {
	for _, c := range tree(newRoot()) {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short description %q", c.CommandPath(), c.Short)
		}
		if c.RunE == nil && c.Run == nil {
			t.Errorf("%s does nothing", c.CommandPath())
		}
		if name := c.Name(); c.HasParent() && name != "help" && name != "completion" && !strings.Contains(c.Example, "  baro ") {
			t.Errorf("%s has no example", c.CommandPath())
		}
	}
}
