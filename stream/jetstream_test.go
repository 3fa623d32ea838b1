package stream_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

const place = `{"$type":"com.example.place","name":"Oslo"}`

func commitJSON(t testing.TB, at int, op, record, id string) string {
	t.Helper()
	if id == "" {
		raw, _, err := data.AppendCBORLenient(nil, []byte(record))
		if err != nil {
			t.Fatal(err)
		}
		id = cid.Sum(cid.DagCBOR, raw).String()
	}
	return fmt.Sprintf(`{"did":"did:web:a.test","time_us":%d,"kind":"commit","commit":{"rev":"3lbhk2aaaaa2a","operation":%q,"collection":"com.example.place","rkey":"k%d","record":%s,"cid":%q},"new":1}`, at, op, at, record, id)
}

func TestParseJetstreamEvent(t *testing.T) {
	good, err := stream.ParseJetstreamEvent([]byte(commitJSON(t, 7, "update", place, "")))
	if err != nil || string(good.URI()) != "at://did:web:a.test/com.example.place/k7" || good.RecordErr != nil || good.Record.Type() != "com.example.place" || good.Time != 7 || good.Cursor != 7 || good.Rev == "" {
		t.Errorf("%+v, %v", good, err)
	}
	other := cid.Sum(cid.DagCBOR, []byte{0xa0}).String()
	if e, err := stream.ParseJetstreamEvent([]byte(commitJSON(t, 7, "create", place, other))); err != nil || e.RecordErr == nil {
		t.Errorf("another record: %+v, %v", e, err)
	}
	dirty, err := stream.ParseJetstreamEvent([]byte(commitJSON(t, 7, "create", `{"$type":"com.example.place","lat":59.910}`, other)))
	if _, ok := errors.AsType[*data.Error](dirty.RecordErr); err != nil || !ok {
		t.Errorf("dirty: %+v, %v", dirty, err)
	}
	if shown, _, err := data.AppendJSONLenient(nil, dirty.Record); err != nil || !strings.Contains(string(shown), "59.910") {
		t.Errorf("%s, %v", shown, err)
	}
	for in, want := range map[string]func(*stream.JetstreamEvent) bool{
		`{"did":"did:web:a.test","time_us":5,"cursor":99,"kind":"commit","commit":{"rev":"3lbhk2aaaaa2a","operation":"delete","collection":"a.b.c","rkey":"k"}}`: func(e *stream.JetstreamEvent) bool {
			return e.Action == "delete" && e.Record == nil && !e.CID.Defined() && e.Cursor == 99 && e.Time == 5
		},
		`{"did":"did:web:a.test","time_us":5,"kind":"identity","identity":{"did":"did:web:a.test","handle":"a.test","seq":1,"time":"x"}}`: func(e *stream.JetstreamEvent) bool { return e.Handle == "a.test" },
		`{"did":"did:web:a.test","time_us":5,"kind":"identity","identity":{"handle":"not one"}}`:                                          func(e *stream.JetstreamEvent) bool { return e.Handle == "" },
		`{"did":"did:web:a.test","time_us":5,"kind":"account","account":{"active":false,"status":"suspended"}}`:                           func(e *stream.JetstreamEvent) bool { return !e.Active && e.Status == "suspended" },
		`{"did":"did:web:a.test","time_us":5,"kind":"something","something":{}}`:                                                          func(e *stream.JetstreamEvent) bool { return e.Kind == "something" },
	} {
		if e, err := stream.ParseJetstreamEvent([]byte(in)); err != nil || !want(e) {
			t.Errorf("%s: %+v, %v", in, e, err)
		}
	}
	for _, in := range []string{
		``, `{}`, `[]`, `{"did":"did:web:a.test","kind":"commit"}`, `{"did":"x","time_us":5,"kind":"account","account":{}}`, `{"did":"did:web:a.test","time_us":5,"kind":"account"}`,
		`{"did":"did:web:a.test","time_us":-5,"kind":"account","account":{}}`,
		commitJSON(t, 7, "destroy", place, ""), strings.Replace(commitJSON(t, 7, "create", place, ""), "com.example.place", "../x", 1),
		strings.Replace(commitJSON(t, 7, "create", place, ""), "k7", "a/b", 1), commitJSON(t, 7, "create", place, "x"), strings.Replace(commitJSON(t, 7, "create", place, ""), "3lbhk2aaaaa2a", "0", 1),
	} {
		if e, err := stream.ParseJetstreamEvent([]byte(in)); err == nil {
			t.Errorf("%s: %+v", in, e)
		}
	}
}

// TestJetstream loses its connection three times, is sent what it has had already and what is no event, and hands out the
// rest once and in order.
func TestJetstream(t *testing.T) {
	var asked []url.Values
	event := func(at int) string { return commitJSON(t, at, "create", place, "") }
	steps := [][]string{{event(1), event(2)}, {event(2), "junk", event(3)}, {}, {event(3), event(4), event(5)}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := len(asked)
		asked = append(asked, r.URL.Query())
		if r.URL.Path != "/subscribe" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		if n >= len(steps) {
			http.Error(w, "gone", http.StatusGone)
			return
		}
		u := websocket.Upgrader{}
		ws, err := u.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()
		for _, m := range steps[n] {
			_ = ws.WriteMessage(websocket.TextMessage, []byte(m))
		}
	}))
	defer s.Close()
	var got []string
	var bad []string
	var last error
	o := stream.JetstreamOptions{SubscribeOptions: fast(), Collections: []string{"com.example.*", "a.b.c"}, DIDs: []syntax.DID{"did:web:a.test"}, OnBad: func(m []byte, err error) { bad = append(bad, string(m)) }}
	for e, err := range stream.Jetstream(t.Context(), s.URL, o) {
		if last = err; err == nil {
			got = append(got, string(e.RecordKey))
		}
	}
	if strings.Join(got, " ") != "k1 k2 k3 k4 k5" || strings.Join(bad, " ") != "junk" {
		t.Errorf("%v, bad %v", got, bad)
	}
	if e, ok := errors.AsType[*stream.HandshakeError](last); !ok || e.Status != http.StatusGone {
		t.Errorf("%v", last)
	}
	var cursors []string
	for _, q := range asked {
		cursors = append(cursors, q.Get("cursor"))
		if strings.Join(q["wantedCollections"], " ") != "com.example.* a.b.c" || q.Get("wantedDids") != "did:web:a.test" {
			t.Errorf("asked %v", q)
		}
	}
	if c := strings.Join(cursors, ","); c != ",2,3,3,5" {
		t.Errorf("cursors %s", c)
	}
}

// TestJetstreamEnds leaves a stream, is given frames of another stream, and is left waiting.
func TestJetstreamEnds(t *testing.T) {
	url, conns := script(t, func(_ string, ws *websocket.Conn) {
		_ = ws.WriteMessage(websocket.TextMessage, []byte(commitJSON(t, 1, "create", place, "")))
		_, _, _ = ws.ReadMessage()
	})
	for range stream.Jetstream(t.Context(), url, stream.JetstreamOptions{SubscribeOptions: fast()}) {
		break
	}
	if conns.Load() != 1 {
		t.Errorf("%d connections", conns.Load())
	}
	binary, _ := script(t, func(_ string, ws *websocket.Conn) { send(ws, 1) })
	o := stream.JetstreamOptions{SubscribeOptions: fast()}
	o.MaxAttempts = 2
	for e, err := range stream.Jetstream(t.Context(), binary, o) {
		if err == nil || !strings.Contains(err.Error(), "binary") {
			t.Errorf("%+v, %v", e, err)
		}
	}
	silent, _ := script(t, func(_ string, ws *websocket.Conn) {
		ws.SetPingHandler(func(string) error { return nil })
		_, _, _ = ws.ReadMessage()
	})
	o.IdleTimeout = 30 * time.Millisecond
	for e, err := range stream.Jetstream(t.Context(), silent, o) {
		if !errors.Is(err, stream.ErrIdle) {
			t.Errorf("%+v, %v", e, err)
		}
	}
}

// FuzzJetstreamEvent: what is read is well formed, and a record without an error is valid and has its hash.
func FuzzJetstreamEvent(f *testing.F) {
	f.Add([]byte(commitJSON(f, 7, "create", place, "")))
	f.Add([]byte(commitJSON(f, 7, "update", `{"lat":1.5}`, "")))
	f.Add([]byte(`{"did":"did:web:a.test","time_us":5,"cursor":99,"kind":"commit","commit":{"rev":"3lbhk2aaaaa2a","operation":"delete","collection":"a.b.c","rkey":"k"}}`))
	f.Add([]byte(`{"did":"did:web:a.test","time_us":5,"kind":"account","account":{"active":false,"status":"suspended"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := stream.ParseJetstreamEvent(b)
		if err != nil {
			return
		}
		if !syntax.ValidDID(e.DID) || e.Cursor <= 0 || e.Kind == "" {
			t.Fatalf("%s: %+v", b, e)
		}
		if e.Kind == stream.JetstreamCommit && e.Action != stream.ActionDelete && e.RecordErr == nil && (cid.Sum(cid.DagCBOR, e.Record) != e.CID || data.Check(e.Record) != nil) {
			t.Fatalf("%s: %+v", b, e)
		}
	})
}
