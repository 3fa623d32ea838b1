// Package lexgen turns lexicon schemas into Go: the packages under api are its output.
//
// Schema language: https://atproto.com/specs/lexicon. The package reads as much of a schema as the shape of Go types
// needs and checks nothing else: package lexicon validates. It has no templates and no second stage. What it writes is
// types with struct tags and one descriptor per method; package data encodes and decodes all of them with one codec,
// package xrpc calls and serves them.
//
//	cat, err := lexgen.Load(os.DirFS("lexicons"))
//	files, err := lexgen.Generate(cat, lexgen.Options{Module: "github.com/barograph/baro/api"})
//	for path, source := range files { … } // "comatproto/repo.go"
//
// [Import] makes the stripped schemas that the generator reads. The command is internal/lexgen/cmd; `go generate ./...`
// runs it. Output depends on the schemas alone: the same schemas give the same bytes.
package lexgen

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// Schema is one node of the schema language: a definition, a field or a body, with the fields of all types.
type Schema struct {
	Type string `json:"type"`

	// object and params
	Properties map[string]*Schema `json:"properties"`
	Required   []string           `json:"required"`
	Nullable   []string           `json:"nullable"`

	Items  *Schema  `json:"items"`  // array
	Ref    string   `json:"ref"`    // ref
	Refs   []string `json:"refs"`   // union
	Closed bool     `json:"closed"` // union

	// limits; MaxLength counts bytes of strings and bytes, items of arrays
	Format      string          `json:"format"`
	KnownValues []string        `json:"knownValues"`
	Enum        json.RawMessage `json:"enum"`
	Default     json.RawMessage `json:"default"`
	Const       json.RawMessage `json:"const"`
	Minimum     *int64          `json:"minimum"`
	Maximum     *int64          `json:"maximum"`
	MinLength   *int64          `json:"minLength"`
	MaxLength   *int64          `json:"maxLength"`

	// primary types
	Key        string  `json:"key"`
	Record     *Schema `json:"record"`
	Parameters *Schema `json:"parameters"`
	Input      *Body   `json:"input"`
	Output     *Body   `json:"output"`
	Message    *Body   `json:"message"`
	Errors     []struct {
		Name string `json:"name"`
	} `json:"errors"`
}

// Body is the input, output or message of a method.
type Body struct {
	Encoding string  `json:"encoding"`
	Schema   *Schema `json:"schema"`
}

// Document is one schema file.
type Document struct {
	ID   string             `json:"id"`
	Defs map[string]*Schema `json:"defs"`
}

// Catalog holds documents by NSID.
type Catalog struct {
	Docs map[string]*Document
}

// Load reads every .json file of a file system whose path is its NSID, except lock.json.
func Load(fsys fs.FS) (*Catalog, error) {
	c := &Catalog{Docs: map[string]*Document{}}
	err := walkSchemas(fsys, func(path string, b []byte) error {
		var d Document
		if err := json.Unmarshal(b, &d); err != nil {
			return fmt.Errorf("reading %s: %w", path, err)
		}
		if want := strings.ReplaceAll(strings.TrimSuffix(path, ".json"), "/", "."); d.ID != want {
			return fmt.Errorf("reading %s: its id is %q, want %q", path, d.ID, want)
		}
		c.Docs[d.ID] = &d
		return nil
	})
	return c, err
}

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

// IDs returns the NSIDs in order.
func (c *Catalog) IDs() []string { return sortedKeys(c.Docs) }

// Ref is a reference made absolute: an NSID and the name of a definition.
type Ref struct{ ID, Name string }

// String returns the form of `$type`: no fragment for main.
func (r Ref) String() string {
	if r.Name == "main" {
		return r.ID
	}
	return r.ID + "#" + r.Name
}

// Resolve makes a reference found in the document id absolute and finds its definition.
func (c *Catalog) Resolve(id, ref string) (Ref, *Schema, error) {
	nsid, name, ok := strings.Cut(ref, "#")
	if !ok {
		name = "main"
	}
	if nsid == "" {
		nsid = id
	}
	r := Ref{nsid, name}
	if d := c.Docs[nsid]; d != nil && d.Defs[name] != nil {
		return r, d.Defs[name], nil
	}
	return r, nil, fmt.Errorf("%s: the reference %q resolves to nothing", id, ref)
}

func (s *Schema) required(field string) bool { return slices.Contains(s.Required, field) }
func (s *Schema) nullable(field string) bool { return slices.Contains(s.Nullable, field) }

// values returns the strings that a string schema knows of.
func (s *Schema) values() []string {
	if s.Type != "string" {
		return nil
	}
	v := slices.Clone(s.KnownValues)
	var enum []string
	if len(s.Enum) > 0 && json.Unmarshal(s.Enum, &enum) == nil {
		v = append(v, enum...)
	}
	return v
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
