// Command tipjar is a service that has its users' agents write for it (com.atiproto.actions, package workflow): everybody has
// a jar of coins and gives tips out of it, and each tip is a record in the giver's own repository.
//
// The service moves coins when it has seen the proof that the record is there. A tip that is more than is left is taken back:
// the service asks the agent to delete the record again, and ends the workflow with an error.
//
// With a local network running (baro up), in two more terminals:
//
//	go run . serve
//	TIPJAR_PASSWORD=… go run . give -account carol.test -to did:plc:… -amount 5 "For the weather"
//
//go:generate go run ../../internal/lexgen/cmd generate -lexicons lexicons -out . -module github.com/barograph/baro/examples/tipjar -package com.example.tipjar=lex -api -comments
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/examples/tipjar/lex"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/workflow"
	"github.com/barograph/baro/xrpc"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "tipjar:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("want serve or give")
	}
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	pds := f.String("pds", "http://127.0.0.1:2583", "URL of the PDS")
	plc := f.String("plc", "http://127.0.0.1:2582", "URL of the PLC directory")
	service := f.String("service", "http://127.0.0.1:8091", "URL of the service")
	account := f.String("account", "carol.test", "who gives: handle or DID")
	to := f.String("to", "", "who gets it: DID")
	amount := f.Int64("amount", 1, "how many coins")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	switch args[0] {
	case "serve":
		secret := make([]byte, 32) // flows don't outlive this process; a service that lasts keeps its secret
		if _, err := rand.Read(secret); err != nil {
			return err
		}
		directory := identity.New(identity.Options{PLC: *plc})
		jar, err := newJar(*service, secret, directory, http.DefaultClient)
		if err != nil {
			return err
		}
		u, err := url.Parse(*service)
		if err != nil {
			return err
		}
		server := &http.Server{Addr: u.Host, Handler: jar}
		defer context.AfterFunc(ctx, func() { server.Close() })()
		return server.ListenAndServe()
	case "give":
		session, err := auth.New(auth.Options{}).Login(ctx, *pds, auth.Credentials{Identifier: *account, Password: os.Getenv("TIPJAR_PASSWORD")})
		if err != nil {
			return err
		}
		// The journal is where the next run looks if this one is cut off.
		if err := os.MkdirAll("tipjar-journal", 0o700); err != nil {
			return err
		}
		root, err := os.OpenRoot("tipjar-journal")
		if err != nil {
			return err
		}
		defer root.Close()
		out, err := give(ctx, newAgent(session, workflow.NewFileJournal(root)), *service, &lex.GiveTip_Input{To: *to, Amount: *amount, Message: optional(strings.Join(f.Args(), " "))})
		if err != nil {
			return err
		}
		fmt.Printf("%s, and %d coins are left\n", *out.Tip, out.Left)
		return nil
	}
	return fmt.Errorf("unknown command %q: want serve or give", args[0])
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// newAgent is what carries out what the service asks for. The policy is the zero value: records of com.example.tipjar may be
// written, because the method is one of com.example.tipjar, and nothing else.
func newAgent(session *auth.Account, journal workflow.Journal) *workflow.Agent {
	pds := client.ForAccount(session, client.Options{})
	return &workflow.Agent{PDS: pds, DID: session.DID(), Journal: journal, Now: time.Now, Connect: func(service string) (*xrpc.Client, error) {
		// The service is no part of the network, so the PDS doesn't know it: it is called without it, with a token of the PDS.
		audience, err := audienceOf(service)
		return &xrpc.Client{Host: service, HTTP: pds.XRPC().HTTP, Auth: auth.ServiceTokens(pds.XRPC(), audience)}, err
	}}
}

// give is the whole client: one call, and everything that follows from it.
func give(ctx context.Context, agent *workflow.Agent, service string, in *lex.GiveTip_Input) (*lex.GiveTip_Output, error) {
	out, err := workflow.Call(ctx, agent, service, lex.GiveTip, in)
	if interrupted, ok := errors.AsType[*workflow.InterruptedError](err); ok {
		return nil, fmt.Errorf("%w: resume %s", err, interrupted.Run)
	}
	return out, err
}

// audienceOf is the DID of whoever is at a URL.
func audienceOf(service string) (string, error) {
	u, err := url.Parse(service)
	if err != nil {
		return "", err
	}
	return "did:web:" + strings.ReplaceAll(u.Host, ":", "%3A"), nil
}
