package plc

import (
	"slices"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/syntax"
)

// Unsigned returns the CBOR form without the signature: the bytes that are signed.
func (o *Operation) Unsigned() []byte { return o.appendCBOR(nil, false) }

// CBOR returns the CBOR form with the signature: the bytes that are hashed.
func (o *Operation) CBOR() []byte { return o.appendCBOR(nil, true) }

func (o *Operation) appendCBOR(b []byte, signed bool) []byte {
	n := map[Type]int{TypeOperation: 6, TypeTombstone: 2, TypeCreate: 6}[o.Type]
	if signed {
		n++
	}
	b = cbor.AppendMap(b, n)
	if signed {
		b = pair(b, "sig", o.Sig)
	}
	b = cbor.AppendText(b, "prev")
	if o.Prev.Defined() {
		b = cbor.AppendText(b, o.Prev.String())
	} else {
		b = cbor.AppendNull(b)
	}
	b = pair(b, "type", string(o.Type))
	switch o.Type {
	case TypeCreate:
		b = pair(b, "handle", o.Legacy.Handle)
		b = pair(b, "service", o.Legacy.Service)
		b = pair(b, "signingKey", o.Legacy.SigningKey)
		b = pair(b, "recoveryKey", o.Legacy.RecoveryKey)
	case TypeOperation:
		d := &o.Data
		b = cbor.AppendMap(cbor.AppendText(b, "services"), len(d.Services))
		for _, id := range sortedKeys(d.Services) {
			s := d.Services[id]
			b = cbor.AppendMap(cbor.AppendText(b, id), 2)
			b = pair(b, "type", s.Type)
			b = pair(b, "endpoint", s.Endpoint)
		}
		b = list(b, "alsoKnownAs", d.AlsoKnownAs)
		b = list(b, "rotationKeys", d.RotationKeys)
		b = cbor.AppendMap(cbor.AppendText(b, "verificationMethods"), len(d.VerificationMethods))
		for _, id := range sortedKeys(d.VerificationMethods) {
			b = pair(b, id, d.VerificationMethods[id])
		}
	}
	return b
}

func pair(b []byte, key, value string) []byte {
	return cbor.AppendText(cbor.AppendText(b, key), value)
}

func list(b []byte, key string, values []string) []byte {
	b = cbor.AppendArray(cbor.AppendText(b, key), len(values))
	for _, v := range values {
		b = cbor.AppendText(b, v)
	}
	return b
}

// sortedKeys returns the keys of a map in the order of the CBOR form, which the JSON form follows too.
func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.SortFunc(out, cbor.CompareKeys)
	return out
}

// AppendJSON appends the JSON form, with the keys in the order of the CBOR form.
func (o *Operation) AppendJSON(b []byte) []byte {
	b = appendField(b, '{', "sig", o.Sig)
	if o.Prev.Defined() {
		b = appendField(b, ',', "prev", o.Prev.String())
	} else {
		b = append(b, `,"prev":null`...)
	}
	b = appendField(b, ',', "type", string(o.Type))
	switch o.Type {
	case TypeCreate:
		b = appendField(b, ',', "handle", o.Legacy.Handle)
		b = appendField(b, ',', "service", o.Legacy.Service)
		b = appendField(b, ',', "signingKey", o.Legacy.SigningKey)
		b = appendField(b, ',', "recoveryKey", o.Legacy.RecoveryKey)
	case TypeOperation:
		b = o.Data.appendFields(b)
	}
	return append(b, '}')
}

// MarshalJSON is [Operation.AppendJSON].
func (o *Operation) MarshalJSON() ([]byte, error) { return o.AppendJSON(nil), nil }

// UnmarshalJSON is [ParseJSON].
func (o *Operation) UnmarshalJSON(b []byte) error {
	p, err := ParseJSON(b)
	if err == nil {
		*o = *p
	}
	return err
}

func (d *Data) appendFields(b []byte) []byte {
	b = append(b, `,"services":{`...)
	for i, id := range sortedKeys(d.Services) {
		if i > 0 {
			b = append(b, ',')
		}
		s := d.Services[id]
		b = append(appendString(b, id), ':')
		b = appendField(b, '{', "type", s.Type)
		b = append(appendField(b, ',', "endpoint", s.Endpoint), '}')
	}
	b = appendStrings(append(b, `},"alsoKnownAs":`...), d.AlsoKnownAs)
	b = appendStrings(append(b, `,"rotationKeys":`...), d.RotationKeys)
	b = append(b, `,"verificationMethods":{`...)
	for i, id := range sortedKeys(d.VerificationMethods) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, id), ':')
		b = appendString(b, d.VerificationMethods[id])
	}
	return append(b, '}')
}

// AppendJSON appends the state as the directory's /data gives it.
func (d *Data) AppendJSON(b []byte, did syntax.DID) []byte {
	return append(d.appendFields(appendField(b, '{', "did", string(did))), '}')
}

// AppendDocument appends the DID document of the state, as JSON.
func (d *Data) AppendDocument(b []byte, did syntax.DID) []byte {
	contexts := []string{"https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"}
	methods := sortedKeys(d.VerificationMethods)
	for _, id := range methods {
		// A key of an unknown type has no context of its own.
		if pub, err := keys.ParseDIDKey(d.VerificationMethods[id]); err == nil {
			c := "https://w3id.org/security/suites/secp256k1-2019/v1"
			if pub.Curve() == keys.P256 {
				c = "https://w3id.org/security/suites/ecdsa-2019/v1"
			}
			if !slices.Contains(contexts, c) {
				contexts = append(contexts, c)
			}
		}
	}
	b = appendStrings(append(b, `{"@context":`...), contexts)
	b = appendField(b, ',', "id", string(did))
	b = appendStrings(append(b, `,"alsoKnownAs":`...), d.AlsoKnownAs)
	b = append(b, `,"verificationMethod":[`...)
	for i, id := range methods {
		if i > 0 {
			b = append(b, ',')
		}
		key := d.VerificationMethods[id]
		if len(key) > len("did:key:") && key[:len("did:key:")] == "did:key:" {
			key = key[len("did:key:"):]
		}
		b = appendField(b, '{', "id", string(did)+"#"+id)
		b = appendField(b, ',', "type", "Multikey")
		b = appendField(b, ',', "controller", string(did))
		b = append(appendField(b, ',', "publicKeyMultibase", key), '}')
	}
	b = append(b, `],"service":[`...)
	for i, id := range sortedKeys(d.Services) {
		if i > 0 {
			b = append(b, ',')
		}
		s := d.Services[id]
		b = appendField(b, '{', "id", "#"+id)
		b = appendField(b, ',', "type", s.Type)
		b = append(appendField(b, ',', "serviceEndpoint", s.Endpoint), '}')
	}
	return append(b, ']', '}')
}

// appendField appends a separator ('{' or ',') and a name with a string value.
func appendField(b []byte, sep byte, name, value string) []byte {
	return appendString(append(appendString(append(b, sep), name), ':'), value)
}

func appendStrings(b []byte, values []string) []byte {
	b = append(b, '[')
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, v)
	}
	return append(b, ']')
}

// appendString quotes s and escapes no more than JSON demands.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c >= ' ':
			b = append(b, c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\r':
			b = append(b, '\\', 'r')
		case c == '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(b, '"')
}
