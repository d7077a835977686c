// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fairlead.io/fairlead/model/plan"
)

func TestTargetsHaveTheirPartsOfTheirShares(t *testing.T) {
	at := func(s string, weight uint32) plan.Backend {
		return plan.Backend{Addrs: []netip.AddrPort{netip.MustParseAddrPort(s)}, Weight: weight}
	}
	a, b, c := at("10.0.0.1:80", 0), at("10.0.0.2:80", 0), at("10.0.0.3:80", 3)
	for name, x := range map[string]struct {
		in   plan.ClusterEndpoints
		want []uint32 // weights
		last uint32   // priority of the last one
	}{
		"none":     {plan.ClusterEndpoints{}, nil, 0},
		"alike":    {plan.ClusterEndpoints{Backends: []plan.Backend{a, b}}, []uint32{1, 1}, 0},
		"weighted": {plan.ClusterEndpoints{Backends: []plan.Backend{a, c}}, []uint32{1, 3}, 0},
		"split, whatever their number": {plan.ClusterEndpoints{Shares: []plan.EndpointShare{
			{Weight: 1, Backends: []plan.Backend{a, b}}, {Weight: 1, Backends: []plan.Backend{c}}}}, []uint32{1, 1, 2}, 0},
		"in reserve": {plan.ClusterEndpoints{Shares: []plan.EndpointShare{
			{Weight: 7, Backends: []plan.Backend{a, b}}, {Priority: 1, Weight: 1, Backends: []plan.Backend{c}}}}, []uint32{1, 1, 2}, 1},
	} {
		var got []uint32
		last := uint32(0)
		for _, e := range targets(&x.in) {
			got, last = append(got, e.weight), e.priority
		}
		if d := cmp.Diff(x.want, got); d != "" || last != x.last {
			t.Errorf("%s: priority %d, weights\n%s", name, last, d)
		}
	}
}
