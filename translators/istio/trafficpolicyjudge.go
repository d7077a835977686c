// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/model"
)

// policyJudge says what became of traffic policies.
type policyJudge struct {
	n     *notes
	ports []model.ServicePort // of the services that they are for
}

// portsOf lists the TCP ports of services.
func portsOf(services []*model.Service) []model.ServicePort {
	var out []model.ServicePort
	for _, s := range services {
		for _, p := range s.Ports {
			if p.Protocol == model.TCP {
				out = append(out, p)
			}
		}
	}
	return out
}

// settings is what policies and settings for a port have in common.
type settings interface {
	GetLoadBalancer() *networking.LoadBalancerSettings
	GetConnectionPool() *networking.ConnectionPoolSettings
	GetOutlierDetection() *networking.OutlierDetection
	GetTls() *networking.ClientTLSSettings
}

// policy judges a policy; over is that of the host, if it is a subset's.
func (j policyJudge) policy(field string, p, over *networking.TrafficPolicy) {
	j.tunnel(field, p, over)
	if p == nil {
		return
	}
	detected := p.GetOutlierDetection() != nil || over.GetOutlierDetection() != nil
	j.settings(field, p, detected, j.ports)
	for i, s := range p.GetPortLevelSettings() {
		field := at(field+".portLevelSettings", i)
		number := s.GetPort().GetNumber()
		of := slices.DeleteFunc(slices.Clone(j.ports), func(p model.ServicePort) bool { return uint32(p.Port) != number })
		if len(of) == 0 && len(j.ports) > 0 {
			j.n.surprising(field+".port.number", "no-such-port", fmt.Sprintf("no service of the host has port %d: the settings apply nowhere", number), "")
		}
		j.settings(field, s, s.GetOutlierDetection() != nil, of)
		if left := notInherited(p, s); len(left) > 0 {
			j.n.surprising(field, "not-inherited",
				fmt.Sprintf("settings of a port inherit nothing: at port %d there is no %s", number, strings.Join(left, ", no ")), "repeat here what is to hold")
		}
	}
}

// notInherited lists the blocks that a policy has and settings of a port leave out.
func notInherited(p *networking.TrafficPolicy, s *networking.TrafficPolicy_PortTrafficPolicy) []string {
	var out []string
	for _, block := range []struct {
		name           string
		general, bound bool
	}{
		{"loadBalancer", p.GetLoadBalancer() != nil, s.GetLoadBalancer() != nil},
		{"connectionPool", p.GetConnectionPool() != nil, s.GetConnectionPool() != nil},
		{"outlierDetection", p.GetOutlierDetection() != nil, s.GetOutlierDetection() != nil},
	} {
		if block.general && !block.bound {
			out = append(out, block.name)
		}
	}
	return out
}

func (j policyJudge) settings(field string, s settings, detected bool, ports []model.ServicePort) {
	j.balance(field+".loadBalancer", s.GetLoadBalancer(), ports)
	j.nearness(field+".loadBalancer", s.GetLoadBalancer(), detected)
	j.outlier(field+".outlierDetection", s.GetOutlierDetection())
	upstreamTLS(j.n, field+".tls", s.GetTls())
}

func (j policyJudge) balance(field string, lb *networking.LoadBalancerSettings, ports []model.ServicePort) {
	if lb.GetWarmup() != nil || lb.GetWarmupDurationSecs() != nil { // deprecated, still read
		p := &model.TrafficPolicy{}
		if balance(p, lb); p.Warmup == nil {
			name := ".warmup"
			if lb.GetWarmup() == nil {
				name = ".warmupDurationSecs"
			}
			j.n.surprising(field+name, "no-effect", "only ROUND_ROBIN and LEAST_REQUEST warm endpoints up, as in Istio", "")
		}
	}
	hash := hashOn(lb.GetConsistentHash())
	requests := slices.ContainsFunc(ports, func(p model.ServicePort) bool { return p.App.HasRequests() || detected(p) })
	if len(hash) > 0 && !hash[0].SourceIP && len(ports) > 0 && !requests {
		j.n.surprising(field+".consistentHash", "no-requests", "no port of the host has requests that could be hashed: its connections go to any endpoint, as in Istio", "use useSourceIp")
	}
}

// nearness notes what a setting of locality needs, or cannot have.
func (j policyJudge) nearness(field string, lb *networking.LoadBalancerSettings, detected bool) {
	l, z := lb.GetLocalityLbSetting(), lb.GetZoneAwareLbSetting()
	if !detected && len(l.GetDistribute()) == 0 && (len(l.GetFailover()) > 0 || len(l.GetFailoverPriority()) > 0) {
		j.n.surprising(field+".localityLbSetting", "no-outlier-detection", "without outlier detection nobody is preferred, as in Istio", "add outlierDetection")
	}
	if z.GetMinClusterSize() != nil {
		j.n.surprising(field+".zoneAwareLbSetting.minClusterSize", "no-effect",
			"zones of a region share evenly, as they do in Istio where proxies do not discover themselves (ENABLE_SELF_DISCOVERY): there is no least size", "")
	}
	if detected && len(l.GetDistribute()) == 0 {
		j.labels(field+".localityLbSetting.failoverPriority", l.GetFailoverPriority())
	}
	j.labels(field+".zoneAwareLbSetting.failoverPriority", z.GetFailoverPriority())
}

// labels refuses labels in which the clients of a node may differ.
func (j policyJudge) labels(field string, keys []string) {
	for i, k := range keys {
		if strings.Contains(k, "=") || model.Topology(k) {
			continue
		}
		j.n.approximated(at(field, i), "label-of-client", model.Degrades,
			fmt.Sprintf("one proxy serves all clients of a node: they are told apart by %s only in routes with sourceLabels that name it; elsewhere endpoints are compared by the labels before it alone", k),
			fmt.Sprintf("write %s=VALUE", k))
		return
	}
}

func (j policyJudge) outlier(field string, o *networking.OutlierDetection) {
	if o.GetConsecutiveErrors() != 0 { // deprecated
		j.n.surprising(field+".consecutiveErrors", "no-effect", "Istio does not read this field any more; so is it here", "use consecutive5xxErrors or consecutiveGatewayErrors")
	}
	if len(o.GetOutlierDetectionHttpErrorCodes()) > 0 {
		j.n.surprising(field+".outlierDetectionHttpErrorCodes", "no-effect", "Istio up to 1.31 does not read this field; so is it here", "use consecutive5xxErrors or consecutiveGatewayErrors")
	}
}

// upstreamTLS accepts plaintext, which is what there is.
func upstreamTLS(n *notes, field string, tls *networking.ClientTLSSettings) {
	switch {
	case tls == nil:
	case tls.GetMode() == networking.ClientTLSSettings_ISTIO_MUTUAL:
		n.approximated(field+".mode", "identity-by-address", model.Degrades,
			"there is no mutual TLS yet: peers are known by their addresses, and nothing is encrypted", "")
	case tls.GetMode() != networking.ClientTLSSettings_DISABLE:
		n.refused(field+".mode", "unsupported-field", model.Degrades,
			fmt.Sprintf("TLS to the backend (%s) is not supported: what is sent is not encrypted", strings.ToLower(tls.GetMode().String())), "let the client use TLS")
	}
	if tls != nil {
		tls.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
			if name := fd.JSONName(); name != "mode" {
				n.refused(field+"."+name, "unsupported-field", model.Degrades, "TLS to the backend is not supported: the field has no effect", "")
			}
			return true
		})
	}
}
