// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"net/netip"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/merge"
)

// Input tables of the shared model; translators fill them.
const (
	nodes      incr.Table = "node"
	services   incr.Table = "service"
	endpoints  incr.Table = "endpoints"
	workloads  incr.Table = "workload"
	namespaces incr.Table = merge.Namespaces
	defaults   incr.Table = "defaults" // *model.Defaults, key: the plane
)

// HostAddresses is the input table of addresses that the node has besides those that its
// object names: netip.Addr, key: itself. Only the node knows them. A pod's gateway is one,
// where that is an interface of the node: what its processes send to a pod comes from there.
const HostAddresses incr.Table = "hostaddress"

// Governance is the table of *Governed, keyed as the workloads are: what guards
// each of them, here or on another node.
const Governance incr.Table = "plan/governed"

// Diagnostics is what the plan cannot do as the configuration says.
const Diagnostics incr.Table = "diagnostic/plan" // []model.Diagnostic, key of the workload or frontend, or "service/" and that of the service

// Tables between the stages.
const (
	cidrs       incr.Table = "plan/cidr"       // netip.Prefix that some policy names
	predicates  incr.Table = "plan/predicate"  // map[string]string: labels that some route asks of its clients
	sets        incr.Table = "plan/set"        // *Governed, key of the set in hex; those of local pods
	inbounds    incr.Table = "plan/inbound"    // *inbound, key of its route table
	clients     incr.Table = "plan/client"     // *client, key: its class
	modes       incr.Table = "plan/mode"       // proxied, key: the mode
	anyNames    incr.Table = "plan/anyname"    // likewise, at addresses that nobody is known to have
	anyRanges   incr.Table = "plan/range"      // netip.Prefix that some service has; key: itself
	serverNames incr.Table = "plan/servername" // string that some service of mode TLS tells apart; key: itself
	detections  incr.Table = "plan/detection"  // time.Duration for which some port's first bytes are waited for; in their order, for ever last
)

func authzTable(plane string) incr.Table { return incr.Table("authz/" + plane) }

// Tables lists what makes up a node's plan, without Origins: rows for Envoy, then
// rows for the kernel.
func Tables() []incr.Table {
	return append(append([]incr.Table{Proxies}, EnvoyTables()...), KernelTables()...)
}

// EnvoyTables lists the tables for Envoy in the order in which they become ready.
func EnvoyTables() []incr.Table {
	return []incr.Table{Clusters, Endpoints, RouteTables, Scopes, Listeners}
}

// KernelTables lists the tables for the kernel in the order in which they are
// written: what guards an address is there before the address has a class, and
// both before a pod points to them.
func KernelTables() []incr.Table {
	return []incr.Table{Classes, Verdicts, Addresses, Prefixes, Pods, Services}
}

// builder holds what the stages of one node share.
type builder struct {
	node   string
	planes []string
}

// Register adds the indexes and stages that compute the plan of a node. The merge
// stage stands before them.
func Register(s *incr.Store, node string, planes []string) {
	b := &builder{node: node, planes: planes}
	s.Index(endpoints, "addr", func(_ string, v any) []string {
		var out []string
		for _, p := range v.(*model.Endpoints).Ports {
			for _, e := range slices.Concat(p.Backends, p.Unready) {
				if e.Addr.IsValid() {
					out = append(out, e.Addr.String())
				}
			}
		}
		return out
	})
	s.Index(workloads, "addr", func(_ string, v any) []string {
		w := v.(*model.Workload)
		if w.HostNetwork {
			return nil
		}
		out := make([]string, 0, len(w.Addresses))
		for _, a := range w.Addresses {
			out = append(out, a.String())
		}
		return out
	})
	for _, p := range planes {
		indexTargets(s, p)
		indexInbounds(s, p)
	}
	indexHosts(s)
	indexReach(s)
	s.Add(b.cidrStage())
	s.Add(b.predicateStage())
	s.Add(unknownStage())
	s.Add(b.detectionStage())
	s.Add(b.clientStage())
	s.Add(b.addressStage())
	s.Add(b.askedStage())
	s.Add(b.governStage())
	s.Add(b.heldStage())
	s.Add(b.serviceStage())
	s.Add(b.hostStage())
	s.Add(b.anyStage())
	s.Add(b.podStage())
	s.Add(b.inboundStage())
	s.Add(b.verdictStage())
}

// self is a key function for stages whose keys are the rows of a table.
func self(prefix string) func(string, any) []string {
	return func(k string, _ any) []string { return []string{prefix + k} }
}

func (b *builder) cidrStage() incr.Stage {
	keys := map[incr.Table]func(string, any) []string{namespaces: self(" ")} // of no plane
	for _, p := range b.planes {
		keys[authzTable(p)] = self(p + " ")
	}
	return incr.Stage{Name: "plan/cidr", Keys: keys, Compute: func(r *incr.Reader, key string) []incr.Row {
		plane, k, _ := strings.Cut(key, " ")
		var out []incr.Row
		var rules []model.AuthRule
		if plane == "" {
			ns, _ := r.Get(namespaces, k).(*model.Namespace)
			for _, p := range b.planes {
				rules = append(rules, exemptions(ns, p)...)
			}
		} else if a, _ := r.Get(authzTable(plane), k).(*model.Authorization); a != nil {
			rules = a.Rules
		}
		seen := map[netip.Prefix]bool{}
		for _, p := range rulePrefixes(rules) {
			if !seen[p] {
				seen[p] = true
				out = append(out, incr.Row{Table: cidrs, Key: p.String(), Value: p})
			}
		}
		return out
	}}
}

// rulePrefixes lists every source prefix that the rules name.
func rulePrefixes(rules []model.AuthRule) []netip.Prefix {
	var out []netip.Prefix
	for _, r := range rules {
		for _, p := range r.From {
			out = append(append(out, p.IPs...), p.NotIPs...)
		}
		for _, c := range r.When {
			if c.Kind == model.OnSourceIP {
				out = append(append(out, c.Prefixes...), c.NotPrefixes...)
			}
		}
	}
	return out
}

func (b *builder) predicateStage() incr.Stage {
	return incr.Stage{Name: "plan/predicate",
		Keys: map[incr.Table]func(string, any) []string{merge.Frontends: self("")},
		Compute: func(r *incr.Reader, key string) []incr.Row {
			f, _ := r.Get(merge.Frontends, key).(*model.Frontend)
			if f == nil {
				return nil
			}
			var out []incr.Row
			add := func(labels map[string]string) {
				if len(labels) > 0 {
					out = append(out, incr.Row{Table: predicates, Key: predicateID(labels), Value: labels})
				}
			}
			for i := range f.Routes {
				add(f.Routes[i].Match.SourceLabels)
			}
			for i := range f.Connections {
				add(f.Connections[i].SourceLabels)
			}
			return unique(out)
		}}
}

// predicateID names the predicate "carries these labels".
func predicateID(labels map[string]string) string { return "p" + model.Hash(labels)[:16] }

// unique drops rows of the same table and key; they are equal by construction.
func unique(rows []incr.Row) []incr.Row {
	type id struct {
		t incr.Table
		k string
	}
	seen := map[id]bool{}
	out := rows[:0]
	for _, r := range rows {
		if !seen[id{r.Table, r.Key}] {
			seen[id{r.Table, r.Key}] = true
			out = append(out, r)
		}
	}
	return out
}
