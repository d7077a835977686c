// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
)

// Istio has connections go through a tunnel by their route, not by where the route leads:
// one that leads to a single subset has the subset's tunnel, without it none, though the
// whole host has one; one that leads to the host has the host's; one with several
// destinations has that of the first one's host, for all of them.
const (
	tunnelConnect = "CONNECT"
	tunnelPost    = "POST"
)

// tunnelOf is the tunnel of a route to a single destination.
func (b *backendPolicy) tunnelOf() *networking.TrafficPolicy_TunnelSettings {
	if b.subset != nil {
		return b.subset.GetTrafficPolicy().GetTunnel()
	}
	top, _ := b.rule.policy()
	return top.GetTunnel()
}

// splitTunnel is the tunnel of a route with several destinations.
func (h *httpTranslation) splitTunnel(client client) *networking.TrafficPolicy_TunnelSettings {
	host := h.destination(h.sharing[0].GetDestination())
	if h.t.destinationService(h.r, host, client.namespace) == nil {
		return nil
	}
	top, _ := h.t.rule(h.r, host, client).policy()
	return top.GetTunnel()
}

// tunnel leads the connections of a policy on. What is spoken to the proxies is what Envoy
// takes of all that Istio has a cluster speak: HTTP/2 if that is among it.
func (t *Translator) tunnel(r translators.Reader, p *model.TrafficPolicy, in *networking.TrafficPolicy_TunnelSettings, pool *networking.ConnectionPoolSettings, b *backendPolicy) {
	if in == nil {
		return
	}
	p.Tunnel = &model.Tunnel{Host: in.GetTargetHost(), Port: uint16(in.GetTargetPort()), Post: in.GetProtocol() == tunnelPost}
	var port model.ServicePort
	if svc := r.Service(b.namespace, b.service); svc != nil && svc.Port(b.port) != nil {
		port = *svc.Port(b.port)
	}
	http := pool.GetHttp()
	upgrade := http.GetH2UpgradePolicy() == networking.ConnectionPoolSettings_HTTPSettings_UPGRADE ||
		http.GetH2UpgradePolicy() == networking.ConnectionPoolSettings_HTTPSettings_DEFAULT && port.App.IsHTTP() && t.mesh(r).upgradeHTTP2
	p.Tunnel.HTTP2 = port.App == model.AppHTTP2 || port.App == model.AppGRPC || detected(port) || http.GetUseClientProtocol() || upgrade
}

// onTunnels leaves of a policy what concerns the requests for tunnels.
func onTunnels(p *model.TrafficPolicy) model.TrafficPolicy {
	return model.TrafficPolicy{Limits: model.Limits{Requests: p.Limits.Requests}, HTTPIdle: p.HTTPIdle,
		RequestsPerConnection: p.RequestsPerConnection, StreamsPerConnection: p.StreamsPerConnection,
		PingInterval: p.PingInterval, PingTimeout: p.PingTimeout}
}

// judgeTunnel notes a tunnel of a subset that a route does not use, because it has several
// destinations.
func (h *httpTranslation) judgeTunnel(field string, b *backendPolicy) {
	if len(h.sharing) > 1 && b.subset.GetTrafficPolicy().GetTunnel() != nil {
		h.n.surprising(field+".subset", "tunnel-of-split", "the tunnel of a subset is not used where a route has several destinations, as in Istio: the first one's host has the say for all",
			"put the tunnel into the trafficPolicy of the whole host")
	}
}

// tunnel judges the tunnel of a policy; over is that of the host, if it is a subset's.
func (j policyJudge) tunnel(field string, p, over *networking.TrafficPolicy) {
	if p.GetTunnel() != nil && len(j.ports) > 0 && !slices.ContainsFunc(j.ports, func(p model.ServicePort) bool { return !p.App.IsHTTP() }) {
		j.n.surprising(field+".tunnel", "no-connections",
			"requests go through no tunnel, and the ports of the host have requests alone: as in Istio, it is for tcp and tls routes that lead here", "")
	}
	if over.GetTunnel() != nil && p.GetTunnel() == nil {
		j.n.surprising(field, "not-inherited", "a subset does not inherit the tunnel of its host, as in Istio: what a route leads to it goes through none", "repeat the tunnel here")
	}
}

var dnsLabel = regexp.MustCompile(`^[a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?$`)

func validateTunnel(n *notes, field string, in *networking.TrafficPolicy_TunnelSettings) {
	if in == nil {
		return
	}
	if p := in.GetProtocol(); p != "" && p != tunnelConnect && p != tunnelPost {
		n.invalid(field+".protocol", "%q is neither %s nor %s", p, tunnelConnect, tunnelPost)
	}
	if err := checkTarget(in.GetTargetHost()); err != nil {
		n.invalid(field+".targetHost", "%v", err)
	}
	if p := in.GetTargetPort(); p < 1 || p > 65535 {
		n.invalid(field+".targetPort", "%d is not a port between 1 and 65535", p)
	}
}

// checkTarget wants the name or the address of a host.
func checkTarget(host string) error {
	if a, err := netip.ParseAddr(host); err == nil && a.Zone() == "" {
		return nil
	}
	const most = 253
	labels := strings.Split(host, ".")
	if _, err := strconv.Atoi(labels[len(labels)-1]); err == nil || len(host) > most || slices.ContainsFunc(labels, func(l string) bool { return !dnsLabel.MatchString(l) }) {
		return fmt.Errorf("%q is neither a DNS name nor an address", host)
	}
	return nil
}
