package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/barograph/baro/data"
	"github.com/barograph/baro/workflow"
	"github.com/barograph/baro/xrpc"
)

// planText is a batch for people: what becomes of each record, as a diff.
func planText(p *workflow.Plan, c colors) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "batch %d of %s at %s: %s", p.Step+1, p.Method, inert(p.Service), inert(p.Intent))
	if p.Atomic {
		out.WriteString(", in one commit")
	}
	out.WriteByte('\n')
	paint := map[byte]func(string) string{'+': c.good, '-': c.bad, '@': c.dim}
	lines := func(sign string, text []byte) {
		for line := range strings.Lines(string(text)) {
			line = sign + inert(strings.TrimSuffix(line, "\n"))
			if f := paint[line[0]]; f != nil {
				line = f(line)
			}
			fmt.Fprintf(&out, "    %s\n", line)
		}
	}
	for _, a := range p.Actions {
		at := string(a.URI)
		if at == "" && a.Verb != workflow.Raise { // refused, so that nothing was decided
			at = strings.TrimSuffix("at://"+string(a.Repo)+"/"+string(a.Collection)+"/"+string(a.RecordKey), "/")
		}
		name := c.dim(" (" + inert(a.Name) + ")")
		switch a.Verb {
		case workflow.Raise:
			fmt.Fprintf(&out, "%s\n", c.bad("! end with the error "+strings.TrimPrefix(inert(a.Code)+": "+inert(a.Message), ": ")))
			continue
		case workflow.Create:
			fmt.Fprintf(&out, "%s%s\n", c.good("+ create "+at), name)
			lines("+ ", shown(a.Record))
		case workflow.Update:
			fmt.Fprintf(&out, "~ update %s%s\n", at, name)
			switch {
			case a.Old == nil:
				lines("+ ", shown(a.Record))
			case a.Before == a.CID:
				out.WriteString("    it is so already\n")
			default:
				// The first lines name the two sides, of which there is but one here.
				_, d, _ := bytes.Cut(diff.Diff("a", shown(a.Old), "b", shown(a.Record)), []byte("\n+++ b\n"))
				lines("", d)
			}
		case workflow.Delete:
			fmt.Fprintf(&out, "%s%s\n", c.bad("- delete "+at), name)
			if a.Old != nil {
				lines("- ", shown(a.Old))
			} else if p.Refused == nil {
				out.WriteString("    there is no such record\n")
			}
		}
		if a.Note != "" {
			fmt.Fprintf(&out, "    note: %s\n", inert(a.Note))
		}
		if a.SwapCommit != "" {
			fmt.Fprintf(&out, "    only if the repository is at the commit %s\n", inert(a.SwapCommit))
		}
	}
	if p.Refused != nil {
		fmt.Fprintf(&out, "%s\n", c.bad("refused: "+inert(p.Refused.Error())))
	}
	return out.Bytes()
}

// shown is a record in JSON for people.
func shown(raw data.Raw) []byte {
	b, err := indentRecord(raw)
	if err != nil {
		return []byte("(a record that has no JSON: " + err.Error() + ")\n")
	}
	return b
}

// Lines of JSON for programs.
type (
	planLine struct {
		Run     string           `json:"run"`
		Step    int              `json:"step"`
		Service string           `json:"service"`
		Method  string           `json:"method"`
		Intent  string           `json:"intent"`
		Atomic  bool             `json:"atomic,omitempty"`
		Actions []planActionLine `json:"actions"`
		Refused string           `json:"refused,omitempty"`
	}
	planActionLine struct {
		workflow.Action
		URI    string   `json:"uri,omitempty"`
		CID    string   `json:"cid,omitempty"`
		Before string   `json:"before,omitempty"`
		Old    data.Raw `json:"old,omitempty"`
		Note   string   `json:"note,omitempty"`
	}
	outcomeLine struct {
		Run     string           `json:"run"`
		Outcome workflow.Outcome `json:"outcome"`
		Output  data.Raw         `json:"output,omitempty"`
		Message string           `json:"message,omitempty"`
		Code    string           `json:"code,omitempty"`
		Done    []doneLine       `json:"done"`
	}
	doneLine struct {
		Verb   workflow.Verb `json:"verb"`
		Name   string        `json:"name"`
		URI    string        `json:"uri"`
		CID    string        `json:"cid,omitempty"`
		Before string        `json:"before,omitempty"`
		Kept   string        `json:"kept,omitempty"` // why undo left it as it is
	}
)

func planJSON(p *workflow.Plan) planLine {
	l := planLine{Run: p.Run, Step: p.Step, Service: p.Service, Method: string(p.Method), Intent: p.Intent, Atomic: p.Atomic, Actions: []planActionLine{}}
	for _, a := range p.Actions {
		l.Actions = append(l.Actions, planActionLine{Action: a.Action, URI: string(a.URI), CID: a.CID, Before: a.Before, Old: a.Old, Note: a.Note})
	}
	if p.Refused != nil {
		l.Refused = p.Refused.Error()
	}
	return l
}

func doneJSON(d workflow.Done) doneLine {
	return doneLine{Verb: d.Verb, Name: d.Name, URI: string(d.URI), CID: d.CID, Before: d.Before}
}

// outcomeInterrupted is the outcome of what has not ended.
const outcomeInterrupted workflow.Outcome = "interrupted"

// finish prints how a workflow ended, and returns the error of the command.
func (w *worker) finish(ctx context.Context, res *workflow.Result, err error) error {
	e := w.e
	if w.planned != nil && errors.Is(err, errPlanOnly) {
		if e.json {
			return e.printJSON(planJSON(w.planned))
		}
		_, err := e.stdout.Write(planText(w.planned, colorsOf(e.stdout)))
		fmt.Fprintf(e.stderr, "nothing was written or reported; 'baro workflow resume %s' goes on from here\n", w.planned.Run)
		return err
	}
	if err == nil {
		if e.json {
			return e.printOutcome(outcomeLine{Run: res.Run, Outcome: workflow.OutcomeDone, Output: res.Output}, res.Done)
		}
		e.printDone(res.Done)
		b, err := indentRecord(res.Output)
		if err != nil {
			return err
		}
		_, err = e.stdout.Write(inertJSON(b))
		return err
	}
	var raised *workflow.RaisedError
	var many *workflow.MaxStepsError
	var attention *workflow.AttentionError
	var failed *workflow.FailedError
	var interrupted *workflow.InterruptedError
	line, done := outcomeLine{Message: err.Error()}, []workflow.Done(nil)
	// The text of these errors is the service's, or has it in it; a list in err says what else is wrong, such as with the journal.
	told := errors.New(inert(strings.ReplaceAll(err.Error(), "\n", ": ")))
	switch {
	case errors.As(err, &interrupted):
		line.Run, line.Outcome = interrupted.Run, outcomeInterrupted
		if st, serr := workflow.StatusOf(context.WithoutCancel(ctx), w.agent.Journal, interrupted.Run); serr == nil {
			done = st.Done
		}
		told = withHint(told, "'baro workflow resume %s' goes on with it", interrupted.Run)
	case errors.As(err, &raised):
		line.Run, line.Outcome, line.Message, line.Code, done = raised.Run, workflow.OutcomeRaised, raised.Message, raised.Code, raised.Done
	case errors.As(err, &many):
		line.Run, line.Outcome, done = many.Run, workflow.OutcomeAttention, many.Done
	case errors.As(err, &attention):
		line.Run, line.Outcome, done = attention.Run, workflow.OutcomeAttention, attention.Done
	case errors.As(err, &failed):
		line.Run, line.Outcome, line.Code, done = failed.Run, workflow.OutcomeFailed, failed.Err.Code, failed.Done
	case errors.Is(err, workflow.ErrFinished):
		return withHint(err, "'baro workflow log ID' shows how")
	default:
		if x, ok := errors.AsType[*xrpc.Error](err); ok && x.Status == http.StatusNotImplemented {
			return withHint(err, "the PDS or the service doesn't have this method; a service at a URL is called without the PDS")
		}
		return err
	}
	if line.Outcome != outcomeInterrupted && len(done) > 0 {
		told = withHint(told, "'baro workflow undo %s' takes back what was done", line.Run)
	}
	if e.json {
		return errors.Join(e.printOutcome(line, done), told)
	}
	e.printDone(done)
	return told
}

func (e *env) printOutcome(l outcomeLine, done []workflow.Done) error {
	l.Done = []doneLine{}
	for _, d := range done {
		l.Done = append(l.Done, doneJSON(d))
	}
	return e.printJSON(l)
}

// printDone lists what was written.
func (e *env) printDone(done []workflow.Done) {
	for _, d := range done {
		fmt.Fprintf(e.stderr, "%sd %s\n", d.Verb, inert(string(d.URI)))
	}
}
