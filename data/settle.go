package data

import (
	"cmp"
	"slices"

	"github.com/barograph/baro/cbor"
)

// A container whose head turns out to be longer than the byte that was left for it, or whose entries have to change places,
// is put right by moving all that is in it. Containers within each other move the same bytes again and again, which is no
// matter in a record, 32 deep, and would be one in the body of an API call, which may nest thousands deep. So below that
// depth the moving is put off: what is to be done is noted, and done in one pass over the outermost of these containers.

// late is a container that is still to be put right: its head is one byte of no meaning, its entries are as they came.
type late struct {
	head, end uint32 // in dst
	n         uint32 // elements
	first     uint32 // in parser.kept
	count     uint32 // of them; 0 if the elements are in order
	major     byte
}

// movedDepth is how many containers within each other move at once what is in them.
const movedDepth = cbor.MaxDepth

// postpone notes what is to be done with the container at head, of n elements, which ends with dst. Entries are those of a
// map in their right order, nil if they are there in that order.
func (p *parser) postpone(head int, major byte, n int, entries []entry) {
	if n < 24 && len(entries) == 0 {
		p.dst[head] = major | byte(n)
		return
	}
	p.late = append(p.late, late{uint32(head), uint32(len(p.dst)), uint32(n), uint32(len(p.kept)), uint32(len(entries)), major})
	p.kept = append(p.kept, entries...)
}

// lateFrom returns where in late the containers from dst[at] on begin.
func (p *parser) lateFrom(at int) int {
	from := len(p.late)
	for from > 0 && int(p.late[from-1].head) >= at {
		from--
	}
	return from
}

// settle does what is to be done from dst[at] on.
func (p *parser) settle(at int) {
	from := p.lateFrom(at)
	if from == len(p.late) {
		return
	}
	list := p.late[from:]
	kept := list[0].first
	slices.SortFunc(list, func(a, b late) int { return cmp.Compare(a.head, b.head) })
	p.scratch = append(p.scratch[:0], p.dst[at:]...)
	p.dst = p.dst[:at]
	s := settler{p: p, at: at, list: list}
	s.copy(at, at+len(p.scratch))
	p.late, p.kept = p.late[:from], p.kept[:kept]
}

// settler copies bytes from scratch, which were at dst[at:], to where they belong.
type settler struct {
	p    *parser
	at   int
	list []late // by head
}

func (s *settler) copy(from, to int) {
	p := s.p
	for i := s.next(0, from); i < len(s.list) && int(s.list[i].head) < to; {
		l := &s.list[i]
		p.dst = append(p.dst, p.scratch[from-s.at:int(l.head)-s.at]...)
		if l.major == arrayMajor {
			p.dst = cbor.AppendArray(p.dst, int(l.n))
		} else {
			p.dst = cbor.AppendMap(p.dst, int(l.n))
		}
		if l.count == 0 {
			s.copy(int(l.head)+1, int(l.end))
		}
		for _, e := range p.kept[l.first : l.first+l.count] {
			s.copy(int(e.start), int(e.end))
		}
		from = int(l.end)
		i = s.next(i+1, from)
	}
	p.dst = append(p.dst, p.scratch[from-s.at:to-s.at]...)
}

// next returns the first container of list[i:] that doesn't begin before from.
func (s *settler) next(i, from int) int {
	n, _ := slices.BinarySearchFunc(s.list[i:], uint32(from), func(l late, v uint32) int { return cmp.Compare(l.head, v) })
	return i + n
}
