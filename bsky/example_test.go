package bsky_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"net/http"
	"sync"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/auth/oauth"
	"github.com/barograph/baro/auth/oauth/oauthtest"
	"github.com/barograph/baro/auth/scope"
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

// An account that logs in by OAuth, in the browser: the program never sees a password.
func ExampleForAccount() {
	var servers onEnd
	defer servers.run()
	srv := oauthtest.NewOneHost(&servers) // stands for the servers of the account
	ctx := context.Background()

	want := scope.Of(scope.Repo("app.bsky.feed.post").On(scope.Create)) // to post, and nothing else
	app, err := oauth.New(oauth.Options{
		ClientID: oauth.LocalhostID(want, oauth.LoopbackRedirect), Scope: want,
		HTTP: new(http.Client), Directory: srv.Directory(), Now: time.Now, Rand: rand.Reader, AllowLocalhost: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	accounts := auth.New(auth.Options{OAuth: app, Now: time.Now}) // with a Store, if it is to last
	var browser sync.WaitGroup
	session, err := app.LoginLoopback(ctx, "alice.test", oauth.Loopback{Open: func(address string) error {
		browser.Go(func() { _, _ = http.Get(address) }) // a program prints the address, and opens a browser
		return nil
	}})
	if err != nil {
		log.Fatal(err)
	}
	browser.Wait()
	account, err := accounts.Add(ctx, session)
	if err != nil {
		log.Fatal(err)
	}

	c := bsky.ForAccount(account, bsky.Options{})
	post, err := c.Post(ctx, bsky.Post{Text: "Pressure is falling #weather"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(post.URI.Collection())
	// Output: app.bsky.feed.post
}

// onEnd is the part of a test that the server of an example needs.
type onEnd []func()

func (o *onEnd) Cleanup(f func()) { *o = append(*o, f) }

func (o *onEnd) run() {
	for _, f := range *o {
		f()
	}
}
