// Package refpds runs the reference PDS and the reference PLC directory, both npm packages, for tests.
//
// They are installed by interop/refpds/install, once for a checkout; without them a test that calls [Start] is skipped, or
// fails with CI=true. Everything listens on 127.0.0.1, nothing outside is asked for anything, and nothing is left behind.
//
//	pds := refpds.Start(t, refpds.Options{})
//	alice := pds.CreateAccount(t, "alice")
//	account, err := auth.New(auth.Options{}).Login(ctx, pds.URL, auth.Credentials{Identifier: alice.Handle, Password: alice.Password})
//	code := pds.Code(t, alice.Email) // from the mail that it has sent
package refpds

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/interop/tool"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// Options of [Start].
type Options struct {
	PLC      string   // URL of the PLC directory; empty: the reference one is started too
	Handles  string   // the domain of its handles; empty: ".test"
	Crawlers []string // URLs of relays that it tells about itself
}

// PDS is a reference PDS that runs.
type PDS struct {
	URL           string     // such as http://localhost:40123, also the issuer of its OAuth server
	DID           syntax.DID // of the server: a did:web
	PLC           string     // URL of its PLC directory
	Handles       string     // the domain of its handles, such as ".test"
	AdminPassword string
	TokenSecret   string // the key of HS256 that the tokens of its password sessions are signed with
	Data          string // its folder

	mail *mailbox
}

// folder is where this file is, with the packages beside it.
func folder() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(file)
}

// startTimeout is how long Start waits. It takes a second on a quiet machine.
const startTimeout = time.Minute

// Start runs a PDS until the test ends.
func Start(t testing.TB, o Options) *PDS {
	t.Helper()
	node := tool.Node(t, folder(), "@atproto/pds", "@did-plc/server", "better-sqlite3")
	if o.Handles == "" {
		o.Handles = ".test"
	}
	p := &PDS{AdminPassword: rand.Text(), TokenSecret: rand.Text(), Handles: o.Handles, Data: t.TempDir(), mail: catchMail(t)}
	settings, err := json.Marshal(map[string]any{
		"plc": o.PLC, "handles": o.Handles, "crawlers": o.Crawlers, "data": p.Data, "admin": p.AdminPassword, "jwt": p.TokenSecret,
		"smtp": "smtp://" + p.mail.addr,
	})
	if err != nil {
		t.Fatal(err)
	}

	cmd := exec.Command(node, "--no-warnings", "start.mjs", string(settings))
	cmd.Dir = folder()
	cmd.Env = append(os.Environ(), "LOG_ENABLED=true", "LOG_LEVEL=warn")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log := &tail{}
	cmd.Stderr = log
	stdin, err := cmd.StdinPipe() // its end ends the servers
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan []byte, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for r := bufio.NewReader(stdout); ; {
			line, err := r.ReadBytes('\n')
			if bytes.HasPrefix(line, []byte(`{"ready":`)) {
				ready <- line
			} else {
				log.Write(line)
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		stdin.Close()
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
			t.Errorf("stopping the reference PDS: %v", err)
		}
		<-read
		cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("the reference PDS said:\n%s", log)
		}
	})

	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	select {
	case line := <-ready:
		var out struct{ Ready *PDS }
		out.Ready = p
		if err := json.Unmarshal(line, &out); err != nil {
			t.Fatalf("the reference PDS said %q: %v", line, err)
		}
	case <-read:
		t.Fatal("the reference PDS did not start")
	case <-timeout.C:
		t.Fatalf("the reference PDS did not start in %s", startTimeout)
	}
	return p
}

// Account is an account of the PDS.
type Account struct {
	DID      syntax.DID
	Handle   string
	Email    string
	Password string
}

// CreateAccount makes an account whose handle begins with name.
func (p *PDS) CreateAccount(t testing.TB, name string) Account {
	t.Helper()
	a := Account{Handle: name + p.Handles, Email: name + "@example.com", Password: name + "-long-password"}
	out, err := comatproto.ServerCreateAccount.Call(t.Context(), &xrpc.Client{Host: p.URL, HTTP: http.DefaultClient}, &comatproto.ServerCreateAccount_Input{
		Handle: a.Handle, Email: &a.Email, Password: &a.Password,
	})
	if err != nil {
		t.Fatalf("creating the account %s at the reference PDS: %v", a.Handle, err)
	}
	a.DID = syntax.DID(out.Did)
	return a
}

// Admin returns a client with the rights of the server's operator.
func (p *PDS) Admin() *xrpc.Client {
	return &xrpc.Client{Host: p.URL, HTTP: http.DefaultClient, Auth: xrpc.Basic{User: "admin", Password: p.AdminPassword}}
}

// Directory returns a directory that resolves through the PLC directory of the PDS, and its handles through itself. Nothing
// else resolves.
func (p *PDS) Directory() *identity.Directory {
	return identity.New(identity.Options{HTTP: &http.Client{Transport: handles{p}}, Resolver: noRecords{}, Now: time.Now, PLC: p.PLC, AllowLocalhost: true})
}

// handles leads what goes to the host of a handle to the PDS, as a proxy in front of it would.
type handles struct{ p *PDS }

func (h handles) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == "https" {
		if !strings.HasSuffix(req.URL.Host, h.p.Handles) {
			return nil, fmt.Errorf("%s is no host of this network", req.URL.Host)
		}
		to, err := url.Parse(h.p.URL)
		if err != nil {
			return nil, err
		}
		req = req.Clone(req.Context())
		req.Host = req.URL.Host
		req.URL.Scheme, req.URL.Host = to.Scheme, to.Host
	}
	return http.DefaultTransport.RoundTrip(req)
}

type noRecords struct{}

func (noRecords) LookupTXT(_ context.Context, name string) ([]string, error) {
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

var _ io.Writer = (*tail)(nil)

const maxTail = 8 << 10

func (w *tail) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b = append(w.b, b...)
	if over := len(w.b) - maxTail; over > 0 {
		w.b = append(w.b[:0], w.b[over:]...)
	}
	return len(b), nil
}

func (w *tail) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.ToValidUTF8(string(w.b), "?")
}
