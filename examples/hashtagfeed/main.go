// Command hashtagfeed gathers the posts with a tag from the repositories of a host, and shows them with how many of the other
// authors each author follows: who belongs to the conversation, and who only passes by. The posts come from the accounts'
// own repositories, verified, so the answer needs no index and can't leave anybody out.
//
//	go run ./examples/hashtagfeed -host http://localhost:2583 -plc http://localhost:2582 weather
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/richtext"
	"github.com/barograph/baro/syntax"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "hashtagfeed:", err)
		os.Exit(1)
	}
}

// author is somebody who used the tag.
type author struct {
	did     syntax.DID
	handle  syntax.Handle
	posts   []*appbsky.FeedPost
	follows map[syntax.DID]bool
}

func run(ctx context.Context, args []string, out io.Writer) error {
	f := flag.NewFlagSet("hashtagfeed", flag.ContinueOnError)
	host := f.String("host", "http://localhost:2583", "PDS whose repositories are read")
	plc := f.String("plc", identity.DefaultPLC, "PLC directory")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() != 1 {
		return errors.New("want a tag")
	}
	tag := strings.ToLower(strings.TrimPrefix(f.Arg(0), "#"))
	directory := identity.New(identity.Options{PLC: *plc})

	c := client.New(*host, client.Options{})
	var authors []*author
	for account, err := range c.ListRepos(ctx) {
		if err != nil {
			return err
		}
		if !account.Active {
			continue
		}
		a, err := read(ctx, c, directory, account.DID, tag)
		if err != nil {
			return fmt.Errorf("%s: %w", account.DID, err)
		}
		if len(a.posts) > 0 {
			authors = append(authors, a)
		}
	}
	// How many of the other authors somebody follows.
	ties := func(a *author) (n int) {
		for _, b := range authors {
			if a.follows[b.did] {
				n++
			}
		}
		return n
	}
	slices.SortFunc(authors, func(a, b *author) int {
		return cmp.Or(cmp.Compare(ties(b), ties(a)), cmp.Compare(len(b.posts), len(a.posts)), cmp.Compare(a.did, b.did))
	})
	for _, a := range authors {
		fmt.Fprintf(out, "%s follows %d of the %d others\n", a.handle, ties(a), len(authors)-1)
		for _, p := range a.posts {
			fmt.Fprintf(out, "  %s  %s\n", p.CreatedAt, strings.ReplaceAll(p.Text, "\n", " "))
		}
	}
	return nil
}

// read goes through a repository once, and keeps the posts with the tag and the follows.
func read(ctx context.Context, c *client.Client, directory *identity.Directory, did syntax.DID, tag string) (*author, error) {
	doc, err := directory.ResolveDID(ctx, did)
	if err != nil {
		return nil, err
	}
	a := &author{did: did, handle: doc.Claimed, follows: map[syntax.DID]bool{}}
	r, err := c.Repo(ctx, did, client.RepoOptions{Key: doc.SigningKey, Now: time.Now()})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	for record, err := range r.Records() {
		if err != nil {
			return nil, err
		}
		switch collection, _, _ := strings.Cut(string(record.Path), "/"); collection {
		case "app.bsky.feed.post":
			post := new(appbsky.FeedPost)
			if data.Unmarshal(record.Data, post) == nil && has(post, tag) {
				a.posts = append(a.posts, post)
			}
		case "app.bsky.graph.follow":
			var follow appbsky.GraphFollow
			if data.Unmarshal(record.Data, &follow) == nil {
				a.follows[syntax.DID(follow.Subject)] = true
			}
		}
	}
	return a, nil
}

// has says whether a post has a tag, shown or not.
func has(p *appbsky.FeedPost, tag string) bool {
	for s := range (richtext.Text{Text: p.Text, Facets: p.Facets}).Segments() {
		if strings.ToLower(s.Tag()) == tag {
			return true
		}
	}
	return slices.ContainsFunc(p.Tags, func(t string) bool { return strings.ToLower(t) == tag })
}
