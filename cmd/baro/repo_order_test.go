package main

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/repo/repotest"
)

// A file in any order, with blocks that are there twice or for nothing, is written in the order of the tree, and drawn and compared as the
// ordered one is.
func TestOrderOfAnyFile(t *testing.T) {
	t.Chdir(ownHome(t))
	whole := newTestRepo(t).car(t)
	write(t, "whole.car", whole)
	_, want, _ := baro(t, "repo", "mst", "whole.car", "--json")
	roots, seq, err := car.Parse(whole, car.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var blocks []car.Block
	for b, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, b)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 20 {
		list := append([]car.Block(nil), blocks...)
		if i > 0 {
			junk := repotest.NewBuilder()
			c := junk.Add(repotest.Record(strings.Repeat("x", i)))
			list = append(list, car.Block{CID: c, Data: repotest.Record(strings.Repeat("x", i))}, blocks[rng.IntN(len(blocks))])
			rng.Shuffle(len(list), func(a, b int) { list[a], list[b] = list[b], list[a] })
		}
		out := car.AppendHeader(nil, roots...)
		for _, b := range list {
			out = car.AppendBlock(out, b.CID, b.Data)
		}
		write(t, "mixed.car", out)
		code, _, errs := baro(t, "repo", "order", "mixed.car", "ordered.car", "--overwrite")
		got, err := os.ReadFile("ordered.car")
		if code != exitOK || err != nil || !bytes.Equal(got, whole) || i > 0 != strings.Contains(errs, "2 blocks left out") {
			t.Fatalf("%d: exit code %d, %d bytes, want %d: %s", i, code, len(got), len(whole), errs)
		}
		if code, drawn, errs := baro(t, "repo", "mst", "mixed.car", "--json"); code != exitOK || drawn != want {
			t.Errorf("%d: drawn otherwise: exit code %d: %s\n%s", i, code, errs, drawn)
		}
		if code, diff, errs := baro(t, "repo", "diff", "whole.car", "mixed.car"); code != exitOK || diff != "" {
			t.Errorf("%d: differs: exit code %d: %s\n%s", i, code, errs, diff)
		}
	}

	// A part is drawn as far as it goes, and not written as if it were whole.
	part := whole[:len(whole)*2/3]
	for {
		s, err := car.NewScanner(part, car.Options{})
		for err == nil {
			_, err = s.Next()
		}
		if s.Offset() == len(part) {
			break
		}
		part = part[:s.Offset()]
	}
	write(t, "part.car", part)
	if code, out, errs := baro(t, "repo", "mst", "part.car"); code != exitOK || !strings.Contains(out, "not in the file") || !strings.Contains(errs, "a part of the repository") {
		t.Errorf("a part: exit code %d: %s\n%s", code, errs, out)
	}
	if code, _, errs := baro(t, "repo", "order", "part.car", "none.car"); code != exitVerification || !strings.Contains(errs, "a part of a repository") {
		t.Errorf("a part: exit code %d: %s", code, errs)
	}
	if left, _ := filepath.Glob("none.car*"); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// What is wrong with a repository is still wrong when it is in order, and drawing and comparing it don't go astray.
func TestOrderOfHostileFile(t *testing.T) {
	t.Chdir(ownHome(t))
	key := repotest.Key().Public().DIDKey()
	broken := 0
	for _, c := range repotest.Hostile() {
		write(t, "in.car", c.CAR)
		os.Remove("out.car")
		code, _, errs := baro(t, "repo", "order", "in.car", "out.car")
		switch code {
		case exitOK:
			now, _, _ := baro(t, "repo", "verify", "out.car", "--key", key, "--did", string(repotest.DID))
			if healed := c.Reason == repo.ReasonExtraBlocks || c.Reason == repo.ReasonFileTooBig || c.Reason == repo.ReasonCARRoot || strings.HasPrefix(c.Name, "unlinked"); now == exitOK && !healed {
				t.Errorf("%s (%s): it was ordered, and verifies", c.Name, c.Reason)
			}
		case exitVerification:
			broken++
			if _, err := os.Stat("out.car"); err == nil {
				t.Errorf("%s: a file is left", c.Name)
			}
		default:
			t.Errorf("%s: exit code %d: %s", c.Name, code, errs)
		}
		for _, args := range [][]string{{"mst", "in.car"}, {"diff", "in.car", "in.car"}} {
			if code, _, errs := baro(t, append([]string{"repo"}, args...)...); code != exitOK && code != exitVerification {
				t.Errorf("%s: %s: exit code %d: %s", c.Name, args[0], code, errs)
			}
		}
	}
	if broken < 10 {
		t.Errorf("only %d files could not be ordered", broken)
	}
}
