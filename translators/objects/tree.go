// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"cmp"
	"io/fs"
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
}

// Folders lists the folders whose files are read for a root, itself among them; none if it
// is no folder. Who waits for changes watches all of them.
func Folders(root string) []string { return treeOf(root).folders }

func treeOf(root string) *tree {
	t := &tree{seen: map[string]bool{}, links: []string{filepath.Clean(root)}}
	for i := 0; i < len(t.links); i++ { // links behind folders: these keep their own names
		t.walk(t.links[i], i == 0)
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
		case !st.Mode().IsRegular():
			return
		}
	} else if !e.Type().IsRegular() {
		return
	}
	if manifest {
		t.files = append(t.files, path)
	}
}
