// Package lexres finds out what the schema of an NSID is: by DNS, the identity behind it, and a proof from its repository.
//
// Specification: https://atproto.com/specs/lexicon#lexicon-publication-and-resolution.
//
// A [Resolver] asks DNS for the TXT record `_lexicon.` of exactly the NSID's authority, resolves the DID that it names, and fetches
// the record com.atproto.lexicon.schema of that name with its proof from the account's PDS. The proof is checked always: the
// signature of the commit, the way through the tree, the hash of the record. That there is no such record has to be proven too.
//
//	r := lexres.New(lexres.Options{Resolver: dns, Directory: directory, HTTP: guarded, Now: clock.Now})
//	found, err := r.Resolve(ctx, "app.bsky.feed.post")
//	fmt.Println(found.URI, found.CID, found.Schema.Main().Type)
//
//	a, err := r.Authority(ctx, "app.bsky.feed.post")   // DNS only
//	all, err := r.ResolveAll(ctx, lexres.AllOptions{}, id) // with everything that it refers to
//
// What goes wrong is an [*Error] with a Kind. DNS is told of at once: nothing is looked up above or below a name. Answers are kept
// for minutes, schemas by their CID for as long as there is room; an old answer serves when asking fails, and says so.
//
// The package validates nothing against the schemas (package lexicon does) and writes none. It can't know of a newer version than the
// one that a PDS gives out, but it never goes back behind one that it has seen.
//
// Limits: 1 MiB a schema, 4 MiB a proof, 64 TXT values, 15 s in all for one schema, and a cache bounded in bytes.
package lexres

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
)

// Collection is where schemas are: their record key is the NSID.
const Collection syntax.NSID = "com.atproto.lexicon.schema"

// Kind says why a resolution failed.
type Kind string

// Kinds of [Error].
const (
	KindBadName     Kind = "not an NSID"         // or one whose authority is too long for DNS
	KindNoAuthority Kind = "no authority"        // DNS has no TXT record with a DID
	KindAmbiguous   Kind = "ambiguous authority" // DNS has several DIDs
	KindIdentity    Kind = "no such identity"    // the DID doesn't resolve, or has no PDS or no key
	KindUnreachable Kind = "unreachable"         // DNS, the directory or the PDS: may work later
	KindInactive    Kind = "inactive account"    // taken down, deactivated or gone from its PDS
	KindNotFound    Kind = "no such schema"      // its absence is proven
	KindUnproven    Kind = "unproven"            // the PDS doesn't prove what it says
	KindProof       Kind = "bad proof"           // the proof does not hold: the cause is a *repo.VerifyError
	KindRollback    Kind = "rolled back"         // an older state than one seen before
	KindSchema      Kind = "not a schema"        // the record is proven, but is not the schema of this name
)

// Error is the one error type of this package.
type Error struct {
	NSID   syntax.NSID
	Kind   Kind
	Domain string     // that DNS was asked about
	DID    syntax.DID // "" if it didn't come to that
	Values []string   // the TXT values that DNS gave, shortened
	Err    error      // cause; may be nil
}

// Error names the NSID, the kind and the cause.
func (e *Error) Error() string {
	s := fmt.Sprintf("resolving %.320q: %s", string(e.NSID), e.Kind)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Transient reports whether trying again later may help.
func (e *Error) Transient() bool { return e.Kind == KindUnreachable }

// KindOf returns the kind of the [*Error] in err, "" if there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return ""
}

// DNSName returns the name of the TXT record that decides about a schema: "_lexicon.feed.bsky.app" for "app.bsky.feed.post".
func DNSName(id syntax.NSID) string { return "_lexicon." + id.Authority() }

// URI returns where a schema is in the repository of an account.
func URI(did syntax.DID, id syntax.NSID) syntax.ATURI {
	return syntax.NewATURI(syntax.AtIdentifier(did), Collection, syntax.RecordKey(id))
}

// Authority is what DNS says about the names of one group.
type Authority struct {
	Domain  string // "feed.bsky.app"
	DID     syntax.DID
	Values  []string  // the TXT values, shortened
	Fetched time.Time // when DNS was asked
	Stale   bool      // DNS should have been asked again, but that failed
}

// Resolution is a schema and how it was found. Don't change it: it is shared.
type Resolution struct {
	NSID   syntax.NSID
	URI    syntax.ATURI
	CID    cid.CID // of the record
	Schema *lexicon.Schema

	Authority *Authority // nil if the repository was named by the caller
	DID       syntax.DID
	PDS       string
	Key       *keys.PublicKey // that signed the commit
	Commit    cid.CID
	Rev       syntax.TID
	Steps     []repo.Step // of the proof

	Fetched time.Time // when the proof was fetched
	Stale   bool      // it should have been fetched again, but that failed; or DNS should
}

// Directory resolves DIDs. An [*identity.Directory] is one.
type Directory interface {
	ResolveDID(ctx context.Context, did syntax.DID) (*identity.Document, error)
	Refresh(ctx context.Context, did syntax.DID) (doc *identity.Document, fresh bool, err error)
}

var _ Directory = (*identity.Directory)(nil)

// Options tune a [Resolver]. Resolver, Directory, HTTP and Now must be set.
type Options struct {
	Resolver  identity.Resolver
	Directory Directory
	HTTP      *http.Client // guarded against private addresses
	Now       func() time.Time

	// Local returns the proof of a record as com.atproto.sync.getRecord would, for a repository that is at hand: a PDS reads its
	// own. It returns nil for others, which are asked for at their PDS. It may be nil.
	Local func(ctx context.Context, uri syntax.ATURI) ([]byte, error)

	TTL          time.Duration // an answer is good for this long, give or take a tenth; default 5 min
	NegativeTTL  time.Duration // an error is remembered for this long; default 30 s
	StaleIfError time.Duration // an old answer serves so much longer when asking fails; default 24 h; < 0: never
	Timeout      time.Duration // of DNS, identity and proof together; default 15 s
	CacheBytes   int           // bound of the cache; default 16 MiB
}

// shorten makes TXT values of strangers fit for messages.
func shorten(values []string) []string {
	const most, width = 8, 120
	var out []string
	for i, v := range values {
		if i == most {
			return append(out, fmt.Sprintf("… and %d more", len(values)-most))
		}
		v = strings.ToValidUTF8(v, "\ufffd")
		if len(v) > width {
			v = strings.ToValidUTF8(v[:width], "") + "…"
		}
		out = append(out, v)
	}
	return out
}
