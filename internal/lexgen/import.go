package lexgen

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
)

// Lock is lexicons/lock.json: where the schemas came from, and the CID of each as it was there.
type Lock struct {
	Version  int               `json:"version"`
	Upstream string            `json:"upstream"`
	Commit   string            `json:"commit"`
	Lexicons map[string]string `json:"lexicons"` // NSID → CID of the DAG-CBOR of the original
}

// Upstream reads upstream schemas and returns the files of the lexicons folder: each schema without its texts for people
// (descriptions, and the titles and details of permission sets), and lock.json.
func Upstream(upstream fs.FS, repository, commit string) ([]File, error) {
	var files []File
	lock := Lock{Version: 1, Upstream: repository, Commit: commit, Lexicons: map[string]string{}}
	err := walkSchemas(upstream, func(path string, b []byte) error {
		raw, err := data.AppendCBOR(nil, b)
		if err != nil {
			return fmt.Errorf("importing %s: %w", path, err)
		}
		id := strings.ReplaceAll(strings.TrimSuffix(path, ".json"), "/", ".")
		lock.Lexicons[id] = cid.Sum(cid.DagCBOR, raw).String()
		b, err = strip(b)
		files = append(files, File{path, b})
		return err
	})
	if err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(lock, "", "\t")
	return append(files, File{"lock.json", append(b, '\n')}), err
}

// walkSchemas visits the files that may be schemas: those with .json in a folder.
func walkSchemas(fsys fs.FS, visit func(path string, b []byte) error) error {
	return fs.WalkDir(fsys, ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".json") || !strings.Contains(path, "/") {
			return err
		}
		b, err := fs.ReadFile(fsys, path)
		if err != nil {
			return err
		}
		return visit(path, b)
	})
}

// texts are the keys whose strings, or maps of strings by language, are written for people.
var texts = map[string]bool{"description": true, "title": true, "title:lang": true, "detail": true, "detail:lang": true}

// strip removes the texts of a schema and keeps the order of everything else. The properties of an object may be called
// like a text; they are told apart by being schemas: objects with a "type".
func strip(b []byte) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	v, err := readOrdered(dec)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "\t"); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// ordered is a JSON object that remembers the order of its keys.
type ordered []member

type member struct {
	key   string
	value any
}

// MarshalJSON writes the members in order.
func (o ordered) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, m := range o {
		if i > 0 {
			b = append(b, ',')
		}
		k, err := json.Marshal(m.key)
		if err != nil {
			return nil, err
		}
		v, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		b = append(append(append(b, k...), ':'), v...)
	}
	return append(b, '}'), nil
}

func readOrdered(dec *json.Decoder) (any, error) {
	t, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('{'):
		o := ordered{}
		for dec.More() {
			k, err := dec.Token()
			if err != nil {
				return nil, err
			}
			v, err := readOrdered(dec)
			if err != nil {
				return nil, err
			}
			if key := k.(string); !texts[key] || isSchema(v) {
				o = append(o, member{key, v})
			}
		}
		_, err = dec.Token()
		return o, err
	case json.Delim('['):
		list := []any{}
		for dec.More() {
			v, err := readOrdered(dec)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = dec.Token()
		return list, err
	}
	return t, nil
}

func isSchema(v any) bool {
	o, ok := v.(ordered)
	for _, m := range o {
		if m.key == "type" {
			return ok
		}
	}
	return false
}
