package devnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/barograph/baro/internal/world"
)

// Ports are the ports of the services. 0 stands for the one that the data directory remembers, else a free one.
//
// The DID documents of the accounts hold the URL of the PDS, so its port cannot change as long as the data directory lives.
type Ports struct {
	Explorer int `json:"explorer"`
	PLC      int `json:"plc"`
	PDS      int `json:"pds"`
	Relay    int `json:"relay"`
	Links    int `json:"links"`
}

// DefaultPorts are the ports that people find the services at.
var DefaultPorts = Ports{Explorer: 2500, PLC: 2582, PDS: 2583, Relay: 2470, Links: 6789}

// PortsFrom are ports in a row: explorer, PLC directory, PDS, relay, links.
func PortsFrom(base int) Ports {
	return Ports{Explorer: base, PLC: base + 1, PDS: base + 2, Relay: base + 3, Links: base + 4}
}

func (p *Ports) of(service string) *int {
	switch service {
	case "explorer":
		return &p.Explorer
	case "plc":
		return &p.PLC
	case "pds":
		return &p.PDS
	case "relay":
		return &p.Relay
	case "links":
		return &p.Links
	}
	panic("devnet: no service " + service)
}

// or fills in what is not set.
func (p Ports) or(q Ports) Ports {
	for _, name := range []string{"explorer", "plc", "pds", "relay", "links"} {
		if v := p.of(name); *v == 0 {
			*v = *q.of(name)
		}
	}
	return p
}

// PortChangedError says that a data directory was to be used with another port of the PDS than the one its accounts live at.
type PortChangedError struct {
	Dir          string
	Port, Wanted int
}

func (e *PortChangedError) Error() string {
	return fmt.Sprintf("the accounts in %s live at http://localhost:%d, which their DID documents name, so the PDS cannot move to port %d: leave the ports out, or choose another data directory",
		e.Dir, e.Port, e.Wanted)
}

// record is what a data directory remembers of its network.
type record struct {
	Version int   `json:"version"`
	Ports   Ports `json:"ports"`
	Free    bool  `json:"free,omitempty"` // the ports were not chosen by anybody
}

const (
	recordVersion = 1
	recordName    = "network.json"
	maxRecord     = 64 << 10
)

// Remembered says which ports the network in a folder had; false if there never was one.
func Remembered(dir string) (Ports, bool, error) {
	r, err := readRecord(vfs.Default, dir)
	if err != nil || r == nil {
		return Ports{}, false, err
	}
	return r.Ports, true, nil
}

func (n *Network) remembered() (*record, error) {
	if n.o.Memory {
		return nil, nil
	}
	return readRecord(n.world.FS, n.o.Dir)
}

func readRecord(fsys world.FS, dir string) (*record, error) {
	name := fsys.PathJoin(dir, recordName)
	b, err := readFile(fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading what the data directory remembers: %w", err)
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if r.Version != recordVersion {
		return nil, fmt.Errorf("reading %s: it was written by another version of this program (format %d, known is %d)", name, r.Version, recordVersion)
	}
	return &r, nil
}

func (n *Network) remember(r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := writeFile(n.world.FS, n.o.Dir, recordName, append(b, '\n')); err != nil {
		return fmt.Errorf("remembering the ports: %w", err)
	}
	return nil
}

func readFile(fsys world.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxRecord))
}

// writeFile replaces a small file so that a crash leaves the old or the new one.
func writeFile(fsys world.FS, dir, name string, content []byte) error {
	path := fsys.PathJoin(dir, name)
	tmp := path + ".new"
	f, err := fsys.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fsys.Rename(tmp, path); err != nil {
		return err
	}
	return world.SyncDir(fsys, dir)
}
