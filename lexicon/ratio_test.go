package lexicon_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
)

// least returns the shortest time that each function took for one call, measured in turns so that whatever else the machine
// does meets all of them.
func least(t testing.TB, rounds int, fs ...func() error) []time.Duration {
	const calls = 100
	best := make([]time.Duration, len(fs))
	for range rounds {
		for i, f := range fs {
			start := time.Now()
			for range calls {
				if err := f(); err != nil {
					t.Fatal(err)
				}
			}
			if d := time.Since(start) / calls; best[i] == 0 || d < best[i] {
				best[i] = d
			}
		}
	}
	return best
}

// ratios relates the validation of a post to its strict decoding: into the generated struct, and to the mere check that the
// bytes are strict.
func ratios(t testing.TB, rounds int) (toDecode, toValid float64) {
	c := referenceCatalog(t)
	raw := post(t)
	var v appbsky.FeedPost
	best := least(t, rounds,
		func() error { return c.ValidateRecord("app.bsky.feed.post", raw) },
		func() error { return data.Unmarshal(raw, &v) },
		func() error { return cbor.Valid(raw) })
	return float64(best[0]) / float64(best[1]), float64(best[0]) / float64(best[2])
}

// TestPostRatio guards the promise that validating a post takes at most twice as long as its strict decoding. It takes well
// under half of that.
func TestPostRatio(t *testing.T) {
	if testing.Short() || testing.CoverMode() != "" || raceEnabled {
		t.Skip("measures time")
	}
	if toDecode, toValid := ratios(t, 100); toDecode > 2 {
		t.Errorf("validation takes %.2f times as long as decoding and %.2f times as long as the check of the bytes", toDecode, toValid)
	}
}

func BenchmarkPost(b *testing.B) {
	c := referenceCatalog(b)
	raw := post(b)
	var v appbsky.FeedPost
	run := func(name string, f func() error) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	run("validate", func() error { return c.ValidateRecord("app.bsky.feed.post", raw) })
	run("decode", func() error { return data.Unmarshal(raw, &v) })
	run("valid", func() error { return cbor.Valid(raw) })
	b.Run("ratio", func(b *testing.B) {
		var toDecode, toValid float64
		for b.Loop() {
			toDecode, toValid = ratios(b, 1000)
		}
		b.ReportMetric(toDecode, "validate/decode")
		b.ReportMetric(toValid, "validate/valid")
	})
}

// TestPassMutants holds the fast way to the slow one on damaged posts: what it passes must be valid.
func TestPassMutants(t *testing.T) {
	c := referenceCatalog(t)
	raw := post(t)
	if !c.Pass("app.bsky.feed.post", raw) {
		t.Error("a valid post doesn't pass at speed")
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	passed := 0
	for range 50000 {
		b := append([]byte(nil), raw...)
		for range 1 + rnd.IntN(2) {
			switch i := rnd.IntN(len(b)); rnd.IntN(4) {
			case 0:
				b[i] = byte(rnd.IntN(256))
			case 1:
				b[i] ^= 1 << rnd.IntN(8)
			case 2:
				b = append(b[:i], b[i+1:]...)
			default:
				b = append(b[:i], append([]byte{byte(rnd.IntN(256))}, b[i:]...)...)
			}
		}
		if c.Pass("app.bsky.feed.post", b) {
			passed++
			if err := c.Refuse("app.bsky.feed.post", b); err != nil {
				t.Fatalf("passes, but %v: %x", err, b)
			}
		}
	}
	if passed < 1000 {
		t.Errorf("only %d mutants passed", passed)
	}
}

func FuzzPass(f *testing.F) {
	c := record(f, `{"type":"union","refs":["#o"]}`, `"o":{"type":"object","required":["s"],"nullable":["y"],"properties":{"s":{"type":"string","format":"datetime"},
		"t":{"type":"string","maxGraphemes":3,"minGraphemes":1},"i":{"type":"integer","maximum":70000,"minimum":-300},"y":{"type":"bytes"},"k":{"type":"cid-link"},"z":{"type":"boolean"},
		"b":{"type":"blob","accept":["image/*"]},"a long name":{"type":"array","maxLength":30,"items":{"type":"ref","ref":"#o"}},"u":{"type":"unknown"},"langs":{"type":"string","format":"language"}}}`)
	link := `{"$link":"` + cid.Sum(cid.Raw, nil).String() + `"}`
	f.Add(toCBOR(f, `{"$type":"com.example.test"}`))
	f.Add(toCBOR(f, `{"$type":"com.example.test","p":{"$type":"com.example.test#o","s":"2026-11-21T01:02:03Z","t":"é👩‍👩‍👦‍👦","i":-257,"y":null,"k":`+link+`,"z":true,
		"a long name":[{"s":"2026-11-21T01:02:03.4Z","langs":"pt-BR"}],"u":{"x":[1]},"b":{"$type":"blob","ref":`+link+`,"mimeType":"image/png","size":70000}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		err := c.Refuse("com.example.test", b)
		if pass := c.Pass("com.example.test", b); pass && err != nil {
			t.Errorf("%x passes, but %v", b, err)
		}
		if (c.ValidateRecord("com.example.test", b) == nil) != (err == nil) {
			t.Errorf("%x: two opinions, one of them %v", b, err)
		}
	})
}
