package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/identity/plcdir"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/syntax"
)

// did examines an account. The handle is the one that led to it, "" if none did.
func (x *exam) did(ctx context.Context, did syntax.DID, from syntax.Handle) {
	var doc *identity.Document
	var log *plcHistory
	var err error
	start := x.o.Now()
	together(
		func() { doc, err = x.dir.ResolveDID(ctx, did) },
		func() {
			if did.Method() == "plc" {
				log = x.plcHistory(ctx, did)
			}
		})
	took := x.o.Now().Sub(start)
	if err != nil {
		if log != nil && log.ended {
			x.find(didGone, string(did), "the last of %d operations ended it", len(log.entries))
			return
		}
		kind := map[identity.Kind]*Kind{identity.KindNotFound: didNotFound, identity.KindMalformed: didMalformed, identity.KindUnsupported: didMethod}[identity.KindOf(err)]
		if kind == nil {
			kind = didUnreachable
		}
		x.find(kind, string(did), "%v", plain(err))
		return
	}
	x.find(didFound, string(did), "%s has a document", did)
	if took > x.o.Slow {
		x.find(didSlow, string(did), "it took %.1f s", took.Seconds())
	}
	together(
		func() { x.shape(doc) },
		func() { x.plcLog(did, doc, log) },
		func() { x.names(ctx, doc, from) },
		func() {
			if doc.PDS != "" {
				x.home(ctx, doc)
			}
		},
		func() {
			if doc.Labeler != "" {
				x.labeler(ctx, doc.Labeler, doc)
			}
		},
	)
}

// shape looks at what the protocol needs of a document.
func (x *exam) shape(doc *identity.Document) {
	did := string(doc.DID)
	has := func(id, fragment string) bool { return id == fragment || id == did+fragment }
	switch {
	case doc.SigningKey != nil:
		x.find(didKey, did, "its key is %s", doc.SigningKey.DIDKey())
	case slices.ContainsFunc(doc.Methods, func(m identity.Method) bool { return has(m.ID, identity.FragmentKey) }):
		x.find(didKeyInvalid, did, "the document has a method %s that is no key", identity.FragmentKey)
	default:
		x.find(didNoKey, did, "the document has no method %s", identity.FragmentKey)
	}
	switch {
	case doc.PDS != "":
		x.find(didPDS, did, "its host is %s", doc.PDS)
	case slices.ContainsFunc(doc.Services, func(s identity.Service) bool { return has(s.ID, identity.FragmentPDS) }):
		i := slices.IndexFunc(doc.Services, func(s identity.Service) bool { return has(s.ID, identity.FragmentPDS) })
		x.find(didPDSInvalid, did, "the service %s is of type %.60q, with the endpoint %.200q", identity.FragmentPDS, doc.Services[i].Type, doc.Services[i].Endpoint)
	default:
		x.find(didNoPDS, did, "the document has no service %s", identity.FragmentPDS)
	}
	if doc.Labeler != "" && doc.LabelKey == nil {
		x.find(labelerNoKey, did, "the document has no key %s", identity.FragmentLabel)
	}
}

// aliases are the handles that a document claims, as they are written.
func aliases(doc *identity.Document) (list []string) {
	for _, a := range doc.AlsoKnownAs {
		if h, ok := strings.CutPrefix(a, "at://"); ok {
			list = append(list, h)
		}
	}
	return list
}

// names looks at the handles of a document, and whether they lead back.
func (x *exam) names(ctx context.Context, doc *identity.Document, from syntax.Handle) {
	did, all := string(doc.DID), aliases(doc)
	switch {
	case len(all) == 0:
		if from == "" {
			x.find(didNoHandle, did, "the document has no alias at://…")
		}
	case doc.Claimed == "":
		x.find(didHandleBad, did, "the document claims %.200q", all[0])
	case len(all) > 1:
		x.find(didHandles, did, "the document claims %d handles: %.300s", len(all), join(all))
	}
	if from != "" {
		switch {
		case doc.Claimed == from:
			x.find(handleBothWays, string(from), "%s and %s name each other", from, did)
		case slices.ContainsFunc(all, func(a string) bool { return strings.EqualFold(a, string(from)) }):
			x.find(handleNotFirst, string(from), "%s claims %s before it", did, doc.Claimed)
		default:
			claimed := "none"
			if doc.Claimed != "" {
				claimed = string(doc.Claimed)
			}
			x.find(handleMismatch, string(from), "it leads to %s, which claims the handle %s", did, claimed)
		}
		return
	}
	if doc.Claimed == "" {
		return
	}
	switch led := x.resolve(ctx, doc.Claimed); led {
	case "":
	case doc.DID:
		x.find(handleBothWays, string(doc.Claimed), "%s and %s name each other", doc.Claimed, did)
	default:
		x.find(handleElsewhere, string(doc.Claimed), "%s claims it, and it leads to %s", did, led)
	}
}

// plcHistory is the log of an identity.
type plcHistory struct {
	entries []plc.Entry
	state   plc.Data
	ended   bool
	err     error // it can't be had
	bad     error // it breaks the rules
}

func (x *exam) plcHistory(ctx context.Context, did syntax.DID) *plcHistory {
	c := &plcdir.Client{URL: x.o.PLC, HTTP: x.http, Timeout: x.o.Call}
	h := &plcHistory{}
	if h.entries, h.err = c.Log(ctx, did); h.err != nil {
		return h
	}
	var active bool
	h.state, active, h.bad = plc.Verify(did, h.entries)
	h.ended = h.bad == nil && !active
	return h
}

// plcLog says what the log of an identity shows.
func (x *exam) plcLog(did syntax.DID, doc *identity.Document, h *plcHistory) {
	switch {
	case h == nil:
		return
	case h.err != nil:
		x.find(plcLogMissing, string(did), "%v", plain(h.err))
		return
	case h.bad != nil:
		x.find(plcLogBad, string(did), "%v", h.bad)
		return
	}
	x.find(plcLog, string(did), "operations: %d, the last of them of %s", len(h.entries), h.entries[len(h.entries)-1].CreatedAt.UTC().Format(time.DateTime))
	key := ""
	if doc.SigningKey != nil {
		key = doc.SigningKey.DIDKey()
	}
	switch {
	case strings.TrimSuffix(h.state.PDS(), "/") != doc.PDS && doc.PDS != "":
		x.find(plcDiffers, string(did), "the host is %s by the document, and %s by the log", doc.PDS, h.state.PDS())
	case key != "" && key != h.state.SigningKey():
		x.find(plcDiffers, string(did), "the key is %s by the document, and %s by the log", key, h.state.SigningKey())
	case doc.Claimed != "" && doc.Claimed != h.state.Handle().Normalize():
		x.find(plcDiffers, string(did), "the handle is %s by the document, and %s by the log", doc.Claimed, h.state.Handle())
	}
	switch n := len(h.state.RotationKeys); n {
	case 0:
		x.find(plcNoKeys, string(did), "the identity lists no rotation key")
	case 1:
		x.find(plcOneKey, string(did), "only %s can change it", h.state.RotationKeys[0])
	default:
		x.find(plcKeys, string(did), "%d keys can change it: %s", n, join(h.state.RotationKeys))
	}
	void, now := 0, x.o.Now()
	deadlines := map[cid.CID]time.Time{} // of the changes that can be voided
	for _, way := range plc.Recoveries(h.entries, now) {
		deadlines[way.Void[0].CID] = way.Deadline
	}
	var before *plc.Data
	for i := range h.entries {
		e := &h.entries[i]
		if e.Nullified {
			void++
			continue
		}
		state, ok := e.Operation.State()
		if before != nil && now.Sub(e.CreatedAt) <= plc.RecoveryWindow { // creating it is no change
			way := "nobody can void it, since it was signed by the strongest key"
			if until, can := deadlines[e.CID]; can {
				way = "a stronger key can void it until " + until.UTC().Format(time.DateTime)
			}
			x.find(plcRecent, string(did), "%s: %s; %s", e.CreatedAt.UTC().Format(time.DateTime), changes(*before, state, ok), way)
		}
		if ok {
			before = &state
		}
	}
	if void > 0 {
		x.find(plcNullified, string(did), "%d of %d operations were voided", void, len(h.entries))
	}
}

// changes says in words what an operation has changed.
func changes(a, b plc.Data, alive bool) string {
	if !alive {
		return "the identity was ended"
	}
	var words []string
	add := func(changed bool, format string, args ...any) {
		if changed {
			words = append(words, fmt.Sprintf(format, args...))
		}
	}
	add(a.Handle() != b.Handle(), "handle %s to %s", a.Handle(), b.Handle())
	add(a.PDS() != b.PDS(), "host %s to %s", a.PDS(), b.PDS())
	add(a.SigningKey() != b.SigningKey(), "signing key to %s", b.SigningKey())
	add(!slices.Equal(a.RotationKeys, b.RotationKeys), "rotation keys from %d to %d", len(a.RotationKeys), len(b.RotationKeys))
	if len(words) == 0 {
		return "something else was changed"
	}
	return "changed " + strings.Join(words, ", ")
}
