package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/client/migrate"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/xrpc"
)

// codeVariable holds the code that a PDS mails before it signs an operation.
const codeVariable = "PLC_SIGN_TOKEN"

func newAccountPLC(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plc",
		Short: "Change the identity of your account through its PDS",
		Long: "Has the PDS of your account sign and submit operations of your did:plc identity. It mails a code before it signs. Who holds a\n" +
			"rotation key needs no PDS: see 'baro plc'.",
		Example: "  baro account plc current\n  baro account plc request-token\n  baro account plc add-rotation-key did:key:z… --token ABCDE-12345",
	}
	cmd.AddCommand(newAccountPLCRecommended(e), newAccountPLCRequestToken(e), newAccountPLCCurrent(e), newAccountPLCSign(e),
		newAccountPLCSubmit(e), newAccountPLCAddKey(e))
	return cmd
}

func newAccountPLCRecommended(e *env) *cobra.Command {
	return e.accountAction(&cobra.Command{
		Use:     "recommended",
		Short:   "Print what the PDS wants the identity to say",
		Long:    "Prints the keys, the handle and the service that your PDS would write into an operation for you.",
		Example: "  baro account plc recommended\n  baro account plc recommended --json | jq .verificationMethods",
	}, func(ctx context.Context, _ *auth.Account, x *xrpc.Client, _ []string) error {
		s, err := x.Do(ctx, http.MethodGet, "com.atproto.identity.getRecommendedDidCredentials", "", nil, "application/json")
		if err != nil {
			return err
		}
		defer s.Body.Close()
		b, err := io.ReadAll(io.LimitReader(s.Body, maxOperationFile))
		if err != nil {
			return err
		}
		return e.printDocument(b)
	})
}

func newAccountPLCRequestToken(e *env) *cobra.Command {
	return e.accountAction(&cobra.Command{
		Use:     "request-token",
		Short:   "Have the PDS mail a code, without which it signs nothing",
		Long:    "Has your PDS mail you the code that 'baro account plc sign' and 'baro account migrate' want.",
		Example: "  baro account plc request-token",
	}, func(ctx context.Context, a *auth.Account, x *xrpc.Client, _ []string) error {
		if _, err := comatproto.IdentityRequestPlcOperationSignature.Call(ctx, x, nil); err != nil {
			return err
		}
		return e.did(a, "a code was mailed to the owner of")
	})
}

func newAccountPLCCurrent(e *env) *cobra.Command {
	var f accountFlags
	cmd := &cobra.Command{
		Use:     "current",
		Short:   "Print what the identity says now",
		Long:    "Prints the state of the identity, computed from its verified log.",
		Example: "  baro account plc current --json | jq -r '.rotationKeys[]'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.asAccount(cmd.Context(), f, func(_ *sessions, a *auth.Account) error {
				_, did, log, err := e.plcLog(cmd.Context(), string(a.DID()), f.networkFlags)
				if err != nil {
					return err
				}
				state, active, _ := plc.Verify(did, log) // plcLog has verified it
				if !active {
					return fmt.Errorf("the identity %s was ended by a tombstone", did)
				}
				return e.printDocument(state.AppendJSON(nil, did))
			})
		},
	}
	f.add(cmd.Flags())
	return cmd
}

// plcEdit is a change of the identity of an account that its PDS is to sign.
type plcEdit struct {
	accountFlags
	token string
}

func (f *plcEdit) addToken(fl *pflag.FlagSet) {
	fl.StringVar(&f.token, "token", "", "code that the PDS has mailed")
	alsoVariable(fl, "token", codeVariable)
}

// signed has the PDS sign the state that edit makes of the present one, and checks what it has signed.
func (e *env) signed(ctx context.Context, a *auth.Account, f plcEdit, edit func(plc.Data) (plc.Data, error)) (*plc.Operation, error) {
	_, did, log, err := e.plcLog(ctx, string(a.DID()), f.networkFlags)
	if err != nil {
		return nil, err
	}
	now, active, _ := plc.Verify(did, log) // plcLog has verified it
	if !active {
		return nil, fmt.Errorf("the identity %s was ended by a tombstone", did)
	}
	want, err := edit(now.Clone())
	if err != nil {
		return nil, err
	}
	changes := migrate.Changes(now, want)
	if len(changes) == 0 {
		return nil, usagef("the identity says so already: nothing is to be signed")
	}
	for _, c := range changes {
		fmt.Fprintf(e.stderr, "changes %s\n", inert(c))
	}
	token := f.token
	if token == "" {
		if !isTerminal(e.stdin) {
			return nil, usagef("the code that the PDS mails is needed: ask for it with 'baro account plc request-token', and give it with --token")
		}
		if token, err = e.secretFrom(ctx, codeVariable, "Code from the mail", false); err != nil {
			return nil, err
		}
	}
	in, err := migrate.SignInput(want, token)
	if err != nil {
		return nil, err
	}
	out, err := comatproto.IdentitySignPlcOperation.Call(ctx, a.Client(), in)
	if errors.Is(err, xrpc.ErrInvalidToken) || errors.Is(err, xrpc.ErrExpiredToken) {
		return nil, withHint(err, "a code is good once, and not for long: 'baro account plc request-token' asks for another one")
	}
	if err != nil {
		return nil, err
	}
	text, err := data.AppendJSON(nil, out.Operation)
	if err != nil {
		return nil, err
	}
	op, err := plc.ParseJSON(text)
	if err == nil {
		err = migrate.Rehearse(did, log, op, want, e.world.Clock.Now())
	}
	if err != nil {
		return nil, notVerified(fmt.Errorf("what the PDS has signed: %w", err))
	}
	return op, nil
}

// submitThrough has the PDS submit an operation.
func (e *env) submitThrough(ctx context.Context, a *auth.Account, op *plc.Operation) error {
	raw, err := data.AppendCBOR(nil, op.AppendJSON(nil))
	if err != nil {
		return err
	}
	if _, err := comatproto.IdentitySubmitPlcOperation.Call(ctx, a.Client(), &comatproto.IdentitySubmitPlcOperation_Input{Operation: raw}); err != nil {
		return err
	}
	if e.json {
		return e.printJSON(map[string]any{"did": a.DID(), "cid": op.CID()})
	}
	_, err = fmt.Fprintf(e.stdout, "submitted %s to the log of %s\n", op.CID(), a.DID())
	return err
}

// editFromJSON reads which fields of the state are to be replaced. What it takes is an operation, or a part of one.
func editFromJSON(name string, b []byte) (func(plc.Data) (plc.Data, error), error) {
	var v struct {
		RotationKeys        []string          `json:"rotationKeys"`
		AlsoKnownAs         []string          `json:"alsoKnownAs"`
		VerificationMethods map[string]string `json:"verificationMethods"`
		Services            map[string]struct {
			Type     string `json:"type"`
			Endpoint string `json:"endpoint"`
		} `json:"services"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if v.RotationKeys == nil && v.AlsoKnownAs == nil && v.VerificationMethods == nil && v.Services == nil {
		return nil, usagef("%s has none of rotationKeys, alsoKnownAs, verificationMethods and services", name)
	}
	return func(d plc.Data) (plc.Data, error) {
		if v.RotationKeys != nil {
			d.RotationKeys = v.RotationKeys
		}
		if v.AlsoKnownAs != nil {
			d.AlsoKnownAs = v.AlsoKnownAs
		}
		if v.VerificationMethods != nil {
			d.VerificationMethods = maps.Clone(v.VerificationMethods)
		}
		if v.Services != nil {
			d.Services = map[string]plc.Service{}
			for id, s := range v.Services {
				d.Services[id] = plc.Service(s)
			}
		}
		return d, nil
	}, nil
}

func newAccountPLCSign(e *env) *cobra.Command {
	var f plcEdit
	cmd := &cobra.Command{
		Use:   "sign FILE",
		Short: "Have the PDS sign an operation",
		Long: "Reads what the identity is to say, from a file of JSON or with - from standard input: an operation, or any of its fields\n" +
			"rotationKeys, alsoKnownAs, verificationMethods and services. The others stay as they are. The PDS signs, what it has signed is\n" +
			"checked, and printed. Nothing is submitted.",
		Example: "  baro account plc sign change.json --token ABCDE-12345 > signed.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := e.readInput(cmd.Context(), args[0], maxOperationFile)
			if err != nil {
				return err
			}
			edit, err := editFromJSON(args[0], b)
			if err != nil {
				return err
			}
			return e.asAccount(cmd.Context(), f.accountFlags, func(_ *sessions, a *auth.Account) error {
				op, err := e.signed(cmd.Context(), a, f, edit)
				if err != nil {
					return err
				}
				return e.printDocument(op.AppendJSON(nil))
			})
		},
	}
	f.addToken(cmd.Flags())
	f.add(cmd.Flags())
	return cmd
}

func newAccountPLCSubmit(e *env) *cobra.Command {
	var f accountFlags
	cmd := &cobra.Command{
		Use:   "submit FILE",
		Short: "Have the PDS submit a signed operation",
		Long: "Reads a signed operation from a file, or with - from standard input, checks it against the log of the identity, and has the PDS\n" +
			"submit it. A PDS submits only what leaves the account able to live there.",
		Example: "  baro account plc submit signed.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			op, err := e.readOperation(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return e.asAccount(cmd.Context(), f, func(_ *sessions, a *auth.Account) error {
				_, did, log, err := e.plcLog(cmd.Context(), string(a.DID()), f.networkFlags)
				if err != nil {
					return err
				}
				if _, err := plc.Next(did, log, op, e.world.Clock.Now()); err != nil {
					return fmt.Errorf("nothing was submitted: %w", err)
				}
				return e.submitThrough(cmd.Context(), a, op)
			})
		},
	}
	f.add(cmd.Flags())
	return cmd
}

func newAccountPLCAddKey(e *env) *cobra.Command {
	var f plcEdit
	var first bool
	cmd := &cobra.Command{
		Use:   "add-rotation-key DID-KEY",
		Short: "Add a rotation key of your own to the identity",
		Long: "Adds a public key to the rotation keys, with which you can change the identity without your PDS. It becomes the weakest one, or\n" +
			"with --first the strongest, which can undo what the others sign. The PDS signs and submits the operation.",
		Example: "  baro key generate\n  baro account plc request-token\n  baro account plc add-rotation-key --first did:key:z… --token ABCDE-12345",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := didKey("add-rotation-key", args[0])
			if err != nil {
				return err
			}
			return e.asAccount(cmd.Context(), f.accountFlags, func(_ *sessions, a *auth.Account) error {
				op, err := e.signed(cmd.Context(), a, f, func(d plc.Data) (plc.Data, error) {
					if slices.Contains(d.RotationKeys, key) {
						return d, usagef("%s is a rotation key already", key)
					}
					at := len(d.RotationKeys)
					if first {
						at = 0
					}
					d.RotationKeys = slices.Insert(d.RotationKeys, at, key)
					return d, nil
				})
				if err != nil {
					return err
				}
				return e.submitThrough(cmd.Context(), a, op)
			})
		},
	}
	cmd.Flags().BoolVar(&first, "first", false, "make it the strongest")
	f.addToken(cmd.Flags())
	f.add(cmd.Flags())
	return cmd
}

// signingKeyVariable holds the key of an account's repository.
const signingKeyVariable = keyVariable

func newAccountServiceAuthOffline(e *env) *cobra.Command {
	var aud, lxm, iss, keyFile string
	var seconds int
	cmd := &cobra.Command{
		Use:   "service-auth-offline",
		Short: "Print a token for another service, signed with a key of your own",
		Long: "Makes a token as 'baro account service-auth' does, without a PDS: it is signed with the signing key of the account, which is read\n" +
			"from a file, standard input or the variable " + signingKeyVariable + ". Whoever has the token acts for the account until it expires.",
		Example: "  baro account service-auth-offline --iss did:plc:ewvi7nxzyoun6zhxrhs64oiz --audience did:web:pds.example \\\n" +
			"    --endpoint com.atproto.server.createAccount --atproto-signing-key signing.key",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if aud == "" || seconds <= 0 {
				return usagef("--audience names the service by its DID, and --duration-sec is above 0")
			}
			id, err := parseAccount(cmp.Or(iss, "-"))
			if err != nil || !id.IsDID() {
				return usagef("--iss is the DID of the account")
			}
			if lxm != "" {
				n, err := parseNSID(lxm)
				if err != nil {
					return err
				}
				lxm = string(n)
			}
			key, err := e.secretKey(keyFile, "--atproto-signing-key", signingKeyVariable, true)
			if err != nil {
				return err
			}
			var jti [16]byte
			if _, err := io.ReadFull(e.world.Rand, jti[:]); err != nil {
				return err
			}
			now := e.world.Clock.Now()
			t := auth.ServiceToken{Issuer: id.DID(), Audience: aud, Issued: now, Expires: now.Add(time.Duration(seconds) * time.Second), ID: fmt.Sprintf("%x", jti)}
			if lxm != "" {
				t.Method, _ = parseNSID(lxm) // it is one: see above
			}
			token, err := t.Sign(key)
			if err != nil {
				return err
			}
			if e.json {
				return e.printJSON(map[string]any{"token": token, "iss": iss, "aud": aud, "lxm": lxm, "exp": t.Expires.Unix()})
			}
			_, err = fmt.Fprintln(e.stdout, token)
			return err
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&iss, "iss", "", "DID of the account that asks")
	fl.StringVar(&aud, "audience", "", "DID of the service that the token is for")
	alsoNamed(fl, "audience", "aud")
	fl.StringVar(&lxm, "endpoint", "", "method that the token is for (default: any)")
	alsoNamed(fl, "endpoint", "lxm")
	fl.IntVar(&seconds, "duration-sec", 60, "how long the token is good, in seconds")
	fl.StringVar(&keyFile, "atproto-signing-key", "", "file with the secret signing key, - for standard input (default: the variable "+signingKeyVariable+", which holds the key itself)")
	return cmd
}
