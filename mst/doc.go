// Package mst is the Merkle search tree of a repository: a map from record paths to CIDs whose shape, and so whose root
// hash, depends on nothing but its content.
//
// Specification: https://atproto.com/specs/repository#mst-structure.
//
// A [Tree] is lazy and copy-on-write. It loads nodes from a [Source] when an operation needs them, edits copies, and
// [Tree.Flush] tells exactly which nodes came and which went, so that a store can follow the tree in one batch. The same
// type serves whole trees, and the partial ones inside commit messages: an operation that needs a node that isn't there
// fails with a [*MissingError], and leaves the tree as it was.
//
//	t := mst.New()
//	t.Put("app.bsky.feed.post/3l4wmt26aaa2a", record)
//	change, err := t.Flush()                // change.Root, change.Added, change.Removed
//	t = mst.Open(change.Root, source)       // loads nodes as needed, and checks each one
//	value, found, err := t.Get("app.bsky.feed.post/3l4wmt26aaa2a")
//	for entry, err := range t.WalkFrom("app.bsky.feed.") { … }
//
// [Builder] makes a tree from sorted input in constant memory, [Diff] compares two trees in time proportional to the
// change, [Tree.Prove] and [Tree.Cover] choose the nodes that prove a record or let a commit be undone, [Tree.Invert]
// undoes one, and [Walker] verifies a whole tree from a stream of blocks with a stack as its only memory. [Partial] does for
// one commit message what a Tree over its blocks would, by [Tree.LoadPresent] and [Tree.Invert], on the blocks themselves.
//
// Limits: [MaxEntries], [MaxLayer] and [MaxKey], and memory for what has been loaded, which [Tree.Trim] gives back. A
// [Walker] and a [Builder] hold one node per layer. No walk goes deeper than the layers allow, whatever links say: a child is
// exactly one layer below its parent, so that even a source that lies about hashes can't make a cycle. [Diff] loads, in each
// tree, the ways to the changes and the edges of the subtrees that they divide.
//
// Every node that comes from outside is checked: canonical encoding, order of keys, layer of each key, longest prefix,
// bounds set by the parents, no empty leaf, no empty top, children exactly one layer down, links of the right codec, at
// most [MaxEntries] entries, at most [MaxLayer] layers, keys of at most [MaxKey] bytes. A violation is an [*Error] that
// names the [Rule]. The package knows nothing of records, commits or path syntax; [Options.CheckKey] is the place to
// plug the latter in.
//
// A tree and its clones share nodes and belong to one goroutine at a time. The API may still grow.
package mst
