package repo

import (
	"fmt"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/syntax"
)

// MakeProof returns a CAR file that proves a record, or its absence: the commit, the nodes of the tree that lead to the
// path, and the record's block, which is nil if the record is absent. None is made of what isn't so: the commit has to be
// of the tree, and the record the one at the path.
func MakeProof(commit []byte, tree *mst.Tree, path string, record []byte) ([]byte, error) {
	c, err := DecodeLegacyCommit(commit)
	if err != nil {
		return nil, err
	}
	if err := checkPath(path); err != nil {
		return nil, &VerifyError{Reason: ReasonPathSyntax, Path: path, Err: err}
	}
	root, err := tree.Root()
	if err != nil {
		return nil, fmt.Errorf("proving %s: %w", path, err)
	}
	if c.Data != root {
		return nil, fmt.Errorf("proving %s: the commit is of tree %s, not %s", path, c.Data, root)
	}
	p, err := tree.Prove(path)
	if err != nil {
		return nil, fmt.Errorf("proving %s: %w", path, err)
	}
	if p.Found() != (record != nil) || record != nil && !p.Value.Verify(record) {
		return nil, fmt.Errorf("proving %s: the record is not the one in the tree", path)
	}
	top := cid.Sum(cid.DagCBOR, commit)
	b := car.AppendHeader(nil, top)
	b = car.AppendBlock(b, top, commit)
	for i := range p.Nodes {
		b = car.AppendBlock(b, p.Nodes[i].CID, p.Nodes[i].Bytes)
	}
	if record != nil {
		b = car.AppendBlock(b, p.Value, record)
	}
	return b, nil
}

// The kinds of a [Step].
const (
	StepBlocks    = "blocks"    // the file, all of whose blocks hash to their CIDs
	StepCommit    = "commit"    // its root, a commit of the account
	StepSignature = "signature" // made by the key
	StepNode      = "node"      // a node of the tree, linked from the step before
	StepRecord    = "record"    // the record's block, linked from the last node
	StepAbsent    = "absent"    // the last node has no room for the path but an empty one
)

// Step is one link of the chain from key to record that [VerifyProof] has checked.
type Step struct {
	Kind    string  `json:"kind"`
	CID     cid.CID `json:"cid,omitzero"`
	Size    int     `json:"size,omitempty"`    // bytes of the block
	Layer   int     `json:"layer,omitempty"`   // of a node
	Entries int     `json:"entries,omitempty"` // of a node
	Skipped bool    `json:"skipped,omitempty"` // not checked, for want of a key
	Detail  string  `json:"detail,omitempty"`
}

// Proof is what a proof has been found to prove.
type Proof struct {
	Commit    *Commit
	CommitCID cid.CID
	Path      string
	CID       cid.CID // undefined if the record is absent
	Record    []byte  // a view of the file, nil if the record is absent
	Signed    bool    // the signature was verified
	Steps     []Step
}

// Found reports whether the record is there.
func (p *Proof) Found() bool { return p.CID.Defined() }

// VerifyProof verifies a CAR file that should prove a record of an account, or its absence, such as com.atproto.sync.getRecord
// gives. Without a key all but the signature is verified, and Signed is false. An error is a [*VerifyError]; the proof then
// has the steps that were good.
//
// What is proven is what the account has signed, at the revision of the commit, which may be an old one. The nodes on the
// way are checked, the rest of the tree isn't there to be. The record is the block that was signed for; whether it is valid
// is another question.
func VerifyProof(b []byte, did syntax.DID, path string, key *keys.PublicKey) (*Proof, error) {
	p := &Proof{Path: path}
	if err := checkPath(path); err != nil {
		return p, &VerifyError{Reason: ReasonPathSyntax, Path: path, Err: err}
	}
	var blocks blockSet
	root, err := blocks.parse(b)
	if err != nil {
		return p, err
	}
	if err := checkRoot(root); err != nil {
		return p, err
	}
	p.Steps = append(p.Steps, Step{Kind: StepBlocks, Size: len(b), Detail: fmt.Sprintf("%d blocks, each of which hashes to its CID", len(blocks.list))})
	block, ok := blocks.find(&root)
	if !ok {
		return p, &VerifyError{Reason: ReasonMissingCommit, CID: root, Detail: root.String()}
	}
	c, err := DecodeCommit(block)
	if err != nil {
		return p, err
	}
	if c.DID != did {
		return p, failf(ReasonCommitDID, "the commit is of %s, not of %s", c.DID, did)
	}
	p.Commit, p.CommitCID = c, root
	p.Steps = append(p.Steps, Step{Kind: StepCommit, CID: root, Size: len(block), Detail: fmt.Sprintf("revision %s of %s", c.Rev, c.DID)})
	if key == nil {
		p.Steps = append(p.Steps, Step{Kind: StepSignature, Skipped: true, Detail: "no key given"})
	} else {
		if err := c.Verify(key); err != nil {
			return p, err
		}
		p.Signed = true
		p.Steps = append(p.Steps, Step{Kind: StepSignature, Detail: "by " + key.DIDKey()})
	}
	found, err := mst.OpenOptions(c.Data, &blocks, mst.Options{HashChecked: true, CheckKey: CheckPath}).Prove(path)
	if err != nil {
		return p, treeError(err)
	}
	for i := range found.Nodes {
		n := &found.Nodes[i]
		p.Steps = append(p.Steps, Step{Kind: StepNode, CID: n.CID, Size: len(n.Bytes), Layer: n.Layer, Entries: n.Entries})
	}
	if !found.Found() {
		p.Steps = append(p.Steps, Step{Kind: StepAbsent, Detail: fmt.Sprintf("no entry for %s where it would be", path)})
		return p, nil
	}
	record, ok := blocks.find(&found.Value)
	if !ok {
		return p, &VerifyError{Reason: ReasonMissingRecord, Path: path, CID: found.Value, Detail: found.Value.String()}
	}
	p.CID, p.Record = found.Value, record
	p.Steps = append(p.Steps, Step{Kind: StepRecord, CID: found.Value, Size: len(record), Detail: path})
	return p, nil
}
