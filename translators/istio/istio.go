// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	clientsecurity "istio.io/client-go/pkg/apis/security/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
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
	// OutboundTrafficPolicy is MeshConfig's outboundTrafficPolicy.mode: what becomes of
	// hosts that nobody knows. "ALLOW_ANY", which passes them, if empty; or
	// "REGISTRY_ONLY", which refuses them.
	OutboundTrafficPolicy string
	// DetectionTimeout is MeshConfig's protocolDetectionTimeout: how long the first
	// bytes to a port that does not say what it speaks are waited for. 0: for ever.
	DetectionTimeout time.Duration
}

// Modes of Options.OutboundTrafficPolicy.
const (
	allowAny     = "ALLOW_ANY"
	registryOnly = "REGISTRY_ONLY"
)

// The versions whose defaults are known.
const (
	oldestMinor = 22
	newestMinor = 31
)

// Translator implements translators.Translator. It is immutable.
type Translator struct {
	minor  int // of Istio 1.x
	domain string
	root   string
	// unknown is what becomes of hosts that nobody knows.
	unknown   model.Unknown
	detection time.Duration
}

var _ translators.Translator = (*Translator)(nil)

// New returns the translator, or an error if an option is not one it knows.
func New(o Options) (*Translator, error) {
	t := &Translator{minor: newestMinor, domain: strings.ToLower(cmp.Or(o.Domain, "cluster.local")), root: cmp.Or(o.RootNamespace, "istio-system"),
		unknown: model.UnknownPass, detection: o.DetectionTimeout}
	switch o.OutboundTrafficPolicy {
	case "", allowAny:
	case registryOnly:
		t.unknown = model.UnknownRefuse
	default:
		return nil, fmt.Errorf("istio outbound traffic policy %q: want %s or %s", o.OutboundTrafficPolicy, allowAny, registryOnly)
	}
	if o.DetectionTimeout < 0 {
		return nil, fmt.Errorf("istio protocol detection timeout %s: want 0 or more", o.DetectionTimeout)
	}
	if o.Version != "" {
		minor, ok := parseMinor(o.Version)
		if !ok {
			return nil, fmt.Errorf("istio version %q: want 1.%d to 1.%d", o.Version, oldestMinor, newestMinor)
		}
		t.minor = minor
	}
	return t, nil
}

// parseMinor reads "1.31", "v1.31" or "1.31.2".
func parseMinor(s string) (int, bool) {
	parts := strings.SplitN(strings.TrimPrefix(s, "v"), ".", 3)
	if len(parts) < 2 || parts[0] != "1" {
		return 0, false
	}
	n, err := strconv.Atoi(parts[1])
	return n, err == nil && n >= oldestMinor && n <= newestMinor
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
		{Kind: destinationRuleKind, Name: byHost, Values: func(o *objects.Object) []string {
			return t.hostIndex([]string{destinationRuleSpec(o).GetHost()}, o.Namespace)
		}},
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
	}
	if _, ok := otherKinds[o.Kind]; ok {
		return []translators.Key{{Kind: otherKey, Namespace: o.Namespace, Name: o.Kind.Kind + "/" + o.Name}}
	}
	return nil
}

// Defaults implements translators.Translator.
func (t *Translator) Defaults(translators.Reader) *model.Defaults {
	return &model.Defaults{Choice: model.Choice{Basis: model.ByAuthority, Unknown: t.unknown}}
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
	case requestAuthenticationKind:
		if v, ok := o.Value.(*clientsecurity.RequestAuthentication); ok {
			validateRequestAuthentication(n, &v.Spec)
		}
	}
	return sortDiagnostics(n.list)
}
