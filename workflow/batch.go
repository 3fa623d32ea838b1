package workflow

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/barograph/baro/api/comatiproto"
	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// Plan is a batch that is about to be carried out.
type Plan struct {
	Run     string
	Step    int // from 0 on
	Service string
	Method  syntax.NSID
	Intent  string
	Atomic  bool // in one commit
	Actions []PlannedAction
	Refused error // why the policy refuses the batch; nil if it doesn't. The actions are those asked for then, and nothing is decided
}

// PlannedAction is one action of a plan.
type PlannedAction struct {
	Action
	URI       syntax.ATURI // with the record key that will be used
	ChosenKey bool         // the agent chose the record key
	CID       string       // of the record as it will be; "" after a deletion
	Before    string       // CID of the record as it is; "" if there is none
	Old       data.Raw     // the record as it is; nil if there is none
	Note      string       // what a person should know, such as that the schema isn't known

	sent bool // the journal says that it may have been sent
	over bool // the journal says that it succeeded
}

// batch carries out one batch and returns the report. Planned is what a journal knows of it; malformed is what is known to be
// wrong with it. An error means that there is nothing to report: it is what Run returns.
func (r *run) batch(ctx context.Context, w data.Raw, planned []PlannedAction, malformed *EnvelopeError) (*Inbound, error) {
	intent, actions, err := Decode(w)
	if malformed == nil {
		errors.As(err, &malformed)
	}
	if malformed != nil {
		return r.fail(ctx, nil, &ActionError{Verb: Verb(malformed.Verb), Name: malformed.Name, Code: CodeInvalid, Err: malformed})
	}
	plan := &Plan{Run: r.id, Step: r.step, Service: r.req.Service, Method: r.req.Method, Intent: intent, Actions: planned}
	plan.Atomic = r.atomic && len(actions) > 1 && actions[len(actions)-1].Verb != Raise
	if planned == nil {
		notes, err := r.a.Policy.check(r.req.Method, r.a.DID, actions)
		if err != nil {
			if r.a.OnPlan != nil {
				plan.Refused = err
				for _, a := range actions {
					plan.Actions = append(plan.Actions, PlannedAction{Action: a})
				}
				if answer := r.a.OnPlan(ctx, plan); ctx.Err() != nil {
					return nil, &InterruptedError{Run: r.id, Err: errors.Join(ctx.Err(), answer)}
				}
			}
			return r.refuse(ctx, err, actions)
		}
		if plan.Actions, err = r.plan(ctx, actions); err != nil {
			return nil, &InterruptedError{Run: r.id, Err: err}
		}
		for i, note := range notes {
			plan.Actions[i].Note = note
		}
		if r.a.OnPlan != nil {
			if err := r.a.OnPlan(ctx, plan); err != nil {
				if ctx.Err() != nil {
					return nil, &InterruptedError{Run: r.id, Err: err}
				}
				if actions[0].Verb != Raise { // there is nothing to refuse about an end
					return r.refuse(ctx, err, actions)
				}
			}
		}
		for i, p := range plan.Actions {
			if p.Verb == Raise {
				continue
			}
			if err := r.note(ctx, Entry{State: StatePlanned, Step: r.step, Action: i, Verb: p.Verb, Name: p.Name, URI: p.URI, CID: p.CID, Before: p.Before, Old: p.Old}); err != nil {
				return nil, err
			}
		}
	}
	if plan.Atomic {
		return r.atomically(ctx, plan)
	}
	var responses []comatiproto.Actions_Response
	for i := range plan.Actions {
		p := &plan.Actions[i]
		if p.Verb == Raise {
			err := &RaisedError{Run: r.id, Message: p.Message, Code: p.Code, Done: r.done}
			return nil, errors.Join(err, r.note(ctx, Entry{State: StateFinal, Outcome: OutcomeRaised, Message: p.Message, Code: p.Code}))
		}
		if !p.over {
			if err := r.perform(ctx, i, p); err != nil {
				var failure *ActionError
				if errors.As(err, &failure) {
					return r.fail(ctx, responses, failure)
				}
				return nil, err
			}
		}
		responses = append(responses, p.response())
	}
	r.failed = 0
	return &Inbound{Intent: intent, Responses: orEmpty(responses)}, nil
}

func orEmpty(responses []comatiproto.Actions_Response) []comatiproto.Actions_Response {
	if responses == nil {
		return []comatiproto.Actions_Response{}
	}
	return responses
}

func (p *PlannedAction) response() comatiproto.Actions_Response {
	out := comatiproto.Actions_Response{Action: string(p.Verb), Name: p.Name, Result: comatiproto.Actions_RecordResult{Uri: string(p.URI)}}
	if p.CID != "" {
		out.Result.Cid = &p.CID
	}
	return out
}

// refuse reports that nothing of a batch was done because of the policy, or of who was asked. The report names an action even
// where the reason is the whole batch, because a server may know by the name which flow it is about.
func (r *run) refuse(ctx context.Context, err error, actions []Action) (*Inbound, error) {
	failure := &ActionError{Code: CodePolicy, Err: err}
	var p *PolicyError
	if errors.As(err, &p) {
		failure.Verb, failure.Name = p.Verb, p.Name
	}
	if failure.Name == "" && len(actions) > 0 {
		failure.Verb, failure.Name = actions[0].Verb, actions[0].Name
	}
	return r.fail(ctx, nil, failure)
}

// fail notes a failure and makes the report of it.
func (r *run) fail(ctx context.Context, responses []comatiproto.Actions_Response, failure *ActionError) (*Inbound, error) {
	err := r.note(ctx, Entry{State: StateFailed, Step: r.step, Verb: failure.Verb, Name: failure.Name, Code: failure.Code, Message: failure.Err.Error()})
	if err != nil {
		return nil, err
	}
	r.failed++
	return r.tell(ctx, responses, failure)
}

// tell makes the report of a failure that is noted, unless nobody is there to report to, or it is one too many.
func (r *run) tell(ctx context.Context, responses []comatiproto.Actions_Response, failure *ActionError) (*Inbound, error) {
	if r.req.Query {
		err := &FailedError{Run: r.id, Err: failure, Done: r.done}
		return nil, errors.Join(err, r.note(ctx, Entry{State: StateFinal, Outcome: OutcomeFailed, Message: err.Error(), Code: failure.Code}))
	}
	if r.failed > maxErrorRounds {
		err := &AttentionError{Run: r.id, Reason: fmt.Sprintf("%d batches in a row failed, the last one at %v", r.failed, failure), Done: r.done}
		return nil, errors.Join(err, failure, r.note(ctx, Entry{State: StateFinal, Outcome: OutcomeAttention, Message: err.Reason, Code: failure.Code}))
	}
	verb := string(failure.Verb)
	if verb == "" {
		verb = "batch"
	}
	out := &Inbound{Intent: IntentError, Responses: orEmpty(responses), Error: &Failure{Action: clip(verb, 32), Message: clip(failure.Err.Error(), 1024)}}
	if failure.Name != "" {
		out.Error.Name = new(clip(failure.Name, 64))
	}
	if failure.Code != "" {
		out.Error.Code = new(clip(failure.Code, 64))
	}
	return out, nil
}

// plan decides record keys, and looks at what is in the places that a batch writes to. Later actions see what earlier ones
// of the batch will have done.
func (r *run) plan(ctx context.Context, actions []Action) ([]PlannedAction, error) {
	type record struct {
		cid string
		raw data.Raw
	}
	will := map[syntax.ATURI]record{}
	out := make([]PlannedAction, len(actions))
	for i, a := range actions {
		p := PlannedAction{Action: a}
		if a.Verb != Raise {
			if p.RecordKey == "" {
				p.RecordKey, p.ChosenKey = r.key(a.Collection), true
			}
			p.URI = syntax.ATURI("at://" + string(a.Repo) + "/" + string(a.Collection) + "/" + string(p.RecordKey))
			before, ok := will[p.URI]
			if !ok {
				var err error
				if before.cid, before.raw, err = r.look(ctx, p.URI); err != nil {
					return nil, fmt.Errorf("looking at %s: %w", p.URI, err)
				}
			}
			p.Before, p.Old = before.cid, before.raw
			after := record{raw: a.Record}
			if a.Record != nil {
				after.cid = cid.Sum(cid.DagCBOR, a.Record).String()
			}
			p.CID = after.cid
			will[p.URI] = after
		}
		out[i] = p
	}
	return out, nil
}

// key chooses a record key. Where the schema is known and has a fixed key, that is it.
func (r *run) key(collection syntax.NSID) syntax.RecordKey {
	if c := r.a.Policy.Lexicons; c != nil {
		if schema := c.Schema(collection); schema != nil && schema.Main() != nil {
			if k, ok := strings.CutPrefix(schema.Main().Key, "literal:"); ok {
				return syntax.RecordKey(k)
			}
		}
	}
	return syntax.RecordKey(r.a.tids.Next(r.a.Now()))
}

// look returns the CID and the bytes of a record as it is now; "" and nil if there is none.
func (r *run) look(ctx context.Context, uri syntax.ATURI) (string, data.Raw, error) {
	rec, err := client.Get[data.Raw](ctx, r.a.PDS, uri, client.GetOptions{SkipHash: true})
	if errors.Is(err, client.ErrRecordNotFound) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, err
	}
	return rec.CID.String(), rec.Value, nil
}

// perform carries out one action. The error is an [*ActionError] if it failed, and an [*InterruptedError] if nobody can say
// for now.
func (r *run) perform(ctx context.Context, i int, p *PlannedAction) error {
	e := Entry{Step: r.step, Action: i, Verb: p.Verb, Name: p.Name, URI: p.URI, CID: p.CID, Before: p.Before}
	if !p.sent {
		if p.Verb == Create && p.Before != "" {
			return &ActionError{Verb: p.Verb, Name: p.Name, Code: CodeExists, Err: fmt.Errorf("there is a record at %s already", p.URI)}
		}
		e.State = StateSending
		if err := r.note(ctx, e); err != nil {
			return err
		}
	}
	err := r.settle(ctx, p.sent, func() error { return r.send(ctx, p) }, func() (string, error) {
		now, _, err := r.look(ctx, p.URI)
		return now, err
	}, p.CID, p.Before)
	if err != nil {
		return r.failure(err, p.Verb, p.Name)
	}
	return r.succeeded(ctx, i, p)
}

// failure says of which action an error is, unless it interrupts.
func (r *run) failure(err error, verb Verb, name string) error {
	var stop *InterruptedError
	if errors.As(err, &stop) {
		return err
	}
	failure := &ActionError{Verb: verb, Name: name, Err: err}
	var refusal *xrpc.Error
	var own *codedError
	switch {
	case errors.As(err, &own):
		failure.Code = own.code
	case errors.As(err, &refusal):
		failure.Code = refusal.Name
	}
	return failure
}

func (r *run) succeeded(ctx context.Context, i int, p *PlannedAction) error {
	if err := r.note(ctx, Entry{State: StateDone, Step: r.step, Action: i, Verb: p.Verb, Name: p.Name, URI: p.URI, CID: p.CID, Before: p.Before, Old: p.Old}); err != nil {
		return err
	}
	r.did(p)
	return nil
}

func (r *run) did(p *PlannedAction) {
	r.done = append(r.done, Done{Step: r.step, Verb: p.Verb, Name: p.Name, URI: p.URI, CID: p.CID, Before: p.Before, Old: p.Old})
}

// codedError is a failure that the agent found.
type codedError struct {
	code string
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

// settle sends a write and makes sure of its outcome. Look tells the present state; after is the state that the write makes
// and before the one that it starts from. With looked set it may have been sent already, and nothing is sent before a look.
//
// Whatever is unknown is found out by looking, and a write is only sent again while the state is the one before. It is
// reported as failed only if a server answered so and the state is the one before: when no answer comes at all, the write may
// still be on its way, and the workflow is interrupted.
func (r *run) settle(ctx context.Context, looked bool, send func() error, look func() (string, error), after, before string) error {
	var last error
	for try := 1; ; try++ {
		if looked {
			now, err := look()
			switch {
			case err != nil:
				return &InterruptedError{Run: r.id, Err: errors.Join(last, fmt.Errorf("finding out what is there: %w", err))}
			case now == after:
				return nil
			case now != before:
				return &codedError{CodeConflict, errors.Join(errors.New("the record has been changed by somebody else"), last)}
			case last != nil && refused(last):
				return last
			case try > maxTries && answered(last):
				return last
			case try > maxTries:
				return &InterruptedError{Run: r.id, Err: last}
			}
		}
		last = send()
		if last == nil {
			return nil
		}
		var mismatch *codedError
		if errors.As(last, &mismatch) {
			return last
		}
		if ctx.Err() != nil {
			return &InterruptedError{Run: r.id, Err: last}
		}
		if refused(last) && !looked {
			return last // the first and only time that it was sent
		}
		looked = true
		if refused(last) {
			continue // an earlier one may have arrived: the look tells
		}
		if err := r.a.wait(ctx, backoff(last, try)); err != nil {
			return &InterruptedError{Run: r.id, Err: last}
		}
	}
}

// send makes the write of one action.
func (r *run) send(ctx context.Context, p *PlannedAction) error {
	var o client.WriteOptions
	if p.SwapCommit != "" {
		c, err := cid.Parse(p.SwapCommit)
		if err != nil {
			return &codedError{CodeInvalid, fmt.Errorf("swapCommit: %w", err)}
		}
		o.SwapCommit = c
	}
	if p.Verb != Create && p.Before != "" {
		c, err := cid.Parse(p.Before)
		if err != nil {
			return err
		}
		o.SwapRecord = c // what was planned is done to the record that was seen, or not at all
	}
	var ref *client.Ref
	var err error
	switch p.Verb {
	case Create:
		o.RecordKey = p.RecordKey
		ref, err = client.Create(ctx, r.a.PDS, &p.Record, o)
	case Update:
		o.MustNotExist = p.Before == ""
		ref, err = client.Put(ctx, r.a.PDS, p.RecordKey, &p.Record, o)
	case Delete:
		if p.Before == "" {
			return nil // there is nothing to delete
		}
		_, err = r.a.PDS.Delete(ctx, p.URI, o)
	}
	if err != nil {
		return err
	}
	if ref != nil && (ref.URI != p.URI || ref.CID.String() != p.CID) {
		return &codedError{CodeMismatch, fmt.Errorf("the PDS wrote %s as %s, not %s as %s", ref.URI, ref.CID, p.URI, p.CID)}
	}
	return nil
}

// atomically carries out a batch as one commit.
func (r *run) atomically(ctx context.Context, plan *Plan) (*Inbound, error) {
	all := plan.Actions
	sent, over := false, true
	for i := range all {
		sent, over = sent || all[i].sent, over && all[i].over
	}
	fail := func(i int, code string, err error) (*Inbound, error) {
		return r.fail(ctx, nil, &ActionError{Verb: all[i].Verb, Name: all[i].Name, Code: code, Err: err})
	}
	swap := ""
	seen := map[syntax.ATURI]bool{}
	for i, p := range all {
		switch {
		case p.SwapCommit != "" && swap != "" && swap != p.SwapCommit:
			return fail(i, CodeInvalid, errors.New("actions of one commit can't start from different commits"))
		case seen[p.URI]:
			return fail(i, CodeInvalid, errors.New("actions of one commit can't be about the same record"))
		case !sent && p.Verb == Create && p.Before != "":
			return fail(i, CodeExists, fmt.Errorf("there is a record at %s already", p.URI))
		}
		seen[p.URI] = true
		if p.SwapCommit != "" {
			swap = p.SwapCommit
		}
	}
	if !over {
		if !sent {
			for i, p := range all {
				if err := r.note(ctx, Entry{State: StateSending, Step: r.step, Action: i, Verb: p.Verb, Name: p.Name, URI: p.URI, CID: p.CID, Before: p.Before}); err != nil {
					return nil, err
				}
			}
		}
		// All records change at once, so that looking at one that changes tells of all.
		witness := -1
		for i, p := range all {
			if p.CID != p.Before {
				witness = i
				break
			}
		}
		look := func() (string, error) {
			if witness < 0 {
				return "", nil
			}
			now, _, err := r.look(ctx, all[witness].URI)
			return now, err
		}
		after, before := "", ""
		if witness >= 0 {
			after, before = all[witness].CID, all[witness].Before
		}
		err := r.settle(ctx, sent, func() error { return r.sendAll(ctx, all, swap) }, look, after, before)
		if err != nil {
			err = r.failure(err, all[0].Verb, all[0].Name)
			var failure *ActionError
			if errors.As(err, &failure) {
				return r.fail(ctx, nil, failure)
			}
			return nil, err
		}
	}
	var responses []comatiproto.Actions_Response
	for i := range all {
		if !all[i].over {
			if err := r.succeeded(ctx, i, &all[i]); err != nil {
				return nil, err
			}
		}
		responses = append(responses, all[i].response())
	}
	r.failed = 0
	return &Inbound{Intent: plan.Intent, Responses: responses}, nil
}

// sendAll makes the writes of a batch in one commit, on top of the one at which every record was as it was planned.
func (r *run) sendAll(ctx context.Context, all []PlannedAction, swap string) error {
	head, err := comatproto.SyncGetLatestCommit.Call(ctx, r.a.PDS.XRPC(), &comatproto.SyncGetLatestCommit_Params{Did: string(r.a.DID)})
	if err != nil {
		return err
	}
	for _, p := range all {
		if now, _, err := r.look(ctx, p.URI); err != nil {
			return err
		} else if now != p.Before {
			return &codedError{CodeConflict, fmt.Errorf("%s has been changed by somebody else", p.URI)}
		}
	}
	if swap == "" {
		swap = head.Cid
	}
	in := comatproto.RepoApplyWrites_Input{Repo: string(r.a.DID), SwapCommit: &swap}
	for _, p := range all {
		var w comatproto.RepoApplyWrites_Input_Writes_Elem
		key := string(p.RecordKey)
		switch {
		case p.Verb == Delete && p.Before == "":
			continue
		case p.Verb == Delete:
			w.Value = &comatproto.RepoApplyWrites_Delete{Collection: string(p.Collection), Rkey: key}
		case p.Before == "":
			w.Value = &comatproto.RepoApplyWrites_Create{Collection: string(p.Collection), Rkey: &key, Value: p.Record}
		default:
			w.Value = &comatproto.RepoApplyWrites_Update{Collection: string(p.Collection), Rkey: key, Value: p.Record}
		}
		in.Writes = append(in.Writes, w)
	}
	if len(in.Writes) == 0 {
		return nil
	}
	_, err = comatproto.RepoApplyWrites.Call(ctx, r.a.PDS.XRPC(), &in)
	return err
}
