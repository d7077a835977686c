// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/datapath"
	"fairlead.io/fairlead/kube/preflight"
)

// preflightNodeFlags are those of the machine that the command runs on.
func preflightNodeFlags(c *cobra.Command) func() ([]preflight.Finding, error) {
	var o agent.Options
	nodeFlags(c, &o)
	c.Flags().StringSliceVar(&o.Uplinks, "uplink", nil, "with --node: interface towards the other nodes; repeat for more")
	return func() ([]preflight.Finding, error) {
		var out []preflight.Finding
		for _, f := range datapath.Preflight(datapath.Options{PinDir: o.Bpffs, StateDir: o.RunDir, Cgroup: o.Cgroup, Uplinks: o.Uplinks}) {
			out = append(out, preflight.Finding{Name: f.Name, Level: preflight.Level(f.Level), Detail: f.Detail, Advice: f.Advice})
		}
		return out, nil
	}
}
