// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"maps"
	"slices"
	"time"

	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

// Render gives the Envoy resources of a plan, in their order, and the ports of its
// listeners, as an agent that starts from nothing would. What cannot be rendered is
// an error that names every row; the rest is given all the same.
func Render(p *pipeline.Pipeline) ([]xds.Resource, map[string]uint16, error) {
	r, err := NewRenderer()
	if err != nil {
		return nil, nil, err
	}
	for _, t := range plan.EnvoyTables() {
		for _, row := range p.Rows(t) {
			r.Take([]incr.Change{{Table: row.Table, Key: row.Key, New: row.Value}})
		}
	}
	return r.All(), r.Ports(), r.Errors()
}

// Renderer keeps the Envoy resources of a plan as an agent does: change by change,
// with the last good version of what cannot be rendered any more. It is not safe for
// concurrent use.
type Renderer struct {
	ports *ports
	res   *resources
}

// NewRenderer is one that has seen no rows and given out no ports.
func NewRenderer() (*Renderer, error) {
	p, err := openPorts("", time.Now) // no file: it is never saved
	if err != nil {
		return nil, err
	}
	return &Renderer{p, newResources(p)}, nil
}

// Take renders changed rows and returns what changes for Envoy.
func (r *Renderer) Take(changes []incr.Change) []serve.Change { return r.res.take(changes) }

// All lists the resources of all proxies in their order.
func (r *Renderer) All() []xds.Resource {
	all := maps.Clone(r.res.want)
	for _, own := range r.res.own {
		maps.Copy(all, own)
	}
	return sortedResources(all)
}

// Of lists those of one proxy, that of a namespace, or the node's if it is "".
func (r *Renderer) Of(proxy string) []xds.Resource {
	if proxy == "" {
		return r.res.all()
	}
	return r.res.of(proxy)
}

// Ports of the listeners; one that went keeps its own.
func (r *Renderer) Ports() map[string]uint16 { return maps.Clone(r.ports.state.Used) }

// Errors names all rows that cannot be rendered; nil if there are none.
func (r *Renderer) Errors() error {
	var errs []error
	for _, k := range slices.SortedFunc(maps.Keys(r.res.bad), compareKeys) {
		errs = append(errs, errors.New(r.res.bad[k].why))
	}
	return errors.Join(errs...)
}
