package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/barograph/baro/internal/bench"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
	"github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/atcrypto"
	peer "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	gocid "github.com/ipfs/go-cid"
	"gitlab.com/yawning/secp256k1-voi/secec"
)

// walkPeer verifies and walks a repository with indigo: it hashes the blocks as it loads them, and doesn't look into records.
func walkPeer(file []byte, key atcrypto.PublicKey) (n int) {
	ctx := context.Background()
	commit, r, err := peer.LoadRepoFromCAR(ctx, bytes.NewReader(file))
	bench.Check(err)
	if key != nil {
		bench.Check(commit.VerifySignature(key))
	}
	bench.Check(r.MST.Verify())
	bench.Check(r.MST.Walk(func(_ []byte, c gocid.Cid) error {
		_, err := r.RecordStore.Get(ctx, c)
		n++
		return err
	}))
	return n
}

func repoRows() []bench.Bench {
	var rows []bench.Bench
	add := func(size, what string, long bool, key *keys.PublicKey, load func() *bench.Repository) {
		var theirs atcrypto.PublicKey
		if key != nil {
			theirs = bench.Must(atcrypto.ParsePublicDIDKey(key.DIDKey()))
		}
		for _, b := range bench.Repositories(size, what, key, load) {
			of, target, shuffle := b.Of, b.Target, strings.HasPrefix(b.Name, "repo-any-order")
			b = b.Against(indigo, 3.5, func() bench.Work {
				r := load()
				file := r.File
				if shuffle {
					file = r.Shuffled()
				}
				if a, b := bench.Walk(file, key, repo.RecordsAny), walkPeer(file, theirs); a != b {
					bench.Check(fmt.Errorf("we see %d records, the peer %d", a, b))
				}
				return bench.Work{Ops: 1, Do: func() { walkPeer(file, theirs) }}
			})
			if !shuffle { // held against the floor
				b.Of, b.Target = of, target
			}
			b.Long = long
			rows = append(rows, b)
		}
	}
	key := bench.SigningKey(keys.K256).Public()
	for _, n := range []int{1000, 100_000, 1_000_000} {
		add(bench.Short(n), fmt.Sprintf("%d records", n), n > 100_000, key, bench.Generated(n))
	}
	if b := fixture("cars/little.car"); b != nil {
		add("fixture", "a real repository, without its key", false, nil, func() *bench.Repository { return bench.LoadRepository(b) })
	}
	return rows
}

// payload returns what comes after a frame's header, which is the same for all commits. It spares the peer the header.
func payload(b []byte) []byte { return b[len(stream.AppendHeader(nil, stream.TypeCommit)):] }

func verifyPeer(b []byte, key atcrypto.PublicKey) {
	var m atproto.SyncSubscribeRepos_Commit
	bench.Check(m.UnmarshalCBOR(bytes.NewReader(b)))
	bench.Must(peer.VerifyCommitMessage(context.Background(), &m))
	if key == nil {
		return
	}
	c, _, err := peer.LoadCommitFromCAR(context.Background(), bytes.NewReader([]byte(m.Blocks)))
	bench.Check(err)
	bench.Check(c.VerifyStructure())
	bench.Check(c.VerifySignature(key))
}

// verifyModule is the bare verification of the commits' signatures with the module that indigo uses for K-256.
func verifyModule(c *bench.Commits) bench.Work {
	key := bench.Must(secec.NewPublicKey(c.Key.Public().Uncompressed()))
	signed := c.Signed()
	o := &secec.ECDSAOptions{Encoding: secec.EncodingCompact, RejectMalleable: true}
	return bench.Work{Ops: len(signed), Do: func() {
		for i := range signed {
			if !key.Verify(signed[i][:], c.Commits[i].Sig, o) {
				bench.Check(keys.ErrBadSignature)
			}
		}
	}}
}

// moduleName is the K-256 module that indigo uses, and the fastest one in Go that we know of besides ours.
const moduleName = "secp256k1-voi"

func commitRows() []bench.Bench {
	slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError}))) // the peer logs
	var rows []bench.Bench
	for _, b := range bench.CommitRows() {
		b.Peer = indigo
		frames := func(c *bench.Commits, signed bool) func() bench.Work {
			return func() bench.Work {
				var theirs atcrypto.PublicKey
				if signed {
					theirs = bench.Must(atcrypto.ParsePublicDIDKey(c.Key.Public().DIDKey()))
				}
				return bench.Each(c.Frames, func(b []byte) { verifyPeer(payload(b), theirs) })
			}
		}
		switch b.Name {
		case "commit-k256":
			b.PeerWork, b.Target = frames(bench.K256Commits(), true), 1.25
			bare := b
			bare.Name += "/bare"
			bare.What += "; held against our own verification of its signature"
			// What the target was set against is a verification by the module that Go programs of the network use.
			setup := b.Setup
			b.Floor += ", " + moduleName
			b.Setup = func() (bench.Work, bench.Work) {
				ours, _ := setup()
				return ours, verifyModule(bench.K256Commits())
			}
			rows = append(rows, b)
			b = bare
		case "commit-p256":
			b.PeerWork = frames(bench.P256Commits(), true)
		case "commit-unsigned":
			b = b.Against(indigo, 0, frames(bench.K256Commits(), false))
		case "frame-decode":
			b = b.Against(indigo, 0, func() bench.Work {
				return bench.Each(bench.K256Commits().Frames, func(b []byte) {
					bench.Check(new(atproto.SyncSubscribeRepos_Commit).UnmarshalCBOR(bytes.NewReader(payload(b))))
				})
			})
		}
		rows = append(rows, b)
	}
	var real [][]byte
	for _, name := range []string{"4621317030", "4621317332", "4621332152", "4623075231"} {
		if b := fixture("firehose/firehose_commit_" + name + ".json"); b != nil {
			real = append(real, fixtureFrame(b))
		}
	}
	if len(real) == 0 {
		return rows
	}
	return append(rows, bench.Bench{Name: "commit-legacy (fixture)", What: "real commit messages from before sync 1.1: decode, hashes, the ops are in the tree; no signature, no chain. Indigo refuses some",
		Floor: "SHA-256 of the frame", Of: bench.FloorOverOurs, Allocs: -1, Setup: func() (bench.Work, bench.Work) {
			ops := make([]repo.Op, 0, 64)
			o := repo.VerifyOptions{Legacy: repo.LegacyAccept, SkipSignature: true}
			return bench.Each(real, func(b []byte) { bench.VerifyFrame(b, nil, nil, o, ops) }), bench.Each(real, bench.Hash)
		}})
}

func keyRows() []bench.Bench {
	c := bench.K256Commits()
	signed := c.Signed()
	private := bench.Must(secec.NewPrivateKey(c.Key.Bytes()))
	point := c.Key.Public().Bytes()
	var rows []bench.Bench
	for _, b := range bench.Signatures() {
		switch b.Name {
		case "verify-k256":
			rows = append(rows, b.Against(moduleName, 0, func() bench.Work { return verifyModule(c) }))
			b.Name += "/decred"
			b = b.Against("decred secp256k1", 0, func() bench.Work {
				key := bench.Must(secp256k1.ParsePubKey(point))
				return bench.Work{Ops: len(signed), Do: func() {
					for i := range signed {
						var r, s secp256k1.ModNScalar
						r.SetByteSlice(c.Commits[i].Sig[:32])
						s.SetByteSlice(c.Commits[i].Sig[32:])
						if s.IsOverHalfOrder() || !ecdsa.NewSignature(&r, &s).Verify(signed[i][:], key) {
							bench.Check(keys.ErrBadSignature)
						}
					}
				}}
			})
		case "sign-k256":
			b = b.Against(moduleName, 0, func() bench.Work {
				return bench.Each(signed, func(d [32]byte) {
					bench.Must(private.Sign(secec.RFC6979SHA256(), d[:], &secec.ECDSAOptions{Encoding: secec.EncodingCompact}))
				})
			})
		case "parse-k256":
			did := c.Key.Public().DIDKey()
			b = b.Against(indigo, 0, func() bench.Work {
				return bench.Work{Ops: 1, Do: func() { bench.Must(atcrypto.ParsePublicDIDKey(did)) }}
			})
		}
		rows = append(rows, b)
	}
	return rows
}
