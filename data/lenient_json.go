package data

import "reflect"

// UnmarshalJSONLenient is [UnmarshalJSON] for an answer that may not fit the struct: a field whose value doesn't fit stays
// zero, with a violation, and so does one that is missing, as in [UnmarshalLenient]. What isn't JSON, or breaks a rule of
// the data model, is refused as ever; the error is then that of UnmarshalJSON, and v is of no use. Offsets are those in the
// CBOR, which Bytes holds.
func UnmarshalJSONLenient(b []byte, v any) (*Lenient, error) {
	raw, err := Transcoder{MaxDepth: maxDepthJSON}.AppendCBOR(make([]byte, 0, len(b)), b)
	if err != nil {
		return nil, err
	}
	strict := jsonError(decodeInto(raw, false, v, maxDepthJSON))
	if strict == nil {
		return &Lenient{Bytes: raw}, nil
	}
	p := reflect.ValueOf(v)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return nil, strict
	}
	p.Elem().SetZero() // of what the strict reading got to
	l, err := UnmarshalLenient(raw, v)
	if err != nil || len(l.Violations) == 0 {
		return nil, strict
	}
	return l, nil
}
