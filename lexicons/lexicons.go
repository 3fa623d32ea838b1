// Package lexicons holds the lexicon schemas that the generated packages under api are made from.
//
// Specification: https://atproto.com/specs/lexicon. The path of a schema is its NSID with slashes for dots. The schemas are
// those of the upstream repository without the texts written for people (descriptions, and the titles and details of
// permission sets); lock.json names the upstream commit and the CID of each original. One is our own rendering of
// what is written down nowhere as a schema, com.atiproto.actions. The package does not parse or
// validate: package lexicon does, with [FS] as the source of its catalog.
//
//	b, err := lexicons.Schema("app.bsky.feed.post") // JSON
//
// The set grows with the upstream; a schema that is there stays.
package lexicons

import (
	"embed"
	"strings"
)

// FS holds the schemas, such as app/bsky/feed/post.json, and lock.json.
//
//go:embed app chat com internal site tools lock.json
var FS embed.FS

// Schema returns the JSON of the schema with the given NSID, or an error that is [io/fs.ErrNotExist].
func Schema(nsid string) ([]byte, error) {
	return FS.ReadFile(strings.ReplaceAll(nsid, ".", "/") + ".json")
}
