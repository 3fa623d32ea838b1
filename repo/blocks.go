package repo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/mst"
)

// blockSet holds blocks by CID: open addressing on eight bytes of the digest, which is a good hash already.
type blockSet struct {
	list  []block
	table []int32 // index in list plus one, 0 if free
	bytes int64
}

type block struct {
	cid  cid.CID
	data []byte
	used bool
}

var _ mst.Source = (*blockSet)(nil)

func (s *blockSet) slot(c *cid.CID) *int32 {
	mask := uint64(len(s.table) - 1)
	for h := binary.LittleEndian.Uint64(c[cid.Size-8:]); ; h++ {
		p := &s.table[h&mask]
		if *p == 0 || s.list[*p-1].cid == *c {
			return p
		}
	}
}

// add puts in a block, unless it is there already. It keeps data.
func (s *blockSet) add(c cid.CID, data []byte) bool {
	if 2*len(s.list) >= len(s.table) {
		if s.list == nil {
			s.list = make([]block, 0, 16)
		}
		s.table = make([]int32, max(32, 2*len(s.table)))
		for i := range s.list {
			*s.slot(&s.list[i].cid) = int32(i + 1)
		}
	}
	p := s.slot(&c)
	if *p != 0 {
		return false
	}
	s.list = append(s.list, block{cid: c, data: data})
	*p = int32(len(s.list))
	s.bytes += int64(len(data))
	return true
}

func (s *blockSet) get(c cid.CID) *block {
	if len(s.table) == 0 {
		return nil
	}
	if i := *s.slot(&c); i != 0 {
		return &s.list[i-1]
	}
	return nil
}

// Load implements [mst.Source].
func (s *blockSet) Load(c cid.CID, _ mst.Pos) ([]byte, error) {
	if b := s.get(c); b != nil {
		b.used = true
		return b.data, nil
	}
	return nil, fmt.Errorf("block %s: %w", c, mst.ErrNotFound)
}

// parse puts in the blocks of a CAR file, as views of it, and returns its roots. Every block is hashed.
func (s *blockSet) parse(b []byte) ([]cid.CID, error) {
	sc, err := car.NewScanner(b, car.Options{})
	if err != nil {
		return nil, carError(err)
	}
	for {
		k, err := sc.Next()
		if err == io.EOF {
			return sc.Roots(), nil
		}
		if err != nil {
			return nil, carError(err)
		}
		s.add(k.CID, k.Data)
	}
}

// carError gives an error of package car its reason. Errors of the input itself stay what they are.
func carError(err error) error {
	var e *car.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("reading the CAR file: %w", err)
	}
	switch e.Rule {
	case car.RuleHash:
		return &VerifyError{Reason: ReasonBlockHash, Err: err}
	case car.RuleBlockSize:
		return &VerifyError{Reason: ReasonRecordTooBig, Err: err}
	case car.RuleBytes, car.RuleBlocks:
		return &VerifyError{Reason: ReasonFileTooBig, Err: err}
	}
	return &VerifyError{Reason: ReasonCAR, Err: err}
}
