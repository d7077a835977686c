// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/agent/metrics"
	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/cni/install"
	"fairlead.io/fairlead/datapath"
	"fairlead.io/fairlead/kube/lease"
	"fairlead.io/fairlead/lab"
	"fairlead.io/fairlead/proxy"
)

// nodeCommands run on a node.
func nodeCommands() []*cobra.Command {
	return append([]*cobra.Command{agentCommand(), proxyCommand()}, labCommands()...)
}

// defaultBpffs is where the kernel's maps and links are pinned.
const defaultBpffs = "/sys/fs/bpf/fairlead"

func agentCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "agent --node NODE {--source DIR | --kubeconfig FILE | --in-cluster}",
		Short: "Compute the node's plan, feed the proxy, write the kernel's maps",
		Long: `Agent watches the objects of a cluster, or of a folder, and keeps the node as they say.
It may be stopped or killed at any time: kernel and proxy go on, and the next agent
takes over. So they do while the API server is away; fairlead status says since when.`,
		Args: noArgs,
	}
	var o agent.Options
	nodeFlags(c, &o)
	c.Flags().StringVar(&o.Node, "node", "", "name of this node, as in the objects")
	c.Flags().StringVar(&o.Source, "source", "", "folder of objects")
	api := serverFlags(c)
	namespaceFlag(c, &o.Pipeline.Leases, "namespace of Fairlead's own objects, where the agents of all nodes have their Leases")
	c.Flags().DurationVar(&o.LeaseRenew, "lease-renew", lease.DefaultRenew,
		"how often the node's Lease is renewed; one that is not renewed three times has the other nodes not count what this one's proxy has checked. Longer in large clusters")
	c.Flags().StringVar(&o.NetnsDir, "netns", "/run/netns", "folder of the pods' network namespaces")
	c.Flags().StringSliceVar(&o.Uplinks, "uplink", nil, "interface towards the other nodes; repeat for more (default: those of the node's default routes); overlays are found by the routes to other nodes' pods")
	daemonSet := c.Flags().String("daemonset", "", "`NAMESPACE/NAME` of the DaemonSet that has this run: if it is gone when this is stopped, the node is left as it was")
	address := c.Flags().String("metrics", "", "`ADDRESS` (host:port) that tells Prometheus of the node: /metrics, and Envoy's own on /metrics/envoy (default: none)")
	o.WhenProxyAbsent = agent.Hold
	c.Flags().Var(&o.WhenProxyAbsent, "when-proxy-absent",
		"what becomes of connections for the proxy while no Envoy is ready: hold (they wait for 3 s, and are refused then) or bypass (balanced by the kernel, without routes)")
	meshFlags(c, &o.Pipeline)
	plugin := pluginFlags(c, &o.RunDir)
	c.RunE = func(c *cobra.Command, _ []string) error {
		switch {
		case o.Node == "":
			return usageError("agent needs --node: the name of this node")
		case o.Source == "" && !api.named():
			return usageError("agent needs --source, a folder of objects, or the cluster's API server by --kubeconfig or --in-cluster")
		case o.Source != "" && api.named():
			return usageError("agent reads a folder (--source) or a cluster (--kubeconfig, --in-cluster), not both")
		case o.LeaseRenew < time.Second || o.LeaseRenew > time.Minute:
			return usageError("--lease-renew %s: want 1s to 1m", o.LeaseRenew)
		case *daemonSet != "" && !api.named():
			return usageError("--daemonset %s needs the API server that has it: --kubeconfig or --in-cluster", *daemonSet)
		}
		if _, err := pipeline.Planes(o.Pipeline); err != nil {
			return usageError("%v", err)
		}
		if _, _, err := net.SplitHostPort(*address); *address != "" && err != nil {
			return usageError("--metrics %s: %v; want host:port, [::]:9470 for all addresses", *address, err)
		}
		if api.named() {
			cfg, err := api.config()
			if err != nil {
				return err
			}
			o.APIServer = cfg
		}
		var err error
		if o.Plugin, err = plugin(); err != nil {
			return err
		}
		o.Log = logger(c)
		if f := datapath.Privileges(); f.Level != datapath.Fine {
			return fmt.Errorf("the agent %s: %s", f.Detail, f.Advice)
		}
		if len(o.Uplinks) == 0 {
			if o.Uplinks, err = datapath.DefaultUplinks(); err != nil {
				return fmt.Errorf("%w; name it by --uplink", err)
			}
			o.Log.Info("uplinks are where the default routes lead", "uplinks", o.Uplinks)
		}
		if *address != "" {
			go metrics.Serve(c.Context(), *address, nodeMetrics(o.RunDir), o.Log)
		}
		return runAgent(c.Context(), o, *daemonSet)
	}
	c.AddCommand(uninstallCommand(), relayCommand(), agentReadyCommand(), agentAliveCommand())
	return c
}

// nodeMetrics asks agent and proxy of a run folder, as people do.
func nodeMetrics(run string) http.Handler {
	a := agent.NewClient(filepath.Join(run, agent.Socket))
	return metrics.Handler(metrics.Node{Status: a.Status, Envoy: func(ctx context.Context) ([]byte, error) { return proxy.ReadMetrics(ctx, run) }})
}

// nodeFlags are those that say where a node's things are.
func nodeFlags(c *cobra.Command, o *agent.Options) {
	c.Flags().StringVar(&o.RunDir, "run", defaultRun, "folder of sockets and state, shared by agent and proxy")
	c.Flags().StringVar(&o.Bpffs, "bpffs", defaultBpffs, "folder on a BPF file system for pinned maps and links")
	c.Flags().StringVar(&o.SysctlDir, "sysctls", "/proc/sys", "folder where settings of the node's network are written; in a container, where the node's own is mounted")
	c.Flags().StringVar(&o.Cgroup, "cgroup", cgroupRoot("/proc/self/mounts"), "cgroup2 folder of the node's processes")
}

// cgroupRoot is where cgroups of version 2 are: all that is at the usual place, or, where
// version 1 is beside it, below that.
func cgroupRoot(mounts string) string {
	const usual = "/sys/fs/cgroup"
	text, err := os.ReadFile(mounts)
	if err != nil {
		return usual
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" && (f[1] == usual || strings.HasPrefix(f[1], usual+"/")) {
			return f[1]
		}
	}
	return usual
}

// uninstallLimit bounds the wait for an agent that is about to end.
const uninstallLimit = 10 * time.Second

func uninstallCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "uninstall",
		Short: "Leave the node as it was: programs, maps, rules, routes, settings",
		Args:  noArgs,
	}
	var o agent.Options
	var plugin install.Options
	nodeFlags(c, &o)
	pluginFolders(c, &plugin, install.DefaultConfDir, install.DefaultBinDir)
	c.RunE = func(c *cobra.Command, _ []string) error {
		changed, err := giveBack(c.Context(), o, plugin, logger(c))
		for _, path := range changed {
			fmt.Fprintf(c.OutOrStdout(), "the CNI plugin was taken out of %s\n", path)
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.OutOrStdout(), "nothing of Fairlead is left in the kernel of this node")
		return err
	}
	return c
}

// labRuns are the run folders of a lab's agents.
func labRuns(name string) ([]string, error) { return lab.RunDirs(name) }
