package main

import (
	"bytes"
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/devnet"
	"github.com/barograph/baro/examples/notes/lex"
	"github.com/barograph/baro/reposync"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// TestGenerated tells that lex is what the line in main.go generates.
func TestGenerated(t *testing.T) {
	src, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	_, line, ok := strings.Cut(string(src), "//go:generate ")
	if !ok {
		t.Fatal("no line to generate from")
	}
	line, _, _ = strings.Cut(line, "\n")
	args := append(strings.Fields(line), "-check")
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Errorf("%v: run go generate\n%s", err, out)
	}
}

// TestNotes is the app in a network of its own: two people write, one of them before the app is there, and anybody lists.
func TestNotes(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	net, err := devnet.Start(ctx, devnet.Options{Memory: true})
	if err != nil {
		t.Fatal(err)
	}
	defer net.Close()
	person := func(handle string) *client.Client {
		session, err := auth.New(auth.Options{HTTP: net.HTTP()}).Create(ctx, net.URLs().PDS, &comatproto.ServerCreateAccount_Input{
			Handle: handle, Email: new(handle + "@example.com"), Password: new("a quiet barometer"),
		})
		if err != nil {
			t.Fatal(err)
		}
		return client.ForAccount(session, client.Options{})
	}
	alice, bob := person("alice.test"), person("bob.test")
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	first, err := write(ctx, alice, "Fair, then rain.", now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := write(ctx, alice, strings.Repeat("rain ", 100), now); err == nil || !strings.Contains(err.Error(), "maxGraphemes") {
		t.Errorf("a note that is too long: %v", err)
	}

	index := newIndex()
	syncer, err := reposync.New(index, reposync.Options{Upstream: net.URLs().Relay, Directory: net.Directory(), HTTP: net.HTTP(), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	running, stop := context.WithCancel(ctx)
	go func() { done <- syncer.Run(running) }()
	defer func() {
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	if err := index.wait(ctx, 1); err != nil {
		t.Fatal(err)
	}

	// The stream brings what comes later: an answer with an entry that our schema doesn't know, and nothing that breaks it.
	answer := lex.Note{Text: "Rain it was.", CreatedAt: "2026-01-02T04:00:00Z", About: &comatproto.RepoStrongRef{Uri: string(first.URI), Cid: first.CID.String()}}
	answer.Extra.Set("com.example.umbrella", data.Raw{0xf5})
	if _, err := client.Create(ctx, bob, &lex.Note{Text: "no date", CreatedAt: "yesterday"}, client.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Create(ctx, bob, &answer, client.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := index.wait(ctx, 2); err != nil {
		t.Fatal(err)
	}

	server := httptest.NewServer(index.handler())
	defer server.Close()
	c := &xrpc.Client{Host: server.URL, Validate: func(nsid string, out any) error {
		raw, err := data.Marshal(out)
		if err != nil {
			return err
		}
		return catalog().ValidateOutput(syntax.NSID(nsid), raw)
	}}
	list := func(p lex.ListNotes_Params) (texts []string) {
		t.Helper()
		pages := lex.ListNotes.Pages(ctx, c, p)
		for note, err := range xrpc.Items(pages, func(o *lex.ListNotes_Output) []lex.ListNotes_NoteView { return o.Notes }) {
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, note.Note.Text)
			if note.Note.About != nil {
				got, err := data.Marshal(&note.Note)
				want, _ := data.Marshal(&answer)
				if err != nil || !bytes.Equal(got, want) || note.Note.About.Uri != string(first.URI) {
					t.Errorf("the answer came as %+v (%v)", note.Note, err)
				}
			}
		}
		return texts
	}
	if got := strings.Join(list(lex.ListNotes_Params{Limit: new(int64(1))}), "|"); got != "Rain it was.|Fair, then rain." {
		t.Error(got)
	}
	if got := strings.Join(list(lex.ListNotes_Params{Author: new(string(first.URI.Authority()))}), "|"); got != "Fair, then rain." {
		t.Error(got)
	}
	if _, err := lex.ListNotes.Call(ctx, c, &lex.ListNotes_Params{Author: new("did:web:nobody.test")}); !errors.Is(err, lex.ErrUnknownAuthor) {
		t.Errorf("of an author that isn't known: %v", err)
	}
	if _, err := alice.Delete(ctx, first.URI, client.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := index.wait(ctx, 1); err != nil {
		t.Fatal(err)
	}
}
