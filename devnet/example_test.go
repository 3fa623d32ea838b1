package devnet_test

import (
	"context"
	"fmt"
	"log"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/devnet"
)

// A test of an app starts a network of its own, which is gone afterwards.
func Example() {
	ctx := context.Background()
	net, err := devnet.Start(ctx, devnet.Options{Memory: true})
	if err != nil {
		log.Fatal(err)
	}
	defer net.Close()

	out, err := comatproto.ServerCreateAccount.Call(ctx, net.PDS(), &comatproto.ServerCreateAccount_Input{
		Handle: "alice.test", Email: new("alice@example.com"), Password: new("a quiet barometer"),
	})
	if err != nil {
		log.Fatal(err)
	}
	id, err := net.Directory().LookupHandle(ctx, "alice.test")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(out.Handle, string(id.DID) == out.Did, id.PDS == net.URLs().PDS)
	// Output: alice.test true true
}
