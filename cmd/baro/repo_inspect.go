package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
)

func newRepoInspect(e *env) *cobra.Command {
	var f networkFlags
	cmd := &cobra.Command{
		Use:   "inspect FILE|ACCOUNT",
		Short: "Show what a repository is made of",
		Long: "Shows the commit, the tree by layer, and the records by collection with their sizes. The repository is checked on the\n" +
			"way, but for the signature of a file: 'baro repo verify' checks that, and names each check.",
		Example: "  baro repo inspect alice.test\n  baro repo inspect backup.car --json | jq .collections",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return advise(e.repoInspect(cmd.Context(), args[0], f))
		},
	}
	f.add(cmd.Flags(), false)
	return cmd
}

type collectionCount struct {
	Collection string `json:"collection"`
	Records    int    `json:"records"`
	Bytes      int64  `json:"bytes"`
	Largest    int    `json:"largest"`          // bytes
	Broken     int    `json:"broken,omitempty"` // outside the data model
}

type inspectOutput struct {
	Source    string            `json:"source"`
	DID       syntax.DID        `json:"did"`
	Rev       syntax.TID        `json:"rev"`
	Time      string            `json:"time"` // of the revision
	Version   int64             `json:"version"`
	Commit    string            `json:"commit"`
	Data      string            `json:"data"`
	Prev      string            `json:"prev,omitempty"`
	Signature string            `json:"signature"` // ok or skipped
	Records   int               `json:"records"`
	Nodes     int               `json:"nodes"`
	Layers    []int             `json:"layers"` // entries on each, the lowest first
	FileBytes int64             `json:"fileBytes,omitempty"`
	Bytes     int64             `json:"bytes"` // of blocks
	Record    int64             `json:"recordBytes"`
	Stream    bool              `json:"streamable"`
	Unlinked  int               `json:"unlinked"`
	Contents  []collectionCount `json:"collections"`
}

func (e *env) repoInspect(ctx context.Context, arg string, f networkFlags) error {
	src, err := e.openSource(ctx, arg, f)
	if err != nil {
		return err
	}
	defer src.close()
	t := e.transfer("reading "+arg, 0)
	defer t.done()
	r, err := src.read(ctx, repoCheck{offline: src.file != nil, records: repo.RecordsStrict, tee: t})
	if r != nil {
		defer r.close()
	}
	if err != nil {
		return err
	}
	counts := map[string]*collectionCount{}
	out := inspectOutput{Source: arg}
	for rec, err := range r.Records() {
		if err != nil {
			return err
		}
		c, _ := splitPath(rec.Path)
		n := counts[c]
		if n == nil {
			n = &collectionCount{Collection: c}
			counts[c] = n
		}
		n.Records++
		n.Bytes += int64(len(rec.Data))
		n.Largest = max(n.Largest, len(rec.Data))
		if rec.Err != nil {
			n.Broken++
		}
		layer := mst.Layer(string(rec.Path))
		for len(out.Layers) <= layer {
			out.Layers = append(out.Layers, 0)
		}
		out.Layers[layer]++
	}
	t.done()
	// A record outside the data model is shown, and is no reason to fail: nothing else depends on it.
	if bad := r.Report().Failed(); bad != nil && bad.Name != repo.ReasonRecordEncoding && bad.Name != repo.ReasonRecordTooBig {
		return r.failure()
	}
	rep, commit := r.Report(), r.Commit()
	out.DID, out.Rev, out.Time, out.Version = commit.DID, commit.Rev, string(syntax.NewDatetime(commit.Rev.Time())), commit.Version
	out.Commit, out.Data, out.Signature = r.CommitCID().String(), commit.Data.String(), string(statusOf(rep, repo.ReasonSignature))
	if commit.Prev != nil {
		out.Prev = commit.Prev.String()
	}
	out.Records, out.Nodes, out.Bytes, out.Record, out.Stream, out.Unlinked = rep.Records, rep.Nodes, rep.Bytes, rep.RecordBytes, rep.Streamable, rep.Unlinked
	if src.file != nil {
		out.FileBytes = r.total
	}
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		out.Contents = append(out.Contents, *counts[k])
	}
	if e.json {
		return e.printJSON(out)
	}
	return e.printInspect(out)
}

func (e *env) printInspect(o inspectOutput) error {
	w := tabwriter.NewWriter(e.stdout, 0, 4, 2, ' ', 0)
	row := func(k, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", k, fmt.Sprintf(format, args...)) }
	row("account", "%s", o.DID)
	row("revision", "%s  %s", o.Rev, o.Time)
	row("commit", "%s  version %d", o.Commit, o.Version)
	row("tree", "%s", o.Data)
	if o.Prev != "" {
		row("before", "%s", o.Prev)
	}
	signature := "ok"
	if o.Signature != string(repo.StatusOK) {
		signature = "not checked: 'baro repo verify' does"
	}
	row("signature", "%s", signature)
	row("records", "%d in %s", o.Records, bytesOf(o.Record))
	row("nodes", "%d on %d layers", o.Nodes, max(len(o.Layers), 1))
	for i := len(o.Layers) - 1; i >= 0; i-- {
		row(fmt.Sprintf("  layer %d", i), "%d entries", o.Layers[i])
	}
	row("blocks", "%s", bytesOf(o.Bytes))
	if o.FileBytes > 0 {
		row("file", "%s", bytesOf(o.FileBytes))
	}
	order := "in the order of the tree"
	if !o.Stream {
		order = "not in the order of the tree"
	}
	row("order", "%s", order)
	if o.Unlinked > 0 {
		row("unlinked", "%d blocks that nothing refers to", o.Unlinked)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(o.Contents) == 0 {
		return nil
	}
	w = tabwriter.NewWriter(e.stdout, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\nrecords\tbytes\tlargest\t  collection\n")
	for _, c := range o.Contents {
		broken := ""
		if c.Broken > 0 {
			broken = fmt.Sprintf("  (%d outside the data model)", c.Broken)
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t  %s%s\n", c.Records, bytesOf(c.Bytes), bytesOf(int64(c.Largest)), c.Collection, broken)
	}
	return w.Flush()
}
