// Package bsky posts to and reads from Bluesky, and any other network of apps that share the schemas of app.bsky
// (https://github.com/bluesky-social/atproto/tree/main/lexicons/app/bsky), in as few words as possible.
//
//	c, err := bsky.Login(ctx, "alice.example.com", appPassword, bsky.Options{})
//	post, err := c.Post(ctx, bsky.Post{Text: "hello @bob.example.com, see baro.example.com #atproto"})
//	like, err := c.Like(ctx, post.URI)
//	for item, err := range c.Timeline().All(ctx) { … }
//
// Records are written to the account's own PDS; what is read comes from an AppView, which the PDS passes the questions on
// to. Mentions, links and tags in a text are found by package richtext unless the post says otherwise.
//
// A record is written under a key that is chosen here, so that a write whose answer was lost is looked for before it is
// sent again: nothing is posted twice. Wherever a record is named, a web address of bsky.app serves as well as an at-uri.
//
// The package is for people's accounts. Records of other apps are written with package client, methods that have no
// function here are called through [Client.AppView] and package api/appbsky.
package bsky
