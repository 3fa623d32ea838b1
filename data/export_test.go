package data

import (
	"github.com/barograph/baro/cbor"
)

// UnmarshalReflect is Unmarshal by reflection alone.
func UnmarshalReflect(b []byte, v any) error {
	d := decoder{r: cbor.NewReader(b)}
	return d.decode(v, cbor.MaxDepth)
}

// MarshalReflect is Marshal by reflection alone.
func MarshalReflect(v any) ([]byte, error) {
	n, rv, err := planFor(v)
	if err != nil {
		return nil, err
	}
	return n.append(nil, rv, cbor.MaxDepth)
}

// UnmarshalFast and MarshalFast say whether the fast codec wants to do it.
func UnmarshalFast(b []byte, v any) bool {
	return decodeFast(append([]byte(nil), b...), true, v, cbor.MaxDepth)
}

// UnmarshalFastShort is UnmarshalFast for an input that isn't copied as a whole.
func UnmarshalFastShort(b []byte, v any) bool { return decodeFast(b, false, v, cbor.MaxDepth) }

func MarshalFast(v any) ([]byte, bool) { return AppendFast(nil, v) }

func AppendFast(dst []byte, v any) ([]byte, bool) { return appendFast(dst, v, cbor.MaxDepth) }

func (r Rule) Soft() bool { return r.soft() }

// UnsortedExtra is NewExtra without any order.
func UnsortedExtra(fields ...ExtraField) Extra { return extraList(fields).extra() }
