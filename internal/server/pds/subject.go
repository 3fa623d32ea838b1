package pds

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/mst"
)

// A person likes, reposts, follows or blocks something once. When a client creates a second record of that kind for the same subject, as
// racing clients do, the first goes in the same commit. The table below finds it; https://atproto.com/specs/repository says nothing of it,
// it is what the reference server does and what counters rely on.

const tableSubject = 'l' // gen digest[:16] of collection and subject, path → empty

var onePerSubject = map[string]bool{
	"app.bsky.feed.like": true, "app.bsky.feed.repost": true, "app.bsky.graph.follow": true, "app.bsky.graph.block": true,
}

// subjectKey is the key prefix for the subject of a record, nil for a record without one.
func subjectKey(gen uint64, path string, record []byte) []byte {
	collection, _, _ := strings.Cut(path, "/")
	if !onePerSubject[collection] {
		return nil
	}
	subject := subjectOf(record)
	if subject == "" {
		return nil
	}
	sum := sha256.Sum256([]byte(collection + "\x00" + subject))
	return append(idKey(tableSubject, gen), sum[:16]...)
}

// subjectOf reads the subject of a record: a DID or URI, or the uri of a strong reference.
func subjectOf(record []byte) string {
	r := cbor.NewReader(record)
	if !seekField(&r, "subject") {
		return ""
	}
	if k, err := r.Kind(); err != nil || (k == cbor.KindMap && !seekField(&r, "uri")) {
		return ""
	}
	s, err := r.Text()
	if err != nil {
		return ""
	}
	return s
}

// seekField enters the map at r and stops at the value of a key.
func seekField(r *cbor.Reader, name string) bool {
	if k, err := r.Kind(); err != nil || k != cbor.KindMap {
		return false
	}
	n, err := r.Map()
	if err != nil {
		return false
	}
	var key []byte
	for range n {
		if key, err = r.MapKey(key); err != nil {
			return false
		}
		if string(key) == name {
			return true
		}
		if r.Skip() != nil {
			return false
		}
	}
	return false
}

// replaced adds to a creation the deletion of the records that it takes the place of.
func (s *Service) replaced(r *openRepo, tree *mst.Tree, w *write) ([]write, error) {
	prefix := subjectKey(r.head.Gen, w.Path, w.Record)
	if prefix == nil {
		return nil, nil
	}
	var out []write
	add := func(path string) error {
		if path == w.Path {
			return nil
		}
		for i := range out {
			if out[i].Path == path {
				return nil
			}
		}
		// What the table says may have been undone by a commit that is not durable yet: the tree knows.
		if _, found, err := tree.Get(path); err != nil || !found {
			return err
		}
		record, err := s.recordOf(r, path)
		if err != nil {
			return err
		}
		if string(subjectKey(r.head.Gen, path, record)) == string(prefix) {
			out = append(out, write{Action: actDelete, Path: path})
		}
		return nil
	}
	for path := range r.records {
		if strings.HasPrefix(path, string(w.Collection)+"/") {
			if err := add(path); err != nil {
				return nil, err
			}
		}
	}
	it := s.store.Iter(prefix, kv.PrefixEnd(prefix))
	defer it.Close()
	for ok := it.First(); ok && len(out) < 16; ok = it.Next() {
		if err := add(string(it.Key()[len(prefix):])); err != nil {
			return nil, err
		}
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("looking for records of the same subject: %w", err)
	}
	return out, nil
}
