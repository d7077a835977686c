// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"cmp"
	"net/netip"
	"strings"
	"time"

	"fairlead.io/fairlead/agent/trace"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/merge"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators"
)

// frontend is what clients of a service's port, or of a host, get on one side.
type frontend struct {
	Plane   string        `json:"-"`
	Mode    plan.Mode     `json:"mode"`
	App     model.App     `json:"app,omitempty"` // as what is sent there is read
	Basis   model.Basis   `json:"basis,omitempty"`
	Unknown model.Unknown `json:"unknown,omitempty"`
	// Routes are of requests; there is a table even where a plane gives them none.
	Routes []model.Route `json:"routes,omitempty"`
	// Connections are of what is not read as requests; none where all is.
	Connections []model.ConnectionRoute `json:"connections,omitempty"`
	// DetectTimeout is how long the first bytes are waited for that tell the two apart; 0:
	// for ever.
	DetectTimeout time.Duration `json:"detectTimeout,omitempty"`
	Invalid       bool          `json:"invalid,omitempty"`
	src           []model.Source
}

// hasRequests reports whether anything is read as requests.
func (f *frontend) hasRequests() bool { return f.App.HasRequests() }

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
	out := &frontend{Mode: plan.Any, App: model.AppHTTP}
	if o, ok := t.Get(merge.Owners, key).(*merge.Owner); ok {
		out.Plane = o.Plane
	}
	if s != nil {
		out.App, out.src = s.Port(port).App, []model.Source{s.Src}
		if f != nil {
			out.App = cmp.Or(f.App, out.App)
		}
		out.Mode = trace.ModeOf(t, s, port, out.App)
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
	out.connected(f, own(f.Namespace, f.Service, port))
	return out
}

// connected adds what a plane says of what is not read as requests.
func (f *frontend) connected(by *model.Frontend, own model.Backend) {
	if f.App == model.AppDetect {
		f.DetectTimeout = max(0, by.DetectTimeout)
	}
	switch {
	case f.App.IsHTTP():
	case len(by.Connections) > 0:
		f.Connections = by.Connections
	case len(by.Backends) > 0:
		f.Connections = []model.ConnectionRoute{{Backends: model.Shares(by.Backends), Src: by.Src}}
	default:
		f.Connections = []model.ConnectionRoute{{Backends: []model.Backend{own}, Src: by.Src}}
	}
}

// defaults are what a service gets that no plane routes.
func (f *frontend) defaults(s *model.Service, port uint16, table *plan.RouteTable) {
	to := []model.Backend{own(s.Namespace, s.Name, port)}
	if !f.App.IsHTTP() {
		f.Connections = []model.ConnectionRoute{{Backends: to, Src: f.src}}
	}
	if table == nil {
		return
	}
	r := model.Route{Backends: to, Src: f.src}
	if len(table.Routes) > 0 {
		r.Retry = table.Routes[0].Retry
	}
	f.Routes = []model.Route{r}
}

func own(namespace, service string, port uint16) model.Backend {
	return model.Backend{Namespace: namespace, Service: service, Port: port, Weight: 1}
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
