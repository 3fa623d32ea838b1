package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/atcrypto"
	peer "github.com/bluesky-social/indigo/atproto/repo"
	gocid "github.com/ipfs/go-cid"
)

// walk verifies a whole repository and walks its records.
func walk(file []byte, key *keys.PublicKey, records repo.RecordPolicy) (n int) {
	r := must(repo.Open(bytes.NewReader(file), repo.ReadOptions{Key: key, Records: records}))
	for rec, err := range r.Records() {
		check(err)
		check(rec.Err)
		n++
	}
	return n
}

// walkPeer does the same with indigo: it hashes the blocks as it loads them, and doesn't look into records.
func walkPeer(file []byte, key atcrypto.PublicKey) (n int) {
	ctx := context.Background()
	commit, r, err := peer.LoadRepoFromCAR(ctx, bytes.NewReader(file))
	check(err)
	if key != nil {
		check(commit.VerifySignature(key))
	}
	check(r.MST.Verify())
	check(r.MST.Walk(func(_ []byte, c gocid.Cid) error {
		_, err := r.RecordStore.Get(ctx, c)
		n++
		return err
	}))
	return n
}

func repoRows() []bench {
	var rows []bench
	add := func(size string, what string, long, peers bool, load func() *repository, key *keys.PublicKey) {
		var theirs atcrypto.PublicKey
		if key != nil {
			theirs = must(atcrypto.ParsePublicDIDKey(key.DIDKey()))
		}
		row := func(name, what string, of measureOf, target, allocs float64, shuffle bool, records repo.RecordPolicy) {
			b := bench{name: name + "/" + size, what: what, floor: "SHA-256 of the blocks", of: of, target: target, allocs: allocs, long: long, setup: func() (work, work, work) {
				r := load()
				file := r.file
				if shuffle {
					file = r.shuffled()
				}
				ours := work{1, func() { walk(file, key, records) }}
				floor := work{1, func() {
					for _, b := range r.blocks {
						hash(r.file[b[0]:b[1]])
					}
				}}
				if !peers {
					return ours, work{}, floor
				}
				if a, b := walk(file, key, records), walkPeer(file, theirs); a != b {
					check(fmt.Errorf("we see %d records, the peer %d", a, b))
				}
				return ours, work{1, func() { walkPeer(file, theirs) }}, floor
			}}
			if peers {
				b.peer = indigo
			}
			rows = append(rows, b)
		}
		const most = 250 // of allocations, whatever the number of records
		row("repo-any-order", what+", blocks in random order: verify and walk", peerOverOurs, 3.5, most, true, repo.RecordsAny)
		row("repo-in-order", what+", streamable: verify and walk", floorOverOurs, 0.8, most, false, repo.RecordsAny)
		row("repo-in-order-strict", what+", streamable: verify, validate every record, and walk", floorOverOurs, 0, most, false, repo.RecordsStrict)
	}
	key := signingKey(keys.K256).Public()
	for _, n := range []int{1000, 100_000, 1_000_000} {
		var r *repository // made once, for all rows of this size
		add(short(n), fmt.Sprintf("%d records", n), n > 100_000, true, func() *repository {
			if r == nil {
				r = generateRepository(5, n)
			}
			return r
		}, key)
	}
	if b := fixture("cars/little.car"); b != nil {
		add("fixture", "a real repository, without its key", false, true, func() *repository { return loadRepository(b) }, nil)
	}
	return rows
}

// decodeFrame reads a frame as a consumer of the stream does.
func decodeFrame(b []byte) *stream.Commit {
	f := must(stream.ParseFrame(b))
	return must(f.Message()).(*stream.Commit)
}

// verifyFrame does all that a receiver of a commit has to, given the account's key and the state before.
func verifyFrame(b []byte, key *keys.PublicKey, prev *repo.State, o repo.VerifyOptions, ops []repo.Op) {
	c := decodeFrame(b)
	ops = ops[:0]
	for _, op := range c.Ops {
		ops = append(ops, repo.Op(op))
	}
	must(repo.VerifyCommit(repo.CommitMessage{Repo: c.Repo, Rev: c.Rev, Since: c.Since, Time: c.Time, Commit: c.Commit, PrevData: c.PrevData,
		Ops: ops, Blocks: c.Blocks, TooBig: c.TooBig, Rebase: c.Rebase, FrameSize: len(b)}, key, prev, o))
}

// payload returns what comes after a frame's header, which is the same for all commits. It spares the peer the header.
func payload(b []byte) []byte { return b[len(stream.AppendHeader(nil, stream.TypeCommit)):] }

func verifyPeer(b []byte, key atcrypto.PublicKey) {
	var m atproto.SyncSubscribeRepos_Commit
	check(m.UnmarshalCBOR(bytes.NewReader(b)))
	must(peer.VerifyCommitMessage(context.Background(), &m))
	if key == nil {
		return
	}
	c, _, err := peer.LoadCommitFromCAR(context.Background(), bytes.NewReader([]byte(m.Blocks)))
	check(err)
	check(c.VerifyStructure())
	check(c.VerifySignature(key))
}

func commitRows() []bench {
	slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError}))) // the peer logs
	const records = 10_000
	var rows []bench
	for _, curve := range []keys.Curve{keys.K256, keys.P256} {
		for _, skip := range []bool{false, true} {
			if skip && curve != keys.K256 {
				continue
			}
			name, what := "commit-"+map[keys.Curve]string{keys.K256: "k256", keys.P256: "p256"}[curve], "decode, hashes, signature, inversion, chain"
			row := bench{peer: indigo, floor: "one signature verification", of: oursOverFloor, target: 1.25, allocs: 12}
			if curve != keys.K256 {
				row.target = 0
			}
			if skip {
				name, what = "commit-unsigned", "decode, hashes, inversion, chain, but not the signature"
				row.floor, row.of, row.target, row.allocs = "SHA-256 of the frame", peerOverOurs, 0, 12
			}
			row.name = name
			row.what = fmt.Sprintf("commit message (%s), repository of %d records", what, records)
			row.setup = func() (work, work, work) {
				c := generateCommits(curve, records, 60)
				pub := c.key.Public()
				theirs := must(atcrypto.ParsePublicDIDKey(pub.DIDKey()))
				if skip {
					theirs = nil
				}
				o := repo.VerifyOptions{Now: c.now, SkipSignature: skip}
				ops := make([]repo.Op, 0, 8)
				var unsigned [][]byte
				for _, k := range c.commits {
					unsigned = append(unsigned, k.AppendUnsigned(nil))
				}
				floor := work{len(c.commits), func() {
					for i, k := range c.commits {
						check(pub.Verify(unsigned[i], k.Sig))
					}
				}}
				if skip {
					floor = each(c.frames, hash)
				}
				return each(c.frames, func(b []byte) { verifyFrame(b, pub, &c.prev, o, ops) }), each(c.frames, func(b []byte) { verifyPeer(payload(b), theirs) }), floor
			}
			rows = append(rows, row)
		}
	}
	c := generateCommits(keys.K256, records, 60)
	rows = append(rows, bench{name: "frame-decode", what: "decode a commit's frame, generated", peer: indigo, floor: "memcpy", of: peerOverOurs, allocs: -1, setup: func() (work, work, work) {
		buf := make([]byte, 1<<16)
		return each(c.frames, func(b []byte) { decodeFrame(b) }), each(c.frames, func(b []byte) {
			check(new(atproto.SyncSubscribeRepos_Commit).UnmarshalCBOR(bytes.NewReader(payload(b))))
		}), each(c.frames, func(b []byte) { copy(buf, b) })
	}})
	var real [][]byte
	for _, name := range []string{"4621317030", "4621317332", "4621332152", "4623075231"} {
		if b := fixture("firehose/firehose_commit_" + name + ".json"); b != nil {
			real = append(real, fixtureFrame(b))
		}
	}
	if len(real) == 0 {
		return rows
	}
	return append(rows, bench{name: "commit-legacy (fixture)", what: "real commit messages from before sync 1.1: decode, hashes, the ops are in the tree; no signature, no chain. Indigo refuses some", floor: "SHA-256 of the frame",
		of: floorOverOurs, allocs: -1, setup: func() (work, work, work) {
			ops := make([]repo.Op, 0, 64)
			o := repo.VerifyOptions{Legacy: repo.LegacyAccept, SkipSignature: true}
			return each(real, func(b []byte) { verifyFrame(b, nil, nil, o, ops) }), work{}, each(real, hash)
		}})
}
