// Package stream speaks event streams, the WebSocket firehoses of the protocol: frames, consumers and the serving side.
//
// Specification: https://atproto.com/specs/event-stream and https://atproto.com/specs/sync.
//
// A frame is one binary WebSocket message of two DAG-CBOR maps: a header {op, t} and a payload. [ParseFrame] checks both
// strictly and keeps views of the buffer; the messages of com.atproto.sync.subscribeRepos are the hand-written types
// [Commit], [Sync], [Identity], [Account] and [Info], which decode from a [Frame] and encode with [AppendFrame].
// Decoding into a message leaves unknown fields out. A service that passes events on uses [AppendResequenced], which
// writes another sequence number into a frame and keeps every other byte, known or not.
//
//	for f, err := range stream.Subscribe(ctx, "https://pds.example", stream.SubscribeOptions{After: &cursor}) {
//		if err != nil { return err }
//		m, err := f.Message()
//		switch m := m.(type) {
//		case *stream.Commit: …
//		case *stream.Account: …
//		}
//		cursor = f.Seq
//	}
//
//	handler := stream.NewHandler(ctx, source, stream.ServeOptions{}) // an http.Handler
//
// The package checks framing, encoding and the order of sequence numbers. It doesn't check signatures, trees, or the
// syntax of identifiers in messages (package repo does), keeps no cursor on disk, and has no JSON form.
//
// Limits: 5 MiB a frame, on both sides; consumers and servers end connections that are silent or stalled.
package stream

import (
	"errors"
	"fmt"

	"github.com/barograph/baro/cbor"
)

// MaxFrame is the largest frame in bytes, header and payload together.
const MaxFrame = cbor.MaxFrame

// MaxSeq is the largest sequence number: what a 64-bit float holds exactly.
const MaxSeq = 1<<53 - 1

// SubscribeRepos is the NSID of the repository stream, https://atproto.com/specs/sync.
const SubscribeRepos = "com.atproto.sync.subscribeRepos"

// Names of error frames and of the one known #info message.
const (
	ErrorFutureCursor    = "FutureCursor"
	ErrorConsumerTooSlow = "ConsumerTooSlow"
	InfoOutdatedCursor   = "OutdatedCursor"
)

// Operations in a frame header.
const (
	OpMessage = 1
	OpError   = -1
)

// Types in the frame headers of com.atproto.sync.subscribeRepos.
const (
	TypeCommit   = "#commit"
	TypeSync     = "#sync"
	TypeIdentity = "#identity"
	TypeAccount  = "#account"
	TypeInfo     = "#info"
)

// ErrFrame is wrapped by every error about the bytes of a frame. A consumer has to drop the connection on it.
var ErrFrame = errors.New("invalid frame")

// Error is an error frame: the other side said what is wrong and closes the stream.
type Error struct {
	Name    string // such as "FutureCursor", without "#"
	Message string // optional
}

// Error returns name and message.
func (e *Error) Error() string {
	if e.Message == "" {
		return "stream error " + e.Name
	}
	return "stream error " + e.Name + ": " + e.Message
}

// SeqError says that a sequence number is not above its predecessor. The event must not be processed.
type SeqError struct {
	Last int64 // sequence number before
	Seq  int64 // sequence number that came
}

// Error names both numbers.
func (e *SeqError) Error() string {
	return fmt.Sprintf("sequence number %d after %d: duplicate or out of order", e.Seq, e.Last)
}

func frameErr(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrFrame, fmt.Errorf(format, args...))
}
