package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

type firehoseFlags struct {
	networkFlags
	verify      bool
	strict      bool
	collections []string
	dids        []string
	cursor      int64
	limit       int
	noRecords   bool
}

func newFirehose(e *env) *cobra.Command {
	var f firehoseFlags
	cmd := &cobra.Command{
		Use:   "firehose",
		Short: "Follow what happens in the network, as JSON lines",
		Long: "Prints every event of a relay, or of a PDS, as one line of JSON: commits with their records, and changes of identities\n" +
			"and accounts. It goes on until Ctrl-C, or until --limit lines; a lost connection is taken up again where it ended.\n\n" +
			"With --verify every commit is checked on this machine as a receiver should: hashes, signature with the key of the DID\n" +
			"document, the tree against what the commit says has changed, and its place after the one before. Each line then says\n" +
			"\"verified\" true or false, and why not; a failed check makes the exit code 3, and with --strict it ends the stream.",
		Example: "  baro firehose --limit 10\n" +
			"  baro firehose --verify --collection app.bsky.feed.post | jq -r '.ops[].record.text'\n" +
			"  baro firehose --collection 'app.bsky.graph.*' --did did:plc:ewvi7nxzyoun6zhxrhs64oiz --cursor 0",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return advise(e.firehose(cmd.Context(), f, cmd.Flags().Changed("cursor") || f.cursor >= 0))
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.verify, "verify", false, "check every commit")
	fl.BoolVar(&f.strict, "strict", false, "with --verify, end at the first failed check")
	fl.StringSliceVar(&f.collections, "collection", nil, "only commits with a change in this collection, or in those of a prefix such as app.bsky.feed.*; may be repeated")
	fl.StringSliceVar(&f.dids, "did", nil, "only events of this account, a DID or a handle; may be repeated")
	fl.Int64Var(&f.cursor, "cursor", -1, "go on after the event with this number; 0: from the oldest that is kept (default: from now on)")
	fl.IntVar(&f.limit, "limit", 0, "stop after so many lines; 0: never")
	fl.BoolVar(&f.noRecords, "no-records", false, "leave the records out")
	f.add(fl, true)
	return cmd
}

// eventLine is one line of output. Fields that an event doesn't have are left out.
type eventLine struct {
	Seq      int64    `json:"seq"`
	Kind     string   `json:"kind"`
	DID      string   `json:"did,omitempty"`
	Time     string   `json:"time,omitempty"`
	Rev      string   `json:"rev,omitempty"`
	Since    string   `json:"since,omitempty"`
	Commit   string   `json:"commit,omitempty"`
	Ops      []opLine `json:"ops,omitempty"`
	Handle   string   `json:"handle,omitempty"`
	Active   *bool    `json:"active,omitempty"`
	Status   string   `json:"status,omitempty"`
	Name     string   `json:"name,omitempty"`
	Message  string   `json:"message,omitempty"`
	Verified *bool    `json:"verified,omitempty"`
	Reason   string   `json:"reason,omitempty"` // of a failed check
	Error    string   `json:"error,omitempty"`
}

type opLine struct {
	Action string   `json:"action"`
	Path   string   `json:"path"`
	CID    string   `json:"cid,omitempty"`
	Prev   string   `json:"prev,omitempty"`
	Record data.Raw `json:"record,omitempty"`
}

// eventFilter decides which events are printed.
type eventFilter struct {
	exact    map[string]bool
	prefixes []string
	dids     map[string]bool
}

func newEventFilter(collections []string) (*eventFilter, error) {
	f := &eventFilter{exact: map[string]bool{}, dids: map[string]bool{}}
	for _, c := range collections {
		if p, ok := strings.CutSuffix(c, "*"); ok && (p == "" || strings.HasSuffix(p, ".")) {
			f.prefixes = append(f.prefixes, p)
			continue
		}
		n, err := syntax.ParseNSID(c)
		if err != nil {
			return nil, usagef("--collection %q: want a collection such as app.bsky.feed.post, or a prefix such as app.bsky.*", c)
		}
		f.exact[string(n)] = true
	}
	return f, nil
}

// accounts adds the accounts whose events are wanted. A handle is looked up once: it is the account that is followed.
func (f *eventFilter) accounts(ctx context.Context, ns *networks, ids []syntax.AtIdentifier) error {
	for _, id := range ids {
		did := id.DID()
		if !id.IsDID() {
			a, err := ns.lookup(ctx, id)
			if err != nil {
				return err
			}
			did = a.DID
		}
		f.dids[string(did)] = true
	}
	return nil
}

func (f *eventFilter) path(p string) bool {
	if len(f.exact) == 0 && len(f.prefixes) == 0 {
		return true
	}
	c, _, _ := strings.Cut(p, "/")
	if f.exact[c] {
		return true
	}
	for _, p := range f.prefixes {
		if strings.HasPrefix(c, p) {
			return true
		}
	}
	return false
}

func (f *eventFilter) message(m stream.Message) bool {
	if len(f.dids) > 0 && !f.dids[m.Subject()] {
		return false
	}
	if len(f.exact) == 0 && len(f.prefixes) == 0 {
		return true
	}
	c, ok := m.(*stream.Commit)
	if !ok {
		return false
	}
	for _, op := range c.Ops {
		if f.path(op.Path) {
			return true
		}
	}
	return false
}

// firehoseJob is an event on its way: its key is being looked up while others are read.
type firehoseJob struct {
	msg   stream.Message
	frame int // bytes
	err   error
	key   chan keyAnswer // nil if none is needed
}

type keyAnswer struct {
	key *keys.PublicKey
	err error
}

// How far reading may be ahead of printing, and how many keys are looked up at once.
const (
	firehoseAhead   = 512
	firehoseLookups = 64
	firstAttempts   = 3 // connections that may fail before there has been any; a stream that was there is waited for
)

func (e *env) firehose(ctx context.Context, f firehoseFlags, hasCursor bool) error {
	filter, err := newEventFilter(f.collections)
	switch {
	case err != nil:
		return err
	case f.limit < 0:
		return usagef("--limit %d: want 0 or more", f.limit)
	case f.cursor < -1:
		return usagef("--cursor %d: want 0 or more", f.cursor)
	case f.strict && !f.verify:
		return usagef("--strict takes --verify")
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
	if err := filter.accounts(ctx, ns, ids); err != nil {
		return err
	}
	n := ns.list[0]
	outer := ctx
	ctx, giveUp := context.WithCancelCause(ctx)
	connected, attempts := false, 0 // as the goroutine that reads sees it
	o := stream.SubscribeOptions{
		DialOptions: stream.DialOptions{NetDialContext: n.guard.DialContext, Header: map[string][]string{"User-Agent": {userAgent}}},
		OnConnect:   func() { connected = true; e.log.Info("connected", "host", n.relay) },
		OnDisconnect: func(err error, wait time.Duration) {
			if attempts++; !connected && attempts == firstAttempts {
				giveUp(fmt.Errorf("there is no stream at %s: %w", n.relay, err))
				return
			}
			fmt.Fprintf(e.stderr, "baro: the stream of %s ended, next attempt in %s: %s\n", n.relay, wait.Round(time.Millisecond), inert(err.Error()))
		},
	}
	if hasCursor && f.cursor >= 0 {
		o.After = &f.cursor
	}

	jobs := make(chan *firehoseJob, firehoseAhead)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer giveUp(nil)
	wg.Go(func() {
		defer close(jobs)
		slots := make(chan struct{}, firehoseLookups)
		for fr, err := range stream.Subscribe(ctx, n.relay, o) {
			j := &firehoseJob{err: err, frame: len(fr.Raw)}
			if err == nil {
				j.msg, j.err = fr.Message()
			}
			if j.err == nil && j.msg == nil || j.err == nil && !filter.message(j.msg) {
				continue
			}
			if did := signedBy(j.msg); f.verify && j.err == nil && did != "" {
				j.key = make(chan keyAnswer, 1)
				select {
				case slots <- struct{}{}:
				case <-ctx.Done():
					return
				}
				wg.Go(func() {
					k, err := signingKey(ctx, ns, did, false)
					j.key <- keyAnswer{k, err}
					<-slots
				})
			}
			select {
			case jobs <- j:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	})

	w := bufio.NewWriterSize(e.stdout, 64<<10)
	defer w.Flush()
	out := *e
	out.stdout = w
	check := &chainCheck{e: e, ns: ns, states: map[string]repo.State{}}
	lines, failed := 0, 0
	for j := range jobs {
		if j.err != nil {
			if ctx.Err() != nil {
				break // somebody stopped it, or gave up: the cause says which
			}
			return j.err
		}
		line := e.eventLine(j.msg, filter, f.noRecords)
		if j.key != nil {
			verr := check.verify(ctx, j)
			if ctx.Err() != nil {
				break
			}
			line.Verified = new(verr == nil)
			if verr != nil {
				failed++
				line.Error = verr.Error()
				if v, ok := errors.AsType[*repo.VerifyError](verr); ok {
					line.Reason = string(v.Reason)
				}
				line.Ops = withoutRecords(line.Ops)
			}
			if verr != nil && f.strict {
				return errors.Join(out.printJSON(line), w.Flush(), notVerified(fmt.Errorf("event %d of %s: %w", line.Seq, line.DID, verr)))
			}
		}
		if err := out.printJSON(line); err != nil {
			return err
		}
		lines++
		if len(jobs) == 0 || lines == f.limit {
			if err := w.Flush(); err != nil {
				return err
			}
		}
		if lines == f.limit {
			break
		}
	}
	if err := context.Cause(ctx); outer.Err() == nil && err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) {
			return err // advise says what that means
		}
		return withHint(err, "is this machine online? A local network is started with 'baro up'")
	}
	if failed > 0 {
		return notVerified(fmt.Errorf("%d of %d events failed a check", failed, lines))
	}
	return nil
}

// signedBy returns the account whose signature a message carries, "" if it carries none.
func signedBy(m stream.Message) syntax.DID {
	switch m := m.(type) {
	case *stream.Commit:
		return syntax.DID(m.Repo)
	case *stream.Sync:
		return syntax.DID(m.DID)
	}
	return ""
}

// signingKey finds the key of an account in the networks.
func signingKey(ctx context.Context, ns *networks, did syntax.DID, fresh bool) (*keys.PublicKey, error) {
	if _, err := syntax.ParseDID(string(did)); err != nil {
		return nil, err
	}
	var last error
	for _, n := range ns.list {
		var doc *identity.Document
		var err error
		if fresh {
			doc, _, err = n.dir.Refresh(ctx, did)
		} else {
			doc, err = n.dir.ResolveDID(ctx, did)
		}
		if err == nil {
			if doc.SigningKey == nil {
				return nil, fmt.Errorf("the DID document of %s has no signing key", did)
			}
			return doc.SigningKey, nil
		}
		last = err
	}
	return nil, last
}

// chainCheck verifies commits, each after the one before it of its account.
type chainCheck struct {
	e      *env
	ns     *networks
	states map[string]repo.State
}

// maxStates is how many accounts are remembered. Of those that are forgotten the next commit is checked by itself.
const maxStates = 200_000

func (c *chainCheck) verify(ctx context.Context, j *firehoseJob) error {
	var a keyAnswer
	select {
	case a = <-j.key:
	case <-ctx.Done():
		return ctx.Err()
	}
	if a.err != nil {
		return fmt.Errorf("looking for the key: %w", a.err)
	}
	did := j.msg.Subject()
	st, err := c.one(j, a.key)
	if v, ok := errors.AsType[*repo.VerifyError](err); ok && v.Reason == repo.ReasonSignature {
		// The key may have changed a moment ago.
		if k, kerr := signingKey(ctx, c.ns, syntax.DID(did), true); kerr == nil && !k.Equal(a.key) {
			st, err = c.one(j, k)
		}
	}
	if err != nil {
		if v, ok := errors.AsType[*repo.VerifyError](err); ok && v.Reason.Desynchronizes() {
			delete(c.states, did) // the chain is taken up again with the next commit
		}
		return err
	}
	if len(c.states) >= maxStates {
		for k := range c.states { // any one
			delete(c.states, k)
			break
		}
	}
	c.states[did] = st
	return nil
}

func (c *chainCheck) one(j *firehoseJob, key *keys.PublicKey) (repo.State, error) {
	var prev *repo.State
	if s, ok := c.states[j.msg.Subject()]; ok {
		prev = &s
	}
	o := repo.VerifyOptions{Now: c.e.world.Clock.Now()}
	switch m := j.msg.(type) {
	case *stream.Sync:
		return repo.VerifySync(m.Verifiable(j.frame), key, prev, o)
	case *stream.Commit:
		return repo.VerifyCommit(m.Verifiable(j.frame), key, prev, o)
	}
	return repo.State{}, nil
}

// eventLine turns a message into a line. Of a commit only the changes that the filter wants are shown.
func (e *env) eventLine(m stream.Message, filter *eventFilter, noRecords bool) eventLine {
	l := eventLine{Seq: m.Sequence(), Kind: strings.TrimPrefix(m.FrameType(), "#"), DID: m.Subject()}
	switch m := m.(type) {
	case *stream.Commit:
		l.Time, l.Rev, l.Since, l.Commit = m.Time, m.Rev, m.Since, m.Commit.String()
		var blocks map[cid.CID][]byte
		if !noRecords {
			blocks = blocksOf(m.Blocks)
		}
		for _, op := range m.Ops {
			if !filter.path(op.Path) {
				continue
			}
			o := opLine{Action: op.Action, Path: op.Path}
			if op.Prev.Defined() {
				o.Prev = op.Prev.String()
			}
			if op.CID.Defined() {
				o.CID = op.CID.String()
				if b := blocks[op.CID]; b != nil {
					if _, err := data.AppendJSON(nil, b); err == nil {
						o.Record = b
					}
				}
			}
			l.Ops = append(l.Ops, o)
		}
	case *stream.Sync:
		l.Time, l.Rev = m.Time, m.Rev
	case *stream.Identity:
		l.Time, l.Handle = m.Time, m.Handle
	case *stream.Account:
		l.Time, l.Active, l.Status = m.Time, &m.Active, m.Status
	case *stream.Info:
		l.Name, l.Message = m.Name, m.Text
	}
	return l
}

// blocksOf returns the blocks of a commit that are what their CIDs say.
func blocksOf(b []byte) map[cid.CID][]byte {
	out := map[cid.CID][]byte{}
	_, blocks, err := car.Parse(b, car.Options{})
	if err != nil {
		return out
	}
	for blk, err := range blocks {
		if err != nil {
			break
		}
		out[blk.CID] = blk.Data
	}
	return out
}

// withoutRecords takes out what has not been shown to be anybody's.
func withoutRecords(ops []opLine) []opLine {
	for i := range ops {
		ops[i].Record = nil
	}
	return ops
}
