// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"cmp"
	"maps"
	"math"
	"math/big"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/model"
)

// Largest sizes that Istio and Envoy take.
const (
	maxTableSize = 5_000_010
	maxRingSize  = 8_388_608
)

// validatePolicies checks the traffic policies of a rule.
func validatePolicies(n *notes, dr *networking.DestinationRule) {
	validateTrafficPolicy(n, "spec.trafficPolicy", dr.GetTrafficPolicy())
	for i, s := range dr.GetSubsets() {
		validateTrafficPolicy(n, at("spec.subsets", i)+".trafficPolicy", s.GetTrafficPolicy())
	}
	if to := dr.GetExportTo(); dr.GetWorkloadSelector() != nil && len(to) > 0 && !exported(to, n.o.Namespace).private(n.o.Namespace) {
		n.invalid("spec.exportTo", "a rule for some clients is for those of its own namespace alone")
	}
}

func validateTrafficPolicy(n *notes, field string, p *networking.TrafficPolicy) {
	if p == nil {
		return
	}
	if p.GetTunnel() != nil && p.GetProxyProtocol() != nil {
		n.invalid(field, "tunnel and proxyProtocol exclude each other")
	}
	validateTunnel(n, field+".tunnel", p.GetTunnel())
	validateSettings(n, field, p)
	for i, s := range p.GetPortLevelSettings() {
		field := at(field+".portLevelSettings", i)
		if s.GetPort() == nil {
			n.invalid(field, "the settings name no port")
		}
		validateSettings(n, field, s)
	}
	validateBudget(n, field+".retryBudget", p.GetRetryBudget())
}

func validateBudget(n *notes, field string, b *networking.TrafficPolicy_RetryBudget) {
	if v := b.GetPercent().GetValue(); !(v >= 0 && v <= 100) {
		n.invalid(field+".percent", "%v is not between 0 and 100", v)
	}
	if d := b.GetBudgetInterval(); d != nil && (d.CheckValid() != nil || d.AsDuration() < 0) {
		n.invalid(field+".budgetInterval", "the duration is negative or cannot be represented")
	}
}

func validateSettings(n *notes, field string, s settings) {
	validateBalance(n, field+".loadBalancer", s.GetLoadBalancer())
	validatePool(n, field+".connectionPool", s.GetConnectionPool())
	validateOutlier(n, field+".outlierDetection", s.GetOutlierDetection())
}

func validateBalance(n *notes, field string, lb *networking.LoadBalancerSettings) {
	if lb == nil {
		return
	}
	validateHash(n, field+".consistentHash", lb.GetConsistentHash())
	if lb.GetLocalityLbSetting() != nil && lb.GetZoneAwareLbSetting() != nil {
		n.invalid(field, "localityLbSetting and zoneAwareLbSetting exclude each other")
	}
	validateLocality(n, field+".localityLbSetting", lb.GetLocalityLbSetting())
	validateZoneAware(n, field+".zoneAwareLbSetting", lb.GetZoneAwareLbSetting())
	if d := lb.GetWarmupDurationSecs(); d != nil { // deprecated, still read
		validateDuration(n, field+".warmupDurationSecs", d)
	}
	if w := lb.GetWarmup(); w != nil {
		if w.GetDuration() == nil {
			n.invalid(field+".warmup.duration", "a warm-up needs a duration")
		}
		validateDuration(n, field+".warmup.duration", w.GetDuration())
		if v := w.GetMinimumPercent().GetValue(); !(v >= 0 && v <= 100) {
			n.invalid(field+".warmup.minimumPercent", "%v is not between 0 and 100", v)
		}
		if a := w.GetAggression(); a != nil && !(a.GetValue() > 0 && a.GetValue() <= math.MaxFloat32) {
			n.invalid(field+".warmup.aggression", "%v is not greater than 0", a.GetValue())
		}
	}
}

func validateHash(n *notes, field string, h *networking.LoadBalancerSettings_ConsistentHashLB) {
	if h == nil {
		return
	}
	switch k := h.GetHashKey().(type) {
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpHeaderName:
		if !headerPattern.MatchString(k.HttpHeaderName) || strings.HasPrefix(k.HttpHeaderName, ":") {
			n.invalid(field+".httpHeaderName", "%q is not the name of a header", k.HttpHeaderName)
		}
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpQueryParameterName:
		if k.HttpQueryParameterName == "" {
			n.invalid(field+".httpQueryParameterName", "an empty name")
		}
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpCookie:
		validateCookie(n, field+".httpCookie", k.HttpCookie)
	}
	if m := h.GetMaglev(); m != nil {
		if size := m.GetTableSize(); size > maxTableSize || !big.NewInt(int64(size)).ProbablyPrime(0) {
			n.invalid(field+".maglev.tableSize", "%d is not a prime number up to %d", size, maxTableSize)
		}
	}
	old := h.GetMinimumRingSize() // deprecated, still read
	if old != 0 && h.GetHashAlgorithm() != nil {
		n.invalid(field+".minimumRingSize", "minimumRingSize, and ringHash or maglev, exclude each other")
	}
	if cmp.Or(h.GetRingHash().GetMinimumRingSize(), old) > maxRingSize {
		n.invalid(field, "a ring has at most %d entries", maxRingSize)
	}
}

func validateCookie(n *notes, field string, c *networking.LoadBalancerSettings_ConsistentHashLB_HTTPCookie) {
	if c.GetName() == "" || !visible(c.GetName()) || !visible(c.GetPath()) {
		n.invalid(field, "a cookie needs a name, without control characters as its path")
	}
	if d := c.GetTtl(); d != nil && (d.CheckValid() != nil || d.AsDuration() < 0) {
		n.invalid(field+".ttl", "the duration is negative or cannot be represented")
	}
	seen := map[string]bool{}
	for i, a := range c.GetAttributes() {
		switch {
		case a.GetName() == "" || !visible(a.GetName()+a.GetValue()):
			n.invalid(at(field+".attributes", i), "an attribute needs a name, without control characters as its value")
		case seen[a.GetName()]:
			n.invalid(at(field+".attributes", i), "attribute %s stands twice", a.GetName())
		}
		seen[a.GetName()] = true
	}
}

func validateLocality(n *notes, field string, l *networking.LocalityLoadBalancerSetting) {
	if len(l.GetDistribute()) > 0 && len(l.GetFailover()) > 0 {
		n.invalid(field, "distribute and failover exclude each other")
	}
	for _, k := range l.GetFailoverPriority() {
		if place := k == model.TopologyRegion || k == model.TopologyZone || k == model.TopologySubZone; place && len(l.GetFailover()) > 0 {
			n.invalid(field+".failoverPriority", "failover and the label %s exclude each other", k)
		}
	}
	for i, d := range l.GetDistribute() {
		field := at(field+".distribute", i)
		sum := uint64(0)
		for _, to := range slices.Sorted(maps.Keys(d.GetTo())) {
			share := d.GetTo()[to]
			if sum += uint64(share); share == 0 || share > 100 {
				n.invalid(entry(field+".to", to), "%d is not a percentage between 1 and 100", share)
			}
		}
		if sum != 100 {
			n.invalid(field+".to", "the percentages sum to %d, not to 100", sum)
		}
	}
	for i, f := range l.GetFailover() {
		validateRegions(n, at(field+".failover", i), f.GetFrom(), f.GetTo())
	}
}

func validateZoneAware(n *notes, field string, z *networking.ZoneAwareLoadBalancerSetting) {
	for i, k := range z.GetFailoverPriority() {
		if k == model.TopologyRegion || k == model.TopologyZone || k == model.TopologySubZone {
			n.invalid(at(field+".failoverPriority", i), "regions and zones are preferred anyway: the label %s cannot stand here", k)
		}
	}
	for i, f := range z.GetFailover() {
		validateRegions(n, at(field+".failover", i), f.GetFrom(), f.GetTo())
	}
}

func validateRegions(n *notes, field, from, to string) {
	switch {
	case from == to:
		n.invalid(field, "from and to are the same region")
	case strings.ContainsAny(from+to, "/*"):
		n.invalid(field, "regions are named whole, without zones and wildcards")
	}
}

func validatePool(n *notes, field string, p *networking.ConnectionPoolSettings) {
	http, tcp := p.GetHttp(), p.GetTcp()
	for name, v := range map[string]int32{
		"tcp.maxConnections": tcp.GetMaxConnections(), "http.http1MaxPendingRequests": http.GetHttp1MaxPendingRequests(),
		"http.http2MaxRequests": http.GetHttp2MaxRequests(), "http.maxRequestsPerConnection": http.GetMaxRequestsPerConnection(),
		"http.maxRetries": http.GetMaxRetries(), "http.maxConcurrentStreams": http.GetMaxConcurrentStreams(),
	} {
		if v < 0 {
			n.invalid(field+"."+name, "%d is negative", v)
		}
	}
	validateDuration(n, field+".tcp.connectTimeout", tcp.GetConnectTimeout())
	validateDuration(n, field+".tcp.maxConnectionDuration", tcp.GetMaxConnectionDuration())
	if d := tcp.GetIdleTimeout(); d.AsDuration() != 0 { // 0 is none
		validateDuration(n, field+".tcp.idleTimeout", d)
	}
	validateDuration(n, field+".tcp.tcpKeepalive.time", tcp.GetTcpKeepalive().GetTime())
	validateDuration(n, field+".tcp.tcpKeepalive.interval", tcp.GetTcpKeepalive().GetInterval())
	validateDuration(n, field+".http.idleTimeout", http.GetIdleTimeout())
	if k := http.GetHttp2KeepAlive(); k != nil {
		if k.GetInterval() == nil || k.GetTimeout() == nil {
			n.invalid(field+".http.http2KeepAlive", "keepalive needs an interval and a timeout")
		}
		validateDuration(n, field+".http.http2KeepAlive.interval", k.GetInterval())
		validateDuration(n, field+".http.http2KeepAlive.timeout", k.GetTimeout())
	}
	if http.GetUseClientProtocol() && http.GetH2UpgradePolicy() == networking.ConnectionPoolSettings_HTTPSettings_UPGRADE {
		n.invalid(field+".http", "useClientProtocol and h2UpgradePolicy UPGRADE exclude each other")
	}
}

func validateOutlier(n *notes, field string, o *networking.OutlierDetection) {
	if o == nil {
		return
	}
	validateDuration(n, field+".interval", o.GetInterval())
	validateDuration(n, field+".baseEjectionTime", o.GetBaseEjectionTime())
	for name, v := range map[string]int32{"maxEjectionPercent": o.GetMaxEjectionPercent(), "minHealthPercent": o.GetMinHealthPercent()} {
		if v < 0 || v > 100 {
			n.invalid(field+"."+name, "%d is not between 0 and 100", v)
		}
	}
	if !o.GetSplitExternalLocalOriginErrors() && o.GetConsecutiveLocalOriginFailures().GetValue() > 0 {
		n.invalid(field+".consecutiveLocalOriginFailures", "failures of the own side are told apart only with splitExternalLocalOriginErrors")
	}
}
