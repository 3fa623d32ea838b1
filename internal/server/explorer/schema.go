package explorer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"

	"github.com/barograph/baro/data"
	"github.com/barograph/baro/identity/lexres"
	"github.com/barograph/baro/internal/foreign"
	"github.com/barograph/baro/internal/lexsite"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/lexicon/lexlint"
	"github.com/barograph/baro/lexicons"
	"github.com/barograph/baro/syntax"
)

// States of a schema and of a record's check against it.
const (
	schemaBuiltIn    = "built in"    // part of this program
	schemaVerified   = "verified"    // published, and proven by the repository of its authority
	schemaUnresolved = "unresolved"  // it can't be had
	checkValid       = "valid"       //
	checkInvalid     = "invalid"     //
	checkUnknown     = "unknown"     // there is certainly no schema, or none that can be used
	checkNone        = "not checked" // the schema couldn't be had in time
)

// SchemaCheck is how a record stands to its schema.
type SchemaCheck struct {
	State    string      `json:"state"`
	Known    bool        `json:"known"` // the schema was at hand
	Valid    bool        `json:"valid"`
	Source   string      `json:"source,omitempty"`  // built in or verified
	Reason   string      `json:"reason,omitempty"`  // why it is unknown or not checked
	Problem  string      `json:"problem,omitempty"` // the first finding, in one line
	Findings []Violation `json:"findings,omitempty"`
	More     bool        `json:"more,omitempty"` // there are more findings than these
}

// Violation is a rule that a record breaks.
type Violation struct {
	Rule   string `json:"rule"`
	Path   string `json:"path,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// knownSchema is a schema with the catalog that has what it refers to.
type knownSchema struct {
	schema  *lexicon.Schema
	catalog *lexicon.Catalog
	proof   *lexres.Resolution // nil: built in
}

// schema finds a schema and what it refers to: built in, or published, within the time that a page has for it. The answer of a
// page that doesn't wait for it serves the next one: the resolver keeps it.
func (s *Service) schema(ctx context.Context, id syntax.NSID) (*knownSchema, error) {
	base := s.catalog()
	if own := base.Schema(id); own != nil {
		return &knownSchema{own, base, nil}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SchemaTimeout)
	defer cancel()
	proof, err := s.resolver.Resolve(ctx, id)
	if err != nil {
		return nil, err
	}
	// What is missing of that which it refers to shows in the findings.
	all, _, err := lexres.Closure(ctx, proof.Schema.Dependencies(), maxSchemas, func(ctx context.Context, id syntax.NSID) (*lexicon.Schema, []syntax.NSID, error) {
		if base.Schema(id) != nil {
			return nil, nil, nil
		}
		r, err := s.resolver.Resolve(ctx, id)
		if err != nil {
			return nil, nil, err
		}
		return r.Schema, r.Schema.Dependencies(), nil
	})
	if err != nil {
		all = nil
	}
	cat := lexicon.NewResolvingCatalog(func(id syntax.NSID) (*lexicon.Schema, error) {
		if own := base.Schema(id); own != nil {
			return own, nil
		}
		if x := all[id.Normalize()]; x != nil {
			return x, nil
		}
		return nil, fmt.Errorf("%w: %s", lexicon.ErrUnknownSchema, id)
	})
	cat.Add(proof.Schema)
	return &knownSchema{proof.Schema, cat, proof}, nil
}

// newResolver makes the resolver of published schemas.
func newResolver(s *Service, w world.World) *lexres.Resolver {
	return lexres.New(lexres.Options{
		Resolver: w.Resolver, Directory: s.dir, Now: w.Clock.Now, Timeout: s.cfg.Timeout,
		HTTP: w.HTTPClient(netguard.ClientOptions{Timeout: s.cfg.Timeout, MaxBody: maxProof + 1, UserAgent: userAgent, Redirects: 2}),
	})
}

// reason says for people why a schema can't be had, and whether that is certain.
func (s *Service) reason(err error) (text string, certain bool) {
	e, ok := errors.AsType[*lexres.Error](err)
	if !ok {
		return "The schema couldn’t be had in time: " + s.upstream(err) + ".", false
	}
	name := lexres.DNSName(e.NSID)
	switch e.Kind {
	case lexres.KindBadName:
		return "It is no name that a schema can be published under.", true
	case lexres.KindNoAuthority:
		return "Nobody is named for it: DNS has no DID at " + name + ".", true
	case lexres.KindAmbiguous:
		return "DNS names several DIDs at " + name + ".", true
	case lexres.KindNotFound:
		return "Its authority, " + string(e.DID) + ", has published no such schema. That is proved.", true
	case lexres.KindInactive:
		return "The account of its authority, " + string(e.DID) + ", is not active.", true
	case lexres.KindSchema:
		return "What its authority published under this name is no schema.", true
	case lexres.KindUnproven, lexres.KindProof, lexres.KindRollback:
		return "What the PDS of its authority says is not proved (" + string(e.Kind) + "), so it is not used.", false
	}
	return "The schema couldn’t be had (" + string(e.Kind) + "): " + s.upstream(e.Err) + ".", false
}

// checkSchema holds a record against its schema. f may be nil, with the reason in err.
func (s *Service) checkSchema(p *RecordPage, nsid syntax.NSID, rkey syntax.RecordKey, f *knownSchema, err error) {
	c := &p.Schema
	if err != nil {
		var certain bool
		c.Reason, certain = s.reason(err)
		c.State = map[bool]string{true: checkUnknown, false: checkNone}[certain]
		return
	}
	c.Known, c.Source, c.State = true, schemaBuiltIn, checkInvalid
	if f.proof != nil {
		c.Source = schemaVerified
	}
	if len(p.Violations) > 0 {
		c.Problem = "It isn’t valid in the data model, which comes before any schema."
		return
	}
	err = f.catalog.With(lexicon.Options{AllowLegacyBlobs: true, Findings: maxFindings}).ValidateRecord(nsid, p.Value)
	if errors.Is(err, lexicon.ErrUnknownSchema) {
		c.Known, c.State, c.Reason = false, checkUnknown, "The schema is of no record, or refers to one that isn’t known."
		return
	}
	kerr := f.catalog.ValidateRecordKey(nsid, rkey)
	for _, e := range append(lexicon.Findings(err), lexicon.Findings(kerr)...) {
		detail := e.Detail
		if e.Err != nil {
			detail = strings.TrimPrefix(detail+": "+e.Err.Error(), ": ")
		}
		c.Findings = append(c.Findings, Violation{string(e.Rule), foreign.Line(e.Path, 200), foreign.Line(detail, 300)})
	}
	c.More = len(lexicon.Findings(err)) >= maxFindings
	if err = errors.Join(err, kerr); err == nil {
		err = data.CheckRecord(p.Value)
	}
	if err == nil {
		c.Valid, c.State = true, checkValid
		return
	}
	if len(c.Findings) == 0 {
		c.Problem = foreign.Line(err.Error(), 300)
	}
}

// violations reads a record that breaks the data model: by what names, and what of it can be shown.
func violations(raw []byte) (list []Violation, more bool, text json.RawMessage) {
	b, l, err := data.AppendJSONLenient(nil, raw)
	if err != nil {
		return []Violation{{Rule: "encoding", Detail: foreign.Line(err.Error(), 300)}}, false, nil
	}
	for _, v := range l.Violations[:min(len(l.Violations), maxFindings)] {
		list = append(list, Violation{string(v.Rule), foreign.Line(v.Path, 200), foreign.Line(v.Detail, 300)})
	}
	return list, l.More || len(l.Violations) > maxFindings, b
}

// LexiconPage is a schema.
type LexiconPage struct {
	NSID   string          `json:"nsid"`
	State  string          `json:"state"`
	Known  bool            `json:"known"`
	Kind   string          `json:"kind,omitempty"` // of its main definition
	Reason string          `json:"reason,omitempty"`
	Proof  *SchemaProof    `json:"proof,omitempty"`
	Page   *lexsite.Page   `json:"page,omitempty"`
	Schema json.RawMessage `json:"schema,omitempty"`
	Body   template.HTML   `json:"-"`
	Live   LiveList        `json:"live"`
}

// SchemaProof is how a published schema was proven.
type SchemaProof struct {
	URI     string    `json:"uri"`
	CID     string    `json:"cid"`
	DID     string    `json:"did"`
	DNS     string    `json:"dns"` // name of the TXT record
	Commit  string    `json:"commit"`
	Rev     string    `json:"rev"`
	Fetched time.Time `json:"fetched"`
	Stale   bool      `json:"stale,omitempty"` // it should have been fetched again, but that failed
	Href    string    `json:"-"`
}

// schemaHref is the page of a definition.
func schemaHref(ref string) string {
	id, name, ok := strings.Cut(ref, "#")
	if !syntax.ValidNSID(id) {
		return ""
	}
	h := lexiconHref(id)
	if ok {
		h += "#" + lexsite.Anchor(name)
	}
	return h
}

func (s *Service) lexicon(ctx context.Context, r *http.Request) (*View, error) {
	name := bare(r, "nsid")
	nsid, err := syntax.ParseNSID(name)
	if err != nil {
		return nil, badRequest("“"+foreign.Line(name, 100)+"” is not the name of a lexicon.", "It looks like app.bsky.feed.post.")
	}
	nsid = nsid.Normalize()
	p := &LexiconPage{NSID: string(nsid), State: schemaUnresolved}
	p.Live = LiveList{Collection: p.NSID, Max: 12, Events: s.named(s.tail.recent(12, filter(p.NSID, "")))}
	p.Live.Href = "/live/events" + strings.TrimPrefix(liveHref(p.NSID, ""), "/live")
	v := &View{Title: p.NSID, Name: "lexicon", Data: p, Query: p.NSID}
	f, err := s.schema(ctx, nsid)
	if err != nil {
		p.Reason, _ = s.reason(err)
		return v, nil
	}
	p.Known, p.State = true, schemaBuiltIn
	entry := lexsite.Entry{Schema: f.schema}
	graph := s.graph()
	if f.proof != nil {
		x := f.proof
		p.State = schemaVerified
		p.Proof = &SchemaProof{
			URI: string(x.URI), CID: x.CID.String(), DID: string(x.DID), DNS: lexres.DNSName(nsid), Commit: x.Commit.String(), Rev: string(x.Rev),
			Fetched: x.Fetched, Stale: x.Stale, Href: atHref(string(x.URI)),
		}
		graph = lexicon.NewGraph(f.schema)
		// Of a schema that somebody published today its readers want to know what is wrong with it; those built in are as they are.
		for _, x := range lexlint.Lint(lexlint.Schemas(f.schema), lexlint.Options{Source: f.catalog, Level: lexlint.Warn}) {
			entry.Findings = append(entry.Findings, lexsite.Finding{Level: string(x.Level), Rule: x.Rule, Path: x.Path, Message: x.Message})
		}
	} else if text, err := lexicons.Schema(p.NSID); err == nil {
		entry.JSON = text
	}
	p.Page = lexsite.NewPage(entry, lexsite.Options{Catalog: f.catalog, Graph: graph, Href: schemaHref})
	p.Kind = p.Page.Kind
	if b, err := data.AppendJSON(nil, f.schema.Raw); err == nil {
		p.Schema = b
	}
	if p.Body, err = p.Page.Body(); err != nil {
		return nil, err
	}
	return v, nil
}

// embedded is the catalog of the schemas that are part of the program.
func (s *Service) embedded() *lexicon.Catalog {
	c := lexicon.NewCatalog().With(lexicon.Options{AllowLegacyBlobs: true})
	if err := c.AddFS(lexicons.FS); err != nil { // the schemas are part of the program, and tested
		s.log.Error("reading the embedded schemas", "err", err)
	}
	return c
}
