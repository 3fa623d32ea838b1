package main

import (
	"github.com/spf13/cobra"

	"github.com/barograph/baro/internal/server/directory"
	"github.com/barograph/baro/internal/world"
)

func newPLC(e *env) *cobra.Command {
	s := &single{name: "plc"}
	var noLimits bool
	cmd := &cobra.Command{
		Use:   "plc",
		Short: "Run a PLC directory, or ask one",
		Long: "Runs a directory of did:plc identities, https://web.plc.directory/spec/v0.1/did-plc, until it is interrupted. The subcommands ask\n" +
			"a directory that runs: they read and verify logs, and make, sign and submit operations.",
		Example: "  baro plc --listen 127.0.0.1:2582 --data /var/lib/baro\n  baro plc history alice.test",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.serve(cmd.Context(), s, nil, func(_, dir string, w world.World) (server, error) {
				return directory.New(directory.Config{Dir: dir, Memory: s.memory, Version: version().Version, NoLimits: noLimits}, w)
			})
		},
	}
	s.flags(cmd, 2582)
	cmd.Flags().BoolVar(&noLimits, "no-limits", false, "accept any number of operations per identity, for local networks")
	addPLCCommands(cmd, e)
	return cmd
}
