// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/objects"
	"fairlead.io/fairlead/translators/translatortest"
)

// annotated are annotations with a value that matters, and objects that they may be on.
var annotated = []struct{ key, value, on string }{
	{injectKey, "ingress", "pod namespace"},
	{defaultPolicyKey, "deny", "pod namespace"},
	{opaquePortsKey, "80,8080", "pod namespace service"},
	{skipInboundKey, "7,9090", "pod namespace"},
	{skipOutboundKey, "80", "pod namespace"},
	{requireTLSKey, "7", "pod namespace"},
	{"config.linkerd.io/skip-subnets", "10.0.0.0/8", "pod namespace"},
	{"config.linkerd.io/enable-external-profiles", "true", "pod namespace"},
	{"config.linkerd.io/enable-gateway", "true", "pod"},
	{"config.linkerd.io/proxy-outbound-connect-timeout", "7s", "pod namespace"},
	{"config.linkerd.io/proxy-inbound-connect-timeout", "7s", "pod namespace"},
	{"config.linkerd.io/proxy-disable-outbound-protocol-detect-timeout", "true", "pod namespace"},
	{"config.linkerd.io/proxy-disable-inbound-protocol-detect-timeout", "true", "pod namespace"},
	{"config.linkerd.io/what-comes-next", "x", "pod namespace service"},
	{retryHTTPKey, "5xx", "service route"},
	{retryGRPCKey, "internal", "service route"},
	{retryLimitKey, "3", "service route"},
	{retryTimeoutKey, "1s", "service route"},
	{timeoutRequestKey, "1s", "service route"},
	{timeoutResponseKey, "1s", "service route"},
	{timeoutIdleKey, "1s", "service route"},
	{accrualKey, accrualConsecutive, "service"},
	{accrualMaxKey, "3", "service"},
	{accrualMinKey, "3s", "service"},
	{accrualLongestKey, "33s", "service"},
	{accrualJitterKey, "0.25", "service"},
	{successThreshold, "0.5", "service"},
	{successWindow, "3s", "service"},
	{successMinRequests, "3", "service"},
	{"balancer.alpha.linkerd.io/failure-accrual-honor-retry-after", "true", "service"},
	{"balancer.alpha.linkerd.io/penalize-failures", "true", "service"},
	{"balancer.alpha.linkerd.io/load-biaser-penalty", "3s", "service"},
	{"balancer.alpha.linkerd.io/load-biaser-max-retry-after", "3s", "service"},
}

// places are the objects that an annotation is put on; %s is where. It is one of a pod
// with a name of its own, so that what is said is said of it.
var places = map[string]string{
	"pod":       "apiVersion: v1\nkind: Pod\nmetadata: {name: object, namespace: shop, labels: {app: web}%s}\nspec:\n  nodeName: n1\n  containers: [{name: c, ports: [{name: http, containerPort: 8080}, {name: admin, containerPort: 9090}, {containerPort: 7}]}]\nstatus: {podIP: 10.1.0.9}\n",
	"namespace": "apiVersion: v1\nkind: Namespace\nmetadata: {name: object%s}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: object, annotations: {timeout.linkerd.io/request: 9s}}\nspec: {clusterIP: 10.0.9.9, ports: [{port: 80}]}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: object, labels: {app: web}}\nspec:\n  nodeName: n1\n  containers: [{name: c, ports: [{name: http, containerPort: 8080}, {containerPort: 7}]}]\nstatus: {podIP: 10.1.0.9}\n---\napiVersion: policy.linkerd.io/v1beta3\nkind: Server\nmetadata: {name: web, namespace: object}\nspec: {podSelector: {}, port: 7}\n",
	"service":   "apiVersion: v1\nkind: Service\nmetadata: {name: object, namespace: shop%s}\nspec: {clusterIP: 10.0.0.9, ports: [{port: 80}, {port: 81, appProtocol: kubernetes.io/h2c}]}\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: g, namespace: shop}\nspec: {parentRefs: [{group: '', kind: Service, name: object, port: 81}], rules: [{backendRefs: [{name: v1, port: 80}]}]}\n",
	"route":     "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: object, namespace: shop%s}\nspec: {parentRefs: [{group: '', kind: Service, name: web, port: 81}], rules: [{backendRefs: [{name: v1, port: 80}]}]}\n---\napiVersion: policy.linkerd.io/v1beta3\nkind: HTTPRoute\nmetadata: {name: object, namespace: shop%[1]s}\nspec: {parentRefs: [{group: core, kind: Service, name: web, port: 80}], rules: [{backendRefs: [{name: v1, port: 80}]}]}\n",
}

// TestEveryAnnotation: each annotation, wherever it may be, changes the rows or is named by
// a diagnostic.
func TestEveryAnnotation(t *testing.T) {
	var b strings.Builder
	b.WriteString("| Annotation | On | Becomes |\n|---|---|---|\n")
	for _, a := range annotated {
		for on := range strings.FieldsSeq(a.on) {
			with := map[string]string{}
			if on == "namespace" { // that it be Linkerd's
				with[injectKey] = "enabled"
			}
			if a.key != accrualKey && strings.HasPrefix(a.key, accrualKey) {
				with[accrualKey] = accrualConsecutive
			}
			if strings.HasPrefix(a.key, successKey) {
				with[accrualKey] = accrualUnified
			}
			if a.key == requireTLSKey && on == "namespace" {
				with[requireTLSKey] = "8"
			}
			before := placedOn(on, with)
			with[a.key] = a.value
			if a.key == requireTLSKey && on == "namespace" {
				with[a.key] = "8080"
			}
			after := placedOn(on, with)
			var said *model.Diagnostic
			for _, d := range after.Diagnostics() {
				if d.Source.Name == "object" && d.Source.Field == annotation(a.key) {
					said = &d
					break
				}
			}
			what := "translated"
			switch {
			case said != nil:
				what = string(said.Outcome) + ": " + said.Message
			case before.Model() == after.Model():
				t.Errorf("%s on a %s: neither the rows change nor does a diagnostic name it\n%s", a.key, on, after.DiagnosticLines())
			}
			fmt.Fprintf(&b, "| %s: %s | %s | %s |\n", a.key, a.value, on, what)
		}
	}
	if !t.Failed() {
		translatortest.Section(t, "README.md", "annotations", b.String())
	}
}

func placedOn(on string, annotations map[string]string) translatortest.Output {
	var list []string
	for k, v := range annotations {
		list = append(list, fmt.Sprintf("%q: %q", k, v))
	}
	slices.Sort(list)
	text := fmt.Sprintf(places[on], ", annotations: {"+strings.Join(list, ", ")+"}")
	return translatortest.Translate(newTranslator, objects.Input{Name: "company.yaml", Data: []byte(company)}, objects.Input{Name: "in.yaml", Data: []byte(text)})
}
