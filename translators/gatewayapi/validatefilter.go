// SPDX-License-Identifier: Apache-2.0

package gatewayapi

import (
	"fmt"
	"slices"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// filters judges a list of filters, of a rule or of a backend.
func (v *validator) filters(field string, in []gatewayv1.HTTPRouteFilter) {
	v.ok(len(in) <= maxRules, field, "more than %d filters", maxRules)
	times := map[gatewayv1.HTTPRouteFilterType]int{}
	for i, f := range in {
		at := fmt.Sprintf("%s[%d]", field, i)
		if times[f.Type]++; times[f.Type] > 1 && f.Type != gatewayv1.HTTPRouteFilterRequestMirror &&
			f.Type != gatewayv1.HTTPRouteFilterExtensionRef && f.Type != gatewayv1.HTTPRouteFilterExternalAuth {
			v.invalid(at+".type", "a second %s", f.Type)
		}
		v.filter(at, f)
	}
	v.ok(times[gatewayv1.HTTPRouteFilterRequestRedirect] == 0 || times[gatewayv1.HTTPRouteFilterURLRewrite] == 0, field, "a redirect and a rewrite exclude each other")
}

// filter judges one filter: what its type asks for is there, and nothing else.
func (v *validator) filter(field string, f gatewayv1.HTTPRouteFilter) {
	parts := []struct {
		of    gatewayv1.HTTPRouteFilterType
		name  string
		there bool
	}{
		{gatewayv1.HTTPRouteFilterRequestHeaderModifier, "requestHeaderModifier", f.RequestHeaderModifier != nil},
		{gatewayv1.HTTPRouteFilterResponseHeaderModifier, "responseHeaderModifier", f.ResponseHeaderModifier != nil},
		{gatewayv1.HTTPRouteFilterRequestMirror, "requestMirror", f.RequestMirror != nil},
		{gatewayv1.HTTPRouteFilterRequestRedirect, "requestRedirect", f.RequestRedirect != nil},
		{gatewayv1.HTTPRouteFilterURLRewrite, "urlRewrite", f.URLRewrite != nil},
		{gatewayv1.HTTPRouteFilterCORS, "cors", f.CORS != nil},
		{gatewayv1.HTTPRouteFilterExternalAuth, "externalAuth", f.ExternalAuth != nil},
		{gatewayv1.HTTPRouteFilterExtensionRef, "extensionRef", f.ExtensionRef != nil},
	}
	known := false
	for _, p := range parts {
		known = known || p.of == f.Type
		v.ok(p.there == (p.of == f.Type), field+"."+p.name, "a filter of type %s has its own part and no other", f.Type)
	}
	v.ok(known, field+".type", "%q is no type of filter", f.Type)
	v.headers(field+".requestHeaderModifier", f.RequestHeaderModifier)
	v.headers(field+".responseHeaderModifier", f.ResponseHeaderModifier)
	if m := f.RequestMirror; m != nil {
		v.mirror(field+".requestMirror", m)
	}
	if r := f.RequestRedirect; r != nil {
		v.precise(field+".requestRedirect.hostname", r.Hostname)
		v.port(field+".requestRedirect.port", r.Port)
		v.modifier(field+".requestRedirect.path", r.Path)
		v.ok(r.StatusCode == nil || redirectStatuses[*r.StatusCode], field+".requestRedirect.statusCode", "no status of a redirect")
		v.ok(r.Scheme == nil || *r.Scheme == "http" || *r.Scheme == "https", field+".requestRedirect.scheme", "not http or https")
	}
	if r := f.URLRewrite; r != nil {
		v.precise(field+".urlRewrite.hostname", r.Hostname)
		v.modifier(field+".urlRewrite.path", r.Path)
	}
	if c := f.CORS; c != nil {
		v.cors(field+".cors", c)
	}
}

func (v *validator) headers(field string, in *gatewayv1.HTTPHeaderFilter) {
	if in == nil {
		return
	}
	for name, list := range map[string][]gatewayv1.HTTPHeader{"set": in.Set, "add": in.Add} {
		for i, h := range list {
			at := fmt.Sprintf("%s.%s[%d]", field, name, i)
			v.ok(headerName.MatchString(string(h.Name)), at+".name", "%q is no header", h.Name)
			v.ok(h.Value != "" && len(h.Value) <= maxValue && !controlChars.MatchString(h.Value), at+".value", "a value has 1 to %d characters, none of control", maxValue)
		}
	}
}

func (v *validator) mirror(field string, m *gatewayv1.HTTPRequestMirrorFilter) {
	v.reference(field+".backendRef", m.BackendRef)
	v.ok(m.Percent == nil || *m.Percent >= 0 && *m.Percent <= 100, field+".percent", "not between 0 and 100")
	v.ok(m.Percent == nil || m.Fraction == nil, field+".fraction", "percent is given too")
	if f := m.Fraction; f != nil {
		of := number(f.Denominator, 100)
		v.ok(of >= 1, field+".fraction.denominator", "less than 1")
		v.ok(f.Numerator >= 0 && f.Numerator <= of, field+".fraction.numerator", "not between 0 and the denominator")
	}
}

func (v *validator) precise(field string, h *gatewayv1.PreciseHostname) {
	v.ok(h == nil || hostname.MatchString(string(*h)) && (*h)[0] != '*', field, "no host name")
}

func (v *validator) modifier(field string, p *gatewayv1.HTTPPathModifier) {
	if p == nil {
		return
	}
	full, prefix := p.Type == gatewayv1.FullPathHTTPPathModifier, p.Type == gatewayv1.PrefixMatchHTTPPathModifier
	v.ok(full || prefix, field+".type", "%q is not ReplaceFullPath or ReplacePrefixMatch", p.Type)
	v.ok(full == (p.ReplaceFullPath != nil), field+".replaceFullPath", "it goes with the type ReplaceFullPath")
	v.ok(prefix == (p.ReplacePrefixMatch != nil), field+".replacePrefixMatch", "it goes with the type ReplacePrefixMatch")
	for name, s := range map[string]*string{"replaceFullPath": p.ReplaceFullPath, "replacePrefixMatch": p.ReplacePrefixMatch} {
		v.ok(s == nil || len(*s) <= maxPath && !controlChars.MatchString(*s), field+"."+name, "longer than %d characters, or with some of control", maxPath)
	}
}

// prefixes judges whether a prefix that is to be replaced is the only one there is.
func (v *validator) prefixes(field string, matches []gatewayv1.HTTPRouteMatch, filters []gatewayv1.HTTPRouteFilter, backends []gatewayv1.HTTPBackendRef) {
	one := len(matches) == 0 || len(matches) == 1 && (matches[0].Path == nil || given(matches[0].Path.Type, string(gatewayv1.PathMatchPathPrefix)) == string(gatewayv1.PathMatchPathPrefix))
	judge := func(field string, filters []gatewayv1.HTTPRouteFilter) {
		for i, f := range filters {
			at := fmt.Sprintf("%s.filters[%d]", field, i)
			const msg = "a prefix can be replaced only where the rule has exactly one match, of type PathPrefix"
			if r := f.RequestRedirect; r != nil && r.Path != nil && r.Path.ReplacePrefixMatch != nil {
				v.ok(one, at+".requestRedirect.path.replacePrefixMatch", msg)
			}
			if r := f.URLRewrite; r != nil && r.Path != nil && r.Path.ReplacePrefixMatch != nil {
				v.ok(one, at+".urlRewrite.path.replacePrefixMatch", msg)
			}
		}
	}
	judge(field, filters)
	for i, b := range backends {
		judge(fmt.Sprintf("%s.backendRefs[%d]", field, i), b.Filters)
	}
}

func (v *validator) cors(field string, c *gatewayv1.HTTPCORSFilter) {
	alone := func(name string, list []string) {
		v.ok(len(list) == 1 || !slices.Contains(list, everything), field+"."+name, "* stands alone")
	}
	alone("allowOrigins", texts(c.AllowOrigins))
	alone("allowMethods", texts(c.AllowMethods))
	alone("allowHeaders", texts(c.AllowHeaders))
	for i, o := range c.AllowOrigins {
		v.ok(originText.MatchString(string(o)), fmt.Sprintf("%s.allowOrigins[%d]", field, i), "%q is no origin", o)
	}
	for i, m := range c.AllowMethods {
		v.ok(string(m) == everything || slices.Contains(allMethods, string(m)), fmt.Sprintf("%s.allowMethods[%d]", field, i), "%q is no method", m)
	}
	for name, list := range map[string][]gatewayv1.HTTPHeaderName{"allowHeaders": c.AllowHeaders, "exposeHeaders": c.ExposeHeaders} {
		for i, h := range list {
			v.ok(headerName.MatchString(string(h)), fmt.Sprintf("%s.%s[%d]", field, name, i), "%q is no header", h)
		}
	}
	v.ok(c.MaxAge >= 0, field+".maxAge", "less than 1")
}

func (v *validator) duration(field string, d *gatewayv1.Duration) {
	if d != nil {
		_, ok := Duration(*d)
		v.ok(ok, field, "%q is no duration", *d)
	}
}

func (v *validator) timeouts(field string, t *gatewayv1.HTTPRouteTimeouts) {
	if t == nil {
		return
	}
	v.duration(field+".request", t.Request)
	v.duration(field+".backendRequest", t.BackendRequest)
	whole, try := duration(t.Request), duration(t.BackendRequest)
	v.ok(whole == 0 || try <= whole, field+".backendRequest", "longer than the request's")
}

func (v *validator) retry(field string, r *gatewayv1.HTTPRouteRetry) {
	if r == nil {
		return
	}
	v.ok(r.Attempts == nil || *r.Attempts >= 1 && *r.Attempts <= maxWeight, field+".attempts", "not between 1 and %d", maxWeight)
	v.duration(field+".backoff", r.Backoff)
	for i, code := range r.Codes {
		v.ok(code >= 400 && code <= 599, fmt.Sprintf("%s.codes[%d]", field, i), "not between 400 and 599")
	}
}

func (v *validator) session(field string, s *gatewayv1.SessionPersistence) {
	if s == nil {
		return
	}
	kind := gatewayv1.SessionPersistenceType(given(s.Type, string(gatewayv1.CookieBasedSessionPersistence)))
	cookie := kind == gatewayv1.CookieBasedSessionPersistence
	v.ok(cookie || kind == gatewayv1.HeaderBasedSessionPersistence, field+".type", "%q is not Cookie or Header", kind)
	v.duration(field+".absoluteTimeout", s.AbsoluteTimeout)
	v.ok(s.SessionName == nil || headerName.MatchString(*s.SessionName) && len(*s.SessionName) <= 128, field+".sessionName", "no name of a cookie or header")
	v.ok(cookie || s.CookieConfig == nil, field+".cookieConfig", "the session has no cookie")
	if s.CookieConfig != nil {
		life := gatewayv1.CookieLifetimeType(given(s.CookieConfig.LifetimeType, string(gatewayv1.SessionCookieLifetimeType)))
		permanent := life == gatewayv1.PermanentCookieLifetimeType
		v.ok(permanent || life == gatewayv1.SessionCookieLifetimeType, field+".cookieConfig.lifetimeType", "%q is not Session or Permanent", life)
		v.ok(!permanent || s.AbsoluteTimeout != nil, field+".absoluteTimeout", "a permanent cookie needs it")
	}
}
