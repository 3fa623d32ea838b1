//go:build unix

package crashtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/repo"
)

// load is everything that people do on a network at once, until its process dies. Each of its workers goes on where it was in the
// round before.
type load struct {
	o       *oracle
	workers []worker

	mu     sync.Mutex
	errs   []error
	number int // of contents
	signUp int // accounts that may still be made in this round
}

// worker does one thing over and over. Its step returns errGone when the process did not answer.
type worker interface {
	step(ctx context.Context, r *round) error
}

var errGone = errors.New("no answer")

// round is the load on one process.
type round struct {
	*load
	c    *client
	urls urls
}

// run works until the process is gone or ctx ends.
func (l *load) run(ctx context.Context, c *client, u urls) {
	r := &round{l, c, u}
	l.signUp = 2
	var wg sync.WaitGroup
	for _, w := range l.workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				err := w.step(ctx, r)
				if errors.Is(err, errGone) {
					return
				}
				if err != nil {
					l.fail(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs = append(l.errs, err)
}

// takeErrors returns what went wrong since the last call.
func (l *load) takeErrors() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := errors.Join(l.errs...)
	l.errs = nil
	return err
}

// next is a number that was not used before.
func (l *load) next() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.number++
	return l.number
}

// ask calls a procedure of the PDS. A nil error is an answer that is no server error.
func (r *round) ask(ctx context.Context, a *account, nsid string, in any) (answer, error) {
	got, err := r.c.post(context.WithoutCancel(ctx), r.urls.PDS, nsid, a.access, in)
	return got, gone(got, err)
}

func gone(got answer, err error) error {
	if err != nil || got.status >= 500 {
		return errGone
	}
	return nil
}

// write calls a procedure that makes a commit.
func (r *round) write(ctx context.Context, a *account, nsid string, in object, ops ...operation) (answer, error) {
	in["repo"] = a.did
	w := r.o.sending(a.did, nsid, ops...)
	got, err := r.ask(ctx, a, nsid, in)
	switch {
	case err != nil:
		return got, err // whether it was done is unknown
	case !got.ok():
		r.o.refused(w)
		return got, fmt.Errorf("%s: %s", nsid, got)
	}
	return got, r.o.answered(w, got.commit())
}

// subjects are what records link to, besides each other.
var subjects = func() (out []string) {
	for i := range 4 {
		out = append(out, fmt.Sprintf("at://did:plc:aaaaaaaaaaaaaaaaaaaaaaa%c/app.bsky.feed.post/3jzfcijpj2z2%c", 'a'+i, 'a'+i), fmt.Sprintf("did:plc:bbbbbbbbbbbbbbbbbbbbbbb%c", 'a'+i),
			fmt.Sprintf("https://example.com/page/%d", i))
	}
	return out
}()

// note is a record of a collection that no lexicon knows, with some links.
func (l *load) note(rng *rand.Rand) object {
	n := l.next()
	rec := object{"$type": noteNSID, "text": fmt.Sprintf("note %d", n), "n": n}
	pick := func() string { return subjects[rng.IntN(len(subjects))] }
	if rng.IntN(2) == 0 {
		rec["subject"] = object{"uri": pick()}
	}
	if rng.IntN(4) == 0 {
		rec["about"] = []any{pick(), object{"$type": "com.example.crash.thing", "it": pick()}}
	}
	return rec
}

const (
	noteNSID  = "com.example.crash.note"
	placeNSID = "com.example.crash.place"
	imageNSID = "com.example.crash.image"
	bulkNSID  = "com.example.crash.bulk"
)

// writer makes, changes and deletes records of one account.
type writer struct {
	a     *account
	id    string
	rng   *rand.Rand
	pause time.Duration

	mine   []string // paths that it made and that are there
	unsure []byte   // a blob whose upload had no answer
}

func (w *writer) step(ctx context.Context, r *round) error {
	if w.pause > 0 {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(w.pause):
		}
	}
	switch n := w.rng.IntN(100); {
	case n >= 88, w.unsure != nil:
		return w.image(ctx, r)
	case n < 30:
		return w.create(ctx, r)
	case n < 50:
		return w.put(ctx, r, fmt.Sprintf("%s-%d", w.id, w.rng.IntN(6)))
	case n < 60: // where others write too
		return w.put(ctx, r, fmt.Sprintf("shared-%d", w.rng.IntN(3)))
	case n < 75:
		return w.delete(ctx, r)
	default:
		return w.batch(ctx, r)
	}
}

func (w *writer) create(ctx context.Context, r *round) error {
	n := r.next()
	collection, rec := noteNSID, r.note(w.rng)
	now := time.Now().UTC().Format("2006-01-02T15:04:05.000Z")
	switch n % 4 { // likes are left out: a second one of the same post replaces the first
	case 0:
		collection = "app.bsky.feed.post"
		rec = object{"$type": collection, "text": fmt.Sprintf("post %d", n), "createdAt": now}
	case 1:
		collection = "app.bsky.feed.post"
		feature := object{"$type": "app.bsky.richtext.facet#link", "uri": subjects[2+3*w.rng.IntN(4)]}
		rec = object{"$type": collection, "text": fmt.Sprintf("post %d", n), "createdAt": now,
			"facets": []any{object{"index": object{"byteStart": 0, "byteEnd": 4}, "features": []any{feature}}}}
	}
	c := r.o.record(collection, rec)
	got, err := r.write(ctx, w.a, "com.atproto.repo.createRecord", object{"collection": collection, "record": rec}, operation{collection: collection, cid: c})
	if err != nil {
		return err
	}
	uri, _ := got.json()["uri"].(string)
	path, ok := strings.CutPrefix(uri, "at://"+w.a.did+"/")
	if !ok || got.json()["cid"] != c.String() {
		return fmt.Errorf("createRecord of %s: %s", c, got)
	}
	w.mine = append(w.mine, path)
	return nil
}

func (w *writer) put(ctx context.Context, r *round, rkey string) error {
	rec := r.note(w.rng)
	rec["$type"] = placeNSID
	c := r.o.record(placeNSID, rec)
	_, err := r.write(ctx, w.a, "com.atproto.repo.putRecord", object{"collection": placeNSID, "rkey": rkey, "record": rec}, operation{placeNSID, rkey, c})
	return err
}

func (w *writer) delete(ctx context.Context, r *round) error {
	if len(w.mine) < 10 {
		return w.create(ctx, r)
	}
	i := w.rng.IntN(len(w.mine))
	path := w.mine[i]
	w.mine = slices.Delete(w.mine, i, i+1)
	collection, rkey, _ := strings.Cut(path, "/")
	_, err := r.write(ctx, w.a, "com.atproto.repo.deleteRecord", object{"collection": collection, "rkey": rkey}, operation{collection: collection, rkey: rkey})
	return err
}

// batch is several changes in one commit.
func (w *writer) batch(ctx context.Context, r *round) error {
	var writes []object
	var ops []operation
	var made []string
	for range 2 + w.rng.IntN(6) {
		rec := r.note(w.rng)
		op := operation{noteNSID, fmt.Sprintf("%s-%d", w.id, r.next()), r.o.record(noteNSID, rec)}
		writes = append(writes, object{"$type": "com.atproto.repo.applyWrites#create", "collection": op.collection, "rkey": op.rkey, "value": rec})
		ops = append(ops, op)
		made = append(made, op.collection+"/"+op.rkey)
	}
	for range min(w.rng.IntN(3), len(w.mine)) {
		path := w.mine[0]
		w.mine = w.mine[1:]
		collection, rkey, _ := strings.Cut(path, "/")
		writes = append(writes, object{"$type": "com.atproto.repo.applyWrites#delete", "collection": collection, "rkey": rkey})
		ops = append(ops, operation{collection: collection, rkey: rkey})
	}
	if _, err := r.write(ctx, w.a, "com.atproto.repo.applyWrites", object{"writes": writes}, ops...); err != nil {
		return err
	}
	w.mine = append(w.mine, made...)
	return nil
}

// image uploads a blob and references it, or references one that was uploaded before. Now and then it leaves that for later.
func (w *writer) image(ctx context.Context, r *round) error {
	w.a.mu.Lock()
	var blob object
	if n := len(w.a.uploads); n > 0 {
		blob = w.a.uploads[n-1]
		w.a.uploads = w.a.uploads[:n-1]
	}
	w.a.mu.Unlock()
	again := false
	if blob == nil {
		// An upload without an answer is done again: it may have left a part of itself.
		again = w.unsure != nil
		if !again {
			w.unsure = append([]byte("\x89PNG\r\n\x1a\n"), bytes.Repeat(fmt.Append(nil, r.next(), "."), 1+w.rng.IntN(20_000)/8)...)
		}
		got, err := r.c.call(context.WithoutCancel(ctx), http.MethodPost, r.urls.PDS+"/xrpc/com.atproto.repo.uploadBlob", w.a.access, "image/png", w.unsure)
		if err := gone(got, err); err != nil {
			return err
		}
		blob, _ = got.json()["blob"].(object)
		if blob == nil || blobCID(blob) != cid.Sum(cid.Raw, w.unsure).String() {
			return fmt.Errorf("uploadBlob: %s", got)
		}
		w.unsure = nil
		if !again && w.rng.IntN(4) == 0 {
			w.a.mu.Lock()
			w.a.uploads = append(w.a.uploads, blob)
			w.a.mu.Unlock()
			return nil
		}
	}
	err := w.refer(ctx, r, blob)
	if err == nil && again {
		w.mine = w.mine[:len(w.mine)-1] // it stays until it was looked at
	}
	return err
}

func (w *writer) refer(ctx context.Context, r *round, blob object) error {
	rec := object{"$type": imageNSID, "n": r.next(), "image": blob}
	op := operation{imageNSID, fmt.Sprintf("%s-%d", w.id, r.next()), r.o.record(imageNSID, rec)}
	if _, err := r.write(ctx, w.a, "com.atproto.repo.createRecord", object{"collection": op.collection, "rkey": op.rkey, "record": rec}, op); err != nil {
		return err
	}
	w.mine = append(w.mine, op.collection+"/"+op.rkey)
	return nil
}

func blobCID(blob object) string {
	ref, _ := blob["ref"].(object)
	s, _ := ref["$link"].(string)
	return s
}

// signUps makes accounts, a few in each round, and writes a record with each.
type signUps struct{ rng *rand.Rand }

func (s *signUps) step(ctx context.Context, r *round) error {
	r.mu.Lock()
	left := r.signUp
	r.signUp--
	r.mu.Unlock()
	if left <= 0 {
		<-ctx.Done()
		return nil
	}
	a := &account{handle: fmt.Sprintf("user%d.test", r.next()), password: fmt.Sprintf("crash-%d", r.next())}
	a.handles = []string{a.handle}
	r.o.add(a)
	if err := signUp(ctx, r, a); err != nil {
		return err
	}
	rec := r.note(s.rng)
	_, err := r.write(ctx, a, "com.atproto.repo.createRecord", object{"collection": noteNSID, "record": rec}, operation{collection: noteNSID, cid: r.o.record(noteNSID, rec)})
	return err
}

func signUp(ctx context.Context, r *round, a *account) error {
	got, err := r.ask(ctx, a, "com.atproto.server.createAccount", object{"handle": a.handle, "password": a.password, "email": a.handle + "@example.com"})
	if err != nil {
		return err
	}
	if !got.ok() {
		return fmt.Errorf("createAccount of %s: %s", a.handle, got)
	}
	a.session(got)
	r.o.touch(a.did)
	return nil
}

// session takes the tokens out of an answer.
func (a *account) session(got answer) {
	v := got.json()
	did, _ := v["did"].(string)
	access, _ := v["accessJwt"].(string)
	refresh, _ := v["refreshJwt"].(string)
	a.sure, a.did, a.access = true, did, access
	a.mu.Lock()
	a.refresh = []string{refresh}
	a.mu.Unlock()
}

// sleeper deactivates its account and wakes it up again.
type sleeper struct {
	writer
	asleep bool
}

func (s *sleeper) step(ctx context.Context, r *round) error {
	r.o.touch(s.a.did)
	for i, nsid := range []string{"com.atproto.server.deactivateAccount", "com.atproto.server.activateAccount"} {
		got, err := r.ask(ctx, s.a, nsid, []any{object{}, nil}[i])
		if err != nil {
			return err
		}
		if !got.ok() {
			return fmt.Errorf("%s: %s", nsid, got)
		}
	}
	return s.writer.step(ctx, r)
}

// renamer changes the handle of its account.
type renamer struct {
	a     *account
	pause time.Duration
}

func (n *renamer) step(ctx context.Context, r *round) error {
	h := fmt.Sprintf("renamed%d.test", r.next())
	r.o.touch(n.a.did)
	n.a.mu.Lock()
	n.a.handles = append(n.a.handles, h)
	n.a.mu.Unlock()
	got, err := r.ask(ctx, n.a, "com.atproto.identity.updateHandle", object{"handle": h})
	if err != nil {
		return err
	}
	if !got.ok() {
		return fmt.Errorf("updateHandle to %s: %s", h, got)
	}
	n.a.mu.Lock()
	n.a.handles = []string{h}
	n.a.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-time.After(n.pause):
	}
	return nil
}

// mover exports its repository, writes a little, and imports what it exported.
type mover struct {
	writer
}

func (m *mover) step(ctx context.Context, r *round) error {
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(m.pause):
	}
	got, err := r.c.get(context.WithoutCancel(ctx), r.urls.PDS, "com.atproto.sync.getRepo", "did", m.a.did)
	if err := gone(got, err); err != nil {
		return err
	}
	tree, records, err := contents(got.body)
	if err != nil {
		return fmt.Errorf("getRepo: %w", err)
	}
	for range 2 {
		if err := m.put(ctx, r, fmt.Sprintf("mover-%d", m.rng.IntN(5))); err != nil {
			return err
		}
	}
	r.o.importing(m.a.did, tree, records)
	in, err := r.c.call(context.WithoutCancel(ctx), http.MethodPost, r.urls.PDS+"/xrpc/com.atproto.repo.importRepo", m.a.access, "application/vnd.ipld.car", got.body)
	if err := gone(in, err); err != nil {
		return err
	}
	if !in.ok() {
		return fmt.Errorf("importRepo: %s", in)
	}
	return nil
}

// contents reads an exported repository.
func contents(b []byte) (tree cid.CID, records map[string]cid.CID, err error) {
	rd, err := repo.Open(bytes.NewReader(b), repo.ReadOptions{Records: repo.RecordsStrict})
	if err != nil {
		return cid.CID{}, nil, err
	}
	records = map[string]cid.CID{}
	for rec, err := range rd.Records() {
		if err != nil {
			return cid.CID{}, nil, err
		}
		records[string(rec.Path)] = rec.CID
	}
	return rd.Commit().Data, records, nil
}

// refresher renews the session of its account.
type refresher struct {
	a     *account
	pause time.Duration
}

func (f *refresher) step(ctx context.Context, r *round) error {
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(f.pause):
	}
	f.a.mu.Lock()
	token := f.a.refresh[len(f.a.refresh)-1]
	f.a.mu.Unlock()
	got, err := r.c.post(context.WithoutCancel(ctx), r.urls.PDS, "com.atproto.server.refreshSession", token, nil)
	if err := gone(got, err); err != nil {
		return err
	}
	if !got.ok() {
		return fmt.Errorf("refreshSession: %s", got)
	}
	next, _ := got.json()["refreshJwt"].(string)
	f.a.mu.Lock()
	f.a.refresh = []string{next}
	f.a.mu.Unlock()
	return nil
}
