package migrate

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/client/partial"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// doAccount makes the account at the new host. A host has one account of a DID, so an answer that was lost is found again by logging in.
func (j *Job) doAccount(ctx context.Context, in Input) (map[string]any, error) {
	p := j.plan
	host := j.anyone(p.To).XRPC()
	if in.Password == "" {
		if a, err := j.manager.Account(ctx, p.DID); err == nil { // the session was kept, but not that it is there
			return nil, j.inactive(ctx, a.Client())
		}
		return nil, &NeedError{What: NeedPassword}
	}
	st, err := comatproto.SyncGetRepoStatus.Call(ctx, host, &comatproto.SyncGetRepoStatus_Params{Did: string(p.DID)})
	if there := err == nil && !st.Active; there || j.begun[StepAccount] {
		a, err := j.login(ctx, in)
		if err == nil {
			if err := j.inactive(ctx, a.Client()); err != nil {
				return nil, err
			}
			if h := a.Session().Handle; h.Normalize() != p.Handle.Normalize() {
				return nil, fmt.Errorf("%w: %s has an account of %s already, which is called %s", ErrOtherHandle, p.To, p.DID, h)
			}
			j.note(StepAccount, "%s has an account of %s already, which is used", p.To, p.DID)
			return nil, nil
		}
		if there && errors.Is(err, xrpc.ErrAuthRequired) {
			return nil, &NeedError{What: NeedPassword, Because: fmt.Errorf("%s has an account of %s with another password", p.To, p.DID)}
		}
		if !refused(err) {
			return nil, err
		}
	}
	if in.Old == nil {
		return nil, &NeedError{What: NeedLogin}
	}
	described, err := comatproto.ServerDescribeServer.Call(ctx, host, nil)
	if err != nil {
		return nil, err
	}
	token, err := in.Old.ServiceToken(ctx, described.Did, "com.atproto.server.createAccount")
	if err != nil {
		return nil, err
	}
	if err := j.begin(StepAccount); err != nil {
		return nil, err
	}
	req := &comatproto.ServerCreateAccount_Input{Handle: string(p.Handle.Normalize()), Did: new(string(p.DID)), Password: &in.Password}
	if p.Email != "" {
		req.Email = &p.Email
	}
	if in.InviteCode != "" {
		req.InviteCode = &in.InviteCode
	}
	out, err := comatproto.ServerCreateAccount.Call(ctx, host.WithAuth(xrpc.Bearer(token)), req)
	if err != nil {
		return nil, fmt.Errorf("creating the account at %s: %w", p.To, err)
	}
	if syntax.DID(out.Did) != p.DID {
		return nil, fmt.Errorf("%s created an account of %q, not of %s", p.To, out.Did, p.DID)
	}
	a, err := j.manager.Import(ctx, auth.Session{DID: p.DID, Handle: syntax.Handle(out.Handle), PDS: p.To, Access: out.AccessJwt, Refresh: out.RefreshJwt})
	if err != nil {
		return nil, fmt.Errorf("keeping the session at the new host: %w", err)
	}
	return nil, j.inactive(ctx, a.Client())
}

// inactive makes sure that nobody lives in the account at the new host yet.
func (j *Job) inactive(ctx context.Context, x *xrpc.Client) error {
	st, err := comatproto.ServerCheckAccountStatus.Call(ctx, x, nil)
	if err != nil {
		return err
	}
	if st.Activated {
		return fmt.Errorf("the account of %s at %s is active already: it is not one to move into", j.plan.DID, j.plan.To)
	}
	return nil
}

// doExport fetches the repository into a file that has its name only when it is verified and on the disk. What an earlier try has left of
// one, or an export of before the repository changed, is gone on with.
func (j *Job) doExport(ctx context.Context, in Input) (map[string]any, error) {
	key, err := keys.ParseDIDKey(j.facts.OldKey)
	if err != nil {
		return nil, err
	}
	if _, err := j.o.Dir.Stat(carPartial); errors.Is(err, os.ErrNotExist) {
		if err := j.o.Dir.Rename(carName, carPartial); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("writing the repository: %w", err)
		}
	}
	part, err := j.o.Dir.OpenFile(carPartial, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("writing the repository: %w", err)
	}
	defer part.Close()
	whole := carOrdered
	st, refs, err := j.goOn(ctx, in, key, part)
	if anew, ok := errors.AsType[*partial.AnewError](err); ok {
		if anew.Why != "" {
			j.note(StepExport, "all of the repository is fetched anew: %v", anew)
		}
		whole = carPartial
		st, refs, err = j.fetchAnew(ctx, in, key, part)
	}
	if err != nil {
		return nil, j.keepPart(part, err)
	}
	if err := part.Close(); err != nil {
		return nil, fmt.Errorf("writing the repository: %w", err)
	}
	if err := j.o.Dir.Rename(whole, carName); err != nil {
		return nil, fmt.Errorf("writing the repository: %w", err)
	}
	if err := errors.Join(syncFolder(j.o.Dir), removeFile(j.o.Dir, carPartial)); err != nil {
		return nil, err
	}
	j.blobs = refs
	j.note(StepExport, "revision %s: %d records, %d bytes, verified", st.Rev, st.Records, st.Bytes)
	return map[string]any{"rev": st.Rev, "commit": st.Commit, "data": st.Data, "records": st.Records, "bytes": st.Bytes,
		"blobRefs": len(refs), "blobBytes": sizeOf(refs), "exports": j.facts.Exports + 1, "cuts": 0}, nil
}

// fetchAnew fetches all of the repository. What came of it before an error is in the file.
func (j *Job) fetchAnew(ctx context.Context, in Input, key *keys.PublicKey, f *os.File) (*exported, map[cid.CID]blobRef, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, nil, err
	}
	if err := f.Truncate(0); err != nil {
		return nil, nil, fmt.Errorf("writing the repository: %w", err)
	}
	w := bufio.NewWriterSize(f, 256<<10)
	st, refs, err := j.fetch(ctx, in, key, w)
	if wrong := errors.Join(w.Flush(), f.Sync()); wrong != nil {
		err = errors.Join(err, fmt.Errorf("writing the repository: %w", wrong))
	}
	return st, refs, err
}

// goOn completes what is there of the repository, and writes and verifies a file of it in the order of the tree. The error is a
// [*partial.AnewError] if that can't be done, or isn't worth it.
func (j *Job) goOn(ctx context.Context, in Input, key *keys.PublicKey, part *os.File) (*exported, map[cid.CID]blobRef, error) {
	o := partial.Options{
		Client: j.old(in), DID: j.plan.DID, Key: key, Name: "what is there of the repository", Host: j.plan.From, MaxBytes: j.o.MaxRepo,
		Progress: func(n int64) { j.o.Report(Event{Step: StepExport, Kind: EventProgress, Done: n}) },
	}
	if j.facts.Cuts > 1 { // to fetch all was tried twice
		o.Least = partial.RetryLeast
	}
	done, err := partial.Complete(ctx, part, o)
	if errors.Is(err, client.ErrTooLarge) {
		err = &partial.AnewError{Why: err.Error()} // it may have what the repository hasn't any more
	}
	if err != nil {
		return nil, nil, err
	}
	to, err := j.o.Dir.OpenFile(carOrdered, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("writing the repository: %w", err)
	}
	defer to.Close()
	w := bufio.NewWriterSize(to, 256<<10)
	n := &counter{w: w}
	_, err = partial.WriteInOrder(ctx, n, done.Commit, done.Signed, done)
	if errors.Is(err, mst.ErrNotFound) {
		return nil, nil, &partial.AnewError{Why: err.Error()}
	}
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(w.Flush(), to.Sync()); err != nil {
		return nil, nil, fmt.Errorf("writing the repository: %w", err)
	}
	if _, err := to.Seek(0, io.SeekStart); err != nil {
		return nil, nil, err
	}
	r, err := repo.Open(bufio.NewReaderSize(contextReader{ctx, to}, 256<<10), repo.ReadOptions{Key: key, DID: j.plan.DID, Now: j.o.Now(), Records: repo.RecordsReadable})
	if err != nil {
		return nil, nil, err
	}
	st, refs, err := readThrough(r)
	if err != nil {
		return nil, nil, err
	}
	st.Bytes = n.n
	j.note(StepExport, "gone on with %d bytes from before, %d were fetched", done.Had, done.Fetched)
	return st, refs, nil
}

// keepPart sees to it that the next try has the file to go on with, unless it is the file that is wrong.
func (j *Job) keepPart(part *os.File, err error) error {
	_, check := errors.AsType[*partial.CheckError](err)
	_, hash := errors.AsType[*client.HashError](err)
	_, verify := errors.AsType[*repo.VerifyError](err)
	if check || hash || verify {
		return errors.Join(err, part.Truncate(0))
	}
	if info, wrong := part.Stat(); wrong == nil && info.Size() > 0 {
		return errors.Join(err, j.write(lineFacts, StepExport, map[string]any{"cuts": j.facts.Cuts + 1}))
	}
	return err
}

// openRepo opens the file of the repository and reads it through: files change on disks, and the job may have been interrupted long ago.
func (j *Job) openRepo(ctx context.Context) (*os.File, error) {
	f, err := j.o.Dir.Open(carName)
	if err != nil {
		return nil, fmt.Errorf("opening the repository: %w", err)
	}
	r, err := repo.Open(bufio.NewReaderSize(contextReader{ctx, f}, 256<<10), repo.ReadOptions{DID: j.plan.DID, Records: repo.RecordsReadable})
	if err == nil {
		if r.CommitCID() != j.facts.Commit {
			err = fmt.Errorf("its commit is %s, fetched was %s", r.CommitCID(), j.facts.Commit)
		} else {
			_, j.blobs, err = readThrough(r)
		}
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("the file of the repository: %w", err)
	}
	return f, nil
}

// damaged reports whether the file of the repository isn't what was fetched.
func damaged(err error) bool {
	_, bad := errors.AsType[*repo.VerifyError](err)
	return bad || errors.Is(err, os.ErrNotExist)
}

// doImport sends the repository to the new host and reads it back.
func (j *Job) doImport(ctx context.Context, in Input) (map[string]any, error) {
	c, err := j.new(ctx, in)
	if err != nil {
		return nil, err
	}
	f, err := j.openRepo(ctx)
	if damaged(err) {
		j.note(StepImport, "the file is damaged and is fetched once more: %v", err)
		return j.repeat(StepExport, nil)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	tell := func(n int64) { j.o.Report(Event{Step: StepImport, Kind: EventProgress, Done: n, Total: j.facts.Bytes}) }
	if err := c.ImportRepo(ctx, &countingFile{File: f, tell: tell}, j.facts.Bytes); err != nil {
		return nil, err
	}
	st, err := comatproto.ServerCheckAccountStatus.Call(ctx, c.XRPC(), nil)
	if err != nil {
		return nil, err
	}
	if st.IndexedRecords != int64(j.facts.Records) {
		return nil, fmt.Errorf("%s has taken %d of %d records", j.plan.To, st.IndexedRecords, j.facts.Records)
	}
	back, err := j.readBack(ctx, c)
	if refused(err) {
		j.note(StepImport, "the new host doesn't give the repository back before the account is active, it is checked later: %v", err)
		return map[string]any{"readBack": false}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the repository back: %w", err)
	}
	if back.Data != j.facts.Data || back.Records != j.facts.Records {
		return nil, &VerifyError{Findings: []Finding{{Level: LevelProblem, About: "repository",
			Text: fmt.Sprintf("%s gives back %d records under %s, sent were %d under %s", j.plan.To, back.Records, back.Data, j.facts.Records, j.facts.Data)}}}
	}
	return map[string]any{"readBack": true}, nil
}

// readBack reads the repository at the new host. Its signature says nothing yet: hosts sign at the activation, or at the first write.
func (j *Job) readBack(ctx context.Context, c *client.Client) (*exported, error) {
	r, err := c.Repo(ctx, j.plan.DID, client.RepoOptions{SkipSignature: true, Records: repo.RecordsReadable, MaxBytes: j.o.MaxRepo})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	st, _, err := readThrough(r.Reader)
	return st, err
}

// MissingBlobsError says that blobs couldn't be copied. Plan.AllowMissingBlobs goes on without them.
type MissingBlobsError struct{ Lost []LostBlob }

// Error counts them and names one.
func (e *MissingBlobsError) Error() string {
	return fmt.Sprintf("%d blobs can't be copied, such as %s: %s", len(e.Lost), e.Lost[0].CID, e.Lost[0].Reason)
}

// doBlobs copies the blobs that the new host says it misses, until it misses none or none of the rest can be had.
func (j *Job) doBlobs(ctx context.Context, in Input) (map[string]any, error) {
	c, err := j.new(ctx, in)
	if err != nil {
		return nil, err
	}
	if j.blobs == nil {
		f, err := j.openRepo(ctx)
		if damaged(err) {
			return j.repeat(StepExport, nil)
		}
		if err != nil {
			return nil, err
		}
		f.Close()
	}
	if err := j.removeSpools(); err != nil {
		return nil, err
	}
	lost, sent := map[cid.CID]LostBlob{}, map[cid.CID]bool{}
	copied := j.facts.Copied
	for {
		missing, err := j.missing(ctx, c, lost)
		if err != nil {
			return nil, err
		}
		if len(missing) == 0 {
			break
		}
		for _, b := range missing {
			if sent[b.CID] {
				return nil, fmt.Errorf("%s misses the blob %s, which it has just taken", j.plan.To, b.CID)
			}
			sent[b.CID] = true
		}
		n, err := j.copyBlobs(ctx, in, c, missing, lost)
		copied += n
		if err != nil {
			if n > 0 {
				err = errors.Join(err, j.write(lineFacts, StepBlobs, map[string]any{"copied": copied}))
			}
			return nil, err
		}
	}
	list := []LostBlob{}
	for _, b := range lost {
		list = append(list, b)
	}
	slices.SortFunc(list, func(a, b LostBlob) int { return cid.Compare(a.CID, b.CID) })
	facts := map[string]any{"copied": copied, "lost": list}
	// The host that says what it misses may be wrong: it has to have as many blobs as the records refer to.
	st, err := comatproto.ServerCheckAccountStatus.Call(ctx, c.XRPC(), nil)
	if err != nil {
		return nil, err
	}
	if want := int64(len(j.blobs) - len(list)); st.ImportedBlobs < want {
		return nil, fmt.Errorf("%s says that it misses no more blobs, but has %d of %d", j.plan.To, st.ImportedBlobs, want)
	}
	if len(list) > 0 && !j.plan.AllowMissingBlobs {
		return nil, errors.Join(&MissingBlobsError{list}, j.write(lineFacts, StepBlobs, facts))
	}
	return facts, nil
}

// missing asks the new host what it misses, but for what is lost.
func (j *Job) missing(ctx context.Context, c *client.Client, lost map[cid.CID]LostBlob) ([]client.MissingBlob, error) {
	var out []client.MissingBlob
	seen := map[cid.CID]bool{}
	for b, err := range c.MissingBlobs(ctx) {
		if err != nil {
			return nil, err
		}
		if _, gone := lost[b.CID]; gone || seen[b.CID] {
			continue
		}
		if _, ours := j.blobs[b.CID]; !ours {
			return nil, fmt.Errorf("%s asks for the blob %s, which no record refers to", j.plan.To, b.CID)
		}
		seen[b.CID] = true
		out = append(out, b)
	}
	return out, nil
}

// copyBlobs copies blobs, several at once, and notes those that can't be copied in lost. It returns how many it has copied.
func (j *Job) copyBlobs(ctx context.Context, in Input, c *client.Client, list []client.MissingBlob, lost map[cid.CID]LostBlob) (int, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan client.MissingBlob)
	var mu sync.Mutex
	n := 0
	var wg sync.WaitGroup
	for i := range min(j.o.Parallel, len(list)) {
		wg.Go(func() {
			for b := range work {
				err := j.copyBlob(ctx, in, c, b, fmt.Sprintf("%s%d", spoolPrefix, i))
				gone, isLost := errors.AsType[*lostError](err)
				mu.Lock()
				switch {
				case err == nil:
					n++
				case isLost:
					lost[b.CID] = LostBlob{CID: b.CID, Record: b.Record, Reason: clip(gone.Error())}
					j.note(StepBlobs, "%s can't be copied: %v", b.CID, gone)
				default:
					cancel(err)
				}
				j.o.Report(Event{Step: StepBlobs, Kind: EventProgress, Done: int64(n), Total: int64(len(list))})
				mu.Unlock()
			}
		})
	}
	for _, b := range list {
		select {
		case work <- b:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
	}
	close(work)
	wg.Wait()
	if ctx.Err() != nil {
		return n, context.Cause(ctx)
	}
	return n, j.removeSpools()
}

// lostError says that a blob can't be had or can't be given.
type lostError struct{ err error }

func (e *lostError) Error() string { return e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

const spoolPrefix = "blob-"

// copyBlob copies one blob by way of a file, so that nothing is sent whose hash is not known to be right.
func (j *Job) copyBlob(ctx context.Context, in Input, c *client.Client, b client.MissingBlob, spool string) error {
	f, err := j.o.Dir.OpenFile(spool, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("writing a blob: %w", err)
	}
	defer f.Close()
	typ, size, err := j.fetchBlob(ctx, in, b.CID, f)
	if err != nil {
		return err
	}
	if ref := j.blobs[b.CID]; ref.mime != "" {
		typ = ref.mime
	}
	if typ == "" {
		typ = "application/octet-stream"
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err := c.UploadBlob(ctx, f, typ, size); err != nil {
		if e, ok := errors.AsType[*xrpc.Error](err); ok && (e.Status == http.StatusRequestEntityTooLarge || strings.Contains(e.Name, "TooLarge")) {
			return &lostError{fmt.Errorf("the new host doesn't take %d bytes: %w", size, err)}
		}
		return err
	}
	return nil
}

// blobTries is how often a blob is asked for whose transfer breaks off, or whose bytes are not the blob's.
const blobTries = 3

func (j *Job) fetchBlob(ctx context.Context, in Input, id cid.CID, f *os.File) (typ string, size int64, err error) {
	for try := 1; ; try++ {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return "", 0, err
		}
		if err := f.Truncate(0); err != nil {
			return "", 0, err
		}
		r, err := j.old(in).Blob(ctx, j.plan.DID, id, j.o.MaxBlob)
		if err == nil {
			size, err = io.Copy(f, r)
			r.Close()
			if err == nil {
				return r.Type, size, nil
			}
		}
		_, lies := errors.AsType[*client.HashError](err)
		e, answered := errors.AsType[*xrpc.Error](err)
		switch {
		case ctx.Err() != nil:
			return "", 0, context.Cause(ctx)
		case loggedOut(err):
			return "", 0, err
		case errors.Is(err, client.ErrTooLarge), lies && try >= blobTries:
			return "", 0, &lostError{err}
		case answered && (e.Status == http.StatusNotFound || e.Status == http.StatusBadRequest):
			return "", 0, &lostError{fmt.Errorf("the old host doesn't have it: %w", err)}
		case answered, try >= blobTries:
			return "", 0, err
		}
	}
}

func (j *Job) removeSpools() error {
	for i := range j.o.Parallel {
		if err := removeFile(j.o.Dir, fmt.Sprintf("%s%d", spoolPrefix, i)); err != nil {
			return err
		}
	}
	return nil
}

const (
	getPreferences = "app.bsky.actor.getPreferences"
	putPreferences = "app.bsky.actor.putPreferences"
	maxPreferences = 4 << 20
)

// doPreferences copies the preferences as they are: nothing of what an app has put there is looked into.
func (j *Job) doPreferences(ctx context.Context, in Input) (map[string]any, error) {
	c, err := j.new(ctx, in)
	if err != nil {
		return nil, err
	}
	if in.Old == nil {
		return nil, &NeedError{What: NeedLogin}
	}
	given, err := preferences(ctx, j.old(in).XRPC())
	skip := func(what string, err error) (map[string]any, error) {
		why := clip(fmt.Sprintf("%s: %v", what, err))
		j.note(StepPreferences, "not copied: %s", why)
		return map[string]any{"preferences": why}, nil
	}
	if unsupported(err) {
		return skip("the old host doesn't give them", err)
	}
	if err != nil {
		return nil, err
	}
	s, err := c.XRPC().Do(ctx, http.MethodPost, putPreferences, "", &xrpc.Body{Reader: bytes.NewReader(given), Type: "application/json", Length: int64(len(given))}, "*/*")
	if unsupported(err) {
		return skip("the new host doesn't take them", err)
	}
	if err != nil {
		return nil, fmt.Errorf("writing the preferences: %w", err)
	}
	s.Body.Close()
	return map[string]any{"preferences": "copied"}, nil
}

// unsupported reports whether a host says that it doesn't do something at all.
func unsupported(err error) bool {
	e, ok := errors.AsType[*xrpc.Error](err)
	return ok && (e.Status == http.StatusNotFound || e.Status == http.StatusNotImplemented || e.Name == "MethodNotImplemented" || e.Status == http.StatusBadRequest) && !loggedOut(err)
}

// preferences reads the preferences of an account, as JSON.
func preferences(ctx context.Context, x *xrpc.Client) ([]byte, error) {
	s, err := x.Do(ctx, http.MethodGet, getPreferences, "", nil, "application/json")
	if err != nil {
		return nil, fmt.Errorf("reading the preferences: %w", err)
	}
	defer s.Body.Close()
	b, err := io.ReadAll(io.LimitReader(s.Body, maxPreferences+1))
	if err != nil {
		return nil, fmt.Errorf("reading the preferences: %w", err)
	}
	var v struct {
		Preferences []json.RawMessage `json:"preferences"`
	}
	switch err := json.Unmarshal(b, &v); {
	case len(b) > maxPreferences:
		return nil, fmt.Errorf("reading the preferences: %w", xrpc.ErrTooLarge)
	case err != nil:
		return nil, fmt.Errorf("reading the preferences: %w", err)
	}
	if v.Preferences == nil {
		v.Preferences = []json.RawMessage{}
	}
	return json.Marshal(v)
}

// contextReader ends when its context does.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// countingFile tells how much of a file has been read.
type countingFile struct {
	*os.File
	n    int64
	tell func(int64)
}

func (c *countingFile) Read(p []byte) (int, error) {
	n, err := c.File.Read(p)
	c.n += int64(n)
	c.tell(c.n)
	return n, err
}

func (c *countingFile) Seek(offset int64, whence int) (int64, error) {
	n, err := c.File.Seek(offset, whence)
	c.n = n
	return n, err
}

// WriteTo keeps io.Copy from going past Read.
func (c *countingFile) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{c})
}
