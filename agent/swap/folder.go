// SPDX-License-Identifier: Apache-2.0

package swap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// File finds the manifest with a namespace in a file or a folder.
func File(path, namespace string) (string, error) {
	var found []string
	err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() || p != path && (strings.HasPrefix(d.Name(), ".") || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(p))) {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if _, _, err := SetOwner(text, namespace, None); err == nil {
			found = append(found, p)
		}
		return nil
	})
	switch {
	case err != nil:
		return "", fmt.Errorf("look for namespace %s: %w", namespace, err)
	case len(found) == 0:
		return "", fmt.Errorf("%s: namespace %s: %w: add one, by itself or among others", path, namespace, ErrNoNamespace)
	case len(found) > 1:
		return "", fmt.Errorf("namespace %s stands in %s: leave one of them", namespace, strings.Join(found, " and "))
	}
	return found[0], nil
}

// WriteOwner is SetOwner of a file, in one write: readers see the old text or the new.
func WriteOwner(file, namespace, plane string) (was string, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("swap %s: %w", namespace, err)
	}
	edited, was, err := SetOwner(text, namespace, plane)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(file)
	if err != nil {
		return "", fmt.Errorf("swap %s: %w", namespace, err)
	}
	next := filepath.Join(filepath.Dir(file), "."+filepath.Base(file)+".swap")
	err = os.WriteFile(next, edited, info.Mode().Perm())
	if err == nil {
		err = os.Rename(next, file)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("swap %s: %w", namespace, err), remove(next))
	}
	return was, nil
}

func remove(file string) error {
	if err := os.Remove(file); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
