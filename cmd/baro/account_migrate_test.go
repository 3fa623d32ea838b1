package main

import (
	"regexp"

	"github.com/rogpeppe/go-internal/testscript"
)

var codeInLog = regexp.MustCompile(` token=(\S+)`)

// findCode sets a variable to the last code in the log of a server.
func findCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mailed VAR NAME")
	}
	all := codeInLog.FindAllStringSubmatch(ts.ReadFile(args[1]+".err"), -1)
	if len(all) == 0 {
		ts.Fatalf("%s has mailed nothing", args[1])
	}
	ts.Setenv(args[0], all[len(all)-1][1])
}
