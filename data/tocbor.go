package data

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"
	"unicode/utf8"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
)

// AppendCBOR appends the CBOR of one JSON value, read under the rules of the package comment. Errors are of type [*Error];
// dst is then returned unchanged.
func AppendCBOR(dst, json []byte) ([]byte, error) { return Transcoder{}.AppendCBOR(dst, json) }

// AppendCBOR is the function of that name under the limits of t.
func (t Transcoder) AppendCBOR(dst, json []byte) ([]byte, error) {
	if uint64(len(json))+uint64(len(dst)) > math.MaxInt32 { // entries have 32 bits
		return dst, &Error{Offset: -1, Rule: RuleSize, Detail: "2 GiB or more"}
	}
	p := parsers.Get().(*parser)
	defer p.release()
	p.in, p.dst = json, dst
	if err := p.all(t.depth()); err != nil {
		return dst, err
	}
	return p.dst, nil
}

// all reads the one value that the input should be.
func (p *parser) all(left int) *Error {
	at := len(p.dst)
	p.shallow = left - movedDepth
	if err := p.value(left); err != nil && !p.mend(err, 0, at, 0) {
		return err
	}
	if p.space(); p.pos < len(p.in) {
		return p.fail(p.pos, RuleTrailing, "")
	}
	return nil
}

// parser writes CBOR while it reads JSON. Heads of containers are written before their size is known, with one byte, and
// the entries of a map in the order in which they come: both are put right when the container ends.
type parser struct {
	in      []byte
	pos     int
	dst     []byte
	entries []entry // of all the maps that are open, the innermost last
	scratch []byte

	shallow int     // containers in which more than this may nest are put right at once, the others later: see settle
	late    []late  // those others, the inner before the outer
	kept    []entry // of them

	loose  bool // see mend
	mended int  // bytes of JSON that were read again
}

// entry is where an entry of a map lies in dst.
type entry struct {
	start, end uint32 // with the head of the key
	key, size  uint32 // the text of the key
	json       uint32 // where the key lies in the input
}

var parsers = sync.Pool{New: func() any { return new(parser) }}

// maxKept bounds the memory that an idle parser holds.
const maxKept = 1 << 20

func (p *parser) release() {
	p.in, p.dst, p.pos = nil, nil, 0
	p.loose, p.mended = false, 0
	p.entries, p.late, p.kept = p.entries[:0], p.late[:0], p.kept[:0]
	if cap(p.entries)+cap(p.late)+cap(p.kept) > maxKept/32 {
		p.entries, p.late, p.kept = nil, nil, nil
	}
	if cap(p.scratch) > maxKept {
		p.scratch = nil
	}
	parsers.Put(p)
}

func (p *parser) fail(off int, rule Rule, detail string) *Error {
	return &Error{Offset: off, Rule: rule, Detail: detail}
}

// unexpected is the error for what is at the current position.
func (p *parser) unexpected(want string) *Error {
	if p.pos >= len(p.in) {
		return p.fail(p.pos, RuleTruncated, want+" is missing")
	}
	return p.fail(p.pos, RuleSyntax, strconv.QuoteRuneToASCII(rune(p.in[p.pos]))+" where "+want+" is wanted")
}

func (p *parser) space() {
	for p.pos < len(p.in) {
		switch p.in[p.pos] {
		case ' ', '\n', '\r', '\t':
			p.pos++
		default:
			return
		}
	}
}

// value reads a value, in which left containers may nest.
func (p *parser) value(left int) *Error {
	p.space()
	if p.pos >= len(p.in) {
		return p.unexpected("a value")
	}
	switch c := p.in[p.pos]; c {
	case '"':
		_, err := p.text()
		return err
	case '{':
		return p.object(left)
	case '[':
		return p.array(left)
	case 't':
		return p.literal("true", 0xf5)
	case 'f':
		return p.literal("false", 0xf4)
	case 'n':
		return p.literal("null", 0xf6)
	default:
		if c == '-' || c-'0' < 10 {
			return p.number()
		}
		return p.unexpected("a value")
	}
}

func (p *parser) literal(s string, b byte) *Error {
	if rest := p.in[p.pos:]; len(rest) < len(s) || string(rest[:len(s)]) != s {
		return p.unexpected(s)
	}
	p.pos += len(s)
	p.dst = append(p.dst, b)
	return nil
}

func (p *parser) array(left int) *Error {
	if left == 0 {
		return p.fail(p.pos, RuleDepth, "")
	}
	open := p.pos
	p.pos++
	head, within := len(p.dst), len(p.entries)
	p.dst = append(p.dst, 0)
	n := 0
	for p.space(); ; {
		if n == 0 && p.pos < len(p.in) && p.in[p.pos] == ']' {
			break
		}
		if n == cbor.MaxElements {
			return p.fail(open, RuleElements, "")
		}
		at, out := p.pos, len(p.dst)
		if err := p.value(left - 1); err != nil && !p.mend(err, at, out, within) {
			return err.inItem(n)
		}
		n++
		if p.space(); p.pos < len(p.in) && p.in[p.pos] == ',' {
			p.pos++
			continue
		}
		if p.pos < len(p.in) && p.in[p.pos] == ']' {
			break
		}
		return p.unexpected(`"," or "]"`)
	}
	p.pos++
	p.finish(left, head, arrayMajor, n, nil)
	return nil
}

const arrayMajor, mapMajor = 0x80, 0xa0

// finish puts a container right, in which left could nest: at once or, where it is deep, later.
func (p *parser) finish(left, head int, major byte, n int, unsorted []entry) {
	if left <= p.shallow {
		p.postpone(head, major, n, unsorted)
		if left == p.shallow {
			p.settle(head)
		}
		return
	}
	if len(unsorted) > 0 {
		p.move(head+1, unsorted)
	}
	p.setHead(head, major, n)
}

// setHead writes the head of a container of n elements into the byte that was left for it, and makes room if it is longer.
func (p *parser) setHead(head int, major byte, n int) {
	if n < 24 {
		p.dst[head] = major | byte(n)
		return
	}
	var b [5]byte
	var h []byte
	if major == arrayMajor {
		h = cbor.AppendArray(b[:0], n)
	} else {
		h = cbor.AppendMap(b[:0], n)
	}
	p.dst = slices.Replace(p.dst, head, head+1, h...)
}

func (p *parser) object(left int) *Error {
	open := p.pos
	p.pos++
	head := len(p.dst)
	p.dst = append(p.dst, 0)
	base := len(p.entries)
	sorted, blob := true, false
	for p.space(); ; {
		n := len(p.entries) - base
		if n == 0 && p.pos < len(p.in) && p.in[p.pos] == '}' {
			break
		}
		at := p.pos
		if at >= len(p.in) || p.in[at] != '"' {
			return p.unexpected("a key")
		}
		start := len(p.dst)
		textAt, err := p.text()
		if err != nil {
			return err
		}
		key := p.dst[textAt:]
		switch {
		case len(key) == 0:
			return p.fail(at, RuleKeyEmpty, "")
		case len(key) > cbor.MaxKey:
			return p.fail(at, RuleKeySize, strconv.Itoa(len(key))+" bytes")
		case n == cbor.MaxElements:
			return p.fail(open, RuleElements, "")
		}
		if p.space(); p.pos >= len(p.in) || p.in[p.pos] != ':' {
			return p.unexpected(`":"`)
		}
		p.pos++
		if rule := reservedRule(key); rule != "" {
			if n > 0 {
				return p.fail(open, rule, string(key)+" with other keys")
			}
			return p.wrapped(open, head, rule)
		}
		if left == 0 {
			return p.fail(open, RuleDepth, "")
		}
		if n > 0 && sorted {
			last := &p.entries[len(p.entries)-1]
			sorted = compareKeys(p.dst[last.key:last.key+last.size], key) < 0
		}
		p.entries = append(p.entries, entry{start: uint32(start), key: uint32(textAt), size: uint32(len(key)), json: uint32(at)})
		valueAt, from := len(p.dst), p.pos
		if err := p.value(left - 1); err != nil && !p.mend(err, from, valueAt, base+n+1) {
			return err.inKey(p.dst[textAt : textAt+len(key)])
		}
		p.entries[base+n].end = uint32(len(p.dst))
		if len(key) == len(typeKey) && string(p.dst[textAt:valueAt]) == typeKey {
			v := p.dst[valueAt:]
			if v[0]>>5 != 3 || v[0] == 0x60 {
				return p.fail(at, RuleType, "$type must be a text that isn't empty")
			}
			blob = string(v[1:]) == blobType
		}
		if p.space(); p.pos < len(p.in) && p.in[p.pos] == ',' {
			p.pos++
			p.space()
			continue
		}
		if p.pos < len(p.in) && p.in[p.pos] == '}' {
			break
		}
		return p.unexpected(`"," or "}"`)
	}
	p.pos++
	n := len(p.entries) - base
	if n == 0 && left == 0 {
		return p.fail(open, RuleDepth, "")
	}
	var unsorted []entry
	if !sorted {
		unsorted = p.entries[base:]
		if err := p.sort(unsorted); err != nil {
			return err
		}
	}
	p.finish(left, head, mapMajor, n, unsorted)
	p.entries = p.entries[:base]
	if blob {
		p.settle(head)
		if problem := blobProblem(cbor.NewReader(p.dst[head:])); problem != "" {
			return p.fail(open, RuleBlob, problem)
		}
	}
	return nil
}

// sort finds the order of the entries of a map, and keys that come twice.
func (p *parser) sort(entries []entry) *Error {
	key := func(e *entry) []byte { return p.dst[e.key:][:e.size] }
	if len(entries) <= 16 {
		for i := 1; i < len(entries); i++ {
			for j := i; j > 0 && compareKeys(key(&entries[j]), key(&entries[j-1])) < 0; j-- {
				entries[j], entries[j-1] = entries[j-1], entries[j]
			}
		}
	} else {
		slices.SortFunc(entries, func(a, b entry) int { return compareKeys(key(&a), key(&b)) })
	}
	for i := 1; i < len(entries); i++ {
		e := &entries[i]
		if bytes.Equal(key(&entries[i-1]), key(e)) {
			at := max(e.json, entries[i-1].json)
			return p.fail(int(at), RuleKeyDuplicate, strconv.QuoteToASCII(string(key(e)[:min(int(e.size), 64)])))
		}
	}
	return nil
}

// move brings the entries of the map whose entries begin at body into the order in which they are given.
func (p *parser) move(body int, entries []entry) {
	p.scratch = append(p.scratch[:0], p.dst[body:]...)
	to := body
	for i := range entries {
		e := &entries[i]
		to += copy(p.dst[to:], p.scratch[int(e.start)-body:int(e.end)-body])
	}
}

func compareKeys(a, b []byte) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return bytes.Compare(a, b)
}

// base64Strict refuses a last character whose unused bits are set, which would be a second spelling.
var base64Strict = base64.RawStdEncoding.Strict()

// wrapped reads the value of a `$link` or `$bytes` and the end of its object, which began at open and is to be written
// at head.
func (p *parser) wrapped(open, head int, rule Rule) *Error {
	p.dst = p.dst[:head]
	p.space()
	if p.pos >= len(p.in) {
		return p.unexpected("a value")
	}
	if p.in[p.pos] != '"' {
		return p.fail(open, rule, "not a string")
	}
	textAt, err := p.text()
	if err != nil {
		return err
	}
	if p.space(); p.pos >= len(p.in) || p.in[p.pos] != '}' {
		if p.pos < len(p.in) && p.in[p.pos] == ',' {
			return p.fail(open, rule, "with other keys")
		}
		return p.unexpected(`"}"`)
	}
	p.pos++
	text := p.dst[textAt:]
	if rule == RuleLink {
		c, err := cid.Parse(text)
		if err != nil {
			return p.fail(open, rule, err.Error())
		}
		p.dst = cbor.AppendLink(p.dst[:head], c)
		return nil
	}
	if bytes.ContainsAny(text, "\r\n") { // the decoder would pass over them
		return p.fail(open, rule, "line break in base64")
	}
	if len(text)%4 == 0 {
		text = bytes.TrimSuffix(text, []byte("="))
		text = bytes.TrimSuffix(text, []byte("="))
	}
	v, derr := base64Strict.AppendDecode(p.scratch[:0], text)
	if derr != nil {
		return p.fail(open, rule, derr.Error())
	}
	p.scratch = v
	p.dst = cbor.AppendBytes(p.dst[:head], v)
	return nil
}

// text reads a string and appends it as CBOR. It returns where in dst the text itself begins; it ends with dst.
func (p *parser) text() (at int, err *Error) {
	open := p.pos
	in := p.in
	i := open + 1
	// First, how far it goes: what is between the quotes is copied at once unless there are escapes in it.
	var or uint64
	for i+8 <= len(in) {
		x := binary.LittleEndian.Uint64(in[i:])
		if special(x) != 0 {
			break
		}
		or |= x
		i += 8
	}
	for i < len(in) && in[i] >= ' ' && in[i] != '"' && in[i] != '\\' {
		or |= uint64(in[i])
		i++
	}
	if i >= len(in) {
		return 0, p.fail(open, RuleTruncated, "string")
	}
	s := in[open+1 : i]
	if or&highs != 0 && !utf8.Valid(s) {
		return 0, p.fail(open, RuleUTF8, "")
	}
	if in[i] == '"' {
		p.pos = i + 1
		p.dst = cbor.AppendTextBytes(p.dst, s)
		return len(p.dst) - len(s), nil
	}
	return p.escaped(open, i)
}

// escaped reads the string at open, whose first escape (or bad character) is at i.
func (p *parser) escaped(open, i int) (at int, err *Error) {
	head := len(p.dst)
	p.dst = append(p.dst, 0, 0, 0, 0, 0) // room for the longest head of a length below 4 GiB
	p.dst = append(p.dst, p.in[open+1:i]...)
	in := p.in
	for {
		run := i
		for i < len(in) && in[i] >= ' ' && in[i] != '"' && in[i] != '\\' {
			i++
		}
		if !utf8.Valid(in[run:i]) {
			return 0, p.fail(open, RuleUTF8, "")
		}
		p.dst = append(p.dst, in[run:i]...)
		if i >= len(in) {
			return 0, p.fail(open, RuleTruncated, "string")
		}
		if in[i] == '"' {
			break
		}
		if in[i] < ' ' {
			return 0, p.fail(i, RuleSyntax, "control character in a string")
		}
		if i+1 >= len(in) {
			return 0, p.fail(open, RuleTruncated, "string")
		}
		c := in[i+1]
		i += 2
		switch c {
		case '"', '\\', '/':
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r, ok := hex4(in[i:])
			if !ok {
				return 0, p.fail(i-2, RuleSyntax, `\u without four hexadecimal digits`)
			}
			i += 4
			if r >= 0xd800 && r < 0xe000 {
				lo, ok := rune(0), false
				if r < 0xdc00 && i+1 < len(in) && in[i] == '\\' && in[i+1] == 'u' {
					lo, ok = hex4(in[i+2:])
				}
				if !ok || lo < 0xdc00 || lo >= 0xe000 {
					return 0, p.fail(i-6, RuleSurrogate, "")
				}
				r = (r-0xd800)<<10 + (lo - 0xdc00) + 0x10000
				i += 6
			}
			p.dst = utf8.AppendRune(p.dst, r)
			continue
		default:
			return 0, p.fail(i-2, RuleSyntax, "unknown escape")
		}
		p.dst = append(p.dst, c)
	}
	p.pos = i + 1
	// The head is rarely as long as the room for it.
	var b [9]byte
	size := len(p.dst) - head - 5
	h := cbor.AppendTextHead(b[:0], size)
	copy(p.dst[head:], h)
	copy(p.dst[head+len(h):], p.dst[head+5:])
	p.dst = p.dst[:head+len(h)+size]
	return head + len(h), nil
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case c-'0' < 10:
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// number reads a number, which must be an integer by its value, however it is spelled.
func (p *parser) number() *Error {
	open := p.pos
	in := p.in
	i := open
	neg := in[i] == '-'
	if neg {
		i++
	}
	first := i
	var v uint64
	for i < len(in) && in[i]-'0' < 10 {
		v = v*10 + uint64(in[i]-'0') // may wrap: digits counts
		i++
	}
	digits := i - first
	switch {
	case digits == 0:
		p.pos = i
		return p.unexpected("a digit")
	case in[first] == '0' && digits > 1:
		return p.fail(open, RuleSyntax, "number with a leading zero")
	}
	if i < len(in) && (in[i] == '.' || in[i]|0x20 == 'e') {
		var err *Error
		if v, i, err = p.spelledOut(first, i); err != nil {
			return err
		}
	} else if digits > 19 { // 19 digits fit in 64 bits
		return p.fail(open, RuleIntRange, clip(in[open:i]))
	}
	p.pos = i
	switch {
	case !neg && v <= math.MaxInt64:
		p.dst = cbor.AppendInt(p.dst, int64(v))
	case neg && v <= math.MaxInt64+1:
		p.dst = cbor.AppendInt(p.dst, -int64(v))
	default:
		return p.fail(open, RuleIntRange, clip(in[open:i]))
	}
	return nil
}

// spelledOut reads the absolute value of a number with a fraction or an exponent; its digits begin at first, and i is
// behind those before the point. It works on the digits, since a float64 would round.
func (p *parser) spelledOut(first, i int) (v uint64, next int, err *Error) {
	in := p.in
	whole := in[first:i]
	var frac []byte
	if in[i] == '.' {
		start := i + 1
		for i = start; i < len(in) && in[i]-'0' < 10; i++ {
		}
		if frac = in[start:i]; len(frac) == 0 {
			p.pos = i
			return 0, i, p.unexpected("a digit")
		}
	}
	exp := 0
	if i < len(in) && in[i]|0x20 == 'e' {
		i++
		minus := i < len(in) && in[i] == '-'
		if i < len(in) && (in[i] == '-' || in[i] == '+') {
			i++
		}
		start := i
		for ; i < len(in) && in[i]-'0' < 10; i++ {
			exp = min(exp*10+int(in[i]-'0'), math.MaxInt32)
		}
		if i == start {
			p.pos = i
			return 0, i, p.unexpected("a digit")
		}
		if minus {
			exp = -exp
		}
	}
	// The value is digits × 10^exp.
	whole = bytes.TrimLeft(whole, "0")
	frac = bytes.TrimRight(frac, "0")
	if len(whole) == 0 && len(bytes.TrimLeft(frac, "0")) == 0 {
		return 0, i, nil
	}
	exp -= len(frac)
	for len(frac) == 0 && exp < 0 && len(whole) > 0 && whole[len(whole)-1] == '0' {
		whole = whole[:len(whole)-1]
		exp++
	}
	if exp < 0 {
		return 0, i, p.fail(first, RuleFloat, clip(in[first:i]))
	}
	digits := 0
	for _, part := range [...][]byte{whole, frac} {
		for _, c := range part {
			if c == '0' && digits == 0 {
				continue
			}
			if digits++; digits > 19 {
				return 0, i, p.fail(first, RuleIntRange, clip(in[first:i]))
			}
			v = v*10 + uint64(c-'0')
		}
	}
	if digits+exp > 19 {
		return 0, i, p.fail(first, RuleIntRange, clip(in[first:i]))
	}
	for range exp {
		v *= 10
	}
	return v, i, nil
}

// clip shortens what goes into a message.
func clip(b []byte) string {
	if len(b) > 40 {
		return fmt.Sprintf("%s… (%d digits)", b[:40], len(b))
	}
	return string(b)
}
