package relay

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"unique"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// The relay has no repositories, so which collections an account has is known from its commits: each that wrote a record to a
// collection leaves a row. What an account wrote before the relay came to know it, and never touched again, is not known, and an
// account that has emptied a collection stays listed: a consumer that needs certainty asks the account's host.

// rememberedCollections is how many of an account's collections are kept in memory, so that most commits write no row.
const rememberedCollections = 32

// collectionName is shared among all the accounts that have the collection.
type collectionName = unique.Handle[string]

// fresh are the collections that ops write to and that the account isn't known in memory to have; it is from now on.
func (a *cached) fresh(ops []stream.Op) (names []string) {
	for _, op := range ops {
		if op.Action == stream.ActionDelete {
			continue
		}
		name, _, ok := strings.Cut(op.Path, "/")
		if !ok {
			continue
		}
		h := unique.Make(name)
		if slices.Contains(a.collections, h) {
			continue
		}
		if len(a.collections) >= rememberedCollections {
			a.collections = a.collections[:0]
		}
		a.collections = append(a.collections, h)
		names = append(names, h.Value())
	}
	return names
}

// Rows lead from a collection to its accounts, and from an account to its collections, so that those of a deleted one can go.
func collectionKey(name, did string) []byte {
	return append(append(key(prefixCollection, name), 0), did...)
}

func collectionsOf(did string) []byte { return append(key(prefixCollections, did), 0) }

func putCollections(b kv.Batch, did string, names []string) {
	for _, name := range names {
		b.Set(collectionKey(name, did), nil)
		b.Set(append(collectionsOf(did), name...), nil)
	}
}

// dropCollections removes the rows of an account.
func (s *Service) dropCollections(b kv.Batch, did string) error {
	lo := collectionsOf(did)
	hi := slices.Clone(lo)
	hi[len(hi)-1]++
	it := s.store.Iter(lo, hi)
	for it.Next() {
		b.Delete(collectionKey(string(it.Key()[len(lo):]), did))
	}
	b.DeleteRange(lo, hi)
	return errors.Join(it.Err(), it.Close())
}

// collectionScan bounds the rows that one page looks at: a page may be short, or even empty, and still have a successor.
const collectionScan = 10_000

func (s *Service) listReposByCollection(_ context.Context, _ *xrpc.Request, p *comatproto.SyncListReposByCollection_Params) (out *comatproto.SyncListReposByCollection_Output, err error) {
	name, err := syntax.ParseNSID(p.Collection)
	if err != nil {
		return nil, xrpc.ErrInvalidRequest.With("parameter collection: %v", err)
	}
	out = &comatproto.SyncListReposByCollection_Output{Repos: []comatproto.SyncListReposByCollection_Repo{}}
	prefix := collectionKey(string(name), "")
	lo := prefix
	if c := deref(p.Cursor); c != "" {
		lo = append(collectionKey(string(name), c), 0)
	}
	hi := bytes.Clone(prefix)
	hi[len(hi)-1]++
	it := s.store.Iter(lo, hi)
	defer func() { err = errors.Join(err, it.Close()) }()
	did := ""
	for seen := 0; ; seen++ {
		if int64(len(out.Repos)) == *p.Limit || seen == collectionScan {
			out.Cursor = new(did)
			break
		}
		if !it.Next() {
			break
		}
		did = string(it.Key()[len(prefix):])
		a, err := s.stored(did)
		if err != nil {
			return nil, err
		}
		if a != nil && a.shown() == "" {
			out.Repos = append(out.Repos, comatproto.SyncListReposByCollection_Repo{Did: did})
		}
	}
	return out, it.Err()
}
