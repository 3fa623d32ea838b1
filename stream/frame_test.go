package stream_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/fixtures"
	"github.com/barograph/baro/stream"
)

var (
	cidA = cid.Sum(cid.DagCBOR, []byte("a"))
	cidB = cid.Sum(cid.DagCBOR, []byte("b"))
	cidC = cid.Sum(cid.Raw, []byte("c"))
)

func samples() []stream.Message {
	return []stream.Message{
		&stream.Commit{
			Seq: 1, Repo: "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", Rev: "3jzfcijpj2z2a", Time: "2026-11-21T00:00:00.000Z",
			Commit: cidA, Blocks: []byte{1, 2, 3},
		},
		&stream.Commit{
			Seq: stream.MaxSeq, Repo: "did:web:example.com", Rev: "3jzfcijpj2z2b", Since: "3jzfcijpj2z2a",
			Time: "2026-11-21T00:00:01.000Z", Commit: cidA, PrevData: cidB, Blocks: bytes.Repeat([]byte{7}, 70000),
			Ops: []stream.Op{
				{Action: "create", Path: "app.bsky.feed.post/3jzfcijpj2z2a", CID: cidA},
				{Action: "update", Path: "app.bsky.actor.profile/self", CID: cidA, Prev: cidB},
				{Action: "delete", Path: "app.bsky.feed.like/3jzfcijpj2z2a", Prev: cidB},
				{Action: "mystery", Path: "x/y"},
			},
			Rebase: true, TooBig: true, Blobs: []cid.CID{cidC, cidC},
		},
		&stream.Sync{Seq: 3, DID: "did:web:example.com", Rev: "3jzfcijpj2z2b", Time: "2026-11-21T00:00:01.000Z", Blocks: []byte("car")},
		&stream.Identity{Seq: 4, DID: "did:web:example.com", Time: "2026-11-21T00:00:01.000Z"},
		&stream.Identity{Seq: 5, DID: "did:web:example.com", Time: "t", Handle: "a.test"},
		&stream.Account{Seq: 6, DID: "did:web:example.com", Time: "t", Active: true},
		&stream.Account{Seq: 7, DID: "did:web:example.com", Time: "t", Status: stream.StatusSuspended},
		&stream.Info{Name: stream.InfoOutdatedCursor},
		&stream.Info{Name: "Weather", Text: "fair"},
	}
}

func TestRoundTrip(t *testing.T) {
	for _, m := range samples() {
		b := stream.AppendFrame(nil, m)
		n, err := cbor.Scan(b)
		if err != nil {
			t.Fatalf("%T header: %v", m, err)
		}
		if err := cbor.Valid(b[n:]); err != nil {
			t.Fatalf("%T payload: %v", m, err)
		}
		f, err := stream.ParseFrame(b)
		if err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		if f.Op != stream.OpMessage || f.Type != m.FrameType() || f.Seq != m.Sequence() {
			t.Errorf("%T: op %d, type %s, seq %d", m, f.Op, f.Type, f.Seq)
		}
		back, err := f.Message()
		if err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		if d := cmp.Diff(m, back); d != "" {
			t.Errorf("%T: -want +got\n%s", m, d)
		}
		if m.FrameType() != stream.TypeInfo && back.Subject() == "" {
			t.Errorf("%T has no subject", m)
		}
		if again := stream.AppendFrame(nil, back); !bytes.Equal(again, b) {
			t.Errorf("%T: encoding again gives other bytes", m)
		}
		// Resequencing is the same as encoding with another number.
		re := f.AppendResequenced(nil, 123456)
		back.SetSequence(123456)
		if want := stream.AppendFrame(nil, back); !bytes.Equal(re, want) {
			t.Errorf("%T: resequenced %x, want %x", m, re, want)
		}
	}
}

// TestFieldOrder pins the canonical order against the encoder's hand-written one, with the schema's names.
func TestFieldNames(t *testing.T) {
	f, err := stream.ParseFrame(stream.AppendFrame(nil, samples()[1]))
	if err != nil {
		t.Fatal(err)
	}
	r := cbor.NewReader(f.Payload)
	n, err := r.Map()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	var key []byte
	for range n {
		if key, err = r.MapKey(key); err != nil {
			t.Fatal(err)
		}
		names = append(names, string(key))
		if err := r.Skip(); err != nil {
			t.Fatal(err)
		}
	}
	want := "ops rev seq repo time blobs since blocks commit rebase tooBig prevData"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("fields %s, want %s", got, want)
	}
}

func TestUnknownFieldsSurviveResequencing(t *testing.T) {
	b := cbor.AppendMap(nil, 3) // header with an unknown field
	b = cbor.AppendText(b, "t")
	b = cbor.AppendText(b, "#identity")
	b = cbor.AppendText(b, "zz")
	b = cbor.AppendNull(b)
	b = b[:0]
	b = cbor.AppendMap(b, 3)
	b = cbor.AppendText(b, "t")
	b = cbor.AppendText(b, "#identity")
	b = cbor.AppendText(b, "op")
	b = cbor.AppendInt(b, 1)
	b = cbor.AppendText(b, "zz")
	b = cbor.AppendNull(b)
	payload := func(b []byte, seq int64) []byte {
		b = cbor.AppendMap(b, 4)
		b = cbor.AppendText(b, "did")
		b = cbor.AppendText(b, "did:web:a.test")
		b = cbor.AppendText(b, "seq")
		b = cbor.AppendInt(b, seq)
		b = cbor.AppendText(b, "time")
		b = cbor.AppendText(b, "t")
		b = cbor.AppendText(b, "unknown")
		return cbor.AppendLink(b, cidA)
	}
	f, err := stream.ParseFrame(payload(bytes.Clone(b), 5))
	if err != nil {
		t.Fatal(err)
	}
	if m, err := f.Message(); err != nil || m.Sequence() != 5 {
		t.Errorf("message %+v, %v", m, err)
	}
	if got, want := f.AppendResequenced(nil, 1<<40), payload(bytes.Clone(b), 1<<40); !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

func TestErrorFrame(t *testing.T) {
	for _, want := range []stream.Error{{Name: "FutureCursor"}, {Name: "ConsumerTooSlow", Message: "sorry"}} {
		f, err := stream.ParseFrame(stream.AppendErrorFrame(nil, want.Name, want.Message))
		if err != nil {
			t.Fatal(err)
		}
		var got *stream.Error
		if _, err := f.Message(); !errors.As(err, &got) || *got != want {
			t.Errorf("got %v, want %v", err, want)
		}
	}
}

func header(t string, op int64) []byte {
	b := cbor.AppendMap(nil, 2)
	b = cbor.AppendText(b, "t")
	b = cbor.AppendText(b, t)
	b = cbor.AppendText(b, "op")
	return cbor.AppendInt(b, op)
}

func TestTolerated(t *testing.T) {
	empty := cbor.AppendMap(nil, 0)
	for name, b := range map[string][]byte{
		"unknown type": append(header("#future", 1), empty...),
		"unknown op":   append(header("#commit", 7), empty...),
	} {
		f, err := stream.ParseFrame(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if m, err := f.Message(); m != nil || err != nil {
			t.Errorf("%s: message %v, %v", name, m, err)
		}
	}
}

func TestRefused(t *testing.T) {
	deep := append(bytes.Repeat([]byte{0x81}, cbor.MaxDepth-1), 0x80) // as deep as may be, by itself
	ok := stream.AppendFrame(nil, samples()[3])
	empty := cbor.AppendMap(nil, 0)
	seq := func(n int64) []byte {
		b := cbor.AppendMap(header("#x", 1), 1)
		return cbor.AppendInt(cbor.AppendText(b, "seq"), n)
	}
	for name, b := range map[string][]byte{
		"empty":            nil,
		"header only":      header("#commit", 1),
		"trailing":         append(bytes.Clone(ok), 0xa0),
		"cut":              ok[:len(ok)-1],
		"no op":            append(cbor.AppendMap(nil, 0), empty...),
		"message, no type": append([]byte("\xa1\x62op\x01"), empty...),
		"payload no map":   append(header("#commit", 1), 0x80),
		"header no map":    {0x80, 0xa0},
		"float op":         append([]byte("\xa1\x62op\xf9\x3c\x00"), empty...),
		"seq zero":         seq(0),
		"seq negative":     seq(-1),
		"seq too large":    seq(stream.MaxSeq + 1),
		"order of keys":    []byte("\xa2\x62op\x01\x61t\x61x\xa0"),
		"indefinite":       append(header("#commit", 1), 0xbf, 0xff),
		"too large":        make([]byte, stream.MaxFrame+1),
		"header too deep":  append(append(cbor.AppendText(cbor.AppendMap(nil, 2), "x"), deep...), "\x62op\x20\xa0"...),
		"payload too deep": append(cbor.AppendText(append(stream.AppendHeader(nil, "#x"), 0xa1), "x"), deep...),
	} {
		if f, err := stream.ParseFrame(b); !errors.Is(err, stream.ErrFrame) {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
	for name, b := range map[string][]byte{
		"commit without fields":   append(header("#commit", 1), empty...),
		"sync without fields":     append(header("#sync", 1), empty...),
		"identity without fields": append(header("#identity", 1), empty...),
		"account without fields":  append(header("#account", 1), empty...),
		"info without fields":     append(header("#info", 1), empty...),
		"error without fields":    append(header("#info", -1), empty...),
		"wrong type": cbor.AppendInt(cbor.AppendText(cbor.AppendMap(header("#info", 1), 1), "name"),
			1),
	} {
		f, err := stream.ParseFrame(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if m, err := f.Message(); !errors.Is(err, stream.ErrFrame) {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
}

func realCommit(t testing.TB, name string) *stream.Commit {
	var x struct {
		Blocks struct {
			Bytes []byte `json:"$bytes"`
		}
		Commit struct {
			Link cid.CID `json:"$link"`
		}
		Ops []struct {
			Action, Path string
			CID          *struct {
				Link cid.CID `json:"$link"`
			}
		}
		Repo, Rev, Since, Time string
		Seq                    int64
	}
	b := fixtures.Read(t, "firehose/"+name)
	b = bytes.ReplaceAll(b, []byte("=\""), []byte("\"")) // base64 with and without padding
	if err := json.Unmarshal(pad(b), &x); err != nil {
		t.Fatal(err)
	}
	c := &stream.Commit{Seq: x.Seq, Repo: x.Repo, Rev: x.Rev, Since: x.Since, Time: x.Time, Commit: x.Commit.Link, Blocks: x.Blocks.Bytes}
	for _, o := range x.Ops {
		op := stream.Op{Action: o.Action, Path: o.Path}
		if o.CID != nil {
			op.CID = o.CID.Link
		}
		c.Ops = append(c.Ops, op)
	}
	return c
}

// pad completes the base64 of the blocks, which the fixtures write without padding.
func pad(b []byte) []byte {
	const mark = `"$bytes": "`
	i := bytes.Index(b, []byte(mark)) + len(mark)
	n := bytes.IndexByte(b[i:], '"')
	return slicesInsert(b, i+n, strings.Repeat("=", (4-n%4)%4))
}

func slicesInsert(b []byte, at int, s string) []byte {
	return append(bytes.Clone(b[:at]), append([]byte(s), b[at:]...)...)
}

var realCommits = []string{
	"firehose_commit_4621317030.json", "firehose_commit_4621317332.json",
	"firehose_commit_4621332152.json", "firehose_commit_4623075231.json",
}

func TestRealCommits(t *testing.T) {
	for _, name := range realCommits {
		c := realCommit(t, name)
		f, err := stream.ParseFrame(stream.AppendFrame(nil, c))
		if err != nil {
			t.Fatal(err)
		}
		m, err := f.Message()
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(stream.Message(c), m); d != "" {
			t.Error(d)
		}
	}
}

func TestAllocs(t *testing.T) {
	b := stream.AppendFrame(nil, samples()[1])
	n := testing.AllocsPerRun(100, func() {
		f, err := stream.ParseFrame(b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Message(); err != nil {
			t.Fatal(err)
		}
	})
	if n > 7 { // message, text, ops, blobs (growing), an unknown action, and one to spare
		t.Errorf("%v allocations per decoded commit", n)
	}
}

func FuzzParseFrame(f *testing.F) {
	for _, m := range samples() {
		f.Add(stream.AppendFrame(nil, m))
	}
	for _, name := range realCommits {
		f.Add(stream.AppendFrame(nil, realCommit(f, name)))
	}
	f.Add(stream.AppendErrorFrame(nil, "FutureCursor", "x"))
	f.Add([]byte("\xa1\x62op\x20\xa0"))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.Clone(b)
		fr, err := stream.ParseFrame(b)
		if err != nil {
			return
		}
		n, err := cbor.Scan(b)
		if err != nil || cbor.Valid(b[n:]) != nil {
			t.Fatalf("accepted invalid CBOR %x", b)
		}
		if re := fr.AppendResequenced(nil, fr.Seq); !bytes.Equal(re, b) {
			t.Fatalf("resequenced with its own number %x, want %x", re, b)
		}
		m, err := fr.Message()
		if !bytes.Equal(in, b) {
			t.Fatal("decoding changed the frame")
		}
		if err != nil || m == nil {
			return
		}
		fr2, err := stream.ParseFrame(stream.AppendFrame(nil, m))
		if err != nil {
			if m.Sequence() == 0 {
				return
			}
			t.Fatal(err)
		}
		m2, err := fr2.Message()
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(m, m2, cmp.Comparer(func(a, b []byte) bool { return bytes.Equal(a, b) })); d != "" {
			t.Fatal(d)
		}
	})
}

func ExampleParseFrame() {
	wire := stream.AppendFrame(nil, &stream.Account{Seq: 7, DID: "did:web:a.example", Time: "2026-01-01T00:00:00Z", Active: true})
	f, err := stream.ParseFrame(wire)
	if err != nil {
		panic(err)
	}
	m, err := f.Message()
	if err != nil {
		panic(err)
	}
	fmt.Println(f.Type, f.Seq, m.Subject(), m.(*stream.Account).Active)
	// Output: #account 7 did:web:a.example true
}

func BenchmarkParseFrame(b *testing.B) {
	for _, name := range realCommits {
		frame := stream.AppendFrame(nil, realCommit(b, name))
		b.Run(fmt.Sprint(len(frame)), func(b *testing.B) {
			b.SetBytes(int64(len(frame)))
			b.ReportAllocs()
			for b.Loop() {
				f, err := stream.ParseFrame(frame)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := f.Message(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendFrame(b *testing.B) {
	c := realCommit(b, realCommits[0])
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = stream.AppendFrame(buf[:0], c)
	}
}

// A message that is kept holds its own text, and not what else came in the frame.
func TestKeptText(t *testing.T) {
	padding := strings.Repeat("x", 1<<20)
	for name, b := range map[string][]byte{
		"commit":   stream.AppendFrame(nil, &stream.Commit{Seq: 1, Repo: "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", Rev: "3lscuqc52or2x", Commit: cid.Sum(cid.DagCBOR, nil)}),
		"sync":     stream.AppendFrame(nil, &stream.Sync{Seq: 1, DID: "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", Rev: "3lscuqc52or2x"}),
		"identity": stream.AppendFrame(nil, &stream.Identity{Seq: 1, DID: "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"}),
		"account":  stream.AppendFrame(nil, &stream.Account{Seq: 1, DID: "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"}),
	} {
		f, err := stream.ParseFrame(b)
		if err != nil {
			t.Fatal(err)
		}
		// The same message, with an unknown field before all others.
		at := len(b) - len(f.Payload)
		b = append(append([]byte(nil), b[:at]...), b[at]+1)
		b = cbor.AppendText(cbor.AppendText(b, "a"), padding)
		b = append(b, f.Payload[1:]...)
		var kept []stream.Message
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range 16 {
			f, err := stream.ParseFrame(bytes.Clone(b))
			if err != nil {
				t.Fatal(err)
			}
			m, err := f.Message()
			if err != nil {
				t.Fatal(err)
			}
			switch m := m.(type) { // documented as views
			case *stream.Commit:
				m.Blocks = nil
			case *stream.Sync:
				m.Blocks = nil
			}
			kept = append(kept, m)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		if n := int64(after.HeapAlloc) - int64(before.HeapAlloc); n > 4<<20 {
			t.Errorf("%s: %d bytes held by %d messages", name, n, len(kept))
		}
		runtime.KeepAlive(kept)
	}
}
