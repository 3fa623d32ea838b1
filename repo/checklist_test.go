package repo_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/repo/repotest"
)

// unreachable are the reasons with which no message can be refused here, and why.
var unreachable = map[repo.Reason]string{
	repo.ReasonTreeHeight: "no key lies above layer 64",
	repo.ReasonFrame:      "whoever decodes the frame finds it",
	repo.ReasonBuffer:     "a file's",
	repo.ReasonFileTooBig: "a file's",
}

// Every rule of the checklist has its reasons, and each of them a message that breaks it.
func TestChecklist(t *testing.T) {
	type key struct {
		rule   int
		reason repo.Reason
	}
	cases := map[key]int{}
	reasons := map[repo.Reason]bool{}
	for _, c := range repotest.HostileMessages() {
		reasons[c.Reason] = true
		for _, n := range c.Rules {
			cases[key{n, c.Reason}]++
			if n < 1 || n > len(repo.Checklist) || !slices.Contains(repo.Checklist[n-1].Reasons, c.Reason) {
				t.Errorf("%s: rule %d doesn't have the reason %s", c.Name, n, c.Reason)
			}
		}
	}
	for i, r := range repo.Checklist {
		if r.Number != i+1 || r.Text == "" {
			t.Errorf("rule %d: %+v", i+1, r)
		}
		if len(r.Reasons) == 0 && r.Elsewhere == "" {
			t.Errorf("rule %d: neither a reason nor a word on who sees to it", r.Number)
		}
		for _, reason := range r.Reasons {
			if unreachable[reason] == "" && cases[key{r.Number, reason}] == 0 {
				t.Errorf("rule %d: no message breaks %s", r.Number, reason)
			}
			if unreachable[reason] != "" && !strings.Contains(r.Elsewhere, string(reason)) {
				t.Errorf("rule %d: doesn't say that %s can't be reached", r.Number, reason)
			}
		}
	}
	for _, r := range repo.Reasons {
		if r.Text() == "" || string(r) != strings.ToLower(string(r)) {
			t.Errorf("reason %q: %q", r, r.Text())
		}
		if reasons[r] == (unreachable[r] != "") {
			t.Errorf("reason %s: has a message: %v, can't be reached: %q", r, reasons[r], unreachable[r])
		}
	}
	for _, r := range mst.Rules {
		// Hashes are those of all blocks, and are checked when these are read.
		if reason := repo.Reason("tree-" + r); r != mst.RuleHash && (!reason.Tree() || reason.Text() == "") {
			t.Errorf("rule %s of the tree has no reason", r)
		}
	}
}

// Each message is refused for what is wrong with it, and the one beside it passes.
func TestHostileMessages(t *testing.T) {
	names := map[string]bool{}
	for _, c := range repotest.HostileMessages() {
		if names[c.Name] {
			t.Errorf("case %q twice", c.Name)
		}
		names[c.Name] = true
		if st, err := c.Bad.Verify(); reasonOf(err) != c.Reason || st != (repo.State{}) {
			t.Errorf("%s: %v, want %s", c.Name, err, c.Reason)
		}
		if st, err := c.Good.Verify(); err != nil || st.Rev != repotest.Rev {
			t.Errorf("%s: the message beside it: %v", c.Name, err)
		}

		// The report says the same of both, and of every rule.
		bad, good := c.Bad.Report(), c.Good.Report()
		if !good.OK() {
			t.Errorf("%s: the message beside it: %+v", c.Name, good.Failed())
		}
		var failed []repo.Reason
		for i, k := range bad.Checks {
			if k.Name != repo.Reasons[i] {
				t.Errorf("%s: check %d is %s", c.Name, i, k.Name)
			}
			if k.Status == repo.StatusFailed {
				failed = append(failed, k.Name)
				if k.Detail == "" && k.Path == "" {
					t.Errorf("%s: no detail: %+v", c.Name, k)
				}
			}
			if want := good.Checks[i].Status; k.Status == repo.StatusNotApplicable && want != k.Status {
				t.Errorf("%s: %s is %s, beside it %s", c.Name, k.Name, k.Status, want)
			}
		}
		if want := append([]repo.Reason{c.Reason}, c.Also...); !slices.Equal(failed, want) {
			t.Errorf("%s: failed %v, want %v", c.Name, failed, want)
		}
	}
}

// A record of a known type may be anything, as long as it is data.
func TestLexiconsDontMatter(t *testing.T) {
	a := newAccount(t, keys.K256)
	a.commit()
	for i, record := range [][]byte{
		cbor.AppendMap(nil, 0), // of no type
		cbor.AppendText(cbor.AppendText(cbor.AppendMap(nil, 1), "$type"), "app.bsky.feed.post"),  // without text
		cbor.AppendText(cbor.AppendText(cbor.AppendMap(nil, 1), "$type"), "com.example.unheard"), // of nobody
		cbor.AppendInt(cbor.AppendText(cbor.AppendMap(nil, 1), "text"), 1),                       // of another
	} {
		a.commit(repo.Write{Path: "app.bsky.feed.post/" + string(rune('a'+i)), Record: record})
	}
}
