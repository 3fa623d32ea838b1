package cbor

import (
	"encoding/binary"
	"errors"
	"math"
	"strconv"

	"github.com/barograph/baro/cid"
)

// Reader pulls values out of a byte slice from front to back, as strictly as [Valid]. It is a small struct that can be
// copied: a copy reads on by itself from the same place. What it returns as a view shares the memory of the slice.
//
// A method that fails leaves the Reader where it was. The caller keeps count of what [Reader.Array] and [Reader.Map]
// announce, and bounds its own recursion; [Reader.Skip] and [Reader.Raw] bound theirs at [MaxDepth].
type Reader struct {
	b   []byte
	off int
	l   *lenient
}

// NewReader returns a strict Reader at the start of b.
func NewReader(b []byte) Reader { return Reader{b: b} }

// NewLenientReader returns a Reader that hands each broken rule to report, which may be nil, and goes on where it can.
// It still fails on a hard rule, and where the Go value asked for can't hold what is there: an integer beyond int64, a
// link whose CID is bad, a key that isn't text. [Reader.Skip] and [Reader.Raw] pass over those. Of the errors reported by
// one Reader, and returned by it, only the first 64 have a path.
func NewLenientReader(b []byte, report func(*Error)) Reader {
	return Reader{b: b, l: &lenient{report: report}}
}

const maxPaths = 64

// Offset returns where the next value begins.
func (r *Reader) Offset() int { return r.off }

// Rest returns a view of what hasn't been read.
func (r *Reader) Rest() []byte { return r.b[r.off:] }

// End returns an error if anything is left.
func (r *Reader) End() error {
	if r.off == len(r.b) {
		return nil
	}
	return trailing(r.off, len(r.b)-r.off)
}

// Kind says of which kind the next value is, without reading it. Its error is that of an input that has ended or of a
// value that breaks a rule by its kind.
func (r *Reader) Kind() (Kind, error) {
	if r.off >= len(r.b) {
		return KindInvalid, r.fail(RuleTruncated, "")
	}
	k := kindOf(r.b, r.off)
	if k >= KindFloat && r.l == nil {
		if _, err := scan(r.b, r.off, nil, 0); err != nil {
			return KindInvalid, r.fail(err.Rule, err.Detail)
		}
	}
	return k, nil
}

// IsNull reports whether the next value is null.
func (r *Reader) IsNull() bool { return r.off < len(r.b) && r.b[r.off] == encNull }

// Null reads null.
func (r *Reader) Null() error {
	if !r.IsNull() {
		return r.mismatch(KindNull)
	}
	r.off++
	return nil
}

// Bool reads a boolean.
func (r *Reader) Bool() (bool, error) {
	if r.off < len(r.b) {
		switch r.b[r.off] {
		case encTrue:
			r.off++
			return true, nil
		case encFalse:
			r.off++
			return false, nil
		}
	}
	return false, r.mismatch(KindBool)
}

// Int reads an integer.
func (r *Reader) Int() (int64, error) {
	if r.off < len(r.b) {
		major := r.b[r.off] >> 5
		if major <= majNegative {
			next, arg, err := r.head(major, KindInt)
			if err != nil {
				return 0, err
			}
			if arg > math.MaxInt64 {
				return 0, r.fail(RuleIntRange, "")
			}
			r.off = next
			return int64(arg) ^ -int64(major), nil
		}
	}
	return 0, r.mismatch(KindInt)
}

// Text reads a string.
func (r *Reader) Text() (string, error) {
	b, err := r.TextBytes()
	return string(b), err
}

// TextBytes reads a string and returns a view of it.
func (r *Reader) TextBytes() ([]byte, error) {
	b, next, err := r.str(majText, KindText)
	if err != nil {
		return nil, err
	}
	if !ValidUTF8(b) {
		if err := r.soft(RuleUTF8, ""); err != nil {
			return nil, err
		}
	}
	r.off = next
	return b, nil
}

// Bytes reads a byte string and returns a view of it, which is not nil even if it is empty.
func (r *Reader) Bytes() ([]byte, error) {
	b, next, err := r.str(majBytes, KindBytes)
	if err != nil {
		return nil, err
	}
	r.off = next
	return b, nil
}

// Link reads a link.
func (r *Reader) Link() (cid.CID, error) {
	if b := r.b[r.off:]; len(b) >= linkSize && string(b[:len(linkPrefix)]) == linkPrefix && linkCID(b[len(linkPrefix):]) {
		r.off += linkSize
		return cid.CID(b[len(linkPrefix):]), nil
	}
	return cid.CID{}, r.mismatch(KindLink)
}

// Float reads a floating-point number of any width, which only a lenient Reader does.
func (r *Reader) Float() (float64, error) {
	if r.l == nil || r.off >= len(r.b) || kindOf(r.b, r.off) != KindFloat {
		return 0, r.mismatch(KindFloat)
	}
	v, next := simpleSlow(r.b, r.off)
	if v.rule != RuleFloat {
		return 0, r.fail(v.rule, v.detail)
	}
	if err := r.soft(RuleFloat, ""); err != nil {
		return 0, err
	}
	b := r.b[r.off+1 : next]
	r.off = next
	switch len(b) {
	case 2:
		return float16(binary.BigEndian.Uint16(b)), nil
	case 4:
		return float64(math.Float32frombits(binary.BigEndian.Uint32(b))), nil
	}
	return math.Float64frombits(binary.BigEndian.Uint64(b)), nil
}

// float16 is the number of which v is the half-precision form: a sign, five bits of exponent, ten of mantissa.
func float16(v uint16) float64 {
	exp, mant := int(v>>10&31), float64(v&1023)
	f := math.Ldexp(1024+mant, exp-25)
	switch {
	case exp == 0:
		f = math.Ldexp(mant, -24)
	case exp == 31 && mant == 0:
		f = math.Inf(1)
	case exp == 31:
		return math.NaN()
	}
	if v>>15 != 0 {
		f = -f
	}
	return f
}

// Array reads the head of an array and returns how many items follow. A lenient Reader returns -1 for an array of
// indefinite length, whose end [Reader.Break] finds.
func (r *Reader) Array() (n int, err error) { return r.container(majArray, KindArray, 1) }

// Map reads the head of a map and returns how many entries follow: each a key, for [Reader.MapKey], and a value. A lenient
// Reader returns -1 for a map of indefinite length, whose end [Reader.Break] finds.
func (r *Reader) Map() (n int, err error) { return r.container(majMap, KindMap, 2) }

// Break reads the end of a container of indefinite length, if it is next. A strict Reader meets none.
func (r *Reader) Break() bool {
	if r.l == nil || r.off >= len(r.b) || r.b[r.off] != encBreak {
		return false
	}
	r.off++
	return true
}

// MapKey reads a key and returns a view of it. Prev is the key before it in the same map, nil at the first.
func (r *Reader) MapKey(prev []byte) ([]byte, error) {
	key, next, err := r.str(majText, KindText)
	if err != nil {
		var e *Error
		if errors.As(err, &e) && e.Rule == RuleType {
			e.Rule = RuleKeyType
		}
		return nil, err
	}
	if !ValidUTF8(key) {
		if err := r.soft(RuleUTF8, "key"); err != nil {
			return nil, err
		}
	}
	if rule := keyRule(prev, key); rule != "" {
		if err := r.soft(rule, "key "+quote(key)); err != nil {
			return nil, err
		}
	}
	r.off = next
	return key, nil
}

func keyRule(prev, key []byte) Rule {
	switch {
	case len(key) > MaxKey:
		return RuleKeySize
	case len(key) > len(prev):
		return ""
	}
	return keyOrder(prev, key)
}

// Expect passes over encoded if that is what comes next, and reports whether it was. Encoded is a value, or a map key that
// the caller knows to be in order.
func (r *Reader) Expect(encoded string) bool {
	if n := len(encoded); len(r.b)-r.off >= n && string(r.b[r.off:r.off+n]) == encoded {
		r.off += n
		return true
	}
	return false
}

// Skip checks the next value and passes over it.
func (r *Reader) Skip() error {
	_, err := r.Raw()
	return err
}

// Raw checks the next value and returns a view of its bytes.
func (r *Reader) Raw() ([]byte, error) { return r.RawWithin(0) }

// RawWithin is [Reader.Raw] for a value that lies within depth containers, which count towards [MaxDepth]; less than 0 counts
// as 0.
func (r *Reader) RawWithin(depth int) ([]byte, error) {
	if r.off < len(r.b) && r.b[r.off]>>5 == majText { // not worth a scan
		start := r.off
		_, err := r.TextBytes()
		return r.b[start:r.off:r.off], err
	}
	end, err := scan(r.b, r.off, r.l.sub(r.b, r.off), max(depth, 0))
	if err != nil {
		err.Path = joinPath(r.path(), err.Path)
		return nil, err
	}
	v := r.b[r.off:end:end]
	r.off = end
	return v, nil
}

// sub returns the mode in which scan reads the value at b[off:], so that paths are told from the start of b.
func (l *lenient) sub(b []byte, off int) *lenient {
	if l == nil || l.report == nil {
		return l
	}
	return &lenient{report: func(e *Error) {
		if l.paths++; l.paths <= maxPaths {
			e.Path = joinPath(pathAt(b, off), e.Path)
		} else {
			e.Path = ""
		}
		l.report(e)
	}}
}

// head reads the head of a value of the given major type. It doesn't move r, but returns where the head ends.
func (r *Reader) head(major byte, want Kind) (next int, arg uint64, err error) {
	if r.off < len(r.b) {
		if c := r.b[r.off]; c>>5 == major {
			if c&31 < 24 {
				return r.off + 1, uint64(c & 31), nil
			}
			arg, next, rule := headArg(r.b, r.off+1, c)
			if rule == "" {
				return next, arg, nil
			}
			return next, arg, r.soft(rule, "")
		}
	}
	return 0, 0, r.mismatch(want)
}

// str reads a byte or text string. It doesn't move r.
func (r *Reader) str(major byte, want Kind) (s []byte, next int, err error) {
	if r.off < len(r.b) { // the fast case is a short head
		if size := int(r.b[r.off] - major<<5); size < 24 && size < len(r.b)-r.off {
			end := r.off + 1 + size
			return r.b[r.off+1 : end : end], end, nil
		}
	}
	next, arg, err := r.head(major, want)
	if err != nil {
		return nil, 0, err
	}
	if r.l != nil && r.b[r.off]&31 == 31 {
		return r.chunks(major)
	}
	if arg > uint64(len(r.b)-next) {
		return nil, 0, r.fail(RuleTruncated, lengthDetail(arg, len(r.b)-next))
	}
	end := next + int(arg)
	return r.b[next:end:end], end, nil
}

// chunks joins the chunks of an indefinite string.
func (r *Reader) chunks(major byte) (s []byte, next int, err error) {
	next, ok := skipChunks(r.b, r.off+1, major)
	if !ok {
		return nil, 0, r.fail(RuleTruncated, "chunks")
	}
	c := Reader{b: r.b[:next-1], off: r.off + 1, l: &lenient{}}
	s = []byte{}
	for c.off < len(c.b) {
		chunk, end, err := c.str(major, KindBytes)
		if err != nil {
			return nil, 0, r.fail(RuleReserved, "chunk within a chunk")
		}
		s, c.off = append(s, chunk...), end
	}
	return s, next, nil
}

func (r *Reader) container(major byte, want Kind, least int) (int, error) {
	next, arg, err := r.head(major, want)
	switch {
	case err != nil:
		return 0, err
	case r.l != nil && r.b[r.off]&31 == 31:
		r.off = next
		return -1, nil
	case arg > MaxElements:
		return 0, r.fail(RuleElements, strconv.FormatUint(arg, 10))
	case int(arg)*least > len(r.b)-next:
		return 0, r.fail(RuleTruncated, lengthDetail(arg, len(r.b)-next))
	}
	r.off = next
	return int(arg), nil
}

// mismatch is the error for a value that isn't what was asked for: that of the rule it breaks, or else of its kind.
func (r *Reader) mismatch(want Kind) error {
	if r.off >= len(r.b) {
		return r.fail(RuleTruncated, "")
	}
	if _, err := scan(r.b, r.off, nil, 0); err != nil && err.Offset == r.off {
		return r.fail(err.Rule, err.Detail)
	}
	return r.fail(RuleType, kindOf(r.b, r.off).String()+" where "+want.String()+" is wanted")
}

// fail builds the error of a value that begins at r.off.
func (r *Reader) fail(rule Rule, detail string) *Error {
	return &Error{Offset: r.off, Path: r.path(), Rule: rule, Detail: detail}
}

// path returns the path of the value that begins at r.off. A lenient Reader may fail at every value, and each path takes a
// scan of all that lies before.
func (r *Reader) path() string {
	if r.l != nil {
		if r.l.paths++; r.l.paths > maxPaths {
			return ""
		}
	}
	return pathAt(r.b, r.off)
}

// soft is fail for a rule that a lenient Reader reports.
func (r *Reader) soft(rule Rule, detail string) error {
	if r.l == nil || rule.Hard() {
		return r.fail(rule, detail)
	}
	if r.l.report != nil {
		r.l.report(r.fail(rule, detail))
	}
	return nil
}

// pathAt returns the path of the value at b[off:]. A Reader doesn't know it; to find out, what lies before is scanned up
// to there, which ends in an error that knows.
func pathAt(b []byte, off int) string {
	l := &lenient{locate: true}
	for pos := 0; pos < off; {
		end, err := scan(b[:off], pos, l, 0)
		if err != nil {
			return err.Path
		}
		pos = end
	}
	return ""
}

func joinPath(outer, inner string) string {
	if outer == "" || inner == "" || inner[0] == '[' {
		return outer + inner
	}
	return outer + "." + inner
}
