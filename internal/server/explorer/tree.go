package explorer

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/barograph/baro/cbor"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/internal/foreign"
)

// Kinds of a [Node].
const (
	nodeText  = "text"
	nodeInt   = "int"
	nodeBool  = "bool"
	nodeNull  = "null"
	nodeBytes = "bytes"
	nodeLink  = "link"
	nodeMap   = "map"
	nodeArray = "array"
)

// Node is a value in a record, ready to be shown.
type Node struct {
	Key      string // of the entry; the index of an item
	Item     bool   // of an array
	Kind     string
	Type     string // the $type of a map
	Text     string // of everything but maps and arrays; not escaped
	Cut      int    // characters that were left out of it
	Href     string // "" if it is no link
	Outside  bool   // the link leads to another site
	Blob     *BlobView
	Children []*Node
	Left     int // children that were left out
	Count    int // of children, with those left out
}

// BlobView is a blob in a record.
type BlobView struct {
	CID   string `json:"cid"`
	Type  string `json:"mimeType"`
	Size  int64  `json:"size"`
	Href  string `json:"href"`
	Image bool   `json:"image"` // shown as one
	Alt   string `json:"alt,omitempty"`
}

// tree reads one CBOR value. did is whose it is, for the addresses of blobs.
func tree(raw []byte, did string) (*Node, error) {
	b := treeBuilder{r: cbor.NewReader(raw), did: did, left: maxNodes}
	n, err := b.value(0)
	if err != nil {
		return nil, fmt.Errorf("reading a value: %w", err)
	}
	return n, nil
}

type treeBuilder struct {
	r    cbor.Reader
	did  string
	left int // nodes that may still be made
}

func (b *treeBuilder) value(depth int) (*Node, error) {
	b.left--
	if depth > cbor.MaxDepth {
		return nil, fmt.Errorf("more than %d levels", cbor.MaxDepth)
	}
	kind, err := b.r.Kind()
	if err != nil {
		return nil, err
	}
	n := &Node{}
	switch kind {
	case cbor.KindText:
		n.Kind = nodeText
		s, err := b.r.Text()
		if err != nil {
			return nil, err
		}
		n.Href, n.Outside = textHref(s)
		n.Text, n.Cut = foreign.Clip(s, maxText)
	case cbor.KindInt:
		n.Kind = nodeInt
		v, err := b.r.Int()
		if err != nil {
			return nil, err
		}
		n.Text = strconv.FormatInt(v, 10)
	case cbor.KindBool:
		n.Kind = nodeBool
		v, err := b.r.Bool()
		if err != nil {
			return nil, err
		}
		n.Text = strconv.FormatBool(v)
	case cbor.KindNull:
		n.Kind, n.Text = nodeNull, "null"
		if err := b.r.Null(); err != nil {
			return nil, err
		}
	case cbor.KindBytes:
		n.Kind = nodeBytes
		v, err := b.r.Bytes()
		if err != nil {
			return nil, err
		}
		n.Count = len(v)
		shown := v[:min(len(v), 96)]
		n.Text, n.Cut = base64.StdEncoding.EncodeToString(shown), len(v)-len(shown)
	case cbor.KindLink:
		n.Kind = nodeLink
		c, err := b.r.Link()
		if err != nil {
			return nil, err
		}
		n.Text = c.String()
		if isBlobCID(c) && b.did != "" {
			n.Href = blobHref(b.did, n.Text)
		}
	case cbor.KindArray:
		return b.array(n, depth)
	case cbor.KindMap:
		return b.mapping(n, depth)
	default:
		return nil, fmt.Errorf("a value of kind %v", kind)
	}
	return n, nil
}

func (b *treeBuilder) array(n *Node, depth int) (*Node, error) {
	n.Kind = nodeArray
	count, err := b.r.Array()
	if err != nil {
		return nil, err
	}
	n.Count = count
	for i := range count {
		if b.left <= 0 {
			n.Left++
			if err := b.r.Skip(); err != nil {
				return nil, err
			}
			continue
		}
		c, err := b.value(depth + 1)
		if err != nil {
			return nil, err
		}
		c.Key, c.Item = strconv.Itoa(i), true
		n.Children = append(n.Children, c)
	}
	return n, nil
}

func (b *treeBuilder) mapping(n *Node, depth int) (*Node, error) {
	n.Kind = nodeMap
	whole := b.r // a copy reads on by itself
	raw, err := whole.Raw()
	if err != nil {
		return nil, err
	}
	n.Type = data.TypeOf(raw)
	if n.Type == "blob" {
		n.Blob = blobOf(raw, b.did)
	}
	count, err := b.r.Map()
	if err != nil {
		return nil, err
	}
	n.Count = count
	var key []byte
	for range count {
		if key, err = b.r.MapKey(key); err != nil {
			return nil, err
		}
		if b.left <= 0 {
			n.Left++
			if err := b.r.Skip(); err != nil {
				return nil, err
			}
			continue
		}
		name, _ := foreign.Clip(string(key), 200)
		c, err := b.value(depth + 1)
		if err != nil {
			return nil, err
		}
		c.Key = name
		n.Children = append(n.Children, c)
	}
	b.links(n)
	slices.SortStableFunc(n.Children, func(a, c *Node) int { return rank(a.Key) - rank(c.Key) })
	return n, nil
}

// links makes the two halves of a strong reference lead to the same place.
func (b *treeBuilder) links(n *Node) {
	var uri, c *Node
	for _, child := range n.Children {
		switch {
		case child.Key == "$type" && child.Kind == nodeText:
			if child.Text != "blob" {
				child.Href, child.Outside = schemaHref(child.Text), false
			}
		case child.Key == "uri" && child.Kind == nodeText:
			uri = child
		case child.Key == "cid" && child.Kind == nodeText:
			c = child
		}
	}
	if uri == nil || c == nil || uri.Href == "" || uri.Outside {
		return
	}
	if _, err := cid.Parse(c.Text); err == nil {
		c.Href = uri.Href
	}
}

func rank(key string) int {
	switch key {
	case "$type":
		return 0
	case "createdAt":
		return 2
	}
	return 1
}

func blobOf(raw []byte, did string) *BlobView {
	for blob, err := range data.Blobs(raw) {
		if err != nil {
			return nil
		}
		return blobView(&blob, did)
	}
	return nil
}

func blobView(b *data.Blob, did string) *BlobView {
	v := &BlobView{CID: b.Ref.String(), Type: b.MimeType, Size: b.Size, Image: imageType(b.MimeType) && b.Size <= maxBlob}
	if did != "" {
		v.Href = blobHref(did, v.CID)
	}
	return v
}

// blobViews returns the blobs of a record, each once, images with the text that stands in for them.
func blobViews(raw []byte, did string) []*BlobView {
	var out []*BlobView
	seen := map[cid.CID]bool{}
	for blob, err := range data.Blobs(raw) {
		if err != nil || len(out) == 32 {
			break
		}
		if !seen[blob.Ref] && isBlobCID(blob.Ref) {
			seen[blob.Ref] = true
			out = append(out, blobView(&blob, did))
		}
	}
	if len(out) > 0 {
		if v, err := data.Decode(raw); err == nil {
			alts(v, func(c, alt string) {
				for _, b := range out {
					if b.CID == c && b.Alt == "" {
						b.Alt = foreign.Line(alt, 1000)
					}
				}
			})
		}
	}
	return out
}

// alts finds maps with a text alt beside a blob.
func alts(v any, found func(c, alt string)) {
	switch v := v.(type) {
	case map[string]any:
		alt, _ := v["alt"].(string)
		for _, e := range v {
			if m, ok := e.(map[string]any); ok && alt != "" && m["$type"] == "blob" {
				if ref, ok := m["ref"].(cid.CID); ok {
					found(ref.String(), alt)
				}
			}
			alts(e, found)
		}
	case []any:
		for _, e := range v {
			alts(e, found)
		}
	}
}

// rawJSON returns the record's JSON, indented, as far as it is shown, and how many bytes there are in all.
func rawJSON(raw data.Raw) (text string, size int) {
	if raw == nil {
		return "", 0
	}
	j, err := data.AppendJSON(nil, raw)
	if err != nil {
		return "", 0
	}
	size = len(j)
	if size <= maxRaw {
		var b bytes.Buffer
		if json.Indent(&b, j, "", "  ") == nil {
			j = b.Bytes()
		}
	}
	s, _ := foreign.Clip(string(j), maxRaw)
	return s, size
}

// previewKeys are the fields that tell what a record is about, the best first.
var previewKeys = []string{"text", "displayName", "name", "title", "description", "subject", "uri", "value"}

// preview returns one line that tells what a record is about.
func preview(raw []byte) string {
	r := cbor.NewReader(raw)
	n, err := r.Map()
	if err != nil {
		return ""
	}
	best, out := len(previewKeys), ""
	var key []byte
	for range n {
		if key, err = r.MapKey(key); err != nil {
			return out
		}
		if i := slices.Index(previewKeys, string(key)); i >= 0 && i < best {
			value, err := r.Raw()
			if err != nil {
				return out
			}
			if s := previewText(value); s != "" {
				best, out = i, s
			}
			continue
		}
		if r.Skip() != nil {
			return out
		}
	}
	return out
}

// previewText is a text, or the address in a strong reference.
func previewText(value []byte) string {
	r := cbor.NewReader(value)
	if t, err := r.TextBytes(); err == nil {
		return foreign.Line(string(t[:min(len(t), 2048)]), 180)
	}
	n, err := r.Map()
	if err != nil {
		return ""
	}
	var key []byte
	for range n {
		if key, err = r.MapKey(key); err != nil {
			return ""
		}
		if string(key) == "uri" {
			if t, err := r.TextBytes(); err == nil {
				return foreign.Line(string(t[:min(len(t), 2048)]), 180)
			}
			return ""
		}
		if r.Skip() != nil {
			return ""
		}
	}
	return ""
}
