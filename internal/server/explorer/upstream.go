package explorer

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/http"
	"sort"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sync/errgroup"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/internal/foreign"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

const profilePath = "app.bsky.actor.profile/self"

func (s *Service) client(host string) *xrpc.Client {
	return &xrpc.Client{Host: host, HTTP: s.http, MaxResponse: maxAnswer}
}

func (s *Service) relay() *xrpc.Client { return s.client(s.cfg.RelayURL) }

// upstream tells a reader in one line why something couldn't be fetched.
func (s *Service) upstream(err error) string {
	var x *xrpc.Error
	var blocked *netguard.BlockedError
	var large *netguard.BodyTooLargeError
	var se *statusError
	var id *identity.Error
	var op *net.OpError
	switch {
	case err == nil:
		return "the connection ended"
	case errors.As(err, &blocked):
		return "it is at an address that the explorer doesn’t connect to (" + blocked.Reason + ")"
	case errors.As(err, &large):
		return fmt.Sprintf("its answer is larger than %s", bytesText(large.Limit))
	case errors.Is(err, context.DeadlineExceeded):
		return "it didn’t answer in time"
	case errors.Is(err, context.Canceled):
		return "the request was cancelled"
	case errors.As(err, &x):
		text := x.Name
		if text == "" {
			text = fmt.Sprintf("status %d", x.Status)
		}
		if x.Message != "" {
			text += ": " + foreign.Line(x.Message, 200)
		}
		return "it answered “" + text + "”"
	case errors.As(err, &se):
		return "it answered with " + se.Error()
	case errors.As(err, &id):
		if id.Err != nil {
			return string(id.Kind) + ": " + foreign.Line(id.Err.Error(), 200)
		}
		return string(id.Kind)
	case errors.As(err, &op) && op.Op == "dial":
		return "it can’t be reached"
	}
	return foreign.Line(err.Error(), 200)
}

// Actor is an account as it is named on pages.
type Actor struct {
	DID      string `json:"did"`
	Handle   string `json:"handle,omitempty"`  // confirmed both ways; "" if there is none
	Claimed  string `json:"claimed,omitempty"` // by the DID document; may lead elsewhere
	PDS      string `json:"pds,omitempty"`
	Name     string `json:"displayName,omitempty"`
	About    string `json:"description,omitempty"`
	Avatar   string `json:"avatar,omitempty"` // address of the image on this site
	Active   bool   `json:"active"`
	Status   string `json:"status,omitempty"`
	Rev      string `json:"rev,omitempty"`
	Problem  string `json:"problem,omitempty"` // why something of this couldn't be found out
	Monogram string `json:"-"`
	Hue      int    `json:"-"` // of the sign that stands in for an avatar, 0 to 11
}

// ID is the name in addresses: the handle if there is one.
func (a Actor) ID() string {
	if a.Handle != "" {
		return a.Handle
	}
	return a.DID
}

// Href is the page of the account.
func (a Actor) Href() string { return accountHref(a.ID()) }

// HasAvatar reports whether there is an image.
func (a Actor) HasAvatar() bool { return a.Avatar != "" }

func (a *Actor) sign() {
	h := fnv.New32a()
	h.Write([]byte(a.DID))
	a.Hue = int(h.Sum32() % 12)
	for _, from := range []string{a.Name, a.Handle, strings.TrimPrefix(strings.TrimPrefix(a.DID, "did:plc:"), "did:web:")} {
		for _, r := range from {
			if unicode.IsLetter(r) || unicode.IsDigit(r) {
				a.Monogram = string(unicode.ToUpper(r))
				return
			}
		}
	}
}

// actor names an account, without its profile. What can't be resolved has only its DID, and a Problem.
func (s *Service) actor(ctx context.Context, did string) Actor {
	if a, ok := s.names.get(did); ok {
		return a
	}
	a := Actor{DID: did, Active: true}
	id, err := s.dir.LookupDID(ctx, syntax.DID(did))
	if err != nil {
		a.Problem = s.upstream(err)
		a.sign()
		if ctx.Err() == nil {
			s.names.put(did, a)
		}
		return a
	}
	a = s.identified(id)
	s.names.put(did, a)
	return a
}

func (s *Service) identified(id *identity.Identity) Actor {
	a := Actor{DID: string(id.DID), Claimed: string(id.Claimed), PDS: id.PDS, Active: true}
	if id.Handle != syntax.InvalidHandle {
		a.Handle = string(id.Handle)
	}
	a.sign()
	return a
}

// dress adds what the profile of an account says.
func (s *Service) dress(ctx context.Context, a *Actor) {
	if a.PDS == "" {
		return
	}
	p, err := s.profile(ctx, a.DID, a.PDS)
	if err != nil {
		a.Problem = s.upstream(err)
		return
	}
	if p == nil {
		return
	}
	a.Name, a.About = p.Name, p.About
	if p.Avatar != nil {
		a.Avatar = p.Avatar.Href
	}
	a.sign()
}

// Profile is what an account says of itself.
type Profile struct {
	Name   string    `json:"displayName,omitempty"`
	About  string    `json:"description,omitempty"`
	Avatar *BlobView `json:"avatar,omitempty"`
	Banner *BlobView `json:"banner,omitempty"`
}

// profile fetches an account's profile; nil if it has none.
func (s *Service) profile(ctx context.Context, did, pds string) (*Profile, error) {
	if p, ok := s.profiles.get(did); ok {
		return p, nil
	}
	out, err := comatproto.RepoGetRecord.Call(ctx, s.client(pds), &comatproto.RepoGetRecord_Params{
		Repo: did, Collection: "app.bsky.actor.profile", Rkey: "self",
	})
	if err != nil {
		var x *xrpc.Error
		if errors.As(err, &x) && x.Status == http.StatusBadRequest {
			s.profiles.put(did, nil) // usually there is none
			return nil, nil
		}
		return nil, err
	}
	p := &Profile{}
	if v, err := data.Decode(out.Value); err == nil {
		m, _ := v.(map[string]any)
		name, _ := m["displayName"].(string)
		about, _ := m["description"].(string)
		p.Name = foreign.Line(name, 80)
		p.About, _ = foreign.Clip(about, 600)
		p.Avatar, p.Banner = imageIn(m["avatar"], did), imageIn(m["banner"], did)
	}
	s.profiles.put(did, p)
	return p, nil
}

func imageIn(v any, did string) *BlobView {
	m, _ := v.(map[string]any)
	if m["$type"] != "blob" {
		return nil
	}
	ref, _ := m["ref"].(cid.CID)
	mime, _ := m["mimeType"].(string)
	size, _ := m["size"].(int64)
	b := blobView(&data.Blob{Ref: ref, MimeType: mime, Size: size}, did)
	if !isBlobCID(ref) || !b.Image {
		return nil
	}
	return b
}

// Audit is the log of a did:plc identity, replayed here from its first operation.
type Audit struct {
	Operations []AuditEntry `json:"operations"`
	OK         bool         `json:"ok"`
	Active     bool         `json:"active"`
	Problem    string       `json:"problem,omitempty"`
	SigningKey string       `json:"signingKey,omitempty"`
	PDS        string       `json:"pds,omitempty"`
}

// AuditEntry is one operation.
type AuditEntry struct {
	CID       string `json:"cid"`
	At        string `json:"at"`
	Type      string `json:"type"`
	Nullified bool   `json:"nullified,omitempty"`
	Handle    string `json:"handle,omitempty"`
	PDS       string `json:"pds,omitempty"`
	Change    string `json:"change"`
}

// audit fetches and replays the log of a did:plc identity.
func (s *Service) audit(ctx context.Context, did syntax.DID) (*Audit, error) {
	if a, ok := s.audits.get(string(did)); ok {
		return a, nil
	}
	var entries []plc.Entry
	if err := s.getJSON(ctx, s.cfg.PLCURL+"/"+string(did)+"/log/audit", maxAudit, &entries); err != nil {
		return nil, err
	}
	a := &Audit{OK: true, Operations: []AuditEntry{}}
	state, active, err := plc.Verify(did, entries)
	if err != nil {
		a.OK, a.Problem = false, foreign.Line(err.Error(), 300)
	} else {
		a.Active, a.SigningKey, a.PDS = active, state.SigningKey(), state.PDS()
	}
	var before plc.Data
	for i, e := range entries {
		if e.Operation == nil {
			continue
		}
		o := AuditEntry{CID: e.CID.String(), At: plc.FormatTime(e.CreatedAt), Type: string(e.Operation.Type), Nullified: e.Nullified}
		if d, ok := e.Operation.State(); ok {
			o.Handle, o.PDS = string(d.Handle()), foreign.Line(d.PDS(), 200)
			o.Change = change(before, d, i == 0)
			before = d
		} else {
			o.Change = "ended"
		}
		a.Operations = append(a.Operations, o)
	}
	s.audits.put(string(did), a)
	return a, nil
}

// change says what an operation changed.
func change(a, b plc.Data, first bool) string {
	if first {
		return "created"
	}
	var out []string
	if a.Handle() != b.Handle() {
		out = append(out, "handle")
	}
	if a.PDS() != b.PDS() {
		out = append(out, "PDS")
	}
	if a.SigningKey() != b.SigningKey() {
		out = append(out, "signing key")
	}
	if strings.Join(a.RotationKeys, " ") != strings.Join(b.RotationKeys, " ") {
		out = append(out, "rotation keys")
	}
	if len(out) == 0 {
		return "other details"
	}
	return strings.Join(out, ", ")
}

// Source is one way in which records link to something, and how many do.
type Source struct {
	Source     string    `json:"source"` // collection and path
	Collection string    `json:"collection"`
	Path       string    `json:"path"`
	Label      string    `json:"label"` // for people
	Records    int64     `json:"records"`
	DIDs       int64     `json:"distinctDids,omitempty"`
	Newest     []Linking `json:"newest,omitempty"`
	Href       string    `json:"href"` // of the list of all
}

// Linking is a record that links to something.
type Linking struct {
	DID        string `json:"did"`
	Collection string `json:"collection"`
	Rkey       string `json:"rkey"`
	Actor      Actor  `json:"actor"`
	Href       string `json:"href"`
}

// linkLabels are words for the sources that are common.
var linkLabels = map[string]string{
	"app.bsky.feed.like:subject.uri":             "Likes",
	"app.bsky.feed.repost:subject.uri":           "Reposts",
	"app.bsky.feed.post:reply.parent.uri":        "Replies",
	"app.bsky.feed.post:reply.root.uri":          "In the thread below",
	"app.bsky.feed.post:embed.record.uri":        "Quotes",
	"app.bsky.feed.post:embed.record.record.uri": "Quotes with media",
	"app.bsky.graph.follow:subject":              "Followers",
	"app.bsky.graph.block:subject":               "Blocked by",
	"app.bsky.graph.listitem:subject":            "On lists",
	"app.bsky.graph.listitem:list":               "Members",
	"app.bsky.feed.threadgate:post":              "Thread gates",
	"app.bsky.feed.postgate:post":                "Post gates",
	"app.bsky.graph.starterpack:list":            "Starter packs",
	"app.bsky.graph.verification:subject":        "Verifications",
	"app.bsky.actor.profile:pinnedPost.uri":      "Pinned",
	"app.bsky.feed.post:facets[app.bsky.richtext.facet].features[app.bsky.richtext.facet#mention].did": "Mentions",
	"app.bsky.feed.post:facets[].features[app.bsky.richtext.facet#mention].did":                        "Mentions",
}

// usual are the sources that are asked for one by one when the index can't list them.
func usual(isRecord bool) []string {
	if !isRecord {
		return []string{
			"app.bsky.graph.follow:subject", "app.bsky.graph.block:subject", "app.bsky.graph.listitem:subject",
			"app.bsky.feed.post:facets[].features[app.bsky.richtext.facet#mention].did", "app.bsky.graph.verification:subject",
		}
	}
	return []string{
		"app.bsky.feed.like:subject.uri", "app.bsky.feed.repost:subject.uri", "app.bsky.feed.post:reply.parent.uri",
		"app.bsky.feed.post:reply.root.uri", "app.bsky.feed.post:embed.record.uri", "app.bsky.feed.post:embed.record.record.uri",
		"app.bsky.graph.listitem:list", "app.bsky.feed.threadgate:post", "app.bsky.actor.profile:pinnedPost.uri",
	}
}

// backlinks finds what links to a subject, with the newest of each source.
func (s *Service) backlinks(ctx context.Context, subject string, isRecord bool) ([]Source, error) {
	if s.cfg.LinksURL == "" {
		return nil, errors.New("no link index is configured")
	}
	sources, err := s.linkSources(ctx, subject)
	if err != nil {
		if sources, err = s.usualSources(ctx, subject, isRecord); err != nil {
			return nil, err
		}
	}
	sort.SliceStable(sources, func(i, j int) bool {
		if sources[i].Records != sources[j].Records {
			return sources[i].Records > sources[j].Records
		}
		return sources[i].Source < sources[j].Source
	})
	if len(sources) > maxSources {
		sources = sources[:maxSources]
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(maxConcurrent)
	for i := range sources {
		src := &sources[i]
		src.Label = linkLabels[src.Source]
		src.Href = linksHref(subject, src.Source, "")
		g.Go(func() error {
			if page, err := s.linking(gctx, subject, src.Source, "", pageLinks); err == nil {
				src.Newest = page.Records
			}
			return nil // the counts are worth showing without
		})
	}
	_ = g.Wait() // no function returns an error
	return sources, nil
}

// linkSources asks for all sources at once.
func (s *Service) linkSources(ctx context.Context, subject string) ([]Source, error) {
	var out struct {
		Links map[string]map[string]struct {
			Records int64 `json:"records"`
			DIDs    int64 `json:"distinct_dids"`
		} `json:"links"`
	}
	if err := s.getJSON(ctx, s.cfg.LinksURL+"/links/all?target="+queryEscape(subject), 1<<20, &out); err != nil {
		return nil, err
	}
	if out.Links == nil {
		return nil, errors.New("an answer without links")
	}
	sources := []Source{}
	for collection, paths := range out.Links {
		if !syntax.ValidNSID(collection) {
			continue
		}
		for path, n := range paths {
			if n.Records > 0 {
				path = strings.TrimPrefix(path, ".")
				sources = append(sources, Source{Source: collection + ":" + path, Collection: collection, Path: path, Records: n.Records, DIDs: n.DIDs})
			}
		}
	}
	return sources, nil
}

func (s *Service) usualSources(ctx context.Context, subject string, isRecord bool) ([]Source, error) {
	names := usual(isRecord)
	totals := make([]int64, len(names))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(maxConcurrent)
	for i, name := range names {
		g.Go(func() error {
			var out struct {
				Total int64 `json:"total"`
			}
			err := s.getJSON(gctx, s.linksMethod("blue.microcosm.links.getBacklinksCount", subject, name), 64<<10, &out)
			totals[i] = out.Total
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	sources := []Source{}
	for i, name := range names {
		if totals[i] > 0 {
			collection, path, _ := strings.Cut(name, ":")
			sources = append(sources, Source{Source: name, Collection: collection, Path: path, Records: totals[i]})
		}
	}
	return sources, nil
}

func (s *Service) linksMethod(nsid, subject, source string) string {
	return s.cfg.LinksURL + xrpc.Path(nsid) + "?subject=" + queryEscape(subject) + "&source=" + queryEscape(source)
}

// linkPage is a page of linking records.
type linkPage struct {
	Total   int64
	Records []Linking
	Cursor  string
}

func (s *Service) linking(ctx context.Context, subject, source, cursor string, limit int) (*linkPage, error) {
	var out struct {
		Total   int64 `json:"total"`
		Records []struct {
			DID        string `json:"did"`
			Collection string `json:"collection"`
			Rkey       string `json:"rkey"`
		} `json:"records"`
		Cursor *string `json:"cursor"`
	}
	addr := s.linksMethod("blue.microcosm.links.getBacklinks", subject, source) + fmt.Sprintf("&limit=%d", limit)
	if cursor != "" {
		addr += "&cursor=" + queryEscape(cursor)
	}
	if err := s.getJSON(ctx, addr, 1<<20, &out); err != nil {
		return nil, err
	}
	p := &linkPage{Total: out.Total, Records: []Linking{}}
	if out.Cursor != nil {
		p.Cursor = *out.Cursor
	}
	for _, r := range out.Records[:min(len(out.Records), limit)] {
		if syntax.ValidDID(r.DID) && syntax.ValidNSID(r.Collection) && syntax.ValidRecordKey(r.Rkey) {
			p.Records = append(p.Records, Linking{DID: r.DID, Collection: r.Collection, Rkey: r.Rkey, Href: recordHref(r.DID, r.Collection, r.Rkey)})
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(maxConcurrent)
	for i := range p.Records {
		g.Go(func() error {
			a := s.actor(gctx, p.Records[i].DID)
			s.dress(gctx, &a)
			p.Records[i].Actor = a
			return nil
		})
	}
	_ = g.Wait() // no function returns an error
	return p, nil
}

// ago says how long ago something was.
func ago(now, t time.Time) string {
	d := now.Sub(t)
	switch {
	case d < -time.Minute:
		return "in the future"
	case d < 10*time.Second:
		return "just now"
	case d < time.Minute:
		return fmt.Sprintf("%d s ago", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	case d < 60*24*time.Hour:
		return fmt.Sprintf("%d days ago", int(d.Hours()/24))
	}
	return t.UTC().Format("2 January 2006")
}

// bytesText writes a size for people.
func bytesText(n int64) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d bytes", n)
	case n < 1000_000:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}
