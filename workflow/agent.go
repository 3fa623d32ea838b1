package workflow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// Defaults and bounds of an Agent.
const (
	DefaultMaxSteps = 10
	// maxErrorRounds is how many batches in a row may fail before the agent leaves the rest to a person.
	maxErrorRounds = 2
	// maxTries is how often a write or a callback is sent whose outcome isn't known.
	maxTries = 3
	// maxAnswer is how many bytes of an answer are read.
	maxAnswer = 16 << 20
)

// Agent makes calls for one account, and carries out the actions in the answers. It is safe for concurrent use. Nothing
// keeps it from working on several workflows at once; each is done in order.
type Agent struct {
	PDS     *client.Client // of the account's PDS, with the account's credentials
	DID     syntax.DID     // the account
	Policy  Policy
	Journal Journal          // nil: in memory, which a crash forgets
	Now     func() time.Time // the clock: needed

	MaxSteps int  // batches in one workflow; 0: [DefaultMaxSteps]
	Atomic   bool // batches of two or more writes, without a raise, become one commit

	// OnPlan sees each batch before anything of it is done. An error refuses the batch, and goes to the server as the
	// reason. It may ask a person. What the policy refuses, see [Plan.Refused], stays refused whatever it returns. If the
	// context has ended when it returns, nothing is reported, and [Agent.Resume] asks again.
	OnPlan func(context.Context, *Plan) error
	// Connect returns a client for a service. nil: a service DID#id is called through the account's PDS, a URL directly
	// and without credentials.
	Connect func(service string) (*xrpc.Client, error)
	// Wait is how the agent waits between two tries. nil: by the system's timer.
	Wait func(ctx context.Context, d time.Duration) error

	memory MemoryJournal
	tids   syntax.TIDClock
}

// Request is a call that may lead to a workflow.
type Request struct {
	Service string      // DID#id of a service that the PDS calls, or its URL
	Method  syntax.NSID // of a procedure, or a query
	Query   bool        // the method is a query: what it asks for is done once, and nothing is reported
	Params  string      // query string without "?", the same in every round
	Input   data.Raw    // of a procedure: a map in DAG-CBOR, the same in every round but for the workflow; nil: an empty one
}

// Result is how a workflow ended well.
type Result struct {
	Run    string   // name in the journal
	Output data.Raw // the server's answer, without the workflow
	Done   []Done   // what was written, in order
}

// Done is an action that succeeded.
type Done struct {
	Step   int // the batch, from 0 on
	Verb   Verb
	Name   string
	URI    syntax.ATURI
	CID    string   // of the record as it is now; "" after a deletion
	Before string   // CID of the record as it was; "" if there was none
	Old    data.Raw // the record as it was; nil if there was none
}

// RaisedError says that the server ended the workflow with an error. What was done before stays done: Done is the list, in
// order, and [Agent.Undo] takes it back.
type RaisedError struct {
	Run           string
	Message, Code string
	Done          []Done
}

func (e *RaisedError) Error() string {
	if e.Code == "" {
		return "the service ended the workflow: " + e.Message
	}
	return "the service ended the workflow: " + e.Code + ": " + e.Message
}

// ActionError says which action failed, and why: part of other errors.
type ActionError struct {
	Verb Verb
	Name string
	Code string // name of the error, as the PDS gave it, or one of the codes of this package
	Err  error
}

func (e *ActionError) Error() string { return fmt.Sprintf("%s %q: %v", e.Verb, e.Name, e.Err) }

// Unwrap returns the cause.
func (e *ActionError) Unwrap() error { return e.Err }

// Codes of failures that the agent itself finds.
const (
	CodeInvalid  = "InvalidWorkflow" // the batch is malformed
	CodeConflict = "RecordChanged"   // the record is not what it was when the batch was planned
	CodeExists   = "RecordExists"    // there is a record where one was to be created
	CodeMismatch = "ResultMismatch"  // the PDS wrote something else than was sent
	CodeUnknown  = "UnknownAction"   // the action's type is not known
)

// MaxStepsError says that a server asked for more batches than the agent carries out.
type MaxStepsError struct {
	Run   string
	Steps int
	Done  []Done
}

func (e *MaxStepsError) Error() string {
	return fmt.Sprintf("the service still asks for actions after %d batches", e.Steps)
}

// AttentionError says that a person has to look: batches failed again and again, those with which the server tried to make
// good included.
type AttentionError struct {
	Run    string
	Reason string
	Done   []Done
}

func (e *AttentionError) Error() string { return "the workflow needs attention: " + e.Reason }

// InterruptedError says that a workflow could not go on for now: the PDS or the service is not there, or the context has
// ended. [Agent.Resume] goes on with it.
type InterruptedError struct {
	Run string
	Err error
}

func (e *InterruptedError) Error() string {
	return fmt.Sprintf("workflow %s is interrupted: %v", e.Run, e.Err)
}

// Unwrap returns the cause.
func (e *InterruptedError) Unwrap() error { return e.Err }

// FailedError says that an action that the answer to a query asked for failed. There is nobody to report to.
type FailedError struct {
	Run  string
	Err  *ActionError
	Done []Done
}

func (e *FailedError) Error() string { return "the workflow failed: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *FailedError) Unwrap() error { return e.Err }

// Call makes a typed call, and carries out what the answers ask for: [Agent.Run] for generated methods.
func Call[I, O any](ctx context.Context, a *Agent, service string, p xrpc.Procedure[I, O], in *I) (*O, error) {
	raw, err := data.Marshal(in)
	if err != nil {
		return nil, err
	}
	res, err := a.Run(ctx, Request{Service: service, Method: syntax.NSID(p.NSID), Input: raw})
	if err != nil {
		return nil, err
	}
	return decodeOutput[O](res)
}

// Query asks a typed question, and carries out what the answer asks for, once.
func Query[P, O any](ctx context.Context, a *Agent, service string, q xrpc.Query[P, O], params *P) (*O, error) {
	query, err := xrpc.EncodeParams(params)
	if err != nil {
		return nil, err
	}
	res, err := a.Run(ctx, Request{Service: service, Method: syntax.NSID(q.NSID), Query: true, Params: query})
	if err != nil {
		return nil, err
	}
	return decodeOutput[O](res)
}

func decodeOutput[O any](res *Result) (*O, error) {
	out := new(O)
	if err := data.Unmarshal(res.Output, out); err != nil {
		return nil, fmt.Errorf("the answer at the end of workflow %s: %w", res.Run, err)
	}
	return out, nil
}

// Run makes a call and carries out what the answers ask for. Errors:
//
//   - [*xrpc.Error]: the service refused the call
//   - [*RaisedError]: the service ended the workflow with an error
//   - [*MaxStepsError], [*AttentionError]: the agent gave it up
//   - [*FailedError]: an action that a query asked for failed
//   - [*InterruptedError]: it may go on later
//
// All but the first carry what was done.
func (a *Agent) Run(ctx context.Context, req Request) (*Result, error) {
	if a.PDS == nil || a.Now == nil || a.DID == "" {
		return nil, errors.New("an agent needs a PDS, an account and a clock")
	}
	if _, err := syntax.ParseNSID(string(req.Method)); err != nil {
		return nil, err
	}
	x, err := a.connect(req.Service)
	if err != nil {
		return nil, err
	}
	if req.Input == nil && !req.Query {
		req.Input = join(nil)
	}
	if _, err := entries(req.Input); err != nil {
		return nil, fmt.Errorf("input of %s: %w", req.Method, err)
	}
	id := string(a.tids.Next(a.Now()))
	log, err := a.journal().Begin(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("beginning a workflow: %w", err)
	}
	defer log.Close()
	r := &run{a: a, x: x, id: id, log: log, req: req, atomic: a.Atomic}
	err = r.note(ctx, Entry{State: StateBegin, Account: a.DID, Service: req.Service, Method: req.Method, Params: req.Params, Input: req.Input, Query: req.Query, Atomic: a.Atomic, Allow: a.Policy.Allow})
	if err != nil {
		return nil, err
	}
	return r.start(ctx)
}

func (a *Agent) journal() Journal {
	if a.Journal == nil {
		return &a.memory
	}
	return a.Journal
}

func (a *Agent) connect(service string) (*xrpc.Client, error) {
	if a.Connect != nil {
		return a.Connect(service)
	}
	if did, id, ok := strings.Cut(service, "#"); ok && id != "" {
		if _, err := syntax.ParseDID(did); err != nil {
			return nil, err
		}
		return a.PDS.XRPC().WithProxy(service), nil
	}
	if !strings.HasPrefix(service, "http://") && !strings.HasPrefix(service, "https://") {
		return nil, fmt.Errorf("%q is neither a service, as DID#id, nor a URL", service)
	}
	return &xrpc.Client{Host: service, HTTP: a.PDS.XRPC().HTTP}, nil
}

func (a *Agent) wait(ctx context.Context, d time.Duration) error {
	if a.Wait != nil {
		return a.Wait(ctx, d)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// run is one workflow underway.
type run struct {
	a   *Agent
	x   *xrpc.Client // of the service
	id  string
	log Log
	seq int
	req Request

	atomic bool
	step   int // of the batch that is next or underway
	failed int // batches in a row that failed
	done   []Done
}

// note writes to the journal.
func (r *run) note(ctx context.Context, e Entry) error {
	e.Run, e.Seq, e.Time = r.id, r.seq, r.a.Now().UTC()
	// What has begun must be noted however it ends.
	if err := r.log.Append(context.WithoutCancel(ctx), e); err != nil {
		return &InterruptedError{Run: r.id, Err: fmt.Errorf("writing the journal: %w", err)}
	}
	r.seq++
	return nil
}

// start makes the call that everything begins with.
func (r *run) start(ctx context.Context) (*Result, error) {
	answer, err := r.call(ctx, r.req.Input)
	if err != nil {
		// Nothing has been done here, and what the service did is for the service to know.
		return nil, errors.Join(err, r.note(ctx, Entry{State: StateFinal, Outcome: OutcomeFailed, Message: err.Error()}))
	}
	return r.follow(ctx, answer)
}

// follow carries out what an answer asks for, reports it, and goes on with the next answer.
func (r *run) follow(ctx context.Context, answer data.Raw) (*Result, error) {
	for {
		rest, field, w, err := Split(answer)
		var malformed *EnvelopeError
		switch {
		case errors.As(err, &malformed):
			rest, field, w = answer, Field, join(nil)
		case err != nil:
			return nil, errors.Join(err, r.note(ctx, Entry{State: StateFinal, Outcome: OutcomeFailed, Message: err.Error()}))
		case field == "":
			return r.end(ctx, rest)
		}
		limit := r.a.MaxSteps
		if limit <= 0 {
			limit = DefaultMaxSteps
		}
		if r.step >= limit {
			err := &MaxStepsError{Run: r.id, Steps: limit, Done: r.done}
			return nil, errors.Join(err, r.note(ctx, Entry{State: StateFinal, Outcome: OutcomeAttention, Message: err.Error()}))
		}
		if err := r.note(ctx, Entry{State: StateBatch, Step: r.step, Field: field, Workflow: w, Output: rest}); err != nil {
			return nil, err
		}
		report, err := r.batch(ctx, w, nil, malformed)
		if err != nil {
			return nil, err
		}
		if r.req.Query {
			return r.end(ctx, rest)
		}
		if answer, err = r.report(ctx, field, report); err != nil {
			return nil, err
		}
	}
}

func (r *run) end(ctx context.Context, output data.Raw) (*Result, error) {
	if err := r.note(ctx, Entry{State: StateFinal, Outcome: OutcomeDone, Output: output}); err != nil {
		return nil, err
	}
	return &Result{Run: r.id, Output: output, Done: r.done}, nil
}

// report notes what is reported, and sends it.
func (r *run) report(ctx context.Context, field string, report *Inbound) (data.Raw, error) {
	raw, err := data.Marshal(report)
	if err != nil {
		return nil, err
	}
	body, err := With(r.req.Input, field, raw)
	if err != nil {
		return nil, err
	}
	if err := r.note(ctx, Entry{State: StateCallback, Step: r.step, Callback: body}); err != nil {
		return nil, err
	}
	return r.callback(ctx, body)
}

// callback sends a report, the same bytes as often as it takes. A refusal ends the workflow.
func (r *run) callback(ctx context.Context, body data.Raw) (data.Raw, error) {
	for try := 1; ; try++ {
		answer, err := r.call(ctx, body)
		if err == nil {
			r.step++
			return answer, nil
		}
		if ctx.Err() == nil && answered(err) && !busy(err) {
			e := &AttentionError{Run: r.id, Reason: fmt.Sprintf("the service refused the report: %v", err), Done: r.done}
			return nil, errors.Join(e, err, r.note(ctx, Entry{State: StateFinal, Outcome: OutcomeAttention, Message: e.Reason}))
		}
		if try == maxTries || ctx.Err() != nil || r.a.wait(ctx, backoff(err, try)) != nil {
			return nil, &InterruptedError{Run: r.id, Err: fmt.Errorf("reporting to the service: %w", err)}
		}
	}
}

// call makes one call of the service. The answer must be an object.
func (r *run) call(ctx context.Context, input data.Raw) (data.Raw, error) {
	verb, body := http.MethodGet, (*xrpc.Body)(nil)
	if !r.req.Query {
		json, err := data.AppendJSON(nil, input)
		if err != nil {
			return nil, err
		}
		verb, body = http.MethodPost, &xrpc.Body{Reader: bytes.NewReader(json), Type: "application/json", Length: int64(len(json))}
	}
	s, err := r.x.Do(ctx, verb, string(r.req.Method), r.req.Params, body, "application/json")
	if err != nil {
		return nil, err
	}
	defer s.Body.Close()
	b, err := io.ReadAll(io.LimitReader(s.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("reading the answer of %s: %w", r.req.Method, err)
	}
	if len(b) > maxAnswer {
		return nil, fmt.Errorf("the answer of %s has more than %d bytes", r.req.Method, maxAnswer)
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return join(nil), nil // a method without output
	}
	answer, err := data.AppendCBOR(nil, b)
	if err == nil {
		_, err = entries(answer)
	}
	if err != nil {
		return nil, fmt.Errorf("the answer of %s: %w", r.req.Method, err)
	}
	return answer, nil
}

// answered says that a server took note of a request and said what became of it. Gateways don't know.
func answered(err error) bool {
	var e *xrpc.Error
	return errors.As(err, &e) && e.Status != http.StatusBadGateway && e.Status != http.StatusGatewayTimeout
}

// refused says that a server did not do what was asked, and why.
func refused(err error) bool {
	var e *xrpc.Error
	return errors.As(err, &e) && e.Status < 500 && !busy(err)
}

// busy says that a server wants to be asked later.
func busy(err error) bool {
	var e *xrpc.Error
	return errors.As(err, &e) && (e.Status == http.StatusTooManyRequests || e.Status >= 500)
}

// maxWait is how long an agent waits because a server asks for it.
const maxWait = 30 * time.Second

func backoff(err error, try int) time.Duration {
	var e *xrpc.Error
	if errors.As(err, &e) {
		if d, ok := e.RetryAfter(); ok {
			return min(d, maxWait)
		}
	}
	return 250 * time.Millisecond << try
}
