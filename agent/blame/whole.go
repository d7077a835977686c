// SPDX-License-Identifier: Apache-2.0

package blame

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/merge"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators"
)

// whole is what a row came from of which no part has an origin.
func whole(t Tables, row any) []model.Source {
	switch r := row.(type) {
	case *plan.Cluster:
		return cluster(t, r.Name)
	case *plan.ClusterEndpoints:
		return cluster(t, r.Cluster)
	case *plan.RouteTable:
		return routeTable(t, r.Name)
	case *plan.Scope:
		return routeTable(t, r.RouteTable)
	case *plan.Listener:
		return clients(t, r.Name)
	}
	return nil
}

// cluster is what a cluster's name stands for: one of connections has an origin.
func cluster(t Tables, name string) []model.Source {
	if of := origin(t, name); len(of) > 0 {
		return of
	}
	return frontend(t, name)
}

func routeTable(t Tables, name string) []model.Source {
	if strings.HasPrefix(name, "in|") {
		return inbound(t, name)
	}
	if port, ok := strings.CutPrefix(name, "any:"); ok {
		return hostsAt(t, port)
	}
	return frontend(t, name)
}

// frontend is who says how a service's port, or a host's, is treated; else the service
// by itself.
func frontend(t Tables, name string) []model.Source {
	key := FrontendKey(name)
	if f, ok := t.Get(merge.Frontends, key).(*model.Frontend); ok && len(f.Src) > 0 {
		return f.Src
	}
	service, _, _ := strings.Cut(key, ":")
	if s, ok := t.Get(translators.Services, service).(*model.Service); ok {
		return []model.Source{s.Src}
	}
	return nil
}

// FrontendKey is the key of the frontend, or of the backend service's port, in the
// name of a cluster or route table; "" if there is none in it.
func FrontendKey(name string) string {
	for _, p := range []string{"missing/", "mirror/"} {
		name = strings.TrimPrefix(name, p)
	}
	colon := strings.LastIndexByte(name, ':')
	if colon < 0 || strings.ContainsRune(name, '|') { // of a pod's port, of connections
		return ""
	}
	end := colon + 1
	for end < len(name) && name[end] >= '0' && name[end] <= '9' {
		end++
	}
	if _, err := strconv.ParseUint(name[colon+1:end], 10, 16); err != nil {
		return ""
	}
	return name[:end]
}

// inbound is what guards the pods whose ports a table is for, and those pods.
func inbound(t Tables, name string) []model.Source {
	var out []model.Source
	for _, row := range t.Rows(plan.Scopes) {
		s := row.Value.(*plan.Scope)
		key, ok := strings.CutPrefix(s.Key, "in|")
		if !ok || s.RouteTable != name {
			continue
		}
		for _, p := range t.Rows(plan.Pods) {
			pod := p.Value.(*plan.Pod)
			if !strings.HasPrefix(key, pod.Addr.String()+":") && !strings.HasPrefix(key, "["+pod.Addr.String()+"]:") {
				continue
			}
			out = append(out, workload(t, pod.Name)...)
			if g, ok := t.Get(plan.Governance, pod.Name).(*plan.Governed); ok {
				out = append(out, g.Src...)
			}
		}
	}
	return out
}

// hostsAt is who names hosts without service at a port.
func hostsAt(t Tables, port string) []model.Source {
	var out []model.Source
	for _, row := range t.Rows(merge.Frontends) {
		if f := row.Value.(*model.Frontend); f.Host != "" && strconv.Itoa(int(f.Port)) == port {
			out = append(out, f.Src...)
		}
	}
	return out
}

// clients are the pods whose connections a listener takes.
func clients(t Tables, listener string) []model.Source {
	var out []model.Source
	for _, row := range t.Rows(plan.Pods) {
		pod := row.Value.(*plan.Pod)
		for _, l := range pod.Listeners {
			if l == listener && !slices.Contains(out, source(t, pod.Name)) {
				out = append(out, workload(t, pod.Name)...)
			}
		}
	}
	return out
}

// workloads are those (ns/name) that the policies in a row guard.
func workloads(t Tables, row any) []string {
	switch r := row.(type) {
	case *plan.RouteTable: // "in|<ns>/<pod>:<port>"
		if key, ok := strings.CutPrefix(r.Name, "in|"); ok {
			pod, _, _ := strings.Cut(key, ":")
			return []string{pod}
		}
	case *plan.Cluster:
		e, _ := t.Get(plan.Endpoints, r.Name).(*plan.ClusterEndpoints)
		if e == nil {
			return nil
		}
		endpoints := map[netip.Addr]bool{}
		for _, b := range e.Backends {
			for _, at := range b.Addrs {
				endpoints[at.Addr()] = true
			}
		}
		var out []string
		for _, row := range t.Rows(translators.Workloads) {
			if slices.ContainsFunc(row.Value.(*model.Workload).Addresses, func(a netip.Addr) bool { return endpoints[a] }) {
				out = append(out, row.Key)
			}
		}
		return out
	}
	return nil
}

func workload(t Tables, key string) []model.Source {
	if s := source(t, key); s != (model.Source{}) {
		return []model.Source{s}
	}
	return nil
}

func source(t Tables, workload string) model.Source {
	w, _ := t.Get(translators.Workloads, workload).(*model.Workload)
	if w == nil {
		return model.Source{}
	}
	return w.Src
}
