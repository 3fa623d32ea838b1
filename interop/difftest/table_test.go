package difftest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// answer is what one side makes of an input: a value, or why there is none.
type answer struct {
	value any
	err   error
}

func (a answer) String() string {
	if a.err != nil {
		return "error: " + a.err.Error()
	}
	return fmt.Sprintf("value: %#v", a.value)
}

// same reports whether two sides agree. A panic agrees with nothing.
func same(a, b answer) bool {
	if hasPanicked(a) || hasPanicked(b) {
		return false
	}
	if a.err != nil || b.err != nil {
		return a.err != nil && b.err != nil
	}
	return reflect.DeepEqual(a.value, b.value)
}

// panicked is the error of a peer that panicked.
type panicked struct{ reason any }

func (p *panicked) Error() string { return fmt.Sprint("panic: ", p.reason) }

// ask calls a peer, which may panic.
func ask(f func() (any, error)) (a answer) {
	defer func() {
		if r := recover(); r != nil {
			a = answer{err: &panicked{r}}
		}
	}()
	v, err := f()
	return answer{v, err}
}

func hasPanicked(a answer) bool {
	var p *panicked
	return errors.As(a.err, &p)
}

// The sides.
const (
	ours   = "ours"
	theirs = "theirs"
	open   = "open" // the specification leaves it open, or it is no rule of the protocol
)

// difference is one way in which a peer is known to disagree.
type difference[In any] struct {
	name  string
	right string // ours, theirs or open
	rule  string // and where it is written
	holds func(in In, ours, theirs answer) bool
	shown []In // inputs that show it
}

const (
	specModel     = "https://atproto.com/specs/data-model"
	specDRISL     = "https://dasl.ing/drisl.html"
	specCID       = "https://dasl.ing/cid.html"
	specCAR       = "https://dasl.ing/car.html"
	specRepo      = "https://atproto.com/specs/repository"
	specSync      = "https://atproto.com/specs/sync"
	specLexicon   = "https://atproto.com/specs/lexicon"
	specCrypto    = "https://atproto.com/specs/cryptography"
	specBlob      = "https://atproto.com/specs/data-model#blob-type"
	specSyntax    = "https://atproto.com/specs/lexicon#string-formats"
	guideLimits   = "https://atproto.com/guides/data-validation"
	rfcJSON       = "RFC 8259 section 8.2"
	fixturesSuite = "https://github.com/bluesky-social/atproto-interop-tests"
)

// table is the known differences from one peer in one respect.
type table[In any] struct {
	name string
	list []difference[In]
}

// judge compares two answers to an input and fails the test if they differ in a way that the table doesn't know. It returns
// the name of the difference, "" if there is none.
func (tb *table[In]) judge(t testing.TB, in In, mine, peer answer) string {
	t.Helper()
	if same(mine, peer) {
		return ""
	}
	for _, d := range tb.list {
		if d.holds(in, mine, peer) {
			return d.name
		}
	}
	t.Errorf("%s: a difference that isn't known\ninput  %s\nours   %v\ntheirs %v", tb.name, show(in), mine, peer)
	return "unknown"
}

func show(in any) string {
	switch v := in.(type) {
	case []byte:
		if len(v) > 4096 {
			return fmt.Sprintf("%x… (%d bytes)", v[:4096], len(v))
		}
		return fmt.Sprintf("%x %q", v, v)
	case string:
		return fmt.Sprintf("%q", v)
	}
	return fmt.Sprintf("%+v", in)
}

// check runs the inputs that should show each difference, and fails if one doesn't, if an entry says too little, or if
// two have the same name.
func (tb *table[In]) check(t *testing.T, run func(t testing.TB, in In) string) {
	t.Helper()
	var names []string
	for _, d := range tb.list {
		if d.name == "" || d.rule == "" || d.right != ours && d.right != theirs && d.right != open {
			t.Errorf("%s: the entry %q doesn't say what, who and why", tb.name, d.name)
		}
		if slices.Contains(names, d.name) {
			t.Errorf("%s: two entries %q", tb.name, d.name)
		}
		names = append(names, d.name)
		if len(d.shown) == 0 {
			t.Errorf("%s: nothing shows the difference %q", tb.name, d.name)
		}
		for _, in := range d.shown {
			if got := run(t, in); got != d.name {
				t.Errorf("%s: %s should show %q and shows %q", tb.name, show(in), d.name, got)
			}
		}
	}
}

// markdown appends the table in Markdown.
func (tb *table[In]) markdown(b []byte) []byte {
	if len(tb.list) == 0 {
		return b
	}
	b = fmt.Appendf(b, "\n## %s\n\n| difference | right | rule |\n|---|---|---|\n", tb.name)
	for _, d := range tb.list {
		b = fmt.Appendf(b, "| %s | %s | %s |\n", d.name, d.right, strings.ReplaceAll(d.rule, "|", "\\|"))
	}
	return b
}

// seeded returns the source of randomness for one mutation.
func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x6261726f)) }

// rounds is how many mutations of each seed the plain test run makes: enough for a few seconds in all, the same each time.
func rounds(n int) int {
	if testing.Short() {
		return max(1, n/10)
	}
	return n
}

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }
