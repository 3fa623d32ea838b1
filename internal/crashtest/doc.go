// Package crashtest kills whole networks and looks at what is left of them: it holds tests and a benchmark of the program `baro up` as
// people run it, in a process of its own, and no code for others.
//
// The tests put load on all services through their public interfaces (https://atproto.com/specs/xrpc), keep account of what was
// acknowledged, kill the process at every point that package crashpoint names and at random moments, start it again on the same data
// directory, and compare: nothing acknowledged is lost, nothing is half there, no sequence number has two meanings, relay and link
// index agree with the repositories. Power loss is not their subject, because a killed process leaves its writes to the kernel: the
// stores' own tests drop what was not synced.
//
//	go test -tags faulttest -run Crash ./internal/crashtest           # named points and random moments, about two minutes
//	BARO_CRASH_ROUNDS=100 BARO_CRASH_SEED=7 go test -tags faulttest -timeout 2h -run Crash ./internal/crashtest
//	go test -run '^$' -bench Network ./internal/crashtest             # what a network does per second, and what it takes
//
// Limits: Unix only.
package crashtest
