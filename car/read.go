package car

import (
	"errors"
	"io"
	"iter"

	"github.com/barograph/baro/cid"
)

// Scanner reads an archive in a byte slice, without copies. It is used by value and allocates nothing but the list of
// roots.
type Scanner struct {
	o     Options
	b     []byte
	off   int
	next  int // index of the next block
	roots []cid.CID
}

// NewScanner reads the header.
func NewScanner(b []byte, o Options) (Scanner, error) {
	s := Scanner{o: o, b: b, next: -1}
	h, err := s.section()
	if err != nil {
		return s, err
	}
	s.roots, err = parseHeader(h)
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
	at, block := s.off, s.next
	b, err := s.section()
	if err != nil {
		return Block{}, err
	}
	c, data, e := s.o.checkBlock(b, position{int64(at), block})
	if e != nil {
		s.off, s.next = at, block
		return Block{}, e
	}
	return Block{c, data}, nil
}

// section returns what follows the next length.
func (s *Scanner) section() ([]byte, error) {
	at := position{int64(s.off), s.next}
	v, n := uvarint(s.b[s.off:])
	if n == 0 {
		return nil, at.truncated()
	}
	if e := s.o.checkLength(v, n, at); e != nil {
		return nil, e
	}
	start := s.off + n
	if v > uint64(len(s.b)-start) {
		return nil, at.truncated()
	}
	s.off = start + int(v)
	s.next++
	return s.b[start:s.off], nil
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

// Reader reads an archive from a stream. Its buffer holds one block, and grows with what has come.
type Reader struct {
	o     Options
	r     io.Reader
	buf   []byte
	lo    int   // buf[lo:hi] has been read from r and not been used
	hi    int   //
	off   int64 // of buf[lo] in the stream
	next  int   // index of the next block
	roots []cid.CID
	rerr  error // from r, once it has ended
	err   error // sticky
}

const bufSize = 64 << 10

// NewReader reads the header.
func NewReader(r io.Reader, o Options) (*Reader, error) {
	cr := &Reader{o: o, r: r, next: -1, buf: make([]byte, bufSize)}
	h, err := cr.section()
	if err == io.EOF {
		err = position{0, -1}.truncated()
	}
	if err != nil {
		return nil, err
	}
	if cr.roots, err = parseHeader(h); err != nil {
		return nil, err
	}
	return cr, nil
}

// Roots returns the roots of the header.
func (r *Reader) Roots() []cid.CID { return r.roots }

// Root returns the first root, or an undefined CID if there is none.
func (r *Reader) Root() cid.CID { return first(r.roots) }

// Offset returns how many bytes of the stream have been used: where the next block begins.
func (r *Reader) Offset() int64 { return r.off }

// Next returns the next block, or io.EOF behind the last one. The data is valid until the next call. After an error it
// returns that error again.
func (r *Reader) Next() (cid.CID, []byte, error) {
	if r.err != nil {
		return cid.CID{}, nil, r.err
	}
	at := position{r.off, r.next}
	b, err := r.section()
	if err != nil {
		r.err = err
		return cid.CID{}, nil, err
	}
	c, data, e := r.o.checkBlock(b, at)
	if e != nil {
		r.err = e
		return cid.CID{}, nil, e
	}
	return c, data, nil
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

// section returns what follows the next length, or io.EOF if nothing does.
func (r *Reader) section() ([]byte, error) {
	at := position{r.off, r.next}
	v, n := uvarint(r.buf[r.lo:r.hi])
	for n == 0 {
		if err := r.fill(r.hi - r.lo + 1); err != nil {
			if err == io.EOF && r.hi > r.lo {
				return nil, at.truncated()
			}
			return nil, err
		}
		v, n = uvarint(r.buf[r.lo:r.hi])
	}
	if e := r.o.checkLength(v, n, at); e != nil {
		return nil, e
	}
	size := n + int(v)
	if r.hi-r.lo < size {
		if err := r.fill(size); err != nil {
			if err == io.EOF {
				return nil, at.truncated()
			}
			return nil, err
		}
	}
	b := r.buf[r.lo+n : r.lo+size : r.lo+size]
	r.lo += size
	r.off += int64(size)
	r.next++
	return b, nil
}

// fill reads until n bytes are there. io.EOF means that the stream ended before, whether or not anything was left.
func (r *Reader) fill(n int) error {
	if r.lo > 0 {
		copy(r.buf, r.buf[r.lo:r.hi])
		r.hi -= r.lo
		r.lo = 0
	}
	empty := 0
	for r.hi < n {
		if r.rerr != nil {
			return r.rerr
		}
		if r.hi == len(r.buf) { // twice what has come, not what was declared
			r.buf = append(r.buf, make([]byte, len(r.buf))...)
		}
		got, err := r.r.Read(r.buf[r.hi:])
		if got < 0 || got > len(r.buf)-r.hi {
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
