// SPDX-License-Identifier: Apache-2.0

package render

import (
	"errors"
	"fmt"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"fairlead.io/fairlead/model"
)

// maxRing and maxTable are the largest that Envoy takes.
const (
	maxRing  = 8388608
	maxTable = 5000011
	ringSize = 1024 // the least, where nothing is said
)

// balance says how an endpoint is chosen.
func balance(m *cluster.Cluster, original bool, p *model.TrafficPolicy) error {
	if p.Locality != nil && len(p.Locality.Distribute) > 0 {
		common(m).LocalityConfigSpecifier = &cluster.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
			LocalityWeightedLbConfig: &cluster.Cluster_CommonLbConfig_LocalityWeightedLbConfig{},
		}
	}
	if original {
		m.LbPolicy, m.CommonLbConfig = cluster.Cluster_CLUSTER_PROVIDED, nil
		return nil
	}
	slow, err := slowStart(p.Warmup)
	if err != nil {
		return err
	}
	switch p.Balance {
	case model.LeastRequest:
		m.LbPolicy = cluster.Cluster_LEAST_REQUEST
		if slow != nil {
			m.LbConfig = &cluster.Cluster_LeastRequestLbConfig_{LeastRequestLbConfig: &cluster.Cluster_LeastRequestLbConfig{SlowStartConfig: slow}}
		}
	case model.RoundRobin:
		m.LbPolicy = cluster.Cluster_ROUND_ROBIN
		if slow != nil {
			m.LbConfig = &cluster.Cluster_RoundRobinLbConfig_{RoundRobinLbConfig: &cluster.Cluster_RoundRobinLbConfig{SlowStartConfig: slow}}
		}
	case model.Random:
		m.LbPolicy = cluster.Cluster_RANDOM
	case model.ByRing:
		size := p.HashSize
		if size == 0 {
			size = ringSize
		}
		if size > maxRing {
			return fmt.Errorf("a ring of %d, of which %d are possible", size, maxRing)
		}
		m.LbPolicy = cluster.Cluster_RING_HASH
		m.LbConfig = &cluster.Cluster_RingHashLbConfig_{RingHashLbConfig: &cluster.Cluster_RingHashLbConfig{MinimumRingSize: wrapperspb.UInt64(size)}}
	case model.ByTable:
		if p.HashSize > maxTable {
			return fmt.Errorf("a table of %d, of which %d are possible", p.HashSize, maxTable)
		}
		m.LbPolicy = cluster.Cluster_MAGLEV
		if p.HashSize > 0 {
			m.LbConfig = &cluster.Cluster_MaglevLbConfig_{MaglevLbConfig: &cluster.Cluster_MaglevLbConfig{TableSize: wrapperspb.UInt64(p.HashSize)}}
		}
	default:
		return fmt.Errorf("balancing by %q", p.Balance)
	}
	return nil
}

// slowStart gives new endpoints less at first.
func slowStart(w *model.Warmup) (*cluster.Cluster_SlowStartConfig, error) {
	if w == nil {
		return nil, nil
	}
	if w.Duration < 0 || w.Aggression < 0 || w.MinimumPercent != nil && (*w.MinimumPercent < 0 || *w.MinimumPercent > 100) {
		return nil, errors.New("a warm-up out of range")
	}
	c := &cluster.Cluster_SlowStartConfig{SlowStartWindow: atLeastMS(w.Duration)}
	if w.Aggression > 0 {
		c.Aggression = &core.RuntimeDouble{DefaultValue: w.Aggression, RuntimeKey: "fl.aggression"}
	}
	if w.MinimumPercent != nil {
		c.MinWeightPercent = percent(*w.MinimumPercent)
	}
	return c, nil
}

// hashPolicies are what a route's requests are hashed by.
func hashPolicies(in []model.HashOn) ([]*route.RouteAction_HashPolicy, error) {
	var out []*route.RouteAction_HashPolicy
	for _, h := range in {
		p := &route.RouteAction_HashPolicy{}
		switch {
		case h.Header != "":
			if err := checkHeaderName(h.Header); err != nil {
				return nil, fmt.Errorf("hash: %w", err)
			}
			p.PolicySpecifier = &route.RouteAction_HashPolicy_Header_{Header: &route.RouteAction_HashPolicy_Header{HeaderName: h.Header}}
		case h.Query != "":
			p.PolicySpecifier = &route.RouteAction_HashPolicy_QueryParameter_{QueryParameter: &route.RouteAction_HashPolicy_QueryParameter{Name: h.Query}}
		case h.Cookie != nil:
			c, err := hashCookie(h.Cookie)
			if err != nil {
				return nil, err
			}
			p.PolicySpecifier = &route.RouteAction_HashPolicy_Cookie_{Cookie: c}
		case h.SourceIP:
			p.PolicySpecifier = &route.RouteAction_HashPolicy_ConnectionProperties_{
				ConnectionProperties: &route.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true}}
		default:
			return nil, errors.New("a hash of nothing")
		}
		out = append(out, p)
	}
	return out, nil
}

func hashCookie(in *model.HashCookie) (*route.RouteAction_HashPolicy_Cookie, error) {
	c := &route.RouteAction_HashPolicy_Cookie{Name: in.Name, Path: in.Path}
	if in.TTL != nil {
		if *in.TTL < 0 {
			return nil, fmt.Errorf("a cookie that lasts %s", *in.TTL)
		}
		c.Ttl = durationpb.New(*in.TTL)
	}
	for _, text := range []string{in.Name, in.Path} {
		if err := checkHeaderValue("cookie", text); err != nil {
			return nil, err
		}
	}
	for _, a := range in.Attributes {
		if err := checkHeaderValue("cookie", a.Name+a.Value); err != nil {
			return nil, err
		}
		c.Attributes = append(c.Attributes, &route.RouteAction_HashPolicy_CookieAttribute{Name: a.Name, Value: a.Value})
	}
	return c, nil
}
