// Package plc builds, signs, encodes and verifies the operations of did:plc identities.
//
// Specification: https://web.plc.directory/spec/v0.1/did-plc, used by https://atproto.com/specs/did.
//
// An identity is a log of signed operations. The first one, the genesis, gives the DID by its hash; every later one names
// its predecessor, and is signed by one of that predecessor's rotation keys. [Next] is the whole rule book: it decides
// whether an operation may follow a log, and which earlier ones it makes void. The package has no clock, store or network:
// the directory server and the clients bring those.
//
//	op := plc.NewOperation(plc.AtprotoData(signingKey.DIDKey(), "alice.test", "https://pds.test", rotation.Public().DIDKey()), cid.CID{})
//	err := op.Sign(rotation)
//	did := op.DID()
//	void, err := plc.Next(did, nil, op, now)
//
// Limits apply to new operations only ([Operation.Check]); old logs may hold larger ones. Where the written specification and the
// public directory differ (operation size, number and repetition of rotation keys), Check follows the directory. The API is stable.
package plc

import (
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/syntax"
)

// Limits on new operations; lengths of strings are in UTF-16 units, as the directory counts.
const (
	MaxOperation           = 4000 // bytes of the signed CBOR form
	MaxRotationKeys        = 10
	MaxAlsoKnownAs         = 10
	MaxAlsoKnownAsLength   = 258 // a handle and "at://"
	MaxServices            = 10
	MaxServiceType         = 256
	MaxServiceEndpoint     = 512
	MaxVerificationMethods = 10
	MaxID                  = 32 // of a service or a verification method
	MaxVerificationKey     = 256
)

// RecoveryWindow is how long a stronger key may void an operation; the end of the window is still inside.
const RecoveryWindow = 72 * time.Hour

// Rule names what an operation breaks.
type Rule string

// The rules.
const (
	RuleFormat    Rule = "format"    // not an operation
	RuleLimit     Rule = "limit"     // too large, too many, too long, repeated
	RuleOrder     Rule = "order"     // prev is missing, unknown, void or not allowed
	RuleTombstone Rule = "tombstone" // follows a tombstone
	RuleSignature Rule = "signature" // not signed by a key that may
	RuleLate      Rule = "late"      // recovery after the window
	RuleGenesis   Rule = "genesis"   // the DID is not the hash of the genesis
	RuleAudit     Rule = "audit"     // what a directory claims about a log is not so
)

// Error tells which rule an operation or a log breaks.
type Error struct {
	Rule   Rule
	Detail string
}

// Error gives the detail.
func (e *Error) Error() string { return "invalid PLC operation: " + e.Detail }

func fail(r Rule, format string, args ...any) error {
	return &Error{Rule: r, Detail: fmt.Sprintf(format, args...)}
}

// Type is the type field of an operation.
type Type string

// The types of operations.
const (
	TypeOperation Type = "plc_operation"
	TypeTombstone Type = "plc_tombstone" // ends the identity
	TypeCreate    Type = "create"        // the old form of a genesis
)

// Data is the state of an identity. Maps are keyed by name without "#".
type Data struct {
	RotationKeys        []string          // did:key, strongest first
	VerificationMethods map[string]string // did:key of any type
	AlsoKnownAs         []string          // URIs, the first at:// one is the handle
	Services            map[string]Service
}

// Service is an endpoint that an identity names.
type Service struct {
	Type     string
	Endpoint string
}

// LegacyCreate holds the fields of an operation of [TypeCreate].
type LegacyCreate struct {
	SigningKey  string
	RecoveryKey string
	Handle      string
	Service     string
}

// Operation is one entry of a log. Data is used by TypeOperation only, Legacy by TypeCreate only.
type Operation struct {
	Type   Type
	Data   Data
	Legacy *LegacyCreate
	Prev   cid.CID // undefined: null, a genesis
	Sig    string  // base64url without padding; "" if not signed yet
}

// Names that the AT Protocol uses in an identity.
const (
	AtprotoKey     = "atproto"
	AtprotoPDS     = "atproto_pds"
	AtprotoPDSType = "AtprotoPersonalDataServer"
)

// AtprotoData returns the state of an account: its signing key as did:key, its handle, the URL of its PDS, and the rotation
// keys, strongest first.
func AtprotoData(signingKey string, handle syntax.Handle, pds string, rotationKeys ...string) Data {
	d := Data{RotationKeys: slices.Clone(rotationKeys)}
	d.SetSigningKey(signingKey)
	d.SetHandle(handle)
	d.SetPDS(pds)
	return d
}

// Clone returns a copy that shares nothing with d.
func (d Data) Clone() Data {
	d.RotationKeys = slices.Clone(d.RotationKeys)
	d.VerificationMethods = maps.Clone(d.VerificationMethods)
	d.AlsoKnownAs = slices.Clone(d.AlsoKnownAs)
	d.Services = maps.Clone(d.Services)
	return d
}

// SetSigningKey replaces the key that signs the account's repository, a did:key.
func (d *Data) SetSigningKey(didKey string) {
	if d.VerificationMethods == nil {
		d.VerificationMethods = map[string]string{}
	}
	d.VerificationMethods[AtprotoKey] = didKey
}

// SigningKey returns the key that signs the account's repository as did:key, "" if there is none.
func (d Data) SigningKey() string { return d.VerificationMethods[AtprotoKey] }

// SetHandle replaces the first at:// name, or puts one in front.
func (d *Data) SetHandle(h syntax.Handle) {
	name := "at://" + string(h)
	if i := d.handleIndex(); i >= 0 {
		d.AlsoKnownAs[i] = name
		return
	}
	d.AlsoKnownAs = slices.Insert(d.AlsoKnownAs, 0, name)
}

func (d Data) handleIndex() int {
	return slices.IndexFunc(d.AlsoKnownAs, func(s string) bool { return strings.HasPrefix(s, "at://") })
}

// Handle returns the first at:// name, which nobody has confirmed, "" if there is none.
func (d Data) Handle() syntax.Handle {
	if i := d.handleIndex(); i >= 0 {
		return syntax.Handle(strings.TrimPrefix(d.AlsoKnownAs[i], "at://"))
	}
	return ""
}

// SetPDS replaces the account's PDS.
func (d *Data) SetPDS(url string) {
	if d.Services == nil {
		d.Services = map[string]Service{}
	}
	d.Services[AtprotoPDS] = Service{Type: AtprotoPDSType, Endpoint: url}
}

// PDS returns the URL of the account's PDS, "" if there is none.
func (d Data) PDS() string { return d.Services[AtprotoPDS].Endpoint }

// NewOperation returns an unsigned operation that sets the state to d. An undefined prev makes a genesis.
func NewOperation(d Data, prev cid.CID) *Operation {
	return &Operation{Type: TypeOperation, Data: d.Clone(), Prev: prev}
}

// NewTombstone returns an unsigned operation that ends the identity.
func NewTombstone(prev cid.CID) *Operation { return &Operation{Type: TypeTombstone, Prev: prev} }

// State returns the state that o sets, in the present form also for an old genesis; not ok for a tombstone, which sets none.
// The result shares its maps and slices with o: [Data.Clone] it before changing it.
func (o *Operation) State() (d Data, ok bool) {
	switch o.Type {
	case TypeOperation:
		return o.Data, true
	case TypeCreate:
		l := o.Legacy
		handle, service := l.Handle, l.Service
		if !strings.HasPrefix(handle, "at://") {
			handle = "at://" + strings.Replace(strings.Replace(handle, "http://", "", 1), "https://", "", 1)
		}
		if !strings.HasPrefix(service, "http://") && !strings.HasPrefix(service, "https://") {
			service = "https://" + service
		}
		return Data{
			RotationKeys:        []string{l.RecoveryKey, l.SigningKey},
			VerificationMethods: map[string]string{AtprotoKey: l.SigningKey},
			AlsoKnownAs:         []string{handle},
			Services:            map[string]Service{AtprotoPDS: {Type: AtprotoPDSType, Endpoint: service}},
		}, true
	}
	return Data{}, false
}

// CID returns the identifier of the signed operation.
func (o *Operation) CID() cid.CID { return cid.Sum(cid.DagCBOR, o.CBOR()) }

var didEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// DID returns the identifier that o, signed, is the genesis of.
func (o *Operation) DID() syntax.DID {
	digest := o.CID().Digest()
	return syntax.DID("did:plc:" + didEncoding.EncodeToString(digest[:])[:24])
}

// Sign signs o in place.
func (o *Operation) Sign(key *keys.PrivateKey) error {
	sig, err := key.Sign(o.Unsigned())
	if err != nil {
		return fmt.Errorf("signing a PLC operation: %w", err)
	}
	o.Sig = base64.RawURLEncoding.EncodeToString(sig)
	return nil
}

// sigLength is 64 bytes in base64url without padding.
const sigLength = 86

// Signer returns the index of the first of the keys (did:key) that signed o. Keys of an unknown type sign nothing. The encoding of the
// signature is checked to the last bit, because any other spelling would give the operation another CID.
func (o *Operation) Signer(didKeys []string) (int, error) {
	if len(o.Sig) != sigLength || strings.ContainsAny(o.Sig, "\r\n=") { // the decoder would skip line ends
		return 0, fail(RuleSignature, "signature is not 64 bytes in base64url without padding")
	}
	sig, err := base64.RawURLEncoding.Strict().DecodeString(o.Sig)
	if err != nil {
		return 0, fail(RuleSignature, "signature is not canonical base64url")
	}
	msg := o.Unsigned()
	for i, k := range didKeys {
		if slices.Contains(didKeys[:i], k) {
			continue
		}
		pub, err := keys.ParseDIDKey(k)
		if err != nil {
			continue
		}
		if pub.Verify(msg, sig) == nil {
			return i, nil
		}
	}
	return 0, fail(RuleSignature, "not signed by a key that may")
}

// Check applies the limits on new operations. It looks at o alone: see [Next] for its place in a log.
func (o *Operation) Check() error {
	if n := len(o.CBOR()); n > MaxOperation {
		return fail(RuleLimit, "operation of %d bytes, at most %d are allowed", n, MaxOperation)
	}
	switch o.Type {
	case TypeTombstone:
		return nil
	case TypeCreate:
		for _, k := range []string{o.Legacy.SigningKey, o.Legacy.RecoveryKey} {
			if _, err := keys.ParseDIDKey(k); err != nil {
				return fail(RuleLimit, "key %q is not a supported did:key", k)
			}
		}
		return nil
	}
	d := &o.Data
	switch {
	case len(d.AlsoKnownAs) > MaxAlsoKnownAs:
		return fail(RuleLimit, "too many alsoKnownAs entries, at most %d are allowed", MaxAlsoKnownAs)
	case len(d.RotationKeys) > MaxRotationKeys:
		return fail(RuleLimit, "too many rotation keys, at most %d are allowed", MaxRotationKeys)
	case len(d.Services) > MaxServices:
		return fail(RuleLimit, "too many services, at most %d are allowed", MaxServices)
	case len(d.VerificationMethods) > MaxVerificationMethods:
		return fail(RuleLimit, "too many verification methods, at most %d are allowed", MaxVerificationMethods)
	}
	for i, a := range d.AlsoKnownAs {
		if units(a) > MaxAlsoKnownAsLength {
			return fail(RuleLimit, "alsoKnownAs entry longer than %d", MaxAlsoKnownAsLength)
		}
		if slices.Contains(d.AlsoKnownAs[:i], a) {
			return fail(RuleLimit, "alsoKnownAs entry %q is repeated", a)
		}
	}
	for _, k := range d.RotationKeys {
		if _, err := keys.ParseDIDKey(k); err != nil {
			return fail(RuleLimit, "rotation key %q is not a supported did:key", k)
		}
	}
	for id, s := range d.Services {
		switch {
		case id == "" || units(id) > MaxID:
			return fail(RuleLimit, "service id must have 1 to %d characters", MaxID)
		case units(s.Type) > MaxServiceType:
			return fail(RuleLimit, "service type longer than %d", MaxServiceType)
		case units(s.Endpoint) > MaxServiceEndpoint:
			return fail(RuleLimit, "service endpoint longer than %d", MaxServiceEndpoint)
		}
	}
	for id, k := range d.VerificationMethods {
		switch {
		case id == "" || units(id) > MaxID:
			return fail(RuleLimit, "verification method id must have 1 to %d characters", MaxID)
		case !keys.IsDIDKey(k):
			return fail(RuleLimit, "verification method is not a did:key of at most %d characters", MaxVerificationKey)
		}
	}
	return nil
}

// units counts UTF-16 code units.
func units(s string) int {
	n := utf8.RuneCountInString(s)
	for _, r := range s {
		if r > 0xffff {
			n++
		}
	}
	return n
}
