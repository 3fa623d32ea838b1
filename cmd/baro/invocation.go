package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
)

// invocation is how a person types this program in another terminal, and where that has to be if it matters.
func invocation() (command, where string) {
	exe, err := os.Executable()
	if err != nil {
		return "baro", ""
	}
	onPath, _ := exec.LookPath("baro")
	_, err = os.Stat(filepath.Join("cmd", "baro", "main.go"))
	module := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		module = info.Path
	}
	return invocationOf(exe, onPath, module, err == nil)
}

// invocationOf decides it by the file that runs, what the path of commands has under the name of baro, the package it was built from,
// and whether the present folder holds the source.
func invocationOf(exe, onPath, module string, source bool) (command, where string) {
	switch {
	case onPath != "" && sameFile(onPath, exe):
		return "baro", ""
	case !byGoRun(exe):
		return shellQuote(exe), ""
	case source:
		return "go run ./cmd/baro", " in this folder"
	case module != "":
		return "go run " + module + "@latest", ""
	}
	return "baro", ""
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// builtByGoRun are the folders that go run keeps its programs in: one of the build, and one of the cache of builds.
var builtByGoRun = regexp.MustCompile(`/go-build[0-9]*/b[0-9]+/exe$|/[0-9a-f]{64}-d$`)

// byGoRun says whether a program is one that go run has made, which nobody can type the name of.
func byGoRun(exe string) bool {
	return builtByGoRun.MatchString(filepath.ToSlash(filepath.Dir(exe)))
}

// plain are the characters that mean themselves to a shell.
var plain = regexp.MustCompile(`^[\pL\pN_./:@%+=,\\-]+$`)

// shellQuote writes a word for a shell.
func shellQuote(s string) string {
	if plain.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
