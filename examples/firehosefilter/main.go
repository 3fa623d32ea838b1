// Command firehosefilter prints the posts that match a regular expression, as JSON lines, while they are written. What a relay
// sends is verified, with the keys of the accounts, before it is printed. It keeps its place in a file, and goes on there the
// next time.
//
//	go run ./examples/firehosefilter -relay https://bsky.network -plc https://plc.directory '(?i)barometer'
//
// Without flags, it follows the network of `baro up`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/stream"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "firehosefilter:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	f := flag.NewFlagSet("firehosefilter", flag.ContinueOnError)
	relay := f.String("relay", "http://localhost:2470", "relay or PDS")
	plc := f.String("plc", "http://localhost:2582", "PLC directory, for the keys of accounts")
	place := f.String("cursor", "", "file that keeps the place in the stream")
	begin := f.Bool("all", false, "begin with the oldest event that the relay has")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() != 1 {
		return errors.New("want one regular expression")
	}
	match, err := regexp.Compile(f.Arg(0))
	if err != nil {
		return err
	}
	o := stream.Options{
		Keys:        identity.New(identity.Options{HTTP: &http.Client{}, Resolver: net.DefaultResolver, Now: time.Now, PLC: *plc}),
		Collections: []string{"app.bsky.feed.post"},
		OnProblem:   func(p *stream.Problem) { fmt.Fprintln(os.Stderr, "firehosefilter:", p) },
	}
	if *begin {
		o.After = new(int64(0))
	}
	if *place != "" {
		if b, err := os.ReadFile(*place); err == nil {
			seq, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
			if err != nil {
				return fmt.Errorf("%s: %w", *place, err)
			}
			o.After = &seq
		}
		o.OnCursor = func(seq int64) { // a place that isn't kept is one that is seen again
			if err := os.WriteFile(*place, strconv.AppendInt(nil, seq, 10), 0o644); err != nil {
				fmt.Fprintln(os.Stderr, "firehosefilter:", err)
			}
		}
	}
	for r, err := range stream.Records(ctx, *relay, &o) {
		if err != nil {
			return err
		}
		post, err := stream.Decode[appbsky.FeedPost](&r)
		if err != nil || r.Action != stream.ActionCreate || !match.MatchString(post.Text) {
			continue // also what isn't a post, though it says so
		}
		json, err := data.AppendJSON(nil, r.Record)
		if err != nil {
			continue
		}
		if _, err := fmt.Fprintf(out, "{\"uri\":%q,\"record\":%s}\n", r.URI(), json); err != nil {
			return err
		}
	}
	return ctx.Err()
}
