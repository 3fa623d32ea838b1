package kv_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/barograph/baro/internal/kv"
)

func TestLock(t *testing.T) {
	dir := t.TempDir()
	held, err := kv.Lock(vfs.Default, dir, "network.lock")
	if err != nil {
		t.Fatal(err)
	}
	_, err = kv.Lock(vfs.Default, dir, "network.lock")
	var le *kv.LockedError
	if !errors.As(err, &le) || le.Lock != filepath.Join(dir, "network.lock") || !strings.Contains(err.Error(), le.Lock) {
		t.Fatalf("second lock: %v", err)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := kv.Lock(vfs.Default, dir, "network.lock")
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	if _, err := kv.Lock(vfs.Default, filepath.Join(dir, "nowhere"), "network.lock"); err == nil || errors.As(err, &le) {
		t.Errorf("a folder that is not there: %v", err)
	}
}
