package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/syntax"
)

// Document is what the protocol reads from a DID document. Don't change it: it may be shared.
type Document struct {
	DID         syntax.DID
	AlsoKnownAs []string
	Claimed     syntax.Handle   // first valid at:// alias, in lower case; "" if there is none. Not confirmed
	PDS         string          // origin of the account's PDS, such as "https://pds.example"; "" if there is none
	SigningKey  *keys.PublicKey // key of #atproto; nil if there is no valid one
	Labeler     string          // origin of the labeling service; "" if there is none
	LabelKey    *keys.PublicKey // key of #atproto_label; nil if there is no valid one
	Methods     []Method        // all verification methods
	Services    []Service       // all services whose endpoint is a string
	Raw         json.RawMessage // the document as it came
}

// Method is an entry of verificationMethod.
type Method struct {
	ID                 string `json:"id"`
	Type               string `json:"type"`
	Controller         string `json:"controller"`
	PublicKeyMultibase string `json:"publicKeyMultibase"`
}

// Service is an entry of service.
type Service struct {
	ID       string `json:"id"`
	Type     string `json:"type"`
	Endpoint string `json:"serviceEndpoint"`
}

// Fragments and types of a document's entries.
const (
	FragmentKey     = "#atproto"
	FragmentLabel   = "#atproto_label"
	FragmentPDS     = "#atproto_pds"
	FragmentLabeler = "#atproto_labeler"

	TypePDS      = "AtprotoPersonalDataServer"
	TypeLabeler  = "AtprotoLabeler"
	TypeMultikey = "Multikey"

	legacyP256 = "EcdsaSecp256r1VerificationKey2019"
	legacyK256 = "EcdsaSecp256k1VerificationKey2019"
)

// ParseDocument reads the DID document of did. It fails if the document isn't a JSON object or is about another DID;
// entries that make no sense are passed over, because a document may hold things the protocol doesn't know.
// https://atproto.com/specs/did#did-documents
func ParseDocument(did syntax.DID, body []byte) (*Document, error) {
	if len(body) > MaxDocument {
		return nil, fmt.Errorf("DID document of more than %d bytes", MaxDocument)
	}
	var x struct {
		ID          *string         `json:"id"`
		AlsoKnownAs json.RawMessage `json:"alsoKnownAs"`
		Methods     json.RawMessage `json:"verificationMethod"`
		Services    json.RawMessage `json:"service"`
	}
	if err := json.Unmarshal(body, &x); err != nil {
		return nil, fmt.Errorf("DID document: %w", err)
	}
	if x.ID == nil {
		return nil, errors.New("DID document without an id")
	}
	if *x.ID != string(did) {
		return nil, fmt.Errorf("DID document is about %.256q", *x.ID)
	}
	d := &Document{
		DID:         did,
		AlsoKnownAs: elements[string](x.AlsoKnownAs),
		Methods:     elements[Method](x.Methods),
		Services:    elements[Service](x.Services),
		Raw:         json.RawMessage(body),
	}
	for _, alias := range d.AlsoKnownAs {
		if name, ok := strings.CutPrefix(alias, "at://"); ok {
			if h, err := syntax.ParseHandle(name); err == nil {
				d.Claimed = h.Normalize()
				break
			}
		}
	}
	d.SigningKey = d.Key(FragmentKey)
	d.LabelKey = d.Key(FragmentLabel)
	d.PDS = d.Service(FragmentPDS, TypePDS)
	d.Labeler = d.Service(FragmentLabeler, TypeLabeler)
	return d, nil
}

// elements reads a JSON array and leaves out the elements that aren't of the type.
func elements[T any](raw json.RawMessage) []T {
	var elems []json.RawMessage
	if len(raw) == 0 || json.Unmarshal(raw, &elems) != nil {
		return nil
	}
	out := make([]T, 0, len(elems))
	for _, e := range elems {
		var v T
		if json.Unmarshal(e, &v) == nil {
			out = append(out, v)
		}
	}
	return out
}

// is reports whether the id of an entry is the fragment, in its short or its full form.
func (d *Document) is(id, fragment string) bool {
	return id == fragment || len(id) == len(d.DID)+len(fragment) && id[:len(d.DID)] == string(d.DID) && id[len(d.DID):] == fragment
}

// Key returns the first valid key of the verification methods with that fragment, such as "#atproto"; nil if none is.
func (d *Document) Key(fragment string) *keys.PublicKey {
	for _, m := range d.Methods {
		if !d.is(m.ID, fragment) || m.Controller != string(d.DID) {
			continue
		}
		var k *keys.PublicKey
		var err error
		switch m.Type {
		case TypeMultikey:
			k, err = keys.ParseMultikey(m.PublicKeyMultibase)
		case legacyP256:
			k, err = keys.ParseLegacyMultibase(keys.P256, m.PublicKeyMultibase)
		case legacyK256:
			k, err = keys.ParseLegacyMultibase(keys.K256, m.PublicKeyMultibase)
		default:
			continue
		}
		if err == nil {
			return k
		}
	}
	return nil
}

// Service returns the origin (scheme, host and port) of the first valid service with that fragment and type, such as
// "#atproto_pds" and "AtprotoPersonalDataServer"; "" if none is. An empty type stands for any.
func (d *Document) Service(fragment, typ string) string {
	for _, s := range d.Services {
		if d.is(s.ID, fragment) && (typ == "" || s.Type == typ) {
			if origin, ok := origin(s.Endpoint); ok {
				return origin
			}
		}
	}
	return ""
}

// origin checks that s is an http or https URL of nothing but a host and an optional port.
func origin(s string) (string, bool) {
	if len(s) > 2048 {
		return "", false
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" ||
		u.ForceQuery || u.Fragment != "" || u.Path != "" && u.Path != "/" || strings.HasSuffix(s, "#") {
		return "", false
	}
	return u.Scheme + "://" + strings.ToLower(u.Host), true
}
