package repo

import (
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/syntax"
)

// Status is the outcome of a check.
type Status string

// The outcomes.
const (
	StatusOK      Status = "ok"
	StatusFailed  Status = "failed"
	StatusSkipped Status = "skipped"
)

// The names of checks. Those of the tree are "tree-" and the name of a rule of package mst.
const (
	CheckHeader         = "car-header"
	CheckRoot           = "car-root"
	CheckHashes         = "block-hashes"
	CheckCommit         = "commit-shape"
	CheckDID            = "commit-did"
	CheckRev            = "future-rev"
	CheckSignature      = "signature"
	CheckTree           = "tree-"
	CheckNodes          = "tree-complete"
	CheckRecordBlocks   = "record-blocks"
	CheckRecordEncoding = "record-encoding"
	CheckRecordSize     = "record-size"
	CheckUnlinked       = "unlinked-blocks"
)

// Check is one line of a [Report].
type Check struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	Detail string `json:"detail,omitempty"`
}

// Report is what [Open] and [Reader.Records] have found out about a file.
type Report struct {
	DID     syntax.DID `json:"did,omitempty"`
	Rev     syntax.TID `json:"rev,omitempty"`
	Version int64      `json:"version,omitempty"`
	Commit  cid.CID    `json:"commit,omitzero"`
	Data    cid.CID    `json:"data,omitzero"`

	Records     int   `json:"records"`
	RecordBytes int64 `json:"recordBytes"`
	Nodes       int   `json:"nodes"`
	Layer       int   `json:"layer"` // of the top node

	Blocks        int   `json:"blocks"`
	Bytes         int64 `json:"bytes"` // of blocks
	Unlinked      int   `json:"unlinked"`
	UnlinkedBytes int64 `json:"unlinkedBytes"`
	Duplicates    int   `json:"duplicates"` // blocks that came more than once
	Streamable    bool  `json:"streamable"` // no block came before it was wanted
	Held          int64 `json:"held"`       // bytes of blocks that did

	Checks []Check `json:"checks"`
}

// OK reports whether no check failed. Skipped ones don't count.
func (r *Report) OK() bool {
	for i := range r.Checks {
		if r.Checks[i].Status == StatusFailed {
			return false
		}
	}
	return true
}

// Failed returns the first check that failed, nil if none did.
func (r *Report) Failed() *Check {
	for i := range r.Checks {
		if r.Checks[i].Status == StatusFailed {
			return &r.Checks[i]
		}
	}
	return nil
}

func (r *Report) add(name string, s Status, detail string) {
	for i := range r.Checks {
		if c := &r.Checks[i]; c.Name == name {
			// A failure stays, whatever comes after.
			if c.Status != StatusFailed {
				c.Status, c.Detail = s, detail
			}
			return
		}
	}
	r.Checks = append(r.Checks, Check{name, s, detail})
}

func (r *Report) pass(name, detail string) { r.add(name, StatusOK, detail) }
func (r *Report) skip(name, detail string) { r.add(name, StatusSkipped, detail) }

func (r *Report) passTree() {
	for _, rule := range mst.Rules {
		if rule != mst.RuleHash { // that is among the hashes of all blocks
			r.pass(CheckTree+string(rule), "")
		}
	}
	r.pass(CheckNodes, "")
}

// fail enters the error that ended the reading.
func (r *Report) fail(v *VerifyError) {
	name := string(v.Reason)
	switch v.Reason {
	case ReasonCAR:
		name = CheckHeader
		if len(r.Checks) > 0 { // the header is behind us
			name = CheckHashes
		}
	case ReasonCARRoot, ReasonMissingCommit:
		name = CheckRoot
	case ReasonBlockHash:
		name = CheckHashes
	case ReasonCommitShape, ReasonCommitVersion, ReasonDIDSyntax, ReasonRevSyntax:
		name = CheckCommit
	case ReasonTree:
		name = CheckTree + string(v.Rule())
	case ReasonMissingNode:
		name = CheckNodes
	case ReasonMissingRecord:
		name = CheckRecordBlocks
	}
	r.add(name, StatusFailed, v.Error())
}

// finish puts the checks in their order and names those that were not reached.
func (r *Report) finish() {
	names := []string{CheckHeader, CheckRoot, CheckHashes, CheckCommit, CheckDID, CheckRev, CheckSignature}
	for _, rule := range mst.Rules {
		if rule != mst.RuleHash {
			names = append(names, CheckTree+string(rule))
		}
	}
	names = append(names, CheckNodes, CheckRecordBlocks, CheckRecordEncoding, CheckRecordSize, CheckUnlinked)
	var out []Check
	rest := r.Checks
	for _, name := range names {
		found := Check{name, StatusSkipped, "not reached"}
		for i := range rest {
			if rest[i].Name == name {
				found = rest[i]
				rest = append(rest[:i:i], rest[i+1:]...)
				break
			}
		}
		out = append(out, found)
	}
	r.Checks = append(out, rest...)
}
