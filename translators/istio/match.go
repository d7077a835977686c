// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"maps"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/model"
)

// placedMatch is a match and where it stands.
type placedMatch struct {
	match model.RouteMatch
	n     *notes
	field string
}

// matches gives the conditions under which a route applies at the port: one for
// each entry that can hold, a single one without entries.
func (h *httpTranslation) matches(p *placedRoute) []placedMatch {
	rewrites := p.in.GetRewrite().GetUri() != "" && p.in.GetRewrite().GetUriRegexRewrite().GetMatch() == "" ||
		p.in.GetRedirect().GetPrefixRewrite() != ""
	if len(p.in.GetMatch()) == 0 {
		m := model.RouteMatch{SourceNamespace: h.client}
		if rewrites {
			m.Path = anyPath()
		}
		return []placedMatch{{match: m, n: p.n, field: p.field}}
	}
	var out []placedMatch
	for i, m := range p.in.GetMatch() {
		n, field := p.match(i)
		if rm, ok := h.on(n).match(field, m, rewrites); ok {
			out = append(out, placedMatch{rm, n, field})
		}
	}
	return out
}

// anyPath is the prefix that a rewrite replaces where no path is asked for.
func anyPath() *model.StringMatch { return &model.StringMatch{Kind: model.Prefix, Value: "/"} }

// match translates one entry; ok is false if it can never hold here.
func (h *httpTranslation) match(field string, m *networking.HTTPMatchRequest, rewrites bool) (rm model.RouteMatch, ok bool) {
	if m.GetStatPrefix() != "" {
		h.n.approximated(field+".statPrefix", "unsupported-statistics", model.Cosmetic, "routes have no statistics of their own", "")
	}
	if !h.source(field, m, &rm) {
		return rm, false
	}
	if m.GetPort() != 0 && m.GetPort() != uint32(h.port) {
		return rm, false
	}
	rm.Path = path(m, rewrites)
	h.judgeExpression(field+".uri", m.GetUri(), rm.Path)
	rm.Method = always(m.GetMethod())
	rm.Scheme = always(m.GetScheme())
	rm.Authority = always(m.GetAuthority())
	possible := true
	for _, name := range slices.Sorted(maps.Keys(m.GetHeaders())) {
		if h.claim(entry(field+".headers", name), name) {
			possible = false
			continue
		}
		rm.Headers = append(rm.Headers, model.NamedMatch{Name: strings.ToLower(name), Match: present(m.GetHeaders()[name])})
	}
	for _, name := range slices.Sorted(maps.Keys(m.GetWithoutHeaders())) {
		if h.claim(entry(field+".withoutHeaders", name), name) {
			possible = false
			continue
		}
		rm.Headers = append(rm.Headers, without(name, m.GetWithoutHeaders()[name]))
	}
	for name, sm := range m.GetQueryParams() {
		rm.Query = append(rm.Query, model.NamedMatch{Name: name, Match: present(sm)})
	}
	rm.Headers, rm.Query = model.SortContent(rm.Headers), model.SortContent(rm.Query)
	return rm, possible
}

// source translates the conditions on the client; false if it cannot be meant.
func (h *httpTranslation) source(field string, m *networking.HTTPMatchRequest, rm *model.RouteMatch) bool {
	rm.SourceNamespace = h.client
	if len(m.GetGateways()) > 0 {
		if !h.gateways(field, m.GetGateways()) {
			return false
		}
		for name, set := range map[string]bool{"sourceLabels": len(m.GetSourceLabels()) > 0, "sourceNamespace": m.GetSourceNamespace() != ""} {
			if set {
				h.n.surprising(field+"."+name, "source-ignored", "where a match names gateways, Istio does not look at the source; nor is it here", "remove gateways")
			}
		}
		return true
	}
	if ns := m.GetSourceNamespace(); ns != "" {
		if h.client != "" && h.client != ns {
			return false
		}
		rm.SourceNamespace = ns
	}
	if len(m.GetSourceLabels()) > 0 {
		rm.SourceLabels = m.GetSourceLabels()
	}
	return true
}

// gateways notes gateways that are not served and reports whether the mesh is among
// them.
func (h *httpTranslation) gateways(field string, names []string) bool {
	mesh := false
	for i, g := range names {
		if g == meshGateway {
			mesh = true
			continue
		}
		h.n.refused(at(field+".gateways", i), "unsupported-gateway", model.Narrows,
			"gateways are not served: nothing of this match applies at "+g, "")
	}
	return mesh
}

// claim refuses a header that stands for a claim of a token. Without tokens it
// never matches.
func (h *httpTranslation) claim(field, name string) bool {
	if !strings.HasPrefix(name, "@request.auth.claims") {
		return false
	}
	h.n.refused(field, "unsupported-token", model.Narrows, "tokens are not verified: this match never holds", "")
	return true
}

// path translates uri. Where a rewrite replaces what was matched, the kind of match
// decides what that is, so an expression stays one.
func path(m *networking.HTTPMatchRequest, rewrites bool) *model.StringMatch {
	var out model.StringMatch
	switch u := m.GetUri().GetMatchType().(type) {
	case *networking.StringMatch_Exact:
		return &model.StringMatch{Kind: model.Exact, Value: u.Exact, IgnoreCase: m.GetIgnoreUriCase()}
	case *networking.StringMatch_Prefix:
		out = model.StringMatch{Kind: model.Prefix, Value: u.Prefix, IgnoreCase: m.GetIgnoreUriCase()}
	case *networking.StringMatch_Regex:
		out = regex(u.Regex)
		if rewrites && out.Kind != model.Exact {
			return &model.StringMatch{Kind: model.Regex, Value: u.Regex}
		}
	default:
		out.Kind = model.Present
	}
	if out.Kind == model.Present || out.Kind == model.Prefix && (out.Value == "" || out.Value == "/") {
		if rewrites {
			return anyPath()
		}
		return nil
	}
	return &out
}

// regex is the simplest form of an expression that Validate has accepted.
func regex(s string) model.StringMatch {
	m, err := model.NormalizeRegex(s)
	if err != nil {
		return model.StringMatch{Kind: model.Regex, Value: s}
	}
	return m
}

// present translates a string match of something that may be missing. An empty one
// and the regex "*" ask for presence.
func present(in *networking.StringMatch) model.StringMatch {
	switch m := in.GetMatchType().(type) {
	case *networking.StringMatch_Exact:
		return model.StringMatch{Kind: model.Exact, Value: m.Exact}
	case *networking.StringMatch_Prefix:
		return model.StringMatch{Kind: model.Prefix, Value: m.Prefix}
	case *networking.StringMatch_Regex:
		if m.Regex != "*" {
			return regex(m.Regex)
		}
	}
	return model.StringMatch{Kind: model.Present}
}

// always translates a string match of something that every request has.
func always(in *networking.StringMatch) *model.StringMatch {
	if in == nil {
		return nil
	}
	m := present(in)
	if m.Kind == model.Present {
		return nil
	}
	return &m
}

// without translates an entry of withoutHeaders: by presence it asks that the header
// is missing, by value a missing header counts as an empty one.
func without(name string, in *networking.StringMatch) model.NamedMatch {
	m := present(in)
	out := model.NamedMatch{Name: strings.ToLower(name), Match: m, Not: true}
	if re := in.GetRegex(); m.Kind == model.Present && re != "" && re != "*" {
		// ".*" matches the empty value too: no request can satisfy its opposite.
		out.Match = model.StringMatch{Kind: model.Regex, Value: re}
	}
	out.MissingEmpty = out.Match.Kind != model.Present
	return out
}
