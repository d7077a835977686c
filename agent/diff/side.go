// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"net/netip"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/merge"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators"
)

// frontend is what clients of a service's port, or of a host, get on one side.
type frontend struct {
	Plane       string                  `json:"-"`
	Mode        plan.Mode               `json:"mode"`
	Basis       model.Basis             `json:"basis,omitempty"`
	Unknown     model.Unknown           `json:"unknown,omitempty"`
	Routes      []model.Route           `json:"routes,omitempty"`
	Connections []model.ConnectionRoute `json:"connections,omitempty"`
	Invalid     bool                    `json:"invalid,omitempty"`
	src         []model.Source
}

// keysOf lists a side's frontends.
func keysOf(t Tables, in func(ns string) bool) []string {
	var out []string
	for _, row := range t.Rows(translators.Services) {
		s := row.Value.(*model.Service)
		if !in(s.Namespace) {
			continue
		}
		for _, p := range s.Ports {
			if p.Protocol == model.TCP {
				out = append(out, model.FrontendKey(s.Namespace, s.Name, p.Port))
			}
		}
	}
	for _, row := range t.Rows(merge.Frontends) {
		if f := row.Value.(*model.Frontend); f.Host != "" && in(f.Namespace) {
			out = append(out, row.Key)
		}
	}
	return out
}

// frontendOf is a side's frontend, nil if there is none.
func frontendOf(t Tables, key string) *frontend {
	f, _ := t.Get(merge.Frontends, key).(*model.Frontend)
	s, port := serviceOf(t, key)
	if f == nil && s == nil {
		return nil
	}
	out := &frontend{Mode: plan.Any}
	if o, ok := t.Get(merge.Owners, key).(*merge.Owner); ok {
		out.Plane = o.Plane
	}
	if s != nil {
		out.Mode = modeOf(t, s, port)
		out.src = []model.Source{s.Src}
	}
	table := tableOf(t, key)
	if table != nil {
		out.Basis = model.ByDestination
		if table.Elsewhere != nil {
			out.Basis, out.Unknown = model.ByAuthority, table.Elsewhere.Unknown
		}
	}
	if f == nil {
		out.defaults(s, port, table)
		return out
	}
	out.Invalid, out.src = f.Invalid, f.Src
	if table != nil {
		out.Routes = f.Routes
	}
	switch {
	case out.Mode == plan.HTTP || out.Mode == plan.Any:
	case len(f.Connections) > 0:
		out.Connections = f.Connections
	case len(f.Backends) > 0:
		out.Connections = []model.ConnectionRoute{{Backends: model.Shares(f.Backends), Src: f.Src}}
	default:
		out.Connections = []model.ConnectionRoute{{Backends: []model.Backend{own(s, port)}, Src: f.Src}}
	}
	return out
}

// defaults are what a service gets that no plane routes.
func (f *frontend) defaults(s *model.Service, port uint16, table *plan.RouteTable) {
	if table == nil {
		f.Connections = []model.ConnectionRoute{{Backends: []model.Backend{own(s, port)}, Src: f.src}}
		return
	}
	r := model.Route{Backends: []model.Backend{own(s, port)}, Src: f.src}
	if len(table.Routes) > 0 {
		r.Retry = table.Routes[0].Retry
	}
	f.Routes = []model.Route{r}
}

func own(s *model.Service, port uint16) model.Backend {
	return model.Backend{Namespace: s.Namespace, Service: s.Name, Port: port, Weight: 1}
}

// serviceOf is the service and the port of a frontend's key.
func serviceOf(t Tables, key string) (*model.Service, uint16) {
	name, port, ok := cutPort(key)
	s, _ := t.Get(translators.Services, name).(*model.Service)
	if !ok || s == nil || s.Port(port) == nil {
		return nil, 0
	}
	return s, port
}

func cutPort(key string) (string, uint16, bool) {
	i := strings.LastIndexByte(key, ':')
	if i < 0 {
		return key, 0, false
	}
	p, err := netip.ParseAddrPort("0.0.0.0" + key[i:])
	return key[:i], p.Port(), err == nil
}

func tableOf(t Tables, key string) *plan.RouteTable {
	for _, name := range []string{key, key + "@6"} {
		if table, ok := t.Get(plan.RouteTables, name).(*plan.RouteTable); ok {
			return table
		}
	}
	return nil
}

// modeOf says who balances the service's port.
func modeOf(t Tables, s *model.Service, port uint16) plan.Mode {
	for _, a := range s.VIPs {
		if r, ok := t.Get(plan.Services, (&plan.Service{Addr: a, Port: port, Protocol: model.TCP}).Key()).(*plan.Service); ok {
			return r.Mode
		}
	}
	if tableOf(t, model.FrontendKey(s.Namespace, s.Name, port)) != nil {
		return plan.HTTP
	}
	return plan.Kernel
}
