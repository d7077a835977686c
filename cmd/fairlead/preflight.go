// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"fairlead.io/fairlead/kube/preflight"
)

func preflightCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "preflight [--kubeconfig FILE | --node]",
		Short: "Say what would not work on this cluster, or on this node, and why",
		Long: `Preflight looks at a cluster before Fairlead is installed there: nodes and their kernels,
who balances services, the network that pods have, other meshes that are still there,
another installation, what you may do, SMI's definitions where others have made them. With
--node it looks at the machine that it runs on: privileges, each feature of the kernel,
other owners' programs at the same hooks. It changes nothing. An agent does the latter by itself before it begins, and looks for others
again and again; what it finds is in its log, in fairlead status, and here.

Exit status: 0 nothing stands in the way, 1 something does, 2 wrong usage.`,
		Example: "  fairlead preflight\n  fairlead preflight --kubeconfig prod.yaml -o json\n  fairlead preflight --node --uplink eth0",
		Args:    noArgs,
	}
	s := &server{usual: true}
	s.fileFlags(c, "kubeconfig file of the cluster (default: as kubectl has it)")
	var namespace string
	namespaceFlag(c, &namespace, "namespace of the installation")
	onNode := c.Flags().Bool("node", false, "look at the machine that this runs on")
	node := preflightNodeFlags(c)
	out := outputFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		var found []preflight.Finding
		var err error
		switch {
		case *onNode && s.named():
			return usageError("preflight looks at a cluster (--kubeconfig) or at this machine (--node), not both")
		case *onNode:
			found, err = node()
		default:
			found, err = s.preflight(c, namespace)
		}
		if err != nil {
			return err
		}
		if err := out.print(c.OutOrStdout(), found, func(w io.Writer) error { return printFindings(w, found) }); err != nil {
			return err
		}
		if preflight.Worst(found) == preflight.Problem {
			return &exitError{code: exitFailed}
		}
		return nil
	}
	return c
}

func (s *server) preflight(c *cobra.Command, namespace string) ([]preflight.Finding, error) {
	cfg, err := s.config()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(c.Context(), readLimit, errSlow)
	defer cancel()
	found, err := preflight.Look(ctx, cfg, namespace)
	if err != nil {
		return nil, err
	}
	return append(found, aboutDefinitions(ctx, cfg)...), nil
}

// printFindings writes a line for each, and below it what to do.
func printFindings(w io.Writer, found []preflight.Finding) error {
	width, level := 0, 0
	for _, f := range found {
		width, level = max(width, len(f.Name)), max(level, len(f.Level))
	}
	for _, f := range found {
		line := fmt.Sprintf("%-*s  %-*s  %s", level, strings.ToUpper(string(f.Level)), width, f.Name, f.Detail)
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " ")); err != nil {
			return err
		}
		if f.Advice != "" {
			fmt.Fprintf(w, "%*s%s\n", level+width+4, "", f.Advice)
		}
	}
	return nil
}
