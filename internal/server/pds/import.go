package pds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/crashpoint"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
)

// An import fills a generation of its own, which nothing refers to, and then one batch makes the account point at it. Until that batch
// the account is as it was; after a crash the next start removes the unfinished generation. The walk over the tree decides what
// is stored: a block that the signed tree does not link to never gets a row. Memory does not grow with the repository: blocks that
// come before they are wanted are parked, beyond a few megabytes in the store.

// importError says what is wrong with an uploaded repository.
type importError struct{ reason string }

func (e *importError) Error() string { return "the repository cannot be imported: " + e.reason }

func importErrorf(format string, args ...any) error {
	return &importError{fmt.Sprintf(format, args...)}
}

var errImportRaced = errors.New("the repository was written to during the import")

const (
	tableParked    = 'q' // gen cid → block that is not wanted yet
	importBatch    = 1 << 20
	parkedInMemory = 4 << 20
	parkedCost     = 64 // what a parked block counts beyond its bytes
	futureRev      = 5 * time.Minute
)

// importer is one import on its way.
type importer struct {
	s      *Service
	r      *car.Reader
	old    *headRow
	gen    uint64
	rev    syntax.TID
	batch  kv.Batch
	parked map[cid.CID][]byte
	size   int   // bytes in parked
	queue  int64 // bytes of all blocks that are parked, in memory or in the store
	spilt  bool
	eof    bool
	hasOld bool
	bytes  int64 // of all records
}

// importRepo replaces the repository of did by the one in a CAR file of the same account, which may come from another host and be signed
// with another key. The outcome is a new commit with this server's key and, if the account is active, a #sync event.
func (s *Service) importRepo(ctx context.Context, did syntax.DID, body io.Reader) error {
	select {
	case s.imports <- struct{}{}:
		defer func() { <-s.imports }()
	case <-ctx.Done():
		return ctx.Err()
	}
	old, err := loadHead(s.store, did)
	if err != nil {
		return err
	}
	if old == nil {
		return errRepoNotFound
	}
	if old.Status == hostingTakendown || old.Status == hostingSuspended || old.Status == hostingDeleted {
		return &inactiveError{old.Status}
	}
	im := &importer{s: s, old: old, gen: s.newID(), batch: s.store.NewBatch(), parked: map[cid.CID][]byte{}}
	defer im.batch.Close()
	im.batch.Set(idKey(tableStaging, im.gen), appendID(nil, old.account))
	if err := s.store.Apply(im.batch, true); err != nil {
		return fmt.Errorf("starting an import: %w", err)
	}
	im.batch.Reset()
	crashpoint.Hit("pds/import/started")
	done := false
	defer func() {
		if done {
			return
		}
		if err := s.dropGeneration(im.gen); err != nil {
			s.world.Log.Error("removing an unfinished import", "did", did, "err", err)
		}
	}()
	commit, err := im.load(ctx, body)
	if err != nil {
		return err
	}
	crashpoint.Hit("pds/import/loaded")
	err = im.finish(commit)
	done = err == nil
	return err
}

// load reads and verifies the file and writes the generation.
func (im *importer) load(ctx context.Context, body io.Reader) (*repo.Commit, error) {
	var err error
	if im.r, err = car.NewReader(body, car.Options{}); err != nil {
		return nil, bodyError(err, "reading the CAR header")
	}
	roots := im.r.Roots()
	if len(roots) == 0 {
		return nil, importErrorf("the CAR file has no root")
	}
	block, err := im.want(roots[0])
	if err != nil {
		return nil, err
	}
	commit, err := repo.DecodeCommit(block)
	if err != nil {
		return nil, importErrorf("its commit: %v", err)
	}
	now := im.s.world.Clock.Now()
	switch {
	case commit.DID != im.old.DID:
		return nil, importErrorf("it is the repository of %s, not of %s", commit.DID, im.old.DID)
	case commit.Rev > syntax.NewTID(now.Add(futureRev).UnixMicro(), 0):
		return nil, importErrorf("its revision %s is in the future", commit.Rev)
	}
	im.rev = im.s.nextRev(max(im.old.Rev, commit.Rev))
	im.hasOld = im.old.Data != repo.EmptyRoot

	w := mst.NewWalker(commit.Data, repo.CheckPath)
	var first firsts
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		step := w.Next()
		switch step.Kind {
		case mst.StepDone:
			if err := im.flush(true); err != nil {
				return nil, err
			}
			return commit, im.rest()
		case mst.StepNode:
			block, err := im.want(step.CID)
			if err != nil {
				return nil, err
			}
			if err := w.Node(block); err != nil {
				return nil, importErrorf("its tree: %v", err)
			}
			if err := first.node(im, step.CID, block); err != nil {
				return nil, err
			}
		case mst.StepRecord:
			path := string(step.Key)
			c := step.CID
			if err := first.record(im, path); err != nil {
				return nil, err
			}
			block, err := im.want(c)
			if err != nil {
				return nil, err
			}
			if err := im.record(path, c, block); err != nil {
				return nil, err
			}
		}
	}
}

// firsts finds the position of each node: nodes come before the first path of their subtree is known, so they wait for it. On the left
// edge of a tree no more than its height are waiting.
type firsts struct {
	waiting []waitingNode
}

type waitingNode struct {
	cid  cid.CID
	data []byte
}

// node takes a node in pre-order.
func (f *firsts) node(im *importer, c cid.CID, block []byte) error {
	f.waiting = append(f.waiting, waitingNode{c, append([]byte(nil), block...)})
	var n mst.Node
	if err := n.Decode(block); err != nil {
		return importErrorf("its tree: %v", err)
	}
	if len(n.Entries) == 0 && !n.Left.Defined() { // the empty tree
		return f.place(im, "", 0)
	}
	return nil
}

// record places all waiting nodes: the record is the first of their subtrees, and its layer is that of the lowest.
func (f *firsts) record(im *importer, path string) error {
	if len(f.waiting) == 0 {
		return nil
	}
	return f.place(im, path, mst.Layer(path))
}

func (f *firsts) place(im *importer, path string, layer int) error {
	for i := range f.waiting {
		n := &f.waiting[i]
		block := mst.NodeBlock{CID: n.cid, Bytes: n.data, First: path, Layer: layer + len(f.waiting) - 1 - i}
		if err := im.put(nodeKey(im.gen, block.First, block.Layer), n.cid, n.data); err != nil {
			return err
		}
	}
	f.waiting = f.waiting[:0]
	return nil
}

// record stores a record and its blob references.
func (im *importer) record(path string, c cid.CID, block []byte) error {
	if c.Codec() != cid.DagCBOR {
		return importErrorf("record %s: its CID is not one of a record", path)
	}
	if len(block) > cbor.MaxRecord {
		return importErrorf("record %s has %d bytes, at most %d are possible", path, len(block), cbor.MaxRecord)
	}
	if err := cbor.Valid(block); err != nil {
		return importErrorf("record %s: %v", path, err)
	}
	if im.bytes += int64(len(block)); im.bytes > im.s.cfg.AccountBytes {
		return &quotaError{im.s.cfg.AccountBytes}
	}
	if err := im.put(recordKey(im.gen, path), c, block); err != nil {
		return err
	}
	blobs, err := blobsIn(block)
	if err != nil {
		return importErrorf("record %s: %v", path, err)
	}
	if subject := subjectKey(im.gen, path, block); subject != nil {
		im.batch.Set(append(subject, path...), nil)
	}
	for _, b := range blobCIDs(blobs) {
		im.batch.Set(blobRefKey(im.gen, b, path), appendID(nil, im.rev.Integer()))
	}
	return nil
}

// put stores a block under its position. What the account had there before keeps its revision.
func (im *importer) put(key []byte, c cid.CID, block []byte) error {
	rev := im.rev
	if im.hasOld {
		was := append(idKey(tableBlock, im.old.Gen), key[9:]...)
		v, err := im.s.store.Get(was)
		if err != nil && !errors.Is(err, kv.ErrNotFound) {
			return fmt.Errorf("comparing with the present repository: %w", err)
		}
		if err == nil {
			oldRev, oldCID, _, err := splitBlock(v)
			if err != nil {
				return err
			}
			if oldCID == c {
				rev = syntax.TIDFromInteger(oldRev)
			}
		}
	}
	im.batch.Set(key, appendBlock(make([]byte, 0, blockHeader+len(block)), rev, c, block))
	if _, layer, err := splitBlockKey(key); err == nil && layer < 0 {
		im.batch.Set(byCIDKey(c, key), nil)
	}
	return im.flush(false)
}

// flush writes what has come together. It is not synced: the batch that ends the import is, and the store keeps their order.
func (im *importer) flush(all bool) error {
	if im.batch.Len() == 0 || (!all && im.batch.Size() < importBatch) {
		return nil
	}
	if err := im.s.store.Apply(im.batch, false); err != nil {
		return fmt.Errorf("storing an import: %w", err)
	}
	im.batch.Reset()
	crashpoint.Hit("pds/import/batch")
	return nil
}

// want returns the block with the given CID: the next of the file, as a rule, else one that is parked, or a record that has been at
// another path before.
func (im *importer) want(c cid.CID) ([]byte, error) {
	if b, ok := im.parked[c]; ok {
		im.size -= len(b) + parkedCost
		im.queue -= int64(len(b) + parkedCost)
		delete(im.parked, c)
		return b, nil
	}
	if im.spilt {
		if err := im.flush(true); err != nil {
			return nil, err
		}
		b, err := im.s.store.Get(parkedKey(im.gen, c))
		if err == nil {
			im.queue -= int64(len(b) + parkedCost)
			im.batch.Delete(parkedKey(im.gen, c))
			return b, nil
		}
		if !errors.Is(err, kv.ErrNotFound) {
			return nil, fmt.Errorf("reading a parked block: %w", err)
		}
	}
	for !im.eof {
		got, block, err := im.r.Next()
		if err == io.EOF {
			im.eof = true
			break
		}
		if err != nil {
			return nil, bodyError(err, "reading the CAR file")
		}
		if got == c {
			return block, nil
		}
		if err := im.park(got, block); err != nil {
			return nil, err
		}
	}
	if err := im.flush(true); err != nil {
		return nil, err
	}
	block, err := recordByCID(im.s.store, im.gen, c)
	if err != nil {
		return nil, err
	}
	if block == nil {
		return nil, importErrorf("block %s is missing", c)
	}
	return block, nil
}

func parkedKey(gen uint64, c cid.CID) []byte { return append(idKey(tableParked, gen), c[:]...) }

// park keeps a block for later. A block that comes twice counts twice.
func (im *importer) park(c cid.CID, block []byte) error {
	if _, ok := im.parked[c]; ok {
		return nil
	}
	im.parked[c] = append([]byte(nil), block...)
	im.queue += int64(len(block) + parkedCost)
	if most := im.s.cfg.MaxImportParkedBytes; im.queue > most {
		return importErrorf("more than %d bytes of its blocks are not where the tree needs them, or not needed at all; "+
			"a file in the order of the tree has none of that", most)
	}
	if im.size += len(block) + parkedCost; im.size < parkedInMemory {
		return nil
	}
	for c, b := range im.parked {
		im.batch.Set(parkedKey(im.gen, c), b)
	}
	clear(im.parked)
	im.size, im.spilt = 0, true
	return im.flush(true)
}

// rest reads what follows the last wanted block, so that a broken or endless file is noticed. None of it is stored.
func (im *importer) rest() error {
	for !im.eof {
		if _, _, err := im.r.Next(); err == io.EOF {
			im.eof = true
		} else if err != nil {
			return bodyError(err, "reading the CAR file")
		}
	}
	return nil
}

// finish makes the account point at the new generation.
func (im *importer) finish(commit *repo.Commit) error {
	s := im.s
	r, err := s.acquire(im.old.DID)
	if err != nil {
		return err
	}
	defer s.release(r)
	// Blobs and tree in memory are of the old generation: nothing of it may be in flight any more.
	if err := r.drain(); err != nil {
		return err
	}
	if r.head.Gen != im.old.Gen || r.head.Commit != im.old.Commit {
		return errImportRaced
	}
	if commit.Data == r.head.Data {
		return s.dropGeneration(im.gen) // it is what the account has already
	}
	key, err := s.repoKey(r)
	if err != nil {
		return err
	}
	head := r.head
	head.Gen, head.Bytes = im.gen, im.bytes
	if err := s.fits(r, head.Bytes, 0); err != nil {
		return err
	}
	if err := s.signAt(&head, key, commit.Data, im.rev); err != nil {
		return err
	}
	blobs, err := im.blobs()
	if err != nil {
		return err
	}
	var events []event
	if head.Status == hostingActive {
		events = append(events, s.syncEvent(&head))
	}
	old := r.head.Gen
	f := s.submit(r, func(b kv.Batch) {
		deleteGeneration(b, old)
		lo, hi := genRange(tableParked, im.gen)
		b.DeleteRange(lo, hi)
		b.Delete(idKey(tableStaging, im.gen))
		b.Set(idKey(tableHead, head.account), head.encode())
		blobs.write(b, &head)
	}, events, nil)
	r.forget()
	r.head = head
	_, err = s.wait(r, f)
	r.settle()
	crashpoint.Hit("pds/import/done")
	for _, g := range blobs.garbage {
		if e := s.sweepLocked(r, g); e != nil {
			s.world.Log.Warn("blob file not deleted yet", "did", r.did, "cid", g.String(), "err", e)
		}
	}
	return err
}

// blobs works out what the new records do to the blobs that the account has.
func (im *importer) blobs() (*blobChanges, error) {
	out := &blobChanges{after: map[cid.CID]blobState{}}
	lo, hi := genRange(tableBlob, im.old.account)
	it := im.s.store.Iter(lo, hi)
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if len(it.Key()) != 9+cid.Size {
			return nil, fmt.Errorf("blob key %x: %w", it.Key(), errCorrupt)
		}
		c := cid.CID(it.Key()[9:])
		row, err := decodeBlobRow(it.Value())
		if err != nil {
			return nil, err
		}
		lo := blobRefPrefix(im.gen, c)
		refs := im.s.store.Iter(lo, kv.PrefixEnd(lo))
		used := refs.First()
		if err := errors.Join(refs.Err(), refs.Close()); err != nil {
			return nil, err
		}
		switch {
		case used && row.State == blobTemporary:
			row.State = blobPermanent
			out.after[c] = blobState{row: row}
		case !used && row.State == blobPermanent:
			out.after[c] = blobState{row: blobRow{Since: row.Since}}
			out.garbage = append(out.garbage, c)
		}
	}
	return out, it.Err()
}

func deleteGeneration(b kv.Batch, gen uint64) {
	for _, table := range []byte{tableBlock, tableByCID, tableBlobRef, tableSubject} {
		lo, hi := genRange(table, gen)
		b.DeleteRange(lo, hi)
	}
}

// dropGeneration removes a generation that no account points at.
func (s *Service) dropGeneration(gen uint64) error {
	b := s.store.NewBatch()
	defer b.Close()
	deleteGeneration(b, gen)
	lo, hi := genRange(tableParked, gen)
	b.DeleteRange(lo, hi)
	b.Delete(idKey(tableStaging, gen))
	return s.store.Apply(b, false)
}

// dropUnfinished removes what imports left behind when the process ended.
func (s *Service) dropUnfinished() error {
	var gens []uint64
	it := s.store.Iter([]byte{tableStaging}, []byte{tableStaging + 1})
	for ok := it.First(); ok; ok = it.Next() {
		if len(it.Key()) == 9 {
			gens = append(gens, beUint64(it.Key()[1:]))
		}
	}
	if err := errors.Join(it.Err(), it.Close()); err != nil {
		return fmt.Errorf("looking for unfinished imports: %w", err)
	}
	for _, g := range gens {
		if err := s.dropGeneration(g); err != nil {
			return fmt.Errorf("removing an unfinished import: %w", err)
		}
	}
	return nil
}
