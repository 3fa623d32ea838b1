package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/devnet"
	"github.com/barograph/baro/examples/tipjar/lex"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/workflow"
	"github.com/barograph/baro/xrpc"
)

// TestGenerated tells that lex is what the line in main.go generates.
func TestGenerated(t *testing.T) {
	src, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	_, line, ok := strings.Cut(string(src), "//go:generate ")
	if !ok {
		t.Fatal("no line to generate from")
	}
	line, _, _ = strings.Cut(line, "\n")
	args := append(strings.Fields(line), "-check")
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Errorf("%v: run go generate\n%s", err, out)
	}
}

// TestTipjar is the service and its client in a network of their own.
func TestTipjar(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	net, err := devnet.Start(ctx, devnet.Options{Memory: true})
	if err != nil {
		t.Fatal(err)
	}
	defer net.Close()
	person := func(handle string) *auth.Account {
		a, err := auth.New(auth.Options{HTTP: net.HTTP()}).Create(ctx, net.URLs().PDS, &comatproto.ServerCreateAccount_Input{
			Handle: handle, Email: new(handle + "@example.com"), Password: new("a quiet barometer"),
		})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	alice, bob := person("alice.test"), person("bob.test")
	var service http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { service.ServeHTTP(w, r) }))
	defer server.Close()
	j, err := newJar(server.URL, []byte(strings.Repeat("s", 32)), net.Directory(), net.HTTP())
	if err != nil {
		t.Fatal(err)
	}
	service = j
	agent := newAgent(alice, nil)
	connect := agent.Connect
	agent.Connect = func(url string) (*xrpc.Client, error) {
		x, err := connect(url)
		x.HTTP = server.Client() // the network's own connects to nothing but its servers
		return x, err
	}
	tips := func() (all []string) {
		t.Helper()
		for tip, err := range client.List[lex.Tip](ctx, client.ForAccount(alice, client.Options{}), syntax.AtIdentifier(alice.DID()), client.ListOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, string(tip.URI))
		}
		return all
	}
	balance := func(who *auth.Account) int64 {
		j.mu.Lock()
		defer j.mu.Unlock()
		return j.has[who.DID()]
	}

	in := &lex.GiveTip_Input{To: string(bob.DID()), Amount: 15, Message: new("For the weather")}
	out, err := give(ctx, agent, server.URL, in)
	if err != nil {
		t.Fatal(err)
	}
	if got := tips(); len(got) != 1 || out.Tip == nil || *out.Tip != got[0] || out.Left != 5 || balance(bob) != 35 {
		t.Errorf("%+v, records %v, bob has %d", out, got, balance(bob))
	}

	// More than is left: the record is written, found to be too much, and deleted again.
	_, err = give(ctx, agent, server.URL, in)
	raised, ok := errors.AsType[*workflow.RaisedError](err)
	if !ok || raised.Code != "NotEnough" || raised.Message != "you have 5 coins left" || len(raised.Done) != 2 || raised.Done[1].Verb != workflow.Delete {
		t.Errorf("%v, %+v", err, raised)
	}
	if got := tips(); len(got) != 1 || balance(alice) != 5 || balance(bob) != 35 {
		t.Errorf("records %v, %d and %d coins", got, balance(alice), balance(bob))
	}

	// A user who agrees to nothing: no record, no coins.
	agent.OnPlan = func(context.Context, *workflow.Plan) error { return errors.New("not today") }
	_, err = give(ctx, agent, server.URL, &lex.GiveTip_Input{To: string(bob.DID()), Amount: 1})
	if raised, ok := errors.AsType[*workflow.RaisedError](err); !ok || raised.Code != "NotWritten" || len(raised.Done) != 0 {
		t.Errorf("%v", err)
	}
	agent.OnPlan = nil
	if _, err := give(ctx, agent, server.URL, &lex.GiveTip_Input{To: string(alice.DID()), Amount: 1}); !errors.Is(err, lex.ErrNoSuchAccount) {
		t.Errorf("a tip to oneself: %v", err)
	}

	// Who has no token is nobody.
	if _, err := lex.GiveTip.Call(ctx, &xrpc.Client{Host: server.URL}, in); err == nil {
		t.Error("a call without a token was answered")
	}
	if len(tips()) != 1 || balance(alice) != 5 || balance(bob) != 35 {
		t.Errorf("records %v, %d and %d coins", tips(), balance(alice), balance(bob))
	}
}
