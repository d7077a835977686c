// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"fairlead.io/fairlead/agent"
	"fairlead.io/fairlead/agent/blame"
	"fairlead.io/fairlead/hubble"
)

func observeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "observe",
		Short: "Print flows: who asked whom for what, what became of it, what decided",
		Long: `Observe prints what the kernel decided of connections and what Envoy answered to requests:
who asked whom, what became of it and why, and which of your objects decided. Several
filters must all fit.`,
		Example: `  fairlead observe -f --namespace shop
  fairlead observe --verdict dropped --last 50
  fairlead observe -f --service shop/web --protocol http --status 5xx,429`,
		Args: noArgs,
	}
	t, out := targetFlags(c), outputFlag(c)
	var q agent.FlowQuery
	c.Flags().BoolVarP(&q.Follow, "follow", "f", false, "go on as flows come")
	c.Flags().IntVar(&q.Last, "last", 20, "flows of the past to start with, of those that are asked for")
	c.Flags().StringVarP(&q.Namespace, "namespace", "n", "", "only flows from or to pods of this namespace, or to its services")
	c.Flags().StringVar(&q.Pod, "pod", "", "only flows from or to pods whose ns/name contains this")
	c.Flags().StringVar(&q.Service, "service", "", "only flows to services whose ns/name:port contains this")
	c.Flags().StringVar(&q.Protocol, "protocol", "", "only tcp, udp, icmp, icmpv6 or http: requests")
	c.Flags().StringVar(&q.Verdict, "verdict", "", "only forwarded, redirected, dropped, denied or audited")
	c.Flags().Var(&q.Status, "status", "only requests that were answered so: 404, 5xx, 400-417, or several with commas")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if q.Last < 0 {
			return usageError("--last %d: want 0 or more", q.Last)
		}
		if _, err := hubble.FilterOf(q.Values()); err != nil {
			return usageError("--%v", err)
		}
		agents, err := t.agents(c.Context())
		if err != nil {
			return err
		}
		return observe(c.Context(), c.OutOrStdout(), agents, q, *out)
	}
	return c
}

// observe prints the flows of several nodes in one stream: those of the past in the
// order of their time, if it ends with them, and as they come if it follows.
func observe(ctx context.Context, w io.Writer, agents []asked, q agent.FlowQuery, out format) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	flows := make(chan hubble.Flow)
	errs := make(chan error, len(agents))
	for _, a := range agents {
		go func() {
			errs <- a.client.Flows(ctx, q, func(f hubble.Flow) error {
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
	for running := len(agents); running > 0; {
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
	if f.Verdict == hubble.Lost {
		_, err := fmt.Fprintf(w, "%s %-10s %-8s %s not shown: %s\n", f.Time.Format("15:04:05.000"), f.Verdict, f.Node, counted(int(f.Lost), "flow is", "flows are"), lostWhere(f.Reason))
		return err
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
	switch {
	case f.Process != "" && f.Source.Pod != "":
		from = f.Source.Pod + " " + f.Process
	case f.Process != "":
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
	switch {
	case f.Meaning != "":
		line += " (" + f.Reason + ": " + f.Meaning + ")"
	case f.Reason != "":
		line += " (" + f.Reason + ")"
	}
	if len(f.DecidedBy) > 0 {
		line += " by " + strings.Join(f.DecidedBy, "; ")
	}
	if f.Advice != "" {
		line += " -- " + f.Advice
	}
	_, err := fmt.Fprintln(w, line)
	return err
}

// lostWhere says how flows came to be missing.
func lostWhere(where string) string {
	switch where {
	case hubble.LostInKernel:
		return "the kernel's ring of events was full"
	case hubble.LostInAccessLog:
		return "Envoy wrote more of its access log than the agent could read"
	}
	return "more came than were read here; ask for less, by --namespace, --pod or --verdict"
}
