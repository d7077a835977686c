// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/agent/explain"
	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/agent/trace"
	"fairlead.io/fairlead/translators"
)

func explainCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain {NAMESPACE/NAME[:PORT] | --from SOURCE --url URL}",
		Short: "Say what becomes of requests to a service, of a pod's, or of one request, and which lines decide",
		Long: `Explain says of a service's ports, or of a host's, who routes them and how: the plane
that decides, the routes in order, where they lead, what policy is judged on the way;
and of a pod what takes its connections and what governs it; each with file and line.

With --from and --url it follows one request: the route that it takes, who gets it, what
it looks like there, and the verdict with the rules that decided. It sends nothing.

With -f it reads manifests; without, it asks the node's agent, which also knows what
Envoy has rejected and what is in use.`,
		Example: `  fairlead explain shop/web:80 -f manifests/
  fairlead explain shop/web-0 --run /run/fairlead
  fairlead explain -f manifests/ --from shop/client --method POST --url http://web/cart -H x-user:alice
  fairlead explain --lab default --from 192.0.2.7 --url tcp://10.244.1.12:9000`,
	}
	in, out := inputFlags(c), outputFlag(c)
	var q requestFlags
	q.add(c)
	p := &target{server: &server{usual: true}, chosen: func() bool { return c.Flags().Changed("run") }}
	c.Flags().StringVar(&p.run, "run", defaultRun, "run folder of the node's agent, without -f")
	c.Flags().StringVar(&p.lab, "lab", "", "name of a lab, in place of --run")
	c.Flags().StringVar(&p.node, "node", "", "with -f: the node whose plan is meant (default: the pod's own, or the first); with --lab or --live: the node to ask")
	askAgents := c.Flags().Bool("live", false, "ask the agents of the cluster that --kubeconfig names, or kubectl's, who also know what Envoy has rejected and what is in use")
	c.Flags().BoolVar(&in.pipeline.Enforce, "enforced", false, "with -f or --kubeconfig: as if no namespace were observed (see --default-mode)")
	c.Args = func(_ *cobra.Command, args []string) error {
		switch asked := q.asked(c); {
		case asked && len(args) > 0:
			return usageError("explain one thing at a time: %s, or the request that --from and --url say", args[0])
		case !asked && len(args) != 1:
			return usageError("explain needs one thing to explain: NAMESPACE/NAME, NAMESPACE/NAME:PORT of a service, or a request by --from and --url")
		}
		return nil
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		live := *askAgents || !in.named()
		switch {
		case *askAgents && len(in.files) > 0:
			return usageError("explain reads files (-f), or asks agents (--live), not both")
		case !live && (c.Flags().Changed("run") || p.lab != ""):
			return usageError("explain reads files (-f) or a cluster (--kubeconfig), or asks an agent (--run, --lab, --live), not both")
		}
		if live && in.pipeline.Enforce {
			return usageError("--enforced computes the plan anew: name files (-f) or a cluster (--kubeconfig); agents have the plan of now")
		}
		if live {
			p.server.kubeconfig, p.server.context = in.server.kubeconfig, in.server.context
		}
		if q.asked(c) {
			return q.run(c, in, out, p, live)
		}
		target, err := explain.ParseTarget(args[0])
		if err != nil {
			return usageError("%v", err)
		}
		var e *agent.Explanation
		if live {
			e, err = explainByAgents(c.Context(), p, target)
		} else {
			e, err = in.explain(c, p.node, target)
		}
		if err != nil {
			return err
		}
		return out.print(c.OutOrStdout(), e, func(w io.Writer) error { return printExplanation(w, e) })
	}
	return c
}

// explainByAgents asks one node after the other. A pod's own node knows most of it; of a
// service all know the same.
func explainByAgents(ctx context.Context, p *target, what explain.Target) (*agent.Explanation, error) {
	agents, err := p.agents(ctx)
	if err != nil {
		return nil, err
	}
	var first *agent.Explanation
	var errs []error
	for _, a := range agents {
		e, err := a.client.Explain(ctx, what)
		switch {
		case err != nil:
			errs = append(errs, err)
		case e.Pod == nil || e.Pod.Local:
			return e, nil
		case first == nil:
			first = e
		}
	}
	if first == nil {
		return nil, errs[0]
	}
	return first, nil
}

// explain answers from files. A pod is explained by its own node's plan, a service by
// that of the first.
func (in *input) explain(c *cobra.Command, node string, target explain.Target) (*agent.Explanation, error) {
	p, node, err := in.planned(c, node, func(p *pipeline.Pipeline) string { return nodeOf(p, target) })
	if err != nil {
		return nil, err
	}
	a, err := explain.Explain(p, target)
	var none *explain.NotFoundError
	if errors.As(err, &none) {
		for _, d := range p.Diagnostics() { // perhaps it was refused
			if d.IsError() && d.Source.Namespace == target.Namespace && d.Source.Name == target.Name {
				printDiagnostic(c.ErrOrStderr(), d)
			}
		}
	}
	if err != nil {
		return nil, err
	}
	return &agent.Explanation{Node: node, Answer: a}, nil
}

// planned is the plan of a node, or without one of the node that choose names; and its name.
func (in *input) planned(c *cobra.Command, node string, choose func(*pipeline.Pipeline) string) (*pipeline.Pipeline, string, error) {
	p, read, err := in.read(c, node)
	if err != nil {
		return nil, "", err
	}
	batch := read.placed(p, node)
	p.Replace(batch)
	if node == "" {
		if node = choose(p); node != "" {
			o := in.pipeline
			o.Node = node
			if p, err = pipeline.New(o); err != nil {
				return nil, "", usageError("%v", err)
			}
			p.Replace(batch)
		}
	} else if p.Get(translators.Nodes, node) == nil {
		return nil, "", read.noNode(p, node)
	}
	return p, node, nil
}

// nodeOf is the node whose plan says most of a target, "" if there is none.
func nodeOf(p *pipeline.Pipeline, target explain.Target) string {
	if w, err := trace.Pod(p, target.String()); err == nil && w.Node != "" {
		return w.Node
	}
	if names := nodeNames(p); len(names) > 0 {
		return names[0]
	}
	return ""
}
