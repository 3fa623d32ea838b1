package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// config tells where the value of each flag came from. A flag --port-base, a variable BARO_PORT_BASE and a key port-base of the
// configuration file are one and the same setting; the command line wins over the environment, and that over the file.
//
// The file holds lines `key = value`, comments that begin with #, and sections such as [pds] or [repo verify] whose keys are for that
// command only and win over those above all sections.
type config struct {
	file    string // "" if there is none
	top     map[string]entry
	section map[string]map[string]entry // by the path of the command, without "baro"
	env     map[string]string           // by key
	foreign map[string]string           // other variables, by name
	origin  map[*pflag.Flag]string
}

type entry struct {
	value string
	line  int
}

// foreignVariables is the annotation of a flag that variables of another tool set too, see [alsoVariable]. They come after a variable of
// this program and before the file.
const foreignVariables = "foreign-variables"

// otherNames is the annotation of a flag that answers to other names too, see [alsoNamed].
const otherNames = "other-names"

// alsoVariable lets a variable of another tool set a flag, where neither the command line nor a variable of this one does.
func alsoVariable(fl *pflag.FlagSet, flag string, names ...string) {
	f := fl.Lookup(flag)
	f.Usage += " [" + strings.Join(names, ", ") + "]"
	names = append(f.Annotations[foreignVariables], names...)
	_ = fl.SetAnnotation(flag, foreignVariables, names) // the flag is there: its usage was just changed
}

// alsoNamed has a flag answer to the names that it has in another tool, on the command line only: there it is the same flag.
func alsoNamed(fl *pflag.FlagSet, flag string, names ...string) {
	f := fl.Lookup(flag)
	f.Usage += " (also --" + strings.Join(names, ", --") + ")"
	_ = fl.SetAnnotation(flag, otherNames, names) // the flag is there: its usage was just changed
}

// neverArgument is the annotation of a flag whose value is secret, see [neverOnCommandLine].
const neverArgument = "never-argument"

// neverOnCommandLine has a flag that is there for the variables and keys that go with it refused on the command line, which others on the
// machine can see.
func neverOnCommandLine(fl *pflag.FlagSet, flags ...string) {
	for _, flag := range flags {
		f := fl.Lookup(flag)
		f.Usage += "; only in a variable or the configuration"
		_ = fl.SetAnnotation(flag, neverArgument, nil) // the flag is there: its usage was just changed
	}
}

// noSecretArguments refuses secrets on the command line.
func (c *config) noSecretArguments(cmd *cobra.Command) (err error) {
	eachSetting(cmd, func(f *pflag.Flag) {
		if _, never := f.Annotations[neverArgument]; !never || c.origin[f] != "flag" || err != nil {
			return
		}
		where := "put it into the variable " + envName(f.Name) + " or into the configuration"
		if cmd.Flag(f.Name+"-file") != nil {
			where += ", or name its file with --" + f.Name + "-file"
		}
		err = usagef("--%s: others on this machine can see arguments: %s", f.Name, where)
	})
	return err
}

// answerToNames gives the flags of a command the names of [alsoNamed]. A command that has a flag of such a name itself keeps it.
func answerToNames(c *cobra.Command) {
	other, own := map[string]string{}, map[string]bool{}
	eachSetting(c, func(f *pflag.Flag) {
		own[f.Name] = true
		for _, n := range f.Annotations[otherNames] {
			other[n] = f.Name
		}
	})
	for n := range own {
		delete(other, n)
	}
	if len(other) > 0 {
		c.Flags().SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
			if n, ok := other[name]; ok {
				name = n
			}
			return pflag.NormalizedName(name)
		})
	}
}

// Variables of this name that are no settings.
var otherVariables = []string{"BARO_FIXTURES", "BARO_CRASHPOINT", passwordVariable, tokenVariable, sessionVariable}

const envPrefix = "BARO_"

func envName(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, "-", "_"))
}

// secret says whether the value of a flag must not be shown.
func secret(f *pflag.Flag) bool {
	key := f.Name
	_, never := f.Annotations[neverArgument]
	return never || strings.HasSuffix(key, "password") || strings.HasSuffix(key, "token") || strings.HasSuffix(key, "secret")
}

// loadConfig reads the environment and the configuration file and sets the flags of cmd that the command line left alone.
func loadConfig(cmd *cobra.Command, file string, environ []string) (*config, error) {
	c := &config{env: map[string]string{}, foreign: map[string]string{}, top: map[string]entry{}, section: map[string]map[string]entry{}, origin: map[*pflag.Flag]string{}}
	known := settings(cmd.Root())
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		c.foreign[name] = value
		if !strings.HasPrefix(name, envPrefix) || slices.Contains(otherVariables, name) || strings.HasPrefix(name, envPrefix+"TEST_") {
			continue
		}
		key := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, envPrefix), "_", "-"))
		if _, ok := known[""][key]; !ok || envName(key) != name {
			return nil, fmt.Errorf("the variable %s is no setting%s", name, didYouMean(key, known[""]))
		}
		if value != "" { // an empty variable is one that is not set
			c.env[key] = value
		}
	}

	must := file != ""
	if !must {
		if file = c.env["config"]; file != "" {
			must = true
		} else if dir, err := os.UserConfigDir(); err == nil {
			file = filepath.Join(dir, "baro", "baro.conf")
		}
	}
	if file != "" {
		if err := c.read(file, known); err != nil && (must || !errors.Is(err, fs.ErrNotExist)) {
			return nil, err
		}
	}
	if err := c.apply(cmd); err != nil {
		return nil, err
	}
	return c, nil
}

// settings are the names of all flags, by the path of the command that has them; those under "" are of any command.
func settings(root *cobra.Command) map[string]map[string]bool {
	known := map[string]map[string]bool{"": {}}
	for _, c := range tree(root) {
		own := map[string]bool{}
		eachSetting(c, func(f *pflag.Flag) { own[f.Name] = true; known[""][f.Name] = true })
		if p := commandPath(c); p != "" {
			known[p] = own
		}
	}
	return known
}

func tree(c *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		all = append(all, tree(sub)...)
	}
	return all
}

func eachSetting(c *cobra.Command, f func(*pflag.Flag)) {
	visit := func(fl *pflag.Flag) {
		if fl.Name != "help" && fl.Name != "version" {
			f(fl)
		}
	}
	c.InheritedFlags().VisitAll(visit)
	c.LocalFlags().VisitAll(visit)
}

func commandPath(c *cobra.Command) string {
	_, p, _ := strings.Cut(c.CommandPath(), " ")
	return p
}

func (c *config) read(file string, known map[string]map[string]bool) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	defer f.Close()
	c.file = file
	into, keys := c.top, known[""]
	sc := bufio.NewScanner(f)
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		fail := func(format string, args ...any) error {
			return fmt.Errorf("%s:%d: %s", file, n, fmt.Sprintf(format, args...))
		}
		if line == "" || line[0] == '#' {
			continue
		}
		if line[0] == '[' {
			name, ok := strings.CutSuffix(line[1:], "]")
			name = strings.Join(strings.Fields(name), " ")
			if keys = known[name]; !ok || name == "" || keys == nil {
				return fail("%s: no such command", line)
			}
			if c.section[name] == nil {
				c.section[name] = map[string]entry{}
			}
			into = c.section[name]
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if !ok {
			return fail("want key = value")
		}
		if len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
			value = value[1 : len(value)-1]
		}
		if !keys[key] || key == "config" {
			return fail("unknown key %q%s", key, didYouMean(key, keys))
		}
		if old, dup := into[key]; dup {
			return fail("%q was set in line %d already", key, old.line)
		}
		into[key] = entry{value, n}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("reading the configuration %s: %w", file, err)
	}
	return nil
}

// apply sets the flags of a command.
func (c *config) apply(cmd *cobra.Command) error {
	var errs []error
	eachSetting(cmd, func(f *pflag.Flag) {
		if _, done := c.origin[f]; done {
			return
		}
		value, origin := c.find(commandPath(cmd), f)
		c.origin[f] = origin
		if origin == "flag" || origin == "default" {
			return
		}
		if err := f.Value.Set(value); err != nil {
			errs = append(errs, fmt.Errorf("%s: bad value %q for %s: %w", origin, value, f.Name, valueError(f, err)))
		}
	})
	return errors.Join(errs...)
}

// find returns the value of a flag and where it is from.
func (c *config) find(path string, f *pflag.Flag) (value, origin string) {
	if f.Changed {
		return f.Value.String(), "flag"
	}
	if v, ok := c.env[f.Name]; ok {
		return v, envName(f.Name)
	}
	for _, name := range f.Annotations[foreignVariables] {
		if v := c.foreign[name]; v != "" {
			return v, name
		}
	}
	if e, ok := c.section[path][f.Name]; ok {
		return e.value, fmt.Sprintf("%s:%d", c.file, e.line)
	}
	if e, ok := c.top[f.Name]; ok {
		return e.value, fmt.Sprintf("%s:%d", c.file, e.line)
	}
	return f.Value.String(), "default"
}

// given says whether somebody set a flag of cmd, in whatever way.
func (c *config) given(cmd *cobra.Command, name string) bool {
	f := cmd.Flags().Lookup(name)
	return f != nil && c.origin[f] != "default"
}

// didYouMean looks for a name that key may have been meant to be.
func didYouMean(key string, names map[string]bool) string {
	bare := func(s string) string { return strings.TrimLeft(s, "-") } // what all have in common says nothing
	key = bare(key)
	best, least := "", len(key)/2+1
	for name := range names {
		d := distance(key, bare(name))
		if len(key) > 2 && strings.HasPrefix(bare(name), key) {
			d = 0 // it was cut off
		}
		if d < least || d == least && name < best {
			best, least = name, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(": did you mean %s?", best)
}

// distance is the number of letters to put in, take out or change.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diag
			if a[i] != b[j] {
				d = 1 + min(diag, row[j], row[j+1])
			}
			diag, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}

func newConfig(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "config [COMMAND…]",
		Short: "Show the settings of the commands and where each comes from",
		Long: "Each flag is also a variable and a key of the configuration file: --port-base, BARO_PORT_BASE and port-base.\n" +
			"The command line wins over the environment, and that over the file. In the file, keys below a line such as\n" +
			"[pds] are for that command only. Unknown keys and variables are errors.",
		Example: "  baro config\n  baro config up\n  BARO_PORT_BASE=0 baro config up --json",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			from := root
			if len(args) > 0 {
				found, rest, err := root.Find(args)
				if err != nil || len(rest) > 0 {
					return usagef("there is no command %q", strings.Join(args, " "))
				}
				from = found
			}
			type row struct {
				Command string `json:"command,omitempty"`
				Key     string `json:"key"`
				Value   string `json:"value"`
				From    string `json:"from"`
			}
			var rows []row
			add := func(path string, f *pflag.Flag) {
				v, origin := e.config.find(path, f)
				if secret(f) && v != "" {
					v = "(hidden)"
				}
				rows = append(rows, row{path, f.Name, v, origin})
			}
			if from == root {
				root.PersistentFlags().VisitAll(func(f *pflag.Flag) { add("", f) })
			}
			for _, c := range tree(from) {
				if c.Name() == "help" || c.Name() == "completion" || c.HasParent() && c.Parent().Name() == "completion" {
					continue
				}
				if c == from && from != root {
					eachSetting(c, func(f *pflag.Flag) { add(commandPath(c), f) })
				} else if c != root {
					c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
						if f.Name != "help" {
							add(commandPath(c), f)
						}
					})
				}
			}
			if e.json {
				enc := json.NewEncoder(e.stdout)
				for _, r := range rows {
					if err := enc.Encode(r); err != nil {
						return err
					}
				}
				return nil
			}
			w := tabwriter.NewWriter(e.stdout, 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "COMMAND\tKEY\tVALUE\tFROM")
			for _, r := range rows {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.Command, r.Key, r.Value, r.From)
			}
			return w.Flush()
		},
	}
}
