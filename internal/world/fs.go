package world

import (
	"errors"
	"fmt"
	"io/fs"
)

// MkdirAll makes a folder, and those above it that are missing, with mode 0700, and makes their being there survive a
// loss of power. A folder that is there already keeps its mode.
func MkdirAll(fsys FS, dir string) error {
	var parents []string // to sync: those of the folders that are made, and always that of dir, which an earlier run may have made
	for path := dir; ; {
		parent := fsys.PathDir(path)
		if parent == path {
			break
		}
		parents = append(parents, parent)
		_, err := fsys.Stat(parent)
		if err == nil || parent == "." {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("making the folder %s: %w", dir, err)
		}
		path = parent
	}
	_, err := fsys.Stat(dir)
	was := err == nil
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the folder %s: %w", dir, err)
	}
	for _, p := range parents {
		if err := SyncDir(fsys, p); err != nil && !(was && errors.Is(err, fs.ErrPermission)) {
			return err
		}
	}
	return nil
}

// SyncDir makes the entries of a folder survive a loss of power: the files that were made, renamed or removed in it.
func SyncDir(fsys FS, dir string) error {
	d, err := fsys.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("opening the folder %s: %w", dir, err)
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("syncing the folder %s: %w", dir, err)
	}
	return nil
}
