// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"reflect"

	meshapi "istio.io/api/mesh/v1alpha1"
	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// blocks are the parts of a traffic policy that hold at one port.
type blocks struct {
	balance       *networking.LoadBalancerSettings
	pool          *networking.ConnectionPoolSettings
	outlier       *networking.OutlierDetection
	proxyProtocol *networking.TrafficPolicy_ProxyProtocol
	retryBudget   *networking.TrafficPolicy_RetryBudget
}

// blocksAt is what a policy says for a port. Settings of the port replace those of the
// policy: what they leave out is as if nothing had been said. byPort reports that there
// are such settings.
func blocksAt(p *networking.TrafficPolicy, port uint16) (out blocks, byPort bool) {
	if s := settingsOf(p, port); s != nil {
		return blocks{balance: s.GetLoadBalancer(), pool: s.GetConnectionPool(), outlier: s.GetOutlierDetection()}, true
	}
	return blocks{p.GetLoadBalancer(), p.GetConnectionPool(), p.GetOutlierDetection(), p.GetProxyProtocol(), p.GetRetryBudget()}, false
}

func settingsOf(p *networking.TrafficPolicy, port uint16) *networking.TrafficPolicy_PortTrafficPolicy {
	for _, s := range p.GetPortLevelSettings() {
		if s.GetPort().GetNumber() == uint32(port) {
			return s
		}
	}
	return nil
}

// over lays the policy of a subset over that of its host, block by block. Settings of
// the port in the subset replace the host's, too, but for those that no port has.
func (b blocks) over(s blocks, byPort bool) blocks {
	if s.balance != nil || byPort {
		b.balance = s.balance
	}
	if s.pool != nil || byPort {
		b.pool = s.pool
	}
	if s.outlier != nil || byPort {
		b.outlier = s.outlier
	}
	if s.proxyProtocol != nil {
		b.proxyProtocol = s.proxyProtocol
	}
	if s.retryBudget != nil {
		b.retryBudget = s.retryBudget
	}
	return b
}

// orMesh fills in what MeshConfig says by default.
func (b blocks) orMesh(d *meshapi.MeshConfig_DefaultTrafficPolicy) blocks {
	if b.pool == nil {
		b.pool = d.GetConnectionPool()
	}
	if b.outlier == nil {
		b.outlier = d.GetOutlierDetection()
	}
	return b
}

// backendPolicy says of a backend what its traffic policy depends on.
type backendPolicy struct {
	client     client
	rule       *ruled
	subset     *networking.Subset // nil: the whole host
	namespace  string             // of the service
	service    string
	port       uint16
	portNamed  bool                                     // the route names the port
	connection bool                                     // it takes connections, not requests
	tunnel     *networking.TrafficPolicy_TunnelSettings // of the connections
}

// policyOf is the traffic policy of a backend, nil if nothing is to be done but what is
// done anyway.
func (t *Translator) policyOf(r translators.Reader, b backendPolicy) *model.TrafficPolicy {
	mesh := t.mesh(r)
	top, _ := b.rule.policy()
	at, _ := blocksAt(top, b.port)
	if s := b.subset.GetTrafficPolicy(); s != nil {
		own, byPort := blocksAt(s, b.port)
		at = at.over(own, byPort)
	}
	at = at.orMesh(mesh.traffic)
	p := &model.TrafficPolicy{}
	outlier(p, at.outlier)
	balance(p, at.balance)
	p.Locality = locality(localitySetting(at.balance, t.distributionOf(r, b.namespace, b.service), mesh), p.Outlier != nil, b.client)
	connectionPool(p, at.pool, mesh)
	retryBudget(p, at.retryBudget)
	if v := at.proxyProtocol; v != nil {
		p.ProxyProtocol = uint32(v.GetVersion()) + 1
	}
	if hash := b.hash(top); isHash(p.Balance) {
		p.Hash = hashOn(hash)
	}
	if b.connection {
		forConnections(p, top, b.tunnel != nil)
		t.tunnel(r, p, b.tunnel, at.pool, &b)
		if b.rule == nil && mesh.traffic == nil { // the mesh's times alone are no reason for a proxy
			p.TCP = model.TCPPolicy{}
		}
	}
	if reflect.ValueOf(*p).IsZero() {
		return nil
	}
	p.Src = b.counted(p)
	return p
}

// counted is where it is written what a policy counts of a backend.
func (b backendPolicy) counted(p *model.TrafficPolicy) []model.Source {
	if own, by := b.rule.subset(b.subset.GetName()); b.subset != nil && by != nil {
		for i, s := range destinationRuleSpec(by).GetSubsets() {
			if out := countedIn(by, at("spec.subsets", i)+".trafficPolicy", s.GetTrafficPolicy(), b.port, p); s == own && len(out) > 0 {
				return out
			}
		}
	}
	top, by := b.rule.policy()
	return countedIn(by, "spec.trafficPolicy", top, b.port, p)
}

// countedIn are those blocks, as they are for a port, from which the policy has what it counts.
func countedIn(o *objects.Object, field string, in *networking.TrafficPolicy, port uint16, p *model.TrafficPolicy) []model.Source {
	if in == nil || o == nil {
		return nil
	}
	for i, s := range in.GetPortLevelSettings() {
		if s.GetPort().GetNumber() == uint32(port) {
			field = at(field+".portLevelSettings", i)
			break
		}
	}
	b, _ := blocksAt(in, port)
	limits := p.Limits
	limits.RetryBudget = nil
	var out []model.Source
	for _, block := range []struct {
		name string
		said bool
	}{{"connectionPool", b.pool != nil && limits != model.Limits{}}, {"outlierDetection", b.outlier != nil && p.Outlier != nil},
		{"retryBudget", b.retryBudget != nil && p.Limits.RetryBudget != nil}} {
		if block.said {
			out = append(out, o.Source(Plane, field+"."+block.name))
		}
	}
	return out
}

// hash is what Istio has requests hashed by. It does not look at settings for the port
// if the route does not name it; and where a subset does not hash, its host's stands.
func (b backendPolicy) hash(top *networking.TrafficPolicy) *networking.LoadBalancerSettings_ConsistentHashLB {
	for _, p := range []*networking.TrafficPolicy{b.subset.GetTrafficPolicy(), top} {
		if s := settingsOf(p, b.port); b.portNamed && !b.connection && s.GetLoadBalancer().GetConsistentHash() != nil {
			return s.GetLoadBalancer().GetConsistentHash()
		}
		if p.GetLoadBalancer().GetConsistentHash() != nil {
			return p.GetLoadBalancer().GetConsistentHash()
		}
	}
	return nil
}

// forConnections leaves what means something to connections. Istio takes their times
// from the policy of the whole host, whatever port and subset say.
func forConnections(p *model.TrafficPolicy, top *networking.TrafficPolicy, tunnelled bool) {
	tcp := top.GetConnectionPool().GetTcp()
	out := model.TrafficPolicy{}
	if tunnelled {
		out = onTunnels(p)
	}
	out.Balance, out.HashSize, out.Locality, out.Warmup, out.Outlier = p.Balance, p.HashSize, p.Locality, p.Warmup, p.Outlier
	out.Limits.Connections, out.Limits.Pending = p.Limits.Connections, p.Limits.Pending
	out.TCP = model.TCPPolicy{ConnectTimeout: p.TCP.ConnectTimeout, Keepalive: p.TCP.Keepalive,
		MaxDuration: duration(tcp.GetMaxConnectionDuration()), Idle: duration(tcp.GetIdleTimeout())}
	out.ProxyProtocol = p.ProxyProtocol
	for _, h := range p.Hash {
		if h.SourceIP {
			out.Hash = append(out.Hash, h)
		}
	}
	*p = out
}
