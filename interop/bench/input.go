package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/barograph/baro/data"
	"github.com/barograph/baro/internal/bench"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/stream"
)

// fixture returns a file of test data, or nil after saying so. With CI=true a missing file ends the program.
func fixture(name string) []byte {
	dir := os.Getenv("BARO_FIXTURES")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "fixtures")
	}
	b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
	if err == nil {
		return b
	}
	if os.Getenv("CI") == "true" {
		bench.Check(fmt.Errorf("fixture %s is missing (set BARO_FIXTURES): %w", name, err))
	}
	fmt.Fprintf(os.Stderr, "fixture %s is missing (set BARO_FIXTURES): its rows are left out\n", name)
	return nil
}

// fixtureRecords returns the records of a repository.
func fixtureRecords(file []byte) [][]byte {
	r := bench.Must(repo.Open(bytes.NewReader(file), repo.ReadOptions{Records: repo.RecordsStrict}))
	var out [][]byte
	for rec, err := range r.Records() {
		bench.Check(err)
		bench.Check(rec.Err)
		out = append(out, bytes.Clone(rec.Data))
	}
	return out
}

// fixtureFrame makes a frame of a commit message in JSON.
func fixtureFrame(js []byte) []byte {
	var m map[string]any
	bench.Check(json.Unmarshal(js, &m))
	if m["blobs"] == nil {
		m["blobs"] = []any{} // as it is on the wire
	}
	js = bench.Must(json.Marshal(m))
	return bench.Must(data.AppendCBOR(stream.AppendHeader(nil, stream.TypeCommit), js))
}
