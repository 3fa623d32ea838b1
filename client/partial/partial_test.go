package partial_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/client/partial"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo/repotest"
)

// good is a repository of two layers, in order: commit, node, node, record, record.
func good() []byte {
	b := repotest.NewBuilder()
	file := b.CAR(b.Node(b.Node([36]byte{}, b.Entry(repotest.Path("com.example.a", 0, 0))), b.Entry(repotest.Path("com.example.b", 1, 0))))
	x, err := partial.Index(context.Background(), bytes.NewReader(file), "good", nil)
	if err != nil {
		panic(err)
	}
	c, block, err := partial.Commit("good", x.Root(), x)
	if err != nil {
		panic(err)
	}
	var out bytes.Buffer
	if _, err := partial.WriteInOrder(context.Background(), &out, c, block, x); err != nil {
		panic(err)
	}
	return out.Bytes()
}

func split(t testing.TB, file []byte) (root cid.CID, blocks []car.Block) {
	t.Helper()
	r, err := car.NewReader(bytes.NewReader(file), car.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		c, b, err := r.Next()
		if err == io.EOF {
			return r.Root(), blocks
		}
		if err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, car.Block{CID: c, Data: bytes.Clone(b)})
	}
}

func join(root cid.CID, blocks []car.Block) []byte {
	out := car.AppendHeader(nil, root)
	for _, b := range blocks {
		out = car.AppendBlock(out, b.CID, b.Data)
	}
	return out
}

// Blocks in any order are written in that of the tree, and one that isn't there is told.
func TestWriteInOrder(t *testing.T) {
	whole := good()
	root, blocks := split(t, whole)
	shuffled := slices.Clone(blocks)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	write := func(blocks []car.Block) ([]byte, error) {
		f, err := partial.Index(t.Context(), bytes.NewReader(join(root, blocks)), "a file", io.Discard)
		if err != nil {
			return nil, err
		}
		if f.Len() != len(blocks) || f.Root() != root || f.Name() != "a file" {
			t.Errorf("%d blocks, root %s", f.Len(), f.Root())
		}
		c, block, err := partial.Commit(f.Name(), f.Root(), f)
		if err != nil {
			return nil, err
		}
		var out bytes.Buffer
		_, err = partial.WriteInOrder(t.Context(), &out, c, block, f)
		return out.Bytes(), err
	}
	if got, err := write(shuffled); err != nil || !bytes.Equal(got, whole) {
		t.Errorf("%d bytes of %d: %v", len(got), len(whole), err)
	}
	for i := range blocks {
		_, err := write(slices.Delete(slices.Clone(blocks), i, i+1))
		if _, check := errors.AsType[*partial.CheckError](err); !errors.Is(err, mst.ErrNotFound) || check != (i == 0) {
			t.Errorf("without block %d: %v", i, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := partial.Index(ctx, bytes.NewReader(whole), "a file", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// serve plays a host that has one repository and counts the blocks that it gives.
func serve(t *testing.T, root cid.CID, blocks []car.Block) (o partial.Options, asked *int) {
	asked = new(int)
	byCID := map[string]car.Block{}
	for _, b := range blocks {
		byCID[b.CID.String()] = b
	}
	host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/xrpc/com.atproto.sync.getLatestCommit" {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"cid":"`+root.String()+`","rev":"`+string(repotest.Rev)+`"}`)
			return
		}
		w.Header().Set("Content-Type", "application/vnd.ipld.car")
		var out []car.Block
		for _, name := range r.URL.Query()["cids"] {
			out = append(out, byCID[name])
			*asked++
		}
		_, _ = w.Write(join(root, out))
	}))
	t.Cleanup(host.Close)
	return partial.Options{Client: client.New(host.URL, client.Options{}), DID: repotest.DID, Key: repotest.Key().Public(), Name: "a file", Host: host.URL, Least: 0.01}, asked
}

func open(t *testing.T, b []byte) *os.File {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// What is missing is asked for by its CID, and is in the file afterwards; a file of nothing is told from one that is wrong.
func TestComplete(t *testing.T) {
	whole := good()
	root, blocks := split(t, whole)
	o, asked := serve(t, root, blocks)
	had := join(root, blocks[:2])
	f := open(t, append(bytes.Clone(had), 200, 1, 2)) // and a torn one
	done, err := partial.Complete(t.Context(), f, o)
	if err != nil || *asked != len(blocks)-2 || done.Had != int64(len(had)) || done.Had+done.Fetched != int64(len(whole)) {
		t.Fatalf("%+v, %d blocks were asked for: %v", done, *asked, err)
	}
	var out bytes.Buffer
	if _, err := partial.WriteInOrder(t.Context(), &out, done.Commit, done.Signed, done); err != nil || !bytes.Equal(out.Bytes(), whole) {
		t.Errorf("%d bytes of %d: %v", out.Len(), len(whole), err)
	}
	if info, err := f.Stat(); err != nil || info.Size() != int64(len(whole)) {
		t.Errorf("the file has %d bytes, %v", info.Size(), err)
	}
	for name, b := range map[string][]byte{"nothing": nil, "no CAR file": []byte("not a CAR file, but a text"), "no commit": join(root, blocks[1:])} {
		if _, err := partial.Complete(t.Context(), open(t, b), o); !isAnew(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	o.Least, o.MaxBytes = 0.01, int64(len(whole)-1)
	if _, err := partial.Complete(t.Context(), open(t, had), o); !errors.Is(err, client.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
}

// generate is a repository of n records in order, its keys anywhere.
func generate(t *testing.T, r *rand.Rand, n int) []byte {
	b := repotest.NewBuilder()
	tree := mst.New()
	for range n {
		record := repotest.Record(strconv.Itoa(r.Int()))
		if _, _, err := tree.Put("com.example.note/"+strconv.FormatUint(r.Uint64(), 36), b.Add(record)); err != nil {
			t.Fatal(err)
		}
	}
	change, err := tree.Flush()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range change.Added {
		b.Add(n.Bytes)
	}
	file := b.CAR(change.Root)
	x, err := partial.Index(t.Context(), bytes.NewReader(file), "generated", nil)
	if err != nil {
		t.Fatal(err)
	}
	c, block, err := partial.Commit("generated", x.Root(), x)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := partial.WriteInOrder(t.Context(), &out, c, block, x); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// A file that has most of a repository is gone on with, and so is one of a small repository however its tree has grown; of a large one it
// is better to fetch all if little is there.
func TestWorthIt(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	try := func(n int, part, least float64) error {
		whole := generate(t, r, n)
		root, blocks := split(t, whole)
		o, _ := serve(t, root, blocks)
		o.Least = least
		_, err := partial.Complete(t.Context(), open(t, whole[:int(part*float64(len(whole)))]), o)
		return err
	}
	for i := range 100 {
		n := 20 + r.IntN(100)
		if err := try(n, 0.5+r.Float64()/2, 0); err != nil {
			t.Errorf("%d. small, of %d: %v", i, n, err)
		}
	}
	for _, part := range []float64{0.75, 0.9, 0.99} {
		if err := try(8000, part, 0); err != nil {
			t.Errorf("%.2f of a large one: %v", part, err)
		}
	}
	for _, part := range []float64{0.02, 0.1, 0.25} {
		if err := try(8000, part, 0); !isAnew(err) {
			t.Errorf("%.2f of a large one: %v", part, err)
		}
	}
	if err := try(8000, 0.9, 0.999); !isAnew(err) {
		t.Errorf("less than the least: %v", err)
	}
}

func isAnew(err error) bool {
	_, ok := errors.AsType[*partial.AnewError](err)
	return ok
}

// FuzzIndex finds whatever blocks there are in a file, and none that are not what they say.
func FuzzIndex(f *testing.F) {
	f.Add(good())
	f.Add(good()[:100])
	for _, c := range repotest.Hostile() {
		f.Add(c.CAR)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := partial.Index(t.Context(), bytes.NewReader(b), "a file", nil)
		if err != nil {
			return
		}
		c, block, err := partial.Commit("a file", x.Root(), x)
		if err != nil {
			return
		}
		if !x.Root().Verify(block) {
			t.Errorf("%s is not the hash of its block", x.Root())
		}
		_, _ = partial.WriteInOrder(t.Context(), io.Discard, c, block, x)
	})
}
