package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/syntax"
)

// maxOperationFile is how large a file with an operation may be, in bytes.
const maxOperationFile = 64 << 10

// plcChange is what flags change in the state of an identity.
type plcChange struct {
	handle, atprotoKey, pds string
	addKeys, removeKeys     []string
}

func (p *plcChange) add(fl *pflag.FlagSet) {
	fl.StringVar(&p.handle, "handle", "", "handle of the account")
	fl.StringArrayVar(&p.addKeys, "add-rotation-key", nil, "did:key of a rotation key that becomes the strongest; may be repeated, the first one is the strongest then")
	fl.StringArrayVar(&p.removeKeys, "remove-rotation-key", nil, "did:key of a rotation key that goes away; may be repeated")
	fl.StringVar(&p.atprotoKey, "atproto-key", "", "did:key of the key that signs the repository")
	fl.StringVar(&p.pds, "pds", "", "URL of the PDS of the account")
}

func (p *plcChange) any() bool {
	return p.handle != "" || p.atprotoKey != "" || p.pds != "" || len(p.addKeys)+len(p.removeKeys) > 0
}

// typed forgets what doesn't come from the command line: a variable or a file that names a PDS for other commands must not end up in an
// identity.
func (p *plcChange) typed(e *env, cmd *cobra.Command) {
	for name, value := range map[string]*string{"handle": &p.handle, "pds": &p.pds, "atproto-key": &p.atprotoKey} {
		if e.config.origin[cmd.Flags().Lookup(name)] != "flag" {
			*value = ""
		}
	}
	for name, value := range map[string]*[]string{"rotation-key": &p.addKeys, "add-rotation-key": &p.addKeys, "remove-rotation-key": &p.removeKeys} {
		if f := cmd.Flags().Lookup(name); f != nil && e.config.origin[f] != "flag" {
			*value = nil
		}
	}
}

// didKey reads a public key.
func didKey(flag, s string) (string, error) {
	k, err := keys.ParseDIDKey(s)
	if err != nil {
		if _, serr := keys.ParsePrivate(s); serr == nil {
			return "", usagef("--%s: this is a secret key, and others can see arguments: give the public one", flag)
		}
		return "", usagef("--%s %q: %w", flag, s, err)
	}
	return k.DIDKey(), nil
}

// apply returns the state after the change.
func (p *plcChange) apply(d plc.Data) (plc.Data, error) {
	d = d.Clone()
	for _, s := range p.removeKeys {
		i := slices.Index(d.RotationKeys, s)
		if i < 0 {
			return d, usagef("--remove-rotation-key %s: it is none of the rotation keys %s", s, strings.Join(d.RotationKeys, ", "))
		}
		d.RotationKeys = slices.Delete(d.RotationKeys, i, i+1)
	}
	for _, s := range slices.Backward(p.addKeys) {
		k, err := didKey("add-rotation-key", s)
		if err != nil {
			return d, err
		}
		if slices.Contains(d.RotationKeys, k) {
			return d, usagef("--add-rotation-key %s: it is a rotation key already", k)
		}
		d.RotationKeys = slices.Insert(d.RotationKeys, 0, k)
	}
	if p.handle != "" {
		h, err := syntax.ParseHandle(p.handle)
		if err != nil {
			return d, usagef("--handle %q is not a handle", p.handle)
		}
		d.SetHandle(h.Normalize())
	}
	if p.atprotoKey != "" {
		k, err := didKey("atproto-key", p.atprotoKey)
		if err != nil {
			return d, err
		}
		d.SetSigningKey(k)
	}
	if p.pds != "" {
		u, err := serviceURL(p.pds)
		if err != nil {
			return d, usagef("--pds: %w", err)
		}
		d.SetPDS(u)
	}
	if len(d.RotationKeys) == 0 {
		return d, usagef("no rotation key is left: nobody could change the identity any more")
	}
	return d, nil
}

func newPLCGenesis(e *env) *cobra.Command {
	var p plcChange
	cmd := &cobra.Command{
		Use:   "genesis",
		Short: "Print the first operation of a new identity, unsigned",
		Long: "Makes the operation that a did:plc identity begins with. Signed by one of its rotation keys and submitted, it gives the\n" +
			"identity its DID, which 'baro plc calc-did' tells before.",
		Example: "  baro plc genesis --handle alice.example.com --rotation-key did:key:z… --atproto-key did:key:z… --pds https://pds.example > genesis.json\n" +
			"  baro plc sign genesis.json --plc-signing-key rotation.key > signed.json\n" +
			"  baro plc submit --genesis signed.json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if p.typed(e, cmd); len(p.addKeys) == 0 {
				return usagef("--rotation-key is missing: without one nobody could sign")
			}
			d, err := p.apply(plc.Data{VerificationMethods: map[string]string{}, Services: map[string]plc.Service{}, AlsoKnownAs: []string{}})
			if err != nil {
				return err
			}
			op := plc.NewOperation(d, cid.CID{})
			if err := op.Check(); err != nil {
				return err
			}
			return e.printDocument(unsignedJSON(op))
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&p.handle, "handle", "", "handle of the account")
	fl.StringArrayVar(&p.addKeys, "rotation-key", nil, "did:key of a rotation key, the strongest first; may be repeated")
	fl.StringVar(&p.atprotoKey, "atproto-key", "", "did:key of the key that signs the repository")
	fl.StringVar(&p.pds, "pds", "", "URL of the PDS of the account")
	return cmd
}

// readOperation reads an operation as JSON from a file, or standard input; one that is yet to be signed has no sig.
func (e *env) readOperation(ctx context.Context, name string) (*plc.Operation, error) {
	b, err := e.readInput(ctx, name, maxOperationFile)
	if err != nil {
		return nil, err
	}
	op, err := plc.ParseJSON(b)
	if err == nil {
		return op, nil
	}
	var m map[string]json.RawMessage
	if json.Unmarshal(b, &m) != nil || m["sig"] != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	b = bytes.TrimSpace(b)
	rest := bytes.TrimSpace(b[1:]) // it is an object
	if len(rest) > 1 {
		rest = append([]byte(","), rest...)
	}
	if op, err = plc.ParseJSON(append([]byte(`{"sig":""`), rest...)); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return op, nil
}

func newPLCCalcDID(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "calc-did FILE",
		Short:   "Print the DID of a signed first operation",
		Long:    "Prints the DID that a signed genesis operation, from a file or with - from standard input, gives. The signature is checked.",
		Example: "  baro plc calc-did signed.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			op, err := e.readOperation(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if _, err := plc.Next(op.DID(), nil, op, e.world.Clock.Now()); err != nil {
				return notVerified(fmt.Errorf("%s: %w", args[0], err))
			}
			if e.json {
				return e.printJSON(map[string]any{"did": op.DID(), "cid": op.CID()})
			}
			_, err = fmt.Fprintln(e.stdout, op.DID())
			return err
		},
	}
}

func newPLCSign(e *env) *cobra.Command {
	var keyFile string
	cmd := &cobra.Command{
		Use:   "sign FILE",
		Short: "Sign an operation with a rotation key of your own",
		Long: "Signs an operation, from a file or with - from standard input, and prints it. The key is never an argument, which others could\n" +
			"see: --plc-signing-key names a file that has it, or the variable " + plcKeyVariable + " holds it.",
		Example: "  baro plc sign operation.json --plc-signing-key rotation.key > signed.json\n  PLC_SIGNING_KEY=… baro plc sign operation.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "-" && keyFile == "-" {
				return usagef("the operation and the key can't both be on standard input")
			}
			key, err := e.signingKey(keyFile, true)
			if err != nil {
				return err
			}
			op, err := e.readOperation(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if err := op.Sign(key); err != nil {
				return err
			}
			if err := op.Check(); err != nil {
				return err
			}
			if state, ok := op.State(); ok && !slices.Contains(state.RotationKeys, key.Public().DIDKey()) {
				if !op.Prev.Defined() {
					return fmt.Errorf("%s is none of the rotation keys of this genesis, and so can't sign it", key.Public().DIDKey())
				}
				fmt.Fprintf(e.stderr, "baro: %s will be no rotation key any more after this operation\n", key.Public().DIDKey())
			}
			return e.printDocument(op.AppendJSON(nil))
		},
	}
	addSigningKey(cmd.Flags(), &keyFile)
	return cmd
}

func newPLCSubmit(e *env) *cobra.Command {
	var f networkFlags
	var genesis, recovery bool
	var did string
	cmd := &cobra.Command{
		Use:   "submit FILE",
		Short: "Send a signed operation to the directory",
		Long: "Sends an operation, from a file or with - from standard input, to the PLC directory. Before that it is checked against the log\n" +
			"of its identity by the rules of the directory. One that makes others void is sent only with --recovery.",
		Example: "  baro plc submit --genesis signed.json\n  baro plc submit --did did:plc:ewvi7nxzyoun6zhxrhs64oiz signed.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !genesis && did == "" {
				return usagef("--did names the identity, or --genesis begins a new one")
			}
			ctx := cmd.Context()
			op, err := e.readOperation(ctx, args[0])
			if err != nil {
				return err
			}
			if err := op.Check(); err != nil {
				return err
			}
			if genesis {
				id := op.DID()
				if did != "" && did != string(id) {
					return fmt.Errorf("%s is the genesis of %s, not of %s", args[0], id, did)
				}
				ns, err := e.networks(ctx, f)
				if err != nil {
					return err
				}
				return advise(e.plcSend(ctx, ns.list[0].plcOf(), id, nil, op, false))
			}
			c, id, log, err := e.plcLog(ctx, did, f)
			if err != nil {
				return advise(err)
			}
			return advise(e.plcSend(ctx, c, id, log, op, recovery))
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&genesis, "genesis", false, "the operation begins a new identity")
	fl.StringVar(&did, "did", "", "identity that the operation is of")
	fl.BoolVar(&recovery, "recovery", false, "the operation may make later ones void")
	f.addDirectory(fl)
	return cmd
}

func newPLCUpdate(e *env) *cobra.Command {
	var f networkFlags
	var p plcChange
	var prev string
	cmd := &cobra.Command{
		Use:   "update ACCOUNT",
		Short: "Print the next operation of an identity, unsigned",
		Long: "Makes the operation that follows the last one of an identity, or the one that --prev names: it sets the state there, changed by\n" +
			"the flags. Sign it with 'baro plc sign', and send it with 'baro plc submit'.",
		Example: "  baro plc update alice.test --add-rotation-key did:key:z… > operation.json\n" +
			"  baro plc update did:plc:ewvi7nxzyoun6zhxrhs64oiz --pds https://pds.example --atproto-key did:key:z…",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p.typed(e, cmd)
			_, did, log, err := e.plcLog(cmd.Context(), args[0], f)
			if err != nil {
				return advise(err)
			}
			base := slices.IndexFunc(log, func(x plc.Entry) bool {
				return !x.Nullified && (x.CID.String() == prev || prev == "" && x.CID == plc.LastOf(log))
			})
			if base < 0 {
				return fmt.Errorf("%s is no valid operation of %s", prev, did)
			}
			state, ok := log[base].Operation.State()
			if !ok {
				return withHint(fmt.Errorf("the identity %s was ended by a tombstone", did), "'baro plc recover %s' tells whether that can be undone", did)
			}
			next, err := p.apply(state)
			if err != nil {
				return err
			}
			op := plc.NewOperation(next, log[base].CID)
			if bytes.Equal(op.Unsigned(), plc.NewOperation(state, log[base].CID).Unsigned()) && prev == "" && !p.any() {
				return usagef("nothing changes: say what to set, see --help")
			}
			if err := op.Check(); err != nil {
				return err
			}
			return e.printDocument(unsignedJSON(op))
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&prev, "prev", "", "CID of the operation to follow (default: the last one)")
	p.add(fl)
	f.addDirectory(fl)
	return cmd
}
