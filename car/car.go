// Package car reads and writes the archives (CAR, version 1) in which repositories, diffs and proofs travel.
//
// Specification: https://atproto.com/specs/repository#car-file-serialization and https://dasl.ing/car.html.
//
// An archive is a header, which names roots, and a row of blocks, each with its CID. Readers take blocks in any order, also
// twice and also ones that nothing links to; every block is hashed and must be what its CID names. What the blocks hold,
// and whether any are missing, is the subject of packages mst and repo.
//
//	r, err := car.NewReader(body, car.Options{MaxBytes: 1 << 30})
//	for {
//		c, block, err := r.Next() // block is valid until the next call
//		if err == io.EOF {
//			break
//		}
//	}
//
// A [Reader] reads a stream in memory bounded by one block, or by what [Options.Keep] asks it to keep. It hashes the blocks
// that have come together, which takes less than half the time of one by one; each is returned only after its hash was
// right. [NewBytesReader] makes one that reads what lies in memory. A [Scanner], and [Parse] on top of it, read a byte slice, such as the blocks of a commit message, and return views
// of it.
//
// Limits: header 4 KiB, block 1 MiB (or [Options.MaxBlock]), lengths of at most nine bytes in their shortest form, CIDs of
// package cid only; a declared length is not allocated before the bytes have come. The number of blocks and bytes in all has
// no limit unless [Options] gives one. An archive need not have a root: the answer of com.atproto.sync.getBlocks has none.
// What comes twice or is linked to by nothing is not this package's affair: package repo has a quota for it. Errors are of
// type [*Error], or those of the underlying reader. The API is stable.
package car

import (
	"fmt"
	"io"
	"math"
	"math/bits"
	"strconv"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/sha256x"
)

// MediaType is that of an archive in HTTP.
const MediaType = "application/vnd.ipld.car"

// Limits that aren't in [Options].
const (
	MaxHeader = 4096 // bytes of the header without its length
	maxVarint = 9    // bytes of a length
)

// Options bounds what is read. The zero value is fit for a repository from anywhere.
type Options struct {
	MaxBlock  int   // bytes of one block without its CID; 0 means cbor.MaxRecord, negative any number
	MaxBlocks int   // blocks in all; 0 means any number
	MaxBytes  int64 // bytes of the archive in all; 0 means any number

	// Keep is for how many bytes behind the last block a Reader keeps what it has read, see [Reader.Kept]. Its buffer grows
	// to about that size as they come. A block of more than 256 KiB may cost some of what was to be kept.
	Keep int

	// Unverified leaves out the hashing: a block may then be anything. Only for bytes that were checked before.
	Unverified bool
}

func (o *Options) maxBlock() int {
	switch {
	case o.MaxBlock == 0:
		return cbor.MaxRecord
	case o.MaxBlock < 0:
		return maxSection
	}
	return min(o.MaxBlock, maxSection)
}

// maxSection keeps sums of lengths within an int, whatever is declared.
const maxSection = math.MaxInt / 4

// Rule names what is wrong with an archive.
type Rule string

// The rules.
const (
	RuleTruncated  Rule = "truncated"   // the input ends within the header or a block
	RuleVarint     Rule = "varint"      // a length over nine bytes or not in its shortest form
	RuleHeaderSize Rule = "header-size" // a header over MaxHeader bytes, or of none
	RuleHeader     Rule = "header"      // not the strict CBOR of a map with roots and version
	RuleVersion    Rule = "version"     // a version other than 1
	RuleCID        Rule = "cid"         // a block without a CID of package cid
	RuleBlockSize  Rule = "block-size"  // a block over Options.MaxBlock
	RuleHash       Rule = "hash"        // a block that isn't what its CID names
	RuleBlocks     Rule = "blocks"      // more than Options.MaxBlocks
	RuleBytes      Rule = "bytes"       // more than Options.MaxBytes
)

// Error says what is wrong with an archive and where.
type Error struct {
	Offset int64 // where the header's or block's length begins
	Block  int   // which block, from 0; -1 is the header
	Rule   Rule
	CID    cid.CID // that the block claims, with RuleHash
	Detail string
	Err    error // the cause, if there is one: of package cbor or cid, or io.ErrUnexpectedEOF
}

// Error returns one line that says everything.
func (e *Error) Error() string {
	where := "header"
	if e.Block >= 0 {
		where = "block " + strconv.Itoa(e.Block)
	}
	detail := e.Detail
	if e.CID.Defined() {
		detail = e.CID.String()
	}
	if detail != "" {
		detail = ": " + detail
	}
	if e.Err != nil && e.Rule != RuleTruncated {
		detail += ": " + e.Err.Error()
	}
	return fmt.Sprintf("car: %s in %s%s (byte %d)", e.Rule, where, detail, e.Offset)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Block is one block and its CID.
type Block struct {
	CID  cid.CID
	Data []byte
}

// uvarint reads a length. n is 0 if b ends before it does, and negative if it breaks the rule.
func uvarint(b []byte) (v uint64, n int) {
	for i, c := range b {
		if i == maxVarint {
			return 0, -1
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			if c == 0 && i > 0 {
				return 0, -1
			}
			return v, i + 1
		}
	}
	if len(b) >= maxVarint {
		return 0, -1
	}
	return 0, 0
}

func appendUvarint(b []byte, v uint64) []byte {
	for ; v >= 0x80; v >>= 7 {
		b = append(b, byte(v)|0x80)
	}
	return append(b, byte(v))
}

// What stands before and behind the root in a header that has one, as nearly all have.
const (
	rootHead = "\xa2\x65roots\x81\xd8\x2a\x58\x25\x00"
	rootTail = "\x67version\x01"
)

// parseHeader reads the CBOR of a header.
func parseHeader(b []byte) (roots []cid.CID, err error) {
	if n := len(rootHead); len(b) == n+cid.Size+len(rootTail) && string(b[:n]) == rootHead && string(b[n+cid.Size:]) == rootTail {
		if c, err := cid.FromBytes(b[n : n+cid.Size]); err == nil {
			return []cid.CID{c}, nil
		}
	}
	fail := func(err error) ([]cid.CID, error) {
		return nil, &Error{Block: -1, Rule: RuleHeader, Err: err}
	}
	if err := cbor.Valid(b); err != nil {
		return fail(err)
	}
	r := cbor.NewReader(b)
	n, err := r.Map()
	if err != nil {
		return fail(err)
	}
	var key []byte
	hasRoots, hasVersion := false, false
	for range n {
		if key, err = r.MapKey(key); err != nil {
			return fail(err)
		}
		switch string(key) {
		case "roots":
			hasRoots = true
			n, err := r.Array()
			if err != nil {
				return fail(err)
			}
			for range n {
				c, err := r.Link()
				if err != nil {
					return fail(err)
				}
				roots = append(roots, c)
			}
		case "version":
			hasVersion = true
			v, err := r.Int()
			if err != nil {
				return fail(err)
			}
			if v != 1 {
				return nil, &Error{Block: -1, Rule: RuleVersion, Detail: strconv.FormatInt(v, 10)}
			}
		default:
			return nil, &Error{Block: -1, Rule: RuleHeader, Detail: "unknown field " + strconv.QuoteToASCII(string(key[:min(len(key), 64)]))}
		}
	}
	if !hasRoots || !hasVersion {
		return nil, &Error{Block: -1, Rule: RuleHeader, Detail: "no roots or no version"}
	}
	return roots, nil
}

// checkLength checks the declared length of a header or block.
func (o *Options) checkLength(v uint64, n int, at position) *Error {
	switch {
	case n < 0:
		return at.fail(RuleVarint, "")
	case at.block < 0 && (v == 0 || v > MaxHeader):
		return at.fail(RuleHeaderSize, strconv.FormatUint(v, 10)+" bytes")
	case at.block < 0:
	case v < cid.Size:
		return at.fail(RuleCID, strconv.FormatUint(v, 10)+" bytes have no room for one")
	case v-cid.Size > uint64(o.maxBlock()):
		return at.fail(RuleBlockSize, strconv.FormatUint(v-cid.Size, 10)+" bytes")
	case o.MaxBlocks > 0 && at.block >= o.MaxBlocks:
		return at.fail(RuleBlocks, "more than "+strconv.Itoa(o.MaxBlocks))
	}
	if o.MaxBytes > 0 && uint64(at.off)+uint64(n)+v > uint64(o.MaxBytes) {
		return at.fail(RuleBytes, "more than "+strconv.FormatInt(o.MaxBytes, 10))
	}
	return nil
}

// checkBlock takes a block apart and holds its hash, unless that is left out, against its CID.
func (o *Options) checkBlock(b []byte, sum *[sha256x.Size]byte, at position) (cid.CID, []byte, *Error) {
	c, err := cid.FromBytes(b[:cid.Size])
	if err != nil {
		e := at.fail(RuleCID, "")
		e.Err = err
		return cid.CID{}, nil, e
	}
	if !o.Unverified && *sum != c.Digest() {
		e := at.fail(RuleHash, "")
		e.CID = c
		return cid.CID{}, nil, e
	}
	return c, b[cid.Size:len(b):len(b)], nil
}

// position is where a length begins: that of the header if block is -1.
type position struct {
	off   int64
	block int
}

func (p position) fail(rule Rule, detail string) *Error {
	return &Error{Offset: p.off, Block: p.block, Rule: rule, Detail: detail}
}

func (p position) truncated() *Error {
	return &Error{Offset: p.off, Block: p.block, Rule: RuleTruncated, Err: io.ErrUnexpectedEOF}
}

// AppendHeader appends the header of an archive.
func AppendHeader(dst []byte, roots ...cid.CID) []byte {
	h := cbor.AppendMap(make([]byte, 0, 32+41*len(roots)), 2)
	h = cbor.AppendText(h, "roots")
	h = cbor.AppendArray(h, len(roots))
	for _, c := range roots {
		h = cbor.AppendLink(h, c)
	}
	h = cbor.AppendText(h, "version")
	h = cbor.AppendInt(h, 1)
	return append(appendUvarint(dst, uint64(len(h))), h...)
}

// AppendBlock appends a block. It doesn't check that c names data.
func AppendBlock(dst []byte, c cid.CID, data []byte) []byte {
	dst = appendUvarint(dst, uint64(cid.Size+len(data)))
	dst = append(dst, c[:]...)
	return append(dst, data...)
}

// BlockSize returns how many bytes [AppendBlock] appends for n bytes of data.
func BlockSize(n int) int {
	n += cid.Size
	return n + (bits.Len(uint(n))+6)/7
}

// Writer writes an archive to a stream, one Write per block.
type Writer struct {
	w   io.Writer
	buf []byte
	err error
}

// NewWriter writes the header at once. Writing many small blocks to a file or connection wants a bufio.Writer in between.
func NewWriter(w io.Writer, roots ...cid.CID) (*Writer, error) {
	cw := &Writer{w: w}
	cw.buf = AppendHeader(nil, roots...)
	return cw, cw.flush()
}

// Write writes a block. It doesn't check that c names data. After an error every call returns it again.
func (w *Writer) Write(c cid.CID, data []byte) error {
	if w.err != nil {
		return w.err
	}
	if !c.Defined() {
		return fmt.Errorf("car: writing a block: %w: undefined", cid.ErrInvalid)
	}
	w.buf = AppendBlock(w.buf[:0], c, data)
	return w.flush()
}

func (w *Writer) flush() error {
	if _, err := w.w.Write(w.buf); err != nil {
		w.err = fmt.Errorf("car: writing: %w", err)
	}
	return w.err
}
