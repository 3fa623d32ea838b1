package lexicon

import (
	"encoding/binary"

	"github.com/barograph/baro/cbor"
)

// pass reads a valid value at speed, since most are valid. It only ever says where the value ends, or no with a negative
// number: then the value breaks a rule, or has something rare such as a field that the schema doesn't know, and validator
// has to look at it from the start. So there is nothing here about errors or options; what passes here, validator passes
// with any options, to which FuzzPass holds it.
//
// Numbers of fewer than 24 are in the first byte of a value, with its major type in the upper three bits; the encoded values
// of this file are those of https://www.rfc-editor.org/rfc/rfc8949#section-3.
func (n *node) pass(b []byte, off, depth int) int {
	if off >= len(b) || depth > maxDepth {
		return -1
	}
	switch n.kind {
	case kindString:
		start, end := textAt(b, off)
		if end < 0 || !n.passText(b[start:end]) {
			return -1
		}
		return end
	case kindObject:
		return n.passObject(b, off, depth)
	case kindArray:
		count, next := containerAt(b, off, 0x80)
		if next < 0 || int64(count) < n.min || int64(count) > n.max {
			return -1
		}
		for range count {
			if next = n.items.pass(b, next, depth+1); next < 0 {
				return -1
			}
		}
		return next
	case kindUnion:
		if found := n.variant(typeAt(b, off)); found != nil {
			return found.pass(b, off, depth)
		}
		return -1
	case kindInteger:
		arg, next := argAt(b, off)
		if next < 0 || b[off] >= 0x40 || arg > 1<<63-1 || n.checkInt(int64(arg)^-int64(b[off]>>5)) != nil {
			return -1
		}
		return next
	case kindBoolean:
		if b[off] != 0xf4 && b[off] != 0xf5 || n.checkBool(b[off] == 0xf5) != nil {
			return -1
		}
		return off + 1
	case kindTypeID:
		start, end := textAt(b, off)
		if end < 0 || string(b[start:end]) != n.typeID {
			return -1
		}
		return end
	case kindAny:
		return skipAt(b, off)
	case kindUnresolved:
		return -1
	}
	v := validator{r: cbor.NewReader(b[off:])}
	if v.value(n, depth) != nil {
		return -1
	}
	return off + v.r.Offset()
}

// passText is checkString for what doesn't need to count graphemes. All formats that are checked are of ASCII.
func (n *node) passText(b []byte) bool {
	l := int64(len(b))
	switch {
	case l < n.min || l > n.max || n.strings != nil && !containsText(n.strings, b):
		return false
	case n.valid != nil:
		return n.valid(b) && l <= n.maxGraphemes && n.minGraphemes == 0
	case !cbor.ValidUTF8(b):
		return false
	}
	return l <= n.maxGraphemes && n.minGraphemes == 0 || n.checkGraphemes(b) == nil
}

// passObject merges the keys of a map with the properties, as validator.object does. A key that isn't among them is no.
func (n *node) passObject(b []byte, off, depth int) int {
	count, off := containerAt(b, off, 0xa0)
	if off < 0 {
		return -1
	}
	props, required := n.props, n.required
	i := 0
	for range count {
		var head uint64
		if off+8 <= len(b) {
			head = binary.BigEndian.Uint64(b[off:])
		} else {
			head = first8(b[off:])
		}
		for {
			if i >= len(props) {
				return -1
			}
			p := &props[i]
			if p.head == head&p.mask {
				if end := off + len(p.encoded); len(p.encoded) <= 8 && end <= len(b) || end <= len(b) && string(b[off+8:end]) == p.encoded[8:] {
					break
				}
			}
			if i++; p.head > head&p.mask {
				return -1
			}
		}
		p := &props[i]
		i++
		off += len(p.encoded)
		if p.required {
			required--
		}
		if p.nullable && off < len(b) && b[off] == 0xf6 {
			off++
			continue
		}
		if off = p.node.pass(b, off, depth+1); off < 0 {
			return -1
		}
	}
	if required > 0 {
		return -1
	}
	return off
}

// typeAt returns the $type of the object at b[off:], nil if it isn't found.
func typeAt(b []byte, off int) []byte {
	count, off := containerAt(b, off, 0xa0)
	if off < 0 {
		return nil
	}
	for range count {
		start, end := textAt(b, off)
		if end < 0 {
			return nil
		}
		if string(b[start:end]) == typeKey {
			if start, end = textAt(b, end); end < 0 {
				return nil
			}
			return b[start:end]
		}
		if end-start > len(typeKey) {
			return nil
		}
		if off = skipAt(b, end); off < 0 {
			return nil
		}
	}
	return nil
}

// skipAt returns where the value at b[off:] ends.
func skipAt(b []byte, off int) int {
	if start, end := textAt(b, off); end >= 0 {
		if !cbor.ValidUTF8(b[start:end]) {
			return -1
		}
		return end
	}
	if off >= len(b) {
		return -1
	}
	size, err := cbor.Scan(b[off:])
	if err != nil {
		return -1
	}
	return off + size
}

// textAt returns where the text at b[off:] starts behind its head and where it ends.
func textAt(b []byte, off int) (start, end int) {
	if off >= len(b) || b[off]>>5 != 3 {
		return 0, -1
	}
	if end = off + 1 + int(b[off]-0x60); b[off] < 0x60+24 && end <= len(b) { // the usual case
		return off + 1, end
	}
	arg, start := argAt(b, off)
	if start < 0 || arg > uint64(len(b)-start) {
		return 0, -1
	}
	return start, start + int(arg)
}

// containerAt returns how many entries the array or map at b[off:] has, and where they begin. More than 255 are rare.
func containerAt(b []byte, off int, major byte) (count, next int) {
	switch {
	case off >= len(b):
	case b[off]-major < 24:
		return int(b[off] - major), off + 1
	case b[off] == major+24 && off+1 < len(b) && b[off+1] >= 24:
		return int(b[off+1]), off + 2
	}
	return 0, -1
}

// argAt returns the number in the head of the value at b[off:], if it is as short as can be, and where the head ends.
func argAt(b []byte, off int) (arg uint64, next int) {
	switch low := b[off] & 31; {
	case low < 24:
		return uint64(low), off + 1
	case low == 24 && off+2 <= len(b) && b[off+1] >= 24:
		return uint64(b[off+1]), off + 2
	case low == 25 && off+3 <= len(b) && b[off+1] > 0:
		return uint64(binary.BigEndian.Uint16(b[off+1:])), off + 3
	case low == 26 && off+5 <= len(b) && binary.BigEndian.Uint32(b[off+1:]) > 0xffff:
		return uint64(binary.BigEndian.Uint32(b[off+1:])), off + 5
	case low == 27 && off+9 <= len(b) && binary.BigEndian.Uint64(b[off+1:]) > 0xffffffff:
		return binary.BigEndian.Uint64(b[off+1:]), off + 9
	}
	return 0, -1
}
