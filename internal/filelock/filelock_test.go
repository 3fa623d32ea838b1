package filelock

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	a, b := open(t, path), open(t, path)
	if err := Lock(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if ok, err := Try(b); ok || err != nil {
		t.Fatalf("locked twice: %v, %v", ok, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := Lock(ctx, b); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("waiting: %v", err)
	}
	got := make(chan error, 1)
	go func() { got <- Lock(t.Context(), b) }()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if ok, err := Try(open(t, path)); ok || err != nil {
		t.Fatalf("the lock was not taken over: %v, %v", ok, err)
	}
	if _, err := Try(a); err == nil {
		t.Fatal("locked a closed file")
	}
}
