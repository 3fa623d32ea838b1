package repo

import "github.com/barograph/baro/keys"

// VerifyByTree is [VerifyCommit] that never looks at the nodes in part, but always at a tree of objects.
func VerifyByTree(m CommitMessage, key *keys.PublicKey, prev *State, o VerifyOptions) (State, error) {
	v := newVerifier(m, key, prev, o)
	defer v.free()
	v.byTree = true
	return v.verify(commitSteps)
}
