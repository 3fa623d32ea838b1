package pds

import (
	"context"
	"testing"
	"time"

	"github.com/barograph/baro/internal/world"
)

// Closing ends the background work before it takes the store away; nothing of that looks like a failed disk.
func TestCloseEndsRun(t *testing.T) {
	for range 30 {
		w := testWorld(1)
		clock := world.NewManual(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC))
		w.Clock = clock
		w.Fatal = func(err error) { t.Errorf("fatal: %v", err) }
		p := openPDS(t, w, Config{})
		for i := range 5 {
			p.account(string(rune('a' + i)))
		}
		clock.Advance(100 * time.Hour) // there is something to trim, at once
		ran := make(chan error, 1)
		go func() { ran <- p.Run(context.Background()) }()
		p.stop()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := p.Run(context.Background()); err != nil {
			t.Errorf("Run after Close: %v", err)
		}
	}
}
