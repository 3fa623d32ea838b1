package pds

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/lexicons"
	"github.com/barograph/baro/syntax"
)

// schemas are the record schemas that this server knows. They are parsed when a record first asks for them: few servers see more than a
// dozen of the hundreds there are.
type schemas struct {
	mu      sync.Mutex
	catalog *lexicon.Catalog
}

func newSchemas() *schemas { return &schemas{catalog: lexicon.NewCatalog()} }

// record is the schema of a collection, nil if it is not known or not one of records.
func (x *schemas) record(id syntax.NSID) (*lexicon.Def, error) {
	schema, err := x.schema(id)
	if err != nil || schema == nil {
		return nil, err
	}
	if d := schema.Main(); d != nil && d.Type == lexicon.TypeRecord {
		return d, nil
	}
	return nil, nil
}

// schema is any schema that this server knows, nil if it doesn't.
func (x *schemas) schema(id syntax.NSID) (*lexicon.Schema, error) {
	if s := x.catalog.Schema(id); s != nil {
		return s, nil
	}
	return x.load(id)
}

// addTo adds the schemas of those names that are known, and what they refer to, to a catalog.
func (x *schemas) addTo(c *lexicon.Catalog, names []syntax.NSID) {
	seen := map[syntax.NSID]bool{}
	for todo := slices.Clone(names); len(todo) > 0; {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		s := x.catalog.Schema(id)
		if seen[id] || s == nil {
			continue
		}
		seen[id] = true
		c.Add(s)
		todo = append(todo, references(s)...)
	}
}

// load parses a schema and all that it refers to. It enters the catalog after what it refers to, so that whoever finds it there can
// validate with it.
func (x *schemas) load(id syntax.NSID) (*lexicon.Schema, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if s := x.catalog.Schema(id); s != nil {
		return s, nil
	}
	parsed := map[syntax.NSID]*lexicon.Schema{}
	for todo := []syntax.NSID{id}; len(todo) > 0; {
		next := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if parsed[next] != nil || x.catalog.Schema(next) != nil {
			continue
		}
		text, err := lexicons.Schema(string(next))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading the schema of %s: %w", next, err)
		}
		s, err := lexicon.ParseSchema(text)
		if err != nil {
			return nil, fmt.Errorf("schema of %s: %w", next, err)
		}
		parsed[next] = s
		todo = append(todo, references(s)...)
	}
	for name, s := range parsed {
		if name != id {
			x.catalog.Add(s)
		}
	}
	if s := parsed[id]; s != nil {
		x.catalog.Add(s)
		return s, nil
	}
	return nil, nil
}
