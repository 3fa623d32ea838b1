// Package cid holds the one content identifier of the module: CIDv1, SHA-256, DAG-CBOR or raw.
//
// Specification: https://atproto.com/specs/data-model#link-and-cid-formats and https://dasl.ing/cid.html.
//
// A [CID] is a comparable array, so it can be a map key, be compared with ==, and never allocates. The general CID
// format (other versions, codecs, hashes and multibases) is refused, because the protocol has no place for it: records
// and tree nodes use codec 0x71 (DAG-CBOR), blobs use 0x55 (raw), and both are hashed with SHA-256.
//
//	c := cid.Sum(cid.DagCBOR, block)
//	s := c.String()           // "bafyrei…", 59 characters
//	back, err := cid.Parse(s) // back == c
//	ok := c.Verify(block)
//
// As text, and so in encoding/json, a CID is its string form; the {"$link": …} of the data model is the business of package
// data. A database keeps the 36 bytes, c[:], or the string.
//
// The one other string in which a CID occurs, a text field of format cid, may be of any kind: that is syntax, and the
// subject of package lexicon. A CID says nothing of where its content is, nor that there is any.
//
// Limits: 36 bytes or 59 characters, in one spelling each; nothing is allocated but the results of String, Bytes and
// MarshalText. Errors wrap [ErrInvalid] and say which part is wrong. The API is stable.
package cid

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/barograph/baro/internal/sha256x"
)

// Size is the length of a CID in bytes: version, codec, hash type, hash length and 32 bytes of digest.
const Size = 36

// StringSize is the length of a CID in characters: the multibase prefix "b" and 58 characters of base32.
const StringSize = 59

// Codec is the multicodec code of the content that a CID names.
type Codec byte

// The two codecs of the protocol.
const (
	DagCBOR Codec = 0x71 // records, tree nodes and commits
	Raw     Codec = 0x55 // blobs
)

const (
	version1   = 0x01
	hashSHA256 = 0x12
	digestSize = sha256x.Size
	header     = Size - digestSize
)

// ErrInvalid is wrapped by every error of [Parse] and [FromBytes].
var ErrInvalid = errors.New("invalid CID")

// CID is a binary CIDv1. The zero value is undefined: it names no content.
type CID [Size]byte

// Sum returns the CID of data, which is hashed with SHA-256.
func Sum(codec Codec, data []byte) CID {
	return FromDigest(codec, sha256x.Sum(data))
}

// FromDigest returns the CID of the content whose SHA-256 digest is given.
func FromDigest(codec Codec, digest [32]byte) CID {
	c := CID{version1, byte(codec), hashSHA256, digestSize}
	copy(c[header:], digest[:])
	return c
}

// FromBytes reads a binary CID. It wants exactly 36 bytes: version 1, codec 0x71 or 0x55, SHA-256.
func FromBytes(b []byte) (CID, error) {
	if len(b) != Size {
		return CID{}, fmt.Errorf("%w: %d bytes, want %d", ErrInvalid, len(b), Size)
	}
	c := CID(b)
	if err := c.check(); err != nil {
		return CID{}, err
	}
	return c, nil
}

// Valid reports whether c has the form of a CID of the protocol, as all have that come from the functions of this package.
func (c *CID) Valid() bool {
	return c[0] == version1 && (c[1] == byte(DagCBOR) || c[1] == byte(Raw)) && c[2] == hashSHA256 && c[3] == digestSize
}

func (c *CID) check() error {
	switch {
	case c[0] != version1:
		return fmt.Errorf("%w: version byte 0x%02x, want 0x01", ErrInvalid, c[0])
	case c[1] != byte(DagCBOR) && c[1] != byte(Raw):
		return fmt.Errorf("%w: codec 0x%02x, want 0x71 or 0x55", ErrInvalid, c[1])
	case c[2] != hashSHA256:
		return fmt.Errorf("%w: hash type 0x%02x, want 0x12 (SHA-256)", ErrInvalid, c[2])
	case c[3] != digestSize:
		return fmt.Errorf("%w: digest length %d, want 32", ErrInvalid, c[3])
	}
	return nil
}

const alphabet = "abcdefghijklmnopqrstuvwxyz234567"

// decodeTable maps a base32 character to its value, and everything else to 0xff.
var decodeTable = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i := range len(alphabet) {
		t[alphabet[i]] = byte(i)
	}
	return t
}()

// Parse reads the string form: "b" and lower-case base32 without padding, 59 characters.
func Parse[S string | []byte](s S) (CID, error) {
	var c CID
	if len(s) != StringSize {
		return c, fmt.Errorf("%w: %d characters, want %d", ErrInvalid, len(s), StringSize)
	}
	if s[0] != 'b' {
		return c, fmt.Errorf("%w: multibase prefix %q, want \"b\" (lower-case base32)", ErrInvalid, s[0])
	}
	// 58 characters carry 290 bits: 288 of the CID and two that must be zero. Eight characters are five bytes.
	t := &decodeTable
	var bad byte
	for i, o := 1, 0; o < Size-1; i, o = i+8, o+5 {
		g := s[i : i+8]
		v0, v1, v2, v3, v4, v5, v6, v7 := t[g[0]], t[g[1]], t[g[2]], t[g[3]], t[g[4]], t[g[5]], t[g[6]], t[g[7]]
		bad |= v0 | v1 | v2 | v3 | v4 | v5 | v6 | v7
		d := c[o : o+5]
		d[0] = v0<<3 | v1>>2
		d[1] = v1<<6 | v2<<1 | v3>>4
		d[2] = v3<<4 | v4>>1
		d[3] = v4<<7 | v5<<2 | v6>>3
		d[4] = v6<<5 | v7
	}
	v0, v1 := t[s[StringSize-2]], t[s[StringSize-1]]
	bad |= v0 | v1
	c[Size-1] = v0<<3 | v1>>2
	if bad > 31 {
		return CID{}, fmt.Errorf("%w: character outside lower-case base32", ErrInvalid)
	}
	if v1&3 != 0 {
		return CID{}, fmt.Errorf("%w: trailing bits are not zero", ErrInvalid)
	}
	if err := c.check(); err != nil {
		return CID{}, err
	}
	return c, nil
}

// AppendString appends the string form of c, 59 characters; nothing if c is undefined.
func (c CID) AppendString(b []byte) []byte {
	if !c.Defined() {
		return b
	}
	b = append(b, 'b')
	var bits uint64
	var n uint
	for _, v := range c {
		bits = bits<<8 | uint64(v)
		for n += 8; n >= 5; {
			n -= 5
			b = append(b, alphabet[bits>>n&31])
		}
	}
	return append(b, alphabet[bits<<(5-n)&31])
}

// String returns the string form of c, or "" if c is undefined.
func (c CID) String() string {
	var buf [StringSize]byte
	return string(c.AppendString(buf[:0]))
}

// Bytes returns the 36 bytes of c in a new slice.
func (c CID) Bytes() []byte { return c[:] }

// Defined reports whether c names content, that is, whether it is not the zero value.
func (c CID) Defined() bool { return c[0] != 0 }

// Codec returns the codec of the content, 0 if c is undefined.
func (c CID) Codec() Codec { return Codec(c[1]) }

// Digest returns the SHA-256 digest in c.
func (c CID) Digest() [32]byte { return [32]byte(c[header:]) }

// Verify reports whether data is the content that c names, by hashing it.
func (c CID) Verify(data []byte) bool {
	return c.Defined() && sha256x.Sum(data) == c.Digest()
}

// MarshalText returns the string form. It fails if c is undefined.
func (c CID) MarshalText() ([]byte, error) {
	if !c.Defined() {
		return nil, fmt.Errorf("%w: undefined", ErrInvalid)
	}
	return c.AppendString(nil), nil
}

// UnmarshalText is [Parse].
func (c *CID) UnmarshalText(b []byte) (err error) {
	*c, err = Parse(b)
	return err
}

// Compare orders CIDs by their bytes.
func Compare(a, b CID) int { return bytes.Compare(a[:], b[:]) }
