package bsky_test

import (
	"context"
	"fmt"
	"log"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/bsky"
	"github.com/barograph/baro/devnet"
)

func ExampleLogin() {
	ctx := context.Background()
	net, err := devnet.Start(ctx, devnet.Options{Memory: true}) // a network of our own; leave it out for the public one
	if err != nil {
		log.Fatal(err)
	}
	defer net.Close()
	_, err = comatproto.ServerCreateAccount.Call(ctx, net.PDS(), &comatproto.ServerCreateAccount_Input{
		Handle: "alice.test", Email: new("alice@example.com"), Password: new("a quiet barometer"),
	})
	if err != nil {
		log.Fatal(err)
	}

	c, err := bsky.Login(ctx, "alice.test", "a quiet barometer", bsky.Options{HTTP: net.HTTP(), Identity: net.Directory()})
	if err != nil {
		log.Fatal(err)
	}
	post, err := c.Post(ctx, bsky.Post{Text: "Pressure is rising #weather", Langs: []string{"en"}})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := c.Like(ctx, string(post.URI)); err != nil {
		log.Fatal(err)
	}
	fmt.Println(post.URI.Collection())
	// Output: app.bsky.feed.post
}
