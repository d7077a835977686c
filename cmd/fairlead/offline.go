// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/datapath"
	"fairlead.io/fairlead/lab/cluster"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/kubernetes"
	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/xds"
)

// offlineCommands need no privileges, no cluster and no Linux. Explain can also ask an
// agent.
func offlineCommands() []*cobra.Command {
	return []*cobra.Command{translateCommand(), planCommand(), renderCommand(), explainCommand(), diffCommand()}
}

// input is the flags that say what to read.
type input struct {
	files    []string
	server   *server
	given    content // what was read before; zero: nothing
	pipeline pipeline.Options
}

func inputFlags(c *cobra.Command) *input {
	in := &input{pipeline: pipeline.Options{Agents: true}}
	c.Flags().StringArrayVarP(&in.files, "file", "f", nil, "file or folder of manifests, - for standard input; repeat for more")
	in.server = serverFlags(c)
	in.server.usual = true
	meshFlags(c, &in.pipeline)
	return in
}

// named reports whether there is something to read.
func (in *input) named() bool { return len(in.files) > 0 || in.server.named() }

// meshFlags are those that say of the mesh what no object does.
func meshFlags(c *cobra.Command, o *pipeline.Options) {
	c.Flags().StringVar(&o.IstioVersion, "istio-version", "", "Istio release whose defaults are meant (default: the newest that is known)")
	c.Flags().StringVar(&o.IstioOutboundTrafficPolicy, "istio-outbound-traffic-policy", "",
		"what becomes of requests that name a host that nobody has: ALLOW_ANY (pass) or REGISTRY_ONLY (502); default: as MeshConfig says")
	text := func(name, usage string, set func(string) error) { c.Flags().Var(&textFlag{set: set}, name, usage) }
	text("istio-protocol-detection-timeout",
		"how long the first bytes to a port of undeclared protocol are waited for (0: for ever); default: as MeshConfig says", func(s string) error {
			d, err := time.ParseDuration(s)
			o.IstioDetectionTimeout = &d
			return err
		})
	c.Flags().BoolVar(&o.GatewayRequireGrants, "gateway-require-grants", false,
		"a route of the Gateway API needs a ReferenceGrant for backends in another namespace, which GAMMA does not ask for")
	c.Flags().StringVar(&o.LinkerdControlPlaneNamespace, "linkerd-control-plane-namespace", "linkerd", "namespace that is part of the names of Linkerd's identities")
	c.Flags().StringVar(&o.LinkerdDefaultInboundPolicy, "linkerd-default-inbound-policy", "all-unauthenticated",
		"what Linkerd lets in where no Server and no annotation says so: all-unauthenticated, all-authenticated, cluster-unauthenticated, cluster-authenticated, deny or audit")
	text("linkerd-cluster-networks", "ranges of addresses, with commas between them, that Linkerd takes for the cluster's (default: private ones)", func(s string) error {
		for part := range strings.SplitSeq(s, ",") {
			p, err := netip.ParsePrefix(strings.TrimSpace(part))
			if err != nil {
				return err
			}
			o.LinkerdClusterNetworks = append(o.LinkerdClusterNetworks, p)
		}
		return nil
	})
	text("default-mode", "of namespaces without the annotation "+kubernetes.ModeKey+": enforce, or observe (what policies and routes come to is told, and not done) (default: enforce)", func(s string) error {
		if s != kubernetes.ModeEnforce && s != kubernetes.ModeObserve {
			return fmt.Errorf("want %s or %s", kubernetes.ModeEnforce, kubernetes.ModeObserve)
		}
		o.Observe = s == kubernetes.ModeObserve
		return nil
	})
	c.Flags().StringVar(&o.TrustDomain, "trust-domain", "cluster.local", "trust domain of the workloads' identities")
	c.Flags().StringVar(&o.Domain, "cluster-domain", "cluster.local", "domain of the services' DNS names")
}

// read gives the content and an empty pipeline for a node. A path that is named and
// not there is an error at once: it is no manifest that something could become of.
func (in *input) read(c *cobra.Command, node string) (*pipeline.Pipeline, content, error) {
	switch {
	case !in.named():
		return nil, content{}, usageError("nothing to read: name files or folders with -f, - for standard input, or a cluster with --kubeconfig or --context")
	case len(in.files) > 0 && in.server.named():
		return nil, content{}, usageError("read files (-f) or a cluster (--kubeconfig, --in-cluster), not both")
	}
	p, err := in.empty(node)
	if err != nil {
		return nil, content{}, err
	}
	if in.given.inputs != nil || in.given.served != nil {
		return p, in.given, nil
	}
	if in.server.named() {
		b, err := in.server.read(c, p.Registry())
		if err == nil {
			err = in.server.settle(c)
		}
		if err != nil {
			return nil, content{}, err
		}
		p, err = in.empty(node)
		return p, content{served: b}, err
	}
	for _, f := range in.files {
		if _, err := os.Stat(f); err != nil && f != "-" {
			return nil, content{}, fmt.Errorf("read manifests: %w", err)
		}
	}
	return p, content{inputs: objects.Files(in.files, c.InOrStdin())}, nil
}

// empty is a pipeline without content.
func (in *input) empty(node string) (*pipeline.Pipeline, error) {
	o := in.pipeline
	o.Node = node
	p, err := pipeline.New(o)
	if err != nil {
		return nil, usageError("%v", err)
	}
	return p, nil
}

// failOnErrors gives exit status 1 if a diagnostic is an error.
func failOnErrors(ds []model.Diagnostic) error {
	for _, d := range ds {
		if d.IsError() {
			return &exitError{code: exitFailed}
		}
	}
	return nil
}

// printDiagnostic writes one diagnostic as "file:line: level: message", its object
// and advice below.
func printDiagnostic(w io.Writer, d model.Diagnostic) {
	level := "note"
	if d.IsError() {
		level = "error"
	} else if d.Effect != model.Cosmetic {
		level = "warning"
	}
	if d.Source.File != "" {
		level = placeText(d.Source.File, d.Source.Line) + ": " + level
	}
	fmt.Fprintf(w, "%s: %s\n", level, d.Message)
	what := strings.TrimSpace(d.Source.Object() + " " + d.Source.Field)
	fmt.Fprintf(w, "    %s\n", strings.TrimSpace(fmt.Sprintf("%s [%s, %s, %s]", what, d.Code, d.Outcome, d.Effect)))
	if d.Advice != "" {
		fmt.Fprintf(w, "    %s\n", d.Advice)
	}
}

// tableRows is a table of the plan as it is printed.
type tableRows struct {
	Table incr.Table `json:"table"`
	Rows  []any      `json:"rows"`
}

// nodePlan is what plan prints.
type nodePlan struct {
	Node   string      `json:"node"`
	Tables []tableRows `json:"tables"`
}

func planCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "plan {-f PATH... | --kubeconfig FILE} --node NODE",
		Short: "Print one node's share of the configuration",
		Long: `Plan prints the rows that a node's Envoy and kernel get. Manifests without pods are
placed on the nodes that they name, or on two, the way that "fairlead lab" does.`,
		Args: noArgs,
	}
	in, out := inputFlags(c), outputFlag(c)
	node := nodeFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		p, err := in.loadPlaced(c, *node)
		if err != nil {
			return err
		}
		np := nodePlan{Node: *node}
		for _, t := range plan.Tables() {
			tr := tableRows{Table: t, Rows: []any{}}
			for _, r := range p.Rows(t) {
				tr.Rows = append(tr.Rows, r.Value)
			}
			np.Tables = append(np.Tables, tr)
		}
		if err := out.print(c.OutOrStdout(), np, func(w io.Writer) error { return planTable(w, p) }); err != nil {
			return err
		}
		return reportErrors(c, p)
	}
	return c
}

func nodeFlag(c *cobra.Command) *string {
	return c.Flags().String("node", "", "name of the node")
}

func planTable(w io.Writer, p *pipeline.Pipeline) error {
	var rows [][]string
	for _, t := range plan.Tables() {
		for _, r := range p.Rows(t) {
			rows = append(rows, []string{string(t), r.Key, string(model.Bytes(r.Value))})
		}
	}
	return tabulate(w, []string{"table", "key", "content"}, rows)
}

// placeText is where something is written; "-" if it is not in a file.
func placeText(file string, line int) string {
	if file == "" || line == 0 {
		return orDash(file)
	}
	return fmt.Sprintf("%s:%d", file, line)
}

// reportErrors prints the diagnostics to standard error, data having gone to
// standard output, and fails if one is an error.
func reportErrors(c *cobra.Command, p *pipeline.Pipeline) error {
	ds := p.Diagnostics()
	for _, d := range ds {
		if d.IsError() || d.Effect != model.Cosmetic {
			printDiagnostic(c.ErrOrStderr(), d)
		}
	}
	return failOnErrors(ds)
}

// loadPlaced is load with workloads placed on nodes where the manifests leave that
// to a scheduler.
func (in *input) loadPlaced(c *cobra.Command, node string) (*pipeline.Pipeline, error) {
	if node == "" {
		return nil, usageError("%s needs --node: the name of a node in the manifests, or, where they have none, node-1 or node-2", c.CommandPath())
	}
	p, read, err := in.read(c, node)
	if err != nil {
		return nil, err
	}
	p.Replace(read.placed(p, node))
	if p.Get(translators.Nodes, node) == nil {
		return nil, read.noNode(p, node)
	}
	return p, nil
}

// placed reads manifests with their workloads on nodes: their own, or two and the one that
// is named, if any.
func placed(p *pipeline.Pipeline, inputs []objects.Input, node string) *objects.Batch {
	nodes := []string{"node-1", "node-2"}
	if node != "" && !slices.Contains(nodes, node) {
		nodes = append(nodes, node)
	}
	return cluster.Decode(p.Registry(), inputs, nodes)
}

func nodeNames(p *pipeline.Pipeline) []string {
	var out []string
	for _, r := range p.Rows(translators.Nodes) {
		out = append(out, r.Key)
	}
	return out
}

// nodeRender is what render prints.
type nodeRender struct {
	Node   string            `json:"node"`
	Envoy  []envoyResource   `json:"envoy"`
	Kernel []datapath.Entry  `json:"kernel"`
	Ports  map[string]uint16 `json:"ports"` // of the listeners, as a fresh agent allocates them
}

type envoyResource struct {
	Type     string          `json:"type"`
	Name     string          `json:"name"`
	Version  string          `json:"version"`
	Resource json.RawMessage `json:"resource"`
}

func renderCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "render {-f PATH... | --kubeconfig FILE} --node NODE",
		Short: "Print the exact Envoy resources and map entries of one node",
		Long: `Render prints what a node's Envoy and kernel get, byte for byte: -o json has the
resources in full. Manifests without pods are placed as by "fairlead plan".`,
		Args: noArgs,
	}
	in, out := inputFlags(c), outputFlag(c)
	node := nodeFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		p, err := in.loadPlaced(c, *node)
		if err != nil {
			return err
		}
		r, failed := renderNode(p, *node)
		if err := out.print(c.OutOrStdout(), r, r.table); err != nil {
			return err
		}
		if err := reportErrors(c, p); err != nil && failed == nil {
			return err
		}
		return failed
	}
	return c
}

// renderNode gives everything that can be rendered, with an error about the rest.
func renderNode(p *pipeline.Pipeline, node string) (*nodeRender, error) {
	r := &nodeRender{Node: node, Envoy: []envoyResource{}}
	resources, ports, err := agent.Render(p)
	errs := []error{err}
	r.Ports = ports
	for _, res := range resources {
		text, err := res.JSON()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		r.Envoy = append(r.Envoy, envoyResource{xds.Short(res.Type), res.Name, res.Version, text})
	}
	var rows []incr.Row
	for _, t := range plan.KernelTables() {
		rows = append(rows, p.Rows(t)...)
	}
	r.Kernel, err = datapath.Entries(rows, func(l string) uint16 { return ports[l] })
	return r, errors.Join(append(errs, err)...)
}

func (r *nodeRender) table(w io.Writer) error {
	var rows [][]string
	for _, e := range r.Envoy {
		rows = append(rows, []string{e.Type, e.Name, e.Version})
	}
	for _, e := range r.Kernel {
		rows = append(rows, []string{e.Map, e.Key, e.Value})
	}
	return tabulate(w, []string{"type or map", "name or key", "version or value"}, rows)
}
