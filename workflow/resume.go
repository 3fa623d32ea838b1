package workflow

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
)

// ErrFinished says that a workflow has ended: there is nothing to go on with.
var ErrFinished = errors.New("the workflow has ended")

// ErrOtherAccount says that a workflow is another account's.
var ErrOtherAccount = errors.New("the workflow is another account's")

// Resume goes on with a workflow that was interrupted, or whose process ended, from where the journal says. What may have
// been sent is looked for in the repository first; what was reported is reported again, byte for byte. A workflow that has
// ended is [ErrFinished]. If nothing but the first call was made, that is made again.
//
// Results and errors are those of [Agent.Run].
func (a *Agent) Resume(ctx context.Context, id string) (*Result, error) {
	r, all, err := a.reopen(ctx, id)
	if err != nil {
		return nil, err
	}
	defer r.log.Close()
	if r.x, err = a.connect(r.req.Service); err != nil {
		return nil, err
	}
	b, err := r.replay(all)
	if err != nil {
		return nil, err
	}
	var answer data.Raw
	switch {
	case b == nil:
		return r.start(ctx)
	case b.callback != nil:
		if answer, err = r.callback(ctx, b.callback); err != nil {
			return nil, err
		}
		return r.follow(ctx, answer)
	}
	var report *Inbound
	if b.failure != nil {
		report, err = r.failAgain(ctx, b) // the failure was noted, the report of it was not
	} else {
		report, err = r.batch(ctx, b.entry.Workflow, b.planned, nil)
	}
	if err != nil {
		return nil, err
	}
	if r.req.Query {
		return r.end(ctx, b.entry.Output)
	}
	if answer, err = r.report(ctx, b.entry.Field, report); err != nil {
		return nil, err
	}
	return r.follow(ctx, answer)
}

// reopen locks a workflow that has not ended. It returns what the journal has after the first entry.
func (a *Agent) reopen(ctx context.Context, id string) (r *run, all []Entry, err error) {
	log, all, err := a.journal().Open(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			log.Close()
		}
	}()
	if len(all) == 0 {
		return nil, nil, fmt.Errorf("%w: %s was given up before it began", ErrFinished, id)
	}
	begin := all[0]
	switch {
	case begin.State != StateBegin:
		return nil, nil, fmt.Errorf("%w: %s begins with %q", ErrJournal, id, begin.State)
	case begin.Account != a.DID:
		return nil, nil, fmt.Errorf("%w: %s", ErrOtherAccount, begin.Account)
	case all[len(all)-1].State == StateFinal:
		return nil, nil, fmt.Errorf("%w: %s", ErrFinished, all[len(all)-1].Outcome)
	}
	return &run{
		a: a, id: id, log: log, seq: len(all), atomic: begin.Atomic,
		req: Request{Service: begin.Service, Method: begin.Method, Query: begin.Query, Params: begin.Params, Input: begin.Input},
	}, all[1:], nil
}

// Abandon ends a workflow that was interrupted and is not to go on, because its service is gone, for example. What may have
// been sent is looked for in the repository, so that the journal knows what was done; nothing is written, and the service
// is told nothing. The result is what was done, for [Agent.Undo]. A write that is still on its way to the PDS, from a
// process that ended a moment ago, may arrive after the look.
//
// Errors: an [*InterruptedError] if the repository can't be looked at, and then nothing has ended; [ErrFinished], [ErrNoRun],
// [ErrRunning] and [ErrOtherAccount].
func (a *Agent) Abandon(ctx context.Context, id string) ([]Done, error) {
	r, all, err := a.reopen(ctx, id)
	if err != nil {
		return nil, err
	}
	defer r.log.Close()
	b, err := r.replay(all)
	if err != nil {
		return nil, err
	}
	if b != nil {
		for i := range b.planned {
			p := &b.planned[i]
			if !p.sent || p.over || p.CID == p.Before {
				continue
			}
			now, _, err := r.look(ctx, p.URI)
			if err != nil {
				return nil, &InterruptedError{Run: id, Err: fmt.Errorf("finding out what is there: %w", err)}
			}
			if now != p.CID {
				continue
			}
			if err := r.succeeded(ctx, i, p); err != nil {
				return nil, err
			}
		}
	}
	return r.done, r.note(ctx, Entry{State: StateFinal, Outcome: OutcomeAbandoned, Message: "given up by the user"})
}

// underway is the batch at the end of a journal.
type underway struct {
	entry    Entry
	planned  []PlannedAction // nil: not decided yet
	failure  *Entry
	callback data.Raw
}

// replay reads what was done. It returns the last batch, or nil if there was none.
func (r *run) replay(all []Entry) (*underway, error) {
	var b *underway
	count, last := 0, -1 // planned entries of b, and the last of them
	for _, e := range all {
		if e.State != StateBatch && (b == nil || e.Step != b.entry.Step) {
			return nil, fmt.Errorf("%w: %s, entry %d is about no batch", ErrJournal, r.id, e.Seq)
		}
		switch e.State {
		case StateBatch:
			if b != nil {
				r.step++
			}
			b, count, last = &underway{entry: e}, 0, -1
			if e.Step != r.step {
				return nil, fmt.Errorf("%w: %s, entry %d is batch %d and not %d", ErrJournal, r.id, e.Seq, e.Step, r.step)
			}
		case StatePlanned:
			if b.planned == nil || e.Action <= last {
				// The first entry, or one of a plan that was made anew because this one was not noted to its end.
				b.planned, count = nil, 0
				_, actions, err := Decode(b.entry.Workflow)
				if err != nil {
					return nil, fmt.Errorf("%w: %s: %w", ErrJournal, r.id, err)
				}
				for _, a := range actions {
					b.planned = append(b.planned, PlannedAction{Action: a})
				}
			}
			if e.Action < 0 || e.Action >= len(b.planned) {
				return nil, fmt.Errorf("%w: %s, entry %d is about action %d", ErrJournal, r.id, e.Seq, e.Action)
			}
			last = e.Action
			p := &b.planned[e.Action]
			p.URI, p.CID, p.Before, p.Old, p.RecordKey = e.URI, e.CID, e.Before, e.Old, e.URI.RecordKey()
			count++
		case StateSending, StateDone:
			if e.Action < 0 || e.Action >= len(b.planned) {
				return nil, fmt.Errorf("%w: %s, entry %d is about action %d", ErrJournal, r.id, e.Seq, e.Action)
			}
			p := &b.planned[e.Action]
			p.sent = true
			if e.State == StateDone {
				p.over = true
				r.did(p)
			}
		case StateFailed:
			b.failure = &e
			r.failed++
		case StateCallback:
			b.callback = e.Callback
			if b.failure == nil {
				r.failed = 0
			}
		default:
			return nil, fmt.Errorf("%w: %s, entry %d is %q", ErrJournal, r.id, e.Seq, e.State)
		}
	}
	if b != nil && b.planned != nil {
		writes := 0
		for _, p := range b.planned {
			if p.Verb != Raise {
				writes++
			}
		}
		if count < writes {
			b.planned = nil // the plan was not agreed upon to the end, and nothing was sent: it is made anew
		}
	}
	return b, nil
}

// failAgain makes the report of a failure that the journal has.
func (r *run) failAgain(ctx context.Context, b *underway) (*Inbound, error) {
	e := b.failure
	failure := &ActionError{Verb: e.Verb, Name: e.Name, Code: e.Code, Err: errors.New(e.Message)}
	var done []Response
	for i := range b.planned {
		if p := &b.planned[i]; p.over {
			done = append(done, p.response())
		}
	}
	return r.tell(ctx, done, failure)
}

// Status is what a journal tells of a workflow.
type Status struct {
	Run     string
	Begin   Entry
	Last    Entry
	Done    []Done
	Outcome Outcome // "": it has not ended
}

// StatusOf reads a workflow from a journal.
func StatusOf(ctx context.Context, j Journal, id string) (*Status, error) {
	all, err := j.Entries(ctx, id)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%w: %s was given up before it began", ErrNoRun, id)
	}
	s := &Status{Run: id, Begin: all[0], Last: all[len(all)-1]}
	s.Outcome = s.Last.Outcome
	for _, e := range all {
		if e.State == StateDone {
			s.Done = append(s.Done, Done{Step: e.Step, Verb: e.Verb, Name: e.Name, URI: e.URI, CID: e.CID, Before: e.Before, Old: e.Old})
		}
	}
	return s, nil
}

// Undone is what became of one action in [Agent.Undo].
type Undone struct {
	Done
	// Skipped says why the record was left as it is; "" if it is as it was before the action.
	Skipped string
}

// Undo takes back what was done, last first: what was created is deleted, what was updated or deleted is as it was again. A
// record that somebody has changed since is left alone. It may be called again after an error: what is taken back already
// stays so. Servers are not told.
func (a *Agent) Undo(ctx context.Context, done []Done) ([]Undone, error) {
	var all []Undone
	r := &run{a: a}
	for _, d := range slices.Backward(done) {
		u := Undone{Done: d}
		now, _, err := r.look(ctx, d.URI)
		if err != nil {
			return all, fmt.Errorf("looking at %s: %w", d.URI, err)
		}
		switch {
		case now == d.Before:
		case now != d.CID:
			u.Skipped = "the record has been changed since"
		case d.Before != "" && d.Old == nil:
			u.Skipped = "the journal doesn't have the record as it was"
		default:
			if err := a.undo(ctx, d); err != nil {
				return all, fmt.Errorf("undoing %s %q: %w", d.Verb, d.Name, err)
			}
		}
		all = append(all, u)
	}
	return all, nil
}

func (a *Agent) undo(ctx context.Context, d Done) error {
	var o client.WriteOptions
	if d.CID != "" {
		c, err := cid.Parse(d.CID)
		if err != nil {
			return err
		}
		o.SwapRecord = c
	}
	if d.Before == "" {
		_, err := a.PDS.Delete(ctx, d.URI, o)
		return err
	}
	if got := cid.Sum(cid.DagCBOR, d.Old).String(); got != d.Before {
		return fmt.Errorf("%w: the record as it was is %s, not %s", ErrJournal, got, d.Before)
	}
	o.MustNotExist = d.CID == ""
	_, err := client.Put(ctx, a.PDS, d.URI.RecordKey(), &d.Old, o)
	return err
}
