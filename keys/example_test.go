package keys_test

import (
	"crypto/rand"
	"fmt"

	"github.com/barograph/baro/keys"
)

func ExamplePublicKey_Verify() {
	key, _ := keys.Generate(keys.K256, rand.Reader)
	sig, _ := key.Sign([]byte("message"))
	pub, _ := keys.ParseDIDKey(key.Public().DIDKey())
	fmt.Println(pub.Verify([]byte("message"), sig))
	fmt.Println(pub.Verify([]byte("another"), sig))
	// Output:
	// <nil>
	// signature does not verify
}
