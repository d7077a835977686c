// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
)

// nearby are those of a backend's ready endpoints that this node's clients get, by what
// the service says: of a local one those of the node, as Istio and Linkerd have it, too,
// wherever the service is a backend. Hints count as they do for kube-proxy, but not for
// clients of a plane that has words of its own for near endpoints (hints is false then).
func (c *compiler) nearby(e *model.Endpoints, in []model.Endpoint, hints bool) []model.Endpoint {
	if e.Local {
		return keep(in, func(e model.Endpoint) bool { return e.Node == c.node })
	}
	if !hints {
		return in
	}
	// A family is a set of its own: each has slices of its own.
	mine, others := split(in, func(e model.Endpoint) bool { return e.Addr.IsValid() && e.Addr.Is6() == c.v6 })
	near, ok := meantFor(mine, c.node, func(e model.Endpoint) string { return e.ForNodes })
	if !ok {
		near, ok = meantFor(mine, c.localityOf(c.node).Zone, func(e model.Endpoint) string { return e.ForZones })
	}
	if !ok {
		return in
	}
	return append(near, others...)
}

func hinted(e model.Endpoint) bool { return e.ForNodes != "" || e.ForZones != "" }

// meantFor are the endpoints whose hint names a client; false if one has no hint, or none
// names it: then hints say nothing.
func meantFor(in []model.Endpoint, name string, hint func(model.Endpoint) string) ([]model.Endpoint, bool) {
	if slices.ContainsFunc(in, func(e model.Endpoint) bool { return hint(e) == "" }) {
		return nil, false
	}
	out := keep(in, func(e model.Endpoint) bool { return slices.Contains(strings.Split(hint(e), ","), name) })
	return out, len(out) > 0
}

// hints reports whether clients whom a backend's plane steers go by hints of endpoints. A
// plane that chooses by authority, as Istio does, does not read them, nor does a policy that
// orders endpoints itself.
func (c *compiler) hints(b model.Backend) bool {
	if b.Policy != nil && b.Policy.Locality != nil {
		return false
	}
	key := model.FrontendKey(b.Namespace, b.Service, b.Port)
	return choiceOf(c.r, key, b.Namespace, nil).Basis != model.ByAuthority
}

func keep(in []model.Endpoint, f func(model.Endpoint) bool) []model.Endpoint {
	yes, _ := split(in, f)
	return yes
}

func split(in []model.Endpoint, f func(model.Endpoint) bool) (yes, no []model.Endpoint) {
	for _, e := range in {
		if f(e) {
			yes = append(yes, e)
		} else {
			no = append(no, e)
		}
	}
	return yes, no
}
