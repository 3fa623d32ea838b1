package repo

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"sync"
	"time"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/syntax"
)

// Defaults of [ReadOptions].
const (
	DefaultMaxBuffer   = 512 << 20
	DefaultRetain      = 1 << 20 // what processors keep near: more costs time for every record
	DefaultMaxUnlinked = 1 << 20
)

// ReadOptions adjusts [Open].
type ReadOptions struct {
	// Key is the account's public key. Without one the signature isn't verified, and the report says so.
	Key *keys.PublicKey
	// DID is whose repository it has to be; empty for anybody's.
	DID syntax.DID
	// Now is the present time, against which the revision is held; if it is zero, that rule is left out, and the report
	// says so. MaxFuture is how far ahead the revision may be, 0 for DefaultMaxFuture.
	Now       time.Time
	MaxFuture time.Duration
	// Records is the policy for records. A violation fails the report's check; it doesn't end the reading, because nothing
	// else depends on a record. RecordsStrict is usual for one's own files, RecordsReadable for the network.
	Records RecordPolicy
	// Legacy accepts commits of version 2.
	Legacy bool
	// MaxBytes bounds the file, 0 for no bound.
	MaxBytes int64
	// MaxBuffer bounds the memory for blocks that come before they are wanted, and so are held, or that come once more, 0 for
	// DefaultMaxBuffer. To the bytes of a block it counts about 60 for keeping it. A file in streamable order needs none.
	MaxBuffer int64
	// Retain is for how many bytes of the file a block is kept because a later path may link to the same record, 0 for
	// DefaultRetain, negative for none. A file in streamable order that has a record once for paths further apart than that is
	// refused as one without the record.
	Retain int64
	// MaxUnlinked bounds the bytes of blocks that nothing links to. The bound is a tenth of what is linked to, or this if it
	// is more; 0 stands for DefaultMaxUnlinked, and a negative number for no such blocks at all. Blocks that come more often
	// than they are linked to have the same bound. Blocks smaller than a CID count as that many bytes on average.
	MaxUnlinked int64
}

// Record is a record of a repository. Path and Data are valid until the next one, and not behind the loop, however it ends: their
// memory is used for other files then. What is to be kept has to be copied.
type Record struct {
	Path []byte
	CID  cid.CID
	Data []byte
	// Err says what is wrong with the record's encoding under the policy, nil if nothing is. The bytes are as signed.
	Err error
}

// Reader reads a whole repository from a CAR file and verifies it on the way: see [Open].
type Reader struct {
	o         ReadOptions
	car       *car.Reader
	commit    *Commit
	commitCID cid.CID
	ahead     *cid.CID // the block that was read last and not used yet, nil if there is none
	aheadData []byte
	*fileMemory
	atEnd    bool
	started  bool
	from     place // where the block lies that was wanted last
	prepared int   // blocks of the file that the walker has looked at, or that have gone by
	links    int   // how often blocks were wanted
	linked   int64 // bytes of them, as often as they were
	surplus  int64 // bytes of blocks that came again before all was seen, with their CIDs
	report   Report
	err      error
}

// fewHeld is how many blocks are near to the processor without being looked for.
const fewHeld = 1024

// place is where a block lies.
type place uint8

const (
	fromRecent place = iota // among those that have gone by
	fromHeld                // in the set of those that came too early
	fromStream              // behind the block that was read before
)

// fileMemory is what reading a file takes most of, apart from the buffer of package car. That of readers which are done is
// used again.
type fileMemory struct {
	held   heldSet // blocks that came too early
	recent recent  // blocks that came in time, and may be wanted once more
	walker mst.Walker
	near   []*cid.CID // links of the node that came last, in memory of the walker
}

var fileMemories = sync.Pool{New: func() any { return new(fileMemory) }}

// release gives the memory back. Nothing can be read any more.
func (r *Reader) release() {
	if r.fileMemory == nil {
		return
	}
	r.recent.reset(nil)
	r.held.recycle()
	r.walker.Reset(cid.CID{}, nil)
	clear(r.near[:cap(r.near)])
	fileMemories.Put(r.fileMemory)
	r.fileMemory, r.ahead, r.aheadData = nil, nil, nil
	if r.car != nil {
		r.car.Release()
	}
}

// Open reads the head of a repository's CAR file, up to the commit, and verifies it. What follows is verified by
// [Reader.Records].
//
// Blocks may come in any order. In streamable order the memory needed is constant; otherwise blocks that come before they
// are wanted are held, up to [ReadOptions.MaxBuffer]. Blocks that nothing links to, and blocks that come twice, are counted
// and tolerated up to [ReadOptions.MaxUnlinked].
//
// On an error the [Reader] is returned too, for the sake of its report.
func Open(r io.Reader, o ReadOptions) (*Reader, error) {
	return open(o, func(o car.Options) (*car.Reader, error) { return car.NewReader(r, o) }, nil)
}

// OpenBytes is [Open] for a file that lies in memory. Nothing is copied: what records hold are views of b, which must not be
// changed until the reading has ended, and the bytes of a record stay valid. The same files are good, with the same report.
func OpenBytes(b []byte, o ReadOptions) (*Reader, error) {
	return open(o, func(o car.Options) (*car.Reader, error) { return car.NewBytesReader(b, o) }, b)
}

func open(o ReadOptions, archive func(car.Options) (*car.Reader, error), file []byte) (*Reader, error) {
	if o.MaxBuffer == 0 {
		o.MaxBuffer = DefaultMaxBuffer
	}
	if o.Retain == 0 {
		o.Retain = DefaultRetain
	}
	if o.MaxUnlinked == 0 {
		o.MaxUnlinked = DefaultMaxUnlinked
	}
	rd := &Reader{o: o, fileMemory: fileMemories.Get().(*fileMemory)}
	rd.held.file = file
	rd.report.Streamable = true
	if err := rd.open(archive); err != nil {
		rd.release()
		return rd, rd.fail(err)
	}
	return rd, nil
}

func (r *Reader) open(archive func(car.Options) (*car.Reader, error)) error {
	var err error
	o := car.Options{MaxBytes: r.o.MaxBytes, Keep: int(max(0, min(r.o.Retain, math.MaxInt32)))}
	if r.car, err = archive(o); err != nil {
		return carError(err)
	}
	r.recent.reset(r.car)
	roots := r.car.Roots()
	if err := checkRoot(r.car.Root()); err != nil {
		return err
	}
	detail := ""
	if len(roots) > 1 {
		detail = fmt.Sprintf("%d more roots, ignored", len(roots)-1)
	}
	r.report.pass(ReasonCARRoot, detail)
	r.commitCID = roots[0]
	r.report.Commit = roots[0]
	block, err := r.want(&roots[0])
	if err != nil {
		if errors.Is(err, mst.ErrNotFound) {
			return failf(ReasonMissingCommit, "%s", roots[0])
		}
		return err
	}
	var c *Commit
	if r.o.Legacy {
		c, err = DecodeLegacyCommit(block)
	} else {
		c, err = DecodeCommit(block)
	}
	if err != nil {
		return err
	}
	r.commit = c
	r.report.DID, r.report.Rev, r.report.Data, r.report.Version = c.DID, c.Rev, c.Data, c.Version
	detail = ""
	if c.Prev != nil {
		detail = "prev is not null, as in old repositories"
	}
	r.report.passCommit(detail)
	switch {
	case r.o.DID == "":
		r.report.skip(ReasonCommitDID, "no DID given")
	case r.o.DID != c.DID:
		return failf(ReasonCommitDID, "the repository is of %s, not of %s", c.DID, r.o.DID)
	default:
		r.report.pass(ReasonCommitDID, "")
	}
	if r.o.Now.IsZero() || c.Rev == "" {
		r.report.skip(ReasonFutureRev, "no time to compare with")
	} else if err := checkFuture(c.Rev, r.o.Now, r.o.MaxFuture); err != nil {
		return err
	} else {
		r.report.pass(ReasonFutureRev, "")
	}
	if r.o.Key == nil {
		r.report.skip(ReasonHighS, "no key given")
		r.report.skip(ReasonSignature, "no key given")
	} else if err := c.Verify(r.o.Key); err != nil {
		return err
	} else {
		r.report.pass(ReasonHighS, "")
		r.report.pass(ReasonSignature, r.o.Key.DIDKey())
	}
	return nil
}

// Commit returns the commit, whose signature has been verified if a key was given; nil if [Open] didn't come so far.
func (r *Reader) Commit() *Commit { return r.commit }

// CommitCID returns the CID of the commit.
func (r *Reader) CommitCID() cid.CID { return r.commitCID }

// State returns what verification of later messages builds on; the zero State if [Open] has failed.
func (r *Reader) State() State {
	if r.commit == nil {
		return State{}
	}
	return State{Rev: r.commit.Rev, Data: r.commit.Data}
}

// Report returns what has been checked so far; after [Reader.Records] has ended, of the whole file.
func (r *Reader) Report() *Report {
	r.report.finish(aFile)
	return &r.report
}

// Records yields the records in the order of their paths, and verifies the tree, the blocks and, at the end, that the file
// holds nothing broken behind them. An error, a [*VerifyError] or that of the input, comes last; until the end has come
// without one, the repository is not verified. It can be called once.
func (r *Reader) Records() iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		if r.err == nil && r.started {
			r.err = errors.New("the records have been read already")
		}
		r.started = true
		if r.err != nil {
			yield(Record{}, r.err)
			return
		}
		defer r.release()
		stopped, err := r.walk(yield)
		if err == nil && !stopped {
			err = r.drain()
		}
		if err != nil && !stopped {
			yield(Record{}, r.fail(err))
		}
	}
}

func (r *Reader) walk(yield func(Record, error) bool) (stopped bool, err error) {
	var paths pathChecker
	w := &r.walker
	w.Reset(r.commit.Data, paths.check)
	var dirty, large int
	var firstDirty *VerifyError
	var firstLarge string
	for {
		step := w.Next()
		if step.Kind == mst.StepDone {
			break
		}
		b, err := r.want(&step.CID)
		if err != nil {
			if !errors.Is(err, mst.ErrNotFound) {
				return false, err
			}
			if step.Kind == mst.StepNode {
				return false, &VerifyError{Reason: ReasonMissingNode, CID: step.CID, Err: err}
			}
			detail := ""
			if r.report.Bytes > max(r.o.Retain, 0) {
				detail = "it isn't there, or came long ago for another path"
			}
			return false, &VerifyError{Reason: ReasonMissingRecord, Path: string(step.Key), CID: step.CID, Detail: detail, Err: err}
		}
		if step.Kind == mst.StepNode {
			if err := r.node(b); err != nil {
				return false, treeError(err)
			}
			if r.held.count > fewHeld {
				r.near = w.AppendLinks(r.near[:0])
				r.held.warm(r.near)
			}
			st := w.Stats()
			r.report.Nodes, r.report.Layer = st.Nodes, st.Layer
			continue
		}
		r.report.Records++
		r.report.RecordBytes += int64(len(b))
		rec := Record{Path: step.Key, CID: step.CID, Data: b}
		if step.CID.Codec() != cid.DagCBOR {
			rec.Err = fmt.Errorf("link with codec 0x%02x", byte(step.CID.Codec()))
		} else {
			rec.Err = checkRecord(b, r.o.Records)
		}
		if rec.Err != nil {
			if dirty++; dirty == 1 {
				firstDirty = &VerifyError{Reason: ReasonRecordEncoding, Path: string(rec.Path), CID: rec.CID, Err: rec.Err}
			}
		}
		if len(b) > cbor.MaxRecord {
			if large++; large == 1 {
				firstLarge = fmt.Sprintf("%s: %d bytes", rec.Path, len(b))
			}
		}
		if !yield(rec, nil) {
			return true, nil
		}
	}
	r.report.passTree()
	r.report.pass(ReasonMissingRecord, fmt.Sprintf("%d records", r.report.Records))
	switch {
	case r.o.Records == RecordsAny:
		r.report.skip(ReasonRecordEncoding, "left out by option")
	case dirty > 0:
		firstDirty.Detail = fmt.Sprintf("the first of %d in %d records", dirty, r.report.Records)
		r.report.fail(firstDirty)
	default:
		r.report.pass(ReasonRecordEncoding, "")
	}
	if large > 0 {
		r.report.fail(&VerifyError{Reason: ReasonRecordTooBig, Detail: fmt.Sprintf("%d of %d records; %s", large, r.report.Records, firstLarge)})
	} else {
		r.report.pass(ReasonRecordTooBig, "")
	}
	return false, nil
}

// node gives the walker the node that it wants. What it has looked at ahead is good for blocks of the reader's buffer, up to a
// number: those from elsewhere may lie where another did.
func (r *Reader) node(b []byte) error {
	w := &r.walker
	if r.from != fromStream {
		return w.Node(b)
	}
	if r.report.Streamable && r.report.Blocks > r.prepared {
		r.prepared = r.report.Blocks - 1 + w.Prepare(r.car.Ahead)
	}
	if r.report.Blocks > r.prepared {
		return w.Node(b)
	}
	return w.NodeAhead(b)
}

// drain reads what is left of the file.
func (r *Reader) drain() error {
	r.held.settle()
	r.report.Duplicates += r.held.again
	r.report.Unlinked, r.report.UnlinkedBytes = r.held.count-r.held.wanted, r.held.bytes-r.held.wantedBytes
	for {
		if err := r.quota(); err != nil {
			return err
		}
		if err := r.look(); err != nil {
			return err
		}
		if r.ahead == nil {
			break
		}
		if r.recent.get(r.ahead) != nil || r.held.has(r.ahead) {
			r.report.Duplicates++
		} else {
			r.report.Unlinked++
			r.report.UnlinkedBytes += int64(len(r.aheadData))
		}
		r.ahead = nil
	}
	r.report.passBlocks(r.o.MaxBytes)
	detail := ""
	if r.report.Unlinked > 0 {
		detail = fmt.Sprintf("%d blocks of %d bytes that nothing links to, ignored", r.report.Unlinked, r.report.UnlinkedBytes)
	}
	r.report.pass(ReasonExtraBlocks, detail)
	return nil
}

// quota checks that not too much of the file is there for nothing. Blocks that come again are so only as far as they are not
// linked to again: a file may hold a record once for each of its paths.
func (r *Reader) quota() error {
	most := max(r.o.MaxUnlinked, 0)
	if r.o.MaxUnlinked > 0 {
		most = max(most, r.linked/10)
	}
	// The number counts too: a file of empty blocks has no end.
	if n := r.report.Unlinked; max(r.report.UnlinkedBytes, int64(n)*cid.Size) > most || r.o.MaxUnlinked < 0 && n > 0 {
		return failf(ReasonExtraBlocks, "%d blocks of %d bytes that nothing links to, more than %d", n, r.report.UnlinkedBytes, most)
	}
	n, again := r.report.Blocks-r.report.Unlinked-r.links, r.report.Bytes-r.report.UnlinkedBytes-r.linked
	if max(again, int64(n)*cid.Size) > most {
		return failf(ReasonExtraBlocks, "%d blocks of %d bytes that are there more often than they are linked to, more than %d", n, again, most)
	}
	return nil
}

// look makes sure that there is a block ahead, unless the file is at its end.
func (r *Reader) look() error {
	if r.ahead != nil || r.atEnd {
		return nil
	}
	var err error
	if r.ahead, r.aheadData, err = r.car.NextView(); err != nil {
		r.atEnd = true
		if err == io.EOF {
			return nil
		}
		return carError(err)
	}
	r.report.Blocks++
	r.report.Bytes += int64(len(r.aheadData))
	return nil
}

// want returns a block, which is valid until the next call. In a streamable file it is the next one.
func (r *Reader) want(c *cid.CID) (b []byte, err error) {
	if r.ahead == nil {
		if err := r.look(); err != nil {
			return nil, err
		}
	}
	if r.ahead != nil && *r.ahead == *c {
		b = r.take()
	} else if b, err = r.search(c); err != nil {
		return nil, err
	}
	r.links++
	r.linked += int64(len(b))
	return b, nil
}

// take returns the block ahead, which is the one wanted, and notes it: a record may have another path, and a node that is
// wanted twice is told from one that is missing.
func (r *Reader) take() []byte {
	r.ahead, r.from = nil, fromStream
	if r.o.Retain > 0 {
		r.recent.add(len(r.aheadData))
	}
	return r.aheadData
}

// search returns a block that isn't the next one. It may have been held, or come before; if it hasn't, blocks on the way to
// it are held.
func (r *Reader) search(c *cid.CID) ([]byte, error) {
	if b, ok := r.held.find(c); ok {
		r.from = fromHeld
		return b, nil
	}
	if b := r.recent.get(c); b != nil {
		r.from = fromRecent
		return b, nil
	}
	passed := false // blocks that are held now
	for {
		if err := r.look(); err != nil {
			return nil, err
		}
		switch {
		case r.ahead == nil:
			return nil, fmt.Errorf("block %s: %w", c.String(), mst.ErrNotFound)
		case *r.ahead == *c:
			b := r.take()
			if passed { // the file is in another order: what links to this once more may come when it is long gone
				r.held.keep(c, b, r.car.Offset())
				r.held.find(c)
			}
			return b, nil
		case r.recent.get(r.ahead) != nil:
			r.report.Duplicates++
			r.surplus += int64(len(r.aheadData)) + cid.Size
		default:
			r.held.keep(r.ahead, r.aheadData, r.car.Offset())
			r.report.Streamable, r.report.Held = false, r.held.bytes
			passed = true
		}
		if r.held.memory()+r.surplus > r.o.MaxBuffer {
			return nil, failf(ReasonBuffer, "more than %d bytes of blocks came before they were wanted, or again", r.o.MaxBuffer)
		}
		r.ahead = nil
	}
}

// fail enters an error into the report.
func (r *Reader) fail(err error) error {
	r.err = err
	var v *VerifyError
	if errors.As(err, &v) {
		r.report.fail(v)
	}
	return err
}
