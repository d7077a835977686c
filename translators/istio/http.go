// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
)

// httpTranslation turns the http routes of one VirtualService into routes for one
// port of the services that it names.
type httpTranslation struct {
	t      *Translator
	r      translators.Reader
	n      *notes
	port   uint16
	client string // namespace of the clients, "" if any
	// anyPort says that port only stands in for one that is not known.
	anyPort bool
}

// routes gives what applies at the port, in order; what stands behind a catch-all
// is left out.
func (h *httpTranslation) routes(vs *networking.VirtualService) []model.Route {
	var out []model.Route
	for i, in := range vs.GetHttp() {
		field := at("spec.http", i)
		matches := h.matches(field, in)
		if len(matches) == 0 {
			continue
		}
		for _, m := range matches {
			// Subsets depend on who asks, which the match may say.
			client := m.match.SourceNamespace
			route := h.action(field, in, client)
			route.Match = m.match
			route.Src = []model.Source{h.n.o.Source(Plane, m.field)}
			out = append(out, route)
			if isCatchAll(m.match, h.client) && len(m.match.SourceLabels) == 0 {
				if i+1 < len(vs.GetHttp()) {
					h.n.surprising(at("spec.http", i+1), "unreachable-route",
						fmt.Sprintf("port %d: an earlier route takes every request", h.port), "put the general route last")
				}
				return out
			}
		}
	}
	return out
}

// action translates what becomes of the requests of a route.
func (h *httpTranslation) action(field string, in *networking.HTTPRoute, client string) model.Route {
	var out model.Route
	h.unsupported(field, in)
	switch {
	case in.GetRedirect() != nil:
		h.n.refused(field+".redirect", "unsupported-field", model.Narrows, "redirects are not supported: the route answers 500", "")
		return model.Route{Direct: &model.Direct{Status: invalidStatus}}
	case in.GetDelegate() != nil:
		h.n.refused(field+".delegate", "unsupported-field", model.Narrows, "delegation is not supported: the route answers 500",
			"write the delegate's routes here")
		return model.Route{Direct: &model.Direct{Status: invalidStatus}}
	case in.GetDirectResponse() != nil:
		out.Direct = h.direct(field+".directResponse", in.GetDirectResponse())
		h.notForwarded(field, in)
	default:
		out.Backends = h.split(field+".route", in.GetRoute(), client)
		out.Timeout = duration(in.GetTimeout())
		out.Retry = h.t.retry(h.t.mesh(h.r), in.GetRetries())
		out.Mirrors = h.mirrors(field, in, client)
	}
	request, authority := h.edit(field+".headers.request", in.GetHeaders().GetRequest(), requestSide)
	response, _ := h.edit(field+".headers.response", in.GetHeaders().GetResponse(), responseSide)
	if out.Direct == nil {
		out.Rewrite = rewrite(in.GetRewrite(), authority)
		out.RequestHeaders = request
	}
	out.ResponseHeaders = response
	if len(out.Backends) == 1 { // its edits are the route's
		h.fold(&out)
	}
	return out
}

// notForwarded says that fields about forwarding mean nothing on a route that
// answers by itself.
func (h *httpTranslation) notForwarded(field string, in *networking.HTTPRoute) {
	for name, set := range map[string]bool{
		"timeout":          in.GetTimeout() != nil,
		"retries":          in.GetRetries() != nil,
		"mirror":           in.GetMirror() != nil,
		"mirrors":          len(in.GetMirrors()) > 0,
		"headers.request":  in.GetHeaders().GetRequest() != nil,
		"mirrorPercentage": in.GetMirrorPercentage() != nil,
		"mirrorPercent":    in.GetMirrorPercent() != nil, // deprecated, still read
	} {
		if set {
			h.n.surprising(field+"."+name, "not-forwarded", "a route that answers by itself forwards nothing: the field has no effect", "remove it")
		}
	}
}

// unsupported refuses what a route may carry besides its destinations.
func (h *httpTranslation) unsupported(field string, in *networking.HTTPRoute) {
	if in.GetFault() != nil {
		h.n.refused(field+".fault", "unsupported-field", model.Degrades, "fault injection is not supported: requests are forwarded without faults", "")
	}
	if in.GetCorsPolicy() != nil {
		h.n.refused(field+".corsPolicy", "unsupported-field", model.Narrows,
			"CORS policies are not supported: the answers carry no CORS headers and preflight requests reach the backend", "let the application answer preflight requests")
	}
}

// maxBody is how many bytes Envoy takes for an answer of its own.
const maxBody = 4096

func (h *httpTranslation) direct(field string, in *networking.HTTPDirectResponse) *model.Direct {
	d := &model.Direct{Status: in.GetStatus(), Body: in.GetBody().GetString_()}
	if b := in.GetBody().GetBytes(); len(b) > 0 {
		d.Body = string(b)
	}
	if len(d.Body) > maxBody {
		h.n.refused(field+".body", "body-too-long", model.Degrades, fmt.Sprintf("a body has at most %d bytes: the answer has none", maxBody), "let a service answer")
		d.Body = ""
	}
	return d
}

func duration(d *durationpb.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return d.AsDuration()
}

func rewrite(in *networking.HTTPRewrite, authority string) *model.Rewrite {
	if a := in.GetAuthority(); a != "" {
		authority = a
	}
	out := model.Rewrite{Authority: authority}
	if re := in.GetUriRegexRewrite(); re.GetMatch() != "" {
		out.PathRegex = &model.RegexEdit{Match: re.GetMatch(), Replacement: re.GetRewrite()}
	} else {
		out.Path = in.GetUri()
	}
	if out == (model.Rewrite{}) {
		return nil
	}
	return &out
}

// Percentages are counted in millionths.
const (
	perPercent = 10_000
	everything = 100 * perPercent
)

// mirrors translates both spellings; a share of 0 % is none.
func (h *httpTranslation) mirrors(field string, in *networking.HTTPRoute, client string) []model.Mirror {
	var out []model.Mirror
	add := func(field string, d *networking.Destination, share uint32) {
		b := h.backend(field, d, client, "it gets no copies")
		if b.Missing || share == 0 {
			return // nobody waits for the copies' answers
		}
		b.Weight = 1
		// Envoy opens connections for copies by itself: it knows no client for them.
		h.n.approximated(field, "copies-without-identity", model.Narrows,
			"copies come from the node's address, not from the client's: where policy wants an identity they are denied", "")
		out = append(out, model.Mirror{Backend: b, PerMillion: share})
	}
	if d := in.GetMirror(); d != nil {
		share := uint32(everything)
		switch {
		case in.GetMirrorPercentage() != nil:
			share = perMillion(in.GetMirrorPercentage())
		case in.GetMirrorPercent() != nil: // deprecated, still read
			share = in.GetMirrorPercent().GetValue() * perPercent // deprecated, still read
		}
		add(field+".mirror", d, share)
	}
	for i, m := range in.GetMirrors() {
		share := uint32(everything)
		if m.GetPercentage() != nil {
			share = perMillion(m.GetPercentage())
		}
		add(at(field+".mirrors", i)+".destination", m.GetDestination(), share)
	}
	return out
}

func perMillion(p *networking.Percent) uint32 { return uint32(math.Round(p.GetValue() * perPercent)) }
