// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// accessPolicy is what a port lets in beside what authorizations do.
type accessPolicy string

const (
	allUnauthenticated     accessPolicy = "all-unauthenticated"
	allAuthenticated       accessPolicy = "all-authenticated"
	clusterUnauthenticated accessPolicy = "cluster-unauthenticated"
	clusterAuthenticated   accessPolicy = "cluster-authenticated"
	denyAll                accessPolicy = "deny"
	audit                  accessPolicy = "audit" // lets all in, and logs whom deny would not
)

var accessPolicies = []accessPolicy{allUnauthenticated, allAuthenticated, clusterUnauthenticated, clusterAuthenticated, denyAll, audit}

func policyWords() string {
	words := make([]string, len(accessPolicies))
	for i, p := range accessPolicies {
		words[i] = string(p)
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// open reports whether the policy lets everybody in.
func (p accessPolicy) open() bool { return p == allUnauthenticated || p == audit }

// authenticated is the policy for clients with an identity alone; what denies goes on
// to deny.
func (p accessPolicy) authenticated() accessPolicy {
	switch p {
	case allUnauthenticated:
		return allAuthenticated
	case clusterUnauthenticated:
		return clusterAuthenticated
	}
	return p
}

// client is who the policy lets in; ok is false if that is nobody.
func (t *Translator) client(p accessPolicy) (c client, ok bool) {
	switch p {
	case denyAll:
		return client{}, false
	case allAuthenticated, clusterAuthenticated:
		c.identities = []model.StringMatch{anybody}
	}
	if p == clusterAuthenticated || p == clusterUnauthenticated {
		c.networks = t.networks
	}
	return c, true
}

// notePolicy tells in what a policy differs from Linkerd's of that name.
func notePolicy(o *objects.Object, field string, p accessPolicy, rep *report) {
	switch p {
	case allAuthenticated, clusterAuthenticated:
		noteAnybody(o, field, rep)
	case audit:
		rep.approximated(o, field, "audit-not-logged", model.Cosmetic, "everything is allowed, as in Linkerd, but what deny would refuse is not marked in the logs", "")
	}
}

// noteAnybody tells who has an identity.
func noteAnybody(o *objects.Object, field string, rep *report) {
	rep.approximated(o, field, "identity-by-address", model.Degrades,
		"there is no mutual TLS yet: members of the mesh are known by their addresses, and nothing is encrypted", "")
}

// Annotations of pods, namespaces and services.
const (
	injectKey        = "linkerd.io/inject"
	defaultPolicyKey = "config.linkerd.io/default-inbound-policy"
	opaquePortsKey   = "config.linkerd.io/opaque-ports"
	skipInboundKey   = "config.linkerd.io/skip-inbound-ports"
	skipOutboundKey  = "config.linkerd.io/skip-outbound-ports"
	requireTLSKey    = "config.linkerd.io/proxy-require-identity-inbound-ports"
)

// defaultSkipped are the ports of Galera's, which Linkerd leaves alone unless it is told
// others; defaultOpaque those where servers speak first, or TLS is negotiated late.
var (
	defaultSkipped = mustPorts("4567,4568")
	defaultOpaque  = mustPorts("25,587,3306,4444,5432,6379,9300,11211")
)

// settings are what a pod's annotations, or else those of its namespace, say.
type settings struct {
	policy accessPolicy
	// policySrc is who says so; nil: nobody does.
	policySrc *model.Source
	opaque    portSet
	skipped   portSet
	required  portSet // where clients need an identity
	src       []model.Source
}

// settingsOf reads what holds for a pod. ns may be nil.
func (t *Translator) settingsOf(r translators.Reader, pod, ns *objects.Object, rep *report) settings {
	s := settings{policy: allUnauthenticated, skipped: defaultSkipped}
	if meshed(r, pod) {
		s.policy = t.policy
	}
	for _, o := range []*objects.Object{pod, ns} {
		if o == nil {
			continue
		}
		v, ok := o.Annotations[defaultPolicyKey]
		if !ok || o == ns && optedOut(pod) {
			continue
		}
		src := o.Source(Plane, annotation(defaultPolicyKey))
		s.policy, s.policySrc = accessPolicy(v), &src
		if !slices.Contains(accessPolicies, s.policy) {
			s.policy = denyAll // Linkerd does not let such a pod start; see noteSettings
		}
		if o == pod {
			notePolicy(o, src.Field, s.policy, rep)
		}
		break
	}
	ports := func(key string, set *portSet) {
		for _, o := range []*objects.Object{pod, ns} {
			if o == nil {
				continue
			}
			if v, ok := o.Annotations[key]; ok {
				*set, _ = readPorts(v)
				s.src = append(s.src, o.Source(Plane, annotation(key)))
				return
			}
		}
	}
	ports(opaquePortsKey, &s.opaque)
	ports(skipInboundKey, &s.skipped)
	ports(requireTLSKey, &s.required)
	return s
}

// injected reads Linkerd's mark of a pod; said is false if it has none.
func injected(o *objects.Object) (on, said bool) {
	for _, set := range []map[string]string{o.Labels, o.Annotations} {
		switch set[injectKey] {
		case "enabled", "ingress":
			return true, true
		case "disabled":
			return false, true
		}
	}
	return false, false
}

func optedOut(pod *objects.Object) bool {
	on, said := injected(pod)
	return said && !on
}

// meshed reports whether Linkerd's mark takes a pod.
func meshed(r translators.Reader, pod *objects.Object) bool {
	if on, said := injected(pod); said {
		return on
	}
	n := r.Namespace(pod.Namespace)
	return n != nil && n.Mesh == Plane
}

// namespace tells what becomes of a namespace's annotations.
func (t *Translator) namespace(r translators.Reader, name string) translators.Result {
	o := r.Get(objects.NamespaceKind, "", name)
	if o == nil {
		return translators.Result{}
	}
	rep := &report{}
	noteSettings(o, rep)
	if v, ok := o.Annotations[defaultPolicyKey]; ok {
		notePolicy(o, annotation(defaultPolicyKey), accessPolicy(v), rep)
	}
	return translators.Result{Diagnostics: rep.sorted()}
}

// declaredPorts are the ports of a pod's containers, of a transport.
func declaredPorts(pod *corev1.Pod, p corev1.Protocol) []uint16 {
	var out []uint16
	for _, c := range containers(pod) {
		for _, cp := range c.Ports {
			if (cp.Protocol == p || cp.Protocol == "" && p == corev1.ProtocolTCP) && validPort(int64(cp.ContainerPort)) {
				out = append(out, uint16(cp.ContainerPort))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// containers are all of a pod's, those that start it too: Linkerd looks at them all.
func containers(pod *corev1.Pod) []corev1.Container {
	return slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers)
}
