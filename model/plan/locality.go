// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
)

// member is a backend and the workload that it is; nil: no known one.
type member struct {
	backend  Backend
	workload *model.Workload
}

func compareMembers(a, b member) int { return compareBackends(a.backend, b.backend) }

func backendsOf(in []member) []Backend {
	var out []Backend
	for _, m := range in {
		out = append(out, m.backend)
	}
	return out
}

// weightOf is the sum of the members' weights.
func weightOf(in []member) uint32 {
	n := uint32(0)
	for _, m := range in {
		n += max(1, m.backend.Weight)
	}
	return n
}

// placed are the endpoints of a cluster, as near ones are preferred.
func (c *compiler) placed(cluster string, in []member, near *model.NearFar) *ClusterEndpoints {
	slices.SortFunc(in, compareMembers)
	out := &ClusterEndpoints{Cluster: cluster}
	switch {
	case near == nil:
	case len(near.Distribute) > 0:
		if to := c.distribution(near.Distribute); to != nil {
			out.Shares = c.distribute(in, to)
			return out
		}
	default:
		if tiers := c.tiers(in, near); len(tiers) > 1 {
			out.Shares = tiers
			return out
		}
	}
	out.Backends = backendsOf(in)
	return out
}

// tiers orders endpoints by how much they are preferred.
func (c *compiler) tiers(in []member, near *model.NearFar) []EndpointShare {
	here := c.localityOf(c.node)
	byTier := map[int][]member{}
	for _, m := range in {
		at := c.localityAt(m.workload)
		tier := c.labelTier(near.Labels, m.workload, at)
		switch {
		case near.ByRegion:
			tier = tier*regionTiers + regionTier(here, at, near.Regions)
		case near.Failover:
			tier = tier*failoverTiers + failoverTier(here, at, near.Regions)
		}
		byTier[tier] = append(byTier[tier], m)
	}
	var out []EndpointShare
	for i, tier := range slices.Sorted(maps.Keys(byTier)) {
		out = append(out, EndpointShare{Priority: uint32(i), Weight: weightOf(byTier[tier]), Backends: backendsOf(byTier[tier])})
	}
	return out
}

const (
	regionTiers   = 3
	failoverTiers = 5
)

// failoverTier is 0 in the same subzone, then zone, then region, then the region that
// comes next, or any other if none does.
func failoverTier(here, at model.Locality, next map[string]string) int {
	switch to, named := next[here.Region]; {
	case at == here:
		return 0
	case at.Region == here.Region && at.Zone == here.Zone:
		return 1
	case at.Region == here.Region:
		return 2
	case named && at.Region != to:
		return 4
	}
	return 3
}

// regionTier is 0 in the same region, then the one that comes next, then any other.
func regionTier(here, at model.Locality, next map[string]string) int {
	switch to, named := next[here.Region]; {
	case at.Region == here.Region:
		return 0
	case named && at.Region == to:
		return 1
	}
	return 2
}

// labelTier is how many labels, from the last one, an endpoint need not have.
func (c *compiler) labelTier(labels []string, w *model.Workload, at model.Locality) int {
	for i, l := range labels {
		key, want, said := strings.Cut(l, "=")
		if !said {
			want = topology(key, c.node, c.localityOf(c.node), nil)
		}
		have := ""
		if w != nil {
			have = topology(key, w.Node, at, w.Labels)
		}
		if have != want {
			return len(labels) - i
		}
	}
	return 0
}

// ownCluster is what Istio calls the cluster that it runs in, if nobody says otherwise.
const ownCluster = "Kubernetes"

// topology is the value of a label, which for some says where the workload is.
func topology(key, node string, at model.Locality, labels map[string]string) string {
	switch key {
	case model.TopologyRegion:
		return at.Region
	case model.TopologyZone:
		return at.Zone
	case model.TopologySubZone:
		return at.SubZone
	case model.TopologyHost:
		return node
	case model.TopologyCluster:
		return cmp.Or(labels[key], ownCluster)
	}
	return labels[key]
}

// localityAt is where a workload is: its own, or else its node's.
func (c *compiler) localityAt(w *model.Workload) model.Locality {
	switch {
	case w == nil:
		return model.Locality{}
	case w.Locality != model.Locality{}:
		return w.Locality
	}
	return c.localityOf(w.Node)
}

func (c *compiler) localityOf(node string) model.Locality {
	if n, _ := c.r.Get(nodes, node).(*model.Node); n != nil {
		return n.Locality
	}
	return model.Locality{}
}

// distribution is where the node's traffic goes, nil if nothing says it.
func (c *compiler) distribution(in []model.Distribute) map[string]uint32 {
	here := c.localityOf(c.node)
	for _, d := range in {
		if contains(d.From, here) {
			return d.To
		}
	}
	return nil
}

// contains reports whether a locality is in another one, as it is written.
func contains(pattern string, l model.Locality) bool {
	parts := append(strings.SplitN(pattern, "/", 3), "", "")
	region := parts[0] == "*" || parts[0] == l.Region
	zone := parts[1] == "*" || parts[1] == "" || parts[1] == l.Zone
	subZone := parts[2] == "*" || parts[2] == "" || parts[2] == l.SubZone
	return region && zone && subZone
}

// distribute gives localities their percentages; several that share one have parts of it
// by their weight.
func (c *compiler) distribute(in []member, to map[string]uint32) []EndpointShare {
	byLocality := map[model.Locality][]member{}
	for _, m := range in {
		at := c.localityAt(m.workload)
		byLocality[at] = append(byLocality[at], m)
	}
	localities := slices.SortedFunc(maps.Keys(byLocality), func(a, b model.Locality) int {
		return cmp.Or(cmp.Compare(a.Region, b.Region), cmp.Compare(a.Zone, b.Zone), cmp.Compare(a.SubZone, b.SubZone))
	})
	var out []EndpointShare
	for _, pattern := range slices.Sorted(maps.Keys(to)) {
		total := uint32(0)
		var taken []model.Locality
		for _, l := range localities {
			if contains(pattern, l) {
				taken = append(taken, l)
				total += weightOf(byLocality[l])
			}
		}
		for _, l := range taken {
			weight := math.Ceil(float64(weightOf(byLocality[l])) * float64(to[pattern]) / float64(total))
			out = append(out, EndpointShare{Weight: uint32(weight), Backends: backendsOf(byLocality[l])})
		}
		localities = slices.DeleteFunc(localities, func(l model.Locality) bool { return slices.Contains(taken, l) })
	}
	return out
}
