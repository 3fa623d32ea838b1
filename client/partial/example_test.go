package partial_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/barograph/baro/client"
	"github.com/barograph/baro/client/partial"
	"github.com/barograph/baro/identity"
)

func Example() {
	var (
		ctx = context.Background()
		id  *identity.Identity // of the account, from its DID
	)
	file, err := os.OpenFile("alice.car.partial", os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer file.Close()
	done, err := partial.Complete(ctx, file, partial.Options{
		Client: client.New(id.PDS, client.Options{}), DID: id.DID, Key: id.SigningKey, Name: file.Name(), Host: id.PDS,
	})
	if anew, ok := errors.AsType[*partial.AnewError](err); ok {
		fmt.Println("fetch all of it:", anew)
		return
	}
	if err != nil {
		return // and go on another time
	}
	out, err := os.Create("alice.car")
	if err != nil {
		return
	}
	defer out.Close()
	stats, err := partial.WriteInOrder(ctx, out, done.Commit, done.Signed, done)
	fmt.Println(stats.Records, done.Had, done.Fetched, err) // verify it with repo.Open before it is used
}
