package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/client/migrate"
	"github.com/barograph/baro/identity/plcdir"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/syntax"
)

// addPLCCommands adds the commands that ask a directory to the one that runs it.
func addPLCCommands(cmd *cobra.Command, e *env) {
	cmd.AddCommand(newPLCHistory(e), newPLCData(e), newPLCDump(e), newPLCVerify(e), newPLCGenesis(e), newPLCCalcDID(e), newPLCSign(e),
		newPLCSubmit(e), newPLCUpdate(e), newPLCRecover(e))
}

// plcOf is a client of the directory of a network.
func (n *network) plcOf() *plcdir.Client { return &plcdir.Client{URL: n.plc, HTTP: n.http} }

// plcLog reads the log of an identity, given by handle or DID, and verifies it. A log that doesn't verify comes with an error that
// notVerified has marked.
func (e *env) plcLog(ctx context.Context, arg string, f networkFlags) (*plcdir.Client, syntax.DID, []plc.Entry, error) {
	id, err := parseAccount(arg)
	if err != nil {
		return nil, "", nil, err
	}
	ns, err := e.networks(ctx, f)
	if err != nil {
		return nil, "", nil, err
	}
	did, list := id.DID(), ns.list
	if !id.IsDID() {
		a, err := ns.identify(ctx, id)
		if err != nil {
			return nil, "", nil, err
		}
		did, list = a.DID, []*network{a.net}
	}
	if did.Method() != "plc" {
		return nil, "", nil, fmt.Errorf("%s is no did:plc: only those have a log", did)
	}
	for _, n := range list {
		c := n.plcOf()
		var log []plc.Entry
		if log, err = c.Log(ctx, did); err == nil {
			if _, _, err := plc.Verify(did, log); err != nil {
				return c, did, log, notVerified(fmt.Errorf("the log of %s: %w", did, err))
			}
			return c, did, log, nil
		}
		if plcdir.StatusOf(err) != http.StatusNotFound {
			break
		}
	}
	if plcdir.StatusOf(err) == http.StatusNotFound {
		err = withHint(err, "check the spelling, or say with --plc which directory knows it")
	}
	return nil, did, nil, err
}

// unsignedJSON is the form of an operation that is yet to be signed: without the field sig.
func unsignedJSON(op *plc.Operation) []byte {
	b := op.AppendJSON(nil)
	if rest, ok := strings.CutPrefix(string(b), `{"sig":"",`); ok {
		return []byte("{" + rest)
	}
	return b
}

func newPLCHistory(e *env) *cobra.Command {
	var f networkFlags
	cmd := &cobra.Command{
		Use:   "history ACCOUNT",
		Short: "List the operations of an identity, and verify them",
		Long: "Lists the log of a did:plc identity: when an operation was accepted, which of the rotation keys signed it (1 is the\n" +
			"strongest), what it changed, and whether a later one made it void. The log is verified; one that breaks the rules ends with\n" +
			"exit code 3. With --json the entries are printed as the directory has them, one on a line.",
		Example: "  baro plc history alice.test\n  baro plc history did:plc:ewvi7nxzyoun6zhxrhs64oiz --json | jq -r .cid",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, _, log, verr := e.plcLog(cmd.Context(), args[0], f)
			if len(log) == 0 {
				return advise(verr)
			}
			return advise(errors.Join(e.printLog(log), verr))
		},
	}
	f.addDirectory(cmd.Flags())
	return cmd
}

// printLog prints entries, with what each changed.
func (e *env) printLog(log []plc.Entry) error {
	w := tabwriter.NewWriter(e.stdout, 0, 4, 2, ' ', 0)
	states := map[string]plc.Data{}
	for i := range log {
		x := &log[i]
		if e.json {
			if _, err := e.stdout.Write(append(inertJSON(x.AppendJSON(nil)), '\n')); err != nil {
				return err
			}
			continue
		}
		state, ok := x.Operation.State()
		base, changes := state, []string{string(x.Operation.Type)}
		if x.Operation.Prev.Defined() {
			base = states[x.Operation.Prev.String()]
			if ok {
				changes = migrate.Changes(base, state)
			}
		} else {
			changes = append([]string{"genesis"}, migrate.Changes(plc.Data{}, state)...)
		}
		states[x.CID.String()] = state
		signer := "?"
		if k, err := x.Operation.Signer(base.RotationKeys); err == nil {
			signer = fmt.Sprintf("key %d of %d", k+1, len(base.RotationKeys))
		}
		void := ""
		if x.Nullified {
			void = "  void"
		}
		fmt.Fprintf(w, "%s\t%s\t%s%s\n", plc.FormatTime(x.CreatedAt), x.CID, signer, void)
		for _, c := range changes {
			fmt.Fprintf(w, "\t%s\n", inert(c))
		}
	}
	return w.Flush()
}

func newPLCData(e *env) *cobra.Command {
	var f networkFlags
	cmd := &cobra.Command{
		Use:   "data ACCOUNT",
		Short: "Print the present state of an identity",
		Long: "Prints what a did:plc identity says now: rotation keys, signing keys, names and services. It is computed from the log, which is\n" +
			"verified; one that breaks the rules ends with exit code 3.",
		Example: "  baro plc data alice.test\n  baro plc data alice.test --json | jq -r '.rotationKeys[]'",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, did, log, err := e.plcLog(cmd.Context(), args[0], f)
			if err != nil {
				return advise(err)
			}
			state, active, _ := plc.Verify(did, log)
			if !active {
				return fmt.Errorf("the identity %s was ended by a tombstone", did)
			}
			return e.printDocument(state.AppendJSON(nil, did))
		},
	}
	f.addDirectory(cmd.Flags())
	return cmd
}

func newPLCRecover(e *env) *cobra.Command {
	var f networkFlags
	var to, keyFile string
	var submit bool
	var change plcChange
	cmd := &cobra.Command{
		Use:   "recover ACCOUNT",
		Short: "Show which operations can still be undone, and undo them",
		Long: "For 72 hours a rotation key may undo what a weaker one has signed. Without --to, this lists the ways back: the operation whose\n" +
			"state would hold again, what would become void, who may sign it, and until when. With --to, it makes the operation that goes\n" +
			"back there: it has the state of that operation, changed by the flags of 'baro plc update'. It is printed unsigned, signed if\n" +
			"there is a key, and submitted with --submit.",
		Example: "  baro plc recover alice.test\n" +
			"  baro plc recover alice.test --to bafyreie…\n" +
			"  PLC_SIGNING_KEY=… baro plc recover alice.test --to bafyreie… --remove-rotation-key did:key:z… --submit",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if change.typed(e, cmd); to == "" && (submit || change.any()) {
				return usagef("--to says which operation to go back to")
			}
			key, err := e.signingKey(keyFile, submit)
			if err != nil {
				return err
			}
			c, did, log, err := e.plcLog(cmd.Context(), args[0], f)
			if err != nil {
				return advise(err)
			}
			ways := plc.Recoveries(log, e.world.Clock.Now())
			mine := ""
			if key != nil {
				mine = key.Public().DIDKey()
			}
			if to == "" {
				return e.printRecoveries(did, ways, mine)
			}
			i := slices.IndexFunc(ways, func(r plc.Recovery) bool { return r.To.CID.String() == to })
			if i < 0 {
				return withHint(fmt.Errorf("there is no way back to %s now", to), "'baro plc recover %s' lists those there are", did)
			}
			state, _ := ways[i].To.Operation.State()
			if state, err = change.apply(state); err != nil {
				return err
			}
			op := plc.NewOperation(state, ways[i].To.CID)
			if key == nil {
				return e.printDocument(unsignedJSON(op))
			}
			if !slices.Contains(ways[i].Keys, mine) {
				return withHint(fmt.Errorf("%s may not sign this", mine), "one of these may: %s", strings.Join(ways[i].Keys, ", "))
			}
			if err := op.Sign(key); err != nil {
				return err
			}
			if err := op.Check(); err != nil {
				return err
			}
			if !submit {
				return e.printDocument(op.AppendJSON(nil))
			}
			return advise(e.plcSend(cmd.Context(), c, did, log, op, true))
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&to, "to", "", "CID of the operation to go back to")
	addSigningKey(fl, &keyFile)
	fl.BoolVar(&submit, "submit", false, "submit the operation")
	change.add(fl)
	f.addDirectory(fl)
	return cmd
}

func (e *env) printRecoveries(did syntax.DID, ways []plc.Recovery, mine string) error {
	if len(ways) == 0 && !e.json {
		fmt.Fprintf(e.stderr, "nothing in the log of %s can be undone now: it is more than 72 hours old, or was signed by the strongest key\n", did)
		return nil
	}
	now := e.world.Clock.Now()
	for _, r := range ways {
		void := []string{}
		for _, x := range r.Void {
			void = append(void, x.CID.String())
		}
		if e.json {
			if err := e.printJSON(map[string]any{"did": did, "to": r.To.CID, "void": void, "keys": r.Keys, "deadline": plc.FormatTime(r.Deadline), "yours": slices.Contains(r.Keys, mine)}); err != nil {
				return err
			}
			continue
		}
		state, _ := r.To.Operation.State()
		fmt.Fprintf(e.stdout, "back to  %s of %s (%s at %s)\n", r.To.CID, plc.FormatTime(r.To.CreatedAt), inert(string(state.Handle())), inert(state.PDS()))
		for _, x := range r.Void {
			fmt.Fprintf(e.stdout, "  undoes  %s of %s\n", x.CID, plc.FormatTime(x.CreatedAt))
		}
		for _, k := range r.Keys {
			yours := ""
			if k == mine {
				yours = "  (yours)"
			}
			fmt.Fprintf(e.stdout, "  signed by  %s%s\n", k, yours)
		}
		if _, err := fmt.Fprintf(e.stdout, "  until  %s, in %s\n", plc.FormatTime(r.Deadline), r.Deadline.Sub(now).Round(1e9)); err != nil {
			return err
		}
	}
	return nil
}

// plcSend checks a signed operation against the log, and submits it. Only if it is a recovery may it make others void.
func (e *env) plcSend(ctx context.Context, c *plcdir.Client, did syntax.DID, log []plc.Entry, op *plc.Operation, recovery bool) error {
	void, err := plc.Next(did, log, op, e.world.Clock.Now())
	if err != nil {
		return fmt.Errorf("nothing was submitted: %w", err)
	}
	if len(void) > 0 && !recovery {
		return withHint(fmt.Errorf("nothing was submitted: the operation would make %d later ones void", len(void)), "if that is what you want, say --recovery")
	}
	if err := c.Submit(ctx, did, op); plcdir.StatusOf(err) == http.StatusConflict {
		return withHint(err, "another operation came in between: make it anew")
	} else if err != nil {
		return err
	}
	gone := []string{}
	for _, i := range void {
		gone = append(gone, log[i].CID.String())
	}
	if e.json {
		return e.printJSON(map[string]any{"did": did, "cid": op.CID(), "void": gone})
	}
	_, err = fmt.Fprintf(e.stdout, "submitted %s to the log of %s\n", op.CID(), did)
	for _, v := range gone {
		fmt.Fprintf(e.stdout, "made void: %s\n", v)
	}
	return err
}
