package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
)

// doActivate makes the new account active. Doing it twice changes nothing.
func (j *Job) doActivate(ctx context.Context, in Input) (map[string]any, error) {
	c, err := j.new(ctx, in)
	if err != nil {
		return nil, err
	}
	if _, err := comatproto.ServerActivateAccount.Call(ctx, c.XRPC(), nil); err != nil {
		return nil, fmt.Errorf("activating the account at %s: %w", j.plan.To, err)
	}
	st, err := comatproto.ServerCheckAccountStatus.Call(ctx, c.XRPC(), nil)
	switch {
	case err != nil:
		return nil, err
	case !st.Activated:
		return nil, fmt.Errorf("%s says that it has activated the account, but it is not active", j.plan.To)
	case !st.ValidDid:
		j.note(StepActivate, "%s doesn't see yet that the identity names it", j.plan.To)
	}
	return nil, nil
}

// doDeactivate makes the old account inactive. Doing it twice changes nothing.
func (j *Job) doDeactivate(ctx context.Context, in Input) (map[string]any, error) {
	st, err := comatproto.SyncGetRepoStatus.Call(ctx, j.anyone(j.plan.From).XRPC(), &comatproto.SyncGetRepoStatus_Params{Did: string(j.plan.DID)})
	if err == nil && !st.Active {
		return nil, nil
	}
	if in.Old == nil {
		return nil, &NeedError{What: NeedLogin}
	}
	x := j.old(in).XRPC()
	if head, err := comatproto.SyncGetLatestCommit.Call(ctx, x, &comatproto.SyncGetLatestCommit_Params{Did: string(j.plan.DID)}); err == nil && head.Rev != string(j.facts.Rev) {
		j.note(StepDeactivate, "the old host was written to after the identity had changed: what came after revision %s is there only", j.facts.Rev)
	}
	if _, err := comatproto.ServerDeactivateAccount.Call(ctx, x, &comatproto.ServerDeactivateAccount_Input{}); err != nil {
		return nil, fmt.Errorf("deactivating the account at %s: %w", j.plan.From, err)
	}
	return nil, nil
}

// VerifyError says that something is not as it has to be after what was done.
type VerifyError struct{ Findings []Finding }

// Error tells what is wrong.
func (e *VerifyError) Error() string { return (&ProblemsError{e.Findings}).Error() }

// doVerify looks at the account as everybody sees it, from outside.
func (j *Job) doVerify(ctx context.Context, in Input) (map[string]any, error) {
	f := new(findings)
	p := j.plan
	var rec plc.Data
	if err := readData(j.facts.Recommended, &rec); err != nil {
		return nil, err
	}
	doc, err := j.fresh(ctx)
	if err != nil {
		return nil, err
	}
	if err := j.fits(doc.PDS, keyOf(doc.SigningKey), doc.Claimed, rec); err != nil {
		f.add(LevelProblem, "identity", "", "%v", err)
	}
	j.o.Identity.PurgeHandle(p.Handle)
	if id, err := j.o.Identity.LookupDID(ctx, p.DID); err != nil {
		f.add(LevelWarning, "handle", "", "%v", err)
	} else if id.Handle.Normalize() != p.Handle.Normalize() {
		f.add(LevelWarning, "handle", "caches may need some minutes", "%s doesn't lead to the account yet: %v", p.Handle, id.HandleErr)
	}
	for _, h := range []struct {
		about, url string
		active     bool
	}{{"new host", p.To, true}, {"old host", p.From, false}} {
		st, err := comatproto.SyncGetRepoStatus.Call(ctx, j.anyone(h.url).XRPC(), &comatproto.SyncGetRepoStatus_Params{Did: string(p.DID)})
		switch {
		case err != nil && h.active:
			return nil, err
		case err != nil: // a host that knows nothing of an account doesn't have it active
		case st.Active != h.active:
			f.add(LevelProblem, h.about, "", "the account is active there: %t", st.Active)
		}
	}
	if err := j.verifyRepo(ctx, doc, f); err != nil {
		return nil, err
	}
	c, err := j.new(ctx, in)
	if err != nil {
		return nil, err
	}
	missing := 0
	for b, err := range c.MissingBlobs(ctx) {
		if err != nil {
			return nil, err
		}
		missing++
		for _, l := range j.facts.Lost {
			if l.CID == b.CID {
				missing--
				break
			}
		}
	}
	if missing > 0 {
		f.add(LevelProblem, "blobs", "", "%d are missing", missing)
	}
	if n := len(j.facts.Lost); n > 0 {
		f.add(LevelWarning, "blobs", "", "%d could not be copied", n)
	}
	if f.problems() {
		return nil, &VerifyError{f.list}
	}
	warnings := []string{}
	for _, x := range f.list {
		warnings = append(warnings, x.About+": "+x.Text)
		j.note(StepVerify, "%s: %s", x.About, x.Text)
	}
	return map[string]any{"warnings": warnings}, nil
}

// verifyRepo reads the whole repository at the new host, as anybody can, and holds it against what was fetched.
func (j *Job) verifyRepo(ctx context.Context, doc *identity.Document, f *findings) error {
	const about = "repository"
	r, err := j.anyone(j.plan.To).Repo(ctx, j.plan.DID, client.RepoOptions{SkipSignature: true, Records: repo.RecordsReadable, MaxBytes: j.o.MaxRepo})
	if err != nil {
		return err
	}
	defer r.Close()
	st, _, err := readThrough(r.Reader)
	if err != nil {
		return err
	}
	same := st.Data == j.facts.Data && st.Records == j.facts.Records
	signed := doc.SigningKey != nil && r.Commit().Verify(doc.SigningKey) == nil
	switch {
	case same && signed:
	case same:
		// Some hosts keep the commit that was imported until the first write.
		if old, err := keys.ParseDIDKey(j.facts.OldKey); err != nil || r.Commit().Verify(old) != nil {
			f.add(LevelProblem, about, "", "its commit is signed with a key that is neither the old nor the new one")
		} else {
			f.add(LevelWarning, about, "write something", "its commit is still signed with the old key: some will not accept it before the first write at the new host")
		}
	case signed && st.Rev > j.facts.Rev:
		f.add(LevelNote, about, "", "it has been written to since it was moved: %d records, moved were %d", st.Records, j.facts.Records)
	default:
		f.add(LevelProblem, about, "", "%d records under %s, moved were %d under %s", st.Records, st.Data, j.facts.Records, j.facts.Data)
	}
	return nil
}

// doSession puts the new session in the place of the old one, which is ended at its server.
func (j *Job) doSession(ctx context.Context, in Input) (map[string]any, error) {
	c, err := j.new(ctx, in)
	if err != nil {
		return nil, err
	}
	if in.Old != nil {
		err := in.Old.Logout(ctx)
		if err != nil && !errors.Is(err, auth.ErrLoginRequired) {
			j.note(StepSession, "the old session: %v", err)
		}
	}
	if j.o.Sessions == nil {
		return nil, nil
	}
	// A renewal makes sure that what is kept elsewhere is not the session of this folder, which is about to go.
	s, err := j.kept(ctx, c)
	if err != nil {
		return nil, err
	}
	if l, ok := j.o.Sessions.(auth.Locker); ok { // a program that still uses the old session may be about to renew it
		unlock, err := l.Lock(ctx, j.plan.DID)
		if err != nil {
			return nil, fmt.Errorf("keeping the session: %w", err)
		}
		defer unlock()
	}
	if err := j.o.Sessions.Save(ctx, s); err != nil {
		return nil, fmt.Errorf("keeping the session: %w", err)
	}
	return nil, nil
}

// kept is the session at the new host as it is now.
func (j *Job) kept(ctx context.Context, c *client.Client) (auth.Session, error) {
	if _, err := comatproto.ServerGetSession.Call(ctx, c.XRPC(), nil); err != nil {
		return auth.Session{}, err
	}
	a, err := j.manager.Account(ctx, j.plan.DID)
	if err != nil {
		return auth.Session{}, err
	}
	return a.Session(), nil
}

// Session returns the session at the new host, once there is one.
func (j *Job) Session(ctx context.Context) (auth.Session, error) {
	if j.plan == nil {
		return auth.Session{}, ErrNoPlan
	}
	a, err := j.manager.Account(ctx, j.plan.DID)
	if err != nil {
		return auth.Session{}, err
	}
	return a.Session(), nil
}

// finish ends the job and removes what is no longer of use: the journal stays as the record of what was done.
func (j *Job) finish(ctx context.Context) error {
	if err := j.tidy(ctx, j.o.Sessions != nil); err != nil {
		return err
	}
	return j.write(lineFinish, "", nil)
}

// tidy removes files, and the session if it is kept elsewhere or of no more use.
func (j *Job) tidy(ctx context.Context, session bool) error {
	errs := []error{removeFile(j.o.Dir, carName), removeFile(j.o.Dir, carPartial), removeFile(j.o.Dir, carOrdered), j.removeSpools()}
	if session {
		errs = append(errs, auth.NewFileStore(j.o.Dir).Delete(ctx, j.plan.DID))
	}
	return errors.Join(errs...)
}

// Abandon ends a job whose identity has not changed. The account at the old host is as it was; that at the new host stays inactive, and is
// marked for deletion where a host does that. [ErrNoReturn] says that it is too late.
func (j *Job) Abandon(ctx context.Context, in Input) error {
	switch {
	case j.plan == nil:
		return ErrNoPlan
	case j.end == lineGiveUp:
		return nil
	case j.end == lineFinish, j.done[StepIdentity]:
		return ErrNoReturn
	}
	// An operation that was signed may have been submitted, and a document published, without this job having been told.
	if j.done[StepSign] || j.begun[StepIdentity] {
		doc, err := j.fresh(ctx)
		if err != nil {
			return fmt.Errorf("looking whether the identity has changed: %w", err)
		}
		if doc.PDS == j.plan.To {
			return ErrNoReturn
		}
	}
	if j.begun[StepAccount] || j.done[StepAccount] {
		c, err := j.new(ctx, in)
		if err == nil {
			err = j.leave(ctx, c)
		}
		if err != nil {
			j.note(StepAccount, "the account at %s stays as it is, inactive: %v", j.plan.To, err)
		}
	}
	if err := j.tidy(ctx, true); err != nil {
		return err
	}
	return j.write(lineGiveUp, "", nil)
}

// leave has the new host delete the account that nobody will move into, and ends the session.
func (j *Job) leave(ctx context.Context, c *client.Client) error {
	after := string(syntax.NewDatetime(j.o.Now().Add(24 * time.Hour)))
	if _, err := comatproto.ServerDeactivateAccount.Call(ctx, c.XRPC(), &comatproto.ServerDeactivateAccount_Input{DeleteAfter: &after}); err != nil {
		return err
	}
	a, err := j.manager.Account(ctx, j.plan.DID)
	if err != nil {
		return err
	}
	return a.Logout(ctx)
}
