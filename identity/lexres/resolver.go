package lexres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/identity/internal/cache"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// Limits of what DNS may answer.
const (
	maxValues = 64
	maxName   = 253
)

// maxAhead is how far a revision may lie in the future before it is taken for a lie, which would shut out all that come after it.
const maxAhead = 5 * time.Minute

// Resolver resolves and caches. It is safe for concurrent use.
type Resolver struct {
	o           Options
	authorities *cache.Cache[*Authority]
	records     *cache.Cache[*Resolution]
	schemas     *cache.Cache[*lexicon.Schema] // by CID
	seen        revisions
}

// New returns a resolver.
func New(o Options) *Resolver {
	if o.Resolver == nil || o.Directory == nil || o.Now == nil || o.HTTP == nil {
		panic("lexres: Options need Resolver, Directory, HTTP and Now")
	}
	def(&o.TTL, 5*time.Minute)
	def(&o.NegativeTTL, 30*time.Second)
	def(&o.StaleIfError, 24*time.Hour)
	def(&o.Timeout, 15*time.Second)
	def(&o.CacheBytes, 16<<20)
	r := &Resolver{o: o}
	r.authorities = newCache(o, o.CacheBytes/8, func(a *Authority) int { return 1024 })
	r.records = newCache(o, o.CacheBytes*3/8, func(x *Resolution) int { return 4096 })
	forever := o
	forever.TTL = 100 * 365 * 24 * time.Hour
	r.schemas = newCache(forever, o.CacheBytes/2, func(s *lexicon.Schema) int { return 12 * len(s.Raw) })
	r.seen.m = map[syntax.DID]syntax.TID{}
	return r
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

func newCache[V any](o Options, size int, cost func(V) int) *cache.Cache[V] {
	return cache.New(cache.Options[V]{
		Now: o.Now, TTL: o.TTL, Negative: o.NegativeTTL, Stale: o.StaleIfError, MaxCost: size, Cost: cost,
		Transient: func(err error) bool { return KindOf(err) == KindUnreachable },
	})
}

// name checks an NSID and brings its authority into lower case.
func name(id syntax.NSID) (syntax.NSID, error) {
	if _, err := syntax.ParseNSID(string(id)); err != nil {
		return "", &Error{NSID: id, Kind: KindBadName, Err: err}
	}
	id = id.Normalize()
	if n := DNSName(id); len(n) > maxName {
		return "", &Error{NSID: id, Kind: KindBadName, Domain: id.Authority(), Err: fmt.Errorf("%.40s… has %d characters, DNS allows %d", n, len(n), maxName)}
	}
	return id, nil
}

// Authority asks DNS whose schemas those of the NSID's group are.
func (r *Resolver) Authority(ctx context.Context, id syntax.NSID) (*Authority, error) {
	id, err := name(id)
	if err != nil {
		return nil, err
	}
	a := r.authorities.Get(ctx, id.Authority(), -1, func(ctx context.Context) (*Authority, error) { return r.askDNS(ctx, id) })
	if a.Err != nil {
		return nil, renamed(a.Err, id)
	}
	if !a.Stale {
		return a.Value, nil
	}
	stale := *a.Value
	stale.Stale = true
	return &stale, nil
}

// renamed makes an error that is shared by a group one of a name.
func renamed(err error, id syntax.NSID) error {
	e, ok := err.(*Error)
	if !ok || e.NSID == id {
		return err
	}
	c := *e
	c.NSID = id
	return &c
}

func (r *Resolver) askDNS(ctx context.Context, id syntax.NSID) (*Authority, error) {
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	e := &Error{NSID: id, Domain: id.Authority()}
	if syntax.Handle(e.Domain).Reserved() {
		e.Kind, e.Err = KindNoAuthority, errors.New("no name under this top-level domain resolves")
		return nil, e
	}
	txt, err := r.lookup(ctx, DNSName(id))
	if err != nil {
		var dns *net.DNSError
		if errors.As(err, &dns) && dns.IsNotFound {
			e.Kind, e.Err = KindNoAuthority, fmt.Errorf("%s has no TXT record", DNSName(id))
			return nil, e
		}
		e.Kind, e.Err = KindUnreachable, fmt.Errorf("asking for %s: %w", DNSName(id), err)
		return nil, e
	}
	e.Values = shorten(txt)
	if len(txt) > maxValues {
		e.Kind, e.Err = KindAmbiguous, fmt.Errorf("%s has %d TXT values", DNSName(id), len(txt))
		return nil, e
	}
	var found syntax.DID
	for _, t := range txt {
		v, ok := strings.CutPrefix(t, "did=")
		if !ok {
			continue // a record of something else that lives under the name
		}
		did, err := syntax.ParseDID(v)
		if err != nil {
			continue
		}
		if found != "" && found != did {
			e.Kind, e.Err = KindAmbiguous, fmt.Errorf("%s names both %s and %s", DNSName(id), found, did)
			return nil, e
		}
		found = did
	}
	if found == "" {
		e.Kind, e.Err = KindNoAuthority, fmt.Errorf("%s has no TXT record with a DID", DNSName(id))
		return nil, e
	}
	return &Authority{Domain: e.Domain, DID: found, Values: e.Values, Fetched: r.o.Now()}, nil
}

// lookup asks DNS, and doesn't wait for a resolver that takes no notice of the context.
func (r *Resolver) lookup(ctx context.Context, name string) ([]string, error) {
	txt, err := r.o.Resolver.LookupTXT(ctx, name)
	if err == nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return txt, err
}

// Resolve finds the schema of an NSID.
func (r *Resolver) Resolve(ctx context.Context, id syntax.NSID) (*Resolution, error) {
	a, err := r.Authority(ctx, id)
	if err != nil {
		return nil, err
	}
	found, err := r.ResolveAt(ctx, a.DID, id)
	if err != nil {
		if e, ok := err.(*Error); ok {
			c := *e
			c.Domain, c.Values = a.Domain, a.Values
			return nil, &c
		}
		return nil, err
	}
	c := *found
	c.Authority = a
	c.Stale = c.Stale || a.Stale
	return &c, nil
}

// ResolveAt finds the schema of an NSID in the repository of an account, whatever DNS says.
func (r *Resolver) ResolveAt(ctx context.Context, did syntax.DID, id syntax.NSID) (*Resolution, error) {
	id, err := name(id)
	if err != nil {
		return nil, err
	}
	a := r.records.Get(ctx, recordKey(did, id), -1, func(ctx context.Context) (*Resolution, error) { return r.fetch(ctx, did, id) })
	if a.Err != nil {
		return nil, a.Err
	}
	if !a.Stale {
		return a.Value, nil
	}
	stale := *a.Value
	stale.Stale = true
	return &stale, nil
}

func recordKey(did syntax.DID, id syntax.NSID) string { return string(did) + "/" + string(id) }

// Schema is [Resolver.Resolve] for who wants only the schema. Whether it is stale or not makes no difference then.
func (r *Resolver) Schema(ctx context.Context, id syntax.NSID) (*lexicon.Schema, error) {
	found, err := r.Resolve(ctx, id)
	if err != nil {
		return nil, err
	}
	return found.Schema, nil
}

// Purge forgets what is known of an NSID: the record, and where its group is. Schemas are kept by CID and don't change.
func (r *Resolver) Purge(id syntax.NSID) {
	id = id.Normalize()
	if a, ok := r.authorities.Purge(id.Authority()); ok {
		r.records.Purge(recordKey(a.DID, id))
	}
}

// PurgeAt forgets the schema of an NSID in the repository of an account. It is for events of the stream that tell of a change.
func (r *Resolver) PurgeAt(did syntax.DID, id syntax.NSID) {
	r.records.Purge(recordKey(did, id.Normalize()))
}

// Saw tells of a revision of an account's repository, behind which no answer may go back: that of a write, or of a commit on the
// stream.
func (r *Resolver) Saw(did syntax.DID, rev syntax.TID) { r.seen.newest(did, rev) }

// fetch gets a schema with its proof, and tries once more with a fresh document when the signature doesn't verify, since keys change.
func (r *Resolver) fetch(ctx context.Context, did syntax.DID, id syntax.NSID) (*Resolution, error) {
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	fail := func(k Kind, err error) (*Resolution, error) {
		if ctx.Err() != nil && outer.Err() == nil && k != KindUnreachable {
			k = KindUnreachable // the time was up, whatever it broke off
		}
		return nil, &Error{NSID: id, Kind: k, Domain: id.Authority(), DID: did, Err: err}
	}
	doc, err := r.o.Directory.ResolveDID(ctx, did)
	if err != nil {
		return fail(kindOfIdentity(err), err)
	}
	p, kind, err := r.proof(ctx, doc, id)
	if v, ok := errors.AsType[*repo.VerifyError](err); ok && v.Reason == repo.ReasonSignature {
		if fresh, _, rerr := r.o.Directory.Refresh(ctx, did); rerr == nil && fresh.SigningKey != nil && !fresh.SigningKey.Equal(doc.SigningKey) {
			doc = fresh
			p, kind, err = r.proof(ctx, doc, id)
		}
	}
	if err != nil {
		return fail(kind, err)
	}
	rev := p.Commit.Rev
	if at := rev.Time(); at.Sub(r.o.Now()) > maxAhead {
		return fail(KindProof, fmt.Errorf("revision %s is of %s, which is to come", rev, at.UTC().Format(time.RFC3339)))
	}
	if newest := r.seen.newest(did, rev); newest > rev {
		return fail(KindRollback, fmt.Errorf("the PDS proves revision %s, and %s was there before", rev, newest))
	}
	if !p.Found() {
		return fail(KindNotFound, fmt.Errorf("%s has no %s: its absence is proven", did, URI(did, id).Path()))
	}
	schema, err := r.parse(ctx, id, p.CID, p.Record)
	if err != nil {
		return fail(KindSchema, err)
	}
	return &Resolution{
		NSID: id, URI: URI(did, id), CID: p.CID, Schema: schema,
		DID: did, PDS: doc.PDS, Key: doc.SigningKey, Commit: p.CommitCID, Rev: rev, Steps: p.Steps, Fetched: r.o.Now(),
	}, nil
}

// proof gets a proof that is signed by the key of the document.
func (r *Resolver) proof(ctx context.Context, doc *identity.Document, id syntax.NSID) (*repo.Proof, Kind, error) {
	switch {
	case doc.PDS == "":
		return nil, KindIdentity, fmt.Errorf("the document of %s names no PDS", doc.DID)
	case doc.SigningKey == nil:
		return nil, KindIdentity, fmt.Errorf("the document of %s has no signing key", doc.DID)
	}
	p, err := r.fetchProof(ctx, doc, URI(doc.DID, id))
	if err != nil {
		return nil, kindOfProof(err), err
	}
	if !p.Signed {
		return nil, KindProof, errors.New("the signature of the commit was not verified")
	}
	return p, "", nil
}

// fetchProof gets the proof from what is at hand, or from the PDS.
func (r *Resolver) fetchProof(ctx context.Context, doc *identity.Document, uri syntax.ATURI) (*repo.Proof, error) {
	if r.o.Local != nil {
		b, err := r.o.Local(ctx, uri)
		if err != nil {
			return nil, err
		}
		if b != nil {
			return repo.VerifyProof(b, doc.DID, uri.Path(), doc.SigningKey)
		}
	}
	c := client.New(doc.PDS, client.Options{HTTP: r.o.HTTP, Timeout: r.o.Timeout, Now: r.o.Now})
	return c.Proof(ctx, uri, doc.SigningKey)
}

func kindOfIdentity(err error) Kind {
	switch identity.KindOf(err) {
	case identity.KindUnreachable, identity.KindLimited, "":
		return KindUnreachable
	}
	return KindIdentity
}

func kindOfProof(err error) Kind {
	if _, ok := errors.AsType[*repo.VerifyError](err); ok {
		return KindProof
	}
	if errors.Is(err, client.ErrTooLarge) {
		return KindProof
	}
	if errors.Is(err, client.ErrRecordNotFound) {
		return KindUnproven
	}
	x, ok := errors.AsType[*xrpc.Error](err)
	if !ok {
		return KindUnreachable
	}
	for _, gone := range []xrpc.ErrorName{comatproto.ErrRepoNotFound, comatproto.ErrRepoTakendown, comatproto.ErrRepoSuspended, comatproto.ErrRepoDeactivated} {
		if errors.Is(err, gone) {
			return KindInactive
		}
	}
	if x.Status >= 500 && x.Status != http.StatusNotImplemented || x.Status == http.StatusTooManyRequests || x.Status == http.StatusRequestTimeout {
		return KindUnreachable
	}
	return KindUnproven
}

// parse reads a record that is proven, once for each CID.
func (r *Resolver) parse(ctx context.Context, id syntax.NSID, c cid.CID, record []byte) (*lexicon.Schema, error) {
	a := r.schemas.Get(ctx, c.String(), -1, func(context.Context) (*lexicon.Schema, error) { return ParseRecord(id, record) })
	if a.Err != nil {
		return nil, a.Err
	}
	if a.Value.ID != id { // of two names with one record at most one is right
		return nil, fmt.Errorf("the record says that it is %.320q", string(a.Value.ID))
	}
	return a.Value, nil
}

// ParseRecord reads the schema in a record, in DAG-CBOR, that is found under the name of id.
func ParseRecord(id syntax.NSID, record []byte) (*lexicon.Schema, error) {
	if t := data.TypeOf(record); t != string(Collection) {
		return nil, fmt.Errorf("its $type is %.320q", t)
	}
	s, err := lexicon.ParseRecord(bytes.Clone(record)) // a view of a proof would keep all of it
	if err != nil {
		return nil, err
	}
	if s.ID != id {
		return nil, fmt.Errorf("the record says that it is %.320q", string(s.ID))
	}
	return s, nil
}

// revisions are the newest ones that were seen of each account.
type revisions struct {
	mu sync.Mutex
	m  map[syntax.DID]syntax.TID
}

const maxRevisions = 16 << 10

// newest remembers a revision if it is the newest, and returns the one that is.
func (s *revisions) newest(did syntax.DID, rev syntax.TID) syntax.TID {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.m[did]
	if ok && old >= rev {
		return old
	}
	if !ok && len(s.m) >= maxRevisions {
		for d := range s.m { // any will do: it only loses its protection
			delete(s.m, d)
			break
		}
	}
	s.m[did] = rev
	return rev
}

// Source is the resolver as a source of schemas for a [lexicon.Catalog], see [lexicon.NewResolvingCatalog]. The context is that of the
// work that the catalog is for. That there is no schema is certain only if its absence is proven, or if nobody has the authority.
func (r *Resolver) Source(ctx context.Context) lexicon.Source { return source{r, ctx} }

type source struct {
	r   *Resolver
	ctx context.Context
}

// Lookup implements [lexicon.Source].
func (s source) Lookup(id syntax.NSID) (*lexicon.Schema, error) {
	schema, err := s.r.Schema(s.ctx, id)
	switch KindOf(err) {
	case KindNotFound, KindNoAuthority, KindBadName:
		err = fmt.Errorf("%w: %w", lexicon.ErrUnknownSchema, err)
	}
	return schema, err
}
