package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/keys"
)

// keyVariable holds a secret key for key inspect.
const keyVariable = "ATPROTO_SIGNING_KEY"

func newKey(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "key",
		Short:   "Make and look at keys",
		Long:    "Keys sign repositories, changes of identities and tokens. They are on one of two curves, P-256 and K-256 (secp256k1).",
		Example: "  baro key generate\n  baro key inspect did:key:zDnaembgSGUhZULN2Caob4HLJPaxBh92N7rtH21TErzqf8HQo",
	}
	cmd.AddCommand(newKeyGenerate(e), newKeyInspect(e))
	return cmd
}

func newKeyGenerate(e *env) *cobra.Command {
	var typ string
	var terse bool
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Make a secret key",
		Long: "Makes a new key and prints it, the secret half as multikey and the public one as did:key. Nothing is kept: whoever\n" +
			"has the output has the key.",
		Example: "  baro key generate\n  baro key generate --type K-256 --terse > secret.key",
		RunE: func(*cobra.Command, []string) error {
			var curve keys.Curve
			switch strings.ToLower(strings.ReplaceAll(typ, "-", "")) {
			case "p256", "es256", "secp256r1":
				curve = keys.P256
			case "k256", "es256k", "secp256k1":
				curve = keys.K256
			default:
				return usagef("--type %q: want P-256 or K-256", typ)
			}
			k, err := keys.Generate(curve, e.world.Rand)
			if err != nil {
				return err
			}
			switch {
			case e.json:
				return e.printJSON(map[string]any{"type": curveName(curve), "secret": k.Multikey(), "public": k.Public().DIDKey()})
			case terse:
				_, err = fmt.Fprintln(e.stdout, k.Multikey())
			default:
				_, err = fmt.Fprintf(e.stdout, "type    %s\nsecret  %s\npublic  %s\n", curveName(curve), k.Multikey(), k.Public().DIDKey())
			}
			return err
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&typ, "type", "t", "P-256", "curve of the key: P-256 or K-256")
	fl.BoolVar(&terse, "terse", false, "print the secret key only")
	return cmd
}

func curveName(c keys.Curve) string {
	if c == keys.K256 {
		return "K-256"
	}
	return "P-256"
}

func newKeyInspect(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect [PUBLIC-KEY|-]",
		Short: "Tell the curve of a key, and its public half in all spellings",
		Long: "Reads a public key, as did:key or multikey. A secret key comes from the variable " + keyVariable + ", or with - or without\n" +
			"an argument from a terminal without echo or the first line of standard input: arguments can be seen by others. Of a\n" +
			"secret key only the public half is printed.",
		Example: "  baro key inspect did:key:zDnaembgSGUhZULN2Caob4HLJPaxBh92N7rtH21TErzqf8HQo\n  baro key inspect - < secret.key",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.keyInspect(cmd.Context(), args)
		},
	}
}

func (e *env) keyInspect(ctx context.Context, args []string) error {
	text := "-"
	if len(args) == 1 {
		text = args[0]
	}
	if text == "-" {
		var err error
		if text, err = e.secretFrom(ctx, keyVariable, "Key", false); err != nil {
			return err
		}
	} else if _, err := keys.ParsePrivate(text); err == nil {
		return usagef("this is a secret key, and others can see arguments: give it on standard input, or in %s", keyVariable)
	}
	pub, kind, err := anyKey(strings.TrimSpace(text))
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(map[string]any{"kind": kind, "type": curveName(pub.Curve()), "didKey": pub.DIDKey(), "multikey": pub.Multikey(), "jwk": pub.JWK()})
	}
	_, err = fmt.Fprintf(e.stdout, "kind      %s\ntype      %s\ndid:key   %s\nmultikey  %s\n", kind, curveName(pub.Curve()), pub.DIDKey(), pub.Multikey())
	return err
}

// anyKey reads a key in whatever spelling and returns its public half.
func anyKey(s string) (pub *keys.PublicKey, kind string, err error) {
	if strings.HasPrefix(s, "did:key:") {
		pub, err = keys.ParseDIDKey(s)
		return pub, "public", err
	}
	if pub, err := keys.ParseMultikey(s); err == nil {
		return pub, "public", nil
	}
	k, err := keys.ParsePrivate(s)
	if err != nil {
		return nil, "", err // which doesn't repeat the input
	}
	return k.Public(), "secret", nil
}
