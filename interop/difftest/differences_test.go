package difftest

import (
	"testing"

	"github.com/barograph/baro/data"
)

// TestDifferences shows every known difference by an input of its own.
func TestDifferences(t *testing.T) {
	t.Run("fxamacker", func(t *testing.T) {
		fxTable.check(t, func(t testing.TB, b []byte) string {
			return fxTable.judge(t, b, ask(func() (any, error) { return data.Decode(b) }), askFxamacker(b))
		})
	})
	t.Run("atdata CBOR", func(t *testing.T) {
		atdataCBOR.check(t, func(t testing.TB, b []byte) string { return atdataCBOR.judge(t, b, oursModel(b), askAtdataCBOR(b)) })
	})
	t.Run("atdata JSON", func(t *testing.T) {
		atdataJSON.check(t, func(t testing.TB, b []byte) string { return atdataJSON.judge(t, b, oursJSON(b), askAtdataJSON(b)) })
	})
	t.Run("go-cid", func(t *testing.T) {
		cidTable.check(t, func(t testing.TB, s string) string { mine, peer := askCID(s); return cidTable.judge(t, s, mine, peer) })
		cidBytesTable.check(t, func(t testing.TB, s string) string {
			mine, peer := askCIDBytes(s)
			return cidBytesTable.judge(t, s, mine, peer)
		})
	})
	t.Run("syntax", func(t *testing.T) {
		for i := range syntaxTypes {
			k := &syntaxTypes[i]
			k.table.name = k.name
			k.table.check(t, func(t testing.TB, s string) string { return compareSyntax(t, i, s) })
		}
	})
	t.Run("node", func(t *testing.T) { nodeTable.check(t, compareNode) })
	t.Run("repo", func(t *testing.T) { repoTable.check(t, compareRepo) })
	t.Run("message", func(t *testing.T) { messageTable.check(t, compareMessage) })
	t.Run("lexicon", func(t *testing.T) { recordTable.check(t, loadCatalogs(t).compare) })
	t.Run("structs", func(t *testing.T) {
		loadCatalogs(t)
		postTable.check(t, comparePost)
		postJSONTable.check(t, comparePostJSON)
	})
	t.Run("keys", func(t *testing.T) {
		for i := range keyForms {
			k := &keyForms[i]
			k.table.name = k.name
			k.table.check(t, func(t testing.TB, s string) string { return compareKey(t, i, s) })
		}
	})
}
