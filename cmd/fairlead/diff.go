// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"fairlead.io/fairlead/agent/diff"
	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/kube/annotations"
	"fairlead.io/fairlead/lab/cluster"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/merge"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/kubernetes"
	"fairlead.io/fairlead/translators/objects"
)

// diffFlags say which two configurations are compared.
type diffFlags struct {
	from, to   string
	namespaces []string
	prune      bool
}

func diffCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "diff OLD NEW [-f PATH...] | diff [--kubeconfig FILE] NEW | diff [-f PATH...] --from PLANE --to PLANE",
		Short: "Say what another configuration would change, and for whom",
		Long: `Diff compares two files or folders, or what two control planes say in the same ones:
routes, weights, timeouts and retries of every frontend, and who may do more or less at
every workload, and which services and workloads are not the same, with file and line on
both sides. It compares what things mean, by requests that the matches and rules of both
sides tell apart, not how they are written; what it cannot prove to be the same it tells.

Of one file or folder the old side is a cluster (that of --kubeconfig or --context, else
the one that kubectl would speak to), and the new one the same cluster with the
files' objects applied to it, as kubectl apply does: labels and annotations of a namespace
that were applied before and that its file lacks are taken away, those of others stay. With
--prune it is also without those of the control planes' objects that the files lack. Pods are the cluster's on both sides.

What both sides have in common may be named by -f: services and workloads, if the two are
of the mesh's objects alone. With --from and --to each side is what there would be if its
control plane were the only one. What a single namespace's change of owner would do: fairlead swap --dry-run.

Exit status: 0 nothing would change, 1 something would, 2 wrong usage, or manifests that
cannot be read.`,
		Example: "  fairlead diff manifests/ manifests-new/\n  fairlead diff mesh/ mesh-new/ -f services/\n  fairlead diff manifests/ --prune\n  fairlead diff --kubeconfig prod.yaml manifests/\n  fairlead diff -f manifests/ --from istio --to gateway -o yaml",
	}
	in, out := inputFlags(c), outputFlag(c)
	var f diffFlags
	c.Flags().StringVar(&f.from, "from", "", "control plane of the old side")
	c.Flags().StringVar(&f.to, "to", "", "control plane of the new side")
	c.Flags().BoolVar(&f.prune, "prune", false, "with a cluster: objects of control planes that the files do not have are taken away")
	c.Flags().StringSliceVarP(&f.namespaces, "namespace", "n", nil, "namespaces to compare (default: all)")
	c.RunE = func(c *cobra.Command, args []string) error {
		before, after, err := f.sides(c, in, args)
		if err != nil {
			return usageError("%v", err) // 1 is that something would change
		}
		for _, ns := range f.namespaces {
			if !hasNamespace(before, ns) && !hasNamespace(after, ns) {
				return usageError("there is no namespace %q on either side", ns)
			}
		}
		if !anythingIn(before) && !anythingIn(after) {
			return usageError("there is nothing to compare: neither side has a service, a host or a workload, without which routes and policies are about nothing; name folders that have them, or add them by -f")
		}
		r := diff.Compare(before, after, f.namespaces...)
		if err := out.print(c.OutOrStdout(), r, func(w io.Writer) error { return printReport(w, r) }); err != nil {
			return err
		}
		for _, side := range []*pipeline.Pipeline{before, after} {
			if n := errorsIn(side); n > 0 {
				fmt.Fprintf(c.ErrOrStderr(), "fairlead: %s in %s: what is refused there has no part in the comparison; fairlead translate tells of it\n", counted(n, "error", "errors"), map[bool]string{true: "the old side", false: "the new side"}[side == before])
			}
		}
		unplaced(c.ErrOrStderr(), before, after)
		for _, side := range []*pipeline.Pipeline{before, after} {
			if d := unread(side); d != nil {
				return usageError("%s:%d: %s: what is written there is not compared: repair it", d.Source.File, d.Source.Line, d.Message)
			}
		}
		if !r.Empty() {
			return &exitError{code: exitFailed}
		}
		return nil
	}
	return c
}

// unread says of what part of the manifests nobody knows what it holds, nil if of none.
// What is wrong with a service or a workload keeps it from being compared.
func unread(p *pipeline.Pipeline) *model.Diagnostic {
	for _, d := range p.Diagnostics() {
		if objects.Unread(d) || d.Source.Plane == "" && d.Outcome == model.Refused && d.Effect == model.Narrows && isOfKubernetes(d.Source.Kind) {
			return &d
		}
	}
	return nil
}

// isOfKubernetes reports whether a kind is one of Kubernetes' own that is read.
func isOfKubernetes(kind string) bool {
	return slices.ContainsFunc(kubernetes.New(kubernetes.Options{}).Types(), func(t objects.Type) bool { return t.Kind.Kind == kind })
}

// unplaced tells what neither side has because there is no place for it.
func unplaced(w io.Writer, sides ...*pipeline.Pipeline) {
	said := map[model.Diagnostic]bool{}
	for _, p := range sides {
		for _, d := range p.Diagnostics() {
			if d.Code == cluster.NotPlaced && !said[d] {
				said[d] = true
				printDiagnostic(w, d)
			}
		}
	}
}

// hasNamespace reports whether there is anything of a namespace that diff compares.
func hasNamespace(p *pipeline.Pipeline, name string) bool {
	if p.Get(translators.Namespaces, name) != nil {
		return true
	}
	for _, t := range []incr.Table{translators.Services, translators.Workloads, merge.Frontends} {
		for _, row := range p.Rows(t) {
			if strings.HasPrefix(row.Key, name+"/") {
				return true
			}
		}
	}
	return false
}

// anythingIn reports whether there is anything that diff compares.
func anythingIn(p *pipeline.Pipeline) bool {
	return len(p.Rows(translators.Services))+len(p.Rows(translators.Workloads))+len(p.Rows(merge.Frontends)) > 0
}

func errorsIn(p *pipeline.Pipeline) int {
	n := 0
	for _, d := range p.Diagnostics() {
		if d.IsError() {
			n++
		}
	}
	return n
}

// sides loads both.
func (f *diffFlags) sides(c *cobra.Command, in *input, args []string) (before, after *pipeline.Pipeline, err error) {
	planes := f.from != "" || f.to != ""
	if len(in.files) == 0 && !in.server.named() && (planes || len(args) == 1) {
		in.server.here = true
	}
	switch {
	case planes && (f.from == "" || f.to == "" || len(args) > 0):
		return nil, nil, usageError("to compare control planes give --from and --to, -f or --kubeconfig if it is not kubectl's cluster, and nothing else")
	case planes && f.prune:
		return nil, nil, usageError("--prune is of a cluster compared with files, not of control planes compared")
	case planes:
	case in.server.named() && len(args) == 1 && len(in.files) == 0:
		if _, err := in.server.config(); err != nil && in.server.here {
			return nil, nil, usageError("diff compares one file or folder with a cluster, and two with each other: %v", err)
		}
		return f.clusterSides(c, in, args[0])
	case f.prune:
		return nil, nil, usageError("--prune needs one file or folder, to compare with a cluster")
	case len(args) != 2 || in.server.named():
		return nil, nil, usageError("diff needs two files or folders, or one to compare with a cluster, or --from and --to")
	case stdins(append(slices.Clone(args), in.files...)) > 1:
		return nil, nil, usageError("standard input can be read once: name files in place of one of the \"-\"")
	case slices.Contains(in.files, "-"):
		return nil, nil, usageError("standard input can be one of the sides, not what both have: name a file by -f")
	}
	if f.from != "" {
		// Both sides are of the same text, which may come once, or of one moment of a cluster.
		if _, in.given, err = in.read(c, ""); err != nil {
			return nil, nil, err
		}
	}
	load := func(files []string, edit func(*objects.Batch) (*objects.Batch, error)) (*pipeline.Pipeline, error) {
		one := &input{files: files, server: in.server, given: in.given, pipeline: in.pipeline}
		return one.whole(c, edit)
	}
	if f.from == "" {
		if before, err = load(append(slices.Clone(in.files), args[0]), asItIs); err != nil {
			return nil, nil, err
		}
		after, err = load(append(slices.Clone(in.files), args[1]), asItIs)
		return before, after, err
	}
	alone := func(plane string) func(*objects.Batch) (*objects.Batch, error) {
		return func(b *objects.Batch) (*objects.Batch, error) { return pipeline.Alone(b, plane) }
	}
	if before, err = load(in.files, alone(f.from)); err != nil {
		return nil, nil, err
	}
	after, err = load(in.files, alone(f.to))
	return before, after, err
}

// asItIs leaves a batch as it is.
func asItIs(b *objects.Batch) (*objects.Batch, error) { return b, nil }

// clusterSides are a cluster, and the same with files applied to it.
func (f *diffFlags) clusterSides(c *cobra.Command, in *input, files string) (before, after *pipeline.Pipeline, err error) {
	p, served, err := in.read(c, "")
	if err != nil {
		return nil, nil, err
	}
	if _, err := os.Stat(files); err != nil && files != "-" {
		return nil, nil, fmt.Errorf("read manifests: %w", err)
	}
	theirs := objects.Decode(p.Registry(), objects.Files([]string{files}, c.InOrStdin())...)
	one := &input{server: in.server, given: served, pipeline: in.pipeline}
	if before, err = one.whole(c, asItIs); err != nil {
		return nil, nil, err
	}
	applied, err := appliedBefore(c.Context(), in.server, theirs)
	if err != nil {
		return nil, nil, err
	}
	after, err = one.whole(c, func(b *objects.Batch) (*objects.Batch, error) { return pipeline.Applied(b, theirs, applied, f.prune) })
	return before, after, err
}

// appliedBefore says what was applied before to the namespaces that files have.
func appliedBefore(ctx context.Context, api *server, files *objects.Batch) (map[string]pipeline.Marks, error) {
	cfg, err := api.config()
	if err != nil {
		return nil, err
	}
	client, err := annotations.NewClient(cfg)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	out := map[string]pipeline.Marks{}
	for _, o := range files.Objects {
		if o.Kind != objects.NamespaceKind {
			continue
		}
		m, err := client.Applied(ctx, o.Name)
		if err != nil {
			return nil, err
		}
		out[o.Name] = pipeline.Marks(m)
	}
	return out, nil
}

func stdins(paths []string) int {
	return len(slices.DeleteFunc(slices.Clone(paths), func(p string) bool { return p != "-" }))
}

// whole is the plan of the first node of manifests, as edit has them.
func (in *input) whole(c *cobra.Command, edit func(*objects.Batch) (*objects.Batch, error)) (*pipeline.Pipeline, error) {
	p, read, err := in.read(c, "")
	if err != nil {
		return nil, err
	}
	batch := read.placed(p, "")
	p.Replace(batch)
	names := nodeNames(p)
	if len(names) == 0 {
		return nil, usageError("there is no node: nothing is planned for one")
	}
	o := in.pipeline
	o.Node = names[0]
	if p, err = pipeline.New(o); err != nil {
		return nil, usageError("%v", err)
	}
	if batch, err = edit(batch); err != nil {
		return nil, usageError("%v", err)
	}
	p.Replace(batch)
	return p, nil
}

// printReport writes what would change, or that nothing would.
func printReport(w io.Writer, r *diff.Report) error {
	p := &page{w: w}
	switch {
	case r.Empty() && r.Asked == 0:
		p.line(0, "Nothing would change: both sides give the same plan.")
	case r.Empty():
		p.line(0, "Nothing would change: %d requests that tell the matches and rules of both sides apart get the same.", r.Asked)
	}
	for i := range r.Routes {
		p.routeChange(&r.Routes[i])
	}
	for i := range r.Permissions {
		p.permissionChange(&r.Permissions[i])
	}
	for i := range r.Entities {
		p.entityChange(&r.Entities[i])
	}
	if !r.Empty() {
		more, less := 0, 0
		for _, c := range r.Permissions {
			if c.Effect == model.Widens {
				more++
			} else {
				less++
			}
		}
		of := ""
		if n := len(r.Entities); n > 0 {
			of = ", " + counted(n, "service or workload differs", "services and workloads differ")
		}
		p.line(0, "%s of routes, %s more, %d less%s", counted(len(r.Routes), "difference", "differences"), counted(more, "permission", "permissions"), less, of)
	}
	return p.err
}

func (p *page) routeChange(c *diff.RouteChange) {
	about := c.Frontend
	if c.Example != "" {
		about += "  " + c.Example
	}
	if c.For != "" {
		about += "  (" + c.For + ")"
	}
	p.line(0, "%s", about)
	for _, x := range c.Changes {
		p.line(1, "%s: %s -> %s", x.What, x.Old, x.New)
	}
	p.bothSources(c.OldSources, c.NewSources)
	p.line(0, "")
}

func (p *page) entityChange(c *diff.EntityChange) {
	p.line(0, "%s %s", c.Kind, c.Name)
	for _, x := range c.Changes {
		p.line(1, "%s: %s -> %s", x.What, x.Old, x.New)
	}
	p.bothSources(c.OldSources, c.NewSources)
	p.line(0, "")
}

func (p *page) permissionChange(c *diff.PermissionChange) {
	port := "other ports"
	if c.Port != 0 {
		port = fmt.Sprintf("port %d", c.Port)
	}
	verb := "WIDENED"
	if c.Effect == model.Narrows {
		verb = "NARROWED"
	}
	p.line(0, "%s %s  %s", verb, someOf(c.Workloads), port)
	if c.Example != "" {
		p.line(1, "for: %s", c.Example)
	}
	p.list(1, "from", c.From)
	p.line(1, "%s -> %s", c.Old, c.New)
	p.bothSources(c.OldSources, c.NewSources)
	p.line(0, "")
}

// someOf names some of many workloads: what holds for one holds for all.
func someOf(names []string) string {
	const most = 4
	if n := len(names) - most; n > 1 {
		return fmt.Sprintf("%s and %d others", strings.Join(names[:most], ", "), n)
	}
	return strings.Join(names, ", ")
}

// list writes what there is several of in a line, or in one for each if they are long.
func (p *page) list(indent int, what string, all []string) {
	const wide = 100
	if text := strings.Join(all, ", "); len(all) < 2 || len(text) <= wide {
		p.line(indent, "%s: %s", what, text)
		return
	}
	p.line(indent, "%s:", what)
	for _, x := range all {
		p.line(indent+1, "%s", x)
	}
}

// bothSources lists what made the old side so, and the new one.
func (p *page) bothSources(before, after []model.Source) {
	for _, s := range before {
		p.line(1, "- %s", s)
	}
	for _, s := range after {
		p.line(1, "+ %s", s)
	}
}
