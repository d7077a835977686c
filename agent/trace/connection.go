// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"net/netip"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/render"
)

// connection is what becomes of a connection that is not read as requests: it goes to
// the cluster that is named by what the listener knows of it.
func (t *tracer) connection(s *plan.Service) {
	row, _ := t.Get(plan.Pods, t.out.Source.Addr.String()).(*plan.Pod)
	if row == nil {
		return
	}
	l, _ := t.Get(plan.Listeners, row.Listeners[s.Mode]).(*plan.Listener)
	if l == nil {
		t.end(Outcome{Verdict: Lost, Why: "the proxy has no listener for it"})
		return
	}
	for _, c := range render.Candidates(xds.ClusterType, t.clusterName(s.Mode, l)) {
		if cl, ok := t.Get(plan.Clusters, c).(*plan.Cluster); ok && (cl.Original || cl.Names != nil) {
			t.toCluster(s, l, c)
			t.unlisted(1, cl, t.unchanged())
			t.ledOn(l, c)
			return
		}
		eps, _ := t.Get(plan.Endpoints, c).(*plan.ClusterEndpoints)
		if eps == nil {
			continue
		}
		sources := t.toCluster(s, l, c)
		to := targets(eps)
		if len(to) == 0 {
			t.end(Outcome{Verdict: Lost, Cluster: c, Why: "there are no endpoints", By: sources})
			return
		}
		t.spread(1, to, "an endpoint that it leads to", t.unchanged())
		t.ledOn(l, c)
		return
	}
	t.end(Outcome{Verdict: Lost, Why: "no route takes such a connection: the proxy closes it"})
}

// ledOn says where the endpoints of a cluster are asked to lead connections on, if they are.
func (t *tracer) ledOn(l *plan.Listener, cluster string) {
	for _, way := range l.Tunnels {
		if way.Cluster != cluster || way.Tunnel == nil {
			continue
		}
		t.step(nil, "its endpoints are asked to lead each on to %s", way.Tunnel)
		for i := range t.out.Outcomes {
			if o := &t.out.Outcomes[i]; o.Verdict == Reached {
				o.Tunnel = way.Tunnel
			}
		}
	}
}

// toCluster says which route connections follow, told apart by the server name if routes
// are.
func (t *tracer) toCluster(s *plan.Service, l *plan.Listener, cluster string) []model.Source {
	sources := t.origin(cluster)
	to, pattern := s.Name, t.pattern(l)
	if s.Addr.IsUnspecified() {
		to = "any address"
	}
	if pattern != "" {
		pattern = " for " + pattern
	}
	t.step(sources, "a route of connections to %s%s takes it", to, pattern)
	return sources
}

// pattern is the listener's closest to the server name that the client says.
func (t *tracer) pattern(l *plan.Listener) string {
	if t.q.kind != tlsConnection {
		return ""
	}
	sni := t.serverName()
	best := ""
	for _, p := range l.ServerNames {
		suffix, wild := strings.CutPrefix(p, "*")
		if p == sni {
			return p
		}
		if wild && strings.HasSuffix(sni, suffix) && len(sni) > len(suffix) && len(p) > len(best) {
			best = p
		}
	}
	return best
}

// serverName is what the client says in its handshake; addresses are not said.
func (t *tracer) serverName() string {
	name := bareHost(t.q.authority)
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return ""
	}
	return name
}
