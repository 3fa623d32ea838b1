package migrate

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestMigrate(t *testing.T) {
	m := newHosts(t).account(t, 12, 3)
	if err := m.run(); err != nil {
		t.Fatal(err)
	}
	m.arrived()
	if n := m.h.mail.sent[string(m.did)]; n != 1 {
		t.Errorf("%d codes were mailed", n)
	}
	for _, e := range m.events {
		if e.Kind == EventNote && strings.Contains(e.Text, "doesn't lead") {
			t.Error(e.Text)
		}
	}
	// Once more, there is nothing to do.
	n := m.wire.count()
	if err := m.try(); err != nil || m.wire.count() != n {
		t.Errorf("after the end: %v, %d requests", err, m.wire.count()-n)
	}
}

var errCut = errors.New("the wire is cut")

// calls counts the requests for a method.
func calls(seen []string, what string) (n int) {
	for _, s := range seen {
		if strings.HasSuffix(s, what) {
			n++
		}
	}
	return n
}

// TestInterrupted breaks the move at each of its requests, before the server gets it and after the server has acted, and continues it in
// another process: the end is the same as that of a move that wasn't broken.
func TestInterrupted(t *testing.T) {
	h := newHosts(t)
	m := h.account(t, 5, 2)
	if err := m.run(); err != nil {
		t.Fatal(err)
	}
	m.arrived()
	total := m.wire.count()
	if total < 40 {
		t.Fatalf("only %d requests", total)
	}
	step := 1
	if testing.Short() {
		step = 7
	}
	for n := 1; n <= total; n += step {
		for _, when := range []string{"before", "after"} {
			t.Run(fmt.Sprintf("%s request %d", when, n), func(t *testing.T) {
				m := h.account(t, 5, 2)
				fired := ""
				cut := func(i int, r *http.Request) error {
					if i == n {
						fired = r.URL.Path
						return errCut
					}
					return nil
				}
				if when == "before" {
					m.wire.before = cut
				} else {
					m.wire.after = cut
				}
				first := m.run()
				if fired == "" {
					t.Skip("this run has fewer requests") // handles and documents are asked for concurrently
				}
				if first != nil {
					if err := m.run(); err != nil {
						t.Fatalf("%s: %v, then %v", fired, first, err)
					}
				}
				m.arrived()
				if n := calls(m.wire.seen, "identity.submitPlcOperation"); n > 1 && !(when == "before" && strings.HasSuffix(fired, "identity.submitPlcOperation")) {
					t.Errorf("%s: the operation was submitted %d times", fired, n)
				}
			})
		}
	}
}

// TestKilled has the machine stop at each line of the journal, before it is written and after.
func TestKilled(t *testing.T) {
	h := newHosts(t)
	lines := 0
	m := h.account(t, 3, 1)
	m.fault = func(_ *line, written bool) error {
		if written {
			lines++
		}
		return nil
	}
	if err := m.run(); err != nil {
		t.Fatal(err)
	}
	if lines < len(Steps) {
		t.Fatalf("only %d lines", lines)
	}
	for n := 1; n <= lines; n++ {
		for _, written := range []bool{false, true} {
			t.Run(fmt.Sprintf("line %d written %t", n, written), func(t *testing.T) {
				m := h.account(t, 3, 1)
				i, fired := 0, false
				m.fault = func(_ *line, w bool) error {
					if w == written {
						if i++; i == n {
							fired = true
							return errCut
						}
					}
					return nil
				}
				if err := m.run(); !errors.Is(err, errCut) || !fired {
					t.Fatalf("the machine didn't stop: %v", err)
				}
				if err := m.run(); err != nil {
					t.Fatal(err)
				}
				m.arrived()
			})
		}
	}
}

// TestSteps holds the list of steps to the order in which they are done.
func TestSteps(t *testing.T) {
	m := newHosts(t).account(t, 1, 0)
	if err := m.run(); err != nil {
		t.Fatal(err)
	}
	var done []Step
	for _, e := range m.events {
		if e.Kind == EventDone {
			done = append(done, e.Step)
		}
	}
	if !slices.Equal(done, Steps) {
		t.Errorf("done were %v", done)
	}
	j := m.open()
	defer j.Close()
	if !j.Finished() || j.Next() != "" {
		t.Error("the job is not finished")
	}
	if err := j.Abandon(context.Background(), Input{}); !errors.Is(err, ErrNoReturn) {
		t.Errorf("abandoning a finished job: %v", err)
	}
}
