package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/client/migrate"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/identity/plcdir"
)

func Example() {
	var (
		account *auth.Account       // logged in at the old host, with the account's own password
		dir     *identity.Directory // of package identity
		ctx     = context.Background()
	)
	root, err := os.OpenRoot("/var/lib/mover/alice")
	if err != nil {
		return
	}
	defer root.Close()
	job, err := migrate.Open(migrate.Options{Dir: root, Identity: dir, PLC: &plcdir.Client{URL: identity.DefaultPLC}, Now: time.Now})
	if err != nil {
		return
	}
	defer job.Close()
	err = job.Start(migrate.Plan{DID: account.DID(), From: "https://old.example", To: "https://new.example", Handle: "alice.new.example"})
	if err != nil {
		return
	}
	in := migrate.Input{Old: account, Password: "of the new account"}
	for {
		err = job.Run(ctx, in)
		need, ok := errors.AsType[*migrate.NeedError](err)
		if !ok || need.What != migrate.NeedToken {
			break
		}
		fmt.Print("the code from your mail: ")
		fmt.Scanln(&in.Token)
	}
	fmt.Println(err, job.Facts().Records)
}
