package lexres_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/barograph/baro/data"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/identity/lexres"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/repo/repotest"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

const (
	did    = repotest.DID
	other  = syntax.DID("did:plc:other2222222222222222222")
	postID = syntax.NSID("com.example.feed.post")
)

// dns answers TXT questions.
type dns struct {
	mu    sync.Mutex
	zone  map[string][]string
	err   error
	asked []string
}

func (d *dns) LookupTXT(ctx context.Context, name string) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, name)
	if d.err != nil {
		return nil, d.err
	}
	if v, ok := d.zone[name]; ok {
		return v, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (d *dns) set(err error, name string, values ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err, d.zone[name] = err, values
}

// directory knows one document, and a fresher one.
type directory struct {
	doc, fresh *identity.Document
	err        error
	refreshed  atomic.Int64
}

func (d *directory) ResolveDID(_ context.Context, id syntax.DID) (*identity.Document, error) {
	if d.err != nil {
		return nil, d.err
	}
	doc := *d.doc
	doc.DID = id
	return &doc, nil
}

func (d *directory) Refresh(ctx context.Context, id syntax.DID) (*identity.Document, bool, error) {
	d.refreshed.Add(1)
	if d.fresh != nil {
		return d.fresh, true, nil
	}
	doc, err := d.ResolveDID(ctx, id)
	return doc, true, err
}

// signed is a repository.
type signed struct {
	u       *repo.Update
	tree    *mst.Tree
	records map[string][]byte
}

func sign(t testing.TB, who syntax.DID, rev syntax.TID, key *keys.PrivateKey, records map[string][]byte) *signed {
	t.Helper()
	var writes []repo.Write
	for p, r := range records {
		writes = append(writes, repo.Write{Path: p, Record: r})
	}
	u, tree, err := repo.Apply(mst.New(), writes, who, rev, key)
	if err != nil {
		t.Fatal(err)
	}
	return &signed{u, tree, records}
}

func (s *signed) proof(t testing.TB, path string) []byte {
	t.Helper()
	b, err := repo.MakeProof(s.u.Block, s.tree, path, s.records[path])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func record(t testing.TB, json string) []byte {
	t.Helper()
	b, err := data.AppendCBOR(nil, []byte(json))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func schemaJSON(id syntax.NSID) string {
	return fmt.Sprintf(`{"$type":"com.atproto.lexicon.schema","lexicon":1,"id":%q,"defs":{"main":{"type":"record","key":"tid","record":{"type":"object","properties":{"text":{"type":"string"}}}}}}`, id)
}

func path(id syntax.NSID) string { return "com.atproto.lexicon.schema/" + string(id) }

// scene is a world with one authority, whose PDS answers as it is told.
type scene struct {
	t      testing.TB
	dns    *dns
	dir    *directory
	repo   *signed
	server *httptest.Server
	serve  http.HandlerFunc // com.atproto.sync.getRecord; nil: truthfully
	asked  atomic.Int64
	now    time.Time
	o      lexres.Options
}

func newScene(t testing.TB) *scene {
	s := &scene{t: t, dns: &dns{zone: map[string][]string{"_lexicon.feed.example.com": {"did=" + string(did)}}}}
	s.now = repotest.Rev.Time().Add(time.Hour)
	s.repo = sign(t, did, repotest.Rev, repotest.Key(), map[string][]byte{
		path(postID):                            record(t, schemaJSON(postID)),
		path("com.example.feed.wrongId"):        record(t, schemaJSON(postID)),
		path("com.example.feed.wrongType"):      record(t, strings.Replace(schemaJSON("com.example.feed.wrongType"), "com.atproto.lexicon.schema", "com.example.note", 1)),
		path("com.example.feed.wrongVersion"):   record(t, strings.Replace(schemaJSON("com.example.feed.wrongVersion"), `"lexicon":1`, `"lexicon":2`, 1)),
		path("com.example.feed.nonsense"):       record(t, `{"$type":"com.atproto.lexicon.schema","lexicon":1,"id":"com.example.feed.nonsense","defs":{"main":{"type":"ref","ref":"x"}}}`),
		path("com.example.feed.notEvenASchema"): record(t, `{"$type":"com.atproto.lexicon.schema","lexicon":1}`),
		path("com.example.elsewhere.thing"):     record(t, schemaJSON("com.example.elsewhere.thing")),
	})
	s.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		if r.URL.Path != "/xrpc/com.atproto.sync.getRecord" {
			t.Errorf("asked for %s", r.URL)
		}
		if s.serve != nil {
			s.serve(w, r)
			return
		}
		q := r.URL.Query()
		s.car(w, s.repo.proof(t, q.Get("collection")+"/"+q.Get("rkey")))
	}))
	t.Cleanup(s.server.Close)
	s.dir = &directory{doc: &identity.Document{DID: did, PDS: s.server.URL, SigningKey: repotest.Key().Public()}}
	s.o = lexres.Options{Resolver: s.dns, Directory: s.dir, HTTP: s.server.Client(), Now: func() time.Time { return s.now }}
	return s
}

func (s *scene) car(w http.ResponseWriter, b []byte) {
	w.Header().Set("Content-Type", "application/vnd.ipld.car")
	_, _ = w.Write(b)
}

func (s *scene) wantKind(id syntax.NSID, want lexres.Kind) *lexres.Error {
	s.t.Helper()
	x, err := lexres.New(s.o).Resolve(s.t.Context(), id)
	if lexres.KindOf(err) != want {
		s.t.Fatalf("%s: %v, %v; want kind %q", id, x, err, want)
	}
	var e *lexres.Error
	errors.As(err, &e)
	return e
}

func TestResolve(t *testing.T) {
	s := newScene(t)
	r := lexres.New(s.o)
	x, err := r.Resolve(t.Context(), "Com.Example.feed.post") // an authority has no case
	if err != nil {
		t.Fatal(err)
	}
	if x.NSID != postID || x.URI != "at://"+syntax.ATURI(did)+"/com.atproto.lexicon.schema/com.example.feed.post" || x.Stale || x.Rev != repotest.Rev ||
		x.Schema.Main().Type != lexicon.TypeRecord || x.Authority.DID != did || x.Authority.Domain != "feed.example.com" || x.PDS != s.server.URL || len(x.Steps) < 3 {
		t.Errorf("%+v", x)
	}
	if len(s.dns.asked) != 1 || s.dns.asked[0] != "_lexicon.feed.example.com" {
		t.Errorf("asked DNS for %q", s.dns.asked)
	}
	if _, err := r.Resolve(t.Context(), postID); err != nil {
		t.Fatal(err)
	}
	if len(s.dns.asked) != 1 || s.asked.Load() != 1 {
		t.Errorf("asked DNS %d times and the PDS %d times", len(s.dns.asked), s.asked.Load())
	}
	r.Purge(postID)
	if _, err := r.Resolve(t.Context(), postID); err != nil {
		t.Fatal(err)
	}
	if len(s.dns.asked) != 2 || s.asked.Load() != 2 {
		t.Errorf("after a purge: asked DNS %d times and the PDS %d times", len(s.dns.asked), s.asked.Load())
	}
	// Nothing is looked for above or below a name, even though the repository has it.
	s.wantKind("com.example.elsewhere.thing", lexres.KindNoAuthority)
	if got := s.dns.asked[len(s.dns.asked)-1]; got != "_lexicon.elsewhere.example.com" {
		t.Errorf("asked for %s", got)
	}
	if x, err := r.ResolveAt(t.Context(), did, "com.example.elsewhere.thing"); err != nil || x.Authority != nil {
		t.Errorf("%+v, %v", x, err)
	}
}

func TestAuthorities(t *testing.T) {
	const good = "did=" + string(did)
	many := make([]string, 5000)
	for i := range many {
		many[i] = fmt.Sprintf("v=%d", i)
	}
	timeout := &net.DNSError{Err: "i/o timeout", IsTimeout: true, IsTemporary: true}
	for name, c := range map[string]struct {
		txt  []string
		err  error
		want lexres.Kind // "" for success
	}{
		"one":                {txt: []string{good}},
		"among others":       {txt: []string{"v=spf1 -all", good, "google-site-verification=x", ""}},
		"twice the same":     {txt: []string{good, good}},
		"bad ones beside it": {txt: []string{good, "did=nonsense", "did=", "did:plc:x", "DID=did:plc:x", " did=did:web:example.com"}},
		"two":                {txt: []string{good, "did=" + string(other)}, want: lexres.KindAmbiguous},
		"none":               {txt: []string{}, want: lexres.KindNoAuthority},
		"no DID":             {txt: []string{"hello", "did:plc:x"}, want: lexres.KindNoAuthority},
		"not a DID":          {txt: []string{"did=alice.example.com"}, want: lexres.KindNoAuthority},
		"a comma":            {txt: []string{good + ",did=" + string(other)}, want: lexres.KindNoAuthority},
		"too long":           {txt: []string{"did=did:plc:" + strings.Repeat("a", 70_000)}, want: lexres.KindNoAuthority},
		"not text":           {txt: []string{"\xff\xfe\x00", "did=\xff"}, want: lexres.KindNoAuthority},
		"too many":           {txt: append(many, good), want: lexres.KindAmbiguous},
		"no name":            {err: &net.DNSError{Err: "no such host", IsNotFound: true}, want: lexres.KindNoAuthority},
		"time out":           {err: timeout, want: lexres.KindUnreachable},
		"refused":            {err: &net.DNSError{Err: "server misbehaving", IsTemporary: true}, want: lexres.KindUnreachable},
		"cannot unmarshal":   {err: &net.DNSError{Err: "cannot unmarshal DNS message"}, want: lexres.KindUnreachable}, // a CNAME in circles ends so
		"anything":           {err: errors.New("resolver is on fire"), want: lexres.KindUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.dns.set(c.err, "_lexicon.feed.example.com", c.txt...)
			a, err := lexres.New(s.o).Authority(t.Context(), postID)
			if lexres.KindOf(err) != c.want || err == nil && a.DID != did {
				t.Fatalf("%+v, %v", a, err)
			}
			if err != nil {
				if len(err.Error()) > 1000 {
					t.Errorf("an error of %d bytes", len(err.Error()))
				}
				var e *lexres.Error
				if errors.As(err, &e); len(e.Values) > 9 || len(strings.Join(e.Values, "")) > 2000 {
					t.Errorf("%d values", len(e.Values))
				}
				if s.asked.Load() != 0 {
					t.Error("the PDS was asked")
				}
			}
		})
	}
}

func TestNames(t *testing.T) {
	long := "a" + strings.Repeat("b", 62)
	for id, want := range map[syntax.NSID]lexres.Kind{
		"":                            lexres.KindBadName,
		"com.example":                 lexres.KindBadName,
		"com.exаmple.feed.post":       lexres.KindBadName, // a Cyrillic а
		"com.example.feed.pоst":       lexres.KindBadName, // a Cyrillic о
		"com.example.feed.ｐost":       lexres.KindBadName,
		"com.example.feed.*":          lexres.KindBadName,
		"com.example.feed.post#":      lexres.KindBadName,
		"com.example\u200b.feed.post": lexres.KindBadName,
		syntax.NSID(strings.Join([]string{long, long, long, "a" + strings.Repeat("b", 57), "name"}, ".")): lexres.KindBadName, // no room for _lexicon.
		"localhost.feed.post":             lexres.KindNoAuthority,
		"internal.example.feed.post":      lexres.KindNoAuthority,
		"com.xn--exmple-4nf.feed.getPost": lexres.KindNoAuthority, // a look-alike domain is another domain
	} {
		t.Run(string(id), func(t *testing.T) {
			s := newScene(t)
			s.wantKind(id, want)
			for _, q := range s.dns.asked {
				if want == lexres.KindBadName {
					t.Errorf("asked for %q", q)
				}
			}
		})
	}
}

func TestRecords(t *testing.T) {
	for id, want := range map[syntax.NSID]lexres.Kind{
		"com.example.feed.wrongId":        lexres.KindSchema,
		"com.example.feed.wrongType":      lexres.KindSchema,
		"com.example.feed.wrongVersion":   lexres.KindSchema,
		"com.example.feed.nonsense":       lexres.KindSchema,
		"com.example.feed.notEvenASchema": lexres.KindSchema,
		"com.example.feed.nothing":        lexres.KindNotFound,
	} {
		t.Run(string(id), func(t *testing.T) {
			s := newScene(t)
			if e := s.wantKind(id, want); e.DID != did || e.Domain != "feed.example.com" || len(e.Values) != 1 {
				t.Errorf("%+v", e)
			}
		})
	}
}

// TestLies holds out a PDS that says what isn't so.
func TestLies(t *testing.T) {
	key2, err := keys.NewPrivate(keys.K256, bytes.Repeat([]byte{9}, 32))
	if err != nil {
		t.Fatal(err)
	}
	mine := map[string][]byte{path(postID): record(t, strings.Replace(schemaJSON(postID), "text", "evil", 1))}
	refuse := func(e *xrpc.Error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { xrpc.WriteError(w, r, e) }
	}
	for name, c := range map[string]struct {
		make func(s *scene) http.HandlerFunc
		want lexres.Kind
	}{
		"another key": {func(s *scene) http.HandlerFunc {
			return s.answer(sign(t, did, repotest.Rev, key2, mine).proof(t, path(postID)))
		}, lexres.KindProof},
		"another repo": {func(s *scene) http.HandlerFunc {
			return s.answer(sign(t, other, repotest.Rev, repotest.Key(), mine).proof(t, path(postID)))
		}, lexres.KindProof},
		"another path":       {func(s *scene) http.HandlerFunc { return s.answer(s.repo.proof(t, path("com.example.feed.nonsense"))) }, lexres.KindProof},
		"absence of another": {func(s *scene) http.HandlerFunc { return s.answer(s.repo.proof(t, "com.example.note/x")) }, lexres.KindProof},
		"another record": {func(s *scene) http.HandlerFunc {
			b := s.repo.proof(t, path(postID))
			old := s.repo.records[path(postID)]
			return s.answer(bytes.Replace(b, old, bytes.Replace(old, []byte("text"), []byte("evil"), 1), 1))
		}, lexres.KindProof},
		"cut off": {func(s *scene) http.HandlerFunc { b := s.repo.proof(t, path(postID)); return s.answer(b[:len(b)-9]) }, lexres.KindProof},
		"empty":   {func(s *scene) http.HandlerFunc { return s.answer(nil) }, lexres.KindProof},
		"a page":  {func(s *scene) http.HandlerFunc { return s.answer([]byte("<html>hello")) }, lexres.KindProof},
		"endless": {func(s *scene) http.HandlerFunc { return s.endless() }, lexres.KindProof},
		"from the future": {func(s *scene) http.HandlerFunc {
			return s.answer(sign(t, did, syntax.NewTID(s.now.Add(time.Hour).UnixMicro(), 1), repotest.Key(), mine).proof(t, path(postID)))
		}, lexres.KindProof},
		"just a no":       {func(s *scene) http.HandlerFunc { return refuse(&xrpc.Error{Status: 400, Name: "RecordNotFound"}) }, lexres.KindUnproven},
		"not implemented": {func(s *scene) http.HandlerFunc { return refuse(&xrpc.Error{Status: 501, Name: "MethodNotImplemented"}) }, lexres.KindUnproven},
		"not found":       {func(s *scene) http.HandlerFunc { return http.NotFound }, lexres.KindUnproven},
		"taken down":      {func(s *scene) http.HandlerFunc { return refuse(&xrpc.Error{Status: 400, Name: "RepoTakendown"}) }, lexres.KindInactive},
		"moved away":      {func(s *scene) http.HandlerFunc { return refuse(&xrpc.Error{Status: 404, Name: "RepoNotFound"}) }, lexres.KindInactive},
		"broken":          {func(s *scene) http.HandlerFunc { return refuse(&xrpc.Error{Status: 500, Name: "InternalServerError"}) }, lexres.KindUnreachable},
		"busy":            {func(s *scene) http.HandlerFunc { return refuse(&xrpc.Error{Status: 429, Name: "RateLimitExceeded"}) }, lexres.KindUnreachable},
		"hangs up": {func(s *scene) http.HandlerFunc {
			return func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
		}, lexres.KindUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.serve = c.make(s)
			e := s.wantKind(postID, c.want)
			if len(e.Error()) > 2000 {
				t.Errorf("an error of %d bytes", len(e.Error()))
			}
			if c.want == lexres.KindProof && name != "from the future" && name != "endless" {
				if _, ok := errors.AsType[*repo.VerifyError](e); !ok {
					t.Errorf("%v is no *repo.VerifyError", e)
				}
			}
		})
	}
}

func (s *scene) answer(b []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { s.car(w, b) }
}

func (s *scene) endless() http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for junk := make([]byte, 1<<16); r.Context().Err() == nil; {
			if _, err := w.Write(junk); err != nil {
				return
			}
		}
	}
}

func TestOldCommit(t *testing.T) {
	s := newScene(t)
	older := sign(t, did, syntax.NewTID(repotest.Rev.Micros()-1e6, 1), repotest.Key(), map[string][]byte{path(postID): record(t, schemaJSON(postID))})
	r := lexres.New(s.o)
	if _, err := r.Resolve(t.Context(), postID); err != nil {
		t.Fatal(err)
	}
	s.serve = s.answer(older.proof(t, path(postID)))
	r.Purge(postID)
	if _, err := r.Resolve(t.Context(), postID); lexres.KindOf(err) != lexres.KindRollback {
		t.Errorf("an old commit: %v", err)
	}
	// Somebody who has just written knows of a revision that nobody else has seen.
	s.serve = nil
	r = lexres.New(s.o)
	r.Saw(did, syntax.NewTID(repotest.Rev.Micros()+5e6, 1))
	if _, err := r.Resolve(t.Context(), postID); lexres.KindOf(err) != lexres.KindRollback {
		t.Errorf("a commit before one's own: %v", err)
	}
	// A proof of absence may be as old.
	if _, err := r.Resolve(t.Context(), "com.example.feed.nothing"); lexres.KindOf(err) != lexres.KindRollback {
		t.Errorf("an old absence: %v", err)
	}
}

func TestIdentities(t *testing.T) {
	s := newScene(t)
	good := *s.dir.doc
	s.dir.doc = &identity.Document{SigningKey: good.SigningKey}
	s.wantKind(postID, lexres.KindIdentity)
	s.dir.doc = &identity.Document{PDS: good.PDS}
	s.wantKind(postID, lexres.KindIdentity)
	s.dir.err = &identity.Error{Op: "resolving DID", Subject: string(did), Kind: identity.KindNotFound}
	s.wantKind(postID, lexres.KindIdentity)
	s.dir.err = &identity.Error{Op: "resolving DID", Subject: string(did), Kind: identity.KindUnreachable}
	s.wantKind(postID, lexres.KindUnreachable)
	// A key that changed is found out.
	s.dir.err = nil
	key2, err := keys.NewPrivate(keys.K256, bytes.Repeat([]byte{9}, 32))
	if err != nil {
		t.Fatal(err)
	}
	s.dir.doc = &identity.Document{DID: did, PDS: good.PDS, SigningKey: key2.Public()}
	s.dir.fresh = &good
	if x, err := lexres.New(s.o).Resolve(t.Context(), postID); err != nil || !x.Key.Equal(good.SigningKey) {
		t.Errorf("%v, %v", x, err)
	}
	if n := s.dir.refreshed.Load(); n != 1 {
		t.Errorf("refreshed %d times", n)
	}
}

func TestCache(t *testing.T) {
	s := newScene(t)
	r := lexres.New(s.o)
	resolve := func(stale bool, dns, pds int) {
		t.Helper()
		x, err := r.Resolve(t.Context(), postID)
		if err != nil {
			t.Fatal(err)
		}
		if x.Stale != stale || len(s.dns.asked) != dns || s.asked.Load() != int64(pds) {
			t.Errorf("stale %v, asked DNS %d times and the PDS %d times; want %v, %d, %d", x.Stale, len(s.dns.asked), s.asked.Load(), stale, dns, pds)
		}
	}
	resolve(false, 1, 1)
	first, _ := r.Resolve(t.Context(), postID)
	s.now = s.now.Add(6 * time.Minute)
	resolve(false, 2, 2)
	if again, _ := r.Resolve(t.Context(), postID); again.Schema != first.Schema {
		t.Error("the same CID was parsed twice")
	}
	// DNS fails: the old answer serves, and says so.
	s.now = s.now.Add(6 * time.Minute)
	s.dns.set(errors.New("down"), "_lexicon.feed.example.com")
	resolve(true, 3, 3)
	resolve(true, 3, 3) // and DNS is left in peace for a while
	s.serve = func(w http.ResponseWriter, r *http.Request) {
		xrpc.WriteError(w, r, xrpc.ErrNotEnoughResources.With("busy"))
	}
	s.now = s.now.Add(6 * time.Minute)
	resolve(true, 4, 4)
	if x, _ := r.Resolve(t.Context(), postID); s.now.Sub(x.Fetched) != 6*time.Minute {
		t.Errorf("fetched %v ago", s.now.Sub(x.Fetched))
	}
	// After a day of this there is no answer.
	s.now = s.now.Add(25 * time.Hour)
	if x, err := r.Resolve(t.Context(), postID); lexres.KindOf(err) != lexres.KindUnreachable {
		t.Errorf("%v, %v", x, err)
	}
	// What DNS knows nothing of is remembered for less long.
	s.dns.set(nil, "_lexicon.feed.example.com")
	s.now = s.now.Add(time.Minute)
	n := len(s.dns.asked)
	for range 3 {
		if _, err := r.Resolve(t.Context(), postID); lexres.KindOf(err) != lexres.KindNoAuthority {
			t.Error(err)
		}
	}
	if len(s.dns.asked) != n+1 {
		t.Errorf("asked %d times for what is not there", len(s.dns.asked)-n)
	}
	// An answer of DNS that another member of the group asked for is told of under the right name.
	var e *lexres.Error
	if _, err := r.Resolve(t.Context(), "com.example.feed.like"); !errors.As(err, &e) || e.NSID != "com.example.feed.like" {
		t.Error(err)
	}
}

// TestNoStaleLies makes sure that an old answer does not hide a proof that is wrong now.
func TestNoStaleLies(t *testing.T) {
	s := newScene(t)
	r := lexres.New(s.o)
	if _, err := r.Resolve(t.Context(), postID); err != nil {
		t.Fatal(err)
	}
	s.now = s.now.Add(time.Hour)
	s.serve = s.answer(sign(t, other, repotest.Rev, repotest.Key(), s.repo.records).proof(t, path(postID)))
	if _, err := r.Resolve(t.Context(), postID); lexres.KindOf(err) != lexres.KindProof {
		t.Error(err)
	}
}

func TestOneFlight(t *testing.T) {
	s := newScene(t)
	open := make(chan struct{})
	s.serve = func(w http.ResponseWriter, _ *http.Request) {
		<-open
		s.car(w, s.repo.proof(t, path(postID)))
	}
	r := lexres.New(s.o)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := r.Resolve(t.Context(), postID); err != nil {
				t.Error(err)
			}
		})
	}
	for s.asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	close(open)
	wg.Wait()
	if s.asked.Load() != 1 || len(s.dns.asked) != 1 {
		t.Errorf("asked the PDS %d times and DNS %d times", s.asked.Load(), len(s.dns.asked))
	}
}

// TestSlow makes sure that nobody waits for ever, wherever it hangs.
func TestSlow(t *testing.T) {
	hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	synctest.Test(t, func(t *testing.T) {
		for name, o := range map[string]lexres.Options{
			"DNS":   {Resolver: slowDNS(hang), Directory: &directory{}},
			"proof": {Resolver: &dns{zone: map[string][]string{"_lexicon.feed.example.com": {"did=" + string(did)}}}, Directory: &directory{doc: &identity.Document{PDS: "http://x", SigningKey: repotest.Key().Public()}}},
		} {
			o.Now = time.Now
			o.HTTP = http.DefaultClient
			o.Local = func(ctx context.Context, _ syntax.ATURI) ([]byte, error) { return nil, hang(ctx) }
			start := time.Now()
			_, err := lexres.New(o).Resolve(t.Context(), postID)
			if lexres.KindOf(err) != lexres.KindUnreachable || time.Since(start) != 15*time.Second {
				t.Errorf("%s: after %v: %v", name, time.Since(start), err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			start = time.Now()
			if _, err := lexres.New(o).Resolve(ctx, postID); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
				t.Errorf("%s: after %v: %v", name, time.Since(start), err)
			}
			cancel()
		}
	})
}

type slowDNS func(context.Context) error

func (f slowDNS) LookupTXT(ctx context.Context, _ string) ([]string, error) { return nil, f(ctx) }

// TestLocal reads what is at hand, and verifies that too.
func TestLocal(t *testing.T) {
	s := newScene(t)
	local := s.repo
	s.o.Local = func(_ context.Context, uri syntax.ATURI) ([]byte, error) {
		if uri.Authority().DID() != did {
			return nil, nil
		}
		return local.proof(t, uri.Path()), nil
	}
	if x, err := lexres.New(s.o).Resolve(t.Context(), postID); err != nil || s.asked.Load() != 0 {
		t.Errorf("%v, %v, asked %d times", x, err, s.asked.Load())
	}
	local = sign(t, other, repotest.Rev, repotest.Key(), local.records)
	s.wantKind(postID, lexres.KindProof)
	if _, err := lexres.New(s.o).ResolveAt(t.Context(), other, postID); s.asked.Load() != 1 {
		t.Errorf("%v, asked %d times", err, s.asked.Load())
	}
}

func TestClosure(t *testing.T) {
	graph := map[syntax.NSID][]syntax.NSID{
		"a.b.one": {"a.b.two", "a.b.three", "a.b.one"}, "a.b.two": {"a.b.one"}, "a.b.three": {"a.b.two", "a.b.missing"},
	}
	var asked atomic.Int64
	get := func(_ context.Context, id syntax.NSID) (int, []syntax.NSID, error) {
		asked.Add(1)
		if deps, ok := graph[id]; ok {
			return len(deps), deps, nil
		}
		return 0, nil, fmt.Errorf("no %s", id)
	}
	found, failed, err := lexres.Closure(t.Context(), []syntax.NSID{"A.b.one"}, 0, get)
	if err != nil || len(found) != 3 || len(failed) != 1 || failed["a.b.missing"] == nil || asked.Load() != 4 {
		t.Errorf("%v, %v, %v, asked %d times", found, failed, err, asked.Load())
	}
	// A set without an end has one.
	asked.Store(0)
	_, _, err = lexres.Closure(t.Context(), []syntax.NSID{"a.b.n"}, 100, func(_ context.Context, id syntax.NSID) (int, []syntax.NSID, error) {
		n := asked.Add(1)
		return 0, []syntax.NSID{syntax.NSID(fmt.Sprintf("a.b.n%d", 2*n)), syntax.NSID(fmt.Sprintf("a.b.n%d", 2*n+1))}, nil
	})
	var many *lexres.TooManyError
	if !errors.As(err, &many) || asked.Load() > 100 {
		t.Errorf("%v after %d", err, asked.Load())
	}
}

func TestAsk(t *testing.T) {
	good := schemaJSON(postID)
	rec := record(t, good)
	s, err := lexres.ParseRecord(postID, rec)
	if err != nil {
		t.Fatal(err)
	}
	c := cidOf(s.Raw)
	for name, b := range map[string]struct {
		body string
		ok   bool
	}{
		"good":       {fmt.Sprintf(`{"uri":%q,"cid":%q,"schema":%s}`, lexres.URI(did, postID), c, good), true},
		"other text": {fmt.Sprintf(`{"uri":%q,"cid":%q,"schema":%s}`, lexres.URI(did, postID), c, strings.Replace(good, "text", "evil", 1)), false},
		"other name": {fmt.Sprintf(`{"uri":%q,"cid":%q,"schema":%s}`, lexres.URI(did, "com.example.feed.like"), c, good), false},
		"handle":     {fmt.Sprintf(`{"uri":"at://alice.test/com.atproto.lexicon.schema/com.example.feed.post","cid":%q,"schema":%s}`, c, good), false},
		"no cid":     {fmt.Sprintf(`{"uri":%q,"cid":"x","schema":%s}`, lexres.URI(did, postID), good), false},
		"nothing":    {`{}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Query().Get("nsid") != string(postID) {
					t.Errorf("asked for %s", r.URL)
				}
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write([]byte(b.body))
			}))
			defer srv.Close()
			schema, uri, got, err := lexres.Ask(t.Context(), &xrpc.Client{Host: srv.URL}, postID)
			if (err == nil) != b.ok || b.ok && (schema.ID != postID || uri != lexres.URI(did, postID) || got != c) {
				t.Errorf("%v, %v, %v, %v", schema, uri, got, err)
			}
		})
	}
}
