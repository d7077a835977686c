// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// tree is what is read of a root: a file, or a folder with all below it. Links are
// followed, also to folders, by the links' names. A folder that several links lead to, or
// that is below the root by itself, is there once: so no loop of links is without end.
type tree struct {
	files   []string
	folders []string
	broken  []Input
	seen    map[string]bool // folders, by what they are behind all links
	links   []string        // to folders, not yet followed
	left    int             // how many more files and folders are looked at
}

// maxEntries is far above the files and folders of any configuration, and far below those
// of a machine, which a link to / or to somebody's home leads to.
const maxEntries = 200_000

// Folders lists the folders whose files are read for a root, itself among them; none if it
// is no folder. Who waits for changes watches all of them.
func Folders(root string) []string { return treeOf(root, maxEntries).folders }

func treeOf(root string, entries int) *tree {
	t := &tree{seen: map[string]bool{}, links: []string{filepath.Clean(root)}, left: entries}
	for i := 0; i < len(t.links); i++ { // links behind folders: these keep their own names
		before := *t
		before.seen = maps.Clone(t.seen)
		if t.walk(t.links[i], i == 0); t.left < 0 {
			// A part of what is there would be any part: nothing of it is read.
			if before.broken = slices.Clone(before.broken); i == 0 {
				before.folders = t.folders[:min(1, len(t.folders))]
			}
			before.broken = append(before.broken, Input{Name: t.links[i],
				Err: fmt.Errorf("more than %d files and folders with what is below it: this is no configuration; name the folders that are", entries)})
			before.left /= 2 // so that many such links do not cost many times as much
			*t = before
		}
	}
	slices.Sort(t.files)
	slices.SortFunc(t.broken, func(a, b Input) int { return cmp.Compare(a.Name, b.Name) })
	return t
}

// walk adds what is below a path, which may be a link to a folder. What is named itself is
// read whatever it is called.
func (t *tree) walk(start string, named bool) {
	from := start
	if i, err := os.Stat(start); err == nil && i.IsDir() && start != string(filepath.Separator) {
		from += string(filepath.Separator)
	}
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if t.left--; t.left < 0 {
			return fs.SkipAll
		}
		switch {
		case err != nil:
			t.broken = append(t.broken, Input{Name: path, Err: err})
			if e != nil && e.IsDir() {
				return fs.SkipDir
			}
			return nil
		case path != from && strings.HasPrefix(e.Name(), "."):
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		case e.IsDir():
			return t.folder(path)
		case path == from && named:
			t.files = append(t.files, path)
			return nil
		}
		t.entry(path, e)
		return nil
	})
	if err != nil {
		t.broken = append(t.broken, Input{Name: start, Err: err})
	}
}

func (t *tree) folder(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.broken = append(t.broken, Input{Name: path, Err: err})
		return fs.SkipDir
	}
	if t.seen[real] {
		return fs.SkipDir
	}
	t.seen[real] = true
	t.folders = append(t.folders, filepath.Clean(path))
	return nil
}

// entry adds a file, or keeps a link to a folder for later. A link that leads nowhere may
// have led to a folder, unless it is called as other files are.
func (t *tree) entry(path string, e fs.DirEntry) {
	manifest := slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path))
	if e.Type()&fs.ModeSymlink != 0 {
		switch st, err := os.Stat(path); {
		case err != nil && (manifest || filepath.Ext(path) == ""):
			t.broken = append(t.broken, Input{Name: path, Err: err})
			return
		case err != nil:
			return
		case st.IsDir():
			t.links = append(t.links, path)
			return
		case manifest && !st.Mode().IsRegular():
			if to, err := filepath.EvalSymlinks(path); err != nil || to != os.DevNull { // which is how to have no file there
				t.broken = append(t.broken, Input{Name: path, Err: errNoFile(st.Mode())})
			}
			return
		}
	} else if manifest && !e.Type().IsRegular() {
		t.broken = append(t.broken, Input{Name: path, Err: errNoFile(e.Type())})
		return
	}
	if manifest {
		t.files = append(t.files, path)
	}
}

// errNoFile says what stands where a file was expected: to read it might never end.
func errNoFile(mode fs.FileMode) error {
	what := "a device"
	switch {
	case mode&fs.ModeNamedPipe != 0:
		what = "a named pipe"
	case mode&fs.ModeSocket != 0:
		what = "a socket"
	}
	return fmt.Errorf("it is %s, not a file: put one in its place", what)
}
