package reposync

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// State says how far a repository's copy can be trusted.
type State uint8

// The states. A Resyncing repository is stored as Desynchronized: a fetch doesn't survive a restart.
const (
	Pending        State = iota + 1 // known, and nothing of it fetched
	Desynchronized                  // the copy is behind, or of no known revision
	Resyncing                       // being fetched
	Synchronized                    // the copy is the repository at Rev, and commits are applied as they come
	Failed                          // the last fetch failed; Due says when the next one is tried
)

// String returns the state's name.
func (s State) String() string {
	switch s {
	case Pending:
		return "pending"
	case Desynchronized:
		return "desynchronized"
	case Resyncing:
		return "resyncing"
	case Synchronized:
		return "synchronized"
	case Failed:
		return "failed"
	}
	return "unknown"
}

// Repo is the state of one repository. Its methods that end in no error and take no I/O are the steps of the state machine
// in https://atproto.com/specs/sync: everything that happens to a repository is one of them.
type Repo struct {
	DID    syntax.DID
	State  State
	Active bool   // the account's hosting status at the upstream
	Status string // why it isn't active, such as stream.StatusDeactivated
	// Rev and Data are the revision that the stored records are of. Rev is empty if there are none.
	Rev  syntax.TID
	Data cid.CID
	// Torn says that the stored records are between Rev and a later revision: a fetch was delivered in part.
	Torn bool
	// Want is the newest revision that a verified event told of and the copy doesn't have; empty if there is none.
	Want syntax.TID
	// Seq is the last event that told of the account.
	Seq int64

	Due     time.Time // when a fetch may start, in ms; zero: now
	Retries int       // fetches that failed in a row
	Error   string    // why the last one did
	// Fetched counts fetches since FetchedSince, to bound them.
	Fetched      int
	FetchedSince time.Time
}

const (
	maxError  = 300 // bytes of Repo.Error
	maxStatus = 64
)

// NewRepo is a repository that was just heard of.
func NewRepo(did syntax.DID) Repo { return Repo{DID: did, State: Pending, Active: true} }

// wantsFetch says that a fetch should be scheduled.
func (r *Repo) wantsFetch() bool {
	return r.Active && (r.State == Pending || r.State == Desynchronized || r.State == Failed)
}

// bucket is the name under which a repository is counted.
func (r *Repo) bucket() string {
	if !r.Active {
		switch r.Status {
		case stream.StatusDeactivated, stream.StatusDeleted, stream.StatusSuspended, stream.StatusTakendown:
			return r.Status
		}
		return "inactive"
	}
	return r.State.String()
}

// verdict is what a step wants done with an event.
type verdict uint8

const (
	ignore verdict = iota // it says nothing new
	drop                  // it must not be processed; the reason is counted
	take                  // apply its operations
	hold                  // keep it until the fetch is done
)

// verified is a commit whose message is good by itself.
type verified struct {
	rev, since syntax.TID
	data       cid.CID
	prevData   cid.CID
	whole      bool // its operations make up the whole repository
	ops        []Op
	bytes      int
}

// commit is the step of a good commit. It is the successor of the repository's present revision if and only if it is taken.
func (r *Repo) commit(v *verified) verdict {
	if !r.Active {
		return drop
	}
	if r.Rev != "" && !r.Torn && v.rev <= r.Rev {
		return ignore
	}
	switch r.State {
	case Synchronized:
		if v.prevData != r.Data || v.since != r.Rev {
			r.desynchronize(v.rev)
			return ignore
		}
	case Resyncing:
		r.want(v.rev)
		return hold
	default:
		if r.Rev != "" || r.Torn || !v.whole || v.rev <= r.Want {
			r.want(v.rev)
			r.hurry()
			return ignore
		}
	}
	r.advance(v.rev, v.data)
	return take
}

// advance makes r the copy of a revision.
func (r *Repo) advance(rev syntax.TID, data cid.CID) {
	r.State, r.Rev, r.Data, r.Torn = Synchronized, rev, data, false
	if r.Want <= rev {
		r.Want = ""
	}
	r.Due, r.Retries, r.Error = time.Time{}, 0, ""
}

// want notes that there is a newer revision.
func (r *Repo) want(rev syntax.TID) {
	if rev > r.Want {
		r.Want = rev
	}
}

// hurry ends the wait for something that would make a fetch needless.
func (r *Repo) hurry() {
	if r.Retries == 0 && r.Fetched == 0 {
		r.Due = time.Time{}
	}
}

// desynchronize is the step of an event that doesn't follow from the copy. Rev is the revision it is of, empty if that isn't
// certain.
func (r *Repo) desynchronize(rev syntax.TID) {
	r.want(rev)
	if r.State == Synchronized {
		r.State, r.Due = Desynchronized, time.Time{}
	} else if r.State == Pending {
		r.hurry()
	}
}

// sync is the step of a good #sync.
func (r *Repo) sync(rev syntax.TID, data cid.CID) verdict {
	switch {
	case !r.Active:
		return drop
	case r.Rev != "" && !r.Torn && rev < r.Rev, rev < r.Want:
		return ignore
	case r.Rev != "" && !r.Torn && data == r.Data && r.State != Resyncing:
		r.advance(rev, data)
		return take
	case r.Rev == "" && !r.Torn && data == repo.EmptyRoot && r.State != Resyncing:
		r.advance(rev, data)
		return take
	case r.Rev != "" && !r.Torn && rev == r.Rev:
		return ignore
	}
	r.desynchronize(rev)
	return ignore
}

// account is the step of a hosting status. It reports whether the stored records must be removed.
func (r *Repo) account(active bool, status string, now time.Time, settle time.Duration) (purge bool) {
	switch {
	case active && !r.Active:
		r.Active, r.Status = true, ""
		if r.Rev != "" || r.Torn {
			r.State, r.Due = Desynchronized, now.Add(settle)
		} else {
			r.State, r.Due = Pending, now.Add(settle)
		}
	case active:
		r.Status = ""
	default:
		r.Active, r.Status = false, strings.ToValidUTF8(status[:min(len(status), maxStatus)], "")
		if status == "" {
			r.Status = stream.StatusDeactivated
		}
		if r.State == Resyncing {
			r.State = Desynchronized
		}
		r.Due, r.Retries, r.Error = time.Time{}, 0, ""
		if status == stream.StatusDeleted {
			purge = r.Rev != "" || r.Torn
			r.want(r.Rev) // so that nothing older can come back
			r.State, r.Rev, r.Data, r.Torn = Pending, "", cid.CID{}, false
		}
	}
	return purge
}

// claim is the step that begins a fetch. It refuses if there is nothing to fetch, or moves Due if it is too early.
func (r *Repo) claim(now time.Time, rate int) bool {
	if !r.wantsFetch() || r.Due.After(now) {
		return false
	}
	if now.Sub(r.FetchedSince) >= time.Minute || now.Before(r.FetchedSince) {
		r.Fetched, r.FetchedSince = 0, now
	}
	if r.Fetched >= rate {
		r.Due = r.FetchedSince.Add(time.Minute)
		return false
	}
	r.Fetched++
	r.State = Resyncing
	return true
}

// settle is the step after a fetch, when the held commits were drained: if there is still a newer revision, the fetched copy
// was an old one, or too much came to be held.
func (r *Repo) settle() {
	if r.State == Synchronized && r.Want > r.Rev {
		r.State, r.Due = Desynchronized, time.Time{}
	}
}

// fail is the step of a fetch that failed. After is when the other side wants to be asked again, if it said so: then it
// doesn't count.
func (r *Repo) fail(err error, now time.Time, after time.Duration, o *Options) {
	text := err.Error()
	if len(text) > maxError {
		text = text[:maxError]
	}
	r.Error, r.State = text, Failed
	wait := after
	if after <= 0 {
		wait = o.RetryMax
		if r.Retries < 20 {
			wait = min(wait, o.RetryMin<<r.Retries)
		}
		r.Retries++
	}
	r.Due = now.Add(wait + time.Duration(float64(wait)*o.Rand()/4))
}

// Append appends r, without its DID, in a form that [DecodeRepo] reads, for sinks to store.
func (r *Repo) Append(b []byte) []byte {
	state := r.State
	if state == Resyncing {
		state = Desynchronized
	}
	b = cbor.AppendArray(b, 13)
	b = cbor.AppendInt(b, int64(state))
	b = cbor.AppendBool(b, r.Active)
	b = cbor.AppendText(b, r.Status)
	b = cbor.AppendText(b, string(r.Rev))
	if r.Data.Defined() {
		b = cbor.AppendLink(b, r.Data)
	} else {
		b = cbor.AppendNull(b)
	}
	b = cbor.AppendBool(b, r.Torn)
	b = cbor.AppendText(b, string(r.Want))
	b = cbor.AppendInt(b, r.Seq)
	b = cbor.AppendInt(b, millis(r.Due))
	b = cbor.AppendInt(b, int64(r.Retries))
	b = cbor.AppendText(b, strings.ToValidUTF8(r.Error, ""))
	b = cbor.AppendInt(b, int64(r.Fetched))
	return cbor.AppendInt(b, millis(r.FetchedSince))
}

// DecodeRepo reads what Append wrote.
func DecodeRepo(did syntax.DID, b []byte) (Repo, error) {
	r := Repo{DID: did}
	d := cbor.NewReader(b)
	n, err := d.Array()
	if err != nil || n != 13 {
		return r, fmt.Errorf("state of %s: %w", did, errors.Join(err, errors.New("not an array of 13")))
	}
	var errs []error
	integer := func() int64 { v, err := d.Int(); errs = append(errs, err); return v }
	text := func() string { v, err := d.Text(); errs = append(errs, err); return v }
	flag := func() bool { v, err := d.Bool(); errs = append(errs, err); return v }
	r.State = State(integer())
	r.Active = flag()
	r.Status = text()
	r.Rev = syntax.TID(text())
	if d.IsNull() {
		errs = append(errs, d.Null())
	} else {
		c, err := d.Link()
		r.Data, errs = c, append(errs, err)
	}
	r.Torn = flag()
	r.Want = syntax.TID(text())
	r.Seq = integer()
	r.Due = fromMillis(integer())
	r.Retries = int(integer())
	r.Error = text()
	r.Fetched = int(integer())
	r.FetchedSince = fromMillis(integer())
	errs = append(errs, d.End())
	if err := errors.Join(errs...); err != nil {
		return r, fmt.Errorf("state of %s: %w", did, err)
	}
	return r, nil
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
