// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"fairlead.io/fairlead/agent/pipeline"
	"fairlead.io/fairlead/agent/trace"
	"fairlead.io/fairlead/model"
)

// requestFlags say a request that is asked about.
type requestFlags struct {
	query   trace.Query
	headers []string
	to      string
}

// requestFlagNames are the flags of which one makes it a request that is asked about.
var requestFlagNames = []string{"from", "url", "method", "host", "header", "to", "ipv6"}

func (q *requestFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&q.query.From, "from", "", "who sends the request: NAMESPACE/POD or NAMESPACE/DEPLOYMENT, node/NAME, or an address")
	f.StringVar(&q.query.URL, "url", "", "where to and how: http, h2c, grpc, ws, tcp, tls or udp, as in http://web.shop/cart?id=1")
	f.StringVar(&q.query.Method, "method", "", "method of the request (default GET)")
	f.StringVar(&q.query.Host, "host", "", "host that the request names, if it is not the URL's; of tls the server name")
	f.StringArrayVarP(&q.headers, "header", "H", nil, "NAME:VALUE, as often as there are headers")
	f.StringVar(&q.to, "to", "", "address that is dialled, if the URL does not say it")
	f.BoolVarP(&q.query.V6, "ipv6", "6", false, "by IPv6, where there is a choice")
}

// asked reports whether a request is asked about.
func (q *requestFlags) asked(c *cobra.Command) bool {
	for _, name := range requestFlagNames {
		if c.Flags().Changed(name) {
			return true
		}
	}
	return false
}

func (q *requestFlags) read() (trace.Query, error) {
	out := q.query
	if out.From == "" || out.URL == "" {
		return out, usageError("a request needs --from, who sends it, and --url, where to")
	}
	for _, h := range q.headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok || name == "" {
			return out, usageError("header %q: want NAME:VALUE", h)
		}
		out.Headers = append(out.Headers, model.Header{Name: strings.TrimSpace(name), Value: strings.TrimSpace(value)})
	}
	if q.to != "" {
		a, err := netip.ParseAddr(q.to)
		if err != nil {
			return out, usageError("--to %q: want an address", q.to)
		}
		out.To = a
	}
	return out, nil
}

func (q *requestFlags) run(c *cobra.Command, in *input, out *format, p *target, live bool) error {
	query, err := q.read()
	if err != nil {
		return err
	}
	var a *trace.Answer
	if live {
		a, err = traceByAgents(c.Context(), p, query)
	} else {
		var tables *pipeline.Pipeline
		if tables, _, err = in.planned(c, p.node, func(p *pipeline.Pipeline) string { return nodeOfSource(p, query.From) }); err == nil {
			a, err = trace.Follow(tables, query)
		}
	}
	var wrong *trace.QueryError
	if errors.As(err, &wrong) {
		return usageError("%v", wrong)
	}
	if err != nil {
		return err
	}
	return out.print(c.OutOrStdout(), a, func(w io.Writer) error { return printAnswer(w, a) })
}

// nodeOfSource is the node that a source is on; "" if it is on none, or not known.
func nodeOfSource(p *pipeline.Pipeline, from string) string {
	if name, ok := strings.CutPrefix(from, "node/"); ok {
		return name
	}
	if w, err := trace.Pod(p, from); err == nil {
		return w.Node
	}
	if nodes := nodeNames(p); len(nodes) > 0 {
		return nodes[0]
	}
	return ""
}

// traceByAgents asks one node after the other, until it is the source's own.
func traceByAgents(ctx context.Context, p *target, q trace.Query) (*trace.Answer, error) {
	agents, err := p.agents(ctx)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, one := range agents {
		a, err := one.client.Trace(ctx, q)
		if err == nil {
			return a, nil
		}
		errs = append(errs, err)
	}
	return nil, errs[len(errs)-1]
}

func printAnswer(w io.Writer, a *trace.Answer) error {
	p := &page{w: w}
	p.line(0, "%s", strings.TrimSpace(a.Method+" "+a.URL))
	p.line(1, "from: %s", sourceText(a.Source))
	switch {
	case a.Destination.IsValid() && a.Service != "":
		p.line(1, "to: %s, %s", a.Destination, a.Service)
	case a.Destination.IsValid():
		p.line(1, "to: %s", a.Destination)
	}
	if len(a.Steps) > 0 {
		p.line(1, "way:")
	}
	for _, s := range a.Steps {
		p.line(2, "%s", s.What)
		p.sources(3, s.Sources)
	}
	p.line(1, "outcome:")
	for i := range a.Outcomes {
		p.outcome(&a.Outcomes[i], len(a.Outcomes) > 1)
	}
	return p.err
}

func sourceText(s trace.Source) string {
	name := s.Pod
	switch {
	case name != "":
	case s.Node != "":
		name = "a process of node " + s.Node
	default:
		name = "outside"
	}
	text := fmt.Sprintf("%s (%s)", name, s.Addr)
	if s.Identity != "" {
		text += ", " + s.Identity
	}
	switch {
	case s.Observed:
		text += ", observed"
	case s.Pod != "" && !s.Captured:
		text += ", not captured"
	}
	if s.Pod != "" && !s.Member {
		text += ", not a member of the mesh"
	}
	return text
}

func (p *page) outcome(o *trace.Outcome, several bool) {
	text := strings.ToUpper(string(o.Verdict))
	if o.Status != 0 {
		text += fmt.Sprintf(" with %d", o.Status)
		if o.GRPC != nil {
			text += fmt.Sprintf(" (of gRPC %d)", *o.GRPC)
		}
	}
	if several {
		text = fmt.Sprintf("%.4g %%: %s", o.Share*100, text)
	}
	p.line(2, "%s: %s", text, o.Why)
	p.sources(3, o.By)
	for _, e := range o.Endpoints {
		word := "to"
		if o.Verdict == trace.Denied {
			word = "at"
		}
		at := e.Host
		if e.Addr.IsValid() {
			at = e.Addr.String()
		}
		if e.Pod != "" {
			at += " " + e.Pod
		}
		if e.Priority > 0 {
			at += ", when those before fail"
		}
		p.line(3, "%s %s", word, at)
	}
	if s := o.Sent; s != nil && o.Verdict == trace.Reached {
		p.line(3, "as %s%s", s.Authority, s.Path)
		for _, h := range s.Set {
			p.line(3, "with %s: %s", h.Name, h.Value)
		}
		for _, h := range s.Added {
			p.line(3, "and %s: %s", h.Name, h.Value)
		}
		if len(s.Removed) > 0 {
			p.line(3, "without %s", strings.Join(s.Removed, ", "))
		}
	}
}
