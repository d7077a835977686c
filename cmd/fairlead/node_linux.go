// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/agent/blame"
	"fairlead.io/fairlead/agent/diff"
	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/datapath"
	"fairlead.io/fairlead/hubble"
	"fairlead.io/fairlead/kube"
	"fairlead.io/fairlead/lab"
)

// nodeCommands run on a node.
func nodeCommands() []*cobra.Command {
	return append([]*cobra.Command{agentCommand(), proxyCommand(), statusCommand(), observeCommand(), swapCommand()}, labCommands()...)
}

// defaultRun is where a node's agent and proxy meet.
const defaultRun = "/run/fairlead"

// defaultBpffs is where the kernel's maps and links are pinned.
const defaultBpffs = "/sys/fs/bpf/fairlead"

func logger(c *cobra.Command) *slog.Logger {
	return slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))
}

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
	c.Flags().StringVar(&o.NetnsDir, "netns", "/run/netns", "folder of the pods' network namespaces")
	c.Flags().StringSliceVar(&o.Uplinks, "uplink", nil, "interface towards the other nodes; repeat for more")
	o.WhenProxyAbsent = agent.Hold
	c.Flags().Var(&o.WhenProxyAbsent, "when-proxy-absent",
		"what becomes of connections for the proxy while no Envoy is ready: hold (they fail) or bypass (balanced by the kernel, without routes)")
	meshFlags(c, &o.Pipeline)
	c.RunE = func(c *cobra.Command, _ []string) error {
		switch {
		case o.Node == "":
			return usageError("agent needs --node: the name of this node")
		case o.Source == "" && !api.named():
			return usageError("agent needs --source, a folder of objects, or the cluster's API server by --kubeconfig or --in-cluster")
		case o.Source != "" && api.named():
			return usageError("agent reads a folder (--source) or a cluster (--kubeconfig, --in-cluster), not both")
		case len(o.Uplinks) == 0:
			return usageError("agent needs --uplink: the interface towards the other nodes")
		}
		if _, err := pipeline.Planes(o.Pipeline); err != nil {
			return usageError("%v", err)
		}
		if api.named() {
			cfg, err := api.config()
			if err != nil {
				return err
			}
			o.APIServer = cfg
		}
		o.Log = logger(c)
		return agent.Run(c.Context(), o)
	}
	c.AddCommand(uninstallCommand())
	return c
}

// nodeFlags are those that say where a node's things are.
func nodeFlags(c *cobra.Command, o *agent.Options) {
	c.Flags().StringVar(&o.RunDir, "run", defaultRun, "folder of sockets and state, shared by agent and proxy")
	c.Flags().StringVar(&o.Bpffs, "bpffs", defaultBpffs, "folder on a BPF file system for pinned maps and links")
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
	nodeFlags(c, &o)
	c.RunE = func(c *cobra.Command, _ []string) error {
		ctx, cancel := context.WithTimeout(c.Context(), uninstallLimit)
		defer cancel()
		err := datapath.Uninstall(ctx, datapath.Options{PinDir: o.Bpffs, StateDir: o.RunDir, Cgroup: o.Cgroup, Log: logger(c)})
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("%w; an agent still runs on this node: stop it first", err)
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.OutOrStdout(), "nothing of Fairlead is left in the kernel of this node")
		return err
	}
	return c
}

// target is the flags that name an agent: a run folder, or a node of a lab.
type target struct{ run, lab, node string }

func targetFlags(c *cobra.Command) *target {
	t := &target{}
	c.Flags().StringVar(&t.run, "run", defaultRun, "run folder of the node's agent")
	c.Flags().StringVar(&t.lab, "lab", "", "name of a lab, in place of --run: all of its nodes")
	c.Flags().StringVar(&t.node, "node", "", "with --lab: this node alone")
	return t
}

// runs lists the run folders that are meant.
func (t *target) runs() ([]string, error) {
	if t.lab == "" {
		if t.node != "" {
			return nil, usageError("--node %s needs --lab: the lab that has this node", t.node)
		}
		return []string{t.run}, nil
	}
	all, err := lab.RunDirs(t.lab)
	if err != nil {
		return nil, err
	}
	if t.node != "" {
		all = slices.DeleteFunc(all, func(d string) bool { return !strings.HasSuffix(d, "/"+t.node) })
	}
	if len(all) == 0 {
		return nil, usageError("lab %s has no node %s", t.lab, t.node)
	}
	return all, nil
}

func statusCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Show what is attached, what the kernel can do, Envoy's state, what was rejected",
		Args:  noArgs,
	}
	t, out := targetFlags(c), outputFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		runs, err := t.runs()
		if err != nil {
			return err
		}
		var all []*agent.Status
		for _, dir := range runs {
			s, err := agent.NewClient(dir + "/" + agent.Socket).Status(c.Context())
			if err != nil {
				return err
			}
			all = append(all, s)
		}
		return out.print(c.OutOrStdout(), all, func(w io.Writer) error {
			for i, s := range all {
				if i > 0 {
					fmt.Fprintln(w)
				}
				if err := printStatus(w, s); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return c
}

func printStatus(w io.Writer, s *agent.Status) error {
	state := "applied"
	if s.Applied != s.Revision {
		state = "not applied yet"
	}
	rows := [][]string{
		{"node", s.Node},
		{"agent", "up " + s.Uptime},
		{"source", fmt.Sprintf("%s: %d objects, %s; %d errors, %d warnings", s.Source, s.Objects, state, s.Errors, s.Warnings)},
	}
	rows = append(rows, apiServerRows(s.APIServer, time.Now())...)
	if s.Problem != "" {
		rows = append(rows, []string{"problem", s.Problem})
	}
	rows = append(append(rows, proxyRows(s, time.Now())...), []string{"cgroup", attachedLine(s.Kernel.Cgroup)})
	for _, i := range s.Kernel.Interfaces {
		rows = append(rows, []string{"interface", attachedLine(i)})
	}
	for _, n := range s.Kernel.Host {
		rows = append(rows, []string{"host", needLine(n)})
	}
	for _, n := range s.Kernel.Features {
		rows = append(rows, []string{"feature", needLine(n)})
	}
	for _, p := range s.Kernel.Pods {
		rows = append(rows, []string{"pod", fmt.Sprintf("%s on %s: %s", p.Name, orDash(p.Interface), s.Pods[p.Name])})
	}
	for _, m := range s.Kernel.Maps {
		rows = append(rows, []string{"map", fmt.Sprintf("%s: %d of %d, %d written", m.Name, m.Entries, m.Max, s.Writes[m.Name])})
	}
	rows = append(rows, []string{"flows", fmt.Sprintf("%d seen, lost: %d in the kernel, %d of the access log", s.Flows.Seen, s.Flows.LostKernel, s.Flows.LostAccessLog)})
	rows = append(rows, waitingRows(s)...)
	for _, b := range s.Standby {
		rows = append(rows, []string{"standby", standbyLine(b)})
	}
	if err := tabulate(w, []string{"what", "state"}, rows); err != nil {
		return err
	}
	return printRejected(w, s.Rejected, time.Now())
}

// apiServerRows tell how it stands with the API server, if the objects are from one.
func apiServerRows(h *kube.Health, now time.Time) [][]string {
	if h == nil {
		return nil
	}
	var rows [][]string
	for _, p := range h.Problems {
		rows = append(rows, []string{"API server", fmt.Sprintf("for %s: %s", now.Sub(p.Since).Round(time.Second), p)})
	}
	switch {
	case !h.Complete:
		return append(rows, []string{"API server", "not all objects were read yet: kernel and proxy go on as they were"})
	case len(rows) > 0:
		return append(rows, []string{"API server", "what was read before stays in use"})
	}
	return [][]string{{"API server", fmt.Sprintf("answers; %d kinds are watched", h.Kinds)}}
}

// standbyLine says what would differ if a plane that stands by served.
func standbyLine(b diff.Standby) string {
	text := fmt.Sprintf("%s: %s serves, %s would do the same", b.Frontend, b.Owner, b.Plane)
	if len(b.Changes) == 0 {
		return text
	}
	var what []string
	for _, c := range b.Changes {
		for _, x := range c.Changes {
			if !slices.Contains(what, x.What) {
				what = append(what, x.What)
			}
		}
	}
	namespace, _, _ := strings.Cut(b.Frontend, "/")
	return fmt.Sprintf("%s: %s serves, %s would differ in %s; fairlead swap %s --to %s --dry-run tells how", b.Frontend, b.Owner, b.Plane, strings.Join(what, ", "), namespace, b.Plane)
}

func attachedLine(a datapath.Attached) string {
	return fmt.Sprintf("%s: %s", a.Name, strings.Join(a.Programs, ", "))
}

func needLine(n datapath.Need) string {
	if n.OK {
		return n.Name + ": there"
	}
	return n.Name + ": missing: " + n.Detail
}

func observeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "observe",
		Short: "Print flows: who asked whom for what, what became of it, what decided",
		Args:  noArgs,
	}
	t, out := targetFlags(c), outputFlag(c)
	var q agent.FlowQuery
	c.Flags().BoolVarP(&q.Follow, "follow", "f", false, "go on as flows come")
	c.Flags().IntVar(&q.Last, "last", 20, "flows of the past to start with, of those that are asked for")
	c.Flags().StringVar(&q.Pod, "pod", "", "only flows from or to pods whose ns/name contains this")
	c.Flags().StringVar(&q.Verdict, "verdict", "", "only forwarded, redirected, dropped or denied")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if q.Last < 0 {
			return usageError("--last %d: want 0 or more", q.Last)
		}
		if verdicts := []string{"", "forwarded", "redirected", "dropped", "denied"}; !slices.Contains(verdicts, q.Verdict) {
			return usageError("--verdict %s: want forwarded, redirected, dropped or denied", q.Verdict)
		}
		runs, err := t.runs()
		if err != nil {
			return err
		}
		return observe(c.Context(), c.OutOrStdout(), runs, q, *out)
	}
	return c
}

// observe prints the flows of several nodes in one stream: those of the past in the
// order of their time, if it ends with them, and as they come if it follows.
func observe(ctx context.Context, w io.Writer, runs []string, q agent.FlowQuery, out format) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	flows := make(chan hubble.Flow)
	errs := make(chan error, len(runs))
	for _, dir := range runs {
		go func() {
			errs <- agent.NewClient(dir+"/"+agent.Socket).Flows(ctx, q, func(f hubble.Flow) error {
				select {
				case flows <- f:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
		}()
	}
	var failed []error
	var past []hubble.Flow
	for running := len(runs); running > 0; {
		select {
		case f := <-flows:
			if !q.Follow {
				past = append(past, f)
				continue
			}
			if err := printFlow(w, f, out); err != nil {
				return err
			}
		case err := <-errs:
			running--
			failed = append(failed, err)
		}
	}
	slices.SortStableFunc(past, func(a, b hubble.Flow) int { return a.Time.Compare(b.Time) })
	for _, f := range past[max(0, len(past)-q.Last):] {
		if err := printFlow(w, f, out); err != nil {
			return err
		}
	}
	return errors.Join(failed...)
}

func printFlow(w io.Writer, f hubble.Flow, out format) error {
	if out == "yaml" { // documents of one stream
		fmt.Fprintln(w, "---")
	}
	if out != "table" {
		return out.print(w, f, nil)
	}
	to := f.Destination.Name()
	if f.Service != "" {
		to = f.Service
	}
	if key := blame.FrontendKey(f.Cluster); key != "" && key != f.Service && f.HTTP != nil {
		to += " by " + key // led elsewhere than to where it was sent, by its host or its route
	}
	if f.Upstream.IsValid() {
		to += " at " + f.Upstream.String()
	}
	from := f.Source.Name()
	if f.Process != "" {
		from = f.Process
	}
	line := fmt.Sprintf("%s %-10s %-8s %s -> %s", f.Time.Format("15:04:05.000"), f.Verdict, f.Node, from, to)
	switch {
	case f.TCP != nil:
		line += fmt.Sprintf(" TCP %d B sent, %d B received %s", f.TCP.Sent, f.TCP.Received, f.TCP.Duration)
	case f.HTTP != nil:
		line += fmt.Sprintf(" %s %s%s %d %s", f.HTTP.Method, f.HTTP.Authority, f.HTTP.Path, f.HTTP.Status, f.HTTP.Duration)
	default:
		line += fmt.Sprintf(" %s %s", f.Protocol, f.Direction)
	}
	if f.Reason != "" {
		line += " (" + f.Reason + ")"
	}
	if len(f.DecidedBy) > 0 {
		line += " by " + strings.Join(f.DecidedBy, "; ")
	}
	_, err := fmt.Fprintln(w, line)
	return err
}
