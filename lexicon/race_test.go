//go:build race

package lexicon_test

// raceEnabled is for tests that measure.
const raceEnabled = true
