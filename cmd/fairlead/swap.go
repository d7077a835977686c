// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/agent/diff"
	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/agent/swap"
	"fairlead.io/fairlead/hubble"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/merge"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// swapFlags say what is swapped, and how carefully.
type swapFlags struct {
	to            string
	back          bool
	folder        string
	runs          []string
	lab           string
	server        *server
	dryRun, widen bool
	before, watch time.Duration
	limits        swap.Limits
	percent       float64
}

// swapped is what swap prints.
type swapped struct {
	Namespace string       `json:"namespace"`
	From      string       `json:"from"` // the owner that was chosen; "none" if nobody was
	To        string       `json:"to"`
	ByDefault []string     `json:"byDefault,omitempty"` // who serves on the side that is "none"
	Change    *diff.Report `json:"change"`
	Written   bool         `json:"written"`
	Before    *swap.Counts `json:"before,omitempty"` // what was counted before the write
	After     *swap.Counts `json:"after,omitempty"`
	TakenBack bool         `json:"takenBack,omitempty"`
}

func swapCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "swap NAMESPACE {--to PLANE | --back} [--kubeconfig FILE | -f FOLDER | --lab NAME]",
		Short: "Give a namespace to another control plane, and watch what that does",
		Long: `Swap shows what would change if another control plane's routes served a namespace,
flips its owner by one write (the annotation fairlead.io/control-plane), and watches the
namespace's requests for a time. If many more fail than before, it takes the swap back.
It refuses to swap if somebody could do more than before, unless told to.

Permissions of all control planes hold before and after: what a plane denies stays
denied. --to none leaves the choice to the namespace's mark and the documented order.

What was shown is what is done: if a file has changed meanwhile, or in a cluster something
that matters for it, nothing is written. An
interrupt before the write leaves all as it was, one after it leaves the swap as it is.

Exit status: 0 swapped, or nothing to do; 1 refused, taken back or interrupted, with
--dry-run if it would be refused; 2 wrong usage.`,
		Example: `  fairlead swap shop --to smi --dry-run
  fairlead swap shop --to smi --context prod
  fairlead swap shop --to smi -f manifests/ --dry-run
  fairlead swap shop --to gateway --lab default
  fairlead swap shop --back --lab default`,
	}
	var f swapFlags
	var mesh pipeline.Options
	meshFlags(c, &mesh)
	c.Flags().StringVar(&f.to, "to", "", "control plane that is to own the namespace, or none")
	c.Flags().BoolVar(&f.back, "back", false, "undo the last swap")
	c.Flags().StringVarP(&f.folder, "file", "f", "", "folder, or file, of the objects that the agents read")
	c.Flags().StringSliceVar(&f.runs, "run", nil, "run folders of agents whose requests are watched")
	c.Flags().StringVar(&f.lab, "lab", "", "name of a lab, in place of -f and --run")
	f.server = &server{usual: true}
	f.server.fileFlags(c, "kubeconfig file of a cluster, in place of -f and --run (default: as kubectl has it)")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "only show what would change")
	c.Flags().BoolVar(&f.widen, "allow-widening", false, "swap though somebody can do more than before")
	c.Flags().DurationVar(&f.before, "baseline", 5*time.Second, "how long to count before the swap")
	c.Flags().DurationVar(&f.watch, "watch", 30*time.Second, "how long to watch after the swap; 0: not at all")
	c.Flags().Float64Var(&f.percent, "max-failures", 1, "take the swap back if so many percent more of the requests fail than before")
	out := outputFlag(c)
	c.Args = func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) != 1 || strings.Contains(args[0], "/"):
			return usageError("swap needs one namespace")
		case f.back == (f.to != ""):
			return usageError("swap needs --to, the control plane that is to own the namespace, or --back")
		case f.places() > 1:
			return usageError("swap needs one place: a cluster by --kubeconfig, or -f, the folder that the agents read, or --lab")
		case f.folder == "" && len(f.runs) > 0:
			return usageError("--run needs -f, the folder that these agents read; those of a cluster or a lab are found")
		case f.folder == "-":
			return usageError("swap writes to the folder, or file, that the agents read: standard input is none")
		case f.to != "" && f.to != swap.None && !slices.Contains(pipeline.PlaneNames(), f.to):
			return usageError("there is no control plane %q; there are %s", f.to, strings.Join(pipeline.PlaneNames(), ", "))
		}
		return nil
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		f.server.here = f.places() == 0
		f.limits = swap.Limits{Rate: f.percent / 100, Least: 5}
		s := &swapping{swapFlags: f, c: c, out: *out, mesh: &mesh, result: swapped{Namespace: args[0]}}
		return s.run()
	}
	return c
}

// places is how many places are named.
func (f *swapFlags) places() int {
	n := 0
	for _, yes := range []bool{f.folder != "", f.lab != "", f.server.named()} {
		if yes {
			n++
		}
	}
	return n
}

// place is where a namespace's owner is written, and what the agents read with it.
type place interface {
	// read gives what the agents read.
	read(c *cobra.Command) (content, error)
	// owner is whose the namespace is, and was before the last swap, "" if there was none.
	owner(ctx context.Context) (is, was string, err error)
	// changed names what is no longer as it was read, of what counts for what was shown;
	// again shows it anew.
	changed(c *cobra.Command, again func(content) (*diff.Report, error)) ([]string, error)
	// write makes a plane the owner, as the agents will read it, if another one still is.
	write(ctx context.Context, from, plane string) error
	// agents are those whose requests can be watched.
	agents(ctx context.Context) ([]asked, error)
	// flags name the place.
	flags() string
}

// swapping is one run of the command.
type swapping struct {
	swapFlags
	c      *cobra.Command
	out    format
	mesh   *pipeline.Options // see server.settle
	place  place
	given  content // as it was when the difference was shown
	asked  []asked // whose requests are watched
	result swapped
}

// say tells a person how it goes.
func (s *swapping) say(format string, a ...any) {
	fmt.Fprintf(s.c.ErrOrStderr(), format+"\n", a...)
}

func (s *swapping) run() error {
	if err := s.find(); err != nil {
		return err
	}
	r := &s.result
	if err := s.target(); err != nil {
		return err
	}
	var err error
	if r.Change, err = s.change(s.given); err != nil {
		return err
	}
	if s.out == "table" { // before anything is done
		if err := printReport(s.c.OutOrStdout(), r.Change); err != nil {
			return err
		}
	}
	switch {
	case r.From == r.To:
		return s.end(nil)
	case r.Change.Widens() && !s.widen:
		return s.end(errors.New("the swap would let somebody do more than before, as shown above: mend it, or say --allow-widening"))
	case s.dryRun:
		s.say("nothing is written: --dry-run")
		return s.end(nil)
	}
	return s.flip()
}

// find finds the place, and those whose requests are watched.
func (s *swapping) find() (err error) {
	switch {
	case s.server.named():
		if s.server.here {
			cfg, err := s.server.config()
			if err != nil {
				return usageError("swap needs one place: a cluster, or -f, the folder that the agents read, or --lab: %v", err)
			}
			s.say("in the cluster that kubectl speaks to: %s", cfg.Host)
		}
		s.place, err = newClusterPlace(s.server, s.result.Namespace)
	case s.lab != "":
		s.place, err = newLabPlace(s.c.Context(), s.lab, s.result.Namespace)
	default:
		s.place = &folderPlace{folder: s.folder, runs: s.runs, namespace: s.result.Namespace}
	}
	if err != nil {
		return err
	}
	s.asked, err = s.place.agents(s.c.Context())
	return err
}

// target reads what there is, whose the namespace is and whose it is to be.
func (s *swapping) target() (err error) {
	if s.given, err = s.place.read(s.c); err != nil {
		return err
	}
	var was string
	s.result.From, was, err = s.place.owner(s.c.Context())
	s.result.To = s.to
	if s.back {
		if s.result.To = was; was == "" && err == nil {
			return fmt.Errorf("namespace %s was not swapped: there is nothing to go back to", s.result.Namespace)
		}
	}
	return err
}

// change compares the namespace as it is with what it would be.
func (s *swapping) change(of content) (*diff.Report, error) {
	in := &input{files: []string{"-"}, given: of, pipeline: *s.mesh}
	given := func(plane string) (*pipeline.Pipeline, error) {
		return in.whole(s.c, func(b *objects.Batch) (*objects.Batch, error) {
			if plane == swap.None {
				plane = ""
			}
			return pipeline.Given(b, plane, s.result.Namespace), nil
		})
	}
	before, err := given(s.result.From)
	if err != nil {
		return nil, err
	}
	after, err := given(s.result.To)
	if err != nil {
		return nil, err
	}
	switch r := &s.result; swap.None {
	case r.From:
		r.ByDefault = serving(before, r.Namespace)
	case r.To:
		r.ByDefault = serving(after, r.Namespace)
	}
	s.unserved(before, after)
	return diff.Compare(before, after), nil
}

// serving are the planes that route frontends of a namespace or, where none does, the one
// whose mark it carries.
func serving(p *pipeline.Pipeline, namespace string) []string {
	found := map[string]bool{}
	for _, row := range p.Rows(merge.Owners) {
		if strings.HasPrefix(row.Key, namespace+"/") {
			found[row.Value.(*merge.Owner).Plane] = true
		}
	}
	if n, _ := p.Get(translators.Namespaces, namespace).(*model.Namespace); len(found) == 0 && n != nil && n.Mesh != "" {
		found[n.Mesh] = true
	}
	return slices.DeleteFunc(pipeline.PlaneNames(), func(plane string) bool { return !found[plane] })
}

// named is an owner, as it is told: who serves where nobody is chosen.
func (r *swapped) named(owner string) string {
	if owner == swap.None && len(r.ByDefault) > 0 {
		return strings.Join(r.ByDefault, " and ") + " (by default)"
	}
	return owner
}

// unserved tells of frontends that had routes and have none any more, because the new
// owner has none for them.
func (s *swapping) unserved(before, after *pipeline.Pipeline) {
	for _, row := range before.Rows(merge.Frontends) {
		f := row.Value.(*model.Frontend)
		o, _ := before.Get(merge.Owners, row.Key).(*merge.Owner)
		if f.Namespace == s.result.Namespace && o != nil && s.result.To != swap.None && after.Get(merge.Frontends, row.Key) == nil {
			s.say("%s: %s has no routes for %s, which %s routes now", s.result.Namespace, s.result.To, row.Key, o.Plane)
		}
	}
}

// end prints what came of it.
func (s *swapping) end(failed error) error {
	if err := s.out.print(s.c.OutOrStdout(), &s.result, func(w io.Writer) error { return s.print(w) }); err != nil {
		return err
	}
	return failed
}

// flip writes and watches.
func (s *swapping) flip() error {
	ctx, cancel := context.WithCancel(s.c.Context())
	defer cancel()
	r := &s.result
	var w *swap.Watcher
	if len(s.asked) > 0 && s.watch > 0 {
		w = swap.Watch(ctx, r.Namespace, s.flows()...)
		w.Begin()
		s.say("counting the requests of namespace %s for %s", r.Namespace, s.before)
		swap.Tick(ctx, s.before, s.before, func() bool { return true })
		before := w.Next()
		r.Before = &before
	}
	if err := s.ready(ctx, w); err != nil {
		return s.end(err)
	}
	if err := s.place.write(ctx, r.From, r.To); err != nil {
		return s.end(err)
	}
	r.Written = true
	s.say("namespace %s: %s -> %s", r.Namespace, r.named(r.From), r.named(r.To))
	if w == nil {
		if len(s.asked) == 0 && s.watch > 0 {
			s.say("nobody watches the requests: name the run folders of the agents with --run to have that done")
		}
		return s.end(nil)
	}
	return s.observe(ctx, w)
}

// ready says why nothing is to be written after all, nil if it is.
func (s *swapping) ready(ctx context.Context, w *swap.Watcher) error {
	if ctx.Err() != nil {
		return errors.New("interrupted: nothing was written")
	}
	if w != nil {
		if err := errors.Join(w.Errors()...); err != nil {
			return fmt.Errorf("the swap could not be watched, and nothing was written: %w; mend that, or swap unwatched with --watch 0", err)
		}
	}
	changed, err := s.place.changed(s.c, s.change)
	if err != nil {
		return fmt.Errorf("nothing was written: %w", err)
	}
	if len(changed) > 0 {
		return fmt.Errorf("nothing was written: %s changed since the difference was shown; look at it again by running the command again", strings.Join(changed, ", "))
	}
	return nil
}

// interval is how often it is told how it goes.
const interval = 5 * time.Second

func (s *swapping) observe(ctx context.Context, w *swap.Watcher) error {
	r := &s.result
	r.After = &swap.Counts{}
	begin := time.Now()
	swap.Tick(ctx, s.watch, min(interval, s.watch), func() bool {
		n := w.Next()
		r.After.All, r.After.Failed = r.After.All+n.All, r.After.Failed+n.Failed
		s.say("%4s after the swap: %d requests, %d failed", time.Since(begin).Round(time.Second), r.After.All, r.After.Failed)
		return !s.limits.Worse(*r.Before, *r.After)
	})
	for _, err := range w.Errors() {
		s.say("not everything was watched: %v", err)
	}
	switch {
	case s.limits.Worse(*r.Before, *r.After):
	case ctx.Err() != nil:
		return s.end(fmt.Errorf("interrupted %s after the swap, which stays as it is; %s undoes it", time.Since(begin).Round(time.Second), s.undo()))
	default:
		return s.end(nil)
	}
	// The context may have ended: what is worse is taken back all the same.
	if err := s.place.write(context.WithoutCancel(ctx), r.To, r.From); err != nil {
		return s.end(fmt.Errorf("%.3g %% of the requests fail, %.3g %% before; taking the swap back failed: %w", 100*r.After.Rate(), 100*r.Before.Rate(), err))
	}
	r.TakenBack = true
	return s.end(fmt.Errorf("%.3g %% of the requests failed, %.3g %% before: the swap was taken back", 100*r.After.Rate(), 100*r.Before.Rate()))
}

// flows follow the agents.
func (s *swapping) flows() []swap.Flows {
	var out []swap.Flows
	for _, a := range s.asked {
		out = append(out, func(ctx context.Context, begun func(), f func(hubble.Flow)) error {
			return a.client.Flows(ctx, agent.FlowQuery{Follow: true, Begun: begun}, func(x hubble.Flow) error {
				f(x)
				return nil
			})
		})
	}
	return out
}

// undo is the command that goes back.
func (s *swapping) undo() string {
	return strings.TrimSpace(fmt.Sprintf("fairlead swap %s --back %s", s.result.Namespace, s.place.flags()))
}

// print says what was done; the report has been printed before.
func (s *swapping) print(w io.Writer) error {
	r := &s.result
	var err error
	switch {
	case r.From == r.To && r.To == swap.None:
		_, err = fmt.Fprintf(w, "nobody has chosen who owns namespace %s: %s serves\n", r.Namespace, r.named(r.To))
	case r.From == r.To:
		_, err = fmt.Fprintf(w, "namespace %s is %s's already\n", r.Namespace, r.To)
	case r.TakenBack:
		_, err = fmt.Fprintf(w, "namespace %s: back to %s\n", r.Namespace, r.named(r.From))
	case r.Written && s.back:
		_, err = fmt.Fprintf(w, "namespace %s: back from %s to %s\n", r.Namespace, r.named(r.From), r.named(r.To))
	case r.Written:
		_, err = fmt.Fprintf(w, "namespace %s: from %s to %s; %s undoes it\n", r.Namespace, r.named(r.From), r.named(r.To), s.undo())
	}
	return err
}
