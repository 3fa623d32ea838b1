package repo_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/internal/fixtures"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/repo/repotest"
)

// read reads a file to its end, in all ways, which have to agree.
func read(b []byte, o repo.ReadOptions) (records map[string][]byte, paths []string, r *repo.Reader, err error) {
	type reading struct {
		records map[string][]byte
		paths   []string
		report  repo.Report
		err     string
	}
	one := func(open func() (*repo.Reader, error)) (x reading, r *repo.Reader, err error) {
		x.records = map[string][]byte{}
		r, err = open()
		if err == nil {
			for rec, e := range r.Records() {
				if err = e; err != nil {
					break
				}
				x.paths = append(x.paths, string(rec.Path))
				x.records[string(rec.Path)] = slices.Clone(rec.Data)
			}
		}
		x.report, x.err = *r.Report(), fmt.Sprint(err)
		return x, r, err
	}
	stream, r, err := one(func() (*repo.Reader, error) { return repo.Open(bytes.NewReader(b), o) })
	file := slices.Clone(b)
	inMemory, _, _ := one(func() (*repo.Reader, error) { return repo.OpenBytes(file, o) })
	slow, _, _ := one(func() (*repo.Reader, error) { return repo.Open(iotest.OneByteReader(bytes.NewReader(b)), o) })
	if !reflect.DeepEqual(stream, inMemory) || !reflect.DeepEqual(stream, slow) {
		panic(fmt.Sprintf("read as a stream: %s\n%+v\nfrom memory: %s\n%+v\nbyte by byte: %s\n%+v",
			stream.err, stream.report, inMemory.err, inMemory.report, slow.err, slow.report))
	}
	if !bytes.Equal(file, b) {
		panic("the file was written to")
	}
	return stream.records, stream.paths, r, err
}

// whole makes a repository with n records, some of them equal, and returns its file.
func whole(t testing.TB, n int) ([]byte, *account, map[string][]byte) {
	a := newAccount(t, keys.K256)
	records := map[string][]byte{}
	var u *repo.Update
	for i := 0; i < n || u == nil; {
		var writes []repo.Write
		for ; i < n && len(writes) < repo.MaxOps; i++ {
			p, text := fmt.Sprintf("com.example.note/%06d", i), fmt.Sprint(i)
			if i%10 == 0 {
				text = "the same"
			}
			records[p] = repotest.Record(text)
			writes = append(writes, repo.Write{Path: p, Record: records[p]})
		}
		u = a.update(writes...)
	}
	var buf bytes.Buffer
	if err := repo.WriteCAR(&buf, u.Block, a.tree, func(p string, _ cid.CID) ([]byte, error) { return records[p], nil }); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes(), a, records
}

// shuffle brings the blocks of a file into random order and leaves repeated ones out.
func shuffle(t testing.TB, b []byte) []byte {
	roots, blocks := readCAR(t, b)
	var order []cid.CID
	for c := range blocks {
		order = append(order, c)
	}
	slices.SortFunc(order, cid.Compare)
	rand.New(rand.NewPCG(3, 4)).Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	out := car.AppendHeader(nil, roots...)
	for _, c := range order {
		out = car.AppendBlock(out, c, blocks[c])
	}
	return out
}

func TestReadWhole(t *testing.T) {
	for _, n := range []int{0, 1, 2, 10, 3000} {
		file, a, want := whole(t, n)
		for _, order := range []string{"streamable", "shuffled"} {
			b := file
			if order == "shuffled" {
				b = shuffle(t, file)
			}
			got, paths, r, err := read(b, repo.ReadOptions{Key: a.key.Public(), DID: repotest.DID, Now: now, Records: repo.RecordsStrict})
			if err != nil {
				t.Fatal(n, order, err)
			}
			rep := r.Report()
			if !rep.OK() || rep.Records != n || rep.Unlinked != 0 || n >= 10 && rep.Streamable != (order == "streamable") {
				t.Errorf("%d %s: %+v", n, order, rep)
			}
			for _, c := range rep.Checks {
				if c.Status != repo.StatusOK && c.Status != repo.StatusNotApplicable && c.Name != repo.ReasonFileTooBig {
					t.Errorf("%d %s: check %+v", n, order, c)
				}
			}
			if order == "streamable" && rep.Held != 0 {
				t.Errorf("%d bytes held", rep.Held)
			}
			if !slices.IsSorted(paths) || len(got) != len(want) {
				t.Errorf("%d paths, want %d", len(got), len(want))
			}
			for p, b := range want {
				if !bytes.Equal(got[p], b) {
					t.Errorf("wrong record at %s", p)
				}
			}
		}
		if n < 3000 {
			continue
		}
		_, _, _, err := read(shuffle(t, file), repo.ReadOptions{MaxBuffer: 1000})
		if reasonOf(err) != repo.ReasonBuffer {
			t.Errorf("buffer exceeded: %v", err)
		}
		if _, _, _, err := read(file, repo.ReadOptions{MaxBytes: int64(len(file)) - 1}); reasonOf(err) != repo.ReasonFileTooBig {
			t.Errorf("file over the quota: %v", err)
		}
		if _, _, r, err := read(file, repo.ReadOptions{MaxBuffer: 1, Retain: -1}); err != nil || r.Report().Records != n {
			t.Errorf("without any memory: %v", err)
		}
		// Every repeated record once only, and no memory for them: that can't be read.
		roots, blocks := readCAR(t, file)
		out := car.AppendHeader(nil, roots...)
		cr, err := car.NewReader(bytes.NewReader(file), car.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for {
			c, b, err := cr.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if blocks[c] != nil {
				out = car.AppendBlock(out, c, b)
				delete(blocks, c)
			}
		}
		if _, _, _, err := read(out, repo.ReadOptions{Retain: -1}); reasonOf(err) != repo.ReasonMissingRecord {
			t.Errorf("repeated records left out: %v", err)
		}
		if _, _, r, err := read(out, repo.ReadOptions{}); err != nil || !r.Report().Streamable {
			t.Errorf("repeated records left out, memory for them: %v", err)
		}
	}
}

func TestHostileFiles(t *testing.T) {
	names := map[string]bool{}
	for _, c := range repotest.Hostile() {
		if names[c.Name] {
			t.Errorf("case %q twice", c.Name)
		}
		names[c.Name] = true
		_, _, r, err := read(c.CAR, repo.ReadOptions{Key: repotest.Key().Public(), DID: repotest.DID, Now: now, Records: repo.RecordsStrict})
		if st := r.State(); r.Commit() == nil && st != (repo.State{}) || r.Commit() != nil && st.Data != r.Commit().Data {
			t.Errorf("%s: state %+v, commit %+v", c.Name, st, r.Commit())
		}
		rep := r.Report()
		failed := rep.Failed()
		if failed == nil || rep.OK() {
			t.Errorf("%s: no check failed: %+v", c.Name, rep)
			continue
		}
		if c.Record {
			if err != nil || failed.Name != repo.ReasonRecordEncoding {
				t.Errorf("%s: %v, failed check %+v", c.Name, err, failed)
			}
			continue
		}
		var v *repo.VerifyError
		if !errors.As(err, &v) {
			t.Errorf("%s: %v, want reason %s", c.Name, err, c.Reason)
			continue
		}
		if v.Reason != c.Reason || failed.Name != c.Reason {
			t.Errorf("%s: %v, failed check %+v, want reason %s", c.Name, err, failed, c.Reason)
		}
		if !c.Reason.Tree() {
			continue
		}
		// The same in any order of blocks, and with every block in the file twice.
		again := shuffle(t, c.CAR)
		sc, err := car.NewScanner(again, car.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range [][]byte{again, append(again, again[sc.Offset():]...)} {
			if _, _, _, err := read(file, repo.ReadOptions{Records: repo.RecordsStrict}); reasonOf(err) != c.Reason {
				t.Errorf("%s, shuffled: %v", c.Name, err)
			}
		}
	}
}

func TestRealFiles(t *testing.T) {
	for _, c := range []struct {
		file    string
		records int
		detail  string
	}{
		{"empty.car", 0, ""},
		{"tiny.car", 0, ""},
		{"little.car", 0, ""},
		{"greenground.repo.car", 2, "prev is not null"},
	} {
		b := fixtures.Read(t, "cars/"+c.file)
		got, paths, r, err := read(b, repo.ReadOptions{Now: now, Records: repo.RecordsStrict})
		if err != nil {
			t.Errorf("%s: %v", c.file, err)
			continue
		}
		rep := r.Report()
		if !rep.OK() || rep.Records != len(got) {
			t.Errorf("%s: %+v", c.file, rep)
		}
		if c.records > 0 && rep.Records != c.records {
			t.Errorf("%s: %d records, want %d", c.file, rep.Records, c.records)
		}
		i := slices.IndexFunc(rep.Checks, func(k repo.Check) bool { return k.Name == repo.ReasonCommitShape })
		if !strings.Contains(rep.Checks[i].Detail, c.detail) {
			t.Errorf("%s: %+v", c.file, rep.Checks[i])
		}
		t.Logf("%s: %d records, %d nodes, top layer %d, streamable %v, held %d, unlinked %d", c.file, rep.Records, rep.Nodes, rep.Layer, rep.Streamable, rep.Held, rep.Unlinked)

		// Built anew from its records the tree is the same.
		tree := mst.New()
		for _, p := range paths {
			tree.Put(p, cid.Sum(cid.DagCBOR, got[p]))
		}
		if root, _ := tree.Root(); root != r.Commit().Data {
			t.Errorf("%s: rebuilt tree is %s, want %s", c.file, root, r.Commit().Data)
		}
		var buf bytes.Buffer
		if err := repo.WriteCAR(&buf, r.Commit().Encode(), tree, func(p string, _ cid.CID) ([]byte, error) { return got[p], nil }); err != nil {
			t.Fatal(err)
		}
		again, _, r2, err := read(buf.Bytes(), repo.ReadOptions{})
		if err != nil || len(again) != len(got) || !r2.Report().Streamable || r2.CommitCID() != r.CommitCID() {
			t.Errorf("%s: exported anew: %v %+v", c.file, err, r2.Report())
		}
	}
}

func TestProof(t *testing.T) {
	file, a, records := whole(t, 500)
	_, blocks := readCAR(t, file)
	_, _, r, err := read(file, repo.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	commit := blocks[r.CommitCID()]
	pub := a.key.Public()
	for _, p := range []string{"com.example.note/000000", "com.example.note/000123", "com.example.note/000499", "com.example.note/nobody", "zz.example.note/x", "a.b.c/d"} {
		proof, err := repo.MakeProof(commit, a.tree, p, records[p])
		if err != nil {
			t.Fatal(err)
		}
		got, err := repo.VerifyProof(proof, repotest.DID, p, pub)
		if err != nil {
			t.Fatal(err)
		}
		if got.Found() != (records[p] != nil) || !bytes.Equal(got.Record, records[p]) || !got.Signed {
			t.Errorf("%s: %+v", p, got)
		}
		kinds := ""
		for _, s := range got.Steps {
			kinds += s.Kind + " "
		}
		end := repo.StepAbsent
		if got.Found() {
			end = repo.StepRecord
		}
		if !strings.HasPrefix(kinds, "blocks commit signature node ") || !strings.HasSuffix(kinds, end+" ") {
			t.Errorf("%s: steps %s", p, kinds)
		}
		for _, c := range []struct {
			reason repo.Reason
			err    error
		}{
			{repo.ReasonSignature, second(repo.VerifyProof(proof, repotest.DID, p, newKey(t, keys.K256).Public()))},
			{repo.ReasonCommitDID, second(repo.VerifyProof(proof, "did:web:example.com", p, pub))},
			{repo.ReasonPathSyntax, second(repo.VerifyProof(proof, repotest.DID, "x", pub))},
			{repo.ReasonCAR, second(repo.VerifyProof(proof[:len(proof)-1], repotest.DID, p, pub))},
			{"", second(repo.VerifyProof(proof, repotest.DID, p, nil))},
		} {
			if reasonOf(c.err) != c.reason || (c.err == nil) != (c.reason == "") {
				t.Errorf("%s: %v, want %q", p, c.err, c.reason)
			}
		}
		roots, blocks := readCAR(t, proof)
		for c := range blocks {
			less := map[cid.CID][]byte{}
			for k, b := range blocks {
				if k != c {
					less[k] = b
				}
			}
			if _, err := repo.VerifyProof(writeCAR(roots, less), repotest.DID, p, pub); err == nil {
				t.Errorf("%s: verified without block %s", p, c)
			}
		}
	}
	if _, err := repo.MakeProof(commit, a.tree, "com.example.note/000001", nil); err == nil {
		t.Error("proof of absence of a record that is there")
	}
}

func second[T any](_ T, err error) error { return err }

func FuzzRead(f *testing.F) {
	for i, c := range repotest.Hostile() {
		if len(c.CAR) < 2000 || i == 0 {
			f.Add(c.CAR)
		}
	}
	file, _, _ := whole(f, 5)
	f.Add(file)
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _, r, err := read(b, repo.ReadOptions{MaxBuffer: 1 << 20})
		if err == nil && r.Report().Failed() != nil && r.Report().Failed().Name != repo.ReasonRecordEncoding {
			t.Fatalf("no error, but %+v", r.Report().Failed())
		}
		if err != nil && reasonOf(err) == "" {
			t.Fatalf("error without a reason: %v", err)
		}
		repo.VerifyProof(b, repotest.DID, "com.example.a/1", nil)
	})
}

func BenchmarkReadWhole(b *testing.B) {
	file, a, _ := whole(b, 20_000)
	shuffled := shuffle(b, file)
	for _, c := range []struct {
		name string
		file []byte
	}{{"streamable", file}, {"shuffled", shuffled}} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(c.file)))
			b.ReportAllocs()
			for b.Loop() {
				r, err := repo.Open(bytes.NewReader(c.file), repo.ReadOptions{Key: a.key.Public(), Records: repo.RecordsStrict})
				if err != nil {
					b.Fatal(err)
				}
				for _, err := range r.Records() {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// Every rule about files has a file that breaks it.
func TestHostileFilesCoverReasons(t *testing.T) {
	broken := map[repo.Reason]bool{
		repo.ReasonTreeHeight: true, // no key lies so high
		repo.ReasonFileTooBig: true, // a matter of options, as the next: see TestReadWhole
		repo.ReasonBuffer:     true,
	}
	for _, c := range repotest.Hostile() {
		broken[c.Reason] = true
	}
	file, _, _ := whole(t, 1)
	_, _, r, err := read(file, repo.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Report().Checks {
		if c.Status != repo.StatusNotApplicable && !broken[c.Name] {
			t.Errorf("no file breaks %s", c.Name)
		}
	}
}

// A file that isn't in order may have a record once for paths that are far apart.
func TestRecordOnceForPathsFarApart(t *testing.T) {
	a := newAccount(t, keys.K256)
	same := repotest.Record("the same")
	records := map[string][]byte{}
	var writes []repo.Write
	for i := range 30 {
		p, b := fmt.Sprintf("com.example.note/%03d", i), same
		if i%29 != 0 {
			b = repotest.Record(strings.Repeat("x", 60_000) + p)
		}
		records[p], writes = b, append(writes, repo.Write{Path: p, Record: b})
	}
	u := a.update(writes...)
	var buf bytes.Buffer
	if err := repo.WriteCAR(&buf, u.Block, a.tree, func(p string, _ cid.CID) ([]byte, error) { return records[p], nil }); err != nil {
		t.Fatal(err)
	}
	// The nodes first, then another record, then this one, then the others.
	roots, blocks := readCAR(t, buf.Bytes())
	var order []cid.CID
	for item, err := range a.tree.Items() {
		if err != nil {
			t.Fatal(err)
		}
		if item.Node != nil {
			order = append(order, item.CID)
		}
	}
	for _, p := range []string{"001", "000"} {
		order = append(order, cid.Sum(cid.DagCBOR, records["com.example.note/"+p]))
	}
	for i := 2; i < 29; i++ {
		order = append(order, cid.Sum(cid.DagCBOR, records[fmt.Sprintf("com.example.note/%03d", i)]))
	}
	file := car.AppendBlock(car.AppendHeader(nil, roots...), roots[0], blocks[roots[0]])
	for _, c := range order {
		file = car.AppendBlock(file, c, blocks[c])
	}
	got, _, r, err := read(file, repo.ReadOptions{MaxUnlinked: -1})
	if err != nil || len(got) != len(records) || !r.Report().OK() {
		t.Fatalf("%d records, %v", len(got), err)
	}
	if rep := r.Report(); rep.Streamable || rep.Unlinked != 0 || rep.Duplicates != 0 {
		t.Errorf("%+v", rep)
	}
}
