// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"maps"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/model"
)

const (
	// maxRegex bounds an expression; Envoy's compiled form grows with it.
	maxRegex = 1024
	// maxHeader is how many bytes Envoy takes for the name or the value of a header
	// that it sets.
	maxHeader = 16384
	// maxParameter is how many it takes for the name of a query parameter.
	maxParameter = 1024
)

// retryConditions are the words that Istio accepts; Envoy knows them all.
var retryConditions = strings.Fields(`5xx gateway-error reset reset-before-request connect-failure retriable-4xx
	refused-stream retriable-status-codes retriable-headers envoy-ratelimited
	cancelled deadline-exceeded internal resource-exhausted unavailable`)

var (
	hostPattern   = regexp.MustCompile(`^(\*|\*?[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?|\*[-.][-.a-zA-Z0-9]*|[a-fA-F0-9:.]+)(\.[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?)*\.?$`)
	headerPattern = regexp.MustCompile("^:?[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
)

func (t *Translator) validateVirtualService(n *notes, vs *networking.VirtualService) {
	if vs == nil {
		return
	}
	for i, h := range vs.GetHosts() {
		field := at("spec.hosts", i)
		switch {
		case !hostPattern.MatchString(h):
			n.invalid(field, "%q is not a host", h)
		case slices.Contains(vs.GetHosts()[:i], h):
			n.invalid(field, "%s is named twice", h)
		case h == "*" && onlyMesh(vs):
			n.invalid(field, "a VirtualService for the mesh alone cannot be for every host")
		}
	}
	if len(vs.GetHttp())+len(vs.GetTcp())+len(vs.GetTls()) == 0 {
		n.invalid("spec", "it has no routes: http, tcp or tls is needed")
	}
	validateDelegate(n, vs)
	validateExportTo(n, "spec.exportTo", vs.GetExportTo())
	for i, r := range vs.GetHttp() {
		validateHTTPRoute(n, at("spec.http", i), r, len(vs.GetHosts()) == 0)
	}
	for i, r := range vs.GetTcp() {
		validateTCPRoute(n, at("spec.tcp", i), r)
	}
	for i, r := range vs.GetTls() {
		validateTLSRoute(n, at("spec.tls", i), r, vs.GetHosts())
	}
}

func validateExportTo(n *notes, field string, in []string) {
	for i, e := range in {
		if e != "*" && e != "." && e != "~" && !hostPattern.MatchString(e) {
			n.invalid(at(field, i), "%q is no namespace, nor *, . or ~", e)
		}
	}
}

func validateHTTPRoute(n *notes, field string, r *networking.HTTPRoute, leaf bool) {
	validateActions(n, field, r, leaf)
	for i, m := range r.GetMatch() {
		validateMatch(n, at(field+".match", i), m)
	}
	validateWeights(n, field+".route", len(r.GetRoute()), func(i int) int32 { return r.GetRoute()[i].GetWeight() })
	for i, d := range r.GetRoute() {
		field := at(field+".route", i)
		validateDestination(n, field+".destination", d.GetDestination())
		validateHeaders(n, field+".headers", d.GetHeaders())
	}
	validateHeaders(n, field+".headers", r.GetHeaders())
	validateRewrite(n, field, r)
	validateRetries(n, field+".retries", r.GetRetries())
	validateDuration(n, field+".timeout", r.GetTimeout())
	validateMirrors(n, field, r)
	validateRedirect(n, field+".redirect", r.GetRedirect(), r.GetMatch())
	validateFault(n, field+".fault", r.GetFault())
	validateCORS(n, field+".corsPolicy", r.GetCorsPolicy())
	if d := r.GetDirectResponse(); d != nil {
		if d.GetStatus() < 200 || d.GetStatus() > 599 {
			n.invalid(field+".directResponse.status", "%d is not a status between 200 and 599", d.GetStatus())
		}
	}
}

// validateWeights checks weighted destinations; a single one's weight means nothing.
func validateWeights(n *notes, field string, count int, weight func(int) int32) {
	var sum int64
	for i := range count {
		w := weight(i)
		if w < 0 {
			n.invalid(at(field, i)+".weight", "a weight cannot be negative")
			return
		}
		sum += int64(w)
	}
	switch {
	case count > 1 && sum == 0:
		n.invalid(field, "the weights sum to 0: nothing says where requests go")
	case sum > math.MaxUint32:
		n.invalid(field, "the weights sum to more than %d", uint32(math.MaxUint32))
	}
}

func validateDestination(n *notes, field string, d *networking.Destination) {
	switch h := d.GetHost(); {
	case h == "":
		n.invalid(field+".host", "a destination needs a host")
	case !hostPattern.MatchString(h) || h == "*":
		n.invalid(field+".host", "%q is not the name of a destination", h)
	}
	if d.GetPort() != nil {
		validatePort(n, field+".port.number", d.GetPort().GetNumber())
	}
}

func validatePort(n *notes, field string, p uint32) {
	if p == 0 || p > math.MaxUint16 {
		n.invalid(field, "%d is not a port between 1 and %d", p, math.MaxUint16)
	}
}

func validateDuration(n *notes, field string, d *durationpb.Duration) {
	switch {
	case d == nil:
	case d.CheckValid() != nil:
		n.invalid(field, "the duration cannot be represented")
	case d.AsDuration() < time.Millisecond:
		n.invalid(field, "a duration must be at least 1ms")
	case d.AsDuration()%time.Millisecond != 0:
		n.invalid(field, "durations are in whole milliseconds")
	}
}

func validateMatch(n *notes, field string, m *networking.HTTPMatchRequest) {
	if m.GetPort() != 0 {
		validatePort(n, field+".port", m.GetPort())
	}
	validateStringMatch(n, field+".uri", m.GetUri(), true)
	validateStringMatch(n, field+".method", m.GetMethod(), false)
	validateStringMatch(n, field+".scheme", m.GetScheme(), false)
	validateStringMatch(n, field+".authority", m.GetAuthority(), false)
	named := func(field string, in map[string]*networking.StringMatch, headers bool) {
		for _, name := range slices.Sorted(maps.Keys(in)) {
			f := entry(field, name)
			switch {
			case name == "":
				n.invalid(f, "an empty name")
			case headers && !strings.HasPrefix(name, "@") && !headerPattern.MatchString(name):
				n.invalid(f, "%q is not the name of a header", name)
			case len(name) > maxParameter:
				n.invalid(f, "a name has at most %d bytes", maxParameter)
			}
			validateStringMatch(n, f, in[name], false)
		}
	}
	named(field+".headers", m.GetHeaders(), true)
	named(field+".withoutHeaders", m.GetWithoutHeaders(), true)
	named(field+".queryParams", m.GetQueryParams(), false)
}

// validateStringMatch checks an expression, and that a prefix is not empty: Envoy
// takes an empty one for a path alone.
func validateStringMatch(n *notes, field string, m *networking.StringMatch, path bool) {
	switch v := m.GetMatchType().(type) {
	case *networking.StringMatch_Prefix:
		if v.Prefix == "" && !path {
			n.invalid(field+".prefix", "an empty prefix; leave the match empty to ask for presence")
		}
	case *networking.StringMatch_Regex:
		if v.Regex != "*" || path {
			validateRegex(n, field+".regex", v.Regex)
		}
	case *networking.StringMatch_Exact:
		if path && v.Exact == "" {
			n.invalid(field+".exact", "a path is never empty")
		}
	}
}

func validateRegex(n *notes, field, s string) {
	switch _, err := model.NormalizeRegex(s); {
	case s == "":
		n.invalid(field, "an empty expression")
	case len(s) > maxRegex:
		n.invalid(field, "the expression is longer than %d bytes", maxRegex)
	case err != nil:
		n.invalid(field, "not an RE2 expression: %v", err)
	}
}

func validateHeaders(n *notes, field string, h *networking.Headers) {
	if h == nil {
		return
	}
	operations := func(field string, in *networking.Headers_HeaderOperations, s side) {
		for _, op := range []struct {
			name   string
			values map[string]string
		}{{"set", in.GetSet()}, {"add", in.GetAdd()}} {
			for _, name := range slices.Sorted(maps.Keys(op.values)) {
				f := entry(field+"."+op.name, name)
				switch {
				case !headerPattern.MatchString(name):
					n.invalid(f, "%q is not the name of a header", name)
				case strings.HasPrefix(name, ":") && (s == responseSide || name != authorityHeader),
					s == responseSide && strings.EqualFold(name, "host"):
					n.invalid(f, "%s cannot be changed", name)
				case !visible(op.values[name]):
					n.invalid(f, "the value has a control character")
				case len(name) > maxHeader || len(op.values[name]) > maxHeader:
					n.invalid(f, "a header has at most %d bytes", maxHeader)
				}
			}
		}
		for i, name := range in.GetRemove() {
			if !headerPattern.MatchString(name) {
				n.invalid(at(field+".remove", i), "%q is not the name of a header", name)
			}
		}
	}
	operations(field+".request", h.GetRequest(), requestSide)
	operations(field+".response", h.GetResponse(), responseSide)
}

func validateRewrite(n *notes, field string, r *networking.HTTPRoute) {
	rw := r.GetRewrite()
	if rw == nil {
		return
	}
	field += ".rewrite"
	re := rw.GetUriRegexRewrite()
	for name, value := range map[string]string{"uri": rw.GetUri(), "authority": rw.GetAuthority(), "uriRegexRewrite.rewrite": re.GetRewrite()} {
		if !visible(value) || len(value) > maxHeader {
			n.invalid(field+"."+name, "it has a control character, or more than %d bytes", maxHeader)
		}
	}
	switch {
	case rw.GetUri() == "" && rw.GetAuthority() == "" && re == nil:
		n.invalid(field, "a rewrite needs uri, uriRegexRewrite or authority")
	case rw.GetUri() != "" && re != nil:
		n.invalid(field, "uri and uriRegexRewrite exclude each other")
	}
	if re != nil {
		validateRegex(n, field+".uriRegexRewrite.match", re.GetMatch())
		validateReferences(n, field+".uriRegexRewrite.rewrite", re.GetMatch(), re.GetRewrite())
	}
	if r.GetRedirect() != nil || r.GetDirectResponse() != nil {
		n.invalid(field, "a route that is not forwarded cannot be rewritten")
	}
	if rw.GetAuthority() == "" {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(r.GetHeaders().GetRequest().GetSet())) {
		if isAuthority(name) {
			n.invalid(field+".authority", "headers.request.set sets %s too", name)
		}
	}
}

// visible reports whether a header can carry the text.
func visible(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}

var reference = regexp.MustCompile(`\\(.?)`)

// validateReferences checks the \1 of a replacement against the groups of the
// expression.
func validateReferences(n *notes, field, match, replacement string) {
	re, err := regexp.Compile(match)
	if err != nil {
		return
	}
	for _, ref := range reference.FindAllStringSubmatch(replacement, -1) {
		group, err := strconv.Atoi(ref[1])
		if ref[1] != `\` && (err != nil || group > re.NumSubexp()) {
			n.invalid(field, "%q refers to no group of the expression", ref[0])
		}
	}
}

func validateRetries(n *notes, field string, r *networking.HTTPRetry) {
	if r == nil {
		return
	}
	switch {
	case r.GetAttempts() < 0:
		n.invalid(field+".attempts", "attempts cannot be negative")
	case r.GetAttempts() == 0 && (r.GetPerTryTimeout() != nil || r.GetRetryOn() != "" || r.GetRetryRemoteLocalities() != nil || r.GetBackoff() != nil):
		n.invalid(field, "attempts are 0, which means no retries, yet a policy is given")
	}
	validateDuration(n, field+".perTryTimeout", r.GetPerTryTimeout())
	validateDuration(n, field+".backoff", r.GetBackoff())
	for _, part := range retryOnParts(r.GetRetryOn()) {
		if code, err := strconv.Atoi(part); !slices.Contains(retryConditions, part) && (err != nil || http.StatusText(code) == "") {
			n.invalid(field+".retryOn", "%q is neither a condition nor a status", part)
		}
	}
}

func validateMirrors(n *notes, field string, r *networking.HTTPRoute) {
	if r.GetMirror() != nil {
		validateDestination(n, field+".mirror", r.GetMirror())
		if len(r.GetMirrors()) > 0 {
			n.invalid(field+".mirrors", "mirror and mirrors exclude each other")
		}
	}
	validatePercent(n, field+".mirrorPercentage.value", r.GetMirrorPercentage())
	if p := r.GetMirrorPercent().GetValue(); p > 100 { // deprecated, still read
		n.invalid(field+".mirrorPercent", "%d is not between 0 and 100", p)
	}
	for i, m := range r.GetMirrors() {
		field := at(field+".mirrors", i)
		validateDestination(n, field+".destination", m.GetDestination())
		validatePercent(n, field+".percentage.value", m.GetPercentage())
	}
}

func validatePercent(n *notes, field string, p *networking.Percent) {
	if v := p.GetValue(); !(v >= 0 && v <= 100) { // also what is no number
		n.invalid(field, "%v is not between 0 and 100", v)
	}
}

func (t *Translator) validateDestinationRule(n *notes, dr *networking.DestinationRule) {
	if dr == nil {
		return
	}
	if h := dr.GetHost(); !hostPattern.MatchString(h) {
		n.invalid("spec.host", "%q is not a host", h)
	}
	validateExportTo(n, "spec.exportTo", dr.GetExportTo())
	seen := map[string]bool{}
	for i, s := range dr.GetSubsets() {
		field := at("spec.subsets", i)
		switch {
		case s.GetName() == "":
			n.invalid(field+".name", "a subset needs a name")
		case seen[s.GetName()]:
			n.invalid(field+".name", "two subsets are named %q", s.GetName())
		}
		seen[s.GetName()] = true
	}
	validatePolicies(n, dr)
}
