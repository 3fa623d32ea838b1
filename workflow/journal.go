package workflow

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/barograph/baro/data"
	"github.com/barograph/baro/internal/filelock"
	"github.com/barograph/baro/syntax"
)

// State is what an entry of a journal says.
type State string

// The states, in the order in which they come about. A batch runs from StateBatch to StateCallback; between them there is
// a row of planned, sending and done or failed for each action.
const (
	StateBegin    State = "begin"    // the call that starts it all is about to be made
	StateBatch    State = "batch"    // a server asked for actions
	StatePlanned  State = "planned"  // record key and expected record of an action are decided
	StateSending  State = "sending"  // from here on until done or failed the outcome is only known to the server
	StateDone     State = "done"     // an action succeeded
	StateFailed   State = "failed"   // an action failed: the batch ends
	StateCallback State = "callback" // the report is about to be sent, byte for byte as noted
	StateFinal    State = "final"    // the workflow has ended
)

// Outcome is how a workflow ended.
type Outcome string

// The outcomes.
const (
	OutcomeDone      Outcome = "done"      // the server gave its answer
	OutcomeRaised    Outcome = "raised"    // the server ended it with an error
	OutcomeFailed    Outcome = "failed"    // the call, or an action of a query's answer, failed
	OutcomeAttention Outcome = "attention" // a person has to look: see [AttentionError]
	OutcomeAbandoned Outcome = "abandoned" // the user gave it up: see [Agent.Abandon]
)

// Entry is one line of a journal. Which fields it has depends on its state.
type Entry struct {
	Run   string    `json:"run"`
	Seq   int       `json:"seq"` // from 0 on, without a gap
	Time  time.Time `json:"time"`
	State State     `json:"state"`

	// begin
	Account syntax.DID  `json:"account,omitempty"`
	Service string      `json:"service,omitempty"`
	Method  syntax.NSID `json:"method,omitempty"`
	Params  string      `json:"params,omitempty"`
	Input   data.Raw    `json:"input,omitempty"`
	Query   bool        `json:"query,omitempty"`
	Atomic  bool        `json:"atomic,omitempty"`
	Allow   []string    `json:"allow,omitempty"` // of the policy: for who resumes it with the same

	// batch
	Step     int      `json:"step,omitempty"`
	Field    string   `json:"field,omitempty"`
	Workflow data.Raw `json:"workflow,omitempty"`
	Output   data.Raw `json:"output,omitempty"` // the answer beside the workflow; of final, the answer

	// planned, sending, done, failed
	Action int          `json:"action,omitempty"` // index
	Verb   Verb         `json:"verb,omitempty"`
	Name   string       `json:"name,omitempty"`
	URI    syntax.ATURI `json:"uri,omitempty"`
	CID    string       `json:"cid,omitempty"`    // of the record as it will be; "" after a deletion
	Before string       `json:"before,omitempty"` // CID of the record as it was; "" if there was none
	Old    data.Raw     `json:"old,omitempty"`    // the record as it was, for undoing

	Message string `json:"message,omitempty"` // failed, final
	Code    string `json:"code,omitempty"`

	// callback
	Callback data.Raw `json:"callback,omitempty"` // the whole input of the call

	// final
	Outcome Outcome `json:"outcome,omitempty"`
}

// Journal keeps what an agent did. Append returns when the entry is on disk.
type Journal interface {
	// Begin makes a new, locked run.
	Begin(ctx context.Context, run string) (Log, error)
	// Open locks a run and returns its entries. An unknown one is [ErrNoRun]; one that is locked is [ErrRunning].
	Open(ctx context.Context, run string) (Log, []Entry, error)
	// Entries reads a run without locking it.
	Entries(ctx context.Context, run string) ([]Entry, error)
	// Runs are the names of all runs, oldest first.
	Runs(ctx context.Context) ([]string, error)
}

// Log is a run that is locked.
type Log interface {
	Append(ctx context.Context, e Entry) error
	Close() error
}

// Errors of journals.
var (
	ErrNoRun   = errors.New("no such workflow in the journal")
	ErrRunning = errors.New("another process works on this workflow")
	ErrJournal = errors.New("the journal is broken")
)

// FileJournal keeps each run in a file of JSON lines, name.jsonl, that only its owner may read. Lines are appended and
// synced. A last line that was cut off, by a crash while it was written, is dropped: what it was to say had not happened.
type FileJournal struct {
	root *os.Root
}

// NewFileJournal returns the journal in a folder, which should have mode 0700. The caller keeps the folder open, and closes
// it.
func NewFileJournal(root *os.Root) *FileJournal { return &FileJournal{root} }

const journalSuffix = ".jsonl"

// MaxJournal is how many bytes a run may have.
const MaxJournal = 256 << 20

func runFile(run string) (string, error) {
	if _, err := syntax.ParseTID(run); err != nil {
		return "", fmt.Errorf("%w: %q is no name of a workflow", ErrNoRun, run)
	}
	return run + journalSuffix, nil
}

// Begin implements [Journal].
func (j *FileJournal) Begin(_ context.Context, run string) (Log, error) {
	name, err := runFile(run)
	if err != nil {
		return nil, err
	}
	f, err := j.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if ok, err := filelock.Try(f); !ok || err != nil {
		f.Close()
		return nil, errors.Join(err, ErrRunning)
	}
	if err := j.syncFolder(); err != nil {
		f.Close()
		return nil, err
	}
	return &fileLog{f}, nil
}

// syncFolder makes sure that the name of a new file is on disk too.
func (j *FileJournal) syncFolder() error {
	d, err := j.root.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Open implements [Journal].
func (j *FileJournal) Open(_ context.Context, run string) (Log, []Entry, error) {
	name, err := runFile(run)
	if err != nil {
		return nil, nil, err
	}
	f, err := j.root.OpenFile(name, os.O_RDWR|os.O_APPEND, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%w: %s", ErrNoRun, run)
	}
	if err != nil {
		return nil, nil, err
	}
	if ok, err := filelock.Try(f); !ok || err != nil {
		f.Close()
		if err == nil {
			err = fmt.Errorf("%w: %s", ErrRunning, run)
		}
		return nil, nil, err
	}
	all, size, err := readEntries(f, run)
	if err == nil {
		err = f.Truncate(size) // a line that was cut off must not be in the way of the next one
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return &fileLog{f}, all, nil
}

// Entries implements [Journal].
func (j *FileJournal) Entries(_ context.Context, run string) ([]Entry, error) {
	name, err := runFile(run)
	if err != nil {
		return nil, err
	}
	f, err := j.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNoRun, run)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, _, err := readEntries(f, run)
	return all, err
}

// readEntries reads a file and returns how many bytes of it are whole entries.
func readEntries(f io.Reader, run string) (all []Entry, size int64, err error) {
	b, err := io.ReadAll(io.LimitReader(f, MaxJournal+1))
	if err != nil {
		return nil, 0, err
	}
	if len(b) > MaxJournal {
		return nil, 0, fmt.Errorf("%w: %s is larger than %d bytes", ErrJournal, run, MaxJournal)
	}
	for {
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			return all, size, nil
		}
		var e Entry
		d := json.NewDecoder(bytes.NewReader(b[:end]))
		d.DisallowUnknownFields()
		if err := d.Decode(&e); err != nil {
			return nil, 0, fmt.Errorf("%w: %s, line %d: %w", ErrJournal, run, len(all)+1, err)
		}
		if e.Run != run || e.Seq != len(all) {
			return nil, 0, fmt.Errorf("%w: %s, line %d is number %d of %s", ErrJournal, run, len(all)+1, e.Seq, e.Run)
		}
		all = append(all, e)
		b = b[end+1:]
		size += int64(end + 1)
	}
}

// Runs implements [Journal].
func (j *FileJournal) Runs(context.Context) ([]string, error) {
	d, err := j.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	files, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var runs []string
	for _, f := range files {
		if run, ok := strings.CutSuffix(f, journalSuffix); ok {
			if _, err := syntax.ParseTID(run); err == nil {
				runs = append(runs, run)
			}
		}
	}
	slices.Sort(runs)
	return runs, nil
}

type fileLog struct{ f *os.File }

func (l *fileLog) Append(_ context.Context, e Entry) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if _, err := l.f.Write(append(b, '\n')); err != nil {
		return err
	}
	return l.f.Sync()
}

func (l *fileLog) Close() error { return l.f.Close() }

// MemoryJournal keeps runs as long as the process lives: a crash forgets them, and with them what was underway. The zero
// value is empty.
type MemoryJournal struct {
	mu   sync.Mutex
	runs map[string]*memoryRun
}

type memoryRun struct {
	lines  [][]byte
	locked bool
}

// Begin implements [Journal].
func (j *MemoryJournal) Begin(_ context.Context, run string) (Log, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.runs[run] != nil {
		return nil, fs.ErrExist
	}
	if j.runs == nil {
		j.runs = map[string]*memoryRun{}
	}
	r := &memoryRun{locked: true}
	j.runs[run] = r
	return &memoryLog{j, r}, nil
}

// Open implements [Journal].
func (j *MemoryJournal) Open(ctx context.Context, run string) (Log, []Entry, error) {
	all, err := j.Entries(ctx, run)
	if err != nil {
		return nil, nil, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	r := j.runs[run]
	if r.locked {
		return nil, nil, fmt.Errorf("%w: %s", ErrRunning, run)
	}
	r.locked = true
	return &memoryLog{j, r}, all, nil
}

// Entries implements [Journal].
func (j *MemoryJournal) Entries(_ context.Context, run string) ([]Entry, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	r := j.runs[run]
	if r == nil {
		return nil, fmt.Errorf("%w: %s", ErrNoRun, run)
	}
	all, _, err := readEntries(bytes.NewReader(bytes.Join(r.lines, nil)), run)
	return all, err
}

// Runs implements [Journal].
func (j *MemoryJournal) Runs(context.Context) ([]string, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var runs []string
	for run := range j.runs {
		runs = append(runs, run)
	}
	slices.Sort(runs)
	return runs, nil
}

type memoryLog struct {
	j *MemoryJournal
	r *memoryRun
}

func (l *memoryLog) Append(_ context.Context, e Entry) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	l.j.mu.Lock()
	defer l.j.mu.Unlock()
	l.r.lines = append(l.r.lines, append(b, '\n'))
	return nil
}

func (l *memoryLog) Close() error {
	l.j.mu.Lock()
	defer l.j.mu.Unlock()
	l.r.locked = false
	return nil
}
