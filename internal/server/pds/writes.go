package pds

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// Validation answers of the write methods.
const (
	statusValid   = "valid"
	statusUnknown = "unknown"
)

// prepareRecord checks everything about a record to be written that doesn't need the repository. An empty rkey asks for one.
//
// A schema that this server doesn't know is looked up in the network only for a client that insists on validation: whoever doesn't is not
// kept waiting, and gets the same answer whatever was looked up before.
func (s *Service) prepareRecord(ctx context.Context, act action, collection, rkey string, record data.Raw, validate *bool) (write, error) {
	w := write{Action: act, Record: record}
	var err error
	if w.Collection, err = syntax.ParseNSID(collection); err != nil {
		return w, invalid("collection: %v", err)
	}
	catalog := s.schemas.catalog
	schema, err := s.schemas.record(w.Collection)
	if err == nil && schema == nil && validate != nil && *validate {
		catalog, schema, err = s.resolveRecord(ctx, w.Collection)
	}
	if err != nil {
		return w, err
	}
	if rkey == "" {
		rkey = s.inventKey(schema)
	}
	if w.RKey, err = syntax.ParseRecordKey(rkey); err != nil {
		return w, invalid("rkey: %v", err)
	}
	w.Path = collection + "/" + rkey

	if len(record) == 0 || record[0]>>5 != 5 {
		return w, invalid("the record is not an object")
	}
	switch kind := data.TypeOf(record); kind {
	case collection:
	case "":
		if w.Record, err = withType(record, collection); err != nil {
			return w, err
		}
	default:
		return w, invalid("the record is of type %q, the collection is %q", kind, collection)
	}
	if len(w.Record) > repo.MaxRecord {
		return w, invalid("the record has %d bytes, at most %d are possible", len(w.Record), repo.MaxRecord)
	}
	if validate == nil || *validate {
		switch {
		case schema != nil:
			err := catalog.ValidateRecord(w.Collection, w.Record)
			if err == nil {
				err = catalog.ValidateRecordKey(w.Collection, w.RKey)
			}
			if err != nil {
				return w, invalid("the record is not a valid %s: %v", collection, err)
			}
			w.Validation = statusValid
		default:
			w.Validation = statusUnknown
		}
	}
	w.CID = cid.Sum(cid.DagCBOR, w.Record)
	if w.Blobs, err = blobsWritten(w.Record); err != nil {
		return w, invalid("the record: %v", err)
	}
	return w, nil
}

// inventKey makes a record key of the type that the schema asks for.
func (s *Service) inventKey(schema *lexicon.Def) string {
	if schema != nil {
		if v, ok := strings.CutPrefix(schema.Key, "literal:"); ok {
			return v
		}
	}
	return string(s.tids.Next(s.world.Clock.Now()))
}

// withType adds the $type that a client left out.
func withType(record []byte, collection string) ([]byte, error) {
	v, err := data.Decode(record)
	if err != nil {
		return nil, fmt.Errorf("decoding a record: %w", err)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, invalid("the record is not an object")
	}
	if _, there := m["$type"]; there {
		return nil, invalid("$type is not a string")
	}
	m["$type"] = collection
	return data.Encode(m)
}

func prepareDelete(act action, collection, rkey string) (write, error) {
	w := write{Action: act}
	var err error
	if w.Collection, err = syntax.ParseNSID(collection); err != nil {
		return w, invalid("collection: %v", err)
	}
	if w.RKey, err = syntax.ParseRecordKey(rkey); err != nil {
		return w, invalid("rkey: %v", err)
	}
	w.Path = collection + "/" + rkey
	return w, nil
}

func (w *write) uri(did syntax.DID) string { return "at://" + string(did) + "/" + w.Path }

// parseSwap reads an optional CID to compare with.
func parseSwap(name string, v *string) (*cid.CID, error) {
	if v == nil {
		return nil, nil
	}
	c, err := cid.Parse(*v)
	if err != nil {
		return nil, invalid("%s: %v", name, err)
	}
	return &c, nil
}

// authWrite and authAny authenticate before the body is read, so that nobody without an account makes the server read one. A write looks
// at the account's hosting status under the repository's lock.
func (s *Service) authWrite(r *http.Request, _ string) (any, error) {
	info, err := s.requireToken(r)
	if err != nil {
		return nil, err
	}
	epoch, err := s.epochOf(info.DID)
	if err == nil && epoch != info.epoch {
		err = errOldPassword
	}
	if err != nil && !errors.Is(err, errNoAccount) { // of an account that is gone the repository tells
		return nil, err
	}
	return info, nil
}

func (s *Service) authAny(r *http.Request, _ string) (any, error) { return s.requireAuth(r) }

// writer checks that a write goes to the caller's own repository.
func (s *Service) writer(r *xrpc.Request, name string) (syntax.DID, error) {
	info := r.Auth.(authInfo)
	own := name == string(info.DID)
	if !own {
		if h, err := syntax.ParseHandle(name); err == nil {
			a, err := s.accountByHandle(h)
			if err != nil && !errors.Is(err, errNoAccount) {
				return "", err
			}
			own = err == nil && a.DID == info.DID
		}
	}
	if !own {
		return "", invalid("repo %q is not the repository of the account that asks", name)
	}
	return info.DID, nil
}

func (c commitResult) meta() *comatproto.RepoDefs_CommitMeta {
	if !c.Changed {
		return nil
	}
	return &comatproto.RepoDefs_CommitMeta{Cid: c.Commit.String(), Rev: string(c.Rev)}
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// createRecord is com.atproto.repo.createRecord.
func (s *Service) createRecord(ctx context.Context, r *xrpc.Request, in *comatproto.RepoCreateRecord_Input) (*comatproto.RepoCreateRecord_Output, error) {
	did, err := s.writer(r, in.Repo)
	if err != nil {
		return nil, err
	}
	if err := s.limitAccount(r.Request, r.Out, "writes", did, createPoints); err != nil {
		return nil, err
	}
	swap, err := parseSwap("swapCommit", in.SwapCommit)
	if err != nil {
		return nil, err
	}
	w, err := s.prepareRecord(ctx, actCreate, in.Collection, deref(in.Rkey), in.Record, in.Validate)
	if err != nil {
		return nil, answer(err)
	}
	w.Replaces = in.Validate == nil || *in.Validate
	done, err := s.commit(did, []write{w}, swap)
	if err != nil {
		return nil, answer(err)
	}
	return &comatproto.RepoCreateRecord_Output{
		Uri: w.uri(did), Cid: w.CID.String(), Commit: done.meta(), ValidationStatus: optional(w.Validation),
	}, nil
}

// putRecord is com.atproto.repo.putRecord.
func (s *Service) putRecord(ctx context.Context, r *xrpc.Request, in *comatproto.RepoPutRecord_Input) (*comatproto.RepoPutRecord_Output, error) {
	did, err := s.writer(r, in.Repo)
	if err != nil {
		return nil, err
	}
	if err := s.limitAccount(r.Request, r.Out, "writes", did, putPoints); err != nil {
		return nil, err
	}
	swap, err := parseSwap("swapCommit", in.SwapCommit)
	if err != nil {
		return nil, err
	}
	if in.Rkey == "" {
		return nil, invalid("rkey: putRecord needs one")
	}
	w, err := s.prepareRecord(ctx, actPut, in.Collection, in.Rkey, in.Record, in.Validate)
	if err != nil {
		return nil, answer(err)
	}
	if in.SwapRecord.Null {
		w.Swap = new(cid.CID) // there must be no record
	} else if w.Swap, err = parseSwap("swapRecord", in.SwapRecord.Value); err != nil {
		return nil, err
	}
	done, err := s.commit(did, []write{w}, swap)
	if err != nil {
		return nil, answer(err)
	}
	return &comatproto.RepoPutRecord_Output{
		Uri: w.uri(did), Cid: w.CID.String(), Commit: done.meta(), ValidationStatus: optional(w.Validation),
	}, nil
}

// deleteRecord is com.atproto.repo.deleteRecord.
func (s *Service) deleteRecord(ctx context.Context, r *xrpc.Request, in *comatproto.RepoDeleteRecord_Input) (*comatproto.RepoDeleteRecord_Output, error) {
	did, err := s.writer(r, in.Repo)
	if err != nil {
		return nil, err
	}
	if err := s.limitAccount(r.Request, r.Out, "writes", did, deletePoints); err != nil {
		return nil, err
	}
	swap, err := parseSwap("swapCommit", in.SwapCommit)
	if err != nil {
		return nil, err
	}
	w, err := prepareDelete(actEnsureGone, in.Collection, in.Rkey)
	if err != nil {
		return nil, err
	}
	if w.Swap, err = parseSwap("swapRecord", in.SwapRecord); err != nil {
		return nil, err
	}
	done, err := s.commit(did, []write{w}, swap)
	if err != nil {
		return nil, answer(err)
	}
	return &comatproto.RepoDeleteRecord_Output{Commit: done.meta()}, nil
}

// applyWrites is com.atproto.repo.applyWrites.
func (s *Service) applyWrites(ctx context.Context, r *xrpc.Request, in *comatproto.RepoApplyWrites_Input) (*comatproto.RepoApplyWrites_Output, error) {
	did, err := s.writer(r, in.Repo)
	if err != nil {
		return nil, err
	}
	swap, err := parseSwap("swapCommit", in.SwapCommit)
	if err != nil {
		return nil, err
	}
	if len(in.Writes) > repo.MaxOps {
		return nil, invalid("%d writes, at most %d are possible in one commit", len(in.Writes), repo.MaxOps)
	}
	points := 0
	for i := range in.Writes {
		switch in.Writes[i].Value.(type) {
		case *comatproto.RepoApplyWrites_Create:
			points += createPoints
		case *comatproto.RepoApplyWrites_Update:
			points += putPoints
		default:
			points += deletePoints
		}
	}
	if err := s.limitAccount(r.Request, r.Out, "writes", did, points); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*schemaTimeout) // they may be of as many collections
	defer cancel()
	writes := make([]write, 0, len(in.Writes))
	results := make([]comatproto.RepoApplyWrites_Output_Results_Elem, len(in.Writes))
	for i := range in.Writes {
		var w write
		switch op := in.Writes[i].Value.(type) {
		case *comatproto.RepoApplyWrites_Create:
			if w, err = s.prepareRecord(ctx, actCreate, op.Collection, deref(op.Rkey), op.Value, in.Validate); err == nil {
				results[i].Value = &comatproto.RepoApplyWrites_CreateResult{Uri: w.uri(did), Cid: w.CID.String(), ValidationStatus: optional(w.Validation)}
			}
		case *comatproto.RepoApplyWrites_Update:
			if op.Rkey == "" {
				return nil, invalid("writes[%d]: an update needs a record key", i)
			}
			if w, err = s.prepareRecord(ctx, actUpdate, op.Collection, op.Rkey, op.Value, in.Validate); err == nil {
				results[i].Value = &comatproto.RepoApplyWrites_UpdateResult{Uri: w.uri(did), Cid: w.CID.String(), ValidationStatus: optional(w.Validation)}
			}
		case *comatproto.RepoApplyWrites_Delete:
			w, err = prepareDelete(actDelete, op.Collection, op.Rkey)
			results[i].Value = &comatproto.RepoApplyWrites_DeleteResult{}
		default:
			return nil, invalid("writes[%d]: unknown kind of write %q", i, in.Writes[i].Type())
		}
		if err != nil {
			return nil, answer(fmt.Errorf("writes[%d]: %w", i, err))
		}
		writes = append(writes, w)
	}
	done, err := s.commit(did, writes, swap)
	if err != nil {
		return nil, answer(err)
	}
	return &comatproto.RepoApplyWrites_Output{Commit: done.meta(), Results: results}, nil
}
