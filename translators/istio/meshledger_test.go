// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	meshapi "istio.io/api/mesh/v1alpha1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
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

// TestMeshConfigLedger sets every field of MeshConfig and demands that the rows or the
// defaults change, or that a diagnostic names the field.
func TestMeshConfigLedger(t *testing.T) {
	translate := func(mesh string) translatortest.Output {
		return translatortest.Translate(newTranslator, objects.Input{Name: "world.yaml", Data: []byte(meshWorld)}, objects.Input{Name: "mesh.yaml", Data: []byte(meshYAML(mesh))})
	}
	content := func(o translatortest.Output) string {
		return o.Model() + string(model.Bytes(o.Store.Get(translators.Defaults, Plane)))
	}
	before := content(translate("{}"))
	var rows []ledgerRow
	fields := (&meshapi.MeshConfig{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		value, ok := meshValues[fd.JSONName()]
		if !ok {
			v := scalar(fd)
			if fd.IsList() {
				v = []any{v}
			}
			b, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			value = string(b)
		}
		out := translate(`{"` + fd.JSONName() + `": ` + value + `}`)
		row := ledgerRow{path: fd.JSONName()}
		for _, d := range out.Diagnostics() {
			if d.Code == "invalid-value" || d.Code == "invalid-object" {
				t.Errorf("%s: %s is invalid: %s", fd.JSONName(), value, d.Message)
			}
			if name, ok := strings.CutPrefix(d.Source.Field, meshField("")); ok && (name == fd.JSONName() || strings.HasPrefix(name, fd.JSONName()+".")) {
				row.outcome, row.reason = string(d.Outcome), d.Message
			}
		}
		switch changed := content(out) != before; {
		case row.outcome == "" && changed:
			row.outcome = string(model.Translated)
		case row.outcome == "":
			t.Errorf("%s: set to %s, and nothing changed and nothing was said", fd.JSONName(), value)
		}
		rows = append(rows, row)
	}
	slices.SortStableFunc(rows, func(a, b ledgerRow) int { return strings.Compare(a.path, b.path) })
	translatortest.Section(t, "README.md", "fields of MeshConfig", table(rows))
}
