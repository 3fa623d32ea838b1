package main

import "github.com/spf13/cobra"

// commands are the subcommands of baro, each made by a function of its own file, in the order of the help page.
var commands = []func(*env) *cobra.Command{
	newUp,
	newGet,
	newLs,
	newRepo,
	newFirehose,
	newAccount,
	newPLC,
	newPDS,
	newRelay,
	newLinks,
	newExplorer,
	newVersion,
	newConfig,
	newMan,
}
