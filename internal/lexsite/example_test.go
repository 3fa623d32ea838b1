package lexsite_test

import (
	"fmt"
	"log"
	"strings"

	"github.com/barograph/baro/internal/lexsite"
	"github.com/barograph/baro/lexicon"
)

func ExampleSite() {
	s, err := lexicon.ParseSchema([]byte(`{"lexicon": 1, "id": "com.example.note", "defs": {"main": {"type": "record", "key": "tid", "description": "A note.",
		"record": {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "maxLength": 300}}}}}}`))
	if err != nil {
		log.Fatal(err)
	}
	files, err := lexsite.Site([]lexsite.Entry{{Schema: s}}, lexsite.SiteOptions{Title: "Notes"})
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range files {
		fmt.Println(f.Path)
		if strings.HasSuffix(f.Path, ".txt") {
			fmt.Printf("%s", f.Content)
		}
	}
	// Output:
	// assets/filter.js
	// assets/style.css
	// com/example/note.html
	// com/example/note.json
	// com/example/note.md
	// index.html
	// llms.txt
	// # Notes
	//
	// > Documentation of 1 lexicon schemas of the AT Protocol.
	//
	// Each schema has a page in Markdown (linked here), in HTML (.html) and its source (.json).
	//
	// ## com.example
	//
	// - [com.example.note](com/example/note.md): record. A note.
}
