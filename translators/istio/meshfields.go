// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	meshapi "istio.io/api/mesh/v1alpha1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/objects"
)

func (t *Translator) isMeshConfig(o *objects.Object) bool {
	return o.Namespace == t.root && o.Name == meshConfigName
}

// meshField is the path of a field of MeshConfig, which stands within a text.
func meshField(name string) string { return "data." + meshConfigKey + "." + name }

func validateMeshConfig(n *notes) {
	c, err := parseMeshConfig(n.o, nil)
	if err != nil {
		// protojson's messages have spaces of one kind or another, at random.
		n.invalid("data."+meshConfigKey, "%s", strings.Join(strings.Fields(err.Error()), " "))
		return
	}
	if d := c.GetProtocolDetectionTimeout(); d != nil && (d.CheckValid() != nil || d.AsDuration() < 0) {
		n.invalid(meshField("protocolDetectionTimeout"), "the duration is negative, or cannot be represented")
	}
	if d := c.GetConnectTimeout(); d != nil {
		validateDuration(n, meshField("connectTimeout"), d)
	}
	validateRetries(n, meshField("defaultHttpRetryPolicy"), c.GetDefaultHttpRetryPolicy())
	for name, list := range map[string][]string{
		"defaultServiceExportTo":         c.GetDefaultServiceExportTo(),
		"defaultVirtualServiceExportTo":  c.GetDefaultVirtualServiceExportTo(),
		"defaultDestinationRuleExportTo": c.GetDefaultDestinationRuleExportTo(),
	} {
		validateExportTo(n, meshField(name), list)
	}
}

// judgeMeshConfig says what became of the fields.
func (t *Translator) judgeMeshConfig(o *objects.Object) []model.Diagnostic {
	n := &notes{o: o}
	if o.Invalid {
		n.refused("data."+meshConfigKey, "invalid-object", model.Degrades, "no valid version is known: Istio's defaults hold", "repair it")
		return n.list
	}
	c, err := parseMeshConfig(o, func(field, name string) {
		n.refused(meshField(field), "unknown-field", model.Degrades, fmt.Sprintf("there is no field %q here: it has no effect, nor has it in Istio", name), "")
	})
	if c == nil || err != nil {
		return n.list
	}
	c.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		name := fd.JSONName()
		switch loss, lost := lostMeshFields[name]; {
		case !lost:
		case loss.effect == model.Cosmetic:
			n.approximated(meshField(name), "mesh-setting", loss.effect, loss.message, loss.advice)
		default:
			n.refused(meshField(name), "mesh-setting", loss.effect, loss.message, loss.advice)
		}
		return true
	})
	t.judgeMeshValues(n, c)
	return n.list
}

// judgeMeshValues is about fields of which some values mean something else here.
func (t *Translator) judgeMeshValues(n *notes, c *meshapi.MeshConfig) {
	if c.GetOutboundTrafficPolicy().GetMode() == meshapi.MeshConfig_OutboundTrafficPolicy_ALLOW_ANY_DYNAMIC_DNS {
		n.approximated(meshField("outboundTrafficPolicy.mode"), "dynamic-dns", model.Degrades,
			"a request to a host that nobody knows goes to the address that the client has dialled, as with ALLOW_ANY: its name is not looked up again", "")
	}
	if p := c.GetOutboundTrafficPolicy(); p != nil && t.outbound != "" {
		n.overridden("outboundTrafficPolicy.mode", p.GetMode().String(), t.outbound, "--istio-outbound-traffic-policy")
	}
	if d := c.GetProtocolDetectionTimeout(); d != nil && t.detection != nil {
		n.overridden("protocolDetectionTimeout", d.AsDuration().String(), t.detection.String(), "--istio-protocol-detection-timeout")
	}
	kernel := func(field, what string) {
		if c.GetDefaultTrafficPolicy() != nil {
			return // which takes them through the proxy
		}
		n.approximated(meshField(field), "balanced-by-kernel", model.Degrades,
			"connections to services that no DestinationRule is for, and that are no requests, are balanced by the kernel: the client opens them itself, and "+what,
			"set it with a DestinationRule for services where it matters, which takes their connections through the proxy")
	}
	if d := c.GetConnectTimeout(); d != nil && d.AsDuration() != usualConnectTimeout {
		kernel("connectTimeout", "waits for an endpoint as long as it does by itself")
	}
	if c.GetTcpKeepalive() != nil {
		kernel("tcpKeepalive", "probes as it does by itself")
	}
	if td := c.GetTrustDomain(); td != "" && t.trustDomain != "" && td != t.trustDomain {
		n.refused(meshField("trustDomain"), "trust-domain", model.Narrows,
			fmt.Sprintf("workloads have identities of %s: policies that name identities of %s match nobody", t.trustDomain, td), "start with --trust-domain "+td)
	}
	if v := c.GetEnableAutoMtls(); v != nil && v.GetValue() {
		n.approximated(meshField("enableAutoMtls"), "identity-by-address", model.Degrades,
			"there is no mutual TLS yet: peers are known by their addresses, and nothing is encrypted", "")
	}
	switch p := c.GetPathNormalization().GetNormalization(); p {
	case meshapi.MeshConfig_ProxyPathNormalization_DEFAULT:
	case meshapi.MeshConfig_ProxyPathNormalization_MERGE_SLASHES:
		n.approximated(meshField("pathNormalization.normalization"), "path-normalization", model.Narrows,
			"a request with an escaped slash in its path is answered with 400", "")
	case meshapi.MeshConfig_ProxyPathNormalization_DECODE_AND_MERGE_SLASHES:
		n.approximated(meshField("pathNormalization.normalization"), "path-normalization", model.Narrows,
			"escaped slashes are not decoded: a request with one in its path is answered with 400", "")
	default:
		n.approximated(meshField("pathNormalization.normalization"), "path-normalization", model.Degrades,
			fmt.Sprintf("paths are normalised, slashes that follow each other are merged, and escaped ones are answered with 400, whatever %s leaves", p), "")
	}
}

// overridden says that an option comes before a field, if they differ.
func (n *notes) overridden(field, says, option, flag string) {
	if says != option {
		n.surprising(meshField(field), "overridden", fmt.Sprintf("%s is given, which comes before %s", flag+" "+option, says), "leave the flag out")
	}
}

// lostMeshFields are those that are not translated. What is not among them, nor judged
// by its value, is: or it says nothing about traffic in the mesh.
var lostMeshFields = map[string]refusal{
	"inboundTrafficPolicy":      {model.Degrades, "traffic to ports that no service has reaches the pod as it does without a proxy", ""},
	"configSources":             {model.Narrows, "configuration is read from one place: what these sources hold is not known", "add their objects to what is read"},
	"caCertificates":            {model.Degrades, "there is no mutual TLS yet", ""},
	"verifyCertificateAtClient": {model.Degrades, "there is no TLS to backends yet", ""},
	"meshMTLS":                  {model.Degrades, "there is no mutual TLS yet", ""},
	"tlsDefaults":               {model.Degrades, "there is no TLS to backends yet", ""},
	"ca":                        {model.Degrades, "there is no mutual TLS yet: no certificates are asked for", ""},
	"certificates":              {model.Degrades, "no certificates are made", ""},
	"serviceSettings":           {model.Degrades, "there is one cluster: every service is local to it", ""},
	"serviceScopeConfigs":       {model.Degrades, "there is one cluster: every service is local to it", ""},
	"serviceEntryVisibility":    {model.Degrades, "ServiceEntries are seen by all who their exportTo names", "set exportTo"},
	"discoverySelectors":        {model.Degrades, "objects of every namespace are read", ""},
	"extensionProviders":        {model.Degrades, "nothing uses providers: no traces, logs or metrics go to them, and no request is judged by them (policies with CUSTOM deny)", ""},
	"defaultProviders":          {model.Degrades, "nothing uses providers: no traces, logs or metrics go to them", ""},
	"dnsRefreshRate":            {model.Degrades, "names are looked up again as their time to live says, and after a failure by Envoy's own default", ""},
	"ingressControllerMode":     {model.Narrows, "Ingress is not served", ""},

	"accessLogFile":               {model.Cosmetic, "requests are recorded as Fairlead's flows: see fairlead observe", ""},
	"accessLogFormat":             {model.Cosmetic, "requests are recorded as Fairlead's flows: see fairlead observe", ""},
	"accessLogEncoding":           {model.Cosmetic, "requests are recorded as Fairlead's flows: see fairlead observe", ""},
	"enableEnvoyAccessLogService": {model.Cosmetic, "requests are recorded as Fairlead's flows: see fairlead observe", ""},
	"disableEnvoyListenerLog":     {model.Cosmetic, "requests are recorded as Fairlead's flows: see fairlead observe", ""},
	"enableTracing":               {model.Cosmetic, "no traces are made", ""},
	"inboundClusterStatName":      {model.Cosmetic, "clusters have no statistics", ""},
	"outboundClusterStatName":     {model.Cosmetic, "clusters have no statistics", ""},
	"defaultConfig":               {model.Cosmetic, "there are no sidecars whose settings it could change", ""},
	"proxyListenPort":             {model.Cosmetic, "there are no sidecars: no pod loses the port", ""},
	"proxyInboundListenPort":      {model.Cosmetic, "there are no sidecars: no pod loses the port", ""},
	"proxyHttpPort":               {model.Cosmetic, "there are no sidecars that could be asked as HTTP proxies", ""},
	"enablePrometheusMerge":       {model.Cosmetic, "there are no sidecars whose metrics would join the application's", ""},
	"hboneIdleTimeout":            {model.Cosmetic, "there are no HBONE tunnels", ""},
	"ingressClass":                {model.Cosmetic, "Ingress is not served", ""},
	"ingressService":              {model.Cosmetic, "Ingress is not served", ""},
	"ingressSelector":             {model.Cosmetic, "Ingress is not served", ""},
}

// prune takes out of a tree what is no field of the message, and says what that was.
func prune(md protoreflect.MessageDescriptor, tree map[string]any, path string, unknown func(field, name string)) {
	for name, value := range tree {
		fd := md.Fields().ByJSONName(name)
		if fd == nil {
			fd = md.Fields().ByTextName(name)
		}
		if fd == nil {
			delete(tree, name)
			unknown(path+name, name)
			continue
		}
		below := fd.Message()
		if below == nil || fd.IsMap() || strings.HasPrefix(string(below.FullName()), "google.protobuf.") {
			continue
		}
		switch v := value.(type) {
		case map[string]any:
			prune(below, v, path+name+".", unknown)
		case []any:
			for i := range v {
				if item, ok := v[i].(map[string]any); ok {
					prune(below, item, at(path+name, i)+".", unknown)
				}
			}
		}
	}
}
