// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"fmt"

	"fairlead.io/fairlead/xds"
)

// form is a stored resource as a client gets it.
type form struct {
	name    string // as the client knows it
	version string
	of      *xds.Resource // as stored, or a stand-in
	from    source

	adapted *xds.Resource
	variant *variant // of a lazy client's scope
}

// form finds what the client is to have under a name; nil if that is nothing. The
// answer to a name that was asked for and is not there is a stand-in.
func (st *stream) form(sub *subscription, name string) *form {
	s := st.server
	k := st.key(sub.typ, name)
	e := s.store[k.typ][k.name]
	for {
		f := &form{name: name}
		f.of, f.from = st.given(e, name)
		if f.of == nil && st.standsIn(sub, name, e) {
			f.of, f.from = s.standIn(k), missing
		}
		if f.of == nil {
			return nil
		}
		err := st.complete(f, e)
		if err == nil {
			return f
		}
		if !st.unfit(k, f, err) {
			return nil
		}
	}
}

// unfit notes that a form cannot be made, which is as bad as a rejection by the
// client. It reports whether there may be another one.
func (st *stream) unfit(k key, f *form, err error) bool {
	if e := st.server.entry(k); e != nil && !f.from.standsIn() && e.knows(f.of.Version) {
		st.reject(f.of, err.Error())
		return true
	}
	st.server.log.Error("resource not sent", "type", xds.Short(k.typ), "name", k.name, "error", err)
	return false
}

// standsIn reports whether a stand-in is to be sent for what is not in the store. A
// client that does not wait for an answer is told that the resource is gone. Envoy
// ignores that, of routes and endpoints that it uses, and goes on with what it had.
func (st *stream) standsIn(sub *subscription, name string, e *entry) bool {
	if st.lazy != nil && sub.typ == xds.ClusterType {
		a := st.lazy.asked[name]
		return a != nil && !a.gone
	}
	if sub.wildcard {
		return false
	}
	has := sub.has[name]
	return has == nil || has.from == missing || e == nil && st.lazy != nil
}

// complete adds what is the client's own to a form.
func (st *stream) complete(f *form, e *entry) error {
	f.adapted, f.version = f.of, f.of.Version
	if st.adapt != nil {
		r, err := st.adapt(*f.of)
		if err != nil {
			return fmt.Errorf("adapt to client: %w", err)
		}
		if r.Version != f.of.Version {
			f.adapted, f.version = &r, r.Version
		}
	}
	if st.lazy != nil && f.of.Type == xds.ScopeType && e != nil {
		table := e.route
		if f.of != e.want {
			table = st.server.routeOf(f.of)
		}
		v := st.lazy.variants[table]
		f.variant, f.version = &v, v.version(f.version)
	}
	if f.of.Type == xds.ClusterType && f.name != f.of.Name {
		f.version = calledVersion(f.of, f.version)
	}
	return nil
}

// resource makes what is sent.
func (f *form) resource() (*xds.Resource, error) {
	switch {
	case f.variant != nil:
		return f.variant.scope(f.adapted)
	case f.of.Type == xds.RouteType && f.name != f.of.Name:
		return renamed(f.adapted, f.name)
	case f.of.Type == xds.ClusterType && f.name != f.of.Name:
		return called(f.adapted, f.name, f.version)
	}
	return f.adapted, nil
}

// key is what a name that the client uses means in the store.
func (st *stream) key(typ, name string) key {
	switch {
	case st.lazy == nil:
	case typ == xds.RouteType:
		name = tableOf(name)
	case typ == xds.ClusterType:
		name = st.meant(name)
	}
	return key{typ, name}
}

// keyOf is where in the store a resource is from.
func keyOf(r *xds.Resource) key { return key{r.Type, r.Name} }
