// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"errors"
	"slices"

	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

type resource struct{ typ, name string }

// Take follows changes as they are applied to the server that Envoy is served by, so
// that no answer leads to what Envoy does not have: what is deleted is forgotten at
// once, so call Take before; what is set is known when done is called, which is when
// Envoy has it. done must be called once; it is quick, and may be called under the
// server's lock. A version that Envoy rejected does not replace one before it, which
// Envoy goes on with. The error is of resources that cannot be read; they are as if
// they had not been in changes.
func (x *Index) Take(changes []serve.Change) (done func(serve.Outcome), err error) {
	type wait struct {
		resource
		version string
		number  uint64
		apply   func(*Index)
	}
	var waits []wait
	var errs []error
	var deleted []resource
	for _, c := range changes {
		r := resource{c.Type, c.Name}
		if c.Resource == nil {
			deleted = append(deleted, r)
			continue
		}
		apply, err := parse(*c.Resource)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		waits = append(waits, wait{r, c.Resource.Version, 0, apply})
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, r := range deleted {
		delete(x.latest, r) // what waits is superseded
		x.delete(r)
	}
	for i := range waits {
		x.change++
		waits[i].number = x.change
		x.latest[waits[i].resource] = x.change
	}
	return func(o serve.Outcome) {
		x.mu.Lock()
		defer x.mu.Unlock()
		for _, w := range waits {
			if x.latest[w.resource] != w.number {
				continue // a later change of it has come
			}
			delete(x.latest, w.resource)
			rejected := slices.ContainsFunc(o.Rejected, func(r serve.Rejection) bool {
				return r.Type == w.typ && r.Name == w.name && r.Version == w.version
			})
			if !rejected || !x.has(w.resource) {
				w.apply(x)
			}
		}
	}, errors.Join(errs...)
}

// has reports whether there is an earlier version of a resource.
func (x *Index) has(r resource) bool {
	if t := x.tables[r.name]; t != nil && r.typ == xds.RouteType {
		return t.naming != nil
	}
	return r.typ == xds.ScopeType && x.scopes[r.name] != nil
}
