package kv

import (
	"bytes"
	"sync"

	"github.com/google/btree"
)

// NewMem makes an empty store in memory. It keeps the promises of [Store] but the one about crashes.
func NewMem() Store {
	return &memStore{tree: btree.NewG(32, lessRow)}
}

type row struct{ key, value []byte } // neither is changed once it is in the tree

func lessRow(a, b row) bool { return bytes.Compare(a.key, b.key) < 0 }

type memStore struct {
	mu     sync.RWMutex
	tree   *btree.BTreeG[row]
	view   *btree.BTreeG[row] // a clone of tree that readers share until the next write, or nil
	closed bool
}

func (s *memStore) Get(key []byte) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, ErrClosed
	}
	return memGet(s.tree, key)
}

func memGet(t *btree.BTreeG[row], key []byte) ([]byte, error) {
	r, ok := t.Get(row{key: key})
	if !ok {
		return nil, ErrNotFound
	}
	own := make([]byte, len(r.value))
	copy(own, r.value)
	return own, nil
}

// current is an unchanging view of the store; nil when it is closed.
func (s *memStore) current() *btree.BTreeG[row] {
	s.mu.RLock()
	v, closed := s.view, s.closed
	s.mu.RUnlock()
	if v != nil || closed {
		return v
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	if s.view == nil {
		s.view = s.tree.Clone() // copies no node: the next write copies those it touches
	}
	return s.view
}

func (s *memStore) Iter(lo, hi []byte) Iterator { return newMemIter(s.current(), lo, hi) }

func (s *memStore) Snapshot() Snapshot { return &memSnapshot{s.current()} }

func (s *memStore) NewBatch() Batch { return &memBatch{} }

func (s *memStore) Apply(batch Batch, _ bool) error {
	b := batch.(*memBatch)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if b.applied {
		return ErrBatchApplied
	}
	b.applied = true
	if len(b.ops) == 0 {
		return nil
	}
	s.view = nil
	for _, op := range b.ops {
		k, v := b.data[op.at:op.at+op.klen], b.data[op.at+op.klen:op.at+op.klen+op.vlen]
		switch op.kind {
		case opSet:
			own := make([]byte, 0, len(k)+len(v))
			own = append(append(own, k...), v...)
			s.tree.ReplaceOrInsert(row{own[:len(k):len(k)], own[len(k):]})
		case opDelete:
			s.tree.Delete(row{key: k})
		case opDeleteRange:
			var gone []row
			s.tree.AscendRange(row{key: k}, row{key: v}, func(r row) bool {
				gone = append(gone, r)
				return true
			})
			for _, r := range gone {
				s.tree.Delete(r)
			}
		}
	}
	return nil
}

func (s *memStore) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed, s.tree, s.view = true, nil, nil
	return nil
}

type memSnapshot struct{ t *btree.BTreeG[row] }

func (s *memSnapshot) Get(key []byte) ([]byte, error) {
	if s.t == nil {
		return nil, ErrClosed
	}
	return memGet(s.t, key)
}
func (s *memSnapshot) Iter(lo, hi []byte) Iterator { return newMemIter(s.t, lo, hi) }
func (s *memSnapshot) Close() error                { s.t = nil; return nil }

type opKind uint8

const (
	opSet opKind = iota
	opDelete
	opDeleteRange // the value is the upper bound
)

type memOp struct {
	kind           opKind
	at, klen, vlen int
}

// memBatch keeps its changes in one buffer.
type memBatch struct {
	ops     []memOp
	data    []byte
	applied bool
}

func (b *memBatch) add(kind opKind, k, v []byte) {
	b.ops = append(b.ops, memOp{kind, len(b.data), len(k), len(v)})
	b.data = append(append(b.data, k...), v...)
}

func (b *memBatch) Set(key, value []byte) { b.add(opSet, key, value) }
func (b *memBatch) Delete(key []byte)     { b.add(opDelete, key, nil) }
func (b *memBatch) DeleteRange(lo, hi []byte) {
	if !emptyRange(lo, hi) {
		b.add(opDeleteRange, lo, hi)
	}
}

func (b *memBatch) Append(other Batch) {
	o := other.(*memBatch)
	base := len(b.data)
	for _, op := range o.ops {
		op.at += base
		b.ops = append(b.ops, op)
	}
	b.data = append(b.data, o.data...)
}

func (b *memBatch) Len() int  { return len(b.ops) }
func (b *memBatch) Size() int { return len(b.data) + 12*len(b.ops) }
func (b *memBatch) Reset()    { b.ops, b.data, b.applied = b.ops[:0], b.data[:0], false }
func (b *memBatch) Close()    { *b = memBatch{applied: true} }

// memIter walks a view in chunks: the tree only offers walks by callback, and a seek for every step would cost a descent
// each. Chunks grow, so that a short look stays cheap.
type memIter struct {
	t      *btree.BTreeG[row]
	lo, hi []byte
	chunk  []row // in ascending order
	pos    int   // the current row is chunk[pos]; -1 and len(chunk) are outside
	want   int
	state  iterState
	err    error
}

type iterState uint8

const (
	iterFresh iterState = iota
	iterOn
	iterBefore // moved past the first row
	iterAfter  // moved past the last row
)

const (
	minChunk = 4
	maxChunk = 256
)

func newMemIter(t *btree.BTreeG[row], lo, hi []byte) Iterator {
	i := &memIter{t: t, lo: lo, hi: hi}
	if t == nil {
		i.err = ErrClosed
	} else if emptyRange(lo, hi) {
		i.t = nil
	}
	return i
}

// up loads the rows from key (from the first, when nil) and stands on the first of them.
func (i *memIter) up(from []byte, skip bool) bool {
	if i.t == nil {
		return false
	}
	if from == nil || bytes.Compare(from, i.lo) < 0 {
		from, skip = i.lo, false
	}
	i.chunk = i.chunk[:0]
	i.t.AscendGreaterOrEqual(row{key: from}, func(r row) bool {
		if i.hi != nil && bytes.Compare(r.key, i.hi) >= 0 {
			return false
		}
		if skip && bytes.Equal(r.key, from) {
			return true
		}
		i.chunk = append(i.chunk, r)
		return len(i.chunk) < i.want
	})
	i.want = min(2*i.want, maxChunk)
	i.pos, i.state = 0, iterOn
	if len(i.chunk) == 0 {
		i.state = iterAfter
	}
	return i.state == iterOn
}

// down loads the rows below key (from the last, when nil) and stands on the last of them.
func (i *memIter) down(below []byte) bool {
	if i.t == nil {
		return false
	}
	if i.hi != nil && (below == nil || bytes.Compare(below, i.hi) > 0) {
		below = i.hi
	}
	i.chunk = i.chunk[:0]
	visit := func(r row) bool {
		if bytes.Compare(r.key, i.lo) < 0 {
			return false
		}
		if below != nil && bytes.Equal(r.key, below) {
			return true
		}
		i.chunk = append(i.chunk, r)
		return len(i.chunk) < i.want
	}
	if below == nil {
		i.t.Descend(visit)
	} else {
		i.t.DescendLessOrEqual(row{key: below}, visit)
	}
	i.want = min(2*i.want, maxChunk)
	for a, b := 0, len(i.chunk)-1; a < b; a, b = a+1, b-1 {
		i.chunk[a], i.chunk[b] = i.chunk[b], i.chunk[a]
	}
	i.pos, i.state = len(i.chunk)-1, iterOn
	if len(i.chunk) == 0 {
		i.state = iterBefore
	}
	return i.state == iterOn
}

func (i *memIter) First() bool { i.want = minChunk; return i.up(nil, false) }
func (i *memIter) Last() bool  { i.want = minChunk; return i.down(nil) }

func (i *memIter) SeekGE(key []byte) bool {
	i.want = minChunk
	if key == nil {
		key = []byte{}
	}
	return i.up(key, false)
}

func (i *memIter) SeekLT(key []byte) bool {
	i.want = minChunk
	if key == nil {
		key = []byte{}
	}
	return i.down(key)
}

func (i *memIter) Next() bool {
	switch i.state {
	case iterFresh, iterBefore:
		return i.First()
	case iterAfter:
		return false
	}
	if i.pos+1 < len(i.chunk) {
		i.pos++
		return true
	}
	return i.up(i.chunk[i.pos].key, true)
}

func (i *memIter) Prev() bool {
	switch i.state {
	case iterFresh, iterAfter:
		return i.Last()
	case iterBefore:
		return false
	}
	if i.pos > 0 {
		i.pos--
		return true
	}
	return i.down(i.chunk[i.pos].key)
}

func (i *memIter) Key() []byte {
	if i.state != iterOn {
		return nil
	}
	return i.chunk[i.pos].key
}

func (i *memIter) Value() []byte {
	if i.state != iterOn {
		return nil
	}
	return i.chunk[i.pos].value
}

func (i *memIter) Err() error { return i.err }

func (i *memIter) Close() error {
	err := i.err
	*i = memIter{state: iterAfter}
	return err
}

var (
	_ Store    = (*memStore)(nil)
	_ Snapshot = (*memSnapshot)(nil)
	_ Batch    = (*memBatch)(nil)
	_ Iterator = (*memIter)(nil)
)
