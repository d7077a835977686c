// SPDX-License-Identifier: Apache-2.0

// Package kubernetes fills the tables that every control plane shares: namespaces,
// nodes, services, endpoints and workloads, from Kubernetes' own objects. It says
// nothing about routes or permissions.
//
// Each row is computed by itself through an incr.Reader, so an edited pod touches
// its own workload and the services that select it, and nothing else.
package kubernetes

import (
	"cmp"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// Plane is the name that diagnostics carry.
const Plane = "kubernetes"

// Annotations and labels that Fairlead reads.
const (
	OwnerKey       = "fairlead.io/control-plane"
	CaptureKey     = "fairlead.io/capture"
	DefaultDenyKey = "fairlead.io/default-deny"
	ExemptKey      = "fairlead.io/smi-exempt-sources"
	AgentKey       = "fairlead.io/agent"
	BehindKey      = "fairlead.io/behind"   // of a Lease: why what its node checks does not count
	NodeUIDKey     = "fairlead.io/node-uid" // of a Lease: which Node of the name it is about
	RouteByKey     = "fairlead.io/route-by"
	UnknownHostKey = "fairlead.io/unknown-hosts"
	ModeKey        = "fairlead.io/mode"
	ProxyKey       = "fairlead.io/proxy"        // of a Namespace: whose proxy its pods have
	ProxyMemoryKey = "fairlead.io/proxy-memory" // of a Namespace: what its own may use
)

// Values of ProxyKey.
const (
	ProxyOwn    = "own"    // one of the namespace's own on each node
	ProxyShared = "shared" // the node's
)

// Values of ModeKey, on a Namespace.
const (
	ModeEnforce = "enforce" // policies are enforced, and captured pods' connections redirected
	ModeObserve = "observe" // it is told what would be
)

// SystemNamespace is where Fairlead's own objects are.
const SystemNamespace = "fairlead-system"

// AgentLeases select the Leases that agents renew, by their labels.
const AgentLeases = "app.kubernetes.io/name=fairlead,app.kubernetes.io/component=agent"

// DefaultTrustDomain is that of Istio's and Kubernetes' defaults.
const DefaultTrustDomain = "cluster.local"

// DefaultDomain is that of the cluster's DNS names by Kubernetes' defaults.
const DefaultDomain = "cluster.local"

// Translator turns Kubernetes' own objects into rows.
type Translator struct {
	trustDomain, domain string
	agents, observe     bool
	enforce             bool
	leases, self        string
}

// Options of the translator.
type Options struct {
	TrustDomain string // of the workloads' identities; "" = DefaultTrustDomain
	Domain      string // of the services' DNS names; "" = DefaultDomain
	// Agents: nodes that do not say whether an agent runs on them are taken to have one.
	// What is asked of manifests alone is what they come to once Fairlead is there.
	Agents bool
	// Leases is the namespace where the agents of nodes renew their Leases, which say that
	// they are there; "": none is read.
	Leases string
	// Self is the node whose agent this is: it has one, whatever its Lease says; "": none.
	Self string
	// Observe: namespaces that do not say otherwise are observed.
	Observe bool
	// Enforce: no namespace is observed, whatever it says.
	Enforce bool
}

// New returns a translator.
func New(o Options) *Translator {
	return &Translator{cmp.Or(o.TrustDomain, DefaultTrustDomain), cmp.Or(o.Domain, DefaultDomain), o.Agents, o.Observe, o.Enforce, o.Leases, o.Self}
}

// Types lists the kinds that are decoded. Deployments and their like are decoded
// for the lab, which expands them; here their pods count.
func (t *Translator) Types() []objects.Type {
	types := []objects.Type{
		{Kind: objects.NamespaceKind, Version: "v1", New: func() any { return new(corev1.Namespace) }, Lenient: true},
		{Kind: objects.NodeKind, Version: "v1", New: func() any { return new(corev1.Node) }, Lenient: true},
		{Kind: objects.PodKind, Version: "v1", New: func() any { return new(corev1.Pod) }, Namespaced: true, Lenient: true},
		{Kind: objects.ServiceKind, Version: "v1", New: func() any { return new(corev1.Service) }, Namespaced: true, Lenient: true},
		{Kind: objects.ServiceAccountKind, Version: "v1", New: func() any { return new(corev1.ServiceAccount) }, Namespaced: true, Lenient: true, Unread: true},
		{Kind: objects.EndpointSliceKind, Version: "v1", New: func() any { return new(discoveryv1.EndpointSlice) }, Namespaced: true, Lenient: true},
		{Kind: objects.DeploymentKind, Version: "v1", New: func() any { return new(appsv1.Deployment) }, Namespaced: true, Lenient: true, Unread: true},
		{Kind: objects.Kind{Group: "apps", Kind: "ReplicaSet"}, Version: "v1", New: func() any { return new(appsv1.ReplicaSet) }, Namespaced: true, Lenient: true, Unread: true},
		{Kind: objects.Kind{Group: "apps", Kind: "StatefulSet"}, Version: "v1", New: func() any { return new(appsv1.StatefulSet) }, Namespaced: true, Lenient: true, Unread: true},
		{Kind: objects.Kind{Group: "apps", Kind: "DaemonSet"}, Version: "v1", New: func() any { return new(appsv1.DaemonSet) }, Namespaced: true, Lenient: true, Unread: true},
	}
	if t.leases != "" {
		types = append(types, objects.Type{Kind: objects.LeaseKind, Version: "v1", New: func() any { return new(coordinationv1.Lease) }, Namespaced: true, Lenient: true,
			Only: objects.Only{Namespace: t.leases, Labels: AgentLeases}})
	}
	return types
}

// Indexes of the object tables.
const (
	podsByLabel     = "kubernetes/label"
	slicesByService = "kubernetes/service"
)

// Register adds indexes and stages to a store without rows.
func (t *Translator) Register(s *incr.Store) {
	s.Index(translators.Objects(objects.PodKind), podsByLabel, podLabels)
	s.Index(translators.Objects(objects.EndpointSliceKind), slicesByService, sliceService)
	t.add(s, "namespace", objects.NamespaceKind, t.namespace)
	t.add(s, "node", objects.NodeKind, t.node)
	t.add(s, "service", objects.ServiceKind, t.service)
	t.add(s, "endpoints", objects.ServiceKind, endpoints)
	t.add(s, "workload", objects.PodKind, t.workload)
}

// add makes a stage that computes one row per object of a kind.
func (t *Translator) add(s *incr.Store, name string, kind objects.Kind, f func(*incr.Reader, *objects.Object, *report) []incr.Row) {
	s.Add(incr.Stage{
		Name: Plane + "/" + name,
		Keys: map[incr.Table]func(string, any) []string{
			translators.Objects(kind): func(key string, _ any) []string { return []string{key} },
		},
		Compute: func(r *incr.Reader, key string) []incr.Row {
			o, _ := r.Get(translators.Objects(kind), key).(*objects.Object)
			if o == nil {
				return nil
			}
			rep := &report{object: o}
			return append(f(r, o, rep), rep.rows(Plane+"/"+name+"/"+key)...)
		},
	})
}

// report collects the diagnostics of one row.
type report struct {
	object *objects.Object
	out    []model.Diagnostic
}

func (r *report) say(field, code string, effect model.Effect, outcome model.Outcome, msg, advice string) {
	r.out = append(r.out, model.Diagnostic{Source: r.object.Source(Plane, field), Code: code, Effect: effect,
		Outcome: outcome, Message: msg, Advice: advice})
}

// refused says that a field is not done and what traffic is without it.
func (r *report) refused(field, code, msg, advice string) {
	r.say(field, code, model.Degrades, model.Refused, msg, advice)
}

func (r *report) rows(key string) []incr.Row {
	if len(r.out) == 0 {
		return nil
	}
	slices.SortStableFunc(r.out, model.CompareDiagnostics)
	return []incr.Row{{Table: translators.Diagnostics, Key: key, Value: slices.Compact(r.out)}}
}
