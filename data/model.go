package data

import (
	"errors"

	"github.com/barograph/baro/cbor"
)

// checkBlob tells whether the valid CBOR map b, whose `$type` is "blob", may be one.
func checkBlob(b []byte) error {
	var blob Blob
	r := cbor.NewReader(b)
	err := blob.ReadCBOR(&r)
	if err == nil {
		err = blob.Check()
	}
	var e *Error
	if errors.As(err, &e) {
		return errors.New(e.Detail)
	}
	return err
}

// checkModel checks one CBOR value against what the data model wants beyond CBOR.
func checkModel(b []byte) error {
	r := cbor.NewReader(b)
	if err := modelValue(&r, cbor.MaxDepth); err != nil {
		return err
	}
	return r.End()
}

func modelValue(r *cbor.Reader, left int) error {
	k, err := r.Kind()
	if err != nil {
		return err
	}
	switch k {
	case cbor.KindMap:
		at := *r
		if left == 0 {
			return depthError(r)
		}
		n, err := r.Map()
		if err != nil {
			return err
		}
		var key []byte
		blob := false
		for range n {
			off := r.Offset()
			if key, err = r.MapKey(key); err != nil {
				return err
			}
			if key[0] == '$' {
				if rule := reservedRule(key); rule != "" {
					return &Error{Offset: off, Rule: rule, Detail: "a map with the key " + string(key)}
				}
				if string(key) == typeKey {
					v := *r
					if k, _ := v.Kind(); k != cbor.KindText {
						return &Error{Offset: off, Rule: RuleType, Detail: "$type must be a text that isn't empty"}
					}
					t, err := v.TextBytes()
					if err != nil {
						return err
					}
					if len(t) == 0 {
						return &Error{Offset: off, Rule: RuleType, Detail: "$type must be a text that isn't empty"}
					}
					blob = string(t) == blobType
				}
			}
			if err := modelValue(r, left-1); err != nil {
				var e *Error
				if errors.As(err, &e) {
					return e.inKey(key)
				}
				return err
			}
		}
		if blob {
			off := at.Offset()
			if err := checkBlob(at.Rest()); err != nil {
				return &Error{Offset: off, Rule: RuleBlob, Detail: err.Error()}
			}
		}
		return nil
	case cbor.KindArray:
		if left == 0 {
			return depthError(r)
		}
		n, err := r.Array()
		if err != nil {
			return err
		}
		for i := range n {
			if err := modelValue(r, left-1); err != nil {
				var e *Error
				if errors.As(err, &e) {
					return e.inItem(i)
				}
				return err
			}
		}
		return nil
	}
	return r.Skip()
}
