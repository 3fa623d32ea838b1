// Command notes is a small app of its own lexicons: it writes notes to a PDS, lists them, and serves all notes of a network,
// which it gathers from the event stream of a relay.
//
// The folder lexicons has two schemas, a record and a query. The folder lex has the Go that is generated from them; the
// strong reference in a note is that of the package comatproto, which exists already.
//
// With a local network running (baro up), in another terminal:
//
//	NOTES_PASSWORD=… go run . write -account carol.test "Fair, then rain."
//	go run . list -account carol.test
//	go run . serve
//	curl 'http://127.0.0.1:8090/xrpc/com.example.notes.listNotes'
//
//go:generate go run ../../internal/lexgen/cmd generate -lexicons lexicons -out . -module github.com/barograph/baro/examples/notes -package com.example.notes=lex -api -comments
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/examples/notes/lex"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/reposync"
	"github.com/barograph/baro/syntax"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "notes:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("want write, list or serve")
	}
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	pds := f.String("pds", "http://127.0.0.1:2583", "URL of the PDS")
	relay := f.String("relay", "http://127.0.0.1:2470", "URL of the relay")
	plc := f.String("plc", "http://127.0.0.1:2582", "URL of the PLC directory")
	addr := f.String("addr", "127.0.0.1:8090", "where to serve")
	account := f.String("account", "carol.test", "handle or DID")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	switch args[0] {
	case "write":
		session, err := auth.New(auth.Options{}).Login(ctx, *pds, auth.Credentials{Identifier: *account, Password: os.Getenv("NOTES_PASSWORD")})
		if err != nil {
			return err
		}
		ref, err := write(ctx, client.ForAccount(session, client.Options{}), f.Arg(0), time.Now())
		if err != nil {
			return err
		}
		fmt.Println(ref.URI)
		return nil
	case "list":
		for note, err := range client.List[lex.Note](ctx, client.New(*pds, client.Options{}), syntax.AtIdentifier(*account), client.ListOptions{}) {
			if err != nil {
				return err
			}
			fmt.Println(note.Value.CreatedAt, note.Value.Text)
		}
		return nil
	case "serve":
		directory := identity.New(identity.Options{PLC: *plc})
		return serve(ctx, *addr, reposync.Options{Upstream: *relay, Directory: directory, HTTP: http.DefaultClient, Now: time.Now})
	}
	return fmt.Errorf("unknown command %q: want write, list or serve", args[0])
}

// write puts a note into the account's repository. The type of the record says which collection it belongs to.
func write(ctx context.Context, c *client.Client, text string, now time.Time) (*client.Ref, error) {
	note := lex.Note{Text: text, Mood: new(lex.Note_Steady), CreatedAt: string(syntax.NewDatetime(now))}
	if err := validate(&note); err != nil { // the PDS may not know our schema, so it is up to us
		return nil, err
	}
	return client.Create(ctx, c, &note, client.WriteOptions{})
}

// serve gathers notes and answers listNotes until ctx ends.
func serve(ctx context.Context, addr string, o reposync.Options) error {
	index := newIndex()
	syncer, err := reposync.New(index, o)
	if err != nil {
		return err
	}
	server := &http.Server{Addr: addr, Handler: index.handler()}
	done := make(chan error, 1)
	go func() { done <- server.ListenAndServe() }()
	defer server.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	go func() { cancel(<-done) }()
	if err := syncer.Run(ctx); context.Cause(ctx) == nil {
		return err
	}
	return context.Cause(ctx)
}
