package identity_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/syntax"
)

// TestDefault looks nobody up on the public network: it checks what can be without asking anybody.
func TestDefault(t *testing.T) {
	if identity.Default() != identity.Default() {
		t.Error("there are two defaults")
	}
	for name, ask := range map[string]func() error{
		"lookup": func() error { _, err := identity.Lookup(t.Context(), "alice.invalid"); return err },
		"handle": func() error { _, err := identity.ResolveHandle(t.Context(), "alice.local"); return err },
		"DID":    func() error { _, err := identity.ResolveDID(t.Context(), "did:web:a.internal"); return err },
		"PDS":    func() error { _, err := identity.ResolvePDS(t.Context(), "did:web:a.internal"); return err },
	} {
		if err := ask(); identity.KindOf(err) != identity.KindNotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDefaultPLC looks at where a did:plc is asked for when nobody says.
func TestDefaultPLC(t *testing.T) {
	var asked string
	d := identity.New(identity.Options{HTTP: &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
		asked = r.URL.String()
		return nil, errors.New("no network")
	})}})
	if _, err := d.ResolveDID(t.Context(), alice); identity.KindOf(err) != identity.KindUnreachable || asked != identity.DefaultPLC+"/"+string(alice) {
		t.Errorf("asked %s, %v", asked, err)
	}
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestZeroOptions lets the directory make its own client: it asks the PLC directory that it was told of, even on this
// machine, and goes nowhere else in private networks.
func TestZeroOptions(t *testing.T) {
	private := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a private address was asked") }))
	defer private.Close()
	plc := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/" + string(alice):
			fmt.Fprint(w, document(alice))
		case "/" + string(bob):
			http.Redirect(w, r, private.URL, http.StatusFound)
		}
	}))
	defer plc.Close()
	d := identity.New(identity.Options{PLC: plc.URL})
	defer d.Close()
	if pds, err := d.ResolvePDS(t.Context(), alice); err != nil || pds != "https://pds.test" {
		t.Errorf("%q, %v", pds, err)
	}
	byName := identity.New(identity.Options{PLC: strings.Replace(plc.URL, "127.0.0.1", "localhost", 1) + "/"})
	if pds, err := byName.ResolvePDS(t.Context(), alice); err != nil || pds != "https://pds.test" {
		t.Errorf("by name: %q, %v", pds, err)
	}
	if _, err := d.ResolveDID(t.Context(), bob); identity.KindOf(err) != identity.KindUnreachable {
		t.Errorf("a redirect into the private network: %v", err)
	}

	guarded, allowed := identity.Guarded(), identity.Guarded(strings.TrimPrefix(private.URL, "http://"))
	if resp, err := guarded.Get(private.URL); err == nil {
		resp.Body.Close()
		t.Error("the guard let a request to a private address through")
	}
	resp, err := allowed.Get(plc.URL)
	if err == nil {
		resp.Body.Close()
		t.Error("the guard let a request through to another port than the allowed one")
	}
}

func TestResolvePDS(t *testing.T) {
	w := newWorld(t, nil)
	w.account(alice, "alice.test")
	w.text("plc.test/"+string(bob), `{"id":"`+string(bob)+`"}`)
	if pds, err := w.dir.ResolvePDS(t.Context(), alice); pds != "https://pds.test" || err != nil {
		t.Errorf("%q, %v", pds, err)
	}
	if _, err := w.dir.ResolvePDS(t.Context(), bob); identity.KindOf(err) != identity.KindNotFound {
		t.Errorf("a document without a PDS: %v", err)
	}
	if _, err := w.dir.ResolvePDS(t.Context(), "did:plc:cccccccccccccccccccccccc"); identity.KindOf(err) != identity.KindNotFound {
		t.Errorf("no document: %v", err)
	}
}

// TestAge follows how old an answer says it is: document and handle are asked at different times, and one of them may be all
// there is while a server is down.
func TestAge(t *testing.T) {
	w := newWorld(t, nil)
	w.account(alice, "alice.test")
	start := w.Now()
	check := func(step string, who syntax.AtIdentifier, age time.Duration, stale bool) {
		t.Helper()
		id, err := w.dir.Lookup(t.Context(), who)
		if err != nil {
			t.Fatal(step, err)
		}
		if id.Age != age || id.Stale != stale || !id.Fetched.Equal(w.Now().Add(-age)) || id.Handle != "alice.test" {
			t.Errorf("%s: age %v, stale %v, fetched %v after the start", step, id.Age, id.Stale, id.Fetched.Sub(start))
		}
	}
	if _, err := w.dir.ResolveHandle(t.Context(), "alice.test"); err != nil {
		t.Fatal(err)
	}
	w.advance(20 * time.Minute)
	check("a new document and an older handle", "alice.test", 20*time.Minute, false)
	w.advance(10 * time.Minute)
	check("kept", syntax.AtIdentifier(alice), 30*time.Minute, false)
	// The handle is too old, and can't be asked for.
	w.mu.Lock()
	w.dnsErr = errors.New("SERVFAIL")
	w.mu.Unlock()
	w.advance(40 * time.Minute)
	check("DNS is down", "alice.test", 70*time.Minute, true)
	// Now the document too.
	w.page("plc.test/"+string(alice), func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(503) })
	w.advance(time.Hour)
	check("all is down", syntax.AtIdentifier(alice), 130*time.Minute, true)
	// All is back.
	w.mu.Lock()
	w.dnsErr = nil
	w.mu.Unlock()
	w.text("plc.test/"+string(alice), document(alice, "at://alice.test"))
	w.advance(2 * time.Minute)
	check("back", "alice.test", 0, false)
}

// TestHandlesInACircle has two accounts that claim each other's handle: neither is anybody's, whoever is asked.
func TestHandlesInACircle(t *testing.T) {
	w := newWorld(t, nil)
	w.account(alice, "alice.test")
	w.account(bob, "bob.test")
	w.txt["_atproto.alice.test"], w.txt["_atproto.bob.test"] = w.txt["_atproto.bob.test"], w.txt["_atproto.alice.test"]
	for _, h := range []syntax.Handle{"alice.test", "bob.test"} {
		if id, err := w.dir.LookupHandle(t.Context(), h); identity.KindOf(err) != identity.KindHandleMismatch {
			t.Errorf("%s: %v, %v", h, id, err)
		}
	}
	for _, did := range []syntax.DID{alice, bob} {
		id, err := w.dir.LookupDID(t.Context(), did)
		if err != nil || id.Handle != syntax.InvalidHandle || identity.KindOf(id.HandleErr) != identity.KindHandleMismatch {
			t.Errorf("%s: %+v, %v", did, id, err)
		}
	}
	for _, did := range []syntax.DID{alice, bob} {
		if n := w.count("plc.test/" + string(did)); n != 1 {
			t.Errorf("%d requests for the document of %s", n, did)
		}
	}
}

// TestLargeDocument is served a document of 100 MB, of which little may be taken, with and without its length.
func TestLargeDocument(t *testing.T) {
	const size = 100 << 20
	w := newWorld(t, nil)
	var sent atomic.Int64
	w.page("plc.test/"+string(alice), func(rw http.ResponseWriter, r *http.Request) {
		if n := w.count("plc.test/" + string(alice)); n == 1 {
			rw.Header().Set("Content-Length", fmt.Sprint(size))
		}
		block := bytes.Repeat([]byte(" "), 64<<10)
		for left := size; left > 0; left -= len(block) {
			n, err := rw.Write(block)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	for range 2 {
		if _, err := w.dir.ResolveDID(t.Context(), alice); identity.KindOf(err) != identity.KindMalformed {
			t.Error(err)
		}
		w.advance(2 * time.Minute)
	}
	if n := sent.Load(); n > 32<<20 {
		t.Errorf("%d bytes were sent", n)
	}
}

// TestRefreshAfterBadSignature is what verification does: the key that is known doesn't fit, so it is asked for once more, and
// a forger who sends on and on doesn't get the directory to ask on and on.
func TestRefreshAfterBadSignature(t *testing.T) {
	w := newWorld(t, nil)
	where := "plc.test/" + string(alice)
	const other = "zQ3shunBKsXixLxKtC5qeSG9E4J5RkGN57im31pcTzbNQnm5w"
	w.text(where, document(alice))
	old, err := w.dir.Key(t.Context(), alice, "#atproto", false)
	if err != nil {
		t.Fatal(err)
	}
	w.text(where, strings.ReplaceAll(document(alice), key, other))
	w.advance(2 * time.Minute)
	fresh, err := w.dir.Key(t.Context(), alice, "#atproto", true)
	if err != nil || fresh.Multikey() != other || fresh.Multikey() == old.Multikey() {
		t.Errorf("%v, %v", fresh, err)
	}
	for range 100 {
		if _, err := w.dir.Key(t.Context(), alice, "#atproto", true); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.count(where); n != 2 {
		t.Errorf("%d requests", n)
	}
}

// What a user mistyped is an error of the first lookup.
func TestOptionsThatMakeNoSense(t *testing.T) {
	for _, plc := range []string{"localhost:2582", "garbage", "http://", "plc.directory", "http://localhost:99999", "://", "\x00"} {
		d := identity.New(identity.Options{PLC: plc, Allow: []string{"localhost", ":", ""}, Timeout: time.Minute})
		if _, err := d.ResolveDID(t.Context(), "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"); identity.KindOf(err) == "" {
			t.Errorf("%q: %v", plc, err)
		}
	}
}
