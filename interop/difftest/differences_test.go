package difftest

import (
	"bytes"
	"flag"
	"os"
	"testing"

	"github.com/barograph/baro/data"
)

var update = flag.Bool("update", false, "write the list of differences anew")

const listFile = "../results/differences.md"

// TestDifferences shows every known difference by inputs of its own, and holds the list of them against the tables.
func TestDifferences(t *testing.T) {
	list := []byte("# Where others read the same bytes differently\n\nBy `go test ./difftest -update` from the tables of package difftest, " +
		"which shows each of these by an input. \"Right\" is who keeps\nthe rule; \"open\" means that no rule decides.\n")
	t.Run("fxamacker", func(t *testing.T) {
		fxTable.check(t, func(t testing.TB, b []byte) string {
			return fxTable.judge(t, b, ask(func() (any, error) { return data.Decode(b) }), askFxamacker(b))
		})
	})
	list = fxTable.markdown(list)
	t.Run("atdata CBOR", func(t *testing.T) {
		atdataCBOR.check(t, func(t testing.TB, b []byte) string { return atdataCBOR.judge(t, b, oursModel(b), askAtdataCBOR(b)) })
	})
	list = atdataCBOR.markdown(list)
	t.Run("atdata JSON", func(t *testing.T) {
		atdataJSON.check(t, func(t testing.TB, b []byte) string { return atdataJSON.judge(t, b, oursJSON(b), askAtdataJSON(b)) })
	})
	list = atdataJSON.markdown(list)
	t.Run("structs", func(t *testing.T) {
		loadCatalogs(t)
		postTable.check(t, comparePost)
		postJSONTable.check(t, comparePostJSON)
	})
	list = postJSONTable.markdown(postTable.markdown(list))
	t.Run("go-cid", func(t *testing.T) {
		cidTable.check(t, func(t testing.TB, s string) string { mine, peer := askCID(s); return cidTable.judge(t, s, mine, peer) })
		cidBytesTable.check(t, func(t testing.TB, s string) string {
			mine, peer := askCIDBytes(s)
			return cidBytesTable.judge(t, s, mine, peer)
		})
	})
	list = cidBytesTable.markdown(cidTable.markdown(list))
	for i := range syntaxTypes {
		k := &syntaxTypes[i]
		t.Run(k.name, func(t *testing.T) {
			k.table.check(t, func(t testing.TB, s string) string { return compareSyntax(t, i, s) })
		})
		list = k.table.markdown(list)
	}
	for i := range keyForms {
		k := &keyForms[i]
		t.Run(k.name, func(t *testing.T) {
			k.table.check(t, func(t testing.TB, s string) string { return compareKey(t, i, s) })
		})
		list = k.table.markdown(list)
	}
	t.Run("tree", func(t *testing.T) {
		treeTable.check(t, func(t testing.TB, log []string) string {
			mine, theirs := follow(t, log)
			return treeTable.judge(t, log, mine, theirs)
		})
	})
	list = treeTable.markdown(list)
	t.Run("node", func(t *testing.T) { nodeTable.check(t, compareNode) })
	t.Run("repo", func(t *testing.T) { repoTable.check(t, compareRepo) })
	t.Run("message", func(t *testing.T) { messageTable.check(t, compareMessage) })
	list = messageTable.markdown(repoTable.markdown(nodeTable.markdown(list)))
	t.Run("lexicon", func(t *testing.T) { recordTable.check(t, loadCatalogs(t).compare) })
	list = recordTable.markdown(list)

	if *update {
		if err := os.WriteFile(listFile, list, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(listFile); err != nil || !bytes.Equal(have, list) {
		t.Errorf("%s is not what the tables say (-update writes it anew): %v", listFile, err)
	}
}
