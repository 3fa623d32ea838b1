package data

import (
	"errors"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
)

// blobProblem tells why the valid map that r is about to read, whose `$type` is "blob", isn't one; "" if it is. It is the
// check of [Blob.ReadCBOR] and [Blob.Check] on views.
func blobProblem(r cbor.Reader) string {
	n, err := r.Map()
	var key []byte
	var ref, size, mime bool
	for range n {
		if key, err = r.MapKey(key); err != nil {
			break
		}
		k, _ := r.Kind()
		switch string(key) {
		case "ref":
			if k != cbor.KindLink {
				return "ref isn't a link"
			}
			c, err := r.Link()
			if err != nil {
				return err.Error()
			}
			if ref = c.Codec() == cid.Raw; !ref {
				return "ref isn't of codec raw"
			}
		case "size":
			if k != cbor.KindInt {
				return "size isn't an integer"
			}
			v, _ := r.Int()
			if size = v > 0; !size {
				return "size isn't above zero"
			}
		case "mimeType":
			if k != cbor.KindText {
				return "mimeType isn't a text"
			}
			v, _ := r.TextBytes()
			if mime = len(v) > 0; !mime {
				return "mimeType is empty"
			}
		default:
			err = r.Skip()
		}
		if err != nil {
			break
		}
	}
	switch {
	case err != nil:
		return err.Error()
	case !ref:
		return "no ref"
	case !size:
		return "no size"
	case !mime:
		return "no mimeType"
	}
	return ""
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
			if problem := blobProblem(at); problem != "" {
				return &Error{Offset: at.Offset(), Rule: RuleBlob, Detail: problem}
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
