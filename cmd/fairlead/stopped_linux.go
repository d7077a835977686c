// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/cni/install"
	"fairlead.io/fairlead/datapath"
	"fairlead.io/fairlead/kube/owner"
)

// runAgent runs an agent of a DaemonSet until it is stopped. If the DaemonSet is gone by
// then, nobody takes over from it, and it leaves the node as it was.
func runAgent(ctx context.Context, o agent.Options, daemonSet string) error {
	if daemonSet == "" {
		return agent.Run(ctx, o)
	}
	ref, err := owner.ParseRef("daemonsets", daemonSet)
	if err != nil {
		return usageError("--daemonset %v", err)
	}
	f, err := owner.New(o.APIServer, ref, o.Log)
	if err != nil {
		return err
	}
	follow, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { f.Run(follow) })
	defer wg.Wait()
	defer stop()
	err = agent.Run(ctx, o)
	if ctx.Err() == nil {
		return err
	}
	after := context.WithoutCancel(ctx)
	if !f.Gone(after) {
		return err
	}
	o.Log.Info("the DaemonSet is gone: the node is given back", "daemonset", daemonSet)
	var plugin install.Options
	if o.Plugin != nil {
		plugin = *o.Plugin
	}
	_, err = giveBack(after, o, plugin, o.Log)
	return err
}

// giveBack leaves a node as it was before the first agent, and names the files that the CNI
// plugin was taken out of. That is first: whoever calls it waits for an agent.
func giveBack(ctx context.Context, o agent.Options, plugin install.Options, log *slog.Logger) (changed []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, uninstallLimit)
	defer cancel()
	if plugin.ConfDir != "" {
		if changed, err = install.Uninstall(plugin); err != nil {
			return changed, err
		}
	}
	err = datapath.Uninstall(ctx, datapath.Options{PinDir: o.Bpffs, StateDir: o.RunDir, Cgroup: o.Cgroup, SysctlDir: o.SysctlDir, Log: log})
	if errors.Is(err, context.DeadlineExceeded) {
		return changed, fmt.Errorf("%w; an agent still runs on this node: stop it first", err)
	}
	return changed, err
}
