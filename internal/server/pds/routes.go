package pds

import (
	"cmp"
	"encoding/json"
	"net/http"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/xrpc"
)

// routes puts all methods together. Each handler authenticates by itself.
func (s *Service) routes() *xrpc.Server {
	x := xrpc.NewServer(xrpc.ServerOptions{Log: s.world.Log, Before: s.before, Fallback: http.HandlerFunc(s.proxyHTTP)})
	s.routesAccounts(x)
	s.routesAdmin(x)

	one := xrpc.RouteOptions{Auth: s.authWrite, MaxBody: maxRecordBody}
	xrpc.HandleProcedure(x, comatproto.RepoCreateRecord, s.createRecord, one)
	xrpc.HandleProcedure(x, comatproto.RepoPutRecord, s.putRecord, one)
	xrpc.HandleProcedure(x, comatproto.RepoDeleteRecord, s.deleteRecord, one)
	xrpc.HandleProcedure(x, comatproto.RepoApplyWrites, s.applyWrites, xrpc.RouteOptions{Auth: s.authWrite, MaxBody: maxBatchBody})
	xrpc.HandleQuery(x, comatproto.RepoGetRecord, s.getRecord)
	xrpc.HandleQuery(x, comatproto.RepoListRecords, s.listRecords)
	xrpc.HandleQuery(x, comatproto.RepoDescribeRepo, s.describeRepo)
	xrpc.HandleQuery(x, comatproto.RepoListMissingBlobs, s.listMissingBlobs, xrpc.RouteOptions{Auth: s.authAny})
	xrpc.HandleQuery(x, comatproto.LexiconResolveLexicon, s.resolveLexicon)
	xrpc.HandleRaw(x, "com.atproto.repo.importRepo", http.MethodPost, s.importRepoHTTP)
	xrpc.HandleRaw(x, "com.atproto.repo.uploadBlob", http.MethodPost, s.uploadBlobHTTP)

	xrpc.HandleRaw(x, "com.atproto.sync.getRepo", http.MethodGet, s.getRepo)
	xrpc.HandleRaw(x, "com.atproto.sync.getRecord", http.MethodGet, s.getRecordProof)
	xrpc.HandleRaw(x, "com.atproto.sync.getBlocks", http.MethodGet, s.getBlocks)
	xrpc.HandleRaw(x, "com.atproto.sync.getBlob", http.MethodGet, s.getBlob)
	xrpc.HandleQuery(x, comatproto.SyncGetLatestCommit, s.getLatestCommit)
	xrpc.HandleQuery(x, comatproto.SyncGetRepoStatus, s.getRepoStatus)
	xrpc.HandleQuery(x, comatproto.SyncListRepos, s.listRepos)
	xrpc.HandleQuery(x, comatproto.SyncListBlobs, s.listBlobs)
	xrpc.HandleRaw(x, stream.SubscribeRepos, "", func(w http.ResponseWriter, r *xrpc.Request) error {
		s.streams.ServeHTTP(w, r.Request)
		return nil
	})

	x.Handle("/.well-known/atproto-did", http.HandlerFunc(s.atprotoDID))
	x.Handle("/.well-known/did.json", http.HandlerFunc(s.didJSON))
	x.Handle("/xrpc/_health", http.HandlerFunc(s.health))
	x.Handle("/{$}", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("This is a personal data server of the AT Protocol (https://atproto.com).\nIts API is below /xrpc/.\n"))
	}))
	x.Handle("/robots.txt", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("User-agent: *\nAllow: /\n"))
	}))
	return x
}

// health says that the store takes and gives data.
func (s *Service) health(w http.ResponseWriter, r *http.Request) {
	if s.running.Err() != nil {
		xrpc.WriteError(w, r, xrpc.ErrNotEnoughResources.With("the server is stopping"))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	b, _ := json.Marshal(map[string]string{"version": cmp.Or(s.cfg.Version, "baro")})
	_, _ = w.Write(b)
}
