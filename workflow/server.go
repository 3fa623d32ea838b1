package workflow

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/barograph/baro/api/comatiproto"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// Handler serves one method whose answers ask for actions. Give it to [Serve].
//
// Each flow has a token, which is made of a secret, the caller, the method and the input, and stands in the intents and in
// the names of the actions. Only for the same caller and input does it come back, or the report is refused. A report that comes
// twice gets the answer that it got the first time, byte for byte, and no step runs again for it; a step whose report has
// changed since is refused.
//
// A step should have no effect that may not happen twice before its answer is kept: it may run again if the process ends in
// between. [Round.Token] is the same then, for an effect elsewhere that takes a key against repetition.
type Handler[I, O any] struct {
	// Start answers the first call of a flow. It should have no effect yet: who gets no answer asks again, and that is
	// another flow.
	Start func(context.Context, *Round[I]) (*Reply[O], error)
	// On answers the report on a batch whose intent is the key, when all of it was done.
	On map[string]func(context.Context, *Round[I]) (*Reply[O], error)
	// OnError answers the report on a batch of which an action failed. It may ask for what makes good, see [Compensate], or
	// end the flow, see [Fail]. nil: the flow ends.
	OnError func(context.Context, *Round[I]) (*Reply[O], error)
}

// ServeOptions are how methods with workflows are served. Secret, Store and Caller are needed, and one of Verifier and
// Unverified.
type ServeOptions struct {
	Secret []byte // of at least 32 bytes; tokens made with another one are refused
	Store  Store
	// Caller says who calls: usually by the token of the proxying PDS. Its error is the answer.
	Caller func(*xrpc.Request) (syntax.DID, error)
	// Verifier asks for proofs of what agents report, before a step sees it.
	Verifier *Verifier
	// Unverified believes agents. A step must not do anything of value then.
	Unverified bool
	// Rand are random bytes, for tokens.
	Rand io.Reader
}

// Round is one call of a flow.
type Round[I any] struct {
	Caller  syntax.DID
	Input   *I
	Token   string     // of the flow
	Intent  string     // of the batch that is reported on; "" at the start
	Results []Verified // what was done, in order
	Failure *Failure   // what failed; nil if nothing did. Its name is the action's
}

// Result returns what was done by the action of a name.
func (c *Round[I]) Result(name string) (Verified, bool) {
	i := slices.IndexFunc(c.Results, func(v Verified) bool { return v.Name == name })
	if i < 0 {
		return Verified{}, false
	}
	return c.Results[i], true
}

// Reply is the answer to a call: an output at the end of a flow, or actions and the intent that the report on them is to
// have. An output may come with actions if agents are to see it meanwhile.
type Reply[O any] struct {
	Output  *O
	Intent  string
	Actions []Action
}

// Final ends a flow with an output.
func Final[O any](out *O) (*Reply[O], error) { return &Reply[O]{Output: out}, nil }

// Ask asks for actions.
func Ask[O any](intent string, actions ...Action) (*Reply[O], error) {
	return &Reply[O]{Intent: intent, Actions: actions}, nil
}

// Fail ends a flow with an error, after actions that make good if there are any.
func Fail[O any](message, code string, actions ...Action) (*Reply[O], error) {
	return &Reply[O]{Intent: "fail", Actions: append(actions, Action{Verb: Raise, Message: message, Code: code})}, nil
}

// NewCreate is an action that creates a record, a struct with a `$type`, in the caller's repository.
func NewCreate(repo syntax.DID, name string, record any) (Action, error) {
	raw, err := data.Marshal(record)
	return Action{Verb: Create, Name: name, Repo: repo, Collection: syntax.NSID(data.TypeOf(raw)), Record: raw}, err
}

// Names of errors of flows.
const (
	ErrInvalidWorkflow xrpc.ErrorName = "InvalidWorkflow" // the report is malformed, or its token isn't this flow's
	ErrUnknownStep     xrpc.ErrorName = "UnknownStep"     // no such batch is waited for
	ErrReportChanged   xrpc.ErrorName = "ReportChanged"   // the batch was reported on before, and otherwise
	ErrNotBelieved     xrpc.ErrorName = "ClaimNotProven"  // the report says what isn't so
)

// flow is what is kept of a flow.
type flow struct {
	Batches []batchSent `json:"batches"`
}

type batchSent struct {
	Intent string   `json:"intent"` // on the wire
	Own    string   `json:"own"`    // as the service calls it
	Action []Action `json:"actions"`
	Report string   `json:"report,omitempty"` // hash of the report; "" while it is waited for
	Answer data.Raw `json:"answer,omitempty"`
}

// Serve adds a method with workflows to a server.
func Serve[I, O any](s *xrpc.Server, p xrpc.Procedure[I, O], o ServeOptions, h Handler[I, O], route ...xrpc.RouteOptions) {
	switch {
	case len(o.Secret) < 32:
		panic("workflow: the secret has less than 32 bytes")
	case o.Store == nil || o.Caller == nil || o.Rand == nil || h.Start == nil:
		panic("workflow: a store, a caller, randomness and a start are needed")
	case (o.Verifier == nil) != o.Unverified:
		panic("workflow: either a verifier or Unverified is needed")
	}
	m := &method[I, O]{nsid: p.NSID, o: o, h: h}
	xrpc.HandleRaw(s, p.NSID, http.MethodPost, func(w http.ResponseWriter, r *xrpc.Request) error {
		answer, err := m.serve(r)
		if err != nil {
			return err
		}
		b, err := data.AppendJSON(nil, answer)
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json")
		_, err = w.Write(b)
		return err
	}, route...)
}

type method[I, O any] struct {
	nsid string
	o    ServeOptions
	h    Handler[I, O]
}

// maxInput is how many bytes of a call are read: an input, and a report.
const maxInput = 2 << 20

func (m *method[I, O]) serve(r *xrpc.Request) (data.Raw, error) {
	ctx := r.Context()
	caller, err := m.o.Caller(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxInput+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxInput {
		return nil, &xrpc.Error{Status: http.StatusRequestEntityTooLarge, Name: string(xrpc.ErrInvalidRequest), Message: "the body is too large"}
	}
	if len(bytes.TrimSpace(body)) == 0 {
		body = []byte("{}")
	}
	whole, err := data.AppendCBOR(nil, body)
	if err != nil {
		return nil, xrpc.ErrInvalidRequest.With("%v", err)
	}
	input, field, report, err := splitReport(whole)
	if err != nil {
		return nil, ErrInvalidWorkflow.With("%v", err)
	}
	c := &Round[I]{Caller: caller, Input: new(I)}
	if err := data.Unmarshal(input, c.Input); err != nil {
		return nil, xrpc.ErrInvalidRequest.With("%v", err)
	}
	if report == nil {
		return m.start(ctx, c, input)
	}
	return m.step(ctx, c, input, field, report)
}

// splitReport parts a call into its input and the report in it.
func splitReport(whole data.Raw) (input data.Raw, field string, report data.Raw, err error) {
	all, err := entries(whole)
	if err != nil {
		return nil, "", nil, err
	}
	var rest []entry
	for _, e := range all {
		switch {
		case e.key != Field && e.key != OldField:
			rest = append(rest, e)
		case report != nil:
			return nil, "", nil, fmt.Errorf("there is a report in the field %s and another in %s", Field, OldField)
		default:
			field, report = e.key, e.value
		}
	}
	return join(rest), field, report, nil
}

func (m *method[I, O]) start(ctx context.Context, c *Round[I], input data.Raw) (data.Raw, error) {
	nonce := make([]byte, 6)
	if _, err := io.ReadFull(m.o.Rand, nonce); err != nil {
		return nil, err
	}
	c.Token = m.token(nonce, c.Caller, input)
	reply, err := m.h.Start(ctx, c)
	if err != nil {
		return nil, err
	}
	var f flow
	answer, err := m.answer(&f, c, Field, reply)
	if err != nil || len(f.Batches) == 0 {
		return answer, err
	}
	return answer, m.o.Store.Update(ctx, c.Token, func(old []byte) ([]byte, error) {
		if old != nil {
			return nil, errors.New("two flows have the same token")
		}
		return json.Marshal(f)
	})
}

// step answers a report.
func (m *method[I, O]) step(ctx context.Context, c *Round[I], input data.Raw, field string, report data.Raw) (answer data.Raw, err error) {
	in, err := DecodeInbound(report)
	if err != nil {
		return nil, ErrInvalidWorkflow.With("%v", err)
	}
	c.Failure = in.Error
	if c.Token = tokenOf(in); c.Token == "" || !m.mine(c.Token, c.Caller, input) {
		return nil, ErrInvalidWorkflow.With("the report is of no flow of this caller and input")
	}
	sum := sha256.Sum256(report)
	hash := base64.RawURLEncoding.EncodeToString(sum[:])
	err = m.o.Store.Update(ctx, c.Token, func(old []byte) ([]byte, error) {
		var f flow
		if old == nil {
			return nil, ErrUnknownStep.With("the flow is not known any more")
		}
		if err := json.Unmarshal(old, &f); err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(f.Batches, func(b batchSent) bool { return b.Report == hash }); i >= 0 {
			answer = f.Batches[i].Answer
			return nil, nil
		}
		b := &f.Batches[len(f.Batches)-1]
		switch {
		case b.Report != "" || in.Error == nil && in.Intent != b.Intent:
			if slices.ContainsFunc(f.Batches, func(b batchSent) bool { return b.Report != "" && b.Intent == in.Intent }) {
				return nil, ErrReportChanged.With("the batch was reported on before, and otherwise")
			}
			return nil, ErrUnknownStep.With("no report on %q is waited for", in.Intent)
		case len(b.Action) > 0 && b.Action[len(b.Action)-1].Verb == Raise && in.Error == nil:
			return nil, ErrUnknownStep.With("the flow has ended with an error")
		}
		c.Intent = b.Own
		writes := slices.DeleteFunc(slices.Clone(b.Action), func(a Action) bool { return a.Verb == Raise })
		if in.Error != nil && len(writes) < len(b.Action) && len(in.Responses) == len(writes) {
			return nil, ErrNotBelieved.With("a raise can't fail")
		}
		results, err := match(c.Caller, writes, in)
		if err == nil && m.o.Verifier != nil {
			err = m.o.Verifier.prove(ctx, c.Caller, results)
		}
		var lie *ClaimError
		if errors.As(err, &lie) {
			return nil, ErrNotBelieved.With("%v", err)
		}
		if err != nil {
			return nil, err
		}
		mark := suffix(c.Token, len(f.Batches)-1)
		for i := range results {
			results[i].Name = strings.TrimSuffix(results[i].Name, mark)
		}
		c.Results = results
		if in.Error != nil && in.Error.Name != nil {
			failure := *in.Error
			failure.Name = new(strings.TrimSuffix(*in.Error.Name, mark))
			c.Failure = &failure
		}
		reply, err := m.next(ctx, c)
		if err != nil {
			return nil, err
		}
		b.Report = hash
		at := len(f.Batches) - 1
		if answer, err = m.answer(&f, c, field, reply); err != nil {
			return nil, err
		}
		f.Batches[at].Answer = answer
		return json.Marshal(f)
	})
	return answer, err
}

// next runs the step that a report leads to.
func (m *method[I, O]) next(ctx context.Context, c *Round[I]) (*Reply[O], error) {
	if c.Failure != nil {
		if m.h.OnError == nil {
			return Fail[O]("the actions could not be carried out: "+clip(c.Failure.Message, 900), deref(c.Failure.Code))
		}
		return m.h.OnError(ctx, c)
	}
	on := m.h.On[c.Intent]
	if on == nil {
		return nil, ErrUnknownStep.With("nothing follows %q", c.Intent)
	}
	return on(ctx, c)
}

// answer encodes a reply, and notes the batch in it.
func (m *method[I, O]) answer(f *flow, c *Round[I], field string, reply *Reply[O]) (data.Raw, error) {
	var out data.Raw = join(nil)
	if reply.Output != nil {
		raw, err := data.Marshal(reply.Output)
		if err != nil {
			return nil, err
		}
		if out = raw; len(reply.Actions) == 0 {
			return out, nil
		}
	}
	if len(reply.Actions) == 0 {
		return nil, errors.New("workflow: a reply has neither output nor actions")
	}
	// The number of the batch keeps the reports on two batches apart, whatever the service calls its actions.
	mark := suffix(c.Token, len(f.Batches))
	b := batchSent{Own: reply.Intent, Intent: reply.Intent + mark}
	w := comatiproto.Actions_OutboundWorkflow{Intent: b.Intent}
	for _, a := range reply.Actions {
		if a.Verb != Raise {
			a.Name += mark
		}
		if a.Repo == "" {
			a.Repo = c.Caller
		}
		b.Action = append(b.Action, a)
		w.Actions = append(w.Actions, a.wire())
	}
	raw, err := data.Marshal(&w)
	if err != nil {
		return nil, err
	}
	if _, _, err := Decode(raw); err != nil {
		return nil, fmt.Errorf("workflow: a step asks for what no agent takes: %w", err)
	}
	f.Batches = append(f.Batches, b)
	return With(out, field, raw)
}

func (a Action) wire() (u comatiproto.Actions_OutboundWorkflow_Actions_Elem) {
	swap := optional(a.SwapCommit)
	repo, collection, key := string(a.Repo), string(a.Collection), string(a.RecordKey)
	switch a.Verb {
	case Create:
		u.Value = &comatiproto.Actions_Create{Repo: repo, Name: a.Name, Collection: collection, Rkey: optional(key), Record: a.Record}
	case Update:
		u.Value = &comatiproto.Actions_Update{Repo: repo, Name: a.Name, Collection: collection, Rkey: key, Record: a.Record, SwapCommit: swap}
	case Delete:
		u.Value = &comatiproto.Actions_Delete{Repo: repo, Name: a.Name, Collection: collection, Rkey: key, SwapCommit: swap}
	case Raise:
		u.Value = &comatiproto.Actions_Raise{Message: a.Message, Code: optional(a.Code)}
	}
	return u
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// A token is 22 characters: 6 random bytes, then 10 bytes of an HMAC over what the flow is about.
const tokenLength = 22

// suffix is what stands behind the names of a batch: the token of the flow and the number of the batch.
func suffix(token string, batch int) string { return "~" + token + "." + strconv.Itoa(batch) }

func (m *method[I, O]) token(nonce []byte, caller syntax.DID, input data.Raw) string {
	mac := hmac.New(sha256.New, m.o.Secret)
	for _, part := range [][]byte{nonce, []byte(caller), []byte(m.nsid)} {
		mac.Write(part)
		mac.Write([]byte{0})
	}
	mac.Write(input)
	return base64.RawURLEncoding.EncodeToString(append(nonce[:6:6], mac.Sum(nil)[:10]...))
}

func (m *method[I, O]) mine(token string, caller syntax.DID, input data.Raw) bool {
	b, err := base64.RawURLEncoding.DecodeString(token)
	return err == nil && len(b) == 16 && hmac.Equal([]byte(token), []byte(m.token(b[:6], caller, input)))
}

// tokenOf finds the token in a report: in the intent, or, where that is "error", in a name.
func tokenOf(in *Inbound) string {
	names := []string{in.Intent}
	for _, r := range in.Responses {
		names = append(names, r.Name)
	}
	if in.Error != nil {
		names = append(names, deref(in.Error.Name))
	}
	for _, n := range names {
		_, mark, _ := strings.Cut(n[max(0, strings.LastIndexByte(n, '~')):], "~")
		if token, number, ok := strings.Cut(mark, "."); ok && len(token) == tokenLength && number != "" {
			return token
		}
	}
	return ""
}
