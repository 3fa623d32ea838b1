package pds

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

func TestCreateAccount(t *testing.T) {
	n := newNetwork(t, Config{})
	a := n.signedUp("alice")
	did := syntax.DID(a.str("did"))
	if a.str("handle") != "alice.test" || !did.IsPLC() {
		t.Fatalf("answer: %s", a.Body)
	}
	// The identity says what the account needs.
	d := n.plc.state(t, did)
	if d.Handle() != "alice.test" || d.PDS() != "http://localhost:2583" || !slices.Equal(d.RotationKeys, []string{n.accounts.secrets.rotation.Public().DIDKey()}) {
		t.Errorf("identity: %+v", d)
	}
	row, err := n.Service.account(did)
	if err != nil {
		t.Fatal(err)
	}
	if d.SigningKey() != row.PublicKey {
		t.Error("the identity has another signing key than the account")
	}
	if strings.Contains(string(row.Key), row.Password) || strings.Contains(row.Password, goodPassword) {
		t.Error("a secret in clear in the account row")
	}
	if doc, _ := a.JSON["didDoc"].(map[string]any); doc["id"] != string(did) {
		t.Errorf("didDoc: %v", a.JSON["didDoc"])
	}
	// The events come in the recommended order and the repository verifies with the identity's key.
	var kinds []string
	for _, m := range n.frames() {
		switch m := m.(type) {
		case *stream.Identity:
			kinds = append(kinds, "identity "+m.Handle)
		case *stream.Account:
			kinds = append(kinds, fmt.Sprint("account ", m.Active))
		case *stream.Sync:
			kinds = append(kinds, "sync")
		default:
			kinds = append(kinds, fmt.Sprintf("%T", m))
		}
	}
	if got := strings.Join(kinds, ", "); got != "identity alice.test, account true, sync" {
		t.Errorf("events: %s", got)
	}
	key, err := keys.ParseDIDKey(d.SigningKey())
	if err != nil {
		t.Fatal(err)
	}
	n.checkRepo(did, key)

	s := n.query("com.atproto.server.getSession", a.str("accessJwt"))
	want(t, s, 200, "")
	if s.str("did") != string(did) || s.str("email") != "alice@example.com" || s.JSON["active"] != true || s.JSON["emailConfirmed"] != false {
		t.Errorf("session: %s", s.Body)
	}
	r := n.query("com.atproto.identity.resolveHandle?handle=ALICE.test", "")
	want(t, r, 200, "")
	if r.str("did") != string(did) {
		t.Errorf("resolveHandle: %s", r.Body)
	}
}

func TestCreateAccountErrors(t *testing.T) {
	n := newNetwork(t, Config{})
	n.signedUp("alice")
	with := func(kv ...any) map[string]any {
		m := signUpInput("bob")
		for i := 0; i < len(kv); i += 2 {
			m[kv[i].(string)] = kv[i+1]
		}
		return m
	}
	without := func(k string) map[string]any { m := signUpInput("bob"); delete(m, k); return m }
	key, _ := keys.Generate(keys.K256, randomReader{n.Service})
	for name, c := range map[string]struct {
		in     map[string]any
		status int
		error  string
	}{
		"taken":               {with("handle", "alice.test"), 400, "HandleNotAvailable"},
		"taken, other case":   {with("handle", "Alice.TEST"), 400, "HandleNotAvailable"},
		"reserved":            {with("handle", "admin.test"), 400, "HandleNotAvailable"},
		"too short":           {with("handle", "al.test"), 400, "InvalidHandle"},
		"too long":            {with("handle", strings.Repeat("a", 41)+".test"), 400, "InvalidHandle"},
		"two names":           {with("handle", "bob.evil.test"), 400, "InvalidHandle"},
		"closed domain":       {with("handle", "bob.onion"), 400, "InvalidHandle"},
		"other domain":        {with("handle", "bob.example.com"), 400, "UnsupportedDomain"},
		"e-mail taken":        {with("email", "Alice@Example.com"), 400, "InvalidRequest"},
		"e-mail odd":          {with("email", "bob@localhost@x.y"), 400, "InvalidRequest"},
		"no password":         {without("password"), 400, "InvalidPassword"},
		"short password":      {with("password", "short"), 400, "InvalidPassword"},
		"long password":       {with("password", strings.Repeat("x", 257)), 400, "InvalidPassword"},
		"bad recovery key":    {with("recoveryKey", "did:key:zzz"), 400, "InvalidRequest"},
		"did without token":   {with("did", "did:plc:ewvi7nxzyoun6zhxrhs64oiz"), 401, "AuthMissing"},
		"nonsense plcOp":      {with("plcOp", map[string]any{"type": "nonsense"}), 400, "IncompatibleDidDoc"},
		"handle not a handle": {with("handle", "bob"), 400, ""},
		"handle missing":      {without("handle"), 400, "InvalidRequest"},
		"handle a number":     {with("handle", 7), 400, "InvalidRequest"},
	} {
		t.Run(name, func(t *testing.T) {
			posts := n.plc.posts
			a := n.call("com.atproto.server.createAccount", "", c.in)
			if c.error == "" {
				c.error = a.Name
			}
			want(t, a, c.status, c.error)
			if n.plc.posts != posts {
				t.Error("a refused sign-up reached the PLC directory")
			}
		})
	}
	// Nothing of it is left behind, and a recovery key comes first.
	a := n.call("com.atproto.server.createAccount", "", with("recoveryKey", key.Public().DIDKey()))
	want(t, a, 200, "")
	if got := n.plc.state(t, syntax.DID(a.str("did"))).RotationKeys; len(got) != 2 || got[0] != key.Public().DIDKey() {
		t.Errorf("rotation keys %v", got)
	}
}

func TestCreateAccountWithoutPLC(t *testing.T) {
	n := newNetwork(t, Config{})
	n.plc.fail = 503
	want(t, n.call("com.atproto.server.createAccount", "", signUpInput("alice")), 502, "UpstreamFailure")
	n.plc.fail = 400
	want(t, n.call("com.atproto.server.createAccount", "", signUpInput("alice")), 400, "InvalidRequest")
	n.plc.fail = 0
	n.signedUp("alice") // the name was not lost
}

func TestRacingSignUps(t *testing.T) {
	n := newNetwork(t, Config{InviteRequired: true})
	want(t, n.admin("com.atproto.server.createInviteCode", map[string]any{"useCount": 3}, "", ""), 401, "AuthenticationRequired")
	want(t, n.admin("com.atproto.server.createInviteCode", map[string]any{"useCount": 3}, "admin", "wrong"), 401, "AuthenticationRequired")
	want(t, n.admin("com.atproto.server.createInviteCode", map[string]any{"useCount": 0}, "admin", "operator"), 400, "InvalidRequest")
	made := n.admin("com.atproto.server.createInviteCode", map[string]any{"useCount": 3}, "admin", "operator")
	want(t, made, 200, "")

	const racers = 50
	var wg sync.WaitGroup
	answers := make([]answerOf, racers)
	for i := range racers {
		wg.Go(func() {
			in := signUpInput(fmt.Sprint("user", i))
			in["inviteCode"] = made.str("code")
			answers[i] = n.call("com.atproto.server.createAccount", "", in)
		})
	}
	wg.Wait()
	got := map[string]int{}
	for _, a := range answers {
		got[fmt.Sprint(a.Status, a.Name)]++
	}
	if !maps.Equal(got, map[string]int{"200": 3, "400InvalidInviteCode": racers - 3}) {
		t.Fatalf("outcomes: %v", got)
	}
	// Used up, unknown and missing look the same, also after a restart.
	n.restart()
	for _, code := range []any{made.str("code"), "no-such-code", ""} {
		in := signUpInput("late")
		in["inviteCode"] = code
		want(t, n.call("com.atproto.server.createAccount", "", in), 400, "InvalidInviteCode")
	}
	// A sign-up that fails gives its use back.
	made = n.admin("com.atproto.server.createInviteCode", map[string]any{"useCount": 1}, "admin", "operator")
	in := signUpInput("late")
	in["inviteCode"] = made.str("code")
	n.plc.fail = 500
	want(t, n.call("com.atproto.server.createAccount", "", in), 502, "UpstreamFailure")
	n.plc.fail = 0
	want(t, n.call("com.atproto.server.createAccount", "", in), 200, "")
}

func TestRacingHandles(t *testing.T) {
	n := newNetwork(t, Config{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	ok := 0
	for range 20 {
		wg.Go(func() {
			in := signUpInput("alice")
			delete(in, "email")
			a := n.call("com.atproto.server.createAccount", "", in)
			mu.Lock()
			defer mu.Unlock()
			if a.Status == 200 {
				ok++
			} else if a.Name != "HandleNotAvailable" {
				t.Errorf("%d %s", a.Status, a.Body)
			}
		})
	}
	wg.Wait()
	if ok != 1 {
		t.Errorf("%d accounts got the handle", ok)
	}
}

func TestInviteCodesOfAccount(t *testing.T) {
	n := newNetwork(t, Config{})
	alice, bob := n.signedUp("alice"), n.signedUp("bob")
	made := n.admin("com.atproto.server.createInviteCodes", map[string]any{"codeCount": 2, "useCount": 1, "forAccounts": []string{alice.str("did"), bob.str("did")}}, "admin", "operator")
	want(t, made, 200, "")
	if codes, _ := made.JSON["codes"].([]any); len(codes) != 2 {
		t.Fatalf("codes: %s", made.Body)
	}
	a := n.query("com.atproto.server.getAccountInviteCodes", alice.str("accessJwt"))
	want(t, a, 200, "")
	codes, _ := a.JSON["codes"].([]any)
	if len(codes) != 2 || strings.Contains(string(a.Body), bob.str("did")) {
		t.Errorf("alice's codes: %s", a.Body)
	}
}

func TestMigrationIn(t *testing.T) {
	n := newNetwork(t, Config{})
	f := n.foreign("carol.example.com")
	in := map[string]any{"handle": "carol.example.com", "did": f.did, "email": "carol@example.com", "password": goodPassword}
	create := func(token string) answerOf { return n.call("com.atproto.server.createAccount", token, in) }
	now := n.clock.Now().Unix()
	other := n.foreign("dave.example.com")
	for name, c := range map[string]struct{ token, error string }{
		"other account":  {other.token(n, nil), "AuthenticationRequired"},
		"other service":  {f.token(n, func(_, c map[string]any) { c["aud"] = "did:web:evil.example" }), "BadJwtAudience"},
		"other fragment": {f.token(n, func(_, c map[string]any) { c["aud"] = "did:web:localhost%3A2583#bsky_appview" }), "BadJwtAudience"},
		"other method":   {f.token(n, func(_, c map[string]any) { c["lxm"] = "com.atproto.repo.uploadBlob" }), "BadJwtLexiconMethod"},
		"no method":      {f.token(n, func(_, c map[string]any) { delete(c, "lxm") }), "BadJwtLexiconMethod"},
		"expired":        {f.token(n, func(_, c map[string]any) { c["exp"] = now - 120 }), "JwtExpired"},
		"no expiry":      {f.token(n, func(_, c map[string]any) { delete(c, "exp") }), "JwtExpired"},
		"lives long":     {f.token(n, func(_, c map[string]any) { c["exp"] = now + 86400 }), "BadJwt"},
		"no jti":         {f.token(n, func(_, c map[string]any) { delete(c, "jti") }), "BadJwt"},
		"session type":   {f.token(n, func(h, _ map[string]any) { h["typ"] = "at+jwt" }), "BadJwtType"},
		"alg none":       {f.token(n, func(h, _ map[string]any) { h["alg"] = "none" }), "BadJwtAlgorithm"},
		"alg HS256":      {f.token(n, func(h, _ map[string]any) { h["alg"] = "HS256" }), "BadJwtAlgorithm"},
		"other curve":    {f.token(n, func(h, _ map[string]any) { h["alg"] = "ES256" }), "BadJwtSignature"},
		"other key id":   {f.token(n, func(h, _ map[string]any) { h["kid"] = "#atproto_label" }), "BadJwtKey"},
		"other issuer":   {f.token(n, func(_, c map[string]any) { c["iss"] = other.did }), "BadJwtSignature"},
		"issuer no DID":  {f.token(n, func(_, c map[string]any) { c["iss"] = "carol" }), "BadJwtIss"},
		"nonsense":       {"nonsense", "BadJwt"},
	} {
		t.Run(name, func(t *testing.T) { want(t, create(c.token), 401, c.error) })
	}
	unknown := f.token(n, func(_, c map[string]any) { c["iss"] = "did:plc:ewvi7nxzyoun6zhxrhs64oiz" })
	want(t, create(unknown), 400, "UnresolvableDid")

	in["handle"] = "dave.example.com" // somebody else's
	want(t, create(f.token(n, nil)), 400, "InvalidHandle")
	in["handle"] = "carol.example.com"
	token := f.token(n, func(_, c map[string]any) { c["aud"] = "did:web:localhost%3A2583#atproto_pds" })
	before := n.log.Head()
	a := create(token)
	want(t, a, 200, "")
	if n.log.Head() != before {
		t.Error("an account that isn't active yet emitted events")
	}
	want(t, create(token), 401, "BadJwt") // used before
	want(t, create(f.token(n, nil)), 400, "AlreadyExists")
	tok := a.str("accessJwt")
	s := n.query("com.atproto.server.getSession", tok)
	want(t, s, 200, "")
	if s.JSON["active"] != false || s.str("status") != "deactivated" {
		t.Errorf("session: %s", s.Body)
	}
	st := n.query("com.atproto.server.checkAccountStatus", tok)
	want(t, st, 200, "")
	if st.JSON["activated"] != false || st.JSON["validDid"] != false || st.JSON["repoBlocks"] != float64(2) {
		t.Errorf("status: %s", st.Body)
	}
	want(t, n.call("com.atproto.server.activateAccount", tok, nil), 400, "InvalidRequest")

	// The identity moves: with what this server recommends, signed by the owner's rotation key.
	rec := n.query("com.atproto.identity.getRecommendedDidCredentials", tok)
	want(t, rec, 200, "")
	row, err := n.Service.account(f.did)
	if err != nil {
		t.Fatal(err)
	}
	last := n.plc.logs[f.did][0].Operation
	d := plc.AtprotoData(row.PublicKey, "carol.example.com", "http://localhost:2583", f.rotation.Public().DIDKey(), n.accounts.secrets.rotation.Public().DIDKey())
	if !strings.Contains(string(rec.Body), row.PublicKey) || !strings.Contains(string(rec.Body), "at://carol.example.com") || !strings.Contains(string(rec.Body), n.accounts.secrets.rotation.Public().DIDKey()) {
		t.Errorf("recommended: %s", rec.Body)
	}
	submit := func(d plc.Data) answerOf {
		op := plc.NewOperation(d, last.CID())
		if err := op.Sign(f.rotation); err != nil {
			t.Fatal(err)
		}
		var raw any
		if err := json.Unmarshal(op.AppendJSON(nil), &raw); err != nil {
			t.Fatal(err)
		}
		return n.call("com.atproto.identity.submitPlcOperation", tok, map[string]any{"operation": raw})
	}
	for name, spoil := range map[string]func(*plc.Data){
		"rotation key": func(d *plc.Data) { d.RotationKeys = d.RotationKeys[:1] },
		"endpoint":     func(d *plc.Data) { d.SetPDS("https://evil.example.com") },
		"type": func(d *plc.Data) {
			d.Services["atproto_pds"] = plc.Service{Type: "Other", Endpoint: "http://localhost:2583"}
		},
		"key":    func(d *plc.Data) { d.SetSigningKey(f.key.Public().DIDKey()) },
		"handle": func(d *plc.Data) { d.SetHandle("dave.example.com") },
	} {
		bad := d.Clone()
		spoil(&bad)
		if a := submit(bad); a.Status != 400 || a.Name != "InvalidRequest" {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	want(t, submit(d), 200, "")
	before = n.log.Head()
	want(t, n.call("com.atproto.server.activateAccount", tok, nil), 200, "")
	if got := n.log.Head() - before; got != 3 {
		t.Errorf("activation made %d events, want #identity, #account and #sync", got)
	}
	want(t, n.call("com.atproto.server.activateAccount", tok, nil), 200, "")
	key, _ := keys.ParseDIDKey(row.PublicKey)
	n.checkRepo(f.did, key)
	st = n.query("com.atproto.server.checkAccountStatus", tok)
	if st.JSON["activated"] != true || st.JSON["validDid"] != true {
		t.Errorf("status: %s", st.Body)
	}
}

func TestCallerSignsGenesis(t *testing.T) {
	n := newNetwork(t, Config{})
	k := n.call("com.atproto.server.reserveSigningKey", "", map[string]any{})
	want(t, k, 200, "")
	mine, err := keys.Generate(keys.P256, randomReader{n.Service})
	if err != nil {
		t.Fatal(err)
	}
	genesis := func(d plc.Data) any {
		op := plc.NewOperation(d, cid.CID{})
		if err := op.Sign(mine); err != nil {
			t.Fatal(err)
		}
		var raw any
		if err := json.Unmarshal(op.AppendJSON(nil), &raw); err != nil {
			t.Fatal(err)
		}
		return raw
	}
	server := n.accounts.secrets.rotation.Public().DIDKey()
	good := plc.AtprotoData(k.str("signingKey"), "erin.test", "http://localhost:2583", mine.Public().DIDKey(), server)
	for name, spoil := range map[string]func(*plc.Data){
		"server key missing": func(d *plc.Data) { d.RotationKeys = d.RotationKeys[:1] },
		"key not reserved":   func(d *plc.Data) { d.SetSigningKey(mine.Public().DIDKey()) },
		"other endpoint":     func(d *plc.Data) { d.SetPDS("https://evil.example.com") },
		"other handle":       func(d *plc.Data) { d.SetHandle("mallory.test") },
		"not its own signer": func(d *plc.Data) { d.RotationKeys = d.RotationKeys[1:] },
	} {
		t.Run(name, func(t *testing.T) {
			d := good.Clone()
			spoil(&d)
			in := signUpInput("erin")
			in["plcOp"] = genesis(d)
			want(t, n.call("com.atproto.server.createAccount", "", in), 400, "IncompatibleDidDoc")
		})
	}
	in := signUpInput("erin")
	in["plcOp"] = genesis(good)
	a := n.call("com.atproto.server.createAccount", "", in)
	want(t, a, 200, "")
	key, _ := keys.ParseDIDKey(k.str("signingKey"))
	n.checkRepo(syntax.DID(a.str("did")), key)
}
