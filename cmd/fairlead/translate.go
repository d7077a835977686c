// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/objects"
)

// report is what translate prints.
type report struct {
	Objects     []pipeline.Fate    `json:"objects"`
	Diagnostics []model.Diagnostic `json:"diagnostics,omitempty"` // of no object in particular
}

func translateCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "translate {-f PATH... | --kubeconfig FILE}",
		Short: "Say what becomes of every object of your manifests",
		Long: `Translate reads manifests and says what becomes of every object, and of every
field that does not mean here exactly what it says, with file and line. Where manifests
leave addresses and pods to a cluster, it is as if they had them.

Exit status: 0 clean, 1 if something was refused or would widen access, 2 wrong usage.`,
		Example: "  fairlead translate -f manifests/\n  kubectl get vs,dr,authorizationpolicy -A -o yaml | fairlead translate -f -",
		Args:    noArgs,
	}
	in, out := inputFlags(c), outputFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		p, read, err := in.read(c, "")
		if err != nil {
			return err
		}
		r := reportOf(p, read)
		if err := out.print(c.OutOrStdout(), r, r.table); err != nil {
			return err
		}
		return failOnErrors(r.all())
	}
	return c
}

// reportOf is what becomes of what was read. What a cluster adds to manifests, addresses and pods,
// is added where they have none, because much depends on it; the report is about what is
// written.
func reportOf(p *pipeline.Pipeline, read content) report {
	written := read.written(p)
	p.Replace(read.placed(p, ""))
	found := slices.Concat(written.Diagnostics, p.Diagnostics())
	slices.SortStableFunc(found, model.CompareDiagnostics)
	fates, rest := pipeline.FatesOf(slices.Clone(written.Objects), slices.Compact(found))
	return report{append([]pipeline.Fate{}, fates...), oncePerPlace(rest)}
}

// oncePerPlace leaves one of the diagnostics that pods of one template have in common, and
// none about the nodes that were added.
func oncePerPlace(in []model.Diagnostic) []model.Diagnostic {
	seen := map[model.Diagnostic]bool{}
	return slices.DeleteFunc(in, func(d model.Diagnostic) bool {
		added := d.Source.Kind == objects.NodeKind.Kind
		d.Source.Name, d.Message = "", ""
		again := seen[d]
		seen[d] = true
		return added || again
	})
}

// all are the diagnostics, of objects and others.
func (r report) all() []model.Diagnostic {
	out := slices.Clone(r.Diagnostics)
	for _, o := range r.Objects {
		out = append(out, o.Diagnostics...)
	}
	return out
}

func (r report) table(w io.Writer) error {
	var rows [][]string
	counts := map[model.Outcome]int{}
	diags := r.Diagnostics
	for _, o := range r.Objects {
		name := o.Name
		if o.Namespace != "" {
			name = o.Namespace + "/" + o.Name
		}
		rows = append(rows, []string{o.Kind, name, string(o.Outcome), placeText(o.File, o.Line)})
		counts[o.Outcome]++
		diags = append(diags, o.Diagnostics...)
	}
	if err := tabulate(w, []string{"kind", "object", "outcome", "where"}, rows); err != nil {
		return err
	}
	for i, d := range diags {
		if i == 0 {
			fmt.Fprintln(w)
		}
		printDiagnostic(w, d)
	}
	_, err := fmt.Fprintf(w, "\n%s: %d translated, %d approximated, %d in part, %d refused\n", counted(len(r.Objects), "object", "objects"),
		counts[model.Translated], counts[model.Approximated], counts[pipeline.InPart], counts[model.Refused])
	return err
}
