// SPDX-License-Identifier: Apache-2.0

package swap

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"fairlead.io/fairlead/translators/objects"
)

// File finds the manifest with a namespace among those that the agents read.
func File(inputs []objects.Input, namespace string) (string, error) {
	var found []string
	for _, in := range inputs {
		if in.Err != nil {
			return "", fmt.Errorf("look for namespace %s: %w", namespace, in.Err)
		}
		switch _, _, err := SetOwner(in.Data, namespace, None); {
		case err == nil:
			found = append(found, in.Name)
		case !errors.Is(err, ErrNoNamespace):
			return "", fmt.Errorf("%s: %w", in.Name, err)
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("namespace %s: %w: add one to the files, by itself or among others", namespace, ErrNoNamespace)
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("namespace %s stands in %s: leave one of them", namespace, strings.Join(found, " and "))
}

// Changed names the inputs that are there before or after alone, or are not the same.
func Changed(before, after []objects.Input) []string {
	at := map[string]string{}
	text := func(in objects.Input) string { return fmt.Sprintf("%v %s", in.Err, in.Data) }
	for _, in := range before {
		at[in.Name] = text(in)
	}
	var out []string
	for _, in := range after {
		if had, ok := at[in.Name]; !ok || had != text(in) {
			out = append(out, in.Name)
		}
		delete(at, in.Name)
	}
	for name := range at {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// WriteOwner is SetOwner of a file, in one write: readers see the old text or the new,
// whatever interrupts it. It writes only if the namespace is still from's, None for
// nobody's choice. A link stays one: the file that it leads to is written.
func WriteOwner(file, namespace, from, plane string) error {
	fail := func(err error) error { return fmt.Errorf("swap %s: %w", namespace, err) }
	file, err := filepath.EvalSymlinks(file)
	if err != nil {
		return fail(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return fail(err)
	}
	edited, err := ChangeOwner(text, namespace, from, plane)
	if err != nil {
		return err
	}
	info, err := os.Stat(file)
	if err != nil {
		return fail(err)
	}
	if info.Mode().Perm()&0o222 == 0 {
		return fail(fmt.Errorf("%s is not to be written: its mode is %s", file, info.Mode().Perm()))
	}
	if err := replace(file, edited, info.Mode().Perm()); err != nil {
		return fail(err)
	}
	return nil
}

// replace puts another content in place of a file's. The new file has a name that no
// agent reads until it is whole.
func replace(file string, content []byte, mode os.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".swap-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}
