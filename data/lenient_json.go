package data

import (
	"bytes"
	"math"
	"reflect"

	"github.com/barograph/baro/cbor"
)

// AppendCBORLenient is [AppendCBOR] for JSON that may break rules of the data model, as records do that a server took
// without looking: numbers with fractions, integers beyond 64 bits, a `$link` that is no CID, a key twice. The smallest value
// that is at fault goes into the CBOR as it is, in the tag 262, "embedded JSON": a place that no valid record has. So the
// bytes are kept, nothing strict reads them, [Append] doesn't write them, and the functions with Lenient in their name know
// what they are. What isn't JSON, or nests too deep, is refused as ever. On an error dst is returned unchanged.
func AppendCBORLenient(dst, json []byte) ([]byte, *Lenient, error) {
	return Transcoder{}.AppendCBORLenient(dst, json)
}

// AppendCBORLenient is the function of that name under the limits of t.
func (t Transcoder) AppendCBORLenient(dst, json []byte) ([]byte, *Lenient, error) {
	if uint64(len(json))+uint64(len(dst)) > math.MaxInt32/4 { // what is kept needs room for its heads
		return dst, nil, &Error{Offset: -1, Rule: RuleSize, Detail: "512 MiB or more"}
	}
	p := parsers.Get().(*parser)
	defer p.release()
	p.in, p.dst, p.loose = json, dst, true
	if err := p.all(t.depth()); err != nil {
		return dst, nil, err
	}
	d := &dirt{lenient: &Lenient{Bytes: p.dst[len(dst):]}}
	if p.mended > 0 {
		r := cbor.NewLenientReader(d.lenient.Bytes, nil)
		if err := d.kept(&r); err != nil {
			return dst, nil, err
		}
	}
	return p.dst, d.lenient, nil
}

// soft says whether the reading can go on after a value that breaks the rule: its end can be found.
func (r Rule) soft() bool {
	switch r {
	case RuleUTF8, RuleSurrogate, RuleFloat, RuleIntRange, RuleKeyEmpty, RuleKeySize, RuleKeyDuplicate, RuleLink, RuleBytes, RuleType, RuleBlob:
		return true
	}
	return false
}

// maxReread bounds the work for values that are at fault within each other: how often the input may be read again.
const maxReread = 8

// mend puts the value that begins at from, and turned out to be at fault, into the place of what was written of it. It is
// false if that can't be done, or isn't asked for.
func (p *parser) mend(err *Error, from, dst, entries int) bool {
	if !p.loose || !err.Rule.soft() {
		return false
	}
	p.pos = from
	p.space()
	from = p.pos
	end := skipJSON(p.in, from)
	if end < 0 {
		return false
	}
	if p.mended += end - from; p.mended/maxReread > len(p.in) {
		return false
	}
	p.pos = end
	p.entries, p.late = p.entries[:entries], p.late[:p.lateFrom(dst)]
	p.dst = cbor.AppendBytes(append(p.dst[:dst], jsonTag...), p.in[from:end])
	return true
}

// jsonTag is the head of the tag for JSON in CBOR, https://www.iana.org/assignments/cbor-tags.
const jsonTag = "\xd9\x01\x06"

// keptJSON returns the text of a value that [AppendCBORLenient] kept. What follows the value is of no concern.
func keptJSON(raw []byte) ([]byte, bool) {
	rest, ok := bytes.CutPrefix(raw, []byte(jsonTag))
	if !ok {
		return nil, false
	}
	r := cbor.NewReader(rest)
	text, err := r.Bytes()
	return text, err == nil && len(text) > 0 && skipJSON(text, 0) == len(text)
}

// ofJSON is e with what is wrong with the JSON that was kept there.
func (e *Error) ofJSON(text []byte) *Error {
	_, err := AppendCBOR(nil, text)
	why, ok := err.(*Error)
	if !ok {
		return e // a valid value, in a tag all the same
	}
	return &Error{Offset: e.Offset, Path: joinPath(e.Path, why.Path), Rule: why.Rule, Detail: why.Detail}
}

func joinPath(a, b string) string {
	if a == "" || b == "" || b[0] == '[' {
		return a + b
	}
	return a + "." + b
}

// kept lists the values that were kept of JSON, in what is otherwise valid.
func (d *dirt) kept(r *cbor.Reader) error {
	k, err := r.Kind()
	if err != nil {
		return err
	}
	switch k {
	case cbor.KindMap:
		n, err := r.Map()
		for i := 0; err == nil && i < n; i++ {
			var key []byte
			if key, err = r.MapKey(key); err == nil {
				d.into(Step{Key: key})
				err = d.kept(r)
				d.out()
			}
		}
		return err
	case cbor.KindArray:
		n, err := r.Array()
		for i := 0; err == nil && i < n; i++ {
			d.into(Step{Index: i})
			err = d.kept(r)
			d.out()
		}
		return err
	}
	off := r.Offset()
	raw, err := r.Raw()
	if err != nil {
		return err
	}
	if text, ok := keptJSON(raw); ok {
		e := &Error{Offset: off, Rule: Rule(cbor.RuleTag)}
		if len(d.lenient.Violations) < MaxViolations {
			e.Path = pathOf(d.path)
			e = e.ofJSON(text)
		}
		d.add(e)
	}
	return nil
}

// UnmarshalJSONLenient is [UnmarshalJSON] for an answer that may not fit the struct, or the data model: a field whose value
// doesn't fit stays zero, with a violation, and so does one that is missing, as in [UnmarshalLenient]. What breaks a rule of
// the data model is read as by [AppendCBORLenient]: Extra and [Raw] fields keep it. What isn't JSON is refused as ever; the
// error is then that of UnmarshalJSON, and v is of no use. Offsets are those in the CBOR, which Bytes holds.
func UnmarshalJSONLenient(b []byte, v any) (*Lenient, error) {
	t := Transcoder{MaxDepth: maxDepthJSON}
	raw, l, err := t.AppendCBORLenient(make([]byte, 0, len(b)), b)
	if err != nil {
		return nil, err
	}
	strict := jsonError(decodeInto(raw, false, v, maxDepthJSON))
	if strict == nil {
		return l, nil
	}
	p := reflect.ValueOf(v)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return nil, strict
	}
	p.Elem().SetZero() // of what the strict reading got to
	d := &dirt{lenient: l}
	faulty := len(l.Violations) > 0
	r := decoder{r: cbor.NewLenientReader(raw, nil), dirty: d}
	whole := bytes.HasPrefix(raw, []byte(jsonTag)) // nothing of it could be read
	if err := r.decode(v, maxDepthJSON); err == nil && len(l.Violations) > 0 && !whole {
		return d.done(), nil
	}
	if faulty {
		if _, err := t.AppendCBOR(nil, b); err != nil {
			return nil, err
		}
	}
	return nil, strict
}

// Check says what is wrong with a value: nil if it is valid CBOR. Of what [AppendCBORLenient] kept it names the rule that the
// JSON breaks.
func Check(raw []byte) error {
	if cbor.Valid(raw) == nil {
		return nil
	}
	d, err := readLenient(raw)
	if len(d.lenient.Violations) == 0 {
		return err
	}
	return d.lenient.Violations[0]
}

// skipJSON returns where the JSON value that begins at i ends, -1 if it isn't one. Whether its texts are UTF-8 and its numbers
// have a meaning is of no concern.
func skipJSON(in []byte, i int) int {
	var open []byte // the containers around
	for {
		i = skipSpace(in, i)
		if i == len(in) {
			return -1
		}
		switch c := in[i]; c {
		case '{', '[':
			i = skipSpace(in, i+1)
			if i < len(in) && in[i] == c+2 { // the closing one
				i++
				break
			}
			open = append(open, c)
			if c == '{' {
				i = skipKey(in, i)
			}
			if i < 0 {
				return -1
			}
			continue
		case '"':
			i = skipString(in, i)
		case 't':
			i = skipWord(in, i, "true")
		case 'f':
			i = skipWord(in, i, "false")
		case 'n':
			i = skipWord(in, i, "null")
		default:
			i = skipNumber(in, i)
		}
		if i < 0 {
			return -1
		}
		for more := false; !more; { // a value has ended, and perhaps those around it
			if len(open) == 0 {
				return i
			}
			inner := open[len(open)-1]
			if i = skipSpace(in, i); i == len(in) {
				return -1
			}
			switch in[i] {
			case ',':
				i, more = i+1, true
				if inner == '{' {
					i = skipKey(in, skipSpace(in, i))
				}
				if i < 0 {
					return -1
				}
			case inner + 2:
				open = open[:len(open)-1]
				i++
			default:
				return -1
			}
		}
	}
}

func skipSpace(in []byte, i int) int {
	for i < len(in) && (in[i] == ' ' || in[i] == '\n' || in[i] == '\r' || in[i] == '\t') {
		i++
	}
	return i
}

func skipWord(in []byte, i int, word string) int {
	if !bytes.HasPrefix(in[i:], []byte(word)) {
		return -1
	}
	return i + len(word)
}

// skipKey is for a key and the colon after it.
func skipKey(in []byte, i int) int {
	if i = skipString(in, i); i < 0 {
		return -1
	}
	if i = skipSpace(in, i); i == len(in) || in[i] != ':' {
		return -1
	}
	return i + 1
}

func skipString(in []byte, i int) int {
	if i >= len(in) || in[i] != '"' {
		return -1
	}
	for i++; i < len(in); i++ {
		switch c := in[i]; {
		case c == '"':
			return i + 1
		case c < ' ':
			return -1
		case c == '\\':
			if i++; i == len(in) {
				return -1
			}
			if in[i] == 'u' {
				if _, ok := hex4(in[i+1:]); !ok {
					return -1
				}
				i += 4
			} else if !bytes.ContainsRune([]byte(`"\/bfnrt`), rune(in[i])) {
				return -1
			}
		}
	}
	return -1
}

func skipNumber(in []byte, i int) int {
	digits := func() bool {
		start := i
		for i < len(in) && in[i]-'0' < 10 {
			i++
		}
		return i > start
	}
	if in[i] == '-' {
		i++
	}
	first := i
	if !digits() || in[first] == '0' && i > first+1 {
		return -1
	}
	if i < len(in) && in[i] == '.' {
		if i++; !digits() {
			return -1
		}
	}
	if i < len(in) && in[i]|0x20 == 'e' {
		if i++; i < len(in) && (in[i] == '+' || in[i] == '-') {
			i++
		}
		if !digits() {
			return -1
		}
	}
	return i
}
