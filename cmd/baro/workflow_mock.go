package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/internal/httpd"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/workflow"
	"github.com/barograph/baro/xrpc"
)

func newWorkflowMock(e *env) *cobra.Command {
	var addr string
	cmd := &cobra.Command{
		Use:   "mock SCRIPT",
		Short: "Serve a workflow from a script, for tests of agents",
		Long: "Serves every method on this machine with the answers of a script, and prints its URL. It believes everybody and checks\n" +
			"nothing: what it answers may be as wrong as a test of an agent needs it to be. What is asked is told on standard error.\n\n" +
			"The script is a JSON object with the list rounds. The first round answers a call without a report; each other one\n" +
			"answers the report on the round before it, which is found by the intent, or by the names of the actions if one\n" +
			"failed. A round has an answer, any JSON object, and may have failed, what answers in its place if an action failed\n" +
			"(by default the workflow is ended with that error), and status, which makes the answer an error of HTTP.\n\n" +
			"In the texts of answers {{caller}} is the DID of who calls (from the token, unchecked, or the header X-Caller),\n" +
			"{{input.FIELD}} a field of the input, {{results.NAME.uri}} with uri, cid or rkey what became of an action, and\n" +
			"{{error.message}}, with message, name or code, what failed. A text that is one of these and nothing else becomes the\n" +
			"value itself.",
		Example: "  baro workflow mock script.json\n\n" +
			"  {\"rounds\": [\n" +
			"    {\"answer\": {\"workflow\": {\"intent\": \"noted\", \"actions\": [{\"$type\": \"com.atiproto.actions#create\",\n" +
			"      \"repo\": \"{{caller}}\", \"name\": \"tip\", \"collection\": \"com.example.tips.note\",\n" +
			"      \"record\": {\"$type\": \"com.example.tips.note\", \"amount\": \"{{input.amount}}\"}}]}}},\n" +
			"    {\"answer\": {\"thanks\": \"{{results.tip.uri}}\"}}\n" +
			"  ]}",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.workflowMock(cmd.Context(), args[0], addr)
		},
	}
	cmd.Flags().StringVar(&addr, "addr", "127.0.0.1:0", "where to listen")
	return cmd
}

// mockScript is what a mock answers.
type mockScript struct {
	Rounds []mockRound `json:"rounds"`
}

type mockRound struct {
	Answer map[string]any `json:"answer"`
	Failed map[string]any `json:"failed"`
	Status int            `json:"status"`
}

// maxScript bounds a script, and the body of a call.
const maxScript = 4 << 20

func readScript(name string) (*mockScript, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("opening the script: %w", err)
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxScript+1))
	if err != nil {
		return nil, fmt.Errorf("reading the script: %w", err)
	}
	if len(b) > maxScript {
		return nil, usagef("the script has more than %s", bytesOf(maxScript))
	}
	s := new(mockScript)
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	d.UseNumber()
	if err := d.Decode(s); err != nil {
		return nil, usagef("%s is not a script: %w", name, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, usagef("%s is not a script: something follows the object", name)
	}
	intents := map[string]bool{}
	for i, r := range s.Rounds {
		intent, _ := mockWorkflow(r.Answer)["intent"].(string)
		switch {
		case r.Answer == nil:
			return nil, usagef("%s: round %d has no answer", name, i)
		case i == 0 && r.Failed != nil:
			return nil, usagef("%s: round 0 answers no report, so that nothing can have failed", name)
		case r.Status != 0 && (r.Status < 200 || r.Status > 599):
			return nil, usagef("%s: round %d: %d is no status of an answer", name, i, r.Status)
		case intent != "" && intents[intent]:
			return nil, usagef("%s: two rounds have the intent %q, so that the reports can't be told apart", name, intent)
		}
		intents[intent] = true
	}
	if len(s.Rounds) == 0 {
		return nil, usagef("%s has no rounds", name)
	}
	return s, nil
}

// mockWorkflow is the workflow in an answer or a call; nil if there is none.
func mockWorkflow(m map[string]any) map[string]any {
	for _, field := range []string{workflow.Field, workflow.OldField} {
		if w, ok := m[field].(map[string]any); ok {
			return w
		}
	}
	return nil
}

// mock serves a script.
type mock struct {
	script *mockScript
	tell   io.Writer

	mu      sync.Mutex
	results map[string]map[string]any // by the caller: what became of actions, by name
}

func (e *env) workflowMock(ctx context.Context, name, addr string) error {
	script, err := readScript(name)
	if err != nil {
		return err
	}
	srv, err := httpd.Listen(httpd.Options{Addr: addr, Name: "mock", Log: e.log})
	if err != nil {
		return err
	}
	defer srv.Close()
	if e.json {
		err = e.printJSON(map[string]string{"url": srv.URL()})
	} else {
		_, err = fmt.Fprintln(e.stdout, srv.URL())
	}
	if err != nil {
		return err
	}
	return srv.Run(ctx, &mock{script: script, tell: e.stderr, results: map[string]map[string]any{}})
}

// ServeHTTP answers a call.
func (m *mock) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	method, ok := strings.CutPrefix(r.URL.Path, xrpc.Path(""))
	if _, err := syntax.ParseNSID(method); !ok || err != nil {
		httpd.WriteError(w, http.StatusNotFound, "NotFound", "methods are below "+xrpc.Path(""))
		return
	}
	status, answer, told, err := m.answer(r)
	if err != nil {
		fmt.Fprintf(m.tell, "%s: %s\n", method, inert(err.Error()))
		httpd.WriteError(w, http.StatusBadRequest, "NotInScript", err.Error())
		return
	}
	fmt.Fprintf(m.tell, "%s: %s\n", method, inert(told))
	b, err := json.Marshal(answer)
	if err != nil {
		httpd.WriteError(w, http.StatusInternalServerError, "InternalServerError", err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(b) // a client that has gone is its own matter
}

// answer finds the round that answers a call.
func (m *mock) answer(r *http.Request) (status int, answer any, told string, err error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxScript))
	if err != nil {
		return 0, nil, "", err
	}
	input := map[string]any{}
	if len(bytes.TrimSpace(body)) > 0 {
		d := json.NewDecoder(bytes.NewReader(body))
		d.UseNumber()
		if err := d.Decode(&input); err != nil {
			return 0, nil, "", fmt.Errorf("the input is not a JSON object: %w", err)
		}
	}
	for name, values := range r.URL.Query() {
		if _, there := input[name]; !there {
			input[name] = values[0]
		}
	}
	caller := callerOf(r)
	at, choose, values := 0, m.script.Rounds[0].Answer, map[string]any{"caller": caller, "input": input}
	report := mockWorkflow(input)
	if report == nil {
		delete(m.results, caller)
		told = "a call of " + caller + ", answered by round 0"
	} else {
		if m.results[caller] == nil {
			m.results[caller] = map[string]any{}
		}
		failure, _ := report["error"].(map[string]any)
		if at, err = m.after(report, failure); err != nil {
			return 0, nil, "", err
		}
		responses, _ := report["responses"].([]any)
		for _, x := range responses {
			one, _ := x.(map[string]any)
			name, _ := one["name"].(string)
			result, _ := one["result"].(map[string]any)
			uri, _ := result["uri"].(string)
			m.results[caller][name] = map[string]any{"uri": uri, "cid": result["cid"], "rkey": uri[strings.LastIndexByte(uri, '/')+1:]}
		}
		told = fmt.Sprintf("a report of %s, %d done, answered by round %d", caller, len(responses), at)
		if choose = m.script.Rounds[at].Answer; failure != nil {
			told = fmt.Sprintf("a report of %s, %d done and %v failed: %v, answered by round %d", caller, len(responses), failure["name"], failure["message"], at)
			values["error"] = failure
			if choose = m.script.Rounds[at].Failed; choose == nil {
				raise := map[string]any{"$type": workflow.Schema + "#raise", "message": failure["message"]}
				if failure["code"] != nil {
					raise["code"] = failure["code"]
				}
				return http.StatusOK, map[string]any{workflow.Field: map[string]any{"intent": "failed", "actions": []any{raise}}}, told, nil
			}
		}
	}
	values["results"] = m.results[caller]
	if answer, err = fill(choose, values); err != nil {
		return 0, nil, "", fmt.Errorf("round %d: %w", at, err)
	}
	if status = m.script.Rounds[at].Status; status == 0 {
		status = http.StatusOK
	}
	return status, answer, told, nil
}

// after finds the round that follows the one that a report is on.
func (m *mock) after(report, failure map[string]any) (int, error) {
	of := func(w map[string]any) bool {
		if failure == nil {
			return w["intent"] == report["intent"]
		}
		actions, _ := w["actions"].([]any)
		return slices.ContainsFunc(actions, func(x any) bool {
			a, _ := x.(map[string]any)
			return a["name"] != nil && a["name"] == failure["name"]
		})
	}
	for i, r := range m.script.Rounds {
		for _, answer := range []map[string]any{r.Answer, r.Failed} {
			if w := mockWorkflow(answer); w == nil || !of(w) {
				continue
			}
			if i+1 == len(m.script.Rounds) {
				return 0, errors.New("the script has no round after this one")
			}
			return i + 1, nil
		}
	}
	return 0, fmt.Errorf("no round has what is reported on: intent %v", report["intent"])
}

// callerOf is who calls, as far as a mock is concerned: whoever the caller says.
func callerOf(r *http.Request) string {
	if did := r.Header.Get("X-Caller"); did != "" {
		return did
	}
	parts := strings.Split(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), ".")
	if len(parts) != 3 {
		return ""
	}
	var claims struct {
		Iss string `json:"iss"`
	}
	if b, err := base64.RawURLEncoding.DecodeString(parts[1]); err != nil || json.Unmarshal(b, &claims) != nil {
		return ""
	}
	did, _, _ := strings.Cut(claims.Iss, "#")
	return did
}

var placeholder = regexp.MustCompile(`\{\{([^{}]*)\}\}`)

// fill puts values in the place of their names, in all texts of an answer.
func fill(v any, values map[string]any) (any, error) {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, x := range v {
			var err error
			if out[k], err = fill(x, values); err != nil {
				return nil, err
			}
		}
		return out, nil
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			var err error
			if out[i], err = fill(x, values); err != nil {
				return nil, err
			}
		}
		return out, nil
	case string:
		if one := placeholder.FindStringSubmatch(v); one != nil && one[0] == v {
			return valueAt(one[1], values)
		}
		var failed error
		out := placeholder.ReplaceAllStringFunc(v, func(s string) string {
			x, err := valueAt(strings.Trim(s, "{}"), values)
			if err != nil {
				failed = err
			}
			return fmt.Sprint(x)
		})
		return out, failed
	}
	return v, nil
}

// valueAt follows a name such as results.tip.uri.
func valueAt(name string, values map[string]any) (any, error) {
	var at any = values
	for step := range strings.SplitSeq(strings.TrimSpace(name), ".") {
		m, _ := at.(map[string]any)
		x, ok := m[step]
		if !ok || x == "" && step == "caller" {
			return nil, fmt.Errorf("there is nothing for {{%s}}", name)
		}
		at = x
	}
	return at, nil
}
