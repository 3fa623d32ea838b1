package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// ownCommands are all commands but those that cobra brings along.
func ownCommands() []*cobra.Command {
	root := newRoot()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	return slices.DeleteFunc(tree(root), func(c *cobra.Command) bool {
		first, _, _ := strings.Cut(commandPath(c), " ")
		return first == "help" || first == "completion"
	})
}

// TestHelpTeaches holds every command to a line, an explanation and an example that begins with its name.
func TestHelpTeaches(t *testing.T) {
	for _, c := range ownCommands() {
		path := c.CommandPath()
		if c.Short == "" || strings.HasSuffix(c.Short, ".") || len(c.Short) > 80 {
			t.Errorf("%s: the short help is %q: want a line without a full stop", path, c.Short)
		}
		if c.Long == "" {
			t.Errorf("%s: no long help", path)
		}
		for line := range strings.Lines(c.Long) {
			if len([]rune(strings.TrimRight(line, "\n"))) > 140 {
				t.Errorf("%s: a line of help is %d characters long: %s", path, len([]rune(line)), line)
			}
		}
		if c == c.Root() {
			continue
		}
		if !regexp.MustCompile(`(?m)^  (\S+=\S+ )*` + regexp.QuoteMeta(path) + `\b`).MatchString(c.Example) {
			if !regexp.MustCompile(`(?m)^  .*\b` + regexp.QuoteMeta(path) + `\b`).MatchString(c.Example) {
				t.Errorf("%s: no example shows it:\n%s", path, c.Example)
			}
		}
		for line := range strings.Lines(c.Example) {
			if strings.TrimSpace(line) != "" && !strings.HasPrefix(line, "  ") {
				t.Errorf("%s: an example isn't indented: %q", path, line)
			}
		}
	}
}

// shellWords parts a line of a shell into its words; operators are words of their own.
func shellWords(line string) []string {
	var words []string
	var word strings.Builder
	begun, quote := false, rune(0)
	end := func() {
		if begun {
			words = append(words, word.String())
		}
		word.Reset()
		begun = false
	}
	for i, r := range line {
		switch {
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '\'' || r == '"':
			quote, begun = r, true
		case r == ' ':
			end()
		case strings.ContainsRune("|<>;&", r):
			end()
			words = append(words, string(r))
		case r == '#' && !begun && i > 0:
			end()
			return words
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	end()
	return words
}

// TestExamplesParse holds each example to commands, flags and numbers of arguments that exist.
func TestExamplesParse(t *testing.T) {
	n := 0
	check := func(path string, words []string) {
		root := newRoot()
		cmd, rest, err := root.Find(words)
		if err == nil {
			cmd.InheritedFlags()
			err = cmd.ParseFlags(rest)
		}
		if err == nil && !cmd.Flags().Changed("help") {
			err = cmd.ValidateArgs(cmd.Flags().Args())
		}
		if err != nil {
			t.Errorf("%s: the example 'baro %s': %v", path, strings.Join(words, " "), err)
		}
		n++
	}
	for _, c := range ownCommands() {
		for line := range strings.Lines(regexp.MustCompile(`\\\n *`).ReplaceAllString(c.Example, "")) {
			var command []string
			in := false
			for _, w := range append(shellWords(strings.TrimSpace(line)), ";") {
				switch {
				case strings.Contains("|<>;&", w):
					if in && len(command) > 0 {
						check(c.CommandPath(), command)
					}
					in, command = false, nil
				case in:
					command = append(command, w)
				case w == "baro":
					in = true
				}
			}
		}
	}
	if n < 150 {
		t.Errorf("only %d examples were found", n)
	}
}

// TestManPages holds the pages to the commands: one for each, of which none is empty.
func TestManPages(t *testing.T) {
	ownHome(t)
	dir := filepath.Join(t.TempDir(), "man1")
	if code, _, errs := baro(t, "man", dir); code != exitOK {
		t.Fatal(errs)
	}
	for _, c := range ownCommands() {
		name := strings.ReplaceAll(c.CommandPath(), " ", "-") + ".1"
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		page := string(b)
		if !strings.HasPrefix(page, ".nh\n.TH") && !strings.HasPrefix(page, ".TH") || !strings.Contains(page, ".SH NAME") || c.Example != "" && !strings.Contains(page, ".SH EXAMPLE") {
			t.Errorf("%s is no manual page:\n%.300s", name, page)
		}
		if strings.Contains(page, os.Getenv("HOME")) {
			t.Errorf("%s depends on the machine", name)
		}
	}
	if man, err := exec.LookPath("man"); err == nil {
		out, err := exec.Command(man, "-l", filepath.Join(dir, "baro-get.1")).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--verify") {
			t.Errorf("man: %v\n%.500s", err, out)
		}
	}
}

// TestCompletion has a shell read what completes its words, and asks for some.
func TestCompletion(t *testing.T) {
	ownHome(t)
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		code, out, errs := baro(t, "completion", shell)
		if code != exitOK || len(out) < 500 {
			t.Errorf("%s: %d bytes: %s", shell, len(out), errs)
		}
		bin, err := exec.LookPath(shell)
		if err != nil || shell == "powershell" {
			continue
		}
		file := filepath.Join(t.TempDir(), shell)
		write(t, file, []byte(out))
		if b, err := exec.Command(bin, "-n", file).CombinedOutput(); err != nil {
			t.Errorf("%s doesn't read it: %v\n%s", shell, err, b)
		}
	}
	for _, tt := range []struct {
		words []string
		want  string
	}{
		{[]string{"repo", "ex"}, "export\t"}, {[]string{"bs"}, "bsky\t"}, {[]string{"get", "--ver"}, "--verify\t"}, {[]string{"bsky", "post", "--im"}, "--image\t"},
	} {
		if code, out, errs := baro(t, append([]string{"__complete"}, tt.words...)...); code != exitOK || !strings.Contains(out, tt.want) {
			t.Errorf("%v: %q, want %q\n%s", tt.words, out, tt.want, errs)
		}
	}
}

// TestErrorsHaveOneForm holds what goes wrong to one line that names the program, and misspelt names to a suggestion.
func TestErrorsHaveOneForm(t *testing.T) {
	ownHome(t)
	for line, want := range map[string]string{
		"gett x":                       "did you mean get?",
		"repo exprot x":                "did you mean export?",
		"bsky pots":                    "did you mean post?",
		"syntax tid chek x":            "did you mean check?",
		"get x --verfy":                "did you mean --verify?",
		"ls x --limt 3":                "did you mean --limit?",
		"post hello":                   "did you mean 'baro bsky post'?",
		"login alice.test":             "did you mean 'baro account login'?",
		"nothing":                      `unknown command "nothing" for "baro"`,
		"repo mst":                     "want 'baro repo mst FILE|ACCOUNT [flags]'",
		"account login -p secret x":    "others on this machine can see arguments",
		"account login -z x":           "unknown shorthand flag: 'z'",
		"get --log-level loud x.y/a/b": "want debug, info, warn or error",
		"get --config nowhere x":       "no such file",
		"ls x --limit 1.5":             "want a whole number",
		"get at://a/b/c":               "not an AT-URI",
		"repo verify nothing.car":      "no such file",
		"record create nothing.json":   "no such file",
		"blob download a.test x":       "is not a CID",
		"xrpc get ftp://x a.b.c":       "not the URL of a service",
	} {
		code, out, errs := baro(t, strings.Fields(line)...)
		first, rest, _ := strings.Cut(errs, "\n")
		if code == exitOK || out != "" || !strings.HasPrefix(first, "baro: ") || !strings.Contains(first, want) || strings.Contains(first, "secret") ||
			rest != "" && !regexp.MustCompile(`^see 'baro[^\n]* --help'\n$`).MatchString(rest) {
			t.Errorf("%s: exit code %d\n%s%s", line, code, out, errs)
		}
	}
}
