package explorer

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/internal/foreign"
	"github.com/barograph/baro/syntax"
)

// AccountPage is an account: who it is, where it lives, what it holds.
type AccountPage struct {
	Notices     []Notice        `json:"notices,omitempty"`
	Actor       Actor           `json:"account"`
	Banner      *BlobView       `json:"banner,omitempty"`
	Handle      HandleCheck     `json:"handle"`
	PDS         string          `json:"pds,omitempty"`
	SigningKey  string          `json:"signingKey,omitempty"`
	KeyType     string          `json:"signingKeyType,omitempty"`
	Document    json.RawMessage `json:"didDocument,omitempty"`
	DocTree     *Node           `json:"-"`
	Source      string          `json:"didDocumentSource,omitempty"`
	Fetched     time.Time       `json:"fetched,omitzero"`
	Stale       bool            `json:"stale,omitempty"`
	Audit       *Audit          `json:"audit,omitempty"`
	Host        RepoState       `json:"atPDS"`
	Relay       RepoState       `json:"atRelay"`
	InStep      bool            `json:"inStep"` // PDS and relay have the same revision
	Collections []Collection    `json:"collections"`
	Links       []Source        `json:"links"`
	LinksKnown  bool            `json:"linksKnown"` // the link index answered
	Live        LiveList        `json:"live"`
}

// HandleCheck is the way from the DID to the handle and back.
type HandleCheck struct {
	Claimed  string `json:"claimed,omitempty"` // by the DID document
	Verified bool   `json:"verified"`          // it leads back to the DID
	Problem  string `json:"problem,omitempty"`
}

// RepoState is what a server says of a repository.
type RepoState struct {
	Known   bool   `json:"known"`
	Active  bool   `json:"active"`
	Status  string `json:"status,omitempty"`
	Rev     string `json:"rev,omitempty"`
	Commit  string `json:"commit,omitempty"`
	Problem string `json:"problem,omitempty"`
}

// Collection is a collection of a repository.
type Collection struct {
	NSID    string `json:"nsid"`
	Records int    `json:"records"`
	More    bool   `json:"more,omitempty"` // there are more than were counted
	Counted bool   `json:"counted"`
	Href    string `json:"href"`
	Known   bool   `json:"schemaKnown"`
}

// Group is collections under one authority.
type Group struct {
	Name  string
	Items []Collection
}

// Groups sorts the collections under their authorities.
func (p *AccountPage) Groups() []Group {
	var out []Group
	for _, c := range p.Collections {
		name := syntax.NSID(c.NSID).Authority()
		if i := strings.LastIndexByte(c.NSID, '.'); i > 0 {
			name = c.NSID[:i]
		}
		if len(out) == 0 || out[len(out)-1].Name != name {
			out = append(out, Group{Name: name})
		}
		out[len(out)-1].Items = append(out[len(out)-1].Items, c)
	}
	return out
}

// identify resolves the account in an address.
func (s *Service) identify(ctx context.Context, id string) (*identity.Identity, error) {
	at, err := syntax.ParseAtIdentifier(strings.TrimPrefix(id, "@"))
	if err != nil {
		return nil, badRequest("“"+foreign.Line(id, 100)+"” is neither a handle nor a DID.", "A handle looks like alice.example.com, a DID like did:plc:ewvi7nxzyoun6zhxrhs64oiz.")
	}
	found, err := s.dir.Lookup(ctx, at.Normalize())
	if err == nil {
		return found, nil
	}
	e := &pageError{http.StatusNotFound, "NotFound", "No such account", "", ""}
	switch kind := identity.KindOf(err); kind {
	case identity.KindNotFound:
		e.Text = "Nobody answers for " + string(at) + "."
		e.Hint = "It may be misspelled, deleted, or known to another directory than " + s.cfg.PLCURL + "."
	case identity.KindHandleMismatch, identity.KindAmbiguous:
		e.Text = "The handle " + string(at) + " doesn’t lead to one account that claims it (" + string(kind) + ")."
		e.Hint = "If you know the account’s DID, search for that."
	case identity.KindUnsupported, identity.KindMalformed:
		e.Text = "What " + string(at) + " leads to can’t be used: " + s.upstream(err) + "."
	default:
		e.Status, e.Name, e.Title = http.StatusBadGateway, "UpstreamFailure", "Who this is can’t be found out now"
		e.Text = "Resolving " + string(at) + " failed: " + s.upstream(err) + "."
		e.Hint = "The directory or the account’s domain may be down. Try again in a moment."
	}
	return nil, e
}

func (s *Service) account(ctx context.Context, r *http.Request) (*View, error) {
	id := bare(r, "id")
	var n notices
	found, err := s.identify(ctx, id)
	if err != nil {
		// A DID whose document can't be fetched still has a page: with what others know of it.
		var e *pageError
		if !errors.As(err, &e) || e.Status != http.StatusBadGateway || !syntax.ValidDID(id) {
			return nil, err
		}
		n.add("Identity", e.Text+" "+e.Hint)
		found = &identity.Identity{Document: &identity.Document{DID: syntax.DID(id)}, Handle: syntax.InvalidHandle}
	}
	did := string(found.DID)
	p := &AccountPage{
		Actor: s.identified(found), PDS: found.PDS, Fetched: found.Fetched, Stale: found.Stale,
		Collections: []Collection{}, Links: []Source{}, Source: s.documentSource(found.DID),
	}
	p.Handle = HandleCheck{Claimed: string(found.Claimed), Verified: found.Handle != syntax.InvalidHandle}
	if found.HandleErr != nil {
		p.Handle.Problem = s.upstream(found.HandleErr)
	}
	if found.SigningKey != nil {
		p.SigningKey, p.KeyType = found.SigningKey.DIDKey(), keyType(found.SigningKey.Alg())
	}
	if json.Valid(found.Raw) {
		p.Document = found.Raw
		if b, err := data.AppendCBOR(nil, found.Raw); err == nil {
			p.DocTree, _ = tree(b, "") // nil if it is odd; the JSON is shown in any case
		}
	}
	if err == nil && found.PDS == "" {
		n.add("Identity", "The DID document names no PDS, so there is nobody to ask for the repository.")
	}
	p.Live = LiveList{DID: did, Events: s.named(s.tail.recent(8, filter("", did))), Max: 8}
	p.Live.Href = "/live/events" + strings.TrimPrefix(liveHref("", did), "/live")

	name := p.Actor.ID() // while the rest of it is being found out
	g, gctx := errgroup.WithContext(ctx)
	if found.PDS != "" {
		g.Go(func() error { s.collections(gctx, found, name, p, &n); return nil })
		g.Go(func() error {
			s.dress(gctx, &p.Actor)
			if prof, ok := s.profiles.get(did); ok && prof != nil {
				p.Banner = prof.Banner
			}
			return nil
		})
		g.Go(func() error { p.Host = s.repoState(gctx, found.PDS, did); return nil })
	}
	g.Go(func() error {
		p.Relay = s.repoState(gctx, s.cfg.RelayURL, did)
		if p.Relay.Problem != "" {
			n.add("Relay", "It says nothing of this account: "+p.Relay.Problem+".")
		}
		return nil
	})
	if found.DID.IsPLC() {
		g.Go(func() error {
			a, err := s.audit(gctx, found.DID)
			if err != nil {
				n.add("PLC directory", "The log of the identity can’t be read: "+s.upstream(err)+".")
				return nil
			}
			p.Audit = a
			return nil
		})
	}
	if s.cfg.LinksURL != "" {
		g.Go(func() error {
			links, err := s.backlinks(gctx, did, false)
			if err != nil {
				n.add("Link index", "What links here can’t be told: "+s.upstream(err)+".")
				return nil
			}
			p.Links, p.LinksKnown = links, true
			return nil
		})
	}
	_ = g.Wait() // no function returns an error
	p.InStep = p.Host.Rev != "" && p.Host.Rev == p.Relay.Rev
	p.Actor.Active, p.Actor.Status, p.Actor.Rev = p.Host.Active, p.Host.Status, p.Host.Rev
	if !p.Host.Known {
		p.Actor.Active, p.Actor.Status, p.Actor.Rev = p.Relay.Active || !p.Relay.Known, p.Relay.Status, p.Relay.Rev
	}
	p.Notices = n.sorted()
	return &View{Title: p.Actor.ID(), Nav: "accounts", Name: "account", Data: p, URI: "at://" + did}, nil
}

func keyType(alg string) string {
	switch alg {
	case "ES256":
		return "P-256"
	case "ES256K":
		return "K-256 (secp256k1)"
	}
	return alg
}

// documentSource is where the DID document comes from.
func (s *Service) documentSource(did syntax.DID) string {
	if host, ok := did.Host(); ok {
		return "https://" + host + "/.well-known/did.json"
	}
	return s.cfg.PLCURL + "/" + string(did)
}

// repoState asks a relay or PDS for an account's state.
func (s *Service) repoState(ctx context.Context, host, did string) RepoState {
	st, err := comatproto.SyncGetRepoStatus.Call(ctx, s.client(host), &comatproto.SyncGetRepoStatus_Params{Did: did})
	if err != nil {
		return RepoState{Problem: s.upstream(err)}
	}
	out := RepoState{Known: true, Active: st.Active, Status: foreign.Line(deref(st.Status), 40)}
	if rev := deref(st.Rev); syntax.ValidTID(rev) {
		out.Rev = rev
	}
	if st.Active {
		if c, err := comatproto.SyncGetLatestCommit.Call(ctx, s.client(host), &comatproto.SyncGetLatestCommit_Params{Did: did}); err == nil && syntax.ValidCID(c.Cid) {
			out.Commit = c.Cid
			if syntax.ValidTID(c.Rev) {
				out.Rev = c.Rev
			}
		}
	}
	return out
}

// collections lists the collections of a repository, with addresses under name, and counts their records, as far as that is cheap.
func (s *Service) collections(ctx context.Context, id *identity.Identity, name string, p *AccountPage, n *notices) {
	c := s.client(id.PDS)
	out, err := comatproto.RepoDescribeRepo.Call(ctx, c, &comatproto.RepoDescribeRepo_Params{Repo: string(id.DID)})
	if err != nil {
		n.add("PDS", "Its repository can’t be described: "+s.upstream(err)+".")
		return
	}
	sort.Strings(out.Collections)
	for _, nsid := range out.Collections {
		if syntax.ValidNSID(nsid) && len(p.Collections) < 500 {
			known := s.catalog().Schema(syntax.NSID(nsid)) != nil
			p.Collections = append(p.Collections, Collection{NSID: nsid, Href: collectionHref(name, nsid), Known: known})
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(maxConcurrent)
	var failed sync.Once
	for i := range p.Collections[:min(len(p.Collections), maxCounted)] {
		col := &p.Collections[i]
		g.Go(func() error {
			params := comatproto.RepoListRecords_Params{Repo: string(id.DID), Collection: col.NSID, Limit: new(int64(100))}
			pages := 0
			for page, err := range comatproto.RepoListRecords.Pages(gctx, c, params) {
				if err != nil {
					failed.Do(func() { n.add("PDS", "Not all records could be counted: "+s.upstream(err)+".") })
					return nil
				}
				col.Records += len(page.Records)
				col.Counted = true
				if pages++; pages == countPages && deref(page.Cursor) != "" && len(page.Records) > 0 {
					col.More = true
					break
				}
			}
			return nil
		})
	}
	_ = g.Wait() // no function returns an error
}

// CollectionPage lists the records of a collection.
type CollectionPage struct {
	Notices []Notice `json:"notices,omitempty"`
	Actor   Actor    `json:"account"`
	NSID    string   `json:"collection"`
	Known   bool     `json:"schemaKnown"`
	Reverse bool     `json:"reverse"` // the oldest first
	Records []Listed `json:"records"`
	Cursor  string   `json:"cursor,omitempty"`
	First   bool     `json:"-"`
	Next    string   `json:"-"`
	Turned  string   `json:"-"` // the same list the other way round
	Start   string   `json:"-"`
}

// Listed is a record in a list.
type Listed struct {
	Rkey   string      `json:"rkey"`
	CID    string      `json:"cid"`
	URI    string      `json:"uri"`
	Type   string      `json:"type,omitempty"`
	Text   string      `json:"preview,omitempty"`
	Time   time.Time   `json:"time,omitzero"` // of the TID
	Size   int         `json:"size"`
	Images []*BlobView `json:"images,omitempty"`
	Href   string      `json:"href"`
}

func (s *Service) collection(ctx context.Context, r *http.Request) (*View, error) {
	name := bare(r, "collection")
	nsid, err := syntax.ParseNSID(name)
	if err != nil {
		return nil, badRequest("“"+foreign.Line(name, 100)+"” is not the name of a collection.", "A collection is named like app.bsky.feed.post.")
	}
	found, err := s.identify(ctx, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	p := &CollectionPage{Actor: s.identified(found), NSID: string(nsid), Reverse: q.Get("order") == "oldest", Records: []Listed{}, First: q.Get("cursor") == ""}
	p.Known = s.catalog().Schema(nsid) != nil
	id := p.Actor.ID() // while the rest of it is being found out
	base := collectionHref(id, p.NSID)
	p.Start, p.Turned = base, base+"?order=oldest"
	if p.Reverse {
		p.Start, p.Turned = p.Turned, p.Start
	}
	var n notices
	g, gctx := errgroup.WithContext(ctx)
	if found.PDS == "" {
		n.add("Identity", "The DID document names no PDS, so there is nobody to ask for records.")
	} else {
		g.Go(func() error { s.dress(gctx, &p.Actor); return nil })
		g.Go(func() error {
			params := &comatproto.RepoListRecords_Params{Repo: string(found.DID), Collection: p.NSID, Limit: new(int64(pageRecords))}
			if p.Reverse {
				params.Reverse = new(true)
			}
			if cursor := q.Get("cursor"); cursor != "" {
				params.Cursor = &cursor
			}
			out, err := comatproto.RepoListRecords.Call(gctx, s.client(found.PDS), params)
			if err != nil {
				n.add("PDS", "The records can’t be listed: "+s.upstream(err)+".")
				return nil
			}
			for _, rec := range out.Records[:min(len(out.Records), pageRecords)] {
				if l, ok := listed(&rec, string(found.DID), id); ok {
					p.Records = append(p.Records, l)
				}
			}
			if p.Cursor = deref(out.Cursor); p.Cursor != "" && len(out.Records) > 0 {
				sep := "?"
				if p.Reverse {
					sep = "&"
				}
				p.Next = p.Start + sep + "cursor=" + queryEscape(p.Cursor)
			}
			return nil
		})
	}
	_ = g.Wait() // no function returns an error
	p.Notices = n.sorted()
	return &View{
		Title: p.NSID + " of " + p.Actor.ID(), Nav: "accounts", Name: "collection", Data: p,
		URI: "at://" + string(found.DID) + "/" + p.NSID,
	}, nil
}

func listed(rec *comatproto.RepoListRecords_Record, did, id string) (Listed, bool) {
	u, err := syntax.ParseATURI(rec.Uri)
	if err != nil || u.RecordKey() == "" {
		return Listed{}, false
	}
	l := Listed{
		Rkey: string(u.RecordKey()), URI: rec.Uri, Type: foreign.Line(data.TypeOf(rec.Value), 320), Text: preview(rec.Value), Size: len(rec.Value),
		Href: recordHref(id, string(u.Collection()), string(u.RecordKey())),
	}
	if syntax.ValidCID(rec.Cid) {
		l.CID = rec.Cid
	}
	if t, err := syntax.ParseTID(l.Rkey); err == nil {
		l.Time = t.Time()
	}
	for _, b := range blobViews(rec.Value, did) {
		if b.Image && len(l.Images) < 4 {
			l.Images = append(l.Images, b)
		}
	}
	return l, true
}
