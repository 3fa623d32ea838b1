package data

import (
	"iter"
	"strconv"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
)

// Step is one step on the way from the top of a value to something in it: into an entry of a map or an item of an array.
type Step struct {
	Key   []byte // of the entry; nil for an item
	Index int    // of the item
	Type  []byte // the `$type` of the map that the step leads to; nil if it has none or is no map
}

// pathOf returns a path in the form of [Error].
func pathOf(steps []Step) string {
	var p []byte
	for _, s := range steps {
		if s.Key != nil {
			p = cbor.AppendPathKey(p, s.Key)
		} else {
			p = append(strconv.AppendInt(append(p, '['), int64(s.Index), 10), ']')
		}
		if len(p) > maxPath {
			return string(p) + "…"
		}
	}
	return string(p)
}

// Leaf is something that [Walk] finds. Only the field of its kind means something. It and all that it shows are views of the input,
// except the strings in Blob.
type Leaf struct {
	Kind  cbor.Kind // KindText, KindBytes, KindLink, or KindMap for a blob
	Text  []byte
	Bytes []byte
	Link  cid.CID
	Blob  Blob
}

// Walk visits the texts, byte strings, links and blobs in one CBOR value, in their order there, with the path to each. A
// map with `$type: "blob"` that is a blob is visited as one and not entered; a legacy blob can't be told without a schema
// and is a map like others. The value is checked strictly on the way.
//
// The path and the leaf are valid during the call only. An error from visit ends the walk and is returned.
func Walk(raw []byte, visit func(path []Step, v *Leaf) error) error {
	w := walker{r: cbor.NewReader(raw), visit: visit}
	if err := w.value(0); err != nil {
		return err
	}
	return w.r.End()
}

type walker struct {
	r     cbor.Reader
	visit func([]Step, *Leaf) error
	leaf  Leaf
	path  [cbor.MaxDepth]Step
}

// value walks over the value that w.path[:n] leads to.
func (w *walker) value(n int) error {
	k, err := w.r.Kind()
	if err != nil {
		return err
	}
	switch k {
	case cbor.KindText:
		text, err := w.r.TextBytes()
		if err != nil {
			return err
		}
		w.leaf.Kind, w.leaf.Text = k, text
		return w.visit(w.path[:n], &w.leaf)
	case cbor.KindBytes:
		b, err := w.r.Bytes()
		if err != nil {
			return err
		}
		w.leaf.Kind, w.leaf.Bytes = k, b
		return w.visit(w.path[:n], &w.leaf)
	case cbor.KindLink:
		c, err := w.r.Link()
		if err != nil {
			return err
		}
		w.leaf.Kind, w.leaf.Link = k, c
		return w.visit(w.path[:n], &w.leaf)
	case cbor.KindMap:
		typ := typeOf(w.r)
		if n > 0 {
			w.path[n-1].Type = typ
		}
		if n == len(w.path) {
			return &Error{Offset: w.r.Offset(), Path: pathOf(w.path[:]), Rule: RuleDepth}
		}
		if string(typ) == blobType {
			start := w.r
			w.leaf.Kind = k
			if w.leaf.Blob.ReadCBOR(&w.r) == nil {
				if err := extraWithin(start, &w.leaf.Blob, n); err != nil {
					return err
				}
				return w.visit(w.path[:n], &w.leaf)
			}
			w.r = start
		}
		size, err := w.r.Map()
		if err != nil {
			return err
		}
		var key []byte
		for range size {
			if key, err = w.r.MapKey(key); err != nil {
				return err
			}
			w.path[n] = Step{Key: key}
			if err := w.value(n + 1); err != nil {
				return err
			}
		}
		return nil
	case cbor.KindArray:
		if n == len(w.path) {
			return &Error{Offset: w.r.Offset(), Path: pathOf(w.path[:]), Rule: RuleDepth}
		}
		size, err := w.r.Array()
		if err != nil {
			return err
		}
		for i := range size {
			w.path[n] = Step{Index: i}
			if err := w.value(n + 1); err != nil {
				return err
			}
		}
		return nil
	}
	return w.r.Skip()
}

// Blobs visits the blob references in one CBOR value in their order there, a blob that occurs twice twice. Maps that look
// like a legacy blob, a text `cid` and a text `mimeType` and nothing else, are given too, with Legacy set: only the schema
// says whether they are. An error in second place ends the sequence.
func Blobs(raw []byte) iter.Seq2[Blob, error] {
	return func(yield func(Blob, error) bool) {
		r := cbor.NewReader(raw)
		more, err := blobs(&r, cbor.MaxDepth, yield)
		if more && err == nil {
			err = r.End()
		}
		if err != nil {
			yield(Blob{}, err)
		}
	}
}

// blobs reports whether to go on.
func blobs(r *cbor.Reader, left int, yield func(Blob, error) bool) (bool, error) {
	k, err := r.Kind()
	if err != nil {
		return false, err
	}
	switch k {
	case cbor.KindMap:
		if left == 0 {
			return false, depthError(r)
		}
		start := *r
		n, err := r.Map()
		if err != nil {
			return false, err
		}
		if looksLikeBlob(start, *r, n) {
			var b Blob
			again := start
			if b.ReadCBOR(&again) == nil {
				if err := extraWithin(start, &b, cbor.MaxDepth-left); err != nil {
					return false, err
				}
				*r = again
				return yield(b, nil), nil
			}
		}
		var key []byte
		for range n {
			if key, err = r.MapKey(key); err != nil {
				return false, err
			}
			if more, err := blobs(r, left-1, yield); !more || err != nil {
				return false, inKey(err, string(key))
			}
		}
	case cbor.KindArray:
		if left == 0 {
			return false, depthError(r)
		}
		n, err := r.Array()
		if err != nil {
			return false, err
		}
		for i := range n {
			if more, err := blobs(r, left-1, yield); !more || err != nil {
				return false, inItem(err, i)
			}
		}
	default:
		return true, r.Skip()
	}
	return true, nil
}

// extraWithin checks that the fields of the blob at r which a blob doesn't have nest no deeper than they may, depth
// containers being open around it.
func extraWithin(r cbor.Reader, b *Blob, depth int) error {
	if b.Extra.Len() == 0 {
		return nil
	}
	_, err := r.RawWithin(depth)
	return err
}

// looksLikeBlob tells by the first keys whether the map of n entries at start, whose entries begin at r, is worth trying.
// Both forms begin with a key of at most three bytes, which few other maps do.
func looksLikeBlob(start, r cbor.Reader, n int) bool {
	if n < 2 {
		return false
	}
	key, err := r.MapKey(nil)
	switch {
	case err != nil:
		return false
	case n == 2 && string(key) == "cid":
		if r.Skip() != nil {
			return false
		}
		next, err := r.MapKey(key)
		return err == nil && string(next) == "mimeType"
	}
	return n >= 4 && len(key) <= 3 && string(typeOf(start)) == blobType
}
