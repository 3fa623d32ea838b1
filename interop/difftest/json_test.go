package difftest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
)

// FuzzJSON compares the way from JSON to CBOR: with the slow model in everything, and for objects with indigo's atdata.
func FuzzJSON(f *testing.F) {
	for _, s := range jsonSeeds(f) {
		f.Add([]byte(s), uint64(0))
	}
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		if seed != 0 {
			b = mutateJSON(b, seed)
		}
		compareJSON(t, b)
	})
}

func TestJSONMutations(t *testing.T) {
	for _, s := range jsonSeeds(t) {
		for seed := range rounds(80) {
			compareJSON(t, mutateJSON([]byte(s), uint64(seed)+1))
		}
	}
}

func compareJSON(t testing.TB, b []byte) {
	t.Helper()
	v, f := examineJSON(b)
	mine := oursJSON(b)
	model := answer{err: errors.New("faults")}
	if len(f) == 0 {
		model = answer{value: string(v.cbor().append(nil))}
	}
	if !same(mine, model) {
		t.Fatalf("%s\nours  %v\nmodel %v %v", show(b), mine, model, f)
	}
	if json.Valid(b) != (v != nil && !f[fTrailing] && !f[fSyntax]) {
		t.Fatalf("%s: encoding/json finds it valid: %v, model: %v", show(b), json.Valid(b), f)
	}
	if v != nil && v.kind == '{' && !v.has("$link") && !v.has("$bytes") { // indigo reads nothing else
		atdataJSON.judge(t, b, mine, askAtdataJSON(b))
	}
}

func oursJSON(b []byte) answer {
	return ask(func() (any, error) {
		out, err := data.AppendCBOR(nil, b)
		return string(out), err
	})
}

func jsonSeeds(t testing.TB) []string {
	var list []string
	for _, name := range []string{"data-model-fixtures", "data-model-valid", "data-model-invalid"} {
		var cases []struct{ JSON json.RawMessage }
		load(t, "atproto-interop/data-model/"+name+".json", &cases)
		for _, c := range cases {
			list = append(list, string(c.JSON))
		}
	}
	for _, name := range []string{"valid", "invalid"} {
		var cases []struct{ Data json.RawMessage }
		load(t, "atproto-interop/lexicon/record-data-"+name+".json", &cases)
		for _, c := range cases {
			list = append(list, string(c.Data))
		}
	}
	raw, tree := cid.Sum(cid.Raw, nil).String(), cid.Sum(cid.DagCBOR, nil).String()
	return append(list,
		`{"a":{"$link":"`+raw+`"},"b":{"$bytes":"aGVsbG8"},"c":{"$bytes":"aGVsbG8="},"aa":[{"$bytes":""}]}`,
		`{"$type":"com.example.note","pic":{"$type":"blob","ref":{"$link":"`+raw+`"},"mimeType":"image/png","size":10},"n":null,"t":true}`,
		`{"$type":"app.bsky.feed.post","text":"a \"quote\" \\ \/ \b\f\n\r\t \u00e9 \ud83d\ude00","createdAt":"2026-01-02T03:04:05Z","langs":["en"],"reply":{"root":{"uri":"at://did:plc:a/b.c.d/e","cid":"`+tree+`"}}}`,
		`{"pic":{"cid":"`+raw+`","mimeType":"image/png"}}`,
		`{"i":9223372036854775807,"j":-9223372036854775808,"k":1e2,"l":12.0,"m":-0,"n":9007199254740993,"o":0.0,"p":100e-2}`,
		`{"a":1, "b" : [ 1 , {"c":[]} ] , "" : 0}`, `[1,2,3]`, `"x"`, `{}`,
	)
}

// value is JSON as it was written. It is the slow model of JSON.
type value struct {
	kind byte // one of { [ " 0 t f n
	text string
	keys []string // as written, with quotes
	kids []*value
}

const (
	fSyntax    fault = "syntax"
	fSurrogate fault = "lone surrogate"
	fNumber    fault = "number that is no integer"
	fLink      fault = "$link"
	fBytes     fault = "$bytes"
	fType      fault = "$type"
	fBlob      fault = "blob"
)

// parseValue reads the first value of b by the grammar of RFC 8259.
func parseValue(b []byte) (*value, []byte, bool) {
	b = bytes.TrimLeft(b, " \t\r\n")
	if len(b) == 0 {
		return nil, nil, false
	}
	v := &value{kind: b[0]}
	switch c := b[0]; c {
	case '{', '[':
		b = bytes.TrimLeft(b[1:], " \t\r\n")
		if len(b) > 0 && b[0] == c+2 {
			return v, b[1:], true
		}
		for {
			if c == '{' {
				b = bytes.TrimLeft(b, " \t\r\n")
				key, rest, ok := cutString(b)
				if rest = bytes.TrimLeft(rest, " \t\r\n"); !ok || len(rest) == 0 || rest[0] != ':' {
					return nil, nil, false
				}
				v.keys, b = append(v.keys, key), rest[1:]
			}
			kid, rest, ok := parseValue(b)
			if rest = bytes.TrimLeft(rest, " \t\r\n"); !ok || len(rest) == 0 {
				return nil, nil, false
			}
			v.kids, b = append(v.kids, kid), rest[1:]
			switch rest[0] {
			case ',':
			case c + 2:
				return v, b, true
			default:
				return nil, nil, false
			}
		}
	case '"':
		s, rest, ok := cutString(b)
		v.text = s
		return v, rest, ok
	case 't', 'f', 'n':
		for _, word := range []string{"true", "false", "null"} {
			if rest, ok := bytes.CutPrefix(b, []byte(word)); ok {
				v.text = word
				return v, rest, true
			}
		}
		return nil, nil, false
	}
	n := 0
	digits := func() bool {
		from := n
		for n < len(b) && b[n] >= '0' && b[n] <= '9' {
			n++
		}
		return n > from
	}
	if b[0] == '-' {
		n++
	}
	if n < len(b) && b[n] == '0' {
		n++
	} else if !digits() {
		return nil, nil, false
	}
	if n < len(b) && b[n] == '.' {
		if n++; !digits() {
			return nil, nil, false
		}
	}
	if n < len(b) && (b[n] == 'e' || b[n] == 'E') {
		if n++; n < len(b) && (b[n] == '+' || b[n] == '-') {
			n++
		}
		if !digits() {
			return nil, nil, false
		}
	}
	return &value{kind: '0', text: string(b[:n])}, b[n:], true
}

// cutString cuts a string in quotes off b, whatever bytes it holds.
func cutString(b []byte) (string, []byte, bool) {
	if len(b) == 0 || b[0] != '"' {
		return "", nil, false
	}
	for i := 1; i < len(b); i++ {
		switch {
		case b[i] == '"':
			return string(b[:i+1]), b[i+1:], true
		case b[i] < ' ':
			return "", nil, false
		case b[i] == '\\':
			if i++; i >= len(b) || !strings.ContainsRune(`"\/bfnrtu`, rune(b[i])) {
				return "", nil, false
			}
			if b[i] == 'u' {
				if i += 4; i >= len(b) {
					return "", nil, false
				}
				if _, err := strconv.ParseUint(string(b[i-3:i+1]), 16, 16); err != nil {
					return "", nil, false
				}
			}
		}
	}
	return "", nil, false
}

// unquote gives the text of a string in quotes, with the replacement character for lone surrogates, which it tells of.
func unquote(s string, f faults) string {
	s = s[1 : len(s)-1]
	if !utf8.ValidString(s) {
		f[fUTF8] = true
	}
	var out []byte
	for len(s) > 0 {
		if s[0] != '\\' {
			out, s = append(out, s[0]), s[1:]
			continue
		}
		c := s[1]
		s = s[2:]
		if i := strings.IndexByte("bfnrt", c); i >= 0 {
			out = append(out, "\b\f\n\r\t"[i])
			continue
		}
		if c != 'u' {
			out = append(out, c)
			continue
		}
		u, _ := strconv.ParseUint(s[:4], 16, 32)
		s = s[4:]
		if u >= 0xd800 && u < 0xe000 {
			low := uint64(0)
			if len(s) >= 6 && s[0] == '\\' && s[1] == 'u' {
				low, _ = strconv.ParseUint(s[2:6], 16, 32)
			}
			if u >= 0xdc00 || low < 0xdc00 || low >= 0xe000 {
				f[fSurrogate] = true
				u = utf8.RuneError
			} else {
				u, s = 0x10000+(u-0xd800)<<10+(low-0xdc00), s[6:]
			}
		}
		out = utf8.AppendRune(out, rune(u))
	}
	return string(out)
}

// integer reads a number. The exponent is bounded before anything is multiplied out.
func integer(s string) (int64, fault) {
	mantissa, exp, ok := strings.Cut(strings.ToLower(s), "e")
	m, _ := new(big.Rat).SetString(mantissa)
	if m.Sign() == 0 {
		return 0, ""
	}
	if ok {
		e, err := strconv.Atoi(exp)
		if limit := len(mantissa) + 30; err != nil || e > limit || e < -limit {
			if strings.HasPrefix(exp, "-") {
				return 0, fNumber
			}
			return 0, fIntRange
		}
		power := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(e, -e))), nil))
		if e < 0 {
			power.Inv(power)
		}
		m.Mul(m, power)
	}
	if !m.IsInt() {
		return 0, fNumber
	}
	if !m.Num().IsInt64() {
		return 0, fIntRange
	}
	return m.Num().Int64(), ""
}

func examineJSON(b []byte) (*value, faults) {
	f := faults{}
	v, rest, ok := parseValue(b)
	if !ok {
		f[fSyntax] = true
		return nil, f
	}
	if len(bytes.TrimLeft(rest, " \t\r\n")) > 0 {
		f[fTrailing] = true
	}
	v.examine(f, 0)
	return v, f
}

func (v *value) examine(f faults, depth int) {
	switch v.kind {
	case '"':
		unquote(v.text, f)
		return
	case '0':
		if _, bad := integer(v.text); bad != "" {
			f[bad] = true
		}
		return
	case '[', '{':
	default:
		return
	}
	if len(v.kids) > cbor.MaxElements {
		f[fElements] = true
	}
	var keys []string
	field := map[string]*value{}
	for i, k := range v.keys {
		k = unquote(k, f)
		keys = append(keys, k)
		field[k] = v.kids[i]
		switch {
		case k == "":
			f[fKeyEmpty] = true
		case len(k) > cbor.MaxKey:
			f[fKeySize] = true
		}
	}
	slices.Sort(keys)
	if len(slices.Compact(keys)) < len(v.keys) {
		f[fKeyTwice] = true
	}
	link, bytes := field["$link"], field["$bytes"]
	if link == nil && bytes == nil {
		if depth++; depth > cbor.MaxDepth {
			f[fDepth] = true
		}
	}
	if link != nil {
		if _, err := cid.Parse(link.string()); len(v.kids) != 1 || err != nil {
			f[fLink] = true
		}
	}
	if bytes != nil {
		if _, ok := decodeBase64(bytes.string()); len(v.kids) != 1 || bytes.kind != '"' || !ok {
			f[fBytes] = true
		}
	}
	if typ := field["$type"]; typ != nil {
		if typ.string() == "" {
			f[fType] = true
		}
		if typ.string() == "blob" {
			c := cid.CID{}
			if ref := field["ref"]; ref != nil && ref.kind == '{' && len(ref.kids) == 1 && unquote(ref.keys[0], faults{}) == "$link" {
				c, _ = cid.Parse(ref.kids[0].string())
			}
			size := int64(0)
			if s := field["size"]; s != nil && s.kind == '0' {
				size, _ = integer(s.text)
			}
			if c.Codec() != cid.Raw || size <= 0 || field["mimeType"] == nil || field["mimeType"].string() == "" {
				f[fBlob] = true
			}
		}
	}
	for _, k := range v.kids {
		k.examine(f, depth)
	}
}

// has reports whether an object has a key.
func (v *value) has(key string) bool {
	return slices.ContainsFunc(v.keys, func(k string) bool { return unquote(k, faults{}) == key })
}

// string gives the text of a string, "" for everything else.
func (v *value) string() string {
	if v.kind != '"' {
		return ""
	}
	return unquote(v.text, faults{})
}

// decodeBase64 goes by the characters: as many bits as six per character, the last ones zero, and either no padding or
// that which makes the length a multiple of four.
func decodeBase64(s string) ([]byte, bool) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	body := strings.TrimRight(s, "=")
	if pad := len(s) - len(body); pad > 0 && (pad > 2 || len(s)%4 != 0) {
		return nil, false
	}
	out := []byte{}
	bits, n := 0, 0
	for _, c := range []byte(body) {
		i := strings.IndexByte(alphabet, c)
		if i < 0 {
			return nil, false
		}
		bits, n = bits<<6|i, n+6
		if n >= 8 {
			n -= 8
			out = append(out, byte(bits>>n))
			bits &= 1<<n - 1
		}
	}
	return out, bits == 0 && n < 6
}

// cbor gives the CBOR of a value without faults.
func (v *value) cbor() *item {
	switch v.kind {
	case '"':
		return text(v.string())
	case '0':
		i, _ := integer(v.text)
		if i < 0 {
			return number(uint64(-1-i), mNegative)
		}
		return number(uint64(i), mUint)
	case 't':
		return &item{major: mSimple, info: 21}
	case 'f':
		return &item{major: mSimple, info: 20}
	case 'n':
		return &item{major: mSimple, info: 22}
	case '[':
		it := array()
		for _, k := range v.kids {
			it.kids = append(it.kids, k.cbor())
		}
		it.fit()
		return it
	}
	it := object()
	for i, k := range v.keys {
		switch k = unquote(k, faults{}); k {
		case "$link":
			c, _ := cid.Parse(v.kids[i].string())
			return linkTo(c[:])
		case "$bytes":
			b, _ := decodeBase64(v.kids[i].string())
			return byteString(b)
		default:
			it.put(k, v.kids[i].cbor())
		}
	}
	it.fit()
	return it
}

// append writes the value again, with some space.
func (v *value) append(b []byte) []byte {
	switch v.kind {
	case '{', '[':
		b = append(b, v.kind)
		for i, k := range v.kids {
			if i > 0 {
				b = append(b, ',')
			}
			if v.kind == '{' {
				b = append(append(b, v.keys[i]...), ':')
			}
			b = k.append(b)
		}
		return append(b, v.kind+2)
	}
	return append(b, v.text...)
}

func (v *value) all() []*value { return v.appendAll(nil) }

func (v *value) appendAll(list []*value) []*value {
	list = append(list, v)
	for _, k := range v.kids {
		list = k.appendAll(list)
	}
	return list
}

func mutateJSON(b []byte, seed uint64) []byte {
	r := seeded(seed)
	v, rest, ok := parseValue(b)
	if !ok {
		return scramble(b, r)
	}
	for range 1 + r.IntN(3) {
		v.mutate(r)
	}
	out := append(v.append(nil), rest...)
	switch r.IntN(30) {
	case 0:
		out = append(out, pick(r, "x", "{}", ",", "\x00", " ")...)
	case 1:
		out = out[:r.IntN(len(out)+1)]
	case 2:
		out = scramble(out, r)
	}
	return out
}

func randomValue(r *rand.Rand) *value {
	link := func(s string) *value {
		return &value{kind: '{', keys: []string{`"$link"`}, kids: []*value{{kind: '"', text: strconv.Quote(s)}}}
	}
	switch r.IntN(9) {
	case 0:
		return &value{kind: '0', text: pick(r, "0", "-0", "1", "-1", "1.0", "1e3", "1E+3", "10e-1", "1.5", "1.5e1", "0e999999999", "1e999999999", "1e-999999999", "9007199254740993",
			"9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "922337203685477580.7e1", "18446744073709551616", "1e18", "1e19", "123456789012345678901234567890e-20",
			"0.1e1", "-0.0", fmt.Sprint(r.Int64()))}
	case 1:
		return &value{kind: '"', text: pick(r, `""`, `"a"`, `"\u0061"`, `"\ud83d\ude00"`, `"\ud800"`, `"\udc00"`, `"\ud800\u0041"`, `"\ud800\ud800"`, "\"\xff\"", "\"\xed\xa0\x80\"",
			`"\u0000"`, "\"\u2028<>&\"", "\"\x7f\"", `"é"`, `"blob"`)}
	case 2:
		return link(pick(r, cid.Sum(cid.Raw, nil).String(), cid.Sum(cid.DagCBOR, nil).String()))
	case 3:
		return link(pick(r, append(oddCIDStrings(), "", "x", "/ipfs/"+cid.Sum(cid.Raw, nil).String())...))
	case 4:
		return &value{kind: '{', keys: []string{`"$bytes"`}, kids: []*value{{kind: '"', text: pick(r, `""`, `"AQ"`, `"AQ=="`, `"AR"`, `"AQI="`, `"AQID"`, `"A"`, `"AQ="`, `"AQ\n"`, `"-_8"`, `"+/8"`, `"===="`, `"AAAA===="`)}}}
	case 5:
		return &value{kind: pick(r, byte('t'), 'f', 'n'), text: ""}
	case 6:
		c := cid.Sum(pick(r, cid.Raw, cid.Raw, cid.DagCBOR), nil).String()
		return &value{kind: '{', keys: []string{`"$type"`, `"ref"`, `"size"`, `"mimeType"`}, kids: []*value{{kind: '"', text: `"blob"`}, link(c),
			{kind: '0', text: pick(r, "1", "1.0", "0", "-1")}, {kind: '"', text: pick(r, `"a/b"`, `""`)}}}
	case 7:
		return &value{kind: '{', keys: []string{`"cid"`, `"mimeType"`}, kids: []*value{
			pick(r, &value{kind: '"', text: strconv.Quote(cid.Sum(cid.Raw, nil).String())}, &value{kind: '"', text: `"x"`}, &value{kind: '0', text: "1"}),
			pick(r, &value{kind: '"', text: `"a/b"`}, &value{kind: '0', text: "1"})}}
	}
	return pick(r, &value{kind: '['}, &value{kind: '{'})
}

func (v *value) mutate(r *rand.Rand) {
	list := v.all()
	at := list[r.IntN(len(list))]
	var objects []*value
	for _, o := range list {
		if o.kind == '{' {
			objects = append(objects, o)
		}
	}
	onObject := func(f func(o *value)) {
		if len(objects) > 0 {
			f(objects[r.IntN(len(objects))])
		}
	}
	fix := func(k *value) *value {
		switch k.kind {
		case 't':
			k.text = "true"
		case 'f':
			k.text = "false"
		case 'n':
			k.text = "null"
		}
		return k
	}
	switch r.IntN(9) {
	case 0, 1:
		*at = *fix(randomValue(r))
	case 2: // a key twice
		onObject(func(o *value) {
			if n := len(o.keys); n > 0 {
				i, j := r.IntN(n), r.IntN(n+1)
				key := o.keys[i]
				if r.IntN(3) == 0 && len(key) > 2 && key[1] < utf8.RuneSelf && key[1] != '\\' {
					key = fmt.Sprintf(`"\u%04x%s`, key[1], key[2:])
				}
				o.keys, o.kids = slices.Insert(o.keys, j, key), slices.Insert(o.kids, j, pick(r, o.kids[i], fix(randomValue(r))))
			}
		})
	case 3: // a key in other letters, or none
		onObject(func(o *value) {
			if n := len(o.keys); n > 0 {
				i := r.IntN(n)
				o.keys[i] = pick(r, strings.ToUpper(o.keys[i]), `""`, `"$type"`, `"$link"`, `"$bytes"`, `"\ud800"`, "\"\xff\"", `"`+strings.Repeat("k", 8190+r.IntN(4))+`"`)
			}
		})
	case 4, 5:
		onObject(func(o *value) {
			o.keys = append(o.keys, pick(r, `"a"`, `"b"`, `"$type"`, `"$link"`, `"$bytes"`, `"size"`, `"ref"`, `"mimeType"`, `"cid"`, `"zz"`))
			o.kids = append(o.kids, fix(randomValue(r)))
		})
	case 6:
		onObject(func(o *value) {
			if n := len(o.keys); n > 0 {
				i := r.IntN(n)
				o.keys, o.kids = slices.Delete(o.keys, i, i+1), slices.Delete(o.kids, i, i+1)
			}
		})
	case 7:
		inner := *at
		for range pick(r, 1, 2, 29, 30, 31, 32, 33) {
			k := inner
			if r.IntN(2) == 0 {
				inner = value{kind: '[', kids: []*value{&k}}
			} else {
				inner = value{kind: '{', keys: []string{`"a"`}, kids: []*value{&k}}
			}
		}
		*at = inner
	default:
		if at.kind == '"' || at.kind == '0' {
			at.text = string(scramble([]byte(at.text), r))
		}
	}
}
