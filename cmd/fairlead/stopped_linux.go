// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/cni"
	"fairlead.io/fairlead/cni/install"
	"fairlead.io/fairlead/datapath"
	"fairlead.io/fairlead/kube/owner"
	"fairlead.io/fairlead/proxy"
)

// runAgent runs an agent of a DaemonSet until it is stopped. If the DaemonSet is gone by
// then, or the node is not one of its own any more, nobody takes over from it, and it leaves
// the node as it was.
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
	place, err := owner.NewPlace(o.APIServer, ref, o.Node, o.Log)
	if err != nil {
		return err
	}
	follow, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { f.Run(follow) })
	wg.Go(func() { place.Run(follow) })
	defer wg.Wait()
	defer stop()
	err = agent.Run(ctx, o)
	if ctx.Err() == nil {
		return err
	}
	after := context.WithoutCancel(ctx)
	why := "it is gone"
	if !f.Gone(after) {
		if why = place.Lost(after); why == "" {
			return err
		}
	}
	o.Log.Info("the DaemonSet brings no other agent here: the node is given back", "daemonset", daemonSet, "why", why)
	var plugin install.Options
	if o.Plugin != nil {
		plugin = *o.Plugin
	}
	_, err = giveBack(after, o, plugin, o.Log)
	return err
}

// nodeRoot is the node's root folder as a pod has it that sees the node's processes.
const nodeRoot = "/proc/1/root"

// giveBack leaves a node as it was before the first agent, and names the files that the CNI
// plugin was taken out of. That is first: whoever calls it waits for an agent. An agent that
// was told to do without the plugin takes it out where an earlier one has left it.
func giveBack(ctx context.Context, o agent.Options, plugin install.Options, log *slog.Logger) (changed []string, err error) {
	run, err := filepath.Abs(o.RunDir)
	if err != nil {
		return nil, err
	}
	plugin.Config.RunDir, plugin.NodeRoot = run, nodeRoot
	return giveBackBoth(plugin, func() error {
		ctx, cancel := context.WithTimeout(ctx, uninstallLimit)
		defer cancel()
		err := datapath.Uninstall(ctx, datapath.Options{PinDir: o.Bpffs, StateDir: o.RunDir, Cgroup: o.Cgroup, SysctlDir: o.SysctlDir, Log: log})
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("%w; an agent still runs on this node: stop it first", err)
		}
		return errors.Join(err, proxy.GiveBack(run))
	})
}

// giveBackBoth is giveBack with the kernel's part given. It is done whatever becomes of the
// plugin's: captured connections wait for a proxy that does not come.
func giveBackBoth(plugin install.Options, kernel func() error) (changed []string, err error) {
	if changed, err = install.Uninstall(plugin); err != nil {
		err = fmt.Errorf("%w; pods may not start here until the plugin %s is out of the files in %s: take it out by hand, or try again", err, cni.Type, cmp.Or(plugin.ConfDir, install.DefaultConfDir))
	}
	return changed, errors.Join(err, kernel())
}
