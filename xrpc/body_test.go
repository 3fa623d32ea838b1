package xrpc_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/barograph/baro/xrpc"
)

// endless gives an answer to every read, counted.
type endless struct {
	member []byte
	n      int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, bytes.Repeat(e.member, len(p)/len(e.member)))
	e.n += n
	return n, nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// Raw methods get bodies unpacked, and whatever is wrong with a body is said to be the client's.
func TestRawBodies(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write([]byte("hello"))
	z.Close()
	var empty bytes.Buffer
	gzip.NewWriter(&empty).Close()
	var got []byte
	s := xrpc.NewServer(xrpc.ServerOptions{})
	xrpc.HandleRaw(s, "com.example.raw", http.MethodPost, func(w http.ResponseWriter, r *xrpc.Request) (err error) {
		if got, err = io.ReadAll(http.MaxBytesReader(w, r.Body, 100)); err != nil {
			return err
		}
		return nil
	})
	padding := &endless{member: empty.Bytes()}
	for _, c := range []struct {
		what, encoding string
		body           io.Reader
		status         int
	}{
		{"plain", "", strings.NewReader("hello"), 200},
		{"identity", "Identity", strings.NewReader("hello"), 200},
		{"gzip", "GZIP", &packed, 200},
		{"nothing in gzip", "gzip", strings.NewReader(""), 400},
		{"no gzip", "gzip", strings.NewReader("hello"), 400},
		{"brotli", "br", strings.NewReader("hello"), 415},
		{"two", "gzip, gzip", strings.NewReader("hello"), 415},
		{"empty members without end", "gzip", padding, 400},
		{"large", "", strings.NewReader(strings.Repeat("x", 101)), 413},
		{"broken off", "", failing{io.ErrUnexpectedEOF}, 400},
		{"slow", "", failing{os.ErrDeadlineExceeded}, 408},
		{"unknown", "", failing{errors.New("malformed chunked encoding")}, 400},
	} {
		got = nil
		r := httptest.NewRequest(http.MethodPost, "/xrpc/com.example.raw", io.NopCloser(c.body))
		if c.encoding != "" {
			r.Header.Set("Content-Encoding", c.encoding)
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != c.status || c.status == 200 && string(got) != "hello" {
			t.Errorf("%s: %d %s, body %q", c.what, w.Code, w.Body, got)
		}
	}
	if padding.n > 4<<20 {
		t.Errorf("%d bytes of padding were read", padding.n)
	}
}

func TestLongMessage(t *testing.T) {
	w := httptest.NewRecorder()
	xrpc.WriteError(w, httptest.NewRequest(http.MethodGet, "/", nil), xrpc.ErrInvalidRequest.With("%s", strings.Repeat("é", 100_000)))
	var e struct{ Message string }
	if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || w.Body.Len() > 4096 || !strings.HasSuffix(e.Message, "é…") {
		t.Errorf("%d bytes, %v: …%q", w.Body.Len(), err, e.Message[len(e.Message)-10:])
	}
}
