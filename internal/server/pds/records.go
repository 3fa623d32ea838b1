package pds

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// hosted finds the DID behind the repo parameter of a read.
func (s *Service) hosted(repo string) (syntax.DID, error) {
	id, err := syntax.ParseAtIdentifier(repo)
	if err != nil {
		return "", invalid("repo: %v", err)
	}
	if did, err := syntax.ParseDID(string(id)); err == nil {
		return did, nil
	}
	a, err := s.accountByHandle(syntax.Handle(id))
	if errors.Is(err, errNoAccount) {
		return "", badRequest("RepoNotFound", "there is no account with the handle "+repo+" here")
	}
	if err != nil {
		return "", err
	}
	return a.DID, nil
}

// getRecord is com.atproto.repo.getRecord.
func (s *Service) getRecord(ctx context.Context, r *xrpc.Request, p *comatproto.RepoGetRecord_Params) (*comatproto.RepoGetRecord_Output, error) {
	did, err := s.hosted(p.Repo)
	if err != nil {
		return nil, err
	}
	path := p.Collection + "/" + p.Rkey
	if _, _, err := syntax.ParsePath(path); err != nil {
		return nil, invalid("%v", err)
	}
	var want cid.CID
	if v := deref(p.Cid); v != "" {
		if want, err = cid.Parse(v); err != nil {
			return nil, invalid("cid: %v", err)
		}
	}
	snap, head, err := s.readable(r.Request, string(did))
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	rec, err := getStored(snap, head.Gen, path)
	if err != nil {
		return nil, err
	}
	if rec == nil || (want.Defined() && rec.CID != want) || s.taken.hidden(did, path) && !s.privileged(r.Request, did) {
		return nil, badRequest("RecordNotFound", "there is no record at://"+string(did)+"/"+path)
	}
	return &comatproto.RepoGetRecord_Output{
		Uri: "at://" + string(did) + "/" + path, Cid: optional(rec.CID.String()), Value: data.Raw(rec.Record),
	}, nil
}

// listRecords is com.atproto.repo.listRecords.
func (s *Service) listRecords(ctx context.Context, r *xrpc.Request, p *comatproto.RepoListRecords_Params) (*comatproto.RepoListRecords_Output, error) {
	did, err := s.hosted(p.Repo)
	if err != nil {
		return nil, err
	}
	collection, err := syntax.ParseNSID(p.Collection)
	if err != nil {
		return nil, invalid("collection: %v", err)
	}
	cursor := deref(p.Cursor)
	if cursor != "" {
		if _, err := syntax.ParseRecordKey(cursor); err != nil {
			return nil, invalid("cursor: not one that this method gave")
		}
	}
	snap, head, err := s.readable(r.Request, string(did))
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	page, next, err := listStored(snap, head.Gen, collection, pageLimit(p.Limit, 50, 100), cursor, p.Reverse != nil && *p.Reverse)
	if err != nil {
		return nil, err
	}
	if s.taken.any(did) && !s.privileged(r.Request, did) {
		page = slices.DeleteFunc(page, func(rec storedRecord) bool { return s.taken.hidden(did, rec.Path) })
	}
	out := &comatproto.RepoListRecords_Output{Records: make([]comatproto.RepoListRecords_Record, 0, len(page)), Cursor: optional(next)}
	for i := range page {
		rec := &page[i]
		out.Records = append(out.Records, comatproto.RepoListRecords_Record{
			Uri: "at://" + string(did) + "/" + rec.Path, Cid: rec.CID.String(), Value: data.Raw(rec.Record),
		})
	}
	return out, nil
}

// describeRepo is com.atproto.repo.describeRepo.
func (s *Service) describeRepo(ctx context.Context, r *xrpc.Request, p *comatproto.RepoDescribeRepo_Params) (*comatproto.RepoDescribeRepo_Output, error) {
	did, err := s.hosted(p.Repo)
	if err != nil {
		return nil, err
	}
	snap, head, err := s.readable(r.Request, string(did))
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	collections, err := collectionsOf(snap, head.Gen)
	if err != nil {
		return nil, err
	}
	a, err := s.account(did)
	if err != nil {
		return nil, err
	}
	doc, handle, correct, err := s.describeIdentity(ctx, a)
	if err != nil {
		return nil, err
	}
	return &comatproto.RepoDescribeRepo_Output{
		Did: string(did), Handle: string(handle), DidDoc: doc, HandleIsCorrect: correct, Collections: collections,
	}, nil
}

// listMissingBlobs is com.atproto.repo.listMissingBlobs.
func (s *Service) listMissingBlobs(ctx context.Context, r *xrpc.Request, p *comatproto.RepoListMissingBlobs_Params) (*comatproto.RepoListMissingBlobs_Output, error) {
	info := r.Auth.(authInfo)
	after, err := cidCursor(p.Cursor)
	if err != nil {
		return nil, err
	}
	snap := s.store.Snapshot()
	defer snap.Close()
	head, err := loadHead(snap, info.DID)
	if err != nil {
		return nil, err
	}
	if head == nil {
		return nil, answer(errRepoNotFound)
	}
	page, more, err := s.missingPage(snap, head, after, pageLimit(p.Limit, 500, 1000))
	if err != nil {
		return nil, err
	}
	out := &comatproto.RepoListMissingBlobs_Output{Blobs: make([]comatproto.RepoListMissingBlobs_RecordBlob, 0, len(page))}
	for _, b := range page {
		out.Blobs = append(out.Blobs, comatproto.RepoListMissingBlobs_RecordBlob{
			Cid: b.CID.String(), RecordUri: "at://" + string(info.DID) + "/" + b.Path,
		})
	}
	if more {
		out.Cursor = &out.Blobs[len(out.Blobs)-1].Cid
	}
	return out, nil
}

// importRepoHTTP is com.atproto.repo.importRepo.
func (s *Service) importRepoHTTP(w http.ResponseWriter, r *xrpc.Request) error {
	info, err := s.requireAuth(r.Request, scopeAccess)
	if err != nil {
		return err
	}
	if r.ContentLength > s.cfg.MaxImportBytes {
		return &xrpc.Error{Status: http.StatusRequestEntityTooLarge, Name: "PayloadTooLarge", Message: "the repository is too large for this server"}
	}
	body := http.MaxBytesReader(w, r.Body, s.cfg.MaxImportBytes)
	if err := s.importRepo(r.Context(), info.DID, body); err != nil {
		return answer(err)
	}
	s.crawl.nudge()
	w.WriteHeader(http.StatusOK)
	return nil
}

// uploadBlobHTTP is com.atproto.repo.uploadBlob.
func (s *Service) uploadBlobHTTP(w http.ResponseWriter, r *xrpc.Request) error {
	info, err := s.requireAuth(r.Request)
	if err != nil {
		return err
	}
	if r.ContentLength > s.cfg.MaxBlobBytes {
		return &xrpc.Error{Status: http.StatusRequestEntityTooLarge, Name: "BlobTooLarge", Message: "the blob is larger than this server takes"}
	}
	if err := s.limitAccount(r.Request, w.Header(), "uploads", info.DID, 1); err != nil {
		return err
	}
	b, err := s.upload(r.Context(), info.DID, r.Body, r.Header.Get("Content-Type"), r.ContentLength)
	if err != nil {
		return answer(err)
	}
	return xrpc.WriteJSON(w, http.StatusOK, &comatproto.RepoUploadBlob_Output{Blob: *b})
}
