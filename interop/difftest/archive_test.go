package difftest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	peermst "github.com/bluesky-social/indigo/atproto/repo/mst"
	peer "github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo/repotest"
)

// archive is a CAR file taken apart: the slow model of repositories. It is no more than lists of bytes, so that it can be
// changed into whatever a hostile server might send, with hashes and signature made to fit.
type archive struct {
	header []byte
	blocks []block
}

type block struct{ cid, data []byte }

const (
	fVarint     fault = "length not in its shortest form"
	fHeader     fault = "header of another form"
	fVersion    fault = "header of another version"
	fNoRoot     fault = "no root"
	fRootCodec  fault = "root of another codec"
	fBlockCID   fault = "block under a CID of another kind"
	fBlockHash  fault = "block that isn't what its CID names"
	fNoCommit   fault = "commit missing"
	fCommit     fault = "commit of another form"
	fCommitDID  fault = "DID in the commit"
	fCommitRev  fault = "revision in the commit"
	fSigSize    fault = "signature of another size"
	fSignature  fault = "signature"
	fNode       fault = "node of another form"
	fNodeCodec  fault = "link to a node with another codec"
	fPrefix     fault = "prefix not the longest"
	fOrder      fault = "keys of a node out of order"
	fKeyLength  fault = "key empty or too long"
	fPath       fault = "key that is no path in normal form"
	fEntries    fault = "too many entries"
	fLayer      fault = "key on the wrong layer"
	fChildLayer fault = "child on the wrong layer"
	fBounds     fault = "key outside its parent's bounds"
	fEmpty      fault = "node without entries"
	fTop        fault = "top node without entries"
	fNoNode     fault = "node missing"
	fNoRecord   fault = "record missing"
)

// split takes a CAR file apart. It stops where it can't go on.
func split(b []byte, f faults) *archive {
	next := func() []byte {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			if n < 0 {
				f[fVarint] = true
			} else {
				f[fTruncated] = true
			}
			return nil
		}
		if shortest := binary.PutUvarint(make([]byte, 10), v); shortest != n || n > 9 {
			f[fVarint] = true
		}
		if b = b[n:]; v > uint64(len(b)) {
			f[fTruncated] = true
			return nil
		}
		s := b[:v:v]
		b = b[v:]
		return s
	}
	a := &archive{header: next()}
	for len(b) > 0 && a.header != nil {
		s := next()
		if s == nil {
			break
		}
		if len(s) < 36 {
			f[fBlockCID] = true
			continue
		}
		c := s[:36:36]
		if c[0] != 1 || c[1] != 0x71 && c[1] != 0x55 || c[2] != 0x12 || c[3] != 32 {
			f[fBlockCID] = true
		} else if sum := sha256.Sum256(s[36:]); !bytes.Equal(sum[:], c[4:]) {
			f[fBlockHash] = true
		}
		a.blocks = append(a.blocks, block{c, s[36:]})
	}
	return a
}

// join puts the file together again.
func (a *archive) join() []byte {
	b := binary.AppendUvarint(nil, uint64(len(a.header)))
	b = append(b, a.header...)
	for _, k := range a.blocks {
		b = binary.AppendUvarint(b, uint64(len(k.cid)+len(k.data)))
		b = append(append(b, k.cid...), k.data...)
	}
	return b
}

func (a *archive) find(c []byte) ([]byte, bool) {
	for _, k := range a.blocks {
		if bytes.Equal(k.cid, c) {
			return k.data, true
		}
	}
	return nil, false
}

// fields gives the entries of a map that has these keys and no others, in faultless CBOR; nil otherwise.
func fields(b []byte, keys ...string) map[string]*item {
	it, f := examine(b)
	if len(f) > 0 {
		return nil
	}
	return it.fields(keys...)
}

func (it *item) fields(keys ...string) map[string]*item {
	if it.major != mMap || len(it.kids) != 2*len(keys) {
		return nil
	}
	m := map[string]*item{}
	for i := 0; i < len(it.kids); i += 2 {
		if k := string(it.kids[i].body); !slices.Contains(keys, k) {
			return nil
		}
		m[string(it.kids[i].body)] = it.kids[i+1]
	}
	return m
}

// link gives the CID of a link, nil if it is none.
func (it *item) link() []byte {
	if it.major == mTag && it.arg == 42 {
		return it.kids[0].body[1:]
	}
	return nil
}

func (it *item) null() bool { return it.major == mSimple && it.info == 22 }

// root gives the first root of the header.
func (a *archive) root(f faults) []byte {
	h := fields(a.header, "roots", "version")
	if len(a.header) > 4096 || h == nil || h["roots"].major != mArray || h["version"].major > mNegative {
		f[fHeader] = true
		return nil
	}
	if h["version"].major != mUint || h["version"].arg != 1 {
		f[fVersion] = true
	}
	roots := h["roots"].kids
	for _, r := range roots {
		if r.link() == nil {
			f[fHeader] = true
			return nil
		}
	}
	if len(roots) == 0 {
		f[fNoRoot] = true
		return nil
	}
	if c := roots[0].link(); c[1] == 0x71 {
		return c
	}
	f[fRootCodec] = true
	return nil
}

// commit is what a commit says.
type commit struct {
	DID, Rev string
	Data     string
}

// readCommit gives the commit of a file, if it has one that keeps all rules.
func (a *archive) readCommit(key atcrypto.PublicKey, f faults) (c commit, ok bool) {
	root := a.root(f)
	if root == nil {
		return c, false
	}
	b, ok := a.find(root)
	if !ok {
		f[fNoCommit] = true
		return c, false
	}
	m := fields(b, "did", "rev", "sig", "data", "prev", "version")
	if m == nil || m["did"].major != mText || m["rev"].major != mText || m["sig"].major != mBytes || m["version"].major != mUint || m["version"].arg != 3 ||
		m["data"].link() == nil || m["data"].link()[1] != 0x71 || !m["prev"].null() && (m["prev"].link() == nil || m["prev"].link()[1] != 0x71) {
		f[fCommit] = true
		return c, false
	}
	c = commit{string(m["did"].body), string(m["rev"].body), string(m["data"].link())}
	if _, err := peer.ParseDID(c.DID); err != nil {
		f[fCommitDID] = true
	}
	if _, err := peer.ParseTID(c.Rev); err != nil {
		f[fCommitRev] = true
	}
	if len(m["sig"].body) != 64 {
		f[fSigSize] = true
	} else if key.HashAndVerify(unsigned(b), m["sig"].body) != nil {
		f[fSignature] = true
	}
	return c, true
}

// unsigned gives a commit without its signature.
func unsigned(b []byte) []byte {
	it, _, err := parseItem(b, 0)
	if err != nil {
		return nil
	}
	for i := 0; i+1 < len(it.kids); i += 2 {
		if string(it.kids[i].body) == "sig" {
			it.kids = slices.Delete(it.kids, i, i+2)
		}
	}
	it.fit()
	return it.append(nil)
}

// node is a node of the tree.
type node struct {
	left    []byte
	entries []entry
}

type entry struct {
	key          string
	value, right []byte
}

// readNode reads a node and finds what is wrong with it alone.
func readNode(b []byte, f faults) *node {
	m := fields(b, "e", "l")
	if m == nil || m["e"].major != mArray || !m["l"].null() && m["l"].link() == nil {
		f[fNode] = true
		return nil
	}
	n := &node{left: m["l"].link()}
	codec := func(c []byte) {
		if c != nil && c[1] != 0x71 {
			f[fNodeCodec] = true
		}
	}
	codec(n.left)
	if len(m["e"].kids) > mst.MaxEntries {
		f[fEntries] = true
	}
	prev := ""
	for i, k := range m["e"].kids {
		e := k.fields("k", "p", "t", "v")
		if e == nil || e["k"].major != mBytes || e["p"].major != mUint || e["v"].link() == nil || !e["t"].null() && e["t"].link() == nil {
			f[fNode] = true
			return nil
		}
		codec(e["t"].link())
		p := e["p"].arg
		if p > uint64(len(prev)) {
			f[fPrefix] = true
			return nil
		}
		key := prev[:p] + string(e["k"].body)
		if int(p) != commonPrefix(prev, key) {
			f[fPrefix] = true
		}
		if key == "" || len(key) > mst.MaxKey {
			f[fKeyLength] = true
		}
		if i > 0 && key <= prev {
			f[fOrder] = true
		}
		n.entries = append(n.entries, entry{key, e["v"].link(), e["t"].link()})
		prev = key
	}
	return n
}

func commonPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// readTree walks over the tree with the given root, as far as its nodes are there, and finds what is wrong with it.
func (a *archive) readTree(root []byte, f faults) map[string]string {
	entries := map[string]string{}
	var walk func(c []byte, layer int, lo, hi string, top bool)
	walk = func(c []byte, layer int, lo, hi string, top bool) {
		if c[1] != 0x71 {
			return // told of by readNode
		}
		b, ok := a.find(c)
		if !ok {
			f[fNoNode] = true
			return
		}
		n := readNode(b, f)
		if n == nil {
			return
		}
		if len(n.entries) == 0 {
			switch {
			case top && n.left != nil:
				f[fTop] = true
			case !top && n.left == nil:
				f[fEmpty] = true
			}
		}
		for i, e := range n.entries {
			h := peermst.HeightForKey([]byte(e.key))
			if i == 0 && top {
				layer = h
			}
			if h != layer {
				if i == 0 {
					f[fChildLayer] = true
				} else {
					f[fLayer] = true
				}
			}
			if lo != "" && e.key <= lo || hi != "" && e.key >= hi {
				f[fBounds] = true
			}
			collection, _, err := peer.ParseRepoPath(e.key)
			if err != nil || collection != collection.Normalize() {
				f[fPath] = true
			}
			entries[e.key] = string(e.value)
		}
		child := func(c []byte, lo, hi string) {
			if c == nil || top && len(n.entries) == 0 {
				return
			}
			if layer == 0 {
				f[fChildLayer] = true
				return
			}
			walk(c, layer-1, lo, hi, false)
		}
		for i := -1; i < len(n.entries); i++ {
			c, from, to := n.left, lo, hi
			if i >= 0 {
				c, from = n.entries[i].right, n.entries[i].key
			}
			if i+1 < len(n.entries) {
				to = n.entries[i+1].key
			}
			child(c, from, to)
		}
	}
	walk(root, 0, "", "", true)
	return entries
}

// set puts other data in place of a block's, with the CID that belongs to it there and in whatever links to it, up to the
// header. A commit is signed again unless it is the one that was set. A block that would have to link to itself keeps a
// link that leads nowhere.
func (a *archive) set(i int, data []byte) { a.follow(i, data, map[int]bool{}) }

func (a *archive) follow(i int, data []byte, busy map[int]bool) {
	old := a.blocks[i].cid
	sum := sha256.Sum256(data)
	c := append(bytes.Clone(old[:4]), sum[:]...)
	a.blocks[i] = block{c, data}
	if bytes.Equal(old, c) {
		return
	}
	busy[i] = true
	a.header = bytes.ReplaceAll(a.header, old, c)
	for j := range a.blocks {
		if k := a.blocks[j].data; !busy[j] && bytes.Contains(k, old) {
			k = bytes.ReplaceAll(k, old, c)
			if j == a.commitIndex() {
				k = sign(k, nil)
			}
			a.follow(j, k, busy)
		}
	}
	busy[i] = false
}

// commitIndex returns the index of the block that the header's first root names, -1 if there is none.
func (a *archive) commitIndex() int {
	root := a.root(faults{})
	return slices.IndexFunc(a.blocks, func(k block) bool { return bytes.Equal(k.cid, root) })
}

// sign signs a commit after a change by edit, which may be nil. What isn't a map comes back as it is.
func sign(b []byte, edit func(it *item)) []byte {
	it, _, err := parseItem(b, 0)
	if err != nil || it.major != mMap || it.info == 31 {
		return b
	}
	if edit != nil {
		edit(it)
		it.fit()
	}
	sig, err := repotest.Key().Sign(unsigned(it.append(nil)))
	if err != nil {
		panic(err)
	}
	for i := 0; i+1 < len(it.kids); i += 2 {
		if string(it.kids[i].body) == "sig" {
			it.kids[i+1] = byteString(sig)
		}
	}
	return it.append(nil)
}

// mutateArchive changes a repository in a way that knows its parts.
func mutateArchive(b []byte, seed uint64) []byte {
	r := seeded(seed)
	a := split(b, faults{})
	if len(a.blocks) == 0 {
		return scramble(b, r)
	}
	for range 1 + r.IntN(2) {
		a.mutate(r)
	}
	out := a.join()
	switch r.IntN(25) {
	case 0:
		out = out[:r.IntN(len(out))]
	case 1:
		out = scramble(out, r)
	case 2:
		out = append(out, pick(r, "\x00", "\x25", "\x80\x00")...)
	}
	return out
}

func (a *archive) mutate(r *rand.Rand) {
	if len(a.blocks) == 0 {
		return
	}
	i := r.IntN(len(a.blocks))
	k := a.blocks[i]
	switch r.IntN(20) {
	case 0, 1: // another encoding, or another value
		if it, rest, err := parseItem(k.data, 0); err == nil {
			it.mutate(r)
			a.set(i, append(it.append(nil), rest...))
		}
	case 2, 3, 4, 5, 6, 7, 8: // another node
		a.mutateNode(r)
	case 9, 10: // another commit
		a.mutateCommit(r)
	case 11:
		a.blocks = slices.Delete(a.blocks, i, i+1)
	case 12: // a block twice
		a.blocks = slices.Insert(a.blocks, r.IntN(len(a.blocks)+1), k)
	case 13:
		r.Shuffle(len(a.blocks), func(i, j int) { a.blocks[i], a.blocks[j] = a.blocks[j], a.blocks[i] })
	case 14: // one that nothing links to
		data := []byte(pick(r, "x", "\xa0", "\xa2\x61e\x80\x61l\xf6"))
		c := cid.Sum(pick(r, cid.Raw, cid.DagCBOR), data)
		if r.IntN(3) == 0 {
			data = append(data, 0)
		}
		a.blocks = slices.Insert(a.blocks, r.IntN(len(a.blocks)+1), block{c[:], data})
	case 15: // lies about the content
		a.blocks[i] = block{k.cid, scramble(k.data, r)}
	case 16: // another kind of CID
		c := bytes.Clone(k.cid)
		c[r.IntN(4)] = pick(r, byte(0), 1, 0x12, 0x20, 0x55, 0x70, 0x71, byte(r.Uint32()))
		a.blocks[i].cid = c
		if r.IntN(2) == 0 {
			a.header = bytes.ReplaceAll(a.header, k.cid, c)
			for j := range a.blocks {
				if j != i && bytes.Contains(a.blocks[j].data, k.cid) {
					a.set(j, bytes.ReplaceAll(a.blocks[j].data, k.cid, c))
				}
			}
		}
	default: // another header
		it, _, err := parseItem(a.header, 0)
		if err != nil {
			return
		}
		if m := it.fields("roots", "version"); m != nil && r.IntN(2) == 0 {
			more := linkTo(k.cid)
			switch r.IntN(4) {
			case 0:
				m["roots"].kids = append(m["roots"].kids, more)
			case 1:
				m["roots"].kids = append([]*item{more}, m["roots"].kids...)
			case 2:
				m["roots"].kids = nil
			default:
				m["version"].setArg(uint64(r.IntN(3)))
			}
			m["roots"].fit()
		} else {
			it.mutate(r)
		}
		a.header = it.append(nil)
	}
}

// nodes lists the blocks that are nodes.
func (a *archive) nodes() (list []int) {
	for i, k := range a.blocks {
		if readNode(k.data, faults{}) != nil {
			list = append(list, i)
		}
	}
	return list
}

// mutateNode changes the content of a node and writes it with all care: only the tree is wrong then.
func (a *archive) mutateNode(r *rand.Rand) {
	list := a.nodes()
	if len(list) == 0 {
		return
	}
	at := list[r.IntN(len(list))]
	n := readNode(a.blocks[at].data, faults{})
	anyNode := a.blocks[list[r.IntN(len(list))]].cid
	e := &entry{}
	if len(n.entries) > 0 {
		e = &n.entries[r.IntN(len(n.entries))]
	}
	slot := &n.left
	if r.IntN(2) == 0 && len(n.entries) > 0 {
		slot = &e.right
	}
	prefix := longest
	switch r.IntN(16) {
	case 0:
		*slot = nil
	case 1:
		*slot = anyNode
	case 2: // a subtree more: an empty node, or one with nothing but a subtree
		c := cid.Sum(cid.DagCBOR, []byte("\xa2\x61e\x80\x61l\xf6"))
		data := []byte("\xa2\x61e\x80\x61l\xf6")
		if r.IntN(2) == 0 {
			data = (&node{left: anyNode}).encode(prefix)
			c = cid.Sum(cid.DagCBOR, data)
		}
		*slot = c[:]
		a.blocks = append(a.blocks, block{c[:], data})
	case 3:
		*slot, e.value = e.value, *slot
		if e.value == nil {
			e.value = anyNode
		}
	case 4: // an entry less
		if len(n.entries) > 0 {
			i := r.IntN(len(n.entries))
			n.entries = slices.Delete(n.entries, i, i+1)
		}
	case 5: // an entry twice
		if len(n.entries) > 0 {
			i := r.IntN(len(n.entries))
			n.entries = slices.Insert(n.entries, i, n.entries[i])
		}
	case 6: // two keys change places
		if len(n.entries) > 1 {
			i, j := r.IntN(len(n.entries)), r.IntN(len(n.entries))
			n.entries[i].key, n.entries[j].key = n.entries[j].key, n.entries[i].key
		}
	case 7, 8, 9: // another key
		e.key = pick(r, "", e.key+"x", strings.ToUpper(e.key), strings.Replace(e.key, "/", "//", 1), strings.TrimPrefix(e.key, "com."), strings.ReplaceAll(e.key, "/", ""), e.key+"/a",
			e.key[:len(e.key)/2], "com.example.zzz/"+string(rune('a'+r.IntN(26))), "com.example.aaa/"+string(rune('a'+r.IntN(26))), e.key+strings.Repeat("y", pick(r, 100, 512, 1100)), "com.Example.a/1")
	case 10, 11: // a new key where it belongs, on whichever layer it is
		key := repotest.Path("com.example.c", r.IntN(4), r.IntN(3))
		i, _ := slices.BinarySearchFunc(n.entries, key, func(e entry, k string) int { return strings.Compare(e.key, k) })
		value := cid.Sum(cid.DagCBOR, repotest.Record(key))
		n.entries = slices.Insert(n.entries, i, entry{key: key, value: value[:]})
		a.blocks = append(a.blocks, block{value[:], repotest.Record(key)})
	case 12: // another record
		c := a.blocks[r.IntN(len(a.blocks))].cid
		e.value = bytes.Clone(c)
	case 13: // a shorter prefix
		which := r.IntN(max(1, len(n.entries)))
		prefix = func(p, i int) int {
			if i == which && p > 0 {
				return p - 1
			}
			return p
		}
	case 14: // links of codec raw
		if c := pick(r, slot, &e.value); *c != nil {
			*c = bytes.Clone(*c)
			(*c)[1] = 0x55
		}
	default: // the root of another tree: a node of this one
		i := a.commitIndex()
		if i < 0 {
			return
		}
		a.set(i, sign(a.blocks[i].data, func(it *item) { it.put("data", linkTo(anyNode)) }))
		return
	}
	if e.key != "" && e.value == nil {
		e.value = anyNode
	}
	a.set(at, n.encode(prefix))
}

// encode writes a node. Prefix is given the length of the longest prefix and the index of the entry.
func (n *node) encode(prefix func(p, i int) int) []byte {
	link := func(c []byte) *item {
		if c == nil {
			return &item{major: mSimple, info: 22}
		}
		return linkTo(c)
	}
	list := array()
	prev := ""
	for i, e := range n.entries {
		p := prefix(commonPrefix(prev, e.key), i)
		list.kids = append(list.kids, object(text("k"), byteString([]byte(e.key[p:])), text("p"), number(uint64(p), mUint), text("t"), link(e.right), text("v"), link(e.value)))
		prev = e.key
	}
	list.fit()
	return object(text("e"), list, text("l"), link(n.left)).append(nil)
}

// mutateCommit changes the commit, and signs it, with some exceptions.
func (a *archive) mutateCommit(r *rand.Rand) {
	i := a.commitIndex()
	if i < 0 {
		return
	}
	b := a.blocks[i].data
	switch r.IntN(8) {
	case 0:
		b = sign(b, func(it *item) {
			it.put("did", text(pick(r, "did:plc:", "did:web:example.com", "x", "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb")))
		})
	case 1:
		b = sign(b, func(it *item) { it.put("rev", text(pick(r, "3lscuqc52or2z", "yesterday", "", "zzzzzzzzzzzzz"))) })
	case 2:
		b = sign(b, func(it *item) { it.put("version", number(uint64(r.IntN(5)), pick(r, byte(mUint), mUint, mNegative))) })
	case 3:
		c := cid.Sum(pick(r, cid.Raw, cid.DagCBOR), nil)
		b = sign(b, func(it *item) { it.put(pick(r, "prev", "prev", "data"), linkTo(c[:])) })
	case 4:
		b = sign(b, func(it *item) { it.put(pick(r, "a", "extra"), randomLeaf(r)) })
	case 5: // a field less
		b = sign(b, func(it *item) {
			if n := len(it.kids) / 2; n > 0 {
				j := 2 * r.IntN(n)
				it.kids = slices.Delete(it.kids, j, j+2)
			}
		})
	case 6: // not signed again
		it, _, err := parseItem(b, 0)
		if err != nil || it.major != mMap {
			return
		}
		it.put("rev", text("3lscuqc52or33"))
		it.fit()
		b = it.append(nil)
	default: // another signature: cut, high-S or wrong
		it, _, err := parseItem(b, 0)
		if err != nil || it.major != mMap {
			return
		}
		for j := 0; j+1 < len(it.kids); j += 2 {
			if s := it.kids[j+1]; string(it.kids[j].body) == "sig" && len(s.body) == 64 {
				switch r.IntN(4) {
				case 0:
					s.body = s.body[:r.IntN(64)]
				case 1:
					s.body = otherS(s.body)
				case 2:
					s.body = append(s.body, 0)
				default:
					s.body = scramble(s.body, r)
				}
				s.fit()
			}
		}
		b = it.append(nil)
	}
	a.set(i, b)
}
