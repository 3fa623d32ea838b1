// Command firehosefilter prints the posts that match a regular expression, as JSON lines, while they are written. It keeps
// its place in a file, and goes on there the next time. What a relay sends, the relay has verified; who doesn't trust it
// follows with package reposync, which verifies again.
//
//	go run ./examples/firehosefilter -relay https://bsky.network '(?i)barometer'
//
// In the network of `baro up`, the relay is http://localhost:2470.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"strings"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
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
	var o stream.SubscribeOptions
	if *begin {
		o.After = new(int64(0))
	}
	if b, err := os.ReadFile(*place); err == nil {
		seq, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		if err != nil {
			return fmt.Errorf("%s: %w", *place, err)
		}
		o.After = &seq
	}
	for frame, err := range stream.Subscribe(ctx, *relay, o) {
		if err != nil {
			return err
		}
		m, err := frame.Message()
		if err != nil {
			continue // one broken message is no reason to miss the others
		}
		c, ok := m.(*stream.Commit)
		if !ok {
			continue
		}
		if err := show(c, match, out); err != nil {
			return err
		}
		if *place != "" {
			if err := os.WriteFile(*place, strconv.AppendInt(nil, c.Seq, 10), 0o644); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// show prints the new posts of a commit that match.
func show(c *stream.Commit, match *regexp.Regexp, out io.Writer) error {
	wanted := map[cid.CID]string{}
	for _, op := range c.Ops {
		if op.Action == stream.ActionCreate && strings.HasPrefix(op.Path, "app.bsky.feed.post/") {
			wanted[op.CID] = op.Path
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	_, blocks, err := car.Parse(c.Blocks, car.Options{})
	if err != nil {
		return nil // as above
	}
	for b, err := range blocks {
		if err != nil {
			return nil
		}
		path, ok := wanted[b.CID]
		var post appbsky.FeedPost
		if !ok || data.Unmarshal(b.Data, &post) != nil || !match.MatchString(post.Text) {
			continue
		}
		json, err := data.AppendJSON(nil, b.Data)
		if err != nil {
			continue
		}
		if _, err := fmt.Fprintf(out, "{\"uri\":\"at://%s/%s\",\"record\":%s}\n", c.Repo, path, json); err != nil {
			return err
		}
	}
	return nil
}
