package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// What a server says of a failure gives no orders to the terminal.
func TestRefusalsAreInert(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"error":"InvalidRequest","message":"no\u001b]0;title\u0007\u202e\rbaro: success"}`)
	}))
	defer s.Close()
	ownHome(t)
	var out, errs strings.Builder
	if code := run([]string{"relay", "host", "list", "--relay", s.URL}, strings.NewReader(""), &out, &errs); code != exitFailure {
		t.Errorf("exit code %d", code)
	}
	said := out.String() + errs.String()
	if strings.ContainsAny(said, "\x1b\a\r\u202e") || !strings.Contains(said, `no\u001b]0;title`) {
		t.Errorf("said %q", said)
	}
}

func TestCompareHosts(t *testing.T) {
	at := func(status string, seq int64) *position { return &position{status, seq} }
	for _, c := range []struct {
		a, b    *position
		want    string
		notable bool
	}{
		{at("active", 10), at("active", 10), "sync", false},
		{at("active", 10), at("active", 109), "nearly", false},
		{at("active", 110), at("active", 10), "delta", true},
		{at("active", 10), at("idle", 10), "diff-status", true},
		{nil, at("active", 1), "A-missing", true},
		{nil, at("offline", 1), "A-missing", false},
		{at("active", 1), nil, "B-missing", true},
		{at("banned", 1), nil, "B-missing", false},
	} {
		d, notable := compareHosts("pds.example.com", c.a, c.b, 100)
		if d.Result != c.want || notable != c.notable {
			t.Errorf("%v against %v: %s, %v; want %s, %v", c.a, c.b, d.Result, notable, c.want, c.notable)
		}
		if c.want == "delta" && d.Delta != 100 {
			t.Errorf("delta %d", d.Delta)
		}
	}
}
