package plcdir_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/identity/plcdir"
	"github.com/barograph/baro/internal/server/directory"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/syntax"
)

var start = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

type server struct {
	c     *plcdir.Client
	clock *world.Manual
	key   *keys.PrivateKey
}

func open(t testing.TB) *server {
	t.Helper()
	w := world.Real(slog.New(slog.DiscardHandler))
	clock := world.NewManual(start)
	w.Clock = clock
	s, err := directory.New(directory.Config{Memory: true, NoLimits: true}, w)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		web.Close()
	})
	key, err := keys.Generate(keys.K256, mrand.NewChaCha8([32]byte{1}))
	if err != nil {
		t.Fatal(err)
	}
	return &server{c: &plcdir.Client{URL: web.URL + "/"}, clock: clock, key: key}
}

func (s *server) operation(t testing.TB, handle string, prev cid.CID) *plc.Operation {
	t.Helper()
	op := plc.NewOperation(plc.AtprotoData(s.key.Public().DIDKey(), syntax.Handle(handle), "https://pds.test", s.key.Public().DIDKey()), prev)
	if err := op.Sign(s.key); err != nil {
		t.Fatal(err)
	}
	return op
}

func (s *server) submit(t testing.TB, did syntax.DID, op *plc.Operation) {
	t.Helper()
	if err := s.c.Submit(context.Background(), did, op); err != nil {
		t.Fatal(err)
	}
}

func TestLog(t *testing.T) {
	s, ctx := open(t), context.Background()
	genesis := s.operation(t, "alice.test", cid.CID{})
	did := genesis.DID()
	if _, err := s.c.Last(ctx, did); plcdir.StatusOf(err) != http.StatusNotFound {
		t.Fatalf("before the genesis: %v", err)
	}
	s.submit(t, did, genesis)
	s.clock.Advance(time.Minute)
	second := s.operation(t, "alice2.test", genesis.CID())
	s.submit(t, did, second)
	if err := s.c.Submit(ctx, did, s.operation(t, "alice3.test", cid.Sum(cid.DagCBOR, []byte("other")))); plcdir.StatusOf(err)/100 != 4 {
		t.Fatalf("an operation that follows nothing: %v", err)
	}

	last, err := s.c.Last(ctx, did)
	if err != nil || last.CID() != second.CID() {
		t.Fatalf("last is %v, %v", last, err)
	}
	log, err := s.c.Log(ctx, did)
	if err != nil {
		t.Fatal(err)
	}
	state, active, err := plc.Verify(did, log)
	if err != nil || !active || state.Handle() != "alice2.test" || len(log) != 2 {
		t.Fatalf("log of %d entries: %v %v %v", len(log), state, active, err)
	}
	raw, err := s.c.Data(ctx, did)
	if want := string(state.AppendJSON(nil, did)); err != nil || string(bytes.TrimSpace(raw)) != want {
		t.Fatalf("data is %s, %v; want %s", raw, err, want)
	}
}

func TestExport(t *testing.T) {
	s, ctx := open(t), context.Background()
	const n = 23
	var dids []string
	for i := range n {
		op := s.operation(t, fmt.Sprintf("user%d.test", i), cid.CID{})
		s.submit(t, op.DID(), op)
		dids = append(dids, string(op.DID()))
		if i%3 == 2 { // three have the same time
			s.clock.Advance(time.Second)
		}
	}
	for _, after := range []string{"0", "", "2020-01-01T00:00:00Z"} {
		for _, page := range []int{4, 5, n, 1000, 0} {
			seen := map[string]int{}
			for l, err := range s.c.Export(ctx, after, page) {
				if err != nil {
					t.Fatal(err)
				}
				if (l.Seq > 0) != (after == "0") {
					t.Fatalf("after %q: sequence number %d", after, l.Seq)
				}
				e, err := l.Entry()
				if err != nil || e.Operation.CID() != e.CID {
					t.Fatalf("%s: %v", l.Raw, err)
				}
				seen[l.DID]++
			}
			for _, d := range dids {
				if seen[d] != 1 {
					t.Errorf("after %q in pages of %d: %s came %d times", after, page, d, seen[d])
				}
			}
		}
	}
	// Pages that are too small for the operations of one time can't go on, and must not pretend to be at the end.
	var last error
	for _, err := range s.c.Export(ctx, "", 3) {
		last = err
	}
	if last == nil {
		t.Error("pages of three lines went on past three operations of one time")
	}
	if lines, err := s.c.Page(ctx, "20", 0); err != nil || len(lines) != 3 || lines[0].Seq != 21 {
		t.Errorf("page after 20: %d lines, %v", len(lines), err)
	}
}

// TestHostile has a directory that answers badly.
func TestHostile(t *testing.T) {
	line := func(seq int) string {
		return fmt.Sprintf(`{"type":"sequenced_op","did":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa","cid":"x","createdAt":"2026-01-01T00:00:00.000Z","seq":%d}`, seq)
	}
	const did = syntax.DID("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
	ctx := context.Background()
	for name, c := range map[string]struct {
		body   string
		status int
		call   func(*plcdir.Client) error
	}{
		"endless log":      {strings.Repeat(" ", 17<<20), 200, func(c *plcdir.Client) error { _, err := c.Log(ctx, did); return err }},
		"endless state":    {strings.Repeat(" ", 65<<10), 200, func(c *plcdir.Client) error { _, err := c.Data(ctx, did); return err }},
		"endless refusal":  {strings.Repeat("x", 20<<20), 500, func(c *plcdir.Client) error { _, err := c.Data(ctx, did); return err }},
		"state not JSON":   {"<html>", 200, func(c *plcdir.Client) error { _, err := c.Data(ctx, did); return err }},
		"last not an op":   {`{"type":"plc_operation"}`, 200, func(c *plcdir.Client) error { _, err := c.Last(ctx, did); return err }},
		"export goes back": {line(2) + "\n" + line(1), 200, func(c *plcdir.Client) error { return drain(c, "0") }},
		"export stays":     {line(2), 200, func(c *plcdir.Client) error { return drain(c, "0") }},
		"export of other":  {`{"did":"x"}`, 200, func(c *plcdir.Client) error { return drain(c, "0") }},
		"export long line": {`{"did":"` + strings.Repeat("x", 70<<10) + `"}`, 200, func(c *plcdir.Client) error { return drain(c, "0") }},
		"strange DID":      {"{}", 200, func(c *plcdir.Client) error { _, err := c.Data(ctx, "did:plc:../../x"); return err }},
		"other DID":        {"{}", 200, func(c *plcdir.Client) error { _, err := c.Data(ctx, "did:web:example.com"); return err }},
		"no directory":     {"{}", 200, func(*plcdir.Client) error { _, err := (&plcdir.Client{}).Data(ctx, did); return err }},
	} {
		t.Run(name, func(t *testing.T) {
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
			}))
			defer web.Close()
			if err := c.call(&plcdir.Client{URL: web.URL}); err == nil {
				t.Error("no error")
			} else if len(err.Error()) > 500 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

func TestTimeout(t *testing.T) {
	release := make(chan struct{})
	web := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer web.Close()
	defer close(release)
	c := &plcdir.Client{URL: web.URL, Timeout: 20 * time.Millisecond}
	_, err := c.Data(context.Background(), "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
	if !errors.Is(err, context.DeadlineExceeded) || plcdir.StatusOf(err) != 0 {
		t.Errorf("a directory that doesn't answer: %v", err)
	}
}

func drain(c *plcdir.Client, after string) error {
	for _, err := range c.Export(context.Background(), after, 1) {
		if err != nil {
			return err
		}
	}
	return nil
}

func FuzzParseLine(f *testing.F) {
	f.Add([]byte(`{"type":"sequenced_op","operation":{},"did":"did:plc:a","cid":"bafy","createdAt":"2026-01-01T00:00:00.000Z","seq":1}`))
	f.Add([]byte(`{"did":"did:plc:a","operation":null,"cid":"bafy","nullified":true,"createdAt":"x"}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := plcdir.ParseLine(b)
		if err != nil {
			return
		}
		if !bytes.Equal(l.Raw, b) || l.DID == "" || l.Seq < 0 {
			t.Fatalf("%q became %+v", b, l)
		}
		if e, err := l.Entry(); err == nil && (string(e.DID) != l.DID || e.Operation == nil) {
			t.Fatalf("%q became an entry of %s", b, e.DID)
		}
	})
}

func ExampleClient_Export() {
	c := &plcdir.Client{URL: "https://plc.directory"}
	for line, err := range c.Export(context.Background(), "0", plcdir.MaxPage) {
		if err != nil {
			fmt.Println(err)
			break
		}
		fmt.Println(line.Seq, line.DID)
	}
}
