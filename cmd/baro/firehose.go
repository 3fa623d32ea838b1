package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/data"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

type firehoseFlags struct {
	networkFlags
	verify, basic, sig, mst bool
	strict                  bool
	collections             []string
	dids                    []string
	accounts                bool
	ops                     bool
	blocks                  bool
	noRecords               bool
	quiet                   bool
	labels                  string
	cursor                  int64
	cursorFile              string
	limit                   int
}

func newFirehose(e *env) *cobra.Command {
	var f firehoseFlags
	cmd := &cobra.Command{
		Use:   "firehose",
		Short: "Follow what happens in the network, as JSON lines",
		Long: "Prints every event of a relay, or of a PDS, as one line of JSON: commits with their records, and changes of identities\n" +
			"and accounts. It goes on until Ctrl-C, or until --limit lines; a lost connection is taken up again where it ended, and\n" +
			"with --cursor-file so is the next run. On a terminal, standard error shows how many events come and how late they are,\n" +
			"if their lines go elsewhere.\n\n" +
			"With --verify every commit is checked on this machine as a receiver should: hashes, signature with the key of the DID\n" +
			"document, the tree against what the commit says has changed, and its place after the one before. Each line then says\n" +
			"\"verified\" true or false, and why not; a failed check makes the exit code 3, and with --strict it ends the stream.\n" +
			"--verify-basic, --verify-sig and --verify-mst are parts of that: form and hashes, the signature, the tree and the chain.\n\n" +
			"With --labels it is the labels of a labeler that are printed, one a line.",
		Example: "  baro firehose --limit 10\n" +
			"  baro firehose --verify --collection app.bsky.feed.post --ops | jq -r .record.text\n" +
			"  baro firehose --collection 'app.bsky.graph.*' --did did:plc:ewvi7nxzyoun6zhxrhs64oiz --cursor 0\n" +
			"  baro firehose --verify --quiet --cursor-file place --relay https://relay.example.com\n" +
			"  baro firehose --labels labels.example.com --verify --cursor 0",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return advise(e.firehose(cmd.Context(), f, cmd.Flags().Changed("cursor") || f.cursor >= 0))
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.verify, "verify", false, "check every commit, or label")
	fl.BoolVar(&f.basic, "verify-basic", false, "check form, limits and hashes of every commit")
	fl.BoolVar(&f.sig, "verify-sig", false, "check the signature of every commit, or label")
	fl.BoolVar(&f.mst, "verify-mst", false, "check the tree and the chain of every commit, by undoing what it says it has changed")
	fl.BoolVar(&f.strict, "strict", false, "with one of --verify…, end at the first failed check")
	fl.StringSliceVarP(&f.collections, "collection", "c", nil, "only commits with a change in this collection, or in those of a prefix such as app.bsky.feed.*; may be repeated")
	fl.StringSliceVar(&f.dids, "did", nil, "only events of this account, a DID or a handle; may be repeated")
	fl.BoolVar(&f.accounts, "account-events", false, "only changes of identities and accounts")
	fl.BoolVar(&f.ops, "ops", false, "a line for each change of a record, instead of one for each event")
	alsoNamed(fl, "ops", "records")
	fl.BoolVar(&f.blocks, "blocks", false, "show the blocks of commits, as base64")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "print no lines: for checks, and to see how much comes")
	fl.StringVar(&f.labels, "labels", "", "follow the labels of this labeler, a handle, a DID or the URL of its service")
	fl.Int64Var(&f.cursor, "cursor", -1, "go on after the event with this number; 0: from the oldest that is kept (default: from now on)")
	fl.StringVar(&f.cursorFile, "cursor-file", "", "go on where the run that wrote this file ended, and keep the place in it; --cursor is for the first run")
	fl.IntVar(&f.limit, "limit", 0, "stop after so many lines; 0: never")
	fl.BoolVar(&f.noRecords, "no-records", false, "leave the records out")
	f.add(fl, true)
	return cmd
}

// eventLine is one line of output. Fields that an event doesn't have are left out.
type eventLine struct {
	Seq     int64    `json:"seq"`
	Kind    string   `json:"kind"`
	DID     string   `json:"did,omitempty"`
	Time    string   `json:"time,omitempty"`
	Rev     string   `json:"rev,omitempty"`
	Since   string   `json:"since,omitempty"`
	Commit  string   `json:"commit,omitempty"`
	Ops     []opLine `json:"ops,omitempty"`
	Blocks  []byte   `json:"blocks,omitempty"`
	Handle  string   `json:"handle,omitempty"`
	Active  *bool    `json:"active,omitempty"`
	Status  string   `json:"status,omitempty"`
	Name    string   `json:"name,omitempty"`
	Message string   `json:"message,omitempty"`
	verdict
}

// verdict is the outcome of the checks.
type verdict struct {
	Verified *bool  `json:"verified,omitempty"`
	Reason   string `json:"reason,omitempty"` // of a failed check
	Error    string `json:"error,omitempty"`
}

type opLine struct {
	Action string   `json:"action"`
	Path   string   `json:"path"`
	CID    string   `json:"cid,omitempty"`
	Prev   string   `json:"prev,omitempty"`
	Record data.Raw `json:"record,omitempty"`
}

// opEvent is a line of --ops.
type opEvent struct {
	Seq  int64  `json:"seq"`
	DID  string `json:"did"`
	Time string `json:"time"`
	Rev  string `json:"rev"`
	opLine
	verdict
}

// The parts of a verification, in the order in which they are made.
const (
	partBasic = iota + 1
	partSig
	partMST
)

// parts returns the last part that is wanted, 0 if none is.
func (f *firehoseFlags) parts() int {
	switch {
	case f.verify, f.mst:
		return partMST
	case f.sig:
		return partSig
	case f.basic:
		return partBasic
	}
	return 0
}

// partOf returns the part that a problem was found in.
func partOf(p *stream.Problem) int {
	switch r := p.Reason(); {
	case p.Kind == stream.ProblemIdentity, r == repo.ReasonNoKey, r == repo.ReasonSignatureSize, r == repo.ReasonHighS, r == repo.ReasonSignature:
		return partSig
	case p.Kind == stream.ProblemGap, r.Tree(), r == repo.ReasonMissingNode, r == repo.ReasonOpMismatch, r == repo.ReasonInversion:
		return partMST
	}
	return partBasic
}

func (f *firehoseFlags) check() error {
	switch {
	case f.limit < 0:
		return usagef("--limit %d: want 0 or more", f.limit)
	case f.cursor < -1:
		return usagef("--cursor %d: want 0 or more", f.cursor)
	case f.strict && f.parts() == 0:
		return usagef("--strict takes --verify, or one of its parts")
	case f.labels != "" && (len(f.collections) > 0 || f.accounts || f.ops || f.blocks || f.basic || f.mst || f.noRecords):
		return usagef("--labels takes none of the flags that are about commits")
	case f.accounts && (f.ops || f.blocks || len(f.collections) > 0):
		return usagef("--account-events leaves out the commits that --collection, --ops and --blocks are about")
	}
	_, err := stream.NewFilter(f.collections...)
	if err != nil {
		return usagef("--collection: %w", err)
	}
	return nil
}

// networkKeys finds keys in any of the networks.
type networkKeys struct{ ns *networks }

func (k networkKeys) Key(ctx context.Context, did syntax.DID, fragment string, fresh bool) (key *keys.PublicKey, err error) {
	for _, n := range k.ns.list {
		if key, err = n.dir.Key(ctx, did, fragment, fresh); err == nil {
			break
		}
	}
	return key, err
}

func (k networkKeys) Purge(did syntax.DID) {
	for _, n := range k.ns.list {
		n.dir.Purge(did)
	}
}

// firstAttempts is how many connections may fail before there has been any; a stream that was there is waited for.
const firstAttempts = 3

// follower is a run of the command.
type follower struct {
	*env
	f             firehoseFlags
	host          string // the service whose stream it is
	place         *place
	saved         int64
	meter         *meter
	w             *promptWriter
	lines, failed int
	giveUp        context.CancelCauseFunc
}

func (e *env) firehose(ctx context.Context, f firehoseFlags, hasCursor bool) error {
	if err := f.check(); err != nil {
		return err
	}
	var ids []syntax.AtIdentifier
	for _, d := range f.dids {
		id, err := parseAccount(d)
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	ns, err := e.networks(ctx, f.networkFlags)
	if err != nil {
		return err
	}
	var dids []syntax.DID
	for _, id := range ids {
		did := id.DID()
		if !id.IsDID() { // looked up once: it is the account that is followed
			a, err := ns.lookup(ctx, id)
			if err != nil {
				return err
			}
			did = a.DID
		}
		dids = append(dids, did)
	}
	n := ns.list[0]
	host, nsid := n.relay, stream.SubscribeRepos
	if f.labels != "" {
		if n, host, err = ns.labeler(ctx, f.labels); err != nil {
			return err
		}
		nsid = stream.SubscribeLabels
	}
	after, pl, err := openPlace(f.cursorFile, host, nsid)
	if err != nil {
		return err
	}
	if after == nil && hasCursor && f.cursor >= 0 {
		after = &f.cursor
	}
	w := newPromptWriter(e.stdout)
	defer w.Flush()
	out := *e
	out.stdout = w
	r := &follower{env: &out, f: f, host: host, place: pl, w: w, meter: e.meter(f.quiet)}
	defer r.meter.done()
	outer := ctx
	ctx, r.giveUp = context.WithCancelCause(ctx)
	defer r.giveUp(nil)
	if f.labels != "" {
		err = r.followLabels(ctx, ns, n, dids, after)
	} else {
		err = r.followRepos(ctx, ns, n, dids, after)
	}
	if cause := context.Cause(ctx); outer.Err() == nil && cause != nil {
		return cause
	}
	if outer.Err() != nil { // somebody has stopped it
		err = nil
	}
	if err = errors.Join(err, w.Flush()); err != nil {
		return err
	}
	if r.failed > 0 {
		return notVerified(fmt.Errorf("%d of %d events failed a check", r.failed, r.lines))
	}
	return nil
}

// connect says how to connect.
func (r *follower) connect(n *network) stream.SubscribeOptions {
	connected, attempts := false, 0
	return stream.SubscribeOptions{
		DialOptions: stream.DialOptions{NetDialContext: n.guard.DialContext, Header: map[string][]string{"User-Agent": {userAgent}}},
		OnConnect:   func() { connected = true; r.log.Info("connected", "host", r.host) },
		OnDisconnect: func(err error, wait time.Duration) {
			if attempts++; !connected && attempts == firstAttempts {
				if err = fmt.Errorf("there is no stream at %s: %w", r.host, err); !errors.Is(err, syscall.ECONNREFUSED) { // advise says what that means
					err = withHint(err, "is this machine online? A local network is started with 'baro up'")
				}
				r.giveUp(err)
				return
			}
			r.meter.say(fmt.Sprintf("baro: the stream of %s ended, next attempt in %s: %s", r.host, wait.Round(time.Millisecond), inert(err.Error())))
		},
	}
}

// saveCursor keeps the place, once all lines before it are out.
func (r *follower) saveCursor(seq int64) {
	if r.place == nil || seq <= r.saved {
		return
	}
	r.saved = seq
	if err := errors.Join(r.w.Flush(), r.place.save(seq)); err != nil {
		r.giveUp(err)
	}
}

// print prints a line, if lines are wanted, and reports whether it was the last one.
func (r *follower) print(line any) (last bool, err error) {
	if !r.f.quiet {
		if err := r.printJSON(line); err != nil {
			return true, err
		}
	}
	r.lines++
	return r.lines == r.f.limit, nil
}

func (r *follower) followRepos(ctx context.Context, ns *networks, n *network, dids []syntax.DID, after *int64) error {
	parts := r.f.parts()
	filter, err := stream.NewFilter(r.f.collections...)
	if err != nil {
		return err
	}
	o := &stream.Options{
		Keys: networkKeys{ns}, Unverified: parts == 0, SkipSignature: parts > 0 && !r.f.verify && !r.f.sig,
		After: after, Collections: r.f.collections, DIDs: dids, OnCursor: r.saveCursor, CursorEvery: time.Second,
		Connect: r.connect(n), Now: r.world.Clock.Now,
	}
	for ev, err := range stream.Repos(ctx, r.host, o) {
		if err != nil {
			return err
		}
		if ev.Message == nil && ev.Seq == 0 || !r.wants(&ev, filter) {
			continue
		}
		line := r.eventLine(&ev, filter)
		r.meter.count(line.Time)
		verr := r.judge(&ev, &line)
		lines := []any{line}
		if r.f.ops {
			lines = lines[:0]
			for _, op := range line.Ops {
				lines = append(lines, opEvent{Seq: line.Seq, DID: line.DID, Time: line.Time, Rev: line.Rev, opLine: op, verdict: line.verdict})
			}
		}
		last, whole := false, true
		for i, l := range lines {
			if last, err = r.print(l); err != nil {
				return err
			}
			if last {
				whole = i == len(lines)-1
				break
			}
		}
		if verr != nil && r.f.strict {
			return errors.Join(r.w.Flush(), notVerified(fmt.Errorf("event %d of %s: %w", line.Seq, line.DID, verr)))
		}
		if last {
			if whole { // or the next run would leave out the rest of it
				r.saveCursor(ev.Cursor)
			}
			return nil
		}
	}
	return nil
}

// wants reports whether an event is to be printed.
func (r *follower) wants(ev *stream.RepoEvent, filter *stream.Filter) bool {
	switch ev.Message.(type) {
	case *stream.Commit:
		return !r.f.accounts
	case *stream.Identity, *stream.Account:
		return filter.All() && !r.f.ops
	case nil: // it can't be read
		return true
	case *stream.Info:
		return filter.All() && len(r.f.dids) == 0 && !r.f.ops && !r.f.accounts
	}
	return filter.All() && !r.f.ops && !r.f.accounts
}

// judge puts the outcome of the checks into the line, and returns the error that counts.
func (r *follower) judge(ev *stream.RepoEvent, line *eventLine) error {
	p, parts := ev.Problem, r.f.parts()
	if _, ok := ev.Message.(*stream.Sync); ok && p != nil && p.Kind == stream.ProblemGap {
		p = nil // that there was a gap is what a #sync says
	}
	if p != nil && parts > 0 && partOf(p) > parts {
		p = nil // nobody asked
	}
	switch ev.Message.(type) {
	case *stream.Commit, *stream.Sync:
		if parts > 0 {
			line.Verified = new(p == nil)
		}
	}
	if p == nil || p.Seq == 0 {
		return nil
	}
	err := p.Err
	line.Error = err.Error()
	line.Reason = string(p.Reason())
	if line.Reason == "" && parts > 0 {
		line.Reason = string(p.Kind)
	}
	line.Ops = withoutRecords(line.Ops)
	if parts == 0 {
		return nil
	}
	r.failed++
	return err
}

// eventLine turns an event into a line. Of a commit only the changes that the filter wants are shown.
func (r *follower) eventLine(ev *stream.RepoEvent, filter *stream.Filter) eventLine {
	l := eventLine{Seq: ev.Seq, Kind: "malformed", DID: string(ev.DID)}
	if ev.Message != nil {
		l.Kind = strings.TrimPrefix(ev.Message.FrameType(), "#")
	}
	switch m := ev.Message.(type) {
	case *stream.Commit:
		l.Time, l.Rev, l.Since, l.Commit = m.Time, m.Rev, m.Since, m.Commit.String()
		if r.f.blocks {
			l.Blocks = m.Blocks
		}
		records := ev.Records // in the order of the operations, but for those that were left out
		for _, op := range m.Ops {
			if !filter.Path(op.Path) {
				continue
			}
			o := opLine{Action: op.Action, Path: op.Path}
			if op.Prev.Defined() {
				o.Prev = op.Prev.String()
			}
			if op.CID.Defined() {
				o.CID = op.CID.String()
			}
			if len(records) > 0 && op.Path == string(records[0].Collection)+"/"+string(records[0].RecordKey) {
				if b := records[0].Record; b != nil && !r.f.noRecords {
					if _, err := data.AppendJSON(nil, b); err == nil {
						o.Record = b
					}
				}
				records = records[1:]
			}
			l.Ops = append(l.Ops, o)
		}
	case *stream.Sync:
		l.Time, l.Rev = m.Time, m.Rev
		if r.f.blocks {
			l.Blocks = m.Blocks
		}
	case *stream.Identity:
		l.Time, l.Handle = m.Time, m.Handle
	case *stream.Account:
		l.Time, l.Active, l.Status = m.Time, &m.Active, m.Status
	case *stream.Info:
		l.Name, l.Message = m.Name, m.Text
	}
	return l
}

// withoutRecords takes out what has not been shown to be anybody's.
func withoutRecords(ops []opLine) []opLine {
	for i := range ops {
		ops[i].Record = nil
	}
	return ops
}
