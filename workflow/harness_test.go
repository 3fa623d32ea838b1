package workflow

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/devnet"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// Collections of the tests' service, whose method is com.example.tips.send.
const (
	testMethod     = "com.example.tips.send"
	testCollection = "com.example.tips.note"
)

// world is a local network with one account, and a service that answers from a script.
type world struct {
	t   *testing.T
	net *devnet.Network
	did syntax.DID
	pds *client.Client // without faults
	acc *auth.Account
}

func newWorld(t *testing.T) *world {
	t.Helper()
	net, err := devnet.Start(t.Context(), devnet.Options{Memory: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { net.Close() })
	m := auth.New(auth.Options{HTTP: net.HTTP(), Now: time.Now})
	a, err := m.Create(t.Context(), net.URLs().PDS, &comatproto.ServerCreateAccount_Input{Handle: "alice.test", Email: new("alice@example.com"), Password: new("a quiet barometer")})
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, net: net, did: a.DID(), acc: a, pds: client.ForAccount(a, client.Options{HTTP: net.HTTP()})}
}

// agent is an agent whose requests to the PDS go through a transport, and whose service is at a URL.
func (w *world) agent(transport http.RoundTripper, j Journal, url string) *Agent {
	x := *w.acc.Client()
	if transport != nil {
		x.HTTP = &http.Client{Transport: transport}
	}
	return &Agent{
		PDS: client.New(x.Host, client.Options{HTTP: x.HTTP, Auth: x.Auth, DID: w.did}), DID: w.did, Now: time.Now, Journal: j,
		Connect: func(string) (*xrpc.Client, error) { return &xrpc.Client{Host: url}, nil },
		Wait:    func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	}
}

func note(text string) data.Raw {
	return raw(`{"$type":"` + testCollection + `","text":"` + text + `"}`)
}

func raw(json string) data.Raw {
	b, err := data.AppendCBOR(nil, []byte(json))
	if err != nil {
		panic(err)
	}
	return b
}

// put writes a record directly.
func (w *world) put(rkey, text string) *client.Ref {
	w.t.Helper()
	ref, err := client.Put(w.t.Context(), w.pds, syntax.RecordKey(rkey), new(note(text)), client.WriteOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return ref
}

// notes are the records of the tests' collection: text by record key.
func (w *world) notes() map[string]string {
	w.t.Helper()
	out := map[string]string{}
	for r, err := range client.List[data.Raw](w.t.Context(), w.pds, syntax.AtIdentifier(w.did), client.ListOptions{Collection: testCollection}) {
		if err != nil {
			w.t.Fatal(err)
		}
		out[string(r.URI.RecordKey())] = textOf(r.Value)
	}
	return out
}

func textOf(record data.Raw) string {
	b, err := data.AppendJSON(nil, record)
	if err != nil {
		panic(err)
	}
	var v struct{ Text string }
	if err := json.Unmarshal(b, &v); err != nil {
		panic(err)
	}
	return v.Text
}

// clear deletes all of the collection.
func (w *world) clear() {
	w.t.Helper()
	for key := range w.notes() {
		if _, err := w.pds.Delete(w.t.Context(), syntax.ATURI("at://"+string(w.did)+"/"+testCollection+"/"+key), client.WriteOptions{}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// service answers each report once, by a function; the same report again gets the same answer.
type service struct {
	*httptest.Server
	answer func(round int, report *Inbound, body string) (int, string)

	mu     sync.Mutex
	bodies []string // distinct ones, in order
	given  map[string]string
	status map[string]int
	calls  int
	lose   func(call int) (before, after bool)
}

func newService(t *testing.T, answer func(round int, report *Inbound, body string) (int, string)) *service {
	s := &service{answer: answer, given: map[string]string{}, status: map[string]int{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil || !strings.HasPrefix(r.URL.Path, "/xrpc/") {
		http.Error(w, "bad request", 400)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	var before, after bool
	if s.lose != nil {
		before, after = s.lose(s.calls)
	}
	if before {
		panic(http.ErrAbortHandler)
	}
	body := string(b)
	if _, ok := s.given[body]; !ok {
		var report *Inbound
		if r.Method == http.MethodPost {
			whole, err := data.AppendCBOR(nil, b)
			if err != nil {
				http.Error(w, err.Error(), 400)
				return
			}
			_, _, rep, err := splitReport(whole)
			if err != nil {
				http.Error(w, err.Error(), 400)
				return
			}
			if rep != nil {
				if report, err = DecodeInbound(rep); err != nil {
					http.Error(w, "the agent's report is malformed: "+err.Error(), 400)
					return
				}
			}
		}
		s.status[body], s.given[body] = s.answer(len(s.bodies), report, body)
		s.bodies = append(s.bodies, body)
	}
	if after {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(s.status[body])
	io.WriteString(w, s.given[body])
}

// script answers round after round from a list, whatever is reported.
func script(answers ...string) func(int, *Inbound, string) (int, string) {
	return func(round int, _ *Inbound, _ string) (int, string) {
		if round >= len(answers) {
			return 500, `{"error":"ScriptEnded","message":"the script has no more answers"}`
		}
		return 200, answers[round]
	}
}

// batchJSON is an answer with a workflow.
func batchJSON(intent string, actions ...string) string {
	return `{"workflow":{"intent":"` + intent + `","actions":[` + strings.Join(actions, ",") + `]}}`
}

func (w *world) create(name, rkey, text string) string {
	key := ""
	if rkey != "" {
		key = `"rkey":"` + rkey + `",`
	}
	return fmt.Sprintf(`{"$type":"com.atiproto.actions#create","repo":%q,"name":%q,"collection":%q,%s"record":{"$type":%q,"text":%q}}`, w.did, name, testCollection, key, testCollection, text)
}

func (w *world) update(name, rkey, text string) string {
	return fmt.Sprintf(`{"$type":"com.atiproto.actions#update","repo":%q,"name":%q,"collection":%q,"rkey":%q,"record":{"$type":%q,"text":%q}}`, w.did, name, testCollection, rkey, testCollection, text)
}

func (w *world) remove(name, rkey string) string {
	return fmt.Sprintf(`{"$type":"com.atiproto.actions#delete","repo":%q,"name":%q,"collection":%q,"rkey":%q}`, w.did, name, testCollection, rkey)
}

func raise(message, code string) string {
	return fmt.Sprintf(`{"$type":"com.atiproto.actions#raise","message":%q,"code":%q}`, message, code)
}

// faults is a transport to a PDS that does to the n-th write what a function says.
type faults struct {
	next http.RoundTripper
	what func(n int, r *http.Request) fault

	mu     sync.Mutex
	writes int
	log    []string // texts of the records of writes that the PDS took, in order
}

type fault string

const (
	fine       fault = ""
	refusedBy  fault = "refused"     // an answer of 400, nothing done
	lostBefore fault = "lost before" // no answer, nothing done
	lostAfter  fault = "lost after"  // no answer, all done
	failBefore fault = "5xx before"  // an answer of 500, nothing done
	failAfter  fault = "5xx after"   // an answer of 500, all done
	gateway    fault = "gateway"     // an answer of 502, all done
	slow       fault = "slow"        // an answer that breaks off
)

var allFaults = []fault{fine, refusedBy, lostBefore, lostAfter, failBefore, failAfter, gateway, slow}

var errCut = errors.New("the connection was cut")

func isWrite(r *http.Request) bool {
	for _, m := range []string{"createRecord", "putRecord", "deleteRecord", "applyWrites"} {
		if strings.HasSuffix(r.URL.Path, "com.atproto.repo."+m) {
			return true
		}
	}
	return false
}

func (f *faults) RoundTrip(r *http.Request) (*http.Response, error) {
	if !isWrite(r) {
		return f.next.RoundTrip(r)
	}
	f.mu.Lock()
	f.writes++
	n := f.writes
	f.mu.Unlock()
	what := fine
	if f.what != nil {
		what = f.what(n, r)
	}
	switch what {
	case refusedBy:
		return answerWith(r, 400, `{"error":"TestRefusal","message":"no"}`), nil
	case lostBefore:
		return nil, errCut
	case failBefore:
		return answerWith(r, 500, `{"error":"InternalServerError","message":"no"}`), nil
	}
	resp, err := f.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	switch what {
	case lostAfter:
		resp.Body.Close()
		return nil, errCut
	case failAfter:
		resp.Body.Close()
		return answerWith(r, 500, `{"error":"InternalServerError","message":"no"}`), nil
	case gateway:
		resp.Body.Close()
		return answerWith(r, 502, "<html>"), nil
	case slow:
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(io.LimitReader(resp.Body, 5), broken{}), resp.Body}
	}
	return resp, nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errCut }

func answerWith(r *http.Request, status int, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader([]byte(body))), ContentLength: int64(len(body)),
	}
}

var errKilled = errors.New("killed")

// mortal is a journal that dies at the n-th entry: the entry may be on disk or not, and nothing comes after it.
type mortal struct {
	Journal
	at    int  // 0: never
	after bool // the entry is on disk
	n     int
}

func (m *mortal) Begin(ctx context.Context, run string) (Log, error) {
	l, err := m.Journal.Begin(ctx, run)
	return &mortalLog{l, m}, err
}

func (m *mortal) Open(ctx context.Context, run string) (Log, []Entry, error) {
	l, all, err := m.Journal.Open(ctx, run)
	if err != nil {
		return nil, nil, err
	}
	return &mortalLog{l, m}, all, nil
}

func (m *mortal) dead() bool { return m.at > 0 && m.n >= m.at }

type mortalLog struct {
	Log
	m *mortal
}

func (l *mortalLog) Append(ctx context.Context, e Entry) error {
	if l.m.dead() {
		return errKilled
	}
	l.m.n++
	if l.m.dead() {
		if l.m.after {
			if err := l.Log.Append(ctx, e); err != nil {
				return err
			}
		}
		return errKilled
	}
	return l.Log.Append(ctx, e)
}
