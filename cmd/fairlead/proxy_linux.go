// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"fairlead.io/fairlead/datapath"
	"fairlead.io/fairlead/proxy"
)

func proxyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "proxy --node NODE",
		Short: "Run the node's Envoy and serve it what the agent last said",
		Long: `Proxy runs the node's Envoy and serves it what the agent last said. If it is killed,
Envoy goes on, and the next proxy takes over. If the next proxy would start Envoy
otherwise, from another binary say, it starts a second one, lets that take over
when it is ready, and the first one finish. SIGHUP makes it look for another binary.

In a container Envoy ends with it. There a second proxy may be started beside the first,
in another pid namespace and on the same run folder: it takes over when its Envoy is
ready, and the first one goes on with its connections until it is told to end.`,
		Args: noArgs,
	}
	var o proxy.Options
	c.Flags().StringVar(&o.Node, "node", "", "name of this node")
	c.Flags().StringVar(&o.RunDir, "run", defaultRun, "folder of sockets and state, shared by agent and proxy")
	c.Flags().StringVar(&o.EnvoyPath, "envoy", os.Getenv("ENVOY"), "Envoy binary (default: $ENVOY)")
	bpffs := c.Flags().String("bpffs", defaultBpffs, "folder on a BPF file system where the agent pins the kernel's maps")
	c.Flags().IntVar(&o.Concurrency, "concurrency", 0, "Envoy's worker threads (default: one per core)")
	c.Flags().DurationVar(&o.DrainTime, "drain-time", 10*time.Second, "how long clients have to finish when Envoy is replaced or stopped; a pod needs 10s more to end")
	c.Flags().DurationVar(&o.ReadyTime, "ready-time", 30*time.Second, "how long a new Envoy has to get ready before the old one is kept")
	c.Flags().BoolVar(&o.Standby, "standby", false, "keep a second Envoy ready for when the first one crashes")
	c.Flags().DurationVar(&o.EvictAfter, "evict-after", 10*time.Minute, "how long what nobody uses stays in Envoy")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if o.Node == "" {
			return usageError("proxy needs --node: the name of this node")
		}
		if o.EnvoyPath == "" {
			return usageError("proxy needs --envoy or $ENVOY: the path of an Envoy binary")
		}
		for name, d := range map[string]time.Duration{"drain-time": o.DrainTime, "ready-time": o.ReadyTime, "evict-after": o.EvictAfter} {
			if d < time.Second {
				return usageError("--%s %v: want 1s or more", name, d)
			}
		}
		if f := datapath.ProxyPrivileges(); f.Level != datapath.Fine {
			return fmt.Errorf("the proxy %s: %s", f.Detail, f.Advice)
		}
		check := make(chan os.Signal, 1)
		signal.Notify(check, syscall.SIGHUP)
		defer signal.Stop(check)
		o.Check = check
		o.Flip = func(bank int) error { return datapath.SetBank(*bpffs, bank) }
		o.Log = logger(c)
		return proxy.RunNode(c.Context(), o, func(slot, bank int) error { return datapath.SetSlotBank(*bpffs, slot, bank) })
	}
	c.AddCommand(replaceCommand(), readyCommand(), aliveCommand())
	return c
}

// probeLimit is how long a proxy has to answer a probe.
const probeLimit = 5 * time.Second

func readyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "ready",
		Short: "Tell whether the proxy of this container is ready; a readiness probe",
		Long: `Ready asks the proxy in the same pid namespace, which on a node may be one of two. It is
ready, and the command succeeds, when its Envoy has what it needs and the kernel gives it
the new connections, or did so until another proxy took over.`,
		Args: noArgs,
	}
	dir := c.Flags().String("run", defaultRun, "run folder of the node's proxy")
	out := outputFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		r, err := readiness(c, *dir)
		if err != nil {
			return err
		}
		if !r.Ready {
			return fmt.Errorf("not ready: %s", r.Why)
		}
		return out.print(c.OutOrStdout(), r, func(w io.Writer) error {
			_, err := fmt.Fprintln(w, "ready:", r.Why)
			return err
		})
	}
	return c
}

func aliveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "alive",
		Short: "Tell whether the proxy of this container answers; a liveness probe",
		Long: `Alive asks the proxy in the same pid namespace, and succeeds if it answers, ready or not:
one that waits, for the agent or for another proxy, is not mended by a restart.`,
		Args: noArgs,
	}
	dir := c.Flags().String("run", defaultRun, "run folder of the node's proxy")
	c.RunE = func(c *cobra.Command, _ []string) error {
		r, err := readiness(c, *dir)
		if err != nil {
			return err
		}
		state := "ready"
		if !r.Ready {
			state = "not ready"
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), "alive; %s: %s\n", state, r.Why)
		return err
	}
	return c
}

func readiness(c *cobra.Command, dir string) (proxy.Readiness, error) {
	ctx, cancel := context.WithTimeout(c.Context(), probeLimit)
	defer cancel()
	return proxy.ReadReadiness(ctx, dir)
}

func replaceCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "replace",
		Short: "Replace the node's Envoy without a lost request, if its binary or bootstrap has changed",
		Long: `Replace has the running proxy compare its Envoy with what it would start now. If they
differ, a second Envoy is started and takes over when it is ready; the first one has
the proxy's --drain-time to finish. If the second one does not get ready, or rejects
what the first one serves, the first one serves on, and the command fails.`,
		Args: noArgs,
	}
	dir := c.Flags().String("run", defaultRun, "run folder of the node's proxy")
	force := c.Flags().Bool("force", false, "replace it even if nothing has changed, or the new one rejects what the old one serves")
	out := outputFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		r, err := proxy.Replace(c.Context(), *dir, *force)
		if err != nil {
			return err
		}
		if err := out.print(c.OutOrStdout(), r, func(w io.Writer) error {
			_, err := fmt.Fprintln(w, "envoy:", replacementLine(r))
			return err
		}); err != nil {
			return err
		}
		if r.State == proxy.ReplacementFailed {
			return errors.New("envoy not replaced, the old one serves on: see fairlead status, and envoy/envoy-*.log in the run folder")
		}
		return nil
	}
	return c
}
