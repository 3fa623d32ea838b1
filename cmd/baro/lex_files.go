package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/syntax"
)

// maxLexFiles is how many schema files a command reads.
const maxLexFiles = 20_000

// manifestName is the manifest of the npm tool lex, which lies beside the folder of schemas.
const manifestName = "lexicons.json"

// lexFile is a schema file.
type lexFile struct {
	Path   string
	JSON   []byte
	Schema *lexicon.Schema // nil if the file is none
	Err    error           // why; a *lexicon.SchemaError, or one of reading
}

// ID is the NSID that the file says it is, or, if it can't be read, the one that its path stands for; "" if neither is one.
func (f *lexFile) id(dir string) syntax.NSID {
	if f.Schema != nil {
		return f.Schema.ID
	}
	rel, err := filepath.Rel(dir, f.Path)
	if err != nil {
		return ""
	}
	id, _ := syntax.ParseNSID(strings.ReplaceAll(strings.TrimSuffix(filepath.ToSlash(rel), ".json"), "/", "."))
	return id
}

// lexPath is where a schema is below a folder.
func lexPath(dir string, id syntax.NSID) string {
	return filepath.Join(dir, filepath.FromSlash(strings.ReplaceAll(string(id), ".", "/"))+".json")
}

// readLexFile reads a schema file, and no more of it than a schema may have.
func readLexFile(path string) *lexFile {
	f := &lexFile{Path: path}
	file, err := os.Open(path)
	if err != nil {
		f.Err = err
		return f
	}
	defer file.Close()
	if f.JSON, err = io.ReadAll(io.LimitReader(file, lexicon.MaxSchema+1)); err != nil {
		f.Err = err
		return f
	}
	f.Schema, f.Err = lexicon.ParseSchema(f.JSON)
	return f
}

// lexFiles reads the schema files that the arguments name, files or folders, or those of dir if there are none. Files that are no
// schemas are among them, with their error.
func lexFiles(args []string, dir string) ([]*lexFile, error) {
	if len(args) == 0 {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return nil, withHint(fmt.Errorf("there is no folder %s", dir), "'baro lex new' makes a schema, 'baro lex pull' fetches some; --lexicons-dir names another folder")
		}
		args = []string{dir}
	}
	var paths []string
	for _, arg := range args {
		info, err := os.Stat(arg)
		if err != nil {
			return nil, fmt.Errorf("reading schemas: %w", err)
		}
		if !info.IsDir() {
			paths = append(paths, arg)
			continue
		}
		err = filepath.WalkDir(arg, func(p string, d fs.DirEntry, err error) error {
			switch name := d.Name(); {
			case err != nil:
				return err
			case d.IsDir() && p != arg && (strings.HasPrefix(name, ".") || name == "node_modules"):
				return filepath.SkipDir
			case d.IsDir() || filepath.Ext(p) != ".json" || name == manifestName || name == "lock.json" || strings.HasPrefix(name, "."):
				return nil
			}
			if paths = append(paths, p); len(paths) > maxLexFiles {
				return fmt.Errorf("more than %d files: name a smaller folder", maxLexFiles)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("reading the schemas in %s: %w", arg, err)
		}
	}
	slices.Sort(paths)
	paths = slices.Compact(paths)
	files := make([]*lexFile, len(paths))
	for i, p := range paths {
		files[i] = readLexFile(p)
	}
	return files, nil
}

// lexSchemas is lexFiles for commands that need all of them to be schemas, each with a name of its own.
func lexSchemas(args []string, dir string) ([]*lexFile, error) {
	files, err := lexFiles(args, dir)
	if err != nil {
		return nil, err
	}
	at := map[syntax.NSID]string{}
	for _, f := range files {
		if f.Err != nil {
			return nil, withHint(fmt.Errorf("%s: %w", f.Path, f.Err), "'baro lex lint' tells more")
		}
		if other, ok := at[f.Schema.ID]; ok {
			return nil, fmt.Errorf("%s and %s are both %s", other, f.Path, f.Schema.ID)
		}
		at[f.Schema.ID] = f.Path
	}
	slices.SortFunc(files, func(a, b *lexFile) int { return cmp.Compare(a.Schema.ID, b.Schema.ID) })
	return files, nil
}

// cidOf is the CID of a value in DAG-CBOR.
func cidOf(raw []byte) cid.CID { return cid.Sum(cid.DagCBOR, raw) }

// withField returns an object in DAG-CBOR with a field set, or without it if the value is nil.
func withField(raw []byte, name string, value any) ([]byte, error) {
	v, err := data.Decode(raw)
	if err != nil {
		return nil, err
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("not an object")
	}
	if value == nil {
		delete(m, name)
	} else {
		m[name] = value
	}
	return data.Encode(m)
}

// samePublished says whether a local schema is the published one, whether or not its file has a $type.
func samePublished(local *lexicon.Schema, published cid.CID) (bool, error) {
	r, err := recordOf(local)
	return err == nil && cidOf(r) == published, err
}

// fieldOrder is how people write the fields of schemas; others follow by name.
var fieldOrder = func() map[string]int {
	m := map[string]int{}
	for i, name := range strings.Fields("$type lexicon id type title title:lang detail detail:lang revision description key ref format resource collection action lxm " +
		"aud inheritAud encoding parameters input output message errors schema record required nullable properties items refs closed knownValues enum const default " +
		"minimum maximum minLength maxLength minGraphemes maxGraphemes accept maxSize permissions defs name") {
		m[name] = i + 1
	}
	return m
}()

// prettySchema writes a schema in DAG-CBOR as people do: fields in their usual order, two spaces, a newline at the end.
func prettySchema(raw []byte) ([]byte, error) {
	compact, err := data.AppendJSON(nil, raw)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(compact))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := prettyJSON(&out, v, "", true); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// prettyJSON writes a value. The names below defs and properties are the author's own and go by name.
func prettyJSON(out *bytes.Buffer, v any, indent string, schema bool) error {
	deeper := indent + "  "
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 {
			out.WriteString("{}")
			return nil
		}
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		slices.SortFunc(names, func(a, b string) int {
			if schema {
				x, y := fieldOrder[a], fieldOrder[b]
				if x == 0 {
					x = len(fieldOrder) + 1
				}
				if y == 0 {
					y = len(fieldOrder) + 1
				}
				if x != y {
					return x - y
				}
			} else if (a == "main") != (b == "main") {
				if a == "main" {
					return -1
				}
				return 1
			}
			return strings.Compare(a, b)
		})
		for i, name := range names {
			out.WriteString(map[bool]string{true: "{\n", false: ",\n"}[i == 0] + deeper)
			if err := scalarJSON(out, name); err != nil {
				return err
			}
			out.WriteString(": ")
			own := schema && (name == "defs" || name == "properties") // whose members are schemas again
			if err := prettyJSON(out, v[name], deeper, !own); err != nil {
				return err
			}
		}
		out.WriteString("\n" + indent + "}")
	case []any:
		if len(v) == 0 {
			out.WriteString("[]")
			return nil
		}
		for i, x := range v {
			out.WriteString(map[bool]string{true: "[\n", false: ",\n"}[i == 0] + deeper)
			if err := prettyJSON(out, x, deeper, true); err != nil {
				return err
			}
		}
		out.WriteString("\n" + indent + "]")
	default:
		return scalarJSON(out, v)
	}
	return nil
}

func scalarJSON(out *bytes.Buffer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	out.Truncate(out.Len() - 1) // the newline that the encoder adds
	return nil
}

// writeFile replaces a file as a whole, and makes the folders above it. Whoever reads it sees the old content or the new one.
func writeFile(path string, content []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path, dir = target, filepath.Dir(target) // keep a link, and replace what it leads to
	}
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	defer os.Remove(tmp.Name()) // there is nothing left to remove after the rename
	mode := fs.FileMode(0o644)
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	_, err = tmp.Write(content)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}
