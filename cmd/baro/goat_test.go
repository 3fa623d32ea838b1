package main

import (
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// goat are the commands of goat, each with its flags and, in brackets behind a flag, the variables that set it. A slash parts the names of
// one flag.
var goat = []struct{ command, flags string }{
	{"", "--log-level[GOAT_LOG_LEVEL,GO_LOG_LEVEL,LOG_LEVEL] --version"},

	{"get", ""},
	{"ls", "--collection -c/--collections"},
	{"list", "--collection -c/--collections"},
	{"record get", ""},
	{"record ls", "--collection -c/--collections"},
	{"record list", ""},
	{"record create", "-r/--rkey -n/--no-validate"},
	{"record update", "-r/--rkey -n/--no-validate"},
	{"record delete", "-c/--collection -r/--rkey"},
	{"resolve", "-d/--did --plc-host[ATP_PLC_HOST]"},
	{"firehose", "--relay-host[ATP_RELAY_HOST,RELAY_HOST] --cursor -c/--collection --account-events --blocks -q/--quiet --verify-basic --verify-sig --verify-mst --ops/--records"},
	{"xrpc", "--admin-password[ADMIN_PASSWORD,ATP_AUTH_ADMIN_PASSWORD]"},

	{"repo export", "-o/--output"},
	{"repo import", ""},
	{"repo ls", ""},
	{"repo list", ""},
	{"repo inspect", ""},
	{"repo mst", "-f/--full-cid -r/--root"},
	{"repo unpack", "-o/--output"},
	{"blob export", "-o/--output --pds-host"},
	{"blob ls", ""},
	{"blob list", ""},
	{"blob download", "-o/--output --pds-host"},
	{"blob upload", ""},
	{"blob compute", ""},

	{"lex resolve", "--did"},
	{"lex ls", ""},
	{"lex list", ""},
	{"lex validate", "--allow-legacy-blob -c/--catalog"},
	{"lex parse", ""},
	{"lex new", "-l/--list-templates --lexicons-dir[LEXICONS_DIR]"},
	{"lex pull", "-u/--update -o/--output-dir --lexicons-dir[LEXICONS_DIR]"},
	{"lex lint", "-I/--ignore-lint[IGNORE_LINTS] --lint-level[LINT_LEVEL] --json --lexicons-dir[LEXICONS_DIR]"},
	{"lex breaking", "--json --lexicons-dir[LEXICONS_DIR]"},
	{"lex status", "--lexicons-dir[LEXICONS_DIR]"},
	{"lex diff", "--lexicons-dir[LEXICONS_DIR]"},
	{"lex check-dns", "--example-did --lexicons-dir[LEXICONS_DIR]"},
	{"lex publish", "--username[GOAT_USERNAME,ATP_USERNAME,ATP_AUTH_USERNAME] -p/--password/--app-password[GOAT_PASSWORD,ATP_PASSWORD,ATP_AUTH_PASSWORD] --skip-dns-check -u/--update --lexicons-dir[LEXICONS_DIR]"},
	{"lex unpublish", "-u/--username[GOAT_USERNAME,ATP_USERNAME,ATP_AUTH_USERNAME] -p/--password/--app-password[GOAT_PASSWORD,ATP_PASSWORD,ATP_AUTH_PASSWORD]"},

	{"account login", "-u/--username[GOAT_USERNAME,ATP_USERNAME,ATP_AUTH_USERNAME] -p/--password/--app-password --auth-factor-token --pds-host[ATP_PDS_HOST]"},
	{"account logout", ""},
	{"account activate", ""},
	{"account deactivate", ""},
	{"account status", ""},
	{"account update-handle", ""},
	{"account check-auth", ""},
	{"account missing-blobs", ""},
	{"account service-auth", "--endpoint/--lxm --audience/--aud --duration-sec"},
	{"account service-auth-offline", "--atproto-signing-key --iss --endpoint/--lxm --audience/--aud --duration-sec"},
	{"account create", "--pds-host[ATP_PDS_HOST] --handle[NEW_ACCOUNT_HANDLE] --password --email[NEW_ACCOUNT_EMAIL] --invite-code --existing-did --recovery-key --service-auth"},
	{"account plc recommended", "--plc-host[ATP_PLC_HOST]"},
	{"account plc request-token", "--plc-host[ATP_PLC_HOST]"},
	{"account plc current", "--plc-host[ATP_PLC_HOST]"},
	{"account plc sign", "--token --plc-host[ATP_PLC_HOST]"},
	{"account plc submit", "--plc-host[ATP_PLC_HOST]"},
	{"account plc add-rotation-key", "--token --first --plc-host[ATP_PLC_HOST]"},

	{"plc history", "--plc-host[ATP_PLC_HOST]"},
	{"plc data", "--plc-host[ATP_PLC_HOST]"},
	{"plc dump", "-c/--cursor -f/--tail -i/--interval -s/--batch-size --plc-host[ATP_PLC_HOST]"},
	{"plc genesis", "--handle --rotation-key --atproto-key --pds"},
	{"plc calc-did", ""},
	{"plc sign", "--plc-signing-key"},
	{"plc submit", "--genesis --did --plc-host[ATP_PLC_HOST]"},
	{"plc update", "--prev --handle --add-rotation-key --remove-rotation-key --atproto-key --pds --plc-host[ATP_PLC_HOST]"},

	{"bsky post", ""},
	{"bsky prefs export", ""},
	{"bsky prefs import", ""},
	{"syntax tid check", ""},
	{"syntax tid inspect", ""},
	{"syntax tid generate", ""},
	{"syntax tid now", ""},
	{"syntax handle check", ""},
	{"syntax did check", ""},
	{"syntax cid check", ""},
	{"syntax rkey check", ""},
	{"syntax nsid check", ""},
	{"syntax at-uri check", ""},
	{"syntax language check", ""},
	{"syntax datetime check", ""},
	{"syntax datetime now", ""},
	{"key generate", "-t/--type --terse"},
	{"key inspect", ""},

	{"pds describe", "--pds-host[PDS_HOST]"},
	{"pds account list", "--json --handles --pds-host[PDS_HOST]"},
	{"pds account ls", ""},
	{"pds account status", "--json --pds-host[PDS_HOST]"},
	{"pds admin account list", "--admin-password[PDS_ADMIN_PASSWORD,ATP_AUTH_ADMIN_PASSWORD] --pds-host[PDS_HOST]"},
	{"pds admin account ls", ""},
	{"pds admin account info", "--admin-password --pds-host"},
	{"pds admin account delete", "--admin-password --pds-host"},
	{"pds admin account reset-password", "--admin-password --pds-host"},
	{"pds admin account takedown", "-r/--reverse --admin-password --pds-host"},
	{"pds admin account update", "--email --handle --admin-password --pds-host"},
	{"pds admin account create", "--handle --password --email --existing-did --recovery-key --admin-password --pds-host"},
	{"pds admin blob status", "--admin-password --pds-host"},
	{"pds admin blob purge", "-r/--reverse --admin-password --pds-host"},
	{"pds admin create-invites", "-n/--count --uses --admin-password --pds-host"},

	{"relay account list", "-c/--collection --json --relay-host[ATP_RELAY_HOST,RELAY_HOST]"},
	{"relay account ls", ""},
	{"relay account status", "--json --relay-host[ATP_RELAY_HOST,RELAY_HOST]"},
	{"relay host request-crawl", "--relay-host[ATP_RELAY_HOST,RELAY_HOST]"},
	{"relay host add", ""},
	{"relay host list", "--json --relay-host[ATP_RELAY_HOST,RELAY_HOST]"},
	{"relay host ls", ""},
	{"relay host status", "--json --relay-host[ATP_RELAY_HOST,RELAY_HOST]"},
	{"relay host diff", "--verbose --seq-slop"},
	{"relay admin account takedown", "-r/--reverse --admin-password[RELAY_ADMIN_PASSWORD,ATP_AUTH_ADMIN_PASSWORD] --admin-bearer-token[RELAY_ADMIN_BEARER_TOKEN] --relay-host[ATP_RELAY_HOST,RELAY_HOST]"},
	{"relay admin account list", "--admin-password --admin-bearer-token --relay-host"},
	{"relay admin host add", "--admin-password --admin-bearer-token --relay-host"},
	{"relay admin host block", "-r/--reverse --admin-password --admin-bearer-token --relay-host"},
	{"relay admin host list", "--admin-password --admin-bearer-token --relay-host"},
	{"relay admin host config", "--account-limit --admin-password --admin-bearer-token --relay-host"},
	{"relay admin domain ban", "-r/--reverse --admin-password --admin-bearer-token --relay-host"},
	{"relay admin domain list", "--admin-password --admin-bearer-token --relay-host"},
	{"relay admin consumer list", "--admin-password --admin-bearer-token --relay-host"},
}

// different are the flags of goat that are left out on purpose, and why.
var different = map[string]string{
	"account login -p/--password/--app-password": "a password is never an argument, which others can see: it is asked for, or comes from a variable or standard input",
	"account login --auth-factor-token":          "a secret is never an argument: it is asked for, or comes from ATP_AUTH_FACTOR_TOKEN",
	"account create --password":                  "a password is never an argument",
	"pds admin account create --password":        "a password is never an argument: it is asked for, or comes from BARO_PASSWORD or standard input",
}

// changed are the flags of goat that mean something else here, and why.
var changed = map[string]string{
	"account service-auth-offline --atproto-signing-key": "names a file, since a secret is never an argument; ATPROTO_SIGNING_KEY holds the key itself",
	"plc sign --plc-signing-key":                         "names a file, since a secret is never an argument; PLC_SIGNING_KEY holds the key itself",
}

// pending are the commands and flags of goat that are still missing here. It may only get shorter.
var pending = []string{}

func TestGoat(t *testing.T) {
	left := map[string]bool{}
	for _, p := range pending {
		left[p] = true
	}
	used := map[string]bool{}
	var missing []string
	for _, g := range goat {
		cmd, why := goatCommand(g.command)
		if why != "" {
			missing = append(missing, g.command)
			continue
		}
		for _, f := range strings.Fields(g.flags) {
			names, variables, _ := strings.Cut(f, "[")
			key := strings.TrimSpace(g.command + " " + names)
			why := goatFlag(cmd, strings.Split(names, "/"), strings.FieldsFunc(variables, func(r rune) bool { return r == ',' || r == ']' }))
			switch {
			case different[key] != "" && why == "":
				t.Errorf("%s: it is said to be left out, and is there", key)
			case different[key] != "":
				used[key] = true
			case why != "":
				missing = append(missing, key)
				if !left[key] {
					t.Errorf("%s: %s", key, why)
				}
			}
		}
	}
	for key := range different {
		if !used[key] {
			t.Errorf("%s: no flag of goat that is left out", key)
		}
	}
	for _, m := range missing {
		if !left[m] {
			t.Errorf("%q is missing", m)
		}
	}
	for _, p := range pending {
		if !slices.Contains(missing, p) {
			t.Errorf("%q is there now: take it out of the list of what is pending", p)
		}
	}
}

// goatCommand finds a command, or says why there is none.
func goatCommand(path string) (*cobra.Command, string) {
	cmd := newRoot()
	for _, name := range strings.Fields(path) {
		i := slices.IndexFunc(cmd.Commands(), func(c *cobra.Command) bool { return c.Name() == name || c.HasAlias(name) })
		if i < 0 {
			return nil, "there is no command " + name
		}
		cmd = cmd.Commands()[i]
	}
	if cmd.HasSubCommands() && path != "" {
		return nil, "it is only a group"
	}
	cmd.InheritedFlags() // which gives the command the flags of those above it
	return cmd, ""
}

// goatFlag says why a command doesn't have a flag of all these names and variables, "" if it does.
func goatFlag(cmd *cobra.Command, names, variables []string) string {
	var flag *pflag.Flag
	for i := len(names) - 1; i >= 0; i-- { // the long ones first
		var f *pflag.Flag
		name, long := strings.CutPrefix(names[i], "--")
		switch {
		case name == "version" && long:
			if cmd.Version == "" {
				return "no version"
			}
			continue
		case long:
			f = cmd.Flag(name)
			if f == nil {
				f = cmd.Flags().Lookup(name)
			}
		default:
			f = cmd.Flags().ShorthandLookup(name[1:])
			if f == nil {
				f = cmd.InheritedFlags().ShorthandLookup(name[1:])
			}
		}
		if f == nil {
			return "there is no flag " + names[i]
		}
		flag = f
	}
	for _, v := range variables {
		if !slices.Contains(flag.Annotations[foreignVariables], v) {
			return "the variable " + v + " doesn't set it"
		}
	}
	return ""
}

var update = flag.Bool("update", false, "write docs/parity-goat.md")

// TestGoatTable holds every command of goat to a script that runs it, and to success in one of them; docs/parity-goat.md is made of that.
func TestGoatTable(t *testing.T) {
	scripts := map[string][]string{} // lines that run baro and have to succeed, by script
	err := filepath.WalkDir("testdata", func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".txtar" {
			return err
		}
		b, err := os.ReadFile(path)
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "exec baro "); ok && !strings.Contains(rest, "--help") {
				scripts[filepath.ToSlash(path)] = append(scripts[filepath.ToSlash(path)], rest+" ")
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	const name = "../../docs/parity-goat.md"
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	stale := t.Errorf
	if *update {
		stale = t.Logf
	}
	lines := map[string]string{} // of the page, without the scripts → the scripts
	for line := range strings.Lines(string(text)) {
		if i := strings.LastIndex(strings.TrimSuffix(strings.TrimSpace(line), "|"), "|"); i > 0 {
			lines[line[:i]] = strings.TrimSpace(line[i:])
		}
	}
	var doc strings.Builder
	doc.WriteString(parityHead)
	row := func(path, flags string) {
		cmd, why := goatCommand(path)
		if why != "" {
			return // which is for TestGoat to say
		}
		names := []string{path}
		for _, a := range cmd.Aliases {
			names = append(names, strings.TrimSpace(path[:strings.LastIndexByte(" "+path, ' ')]+a))
		}
		var by []string
		for _, script := range slices.Sorted(maps.Keys(scripts)) {
			if slices.ContainsFunc(scripts[script], func(line string) bool {
				return slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(line, n+" ") })
			}) {
				by = append(by, "`"+strings.TrimPrefix(script, "testdata/")+"`")
			}
		}
		if len(by) == 0 {
			t.Errorf("no script runs 'exec baro %s'", path)
		}
		var same, other []string
		for _, f := range strings.Fields(flags) {
			names, _, _ := strings.Cut(f, "[")
			if reason := different[path+" "+names]; reason != "" {
				other = append(other, "`"+names+"`: "+reason)
				continue
			}
			if goatFlag(cmd, strings.Split(names, "/"), nil) == "" {
				same = append(same, "`"+names+"`")
			}
			long := names[strings.LastIndex(names, "--")+2:]
			if _, never := cmd.Flag(long).Annotations[neverArgument]; never {
				other = append(other, "`"+names+"` comes from a variable or the configuration, since a secret is never an argument")
			}
			if how := changed[path+" "+names]; how != "" {
				other = append(other, "`"+names+"` "+how)
			}
		}
		line := fmt.Sprintf("| `%s` | %s | %s ", strings.Join(names, "`, `"), strings.Join(same, " "), strings.Join(other, "; "))
		fmt.Fprintf(&doc, "%s| %s |\n", line, strings.Join(by, " "))
		shown, ok := lines[line]
		if !ok {
			stale("%s has no row such as %s", name, line)
		}
		for _, script := range strings.Fields(strings.Trim(shown, "| ")) {
			if !slices.Contains(by, script) {
				stale("%s says that %s runs 'baro %s', and it doesn't", name, script, path)
			}
		}
		delete(lines, line)
	}
	seen := map[string]bool{}
	for _, g := range goat {
		cmd, why := goatCommand(g.command)
		if g.command == "" || why != "" || seen[cmd.CommandPath()] {
			continue
		}
		seen[cmd.CommandPath()] = true
		row(commandPath(cmd), g.flags)
	}
	for line := range lines {
		if strings.HasPrefix(line, "| `") {
			stale("%s has a row that is of no command of goat: %s", name, line)
		}
	}
	if *update {
		if err := os.WriteFile(name, []byte(doc.String()), 0o644); err != nil {
			t.Error(err)
		}
	} else if t.Failed() {
		t.Error("the page is written by 'go test ./cmd/baro -run TestGoatTable -update'")
	}
}

const parityHead = `# Commands of goat

Each command of goat has the same name here, and its flags do, with their variables: ` + "`--pds-host`, `--plc-host` and `--relay-host`" + `
are other names of ` + "`--pds`, `--plc` and `--relay`" + `. The third column says which flags are left out or changed, and why. The last one names the scripts
under ` + "`cmd/baro/testdata`" + ` that run the command to its end; this page is written by a test of ` + "`cmd/baro`" + ` from them and from a table of
goat's commands, and the test fails for a command that no script runs.

Goat loads ` + "`.env`" + ` by itself and keeps the password beside the session; neither is done here. Passwords and tokens are asked for, or come
from variables (` + "`GOAT_PASSWORD`, `ATP_PASSWORD`, `ATP_AUTH_PASSWORD`, `NEW_ACCOUNT_PASSWORD`, `ATP_AUTH_FACTOR_TOKEN`" + ` after those of
baro) or standard input.

| command | flags | left out or changed | shown by |
|---|---|---|---|
`
