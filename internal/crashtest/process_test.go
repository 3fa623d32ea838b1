//go:build unix

package crashtest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/barograph/baro/internal/crashpoint"
)

// Bounds that even a busy machine keeps. What is aimed at is two seconds for both; what was measured is in the test's log.
const (
	startBound = 20 * time.Second
	stopBound  = 10 * time.Second
)

var scratch string // folder of this run, with the program in it

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "crashtest"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(scratch)
	os.Exit(code)
}

var built = sync.OnceValues(func() (string, error) {
	args := []string{"build", "-o", filepath.Join(scratch, "baro")}
	if crashpoint.Enabled {
		args = append(args, "-tags", "faulttest")
	}
	cmd := exec.Command("go", append(args, "github.com/barograph/baro/cmd/baro")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building baro: %w\n%s", err, out)
	}
	return filepath.Join(scratch, "baro"), nil
})

// program is the path of baro, built once.
func program(t testing.TB) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// process is a running `baro up`.
type process struct {
	cmd    *exec.Cmd
	urls   urls
	lines  *bufio.Reader // of its standard output, after the first
	took   time.Duration // from the start to the first line, which says that all services answer
	stderr *tail
	exited chan struct{}
	err    error // of Wait, after exited
}

type urls struct{ PLC, PDS, Relay, Links, Explorer string }

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (w *tail) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b = append(w.b, p...)
	if len(w.b) > 256<<10 {
		w.b = append([]byte(nil), w.b[len(w.b)-64<<10:]...)
	}
	return len(p), nil
}

func (w *tail) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.b)
}

// command is a run of baro with a crash point, or none.
func command(t testing.TB, point string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(program(t), args...)
	for _, v := range os.Environ() { // whose settings for this program, and for these tests, are not meant
		if !strings.HasPrefix(v, "BARO_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "BARO_CRASHPOINT="+point)
	return cmd
}

// start runs `baro up` on a data directory and waits until it answers, or until it has died of the crash point: then exited is closed
// and there are no URLs.
func start(t testing.TB, dir, point string, args ...string) *process {
	t.Helper()
	p := &process{exited: make(chan struct{}), stderr: &tail{}}
	p.cmd = command(t, point, append([]string{"up", "--data", dir, "--json", "--port-base", "0"}, args...)...)
	p.cmd.Stderr = p.stderr
	// A pipe of our own: that of os/exec is closed when the process ends, with what it said last still in it.
	stdout, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout = w
	began := time.Now()
	err = p.cmd.Start()
	w.Close()
	if err != nil {
		stdout.Close()
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.kill()
		stdout.Close()
	})
	p.lines = bufio.NewReader(stdout)
	first := make(chan []byte, 1)
	go func() {
		line, _ := p.lines.ReadBytes('\n') // an end without a line is told by an empty one
		first <- line
	}()
	select {
	case line := <-first:
		p.took = time.Since(began)
		if err := json.Unmarshal(line, &p.urls); err != nil {
			<-p.exited
			if point == "" || !p.fired(point) {
				t.Fatalf("baro up did not come up: %v: %q\n%s", p.err, line, p.stderr)
			}
		}
	case <-time.After(startBound):
		_ = p.cmd.Process.Signal(syscall.SIGQUIT)
		time.Sleep(time.Second) // for the stacks, on the way to a failure
		t.Fatalf("baro up does not answer after %v\n%s", startBound, p.stderr)
	}
	return p
}

// fired reports whether the process killed itself at a point, given as in BARO_CRASHPOINT.
func (p *process) fired(point string) bool {
	name, _, _ := strings.Cut(point, ":")
	return p.diedOf(syscall.SIGKILL) && strings.Contains(p.stderr.String(), "crashpoint fired: "+name+"\n")
}

// diedOf reports whether a process that has exited was ended by a signal.
func (p *process) diedOf(sig syscall.Signal) bool {
	var e *exec.ExitError
	if !errors.As(p.err, &e) {
		return false
	}
	ws, ok := e.Sys().(syscall.WaitStatus)
	return ok && ws.Signaled() && ws.Signal() == sig
}

func (p *process) dead() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// kill ends the process at once, if it still runs.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// interrupt does what Ctrl-C does, and returns how long the process took to end.
func (p *process) interrupt(t testing.TB) time.Duration {
	t.Helper()
	began := time.Now()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.exited:
	case <-time.After(stopBound):
		_ = p.cmd.Process.Signal(syscall.SIGQUIT)
		time.Sleep(time.Second)
		t.Fatalf("baro up still runs %v after Ctrl-C\n%s", stopBound, p.stderr)
	}
	if p.err != nil {
		t.Errorf("after Ctrl-C: %v\n%s", p.err, p.stderr)
	}
	return time.Since(began)
}

// sound checks that a process said nothing of a bug.
func (p *process) sound() error {
	for _, bad := range []string{"panic:", "DATA RACE", "goroutine 1 [", "fatal error:"} {
		if s := p.stderr.String(); strings.Contains(s, bad) {
			return fmt.Errorf("the process said %q:\n%s", bad, s[max(0, len(s)-8000):])
		}
	}
	return nil
}

// crashPoints lists the names that the sources of the module pass to crashpoint.Hit.
func crashPoints(t *testing.T) []string {
	t.Helper()
	const call = "crashpoint.Hit("
	seen := map[string]bool{}
	var names []string
	err := filepath.WalkDir("../..", func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "interop" || d.Name() == "testdata" || d.Name() == "crashpoint" || d.Name() != ".." && strings.HasPrefix(d.Name(), ".")):
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for rest := src; ; {
			_, after, ok := bytes.Cut(rest, []byte(call))
			if !ok {
				return nil
			}
			var name string
			if n, err := fmt.Sscanf(string(after[:min(len(after), 100)]), "%q)", &name); n != 1 || err != nil {
				t.Errorf("%s: a crash point needs a literal name, to be found", path)
			} else if !seen[name] {
				seen[name] = true
				names = append(names, name)
			}
			rest = after
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
