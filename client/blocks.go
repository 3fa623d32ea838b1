package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/syntax"
)

// ErrBlockNotFound says that a server doesn't have a block of a repository, or has it no longer.
var ErrBlockNotFound = errors.New("block not found")

// LatestCommit returns the CID and the revision of an account's commit, as the server says. Nothing is verified: [Client.Blocks]
// fetches the commit itself.
func (c *Client) LatestCommit(ctx context.Context, did syntax.DID) (cid.CID, syntax.TID, error) {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	out, err := comatproto.SyncGetLatestCommit.Call(ctx, c.x, &comatproto.SyncGetLatestCommit_Params{Did: string(did)})
	if err != nil {
		return cid.CID{}, "", fmt.Errorf("asking for the commit of %s: %w", did, because(ctx, err))
	}
	id, err := cid.Parse(out.Cid)
	if err != nil {
		return cid.CID{}, "", fmt.Errorf("asking for the commit of %s: %w: %w", did, ErrBadAnswer, err)
	}
	rev, err := syntax.ParseTID(out.Rev)
	if err != nil {
		return cid.CID{}, "", fmt.Errorf("asking for the commit of %s: %w: %w", did, ErrBadAnswer, err)
	}
	return id, rev, nil
}

// Blocks fetches blocks of an account's repository, nodes of its tree as well as records, by their CIDs, each of which is to be
// named once. All of them are in the URL of one request, so that some 64 are as many as servers take for sure. They come in the
// order of the server, each checked against its CID: one that isn't what it says is a [*HashError], one that nobody asked for, or
// that comes twice, is [ErrBadAnswer], and if the server hasn't got all of them the last error is [ErrBlockNotFound]. The data of a
// block is valid until the next one.
func (c *Client) Blocks(ctx context.Context, did syntax.DID, want []cid.CID) iter.Seq2[car.Block, error] {
	return func(yield func(car.Block, error) bool) {
		fail := func(err error) { yield(car.Block{}, fmt.Errorf("fetching blocks of %s: %w", did, err)) }
		p := &comatproto.SyncGetBlocks_Params{Did: string(did), Cids: make([]string, len(want))}
		left := make(map[cid.CID]bool, len(want))
		for i, id := range want {
			p.Cids[i], left[id] = id.String(), true
		}
		s, err := open(ctx, c, comatproto.SyncGetBlocks, p)
		if errors.Is(err, comatproto.ErrBlockNotFound) {
			err = fmt.Errorf("%w: %w", ErrBlockNotFound, err)
		}
		if err != nil {
			fail(err)
			return
		}
		defer s.Body.Close()
		// Blocks are hashed here and not by the reader, for the sake of the error: it names both CIDs.
		r, err := car.NewReader(s.Body, car.Options{MaxBlocks: len(want), Unverified: true})
		for err == nil {
			var b car.Block
			if b.CID, b.Data, err = r.Next(); err != nil {
				break
			}
			if got := cid.Sum(b.CID.Codec(), b.Data); got != b.CID {
				fail(&HashError{What: "a block of " + string(did), Want: b.CID, Got: got})
				return
			}
			if !left[b.CID] {
				fail(fmt.Errorf("%w: it has the block %s, which was not asked for", ErrBadAnswer, b.CID))
				return
			}
			delete(left, b.CID)
			if !yield(b, nil) {
				return
			}
		}
		if broken, ok := errors.AsType[*car.Error](err); ok && broken.Rule == car.RuleTruncated {
			err = fmt.Errorf("%w: %w", io.ErrUnexpectedEOF, err)
		} else if ok {
			err = fmt.Errorf("%w: %w", ErrBadAnswer, err)
		}
		switch {
		case err != io.EOF:
			fail(err)
		case len(left) > 0:
			fail(fmt.Errorf("%w: the server left out %d of %d", ErrBlockNotFound, len(left), len(want)))
		}
	}
}
