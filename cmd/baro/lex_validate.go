package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/identity/lexres"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/lexicons"
	"github.com/barograph/baro/syntax"
)

type validateFlags struct {
	lexFlags
	catalog       string
	legacyBlobs   bool
	offline       bool
	ignoreUnknown bool
	collection    string
}

func newLexValidate(e *env) *cobra.Command {
	var f validateFlags
	cmd := &cobra.Command{
		Use:   "validate AT-URI|FILE|ACCOUNT|-",
		Short: "Validate records against their schemas",
		Long: "Holds records against their schemas: one by its URI, one in a file of JSON or on standard input (-), a collection, a\n" +
			"CAR file, or the whole repository of an account. Schemas are those of --catalog, or of the folder of schemas; those that\n" +
			"come with this program; and those that are published, verified.\n\n" +
			"Records that break a rule are printed with path and rule, and the exit code is 1. So it is for records whose schema\n" +
			"nobody knows, unless --ignore-unknown is given.",
		Example: "  baro lex validate at://alice.test/test.alice.note/3l6oveex3ii2l\n" +
			"  baro lex validate note.json --catalog lexicons --offline\n" +
			"  baro lex validate backup.car --ignore-unknown --json\n" +
			"  jq .value record.json | baro lex validate -",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return lexError(e.lexValidate(cmd.Context(), args[0], f))
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.catalog, "catalog", "c", "", "folder of schemas to validate with, in place of --lexicons-dir")
	fl.BoolVar(&f.legacyBlobs, "allow-legacy-blob", false, "accept blobs in their old form")
	fl.BoolVar(&f.ignoreUnknown, "ignore-unknown", false, "pass over records whose schema nobody knows")
	fl.BoolVar(&f.offline, "offline", false, "ask nobody for schemas")
	fl.StringVar(&f.collection, "collection", "", "validate the records of this collection only")
	f.addDir(fl)
	f.addNetwork(fl)
	return cmd
}

// lexCatalog finds schemas in files, among those of this program, and in the network.
type lexCatalog struct {
	ctx context.Context
	e   *env
	f   lexFlags

	mu   sync.Mutex
	own  map[syntax.NSID]*lexicon.Schema
	net  *lexNetwork // made when it is needed first
	bad  map[syntax.NSID]error
	done map[syntax.NSID]error // what could not be had, so that it isn't asked for again

	offline bool
}

// emptyLexCatalog has no files.
func (e *env) emptyLexCatalog(ctx context.Context, offline bool, f lexFlags) *lexCatalog {
	return &lexCatalog{
		ctx: ctx, e: e, f: f, own: map[syntax.NSID]*lexicon.Schema{}, bad: map[syntax.NSID]error{}, done: map[syntax.NSID]error{}, offline: offline,
	}
}

// add puts files above all others.
func (c *lexCatalog) add(files []*lexFile) {
	for _, f := range files {
		if f.Schema != nil {
			c.own[f.Schema.ID.Normalize()] = f.Schema
		}
	}
}

// network is made when it is needed first.
func (c *lexCatalog) network() (*lexNetwork, error) {
	if c.net == nil {
		n, err := c.e.lexNetwork(c.ctx, c.f)
		if err != nil {
			return nil, err
		}
		c.net = n
	}
	return c.net, nil
}

// newLexCatalog reads the schema files of a folder; one that isn't there has none, unless it must be.
func (e *env) newLexCatalog(ctx context.Context, dir string, must, offline bool, f lexFlags) (*lexCatalog, error) {
	c := e.emptyLexCatalog(ctx, offline, f)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) && !must {
		return c, nil
	}
	files, err := lexFiles([]string{dir}, dir)
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		if id := file.id(dir); file.Err != nil && id != "" {
			c.bad[id] = fmt.Errorf("%s: %w", file.Path, file.Err)
		} else if file.Schema != nil {
			c.own[id.Normalize()] = file.Schema
		}
	}
	return c, nil
}

// Lookup implements [lexicon.Source]: it finds a schema in a file first, then among those of this program, and then in the network.
func (c *lexCatalog) Lookup(id syntax.NSID) (*lexicon.Schema, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id = id.Normalize()
	if s := c.own[id]; s != nil {
		return s, nil
	}
	if err := c.bad[id]; err != nil {
		return nil, err
	}
	if b, err := lexicons.Schema(string(id)); err == nil {
		s, err := lexicon.ParseSchema(b)
		if err == nil {
			c.own[id] = s
		}
		return s, err
	}
	if c.offline {
		return nil, fmt.Errorf("%w: there is no file of %s", lexicon.ErrUnknownSchema, id)
	}
	if err := c.done[id]; err != nil {
		return nil, err
	}
	s, err := c.resolve(id)
	if err != nil {
		c.done[id] = err
		return nil, err
	}
	c.own[id] = s
	return s, nil
}

func (c *lexCatalog) resolve(id syntax.NSID) (*lexicon.Schema, error) {
	l, err := c.network()
	if err != nil {
		return nil, err
	}
	n, err := l.of(id)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", lexicon.ErrUnknownSchema, err)
	}
	return l.resolver(n).Source(c.ctx).Lookup(id)
}

// validation is what came of a record.
type validation struct {
	Record   *lexRecord
	Status   string // valid, invalid, unknown
	Findings []finding
	Err      error
}

type finding struct {
	Path   string `json:"path"`
	Rule   string `json:"rule"`
	Detail string `json:"message"`
}

const (
	recordValid   = "valid"
	recordInvalid = "invalid"
	recordUnknown = "unknown"
)

// maxFindings is how many are told of one record.
const maxFindings = 20

func validateWith(c *lexicon.Catalog, r *lexRecord) *validation {
	v := &validation{Record: r, Status: recordInvalid}
	add := func(path, rule, detail string) { v.Findings = append(v.Findings, finding{path, rule, detail}) }
	switch {
	case r.Err != nil:
		add("", string(lexicon.RuleEncoding), r.Err.Error())
		return v
	case r.Type == "":
		add("$type", string(lexicon.RuleTypeField), "it has no $type, so there is nothing to hold it against")
		return v
	case !syntax.ValidNSID(r.Type):
		add("$type", string(lexicon.RuleTypeField), fmt.Sprintf("%.80q is not an NSID", string(r.Type)))
		return v
	}
	v.Err = c.ValidateRecord(r.Type, r.Value)
	if v.Err == nil && r.Key != "" {
		v.Err = c.ValidateRecordKey(r.Type, r.Key)
	}
	if v.Err == nil {
		v.Status = recordValid
		return v
	}
	found := lexicon.Findings(v.Err)
	for _, x := range found {
		detail := x.Detail
		if x.Err != nil {
			detail += ": " + x.Err.Error()
		}
		add(x.Path, string(x.Rule), detail)
	}
	if found == nil {
		v.Status = recordUnknown
		add("", "schema", v.Err.Error())
	}
	return v
}

func (e *env) lexValidate(ctx context.Context, arg string, f validateFlags) error {
	var collection syntax.NSID
	if f.collection != "" {
		var err error
		if collection, err = parseNSID(f.collection); err != nil {
			return err
		}
	}
	dir, must := f.dir, f.catalog != ""
	if must {
		dir = f.catalog
	}
	schemas, err := e.newLexCatalog(ctx, dir, must, f.offline, f.lexFlags)
	if err != nil {
		return err
	}
	catalog := lexicon.NewResolvingCatalog(schemas.Lookup).With(lexicon.Options{AllowLegacyBlobs: f.legacyBlobs, Findings: maxFindings})

	w := bufio.NewWriterSize(e.stdout, 64<<10)
	out := *e
	out.stdout = w
	counts := map[string]int{}
	total := 0
	var unreachable error
	for r, err := range e.lexRecords(ctx, arg, collection, f.networkFlags, f.offline) {
		if err != nil {
			return errors.Join(err, w.Flush())
		}
		v := validateWith(catalog, r)
		total++
		counts[v.Status]++
		if v.Status == recordUnknown && !errors.Is(v.Err, lexicon.ErrUnknownSchema) && lexres.KindOf(v.Err) != "" {
			unreachable = v.Err
		}
		if err := out.printValidation(v); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if total != 1 {
		fmt.Fprintf(e.stderr, "%d records: %d valid, %d invalid, %d of unknown schemas\n", total, counts[recordValid], counts[recordInvalid], counts[recordUnknown])
	}
	switch bad := counts[recordInvalid]; {
	case bad > 0 && total == 1:
		return errors.New("the record is not valid")
	case bad > 0:
		return fmt.Errorf("%d of %d records are not valid", bad, total)
	case counts[recordUnknown] > 0 && !f.ignoreUnknown:
		err := fmt.Errorf("there is no schema to hold %d of %d records against", counts[recordUnknown], total)
		if unreachable != nil {
			return fmt.Errorf("%w: %w", err, unreachable)
		}
		return withHint(err, "--ignore-unknown passes over them")
	}
	return nil
}

func (e *env) printValidation(v *validation) error {
	if e.json {
		line := map[string]any{"record": v.Record.Name, "type": v.Record.Type, "status": v.Status}
		if len(v.Findings) > 0 {
			line["findings"] = v.Findings
		}
		return e.printJSON(line)
	}
	m := markOK
	switch v.Status {
	case recordInvalid:
		m = mark{"❌", "invalid"}
	case recordUnknown:
		m = mark{"🟠", "unknown"}
	}
	if _, err := fmt.Fprintf(e.stdout, "%s %s\n", e.show(m), inert(v.Record.Name)); err != nil {
		return err
	}
	for _, x := range v.Findings {
		at := x.Path
		if at == "" {
			at = "the record"
		}
		if _, err := fmt.Fprintf(e.stdout, "  %s: %s: %s\n", inert(at), x.Rule, inert(x.Detail)); err != nil {
			return err
		}
	}
	return nil
}
