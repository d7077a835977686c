// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// Plane is the translator's name.
const Plane = "linkerd"

// Options are what Linkerd is told at its installation. The zero value means its
// defaults.
type Options struct {
	TrustDomain string // of the workloads' identities; "" = cluster.local
	Domain      string // of the services' DNS names; "" = cluster.local
	// ControlPlaneNamespace is part of the names of identities; "" = linkerd.
	ControlPlaneNamespace string
	// ClusterNetworks are the addresses that policies "cluster-…" mean; none = the private
	// ranges that Linkerd's charts have.
	ClusterNetworks []netip.Prefix
	// DefaultInboundPolicy is for ports that no Server selects, of pods that Linkerd's
	// mark takes and whose namespace says nothing else; "" = all-unauthenticated.
	DefaultInboundPolicy string
}

// clusterNetworks of Linkerd's charts.
var clusterNetworks = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("fd00::/8"),
}

// Translator implements translators.Translator. It is immutable.
type Translator struct {
	trustDomain, domain, controlPlane string
	networks                          []network
	policy                            accessPolicy
}

var _ translators.Translator = (*Translator)(nil)

// New returns the translator, or an error if an option is not one it knows.
func New(o Options) (*Translator, error) {
	t := &Translator{trustDomain: cmp.Or(o.TrustDomain, "cluster.local"), domain: strings.ToLower(cmp.Or(o.Domain, "cluster.local")),
		controlPlane: cmp.Or(o.ControlPlaneNamespace, "linkerd"), policy: accessPolicy(cmp.Or(o.DefaultInboundPolicy, string(allUnauthenticated)))}
	if !slices.Contains(accessPolicies, t.policy) {
		return nil, fmt.Errorf("linkerd default inbound policy %q: want %s", t.policy, policyWords())
	}
	prefixes := o.ClusterNetworks
	if len(prefixes) == 0 {
		prefixes = clusterNetworks
	}
	for _, p := range prefixes {
		if !p.IsValid() {
			return nil, fmt.Errorf("linkerd cluster network: want a range of addresses")
		}
		t.networks = append(t.networks, network{prefix: p.Masked()})
	}
	return t, nil
}

// Plane implements translators.Translator.
func (t *Translator) Plane() string { return Plane }

// Kinds of translators.Key.
const (
	podKey       = "pod"       // what comes in for a pod
	serviceKey   = "service"   // what clients of a service get
	objectKey    = "object"    // what became of an object's fields; the name is KIND.GROUP/NAME
	namespaceKey = "namespace" // likewise, of a namespace's annotations; the name is the namespace
)

// Indexes of the translator.
const (
	byParent  = "parent"  // routes by "Service/ns/name" and "Server/ns/name"
	byService = "service" // ServiceProfiles by "ns/name"
	byTarget  = "target"  // AuthorizationPolicies by what they are for; see targetKey
	bySkip    = "skip"    // namespaces whose pods leave ports alone, by anySkip
)

const anySkip = "any"

// Indexes implements translators.Translator.
func (t *Translator) Indexes() []translators.Index {
	out := []translators.Index{{Kind: serviceProfileKind, Name: byService, Values: func(o *objects.Object) []string {
		if ns, name, ok := t.profiled(o.Name); ok {
			return []string{ns + "/" + name}
		}
		return nil
	}}}
	out = append(out, translators.Index{Kind: objects.NamespaceKind, Name: bySkip, Values: func(o *objects.Object) []string {
		if _, ok := o.Annotations[skipOutboundKey]; ok {
			return []string{anySkip}
		}
		return nil
	}})
	out = append(out, translators.Index{Kind: authorizationPolicyKind, Name: byTarget, Values: targetIndex})
	for _, k := range routeKinds {
		out = append(out, translators.Index{Kind: k, Name: byParent, Values: parentIndex})
	}
	return out
}

// Keys implements translators.Translator.
func (t *Translator) Keys(o *objects.Object) []translators.Key {
	switch o.Kind {
	case objects.PodKind:
		return []translators.Key{{Kind: podKey, Namespace: o.Namespace, Name: o.Name}}
	case objects.ServiceKind:
		return []translators.Key{{Kind: serviceKey, Namespace: o.Namespace, Name: o.Name}}
	case objects.NamespaceKind:
		return []translators.Key{{Kind: namespaceKey, Name: o.Name}}
	}
	if slices.Contains(judgedKinds, o.Kind) {
		return []translators.Key{{Kind: objectKey, Namespace: o.Namespace, Name: o.Kind.String() + "/" + o.Name}}
	}
	return nil
}

// Defaults implements translators.Translator. Linkerd routes by the address that a
// request goes to, and leaves alone what goes to none that it knows, unless an
// EgressNetwork denies it.
func (t *Translator) Defaults(r translators.Reader) *model.Defaults {
	return &model.Defaults{Choice: model.Choice{Basis: model.ByDestination}, UnknownFrom: t.egress(r)}
}

// Translate implements translators.Translator.
func (t *Translator) Translate(r translators.Reader, k translators.Key) translators.Result {
	switch k.Kind {
	case podKey:
		return t.pod(r, k.Namespace, k.Name)
	case serviceKey:
		return t.service(r, k.Namespace, k.Name)
	case namespaceKey:
		return t.namespace(r, k.Name)
	case objectKey:
		kind, name, _ := strings.Cut(k.Name, "/")
		for _, gk := range judgedKinds {
			if gk.String() == kind {
				return translators.Result{Diagnostics: t.judge(r, r.Get(gk, k.Namespace, name))}
			}
		}
	}
	return translators.Result{}
}

// ours reports whether a namespace is Linkerd's: it was given to it, or carries its
// mark and was given to nobody.
func ours(n *model.Namespace) bool {
	return n != nil && (n.Owner == Plane || n.Owner == "" && n.Mesh == Plane)
}
