// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"net/netip"
	"slices"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
)

// captured has a row for each captured pod of the node, so that it can be told whether
// there are several.
const captured incr.Table = "plan/captured" // bool, key of the workload

// times has a row for each address whose connections have times of their own.
const times incr.Table = "plan/times" // *ConnectionTimes, key by timesKey

func timesKey(m Mode, dst netip.AddrPort) string { return string(m) + " " + dst.String() }

// timesOf are those that a listener of the mode has to know.
func timesOf(r *incr.Reader, m Mode) []ConnectionTimes {
	var out []ConnectionTimes
	for _, row := range r.All(times) {
		if t := row.Value.(*ConnectionTimes); row.Key == timesKey(m, t.To) {
			out = append(out, *t)
		}
	}
	slices.SortFunc(out, func(a, b ConnectionTimes) int { return a.To.Compare(b.To) })
	return out
}

// times are those of a port's connections: of several routes, and of several backends,
// the longest. There are none if some are for ever.
func (c *compiler) times(p *servicePort, routes []model.ConnectionRoute) (out ConnectionTimes, ok bool) {
	var idle, last []time.Duration
	for _, r := range routes {
		for _, b := range r.Backends {
			t := model.TCPPolicy{}
			if b.Policy != nil {
				t = b.Policy.TCP
			}
			idle, last = append(idle, t.Idle), append(last, t.MaxDuration)
		}
	}
	if len(idle) == 0 {
		return out, false
	}
	if differ(idle) || differ(last) {
		d := model.Diagnostic{Code: "connection-times", Effect: model.Degrades, Outcome: model.Approximated,
			Message: "connections to " + p.key + " have the longest of the idle and maximum times that its routes say, whoever connects",
			Advice:  "say the same times for all of its routes and clients"}
		if src := p.src(); len(src) > 0 {
			d.Source = src[0]
		}
		c.say(d)
	}
	out.Idle, out.Max = slices.MaxFunc(idle, shorter), slices.MaxFunc(last, shorter)
	return out, out.Idle > 0 || out.Max > 0
}

// untimed says of times that they cannot be kept where addresses are not known.
func (c *compiler) untimed(p *servicePort) {
	if t, ok := c.times(p, p.connectionRoutes()); !ok || t.Idle+t.Max == 0 {
		return
	}
	d := model.Diagnostic{Code: "connection-times", Effect: model.Degrades, Outcome: model.Refused,
		Message: p.key + " is got at by addresses that nobody knows: connections to these may be silent, and last, as long as they like",
		Advice:  "give the service addresses"}
	if src := p.src(); len(src) > 0 {
		d.Source = src[0]
	}
	c.say(d)
}

func differ(ds []time.Duration) bool { return len(slices.Compact(slices.Clone(ds))) > 1 }

// shorter orders times; 0 is for ever.
func shorter(a, b time.Duration) int {
	switch {
	case a == b:
		return 0
	case longer(a, b):
		return 1
	}
	return -1
}

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
		c.counted = append(c.counted, p.Src...)
	}
}

// sayCounted says that limits are not for each client, where there are several.
func (c *compiler) sayCounted(key string, src []model.Source) {
	if !c.counts || len(c.r.All(captured)) < 2 {
		return
	}
	if src = src[:min(1, len(src))]; len(c.counted) > 0 {
		src = c.counted
	}
	c.counts, c.counted = false, nil
	d := model.Diagnostic{Code: "counted-by-node", Effect: model.Degrades, Outcome: model.Approximated,
		Message: "limits and outlier detection of " + key + " count what all pods of a node do together, not what each does",
		Advice:  "set limits by node"}
	if len(src) == 0 {
		c.say(d)
	}
	for _, d.Source = range src {
		c.say(d)
	}
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
