package explorer

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/internal/foreign"
	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
)

// RecordPage is a record, the proof of it, and what links to it.
type RecordPage struct {
	Notices    []Notice    `json:"notices,omitempty"`
	Actor      Actor       `json:"account"`
	Collection string      `json:"collection"`
	Rkey       string      `json:"rkey"`
	URI        string      `json:"uri"`
	CID        string      `json:"cid,omitempty"`
	Time       time.Time   `json:"time,omitzero"` // of the record key, if it is a TID
	Found      bool        `json:"found"`
	Value      data.Raw    `json:"value,omitempty"`
	Size       int         `json:"size"` // bytes in CBOR
	Proof      Proof       `json:"proof"`
	Schema     SchemaCheck `json:"schema"`
	Blobs      []*BlobView `json:"blobs,omitempty"`
	Links      []Source    `json:"links"`
	LinksKnown bool        `json:"linksKnown"`

	// Violations are the rules of the data model that the signed bytes break. Such a record has no Value: Lenient is what can be
	// shown of it.
	Violations     []Violation     `json:"violations,omitempty"`
	MoreViolations bool            `json:"moreViolations,omitempty"`
	Lenient        json.RawMessage `json:"lenient,omitempty"`

	Type     string `json:"type,omitempty"`
	Lede     string `json:"-"` // what a reader wants to see first
	Tree     *Node  `json:"-"`
	JSON     string `json:"-"`
	JSONSize int    `json:"-"`

	signedSize int // bytes of a record with violations
}

// Images are the blobs that are shown.
func (p *RecordPage) Images() []*BlobView {
	var out []*BlobView
	for _, b := range p.Blobs {
		if b.Image {
			out = append(out, b)
		}
	}
	return out
}

// Proof is the chain from the account to the record, as it was checked for this page.
type Proof struct {
	Verified bool        `json:"verified"`
	Absent   bool        `json:"absent,omitempty"` // what is verified is that there is no such record
	Reason   string      `json:"reason,omitempty"` // why it is not verified
	Steps    []ProofStep `json:"steps"`
	Commit   string      `json:"commit,omitempty"`
	Rev      string      `json:"rev,omitempty"`
	Bytes    int         `json:"bytes,omitempty"` // of the file
}

// States of a [ProofStep].
const (
	stepOK      = "ok"
	stepFailed  = "failed"
	stepPending = "not reached"
)

// ProofStep is one link of the chain.
type ProofStep struct {
	State  string `json:"state"`
	Title  string `json:"title"`
	Detail string `json:"detail,omitempty"`
	Key    string `json:"key,omitempty"` // did:key
	CID    string `json:"cid,omitempty"`
}

func (s *Service) record(ctx context.Context, r *http.Request) (*View, error) {
	path := r.PathValue("collection") + "/" + bare(r, "rkey")
	nsid, rkey, err := syntax.ParsePath(path)
	if err != nil {
		return nil, badRequest("“"+foreign.Line(path, 200)+"” is not the address of a record.", "It is a collection, such as app.bsky.feed.post, and a record key.")
	}
	found, err := s.identify(ctx, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	did := string(found.DID)
	p := &RecordPage{
		Actor: s.identified(found), Collection: string(nsid), Rkey: string(rkey), URI: "at://" + did + "/" + path, Links: []Source{},
	}
	if t, err := syntax.ParseTID(string(rkey)); err == nil {
		p.Time = t.Time()
	}
	var n notices
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { s.prove(gctx, found, path, p, &n); return nil })
	g.Go(func() error { s.dress(gctx, &p.Actor); return nil })
	if s.cfg.LinksURL != "" {
		g.Go(func() error {
			links, err := s.backlinks(gctx, p.URI, true)
			if err != nil {
				n.add("Link index", "What links here can’t be told: "+s.upstream(err)+".")
				return nil
			}
			p.Links, p.LinksKnown = links, true
			return nil
		})
	}
	var schema *knownSchema
	var schemaErr error
	g.Go(func() error { schema, schemaErr = s.schema(gctx, nsid); return nil })
	_ = g.Wait() // no function returns an error

	v := &View{Title: path + " of " + p.Actor.ID(), Nav: "accounts", Name: "record", Data: p, URI: p.URI}
	if p.Found {
		s.describe(p)
		s.checkSchema(p, nsid, rkey, schema, schemaErr)
	} else if p.Proof.Absent {
		v.Status = http.StatusNotFound
	} else {
		v.Status = http.StatusBadGateway
		if p.Proof.Reason == reasonMissing {
			v.Status = http.StatusNotFound
		}
	}
	p.Notices = n.sorted()
	return v, nil
}

// describe reads the value for people.
func (s *Service) describe(p *RecordPage) {
	did := p.Actor.DID
	p.Size, p.Type = len(p.Value), foreign.Line(data.TypeOf(p.Value), 320)
	p.Tree, _ = tree(p.Value, did) // nil: the JSON is shown alone
	if p.JSON, p.JSONSize = rawJSON(p.Value); p.Lenient != nil {
		p.Size, p.JSONSize = p.signedSize, len(p.Lenient)
		p.JSON = string(p.Lenient[:min(len(p.Lenient), maxRaw)])
	}
	p.Blobs = blobViews(p.Value, did)
	p.Lede = lede(p.Value)
}

// lede is the text that a reader wants first.
func lede(raw data.Raw) string {
	v, err := data.Decode(raw)
	if err != nil {
		return ""
	}
	m, _ := v.(map[string]any)
	for _, k := range []string{"text", "displayName", "name", "title"} {
		if t, _ := m[k].(string); strings.TrimSpace(t) != "" {
			t, cut := foreign.Clip(t, 1200)
			if cut > 0 {
				t += "…"
			}
			return t
		}
	}
	return ""
}

const reasonMissing = "The PDS has no such record."

// prove fetches the proof of a record, checks it, and fills in the value that it proves. Without a proof the value is what the
// PDS says it is.
func (s *Service) prove(ctx context.Context, id *identity.Identity, path string, p *RecordPage, n *notices) {
	pr := &p.Proof
	step := func(state, title, detail string) {
		pr.Steps = append(pr.Steps, ProofStep{State: state, Title: title, Detail: detail})
	}
	pending := []string{"Blocks", "Commit", "Signature", "Tree", "Record"}
	rest := func() {
		for _, title := range pending {
			step(stepPending, title, "")
		}
	}
	fallback := func() {
		if id.PDS == "" {
			return
		}
		collection, rkey, _ := strings.Cut(path, "/")
		out, err := comatproto.RepoGetRecord.Call(ctx, s.client(id.PDS), &comatproto.RepoGetRecord_Params{Repo: string(id.DID), Collection: collection, Rkey: rkey})
		if err != nil {
			n.add("PDS", "The record can’t be fetched: "+s.upstream(err)+".")
			return
		}
		p.Found, p.Value = true, out.Value
		if c := deref(out.Cid); syntax.ValidCID(c) {
			p.CID = c
		}
	}

	// Who the account is.
	source, ok := s.identityStep(ctx, id, pr)
	if !ok {
		pr.Reason = "The identity doesn’t check out."
		rest()
		fallback()
		return
	}
	key := id.SigningKey
	if key == nil {
		step(stepFailed, "Signing key", "The DID document has no valid key for #atproto.")
		pr.Reason = "The account has no signing key."
		rest()
		fallback()
		return
	}
	keyStep := func(from string) {
		pr.Steps = append(pr.Steps, ProofStep{State: stepOK, Title: "Signing key", Detail: keyType(key.Alg()) + ", named by " + from, Key: key.DIDKey()})
	}
	keyStep(source)
	if id.PDS == "" {
		step(stepFailed, "PDS", "The DID document names none.")
		pr.Reason = "There is nobody to ask for a proof."
		rest()
		return
	}

	// The proof.
	file, err := s.fetchProof(ctx, id, path)
	if err != nil {
		step(stepFailed, "Proof", id.PDS+" gave none: "+s.upstream(err))
		pr.Reason = "The PDS gave no proof."
		rest()
		fallback()
		if !p.Found {
			pr.Reason = reasonMissing
		}
		return
	}
	pr.Bytes = len(file)
	checked, err := repo.VerifyProof(file, id.DID, path, key)
	var ve *repo.VerifyError
	if errors.As(err, &ve) && ve.Reason == repo.ReasonSignature {
		// The key may be newer than the document at hand.
		if doc, fresh, rerr := s.dir.Refresh(ctx, id.DID); rerr == nil && fresh && doc.SigningKey != nil && !doc.SigningKey.Equal(key) {
			key = doc.SigningKey
			keyStep("the document fetched anew")
			checked, err = repo.VerifyProof(file, id.DID, path, key)
		}
	}
	nodes := 0
	for _, st := range checked.Steps {
		out := ProofStep{State: stepOK, Detail: st.Detail}
		if st.CID.Defined() {
			out.CID = st.CID.String()
		}
		switch st.Kind {
		case repo.StepBlocks:
			out.Title, pending = "Blocks", pending[1:]
			out.Detail = st.Detail + " (" + bytesText(int64(st.Size)) + ")"
		case repo.StepCommit:
			out.Title, pending = "Commit", pending[1:]
		case repo.StepSignature:
			out.Title, pending = "Signature", pending[1:]
			out.Detail = "of the commit, made by the signing key"
		case repo.StepNode:
			out.Title = "Tree"
			if nodes++; nodes == 1 {
				pending = pending[1:]
			}
			out.Detail = nodeDetail(nodes, st)
		case repo.StepRecord:
			out.Title, pending = "Record", pending[1:]
			out.Detail = "its block, " + bytesText(int64(st.Size)) + ", is what this page shows"
		case repo.StepAbsent:
			out.Title, pending = "Absence", nil
		default:
			out.Title = st.Kind
		}
		pr.Steps = append(pr.Steps, out)
	}
	if checked.Commit != nil {
		pr.Rev, pr.Commit = string(checked.Commit.Rev), checked.CommitCID.String()
	}
	if err != nil {
		title := "Proof"
		if len(pending) > 0 {
			title, pending = pending[0], pending[1:]
		}
		pr.Reason = s.upstream(err)
		if ve != nil {
			pr.Reason = reasonText(ve)
		}
		step(stepFailed, title, foreign.Line(err.Error(), 300))
		rest()
		fallback()
		return
	}
	pr.Verified = checked.Signed
	if !checked.Found() {
		pr.Absent = true
		return
	}
	if _, err := data.AppendJSON(nil, checked.Record); err != nil {
		// The bytes are as signed, but no JSON can say what they say.
		p.Violations, p.MoreViolations, p.Lenient = violations(checked.Record)
		p.signedSize = len(checked.Record)
		n.add("Record", "It is not valid in the data model, so it can’t be shown whole: "+foreign.Line(err.Error(), 200)+".")
	} else {
		p.Value = checked.Record
	}
	p.Found, p.CID = true, checked.CID.String()
}

// nodeDetail describes a node of the tree on the way to the record.
func nodeDetail(i int, st repo.Step) string {
	where := "root"
	if i > 1 {
		where = "below it"
	}
	return where + ", layer " + thousands(int64(st.Layer)) + ", " + counted(int64(st.Entries), "entry", "entries")
}

func counted(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return thousands(n) + " " + many
}

// reasonText says a broken rule for people.
func reasonText(e *repo.VerifyError) string {
	switch {
	case e.Reason == repo.ReasonSignature:
		return "The commit is not signed by the account’s key."
	case e.Reason == repo.ReasonBlockHash:
		return "A block doesn’t hash to its CID."
	case e.Reason == repo.ReasonCommitDID:
		return "The commit is another account’s."
	case e.Reason.Tree() || e.Reason == repo.ReasonMissingNode:
		return "The tree is broken on the way to the record."
	case e.Reason == repo.ReasonMissingRecord:
		return "The record’s block is missing."
	}
	return "The proof breaks the rule “" + string(e.Reason) + "”."
}

// identityStep checks who the account is. For did:plc the log of operations is replayed from the first, which the DID is the
// hash of; a did:web document is the word of its host.
func (s *Service) identityStep(ctx context.Context, id *identity.Identity, pr *Proof) (source string, ok bool) {
	add := func(state, detail string) {
		pr.Steps = append(pr.Steps, ProofStep{State: state, Title: "Identity", Detail: detail})
	}
	if id.Raw == nil {
		add(stepFailed, "There is no DID document.")
		return "", false
	}
	source = "the DID document"
	if !id.DID.IsPLC() {
		add(stepOK, "DID document from "+s.documentSource(id.DID)+", the word of that host")
		return source, true
	}
	a, err := s.audit(ctx, id.DID)
	switch {
	case err != nil:
		add(stepOK, "DID document from "+s.cfg.PLCURL+"; its log could not be replayed, so this is the word of the directory ("+s.upstream(err)+")")
		return source, true
	case !a.OK:
		add(stepFailed, "The directory’s log of the identity is wrong: "+a.Problem)
		return "", false
	case !a.Active:
		add(stepFailed, "The identity was ended by a tombstone.")
		return "", false
	case id.SigningKey != nil && a.SigningKey != id.SigningKey.DIDKey():
		// The document may be older than the log, or the other way round.
		s.audits.drop(string(id.DID))
		if doc, fresh, err := s.dir.Refresh(ctx, id.DID); err == nil && fresh && doc.SigningKey != nil && doc.SigningKey.DIDKey() == a.SigningKey {
			held := *id
			held.Document = doc
			*id = held
			break
		}
		add(stepFailed, "The DID document names another key than the log of the identity.")
		return "", false
	}
	what := counted(int64(len(a.Operations)), "signed operation", "signed operations")
	add(stepOK, what+" from "+s.cfg.PLCURL+" replayed; the DID is the hash of the first")
	return "the newest of them", true
}

func (s *Service) fetchProof(ctx context.Context, id *identity.Identity, path string) ([]byte, error) {
	collection, rkey, _ := strings.Cut(path, "/")
	c := s.client(id.PDS)
	c.HTTP = s.files
	out, err := comatproto.SyncGetRecord.Call(ctx, c, &comatproto.SyncGetRecord_Params{Did: string(id.DID), Collection: collection, Rkey: rkey})
	if err != nil {
		return nil, err
	}
	defer out.Body.Close()
	b, err := io.ReadAll(io.LimitReader(out.Body, maxProof+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxProof {
		return nil, &netguard.BodyTooLargeError{Limit: maxProof}
	}
	return b, nil
}

// LinksPage lists the records that link to something in one way.
type LinksPage struct {
	Notices []Notice  `json:"notices,omitempty"`
	Subject string    `json:"subject"`
	Source  string    `json:"source"`
	Label   string    `json:"label,omitempty"`
	Total   int64     `json:"total"`
	Records []Linking `json:"records"`
	Cursor  string    `json:"cursor,omitempty"`
	Href    string    `json:"-"` // of the subject
	Outside bool      `json:"-"`
	First   bool      `json:"-"`
	Next    string    `json:"-"`
	Start   string    `json:"-"`
}

func linksHref(subject, source, cursor string) string {
	h := "/links?subject=" + queryEscape(subject) + "&source=" + queryEscape(source)
	if cursor != "" {
		h += "&cursor=" + queryEscape(cursor)
	}
	return h
}

func (s *Service) links(ctx context.Context, r *http.Request) (*View, error) {
	q := r.URL.Query()
	p := &LinksPage{Subject: q.Get("subject"), Source: q.Get("source"), Records: []Linking{}, First: q.Get("cursor") == ""}
	collection, _, ok := strings.Cut(p.Source, ":")
	if p.Subject == "" || len(p.Subject) > 2048 || !ok || !syntax.ValidNSID(collection) {
		return nil, badRequest("A subject and a source are needed.", "The source is a collection and a path, such as app.bsky.feed.like:subject.uri.")
	}
	p.Label = linkLabels[p.Source]
	p.Href, p.Outside = textHref(p.Subject)
	p.Start = linksHref(p.Subject, p.Source, "")
	if s.cfg.LinksURL == "" {
		p.Notices = []Notice{{"Link index", "None is configured."}}
	} else if page, err := s.linking(ctx, p.Subject, p.Source, q.Get("cursor"), 50); err != nil {
		p.Notices = []Notice{{"Link index", "What links here can’t be told: " + s.upstream(err) + "."}}
	} else {
		p.Total, p.Records, p.Cursor = page.Total, page.Records, page.Cursor
		if p.Cursor != "" && len(p.Records) > 0 {
			p.Next = linksHref(p.Subject, p.Source, p.Cursor)
		}
	}
	return &View{Title: "Links", Name: "links", Data: p, URI: p.Subject}, nil
}
