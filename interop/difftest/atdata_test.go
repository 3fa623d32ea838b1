package difftest

import (
	"bytes"
	"math"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atdata"

	"github.com/barograph/baro/cid"
)

// What the data model has to say about a value beyond its encoding; the first three are faults there.
const (
	nReserved  fault = "$link or $bytes as a key"
	nType      fault = "$type that isn't a text, or empty"
	nBlob      fault = "blob that lacks something"
	nBlobValue fault = "blob with an empty type, a size of zero or less, or a reference that isn't raw"
	nBlobExtra fault = "blob with other fields"
	nBlobTop   fault = "blob at the top"
	nLegacy    fault = "looks like a legacy blob"
	nBeyond53  fault = "integer beyond 2^53"
	nPadded    fault = "base64 with padding"
)

// model adds what the data model has to say to the faults of an item.
func (it *item) model(f faults, top bool) faults {
	switch it.major {
	case mUint, mNegative:
		if it.arg > 1<<53-uint64(it.major) {
			f[nBeyond53] = true
		}
	case mMap:
		field := map[string]*item{}
		for i := 0; i+1 < len(it.kids); i += 2 {
			if k := it.kids[i].untagged(); k.major == mText {
				field[string(k.content())] = it.kids[i+1]
			}
		}
		if field["$link"] != nil || field["$bytes"] != nil {
			f[nReserved] = true
		}
		typ := field["$type"]
		if typ != nil && (typ.major != mText || len(typ.content()) == 0) {
			f[nType] = true
		}
		if typ != nil && typ.major == mText && string(typ.content()) == "blob" {
			ref, size, mime := field["ref"], field["size"], field["mimeType"]
			switch {
			case ref == nil || ref.major != mTag || ref.arg != 42 || size == nil || !size.isNumber() || mime == nil || mime.major != mText:
				f[nBlob] = true
			case size.major == mNegative || size.arg == 0 || size.isFloat() || len(mime.content()) == 0 || len(ref.kids[0].body) != 37 || ref.kids[0].body[2] != byte(cid.Raw):
				f[nBlobValue] = true
			}
			if len(field) > 4 {
				f[nBlobExtra] = true
			}
			if top {
				f[nBlobTop] = true
			}
		}
		if len(it.kids) == 4 && field["cid"] != nil && field["mimeType"] != nil {
			f[nLegacy] = true
		}
	}
	for _, k := range it.kids {
		k.model(f, false)
	}
	return f
}

// aboutCBOR and aboutJSON list all that can be said about an input.
func aboutCBOR(b []byte) faults {
	it, f := examine(b)
	if it == nil {
		return f
	}
	return it.model(f, true)
}

func aboutJSON(b []byte) faults {
	v, f := examineJSON(b)
	if v == nil {
		return f
	}
	if len(f) == 0 {
		v.cbor().model(f, true)
	}
	for _, v := range v.all() {
		if s := v.string(); strings.HasSuffix(s, "=") && v.kind == '"' {
			f[nPadded] = true
		}
	}
	return f
}

// laxity makes the predicates of a peer that accepts, where we refuse, what has a fault, unless the input has another fault
// that the peer doesn't forgive.
func laxity(about func([]byte) faults, forgiven []fault) func(x fault) func(b []byte, mine, peer answer) bool {
	return func(x fault) func(b []byte, mine, peer answer) bool {
		return func(b []byte, mine, peer answer) bool {
			return mine.err != nil && peer.err == nil && about(b).only(x, forgiven)
		}
	}
}

// refuses makes the predicate of a peer that refuses what we accept, if x can be said of it.
func refuses(about func([]byte) faults, x fault) func(b []byte, mine, peer answer) bool {
	return func(b []byte, mine, peer answer) bool { return mine.err == nil && peer.err != nil && about(b)[x] }
}

// reads makes the predicate of a peer that makes another value of it.
func reads(about func([]byte) faults, x fault) func(b []byte, mine, peer answer) bool {
	return func(b []byte, mine, peer answer) bool { return mine.err == nil && peer.err == nil && about(b)[x] }
}

func askAtdataJSON(b []byte) answer {
	return ask(func() (any, error) {
		v, err := atdata.UnmarshalJSON(b)
		if err != nil {
			return nil, err
		}
		out, err := atdata.MarshalCBOR(v)
		return string(out), err
	})
}

var atdataForgives = laxity(aboutCBOR, []fault{fWide, fIndefinite, fFloat, fUndefined, fCID, fUTF8, fDepth, fKeyEmpty, fKeyOrder, fKeyTag, fTrailing, fIntRange,
	nReserved, nBlobValue, nBlobExtra, nLegacy, nBeyond53, nBlobTop})

var atdataCBOR = table[[]byte]{name: "atdata CBOR", list: []difference[[]byte]{
	{
		name: "keys out of order", right: ours, rule: "keys sorted, the shorter first, " + specDRISL,
		holds: atdataForgives(fKeyOrder), shown: [][]byte{unhex("a2 6162 00 6161 00"), unhex("a2 626161 00 6162 00")},
	},
	{
		name: "head longer than needed", right: ours, rule: "shortest heads, " + specDRISL,
		holds: atdataForgives(fWide), shown: [][]byte{unhex("b800"), unhex("a1 6161 1801"), unhex("a1 6161 1b0000000000000001")},
	},
	{
		name: "indefinite length", right: ours, rule: "definite lengths, " + specDRISL,
		holds: atdataForgives(fIndefinite), shown: [][]byte{unhex("bfff"), unhex("a1 6161 7f6162ff"), unhex("a1 6161 9f00ff")},
	},
	{
		name: "bytes behind the value", right: ours, rule: "one value and nothing else, " + specDRISL,
		holds: atdataForgives(fTrailing), shown: [][]byte{unhex("a000"), unhex("a0ff")},
	},
	{
		name: "undefined", right: ours, rule: "false, true and null are the only simple values, " + specDRISL,
		holds: atdataForgives(fUndefined), shown: [][]byte{unhex("a1 6161 f7")},
	},
	{
		name: "float of an integer value", right: ours, rule: "no floating point, " + specModel,
		holds: func(b []byte, mine, peer answer) bool {
			it, _ := examine(b)
			if it == nil || !atdataForgives(fFloat)(b, mine, peer) {
				return false
			}
			for _, i := range it.all() {
				if v, ok := i.float(); ok && v != math.Trunc(v) {
					return false
				}
			}
			return true
		},
		shown: [][]byte{unhex("a1 6161 f90000"), unhex("a1 6161 fb8000000000000000"), unhex("a1 6161 fa3f800000")},
	},
	{
		name: "integer beyond int64", right: ours, rule: "integers of 64 bits with a sign, " + specModel,
		holds: atdataForgives(fIntRange), shown: [][]byte{unhex("a1 6161 1bffffffffffffffff")},
	},
	{
		name: "tag around a key", right: ours, rule: "no tag but 42, around a CID, and keys are text, " + specDRISL,
		holds: atdataForgives(fKeyTag), shown: [][]byte{unhex("a1 c5 6161 00")},
	},
	{
		name: "CIDs of other kinds", right: ours, rule: "version 1, DAG-CBOR or raw, SHA-256, " + specCID,
		holds: atdataForgives(fCID), shown: [][]byte{object(text("a"), linkTo(oddCIDs[0])).append(nil), object(text("a"), linkTo(oddCIDs[2])).append(nil)},
	},
	{
		name: "text that isn't UTF-8", right: ours, rule: "valid UTF-8, " + specDRISL,
		holds: atdataForgives(fUTF8), shown: [][]byte{unhex("a1 6161 61ff"), unhex("a1 61ff 00"), unhex("a1 6161 63eda080")},
	},
	{
		name: "empty key", right: ours, rule: "keys are not empty, " + specModel,
		holds: atdataForgives(fKeyEmpty), shown: [][]byte{unhex("a16000")},
	},
	{
		name: "depth", right: ours, rule: "32 containers within each other, " + guideLimits,
		holds: atdataForgives(fDepth), shown: [][]byte{append(bytes.Repeat([]byte("\xa1\x61a"), 33), 0), append(bytes.Repeat([]byte("\xa1\x61a"), 4000), 0)},
	},
	{
		name: "map with $link or $bytes", right: ours, rule: "reserved: in JSON it would be a link or bytes, and the way back gives other bytes, " + specModel,
		holds: atdataForgives(nReserved), shown: [][]byte{object(text("a"), object(text("$bytes"), text("AQ"))).append(nil),
			object(text("a"), object(text("$link"), text(cid.Sum(cid.Raw, nil).String()))).append(nil)},
	},
	{
		name: "blob without a type or a size, or not raw", right: ours, rule: "a type, a size above zero, codec raw, " + specBlob,
		holds: atdataForgives(nBlobValue), shown: [][]byte{
			object(text("a"), blobItem(cid.Raw, "", 1)).append(nil), object(text("a"), blobItem(cid.Raw, "a/b", 0)).append(nil), object(text("a"), blobItem(cid.DagCBOR, "a/b", 1)).append(nil)},
	},
	{
		name: "blob with another field", right: ours, rule: "unknown fields are ignored and kept, " + specLexicon,
		holds: refuses(aboutCBOR, nBlobExtra), shown: [][]byte{func() []byte {
			b := blobItem(cid.Raw, "a/b", 1)
			b.put("a", number(1, mUint))
			b.fit()
			return object(text("a"), b).append(nil)
		}()},
	},
	{
		name: "blob at the top", right: open, rule: "nothing says that a value can't be one, but a record has an NSID for $type, " + specModel,
		holds: refuses(aboutCBOR, nBlobTop), shown: [][]byte{blobItem(cid.Raw, "a/b", 1).append(nil)},
	},
	{
		name: "map of cid and mimeType refused", right: ours, rule: "only the schema tells a legacy blob, " + specBlob,
		holds: refuses(aboutCBOR, nLegacy), shown: [][]byte{object(text("a"), object(text("cid"), text("x"), text("mimeType"), text("a/b"))).append(nil)},
	},
	{
		name: "map of cid and mimeType written as another", right: ours, rule: "a legacy blob is never written in the new form, " + specBlob,
		holds: reads(aboutCBOR, nLegacy), shown: [][]byte{object(text("a"), object(text("cid"), text(cid.Sum(cid.Raw, nil).String()), text("mimeType"), text("a/b"))).append(nil)},
	},
}}

func (it *item) isFloat() bool { _, ok := it.float(); return ok }

func (it *item) isNumber() bool { return it.major <= mNegative || it.isFloat() }

// float gives the value of a floating-point number.
func (it *item) float() (float64, bool) {
	if it.major != mSimple || it.info < 25 || it.info > 27 {
		return 0, false
	}
	switch it.info {
	case 27:
		return math.Float64frombits(it.arg), true
	case 26:
		return float64(math.Float32frombits(uint32(it.arg))), true
	}
	exp, frac := int(it.arg>>10&31), float64(it.arg&1023)
	sign := 1 - 2*float64(it.arg>>15&1)
	switch exp {
	case 0:
		return sign * math.Ldexp(frac, -24), true
	case 31:
		if frac != 0 {
			return math.NaN(), true
		}
		return math.Inf(int(sign)), true
	}
	return sign * math.Ldexp(1024+frac, exp-25), true
}

func blobItem(codec cid.Codec, mime string, size uint64) *item {
	c := cid.Sum(codec, nil)
	return object(text("ref"), linkTo(c[:]), text("size"), number(size, mUint), text("$type"), text("blob"), text("mimeType"), text(mime))
}

var forgivenInJSON = []fault{fUTF8, fIntRange, fSurrogate, fNumber, fLink, fBytes, fBlob, fDepth, fKeyEmpty, nPadded}

var atdataForgivesJSON = laxity(aboutJSON, forgivenInJSON)

var atdataJSON = table[[]byte]{name: "atdata JSON", list: []difference[[]byte]{
	{
		name: "key twice", right: ours, rule: "an object has a key once: which one counts is left open in general, " + rfcJSON + ", and DRISL forbids it, " + specDRISL,
		holds: func(b []byte, mine, peer answer) bool { // the last one counts, so that what is wrong with another doesn't
			return mine.err != nil && peer.err == nil && aboutJSON(b)[fKeyTwice]
		},
		shown: [][]byte{[]byte(`{"a":1,"a":2}`), []byte(`{"a":1,"\u0061":2}`)},
	},
	{
		name: "lone surrogate", right: ours, rule: "text is UTF-8, which has no surrogates, " + specModel + ", " + rfcJSON,
		holds: atdataForgivesJSON(fSurrogate), shown: [][]byte{[]byte(`{"a":"\ud800"}`), []byte(`{"\udc00":1}`)},
	},
	{
		name: "text that isn't UTF-8", right: ours, rule: "text is UTF-8, " + specModel,
		holds: atdataForgivesJSON(fUTF8), shown: [][]byte{[]byte("{\"a\":\"\xff\"}"), []byte("{\"\xed\xa0\x80\":1}")},
	},
	{
		name: "number that rounds to an integer", right: ours, rule: "integers only, " + specModel + "; 1e-400 isn't one",
		holds: atdataForgivesJSON(fNumber), shown: [][]byte{[]byte(`{"a":1e-400}`), []byte(`{"a":1.00000000000000000001}`)},
	},
	{
		name: "integer beyond int64 that rounds to one", right: ours, rule: "integers of 64 bits with a sign, " + specModel,
		holds: atdataForgivesJSON(fIntRange), shown: [][]byte{[]byte(`{"a":-9223372036854775809}`)},
	},
	{
		name: "integer that rounds to another", right: ours, rule: "64 bits, exactly, " + specModel,
		holds: reads(aboutJSON, nBeyond53), shown: [][]byte{[]byte(`{"a":9007199254740993}`)},
	},
	{
		name: "integer that doesn't come back from float64", right: ours, rule: "64 bits, exactly, " + specModel,
		holds: refuses(aboutJSON, nBeyond53), shown: [][]byte{[]byte(`{"a":9223372036854775807}`)},
	},
	{
		name: "CIDs of other kinds", right: ours, rule: "version 1, DAG-CBOR or raw, SHA-256, base32, " + specCID,
		holds: atdataForgivesJSON(fLink), shown: [][]byte{[]byte(`{"a":{"$link":"QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"}}`),
			[]byte(`{"a":{"$link":"/ipfs/` + cid.Sum(cid.Raw, nil).String() + `"}}`)},
	},
	{
		name: "base64 with unused bits or line breaks", right: open, rule: "one spelling but for the padding, RFC 4648 sections 3.3 and 3.5; a record of the interop tests is careless about it, " + fixturesSuite,
		holds: atdataForgivesJSON(fBytes), shown: [][]byte{[]byte(`{"a":{"$bytes":"AR"}}`), []byte(`{"a":{"$bytes":"A\nQ"}}`)},
	},
	{
		name: "base64 with padding refused", right: ours, rule: "padding is optional, " + specModel,
		holds: refuses(aboutJSON, nPadded), shown: [][]byte{[]byte(`{"a":{"$bytes":"AQ=="}}`)},
	},
	{
		name: "empty key", right: ours, rule: "keys are not empty, " + specModel,
		holds: atdataForgivesJSON(fKeyEmpty), shown: [][]byte{[]byte(`{"":1}`)},
	},
	{
		name: "depth", right: ours, rule: "32 containers within each other, " + guideLimits,
		holds: atdataForgivesJSON(fDepth), shown: [][]byte{[]byte(strings.Repeat(`{"a":`, 33) + "0" + strings.Repeat("}", 33)), []byte(strings.Repeat(`{"a":`, 4000) + "0" + strings.Repeat("}", 4000))},
	},
	{
		name: "blob without a type or a size, or not raw", right: ours, rule: "a type, a size above zero, codec raw, " + specBlob,
		holds: atdataForgivesJSON(fBlob), shown: [][]byte{blobJSON(cid.Raw, "", "1"), blobJSON(cid.Raw, "a/b", "-1"), blobJSON(cid.DagCBOR, "a/b", "1")},
	},
	{
		name: "blob with another field", right: ours, rule: "unknown fields are ignored and kept, " + specLexicon,
		holds: refuses(aboutJSON, nBlobExtra), shown: [][]byte{bytes.Replace(blobJSON(cid.Raw, "a/b", "1"), []byte(`"size"`), []byte(`"alt":"x","size"`), 1)},
	},
	{
		name: "blob at the top", right: open, rule: "nothing says that a value can't be one, but a record has an NSID for $type, " + specModel,
		holds: refuses(aboutJSON, nBlobTop), shown: [][]byte{bytes.TrimSuffix(bytes.TrimPrefix(blobJSON(cid.Raw, "a/b", "1"), []byte(`{"a":`)), []byte("}"))},
	},
	{
		name: "map of cid and mimeType refused", right: ours, rule: "only the schema tells a legacy blob, " + specBlob,
		holds: refuses(aboutJSON, nLegacy), shown: [][]byte{[]byte(`{"a":{"cid":"x","mimeType":"a/b"}}`)},
	},
	{
		name: "map of cid and mimeType written as another", right: ours, rule: "a legacy blob is never written in the new form, " + specBlob,
		holds: reads(aboutJSON, nLegacy), shown: [][]byte{[]byte(`{"a":{"cid":"` + cid.Sum(cid.Raw, nil).String() + `","mimeType":"a/b"}}`)},
	},
}}

func blobJSON(codec cid.Codec, mime, size string) []byte {
	return []byte(`{"a":{"$type":"blob","ref":{"$link":"` + cid.Sum(codec, nil).String() + `"},"mimeType":"` + mime + `","size":` + size + `}}`)
}
