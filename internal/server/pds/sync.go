package pds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/blob"
	"github.com/barograph/baro/internal/eventlog"
	"github.com/barograph/baro/internal/httpd"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

const carType = "application/vnd.ipld.car"

// readable opens a snapshot of a repository that may be served to the caller: an inactive one only to its owner and to the operator. The
// caller closes the snapshot.
func (s *Service) readable(r *http.Request, did string) (kv.Snapshot, *headRow, error) {
	id, err := syntax.ParseDID(did)
	if err != nil {
		return nil, nil, invalid("did: %v", err)
	}
	snap := s.store.Snapshot()
	head, err := loadHead(snap, id)
	if err == nil && (head == nil || head.Status == hostingDeleted) {
		err = badRequest("RepoNotFound", "there is no repository of "+did+" here")
	}
	if err == nil && head.Status != hostingActive && !s.privileged(r, id) {
		err = repoError(head.Status)
	}
	if err != nil {
		snap.Close()
		return nil, nil, err
	}
	return snap, head, nil
}

// privileged says whether a request comes from the owner of a repository or from the operator.
func (s *Service) privileged(r *http.Request, did syntax.DID) bool {
	if r.Header.Get("Authorization") == "" {
		return false
	}
	if _, _, basic := r.BasicAuth(); basic {
		return s.requireAdmin(r) == nil
	}
	info, err := s.requireAuth(r, scopeAccess, scopeAppPass, scopeAppPassPrivileged, scopeTakendown)
	return err == nil && info.DID == did
}

func param(r *xrpc.Request, name string) string { return r.URL.Query().Get(name) }

// sendTimeout is how long a client may take to accept one chunk of an answer.
const sendTimeout = 30 * time.Second

// sender writes a long answer in chunks, each with its own deadline, so that a client that stops reading doesn't hold on to anything.
type sender struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func newSender(w http.ResponseWriter) *sender { return &sender{w, http.NewResponseController(w)} }

func (x *sender) Write(b []byte) (int, error) {
	// Deadlines are a matter of the real network and so of the real clock. A writer without deadlines is a test's.
	_ = x.rc.SetWriteDeadline(world.System.Now().Add(sendTimeout))
	return x.w.Write(b)
}

func sendCAR(w http.ResponseWriter, body []byte) error {
	w.Header().Set("Content-Type", carType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // a client that is gone is nobody's error
	return nil
}

// exportWait is how long an export waits for its turn before it is refused.
const exportWait = 2 * time.Second

// exportTurn waits for one of the turns to send a repository: an export holds a snapshot of the store, and with a slow client for long.
// One address gets half of the turns at most, so that it can't keep them all from others.
func (s *Service) exportTurn(r *http.Request) (done func(), err error) {
	ctx, leave := r.Context(), func() {}
	if addr := s.clientAddr(r); !s.unlimited(addr) {
		if leave, err = s.exporters.enter(httpd.ClientKey(addr), max(1, s.cfg.MaxExports/2)); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			leave()
		}
	}()
	select {
	case s.exports <- struct{}{}:
	default:
		// Like the deadlines of the answer, this is about real clients.
		t := world.System.NewTimer(exportWait)
		defer t.Stop()
		select {
		case s.exports <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-t.C():
			e := refuse(http.StatusServiceUnavailable, "NotEnoughResources", "too many repositories are being sent: try again later")
			e.Header = http.Header{"Retry-After": {"10"}}
			return nil, e
		}
	}
	return func() { <-s.exports; leave() }, nil
}

// exporters counts the turns that each address has or waits for.
type exporters struct {
	mu sync.Mutex
	of map[string]int
}

func (e *exporters) enter(who string, most int) (leave func(), err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.of[who] >= most {
		err := refuse(http.StatusTooManyRequests, "RateLimitExceeded", "you get %d repositories at once already: wait for one of them", most)
		err.Header = http.Header{"Retry-After": {"10"}}
		return nil, err
	}
	if e.of == nil {
		e.of = map[string]int{}
	}
	e.of[who]++
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.of[who]--; e.of[who] <= 0 {
			delete(e.of, who)
		}
	}, nil
}

// getRepo is com.atproto.sync.getRepo.
func (s *Service) getRepo(w http.ResponseWriter, r *xrpc.Request) error {
	var since syntax.TID
	if v := param(r, "since"); v != "" {
		var err error
		if since, err = syntax.ParseTID(v); err != nil {
			return invalid("since: %v", err)
		}
	}
	if r.Method != http.MethodHead {
		done, err := s.exportTurn(r.Request)
		if err != nil {
			return err
		}
		defer done()
	}
	snap, head, err := s.readable(r.Request, param(r, "did"))
	if err != nil {
		return err
	}
	defer snap.Close()
	w.Header().Set("Content-Type", carType)
	if r.Method == http.MethodHead {
		return nil // and not the whole export for nothing
	}
	out := newSender(w)
	started := false
	err = export(snap, head, since, func(b []byte) error {
		if err := r.Context().Err(); err != nil {
			return err
		}
		started = true
		_, err := out.Write(b)
		return err
	})
	if err != nil && started {
		if !errors.Is(err, errCorrupt) {
			s.world.Log.Debug("export not finished", "did", head.DID, "err", err)
		} else {
			s.world.Log.Error("export broken off", "did", head.DID, "err", err)
		}
		panic(http.ErrAbortHandler) // half a repository must not look whole
	}
	return err
}

// getRecordProof is com.atproto.sync.getRecord.
func (s *Service) getRecordProof(w http.ResponseWriter, r *xrpc.Request) error {
	path := param(r, "collection") + "/" + param(r, "rkey")
	if _, _, err := syntax.ParsePath(path); err != nil {
		return invalid("%v", err)
	}
	snap, head, err := s.readable(r.Request, param(r, "did"))
	if err != nil {
		return err
	}
	defer snap.Close()
	if s.taken.hidden(head.DID, path) && !s.privileged(r.Request, head.DID) {
		return badRequest("RecordNotFound", "there is no record at://"+string(head.DID)+"/"+path)
	}
	body, err := proofCAR(snap, head, path)
	if err != nil {
		return err
	}
	return sendCAR(w, body)
}

// Limits of getBlocks.
const (
	maxGetBlocks      = 1000
	maxGetBlocksBytes = 8 << 20 // held in memory, for whoever asks
)

// getBlocks is com.atproto.sync.getBlocks.
func (s *Service) getBlocks(w http.ResponseWriter, r *xrpc.Request) error {
	names := r.URL.Query()["cids"]
	if len(names) == 0 || len(names) > maxGetBlocks {
		return invalid("want 1 to %d cids", maxGetBlocks)
	}
	cids := make([]cid.CID, len(names))
	for i, n := range names {
		var err error
		if cids[i], err = cid.Parse(n); err != nil {
			return invalid("cids: %v", err)
		}
	}
	snap, head, err := s.readable(r.Request, param(r, "did"))
	if err != nil {
		return err
	}
	defer snap.Close()
	blocks, rest := map[cid.CID][]byte{head.Commit: head.Block}, map[cid.CID]bool{}
	size := 0
	for _, c := range cids {
		if blocks[c] == nil {
			if blocks[c], err = recordByCID(snap, head.Gen, c); err != nil {
				return err
			}
			if blocks[c] == nil {
				rest[c] = true
			}
		}
		if size += len(blocks[c]); size > maxGetBlocksBytes {
			return invalid("these blocks take more than %d bytes: ask for fewer at once", maxGetBlocksBytes)
		}
	}
	nodes, err := s.nodes.find(r.Context(), snap, head, rest)
	if err != nil {
		return err
	}
	body := car.AppendHeader(nil)
	for _, c := range cids {
		block := blocks[c]
		if block == nil {
			block = nodes[c]
		}
		if block == nil {
			return badRequest("BlockNotFound", "there is no block "+c.String()+" in this repository")
		}
		body = car.AppendBlock(body, c, block)
		if len(body) > maxGetBlocksBytes {
			return invalid("these blocks take more than %d bytes: ask for fewer at once", maxGetBlocksBytes)
		}
	}
	return sendCAR(w, body)
}

// getLatestCommit is com.atproto.sync.getLatestCommit.
func (s *Service) getLatestCommit(ctx context.Context, r *xrpc.Request, p *comatproto.SyncGetLatestCommit_Params) (*comatproto.SyncGetLatestCommit_Output, error) {
	snap, head, err := s.readable(r.Request, p.Did)
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	return &comatproto.SyncGetLatestCommit_Output{Cid: head.Commit.String(), Rev: string(head.Rev)}, nil
}

// getRepoStatus is com.atproto.sync.getRepoStatus.
func (s *Service) getRepoStatus(ctx context.Context, r *xrpc.Request, p *comatproto.SyncGetRepoStatus_Params) (*comatproto.SyncGetRepoStatus_Output, error) {
	head, err := loadHead(s.store, syntax.DID(p.Did))
	if err != nil {
		return nil, err
	}
	if head == nil {
		return nil, badRequest("RepoNotFound", "there is no repository of "+p.Did+" here")
	}
	out := &comatproto.SyncGetRepoStatus_Output{Did: p.Did, Active: head.Status == hostingActive, Status: optional(string(head.Status))}
	if out.Active {
		out.Rev = optional(string(head.Rev))
	}
	return out, nil
}

// listRepos is com.atproto.sync.listRepos, in the order in which the accounts came.
func (s *Service) listRepos(ctx context.Context, r *xrpc.Request, p *comatproto.SyncListRepos_Params) (*comatproto.SyncListRepos_Output, error) {
	var after uint64
	if c := deref(p.Cursor); c != "" {
		var err error
		if after, err = strconv.ParseUint(c, 10, 64); err != nil {
			return nil, invalid("cursor: not one that this method gave")
		}
	}
	page, more, err := headsPage(s.store, after, pageLimit(p.Limit, 500, 1000))
	if err != nil {
		return nil, err
	}
	out := &comatproto.SyncListRepos_Output{Repos: make([]comatproto.SyncListRepos_Repo, 0, len(page))}
	for _, h := range page {
		active := h.Status == hostingActive
		out.Repos = append(out.Repos, comatproto.SyncListRepos_Repo{
			Did: string(h.DID), Head: h.Commit.String(), Rev: string(h.Rev), Active: &active, Status: optional(string(h.Status)),
		})
	}
	if more {
		out.Cursor = optional(strconv.FormatUint(page[len(page)-1].account, 10))
	}
	return out, nil
}

func pageLimit(v *int64, def, most int) int {
	if v == nil {
		return def
	}
	return int(min(max(*v, 1), int64(most)))
}

// listBlobs is com.atproto.sync.listBlobs.
func (s *Service) listBlobs(ctx context.Context, r *xrpc.Request, p *comatproto.SyncListBlobs_Params) (*comatproto.SyncListBlobs_Output, error) {
	var since syntax.TID
	var err error
	if v := deref(p.Since); v != "" {
		if since, err = syntax.ParseTID(v); err != nil {
			return nil, invalid("since: %v", err)
		}
	}
	after, err := cidCursor(p.Cursor)
	if err != nil {
		return nil, err
	}
	snap, head, err := s.readable(r.Request, p.Did)
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	page, more, err := s.blobsPage(snap, head, since, after, pageLimit(p.Limit, 500, 1000))
	if err != nil {
		return nil, err
	}
	out := &comatproto.SyncListBlobs_Output{Cids: make([]string, 0, len(page))}
	for _, c := range page {
		if !s.hiddenBlob(head.DID, c) {
			out.Cids = append(out.Cids, c.String())
		}
	}
	if more {
		out.Cursor = optional(page[len(page)-1].String())
	}
	return out, nil
}

func cidCursor(v *string) (cid.CID, error) {
	if deref(v) == "" {
		return cid.CID{}, nil
	}
	c, err := cid.Parse(*v)
	if err != nil {
		return c, invalid("cursor: not one that this method gave")
	}
	return c, nil
}

// getBlob is com.atproto.sync.getBlob.
func (s *Service) getBlob(w http.ResponseWriter, r *xrpc.Request) error {
	c, err := cid.Parse(param(r, "cid"))
	if err != nil {
		return invalid("cid: %v", err)
	}
	snap, head, err := s.readable(r.Request, param(r, "did"))
	if err != nil {
		return err
	}
	row, err := s.blobRow(snap, head.account, c)
	snap.Close()
	if err != nil {
		return err
	}
	missing := badRequest("BlobNotFound", "there is no blob "+c.String()+" of this account")
	if !row.exists || row.State != blobPermanent || s.hiddenBlob(head.DID, c) && !s.privileged(r.Request, head.DID) {
		return missing
	}
	file, err := s.files.Open(string(head.DID), c)
	if errors.Is(err, blob.ErrNotFound) {
		return missing // its last reference went just now
	}
	if err != nil {
		return fmt.Errorf("reading blob %s: %w", c, err)
	}
	defer file.Close()
	h := w.Header()
	// Whatever a blob is, a browser must neither run it nor take it for a page of this origin.
	h.Set("Content-Type", row.MIME)
	h.Set("Content-Length", strconv.FormatInt(row.Size, 10))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Disposition", `attachment; filename="`+c.String()+`"`)
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("Cache-Control", "private, max-age=300")
	h.Set("ETag", `"`+c.String()+`"`)
	if r.Method == http.MethodHead {
		return nil
	}
	buf := make([]byte, 64<<10)
	if _, err := io.CopyBuffer(newSender(w), struct{ io.Reader }{file}, buf); err != nil {
		if corrupt := (*blob.CorruptError)(nil); errors.As(err, &corrupt) {
			s.world.Log.Error("damaged blob", "did", head.DID, "err", err)
		}
		panic(http.ErrAbortHandler) // the client must not take a part for the whole
	}
	return nil
}

// logSource serves the event log as a stream.
type logSource struct{ log *eventlog.Log }

var _ stream.Source = logSource{}

func (l logSource) Head() int64 { return l.log.Head() }

func (l logSource) Floor() int64 { return l.log.Floor() }

func (l logSource) Read(ctx context.Context, from int64, limit int, dst []stream.Event) ([]stream.Event, error) {
	events, err := l.log.Read(ctx, from, limit)
	for i := range events {
		dst = append(dst, stream.Event{Seq: events[i].Seq, Frame: events[i].Frame})
	}
	return dst, err
}

// subscribers is the number of connections to subscribeRepos.
func (s *Service) subscribers() int { return s.streams.Subscribers() }
