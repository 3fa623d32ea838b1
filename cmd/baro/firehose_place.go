package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// place is a file with how far a stream was followed: a number, and whose number it is.
type place struct {
	file, stream string
}

// openPlace reads the place, nil if there is no file yet.
func openPlace(file, host, nsid string) (after *int64, p *place, err error) {
	if file == "" {
		return nil, nil, nil
	}
	p = &place{file, host + "/xrpc/" + nsid}
	// A folder that the place can't be written to is told now, and not after the first events, which may be long to come.
	f, err := createFile(file, true)
	if err != nil {
		return nil, nil, err
	}
	f.drop()
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, p, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading the place in the stream: %w", err)
	}
	number, of, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	seq, err := strconv.ParseInt(number, 10, 64)
	if err != nil || seq < 0 || seq > stream.MaxSeq {
		return nil, nil, fmt.Errorf("%s holds no place in a stream", file)
	}
	if of != "" && of != p.stream { // numbers of different streams have nothing to do with each other
		return nil, nil, withHint(fmt.Errorf("%s is the place in another stream, %s", file, of), "take another file for each stream")
	}
	return &seq, p, nil
}

// save keeps the place, on the disk.
func (p *place) save(seq int64) error {
	f, err := createFile(p.file, true)
	if err != nil {
		return err
	}
	defer f.drop()
	if _, err := fmt.Fprintf(f, "%d %s\n", seq, p.stream); err != nil {
		return fmt.Errorf("writing the place in the stream: %w", err)
	}
	return f.keep()
}

// promptWriter gathers what is written, but not for long: a line must not wait for those after it.
type promptWriter struct {
	mu    sync.Mutex
	w     *bufio.Writer
	timer *time.Timer
	armed bool
}

const promptDelay = 50 * time.Millisecond

func newPromptWriter(w io.Writer) *promptWriter {
	p := &promptWriter{w: bufio.NewWriterSize(w, 64<<10)}
	p.timer = time.AfterFunc(time.Hour, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.armed = false
		_ = p.w.Flush() // the error comes again with the next line
	})
	p.timer.Stop()
	return p
}

func (p *promptWriter) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.armed {
		p.armed = true
		p.timer.Reset(promptDelay)
	}
	return p.w.Write(b)
}

// Flush writes everything out.
func (p *promptWriter) Flush() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = false
	p.timer.Stop()
	return p.w.Flush()
}

// meter shows on standard error how many events come, and how old they are: on a terminal, and if no lines are in the way.
type meter struct {
	w     io.Writer
	clock world.Clock
	live  bool

	mu    sync.Mutex
	begun time.Time
	n     int
	shown bool
}

func (e *env) meter(quiet bool) *meter {
	return &meter{w: e.stderr, clock: e.world.Clock, live: isTerminal(e.stderr) && (quiet || !isTerminal(e.stdout))}
}

const eraseLine = "\r\x1b[K"

// count takes an event of a time into account.
func (m *meter) count(at string) {
	if !m.live {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n++
	now := m.clock.Now()
	since := now.Sub(m.begun)
	if m.begun.IsZero() || since < time.Second {
		if m.begun.IsZero() {
			m.begun = now
		}
		return
	}
	fmt.Fprint(m.w, eraseLine, rateAndLag(m.n, since, now, at))
	m.begun, m.n, m.shown = now, 0, true
}

// rateAndLag says how many events came in some time, and how late the last one is.
func rateAndLag(n int, in time.Duration, now time.Time, at string) string {
	s := fmt.Sprintf("%.0f events/s", float64(n)/in.Seconds())
	if d, err := syntax.ParseDatetime(at); err == nil {
		s += fmt.Sprintf(", %s behind", max(0, now.Sub(d.Time())).Round(100*time.Millisecond))
	}
	return s
}

// say prints a line that stays.
func (m *meter) say(line string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.erase()
	fmt.Fprintln(m.w, line)
}

// done takes the meter away.
func (m *meter) done() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.erase()
}

func (m *meter) erase() {
	if m.shown {
		fmt.Fprint(m.w, eraseLine)
		m.shown = false
	}
}
