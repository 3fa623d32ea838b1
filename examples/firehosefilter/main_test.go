package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/bsky"
	"github.com/barograph/baro/examples/internal/localtest"
)

func TestFilter(t *testing.T) {
	net, c := localtest.Start(t, "alice.test")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	place := filepath.Join(t.TempDir(), "cursor")
	// until runs the program until it has printed a number of lines.
	until := func(n int) (got []string) {
		t.Helper()
		running, stop := context.WithCancel(ctx)
		defer stop()
		r, w := io.Pipe()
		done := make(chan error, 1)
		go func() {
			done <- run(running, []string{"-relay", net.URLs().Relay, "-plc", net.URLs().PLC, "-all", "-cursor", place, "(?i)barometer"}, w)
			w.Close()
		}()
		s := bufio.NewScanner(r)
		for len(got) < n && s.Scan() {
			got = append(got, s.Text())
		}
		stop()
		go io.Copy(io.Discard, r)
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		return got
	}
	post := func(text string) {
		t.Helper()
		if _, err := c[0].Post(ctx, bsky.Post{Text: text}); err != nil {
			t.Fatal(err)
		}
	}
	post("my Barometer falls")
	post("something else")
	post("a barometer rises")
	got := until(2)
	if len(got) != 2 || !strings.Contains(got[0], "falls") || !strings.Contains(got[1], "rises") || !strings.Contains(got[0], string(c[0].DID())) {
		t.Errorf("got %q", got)
	}
	// The last line may have been printed without its place being kept: at least once, and in order.
	post("one more barometer")
	got = until(1)
	if strings.Contains(got[0], "rises") {
		got = until(1)
	}
	if !strings.Contains(got[0], "one more") {
		t.Errorf("got %q", got)
	}
	if err := run(ctx, []string{"("}, io.Discard); err == nil {
		t.Error("no error for a broken expression")
	}
}
