package cbor

import (
	"encoding/binary"
	"strings"

	"github.com/barograph/baro/cid"
)

// Major types.
const (
	majUint byte = iota
	majNegative
	majBytes
	majText
	majArray
	majMap
	majTag
	majSimple
)

const (
	encFalse byte = 0xf4
	encTrue  byte = 0xf5
	encNull  byte = 0xf6
	encBreak byte = 0xff
)

// linkPrefix precedes the 36 bytes of a CID: tag 42, a byte string of 37 bytes, and the 0x00 that marks a binary CID.
const linkPrefix = "\xd8\x2a\x58\x25\x00"

// linkSize is the length of an encoded link.
const linkSize = len(linkPrefix) + cid.Size

func appendHead(b []byte, major byte, v uint64) []byte {
	m := major << 5
	switch {
	case v < 24:
		return append(b, m|byte(v))
	case v <= 0xff:
		return append(b, m|24, byte(v))
	case v <= 0xffff:
		return append(b, m|25, byte(v>>8), byte(v))
	case v <= 0xffffffff:
		return append(b, m|26, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
	}
	return binary.BigEndian.AppendUint64(append(b, m|27), v)
}

// AppendInt appends an integer.
func AppendInt(b []byte, v int64) []byte {
	if v < 0 {
		return appendHead(b, majNegative, uint64(^v))
	}
	return appendHead(b, majUint, uint64(v))
}

// AppendText appends a string, which is also how a map key is written. It must be UTF-8: no check is made here.
func AppendText(b []byte, s string) []byte {
	return append(appendHead(b, majText, uint64(len(s))), s...)
}

// AppendTextHead appends the head of a text; the caller appends its n bytes.
func AppendTextHead(b []byte, n int) []byte { return appendHead(b, majText, uint64(n)) }

// AppendTextBytes is [AppendText] for text in a byte slice.
func AppendTextBytes(b, s []byte) []byte {
	return append(appendHead(b, majText, uint64(len(s))), s...)
}

// AppendBytes appends a byte string; nil is the empty one.
func AppendBytes(b, v []byte) []byte {
	return append(appendHead(b, majBytes, uint64(len(v))), v...)
}

// AppendBool appends a boolean.
func AppendBool(b []byte, v bool) []byte {
	if v {
		return append(b, encTrue)
	}
	return append(b, encFalse)
}

// AppendNull appends null.
func AppendNull(b []byte) []byte { return append(b, encNull) }

// AppendLink appends a link to c. It panics if c is undefined, since no link names nothing.
func AppendLink(b []byte, c cid.CID) []byte {
	if !c.Defined() {
		panic("cbor: link to an undefined CID")
	}
	return append(append(b, linkPrefix...), c[:]...)
}

// AppendArray appends the head of an array; the caller appends its n items.
func AppendArray(b []byte, n int) []byte { return appendHead(b, majArray, uint64(n)) }

// AppendMap appends the head of a map; the caller appends its n entries, each a key by [AppendText] and a value, in the
// order of [CompareKeys].
func AppendMap(b []byte, n int) []byte { return appendHead(b, majMap, uint64(n)) }

// CompareKeys is the order of map keys: the shorter first, those of equal length bytewise.
func CompareKeys(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}
