package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/lexicons"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/workflow"
	"github.com/barograph/baro/xrpc"
)

func newWorkflow(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "workflow",
		Short: "Call a service that asks for writes, and carry them out",
		Long: "A service can't write to your repository. It may answer a call with records to create, update or delete instead\n" +
			"(com.atiproto.actions): these commands look at them, carry out what you allow, and report back until the service has\n" +
			"its answer. Every step is in a journal before it is taken, below the user's state folder: what was interrupted goes\n" +
			"on with 'baro workflow resume', and what was done is taken back with 'baro workflow undo'.",
		Example: "  baro workflow run com.example.tips.send --service did:web:tips.example#tips -i tip.json --plan\n" +
			"  baro workflow log\n  baro workflow mock script.json",
	}
	cmd.AddCommand(newWorkflowRun(e), newWorkflowResume(e), newWorkflowAbandon(e),
		newWorkflowLog(e), newWorkflowUndo(e), newWorkflowMock(e))
	return cmd
}

// workflowFlags are those of the commands that carry out actions.
type workflowFlags struct {
	networkFlags
	as         string
	allow      []string
	plan, yes  bool
	maxBatches int
}

func (f *workflowFlags) add(fl *pflag.FlagSet) {
	fl.StringArrayVar(&f.allow, "allow", nil, "further collection that may be written, such as app.bsky.feed.like, app.bsky.feed.like#create or app.bsky.feed.* (repeat for more)")
	fl.BoolVar(&f.plan, "plan", false, "show what the service asks for, and stop before anything is written")
	fl.BoolVarP(&f.yes, "yes", "y", false, "carry out what is allowed without asking")
	fl.IntVar(&f.maxBatches, "max-steps", workflow.DefaultMaxSteps, "batches that the service may ask for")
}

const asUsage = "account to use, a handle or DID (default: the one used last)"

// check tells flags that make no sense together. Somebody has to agree to writes.
func (e *env) checkWorkflow(f workflowFlags, stdinTaken bool) error {
	switch {
	case f.plan && f.yes:
		return usagef("--plan writes nothing, so that there is nothing for --yes to agree to")
	case f.maxBatches < 1:
		return usagef("--max-steps %d: want at least 1", f.maxBatches)
	case !f.plan && !f.yes && stdinTaken:
		return withHint(usagef("the input is read from standard input, so that nobody can be asked there"), "look first with --plan, or agree to all that is allowed with --yes")
	case !f.plan && !f.yes && !isTerminal(e.stdin):
		return withHint(usagef("nobody is there to agree to the writes: standard input is no terminal"), "look first with --plan, or agree to all that is allowed with --yes")
	}
	for _, p := range f.allow {
		name, verb, hasVerb := strings.Cut(p, "#")
		bare := strings.TrimSuffix(name, ".*")
		_, err := syntax.ParseNSID(bare)
		if bare != name && err != nil {
			_, err = syntax.ParseNSID(bare + ".x") // an authority of two segments
		}
		if err != nil {
			return usagef("--allow %q: want a collection, or all below an authority as com.example.*", p)
		}
		if v := workflow.Verb(verb); hasVerb && v != workflow.Create && v != workflow.Update && v != workflow.Delete {
			return usagef("--allow %q: after # comes create, update or delete", p)
		}
	}
	return nil
}

// journal opens the folder of journals.
func (e *env) journal() (*workflow.FileJournal, func(), error) {
	dir, err := stateDir()
	if err != nil {
		return nil, nil, err
	}
	dir = filepath.Join(dir, "workflows")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("making the folder of journals: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the folder of journals: %w", err)
	}
	return workflow.NewFileJournal(root), func() { root.Close() }, nil
}

// worker carries out workflows for one account.
type worker struct {
	e       *env
	f       workflowFlags
	s       *sessions
	agent   *workflow.Agent
	net     *network
	cancel  context.CancelCauseFunc // ends the context of the agent
	answers *bufio.Reader           // of the person at the terminal
	planned *workflow.Plan          // with --plan: what the service asked for
	close   func()
}

// errPlanOnly ends a workflow that is only looked at.
var errPlanOnly = errors.New("only the plan was asked for")

// worker logs in as an account, "" for the current one. The context is that of all that the agent does.
func (e *env) worker(ctx context.Context, as string, f workflowFlags) (context.Context, *worker, error) {
	s, err := e.sessions(ctx, f.networkFlags)
	if err != nil {
		return nil, nil, err
	}
	acc, err := s.account(ctx, as)
	if err != nil {
		s.close()
		return nil, nil, err
	}
	j, closeJournal, err := e.journal()
	if err != nil {
		s.close()
		return nil, nil, err
	}
	known := lexicon.NewCatalog()
	if err := known.AddFS(lexicons.FS); err != nil {
		closeJournal()
		s.close()
		return nil, nil, err
	}
	policy := workflow.Policy{Allow: f.allow, Lexicons: known}
	if set, ok := granted(acc.Session()); ok {
		policy.Granted = workflow.GrantedBy(set)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	w := &worker{e: e, f: f, s: s, net: s.networkOf(acc.Session().PDS), cancel: cancel}
	w.close = func() {
		cancel(nil)
		closeJournal()
		s.close()
	}
	if !f.yes && !f.plan {
		w.answers = bufio.NewReader(e.stdin)
	}
	w.agent = &workflow.Agent{
		PDS: client.ForAccount(acc, client.Options{Now: e.world.Clock.Now}), DID: acc.DID(), Now: e.world.Clock.Now,
		Journal: j, MaxSteps: f.maxBatches,
		Policy:  policy,
		OnPlan:  w.onPlan,
		Connect: func(service string) (*xrpc.Client, error) { return w.connect(acc, service) },
	}
	return ctx, w, nil
}

// serviceTime is how long a service may take for an answer.
const serviceTime = time.Minute

// connect returns a client of a service: one that the PDS calls, or one at a URL, which gets a token made for it by the PDS, as the
// PDS would send with the call.
func (w *worker) connect(acc *auth.Account, service string) (*xrpc.Client, error) {
	timed := *w.net.http
	timed.Timeout = serviceTime
	if strings.HasPrefix(service, "did:") {
		x := acc.Client().WithProxy(service)
		x.HTTP = &timed
		return x, nil
	}
	if err := w.net.guard.Allow(hostPort(service)); err != nil { // the user has named it
		return nil, err
	}
	u, err := url.Parse(service)
	if err != nil {
		return nil, err
	}
	return &xrpc.Client{Host: service, HTTP: &timed, Auth: auth.ServiceTokens(acc.Client(), "did:web:"+strings.ReplaceAll(u.Host, ":", "%3A"))}, nil
}

// onPlan shows a batch and asks for it.
func (w *worker) onPlan(ctx context.Context, p *workflow.Plan) error {
	if w.f.plan {
		w.planned = p
		w.cancel(errPlanOnly)
		return errPlanOnly
	}
	if _, err := w.e.stderr.Write(planText(p, colorsOf(w.e.stderr))); err != nil {
		return err
	}
	if p.Refused != nil || w.answers == nil || p.Actions[0].Verb == workflow.Raise {
		return nil
	}
	fmt.Fprint(w.e.stderr, "Carry it out? [y/N] ")
	said, err := w.e.answer(ctx, w.answers)
	if err != nil {
		return err
	}
	switch strings.ToLower(said) {
	case "y", "yes":
		return nil
	}
	return errors.New("the user said no")
}

type runFlags struct {
	workflowFlags
	service, input string
	query, atomic  bool
	params         []string
}

func newWorkflowRun(e *env) *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run METHOD",
		Short: "Call a method of a service, and carry out what it asks for",
		Long: "Calls a method and carries out the batches of actions that the service answers with, until it has its answer, which is\n" +
			"printed. The service is a DID and a fragment, which your PDS calls for you, or a URL, which is called with a token\n" +
			"that your PDS makes for it.\n\n" +
			"Of a batch nothing is written before all of it was looked at: only records of the service's own names (those below\n" +
			"the authority of the method) and those of --allow, only in your repository, and never the records that speak for your\n" +
			"account. On a terminal you are asked for each batch; without one, --yes agrees to all that is allowed. What is\n" +
			"refused is reported to the service, which then may take back or give up.\n\n" +
			"With --plan the first batch is shown and nothing is written or reported; 'baro workflow resume' goes on from there.\n" +
			"With --atomic a batch of several writes becomes one commit: all of it, or nothing.",
		Example: "  baro workflow run com.example.tips.send --service did:web:tips.example#tips -i tip.json --plan\n" +
			"  baro workflow run com.example.tips.send --service did:web:tips.example#tips -i tip.json\n" +
			"  echo '{\"amount\":5}' | baro workflow run com.example.tips.send --service http://localhost:8080 -i - --yes\n" +
			"  baro workflow run com.example.tips.status --query --params tip=3l6oveex3ii2l --service https://tips.example --yes --json",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return advise(e.workflowRun(cmd.Context(), args[0], f))
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.service, "service", "", "service to call: DID#fragment, or a URL")
	fl.StringVarP(&f.input, "input", "i", "", "file with the input of the method in JSON, - for standard input (default: an empty object)")
	fl.BoolVar(&f.query, "query", false, "the method is a query: what it asks for is done once, and nothing is reported")
	fl.StringArrayVar(&f.params, "params", nil, "parameter of the method as NAME=VALUE (repeat for more)")
	fl.BoolVar(&f.atomic, "atomic", false, "write each batch in one commit")
	f.add(fl)
	fl.StringVar(&f.as, "as", "", asUsage)
	f.networkFlags.add(fl, false)
	return cmd
}

// maxWorkflowInput bounds the input of a call.
const maxWorkflowInput = 2 << 20

// request reads what is to be called.
func (e *env) request(method string, f runFlags) (workflow.Request, error) {
	req := workflow.Request{Query: f.query}
	var err error
	if req.Method, err = syntax.ParseNSID(method); err != nil {
		return req, usagef("%q is not a method, such as com.example.tips.send: %w", method, err)
	}
	did, fragment, isDID := strings.Cut(f.service, "#")
	switch {
	case f.service == "":
		return req, usagef("which service? Name it with --service, as did:web:tips.example#tips or as a URL")
	case strings.HasPrefix(f.service, "did:"):
		if _, err := syntax.ParseDID(did); err != nil || !isDID || fragment == "" {
			return req, usagef("--service %q: want a DID and a fragment, such as did:web:tips.example#tips", f.service)
		}
		req.Service = f.service
	default:
		if req.Service, err = serviceURL(f.service); err != nil {
			return req, usagef("--service: %w", err)
		}
	}
	params := url.Values{}
	for _, p := range f.params {
		name, value, ok := strings.Cut(p, "=")
		if !ok || name == "" {
			return req, usagef("--params %q: want NAME=VALUE", p)
		}
		params.Add(name, value)
	}
	req.Params = params.Encode()
	if f.input == "" {
		return req, nil
	}
	if f.query {
		return req, usagef("a query has no input: give parameters with --params")
	}
	in := io.Reader(e.stdin)
	if f.input != "-" {
		file, err := os.Open(f.input)
		if err != nil {
			return req, fmt.Errorf("opening the input: %w", err)
		}
		defer file.Close()
		in = file
	}
	b, err := io.ReadAll(io.LimitReader(in, maxWorkflowInput+1))
	if err != nil {
		return req, fmt.Errorf("reading the input: %w", err)
	}
	if len(b) > maxWorkflowInput {
		return req, usagef("the input has more than %s", bytesOf(maxWorkflowInput))
	}
	raw, err := data.AppendCBOR(nil, b)
	if err != nil {
		return req, usagef("the input is not JSON of the data model: %w", err)
	}
	if bytes.TrimLeft(b, " \t\r\n")[0] != '{' {
		return req, usagef("the input is not a JSON object")
	}
	req.Input = raw
	return req, nil
}

func (e *env) workflowRun(ctx context.Context, method string, f runFlags) error {
	if err := e.checkWorkflow(f.workflowFlags, f.input == "-"); err != nil {
		return err
	}
	req, err := e.request(method, f)
	if err != nil {
		return err
	}
	ctx, w, err := e.worker(ctx, f.as, f.workflowFlags)
	if err != nil {
		return err
	}
	defer w.close()
	w.agent.Atomic = f.atomic
	res, err := w.agent.Run(ctx, req)
	return w.finish(ctx, res, err)
}

func newWorkflowResume(e *env) *cobra.Command {
	var f workflowFlags
	cmd := &cobra.Command{
		Use:   "resume [ID]",
		Short: "Go on with a workflow that was interrupted",
		Long: "Goes on from where the journal says, as the account that began it: what may have been written is looked for in the\n" +
			"repository first, and what was reported is reported again in the same words, so that nothing happens twice. Without an\n" +
			"ID it is the workflow that has not ended, if there is one only. A batch that was agreed to is not asked for again. What\n" +
			"--allow named at the beginning stays allowed, and more may be named.",
		Example: "  baro workflow resume\n  baro workflow resume 3l6oveex3ii2l --yes",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return advise(e.workflowResume(cmd.Context(), args, f))
		},
	}
	f.add(cmd.Flags())
	f.networkFlags.add(cmd.Flags(), false)
	return cmd
}

func (e *env) workflowResume(ctx context.Context, args []string, f workflowFlags) error {
	if err := e.checkWorkflow(f, false); err != nil {
		return err
	}
	st, err := e.findRun(ctx, args)
	if err != nil {
		return err
	}
	f.allow = append(slices.Clone(st.Begin.Allow), f.allow...)
	ctx, w, err := e.worker(ctx, string(st.Begin.Account), f)
	if err != nil {
		return err
	}
	defer w.close()
	res, err := w.agent.Resume(ctx, st.Run)
	return w.finish(ctx, res, err)
}

func newWorkflowAbandon(e *env) *cobra.Command {
	var f networkFlags
	cmd := &cobra.Command{
		Use:   "abandon [ID]",
		Short: "End a workflow that was interrupted and is not to go on",
		Long: "Ends a workflow, the one that has not ended if there is one only: because its service is gone, for example. What may\n" +
			"have been written is looked for in the repository, and listed; nothing is written, and the service is told nothing.\n" +
			"'baro workflow undo' takes back what was done.",
		Example: "  baro workflow abandon\n  baro workflow abandon 3l6oveex3ii2l && baro workflow undo 3l6oveex3ii2l",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return advise(e.workflowAbandon(cmd.Context(), args, f))
		},
	}
	f.add(cmd.Flags(), false)
	return cmd
}

func (e *env) workflowAbandon(ctx context.Context, args []string, f networkFlags) error {
	st, err := e.findRun(ctx, args)
	if err != nil {
		return err
	}
	ctx, w, err := e.worker(ctx, string(st.Begin.Account), workflowFlags{networkFlags: f, yes: true})
	if err != nil {
		return err
	}
	defer w.close()
	done, err := w.agent.Abandon(ctx, st.Run)
	if err != nil {
		return err
	}
	if e.json {
		return e.printOutcome(outcomeLine{Run: st.Run, Outcome: workflow.OutcomeAbandoned}, done)
	}
	e.printDone(done)
	if len(done) == 0 {
		fmt.Fprintln(e.stderr, "given up; nothing had been written")
	} else {
		fmt.Fprintf(e.stderr, "given up; 'baro workflow undo %s' takes back what was written\n", st.Run)
	}
	return nil
}

// findRun finds a workflow in the journal, as findRunIn does.
func (e *env) findRun(ctx context.Context, args []string) (*workflow.Status, error) {
	j, closeJournal, err := e.journal()
	if err != nil {
		return nil, err
	}
	defer closeJournal()
	return findRunIn(ctx, j, args)
}

// findRunIn finds a workflow: the one that is named, or the one that has not ended.
func findRunIn(ctx context.Context, j workflow.Journal, args []string) (*workflow.Status, error) {
	if len(args) == 1 {
		if _, err := syntax.ParseTID(args[0]); err != nil {
			return nil, usagef("%q is not the ID of a workflow: 'baro workflow log' lists them", args[0])
		}
		st, err := workflow.StatusOf(ctx, j, args[0])
		if errors.Is(err, workflow.ErrNoRun) {
			return nil, withHint(err, "'baro workflow log' lists what there is")
		}
		return st, err
	}
	ids, err := j.Runs(ctx)
	if err != nil {
		return nil, err
	}
	var open []*workflow.Status
	for _, id := range ids {
		st, err := workflow.StatusOf(ctx, j, id)
		if errors.Is(err, workflow.ErrNoRun) {
			continue // its process ended before it began
		}
		if err != nil {
			return nil, err
		}
		if st.Outcome == "" {
			open = append(open, st)
		}
	}
	switch len(open) {
	case 0:
		return nil, errors.New("no workflow waits to go on")
	case 1:
		return open[0], nil
	}
	var names []string
	for _, st := range open {
		names = append(names, st.Run)
	}
	return nil, usagef("several workflows have not ended, say which: %s", strings.Join(names, ", "))
}
