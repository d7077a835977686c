// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"slices"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
)

// captured has a row for each captured pod of the node, so that it can be told whether
// there are several.
const captured incr.Table = "plan/captured" // bool, key of the workload

// plain reports whether the connections of a frontend go to the service's own endpoints
// as they would without it.
func (p *servicePort) plain() bool {
	f := p.frontend
	if f == nil {
		return true
	}
	if f.App == model.AppDetect || len(f.Connections) > 0 {
		return false
	}
	return !slices.ContainsFunc(f.Backends, func(b model.Backend) bool {
		own := p.own()
		own.Weight, own.Policy = b.Weight, b.Policy
		return b.Policy.NeedsProxy() || model.Hash(b) != model.Hash(own)
	})
}

// dialledAs is the cluster that leads to the address that the client has dialled, under
// a policy.
func (c *compiler) dialledAs(b model.Backend, app model.App) *Cluster {
	name, app := c.qualify("dialled/"+model.FrontendKey(b.Namespace, b.Service, b.Port), model.Backend{
		Namespace: b.Namespace, Service: b.Service, Port: b.Port, Policy: b.Policy}, app)
	cl := &Cluster{Name: c.named(name), App: app, Original: true, Port: c.target(b)}
	c.deal(cl, b.Policy)
	c.put(Clusters, cl.Name, cl)
	return cl
}

// deal gives a cluster its policy, and notes what counts together.
func (c *compiler) deal(cl *Cluster, p *model.TrafficPolicy) {
	cl.Traffic = p
	if p != nil && (p.Limits != model.Limits{} || p.Outlier != nil) {
		c.counts = true
	}
}

// sayCounted says that limits are not for each client, where there are several.
func (c *compiler) sayCounted(key string, src []model.Source) {
	if !c.counts || len(c.r.All(captured)) < 2 {
		return
	}
	c.counts = false
	d := model.Diagnostic{Code: "counted-by-node", Effect: model.Degrades, Outcome: model.Approximated,
		Message: "limits and outlier detection of " + key + " count what all pods of a node do together, not what each does",
		Advice:  "set limits by node"}
	if len(src) > 0 {
		d.Source = src[0]
	}
	c.say(d)
}

// asOne reports whether the endpoints of a backend have to be in one cluster, though they
// obey different policies: what is counted, compared or hashed among them would be so
// for each part by itself.
func asOne(p *model.TrafficPolicy) bool {
	return p != nil && (p.Limits != model.Limits{} || p.Outlier != nil || p.Locality != nil ||
		p.Balance == model.ByRing || p.Balance == model.ByTable)
}

// hashes lists what the requests of a route are hashed by, for whichever backend.
func hashes(backends []model.Backend) []model.HashOn {
	var out []model.HashOn
	for _, b := range backends {
		if b.Policy == nil || b.Missing {
			continue
		}
		for _, h := range b.Policy.Hash {
			if !slices.ContainsFunc(out, func(have model.HashOn) bool { return model.Hash(have) == model.Hash(h) }) {
				out = append(out, h)
			}
		}
	}
	return out
}
