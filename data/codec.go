package data

import (
	"reflect"
	"sync"

	"github.com/barograph/baro/cbor"
)

// The struct codec. One runtime serves every struct type; what it needs to know of a type it takes from the fields and
// their tags once, and keeps as a plan (codec_plan.go). codec_fast.go and codec_fast_decode.go execute plans with package
// unsafe; codec_reflect.go does the same by reflection and is asked whenever they say no.
//
// A field is described by its Go type and its json tag, `json:"name"` or `json:"name,omitzero"`:
//
//	string, int64, int, bool   text, integers and booleans; also named types of these kinds
//	[]byte, cid.CID, Blob      bytes, link, blob
//	Raw                        any value but null
//	struct, *struct            map
//	[]T                        array; nil and empty are both written as an empty one
//	*T                         T, if the field has omitzero or lex:"nullable"
//	Union[…], Nullable[T]      see there
//
// With omitzero the field may be absent: a nil pointer or slice, an empty Raw, a zero Union or Nullable. (Avoid it on
// plain strings, integers and booleans, because a zero that is there could not be told from none.) Without it the field
// must be there to be read. A field `Extra Extra` with json:"-" takes the entries of the map that no other field is for;
// a struct without it drops them. With lex:"record" on it the struct is a record,
// which has its LexType as `$type`.

// More rules of [Error], those of structs.
const (
	RuleMissing Rule = "missing" // a required field that isn't there
	RuleUnion   Rule = "union"   // a closed union with another type than its own, or an empty union that must be there
)

// maxDepthJSON is how deep the bodies of API calls may nest: threads nest deeper than records may.
const maxDepthJSON = 4096

// Append appends the CBOR of v: a struct as described by the tags of its fields, a pointer to one, a [Union], a [Raw] or a
// slice of these. On an error dst is returned unchanged.
func Append(dst []byte, v any) ([]byte, error) { return appendAny(dst, v, cbor.MaxDepth) }

// Marshal returns the CBOR of v, see [Append].
func Marshal(v any) ([]byte, error) {
	buf := buffers.Get().(*[]byte)
	defer putBuffer(buf)
	b, err := appendAny((*buf)[:0], v, cbor.MaxDepth)
	if err != nil {
		return nil, err
	}
	*buf = b
	out := make([]byte, len(b))
	copy(out, b)
	return out, nil
}

// Unmarshal reads strict CBOR into the value that v points to, which is overwritten. Nothing in it shares memory with b,
// but its parts may share memory with each other: whoever keeps one string of a record keeps all of its text.
// Errors are of type [*Error] or [*cbor.Error]; the value is then of no use.
func Unmarshal(b []byte, v any) error {
	if len(b) > maxShared {
		return decodeInto(b, false, v, cbor.MaxDepth)
	}
	// One copy for all strings and bytes of the value.
	c := make([]byte, len(b))
	copy(c, b)
	return decodeInto(c, true, v, cbor.MaxDepth)
}

// UnmarshalOwned is [Unmarshal] of bytes that belong to the value from then on: its strings and bytes are views of b, which
// nobody may change any more, and hold all of it. That saves a copy, which is up to a third of the time. It is meant for
// buffers that were made for the one value, or whose values are dropped together.
func UnmarshalOwned(b []byte, v any) error { return decodeInto(b, true, v, cbor.MaxDepth) }

// MarshalJSON returns the JSON of v, see [Append].
func MarshalJSON(v any) ([]byte, error) { return AppendStructJSON(nil, v) }

// AppendStructJSON appends the JSON of v, see [Append]. On an error dst is returned unchanged.
func AppendStructJSON(dst []byte, v any) ([]byte, error) {
	buf := buffers.Get().(*[]byte)
	defer putBuffer(buf)
	b, err := appendAny((*buf)[:0], v, maxDepthJSON)
	if err != nil {
		return dst, err
	}
	*buf = b
	if dst == nil {
		dst = make([]byte, 0, len(b)+len(b)/4)
	}
	return Transcoder{MaxDepth: maxDepthJSON}.AppendJSON(dst, b)
}

// UnmarshalJSON reads JSON under the rules of [AppendCBOR] into the value that v points to, which is overwritten.
func UnmarshalJSON(b []byte, v any) error {
	t := Transcoder{MaxDepth: maxDepthJSON}
	if len(b) <= maxShared {
		raw, err := t.AppendCBOR(make([]byte, 0, len(b)), b)
		if err != nil {
			return err
		}
		return jsonError(decodeInto(raw, true, v, maxDepthJSON))
	}
	buf := buffers.Get().(*[]byte)
	defer putBuffer(buf)
	raw, err := t.AppendCBOR((*buf)[:0], b)
	if err != nil {
		return err
	}
	*buf = raw
	return jsonError(decodeInto(raw, false, v, maxDepthJSON))
}

// jsonError takes the offset out of an error, since it isn't one in the JSON.
func jsonError(err error) error {
	switch e := err.(type) {
	case *Error:
		e.Offset = -1
	case *cbor.Error:
		return &Error{Offset: -1, Path: e.Path, Rule: Rule(e.Rule), Detail: e.Detail}
	}
	return err
}

// maxShared is the size of an input up to which strings share one copy of all of it. Beyond, a string that is kept would
// hold too much memory that isn't.
const maxShared = 8 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 4096); return &b }}

func putBuffer(b *[]byte) {
	if cap(*b) <= maxKept {
		buffers.Put(b)
	}
}

// Typed is what records and members of unions implement, with a pointer as the receiver: the value of their `$type`.
// It is called on nil pointers too.
type Typed interface{ LexType() string }

// Union holds a value of one of several types, told apart by `$type`: either Value, a pointer to one of the types that
// this package has a struct for, or Raw, a map of any other type, which is kept as it is. The zero Union is absent.
//
// The members are the parameter types of the function type F, which is never called. A union is open and accepts other
// types than its members, unless F returns [Closed].
//
//	type FeedPost_Embed = data.Union[func(*EmbedImages, *EmbedVideo)]
//
//	switch e := post.Embed.Value.(type) {
//	case *appbsky.EmbedImages:
//	case nil: // post.Embed.Raw, if not nil too
//	}
type Union[F any] struct {
	Value Typed
	Raw   Raw
}

// Closed is the result of the function type of a closed [Union].
type Closed struct{}

// IsZero reports whether u is absent.
func (u Union[F]) IsZero() bool { return u.Value == nil && len(u.Raw) == 0 }

// Type returns the `$type` of what u holds, "" if it is absent.
func (u Union[F]) Type() string {
	if u.Value != nil {
		return u.Value.LexType()
	}
	return TypeOf(u.Raw)
}

// MarshalJSON is [MarshalJSON].
func (u Union[F]) MarshalJSON() ([]byte, error) { return MarshalJSON(&u) }

// UnmarshalJSON is [UnmarshalJSON].
func (u *Union[F]) UnmarshalJSON(b []byte) error { return UnmarshalJSON(b, u) }

func (Union[F]) lexUnion() reflect.Type { return reflect.TypeFor[F]() }

// Nullable is an optional field that may be null, which is not the same as absent. The zero value is absent.
type Nullable[T any] struct {
	Value *T   // not nil if there is a value
	Null  bool // the field is there, and null
}

// Null returns a field that is there and null.
func Null[T any]() Nullable[T] { return Nullable[T]{Null: true} }

// NotNull returns a field with a value.
func NotNull[T any](v T) Nullable[T] { return Nullable[T]{Value: &v} }

// IsZero reports whether the field is absent.
func (n Nullable[T]) IsZero() bool { return n.Value == nil && !n.Null }

// MarshalJSON writes null if there is no value.
func (n Nullable[T]) MarshalJSON() ([]byte, error) {
	if n.Value == nil {
		return []byte("null"), nil
	}
	return MarshalJSON(n.Value)
}

// UnmarshalJSON keeps null apart from values.
func (n *Nullable[T]) UnmarshalJSON(b []byte) error {
	*n = Nullable[T]{}
	if string(b) == "null" {
		n.Null = true
		return nil
	}
	n.Value = new(T)
	return UnmarshalJSON(b, n.Value)
}

func (Nullable[T]) lexNullable() reflect.Type { return reflect.TypeFor[T]() }

// fieldCodec is implemented by types that read and write themselves, as [Blob] does.
type fieldCodec interface {
	AppendCBOR(dst []byte) ([]byte, error)
	ReadCBOR(r *cbor.Reader) error
}

var _ fieldCodec = (*Blob)(nil)
