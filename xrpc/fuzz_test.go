package xrpc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/barograph/baro/xrpc"
)

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// FuzzErrorEnvelope gives a client answers that are no success, with any body, and has a server send on what came of them.
func FuzzErrorEnvelope(f *testing.F) {
	for _, s := range []string{`{"error":"InvalidRequest","message":"no"}`, `{"error":"ExpiredToken"}`, `{"error":{"a":1},"message":"x"}`, `{"message":"x"}`, `<html>`, ``,
		`{"error":"A","message":"\ud800"}`, `{"error":"","message":"x"}`, "{\"error\":\"A\",\"message\":\"\xff\"}", `{"error":"A","message":"` + strings.Repeat("é", 3000) + `"}`} {
		f.Add(400, []byte(s))
		f.Add(502, []byte(s))
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status < 400 || status > 599 {
			return
		}
		ask := func(status int, body []byte) *xrpc.Error {
			t.Helper()
			client := &xrpc.Client{Host: "https://pds.example.com", HTTP: &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body)), Request: r}, nil
			})}}
			_, err := client.Do(context.Background(), http.MethodGet, "com.example.test", "", nil, "")
			var e *xrpc.Error
			if !errors.As(err, &e) || e.Status != status {
				t.Fatalf("%d %q: %v", status, body, err)
			}
			return e
		}
		e := ask(status, body)
		var envelope struct{ Error, Message string }
		if ok := json.Unmarshal(body, &envelope) == nil && envelope.Error != ""; ok && (e.Name != envelope.Error || e.Message != envelope.Message) || !ok && e.Name != "" {
			t.Fatalf("%q is read as %+v", body, e)
		}
		w := httptest.NewRecorder()
		e.Header = nil
		xrpc.WriteError(w, httptest.NewRequest(http.MethodGet, "/xrpc/com.example.test", nil), e)
		again := ask(w.Code, w.Body.Bytes())
		if e.Name != "" && again.Name != e.Name || again.Status != e.Status || !utf8.Valid(w.Body.Bytes()) {
			t.Fatalf("%+v is sent as %q", e, w.Body)
		}
		if again.Message != e.Message && !strings.HasPrefix(e.Message, strings.TrimRight(strings.TrimSuffix(again.Message, "…"), "\ufffd")) {
			t.Fatalf("the message %q is sent as %q", e.Message, again.Message)
		}
	})
}
