package plc

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/fixtures"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/syntax"
)

func key(t testing.TB, c keys.Curve, seed byte) *keys.PrivateKey {
	k, err := keys.Generate(c, rand.NewChaCha8([32]byte{seed}))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func readLog(t testing.TB, path string) (raw []json.RawMessage, log []Entry) {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &log); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return raw, log
}

func TestAuditLogFixtures(t *testing.T) {
	valid, _ := filepath.Glob(filepath.Join(fixtures.Path(t, "plc/audit_log"), "valid", "*.json"))
	if len(valid) != 10 {
		t.Fatalf("%d valid logs", len(valid))
	}
	for _, path := range valid {
		t.Run(filepath.Base(path), func(t *testing.T) {
			raw, log := readLog(t, path)
			state, active, err := Verify(log[0].DID, log)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d entries, active: %v, %s at %s", len(log), active, state.Handle(), state.PDS())
			for i, e := range log {
				// Every operation survives both forms, and the JSON says the same as the fixture.
				b := e.Operation.CBOR()
				if err := cbor.Valid(b); err != nil {
					t.Error(err)
				}
				back, err := ParseCBOR(b)
				if err != nil || !bytes.Equal(back.CBOR(), b) {
					t.Errorf("CBOR came back as %x, %v", back.CBOR(), err)
				}
				var want, got any
				if err := json.Unmarshal(raw[i], &want); err != nil {
					t.Fatal(err)
				}
				if err := json.Unmarshal(e.AppendJSON(nil), &got); err != nil {
					t.Fatal(err)
				}
				w, _ := json.Marshal(want)
				g, _ := json.Marshal(got)
				if !bytes.Equal(w, g) {
					t.Errorf("JSON came back as %s\nwant %s", g, w)
				}
			}
			for _, break_ := range []func(l []Entry){
				func(l []Entry) { l[0].CID = cid.Sum(cid.DagCBOR, nil) },
				func(l []Entry) { l[len(l)-1].Nullified = !l[len(l)-1].Nullified },
				func(l []Entry) { l[len(l)-1].DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa" },
			} {
				_, bad := readLog(t, path)
				break_(bad)
				var e *Error
				if _, _, err := Verify(log[0].DID, bad); !errors.As(err, &e) || e.Rule != RuleAudit {
					t.Errorf("a false claim was accepted: %v", err)
				}
			}
		})
	}
	invalid, _ := filepath.Glob(filepath.Join(fixtures.Path(t, "plc/audit_log"), "invalid", "*.json"))
	if len(invalid) != 10 {
		t.Fatalf("%d invalid logs", len(invalid))
	}
	want := map[string]Rule{"too_slow": RuleLate, "update_nullified": RuleOrder, "tombstoned": RuleTombstone}
	for _, path := range invalid {
		t.Run(filepath.Base(path), func(t *testing.T) {
			_, log := readLog(t, path)
			rule := RuleSignature
			for part, r := range want {
				if strings.Contains(path, part) {
					rule = r
				}
			}
			_, _, err := Verify(log[0].DID, log)
			var e *Error
			if !errors.As(err, &e) || e.Rule != rule {
				t.Errorf("%v, want rule %s", err, rule)
			}
			t.Log(err)
		})
	}
}

// history is a log that the test drives through Next, as a directory does.
type history struct {
	t   *testing.T
	did syntax.DID
	log []Entry
	now time.Time
}

func (h *history) post(op *Operation) error {
	void, err := Next(h.did, h.log, op, h.now)
	if err != nil {
		return err
	}
	for _, i := range void {
		h.log[i].Nullified = true
	}
	h.log = append(h.log, Entry{DID: h.did, Operation: op, CID: op.CID(), CreatedAt: h.now})
	h.now = h.now.Add(time.Minute)
	if _, _, err := Verify(h.did, h.log); err != nil {
		h.t.Errorf("the log no longer verifies: %v", err)
	}
	return nil
}

func (h *history) must(op *Operation) *Operation {
	h.t.Helper()
	if err := h.post(op); err != nil {
		h.t.Fatal(err)
	}
	return op
}

func (h *history) refuse(rule Rule, op *Operation) {
	h.t.Helper()
	var e *Error
	if err := h.post(op); !errors.As(err, &e) || e.Rule != rule {
		h.t.Errorf("got %v, want rule %s", err, rule)
	}
}

func sign(t testing.TB, op *Operation, k *keys.PrivateKey) *Operation {
	if err := op.Sign(k); err != nil {
		t.Fatal(err)
	}
	return op
}

func TestRules(t *testing.T) {
	strong, middle, weak, foreign := key(t, keys.K256, 1), key(t, keys.P256, 2), key(t, keys.K256, 3), key(t, keys.P256, 4)
	data := AtprotoData(foreign.Public().DIDKey(), "alice.test", "https://pds.test",
		strong.Public().DIDKey(), middle.Public().DIDKey(), weak.Public().DIDKey())
	start := func() (*history, *Operation) {
		op := sign(t, NewOperation(data, cid.CID{}), weak)
		h := &history{t: t, did: op.DID(), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
		return h, op
	}
	handle := func(h syntax.Handle) Data { d := data.Clone(); d.SetHandle(h); return d }

	t.Run("genesis", func(t *testing.T) {
		h, g := start()
		h.t = t
		h.refuse(RuleOrder, sign(t, NewTombstone(g.CID()), weak))
		h.refuse(RuleOrder, sign(t, NewOperation(data, g.CID()), weak))
		h.refuse(RuleSignature, sign(t, NewOperation(data, cid.CID{}), foreign))
		h.refuse(RuleGenesis, sign(t, NewOperation(handle("bob.test"), cid.CID{}), weak))
		unsigned := NewOperation(data, cid.CID{})
		h.refuse(RuleSignature, unsigned)
		h.must(g)
		h.refuse(RuleOrder, g)
		if !h.did.IsPLC() {
			t.Error(h.did)
		}
	})
	t.Run("updates", func(t *testing.T) {
		h, g := start()
		h.t = t
		h.must(g)
		h.refuse(RuleSignature, sign(t, NewOperation(handle("b.test"), g.CID()), foreign))
		h.refuse(RuleOrder, sign(t, NewOperation(handle("b.test"), cid.Sum(cid.DagCBOR, []byte("x"))), weak))
		a := h.must(sign(t, NewOperation(handle("b.test"), g.CID()), weak))
		h.must(sign(t, NewOperation(handle("c.test"), a.CID()), middle))
		// A key that was rotated out may not sign any more.
		d := handle("c.test")
		d.RotationKeys = d.RotationKeys[:1]
		b := h.must(sign(t, NewOperation(d, h.log[2].CID), strong))
		h.refuse(RuleSignature, sign(t, NewOperation(handle("d.test"), b.CID()), weak))
	})
	t.Run("recovery", func(t *testing.T) {
		h, g := start()
		h.t = t
		h.must(g)
		a := h.must(sign(t, NewOperation(handle("a.test"), g.CID()), middle))
		h.must(sign(t, NewOperation(handle("b.test"), a.CID()), weak))
		h.refuse(RuleSignature, sign(t, NewOperation(handle("x.test"), g.CID()), weak))
		h.refuse(RuleSignature, sign(t, NewOperation(handle("x.test"), g.CID()), middle)) // equal is not stronger
		recovery := sign(t, NewOperation(handle("r.test"), g.CID()), strong)
		at := h.now
		h.now = h.log[2].CreatedAt
		h.refuse(RuleOrder, recovery) // not later than what it voids
		h.now = h.log[1].CreatedAt.Add(RecoveryWindow + time.Millisecond)
		h.refuse(RuleLate, recovery)
		h.now = h.log[1].CreatedAt.Add(RecoveryWindow)
		h.must(recovery)
		if !h.log[1].Nullified || !h.log[2].Nullified || h.log[0].Nullified || h.log[3].Nullified {
			t.Error("wrong entries are void")
		}
		h.refuse(RuleOrder, sign(t, NewOperation(handle("y.test"), a.CID()), strong)) // void history
		_ = at
	})
	t.Run("tombstone", func(t *testing.T) {
		h, g := start()
		h.t = t
		h.must(g)
		stone := h.must(sign(t, NewTombstone(g.CID()), weak))
		h.refuse(RuleTombstone, sign(t, NewOperation(data, stone.CID()), strong))
		if _, active, err := Verify(h.did, h.log); active || err != nil {
			t.Error(active, err)
		}
		h.must(sign(t, NewOperation(data, g.CID()), strong))
		if _, active, err := Verify(h.did, h.log); !active || err != nil {
			t.Error(active, err)
		}
	})
	t.Run("legacy", func(t *testing.T) {
		op := sign(t, &Operation{Type: TypeCreate, Legacy: &LegacyCreate{
			SigningKey: weak.Public().DIDKey(), RecoveryKey: strong.Public().DIDKey(), Handle: "alice.test", Service: "pds.test",
		}}, weak)
		h := &history{t: t, did: op.DID(), now: time.Now()}
		h.must(op)
		h.refuse(RuleOrder, op)
		d, ok := op.State()
		if !ok || d.Handle() != "alice.test" || d.PDS() != "https://pds.test" || d.SigningKey() != weak.Public().DIDKey() {
			t.Error(d)
		}
		h.must(sign(t, NewOperation(data, op.CID()), strong))
	})
}

func TestCheck(t *testing.T) {
	k := key(t, keys.K256, 1)
	good := AtprotoData(k.Public().DIDKey(), "alice.test", "https://pds.test", k.Public().DIDKey())
	if err := sign(t, NewOperation(good, cid.CID{}), k).Check(); err != nil {
		t.Fatal(err)
	}
	names := func(n int) (out []string) {
		for i := range n {
			out = append(out, "at://"+strings.Repeat("a", i+1)+".test")
		}
		return out
	}
	for name, change := range map[string]func(d *Data){
		"aka count":    func(d *Data) { d.AlsoKnownAs = names(11) },
		"aka repeated": func(d *Data) { d.AlsoKnownAs = []string{"at://a.test", "at://a.test"} },
		"aka length":   func(d *Data) { d.AlsoKnownAs = []string{strings.Repeat("a", 259)} },
		"aka astral":   func(d *Data) { d.AlsoKnownAs = []string{strings.Repeat("😀", 130)} },
		"rotation":     func(d *Data) { d.RotationKeys = make([]string, 11) },
		"rotation key": func(d *Data) { d.RotationKeys = []string{"did:key:zzz"} },
		"ed25519": func(d *Data) {
			d.RotationKeys = []string{"did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"}
		},
		"service id":   func(d *Data) { d.Services = map[string]Service{strings.Repeat("a", 33): {}} },
		"service none": func(d *Data) { d.Services = map[string]Service{"": {}} },
		"service type": func(d *Data) { d.Services = map[string]Service{"a": {Type: strings.Repeat("a", 257)}} },
		"endpoint":     func(d *Data) { d.Services = map[string]Service{"a": {Endpoint: strings.Repeat("a", 513)}} },
		"method id":    func(d *Data) { d.VerificationMethods = map[string]string{strings.Repeat("a", 33): good.SigningKey()} },
		"method key":   func(d *Data) { d.VerificationMethods = map[string]string{"a": "zzz"} },
		"method long":  func(d *Data) { d.VerificationMethods = map[string]string{"a": "did:key:z" + strings.Repeat("a", 250)} },
		"services": func(d *Data) {
			for i := range 10 {
				d.Services[strings.Repeat("a", i+1)] = Service{}
			}
		},
		"methods": func(d *Data) {
			for i := range 10 {
				d.VerificationMethods[strings.Repeat("a", i+1)] = good.SigningKey()
			}
		},
		"size": func(d *Data) {
			for i := range 9 {
				d.Services[strings.Repeat("a", i+1)] = Service{Endpoint: strings.Repeat("x", 500)}
			}
		},
	} {
		d := good.Clone()
		change(&d)
		var e *Error
		if err := sign(t, NewOperation(d, cid.CID{}), k).Check(); !errors.As(err, &e) || e.Rule != RuleLimit {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(d *Data){
		"ed25519 method": func(d *Data) {
			d.VerificationMethods["x"] = "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"
		},
		"no rotation keys":       func(d *Data) { d.RotationKeys = nil },
		"repeated rotation keys": func(d *Data) { d.RotationKeys = append(d.RotationKeys, d.RotationKeys[0]) },
		"aka length":             func(d *Data) { d.AlsoKnownAs = []string{strings.Repeat("é", 258)} },
	} {
		d := good.Clone()
		change(&d)
		if err := sign(t, NewOperation(d, cid.CID{}), k).Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseJSONIsStrict(t *testing.T) {
	k := key(t, keys.K256, 1)
	op := sign(t, NewOperation(AtprotoData(k.Public().DIDKey(), "alice.test", "https://pds.test", k.Public().DIDKey()), cid.CID{}), k)
	good := string(op.AppendJSON(nil))
	if back, err := ParseJSON([]byte(" " + good + "\n")); err != nil || back.CID() != op.CID() {
		t.Fatal(err)
	}
	replace := func(a, b string) string {
		s := strings.Replace(good, a, b, 1)
		if s == good {
			t.Fatalf("%q does not occur in %s", a, good)
		}
		return s
	}
	if back, err := ParseJSON([]byte(replace(`alice.test`, `\u0061lice.te\u0073t`))); err != nil || back.CID() != op.CID() {
		t.Error(err)
	}
	for _, bad := range []string{
		"", "{}", "null", "[]", "1", good + good, good + "x", good[:len(good)-1],
		replace(`"prev":null`, `"prev":null,"prev":null`),
		replace(`"prev":null,`, ``),
		replace(`"prev"`, `"Prev"`),
		replace(`"prev":null`, `"prev":1`),
		replace(`"prev":null`, `"prev":"x"`),
		replace(`"prev":null`, `"prev":null,"extra":"x"`),
		replace(`"prev":null`, `"prev":null,"handle":"x"`),
		replace(`plc_operation`, `plc_tombstone`),
		replace(`plc_operation`, `create`),
		replace(`plc_operation`, `other`),
		replace(`"endpoint":"https://pds.test"`, `"endpoint":"https://pds.test","endpoint":"x"`),
		replace(`"endpoint":"https://pds.test"`, `"endpoint":"https://pds.test","extra":"x"`),
		replace(`"endpoint":"https://pds.test"`, `"Endpoint":"https://pds.test"`),
		replace(`,"endpoint":"https://pds.test"`, ``),
		replace(`"https://pds.test"`, `null`),
		replace(`alice`, `\ud800`),
		replace(`alice`, `\ud800\u0041`),
		replace(`alice`, `\udc00`),
		replace(`alice`, "\xff"),
		replace(`alice`, "\n"),
		replace(`alice`, `\x`),
		replace(`alice`, `\u12`),
		replace(`["at:`, `[1,"at:`),
		replace(`["at:`, `["a",,"at:`),
		replace(`["at:`, strings.Repeat("[", 100000)+`"at:`),
		strings.Repeat(`{"a":`, 100000),
		`{"services":` + strings.Repeat(`{"a":`, 100000),
		strings.Repeat("[", 100000),
	} {
		var e *Error
		if _, err := ParseJSON([]byte(bad)); !errors.As(err, &e) || e.Rule != RuleFormat {
			t.Errorf("%.200s: %v", bad, err)
		}
	}
}

func TestDocument(t *testing.T) {
	// The example of the specification, with the fragment ids that the directory writes.
	d := AtprotoData("did:key:zDnaeh9v2RmcMo13Du2d6pjUf5bZwtauYxj3n9dYjw4EZUAR7", "alice.test", "https://example2.com")
	d.VerificationMethods["other"] = "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"
	const did = "did:plc:7iza6de2dwap2sbkpav7c6c6"
	want := `{"@context":["https://www.w3.org/ns/did/v1","https://w3id.org/security/multikey/v1","https://w3id.org/security/suites/ecdsa-2019/v1"],` +
		`"id":"` + did + `","alsoKnownAs":["at://alice.test"],"verificationMethod":[` +
		`{"id":"` + did + `#other","type":"Multikey","controller":"` + did + `","publicKeyMultibase":"z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"},` +
		`{"id":"` + did + `#atproto","type":"Multikey","controller":"` + did + `","publicKeyMultibase":"zDnaeh9v2RmcMo13Du2d6pjUf5bZwtauYxj3n9dYjw4EZUAR7"}],` +
		`"service":[{"id":"#atproto_pds","type":"AtprotoPersonalDataServer","serviceEndpoint":"https://example2.com"}]}`
	if got := string(d.AppendDocument(nil, did)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := string((&Data{}).AppendJSON(nil, did)); got != `{"did":"`+did+`","services":{},"alsoKnownAs":[],"rotationKeys":[],"verificationMethods":{}}` {
		t.Error(got)
	}
	if got := string(appendString(nil, "a\"\\\x01\n\r\té<😀")); got != `"a\"\\\u0001\n\r\té<😀"` {
		t.Error(got)
	}
}

func FuzzParse(f *testing.F) {
	k := key(f, keys.K256, 1)
	d := AtprotoData(k.Public().DIDKey(), "alice.test", "https://pds.test", k.Public().DIDKey())
	for _, op := range []*Operation{
		sign(f, NewOperation(d, cid.CID{}), k), sign(f, NewTombstone(cid.Sum(cid.DagCBOR, nil)), k),
		sign(f, &Operation{Type: TypeCreate, Legacy: &LegacyCreate{Handle: "a\u00e9\n"}}, k),
	} {
		f.Add(op.AppendJSON(nil))
		f.Add(op.CBOR())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if op, err := ParseJSON(b); err == nil {
			back, err := ParseJSON(op.AppendJSON(nil))
			if err != nil || back.CID() != op.CID() {
				t.Errorf("%q came back as %q, %v", b, back.AppendJSON(nil), err)
			}
			var any1 any
			if err := json.Unmarshal(b, &any1); err != nil {
				t.Errorf("accepted what is not JSON: %q", b)
			}
			_, _ = op.Signer(op.Data.RotationKeys)
			_ = op.Check()
		}
		if op, err := ParseCBOR(b); err == nil && !bytes.Equal(op.CBOR(), b) {
			t.Errorf("%x came back as %x", b, op.CBOR())
		}
	})
}

func BenchmarkNext(b *testing.B) {
	k := key(b, keys.K256, 1)
	d := AtprotoData(k.Public().DIDKey(), "alice.test", "https://pds.test", k.Public().DIDKey())
	op := sign(b, NewOperation(d, cid.CID{}), k)
	did := op.DID()
	raw := op.AppendJSON(nil)
	b.Run("genesis", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Next(did, nil, op, time.Time{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ParseJSON(raw); err != nil {
				b.Fatal(err)
			}
		}
	})
}
