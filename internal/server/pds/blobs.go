package pds

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/internal/crashpoint"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/syntax"
)

// Blobs, https://atproto.com/specs/blob. A blob is a row (state, size, MIME type) and a file. The row says what exists: a file without a
// row is garbage that the table g leads to, because that entry is durable before the file gets its name, and comes back in the batch
// that takes the row away. So no crash leaves a file that nobody knows.

// blobState is a blob as of the last submitted commit.
type blobState struct {
	row  blobRow
	refs int
}

// blobError says that a record cannot reference a blob. Name is the XRPC error name.
type blobError struct{ name, reason string }

func (e *blobError) Error() string { return e.reason }

// blob loads the state of a blob into the open repository.
func (s *Service) blob(r *openRepo, c cid.CID) (*blobState, error) {
	if st, ok := r.blobs[c]; ok {
		return st, nil
	}
	st := &blobState{}
	row, err := s.blobRow(s.store, r.head.account, c)
	if err != nil {
		return nil, err
	}
	st.row = row
	lo := blobRefPrefix(r.head.Gen, c)
	it := s.store.Iter(lo, kv.PrefixEnd(lo))
	for ok := it.First(); ok; ok = it.Next() {
		st.refs++
	}
	if err := errors.Join(it.Err(), it.Close()); err != nil {
		return nil, fmt.Errorf("counting references to blob %s: %w", c, err)
	}
	if r.blobs == nil {
		r.blobs = map[cid.CID]*blobState{}
	}
	r.blobs[c] = st
	return st, nil
}

func (s *Service) blobRow(from kv.Reader, account uint64, c cid.CID) (blobRow, error) {
	v, err := from.Get(blobKey(account, c))
	if errors.Is(err, kv.ErrNotFound) {
		return blobRow{}, nil
	}
	if err != nil {
		return blobRow{}, fmt.Errorf("reading blob %s: %w", c, err)
	}
	return decodeBlobRow(v)
}

// blobChanges is what a commit does to blobs.
type blobChanges struct {
	after   map[cid.CID]blobState
	garbage []cid.CID
}

// countBlobs checks the blobs that writes reference and works out what the net changes do to reference counts.
func (s *Service) countBlobs(r *openRepo, changes []recordChange, writes []write) (*blobChanges, error) {
	out := &blobChanges{}
	any := false
	for i := range changes {
		any = any || len(changes[i].oldBlobs)+len(changes[i].newBlobs) > 0
	}
	if !any {
		return out, nil
	}
	out.after = map[cid.CID]blobState{}
	state := func(c cid.CID) (blobState, error) {
		if st, ok := out.after[c]; ok {
			return st, nil
		}
		st, err := s.blob(r, c)
		if err != nil {
			return blobState{}, err
		}
		return *st, nil
	}
	known := map[cid.CID]bool{} // referenced at the same path before: may be missing here since an import
	for i := range changes {
		c := &changes[i]
		for _, b := range c.oldBlobs {
			known[b] = true
			st, err := state(b)
			if err != nil {
				return nil, err
			}
			st.refs--
			out.after[b] = st
		}
		for _, b := range c.newBlobs {
			st, err := state(b)
			if err != nil {
				return nil, err
			}
			st.refs++
			out.after[b] = st
		}
	}
	for i := range writes {
		for _, b := range writes[i].Blobs {
			st, ok := out.after[b.Ref]
			if !ok {
				continue // in a record that a later write of the same batch replaced
			}
			switch {
			case s.hiddenBlob(r.did, b.Ref) && !known[b.Ref]:
				return nil, &blobError{"BlobNotFound", "the blob " + b.Ref.String() + " has been taken down"}
			case !st.row.exists && known[b.Ref]:
			case !st.row.exists:
				return nil, &blobError{"BlobNotFound", "there is no blob " + b.Ref.String() + ": upload it first"}
			case b.MimeType != st.row.MIME:
				return nil, &blobError{"InvalidMimeType", fmt.Sprintf("blob %s is of type %s, not %s", b.Ref, st.row.MIME, b.MimeType)}
			case b.Size != st.row.Size:
				return nil, &blobError{"InvalidSize", fmt.Sprintf("blob %s has %d bytes, not %d", b.Ref, st.row.Size, b.Size)}
			}
		}
	}
	for c, st := range out.after {
		if !st.row.exists {
			continue
		}
		if st.refs > 0 {
			st.row.State = blobPermanent
		} else {
			out.garbage = append(out.garbage, c)
			st.row.exists = false
		}
		out.after[c] = st
	}
	return out, nil
}

// write puts the blob rows into a batch.
func (x *blobChanges) write(b kv.Batch, h *headRow) {
	for c, st := range x.after {
		if st.row.exists && st.row.State == blobPermanent {
			b.Set(blobKey(h.account, c), st.row.encode())
			b.Delete(tempKey(st.row.Since, h.account, c))
		}
	}
	for _, c := range x.garbage {
		b.Delete(blobKey(h.account, c))
		b.Delete(tempKey(x.after[c].row.Since, h.account, c))
		b.Set(garbageKey(h.account, c), nil)
	}
}

func (x *blobChanges) apply(r *openRepo) {
	if len(x.garbage) > 0 {
		r.sized = false
	}
	for c, st := range x.after {
		if r.blobs == nil {
			r.blobs = map[cid.CID]*blobState{}
		}
		r.blobs[c] = &st
	}
}

// uploads keeps the sweeper away from files whose row is being written.
type uploads struct {
	mu     sync.Mutex
	active map[blobName]int
}

type blobName struct {
	account uint64
	cid     cid.CID
}

func (u *uploads) begin(n blobName) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.active == nil {
		u.active = map[blobName]int{}
	}
	u.active[n]++
}

func (u *uploads) end(n blobName) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.active[n]--; u.active[n] <= 0 {
		delete(u.active, n)
	}
}

func (u *uploads) busy(n blobName) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.active[n] > 0
}

// upload stores a blob of did as temporary, or confirms one that is there, and gives what a record has to say about it.
func (s *Service) upload(ctx context.Context, did syntax.DID, body io.Reader, declared string, length int64) (*data.Blob, error) {
	temp, err := s.files.Put(ctx, body, s.cfg.MaxBlobBytes)
	if err != nil {
		return nil, err
	}
	defer temp.Discard()
	if length >= 0 && length != temp.Size {
		return nil, &blobError{"InvalidRequest", fmt.Sprintf("the body has %d bytes, Content-Length said %d", temp.Size, length)}
	}
	if temp.Size == 0 {
		return nil, &blobError{"InvalidRequest", "the blob is empty"} // a reference to it would not be valid
	}
	if s.hiddenBlob(did, temp.CID) {
		return nil, &blobError{"InvalidRequest", "this blob has been taken down"}
	}
	kind := sniff(temp.Head, declared)

	r, err := s.acquire(did)
	if err != nil {
		return nil, err
	}
	name := blobName{r.head.account, temp.CID}
	s.uploads.begin(name)
	defer s.uploads.end(name)
	st, err := s.blob(r, temp.CID)
	if err != nil {
		s.release(r)
		return nil, err
	}
	if st.row.exists {
		// Uploaded before. A temporary one starts its time again and may change its type; one in use stays as it is.
		row := st.row
		if row.State == blobTemporary {
			old := row.Since
			row.Since, row.MIME = s.world.Clock.Now().UnixMicro(), kind
			f := s.submit(r, func(b kv.Batch) {
				b.Delete(tempKey(old, name.account, name.cid))
				b.Set(tempKey(row.Since, name.account, name.cid), nil)
				b.Set(blobKey(name.account, name.cid), row.encode())
			}, nil, nil)
			st.row = row
			s.release(r)
			if _, err := s.wait(r, f); err != nil {
				return nil, err
			}
		} else {
			err := r.drain() // the batch that made it permanent may be on its way
			s.release(r)
			if err != nil {
				return nil, err
			}
		}
		return &data.Blob{Ref: temp.CID, MimeType: row.MIME, Size: row.Size}, nil
	}
	if err := s.fits(r, r.head.Bytes, temp.Size); err != nil {
		s.release(r)
		return nil, err
	}
	f := s.submit(r, func(b kv.Batch) { b.Set(garbageKey(name.account, name.cid), nil) }, nil, nil)
	s.release(r)
	if _, err := s.wait(r, f); err != nil {
		return nil, err
	}
	crashpoint.Hit("pds/blob/intent")
	if err := s.files.Commit(temp, string(did)); err != nil {
		return nil, fmt.Errorf("keeping a blob: %w", err)
	}
	crashpoint.Hit("pds/blob/renamed")

	if r, err = s.acquire(did); err != nil {
		return nil, err
	}
	if st, err = s.blob(r, temp.CID); err != nil {
		s.release(r)
		return nil, err
	}
	row := st.row
	if !row.exists {
		if err := s.fits(r, r.head.Bytes, temp.Size); err != nil { // others may have come at the same time; the file goes as garbage
			s.release(r)
			return nil, err
		}
		r.stored += temp.Size
		row = blobRow{State: blobTemporary, Since: s.world.Clock.Now().UnixMicro(), Size: temp.Size, MIME: kind, exists: true}
		if st.refs > 0 { // was missing since an import
			row.State = blobPermanent
			if m := s.referencedMIME(r, temp.CID); m != "" {
				row.MIME = m
			}
		}
	}
	f = s.submit(r, func(b kv.Batch) {
		b.Delete(garbageKey(name.account, name.cid))
		b.Set(blobKey(name.account, name.cid), row.encode())
		if row.State == blobTemporary {
			b.Set(tempKey(row.Since, name.account, name.cid), nil)
		}
	}, nil, nil)
	st.row = row
	s.release(r)
	if _, err := s.wait(r, f); err != nil {
		return nil, err
	}
	crashpoint.Hit("pds/blob/row")
	return &data.Blob{Ref: temp.CID, MimeType: row.MIME, Size: row.Size}, nil
}

// referencedMIME is the type under which an imported record references a blob: the record is signed and cannot change, the row can.
func (s *Service) referencedMIME(r *openRepo, c cid.CID) string {
	lo := blobRefPrefix(r.head.Gen, c)
	it := s.store.Iter(lo, kv.PrefixEnd(lo))
	defer it.Close()
	if !it.First() {
		return ""
	}
	_, path, err := splitBlobRefKey(it.Key())
	if err != nil {
		return ""
	}
	record, err := s.recordOf(r, path)
	if err != nil {
		return ""
	}
	blobs, err := blobsIn(record)
	if err != nil {
		return ""
	}
	for _, b := range blobs {
		if b.Ref == c {
			return b.MimeType
		}
	}
	return ""
}

// collectTemporary removes the blobs that stayed unreferenced for too long, and the files of blobs that are gone.
func (s *Service) collectTemporary(ctx context.Context) error {
	deadline := s.world.Clock.Now().Add(-s.cfg.TempBlobAge).UnixMicro()
	type old struct {
		blobName
		since int64
	}
	for ctx.Err() == nil {
		var batch []old
		it := s.store.Iter([]byte{tableTemp}, tempKey(deadline, 0, cid.CID{}))
		for ok := it.First(); ok && len(batch) < 256; ok = it.Next() {
			k := it.Key()
			if len(k) != 17+cid.Size {
				return fmt.Errorf("temporary blob key %x: %w", k, errCorrupt)
			}
			batch = append(batch, old{blobName{beUint64(k[9:]), cid.CID(k[17:])}, int64(beUint64(k[1:]))})
		}
		if err := errors.Join(it.Err(), it.Close()); err != nil {
			return err
		}
		for _, o := range batch {
			if err := s.expireTemporary(o.blobName, o.since); err != nil {
				return err
			}
		}
		if len(batch) < 256 {
			break
		}
	}
	if _, err := s.files.Sweep(s.world.Clock.Now().Add(-s.cfg.TempBlobAge)); err != nil {
		return err
	}
	return s.sweepGarbage(ctx)
}

func (s *Service) expireTemporary(n blobName, since int64) error {
	did, err := s.didOf(n.account)
	if err != nil {
		return err
	}
	r, err := s.acquire(did)
	if err != nil {
		return err
	}
	st, err := s.blob(r, n.cid)
	if err != nil {
		s.release(r)
		return err
	}
	gone := st.row.exists && st.row.State == blobTemporary && st.row.Since == since
	f := s.submit(r, func(b kv.Batch) {
		b.Delete(tempKey(since, n.account, n.cid))
		if gone {
			b.Delete(blobKey(n.account, n.cid))
			b.Set(garbageKey(n.account, n.cid), nil)
		}
	}, nil, nil)
	if gone {
		st.row, r.sized = blobRow{}, false
	}
	s.release(r)
	_, err = s.wait(r, f)
	return err
}

// didOf reads whose account an id is.
func (s *Service) didOf(account uint64) (syntax.DID, error) {
	v, err := s.store.Get(idKey(tableHead, account))
	if err != nil {
		return "", fmt.Errorf("reading account %d: %w", account, err)
	}
	h, err := decodeHead(account, v)
	if err != nil {
		return "", err
	}
	return h.DID, nil
}

// sweepGarbage deletes the files that table g names.
func (s *Service) sweepGarbage(ctx context.Context) error {
	var names []blobName
	it := s.store.Iter([]byte{tableGarbage}, []byte{tableGarbage + 1})
	for ok := it.First(); ok && len(names) < 4096; ok = it.Next() {
		k := it.Key()
		if len(k) != 9+cid.Size {
			return fmt.Errorf("garbage key %x: %w", k, errCorrupt)
		}
		names = append(names, blobName{beUint64(k[1:]), cid.CID(k[9:])})
	}
	if err := errors.Join(it.Err(), it.Close()); err != nil {
		return err
	}
	for _, n := range names {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := s.sweepOne(n); err != nil {
			return err
		}
	}
	return nil
}

// sweepOne deletes one file unless it has a row or is being uploaded. The repository's lock keeps new rows away meanwhile.
func (s *Service) sweepOne(n blobName) error {
	did, err := s.didOf(n.account)
	if err != nil {
		return err
	}
	r, err := s.acquire(did)
	if err != nil {
		return err
	}
	defer s.release(r)
	return s.sweepLocked(r, n.cid)
}

func (s *Service) sweepLocked(r *openRepo, c cid.CID) error {
	n := blobName{r.head.account, c}
	if s.uploads.busy(n) {
		return nil
	}
	st, err := s.blob(r, n.cid)
	if err != nil {
		return err
	}
	if !st.row.exists {
		// The batch that took the row away may still be on its way to the disk; the file must not go before it.
		if err := r.drain(); err != nil {
			return err
		}
		crashpoint.Hit("pds/blob/before-delete")
		if err := s.files.Delete(string(r.did), n.cid); err != nil {
			return fmt.Errorf("deleting blob %s: %w", n.cid, err)
		}
		crashpoint.Hit("pds/blob/deleted")
	}
	f := s.submit(r, func(b kv.Batch) { b.Delete(garbageKey(n.account, n.cid)) }, nil, nil)
	_, err = s.wait(r, f)
	return err
}

// afterCommit deletes the files of blobs whose last reference went with a durable commit. When it fails the sweeper tries again.
func (s *Service) afterCommit(c *submitted) {
	for _, g := range c.garbage {
		if err := s.sweepOne(blobName{c.account, g}); err != nil {
			s.world.Log.Warn("blob file not deleted yet", "did", c.did, "cid", g.String(), "err", err)
		}
	}
	s.crawl.nudge()
}

// runCollector collects until ctx is done.
func (s *Service) runCollector(ctx context.Context) {
	for {
		if err := s.collectTemporary(ctx); err != nil && ctx.Err() == nil {
			s.world.Log.Error("collecting temporary blobs", "err", err)
		}
		t := s.world.Clock.NewTimer(10 * time.Minute)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C():
		}
	}
}

// sniffable are the types whose bytes have an unmistakable beginning: a body declared as one of them that begins otherwise is not.
var sniffable = map[string]bool{
	"image/png": true, "image/jpeg": true, "image/gif": true, "image/webp": true, "image/bmp": true, "image/avif": true, "image/heic": true,
	"application/pdf": true, "application/zip": true, "application/gzip": true, "application/x-gzip": true, "application/wasm": true,
	"video/webm": true, "font/woff": true, "font/woff2": true,
}

// sniff settles the MIME type of a body from its first bytes and from what the client declared. What the bytes say unmistakably wins.
func sniff(head []byte, declared string) string {
	kind, _, err := mime.ParseMediaType(declared)
	if err != nil || strings.Contains(kind, "*") || !strings.Contains(kind, "/") || len(kind) > 128 {
		kind = ""
	}
	if len(head) == 0 {
		if kind == "" {
			return "application/octet-stream"
		}
		return kind
	}
	found := sniffContainer(head)
	if found == "" {
		found, _, _ = mime.ParseMediaType(http.DetectContentType(head))
	}
	switch found {
	case "application/octet-stream", "text/plain", "text/xml", "":
		// No magic number: anything may begin like this, except what does have one.
		if kind == "" || sniffable[kind] {
			if found == "" {
				return "application/octet-stream"
			}
			return found
		}
		return kind
	case "application/zip", "application/x-gzip", "application/ogg", "video/mp4":
		// Containers of more specific types.
		if kind != "" && !sniffable[kind] && kind != "text/html" {
			return kind
		}
	}
	return found
}

// sniffContainer knows the ISO media files that net/http does not tell apart.
func sniffContainer(head []byte) string {
	if len(head) < 12 || !bytes.Equal(head[4:8], []byte("ftyp")) {
		return ""
	}
	switch brand := string(head[8:12]); {
	case brand == "avif" || brand == "avis":
		return "image/avif"
	case brand == "heic" || brand == "heix" || brand == "mif1":
		return "image/heic"
	case brand == "qt  ":
		return "video/quicktime"
	case brand == "M4A ":
		return "audio/mp4"
	}
	return "video/mp4"
}
