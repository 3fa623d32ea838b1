package data

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/barograph/baro/cbor"
)

// MaxViolations is how many violations a lenient reading lists.
const MaxViolations = 100

// Lenient says what a lenient reading has met. Records that break rules exist: they are signed, linked to, and shown by
// others. The functions with Lenient in their name read what can be read of them, for showing and searching. They never
// make them valid: what counts, and what the CID is of, are the bytes, and written anew they would be another record.
type Lenient struct {
	// Bytes is what was read: the argument, neither copied nor changed; the CBOR that was made of it if that was JSON.
	Bytes []byte
	// Violations are the broken rules in the order of their offsets; none means that the strict function reads the same. A
	// rule of package cbor has its name there, as in Rule(cbor.RuleFloat).
	Violations []*Error
	// More says that there are more than [MaxViolations].
	More bool
}

// Raw returns the value that was read, if it is a valid one, and else its first violation.
func (l *Lenient) Raw() (Raw, error) {
	if len(l.Violations) > 0 {
		return nil, l.Violations[0]
	}
	return l.Bytes, nil
}

// Dirty is a value that the data model has no place for, in CBOR: a tag, a simple value, a link whose CID isn't one of the
// protocol, an integer below int64. It occurs in the trees of [DecodeLenient] only; [Encode] refuses it.
type Dirty []byte

// UnmarshalLenient is [Unmarshal] for a value that may break rules. Fields may come in any order, and the last one of a key
// counts. A field whose value doesn't fit stays zero, with a violation; so does one that is missing. Extra and [Raw] fields
// keep what they are given even if it is broken, which [Append] refuses to write. An error means that the end of the value
// couldn't be found, or that v is no pointer to what Unmarshal knows; the violation is then the last one.
func UnmarshalLenient(b []byte, v any) (*Lenient, error) {
	d, err := readLenient(b)
	if err != nil {
		return d.lenient, err
	}
	r := decoder{r: cbor.NewLenientReader(b, nil), dirty: d}
	err = r.decode(v, cbor.MaxDepth)
	return d.done(), err
}

// DecodeLenient is [Decode] for a value that may break rules. The tree then holds, besides what Decode gives, float64,
// uint64 for integers beyond int64, strings that aren't UTF-8, and [Dirty], which [Encode] all refuses. The last one of a
// key counts; a key that isn't text is given as text: integers in decimal, others as the base64 of their CBOR.
func DecodeLenient(b []byte) (any, *Lenient, error) {
	d, err := readLenient(b)
	if err != nil {
		return nil, d.lenient, err
	}
	t := treeReader{r: cbor.NewLenientReader(b, nil), dirty: d}
	v, err := t.value(cbor.MaxDepth)
	if err != nil {
		return nil, d.done(), err
	}
	return v, d.done(), nil
}

// AppendJSONLenient is [AppendJSON] for a value that may break rules. The JSON is for showing. It has the entries of maps
// in the order and number in which they are there, keys that aren't text as [DecodeLenient] gives them, U+FFFD in the place of
// what isn't UTF-8, and integers in full. Finite floats are numbers, always with a point or an exponent. What JSON has no
// form for is {"$cbor": "…"}, with the base64 of its CBOR. What [AppendCBORLenient] kept is as it was. On an error dst is returned unchanged.
func AppendJSONLenient(dst, b []byte) ([]byte, *Lenient, error) {
	d, err := readLenient(b)
	if err != nil {
		return dst, d.lenient, err
	}
	w := jsonWriter{r: cbor.NewLenientReader(b, nil), dirty: d}
	out, err := w.value(dst, cbor.MaxDepth)
	if err != nil {
		return dst, d.done(), err
	}
	return out, d.done(), nil
}

// dirt collects what is wrong with an input. The methods that only strict readings could call on nil may be.
type dirt struct {
	lenient *Lenient
	path    []Step // to what is being read
}

// readLenient looks for broken rules of CBOR in all of b; the reading itself, which comes after, needn't tell of them. The
// error is that of an input that can't be read at all.
func readLenient(b []byte) (*dirt, error) {
	d := &dirt{lenient: &Lenient{Bytes: b}}
	var err error
	for _, e := range cbor.Violations(b, MaxViolations+1) {
		v := &Error{Offset: e.Offset, Path: e.Path, Rule: Rule(e.Rule), Detail: e.Detail}
		if e.Rule.Hard() {
			err = v
		} else if e.Rule == cbor.RuleTag {
			if text, ok := keptJSON(b[e.Offset:]); ok {
				v = v.ofJSON(text)
			}
		}
		d.add(v)
	}
	return d, err
}

// add lists e. One that ended the reading is listed in any case.
func (d *dirt) add(e *Error) {
	l := d.lenient
	if len(l.Violations) < MaxViolations {
		l.Violations = append(l.Violations, e)
		return
	}
	l.More = true
	if cbor.Rule(e.Rule).Hard() {
		l.Violations[MaxViolations-1] = e
	}
}

// found lists the error of a struct or of the data model for the value at off, where the reading is.
func (d *dirt) found(off int, err error) {
	e := &Error{Offset: off}
	switch err := err.(type) {
	case *Error:
		e.Rule, e.Detail = err.Rule, err.Detail
	case *cbor.Error:
		switch err.Rule {
		case cbor.RuleFloat, cbor.RuleSimple, cbor.RuleTag, cbor.RuleCID, cbor.RuleIntRange:
			return // listed already, and reason enough
		}
		e.Rule, e.Detail = RuleValue, "another kind of value is wanted"
		if err.Rule == cbor.RuleType {
			e.Detail = err.Detail
		}
	}
	if len(d.lenient.Violations) < MaxViolations { // else it isn't worth building the path
		e.Path = pathOf(d.path)
	}
	d.add(e)
}

// done puts the list in order.
func (d *dirt) done() *Lenient {
	slices.SortStableFunc(d.lenient.Violations, func(a, b *Error) int { return a.Offset - b.Offset })
	return d.lenient
}

func (d *dirt) into(s Step) {
	if d != nil {
		d.path = append(d.path, s)
	}
}

func (d *dirt) out() {
	if d != nil {
		d.path = d.path[:len(d.path)-1]
	}
}

// key reads a map key: a view of it if it is text, which is not nil, and else nil.
func (d *dirt) key(r *cbor.Reader, depth int) ([]byte, error) {
	if k, err := r.Kind(); err != nil {
		return nil, err
	} else if k != cbor.KindText {
		_, err := r.RawWithin(depth)
		return nil, err
	}
	return r.TextBytes()
}

// textKey reads a map key and returns it as valid text.
func (d *dirt) textKey(r *cbor.Reader, depth int) ([]byte, error) {
	k, err := r.Kind()
	if err != nil {
		return nil, err
	}
	if k == cbor.KindText {
		s, err := r.TextBytes()
		return []byte(strings.ToValidUTF8(string(s), replacement)), err
	}
	raw, err := r.RawWithin(depth)
	if err != nil {
		return nil, err
	}
	if k == cbor.KindInt {
		return appendAnyInt(nil, raw), nil
	}
	return base64.RawStdEncoding.AppendEncode(nil, raw), nil
}

const replacement = "\uFFFD"

// appendAnyInt appends the integer that raw is, of whatever size and head, in decimal.
func appendAnyInt(dst, raw []byte) []byte {
	r := cbor.NewLenientReader(raw, nil)
	if v, err := r.Int(); err == nil {
		return strconv.AppendInt(dst, v, 10)
	}
	switch v := binary.BigEndian.Uint64(raw[1:]); { // what is beyond int64 has eight bytes
	case raw[0]>>5 == 0:
		return strconv.AppendUint(dst, v, 10)
	case v == math.MaxUint64:
		return append(dst, "-18446744073709551616"...)
	default:
		return strconv.AppendUint(append(dst, '-'), v+1, 10)
	}
}

// typeAnywhere is typeOf for a map whose keys may come in any order.
func typeAnywhere(r cbor.Reader) []byte {
	n, err := r.Map()
	var d dirt
	var typ []byte
	for i := 0; err == nil && i != n; i++ {
		if n < 0 && r.Break() {
			break
		}
		var key []byte
		if key, err = d.key(&r, 0); err != nil {
			break
		}
		if k, _ := r.Kind(); string(key) == typeKey && k == cbor.KindText {
			typ, err = r.TextBytes() // the last one counts
		} else {
			err = r.Skip()
		}
	}
	return typ
}

// odd makes the Go value of one that has no place in the data model, which err says unless it is known from its kind.
func (t *treeReader) odd(left int, err error) (any, error) {
	if t.dirty == nil {
		return nil, err
	}
	if k, _ := t.r.Kind(); k == cbor.KindFloat {
		return noNil(t.r.Float())
	}
	raw, err := t.r.RawWithin(depthOf(left))
	if err != nil {
		return nil, err
	}
	if raw[0] == 0x1b {
		return binary.BigEndian.Uint64(raw[1:]), nil
	}
	if text, ok := keptJSON(raw); ok {
		if n, err := strconv.ParseUint(string(text), 10, 64); err == nil {
			return n, nil
		}
		if f, err := strconv.ParseFloat(string(text), 64); err == nil { // JSON has no spelling of what is not finite
			return f, nil
		}
	}
	return Dirty(slices.Clone(raw)), nil
}

// odd appends a value that has no form in JSON, or not that of its kind.
func (w *jsonWriter) odd(dst []byte, left int, err error) ([]byte, error) {
	if w.dirty == nil {
		return dst, err
	}
	k, _ := w.r.Kind()
	if k == cbor.KindFloat {
		f := w.r
		if v, err := f.Float(); err == nil && !math.IsNaN(v) && !math.IsInf(v, 0) {
			w.r = f
			start := len(dst)
			dst = strconv.AppendFloat(dst, v, 'g', -1, 64)
			if !strings.ContainsAny(string(dst[start:]), ".e") {
				dst = append(dst, ".0"...)
			}
			return dst, nil
		}
	}
	raw, err := w.r.RawWithin(depthOf(left))
	if err != nil {
		return dst, err
	}
	if k == cbor.KindInt {
		return appendAnyInt(dst, raw), nil
	}
	if text, ok := keptJSON(raw); ok {
		return append(dst, strings.ToValidUTF8(string(text), replacement)...), nil
	}
	dst = append(dst, `{"$cbor":"`...)
	return append(base64.RawStdEncoding.AppendEncode(dst, raw), `"}`...), nil
}
