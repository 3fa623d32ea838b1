package cbor

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/barograph/baro/cid"
)

// Valid checks that b is exactly one value, with nothing after it. It allocates only to report an error, a [*Error].
func Valid(b []byte) error {
	n, err := scan(b, 0, nil, 0)
	if err != nil {
		return err
	}
	if n != len(b) {
		return trailing(n, len(b)-n)
	}
	return nil
}

// Scan checks the first value of b and returns its length. What follows is not looked at.
func Scan(b []byte) (n int, err error) {
	n, e := scan(b, 0, nil, 0)
	if e != nil {
		return 0, e
	}
	return n, nil
}

// ScanWithin is [Scan] for a value that lies within depth containers, which count towards [MaxDepth]; less than 0 counts as 0.
func ScanWithin(b []byte, depth int) (n int, err error) {
	n, e := scan(b, 0, nil, max(depth, 0))
	if e != nil {
		return 0, e
	}
	return n, nil
}

// Violations lists what is wrong with the one value that b should be, at most limit entries. An empty list means that
// [Valid] agrees. One past which nothing can be made out ([Rule.Hard]) is the last, if need be in the place of another.
func Violations(b []byte, limit int) []*Error {
	var list []*Error
	l := &lenient{}
	if limit > 0 {
		l.report = func(e *Error) {
			if list = append(list, e); len(list) == limit {
				l.report = nil
			}
		}
	}
	n, err := scan(b, 0, l, 0)
	if err == nil && n != len(b) {
		err = trailing(n, len(b)-n)
	}
	if err != nil && limit > 0 {
		list = append(list[:min(len(list), limit-1)], err)
	}
	return list
}

func trailing(off, n int) *Error {
	return &Error{Offset: off, Rule: RuleTrailing, Detail: strconv.Itoa(n) + " bytes after the value"}
}

// lenient is the mode in which broken rules are told to report, and reading goes on. A nil *lenient is the strict mode.
type lenient struct {
	report func(*Error) // may be nil
	paths  int          // how many paths a Reader has computed, see Reader.fail
	locate bool         // don't compare element counts with the bytes left: the input was cut on purpose
}

// frame is a container being scanned. Offsets have 32 bits to keep the stack small, since it is cleared on each scan.
type frame struct {
	left uint32 // items or entries to come; an indefinite container starts with more than it may have
	n    uint32 // of how many, or indefinite
	key  uint32 // offset of the current key, of a map; 0 before the first
	size uint32 // its length; 0 before the first key, notMap for an array
}

const (
	notMap     = math.MaxUint32 // frame.size of an array
	indefinite = math.MaxUint32 // frame.n of an indefinite container
)

// scan is the one validator: it walks over the value at b[pos:] and returns the offset of its end. Depth containers are
// open around it. In lenient mode (l not nil) the broken rules are reported, and only a hard one is returned.
//
// It is iterative, with its stack in the frame of the function. The head of the loop handles what records are made of;
// everything else goes to the functions below, which either name the broken rule or say how to go on.
func scan(b []byte, pos int, l *lenient, depth int) (int, *Error) {
	if uint64(len(b)) > math.MaxUint32-8 {
		return 0, &Error{Offset: pos, Rule: RuleTruncated, Detail: "inputs of 4 GiB and more are not read"}
	}
	var stack [MaxDepth]frame
	sp := 0 // stack[:sp] are the outer containers; cur is the innermost
	cur := frame{left: 1, n: 1, size: notMap}

	for {
		if cur.size != notMap {
			// A map: its next key. The fast case is text with a short head.
			start := pos
			var size int
			if pos < len(b) && b[pos]>>5 == majText && b[pos]&31 < 24 {
				size = int(b[pos] & 31)
				pos++
				if size > len(b)-pos {
					return 0, failAt(b, start, RuleTruncated, "key", &stack, sp, cur.beforeKey())
				}
			} else {
				var v verdict
				v, pos, size = keySlow(b, pos, l != nil && cur.n == indefinite)
				if v.end {
					goto pop
				}
				if v.rule != "" {
					if e := l.softAt(b, start, v.rule, v.detail, &stack, sp, cur.beforeKey()); e != nil {
						return 0, e
					}
				}
				if v.raw { // not plain text: there is no order to check
					end, e := scan(b, start, &lenient{}, depth+sp)
					if e != nil {
						return 0, failAt(b, start, e.Rule, "key", &stack, sp, cur.beforeKey())
					}
					pos = end
					cur.key, cur.size = uint32(pos), 0
					goto value
				}
			}
			key := b[pos : pos+size]
			if !ValidUTF8(key) {
				if e := l.softAt(b, start, RuleUTF8, "key", &stack, sp, cur.beforeKey()); e != nil {
					return 0, e
				}
			}
			if uint32(size) <= cur.size { // a longer key is in order, and so is the first
				if rule := keyOrder(b[cur.key:cur.key+cur.size], key); rule != "" {
					if e := l.softAt(b, start, rule, "key "+quote(key), &stack, sp, cur.beforeKey()); e != nil {
						return 0, e
					}
				}
			}
			cur.key, cur.size = uint32(pos), uint32(size)
			pos += size
		}

	value:
		if pos >= len(b) {
			return 0, failAt(b, pos, RuleTruncated, "", &stack, sp, cur)
		}
		{
			start := pos
			c := b[pos]
			pos++
			arg := uint64(c & 31)
			open := false                                           // of indefinite length
			if c == majText<<5|24 && pos < len(b) && b[pos] >= 24 { // text of up to 255 bytes
				arg = uint64(b[pos])
				pos++
			} else if arg >= 24 && c>>5 < majTag {
				// A longer head. arg is what it says, size how many bytes it takes.
				var rule Rule
				arg, pos, rule = headArg(b, pos, c)
				if rule != "" {
					if e := l.softAt(b, start, rule, "", &stack, sp, cur); e != nil {
						return 0, e
					}
					if open = rule == RuleIndefinite; open && c>>5 <= majText {
						var ok bool
						if pos, ok = skipChunks(b, pos, c>>5); !ok {
							return 0, failAt(b, start, RuleTruncated, "chunks", &stack, sp, cur)
						}
						goto done
					}
				}
			}
			switch c >> 5 {
			case majUint, majNegative:
				if arg > math.MaxInt64 {
					if e := l.softAt(b, start, RuleIntRange, "", &stack, sp, cur); e != nil {
						return 0, e
					}
				}
			case majText:
				if arg > uint64(len(b)-pos) {
					return 0, failAt(b, start, RuleTruncated, lengthDetail(arg, len(b)-pos), &stack, sp, cur)
				}
				if !ValidUTF8(b[pos : pos+int(arg)]) {
					if e := l.softAt(b, start, RuleUTF8, "", &stack, sp, cur); e != nil {
						return 0, e
					}
				}
				pos += int(arg)
			case majBytes:
				if arg > uint64(len(b)-pos) {
					return 0, failAt(b, start, RuleTruncated, lengthDetail(arg, len(b)-pos), &stack, sp, cur)
				}
				pos += int(arg)
			case majArray, majMap:
				next := frame{left: uint32(arg), n: uint32(arg), size: notMap}
				least := 1 // bytes that an element takes
				if c>>5 == majMap {
					next.size, least = 0, 2
				}
				if open {
					next.left, next.n = MaxElements+1, indefinite
				} else {
					if arg > MaxElements {
						return 0, failAt(b, start, RuleElements, strconv.FormatUint(arg, 10), &stack, sp, cur)
					}
					if int(arg)*least > len(b)-pos && (l == nil || !l.locate) {
						return 0, failAt(b, start, RuleTruncated, lengthDetail(arg, len(b)-pos), &stack, sp, cur)
					}
				}
				if depth+sp >= MaxDepth {
					return 0, failAt(b, start, RuleDepth, "", &stack, sp, cur)
				}
				if arg != 0 || open {
					stack[sp] = cur
					sp++
					cur = next
					continue
				}
			case majTag:
				if len(b)-start >= linkSize && string(b[start:start+len(linkPrefix)]) == linkPrefix && linkCID(b[start+len(linkPrefix):]) {
					pos = start + linkSize
					break
				}
				v, next := tagSlow(b, start)
				if e := l.softAt(b, start, v.rule, v.detail, &stack, sp, cur); e != nil {
					return 0, e
				}
				pos = next
				if v.raw {
					goto value // the tag is passed over, its content is the value
				}
			case majSimple:
				if c == encFalse || c == encTrue || c == encNull {
					break
				}
				if c == encBreak && l != nil && cur.n == indefinite && cur.size == notMap {
					goto pop
				}
				v, next := simpleSlow(b, start)
				if e := l.softAt(b, start, v.rule, v.detail, &stack, sp, cur); e != nil {
					return 0, e
				}
				pos = next
			}
		}
	done:
		cur.left--
		if cur.left != 0 {
			continue
		}
		if cur.n == indefinite { // it has no end yet
			return 0, failAt(b, pos, RuleElements, "of indefinite length", &stack, sp, cur)
		}
	pop:
		for {
			if sp == 0 {
				return pos, nil
			}
			sp--
			cur = stack[sp]
			cur.left--
			if cur.left != 0 {
				break
			}
			if cur.n == indefinite {
				return 0, failAt(b, pos, RuleElements, "of indefinite length", &stack, sp, cur)
			}
		}
	}
}

// softAt reports a rule that is broken at b[off:] and returns nil if the mode is lenient and the rule isn't a hard one; else
// it returns the error. Nobody may want to hear of it; then the error isn't even made, which takes longer than all else.
func (l *lenient) softAt(b []byte, off int, rule Rule, detail string, stack *[MaxDepth]frame, sp int, cur frame) *Error {
	if l == nil || rule.Hard() {
		return failAt(b, off, rule, detail, stack, sp, cur)
	}
	if l.report != nil {
		l.report(failAt(b, off, rule, detail, stack, sp, cur))
	}
	return nil
}

// verdict is what a slow path found.
type verdict struct {
	rule   Rule // "" if all is well
	detail string
	raw    bool // see the caller
	end    bool // the container ends here
}

// headArg reads the argument of a head whose additional information is 24 or more; pos is behind the initial byte.
func headArg(b []byte, pos int, c byte) (arg uint64, next int, rule Rule) {
	rest := b[pos:]
	switch c & 31 {
	case 24:
		if len(rest) < 1 {
			return 0, pos, RuleTruncated
		}
		arg, next = uint64(rest[0]), pos+1
		if arg < 24 {
			rule = RuleMinimal
		}
	case 25:
		if len(rest) < 2 {
			return 0, pos, RuleTruncated
		}
		arg, next = uint64(binary.BigEndian.Uint16(rest)), pos+2
		if arg <= math.MaxUint8 {
			rule = RuleMinimal
		}
	case 26:
		if len(rest) < 4 {
			return 0, pos, RuleTruncated
		}
		arg, next = uint64(binary.BigEndian.Uint32(rest)), pos+4
		if arg <= math.MaxUint16 {
			rule = RuleMinimal
		}
	case 27:
		if len(rest) < 8 {
			return 0, pos, RuleTruncated
		}
		arg, next = binary.BigEndian.Uint64(rest), pos+8
		if arg <= math.MaxUint32 {
			rule = RuleMinimal
		}
	case 31:
		if m := c >> 5; m >= majBytes && m <= majMap {
			return 0, pos, RuleIndefinite
		}
		return 0, pos, RuleReserved
	default:
		return 0, pos, RuleReserved
	}
	return arg, next, rule
}

// keySlow reads a key that isn't text of less than 24 bytes. It returns where the text begins and its size; with raw, it is
// not text of known length. Open says that a break may come instead.
func keySlow(b []byte, pos int, open bool) (v verdict, next, size int) {
	if pos >= len(b) {
		return verdict{rule: RuleTruncated}, pos, 0
	}
	c := b[pos]
	if c == encBreak && open {
		return verdict{end: true}, pos + 1, 0
	}
	if c>>5 != majText {
		return verdict{rule: RuleKeyType, detail: kindOf(b, pos).String(), raw: true}, pos, 0
	}
	arg, next, rule := headArg(b, pos+1, c)
	switch {
	case rule == RuleIndefinite:
		return verdict{rule: rule, raw: true}, pos, 0
	case rule == RuleTruncated || rule == RuleReserved:
		return verdict{rule: rule, detail: "key"}, pos, 0
	case arg > uint64(len(b)-next):
		return verdict{rule: RuleTruncated, detail: lengthDetail(arg, len(b)-next)}, pos, 0
	case arg > MaxKey:
		return verdict{rule: RuleKeySize, detail: strconv.FormatUint(arg, 10) + " bytes"}, next, int(arg)
	}
	return verdict{rule: rule}, next, int(arg)
}

// tagSlow names what is wrong with a tag that isn't a valid link. next is behind the value, or with raw behind the tag.
func tagSlow(b []byte, start int) (v verdict, next int) {
	c := b[start]
	arg, next := uint64(c&31), start+1
	if arg >= 24 {
		var rule Rule
		if arg, next, rule = headArg(b, next, c); rule != "" {
			return verdict{rule: rule, detail: "tag", raw: true}, next
		}
	}
	if arg != 42 {
		return verdict{rule: RuleTag, detail: "tag " + strconv.FormatUint(arg, 10), raw: true}, next
	}
	if next >= len(b) {
		return verdict{rule: RuleTruncated, detail: "link"}, next
	}
	if b[next]>>5 != majBytes {
		return verdict{rule: RuleCID, detail: "tag 42 around " + kindOf(b, next).String(), raw: true}, next
	}
	size, body := uint64(b[next]&31), next+1
	if size >= 24 {
		var rule Rule
		if size, body, rule = headArg(b, body, b[next]); rule != "" {
			return verdict{rule: rule, detail: "link", raw: true}, next
		}
	}
	if size > uint64(len(b)-body) {
		return verdict{rule: RuleTruncated, detail: lengthDetail(size, len(b)-body)}, next
	}
	content := b[body : body+int(size)]
	v = verdict{rule: RuleCID}
	if size == 0 || content[0] != 0 {
		v.detail = "no 0x00 before the CID"
	} else if _, err := cid.FromBytes(content[1:]); err != nil {
		v.detail = err.Error()
	}
	return v, body + int(size)
}

// simpleSlow names what is wrong with a value of major type 7 that is neither false, true nor null.
func simpleSlow(b []byte, start int) (v verdict, next int) {
	c := b[start]
	switch info := c & 31; info {
	case 25, 26, 27:
		next = start + 1 + 1<<(info-24)
		v = verdict{rule: RuleFloat}
	case 24:
		next = start + 2
		v = verdict{rule: RuleSimple}
	case 28, 29, 30, 31:
		return verdict{rule: RuleReserved}, start
	case 23:
		return verdict{rule: RuleSimple, detail: "undefined"}, start + 1
	default:
		return verdict{rule: RuleSimple, detail: "simple value " + strconv.Itoa(int(info))}, start + 1
	}
	if next > len(b) {
		return verdict{rule: RuleTruncated}, start
	}
	return v, next
}

// skipChunks passes over the chunks of an indefinite string and its break.
func skipChunks(b []byte, pos int, major byte) (next int, ok bool) {
	for pos < len(b) {
		c := b[pos]
		pos++
		if c == encBreak {
			return pos, true
		}
		if c>>5 != major {
			return 0, false
		}
		arg := uint64(c & 31)
		if arg >= 24 {
			var rule Rule
			if arg, pos, rule = headArg(b, pos, c); rule != "" && rule != RuleMinimal {
				return 0, false
			}
		}
		if arg > uint64(len(b)-pos) {
			return 0, false
		}
		pos += int(arg)
	}
	return 0, false
}

// linkCID reports whether b begins with a CID of the two codecs.
func linkCID(b []byte) bool {
	return b[0] == 1 && (b[1] == byte(cid.DagCBOR) || b[1] == byte(cid.Raw)) && b[2] == 0x12 && b[3] == 32
}

// beforeKey is the frame as it was before any key, so that an error in a key gets the path of the map.
func (f frame) beforeKey() frame {
	f.key, f.size = 0, 0
	return f
}

// keyOrder names the rule that a key breaks which isn't longer than prev, the one before it.
func keyOrder(prev, key []byte) Rule {
	switch {
	case len(key) == 0:
		return RuleKeyEmpty
	case len(key) < len(prev):
		return RuleKeyOrder
	}
	switch c := bytes.Compare(prev, key); {
	case c > 0:
		return RuleKeyOrder
	case c == 0:
		return RuleKeyDuplicate
	}
	return ""
}

const high = 0x8080808080808080

// ValidUTF8 reports what [utf8.Valid] does, in less time for short texts, for ASCII, and for characters of two and three bytes.
func ValidUTF8(b []byte) bool {
	// ASCII, which is nearly all keys and most values, is put together in words and looked at once, the last word overlapping.
	n := len(b)
	switch {
	case n >= 8:
		s := b
		for ; len(s) >= 32; s = s[32:] {
			w := s[:32]
			if (binary.LittleEndian.Uint64(w)|binary.LittleEndian.Uint64(w[8:])|binary.LittleEndian.Uint64(w[16:])|binary.LittleEndian.Uint64(w[24:]))&high != 0 {
				return validWide(s)
			}
		}
		or := binary.LittleEndian.Uint64(b[n-8:])
		for t := s; len(t) > 8; t = t[8:] {
			or |= binary.LittleEndian.Uint64(t)
		}
		return or&high == 0 || validWide(s)
	case n >= 4:
		or := binary.LittleEndian.Uint32(b) | binary.LittleEndian.Uint32(b[n-4:])
		return or&(high&math.MaxUint32) == 0 || utf8.Valid(b)
	case n > 0:
		return b[0]|b[n>>1]|b[n-1] < 0x80 || utf8.Valid(b)
	}
	return true
}

// validWide is utf8.Valid for texts of characters of two and three bytes, which it recognises in a word of four, and of
// ASCII in between.
func validWide(s []byte) bool {
	for len(s) >= 4 {
		w := binary.LittleEndian.Uint32(s) // the first byte is the lowest
		switch {
		case w&0x00c0c0f0 == 0x008080e0: // three bytes
			if x := w & 0x200f; x == 0 || x == 0x200d { // that two would do for, or half of a surrogate pair
				return false
			}
			s = s[3:]
		case w&0x80 == 0:
			n := 1
			if w&(high&math.MaxUint32) == 0 {
				n = 4
			}
			s = s[n:]
		case w&0xc0e0 == 0x80c0: // two bytes
			if w&0x1e == 0 { // that one would do for
				return false
			}
			s = s[2:]
		default:
			r, n := utf8.DecodeRune(s)
			if r == utf8.RuneError && n == 1 {
				return false
			}
			s = s[n:]
		}
	}
	return utf8.Valid(s)
}

func kindOf(b []byte, pos int) Kind {
	switch c := b[pos]; c >> 5 {
	case majUint, majNegative:
		return KindInt
	case majBytes:
		return KindBytes
	case majText:
		return KindText
	case majArray:
		return KindArray
	case majMap:
		return KindMap
	case majTag:
		if c == linkPrefix[0] && pos+1 < len(b) && b[pos+1] == linkPrefix[1] {
			return KindLink
		}
		return KindOther
	default:
		switch c & 31 {
		case 20, 21:
			return KindBool
		case 22:
			return KindNull
		case 25, 26, 27:
			return KindFloat
		}
		return KindOther
	}
}

func lengthDetail(want uint64, have int) string {
	return fmt.Sprintf("length %d, %d bytes left", want, have)
}

// failAt builds an error with the path that the stack tells of.
func failAt(b []byte, off int, rule Rule, detail string, stack *[MaxDepth]frame, sp int, cur frame) *Error {
	var path []byte
	for i := range sp + 1 {
		f := cur
		if i < sp {
			f = stack[i]
		}
		if i == 0 { // the pseudo-container around the value
			continue
		}
		path = appendStep(path, b, f)
	}
	return &Error{Offset: off, Path: string(path), Rule: rule, Detail: detail}
}

// maxPathKey is how much of a key goes into the path of an error.
const maxPathKey = 64

func appendStep(path, b []byte, f frame) []byte {
	switch {
	case f.size == notMap:
		n := f.n
		if n == indefinite {
			n = MaxElements + 1
		}
		path = append(path, '[')
		path = strconv.AppendUint(path, uint64(n-f.left), 10)
		return append(path, ']')
	case f.key == 0:
		return path
	}
	return AppendPathKey(path, b[f.key:f.key+f.size])
}

// AppendPathKey appends a map key to a path in the form of [Error.Path]: ".key", or ["quoted"] if the key isn't made of
// letters, digits, "$", "_" and "-"; without the dot at the start. Long keys are cut.
func AppendPathKey(path, key []byte) []byte {
	cut := len(key) > maxPathKey
	if cut {
		key = key[:maxPathKey]
	}
	plain := len(key) > 0
	for _, c := range key {
		if !(c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("$_-", c) >= 0) {
			plain = false
			break
		}
	}
	if !plain {
		path = append(path, '[')
		path = strconv.AppendQuoteToASCII(path, string(key))
		path = append(path, ']')
	} else {
		if len(path) > 0 {
			path = append(path, '.')
		}
		path = append(path, key...)
	}
	if cut {
		path = append(path, "…"...)
	}
	return path
}

func quote(key []byte) string {
	if len(key) > maxPathKey {
		return strconv.QuoteToASCII(string(key[:maxPathKey])) + "…"
	}
	return strconv.QuoteToASCII(string(key))
}
