package main

import "testing"

func TestReadURI(t *testing.T) {
	const did = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
	for in, want := range map[string]string{
		"alice.test":                          "at://alice.test",
		" @alice.test ":                       "at://alice.test",
		did:                                   "at://" + did,
		"at://" + did + "/a.b.c/d":            "at://" + did + "/a.b.c/d",
		"at%3A%2F%2F" + did + "%2Fa.b.c%2Fd":  "at://" + did + "/a.b.c/d",
		"at://did:web:localhost%3A1/a.b.c/d":  "at://did:web:localhost%3A1/a.b.c/d",
		"https://bsky.app/profile/alice.test": "at://alice.test",
		"https://bsky.app/profile/alice.test/followers":                          "at://alice.test",
		"https://bsky.app/profile/" + did + "/post/3l6oveex3ii2l?ref=x#top":      "at://" + did + "/app.bsky.feed.post/3l6oveex3ii2l",
		"https://bsky.app/profile/did%3Aplc%3Aewvi7nxzyoun6zhxrhs64oiz/post/abc": "at://" + did + "/app.bsky.feed.post/abc",
		"https://bsky.app/profile/alice.test/feed/news":                          "at://alice.test/app.bsky.feed.generator/news",
		"https://bsky.app/profile/alice.test/lists/3l6oveex3ii2l":                "at://alice.test/app.bsky.graph.list/3l6oveex3ii2l",
		"https://bsky.app/starter-pack/alice.test/3l6oveex3ii2l":                 "at://alice.test/app.bsky.graph.starterpack/3l6oveex3ii2l",
		"https://another.example/profile/alice.test/post/3l6oveex3ii2l":          "at://alice.test/app.bsky.feed.post/3l6oveex3ii2l",
		"http://localhost:2500/at/alice.test/a.b.c/d":                            "at://alice.test/a.b.c/d",
		"https://viewer.example/at://alice.test/a.b.c/d":                         "at://alice.test/a.b.c/d",
		"https://viewer.example/at:/alice.test/a.b.c/d":                          "at://alice.test/a.b.c/d",
		"https://viewer.example/?uri=at%3A%2F%2Falice.test%2Fa.b.c%2Fd&x=1":      "at://alice.test/a.b.c/d",
		"https://viewer.example/#at://" + did:                                    "at://" + did,
	} {
		got, err := readURI(in)
		if err != nil || string(got) != want {
			t.Errorf("%s: %s, %v, want %s", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "no account", "https://bsky.app", "https://bsky.app/settings", "https://example.com/a/b", "https://bsky.app/profile/nobody",
		"https://bsky.app/profile/alice.test/post/a/b/c", "at%3A%2F%2F", "https://viewer.example/at://", "http://", "https://bsky.app/profile/alice.test/post/%00",
	} {
		if got, err := readURI(in); err == nil {
			t.Errorf("%q: %s, want an error", in, got)
		}
	}
}

func FuzzReadURI(f *testing.F) {
	for _, s := range []string{"alice.test", "https://bsky.app/profile/alice.test/post/x", "https://x.example/at%3A%2F%2Falice.test%2Fa.b.c%2Fd", "at://did:web:a%3A1/a.b.c/d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := readURI(s)
		if err != nil {
			return
		}
		if again, err := readURI(string(u)); err != nil || again != u {
			t.Errorf("%q: %s is read as %s, %v", s, u, again, err)
		}
	})
}
