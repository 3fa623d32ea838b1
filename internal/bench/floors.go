package bench

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"unicode/utf8"
)

var errScan = errors.New("not valid")

// scan is the floor of validation: the shortest recursive scanner of DAG-CBOR that checks lengths, minimal heads, UTF-8,
// the order of keys and the shape of links. It has no limits, no typed errors, no paths and no offsets.
func scan(b []byte, depth int) ([]byte, error) {
	if len(b) == 0 || depth > 32 {
		return nil, errScan
	}
	major, n := b[0]>>5, uint64(b[0]&31)
	b = b[1:]
	if major == 7 {
		if n < 20 || n > 22 {
			return nil, errScan
		}
		return b, nil
	}
	switch {
	case n < 24:
	case n == 24 && len(b) >= 1 && b[0] >= 24:
		n, b = uint64(b[0]), b[1:]
	case n == 25 && len(b) >= 2 && b[0] != 0:
		n, b = uint64(binary.BigEndian.Uint16(b)), b[2:]
	case n == 26 && len(b) >= 4 && binary.BigEndian.Uint16(b) != 0:
		n, b = uint64(binary.BigEndian.Uint32(b)), b[4:]
	case n == 27 && len(b) >= 8 && binary.BigEndian.Uint32(b) != 0:
		n, b = binary.BigEndian.Uint64(b), b[8:]
	default:
		return nil, errScan
	}
	switch major {
	case 0, 1:
		if n > 1<<63-1 {
			return nil, errScan
		}
		return b, nil
	case 2, 3:
		if n > uint64(len(b)) || major == 3 && !utf8.Valid(b[:n]) {
			return nil, errScan
		}
		return b[n:], nil
	case 4:
		var err error
		for ; n > 0; n-- {
			if b, err = scan(b, depth+1); err != nil {
				return nil, err
			}
		}
		return b, nil
	case 5:
		var prev []byte
		for i := range n {
			if len(b) == 0 || b[0]>>5 != 3 {
				return nil, errScan
			}
			rest, err := scan(b, depth+1)
			if err != nil {
				return nil, err
			}
			// Encoded keys sort by length first, as the canonical order does.
			key := b[:len(b)-len(rest)]
			if i > 0 && string(prev) >= string(key) {
				return nil, errScan
			}
			prev = key
			if b, err = scan(rest, depth+1); err != nil {
				return nil, err
			}
		}
		return b, nil
	default:
		if n != 42 || len(b) < 39 || b[0] != 0x58 || b[1] != 37 || b[2] != 0 || b[3] != 1 {
			return nil, errScan
		}
		return b[39:], nil
	}
}

// Scan checks a value of DAG-CBOR as plainly as can be. It is the floor of validation.
func Scan(b []byte) error {
	rest, err := scan(b, 0)
	if err == nil && len(rest) > 0 {
		err = errScan
	}
	return err
}

// Touch is the floor of parsing a string: one table look-up for each byte.
func Touch(s string) (n byte) {
	for i := range len(s) {
		n |= table[s[i]]
	}
	return n
}

var table = func() (t [256]byte) {
	for i := range t {
		t[i] = byte(i * 7)
	}
	return t
}()

// Hash is the floor of whatever verifies b.
func Hash(b []byte) { sink = sha256.Sum256(b)[0] }

// sink keeps results alive.
var sink byte
