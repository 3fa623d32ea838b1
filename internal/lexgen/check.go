package lexgen

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// DiffError tells that files aren't what the generator writes.
type DiffError struct {
	Paths []string // sorted; of files that differ, are missing, or that the generator wrote once and doesn't any more
	Diff  string   // from the files to what they should be, in the unified format
}

// Error names the files.
func (e *DiffError) Error() string {
	return fmt.Sprintf("not what the generator writes: %s", strings.Join(e.Paths, ", "))
}

// Check compares the output with a folder as it is. The error is a [*DiffError] if anything differs.
func Check(fsys fs.FS, files []File) error {
	var e DiffError
	var diff strings.Builder
	note := func(path string, was, is []byte) {
		e.Paths = append(e.Paths, path)
		writeDiff(&diff, path, was, is)
	}
	for _, f := range files {
		was, err := fs.ReadFile(fsys, f.Path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("checking generated files: %w", err)
		}
		if !bytes.Equal(was, f.Data) {
			note(f.Path, was, f.Data)
		}
	}
	old, err := leftovers(fsys, files)
	if err != nil {
		return fmt.Errorf("checking generated files: %w", err)
	}
	for _, f := range old {
		note(f.Path, f.Data, nil)
	}
	if len(e.Paths) == 0 {
		return nil
	}
	slices.Sort(e.Paths)
	e.Diff = diff.String()
	return &e
}

// leftovers are generated files in the folders of the output that don't belong to it.
func leftovers(fsys fs.FS, files []File) ([]File, error) {
	belongs, dirs := map[string]bool{}, map[string]bool{}
	for _, f := range files {
		belongs[f.Path], dirs[path.Dir(f.Path)] = true, true
	}
	var list []File
	for _, dir := range sortedKeys(dirs) {
		entries, err := fs.ReadDir(fsys, dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			name := path.Join(dir, entry.Name())
			if belongs[name] || entry.IsDir() || path.Ext(name) != ".go" {
				continue
			}
			b, err := fs.ReadFile(fsys, name)
			if err != nil {
				return nil, err
			}
			if bytes.HasPrefix(b, []byte(header)) {
				list = append(list, File{name, b})
			}
		}
	}
	return list, nil
}

// Write writes the output into a folder, and removes files that an earlier run has left in the folders of its packages.
func Write(dir string, files []File) error {
	old, err := leftovers(os.DirFS(dir), files)
	if err != nil {
		return fmt.Errorf("writing generated files: %w", err)
	}
	for _, f := range files {
		at := filepath.Join(dir, filepath.FromSlash(f.Path))
		if was, err := os.ReadFile(at); err == nil && bytes.Equal(was, f.Data) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return fmt.Errorf("writing generated files: %w", err)
		}
		if err := os.WriteFile(at, f.Data, 0o644); err != nil {
			return fmt.Errorf("writing generated files: %w", err)
		}
	}
	for _, f := range old {
		if err := os.Remove(filepath.Join(dir, filepath.FromSlash(f.Path))); err != nil {
			return fmt.Errorf("removing a file that is no longer generated: %w", err)
		}
	}
	return nil
}

const (
	diffContext = 3
	maxDiff     = 2000 // lines that are compared one by one; a larger change is shown as one
)

// writeDiff writes how a file changes. It is one hunk, from the first to the last line that differs.
func writeDiff(w *strings.Builder, path string, was, is []byte) {
	a, b := splitLines(was), splitLines(is)
	from, to := "a/"+path, "b/"+path
	if was == nil {
		from = "/dev/null"
	}
	if is == nil {
		to = "/dev/null"
	}
	begin := 0
	for begin < min(len(a), len(b)) && a[begin] == b[begin] {
		begin++
	}
	endA, endB := len(a), len(b)
	for endA > begin && endB > begin && a[endA-1] == b[endB-1] {
		endA, endB = endA-1, endB-1
	}
	before, after := max(0, begin-diffContext), min(diffContext, len(a)-endA)
	fmt.Fprintf(w, "--- %s\n+++ %s\n@@ -%d,%d +%d,%d @@\n", from, to, before+1, endA+after-before, before+1, endB+after-before)
	for _, l := range a[before:begin] {
		w.WriteString(" " + l + "\n")
	}
	changes(w, a[begin:endA], b[begin:endB])
	for _, l := range a[endA : endA+after] {
		w.WriteString(" " + l + "\n")
	}
}

func splitLines(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// changes writes the lines that go and come, around the longest common subsequence.
func changes(w *strings.Builder, a, b []string) {
	if len(a) > maxDiff || len(b) > maxDiff {
		for _, l := range a {
			w.WriteString("-" + l + "\n")
		}
		a = nil
	}
	// common[i][j] is how many lines a[i:] and b[j:] share.
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			w.WriteString(" " + a[i] + "\n")
			i, j = i+1, j+1
		case i < len(a) && (j == len(b) || common[i+1][j] >= common[i][j+1]):
			w.WriteString("-" + a[i] + "\n")
			i++
		default:
			w.WriteString("+" + b[j] + "\n")
			j++
		}
	}
}
