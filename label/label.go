// Package label is the signed label: what a labeler says of an account or a record.
//
// Specification: https://atproto.com/specs/label.
//
//	l := label.Label{Src: "did:plc:…", URI: "at://did:plc:…/app.bsky.feed.post/…", Val: "spam", Cts: "2026-11-21T08:00:00Z"}
//	err := l.Sign(key)                      // sets the version, checks, signs
//	l, err := label.Decode(bytes)           // DAG-CBOR, as in frames of com.atproto.label.subscribeLabels
//	err = l.Verify(key)                     // with the key of label.Fragment in the labeler's DID document
//	set.Add(l); set.Active(now)             // what holds, after negations, expiry and newer labels
//
// Fields are kept as they came, because the signature is over their very text; [Label.Check] holds them against the
// specification, and so do Sign and Verify. Labels have a JSON form, that of com.atproto.label.defs#label.
//
// The package doesn't know what values mean, doesn't look for keys, and doesn't hold a label's source against who sent it:
// package stream does the last two. Limits: see the constants; a label has at most [MaxSize] bytes.
package label

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/syntax"
)

// Version is the one version of labels.
const Version = 1

// Fragment is the entry of a labeler's DID document with the key that labels are signed with. No other key will do.
const Fragment = "#atproto_label"

// Limits in bytes.
const (
	MaxValue = 128
	MaxSize  = 16 << 10 // of a whole label in DAG-CBOR; ours: the longest URI has 8 KiB
)

// Label is one label. Empty strings stand for absent fields.
type Label struct {
	Ver int64  // Version; 0 if absent
	Src string // DID of the labeler
	URI string // the subject: at:// URI of a record, DID of an account, or another URI
	CID string // of the version of the subject that is meant; optional
	Val string // the value, such as "spam"
	Neg bool   // takes back the label with the same Src, URI and Val
	// NegFalse says that Neg was written out though it is false. That is no good style, but the signature is over it.
	NegFalse bool
	Cts      string // datetime of creation, as the labeler says
	Exp      string // datetime from which on it no longer holds; optional
	Sig      []byte // nil if it isn't signed
}

// Reason names the rule that a label breaks. The names are stable.
type Reason string

// Reasons of an [Error].
const (
	ReasonEncoding  Reason = "encoding" // not a label in strict DAG-CBOR
	ReasonVersion   Reason = "version"
	ReasonSource    Reason = "source"
	ReasonSubject   Reason = "subject"
	ReasonCID       Reason = "cid"
	ReasonValue     Reason = "value"
	ReasonCreated   Reason = "created"
	ReasonExpires   Reason = "expires"
	ReasonUnsigned  Reason = "unsigned"
	ReasonNoKey     Reason = "no-label-key" // the labeler has none
	ReasonSignature Reason = "signature"    // not made with the labeler's key
)

// Error says which rule a label breaks.
type Error struct {
	Reason Reason
	Detail string
	Err    error // may be nil
}

// Error names the rule and what is wrong.
func (e *Error) Error() string {
	s := "label: " + string(e.Reason)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Check holds the fields against the specification, all but the signature.
func (l *Label) Check() error {
	switch {
	case l.Ver != Version:
		return &Error{Reason: ReasonVersion, Detail: fmt.Sprintf("%d, want %d", l.Ver, Version)}
	case !syntax.ValidDID(l.Src):
		return &Error{Reason: ReasonSource, Detail: fmt.Sprintf("%.100q is not a DID", l.Src)}
	case !validSubject(l.URI):
		return &Error{Reason: ReasonSubject, Detail: fmt.Sprintf("%.100q is not a URI", l.URI)}
	case l.CID != "" && !syntax.ValidCID(l.CID):
		return &Error{Reason: ReasonCID, Detail: fmt.Sprintf("%.100q is not a CID", l.CID)}
	case l.Val == "" || len(l.Val) > MaxValue:
		return &Error{Reason: ReasonValue, Detail: fmt.Sprintf("%d bytes, want 1 to %d", len(l.Val), MaxValue)}
	case !syntax.ValidDatetime(l.Cts):
		return &Error{Reason: ReasonCreated, Detail: fmt.Sprintf("%.100q is not a datetime", l.Cts)}
	case l.Exp != "" && !syntax.ValidDatetime(l.Exp):
		return &Error{Reason: ReasonExpires, Detail: fmt.Sprintf("%.100q is not a datetime", l.Exp)}
	}
	return nil
}

func validSubject(s string) bool {
	switch {
	case strings.HasPrefix(s, "at://"):
		return syntax.ValidATURI(s)
	case strings.HasPrefix(s, "did:"):
		return syntax.ValidDID(s)
	}
	return syntax.ValidURI(s)
}

// Recommended reports whether a value has the form that the specification recommends: ASCII letters in lower case, with
// single or repeated dashes within, and perhaps a "!" in front, as the values with a meaning in the protocol have it.
func Recommended(val string) bool {
	val = strings.TrimPrefix(val, "!")
	if val == "" || len(val) > MaxValue || val[0] == '-' || val[len(val)-1] == '-' {
		return false
	}
	for i := range len(val) {
		if c := val[i]; c != '-' && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// AppendSigned appends what the signature is over: the label in DAG-CBOR, without the signature.
func (l *Label) AppendSigned(dst []byte) []byte { return l.append(dst, false) }

// Append appends the label in DAG-CBOR, with its signature if it has one.
func (l *Label) Append(dst []byte) []byte { return l.append(dst, true) }

func (l *Label) append(b []byte, sig bool) []byte {
	neg := l.Neg || l.NegFalse
	sig = sig && l.Sig != nil
	n := 4
	for _, there := range [...]bool{l.CID != "", l.Exp != "", neg, sig, l.Ver != 0} {
		if there {
			n++
		}
	}
	b = cbor.AppendMap(b, n)
	text := func(key, v string) { b = cbor.AppendText(cbor.AppendText(b, key), v) }
	if l.CID != "" {
		text("cid", l.CID)
	}
	text("cts", l.Cts)
	if l.Exp != "" {
		text("exp", l.Exp)
	}
	if neg {
		b = cbor.AppendBool(cbor.AppendText(b, "neg"), l.Neg)
	}
	if sig {
		b = cbor.AppendBytes(cbor.AppendText(b, "sig"), l.Sig)
	}
	text("src", l.Src)
	text("uri", l.URI)
	text("val", l.Val)
	if l.Ver != 0 {
		b = cbor.AppendInt(cbor.AppendText(b, "ver"), l.Ver)
	}
	return b
}

// Decode reads a label in DAG-CBOR. Fields that it doesn't know are left out: they are not signed. Whether the known ones are
// what they should be is for [Label.Check] to say. An error is an [*Error] with ReasonEncoding.
func Decode(b []byte) (Label, error) {
	var l Label
	if err := l.decode(b); err != nil {
		return Label{}, &Error{Reason: ReasonEncoding, Err: err}
	}
	return l, nil
}

func (l *Label) decode(b []byte) error {
	if len(b) > MaxSize {
		return fmt.Errorf("%d bytes, more than %d", len(b), MaxSize)
	}
	r := cbor.NewReader(b)
	n, err := r.Map()
	if err != nil {
		return err
	}
	var key []byte
	required := 4
	for range n {
		if key, err = r.MapKey(key); err != nil {
			return err
		}
		switch string(key) {
		case "ver":
			l.Ver, err = r.Int()
		case "src":
			l.Src, err = r.Text()
			required--
		case "uri":
			l.URI, err = r.Text()
			required--
		case "cid":
			l.CID, err = r.Text()
		case "val":
			l.Val, err = r.Text()
			required--
		case "neg":
			l.Neg, err = r.Bool()
			l.NegFalse = !l.Neg
		case "cts":
			l.Cts, err = r.Text()
			required--
		case "exp":
			l.Exp, err = r.Text()
		case "sig":
			var sig []byte
			sig, err = r.Bytes()
			l.Sig = append([]byte{}, sig...)
		default:
			_, err = r.RawWithin(1)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	if required > 0 {
		return errors.New("a required field is missing (wanted are src, uri, val, cts)")
	}
	return r.End()
}

// Signer signs: a [*keys.PrivateKey] is one.
type Signer interface {
	Sign(message []byte) ([]byte, error)
}

var _ Signer = (*keys.PrivateKey)(nil)

// Sign sets the version, checks the fields and signs the label with the labeler's key.
func (l *Label) Sign(key Signer) error {
	l.Ver, l.NegFalse = Version, false
	if err := l.Check(); err != nil {
		return err
	}
	sig, err := key.Sign(l.AppendSigned(nil))
	if err != nil {
		return fmt.Errorf("signing a label: %w", err)
	}
	l.Sig = sig
	return nil
}

// Verify checks the fields and the signature. Key is that of [Fragment] in the document of Src; nil if there is none. An error
// is an [*Error]; ReasonSignature and ReasonNoKey are worth one more look at the document, which may have changed.
func (l *Label) Verify(key *keys.PublicKey) error {
	if err := l.Check(); err != nil {
		return err
	}
	switch {
	case l.Sig == nil:
		return &Error{Reason: ReasonUnsigned}
	case key == nil:
		return &Error{Reason: ReasonNoKey}
	}
	if err := key.Verify(l.AppendSigned(nil), l.Sig); err != nil {
		return &Error{Reason: ReasonSignature, Err: err}
	}
	return nil
}

// wire is the JSON form.
type wire struct {
	Ver int64  `json:"ver,omitempty"`
	Src string `json:"src"`
	URI string `json:"uri"`
	CID string `json:"cid,omitempty"`
	Val string `json:"val"`
	Neg *bool  `json:"neg,omitempty"`
	Cts string `json:"cts"`
	Exp string `json:"exp,omitempty"`
	Sig *bytes `json:"sig,omitempty"`
}

type bytes struct {
	Bytes string `json:"$bytes"`
}

// MarshalJSON writes the label as com.atproto.label.defs#label.
func (l Label) MarshalJSON() ([]byte, error) {
	w := wire{Ver: l.Ver, Src: l.Src, URI: l.URI, CID: l.CID, Val: l.Val, Cts: l.Cts, Exp: l.Exp}
	if l.Neg || l.NegFalse {
		w.Neg = &l.Neg
	}
	if l.Sig != nil {
		w.Sig = &bytes{base64.RawStdEncoding.EncodeToString(l.Sig)}
	}
	return json.Marshal(w)
}

// UnmarshalJSON reads a com.atproto.label.defs#label, such as queryLabels returns.
func (l *Label) UnmarshalJSON(b []byte) error {
	var w wire
	if err := json.Unmarshal(b, &w); err != nil {
		return &Error{Reason: ReasonEncoding, Err: err}
	}
	*l = Label{Ver: w.Ver, Src: w.Src, URI: w.URI, CID: w.CID, Val: w.Val, Cts: w.Cts, Exp: w.Exp}
	if w.Neg != nil {
		l.Neg, l.NegFalse = *w.Neg, !*w.Neg
	}
	if w.Sig != nil {
		sig, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(w.Sig.Bytes, "="))
		if err != nil {
			return &Error{Reason: ReasonEncoding, Detail: "sig", Err: err}
		}
		l.Sig = sig
	}
	return nil
}

// created returns the time that counts when two labels disagree. What can't be read is the oldest.
func (l *Label) created() time.Time {
	t, _ := syntax.LenientTime(l.Cts) // the zero time otherwise
	return t
}

// Active reports whether the label, if there is no newer one of the same [Key], holds at a time: it is no negation and hasn't
// expired. An expiry that can't be read has passed.
func (l *Label) Active(now time.Time) bool {
	if l.Neg {
		return false
	}
	if l.Exp == "" {
		return true
	}
	t, ok := syntax.LenientTime(l.Exp)
	return ok && now.Before(t)
}
