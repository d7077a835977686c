// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"cmp"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

func isHash(b model.Balance) bool { return b == model.ByRing || b == model.ByTable }

// balance translates how an endpoint is chosen.
func balance(p *model.TrafficPolicy, in *networking.LoadBalancerSettings) {
	switch in.GetSimple() {
	case networking.LoadBalancerSettings_RANDOM:
		p.Balance = model.Random
	case networking.LoadBalancerSettings_ROUND_ROBIN:
		p.Balance = model.RoundRobin
	case networking.LoadBalancerSettings_PASSTHROUGH:
		p.Balance = model.AsDialled
	}
	if h := in.GetConsistentHash(); h != nil {
		p.Balance = model.ByRing
		p.HashSize = cmp.Or(h.GetRingHash().GetMinimumRingSize(), h.GetMinimumRingSize()) // deprecated, still read
		if h.GetMaglev() != nil {
			p.Balance, p.HashSize = model.ByTable, h.GetMaglev().GetTableSize()
		}
	}
	if p.Balance != model.LeastRequest && p.Balance != model.RoundRobin {
		return // it knows no warm-up
	}
	switch w := in.GetWarmup(); {
	case w != nil:
		p.Warmup = &model.Warmup{Duration: duration(w.GetDuration()), Aggression: w.GetAggression().GetValue()}
		if m := w.GetMinimumPercent(); m != nil {
			v := m.GetValue()
			p.Warmup.MinimumPercent = &v
		}
	case in.GetWarmupDurationSecs() != nil: // deprecated, still read
		p.Warmup = &model.Warmup{Duration: duration(in.GetWarmupDurationSecs())} // deprecated, still read
	}
}

// hashOn translates what is hashed by; there is at most one thing.
func hashOn(in *networking.LoadBalancerSettings_ConsistentHashLB) []model.HashOn {
	switch k := in.GetHashKey().(type) {
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpHeaderName:
		return []model.HashOn{{Header: strings.ToLower(k.HttpHeaderName)}}
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpQueryParameterName:
		return []model.HashOn{{Query: k.HttpQueryParameterName}}
	case *networking.LoadBalancerSettings_ConsistentHashLB_HttpCookie:
		c := &model.HashCookie{Name: k.HttpCookie.GetName(), Path: k.HttpCookie.GetPath()}
		if k.HttpCookie.GetTtl() != nil {
			ttl := duration(k.HttpCookie.GetTtl())
			c.TTL = &ttl
		}
		for _, a := range k.HttpCookie.GetAttributes() {
			c.Attributes = append(c.Attributes, model.Header{Name: a.GetName(), Value: a.GetValue()})
		}
		slices.SortFunc(c.Attributes, func(a, b model.Header) int { return strings.Compare(a.Name, b.Name) })
		return []model.HashOn{{Cookie: c}}
	case *networking.LoadBalancerSettings_ConsistentHashLB_UseSourceIp:
		if k.UseSourceIp {
			return []model.HashOn{{SourceIP: true}}
		}
	}
	return nil
}

// Labels that Istio has endpoints preferred by for a service's trafficDistribution.
var (
	sameZone = []string{model.TopologyNetwork, model.TopologyRegion, model.TopologyZone}
	sameNode = []string{model.TopologyNetwork, model.TopologyRegion, model.TopologyZone, model.TopologySubZone, model.TopologyHost}
)

// distributionAnnotation is how a service or a namespace said it before Kubernetes could.
const distributionAnnotation = "networking.istio.io/traffic-distribution"

// distributionOf is what a service says about near endpoints, by labels to prefer; nil
// if it says nothing.
func (t *Translator) distributionOf(r translators.Reader, namespace, name string) []string {
	o := r.Get(objects.ServiceKind, namespace, name)
	if o == nil {
		return nil
	}
	if s, ok := o.Value.(*corev1.Service); ok && s.Spec.TrafficDistribution != nil {
		if labels, ok := distribution(*s.Spec.TrafficDistribution); ok {
			return labels
		}
	}
	if said := o.Annotations[distributionAnnotation]; said != "" {
		labels, _ := distribution(said)
		return labels
	}
	if ns := r.Get(objects.NamespaceKind, "", namespace); ns != nil {
		labels, _ := distribution(ns.Annotations[distributionAnnotation])
		return labels
	}
	return nil
}

func distribution(said string) (labels []string, known bool) {
	switch strings.ToLower(said) {
	case strings.ToLower(corev1.ServiceTrafficDistributionPreferSameZone), strings.ToLower(corev1.ServiceTrafficDistributionPreferClose):
		return sameZone, true
	case strings.ToLower(corev1.ServiceTrafficDistributionPreferSameNode):
		return sameNode, true
	}
	return nil, false
}

// nearness is a setting of locality, whoever made it. The zero value says nothing.
type nearness struct {
	locality  *networking.LocalityLoadBalancerSetting
	zoneAware *networking.ZoneAwareLoadBalancerSetting
	// labels are those of a service's trafficDistribution; they need no outlier detection.
	labels []string
}

// localitySetting is the one that counts: the rule's, then the service's, then the
// mesh's. One that is switched off counts, too.
func localitySetting(in *networking.LoadBalancerSettings, service []string, mesh *meshConfig) nearness {
	switch {
	case in.GetZoneAwareLbSetting() != nil:
		return nearness{zoneAware: in.GetZoneAwareLbSetting()}
	case in.GetLocalityLbSetting() != nil:
		return nearness{locality: in.GetLocalityLbSetting()}
	case service != nil:
		return nearness{labels: service}
	case mesh.zoneAware != nil:
		return nearness{zoneAware: mesh.zoneAware}
	case mesh.locality != nil:
		return nearness{locality: mesh.locality}
	}
	return nearness{locality: &networking.LocalityLoadBalancerSetting{}}
}

// locality translates it. Istio prefers near endpoints only where it can tell that they
// fail, by outlier detection.
func locality(in nearness, outlier bool, cl client) *model.NearFar {
	switch l, z := in.locality, in.zoneAware; {
	case in.labels != nil:
		return &model.NearFar{Labels: in.labels}
	case z != nil && (z.GetEnabled() == nil || z.GetEnabled().GetValue()):
		// Zones share evenly, as they do in Istio if proxies do not discover themselves.
		out := &model.NearFar{ByRegion: true, Labels: cl.preferring(z.GetFailoverPriority())}
		for _, f := range slices.Backward(z.GetFailover()) {
			setRegion(out, f.GetFrom(), f.GetTo())
		}
		return out
	case z != nil || l.GetEnabled() != nil && !l.GetEnabled().GetValue():
		return nil
	case len(l.GetDistribute()) > 0:
		out := &model.NearFar{}
		for _, d := range l.GetDistribute() {
			out.Distribute = append(out.Distribute, model.Distribute{From: d.GetFrom(), To: d.GetTo()})
		}
		return out
	case !outlier:
		return nil
	default:
		out := &model.NearFar{Labels: cl.preferring(l.GetFailoverPriority())}
		out.Failover = len(l.GetFailoverPriority()) == 0 || len(l.GetFailover()) > 0
		for _, f := range slices.Backward(l.GetFailover()) {
			setRegion(out, f.GetFrom(), f.GetTo())
		}
		return out
	}
}

func setRegion(n *model.NearFar, from, to string) {
	if n.Regions == nil {
		n.Regions = map[string]string{}
	}
	n.Regions[from] = to
}

// preferring writes labels to prefer with the client's values, up to the first that
// nobody can know: the clients of a node differ in it.
func (cl client) preferring(keys []string) []string {
	var out []string
	for _, k := range keys {
		value, known := cl.labels[k]
		switch {
		case strings.Contains(k, "="), model.Topology(k):
		case known:
			k += "=" + value
		default:
			return out
		}
		out = append(out, k)
	}
	return out
}
