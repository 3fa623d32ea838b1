// Package difftest gives the same bytes to Barograph and to implementations that other people wrote, and compares what
// they say: whether the bytes are valid, and what they mean.
//
// The peers are github.com/bluesky-social/indigo, github.com/fxamacker/cbor and github.com/ipfs/go-cid. Where a peer and
// Barograph disagree, an entry of a table says so: what the difference is, who is right, by which rule, and a predicate
// that recognises it. The predicate judges by the input or by a slow model in this package (items of CBOR, values of JSON,
// a tree rebuilt by the peer), never by Barograph's verdict alone. A disagreement that no entry explains fails the test, and
// so does an entry that none of the inputs shows.
//
// Every comparison is a fuzz target whose second argument seeds a mutation that knows the format, so that what is compared
// is nearly valid and not noise. The plain test run takes the fixtures, constructed seeds and a fixed number of mutations
// of them, with fixed seeds:
//
//	cd interop && go test ./difftest
//	cd interop && go test ./difftest -fuzz FuzzCBOR -fuzztime 5m
//
// The list of differences is interop/results/differences.md, which TestDifferences holds against the tables.
package difftest
