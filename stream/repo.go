package stream

import (
	"fmt"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/repo"
)

// NewCommit returns the #commit that tells of m, as [repo.Update.Message] makes it, without a sequence number. They share
// their slices.
func NewCommit(m *repo.CommitMessage) *Commit {
	return &Commit{
		Repo: m.Repo, Rev: m.Rev, Since: m.Since, Time: m.Time, Commit: m.Commit, PrevData: m.PrevData,
		Ops: m.Ops, Blocks: m.Blocks, TooBig: m.TooBig, Rebase: m.Rebase,
	}
}

// Verifiable returns what [repo.VerifyCommit] wants to know of the message. Frame is the size of its frame in bytes, 0 if it
// came in none. They share their slices.
func (m *Commit) Verifiable(frame int) repo.CommitMessage {
	return repo.CommitMessage{
		Repo: m.Repo, Rev: m.Rev, Since: m.Since, Time: m.Time, Commit: m.Commit, PrevData: m.PrevData,
		Ops: m.Ops, Blocks: m.Blocks, TooBig: m.TooBig, Rebase: m.Rebase, FrameSize: frame,
	}
}

// Verifiable returns what [repo.VerifySync] wants to know of the message. Frame is the size of its frame in bytes, 0 if it
// came in none.
func (m *Sync) Verifiable(frame int) repo.SyncMessage {
	return repo.SyncMessage{DID: m.DID, Rev: m.Rev, Time: m.Time, Blocks: m.Blocks, FrameSize: frame}
}

// Records returns the record that each of the operations links to, nil for those that link to none: views of Blocks. Every
// record has the hash that the operation says; whether the operation is the account's is for [repo.VerifyCommit] to tell.
// It fails if a record is not there.
func (m *Commit) Records() ([][]byte, error) {
	out := make([][]byte, len(m.Ops))
	missing := 0
	var many map[cid.CID][]byte // instead of looking through the operations for each block
	if len(m.Ops) > 8 {
		many = make(map[cid.CID][]byte, len(m.Ops))
	}
	for i := range m.Ops {
		if c := m.Ops[i].CID; c.Defined() {
			missing++
			if many != nil {
				many[c] = nil
			}
		}
	}
	if missing == 0 {
		return out, nil
	}
	_, blocks, err := car.Parse(m.Blocks, car.Options{Unverified: true}) // those that count are hashed below
	if err != nil {
		return nil, fmt.Errorf("reading the blocks: %w", err)
	}
	for b, err := range blocks {
		if err != nil {
			return nil, fmt.Errorf("reading the blocks: %w", err)
		}
		if many != nil {
			if have, ok := many[b.CID]; ok && have == nil && b.CID.Verify(b.Data) {
				many[b.CID] = b.Data
			}
			continue
		}
		right := false
		for i := range m.Ops {
			if m.Ops[i].CID != b.CID || out[i] != nil {
				continue
			}
			if right = right || b.CID.Verify(b.Data); right {
				out[i] = b.Data
				missing--
			}
		}
		if missing == 0 {
			return out, nil
		}
	}
	for i := range m.Ops {
		c := m.Ops[i].CID
		if !c.Defined() {
			continue
		}
		if many != nil {
			out[i] = many[c]
		}
		if out[i] == nil {
			return nil, fmt.Errorf("the record of %s is missing", m.Ops[i].Path)
		}
	}
	return out, nil
}

// commitOf returns the commit that is the root of a message's blocks. Neither its hash nor its signature is checked.
func commitOf(blocks []byte) (*repo.Commit, error) {
	scan, err := car.NewScanner(blocks, car.Options{Unverified: true})
	if err != nil {
		return nil, err
	}
	for {
		b, err := scan.Next()
		if err != nil {
			return nil, err
		}
		if b.CID == scan.Root() {
			return repo.DecodeCommit(b.Data)
		}
	}
}
