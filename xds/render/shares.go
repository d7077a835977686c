// SPDX-License-Identifier: Apache-2.0

package render

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"fairlead.io/fairlead/model/plan"
)

// shares are the routes of a split: one for each share that is answered with a status,
// which takes its part of the requests, and then one for all clusters.
//
// Envoy draws one number for a request. What is left of a million tells the parts of
// these routes, what is left of the weights' sum the cluster.
func shares(m *route.Route, r *plan.Route, authority string) ([]*route.Route, error) {
	var clusters, answered []plan.WeightedCluster
	total, of := uint64(0), uint64(0)
	for _, c := range r.Clusters {
		total += uint64(c.Weight)
		if c.Weight == 0 || total > math.MaxUint32 || (c.Name == "") == (c.Status == 0) {
			return nil, fmt.Errorf("cluster %q, status %d: weight %d, %d in all", c.Name, c.Status, c.Weight, total)
		}
		if c.Status == 0 {
			clusters = append(clusters, c)
		} else {
			answered = append(answered, c)
		}
	}
	var out []*route.Route
	for i, c := range answered {
		of += uint64(c.Weight)
		part := proto.CloneOf(m)
		part.Action = directResponse(c.Status, "")
		if i < len(answered)-1 || len(clusters) > 0 {
			n := min(max((of*million+total/2)/total, 1), million-1) // nobody's share is rounded away
			part.Match.RuntimeFraction = &core.RuntimeFractionalPercent{DefaultValue: perMillion(uint32(n))}
		}
		out = append(out, part)
	}
	if len(clusters) == 0 {
		return out, nil
	}
	if len(answered) > 0 {
		clusters = independent(clusters)
	}
	a, err := forward(m, r, clusters, authority)
	m.Action = a
	return append(out, m), err
}

// entangled is how large a divisor the weights' sum may have in common with a million:
// with a larger one the number that left a request to the clusters tells which of them.
const entangled = 1000

// independent gives the heaviest cluster a little more where the sum is entangled.
func independent(clusters []plan.WeightedCluster) []plan.WeightedCluster {
	sum := uint64(0)
	for _, c := range clusters {
		sum += uint64(c.Weight)
	}
	clusters = slices.Clone(clusters)
	heaviest := slices.MaxFunc(clusters, func(a, b plan.WeightedCluster) int { return cmp.Compare(a.Weight, b.Weight) })
	at := slices.IndexFunc(clusters, func(c plan.WeightedCluster) bool { return c.Weight == heaviest.Weight })
	for ; gcd(sum, million) > entangled && sum < math.MaxUint32; sum++ {
		clusters[at].Weight++
	}
	return clusters
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
