// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/kube"
	"fairlead.io/fairlead/kube/installed"
	"fairlead.io/fairlead/kube/remote"
)

// defaultRun is where a node's agent and proxy meet.
const defaultRun = "/run/fairlead"

// agentsCommands ask agents: of this node, of a lab, or of a cluster.
func agentsCommands() []*cobra.Command {
	return []*cobra.Command{statusCommand(), observeCommand(), swapCommand()}
}

// target is the flags that name agents: by the run folder of one, those of a lab, or those
// of a cluster.
type target struct {
	run, lab, node string
	server         *server
	chosen         func() bool // whether the run folder was named
}

func targetFlags(c *cobra.Command) *target {
	t := &target{server: &server{usual: true}}
	c.Flags().StringVar(&t.run, "run", defaultRun, "run folder of this node's agent")
	c.Flags().StringVar(&t.lab, "lab", "", "name of a lab, in place of --run: all of its nodes")
	c.Flags().StringVar(&t.node, "node", "", "with --lab or a cluster: this node alone")
	t.server.fileFlags(c, "kubeconfig file of a cluster, in place of --run: all of its nodes (default, where this is no node with an agent: as kubectl has it)")
	t.chosen = func() bool { return c.Flags().Changed("run") }
	return t
}

// asked is an agent that can be asked.
type asked struct {
	node   string // "" if it is not known before the agent says it
	client *agent.Client
}

// ofCluster reports whether the agents of a cluster are meant. Where nothing is named it is
// this node's agent, if there is one, and else the cluster that kubectl would speak to.
func (t *target) ofCluster() (bool, error) {
	named := 0
	for _, yes := range []bool{t.lab != "", t.server.named(), t.chosen()} {
		if yes {
			named++
		}
	}
	switch {
	case named > 1:
		return false, usageError("name one place to ask: --run, --lab, or a cluster by --kubeconfig or --context")
	case named == 1:
		return t.server.named(), nil
	}
	if _, err := os.Stat(filepath.Join(t.run, agent.Socket)); err == nil {
		return false, nil
	}
	if !kube.HasKubeconfig() && t.node == "" {
		return false, fmt.Errorf("there is no agent on this machine (%s), and no kubeconfig names a cluster: name one by --kubeconfig, or by the variable KUBECONFIG; --run or --lab for agents of this machine", t.run)
	}
	return kube.HasKubeconfig(), nil
}

// agents finds those that are meant.
func (t *target) agents(ctx context.Context) ([]asked, error) {
	cluster, err := t.ofCluster()
	switch {
	case err != nil:
		return nil, err
	case cluster:
		return t.clusterAgents(ctx)
	case t.lab == "" && t.node != "":
		return nil, usageError("--node %s needs --lab, the lab that has this node, or a cluster by --kubeconfig", t.node)
	case t.lab == "":
		return askedAt([]string{t.run}), nil
	}
	all, err := labRuns(t.lab)
	if err != nil {
		return nil, err
	}
	if t.node != "" {
		all = slices.DeleteFunc(all, func(d string) bool { return filepath.Base(d) != t.node })
	}
	if len(all) == 0 {
		return nil, usageError("lab %s has no node %s", t.lab, t.node)
	}
	return askedAt(all), nil
}

// askedAt are the agents of run folders.
func askedAt(runs []string) []asked {
	out := make([]asked, len(runs))
	for i, dir := range runs {
		out[i] = asked{client: agent.NewClient(dir + "/" + agent.Socket)}
	}
	return out
}

// clusterAgents are those of a cluster's nodes; at least one.
func (t *target) clusterAgents(ctx context.Context) ([]asked, error) {
	all, err := t.installedAgents(ctx)
	if err == nil && len(all) == 0 {
		if cfg, err := t.server.config(); err == nil {
			if there, err := installed.Find(ctx, cfg); err == nil && len(there) > 0 {
				return nil, fmt.Errorf("no pod was made for the agents of namespace %[1]s: fairlead preflight --namespace %[1]s says what is in the way", there[0].Namespace)
			}
		}
		return nil, fmt.Errorf("the cluster has no agents, pods with the labels %s; fairlead install puts them there", remote.Agents)
	}
	return all, err
}

// installedAgents are those of a cluster's nodes, if there are any.
func (t *target) installedAgents(ctx context.Context) ([]asked, error) {
	cfg, err := t.server.config()
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeoutCause(ctx, readLimit, errSlow)
	defer cancel()
	all, err := remote.List(limited, cfg)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(all))
	for i, a := range all {
		names[i] = a.Node
	}
	if t.node != "" && len(all) > 0 {
		if all = slices.DeleteFunc(all, func(a remote.Agent) bool { return a.Node != t.node }); len(all) == 0 {
			return nil, usageError("there is no agent on node %s; there are some on %s", t.node, strings.Join(names, ", "))
		}
	}
	out := make([]asked, len(all))
	for i, a := range all {
		out[i] = asked{a.Node, agent.NewClientOver(func(ctx context.Context) (net.Conn, error) {
			if a.Problem != "" {
				return nil, fmt.Errorf("node %s: pod %s/%s: %s", a.Node, a.Namespace, a.Pod, a.Problem)
			}
			// The connection outlives the request that it is made for.
			conn, err := remote.Dial(context.WithoutCancel(ctx), cfg, a, "fairlead", "agent", "relay")
			if err != nil {
				return nil, fmt.Errorf("node %s: %w", a.Node, err)
			}
			return conn, nil
		})}
	}
	return out, nil
}

// relayCommand connects standard input and output with the agent's socket: what the API
// server runs beside an agent for those who ask it from afar.
func relayCommand() *cobra.Command {
	c := &cobra.Command{
		Use:    "relay",
		Short:  "Connect standard input and output with the agent's socket, for commands that ask a cluster's agents",
		Args:   noArgs,
		Hidden: true,
	}
	run := c.Flags().String("run", defaultRun, "run folder of this node's agent")
	c.RunE = func(c *cobra.Command, _ []string) error {
		conn, err := (&net.Dialer{}).DialContext(c.Context(), "unix", filepath.Join(*run, agent.Socket))
		if err != nil {
			var op *net.OpError
			if errors.As(err, &op) {
				err = op.Err
			}
			return fmt.Errorf("the agent does not answer: %w", err)
		}
		defer conn.Close()
		return splice(conn, c.InOrStdin(), c.OutOrStdout())
	}
	return c
}

// splice copies both ways until what answers has ended.
func splice(conn net.Conn, in io.Reader, out io.Writer) error {
	go func() {
		_, _ = io.Copy(conn, in) // a broken connection is told by the other way
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	}()
	_, err := io.Copy(out, conn)
	return err
}
