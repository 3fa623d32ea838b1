package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/barograph/baro/internal/httpd"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/internal/world"
)

// Exit codes of every command.
const (
	exitOK           = 0
	exitFailure      = 1
	exitUsage        = 2
	exitVerification = 3
)

// env is what a command is given. Its fields are complete when the command's RunE begins.
type env struct {
	stdin  io.Reader
	stdout io.Writer // data
	stderr io.Writer // progress, logs and errors

	json   bool         // --json: data for programs
	config *config      // where the values of the flags came from
	log    *slog.Logger // on stderr
	world  world.World  // the machine; its dialer refuses private addresses until told otherwise

	logLevel   string
	configFile string
	started    bool // RunE has begun: an error from now on is not one of usage
}

// exitError is an error with an exit code of its own.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// usagef is the error of a command line that makes no sense: exit code 2.
func usagef(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// notVerified marks err as a failed check: exit code 3.
func notVerified(err error) error { return &exitError{exitVerification, err} }

// failedCheck says whether an error is one of a failed check, as the exit code will be.
func failedCheck(err error) bool {
	coded, ok := errors.AsType[*exitError](advise(err))
	return ok && coded.code == exitVerification
}

// hintError is an error with advice for the person who reads it.
type hintError struct {
	err  error
	hint string
}

func (e *hintError) Error() string { return e.err.Error() + " (" + e.hint + ")" }
func (e *hintError) Unwrap() error { return e.err }

// withHint adds advice to an error; nil stays nil.
func withHint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &hintError{err, fmt.Sprintf(format, args...)}
}

// run runs baro and returns its exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	// The first signal asks to stop, the second one has its ordinary effect: it kills.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	e := &env{stdin: stdin, stdout: stdout, stderr: stderr}
	root := newRootFor(e)
	root.SetArgs(args)
	if len(args) == 0 {
		root.SetArgs([]string{}) // nil would mean those of the process
	}
	at, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	code := exitFailure
	var coded *exitError
	switch {
	case errors.As(err, &coded):
		code = coded.code
	case !e.started:
		code = exitUsage
	}
	msg := strings.TrimSpace(strings.NewReplacer("\n", " ", "\t", " ").Replace(explain(err).Error()))
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		msg = "interrupted"
	}
	fmt.Fprintf(stderr, "baro: %s\n", inert(msg)) // servers have a say in what their refusals say
	if code == exitUsage && coded == nil {
		fmt.Fprintf(stderr, "see '%s --help'\n", at.CommandPath())
	}
	return code
}

// explain adds a hint to errors of the machine that have none yet.
func explain(err error) error {
	var hinted *hintError
	var listen *httpd.ListenError
	var locked *kv.LockedError
	switch {
	case errors.As(err, &hinted), errors.As(err, &listen), errors.As(err, &locked):
		return err
	case errors.Is(err, syscall.ENOSPC):
		return withHint(err, "the disk is full: free some space or choose another folder")
	case errors.Is(err, os.ErrPermission):
		return withHint(err, "no permission: choose a folder you may write to")
	case errors.Is(err, syscall.EROFS):
		return withHint(err, "the file system is read-only: choose another folder")
	case errors.Is(err, syscall.ENOTDIR):
		return withHint(err, "a part of the path is a file")
	}
	return err
}

// logLevelVariables are those of goat.
var logLevelVariables = []string{"GOAT_LOG_LEVEL", "GO_LOG_LEVEL", "LOG_LEVEL"}

// newRoot makes the whole command tree over the standard streams, for tools that look at it.
func newRoot() *cobra.Command {
	return newRootFor(&env{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr})
}

func newRootFor(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:   "baro",
		Short: "The AT Protocol in one binary",
		Long: "baro brings up a whole local Atmosphere with 'baro up', runs each server of the network alone,\n" +
			"and reads, checks and writes repositories.",
		Version:       version().String(),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          group,
	}
	root.SetVersionTemplate("baro {{.Version}}\n")
	root.SetIn(e.stdin)
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	root.SetFlagErrorFunc(flagError)
	pf := root.PersistentFlags()
	pf.BoolVar(&e.json, "json", false, "print data as JSON")
	pf.StringVar(&e.logLevel, "log-level", "warn", "log to stderr from this level on: debug, info, warn or error")
	alsoVariable(pf, "log-level", logLevelVariables...)
	pf.StringVar(&e.configFile, "config", "", "configuration file (default: baro/baro.conf in the user's configuration folder)")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return e.prepare(cmd) }
	cobra.EnableCommandSorting = false // the help page has an order of its own
	for _, g := range groups {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title + ":"})
		for _, c := range g.commands {
			sub := c(e)
			sub.GroupID = g.title
			root.AddCommand(sub)
		}
	}
	last := groups[len(groups)-1].title
	root.SetHelpCommandGroupID(last)
	root.SetCompletionCommandGroupID(last)
	finish(root)
	return root
}

// finish gives the commands what they have in common.
func finish(c *cobra.Command) {
	if c.HasSubCommands() {
		if c.RunE == nil && c.Run == nil {
			c.RunE = group
		}
		c.SuggestionsMinimumDistance = 2
	}
	if c.Args == nil && c.RunE != nil {
		if c.HasSubCommands() {
			c.Args = noSuchCommand
		} else {
			c.Args = noArguments
		}
	} else if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return fmt.Errorf("got %s: want '%s'", count(len(args), "argument", "arguments"), cmd.UseLine())
			}
			return nil
		}
	}
	c.Flags().SortFlags = false
	answerToNames(c)
	for _, sub := range c.Commands() {
		finish(sub)
	}
}

// group is what a command does that only holds others: it shows them.
func group(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// noSuchCommand refuses arguments, so that a misspelt subcommand is told instead of being passed over.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	msg := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
	var elsewhere []string // commands of just that name in other groups
	for _, c := range tree(cmd.Root()) {
		if c.Runnable() && (c.Name() == args[0] || c.HasAlias(args[0])) {
			elsewhere = append(elsewhere, "'"+c.CommandPath()+"'")
		}
	}
	near := cmd.SuggestionsFor(args[0])
	if len(elsewhere) > 0 && len(elsewhere) <= 5 {
		near = elsewhere
	}
	if len(near) > 0 {
		msg += ": did you mean " + strings.Join(near, " or ") + "?"
	}
	return errors.New(msg)
}

// noArguments refuses arguments.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no arguments, and there is %q", cmd.CommandPath(), args[0])
	}
	return nil
}

// flagError words what is wrong with a flag for people.
func flagError(cmd *cobra.Command, err error) error {
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		// Goat has these, and they would be taken for a misspelt flag.
		if strings.HasSuffix(cmd.Long, aboutPasswords) && slices.Contains([]string{"p", "password", "app-password"}, unknown.GetSpecifiedName()) {
			return errors.New("others on this machine can see arguments: the password is asked for, or comes from " + passwordVariable + " or standard input")
		}
		names := map[string]bool{}
		eachSetting(cmd, func(f *pflag.Flag) { names["--"+f.Name] = true })
		return fmt.Errorf("%w%s", err, didYouMean("--"+unknown.GetSpecifiedName(), names))
	}
	if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		f := bad.GetFlag()
		return fmt.Errorf("--%s %q: %w", f.Name, bad.GetValue(), valueError(f, bad.Unwrap()))
	}
	return err
}

// valueError says which values a flag has, where the parser of the value speaks of itself.
func valueError(f *pflag.Flag, err error) error {
	switch f.Value.Type() {
	case "int", "int64":
		return errors.New("want a whole number")
	case "bool":
		return errors.New("want true or false")
	case "duration":
		return errors.New("want a duration, such as 90m or 72h")
	}
	return err
}

// prepare completes env before a command runs.
func (e *env) prepare(cmd *cobra.Command) error {
	for c := cmd; c != nil; c = c.Parent() {
		if n := c.Name(); n == "help" || n == "completion" || strings.HasPrefix(n, cobra.ShellCompRequestCmd) {
			return nil // must work whatever the configuration says
		}
	}
	cfg, err := loadConfig(cmd, e.configFile, os.Environ())
	if err != nil {
		return err
	}
	e.config = cfg
	if err := cfg.noSecretArguments(cmd); err != nil {
		return err
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(e.logLevel)); err != nil {
		if f := cmd.Flag("log-level"); !slices.Contains(logLevelVariables, cfg.origin[f]) { // which are for other programs too, with levels of theirs
			return fmt.Errorf("--log-level %q: want debug, info, warn or error", e.logLevel)
		}
		level = slog.LevelWarn
	}
	e.log = slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: level}))
	e.world = world.Real(e.log)
	e.started = true
	return nil
}
