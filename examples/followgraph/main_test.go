package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/barograph/baro/examples/internal/localtest"
)

func TestFollowGraph(t *testing.T) {
	net, c := localtest.Start(t, "ann.test", "ben.test", "cleo.test", "dan.test")
	for i := range 3 { // a follows b, b follows c, c follows d
		if _, err := c[i].Follow(t.Context(), string(c[i+1].DID())); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c[1].Follow(t.Context(), string(c[0].DID())); err != nil { // and b follows a: a circle
		t.Fatal(err)
	}
	walk := func(args ...string) []string {
		t.Helper()
		var out, progress bytes.Buffer
		args = append([]string{"-plc", net.URLs().PLC, "-resolver", net.URLs().PDS}, args...)
		if err := run(t.Context(), args, &out, &progress); err != nil || progress.Len() > 0 {
			t.Fatal(err, progress.String())
		}
		var edges []string
		for _, line := range strings.Split(strings.TrimSpace(out.String()), "\n")[1:] {
			for i, x := range c {
				line = strings.ReplaceAll(line, string(x.DID()), string(rune('a'+i)))
			}
			edges = append(edges, line[:3])
		}
		slices.Sort(edges)
		return edges
	}
	if got := walk("ann.test"); !slices.Equal(got, []string{"a,b"}) {
		t.Errorf("one step: %v", got)
	}
	if got := walk("-depth", "2", string(c[0].DID())); !slices.Equal(got, []string{"a,b", "b,a", "b,c"}) {
		t.Errorf("two steps: %v", got)
	}
	if got := walk("-depth", "9", "ann.test"); !slices.Equal(got, []string{"a,b", "b,a", "b,c", "c,d"}) {
		t.Errorf("all: %v", got)
	}
	if got := walk("-depth", "9", "-limit", "1", "ann.test"); !slices.Equal(got, []string{"a,b"}) {
		t.Errorf("limited: %v", got)
	}
	for _, args := range [][]string{{}, {"-resolver", net.URLs().PDS, "nobody.test"}} {
		if err := run(t.Context(), args, new(bytes.Buffer), new(bytes.Buffer)); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}
