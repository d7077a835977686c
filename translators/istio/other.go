// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"slices"
	"strings"

	extensions "istio.io/api/extensions/v1alpha1"
	typev1beta1 "istio.io/api/type/v1beta1"
	clientextensions "istio.io/client-go/pkg/apis/extensions/v1alpha1"
	clientnetworkingalpha "istio.io/client-go/pkg/apis/networking/v1alpha3"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// refusal says what the lack of a kind does.
type refusal struct {
	effect  model.Effect
	message string
	advice  string
}

// otherKinds are read to be refused, and to close what their loss would open.
var otherKinds = map[objects.Kind]refusal{
	gatewayKind:       {model.Narrows, "gateways are not served: no traffic enters here", "keep Istio's gateway, or use another one, for traffic from outside"},
	workloadGroupKind: {model.Cosmetic, "it is a pattern for virtual machines that join by themselves, which none can here; by itself it changes no traffic in Istio either", "write a WorkloadEntry for each machine"},
	envoyFilterKind:   {model.Degrades, "patches address the resources of Istio's own proxies, which do not exist here: none is applied", ""},
	proxyConfigKind:   {model.Cosmetic, "there are no sidecars whose settings it could change", ""},
	telemetryKind:     {model.Degrades, "metrics, traces and access logs are not set by it: traffic is the same, what is recorded of it is not", ""},

	peerAuthenticationKind:    {},
	requestAuthenticationKind: {},
	wasmPluginKind:            {model.Degrades, "Wasm modules are not run", ""},
	trafficExtensionKind:      {model.Degrades, "Wasm modules and Lua code are not run", ""},
}

// other refuses an object of a kind that is not translated.
func (t *Translator) other(r translators.Reader, o *objects.Object) translators.Result {
	n := &notes{o: o}
	var a *model.Authorization
	var closes closing
	switch o.Kind {
	case peerAuthenticationKind:
		a = t.peerAuthentication(r, n)
	case requestAuthenticationKind:
		closes = requestAuthentication(n)
	case wasmPluginKind:
		closes = wasmPlugin(n)
	case trafficExtensionKind:
		closes = trafficExtension(n)
	case envoyFilterKind:
		envoyFilter(n)
	default:
		n.unsupportedKind(otherKinds[o.Kind])
	}
	rows := t.deniedBy(r, n, closes)
	if a != nil {
		rows[rowKey(o)] = a
	}
	for _, a := range rows {
		a.Src = []model.Source{o.Source(Plane, "spec")}
		for i := range a.Rules {
			a.Rules[i] = a.Rules[i].Canonical()
			a.Rules[i].Src = a.Src
		}
	}
	return translators.Result{Diagnostics: n.list, Authorizations: rows}
}

// closing is what an object that guards workloads has that cannot be done: what it would
// judge is denied.
type closing struct {
	spec interface {
		targeting
		GetSelector() *typev1beta1.WorkloadSelector
	}
	denies []model.AuthRule // nil: it guards nothing
	// loss is what to say where it guards something.
	loss refusal
}

// deniedBy gives the rows that close what an object guards.
func (t *Translator) deniedBy(r translators.Reader, n *notes, g closing) map[string]*model.Authorization {
	rows := map[string]*model.Authorization{}
	if g.denies == nil {
		return rows
	}
	for _, w := range t.guarded(r, n, targetRefs(g.spec)) {
		rules := g.denies
		if w.rewritten {
			rules = anything() // what arrives is not what was sent
		}
		w.rows(n.o, &model.Authorization{Deny: true, Rules: slices.Clone(rules)}, rows)
	}
	if bySelector(n.o, g.spec) {
		a := &model.Authorization{Deny: true, Target: target(t.mesh(r).root, n.o, g.spec.GetSelector()), Rules: g.denies}
		t.judgeRoot(r, n, a)
		t.judgeCapture(r, n, a)
		rows[rowKey(n.o)] = a
	}
	if len(rows) == 0 {
		g.loss = refusal{model.Degrades, "those for gateways and waypoints that are not there judge nothing", ""}
	}
	if n.o.Invalid {
		n.refused("spec", "invalid-object", g.loss.effect, g.loss.message, g.loss.advice)
	} else {
		n.unsupportedKind(g.loss)
	}
	return rows
}

func (n *notes) unsupportedKind(r refusal) {
	n.refused("spec", "unsupported-kind", r.effect, fmt.Sprintf("%s is not supported: %s", n.o.Kind.Kind, r.message), r.advice)
}

// anything is a rule that matches all.
func anything() []model.AuthRule { return []model.AuthRule{{}} }

// guardFilters are the names in a patch that tell of a filter that keeps requests out.
var guardFilters = []string{"rbac", "ext_authz", "jwt_authn", "ratelimit", "rate_limit", "oauth2", "basic_auth", "api_key_auth", "csrf"}

// envoyFilter refuses each patch. What a patch means cannot be known from outside
// Envoy; if it names a filter that guards, its loss opens something.
func envoyFilter(n *notes) {
	n.unsupportedKind(otherKinds[envoyFilterKind])
	v, ok := n.o.Value.(*clientnetworkingalpha.EnvoyFilter)
	if !ok {
		return
	}
	for i, p := range v.Spec.GetConfigPatches() {
		text := p.String()
		for _, f := range guardFilters {
			if strings.Contains(text, f) {
				n.refused(at("spec.configPatches", i), "unsupported-guard", model.Widens,
					fmt.Sprintf("the patch names %s, which keeps requests out: here they pass", f), "state the permission as an AuthorizationPolicy")
				break
			}
		}
	}
}

// wasmPlugin closes what a plugin that authenticates or authorizes would guard.
func wasmPlugin(n *notes) closing {
	v, ok := n.o.Value.(*clientextensions.WasmPlugin)
	if !ok {
		return closing{}
	}
	s := &v.Spec
	if !n.o.Invalid && s.GetPhase() != extensions.PluginPhase_AUTHN && s.GetPhase() != extensions.PluginPhase_AUTHZ {
		n.unsupportedKind(otherKinds[wasmPluginKind])
		return closing{}
	}
	return closing{s, anything(), refusal{model.Narrows, "Wasm modules are not run, and this one guards workloads: all that it selects is denied", "state the permission as an AuthorizationPolicy and delete the plugin"}}
}

// trafficExtension likewise; it is what comes after WasmPlugin, and may be Lua.
func trafficExtension(n *notes) closing {
	v, ok := n.o.Value.(*clientextensions.TrafficExtension)
	if !ok {
		return closing{}
	}
	s := &v.Spec
	if !n.o.Invalid && s.GetPhase() != extensions.TrafficExtension_AUTHN && s.GetPhase() != extensions.TrafficExtension_AUTHZ {
		n.unsupportedKind(otherKinds[trafficExtensionKind])
		return closing{}
	}
	return closing{onlyTargetRefs{s}, anything(), refusal{model.Narrows, "Wasm modules and Lua code are not run, and this guards workloads: all that it selects is denied", "state the permission as an AuthorizationPolicy and delete the extension"}}
}

// onlyTargetRefs is a specification that never had a single targetRef.
type onlyTargetRefs struct{ *extensions.TrafficExtension }

func (onlyTargetRefs) GetTargetRef() *typev1beta1.PolicyTargetReference { return nil }
