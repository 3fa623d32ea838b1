// Package xrpc calls and serves the HTTP methods of the protocol.
//
// Specification: https://atproto.com/specs/xrpc.
//
// A method is a descriptor that is generated from its lexicon, such as comatproto.RepoGetRecord: a [Query], [Procedure] or
// [Subscription], with the Go types of its parameters, input and output. A [Client] calls it and a [Server] routes it:
//
//	c := &xrpc.Client{Host: "https://pds.example.com"}
//	out, err := comatproto.IdentityResolveHandle.Call(ctx, c, &comatproto.IdentityResolveHandle_Params{Handle: "alice.test"})
//
//	s := xrpc.NewServer(xrpc.ServerOptions{})
//	xrpc.HandleQuery(s, comatproto.IdentityResolveHandle,
//		func(ctx context.Context, r *xrpc.Request, p *comatproto.IdentityResolveHandle_Params) (*comatproto.IdentityResolveHandle_Output, error) {
//			return nil, comatproto.ErrHandleNotFound.With("no account %s", p.Handle)
//		})
//	http.ListenAndServe(addr, s)
//
// An answer that is no success is an [*Error], on both sides; errors.Is finds it by its [ErrorName]. A client that got no
// usable answer says so by a [*TransportError], which tells whether the server may have acted. With a [Retry] it repeats
// what is safe to repeat, with a [Pacer] it keeps to the budget that a server grants. What came with an answer is in its
// [Meta], by the Response methods or [WithMeta]. Lists are read by Pages and [Items].
//
// The server checks parameters against the limits of their lexicon, and of inputs that they have the right shape, not their
// limits. The package knows how to carry credentials but not what they are: that is package auth. WebSockets are the
// subject of package stream; [HandleSubscription] gives it the request.
//
// Limits: bodies are capped on both sides, see [Client] and [ServerOptions]; the nesting of JSON at 4,096. The API is
// settling; descriptors are stable.
package xrpc

import (
	"io"
	"net/http"
)

// None is the type of parameters, inputs and outputs that a method doesn't have.
type None struct{}

// Body is an input that isn't JSON.
type Body struct {
	Reader io.Reader
	Type   string // MIME type
	Length int64  // bytes; ≤ 0 if not known
}

// Stream is an output that isn't JSON. Who receives one closes the Body.
type Stream struct {
	Body   io.ReadCloser
	Type   string      // MIME type
	Length int64       // bytes; ≤ 0 if not known
	Header http.Header // of the response; a server may leave it nil
}

// Query describes a method that only reads, an HTTP GET. P is the struct of its parameters, O its output: a struct, or
// [Stream] if it isn't JSON.
type Query[P, O any] struct {
	NSID    string
	Returns string // MIME type of the output if it isn't JSON
}

// Procedure describes a method that may change something, an HTTP POST. I is the struct of its input or [Body], O that of
// its output or [Stream]; [None] stands for none.
type Procedure[I, O any] struct {
	NSID    string
	Accepts string // MIME type or pattern of the input if it isn't JSON
	Returns string // MIME type of the output if it isn't JSON
}

// ProcedureWithParams describes a procedure that has parameters too.
type ProcedureWithParams[P, I, O any] struct {
	NSID    string
	Accepts string
	Returns string
}

// Subscription describes an event stream over a WebSocket. M is the union of its messages.
type Subscription[P, M any] struct {
	NSID string
}

// Path returns the path of a method: "/xrpc/" and its NSID.
func Path(nsid string) string { return pathPrefix + nsid }

const pathPrefix = "/xrpc/"

const typeJSON = "application/json"
