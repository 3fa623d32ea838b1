package migrate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// Level is how bad a finding is.
type Level string

// The levels.
const (
	LevelProblem Level = "problem" // the move can't be made
	LevelWarning Level = "warning" // it can, but look at this
	LevelNote    Level = "note"    // what is there, and what will be done
)

// Finding is something that a check found out.
type Finding struct {
	Level Level  `json:"level"`
	About string `json:"about"` // "identity", "old host", "new host", "handle", "repository", "blobs", "keys"
	Text  string `json:"text"`
	Hint  string `json:"hint,omitempty"` // what to do about it
}

// ProblemsError says that a move can't be made.
type ProblemsError struct{ Findings []Finding }

// Error tells the problems.
func (e *ProblemsError) Error() string {
	var all []string
	for _, f := range e.Findings {
		if f.Level == LevelProblem {
			s := f.About + ": " + f.Text
			if f.Hint != "" {
				s += " (" + f.Hint + ")"
			}
			all = append(all, s)
		}
	}
	return strings.Join(all, "; ")
}

// findings collects what a check finds.
type findings struct{ list []Finding }

func (f *findings) add(l Level, about, hint, format string, args ...any) {
	f.list = append(f.list, Finding{Level: l, About: about, Hint: hint, Text: fmt.Sprintf(format, args...)})
}

func (f *findings) problems() bool {
	return slices.ContainsFunc(f.list, func(x Finding) bool { return x.Level == LevelProblem })
}

// Check looks at both hosts, the identity and the whole repository, and tells what would be done and everything that stands against it.
// It writes nothing anywhere, not even to the journal. The error is one that kept it from looking.
func (j *Job) Check(ctx context.Context, in Input) ([]Finding, error) {
	switch {
	case j.plan == nil:
		return nil, ErrNoPlan
	case j.end != "":
		return []Finding{{Level: LevelNote, About: "job", Text: "nothing is left to do"}}, nil
	}
	f := new(findings)
	facts := map[string]any{}
	j.look(ctx, in, f, facts)
	if ctx.Err() != nil {
		return f.list, context.Cause(ctx)
	}
	j.lookAtRepository(ctx, in, f, facts)
	return f.list, context.Cause(ctx)
}

// doCheck is Check before the first write, without the repository, which is verified when it is fetched.
func (j *Job) doCheck(ctx context.Context, in Input) (map[string]any, error) {
	f := new(findings)
	facts := map[string]any{}
	j.look(ctx, in, f, facts)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	for _, x := range f.list {
		if x.Level == LevelWarning {
			j.note(StepCheck, "%s: %s", x.About, x.Text)
		}
	}
	if f.problems() {
		return nil, &ProblemsError{f.list}
	}
	return facts, nil
}

// look asks both hosts and the directory.
func (j *Job) look(ctx context.Context, in Input, f *findings, facts map[string]any) {
	p := j.plan
	doc := j.lookAtIdentity(ctx, f)
	j.lookAtNewHost(ctx, in, f, facts)
	rotation := j.lookAtOldHost(ctx, in, f, facts)
	if doc != nil && doc.SigningKey != nil {
		facts["oldKey"] = doc.SigningKey.DIDKey()
	}
	switch p.DID.Method() {
	case "plc":
		j.lookAtKeys(ctx, in, rotation, f)
	case "web":
		f.add(LevelNote, "identity", "", "the document of %s is yours to publish: the migration tells what has to be in it and waits", p.DID)
	}
}

// fresh resolves the document of the account anew.
func (j *Job) fresh(ctx context.Context) (*identity.Document, error) {
	j.o.Identity.Purge(j.plan.DID)
	return j.o.Identity.ResolveDID(ctx, j.plan.DID)
}

func (j *Job) lookAtIdentity(ctx context.Context, f *findings) *identity.Document {
	p := j.plan
	switch m := p.DID.Method(); {
	case m != "plc" && m != "web":
		f.add(LevelProblem, "identity", "", "%s has the method %q, which the protocol doesn't use", p.DID, m)
		return nil
	case m == "plc" && j.o.PLC == nil:
		f.add(LevelProblem, "identity", "", "no PLC directory is known")
		return nil
	}
	doc, err := j.fresh(ctx)
	if err != nil {
		f.add(LevelProblem, "identity", "", "%v", err)
		return nil
	}
	switch {
	case doc.PDS == p.To:
		f.add(LevelProblem, "identity", "", "%s is at %s already", p.DID, p.To)
	case doc.PDS != p.From:
		f.add(LevelProblem, "identity", "log in at the PDS that the document names", "the document of %s names the PDS %q, not %s", p.DID, doc.PDS, p.From)
	}
	if doc.SigningKey == nil {
		f.add(LevelProblem, "identity", "", "the document of %s has no signing key: its repository can't be verified", p.DID)
	}
	return doc
}

func (j *Job) lookAtNewHost(ctx context.Context, in Input, f *findings, facts map[string]any) {
	const about = "new host"
	p := j.plan
	host := j.anyone(p.To).XRPC()
	out, err := comatproto.ServerDescribeServer.Call(ctx, host, nil)
	if err != nil {
		f.add(LevelProblem, about, "is it a PDS, and does it run?", "%s can't be asked: %v", p.To, err)
		return
	}
	did, err := syntax.ParseDID(out.Did)
	if err != nil {
		f.add(LevelProblem, about, "", "%s says that its DID is %q", p.To, out.Did)
		return
	}
	facts["newHost"] = did
	if isTrue(out.InviteCodeRequired) && in.InviteCode == "" && !j.begun[StepAccount] {
		f.add(LevelProblem, about, "ask its operator for an invite code", "%s wants an invite code", p.To)
	}
	if isTrue(out.PhoneVerificationRequired) {
		f.add(LevelProblem, about, "", "%s wants to verify a phone number, which only its own pages can do", p.To)
	}
	if out.BlobUploadLimit != nil && *out.BlobUploadLimit > 0 {
		facts["blobLimit"] = *out.BlobUploadLimit
		f.add(LevelNote, about, "", "takes blobs of up to %d bytes", *out.BlobUploadLimit)
	}

	domains := strings.Join(out.AvailableUserDomains, ", ")
	under := isUnder(p.Handle, out.AvailableUserDomains)
	switch at, err := comatproto.IdentityResolveHandle.Call(ctx, host, &comatproto.IdentityResolveHandle_Params{Handle: string(p.Handle)}); {
	case under && err == nil && at.Did != string(p.DID):
		f.add(LevelProblem, "handle", "choose another one", "%s is taken by %s", p.Handle, at.Did)
	case under:
	case strings.HasSuffix(string(p.Handle), oldDomain(p)), isUnder(p.Handle, j.oldDomains(ctx)):
		f.add(LevelProblem, "handle", "choose one under "+domains+", or of your own domain", "%s belongs to the old host", p.Handle)
	default:
		j.o.Identity.PurgeHandle(p.Handle)
		if leads, err := j.o.Identity.ResolveHandle(ctx, p.Handle); err != nil || leads != p.DID {
			f.add(LevelProblem, "handle", "have its DNS name your DID, or choose one under "+domains, "%s isn't one of the new host's, and doesn't lead to %s", p.Handle, p.DID)
		}
	}

	st, err := comatproto.SyncGetRepoStatus.Call(ctx, host, &comatproto.SyncGetRepoStatus_Params{Did: string(p.DID)})
	switch {
	case err != nil: // it has no such account, as it should be, or tells nobody
	case st.Active:
		f.add(LevelProblem, about, "", "%s has an active account of %s already", p.To, p.DID)
	case !j.begun[StepAccount]:
		f.add(LevelNote, about, "", "%s has an inactive account of %s already, which will be used: its password is needed", p.To, p.DID)
	}
}

// isUnder says whether a handle is one of those that a host gives out.
func isUnder(h syntax.Handle, domains []string) bool {
	return slices.ContainsFunc(domains, func(d string) bool {
		return strings.HasSuffix(string(h.Normalize()), "."+strings.TrimPrefix(strings.ToLower(d), "."))
	})
}

// oldDomains are those that the old host gives handles of, none if it doesn't tell: its handles needn't be below its own name.
func (j *Job) oldDomains(ctx context.Context) []string {
	out, err := comatproto.ServerDescribeServer.Call(ctx, j.anyone(j.plan.From).XRPC(), nil)
	if err != nil {
		return nil
	}
	return out.AvailableUserDomains
}

// oldDomain is what handles of the old host end in, as far as its name tells.
func oldDomain(p *Plan) string {
	_, host, _ := strings.Cut(p.From, "://")
	return "." + host
}

// lookAtOldHost returns the rotation keys of the old host.
func (j *Job) lookAtOldHost(ctx context.Context, in Input, f *findings, facts map[string]any) []string {
	const about = "old host"
	p := j.plan
	if in.Old == nil {
		f.add(LevelProblem, about, "log in at "+p.From+" with the password of the account", "you are not logged in there")
		return nil
	}
	if in.Old.Session().Grant != nil {
		f.add(LevelProblem, about, "log in with the password of the account", "you are logged in with OAuth, which doesn't allow to move an account")
	}
	if c, ok := in.Old.Session().AccessClaims(); ok && strings.Contains(c.Scope, "appPass") {
		f.add(LevelProblem, about, "log in with the password of the account itself", "you are logged in with an app password, which must not move an account")
	}
	x := j.old(in).XRPC()
	s, err := comatproto.ServerGetSession.Call(ctx, x, nil)
	if err != nil {
		hint := ""
		if errors.Is(err, auth.ErrLoginRequired) {
			hint = "log in again"
		}
		f.add(LevelProblem, about, hint, "%s can't be asked: %v", p.From, err)
		return nil
	}
	facts["oldHandle"] = s.Handle
	if s.Active != nil && !*s.Active {
		f.add(LevelWarning, about, "", "the account is %s there", orElse(s.Status, "not active"))
	}
	if p.DID.Method() == "plc" && in.SigningKey == nil {
		switch {
		case s.Email == nil || *s.Email == "":
			f.add(LevelWarning, about, "", "it knows no e-mail address of yours: the code for the change of the identity may not reach you")
		case s.EmailConfirmed != nil && !*s.EmailConfirmed:
			f.add(LevelWarning, about, "", "your e-mail address is not confirmed there: the code for the change of the identity may not reach you")
		}
	}
	if st, err := comatproto.ServerCheckAccountStatus.Call(ctx, x, nil); err != nil {
		f.add(LevelWarning, about, "", "it doesn't tell the state of the account: %v", err)
	} else {
		facts["oldRecords"] = st.IndexedRecords
		f.add(LevelNote, about, "", "%d records and %d blobs are to be moved", st.IndexedRecords, st.ExpectedBlobs)
		if st.ImportedBlobs < st.ExpectedBlobs {
			f.add(LevelWarning, "blobs", "", "%d of %d blobs are missing at the old host already", st.ExpectedBlobs-st.ImportedBlobs, st.ExpectedBlobs)
		}
	}
	if p.DID.Method() != "plc" {
		return nil
	}
	rec, err := comatproto.IdentityGetRecommendedDidCredentials.Call(ctx, x, nil)
	if err != nil {
		f.add(LevelWarning, "keys", "", "the old host doesn't tell which rotation keys are its own: %v", err)
		return nil
	}
	return rec.RotationKeys
}

// lookAtKeys finds out who can sign the change of the identity.
func (j *Job) lookAtKeys(ctx context.Context, in Input, oldHosts []string, f *findings) {
	const about = "keys"
	p := j.plan
	oldHosts = notOwn(in, oldHosts)
	state, _, err := j.audit(ctx)
	if err != nil {
		f.add(LevelProblem, "identity", "", "%v", err)
		return
	}
	if in.SigningKey != nil {
		if k := in.SigningKey.Public().DIDKey(); slices.Contains(state.RotationKeys, k) {
			f.add(LevelNote, about, "", "the change of the identity will be signed with your own key %s", k)
		} else {
			f.add(LevelProblem, about, "", "your key %s is no rotation key of %s", k, p.DID)
		}
	} else {
		can := slices.ContainsFunc(state.RotationKeys, func(k string) bool { return slices.Contains(oldHosts, k) })
		if can || oldHosts == nil {
			f.add(LevelNote, about, "", "the change of the identity will be signed by the old host, which mails a code for it")
		} else {
			f.add(LevelProblem, about, "sign with a rotation key of your own", "the old host holds no rotation key of %s, and so can't sign the change of the identity", p.DID)
		}
	}
	for _, k := range state.RotationKeys {
		switch {
		case slices.Contains(p.DropKeys, k), slices.Contains(oldHosts, k):
			f.add(LevelNote, about, "", "the rotation key %s will go away", k)
		case k == p.RotationKey, in.SigningKey != nil && k == in.SigningKey.Public().DIDKey():
			f.add(LevelNote, about, "", "your rotation key %s stays", k)
		default:
			f.add(LevelWarning, about, "if you don't know it, have it dropped", "the rotation key %s, which is not the old host's, stays and rules the identity", k)
		}
	}
	if p.RotationKey != "" && !slices.Contains(state.RotationKeys, p.RotationKey) {
		f.add(LevelNote, about, "", "your rotation key %s will be added as the strongest", p.RotationKey)
	}
}

// audit reads and verifies the log of the identity. It returns the present state and the log.
func (j *Job) audit(ctx context.Context) (plc.Data, []plc.Entry, error) {
	log, err := j.o.PLC.Log(ctx, j.plan.DID)
	if err != nil {
		return plc.Data{}, nil, err
	}
	state, active, err := plc.Verify(j.plan.DID, log)
	if err != nil {
		return plc.Data{}, nil, fmt.Errorf("the directory's log of %s does not verify: %w", j.plan.DID, err)
	}
	if !active {
		return plc.Data{}, nil, fmt.Errorf("the identity %s has ended", j.plan.DID)
	}
	return state, log, nil
}

// lookAtRepository reads the whole repository at the old host and verifies it.
func (j *Job) lookAtRepository(ctx context.Context, in Input, f *findings, facts map[string]any) {
	const about = "repository"
	text, _ := facts["oldKey"].(string)
	key, err := keys.ParseDIDKey(text)
	if err != nil {
		return // told already
	}
	st, refs, err := j.fetch(ctx, in, key, io.Discard)
	if err != nil {
		f.add(LevelProblem, about, "", "it can't be fetched and verified: %v", err)
		return
	}
	f.add(LevelNote, about, "", "revision %s: %d records in %d bytes, verified; %d blobs of %d bytes", st.Rev, st.Records, st.Bytes, len(refs), sizeOf(refs))
	if limit, ok := facts["blobLimit"].(int64); ok {
		for id, b := range refs {
			if b.size > limit {
				f.add(LevelWarning, "blobs", "ask the operator of the new host, or go on without it", "%s has %d bytes, more than the new host takes", id, b.size)
			}
		}
	}
}

// blobRef is how records refer to a blob.
type blobRef struct {
	size int64 // 0: an old record that doesn't say
	mime string
}

func sizeOf(refs map[cid.CID]blobRef) (n int64) {
	for _, b := range refs {
		n += b.size
	}
	return n
}

// exported is what is known of a repository that was read.
type exported struct {
	Rev          syntax.TID
	Commit, Data cid.CID
	Records      int
	Bytes        int64
}

// fetch reads the repository at the old host, verifies it with key, and copies the bytes to w.
func (j *Job) fetch(ctx context.Context, in Input, key *keys.PublicKey, w io.Writer) (*exported, map[cid.CID]blobRef, error) {
	n := &counter{w: w, tell: func(n int64) { j.o.Report(Event{Step: StepExport, Kind: EventProgress, Done: n}) }}
	r, err := j.old(in).Repo(ctx, j.plan.DID, client.RepoOptions{Key: key, Now: j.o.Now(), Records: repo.RecordsReadable, MaxBytes: j.o.MaxRepo, Tee: n})
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	st, refs, err := readThrough(r.Reader)
	if err != nil {
		return nil, nil, err
	}
	st.Bytes = n.n
	return st, refs, nil
}

// readThrough reads a repository to its end.
func readThrough(r *repo.Reader) (*exported, map[cid.CID]blobRef, error) {
	refs := map[cid.CID]blobRef{}
	st := &exported{Rev: r.Commit().Rev, Commit: r.CommitCID(), Data: r.Commit().Data}
	for rec, err := range r.Records() {
		if err != nil {
			return nil, nil, err
		}
		st.Records++
		for b, err := range data.Blobs(rec.Data) {
			if err != nil {
				break // a record that can't be read refers to nothing that a host would find either
			}
			if b.Ref.Codec() == cid.Raw {
				refs[b.Ref] = blobRef{b.Size, b.MimeType}
			}
		}
	}
	return st, refs, nil
}

// counter counts what is written.
type counter struct {
	w    io.Writer
	n    int64
	tell func(int64)
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	if c.tell != nil {
		c.tell(c.n)
	}
	return n, err
}

func isTrue(b *bool) bool { return b != nil && *b }

func orElse(s *string, other string) string {
	if s == nil || *s == "" {
		return other
	}
	return *s
}

// refused reports whether a server answered that it won't do something, as opposed to not answering.
func refused(err error) bool {
	e, ok := errors.AsType[*xrpc.Error](err)
	return ok && e.Status/100 == 4 && e.Status != http.StatusTooManyRequests && e.Status != http.StatusRequestTimeout && !loggedOut(err)
}

// loggedOut reports whether a server refused because of the session alone, which says nothing about what it was asked for.
func loggedOut(err error) bool {
	_, renewal := errors.AsType[*auth.RenewalError](err)
	return renewal || errors.Is(err, auth.ErrLoginRequired) || errors.Is(err, xrpc.ErrExpiredToken) || errors.Is(err, xrpc.ErrInvalidToken)
}

// maxReason is how much of what a server said is kept, in bytes: it may say as much as it likes, for each blob.
const maxReason = 512

func clip(s string) string {
	if len(s) <= maxReason {
		return s
	}
	return strings.ToValidUTF8(s[:maxReason], "") + "…"
}
