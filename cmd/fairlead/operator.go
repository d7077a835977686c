// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/deploy"
	"fairlead.io/fairlead/operator"
)

func operatorCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "operator {--in-cluster | --kubeconfig FILE}",
		Short: "Say in users' objects what becomes of them, and install what is missing",
		Long: `Operator writes conditions into the status of users' objects, and Events about those
that have none, and installs SMI's CustomResourceDefinitions where they are missing. Of
several that run, one leads and writes; it must be given the same flags of the mesh as the
agents, because it says what they serve.`,
		Args: noArgs,
	}
	o, api := operatorFlags(c)
	meshFlags(c, &o.Pipeline)
	c.Flags().StringVar(&o.Health, "health", "", "address for probes, for example :8086: /healthz, /readyz, and /status (default: none)")
	install := c.Flags().Bool("install-crds", true, "install SMI's CustomResourceDefinitions where they are missing; those that are there stay as they are")
	c.Flags().StringVar(&o.StartupTaint, "startup-taint", "", "key of a taint that nodes are made with: it is taken off when a node's agent is ready and its CNI plugin in place (default: none)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := o.reach(c, api); err != nil {
			return err
		}
		if _, err := pipeline.Planes(o.Pipeline); err != nil {
			return usageError("%v", err)
		}
		if *install {
			var err error
			if o.Definitions, err = definitions(); err != nil {
				return err
			}
		}
		return operator.Run(c.Context(), o.Options)
	}
	c.AddCommand(cleanupCommand())
	return c
}

type operatorOptions struct{ operator.Options }

// operatorFlags are those that say which installation is meant.
func operatorFlags(c *cobra.Command) (*operatorOptions, *server) {
	o := &operatorOptions{}
	namespaceFlag(c, &o.Namespace, "namespace of the installation, which has its Lease")
	return o, serverFlags(c)
}

func (o *operatorOptions) reach(c *cobra.Command, api *server) error {
	if !api.named() {
		return usageError("%s needs the cluster's API server: --kubeconfig or --in-cluster", c.CommandPath())
	}
	cfg, err := api.config()
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("name this process: %w", err)
	}
	o.Config, o.Log, o.Identity = cfg, logger(c), host+"_"+rand.Text()
	return nil
}

// definitions are the manifests of deploy/crds.
func definitions() ([][]byte, error) {
	files, err := fs.Glob(deploy.CRDs, "crds/*.yaml")
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for _, f := range files {
		b, err := deploy.CRDs.ReadFile(f)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

func cleanupCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "cleanup [--in-cluster | --kubeconfig FILE]",
		Short: "Take back what operators have written: conditions, Events, the Lease",
		Long: `Cleanup takes away what operators have written into the cluster, for an uninstall. Those
that still run write nothing any more. Conditions and Events of others stay, and so do
CustomResourceDefinitions: users' objects would go with them. Beside another installation
of Fairlead, all but the Lease is left to that one.`,
		Args: noArgs,
	}
	o, api := operatorFlags(c)
	api.usual = true
	c.Flags().Lookup("kubeconfig").Usage = "kubeconfig file of the cluster (default: as kubectl has it)"
	out := outputFlag(c)
	limit := c.Flags().Duration("timeout", 2*time.Minute, "how long it may take")
	c.RunE = func(c *cobra.Command, _ []string) error {
		api.here = !api.named()
		if err := o.reach(c, api); err != nil {
			return err
		}
		if api.here {
			fmt.Fprintln(c.ErrOrStderr(), "in the cluster that kubectl speaks to:", o.Config.Host)
		}
		ctx, cancel := context.WithTimeoutCause(c.Context(), *limit, errors.New("it took too long: try again, or give it more --timeout"))
		defer cancel()
		removed, err := operator.Cleanup(ctx, o.Options)
		if err != nil {
			return err
		}
		return out.print(c.OutOrStdout(), removed, func(w io.Writer) error {
			if removed.Other != "" {
				_, err := fmt.Fprintf(w, "taken back: the Lease; statuses and Events are those of the installation in namespace %s\n", removed.Other)
				return err
			}
			_, err := fmt.Fprintf(w, "taken back: %d statuses, %d Events, and the Lease; CustomResourceDefinitions stay\n", removed.Statuses, removed.Events)
			return err
		})
	}
	return c
}
