package pds

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/crashpoint"
	"github.com/barograph/baro/internal/eventlog"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// The repository engine. Each repository has one writer at a time, but a writer holds the lock only while it edits the tree, signs and
// submits: the head in memory moves on at once, and waiting for the disk happens outside the lock. So concurrent writers to one
// repository share fsyncs instead of queueing behind each other's. A later commit may build on one that is not durable yet; that is
// safe because the log applies batches in the order of submission and stops the process when one fails.

var (
	errRepoExists   = errors.New("an account with this DID is hosted here already")
	errRepoNotFound = errors.New("no repository of this DID here")
)

// openRepo is a repository in memory. Fields below mu belong to its holder.
type openRepo struct {
	did   syntax.DID
	users int           // under engine.mu: holders, waiters and commits in flight; an entry in use is not evicted
	place *list.Element // under engine.mu

	mu       sync.Mutex
	loaded   bool
	head     headRow // as submitted, which may be ahead of the disk
	key      *keys.PrivateKey
	tree     *mst.Tree
	commits  int // since the tree was trimmed
	inflight []*inflight
	records  map[string]pendingRecord // values submitted and not yet durable
	blobs    map[cid.CID]*blobState   // blobs touched since loading
	stored   int64                    // bytes of all blobs, when sized is set
	sized    bool
}

// inflight is a submitted commit. done is set, by whoever waits for it, when it is durable.
type inflight struct {
	pending *eventlog.Pending
	paths   []string
	done    atomic.Bool
}

type pendingRecord struct {
	by   *inflight
	data []byte // nil: deleted
}

// A tree keeps this many nodes in memory (a node takes about 1 kB) and is trimmed to it every so many commits. The number of commits
// bounds what comes in between; trimming waits for a moment when nothing is in flight, but not longer than trimLatest.
const (
	maxTreeNodes = 512
	trimEvery    = 64
	trimLatest   = 1024
)

// maxBlobStates bounds the blobs remembered per open repository.
const maxBlobStates = 4096

// engine keeps the open repositories.
type engine struct {
	mu     sync.Mutex
	open   map[syntax.DID]*openRepo
	order  list.List // of *openRepo, most recently used first
	max    int
	lastID atomic.Uint64 // last account or generation id given out
}

// acquire returns the repository of did with its lock held; release it with s.release. Without a repository of that DID it gives
// errRepoNotFound.
func (s *Service) acquire(did syntax.DID) (*openRepo, error) {
	r := s.pin(did)
	r.mu.Lock()
	if !r.loaded {
		head, err := loadHead(s.store, did)
		if err == nil && head == nil {
			err = errRepoNotFound
		}
		if err != nil {
			s.release(r)
			return nil, err
		}
		r.head, r.loaded = *head, true
	}
	r.settle()
	return r, nil
}

func (s *Service) pin(did syntax.DID) *openRepo {
	e := &s.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.open[did]
	if r == nil {
		r = &openRepo{did: did}
		r.place = e.order.PushFront(r)
		e.open[did] = r
	} else {
		e.order.MoveToFront(r.place)
	}
	r.users++
	return r
}

// release unlocks r and lets go of it.
func (s *Service) release(r *openRepo) {
	r.mu.Unlock()
	s.unpin(r)
}

func (s *Service) unpin(r *openRepo) {
	e := &s.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	r.users--
	if r.users == 0 && !r.loaded {
		e.drop(r)
	}
	for at := e.order.Back(); at != nil && len(e.open) > e.max; {
		old := at.Value.(*openRepo)
		at = at.Prev()
		if old.users == 0 {
			e.drop(old)
		}
	}
}

func (e *engine) drop(r *openRepo) {
	e.order.Remove(r.place)
	delete(e.open, r.did)
}

// settle forgets what is durable by now.
func (r *openRepo) settle() {
	kept := r.inflight[:0]
	for _, f := range r.inflight {
		if !f.done.Load() {
			kept = append(kept, f)
			continue
		}
		for _, p := range f.paths {
			if r.records[p].by == f {
				delete(r.records, p)
			}
		}
	}
	clear(r.inflight[len(kept):])
	r.inflight = kept
	if len(kept) == 0 && len(r.blobs) > maxBlobStates {
		r.blobs = nil
	}
}

// drain waits until everything submitted for r is durable.
func (r *openRepo) drain() error {
	for _, f := range r.inflight {
		if _, err := f.pending.Wait(context.Background()); err != nil {
			return err
		}
		f.done.Store(true)
	}
	r.settle()
	return nil
}

// forget makes r read everything again: after a failed edit, or when the repository was replaced.
func (r *openRepo) forget() {
	r.tree, r.blobs, r.key, r.sized = nil, nil, nil, false
}

// submit hands a batch and its events to the log. The caller holds r.mu, and calls s.wait with the result exactly once, later.
func (s *Service) submit(r *openRepo, ops func(kv.Batch), events []event, paths []string) *inflight {
	crashpoint.Hit("pds/commit/before-submit")
	f := &inflight{paths: paths}
	tx := eventlog.Tx{Ops: ops, Waited: true}
	for _, e := range events {
		tx.Events = append(tx.Events, e.encode)
		if a, ok := e.message.(*stream.Account); ok && (a.Status == stream.StatusDeleted || a.Status == stream.StatusTakendown) {
			tx.Forget = append(tx.Forget, a.DID) // what is deleted or taken down is not replayed either
		}
	}
	s.engine.mu.Lock()
	r.users++ // memory is ahead of the disk: the entry has to stay
	s.engine.mu.Unlock()
	f.pending = s.log.Submit(tx)
	r.inflight = append(r.inflight, f)
	crashpoint.Hit("pds/commit/submitted")
	return f
}

// wait returns when f is durable. It does not stop when the client goes away: the outcome decides what later readers see.
func (s *Service) wait(r *openRepo, f *inflight) (int64, error) {
	defer s.unpin(r)
	seq, err := f.pending.Wait(context.Background())
	if err != nil {
		return 0, fmt.Errorf("making a commit durable: %w", err)
	}
	f.done.Store(true)
	crashpoint.Hit("pds/commit/durable")
	return seq, nil
}

// newID gives out a number for an account or a generation.
func (s *Service) newID() uint64 { return s.engine.lastID.Add(1) }

// recoverIDs finds the last number given out. A number is in use when a row begins with it, so no counter has to be kept.
func (s *Service) recoverIDs() error {
	var last uint64
	for _, table := range []byte{tableHead, tableBlock, tableByCID, tableBlobRef, tableBlob, tableStaging} {
		it := s.store.Iter([]byte{table}, []byte{table + 1})
		if it.Last() && len(it.Key()) >= 9 {
			last = max(last, beUint64(it.Key()[1:]))
		}
		err := errors.Join(it.Err(), it.Close())
		if err != nil {
			return fmt.Errorf("reading the last id: %w", err)
		}
	}
	s.engine.lastID.Store(last)
	return nil
}

// nextRev gives a revision above prev, from the clock where possible.
func (s *Service) nextRev(prev syntax.TID) syntax.TID {
	rev := s.tids.Next(s.world.Clock.Now())
	if rev <= prev {
		rev = syntax.TIDFromInteger(prev.Integer() + 1)
	}
	return rev
}

// accountChange is a change of an account other than its records. Its parts are one batch, and its events come in the order #identity,
// #account, #sync.
type accountChange struct {
	// Ops writes the account's own rows; nil for none. It may run on another goroutine, but before the change is acknowledged.
	Ops func(kv.Batch)
	// Identity emits #identity, with Handle in it when that is not empty.
	Identity bool
	Handle   syntax.Handle
	// Account sets the hosting status to Status and emits #account. createRepo sets the status in any case.
	Account bool
	Status  hosting
	// Sync emits #sync with the commit. NewCommit signs the tree again first, with a higher revision and the account's key of now,
	// which KeyChanged makes the engine ask for again.
	Sync, NewCommit, KeyChanged bool
	// Key is the account's signing key from this change on; nil: that of its row.
	Key *keys.PrivateKey
}

// createRepo gives did an empty repository signed with key, together with the account rows of c.
func (s *Service) createRepo(ctx context.Context, did syntax.DID, key *keys.PrivateKey, c accountChange) error {
	r := s.pin(did)
	r.mu.Lock()
	release := func() { s.release(r) }
	if !r.loaded {
		head, err := loadHead(s.store, did)
		if err != nil {
			release()
			return err
		}
		r.loaded = head != nil
		if head != nil {
			r.head = *head
		}
	}
	head := headRow{Status: c.Status, DID: did}
	switch {
	case !r.loaded:
		head.account = s.newID()
	case r.head.Status == hostingDeleted:
		// Deleted accounts may come back: their revisions go on where they ended.
		if err := r.drain(); err != nil {
			release()
			return err
		}
		head.account, head.Rev = r.head.account, r.head.Rev
	default:
		release()
		return errRepoExists
	}
	head.Gen = s.newID()
	tree := mst.New()
	change, err := tree.Flush()
	if err != nil {
		release()
		return fmt.Errorf("building an empty tree: %w", err)
	}
	if err := s.sign(&head, key, change.Root); err != nil {
		release()
		return err
	}
	var events []event
	if c.Identity {
		events = append(events, s.identityEvent(did, c.Handle))
	}
	if c.Account {
		events = append(events, s.accountEvent(did, c.Status))
	}
	if c.Sync {
		events = append(events, s.syncEvent(&head))
	}
	f := s.submit(r, func(b kv.Batch) {
		if c.Ops != nil {
			c.Ops(b)
		}
		b.Set(didKey(did), appendID(nil, head.account))
		b.Set(idKey(tableHead, head.account), head.encode())
		putNodes(b, head.Gen, head.Rev, change)
	}, events, nil)
	tree.SetSource(treeSource{s.store, head.Gen}, mst.Options{ShapeChecked: true})
	r.forget()
	r.head, r.tree, r.key, r.loaded = head, tree, key, true
	release()
	_, err = s.wait(r, f)
	s.crawl.nudge()
	return err
}

// submitAccountEvents changes what is known of an account: rows, hosting status and events in one batch.
func (s *Service) submitAccountEvents(ctx context.Context, did syntax.DID, c accountChange) error {
	r, err := s.acquire(did)
	if err != nil {
		return err
	}
	if c.KeyChanged {
		r.key = nil
	}
	if c.Key != nil {
		r.key = c.Key
	}
	head := r.head
	var events []event
	if c.Identity {
		events = append(events, s.identityEvent(did, c.Handle))
	}
	if c.Account {
		head.Status = c.Status
		events = append(events, s.accountEvent(did, c.Status))
	}
	if c.NewCommit {
		key, err := s.repoKey(r)
		if err == nil {
			err = s.sign(&head, key, head.Data)
		}
		if err != nil {
			s.release(r)
			return err
		}
	}
	if c.Sync {
		events = append(events, s.syncEvent(&head))
	}
	f := s.submit(r, func(b kv.Batch) {
		if c.Ops != nil {
			c.Ops(b)
		}
		b.Set(idKey(tableHead, head.account), head.encode())
	}, events, nil)
	r.head = head
	s.release(r)
	_, err = s.wait(r, f)
	s.crawl.nudge()
	return err
}

// repoKey is the signing key of r, asked for once per opening.
func (s *Service) repoKey(r *openRepo) (*keys.PrivateKey, error) {
	if r.key == nil {
		key, err := s.signingKey(r.did)
		if err != nil {
			return nil, fmt.Errorf("signing key of %s: %w", r.did, err)
		}
		r.key = key
	}
	return r.key, nil
}

// sign makes the next commit of head, over the tree with the given root.
func (s *Service) sign(head *headRow, key *keys.PrivateKey, root cid.CID) error {
	return s.signAt(head, key, root, s.nextRev(head.Rev))
}

func (s *Service) signAt(head *headRow, key *keys.PrivateKey, root cid.CID, rev syntax.TID) error {
	c := repo.Commit{DID: head.DID, Version: repo.Version, Data: root, Rev: rev}
	if err := c.Sign(key); err != nil {
		return fmt.Errorf("signing a commit of %s: %w", head.DID, err)
	}
	head.Block = c.Encode()
	head.Commit = cid.Sum(cid.DagCBOR, head.Block)
	head.Rev, head.Data = c.Rev, root
	return nil
}

// openTree gives the tree of r, opening or trimming it as needed.
func (s *Service) openTree(r *openRepo) (*mst.Tree, error) {
	// What is forgotten is read again from the store, so it has to be there first.
	if r.tree == nil || r.commits >= trimLatest {
		if err := r.drain(); err != nil {
			return nil, err
		}
	}
	switch {
	case r.tree == nil:
		r.tree, r.commits = storedTree(s.store, r.head.Gen, r.head.Data), 0
	case r.commits >= trimEvery && len(r.inflight) == 0:
		r.tree.Trim(maxTreeNodes)
		r.commits = 0
	}
	return r.tree, nil
}

func carOfCommit(h *headRow) []byte {
	b := car.AppendHeader(make([]byte, 0, 128+len(h.Block)), h.Commit)
	return car.AppendBlock(b, h.Commit, h.Block)
}

// event encodes itself once its sequence number is known.
type event struct {
	message interface {
		stream.Message
		SetSequence(int64)
	}
}

func (e event) encode(dst []byte, seq int64) []byte {
	e.message.SetSequence(seq)
	if c, ok := e.message.(*stream.Commit); ok && dst == nil {
		dst = make([]byte, 0, len(c.Blocks)+512+len(c.Ops)*256)
	}
	return stream.AppendFrame(dst, e.message)
}

func (s *Service) eventTime() string {
	return s.world.Clock.Now().UTC().Format("2006-01-02T15:04:05.000Z")
}

func (s *Service) identityEvent(did syntax.DID, handle syntax.Handle) event {
	return event{&stream.Identity{DID: string(did), Handle: string(handle), Time: s.eventTime()}}
}

func (s *Service) accountEvent(did syntax.DID, status hosting) event {
	return event{&stream.Account{DID: string(did), Active: status == hostingActive, Status: string(status), Time: s.eventTime()}}
}

func (s *Service) syncEvent(h *headRow) event {
	return event{&stream.Sync{DID: string(h.DID), Rev: string(h.Rev), Blocks: carOfCommit(h), Time: s.eventTime()}}
}
