package workflow

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/barograph/baro/api/comatiproto"
	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/lexicons"
	"github.com/barograph/baro/syntax"
)

// Schema is the NSID of the schema of all that goes over the wire.
const Schema = "com.atiproto.actions"

// Fields of an answer, and of the next call, that may hold the workflow. An agent sends the field that the server sent.
const (
	Field    = "workflow"
	OldField = "$workflow" // of earlier versions
)

// Types of what goes over the wire.
type (
	Outbound = comatiproto.Actions_OutboundWorkflow
	Inbound  = comatiproto.Actions_InboundWorkflow
	Response = comatiproto.Actions_Response
	Failure  = comatiproto.Actions_Error
)

// IntentError is the intent of a callback that reports a failure.
const IntentError = "error"

// Verb is what an action does.
type Verb string

// The verbs.
const (
	Create Verb = "create"
	Update Verb = "update"
	Delete Verb = "delete"
	Raise  Verb = "raise"
)

// EnvelopeError says that a workflow breaks its schema: which action it is about, and how.
type EnvelopeError struct {
	Action int    // index, or -1 for the workflow itself
	Verb   string // of the action, as far as it is known
	Name   string // of the action, as far as it is known
	Err    error
}

func (e *EnvelopeError) Error() string {
	if e.Action < 0 {
		return "the workflow is malformed: " + e.Err.Error()
	}
	return fmt.Sprintf("action %d of the workflow is malformed: %v", e.Action, e.Err)
}

// Unwrap returns the cause.
func (e *EnvelopeError) Unwrap() error { return e.Err }

// Limits of a batch.
const (
	// MaxActions is how many actions one answer may hold: as many as one commit may have operations.
	MaxActions = 200
	maxIntent  = 64
)

// catalog has the schema of the envelopes.
var catalog = sync.OnceValue(func() *lexicon.Catalog {
	b, err := lexicons.Schema(Schema)
	if err != nil {
		panic(err)
	}
	c := lexicon.NewCatalog()
	if _, err := c.AddJSON(b); err != nil {
		panic(err)
	}
	return c
})

// Split parts an answer into the workflow in it and the rest. The answer is a map in DAG-CBOR. Field is "" if there is no
// workflow, or what is in its place doesn't have the form of one, or it asks for nothing: then rest is the answer without
// the field if the field held nothing to do, and as it was otherwise. Both fields at once are an [*EnvelopeError].
func Split(answer data.Raw) (rest data.Raw, field string, workflow data.Raw, err error) {
	m, err := entries(answer)
	if err != nil {
		return nil, "", nil, err
	}
	at := -1
	for i, e := range m {
		if e.key != Field && e.key != OldField || !looksLike(e.value) {
			continue
		}
		if at >= 0 {
			return nil, "", nil, &EnvelopeError{Action: -1, Err: fmt.Errorf("there is one in the field %s and another in %s", Field, OldField)}
		}
		at = i
	}
	if at < 0 {
		return answer, "", nil, nil
	}
	found := m[at]
	rest = join(slices.Delete(slices.Clone(m), at, at+1))
	if !hasActions(found.value) {
		return rest, "", nil, nil
	}
	return rest, found.key, found.value, nil
}

// With returns a map in DAG-CBOR with a field set. A nil map stands for an empty one.
func With(input data.Raw, field string, value data.Raw) (data.Raw, error) {
	m, err := entries(input)
	if err != nil {
		return nil, err
	}
	m = slices.DeleteFunc(m, func(e entry) bool { return e.key == field })
	return join(append(m, entry{field, value})), nil
}

type entry struct {
	key   string
	value data.Raw
}

func entries(m data.Raw) ([]entry, error) {
	if m == nil {
		return nil, nil
	}
	r := cbor.NewReader(m)
	n, err := r.Map()
	if err != nil {
		return nil, fmt.Errorf("not an object: %w", err)
	}
	var all []entry
	var prev []byte
	for range n {
		if prev, err = r.MapKey(prev); err != nil {
			return nil, err
		}
		v, err := r.Raw()
		if err != nil {
			return nil, err
		}
		all = append(all, entry{string(prev), v})
	}
	return all, r.End()
}

func join(m []entry) data.Raw {
	slices.SortFunc(m, func(a, b entry) int { return cbor.CompareKeys(a.key, b.key) })
	out := cbor.AppendMap(nil, len(m))
	for _, e := range m {
		out = append(cbor.AppendText(out, e.key), e.value...)
	}
	return out
}

// looksLike says whether a value is an object with a text intent and an array of actions: what an agent takes for a
// workflow. Anything else in the field is the server's own business.
func looksLike(v data.Raw) bool {
	m, err := entries(v)
	if err != nil {
		return false
	}
	intent, actions := false, false
	for _, e := range m {
		r := cbor.NewReader(e.value)
		kind, err := r.Kind()
		if err != nil {
			return false
		}
		intent = intent || e.key == "intent" && kind == cbor.KindText
		actions = actions || e.key == "actions" && kind == cbor.KindArray
	}
	return intent && actions
}

func hasActions(v data.Raw) bool {
	m, _ := entries(v)
	for _, e := range m {
		if e.key == "actions" {
			r := cbor.NewReader(e.value)
			n, err := r.Array()
			return err != nil || n > 0
		}
	}
	return false
}

// Action is one action of a batch, checked.
type Action struct {
	Verb       Verb             `json:"verb"`
	Name       string           `json:"name,omitempty"`
	Repo       syntax.DID       `json:"repo,omitempty"`
	Collection syntax.NSID      `json:"collection,omitempty"`
	RecordKey  syntax.RecordKey `json:"rkey,omitempty"`       // may be empty in a create
	Record     data.Raw         `json:"record,omitempty"`     // of a create or update
	SwapCommit string           `json:"swapCommit,omitempty"` // may be empty

	// Of a raise.
	Message string `json:"message,omitempty"`
	Code    string `json:"code,omitempty"`
}

// Decode reads and checks a workflow that a server sent: against the schema, with its limits in bytes of UTF-8, and that
// names are there and differ, that a raise is the last, and that record keys may be record keys. The error is an
// [*EnvelopeError].
func Decode(workflow data.Raw) (intent string, actions []Action, err error) {
	var w Outbound
	if err := data.Unmarshal(workflow, &w); err != nil {
		return "", nil, &EnvelopeError{Action: -1, Err: err}
	}
	if len(w.Actions) > MaxActions {
		return w.Intent, nil, &EnvelopeError{Action: -1, Err: fmt.Errorf("%d actions, at most %d may be", len(w.Actions), MaxActions)}
	}
	names := map[string]bool{}
	for i, u := range w.Actions {
		a, err := decodeAction(u)
		switch {
		case err != nil:
		case a.Verb == Raise:
			if i < len(w.Actions)-1 {
				err = errors.New("something follows a raise")
			}
		case names[a.Name]:
			err = fmt.Errorf("a second action has the name %q", a.Name)
		default:
			names[a.Name] = true
		}
		if err != nil {
			return w.Intent, nil, &EnvelopeError{Action: i, Verb: string(a.Verb), Name: clip(a.Name, 64), Err: err}
		}
		actions = append(actions, a)
	}
	if err := catalog().ValidateType(Schema+"#outboundWorkflow", workflow); err != nil {
		return clip(w.Intent, maxIntent), nil, &EnvelopeError{Action: -1, Err: err}
	}
	return w.Intent, actions, nil
}

func decodeAction(u comatiproto.Actions_OutboundWorkflow_Actions_Elem) (Action, error) {
	var a Action
	var key *string
	var repo, collection string
	switch v := u.Value.(type) {
	case *comatiproto.Actions_Create:
		a = Action{Verb: Create, Name: v.Name, Record: v.Record}
		repo, collection, key = v.Repo, v.Collection, v.Rkey
	case *comatiproto.Actions_Update:
		a = Action{Verb: Update, Name: v.Name, Record: v.Record, SwapCommit: deref(v.SwapCommit)}
		repo, collection, key = v.Repo, v.Collection, &v.Rkey
	case *comatiproto.Actions_Delete:
		a = Action{Verb: Delete, Name: v.Name, SwapCommit: deref(v.SwapCommit)}
		repo, collection, key = v.Repo, v.Collection, &v.Rkey
	case *comatiproto.Actions_Raise:
		return Action{Verb: Raise, Message: v.Message, Code: deref(v.Code)}, nil
	default:
		verb := u.Type()
		if verb == "" {
			return a, errors.New("it has no $type")
		}
		a.Verb = Verb(clip(strings.TrimPrefix(verb, Schema+"#"), 32))
		return a, fmt.Errorf("%q is no action that is known here", verb)
	}
	if a.Name == "" {
		return a, errors.New("it has no name")
	}
	var err error
	if a.Repo, err = syntax.ParseDID(repo); err != nil {
		return a, err
	}
	if a.Collection, err = syntax.ParseNSID(collection); err != nil {
		return a, err
	}
	if key != nil {
		if a.RecordKey, err = syntax.ParseRecordKey(*key); err != nil {
			return a, err
		}
	}
	if a.Record != nil {
		if t := data.TypeOf(a.Record); t != string(a.Collection) {
			return a, fmt.Errorf("a record of type %q for the collection %s", t, a.Collection)
		}
		if len(a.Record) > cbor.MaxRecord {
			return a, fmt.Errorf("a record of %d bytes, at most %d may be", len(a.Record), cbor.MaxRecord)
		}
	}
	return a, nil
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// clip cuts a text to a number of bytes, between characters.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && s[limit]&0xc0 == 0x80 {
		limit--
	}
	return s[:limit]
}

// DecodeInbound reads and checks a callback that an agent sent. What it claims is not believed yet: see [Verifier]. The
// error is an [*EnvelopeError].
func DecodeInbound(workflow data.Raw) (*Inbound, error) {
	w := new(Inbound)
	if err := data.Unmarshal(workflow, w); err != nil {
		return nil, &EnvelopeError{Action: -1, Err: err}
	}
	if len(w.Responses) > MaxActions {
		return nil, &EnvelopeError{Action: -1, Err: fmt.Errorf("%d responses, at most %d may be", len(w.Responses), MaxActions)}
	}
	if err := catalog().ValidateType(Schema+"#inboundWorkflow", workflow); err != nil {
		return nil, &EnvelopeError{Action: -1, Err: err}
	}
	if (w.Intent == IntentError) != (w.Error != nil) {
		return nil, &EnvelopeError{Action: -1, Err: errors.New("an error and the intent error go together")}
	}
	names := map[string]bool{}
	for i, r := range w.Responses {
		if names[r.Name] {
			return nil, &EnvelopeError{Action: i, Verb: r.Action, Name: r.Name, Err: fmt.Errorf("a second response has the name %q", r.Name)}
		}
		names[r.Name] = true
	}
	return w, nil
}
