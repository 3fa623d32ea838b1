package pds

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/identity/lexres"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// Limits of schemas that are looked up because somebody insists on them.
const (
	maxProofBody    = 4 << 20
	schemaTimeout   = 10 * time.Second // for one schema with everything that it refers to
	maxSchemaParts  = 64               // schemas that one may depend on
	maxKeptCatalogs = 128
)

// published are schemas of the network that were resolved to validate with, each with what it depends on.
type published struct {
	mu   sync.Mutex
	kept map[syntax.NSID]*publishedSchema
}

type publishedSchema struct {
	parts   []cid.CID // of the schemas, in the order of their names
	catalog *lexicon.Catalog
}

// openLexicons makes the resolver of schemas. What is in a repository here is read from the store: this server may not be able to
// reach itself by its public name.
func (s *Service) openLexicons() {
	http := s.world.HTTPClient(netguard.ClientOptions{Timeout: schemaTimeout, MaxBody: maxProofBody, UserAgent: "barograph-pds"})
	s.lexicons = lexres.New(lexres.Options{
		Resolver: s.world.Resolver, Directory: s.accounts.directory, HTTP: http, Now: s.world.Clock.Now,
		Timeout: schemaTimeout, CacheBytes: 4 << 20, Local: s.localProof,
	})
	s.published.kept = map[syntax.NSID]*publishedSchema{}
}

// localProof is the proof of a record of an account here; nil for one elsewhere.
func (s *Service) localProof(_ context.Context, uri syntax.ATURI) ([]byte, error) {
	snap := s.store.Snapshot()
	defer snap.Close()
	head, err := loadHead(snap, uri.Authority().DID())
	if err != nil || head == nil || head.Status == hostingDeleted {
		return nil, err
	}
	if head.Status != hostingActive {
		return nil, repoError(head.Status)
	}
	return proofCAR(snap, head, uri.Path())
}

// forgetLexicons drops what is cached of schemas that were written.
func (s *Service) forgetLexicons(did syntax.DID, writes []write) {
	for i := range writes {
		if writes[i].Collection == lexres.Collection {
			s.lexicons.PurgeAt(did, syntax.NSID(writes[i].RKey))
		}
	}
}

// resolveLexicon is com.atproto.lexicon.resolveLexicon. It is counted because each one asks others.
func (s *Service) resolveLexicon(ctx context.Context, r *xrpc.Request, p *comatproto.LexiconResolveLexicon_Params) (*comatproto.LexiconResolveLexicon_Output, error) {
	id, err := syntax.ParseNSID(p.Nsid)
	if err != nil {
		return nil, invalid("nsid: %v", err)
	}
	if err := s.limit(r, "resolveLexicon", ""); err != nil {
		return nil, err
	}
	found, err := s.lexicons.Resolve(ctx, id)
	if err != nil {
		return nil, lexiconFailure(err)
	}
	out := &comatproto.LexiconResolveLexicon_Output{Uri: string(found.URI), Cid: found.CID.String()}
	if err := data.Unmarshal(found.Schema.Raw, &out.Schema); err != nil {
		return nil, fmt.Errorf("reading the schema of %s: %w", id, err)
	}
	return out, nil
}

// lexiconFailure turns an error of resolution into an answer.
func lexiconFailure(err error) error {
	switch lexres.KindOf(err) {
	case "":
		return err
	case lexres.KindUnreachable, lexres.KindProof, lexres.KindUnproven, lexres.KindRollback:
		return refuse(http.StatusBadGateway, "UpstreamFailure", "%s", err)
	}
	return comatproto.ErrLexiconNotFound.With("%s", err)
}

// resolveRecord finds a catalog with the published schema of a collection, for a client that insists on validation.
func (s *Service) resolveRecord(ctx context.Context, id syntax.NSID) (*lexicon.Catalog, *lexicon.Def, error) {
	ctx, cancel := context.WithTimeout(ctx, schemaTimeout)
	defer cancel()
	found, failed, err := lexres.Closure(ctx, []syntax.NSID{id}, maxSchemaParts, func(ctx context.Context, id syntax.NSID) (*lexicon.Schema, []syntax.NSID, error) {
		// What this server knows by itself, it doesn't ask others for.
		if own, err := s.schemas.schema(id); err != nil || own != nil {
			return own, nil, err
		}
		schema, err := s.lexicons.Schema(ctx, id)
		if err != nil {
			return nil, nil, err
		}
		return schema, references(schema), nil
	})
	if many := (*lexres.TooManyError)(nil); errors.As(err, &many) {
		return nil, nil, invalid("the schema of %s can't be validated with: %s", id, err)
	}
	if err == nil {
		err = failed[id]
	}
	if err != nil {
		return nil, nil, invalid("there is no schema of %s to validate with: %s", id, err)
	}
	for name, err := range failed {
		return nil, nil, invalid("the schema of %s refers to %s, which can't be had: %s", id, name, err)
	}
	d := found[id].Main()
	if d == nil || d.Type != lexicon.TypeRecord {
		return nil, nil, invalid("%s is not a collection: its schema is not one of records", id)
	}
	return s.published.catalog(id, found, s.schemas), d, nil
}

// references are the schemas that validation takes.
func references(schema *lexicon.Schema) []syntax.NSID {
	var ids []syntax.NSID
	for _, ref := range schema.References() {
		id, _, _ := strings.Cut(ref, "#")
		ids = append(ids, syntax.NSID(id))
	}
	return ids
}

// catalog returns the catalog of a schema and of what it depends on, the one of last time if nothing has changed.
func (p *published) catalog(id syntax.NSID, found map[syntax.NSID]*lexicon.Schema, own *schemas) *lexicon.Catalog {
	names := make([]syntax.NSID, 0, len(found))
	for name := range found {
		names = append(names, name)
	}
	slices.Sort(names)
	parts := make([]cid.CID, len(names))
	for i, name := range names {
		parts[i] = cid.Sum(cid.DagCBOR, found[name].Raw)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if old := p.kept[id]; old != nil && slices.Equal(old.parts, parts) {
		return old.catalog
	}
	c := lexicon.NewCatalog()
	own.addTo(c, names)
	for _, s := range found {
		c.Add(s)
	}
	if len(p.kept) >= maxKeptCatalogs {
		clear(p.kept) // they are made again in a moment
	}
	p.kept[id] = &publishedSchema{parts, c}
	return c
}
