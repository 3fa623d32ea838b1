package auth_test

import (
	"context"
	"fmt"
	"log"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/devnet"
)

// A session that was kept is used again, by its account's DID, without the password.
func Example() {
	ctx := context.Background()
	net, err := devnet.Start(ctx, devnet.Options{Memory: true})
	if err != nil {
		log.Fatal(err)
	}
	defer net.Close()
	store := auth.NewMemoryStore()
	alice, err := auth.New(auth.Options{Store: store}).Create(ctx, net.URLs().PDS, &comatproto.ServerCreateAccount_Input{
		Handle: "alice.test", Email: new("alice@example.com"), Password: new("a quiet barometer"),
	})
	if err != nil {
		log.Fatal(err)
	}

	later, err := auth.New(auth.Options{Store: store}).Account(ctx, alice.DID())
	if err != nil {
		log.Fatal(err)
	}
	out, err := comatproto.ServerGetSession.Call(ctx, later.Client(), nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(out.Handle)
	// Output: alice.test
}
