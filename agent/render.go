// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
)

// Render gives the Envoy resources of a plan, in their order, and the ports of its
// listeners, as an agent that starts from nothing would. What cannot be rendered is
// an error that names every row; the rest is given all the same.
func Render(p *pipeline.Pipeline) ([]xds.Resource, map[string]uint16, error) {
	dir, err := os.MkdirTemp("", "fairlead")
	if err != nil {
		return nil, nil, fmt.Errorf("render: %w", err)
	}
	defer os.RemoveAll(dir)
	ports, err := openPorts(filepath.Join(dir, "ports.json"), time.Now)
	if err != nil {
		return nil, nil, err
	}
	r := newResources(ports)
	for _, t := range plan.EnvoyTables() {
		for _, row := range p.Rows(t) {
			r.take([]incr.Change{{Table: row.Table, Key: row.Key, New: row.Value}})
		}
	}
	var errs []error
	for _, k := range slices.SortedFunc(maps.Keys(r.bad), compareKeys) {
		errs = append(errs, errors.New(r.bad[k].why))
	}
	return r.all(), maps.Clone(ports.state.Used), errors.Join(errs...)
}
