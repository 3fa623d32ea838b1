package devnet

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/internal/world"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// ZoneFile is the name of the file in a data directory that holds TXT records beside those that a network has by itself: see [ReadZone].
const ZoneFile = "zone.txt"

// maxZone is the largest zone file in bytes.
const maxZone = 1 << 20

// Zone holds TXT values by name, in lower case and without a dot at the end.
type Zone map[string][]string

// ReadZone reads a zone file. A line is a name, optionally IN, then TXT and the value, which may be in quotes:
//
//	_lexicon.notes.alice.test  TXT  "did=did:plc:ewvi7nxzyoun6zhxrhs64oiz"
//
// Lines that begin with # or ; are comments. A name may have several lines. A file that isn't there is an empty zone.
func ReadZone(path string) (Zone, error) { return readZone(vfs.Default, path) }

func readZone(fsys world.FS, path string) (Zone, error) {
	f, err := fsys.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the zone: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxZone+1))
	if err != nil {
		return nil, fmt.Errorf("reading the zone %s: %w", path, err)
	}
	z, err := ParseZone(b)
	if err != nil {
		return nil, fmt.Errorf("%s:%w", path, err)
	}
	return z, nil
}

// ParseZone reads the content of a zone file.
func ParseZone(b []byte) (Zone, error) {
	if len(b) > maxZone {
		return nil, fmt.Errorf("1: more than %d bytes", maxZone)
	}
	z := Zone{}
	sc := bufio.NewScanner(bytes.NewReader(b))
	sc.Buffer(nil, maxZone+1)
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		name, rest := word(line)
		kind, value := word(rest)
		if strings.EqualFold(kind, "IN") {
			kind, value = word(value)
		}
		if !strings.EqualFold(kind, "TXT") || value == "" {
			return nil, fmt.Errorf("%d: want a name, TXT and a value, such as _lexicon.notes.alice.test TXT \"did=did:plc:…\"", n)
		}
		if value[0] == '"' {
			if len(value) < 2 || value[len(value)-1] != '"' || strings.Contains(value[1:len(value)-1], `"`) {
				return nil, fmt.Errorf("%d: the quotes of the value don't match", n)
			}
			value = value[1 : len(value)-1]
		}
		name = normalName(name)
		z[name] = append(z[name], value)
	}
	return z, sc.Err()
}

// word cuts the first word off a line.
func word(s string) (first, rest string) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimSpace(s[i:])
}

func normalName(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// LookupTXT is the DNS of a local network: what the zone says, and for `_atproto.` and `_lexicon.` names below .test the DID of the
// account with that handle at the PDS. So the account alice.test has the authority over the schemas test.alice.*, and the zone decides
// about groups below it, such as test.alice.notes.*.
func LookupTXT(ctx context.Context, pds *xrpc.Client, zone Zone, name string) ([]string, error) {
	name = normalName(name)
	if v, ok := zone[name]; ok {
		return v, nil
	}
	handle, ok := strings.CutPrefix(name, "_atproto.")
	if !ok {
		handle, ok = strings.CutPrefix(name, "_lexicon.")
	}
	if !ok || !strings.HasSuffix(handle, HandleDomain) || !syntax.ValidHandle(handle) {
		return nil, notFound(name)
	}
	out, err := comatproto.IdentityResolveHandle.Call(ctx, pds, &comatproto.IdentityResolveHandle_Params{Handle: handle})
	if refusal, ok := errors.AsType[*xrpc.Error](err); ok && refusal.Status < 500 {
		return nil, notFound(name)
	} else if err != nil {
		return nil, &net.DNSError{Err: err.Error(), UnwrapErr: err, Name: name, IsTemporary: true}
	}
	return []string{"did=" + out.Did}, nil
}

// zoneReader keeps the zone of a file, and reads it again when the file has changed.
type zoneReader struct {
	fs   world.FS
	path string // "": none

	mu   sync.Mutex
	size int64
	mod  time.Time
	zone Zone
}

// get returns the zone as the file is now. A file that can't be read leaves the names of the file without an answer, which is better
// than a wrong one.
func (z *zoneReader) get() (Zone, error) {
	if z.path == "" {
		return nil, nil
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	info, err := z.fs.Stat(z.path)
	if errors.Is(err, fs.ErrNotExist) {
		z.size, z.zone = 0, nil
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the zone: %w", err)
	}
	if z.zone != nil && info.Size() == z.size && info.ModTime().Equal(z.mod) {
		return z.zone, nil
	}
	zone, err := readZone(z.fs, z.path)
	if err != nil {
		return nil, err
	}
	z.size, z.mod, z.zone = info.Size(), info.ModTime(), zone
	return zone, nil
}
