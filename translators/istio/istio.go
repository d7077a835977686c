// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"cmp"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	clientsecurity "istio.io/client-go/pkg/apis/security/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/gatewayapi"
	"fairlead.io/fairlead/translators/objects"
)

// Plane is the translator's name.
const Plane = "istio"

// Options are the inputs that no object carries. The zero value means the defaults.
type Options struct {
	// Version of Istio whose defaults are meant, "1.31" if empty.
	Version string
	// Domain of the cluster's names, "cluster.local" if empty.
	Domain string
	// RootNamespace holds what applies to all namespaces, "istio-system" if empty.
	RootNamespace string
	// TrustDomain of the workloads' identities; if empty, as MeshConfig says, which is
	// "cluster.local" by default.
	TrustDomain string
	// OutboundTrafficPolicy comes before MeshConfig's outboundTrafficPolicy.mode: what
	// becomes of hosts that nobody knows. "ALLOW_ANY" passes them, "REGISTRY_ONLY" refuses
	// them; if empty, as MeshConfig says, by default the former.
	OutboundTrafficPolicy string
	// DetectionTimeout comes before MeshConfig's protocolDetectionTimeout: how long the
	// first bytes to a port that does not say what it speaks are waited for. 0 is for ever;
	// nil is as MeshConfig says, by default for ever.
	DetectionTimeout *time.Duration
}

// Modes of Options.OutboundTrafficPolicy.
const (
	allowAny     = "ALLOW_ANY"
	registryOnly = "REGISTRY_ONLY"
)

const defaultTrustDomain = "cluster.local"

// Translator implements translators.Translator. But for what it remembers of objects,
// which shows nowhere, it is immutable.
type Translator struct {
	profile profile
	domain  string
	root    string // where MeshConfig is; see meshConfig.root for what it says
	// trustDomain, outbound and detection are those of Options.
	trustDomain string
	outbound    string
	detection   *time.Duration
	memo        memoized
	// lastSidecars are those that were there last.
	lastSidecars atomic.Pointer[sidecars]
}

var _ translators.Translator = (*Translator)(nil)

// New returns the translator, or an error if an option is not one it knows.
func New(o Options) (*Translator, error) {
	t := &Translator{domain: strings.ToLower(cmp.Or(o.Domain, "cluster.local")), root: cmp.Or(o.RootNamespace, "istio-system"),
		trustDomain: o.TrustDomain, outbound: o.OutboundTrafficPolicy, detection: o.DetectionTimeout}
	switch o.OutboundTrafficPolicy {
	case "", allowAny, registryOnly:
	default:
		return nil, fmt.Errorf("istio outbound traffic policy %q: want %s or %s", o.OutboundTrafficPolicy, allowAny, registryOnly)
	}
	if o.DetectionTimeout != nil && *o.DetectionTimeout < 0 {
		return nil, fmt.Errorf("istio protocol detection timeout %s: want 0 or more", *o.DetectionTimeout)
	}
	var err error
	t.profile, err = profileOf(o.Version)
	return t, err
}

// Plane implements translators.Translator.
func (t *Translator) Plane() string { return Plane }

// Kinds of translators.Key.
const (
	routesKey          = "routes"          // of a service
	hostKey            = "host"            // of a host that may have no service; the name is the host
	virtualServiceKey  = "virtualservice"  // what became of its fields
	destinationRuleKey = "destinationrule" // likewise
	policyKey          = "policy"          // an AuthorizationPolicy
	otherKey           = "other"           // an object of another kind; the name is KIND/NAME
	meshConfigsKey     = "meshconfig"      // what became of MeshConfig's fields
	entryKey           = "entry"           // what ServiceEntries of a namespace declare under a host, which is the name
	serviceEntryKey    = "serviceentry"    // what became of its fields
	workloadEntryKey   = "workloadentry"   // a WorkloadEntry
	sidecarKey         = "sidecar"         // what became of its fields
)

// byHost finds VirtualServices and DestinationRules by the full name of a host, or
// those with a wildcard by anyWildcard.
const (
	byHost      = "host"
	anyWildcard = "*"
)

// Indexes implements translators.Translator.
func (t *Translator) Indexes() []translators.Index {
	return []translators.Index{
		{Kind: virtualServiceKind, Name: byHost, Values: func(o *objects.Object) []string {
			return t.hostIndex(virtualServiceSpec(o).GetHosts(), o.Namespace)
		}},
		{Kind: virtualServiceKind, Name: byDelegate, Values: delegateIndex},
		{Kind: destinationRuleKind, Name: byHost, Values: func(o *objects.Object) []string {
			return t.hostIndex([]string{destinationRuleSpec(o).GetHost()}, o.Namespace)
		}},
		{Kind: serviceEntryKind, Name: byHost, Values: entryHosts},
		{Kind: serviceEntryKind, Name: byWaypoint, Values: waypointIndex},
		{Kind: objects.ServiceKind, Name: byWaypoint, Values: waypointIndex},
		{Kind: objects.ServiceKind, Name: withUDP, Values: udpIndex},
		{Kind: objects.NamespaceKind, Name: byWaypoint, Values: waypointIndex},
		{Kind: objects.PodKind, Name: byWaypoint, Values: waypointIndex},
		{Kind: gatewayapi.HTTPRouteKind, Name: byParentService, Values: parentServices},
		{Kind: gatewayapi.GRPCRouteKind, Name: byParentService, Values: parentServices},
	}
}

// Keys implements translators.Translator.
func (t *Translator) Keys(o *objects.Object) []translators.Key {
	switch o.Kind {
	case objects.ServiceKind:
		return []translators.Key{{Kind: routesKey, Namespace: o.Namespace, Name: o.Name}}
	case virtualServiceKind:
		return append(t.hostKeys(o), translators.Key{Kind: virtualServiceKey, Namespace: o.Namespace, Name: o.Name})
	case destinationRuleKind:
		return []translators.Key{{Kind: destinationRuleKey, Namespace: o.Namespace, Name: o.Name}}
	case authorizationPolicyKind:
		return []translators.Key{{Kind: policyKey, Namespace: o.Namespace, Name: o.Name}}
	case serviceEntryKind:
		return entryKeys(o)
	case sidecarKind:
		return []translators.Key{{Kind: sidecarKey, Namespace: o.Namespace, Name: o.Name}}
	case workloadEntryKind:
		return []translators.Key{{Kind: workloadEntryKey, Namespace: o.Namespace, Name: o.Name}}
	case configMapKind:
		if !t.isMeshConfig(o) {
			return nil
		}
		return []translators.Key{{Kind: meshConfigsKey, Namespace: o.Namespace, Name: o.Name}}
	}
	if _, ok := otherKinds[o.Kind]; ok {
		return []translators.Key{{Kind: otherKey, Namespace: o.Namespace, Name: o.Kind.Kind + "/" + o.Name}}
	}
	return nil
}

// Defaults implements translators.Translator.
func (t *Translator) Defaults(r translators.Reader) *model.Defaults {
	return &model.Defaults{
		Choice:      model.Choice{Basis: model.ByAuthority, Unknown: t.mesh(r).unknown},
		UnknownFrom: t.sidecars(r).unknownFrom(t.mesh(r).unknown),
		Retry:       t.retry(t.mesh(r), nil),
		Src:         t.unknownSource(r),
	}
}

// Translate implements translators.Translator.
func (t *Translator) Translate(r translators.Reader, k translators.Key) translators.Result {
	var res translators.Result
	switch k.Kind {
	case routesKey:
		res = t.routes(r, k.Namespace, k.Name)
	case hostKey:
		res = t.external(r, k.Name)
	case virtualServiceKey:
		if o := r.Get(virtualServiceKind, k.Namespace, k.Name); o != nil {
			res.Diagnostics = t.judgeVirtualService(r, o)
		}
	case destinationRuleKey:
		if o := r.Get(destinationRuleKind, k.Namespace, k.Name); o != nil {
			res.Diagnostics = t.judgeDestinationRule(r, o)
		}
	case policyKey:
		if o := r.Get(authorizationPolicyKind, k.Namespace, k.Name); o != nil {
			res = t.authorizationPolicy(r, o)
		}
	case entryKey:
		res = t.declared(r, k.Namespace, k.Name)
	case serviceEntryKey:
		if o := r.Get(serviceEntryKind, k.Namespace, k.Name); o != nil {
			res.Diagnostics = t.judgeServiceEntry(r, o)
		}
	case workloadEntryKey:
		if o := r.Get(workloadEntryKind, k.Namespace, k.Name); o != nil {
			res = t.workloadEntry(r, o)
		}
	case sidecarKey:
		if o := r.Get(sidecarKind, k.Namespace, k.Name); o != nil {
			res.Diagnostics = t.judgeSidecar(r, o)
		}
	case meshConfigsKey:
		if o := r.Get(configMapKind, k.Namespace, k.Name); o != nil {
			res.Diagnostics = t.judgeMeshConfig(o)
		}
	case otherKey:
		kind, name, _ := strings.Cut(k.Name, "/")
		for gk := range otherKinds {
			if gk.Kind != kind {
				continue
			}
			if o := r.Get(gk, k.Namespace, name); o != nil {
				res = t.other(r, o)
			}
		}
	}
	res.Diagnostics = sortDiagnostics(res.Diagnostics)
	return res
}

// Validate implements translators.Translator.
func (t *Translator) Validate(o *objects.Object) []model.Diagnostic {
	n := &notes{o: o}
	switch o.Kind {
	case virtualServiceKind:
		t.validateVirtualService(n, virtualServiceSpec(o))
	case destinationRuleKind:
		t.validateDestinationRule(n, destinationRuleSpec(o))
	case authorizationPolicyKind:
		validateAuthorizationPolicy(n, authorizationPolicySpec(o))
	case serviceEntryKind:
		validateServiceEntry(n, serviceEntrySpec(o))
	case workloadEntryKind:
		validateWorkloadEntry(n, "spec", workloadEntrySpec(o))
	case sidecarKind:
		validateSidecar(n, sidecarSpec(o))
	case configMapKind:
		if t.isMeshConfig(o) {
			validateMeshConfig(n)
		}
	case requestAuthenticationKind:
		if v, ok := o.Value.(*clientsecurity.RequestAuthentication); ok {
			validateRequestAuthentication(n, &v.Spec)
		}
	}
	return sortDiagnostics(n.list)
}
