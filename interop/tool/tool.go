// Package tool finds the programs that tests against others' software run.
package tool

import (
	"bytes"
	"cmp"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// Missing skips the test, or fails it where nothing may be missing.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// Program returns the path of the program that an environment variable names, or else of the one with the given name. It
// is tried out with the arguments check in a folder that has its packages; the test is skipped if that fails.
func Program(t testing.TB, env, name, folder string, check ...string) string {
	t.Helper()
	p := os.Getenv(env)
	if p == "" {
		p = name
	}
	p, err := exec.LookPath(p)
	if err != nil {
		Missing(t, "%s is not installed (set %s): %v", name, env, err)
	}
	key := strings.Join(append([]string{p, folder}, check...), "\x00")
	once, _ := tried.LoadOrStore(key, sync.OnceValue(func() string {
		cmd := exec.Command(p, check...)
		cmd.Dir = folder
		if out, err := cmd.CombinedOutput(); err != nil {
			return cmp.Or(string(bytes.TrimSpace(out)), err.Error())
		}
		return ""
	}))
	if lack := once.(func() string)(); lack != "" {
		Missing(t, "%s lacks what is needed (see %s): %s", name, folder, lack)
	}
	return p
}

// tried holds what was found out about programs, as functions without arguments: some take seconds to import their packages.
var tried sync.Map

// Node returns a Node.js of version 22 or later that can import the given packages in a folder.
func Node(t testing.TB, folder string, packages ...string) string {
	t.Helper()
	check := "if (process.versions.node.split('.')[0] < 22) throw new Error('node is older than 22');"
	for _, p := range packages {
		check += "await import('" + p + "');"
	}
	return Program(t, "INTEROP_NODE", "node", folder, "--input-type=module", "-e", check)
}
