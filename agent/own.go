// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"maps"
	"slices"

	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

// place is the proxy that alone gets what a row becomes: a namespace's; "" for the node's,
// and for what all have. A namespace for which there is no slot shares the node's.
func (r *resources) place(row any) string {
	proxy := ""
	switch v := row.(type) {
	case *plan.Listener:
		proxy = v.Proxy
	case *plan.Scope:
		proxy = v.Proxy
	case *plan.RouteTable:
		proxy = v.Proxy
	}
	if proxy == "" {
		return ""
	}
	if _, err := r.ports.allocateSlot(proxy); err != nil {
		return ""
	}
	return proxy
}

// ofClients reports whether every proxy has a resource that the node's has: what clients
// of any namespace may ask for. The others are the listeners, and what is judged on the
// way to pods, which each proxy has of its own.
func ofClients(k resourceKey) bool {
	switch k.typ {
	case xds.ListenerType:
		return false
	case xds.ScopeType, xds.RouteType:
		return !plan.OfPort(k.name)
	}
	return true
}

// of lists what the proxy of a namespace is to have, in a fixed order.
func (r *resources) of(proxy string) []xds.Resource {
	all := maps.Clone(r.own[proxy])
	if all == nil {
		all = map[resourceKey]xds.Resource{}
	}
	for k, res := range r.want {
		if ofClients(k) {
			all[k] = res
		}
	}
	return sortedResources(all)
}

func sortedResources(m map[resourceKey]xds.Resource) []xds.Resource {
	return slices.SortedFunc(maps.Values(m), func(a, b xds.Resource) int {
		return compareKeys(resourceKey{a.Type, a.Name}, resourceKey{b.Type, b.Name})
	})
}

func (r *resources) has(k resourceKey) bool {
	if _, ok := r.want[k]; ok {
		return true
	}
	return r.ownerOf(k) != ""
}

// ownerOf is the namespace whose proxy alone has a resource, "" if there is none.
func (r *resources) ownerOf(k resourceKey) string {
	for proxy, has := range r.own {
		if _, ok := has[k]; ok {
			return proxy
		}
	}
	return ""
}

// keys lists all that is wanted anywhere, in a fixed order.
func (r *resources) keys() []resourceKey {
	all := map[resourceKey]bool{}
	for k := range r.want {
		all[k] = true
	}
	for _, has := range r.own {
		for k := range has {
			all[k] = true
		}
	}
	return slices.SortedFunc(maps.Keys(all), compareKeys)
}

// put has a proxy have a resource, and returns what changes for the node's.
func (r *resources) put(k resourceKey, res xds.Resource, proxy string) []serve.Change {
	if old := r.ownerOf(k); old != "" && old != proxy {
		r.removeOwn(old, k)
	}
	if proxy == "" {
		r.want[k] = res
		delete(r.moved, k)
		return []serve.Change{serve.Set(res)}
	}
	if r.own[proxy] == nil {
		r.own[proxy] = map[resourceKey]xds.Resource{}
	}
	r.own[proxy][k] = res
	if _, ok := r.want[k]; !ok {
		return nil
	}
	delete(r.want, k)
	r.moved[k] = proxy
	return []serve.Change{{Type: k.typ, Name: k.name}}
}

// remove takes a resource from whoever has it, and returns what changes for the node's
// proxy.
func (r *resources) remove(k resourceKey) []serve.Change {
	if proxy := r.ownerOf(k); proxy != "" {
		r.removeOwn(proxy, k)
	}
	if _, ok := r.want[k]; !ok {
		return nil
	}
	delete(r.want, k)
	if k.typ == xds.ListenerType {
		// Its clients may have moved: then it is held until their own proxy has them.
		for proxy, has := range r.own {
			for o := range has {
				if shared, _ := plan.SharedName(o.name); o.typ == k.typ && shared == k.name {
					r.moved[k] = proxy
				}
			}
		}
	}
	return []serve.Change{{Type: k.typ, Name: k.name}}
}

func (r *resources) removeOwn(proxy string, k resourceKey) {
	delete(r.own[proxy], k)
	if len(r.own[proxy]) == 0 {
		delete(r.own, proxy)
	}
}
