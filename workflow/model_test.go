package workflow

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/barograph/baro/syntax"
)

// step is an action of the model.
type modelAction struct {
	verb, name, rkey, text string
}

// TestModel runs random scripts against a PDS that fails in every way, with a process that dies at any entry of its journal,
// and again while it resumes. In the end:
//
//   - each action that was reported is done once, and no other is;
//   - what was done was done in the order of the script;
//   - each report is of a true prefix: what it says is in the repository when it comes;
//   - each round is reported on in one way only, however often.
func TestModel(t *testing.T) {
	w := newWorld(t)
	runs := 0
	outcomes := map[string]int{}
	defer func() { t.Log(outcomes) }()
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		w.clear()
		id := fmt.Sprint("r", runs, "-")
		for i := range 4 {
			w.put(fmt.Sprint("old", i), fmt.Sprint("old", i))
		}
		model := w.notes() // what should be there, by record key; chosen keys are found by text
		var rounds [][]modelAction
		for k := range rapid.IntRange(1, 3).Draw(rt, "rounds") {
			var round []modelAction
			used := map[string]bool{}
			for i := range rapid.IntRange(1, 4).Draw(rt, "actions") {
				a := modelAction{name: fmt.Sprint("a", k, i), text: fmt.Sprint(id, k, i)}
				switch rapid.IntRange(0, 3).Draw(rt, "verb") {
				case 0:
					a.verb = "create"
				case 1:
					a.verb, a.rkey = "create", fmt.Sprint("k", k, i)
				case 2:
					a.verb, a.rkey = "update", fmt.Sprint("old", rapid.IntRange(0, 3).Draw(rt, "which"))
				case 3:
					a.verb, a.rkey = "delete", fmt.Sprint("old", rapid.IntRange(0, 3).Draw(rt, "which"))
				}
				if used[a.rkey] && a.rkey != "" {
					a.verb, a.rkey = "create", ""
				}
				used[a.rkey] = true
				round = append(round, a)
			}
			rounds = append(rounds, round)
		}
		compensate := rapid.Bool().Draw(rt, "compensate")
		atomic := rapid.Bool().Draw(rt, "atomic")

		// The service checks each report against the repository when it comes.
		wire := func(a modelAction) string {
			switch a.verb {
			case "create":
				return w.create(a.name, a.rkey, a.text)
			case "update":
				return w.update(a.name, a.rkey, a.text)
			}
			return w.remove(a.name, a.rkey)
		}
		complaint := ""
		complain := func(f string, args ...any) (int, string) {
			complaint = fmt.Sprintf(f, args...)
			return 400, `{"error":"Complaint","message":"no"}`
		}
		failed := false
		svc := newService(t, func(round int, in *Inbound, body string) (int, string) {
			if in != nil {
				if failed {
					return 200, `{"ended":"after an error"}`
				}
				sent := rounds[round-1]
				if in.Error == nil && (len(in.Responses) != len(sent) || in.Intent != fmt.Sprint("step", round-1)) {
					return complain("round %d: %d responses to %d actions, intent %q", round-1, len(in.Responses), len(sent), in.Intent)
				}
				if len(in.Responses) > len(sent) || in.Error != nil && len(in.Responses) == len(sent) {
					return complain("round %d: more responses than actions", round-1)
				}
				for i, r := range in.Responses {
					if r.Name != sent[i].name || r.Action != sent[i].verb {
						return complain("round %d: response %d is %s %q", round-1, i, r.Action, r.Name)
					}
					key := string(syntax.ATURI(r.Result.Uri).RecordKey())
					if sent[i].verb == "delete" {
						delete(model, key)
					} else {
						model[key] = sent[i].text
					}
				}
				if got := w.notes(); !equal(got, model) {
					return complain("round %d: reported %v, but there is %v and not %v", round-1, in.Responses, got, model)
				}
				if in.Error != nil {
					if failed = true; !compensate {
						return 200, `{"ended":"with an error"}`
					}
					var undo []string
					for i, r := range in.Responses {
						if sent[i].verb == "create" {
							key := string(syntax.ATURI(r.Result.Uri).RecordKey())
							undo = append(undo, w.remove("undo"+r.Name, key))
						}
					}
					slices.Reverse(undo)
					return 200, batchJSON("undo", append(undo, raise("not today", "NotToday"))...)
				}
			}
			if round == len(rounds) {
				return 200, `{"ended":"well"}`
			}
			var actions []string
			for _, a := range rounds[round] {
				actions = append(actions, wire(a))
			}
			return 200, batchJSON(fmt.Sprint("step", round), actions...)
		})
		defer svc.Close()
		lost := rapid.SliceOfN(rapid.IntRange(0, 5), 12, 12).Draw(rt, "lost reports")
		svc.lose = func(call int) (before, after bool) {
			if call == 1 || call > len(lost) {
				return false, false // the first call of all is not repeated
			}
			return lost[call-1] == 1, lost[call-1] == 2
		}

		kinds := rapid.SliceOfN(rapid.SampledFrom(append(slices.Repeat([]fault{fine}, 8), allFaults...)), 30, 30).Draw(rt, "faults")
		pds := &faults{next: w.net.HTTP().Transport, what: func(n int, _ *http.Request) fault {
			if n > len(kinds) {
				return fine
			}
			return kinds[n-1]
		}}
		journal := new(MemoryJournal)
		var lives []*mortal
		for range 3 {
			lives = append(lives, &mortal{Journal: journal, at: rapid.IntRange(0, 12).Draw(rt, "dies at"), after: rapid.Bool().Draw(rt, "after")})
		}
		var res *Result
		var err error
		begun := false
		for life := 0; ; life++ {
			if life == 60 {
				rt.Fatalf("it doesn't end: %v", err)
			}
			j := Journal(journal)
			if life < len(lives) {
				j = lives[life]
			}
			a := w.agent(pds, j, svc.URL)
			a.Atomic = atomic
			names, _ := journal.Runs(context.Background())
			if !begun {
				res, err = a.Run(t.Context(), Request{Service: "test", Method: testMethod, Input: raw(`{"amount":1}`)})
				begun = true
			} else if len(names) == 0 || len(must(journal.Entries(context.Background(), names[0]))) == 0 {
				return // it died before anything was noted or done
			} else {
				res, err = a.Resume(t.Context(), names[0])
			}
			var stopped *InterruptedError
			if life > 0 {
				outcomes["resumed"]++
			}
			if err == nil || !errors.As(err, &stopped) {
				break
			}
		}
		if complaint != "" {
			rt.Fatalf("the service complains: %s", complaint)
		}
		names, _ := journal.Runs(context.Background())
		status, serr := StatusOf(context.Background(), journal, names[0])
		if serr != nil || status.Outcome == "" {
			rt.Fatalf("%v; the journal ends with %+v, %v", err, status, serr)
		}
		var raised *RaisedError
		switch {
		case err == nil:
			if res != nil && !strings.Contains(string(res.Output), "ended") {
				rt.Fatalf("the answer is %q", res.Output)
			}
		case errors.As(err, &raised):
			for _, d := range raised.Done {
				if rest, ok := strings.CutPrefix(d.Name, "undo"); ok {
					for _, e := range raised.Done {
						if e.Name == rest {
							delete(model, string(e.URI.RecordKey()))
						}
					}
				}
			}
		default:
			// A compensation may fail too; then the journal tells what was done, and nothing else was.
			var finished bool
			if finished = errors.Is(err, ErrFinished); !finished {
				model = w.notes()
			}
		}
		outcomes[string(status.Outcome)]++
		if failed {
			outcomes["after a failure"]++
		}
		if got := w.notes(); !failed && !equal(got, model) {
			rt.Fatalf("there is %v and not %v; error %v", got, model, err)
		}
		// No text twice: nothing was created under two keys.
		seen := map[string]string{}
		for key, text := range w.notes() {
			if other, ok := seen[text]; ok {
				rt.Fatalf("%q is there as %s and as %s", text, key, other)
			}
			seen[text] = key
		}
		// The journal's done entries are in the order of the script.
		last := ""
		for _, d := range status.Done {
			if strings.HasPrefix(d.Name, "undo") {
				break
			}
			if d.Name <= last {
				rt.Fatalf("%s was done after %s", d.Name, last)
			}
			last = d.Name
		}
		// One report for each round.
		reports := map[string]bool{}
		for _, b := range svc.bodies {
			if reports[b] {
				rt.Fatalf("the body %s is noted twice", b)
			}
			reports[b] = true
		}
		if len(svc.bodies) > len(rounds)+2 {
			rt.Fatalf("%d different calls for %d rounds: %s", len(svc.bodies), len(rounds), strings.Join(svc.bodies, "\n"))
		}
	})
}

func equal(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
