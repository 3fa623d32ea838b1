package car

import (
	"errors"
	"io"
	"iter"
	"sync"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/sha256x"
)

// Scanner reads an archive in a byte slice, without copies. It is used by value and allocates nothing but the list of
// roots.
type Scanner struct {
	o     Options
	b     []byte
	off   int
	next  int // index of the next block
	roots []cid.CID

	sum   [sha256x.Size]byte // of the next block, if known: they are hashed two by two
	known bool
}

// NewScanner reads the header.
func NewScanner(b []byte, o Options) (Scanner, error) {
	s := Scanner{o: o, b: b, next: -1}
	start, end, e := s.section(0, position{0, -1})
	if e != nil {
		return s, e
	}
	s.off, s.next = end, 0
	var err error
	s.roots, err = parseHeader(b[start:end])
	return s, err
}

// Roots returns the roots of the header.
func (s *Scanner) Roots() []cid.CID { return s.roots }

// Root returns the first root, or an undefined CID if there is none.
func (s *Scanner) Root() cid.CID { return first(s.roots) }

// Offset returns where the next block begins.
func (s *Scanner) Offset() int { return s.off }

// Next returns the next block, whose data is a view, or io.EOF behind the last one. After another error it returns that
// error again.
func (s *Scanner) Next() (Block, error) {
	if s.off == len(s.b) {
		return Block{}, io.EOF
	}
	at := position{int64(s.off), s.next}
	start, end, e := s.section(s.off, at)
	if e != nil {
		return Block{}, e
	}
	sum := s.sum
	if !s.o.Unverified && !s.known {
		sum = s.hash(start, end)
	}
	c, data, e := s.o.checkBlock(s.b[start:end:end], &sum, at)
	if e != nil {
		return Block{}, e
	}
	s.off = end
	s.next++
	s.known = !s.known
	return Block{c, data}, nil
}

// Skip passes over the next block without hashing it, and returns where its CID begins: its data are behind that, up to
// [Scanner.Offset]. Its errors are those of Next, but for the hash. The next call of Next hashes its own block.
func (s *Scanner) Skip() (at int, err error) {
	if s.off == len(s.b) {
		return 0, io.EOF
	}
	start, end, e := s.section(s.off, position{int64(s.off), s.next})
	if e != nil {
		return 0, e
	}
	if c := (*cid.CID)(s.b[start:]); !c.Valid() {
		e := position{int64(s.off), s.next}.fail(RuleCID, "")
		_, e.Err = cid.FromBytes(c[:])
		return 0, e
	}
	s.off, s.known = end, false
	s.next++
	return start, nil
}

// hash hashes the block at b[start:end], and the one behind it, for the next time.
func (s *Scanner) hash(start, end int) (sum [sha256x.Size]byte) {
	if end == len(s.b) {
		return sha256x.Sum(s.b[start+cid.Size:])
	}
	a, b, e := s.section(end, position{int64(end), s.next + 1})
	if e != nil { // which is an affair of the block behind
		return sha256x.Sum(s.b[start+cid.Size : end])
	}
	sum, s.sum = sha256x.Sum2(s.b[start+cid.Size:end], s.b[a+cid.Size:b])
	return sum
}

// section returns where the content lies whose length is at b[off].
func (s *Scanner) section(off int, at position) (start, end int, e *Error) {
	v, n := uvarint(s.b[off:])
	if n == 0 {
		return 0, 0, at.truncated()
	}
	if e := s.o.checkLength(v, n, at); e != nil {
		return 0, 0, e
	}
	start = off + n
	if v > uint64(len(s.b)-start) {
		return 0, 0, at.truncated()
	}
	return start, start + int(v), nil
}

func first(roots []cid.CID) cid.CID {
	if len(roots) == 0 {
		return cid.CID{}
	}
	return roots[0]
}

// Parse reads the header of the archive in b and returns its roots and blocks. The data of a block is a view of b. An error
// in second place ends the sequence, which can be run again.
func Parse(b []byte, o Options) (roots []cid.CID, blocks iter.Seq2[Block, error], err error) {
	s, err := NewScanner(b, o)
	if err != nil {
		return nil, nil, err
	}
	return s.roots, func(yield func(Block, error) bool) {
		for s := s; ; {
			block, err := s.Next()
			if err == io.EOF || !yield(block, err) || err != nil {
				return
			}
		}
	}, nil
}

// Reader reads an archive from a stream. Its buffer holds what has come, one block at least, and grows with it. Blocks that
// lie in it whole are hashed together, which takes less time than one by one; a read never waits for more than the next block.
type Reader struct {
	o     Options
	r     io.Reader // nil if all there is lies in buf, which is the caller's
	buf   []byte
	lo    int   // buf[lo:hi] has been read from r and not been used
	hi    int   //
	base  int64 // where in the stream buf[0] is
	next  int   // index of the next block
	roots []cid.CID
	rerr  error // from r, once it has ended
	err   error // sticky

	ahead  []sha256x.Span // the data of those blocks from lo on that have been hashed
	at     int            // the next of them
	memory *memory        // what buf and ahead are of

	near    int  // of buf, what touch has been at
	touched byte // keeps loads that are for nothing else

	// Of the buffer's last round, with Options.Keep: buf[clean:oldEnd] is as it was, and buf[0] was at oldBase in the stream.
	oldBase       int64
	clean, oldEnd int
}

const (
	bufSize   = 64 << 10  // of a buffer at first
	readSize  = 256 << 10 // of a read at most, with Options.Keep
	maxAhead  = 1024      // blocks to hash together
	sizeAhead = 512 << 10 // bytes of them, about: what stays near a processor
)

// memory is what a reader takes most of. That of readers which were released is used again: to get it anew costs more than
// a small archive takes to read.
type memory struct {
	buf    []byte
	ahead  []sha256x.Span
	hasher sha256x.Hasher
}

var memories = sync.Pool{New: func() any { return &memory{ahead: make([]sha256x.Span, 0, 128)} }}

// maxMemory is the size of the largest buffers to use again.
const maxMemory = 4 << 20

var errReleased = errors.New("car: the reader was released")

// NewReader reads the header.
func NewReader(r io.Reader, o Options) (*Reader, error) {
	m := memories.Get().(*memory)
	if m.buf == nil {
		m.buf = make([]byte, bufSize)
	}
	return newReader(&Reader{o: o, r: r, next: -1, buf: m.buf, memory: m})
}

// NewBytesReader reads the header of an archive that lies in memory. Nothing is copied: all data is a view of b, which must
// not be changed meanwhile, and stays valid.
func NewBytesReader(b []byte, o Options) (*Reader, error) {
	return newReader(&Reader{o: o, next: -1, buf: b, hi: len(b), rerr: io.EOF, memory: memories.Get().(*memory)})
}

func newReader(r *Reader) (*Reader, error) {
	r.ahead = r.memory.ahead[:0]
	start, end, err := r.wait()
	if err == io.EOF {
		err = position{0, -1}.truncated()
	}
	if err != nil {
		return nil, err
	}
	if r.roots, err = parseHeader(r.buf[start:end]); err != nil {
		return nil, err
	}
	r.lo, r.next = end, 0
	return r, nil
}

// Release gives the memory of the reader, and so that of all data it has returned, to other readers. It needn't be called.
func (r *Reader) Release() {
	m := r.memory
	if m == nil {
		return
	}
	if r.r != nil {
		m.buf = r.buf
	}
	m.ahead = r.ahead[:0]
	if len(m.buf) <= maxMemory {
		memories.Put(m)
	}
	r.buf, r.ahead, r.memory, r.r = nil, nil, nil, nil
	r.lo, r.hi, r.at, r.oldEnd, r.err = 0, 0, 0, 0, errReleased
}

// Roots returns the roots of the header.
func (r *Reader) Roots() []cid.CID { return r.roots }

// Root returns the first root, or an undefined CID if there is none.
func (r *Reader) Root() cid.CID { return first(r.roots) }

// Offset returns how many bytes of the stream have been used: where the next block begins.
func (r *Reader) Offset() int64 { return r.base + int64(r.lo) }

// Next returns the next block, or io.EOF behind the last one. The data is valid until the next call. After an error it
// returns that error again.
func (r *Reader) Next() (cid.CID, []byte, error) {
	c, data, err := r.NextView()
	if err != nil {
		return cid.CID{}, nil, err
	}
	return *c, data, nil
}

// NextView is [Reader.Next] without a copy of the CID, which is valid as long as the data and not to be changed either.
func (r *Reader) NextView() (*cid.CID, []byte, error) {
	if r.at == len(r.ahead) {
		if err := r.look(); err != nil {
			return nil, nil, err
		}
	}
	s := &r.ahead[r.at]
	b := r.buf[s.Start-cid.Size : s.End : s.End]
	c := (*cid.CID)(b)
	if !c.Valid() || *(*[sha256x.Size]byte)(c[cid.Size-sha256x.Size:]) != s.Sum && !r.o.Unverified {
		if r.err == nil {
			_, _, e := r.o.checkBlock(b, &s.Sum, position{r.Offset(), r.next})
			r.err = e
		}
		return nil, nil, r.err
	}
	r.at++
	r.next++
	r.lo = s.End
	return c, b[cid.Size:], nil
}

// Ahead returns the data of the i-th block behind the one that Next returned last, which is the 0th, if it has been read and
// hashed together with it, else nil. Whether it is what its CID names is told when it is the next.
func (r *Reader) Ahead(i int) []byte {
	if i += r.at - 1; i < 0 || i >= len(r.ahead) {
		return nil
	}
	s := &r.ahead[i]
	return r.buf[s.Start:s.End:s.End]
}

// Kept returns n bytes from an offset in the stream on, all of the same block and its CID, as they were read, if they are
// still in memory, else nil. They are valid until the next call of Next. How much is kept is the affair of [Options.Keep].
func (r *Reader) Kept(off int64, n int) []byte {
	if off+int64(n)+int64(r.o.Keep) < r.Offset() {
		return nil // even if it is there: that depends on how the bytes have come
	}
	if i := off - r.base; i >= 0 {
		if i+int64(n) > int64(r.lo) {
			return nil
		}
		return r.buf[i : i+int64(n) : i+int64(n)]
	}
	if i := off - r.oldBase; i >= int64(r.clean) && i+int64(n) <= int64(r.oldEnd) {
		return r.buf[i : i+int64(n) : i+int64(n)]
	}
	return nil
}

// Blocks returns what is left as a sequence. The data of a block is valid until the next one; an error in second place ends
// the sequence.
func (r *Reader) Blocks() iter.Seq2[Block, error] {
	return func(yield func(Block, error) bool) {
		for {
			c, data, err := r.Next()
			if err == io.EOF || !yield(Block{c, data}, err) || err != nil {
				return
			}
		}
	}
}

// look waits for the next block, and hashes it together with those behind it that have come already. What is wrong with the
// length of one of these is found when it is the next.
func (r *Reader) look() error {
	if r.err != nil {
		return r.err
	}
	start, end, err := r.wait()
	if err != nil {
		r.err = err
		return err
	}
	r.ahead, r.at = append(r.ahead[:0], sha256x.Span{Start: start + cid.Size, End: end}), 0
	if r.o.Unverified {
		return nil
	}
	at := position{r.Offset(), r.next}
	for len(r.ahead) < maxAhead && end-r.lo < sizeAhead {
		at.off, at.block = r.base+int64(end), at.block+1
		r.touch(end)
		var e *Error
		if start, end, e = r.section(end, at); e != nil || start == 0 || end > r.hi {
			break
		}
		r.ahead = append(r.ahead, sha256x.Span{Start: start + cid.Size, End: end})
	}
	r.memory.hasher.Spans(r.buf, r.ahead)
	return nil
}

// touch brings bytes from an offset in buf on near to the processor, if no Read has just written them: a piece in a row, as it
// can foresee. Lengths are each behind the block before, and hashing goes to sixteen places in turn: both would wait every time.
func (r *Reader) touch(off int) {
	const piece, line = 16 << 10, 64
	if r.r != nil || off+maxVarint < r.near {
		return
	}
	r.near = max(r.near, off)
	b := r.buf[r.near:min(r.near+piece, r.hi)]
	r.near += len(b)
	for ; len(b) >= line; b = b[line:] {
		r.touched |= b[0]
	}
}

// section reads the length that lies at buf[off], and returns where what it is of begins and ends. Both are 0 if the length
// isn't there whole; the end may lie behind what has come.
func (r *Reader) section(off int, at position) (start, end int, e *Error) {
	v, n := uvarint(r.buf[off:r.hi])
	if n == 0 {
		return 0, 0, nil
	}
	if e := r.o.checkLength(v, n, at); e != nil {
		return 0, 0, e
	}
	return off + n, off + n + int(v), nil
}

// wait returns where the next section's content begins and ends once it is there whole, or io.EOF if there is none.
func (r *Reader) wait() (start, end int, err error) {
	at := position{r.Offset(), r.next}
	for {
		start, end, e := r.section(r.lo, at)
		if e != nil {
			return 0, 0, e
		}
		size := r.hi - r.lo + 1
		if start > 0 {
			if end <= r.hi {
				return start, end, nil
			}
			size = end - r.lo
		}
		if err := r.fill(size); err != nil {
			if err == io.EOF && r.hi > r.lo {
				return 0, 0, at.truncated()
			}
			return 0, 0, err
		}
	}
}

// fill reads until there are n bytes from lo on. io.EOF means that the stream ended before, whether or not anything was
// left.
func (r *Reader) fill(n int) error {
	if r.r == nil {
		return r.rerr
	}
	// At its full size the buffer has room for what is to be kept, the end that is too short for the next block, that block,
	// and what is read beyond it.
	full := 0
	if r.o.Keep > 0 {
		full = r.o.Keep + 3*readSize
	}
	if r.lo > 0 && len(r.buf)-r.lo < n && len(r.buf) >= full {
		r.oldBase, r.oldEnd = r.base, 0
		if r.o.Keep > 0 {
			r.oldEnd = r.lo
		}
		copy(r.buf, r.buf[r.lo:r.hi])
		r.base += int64(r.lo)
		r.hi -= r.lo
		r.lo = 0
		r.clean = r.hi
	}
	empty := 0
	for r.hi-r.lo < n {
		if r.rerr != nil {
			return r.rerr
		}
		if r.hi == len(r.buf) { // twice what has come, not what was declared
			r.buf = append(r.buf, make([]byte, len(r.buf))...)
			r.buf = r.buf[:cap(r.buf)]
		}
		into := r.buf[r.hi:]
		if r.o.Keep > 0 {
			into = into[:min(len(into), readSize)]
			r.clean = max(r.clean, r.hi+len(into))
		}
		got, err := r.r.Read(into)
		if got < 0 || got > len(into) {
			return errors.New("car: the reader returned an impossible count")
		}
		r.hi += got
		if err != nil {
			r.rerr = err
		}
		if got > 0 {
			empty = 0
		} else if empty++; err == nil && empty == 100 {
			return io.ErrNoProgress
		}
	}
	return nil
}
