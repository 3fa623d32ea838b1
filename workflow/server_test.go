package workflow

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/barograph/baro/data"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// tipInput and tipOutput are what a service's lexicon would say; types by hand are enough for a test.
type tipInput struct {
	Amount int64      `json:"amount"`
	Extra  data.Extra `json:"-"`
}

type tipOutput struct {
	Receipt string     `json:"receipt"`
	Extra   data.Extra `json:"-"`
}

var sendTip = xrpc.Procedure[tipInput, tipOutput]{NSID: testMethod}

// tips is a service with two steps. Charges is its effect.
type tips struct {
	*httptest.Server
	charges, calls atomic.Int32
	mangle         func(body []byte) []byte // what the agent, or somebody between, makes of a report

	mu      sync.Mutex
	answers [][]byte
}

func newTips(t *testing.T, w *world, store Store, verified bool) *tips {
	t.Helper()
	s := new(tips)
	srv := xrpc.NewServer(xrpc.ServerOptions{})
	o := ServeOptions{
		Secret: bytes.Repeat([]byte("s"), 32), Store: store, Rand: rand.Reader, Unverified: !verified,
		Caller: func(r *xrpc.Request) (syntax.DID, error) { return syntax.ParseDID(r.Header.Get("X-Caller")) },
	}
	if verified {
		o.Verifier = &Verifier{Directory: w.net.Directory(), HTTP: w.net.HTTP()}
	}
	Serve(srv, sendTip, o, Handler[tipInput, tipOutput]{
		Start: func(_ context.Context, c *Round[tipInput]) (*Reply[tipOutput], error) {
			return Ask[tipOutput]("noted", Action{Verb: Create, Name: "note", Collection: testCollection, Record: note("a tip")},
				Action{Verb: Update, Name: "sum", Collection: testCollection, RecordKey: "sum", Record: note("1")})
		},
		On: map[string]func(context.Context, *Round[tipInput]) (*Reply[tipOutput], error){
			"noted": func(_ context.Context, c *Round[tipInput]) (*Reply[tipOutput], error) {
				n, ok := c.Result("note")
				if !ok || c.Caller != w.did || c.Input.Amount != 5 || len(c.Results) != 2 || verified && (n.Proof == nil || !n.Proof.Signed) {
					t.Errorf("round %+v", c)
				}
				s.charges.Add(1)
				return Ask[tipOutput]("paid", Action{Verb: Delete, Name: "tidy", Collection: testCollection, RecordKey: n.URI.RecordKey()})
			},
			"paid": func(_ context.Context, c *Round[tipInput]) (*Reply[tipOutput], error) {
				return Final(&tipOutput{Receipt: c.Token})
			},
		},
		OnError: func(_ context.Context, c *Round[tipInput]) (*Reply[tipOutput], error) {
			undo, left := Compensate(c.Results, nil)
			if len(left) > 0 {
				return Fail[tipOutput]("left: "+strings.Join(left, ", "), "Partly", undo...)
			}
			return Fail[tipOutput](*c.Failure.Name+" failed", "TipFailed", undo...)
		},
	})
	s.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		s.calls.Add(1)
		b, _ := io.ReadAll(r.Body)
		if s.mangle != nil {
			b = s.mangle(b)
		}
		r.Body = io.NopCloser(bytes.NewReader(b))
		if r.Header.Get("X-Caller") == "" {
			r.Header.Set("X-Caller", string(w.did))
		}
		rec := httptest.NewRecorder()
		srv.ServeHTTP(rec, r)
		s.mu.Lock()
		s.answers = append(s.answers, rec.Body.Bytes())
		s.mu.Unlock()
		for k, v := range rec.Header() {
			rw.Header()[k] = v
		}
		rw.WriteHeader(rec.Code)
		rw.Write(rec.Body.Bytes())
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *tips) post(t *testing.T, caller, body string) (int, string) {
	t.Helper()
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/xrpc/"+testMethod, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Caller", caller)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

// TestHelper: agent and helper together, with proofs, over lost answers, and with both stores.
func TestHelper(t *testing.T) {
	w := newWorld(t)
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for name, store := range map[string]Store{"memory": new(MemoryStore), "file": NewFileStore(root)} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.clear()
			s := newTips(t, w, store, true)
			lost := 0
			a := w.agent(nil, nil, s.URL)
			a.Connect = func(string) (*xrpc.Client, error) {
				return &xrpc.Client{Host: s.URL, HTTP: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
					resp, err := http.DefaultTransport.RoundTrip(r)
					if err == nil && s.calls.Load() > 1 && lost < 2 { // the answers to the first report are lost, twice
						lost++
						resp.Body.Close()
						return nil, errCut
					}
					return resp, err
				})}}, nil
			}
			out, err := Call(t.Context(), a, "test", sendTip, &tipInput{Amount: 5})
			if err != nil {
				t.Fatal(err)
			}
			if len(out.Receipt) != tokenLength || s.charges.Load() != 1 || s.calls.Load() != 5 {
				t.Errorf("receipt %q, %d charges, %d calls", out.Receipt, s.charges.Load(), s.calls.Load())
			}
			if !bytes.Equal(s.answers[1], s.answers[2]) || !bytes.Equal(s.answers[1], s.answers[3]) {
				t.Error("the same report got different answers")
			}
			if got := w.notes(); !equal(got, map[string]string{"sum": "1"}) {
				t.Errorf("there is %v", got)
			}
		})
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestHelperErrors: a failure is compensated, last first, and what can't be taken back is named.
func TestHelperErrors(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		n    int
		code string
	}{"first fails": {1, "TipFailed"}, "second fails": {2, "TipFailed"}} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.clear()
			s := newTips(t, w, new(MemoryStore), true)
			a := w.agent(&faults{next: w.net.HTTP().Transport, what: only(c.n, refusedBy)}, nil, s.URL)
			_, err := Call(t.Context(), a, "test", sendTip, &tipInput{Amount: 5})
			var r *RaisedError
			if !errors.As(err, &r) || r.Code != c.code || s.charges.Load() != 0 {
				t.Errorf("%v, %d charges", err, s.charges.Load())
			}
			if got := w.notes(); len(got) != 0 {
				t.Errorf("there is %v", got)
			}
		})
	}
	a := Verified{Action: Action{Verb: Update, Name: "u", Collection: testCollection}, URI: "at://did:web:a.test/com.example.tips.note/k"}
	if undo, left := Compensate([]Verified{a}, nil); len(undo) != 0 || !slices.Equal(left, []string{"u"}) {
		t.Errorf("%v, %v", undo, left)
	}
	if undo, left := Compensate([]Verified{a}, func(Verified) data.Raw { return note("old") }); len(undo) != 1 || undo[0].Verb != Update || left != nil {
		t.Errorf("%v, %v", undo, left)
	}
}

// TestLyingAgent: whatever an agent claims that isn't so, no step runs for it.
func TestLyingAgent(t *testing.T) {
	w := newWorld(t)
	type report = map[string]any
	responses := func(r report) []any { return r["responses"].([]any) }
	result := func(r report, i int) report { return responses(r)[i].(report)["result"].(report) }
	for name, lie := range map[string]struct {
		change func(r report)
		before func() // done to the repository before the report arrives
		code   string
	}{
		"nothing":            {func(report) {}, nil, ""},
		"a response missing": {func(r report) { r["responses"] = responses(r)[:1] }, nil, "ClaimNotProven"},
		"none at all":        {func(r report) { r["responses"] = []any{} }, nil, "ClaimNotProven"},
		"another order":      {func(r report) { slices.Reverse(responses(r)) }, nil, "ClaimNotProven"},
		"one twice":          {func(r report) { responses(r)[1] = responses(r)[0] }, nil, "InvalidWorkflow"},
		"one more": {func(r report) {
			r["responses"] = append(responses(r), report{"action": "create", "name": "x", "result": result(r, 0)})
		}, nil, "ClaimNotProven"},
		"another verb":       {func(r report) { responses(r)[0].(report)["action"] = "delete" }, nil, "ClaimNotProven"},
		"another name":       {func(r report) { responses(r)[0].(report)["name"] = "tip" }, nil, "ClaimNotProven"},
		"another record":     {func(r report) { result(r, 0)["cid"] = result(r, 1)["cid"] }, nil, "ClaimNotProven"},
		"no CID":             {func(r report) { delete(result(r, 0), "cid") }, nil, "ClaimNotProven"},
		"another key":        {func(r report) { result(r, 1)["uri"] = result(r, 0)["uri"] }, nil, "ClaimNotProven"},
		"another repository": {func(r report) { result(r, 0)["uri"] = "at://did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/" + testCollection + "/x" }, nil, "ClaimNotProven"},
		"a handle":           {func(r report) { result(r, 0)["uri"] = "at://alice.test/" + testCollection + "/x" }, nil, "ClaimNotProven"},
		"another collection": {func(r report) { result(r, 0)["uri"] = "at://" + string(w.did) + "/com.example.tips.other/x" }, nil, "ClaimNotProven"},
		"not a URI":          {func(r report) { result(r, 0)["uri"] = "x" }, nil, "InvalidWorkflow"},
		"not there":          {func(r report) { result(r, 0)["uri"] = "at://" + string(w.did) + "/" + testCollection + "/elsewhere" }, nil, "ClaimNotProven"},
		"not there any more": {func(report) {}, w.clear, "ClaimNotProven"},
		"changed since":      {func(report) {}, func() { w.put("sum", "1000") }, "ClaimNotProven"},
		"an error that isn't": {func(r report) {
			r["intent"], r["error"] = "error", report{"action": "create", "message": "x", "name": responses(r)[0].(report)["name"]}
		}, nil, "ClaimNotProven"},
		"error and intent":    {func(r report) { r["error"] = report{"action": "create", "message": "x"} }, nil, "InvalidWorkflow"},
		"intent and no error": {func(r report) { r["intent"] = "error" }, nil, "InvalidWorkflow"},
		"another step":        {func(r report) { r["intent"] = strings.Replace(r["intent"].(string), "noted", "paid", 1) }, nil, "UnknownStep"},
		"another token":       {func(r report) { r["intent"] = "noted~" + strings.Repeat("A", tokenLength) + ".0" }, nil, "InvalidWorkflow"},
		"no token":            {func(r report) { r["intent"] = "noted"; r["responses"] = []any{} }, nil, "InvalidWorkflow"},
		"no intent":           {func(r report) { delete(r, "intent") }, nil, "InvalidWorkflow"},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.clear()
			s := newTips(t, w, new(MemoryStore), true)
			first := true
			s.mangle = func(body []byte) []byte {
				var m report
				if err := json.Unmarshal(body, &m); err != nil {
					t.Fatal(err)
				}
				r, ok := m["workflow"].(report)
				if !ok || !first {
					return body
				}
				first = false
				if lie.before != nil {
					lie.before()
				}
				lie.change(r)
				b, err := json.Marshal(m)
				if err != nil {
					t.Fatal(err)
				}
				return b
			}
			_, err := Call(t.Context(), w.agent(nil, nil, s.URL), "test", sendTip, &tipInput{Amount: 5})
			if lie.code == "" {
				if err != nil || s.charges.Load() != 1 {
					t.Errorf("%v, %d charges", err, s.charges.Load())
				}
				return
			}
			if !errors.Is(err, xrpc.ErrorName(lie.code)) || s.charges.Load() != 0 {
				t.Errorf("%v, %d charges", err, s.charges.Load())
			}
		})
	}
}

// TestTokens: a report is only good for the caller and the input of its flow, and only once.
func TestTokens(t *testing.T) {
	w := newWorld(t)
	s := newTips(t, w, new(MemoryStore), true)
	var bodies []string
	s.mangle = func(b []byte) []byte { bodies = append(bodies, string(b)); return b }
	if _, err := Call(t.Context(), w.agent(nil, nil, s.URL), "test", sendTip, &tipInput{Amount: 5}); err != nil {
		t.Fatal(err)
	}
	report := bodies[1]
	if status, answer := s.post(t, string(w.did), report); status != 200 || answer != string(s.answers[1]) {
		t.Errorf("again: %d, %s", status, answer)
	}
	for name, c := range map[string]struct{ caller, body, code string }{
		"another caller": {"did:web:b.test", report, "InvalidWorkflow"},
		"another input":  {string(w.did), strings.Replace(report, `"amount":5`, `"amount":5000`, 1), "InvalidWorkflow"},
		"another report": {string(w.did), strings.Replace(report, `"responses":[{`, `"x":1,"responses":[{`, 1), "ReportChanged"},
		"no object":      {string(w.did), `[]`, "InvalidWorkflow"},
		"no JSON":        {string(w.did), `{`, "InvalidRequest"},
		"floats":         {string(w.did), `{"amount":1.5}`, "InvalidRequest"},
		"two fields":     {string(w.did), `{"amount":5,"workflow":{},"$workflow":{}}`, "InvalidWorkflow"},
		"large":          {string(w.did), `{"amount":5,"x":"` + strings.Repeat("x", maxInput) + `"}`, "InvalidRequest"},
	} {
		if status, answer := s.post(t, c.caller, c.body); status < 400 || !strings.Contains(answer, `"`+c.code+`"`) {
			t.Errorf("%s: %d, %.200s", name, status, answer)
		}
	}
	if s.charges.Load() != 1 {
		t.Errorf("%d charges", s.charges.Load())
	}
	// A server that has forgotten, or has another secret, refuses.
	forgetful := newTips(t, w, new(MemoryStore), true)
	if status, answer := forgetful.post(t, string(w.did), report); status != 400 || !strings.Contains(answer, "UnknownStep") {
		t.Errorf("%d, %s", status, answer)
	}
}

// TestConcurrentReports: the same report at once runs its step once.
func TestConcurrentReports(t *testing.T) {
	w := newWorld(t)
	s := newTips(t, w, new(MemoryStore), false)
	a := w.agent(nil, nil, s.URL)
	var report string
	a.Connect = func(string) (*xrpc.Client, error) {
		return &xrpc.Client{Host: s.URL, HTTP: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			b, _ := io.ReadAll(r.Body)
			if bytes.Contains(b, []byte(`"workflow"`)) {
				report = string(b)
				return nil, errCut
			}
			r.Body = io.NopCloser(bytes.NewReader(b))
			return http.DefaultTransport.RoundTrip(r)
		})}}, nil
	}
	var i *InterruptedError
	if _, err := Call(t.Context(), a, "test", sendTip, &tipInput{Amount: 5}); !errors.As(err, &i) {
		t.Fatal(err)
	}
	done := make(chan string, 8)
	for range cap(done) {
		go func() {
			_, answer := s.post(t, string(w.did), report)
			done <- answer
		}()
	}
	first := <-done
	for range cap(done) - 1 {
		if got := <-done; got != first {
			t.Errorf("%s and %s", first, got)
		}
	}
	if s.charges.Load() != 1 {
		t.Errorf("%d charges", s.charges.Load())
	}
}

func TestMemoryStoreForgets(t *testing.T) {
	s := &MemoryStore{Max: 2}
	for _, k := range []string{"a", "b", "c"} {
		if err := s.Update(t.Context(), k, func([]byte) ([]byte, error) { return []byte(k), nil }); err != nil {
			t.Fatal(err)
		}
	}
	for k, want := range map[string]string{"a": "", "b": "b", "c": "c"} {
		err := s.Update(t.Context(), k, func(old []byte) ([]byte, error) {
			if string(old) != want {
				t.Errorf("%s: %q", k, old)
			}
			return nil, nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}
