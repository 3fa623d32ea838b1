package data

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
)

// Blob is a reference to a file (https://atproto.com/specs/data-model#blob-type). A legacy one, which early records hold
// and nobody writes anew, is a map of a CID in string form and a MIME type, without `$type` and size; it is written back
// as it was.
type Blob struct {
	Ref      cid.CID // codec raw
	MimeType string  // not empty
	Size     int64   // bytes; above 0 except in a legacy blob
	Legacy   bool    // the old form; Size is 0
	Extra    Extra   // fields that a blob doesn't have
}

const blobType = "blob"

// Check tells whether b may be written.
func (b *Blob) Check() error {
	switch {
	case !b.Ref.Defined():
		return &Error{Offset: -1, Rule: RuleBlob, Detail: "no ref"}
	case b.Ref.Codec() != cid.Raw && !b.Legacy:
		return &Error{Offset: -1, Rule: RuleBlob, Detail: "ref isn't of codec raw"}
	case b.MimeType == "":
		return &Error{Offset: -1, Rule: RuleBlob, Detail: "no mimeType"}
	case !utf8.ValidString(b.MimeType):
		return &Error{Offset: -1, Rule: RuleUTF8, Detail: "mimeType"}
	case b.Size <= 0 && !b.Legacy:
		return &Error{Offset: -1, Rule: RuleBlob, Detail: fmt.Sprintf("size %d", b.Size)}
	}
	return nil
}

// AppendCBOR appends b in the form that it has: a legacy blob stays one.
func (b *Blob) AppendCBOR(dst []byte) ([]byte, error) {
	if err := b.Check(); err != nil {
		return dst, err
	}
	fields := blobFields
	if b.Legacy {
		fields = legacyFields
	}
	start := dst
	x, err := b.Extra.entries().without(fields)
	field := func(key string) { // key "" is the end
		if err == nil {
			dst, x, err = x.appendBefore(dst, key, cbor.MaxDepth-1)
		}
		if key != "" {
			dst = cbor.AppendText(dst, key)
		}
	}
	if b.Legacy {
		dst = cbor.AppendMap(dst, 2+len(x))
		field("cid")
		dst = cbor.AppendText(dst, b.Ref.String())
	} else {
		dst = cbor.AppendMap(dst, 4+len(x))
		field("ref")
		dst = cbor.AppendLink(dst, b.Ref)
		field("size")
		dst = cbor.AppendInt(dst, b.Size)
		field(typeKey)
		dst = cbor.AppendText(dst, blobType)
	}
	field("mimeType")
	dst = cbor.AppendText(dst, b.MimeType)
	if field(""); err != nil {
		return start, err
	}
	return dst, nil
}

// The fields of the two forms, in canonical order.
var (
	blobFields   = []field{{key: "ref"}, {key: "size"}, {key: typeKey}, {key: "mimeType"}}
	legacyFields = []field{{key: "cid"}, {key: "mimeType"}}
)

// ReadCBOR reads a blob of either form. Its strings and extra fields are copies.
func (b *Blob) ReadCBOR(r *cbor.Reader) error {
	start := *r
	fail := func(detail string) error {
		*r = start
		return &Error{Offset: start.Offset(), Rule: RuleBlob, Detail: detail}
	}
	n, err := r.Map()
	if err != nil {
		return err
	}
	*b = Blob{}
	var key, mime, typ, oldCID []byte
	var hasRef, hasSize bool
	for i := 0; n < 0 || i < n; i++ {
		if n < 0 && r.Break() {
			break
		}
		if key, err = r.MapKey(key); err != nil {
			return err
		}
		known := true
		switch string(key) {
		case "ref":
			hasRef = true
			b.Ref, err = r.Link()
		case "size":
			hasSize = true
			b.Size, err = r.Int()
		case typeKey:
			typ, err = r.TextBytes()
		case "cid": // of the legacy form; else an unknown field of any type
			oldCID, err = r.Raw()
		case "mimeType":
			mime, err = r.TextBytes()
		default:
			known = false
			var raw []byte
			raw, err = r.Raw()
			b.Extra.add(ExtraField{string(key), append(Raw(nil), raw...)})
		}
		if err != nil {
			var e *cbor.Error
			if known && errors.As(err, &e) && e.Rule == cbor.RuleType {
				return fail(string(key) + " is " + e.Detail)
			}
			return err
		}
	}
	b.MimeType = mimeType(mime)
	switch {
	case string(typ) == blobType:
		if !hasRef || !hasSize || mime == nil {
			return fail("a field is missing")
		}
		if oldCID != nil {
			b.Extra.Set("cid", append(Raw(nil), oldCID...))
		}
	case typ == nil && oldCID != nil && mime != nil && !hasRef && !hasSize:
		c := cbor.NewReader(oldCID)
		text, err := c.TextBytes()
		if err != nil {
			return fail("cid isn't a text")
		}
		if b.Ref, err = cid.Parse(text); err != nil {
			return fail(err.Error())
		}
		b.Legacy = true
	default:
		return fail("neither of the two forms")
	}
	return nil
}

// MarshalJSON returns the form that b has, with the ref as `$link`.
func (b Blob) MarshalJSON() ([]byte, error) {
	raw, err := b.AppendCBOR(nil)
	if err != nil {
		return nil, err
	}
	return AppendJSON(nil, raw)
}

// UnmarshalJSON reads either form.
func (b *Blob) UnmarshalJSON(json []byte) error {
	raw, err := AppendCBOR(nil, json)
	if err != nil {
		return err
	}
	r := cbor.NewReader(raw)
	return b.ReadCBOR(&r)
}

// mimeType is string(b), without an allocation for what nearly all blobs are.
func mimeType(b []byte) string {
	switch string(b) {
	case "image/jpeg":
		return "image/jpeg"
	case "image/png":
		return "image/png"
	case "image/webp":
		return "image/webp"
	case "video/mp4":
		return "video/mp4"
	}
	return string(b)
}
