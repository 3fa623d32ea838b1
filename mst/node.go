package mst

import (
	"bytes"
	"fmt"

	"github.com/barograph/baro/cid"
)

// Node is one node of the tree as it lies in a block, with its keys written out.
//
// A Node can be decoded into again and again: it keeps its memory. Views in it are valid until the next Decode.
type Node struct {
	Left    cid.CID // subtree left of the first entry, undefined if there is none
	Entries []NodeEntry

	keys []byte
}

// NodeEntry is one entry of a [Node].
type NodeEntry struct {
	Key   []byte  // the whole key, in memory of the node
	Value cid.CID // the record
	Right cid.CID // subtree between this entry and the next, undefined if there is none
}

// The shape of a node is so rigid that its decoder compares with templates. That is both the strictest and the fastest
// way: every byte that isn't length or content must be the one byte that canonical encoding allows.
//
//	{"e": [{"k": suffix, "p": prefix length, "t": link or null, "v": link}, …], "l": link or null}
const (
	nodeHead  = "\xa2\x61e"
	nodeLeft  = "\x61l"
	entryHead = "\xa4\x61k"
	entryP    = "\x61p"
	entryT    = "\x61t"
	entryV    = "\x61v"
	linkHead  = "\xd8\x2a\x58\x25\x00"
	cborNull  = 0xf6

	majorUint  = 0 << 5
	majorBytes = 2 << 5
	majorArray = 4 << 5
)

type nodeReader struct {
	b   []byte
	off int
}

func (r *nodeReader) fail(rule Rule, format string, args ...any) error {
	return &Error{Rule: rule, Detail: fmt.Sprintf(format, args...) + fmt.Sprintf(" at byte %d", r.off)}
}

func (r *nodeReader) literal(s string) error {
	if len(r.b)-r.off < len(s) || string(r.b[r.off:r.off+len(s)]) != s {
		return r.fail(RuleEncoding, "expected % x", s)
	}
	r.off += len(s)
	return nil
}

// skip2 and skip3 are literal for the short ones in every entry, without the error.
func (r *nodeReader) skip2(s string) bool {
	b := r.b[r.off:]
	if len(b) < 2 || b[0] != s[0] || b[1] != s[1] {
		return false
	}
	r.off += 2
	return true
}

func (r *nodeReader) skip3(s string) bool {
	b := r.b[r.off:]
	if len(b) < 3 || b[0] != s[0] || b[1] != s[1] || b[2] != s[2] {
		return false
	}
	r.off += 3
	return true
}

// head reads a length or number below 65,536, which is more than any in a node.
func (r *nodeReader) head(major byte) (int, error) {
	if r.off >= len(r.b) {
		return 0, r.fail(RuleEncoding, "truncated")
	}
	c := r.b[r.off]
	if c&0xe0 != major {
		return 0, r.fail(RuleEncoding, "major type %d, want %d", c>>5, major>>5)
	}
	rest := r.b[r.off+1:]
	switch c &= 0x1f; {
	case c < 24:
		r.off++
		return int(c), nil
	case c == 24 && len(rest) >= 1:
		if rest[0] < 24 {
			return 0, r.fail(RuleEncoding, "number not in its shortest form")
		}
		r.off += 2
		return int(rest[0]), nil
	case c == 25 && len(rest) >= 2:
		v := int(rest[0])<<8 | int(rest[1])
		if v < 256 {
			return 0, r.fail(RuleEncoding, "number not in its shortest form")
		}
		r.off += 3
		return v, nil
	case c == 26 || c == 27:
		return 0, r.fail(RuleEncoding, "number too large")
	}
	return 0, r.fail(RuleEncoding, "bad or truncated number")
}

func (r *nodeReader) link(c *cid.CID) error {
	// All that a link may begin with, in one look. What doesn't is told by the slow way what is wrong.
	if b := r.b[r.off:]; len(b) >= len(linkHead)+cid.Size && string(b[:6]) == linkHead+"\x01" && string(b[7:9]) == "\x12\x20" &&
		(b[6] == byte(cid.DagCBOR) || b[6] == byte(cid.Raw)) {
		*c = cid.CID(b[len(linkHead) : len(linkHead)+cid.Size])
		r.off += len(linkHead) + cid.Size
		return nil
	}
	if err := r.literal(linkHead); err != nil {
		return err
	}
	if len(r.b)-r.off < cid.Size {
		return r.fail(RuleEncoding, "truncated link")
	}
	v, err := cid.FromBytes(r.b[r.off : r.off+cid.Size])
	if err != nil {
		return r.fail(RuleLink, "%v", err)
	}
	*c = v
	r.off += cid.Size
	return nil
}

// subtree reads a link to a node, or null.
func (r *nodeReader) subtree(c *cid.CID) error {
	if r.off < len(r.b) && r.b[r.off] == cborNull {
		r.off++
		*c = cid.CID{}
		return nil
	}
	if err := r.link(c); err != nil {
		return err
	}
	if c.Codec() != cid.DagCBOR {
		return r.fail(RuleLink, "link to a node has codec 0x%02x", byte(c.Codec()))
	}
	return nil
}

// Decode reads a node and checks all that can be told from the node alone: encoding, codec of links, prefixes, order,
// length of keys, number of entries. Layers and bounds are for [Node.Check].
func (n *Node) Decode(b []byte) error {
	n.Left = cid.CID{}
	n.Entries = n.Entries[:0]
	n.keys = n.keys[:0]
	r := nodeReader{b: b}
	if err := r.literal(nodeHead); err != nil {
		return err
	}
	count, err := r.head(majorArray)
	if err != nil {
		return err
	}
	if count > MaxEntries {
		return r.fail(RuleEntries, "%d entries, more than %d", count, MaxEntries)
	}
	if cap(n.Entries) < count {
		// A declared length is not trusted: an entry takes at least 50 bytes.
		n.Entries = make([]NodeEntry, 0, min(count, len(b)/50+1))
	}
	var prev []byte
	for i := range count {
		if i < cap(n.Entries) {
			n.Entries = n.Entries[:i+1]
		} else {
			n.Entries = append(n.Entries, NodeEntry{})
		}
		e := &n.Entries[i] // as the node before has left it
		if !r.skip3(entryHead) {
			return r.literal(entryHead)
		}
		size, err := r.head(majorBytes)
		if err != nil {
			return err
		}
		if len(b)-r.off < size {
			return r.fail(RuleEncoding, "truncated key")
		}
		suffix := b[r.off : r.off+size]
		r.off += size
		if !r.skip2(entryP) {
			return r.literal(entryP)
		}
		p, err := r.head(majorUint)
		if err != nil {
			return err
		}
		switch {
		case p > len(prev):
			return r.fail(RulePrefix, "prefix of %d bytes, but the previous key has %d", p, len(prev))
		case p+size > MaxKey:
			return r.fail(RuleKey, "key of %d bytes, more than %d", p+size, MaxKey)
		case p+size == 0:
			return r.fail(RuleKey, "empty key")
		}
		// The suffix decides both the order and whether the prefix is the longest.
		if rest := prev[p:]; i > 0 {
			switch {
			case size == 0:
				return r.fail(RuleOrder, "key is a prefix of the previous one, or equal to it")
			case len(rest) > 0 && suffix[0] == rest[0]:
				if bytes.Compare(suffix, rest) <= 0 {
					return r.fail(RuleOrder, "key is not greater than the previous one")
				}
				return r.fail(RulePrefix, "prefix of %d bytes is not the longest", p)
			case len(rest) > 0 && suffix[0] < rest[0]:
				return r.fail(RuleOrder, "key is not greater than the previous one")
			}
		}
		start := len(n.keys)
		n.keys = append(n.keys, prev[:p]...)
		n.keys = append(n.keys, suffix...)
		prev = n.keys[start:len(n.keys):len(n.keys)]
		e.Key = prev
		if !r.skip2(entryT) {
			return r.literal(entryT)
		}
		if err := r.subtree(&e.Right); err != nil {
			return err
		}
		if !r.skip2(entryV) {
			return r.literal(entryV)
		}
		if err := r.link(&e.Value); err != nil {
			return err
		}
	}
	if err := r.literal(nodeLeft); err != nil {
		return err
	}
	if err := r.subtree(&n.Left); err != nil {
		return err
	}
	if r.off != len(b) {
		return r.fail(RuleEncoding, "%d bytes after the node", len(b)-r.off)
	}
	return nil
}

// Top is the layer to give to [Node.Check] for a top node, whose layer follows from its keys.
const Top = -1

// Check checks what a decoded node's place in the tree demands, and returns its layer: each key's layer, keys between lo
// and hi, both exclusive and both optional (empty), no empty leaf. checkKey may be nil.
func (n *Node) Check(layer int, lo, hi []byte, checkKey func(key []byte) error) (int, error) {
	if len(n.Entries) == 0 {
		switch {
		case layer == Top && n.Left.Defined():
			return 0, &Error{Rule: RuleTop, Detail: "the top node has no entries, only a child"}
		case layer == Top:
			return 0, nil // the empty tree
		case !n.Left.Defined():
			return 0, &Error{Rule: RuleEmpty, Detail: "a node without entries and without children"}
		case layer == 0:
			return 0, &Error{Rule: RuleDepth, Detail: "a node on layer 0 has a child"}
		}
		return layer, nil
	}
	first, last := n.Entries[0].Key, n.Entries[len(n.Entries)-1].Key
	if len(lo) > 0 && bytes.Compare(first, lo) <= 0 {
		return 0, &Error{Rule: RuleBounds, Key: string(first), Detail: fmt.Sprintf("not greater than %q, the key to the left of the subtree", lo)}
	}
	if len(hi) > 0 && bytes.Compare(last, hi) >= 0 {
		return 0, &Error{Rule: RuleBounds, Key: string(last), Detail: fmt.Sprintf("not less than %q, the key to the right of the subtree", hi)}
	}
	top, err := n.layer()
	if err != nil {
		return 0, err
	}
	for i := range n.Entries {
		e := &n.Entries[i]
		if top == 0 && e.Right.Defined() {
			return 0, &Error{Rule: RuleDepth, Key: string(e.Key), Detail: "a node on layer 0 has a child"}
		}
		if checkKey != nil {
			if err := checkKey(e.Key); err != nil {
				return 0, &Error{Rule: RuleKey, Key: string(e.Key), Detail: err.Error()}
			}
		}
	}
	switch {
	case top > MaxLayer:
		return 0, &Error{Rule: RuleHeight, Detail: fmt.Sprintf("top node on layer %d, more than %d", top, MaxLayer)}
	case top == 0 && n.Left.Defined():
		return 0, &Error{Rule: RuleDepth, Detail: "a node on layer 0 has a child"}
	case layer != Top && layer != top:
		return 0, &Error{Rule: RuleDepth, Key: string(first), Detail: fmt.Sprintf("keys of layer %d where the tree has layer %d", top, layer)}
	}
	return top, nil
}

// layer returns the layer of the keys, of which there is at least one and which have to be all on the same. They are hashed
// two by two.
func (n *Node) layer() (int, error) {
	top := Top
	for i := 0; i < len(n.Entries); i += 2 {
		pair := n.Entries[i:min(i+2, len(n.Entries))]
		var layers [2]int
		if len(pair) == 2 {
			layers[0], layers[1] = layersOf(pair[0].Key, pair[1].Key)
		} else {
			layers[0] = layerOf(pair[0].Key)
		}
		if i == 0 {
			top = layers[0]
		}
		for k := range pair {
			if l := layers[k]; l != top {
				return 0, &Error{Rule: RuleLayer, Key: string(pair[k].Key), Detail: fmt.Sprintf("belongs on layer %d, but lies beside a key of layer %d", l, top)}
			}
		}
	}
	return top, nil
}

// Append appends the canonical encoding of n to b.
func (n *Node) Append(b []byte) []byte {
	b = append(b, nodeHead...)
	b = appendHead(b, majorArray, len(n.Entries))
	var prev []byte
	for i := range n.Entries {
		e := &n.Entries[i]
		p := commonPrefix(prev, e.Key)
		b = appendEntry(b, p, e.Key[p:], &e.Right, &e.Value)
		prev = e.Key
	}
	b = append(b, nodeLeft...)
	return appendSubtree(b, &n.Left)
}

func appendEntry[S string | []byte](b []byte, prefix int, suffix S, right, value *cid.CID) []byte {
	b = appendKey(b, prefix, suffix)
	b = append(b, entryT...)
	b = appendSubtree(b, right)
	b = append(b, entryV+linkHead...)
	return append(b, value[:]...)
}

// appendKey appends the beginning of an entry.
func appendKey[S string | []byte](b []byte, prefix int, suffix S) []byte {
	b = append(b, entryHead...)
	b = appendHead(b, majorBytes, len(suffix))
	b = append(b, suffix...)
	b = append(b, entryP...)
	return appendHead(b, majorUint, prefix)
}

func appendSubtree(b []byte, c *cid.CID) []byte {
	if !c.Defined() {
		return append(b, cborNull)
	}
	b = append(b, linkHead...)
	return append(b, c[:]...)
}

func appendHead(b []byte, major byte, n int) []byte {
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n < 1<<8:
		return append(b, major|24, byte(n))
	case n < 1<<16:
		return append(b, major|25, byte(n>>8), byte(n))
	}
	return append(b, major|26, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}
