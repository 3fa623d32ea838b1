package data

import (
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
)

// Decode builds the tree of one CBOR value: map[string]any, []any, string, []byte, int64, bool, [cid.CID] and nil for null.
// Nothing in it shares memory with b.
func Decode(b []byte) (any, error) {
	t := treeReader{r: cbor.NewReader(b)}
	v, err := t.value(cbor.MaxDepth)
	if err == nil {
		err = t.r.End()
	}
	if err != nil {
		return nil, err
	}
	return v, nil
}

// treeReader makes Go values of what r reads.
type treeReader struct {
	r     cbor.Reader
	dirty *dirt // nil in a strict reading
}

func (t *treeReader) value(left int) (any, error) {
	r := &t.r
	k, err := r.Kind()
	if err != nil {
		return nil, err
	}
	switch k {
	case cbor.KindMap:
		if left == 0 {
			return nil, depthError(r)
		}
		n, err := r.Map()
		if err != nil {
			return nil, err
		}
		m := make(map[string]any, min(max(n, 0), 64)) // the rest is allocated once it is there
		var key []byte
		for i := 0; i != n; i++ {
			if n < 0 && r.Break() {
				break
			}
			if t.dirty != nil {
				key, err = t.dirty.textKey(r, depthOf(left-1))
			} else {
				key, err = r.MapKey(key)
			}
			if err != nil {
				return nil, err
			}
			if m[string(key)], err = t.value(left - 1); err != nil {
				return nil, inKey(err, string(key))
			}
		}
		return m, nil
	case cbor.KindArray:
		if left == 0 {
			return nil, depthError(r)
		}
		n, err := r.Array()
		if err != nil {
			return nil, err
		}
		a := make([]any, 0, min(max(n, 0), 64))
		for i := 0; i != n; i++ {
			if n < 0 && r.Break() {
				break
			}
			v, err := t.value(left - 1)
			if err != nil {
				return nil, inItem(err, i)
			}
			a = append(a, v)
		}
		return a, nil
	case cbor.KindText:
		return noNil(r.Text())
	case cbor.KindInt:
		v, err := r.Int()
		if err != nil {
			return t.odd(left, err)
		}
		return v, nil
	case cbor.KindBool:
		return noNil(r.Bool())
	case cbor.KindLink:
		v, err := r.Link()
		if err != nil {
			return t.odd(left, err)
		}
		return v, nil
	case cbor.KindBytes:
		v, err := r.Bytes()
		return append([]byte{}, v...), err
	case cbor.KindNull:
		return nil, r.Null()
	}
	return t.odd(left, nil) // a strict reader has none of these
}

func noNil[T any](v T, err error) (any, error) { return v, err }

// Encode writes a tree of the types that [Decode] returns, and of int, int32, uint32, [Raw], [Blob], []string and []cid.CID
// besides. Map keys are put in order. Floating point and everything else is refused with a [*Error].
func Encode(v any) ([]byte, error) { return AppendTree(nil, v) }

// AppendTree is [Encode] into a buffer.
func AppendTree(dst []byte, v any) ([]byte, error) {
	out, err := encode(dst, v, cbor.MaxDepth)
	if err != nil {
		return dst, err
	}
	return out, nil
}

func encode(dst []byte, v any, left int) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return cbor.AppendNull(dst), nil
	case string:
		return encodeText(dst, v)
	case int64:
		return cbor.AppendInt(dst, v), nil
	case int:
		return cbor.AppendInt(dst, int64(v)), nil
	case int32:
		return cbor.AppendInt(dst, int64(v)), nil
	case uint32:
		return cbor.AppendInt(dst, int64(v)), nil
	case bool:
		return cbor.AppendBool(dst, v), nil
	case []byte:
		return cbor.AppendBytes(dst, v), nil
	case cid.CID:
		if !v.Defined() {
			return dst, valueError(RuleLink, "undefined CID")
		}
		return cbor.AppendLink(dst, v), nil
	case Raw:
		return appendRaw(dst, v, left)
	case Blob:
		return appendCustom(dst, &v, left)
	case *Blob:
		if v == nil {
			return cbor.AppendNull(dst), nil
		}
		return appendCustom(dst, v, left)
	case []any:
		return encodeArray(dst, v, left)
	case []string:
		return encodeArray(dst, v, left)
	case []cid.CID:
		return encodeArray(dst, v, left)
	case map[string]any:
		if left == 0 {
			return dst, valueError(RuleDepth, "")
		}
		if len(v) > cbor.MaxElements {
			return dst, valueError(RuleElements, "")
		}
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.SortFunc(keys, cbor.CompareKeys)
		dst = cbor.AppendMap(dst, len(v))
		for _, k := range keys {
			switch {
			case k == "":
				return dst, valueError(RuleKeyEmpty, "")
			case len(k) > cbor.MaxKey:
				return dst, valueError(RuleKeySize, "")
			}
			var err error
			if dst, err = encodeText(dst, k); err != nil {
				return dst, err
			}
			if dst, err = encode(dst, v[k], left-1); err != nil {
				if e, ok := err.(*Error); ok {
					return dst, e.inKey([]byte(k))
				}
				return dst, err
			}
		}
		return dst, nil
	}
	return dst, valueError(RuleValue, fmt.Sprintf("the data model has no %T", v))
}

func encodeArray[T any](dst []byte, v []T, left int) ([]byte, error) {
	if left == 0 {
		return dst, valueError(RuleDepth, "")
	}
	if len(v) > cbor.MaxElements {
		return dst, valueError(RuleElements, "")
	}
	dst = cbor.AppendArray(dst, len(v))
	for i := range v {
		var err error
		if dst, err = encode(dst, v[i], left-1); err != nil {
			if e, ok := err.(*Error); ok {
				return dst, e.inItem(i)
			}
			return dst, err
		}
	}
	return dst, nil
}

func encodeText(dst []byte, s string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return dst, valueError(RuleUTF8, "")
	}
	return cbor.AppendText(dst, s), nil
}

func valueError(rule Rule, detail string) *Error {
	return &Error{Offset: -1, Rule: rule, Detail: detail}
}
