package pds

import (
	"errors"
	"fmt"

	"github.com/barograph/baro/internal/kv"
)

// An account may take so many bytes: those of its records, which its head row counts, and those of its blobs, which are summed up when a
// repository is opened to be written. Indexes and tree nodes are not counted.

// quotaError says that an account would take more than it may.
type quotaError struct{ limit int64 }

func (e *quotaError) Error() string {
	return fmt.Sprintf("the account would take more than the %d bytes that it may: delete something first", e.limit)
}

// fits refuses what would make an account with so many bytes of records take more than it may. The caller holds r.mu.
func (s *Service) fits(r *openRepo, records, more int64) error {
	if records < 0 {
		var err error
		if records, err = s.recordBytes(r); err != nil {
			return err
		}
		r.head.Bytes = records // written with whatever comes next
	}
	if !r.sized {
		if err := r.drain(); err != nil { // what is on its way is not in the store yet
			return err
		}
		r.stored = 0
		lo, hi := genRange(tableBlob, r.head.account)
		err := eachRow(s.store, lo, hi, func(_, v []byte) error {
			row, err := decodeBlobRow(v)
			r.stored += row.Size
			return err
		})
		if err != nil {
			return fmt.Errorf("adding up the blobs of %s: %w", r.did, err)
		}
		r.sized = true
	}
	if records+r.stored+more > s.cfg.AccountBytes {
		return &quotaError{s.cfg.AccountBytes}
	}
	return nil
}

// grown is how many bytes the records of r take after some changes. What makes them fewer is always possible.
func (s *Service) grown(r *openRepo, changes []recordChange) (int64, error) {
	was := r.head.Bytes
	if was < 0 {
		var err error
		if was, err = s.recordBytes(r); err != nil {
			return 0, err
		}
	}
	var delta int64
	for i := range changes {
		delta += int64(len(changes[i].record) - len(changes[i].old))
	}
	if delta <= 0 {
		return max(was+delta, 0), nil
	}
	return was + delta, s.fits(r, was+delta, 0)
}

// recordBytes adds up the records of a repository whose head row doesn't say.
func (s *Service) recordBytes(r *openRepo) (n int64, err error) {
	if err := r.drain(); err != nil {
		return 0, err
	}
	lo, hi := genRange(tableBlock, r.head.Gen)
	err = eachRow(s.store, lo, hi, func(k, v []byte) error {
		_, layer, err := splitBlockKey(k)
		if err != nil || layer >= 0 {
			return err
		}
		_, _, record, err := splitBlock(v)
		n += int64(len(record))
		return err
	})
	return n, err
}

func eachRow(from kv.Reader, lo, hi []byte, f func(k, v []byte) error) error {
	it := from.Iter(lo, hi)
	for ok := it.First(); ok; ok = it.Next() {
		if err := f(it.Key(), it.Value()); err != nil {
			return errors.Join(err, it.Close())
		}
	}
	return errors.Join(it.Err(), it.Close())
}
