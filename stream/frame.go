package stream

import (
	"errors"

	"github.com/barograph/baro/cbor"
)

// Frame is a parsed frame: header fields, and the payload as bytes. Payload and Raw are views of the buffer that was parsed.
type Frame struct {
	Op      int64  // OpMessage, OpError or, to be ignored, something newer
	Type    string // "#commit" and so on; empty in an error frame
	Seq     int64  // the payload's sequence number, 0 if it has none
	Payload []byte // one CBOR map
	Raw     []byte // the whole frame

	seqAt, seqEnd int // where the sequence number's CBOR lies in Raw
	textEnd       int // in Payload: every field with text lies before it (else len(Payload))
}

// knownTypes saves an allocation for each frame.
var knownTypes = [...]string{TypeCommit, TypeSync, TypeIdentity, TypeAccount, TypeInfo, "#labels"}

// ParseFrame checks one frame: a header map with op and, for messages, t; a payload map; both strict DAG-CBOR, and
// nothing after. Unknown header fields are ignored. Unknown values of op and t are no error: see [Frame.Op].
func ParseFrame(b []byte) (Frame, error) {
	f := Frame{Raw: b}
	if len(b) > MaxFrame {
		return f, frameErr("%d bytes, more than %d", len(b), MaxFrame)
	}
	r := cbor.NewReader(b)
	if err := f.header(&r); err != nil {
		return f, frameErr("header: %w", err)
	}
	start := r.Offset()
	if err := f.scan(&r, start); err != nil {
		return f, frameErr("payload: %w", err)
	}
	f.Payload = b[start:]
	if f.textEnd == 0 {
		f.textEnd = len(f.Payload)
	}
	return f, nil
}

func (f *Frame) header(r *cbor.Reader) error {
	n, err := r.Map()
	if err != nil {
		return err
	}
	var key []byte
	var hasOp, hasType bool
	for range n {
		if key, err = r.MapKey(key); err != nil {
			return err
		}
		switch string(key) {
		case "t":
			t, err := r.TextBytes()
			if err != nil {
				return err
			}
			f.Type, hasType = typeName(t), true
		case "op":
			if f.Op, err = r.Int(); err != nil {
				return err
			}
			hasOp = true
		default:
			if _, err := r.RawWithin(1); err != nil {
				return err
			}
		}
	}
	switch {
	case !hasOp:
		return errors.New("no op")
	case f.Op == OpMessage && !hasType:
		return errors.New("message without t")
	}
	return nil
}

func typeName(t []byte) string {
	for _, k := range knownTypes {
		if string(t) == k {
			return k
		}
	}
	return string(t)
}

// scan checks the payload whole and finds the sequence number in it.
func (f *Frame) scan(r *cbor.Reader, start int) error {
	n, err := r.Map()
	if err != nil {
		return err
	}
	var key []byte
	for range n {
		if key, err = r.MapKey(key); err != nil {
			return err
		}
		switch string(key) {
		case "seq":
			f.seqAt = r.Offset()
			if f.Seq, err = r.Int(); err != nil {
				return err
			}
			if f.Seq < 1 || f.Seq > MaxSeq {
				return frameErr("sequence number %d outside 1 to 2^53-1", f.Seq)
			}
			f.seqEnd = r.Offset()
			continue
		case "blocks":
			// Everything with text in #commit and #sync comes before the blocks, because shorter keys come first.
			f.textEnd = r.Offset() - start
		}
		if _, err := r.RawWithin(1); err != nil {
			return err
		}
	}
	return r.End()
}

// Err returns the error that an error frame carries, nil for any other frame.
func (f *Frame) Err() error {
	if f.Op != OpError {
		return nil
	}
	e := new(Error)
	if err := e.decode(f.Payload); err != nil {
		return err
	}
	return e
}

// Message decodes the payload of a #commit, #sync, #identity, #account or #info. For any other type it returns
// (nil, nil), which a consumer ignores; for an error frame the [*Error] as the error.
func (f *Frame) Message() (Message, error) {
	if f.Op == OpError {
		return nil, f.Err()
	}
	if f.Op != OpMessage {
		return nil, nil
	}
	if f.Type == TypeCommit { // by far the most, and without the calls through an interface, which cost allocations
		m := new(Commit)
		if err := m.decode(f); err != nil {
			return nil, frameErr("%s: %w", f.Type, err)
		}
		return m, nil
	}
	var m interface {
		Message
		decode(Frame) error
	}
	switch f.Type {
	case TypeSync:
		m = new(Sync)
	case TypeIdentity:
		m = new(Identity)
	case TypeAccount:
		m = new(Account)
	case TypeInfo:
		m = new(Info)
	default:
		return nil, nil
	}
	if err := m.decode(*f); err != nil {
		return nil, frameErr("%s: %w", f.Type, err)
	}
	return m, nil
}

// Message is one message of com.atproto.sync.subscribeRepos: *[Commit], *[Sync], *[Identity], *[Account] or *[Info].
type Message interface {
	// FrameType returns the t of the header, such as "#commit".
	FrameType() string
	// Sequence returns the sequence number; 0 for #info, which has none.
	Sequence() int64
	// Subject returns the DID that the message is about; "" for #info.
	Subject() string
	// SetSequence sets the sequence number; #info ignores it.
	SetSequence(seq int64)
	// AppendPayload appends the payload in DAG-CBOR.
	AppendPayload(dst []byte) []byte
}

// AppendFrame appends the whole frame of a message: header and payload.
func AppendFrame(dst []byte, m Message) []byte {
	return m.AppendPayload(AppendHeader(dst, m.FrameType()))
}

// AppendHeader appends the header of a message of the given type, such as "#labels".
func AppendHeader(dst []byte, t string) []byte {
	dst = cbor.AppendMap(dst, 2)
	dst = cbor.AppendText(dst, "t")
	dst = cbor.AppendText(dst, t)
	dst = cbor.AppendText(dst, "op")
	return cbor.AppendInt(dst, OpMessage)
}

// AppendErrorFrame appends an error frame. Message may be empty.
func AppendErrorFrame(dst []byte, name, message string) []byte {
	dst = cbor.AppendMap(dst, 1)
	dst = cbor.AppendText(dst, "op")
	dst = cbor.AppendInt(dst, OpError)
	n := 1
	if message != "" {
		n = 2
	}
	dst = cbor.AppendMap(dst, n)
	dst = cbor.AppendText(dst, "error")
	dst = cbor.AppendText(dst, name)
	if message != "" {
		dst = cbor.AppendText(dst, "message")
		dst = cbor.AppendText(dst, message)
	}
	return dst
}

// AppendResequenced appends a copy of f in which the sequence number is seq and every other byte as it was, unknown
// fields of header and payload included. A frame without a sequence number is copied as it is.
func (f *Frame) AppendResequenced(dst []byte, seq int64) []byte {
	if f.seqEnd == 0 {
		return append(dst, f.Raw...)
	}
	dst = append(dst, f.Raw[:f.seqAt]...)
	dst = cbor.AppendInt(dst, seq)
	return append(dst, f.Raw[f.seqEnd:]...)
}
