package stream

import (
	"errors"
	"fmt"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/repo"
)

// Actions of an [Op].
const (
	ActionCreate = repo.ActionCreate
	ActionUpdate = repo.ActionUpdate
	ActionDelete = repo.ActionDelete
)

// Statuses of an [Account] that isn't active. Other values are possible.
const (
	StatusTakendown      = "takendown"
	StatusSuspended      = "suspended"
	StatusDeleted        = "deleted"
	StatusDeactivated    = "deactivated"
	StatusDesynchronized = "desynchronized"
	StatusThrottled      = "throttled"
)

// HandleInvalid in an [Identity] says that the handle doesn't lead back to the DID.
const HandleInvalid = "handle.invalid"

// maxOps bounds what decoding allocates: the protocol allows 200 ops and package repo checks that.
const maxOps = 10000

// minOp is the size of the smallest op: a map of an action and a path, both empty.
const minOp = len("\xa2\x64path\x60\x66action\x60")

// Commit is #commit of com.atproto.sync.subscribeRepos: a change of a repository with its proof.
//
// Strings are as they came: nothing checks their syntax here. A zero CID is an absent (or null) field.
type Commit struct {
	Seq      int64
	Repo     string  // DID
	Rev      string  // TID of this commit
	Since    string  // rev of the commit before; "" is null: the first one
	Time     string  // datetime
	Commit   cid.CID // commit block
	Ops      []Op
	Blocks   []byte  // CAR; a view of the frame after decoding
	PrevData cid.CID // tree root before the commit; zero in a repository's first commit and from hosts before sync 1.1

	// Deprecated fields. Producers leave them at their zero values; consumers ignore them.
	Rebase bool
	TooBig bool
	Blobs  []cid.CID
}

// Op is one change of a record within a [Commit].
type Op = repo.Op

// Sync is #sync of com.atproto.sync.subscribeRepos: the repository's state, without how it got there.
type Sync struct {
	Seq    int64
	DID    string
	Rev    string
	Time   string
	Blocks []byte // CAR with the commit block; a view of the frame after decoding
}

// Identity is #identity of com.atproto.sync.subscribeRepos: handle, key or host of an account may have changed.
type Identity struct {
	Seq    int64
	DID    string
	Time   string
	Handle string // optional
}

// Account is #account of com.atproto.sync.subscribeRepos: the hosting status of an account at the host that sends it.
type Account struct {
	Seq    int64
	DID    string
	Time   string
	Active bool
	Status string // optional; why the account isn't active
}

// Info is #info of com.atproto.sync.subscribeRepos: a word about the stream itself.
type Info struct {
	Name string // such as "OutdatedCursor"
	Text string // the message field; optional
}

var (
	_ Message = (*Commit)(nil)
	_ Message = (*Sync)(nil)
	_ Message = (*Identity)(nil)
	_ Message = (*Account)(nil)
	_ Message = (*Info)(nil)
)

// FrameType returns "#commit".
func (*Commit) FrameType() string { return TypeCommit }

// FrameType returns "#sync".
func (*Sync) FrameType() string { return TypeSync }

// FrameType returns "#identity".
func (*Identity) FrameType() string { return TypeIdentity }

// FrameType returns "#account".
func (*Account) FrameType() string { return TypeAccount }

// FrameType returns "#info".
func (*Info) FrameType() string { return TypeInfo }

// Sequence returns Seq.
func (m *Commit) Sequence() int64 { return m.Seq }

// Sequence returns Seq.
func (m *Sync) Sequence() int64 { return m.Seq }

// Sequence returns Seq.
func (m *Identity) Sequence() int64 { return m.Seq }

// Sequence returns Seq.
func (m *Account) Sequence() int64 { return m.Seq }

// Sequence returns 0: #info has no sequence number.
func (*Info) Sequence() int64 { return 0 }

// SetSequence sets Seq.
func (m *Commit) SetSequence(seq int64) { m.Seq = seq }

// SetSequence sets Seq.
func (m *Sync) SetSequence(seq int64) { m.Seq = seq }

// SetSequence sets Seq.
func (m *Identity) SetSequence(seq int64) { m.Seq = seq }

// SetSequence sets Seq.
func (m *Account) SetSequence(seq int64) { m.Seq = seq }

// SetSequence does nothing: #info has no sequence number.
func (*Info) SetSequence(int64) {}

// Subject returns Repo.
func (m *Commit) Subject() string { return m.Repo }

// Subject returns DID.
func (m *Sync) Subject() string { return m.DID }

// Subject returns DID.
func (m *Identity) Subject() string { return m.DID }

// Subject returns DID.
func (m *Account) Subject() string { return m.DID }

// Subject returns "".
func (*Info) Subject() string { return "" }

// AppendPayload appends the payload in DAG-CBOR.
func (m *Commit) AppendPayload(b []byte) []byte {
	n := 11
	if m.PrevData.Defined() {
		n++
	}
	b = cbor.AppendMap(b, n)
	b = cbor.AppendText(b, "ops")
	b = cbor.AppendArray(b, len(m.Ops))
	for i := range m.Ops {
		b = appendOp(b, &m.Ops[i])
	}
	b = appendText(b, "rev", m.Rev)
	b = appendInt(b, "seq", m.Seq)
	b = appendText(b, "repo", m.Repo)
	b = appendText(b, "time", m.Time)
	b = cbor.AppendText(b, "blobs")
	b = cbor.AppendArray(b, len(m.Blobs))
	for _, c := range m.Blobs {
		b = cbor.AppendLink(b, c)
	}
	b = cbor.AppendText(b, "since")
	if m.Since == "" {
		b = cbor.AppendNull(b)
	} else {
		b = cbor.AppendText(b, m.Since)
	}
	b = cbor.AppendText(b, "blocks")
	b = cbor.AppendBytes(b, m.Blocks)
	b = cbor.AppendText(b, "commit")
	b = cbor.AppendLink(b, m.Commit)
	b = cbor.AppendText(b, "rebase")
	b = cbor.AppendBool(b, m.Rebase)
	b = cbor.AppendText(b, "tooBig")
	b = cbor.AppendBool(b, m.TooBig)
	if m.PrevData.Defined() {
		b = cbor.AppendText(b, "prevData")
		b = cbor.AppendLink(b, m.PrevData)
	}
	return b
}

func appendOp(b []byte, o *Op) []byte {
	n := 3
	if o.Prev.Defined() {
		n++
	}
	b = cbor.AppendMap(b, n)
	b = cbor.AppendText(b, "cid")
	if o.CID.Defined() {
		b = cbor.AppendLink(b, o.CID)
	} else {
		b = cbor.AppendNull(b)
	}
	b = appendText(b, "path", o.Path)
	if o.Prev.Defined() {
		b = cbor.AppendText(b, "prev")
		b = cbor.AppendLink(b, o.Prev)
	}
	return appendText(b, "action", o.Action)
}

// AppendPayload appends the payload in DAG-CBOR.
func (m *Sync) AppendPayload(b []byte) []byte {
	b = cbor.AppendMap(b, 5)
	b = appendText(b, "did", m.DID)
	b = appendText(b, "rev", m.Rev)
	b = appendInt(b, "seq", m.Seq)
	b = appendText(b, "time", m.Time)
	b = cbor.AppendText(b, "blocks")
	return cbor.AppendBytes(b, m.Blocks)
}

// AppendPayload appends the payload in DAG-CBOR.
func (m *Identity) AppendPayload(b []byte) []byte {
	n := 3
	if m.Handle != "" {
		n++
	}
	b = cbor.AppendMap(b, n)
	b = appendText(b, "did", m.DID)
	b = appendInt(b, "seq", m.Seq)
	b = appendText(b, "time", m.Time)
	if m.Handle != "" {
		b = appendText(b, "handle", m.Handle)
	}
	return b
}

// AppendPayload appends the payload in DAG-CBOR.
func (m *Account) AppendPayload(b []byte) []byte {
	n := 4
	if m.Status != "" {
		n++
	}
	b = cbor.AppendMap(b, n)
	b = appendText(b, "did", m.DID)
	b = appendInt(b, "seq", m.Seq)
	b = appendText(b, "time", m.Time)
	b = cbor.AppendText(b, "active")
	b = cbor.AppendBool(b, m.Active)
	if m.Status != "" {
		b = appendText(b, "status", m.Status)
	}
	return b
}

// AppendPayload appends the payload in DAG-CBOR.
func (m *Info) AppendPayload(b []byte) []byte {
	n := 1
	if m.Text != "" {
		n++
	}
	b = cbor.AppendMap(b, n)
	b = appendText(b, "name", m.Name)
	if m.Text != "" {
		b = appendText(b, "message", m.Text)
	}
	return b
}

func appendText(b []byte, key, v string) []byte {
	return cbor.AppendText(cbor.AppendText(b, key), v)
}

func appendInt(b []byte, key string, v int64) []byte {
	return cbor.AppendInt(cbor.AppendText(b, key), v)
}

// texts cuts all strings of a message out of one copy of the payload's head, so that a message costs one allocation for
// its text and not one for each field.
type texts struct {
	head string
}

// maxShared is the size of a head up to which it is shared. It holds all operations of nearly all commits. Beyond, a string that
// somebody keeps would hold too much memory that is of no use, such as unknown fields.
const maxShared = 64 << 10

func textsOf(head []byte) texts {
	if len(head) > maxShared {
		return texts{}
	}
	return texts{head: string(head)}
}

// text reads a string.
func (t texts) text(r *cbor.Reader) (string, error) {
	b, err := r.TextBytes()
	if err != nil {
		return "", err
	}
	end := r.Offset()
	if end > len(t.head) {
		return string(b), nil
	}
	return t.head[end-len(b) : end], nil
}

func (t texts) optionalText(r *cbor.Reader) (string, error) {
	if r.IsNull() {
		return "", r.Null()
	}
	return t.text(r)
}

func link(r *cbor.Reader) (cid.CID, error) {
	if r.IsNull() {
		return cid.CID{}, r.Null()
	}
	return r.Link()
}

// fields calls f for each key of the map at r and checks that all required keys (a bit each) were there. f returns the
// key's bit, 0 for an optional key, or skips an unknown one.
func fields(r *cbor.Reader, required uint, names string, f func(key string) (uint, error)) error {
	n, err := r.Map()
	if err != nil {
		return err
	}
	var key []byte
	var seen uint
	for range n {
		if key, err = r.MapKey(key); err != nil {
			return err
		}
		bit, err := f(string(key))
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		seen |= bit
	}
	if seen&required != required {
		return fmt.Errorf("a required field is missing (wanted are %s)", names)
	}
	return nil
}

const (
	bitSeq = 1 << iota
	bitDID
	bitRev
	bitTime
	bitBlocks
	bitCommit
	bitOps
	bitActive
	bitName
	bitAction
	bitPath
)

func (m *Commit) decode(f *Frame) error {
	r := cbor.NewReader(f.Payload)
	t := textsOf(f.Payload[:f.textEnd])
	n, err := r.Map()
	if err != nil {
		return err
	}
	var key []byte
	var seen uint
	for range n {
		if key, err = r.MapKey(key); err != nil {
			return err
		}
		switch string(key) {
		case "ops":
			m.Ops, err = decodeOps(&r, t)
			seen |= bitOps
		case "rev":
			m.Rev, err = t.text(&r)
			seen |= bitRev
		case "seq":
			m.Seq, err = r.Int()
			seen |= bitSeq
		case "repo":
			m.Repo, err = t.text(&r)
			seen |= bitDID
		case "time":
			m.Time, err = t.text(&r)
			seen |= bitTime
		case "blobs":
			m.Blobs, err = decodeLinks(&r)
		case "since":
			m.Since, err = t.optionalText(&r)
		case "blocks":
			m.Blocks, err = r.Bytes()
			seen |= bitBlocks
		case "commit":
			m.Commit, err = r.Link()
			seen |= bitCommit
		case "rebase":
			m.Rebase, err = r.Bool()
		case "tooBig":
			m.TooBig, err = r.Bool()
		case "prevData":
			m.PrevData, err = link(&r)
		default:
			err = r.Skip()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	// The deprecated fields and since are required by the schema, but nothing depends on them: some hosts leave them out.
	const required = bitOps | bitRev | bitSeq | bitDID | bitTime | bitBlocks | bitCommit
	if seen&required != required {
		return errors.New("a required field is missing (wanted are seq, repo, commit, rev, blocks, ops, time)")
	}
	return nil
}

func decodeOps(r *cbor.Reader, t texts) ([]Op, error) {
	n, err := r.Array()
	if err != nil {
		return nil, err
	}
	if n > maxOps {
		return nil, fmt.Errorf("%d ops, more than %d", n, maxOps)
	}
	if n*minOp > len(r.Rest()) {
		return nil, fmt.Errorf("%d ops in %d bytes", n, len(r.Rest()))
	}
	if n == 0 {
		return nil, nil
	}
	ops := make([]Op, n)
	for i := range ops {
		if err := decodeOp(&ops[i], r, t); err != nil {
			return nil, fmt.Errorf("%d: %w", i, err)
		}
	}
	return ops, nil
}

func decodeOp(o *Op, r *cbor.Reader, t texts) error {
	n, err := r.Map()
	if err != nil {
		return err
	}
	var key []byte
	var seen uint
	for range n {
		if key, err = r.MapKey(key); err != nil {
			return err
		}
		switch string(key) {
		case "cid":
			o.CID, err = link(r)
		case "path":
			o.Path, err = t.text(r)
			seen |= bitPath
		case "prev":
			o.Prev, err = link(r)
		case "action":
			var b []byte
			b, err = r.TextBytes()
			switch string(b) { // no allocation for the known ones
			case ActionCreate:
				o.Action = ActionCreate
			case ActionUpdate:
				o.Action = ActionUpdate
			case ActionDelete:
				o.Action = ActionDelete
			default:
				o.Action = string(b)
			}
			seen |= bitAction
		default:
			err = r.Skip()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	if seen != bitPath|bitAction {
		return errors.New("a required field is missing (wanted are action, path)")
	}
	return nil
}

func decodeLinks(r *cbor.Reader) ([]cid.CID, error) {
	if r.IsNull() {
		return nil, r.Null()
	}
	n, err := r.Array()
	if err != nil || n == 0 {
		return nil, err
	}
	links := make([]cid.CID, 0, min(n, 64))
	for range n {
		c, err := r.Link()
		if err != nil {
			return nil, err
		}
		links = append(links, c)
	}
	return links, nil
}

func (m *Sync) decode(f Frame) error {
	r := cbor.NewReader(f.Payload)
	t := textsOf(f.Payload[:f.textEnd])
	return fields(&r, bitSeq|bitDID|bitBlocks|bitRev|bitTime, "seq, did, blocks, rev, time", func(key string) (bit uint, err error) {
		switch key {
		case "did":
			m.DID, err = t.text(&r)
			return bitDID, err
		case "rev":
			m.Rev, err = t.text(&r)
			return bitRev, err
		case "seq":
			m.Seq, err = r.Int()
			return bitSeq, err
		case "time":
			m.Time, err = t.text(&r)
			return bitTime, err
		case "blocks":
			m.Blocks, err = r.Bytes()
			return bitBlocks, err
		}
		return 0, r.Skip()
	})
}

func (m *Identity) decode(f Frame) error {
	r := cbor.NewReader(f.Payload)
	t := textsOf(f.Payload)
	return fields(&r, bitSeq|bitDID|bitTime, "seq, did, time", func(key string) (bit uint, err error) {
		switch key {
		case "did":
			m.DID, err = t.text(&r)
			return bitDID, err
		case "seq":
			m.Seq, err = r.Int()
			return bitSeq, err
		case "time":
			m.Time, err = t.text(&r)
			return bitTime, err
		case "handle":
			m.Handle, err = t.optionalText(&r)
			return 0, err
		}
		return 0, r.Skip()
	})
}

func (m *Account) decode(f Frame) error {
	r := cbor.NewReader(f.Payload)
	t := textsOf(f.Payload)
	return fields(&r, bitSeq|bitDID|bitTime|bitActive, "seq, did, time, active", func(key string) (bit uint, err error) {
		switch key {
		case "did":
			m.DID, err = t.text(&r)
			return bitDID, err
		case "seq":
			m.Seq, err = r.Int()
			return bitSeq, err
		case "time":
			m.Time, err = t.text(&r)
			return bitTime, err
		case "active":
			m.Active, err = r.Bool()
			return bitActive, err
		case "status":
			m.Status, err = t.optionalText(&r)
			return 0, err
		}
		return 0, r.Skip()
	})
}

func (m *Info) decode(f Frame) error {
	r := cbor.NewReader(f.Payload)
	t := texts{}
	return fields(&r, bitName, "name", func(key string) (bit uint, err error) {
		switch key {
		case "name":
			m.Name, err = t.text(&r)
			return bitName, err
		case "message":
			m.Text, err = t.optionalText(&r)
			return 0, err
		}
		return 0, r.Skip()
	})
}

func (e *Error) decode(payload []byte) error {
	r := cbor.NewReader(payload)
	t := texts{}
	err := fields(&r, bitName, "error", func(key string) (bit uint, err error) {
		switch key {
		case "error":
			e.Name, err = t.text(&r)
			return bitName, err
		case "message":
			e.Message, err = t.optionalText(&r)
			return 0, err
		}
		return 0, r.Skip()
	})
	if err != nil {
		return frameErr("error frame: %w", err)
	}
	return nil
}
