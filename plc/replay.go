package plc

import (
	"slices"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/syntax"
)

// Replay verifies the log of one identity entry by entry, without a claim about what is void. The zero value is before the genesis.
type Replay struct {
	entries []Entry
	n       int // entries that were added, forgotten ones included
}

// Add checks that e, which was accepted at e.CreatedAt, may come next in the log of did. It returns the entries that e makes void. An entry
// with an error is as if it had never been. The error is an *[Error]. What e says of being void itself is not looked at.
func (r *Replay) Add(did syntax.DID, e Entry) (void []Entry, err error) {
	if e.DID != did {
		return nil, fail(RuleAudit, "entry %d is of %s", r.n, e.DID)
	}
	if want := e.Operation.CID(); e.CID != want {
		return nil, fail(RuleAudit, "entry %d has CID %s, but the operation hashes to %s", r.n, e.CID, want)
	}
	at, err := Next(did, r.entries, e.Operation, e.CreatedAt)
	if err != nil {
		return nil, err
	}
	for _, i := range at {
		r.entries[i].Nullified = true
		void = append(void, r.entries[i])
	}
	e.Nullified = false
	r.entries = append(r.entries, e)
	r.n++
	return void, nil
}

// Entries returns what was added and not forgotten, with what is void by the rules.
func (r *Replay) Entries() []Entry { return r.entries }

// State returns the present state; not ok before the genesis and after a tombstone.
func (r *Replay) State() (d Data, ok bool) {
	if len(r.entries) == 0 {
		return Data{}, false
	}
	return r.entries[len(r.entries)-1].Operation.State() // the entry added last is never void
}

// Forget drops what no later entry can build on if entries come in the order of time: void ones, and those whose successor can't be
// overruled any more. It is for logs of which there are very many. An operation that builds on a dropped one breaks another rule then:
// its prev is unknown, instead of it being too late.
func (r *Replay) Forget(now time.Time) {
	keep := slices.DeleteFunc(r.entries, func(e Entry) bool { return e.Nullified })
	from := 0
	for i := 1; i < len(keep); i++ {
		if now.Sub(keep[i].CreatedAt) > RecoveryWindow {
			from = i
		}
	}
	r.entries = slices.Clip(slices.Delete(keep, 0, from))
}

// Recovery is a way back to an earlier state of an identity.
type Recovery struct {
	To       Entry     // the entry whose state it would go back to, which the operation has to name as prev
	Void     []Entry   // what it would make void, at least one entry
	Keys     []string  // did:keys that may sign it, strongest first
	Deadline time.Time // the last moment for it
}

// Recoveries are the ways back that the rules leave at a time, for a log with all its entries in their order, to the latest entry first.
// The log is taken as verified.
func Recoveries(log []Entry, now time.Time) []Recovery {
	var active []Entry
	for i := range log {
		if !log[i].Nullified {
			active = append(active, log[i])
		}
	}
	var out []Recovery
	for i := len(active) - 1; i > 0; i-- {
		base, ok := active[i-1].Operation.State()
		deadline := active[i].CreatedAt.Add(RecoveryWindow)
		if !ok || now.After(deadline) {
			continue
		}
		weaker, err := active[i].Operation.Signer(base.RotationKeys)
		if err != nil || weaker == 0 {
			continue // it was signed by the strongest key
		}
		out = append(out, Recovery{To: active[i-1], Void: slices.Clone(active[i:]), Keys: slices.Clone(base.RotationKeys[:weaker]), Deadline: deadline})
	}
	return out
}

// LastOf returns the CID of the entry of a log that a next operation follows; undefined for an empty log.
func LastOf(log []Entry) (last cid.CID) {
	for i := range log {
		if !log[i].Nullified {
			last = log[i].CID
		}
	}
	return last
}
