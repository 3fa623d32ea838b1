// Package data is the data model: values in CBOR and in JSON, and what can be said of them without a schema.
//
// Specification: https://atproto.com/specs/data-model.
//
// [Raw] is a value in its one CBOR encoding. [AppendJSON] and [AppendCBOR] turn that into the JSON of the protocol and back
// without building a tree; the way from CBOR through JSON to CBOR gives the same bytes. [Decode] and [Encode] do build
// one, of Go values. [Walk] and [Blobs] visit what is in a record, [CheckRecord] tells whether it may be one. The structs
// that are generated from schemas are read and written by [Unmarshal] and [Append]; fields that a struct doesn't know
// stay in its [Extra] byte for byte. Whether a record fits its schema is the subject of package lexicon.
//
//	raw, err := data.ParseRecord([]byte(`{"$type":"com.example.note","text":"hi","pic":{"$link":"bafkrei…"}}`))
//	c := cid.Sum(cid.DagCBOR, raw)
//	json, err := data.AppendJSON(nil, raw)
//
// JSON is read strictly: no duplicate keys, no lone surrogates, integers exact to 64 bits (123.0 is one, 1.5 is refused),
// `$link` and `$bytes` alone in their object, `$type` a text that isn't empty, `$type: "blob"` only on a blob.
//
// Records that break rules exist, and are signed and linked to like others. [UnmarshalLenient], [DecodeLenient] and
// [AppendJSONLenient] read what can be read of them and name every violation, and so do [AppendCBORLenient] and
// [UnmarshalJSONLenient] of JSON; they keep the bytes, and none of what they give can be mistaken for a valid record. All
// other functions are strict.
//
// Limits: those of package cbor, with the depth counted from the top of the input, and enforced before anything is
// allocated; the depth can be raised with a [Transcoder] for the bodies of API calls, where threads nest deeper than records
// may. Sizes are checked by [ParseRecord] and [CheckRecord] only; elsewhere work and memory grow with the input, whose size
// the caller bounds. Errors are of type [*Error] or [*cbor.Error], with rule, offset and path. The API is stable.
//
// Structs are read and written with package unsafe; the build tag purego puts reflection in its place, which takes two to
// three times as long and gives the same.
package data

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/barograph/baro/cbor"
)

// Limits of one record. A commit may not carry a larger one (https://atproto.com/specs/sync); the reading side of
// package cbor is a little more generous.
const (
	MaxRecord     = 1_000_000 // bytes of CBOR
	MaxRecordJSON = 2 << 20   // bytes of JSON
)

// Raw is one value in valid, strict DAG-CBOR. Nil is no value at all, which is not the same as null.
type Raw []byte

// Type returns the `$type` of a map, "" if there is none.
func (r Raw) Type() string { return TypeOf(r) }

// MarshalJSON is [AppendJSON]; nil becomes null.
func (r Raw) MarshalJSON() ([]byte, error) {
	if r == nil {
		return []byte("null"), nil
	}
	return AppendJSON(nil, r)
}

// UnmarshalJSON is [AppendCBOR].
func (r *Raw) UnmarshalJSON(b []byte) error {
	v, err := AppendCBOR(nil, b)
	if err != nil {
		return err
	}
	*r = v
	return nil
}

// Rule names the rule of the data model, or of JSON, that an input breaks. Broken rules of CBOR come as a [*cbor.Error].
type Rule string

// The rules.
const (
	RuleSyntax       Rule = "syntax"        // not JSON
	RuleTruncated    Rule = "truncated"     // JSON that ends too early
	RuleTrailing     Rule = "trailing"      // something after the value
	RuleUTF8         Rule = "utf8"          // text that isn't UTF-8
	RuleSurrogate    Rule = "surrogate"     // \u escape of half a surrogate pair
	RuleFloat        Rule = "float"         // a number that isn't an integer
	RuleIntRange     Rule = "int-range"     // an integer outside int64
	RuleDepth        Rule = "depth"         // too many containers within each other
	RuleElements     Rule = "elements"      // too many elements in one container
	RuleKeyEmpty     Rule = "key-empty"     // an empty key
	RuleKeySize      Rule = "key-size"      // a key over cbor.MaxKey bytes
	RuleKeyDuplicate Rule = "key-duplicate" // a key twice in one object
	RuleLink         Rule = "link"          // a `$link` with company, of another type than string, or not a CID
	RuleBytes        Rule = "bytes"         // a `$bytes` with company, of another type than string, or not base64
	RuleType         Rule = "type"          // a `$type` that isn't a string or is empty; of a record: that isn't there
	RuleBlob         Rule = "blob"          // a `$type: "blob"` without the fields of one
	RuleRecord       Rule = "record"        // a record that isn't a map
	RuleSize         Rule = "size"          // a record over MaxRecord or MaxRecordJSON bytes
	RuleValue        Rule = "value"         // a Go value that the data model can't hold
)

// Error says which rule is broken and where.
type Error struct {
	Offset int    // in the JSON or CBOR; -1 if there is none
	Path   string // of the offending value, such as "facets[0].index"; "" at the top; cut short over about 1 KiB
	Rule   Rule
	Detail string
}

// Error returns one line that says everything.
func (e *Error) Error() string {
	var s strings.Builder
	s.WriteString("data: ")
	s.WriteString(string(e.Rule))
	if e.Detail != "" {
		s.WriteString(": ")
		s.WriteString(e.Detail)
	}
	if e.Path != "" {
		s.WriteString(" in ")
		s.WriteString(e.Path)
	}
	if e.Offset >= 0 {
		fmt.Fprintf(&s, " (byte %d)", e.Offset)
	}
	return s.String()
}

// inKey and inItem put a step before the path, while an error travels outwards.
func (e *Error) inKey(key []byte) *Error { return e.in(string(cbor.AppendPathKey(nil, key))) }
func (e *Error) inItem(i int) *Error     { return e.in("[" + strconv.Itoa(i) + "]") }

// maxPath is about how many bytes a path has; what is further in is cut off. Where much may nest a path could be as long as
// the input, and to build it step by step take the square of that.
const maxPath = 1024

func (e *Error) in(step string) *Error {
	if e.Path != "" && e.Path[0] != '[' {
		step += "."
	}
	if len(e.Path) > maxPath {
		e.Path = strings.ToValidUTF8(e.Path[:maxPath], "") + "…"
	}
	e.Path = step + e.Path
	return e
}

// ParseRecord turns the JSON of a record into CBOR. It must be an object with a `$type`; the sizes are those of
// [MaxRecordJSON] and [MaxRecord].
func ParseRecord(json []byte) (Raw, error) {
	if len(json) > MaxRecordJSON {
		return nil, &Error{Offset: -1, Rule: RuleSize, Detail: fmt.Sprintf("%d bytes of JSON, at most %d", len(json), MaxRecordJSON)}
	}
	raw, err := AppendCBOR(make([]byte, 0, len(json)), json)
	if err != nil {
		return nil, err
	}
	if err := checkTop(raw); err != nil {
		return nil, err
	}
	return raw, nil
}

// CheckRecord tells whether raw may be a record: strict CBOR of at most [MaxRecord] bytes, a map with a `$type`, every
// other `$type` in it a text, every `$type: "blob"` a blob, and no `$link` or `$bytes` as a key, since JSON couldn't say so.
func CheckRecord(raw []byte) error {
	if err := checkTop(raw); err != nil {
		// Bytes that aren't CBOR at all are better told by the reader.
		var e *Error
		if errors.As(err, &e) && e.Rule == RuleSize {
			return err
		}
		if verr := cbor.Valid(raw); verr != nil {
			return verr
		}
		return err
	}
	return checkModel(raw)
}

func checkTop(raw []byte) error {
	if len(raw) > MaxRecord {
		return &Error{Offset: -1, Rule: RuleSize, Detail: fmt.Sprintf("%d bytes, at most %d", len(raw), MaxRecord)}
	}
	r := cbor.NewReader(raw)
	if k, err := r.Kind(); err != nil {
		return err
	} else if k != cbor.KindMap {
		return &Error{Rule: RuleRecord, Detail: k.String() + ", a record is a map"}
	}
	if len(typeOf(r)) == 0 {
		return &Error{Rule: RuleType, Detail: "a record needs a $type"}
	}
	return nil
}

// TypeOf returns the `$type` of a map, "" if raw is no map, has none, or not a text. It reads no further than needed.
func TypeOf(raw []byte) string {
	return string(typeOf(cbor.NewReader(raw)))
}

const typeKey = "$type"

// typeOf returns a view of the `$type` of the map that r (a copy) is about to read.
func typeOf(r cbor.Reader) []byte {
	n, err := r.Map()
	if err != nil {
		return nil
	}
	var key []byte
	for range n {
		if key, err = r.MapKey(key); err != nil || len(key) > len(typeKey) {
			return nil
		}
		if string(key) == typeKey {
			if k, _ := r.Kind(); k != cbor.KindText {
				return nil
			}
			t, err := r.TextBytes()
			if err != nil {
				return nil
			}
			return t
		}
		if r.Skip() != nil {
			return nil
		}
	}
	return nil
}
