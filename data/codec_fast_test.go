//go:build !purego

package data_test

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/data"
)

// everything has a field of each type that the codec knows, and kits of several kinds.
type everything struct {
	Int    int                 `json:"int"`
	Named  named               `json:"named"`
	Bool   bool                `json:"bool"`
	Bytes  []byte              `json:"bytes"`
	List   []item              `json:"list"`
	Lists  [][]item            `json:"lists,omitzero"`
	Refs   []*item             `json:"refs,omitzero"`
	Names  []named             `json:"names,omitzero"`
	Raws   []data.Raw          `json:"raws,omitzero"`
	Blobs  []data.Blob         `json:"blobs,omitzero"`
	Long   *string             `json:"aKeyThatIsLongerThanSixteenBytes,omitzero"`
	Longer *int64              `json:"aKeyThatIsLongerThanSixteenBytesAndThenSome,omitzero"`
	Twelve *bool               `json:"twelveBytes!,omitzero"`
	Other  data.Nullable[item] `json:"other,omitzero"`
	Extra  data.Extra          `json:"-"`
}

type named string

type item struct {
	Alt   string      `json:"alt"`
	Size  *size       `json:"size,omitzero"`
	Parts []noteEmbed `json:"parts"`
	Maybe *string     `json:"maybe" lex:"nullable"`
	Count *int64      `json:"count,omitzero"`
	Extra data.Extra  `json:"-"`
}

type size struct {
	W int64 `json:"w"`
	H int64 `json:"h"`
}

const everythingJSON = `{"int":-7,"named":"né","bool":true,"bytes":{"$bytes":"AQI"},
	"list":[
		{"alt":"a","size":{"w":1,"h":2},"parts":[{"$type":"com.example.defs#point","x":1,"y":2}],"maybe":null,"count":1},
		{"alt":"","parts":[],"maybe":"m","unknown":1},
		{"alt":"c","size":{"w":3,"h":4,"d":5},"parts":[{"$type":"x.y.z"},{"$type":"com.example.defs#point","x":1,"y":2}],"maybe":"n","count":-1},
		{"alt":"d","parts":[{"$type":"x.y.z","deep":{"deeper":[1]}}],"maybe":null}],
	"lists":[[],[{"alt":"a","parts":[],"maybe":null}],[{"alt":"a","parts":[],"maybe":""},{"alt":"b","parts":[],"maybe":null}]],
	"refs":[{"alt":"a","parts":[],"maybe":null},{"alt":"b","count":0,"parts":[],"maybe":null}],
	"names":["a",""],"raws":[1,{"a":[]},"x"],
	"blobs":[{"$type":"blob","ref":{"$link":"bafkreiccldh766hwcnuxnf2wh6jgzepf2nlu2lvcllt63eww5p6chi4ity"},"mimeType":"image/png","size":12},
		{"cid":"bafkreiccldh766hwcnuxnf2wh6jgzepf2nlu2lvcllt63eww5p6chi4ity","mimeType":"image/png"}],
	"aKeyThatIsLongerThanSixteenBytes":"l","aKeyThatIsLongerThanSixteenBytesAndThenSome":9,"twelveBytes!":false,"other":null,
	"a":1,"aKeyThatIsLongerThanSixteenByteZ":2,"zzzzzzzzzzzz":3}`

// FuzzFastCodec holds the fast codec against the one by reflection: what it reads and writes is the same, and it refuses
// whatever that one refuses.
func FuzzFastCodec(f *testing.F) {
	for _, s := range []string{strings.Replace(full, `,"":0`, `,"w":0`, 1), everythingJSON} {
		b := fromJSON(f, s)
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, b []byte) {
		compare[note](t, b)
		compare[everything](t, b)
		compare[noteEmbed](t, b)
		compare[[]note](t, b)
	})
}

func compare[T any](t *testing.T, b []byte) (fast bool) {
	var want T
	err := data.UnmarshalReflect(b, &want)
	for _, unmarshal := range []func([]byte, any) bool{data.UnmarshalFast, data.UnmarshalFastShort} {
		got := new(T)
		if !unmarshal(b, got) {
			continue
		}
		fast = true
		if err != nil {
			t.Fatalf("%x: the fast codec reads what breaks a rule: %v", b, err)
		}
		if !reflect.DeepEqual(*got, want) {
			t.Fatalf("%x: read as\n%+v, not as\n%+v", b, *got, want)
		}
	}
	if err != nil {
		return fast
	}
	out, err := data.MarshalReflect(&want)
	got, ok := data.MarshalFast(&want)
	if ok && (err != nil || !bytes.Equal(got, out)) {
		t.Fatalf("%x: written as\n%x, not as\n%x, %v", b, got, out, err)
	}
	return fast
}

// The values that are usual must not take the slow way.
func TestFastCodecWants(t *testing.T) {
	b := fromJSON(t, strings.Replace(strings.Replace(full, `,"":0`, `,"w":0`, 1), `,"alt":"x"`, ``, 1)) // an odd blob is slow
	if !compare[note](t, b) {
		t.Error("the fast codec doesn't read a note")
	}
	var n note
	if err := data.UnmarshalReflect(b, &n); err != nil {
		t.Fatal(err)
	}
	if _, ok := data.MarshalFast(&n); !ok {
		t.Error("the fast codec doesn't write a note")
	}
	e := fromJSON(t, strings.Replace(everythingJSON, `,
		{"cid":"bafkreiccldh766hwcnuxnf2wh6jgzepf2nlu2lvcllt63eww5p6chi4ity","mimeType":"image/png"}`, "", 1))
	if !compare[everything](t, e) {
		t.Error("the fast codec doesn't read everything")
	}
	// Every prefix, and every byte changed, as a fuzzer that doesn't run would.
	for i := range b {
		compare[note](t, b[:i])
		for _, c := range []byte{0, 1, 0x17, 0x18, 0x20, 0x40, 0x60, 0x78, 0x80, 0xa0, 0xd8, 0xf6, 0xff, b[i] + 1, b[i] - 1} {
			d := bytes.Clone(b)
			d[i] = c
			compare[note](t, d)
		}
	}
	for i := range e {
		for _, c := range []byte{0, 0x18, 0x60, 0x80, 0xa0, 0xf6, 0xff, e[i] + 1, e[i] - 1} {
			d := bytes.Clone(e)
			d[i] = c
			compare[everything](t, d)
		}
	}
}

// Lists longer than there are kits for, and what is absent from some of their items.
func TestFastCodecLists(t *testing.T) {
	for _, n := range []int{0, 1, 2, 7, 8, 9, 11, 16, 17, 32, 33, 64, 65, 200} {
		var v everything
		v.Bytes = []byte{}
		v.List = []item{}
		for i := range n {
			it := item{Alt: strings.Repeat("x", i), Parts: []noteEmbed{}}
			if i%2 == 0 {
				it.Size = &size{int64(i), 1}
			}
			if i%3 == 0 {
				it.Maybe = new("m")
			}
			if i%5 == 0 {
				it.Parts = make([]noteEmbed, i%4)
				for j := range it.Parts {
					it.Parts[j].Value = &point{X: int64(j)}
				}
			}
			v.List = append(v.List, it)
			v.Refs = append(v.Refs, &it)
			v.Names = append(v.Names, named(it.Alt))
		}
		b, err := data.MarshalReflect(&v)
		if err != nil {
			t.Fatal(err)
		}
		if !compare[everything](t, b) {
			t.Errorf("a list of %d is slow", n)
		}
	}
}

// A kit may have any number of parts.
func TestFastCodecManyPointers(t *testing.T) {
	var fields []reflect.StructField
	for i := range 60 {
		typ := reflect.TypeFor[*string]()
		if i%3 == 0 {
			typ = reflect.TypeFor[*bool]()
		}
		fields = append(fields, reflect.StructField{Name: fmt.Sprint("F", i), Type: typ, Tag: reflect.StructTag(fmt.Sprintf(`json:"f%02d,omitzero"`, i))})
	}
	list := reflect.New(reflect.SliceOf(reflect.StructOf(fields)))
	b := cbor.AppendArray(nil, 2)
	for range 2 {
		b = cbor.AppendMap(b, 2)
		b = cbor.AppendText(cbor.AppendText(b, "f01"), "x")
		b = cbor.AppendBool(cbor.AppendText(b, "f57"), true)
	}
	if !data.UnmarshalFast(b, list.Interface()) {
		t.Fatal("it is slow")
	}
	if out, ok := data.MarshalFast(list.Interface()); !ok || !bytes.Equal(out, b) {
		t.Fatalf("written as %x", out)
	}
}

// A list that announces more than it has must not get memory for it.
func TestFastCodecAnnounced(t *testing.T) {
	b := append([]byte("\xa1\x64list\x9a\x00\x01\xff\xff"), bytes.Repeat([]byte{0xa0}, 64)...)
	var v everything
	if n := testing.AllocsPerRun(10, func() {
		if data.UnmarshalFastShort(b, &v) {
			t.Fatal("accepted")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
