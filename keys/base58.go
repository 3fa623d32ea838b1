package keys

import "slices"

const base58Alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

// maxBase58 bounds the quadratic work on input from outside; the longest key form has about 90 characters.
const maxBase58 = 256

var base58Table = func() (t [256]uint8) {
	for i := range t {
		t[i] = 0xff
	}
	for i := range len(base58Alphabet) {
		t[base58Alphabet[i]] = uint8(i)
	}
	return t
}()

// encodeBase58 writes b as a number in base 58, with one "1" for every leading zero byte.
func encodeBase58(b []byte) string {
	zeros := 0
	for zeros < len(b) && b[zeros] == 0 {
		zeros++
	}
	var digits []byte // least significant first
	for _, v := range b[zeros:] {
		carry := uint32(v)
		for i := range digits {
			carry += uint32(digits[i]) << 8
			digits[i] = byte(carry % 58)
			carry /= 58
		}
		for ; carry > 0; carry /= 58 {
			digits = append(digits, byte(carry%58))
		}
	}
	for range zeros {
		digits = append(digits, 0)
	}
	slices.Reverse(digits)
	for i, d := range digits {
		digits[i] = base58Alphabet[d]
	}
	return string(digits)
}

func decodeBase58(s string) ([]byte, bool) {
	if len(s) > maxBase58 {
		return nil, false
	}
	zeros := 0
	for zeros < len(s) && s[zeros] == '1' {
		zeros++
	}
	out := make([]byte, 0, len(s)*3/4+1) // least significant first
	for i := zeros; i < len(s); i++ {
		carry := uint32(base58Table[s[i]])
		if carry == 0xff {
			return nil, false
		}
		for j := range out {
			carry += uint32(out[j]) * 58
			out[j] = byte(carry)
			carry >>= 8
		}
		for ; carry > 0; carry >>= 8 {
			out = append(out, byte(carry))
		}
	}
	for range zeros {
		out = append(out, 0)
	}
	slices.Reverse(out)
	return out, true
}
