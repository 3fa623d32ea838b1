package workflow

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
)

// Verifier asks a user's own server for proofs of what an agent claims.
type Verifier struct {
	Directory *identity.Directory // finds the user's server and signing key
	HTTP      *http.Client        // guarded against private addresses; nil: the standard transport
}

// Verified is an action that was done, as the proof from the user's repository shows.
type Verified struct {
	Action              // as it was asked for, with the name that the service gave it
	URI    syntax.ATURI // with the record key that was used
	CID    cid.CID      // of the record; undefined after a deletion
	Proof  *repo.Proof  // nil if nothing is verified
}

// ClaimError says that an agent claims what isn't so.
type ClaimError struct {
	Name   string // of the action
	Reason string
	Err    error // what is wrong with the proof; may be nil
}

func (e *ClaimError) Error() string {
	s := fmt.Sprintf("the report on %q is not believed: %s", e.Name, e.Reason)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *ClaimError) Unwrap() error { return e.Err }

// match holds a report against the batch that was sent: the responses are those of a prefix of the actions, of all of them
// if nothing failed, each about the record that was asked for.
func match(caller syntax.DID, sent []Action, in *Inbound) ([]Verified, error) {
	if len(in.Responses) > len(sent) {
		return nil, &ClaimError{Name: in.Responses[len(sent)].Name, Reason: "no such action was asked for"}
	}
	if in.Error == nil && len(in.Responses) < len(sent) {
		return nil, &ClaimError{Name: sent[len(in.Responses)].Name, Reason: "there is no response, and no error either"}
	}
	if in.Error != nil && len(in.Responses) == len(sent) {
		return nil, &ClaimError{Name: deref(in.Error.Name), Reason: "an error is reported and yet all was done"}
	}
	var out []Verified
	for i, r := range in.Responses {
		a := sent[i]
		wrong := func(reason string) error { return &ClaimError{Name: r.Name, Reason: reason} }
		uri, err := syntax.ParseATURI(r.Result.Uri)
		switch {
		case r.Name != a.Name:
			return nil, wrong(fmt.Sprintf("in its place is the action %q", a.Name))
		case r.Action != string(a.Verb):
			return nil, wrong(fmt.Sprintf("it was to %s and not to %s", a.Verb, r.Action))
		case err != nil:
			return nil, wrong(err.Error())
		case string(uri.Authority()) != string(caller):
			return nil, wrong(fmt.Sprintf("it is about the repository of %s, and the caller is %s", uri.Authority(), caller))
		case uri.Collection() != a.Collection:
			return nil, wrong(fmt.Sprintf("it is about the collection %s and not %s", uri.Collection(), a.Collection))
		case uri.RecordKey() == "" || a.RecordKey != "" && uri.RecordKey() != a.RecordKey:
			return nil, wrong(fmt.Sprintf("it is about the record key %q and not %q", uri.RecordKey(), a.RecordKey))
		}
		v := Verified{Action: a, URI: uri}
		v.RecordKey = uri.RecordKey()
		if a.Record != nil {
			v.CID = cid.Sum(cid.DagCBOR, a.Record)
			if r.Result.Cid == nil || *r.Result.Cid != v.CID.String() {
				return nil, wrong(fmt.Sprintf("the record is %s and not what was asked for, %s", deref(r.Result.Cid), v.CID))
			}
		} else if r.Result.Cid != nil {
			return nil, wrong("a deleted record has no CID")
		}
		out = append(out, v)
	}
	return out, nil
}

// prove asks the caller's server for the proof of every claim. Where several actions were about one record the last one
// counts.
func (v *Verifier) prove(ctx context.Context, caller syntax.DID, claims []Verified) error {
	last := map[syntax.ATURI]int{}
	for i, c := range claims {
		last[c.URI] = i
	}
	if len(last) == 0 {
		return nil
	}
	doc, err := v.Directory.ResolveDID(ctx, caller)
	if err != nil {
		return err
	}
	for i := range claims {
		c := &claims[i]
		if last[c.URI] != i {
			continue
		}
		p, err := v.proof(ctx, doc, c.URI)
		var bad *repo.VerifyError
		if errors.As(err, &bad) {
			// The key may have been changed since the document was fetched.
			if fresh, ok, refreshErr := v.Directory.Refresh(ctx, caller); refreshErr == nil && ok {
				doc = fresh
				p, err = v.proof(ctx, doc, c.URI)
			}
		}
		switch {
		case errors.As(err, &bad):
			return &ClaimError{Name: c.Name, Reason: "the proof is wrong", Err: err}
		case err != nil:
			return fmt.Errorf("asking for the proof of %s: %w", c.URI, err)
		case c.Record == nil && p.Found():
			return &ClaimError{Name: c.Name, Reason: "the record is still there"}
		case c.Record != nil && !p.Found():
			return &ClaimError{Name: c.Name, Reason: "the record is not there"}
		case c.Record != nil && p.CID != c.CID:
			return &ClaimError{Name: c.Name, Reason: fmt.Sprintf("the record is %s", p.CID)}
		}
		c.Proof = p
	}
	return nil
}

func (v *Verifier) proof(ctx context.Context, doc *identity.Document, uri syntax.ATURI) (*repo.Proof, error) {
	if doc.PDS == "" || doc.SigningKey == nil {
		return nil, fmt.Errorf("the identity of %s names no server or no key", doc.DID)
	}
	return client.New(doc.PDS, client.Options{HTTP: v.HTTP}).Proof(ctx, uri, doc.SigningKey)
}

// Compensate returns the actions that take back what was done, last first, and the names of what can't be taken back: a
// server doesn't know what an update replaced or a deletion removed, unless old tells it.
func Compensate(done []Verified, old func(Verified) data.Raw) (actions []Action, left []string) {
	for i := len(done) - 1; i >= 0; i-- {
		d := done[i]
		a := Action{Name: "undo-" + d.Name, Repo: d.Repo, Collection: d.Collection, RecordKey: d.URI.RecordKey()}
		switch {
		case d.Verb == Create:
			a.Verb = Delete
		case old == nil || old(d) == nil:
			left = append(left, d.Name)
			continue
		case d.Verb == Update:
			a.Verb, a.Record = Update, old(d)
		default:
			a.Verb, a.Record = Create, old(d)
		}
		actions = append(actions, a)
	}
	return actions, left
}
