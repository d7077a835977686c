// SPDX-License-Identifier: Apache-2.0

package linkerd

import (
	"fmt"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/gatewayapi"
	"fairlead.io/fairlead/translators/objects"
)

// internalError is what Linkerd answers for a backend that cannot be.
const internalError = 500

// backends are those of a rule; without any, the service itself.
func (v *view) backends(rt route, rule gatewayapi.Rule) []model.Backend {
	if len(rule.Backends) == 0 {
		return []model.Backend{v.own()}
	}
	var out []model.Backend
	for _, ref := range rule.Backends {
		out = append(out, v.backend(rt, ref))
	}
	return model.Shares(out)
}

// backend is one of them. One that cannot be keeps its share, which is answered.
func (v *view) backend(rt route, ref gatewayapi.BackendRef) model.Backend {
	ns, name := rt.o.Namespace, string(ref.Name)
	if ref.Namespace != nil {
		ns = string(*ref.Namespace)
	}
	b := model.Backend{Namespace: ns, Service: name, Weight: uint32(max(0, ref.Weight))}
	fx := v.filtering(rt).do(ref.Field, ref.Filters, nil)
	if wrong(v.r, rt, ref, fx, &report{}) {
		b.Missing, b.Status = true, internalError
		return b
	}
	b.Port, b.Policy = uint16(*ref.Port), v.policy
	b.RequestHeaders, b.ResponseHeaders = fx.request, fx.response
	return b
}

// wrong reports whether a backend cannot be, and says why.
func wrong(r translators.Reader, rt route, ref gatewayapi.BackendRef, fx effects, rep *report) bool {
	const effect = model.Degrades
	const what = ": its share of the requests is answered with 500, as in Linkerd"
	kind, group := "Service", ""
	if ref.Kind != nil {
		kind = string(*ref.Kind)
	}
	if ref.Group != nil {
		group = string(*ref.Group)
	}
	ns := rt.o.Namespace
	if ref.Namespace != nil {
		ns = string(*ref.Namespace)
	}
	switch {
	case !isKind(group, kind, objects.ServiceKind):
		rep.refused(rt.o, ref.Field+".kind", "unsupported-kind", effect, fmt.Sprintf("%s is not a backend that is known%s", kind, what), "use a Service")
	case ref.Port == nil || !validPort(int64(*ref.Port)):
		rep.refused(rt.o, ref.Field+".port", "no-port", effect, "a Service needs a port"+what, "")
	case r.Get(objects.ServiceKind, ns, string(ref.Name)) == nil:
		rep.refused(rt.o, ref.Field+".name", "unknown-backend", effect, fmt.Sprintf("there is no Service %s/%s%s", ns, ref.Name, what), "")
	case fx.undone != "":
		rep.say(rt.o, fx.undone, "unsupported-filter", effect, model.Translated, fmt.Sprintf("Linkerd does not do %s%s", fx.kind, what), "")
	case fx.redirect != nil:
		rep.refused(rt.o, ref.Field+".filters", "redirect-of-backend", effect,
			"a share of the requests is not redirected: it is answered with 500", "redirect by a filter of the rule")
	default:
		return false
	}
	return true
}

// unusable is the field because of which Linkerd does not take a route at all, "" if it
// takes it.
func unusable(f filtering) string {
	rt := f.rt
	for _, rule := range rt.Rules {
		if fx := f.do(rule.Field, rule.Filters, nil); fx.undone != "" {
			return fx.undone
		}
		if rt.grpc() {
			for _, m := range rule.Matches {
				if expressionMethod(rt, m) {
					return m.Field + ".method.type"
				}
			}
		}
	}
	if f.side == inbound {
		return ""
	}
	rep := &report{}
	readRetries(rt.o, rep)
	readTimeouts(rt.o, rep)
	if len(rep.out) > 0 {
		return rep.out[0].Source.Field
	}
	return ""
}

// expressionMethod reports whether a match of gRPC is by expression, which Linkerd does
// not do.
func expressionMethod(rt route, m gatewayapi.Match) bool {
	v, ok := rt.o.Value.(*gatewayv1.GRPCRoute)
	if !ok {
		return false
	}
	for i, rule := range v.Spec.Rules {
		for j, in := range rule.Matches {
			if m.Field == fmt.Sprintf("spec.rules[%d].matches[%d]", i, j) {
				return in.Method != nil && in.Method.Type != nil && *in.Method.Type == gatewayv1.GRPCMethodMatchRegularExpression
			}
		}
	}
	return false
}

// specTimeout is the timeout of a rule; nil if it says none, or 0.
func specTimeout(rule gatewayapi.Rule) *time.Duration {
	if rule.Timeouts == nil || rule.Timeouts.Request == nil {
		return nil
	}
	d, err := time.ParseDuration(string(*rule.Timeouts.Request))
	if err != nil || d <= 0 {
		return nil
	}
	return &d
}
