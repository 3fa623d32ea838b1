package xrpc_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/xrpc"
)

// A server of one method, and a client that calls it.
func Example() {
	server := xrpc.NewServer(xrpc.ServerOptions{})
	xrpc.HandleQuery(server, comatproto.IdentityResolveHandle,
		func(_ context.Context, _ *xrpc.Request, p *comatproto.IdentityResolveHandle_Params) (*comatproto.IdentityResolveHandle_Output, error) {
			if p.Handle != "alice.test" {
				return nil, comatproto.ErrHandleNotFound.With("there is no %s", p.Handle)
			}
			return &comatproto.IdentityResolveHandle_Output{Did: "did:web:alice.test"}, nil
		})
	host := httptest.NewServer(server)
	defer host.Close()

	client := &xrpc.Client{Host: host.URL}
	for _, handle := range []string{"alice.test", "bob.test", "not a handle"} {
		out, err := comatproto.IdentityResolveHandle.Call(context.Background(), client, &comatproto.IdentityResolveHandle_Params{Handle: handle})
		switch {
		case errors.Is(err, comatproto.ErrHandleNotFound):
			fmt.Println("not found:", handle)
		case err != nil:
			fmt.Println(err)
		default:
			fmt.Println(out.Did)
		}
	}
	// Output:
	// did:web:alice.test
	// not found: bob.test
	// calling com.atproto.identity.resolveHandle: 400 InvalidRequest: parameter handle: invalid handle "not a handle": character not allowed
}
