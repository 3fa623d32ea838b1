package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/client/partial"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
)

type mstFlags struct {
	networkFlags
	full bool
	root string
}

func newRepoMST(e *env) *cobra.Command {
	var f mstFlags
	cmd := &cobra.Command{
		Use:   "mst FILE|ACCOUNT",
		Short: "Draw the tree of a repository",
		Long: "Draws the Merkle search tree: each node with its layer and the number of its entries, and below it what it leads to, in\n" +
			"the order of the keys. CIDs are cut to their end unless --full-cid is given. Every node is checked before it is drawn:\n" +
			"its hash, its shape and its place.\n\n" +
			"A file needs no more memory than the tree is high if it is in the order of the tree, as 'baro repo order' writes it. Of\n" +
			"a part of a repository, such as a proof or the blocks of a commit message, what is missing is marked. --root draws what\n" +
			"is below any other node.",
		Example: "  baro repo mst alice.test.car | less\n" +
			"  baro repo mst alice.test --full-cid\n" +
			"  baro repo mst backup.car --json | jq -r 'select(.missing) | .node'",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return advise(e.repoMST(cmd.Context(), args[0], f))
		},
	}
	fl := cmd.Flags()
	fl.BoolVarP(&f.full, "full-cid", "f", false, "write CIDs whole")
	fl.StringVarP(&f.root, "root", "r", "", "CID of the node to begin with (default: the top of the tree)")
	f.add(fl, false)
	return cmd
}

func (e *env) repoMST(ctx context.Context, arg string, f mstFlags) error {
	var root cid.CID
	if f.root != "" {
		var err error
		if root, err = cid.Parse(f.root); err != nil {
			return usagef("--root %q is not a CID: %w", f.root, err)
		}
	}
	file, done, err := e.openFile(ctx, arg, f.networkFlags)
	if err != nil {
		return err
	}
	defer done()
	w := bufio.NewWriterSize(e.stdout, 64<<10)
	out := *e
	out.stdout = w
	d := &drawing{e: &out, w: w, full: f.full, c: colorsOf(e.stdout), blocks: &blockStream{ctx: ctx, file: file, name: arg}}
	err = d.draw(root)
	err = errors.Join(err, w.Flush())
	if err == nil && d.missing > 0 {
		fmt.Fprintf(e.stderr, "%d nodes are not in the file: it holds a part of the repository\n", d.missing)
	}
	return err
}

// openFile is the CAR file that an argument means, that of an account being fetched and verified first.
func (e *env) openFile(ctx context.Context, arg string, f networkFlags) (*os.File, func(), error) {
	src, err := e.openSource(ctx, arg, f)
	if err != nil {
		return nil, nil, err
	}
	if src.file != nil {
		return src.file, src.close, nil
	}
	file, done, err := src.spool(ctx, repoCheck{records: repo.RecordsReadable, now: true})
	if err != nil {
		src.close()
		return nil, nil, err
	}
	return file, func() { done(); src.close() }, nil
}

// drawing draws a tree, node by node as they come.
type drawing struct {
	e       *env
	w       *bufio.Writer
	full    bool
	c       colors
	blocks  *blockStream
	nodes   []*mst.Node // one for each depth
	missing int
}

// nodeLine and entryLine are the lines for programs.
type nodeLine struct {
	Depth   int    `json:"depth"` // 0 for the node that the drawing begins with
	Node    string `json:"node"`
	Layer   int    `json:"layer"`
	Entries int    `json:"entries"`
	Missing bool   `json:"missing,omitempty"` // from the file; then nothing more is known of it
}

type entryLine struct {
	Depth int    `json:"depth"`
	Path  string `json:"path"`
	CID   string `json:"cid"`
}

func (d *drawing) draw(root cid.CID) error {
	top, err := d.blocks.open()
	if err != nil {
		return err
	}
	layer := unknownLayer
	if !root.Defined() {
		layer = mst.Top
		c, _, err := partial.Commit(d.blocks.name, top, d.blocks)
		if err != nil {
			return withHint(notVerified(err), "--root names a node to begin with in a file without a commit")
		}
		root = c.Data
	}
	return d.node(root, 0, layer, nil, nil, "", "", "")
}

// unknownLayer is that of a node of which nobody knows where in the tree it is.
const unknownLayer = -2

// maxDrawn is how deep a drawing goes: no tree is as high.
const maxDrawn = 256

// node draws a node and what is below it. Lines begin with margin; that of the node itself goes on with branch, those below with twig.
func (d *drawing) node(c cid.CID, depth, layer int, lo, hi []byte, margin, branch, twig string) error {
	if depth > maxDrawn {
		return notVerified(fmt.Errorf("the tree is deeper than %d nodes", maxDrawn))
	}
	if depth == len(d.nodes) {
		d.nodes = append(d.nodes, new(mst.Node))
	}
	n := d.nodes[depth]
	b, err := d.blocks.Block(c)
	if errors.Is(err, mst.ErrNotFound) {
		d.missing++
		return d.line(nodeLine{Depth: depth, Node: c.String(), Layer: max(layer, -1), Missing: true}, margin+branch+d.short(c)+d.c.bad("  not in the file"))
	}
	if err != nil {
		return err
	}
	if err := n.Decode(b); err != nil {
		return notVerified(fmt.Errorf("the node %s: %w", c, err))
	}
	switch {
	case layer != unknownLayer:
		layer, err = n.Check(layer, lo, hi, repo.CheckPath)
	case len(n.Entries) > 0:
		layer, err = n.Check(mst.Layer(n.Entries[0].Key), lo, hi, repo.CheckPath)
	}
	if err != nil {
		return notVerified(fmt.Errorf("the node %s: %w", c, err))
	}
	at := fmt.Sprintf("layer %d", layer)
	if layer == unknownLayer {
		at = "layer unknown"
	}
	if err := d.line(nodeLine{Depth: depth, Node: c.String(), Layer: max(layer, -1), Entries: len(n.Entries)},
		fmt.Sprintf("%s%s%s  %s, %s", margin, branch, d.c.good(d.short(c)), at, count(len(n.Entries), "entry", "entries"))); err != nil {
		return err
	}
	margin += twig
	below := unknownLayer
	if layer != unknownLayer {
		below = layer - 1
	}
	parts := func(last bool) (string, string) {
		if last {
			return "└── ", "    "
		}
		return "├── ", "│   "
	}
	if n.Left.Defined() {
		branch, twig := parts(len(n.Entries) == 0)
		if err := d.node(n.Left, depth+1, below, lo, firstKey(n, hi), margin, branch, twig); err != nil {
			return err
		}
	}
	for i := range n.Entries {
		x := &n.Entries[i]
		branch, _ := parts(i == len(n.Entries)-1 && !x.Right.Defined())
		if err := d.line(entryLine{Depth: depth + 1, Path: string(x.Key), CID: x.Value.String()}, fmt.Sprintf("%s%s%s  %s", margin, branch, x.Key, d.c.dim(d.short(x.Value)))); err != nil {
			return err
		}
		if err := d.blocks.pass(x.Value); err != nil {
			return err
		}
		if x.Right.Defined() {
			next := hi
			if i+1 < len(n.Entries) {
				next = n.Entries[i+1].Key
			}
			branch, twig := parts(i == len(n.Entries)-1)
			if err := d.node(x.Right, depth+1, below, x.Key, next, margin, branch, twig); err != nil {
				return err
			}
		}
	}
	return nil
}

// firstKey is the first key of a node, or else.
func firstKey(n *mst.Node, or []byte) []byte {
	if len(n.Entries) > 0 {
		return n.Entries[0].Key
	}
	return or
}

func (d *drawing) line(v any, text string) error {
	if d.e.json {
		return d.e.printJSON(v)
	}
	_, err := d.w.WriteString(text + "\n")
	return err
}

// short writes a CID for a drawing: CIDs begin alike, so that their ends tell them apart.
func (d *drawing) short(c cid.CID) string {
	s := c.String()
	if d.full {
		return s
	}
	return "…" + s[max(0, len(s)-8):]
}

// count writes a number of things.
func count(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}
