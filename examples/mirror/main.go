// Command mirror keeps a copy of one repository in a folder: its records as JSON files, and the CAR file that they are from.
// The copy is verified: signature, tree and every record's hash. A copy that doesn't verify replaces nothing.
//
//	go run ./examples/mirror -dir alice alice.example.com     once
//	go run ./examples/mirror -dir alice -follow alice.example.com    and whenever something changes, until Ctrl-C
//
// In the network of `baro up`, add -plc http://localhost:2582 -resolver http://localhost:2583.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "mirror:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	f := flag.NewFlagSet("mirror", flag.ContinueOnError)
	dir := f.String("dir", "mirror", "folder of the copy")
	follow := f.Bool("follow", false, "go on when something changes")
	plc := f.String("plc", identity.DefaultPLC, "PLC directory")
	resolver := f.String("resolver", "https://public.api.bsky.app", "server that resolves a handle")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() != 1 {
		return errors.New("want one account: a handle or a DID")
	}
	did, err := syntax.ParseDID(f.Arg(0))
	if err != nil {
		answer, err := comatproto.IdentityResolveHandle.Call(ctx, &xrpc.Client{Host: *resolver}, &comatproto.IdentityResolveHandle_Params{Handle: f.Arg(0)})
		if err != nil {
			return err
		}
		did = syntax.DID(answer.Did)
	}
	directory := identity.New(identity.Options{PLC: *plc})
	doc, err := mirror(ctx, directory, did, *dir, out)
	if err != nil || !*follow {
		return err
	}
	// What changed meanwhile is among what the server still has.
	o := &stream.Options{Keys: directory, DIDs: []syntax.DID{did}, After: new(int64(0))}
	for ev, err := range stream.Repos(ctx, doc.PDS, o) {
		if err != nil {
			return err
		}
		var rev string
		switch m := ev.Message.(type) {
		case *stream.Commit:
			rev = m.Rev
		case *stream.Sync:
			rev = m.Rev
		}
		if rev <= revision(*dir) {
			continue // the copy has it
		}
		if _, err := mirror(ctx, directory, did, *dir, out); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// revision is that of the copy, or "".
func revision(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, "rev"))
	if err != nil {
		return ""
	}
	return string(b)
}

// mirror makes a new copy beside the old one, and then puts it in its place.
func mirror(ctx context.Context, directory *identity.Directory, did syntax.DID, dir string, out io.Writer) (*identity.Document, error) {
	doc, err := directory.ResolveDID(ctx, did) // again each time: the stream makes the directory forget a key that is old
	if err != nil {
		return nil, err
	}
	next := dir + ".new"
	if err := os.RemoveAll(next); err != nil {
		return nil, err
	}
	defer os.RemoveAll(next)
	var car bytes.Buffer
	r, err := client.New(doc.PDS, client.Options{}).Repo(ctx, doc.DID, client.RepoOptions{Key: doc.SigningKey, Now: time.Now(), Tee: &car})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	records := 0
	for record, err := range r.Records() {
		if err != nil {
			return nil, err
		}
		json, err := data.AppendJSON(nil, record.Data)
		if err != nil {
			return nil, err
		}
		path := filepath.Join(next, "records", filepath.FromSlash(string(record.Path))+".json") // a record key has no slash in it
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(path, append(json, '\n'), 0o644); err != nil {
			return nil, err
		}
		records++
	}
	if err := os.MkdirAll(next, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(next, "repo.car"), car.Bytes(), 0o644); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(next, "rev"), []byte(r.Commit().Rev), 0o644); err != nil {
		return nil, err
	}
	old := dir + ".old"
	if err := os.RemoveAll(old); err != nil {
		return nil, err
	}
	if err := os.Rename(dir, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := os.Rename(next, dir); err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "%s at %s: %d records\n", doc.DID, r.Commit().Rev, records)
	return doc, os.RemoveAll(old)
}
