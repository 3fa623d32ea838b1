package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/syntax"
)

// MaxWrites is how many writes a commit may have at most servers.
const MaxWrites = 200

// Write is one of the writes of [Client.ApplyWrites]: that of [CreateOf], [UpdateOf] or [DeleteOf].
type Write struct {
	verb       string
	collection syntax.NSID
	rkey       syntax.RecordKey
	raw        data.Raw
	err        error
}

// CreateOf is the write of a new record, as [Create] takes it, under a key; empty: the server chooses.
func CreateOf[T any](rkey syntax.RecordKey, value *T) Write {
	raw, typ, err := encode(value)
	return Write{"create", typ, rkey, raw, err}
}

// UpdateOf is the write of a record in place of the one that is there.
func UpdateOf[T any](rkey syntax.RecordKey, value *T) Write {
	raw, typ, err := encode(value)
	return Write{"update", typ, rkey, raw, err}
}

// DeleteOf is the deletion of a record that is there.
func DeleteOf(collection syntax.NSID, rkey syntax.RecordKey) Write {
	return Write{"delete", collection, rkey, nil, nil}
}

// ApplyWrites makes any number of writes in one commit, all or none, and sends them once. It returns where each has gone, in
// their order; what was deleted has no CID. Of the options, Validate and SwapCommit count.
func (c *Client) ApplyWrites(ctx context.Context, writes []Write, o WriteOptions) ([]Ref, error) {
	fail := func(err error) ([]Ref, error) {
		return nil, fmt.Errorf("writing %d records: %w", len(writes), err)
	}
	if c.o.DID == "" {
		return nil, ErrNoAccount
	}
	in := &comatproto.RepoApplyWrites_Input{Repo: string(c.o.DID), Validate: o.Validate, SwapCommit: swap(o.SwapCommit)}
	for i, w := range writes {
		var v data.Typed
		switch {
		case w.err != nil:
			return fail(fmt.Errorf("%d: %w", i, w.err))
		case w.verb == "create":
			v = &comatproto.RepoApplyWrites_Create{Collection: string(w.collection), Rkey: orNil(w.rkey), Value: w.raw}
		case w.rkey == "":
			return fail(fmt.Errorf("%d: it names no record", i))
		case w.verb == "update":
			v = &comatproto.RepoApplyWrites_Update{Collection: string(w.collection), Rkey: string(w.rkey), Value: w.raw}
		case w.verb == "delete":
			v = &comatproto.RepoApplyWrites_Delete{Collection: string(w.collection), Rkey: string(w.rkey)}
		default:
			return fail(fmt.Errorf("%d: it is no write", i))
		}
		in.Writes = append(in.Writes, comatproto.RepoApplyWrites_Input_Writes_Elem{Value: v})
	}
	if len(writes) == 0 {
		return fail(errors.New("there is none"))
	}
	ctx, cancel := c.limit(ctx)
	defer cancel()
	out, err := comatproto.RepoApplyWrites.Call(ctx, c.x, in)
	if err != nil {
		return fail(because(ctx, err))
	}
	if len(out.Results) != 0 && len(out.Results) != len(writes) {
		return fail(fmt.Errorf("%w: it tells of %d", ErrBadAnswer, len(out.Results)))
	}
	refs := make([]Ref, len(writes))
	for i, w := range writes {
		uri := syntax.NewATURI(syntax.AtIdentifier(c.o.DID), w.collection, w.rkey)
		refs[i] = Ref{URI: uri}
		if w.raw != nil {
			refs[i].CID = cid.Sum(cid.DagCBOR, w.raw)
		}
		if len(out.Results) == 0 && w.rkey == "" {
			return fail(fmt.Errorf("%w: it doesn't tell where record %d is", ErrBadAnswer, i))
		}
		if len(out.Results) > 0 && w.raw != nil {
			var at, id string
			switch r := out.Results[i].Value.(type) {
			case *comatproto.RepoApplyWrites_CreateResult:
				at, id = r.Uri, r.Cid
			case *comatproto.RepoApplyWrites_UpdateResult:
				at, id = r.Uri, r.Cid
			}
			r, err := checkRecord(at, id, w.raw, uri, cid.CID{}, false)
			if err != nil {
				return fail(fmt.Errorf("%d: %w", i, err))
			}
			refs[i].URI = r.URI
		}
		if err := refs[i].setCommit(out.Commit); err != nil {
			return fail(err)
		}
	}
	return refs, nil
}
