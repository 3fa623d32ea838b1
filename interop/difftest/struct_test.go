package difftest

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/api/bsky"
	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/labeling"
	peerlex "github.com/bluesky-social/indigo/atproto/lexicon"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/syntax"
)

// FuzzPost compares what becomes of a post that is decoded into the generated struct, and encoded again.
func FuzzPost(f *testing.F) {
	for _, b := range postSeeds(f) {
		f.Add(b, uint64(0))
	}
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		if seed != 0 {
			b = mutatePost(b, seed)
		}
		comparePost(t, b)
	})
}

func TestPostMutations(t *testing.T) {
	for _, b := range postSeeds(t) {
		for seed := range rounds(400) {
			if comparePost(t, mutatePost(b, uint64(seed)+1)); t.Failed() {
				return
			}
		}
	}
}

func postSeeds(t testing.TB) (list [][]byte) {
	for _, s := range recordSeeds(t) {
		if b, err := data.AppendCBOR(nil, []byte(s)); err == nil && data.TypeOf(b) == "app.bsky.feed.post" {
			list = append(list, b)
		}
	}
	loadCatalogs(t)
	return append(list, post(func(*item) {}))
}

// mutatePost changes the encoding or the content.
func mutatePost(b []byte, seed uint64) []byte {
	if seed%2 == 0 {
		return mutateCBOR(b, seed)
	}
	j, err := data.AppendJSON(nil, b)
	if err != nil {
		return mutateCBOR(b, seed)
	}
	out, err := data.AppendCBOR(nil, mutateRecord(j, seed))
	if err != nil {
		return mutateCBOR(b, seed)
	}
	return out
}

func comparePost(t testing.TB, b []byte) string {
	t.Helper()
	mine := ask(func() (any, error) {
		var p appbsky.FeedPost
		if err := data.Unmarshal(b, &p); err != nil {
			return nil, err
		}
		out, err := data.Marshal(&p)
		return string(out), err
	})
	if mine.err == nil && mine.value != string(b) {
		t.Errorf("%s\ncomes back as %q", show(b), mine.value)
	}
	return postTable.judge(t, b, mine, ask(func() (any, error) {
		var p bsky.FeedPost
		if err := p.UnmarshalCBOR(bytes.NewReader(b)); err != nil {
			return nil, err
		}
		var out bytes.Buffer
		err := p.MarshalCBOR(&out)
		return out.String(), err
	}))
}

// within reports whether a is b with some entries of maps left out.
func within(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		m, ok := b.(map[string]any)
		for k := range a {
			if v, has := m[k]; !has || !within(a[k], v) {
				return false
			}
		}
		return ok
	case []any:
		list, ok := b.([]any)
		if !ok || len(list) != len(a) {
			return false
		}
		for i := range a {
			if !within(a[i], list[i]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(a, b)
}

// theirSchema says what indigo's own validation makes of a record in CBOR.
func theirSchema(b []byte) error {
	v, err := atdata.UnmarshalCBOR(b)
	if err != nil {
		return err
	}
	return peerlex.ValidateRecord(loadOnce.theirs, v, "app.bsky.feed.post", 0)
}

var postTable = table[[]byte]{name: "indigo structs", list: []difference[[]byte]{
	{
		name: "not DAG-CBOR", right: ours, rule: "canonical encoding, " + specDRISL,
		holds: func(b []byte, mine, peer answer) bool {
			_, f := examine(b)
			return mine.err != nil && peer.err == nil && len(f) > 0
		},
		shown: [][]byte{post(func(it *item) {
			it.kids[0], it.kids[1], it.kids[2], it.kids[3] = it.kids[2], it.kids[3], it.kids[0], it.kids[1]
		}),
			post(func(it *item) { it.kids = append(it.kids, it.kids[4], text("2026-01-02T00:00:00Z")) }), append(post(func(*item) {}), 0)},
	},
	{
		name: "no check of types and required fields", right: ours, rule: "what the schema requires is there, " + specLexicon + "; indigo's own validation, a step of its own, agrees",
		holds: func(b []byte, mine, peer answer) bool {
			_, f := examine(b)
			return mine.err != nil && peer.err == nil && len(f) == 0 && theirSchema(b) != nil
		},
		shown: [][]byte{post(func(it *item) { it.kids = it.kids[:4] })},
	},
	{
		name: "unknown and empty fields are lost", right: ours, rule: "unknown fields are kept, " + specLexicon + "; a record that is written again has another CID",
		holds: func(b []byte, mine, peer answer) bool {
			if mine.err != nil || peer.err != nil {
				return false
			}
			theirs, err := data.Decode([]byte(peer.value.(string)))
			all, err2 := data.Decode(b)
			return err == nil && err2 == nil && within(theirs, all)
		},
		shown: [][]byte{post(func(it *item) { it.put("x", number(1, mUint)) }), post(func(it *item) { it.put("langs", array()) })},
	},
	emptyUnion(post(func(it *item) { it.put("embed", object(text("$type"), text("com.example.none"))) })),
}}

// emptyUnion is the difference that a variant of a union is unknown.
func emptyUnion(shown []byte) difference[[]byte] {
	return difference[[]byte]{
		name: "unknown variants can't be written", right: ours, rule: "an open union takes any, " + specLexicon,
		holds: func(_ []byte, mine, peer answer) bool {
			return mine.err == nil && peer.err != nil && strings.Contains(peer.err.Error(), "empty union")
		},
		shown: [][]byte{shown},
	}
}

// FuzzPostJSON compares what becomes of the JSON of a post in the generated struct.
func FuzzPostJSON(f *testing.F) {
	for _, b := range postSeeds(f) {
		j, err := data.AppendJSON(nil, b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(j, uint64(0))
	}
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		switch {
		case seed == 0:
		case seed%2 == 0:
			b = mutateJSON(b, seed)
		default:
			b = mutateRecord(b, seed)
		}
		comparePostJSON(t, b)
	})
}

func TestPostJSONMutations(t *testing.T) {
	for _, b := range postSeeds(t) {
		j, err := data.AppendJSON(nil, b)
		if err != nil {
			t.Fatal(err)
		}
		for seed := range uint64(rounds(400)) {
			comparePostJSON(t, mutateJSON(j, seed+1))
			if comparePostJSON(t, mutateRecord(j, seed+1)); t.Failed() {
				return
			}
		}
	}
}

func comparePostJSON(t testing.TB, b []byte) string {
	t.Helper()
	mine := ask(func() (any, error) {
		var p appbsky.FeedPost
		if err := data.UnmarshalJSON(b, &p); err != nil {
			return nil, err
		}
		out, err := data.Marshal(&p)
		return string(out), err
	})
	if raw, err := data.AppendCBOR(nil, b); mine.err == nil && (err != nil || mine.value != string(raw)) {
		t.Errorf("%s\nis read as %q, and without the struct as %q, %v", show(b), mine.value, raw, err)
	}
	return postJSONTable.judge(t, b, mine, ask(func() (any, error) {
		var p bsky.FeedPost
		if err := json.Unmarshal(b, &p); err != nil {
			return nil, err
		}
		var out bytes.Buffer
		err := p.MarshalCBOR(&out)
		return out.String(), err
	}))
}

// folded reports whether an object has a key that is one of a post's in other letters.
func folded(b []byte) bool {
	v, _ := examineJSON(b)
	if v == nil {
		return false
	}
	for _, v := range v.all() {
		for _, k := range v.keys {
			k = unquote(k, faults{})
			for _, name := range []string{"text", "createdAt", "embed", "facets", "langs", "tags", "labels", "reply", "entities", "root", "parent", "uri", "cid", "index", "byteStart", "byteEnd", "features", "images",
				"alt", "image", "aspectRatio", "width", "height", "values", "val", "ref", "size", "mimeType", "$type", "$link", "start", "end", "type", "value"} {
				if k != name && strings.EqualFold(k, name) {
					return true
				}
			}
		}
	}
	return false
}

var postJSONTable = table[[]byte]{name: "indigo structs, JSON", list: []difference[[]byte]{
	{
		name: "keys in other letters", right: ours, rule: "keys are what they are, " + specModel + ": a shadow of a field is another field",
		holds: func(b []byte, mine, peer answer) bool { return folded(b) },
		shown: [][]byte{[]byte(`{"$type":"app.bsky.feed.post","text":"x","TEXT":"shadow","createdAt":"2026-01-01T00:00:00Z"}`)},
	},
	{
		name: "not JSON of the data model", right: ours, rule: "see the table of atdata",
		holds: func(b []byte, mine, peer answer) bool {
			_, f := examineJSON(b)
			return mine.err != nil && peer.err == nil && len(f) > 0
		},
		shown: [][]byte{[]byte(`{"$type":"app.bsky.feed.post","text":"x","text":"y","createdAt":"2026-01-01T00:00:00Z"}`), []byte(`{"$type":"app.bsky.feed.post","text":"\ud800","createdAt":"2026-01-01T00:00:00Z"}`)},
	},
	{
		name: "no check of types and required fields", right: ours, rule: "what the schema requires is there, " + specLexicon,
		holds: func(b []byte, mine, peer answer) bool {
			_, f := examineJSON(b)
			v, err := atdata.UnmarshalJSON(b)
			return mine.err != nil && peer.err == nil && len(f) == 0 && (err != nil || peerlex.ValidateRecord(loadOnce.theirs, v, "app.bsky.feed.post", 0) != nil)
		},
		shown: [][]byte{[]byte(`{"$type":"app.bsky.feed.post","text":"x"}`), []byte(`{"$type":"app.bsky.feed.post","text":null,"createdAt":"2026-01-01T00:00:00Z"}`)},
	},
	{
		name: "unknown and empty fields are lost", right: ours, rule: "unknown fields are kept, " + specLexicon,
		holds: func(b []byte, mine, peer answer) bool {
			if mine.err != nil || peer.err != nil {
				return false
			}
			theirs, err := data.Decode([]byte(peer.value.(string)))
			all, err2 := data.Decode([]byte(mine.value.(string)))
			return err == nil && err2 == nil && within(theirs, all)
		},
		shown: [][]byte{[]byte(`{"$type":"app.bsky.feed.post","text":"x","createdAt":"2026-01-01T00:00:00Z","via":"y"}`)},
	},
	emptyUnion([]byte(`{"$type":"app.bsky.feed.post","text":"x","createdAt":"2026-01-01T00:00:00Z","embed":{"$type":"com.example.none"}}`)),
}}

// post changes a small post.
func post(change func(it *item)) []byte {
	it := object(text("text"), text("x"), text("$type"), text("app.bsky.feed.post"), text("createdAt"), text("2026-01-01T00:00:00Z"))
	change(it)
	it.fit()
	return it.append(nil)
}

// TestLabels has each side verify the labels that the other signs.
func TestLabels(t *testing.T) {
	for seed := range uint64(rounds(200)) {
		r := seeded(seed)
		key := signers[r.IntN(len(signers))]
		pub, err := atcrypto.ParsePublicDIDKey(key.Public().DIDKey())
		if err != nil {
			t.Fatal(err)
		}
		version := int64(1)
		l := comatproto.LabelDefs_Label{Src: "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", Uri: "at://did:plc:bbbbbbbbbbbbbbbbbbbbbbbb/app.bsky.feed.post/" + string(syntax.TIDFromInteger(r.Uint64()>>1)),
			Val: pick(r, "porn", "!hide", "spam-é"), Cts: "2026-01-02T03:04:05.678Z", Ver: &version}
		if r.IntN(2) == 0 {
			s := cid.Sum(cid.DagCBOR, []byte{byte(seed)}).String()
			l.Cid = &s
		}
		if r.IntN(3) == 0 {
			neg := r.IntN(2) == 0
			l.Neg = &neg
		}
		if r.IntN(3) == 0 {
			exp := "2027-01-02T03:04:05Z"
			l.Exp = &exp
		}
		unsigned, err := data.Marshal(&l)
		if err != nil {
			t.Fatal(err)
		}
		if l.Sig, err = key.Sign(unsigned); err != nil {
			t.Fatal(err)
		}
		wire, err := data.Marshal(&l)
		if err != nil {
			t.Fatal(err)
		}
		var peer labeling.Label
		if err := peer.UnmarshalCBOR(bytes.NewReader(wire)); err != nil || peer.VerifySyntax() != nil || peer.VerifySignature(pub) != nil {
			t.Errorf("%x: indigo: %v, %v, %v", wire, err, peer.VerifySyntax(), peer.VerifySignature(pub))
		}
		var again bytes.Buffer
		if err := peer.MarshalCBOR(&again); err != nil || !bytes.Equal(again.Bytes(), wire) {
			t.Errorf("%x: indigo writes %x, %v", wire, again.Bytes(), err)
		}
		// A change of any field breaks the signature on both sides.
		peer.Val += "x"
		var back comatproto.LabelDefs_Label
		again.Reset()
		if err := peer.MarshalCBOR(&again); err != nil {
			t.Fatal(err)
		}
		if err := data.Unmarshal(again.Bytes(), &back); err != nil {
			t.Fatal(err)
		}
		sig := back.Sig
		back.Sig = nil
		unsigned, err = data.Marshal(&back)
		if err != nil || peer.VerifySignature(pub) == nil || key.Public().Verify(unsigned, sig) == nil {
			t.Errorf("%x: verified after a change, or %v", wire, err)
		}
	}
}
