package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/syntax"
)

// manifest is lexicons.json in the format of the npm tool lex: what was asked for, and where everything came from.
type manifest struct {
	Lexicons    []syntax.NSID              // what the user asked for, sorted
	Resolutions map[syntax.NSID]resolution // those and all that they depend on

	extra map[string]json.RawMessage // fields of a later version, kept
}

// resolution is a schema of the manifest.
type resolution struct {
	URI syntax.ATURI `json:"uri"`
	CID string       `json:"cid"` // of the document in the file
}

const maxManifest = 16 << 20

// readManifest reads a manifest; nil if there is none.
func readManifest(path string) (*manifest, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the manifest: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err == nil && len(b) > maxManifest {
		err = fmt.Errorf("more than %d bytes", maxManifest)
	}
	var m *manifest
	if err == nil {
		m, err = parseManifest(b)
	}
	if err != nil {
		return nil, withHint(fmt.Errorf("reading the manifest %s: %w", path, err), "it is the lexicons.json of the npm tool lex, version 1")
	}
	return m, nil
}

func parseManifest(b []byte) (*manifest, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		return nil, err
	}
	m := &manifest{Resolutions: map[syntax.NSID]resolution{}, extra: fields}
	var version int
	for name, to := range map[string]any{"version": &version, "lexicons": &m.Lexicons, "resolutions": &m.Resolutions} {
		raw, ok := fields[name]
		if !ok {
			return nil, fmt.Errorf("there is no %q", name)
		}
		if err := json.Unmarshal(raw, to); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		delete(m.extra, name)
	}
	if version != 1 {
		return nil, fmt.Errorf("it is of version %d, and only 1 is known", version)
	}
	if m.Resolutions == nil {
		m.Resolutions = map[syntax.NSID]resolution{}
	}
	for _, id := range m.Lexicons {
		if _, err := syntax.ParseNSID(string(id)); err != nil {
			return nil, fmt.Errorf("lexicons: %w", err)
		}
	}
	for id, r := range m.Resolutions {
		if _, err := syntax.ParseNSID(string(id)); err != nil {
			return nil, fmt.Errorf("resolutions: %w", err)
		}
		if _, err := syntax.ParseATURI(string(r.URI)); err != nil {
			return nil, fmt.Errorf("resolutions: %s: uri: %w", id, err)
		}
		if _, err := cid.Parse(r.CID); err != nil {
			return nil, fmt.Errorf("resolutions: %s: cid: %w", id, err)
		}
	}
	return m, nil
}

// encode writes the manifest as the npm tool does, byte for byte.
func (m *manifest) encode() ([]byte, error) {
	var out bytes.Buffer
	out.WriteString("{\n  \"version\": 1,\n  \"lexicons\": ")
	list := []any{}
	for _, id := range m.sorted() {
		list = append(list, string(id))
	}
	if err := prettyJSON(&out, list, "  ", false); err != nil {
		return nil, err
	}
	out.WriteString(",\n  \"resolutions\": {")
	for i, id := range slices.Sorted(maps.Keys(m.Resolutions)) {
		r := m.Resolutions[id]
		fmt.Fprintf(&out, "%s\n    %q: {\n      \"uri\": %q,\n      \"cid\": %q\n    }", map[bool]string{false: ","}[i == 0], id, r.URI, r.CID)
	}
	if len(m.Resolutions) > 0 {
		out.WriteString("\n  ")
	}
	out.WriteString("}")
	for _, name := range slices.Sorted(maps.Keys(m.extra)) {
		var v bytes.Buffer
		if err := json.Indent(&v, m.extra[name], "  ", "  "); err != nil {
			return nil, err
		}
		fmt.Fprintf(&out, ",\n  %q: %s", name, v.Bytes())
	}
	out.WriteString("\n}\n")
	return out.Bytes(), nil
}

func (m *manifest) sorted() []syntax.NSID {
	list := slices.Clone(m.Lexicons)
	slices.Sort(list)
	return slices.Compact(list)
}

// equal says whether two manifests say the same.
func (m *manifest) equal(o *manifest) bool {
	return m != nil && o != nil && slices.Equal(m.sorted(), o.sorted()) && maps.Equal(m.Resolutions, o.Resolutions)
}
