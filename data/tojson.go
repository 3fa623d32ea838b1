package data

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"strconv"

	"github.com/barograph/baro/cbor"
)

// Transcoder turns CBOR into JSON and back under other limits than the functions [AppendJSON] and [AppendCBOR]. The zero
// value has the limits of records.
type Transcoder struct {
	MaxDepth int // containers within each other; 0 means cbor.MaxDepth
}

func (t Transcoder) depth() int {
	if t.MaxDepth == 0 {
		return cbor.MaxDepth
	}
	return t.MaxDepth
}

// AppendJSON appends the JSON of one CBOR value, which is checked strictly on the way. There is no white space, keys come
// in the order of the CBOR. The CBOR comes from one pass over the input, without allocations if dst has room.
//
// A map with a key `$link` or `$bytes` is refused: in JSON it would be something else. On an error dst is returned
// unchanged.
func AppendJSON(dst, b []byte) ([]byte, error) { return Transcoder{}.AppendJSON(dst, b) }

// AppendJSON is the function of that name under the limits of t.
func (t Transcoder) AppendJSON(dst, b []byte) ([]byte, error) {
	w := jsonWriter{r: cbor.NewReader(b)}
	out, err := w.value(dst, t.depth())
	if err == nil {
		err = w.r.End()
	}
	if err != nil {
		return dst, err
	}
	return out, nil
}

// jsonWriter turns what r reads into JSON.
type jsonWriter struct {
	r     cbor.Reader
	dirty *dirt // nil in a strict reading
}

// value appends the next value, in which left containers may nest.
func (w *jsonWriter) value(dst []byte, left int) ([]byte, error) {
	r := &w.r
	k, err := r.Kind()
	if err != nil {
		return dst, err
	}
	switch k {
	case cbor.KindText:
		s, err := r.TextBytes()
		if err != nil {
			return dst, err
		}
		if w.dirty != nil {
			s = bytes.ToValidUTF8(s, []byte(replacement))
		}
		return appendString(dst, s), nil
	case cbor.KindMap:
		if left == 0 {
			return dst, depthError(r)
		}
		n, err := r.Map()
		if err != nil {
			return dst, err
		}
		dst = append(dst, '{')
		var key []byte
		for i := 0; i != n; i++ {
			if n < 0 && r.Break() {
				break
			}
			if i > 0 {
				dst = append(dst, ',')
			}
			at := r.Offset()
			if w.dirty != nil {
				key, err = w.dirty.textKey(r, depthOf(left-1))
			} else {
				key, err = r.MapKey(key)
			}
			if err != nil {
				return dst, err
			}
			if len(key) > 0 && key[0] == '$' {
				if rule := reservedRule(key); rule != "" {
					err := &Error{Offset: at, Rule: rule, Detail: "a map with the key " + string(key)}
					if w.dirty == nil {
						return dst, err
					}
					w.dirty.found(at, err)
				}
			}
			dst = append(appendString(dst, key), ':')
			w.dirty.into(Step{Key: key})
			if dst, err = w.value(dst, left-1); err != nil {
				if e, ok := err.(*Error); ok {
					return dst, e.inKey(key)
				}
				return dst, err
			}
			w.dirty.out()
		}
		return append(dst, '}'), nil
	case cbor.KindArray:
		if left == 0 {
			return dst, depthError(r)
		}
		n, err := r.Array()
		if err != nil {
			return dst, err
		}
		dst = append(dst, '[')
		for i := 0; i != n; i++ {
			if n < 0 && r.Break() {
				break
			}
			if i > 0 {
				dst = append(dst, ',')
			}
			w.dirty.into(Step{Index: i})
			if dst, err = w.value(dst, left-1); err != nil {
				if e, ok := err.(*Error); ok {
					return dst, e.inItem(i)
				}
				return dst, err
			}
			w.dirty.out()
		}
		return append(dst, ']'), nil
	case cbor.KindInt:
		v, err := r.Int()
		if err != nil {
			return w.odd(dst, left, err)
		}
		return strconv.AppendInt(dst, v, 10), nil
	case cbor.KindLink:
		c, err := r.Link()
		if err != nil {
			return w.odd(dst, left, err)
		}
		dst = append(dst, `{"$link":"`...)
		return append(c.AppendString(dst), `"}`...), nil
	case cbor.KindBytes:
		v, err := r.Bytes()
		if err != nil {
			return dst, err
		}
		dst = append(dst, `{"$bytes":"`...)
		return append(base64.RawStdEncoding.AppendEncode(dst, v), `"}`...), nil
	case cbor.KindBool:
		v, err := r.Bool()
		if err != nil {
			return dst, err
		}
		return strconv.AppendBool(dst, v), nil
	case cbor.KindNull:
		return append(dst, "null"...), r.Null()
	}
	return w.odd(dst, left, nil) // a strict reader has none of these
}

func depthError(r *cbor.Reader) error {
	return &Error{Offset: r.Offset(), Rule: RuleDepth}
}

const (
	linkKey  = "$link"
	bytesKey = "$bytes"
)

// reservedRule is the rule that a map with this key breaks, "" for all keys but two.
func reservedRule(key []byte) Rule {
	switch string(key) {
	case linkKey:
		return RuleLink
	case bytesKey:
		return RuleBytes
	}
	return ""
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// special has the high bit set in each byte of x that can't stand for itself in a JSON string: a quote, a backslash or a
// control character. A byte behind the lowest of them may be marked wrongly; if none is marked, there is none.
func special(x uint64) uint64 {
	quote := x ^ '"'*ones
	slash := x ^ '\\'*ones
	return ((x - ' '*ones) | (quote - ones) | (slash - ones)) &^ x & highs
}

// plain reports whether s can stand for itself in a JSON string.
func plain(s []byte) bool {
	n := len(s)
	var or uint64
	switch {
	case n >= 8:
		or = special(binary.LittleEndian.Uint64(s[n-8:]))
		for ; len(s) > 8; s = s[8:] {
			or |= special(binary.LittleEndian.Uint64(s))
		}
	case n >= 4:
		or = special(uint64(binary.LittleEndian.Uint32(s))<<32 | uint64(binary.LittleEndian.Uint32(s[n-4:])))
	default:
		for _, c := range s {
			if c < ' ' || c == '"' || c == '\\' {
				return false
			}
		}
	}
	return or == 0
}

const hexDigits = "0123456789abcdef"

// appendString appends valid UTF-8 as a JSON string.
func appendString(dst, s []byte) []byte {
	dst = append(dst, '"')
	if plain(s) {
		return append(append(dst, s...), '"')
	}
	start, i := 0, 0
	for {
		for i+8 <= len(s) && special(binary.LittleEndian.Uint64(s[i:])) == 0 {
			i += 8
		}
		end := min(i+8, len(s))
		for i < end && s[i] >= ' ' && s[i] != '"' && s[i] != '\\' {
			i++
		}
		if i == len(s) {
			break
		}
		if i == end {
			continue
		}
		dst = append(dst, s[start:i]...)
		switch c := s[i]; c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}
