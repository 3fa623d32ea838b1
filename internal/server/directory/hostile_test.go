package directory

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/barograph/baro/internal/world"
)

// No request, whatever it holds, makes the directory fail, gets an answer of another shape, or is accepted.
func TestHostilePathsAndBodies(t *testing.T) {
	s, err := New(Config{Memory: true}, world.Real(nil))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	h := s.Handler()
	did := "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
	names := []string{did, "did:plc:", "did:plc:AAAAAAAAAAAAAAAAAAAAAAAA", "did:plc:aaaaaaaaaaaaaaaaaaaaaaa1", "did:plc:%00%00", "did:web:localhost", "x", "%ff",
		strings.Repeat("a", 5000), "..%2f..%2fetc", "did:plc:" + strings.Repeat("a", 25), "a", "%0d%0aX-Evil:1"}
	paths := []string{"/export/stream", "/export/", "/_health/", "//", "/%zz"}
	for _, n := range names {
		for _, tail := range []string{"", "/", "/data", "/log", "/log/audit", "/log/last", "/log/x", "/export"} {
			paths = append(paths, "/"+n+tail)
		}
	}
	for _, q := range []string{"after=-1", "after=%00", "after=99999999999999999999", "after=9223372036854775807", "after=0&count=0", "count=-1", "count=1e9",
		"after=2026-13-45", "after=0000-00-00T00:00:00Z", "after=9999-12-31T23:59:59.999Z", "after=292277026597-01-01T00:00:00Z", "count=99999999999999999999999", "after=" + strings.Repeat("9", 4000)} {
		paths = append(paths, "/export?"+q, "/export/stream?cursor="+strings.TrimPrefix(q, "after="))
	}
	bodies := []string{"", "{", "null", "[]", `"x"`, "{}", `{"type":"plc_operation"}`, `{"type":"plc_tombstone","prev":null,"sig":""}`, `{"type":5}`,
		strings.Repeat("[", 30000), `{"type":"plc_operation","rotationKeys":[` + strings.Repeat(`"x",`, 5000) + `"x"]}`,
		`{"type":"plc_operation","rotationKeys":["did:key:z"],"verificationMethods":{"atproto":"did:key:zz"},"alsoKnownAs":["at://x"],"services":{},"prev":null,"sig":"AA"}`,
		`{"type":"create","signingKey":"","recoveryKey":"","handle":"","service":"","prev":null,"sig":"AA"}`, "{\"type\":\"\xff\"}", strings.Repeat(" ", 70_000)}
	try := func(method, path string, body []byte) {
		t.Helper()
		r, err := http.NewRequest(method, "http://localhost"+strings.ReplaceAll(path, "%zz", "%25zz"), bytes.NewReader(body))
		if err != nil {
			return // not even a URL
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		what := fmt.Sprintf("%s %.60q with %.30q: %d %.100s", method, path, body, w.Code, w.Body)
		switch {
		case w.Code >= 500:
			t.Error(what)
		case w.Code >= 400 && method != http.MethodHead:
			var e struct{ Error, Message string }
			if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Error == "" || e.Message == "" || w.Body.Len() > 4096 {
				t.Errorf("%s (%v)", what, err)
			}
		case method == http.MethodPost && w.Code/100 == 2:
			t.Error(what)
		}
		if w.Header().Get("X-Evil") != "" || w.Header().Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: headers %v", what, w.Header())
		}
	}
	for _, path := range paths {
		for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"} {
			try(method, path, nil)
		}
		for _, body := range bodies {
			try(http.MethodPost, path, []byte(body))
		}
	}
	if s.log.Head() != 0 {
		t.Errorf("%d operations were accepted", s.log.Head())
	}
}
