package syntax_test

import (
	"fmt"
	"time"

	"github.com/barograph/baro/syntax"
)

func ExampleParseATURI() {
	u, err := syntax.ParseATURI("at://alice.test/app.bsky.feed.post/3jzfcijpj2z2a")
	fmt.Println(u.Authority(), u.Collection(), u.RecordKey(), err)
	// Output: alice.test app.bsky.feed.post 3jzfcijpj2z2a <nil>
}

func ExampleTIDClock() {
	clock := syntax.NewTIDClock(0)
	now := time.UnixMicro(1_700_000_000_000_000)
	fmt.Println(clock.Next(now), clock.Next(now))
	// Output: 3ke6kg3wk2222 3ke6kg3wk2322
}
