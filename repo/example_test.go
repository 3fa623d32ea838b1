package repo_test

import (
	"bytes"
	"fmt"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/repo/repotest"
)

func exampleKey() *keys.PrivateKey { return repotest.Key() }

func Example() {
	key := exampleKey()
	record := repotest.Record("hello")

	// An account makes its first commit, and exports its repository.
	u, tree, err := repo.Apply(mst.New(), []repo.Write{{Path: "com.example.note/1", Record: record}}, "did:web:example.com", "3lscuqc52or2x", key)
	if err != nil {
		panic(err)
	}
	var file bytes.Buffer
	err = repo.WriteCAR(&file, u.Block, tree, func(string, cid.CID) ([]byte, error) { return record, nil })
	if err != nil {
		panic(err)
	}

	// Somebody reads it.
	r, err := repo.Open(&file, repo.ReadOptions{Key: key.Public()})
	if err != nil {
		panic(err)
	}
	for rec, err := range r.Records() {
		if err != nil {
			panic(err)
		}
		fmt.Printf("%s: %d bytes\n", rec.Path, len(rec.Data))
	}
	fmt.Println(r.Commit().DID, r.Report().OK())
	// Output:
	// com.example.note/1: 35 bytes
	// did:web:example.com true
}

func ExampleVerifyCommit() {
	key := exampleKey()
	first, tree, _ := repo.Apply(mst.New(), nil, "did:web:example.com", "3lscuqc52or2x", key)
	second, _, _ := repo.Apply(tree, []repo.Write{{Path: "com.example.note/1", Record: repotest.Record("hello")}}, "did:web:example.com", "3lscuqc52or3x", key)

	state, err := repo.VerifyCommit(first.Message("", "2026-01-01T00:00:00.000Z"), key.Public(), nil, repo.VerifyOptions{})
	fmt.Println(state.Rev, err)
	message := second.Message(first.Commit.Rev, "2026-01-01T00:00:01.000Z")
	state, err = repo.VerifyCommit(message, key.Public(), &state, repo.VerifyOptions{})
	fmt.Println(state.Rev, err)
	_, err = repo.VerifyCommit(message, key.Public(), &state, repo.VerifyOptions{})
	fmt.Println(err)
	// Output:
	// 3lscuqc52or2x <nil>
	// 3lscuqc52or3x <nil>
	// stale-rev: 3lscuqc52or3x is not newer than 3lscuqc52or3x
}

func ExampleCommit_Sign() {
	key := exampleKey()
	c := repo.Commit{DID: "did:web:example.com", Rev: "3lscuqc52or2x", Data: repo.EmptyRoot}
	if err := c.Sign(key); err != nil {
		panic(err)
	}
	block := c.Encode()

	got, err := repo.DecodeCommit(block)
	if err != nil {
		panic(err)
	}
	fmt.Println(got.CID() == cid.Sum(cid.DagCBOR, block), got.Verify(key.Public()))
	got.Rev = "3lscuqc52or3x"
	fmt.Println(got.Verify(key.Public()) != nil)
	// Output:
	// true <nil>
	// true
}

func ExampleApply() {
	key := exampleKey()
	writes := []repo.Write{
		{Path: "com.example.note/1", Record: repotest.Record("one")},
		{Path: "com.example.note/2", Record: repotest.Record("two")},
	}
	u, tree, err := repo.Apply(mst.New(), writes, "did:web:example.com", "3lscuqc52or2x", key)
	if err != nil {
		panic(err)
	}
	fmt.Println(len(u.Ops), len(u.Change.Added), u.Commit.Data == u.Change.Root)

	// A record that is written as it was changes nothing, a deletion does.
	writes = []repo.Write{{Path: "com.example.note/1"}, {Path: "com.example.note/2", Record: repotest.Record("two")}}
	u, _, err = repo.Apply(tree, writes, "did:web:example.com", "3lscuqc52or3x", key)
	if err != nil {
		panic(err)
	}
	fmt.Println(u.Ops[0].Action, u.Ops[0].Path, len(u.Ops))
	// Output:
	// 2 3 true
	// delete com.example.note/1 1
}

func ExampleReportCommit() {
	key := exampleKey()
	u, _, _ := repo.Apply(mst.New(), []repo.Write{{Path: "com.example.note/1", Record: repotest.Record("hello")}}, "did:web:example.com", "3lscuqc52or2x", key)
	message := u.Message("", "yesterday")
	message.Ops = nil

	for _, c := range repo.ReportCommit(message, key.Public(), nil, repo.VerifyOptions{}).Checks {
		if c.Status == repo.StatusFailed {
			fmt.Printf("%s: not so: %s\n", c.Name, c.Name.Text())
		}
	}
	// Output:
	// time-syntax: not so: the time is a datetime
	// no-prev-data: not so: the tree before is named, unless there was none
}

func ExampleMakeProof() {
	key := exampleKey()
	u, tree, _ := repo.Apply(mst.New(), []repo.Write{{Path: "com.example.note/1", Record: repotest.Record("hello")}}, "did:web:example.com", "3lscuqc52or2x", key)

	// That there is no record can be proven too.
	file, err := repo.MakeProof(u.Block, tree, "com.example.note/2", nil)
	if err != nil {
		panic(err)
	}
	proof, err := repo.VerifyProof(file, "did:web:example.com", "com.example.note/2", key.Public())
	fmt.Println(proof.Found(), proof.Signed, err)
	// Output:
	// false true <nil>
}

func ExampleVerifyProof() {
	key := exampleKey()
	record := repotest.Record("hello")
	u, tree, _ := repo.Apply(mst.New(), []repo.Write{{Path: "com.example.note/1", Record: record}}, "did:web:example.com", "3lscuqc52or2x", key)
	file, _ := repo.MakeProof(u.Block, tree, "com.example.note/1", record)

	proof, err := repo.VerifyProof(file, "did:web:example.com", "com.example.note/1", key.Public())
	fmt.Println(proof.Found(), proof.Signed, err)
	for _, s := range proof.Steps {
		fmt.Println(s.Kind)
	}
	// Output:
	// true true <nil>
	// blocks
	// commit
	// signature
	// node
	// record
}

func ExampleOpenBytes() {
	b := repotest.NewBuilder()
	path := repotest.Path("com.example.note", 0, 0)
	file := b.CAR(b.Node(cid.CID{}, b.Entry(path))) // or from os.ReadFile

	r, err := repo.OpenBytes(file, repo.ReadOptions{Key: repotest.Key().Public()})
	if err != nil {
		panic(err)
	}
	n := 0
	for rec, err := range r.Records() {
		if err != nil {
			panic(err)
		}
		n += len(rec.Data) // a view of file, which stays
	}
	fmt.Println(r.Report().Records, n > 0, r.Report().OK())
	// Output: 1 true true
}
