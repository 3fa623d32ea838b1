package workflow

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/barograph/baro/auth/scope"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// TestScenarios runs each script once and looks at what the agent reported, how it ended, and what is there afterwards. The
// records old0 and old1 are there before.
func TestScenarios(t *testing.T) {
	w := newWorld(t)
	old := map[string]string{"old0": "zero", "old1": "one"}
	with := func(change ...string) map[string]string { // key, text; an empty text deletes
		m := map[string]string{"old0": "zero", "old1": "one"}
		for i := 0; i < len(change); i += 2 {
			if m[change[i]] = change[i+1]; change[i+1] == "" {
				delete(m, change[i])
			}
		}
		return m
	}
	other := "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
	replaced := func(s, from, to string) string {
		if !strings.Contains(s, from) {
			t.Fatalf("%q is not in %s", from, s)
		}
		return strings.Replace(s, from, to, 1)
	}
	two := func(answer string) func(int, *Inbound, string) (int, string) { return script(answer, `{"ok":true}`) }
	type check func(t *testing.T, res *Result, err error, reports []*Inbound)
	reported := func(want ...string) check { // one text for each report
		return func(t *testing.T, res *Result, err error, reports []*Inbound) {
			if err != nil {
				t.Errorf("error %v", err)
			} else if got := string(mustJSON(res.Output)); got != `{"ok":true}` {
				t.Errorf("output %s", got)
			}
			var got []string
			for _, r := range reports {
				got = append(got, tell(r))
			}
			if !slices.Equal(got, want) {
				t.Errorf("reported %q, want %q", got, want)
			}
		}
	}
	denied := func(part string) check {
		return func(t *testing.T, res *Result, err error, reports []*Inbound) {
			if err != nil || len(reports) != 1 || reports[0].Error == nil || len(reports[0].Responses) != 0 {
				t.Fatalf("%v, reports %v", err, reports)
			}
			e := reports[0].Error
			if c := deref(e.Code); c != CodePolicy && c != CodeInvalid || !strings.Contains(e.Message, part) {
				t.Errorf("reported %s: %s, want %q", c, e.Message, part)
			}
			if got, want := len(e.Message) <= 1024 && len(deref(e.Name)) <= 64 && len(e.Action) <= 32, true; got != want {
				t.Errorf("an error beyond the limits: %+v", e)
			}
		}
	}
	raised := func(code string, done int) check {
		return func(t *testing.T, res *Result, err error, reports []*Inbound) {
			var r *RaisedError
			if !errors.As(err, &r) || r.Code != code || len(r.Done) != done {
				t.Errorf("got %#v", err)
			}
		}
	}
	for name, c := range map[string]struct {
		answer func(round int, in *Inbound, body string) (int, string)
		setup  func(*Agent)
		faults func(n int, r *http.Request) fault
		query  bool
		check  check
		after  map[string]string
	}{
		"no workflow": {answer: script(`{"ok":true}`), check: reported(), after: old},
		"no actions":  {answer: script(`{"ok":true,"workflow":{"intent":"x","actions":[]}}`), check: reported(), after: old},
		"a field that is none": {answer: script(`{"ok":true,"workflow":"later"}`), check: func(t *testing.T, res *Result, err error, _ []*Inbound) {
			mustEnd(t, res, err, `{"ok":true,"workflow":"later"}`)
		}, after: old},
		"create with a key":       {answer: two(batchJSON("s", w.create("a", "k1", "new"))), check: reported("s: create a k1"), after: with("k1", "new")},
		"update":                  {answer: two(batchJSON("s", w.update("a", "old0", "new"))), check: reported("s: update a old0"), after: with("old0", "new")},
		"update of nothing":       {answer: two(batchJSON("s", w.update("a", "k1", "new"))), check: reported("s: update a k1"), after: with("k1", "new")},
		"delete":                  {answer: two(batchJSON("s", w.remove("a", "old0"))), check: reported("s: delete a old0"), after: with("old0", "")},
		"delete of nothing":       {answer: two(batchJSON("s", w.remove("a", "k1"))), check: reported("s: delete a k1"), after: old},
		"mixed":                   {answer: two(batchJSON("s", w.create("a", "k1", "new"), w.update("b", "old0", "newer"), w.remove("c", "old1"))), check: reported("s: create a k1, update b old0, delete c old1"), after: with("k1", "new", "old0", "newer", "old1", "")},
		"one record in one batch": {answer: two(batchJSON("s", w.create("a", "k1", "new"), w.update("b", "k1", "newer"), w.remove("c", "k1"))), check: reported("s: create a k1, update b k1, delete c k1"), after: old},
		"the old field":           {answer: two(strings.Replace(batchJSON("s", w.create("a", "k1", "new")), `"workflow"`, `"$workflow"`, 1)), check: reported("s: create a k1"), after: with("k1", "new")},
		"both fields":             {answer: two(`{"$workflow":{"intent":"s","actions":[` + w.create("a", "k1", "x") + `]},"workflow":{"intent":"s","actions":[` + w.create("a", "k1", "x") + `]}}`), check: denied("another in"), after: old},
		"two batches":             {answer: script(batchJSON("s", w.create("a", "k1", "new")), batchJSON("t", w.update("a", "k1", "newer")), `{"ok":true}`), check: reported("s: create a k1", "t: update a k1"), after: with("k1", "newer")},
		"raise alone":             {answer: script(batchJSON("s", raise("no", "No"))), check: raised("No", 0), after: old},
		"raise last":              {answer: script(batchJSON("s", w.create("a", "k1", "new"), raise("no", "No"))), check: raised("No", 1), after: with("k1", "new")},
		"raise first":             {answer: two(batchJSON("s", raise("no", "No"), w.create("a", "k1", "new"))), check: denied("follows a raise"), after: old},
		"raise in the middle":     {answer: two(batchJSON("s", w.create("a", "k1", "new"), raise("no", "No"), w.create("b", "k2", "new"))), check: denied("follows a raise"), after: old},

		"first fails": {answer: two(batchJSON("s", w.create("a", "k1", "new"), w.create("b", "k2", "new"))), faults: only(1, refusedBy), check: reported("error: ; create a TestRefusal"), after: old},
		"middle fails": {answer: two(batchJSON("s", w.create("a", "k1", "new"), w.create("b", "k2", "new"), w.create("c", "k3", "new"))), faults: only(2, refusedBy),
			check: reported("error: create a k1; create b TestRefusal"), after: with("k1", "new")},
		"last fails":    {answer: two(batchJSON("s", w.create("a", "k1", "new"), w.remove("b", "old0"))), faults: only(2, refusedBy), check: reported("error: create a k1; delete b TestRefusal"), after: with("k1", "new")},
		"always failed": {answer: two(batchJSON("s", w.create("a", "k1", "new"))), faults: func(int, *http.Request) fault { return failBefore }, check: reported("error: ; create a InternalServerError"), after: old},
		"compensation": {answer: script(batchJSON("s", w.create("a", "k1", "new"), w.create("b", "k2", "new")), batchJSON("undo", w.remove("a", "k1"), raise("sorry", "Sorry"))), faults: only(2, refusedBy),
			check: raised("Sorry", 2), after: old},
		"lost before":       {answer: two(batchJSON("s", w.create("a", "k1", "new"))), faults: only(1, lostBefore), check: reported("s: create a k1"), after: with("k1", "new")},
		"lost after":        {answer: two(batchJSON("s", w.create("a", "k1", "new"))), faults: only(1, lostAfter), check: reported("s: create a k1"), after: with("k1", "new")},
		"lost delete":       {answer: two(batchJSON("s", w.remove("a", "old0"))), faults: only(1, lostAfter), check: reported("s: delete a old0"), after: with("old0", "")},
		"gateway":           {answer: two(batchJSON("s", w.update("a", "old0", "new"))), faults: only(1, gateway), check: reported("s: update a old0"), after: with("old0", "new")},
		"cut answer":        {answer: two(batchJSON("s", w.update("a", "old0", "new"))), faults: only(1, slow), check: reported("s: update a old0"), after: with("old0", "new")},
		"there is one":      {answer: two(batchJSON("s", w.create("a", "old0", "new"))), check: reported("error: ; create a RecordExists"), after: old},
		"the same is there": {answer: two(batchJSON("s", w.create("a", "old0", "zero"))), check: reported("error: ; create a RecordExists"), after: old},

		"atomic":             {answer: two(batchJSON("s", w.create("a", "k1", "new"), w.update("b", "old0", "newer"), w.remove("c", "old1"))), setup: inOne, check: reported("s: create a k1, update b old0, delete c old1"), after: with("k1", "new", "old0", "newer", "old1", "")},
		"atomic and refused": {answer: two(batchJSON("s", w.create("a", "k1", "new"), w.remove("c", "old1"))), setup: inOne, faults: only(1, refusedBy), check: reported("error: ; create a TestRefusal"), after: old},
		"atomic and lost":    {answer: two(batchJSON("s", w.create("a", "k1", "new"), w.remove("c", "old1"))), setup: inOne, faults: only(1, lostAfter), check: reported("s: create a k1, delete c old1"), after: with("k1", "new", "old1", "")},
		"atomic twice":       {answer: two(batchJSON("s", w.create("a", "k1", "new"), w.update("b", "k1", "newer"))), setup: inOne, check: denied("same record"), after: old},
		"atomic alone":       {answer: two(batchJSON("s", w.create("a", "k1", "new"))), setup: inOne, check: reported("s: create a k1"), after: with("k1", "new")},
		"stale swapCommit": {answer: two(batchJSON("s", replaced(w.update("a", "old0", "new"), `"rkey"`, `"swapCommit":"bafyreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku","rkey"`))),
			check: reported("error: ; update a InvalidSwap"), after: old},

		"another repository":  {answer: two(batchJSON("s", w.create("a", "k1", "x"), replaced(w.create("b", "k2", "x"), string(w.did), other))), check: denied("acts for"), after: old},
		"another collection":  {answer: two(batchJSON("s", strings.ReplaceAll(w.create("a", "k1", "x"), testCollection, "app.bsky.feed.post"))), check: denied("neither"), after: old},
		"an allowed one":      {answer: two(batchJSON("s", strings.ReplaceAll(w.create("a", "k1", "x"), testCollection, "org.example.other"))), setup: func(a *Agent) { a.Policy.Allow = []string{"org.example.*"} }, check: reported("s: create a k1"), after: old},
		"an allowed verb":     {answer: two(batchJSON("s", strings.ReplaceAll(w.create("a", "k1", "x"), testCollection, "org.example.other"))), setup: func(a *Agent) { a.Policy.Allow = []string{"org.example.other#delete"} }, check: denied("neither"), after: old},
		"denied":              {answer: two(batchJSON("s", strings.ReplaceAll(w.create("a", "k1", "x"), testCollection, "com.atproto.lexicon.schema"))), setup: func(a *Agent) { a.Policy.Allow = []string{"*"} }, check: denied("denied"), after: old},
		"a labeler":           {answer: two(batchJSON("s", strings.ReplaceAll(w.create("a", "self", "x"), testCollection, "app.bsky.labeler.service"))), setup: func(a *Agent) { a.Policy.Allow = []string{"*"} }, check: denied("denied"), after: old},
		"no profile deletion": {answer: two(batchJSON("s", strings.ReplaceAll(w.remove("a", "self"), testCollection, "app.bsky.actor.profile"))), setup: func(a *Agent) { a.Policy.Allow = []string{"app.bsky.*"} }, check: denied("denied"), after: old},
		"no permission":       {answer: two(batchJSON("s", w.remove("a", "old0"))), setup: func(a *Agent) { a.Policy.Granted = GrantedBy(scope.Of(scope.Repo(scope.Any).On(scope.Create))) }, check: denied("permission"), after: old},
		"a person says no":    {answer: two(batchJSON("s", w.remove("a", "old0"))), setup: func(a *Agent) { a.OnPlan = func(context.Context, *Plan) error { return errors.New("not now") } }, check: denied("not now"), after: old},
		"too many":            {answer: two(batchJSON("s", w.create("a", "k1", "x"), w.create("b", "k2", "x"))), setup: func(a *Agent) { a.Policy.MaxWrites = 1 }, check: denied("at most 1"), after: old},
		"far too many":        {answer: two(batchJSON("s", slices.Repeat([]string{w.create("a", "", "x")}, MaxActions+1)...)), check: denied("at most 200"), after: old},
		"a schema says no":    {answer: two(batchJSON("s", w.create("a", "k1", "x"))), setup: schema(`"text":{"type":"integer"}`), check: denied("text"), after: old},
		"a schema says yes":   {answer: two(batchJSON("s", w.create("a", "k1", "x"))), setup: schema(`"text":{"type":"string"}`), check: reported("s: create a k1"), after: with("k1", "x")},
		"no schema":           {answer: two(batchJSON("s", strings.ReplaceAll(w.create("a", "k1", "x"), testCollection, "com.example.tips.other"))), setup: func(a *Agent) { schema(`"text":{"type":"string"}`)(a); a.Policy.KnownOnly = true }, check: denied("not known"), after: old},
		"another type":        {answer: two(batchJSON("s", replaced(w.create("a", "k1", "x"), `"record":{"$type":"`+testCollection, `"record":{"$type":"com.example.tips.other`))), check: denied("of type"), after: old},
		"no type":             {answer: two(batchJSON("s", replaced(w.create("a", "k1", "x"), `"$type":"`+testCollection+`",`, ``))), check: denied("of type"), after: old},
		"unknown action":      {answer: two(batchJSON("s", w.create("a", "k1", "x"), `{"$type":"com.atiproto.actions#transfer","name":"b"}`)), check: denied("transfer"), after: old},
		"action without type": {answer: two(batchJSON("s", `{"name":"b"}`)), check: denied(""), after: old},
		"no name":             {answer: two(batchJSON("s", replaced(w.create("a", "k1", "x"), `"name":"a"`, `"name":""`))), check: denied("name"), after: old},
		"a missing name":      {answer: two(batchJSON("s", replaced(w.create("a", "k1", "x"), `"name":"a",`, ``))), check: denied("name"), after: old},
		"a name twice":        {answer: two(batchJSON("s", w.create("a", "k1", "x"), w.create("a", "k2", "x"))), check: denied("second action"), after: old},
		"long name":           {answer: two(batchJSON("s", w.create(strings.Repeat("é", 33), "k1", "x"))), check: denied(""), after: old},
		"long intent":         {answer: two(batchJSON(strings.Repeat("i", 65), w.create("a", "k1", "x"))), check: denied(""), after: old},
		"long key":            {answer: two(batchJSON("s", w.create("a", strings.Repeat("k", 129), "x"))), check: denied(""), after: old},
		"bad key":             {answer: two(batchJSON("s", w.create("a", "..", "x"))), check: denied("record-key"), after: old},
		"large record":        {answer: two(batchJSON("s", w.create("a", "k1", strings.Repeat("x", 1<<20)))), check: denied("bytes"), after: old},
		"long raise":          {answer: two(batchJSON("s", raise(strings.Repeat("x", 1025), ""))), check: denied(""), after: old},
		"never ends": {answer: func(n int, _ *Inbound, _ string) (int, string) {
			return 200, batchJSON(fmt.Sprint("s", n), w.update("a", "k1", fmt.Sprint(n)))
		},
			check: func(t *testing.T, _ *Result, err error, reports []*Inbound) {
				var m *MaxStepsError
				if !errors.As(err, &m) || len(reports) != DefaultMaxSteps || len(m.Done) != DefaultMaxSteps {
					t.Errorf("%v after %d reports", err, len(reports))
				}
			}, after: with("k1", "9")},
		"repeats itself": {answer: func(int, *Inbound, string) (int, string) { return 200, batchJSON("s", w.create("a", "k1", "x")) },
			check: func(t *testing.T, _ *Result, err error, reports []*Inbound) {
				var a *AttentionError
				if !errors.As(err, &a) || len(reports) < 2 {
					t.Errorf("%v after %d reports", err, len(reports))
				}
			}, after: with("k1", "x")},
		"compensation fails": {answer: func(n int, _ *Inbound, _ string) (int, string) {
			return 200, batchJSON(fmt.Sprint("s", n), w.create(fmt.Sprint("a", n), fmt.Sprint("k", n), "x"))
		},
			faults: func(int, *http.Request) fault { return refusedBy },
			check: func(t *testing.T, _ *Result, err error, reports []*Inbound) {
				var a *AttentionError
				if !errors.As(err, &a) || len(reports) != maxErrorRounds || a.Reason == "" {
					t.Errorf("%v after %d reports", err, len(reports))
				}
			}, after: old},
		"a call refused": {answer: func(int, *Inbound, string) (int, string) { return 400, `{"error":"NoMoney","message":"x"}` },
			check: func(t *testing.T, _ *Result, err error, _ []*Inbound) {
				if !errors.Is(err, xrpc.ErrorName("NoMoney")) {
					t.Error(err)
				}
			}, after: old},
		"a report refused": {answer: func(n int, _ *Inbound, _ string) (int, string) {
			if n == 0 {
				return 200, batchJSON("s", w.create("a", "k1", "x"))
			}
			return 400, `{"error":"NotBelieved","message":"x"}`
		}, check: func(t *testing.T, _ *Result, err error, _ []*Inbound) {
			var a *AttentionError
			if !errors.As(err, &a) || !errors.Is(err, xrpc.ErrorName("NotBelieved")) || len(a.Done) != 1 {
				t.Error(err)
			}
		}, after: with("k1", "x")},
		"no JSON":        {answer: script(`<html>`), check: func(t *testing.T, _ *Result, err error, _ []*Inbound) { mustFail(t, err) }, after: old},
		"an array":       {answer: script(`[]`), check: func(t *testing.T, _ *Result, err error, _ []*Inbound) { mustFail(t, err) }, after: old},
		"duplicate keys": {answer: script(`{"workflow":{"intent":"s","actions":[]},"workflow":1}`), check: func(t *testing.T, _ *Result, err error, _ []*Inbound) { mustFail(t, err) }, after: old},
		"query":          {query: true, answer: script(`{"ok":true,"workflow":{"intent":"s","actions":[` + w.create("a", "k1", "x") + `]}}`), check: reported(), after: with("k1", "x")},
		"query that fails": {query: true, answer: script(`{"ok":true,"workflow":{"intent":"s","actions":[` + w.create("a", "k1", "x") + `]}}`), faults: only(1, refusedBy), check: func(t *testing.T, _ *Result, err error, _ []*Inbound) {
			var f *FailedError
			if !errors.As(err, &f) || f.Err.Code != "TestRefusal" {
				t.Error(err)
			}
		}, after: old},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.clear()
			for k, v := range old {
				w.put(k, v)
			}
			var reports []*Inbound
			svc := newService(t, func(n int, in *Inbound, body string) (int, string) {
				if in != nil {
					reports = append(reports, in)
				}
				return c.answer(n, in, body)
			})
			pds := &faults{next: w.net.HTTP().Transport, what: c.faults}
			a := w.agent(pds, nil, svc.URL)
			if c.setup != nil {
				c.setup(a)
			}
			req := Request{Service: "test", Method: testMethod, Input: raw(`{"amount":1}`)}
			if c.query {
				req.Query, req.Input = true, nil
			}
			res, err := a.Run(t.Context(), req)
			c.check(t, res, err, reports)
			if got := w.notes(); !equal(got, c.after) {
				t.Errorf("there is %v, want %v", got, c.after)
			}
			runs := must(a.journal().Runs(t.Context()))
			status, serr := StatusOf(t.Context(), a.journal(), runs[0])
			if serr != nil || status.Outcome == "" {
				t.Errorf("the journal ends with %+v, %v", status, serr)
			}
			if _, err := a.Resume(t.Context(), runs[0]); !errors.Is(err, ErrFinished) {
				t.Errorf("resumed: %v", err)
			}
			// Whatever was done can be taken back.
			if status != nil {
				if _, err := a.Undo(t.Context(), status.Done); err != nil && c.faults == nil {
					t.Errorf("undoing: %v", err)
				} else if got := w.notes(); c.faults == nil && !equal(got, old) {
					t.Errorf("after undoing there is %v", got)
				}
			}
		})
	}
}

func only(n int, f fault) func(int, *http.Request) fault {
	return func(i int, _ *http.Request) fault {
		if i == n {
			return f
		}
		return fine
	}
}

func inOne(a *Agent) { a.Atomic = true }

func schema(properties string) func(*Agent) {
	return func(a *Agent) {
		a.Policy.Lexicons = lexicon.NewCatalog()
		if _, err := a.Policy.Lexicons.AddJSON([]byte(`{"lexicon":1,"id":"` + testCollection + `","defs":{"main":{"type":"record","key":"any","record":{"type":"object","required":["text"],"properties":{` + properties + `}}}}}`)); err != nil {
			panic(err)
		}
	}
}

func tell(in *Inbound) string {
	var done []string
	for _, r := range in.Responses {
		done = append(done, r.Action+" "+r.Name+" "+string(syntax.ATURI(r.Result.Uri).RecordKey()))
		if (r.Result.Cid == nil) != (r.Action == "delete") {
			done = append(done, "with a wrong CID")
		}
	}
	s := in.Intent + ": " + strings.Join(done, ", ")
	if in.Error != nil {
		s += "; " + in.Error.Action + " " + deref(in.Error.Name) + " " + deref(in.Error.Code)
	}
	return s
}

func mustEnd(t *testing.T, res *Result, err error, want string) {
	t.Helper()
	if err != nil || string(mustJSON(res.Output)) != want {
		t.Errorf("%v, %v", res, err)
	}
}

func mustFail(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		t.Error("no error")
	}
}

// TestConflict: what somebody else changes between plan and write is not overwritten.
func TestConflict(t *testing.T) {
	w := newWorld(t)
	for _, atomically := range []bool{false, true} {
		w.clear()
		w.put("old0", "zero")
		w.put("old1", "one")
		svc := newService(t, script(batchJSON("s", w.create("a", "k1", "new"), w.update("b", "old0", "mine")), `{"ok":true}`))
		a := w.agent(nil, nil, svc.URL)
		a.Atomic = atomically
		a.OnPlan = func(context.Context, *Plan) error { w.put("old0", "theirs"); return nil }
		if _, err := a.Run(t.Context(), Request{Service: "test", Method: testMethod}); err != nil {
			t.Fatal(err)
		}
		got := w.notes()
		if got["old0"] != "theirs" || atomically == (got["k1"] == "new") {
			t.Errorf("atomically %v: %v", atomically, got)
		}
		if !strings.Contains(svc.bodies[1], `"intent":"error"`) {
			t.Errorf("reported %s", svc.bodies[1])
		}
	}
}

// TestPlan: a person sees what will be done, and nothing is done before the answer.
func TestPlan(t *testing.T) {
	w := newWorld(t)
	w.put("old0", "zero")
	svc := newService(t, script(batchJSON("s", w.create("a", "", "new"), w.update("b", "old0", "mine"), raise("x", "X"))))
	a := w.agent(nil, nil, svc.URL)
	a.Policy.Lexicons = lexicon.NewCatalog()
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	a.OnPlan = func(_ context.Context, p *Plan) error {
		if len(p.Actions) != 3 || !p.Actions[0].ChosenKey || p.Actions[0].CID == "" || p.Actions[1].Before == "" || textOf(p.Actions[1].Old) != "zero" || p.Actions[0].Note == "" {
			t.Errorf("plan %+v", p)
		}
		if got := w.notes(); len(got) != 1 || got["old0"] != "zero" {
			t.Errorf("there is %v", got)
		}
		cancel(stop)
		return stop
	}
	_, err := a.Run(ctx, Request{Service: "test", Method: testMethod})
	var i *InterruptedError
	if !errors.As(err, &i) {
		t.Fatal(err)
	}
	// It is asked again when it is resumed.
	asked := 0
	a.OnPlan = func(context.Context, *Plan) error { asked++; return nil }
	_, err = a.Resume(t.Context(), i.Run)
	var r *RaisedError
	if !errors.As(err, &r) || asked != 1 || len(r.Done) != 2 {
		t.Errorf("%v, asked %d times", err, asked)
	}
}

// TestPlanRefused: what the policy refuses is shown as well, can't be agreed to, and isn't told if the person leaves.
func TestPlanRefused(t *testing.T) {
	w := newWorld(t)
	svc := newService(t, script(batchJSON("s", `{"$type":"com.atiproto.actions#delete","repo":"`+string(w.did)+`","name":"p","collection":"app.bsky.actor.profile","rkey":"self"}`), `{"ok":true}`))
	a := w.agent(nil, nil, svc.URL)
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	leave, seen := true, 0
	a.OnPlan = func(_ context.Context, p *Plan) error {
		seen++
		var refused *PolicyError
		if !errors.As(p.Refused, &refused) || refused.Name != "p" || len(p.Actions) != 1 || p.Actions[0].Collection != "app.bsky.actor.profile" || p.Actions[0].URI != "" {
			t.Errorf("plan %+v", p)
		}
		if leave {
			cancel(stop)
			return stop
		}
		return nil
	}
	_, err := a.Run(ctx, Request{Service: "test", Method: testMethod})
	var i *InterruptedError
	if !errors.As(err, &i) || !errors.Is(err, stop) || len(svc.bodies) != 1 {
		t.Fatalf("%v after %d calls", err, len(svc.bodies))
	}
	leave = false
	if _, err := a.Resume(t.Context(), i.Run); err != nil || seen != 2 || !strings.Contains(svc.bodies[1], CodePolicy) {
		t.Errorf("%v, seen %d times, told %s", err, seen, svc.bodies[1:])
	}
}

// TestAbandon: a process dies at any entry of its journal, the answers to its writes being lost or not, and the service is gone
// afterwards. Giving up tells exactly what was written, and taking that back leaves the repository as it was.
func TestAbandon(t *testing.T) {
	w := newWorld(t)
	for _, atomically := range []bool{false, true} {
		for at := 1; ; at++ {
			w.clear()
			for i := range 3 {
				w.put(fmt.Sprint("old", i), fmt.Sprint("old", i))
			}
			before := w.notes()
			svc := newService(t, script(batchJSON("s", w.create("a", "", "new"), w.update("b", "old0", "changed"), w.remove("c", "old1"), w.update("d", "old2", "old2")), `{"ok":true}`))
			journal := &mortal{Journal: &MemoryJournal{}, at: (at + 1) / 2, after: at%2 == 0}
			a := w.agent(&faults{next: w.net.HTTP().Transport, what: func(int, *http.Request) fault { return lostAfter }}, journal, svc.URL)
			a.Atomic = atomically
			_, err := a.Run(t.Context(), Request{Service: "test", Method: testMethod})
			if err == nil {
				if at < 20 {
					t.Fatalf("it ended before entry %d", at)
				}
				break
			}
			svc.Close()
			names := must(journal.Runs(t.Context()))
			if len(must(journal.Entries(t.Context(), names[0]))) == 0 {
				continue // it had not begun
			}
			b := w.agent(nil, journal.Journal, svc.URL)
			other := w.agent(nil, journal.Journal, svc.URL)
			other.DID = "did:web:other.test"
			if _, err := other.Abandon(t.Context(), names[0]); !errors.Is(err, ErrOtherAccount) {
				t.Errorf("another account gave it up: %v", err)
			}
			unreachable := w.agent(roundTrip(func(*http.Request) (*http.Response, error) { return nil, errCut }), journal.Journal, svc.URL)
			if _, err := unreachable.Abandon(t.Context(), names[0]); err != nil && !errors.Is(err, ErrFinished) {
				var stopped *InterruptedError
				if st := must(StatusOf(t.Context(), journal.Journal, names[0])); !errors.As(err, &stopped) || st.Outcome != "" {
					t.Errorf("entry %d, without a PDS: %v, ended as %q", at, err, st.Outcome)
				}
			}
			done, err := b.Abandon(t.Context(), names[0])
			if st := must(StatusOf(t.Context(), journal.Journal, names[0])); errors.Is(err, ErrFinished) && st.Outcome != "" {
				done, err = st.Done, nil // ended before, as far as is known
			}
			if err != nil {
				t.Fatalf("entry %d: %v", at, err)
			}
			changed := map[string]bool{}
			for _, d := range done {
				if d.CID != d.Before {
					changed[string(d.URI.RecordKey())] = true
				}
			}
			now, want := w.notes(), map[string]bool{}
			for key, text := range now {
				want[key] = before[key] != text
			}
			for key := range before {
				want[key] = before[key] != now[key]
			}
			for key, is := range want {
				if is != changed[key] {
					t.Errorf("entry %d, atomically %v: of %s the record says changed: %v, the agent %v", at, atomically, key, is, changed[key])
				}
			}
			if _, err := b.Resume(t.Context(), names[0]); !errors.Is(err, ErrFinished) {
				t.Errorf("entry %d: resumed with %v", at, err)
			}
			if _, err := b.Undo(t.Context(), done); err != nil || !equal(w.notes(), before) {
				t.Errorf("entry %d: %v; there is %v and not %v", at, err, w.notes(), before)
			}
		}
	}
	if _, err := w.agent(nil, nil, "http://127.0.0.1:1").Abandon(t.Context(), "3kaaaaaaaaa2c"); !errors.Is(err, ErrNoRun) {
		t.Errorf("of an unknown one: %v", err)
	}
}

func TestFileJournal(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	j := NewFileJournal(root)
	ctx := t.Context()
	const run = "3kaaaaaaaaa2a"
	log, err := j.Begin(ctx, run)
	if err != nil {
		t.Fatal(err)
	}
	want := []Entry{{Run: run, State: StateBegin, Account: "did:web:a.test", Input: raw(`{"a":{"$bytes":"AAE"}}`)}, {Run: run, Seq: 1, State: StateBatch, Step: 0, Workflow: raw(`{"intent":"é"}`)}}
	for _, e := range want {
		if err := log.Append(ctx, e); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := j.Open(ctx, run); !errors.Is(err, ErrRunning) {
		t.Errorf("opened twice: %v", err)
	}
	if _, err := j.Begin(ctx, run); !errors.Is(err, os.ErrExist) {
		t.Errorf("begun twice: %v", err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := root.Stat(run + journalSuffix)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	whole, err := root.ReadFile(run + journalSuffix)
	if err != nil {
		t.Fatal(err)
	}
	first := strings.IndexByte(string(whole), '\n') + 1
	for cut := range len(whole) + 1 {
		if err := root.WriteFile(run+journalSuffix, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		log, all, err := j.Open(ctx, run)
		n := 0
		if cut >= first {
			n = 1
		}
		if cut == len(whole) {
			n = 2
		}
		if err != nil || len(all) != n {
			t.Fatalf("cut at %d: %d entries, %v", cut, len(all), err)
		}
		if err := log.Append(ctx, Entry{Run: run, Seq: n, State: StateFinal}); err != nil {
			t.Fatal(err)
		}
		log.Close()
		if all, err = j.Entries(ctx, run); err != nil || len(all) != n+1 || all[n].State != StateFinal {
			t.Fatalf("cut at %d, then one more: %d entries, %v", cut, len(all), err)
		}
	}
	for name, bad := range map[string]string{"garbage": "x\n", "a gap": strings.Replace(string(whole), `"seq":1`, `"seq":2`, 1), "another run": strings.Replace(string(whole), run, "3kaaaaaaaaa2b", 1), "unknown field": strings.Replace(string(whole), `"seq"`, `"sequ"`, 1)} {
		if err := root.WriteFile(run+journalSuffix, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := j.Open(ctx, run); !errors.Is(err, ErrJournal) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if runs, err := j.Runs(ctx); err != nil || !slices.Equal(runs, []string{run}) {
		t.Errorf("%v, %v", runs, err)
	}
	for _, name := range []string{"", "../x", "3kaaaaaaaaa2c"} {
		if _, err := j.Entries(ctx, name); !errors.Is(err, ErrNoRun) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	w := &world{did: "did:web:a.test"}
	for _, s := range []string{
		batchJSON("s", w.create("a", "", "x"), w.update("b", "k", "y"), w.remove("c", "k"), raise("m", "c")), `{"$workflow":{"intent":"","actions":[{}]}}`, `{}`,
		`{"workflow":{"intent":"error","responses":[{"action":"create","name":"a","result":{"uri":"at://did:web:a.test/a.b.c/d"}}],"error":{"action":"x","message":"y"}}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, json []byte) {
		answer, err := data.AppendCBOR(nil, json)
		if err != nil {
			return
		}
		rest, field, wf, err := Split(answer)
		if err == nil && field != "" {
			back, err := With(rest, field, wf)
			if err != nil || string(back) != string(answer) {
				t.Fatalf("%s became %s, %v", answer, back, err)
			}
			intent, actions, err := Decode(wf)
			var bad *EnvelopeError
			switch {
			case err != nil && !errors.As(err, &bad):
				t.Fatalf("an error of type %T", err)
			case err == nil:
				if intent == "" || len(intent) > maxIntent || len(actions) == 0 || len(actions) > MaxActions {
					t.Fatalf("took intent %q with %d actions", intent, len(actions))
				}
				for _, a := range actions {
					if a.Verb != Raise && (a.Name == "" || len(a.Name) > 64 || a.Repo == "" || a.Collection == "" || (a.Record == nil) != (a.Verb == Delete)) {
						t.Fatalf("took %+v", a)
					}
				}
			}
		}
		if _, _, report, err := splitReport(answer); err == nil && report != nil {
			if in, err := DecodeInbound(report); err == nil && (in.Intent == IntentError) != (in.Error != nil) {
				t.Fatalf("took %+v", in)
			}
		}
	})
}

func mustJSON(raw data.Raw) []byte { return must(data.AppendJSON(nil, raw)) }

// TestQuery: a typed question whose answer asks for a write.
func TestQuery(t *testing.T) {
	w := newWorld(t)
	svc := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		if r.Method != http.MethodGet || r.URL.RawQuery != "amount=5" {
			t.Errorf("asked by %s with %q", r.Method, r.URL.RawQuery)
		}
		fmt.Fprintf(rw, `{"receipt":"r5","workflow":{"intent":"s","actions":[%s]}}`, w.create("a", "k1", "x"))
	}))
	t.Cleanup(svc.Close)
	type params struct {
		Amount int64 `json:"amount"`
	}
	out, err := Query(t.Context(), w.agent(nil, nil, svc.URL), "test", xrpc.Query[params, tipOutput]{NSID: testMethod}, &params{5})
	if err != nil || out.Receipt != "r5" {
		t.Errorf("%+v, %v", out, err)
	}
	if got := w.notes(); !equal(got, map[string]string{"k1": "x"}) {
		t.Errorf("there is %v", got)
	}
}
