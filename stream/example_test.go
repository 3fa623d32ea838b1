package stream_test

import (
	"context"
	"fmt"
	"net/http/httptest"

	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/repo/repotest"
	"github.com/barograph/baro/stream"
)

// A program that reads verified records. In place of the key ring, an *identity.Directory finds the keys of all accounts.
func ExampleRecords() {
	relay, keys := exampleRelay()
	defer relay.Close()
	type note struct {
		Text string `json:"text"`
	}
	for r, err := range stream.Records(context.Background(), relay.URL, &stream.Options{
		Keys:        keys,
		Collections: []string{"com.example.*"},
		After:       new(int64(0)), // from the oldest that the relay has
		OnProblem:   func(p *stream.Problem) { fmt.Println("not handed out:", p.Kind, p.Reason()) },
	}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		if r.Action == stream.ActionDelete {
			fmt.Println("gone:", r.URI())
			break
		}
		n, err := stream.Decode[note](&r)
		if err != nil {
			continue // what others write may be anything
		}
		fmt.Println(r.Action, r.RecordKey, n.Text, "verified:", r.Verified)
	}
	// Output:
	// create 0001 rain verified: true
	// update 0001 sun verified: true
	// not handed out: rejected signature
	// gone: at://did:web:alice.example.com/com.example.note/0001
}

// exampleRelay serves four commits, of which the third is forged.
func exampleRelay() (*httptest.Server, stream.Keys) {
	w := newWorld(exampleTB{})
	a := w.account("alice")
	rec := func(text string) repo.Write {
		return repo.Write{Path: "com.example.note/0001", Record: repotest.Record(text)}
	}
	a.write(rec("rain"))
	a.write(rec("sun"))
	forger := *a
	forger.key = newKey(w.t, "forger")
	forger.write(rec("snow"))
	a.write(repo.Write{Path: "com.example.note/0001"})
	log := newMemLog()
	for _, f := range w.frames {
		log.addFrame(f.Seq, f.Raw)
	}
	return httptest.NewServer(stream.NewHandler(context.Background(), log, stream.ServeOptions{})), w.keys
}
