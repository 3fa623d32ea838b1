package mst

import (
	"bytes"
	"slices"

	"github.com/barograph/baro/cid"
)

// emptyTree is the root of the tree without entries.
var emptyTree = cid.Sum(cid.DagCBOR, (&Node{}).Append(nil))

// undo is what [Partial.Invert] works with: stacks, of which each call of rebuild has the top.
type undo struct {
	ops     []Op
	changes []change
	text    []byte // keys of the changes
	kids    []kid
	gaps    []gap
	items   []item
	links   []cid.CID
	fresh   []relinked
	buf     []byte
}

// change is an operation that is to be undone, in the order of the keys.
type change struct {
	key  []byte
	from *cid.CID // what the tree has, nil for nothing
	to   *cid.CID // what it had
	// layer of a key that comes back. Others are where they are found.
	layer int32
	slot  int32 // where the key is below a node
	done  bool
}

// kid is a subtree, or none, that goes into a gap between the entries of a new node.
type kid struct {
	link   *cid.CID // nil for none
	node   int32    // -1 if it isn't there
	layer  int32
	lo, hi int32 // changes: only what is between their keys goes there; -1 for all
}

// gap is the place for one child of a new node: what lay there before, and the changes in it. Between each two kids is a
// change that has taken away the entry there.
type gap struct {
	kid, kids int32 // kids[kid:kids]
	a, b      int32 // changes[a:b]
}

// item is an entry of a new node: one of an old node, with the value of a change if that isn't -1, or, if node is -1, a change.
type item struct{ node, entry, change int32 }

// relinked is a child that is another one than before.
type relinked struct {
	slot int32
	link cid.CID
}

// reset lets go of the operations and the blocks.
func (u *undo) reset() {
	clear(u.ops)
	clear(u.changes)
	u.ops, u.changes = u.ops[:0], u.changes[:0]
	if cap(u.kids) > 256 { // more than is worth clearing each time
		u.kids = nil
	}
	clear(u.kids[:cap(u.kids)])
}

// Invert returns the root of the tree before ops, each of which has a key of its own. It is not ok if one of them isn't what
// has led to the tree, or if a node that it needs isn't there, or nothing is loaded. The nodes stay what they were.
//
// All operations are undone at once, from the top: of every node that changes the new entries are found, and then the new
// children, each in the same way from what of the old ones lies between two entries. Where an entry goes, what was to the
// left and right of it comes together; where one comes, what was there is divided.
func (p *Partial) Invert(ops []Op) (root cid.CID, ok bool) {
	if len(p.nodes) == 0 {
		return root, false
	}
	u := &p.undo
	u.ops = append(u.ops[:0], ops...)
	u.changes, u.text = u.changes[:0], u.text[:0]
	if len(ops) > 1 {
		slices.SortFunc(u.ops, compareOps)
	}
	top := &p.nodes[0]
	layer := top.layer
	for i := range u.ops {
		o := &u.ops[i]
		if o.Key == "" || len(o.Key) > MaxKey || i > 0 && o.Key == u.ops[i-1].Key {
			return root, false
		}
		at := len(u.text)
		u.text = append(u.text, o.Key...)
		c := change{key: u.text[at:]}
		if o.Value.Defined() {
			c.from = &o.Value
		}
		if o.Prev.Defined() {
			c.to = &o.Prev
		}
		switch {
		case c.from == nil && c.to == nil || c.to != nil && !c.to.Valid():
			return root, false
		case c.from == nil:
			c.layer = int32(layerOf(c.key))
			if layer = max(layer, c.layer); layer > MaxLayer {
				return root, false
			}
		}
		u.changes = append(u.changes, c)
	}
	u.gaps, u.items, u.links, u.fresh = u.gaps[:0], u.items[:0], u.links[:0], u.fresh[:0] // which a refusal has left as they were
	u.kids = append(u.kids[:0], kid{link: &p.root, layer: top.layer, lo: -1, hi: -1})
	if top.count == 0 && top.left == 0 {
		u.kids[0].link = nil
	}
	if !p.rebuild(&root, layer, gap{0, 1, 0, int32(len(u.changes))}, true) {
		return cid.CID{}, false
	}
	if !root.Defined() {
		root = emptyTree
	}
	return root, true
}

// rebuild finds the subtree on a layer that is to lie in a gap, undefined if there is none. The top of a tree, unlike other
// nodes, can't be without entries. CIDs are written to where they are needed: to copy one is slower than it seems, as those of
// 36 bytes are moved in pieces that overlap.
func (p *Partial) rebuild(out *cid.CID, layer int32, g gap, top bool) bool {
	u := &p.undo
	open := false // a change has yet to be done
	for i := g.a; i < g.b; i++ {
		open = open || !u.changes[i].done
	}
	one, some := (*kid)(nil), 0
	for i := g.kid; i < g.kids; i++ {
		if k := &u.kids[i]; k.link != nil {
			one = k
			some++
		}
	}
	switch {
	case some == 0 && !open:
		*out = cid.CID{}
		return true
	case layer < 0:
		return false
	case some == 1 && one.lo < 0 && one.hi < 0 && one.layer == layer:
		switch {
		case !open && (!top || one.node >= 0 && p.nodes[one.node].count > 0):
			*out = *one.link
			return true
		case open && g.kids-g.kid == 1 && one.node >= 0:
			// If this is the top, the node has entries: one without is only looked at for the top when what lay above it has gone,
			// and that leaves two kids, of which one is none.
			if p.below(one.node, g) {
				return p.relink(out, one.node, g)
			}
			if g.b-g.a == 1 && p.splice(out, one.node, &u.changes[g.a]) {
				return true
			}
		}
	}
	return p.remake(out, layer, g, top)
}

// below reports whether all changes in a gap lie below the entries of a node, and notes where.
func (p *Partial) below(node int32, g gap) bool {
	n := &p.nodes[node]
	for i := g.a; i < g.b; i++ {
		c := &p.undo.changes[i]
		slot, eq := p.find(n, c.key)
		c.slot = int32(slot)
		if eq || c.from == nil && c.layer >= n.layer {
			return false
		}
	}
	return true
}

// relink finds a node of which nothing changes but links to children.
func (p *Partial) relink(out *cid.CID, node int32, g gap) bool {
	u := &p.undo
	n := &p.nodes[node]
	start, kids := len(u.fresh), int32(len(u.kids))
	sameShape := true
	for a := g.a; a < g.b; {
		slot, b := u.changes[a].slot, a+1
		for b < g.b && u.changes[b].slot == slot {
			b++
		}
		link, child := p.slot(n, int(slot))
		u.kids = append(u.kids, kid{link, child, n.layer - 1, -1, -1})
		ok := p.rebuild(out, n.layer-1, gap{kids, kids + 1, a, b}, false)
		if u.kids = u.kids[:kids]; !ok {
			return false
		}
		sameShape = sameShape && link != nil && out.Defined()
		u.fresh = append(u.fresh, relinked{slot, *out})
		a = b
	}
	fresh := u.fresh[start:]
	u.fresh = u.fresh[:start]
	switch {
	case n.count == 0 && !fresh[0].link.Defined():
		*out = cid.CID{} // the node was there only to lead to what has gone
		return true
	case !sameShape:
		p.reshape(out, node, fresh)
		return true
	}
	u.buf = append(u.buf[:0], n.block...)
	same := len(n.block)
	for i := range fresh {
		at := n.left
		if slot := fresh[i].slot; slot > 0 {
			at = p.ents[n.first+slot-1].right
		}
		copy(u.buf[at:], fresh[i].link[:])
		same = min(same, int(at))
	}
	*out = cid.FromDigest(cid.DagCBOR, p.src.Rehash(n.id, u.buf, same))
	return true
}

// reshape is relink where a child comes or goes.
func (p *Partial) reshape(out *cid.CID, node int32, fresh []relinked) {
	u := &p.undo
	n := &p.nodes[node]
	items, links := len(u.items), len(u.links)
	for s := range n.count + 1 {
		link, _ := p.slot(n, int(s))
		switch {
		case len(fresh) > 0 && fresh[0].slot == s:
			u.links = append(u.links, fresh[0].link)
			fresh = fresh[1:]
		case link != nil:
			u.links = append(u.links, *link)
		default:
			u.links = append(u.links, cid.CID{})
		}
		if s < n.count {
			u.items = append(u.items, item{node, n.first + s, -1})
		}
	}
	p.encode(out, u.items[items:], u.links[links:])
	u.items, u.links = u.items[:items], u.links[:links]
}

// splice finds a node of which one entry comes, goes or has another value, and reports whether that is all that happens. The
// slot of the change has been noted. Most messages tell of one record, and most records have no subtrees beside them: so this
// does what remake would, by copying all that stays.
func (p *Partial) splice(out *cid.CID, node int32, c *change) bool {
	u := &p.undo
	n := &p.nodes[node]
	ents := p.ents[n.first : n.first+n.count]
	at := int(c.slot)
	link, _ := p.slot(n, at)
	var e, next *partEntry // the entry of the change, if it is there, and the one behind
	if at < len(ents) {
		if next = &ents[at]; bytes.Equal(p.key(next), c.key) {
			if e, next = next, nil; at+1 < len(ents) {
				next = &ents[at+1]
			}
		}
	}
	count := len(ents) + 1
	switch {
	case e == nil && (c.from != nil || link != nil): // it isn't there, or divides a subtree
		return false
	case e == nil:
	case c.from == nil || *c.from != *n.link(e.value):
		return false
	case c.to != nil:
		u.buf = append(u.buf[:0], n.block...)
		copy(u.buf[e.value:], c.to[:])
		*out = cid.FromDigest(cid.DagCBOR, p.src.Rehash(n.id, u.buf, int(e.value)))
		return true
	case e.right != 0 || len(ents) == 1: // a subtree moves to the entry before, or nothing is left
		return false
	default:
		count = len(ents) - 1
	}
	// The entries before stay, those behind the next one too. What that shares with the one before it is another number.
	b := appendHead(append(u.buf[:0], nodeHead...), majorArray, count)
	start := int32(len(nodeHead) + len(appendHead(b[len(b):], majorArray, len(ents))))
	rest := start // of the block, that stays
	var before []byte
	if at > 0 {
		rest = ents[at-1].value + cid.Size
		before = p.key(&ents[at-1])
	}
	b = append(b, n.block[start:rest]...)
	if e == nil {
		same := commonPrefix(before, c.key)
		b = appendEntry(b, same, c.key[same:], &cid.CID{}, c.to)
		before = c.key
	} else {
		rest = e.value + cid.Size
	}
	if next != nil {
		key := p.key(next)
		same := commonPrefix(before, key)
		b = appendKey(b, same, key[same:])
		if rest = next.right - int32(len(entryT)+len(linkHead)); next.right == 0 {
			rest = next.value - int32(len(entryT)+1+len(entryV)+len(linkHead))
		}
	}
	u.buf = append(b, n.block[rest:]...)
	*out = cid.Sum(cid.DagCBOR, u.buf)
	return true
}

// remake finds a node whose entries change, or that is put together or cut.
func (p *Partial) remake(out *cid.CID, layer int32, g gap, top bool) bool {
	u := &p.undo
	kids, gaps, items, links := len(u.kids), len(u.gaps), len(u.items), len(u.links)
	ok := p.sort(layer, g) && p.assemble(out, layer, u.gaps[gaps:], u.items[items:], top)
	u.kids, u.gaps, u.items, u.links = u.kids[:kids], u.gaps[:gaps], u.items[:items], u.links[:links]
	return ok
}

// sort pushes the entries of a new node that fills a gap, and the gaps between them.
func (p *Partial) sort(layer int32, g gap) bool {
	u := &p.undo
	next := g.a // change
	from := gap{kid: int32(len(u.kids)), a: next}
	// entry ends the gap before an entry. The next one begins with change a.
	entry := func(i item, a int32) {
		from.kids, from.b = int32(len(u.kids)), next
		u.gaps, u.items = append(u.gaps, from), append(u.items, i)
		from, next = gap{kid: from.kids, a: a}, a
	}
	// child puts in what lies between two old entries, and the keys that come back there, up to a limit if there is one.
	child := func(k kid, limit []byte) {
		u.kids = append(u.kids, k)
		for ; next < g.b; next++ {
			c := &u.changes[next]
			if c.done || limit != nil && bytes.Compare(c.key, limit) >= 0 {
				return
			}
			if c.from == nil && c.layer == layer {
				c.done = true
				u.kids[len(u.kids)-1].hi, k.lo = next, next
				entry(item{-1, -1, next}, next+1)
				u.kids = append(u.kids, k)
				next--
			}
		}
	}
	for at := g.kid; at < g.kids; at++ {
		if at > g.kid {
			if next == g.b || !u.changes[next].done {
				return false
			}
			next++ // which has taken away the entry between this one and the last
		}
		k := u.kids[at]
		if k.link == nil || k.layer < layer {
			child(k, nil)
			continue
		}
		if k.node < 0 {
			return false
		}
		n := &p.nodes[k.node]
		first, last, eq := 0, int(n.count), false // not equal, as the keys of the cuts belong on a higher layer
		if k.lo >= 0 {
			if first, eq = p.find(n, u.changes[k.lo].key); eq {
				return false
			}
		}
		if k.hi >= 0 {
			if last, eq = p.find(n, u.changes[k.hi].key); eq {
				return false
			}
		}
		for s := first; ; s++ {
			link, node := p.slot(n, s)
			c := kid{link, node, n.layer - 1, -1, -1}
			if s == first {
				c.lo = k.lo
			}
			if s == last {
				c.hi = k.hi
				child(c, nil)
				break
			}
			e := n.first + int32(s)
			key := p.key(&p.ents[e])
			child(c, key)
			if next == g.b || u.changes[next].done || !bytes.Equal(u.changes[next].key, key) {
				entry(item{k.node, e, -1}, next)
				continue
			}
			ch := &u.changes[next]
			if ch.from == nil || *ch.from != *n.link(p.ents[e].value) {
				return false
			}
			if ch.done = true; ch.to != nil {
				entry(item{k.node, e, next}, next+1)
			} else {
				next++
			}
		}
	}
	from.kids, from.b = int32(len(u.kids)), next
	u.gaps = append(u.gaps, from)
	return next == g.b // as always: the changes that are done lie between kids, and so none is left behind the last one
}

// assemble finds the node that has the given entries and something in the gaps around them.
func (p *Partial) assemble(out *cid.CID, layer int32, gaps []gap, items []item, top bool) bool {
	u := &p.undo
	top = top && len(items) == 0
	links := len(u.links)
	u.links = slices.Grow(u.links, len(gaps))[:links+len(gaps)]
	for i, g := range gaps {
		k := &u.kids[g.kid]
		switch {
		case g.kids-g.kid > 1 || g.a < g.b || k.lo >= 0 || k.hi >= 0 || k.layer != layer-1 || top:
			if !p.rebuild(out, layer-1, g, top) {
				return false
			}
			u.links[links+i] = *out
		case k.link != nil: // as most are: what was there
			u.links[links+i] = *k.link
		default:
			u.links[links+i] = cid.CID{}
		}
	}
	if len(items) > 0 || !top && u.links[links].Defined() {
		p.encode(out, items, u.links[links:links+len(gaps)])
	} else {
		*out = u.links[links]
	}
	return true
}

// encode finds the CID of a node. An entry that comes behind the same one as before is copied, but for its link.
func (p *Partial) encode(out *cid.CID, items []item, links []cid.CID) {
	u := &p.undo
	b := append(u.buf[:0], nodeHead...)
	b = appendHead(b, majorArray, len(items))
	var prev []byte
	was := item{-1, -1, -1}
	for i, it := range items {
		right := &links[i+1]
		if it.node < 0 {
			c := &u.changes[it.change]
			same := commonPrefix(prev, c.key)
			b = appendEntry(b, same, c.key[same:], right, c.to)
			prev, was = c.key, it
			continue
		}
		n, e := &p.nodes[it.node], &p.ents[it.entry]
		key, value := p.key(e), n.link(e.value)
		if it.change >= 0 {
			value = u.changes[it.change].to
		}
		if was.node == it.node && was.entry == it.entry-1 && (e.right != 0) == right.Defined() {
			start := p.ents[it.entry-1].value + cid.Size
			at := int32(len(b)) - start
			b = append(b, n.block[start:e.value+cid.Size]...)
			if e.right != 0 {
				copy(b[e.right+at:], right[:])
			}
			copy(b[e.value+at:], value[:])
		} else {
			same := commonPrefix(prev, key)
			b = appendEntry(b, same, key[same:], right, value)
		}
		prev, was = key, it
	}
	b = append(b, nodeLeft...)
	u.buf = appendSubtree(b, &links[0])
	*out = cid.Sum(cid.DagCBOR, u.buf)
}
