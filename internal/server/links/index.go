package links

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/crashpoint"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/reposync"
	"github.com/barograph/baro/syntax"
)

// index is the link index as a sink of package reposync: one writer, any number of readers.
type index struct {
	store kv.Store
	mu    sync.Mutex // one Apply at a time
	dict  dictionary
	stats figures

	batchRows   int // about how many rows are written at once
	walkRecords int // how many records of a walk are dealt with in one batch
}

var _ reposync.Sink = (*index)(nil)

// figures are the totals of what is shown.
type figures struct {
	Records uint64 // that link to something
	Links   uint64
	Targets uint64 // pairs of target and source
	DIDs    uint64 // accounts with such records
	Started uint64 // when the index was begun, in µs since 1970
}

var (
	keyCursor  = []byte{rowState, 'c'}
	keyFigures = []byte{rowState, 'f'}
	keyWalk    = []byte{rowState, 'w'}
	keyFormat  = []byte{rowState, 'v'}
)

const formatVersion = 1

// openIndex reads what the index has to know, and finishes a walk that was cut short.
func openIndex(store kv.Store, nowMicros uint64) (*index, error) {
	ix := &index{store: store, batchRows: 20_000, walkRecords: 2000}
	v, err := store.Get(keyFormat)
	switch {
	case errors.Is(err, kv.ErrNotFound):
		b := store.NewBatch()
		defer b.Close()
		b.Set(keyFormat, []byte{formatVersion})
		ix.stats.Started = nowMicros
		b.Set(keyFigures, ix.stats.append(nil))
		if err := store.Apply(b, true); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	case len(v) != 1 || v[0] != formatVersion:
		return nil, fmt.Errorf("the link index has format %x, and this program reads %d: rebuild it", v, formatVersion)
	}
	if ix.stats, err = readFigures(store); err != nil {
		return nil, err
	}
	if err := ix.dict.load(store); err != nil {
		return nil, err
	}
	if err := ix.finishWalk(); err != nil {
		return nil, err
	}
	return ix, nil
}

func (f *figures) fields() []*uint64 {
	return []*uint64{&f.Records, &f.Links, &f.Targets, &f.DIDs, &f.Started}
}

func (f *figures) append(b []byte) []byte {
	for _, v := range f.fields() {
		b = kv.AppendUint64(b, *v)
	}
	return b
}

func readFigures(r kv.Reader) (figures, error) {
	var f figures
	v, err := r.Get(keyFigures)
	if err != nil {
		return f, fmt.Errorf("reading the figures: %w", err)
	}
	for _, p := range f.fields() {
		var ok bool
		if *p, v, ok = kv.CutUint64(v); !ok {
			return f, errors.New("the row of figures is short")
		}
	}
	return f, nil
}

// Load implements reposync.Sink.
func (ix *index) Load() (int64, iter.Seq2[reposync.Repo, error], error) {
	var cursor uint64
	v, err := ix.store.Get(keyCursor)
	if err == nil {
		cursor, _, _ = kv.CutUint64(v)
	} else if !errors.Is(err, kv.ErrNotFound) {
		return 0, nil, err
	}
	return int64(cursor), func(yield func(reposync.Repo, error) bool) {
		it := ix.store.Iter([]byte{rowAccount}, []byte{rowAccount + 1})
		defer it.Close()
		for it.Next() {
			n, _, _ := kv.CutUint32(it.Key()[1:])
			did, err := readDID(ix.store, n)
			var a account
			if err == nil {
				a, err = decodeAccount(did, it.Value())
			}
			if !yield(a.repo, err) || err != nil {
				return
			}
		}
		if err := it.Err(); err != nil {
			yield(reposync.Repo{}, err)
		}
	}, nil
}

// Repo implements reposync.Sink.
func (ix *index) Repo(did syntax.DID) (reposync.Repo, bool, error) {
	actor, err := lookup(ix.store, appendDID([]byte{rowActor}, string(did)))
	if err != nil || actor == 0 {
		return reposync.Repo{}, false, err
	}
	v, err := ix.store.Get(actorKey(rowAccount, actor))
	if errors.Is(err, kv.ErrNotFound) {
		return reposync.Repo{}, false, nil
	}
	if err != nil {
		return reposync.Repo{}, false, err
	}
	a, err := decodeAccount(string(did), v)
	return a.repo, err == nil, err
}

// Records implements reposync.Sink.
func (ix *index) Records(did syntax.DID) iter.Seq2[reposync.Entry, error] {
	return func(yield func(reposync.Entry, error) bool) {
		actor, err := lookup(ix.store, appendDID([]byte{rowActor}, string(did)))
		if err != nil {
			yield(reposync.Entry{}, err)
		}
		if err != nil || actor == 0 {
			return
		}
		p := actorKey(rowForward, actor)
		it := ix.store.Iter(p, kv.PrefixEnd(p))
		defer it.Close()
		for it.Next() {
			v := it.Value()
			if len(v) < cid.Size {
				yield(reposync.Entry{}, checkLen(v, cid.Size))
				return
			}
			if !yield(reposync.Entry{Path: string(it.Key()[len(p):]), CID: cid.CID(v[:cid.Size])}, nil) {
				return
			}
		}
		if err := it.Err(); err != nil {
			yield(reposync.Entry{}, err)
		}
	}
}

// account is a row A.
type account struct {
	shown   bool   // its links are in T, D, M and C
	linking uint64 // its records that link to something
	repo    reposync.Repo
	stored  bool
}

func (a *account) append(b []byte) []byte {
	var flags byte
	if a.shown {
		flags = 1
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, a.linking)
	return a.repo.Append(b)
}

func decodeAccount(did string, v []byte) (account, error) {
	if len(v) < 2 {
		return account{}, checkLen(v, 2)
	}
	a := account{shown: v[0]&1 != 0, stored: true}
	n, size := binary.Uvarint(v[1:])
	if size <= 0 {
		return account{}, fmt.Errorf("row of account %s is damaged", did)
	}
	a.linking = n
	r, err := reposync.DecodeRepo(syntax.DID(did), v[1+size:])
	a.repo = r
	return a, err
}

// Apply implements reposync.Sink. A batch that has become large is cut between two changes, which is safe: each brings the
// state of its repository along, and the cursor comes last.
func (ix *index) Apply(_ context.Context, in reposync.Batch) error {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	w := ix.writer()
	defer w.close()
	for i := range in.Changes {
		if w.b.Len() > ix.batchRows {
			if err := w.commit(); err != nil {
				return err
			}
		}
		if err := w.change(&in.Changes[i]); err != nil {
			return fmt.Errorf("indexing %s: %w", in.Changes[i].Repo.DID, err)
		}
	}
	if in.Cursor != 0 {
		w.b.Set(keyCursor, kv.AppendUint64(nil, uint64(in.Cursor)))
	}
	return w.commit()
}

// writer collects the rows of one batch. What it changes more than once is kept aside until the end: rows that were written
// but not applied can't be read.
type writer struct {
	ix     *index
	r      kv.Reader
	b      kv.Batch
	byDID  kv.Iterator // over D, as it was when the batch began
	stats  figures
	counts map[string]*count   // of C
	multi  map[string]*multi   // of M and D
	refs   map[string]*refs    // of V
	rows   map[string][]byte   // of F; nil is deleted
	known  map[uint32]*account // of A
}

type count struct{ links, dids, was uint64 }

type multi struct{ n, was uint64 }

type refs struct{ n, was uint64 }

func (ix *index) writer() *writer {
	ix.dict.trim()
	return &writer{
		ix: ix, r: ix.store, b: ix.store.NewBatch(), stats: ix.stats,
		counts: map[string]*count{}, multi: map[string]*multi{}, refs: map[string]*refs{}, rows: map[string][]byte{},
		known: map[uint32]*account{},
	}
}

func (w *writer) close() {
	w.closeIter()
	w.b.Close()
}

func (w *writer) closeIter() {
	if w.byDID != nil {
		_ = w.byDID.Close() // its errors were seen where it was used
		w.byDID = nil
	}
}

// commit writes the batch and makes room for the next.
func (w *writer) commit() error {
	for k, c := range w.counts {
		switch {
		case c.links == 0 && c.was == 0:
		case c.links == 0:
			w.b.Delete([]byte(k))
			w.stats.Targets--
		default:
			w.b.Set([]byte(k), binary.AppendUvarint(binary.AppendUvarint(nil, c.links), c.dids))
			if c.was == 0 {
				w.stats.Targets++
			}
		}
	}
	for k, m := range w.multi {
		key := append([]byte{rowMultiple}, k...)
		switch {
		case m.n > 1:
			w.b.Set(key, binary.AppendUvarint(nil, m.n))
		case m.was > 1:
			w.b.Delete(key)
		}
	}
	for k, r := range w.refs {
		switch {
		case r.n > 0:
			w.b.Set(append([]byte{rowURIRefs}, k...), binary.AppendUvarint(nil, r.n))
		case r.was > 0:
			w.b.Delete(append([]byte{rowURIRefs}, k...))
			fallthrough
		default:
			w.b.Delete(append([]byte{rowURI}, k...))
		}
	}
	for actor, a := range w.known {
		if a.stored {
			w.b.Set(actorKey(rowAccount, actor), a.append(nil))
		}
	}
	if w.b.Len() == 0 {
		return nil
	}
	w.b.Set(keyFigures, w.stats.append(nil))
	w.closeIter()
	crashpoint.Hit("links/apply/before")
	if err := w.ix.store.Apply(w.b, true); err != nil {
		return fmt.Errorf("writing to the link index: %w", err)
	}
	crashpoint.Hit("links/apply/after")
	w.ix.stats = w.stats
	w.b.Reset()
	clear(w.counts)
	clear(w.multi)
	clear(w.refs)
	clear(w.rows)
	clear(w.known)
	return nil
}

// account returns the row of an account, which is written at the end if stored is set.
func (w *writer) account(actor uint32, did string) (*account, error) {
	if a := w.known[actor]; a != nil {
		return a, nil
	}
	a := &account{}
	v, err := w.r.Get(actorKey(rowAccount, actor))
	if err == nil {
		*a, err = decodeAccount(did, v)
	}
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return nil, err
	}
	w.known[actor] = a
	return a, nil
}

// change indexes one change of a repository.
func (w *writer) change(c *reposync.Change) error {
	did := string(c.Repo.DID)
	actor, err := w.actor(did)
	if err != nil {
		return err
	}
	a, err := w.account(actor, did)
	if err != nil {
		return err
	}
	show := c.Repo.Active
	if c.Purge || show != a.shown {
		// What was collected so far is written first: a walk reads rows, and may need several batches.
		fresh := !a.stored
		if !fresh {
			if err := w.commit(); err != nil {
				return err
			}
			if a, err = w.account(actor, did); err != nil {
				return err
			}
		}
		a.repo, a.stored = c.Repo, true
		switch {
		case fresh:
			a.shown = show
		case c.Purge:
			err = w.walk(walk{actor: actor, do: walkPurge, then: show})
		case show:
			err = w.walk(walk{actor: actor, do: walkShow, then: true})
		default:
			err = w.walk(walk{actor: actor, do: walkHide})
		}
		if err != nil {
			return err
		}
		if a, err = w.account(actor, did); err != nil {
			return err
		}
	}
	a.repo, a.stored = c.Repo, true
	for i := range c.Ops {
		if err := w.record(actor, did, a, &c.Ops[i]); err != nil {
			return err
		}
	}
	return nil
}

// link is a link of a record, as F keeps it.
type link struct {
	source uint32
	target []byte
}

func compareLinks(a, b link) int {
	if c := cmp.Compare(a.source, b.source); c != 0 {
		return c
	}
	return bytes.Compare(a.target, b.target)
}

func appendLinks(b []byte, ls []link) []byte {
	for _, l := range ls {
		b = binary.AppendUvarint(b, uint64(l.source))
		b = binary.AppendUvarint(b, uint64(len(l.target)))
		b = append(b, l.target...)
	}
	return b
}

// decodeLinks reads the links in a row F, which are views of it.
func decodeLinks(v []byte) ([]link, error) {
	if len(v) < cid.Size {
		return nil, checkLen(v, cid.Size)
	}
	var ls []link
	for v = v[cid.Size:]; len(v) > 0; {
		s, n := binary.Uvarint(v)
		if n <= 0 {
			return nil, errors.New("a row of links is damaged")
		}
		v = v[n:]
		size, n := binary.Uvarint(v)
		if n <= 0 || uint64(len(v)-n) < size {
			return nil, errors.New("a row of links is damaged")
		}
		ls = append(ls, link{uint32(s), v[n : n+int(size)]})
		v = v[n+int(size):]
	}
	return ls, nil
}

// record indexes one change of a record.
func (w *writer) record(actor uint32, did string, a *account, op *reposync.Op) error {
	key := recordKey(actor, op.Path)
	old, cached := w.rows[string(key)]
	if !cached {
		v, err := w.r.Get(key)
		if err != nil && !errors.Is(err, kv.ErrNotFound) {
			return err
		}
		old = v
	}
	var before, after []link
	var err error
	if old != nil {
		if before, err = decodeLinks(old); err != nil {
			return err
		}
	}
	var row []byte
	if op.CID.Defined() {
		if old != nil && cid.CID(old[:cid.Size]) == op.CID {
			return nil // delivered again
		}
		if after, err = w.links(op); err != nil {
			return err
		}
		row = appendLinks(append([]byte(nil), op.CID[:]...), after)
		w.b.Set(key, row)
	} else {
		if old == nil {
			return nil
		}
		w.b.Delete(key)
	}
	w.rows[string(key)] = row
	_, rkey, _ := strings.Cut(op.Path, "/")
	return w.replace(a, appendDID(nil, did), rkey, before, after)
}

// links returns the links of a record in order.
func (w *writer) links(op *reposync.Op) ([]link, error) {
	collection, _, _ := strings.Cut(op.Path, "/")
	var out []link
	for _, f := range extract(op.Data) {
		source, err := w.name(collection + ":" + f.path)
		if err != nil {
			return nil, err
		}
		target, err := w.target(f.target)
		if err != nil {
			return nil, err
		}
		out = append(out, link{source, target})
		if target[0] == targetHash {
			w.b.Set(append([]byte{rowURI}, target[1:]...), []byte(f.target))
		}
	}
	slices.SortFunc(out, compareLinks)
	return out, nil
}

// replace changes the links of one record.
func (w *writer) replace(a *account, did []byte, rkey string, before, after []link) error {
	if (len(before) > 0) != (len(after) > 0) {
		delta := uint64(1)
		if len(after) == 0 {
			delta = ^uint64(0)
		}
		was := a.linking
		a.linking += delta
		if a.shown {
			w.stats.Records += delta
			w.stats.DIDs += present(a.linking) - present(was)
		}
	}
	i, j := 0, 0
	for i < len(before) || j < len(after) {
		c := 0
		switch {
		case i == len(before):
			c = 1
		case j == len(after):
			c = -1
		default:
			c = compareLinks(before[i], after[j])
		}
		var err error
		switch {
		case c < 0:
			if err = w.refer(before[i].target, ^uint64(0)); err == nil && a.shown {
				err = w.remove(before[i], did, rkey)
			}
			i++
		case c > 0:
			if err = w.refer(after[j].target, 1); err == nil && a.shown {
				err = w.insert(after[j], did, rkey)
			}
			j++
		default:
			i, j = i+1, j+1
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func present(n uint64) uint64 {
	if n > 0 {
		return 1
	}
	return 0
}

// refer counts the links to a target whose string is kept aside.
func (w *writer) refer(target []byte, delta uint64) error {
	if target[0] != targetHash {
		return nil
	}
	k := string(target[1:])
	r := w.refs[k]
	if r == nil {
		r = &refs{}
		v, err := w.r.Get(append([]byte{rowURIRefs}, k...))
		if err == nil {
			r.n = uvarint(v)
		} else if !errors.Is(err, kv.ErrNotFound) {
			return err
		}
		r.was = r.n
		w.refs[k] = r
	}
	r.n += delta
	return nil
}

// insert adds a link to T and D and counts it. It must not be there.
func (w *writer) insert(l link, did []byte, rkey string) error {
	c, m, err := w.tally(l, did)
	if err != nil {
		return err
	}
	place := appendPlace(nil, did, rkey)
	w.b.Set(append(rowKey(rowByTime, l.target, l.source), place...), nil)
	w.b.Set(turnPlace(rowKey(rowByDID, l.target, l.source), place), nil)
	c.links++
	if m.n++; m.n == 1 {
		c.dids++
	}
	w.stats.Links++
	return nil
}

// remove takes back what insert did.
func (w *writer) remove(l link, did []byte, rkey string) error {
	c, m, err := w.tally(l, did)
	if err != nil {
		return err
	}
	if c.links == 0 || m.n == 0 || c.dids == 0 {
		return fmt.Errorf("a link that isn't counted is to be removed: target %x, source %d", l.target, l.source)
	}
	place := appendPlace(nil, did, rkey)
	w.b.Delete(append(rowKey(rowByTime, l.target, l.source), place...))
	w.b.Delete(turnPlace(rowKey(rowByDID, l.target, l.source), place))
	c.links--
	if m.n--; m.n == 0 {
		c.dids--
	}
	w.stats.Links--
	return nil
}

// tally returns the counters that a link is part of.
func (w *writer) tally(l link, did []byte) (*count, *multi, error) {
	ck := rowKey(rowCount, l.target, l.source)
	c := w.counts[string(ck)]
	if c == nil {
		c = &count{}
		v, err := w.r.Get(ck)
		if err == nil {
			c.links, c.dids, err = decodeCount(v)
		} else if errors.Is(err, kv.ErrNotFound) {
			err = nil
		}
		if err != nil {
			return nil, nil, err
		}
		c.was = c.links
		w.counts[string(ck)] = c
	}
	mk := append(ck[1:], did...)
	m := w.multi[string(mk)]
	if m == nil {
		m = &multi{}
		if c.was > 0 { // else there is nothing to look for
			n, err := w.multiplicity(mk)
			if err != nil {
				return nil, nil, err
			}
			m.n, m.was = n, n
		}
		w.multi[string(mk)] = m
	}
	return c, m, nil
}

// multiplicity reads how many links an account has: key is target, source, did.
func (w *writer) multiplicity(key []byte) (uint64, error) {
	if w.byDID == nil {
		w.byDID = w.r.Iter([]byte{rowByDID}, []byte{rowByDID + 1})
	}
	return multiplicity(w.r, w.byDID, key)
}

func multiplicity(r kv.Reader, byDID kv.Iterator, key []byte) (uint64, error) {
	k := append([]byte{rowByDID}, key...)
	if !byDID.SeekGE(k) || !bytes.HasPrefix(byDID.Key(), k) {
		return 0, byDID.Err()
	}
	k[0] = rowMultiple
	v, err := r.Get(k)
	if errors.Is(err, kv.ErrNotFound) {
		return 1, nil
	}
	return uvarint(v), err
}

func decodeCount(v []byte) (links, dids uint64, err error) {
	links, n := binary.Uvarint(v)
	if n <= 0 {
		return 0, 0, errors.New("a row of counts is damaged")
	}
	dids, m := binary.Uvarint(v[n:])
	if m <= 0 || n+m != len(v) {
		return 0, 0, errors.New("a row of counts is damaged")
	}
	return links, dids, nil
}
