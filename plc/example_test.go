package plc_test

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/plc"
)

func ExampleNext() {
	key, _ := keys.Generate(keys.K256, rand.Reader)
	op := plc.NewOperation(plc.AtprotoData(key.Public().DIDKey(), "alice.test", "https://pds.test", key.Public().DIDKey()), cid.CID{})
	_ = op.Sign(key)
	void, err := plc.Next(op.DID(), nil, op, time.Now())
	fmt.Println(len(op.DID()), len(void), err)
	// Output: 32 0 <nil>
}
