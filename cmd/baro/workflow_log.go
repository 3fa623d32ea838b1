package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/workflow"
)

func newWorkflowLog(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "log [ID]",
		Short: "Show the journal of workflows",
		Long: "Lists the workflows of the journal, oldest first, or the steps of one. The journal is a folder with a file of JSON\n" +
			"lines for each workflow, baro/workflows in the user's state folder; removing a file forgets the workflow, and with it\n" +
			"what would be needed to resume or undo it.",
		Example: "  baro workflow log\n  baro workflow log 3l6oveex3ii2l\n  baro workflow log 3l6oveex3ii2l --json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.workflowLog(cmd.Context(), args)
		},
	}
}

func (e *env) workflowLog(ctx context.Context, args []string) error {
	j, closeJournal, err := e.journal()
	if err != nil {
		return err
	}
	defer closeJournal()
	if len(args) == 0 {
		return e.workflowList(ctx, j)
	}
	st, err := findRunIn(ctx, j, args)
	if err != nil {
		return err
	}
	all, err := j.Entries(ctx, st.Run)
	if err != nil {
		return err
	}
	out := tabwriter.NewWriter(e.stdout, 0, 4, 2, ' ', 0)
	for _, x := range all {
		if e.json {
			if err := e.printJSON(x); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(out, "%s\t%s\t%s\n", x.Time.Format(time.RFC3339), x.State, inert(entryText(x)))
	}
	return out.Flush()
}

// entryText says what an entry of the journal is about.
func entryText(x workflow.Entry) string {
	about := fmt.Sprintf("%s %q", x.Verb, x.Name)
	switch x.State {
	case workflow.StateBegin:
		return fmt.Sprintf("%s at %s as %s", x.Method, x.Service, x.Account)
	case workflow.StateBatch:
		intent, actions, err := workflow.Decode(x.Workflow)
		if err != nil {
			return fmt.Sprintf("batch %d, malformed: %v", x.Step+1, err)
		}
		return fmt.Sprintf("batch %d, %q, %d actions", x.Step+1, intent, len(actions))
	case workflow.StatePlanned, workflow.StateSending, workflow.StateDone:
		return about + " " + string(x.URI)
	case workflow.StateFailed:
		return about + ": " + x.Code + ": " + x.Message
	case workflow.StateCallback:
		return fmt.Sprintf("report on batch %d", x.Step+1)
	case workflow.StateFinal:
		if x.Message != "" {
			return string(x.Outcome) + ": " + x.Message
		}
		return string(x.Outcome)
	}
	return ""
}

// runLine is a workflow in the list for programs.
type runLine struct {
	Run     string           `json:"run"`
	Time    time.Time        `json:"time"`
	Account string           `json:"account"`
	Service string           `json:"service"`
	Method  string           `json:"method"`
	Outcome workflow.Outcome `json:"outcome"`
	Done    int              `json:"done"`
}

func (e *env) workflowList(ctx context.Context, j workflow.Journal) error {
	ids, err := j.Runs(ctx)
	if err != nil {
		return err
	}
	if len(ids) == 0 {
		fmt.Fprintln(e.stderr, "the journal is empty")
	}
	out := tabwriter.NewWriter(e.stdout, 0, 4, 2, ' ', 0)
	for _, id := range ids {
		st, err := workflow.StatusOf(ctx, j, id)
		if errors.Is(err, workflow.ErrNoRun) {
			continue // its process ended before it began
		}
		if err != nil {
			return err
		}
		l := runLine{id, st.Begin.Time, string(st.Begin.Account), st.Begin.Service, string(st.Begin.Method), st.Outcome, len(st.Done)}
		if l.Outcome == "" {
			l.Outcome = outcomeInterrupted
		}
		if e.json {
			if err := e.printJSON(l); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(out, "%s\t%s\t%s\t%d written\t%s at %s\n", l.Run, l.Time.Format(time.RFC3339), l.Outcome, l.Done, inert(l.Method), inert(l.Service))
	}
	return out.Flush()
}

func newWorkflowUndo(e *env) *cobra.Command {
	var f networkFlags
	cmd := &cobra.Command{
		Use:   "undo ID",
		Short: "Take back what a workflow wrote",
		Long: "Takes back the writes of a workflow that has ended, last first: what it created is deleted, what it updated or deleted\n" +
			"is as it was again. A record that has been changed since is left alone, and the exit code is 1 then. The service is not\n" +
			"told.",
		Example: "  baro workflow undo 3l6oveex3ii2l",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return advise(e.workflowUndo(cmd.Context(), args, f))
		},
	}
	f.add(cmd.Flags(), false)
	return cmd
}

func (e *env) workflowUndo(ctx context.Context, args []string, f networkFlags) error {
	st, err := e.findRun(ctx, args)
	if err != nil {
		return err
	}
	if st.Outcome == "" {
		return withHint(errors.New("the workflow has not ended: what it wrote last may not be known yet"), "end it first with 'baro workflow resume %s', or 'baro workflow abandon %[1]s'", st.Run)
	}
	ctx, w, err := e.worker(ctx, string(st.Begin.Account), workflowFlags{networkFlags: f, yes: true})
	if err != nil {
		return err
	}
	defer w.close()
	all, err := w.agent.Undo(ctx, st.Done)
	kept := 0
	for _, u := range all {
		l := doneJSON(u.Done)
		if l.Kept = u.Skipped; l.Kept != "" {
			kept++
		}
		switch {
		case e.json:
			if err := e.printJSON(l); err != nil {
				return err
			}
		case l.Kept != "":
			fmt.Fprintf(e.stdout, "left %s: %s\n", inert(l.URI), l.Kept)
		case u.Before == "":
			fmt.Fprintf(e.stdout, "deleted %s\n", inert(l.URI))
		default:
			fmt.Fprintf(e.stdout, "restored %s\n", inert(l.URI))
		}
	}
	if err != nil {
		return withHint(err, "run it again: what is taken back already stays so")
	}
	if len(all) == 0 {
		fmt.Fprintln(e.stderr, "the workflow wrote nothing")
	}
	if kept > 0 {
		return fmt.Errorf("%d of %d records were left as they are", kept, len(all))
	}
	return nil
}
