// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"slices"
	"time"

	"fairlead.io/fairlead/agent/explain"
	"fairlead.io/fairlead/agent/trace"
	"fairlead.io/fairlead/proxy"
)

// explainLimit is how long the proxy has to say what it knows.
const explainLimit = 2 * time.Second

func (a *agent) trace(q trace.Query) (*trace.Answer, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return trace.Follow(a.pipe, q)
}

func (a *agent) explain(ctx context.Context, target explain.Target) (*Explanation, error) {
	ctx, cancel := context.WithTimeout(ctx, explainLimit)
	defer cancel()
	a.mu.Lock()
	answer, err := explain.Explain(a.pipe, target)
	rejected, ports := a.rejected.list(nil), a.livePorts
	a.mu.Unlock()
	if err != nil {
		return nil, err
	}
	about := answer.Resources()
	out := &Explanation{Node: a.opts.Node, Answer: answer, Live: &Live{InUse: []string{}}}
	if s, err := proxy.ReadStatus(ctx, a.opts.RunDir); err == nil && len(rejected) > 0 {
		a.mu.Lock()
		rejected = a.rejected.list(&s) // the proxy knows what is served in their place
		a.mu.Unlock()
	}
	out.Live.Rejected = slices.DeleteFunc(rejected, func(r Rejected) bool { return !about[r.Type+" "+r.Name] })
	used, err := proxy.ReadInUse(ctx, a.opts.RunDir)
	if err != nil {
		out.Live.InUseError = err.Error()
	}
	for _, name := range used {
		if about["RouteConfiguration "+name] {
			out.Live.InUse = append(out.Live.InUse, name)
		}
	}
	for name, port := range ports {
		if about["Listener "+name] {
			if out.Live.Ports == nil {
				out.Live.Ports = map[string]uint16{}
			}
			out.Live.Ports[name] = port
		}
	}
	return out, nil
}
