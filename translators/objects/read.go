// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"cmp"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Files reads the inputs that paths name: files, folders (every .yaml, .yml and
// .json below, in the order of their names) and "-" for standard input. What
// cannot be read is an input with its error. Files that start with a dot are left
// alone, as are folders.
func Files(paths []string, stdin io.Reader) []Input {
	var out []Input
	seen := map[string]bool{}
	for _, p := range paths {
		if p == "-" {
			data, err := read(stdin)
			out = append(out, Input{"stdin", data, err})
			continue
		}
		for _, in := range below(filepath.Clean(p)) {
			if !seen[in.Name] {
				seen[in.Name] = true
				out = append(out, in)
			}
		}
	}
	return out
}

// below reads what is in a folder, or a file. A link to a folder is the folder.
func below(root string) []Input {
	var out []Input
	if i, err := os.Stat(root); err == nil && i.IsDir() && root != string(filepath.Separator) {
		root += string(filepath.Separator)
	}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			out = append(out, Input{Name: path, Err: err})
			if e != nil && e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if path != root && strings.HasPrefix(e.Name(), ".") {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if path != root && !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)) {
			return nil
		}
		if e.IsDir() || (path != root && !regular(path)) {
			return nil
		}
		data, err := readFile(path)
		out = append(out, Input{path, data, err})
		return nil
	})
	if err != nil {
		out = append(out, Input{Name: root, Err: err})
	}
	slices.SortStableFunc(out, func(a, b Input) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// maxInput is far above any configuration, and far below what makes a device or a
// log file that was named by mistake eat the machine's memory.
const maxInput = 256 << 20

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return read(f)
}

func read(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	if err == nil && len(data) > maxInput {
		return nil, fmt.Errorf("more than %d MiB: this is no configuration", maxInput>>20)
	}
	return data, err
}

// regular reports whether the path leads to a file, also through a link: mounted
// configuration consists of links. What has gone meanwhile counts as one, so that
// reading it says so.
func regular(path string) bool {
	st, err := os.Stat(path)
	return err != nil || st.Mode().IsRegular()
}
