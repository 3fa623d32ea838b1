package stream

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"sync"
	"time"

	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
)

// pipeline carries events from the goroutine that reads the stream, by way of those that verify, to the loop that wants
// them. Events wait in the lane of their account, which one worker serves at a time: that keeps their order.
type pipeline struct {
	o           Options
	open        source
	filter      *Filter
	dids        map[string]bool // nil: all
	recordsOnly bool
	labels      *labeling // nil: of repositories

	tracker *Tracker
	began   int64      // place before the first event that was handed out; the loop's
	ready   chan *lane // those with an event to verify. Each is in it once at the most, so that sending never waits
	out     outbox
	lookups chan struct{} // slots
	wg      sync.WaitGroup
	ended   chan struct{} // closed when the source has ended and everything is dealt with
	err     error         // then, why it ended

	mu    sync.Mutex // guards the two below, and lane.queue and lane.idle
	lanes map[syntax.DID]*lane
	idle  list.List // of lanes without events, the longest idle first
}

// lane is what is remembered of an account. But for what the pipeline's lock guards, it is its worker's.
type lane struct {
	did   syntax.DID
	queue []*job
	idle  *list.Element // its place in pipeline.idle, if the queue is empty

	key    *keys.PublicKey
	keyErr error
	keyAt  time.Time
	asked  bool // key, keyErr and keyAt are of use

	state   repo.State // after the last commit; Rev is empty if it isn't known
	claimed bool       // state is what a commit that wasn't verified says
	rev     syntax.TID // newest one that was verified
	gone    string     // status of an account that isn't active
	lost    bool       // with GapDrop: waiting for a #sync
}

// job is an event on its way.
type job struct {
	ev      RepoEvent
	track   *Tracked
	silent  bool // nobody wants to see it, unless it is found to have a problem
	link    bool // a commit of which only its place in the chain is of interest
	labels  []labelEvent
	checked chan struct{} // closed when the labels were looked at; nil if they need not be
	renewed bool          // the key was fetched again for it, because of:
	refused error
	tried   *keys.PublicKey
}

// How long a key is used without asking for it again: that costs next to nothing where it is cached, but not nothing.
const keyAge = time.Minute

func newPipeline(given *Options, open func(*Options) source) (*pipeline, error) {
	p := &pipeline{}
	if given != nil {
		p.o = *given
	}
	o := &p.o
	if o.Keys == nil && !o.Unverified && !o.SkipSignature {
		return nil, ErrNoKeys
	}
	var err error
	if p.filter, err = NewFilter(o.Collections...); err != nil {
		return nil, err
	}
	if o.DIDs != nil {
		p.dids = map[string]bool{}
		for _, d := range o.DIDs {
			if !syntax.ValidDID(d) {
				return nil, fmt.Errorf("%q is not a DID", d)
			}
			p.dids[string(d)] = true
		}
	}
	def(&o.CursorEvery, time.Second)
	def(&o.Workers, runtime.GOMAXPROCS(0))
	def(&o.Lookups, 64)
	def(&o.KeyPatience, 30*time.Second)
	def(&o.MaxQueue, 8192)
	def(&o.MaxBytes, 64<<20)
	def(&o.MaxAccounts, 100_000)
	if o.Now == nil {
		o.Now = time.Now
	}
	p.open = open(o)
	after := int64(0)
	if o.After != nil {
		after = *o.After
	}
	p.tracker = NewTracker(after, o.MaxQueue, o.MaxBytes)
	p.ready = make(chan *lane, o.MaxQueue+o.Workers)
	p.out.wake = make(chan struct{}, 1)
	p.lookups = make(chan struct{}, o.Lookups)
	p.ended = make(chan struct{})
	p.lanes = map[syntax.DID]*lane{}
	return p, nil
}

// events runs the pipeline for the duration of a loop.
func (p *pipeline) events(ctx context.Context) iter.Seq2[*job, error] {
	return func(yield func(*job, error) bool) {
		end := func(cursor int64, err error) { yield(&job{ev: RepoEvent{Cursor: cursor}}, err) }
		outer := ctx
		ctx, cancel := context.WithCancel(ctx)
		defer p.wg.Wait()
		defer cancel()
		work := p.work
		if p.labels != nil {
			work = p.labels.work
		}
		if !p.o.Unverified {
			for range p.o.Workers {
				p.wg.Go(func() { work(ctx) })
			}
		}
		p.wg.Go(func() { p.read(ctx) })
		told := p.tracker.Cursor()
		tell := func(seq int64) {
			if p.o.OnCursor != nil && seq > told {
				told = seq
				p.o.OnCursor(seq)
			}
		}
		tick := time.NewTicker(p.o.CursorEvery)
		defer tick.Stop()
		safe := told
		var batch []*job // what is to be handed out next
		for i := 0; ; i++ {
			for i == len(batch) {
				if batch, i = p.out.take(batch), 0; len(batch) > 0 {
					break
				}
				select {
				case <-p.out.wake:
				case <-tick.C:
					tell(p.tracker.Cursor())
				case <-p.ended: // and everything was handed out before
					tell(p.tracker.Cursor())
					if p.err != nil {
						end(p.tracker.Cursor(), p.err)
					}
					return
				case <-outer.Done():
					tell(safe)
					end(safe, outer.Err())
					return
				}
			}
			j := batch[i]
			batch[i] = nil
			if outer.Err() == nil && j.checked != nil {
				select {
				case <-j.checked:
				case <-outer.Done():
				}
			}
			if outer.Err() != nil {
				tell(safe)
				end(safe, outer.Err())
				return
			}
			if safe == 0 { // or who has no cursor yet would have to go back to the oldest event that the server keeps
				safe = p.tracker.Cursor()
				p.began = safe
			}
			j.ev.Cursor = p.tracker.Done(j.track)
			if p.o.Strict && j.ev.Problem != nil && j.ev.Problem.Seq != 0 {
				tell(safe)
				yield(j, j.ev.Problem)
				return
			}
			if !yield(j, nil) {
				tell(safe)
				return
			}
			safe = j.ev.Cursor
			select {
			case <-tick.C:
				tell(safe)
			default:
			}
		}
	}
}

// read takes frames from the source and gives them to their lanes.
func (p *pipeline) read(ctx context.Context) {
	ended := func(err error) {
		if ctx.Err() != nil {
			return
		}
		kind := ProblemDisconnected
		if errors.Is(err, ErrTooSlow) {
			kind = ProblemTooSlow
		}
		if track, terr := p.tracker.Add(ctx, 0, 0); terr == nil {
			p.out.put(&job{track: track, ev: RepoEvent{Problem: &Problem{Kind: kind, Err: err}}})
		}
	}
	for f, err := range p.open(ctx, ended) {
		if err != nil {
			p.err = err
			break
		}
		take := p.frame
		if p.labels != nil {
			take = p.labels.frame
		}
		if take(ctx, f) != nil {
			return
		}
	}
	if p.tracker.Drain(ctx) == nil {
		close(p.ended)
	}
}

// frame deals with one frame. It fails only when ctx has ended.
func (p *pipeline) frame(ctx context.Context, f Frame) error {
	if p.dids != nil && f.Type != TypeInfo && !p.dids[f.subject()] {
		p.tracker.Skip(f.Seq)
		return nil
	}
	m, err := f.Message()
	if m == nil && err == nil { // of a later version of the protocol
		p.tracker.Skip(f.Seq)
		return nil
	}
	j := &job{ev: RepoEvent{Seq: f.Seq, Message: m, Size: len(f.Raw)}}
	ev := &j.ev
	check := false // it goes through the lane of its account
	switch m := m.(type) {
	case nil:
		ev.DID = syntax.DID(f.subject())
		ev.Problem = &Problem{Kind: ProblemMalformed, Seq: f.Seq, DID: ev.DID, Err: err}
	case *Info:
		if m.Name == InfoOutdatedCursor {
			ev.Problem = &Problem{Kind: ProblemOutdated, Err: errors.New("events since the cursor are gone: " + m.Text)}
		}
		j.silent = p.recordsOnly
	default:
		did, err := syntax.ParseDID(m.Subject())
		if ev.DID = did; err != nil {
			ev.DID = syntax.DID(m.Subject())
			ev.Problem = &Problem{Kind: ProblemRejected, Seq: f.Seq, DID: ev.DID, Err: &repo.VerifyError{Reason: repo.ReasonDIDSyntax, Err: err}}
			break
		}
		c, ok := m.(*Commit)
		j.silent = p.recordsOnly && !ok
		wanted := !ok || p.wants(c)
		if !wanted && !p.o.VerifyAll {
			j.link, j.silent = true, true
		}
		if !wanted {
			j.silent = true
		}
		if p.o.Unverified {
			if ok && wanted {
				p.fill(ev, c, false)
			}
			break
		}
		check = !j.link || p.knows(did) // or nothing is known that the link could follow
	}
	if !check && j.silent && ev.Problem == nil {
		p.tracker.Skip(f.Seq)
		return nil
	}
	if j.track, err = p.tracker.Add(ctx, f.Seq, len(f.Raw)); err != nil {
		return err
	}
	if !check {
		p.out.put(j)
		return nil
	}
	p.line(j)
	return nil
}

// subject returns the DID that the message is about.
func (f *Frame) subject() string { return SubjectOf(f.Raw) }

func (p *pipeline) wants(c *Commit) bool {
	if p.filter.All() {
		return true
	}
	for i := range c.Ops {
		if p.filter.Path(c.Ops[i].Path) {
			return true
		}
	}
	return false
}

// knows reports whether anything is remembered of an account.
func (p *pipeline) knows(did syntax.DID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lanes[did] != nil
}

// line puts an event into the lane of its account.
func (p *pipeline) line(j *job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.lanes[j.ev.DID]
	switch {
	case l == nil:
		for len(p.lanes) >= p.o.MaxAccounts && p.idle.Len() > 0 {
			delete(p.lanes, p.idle.Remove(p.idle.Front()).(*lane).did)
		}
		l = &lane{did: j.ev.DID}
		p.lanes[l.did] = l
	case l.idle != nil:
		p.idle.Remove(l.idle)
		l.idle = nil
	}
	if l.queue = append(l.queue, j); len(l.queue) == 1 {
		p.ready <- l
	}
}

// next takes the first event out of a lane, and makes it ready again if there is another one.
func (p *pipeline) next(l *lane) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.queue[0] = nil
	if l.queue = l.queue[1:]; len(l.queue) > 0 {
		p.ready <- l
		return
	}
	l.queue = nil
	l.idle = p.idle.PushBack(l)
}

// outbox holds the events that the loop is to hand out. The tracker bounds their number.
type outbox struct {
	mu   sync.Mutex
	jobs []*job
	wake chan struct{} // has a value when there may be jobs
}

func (q *outbox) put(j *job) {
	q.mu.Lock()
	q.jobs = append(q.jobs, j)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take takes all jobs out, many at once if the loop is the slower side, and gives back a slice that was taken before.
func (q *outbox) take(spare []*job) []*job {
	q.mu.Lock()
	defer q.mu.Unlock()
	jobs := q.jobs
	q.jobs = spare[:0]
	return jobs
}

// work verifies events.
func (p *pipeline) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case l := <-p.ready:
			p.mu.Lock()
			j := l.queue[0]
			p.mu.Unlock()
			if p.process(l, j) {
				p.wg.Go(func() { p.lookUp(ctx, l, j.renewed) })
				continue
			}
			if j.silent && j.ev.Problem == nil {
				p.tracker.Done(j.track)
			} else {
				p.out.put(j)
			}
			p.next(l)
		}
	}
}

// lookUp finds the key of a lane's account, and makes the lane ready again.
func (p *pipeline) lookUp(ctx context.Context, l *lane, fresh bool) {
	key, err := p.find(ctx, l.did, FragmentKey, fresh)
	if ctx.Err() != nil {
		return
	}
	l.key, l.keyErr, l.keyAt, l.asked = key, err, p.o.Now(), true
	p.ready <- l
}

// find asks for a key. What can't be had at the moment is asked for again for a while: the stream waits meanwhile, if that takes
// so long, and no event is lost.
func (p *pipeline) find(ctx context.Context, did syntax.DID, fragment string, fresh bool) (*keys.PublicKey, error) {
	patient, cancel := context.WithTimeout(ctx, p.o.KeyPatience)
	defer cancel()
	ask := func() (*keys.PublicKey, error) {
		select {
		case p.lookups <- struct{}{}:
			defer func() { <-p.lookups }()
			return p.o.Keys.Key(patient, did, fragment, fresh)
		case <-patient.Done():
			return nil, patient.Err()
		}
	}
	for wait := 250 * time.Millisecond; ; wait *= 2 {
		key, err := ask()
		if err == nil || !temporary(err) {
			return key, err
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-patient.Done():
			t.Stop()
		}
		if patient.Err() != nil {
			return nil, err
		}
	}
}

func temporary(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Temporary() bool
	}](err)
	return ok && t.Temporary()
}

// process looks at the first event of a lane. It reports whether the key of the account is to be looked up first, again if
// j.renewed is set.
func (p *pipeline) process(l *lane, j *job) (ask bool) {
	switch m := j.ev.Message.(type) {
	case *Commit:
		if j.link {
			l.follow(m)
			return false
		}
		return p.commit(l, j, m)
	case *Sync:
		return p.sync(l, j, m)
	case *Identity:
		l.asked, l.key = false, nil
		if k, ok := p.o.Keys.(interface{ Purge(syntax.DID) }); ok {
			k.Purge(l.did)
		}
	case *Account:
		l.gone = ""
		if !m.Active {
			if l.gone = m.Status; l.gone == "" {
				l.gone = StatusDeactivated
			}
		}
	}
	return false
}

func (j *job) problem(k ProblemKind, err error) {
	j.ev.Problem = &Problem{Kind: k, Seq: j.ev.Seq, DID: j.ev.DID, Err: err}
}

// key reports whether there is no need to look up the key of the account first. It isn't there if the event has a problem.
func (p *pipeline) key(l *lane, j *job) bool {
	if p.o.SkipSignature {
		return true
	}
	if !l.asked || !j.renewed && l.keyErr == nil && p.o.Now().Sub(l.keyAt) > keyAge {
		return false
	}
	if l.keyErr != nil {
		j.problem(ProblemIdentity, l.keyErr)
		l.keyErr, l.asked = nil, false // the next event asks again
	} else if j.renewed && (l.key == nil || j.tried != nil && l.key.Equal(j.tried)) {
		j.problem(ProblemRejected, j.refused)
	}
	return true
}

// settled reports whether an event can't be verified: its account is gone, or the key isn't there, which ask says to look up.
func (p *pipeline) settled(l *lane, j *job) (ask, done bool) {
	if l.gone != "" {
		j.problem(ProblemInactive, fmt.Errorf("the account is %s", l.gone))
		return false, true
	}
	if !p.key(l, j) {
		return true, true
	}
	return false, j.ev.Problem != nil
}

// judged settles an event that failed, and reports whether it is to be tried again with the account's present key.
func (p *pipeline) judged(l *lane, j *job, err error) (ask bool) {
	switch r := reasonOf(err); {
	case !j.renewed && (r == repo.ReasonSignature || r == repo.ReasonNoKey):
		j.renewed, j.refused, j.tried = true, err, l.key
		return true
	case r == repo.ReasonStaleRev:
		j.problem(ProblemStale, err)
	default:
		j.problem(ProblemRejected, err)
	}
	return false
}

func (p *pipeline) verifyOptions() repo.VerifyOptions {
	return repo.VerifyOptions{Now: p.o.Now(), Legacy: p.o.Legacy, Records: p.o.Content, SkipSignature: p.o.SkipSignature}
}

func (p *pipeline) commit(l *lane, j *job, m *Commit) (ask bool) {
	if ask, done := p.settled(l, j); done {
		return ask
	}
	msg, o := m.Verifiable(j.ev.Size), p.verifyOptions()
	var prev *repo.State
	if l.state.Rev != "" {
		prev = &l.state
	}
	st, err := repo.VerifyCommit(msg, l.key, prev, o)
	var gap error
	switch r := reasonOf(err); {
	case prev == nil:
	case r == repo.ReasonPrevData, r == repo.ReasonSince, r == repo.ReasonStaleRev && l.claimed && m.Rev > string(l.rev):
		// It doesn't follow from what was before. What it is by itself is another question.
		gap = err
		st, err = repo.VerifyCommit(msg, l.key, nil, o)
	}
	if err != nil {
		return p.judged(l, j, err)
	}
	l.state, l.claimed, l.rev = st, false, st.Rev
	j.ev.Verified = !p.o.SkipSignature
	if gap != nil {
		l.lost = p.o.Gaps == GapDrop
		j.problem(ProblemGap, gap)
	} else if l.lost {
		j.problem(ProblemGap, errors.New("there was a gap before it, and no #sync since"))
	}
	if !j.silent && !l.lost {
		p.fill(&j.ev, m, j.ev.Verified)
	}
	return false
}

func (p *pipeline) sync(l *lane, j *job, m *Sync) (ask bool) {
	if ask, done := p.settled(l, j); done {
		return ask
	}
	var prev *repo.State
	if l.rev != "" {
		prev = &repo.State{Rev: l.rev, Data: l.state.Data}
	}
	st, err := repo.VerifySync(m.Verifiable(j.ev.Size), l.key, prev, p.verifyOptions())
	if err != nil {
		return p.judged(l, j, err)
	}
	same := l.state.Rev != "" && l.state.Data == st.Data && !l.lost
	l.state, l.claimed, l.rev, l.lost = st, false, st.Rev, false
	j.ev.Verified = !p.o.SkipSignature
	if !same {
		j.problem(ProblemGap, errors.New("the host says what the repository is now, and not how it came to be so"))
	}
	return false
}

// follow notes where a commit that isn't verified leads, if it goes on from what was before. If it is a lie, the next commit
// that is verified doesn't follow from it, and that is all: nothing is handed out on its word.
func (l *lane) follow(m *Commit) {
	if l.state.Rev == "" || m.Since != string(l.state.Rev) || m.Rev <= m.Since || m.PrevData.Defined() && m.PrevData != l.state.Data {
		return
	}
	c, err := commitOf(m.Blocks)
	if err != nil || string(c.Rev) != m.Rev || c.DID != l.did {
		return
	}
	l.state, l.claimed = repo.State{Rev: c.Rev, Data: c.Data}, true
}

// fill adds the changes of a commit that the filter wants to its event.
func (p *pipeline) fill(ev *RepoEvent, m *Commit, verified bool) {
	records, err := m.Records()
	if err != nil {
		ev.Problem = &Problem{Kind: ProblemRejected, Seq: ev.Seq, DID: ev.DID, Err: &repo.VerifyError{Reason: repo.ReasonMissingRecord, Err: err}}
		return
	}
	ev.Records = make([]RecordEvent, 0, len(m.Ops))
	for i := range m.Ops {
		op := &m.Ops[i]
		if !p.filter.Path(op.Path) {
			continue
		}
		collection, rkey, err := syntax.ParsePath(op.Path)
		if err != nil { // only where nothing is verified
			ev.Problem = &Problem{Kind: ProblemRejected, Seq: ev.Seq, DID: ev.DID, Err: &repo.VerifyError{Reason: repo.ReasonPathSyntax, Path: op.Path, Err: err}}
			continue
		}
		ev.Records = append(ev.Records, RecordEvent{
			Seq: ev.Seq, DID: ev.DID, Rev: syntax.TID(m.Rev), Time: m.Time, Collection: collection, RecordKey: rkey,
			Action: op.Action, CID: op.CID, Prev: op.Prev, Record: records[i], Verified: verified,
		})
	}
}
