package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newMan(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "man DIR",
		Short:   "Write the manual pages into a folder",
		Long:    "Writes a page for each command, named as baro-repo-export.1, for the program man. The folder is made if it isn't there.",
		Example: "  baro man ~/.local/share/man/man1\n  man baro-up",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("making the folder of the manual pages: %w", err)
			}
			cmd.Root().DisableAutoGenTag = true // the pages don't depend on the day
			if err := doc.GenManTree(cmd.Root(), &doc.GenManHeader{Title: "BARO", Section: "1", Source: "baro"}, args[0]); err != nil {
				return fmt.Errorf("writing the manual pages: %w", err)
			}
			fmt.Fprintf(e.stderr, "wrote the manual pages to %s\n", args[0])
			return nil
		},
	}
}
