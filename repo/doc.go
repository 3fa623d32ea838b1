// Package repo is the signed repository: commits, records and the proofs that tie them to an account's key.
//
// Specification: https://atproto.com/specs/repository and https://atproto.com/specs/sync.
//
//	c, err := repo.DecodeCommit(block)        // strict
//	err = c.Verify(key)                       // with the account's key
//	state, err := repo.VerifyCommit(message, key, previous, repo.VerifyOptions{Now: now})
//	report := repo.ReportCommit(message, key, previous, repo.VerifyOptions{Now: now}) // every rule by name
//	r, err := repo.Open(file, repo.ReadOptions{Key: key})  // a whole repository, verified as it streams
//	r, err := repo.OpenBytes(b, repo.ReadOptions{Key: key}) // one that lies in memory, without copies
//	for record, err := range r.Records() { … }
//	update, tree, err := repo.Apply(tree, writes, did, rev, key) // the next commit
//	proof, err := repo.MakeProof(commitBlock, tree, path, record)
//	found, err := repo.VerifyProof(proof, did, path, key)
//
// Everything is verified by default: a check that can be left out has an option or an argument that says so, and reports
// name what was skipped. A violation is a [*VerifyError] with a [Reason], one of a closed list ([Reasons]) of stable names;
// [Checklist] tells which rule of the specification each belongs to, and docs/wire.md tells all of them.
//
// Messages are plain structs of values: where they come from and how frames look is not this package's business, nor are
// lexicons, identities and storage. What a receiver knows, the last state and the key, it passes in.
//
// Limits: see the constants. Reading a file takes constant memory if its blocks come in streamable order, and up to
// [ReadOptions.MaxBuffer] otherwise. Blocks that nothing links to are tolerated up to max(1 MiB, a tenth of what is linked to),
// see [ReadOptions.MaxUnlinked], and so are blocks that come more often than they are linked to: no more is read of a file
// than what it holds and these quotas. Verifying a message takes memory in proportion to it, and so does a proof, whose
// size is up to the caller.
package repo
