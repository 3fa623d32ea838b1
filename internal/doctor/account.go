package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// docOf is the document of an account.
type docOf = *identity.Document

// account examines an account at its host, and what relays have of it.
func (x *exam) account(ctx context.Context, origin string, doc docOf) {
	did := string(doc.DID)
	head, err := comatproto.SyncGetLatestCommit.Call(ctx, x.client(origin), &comatproto.SyncGetLatestCommit_Params{Did: did})
	switch {
	case err == nil:
	case errors.Is(err, comatproto.ErrRepoNotFound):
		x.find(repoMissing, did, "%s: %v", origin, plain(err))
		return
	case errors.Is(err, comatproto.ErrRepoDeactivated), errors.Is(err, comatproto.ErrRepoTakendown), errors.Is(err, comatproto.ErrRepoSuspended):
		x.find(repoInactive, did, "%s: %v", origin, plain(err))
		return
	default:
		kind := repoError
		if xe, ok := errors.AsType[*xrpc.Error](err); ok && xe.Status == 400 { // some hosts know no better name for it
			if st, serr := comatproto.SyncGetRepoStatus.Call(ctx, x.client(origin), &comatproto.SyncGetRepoStatus_Params{Did: did}); serr == nil && !st.Active {
				kind = repoInactive
			} else if strings.Contains(strings.ToLower(xe.Message), "not find") || errors.Is(serr, comatproto.ErrRepoNotFound) {
				kind = repoMissing
			}
		}
		x.find(kind, did, "%s: %v", origin, plain(err))
		return
	}
	if rev, err := syntax.ParseTID(head.Rev); err == nil {
		if by := rev.Time().Sub(x.o.Now()); by > clockFail {
			x.find(repoFuture, did, "its newest revision %s is of %s, %s from now", rev, rev.Time().UTC().Format(time.DateTime), by.Round(time.Second))
		}
	}
	together(
		func() { x.commit(ctx, origin, doc, head) },
		func() {
			x.eachRelay(func(relay string) { x.atRelay(ctx, relay, origin, did, head.Rev) })
		},
	)
}

// commit fetches the newest commit of an account and verifies it.
func (x *exam) commit(ctx context.Context, origin string, doc docOf, head *comatproto.SyncGetLatestCommit_Output) {
	did := string(doc.DID)
	block, err := x.block(ctx, origin, did, head)
	if err != nil {
		x.find(repoError, did, "fetching its newest commit %.100s: %v", head.Cid, plain(err))
		return
	}
	c, err := repo.DecodeCommit(block)
	switch {
	case err != nil:
		x.find(repoInvalid, did, "%v", err)
	case c.DID != doc.DID:
		x.find(repoInvalid, did, "the newest commit is one of %.100s", c.DID)
	case string(c.Rev) != head.Rev:
		x.find(repoInvalid, did, "the newest commit has revision %s, and its host says %.40s", c.Rev, head.Rev)
	case doc.SigningKey == nil: // told already
	default:
		if err := c.Verify(doc.SigningKey); err != nil {
			x.find(repoBadSig, did, "commit %s: %v", head.Cid, err)
			return
		}
		x.find(repoFound, did, "revision %s of %s is signed with its key", c.Rev, c.Rev.Time().UTC().Format(time.DateTime))
	}
}

// block fetches the block of a commit: alone, or from the part of the repository that is newer than the commit, which is the commit.
func (x *exam) block(ctx context.Context, origin, did string, head *comatproto.SyncGetLatestCommit_Output) ([]byte, error) {
	want, err := cid.Parse(head.Cid)
	if err != nil {
		return nil, err
	}
	b, err := x.fetch(ctx, origin, comatproto.SyncGetBlocks.NSID, url.Values{"did": {did}, "cids": {head.Cid}})
	if xe, ok := errors.AsType[*xrpc.Error](err); ok && xe.Status >= 400 {
		b, err = x.fetch(ctx, origin, comatproto.SyncGetRepo.NSID, url.Values{"did": {did}, "since": {head.Rev}})
	}
	if err != nil {
		return nil, err
	}
	r, err := car.NewBytesReader(b, car.Options{})
	if err != nil {
		return nil, err
	}
	for block, err := range r.Blocks() {
		if err != nil {
			return nil, err
		}
		if block.CID == want {
			return block.Data, nil
		}
	}
	return nil, fmt.Errorf("the answer of %d bytes doesn't hold it", len(b))
}

// maxBlocks is what is read of an answer with blocks.
const maxBlocks = 1 << 20

func (x *exam) fetch(ctx context.Context, origin, nsid string, query url.Values) ([]byte, error) {
	out, err := x.client(origin).Do(ctx, "GET", nsid, query.Encode(), nil, car.MediaType)
	if err != nil {
		return nil, err
	}
	defer out.Body.Close()
	return io.ReadAll(io.LimitReader(out.Body, maxBlocks))
}

// sample is the DID of an active account of a host, if it has one.
func (x *exam) sample(ctx context.Context, origin string) string {
	page, err := comatproto.SyncListRepos.Call(ctx, x.client(origin), &comatproto.SyncListRepos_Params{Limit: new(int64(20))})
	if err != nil {
		return ""
	}
	for _, r := range page.Repos {
		if r.Active == nil || *r.Active {
			return string(r.Did)
		}
	}
	return ""
}

// empty says whether a host surely has no accounts.
func (x *exam) empty(ctx context.Context, origin string) bool {
	page, err := comatproto.SyncListRepos.Call(ctx, x.client(origin), &comatproto.SyncListRepos_Params{Limit: new(int64(1))})
	return err == nil && len(page.Repos) == 0 && (page.Cursor == nil || *page.Cursor == "")
}

// sampled examines one of the accounts of a host, because a host can be well and its accounts not.
func (x *exam) sampled(ctx context.Context, origin, did string) {
	id, err := syntax.ParseDID(did)
	if err != nil {
		x.find(repoInvalid, hostOf(origin), "it lists an account %.100q", did)
		return
	}
	doc, err := x.dir.ResolveDID(ctx, id)
	if err != nil || doc.PDS != origin {
		x.did(ctx, id, "")
		if err == nil {
			x.find(repoMissing, did, "%s lists it, and its document names %.200q as its host", hostOf(origin), doc.PDS)
		}
		return
	}
	together(func() { x.shape(doc) }, func() { x.names(ctx, doc, "") }, func() { x.account(ctx, origin, doc) })
}

// eachRelay asks all relays at once.
func (x *exam) eachRelay(ask func(relay string)) {
	var parts []func()
	for _, r := range x.o.Relays {
		parts = append(parts, func() { ask(r) })
	}
	together(parts...)
}

// seenByRelays examines what relays say of a host.
func (x *exam) seenByRelays(ctx context.Context, origin string) {
	host := hostOf(origin)
	x.eachRelay(func(relay string) {
		at := hostOf(relay)
		if at == host {
			return
		}
		st, err := comatproto.SyncGetHostStatus.Call(ctx, x.client(relay), &comatproto.SyncGetHostStatus_Params{Hostname: host})
		switch {
		case errors.Is(err, comatproto.ErrHostNotFound):
			x.findAt(relayNoHost, host, relay, "%s doesn't know %s", at, host)
			return
		case err != nil:
			x.findAt(relayDown, host, relay, "%s: %v", at, plain(err))
			return
		}
		status := "unknown"
		if st.Status != nil {
			status = *st.Status
		}
		accounts := ""
		if st.AccountCount != nil {
			accounts = fmt.Sprintf(", with %d accounts", *st.AccountCount)
		}
		kind := relayHostGood
		switch status {
		case comatproto.SyncDefs_Idle:
			kind = relayIdle
		case comatproto.SyncDefs_Offline:
			kind = relayOffline
		case comatproto.SyncDefs_Throttled:
			kind = relayThrottle
		case comatproto.SyncDefs_Banned:
			kind = relayBanned
		}
		x.findAt(kind, host, relay, "%s says that %s is %.40s%s", at, host, status, accounts)
		if st.Seq != nil && *st.Seq > 0 && kind != relayBanned {
			x.lag(ctx, origin, relay, *st.Seq)
		}
	})
}

const (
	lagSlop = 100 // events that a relay may be behind
	lagMost = 500 // that are counted
)

// lag compares the last event that a relay has of a host with the host's stream.
func (x *exam) lag(ctx context.Context, origin, relay string, seq int64) {
	host, at := hostOf(origin), hostOf(relay)
	c, err := x.listen(ctx, origin, stream.SubscribeRepos, seq)
	if err != nil {
		return // the examination of the stream tells of it
	}
	defer c.Close()
	newer, wait := 0, x.o.Quiet
	for newer < lagMost {
		f, err := x.next(ctx, c, wait)
		wait = x.o.Settle
		if said, ok := errors.AsType[*stream.Error](err); ok && said.Name == stream.ErrorFutureCursor {
			x.findAt(relayAhead, host, relay, "%s has read up to event %d, and the host's stream doesn't go so far", at, seq)
			return
		}
		if err != nil {
			break
		}
		if f.Seq > seq {
			newer++
		}
	}
	if newer > lagSlop {
		x.findAt(relayBehind, host, relay, "%s has read up to event %d, and the host has %d more at least", at, seq, newer)
		return
	}
	x.findAt(relayInStep, host, relay, "%s has read up to event %d", at, seq)
}

// atRelay compares what a relay has of an account with its newest revision.
func (x *exam) atRelay(ctx context.Context, relay, origin, did, head string) {
	at := hostOf(relay)
	st, err := comatproto.SyncGetRepoStatus.Call(ctx, x.client(relay), &comatproto.SyncGetRepoStatus_Params{Did: did})
	switch {
	case errors.Is(err, comatproto.ErrRepoNotFound):
		x.findAt(relayNoRepo, did, relay, "%s doesn't know %s", at, did)
		return
	case err != nil:
		x.findAt(relayDown, did, relay, "%s: %v", at, plain(err))
		return
	}
	status := ""
	if st.Status != nil {
		status = *st.Status
	}
	switch {
	case status == stream.StatusDesynchronized:
		x.findAt(relayDesync, did, relay, "%s says that it is %s", at, status)
		return
	case !st.Active:
		if status == "" {
			status = "inactive"
		}
		x.findAt(relayInactive, did, relay, "%s says that it is %.40s, and its host that it is active", at, status)
		return
	}
	rev := ""
	if st.Rev != nil {
		rev = *st.Rev
	} else if latest, err := comatproto.SyncGetLatestCommit.Call(ctx, x.client(relay), &comatproto.SyncGetLatestCommit_Params{Did: did}); err == nil {
		rev = latest.Rev // not all relays tell it with the status
	}
	if rev > head { // it may have been written to since its host was asked
		if latest, err := comatproto.SyncGetLatestCommit.Call(ctx, x.client(origin), &comatproto.SyncGetLatestCommit_Params{Did: did}); err == nil && latest.Rev >= rev {
			head = rev
		}
	}
	switch {
	case rev == "":
		x.findAt(relayRepo, did, relay, "%s holds it for active", at)
	case rev < head:
		x.findAt(relayRevOld, did, relay, "%s has revision %.40s, its host %.40s", at, rev, head)
	case rev > head:
		x.findAt(relayRevNew, did, relay, "%s has revision %.40s, its host %.40s", at, rev, head)
	default:
		x.findAt(relayRepo, did, relay, "%s has its newest revision %.40s", at, rev)
	}
}
