package links

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/syntax"
)

// dictionary gives DIDs and names their numbers. One goroutine adds to it; lookups read the store.
type dictionary struct {
	actors, names       map[string]uint32 // some of them
	nextActor, nextName uint32
}

const maxCachedNumbers = 1 << 17

func (d *dictionary) load(r kv.Reader) error {
	d.actors, d.names = map[string]uint32{}, map[string]uint32{}
	for _, t := range []struct {
		row  byte
		next *uint32
	}{{rowDID, &d.nextActor}, {rowNumber, &d.nextName}} {
		*t.next = 1
		it := r.Iter([]byte{t.row}, []byte{t.row + 1})
		if it.Last() {
			if n, _, ok := kv.CutUint32(it.Key()[1:]); ok {
				*t.next = n + 1
			}
		}
		if err := it.Close(); err != nil {
			return err
		}
	}
	return nil
}

// intern returns the number of a string, and adds it to the dictionary if it has none.
func intern(r kv.Reader, b kv.Batch, cache map[string]uint32, next *uint32, row, back byte, s string, enc func([]byte, string) []byte) (uint32, error) {
	if n, ok := cache[s]; ok {
		return n, nil
	}
	key := enc([]byte{row}, s)
	v, err := r.Get(key)
	var n uint32
	switch {
	case err == nil:
		n = binary.BigEndian.Uint32(v)
	case errors.Is(err, kv.ErrNotFound):
		if n = *next; n >= 0xff000000 {
			return 0, errors.New("the dictionary is full")
		}
		*next = n + 1
		num := kv.AppendUint32(nil, n)
		b.Set(key, num)
		b.Set(append([]byte{back}, num...), []byte(s))
	default:
		return 0, err
	}
	cache[s] = n
	return n, nil
}

// trim forgets what is cached when that has become much. It is called between batches: numbers that a batch adds can't be
// read from the store before it is applied.
func (d *dictionary) trim() {
	if len(d.actors) > maxCachedNumbers {
		d.actors = map[string]uint32{}
	}
	if len(d.names) > maxCachedNumbers {
		d.names = map[string]uint32{}
	}
}

func appendName(k []byte, s string) []byte { return append(k, s...) }

// actor returns the number of a DID, adding it if need be.
func (w *writer) actor(did string) (uint32, error) {
	d := &w.ix.dict
	return intern(w.r, w.b, d.actors, &d.nextActor, rowActor, rowDID, did, appendDID)
}

// name returns the number of a collection or source, adding it if need be.
func (w *writer) name(s string) (uint32, error) {
	d := &w.ix.dict
	return intern(w.r, w.b, d.names, &d.nextName, rowName, rowNumber, s, appendName)
}

// target returns the form of a target in keys, adding to the dictionary what it needs.
func (w *writer) target(s string) ([]byte, error) {
	did, collection, rkey, ok := splitATURI(s)
	if !ok {
		if !syntax.ValidDID(s) {
			return hashTarget(s), nil
		}
		did = s
	}
	actor, err := w.actor(did)
	if err != nil {
		return nil, err
	}
	var coll uint32
	if collection != "" {
		if coll, err = w.name(collection); err != nil {
			return nil, err
		}
	}
	return appendTarget(ok, actor, collection != "", coll, rkey), nil
}

// appendTarget makes the form of an at-uri, or of a DID.
func appendTarget(uri bool, actor uint32, hasCollection bool, coll uint32, rkey string) []byte {
	k := make([]byte, 1, 20)
	k = kv.AppendUint32(k, actor)
	switch {
	case !uri:
		k[0] = targetDID
		return k
	case !hasCollection:
		k[0] = targetAuthority
		return k
	}
	k = kv.AppendUint32(k, coll)
	switch {
	case rkey == "":
		k[0] = targetCollection
	case syntax.ValidTID(rkey):
		k[0] = targetTID
		k = kv.AppendUint64(k, syntax.TID(rkey).Integer())
	default:
		k[0] = targetRecord
		k = kv.AppendString(k, rkey)
	}
	return k
}

// lookup reads a number. It is 0 if there is none.
func lookup(r kv.Reader, key []byte) (uint32, error) {
	v, err := r.Get(key)
	if errors.Is(err, kv.ErrNotFound) {
		return 0, nil
	}
	if err != nil || len(v) != 4 {
		return 0, errors.Join(err, checkLen(v, 4))
	}
	return binary.BigEndian.Uint32(v), nil
}

func checkLen(v []byte, n int) error {
	if len(v) == n {
		return nil
	}
	return fmt.Errorf("a row of %d bytes, want %d", len(v), n)
}

// lookupTarget is target for readers: nil if nothing can link to s, because a part of it was never seen.
func lookupTarget(r kv.Reader, s string) ([]byte, error) {
	did, collection, rkey, ok := splitATURI(s)
	if !ok {
		if !syntax.ValidDID(s) {
			return hashTarget(s), nil
		}
		did = s
	}
	actor, err := lookup(r, appendDID([]byte{rowActor}, did))
	if err != nil || actor == 0 {
		return nil, err
	}
	var coll uint32
	if collection != "" {
		if coll, err = lookup(r, appendName([]byte{rowName}, collection)); err != nil || coll == 0 {
			return nil, err
		}
	}
	return appendTarget(ok, actor, collection != "", coll, rkey), nil
}

// lookupSource returns the number of a source, 0 if it was never seen.
func lookupSource(r kv.Reader, source string) (uint32, error) {
	return lookup(r, appendName([]byte{rowName}, source))
}

// readName returns the name of a number.
func readName(r kv.Reader, n uint32) (string, error) {
	v, err := r.Get(actorKey(rowNumber, n))
	if err != nil {
		return "", fmt.Errorf("name %d: %w", n, err)
	}
	return string(v), nil
}

// readDID returns the DID of an actor.
func readDID(r kv.Reader, actor uint32) (string, error) {
	v, err := r.Get(actorKey(rowDID, actor))
	if err != nil {
		return "", fmt.Errorf("actor %d: %w", actor, err)
	}
	return string(v), nil
}

// readTarget returns the string of a target.
func readTarget(r kv.Reader, t []byte) (string, error) {
	if len(t) > 0 && t[0] == targetHash {
		v, err := r.Get(append([]byte{rowURI}, t[1:]...))
		if err != nil {
			return "", fmt.Errorf("target %x: %w", t, err)
		}
		return string(v), nil
	}
	if len(t) < 5 {
		return "", fmt.Errorf("target %x is too short", t)
	}
	did, err := readDID(r, binary.BigEndian.Uint32(t[1:]))
	if err != nil {
		return "", err
	}
	switch t[0] {
	case targetDID:
		return did, nil
	case targetAuthority:
		return "at://" + did, nil
	}
	if len(t) < 9 {
		return "", fmt.Errorf("target %x is too short", t)
	}
	coll, err := readName(r, binary.BigEndian.Uint32(t[5:]))
	if err != nil {
		return "", err
	}
	s := "at://" + did + "/" + coll
	switch {
	case t[0] == targetTID && len(t) == 17:
		return s + "/" + string(syntax.TIDFromInteger(binary.BigEndian.Uint64(t[9:]))), nil
	case t[0] == targetRecord:
		if rkey, _, ok := kv.CutString(t[9:]); ok {
			return s + "/" + rkey, nil
		}
	case t[0] == targetCollection:
		return s, nil
	}
	return "", fmt.Errorf("target %x has no known form", t)
}
