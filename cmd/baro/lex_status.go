package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	"github.com/barograph/baro/data"
	"github.com/barograph/baro/identity/lexres"
	"github.com/barograph/baro/syntax"
)

func newLexStatus(e *env) *cobra.Command {
	var f lexFlags
	var check bool
	cmd := &cobra.Command{
		Use:   "status [FILE|FOLDER…]",
		Short: "Compare local schemas with published ones",
		Long: "Says of each local schema whether it is published as it is (same), in another version (differs) or not at all\n" +
			"(unpublished), and which published ones of the same groups have no file (remote-only). That a schema is not published is\n" +
			"proven too. With --check the exit code is 1 if anything differs.",
		Example: "  baro lex status\n  baro lex status lexicons/test/alice --json\n  baro lex status --check",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return lexError(e.lexStatus(cmd.Context(), args, check, f))
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "exit code 1 if anything differs")
	f.addDir(cmd.Flags())
	f.addNetwork(cmd.Flags())
	return cmd
}

// lexState is a local schema beside the published one.
type lexState struct {
	ID    syntax.NSID
	File  *lexFile           // nil: remote only
	Found *lexres.Resolution // nil: not published
	Mark  mark
	Err   error
}

// states compares local schemas with published ones, a few at a time, in the order of their names.
func (l *lexNetwork) states(ctx context.Context, files []*lexFile) []*lexState {
	states := make([]*lexState, len(files))
	var wg sync.WaitGroup
	free := make(chan struct{}, 8)
	for i, f := range files {
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			s := &lexState{ID: f.Schema.ID, File: f, Mark: markUnpublished}
			states[i] = s
			if s.Found, s.Err = l.published(ctx, s.ID); s.Err != nil {
				s.Mark = markError
				return
			}
			if s.Found == nil {
				return
			}
			same, err := samePublished(f.Schema, s.Found.CID)
			if s.Err = err; err != nil {
				s.Mark = markError
			} else if s.Mark = markDiffers; same {
				s.Mark = markSame
			}
		})
	}
	wg.Wait()
	return states
}

func (e *env) lexStatus(ctx context.Context, args []string, check bool, f lexFlags) error {
	files, err := lexSchemas(args, f.dir)
	if err != nil {
		return err
	}
	l, err := e.lexNetwork(ctx, f)
	if err != nil {
		return err
	}
	states := l.states(ctx, files)
	local, groups := map[syntax.NSID]bool{}, map[string]bool{}
	for _, s := range states {
		local[s.ID] = true
		if s.Err == nil {
			groups[s.ID.Prefix()] = true
		}
	}
	for _, g := range slices.Sorted(maps.Keys(groups)) {
		ids, err := l.list(ctx, g)
		if lexres.KindOf(err) == lexres.KindNoAuthority {
			continue
		}
		if err != nil {
			return err
		}
		for _, id := range ids {
			if !local[id] {
				states = append(states, &lexState{ID: id, Mark: markRemoteOnly})
			}
		}
	}
	slices.SortFunc(states, func(a, b *lexState) int { return strings.Compare(string(a.ID), string(b.ID)) })
	differ := 0
	var failed error
	for _, s := range states {
		if s.Mark != markSame {
			differ++
		}
		if s.Err != nil {
			failed = s.Err
			fmt.Fprintf(e.stderr, "baro: %s\n", inert(lexError(s.Err).Error()))
		}
		if e.json {
			line := map[string]any{"nsid": s.ID, "status": s.Mark.word}
			if s.File != nil {
				line["path"] = s.File.Path
			}
			if s.Found != nil {
				line["uri"], line["cid"] = s.Found.URI, s.Found.CID.String()
			}
			if s.Err != nil {
				line["error"] = s.Err.Error()
			}
			err = e.printJSON(line)
		} else {
			_, err = fmt.Fprintf(e.stdout, "%s %s\n", e.show(s.Mark), s.ID)
		}
		if err != nil {
			return err
		}
	}
	switch {
	case failed != nil:
		return fmt.Errorf("not all schemas could be compared: %w", failed)
	case check && differ > 0:
		return fmt.Errorf("%d of %d schemas are not as published", differ, len(states))
	}
	return nil
}

func newLexDiff(e *env) *cobra.Command {
	var f lexFlags
	cmd := &cobra.Command{
		Use:   "diff [FILE|FOLDER…]",
		Short: "Show how local schemas differ from published ones",
		Long: "Prints the differences between published schemas and local ones, as lines of their JSON in the usual order of fields, so\n" +
			"that only what was changed shows. With --json each difference is a path with the old and the new value.",
		Example: "  baro lex diff\n  baro lex diff lexicons/test/alice/note.json --json",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return lexError(e.lexDiff(cmd.Context(), args, f))
		},
	}
	f.addDir(cmd.Flags())
	f.addNetwork(cmd.Flags())
	return cmd
}

func (e *env) lexDiff(ctx context.Context, args []string, f lexFlags) error {
	files, err := lexSchemas(args, f.dir)
	if err != nil {
		return err
	}
	l, err := e.lexNetwork(ctx, f)
	if err != nil {
		return err
	}
	for _, s := range l.states(ctx, files) {
		if s.Err != nil {
			return s.Err
		}
		if s.Mark != markDiffers {
			continue
		}
		old, err := documentOf(s.Found.Schema)
		if err != nil {
			return err
		}
		new, err := documentOf(s.File.Schema)
		if err != nil {
			return err
		}
		if e.json {
			changes, err := jsonChanges(old, new)
			if err == nil {
				err = e.printJSON(map[string]any{"nsid": s.ID, "path": s.File.Path, "uri": s.Found.URI, "changes": changes})
			}
			if err != nil {
				return err
			}
			continue
		}
		a, err := prettySchema(old)
		if err != nil {
			return err
		}
		b, err := prettySchema(new)
		if err != nil {
			return err
		}
		if err := e.printDiff(diff.Diff(string(s.Found.URI), a, s.File.Path, b)); err != nil {
			return err
		}
	}
	return nil
}

// printDiff prints the lines of a diff, in colours on a terminal.
func (e *env) printDiff(d []byte) error {
	c := colorsOf(e.stdout)
	var out bytes.Buffer
	for line := range strings.Lines(string(d)) {
		line = strings.TrimSuffix(line, "\n")
		switch text := inert(line); {
		case strings.HasPrefix(line, "diff "):
			continue
		case strings.HasPrefix(line, "+"):
			out.WriteString(c.good(text) + "\n")
		case strings.HasPrefix(line, "-"):
			out.WriteString(c.bad(text) + "\n")
		case strings.HasPrefix(line, "@@"):
			out.WriteString(c.dim(text) + "\n")
		default:
			out.WriteString(text + "\n")
		}
	}
	_, err := e.stdout.Write(out.Bytes())
	return err
}

// jsonChange is a value that was added, removed or replaced.
type jsonChange struct {
	Op   string          `json:"op"` // add, remove, replace
	Path string          `json:"path"`
	Old  json.RawMessage `json:"old,omitempty"`
	New  json.RawMessage `json:"new,omitempty"`
}

// jsonChanges lists the differences of two values in DAG-CBOR.
func jsonChanges(old, new []byte) ([]jsonChange, error) {
	a, err := data.Decode(old)
	if err != nil {
		return nil, err
	}
	b, err := data.Decode(new)
	if err != nil {
		return nil, err
	}
	var out []jsonChange
	err = compareJSON("", a, b, &out)
	return out, err
}

func compareJSON(path string, a, b any, out *[]jsonChange) error {
	enc := func(v any) (json.RawMessage, error) {
		raw, err := data.Encode(v)
		if err != nil {
			return nil, err
		}
		return data.AppendJSON(nil, raw)
	}
	step := func(name string) string {
		if path == "" {
			return name
		}
		return path + "." + name
	}
	am, aok := a.(map[string]any)
	bm, bok := b.(map[string]any)
	if aok && bok {
		names := maps.Clone(am)
		maps.Copy(names, bm)
		for _, name := range slices.Sorted(maps.Keys(names)) {
			x, inA := am[name]
			y, inB := bm[name]
			var err error
			switch {
			case inA && inB:
				err = compareJSON(step(name), x, y, out)
			case inA:
				var v json.RawMessage
				v, err = enc(x)
				*out = append(*out, jsonChange{Op: "remove", Path: step(name), Old: v})
			default:
				var v json.RawMessage
				v, err = enc(y)
				*out = append(*out, jsonChange{Op: "add", Path: step(name), New: v})
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	al, aok := a.([]any)
	bl, bok := b.([]any)
	if aok && bok && len(al) == len(bl) {
		for i := range al {
			if err := compareJSON(path+"["+strconv.Itoa(i)+"]", al[i], bl[i], out); err != nil {
				return err
			}
		}
		return nil
	}
	x, err := enc(a)
	if err != nil {
		return err
	}
	y, err := enc(b)
	if err != nil {
		return err
	}
	if !bytes.Equal(x, y) {
		*out = append(*out, jsonChange{Op: "replace", Path: path, Old: x, New: y})
	}
	return nil
}
