package directory

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/eventlog"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/plc"
	"github.com/barograph/baro/syntax"
)

// The database holds three families of keys:
//
//	o <24 characters of the DID> <index, 4 bytes>  →  an entry, in the order of acceptance
//	t <milliseconds, 8 bytes> <CID>                →  the key of the entry without its family: the order of the export by time
//	e …                                            →  the sequenced log, whose frames are the lines of the export by number
const (
	prefixEntry byte = 'o'
	prefixTime  byte = 't'
	prefixLog   byte = 'e'
)

const (
	idSize       = 24
	entryVersion = 1
	entryHeader  = 2 + 8 + cid.Size // version, flags, milliseconds, CID; then the operation as CBOR
	flagVoid     = 1
)

func entryKey(did syntax.DID, index int) []byte {
	k := append([]byte{prefixEntry}, did[len(did)-idSize:]...)
	return binary.BigEndian.AppendUint32(k, uint32(index))
}

func timeKey(e *plc.Entry) []byte {
	k := binary.BigEndian.AppendUint64([]byte{prefixTime}, uint64(e.CreatedAt.UnixMilli()))
	return append(k, e.CID[:]...)
}

func entryValue(e *plc.Entry) []byte {
	var flags byte
	if e.Nullified {
		flags |= flagVoid
	}
	v := []byte{entryVersion, flags}
	v = binary.BigEndian.AppendUint64(v, uint64(e.CreatedAt.UnixMilli()))
	v = append(v, e.CID[:]...)
	return append(v, e.Operation.CBOR()...)
}

// readEntry decodes an entry; key is without its family byte.
func readEntry(key, value []byte) (plc.Entry, error) {
	if len(key) != idSize+4 || len(value) < entryHeader || value[0] != entryVersion {
		return plc.Entry{}, fmt.Errorf("damaged entry %x in the directory's database", key)
	}
	op, err := plc.ParseCBOR(value[entryHeader:])
	if err != nil {
		return plc.Entry{}, fmt.Errorf("damaged entry %x in the directory's database: %w", key, err)
	}
	return plc.Entry{
		DID:       syntax.DID("did:plc:" + string(key[:idSize])),
		Operation: op,
		CID:       cid.CID(value[entryHeader-cid.Size : entryHeader]),
		Nullified: value[1]&flagVoid != 0,
		CreatedAt: time.UnixMilli(int64(binary.BigEndian.Uint64(value[2:]))).UTC(),
	}, nil
}

func span(did syntax.DID) (lo, hi []byte) {
	lo = append([]byte{prefixEntry}, did[len(did)-idSize:]...)
	return lo, kv.PrefixEnd(lo)
}

// entries returns the whole log of an identity, void entries included; nil if there is none.
func (s *Service) entries(r kv.Reader, did syntax.DID) (log []plc.Entry, err error) {
	if !did.IsPLC() {
		return nil, nil
	}
	it := r.Iter(span(did))
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		e, err := readEntry(it.Key()[1:], it.Value())
		if err != nil {
			return nil, err
		}
		log = append(log, e)
	}
	return log, it.Err()
}

// last returns the entry that holds the present state of an identity: the one accepted last, which is never void.
func (s *Service) last(did syntax.DID) (e plc.Entry, ok bool, err error) {
	if !did.IsPLC() {
		return e, false, nil
	}
	it := s.store.Iter(span(did))
	defer func() { err = errors.Join(err, it.Close()) }()
	if !it.Last() {
		return e, false, it.Err()
	}
	e, err = readEntry(it.Key()[1:], it.Value())
	return e, err == nil, err
}

// head returns the CID of the present operation, undefined if there is none.
func (s *Service) head(did syntax.DID) (cid.CID, error) {
	e, _, err := s.last(did)
	return e.CID, err
}

// accept writes the entry, the changed void marks and the event in one batch, and returns when they are on disk. It does not
// give up when the client does: the identity stays locked until its fate is known.
func (s *Service) accept(log []plc.Entry, void []int, e plc.Entry) error {
	key := entryKey(e.DID, len(log))
	_, err := s.log.Commit(context.Background(), eventlog.Tx{
		Ops: func(b kv.Batch) {
			for _, i := range void {
				log[i].Nullified = true
				b.Set(entryKey(e.DID, i), entryValue(&log[i]))
			}
			b.Set(key, entryValue(&e))
			b.Set(timeKey(&e), key[1:])
		},
		Events: []func(dst []byte, seq int64) []byte{e.AppendSequencedJSON},
	})
	if err != nil {
		return fmt.Errorf("storing an operation of %s: %w", e.DID, err)
	}
	return nil
}

// exportByTime appends up to count entries accepted after the time, as lines, in the order of time and CID. Timestamps are
// the pages' only cursor, so a page never ends between entries of the same millisecond, unless it holds nothing else.
func (s *Service) exportByTime(after time.Time, count int) (lines [][]byte, err error) {
	snap := s.store.Snapshot()
	defer func() { err = errors.Join(err, snap.Close()) }()
	lo := []byte{prefixTime}
	if !after.IsZero() {
		lo = binary.BigEndian.AppendUint64(lo, uint64(max(after.UnixMilli(), -1)+1))
	}
	it := snap.Iter(lo, []byte{prefixTime + 1})
	defer func() { err = errors.Join(err, it.Close()) }()
	group := 0 // index of the first line with the present timestamp
	var stamp string
	for ok := it.First(); ok; ok = it.Next() {
		k := it.Key()
		if len(k) != 1+8+cid.Size {
			return nil, fmt.Errorf("damaged key %x in the directory's database", k)
		}
		if t := string(k[1:9]); t != stamp {
			group, stamp = len(lines), t
			if len(lines) == count {
				return lines, nil
			}
		} else if len(lines) == count {
			if group > 0 {
				lines = lines[:group]
			}
			return lines, nil
		}
		at := it.Value()
		v, err := snap.Get(append([]byte{prefixEntry}, at...))
		if err != nil {
			return nil, fmt.Errorf("reading an entry for the export: %w", err)
		}
		e, err := readEntry(at, v)
		if err != nil {
			return nil, err
		}
		lines = append(lines, e.AppendJSON(nil))
	}
	return lines, it.Err()
}

// exportBySeq returns up to count lines with a sequence number over after.
func (s *Service) exportBySeq(ctx context.Context, after int64, count int) (lines [][]byte, err error) {
	for head := s.log.Head(); len(lines) < count && after < head; {
		events, err := s.log.Read(ctx, after+1, count-len(lines))
		if err != nil {
			return nil, err
		}
		for _, e := range events {
			lines = append(lines, e.Frame)
			after = e.Seq
		}
	}
	return lines, nil
}
