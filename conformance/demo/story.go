// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/lab"
	"fairlead.io/fairlead/translators/objects"
)

// demo is one telling of the story.
type demo struct {
	dir, binary, envoy string
	out                io.Writer
	runs               []string // run folders of the nodes
	rows               []row
}

// row is a chapter of the table at the end.
type row struct {
	what             string
	requests, failed int64
	forbidden        int64
	split            string
	kernel, envoy    uint64 // writes and resources that the step caused
	measured         bool
}

func (d *demo) say(format string, a ...any) { fmt.Fprintf(d.out, format+"\n", a...) }

func (d *demo) file(name string) string { return filepath.Join(d.dir, name) }

func (d *demo) story(ctx context.Context) error {
	d.say("Fairlead demo: two nodes in network namespaces, eBPF and one stock Envoy on each.")
	d.say("It needs root and a kernel with TCX, cgroup hooks and BTF; it takes about a minute.\n")
	d.say("1. The application, from plain Kubernetes manifests (%s)", d.file("app.yaml"))
	s, err := lab.Up(ctx, lab.Options{Name: labName, Files: []string{d.file("app.yaml")}, Binary: d.binary, EnvoyPath: d.envoy, Out: indent{d.out}})
	if err != nil {
		return err
	}
	if d.runs, err = lab.RunDirs(labName); err != nil {
		return err
	}
	d.say("   %d nodes, %d pods, %d services\n", len(s.Nodes), len(s.Pods), len(s.Services))

	d.say("2. Istio steers it (%s): 75/25 between versions; only the frontend may GET /api/", d.file("istio.yaml"))
	if err := d.apply(ctx, d.file("istio.yaml")); err != nil {
		return err
	}
	traffic, err := d.startTraffic(ctx)
	if err != nil {
		return err
	}
	defer traffic.stop()
	if err := d.step(ctx, traffic, "under Istio", 8*time.Second, nil); err != nil {
		return err
	}
	steps := []struct {
		title, what string
		do          func(context.Context) error
	}{
		{"3. The same in SMI is applied beside it (" + d.file("smi.yaml") + "); it stands by", "SMI applied, standing by", func(ctx context.Context) error { return d.apply(ctx, d.file("smi.yaml")) }},
		{"4. One write, the namespace's annotation, hands the routes to SMI", "Istio -> SMI by annotation", func(ctx context.Context) error { return d.own(ctx, "smi") }},
		{"5. One write hands them back", "SMI -> Istio by annotation", func(ctx context.Context) error { return d.own(ctx, "istio") }},
		{"6. No annotation; Istio's objects are deleted, SMI's take over", "Istio -> SMI by deleting", func(ctx context.Context) error {
			if err := d.own(ctx, ""); err != nil {
				return err
			}
			return d.remove(ctx, d.file("istio.yaml"))
		}},
		{"7. Istio's objects come back, SMI's are deleted", "SMI -> Istio by apply, delete", func(ctx context.Context) error {
			if err := d.apply(ctx, d.file("istio.yaml")); err != nil {
				return err
			}
			return d.remove(ctx, d.file("smi.yaml"))
		}},
	}
	for _, st := range steps {
		d.say("%s", st.title)
		if err := d.step(ctx, traffic, st.what, 7*time.Second, st.do); err != nil {
			return err
		}
	}
	traffic.stop()
	return d.summary(traffic.total())
}

// step does something while traffic flows, lets it flow on for a while and books
// what came of it.
func (d *demo) step(ctx context.Context, t *traffic, what string, watch time.Duration, do func(context.Context) error) error {
	before, kernel, envoy, err := d.counts(ctx, t)
	if err != nil {
		return err
	}
	if do != nil {
		if err := do(ctx); err != nil {
			return err
		}
	}
	if err := t.watch(ctx, d.out, watch); err != nil {
		return err
	}
	after, kernelAfter, envoyAfter, err := d.counts(ctx, t)
	if err != nil {
		return err
	}
	d.rows = append(d.rows, row{what: what, requests: after.requests - before.requests, failed: after.failed - before.failed,
		forbidden: after.forbidden - before.forbidden, split: after.split(before), kernel: kernelAfter - kernel, envoy: envoyAfter - envoy, measured: do != nil})
	return nil
}

// counts adds up the account so far, the writes to kernel maps and the resources
// sent to Envoy, of both nodes.
func (d *demo) counts(ctx context.Context, t *traffic) (account, uint64, uint64, error) {
	var kernel, envoy uint64
	for _, dir := range d.runs {
		s, err := agent.NewClient(filepath.Join(dir, agent.Socket)).Status(ctx)
		if err != nil {
			return account{}, 0, 0, err
		}
		for _, n := range s.Writes {
			kernel += n
		}
		envoy += s.Feed.Counters.Resources + s.Feed.Counters.Removed
	}
	return t.total(), kernel, envoy, nil
}

// apply takes up a file and waits until both nodes have it.
func (d *demo) apply(ctx context.Context, file string) error {
	if _, err := lab.Apply(ctx, lab.Change{Name: labName, Files: []string{file}}); err != nil {
		return err
	}
	return d.settled(ctx)
}

func (d *demo) remove(ctx context.Context, file string) error {
	if _, err := lab.Delete(ctx, lab.Change{Name: labName, Files: []string{file}}); err != nil {
		return err
	}
	return d.settled(ctx)
}

// own sets the annotation that says which plane owns the namespace's routes.
func (d *demo) own(ctx context.Context, plane string) error {
	ns := "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  labels: {istio-injection: enabled}\n" +
		"  annotations:\n    fairlead.io/route-by: destination\n"
	if plane != "" {
		ns += "    fairlead.io/control-plane: " + plane + "\n"
	}
	if _, err := lab.Apply(ctx, lab.Change{Name: labName, Files: []string{"-"}, Stdin: strings.NewReader(ns)}); err != nil {
		return err
	}
	return d.settled(ctx)
}

// settled waits until every node has applied what the cluster says now.
func (d *demo) settled(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	source := filepath.Join(filepath.Dir(d.runs[0]), "source")
	want := agent.Revision(objects.Files([]string{source}, nil))
	for _, dir := range d.runs {
		for {
			s, err := agent.NewClient(filepath.Join(dir, agent.Socket)).Status(ctx)
			if err == nil && s.Applied == want {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s has not applied the change: %w", filepath.Base(dir), ctx.Err())
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

// summary prints the table and fails if something went wrong.
func (d *demo) summary(total account) error {
	d.say("\n%-32s %9s %7s %10s %12s %14s %14s", "step", "requests", "failed", "forbidden", "v1/v2", "kernel writes", "Envoy changes")
	var wrong []string
	for _, r := range d.rows {
		kernel, envoy := "-", "-"
		if r.measured {
			kernel, envoy = fmt.Sprint(r.kernel), fmt.Sprint(r.envoy)
			if r.kernel+r.envoy > 0 {
				wrong = append(wrong, r.what+" wrote to the kernel or to Envoy although both planes say the same")
			}
		}
		d.say("%-32s %9d %7d %10d %12s %14s %14s", r.what, r.requests, r.failed, r.forbidden, r.split, kernel, envoy)
	}
	d.say("\n%d requests, %d failed; %d forbidden requests tried, %d let through", total.requests, total.failed, total.tried, total.forbidden)
	if total.failed > 0 {
		wrong = append(wrong, fmt.Sprintf("%d requests failed: %v", total.failed, total.classes))
	}
	if total.forbidden > 0 {
		wrong = append(wrong, fmt.Sprintf("%d forbidden requests were let through", total.forbidden))
	}
	if total.requests == 0 || total.tried == 0 {
		wrong = append(wrong, "there was no traffic")
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%s", strings.Join(wrong, "; "))
	}
	d.say("Same split, same permissions, nothing lost, nobody let in, nothing written where both say the same.")
	return nil
}

// indent puts the lab's own words under the chapter's title.
type indent struct{ w io.Writer }

func (i indent) Write(b []byte) (int, error) {
	for _, line := range strings.Split(strings.TrimRight(string(b), "\n"), "\n") {
		if _, err := fmt.Fprintln(i.w, "   "+line); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// terminal reports whether a live line can be drawn over itself.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// ratio prints counts as whole percentages.
func ratio(counts map[string]int64) string {
	var sum int64
	for _, n := range counts {
		sum += n
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		out = append(out, fmt.Sprintf("%.1f", float64(counts[k])*100/float64(max(sum, 1))))
	}
	if len(out) == 0 {
		return "-"
	}
	return strings.Join(out, "/")
}
