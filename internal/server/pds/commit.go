package pds

import (
	"errors"
	"fmt"
	"slices"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// action is what one write asks for.
type action uint8

const (
	actCreate     action = iota // the record must not exist
	actUpdate                   // the record must exist
	actPut                      // either
	actDelete                   // the record must exist
	actEnsureGone               // either
)

// write is one prepared operation: everything that can be checked without the repository has been checked.
type write struct {
	Action     action
	Collection syntax.NSID
	RKey       syntax.RecordKey
	Path       string // Collection "/" RKey
	Record     []byte // DAG-CBOR; nil for deletions
	CID        cid.CID
	Blobs      []data.Blob
	Swap       *cid.CID // required present value; zero: the record must not exist
	Validation string   // validationStatus of the answer
	Replaces   bool     // records of the same subject go: see subject.go
}

// swapError says that a compare-and-set found another value.
type swapError struct {
	what  string // "commit" or "record at …"
	is    cid.CID
	asked cid.CID
}

func (e *swapError) Error() string {
	name := func(c cid.CID) string {
		if !c.Defined() {
			return "nothing"
		}
		return c.String()
	}
	return fmt.Sprintf("%s is %s, not %s", e.what, name(e.is), name(e.asked))
}

// conflictError says that a write does not fit what is there.
type conflictError struct{ reason string }

func (e *conflictError) Error() string { return e.reason }

// inactiveError says that an account may not write, or not be read.
type inactiveError struct{ status hosting }

func (e *inactiveError) Error() string { return "the account is " + string(e.status) }

// commitResult is what became of a list of writes. Without a change there is no commit.
type commitResult struct {
	Changed bool
	Commit  cid.CID
	Rev     syntax.TID
}

// recordChange is the net effect of all writes on one path.
type recordChange struct {
	path     string
	was, is  cid.CID // zero: absent
	record   []byte  // nil: deleted
	old      []byte  // nil: created
	oldBlobs []cid.CID
	newBlobs []cid.CID
}

// commit applies writes to the repository of did as one commit and returns when it is durable.
func (s *Service) commit(did syntax.DID, writes []write, swap *cid.CID) (commitResult, error) {
	r, err := s.acquire(did)
	if err != nil {
		return commitResult{}, err
	}
	f, result, err := s.commitLocked(r, writes, swap)
	s.release(r)
	if err != nil || f == nil {
		return result, err
	}
	if _, err := s.wait(r, f.inflight); err != nil {
		return commitResult{}, err
	}
	s.afterCommit(f)
	s.forgetLexicons(did, writes)
	return result, nil
}

// submitted is a commit on its way to the disk and what has to be done once it is there.
type submitted struct {
	*inflight
	account uint64
	did     syntax.DID
	garbage []cid.CID // blobs whose last reference went
}

// commitLocked edits, signs, checks and submits. The caller holds r.mu. A nil submitted without an error means that nothing changed.
func (s *Service) commitLocked(r *openRepo, writes []write, swap *cid.CID) (*submitted, commitResult, error) {
	var none commitResult
	if r.head.Status != hostingActive {
		return nil, none, &inactiveError{r.head.Status}
	}
	if swap != nil && *swap != r.head.Commit {
		return nil, none, &swapError{"the repository's commit", r.head.Commit, *swap}
	}
	key, err := s.repoKey(r)
	if err != nil {
		return nil, none, err
	}
	tree, err := s.openTree(r)
	if err != nil {
		return nil, none, err
	}
	if len(writes) == 1 && writes[0].Replaces {
		old, err := s.replaced(r, tree, &writes[0])
		if err != nil {
			return nil, none, err
		}
		writes = append(writes, old...)
	}
	changes, err := s.plan(r, tree, writes)
	if err != nil || len(changes) == 0 {
		return nil, none, err
	}
	blobs, err := s.countBlobs(r, changes, writes)
	if err != nil {
		return nil, none, err
	}

	// The edit happens on a copy of the tree, which shares everything it leaves as it is: a refused write leaves nothing behind.
	edits := make([]repo.Write, len(changes))
	paths := make([]string, len(changes))
	for i := range changes {
		edits[i] = repo.Write{Path: changes[i].path, Record: changes[i].record}
		paths[i] = changes[i].path
	}
	before := r.head
	u, next, err := repo.Apply(tree, edits, before.DID, s.nextRev(before.Rev), key)
	if err != nil {
		return nil, none, fmt.Errorf("making a commit of %s: %w", r.did, err)
	}
	head := before
	if head.Bytes, err = s.grown(r, changes); err != nil {
		return nil, none, err
	}
	head.Rev, head.Data, head.Commit, head.Block = u.Commit.Rev, u.Change.Root, u.CommitCID, u.Block
	message := u.Message(before.Rev, syntax.Datetime(s.eventTime()))
	// A commit that others cannot invert would get this account frozen at every relay: it must not leave the process. The signature is
	// left out, since the key made it just now.
	_, err = repo.VerifyCommit(message, nil, &repo.State{Rev: before.Rev, Data: before.Data}, repo.VerifyOptions{SkipSignature: true})
	if err != nil {
		return nil, none, fmt.Errorf("own commit %s of %s does not verify: %v", head.Commit, head.DID, err)
	}

	f := s.submit(r, func(b kv.Batch) {
		b.Set(idKey(tableHead, head.account), head.encode())
		removeNodes(b, head.Gen, u.Change)
		putNodes(b, head.Gen, head.Rev, u.Change)
		for i := range changes {
			changes[i].write(b, &head)
		}
		blobs.write(b, &head)
	}, []event{commitEvent(&message)}, paths)
	if r.records == nil {
		r.records = map[string]pendingRecord{}
	}
	for i := range changes {
		r.records[changes[i].path] = pendingRecord{by: f, data: changes[i].record}
	}
	blobs.apply(r)
	r.head, r.tree = head, next
	r.commits++
	return &submitted{f, head.account, head.DID, blobs.garbage},
		commitResult{Changed: true, Commit: head.Commit, Rev: head.Rev}, nil
}

// plan checks writes, in order, against the repository and gives the net change of each path.
func (s *Service) plan(r *openRepo, tree *mst.Tree, writes []write) ([]recordChange, error) {
	changes := make([]recordChange, 0, len(writes))
	at := make(map[string]int, len(writes))
	for i := range writes {
		w := &writes[i]
		n, seen := at[w.Path]
		if !seen {
			was, _, err := tree.Get(w.Path)
			if err != nil {
				return nil, fmt.Errorf("reading the tree of %s: %w", r.did, err)
			}
			n = len(changes)
			at[w.Path] = n
			changes = append(changes, recordChange{path: w.Path, was: was, is: was})
		}
		c := &changes[n]
		had := c.is.Defined()
		switch {
		case w.Swap != nil && *w.Swap != c.is:
			return nil, &swapError{"the record at " + w.Path, c.is, *w.Swap}
		case w.Action == actCreate && had:
			return nil, &conflictError{"there is a record at " + w.Path + " already"}
		case (w.Action == actUpdate || w.Action == actDelete) && !had:
			return nil, &conflictError{"there is no record at " + w.Path}
		}
		c.is, c.record, c.newBlobs = w.CID, w.Record, blobCIDs(w.Blobs)
	}
	changes = slices.DeleteFunc(changes, func(c recordChange) bool { return c.was == c.is })
	for i := range changes {
		c := &changes[i]
		if !c.was.Defined() {
			continue
		}
		old, err := s.recordOf(r, c.path)
		if err != nil {
			return nil, err
		}
		blobs, err := blobsIn(old)
		if err != nil {
			return nil, fmt.Errorf("record %s of %s: %w", c.path, r.did, err)
		}
		c.old, c.oldBlobs = old, blobCIDs(blobs)
	}
	return changes, nil
}

// recordOf reads the present value of a record, which may still be on its way to the disk.
func (s *Service) recordOf(r *openRepo, path string) ([]byte, error) {
	if p, ok := r.records[path]; ok {
		return p.data, nil
	}
	v, err := s.store.Get(recordKey(r.head.Gen, path))
	if errors.Is(err, kv.ErrNotFound) {
		return nil, fmt.Errorf("record %s of %s is in the tree but not in the store: %w", path, r.did, errCorrupt)
	}
	if err != nil {
		return nil, fmt.Errorf("reading record %s of %s: %w", path, r.did, err)
	}
	_, _, record, err := splitBlock(v)
	return record, err
}

// blobsIn lists the blob references of a record that is stored or imported. Legacy ones count when they can be blobs at all: only a schema
// could say for sure.
func blobsIn(record []byte) ([]data.Blob, error) {
	return blobRefs(record, false)
}

// blobsWritten is blobsIn for a record that a client writes, in which the old form must not be, https://atproto.com/specs/data-model#blob-type.
// Where no schema says what a map of a CID and a MIME type is, it is taken for one: whoever reads the record would have to as well.
func blobsWritten(record []byte) ([]data.Blob, error) {
	return blobRefs(record, true)
}

func blobRefs(record []byte, written bool) ([]data.Blob, error) {
	var out []data.Blob
	for b, err := range data.Blobs(record) {
		if err != nil {
			return nil, err
		}
		if b.Legacy && written {
			return nil, fmt.Errorf("the reference to blob %s has an old form that must not be written any more: upload the blob and use what that answers", b.Ref)
		}
		if !b.Legacy || b.Ref.Codec() == cid.Raw {
			out = append(out, b)
		}
	}
	return out, nil
}

func blobCIDs(blobs []data.Blob) []cid.CID {
	var out []cid.CID
	for _, b := range blobs {
		if !slices.Contains(out, b.Ref) {
			out = append(out, b.Ref)
		}
	}
	return out
}

// write puts the record's rows into a batch.
func (c *recordChange) write(b kv.Batch, h *headRow) {
	key := recordKey(h.Gen, c.path)
	if c.was.Defined() {
		b.Delete(byCIDKey(c.was, key))
	}
	if !c.is.Defined() {
		b.Delete(key)
	} else {
		b.Set(key, appendBlock(make([]byte, 0, blockHeader+len(c.record)), h.Rev, c.is, c.record))
		b.Set(byCIDKey(c.is, key), nil)
	}
	if was := subjectKey(h.Gen, c.path, c.old); was != nil {
		b.Delete(append(was, c.path...))
	}
	if is := subjectKey(h.Gen, c.path, c.record); is != nil {
		b.Set(append(is, c.path...), nil)
	}
	for _, blob := range c.oldBlobs {
		if !slices.Contains(c.newBlobs, blob) {
			b.Delete(blobRefKey(h.Gen, blob, c.path))
		}
	}
	for _, blob := range c.newBlobs {
		if !slices.Contains(c.oldBlobs, blob) {
			b.Set(blobRefKey(h.Gen, blob, c.path), appendID(nil, h.Rev.Integer()))
		}
	}
}

// commitEvent is the #commit event of a message, which is encoded when its sequence number is known.
func commitEvent(m *repo.CommitMessage) event {
	return event{stream.NewCommit(m)}
}
