package main

import (
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// progress is a bar on standard error, or nothing when that is no terminal.
type progress struct {
	p   *mpb.Progress
	bar *mpb.Bar
}

func (e *env) progress(what string) *progress {
	if !isTerminal(e.stderr) {
		return &progress{}
	}
	p := mpb.New(mpb.WithOutput(e.stderr), mpb.WithWidth(48))
	bar := p.AddBar(0,
		mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name(what+" ")),
		mpb.AppendDecorators(decor.CountersNoUnit("%d/%d "), decor.Percentage()),
	)
	return &progress{p, bar}
}

// set says how much is done.
func (p *progress) set(done, total int) {
	if p.bar != nil {
		p.bar.SetTotal(int64(total), false)
		p.bar.SetCurrent(int64(done))
	}
}

// done takes the bar away.
func (p *progress) done() {
	if p.bar != nil {
		p.bar.Abort(true)
		p.p.Wait()
	}
}
