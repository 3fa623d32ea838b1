package links

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"strings"

	"github.com/barograph/baro/internal/kv"
)

// reader answers questions about one unchanging state of the index.
type reader struct{ kv.Snapshot }

func (ix *index) reader() reader { return reader{ix.store.Snapshot()} }

// record is a linking record, as the wire has it.
type record struct {
	DID        string `json:"did"`
	Collection string `json:"collection"`
	RKey       string `json:"rkey"`
}

// list is the links to one target from one source. The zero list is empty.
type list struct {
	key        []byte // target and source; nil if there are none
	collection string
	links      uint64
	dids       uint64
}

// list finds the links to a subject from a collection and path. What was never seen has none.
func (r reader) list(subject, collection, path string) (list, error) {
	l := list{collection: collection}
	target, err := lookupTarget(r, subject)
	if err != nil || target == nil {
		return l, err
	}
	source, err := lookupSource(r, collection+":"+path)
	if err != nil || source == 0 {
		return l, err
	}
	key := rowKey(rowCount, target, source)
	v, err := r.Get(key)
	if errors.Is(err, kv.ErrNotFound) {
		return l, nil
	}
	if err != nil {
		return l, err
	}
	l.key = key[1:]
	l.links, l.dids, err = decodeCount(v)
	return l, err
}

func (l *list) rows(row byte) []byte { return append([]byte{row}, l.key...) }

// errCursor says that a cursor wasn't made here.
var errCursor = errors.New("the cursor is not one of this endpoint")

// parseCursor reads the place after which a page begins.
func parseCursor(s string) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	place, err := hex.DecodeString(s)
	if err != nil {
		return nil, errCursor
	}
	if _, _, ok := cutPlace(place); !ok {
		return nil, errCursor
	}
	return place, nil
}

// places goes over the places of a list, newest first or in reverse. It must be closed.
type places struct {
	reverse bool
	runs    []*run
	last    *run // that the last place came from
	scanned int
}

// run is one row of places that is in order: all of a list in T, or those of one account in D.
type run struct {
	it    kv.Iterator
	skip  int // bytes of a key before the place
	byDID bool
	place []byte // nil at the end
}

// places begins after a place, if there is one. If dids isn't nil, only links of those accounts are meant.
func (r reader) places(l *list, after []byte, reverse bool, dids []string) (*places, error) {
	p := &places{reverse: reverse}
	if l.key == nil {
		return p, nil
	}
	open := func(prefix []byte, skip int, byDID bool, bound []byte) error {
		s := &run{it: r.Iter(prefix, kv.PrefixEnd(prefix)), skip: skip, byDID: byDID}
		p.runs = append(p.runs, s)
		switch {
		case bound == nil && reverse:
			return s.load(s.it.First())
		case bound == nil:
			return s.load(s.it.Last())
		case reverse:
			return s.load(s.it.SeekGE(bound))
		}
		return s.load(s.it.SeekLT(bound))
	}
	if dids == nil {
		prefix := l.rows(rowByTime)
		var bound []byte
		if after != nil {
			bound = append(bytes.Clone(prefix), after...)
			if reverse {
				bound = append(bound, 0)
			}
		}
		return p, p.check(open(prefix, len(prefix), false, bound))
	}
	base := l.rows(rowByDID)
	for _, did := range dids {
		prefix := appendDID(bytes.Clone(base), did)
		var bound []byte
		if after != nil {
			n := didSize(after[8:])
			bound = append(bytes.Clone(prefix), after[:8]...)
			// Of one moment, the accounts come in order; so this one's links are all before the cursor or all behind it, if it
			// isn't the cursor's own.
			switch c := bytes.Compare(prefix[len(base):], after[8:8+n]); {
			case c == 0:
				bound = append(bound, after[8+n:]...)
				if reverse {
					bound = append(bound, 0)
				}
			case c < 0:
				bound = kv.PrefixEnd(bound)
			}
		}
		if err := p.check(open(prefix, len(base), true, bound)); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// check closes p if there is an error.
func (p *places) check(err error) error {
	if err != nil {
		p.close()
	}
	return err
}

func (s *run) load(ok bool) error {
	if !ok {
		s.place = nil
		return s.it.Err()
	}
	s.place = s.place[:0]
	if k := s.it.Key()[s.skip:]; s.byDID {
		s.place = unturnPlace(s.place, k)
	} else {
		s.place = append(s.place, k...)
	}
	return nil
}

// next returns the next place, nil at the end. It is valid until the next call.
func (p *places) next() ([]byte, error) {
	if p.last != nil {
		var ok bool
		if p.reverse {
			ok = p.last.it.Next()
		} else {
			ok = p.last.it.Prev()
		}
		if err := p.last.load(ok); err != nil {
			return nil, err
		}
	}
	var best *run
	for _, s := range p.runs {
		if s.place != nil && (best == nil || bytes.Compare(s.place, best.place) < 0 == p.reverse) {
			best = s
		}
	}
	p.last = best
	if best == nil {
		return nil, nil
	}
	p.scanned++
	return best.place, nil
}

func (p *places) close() {
	for _, s := range p.runs {
		_ = s.it.Close() // its errors were seen by load
	}
}

func (l *list) record(place []byte) (record, error) {
	did, rkey, ok := cutPlace(place)
	if !ok {
		return record{}, errors.New("a row of links is damaged")
	}
	return record{did, l.collection, rkey}, nil
}

// records returns a page of linking records, and where the next begins, if there is more.
func (r reader) records(l *list, after []byte, reverse bool, dids []string, limit int) ([]record, string, error) {
	out := make([]record, 0, min(limit, 100))
	p, err := r.places(l, after, reverse, dids)
	if err != nil {
		return nil, "", err
	}
	defer p.close()
	var last []byte
	for {
		place, err := p.next()
		if err != nil || place == nil {
			return out, "", err
		}
		if len(out) == limit {
			return out, hex.EncodeToString(last), nil
		}
		rec, err := l.record(place)
		if err != nil {
			return nil, "", err
		}
		out = append(out, rec)
		last = append(last[:0], place...)
	}
}

// countOf returns how many links certain accounts have in a list.
func (r reader) countOf(l *list, dids []string) (uint64, error) {
	if l.key == nil {
		return 0, nil
	}
	it := r.Iter([]byte{rowByDID}, []byte{rowByDID + 1})
	defer it.Close()
	var total uint64
	for _, did := range dids {
		n, err := multiplicity(r, it, appendDID(bytes.Clone(l.key), did))
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// distinct returns a page of the accounts in a list, in the order of their DIDs.
func (r reader) distinct(l *list, after []byte, limit int) ([]string, string, error) {
	out := make([]string, 0, min(limit, 100))
	if l.key == nil {
		return out, "", nil
	}
	prefix := l.rows(rowByDID)
	it := r.Iter(prefix, kv.PrefixEnd(prefix))
	defer it.Close()
	ok := false
	if after != nil {
		ok = it.SeekGE(kv.PrefixEnd(append(bytes.Clone(prefix), after...)))
	} else {
		ok = it.First()
	}
	var last []byte
	for ; ok; ok = it.SeekGE(kv.PrefixEnd(append(bytes.Clone(prefix), last...))) {
		if len(out) == limit {
			return out, hex.EncodeToString(last), it.Err()
		}
		k := it.Key()[len(prefix):]
		did, _, good := cutDID(k)
		if !good {
			return nil, "", errors.New("a row of links is damaged")
		}
		out = append(out, did)
		last = append(last[:0], k[:didSize(k)]...)
	}
	return out, "", it.Err()
}

// parseDIDCursor reads the account after which a page begins.
func parseDIDCursor(s string) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	k, err := hex.DecodeString(s)
	if err != nil {
		return nil, errCursor
	}
	if _, rest, ok := cutDID(k); !ok || len(rest) > 0 {
		return nil, errCursor
	}
	return k, nil
}

// sourceCount is how much links to a target from one source.
type sourceCount struct {
	collection, path string // path without the leading dot
	links, dids      uint64
}

// maxSources bounds the answer to what links to a target.
const maxSources = 20_000

var errTooMany = errors.New("too much links to this subject for one answer")

// sources returns all that links to a target.
func (r reader) sources(subject string) ([]sourceCount, error) {
	target, err := lookupTarget(r, subject)
	if err != nil || target == nil {
		return nil, err
	}
	prefix := append([]byte{rowCount}, target...)
	it := r.Iter(prefix, kv.PrefixEnd(prefix))
	defer it.Close()
	var out []sourceCount
	for it.Next() {
		if len(out) == maxSources {
			return nil, errTooMany
		}
		n, _, ok := kv.CutUint32(it.Key()[len(prefix):])
		if !ok {
			return nil, errors.New("a row of counts is damaged")
		}
		name, err := readName(r, n)
		if err != nil {
			return nil, err
		}
		var c sourceCount
		c.collection, c.path, _ = strings.Cut(name, ":")
		if c.links, c.dids, err = decodeCount(it.Value()); err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, it.Err()
}

// others returns the subjects that a linking record links to by another path, in order.
func (r reader) others(author uint32, path string, source uint32) ([]string, error) {
	v, err := r.Get(recordKey(author, path))
	if err != nil {
		return nil, err
	}
	ls, err := decodeLinks(v)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, l := range ls {
		if l.source == source {
			s, err := readTarget(r, l.target)
			if err != nil {
				return nil, err
			}
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return out, nil
}

// item is a linking record and another subject of it.
type item struct {
	Record record `json:"linkRecord"`
	Other  string `json:"otherSubject"`
}

// maxScan bounds the linking records that one request looks into.
const maxScan = 10_000

// manyToMany visits the other subjects of the records in a list, from after a place, or within the record there from the
// given number on. It stops after maxScan records, at the returned place.
func (r reader) manyToMany(ctx context.Context, l *list, otherPath string, after []byte, dids []string, max int, visit func(place []byte, rec record, others []string) (bool, error)) ([]byte, error) {
	source, err := lookupSource(r, l.collection+":"+otherPath)
	if err != nil || source == 0 {
		return nil, err
	}
	p, err := r.places(l, after, false, dids)
	if err != nil {
		return nil, err
	}
	defer p.close()
	var last []byte
	for {
		if p.scanned == max {
			return last, nil
		}
		place, err := p.next()
		if err != nil || place == nil {
			return nil, err
		}
		if p.scanned%256 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		rec, err := l.record(place)
		if err != nil {
			return nil, err
		}
		author, err := lookup(r, appendDID([]byte{rowActor}, rec.DID))
		if err != nil {
			return nil, err
		}
		others, err := r.others(author, rec.Collection+"/"+rec.RKey, source)
		if err != nil {
			return nil, err
		}
		if more, err := visit(place, rec, others); err != nil || !more {
			return nil, err
		}
		last = append(last[:0], place...)
	}
}
