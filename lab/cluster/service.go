// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"fairlead.io/fairlead/translators/objects"
)

// Service is a service with its cluster addresses.
type Service struct {
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses,omitempty"` // none: headless, or a name alone
	Ports     []string     `json:"ports"`               // "name 80/TCP -> http"

	object *corev1.Service
	source *objects.Object
	given  []netip.Addr // addresses that the lab chose, so that they are to be written
}

// Key is "namespace/name".
func (s *Service) Key() string { return s.Namespace + "/" + s.Name }

// services gives every service its addresses.
func (b *builder) services() {
	var all []*Service
	taken := map[netip.Addr]bool{}
	for _, o := range b.objects {
		v, ok := o.Value.(*corev1.Service)
		if !ok {
			continue
		}
		s := &Service{Namespace: o.Namespace, Name: o.Name, object: v, source: o}
		for _, p := range v.Spec.Ports {
			s.Ports = append(s.Ports, strings.TrimSpace(fmt.Sprintf("%s %d/%s", p.Name, p.Port, cmp.Or(p.Protocol, corev1.ProtocolTCP))))
		}
		ips := v.Spec.ClusterIPs
		if len(ips) == 0 && v.Spec.ClusterIP != "" {
			ips = []string{v.Spec.ClusterIP}
		}
		for _, ip := range ips {
			if a, err := netip.ParseAddr(ip); err == nil {
				s.Addresses = append(s.Addresses, a)
				taken[a] = true
			}
		}
		all = append(all, s)
	}
	for _, s := range all {
		if len(s.Addresses) == 0 && !headless(s.object) && s.object.Spec.Type != corev1.ServiceTypeExternalName {
			b.give(s, func(a netip.Addr) bool { return taken[a] })
		}
	}
	for key := range b.state.Services {
		if !slices.ContainsFunc(all, func(s *Service) bool { return s.Key() == key && len(s.given) > 0 }) {
			delete(b.state.Services, key)
		}
	}
	b.svcs = all
}

func headless(v *corev1.Service) bool {
	return v.Spec.ClusterIP == corev1.ClusterIPNone || slices.Contains(v.Spec.ClusterIPs, corev1.ClusterIPNone)
}

// give chooses addresses of the families that the service asks for; both, if it
// does not say.
func (b *builder) give(s *Service, taken func(netip.Addr) bool) {
	n, ok := b.state.takeService(s.Key(), taken)
	if !ok {
		b.lose(s.source, "no cluster address is left")
		return
	}
	addrs := serviceAddresses(n)
	for _, f := range families(s.object) {
		s.given = append(s.given, addrs[map[corev1.IPFamily]int{corev1.IPv4Protocol: 0, corev1.IPv6Protocol: 1}[f]])
	}
	s.Addresses = s.given
}

// families of a service, the first one first.
func families(v *corev1.Service) []corev1.IPFamily {
	out := slices.DeleteFunc(slices.Clone(v.Spec.IPFamilies), func(f corev1.IPFamily) bool {
		return f != corev1.IPv4Protocol && f != corev1.IPv6Protocol
	})
	both := len(out) == 0 // the lab's default, where Kubernetes leaves it to the cluster
	if p := v.Spec.IPFamilyPolicy; p != nil {
		both = *p != corev1.IPFamilyPolicySingleStack
	}
	if len(out) == 0 {
		out = []corev1.IPFamily{corev1.IPv4Protocol}
	}
	switch {
	case !both:
		return out[:min(len(out), max(1, len(v.Spec.IPFamilies)))]
	case out[0] == corev1.IPv6Protocol:
		return []corev1.IPFamily{corev1.IPv6Protocol, corev1.IPv4Protocol}
	}
	return []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
}

// selecting are the services that select the pod.
func (b *builder) selecting(p *Pod) []*Service {
	var out []*Service
	for _, s := range b.svcs {
		if s.Namespace == p.Namespace && selects(s.object.Spec.Selector, p.Labels) {
			out = append(out, s)
		}
	}
	return out
}

func selects(selector, have map[string]string) bool {
	for k, v := range selector {
		if h, ok := have[k]; !ok || h != v {
			return false
		}
	}
	return len(selector) > 0
}

// target is the pod's port that a service's port leads to.
func target(sp corev1.ServicePort, pod *corev1.Pod) (uint16, bool) {
	n := sp.TargetPort.IntVal
	switch {
	case sp.TargetPort.Type == intstr.String && sp.TargetPort.StrVal != "":
		n = 0
		for _, c := range pod.Spec.Containers {
			for _, cp := range c.Ports {
				if cp.Name == sp.TargetPort.StrVal && cmp.Or(cp.Protocol, corev1.ProtocolTCP) == cmp.Or(sp.Protocol, corev1.ProtocolTCP) {
					n = cmp.Or(n, cp.ContainerPort)
				}
			}
		}
	case n == 0:
		n = sp.Port
	}
	return uint16(n), n > 0 && n <= 65535
}

// behind is a group of pods whose ports a service finds at the same numbers.
type behind struct {
	ports []discoveryv1.EndpointPort
	pods  []*Pod
}

// slices makes a service's EndpointSlices, of one address family.
func (b *builder) endpointSlices(s *Service, family corev1.IPFamily) []*discoveryv1.EndpointSlice {
	var groups []*behind
	for _, p := range b.running() {
		if p.Namespace != s.Namespace || !selects(s.object.Spec.Selector, p.Labels) {
			continue
		}
		ports := b.endpointPorts(s, p)
		i := slices.IndexFunc(groups, func(g *behind) bool { return portsKey(g.ports) == portsKey(ports) })
		if i < 0 {
			groups = append(groups, &behind{ports: ports})
			i = len(groups) - 1
		}
		groups[i].pods = append(groups[i].pods, p)
	}
	// In the order of their ports, so that a group keeps its name.
	slices.SortFunc(groups, func(x, y *behind) int { return cmp.Compare(portsKey(x.ports), portsKey(y.ports)) })
	var out []*discoveryv1.EndpointSlice
	for i, g := range groups {
		e := &discoveryv1.EndpointSlice{TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
			AddressType: discoveryv1.AddressType(family), Ports: g.ports}
		e.Namespace, e.Name = s.Namespace, fmt.Sprintf("%s-%s", s.Name, strings.ToLower(string(family)))
		if i > 0 {
			e.Name += fmt.Sprintf("-%d", i+1)
		}
		e.Labels = map[string]string{discoveryv1.LabelServiceName: s.Name, discoveryv1.LabelManagedBy: "fairlead-lab"}
		if headless(s.object) {
			e.Labels[corev1.IsHeadlessService] = ""
		}
		for _, p := range g.pods {
			e.Endpoints = append(e.Endpoints, b.endpoint(s, p, family))
		}
		out = append(out, e)
	}
	return out
}

func (b *builder) endpoint(s *Service, p *Pod, family corev1.IPFamily) discoveryv1.Endpoint {
	addr := p.Addresses[0]
	if family == corev1.IPv6Protocol {
		addr = p.Addresses[1]
	}
	serving, ending := b.ready(p), b.ending(p)
	ready := serving && !ending || s.object.Spec.PublishNotReadyAddresses
	e := discoveryv1.Endpoint{Addresses: []string{addr.String()}, NodeName: &p.Node,
		Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &ending},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name}}
	if h := p.Object.Spec.Hostname; h != "" && p.Object.Spec.Subdomain == s.Name {
		e.Hostname = &h
	}
	return e
}

func (b *builder) endpointPorts(s *Service, p *Pod) []discoveryv1.EndpointPort {
	var out []discoveryv1.EndpointPort
	for _, sp := range s.object.Spec.Ports {
		n, ok := target(sp, p.Object)
		if !ok {
			b.note(s.source, "port %d: pod %s has no port named %q", sp.Port, p.Key(), sp.TargetPort.String())
			continue
		}
		number, proto, name := int32(n), cmp.Or(sp.Protocol, corev1.ProtocolTCP), sp.Name
		out = append(out, discoveryv1.EndpointPort{Name: &name, Protocol: &proto, Port: &number, AppProtocol: sp.AppProtocol})
	}
	return out
}

func portsKey(ports []discoveryv1.EndpointPort) string {
	var s strings.Builder
	for _, p := range ports {
		fmt.Fprintf(&s, "%s/%s/%05d ", *p.Name, *p.Protocol, *p.Port)
	}
	return s.String()
}

// running are all pods that are there, also those on their way out, by name.
func (b *builder) running() []*Pod {
	out := slices.Concat(b.pods, b.old())
	slices.SortFunc(out, func(x, y *Pod) int { return cmp.Compare(x.Key(), y.Key()) })
	return out
}

func (b *builder) ready(p *Pod) bool { return b.options.Ready == nil || b.options.Ready(p.Key()) }

func (b *builder) ending(p *Pod) bool {
	return b.options.Ending && !b.asked[p.Key()]
}
