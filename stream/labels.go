package stream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/label"
	"github.com/barograph/baro/syntax"
)

// SubscribeLabels is the NSID of the label stream, https://atproto.com/specs/label.
const SubscribeLabels = "com.atproto.label.subscribeLabels"

// TypeLabels is the type in the frame headers of [SubscribeLabels], beside TypeInfo.
const TypeLabels = "#labels"

// maxLabels bounds what decoding allocates.
const maxLabels = 10000

// LabelBatch is #labels of com.atproto.label.subscribeLabels: labels that were made together.
type LabelBatch struct {
	Seq    int64
	Labels []label.Label
}

var _ Message = (*LabelBatch)(nil)

// FrameType returns "#labels".
func (*LabelBatch) FrameType() string { return TypeLabels }

// Sequence returns Seq.
func (m *LabelBatch) Sequence() int64 { return m.Seq }

// SetSequence sets Seq.
func (m *LabelBatch) SetSequence(seq int64) { m.Seq = seq }

// Subject returns "": each label has its own.
func (*LabelBatch) Subject() string { return "" }

// AppendPayload appends the payload in DAG-CBOR.
func (m *LabelBatch) AppendPayload(b []byte) []byte {
	b = cbor.AppendMap(b, 2)
	b = appendInt(b, "seq", m.Seq)
	b = cbor.AppendArray(cbor.AppendText(b, "labels"), len(m.Labels))
	for i := range m.Labels {
		b = m.Labels[i].Append(b)
	}
	return b
}

// Labels decodes the payload of a #labels. It fails if one of them is no label.
func (f *Frame) Labels() (*LabelBatch, error) {
	m := &LabelBatch{Seq: f.Seq}
	err := f.labels(func(l label.Label, err error) error {
		m.Labels = append(m.Labels, l)
		return err
	})
	if err != nil {
		return nil, frameErr("%s: %w", f.Type, err)
	}
	return m, nil
}

// labels calls each for every label, with an error for what is none, until it returns one.
func (f *Frame) labels(each func(label.Label, error) error) error {
	if f.Op != OpMessage || f.Type != TypeLabels {
		return fmt.Errorf("not a message of type %s", TypeLabels)
	}
	r := cbor.NewReader(f.Payload)
	return fields(&r, bitSeq|bitOps, "seq, labels", func(key string) (uint, error) {
		switch key {
		case "seq":
			_, err := r.Int()
			return bitSeq, err
		case "labels":
			n, err := r.Array()
			if err != nil {
				return 0, err
			}
			if n > maxLabels {
				return 0, fmt.Errorf("%d labels, more than %d", n, maxLabels)
			}
			for i := range n {
				start := r.Offset()
				if err := r.Skip(); err != nil {
					return 0, err
				}
				l, err := label.Decode(f.Payload[start:r.Offset()])
				if err != nil {
					err = fmt.Errorf("%d: %w", i, err)
				}
				if err := each(l, err); err != nil {
					return 0, err
				}
			}
			return bitOps, nil
		}
		return 0, r.Skip()
	})
}

// LabelOptions of [Labels]. Either Keys or Unverified must be set.
type LabelOptions struct {
	// Keys finds the keys of labelers.
	Keys Keys
	// Unverified leaves out the signatures.
	Unverified bool
	// After is the sequence number of the last event that was processed: the stream goes on after it. 0 asks for everything
	// that the labeler ever said, if it keeps that; nil for what it says from now on.
	After *int64
	// Sources are the labelers whose labels are wanted; nil is all that the host sends.
	Sources []syntax.DID

	Strict    bool           // ends the loop with the first Problem of a label
	OnProblem func(*Problem) // is told of problems, between labels and in order
	// OnCursor and CursorEvery are as in [Options].
	OnCursor    func(seq int64)
	CursorEvery time.Duration

	Connect SubscribeOptions // how to connect. Its NSID, Query and After are not used

	Workers     int           // that verify; default GOMAXPROCS
	KeyPatience time.Duration // how long a key is looked up that can't be had at the moment; default 30 s
	MaxQueue    int           // events that are read and not handed out; default 8,192
	MaxBytes    int           // and their bytes; default 64 MiB

	Now func() time.Time // nil: the system's clock
}

// LabelEvent is one label of a stream.
type LabelEvent struct {
	Seq int64 // of the event that it came in, perhaps with others
	// Cursor is the place to go on after, once this label has been processed: only that of the last label of an event passes it.
	Cursor int64
	label.Label
	Verified bool
}

// Labels follows the labels of host, a labeler (see [URL]), in their order. Their signatures are verified with the #atproto_label
// key of their source, unless the options say otherwise, after one more look at the key if need be; what fails is not
// handed out, but told to OnProblem, with a [*label.Error]. That may happen to labels from before the labeler took a new
// key. Negations and expired labels are handed out too: [label.Set] knows what holds in the end.
//
// How the loop ends, and what cursors mean, is as with [Records].
func Labels(ctx context.Context, host string, o *LabelOptions) iter.Seq2[LabelEvent, error] {
	return labels(ctx, o, func(o *Options) source { return follow(host, SubscribeLabels, o) })
}

func labels(ctx context.Context, o *LabelOptions, open func(*Options) source) iter.Seq2[LabelEvent, error] {
	return func(yield func(LabelEvent, error) bool) {
		if o == nil {
			o = &LabelOptions{}
		}
		p, err := newPipeline(&Options{
			Keys: o.Keys, Unverified: o.Unverified, After: o.After, OnCursor: o.OnCursor, CursorEvery: o.CursorEvery, Connect: o.Connect,
			Workers: o.Workers, KeyPatience: o.KeyPatience, MaxQueue: o.MaxQueue, MaxBytes: o.MaxBytes, Now: o.Now,
		}, open)
		if err == nil {
			p.labels, err = newLabeling(p, o)
		}
		if err != nil {
			yield(LabelEvent{}, err)
			return
		}
		safe := p.tracker.Cursor()
		for j, err := range p.events(ctx) {
			if safe == 0 {
				safe = p.began
			}
			problem := func(q *Problem) (strict bool) {
				if q == nil {
					return false
				}
				if o.OnProblem != nil {
					o.OnProblem(q)
				}
				if strict = o.Strict && q.Seq != 0; strict {
					yield(LabelEvent{Seq: q.Seq, Cursor: safe}, q)
				}
				return strict
			}
			if problem(j.ev.Problem) {
				return
			}
			for i := range j.labels {
				if problem(j.labels[i].problem) {
					return
				}
				e := &j.labels[i].LabelEvent
				if j.labels[i].problem != nil {
					continue
				}
				if e.Cursor = safe; i == len(j.labels)-1 {
					e.Cursor = j.ev.Cursor
				}
				if !yield(*e, nil) {
					return
				}
			}
			if err != nil {
				yield(LabelEvent{}, err)
				return
			}
			safe = j.ev.Cursor
		}
	}
}

// labelEvent is a label on its way.
type labelEvent struct {
	LabelEvent
	problem *Problem
}

func (e *labelEvent) fail(k ProblemKind, err error) {
	e.problem = &Problem{Kind: k, Seq: e.Seq, DID: syntax.DID(e.Src), Err: err}
}

// labeling is what a pipeline does with labels: nearly all of a stream are one labeler's, so that they are verified side by side
// and handed out in their order.
type labeling struct {
	p       *pipeline
	sources map[string]bool // nil: all
	in      chan *job

	mu   sync.Mutex
	keys map[string]*labelKey
}

// labelKey is the key of a labeler. Who holds its lock may be asking for it.
type labelKey struct {
	mu    sync.Mutex
	key   *keys.PublicKey
	err   error
	at    time.Time
	asked bool
	fresh time.Time // when it was last asked for because of a wrong signature
}

// maxLabelers is how many labelers' keys are remembered.
const maxLabelers = 1000

func newLabeling(p *pipeline, o *LabelOptions) (*labeling, error) {
	g := &labeling{p: p, in: make(chan *job, p.o.MaxQueue), keys: map[string]*labelKey{}}
	if o.Sources != nil {
		g.sources = map[string]bool{}
		for _, d := range o.Sources {
			if !syntax.ValidDID(d) {
				return nil, fmt.Errorf("%q is not a DID", d)
			}
			g.sources[string(d)] = true
		}
	}
	return g, nil
}

// frame deals with one frame. It fails only when ctx has ended.
func (g *labeling) frame(ctx context.Context, f Frame) (err error) {
	p := g.p
	j := &job{ev: RepoEvent{Seq: f.Seq, Size: len(f.Raw)}}
	switch f.Type {
	case TypeLabels:
		err = f.labels(func(l label.Label, err error) error {
			e := labelEvent{LabelEvent: LabelEvent{Seq: f.Seq, Label: l}}
			if err != nil {
				e.fail(ProblemMalformed, err)
			} else if g.sources != nil && !g.sources[l.Src] {
				return nil
			}
			j.labels = append(j.labels, e)
			return nil
		})
	case TypeInfo:
		var m Message
		m, err = f.Message()
		if i, ok := m.(*Info); ok && i.Name == InfoOutdatedCursor {
			j.ev.Problem = &Problem{Kind: ProblemOutdated, Err: errors.New("labels since the cursor are gone: " + i.Text)}
		}
	}
	if err != nil {
		j.labels = nil
		j.ev.Problem = &Problem{Kind: ProblemMalformed, Seq: f.Seq, Err: err}
	}
	if j.ev.Problem == nil && len(j.labels) == 0 {
		p.tracker.Skip(f.Seq)
		return nil
	}
	if j.track, err = p.tracker.Add(ctx, f.Seq, len(f.Raw)); err != nil {
		return err
	}
	if len(j.labels) > 0 && !p.o.Unverified {
		j.checked = make(chan struct{})
		select {
		case g.in <- j:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.out.put(j)
	return nil
}

// work verifies labels.
func (g *labeling) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case j := <-g.in:
			for i := range j.labels {
				if e := &j.labels[i]; e.problem == nil {
					g.verify(ctx, e)
				}
			}
			close(j.checked)
		}
	}
}

func (g *labeling) verify(ctx context.Context, e *labelEvent) {
	if err := e.Check(); err != nil { // before anybody is asked about its source
		e.fail(ProblemRejected, err)
		return
	}
	key, err := g.key(ctx, e.Src, nil)
	if err != nil {
		e.fail(ProblemIdentity, err)
		return
	}
	err = e.Label.Verify(key)
	if r, ok := errors.AsType[*label.Error](err); ok && (r.Reason == label.ReasonSignature || r.Reason == label.ReasonNoKey) {
		if now, kerr := g.key(ctx, e.Src, &key); kerr == nil && now != nil && (key == nil || !now.Equal(key)) {
			err = e.Label.Verify(now)
		}
	}
	if err != nil {
		e.fail(ProblemRejected, err)
		return
	}
	e.Verified = true
}

// key returns the key of a labeler. If wrong is given, that key was wrong, and it is asked for again, once a minute.
func (g *labeling) key(ctx context.Context, src string, wrong **keys.PublicKey) (*keys.PublicKey, error) {
	g.mu.Lock()
	k := g.keys[src]
	if k == nil {
		if len(g.keys) >= maxLabelers {
			clear(g.keys)
		}
		k = &labelKey{}
		g.keys[src] = k
	}
	g.mu.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	now := g.p.o.Now()
	switch {
	case wrong != nil && k.asked && k.key != *wrong: // somebody was faster
		return k.key, k.err
	case wrong != nil && !k.fresh.IsZero() && now.Sub(k.fresh) < keyAge:
		return k.key, k.err
	case wrong == nil && k.asked && k.err == nil && now.Sub(k.at) < keyAge:
		return k.key, nil
	}
	if wrong != nil {
		k.fresh = now
	}
	k.key, k.err = g.p.find(ctx, syntax.DID(src), FragmentLabel, wrong != nil)
	k.at, k.asked = now, true
	return k.key, k.err
}
