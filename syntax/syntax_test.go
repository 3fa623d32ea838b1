package syntax

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/barograph/baro/internal/fixtures"
)

// lines returns the cases of a fixture file. Space at the edges belongs to the case.
func lines(t testing.TB, name string) []string {
	var out []string
	for l := range strings.Lines(string(fixtures.Read(t, "atproto-interop/syntax/"+name+".txt"))) {
		l = strings.TrimSuffix(l, "\n")
		if strings.TrimSpace(l) == "" || strings.HasPrefix(l, "# ") || l == "#" {
			continue
		}
		out = append(out, l)
	}
	return out
}

var parsers = map[string]func(string) error{
	"atidentifier": func(s string) error { _, err := ParseAtIdentifier(s); return err },
	"aturi":        func(s string) error { _, err := ParseATURI(s); return err },
	"cid":          func(s string) error { return CheckFormat(KindCID, s) },
	"datetime":     func(s string) error { _, err := ParseDatetime(s); return err },
	"did":          func(s string) error { _, err := ParseDID(s); return err },
	"handle":       func(s string) error { _, err := ParseHandle(s); return err },
	"language":     func(s string) error { _, err := ParseLanguage(s); return err },
	"nsid":         func(s string) error { _, err := ParseNSID(s); return err },
	"recordkey":    func(s string) error { _, err := ParseRecordKey(s); return err },
	"tid":          func(s string) error { _, err := ParseTID(s); return err },
	"uri":          func(s string) error { _, err := ParseURI(s); return err },
}

func TestInterop(t *testing.T) {
	total := 0
	for name, p := range parsers {
		for _, s := range lines(t, name+"_syntax_valid") {
			total++
			if err := p(s); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		invalid := lines(t, name+"_syntax_invalid")
		if name == "datetime" || name == "language" {
			invalid = append(invalid, lines(t, name+"_parse_invalid")...)
		}
		for _, s := range invalid {
			total++
			if strings.HasPrefix(s, "#") && !strings.Contains("recordkey aturi", name) {
				continue // a case that the set has commented out
			}
			err := p(s)
			var e *Error
			if !errors.As(err, &e) || e.Input != s || e.Reason == "" {
				t.Errorf("%s: %q gave %v", name, s, err)
			}
		}
	}
	t.Logf("%d cases", total)
}

// TestDecisions pins what is decided where implementations differ.
func TestDecisions(t *testing.T) {
	for _, c := range []struct {
		kind string
		in   string
		ok   bool
	}{
		{"language", "de-419-DE", false},
		{"language", "JA", false},
		{"language", "X-fr-CH", true},
		{"language", "x", false},
		{"language", "de-X-foo", true},
		{"language", "en-a", false},
		{"language", "en-x", false},
		{"language", "en--US", false},
		{"language", "zh-min-nan", true},
		{"datetime", "2023-02-29T00:00:00Z", false},
		{"datetime", "2024-02-29T00:00:00Z", true},
		{"datetime", "1900-02-29T00:00:00Z", false},
		{"datetime", "2023-01-01T00:00:60Z", false},
		{"datetime", "2023-01-01T24:00:00Z", false},
		{"datetime", "9999-12-31T23:59:59-00:01", false},
		{"datetime", "9999-12-31T23:59:59+00:01", true},
		{"datetime", "0000-01-01T00:01:00+00:01", true},
		{"datetime", "2023-01-01T00:00:00." + strings.Repeat("9", 43) + "Z", true},
		{"datetime", "2023-01-01T00:00:00." + strings.Repeat("9", 44) + "Z", false},
		{"datetime", "2023-01-01T00:00:00+24:00", false},
		{"uri", "a+b.c-1:x", true},
		{"uri", "a_b:x", false},
		{"uri", "https://example.com/é", false},
		{"aturi", "at://alice.test?x=y", false},
		{"aturi", "at://ALICE.test/COM.example.feed/x", true},
		{"cid", "Qmabcdefgh", false},
		{"did", "did:a:%", false},
		{"did", "did:a:" + strings.Repeat("a", MaxDID-6), true},
		{"did", "did:a:" + strings.Repeat("a", MaxDID-5), false},
		{"nsid", "com.example", false},
		{"nsid", "com.example.f-o", false},
		{"nsid", "1com.example.foo", false},
	} {
		if err := parsers[c.kind](c.in); (err == nil) != c.ok {
			t.Errorf("%s %q: %v, want ok = %v", c.kind, c.in, err, c.ok)
		}
	}
	for in, want := range map[string]bool{
		"JA": true, "jaja": true, "de-DE-1901-1901": true, "en-a-foo-a-bar": true, "de-419-DE": false, "123": false, "j": false,
	} {
		if WellFormedLanguage(in) != want || (CheckFormat(KindLanguage, in) == nil) != want {
			t.Errorf("well-formed language %q: want %v", in, want)
		}
	}
	if CheckFormat("from-the-future", "?") != nil {
		t.Error("an unknown format must pass")
	}
}

func TestPath(t *testing.T) {
	for in, ok := range map[string]bool{
		"app.bsky.feed.post/3jzfcijpj2z2a": true, "app.bsky.feed.post": false, "app.bsky.feed.post/": false, "/a": false, "": false,
		"app.bsky.feed.post/a/b": false, "app.bsky/a": false, "/app.bsky.feed.post/a": false, "app.bsky.feed.post/..": false,
	} {
		c, k, err := ParsePath(in)
		if (err == nil) != ok || ValidPath([]byte(in)) != ok || ok && string(c)+"/"+string(k) != in {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestAccessors(t *testing.T) {
	eq := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	u := ATURI("at://Alice.test/com.Example.fooBar/self")
	eq(string(u.Authority()), "Alice.test")
	eq(string(u.Collection()), "com.Example.fooBar")
	eq(string(u.RecordKey()), "self")
	eq(u.Path(), "com.Example.fooBar/self")
	eq(string(u.Normalize()), "at://alice.test/com.example.fooBar/self")
	eq(string(ATURI("at://did:web:X").Normalize()), "at://did:web:X")
	eq(string(ATURI("at://a.test").Collection()), "")
	eq(ATURI("at://a.test").Path(), "")
	eq(NSID("app.bsky.feed.post").Authority(), "feed.bsky.app")
	eq(NSID("app.bsky.feed.post").Name(), "post")
	eq(NSID("app.bsky.feed.post").Prefix(), "app.bsky.feed")
	eq(DID("did:plc:7iza6de2dwap2sbkpav7c6c6").Method(), "plc")
	eq(DID("did:a:b:c").Identifier(), "b:c")
	eq(Handle("A.Test").TLD(), "test")
	eq(string(Handle("A.Test").Normalize()), "a.test")
	eq(URI("https://x").Scheme(), "https")
	eq(string(AtIdentifier("did:a:B").DID()), "did:a:B")
	eq(string(AtIdentifier("did:a:B").Handle()), "")
	eq(string(AtIdentifier("a.B").Normalize().Handle()), "a.b")
	if !DID("did:plc:7iza6de2dwap2sbkpav7c6c6").IsPLC() || DID("did:plc:7iza6de2dwap2sbkpav7c6c1").IsPLC() || DID("did:plc:abc").IsPLC() {
		t.Error("IsPLC")
	}
	if !Handle("a.LOCAL").Reserved() || Handle("a.test").Reserved() {
		t.Error("Reserved")
	}
	for in, want := range map[DID]string{
		"did:web:example.com": "example.com", "did:web:localhost%3A2583": "localhost:2583", "did:web:localhost": "localhost",
		"did:web:example.com%3A80": "", "did:web:example.com:path": "", "did:plc:abc": "", "did:web:localhost%3Ax": "",
	} {
		if got, ok := in.Host(); ok != (want != "") || ok && got != want {
			t.Errorf("%s: host %q, %v", in, got, ok)
		}
	}
	for in, want := range map[string]string{
		" AT://@alice.test/ ": "at://alice.test", "alice.test/app.bsky.feed.post/a?x#y": "at://alice.test/app.bsky.feed.post/a", "at://": "", "": "",
	} {
		got, err := ReadATURI(in)
		if string(got) != want || (err == nil) != (want != "") {
			t.Errorf("ReadATURI(%q) = %q, %v", in, got, err)
		}
	}
}

func TestDatetime(t *testing.T) {
	for _, s := range append(lines(t, "datetime_syntax_valid"), "2026-03-01T00:30:00.25-07:30", "1999-12-31T23:59:59.9999999999+14:00") {
		want, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		if got := Datetime(s).Time(); !got.Equal(want) {
			t.Errorf("%s: %v, want %v", s, got, want)
		}
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 6_789_000, time.FixedZone("", 3600))
	if d := NewDatetime(now); d != "2026-01-02T02:04:05.006Z" {
		t.Error(d)
	}
	want := time.Date(1985, 4, 12, 23, 20, 50, 0, time.UTC)
	for _, s := range []string{
		"1985-04-12T23:20:50", "1985-04-12 23:20:50Z", "1985-04-12t23:20:50z", "1985-04-12T23:20:50-00:00",
		"1985-04-12T23:20:50+0000", "1985-04-13T00:20:50+0100", "1985-04-12T23:20:50-0000",
	} {
		if got, ok := LenientTime(s); !ok || !got.Equal(want) {
			t.Errorf("%s: %v, %v", s, got, ok)
		}
	}
	if _, ok := LenientTime("yesterday, at about noon"); ok {
		t.Error("nonsense accepted")
	}
}

func TestTID(t *testing.T) {
	for _, s := range lines(t, "tid_syntax_valid") {
		tid := TID(s)
		if back := TIDFromInteger(tid.Integer()); back != tid {
			t.Errorf("%s came back as %s", tid, back)
		}
		if back := NewTID(tid.Micros(), tid.ClockID()); back != tid {
			t.Errorf("%s came back as %s", tid, back)
		}
	}
	when := time.Date(2026, 1, 1, 0, 0, 0, 123000, time.UTC)
	if got := NewTID(when.UnixMicro(), 5).Time(); !got.Equal(when) {
		t.Error(got)
	}
	if NewTID(-1, 0) != "2222222222222" {
		t.Error("negative time")
	}
}

func TestTIDClock(t *testing.T) {
	c := NewTIDClock(7)
	when := time.UnixMicro(1_700_000_000_000_000)
	a := c.Next(when)
	if a.Micros() != when.UnixMicro() || a.ClockID() != 7 {
		t.Error(a)
	}
	if b := c.Next(when.Add(-time.Hour)); b <= a {
		t.Error("clock stepped back")
	}
	c.Observe(NewTID(when.Add(time.Hour).UnixMicro(), 1023))
	if b := c.Next(when); b <= NewTID(when.Add(time.Hour).UnixMicro(), 1023) {
		t.Error("observed TID not passed")
	}
	var mu sync.Mutex
	seen := map[TID]bool{}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			last := TID("")
			for range 500 {
				n := c.Next(when)
				if n <= last {
					t.Error("not increasing")
				}
				last = n
				mu.Lock()
				if seen[n] {
					t.Error("repeated")
				}
				seen[n] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

// TestPLC puts every byte at every place of a did:plc, and behind it, and compares with the reference expressions.
func TestPLC(t *testing.T) {
	plc := regexp.MustCompile(`^did:plc:[a-z2-7]{24}$`)
	did := regexp.MustCompile(`^did:[a-z]+:[a-zA-Z0-9._:%-]*[a-zA-Z0-9._-]$`)
	for _, good := range []string{"did:plc:7iza6de2dwap2sbkpav7c6c6", "did:plc:az27az27az27az27az27az27"} {
		for i := range len(good) + 1 {
			for c := range 256 {
				b := append([]byte(good), "/"[:min(1, i/len(good))]...)
				b[i] = byte(c)
				// As bytes: the expressions read text, in which a byte of 0x80 and above alone is a replacement character.
				if got, want := DID(b).IsPLC(), plc.Match(b); got != want {
					t.Errorf("%q is a did:plc: %v, want %v", b, got, want)
				}
				if got, want := ValidDID(b), did.Match(b); got != want {
					t.Errorf("%q is a DID: %v, want %v", b, got, want)
				}
				if got, want := ValidDID(string(b)), did.Match(b); got != want {
					t.Errorf("%q is a DID: %v, want %v", b, got, want)
				}
			}
			if short := good[:i]; ValidDID(short) != did.MatchString(short) || DID(short).IsPLC() != (i == len(good)) {
				t.Errorf("%q", short)
			}
		}
	}
}

func TestNoAllocations(t *testing.T) {
	post := []byte("app.bsky.feed.post/3jzfcijpj2z2a")
	for name, f := range map[string]func(){
		"did":      func() { ParseDID("did:plc:7iza6de2dwap2sbkpav7c6c6") },
		"handle":   func() { ParseHandle("alice.bsky.social") },
		"nsid":     func() { ParseNSID("app.bsky.feed.post") },
		"aturi":    func() { ParseATURI("at://did:plc:7iza6de2dwap2sbkpav7c6c6/app.bsky.feed.post/3jzfcijpj2z2a") },
		"tid":      func() { ParseTID("3jzfcijpj2z2a") },
		"datetime": func() { ParseDatetime("1985-04-12T23:20:50.123Z") },
		"language": func() { ParseLanguage("hy-Latn-IT-arevela") },
		"uri":      func() { ParseURI("https://example.com/path") },
		"path":     func() { ValidPath(post) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// The reference expressions of the specifications, as an independent model for the fuzz targets.
var models = []struct {
	max   int
	re    *regexp.Regexp
	check func(string) string
}{
	{MaxHandle, regexp.MustCompile(`^([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.)+[a-zA-Z]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$`), checkHandle[string]},
	{MaxDID, regexp.MustCompile(`^did:[a-z]+:[a-zA-Z0-9._:%-]*[a-zA-Z0-9._-]$`), checkDID[string]},
	{MaxNSID, regexp.MustCompile(`^[a-zA-Z]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)+(\.[a-zA-Z]([a-zA-Z0-9]{0,62})?)$`), checkNSID[string]},
	{tidSize, regexp.MustCompile(`^[234567abcdefghij][234567abcdefghijklmnopqrstuvwxyz]{12}$`), checkTID[string]},
	{MaxRecordKey, regexp.MustCompile(`^[a-zA-Z0-9_~.:-]{1,512}$`), checkRecordKey[string]},
}

func FuzzAgainstExpressions(f *testing.F) {
	for _, s := range []string{"did:plc:abc", "a.b", "com.example.fooBar", "3jzfcijpj2z2a", "self", "..", "x-.y", "a.-b.c", "did:a:%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for i, m := range models {
			want := len(s) <= m.max && m.re.MatchString(s)
			if i == 4 && (s == "." || s == "..") {
				want = false
			}
			if got := m.check(s) == ""; got != want {
				t.Errorf("model %d on %q: %v, want %v", i, s, got, want)
			}
		}
	})
}

func FuzzFormats(f *testing.F) {
	for _, s := range []string{
		"at://alice.test/app.bsky.feed.post/self", "1985-04-12T23:20:50.123-07:00", "en-GB-boont-r-extended-sequence-x-private",
		"https://example.com", "0000-01-01T00:00:00+01:00", "i-default", "at://did:plc:a/",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if u, err := ParseATURI(s); err == nil {
			if NewATURI(u.Authority(), u.Collection(), u.RecordKey()) != u || u.WithAuthority("did:web:a.test").WithAuthority(u.Authority()) != u ||
				u.WithAuthority("did:web:a.test").Path() != u.Path() {
				t.Errorf("%q does not come back from its parts", s)
			}
			if n := u.Normalize(); !ValidATURI(n) || n.Normalize() != n {
				t.Errorf("%q normalises to %q", s, n)
			}
		}
		if d, err := ParseDatetime(s); err == nil {
			want, err := time.Parse(time.RFC3339Nano, s)
			if err != nil || !want.Equal(d.Time()) {
				t.Errorf("%q: %v, time.Parse says %v, %v", s, d.Time(), want, err)
			}
		}
		if _, err := ParseLanguage(s); err == nil && !WellFormedLanguage(s) {
			t.Errorf("%q is valid but not well-formed", s)
		}
		_, _ = LenientTime(s)
		_, _ = ReadATURI(s)
		_, _ = ParseURI(s)
		_, _ = ParseAtIdentifier(s)
	})
}

func BenchmarkParse(b *testing.B) {
	for _, c := range []struct {
		name string
		f    func()
	}{
		{"aturi", func() { ParseATURI("at://did:plc:7iza6de2dwap2sbkpav7c6c6/app.bsky.feed.post/3jzfcijpj2z2a") }},
		{"did", func() { ParseDID("did:plc:7iza6de2dwap2sbkpav7c6c6") }},
		{"handle", func() { ParseHandle("alice.bsky.social") }},
		{"nsid", func() { ParseNSID("app.bsky.feed.post") }},
		{"tid", func() { ParseTID("3jzfcijpj2z2a") }},
		{"datetime", func() { ParseDatetime("1985-04-12T23:20:50.123Z") }},
		{"language", func() { ParseLanguage("pt-BR") }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.f()
			}
		})
	}
}

// Variants are told apart however many there are.
func TestManyVariants(t *testing.T) {
	tag := "de"
	for i := range 8 {
		tag += fmt.Sprintf("-%dabc", i)
		if _, err := ParseLanguage(tag); err != nil {
			t.Errorf("%s: %v", tag, err)
		}
		if _, err := ParseLanguage(tag + "-0ABC"); err == nil {
			t.Errorf("%s-0ABC is valid", tag)
		}
	}
	tag += "-8abc-8abc"
	if _, err := ParseLanguage(tag); err == nil || !WellFormedLanguage(tag) {
		t.Errorf("%s: %v", tag, err)
	}
}
