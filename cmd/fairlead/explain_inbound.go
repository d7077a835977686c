// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"fairlead.io/fairlead/agent/explain"
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// inbound is what is done with requests where they come in.
func (p *page) inbound(indent int, in *explain.Inbound) {
	if in == nil {
		return
	}
	if in.RateLimit != nil {
		p.line(indent, "limit: %s", limitText(in.RateLimit))
	}
	for i := range in.Routes {
		r := &in.Routes[i]
		action := actionText(&plan.Route{Original: r.Redirect == nil, Redirect: r.Redirect, RequestHeaders: r.RequestHeaders, ResponseHeaders: r.ResponseHeaders}, nil)
		p.line(indent, "route %d. %s -> %s", i+1, matchText(&r.Match), action)
		p.sources(indent+1, r.Sources)
		if len(r.Allow) == 0 {
			p.line(indent+1, "allowed to nobody")
		}
		for _, rule := range r.Allow {
			p.rule(indent+1, "allowed if", rule)
		}
	}
	if len(in.Routes) > 0 {
		p.line(indent, "else 404")
	}
	p.sources(indent, in.Sources)
}

// limitText is a limit in words.
func limitText(l *model.RateLimit) string {
	var out []string
	if l.Total > 0 {
		out = append(out, fmt.Sprintf("%d requests a second in all", l.Total))
	}
	if l.PerIdentity > 0 {
		out = append(out, fmt.Sprintf("%d of each identity", l.PerIdentity))
	}
	for _, o := range l.Overrides {
		n := "any number"
		if o.PerSecond > 0 {
			n = fmt.Sprint(o.PerSecond)
		}
		out = append(out, fmt.Sprintf("%s of each of %s", n, strings.Join(o.Identities, ", ")))
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, "; ")
}
