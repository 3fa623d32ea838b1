package links

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"

	"github.com/barograph/baro/internal/kv"
	"github.com/barograph/baro/syntax"
)

// The rows of the index. Numbers are big-endian, so that keys sort by them; strings in the middle of a key have an end mark.
//
//	I did            → actor            every DID that was seen, as author or in a link
//	J actor          → did
//	N name           → number           collections, and sources ("collection:path")
//	n number         → name
//	U hash           → uri              targets that have no form of their own
//	V hash           → how many links in F name it
//	A actor          → flags, linking records, state of the repository
//	F actor path     → cid, links       every record, linking or not
//	T target source time did [rkey]     every link of an account that is shown, by time
//	D target source did time [rkey]     the same, by account
//	M target source did → how many      of its links, if more than one
//	C target source  → links, accounts
//	S name           → cursor, figures, a walk that was cut short, the format
const (
	rowActor    = 'I'
	rowDID      = 'J'
	rowName     = 'N'
	rowNumber   = 'n'
	rowURI      = 'U'
	rowURIRefs  = 'V'
	rowAccount  = 'A'
	rowForward  = 'F'
	rowByTime   = 'T'
	rowByDID    = 'D'
	rowMultiple = 'M'
	rowCount    = 'C'
	rowState    = 'S'
)

// Forms of targets. Each is of a fixed length or has an end mark, so that none is a prefix of another.
const (
	targetDID        = 1 // actor
	targetTID        = 2 // actor, collection, TID: at://did/collection/tid
	targetRecord     = 3 // actor, collection, record key
	targetHash       = 4 // 16 bytes of SHA-256 of the string
	targetAuthority  = 5 // actor: at://did
	targetCollection = 6 // actor, collection: at://did/collection
)

const hashSize = 16

// Forms of a DID in a key. They sort as the DIDs do, within a form.
const (
	didPLC   = 1 // 15 bytes
	didOther = 2 // string with end mark
)

const plcLen = 24

// base32 digits in the order of their bytes, so that packed DIDs sort like strings.
const plcDigits = "234567abcdefghijklmnopqrstuvwxyz"

var plcValue = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i := range plcDigits {
		t[plcDigits[i]] = byte(i)
	}
	return t
}()

// appendDID appends a DID: 16 bytes for most.
func appendDID(k []byte, did string) []byte {
	if id, ok := strings.CutPrefix(did, "did:plc:"); ok && len(id) == plcLen {
		n := len(k)
		k = append(k, didPLC)
		var acc uint64
		bits := 0
		for i := range plcLen {
			v := plcValue[id[i]]
			if v == 0xff {
				return kv.AppendString(append(k[:n], didOther), did)
			}
			acc = acc<<5 | uint64(v)
			if bits += 5; bits >= 8 {
				bits -= 8
				k = append(k, byte(acc>>bits))
			}
		}
		return k
	}
	return kv.AppendString(append(k, didOther), did)
}

// cutDID reads what appendDID wrote.
func cutDID(k []byte) (did string, rest []byte, ok bool) {
	if len(k) == 0 {
		return "", nil, false
	}
	switch k[0] {
	case didPLC:
		if len(k) < 16 {
			return "", nil, false
		}
		out := append(make([]byte, 0, 8+plcLen), "did:plc:"...)
		var acc uint64
		bits := 0
		for _, b := range k[1:16] {
			acc, bits = acc<<8|uint64(b), bits+8
			for bits >= 5 {
				bits -= 5
				out = append(out, plcDigits[acc>>bits&31])
			}
		}
		return string(out), k[16:], true
	case didOther:
		return kv.CutString(k[1:])
	}
	return "", nil, false
}

// didSize returns the length of the DID at the start of k.
func didSize(k []byte) int {
	if len(k) >= 16 && k[0] == didPLC {
		return 16
	}
	_, rest, ok := cutDID(k)
	if !ok {
		return len(k)
	}
	return len(k) - len(rest)
}

// appendTime appends what links are ordered by: the time in a record key that is a TID. Other keys have none and come first;
// they are told apart by what appendKey appends.
func appendTime(k []byte, rkey string) []byte {
	if syntax.ValidTID(rkey) {
		return kv.AppendUint64(k, syntax.TID(rkey).Integer())
	}
	return kv.AppendUint64(k, 0)
}

// appendKey appends a record key that appendTime doesn't say.
func appendKey(k []byte, rkey string) []byte {
	if syntax.ValidTID(rkey) {
		return k
	}
	return kv.AppendString(k, rkey)
}

// cutKey reads a record key from its time and what appendKey wrote.
func cutKey(time uint64, rest []byte) (string, bool) {
	if len(rest) == 0 {
		return string(syntax.TIDFromInteger(time)), true
	}
	rkey, rest, ok := kv.CutString(rest)
	return rkey, ok && len(rest) == 0
}

// place is where a link stands in T, after target and source: time, did, key. It is also what cursors are made of.
func appendPlace(k []byte, did []byte, rkey string) []byte {
	k = appendTime(k, rkey)
	k = append(k, did...)
	return appendKey(k, rkey)
}

// cutPlace reads a place.
func cutPlace(p []byte) (did, rkey string, ok bool) {
	time, rest, ok := kv.CutUint64(p)
	if !ok {
		return "", "", false
	}
	if did, rest, ok = cutDID(rest); !ok {
		return "", "", false
	}
	rkey, ok = cutKey(time, rest)
	return did, rkey, ok
}

// turn makes of a place in T the one in D, or the other way round with back.
func turnPlace(dst, place []byte) []byte {
	n := didSize(place[8:])
	dst = append(dst, place[8:8+n]...)
	dst = append(dst, place[:8]...)
	return append(dst, place[8+n:]...)
}

func unturnPlace(dst, place []byte) []byte {
	n := didSize(place)
	dst = append(dst, place[n:n+8]...)
	dst = append(dst, place[:n]...)
	return append(dst, place[n+8:]...)
}

func actorKey(row byte, actor uint32) []byte { return kv.AppendUint32([]byte{row}, actor) }

func recordKey(actor uint32, path string) []byte { return append(actorKey(rowForward, actor), path...) }

func hashTarget(s string) []byte {
	h := sha256.Sum256([]byte(s))
	return append([]byte{targetHash}, h[:hashSize]...)
}

// rowKey is a row of a target and a source.
func rowKey(row byte, target []byte, source uint32) []byte {
	k := make([]byte, 0, 64)
	k = append(k, row)
	k = append(k, target...)
	return kv.AppendUint32(k, source)
}

func uvarint(b []byte) uint64 { v, _ := binary.Uvarint(b); return v }
