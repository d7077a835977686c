// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Own is a proxy that a namespace has beside the node's: an Envoy of its own, with a user,
// sockets, state and a bound on memory that are nobody else's. A run folder says which
// there are; the agent writes it, and RunNode runs them.
type Own struct {
	Name   string `json:"name"` // the namespace
	Slot   int    `json:"slot"` // of its ports; from 1
	Memory uint64 `json:"memory"`
}

// UID is the user of its Envoys if the node proxy is root.
func (o Own) UID() int { return DefaultUID + o.Slot }

// Dir is its run folder, within that of the node.
func (o Own) Dir(runDir string) string { return filepath.Join(runDir, fmt.Sprintf("own-%d", o.Slot)) }

func ownFile(runDir string) string { return filepath.Join(runDir, "own-proxies") }

// SaveOwn says which there are, in place of those of before.
func SaveOwn(runDir string, all []Own) error {
	b, err := json.Marshal(all)
	if err == nil {
		err = replaceFile(ownFile(runDir), append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("save namespaces' proxies: %w", err)
	}
	return nil
}

// LoadOwn reads what SaveOwn wrote; without a file there are none.
func LoadOwn(runDir string) ([]Own, error) {
	var all []Own
	b, err := os.ReadFile(ownFile(runDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err == nil {
		seen := map[int]bool{}
		for _, o := range all {
			if o.Slot < 1 || o.Name == "" || seen[o.Slot] {
				err = fmt.Errorf("%q in slot %d makes no sense", o.Name, o.Slot)
			}
			seen[o.Slot] = true
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read namespaces' proxies from %s: %w", ownFile(runDir), err)
	}
	slices.SortFunc(all, func(a, b Own) int { return a.Slot - b.Slot })
	return all, nil
}

// ownDirs are the folders of proxies that namespaces have, or had.
func ownDirs(runDir string) []string {
	dirs, err := filepath.Glob(filepath.Join(runDir, "own-[0-9]*"))
	if err != nil {
		return nil // a folder whose name is a bad pattern has none
	}
	return dirs
}

// settle makes the folder that of a namespace: what another one's proxy had accepted in the
// slot before is nothing to it.
func (o Own) settle(runDir string) error {
	dir := o.Dir(runDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make run folder: %w", err)
	}
	whose := filepath.Join(dir, "namespace")
	if b, err := os.ReadFile(whose); err == nil && string(b) == o.Name {
		return nil
	}
	if err := forget(PathsIn(dir)); err != nil {
		return err
	}
	if err := replaceFile(whose, []byte(o.Name)); err != nil {
		return fmt.Errorf("note whose run folder %s is: %w", dir, err)
	}
	return nil
}
