package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/bsky"
	"github.com/barograph/baro/examples/internal/localtest"
	"github.com/barograph/baro/repo"
)

func TestMirror(t *testing.T) {
	net, c := localtest.Start(t, "alice.test", "bob.test")
	dir := filepath.Join(t.TempDir(), "copy")
	args := []string{"-dir", dir, "-plc", net.URLs().PLC, "-resolver", net.URLs().PDS}
	post := func(i int, text string) bsky.Ref {
		t.Helper()
		ref, err := c[i].Post(t.Context(), bsky.Post{Text: text})
		if err != nil {
			t.Fatal(err)
		}
		return ref
	}
	file := func(ref bsky.Ref) string {
		return filepath.Join(dir, "records", string(ref.URI.Collection()), string(ref.URI.RecordKey())+".json")
	}
	first := post(0, "one")
	if err := run(t.Context(), append(args, "alice.test"), io.Discard); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(file(first)); err != nil || !strings.Contains(string(b), `"text":"one"`) {
		t.Errorf("%s, %v", b, err)
	}
	car, err := os.ReadFile(filepath.Join(dir, "repo.car"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repo.Open(bytes.NewReader(car), repo.ReadOptions{}); err != nil {
		t.Error(err)
	}

	// Following: every change of the account, and nobody else's.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	lines, w := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- run(ctx, append(args, "-follow", string(c[0].DID())), w); w.Close() }()
	seen := make(chan struct{}, 100)
	go func() {
		b := make([]byte, 1000)
		for {
			if _, err := lines.Read(b); err != nil {
				return
			}
			seen <- struct{}{}
		}
	}()
	post(1, "not mine")
	second := post(0, "two")
	if err := c[0].Delete(t.Context(), string(first.URI)); err != nil {
		t.Fatal(err)
	}
	for {
		_, gone := os.Stat(file(first))
		_, there := os.Stat(file(second))
		if os.IsNotExist(gone) && there == nil {
			break
		}
		select {
		case <-seen:
		case err := <-done:
			t.Fatal("it ended: ", err)
		case <-ctx.Done():
			t.Fatal("the copy is not up to date")
		}
	}
	cancel()
	<-done
}
