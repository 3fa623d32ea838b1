// Command followgraph walks who follows whom from an account outwards, and writes the edges as CSV: from, to, since. It
// reads the repositories themselves, each at its own PDS, so no index has to know them.
//
//	go run ./examples/followgraph -depth 2 alice.example.com > follows.csv
//
// In the network of `baro up`, add -plc http://localhost:2582 -resolver http://localhost:2583.
package main

import (
	"context"
	"encoding/csv"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "followgraph:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	f := flag.NewFlagSet("followgraph", flag.ContinueOnError)
	depth := f.Int("depth", 1, "how many steps to go from the account")
	limit := f.Int("limit", 1000, "how many accounts to read at most")
	plc := f.String("plc", identity.DefaultPLC, "PLC directory")
	resolver := f.String("resolver", "https://public.api.bsky.app", "server that resolves the first handle")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() != 1 {
		return errors.New("want one account: a handle or a DID")
	}
	start, err := syntax.ParseDID(f.Arg(0))
	if err != nil {
		answer, err := comatproto.IdentityResolveHandle.Call(ctx, &xrpc.Client{Host: *resolver}, &comatproto.IdentityResolveHandle_Params{Handle: f.Arg(0)})
		if err != nil {
			return err
		}
		start = syntax.DID(answer.Did)
	}
	directory := identity.New(identity.Options{PLC: *plc})

	w := csv.NewWriter(out)
	defer w.Flush()
	if err := w.Write([]string{"from", "to", "since"}); err != nil {
		return err
	}
	seen := map[syntax.DID]bool{start: true}
	read := 0
	ring := []syntax.DID{start}
	for step := 0; step < *depth && len(ring) > 0; step++ {
		var next []syntax.DID
		for _, did := range ring {
			if read == *limit {
				return nil
			}
			read++
			err := follows(ctx, directory, did, func(f *appbsky.GraphFollow) error {
				if to := syntax.DID(f.Subject); !seen[to] {
					seen[to] = true
					next = append(next, to)
				}
				return w.Write([]string{string(did), f.Subject, f.CreatedAt})
			})
			if err := ctx.Err(); err != nil {
				return err
			}
			if err != nil { // one that can't be read is no reason to stop
				fmt.Fprintf(progress, "%s: %v\n", did, err)
			}
		}
		ring = next
	}
	w.Flush()
	return w.Error()
}

// follows visits the follow records of an account, at its PDS.
func follows(ctx context.Context, directory *identity.Directory, did syntax.DID, visit func(*appbsky.GraphFollow) error) error {
	doc, err := directory.ResolveDID(ctx, did)
	if err != nil {
		return err
	}
	skip := func(*client.DecodeError) {} // records that aren't follows after all
	for r, err := range client.List[appbsky.GraphFollow](ctx, client.New(doc.PDS, client.Options{}), syntax.AtIdentifier(did), client.ListOptions{OnBad: skip}) {
		if err != nil {
			return err
		}
		if err := visit(&r.Value); err != nil {
			return err
		}
	}
	return nil
}
