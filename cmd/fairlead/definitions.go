// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"fairlead.io/fairlead/kube"
	"fairlead.io/fairlead/kube/crds"
	"fairlead.io/fairlead/kube/preflight"
)

// lookLimit bounds a look at definitions, which costs a question each.
const lookLimit = readLimit

// lookAtDefinitions says how SMI's definitions stand in a cluster.
func lookAtDefinitions(ctx context.Context, cfg *kube.Config) ([]crds.Result, error) {
	ours, err := definitions()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	all, err := crds.Look(ctx, cfg, ours)
	if err != nil {
		err = fmt.Errorf("look at definitions: %w", err)
	}
	return all, err
}

// aboutDefinitions is what preflight says of them.
func aboutDefinitions(ctx context.Context, cfg *kube.Config) []preflight.Finding {
	const name = "SMI's definitions"
	all, err := lookAtDefinitions(ctx, cfg)
	if err != nil {
		return []preflight.Finding{{Name: name, Level: preflight.Warning, Detail: "not looked at: " + err.Error(), Advice: "look as somebody who may get customresourcedefinitions"}}
	}
	var out []preflight.Finding
	missing, others := 0, 0
	for _, r := range all {
		switch {
		case r.Outcome == crds.Missing:
			missing++
		case r.Outcome == crds.Adopted:
			others++
		}
		if why := r.Problem(); why != "" {
			out = append(out, preflight.Finding{Name: name, Level: preflight.Warning, Detail: r.Name + ", of another: " + why, Advice: r.Advice()})
		}
	}
	if len(out) > 0 {
		return out
	}
	return []preflight.Finding{{Name: name, Level: preflight.Fine, Detail: fmt.Sprintf("%d of %d are missing, and are installed; %d are another's, and stay as they are", missing, len(all), others)}}
}
