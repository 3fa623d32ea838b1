// Package stream speaks event streams, the WebSocket firehoses of the protocol: frames, consumers and the serving side.
//
// Specification: https://atproto.com/specs/event-stream and https://atproto.com/specs/sync.
//
// [Records] is what most programs want: the changes of records, verified, from a relay or PDS.
//
//	for r, err := range stream.Records(ctx, "https://relay.example", &stream.Options{
//		Keys:        directory, // an *identity.Directory
//		Collections: []string{"app.bsky.feed.post", "com.example.*"},
//		After:       &cursor,
//	}) {
//		if err != nil { return err }
//		post, err := stream.Decode[appbsky.FeedPost](&r) // if r.Action isn't stream.ActionDelete
//		cursor = r.Cursor
//	}
//
// [Repos] yields all events, [Labels] those of a labeler, [Jetstream] what a service that is trusted makes of a stream in JSON,
// unsigned. [Subscribe] is below them: frames as they come. All of them are loops that connect again after a failure; leaving
// one ends all that it has begun. [Dial] opens one connection.
//
// # What is verified
//
// Of a commit: sizes and syntax, the hash of every block, that the commit is the account's and signed with its present key,
// that the tree without the operations is the tree before, and that the tree and revision before are those of the commit
// before. What a host knows of the operations that a filter leaves out doesn't matter to that. A wrong signature leads to one
// more look at the account's key. What fails is not handed out: a [Problem] tells of it, and the loop goes on. The first
// commit that is seen of an account is held against what it says itself; so is one after a gap, see [GapPolicy].
//
// A filter by account looks at nothing of the others. A filter by collection looks at the paths of a commit's operations, and
// verifies only commits with a path that is wanted. Of the others it follows the links, unsigned, so that a lost commit still
// shows as a gap; a host that left the wanted operations out of a commit would not show until Options.VerifyAll, which
// verifies them all. Nothing is handed out that wasn't verified whole.
//
// Whether an account is active is what its host says, and who an account is says Options.Keys.
//
// # Order, cursors and back-pressure
//
// Events of one account come in order; accounts are verified side by side and don't wait for each other. The Cursor of an
// event, and Options.OnCursor, tell up to where everything has been handed out: going on after it repeats some events
// and loses none. A loop that takes its time stops the reading, at Options.MaxQueue events or MaxBytes; a server may then end
// the connection, which is taken up again where the reading ended.
//
// # Frames
//
// A frame is one binary WebSocket message of two DAG-CBOR maps: a header {op, t} and a payload. [ParseFrame] checks both
// strictly and keeps views of the buffer; the messages of com.atproto.sync.subscribeRepos are the hand-written types
// [Commit], [Sync], [Identity], [Account] and [Info], which decode from a [Frame] and encode with [AppendFrame].
// Decoding into a message leaves unknown fields out. A service that passes events on uses [Frame.AppendResequenced], which
// writes another sequence number into a frame and keeps every other byte, known or not.
//
//	handler := stream.NewHandler(ctx, source, stream.ServeOptions{}) // an http.Handler
//
// The package keeps no cursor on disk and no copy of repositories (package reposync does), has no JSON form of frames, and
// doesn't look at lexicons.
//
// Limits: 5 MiB a frame, on both sides; consumers and servers end connections that are silent or stalled; see Options for
// those of memory.
package stream

import (
	"errors"
	"fmt"

	"github.com/barograph/baro/cbor"
)

// MaxFrame is the largest frame that is read, in bytes, header and payload together. The specification allows 5,000,000: a frame
// between the two doesn't end the connection, but is refused by package repo, and counted under its reason.
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

// Is makes errors.Is find [ErrFutureCursor] and [ErrTooSlow] in what the other side says.
func (e *Error) Is(target error) bool {
	return target == ErrFutureCursor && e.Name == ErrorFutureCursor || target == ErrTooSlow && e.Name == ErrorConsumerTooSlow
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
