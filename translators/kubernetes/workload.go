// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

func (t *Translator) workload(r *incr.Reader, o *objects.Object, rep *report) []incr.Row {
	pod := o.Value.(*corev1.Pod)
	if finished(pod) {
		return nil // its address may be another pod's by now
	}
	w := &model.Workload{Namespace: o.Namespace, Name: o.Name, Node: pod.Spec.NodeName, UID: string(pod.UID), HostNetwork: pod.Spec.HostNetwork,
		Addresses: addressesOf(r, o, pod, rep), Labels: o.Labels, Src: o.Source(Plane, ""),
		Identity: model.SPIFFE(t.trustDomain, o.Namespace, cmp.Or(pod.Spec.ServiceAccountName, pod.Spec.DeprecatedServiceAccount, "default"))}
	badAddresses(pod, rep)
	if len(w.Addresses) == 0 {
		return nil // not running yet
	}
	w.Locality = podLocality(o.Labels)
	w.Capture, w.Sidecar = t.captured(r, o, pod, rep)
	ns, _ := r.Get(translators.Objects(objects.NamespaceKind), o.Namespace).(*objects.Object)
	w.Observed = t.observed(ns)
	if !w.HostNetwork {
		w.Proxy = ownProxy(ns)
	}
	ports(w, pod, rep)
	w.ProbePorts = probePorts(pod, rep)
	unheard(o, rep)
	return []incr.Row{{Table: translators.Workloads, Key: o.Key(), Value: w}}
}

func finished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// Told is what the node's container runtime said of a pod's network, which it does before
// the API server knows: an input of the agent, keyed like pods.
type Told struct {
	UID       string       // of the pod, as the runtime has it
	Addresses []netip.Addr // sorted
	// Instead are the addresses that the pod's status had by then: none of a new pod, and
	// of one whose network was made anew those of before. Status holds as soon as it says
	// something else.
	Instead []netip.Addr
}

// ToldAddresses is the table of *Told.
const ToldAddresses incr.Table = "told"

// AddressesOf are those in a pod's status; sorted.
func AddressesOf(pod *objects.Object) []netip.Addr { return podAddresses(pod.Value.(*corev1.Pod)) }

// mirrorKey is where the pod of a kubelet's own manifest has the id by which that knows it.
const mirrorKey = "kubernetes.io/config.mirror"

// Is reports whether the pod is the one that a node's container runtime knows by an id; ""
// is not known, and any pod's.
func Is(pod *objects.Object, uid string) bool {
	return uid == "" || uid == string(pod.Value.(*corev1.Pod).UID) || uid == pod.Annotations[mirrorKey]
}

// addressesOf are the pod's addresses as its status says, or as they were told before that.
func addressesOf(r *incr.Reader, o *objects.Object, pod *corev1.Pod, rep *report) []netip.Addr {
	said := podAddresses(pod)
	told, _ := r.Get(ToldAddresses, o.Key()).(*Told)
	if told == nil || slices.Equal(said, told.Addresses) {
		return said
	}
	use := said
	if slices.Equal(said, told.Instead) {
		use = told.Addresses
	}
	if len(said) > 0 {
		rep.say("status.podIPs", "addresses-differ", model.Degrades, model.Approximated,
			fmt.Sprintf("the pod's status has the addresses %v, and its network was made with %v: %v are used", said, told.Addresses, use),
			"if this lasts, look at the other plugins of the node's network configuration")
	}
	return use
}

func podAddresses(pod *corev1.Pod) []netip.Addr {
	var out []netip.Addr
	for _, ip := range pod.Status.PodIPs {
		if a, ok := address(ip.IP); ok {
			out = append(out, a)
		}
	}
	if a, ok := address(pod.Status.PodIP); ok {
		out = append(out, a)
	}
	return sortedAddrs(out)
}

func badAddresses(pod *corev1.Pod, rep *report) {
	for i, ip := range pod.Status.PodIPs {
		if _, ok := address(ip.IP); !ok {
			rep.refused(fmt.Sprintf("status.podIPs[%d].ip", i), "bad-address", fmt.Sprintf("%q is not an address", ip.IP), "")
		}
	}
	if _, ok := address(pod.Status.PodIP); !ok && pod.Status.PodIP != "" {
		rep.refused("status.podIP", "bad-address", fmt.Sprintf("%q is not an address", pod.Status.PodIP), "")
	}
}

// sidecars are the containers by which other data planes sit in a pod.
var sidecars = []string{"istio-proxy", "linkerd-proxy"}

// captured decides whether the pod's requests are routed here, and whether a mesh's own
// proxy or redirection still has them.
func (t *Translator) captured(r *incr.Reader, o *objects.Object, pod *corev1.Pod, rep *report) (on, remaining bool) {
	ns, _ := r.Get(translators.Objects(objects.NamespaceKind), o.Namespace).(*objects.Object)
	on = CaptureMark(o, ns).On
	reportMarks(o, rep)
	reportUntaken(o, ns, rep)
	if field := sidecar(pod); field != "" {
		rep.say(field, "sidecar", model.Degrades, model.Approximated,
			"the pod still has a sidecar, which routes its requests: it is not captured, policy applies to it all the same",
			"remove the sidecar to have its requests routed here")
		return false, true
	}
	if o.Annotations["ambient.istio.io/redirection"] == "enabled" {
		rep.say(`metadata.annotations["ambient.istio.io/redirection"]`, "sidecar", model.Degrades, model.Approximated,
			"Istio's ambient mode still redirects the pod: it is not captured, policy applies to it all the same",
			"take it out of ambient mode to have its requests routed here")
		return false, true
	}
	if on && pod.Spec.HostNetwork {
		rep.say("spec.hostNetwork", "host-network", model.Degrades, model.Approximated,
			"a pod in the node's network cannot be told from the node: it is not captured", "")
		return false, false
	}
	return on, false
}

// sidecar is the field of a container that is another data plane's proxy, or "".
func sidecar(pod *corev1.Pod) string {
	for i, c := range pod.Spec.Containers {
		if slices.Contains(sidecars, c.Name) {
			return fmt.Sprintf("spec.containers[%d]", i)
		}
	}
	for i, c := range pod.Spec.InitContainers {
		if slices.Contains(sidecars, c.Name) && c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			return fmt.Sprintf("spec.initContainers[%d]", i)
		}
	}
	return ""
}

// placed is a container and where it is written.
type placed struct {
	corev1.Container
	field string
}

// containers lists those that run beside each other: the ordinary ones and init
// containers that keep running.
func containers(pod *corev1.Pod) []placed {
	var out []placed
	for i, c := range pod.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			out = append(out, placed{c, fmt.Sprintf("spec.initContainers[%d]", i)})
		}
	}
	for i, c := range pod.Spec.Containers {
		out = append(out, placed{c, fmt.Sprintf("spec.containers[%d]", i)})
	}
	return out
}

func ports(w *model.Workload, pod *corev1.Pod, rep *report) {
	for _, c := range containers(pod) {
		for i, p := range c.Ports {
			field := fmt.Sprintf("%s.ports[%d]", c.field, i)
			proto, ok := protocol(p.Protocol)
			if !ok {
				rep.refused(field+".protocol", "unsupported-protocol", fmt.Sprintf("%s is not TCP or UDP", p.Protocol), "")
				continue
			}
			if p.ContainerPort < 1 || p.ContainerPort > math.MaxUint16 {
				rep.refused(field+".containerPort", "bad-port", fmt.Sprintf("%d is not a port", p.ContainerPort), "")
				continue
			}
			w.Ports = append(w.Ports, model.WorkloadPort{Name: p.Name, Port: uint16(p.ContainerPort), Protocol: proto})
		}
	}
	slices.SortStableFunc(w.Ports, func(a, b model.WorkloadPort) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Name, b.Name))
	})
}

// probePorts are those that the kubelet connects to, for probes and for hooks.
func probePorts(pod *corev1.Pod, rep *report) []uint16 {
	var out []uint16
	add := func(c placed, field string, port intstr.IntOrString) {
		n, ok := probePort(c, port)
		if !ok {
			rep.refused(c.field+"."+field, "unknown-port", fmt.Sprintf("%s is not a port of the container", port.String()), "")
			return
		}
		out = append(out, n)
	}
	for _, c := range containers(pod) {
		for _, p := range []struct {
			field string
			probe *corev1.Probe
		}{{"livenessProbe", c.LivenessProbe}, {"readinessProbe", c.ReadinessProbe}, {"startupProbe", c.StartupProbe}} {
			switch {
			case p.probe == nil:
			case p.probe.HTTPGet != nil && p.probe.HTTPGet.Host == "":
				add(c, p.field+".httpGet.port", p.probe.HTTPGet.Port)
			case p.probe.TCPSocket != nil && p.probe.TCPSocket.Host == "":
				add(c, p.field+".tcpSocket.port", p.probe.TCPSocket.Port)
			case p.probe.GRPC != nil:
				add(c, p.field+".grpc.port", intstr.FromInt32(p.probe.GRPC.Port))
			}
		}
		if l := c.Lifecycle; l != nil {
			for _, h := range []struct {
				field string
				hook  *corev1.LifecycleHandler
			}{{"postStart", l.PostStart}, {"preStop", l.PreStop}} {
				if h.hook != nil && h.hook.HTTPGet != nil && h.hook.HTTPGet.Host == "" {
					add(c, "lifecycle."+h.field+".httpGet.port", h.hook.HTTPGet.Port)
				}
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func probePort(c placed, port intstr.IntOrString) (uint16, bool) {
	n := port.IntVal
	if port.Type == intstr.String {
		i := slices.IndexFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == port.StrVal })
		if i < 0 {
			return 0, false
		}
		n = c.Ports[i].ContainerPort
	}
	return uint16(n), n > 0 && n <= math.MaxUint16
}

// unheardPrefixes start annotations by which sidecars are told what to take or to
// leave; nothing here listens to them.
var unheardPrefixes = []string{
	"traffic.sidecar.istio.io/", "proxy.istio.io/", "ambient.istio.io/bypass-inbound-capture",
	"openservicemesh.io/outbound-", "openservicemesh.io/inbound-",
}

func unheard(o *objects.Object, rep *report) {
	for k := range o.Annotations {
		if slices.ContainsFunc(unheardPrefixes, func(p string) bool { return strings.HasPrefix(k, p) }) {
			rep.say(`metadata.annotations["`+k+`"]`, "annotation-not-heard", model.Degrades, model.Refused,
				"this tells a sidecar what to do; there is none, and nothing else does it", "")
		}
	}
}
