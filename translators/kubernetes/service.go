// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

func (t *Translator) service(_ *incr.Reader, o *objects.Object, rep *report) []incr.Row {
	v := o.Value.(*corev1.Service)
	if v.Spec.Type == corev1.ServiceTypeExternalName {
		rep.refused("spec.type", "external-name", "services of type ExternalName are names in DNS alone: nothing is routed for them",
			"call the external name itself")
		return nil
	}
	s := &model.Service{Namespace: o.Namespace, Name: o.Name, Src: o.Source(Plane, "")}
	s.VIPs = vips(v, rep)
	s.Hosts = t.hosts(o, len(s.VIPs) == 0)
	for i, p := range v.Spec.Ports {
		field := fmt.Sprintf("spec.ports[%d]", i)
		if p.Port < 1 || p.Port > math.MaxUint16 {
			rep.refused(field+".port", "bad-port", fmt.Sprintf("%d is not a port", p.Port), "")
			continue
		}
		proto, ok := protocol(p.Protocol)
		if !ok {
			rep.refused(field+".protocol", "unsupported-protocol", fmt.Sprintf("%s is not TCP or UDP: the port is left out", p.Protocol), "")
			continue
		}
		if isRepeated(v, i) {
			rep.refused(field+".port", "duplicate-port", fmt.Sprintf("%s port %d is there already: the first one counts", proto, p.Port), "write each port once")
			continue
		}
		s.Ports = append(s.Ports, model.ServicePort{Name: p.Name, Port: uint16(p.Port), Protocol: proto, App: app(p, proto, field, rep)})
	}
	switch a := v.Spec.SessionAffinity; a {
	case "", corev1.ServiceAffinityNone:
	case corev1.ServiceAffinityClientIP:
		s.Affinity = affinity(v)
	default:
		rep.refused("spec.sessionAffinity", "unknown-value", fmt.Sprintf("%q is not None or ClientIP", a), "")
	}
	outside(v, rep)
	return []incr.Row{{Table: translators.Services, Key: o.Key(), Value: s}}
}

// hosts are the names of a service in the cluster's DNS, the full one first, and of
// a headless one also those of its pods below it.
func (t *Translator) hosts(o *objects.Object, headless bool) []string {
	name := strings.ToLower(o.Name)
	short := name + "." + strings.ToLower(o.Namespace)
	out := []string{short + ".svc." + strings.ToLower(t.domain), short + ".svc", short, name}
	if headless {
		for _, h := range out[:3] {
			out = append(out, "*."+h)
		}
	}
	return out
}

func vips(v *corev1.Service, rep *report) []netip.Addr {
	list, field := v.Spec.ClusterIPs, "spec.clusterIPs"
	if len(list) == 0 && v.Spec.ClusterIP != "" {
		list, field = []string{v.Spec.ClusterIP}, "spec.clusterIP"
	}
	var out []netip.Addr
	for i, s := range list {
		if s == corev1.ClusterIPNone {
			return nil
		}
		if a, ok := address(s); ok {
			out = append(out, a)
		} else {
			f := field
			if f == "spec.clusterIPs" {
				f = fmt.Sprintf("%s[%d]", field, i)
			}
			rep.refused(f, "bad-address", fmt.Sprintf("%q is not an address", s), "")
		}
	}
	return sortedAddrs(out)
}

func affinity(v *corev1.Service) time.Duration {
	seconds := corev1.DefaultClientIPServiceAffinitySeconds
	if c := v.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		seconds = *c.ClientIP.TimeoutSeconds
	}
	return time.Duration(seconds) * time.Second
}

// outside reports what brings traffic from outside the cluster, which stays kube-proxy's,
// and where it means nothing that endpoints are to be near.
func outside(v *corev1.Service, rep *report) {
	stays := func(field, what string) {
		rep.say(field, "outside-access", model.Cosmetic, model.Translated,
			what+" stay kube-proxy's: policy holds for what comes that way, routes do not", "")
	}
	switch v.Spec.Type {
	case corev1.ServiceTypeNodePort:
		stays("spec.type", "its node ports")
	case corev1.ServiceTypeLoadBalancer:
		stays("spec.type", "its node ports and load balancer")
	case "", corev1.ServiceTypeClusterIP:
	default:
		rep.refused("spec.type", "unknown-value", fmt.Sprintf("%q is not a type of service", v.Spec.Type), "")
	}
	if len(v.Spec.ExternalIPs) > 0 {
		stays("spec.externalIPs", "its external addresses")
	}
	if p := v.Spec.InternalTrafficPolicy; p != nil && *p == corev1.ServiceInternalTrafficPolicyLocal && isHeadless(v) {
		rep.say("spec.internalTrafficPolicy", "locality", model.Cosmetic, model.Approximated, "a service without an address has clients choose among all of its endpoints, in Kubernetes, too", "")
	}
}

func protocol(p corev1.Protocol) (model.Protocol, bool) {
	switch p {
	case "", corev1.ProtocolTCP:
		return model.TCP, true
	case corev1.ProtocolUDP:
		return model.UDP, true
	}
	return "", false
}

// apps are the words of port-name prefixes and of appProtocol.
var apps = map[string]model.App{
	"http": model.AppHTTP, "http2": model.AppHTTP2, "grpc": model.AppGRPC, "grpc-web": model.AppGRPC,
	"https": model.AppTLS, "tls": model.AppTLS, "tcp": model.AppTCP, "mongo": model.AppTCP, "redis": model.AppTCP,
	"mysql":          model.AppTCP,
	"linkerd.io/tcp": model.AppTCP, "linkerd.io/opaque": model.AppTCP,
	"kubernetes.io/h2c": model.AppHTTP2, "kubernetes.io/ws": model.AppHTTP, "kubernetes.io/wss": model.AppTLS,
}

// app finds what a port speaks: appProtocol, else the name up to the first dash.
func app(p corev1.ServicePort, proto model.Protocol, field string, rep *report) model.App {
	if proto == model.UDP {
		return model.AppUndeclared
	}
	if p.AppProtocol != nil {
		a, ok := apps[strings.ToLower(*p.AppProtocol)]
		if !ok {
			rep.say(field+".appProtocol", "unknown-app-protocol", model.Degrades, model.Approximated,
				fmt.Sprintf("%q is not known: connections are passed on as they are", *p.AppProtocol),
				"use http, http2, grpc, tls or tcp")
		}
		return a
	}
	name := strings.ToLower(p.Name)
	if name == "grpc-web" || strings.HasPrefix(name, "grpc-web-") { // Istio's word for what it speaks HTTP/2 to
		return model.AppGRPC
	}
	name, _, _ = strings.Cut(name, "-")
	return apps[name]
}
