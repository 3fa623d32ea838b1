package plc

import (
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/syntax"
)

// Entry is an operation as a directory has accepted it.
type Entry struct {
	DID       syntax.DID
	Operation *Operation
	CID       cid.CID
	Nullified bool      // made void by a later operation of a stronger key
	CreatedAt time.Time // when the directory accepted it
}

// Next decides whether op, arriving at now, may follow log, which holds all entries in the order of acceptance, void ones
// included. It returns the indexes of the entries that op makes void, none for an ordinary operation. The error is an *[Error].
// The limits of [Operation.Check] are not applied.
func Next(did syntax.DID, log []Entry, op *Operation, now time.Time) (void []int, err error) {
	active := make([]int, 0, len(log))
	for i := range log {
		if !log[i].Nullified {
			active = append(active, i)
		}
	}
	if len(active) == 0 {
		return nil, genesis(did, op)
	}
	if op.Type == TypeCreate {
		return nil, fail(RuleOrder, "an operation of the old form can only be the first")
	}
	if !op.Prev.Defined() {
		return nil, fail(RuleOrder, "prev is null, but %s exists", did)
	}
	at := slices.IndexFunc(active, func(i int) bool { return log[i].CID == op.Prev })
	if at < 0 {
		return nil, fail(RuleOrder, "prev %s is not in the valid history", op.Prev)
	}
	base, ok := log[active[at]].Operation.State()
	if !ok {
		return nil, fail(RuleTombstone, "the identity was ended by a tombstone")
	}
	void = active[at+1:]
	if len(void) == 0 {
		_, err := op.Signer(base.RotationKeys)
		return nil, err
	}
	// A fork: only a key that is stronger than the one it overrules may do it, and only for a while.
	disputed := &log[void[0]]
	weaker, err := disputed.Operation.Signer(base.RotationKeys)
	if err != nil {
		return nil, err
	}
	if _, err := op.Signer(base.RotationKeys[:weaker]); err != nil {
		return nil, fail(RuleSignature, "not signed by a key stronger than the one that signed %s", disputed.CID)
	}
	if last := &log[active[len(active)-1]]; !now.After(last.CreatedAt) {
		return nil, fail(RuleOrder, "a recovery must be later than the operations it makes void")
	}
	if late := now.Sub(disputed.CreatedAt); late > RecoveryWindow {
		return nil, fail(RuleLate, "recovery %v after the operation it would make void, at most %v are allowed", late, RecoveryWindow)
	}
	return void, nil
}

func genesis(did syntax.DID, op *Operation) error {
	state, ok := op.State()
	switch {
	case !ok:
		return fail(RuleOrder, "the first operation is a tombstone")
	case op.Prev.Defined():
		return fail(RuleOrder, "prev is not null, but %s does not exist", did)
	}
	if _, err := op.Signer(state.RotationKeys); err != nil {
		return err
	}
	if want := op.DID(); want != did {
		return fail(RuleGenesis, "operation is the genesis of %s", want)
	}
	return nil
}

// Verify replays an audit log, void entries included, and compares every claim of the directory: DIDs, CIDs, which entries are
// void. It returns the present state; active is false when a tombstone ended the identity.
func Verify(did syntax.DID, log []Entry) (state Data, active bool, err error) {
	if len(log) == 0 {
		return Data{}, false, fail(RuleAudit, "log is empty")
	}
	var r Replay
	for i := range log {
		if _, err := r.Add(did, log[i]); err != nil {
			return Data{}, false, err
		}
	}
	for i, e := range r.Entries() {
		if log[i].Nullified != e.Nullified {
			return Data{}, false, fail(RuleAudit, "entry %d is said to be void: %v, but by the rules: %v", i, log[i].Nullified, e.Nullified)
		}
	}
	state, active = r.State()
	return state, active, nil
}

// timeFormat is the directory's: UTC with milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z"

// FormatTime writes a timestamp as the directory does, in UTC with milliseconds.
func FormatTime(t time.Time) string { return t.UTC().Format(timeFormat) }

// AppendJSON appends the entry as it stands in an audit log and in the export by time.
func (e *Entry) AppendJSON(dst []byte) []byte {
	dst = appendField(dst, '{', "did", string(e.DID))
	dst = append(dst, `,"operation":`...)
	dst = e.Operation.AppendJSON(dst)
	dst = appendField(dst, ',', "cid", e.CID.String())
	dst = append(dst, `,"nullified":`...)
	if e.Nullified {
		dst = append(dst, "true"...)
	} else {
		dst = append(dst, "false"...)
	}
	dst = appendField(dst, ',', "createdAt", FormatTime(e.CreatedAt))
	return append(dst, '}')
}

// MarshalJSON is [Entry.AppendJSON].
func (e Entry) MarshalJSON() ([]byte, error) { return e.AppendJSON(nil), nil }

// UnmarshalJSON reads an entry of an audit log or of an export; the operation strictly, fields that it does not know are ignored.
func (e *Entry) UnmarshalJSON(b []byte) error {
	var v struct {
		DID       string          `json:"did"`
		Operation json.RawMessage `json:"operation"`
		CID       cid.CID         `json:"cid"`
		Nullified bool            `json:"nullified"`
		CreatedAt string          `json:"createdAt"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return fail(RuleFormat, "log entry: %v", err)
	}
	did, err := syntax.ParseDID(v.DID)
	if err != nil {
		return fail(RuleFormat, "log entry: %v", err)
	}
	at, err := syntax.ParseDatetime(v.CreatedAt)
	if err != nil {
		return fail(RuleFormat, "log entry: %v", err)
	}
	op, err := ParseJSON(v.Operation)
	if err != nil {
		return err
	}
	*e = Entry{DID: did, Operation: op, CID: v.CID, Nullified: v.Nullified, CreatedAt: at.Time()}
	return nil
}

// AppendSequencedJSON appends the entry as it stands in the export by sequence number and in the stream.
func (e *Entry) AppendSequencedJSON(dst []byte, seq int64) []byte {
	dst = append(dst, `{"type":"sequenced_op","operation":`...)
	dst = e.Operation.AppendJSON(dst)
	dst = appendField(dst, ',', "did", string(e.DID))
	dst = appendField(dst, ',', "cid", e.CID.String())
	dst = appendField(dst, ',', "createdAt", FormatTime(e.CreatedAt))
	dst = append(dst, `,"seq":`...)
	return append(strconv.AppendInt(dst, seq, 10), '}')
}
