// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	networking "istio.io/api/networking/v1alpha3"
)

// validateActions checks what a route says of its requests' end: that there is one such,
// and that nothing is said beside it that excludes it.
func validateActions(n *notes, field string, r *networking.HTTPRoute, leaf bool) {
	route, redirect, direct := len(r.GetRoute()) > 0, r.GetRedirect() != nil, r.GetDirectResponse() != nil
	switch {
	case r.GetDelegate() != nil && leaf:
		n.invalid(field+".delegate", "a route of a VirtualService without hosts, to which others delegate, cannot delegate itself")
	case r.GetDelegate() != nil:
		if route || redirect {
			n.invalid(field, "route and redirect exclude delegate")
		}
		return
	case !route && !redirect && !direct:
		n.invalid(field, "a route needs one of route, redirect, directResponse and delegate")
	case route && redirect || route && direct || redirect && direct:
		n.invalid(field, "route, redirect and directResponse exclude each other")
	}
	if (redirect || direct) && r.GetFault() != nil {
		n.invalid(field+".fault", "a route that answers by itself has no faults")
	}
}

func validateDelegate(n *notes, vs *networking.VirtualService) {
	if len(vs.GetHosts()) > 0 {
		return
	}
	for name, set := range map[string]bool{"gateways": len(vs.GetGateways()) > 0, "tls": len(vs.GetTls()) > 0, "tcp": len(vs.GetTcp()) > 0} {
		if set {
			n.invalid("spec."+name, "a VirtualService without hosts is one that others delegate to, which has http routes alone")
		}
	}
}

func validateRedirect(n *notes, field string, r *networking.HTTPRedirect, matches []*networking.HTTPMatchRequest) {
	if r == nil {
		return
	}
	prefix := func(m *networking.HTTPMatchRequest) bool {
		_, ok := m.GetUri().GetMatchType().(*networking.StringMatch_Prefix)
		return ok || m.GetUri() == nil
	}
	for name, value := range map[string]string{"uri": r.GetUri(), "prefixRewrite": r.GetPrefixRewrite(), "authority": r.GetAuthority()} {
		if !visible(value) || len(value) > maxHeader {
			n.invalid(field+"."+name, "it has a control character, or more than %d bytes", maxHeader)
		}
	}
	switch {
	case r.GetUri() != "" && r.GetPrefixRewrite() != "":
		n.invalid(field, "uri and prefixRewrite exclude each other")
	case r.GetPrefixRewrite() != "" && slices.ContainsFunc(matches, func(m *networking.HTTPMatchRequest) bool { return !prefix(m) }):
		n.invalid(field+".prefixRewrite", "every match of the route must be one of a prefix")
	case r.GetUri() == "" && r.GetPrefixRewrite() == "" && r.GetAuthority() == "" && r.GetRedirectPort() == nil && r.GetScheme() == "":
		n.invalid(field, "a redirection needs uri, prefixRewrite, authority, port or scheme")
	}
	if c := r.GetRedirectCode(); c != 0 && (c < 300 || c > 399) {
		n.invalid(field+".redirectCode", "%d is not a status between 300 and 399", c)
	}
	if s := r.GetScheme(); s != "" && s != "http" && s != "https" {
		n.invalid(field+".scheme", "%q is neither http nor https", s)
	}
	if p, ok := r.GetRedirectPort().(*networking.HTTPRedirect_Port); ok && p.Port != 0 {
		validatePort(n, field+".port", p.Port)
	}
	host, port, hasPort := cutPort(r.GetAuthority())
	switch {
	case strings.ContainsAny(host, "/?# "):
		n.invalid(field+".authority", "%q is not a host", host)
	case hasPort && r.GetRedirectPort() != nil:
		n.invalid(field+".authority", "it names port %s, and so does the redirection", port)
	}
}

// cutPort cuts the port off an authority; one of IPv6 stands in brackets.
func cutPort(s string) (host, port string, ok bool) {
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, ']') {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

func validateFault(n *notes, field string, f *networking.HTTPFaultInjection) {
	if f == nil {
		return
	}
	if f.GetDelay() == nil && f.GetAbort() == nil {
		n.invalid(field, "a fault is a delay, an abort, or both")
	}
	validatePercent(n, field+".delay.percentage.value", f.GetDelay().GetPercentage())
	if p := f.GetDelay().GetPercent(); p < 0 || p > 100 { // deprecated, still read
		n.invalid(field+".delay.percent", "%d is not between 0 and 100", p)
	}
	if d, ok := f.GetDelay().GetHttpDelayType().(*networking.HTTPFaultInjection_Delay_FixedDelay); ok {
		validateDuration(n, field+".delay.fixedDelay", d.FixedDelay)
	}
	validatePercent(n, field+".abort.percentage.value", f.GetAbort().GetPercentage())
	switch e := f.GetAbort().GetErrorType().(type) {
	case *networking.HTTPFaultInjection_Abort_HttpStatus:
		if e.HttpStatus < 200 || e.HttpStatus > 599 {
			n.invalid(field+".abort.httpStatus", "%d is not a status between 200 and 599", e.HttpStatus)
		}
	case *networking.HTTPFaultInjection_Abort_GrpcStatus:
		if _, ok := grpcStatuses[e.GrpcStatus]; !ok {
			n.invalid(field+".abort.grpcStatus", "%q is not the name of a status, such as UNAVAILABLE", e.GrpcStatus)
		}
	}
}

var corsMethods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
	http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace, "*",
}

func validateCORS(n *notes, field string, c *networking.CorsPolicy) {
	for i, o := range c.GetAllowOrigins() {
		field := at(field+".allowOrigins", i)
		if o.GetExact() == "" && o.GetPrefix() == "" && o.GetRegex() == "" {
			n.invalid(field, "an origin that is empty")
		} else if _, ok := o.GetMatchType().(*networking.StringMatch_Regex); ok {
			validateRegex(n, field+".regex", o.GetRegex())
		}
		if !visible(o.GetExact() + o.GetPrefix()) {
			n.invalid(field, "it has a control character")
		}
	}
	for i, o := range c.GetAllowOrigin() { // deprecated, still read
		if o == "" || !visible(o) {
			n.invalid(at(field+".allowOrigin", i), "%q is not an origin", o)
		}
	}
	for i, m := range c.GetAllowMethods() {
		if !slices.Contains(corsMethods, m) {
			n.invalid(at(field+".allowMethods", i), "%q is not one of %s", m, strings.Join(corsMethods, ", "))
		}
	}
	for name, headers := range map[string][]string{"allowHeaders": c.GetAllowHeaders(), "exposeHeaders": c.GetExposeHeaders()} {
		size := 0
		for i, h := range headers {
			size += len(h) + 1
			if h != "*" && (!headerPattern.MatchString(h) || strings.HasPrefix(h, ":")) {
				n.invalid(at(field+"."+name, i), "%q is not the name of a header", h)
			}
		}
		if size > maxHeader {
			n.invalid(field+"."+name, "they have more than %d bytes", maxHeader)
		}
	}
	if d := c.GetMaxAge(); d != nil {
		if d.CheckValid() != nil || d.AsDuration() < 0 || d.AsDuration()%time.Second != 0 {
			n.invalid(field+".maxAge", "%s", fmt.Sprintf("%s is not a number of whole seconds", d.AsDuration()))
		}
	}
}
