// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/merge"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators"
)

// EntityChange is a service or a workload that is not the same on both sides.
type EntityChange struct {
	Kind       string         `json:"kind"` // "service" or "workload"
	Name       string         `json:"name"` // ns/name
	Changes    []Change       `json:"changes"`
	OldSources []model.Source `json:"oldSources,omitempty"`
	NewSources []model.Source `json:"newSources,omitempty"`
}

// fact is something about a service or a workload, in words.
type fact struct{ what, word string }

// entities compares services, what is behind them, and workloads.
func (r *Report) entities(before, after Tables, in func(string) bool) {
	for _, kind := range []struct {
		name  string
		table func(t Tables) map[string]model.Source
		facts func(t Tables, key string) []fact
	}{
		{"service", servicesOf, serviceFacts},
		{"workload", workloadsOf, workloadFacts(before, after)},
	} {
		a, b := kind.table(before), kind.table(after)
		for _, key := range union(slices.Collect(maps.Keys(a)), slices.Collect(maps.Keys(b))) {
			if ns, _, _ := strings.Cut(key, "/"); !in(ns) {
				continue
			}
			c := EntityChange{Kind: kind.name, Name: key}
			old, wasThere := a[key]
			new, isThere := b[key]
			if wasThere {
				c.OldSources = []model.Source{old}
			}
			if isThere {
				c.NewSources = []model.Source{new}
			}
			there := map[bool]string{true: "there", false: "not there"}
			if wasThere != isThere {
				c.Changes = []Change{{kind.name, there[wasThere], there[isThere]}}
			} else {
				c.Changes = factChanges(kind.facts(before, key), kind.facts(after, key))
			}
			if len(c.Changes) > 0 {
				r.Entities = append(r.Entities, c)
			}
		}
	}
}

func servicesOf(t Tables) map[string]model.Source {
	out := map[string]model.Source{}
	for _, row := range t.Rows(translators.Services) {
		out[row.Key] = row.Value.(*model.Service).Src
	}
	return out
}

func workloadsOf(t Tables) map[string]model.Source {
	out := map[string]model.Source{}
	for _, row := range t.Rows(translators.Workloads) {
		out[row.Key] = row.Value.(*model.Workload).Src
	}
	return out
}

// factChanges compares facts by what they are about; one that is missing is nothing.
func factChanges(a, b []fact) []Change {
	word := func(in []fact, what string) string {
		if i := slices.IndexFunc(in, func(f fact) bool { return f.what == what }); i >= 0 {
			return cmp.Or(in[i].word, nothing)
		}
		return nothing
	}
	var out []Change
	for _, f := range slices.Concat(a, b) {
		x, y := word(a, f.what), word(b, f.what)
		c := Change{f.what, x, y}
		if x != y && !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	return out
}

// serviceFacts are those of a service that routes do not show.
func serviceFacts(t Tables, key string) []fact {
	s, _ := t.Get(translators.Services, key).(*model.Service)
	if s == nil {
		return nil
	}
	out := []fact{
		{"addresses", addressesWord(s)}, {"names", strings.Join(s.Hosts, ", ")},
		{"reached", strings.TrimSpace(string(s.Reach) + map[bool]string{true: " by captured clients alone"}[s.MeshOnly])},
		{"resolution", string(s.Resolution)},
	}
	if s.Affinity != 0 {
		out = append(out, fact{"affinity", s.Affinity.String()})
	}
	endpoints, _ := t.Get(translators.Endpoints, key).(*model.Endpoints)
	for _, p := range s.Ports {
		name := fmt.Sprintf("port %d/%s", p.Port, p.Protocol)
		word := "there"
		if p.App != model.AppUndeclared {
			word += ", " + string(p.App)
		}
		if p.Target != 0 {
			word += fmt.Sprintf(", to %d", p.Target)
		}
		out = append(out, fact{name, word}, fact{"endpoints of " + name, endpointsWord(t, endpoints, p)})
	}
	return out
}

// addressesWord is how a service is got at. The addresses of a Service are the cluster's
// own affair, and others in each reading of manifests that do not name them.
func addressesWord(s *model.Service) string {
	var words []string
	for _, a := range s.VIPs {
		switch {
		case s.Src.Kind != "Service":
			words = append(words, a.String())
		case a.Is6():
			words = append(words, "IPv6")
		default:
			words = append(words, "IPv4")
		}
	}
	for _, p := range s.Ranges {
		words = append(words, p.String())
	}
	return strings.Join(words, ", ")
}

// endpointsWord lists who is behind a port: pods by their names.
func endpointsWord(t Tables, e *model.Endpoints, p model.ServicePort) string {
	if e == nil {
		return ""
	}
	i := slices.IndexFunc(e.Ports, func(x model.EndpointsPort) bool { return x.Port == p.Port && x.Protocol == p.Protocol })
	if i < 0 {
		return ""
	}
	var words []string
	for _, b := range e.Ports[i].Backends {
		word := fmt.Sprintf("%s:%d", cmp.Or(b.Host, podAt(t, b.Addr)), b.Port)
		if b.Weight > 1 {
			word += fmt.Sprintf(" weighs %d", b.Weight)
		}
		words = append(words, word)
	}
	return strings.Join(union(words, nil), ", ")
}

// podAt is the pod that has the address, or else the address.
func podAt(t Tables, a netip.Addr) string {
	if p, ok := t.(interface {
		WorkloadAt(netip.Addr) *model.Workload
	}); ok {
		if w := p.WorkloadAt(a); w != nil && !w.External {
			return w.Key()
		}
	}
	return a.String()
}

// workloadFacts are those of a workload that policies do not show; of its labels those
// that routes of either side ask for.
func workloadFacts(sides ...Tables) func(t Tables, key string) []fact {
	var labels []string
	for _, t := range sides {
		labels = union(labels, askedLabels(t))
	}
	return func(t Tables, key string) []fact {
		w, _ := t.Get(translators.Workloads, key).(*model.Workload)
		if w == nil {
			return nil
		}
		out := []fact{
			{"identity", w.Identity},
			{"captured, and so routed", map[bool]string{true: "yes", false: "no"}[w.Capture && !w.Observed]},
			{"network", map[bool]string{true: "its node's", false: "its own"}[w.HostNetwork]},
			{"member of the mesh", map[bool]string{true: "yes", false: "no"}[w.Member()]},
			{"place", strings.Trim(strings.Join([]string{w.Locality.Region, w.Locality.Zone, w.Locality.SubZone}, "/"), "/")},
			{"ports of probes", strings.Trim(fmt.Sprint(w.ProbePorts), "[]")},
		}
		if w.Capture {
			out = append(out, fact{unknownHosts, string(cmp.Or(plan.UnknownOf(t, w), model.UnknownPass))})
		}
		for _, l := range labels {
			if v, ok := w.Labels[l]; ok {
				out = append(out, fact{"label " + l, fmt.Sprintf("%q", v)})
			}
		}
		return out
	}
}

// askedLabels are the names of labels that routes ask for, of endpoints or of clients.
func askedLabels(t Tables) []string {
	seen := map[string]bool{}
	add := func(labels map[string]string) {
		for k := range labels {
			seen[k] = true
		}
	}
	backends := func(in []model.Backend) {
		for _, b := range in {
			add(b.Labels)
		}
	}
	for _, row := range t.Rows(merge.Frontends) {
		f := row.Value.(*model.Frontend)
		backends(f.Backends)
		for _, c := range f.Connections {
			add(c.SourceLabels)
			backends(c.Backends)
		}
		for _, r := range f.Routes {
			add(r.Match.SourceLabels)
			backends(r.Backends)
			for _, m := range r.Mirrors {
				add(m.Backend.Labels)
			}
		}
	}
	return slices.Sorted(maps.Keys(seen))
}
