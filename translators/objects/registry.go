// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/version"

	"fairlead.io/fairlead/model"
)

// Registry knows the kinds and versions that somebody reads. It is immutable.
type Registry struct {
	types map[Kind]map[string]Type
}

// NewRegistry joins types. Where two share kind and version the first stands, so
// that planes may both name the kinds that they both read.
func NewRegistry(types ...Type) *Registry {
	r := &Registry{types: map[Kind]map[string]Type{}}
	for _, t := range types {
		if r.types[t.Kind] == nil {
			r.types[t.Kind] = map[string]Type{}
		}
		if _, ok := r.types[t.Kind][t.Version]; !ok {
			r.types[t.Kind][t.Version] = t
		}
	}
	return r
}

// Kinds lists the registered kinds in order.
func (r *Registry) Kinds() []Kind {
	var out []Kind
	for k := range r.types {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b Kind) int { return strings.Compare(a.String(), b.String()) })
	return out
}

// Has reports whether some version of the kind is registered.
func (r *Registry) Has(k Kind) bool { return len(r.types[k]) > 0 }

// Served picks the version of a kind to ask an API server for: the newest of those that
// it serves and somebody reads. ok is false if there is none.
func (r *Registry) Served(k Kind, served []string) (t Type, ok bool) {
	known := slices.DeleteFunc(r.versions(k), func(v string) bool { return !slices.Contains(served, v) })
	if len(known) == 0 {
		return Type{}, false
	}
	return r.types[k][newest(known)], true
}

// Versions lists those of a kind that somebody reads, in order.
func (r *Registry) Versions(k Kind) []string { return r.versions(k) }

// Unread reports whether nothing of the kind is read.
func (r *Registry) Unread(k Kind) bool {
	for _, t := range r.types[k] {
		if !t.Unread {
			return false
		}
	}
	return true
}

// Guards reports whether more could be allowed if objects of a kind were not known: they
// restrict, or, as Kubernetes' own, say whom restrictions are for.
func Guards(k Kind) bool {
	if k == LeaseKind {
		return false // a node without one is believed less
	}
	if slices.Contains(kubernetesGroups, k.Group) || slices.Contains(guards, k) {
		return true
	}
	effect, _ := unread(k)
	return effect == model.Widens
}

// guards are the kinds that restrict though their names do not say so.
var guards = []Kind{
	{"access.smi-spec.io", "TrafficTarget"},    // who has one is closed to all others
	{"networking.istio.io", "Sidecar"},         // may refuse what nobody has named
	{"policy.linkerd.io", "EgressNetwork"},     // may deny
	{"policy.linkerd.io", "Server"},            // closes its port to all who are not let in
	{"policy.linkerd.io", "HTTPRoute"},         // of a Server: closes paths
	{"gateway.networking.k8s.io", "HTTPRoute"}, // as above
	{"gateway.networking.k8s.io", "GRPCRoute"},
}

func (r *Registry) versions(k Kind) []string {
	var out []string
	for v := range r.types[k] {
		out = append(out, v)
	}
	slices.Sort(out)
	return out
}

// newest is the version that one which is not known is most like: released ones come
// after those on trial, as Kubernetes has it.
func newest(versions []string) string {
	return slices.MaxFunc(versions, version.CompareKubeAwareVersionStrings)
}

// unread judges a kind that nobody reads: what becomes of traffic without it, and
// whether it says anything about traffic at all.
func unread(k Kind) (effect model.Effect, harmless bool) {
	if slices.Contains(harmlessKinds, k.Kind) && slices.Contains(kubernetesGroups, k.Group) {
		return model.Cosmetic, true
	}
	for _, word := range policyWords {
		if strings.Contains(k.Kind, word) {
			return model.Widens, false
		}
	}
	return model.Degrades, false
}

// policyWords are in the names of kinds that restrict: to lose one widens access.
var policyWords = []string{"Policy", "Authorization", "Authentication", "Authn"}

// kubernetesGroups are the groups of Kubernetes' own kinds.
var kubernetesGroups = []string{
	"", "apps", "batch", "autoscaling", "policy", "rbac.authorization.k8s.io", "storage.k8s.io",
	"apiextensions.k8s.io", "apiregistration.k8s.io", "admissionregistration.k8s.io", "scheduling.k8s.io",
	"coordination.k8s.io", "certificates.k8s.io", "events.k8s.io", "node.k8s.io", "discovery.k8s.io",
}

// harmlessKinds of those groups say nothing about traffic.
var harmlessKinds = []string{
	"APIService", "CertificateSigningRequest", "ClusterRole", "ClusterRoleBinding", "ConfigMap",
	"ControllerRevision", "CSIDriver", "CSINode", "CronJob", "CustomResourceDefinition", "DaemonSet",
	"Deployment", "Event", "HorizontalPodAutoscaler", "Job", "Lease", "LimitRange",
	"MutatingWebhookConfiguration", "PersistentVolume", "PersistentVolumeClaim", "PodDisruptionBudget",
	"PodTemplate", "PriorityClass", "ReplicaSet", "ReplicationController", "ResourceQuota", "Role",
	"RoleBinding", "RuntimeClass", "Secret", "ServiceAccount", "StatefulSet", "StorageClass",
	"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ValidatingWebhookConfiguration",
	"VolumeAttachment",
}
