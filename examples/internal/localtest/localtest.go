// Package localtest gives the tests of the examples a local network with a few accounts. What the protocol is:
// https://atproto.com/specs/atp.
package localtest

import (
	"testing"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/bsky"
	"github.com/barograph/baro/devnet"
)

// Password is every account's.
const Password = "a quiet barometer"

// Start starts a network in memory, which ends with the test, and makes accounts.
func Start(t *testing.T, handles ...string) (*devnet.Network, []*bsky.Client) {
	t.Helper()
	net, err := devnet.Start(t.Context(), devnet.Options{Memory: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { net.Close() })
	var clients []*bsky.Client
	for _, h := range handles {
		_, err := comatproto.ServerCreateAccount.Call(t.Context(), net.PDS(), &comatproto.ServerCreateAccount_Input{Handle: h, Email: new(h + "@example.com"), Password: new(Password)})
		if err != nil {
			t.Fatal(err)
		}
		c, err := bsky.Login(t.Context(), h, Password, bsky.Options{PDS: net.URLs().PDS, HTTP: net.HTTP(), Identity: net.Directory()})
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	return net, clients
}
