package identity_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/syntax"
)

const legacyKey = "zQYEBzXeuTM9UR3rfvNag6L3RNAs5pQZyYPsomTsgQhsxLdEgCrPTLgFna8yqCnxPpNT7DBk6Ym3dgPKNu86vt9GR"

func method(id, typ, controller, multibase string) string {
	return `{"id":"` + id + `","type":"` + typ + `","controller":"` + controller + `","publicKeyMultibase":"` + multibase + `"}`
}

func TestSigningKey(t *testing.T) {
	a := string(alice)
	for name, tc := range map[string]struct {
		methods string
		want    string
	}{
		"full id":                     {method(a+"#atproto", "Multikey", a, key), key},
		"short id":                    {method("#atproto", "Multikey", a, key), key},
		"legacy K-256":                {method("#atproto", "EcdsaSecp256k1VerificationKey2019", a, legacyKey), key},
		"legacy with the wrong curve": {method("#atproto", "EcdsaSecp256r1VerificationKey2019", a, legacyKey), ""},
		"another's id":                {method(string(bob)+"#atproto", "Multikey", a, key), ""},
		"another's controller":        {method("#atproto", "Multikey", string(bob), key), ""},
		"no controller":               {method("#atproto", "Multikey", "", key), ""},
		"another fragment":            {method("#atproto2", "Multikey", a, key), ""},
		"another type":                {method("#atproto", "JsonWebKey2020", a, key), ""},
		"junk":                        {method("#atproto", "Multikey", a, "zzz"), ""},
		"first valid wins":            {`7,"x",null,{},` + method("#atproto", "Multikey", a, "zzz") + "," + method("#atproto", "Multikey", a, key) + "," + method("#atproto", "Multikey", a, "zDnaembgSGUhZULN2Caob4HLJPaxBh92N7rtH21TErzqf8HQo"), key},
	} {
		doc, err := identity.ParseDocument(alice, []byte(`{"id":"`+a+`","verificationMethod":[`+tc.methods+`]}`))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := ""
		if doc.SigningKey != nil {
			got = doc.SigningKey.Multikey()
		}
		if got != tc.want {
			t.Errorf("%s: key %q, want %q", name, got, tc.want)
		}
	}
}

func TestServices(t *testing.T) {
	for endpoint, want := range map[string]string{
		`"https://pds.test"`:                  "https://pds.test",
		`"https://PDS.test/"`:                 "https://pds.test",
		`"http://localhost:2583"`:             "http://localhost:2583",
		`"https://pds.test/path"`:             "",
		`"https://pds.test?q"`:                "",
		`"https://pds.test?"`:                 "",
		`"https://pds.test#f"`:                "",
		`"https://pds.test#"`:                 "",
		`"https://u:p@pds.test"`:              "",
		`"ftp://pds.test"`:                    "",
		`"pds.test"`:                          "",
		`"https://"`:                          "",
		`"https://:80"`:                       "",
		`{"uri":"https://pds.test"}`:          "",
		`["https://pds.test"]`:                "",
		`"` + strings.Repeat("x", 3000) + `"`: "",
	} {
		doc, err := identity.ParseDocument(alice, []byte(`{"id":"`+string(alice)+`","service":[{"id":"#other","type":"AtprotoPersonalDataServer","serviceEndpoint":"https://o.test"},{"id":"#atproto_pds","type":"X","serviceEndpoint":"https://x.test"},{"id":"#atproto_pds","type":"AtprotoPersonalDataServer","serviceEndpoint":`+endpoint+`},{"id":"`+string(alice)+`#atproto_labeler","type":"AtprotoLabeler","serviceEndpoint":"https://l.test"}]}`))
		if err != nil {
			t.Fatal(err)
		}
		if doc.PDS != want || doc.Labeler != "https://l.test" {
			t.Errorf("%s: PDS %q, labeler %q", endpoint, doc.PDS, doc.Labeler)
		}
	}
}

func TestClaimed(t *testing.T) {
	for aka, want := range map[string]syntax.Handle{
		`["at://a.test"]`:                                 "a.test",
		`["https://a.test","at://A.Test"]`:                "a.test",
		`["at://a.test/path","at://b.test"]`:              "b.test",
		`["at://a.test?q","at://a.test#f","at://b.test"]`: "b.test",
		`["at://did:plc:abc","at://u@a.test"]`:            "",
		`["AT://a.test"]`:                                 "",
		`[7,{},"at://a.test"]`:                            "a.test",
		`"at://a.test"`:                                   "",
		`null`:                                            "",
	} {
		doc, err := identity.ParseDocument(alice, []byte(`{"id":"`+string(alice)+`","alsoKnownAs":`+aka+`}`))
		if err != nil {
			t.Fatal(err)
		}
		if doc.Claimed != want {
			t.Errorf("%s: %q, want %q", aka, doc.Claimed, want)
		}
	}
}

func FuzzParseDocument(f *testing.F) {
	f.Add([]byte(document(alice, "at://a.test")))
	f.Add([]byte(`{"id":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa","alsoKnownAs":[],"verificationMethod":[{}],"service":[null]}`))
	a := string(alice)
	f.Add([]byte(`{"id":"` + a + `","verificationMethod":[` + method("#atproto", "EcdsaSecp256k1VerificationKey2019", a, legacyKey) + "," + method(a+"#atproto_label", "Multikey", a, key) + `],
		"service":[{"id":"#atproto_pds","type":"AtprotoPersonalDataServer","serviceEndpoint":"https://PDS.test:443/"},{"id":"#atproto_labeler","type":"AtprotoLabeler","serviceEndpoint":"http://[::1]:80"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		doc, err := identity.ParseDocument(alice, b)
		if err != nil {
			return
		}
		if doc.DID != alice || doc.Claimed != "" && !syntax.ValidHandle(doc.Claimed) || string(doc.Raw) != string(b) {
			t.Errorf("%+v", doc)
		}
		// What was understood, written as plainly as can be, is understood alike.
		plain := `{"id":"` + a + `","alsoKnownAs":["at://` + string(doc.Claimed) + `"],"verificationMethod":[`
		sep := ""
		for fragment, k := range map[string]*keys.PublicKey{"#atproto": doc.SigningKey, "#atproto_label": doc.LabelKey} {
			if k != nil {
				plain += sep + method(fragment, "Multikey", a, k.Multikey())
				sep = ","
			}
		}
		pds, _ := json.Marshal(doc.PDS)
		labeler, _ := json.Marshal(doc.Labeler)
		plain += `],"service":[{"id":"#atproto_pds","type":"AtprotoPersonalDataServer","serviceEndpoint":` + string(pds) + `},{"id":"#atproto_labeler","type":"AtprotoLabeler","serviceEndpoint":` + string(labeler) + `}]}`
		same := func(x, y *keys.PublicKey) bool { return x == nil && y == nil || x != nil && y != nil && x.Equal(y) }
		again, err := identity.ParseDocument(alice, []byte(plain))
		if err != nil || again.Claimed != doc.Claimed || again.PDS != doc.PDS || again.Labeler != doc.Labeler || !same(again.SigningKey, doc.SigningKey) || !same(again.LabelKey, doc.LabelKey) {
			t.Errorf("%+v, %v\nfrom %s\nwhich was %+v", again, err, plain, doc)
		}
	})
}
