package repo

import (
	"fmt"
	"slices"
	"strings"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/syntax"
)

// Status is the outcome of a check.
type Status string

// The outcomes.
const (
	StatusOK            Status = "ok"
	StatusFailed        Status = "failed"
	StatusSkipped       Status = "skipped"        // could be checked, but wasn't; the detail says why
	StatusNotApplicable Status = "not-applicable" // a rule of something else
)

// Check is one line of a [Report]: a rule and whether it was kept.
type Check struct {
	Name   Reason `json:"name"`
	Status Status `json:"status"`
	Detail string `json:"detail,omitempty"`
	// Where the fault lies, as far as it has a place.
	Path   string  `json:"path,omitempty"`   // of the record
	CID    cid.CID `json:"cid,omitzero"`     // of the block
	Offset *int64  `json:"offset,omitempty"` // in the archive if that is broken, else in the block
}

// Report is what [Open] and [Reader.Records] have found out about a file, or [ReportCommit] and [ReportSync] about a
// message. It has a check for every one of [Reasons], in that order.
type Report struct {
	DID     syntax.DID `json:"did,omitempty"`
	Rev     syntax.TID `json:"rev,omitempty"`
	Version int64      `json:"version,omitempty"`
	Commit  cid.CID    `json:"commit,omitzero"`
	Data    cid.CID    `json:"data,omitzero"`

	Ops         int   `json:"ops,omitempty"` // of a message
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

// add enters the outcome of a check. A failure stays, whatever comes after.
func (r *Report) add(c Check) {
	for i := range r.Checks {
		if old := &r.Checks[i]; old.Name == c.Name {
			if old.Status != StatusFailed {
				*old = c
			}
			return
		}
	}
	if r.Checks == nil {
		r.Checks = make([]Check, 0, len(rules))
	}
	r.Checks = append(r.Checks, c)
}

func (r *Report) pass(name Reason, detail string) {
	r.add(Check{Name: name, Status: StatusOK, Detail: detail})
}
func (r *Report) skip(name Reason, detail string) {
	r.add(Check{Name: name, Status: StatusSkipped, Detail: detail})
}

// passCommit enters that the commit could be decoded.
func (r *Report) passCommit(detail string) {
	r.pass(ReasonMissingCommit, "")
	r.pass(ReasonCommitShape, detail)
	for _, name := range []Reason{ReasonCommitVersion, ReasonSignatureSize, ReasonDIDSyntax, ReasonRevSyntax} {
		r.pass(name, "")
	}
}

// passBlocks enters that a file was read to its end, within a limit of bytes if there was one.
func (r *Report) passBlocks(limit int64) {
	r.pass(ReasonCAR, "")
	r.pass(ReasonBlockHash, fmt.Sprintf("%d blocks", r.Blocks))
	r.pass(ReasonBuffer, "")
	if limit > 0 {
		r.pass(ReasonFileTooBig, "")
	} else {
		r.skip(ReasonFileTooBig, "there is no limit")
	}
}

func (r *Report) passTree() {
	for i := range rules {
		if name := rules[i].reason; name.Tree() || name == ReasonMissingNode {
			r.pass(name, "")
		}
	}
}

// fail enters an error.
func (r *Report) fail(v *VerifyError) {
	c := Check{Name: v.Reason, Status: StatusFailed, Detail: strings.TrimPrefix(v.Error(), string(v.Reason)+": "), Path: v.Path, CID: v.CID}
	if at := v.Offset(); at >= 0 {
		c.Offset = &at
	}
	r.add(c)
}

// finish puts the checks in their order and names those that were not reached, and those that are not about the subject.
func (r *Report) finish(of subject) {
	out := make([]Check, 0, len(rules))
	for i := range rules {
		rule := &rules[i]
		k := slices.IndexFunc(r.Checks, func(c Check) bool { return c.Name == rule.reason })
		switch {
		case k >= 0:
			out = append(out, r.Checks[k])
		case rule.of&of == 0:
			out = append(out, Check{Name: rule.reason, Status: StatusNotApplicable})
		default:
			out = append(out, Check{Name: rule.reason, Status: StatusSkipped, Detail: "not reached"})
		}
	}
	r.Checks = out
}
