package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
)

// recordLine is a record in the output for programs.
type recordLine struct {
	URI      string   `json:"uri"`
	CID      string   `json:"cid"`
	Value    data.Raw `json:"value,omitempty"`
	Verified bool     `json:"verified,omitempty"`
}

func newGet(e *env) *cobra.Command {
	var f networkFlags
	var verify bool
	cmd := &cobra.Command{
		Use:   "get AT-URI",
		Short: "Fetch a record",
		Long: "Fetches one record from the PDS of its account and prints it as JSON. Its bytes are always checked against its CID. The\n" +
			"address of a web page that shows the record serves as well as its AT-URI.\n\n" +
			"With --verify the record is not taken from the server's word: a proof is fetched (the signed commit and the nodes of\n" +
			"the tree that lead to the record) and checked with the key of the account's DID document. The steps are printed to\n" +
			"standard error. A proof that doesn't hold ends with exit code 3.\n\n" +
			"With --json the URI and the CID are printed too, all in one line.",
		Example: "  baro get at://alice.test/app.bsky.actor.profile/self\n" +
			"  baro get alice.test/app.bsky.actor.profile/self --verify\n" +
			"  baro get https://bsky.app/profile/alice.test/post/3l6oveex3ii2l\n" +
			"  baro get --json at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/app.bsky.feed.post/3l6oveex3ii2l | jq .value.text",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return advise(e.get(cmd.Context(), args[0], f, verify))
		},
	}
	cmd.Flags().BoolVar(&verify, "verify", false, "check the proof of the record, and print its steps")
	f.add(cmd.Flags(), false)
	return cmd
}

func (e *env) get(ctx context.Context, arg string, f networkFlags, verify bool) error {
	uri, err := parseRecord(arg)
	if err != nil {
		return err
	}
	a, err := e.lookup(ctx, uri.Authority(), f)
	if err != nil {
		return err
	}
	at := uri.WithAuthority(syntax.AtIdentifier(a.DID))
	c := a.client(e)
	var r *client.Record[data.Raw]
	if verify {
		r, err = e.getVerified(ctx, a, c, at)
	} else {
		r, err = client.Get[data.Raw](ctx, c, at, client.GetOptions{})
	}
	if errors.Is(err, client.ErrRecordNotFound) {
		return withHint(err, "'baro ls %s %s' lists what is there", uri.Authority(), uri.Collection())
	}
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(recordLine{string(r.URI), r.CID.String(), r.Value, r.Proof != nil})
	}
	b, err := indentRecord(r.Value)
	if err != nil {
		return fmt.Errorf("printing %s: %w", at, err)
	}
	_, err = e.stdout.Write(inertJSON(b))
	return err
}

// getVerified fetches and checks the proof of a record and prints the steps. A signature that doesn't verify gets a second
// chance with a fresh DID document, since keys change.
func (e *env) getVerified(ctx context.Context, a *account, c *client.Client, at syntax.ATURI) (*client.Record[data.Raw], error) {
	if a.SigningKey == nil {
		return nil, notVerified(fmt.Errorf("the DID document of %s has no signing key", a.DID))
	}
	key, document := a.SigningKey, a.Document
	proof, err := c.Proof(ctx, at, key)
	if v, ok := errors.AsType[*repo.VerifyError](err); ok && v.Reason == repo.ReasonSignature {
		fresh, _, rerr := a.net.dir.Refresh(ctx, a.DID)
		if rerr == nil && fresh.SigningKey != nil && !fresh.SigningKey.Equal(key) {
			key, document = fresh.SigningKey, fresh
			proof, err = c.Proof(ctx, at, key)
		}
	}
	e.printSteps(a, document, proof, err)
	if err != nil {
		return nil, err
	}
	if !proof.Found() {
		return nil, fmt.Errorf("getting %s: %w: its absence is proven", at, client.ErrRecordNotFound)
	}
	return &client.Record[data.Raw]{URI: at, CID: proof.CID, Value: proof.Record, Proof: proof}, nil
}

// printSteps shows on standard error how the record hangs together with the account.
func (e *env) printSteps(a *account, doc *identity.Document, p *repo.Proof, err error) {
	c := colorsOf(e.stderr)
	line := func(good bool, what, detail string) {
		mark := c.good("ok")
		if !good {
			mark = c.bad("FAILED")
		}
		fmt.Fprintf(e.stderr, "%s\t%-10s %s\n", mark, what, inert(detail))
	}
	if a.Handle != syntax.InvalidHandle {
		line(true, "handle", fmt.Sprintf("%s leads to %s, whose document names it", a.Handle, a.DID))
	} else {
		fmt.Fprintf(e.stderr, "%s\t%-10s %s\n", c.dim("-"), "handle", "none that leads back to the DID; it is of no account here")
	}
	line(true, "document", fmt.Sprintf("of %s: PDS %s, key %s", a.DID, doc.PDS, doc.SigningKey.DIDKey()))
	if p != nil {
		e.printProofSteps(p.Steps)
	}
	if err != nil {
		line(false, "proof", err.Error())
	}
}

// printProofSteps shows the steps of a proof on standard error.
func (e *env) printProofSteps(steps []repo.Step) {
	c := colorsOf(e.stderr)
	for _, s := range steps {
		detail := s.Detail
		if s.CID.Defined() {
			detail = s.CID.String()
			switch s.Kind {
			case repo.StepNode:
				detail += fmt.Sprintf("  layer %d, %s", s.Layer, count(s.Entries, "entry", "entries"))
			default:
				if s.Size > 0 {
					detail += fmt.Sprintf("  %d bytes", s.Size)
				}
			}
			if s.Detail != "" {
				detail += "  " + s.Detail
			}
		}
		mark := c.good("ok")
		if s.Skipped {
			mark = c.bad("FAILED")
		}
		fmt.Fprintf(e.stderr, "%s\t%-10s %s\n", mark, s.Kind, inert(detail))
	}
}
