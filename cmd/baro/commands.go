package main

import "github.com/spf13/cobra"

// groups are the subcommands of baro, each made by a function of its own file, in the order of the help page.
var groups = []struct {
	title    string
	commands []func(*env) *cobra.Command
}{
	{"A network on this machine", []func(*env) *cobra.Command{newUp}},
	{"Read, check and write", []func(*env) *cobra.Command{newGet, newLs, newRecord, newResolve, newXRPC, newRepo, newBlob, newFirehose, newLex, newWorkflow, newAccount, newBsky, newSyntax, newKey, newDoctor}},
	{"The servers, each alone", []func(*env) *cobra.Command{newPLC, newPDS, newRelay, newLinks, newExplorer}},
	{"About baro", []func(*env) *cobra.Command{newBench, newConfig, newVersion, newMan}},
}
