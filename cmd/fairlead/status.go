// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/agent/diff"
	"fairlead.io/fairlead/datapath"
	"fairlead.io/fairlead/kube"
)

func statusCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Show what is attached, what the kernel can do, Envoy's state, what was rejected",
		Args:  noArgs,
	}
	t, out := targetFlags(c), outputFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		agents, err := t.agents(c.Context())
		if err != nil {
			return err
		}
		answers, failed := statuses(c.Context(), agents)
		if len(answers) == 0 {
			return errors.Join(failed...)
		}
		operators, err := t.operators(c.Context())
		if err != nil {
			failed = append(failed, err)
		}
		all := make([]*nodeStatus, len(answers))
		for i, s := range answers {
			all[i] = &nodeStatus{Status: s, Operator: operators}
		}
		err = out.print(c.OutOrStdout(), all, func(w io.Writer) error {
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
		return errors.Join(append(failed, err)...)
	}
	return c
}

// statuses asks all at once. A node that does not answer hides no other, and holds up none.
func statuses(ctx context.Context, agents []asked) (all []*agent.Status, failed []error) {
	got, errs := make([]*agent.Status, len(agents)), make([]error, len(agents))
	var wg sync.WaitGroup
	for i, a := range agents {
		wg.Go(func() {
			if got[i], errs[i] = a.client.Status(ctx); errs[i] != nil {
				got[i] = nil
			}
		})
	}
	wg.Wait()
	all = slices.DeleteFunc(got, func(s *agent.Status) bool { return s == nil })
	return all, slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}

func printStatus(w io.Writer, s *nodeStatus) error {
	here := time.Now()
	now := here // by the clock that the times are of
	if !s.Time.IsZero() {
		now = s.Time
	}
	state := "applied"
	if s.Applied != s.Revision {
		state = "not applied yet"
	}
	rows := [][]string{
		{"node", s.Node},
		{"agent", fmt.Sprintf("version %s, up %s", orUnknown(s.Version), s.Uptime)},
		{"source", fmt.Sprintf("%s: %s, %s; %s, %s", s.Source, counted(s.Objects, "object", "objects"), state, counted(s.Errors, "error", "errors"), counted(s.Warnings, "warning", "warnings"))},
	}
	if line := versionsLine(s); line != "" {
		rows = append(rows, []string{"versions", line})
	}
	if line := clockLine(now, here); line != "" {
		rows = append(rows, []string{"clock", line})
	}
	if s.Operator != nil {
		rows = append(rows, []string{"operator", operatorLine(*s.Operator, here)})
	}
	rows = append(rows, apiServerRows(s.APIServer, now)...)
	rows = append(rows, peerRows(s.Status, now)...)
	if s.Problem != "" {
		rows = append(rows, []string{"problem", s.Problem})
	}
	rows = append(slices.Concat(rows, proxyRows(s.Status, now), ownRows(s.Own, now)), []string{"cgroup", attachedLine(s.Kernel.Cgroup)})
	for _, i := range s.Kernel.Interfaces {
		rows = append(rows, []string{"interface", attachedLine(i)})
	}
	for _, f := range s.Preflight {
		rows = append(rows, []string{"preflight", findingLine(f)})
	}
	for _, n := range s.Kernel.Host {
		rows = append(rows, []string{"host", needLine(n)})
	}
	for _, n := range s.Kernel.Features {
		rows = append(rows, []string{"feature", needLine(n)})
	}
	if len(s.Observed) > 0 {
		rows = append(rows, []string{"observed", strings.Join(s.Observed, ", ") + ": told, not enforced; fairlead explain --enforced says what would become of a request"})
	}
	for _, p := range s.Kernel.Pods {
		rows = append(rows, []string{"pod", fmt.Sprintf("%s on %s: %s", p.Name, orDash(p.Interface), s.Pods[p.Name])})
	}
	for _, m := range s.Kernel.Maps {
		rows = append(rows, []string{"map", fmt.Sprintf("%s: %d of %d, %d written", m.Name, m.Entries, m.Max, s.Writes[m.Name])})
	}
	if p := s.Plugin; p != nil {
		where := "not put into the node's network configuration"
		if p.Configuration != "" {
			where = "in " + p.Configuration
		}
		rows = append(rows, []string{"CNI plugin", fmt.Sprintf("%s: has told of %d pods, %d wait to start", where, p.Pods, p.Waiting)})
		if p.Problem != "" {
			rows = append(rows, []string{"CNI plugin", p.Problem})
		}
	}
	rows = append(rows, []string{"flows", fmt.Sprintf("%d seen, lost: %d in the kernel, %d of the access log, %d by who observes", s.Flows.Seen, s.Flows.LostKernel, s.Flows.LostAccessLog, s.Flows.LostObservers)})
	rows = append(rows, waitingRows(s.Status)...)
	for _, b := range s.Standby {
		rows = append(rows, []string{"standby", standbyLine(b)})
	}
	if err := tabulate(w, []string{"what", "state"}, rows); err != nil {
		return err
	}
	return printRejected(w, s.Rejected, now)
}

// clocksAgree is how far apart two clocks may be before that is told; an answer takes time,
// too.
const clocksAgree = time.Minute

// clockLine tells of a node's clock that is not as this machine's; "" if it is.
func clockLine(node, here time.Time) string {
	d := node.Sub(here).Round(time.Second)
	if d.Abs() < clocksAgree {
		return ""
	}
	where := "ahead of"
	if d < 0 {
		where = "behind"
	}
	return fmt.Sprintf("is %s %s this machine's: set the one that is wrong, by NTP; the node's flows and logs have its times", d.Abs(), where)
}

// peerRows tell what the other nodes are told of this one, and what counts of theirs.
func peerRows(s *agent.Status, now time.Time) [][]string {
	if s.Lease == nil {
		return nil
	}
	ago := func(t time.Time) string { return now.Sub(t).Round(time.Second).String() }
	var rows [][]string
	switch l := s.Lease; {
	case l.Silent != "":
		rows = append(rows, []string{"lease", fmt.Sprintf("%s is not renewed, for %s: %s", l.Name, ago(l.Since), l.Silent)})
	case l.Behind != "":
		rows = append(rows, []string{"lease", fmt.Sprintf("%s tells, for %s, that this node is behind: %s", l.Name, ago(l.Since), l.Behind)})
	default:
		rows = append(rows, []string{"lease", fmt.Sprintf("%s tells that this node is up to date; renewed %s ago, counts for %s", l.Name, ago(l.Renewed), l.Duration)})
	}
	for _, p := range s.Peers {
		text := fmt.Sprintf("%s: what it has checked counts, for %s", p.Node, ago(p.Since))
		if p.Behind != "" {
			text = fmt.Sprintf("%s: is behind for %s, its connections are judged here: %s", p.Node, ago(p.Since), p.Behind)
		}
		rows = append(rows, []string{"other node", fmt.Sprintf("%s (agent %s, version %s, heard of %s ago)", text, p.Instance, orUnknown(p.Version), ago(p.Heard))})
	}
	return rows
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

// findingLine tells of something that stands in the way on a node.
func findingLine(f datapath.Finding) string {
	line := fmt.Sprintf("%s: %s: %s", strings.ToUpper(string(f.Level)), f.Name, f.Detail)
	if f.Advice != "" {
		line += "; " + f.Advice
	}
	return line
}

func needLine(n datapath.Need) string {
	if n.OK {
		return n.Name + ": there"
	}
	return n.Name + ": missing: " + n.Detail
}
