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
	sameBytes(t, &want)
	return fast
}

// sameBytes checks that a value is written as by reflection, whatever room the buffer has, or not at all.
func sameBytes(t *testing.T, v any) {
	t.Helper()
	want, err := data.MarshalReflect(v)
	for _, room := range []int{0, 1, len(want) / 2, len(want), 2*len(want) + 100} {
		dst := bytes.Repeat([]byte{0xee}, 3+room)[:3]
		got, ok := data.AppendFast(dst, v)
		if ok && (err != nil || !bytes.HasPrefix(got, dst) || !bytes.Equal(got[3:], want)) {
			t.Fatalf("with room for %d:\n%+v\nwritten as\n%x, not as\n%x, %v", room, v, got, want, err)
		}
	}
}

// TestFastEncoder changes each part of a value to what is rare or wrong, and holds what is made of it against reflection.
func TestFastEncoder(t *testing.T) {
	var texts []string
	for _, n := range []int{0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 23, 24, 31, 63, 95, 96, 97, 128, 254, 255, 256, 257, 300, 65535, 65536} {
		s := strings.Repeat("x", n)
		texts = append(texts, s)
		if n > 0 {
			texts = append(texts, s[1:]+"\xff", "\x80"+s[1:], s[:n/2]+"\xc3"+s[n/2+1:])
		}
		if n > 2 {
			texts = append(texts, s[2:]+"é", "気"+s[:n-3], s[:n/2-1]+"\xed\xa0\x80"+s[n/2-1:])
		}
	}
	var n note
	var e everything
	noteCBOR, everyCBOR := usual(t)
	for v, in := range map[any][]byte{&n: noteCBOR, &e: everyCBOR} {
		if err := data.Unmarshal(in, v); err != nil {
			t.Fatal(err)
		}
		if _, ok := data.MarshalFast(v); !ok {
			t.Fatalf("%T isn't written at all", v)
		}
		changes := 0
		change := func(f, to reflect.Value) {
			was := reflect.New(f.Type()).Elem()
			was.Set(f)
			f.Set(to)
			sameBytes(t, v)
			f.Set(was)
			changes++
		}
		seen := map[any]bool{}
		var walk func(f reflect.Value)
		walk = func(f reflect.Value) {
			if !f.CanSet() {
				return // within an Extra
			}
			change(f, reflect.Zero(f.Type()))
			switch f.Kind() {
			case reflect.String:
				for _, s := range texts {
					change(f, reflect.ValueOf(s).Convert(f.Type()))
				}
			case reflect.Int, reflect.Int64:
				for _, i := range []int64{1, 23, 24, 255, 256, 65535, 65536, 1<<32 - 1, 1 << 32, 1<<63 - 1, -1, -24, -25, -256, -257, -1 << 63} {
					change(f, reflect.ValueOf(i).Convert(f.Type()))
				}
			case reflect.Bool:
				change(f, reflect.ValueOf(!f.Bool()).Convert(f.Type()))
			case reflect.Slice:
				change(f, reflect.MakeSlice(f.Type(), 0, 1))
				change(f, reflect.MakeSlice(f.Type(), 1, 1))
				if f.Len() > 0 {
					many := reflect.MakeSlice(f.Type(), 0, 300)
					for range 300 {
						many = reflect.Append(many, f.Index(0))
					}
					for _, n := range []int{23, 24, 255, 256, 300} {
						change(f, many.Slice(0, n))
					}
				}
				for i := range f.Len() {
					walk(f.Index(i))
				}
			case reflect.Pointer:
				if !f.IsNil() && !seen[f.Interface()] {
					seen[f.Interface()] = true
					walk(f.Elem())
				}
			case reflect.Interface:
				if !f.IsNil() && f.Elem().Kind() == reflect.Pointer {
					change(f, reflect.Zero(f.Elem().Type())) // nil, of a type
					walk(f.Elem().Elem())
				}
			case reflect.Struct:
				for i := range f.NumField() {
					walk(f.Field(i))
				}
			}
		}
		walk(reflect.ValueOf(v).Elem())
		if changes < 500 {
			t.Errorf("only %d changes of %T", changes, v)
		}
	}
}

// usual returns a note and everything without the odd blobs that are left to reflection.
func usual(t *testing.T) (note, everything []byte) {
	return fromJSON(t, strings.Replace(strings.Replace(full, `,"":0`, `,"w":0`, 1), `,"alt":"x"`, ``, 1)),
		fromJSON(t, strings.Replace(everythingJSON, `,
		{"cid":"bafkreiccldh766hwcnuxnf2wh6jgzepf2nlu2lvcllt63eww5p6chi4ity","mimeType":"image/png"}`, "", 1))
}

// The values that are usual must not take the slow way.
func TestFastCodecWants(t *testing.T) {
	b, e := usual(t)
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

// A struct may have any number of fields, and any number of them may be there.
func TestFastEncoderManyFields(t *testing.T) {
	for _, size := range []int{22, 23, 24, 25, 63, 64, 65, 300} {
		var fields []reflect.StructField
		for i := range size {
			fields = append(fields, reflect.StructField{Name: fmt.Sprint("F", i), Type: reflect.TypeFor[*int64](), Tag: reflect.StructTag(fmt.Sprintf(`json:"f%03d,omitzero"`, i))})
		}
		v := reflect.New(reflect.StructOf(fields))
		for i := range size {
			v.Elem().Field((7 * i) % size).Set(reflect.ValueOf(new(int64(i))))
			if _, ok := data.MarshalFast(v.Interface()); !ok {
				t.Fatal("it is slow")
			}
			sameBytes(t, v.Interface())
		}
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
