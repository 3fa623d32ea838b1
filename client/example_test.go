package client_test

import (
	"context"
	"fmt"
	"log"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/devnet"
)

// An account writes a post, and anybody reads it, typed and checked against its CID.
func Example() {
	ctx := context.Background()
	net, err := devnet.Start(ctx, devnet.Options{Memory: true})
	if err != nil {
		log.Fatal(err)
	}
	defer net.Close()
	account, err := auth.New(auth.Options{}).Create(ctx, net.URLs().PDS, &comatproto.ServerCreateAccount_Input{
		Handle: "alice.test", Email: new("alice@example.com"), Password: new("a quiet barometer"),
	})
	if err != nil {
		log.Fatal(err)
	}

	writer := client.ForAccount(account, client.Options{})
	ref, err := client.Create(ctx, writer, &appbsky.FeedPost{Text: "Fair, then rain.", CreatedAt: "2026-11-21T04:00:00Z"}, client.WriteOptions{})
	if err != nil {
		log.Fatal(err)
	}
	reader := client.New(net.URLs().PDS, client.Options{})
	post, err := client.Get[appbsky.FeedPost](ctx, reader, ref.URI, client.GetOptions{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(post.Value.Text)
	for post, err := range client.List[appbsky.FeedPost](ctx, reader, "alice.test", client.ListOptions{}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(post.CID == ref.CID)
	}
	// Output:
	// Fair, then rain.
	// true
}

// A record is fetched by its name alone: whose it is, where it is and with which key it is verified is found out.
func ExampleFetch() {
	ctx := context.Background()
	net, err := devnet.Start(ctx, devnet.Options{Memory: true})
	if err != nil {
		log.Fatal(err)
	}
	defer net.Close()
	account, err := auth.New(auth.Options{}).Create(ctx, net.URLs().PDS, &comatproto.ServerCreateAccount_Input{
		Handle: "alice.test", Email: new("alice@example.com"), Password: new("a quiet barometer"),
	})
	if err != nil {
		log.Fatal(err)
	}
	_, err = client.Create(ctx, client.ForAccount(account, client.Options{}), &appbsky.FeedPost{Text: "Fair, then rain.", CreatedAt: "2026-11-21T04:00:00Z"}, client.WriteOptions{RecordKey: "3lbhk2aaaaa2a"})
	if err != nil {
		log.Fatal(err)
	}

	o := client.FetchOptions{Options: client.Options{HTTP: net.HTTP(), Identity: net.Directory()}} // the public network needs none
	post, err := client.Fetch[appbsky.FeedPost](ctx, "at://alice.test/app.bsky.feed.post/3lbhk2aaaaa2a", o)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(post.Value.Text, post.Proof.Signed)
	// Output: Fair, then rain. true
}
