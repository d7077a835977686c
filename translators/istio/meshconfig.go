// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"cmp"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	meshapi "istio.io/api/mesh/v1alpha1"
	networking "istio.io/api/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// MeshConfig is read from where istiod reads it: the key "mesh" of this ConfigMap in the
// root namespace.
const (
	meshConfigName = "istio"
	meshConfigKey  = "mesh"
)

// meshConfig is what holds for the whole mesh: what MeshConfig says, over it the options
// that were given, under it Istio's defaults. Lists and messages are shared: read only.
type meshConfig struct {
	unknown   model.Unknown // what becomes of hosts that nobody knows
	detection time.Duration // how long first bytes are waited for; 0: for ever
	retry     *networking.HTTPRetry
	// What exportTo is where an object says nothing; nil is everybody.
	virtualServices, destinationRules, services []string
	root                                        string // namespace of what is for all namespaces
	trustDomain                                 string
	trustDomainAliases                          []string
	// For connections to backends. Nil and 0: nothing was said.
	connectTimeout time.Duration
	keepalive      *networking.ConnectionPoolSettings_TCPSettings_TcpKeepalive
	upgradeHTTP2   bool
	locality       *networking.LocalityLoadBalancerSetting
	zoneAware      *networking.ZoneAwareLoadBalancerSetting
	traffic        *meshapi.MeshConfig_DefaultTrafficPolicy
}

// meshMemo is the last ConfigMap that was looked at and what it came to. It saves time
// and nothing else: an object is immutable.
type meshMemo struct {
	object *objects.Object
	config *meshConfig
}

// mesh is what holds for the whole mesh. Who reads it is computed again when the
// ConfigMap changes.
func (t *Translator) mesh(r translators.Reader) *meshConfig {
	o := r.Get(configMapKind, t.root, meshConfigName)
	if m := t.memo.Load(); m != nil && m.object == o {
		return m.config
	}
	spec, err := parseMeshConfig(o, nil)
	if err != nil {
		spec = nil // Validate has said so
	}
	c := t.over(spec)
	t.memo.Store(&meshMemo{o, c})
	return c
}

// memoized is kept apart from the options, which are compared in tests.
type memoized = atomic.Pointer[meshMemo]

// parseMeshConfig gives nil if there is none. Fields that this version does not know are
// left out, as Istio leaves them out; unknown, if not nil, is told of each.
func parseMeshConfig(o *objects.Object, unknown func(field, name string)) (*meshapi.MeshConfig, error) {
	text, ok := meshConfigText(o)
	if !ok {
		return nil, nil
	}
	tree := map[string]any{}
	if err := yaml.Unmarshal([]byte(text), &tree); err != nil {
		return nil, fmt.Errorf("not YAML: %w", err)
	}
	if unknown == nil {
		unknown = func(string, string) {}
	}
	out := &meshapi.MeshConfig{}
	prune(out.ProtoReflect().Descriptor(), tree, "", unknown)
	b, err := json.Marshal(tree)
	if err == nil {
		err = protojson.Unmarshal(b, out)
	}
	if err != nil {
		return nil, fmt.Errorf("no MeshConfig: %w", err)
	}
	return out, nil
}

func meshConfigText(o *objects.Object) (string, bool) {
	if o == nil {
		return "", false
	}
	cm, _ := o.Value.(*corev1.ConfigMap)
	if cm == nil {
		return "", false
	}
	text, ok := cm.Data[meshConfigKey]
	return text, ok
}

// over lays the options over a MeshConfig, nil if there is none.
func (t *Translator) over(in *meshapi.MeshConfig) *meshConfig {
	c := &meshConfig{
		unknown:            model.UnknownPass,
		detection:          duration(in.GetProtocolDetectionTimeout()),
		retry:              in.GetDefaultHttpRetryPolicy(),
		virtualServices:    in.GetDefaultVirtualServiceExportTo(),
		destinationRules:   in.GetDefaultDestinationRuleExportTo(),
		services:           in.GetDefaultServiceExportTo(),
		root:               cmp.Or(in.GetRootNamespace(), t.root),
		trustDomain:        cmp.Or(t.trustDomain, in.GetTrustDomain(), defaultTrustDomain),
		trustDomainAliases: in.GetTrustDomainAliases(),
		connectTimeout:     duration(in.GetConnectTimeout()),
		keepalive:          in.GetTcpKeepalive(),
		upgradeHTTP2:       in.GetH2UpgradePolicy() == meshapi.MeshConfig_UPGRADE,
		locality:           in.GetLocalityLbSetting(),
		zoneAware:          in.GetZoneAwareLbSetting(),
		traffic:            in.GetDefaultTrafficPolicy(),
	}
	if p := in.GetOutboundTrafficPolicy(); p != nil && p.GetMode() == meshapi.MeshConfig_OutboundTrafficPolicy_REGISTRY_ONLY {
		c.unknown = model.UnknownRefuse
	}
	switch t.outbound {
	case allowAny:
		c.unknown = model.UnknownPass
	case registryOnly:
		c.unknown = model.UnknownRefuse
	}
	if t.detection != nil {
		c.detection = *t.detection
	}
	return c
}

// unknownSource tells who refuses hosts that nobody knows, where the whole mesh does.
func (t *Translator) unknownSource(r translators.Reader) []model.Source {
	switch o := r.Get(configMapKind, t.root, meshConfigName); {
	case t.mesh(r).unknown != model.UnknownRefuse:
		return nil
	case t.outbound == registryOnly || o == nil:
		return []model.Source{{Plane: Plane, Kind: "option", Name: "--istio-outbound-traffic-policy"}}
	default:
		return []model.Source{o.Source(Plane, "data."+meshConfigKey)}
	}
}
