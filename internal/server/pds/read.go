package pds

import (
	"errors"
	"fmt"
	"strings"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
)

// Reads go to the store, past the open repositories: they see what is durable, which is everything that was acknowledged.

// storedRecord is a record as it is read.
type storedRecord struct {
	Path   string
	RKey   string
	CID    cid.CID
	Record []byte
}

// getStored reads one record; nil when there is none.
func getStored(from kv.Reader, gen uint64, path string) (*storedRecord, error) {
	v, err := from.Get(recordKey(gen, path))
	if errors.Is(err, kv.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading record %s: %w", path, err)
	}
	_, c, record, err := splitBlock(v)
	if err != nil {
		return nil, err
	}
	return &storedRecord{Path: path, CID: c, Record: record}, nil
}

// listBytes bounds the size of one page of records.
const listBytes = 4 << 20

// listStored reads a page of a collection: newest (greatest) record key first, or in ascending order with reverse. The cursor is the
// last record key of the page before; the one returned is empty on the last page.
func listStored(from kv.Reader, gen uint64, collection syntax.NSID, limit int, cursor string, reverse bool) (page []storedRecord, next string, err error) {
	prefix := append(idKey(tableBlock, gen), collection...)
	lo := append(prefix[:len(prefix):len(prefix)], '/')
	hi := append(prefix[:len(prefix):len(prefix)], '/'+1)
	if cursor != "" {
		at := recordKey(gen, string(collection)+"/"+cursor)
		if reverse {
			lo = append(at, 0)
		} else {
			// Tree nodes at the same path sort before the record; they are passed over anyway.
			hi = at
		}
	}
	it := from.Iter(lo, hi)
	defer it.Close()
	first, step := it.Last, it.Prev
	if reverse {
		first, step = it.First, it.Next
	}
	size := 0
	for ok := first(); ok; ok = step() {
		path, layer, err := splitBlockKey(it.Key())
		if err != nil {
			return nil, "", err
		}
		if layer >= 0 {
			continue
		}
		if len(page) == limit || size > listBytes {
			next = page[len(page)-1].RKey
			break
		}
		_, c, record, err := splitBlock(it.Value())
		if err != nil {
			return nil, "", err
		}
		size += len(record)
		page = append(page, storedRecord{Path: path, RKey: path[len(collection)+1:], CID: c, Record: append([]byte(nil), record...)})
	}
	if err := it.Err(); err != nil {
		return nil, "", fmt.Errorf("listing %s: %w", collection, err)
	}
	return page, next, nil
}

// collectionsOf names the collections of a repository, with one seek for each.
func collectionsOf(from kv.Reader, gen uint64) ([]string, error) {
	lo, hi := genRange(tableBlock, gen)
	it := from.Iter(lo, hi)
	defer it.Close()
	var out []string
	for ok := it.First(); ok; {
		path, _, err := splitBlockKey(it.Key())
		if err != nil {
			return nil, err
		}
		if path == "" { // the one node of an empty tree
			ok = it.Next()
			continue
		}
		name, _, _ := strings.Cut(path, "/")
		out = append(out, name)
		ok = it.SeekGE(append(append(idKey(tableBlock, gen), name...), '/'+1))
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("listing collections: %w", err)
	}
	return out, nil
}

// proofCAR is the CAR that proves what a path holds, or that it holds nothing, under the signed commit.
func proofCAR(from kv.Reader, h *headRow, path string) ([]byte, error) {
	rec, err := getStored(from, h.Gen, path)
	if err != nil {
		return nil, err
	}
	var record []byte
	if rec != nil {
		record = rec.Record
	}
	return repo.MakeProof(h.Block, storedTree(from, h.Gen, h.Data), path, record)
}

// headsPage reads up to limit head rows with account ids above after.
func headsPage(from kv.Reader, after uint64, limit int) (page []*headRow, more bool, err error) {
	it := from.Iter(idKey(tableHead, after+1), []byte{tableHead + 1})
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if len(page) == limit {
			return page, true, nil
		}
		h, err := decodeHead(beUint64(it.Key()[1:]), it.Value())
		if err != nil {
			return nil, false, err
		}
		page = append(page, h)
	}
	return page, false, it.Err()
}

// blobsPage lists the downloadable blobs that records reference, in the order of their CIDs. With since, only those that a revision after
// it began to reference.
func (s *Service) blobsPage(from kv.Reader, h *headRow, since syntax.TID, after cid.CID, limit int) (page []cid.CID, more bool, err error) {
	above := uint64(0)
	if since != "" {
		above = since.Integer()
	}
	err = eachBlob(from, h.Gen, after, func(c cid.CID, refs kv.Iterator) (bool, error) {
		rev := beUint64(refs.Value())
		if rev <= above && since != "" {
			return true, nil
		}
		if n := len(page); n > 0 && page[n-1] == c {
			return true, nil
		}
		row, err := s.blobRow(from, h.account, c)
		if err != nil || !row.exists {
			return true, err
		}
		if len(page) == limit {
			more = true
			return false, nil
		}
		page = append(page, c)
		return true, nil
	})
	return page, more, err
}

// missingBlob is a blob that a record references and that is not here.
type missingBlob struct {
	CID  cid.CID
	Path string
}

// missingPage lists missing blobs in the order of their CIDs, each with one record that references it.
func (s *Service) missingPage(from kv.Reader, h *headRow, after cid.CID, limit int) (page []missingBlob, more bool, err error) {
	var last cid.CID
	err = eachBlob(from, h.Gen, after, func(c cid.CID, refs kv.Iterator) (bool, error) {
		if c == last {
			return true, nil
		}
		last = c
		row, err := s.blobRow(from, h.account, c)
		if err != nil || row.exists {
			return true, err
		}
		if len(page) == limit {
			more = true
			return false, nil
		}
		_, path, err := splitBlobRefKey(refs.Key())
		page = append(page, missingBlob{c, path})
		return true, err
	})
	return page, more, err
}

// missingCount counts referenced blobs, and those of them that are here.
func (s *Service) countBlobRefs(from kv.Reader, h *headRow) (expected, here int64, err error) {
	var last cid.CID
	err = eachBlob(from, h.Gen, cid.CID{}, func(c cid.CID, _ kv.Iterator) (bool, error) {
		if c == last {
			return true, nil
		}
		last = c
		expected++
		row, err := s.blobRow(from, h.account, c)
		if row.exists {
			here++
		}
		return true, err
	})
	return expected, here, err
}

// eachBlob visits the blob references of a generation in order, those of blobs after the given one only.
func eachBlob(from kv.Reader, gen uint64, after cid.CID, visit func(cid.CID, kv.Iterator) (bool, error)) error {
	lo, hi := genRange(tableBlobRef, gen)
	if after.Defined() {
		lo = kv.PrefixEnd(blobRefPrefix(gen, after))
	}
	it := from.Iter(lo, hi)
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		c, _, err := splitBlobRefKey(it.Key())
		if err != nil {
			return err
		}
		if len(it.Value()) != 8 {
			return fmt.Errorf("blob reference of %s: %w", c, errCorrupt)
		}
		if on, err := visit(c, it); err != nil || !on {
			return err
		}
	}
	return it.Err()
}

// countRows counts the records and blocks of a repository for checkAccountStatus.
func countRows(from kv.Reader, gen uint64) (records, blocks int64, err error) {
	lo, hi := genRange(tableBlock, gen)
	it := from.Iter(lo, hi)
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		blocks++
		if k := it.Key(); k[len(k)-1] == 1 && k[len(k)-2] == 0 {
			records++
		}
	}
	return records, blocks + 1, it.Err() // the commit is a block too
}
