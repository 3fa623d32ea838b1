package lexicon

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/barograph/baro/syntax"
)

// Catalog holds schemas and validates against them. It is safe for concurrent use.
type Catalog struct {
	store *store
	opts  Options
}

// Options say how validation goes about it. The zero value is strict and stops at the first finding.
type Options struct {
	// AllowLegacyBlobs accepts, where a schema wants a blob, also the old form of a map with cid and mimeType. It is for
	// reading early records, not for writing.
	AllowLegacyBlobs bool
	// LenientDatetimes accepts every datetime that syntax.LenientTime can read, such as one without a time zone.
	LenientDatetimes bool
	// StrictUnions validates also those variants of open unions that the union doesn't list: they must be in the catalog.
	// Otherwise they pass, since a later version of the schema may list them.
	StrictUnions bool
	// Findings is how many of them to collect. With 0 or 1 the error is an [*Error], with more an [Errors].
	Findings int
}

// Source is where schemas are found by their NSID. [Catalog] is one.
type Source interface {
	// Lookup returns the schema with that NSID. The error wraps ErrUnknownSchema if it is certain that there is none;
	// another error means that it couldn't be found out.
	Lookup(id syntax.NSID) (*Schema, error)
}

var _ Source = (*Catalog)(nil)

// store is what the views of one catalog share.
type store struct {
	resolve func(syntax.NSID) (*Schema, error) // nil for none

	mu      sync.RWMutex
	schemas map[syntax.NSID]*Schema
	nodes   map[string]*node // compiled definitions by absolute reference
	todo    []pending        // nodes that wait to be compiled
}

// NewCatalog returns an empty catalog.
func NewCatalog() *Catalog { return NewResolvingCatalog(nil) }

// NewResolvingCatalog returns an empty catalog that asks resolve for schemas that it doesn't hold, as soon as a record, a
// method or a reference that is met in data needs them. What resolve returns is kept; failures are not, and it is asked
// again the next time: how long to remember a failure, and to ask only once when several want the same, is up to it. It
// must be safe for concurrent use and is called without a lock. A schema that has expired is replaced by [Catalog.Add].
// An error that wraps [ErrUnknownSchema] says that there is certainly no such schema.
func NewResolvingCatalog(resolve func(syntax.NSID) (*Schema, error)) *Catalog {
	return &Catalog{store: &store{resolve: resolve, schemas: make(map[syntax.NSID]*Schema), nodes: make(map[string]*node)}}
}

// With returns a view of the same catalog that validates with other options. What is added to one is in the other.
func (c *Catalog) With(o Options) *Catalog { return &Catalog{store: c.store, opts: o} }

// Add puts a schema into the catalog, in place of one with the same NSID. Don't change it afterwards.
func (c *Catalog) Add(s *Schema) {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	c.store.add(s)
}

func (t *store) add(s *Schema) {
	t.schemas[s.ID] = s
	clear(t.nodes) // any of them may have referred to it, or missed it
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

// Schema returns the schema with that NSID if the catalog holds it, nil otherwise.
func (c *Catalog) Schema(id syntax.NSID) *Schema {
	c.store.mu.RLock()
	defer c.store.mu.RUnlock()
	return c.store.schemas[id]
}

// Lookup returns the schema with that NSID, which it asks the catalog's resolver for if need be. The error wraps
// [ErrUnknownSchema] if there is certainly none.
func (c *Catalog) Lookup(id syntax.NSID) (*Schema, error) {
	if s := c.Schema(id); s != nil {
		return s, nil
	}
	if c.store.resolve == nil {
		return nil, fmt.Errorf("%w %.320s", ErrUnknownSchema, id)
	}
	s, err := c.store.resolve(id)
	switch {
	case err != nil:
		return nil, fmt.Errorf("resolving the schema %.320s: %w", id, err)
	case s == nil:
		return nil, fmt.Errorf("%w %.320s", ErrUnknownSchema, id)
	case s.ID != id:
		return nil, fmt.Errorf("resolving the schema %.320s: got %.320s", id, s.ID)
	}
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	if held := c.store.schemas[id]; held != nil { // somebody else was faster
		return held, nil
	}
	c.store.add(s)
	return s, nil
}

// Missing returns the NSIDs of schemas that the one given needs for validation, itself or what it refers to, and that the
// catalog doesn't hold; sorted. Whoever has to fetch with a context of his own adds them, and asks again until there are
// none.
func (c *Catalog) Missing(id syntax.NSID) []syntax.NSID {
	c.store.mu.RLock()
	defer c.store.mu.RUnlock()
	var missing []syntax.NSID
	seen := map[syntax.NSID]bool{id: true}
	for todo := []syntax.NSID{id}; len(todo) > 0; {
		next := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		s := c.store.schemas[next]
		if s == nil {
			missing = append(missing, next)
			continue
		}
		for _, ref := range s.References() {
			if to := refNSID(ref); !seen[to] {
				seen[to] = true
				todo = append(todo, to)
			}
		}
	}
	slices.Sort(missing)
	return missing
}

// refNSID is the NSID of an absolute reference.
func refNSID(ref string) syntax.NSID {
	id, _, _ := strings.Cut(ref, "#")
	return syntax.NSID(id)
}

// NSIDs returns the NSIDs of all schemas that the catalog holds, sorted.
func (c *Catalog) NSIDs() []syntax.NSID {
	c.store.mu.RLock()
	defer c.store.mu.RUnlock()
	return slices.Sorted(maps.Keys(c.store.schemas))
}

// Resolve returns the definition that an absolute reference ("nsid" or "nsid#name") leads to, nil if the catalog holds
// none. It doesn't ask the resolver.
func (c *Catalog) Resolve(ref string) *Def {
	c.store.mu.RLock()
	defer c.store.mu.RUnlock()
	return c.store.def(ref)
}

func (t *store) def(ref string) *Def {
	id, name, ok := strings.Cut(ref, "#")
	if !ok {
		name = mainName
	}
	if s := t.schemas[syntax.NSID(id)]; s != nil {
		return s.Def(name)
	}
	return nil
}

// Check returns what is wrong with references between the schemas of the catalog: those that lead nowhere, or to a type
// that may not be referred to in that way.
func (c *Catalog) Check() []*SchemaError {
	c.store.mu.RLock()
	defer c.store.mu.RUnlock()
	var errs []*SchemaError
	for id, s := range c.store.schemas {
		s.Walk(func(path string, d *Def) {
			check := func(ref string, problem func(*Def) string) {
				if why := problem(c.store.def(ref)); why != "" {
					errs = append(errs, &SchemaError{ID: string(id), Path: path, Rule: ProblemSchema, Reason: ref + " " + why})
				}
			}
			switch d.Type {
			case TypeRef:
				check(d.Ref, RefProblem)
			case TypeUnion:
				for _, r := range d.Refs {
					check(r, VariantProblem)
				}
			}
		})
	}
	sort.Slice(errs, func(i, j int) bool { return errs[i].Error() < errs[j].Error() })
	return errs
}

// RefProblem says why a ref can't point to d; "" if it can.
func RefProblem(d *Def) string {
	if d == nil {
		return "isn't there"
	}
	switch d.Type {
	case TypeBoolean, TypeInteger, TypeString, TypeBytes, TypeCIDLink, TypeBlob, TypeArray, TypeObject, TypeRecord:
		return ""
	}
	return fmt.Sprintf("is a %s, which a ref can't point to", d.Type)
}

// VariantProblem says why d can't be a variant of a union; "" if it can.
func VariantProblem(d *Def) string {
	if d == nil {
		return "isn't there"
	}
	if d.Type != TypeObject && d.Type != TypeRecord {
		return fmt.Sprintf("is a %s, which a union can't hold", d.Type)
	}
	return ""
}
