package lexicon

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/barograph/baro/syntax"
)

// Catalog holds schemas and validates against them. It is safe for concurrent use.
type Catalog struct {
	// AllowLegacyBlobs accepts, where a schema wants a blob, also the old form of a map with cid and mimeType. It is for
	// reading early records, not for writing. Set it before the first use.
	AllowLegacyBlobs bool

	mu      sync.RWMutex
	schemas map[syntax.NSID]*Schema
	nodes   map[string]*node // compiled definitions by absolute reference
}

// NewCatalog returns an empty catalog.
func NewCatalog() *Catalog {
	return &Catalog{schemas: make(map[syntax.NSID]*Schema), nodes: make(map[string]*node)}
}

// Add puts a schema into the catalog, in place of one with the same NSID. Don't change it afterwards.
func (c *Catalog) Add(s *Schema) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.schemas[s.ID] = s
	clear(c.nodes) // any of them may have referred to it, or missed it
}

// AddJSON parses a schema and adds it.
func (c *Catalog) AddJSON(json []byte) (*Schema, error) {
	s, err := ParseSchema(json)
	if err != nil {
		return nil, err
	}
	c.Add(s)
	return s, nil
}

// lockFile lies beside schemas and says where they come from.
const lockFile = "lock.json"

// AddFS adds every .json file of a file tree but lock.json. Two files with the same NSID are an error.
func (c *Catalog) AddFS(fsys fs.FS) error {
	seen := make(map[syntax.NSID]string)
	return fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(name) != ".json" || path.Base(name) == lockFile {
			return err
		}
		b, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		s, err := ParseSchema(b)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if other, ok := seen[s.ID]; ok {
			return fmt.Errorf("%s and %s have the same id %s", other, name, s.ID)
		}
		seen[s.ID] = name
		c.Add(s)
		return nil
	})
}

// Schema returns the schema with that NSID, nil if there is none.
func (c *Catalog) Schema(id syntax.NSID) *Schema {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.schemas[id]
}

// NSIDs returns the NSIDs of all schemas, sorted.
func (c *Catalog) NSIDs() []syntax.NSID {
	c.mu.RLock()
	defer c.mu.RUnlock()
	ids := make([]syntax.NSID, 0, len(c.schemas))
	for id := range c.schemas {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Resolve returns the definition that an absolute reference ("nsid" or "nsid#name") leads to, nil if there is none.
func (c *Catalog) Resolve(ref string) *Def {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.resolve(ref)
}

func (c *Catalog) resolve(ref string) *Def {
	id, name, ok := strings.Cut(ref, "#")
	if !ok {
		name = mainName
	}
	if s := c.schemas[syntax.NSID(id)]; s != nil {
		return s.Def(name)
	}
	return nil
}

// Check returns what is wrong with references between the schemas of the catalog: those that lead nowhere, or to a type
// that may not be referred to in that way.
func (c *Catalog) Check() []*SchemaError {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var errs []*SchemaError
	for id, s := range c.schemas {
		s.walk(func(path string, d *Def) {
			check := func(ref string, problem func(*Def) string) {
				if why := problem(c.resolve(ref)); why != "" {
					errs = append(errs, &SchemaError{string(id), path, ref + " " + why})
				}
			}
			switch d.Type {
			case TypeRef:
				check(d.Ref, refProblem)
			case TypeUnion:
				for _, r := range d.Refs {
					check(r, variantProblem)
				}
			}
		})
	}
	sort.Slice(errs, func(i, j int) bool { return errs[i].Error() < errs[j].Error() })
	return errs
}

// References returns the absolute references in the schema, sorted, each once.
func (s *Schema) References() []string {
	var refs []string
	s.walk(func(_ string, d *Def) {
		if d.Ref != "" {
			refs = append(refs, d.Ref)
		}
		refs = append(refs, d.Refs...)
	})
	slices.Sort(refs)
	return slices.Compact(refs)
}

// walk visits every definition of the schema, outer ones first.
func (s *Schema) walk(visit func(path string, d *Def)) {
	for _, n := range s.Defs {
		n.Def.walk("defs."+n.Name, visit)
	}
}

func (d *Def) walk(path string, visit func(path string, d *Def)) {
	if d == nil {
		return
	}
	visit(path, d)
	d.Items.walk(path+".items", visit)
	for _, p := range d.Properties {
		p.Def.walk(path+".properties."+p.Name, visit)
	}
	d.Record.walk(path+".record", visit)
	d.Parameters.walk(path+".parameters", visit)
	if d.Input != nil {
		d.Input.Schema.walk(path+".input.schema", visit)
	}
	if d.Output != nil {
		d.Output.Schema.walk(path+".output.schema", visit)
	}
	d.Message.walk(path+".message.schema", visit)
}

// refProblem says why a ref can't point to d; "" if it can.
func refProblem(d *Def) string {
	if d == nil {
		return "isn't there"
	}
	switch d.Type {
	case TypeBoolean, TypeInteger, TypeString, TypeBytes, TypeCIDLink, TypeBlob, TypeArray, TypeObject, TypeRecord:
		return ""
	}
	return fmt.Sprintf("is a %s, which a ref can't point to", d.Type)
}

// variantProblem says why d can't be a variant of a union; "" if it can.
func variantProblem(d *Def) string {
	if d == nil {
		return "isn't there"
	}
	if d.Type != TypeObject && d.Type != TypeRecord {
		return fmt.Sprintf("is a %s, which a union can't hold", d.Type)
	}
	return ""
}
