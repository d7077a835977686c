// SPDX-License-Identifier: Apache-2.0

package render

import (
	"cmp"
	"fmt"
	"math"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	proxyprotocol "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	rawbuffer "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// deal has a cluster deal with its endpoints as its policy says. What withUpstream adds
// for every cluster is not among it.
func deal(m *cluster.Cluster, c *plan.Cluster) error {
	p := c.Traffic
	if p == nil {
		p = &model.TrafficPolicy{}
	}
	if err := balance(m, c.Original, p); err != nil {
		return err
	}
	if err := checkTimes(p); err != nil {
		return err
	}
	if p.Outlier != nil {
		o, err := outlier(p.Outlier)
		if err != nil {
			return err
		}
		m.OutlierDetection = o
		common(m).HealthyPanicThreshold = percent(float64(p.Outlier.PanicPercent))
	}
	m.UpstreamConnectionOptions = keepalive(p.TCP.Keepalive)
	return proxyProtocol(m, p.ProxyProtocol)
}

// common is the cluster's, whoever began it.
func common(m *cluster.Cluster) *cluster.Cluster_CommonLbConfig {
	if m.CommonLbConfig == nil {
		m.CommonLbConfig = &cluster.Cluster_CommonLbConfig{}
	}
	return m.CommonLbConfig
}

func percent(v float64) *typev3.Percent { return &typev3.Percent{Value: v} }

// thresholds are limits; where there is none, Envoy's own of 1,024 connections and
// requests is lifted: it is not of any plane's saying.
func thresholds(l model.Limits) *cluster.CircuitBreakers {
	limit := func(n uint32) uint32 { return cmp.Or(n, math.MaxUint32) }
	var cb cluster.CircuitBreakers
	for _, p := range []core.RoutingPriority{core.RoutingPriority_DEFAULT, core.RoutingPriority_HIGH} {
		t := &cluster.CircuitBreakers_Thresholds{
			Priority:           p,
			MaxConnections:     uint32Value(limit(l.Connections)),
			MaxPendingRequests: uint32Value(limit(l.Pending)),
			MaxRequests:        uint32Value(limit(l.Requests)),
			MaxRetries:         uint32Value(limit(l.Retries)),
		}
		if b := l.RetryBudget; b != nil {
			t.RetryBudget = &cluster.CircuitBreakers_Thresholds_RetryBudget{
				BudgetPercent: percent(b.Percent), MinRetryConcurrency: uint32Value(b.AtLeast),
			}
			if b.Interval > 0 {
				t.RetryBudget.BudgetInterval = atLeastMS(b.Interval)
			}
		}
		cb.Thresholds = append(cb.Thresholds, t)
	}
	return &cb
}

// connectionTimes bounds how long connections live, and for how many requests.
func connectionTimes(checked bool, p *model.TrafficPolicy) *core.HttpProtocolOptions {
	o := &core.HttpProtocolOptions{IdleTimeout: atLeastMS(cmp.Or(p.HTTPIdle, upstreamIdle))}
	if most := p.TCP.MaxDuration; checked && (most == 0 || most > CheckedMost) {
		o.MaxConnectionDuration = atLeastMS(CheckedMost)
	} else if most > 0 {
		o.MaxConnectionDuration = atLeastMS(most)
	}
	if p.RequestsPerConnection > 0 {
		o.MaxRequestsPerConnection = uint32Value(p.RequestsPerConnection)
	}
	return o
}

func http2Options(p *model.TrafficPolicy) *core.Http2ProtocolOptions {
	o := &core.Http2ProtocolOptions{AllowConnect: true}
	if n := p.StreamsPerConnection; n > 0 {
		o.MaxConcurrentStreams = uint32Value(min(n, math.MaxInt32)) // the protocol has 31 bits for it
	}
	if p.PingInterval > 0 {
		o.ConnectionKeepalive = &core.KeepaliveSettings{Interval: atLeastMS(p.PingInterval), Timeout: atLeastMS(cmp.Or(p.PingTimeout, p.PingInterval))}
	}
	return o
}

// keepalive counts in whole seconds, of which it takes at least one.
func keepalive(k *model.Keepalive) *cluster.UpstreamConnectionOptions {
	if k == nil {
		return nil
	}
	o := &core.TcpKeepalive{}
	if k.Probes > 0 {
		o.KeepaliveProbes = uint32Value(k.Probes)
	}
	if k.Time > 0 {
		o.KeepaliveTime = uint32Value(seconds(k.Time))
	}
	if k.Interval > 0 {
		o.KeepaliveInterval = uint32Value(seconds(k.Interval))
	}
	return &cluster.UpstreamConnectionOptions{TcpKeepalive: o}
}

func seconds(d time.Duration) uint32 {
	return uint32(min(max(d/time.Second, 1), math.MaxInt32))
}

// proxyProtocol begins connections with the client's address.
func proxyProtocol(m *cluster.Cluster, version uint32) error {
	if version == 0 {
		return nil
	}
	if version > 2 {
		return fmt.Errorf("PROXY protocol of version %d", version)
	}
	m.TransportSocket = &core.TransportSocket{
		Name: "envoy.transport_sockets.upstream_proxy_protocol",
		ConfigType: &core.TransportSocket_TypedConfig{TypedConfig: pack(&proxyprotocol.ProxyProtocolUpstreamTransport{
			Config: &core.ProxyProtocolConfig{Version: core.ProxyProtocolConfig_Version(version - 1)},
			TransportSocket: &core.TransportSocket{
				Name:       "envoy.transport_sockets.raw_buffer",
				ConfigType: &core.TransportSocket_TypedConfig{TypedConfig: pack(&rawbuffer.RawBuffer{})},
			},
		})},
	}
	return nil
}

func checkTimes(p *model.TrafficPolicy) error {
	times := []time.Duration{p.HTTPIdle, p.TCP.ConnectTimeout, p.TCP.MaxDuration, p.TCP.Idle, p.PingInterval, p.PingTimeout}
	if k := p.TCP.Keepalive; k != nil {
		times = append(times, k.Time, k.Interval)
	}
	for _, d := range times {
		if d < 0 {
			return fmt.Errorf("a time of %s in the traffic policy", d)
		}
	}
	return nil
}

// orNil leaves out a time that is not said.
func orNil(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return atLeastMS(d)
}
