package pds

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/syntax"
)

// The one key space of the service. Every table is one leading byte; numbers are big endian so that byte order is number order.
//
//	a/…                                account rows (account.go): nothing else writes there
//	d  did                             → account id (8 bytes)
//	h  account                         → head row: hosting status, current commit
//	r  gen path 00 00 (255-layer)      → tree node whose subtree starts at path: rev, CID, bytes
//	r  gen path 00 01                  → record at path: rev, CID, bytes
//	x  gen digest[:16] position        → empty; finds a record by CID (position = path 00 01)
//	f  gen cid path                    → rev; the record at path references the blob
//	l  gen digest[:16] path            → empty; finds the record of a subject (subject.go)
//	b  account cid                     → blob row: state, size, MIME type
//	t  time account cid                → empty; a blob nobody references, in order of age
//	g  account cid                     → empty; a blob file that may exist without a row
//	q  gen cid                         → a block that an import parks
//	s  gen                             → account id; a generation still being filled by an import
//	e/…                                the event log
//
// A repository lives under a generation number of its own, not under its account: an import fills a new generation beside the
// old one and one batch makes the account point at it. Within a generation, rows sort exactly like the streamable CAR order (a node,
// then its slots, records in between), because a node is keyed by the first path of its subtree, higher layers first, and a record
// comes after all nodes that begin with it. So an export is one scan, and a child node is the next row after its left neighbour.
const (
	tableAccountID = 'd'
	tableHead      = 'h'
	tableBlock     = 'r'
	tableByCID     = 'x'
	tableBlobRef   = 'f'
	tableBlob      = 'b'
	tableTemp      = 't'
	tableGarbage   = 'g'
	tableStaging   = 's'
)

// eventPrefix is the part of the key space that the event log keeps.
var eventPrefix = []byte("e/")

// errCorrupt marks a row that this program cannot have written: the caller stops instead of serving doubtful data.
var errCorrupt = errors.New("corrupt row")

func appendID(b []byte, id uint64) []byte { return binary.BigEndian.AppendUint64(b, id) }

func idKey(table byte, id uint64) []byte {
	return appendID(append(make([]byte, 0, 9), table), id)
}

func didKey(did syntax.DID) []byte {
	return append([]byte{tableAccountID}, did...)
}

// genRange is all keys of a table that belong to one generation or account.
func genRange(table byte, id uint64) (lo, hi []byte) {
	lo = idKey(table, id)
	return lo, kv.PrefixEnd(lo)
}

func nodeKey(gen uint64, first string, layer int) []byte {
	return appendNodeKey(make([]byte, 0, 9+len(first)+3), gen, first, layer)
}

func appendNodeKey(b []byte, gen uint64, first string, layer int) []byte {
	b = appendID(append(b, tableBlock), gen)
	b = append(b, first...)
	return append(b, 0, 0, byte(255-layer))
}

func recordKey(gen uint64, path string) []byte {
	b := make([]byte, 0, 9+len(path)+2)
	b = appendID(append(b, tableBlock), gen)
	b = append(b, path...)
	return append(b, 0, 1)
}

// splitBlockKey takes a key of the block table apart: the path and, for a node, its layer; layer is -1 for a record.
func splitBlockKey(key []byte) (path string, layer int, err error) {
	if len(key) < 11 || key[0] != tableBlock {
		return "", 0, fmt.Errorf("block key %x: %w", key, errCorrupt)
	}
	rest := key[9:]
	n := len(rest)
	if rest[n-1] == 1 && rest[n-2] == 0 {
		return string(rest[:n-2]), -1, nil
	}
	if n >= 3 && rest[n-2] == 0 && rest[n-3] == 0 {
		return string(rest[:n-3]), 255 - int(rest[n-1]), nil
	}
	return "", 0, fmt.Errorf("block key %x: %w", key, errCorrupt)
}

// byCIDKey leads from a CID to the record row whose key is given.
func byCIDKey(c cid.CID, blockKey []byte) []byte {
	digest := c.Digest()
	b := make([]byte, 0, len(blockKey)+16)
	b = append(b, tableByCID)
	b = append(b, blockKey[1:9]...)
	b = append(b, digest[:16]...)
	return append(b, blockKey[9:]...)
}

// blockKeyFromIndex is the inverse of byCIDKey.
func blockKeyFromIndex(key []byte) []byte {
	b := make([]byte, 0, len(key)-16)
	b = append(b, tableBlock)
	b = append(b, key[1:9]...)
	return append(b, key[25:]...)
}

func byCIDPrefix(gen uint64, c cid.CID) []byte {
	digest := c.Digest()
	b := appendID(append(make([]byte, 0, 25), tableByCID), gen)
	return append(b, digest[:16]...)
}

// A block row is the revision that wrote it (8 bytes), the CID (36 bytes) and the block.
const blockHeader = 8 + cid.Size

func appendBlock(b []byte, rev syntax.TID, c cid.CID, data []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, rev.Integer())
	b = append(b, c[:]...)
	return append(b, data...)
}

func splitBlock(v []byte) (rev uint64, c cid.CID, data []byte, err error) {
	if len(v) < blockHeader {
		return 0, c, nil, fmt.Errorf("block row of %d bytes: %w", len(v), errCorrupt)
	}
	copy(c[:], v[8:])
	return binary.BigEndian.Uint64(v), c, v[blockHeader:], nil
}

func blobRefKey(gen uint64, c cid.CID, path string) []byte {
	b := appendID(append(make([]byte, 0, 9+cid.Size+len(path)), tableBlobRef), gen)
	b = append(b, c[:]...)
	return append(b, path...)
}

func blobRefPrefix(gen uint64, c cid.CID) []byte { return blobRefKey(gen, c, "") }

func splitBlobRefKey(key []byte) (c cid.CID, path string, err error) {
	if len(key) <= 9+cid.Size {
		return c, "", fmt.Errorf("blob reference key %x: %w", key, errCorrupt)
	}
	copy(c[:], key[9:])
	return c, string(key[9+cid.Size:]), nil
}

func blobKey(account uint64, c cid.CID) []byte {
	return append(idKey(tableBlob, account), c[:]...)
}

func garbageKey(account uint64, c cid.CID) []byte {
	return append(idKey(tableGarbage, account), c[:]...)
}

func tempKey(micros int64, account uint64, c cid.CID) []byte {
	b := appendID([]byte{tableTemp}, uint64(micros))
	b = appendID(b, account)
	return append(b, c[:]...)
}

// Blob states: a temporary blob can be referenced but not downloaded.
const (
	blobTemporary = 'T'
	blobPermanent = 'P'
)

// blobRow is what is known of a stored blob.
type blobRow struct {
	State  byte
	Since  int64 // upload time, microseconds
	Size   int64
	MIME   string
	exists bool
}

func (r blobRow) encode() []byte {
	b := append(make([]byte, 0, 17+len(r.MIME)), r.State)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Since))
	b = binary.BigEndian.AppendUint64(b, uint64(r.Size))
	return append(b, r.MIME...)
}

func decodeBlobRow(v []byte) (blobRow, error) {
	if len(v) < 17 || (v[0] != blobTemporary && v[0] != blobPermanent) {
		return blobRow{}, fmt.Errorf("blob row: %w", errCorrupt)
	}
	return blobRow{
		State:  v[0],
		Since:  int64(binary.BigEndian.Uint64(v[1:])),
		Size:   int64(binary.BigEndian.Uint64(v[9:])),
		MIME:   string(v[17:]),
		exists: true,
	}, nil
}

// hosting is the hosting status of an account in the words of the #account event; the zero value is active.
type hosting string

// Hosting states that a PDS gives; https://atproto.com/specs/account.
const (
	hostingActive      hosting = ""
	hostingDeactivated hosting = "deactivated"
	hostingTakendown   hosting = "takendown"
	hostingSuspended   hosting = "suspended"
	hostingDeleted     hosting = "deleted"
)

// headRow is the state of a repository after its latest commit.
type headRow struct {
	Gen     uint64
	Status  hosting
	Rev     syntax.TID
	Commit  cid.CID
	Data    cid.CID
	DID     syntax.DID
	Block   []byte // the signed commit
	Bytes   int64  // of all records; -1 if an older version wrote the row, which didn't count
	account uint64 // from the key
}

const (
	headVersion    = 2
	headVersionOld = 1 // without Bytes
)

func (h *headRow) encode() []byte {
	b := make([]byte, 0, 1+8+8+1+len(h.Status)+13+2*cid.Size+2+len(h.DID)+len(h.Block))
	b = append(b, headVersion)
	b = appendID(b, h.Gen)
	b = appendID(b, uint64(h.Bytes))
	b = append(b, byte(len(h.Status)))
	b = append(b, h.Status...)
	b = append(b, h.Rev...)
	b = append(b, h.Commit[:]...)
	b = append(b, h.Data[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(h.DID)))
	b = append(b, h.DID...)
	return append(b, h.Block...)
}

func decodeHead(account uint64, v []byte) (*headRow, error) {
	bad := func() (*headRow, error) { return nil, fmt.Errorf("head row of account %d: %w", account, errCorrupt) }
	if len(v) < 10 || v[0] != headVersion && v[0] != headVersionOld {
		return bad()
	}
	h := &headRow{account: account, Gen: binary.BigEndian.Uint64(v[1:]), Bytes: -1}
	if v[0] == headVersion {
		if len(v) < 18 {
			return bad()
		}
		h.Bytes = int64(binary.BigEndian.Uint64(v[9:]))
		v = v[8:]
	}
	n := int(v[9])
	v = v[10:]
	if len(v) < n+13+2*cid.Size+2 {
		return bad()
	}
	h.Status, v = hosting(v[:n]), v[n:]
	h.Rev, v = syntax.TID(v[:13]), v[13:]
	copy(h.Commit[:], v)
	v = v[cid.Size:]
	copy(h.Data[:], v)
	v = v[cid.Size:]
	n = int(binary.BigEndian.Uint16(v))
	v = v[2:]
	if len(v) < n {
		return bad()
	}
	h.DID, v = syntax.DID(v[:n]), v[n:]
	h.Block = append([]byte(nil), v...)
	return h, nil
}

// lookupAccount gives the id under which a DID's repository is kept; ok is false when it is not hosted here.
func lookupAccount(r kv.Reader, did syntax.DID) (id uint64, ok bool, err error) {
	v, err := r.Get(didKey(did))
	switch {
	case errors.Is(err, kv.ErrNotFound):
		return 0, false, nil
	case err != nil:
		return 0, false, fmt.Errorf("looking up %s: %w", did, err)
	case len(v) != 8:
		return 0, false, fmt.Errorf("account id of %s: %w", did, errCorrupt)
	}
	return binary.BigEndian.Uint64(v), true, nil
}

// loadHead reads the head row of a DID; nil without an error when it is not hosted here.
func loadHead(r kv.Reader, did syntax.DID) (*headRow, error) {
	id, ok, err := lookupAccount(r, did)
	if err != nil || !ok {
		return nil, err
	}
	v, err := r.Get(idKey(tableHead, id))
	if errors.Is(err, kv.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the head of %s: %w", did, err)
	}
	return decodeHead(id, v)
}
