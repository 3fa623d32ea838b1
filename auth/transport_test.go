package auth_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/xrpc"
)

// gate counts what it gets, and refuses tokens but for one.
type gate struct {
	*httptest.Server
	good     string // the token that is accepted; "none": no renewal helps
	renewals int
	got      []string // "method path token body"
	refusal  func(http.ResponseWriter)
}

func newGate(t *testing.T) *gate {
	g := &gate{good: "a2"}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "refreshSession") {
			g.renewals++
			if g.good == "none" {
				w.WriteHeader(400)
				fmt.Fprint(w, `{"error":"ExpiredToken"}`)
				return
			}
			fmt.Fprintf(w, `{"did":%q,"handle":"alice.test","accessJwt":%q,"refreshJwt":"r2"}`, did, g.good)
			return
		}
		g.got = append(g.got, fmt.Sprint(r.Method, " ", r.URL.Path, " ", token, " ", string(body)))
		switch {
		case r.URL.Path == "/away":
			http.Redirect(w, r, strings.Replace(g.URL, "127.0.0.1", "localhost", 1)+"/x", http.StatusTemporaryRedirect)
		case g.refusal != nil:
			g.refusal(w)
		case token != g.good:
			w.WriteHeader(401)
			fmt.Fprint(w, `{"error":"ExpiredToken","message":"old"}`)
		default:
			fmt.Fprint(w, "ok")
		}
	}))
	t.Cleanup(g.Close)
	return g
}

func (g *gate) account(t *testing.T) *auth.Account {
	t.Helper()
	g.got, g.renewals = nil, 0
	a, err := auth.New(auth.Options{}).Import(t.Context(), auth.Session{DID: did, PDS: g.URL, Access: "a1", Refresh: "r1"})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestTransport(t *testing.T) {
	g := newGate(t)
	do := func(c *http.Client, method, path string, body io.Reader) (string, error) {
		r, err := http.NewRequestWithContext(t.Context(), method, g.URL+path, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer of nobody")
		resp, err := c.Do(r)
		if r.Header.Get("Authorization") != "Bearer of nobody" {
			t.Error("the request was changed")
		}
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return fmt.Sprint(resp.StatusCode, " ", string(b)), err
	}
	expect := func(name string, want ...string) {
		t.Helper()
		if strings.Join(g.got, "|") != strings.Join(want, "|") {
			t.Errorf("%s: sent %q", name, g.got)
		}
	}

	c := g.account(t).HTTPClient()
	if got, err := do(c, "POST", "/x", strings.NewReader("body")); got != "200 ok" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	expect("renewed", "POST /x a1 body", "POST /x a2 body")
	if got, err := do(c, "GET", "/y", nil); got != "200 ok" || err != nil || g.renewals != 1 {
		t.Errorf("%q, %v, %d renewals", got, err, g.renewals)
	}

	// A body that can't be had again is sent once, and what the server says is passed on.
	c = g.account(t).HTTPClient()
	if got, err := do(c, "POST", "/x", io.MultiReader(strings.NewReader("body"))); got != `401 {"error":"ExpiredToken","message":"old"}` || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	expect("a stream", "POST /x a1 body")

	// A renewal that fails is the error, and the write was sent once.
	g.good = "none"
	c = g.account(t).HTTPClient()
	_, err := do(c, "POST", "/x", strings.NewReader("body"))
	if _, ok := errors.AsType[*auth.RenewalError](err); !ok || !errors.Is(err, auth.ErrLoginRequired) {
		t.Errorf("%v", err)
	}
	expect("over", "POST /x a1 body")
	if _, err := do(c, "POST", "/x", strings.NewReader("body")); !errors.Is(err, auth.ErrLoginRequired) || len(g.got) != 1 {
		t.Errorf("after the end: %v, sent %q", err, g.got)
	}

	// Refusals of another kind come whole, however long.
	g.good = "a2"
	long := strings.Repeat("x", 200_000)
	for _, status := range []int{400, 403, 404, 500} {
		g.refusal = func(w http.ResponseWriter) { w.WriteHeader(status); fmt.Fprint(w, long) }
		c = g.account(t).HTTPClient()
		if got, err := do(c, "GET", "/x", nil); got != fmt.Sprint(status, " ", long) || err != nil || len(g.got) != 1 || g.renewals != 0 {
			t.Errorf("%d: %d bytes, %v, sent %q", status, len(got), err, g.got)
		}
	}
	g.refusal = nil

	// Tokens don't follow a redirect to another host.
	c = g.account(t).HTTPClient()
	if _, err := do(c, "GET", "/away", nil); !errors.Is(err, auth.ErrOtherHost) || len(g.got) != 1 {
		t.Errorf("a redirect: %v, sent %q", err, g.got)
	}

	// Credentials that can't be renewed, over a transport of one's own.
	g.got = nil
	base := &counting{}
	c = &http.Client{Transport: &auth.Transport{Auth: xrpc.Bearer("a2"), Base: base}}
	if got, err := do(c, "GET", "/x", nil); got != "200 ok" || err != nil || base.n != 1 {
		t.Errorf("%q, %v after %d requests", got, err, base.n)
	}
	c.Transport = &auth.Transport{Auth: xrpc.Bearer("bad")}
	if got, err := do(c, "POST", "/x", bytes.NewReader([]byte("b"))); !strings.HasPrefix(got, "401") || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	expect("fixed", "GET /x a2 ", "POST /x bad b")
}

type counting struct{ n int }

func (c *counting) RoundTrip(r *http.Request) (*http.Response, error) {
	c.n++
	return new(http.Transport).RoundTrip(r)
}

// TestEvents follows a session from its import, and one from its login, to their ends.
func TestEvents(t *testing.T) {
	s := newServer(t)
	var got []string
	m := auth.New(auth.Options{Now: s.Now, OnEvent: func(e auth.Event, x auth.Session) {
		if x.DID != did || x.Access == "" {
			t.Errorf("%s: %v", e, x)
		}
		got = append(got, string(e))
	}})
	a, err := m.Login(t.Context(), s.URL, auth.Credentials{Identifier: "alice.test", Password: "p"})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.Renew(t.Context()), a.Logout(t.Context())); err != nil {
		t.Fatal(err)
	}
	exp := s.Now().Add(time.Hour)
	if a, err = m.Import(t.Context(), auth.Session{DID: did, Handle: "alice.test", PDS: s.URL, Access: token("at+jwt", 90, exp), Refresh: token("refresh+jwt", 91, exp)}); err != nil {
		t.Fatal(err)
	}
	if err := a.Renew(t.Context()); !errors.Is(err, auth.ErrLoginRequired) {
		t.Errorf("a session that the server doesn't know was renewed: %v", err)
	}
	if s := strings.Join(got, " "); s != "created refreshed logout imported expired" {
		t.Error(s)
	}
}

// TestServiceTokensOf has a PDS make a token for each call of a service.
func TestServiceTokensOf(t *testing.T) {
	var asked []string
	pds := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("Authorization")+" "+r.URL.Query().Get("aud")+" "+r.URL.Query().Get("lxm"))
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"token":"t%d"}`, len(asked))
	}))
	defer pds.Close()
	var sent []string
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent = append(sent, r.Header.Get("Authorization"))
	}))
	defer service.Close()
	c := &xrpc.Client{Host: service.URL, Auth: auth.ServiceTokens(&xrpc.Client{Host: pds.URL, Auth: xrpc.Bearer("a")}, "did:web:service.test#x")}
	for _, nsid := range []string{"com.example.one", "com.example.two"} {
		out, err := c.Do(t.Context(), http.MethodGet, nsid, "", nil, "")
		if err != nil {
			t.Fatal(err)
		}
		out.Body.Close()
	}
	if a, s := strings.Join(asked, "|"), strings.Join(sent, "|"); a != "Bearer a did:web:service.test#x com.example.one|Bearer a did:web:service.test#x com.example.two" || s != "Bearer t1|Bearer t2" {
		t.Errorf("asked %s; sent %s", a, s)
	}
}

// A redirect takes no credentials to another origin: not a fixed token either, and not to another port of the same host.
func TestRedirectsGetNoCredentials(t *testing.T) {
	var got []string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("Authorization")+r.Header.Get("DPoP"))
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, "{}")
	}))
	defer other.Close()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/xrpc/a.b.here" {
			http.Redirect(w, r, "/xrpc/a.b.away", http.StatusFound)
			return
		}
		if r.Header.Get("Authorization") != "Bearer t" {
			t.Errorf("%s without credentials", r.URL.Path)
		}
		http.Redirect(w, r, other.URL, http.StatusFound)
	}))
	defer s.Close()
	for _, path := range []string{"a.b.away", "a.b.here"} {
		c := &xrpc.Client{Host: s.URL, Auth: proven("t")}
		if _, err := c.Do(t.Context(), http.MethodGet, path, "", nil, ""); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		resp, err := (&http.Client{Transport: &auth.Transport{Auth: xrpc.Bearer("t")}}).Get(s.URL + "/xrpc/" + path)
		if !errors.Is(err, auth.ErrOtherHost) {
			t.Errorf("%s: %v, %v", path, resp, err)
		}
	}
	if len(got) != 2 || got[0]+got[1] != "" {
		t.Errorf("the other server got %q", got)
	}
}

// proven sends what sessions of OAuth send.
type proven string

func (p proven) Authorize(_ context.Context, r *http.Request) error {
	r.Header.Set("Authorization", "Bearer "+string(p))
	r.Header.Set("DPoP", "proof")
	return nil
}
