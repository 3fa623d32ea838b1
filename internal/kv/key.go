package kv

import (
	"bytes"
	"encoding/binary"
)

// PrefixEnd is the first key after all keys that begin with p, for use as an upper bound; nil (open) when there is none.
func PrefixEnd(p []byte) []byte {
	for i := len(p) - 1; i >= 0; i-- {
		if p[i] != 0xff {
			end := bytes.Clone(p[:i+1])
			end[i]++
			return end
		}
	}
	return nil
}

// emptyRange says that no key can lie in [lo, hi). Pebble would refuse such bounds in some places and panic in others.
func emptyRange(lo, hi []byte) bool { return hi != nil && bytes.Compare(lo, hi) >= 0 }

// AppendUint64 appends v so that keys sort by number.
func AppendUint64(k []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(k, v) }

// AppendUint64Desc appends v so that keys sort by number, largest first.
func AppendUint64Desc(k []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(k, ^v) }

// AppendUint32 appends v so that keys sort by number.
func AppendUint32(k []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(k, v) }

// CutUint64 reads what [AppendUint64] wrote at the start of k.
func CutUint64(k []byte) (v uint64, rest []byte, ok bool) {
	if len(k) < 8 {
		return 0, k, false
	}
	return binary.BigEndian.Uint64(k), k[8:], true
}

// CutUint64Desc reads what [AppendUint64Desc] wrote at the start of k.
func CutUint64Desc(k []byte) (v uint64, rest []byte, ok bool) {
	v, rest, ok = CutUint64(k)
	if ok {
		v = ^v
	}
	return v, rest, ok
}

// CutUint32 reads what [AppendUint32] wrote at the start of k.
func CutUint32(k []byte) (v uint32, rest []byte, ok bool) {
	if len(k) < 4 {
		return 0, k, false
	}
	return binary.BigEndian.Uint32(k), k[4:], true
}

const (
	escape     = 0x00 // in a string: 0x00 is written as 0x00 0xff
	escaped00  = 0xff
	terminator = 0x01 // end of string: 0x00 0x01
)

// AppendString appends s and an end mark, so that keys sort by the string first and by what follows it then, whatever
// bytes the string holds, and no string is a prefix of another.
func AppendString[S ~string | ~[]byte](k []byte, s S) []byte {
	for i := 0; i < len(s); i++ {
		k = append(k, s[i])
		if s[i] == escape {
			k = append(k, escaped00)
		}
	}
	return append(k, escape, terminator)
}

// CutString reads what [AppendString] wrote at the start of k.
func CutString(k []byte) (s string, rest []byte, ok bool) {
	i := bytes.IndexByte(k, escape)
	if i >= 0 && i+1 < len(k) && k[i+1] == terminator { // the usual case: nothing was escaped
		return string(k[:i]), k[i+2:], true
	}
	var out []byte
	for rest = k; ; {
		i := bytes.IndexByte(rest, escape)
		if i < 0 || i+1 >= len(rest) {
			return "", k, false
		}
		out = append(out, rest[:i]...)
		switch rest[i+1] {
		case terminator:
			return string(out), rest[i+2:], true
		case escaped00:
			out = append(out, escape)
			rest = rest[i+2:]
		default:
			return "", k, false
		}
	}
}
