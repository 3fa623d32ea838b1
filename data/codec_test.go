package data_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
)

type note struct {
	Text    string                `json:"text"`
	Langs   []string              `json:"langs,omitzero"`
	Tags    []string              `json:"tags"`
	Likes   *int64                `json:"likes,omitzero"`
	Pinned  *bool                 `json:"pinned,omitzero"`
	Ref     *cid.CID              `json:"ref,omitzero"`
	Sig     []byte                `json:"sig,omitzero"`
	Since   *string               `json:"since" lex:"nullable"`
	Swap    data.Nullable[string] `json:"swap,omitzero"`
	Pic     *data.Blob            `json:"pic,omitzero"`
	Any     data.Raw              `json:"any,omitzero"`
	Embed   noteEmbed             `json:"embed,omitzero"`
	Embeds  []noteEmbed           `json:"embeds,omitzero"`
	Choice  noteChoice            `json:"choice,omitzero"`
	Reply   *note                 `json:"reply,omitzero"`
	Points  []point               `json:"points,omitzero"`
	Matrix  [][]int64             `json:"matrix,omitzero"`
	private int                   // not exported, passed over
	Extra   data.Extra            `json:"-" lex:"record"`
}

type noteEmbed = data.Union[func(*point, *note)]
type noteChoice = data.Union[func(*point) data.Closed]

func (*note) LexType() string                { return "com.example.note" }
func (v note) MarshalJSON() ([]byte, error)  { return data.MarshalJSON(&v) }
func (v *note) UnmarshalJSON(b []byte) error { return data.UnmarshalJSON(b, v) }

type point struct {
	X     int64      `json:"x"`
	Y     int        `json:"y"`
	Extra data.Extra `json:"-"`
}

func (*point) LexType() string { return "com.example.defs#point" }

func ExampleUnmarshal() {
	type Note struct {
		Text  string     `json:"text"`
		Likes *int64     `json:"likes,omitzero"`
		Extra data.Extra `json:"-"`
	}
	raw, err := data.AppendCBOR(nil, []byte(`{"text": "hi", "mood": {"$type": "com.example.mood#calm"}}`))
	if err != nil {
		fmt.Println(err)
	}
	var n Note
	err = data.Unmarshal(raw, &n)
	fmt.Println(n.Text, n.Likes, n.Extra, err)

	// What Note doesn't know is written again as it was.
	n.Text, n.Likes = "bye", new(int64(1))
	raw, err = data.Marshal(&n)
	j, _ := data.AppendJSON(nil, raw)
	fmt.Println(string(j), err)
	// Output:
	// hi <nil> {"mood":{"$type":"com.example.mood#calm"}} <nil>
	// {"mood":{"$type":"com.example.mood#calm"},"text":"bye","likes":1} <nil>
}

func ExampleDecode() {
	raw, err := data.Encode(map[string]any{"text": "hi", "n": 1, "list": []any{true, nil, []byte{1, 2}}})
	if err != nil {
		fmt.Println(err)
	}
	v, err := data.Decode(raw)
	fmt.Println(v, err)
	_, err = data.Encode(map[string]any{"n": 1.5})
	fmt.Println(err)
	// Output:
	// map[list:[true <nil> [1 2]] n:1 text:hi] <nil>
	// data: value: the data model has no float64 in n
}

func ExampleCheckRecord() {
	raw, _ := data.Encode(map[string]any{"$type": "com.example.note", "pic": map[string]any{"$type": "blob"}})
	fmt.Println(data.CheckRecord(raw))
	// Output:
	// data: blob: no ref in pic (byte 5)
}

func fromJSON(t testing.TB, s string) []byte {
	t.Helper()
	b, err := data.AppendCBOR(nil, []byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const full = `{
	"$type":"com.example.note","text":"hi ☺","langs":["en"],"tags":[],"likes":-5,"pinned":false,"sig":{"$bytes":""},"since":null,"swap":null,
	"ref":{"$link":"bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"},
	"pic":{"$type":"blob","ref":{"$link":"bafkreiccldh766hwcnuxnf2wh6jgzepf2nlu2lvcllt63eww5p6chi4ity"},"mimeType":"image/png","size":12,"alt":"x"},
	"any":{"a":[1,2,{"b":null}]},
	"embed":{"$type":"com.example.defs#point","x":1,"y":2,"z":3},
	"embeds":[{"$type":"org.other#thing","q":{"$type":"blob","ref":{"$link":"bafkreiccldh766hwcnuxnf2wh6jgzepf2nlu2lvcllt63eww5p6chi4ity"},"mimeType":"a/b","size":1}},{"$type":"com.example.note","text":"","tags":["a"],"since":"x"}],
	"choice":{"$type":"com.example.defs#point","x":0,"y":0},
	"reply":{"$type":"com.example.note","text":"deep","tags":["t"],"since":null,"swap":"v"},
	"points":[{"x":1,"y":1,"$type":"com.example.defs#point"},{"x":2,"y":2,"":0}],
	"matrix":[[],[1,2],[-3]],
	"a":1,"zzzzzzzzzzzzzzzzzzzzzz":{"$link":"bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"}
}`

func TestCodecIdentity(t *testing.T) {
	raw := fromJSON(t, strings.Replace(full, `,"":0`, `,"w":0`, 1))
	for _, pad := range []int{0, 1 << 15} { // below and above what shares memory
		in := raw
		if pad > 0 {
			tree, err := data.Decode(raw)
			if err != nil {
				t.Fatal(err)
			}
			tree.(map[string]any)["padding"] = strings.Repeat("x", pad)
			if in, err = data.Encode(tree); err != nil {
				t.Fatal(err)
			}
		}
		var n note
		if err := data.Unmarshal(in, &n); err != nil {
			t.Fatal(err)
		}
		p, ok := n.Embed.Value.(*point)
		if !ok || p.X != 1 || p.Y != 2 || keysOf(p.Extra) != "z" {
			t.Errorf("embed: %+v", n.Embed)
		}
		if n.Embeds[0].Value != nil || n.Embeds[0].Type() != "org.other#thing" || n.Embeds[1].Type() != "com.example.note" {
			t.Errorf("embeds: %+v", n.Embeds)
		}
		if n.Likes == nil || *n.Likes != -5 || n.Pinned == nil || *n.Pinned || n.Sig == nil || !n.Swap.Null || n.Reply.Swap.Value == nil || n.Tags == nil || n.Points[1].Y != 2 {
			t.Errorf("%+v", n)
		}
		out, err := data.Marshal(&n)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(in, out); d != "" {
			t.Errorf("encode∘decode is not identity:\n%s", d)
		}
		byValue, err := data.Marshal(n)
		if err != nil || string(byValue) != string(in) {
			t.Errorf("a struct by value: %v", err)
		}
		// The same through JSON, of this package and of the standard library.
		for range 2 {
			js, err := json.Marshal(n)
			if err != nil {
				t.Fatal(err)
			}
			var m note
			if err := json.Unmarshal(js, &m); err != nil {
				t.Fatal(err)
			}
			if out, err = data.Marshal(&m); err != nil || string(out) != string(in) {
				t.Fatalf("through JSON: %v", err)
			}
			n = m
		}
	}
}

func TestCodecErrors(t *testing.T) {
	ok := `{"$type":"com.example.note","text":"","tags":[],"since":null`
	for in, want := range map[string]string{
		`{"text":"","tags":[],"since":null}`:                              "missing: $type",
		`{"$type":"com.example.other","text":"","tags":[],"since":null}`:  "type",
		`{"$type":"com.example.note","tags":[],"since":null}`:             "missing: text",
		`{"$type":"com.example.note","text":null,"tags":[],"since":null}`: "in text",
		`{"$type":"com.example.note","text":"","tags":[1],"since":null}`:  "in tags[0]",
		`{"$type":"com.example.note","text":"","tags":[]}`:                "missing: since",
		ok + `,"likes":null}`:                     "in likes",
		ok + `,"any":null}`:                       "in any",
		ok + `,"langs":{}}`:                       "in langs",
		ok + `,"embed":{"x":1}}`:                  "in embed",
		ok + `,"embed":[]}`:                       "in embed",
		ok + `,"choice":{"$type":"org.other"}}`:   "union",
		ok + `,"points":[{"x":1,"y":1},{"x":1}]}`: "in points[1]",
		ok + `,"pic":{"$type":"blob"}}`:           "",
		`[]`:                                      "",
	} {
		var n note
		err := data.UnmarshalJSON([]byte(in), &n)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", in, err, want)
			continue
		}
		var e *data.Error
		if !errors.As(err, &e) {
			t.Errorf("%s: %T is no *data.Error", in, err)
		}
	}
	loop := &note{}
	loop.Reply = loop
	bad := "\xff"
	for name, v := range map[string]any{
		"nil": nil, "nil pointer": (*note)(nil), "cycle": loop, "no struct": map[string]int{}, "float": struct{ F float64 }{},
		"utf8": &note{Text: bad}, "utf8 pointer": &note{Since: &bad}, "union": &note{Embed: noteEmbed{Value: (*point)(nil)}},
		"union raw": &note{Embed: noteEmbed{Raw: data.Raw{0xa0}}}, "raw": &note{Any: data.Raw{0xff}},
		"closed": &note{Choice: noteChoice{Value: &note{}}}, "closed raw": &note{Choice: noteChoice{Raw: fromJSON(t, `{"$type":"a.b.c"}`)}},
		"blob": &note{Pic: &data.Blob{}}, "link": &note{Ref: &cid.CID{}}, "extra": &note{Extra: data.UnsortedExtra(data.ExtraField{Key: "b", Value: data.Raw{1}}, data.ExtraField{Key: "a", Value: data.Raw{1}})},
		"extra value": &note{Extra: data.NewExtra(data.ExtraField{Key: "b"})},
	} {
		if b, err := data.Marshal(v); err == nil {
			t.Errorf("%s: encoded as %x", name, b)
		}
	}
	// An extra that has the name of a field gives way to it, and a type from elsewhere may be in an open union.
	n := note{Text: "real", Extra: data.NewExtra(data.ExtraField{Key: "zeta", Value: data.Raw{1}}, data.ExtraField{Key: "text", Value: data.Raw{0x61, 'x'}})}
	n.Embed.Value = &foreign{A: "b"}
	b, err := data.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	got, err := data.AppendJSON(nil, b)
	if want := `{"tags":[],"text":"real","zeta":1,"$type":"com.example.note","embed":{"a":"b","$type":"net.foreign"},"since":null}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}

type foreign struct {
	A string `json:"a"`
}

func (*foreign) LexType() string { return "net.foreign" }

func FuzzUnmarshal(f *testing.F) {
	seed, err := data.AppendCBOR(nil, []byte(strings.Replace(full, `,"":0`, `,"w":0`, 1)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, b []byte) {
		in := append([]byte(nil), b...)
		var n note
		if err := data.Unmarshal(b, &n); err != nil {
			return
		}
		var own note
		if err := data.UnmarshalOwned(bytes.Clone(in), &own); err != nil || !reflect.DeepEqual(own, n) {
			t.Fatalf("%x: read into\n%+v, and as its own\n%+v, %v", in, n, own, err)
		}
		clear(b) // nothing may share memory with the input
		if err := cbor.Valid(in); err != nil {
			t.Fatalf("decoded what isn't valid: %v", err)
		}
		out, err := data.Marshal(&n)
		if err != nil {
			// The model wants more of a blob than its shape.
			if data.CheckRecord(in) == nil && !strings.Contains(err.Error(), "blob") {
				t.Fatalf("can't encode what was decoded: %v", err)
			}
			return
		}
		if string(out) != string(in) {
			t.Fatalf("not identity:\n%x\n%x", in, out)
		}
	})
}
