package bench

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"sync"

	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
)

const k256 = keys.K256

// Walk verifies a whole repository, which comes as a stream, walks its records and returns how many there are.
func Walk(file []byte, key *keys.PublicKey, records repo.RecordPolicy) (n int) {
	return walk(Must(repo.Open(bytes.NewReader(file), repo.ReadOptions{Key: key, Records: records})))
}

// WalkBytes is Walk of a file in memory.
func WalkBytes(file []byte, key *keys.PublicKey, records repo.RecordPolicy) (n int) {
	return walk(Must(repo.OpenBytes(file, repo.ReadOptions{Key: key, Records: records})))
}

func walk(r *repo.Reader) (n int) {
	for rec, err := range r.Records() {
		Check(err)
		Check(rec.Err)
		n++
	}
	return n
}

// mostAllocs is how often reading a repository may allocate, whatever the number of its records. Nearly all of it is what pools give
// back, which the collector empties now and then while a large file is read.
const mostAllocs = 300

// Repositories returns the rows repo-any-order, repo-in-order and repo-in-order-strict of a repository, and for information the
// first two of a file that isn't read as a stream but lies in memory. Without a key the signature isn't checked.
func Repositories(size, what string, key *keys.PublicKey, load func() *Repository) []Bench {
	row := func(name, what string, target float64, shuffle bool, walk func([]byte, *keys.PublicKey, repo.RecordPolicy) int, records repo.RecordPolicy, bound string) Bench {
		return Bench{Name: name + "/" + size, What: what, Floor: "SHA-256 of the blocks", Of: FloorOverOurs, Target: target, Allocs: mostAllocs, Bound: bound,
			Setup: func() (Work, Work) {
				r := load()
				file := r.File
				if shuffle {
					file = r.Shuffled()
				}
				return Work{1, func() { walk(file, key, records) }}, Work{1, func() {
					for _, b := range r.Blocks {
						Hash(r.File[b[0]:b[1]])
					}
				}}
			}}
	}
	return []Bench{
		row("repo-any-order", what+", blocks in random order: verify and walk", 0, true, Walk, repo.RecordsAny,
			"SHA-256 of blocks and keys, and memory latency: each block is looked up at a random place"),
		row("repo-in-order", what+", streamable: verify and walk", 0.8, false, Walk, repo.RecordsAny,
			"SHA-256 of blocks and keys, and decoding the nodes"),
		row("repo-in-order-strict", what+", streamable: verify, validate every record, and walk", 0, false, Walk, repo.RecordsStrict,
			"the same, and validation of each record"),
		row("repo-any-order-bytes", what+", blocks in random order, in memory: verify and walk", 0, true, WalkBytes, repo.RecordsAny,
			"the same as repo-any-order, but for copying the blocks"),
		row("repo-in-order-bytes", what+", streamable, in memory: verify and walk", 0, false, WalkBytes, repo.RecordsAny,
			"the same as repo-in-order, but for copying the blocks"),
	}
}

// DecodeFrame reads a frame as a consumer of the stream does.
func DecodeFrame(b []byte) *stream.Commit {
	f := Must(stream.ParseFrame(b))
	return Must(f.Message()).(*stream.Commit)
}

// VerifyFrame does all that a receiver of a commit has to, given the account's key and the state before. It uses the room of ops.
func VerifyFrame(b []byte, key *keys.PublicKey, prev *repo.State, o repo.VerifyOptions, ops []repo.Op) {
	c := DecodeFrame(b)
	ops = ops[:0]
	for _, op := range c.Ops {
		ops = append(ops, repo.Op(op))
	}
	Must(repo.VerifyCommit(repo.CommitMessage{Repo: c.Repo, Rev: c.Rev, Since: c.Since, Time: c.Time, Commit: c.Commit, PrevData: c.PrevData,
		Ops: ops, Blocks: c.Blocks, TooBig: c.TooBig, Rebase: c.Rebase, FrameSize: len(b)}, key, prev, o))
}

// Signed returns the digests that the commits' signatures are over.
func (c *Commits) Signed() [][32]byte {
	var out [][32]byte
	for _, k := range c.Commits {
		out = append(out, sha256.Sum256(k.AppendUnsigned(nil)))
	}
	return out
}

// Verify is the work of verifying the commits' signatures, and nothing else.
func (c *Commits) Verify() Work {
	pub, signed := c.Key.Public(), c.Signed()
	return Work{len(signed), func() {
		for i := range signed {
			Check(pub.VerifyDigest(signed[i], c.Commits[i].Sig))
		}
	}}
}

// commitRecords is the size of the repository that commits are made in.
const commitRecords = 10_000

// K256Commits and P256Commits are 60 commits to a repository of 10,000 records, made once.
var (
	K256Commits = sync.OnceValue(func() *Commits { return GenerateCommits(keys.K256, commitRecords, 60) })
	P256Commits = sync.OnceValue(func() *Commits { return GenerateCommits(keys.P256, commitRecords, 60) })
)

// CommitRows returns commit-k256, commit-p256, commit-unsigned and frame-decode.
func CommitRows() []Bench {
	row := func(name, what, bound string, commits func() *Commits, skip bool, allocs float64) Bench {
		return Bench{Name: name, What: fmt.Sprintf("commit message (%s), repository of %d records", what, commitRecords), Floor: "one signature verification",
			Of: OursOverFloor, Allocs: allocs, Bound: bound, Setup: func() (Work, Work) {
				c := commits()
				pub, o, ops := c.Key.Public(), repo.VerifyOptions{Now: c.Now, SkipSignature: skip}, make([]repo.Op, 0, 8)
				ours := Each(c.Frames, func(b []byte) { VerifyFrame(b, pub, &c.Prev, o, ops) })
				if skip {
					return ours, Each(c.Frames, Hash)
				}
				return ours, c.Verify()
			}}
	}
	all := "decode, hashes, signature, inversion, chain"
	unsigned := row("commit-unsigned", "decode, hashes, inversion, chain, but not the signature", "SHA-256 of blocks, keys and changed nodes; decoding the nodes", K256Commits, true, 12)
	unsigned.Floor = "SHA-256 of the frame"
	return []Bench{
		row("commit-k256", all, "the signature, and SHA-256 of blocks, keys and changed nodes", K256Commits, false, 12),
		unsigned,
		row("commit-p256", all, "the signature; eleven of the allocations are those of crypto/ecdsa", P256Commits, false, -1),
		{Name: "frame-decode", What: "decode a commit's frame, generated", Floor: "memcpy", Of: OursOverFloor, Allocs: -1, Bound: "one allocation for the message, two for its lists",
			Setup: func() (Work, Work) {
				c, buf := K256Commits(), make([]byte, 1<<16)
				return Each(c.Frames, func(b []byte) { DecodeFrame(b) }), Each(c.Frames, func(b []byte) { copy(buf, b) })
			}},
	}
}

// Signatures returns verify-k256, sign-k256, parse-k256 and the same of P-256. They have no floor: they are one.
func Signatures() []Bench {
	var rows []Bench
	for _, curve := range []keys.Curve{keys.K256, keys.P256} {
		library := "crypto/ecdsa"
		allocs := [3]float64{-1, -1, -1}
		if curve == keys.K256 {
			library = "in Go"
			if keys.K256Library != "go" {
				library = keys.K256Library
			}
			allocs = [3]float64{0, 5, 2}
		}
		key := SigningKey(curve)
		pub, did := key.Public(), key.Public().DIDKey()
		digests := make([][32]byte, 16)
		sigs := make([][]byte, len(digests))
		for i := range digests {
			digests[i] = sha256.Sum256([]byte{byte(i)})
			sigs[i] = Must(key.SignDigest(digests[i]))
		}
		rows = append(rows,
			Bench{Name: "verify-" + curve.String(), What: "bare signature verification, " + library, Allocs: allocs[0], Bound: "arithmetic on the curve", Setup: func() (Work, Work) {
				return Work{len(digests), func() {
					for i := range digests {
						Check(pub.VerifyDigest(digests[i], sigs[i]))
					}
				}}, Work{}
			}},
			Bench{Name: "sign-" + curve.String(), What: "signature, deterministic", Allocs: allocs[1], Bound: "arithmetic on the curve, in constant time", Setup: func() (Work, Work) {
				return Work{len(digests), func() {
					for i := range digests {
						Must(key.SignDigest(digests[i]))
					}
				}}, Work{}
			}},
			Bench{Name: "parse-" + curve.String(), What: "parse a did:key", Allocs: allocs[2], Bound: "a square root, and base 58", Setup: func() (Work, Work) {
				return Work{1, func() { Must(keys.ParseDIDKey(did)) }}, Work{}
			}})
	}
	return rows
}
