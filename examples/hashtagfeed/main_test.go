package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/barograph/baro/bsky"
	"github.com/barograph/baro/examples/internal/localtest"
)

func TestHashtagFeed(t *testing.T) {
	net, c := localtest.Start(t, "ann.test", "ben.test", "cleo.test", "dan.test")
	for i, p := range []bsky.Post{{Text: "Rain #Weather"}, {Text: "Sun #weather"}, {Text: "quiet", Tags: []string{"weather"}}, {Text: "weather without a tag"}} {
		if _, err := c[i].Post(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range [][2]int{{0, 1}, {0, 2}, {1, 0}, {2, 3}} {
		if _, err := c[f[0]].Follow(t.Context(), string(c[f[1]].DID())); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-host", net.URLs().PDS, "-plc", net.URLs().PLC, "#weather"}, &out); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		if !strings.HasPrefix(line, " ") {
			got = append(got, line)
		}
	}
	want := []string{"ann.test follows 2 of the 2 others", "ben.test follows 1 of the 2 others", "cleo.test follows 0 of the 2 others"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") || !strings.Contains(out.String(), "Sun #weather") {
		t.Errorf("got\n%s", out.String())
	}
	if err := run(t.Context(), nil, &out); err == nil {
		t.Error("no tag and no error")
	}
}
