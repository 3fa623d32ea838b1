// Package identity resolves handles to DIDs and DIDs to documents, checks that both agree, and caches what it learned.
//
// Specification: https://atproto.com/specs/handle and https://atproto.com/specs/did.
//
// Handles are resolved by DNS TXT and by HTTPS at once, DNS wins; did:plc through a configurable PLC directory; did:web at
// the host it names. [Lookup] confirms a handle both ways.
//
//	id, err := identity.Lookup(ctx, "alice.example.com")
//	fmt.Println(id.DID, id.PDS, id.SigningKey.DIDKey())
//
// The functions of the package ask [Default]. A [Directory] of one's own may be given an HTTP client, a DNS resolver and a
// clock, as services and tests do; without, it takes the system's, and connects to no private address.
//
//	dir := identity.New(identity.Options{PLC: "http://localhost:2582"})
//	doc, err := dir.ResolveDID(ctx, did)        // without the handle: what verification needs
//	doc, fresh, err := dir.Refresh(ctx, did)    // after a bad signature: asks again, but not too often
//	dir.Purge(did)                              // after #identity
//
// The package doesn't audit did:plc operation logs (package plc does) and doesn't check that a PDS hosts an account.
//
// Limits: 64 KiB a DID document, 2 KiB an answer for a handle, 3 redirects, 10 s in all for a lookup, a rate of lookups
// for each host, and a cache bounded in bytes.
package identity

import (
	"errors"
	"fmt"
	"time"

	"github.com/barograph/baro/syntax"
)

// DefaultPLC is the public did:plc directory.
const DefaultPLC = "https://plc.directory"

// Sizes of answers in bytes.
const (
	MaxDocument   = 64 << 10
	MaxHandleBody = 2 << 10
)

const maxRedirects = 3

// Kind says why a resolution failed.
type Kind string

// Kinds of [Error].
const (
	KindNotFound       Kind = "not found"          // nothing answers for the name, or the DID is unknown or tombstoned
	KindUnreachable    Kind = "unreachable"        // network, server error or timeout: may work later
	KindMalformed      Kind = "malformed"          // an answer that breaks the specification, or is too large
	KindAmbiguous      Kind = "ambiguous"          // several DIDs for one handle
	KindHandleMismatch Kind = "handle mismatch"    // the handle leads to a DID whose document doesn't claim it
	KindUnsupported    Kind = "unsupported method" // a DID method, path or port that the protocol doesn't use
	KindLimited        Kind = "rate limited"       // too many lookups at that host for the caller's deadline
)

// Error is the one error type of this package.
type Error struct {
	Op      string // "resolving handle", "resolving DID" or "looking up"
	Subject string // the handle or DID
	Kind    Kind
	Err     error // cause; may be nil
}

// Error names operation, subject, kind and cause.
func (e *Error) Error() string {
	s := fmt.Sprintf("%s %.256q: %s", e.Op, e.Subject, e.Kind)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Temporary reports whether the same question may be answered later: the other side was not reached, or was asked too much.
func (e *Error) Temporary() bool { return e.Kind == KindUnreachable || e.Kind == KindLimited }

// KindOf returns the kind of the [*Error] in err, "" if there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return ""
}

// Identity is a DID document with a handle that was confirmed or found wanting. Don't change it: it may be shared.
type Identity struct {
	*Document
	// Handle is the document's handle if it leads back to the DID, [syntax.InvalidHandle] otherwise.
	Handle    syntax.Handle
	HandleErr error // why Handle is invalid; nil if it isn't
	// Fetched is when the older of document and handle was asked for, and Age how long ago that was at the lookup.
	Fetched time.Time
	Age     time.Duration
	// Stale says that one of them should have been asked for again, but that failed: see Options.StaleIfError.
	Stale bool
}
