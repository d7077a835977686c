// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// Files reads the inputs that paths name: files, folders (every .yaml, .yml and
// .json below, also behind links, in the order of their names) and "-" for standard
// input. What cannot be read is an input with its error. Files that start with a dot are
// left alone, as are folders.
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

// below reads what is in a folder, or a file.
func below(root string) []Input {
	t := treeOf(root, maxEntries)
	out := t.broken
	for _, path := range t.files {
		data, err := readFile(path)
		out = append(out, Input{path, data, err})
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
