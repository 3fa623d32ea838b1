package world_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/barograph/baro/internal/netguard"
	"github.com/barograph/baro/internal/world"
)

func TestManualTimers(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := world.NewManual(start)
	fired := func(t world.Timer) string {
		select {
		case at := <-t.C():
			return at.Sub(start).String()
		default:
			return "-"
		}
	}
	a, b, now, past := c.NewTimer(time.Second), c.NewTimer(3*time.Second), c.NewTimer(0), c.NewTimer(-time.Second)
	if fired(now) != "0s" || fired(past) != "-1s" || c.Waiting() != 2 {
		t.Error("timers without a wait")
	}
	c.Advance(999 * time.Millisecond)
	if fired(a) != "-" {
		t.Error("too early")
	}
	c.Advance(time.Millisecond)
	if fired(a) != "1s" || fired(a) != "-" || fired(b) != "-" || !c.Now().Equal(start.Add(time.Second)) {
		t.Error("not at its time")
	}
	if a.Stop() {
		t.Error("a fired timer was stopped")
	}
	if !b.Stop() || b.Stop() {
		t.Error("stop")
	}
	c.Advance(time.Hour)
	if fired(b) != "-" {
		t.Error("a stopped timer fired")
	}
	if b.Reset(time.Second) || !b.Reset(2*time.Second) {
		t.Error("reset tells whether it was waiting")
	}
	c.Advance(time.Second)
	if fired(b) != "-" {
		t.Error("the old time counts after Reset")
	}
	c.Advance(time.Second)
	b.Reset(time.Hour) // fired and not looked at: the tick is gone
	if fired(b) != "-" {
		t.Error("an old tick after Reset")
	}
	c.Set(start) // clocks jump back, too
	if !c.Now().Equal(start) || fired(b) != "-" {
		t.Error("set back")
	}
}

func TestSleep(t *testing.T) {
	c := world.NewManual(time.Unix(0, 0))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error)
	go func() { done <- world.Sleep(ctx, c, time.Minute) }()
	if err := c.AwaitTimers(ctx, 1); err != nil {
		t.Fatal(err)
	}
	c.Advance(time.Minute)
	if err := <-done; err != nil {
		t.Error(err)
	}
	go func() { done <- world.Sleep(ctx, c, time.Minute) }()
	c.AwaitTimers(ctx, 1)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := c.AwaitTimers(ctx, 100); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if c.Waiting() != 0 {
		t.Error("a timer stayed")
	}
}

func TestSystemClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := world.System.Now()
		if err := world.Sleep(context.Background(), world.System, time.Hour); err != nil || world.System.Now().Sub(at) != time.Hour {
			t.Error("sleep")
		}
		timer := world.System.NewTimer(time.Hour)
		if !timer.Stop() || timer.Reset(time.Minute) {
			t.Error("timer")
		}
		<-timer.C()
		<-world.System.After(time.Minute)
		if got := world.System.Now().Sub(at); got != time.Hour+2*time.Minute {
			t.Error(got)
		}
	})
}

func TestReal(t *testing.T) {
	w := world.Real(nil)
	if w.Clock == nil || w.FS == nil || w.Dialer == nil || w.Resolver == nil || w.Rand == nil || w.Log == nil || w.Fatal == nil {
		t.Fatalf("%+v", w)
	}
	var be *netguard.BlockedError
	if _, err := w.HTTPClient(netguard.ClientOptions{}).Get("http://127.0.0.1:1/"); !errors.As(err, &be) {
		t.Errorf("loopback: %v", err)
	}
}

func TestFatalExits(t *testing.T) {
	if os.Getenv("WORLD_FATAL") != "" {
		world.Real(slog.New(slog.NewTextHandler(os.Stderr, nil))).Fatal(errors.New("disk on fire"))
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestFatalExits$")
	cmd.Env = append(os.Environ(), "WORLD_FATAL=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	var ee *exec.ExitError
	if !errors.As(err, &ee) || ee.ExitCode() != world.ExitStorage || !strings.Contains(stderr.String(), "disk on fire") {
		t.Errorf("%v: %s", err, stderr.String())
	}
}

// TestMkdirAll cuts the power right after a folder was made.
func TestMkdirAll(t *testing.T) {
	fs := vfs.NewCrashableMem()
	for _, dir := range []string{"a/b/c", "a/b/c", "a/b/d", "/x/y"} {
		if err := world.MkdirAll(fs, dir); err != nil {
			t.Fatal(err)
		}
		fs = fs.CrashClone(vfs.CrashCloneCfg{})
		if _, err := fs.Stat(dir); err != nil {
			t.Errorf("%s: %v", dir, err)
		}
	}
	dir := filepath.Join(t.TempDir(), "p", "q")
	if err := world.MkdirAll(vfs.Default, dir); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := world.MkdirAll(vfs.Default, filepath.Join(file, "r")); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("below a file: %v", err)
	}
}

func ExampleManual() {
	clock := world.NewManual(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	timer := clock.NewTimer(72 * time.Hour)
	clock.Advance(72 * time.Hour)
	fmt.Println((<-timer.C()).Format(time.DateOnly))
	// Output: 2026-01-04
}
