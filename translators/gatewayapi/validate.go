// SPDX-License-Identifier: Apache-2.0

package gatewayapi

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators/objects"
)

// Bounds of the API's own schema.
const (
	maxRules     = 16
	maxMatches   = 64 // of a rule
	maxInAll     = 128
	maxPath      = 1024
	maxValue     = 4096
	maxWeight    = 1_000_000
	maxPort      = 65535
	maxHostnames = 16
)

// Validate holds a route to the schema of the API: what an API server rejects, and
// expressions that nobody could read. Objects of other kinds pass.
func Validate(plane string, o *objects.Object) []model.Diagnostic {
	v := &validator{Report{Plane: plane, Object: o}}
	switch spec := o.Value.(type) {
	case *gatewayv1.HTTPRoute:
		if spec != nil {
			v.common(spec.Spec.CommonRouteSpec, texts(spec.Spec.Hostnames))
			v.httpRules(spec.Spec.Rules)
		}
	case *gatewayv1.GRPCRoute:
		if spec != nil {
			v.common(spec.Spec.CommonRouteSpec, texts(spec.Spec.Hostnames))
			v.grpcRules(spec.Spec.Rules)
		}
	}
	return v.Diagnostics
}

// validator collects what is wrong with one object.
type validator struct{ Report }

// ok reports a field unless a condition holds.
func (v *validator) ok(holds bool, field, format string, args ...any) {
	if !holds {
		v.invalid(field, format, args...)
	}
}

var (
	hostname     = regexp.MustCompile(`^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	pathText     = regexp.MustCompile(`^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$`)
	originText   = regexp.MustCompile(`(^\*$)|(^(http(s)?):\/\/(((\*\.)?([a-zA-Z0-9\-]+\.)*[a-zA-Z0-9-]+|\*)(:([0-9]{1,5}))?)$)`)
	grpcService  = regexp.MustCompile(`^(?i)\.?[a-z_][a-z_0-9]*(\.[a-z_][a-z_0-9]*)*$`)
	grpcMethod   = regexp.MustCompile(`^[A-Za-z_][A-Za-z_0-9]*$`)
	controlChars = regexp.MustCompile(`[\x00-\x08\x0a-\x1f\x7f]`)
)

func (v *validator) common(c gatewayv1.CommonRouteSpec, hostnames []string) {
	for i, p := range c.ParentRefs {
		field := fmt.Sprintf("spec.parentRefs[%d]", i)
		v.ok(p.Name != "", field+".name", "a parent needs a name")
		v.port(field+".port", p.Port)
	}
	v.ok(len(hostnames) <= maxHostnames, "spec.hostnames", "more than %d", maxHostnames)
	for i, h := range hostnames {
		v.ok(hostname.MatchString(h), fmt.Sprintf("spec.hostnames[%d]", i), "%q is no host name", h)
	}
}

func (v *validator) port(field string, p *int32) {
	v.ok(p == nil || *p >= 1 && *p <= maxPort, field, "a port is between 1 and %d", maxPort)
}

func (v *validator) httpRules(rules []gatewayv1.HTTPRouteRule) {
	v.ok(len(rules) <= maxRules, "spec.rules", "more than %d rules", maxRules)
	all := 0
	names := map[gatewayv1.SectionName]bool{}
	for i, r := range rules {
		field := fmt.Sprintf("spec.rules[%d]", i)
		all += len(r.Matches)
		v.unique(names, field+".name", r.Name)
		v.ok(len(r.Matches) <= maxMatches, field+".matches", "more than %d matches", maxMatches)
		for j, m := range r.Matches {
			v.httpMatch(fmt.Sprintf("%s.matches[%d]", field, j), m)
		}
		v.filters(field+".filters", r.Filters)
		v.prefixes(field, r.Matches, r.Filters, r.BackendRefs)
		redirects := slices.ContainsFunc(r.Filters, func(f gatewayv1.HTTPRouteFilter) bool { return f.RequestRedirect != nil })
		v.ok(!redirects || len(r.BackendRefs) == 0, field+".backendRefs", "a redirect has no backends")
		for j, b := range r.BackendRefs {
			field := fmt.Sprintf("%s.backendRefs[%d]", field, j)
			v.backend(field, b.BackendRef)
			v.filters(field+".filters", b.Filters)
		}
		v.timeouts(field+".timeouts", r.Timeouts)
		v.retry(field+".retry", r.Retry)
		v.session(field+".sessionPersistence", r.SessionPersistence)
	}
	v.ok(all <= maxInAll, "spec.rules", "more than %d matches in all", maxInAll)
}

func (v *validator) grpcRules(rules []gatewayv1.GRPCRouteRule) {
	v.ok(len(rules) <= maxRules, "spec.rules", "more than %d rules", maxRules)
	all := 0
	names := map[gatewayv1.SectionName]bool{}
	for i, r := range rules {
		field := fmt.Sprintf("spec.rules[%d]", i)
		all += len(r.Matches)
		v.unique(names, field+".name", r.Name)
		v.ok(len(r.Matches) <= maxMatches, field+".matches", "more than %d matches", maxMatches)
		for j, m := range r.Matches {
			v.grpcMatch(fmt.Sprintf("%s.matches[%d]", field, j), m)
		}
		v.filters(field+".filters", grpcFilters(r.Filters))
		for j, b := range r.BackendRefs {
			field := fmt.Sprintf("%s.backendRefs[%d]", field, j)
			v.backend(field, b.BackendRef)
			v.filters(field+".filters", grpcFilters(b.Filters))
		}
		v.session(field+".sessionPersistence", r.SessionPersistence)
	}
	v.ok(all <= maxInAll, "spec.rules", "more than %d matches in all", maxInAll)
}

func (v *validator) unique(names map[gatewayv1.SectionName]bool, field string, name *gatewayv1.SectionName) {
	if name == nil {
		return
	}
	v.ok(!names[*name], field, "two rules are called %q", *name)
	names[*name] = true
}

func (v *validator) httpMatch(field string, m gatewayv1.HTTPRouteMatch) {
	if p := m.Path; p != nil {
		v.path(field+".path", given(p.Type, string(gatewayv1.PathMatchPathPrefix)), given(p.Value, "/"))
	}
	if m.Method != nil {
		v.ok(slices.Contains(allMethods, string(*m.Method)), field+".method", "%q is no method", *m.Method)
	}
	for i, h := range m.Headers {
		at := fmt.Sprintf("%s.headers[%d]", field, i)
		v.ok(headerName.MatchString(string(h.Name)), at+".name", "%q is no header", h.Name)
		v.compared(at, given(h.Type, ""), h.Value, maxValue)
	}
	for i, q := range m.QueryParams {
		at := fmt.Sprintf("%s.queryParams[%d]", field, i)
		v.ok(headerName.MatchString(string(q.Name)), at+".name", "%q is no parameter", q.Name)
		v.compared(at, given(q.Type, ""), q.Value, maxPath)
	}
}

func (v *validator) path(field, kind, value string) {
	v.ok(len(value) <= maxPath, field+".value", "longer than %d characters", maxPath)
	switch gatewayv1.PathMatchType(kind) {
	case gatewayv1.PathMatchRegularExpression:
		v.expression(field+".value", value)
	case gatewayv1.PathMatchExact, gatewayv1.PathMatchPathPrefix:
		v.ok(isPath(value), field+".value", "%q is no path: it starts with / and has no other characters than paths have", value)
		for _, part := range []string{"//", "/./", "/../", "%2f", "%2F"} {
			v.ok(!strings.Contains(value, part), field+".value", "a path does not contain %s", part)
		}
		v.ok(!strings.HasSuffix(value, "/..") && !strings.HasSuffix(value, "/."), field+".value", "a path does not end with dots")
	default:
		v.invalid(field+".type", "%q is not Exact, PathPrefix or RegularExpression", kind)
	}
}

// compared judges a value that is compared by a type.
func (v *validator) compared(field, kind, value string, most int) {
	v.ok(value != "" && len(value) <= most, field+".value", "a value has 1 to %d characters", most)
	switch gatewayv1.HeaderMatchType(kind) {
	case "", gatewayv1.HeaderMatchExact:
		v.ok(!controlChars.MatchString(value), field+".value", "the value has control characters")
	case gatewayv1.HeaderMatchRegularExpression:
		v.expression(field+".value", value)
	default:
		v.invalid(field+".type", "%q is not Exact or RegularExpression", kind)
	}
}

func (v *validator) expression(field, value string) {
	_, err := model.NormalizeRegex(value)
	v.ok(err == nil, field, "not a regular expression: %v", err)
}

func (v *validator) grpcMatch(field string, m gatewayv1.GRPCRouteMatch) {
	if p := m.Method; p != nil {
		field := field + ".method"
		service, method := given(p.Service, ""), given(p.Method, "")
		v.ok(len(service) <= maxPath, field+".service", "longer than %d characters", maxPath)
		v.ok(len(method) <= maxPath, field+".method", "longer than %d characters", maxPath)
		switch gatewayv1.GRPCMethodMatchType(given(p.Type, string(gatewayv1.GRPCMethodMatchExact))) {
		case gatewayv1.GRPCMethodMatchExact:
			v.ok(service == "" || grpcService.MatchString(service), field+".service", "%q is no service of gRPC", service)
			v.ok(method == "" || grpcMethod.MatchString(method), field+".method", "%q is no method of gRPC", method)
		case gatewayv1.GRPCMethodMatchRegularExpression:
			v.expression(field+".service", service)
			v.expression(field+".method", method)
		default:
			v.invalid(field+".type", "%q is not Exact or RegularExpression", *p.Type)
		}
		v.ok(service != "" || method != "", field, "a service, a method or both must be given")
	}
	for i, h := range m.Headers {
		at := fmt.Sprintf("%s.headers[%d]", field, i)
		v.ok(headerName.MatchString(string(h.Name)), at+".name", "%q is no header", h.Name)
		v.compared(at, given(h.Type, ""), h.Value, maxValue)
	}
}

func (v *validator) backend(field string, b gatewayv1.BackendRef) {
	v.reference(field, b.BackendObjectReference)
	v.ok(b.Weight == nil || *b.Weight >= 0 && *b.Weight <= maxWeight, field+".weight", "a weight is between 0 and %d", maxWeight)
}

func (v *validator) reference(field string, b gatewayv1.BackendObjectReference) {
	v.ok(b.Name != "", field+".name", "a backend needs a name")
	v.port(field+".port", b.Port)
	service := given(b.Group, "") == "" && given(b.Kind, "Service") == "Service"
	v.ok(!service || b.Port != nil, field+".port", "a service needs a port")
}
