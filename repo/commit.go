package repo

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/syntax"
)

// Version is the version of the repository format that this package reads and writes. Version 2 can be read too, by
// [DecodeLegacyCommit].
const Version = 3

// LegacyVersion is the version before, whose commits may lack a revision.
const LegacyVersion = 2

// Commit is the signed top of a repository.
type Commit struct {
	DID     syntax.DID
	Version int64      // set to Version by Sign
	Data    cid.CID    // the tree
	Rev     syntax.TID // logical clock
	Prev    *cid.CID   // the commit before; null in all commits made today
	Sig     []byte
}

// Signer signs the SHA-256 of a message; [*keys.PrivateKey] is one.
type Signer interface {
	Sign(msg []byte) ([]byte, error)
}

var _ Signer = (*keys.PrivateKey)(nil)

// AppendUnsigned appends the encoding without the signature, which is what gets signed.
func (c *Commit) AppendUnsigned(b []byte) []byte { return c.append(b, false) }

// Append appends the signed encoding, the commit's block.
func (c *Commit) Append(b []byte) []byte { return c.append(b, true) }

// Encode returns the signed encoding, the commit's block.
func (c *Commit) Encode() []byte { return c.append(make([]byte, 0, 224+len(c.DID)), true) }

func (c *Commit) append(b []byte, signed bool) []byte {
	legacy := c.Version == LegacyVersion && c.Rev == ""
	n := 5
	if legacy {
		n--
	}
	if signed {
		n++
	}
	b = cbor.AppendMap(b, n)
	b = cbor.AppendText(b, "did")
	b = cbor.AppendText(b, string(c.DID))
	if !legacy {
		b = cbor.AppendText(b, "rev")
		b = cbor.AppendText(b, string(c.Rev))
	}
	if signed {
		b = cbor.AppendText(b, "sig")
		b = cbor.AppendBytes(b, c.Sig)
	}
	b = cbor.AppendText(b, "data")
	b = cbor.AppendLink(b, c.Data)
	b = cbor.AppendText(b, "prev")
	if c.Prev != nil {
		b = cbor.AppendLink(b, *c.Prev)
	} else {
		b = cbor.AppendNull(b)
	}
	b = cbor.AppendText(b, "version")
	return cbor.AppendInt(b, c.Version)
}

// CID returns the CID of the signed commit.
func (c *Commit) CID() cid.CID { return cid.Sum(cid.DagCBOR, c.Encode()) }

// Sign sets the version, if it isn't set, and the signature.
func (c *Commit) Sign(key Signer) error {
	if c.Version == 0 {
		c.Version = Version
	}
	if !c.Data.Defined() {
		return errors.New("signing a commit without data")
	}
	sig, err := key.Sign(c.AppendUnsigned(make([]byte, 0, 256)))
	if err != nil {
		return fmt.Errorf("signing the commit: %w", err)
	}
	c.Sig = sig
	return nil
}

// Verify checks the signature. A wrong one is a [*VerifyError] with [ReasonSignature], [ReasonHighS] or
// [ReasonSignatureSize]. Only the first may be another key's.
func (c *Commit) Verify(key *keys.PublicKey) error {
	var buf [256]byte
	if err := key.Verify(c.AppendUnsigned(buf[:0]), c.Sig); err != nil {
		return signatureError(err, key)
	}
	return nil
}

// DecodeCommit reads a commit of version 3, strictly: exactly the fields of the specification, canonically encoded, with
// valid syntax. Prev has to be there, as a link or null. An error is a [*VerifyError] with [ReasonCommitShape],
// [ReasonCommitVersion], [ReasonSignatureSize] or one of the syntax reasons. The signature is not verified.
func DecodeCommit(b []byte) (*Commit, error) {
	c := new(Commit)
	if err := c.decode(b, "", ""); err != nil {
		return nil, err
	}
	if c.Version != Version {
		return nil, c.wrongVersion()
	}
	c.Sig = bytes.Clone(c.Sig)
	return c, nil
}

func (c *Commit) wrongVersion() error {
	return failf(ReasonCommitVersion, "version %d, want %d", c.Version, Version)
}

// DecodeLegacyCommit reads a commit of version 3 or 2. Version 2, which differs in that rev may be absent, is no longer
// found in the network, but in old files.
func DecodeLegacyCommit(b []byte) (*Commit, error) {
	c := new(Commit)
	if err := c.decode(b, "", ""); err != nil {
		return nil, err
	}
	if c.Version != Version && c.Version != LegacyVersion {
		return nil, failf(ReasonCommitVersion, "version %d, want %d or %d", c.Version, Version, LegacyVersion)
	}
	c.Sig = bytes.Clone(c.Sig)
	return c, nil
}

// decodeUsual reads a commit as nearly all are: of version 3, without prev, by the account and with the revision that are
// expected. It reports whether it is one.
func (c *Commit) decodeUsual(b []byte, did syntax.DID, rev syntax.TID) bool {
	r := cbor.NewReader(b)
	text := func(key, want string) bool {
		if want == "" || !r.Expect(key) {
			return false
		}
		got, err := r.TextBytes()
		return err == nil && string(got) == want
	}
	if !text("\xa6\x63did", string(did)) || !text("\x63rev", string(rev)) || !r.Expect("\x63sig") {
		return false
	}
	var err error
	if c.Sig, err = r.Bytes(); err != nil || len(c.Sig) != keys.SignatureSize || !r.Expect("\x64data") {
		return false
	}
	if c.Data, err = r.Link(); err != nil || c.Data.Codec() != cid.DagCBOR || !r.Expect("\x64prev") || !r.Expect("\xf6") || !r.Expect("\x67version") || !r.Expect("\x03") {
		return false
	}
	c.DID, c.Rev, c.Version = did, rev, Version
	return r.End() == nil
}

// decode reads any version. The signature is a view of b. DID and rev, if they are what the caller expects, spare the
// copies; they are checked as any other.
func (c *Commit) decode(b []byte, expectDID syntax.DID, expectRev syntax.TID) error {
	*c = Commit{}
	if c.decodeUsual(b, expectDID, expectRev) {
		return c.checkSyntax(true)
	}
	*c = Commit{}
	shape := func(err error) error {
		return &VerifyError{Reason: ReasonCommitShape, Detail: "decoding the commit", Err: err}
	}
	if err := cbor.Valid(b); err != nil {
		return shape(err)
	}
	r := cbor.NewReader(b)
	n, err := r.Map()
	if err != nil {
		return shape(err)
	}
	var seen [6]bool
	var prev []byte
	for range n {
		k, err := r.MapKey(prev)
		if err != nil {
			return shape(err)
		}
		prev = k
		i := -1
		switch string(k) {
		case "did":
			i = 0
			var did []byte
			if did, err = r.TextBytes(); string(did) == string(expectDID) {
				c.DID = expectDID
			} else {
				c.DID = syntax.DID(did)
			}
		case "rev":
			i = 1
			var rev []byte
			if rev, err = r.TextBytes(); string(rev) == string(expectRev) {
				c.Rev = expectRev
			} else {
				c.Rev = syntax.TID(rev)
			}
		case "sig":
			i = 2
			c.Sig, err = r.Bytes()
		case "data":
			i = 3
			c.Data, err = r.Link()
		case "prev":
			i = 4
			if r.IsNull() {
				err = r.Null()
				break
			}
			var p cid.CID
			p, err = r.Link()
			c.Prev = &p
		case "version":
			i = 5
			c.Version, err = r.Int()
		default:
			return failf(ReasonCommitShape, "unknown field %q", k)
		}
		if err != nil {
			return shape(fmt.Errorf("field %s: %w", k, err))
		}
		seen[i] = true
	}
	for i, name := range [...]string{"did", "rev", "sig", "data", "prev", "version"} {
		if !seen[i] && !(name == "rev" && c.Version == LegacyVersion) {
			return failf(ReasonCommitShape, "field %s is missing", name)
		}
	}
	if c.Data.Codec() != cid.DagCBOR {
		return failf(ReasonCommitShape, "data has codec 0x%02x", byte(c.Data.Codec()))
	}
	if c.Prev != nil && c.Prev.Codec() != cid.DagCBOR {
		return failf(ReasonCommitShape, "prev has codec 0x%02x", byte(c.Prev.Codec()))
	}
	if len(c.Sig) != keys.SignatureSize {
		return failf(ReasonSignatureSize, "signature of %d bytes, want %d", len(c.Sig), keys.SignatureSize)
	}
	return c.checkSyntax(seen[1])
}

// checkSyntax checks the account, and the revision if there is one.
func (c *Commit) checkSyntax(rev bool) error {
	if _, err := syntax.ParseDID(string(c.DID)); err != nil {
		return &VerifyError{Reason: ReasonDIDSyntax, Detail: "in the commit", Err: err}
	}
	if rev {
		if _, err := syntax.ParseTID(string(c.Rev)); err != nil {
			return &VerifyError{Reason: ReasonRevSyntax, Detail: "in the commit", Err: err}
		}
	}
	return nil
}
