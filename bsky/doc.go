// Package bsky posts to and reads from Bluesky, and any other network of apps that share the schemas of app.bsky
// (https://github.com/bluesky-social/atproto/tree/main/lexicons/app/bsky), in as few words as possible.
//
//	c, err := bsky.Login(ctx, "alice.example.com", appPassword, bsky.Options{})
//	post, err := c.Post(ctx, bsky.Post{Text: "hello @bob.example.com, see baro.example.com #atproto"})
//	like, err := c.LikeRef(ctx, post) // or c.Like, with the address of a page
//	for item, err := range c.Timeline().All(ctx) { … }
//
// [Login] takes a password; an account that package auth/oauth has logged in, in the browser, goes to [ForAccount].
//
// Records are written to the account's own PDS; what is read comes from an AppView, which the PDS passes the questions on
// to. Mentions, links and tags in a text are found by package richtext unless the post says otherwise.
//
// A record is written under a key that is chosen here, so that a write whose answer was lost is looked for before it is
// sent again: nothing is posted twice. Wherever a record is named, a web address of bsky.app serves as well as an at-uri.
//
// Reads that fail for the moment are repeated, see Options.Retry; lists are read page by page as a loop goes on, or one
// [List.Page] at a time. Settings have functions of their own for muted words, saved feeds and labelers; [Client.Chat] and
// [Client.WithAppView] ask other services through the PDS.
//
// Limits: those of posts (300 characters, 3,000 bytes, [MaxImages] images of [MaxImage] bytes, one video of [MaxVideo]), which
// are checked before anything is sent; 16 MiB an answer; 100 items a page. The API is settling.
//
// The package is for people's accounts. Records of other apps are written with package client, methods that have no
// function here are called through [Client.AppView] and package api/appbsky.
package bsky
