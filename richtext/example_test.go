package richtext_test

import (
	"context"
	"fmt"

	"github.com/barograph/baro/richtext"
	"github.com/barograph/baro/syntax"
)

func ExampleResolve() {
	resolve := func(_ context.Context, h syntax.Handle) (syntax.DID, error) { // usually (*identity.Directory).ResolveHandle
		return "did:web:" + syntax.DID(h), nil
	}
	text, err := richtext.Resolve(context.Background(), "Hello @alice.test, read baro.example.com about #atproto", resolve)
	if err != nil {
		fmt.Println(err)
		return
	}
	for s := range text.Segments() {
		fmt.Printf("%q: %q\n", s.Text, s.Mention()+s.Link()+s.Tag())
	}
	// Output:
	// "Hello ": ""
	// "@alice.test": "did:web:alice.test"
	// ", read ": ""
	// "baro.example.com": "https://baro.example.com"
	// " about ": ""
	// "#atproto": "atproto"
}

func ExampleBuilder() {
	var b richtext.Builder
	b.Text("Read ").Link("the paper", "https://a.test/paper.pdf").Text("!")
	text := b.Build()
	fmt.Println(text.Text, text.Facets[0].Index.ByteStart, text.Facets[0].Index.ByteEnd)
	// Output: Read the paper! 5 14
}
