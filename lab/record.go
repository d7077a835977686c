// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"fairlead.io/fairlead/lab/cluster"
)

// record is what a lab keeps between its verbs.
type record struct {
	Name      string            `json:"name"`
	Nodes     []string          `json:"nodes"`
	Images    map[string]string `json:"images,omitempty"`
	Binary    string            `json:"binary"`
	EnvoyPath string            `json:"envoyPath,omitempty"`
	NoAgent   bool              `json:"noAgent,omitempty"`
	Cgroup    string            `json:"cgroup"` // folder of the lab's processes
	Docs      []cluster.Doc     `json:"docs"`
	LastSeq   int               `json:"lastSeq"`
	Cluster   cluster.State     `json:"cluster"`
	Pods      []*pod            `json:"pods"`
	Services  []ServiceStatus   `json:"services"`
	Notes     []cluster.Note    `json:"notes,omitempty"`
	// Daemons are the processes of nodes, by "node/agent" and the like.
	Daemons map[string]process `json:"daemons"`
}

// pod is a pod that is there.
type pod struct {
	*cluster.Pod
	Processes []process `json:"processes"`
	Ready     bool      `json:"ready"`
}

// process is one that the lab started. The time of its start tells it from another
// that got its number later.
type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // as /proc/PID/stat has it
	Log   string `json:"log"`
	// Stopped: it was ended on purpose and is not to be started again.
	Stopped bool `json:"stopped,omitempty"`
}

func loadRecord(name string) (*record, error) {
	b, err := os.ReadFile(pathsOf(name).record())
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("lab %s: %w; start one with \"fairlead lab up\"", name, ErrNoLab)
	}
	if err != nil {
		return nil, fmt.Errorf("read record of lab %s: %w", name, err)
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("read record of lab %s: %w", name, err)
	}
	return &r, nil
}

func (r *record) save() error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode record of lab %s: %w", r.Name, err)
	}
	return writeFile(pathsOf(r.Name).record(), b)
}

// writeFile replaces a file whole: nobody sees half of it.
func writeFile(path string, data []byte) error {
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
