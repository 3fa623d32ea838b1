// Package migrate moves an account from one PDS to another, as a job that can be interrupted at any point and goes on where it was.
//
// Guide: https://atproto.com/guides/account-migration. Specification of accounts: https://atproto.com/specs/account.
//
// A [Job] lives in a folder of its own. What it has done, and the evidence for it, is in a journal there: every line is on the disk
// before the job goes on, so that a job that was killed repeats at most the call whose answer it didn't get, and every such call is one
// that may be repeated or whose effect is looked for first. Before the identity is changed everything that the new host has been given is
// read back and compared, and the operation that changes the identity is checked against what it is meant to change. Until then
// [Job.Abandon] undoes the move; the account at the old host is not touched before the identity has changed.
//
//	job, err := migrate.Open(migrate.Options{Dir: root, Identity: dir, PLC: plc, Sessions: store, Now: time.Now})
//	err = job.Start(migrate.Plan{DID: did, From: "https://old.example", To: "https://new.example", Handle: "alice.new.example"})
//	found, err := job.Check(ctx, migrate.Input{Old: account}) // a dry run: nothing is written anywhere
//	err = job.Run(ctx, migrate.Input{Old: account, Password: password})
//	if need, ok := errors.AsType[*migrate.NeedError](err); ok { … } // a code from an e-mail, for example: then Run again
//
// Identities of both methods are moved: the operation of a did:plc is signed by the old host, which mails a code for it, or by a rotation
// key that the user holds; the document of a did:web is the user's to publish, and the job says what has to be in it.
//
// It doesn't move what is in other services, such as chats, and nothing of an account whose old host doesn't cooperate: that takes
// single steps, see docs/migration.md.
//
// Limits: a repository is in a file while it is moved, and the references to its blobs in memory, some hundred bytes for each. The API is
// settling.
package migrate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/identity/plcdir"
	"github.com/barograph/baro/internal/filelock"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// Step is a part of a move.
type Step string

// The steps, in their order.
const (
	StepCheck       Step = "check"       // look at both hosts, the identity and the repository; nothing is written
	StepAccount     Step = "account"     // make the account at the new host, where it is not active
	StepExport      Step = "export"      // fetch the repository and verify it
	StepImport      Step = "import"      // send it to the new host, and read it back
	StepBlobs       Step = "blobs"       // copy the blobs that the new host misses
	StepPreferences Step = "preferences" // copy the preferences
	StepSign        Step = "sign"        // have the change of the identity signed, and check it
	StepIdentity    Step = "identity"    // submit it: from here on there is no way back but another move
	StepActivate    Step = "activate"    // make the new account active
	StepDeactivate  Step = "deactivate"  // make the old one inactive
	StepVerify      Step = "verify"      // look at everything once more, from outside
	StepSession     Step = "session"     // replace the session
)

// Steps are all steps in their order.
var Steps = []Step{StepCheck, StepAccount, StepExport, StepImport, StepBlobs, StepPreferences, StepSign, StepIdentity, StepActivate,
	StepDeactivate, StepVerify, StepSession}

// Plan says what is to be moved where. It is kept in the journal, and holds no secret.
type Plan struct {
	DID    syntax.DID    `json:"did"`
	From   string        `json:"from"`            // origin of the old PDS, such as "https://old.example"
	To     string        `json:"to"`              // origin of the new one
	Handle syntax.Handle `json:"handle"`          // at the new host
	Email  string        `json:"email,omitempty"` // at the new host
	// RotationKey is the did:key of a key that the user holds, which becomes the strongest rotation key of a did:plc. It may be empty.
	RotationKey string `json:"rotationKey,omitempty"`
	// DropKeys are rotation keys that go away. Those of the old host always do; others stay.
	DropKeys []string `json:"dropKeys,omitempty"`
	// AllowMissingBlobs goes on without the blobs that can't be copied.
	AllowMissingBlobs bool `json:"allowMissingBlobs,omitempty"`
}

func (p *Plan) check() error {
	for _, host := range []string{p.From, p.To} {
		if !validOrigin(host) {
			return fmt.Errorf("%q is not the URL of a PDS", host)
		}
	}
	switch {
	case !syntax.ValidDID(p.DID):
		return fmt.Errorf("%q is not a DID", p.DID)
	case p.From == p.To:
		return fmt.Errorf("the account is at %s already", p.To)
	case !syntax.ValidHandle(p.Handle):
		return fmt.Errorf("%q is not a handle", p.Handle)
	}
	for _, k := range append(slices.Clone(p.DropKeys), p.RotationKey) {
		if _, err := keys.ParseDIDKey(k); k != "" && err != nil {
			return fmt.Errorf("rotation key %q: %w", k, err)
		}
	}
	return nil
}

// Input is what a run is given anew each time, because it isn't kept.
type Input struct {
	// Old is the account at the old host, logged in with its own password, not an app password. It may be nil once the old account is
	// inactive.
	Old *auth.Account
	// Password is that of the new account.
	Password string
	// InviteCode is for a new host that wants one.
	InviteCode string
	// Token is the code that the old host has mailed, for the signature of the change of the identity.
	Token string
	// SigningKey is a rotation key of the identity that the user holds: it signs in the place of the old host, and no code is needed.
	SigningKey *keys.PrivateKey
}

// String leaves the secrets out.
func (Input) String() string { return "input of a migration" }

// GoString leaves the secrets out of dumps.
func (i Input) GoString() string { return i.String() }

// Options of a [Job]. Dir, Identity and Now must be set.
type Options struct {
	Dir      *os.Root     // the job's own folder, which should have mode 0700. The caller closes it, after the job
	HTTP     *http.Client // nil: the standard transport
	Identity *identity.Directory
	PLC      *plcdir.Client // nil: only a did:web can be moved
	// Sessions gets the session of the new account at the end, in the place of that of the old one. It may be nil.
	Sessions auth.Store
	Now      func() time.Time
	Parallel int             // blobs at once; 0: 4
	MaxBlob  int64           // bytes of a blob; 0: client.DefaultMaxBlob
	MaxRepo  int64           // bytes of a repository; 0: no bound
	Report   func(Event)     // is told what happens, one event at a time; may be nil
	Retry    *xrpc.Retry     // of calls that may be repeated; nil: the zero value of xrpc.Retry
	observe  func(step Step) // tests look on
}

// Event tells how a job goes on.
type Event struct {
	Step  Step
	Kind  EventKind
	Text  string // of a note
	Done  int64  // of Total, in blobs or bytes
	Total int64  // 0: not known
}

// EventKind says what an event is about.
type EventKind string

// The kinds of events.
const (
	EventBegin    EventKind = "begin"
	EventDone     EventKind = "done"
	EventNote     EventKind = "note"
	EventProgress EventKind = "progress"
)

// Facts are the evidence that a job has collected.
type Facts struct {
	// StepCheck
	NewHost    syntax.DID    `json:"newHost,omitempty"`    // DID of the new PDS
	BlobLimit  int64         `json:"blobLimit,omitempty"`  // bytes of a blob that the new PDS takes; 0: it doesn't say
	OldKey     string        `json:"oldKey,omitempty"`     // did:key that signs at the old host
	OldHandle  syntax.Handle `json:"oldHandle,omitempty"`  // as the old host says
	OldRecords int64         `json:"oldRecords,omitempty"` // as the old host says

	// StepExport
	Rev       syntax.TID `json:"rev,omitempty"`
	Commit    cid.CID    `json:"commit,omitzero"`
	Data      cid.CID    `json:"data,omitzero"` // root of the tree of records
	Records   int        `json:"records,omitempty"`
	Bytes     int64      `json:"bytes,omitempty"` // of the file
	BlobRefs  int        `json:"blobRefs,omitempty"`
	BlobBytes int64      `json:"blobBytes,omitempty"` // as the records say
	Exports   int        `json:"exports,omitempty"`   // how often it was fetched, because it had changed
	Cuts      int        `json:"cuts,omitempty"`      // how often in a row fetching it was cut off

	// StepImport
	ReadBack bool `json:"readBack,omitempty"` // the new host has given back the same tree

	// StepBlobs
	Copied int        `json:"copied,omitempty"`
	Lost   []LostBlob `json:"lost,omitempty"`

	// StepPreferences
	Preferences string `json:"preferences,omitempty"` // "copied", or why not

	// StepSign
	TokenAsked  time.Time       `json:"tokenAsked,omitzero"`
	Recommended json.RawMessage `json:"recommended,omitempty"` // what the identity has to say for the new host, as /data of a directory
	Operation   json.RawMessage `json:"operation,omitempty"`   // signed
	OperationID cid.CID         `json:"operationID,omitzero"`

	// StepVerify
	Warnings []string `json:"warnings,omitempty"`
}

// LostBlob is a blob that couldn't be copied.
type LostBlob struct {
	CID    cid.CID      `json:"cid"`
	Record syntax.ATURI `json:"record,omitempty"`
	Reason string       `json:"reason"`
}

// Need is what a job waits for.
type Need string

// What a job may need.
const (
	NeedPassword Need = "password" // for the new account: Input.Password
	NeedToken    Need = "token"    // was mailed by the old host: Input.Token
	NeedLogin    Need = "login"    // at the old host: Input.Old
	NeedDocument Need = "document" // of a did:web, to be published by the user
)

// NeedError says that a job can't go on without something that only the user can give.
type NeedError struct {
	What Need
	// Document is what has to be published, for NeedDocument.
	Document json.RawMessage
	// Because is why a thing that was given is not enough, such as an old code; nil if nothing was.
	Because error
}

// Error says what is needed.
func (e *NeedError) Error() string {
	s := map[Need]string{
		NeedPassword: "a password for the account at the new host is needed",
		NeedToken:    "the code that the old host has mailed is needed",
		NeedLogin:    "a session at the old host is needed",
		NeedDocument: "the DID document has to be changed by you",
	}[e.What]
	if e.Because != nil {
		s += ": " + e.Because.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *NeedError) Unwrap() error { return e.Because }

var (
	// ErrBusy says that another process runs the job.
	ErrBusy = errors.New("the migration is running in another process")
	// ErrNoPlan says that the job has not been started.
	ErrNoPlan = errors.New("the migration has no plan")
	// ErrOtherPlan says that the job was started with another plan.
	ErrOtherPlan = errors.New("another migration of the account has been started")
	// ErrNoReturn says that the identity has changed already.
	ErrNoReturn = errors.New("the identity has changed already: the migration can be completed, but not undone")
	// ErrOtherHandle says that an account which is at the new host already has another handle than the plan says: abandon the job, and plan
	// with that handle.
	ErrOtherHandle = errors.New("the account at the new host has another handle")
	// ErrGivenUp says that the job was abandoned.
	ErrGivenUp = errors.New("the migration was abandoned")
	// ErrBusyAccount says that the account is being written to all the time.
	ErrBusyAccount = errors.New("the account is being written to while it is moved")
)

// Job is one move of one account. It is for one goroutine.
type Job struct {
	o       Options
	lock    *os.File
	journal *journal
	plan    *Plan
	facts   Facts
	begun   map[Step]bool
	done    map[Step]bool
	end     string // lineFinish or lineGiveUp when the job is over

	manager *auth.Manager // of the session at the new host
	blobs   map[cid.CID]blobRef
}

// Open opens the job of a folder, new or begun before. It is locked until it is closed.
func Open(o Options) (*Job, error) {
	if o.Dir == nil || o.Identity == nil || o.Now == nil {
		return nil, errors.New("a migration needs a folder, a directory of identities and a clock")
	}
	if o.Parallel <= 0 {
		o.Parallel = 4
	}
	if o.MaxBlob <= 0 {
		o.MaxBlob = client.DefaultMaxBlob
	}
	if o.Report == nil {
		o.Report = func(Event) {}
	}
	if o.Retry == nil {
		o.Retry = &xrpc.Retry{}
	}
	if o.observe == nil {
		o.observe = func(Step) {}
	}
	j := &Job{o: o, begun: map[Step]bool{}, done: map[Step]bool{}}
	var err error
	if j.lock, err = o.Dir.OpenFile(lockName, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, fmt.Errorf("locking the migration: %w", err)
	}
	if ok, err := filelock.Try(j.lock); err != nil || !ok {
		j.lock.Close()
		if err == nil {
			err = ErrBusy
		}
		return nil, err
	}
	jl, lines, err := openJournal(o.Dir)
	if err != nil {
		j.lock.Close()
		return nil, err
	}
	j.journal = jl
	for i := range lines {
		if err := j.apply(&lines[i]); err != nil {
			j.Close()
			return nil, fmt.Errorf("reading the journal: line %d: %w", i+1, err)
		}
	}
	j.manager = auth.New(auth.Options{HTTP: o.HTTP, Store: auth.NewFileStore(o.Dir), Now: o.Now})
	return j, nil
}

// Close ends the use of the folder.
func (j *Job) Close() error { return errors.Join(j.journal.close(), j.lock.Close()) }

// apply is what a line of the journal means.
func (j *Job) apply(l *line) error {
	switch l.Kind {
	case linePlan:
		if err := l.Plan.check(); err != nil {
			return err
		}
		j.plan = l.Plan
	case lineBegin:
		j.begun[l.Step] = true
	case lineDone:
		j.done[l.Step] = true
	case lineFacts:
	case lineAgain:
		i := slices.Index(Steps, l.Step)
		if i < 0 {
			return fmt.Errorf("there is no step %q", l.Step)
		}
		for _, s := range Steps[i:] {
			j.done[s], j.begun[s] = false, false
		}
		j.blobs = nil
	case lineFinish, lineGiveUp:
		j.end = l.Kind
	default:
		return fmt.Errorf("a line of the kind %q", l.Kind)
	}
	if len(l.Facts) > 0 {
		return json.Unmarshal(l.Facts, &j.facts)
	}
	return nil
}

// write adds a line to the journal and acts on it. Changed, which may be nil, are the facts that change, by the names of their fields in
// JSON.
func (j *Job) write(kind string, step Step, changed map[string]any) error {
	l := &line{At: j.o.Now().UTC(), Kind: kind, Step: step}
	if len(changed) > 0 {
		b, err := json.Marshal(changed)
		if err != nil {
			return fmt.Errorf("writing the journal: %w", err)
		}
		l.Facts = b
	}
	if err := j.journal.add(l); err != nil {
		return err
	}
	return j.apply(l)
}

// Start gives a new job its plan. Starting it with the same plan once more is no error; one that differs only in what may change
// (which is AllowMissingBlobs) is the same.
func (j *Job) Start(p Plan) error {
	if err := p.check(); err != nil {
		return err
	}
	if j.plan != nil {
		a, b := p, *j.plan
		a.AllowMissingBlobs, b.AllowMissingBlobs = false, false
		x, _ := json.Marshal(a)
		if y, _ := json.Marshal(b); string(x) != string(y) {
			return fmt.Errorf("%w: to %s as %s", ErrOtherPlan, b.To, b.Handle)
		}
		j.plan.AllowMissingBlobs = p.AllowMissingBlobs
		return nil
	}
	l := &line{At: j.o.Now().UTC(), Kind: linePlan, Plan: &p}
	if err := j.journal.add(l); err != nil {
		return err
	}
	return j.apply(l)
}

// Plan returns the plan of the job. It is false before Start.
func (j *Job) Plan() (Plan, bool) {
	if j.plan == nil {
		return Plan{}, false
	}
	return *j.plan, true
}

// Facts returns the evidence so far.
func (j *Job) Facts() Facts { return j.facts }

// Finished reports whether nothing is left to do.
func (j *Job) Finished() bool { return j.end == lineFinish }

// Done reports whether a step is over.
func (j *Job) Done(s Step) bool { return j.done[s] }

// Next returns the step that the job is at, "" if it is finished or abandoned.
func (j *Job) Next() Step {
	if j.end != "" {
		return ""
	}
	for _, s := range Steps {
		if !j.done[s] {
			return s
		}
	}
	return ""
}

// Run does all that is left to do. An error leaves the job as it is: Run goes on from there. See [NeedError], [*ProblemsError],
// [*MissingBlobsError], [*RehearsalError] and [*VerifyError] for errors that have something to say to the user.
func (j *Job) Run(ctx context.Context, in Input) error {
	switch {
	case j.plan == nil:
		return ErrNoPlan
	case j.end == lineGiveUp:
		return ErrGivenUp
	}
	if in.Old != nil && in.Old.DID() != j.plan.DID {
		return fmt.Errorf("the migration is of %s, the session of %s", j.plan.DID, in.Old.DID())
	}
	if in.Old != nil && in.Old.Session().PDS != j.plan.From {
		if !j.done[StepDeactivate] {
			return &NeedError{What: NeedLogin, Because: fmt.Errorf("the session is at %s, the account is moved from %s", in.Old.Session().PDS, j.plan.From)}
		}
		in.Old = nil
	}
	for j.end == "" {
		s := j.Next()
		if s == "" {
			return j.finish(ctx)
		}
		j.o.Report(Event{Step: s, Kind: EventBegin})
		j.o.observe(s)
		changed, err := j.step(ctx, s, in)
		if err != nil {
			return fmt.Errorf("step %s: %w", s, j.over(ctx, in, err))
		}
		if !j.retract(changed) {
			if err := j.write(lineDone, s, changed); err != nil {
				return err
			}
			j.o.Report(Event{Step: s, Kind: EventDone})
		}
	}
	return nil
}

// over tells by what a session can be had anew, if err says that one has ended.
func (j *Job) over(ctx context.Context, in Input, err error) error {
	if _, told := errors.AsType[*NeedError](err); told || !errors.Is(err, auth.ErrLoginRequired) {
		return err
	}
	if in.Old != nil && in.Old.Session().Access == "" {
		return &NeedError{What: NeedLogin, Because: err}
	}
	if _, lerr := j.manager.Account(ctx, j.plan.DID); errors.Is(lerr, auth.ErrLoginRequired) && j.done[StepAccount] {
		return &NeedError{What: NeedPassword, Because: err}
	}
	return err
}

// again is the fact that asks for a step to be done again; retract reports whether it has been told already.
const again = "\x00again"

func (j *Job) retract(changed map[string]any) bool { _, ok := changed[again]; return ok }

// repeat has the job go back to a step.
func (j *Job) repeat(s Step, changed map[string]any) (map[string]any, error) {
	if err := j.write(lineAgain, s, changed); err != nil {
		return nil, err
	}
	return map[string]any{again: true}, nil
}

func (j *Job) step(ctx context.Context, s Step, in Input) (map[string]any, error) {
	switch s {
	case StepCheck:
		return j.doCheck(ctx, in)
	case StepAccount:
		return j.doAccount(ctx, in)
	case StepExport:
		return j.doExport(ctx, in)
	case StepImport:
		return j.doImport(ctx, in)
	case StepBlobs:
		return j.doBlobs(ctx, in)
	case StepPreferences:
		return j.doPreferences(ctx, in)
	case StepSign:
		return j.doSign(ctx, in)
	case StepIdentity:
		return j.doIdentity(ctx, in)
	case StepActivate:
		return j.doActivate(ctx, in)
	case StepDeactivate:
		return j.doDeactivate(ctx, in)
	case StepVerify:
		return j.doVerify(ctx, in)
	case StepSession:
		return j.doSession(ctx, in)
	}
	return nil, fmt.Errorf("there is no step %q", s)
}

// note tells something about the present step.
func (j *Job) note(s Step, format string, args ...any) {
	j.o.Report(Event{Step: s, Kind: EventNote, Text: fmt.Sprintf(format, args...)})
}

// begin notes that a step is about to change something that it must not do twice.
func (j *Job) begin(s Step) error {
	if j.begun[s] {
		return nil
	}
	return j.write(lineBegin, s, nil)
}

// old is a client of the old host. Without a session it reads what is public.
func (j *Job) old(in Input) *client.Client {
	if in.Old == nil {
		return j.anyone(j.plan.From)
	}
	return client.ForAccount(in.Old, client.Options{Retry: j.o.Retry, Now: j.o.Now})
}

// new is a client of the new host, logged in.
func (j *Job) new(ctx context.Context, in Input) (*client.Client, error) {
	a, err := j.manager.Account(ctx, j.plan.DID)
	if errors.Is(err, auth.ErrLoginRequired) {
		if in.Password == "" {
			return nil, &NeedError{What: NeedPassword}
		}
		a, err = j.login(ctx, in)
	}
	if err != nil {
		return nil, fmt.Errorf("the session at the new host: %w", err)
	}
	return client.ForAccount(a, client.Options{Retry: j.o.Retry, Now: j.o.Now}), nil
}

// login opens a session at the new host, of an account that is there already.
func (j *Job) login(ctx context.Context, in Input) (*auth.Account, error) {
	return j.manager.Login(ctx, j.plan.To, auth.Credentials{Identifier: string(j.plan.DID), Password: in.Password, DID: j.plan.DID})
}

// anyone is a client of a host without credentials.
func (j *Job) anyone(host string) *client.Client {
	return client.New(host, client.Options{HTTP: j.o.HTTP, Retry: j.o.Retry, Now: j.o.Now})
}

// validOrigin reports whether s is scheme, host and port of a server and nothing else.
func validOrigin(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && s == u.Scheme+"://"+strings.ToLower(u.Host)
}
