package data

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/cbor"
)

// randomDeep returns a value in JSON, its keys in any order, and its CBOR as the simplest of writers makes it.
func randomDeep(r *rand.Rand, depth int) (js, cb []byte) {
	if depth == 0 {
		switch n := r.IntN(5); {
		case n == 0:
			return []byte("{}"), []byte{0xa0}
		case n == 1:
			return []byte("[]"), []byte{0x80}
		case n == 2:
			s := strings.Repeat("é", r.IntN(200))
			return fmt.Appendf(nil, "%q", s), cbor.AppendText(nil, s)
		default:
			v := r.Int64N(100000) - 50000
			return fmt.Appendf(nil, "%d", v), cbor.AppendInt(nil, v)
		}
	}
	n := 1 + r.IntN(3)
	if r.IntN(6) == 0 {
		n = 20 + r.IntN(20)
	}
	at := r.IntN(n) // the child that goes on
	child := func(i int) ([]byte, []byte) {
		switch {
		case i == at:
			return randomDeep(r, depth-1)
		case r.IntN(20) == 0:
			return randomDeep(r, r.IntN(min(depth, 3)))
		}
		return randomDeep(r, 0)
	}
	if r.IntN(2) == 0 {
		js, cb = []byte("["), cbor.AppendArray(nil, n)
		for i := range n {
			j, c := child(i)
			js, cb = append(append(js, j...), ','), append(cb, c...)
		}
		js[len(js)-1] = ']'
		return js, cb
	}
	values := map[string][]byte{}
	js = []byte("{")
	for i := range n {
		j, c := child(i)
		key := strings.Repeat(string(rune('a'+r.IntN(26))), 1+r.IntN(4)) + fmt.Sprint(i)
		values[key] = c
		js = append(fmt.Appendf(js, "%q: %s", key, j), ',')
	}
	js[len(js)-1] = '}'
	cb = cbor.AppendMap(nil, n)
	keys := make([]string, 0, n)
	for k := range values {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, cbor.CompareKeys)
	for _, k := range keys {
		cb = append(cbor.AppendText(cb, k), values[k]...)
	}
	return js, cb
}

func TestDeepJSON(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	deep := Transcoder{MaxDepth: 1000}
	for i := range 300 {
		js, want := randomDeep(r, r.IntN(1+i))
		got, err := deep.AppendCBOR([]byte("prefix"), js)
		if err != nil || string(got) != "prefix"+string(want) {
			t.Fatalf("%d: %v\n%.2000s", i, err, js)
		}
		back, err := deep.AppendJSON(nil, got[6:])
		if err != nil {
			t.Fatal(err)
		}
		again, err := deep.AppendCBOR(nil, back)
		if err != nil || !bytes.Equal(again, want) {
			t.Fatalf("%d: and back: %v", i, err)
		}
		// Faults in between don't disturb the rest.
		if fault := bytes.LastIndex(js, []byte(":")); fault > 0 {
			faulty := append(append(bytes.Clone(js[:fault]), ": 1.5, "...), js[fault+1:]...)
			if _, err := deep.AppendCBOR(nil, faulty); err == nil {
				t.Fatalf("%d: a fault is passed over", i)
			}
		}
		loose, l, err := deep.AppendCBORLenient(nil, slices.Concat([]byte(`[1.5,`), js, []byte(`,1.5]`)))
		if err != nil || !bytes.Contains(loose, want) || len(l.Violations) != 2 && cbor.Valid(want) == nil {
			t.Fatalf("%d: lenient: %v", i, err)
		}
	}
	// A blob is checked where it stands, and one that deep is one as any other.
	blob := `{"z":[{"b":0,"a":[0,1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8,9,0,1,2,3,4,5]}],"size":%d,"mimeType":"a/b","$type":"blob","ref":{"$link":"bafkreiccldh766hwcnuxnf2wh6jgzepf2nlu2lvcllt63eww5p6chi4ity"}}`
	for _, depth := range []int{0, 10, 31, 32, 33, 500} {
		for size, ok := range []bool{false, true} {
			js := strings.Repeat(`{"b":0,"a":`, depth) + fmt.Sprintf(blob, size) + strings.Repeat("}", depth)
			b, err := deep.AppendCBOR(nil, []byte(js))
			if e := (*Error)(nil); ok != (err == nil) || !ok && (!errors.As(err, &e) || e.Rule != RuleBlob) {
				t.Errorf("blob in %d maps, size %d: %v", depth, size, err)
			}
			inner, err := deep.AppendCBOR(nil, fmt.Appendf(nil, blob, 1))
			if err != nil || ok && !bytes.Contains(b, inner) {
				t.Errorf("blob in %d maps: %v", depth, err)
			}
		}
	}
}

// The work for a body grows with its size, and not with its size times its depth.
func TestDeepJSONWork(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	for name, nest := range map[string]func(depth int) string{
		"unsorted": func(n int) string {
			return strings.Repeat(`{"b":0,"a":`, n) + `"` + long + `"` + strings.Repeat("}", n)
		},
		"wide": func(n int) string {
			return strings.Repeat(`[`, n) + `"` + long + `"` + strings.Repeat(strings.Repeat(",0", 24)+"]", n)
		},
		"bad": func(n int) string {
			return strings.Repeat(`{"`+strings.Repeat("k", 60)+`":`, n) + "1.5" + strings.Repeat("}", n)
		},
	} {
		work := func(depth int) time.Duration {
			js := []byte(nest(depth))
			best := time.Hour
			for range 5 {
				start := time.Now()
				_, err := Transcoder{MaxDepth: maxDepthJSON}.AppendCBOR(nil, js)
				best = min(best, time.Since(start))
				if (err != nil) != (name == "bad") {
					t.Fatal(err)
				}
				if err != nil && len(err.Error()) > 2000 {
					t.Errorf("an error of %d bytes", len(err.Error()))
				}
			}
			return best
		}
		few, many := work(40), work(4000)
		if name == "bad" {
			few = max(few, 5*time.Millisecond) // hardly anything; with the square of the path it were half a second
		}
		if many > 30*few {
			t.Errorf("%s: %v at 40 levels, %v at 4,000", name, few, many)
		}
	}
}
