// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"fairlead.io/fairlead/agent/check"
	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/kube/crds"
	"fairlead.io/fairlead/model"
)

// clusterCommands read a cluster, or write to it, and need nothing of this machine.
func clusterCommands() []*cobra.Command {
	return []*cobra.Command{checkCommand(), preflightCommand(), installCommand(), uninstallAllCommand()}
}

func checkCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "check [--kubeconfig FILE] [-n NAMESPACE...]",
		Short: "Say what a live cluster's objects come to, before or after an installation; writes nothing",
		Long: `Check reads a cluster, as kubectl would, and says what its objects come to with Fairlead:
namespaces and who owns them, which pods are captured or not and why, who is guarded and
by what, what is refused or not the same, which control plane stands by and what would
differ if it served, and for whom something changes against a cluster where nobody reads
the control planes' objects. It needs no installation and writes nothing. Where there is
one, its settings count (those of the DaemonSet fairlead-agent), unless flags say otherwise.

Exit status: 0 clean, 1 if something was refused or would widen access, or the cluster
cannot be read, 2 wrong usage.`,
		Example: "  fairlead check\n  fairlead check --kubeconfig ~/.kube/config -n shop --all\n  fairlead check -o json > check.json",
		Args:    noArgs,
	}
	in := &input{server: &server{usual: true}, pipeline: pipeline.Options{Agents: true}}
	in.server.fileFlags(c, "kubeconfig file of the cluster (default: as kubectl has it)")
	c.Flags().BoolVar(&in.server.inCluster, "in-cluster", false, "the cluster that this runs in, as the pod's service account")
	c.Flags().StringArrayVarP(&in.files, "file", "f", nil, "file or folder of manifests in place of a cluster; repeat for more")
	meshFlags(c, &in.pipeline)
	namespaces := c.Flags().StringSliceP("namespace", "n", nil, "namespaces to tell of (default: all)")
	all := c.Flags().Bool("all", false, "tell of every pod, service and object, not of those alone that need a look")
	out := outputFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if len(in.files) == 0 && !in.server.named() {
			in.server.here = true
		}
		r, err := in.check(c)
		if err != nil {
			return err
		}
		for _, ns := range *namespaces {
			if !slices.ContainsFunc(r.Namespaces, func(n check.Namespace) bool { return n.Name == ns }) {
				return usageError("there is no namespace %q", ns)
			}
		}
		if len(*namespaces) > 0 {
			r.Only(*namespaces...)
		}
		full := struct {
			*check.Report
			// Definitions are those of SMI that others have made, and what users miss by them.
			Definitions []crds.Result `json:"definitions,omitempty"`
		}{Report: r}
		if in.server.named() {
			full.Definitions = in.adopted(c)
		}
		page := func(w io.Writer) error {
			if err := checkPage(w, r, *all); err != nil {
				return err
			}
			return definitionsPage(w, full.Definitions)
		}
		if err := out.print(c.OutOrStdout(), full, page); err != nil {
			return err
		}
		return failOnErrors(r.Diagnostics())
	}
	return c
}

// check reads once, and plans what was read with its control planes and without them.
func (in *input) check(c *cobra.Command) (*check.Report, error) {
	_, read, err := in.read(c, "")
	if err != nil {
		return nil, err
	}
	once := &input{files: in.files, server: in.server, given: read, pipeline: in.pipeline}
	with, err := once.whole(c, asItIs)
	if err != nil {
		return nil, err
	}
	without, err := once.whole(c, pipeline.Bare)
	if err != nil {
		return nil, err
	}
	r := check.Check(with, without)
	r.Settings = in.server.settings
	return r, nil
}

// adopted are the definitions that others have made and that lose something.
func (in *input) adopted(c *cobra.Command) []crds.Result {
	cfg, err := in.server.config()
	var all []crds.Result
	if err == nil {
		all, err = lookAtDefinitions(c.Context(), cfg)
	}
	if err != nil { // not what it is asked for
		fmt.Fprintf(c.ErrOrStderr(), "fairlead: %v; whether they keep what users write is not told\n", err)
	}
	return slices.DeleteFunc(all, func(r crds.Result) bool { return r.Problem() == "" })
}

func definitionsPage(w io.Writer, all []crds.Result) error {
	for i, r := range all {
		if i == 0 {
			fmt.Fprint(w, "\nDefinitions that others have made, which do not keep all that is written:\n")
		}
		if _, err := fmt.Fprintf(w, "  %s: %s\n    %s\n", r.Name, r.Problem(), r.Advice()); err != nil {
			return err
		}
	}
	return nil
}

// checkPage writes what a person wants to know.
func checkPage(w io.Writer, r *check.Report, all bool) error {
	var rows [][]string
	for _, n := range r.Namespaces {
		if !all && n.Pods == 0 && n.Routed == 0 && n.Errors+n.Warnings == 0 {
			continue
		}
		rows = append(rows, []string{n.Name, orDash(cmp.Or(n.Owner, n.Mesh)), strconv.Itoa(n.Pods), strconv.Itoa(n.Captured), strconv.Itoa(n.Guarded),
			strconv.Itoa(n.Routed), orDash(strings.Join(n.DefaultDeny, ",")), strconv.Itoa(n.Errors), strconv.Itoa(n.Warnings)})
	}
	if err := tabulate(w, []string{"namespace", "owner", "pods", "captured", "guarded", "routed", "default deny", "errors", "warnings"}, rows); err != nil {
		return err
	}
	p := &page{w: w}
	p.captures(r.Pods, all)
	if all {
		p.guarded(r.Pods)
		p.owners(r.Frontends)
	}
	if len(r.Standby) > 0 {
		p.line(0, "")
		p.line(0, "Standing by:")
		for _, b := range r.Standby {
			p.line(1, "%s", standbyLine(b))
		}
	}
	p.line(0, "")
	p.line(0, "Against a cluster where nobody reads the control planes' objects:")
	if all || len(r.Effects.Routes)+len(r.Effects.Permissions)+len(r.Effects.Entities) <= 12 {
		p.line(0, "")
		if err := cmp.Or(p.err, printReport(w, r.Effects)); err != nil {
			return err
		}
	} else {
		p.line(1, "%s of routes, %s; --all shows them", counted(len(r.Effects.Routes), "difference", "differences"),
			counted(len(r.Effects.Permissions), "permission differs", "permissions differ"))
	}
	p.fates(r, all)
	return p.err
}

// captures tells which pods are captured, by what says so.
func (p *page) captures(pods []check.Pod, all bool) {
	type why struct {
		namespace, text string
		captured        bool
	}
	by := map[why][]string{}
	for _, pod := range pods {
		namespace, name, _ := strings.Cut(pod.Name, "/")
		text := pod.Capture.Why
		if pod.Capture.By != nil {
			text += " (" + pod.Capture.By.Field + ")"
		}
		w := why{namespace, text, pod.Capture.Captured}
		by[w] = append(by[w], name)
	}
	keys := slices.SortedFunc(maps.Keys(by), func(a, b why) int {
		return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.text, b.text))
	})
	var rows [][]string
	for _, k := range keys {
		names := by[k]
		slices.Sort(names)
		text := someOf(names)
		if all {
			text = strings.Join(names, ", ")
		}
		rows = append(rows, []string{k.namespace, map[bool]string{true: "captured", false: "not captured"}[k.captured], strconv.Itoa(len(names)), k.text, text})
	}
	p.table("Pods whose requests are routed here, and others:", []string{"namespace", "", "pods", "why", "which"}, rows)
}

// guarded tells what governs each pod.
func (p *page) guarded(pods []check.Pod) {
	var rows [][]string
	for _, pod := range pods {
		var by []string
		for _, s := range pod.GovernedBy {
			by = append(by, s.Object())
		}
		slices.Sort(by)
		rows = append(rows, []string{pod.Name, orDash(pod.Node), cmp.Or(strings.Join(slices.Compact(by), ", "), "nobody: everything may come in")})
	}
	p.table("Who governs what comes in:", []string{"pod", "node", "governed by"}, rows)
}

// owners tells who routes what.
func (p *page) owners(frontends []check.Frontend) {
	var rows [][]string
	for _, f := range frontends {
		var by []string
		for _, s := range f.Sources {
			by = append(by, s.Object())
		}
		slices.Sort(by)
		rows = append(rows, []string{f.Name, f.Plane, string(f.Reason), orDash(strings.Join(f.Standby, ", ")), orDash(strings.Join(slices.Compact(by), ", "))})
	}
	p.table("Who routes requests to what:", []string{"service", "by", "because of", "standing by", "objects"}, rows)
}

// fates tells what becomes of objects, if they are not simply translated.
func (p *page) fates(r *check.Report, all bool) {
	counts := map[model.Outcome]int{}
	var rows [][]string
	for _, o := range r.Objects {
		counts[o.Outcome]++
		if all || o.Outcome != model.Translated {
			name := o.Name
			if o.Namespace != "" {
				name = o.Namespace + "/" + o.Name
			}
			rows = append(rows, []string{o.Kind, name, string(o.Outcome)})
		}
	}
	p.table("Objects that are not here just what they say:", []string{"kind", "object", "outcome"}, rows)
	p.line(0, "")
	for _, d := range r.Diagnostics() {
		if p.err == nil && (all || d.IsError() || d.Effect != model.Cosmetic) {
			printDiagnostic(p.w, d)
		}
	}
	p.line(0, "%s: %d translated, %d approximated, %d in part, %d refused", counted(len(r.Objects), "object", "objects"),
		counts[model.Translated], counts[model.Approximated], counts[pipeline.InPart], counts[model.Refused])
}

// table writes a table below a line, unless it is empty.
func (p *page) table(title string, header []string, rows [][]string) {
	if p.err != nil || len(rows) == 0 {
		return
	}
	p.line(0, "")
	p.line(0, "%s", title)
	p.err = cmp.Or(p.err, tabulate(p.w, header, rows))
}
