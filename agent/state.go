// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"fmt"
	"maps"

	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/render"
	"fairlead.io/fairlead/xds/serve"
)

// resources are the node's Envoy resources as they are wanted.
type resources struct {
	ports *ports
	want  map[resourceKey]xds.Resource // of the node's proxy
	// own are those that only the proxy of a namespace has, by its name. It has besides what
	// ofClients has of want.
	own map[string]map[resourceKey]xds.Resource
	// moved are those that the node's proxy need not have since one of a namespace has them.
	moved map[resourceKey]string
	bad   map[resourceKey]unusable
	fixed map[resourceKey]bool // wanted whatever the rows are
}

// unusable is a row whose resource is not what it should be.
type unusable struct {
	version string // that Envoy rejected; "": it could not be rendered
	why     string
	serving Serving // what is wanted in its place
}

type resourceKey struct{ typ, name string }

func compareKeys(a, b resourceKey) int {
	return cmp.Or(cmp.Compare(xds.Phase(a.typ), xds.Phase(b.typ)), cmp.Compare(a.typ, b.typ), cmp.Compare(a.name, b.name))
}

func newResources(p *ports) *resources {
	r := &resources{ports: p, want: map[resourceKey]xds.Resource{}, own: map[string]map[resourceKey]xds.Resource{}, moved: map[resourceKey]string{}, bad: map[resourceKey]unusable{}, fixed: map[resourceKey]bool{}}
	pass, err := render.PassResources()
	if err != nil {
		panic(err) // they depend on nothing
	}
	for _, res := range pass {
		k := resourceKey{res.Type, res.Name}
		r.want[k], r.fixed[k] = res, true
	}
	return r
}

// typeOf is the resource type that a table's rows become; "" for tables of the kernel.
func typeOf(t incr.Table) string {
	switch t {
	case plan.Clusters:
		return xds.ClusterType
	case plan.Endpoints:
		return xds.EndpointType
	case plan.RouteTables:
		return xds.RouteType
	case plan.Scopes:
		return xds.ScopeType
	case plan.Listeners:
		return xds.ListenerType
	}
	return ""
}

// take renders changed rows and returns what changes for Envoy. A row that cannot
// be rendered changes nothing if an earlier version is in use; a route table
// without one answers 500.
func (r *resources) take(changes []incr.Change) []serve.Change {
	var out []serve.Change
	for _, c := range changes {
		typ := typeOf(c.Table)
		if typ == "" {
			continue
		}
		k := resourceKey{typ, c.Key}
		before := r.bad[k]
		delete(r.bad, k)
		if c.New == nil {
			out = append(out, r.remove(k)...)
			continue
		}
		res, err := r.render(c.New)
		if err != nil {
			if change, ok := r.unfold(c.New, "", err.Error()); ok {
				out = append(out, change)
				continue
			}
			if _, noted := r.bad[k]; noted {
				continue
			}
			bad := unusable{why: err.Error(), serving: LastGood}
			had := r.has(k)
			switch {
			case had && before.serving != "": // what is wanted stands in already
				bad.serving = before.serving
			case !had && typ == xds.RouteType:
				bad.serving = Answer500
			case !had:
				bad.serving = Nothing
			}
			r.bad[k] = bad
			if had || typ != xds.RouteType {
				continue
			}
			if res, err = render.RouteTable500(c.Key); err != nil {
				continue
			}
		}
		out = append(out, r.put(k, res, r.place(c.New))...)
	}
	return out
}

// unfold wants, in place of a cluster whose policy cannot be judged here, one
// without it whose connections do not claim that it was: the destination's own node
// judges them. ok is false for other rows, whose last version may stay, and, though
// noted, where it is wanted already. The version is the rejected one, if it was.
func (r *resources) unfold(row any, version, why string) (change serve.Change, ok bool) {
	c, _ := row.(*plan.Cluster)
	if c == nil || c.Policy == nil {
		return serve.Change{}, false
	}
	bare := *c
	bare.Policy, bare.Checked = nil, false
	res, err := render.Cluster(&bare)
	if err != nil {
		return serve.Change{}, false
	}
	k := resourceKey{xds.ClusterType, c.Name}
	r.bad[k] = unusable{version, why, WithoutPolicy}
	if had, ok := r.want[k]; ok && had.Version == res.Version {
		return serve.Change{}, false
	}
	r.want[k] = res
	return serve.Set(res), true
}

// replace is take of rows that are all there are.
func (r *resources) replace(rows []incr.Row) []serve.Change {
	there := maps.Clone(r.fixed)
	var changes []incr.Change
	for _, row := range rows {
		there[resourceKey{typeOf(row.Table), row.Key}] = true
		changes = append(changes, incr.Change{Table: row.Table, Key: row.Key, New: row.Value})
	}
	out := r.take(changes)
	for _, k := range r.keys() {
		if !there[k] {
			out = append(out, r.remove(k)...)
		}
	}
	maps.DeleteFunc(r.bad, func(k resourceKey, _ unusable) bool { return !there[k] })
	return out
}

func (r *resources) render(row any) (xds.Resource, error) {
	switch v := row.(type) {
	case *plan.Cluster:
		return render.Cluster(v)
	case *plan.ClusterEndpoints:
		return render.Endpoints(v)
	case *plan.RouteTable:
		return render.RouteTable(v)
	case *plan.Scope:
		return render.Scope(v)
	case *plan.Listener:
		port, err := r.ports.allocate(v.Name)
		if err != nil {
			return xds.Resource{}, err
		}
		return render.Listener(v, port)
	}
	return xds.Resource{}, fmt.Errorf("no resource is made of %T", row)
}

// all lists the wanted resources in a fixed order.
func (r *resources) all() []xds.Resource {
	return sortedResources(r.want)
}
