package interop

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"image"
	"image/color"
	"image/png"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/bsky"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/interop/refpds"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// The packages of the SDK, each against the reference PDS.
func TestSDK(t *testing.T) {
	s := &sdk{pds: refpds.Start(t, refpds.Options{})}
	s.dir = s.pds.Directory()
	t.Run("identity", s.identity)
	t.Run("sessions", s.sessions)
	t.Run("refusals", s.refusals)
	t.Run("app passwords", s.appPasswords)
	t.Run("service auth", s.serviceAuth)
	t.Run("records", s.records)
	t.Run("writes", s.writes)
	t.Run("blobs", s.blobs)
	t.Run("bsky", s.bsky)
	t.Run("firehose", s.firehose)
}

type sdk struct {
	pds *refpds.PDS
	dir *identity.Directory
}

func (s *sdk) login(t *testing.T, a refpds.Account, o auth.Options) *auth.Account {
	t.Helper()
	account, err := auth.New(o).Login(t.Context(), s.pds.URL, auth.Credentials{Identifier: a.Handle, Password: a.Password, DID: a.DID})
	if err != nil {
		t.Fatal(err)
	}
	return account
}

// writer makes an account and returns a client that writes to it, and the key of its repository.
func (s *sdk) writer(t *testing.T, name string) (*client.Client, refpds.Account, *keys.PublicKey) {
	t.Helper()
	a := s.pds.CreateAccount(t, name)
	key, err := s.dir.Key(t.Context(), a.DID, identity.FragmentKey, true)
	if err != nil {
		t.Fatal(err)
	}
	return client.ForAccount(s.login(t, a, auth.Options{}), client.Options{}), a, key
}

func (s *sdk) identity(t *testing.T) {
	a := s.pds.CreateAccount(t, "resolved")
	for _, at := range []string{a.Handle, string(a.DID), "RESOLVED.Test"} {
		id, err := s.dir.Lookup(t.Context(), syntax.AtIdentifier(at))
		if err != nil {
			t.Fatal(err)
		}
		if id.DID != a.DID || string(id.Handle) != a.Handle || id.PDS != s.pds.URL || id.SigningKey == nil {
			t.Errorf("%s resolves to %+v", at, id)
		}
	}
	if _, err := s.dir.Lookup(t.Context(), "nobody.test"); identity.KindOf(err) != identity.KindNotFound {
		t.Errorf("an unknown handle: %v", err)
	}
	if _, err := s.dir.ResolveDID(t.Context(), "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"); identity.KindOf(err) != identity.KindNotFound {
		t.Errorf("an unknown DID: %v", err)
	}

	// After a change of the handle the old one leads nowhere, and the DID to the new one.
	in := &comatproto.IdentityUpdateHandle_Input{Handle: "renamed.test"}
	if _, err := comatproto.IdentityUpdateHandle.Call(t.Context(), s.login(t, a, auth.Options{}).Client(), in); err != nil {
		t.Fatal(err)
	}
	if _, fresh, err := s.dir.Refresh(t.Context(), a.DID); err != nil {
		t.Fatal(err)
	} else if !fresh {
		// It was fetched a moment ago; a directory that knows nothing asks again.
		s.dir = s.pds.Directory()
	}
	if id, err := s.dir.LookupDID(t.Context(), a.DID); err != nil || id.Handle != "renamed.test" {
		t.Errorf("after the change: %+v, %v", id, err)
	}
}

// resign returns a token of the PDS with other claims.
func (s *sdk) resign(t *testing.T, token string, change func(claims map[string]any)) string {
	t.Helper()
	part := strings.Split(token, ".")
	b, err := base64.RawURLEncoding.DecodeString(part[1])
	if err != nil {
		t.Fatal(err)
	}
	claims := map[string]any{}
	if err := json.Unmarshal(b, &claims); err != nil {
		t.Fatal(err)
	}
	change(claims)
	if b, err = json.Marshal(claims); err != nil {
		t.Fatal(err)
	}
	part[1] = base64.RawURLEncoding.EncodeToString(b)
	mac := hmac.New(sha256.New, []byte(s.pds.TokenSecret))
	mac.Write([]byte(part[0] + "." + part[1]))
	return part[0] + "." + part[1] + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func expired(claims map[string]any) {
	claims["iat"], claims["exp"] = time.Now().Add(-2*time.Hour).Unix(), time.Now().Add(-time.Minute).Unix()
}

func (s *sdk) sessions(t *testing.T) {
	ctx := t.Context()
	a := s.pds.CreateAccount(t, "session-keeper")
	var events []auth.Event
	o := auth.Options{Store: auth.NewMemoryStore(), OnEvent: func(e auth.Event, _ auth.Session) { events = append(events, e) }}
	account := s.login(t, a, o)
	first := account.Session()
	if first.DID != a.DID || string(first.Handle) != a.Handle || first.PDS != s.pds.URL {
		t.Errorf("logged in as %v", first)
	}
	for name, c := range map[string]func() (auth.Claims, bool){"access": first.AccessClaims, "refresh": first.RefreshClaims} {
		if got, ok := c(); !ok || got.Subject != string(a.DID) || got.Expires.Before(time.Now().Add(time.Hour)) {
			t.Errorf("the %s token says %+v", name, got)
		}
	}
	whoami := func(a *auth.Account) {
		t.Helper()
		if out, err := comatproto.ServerGetSession.Call(ctx, a.Client(), nil); err != nil || out.Did != string(a.DID()) {
			t.Errorf("the session: %+v, %v", out, err)
		}
	}
	whoami(account)

	// The server says that the token has expired: it is renewed, and the request sent again.
	s1 := first
	s1.Access = s.resign(t, first.Access, expired)
	m := auth.New(o)
	account, err := m.Import(ctx, s1)
	if err != nil {
		t.Fatal(err)
	}
	post := &appbsky.FeedPost{Text: "with an expired token", CreatedAt: string(syntax.NewDatetime(time.Now()))}
	if _, err := client.Create(ctx, client.ForAccount(account, client.Options{}), post, client.WriteOptions{}); err != nil {
		t.Errorf("a write with an expired token: %v", err)
	}
	if got := account.Session(); got.Access == s1.Access || got.Refresh == s1.Refresh {
		t.Error("the session was not renewed")
	}
	if !slices.Equal(events, []auth.Event{auth.EventCreated, auth.EventImported, auth.EventRefreshed}) {
		t.Errorf("the events were %v", events)
	}
	if n := s.count(t, a.DID, "app.bsky.feed.post"); n != 1 {
		t.Errorf("the write with an expired token left %d records", n)
	}

	// With a clock the token is renewed before it is sent.
	before := account.Session()
	o.Now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	account, err = auth.New(o).Account(ctx, a.DID)
	if err != nil {
		t.Fatal(err)
	}
	whoami(account)
	if account.Session().Refresh == before.Refresh { // access tokens of one second are the same there
		t.Error("a token that is about to expire was not renewed")
	}

	// Many requests with an expired token renew it once.
	o.Now = nil
	events = nil
	s2 := account.Session()
	s2.Access = s.resign(t, s2.Access, expired)
	if account, err = auth.New(o).Import(ctx, s2); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	for range 8 {
		go func() {
			_, err := comatproto.ServerGetSession.Call(ctx, account.Client(), nil)
			done <- err
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if !slices.Equal(events, []auth.Event{auth.EventImported, auth.EventRefreshed}) {
		t.Errorf("eight requests at once: %v", events)
	}

	// After the logout the server takes neither token.
	last := account.Session()
	if err := account.Logout(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := comatproto.ServerGetSession.Call(ctx, account.Client(), nil); !errors.Is(err, auth.ErrLoginRequired) {
		t.Errorf("after the logout: %v", err)
	}
	last.Access = s.resign(t, last.Access, expired)
	if account, err = auth.New(auth.Options{}).Import(ctx, last); err != nil {
		t.Fatal(err)
	}
	_, err = comatproto.ServerGetSession.Call(ctx, account.Client(), nil)
	if _, ok := errors.AsType[*auth.RenewalError](err); !ok || !errors.Is(err, auth.ErrLoginRequired) {
		t.Errorf("a session that was ended: %v", err)
	}
}

// count returns how many records the PDS lists.
func (s *sdk) count(t *testing.T, did syntax.DID, collection syntax.NSID) (n int) {
	t.Helper()
	for _, err := range client.List[data.Raw](t.Context(), client.New(s.pds.URL, client.Options{}), syntax.AtIdentifier(did), client.ListOptions{Collection: collection}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

func (s *sdk) refusals(t *testing.T) {
	ctx := t.Context()
	a := s.pds.CreateAccount(t, "refusals")
	for name, c := range map[string]auth.Credentials{
		"wrong password": {Identifier: a.Handle, Password: "wrong"},
		"no account":     {Identifier: "nobody.test", Password: a.Password},
	} {
		_, err := auth.New(auth.Options{}).Login(ctx, s.pds.URL, c)
		if e, ok := errors.AsType[*xrpc.Error](err); !ok || e.Status != http.StatusUnauthorized || e.Name != "AuthenticationRequired" {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(err.Error(), c.Password) {
			t.Errorf("%s: the error shows the password", name)
		}
	}
	if _, err := auth.New(auth.Options{}).Login(ctx, s.pds.URL, auth.Credentials{Identifier: a.Handle, Password: a.Password, DID: "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"}); err == nil {
		t.Error("a session of another account than the one asked for was taken")
	}

	// A password that was changed ends the sessions.
	account := s.login(t, a, auth.Options{})
	if _, err := comatproto.AdminUpdateAccountPassword.Call(ctx, s.pds.Admin(), &comatproto.AdminUpdateAccountPassword_Input{Did: string(a.DID), Password: "another-password"}); err != nil {
		t.Fatal(err)
	}
	if err := account.Renew(ctx); !errors.Is(err, auth.ErrLoginRequired) {
		t.Errorf("a session from before the password was changed: %v", err)
	}

	// An account that was taken down.
	b := s.pds.CreateAccount(t, "takendown")
	account = s.login(t, b, auth.Options{})
	subject := &comatproto.AdminUpdateSubjectStatus_Input{
		Subject:  comatproto.AdminUpdateSubjectStatus_Input_Subject{Value: &comatproto.AdminDefs_RepoRef{Did: string(b.DID)}},
		Takedown: &comatproto.AdminDefs_StatusAttr{Applied: true, Ref: new("1")},
	}
	if _, err := comatproto.AdminUpdateSubjectStatus.Call(ctx, s.pds.Admin(), subject); err != nil {
		t.Fatal(err)
	}
	_, err := auth.New(auth.Options{}).Login(ctx, s.pds.URL, auth.Credentials{Identifier: b.Handle, Password: b.Password})
	if !errors.Is(err, comatproto.ErrAccountTakedown) {
		t.Errorf("login of an account that was taken down: %v", err)
	}
	if err := account.Renew(ctx); !errors.Is(err, auth.ErrLoginRequired) {
		t.Errorf("the session of an account that was taken down: %v", err)
	}
	_, err = client.New(s.pds.URL, client.Options{}).Repo(ctx, b.DID, client.RepoOptions{SkipSignature: true})
	if !errors.Is(err, comatproto.ErrRepoTakendown) {
		t.Errorf("the repository of an account that was taken down: %v", err)
	}
}

func (s *sdk) appPasswords(t *testing.T) {
	ctx := t.Context()
	a := s.pds.CreateAccount(t, "apppasswords")
	main := s.login(t, a, auth.Options{}).Client()
	out, err := comatproto.ServerCreateAppPassword.Call(ctx, main, &comatproto.ServerCreateAppPassword_Input{Name: "a bot"})
	if err != nil {
		t.Fatal(err)
	}
	b := a
	b.Password = out.Password
	bot := s.login(t, b, auth.Options{})
	if c, _ := bot.Session().AccessClaims(); c.Scope != "com.atproto.appPass" {
		t.Errorf("a session by app password has the scope %q", c.Scope)
	}
	if _, err := client.Create(ctx, client.ForAccount(bot, client.Options{}), &appbsky.FeedPost{Text: "by a bot", CreatedAt: string(syntax.NewDatetime(time.Now()))}, client.WriteOptions{}); err != nil {
		t.Error(err)
	}
	_, err = comatproto.ServerCreateAppPassword.Call(ctx, bot.Client(), &comatproto.ServerCreateAppPassword_Input{Name: "another"})
	if e, ok := errors.AsType[*xrpc.Error](err); !ok || e.Status/100 != 4 {
		t.Errorf("an app password made by an app password: %v", err)
	}
	list, err := comatproto.ServerListAppPasswords.Call(ctx, main, nil)
	if err != nil || len(list.Passwords) != 1 || list.Passwords[0].Name != "a bot" {
		t.Errorf("the app passwords are %+v, %v", list, err)
	}
	if _, err := comatproto.ServerRevokeAppPassword.Call(ctx, main, &comatproto.ServerRevokeAppPassword_Input{Name: "a bot"}); err != nil {
		t.Fatal(err)
	}
	if err := bot.Renew(ctx); !errors.Is(err, auth.ErrLoginRequired) {
		t.Errorf("the session of a revoked app password: %v", err)
	}
	if _, err := auth.New(auth.Options{}).Login(ctx, s.pds.URL, auth.Credentials{Identifier: a.Handle, Password: b.Password}); err == nil {
		t.Error("a revoked app password was taken")
	}
}

func (s *sdk) serviceAuth(t *testing.T) {
	ctx := t.Context()
	c, a, key := s.writer(t, "serviceauth")
	const method = "app.bsky.feed.getFeedSkeleton"
	out, err := comatproto.ServerGetServiceAuth.Call(ctx, c.XRPC(), &comatproto.ServerGetServiceAuth_Params{Aud: "did:web:feed.example", Lxm: new(method)})
	if err != nil {
		t.Fatal(err)
	}
	v := &auth.ServiceValidator{Audiences: []string{"did:web:feed.example"}, Keys: s.dir.Key, Now: time.Now}
	if _, err := v.Validate(ctx, out.Token, "app.bsky.feed.getFeed"); err == nil {
		t.Error("a token for another method was taken")
	}
	got, err := v.Validate(ctx, out.Token, method)
	if err != nil {
		t.Fatal(err)
	}
	if got.Issuer != a.DID {
		t.Errorf("the token is %+v", got)
	}
	other := &auth.ServiceValidator{Audiences: []string{"did:web:other.example"}, Keys: auth.OneKey(a.DID, key), Now: time.Now}
	if _, err := other.Validate(ctx, out.Token, method); err == nil {
		t.Error("a token for another service was taken")
	}
}

func (s *sdk) records(t *testing.T) {
	ctx := t.Context()
	c, a, key := s.writer(t, "records")
	public := client.New(s.pds.URL, client.Options{})

	// Typed.
	now := string(syntax.NewDatetime(time.Now()))
	post := &appbsky.FeedPost{Text: "grüß Gott 🌤", CreatedAt: now, Langs: []string{"de"}}
	ref, err := client.Create(ctx, c, post, client.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !ref.Commit.Defined() || ref.Rev == "" {
		t.Errorf("the answer to a write lacks its commit: %+v", ref)
	}
	for name, o := range map[string]client.GetOptions{"plain": {}, "this version": {CID: ref.CID}, "with proof": {Key: key}} {
		got, err := client.Get[appbsky.FeedPost](ctx, public, ref.URI, o)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got.URI != ref.URI || got.CID != ref.CID || got.Value.Text != post.Text || !slices.Equal(got.Value.Langs, post.Langs) {
			t.Errorf("%s: got %+v", name, got)
		}
		if (o.Key != nil) != (got.Proof != nil) {
			t.Errorf("%s: the proof is %v", name, got.Proof)
		}
	}
	byHandle := syntax.NewATURI(syntax.AtIdentifier(a.Handle), "app.bsky.feed.post", ref.URI.RecordKey())
	if got, err := client.Get[appbsky.FeedPost](ctx, public, byHandle, client.GetOptions{}); err != nil || got.CID != ref.CID {
		t.Errorf("by handle: %+v, %v", got, err)
	}

	if got, err := client.Fetch[appbsky.FeedPost](ctx, string(byHandle), s.fetch()); err != nil || got.CID != ref.CID || got.Proof == nil {
		t.Errorf("by name, with everything looked up: %+v, %v", got, err)
	}

	// A proof with another account's key is none.
	wrong, err := keys.Generate(keys.K256, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Get[appbsky.FeedPost](ctx, public, ref.URI, client.GetOptions{Key: wrong.Public()})
	if v, ok := errors.AsType[*repo.VerifyError](err); !ok || v.Reason != repo.ReasonSignature {
		t.Errorf("a proof with the wrong key: %v", err)
	}
	nothing := syntax.NewATURI(syntax.AtIdentifier(a.DID), "app.bsky.feed.post", "3aaaaaaaaaaaa")
	for name, o := range map[string]client.GetOptions{"plain": {}, "with proof": {Key: key}} {
		if _, err := client.Get[appbsky.FeedPost](ctx, public, nothing, o); !errors.Is(err, client.ErrRecordNotFound) {
			t.Errorf("a record that isn't there, %s: %v", name, err)
		}
	}

	// Put, with and without what it must replace.
	profile := &appbsky.ActorProfile{DisplayName: new("first")}
	one, err := client.Put(ctx, c, "self", profile, client.WriteOptions{MustNotExist: true})
	if err != nil {
		t.Fatal(err)
	}
	profile.DisplayName = new("second") // a put that changes nothing succeeds there, whatever it must replace
	if _, err := client.Put(ctx, c, "self", profile, client.WriteOptions{MustNotExist: true}); !errors.Is(err, comatproto.ErrInvalidSwap) {
		t.Errorf("a put where there must be nothing: %v", err)
	}
	two, err := client.Put(ctx, c, "self", profile, client.WriteOptions{SwapRecord: one.CID})
	if err != nil {
		t.Fatal(err)
	}
	profile.Description = new("third")
	if _, err := client.Put(ctx, c, "self", profile, client.WriteOptions{SwapRecord: one.CID}); !errors.Is(err, comatproto.ErrInvalidSwap) {
		t.Errorf("a put in place of an old version: %v", err)
	}
	if got, err := client.Get[appbsky.ActorProfile](ctx, public, two.URI, client.GetOptions{Key: key}); err != nil || got.Value.DisplayName == nil || *got.Value.DisplayName != "second" {
		t.Errorf("the profile is %+v, %v", got, err)
	}

	// Untyped, of a schema that the PDS doesn't know, with all kinds of values.
	note, err := data.ParseRecord([]byte(`{"$type":"com.example.note","text":"untyped","n":[0,-1,9007199254740991],"b":{"$bytes":"AQID"},
		"l":{"$link":"bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"},"u":{"$type":"com.example.other","x":null},"ü":true}`))
	if err != nil {
		t.Fatal(err)
	}
	var notes []client.Ref
	for i := range 5 {
		ref, err := client.Create(ctx, c, &note, client.WriteOptions{RecordKey: syntax.RecordKey("note-" + string(rune('a'+i)))})
		if err != nil {
			t.Fatal(err)
		}
		notes = append(notes, *ref)
	}
	if _, err := client.Create(ctx, c, &note, client.WriteOptions{Validate: new(true)}); err == nil {
		t.Error("a record was validated against a schema that the PDS can't know")
	}
	if got, err := client.Get[data.Raw](ctx, public, notes[0].URI, client.GetOptions{Key: key}); err != nil || !bytes.Equal(got.Value, note) {
		t.Errorf("the record came back as %x, %v; want %x", got.Value, err, note)
	}
	broken := data.Raw(bytes.Clone(note))
	bad, err := data.ParseRecord([]byte(`{"$type":"app.bsky.feed.post","text":1}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Create(ctx, c, &bad, client.WriteOptions{}); !errors.Is(err, xrpc.ErrInvalidRequest) {
		t.Errorf("a post that breaks its schema: %v", err)
	}
	if !bytes.Equal(broken, note) {
		t.Error("a record was changed by writing it")
	}

	// Lists, of pages smaller than they are, both ways.
	for _, reverse := range []bool{false, true} {
		var keys []string
		for r, err := range client.List[data.Raw](ctx, public, syntax.AtIdentifier(a.Handle), client.ListOptions{Collection: "com.example.note", Limit: 2, Reverse: reverse}) {
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, string(r.URI.RecordKey()))
		}
		want := []string{"note-e", "note-d", "note-c", "note-b", "note-a"}
		if reverse {
			slices.Reverse(want)
		}
		if !slices.Equal(keys, want) {
			t.Errorf("listed %v, want %v", keys, want)
		}
	}

	// Delete, twice.
	for range 2 {
		if _, err := c.Delete(ctx, notes[0].URI, client.WriteOptions{}); err != nil {
			t.Error(err)
		}
	}
	if _, err := client.Get[data.Raw](ctx, public, notes[0].URI, client.GetOptions{Key: key}); !errors.Is(err, client.ErrRecordNotFound) {
		t.Errorf("a deleted record: %v", err)
	}

	// The whole, verified.
	d, err := public.DescribeRepo(ctx, syntax.AtIdentifier(a.Handle))
	if err != nil || d.DID != a.DID || string(d.Handle) != a.Handle || len(d.Collections) != 3 {
		t.Errorf("the repository is described as %+v, %v", d, err)
	}
	got := s.export(t, a.DID, key)
	want := map[string]cid.CID{string(ref.URI.Path()): ref.CID, string(two.URI.Path()): two.CID}
	for _, n := range notes[1:] {
		want[string(n.URI.Path())] = n.CID
	}
	if len(got) != len(want) {
		t.Errorf("the export has %d records, want %d", len(got), len(want))
	}
	for path, id := range want {
		if got[path] != id {
			t.Errorf("%s is %s in the export, want %s", path, got[path], id)
		}
	}
	if _, err := public.Repo(ctx, a.DID, client.RepoOptions{Key: wrong.Public()}); err == nil {
		t.Error("an export was verified with the wrong key")
	}
	found := false
	for r, err := range public.ListRepos(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		found = found || r.DID == a.DID && r.Active
	}
	if !found {
		t.Error("the account is not among the PDS's repositories")
	}
}

// fetch says who is where, for what is fetched by name, and lets it go to this machine.
func (s *sdk) fetch() client.FetchOptions {
	return client.FetchOptions{Options: client.Options{Identity: s.dir, HTTP: http.DefaultClient}}
}

// export reads a repository with everything verified: path → CID.
func (s *sdk) export(t *testing.T, did syntax.DID, key *keys.PublicKey) map[string]cid.CID {
	t.Helper()
	r, err := client.New(s.pds.URL, client.Options{}).Repo(t.Context(), did, client.RepoOptions{Key: key, Records: repo.RecordsStrict, Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	out := map[string]cid.CID{}
	for rec, err := range r.Records() {
		if err != nil {
			t.Fatal(err)
		}
		out[string(rec.Path)] = rec.CID
	}
	if rep := r.Report(); !rep.OK() {
		t.Errorf("the export of %s: %+v", did, rep.Failed())
	}
	return out
}

func (s *sdk) writes(t *testing.T) {
	ctx := t.Context()
	c, a, key := s.writer(t, "writes")
	note := func(text string) data.Raw {
		raw, err := data.ParseRecord([]byte(`{"$type":"com.example.note","text":"` + text + `"}`))
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	type write = comatproto.RepoApplyWrites_Input_Writes_Elem
	in := &comatproto.RepoApplyWrites_Input{Repo: string(a.DID), Writes: []write{
		{Value: &comatproto.RepoApplyWrites_Create{Collection: "com.example.note", Rkey: new("a"), Value: note("a")}},
		{Value: &comatproto.RepoApplyWrites_Create{Collection: "com.example.note", Rkey: new("b"), Value: note("b")}},
		{Value: &comatproto.RepoApplyWrites_Create{Collection: "com.example.note", Value: note("c")}},
	}}
	out, err := comatproto.RepoApplyWrites.Call(ctx, c.XRPC(), in)
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Results) != 3 || out.Commit == nil {
		t.Fatalf("the answer is %+v", out)
	}
	created, ok := out.Results[0].Value.(*comatproto.RepoApplyWrites_CreateResult)
	if !ok || created.Cid != cid.Sum(cid.DagCBOR, note("a")).String() {
		t.Errorf("the first result is %+v", out.Results[0].Value)
	}
	head, err := cid.Parse(out.Commit.Cid)
	if err != nil {
		t.Fatal(err)
	}
	in = &comatproto.RepoApplyWrites_Input{Repo: string(a.DID), SwapCommit: new(head.String()), Writes: []write{
		{Value: &comatproto.RepoApplyWrites_Update{Collection: "com.example.note", Rkey: "a", Value: note("new")}},
		{Value: &comatproto.RepoApplyWrites_Delete{Collection: "com.example.note", Rkey: "b"}},
	}}
	if _, err := comatproto.RepoApplyWrites.Call(ctx, c.XRPC(), in); err != nil {
		t.Fatal(err)
	}
	if _, err := comatproto.RepoApplyWrites.Call(ctx, c.XRPC(), in); !errors.Is(err, comatproto.ErrInvalidSwap) {
		t.Errorf("writes on an old commit: %v", err)
	}
	// All or nothing.
	in = &comatproto.RepoApplyWrites_Input{Repo: string(a.DID), Writes: []write{
		{Value: &comatproto.RepoApplyWrites_Create{Collection: "com.example.note", Rkey: new("d"), Value: note("d")}},
		{Value: &comatproto.RepoApplyWrites_Update{Collection: "com.example.note", Rkey: "nothing", Value: note("e")}},
	}}
	if _, err := comatproto.RepoApplyWrites.Call(ctx, c.XRPC(), in); err == nil {
		t.Error("an update of a record that isn't there was taken")
	}
	got := s.export(t, a.DID, key)
	if len(got) != 2 || got["com.example.note/a"] != cid.Sum(cid.DagCBOR, note("new")) {
		t.Errorf("the repository has %v", got)
	}
}

// picture returns a PNG that no other call returns.
func picture(t *testing.T, width, height int) []byte {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, width, height))
	b := make([]byte, 3)
	for i := range width {
		rand.Read(b)
		m.Set(i, i%height, color.RGBA{b[0], b[1], b[2], 255})
	}
	var out bytes.Buffer
	if err := png.Encode(&out, m); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func (s *sdk) blobs(t *testing.T) {
	ctx := t.Context()
	c, a, _ := s.writer(t, "blobs")
	public := client.New(s.pds.URL, client.Options{})
	b := picture(t, 64, 48)
	blob, err := c.UploadBlob(ctx, bytes.NewReader(b), "image/png", int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if blob.Ref != cid.Sum(cid.Raw, b) || blob.Size != int64(len(b)) || blob.MimeType != "image/png" {
		t.Errorf("the blob is %+v", blob)
	}
	// Of unknown length, as a stream.
	again, err := c.UploadBlob(ctx, io.MultiReader(bytes.NewReader(b[:10]), bytes.NewReader(b[10:])), "image/png", 0)
	if err != nil || again.Ref != blob.Ref {
		t.Errorf("uploaded once more: %+v, %v", again, err)
	}
	if _, err := public.Blob(ctx, a.DID, blob.Ref, 0); err == nil {
		t.Error("a blob that no record refers to was given out")
	}
	if _, err := client.Put(ctx, c, "self", &appbsky.ActorProfile{Avatar: blob}, client.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	r, err := public.Blob(ctx, a.DID, blob.Ref, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, b) || r.Type != "image/png" || r.Size != int64(len(b)) {
		t.Errorf("the blob came back as %d bytes of %s, %v", len(got), r.Type, err)
	}
	if _, err := client.FetchBlob(ctx, a.Handle, blob.Ref, int64(len(b))-1, s.fetch()); !errors.Is(err, client.ErrTooLarge) {
		t.Errorf("a blob larger than allowed: %v", err)
	}
	if _, err := public.Blob(ctx, a.DID, cid.Sum(cid.Raw, []byte("nothing")), 0); err == nil {
		t.Error("a blob that isn't there was given out")
	}
	big := make([]byte, 6<<20) // the PDS takes 5 MiB
	_, err = c.UploadBlob(ctx, bytes.NewReader(big), "application/octet-stream", int64(len(big)))
	if e, ok := errors.AsType[*xrpc.Error](err); !ok || e.Status != http.StatusRequestEntityTooLarge {
		t.Errorf("a blob larger than the PDS takes: %v", err)
	}
}

func (s *sdk) bsky(t *testing.T) {
	ctx := t.Context()
	a, b := s.pds.CreateAccount(t, "erika"), s.pds.CreateAccount(t, "max")
	u, err := url.Parse(s.pds.URL)
	if err != nil {
		t.Fatal(err)
	}
	o := bsky.Options{Identity: s.dir, HTTP: identity.Guarded(u.Host), Langs: []string{"de"}}
	// By handle, through the identity, without a word of where the PDS is.
	erika, err := bsky.Login(ctx, a.Handle, a.Password, o)
	if err != nil {
		t.Fatal(err)
	}
	max, err := bsky.Login(ctx, b.Email, b.Password, bsky.Options{Identity: s.dir, PDS: s.pds.URL})
	if err != nil {
		t.Fatal(err)
	}
	pic := picture(t, 300, 200)
	post, err := erika.Post(ctx, bsky.Post{Text: "grüß dich @max.test, sieh https://atproto.com/specs 🌤 #Wetter", Images: []bsky.Image{{Data: pic, Alt: "Punkte"}}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := client.Get[appbsky.FeedPost](ctx, erika.PDS(), post.URI, client.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got.CID != post.CID || !slices.Equal(got.Value.Langs, []string{"de"}) || len(got.Value.Facets) != 3 {
		t.Fatalf("the post is %+v", got.Value)
	}
	var features []string
	for _, f := range got.Value.Facets {
		text := got.Value.Text[f.Index.ByteStart:f.Index.ByteEnd]
		switch v := f.Features[0].Value.(type) {
		case *appbsky.RichtextFacet_Mention:
			features = append(features, text+" = "+v.Did)
		case *appbsky.RichtextFacet_Link:
			features = append(features, text+" = "+v.Uri)
		case *appbsky.RichtextFacet_Tag:
			features = append(features, text+" = "+v.Tag)
		}
	}
	if want := []string{"@max.test = " + string(b.DID), "https://atproto.com/specs = https://atproto.com/specs", "#Wetter = Wetter"}; !slices.Equal(features, want) {
		t.Errorf("the facets are %q, want %q", features, want)
	}
	embed, ok := got.Value.Embed.Value.(*appbsky.EmbedImages)
	if !ok || len(embed.Images) != 1 || embed.Images[0].Alt != "Punkte" || embed.Images[0].AspectRatio == nil || embed.Images[0].AspectRatio.Width != 300 {
		t.Fatalf("the images are %+v", got.Value.Embed.Value)
	}
	if _, err := client.FetchBlob(ctx, a.Handle, embed.Images[0].Image.Ref, 0, s.fetch()); err != nil {
		t.Errorf("the picture: %v", err)
	}

	// The PDS has no AppView here: whatever can do without one, must.
	subject := post
	like, err := max.LikeRef(ctx, subject)
	if err != nil {
		t.Fatal(err)
	}
	repost, err := max.RepostRef(ctx, subject)
	if err != nil {
		t.Fatal(err)
	}
	follow, err := max.Follow(ctx, a.Handle)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := max.Post(ctx, bsky.Post{Text: "danke", ReplyTo: string(post.URI)})
	if err != nil {
		t.Fatal(err)
	}
	second, err := erika.Post(ctx, bsky.Post{Text: "bitte", ReplyTo: string(reply.URI)})
	if err != nil {
		t.Fatal(err)
	}
	r, err := client.Get[appbsky.FeedPost](ctx, erika.PDS(), second.URI, client.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if p := r.Value.Reply; p == nil || p.Root.Uri != string(post.URI) || p.Root.Cid != post.CID.String() || p.Parent.Uri != string(reply.URI) || p.Parent.Cid != reply.CID.String() {
		t.Errorf("the reply refers to %+v", r.Value.Reply)
	}
	thread, err := erika.Thread(ctx, bsky.Post{Text: "one"}, bsky.Post{Text: "two", Quote: string(reply.URI)}, bsky.Post{Text: "three"})
	if err != nil {
		t.Fatal(err)
	}
	if len(thread) != 3 || s.count(t, a.DID, "app.bsky.feed.post") != 5 {
		t.Errorf("the thread is %v", thread)
	}
	for _, ref := range []bsky.Ref{like, repost, follow} {
		if _, err := client.Get[data.Raw](ctx, max.PDS(), ref.URI, client.GetOptions{CID: ref.CID}); err != nil {
			t.Error(err)
		}
		if err := max.Delete(ctx, string(ref.URI)); err != nil {
			t.Error(err)
		}
	}
	if err := max.Delete(ctx, string(post.URI)); !errors.Is(err, bsky.ErrNotYours) {
		t.Errorf("another's post was deleted: %v", err)
	}

	// A profile is changed by comparing and swapping, also where there is none.
	for i, name := range []string{"Erika", "Erika M."} {
		_, err := erika.UpdateProfile(ctx, func(p *appbsky.ActorProfile) error {
			if i == 1 && (p.DisplayName == nil || *p.DisplayName != "Erika") {
				t.Errorf("the profile before the second change: %+v", p)
			}
			p.DisplayName = new(name)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if p, err := erika.Profile(ctx); err != nil || *p.DisplayName != "Erika M." {
		t.Errorf("the profile is %+v, %v", p, err)
	}

	// Preferences are the PDS's own.
	err = erika.UpdatePreferences(ctx, func(p appbsky.ActorDefs_Preferences) (appbsky.ActorDefs_Preferences, error) {
		return append(p, appbsky.ActorDefs_Preferences_Elem{Value: &appbsky.ActorDefs_AdultContentPref{Enabled: true}}), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := erika.Preferences(ctx); err != nil || len(p) != 1 {
		t.Errorf("the preferences are %+v, %v", p, err)
	}
}

// firehose reads the stream of all that the tests before it did, and verifies each message as the successor of the one
// before it. At its end every repository is in the state that its export has.
func (s *sdk) firehose(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	want := map[syntax.DID]string{}
	for r, err := range client.New(s.pds.URL, client.Options{}).ListRepos(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if r.Active {
			want[r.DID] = r.Rev
		}
	}
	if len(want) < 5 {
		t.Fatalf("the PDS has %d repositories", len(want))
	}
	states := map[string]*repo.State{}
	kinds := map[string]int{}
	records := 0
	missing := map[syntax.DID]bool{}
	for did := range want {
		missing[did] = true
	}
	key := func(did string) *keys.PublicKey {
		k, err := s.dir.Key(ctx, syntax.DID(did), identity.FragmentKey, false)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	for f, err := range stream.Subscribe(ctx, s.pds.URL, stream.SubscribeOptions{After: new(int64(0)), MaxAttempts: 1}) {
		if err != nil {
			t.Fatalf("%d repositories are missing from the stream: %v", len(missing), err)
		}
		m, err := f.Message()
		if err != nil {
			t.Fatal(err)
		}
		kinds[m.FrameType()]++
		did := m.Subject()
		var next repo.State
		o := repo.VerifyOptions{Now: time.Now(), Records: repo.RecordsStrict}
		switch m := m.(type) {
		case *stream.Commit:
			if next, err = repo.VerifyCommit(m.Verifiable(len(f.Raw)), key(did), states[did], o); err != nil {
				t.Fatalf("#commit %d: %v", m.Seq, err)
			}
			list, err := m.Records()
			if err != nil {
				t.Fatal(err)
			}
			records += len(list)
		case *stream.Sync:
			if next, err = repo.VerifySync(m.Verifiable(len(f.Raw)), key(did), states[did], o); err != nil {
				t.Fatalf("#sync %d: %v", m.Seq, err)
			}
		default:
			continue
		}
		states[did] = &next
		if want[syntax.DID(did)] == string(next.Rev) {
			delete(missing, syntax.DID(did))
		}
		if len(missing) == 0 {
			break
		}
	}
	if len(missing) != 0 {
		t.Fatalf("%d repositories are missing from the stream", len(missing))
	}
	for _, kind := range []string{stream.TypeCommit, stream.TypeSync, stream.TypeIdentity, stream.TypeAccount} {
		if kinds[kind] == 0 {
			t.Errorf("no %s came", kind)
		}
	}
	t.Logf("verified: %v, with %d operations of %d repositories", kinds, records, len(want))
	for did := range want {
		r, err := client.New(s.pds.URL, client.Options{}).Repo(ctx, did, client.RepoOptions{Key: key(string(did))})
		if err != nil {
			t.Fatal(err)
		}
		if r.State() != *states[string(did)] {
			t.Errorf("%s: the stream ends with %+v, the export has %+v", did, *states[string(did)], r.State())
		}
		r.Close()
	}
}
