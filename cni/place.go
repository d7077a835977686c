// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// Place is where a plugin was put: the folders of a runtime, under the names that the node
// knows them by.
type Place struct {
	ConfDir, BinDir string
}

// placesFolder is below a run folder, and has a file for each place that has been put to use:
// whoever is to take the plugin away may have been told of other folders.
const placesFolder = "cni-places"

// placeFile is unique and can be read back: what is escaped has no slash and no comma.
func (p Place) file() string { return url.QueryEscape(p.ConfDir) + "," + url.QueryEscape(p.BinDir) }

func parsePlace(file string) (p Place, ok bool) {
	conf, bin, ok := strings.Cut(file, ",")
	if !ok {
		return Place{}, false
	}
	var errs [2]error
	p.ConfDir, errs[0] = url.QueryUnescape(conf)
	p.BinDir, errs[1] = url.QueryUnescape(bin)
	return p, errors.Join(errs[:]...) == nil && filepath.IsAbs(p.ConfDir) && filepath.IsAbs(p.BinDir)
}

// AddPlace records a place in a run folder.
func AddPlace(run string, p Place) error {
	path := filepath.Join(run, placesFolder, p.file())
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("record where the plugin is: %w", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return fmt.Errorf("record where the plugin is: %w", err)
	}
	return nil
}

// Places are those that are recorded in a run folder, by name.
func Places(run string) ([]Place, error) {
	files, err := os.ReadDir(filepath.Join(run, placesFolder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look where the plugin is: %w", err)
	}
	var out []Place
	for _, f := range files {
		if p, ok := parsePlace(f.Name()); ok {
			out = append(out, p)
		}
	}
	return out, nil
}

// RemovePlace forgets a place, and the folder with the last one.
func RemovePlace(run string, p Place) error {
	dir := filepath.Join(run, placesFolder)
	if err := os.Remove(filepath.Join(dir, p.file())); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget where the plugin was: %w", err)
	}
	_ = os.Remove(dir) // if there is no other
	return nil
}

// tellPlace records whence the plugin is called, where no agent has: the node has started
// anew since, say, and the run folder with it.
func (c *Config) tellPlace(binDir string) error {
	conf := filepath.Dir(c.StateDir)
	all, err := Places(c.RunDir)
	if err != nil || filepath.Base(c.StateDir) != StateName || !filepath.IsAbs(conf) || !filepath.IsAbs(binDir) {
		return err
	}
	for _, p := range all {
		if p.ConfDir == conf {
			return nil
		}
	}
	return AddPlace(c.RunDir, Place{ConfDir: conf, BinDir: binDir})
}

// StateName is the folder, below that of the configurations, for what must be there when the
// node starts anew. Runtimes read files there, and no folders.
const StateName = "fairlead"

// TellPlace records whence the running plugin is called.
func (c *Config) TellPlace() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("record where the plugin is: %w", err)
	}
	return c.tellPlace(filepath.Dir(self))
}
