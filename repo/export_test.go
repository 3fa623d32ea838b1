package repo

import "github.com/barograph/baro/keys"

// VerifyByTree is [VerifyCommit] that never looks at the nodes in part, but always at a tree of objects.
func VerifyByTree(m CommitMessage, key *keys.PublicKey, prev *State, o VerifyOptions) (State, error) {
	v := newVerifier(m, key, prev, o)
	defer v.free()
	v.byTree = true
	return v.verify(commitSteps)
}

// KeptOf reports on a message, and returns for how many operations there is memory to be used again afterwards, and whether there is
// any for their paths.
func KeptOf(m CommitMessage, o VerifyOptions) (ops int, paths bool) {
	v := newVerifier(m, nil, nil, o)
	v.report(commitSteps, aCommit)
	v.reset()
	return cap(v.undo), v.seen != nil
}

// NewPathChecker returns what checks the paths of one tree after another.
func NewPathChecker() func(path []byte, same int) error { return new(pathChecker).check }
