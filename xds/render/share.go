// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"math"

	"fairlead.io/fairlead/model/plan"
)

// disjoint gives shares without an endpoint in common: Envoy has an endpoint that
// stands in two localities in the first alone. The endpoints of the same shares
// become a share of their own, so that each endpoint has the weight that it had.
func disjoint(shares []plan.EndpointShare) []plan.EndpointShare {
	if !split(shares) {
		return shares
	}
	in := map[string]string{} // endpoint: the shares that have it
	for i, s := range shares {
		for _, b := range s.Backends {
			in[placeOf(b)] += fmt.Sprint(i, " ")
		}
	}
	var groups []plan.EndpointShare
	var weights []float64
	at := map[string]int{}
	done := map[string]bool{}
	total := 0.0
	for _, s := range shares {
		for _, b := range s.Backends {
			key := in[placeOf(b)]
			i, ok := at[key]
			if !ok {
				i = len(groups)
				at[key] = i
				groups, weights = append(groups, plan.EndpointShare{}), append(weights, 0)
			}
			w := float64(s.Weight) / float64(len(s.Backends))
			weights[i] += w
			total += w
			if !done[placeOf(b)] {
				done[placeOf(b)] = true
				groups[i].Backends = append(groups[i].Backends, b)
			}
		}
	}
	if len(groups) == len(shares) && len(done) == count(shares) {
		return shares
	}
	const precision = 1_000_000
	for i := range groups {
		groups[i].Weight = max(1, uint32(math.Round(weights[i]/total*precision)))
	}
	return groups
}

// split reports whether shares are parts of a split, which have no priorities. Localities
// have no endpoint in common anyway.
func split(shares []plan.EndpointShare) bool {
	return len(shares) > 0 && shares[len(shares)-1].Priority == 0
}

func count(shares []plan.EndpointShare) (n int) {
	for _, s := range shares {
		n += len(s.Backends)
	}
	return n
}

// placeOf is where an endpoint is.
func placeOf(b plan.Backend) string {
	if b.Host != "" {
		return fmt.Sprintf("%s:%d", b.Host, b.Port)
	}
	return b.Addrs[0].String()
}
