// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	meshapi "istio.io/api/mesh/v1alpha1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/translators/translatortest"
)

// meshWorld is what the fields of MeshConfig matter to.
const meshWorld = world + rules + `
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: user, namespace: shop}
spec: {hosts: [web], http: [{route: [{destination: {host: web, subset: v1}}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: unsaid, namespace: shop}
spec: {ports: [{port: 9999}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: unsaid, namespace: shop}
spec: {hosts: [unsaid], http: [{route: [{destination: {host: unsaid}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: a, namespace: roots}
spec: {rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/a]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: a, namespace: shop}
spec: {rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/client, x/ns/shop/sa/web]}}]}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: near, namespace: shop}
spec: {host: api, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 3}}}
`

// meshValues are values that matter, for fields whose type does not tell one.
var meshValues = map[string]string{
	"outboundTrafficPolicy": `{"mode": "REGISTRY_ONLY"}`, "defaultHttpRetryPolicy": `{"attempts": 5}`, "rootNamespace": `"roots"`,
	"defaultServiceExportTo": `["."]`, "defaultVirtualServiceExportTo": `["."]`, "defaultDestinationRuleExportTo": `["~"]`,
	"pathNormalization": `{"normalization": "NONE"}`, "h2UpgradePolicy": `"UPGRADE"`, "enableAutoMtls": `true`,
	"localityLbSetting": `{"enabled": true, "distribute": [{"from": "a/*", "to": {"b/*": 100}}]}`, "zoneAwareLbSetting": `{"enabled": true}`,
	"defaultTrafficPolicy": `{"connectionPool": {"tcp": {"maxConnections": 3}}}`, "tcpKeepalive": `{"probes": 3}`, "trustDomain": `"td"`,
	"extensionProviders": `[{"name": "a"}]`, "configSources": `[{"address": "fs:///x"}]`, "certificates": `[{"secretName": "a"}]`, "caCertificates": `[{"pem": "x"}]`,
	"serviceSettings": `[{"hosts": ["a"]}]`, "serviceScopeConfigs": `[{"scope": "GLOBAL"}]`, "discoverySelectors": `[{"matchLabels": {"a": "b"}}]`,
	"defaultProviders": `{"metrics": ["prometheus"]}`, "ca": `{"address": "a:1"}`, "inboundTrafficPolicy": `{"mode": "LOCALHOST"}`,
	"defaultConfig": `{"concurrency": 1}`, "meshMTLS": `{"minProtocolVersion": "TLSV1_3"}`, "tlsDefaults": `{"minProtocolVersion": "TLSV1_3"}`,
	"serviceEntryVisibility": `{"applyToSidecars": true}`, "ingressControllerMode": `"DEFAULT"`, "accessLogEncoding": `"JSON"`,
}

// meshFields sets every field of MeshConfig and demands that the plan changes, or that a
// diagnostic names the field.
func meshFields(t *testing.T) translatortest.Fields {
	translate := func(mesh string) translatortest.Output {
		return translatortest.Planned(newTranslator, objects.Input{Name: "world.yaml", Data: []byte(meshWorld)}, objects.Input{Name: "mesh.yaml", Data: []byte(meshYAML(mesh))})
	}
	before := translate("{}").Plan()
	var rows translatortest.Fields
	fields := (&meshapi.MeshConfig{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		kind := ledgerKind{kind: "MeshConfig", values: meshValues}
		row := translatortest.Field{Kind: "MeshConfig", Name: fd.JSONName()}
		for _, v := range kind.of(field{fd}) {
			b, err := json.Marshal(map[string]any{fd.JSONName(): v})
			if err != nil {
				t.Fatal(err)
			}
			out := translate(string(b))
			fate, said := meshFate(t, fd.JSONName(), out)
			if out.Plan() == before && !said {
				t.Errorf("%s, and nothing changed and nothing was said", b)
			}
			row.Fates = translatortest.AddFate(row.Fates, fate, v)
		}
		rows = append(rows, row)
	}
	slices.SortStableFunc(rows, func(a, b translatortest.Field) int { return strings.Compare(a.Name, b.Name) })
	return rows
}

// meshFate is what diagnostics say of a field of MeshConfig, and whether they say something.
func meshFate(t *testing.T, field string, out translatortest.Output) (translatortest.Fate, bool) {
	fate, said := translatortest.Fate{Outcome: model.Translated}, false
	for _, d := range out.Diagnostics() {
		if d.Code == "invalid-value" || d.Code == "invalid-object" {
			t.Errorf("%s is invalid: %s", field, d.Message)
		}
		if name, ok := strings.CutPrefix(d.Source.Field, meshField("")); ok && (name == field || strings.HasPrefix(name, field+".")) {
			fate, said = translatortest.Fate{Outcome: d.Outcome, Message: d.Message, Advice: d.Advice}, true
		}
	}
	return fate, said
}
