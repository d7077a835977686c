// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"

	rbac "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"fairlead.io/fairlead/model/plan"
)

// perRoute is a route's configuration of filters, by their names; nil if there is none.
func perRoute(r *plan.Route) (map[string]*anypb.Any, error) {
	out := map[string]*anypb.Any{}
	if r.Fault != nil {
		f, err := faults(r.Fault)
		if err == nil && f != nil {
			out[FaultFilter], err = packChecked(f)
		}
		if err != nil {
			return nil, err
		}
	}
	if r.CORS != nil {
		c, err := corsPolicy(r.CORS)
		if err == nil {
			out[CORSFilter], err = packChecked(c)
		}
		if err != nil {
			return nil, fmt.Errorf("cors: %w", err)
		}
	}
	if r.Policy != nil {
		if len(r.Policy.Allow) > AllowSlots {
			return nil, fmt.Errorf("%d groups of allows: listeners have %d slots", len(r.Policy.Allow), AllowSlots)
		}
		fs, err := policyFilters(r.Policy, byAddress{r.Policy.Known, r.Policy.Members})
		if err != nil {
			return nil, err
		}
		for _, f := range fs {
			if out[f.name], err = packChecked(&rbac.RBACPerRoute{Rbac: f.rbac}); err != nil {
				return nil, err
			}
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, nil
}
