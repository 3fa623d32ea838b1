package main

import (
	"io"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// transfer shows on a terminal how far the bytes of something have come. Anywhere else it is silent.
type transfer struct {
	p   *mpb.Progress
	bar *mpb.Bar
}

// transfer begins to show; total is in bytes, ≤ 0 if not known.
func (e *env) transfer(what string, total int64) *transfer {
	if !isTerminal(e.stderr) {
		return &transfer{}
	}
	p := mpb.New(mpb.WithOutput(e.stderr), mpb.WithWidth(40), mpb.WithRefreshRate(120*time.Millisecond))
	name := mpb.PrependDecorators(decor.Name(inert(what) + " "))
	speed := []decor.Decorator{decor.CurrentKibiByte("% .1f"), decor.Name(" "), decor.AverageSpeed(decor.SizeB1024(0), "% .1f")}
	t := &transfer{p: p}
	if total > 0 {
		left := []decor.Decorator{decor.Percentage(), decor.Name(" "), decor.AverageETA(decor.ET_STYLE_GO), decor.Name(" ")}
		t.bar = p.New(total, mpb.BarStyle(), name, mpb.AppendDecorators(append(left, speed...)...), mpb.BarRemoveOnComplete())
	} else {
		t.bar = p.New(0, mpb.SpinnerStyle(), name, mpb.AppendDecorators(speed...), mpb.BarRemoveOnComplete())
	}
	return t
}

func (t *transfer) add(n int64) {
	if t.bar != nil {
		t.bar.IncrInt64(n)
	}
}

// Write counts bytes, so that a transfer can be the far end of a tee.
func (t *transfer) Write(p []byte) (int, error) {
	t.add(int64(len(p)))
	return len(p), nil
}

// done takes the bar away. It may be called twice.
func (t *transfer) done() {
	if t.bar != nil {
		t.bar.Abort(true)
		t.p.Wait()
		t.bar = nil
	}
}

// countingReader tells a transfer what was read, and can go back to the start if what it reads can.
type countingReader struct {
	io.ReadSeeker
	t *transfer
}

func (c countingReader) Read(p []byte) (int, error) {
	n, err := c.ReadSeeker.Read(p)
	c.t.add(int64(n))
	return n, err
}

// counter counts the bytes that are written, and tells a transfer of them.
type counter struct {
	w io.Writer
	t *transfer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	c.t.add(int64(n))
	return n, err
}
