package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newResolve(e *env) *cobra.Command {
	var f networkFlags
	var only bool
	cmd := &cobra.Command{
		Use:   "resolve ACCOUNT",
		Short: "Print the DID document of an account",
		Long: "Finds the DID that a handle leads to, and prints its document as it came. A handle that the document doesn't name in\n" +
			"turn is an error: it can't be believed.",
		Example: "  baro resolve alice.test\n  baro resolve --did alice.test\n  baro resolve did:web:example.com --json | jq .service",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseAccount(args[0])
			if err != nil {
				return err
			}
			ns, err := e.networks(cmd.Context(), f)
			if err != nil {
				return advise(err)
			}
			a, err := ns.identify(cmd.Context(), id)
			if err != nil {
				return advise(err)
			}
			if !only {
				return e.printDocument(a.Raw)
			}
			if e.json {
				return e.printJSON(map[string]any{"did": a.DID, "handle": a.Handle})
			}
			_, err = fmt.Fprintln(e.stdout, a.DID)
			return err
		},
	}
	cmd.Flags().BoolVarP(&only, "did", "d", false, "print the DID only")
	f.add(cmd.Flags(), false)
	return cmd
}
