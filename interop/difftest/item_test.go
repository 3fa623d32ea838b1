package difftest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
)

// item is a CBOR data item as it was written. It is the slow model of CBOR: a parser of everything that RFC 8949 calls
// well-formed, a list of what the protocol finds wrong with it, and a way to change it and to write it again.
type item struct {
	major byte
	info  byte    // additional information, 0 to 31
	arg   uint64  // the argument, of floats the bits
	body  []byte  // of strings of definite length
	kids  []*item // items, chunks, or keys and values in turn; the content of a tag
}

const (
	mUint = iota
	mNegative
	mBytes
	mText
	mArray
	mMap
	mTag
	mSimple
)

var (
	errTruncated = errors.New("truncated")
	errReserved  = errors.New("reserved")
	errDeep      = errors.New("too deep for the model")
)

const modelDepth = 5000

// parseItem reads the first item of b.
func parseItem(b []byte, depth int) (*item, []byte, error) {
	if len(b) == 0 {
		return nil, nil, errTruncated
	}
	if depth > modelDepth {
		return nil, nil, errDeep
	}
	it := &item{major: b[0] >> 5, info: b[0] & 31}
	b = b[1:]
	switch {
	case it.info < 24:
		it.arg = uint64(it.info)
	case it.info < 28:
		n := 1 << (it.info - 24)
		if len(b) < n {
			return nil, nil, errTruncated
		}
		for _, c := range b[:n] {
			it.arg = it.arg<<8 | uint64(c)
		}
		b = b[n:]
	case it.info < 31 || it.major == mUint || it.major == mNegative || it.major == mTag || it.major == mSimple:
		return nil, nil, errReserved
	default: // of indefinite length
		for {
			if len(b) == 0 {
				return nil, nil, errTruncated
			}
			if b[0] == 0xff && (it.major != mMap || len(it.kids)%2 == 0) {
				return it, b[1:], nil
			}
			kid, rest, err := parseItem(b, depth+1)
			if err != nil {
				return nil, nil, err
			}
			if it.major <= mText && (kid.major != it.major || kid.info == 31) {
				return nil, nil, errReserved
			}
			it.kids, b = append(it.kids, kid), rest
		}
	}
	n := uint64(0)
	switch it.major {
	case mBytes, mText:
		if it.arg > uint64(len(b)) {
			return nil, nil, errTruncated
		}
		it.body = bytes.Clone(b[:it.arg])
		return it, b[it.arg:], nil
	case mArray:
		n = it.arg
	case mMap:
		if it.arg > uint64(len(b)) {
			return nil, nil, errTruncated
		}
		n = 2 * it.arg
	case mTag:
		n = 1
	}
	if n > uint64(len(b)) {
		return nil, nil, errTruncated
	}
	for range n {
		kid, rest, err := parseItem(b, depth+1)
		if err != nil {
			return nil, nil, err
		}
		it.kids, b = append(it.kids, kid), rest
	}
	return it, b, nil
}

// append writes it again, as it was.
func (it *item) append(b []byte) []byte {
	b = append(b, it.major<<5|it.info)
	if it.info >= 24 && it.info < 28 {
		n := 1 << (it.info - 24)
		for i := n - 1; i >= 0; i-- {
			b = append(b, byte(it.arg>>(8*i)))
		}
	}
	b = append(b, it.body...)
	for _, k := range it.kids {
		b = k.append(b)
	}
	if it.info == 31 {
		b = append(b, 0xff)
	}
	return b
}

// setArg sets the argument in the shortest form.
func (it *item) setArg(v uint64) {
	it.arg = v
	switch {
	case v < 24:
		it.info = byte(v)
	case v <= math.MaxUint8:
		it.info = 24
	case v <= math.MaxUint16:
		it.info = 25
	case v <= math.MaxUint32:
		it.info = 26
	default:
		it.info = 27
	}
}

// fit makes the argument that of the content, unless the length is indefinite.
func (it *item) fit() {
	if it.info == 31 {
		return
	}
	switch it.major {
	case mBytes, mText:
		it.setArg(uint64(len(it.body)))
	case mArray:
		it.setArg(uint64(len(it.kids)))
	case mMap:
		it.setArg(uint64(len(it.kids) / 2))
	}
}

// fault names what is wrong with CBOR, in the words of the model.
type fault string

const (
	fTruncated  fault = "truncated"
	fReserved   fault = "reserved"
	fTrailing   fault = "trailing"
	fWide       fault = "wide head"
	fIndefinite fault = "indefinite length"
	fIntRange   fault = "integer beyond int64"
	fFloat      fault = "float"
	fUndefined  fault = "undefined"
	fSimple     fault = "simple value"
	fTag        fault = "tag"
	fCID        fault = "CID in a link"
	fUTF8       fault = "UTF-8"
	fKeyType    fault = "key that isn't text"
	fKeyTag     fault = "tag around a key"
	fKeyEmpty   fault = "empty key"
	fKeySize    fault = "long key"
	fKeyOrder   fault = "keys out of order"
	fKeyTwice   fault = "key twice"
	fDepth      fault = "depth"
	fElements   fault = "elements"
)

type faults map[fault]bool

// only reports whether f holds x, and nothing but x and what else is listed.
func (f faults) only(x fault, others []fault) bool {
	if !f[x] {
		return false
	}
	for have := range f {
		if have != x && !slices.Contains(others, have) {
			return false
		}
	}
	return true
}

// examine parses b and returns its one item, nil if there is none, and all its faults.
func examine(b []byte) (*item, faults) {
	f := faults{}
	it, rest, err := parseItem(b, 0)
	switch err {
	case nil:
	case errTruncated:
		f[fTruncated] = true
	case errDeep:
		f[fDepth] = true
	default:
		f[fReserved] = true
	}
	if err != nil {
		return nil, f
	}
	if len(rest) > 0 {
		f[fTrailing] = true
	}
	it.examine(f, 0)
	return it, f
}

func (it *item) examine(f faults, depth int) {
	if it.major != mSimple {
		if it.info == 31 {
			f[fIndefinite] = true
		} else if w := (&item{}); true {
			if w.setArg(it.arg); w.info != it.info {
				f[fWide] = true
			}
		}
	}
	switch it.major {
	case mUint, mNegative:
		if it.arg > math.MaxInt64 {
			f[fIntRange] = true
		}
	case mText:
		if !utf8.Valid(it.body) {
			f[fUTF8] = true
		}
		for _, k := range it.kids {
			if !utf8.Valid(k.body) {
				f[fUTF8] = true
			}
		}
	case mArray, mMap:
		if depth++; depth > cbor.MaxDepth {
			f[fDepth] = true
		}
		if n := len(it.kids); it.major == mArray && n > cbor.MaxElements || it.major == mMap && n/2 > cbor.MaxElements {
			f[fElements] = true
		}
	case mTag:
		c := it.kids[0]
		if it.arg != 42 {
			f[fTag] = true
		} else if c.major != mBytes || len(c.body) != 37 || c.body[0] != 0 || c.body[1] != 1 ||
			c.body[2] != 0x71 && c.body[2] != 0x55 || c.body[3] != 0x12 || c.body[4] != 32 {
			f[fCID] = true
		}
	case mSimple:
		switch {
		case it.info >= 25 && it.info <= 27:
			f[fFloat] = true
		case it.info == 23:
			f[fUndefined] = true
		case it.info == 20 || it.info == 21 || it.info == 22:
		default:
			f[fSimple] = true
		}
	}
	if it.major == mMap {
		var keys []string
		for i := 0; i < len(it.kids); i += 2 {
			k := it.kids[i].untagged()
			if k.major != mText {
				f[fKeyType] = true
				continue
			}
			if k != it.kids[i] {
				f[fKeyTag] = true
			}
			key := k.content()
			switch n := len(key); {
			case n == 0:
				f[fKeyEmpty] = true
			case n > cbor.MaxKey:
				f[fKeySize] = true
			}
			keys = append(keys, string(key))
		}
		if !slices.IsSortedFunc(keys, compareKeys) {
			f[fKeyOrder] = true
		}
		slices.Sort(keys)
		if len(slices.Compact(slices.Clone(keys))) < len(keys) {
			f[fKeyTwice] = true
		}
	}
	for i, k := range it.kids {
		if it.major == mMap && i%2 == 0 && k.untagged().major == mText {
			k = k.untagged()
		}
		k.examine(f, depth)
	}
}

// untagged gives what is within tags.
func (it *item) untagged() *item {
	for it.major == mTag {
		it = it.kids[0]
	}
	return it
}

// content gives the bytes of a string of either length.
func (it *item) content() []byte {
	b := it.body
	for _, k := range it.kids {
		b = append(b, k.body...)
	}
	return b
}

func compareKeys(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

// tree is the value of an item without faults, in the types of data.Decode.
func (it *item) tree() any {
	switch it.major {
	case mUint:
		return int64(it.arg)
	case mNegative:
		return -1 - int64(it.arg)
	case mBytes:
		return append([]byte{}, it.body...)
	case mText:
		return string(it.body)
	case mArray:
		list := make([]any, 0, len(it.kids))
		for _, k := range it.kids {
			list = append(list, k.tree())
		}
		return list
	case mMap:
		m := make(map[string]any, len(it.kids)/2)
		for i := 0; i < len(it.kids); i += 2 {
			m[string(it.kids[i].body)] = it.kids[i+1].tree()
		}
		return m
	case mTag:
		return cid.CID(it.kids[0].body[1:])
	}
	switch it.info {
	case 20:
		return false
	case 21:
		return true
	}
	return nil
}

// all lists it and everything below it.
func (it *item) all() []*item { return it.appendAll(nil) }

func (it *item) appendAll(list []*item) []*item {
	list = append(list, it)
	for _, k := range it.kids {
		list = k.appendAll(list)
	}
	return list
}

// mutateCBOR changes b in one to three ways that know the format; bytes that aren't CBOR are changed blindly.
func mutateCBOR(b []byte, seed uint64) []byte {
	r := seeded(seed)
	it, rest, err := parseItem(b, 0)
	if err != nil {
		return scramble(b, r)
	}
	for range 1 + r.IntN(3) {
		it.mutate(r)
	}
	out := append(it.append(nil), rest...)
	switch r.IntN(30) {
	case 0:
		out = append(out, pick(r, byte(0), 0xf6, 0xff))
	case 1:
		out = out[:r.IntN(len(out))]
	case 2:
		out = scramble(out, r)
	}
	return out
}

// scramble changes a few bytes.
func scramble(b []byte, r *rand.Rand) []byte {
	b = bytes.Clone(b)
	for range 1 + r.IntN(3) {
		if len(b) == 0 {
			return []byte{byte(r.Uint32())}
		}
		i := r.IntN(len(b))
		switch r.IntN(4) {
		case 0:
			b[i] ^= 1 << r.IntN(8)
		case 1:
			b[i] = byte(r.Uint32())
		case 2:
			b = slices.Delete(b, i, min(i+1+r.IntN(4), len(b)))
		default:
			b = slices.Insert(b, i, byte(r.Uint32()))
		}
	}
	return b
}

func text(s string) *item {
	it := &item{major: mText, body: []byte(s)}
	it.fit()
	return it
}

func number(v uint64, major byte) *item {
	it := &item{major: major}
	it.setArg(v)
	return it
}

func array(kids ...*item) *item {
	it := &item{major: mArray, kids: kids}
	it.fit()
	return it
}

func object(kids ...*item) *item {
	it := &item{major: mMap, kids: kids}
	it.fit()
	return it
}

func byteString(b []byte) *item {
	it := &item{major: mBytes, body: b}
	it.fit()
	return it
}

func tagged(n uint64, kid *item) *item {
	it := &item{major: mTag, kids: []*item{kid}}
	it.setArg(n)
	return it
}

// linkTo is tag 42 around 0x00 and the given bytes of a CID.
func linkTo(c []byte) *item { return tagged(42, byteString(append([]byte{0}, c...))) }

// oddCIDs are CIDs of the general format that the protocol has no place for.
var oddCIDs = func() [][]byte {
	digest := bytes.Repeat([]byte{0xa5}, 64)
	return [][]byte{
		append([]byte{0x12, 32}, digest[:32]...),                     // version 0
		append([]byte{1, 0x70, 0x12, 32}, digest[:32]...),            // dag-pb
		append([]byte{1, 0x71, 0x11, 20}, digest[:20]...),            // SHA-1
		append([]byte{1, 0x71, 0x13, 64}, digest[:64]...),            // SHA-512
		append([]byte{1, 0x71, 0x1e, 32}, digest[:32]...),            // BLAKE3
		append([]byte{1, 0x55, 0x12, 20}, digest[:20]...),            // SHA-256 cut short
		append([]byte{1, 0x71, 0, 4}, digest[:4]...),                 // identity
		append([]byte{1, 0xf1, 0, 0x12, 32}, digest[:32]...),         // codec with a padded varint
		append([]byte{1, 0x81, 0x02, 0x12, 32}, digest[:32]...),      // another codec
		append([]byte{2, 0x71, 0x12, 32}, digest[:32]...),            // version 2
		append(append([]byte{1, 0x71, 0x12, 32}, digest[:32]...), 0), // something after it
		{}, {1}, {1, 0x71, 0x12, 32},
	}
}()

func randomLeaf(r *rand.Rand) *item {
	switch r.IntN(12) {
	case 0:
		return number(pick(r, uint64(0), 23, 24, 255, 256, 65535, 65536, math.MaxUint32, math.MaxUint32+1, math.MaxInt64), pick(r, byte(mUint), mNegative))
	case 1:
		return number(pick(r, uint64(math.MaxInt64)+1, math.MaxUint64), pick(r, byte(mUint), mNegative))
	case 2:
		return &item{major: mSimple, info: 27, arg: pick(r, 0, 1<<63, math.Float64bits(1), math.Float64bits(1.5), math.Float64bits(math.NaN()),
			math.Float64bits(math.Inf(-1)), r.Uint64())}
	case 3:
		return &item{major: mSimple, info: pick(r, byte(25), 26), arg: pick(r, uint64(0), 0x3c00, 0x7e00, 0x8000)}
	case 4:
		return &item{major: mSimple, info: byte(r.IntN(24))}
	case 5:
		return &item{major: mSimple, info: 24, arg: uint64(r.IntN(256))}
	case 6:
		return text(pick(r, "", "a", "é", "e\u0301", "\U0001f600", "\x00", "$type", "blob", strings.Repeat("x", 23+r.IntN(3)), strings.Repeat("y", 255+r.IntN(2))))
	case 7:
		return text(pick(r, "\xff", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "a\xc3", "aaaaaaaaaaaaaaaaa\xe2\x82"))
	case 8:
		return byteString([]byte(pick(r, "", "\x00", "hello")))
	case 9:
		c := cid.Sum(pick(r, cid.Raw, cid.DagCBOR), nil)
		return linkTo(c[:])
	case 10:
		return linkTo(pick(r, oddCIDs...))
	}
	return pick(r, array(), object(), array(number(1, mUint)), object(text("a"), array()), tagged(42, text("x")), tagged(42, byteString(nil)))
}

// mutate changes something at or below it.
func (it *item) mutate(r *rand.Rand) {
	list := it.all()
	at := list[r.IntN(len(list))]
	var maps []*item
	for _, i := range list {
		if i.major == mMap {
			maps = append(maps, i)
		}
	}
	onMap := func(f func(m *item)) {
		if len(maps) > 0 {
			m := maps[r.IntN(len(maps))]
			f(m)
			m.fit()
		}
	}
	switch r.IntN(18) {
	case 0: // a wider head
		if at.info < 27 && at.major != mSimple {
			at.info = max(at.info+1, byte(24+r.IntN(4)))
		}
	case 1: // two entries change places
		onMap(func(m *item) {
			if n := len(m.kids) / 2; n > 1 {
				i, j := 2*r.IntN(n), 2*r.IntN(n)
				m.kids[i], m.kids[j] = m.kids[j], m.kids[i]
				m.kids[i+1], m.kids[j+1] = m.kids[j+1], m.kids[i+1]
			}
		})
	case 2: // a key twice
		onMap(func(m *item) {
			if n := len(m.kids) / 2; n > 0 {
				i := 2 * r.IntN(n)
				m.kids = slices.Insert(m.kids, i+2, m.kids[i], pick(r, m.kids[i+1], randomLeaf(r)))
			}
		})
	case 3: // nested
		inner := *at
		for range pick(r, 1, 2, 28, 30, 31, 32, 33, 40) {
			k := inner
			if r.IntN(2) == 0 {
				inner = *array(&k)
			} else {
				inner = *object(text("a"), &k)
			}
		}
		*at = inner
	case 4: // of indefinite length
		if at.major >= mBytes && at.major <= mMap && at.info != 31 {
			if at.major <= mText {
				k := *at
				at.kids, at.body = []*item{&k}, nil
			}
			at.info = 31
		}
	case 5, 6, 7:
		*at = *randomLeaf(r)
	case 8:
		k := *at
		*at = *tagged(pick(r, uint64(0), 1, 2, 3, 24, 32, 42, 42, 55799, uint64(r.IntN(70))), &k)
	case 9: // bytes of a string
		if len(at.body) > 0 {
			at.body = scramble(at.body, r)
			at.fit()
		}
	case 10: // a key
		onMap(func(m *item) {
			if n := len(m.kids) / 2; n > 0 {
				m.kids[2*r.IntN(n)] = pick(r, text(""), text("$link"), text("$bytes"), text("$type"), text("\xff"), number(1, mUint), byteString([]byte("a")),
					text(strings.Repeat("k", pick(r, 24, 256, 8192, 8193))), randomLeaf(r))
			}
		})
	case 11: // an entry less
		onMap(func(m *item) {
			if n := len(m.kids) / 2; n > 0 {
				i := 2 * r.IntN(n)
				m.kids = slices.Delete(m.kids, i, i+2)
			}
		})
	case 12, 13: // an entry more, where it belongs
		onMap(func(m *item) {
			m.put(pick(r, "a", "b", "zz", "", "$type", "$link", "$bytes", "cid", "ref", "size", "mimeType", "text"), randomLeaf(r))
		})
	case 14: // what looks like a blob
		c := cid.Sum(pick(r, cid.Raw, cid.Raw, cid.DagCBOR), nil)
		*at = *object(text("ref"), linkTo(c[:]), text("size"), number(uint64(r.IntN(3)), pick(r, byte(mUint), mUint, mNegative)), text("$type"), text("blob"),
			text("mimeType"), text(pick(r, "image/png", "image/png", "")))
	case 15:
		*at = *object(text("cid"), text(pick(r, cid.Sum(cid.Raw, nil).String(), "x", "Qmb", "/ipfs/"+cid.Sum(cid.Raw, nil).String())), text("mimeType"), text("image/png"))
	case 16: // a copy of something elsewhere
		*at = *list[r.IntN(len(list))].clone()
	default: // a lie about the size
		if at.info < 23 && at.major >= mBytes && at.major <= mMap {
			at.arg += uint64(r.IntN(3)) - 1
			at.info = byte(at.arg) & 31
			if at.info > 23 {
				at.info = 23
			}
		}
	}
}

// clone returns a deep copy.
func (it *item) clone() *item {
	c := *it
	c.body = bytes.Clone(it.body)
	c.kids = make([]*item, len(it.kids))
	for i, k := range it.kids {
		c.kids[i] = k.clone()
	}
	return &c
}

// put adds a copy of v to a map, in order, in place of an entry with the same key.
func (it *item) put(key string, v *item) {
	v = v.clone() // it may be within v
	for i := 0; i < len(it.kids); i += 2 {
		switch c := compareKeys(key, string(it.kids[i].body)); {
		case c == 0:
			it.kids[i+1] = v
			return
		case c < 0:
			it.kids = slices.Insert(it.kids, i, text(key), v)
			return
		}
	}
	it.kids = append(it.kids, text(key), v)
}

func TestItem(t *testing.T) {
	for _, b := range cborSeeds(t) {
		it, rest, err := parseItem(b, 0)
		if err != nil {
			continue
		}
		if got := append(it.append(nil), rest...); !bytes.Equal(got, b) {
			t.Errorf("%x came back as %x", b, got)
		}
	}
	var buf [8]byte
	binary.BigEndian.PutUint64(buf[:], math.MaxUint64)
	if it, _, err := parseItem(append([]byte{0x1b}, buf[:]...), 0); err != nil || it.arg != math.MaxUint64 {
		t.Errorf("the largest integer: %v, %v", it, err)
	}
}
