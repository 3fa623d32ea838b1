// Package baro is the map of a repository that holds the AT Protocol (https://atproto.com/specs/atp) in one module and one
// binary. It has no API of its own.
//
// Every package says in its first lines what it is for, which page of the specification it follows, and what it leaves to
// others. From the bottom up:
//
// The protocol core has no network, no clock, no disk and no goroutines:
//
//	syntax   identifiers: DID, handle, NSID, AT-URI, TID, record key, datetime, language
//	cid      the one content identifier
//	cbor     strict DAG-CBOR
//	data     the data model, and its JSON form
//	keys     signing keys of both curves, did:key
//	car      archives
//	mst      the Merkle search tree
//	repo     commits, records, proofs, verification; repo/repotest: good and hostile ones, for tests
//	lexicon  schemas and the validation of records; lexicon/lexlint: mistakes in schemas, and changes that break others
//	plc      did:plc operations
//	label    what labelers say, signed
//
// Wire types are generated from the schemas in lexicons into api/comatproto, api/appbsky and so on.
//
// The SDK talks to the network:
//
//	xrpc        client and server of XRPC
//	identity    handles and DIDs to where they lead; identity/lexres: NSIDs to their schemas; identity/plcdir: logs of did:plc
//	auth        sessions and service tokens; auth/oauth: logging in by browser, with a server for tests in auth/oauth/oauthtest;
//	            auth/scope: what a session may do
//	client      typed access to the records of any server; client/migrate: accounts that move; client/partial: downloads of
//	            repositories that were cut off
//	richtext    mentions, links and tags in text
//	bsky        posting and reading in few words
//	workflow    what a server asks to be written, carried out and checked
//	stream      event streams, both ends
//	reposync    repositories, fetched whole and kept up to date, verified; reposync/reposynctest: a host of them for tests
//	devnet      a whole network in the process of a test
//
// The servers live in internal/server, one package each, on top of internal/world (clock, files, dialer, randomness),
// internal/kv (ordered keys and values), internal/eventlog (the sequenced log), internal/blob, internal/httpd and
// internal/netguard; internal/mailer sends their mail, and internal/figures tells their figures. internal/filelock keeps processes
// apart, internal/foreign shows what strangers wrote, internal/lexsite documents schemas, and internal/doctor finds out what is
// wrong. The command is cmd/baro.
//
// arch_test.go beside this file holds everybody to it: who may import whom, which calls only the machinery may make, and
// which modules the binary and the core packages depend on (deps.txt).
package baro
