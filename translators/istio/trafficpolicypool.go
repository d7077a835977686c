// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"cmp"
	"time"

	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/model"
)

// usualConnectTimeout is MeshConfig's default, and what the model means without one.
const usualConnectTimeout = 10 * time.Second

// connectionPool translates limits and times of connections.
func connectionPool(p *model.TrafficPolicy, in *networking.ConnectionPoolSettings, mesh *meshConfig) {
	tcp, http := in.GetTcp(), in.GetHttp()
	p.TCP.ConnectTimeout = mesh.connectTimeout
	if d := tcp.GetConnectTimeout(); d != nil {
		p.TCP.ConnectTimeout = duration(d)
	}
	if p.TCP.ConnectTimeout == usualConnectTimeout {
		p.TCP.ConnectTimeout = 0
	}
	p.TCP.Keepalive = keepalive(mesh.keepalive, tcp.GetTcpKeepalive())
	p.TCP.MaxDuration = duration(tcp.GetMaxConnectionDuration())
	p.Limits = model.Limits{
		Connections: limit(tcp.GetMaxConnections()),
		Pending:     limit(http.GetHttp1MaxPendingRequests()),
		Requests:    limit(http.GetHttp2MaxRequests()),
		Retries:     limit(http.GetMaxRetries()),
	}
	p.HTTPIdle = duration(http.GetIdleTimeout())
	if http.GetIdleTimeout() == nil {
		p.HTTPIdle = duration(tcp.GetIdleTimeout())
	}
	p.RequestsPerConnection = limit(http.GetMaxRequestsPerConnection())
	p.StreamsPerConnection = limit(http.GetMaxConcurrentStreams())
	p.PingInterval = duration(http.GetHttp2KeepAlive().GetInterval())
	p.PingTimeout = duration(http.GetHttp2KeepAlive().GetTimeout())
	switch p.ClientProtocol = http.GetUseClientProtocol(); http.GetH2UpgradePolicy() {
	case networking.ConnectionPoolSettings_HTTPSettings_UPGRADE:
		p.Upgrade = !p.ClientProtocol
	case networking.ConnectionPoolSettings_HTTPSettings_DEFAULT:
		p.Upgrade = !p.ClientProtocol && mesh.upgradeHTTP2
	}
}

// limit is 0 where nothing bounds.
func limit(n int32) uint32 { return uint32(max(0, n)) }

// keepalive lays the rule's settings over the mesh's; nil if there are none.
func keepalive(mesh, rule *networking.ConnectionPoolSettings_TCPSettings_TcpKeepalive) *model.Keepalive {
	if mesh == nil && rule == nil {
		return nil
	}
	out := &model.Keepalive{Probes: cmp.Or(rule.GetProbes(), mesh.GetProbes())}
	out.Time, out.Interval = duration(mesh.GetTime()), duration(mesh.GetInterval())
	if rule.GetTime() != nil {
		out.Time = duration(rule.GetTime())
	}
	if rule.GetInterval() != nil {
		out.Interval = duration(rule.GetInterval())
	}
	return out
}

// What a retry budget has that leaves it out.
const (
	budgetPercent = 20
	budgetAtLeast = 3
)

func retryBudget(p *model.TrafficPolicy, in *networking.TrafficPolicy_RetryBudget) {
	if in == nil {
		return
	}
	b := &model.RetryBudget{Percent: budgetPercent, AtLeast: cmp.Or(in.GetMinRetryConcurrency(), budgetAtLeast), Interval: duration(in.GetBudgetInterval())}
	if in.GetPercent() != nil {
		b.Percent = in.GetPercent().GetValue()
	}
	p.Limits.RetryBudget, p.Limits.Retries = b, 0
}

// consecutiveFailures is how many Envoy counts where nothing is said.
const consecutiveFailures = 5

// outlier translates outlier detection. Left out, failures in a row count as Envoy
// counts them: 5xx, and with split errors those of the own side.
func outlier(p *model.TrafficPolicy, in *networking.OutlierDetection) {
	if in == nil {
		return
	}
	o := &model.Outlier{Consecutive5xx: consecutiveFailures, ConsecutiveGateway: in.GetConsecutiveGatewayErrors().GetValue(),
		SplitLocal: in.GetSplitExternalLocalOriginErrors(), Interval: duration(in.GetInterval()), BaseEjection: duration(in.GetBaseEjectionTime()),
		PanicPercent: limit(in.GetMinHealthPercent())}
	if n := in.GetConsecutive_5XxErrors(); n != nil {
		o.Consecutive5xx = n.GetValue()
	}
	if o.SplitLocal {
		o.ConsecutiveLocal = cmp.Or(in.GetConsecutiveLocalOriginFailures().GetValue(), consecutiveFailures)
	}
	if n := limit(in.GetMaxEjectionPercent()); n > 0 {
		o.MaxPercent = &n
	}
	p.Outlier = o
}
