package stream_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/label"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// says makes a label of a labeler, signed with a key.
func says(t testing.TB, src syntax.DID, key *keys.PrivateKey, val string) label.Label {
	l := label.Label{Src: string(src), URI: "did:web:alice.example.com", Val: val, Cts: "2026-11-21T08:00:00Z"}
	if err := l.Sign(key); err != nil {
		t.Fatal(err)
	}
	return l
}

// hear follows the frames of a world to the end.
func hear(t *testing.T, w *world, o *stream.LabelOptions) (got, problems []string) {
	t.Helper()
	o.OnProblem = func(p *stream.Problem) {
		s := fmt.Sprintf("%d %s", p.Seq, p.Kind)
		if e, ok := errors.AsType[*label.Error](p.Err); ok {
			s += " " + string(e.Reason)
		}
		problems = append(problems, s)
	}
	for l, err := range stream.LabelsFrom(t.Context(), w.after(0), o) {
		if err != nil {
			if !errors.Is(err, errEnd) {
				t.Error(err)
			}
			break
		}
		if l.Verified == o.Unverified {
			t.Errorf("%+v", l)
		}
		got = append(got, fmt.Sprintf("%d %s %v", l.Seq, l.Val, l.Cursor >= l.Seq))
	}
	return got, problems
}

func TestLabels(t *testing.T) {
	w := newWorld(t)
	a, b := w.account("a"), w.account("b")
	stranger := newKey(t, "stranger")
	unsigned := says(t, a.did, a.key, "unsigned")
	unsigned.Sig = nil
	odd := says(t, a.did, a.key, "odd")
	odd.Cts = "yesterday"
	negated := label.Label{Ver: 1, Src: string(a.did), URI: "did:web:alice.example.com", Val: "written-false", Cts: "2026-11-21T08:00:00Z", NegFalse: true}
	var err error
	if negated.Sig, err = a.key.Sign(negated.AppendSigned(nil)); err != nil {
		t.Fatal(err)
	}
	w.send(&stream.LabelBatch{Labels: []label.Label{says(t, a.did, a.key, "one"), says(t, b.did, b.key, "two"), negated}})           // 1
	w.send(&stream.LabelBatch{Labels: []label.Label{says(t, a.did, stranger, "forged"), unsigned, odd, says(t, a.did, a.key, "x")}}) // 2
	w.send(&stream.LabelBatch{})                                                                                                     // 3
	w.send(&stream.Info{Name: stream.InfoOutdatedCursor})
	w.send(&stream.LabelBatch{Labels: []label.Label{says(t, b.did, a.key, "not b's")}}) // 5
	junk := cbor.AppendArray(cbor.AppendText(cbor.AppendInt(cbor.AppendText(cbor.AppendMap(stream.AppendHeader(nil, stream.TypeLabels), 2), "seq"), 6), "labels"), 2)
	junk = cbor.AppendText(junk, "no label")
	last := says(t, a.did, a.key, "last")
	f, err := stream.ParseFrame(last.Append(junk))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Labels(); !errors.Is(err, stream.ErrFrame) {
		t.Errorf("decoding a batch with junk: %v", err)
	}
	w.frames = append(w.frames, f)
	if f, err = stream.ParseFrame(append(stream.AppendHeader(nil, stream.TypeLabels), 0xa1, 0x63, 's', 'e', 'q', 7)); err != nil {
		t.Fatal(err)
	}
	w.frames = append(w.frames, f)

	got, problems := hear(t, w, &stream.LabelOptions{Keys: w.keys, Workers: 4})
	equal(t, "labels", got, []string{"1 one false", "1 two false", "1 written-false true", "2 x true", "6 last true"})
	equal(t, "problems", problems, []string{"2 rejected signature", "2 rejected unsigned", "2 rejected created", "0 outdated-cursor", "5 rejected signature", "6 malformed encoding", "7 malformed"})
	for _, s := range w.keys.take() {
		if !strings.Contains(s, label.Fragment) {
			t.Errorf("asked for %s", s)
		}
	}
	got, problems = hear(t, w, &stream.LabelOptions{Keys: w.keys, Sources: []syntax.DID{b.did}})
	equal(t, "labels of b", got, []string{"1 two true"})
	equal(t, "problems of b", problems, []string{"0 outdated-cursor", "5 rejected signature", "6 malformed encoding", "7 malformed"})
	got, _ = hear(t, w, &stream.LabelOptions{Unverified: true})
	if len(got) != 9 {
		t.Errorf("unverified: %v", got)
	}
	n := 0
	for _, err := range stream.LabelsFrom(t.Context(), w.after(0), &stream.LabelOptions{Keys: w.keys, Strict: true}) {
		if p, ok := errors.AsType[*stream.Problem](err); err != nil && (!ok || p.Seq != 2 || p.DID != a.did) {
			t.Error(err)
		}
		n++
	}
	if n != 4 {
		t.Errorf("strict: %d", n)
	}
	for _, o := range []*stream.LabelOptions{nil, {}, {Keys: w.keys, Sources: []syntax.DID{"b"}}} {
		for _, err := range stream.Labels(t.Context(), "http://localhost:1", o) {
			if err == nil {
				t.Errorf("%+v: no error", o)
			}
		}
	}
}

// A labeler that takes a new key is asked about once, and not for each of the labels that are still signed with the old one.
func TestLabelKeyRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.account("a")
		old := a.key
		a.key = newKey(t, "second")
		w.keys.cached = map[syntax.DID]*keys.PublicKey{a.did: old.Public()}
		w.keys.set(a.did, a.key.Public())
		for i := range 20 {
			w.send(&stream.LabelBatch{Labels: []label.Label{says(t, a.did, old, fmt.Sprint("old", i%10)), says(t, a.did, a.key, "new")}})
		}
		got, problems := hear(t, w, &stream.LabelOptions{Keys: w.keys, Workers: 1, Now: time.Now})
		if len(got) != 21 || len(problems) != 19 { // the first old one came while its key was the known one
			t.Errorf("%d labels, %d problems", len(got), len(problems))
		}
		equal(t, "asked", w.keys.take(), []string{"did:web:a.example.com#atproto_label false", "did:web:a.example.com#atproto_label true"})
	})
}

// Labels come in order from any number of workers, to a loop that takes its time, and nothing stays behind.
func TestLabelsInOrder(t *testing.T) {
	w := newWorld(t)
	a := w.account("a")
	for i := range 100 {
		w.send(&stream.LabelBatch{Labels: []label.Label{says(t, a.did, a.key, fmt.Sprint("v", i)), says(t, a.did, a.key, "second")}[:1+i%2]})
	}
	synctest.Test(t, func(t *testing.T) {
		var seq int64
		n := 0
		for l, err := range stream.LabelsFrom(t.Context(), w.after(0), &stream.LabelOptions{Keys: w.keys, Workers: 5, MaxQueue: 7, Now: time.Now}) {
			if err != nil {
				t.Fatal(err)
			}
			if l.Seq < seq || l.Cursor > l.Seq || l.Cursor < l.Seq-1 {
				t.Errorf("%d after %d, cursor %d", l.Seq, seq, l.Cursor)
			}
			seq = l.Seq
			if n++; n == 120 {
				break
			}
		}
	})
}

func FuzzLabels(f *testing.F) {
	w := newWorld(f)
	a := w.account("a")
	f.Add(w.send(&stream.LabelBatch{Labels: []label.Label{says(f, a.did, a.key, "one"), {Src: "s", NegFalse: true}}}).Raw)
	f.Add(w.send(&stream.LabelBatch{}).Raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, err := stream.ParseFrame(b)
		if err != nil {
			return
		}
		m, err := fr.Labels()
		if err != nil {
			return
		}
		again, err := stream.ParseFrame(stream.AppendFrame(nil, m))
		if err != nil {
			t.Fatal(err)
		}
		if back, err := again.Labels(); err != nil || !cmp.Equal(back, m) {
			t.Errorf("%+v became %+v, %v", m, back, err)
		}
		frames := func(yield func(stream.Frame, error) bool) { yield(fr, nil) }
		for l, err := range stream.LabelsFrom(t.Context(), frames, &stream.LabelOptions{Keys: w.keys, Now: func() time.Time { return w.now }}) {
			if err != nil || l.Verify(a.key.Public()) != nil {
				t.Errorf("%+v, %v", l, err)
			}
		}
	})
}

func ExampleLabels() {
	labeler, keys := exampleLabeler()
	defer labeler.Close()
	var said label.Set
	for l, err := range stream.Labels(context.Background(), labeler.URL, &stream.LabelOptions{Keys: keys, After: new(int64(0))}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		if said.Add(l.Label); l.Cursor == 2 {
			break
		}
	}
	for _, l := range said.Active(time.Now()) {
		fmt.Println(l.URI, "is", l.Val)
	}
	// Output:
	// did:web:alice.example.com is kind
}

// exampleLabeler serves three labels, of which the last takes one back.
func exampleLabeler() (*httptest.Server, stream.Keys) {
	w := newWorld(exampleTB{})
	a := w.account("labeler")
	spam := says(w.t, a.did, a.key, "spam")
	not := spam
	not.Neg, not.Cts = true, "2026-11-21T09:00:00Z"
	if err := not.Sign(a.key); err != nil {
		panic(err)
	}
	log := newMemLog()
	for _, m := range []*stream.LabelBatch{{Labels: []label.Label{spam, says(w.t, a.did, a.key, "kind")}}, {Labels: []label.Label{not}}} {
		f := w.send(m)
		log.addFrame(f.Seq, f.Raw)
	}
	return httptest.NewServer(stream.NewHandler(context.Background(), log, stream.ServeOptions{})), w.keys
}
