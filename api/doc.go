// Package api is the parent of the packages that are generated from lexicon schemas, one per pair of first segments of
// their NSIDs: com.atproto is comatproto, app.bsky is appbsky. It has no API itself.
//
// Specification: https://atproto.com/specs/lexicon.
//
// A definition is named after the rest of its NSID: app.bsky.feed.post is appbsky.FeedPost, and
// app.bsky.feed.defs#postView is appbsky.FeedDefs_PostView. A method is a variable, a descriptor with which clients call
// it and servers route it, along with its parameters, input and output:
//
//	out, err := comatproto.RepoGetRecord.Call(ctx, client, &comatproto.RepoGetRecord_Params{
//		Repo: "alice.test", Collection: "app.bsky.feed.post", Rkey: "3k…",
//	})
//
// Parameters, input and output are named after the method, what is defined in place after its field: FeedPost_Embed, and
// FeedPost_Embed_Elem if it were the items of an array. Of types that are the same, all but one are aliases. The values that
// a schema knows of for its strings are constants named after the schema and the value, FeedGetAuthorFeed_PostsWithReplies,
// each once. Errors are constants too, for errors.Is: ErrHandleNotFound.
//
// Strings of every format are string: what came in goes out unchanged, and package syntax parses it where it matters. An
// optional scalar or object is a pointer, an optional array may be nil. A union holds a pointer to one of its members, or
// the bytes of what this module has no type for, see data.Union. Entries that a schema doesn't know of stay in Extra, which
// every struct has, so that reading and writing a record gives the same bytes. A required entry that is missing is an
// error. Package encoding/json works on all types; of those that aren't records it leaves out Extra, which
// data.MarshalJSON does not.
//
// The schemas limit lengths, ranges and formats: package lexicon checks records against those, package xrpc parameters.
//
// The API follows the schemas: a new field may make an unkeyed composite literal stop compiling, nothing else.
package api

//go:generate go run ../internal/lexgen/cmd generate -lexicons ../lexicons -out . -module github.com/barograph/baro/api
