package migrate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// JournalName is the file of a job's folder that tells what was done, in lines of JSON.
const JournalName = "journal.jsonl"

const (
	lockName   = "job.lock"
	carName    = "repo.car"
	carPartial = "repo.car.partial" // what came of it so far, in any order
	carOrdered = "repo.car.new"     // written of that

	maxJournal = 256 << 20 // bytes
)

// Kinds of lines in a journal.
const (
	linePlan   = "plan"   // the first one
	lineBegin  = "begin"  // a step is about to ask a server for something
	lineDone   = "done"   // a step is over
	lineFacts  = "facts"  // something was learned within a step
	lineAgain  = "again"  // a step and those after it have to be done again
	lineFinish = "finish" // nothing is left to do
	lineGiveUp = "give up"
)

// line is one entry of a journal, a line of JSON.
type line struct {
	At    time.Time       `json:"at"`
	Kind  string          `json:"kind"`
	Step  Step            `json:"step,omitempty"`
	Plan  *Plan           `json:"plan,omitempty"`
	Facts json.RawMessage `json:"facts,omitempty"` // the fields of Facts that change
}

// journal is an append-only file. A line that was being written when the machine stopped is as if it had never been.
type journal struct {
	root *os.Root
	file *os.File
	size int64 // of its whole lines
	// fault stands for a machine that stops: tests set it.
	fault func(l *line, written bool) error
}

// openJournal reads the lines that are there.
func openJournal(root *os.Root) (*journal, []line, error) {
	f, err := root.OpenFile(JournalName, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the journal: %w", err)
	}
	j := &journal{root: root, file: f}
	lines, err := j.read()
	if err == nil {
		err = syncFolder(root)
	}
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("reading the journal: %w", err)
	}
	return j, lines, nil
}

func (j *journal) read() ([]line, error) {
	b, err := io.ReadAll(io.LimitReader(j.file, maxJournal+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxJournal {
		return nil, fmt.Errorf("it has more than %d bytes", maxJournal)
	}
	lines, whole, err := parseJournal(b)
	if err != nil {
		return nil, err
	}
	j.size = int64(whole)
	if whole < len(b) {
		if err := j.file.Truncate(int64(whole)); err != nil {
			return nil, err
		}
	}
	return lines, nil
}

// parseJournal reads the whole lines of a journal, which are the first bytes of it.
func parseJournal(b []byte) (lines []line, whole int, err error) {
	for n := 1; ; n++ {
		end := bytes.IndexByte(b[whole:], '\n')
		if end < 0 {
			return lines, whole, nil
		}
		if end+1 == len(b)-whole && bytes.IndexByte(b[whole:], 0) >= 0 {
			return lines, whole, nil // the last blocks of a line came to the disk, those before didn't
		}
		var l line
		if err := json.Unmarshal(b[whole:whole+end], &l); err != nil {
			return nil, 0, fmt.Errorf("line %d: %w", n, err)
		}
		if (n == 1) != (l.Kind == linePlan) || l.Kind == linePlan && l.Plan == nil {
			return nil, 0, fmt.Errorf("line %d: a journal begins with its one plan", n)
		}
		lines = append(lines, l)
		whole += end + 1
	}
}

// add appends a line; it is on the disk when add returns.
func (j *journal) add(l *line) error {
	b, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	if j.size+int64(len(b)) >= maxJournal {
		return fmt.Errorf("writing the journal: it would have more than %d bytes, and could not be read again", maxJournal)
	}
	if j.fault != nil {
		if err := j.fault(l, false); err != nil {
			return err
		}
	}
	// A write that failed, for lack of space perhaps, may have left a part of a line, and the next one must not follow on it.
	if info, err := j.file.Stat(); err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	} else if info.Size() != j.size {
		if err := j.file.Truncate(j.size); err != nil {
			return fmt.Errorf("writing the journal: %w", err)
		}
	}
	if _, err := j.file.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	j.size += int64(len(b)) + 1
	if err := j.file.Sync(); err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	if j.fault != nil {
		return j.fault(l, true)
	}
	return nil
}

func (j *journal) close() error { return j.file.Close() }

// syncFolder makes new names in a folder last, where the system can.
func syncFolder(root *os.Root) error {
	d, err := root.Open(".")
	if err != nil {
		return err
	}
	_ = d.Sync() // not every system syncs folders
	return d.Close()
}

// removeFile removes a file that may not be there.
func removeFile(root *os.Root, name string) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
