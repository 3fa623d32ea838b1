// Command bot posts a line: all that a bot needs, in ten lines.
//
//	BOT_HANDLE=alice.example.com BOT_PASSWORD=… go run ./examples/bot "Pressure is rising #weather"
//
// In the network of `baro up`, set BOT_PDS=http://localhost:2583 too.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/barograph/baro/bsky"
)

func main() {
	ctx := context.Background()
	c, err := bsky.Login(ctx, os.Getenv("BOT_HANDLE"), os.Getenv("BOT_PASSWORD"), bsky.Options{PDS: os.Getenv("BOT_PDS")})
	if err != nil {
		log.Fatal(err)
	}
	post, err := c.Post(ctx, bsky.Post{Text: os.Args[1]})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(post.URI)
}
