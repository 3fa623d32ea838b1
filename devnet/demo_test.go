package devnet

import (
	"bytes"
	"image/png"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rivo/uniseg"

	"github.com/barograph/baro/syntax"
)

func TestPlan(t *testing.T) {
	for _, n := range []int{2, 5, 8, 9, 60} {
		p, err := newPlan(7, n)
		if err != nil {
			t.Fatal(err)
		}
		if q, _ := newPlan(7, n); !reflect.DeepEqual(p, q) {
			t.Errorf("%d people: the same seed gives another world", n)
		}
		if len(p.people) != n {
			t.Fatalf("%d people, want %d", len(p.people), n)
		}
		handles := map[string]bool{}
		for _, q := range p.people {
			if handles[q.handle] || !syntax.ValidHandle(q.handle+HandleDomain) {
				t.Errorf("handle %q", q.handle)
			}
			handles[q.handle] = true
		}
		written := map[int]bool{}
		done := map[deed]bool{}
		var last time.Duration
		for _, d := range p.deeds {
			if d.at < last || d.at >= demoSpan {
				t.Fatalf("%d people: a deed at %v after one at %v", n, d.at, last)
			}
			last = d.at
			d.at = 0
			if done[d] {
				t.Errorf("%d people: %+v happens twice", n, d)
			}
			done[d] = true
			switch d.act {
			case actPost:
				s := p.posts[d.what]
				if c := uniseg.GraphemeClusterCount(s.text); c == 0 || c > 300 || s.text != strings.TrimSpace(s.text) {
					t.Errorf("a post of %d graphemes: %q", c, s.text)
				}
				if s.parent >= 0 && !written[s.parent] || s.quote >= 0 && !written[s.quote] {
					t.Errorf("%d people: %q comes before what it answers or quotes", n, s.text)
				}
				written[d.what] = true
			case actLike, actRepost:
				if !written[d.what] {
					t.Errorf("%d people: a post is liked before it is there", n)
				}
			case actFollow:
				if d.what == d.who {
					t.Error("somebody follows themselves")
				}
			}
		}
		if len(written) != len(p.posts) {
			t.Errorf("%d posts of %d", len(written), len(p.posts))
		}
	}
}

func TestScriptErrors(t *testing.T) {
	index := map[string]int{"ann": 0}
	for _, text := range []string{"bob: hello", "  ann: too deep", "|key x", "ann: x\n|quote nothing", "ann: x\n|image only-scene", "ann"} {
		if _, err := script(text, index); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestPictures(t *testing.T) {
	p, err := newPlan(0, 8)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	check := func(name string, b []byte, w, h int) {
		c, err := png.DecodeConfig(bytes.NewReader(b))
		if err != nil || c.Width != w || c.Height != h || len(b) > 100_000 {
			t.Errorf("%s: %d×%d, %d bytes, %v", name, c.Width, c.Height, len(b), err)
		}
	}
	for _, s := range p.posts {
		if s.scene != "" {
			if s.alt == "" {
				t.Errorf("%s has no alternative text", s.scene)
			}
			b, w, h := scene(s.scene)
			check(s.scene, b, w, h)
			seen++
		}
	}
	if seen == 0 {
		t.Error("no picture in the whole world")
	}
	for _, q := range p.people {
		check(q.handle, avatar(64, q.hue, q.motif), 64, 64)
	}
}

func TestFacets(t *testing.T) {
	g := &gardener{plan: &plan{people: []person{{handle: "wren"}}}, people: []resident{{did: "did:plc:x"}}}
	text := "é @wren.test and @nobody.test: https://atproto.com/specs/repository. #birds"
	f := g.facets(text)
	var got []string
	for _, x := range f {
		got = append(got, text[x.Index.ByteStart:x.Index.ByteEnd])
	}
	if want := []string{"@wren.test", "https://atproto.com/specs/repository", "#birds"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
