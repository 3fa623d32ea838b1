package data

import (
	"iter"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/barograph/baro/cbor"
)

// Extra holds the entries of a map that the struct for it doesn't know, in the order of their keys. The zero Extra has none.
// Copies are independent of each other: what [Extra.Set] does to one isn't seen in the others.
type Extra struct {
	_    [0]func()  // == would compare pointers: see Equal
	list *extraList // one word, because nearly all structs have an Extra and nearly none has entries
}

// ExtraField is one entry.
type ExtraField struct {
	Key   string
	Value Raw
}

// NewExtra returns an Extra with the entries; of two with the same key the later one.
func NewExtra(fields ...ExtraField) Extra {
	l := extraList(slices.Clone(fields))
	l.tidy()
	return l.extra()
}

// Len returns the number of entries.
func (x Extra) Len() int { return len(x.entries()) }

// Get returns the value of a key.
func (x Extra) Get(key string) (Raw, bool) {
	i, ok := x.entries().find(key)
	if !ok {
		return nil, false
	}
	return x.entries()[i].Value, true
}

// All returns the entries in the order of their keys.
func (x Extra) All() iter.Seq2[string, Raw] {
	return func(yield func(string, Raw) bool) {
		for _, f := range x.entries() {
			if !yield(f.Key, f.Value) {
				return
			}
		}
	}
}

// Set adds an entry or replaces its value, and keeps the order.
func (x *Extra) Set(key string, v Raw) {
	old := x.entries()
	i, ok := old.find(key)
	rest := old[i:]
	if ok {
		rest = rest[1:]
	}
	*x = append(append(slices.Clip(old[:i]), ExtraField{key, v}), rest...).extra()
}

// Delete removes an entry, if it is there.
func (x *Extra) Delete(key string) {
	old := x.entries()
	if i, ok := old.find(key); ok {
		*x = append(slices.Clip(old[:i]), old[i+1:]...).extra()
	}
}

// Equal reports whether x and y have the same entries.
func (x Extra) Equal(y Extra) bool {
	return slices.EqualFunc(x.entries(), y.entries(), func(a, b ExtraField) bool { return a.Key == b.Key && string(a.Value) == string(b.Value) })
}

// String returns the entries in a form for people.
func (x Extra) String() string {
	var b strings.Builder
	b.WriteByte('{')
	for i, f := range x.entries() {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Quote(f.Key))
		b.WriteByte(':')
		if js, _, err := AppendJSONLenient(nil, f.Value); err == nil {
			b.Write(js)
		} else {
			b.WriteByte('?')
		}
	}
	b.WriteByte('}')
	return b.String()
}

func (x Extra) entries() extraList {
	if x.list == nil {
		return nil
	}
	return *x.list
}

// add puts an entry behind the others. It is for those who read an Extra, which nobody else has then.
func (x *Extra) add(f ExtraField) {
	if x.list == nil {
		x.list = new(extraList)
	}
	*x.list = append(*x.list, f)
}

// tidy is extraList.tidy, for the same.
func (x *Extra) tidy() {
	if x.list != nil {
		x.list.tidy()
	}
}

type extraList []ExtraField

func (l extraList) extra() Extra {
	if len(l) == 0 {
		return Extra{}
	}
	return Extra{list: &l}
}

// tidy puts entries in any order, with keys that may come twice, in the order that Extra has; the later of two stays.
func (l *extraList) tidy() {
	slices.SortStableFunc(*l, func(a, b ExtraField) int { return cbor.CompareKeys(a.Key, b.Key) })
	kept := (*l)[:0]
	for i, f := range *l {
		if i+1 == len(*l) || (*l)[i+1].Key != f.Key {
			kept = append(kept, f)
		}
	}
	clear((*l)[len(kept):])
	*l = kept
}

func (l extraList) find(key string) (int, bool) {
	return slices.BinarySearchFunc(l, key, func(f ExtraField, key string) int { return cbor.CompareKeys(f.Key, key) })
}

// appendBefore appends the entries of l that come before key, all of them if key is empty, and returns the rest.
func (l extraList) appendBefore(dst []byte, key string, left int) (_ []byte, rest extraList, err error) {
	for len(l) > 0 && (key == "" || cbor.CompareKeys(l[0].Key, key) < 0) {
		if dst, err = appendRaw(cbor.AppendText(dst, l[0].Key), l[0].Value, left); err != nil {
			return dst, l, inKey(err, l[0].Key)
		}
		l = l[1:]
	}
	return dst, l, nil
}

// without checks the keys of l and returns those that aren't fields: a field that a struct has is no extra.
func (l extraList) without(fields []field) (extraList, error) {
	shadowed := false
	j := 0
	for i := range l {
		k := l[i].Key
		if k == "" || len(k) > cbor.MaxKey || !utf8.ValidString(k) || i > 0 && cbor.CompareKeys(l[i-1].Key, k) >= 0 {
			return nil, valueError(RuleValue, "keys of Extra must be text, sorted and unique: "+strconv.QuoteToASCII(k[:min(len(k), 64)]))
		}
		for j < len(fields) && cbor.CompareKeys(fields[j].key, k) < 0 {
			j++
		}
		shadowed = shadowed || j < len(fields) && fields[j].key == k
	}
	if !shadowed {
		return l, nil
	}
	var out extraList
	for i := range l {
		known := false
		for j := range fields {
			known = known || fields[j].key == l[i].Key
		}
		if !known {
			out = append(out, l[i])
		}
	}
	return out, nil
}
