package client_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/repo/repotest"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// whole is a PLC directory, and a PDS with the repository of one account on it.
type whole struct {
	o       client.FetchOptions
	pds     *httptest.Server
	repo    *testRepo
	key     atomic.Pointer[keys.PublicKey] // in the document
	now     atomic.Int64                   // minutes
	lookups atomic.Int64
}

func newWhole(t *testing.T) *whole {
	w := &whole{repo: newRepo(t, 50)}
	w.key.Store(repotest.Key().Public())
	car, blob := w.repo.car(t), []byte("the blob")
	p := pds{
		"com.atproto.sync.getRecord": func(rw http.ResponseWriter, r *http.Request) {
			bytesAnswer(w.repo.proof(t, r.URL.Query().Get("collection")+"/"+r.URL.Query().Get("rkey")))(rw, r)
		},
		"com.atproto.repo.getRecord": func(rw http.ResponseWriter, r *http.Request) {
			_, body, id := record("unproven")
			answer(200, good(fmt.Sprintf("at://%s/%s/%s", account, note, r.URL.Query().Get("rkey")), id, body))(rw, r)
		},
		"com.atproto.sync.getRepo":      bytesAnswer(car),
		"com.atproto.sync.getBlob":      func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(blob) },
		"com.atproto.repo.describeRepo": answer(200, `{"did":"`+string(account)+`","handle":"alice.test","handleIsCorrect":true,"collections":["`+note+`"],"didDoc":{}}`),
		"com.atproto.repo.listRecords":  page(3, func(c string) string { return map[string]string{"": "a"}[c] }),
	}
	w.pds = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { p[strings.TrimPrefix(r.URL.Path, "/xrpc/")](rw, r) }))
	t.Cleanup(w.pds.Close)
	plc := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.lookups.Add(1)
		if r.URL.Path != "/"+string(account) {
			http.NotFound(rw, r)
			return
		}
		fmt.Fprintf(rw, `{"id":%q,"verificationMethod":[{"id":"#atproto","type":"Multikey","controller":%q,"publicKeyMultibase":%q}],"service":[{"id":"#atproto_pds","type":"AtprotoPersonalDataServer","serviceEndpoint":%q}]}`,
			account, account, w.key.Load().Multikey(), w.pds.URL)
	}))
	t.Cleanup(plc.Close)
	w.o.HTTP = w.pds.Client() // the PDS is on this machine, where the guard doesn't go
	w.o.Identity = identity.New(identity.Options{PLC: plc.URL, Now: func() time.Time { return time.Unix(1e9, 0).Add(time.Duration(w.now.Load()) * time.Minute) }})
	return w
}

func TestFetch(t *testing.T) {
	w := newWhole(t)
	at := "at://" + string(account) + "/" + note + "/0007"
	r, err := client.Fetch[data.Raw](t.Context(), at, w.o)
	if err != nil || string(r.Value) != string(w.repo.data[note+"/0007"]) || r.Proof == nil || !r.Proof.Signed {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := client.Fetch[data.Raw](t.Context(), at+"8", w.o); !errors.Is(err, client.ErrRecordNotFound) {
		t.Errorf("absent: %v", err)
	}
	o := w.o
	o.Unverified = true
	if r, err := client.Fetch[data.Raw](t.Context(), at, o); err != nil || r.Proof != nil {
		t.Errorf("unverified: %+v, %v", r, err)
	}
	n := w.lookups.Load()
	o.Host, o.Identity = w.pds.URL, nil
	if r, err := client.Fetch[data.Raw](t.Context(), "at://alice.test/"+note+"/1", o); err != nil || r.URI.RecordKey() != "1" {
		t.Errorf("unverified from a host: %+v, %v", r, err)
	}
	if w.lookups.Load() != n {
		t.Error("the identity was asked, which wasn't asked for")
	}
	for _, bad := range []string{"", "at://x", "at://" + string(account), "at://did:plc:zzzzzzzzzzzzzzzzzzzzzzzz/" + note + "/1", "at://alice.local/" + note + "/1", "https://example.com"} {
		if r, err := client.Fetch[data.Raw](t.Context(), bad, w.o); err == nil {
			t.Errorf("%q: %+v", bad, r)
		}
	}

	// A key that the directory knew has been replaced since: it is asked again, and the record is read.
	stranger, err := keys.NewPrivate(keys.P256, bytes.Repeat([]byte{9}, 32))
	if err != nil {
		t.Fatal(err)
	}
	w.key.Store(stranger.Public())
	w.o.Identity.Purge(account)
	if _, err := client.Fetch[data.Raw](t.Context(), at, w.o); !isVerify(err) {
		t.Errorf("signed by another: %v", err)
	}
	w.key.Store(repotest.Key().Public())
	w.now.Add(5)
	if r, err := client.Fetch[data.Raw](t.Context(), at, w.o); err != nil || !r.Proof.Signed {
		t.Errorf("after the key was replaced: %+v, %v", r, err)
	}
}

func isVerify(err error) bool { _, ok := errors.AsType[*repo.VerifyError](err); return ok }

func TestFetchOthers(t *testing.T) {
	w := newWhole(t)
	who := "at://" + string(account)
	rr, err := client.FetchRepo(t.Context(), who, w.o)
	if err != nil {
		t.Fatal(err)
	}
	defer rr.Close()
	n := 0
	for _, err := range rr.Records() {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 50 {
		t.Errorf("%d records", n)
	}
	d, err := client.FetchDescription(t.Context(), who, w.o)
	if err != nil || d.DID != account || !d.HandleIsCorrect || len(d.Collections) != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	n = 0
	for _, err := range client.FetchList[data.Raw](t.Context(), who, client.ListOptions{Collection: note}, w.o) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 6 {
		t.Errorf("%d records listed", n)
	}
	blob := []byte("the blob")
	host := client.FetchOptions{Host: w.pds.URL}
	for _, o := range []client.FetchOptions{w.o, host} {
		if b, err := client.FetchBlob(t.Context(), string(account), cid.Sum(cid.Raw, blob), 0, o); err != nil || string(b.Data) != string(blob) || b.DID != account {
			t.Errorf("%+v, %v", b, err)
		}
	}
	if _, err := client.FetchBlob(t.Context(), string(account), cid.Sum(cid.Raw, []byte("x")), 0, w.o); !isHash(err) {
		t.Error(err)
	}
	if _, err := client.FetchBlob(t.Context(), string(account), cid.Sum(cid.Raw, blob), 3, w.o); !errors.Is(err, client.ErrTooLarge) {
		t.Error(err)
	}
	if _, err := client.FetchBlob(t.Context(), "alice.test", cid.Sum(cid.Raw, blob), 3, host); err == nil {
		t.Error("a blob of a handle that nobody resolved")
	}
	// Nobody there.
	for name, err := range map[string]error{
		"repo":        second(client.FetchRepo(t.Context(), "did:web:a.internal", w.o)),
		"description": second(client.FetchDescription(t.Context(), "did:web:a.internal", w.o)),
		"blob":        second(client.FetchBlob(t.Context(), "did:web:a.internal", cid.Sum(cid.Raw, blob), 0, w.o)),
		"open":        second(client.Open(t.Context(), "did:web:a.internal", w.o.Options)),
	} {
		if identity.KindOf(err) != identity.KindNotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, err = range client.FetchList[data.Raw](t.Context(), "did:web:a.internal", client.ListOptions{Collection: note}, w.o) {
	}
	if identity.KindOf(err) != identity.KindNotFound {
		t.Errorf("list: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestOpen(t *testing.T) {
	w := newWhole(t)
	c, err := client.Open(t.Context(), "at://"+string(account)+"/"+note, w.o.Options)
	if err != nil || c.Host() != w.pds.URL || c.Identity().DID != account {
		t.Fatalf("%+v, %v", c, err)
	}
	if c, err := client.Open(t.Context(), "https://pds.example", client.Options{}); err != nil || c.Host() != "https://pds.example" || c.Identity() != nil {
		t.Errorf("%+v, %v", c, err)
	}
	// A PDS that an identity names isn't reached on a private address, unless the caller's client goes there.
	o := w.o.Options
	o.HTTP = nil
	if c, err = client.Open(t.Context(), string(account), o); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DescribeRepo(t.Context(), syntax.AtIdentifier(account)); err == nil {
		t.Error("a private address was asked")
	}
}

// flaky answers every second request in a bad way.
func flaky(t *testing.T, bad http.HandlerFunc, h http.HandlerFunc) http.HandlerFunc {
	var n atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1)%2 == 1 {
			bad(w, r)
			return
		}
		h(w, r)
	}
}

// TestPagesAndProofsAreRepeated has a server that fails on every page and proof once, in many ways: with a Retry nothing is
// lost, and each item is handed out once; without, the first failure ends the list.
func TestPagesAndProofsAreRepeated(t *testing.T) {
	r := newRepo(t, 50)
	proof := r.proof(t, note+"/0007")
	next := map[string]string{"": "a", "a": "b", "b": ""}
	listing := page(3, func(c string) string { return next[c] })
	for name, bad := range map[string]http.HandlerFunc{
		"500":        answer(500, `<html>`),
		"503":        answer(503, `{"error":"NotEnoughResources"}`),
		"429":        answer(429, `{"error":"RateLimitExceeded"}`, "Retry-After", "0"),
		"no answer":  func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"cut header": raw("HTTP/1.1 200 OK\r\nContent-"),
		"cut body": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100000")
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"records":[{"uri":"at://x`)
		},
		"cut chunk": raw("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"rec\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			for _, retry := range []*xrpc.Retry{{Rand: func() float64 { return 0 }}, nil} {
				c := pds{
					"com.atproto.repo.listRecords": flaky(t, bad, listing),
					"com.atproto.sync.getRecord":   flaky(t, bad, bytesAnswer(proof)),
					"com.example.list":             flaky(t, bad, answer(200, `{"records":[1,2]}`)),
				}.start(t, client.Options{Retry: retry})
				var got []string
				var last error
				for r, err := range client.List[data.Raw](t.Context(), c, syntax.AtIdentifier(account), client.ListOptions{Collection: note}) {
					if last = err; err == nil {
						got = append(got, string(r.URI.RecordKey()))
					}
				}
				_, err := client.Get[data.Raw](t.Context(), c, uri(t, "at://"+string(account)+"/"+note+"/0007"), client.GetOptions{Key: repotest.Key().Public()})
				n := 0
				var listErr error
				for _, err := range client.QueryList[int64](t.Context(), c, "com.example.list", nil, "", 0) {
					if listErr = err; err == nil {
						n++
					}
				}
				if retry != nil {
					if last != nil || strings.Join(got, " ") != "0 1 2 a0 a1 a2 b0 b1 b2" || err != nil || listErr != nil || n != 2 {
						t.Errorf("%v, %v; proof: %v; query: %d, %v", got, last, err, n, listErr)
					}
				} else if last == nil || len(got) != 0 || err == nil || listErr == nil || n != 0 {
					t.Errorf("without repeating: %v, %v; proof: %v; query: %d, %v", got, last, err, n, listErr)
				}
			}
		})
	}
}

// TestDirtyRecords reads records that break the data model: each is one DecodeError with what came, and nothing else is lost.
func TestDirtyRecords(t *testing.T) {
	_, body, id := record("hi")
	at := func(k string) string { return "at://" + string(account) + "/" + note + "/" + k }
	dirty := []string{
		`{"$type":"com.example.note","lat":59.910}`,
		`{"$type":"com.example.note","pic":{"$link":"x"}}`,
		`{"$type":"com.example.note","a":1,"a":2}`,
		`{"$type":7}`,
		`59.910`,
		`{"$type":"com.example.note","text":"` + `\ud800` + `"}`,
	}
	items := []string{good(at("first"), id, body)}
	for i, d := range dirty {
		said := id
		if i%2 == 0 { // the hash of what the record is kept as: a lie that fits
			kept, _, err := data.AppendCBORLenient(nil, []byte(d))
			if err != nil {
				t.Fatal(err)
			}
			said = cid.Sum(cid.DagCBOR, kept).String()
		}
		items = append(items, good(at(fmt.Sprint(i)), said, d))
	}
	items = append(items, good(at("last"), id, body))
	n := 0
	c := pds{
		"com.atproto.repo.listRecords": answer(200, `{"records":[`+strings.Join(items, ",")+`],"cursor":""}`),
		"com.atproto.repo.getRecord": func(w http.ResponseWriter, r *http.Request) {
			kept, _, _ := data.AppendCBORLenient(nil, []byte(dirty[n]))
			answer(200, good(at("0"), cid.Sum(cid.DagCBOR, kept).String(), dirty[n]))(w, r)
		},
		"com.example.list": answer(200, `{"records":[`+strings.Join(append(dirty[:len(dirty):len(dirty)], body), ",")+`]}`),
	}.start(t, client.Options{})
	check := func(what string, bad *client.DecodeError, i int) {
		t.Helper()
		if _, ok := errors.AsType[*data.Error](bad.Err); !ok {
			t.Errorf("%s %d: %v", what, i, bad)
		}
		if shown, _, err := data.AppendJSONLenient(nil, bad.Raw); err != nil || !strings.Contains(dirty[i], "a\":1") && len(shown) != len(dirty[i]) {
			t.Errorf("%s %d: shown as %s, %v", what, i, shown, err)
		}
		if _, err := data.Marshal((*data.Raw)(&bad.Raw)); err == nil {
			t.Errorf("%s %d: written", what, i)
		}
	}
	for _, skip := range []bool{false, true} {
		var keys []string
		var bad []*client.DecodeError
		o := client.ListOptions{Collection: note, SkipHash: skip, OnBad: func(e *client.DecodeError) { bad = append(bad, e) }}
		for r, err := range client.List[any](t.Context(), c, syntax.AtIdentifier(account), o) {
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, string(r.URI.RecordKey()))
		}
		if strings.Join(keys, " ") != "first last" || len(bad) != len(dirty) {
			t.Fatalf("%v, %d bad", keys, len(bad))
		}
		for i, b := range bad {
			check("listed", b, i)
		}
		for n = range dirty {
			_, err := client.Get[data.Raw](t.Context(), c, uri(t, at("0")), client.GetOptions{SkipHash: skip})
			if e, ok := errors.AsType[*client.DecodeError](err); ok {
				check("got", e, n)
			} else {
				t.Errorf("got %d: %v", n, err)
			}
		}
	}
	i := 0
	for _, err := range client.QueryList[data.Raw](t.Context(), c, "com.example.list", nil, "", 0) {
		if e, ok := errors.AsType[*client.DecodeError](err); ok {
			check("queried", e, i)
		} else if err != nil || i != len(dirty) {
			t.Errorf("queried %d: %v", i, err)
		}
		i++
	}
	// What is wrong outside of the records is wrong with the answer.
	for _, body := range []string{`{"records":[],"cursor":1.5}`, `{"records":{}}`, `{}`, `{"records":[],"records":[]}`, `[`} {
		c := pds{"com.atproto.repo.listRecords": answer(200, body)}.start(t, client.Options{})
		var err error
		for _, err = range client.List[data.Raw](t.Context(), c, syntax.AtIdentifier(account), client.ListOptions{Collection: note}) {
		}
		if _, ok := errors.AsType[*data.Error](err); !ok {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestDecoded(t *testing.T) {
	raw, _, _ := record("hi")
	post, err := data.Marshal(&appbsky.FeedPost{Text: "hi", CreatedAt: "2026-01-01T00:00:00Z"})
	if err != nil {
		t.Fatal(err)
	}
	seq := func(yield func(client.Record[data.Raw], error) bool) {
		_ = yield(client.Record[data.Raw]{URI: "at://a.test/a.b.c/1", Value: raw}, nil) &&
			yield(client.Record[data.Raw]{URI: "at://a.test/a.b.c/2", Value: post}, nil) &&
			yield(client.Record[data.Raw]{}, io.ErrUnexpectedEOF)
	}
	var got []string
	for r, err := range client.Decoded[appbsky.FeedPost](seq) {
		bad, isBad := errors.AsType[*client.DecodeError](err)
		switch {
		case isBad:
			got = append(got, "bad "+bad.URI)
		case err != nil:
			got = append(got, err.Error())
		default:
			got = append(got, r.Value.Text)
		}
	}
	if s := strings.Join(got, ", "); s != "bad at://a.test/a.b.c/1, hi, unexpected EOF" {
		t.Error(s)
	}
	for range client.Decoded[appbsky.FeedPost](seq) {
		break
	}
}

func TestFromSession(t *testing.T) {
	var sent string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent = r.Header.Get("Authorization")
		value, _, id := record("hi")
		_ = value
		answer(200, fmt.Sprintf(`{"uri":"at://%s/%s/1","cid":%q}`, account, note, id))(w, r)
	}))
	defer s.Close()
	c, err := client.FromSession(t.Context(), auth.Session{DID: account, PDS: s.URL, Access: "a", Refresh: "r"}, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	value, _, _ := record("hi")
	if ref, err := client.Create(t.Context(), c, &value, client.WriteOptions{}); err != nil || ref.URI.RecordKey() != "1" || sent != "Bearer a" {
		t.Errorf("%+v, %v, sent %q", ref, err, sent)
	}
	if _, err := client.FromSession(t.Context(), auth.Session{DID: account, PDS: s.URL}, client.Options{}); err == nil {
		t.Error("a session without tokens")
	}
}
