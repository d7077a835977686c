// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"
	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// httpTranslation turns the http routes of one VirtualService into routes for one
// port of the services that it names.
type httpTranslation struct {
	t      *Translator
	r      translators.Reader
	n      *notes
	port   uint16
	client string // namespace of the clients, "" if any
	// labels are those that the clients are known to carry; connection: what is
	// translated are connections, not requests.
	labels     map[string]string
	connection bool
	// sharing are the destinations that share the connections of a route.
	sharing []*networking.RouteDestination
	// general: clients without a namespace are those that no other routes are for; else,
	// any that there may be.
	general bool
	// addresses are those of the services, by which connections come.
	addresses []netip.Prefix
	// anyPort says that port only stands in for one that is not known.
	anyPort bool
	// delegates are notes about VirtualServices that n's object delegates to; nil: nobody
	// asks for them.
	delegates map[*objects.Object]*notes
}

// routes gives what applies at the port, in order; what stands behind a catch-all
// is left out.
func (h *httpTranslation) routes(vs *networking.VirtualService) []model.Route {
	var out []model.Route
	all := h.placed(vs)
	for i := range all {
		p := &all[i]
		for _, m := range h.matches(p) {
			// DestinationRules depend on who asks, which the match may say.
			for _, cl := range h.clients(client{m.match.SourceNamespace, m.match.SourceLabels}, h.destinations(p)) {
				route := h.carrying(cl.labels).action(p, cl.namespace)
				route.Match = cl.narrow(m.match)
				route.Src = p.sources(m)
				out = append(out, route)
			}
			h.judgePrefix(m, all[i+1:])
			if isCatchAll(m.match, h.client) && len(m.match.SourceLabels) == 0 {
				if i+1 < len(all) {
					next := all[i+1]
					next.n.surprising(next.field, "unreachable-route",
						fmt.Sprintf("port %d: an earlier route takes every request", h.port), "put the general route last")
				}
				return out
			}
		}
	}
	return out
}

// action translates what becomes of the requests of a route.
func (h *httpTranslation) action(p *placedRoute, client string) model.Route {
	var out model.Route
	in := p.in
	switch {
	case p.broken:
		return model.Route{Direct: &model.Direct{Status: invalidStatus}}
	case in.GetRedirect() != nil:
		part, field := h.part(p, "redirect")
		if out.Redirect = part.redirect(field, in.GetRedirect()); out.Redirect == nil {
			out.Direct = &model.Direct{Status: invalidStatus}
		}
		h.notForwarded(p)
	case in.GetDirectResponse() != nil:
		part, field := h.part(p, "directResponse")
		out.Direct = part.direct(field, in.GetDirectResponse())
		h.notForwarded(p)
	default:
		h.judgeRetries(p)
		out.Backends = h.on(p.n).split(p.field+".route", in.GetRoute(), client)
		out.Timeout = duration(in.GetTimeout())
		out.Retry = h.routeRetry(in.GetRetries(), out.Backends)
		out.Mirrors = h.mirrors(p, client)
	}
	part, field := h.part(p, "headers")
	request, authority := part.edit(field+".request", in.GetHeaders().GetRequest(), requestSide)
	response, _ := part.edit(field+".response", in.GetHeaders().GetResponse(), responseSide)
	if out.Direct == nil && out.Redirect == nil {
		out.Rewrite = rewrite(in.GetRewrite(), authority)
		out.RequestHeaders = request
	}
	out.ResponseHeaders = response
	part, field = h.part(p, "fault")
	out.Fault = part.fault(field, in.GetFault())
	out.CORS = cors(in.GetCorsPolicy())
	if len(out.Backends) == 1 { // its edits are the route's
		h.fold(&out)
	}
	return out
}

// notForwarded says that fields about forwarding mean nothing on a route that
// answers by itself.
func (h *httpTranslation) notForwarded(p *placedRoute) {
	in := p.in
	for name, set := range map[string]bool{
		"timeout":          in.GetTimeout() != nil,
		"retries":          in.GetRetries() != nil,
		"mirror":           in.GetMirror() != nil,
		"mirrors":          len(in.GetMirrors()) > 0,
		"headers.request":  in.GetHeaders().GetRequest() != nil,
		"mirrorPercentage": in.GetMirrorPercentage() != nil,
		"mirrorPercent":    in.GetMirrorPercent() != nil, // deprecated, still read
	} {
		if set && !p.inherited[strings.TrimSuffix(name, ".request")] {
			p.n.surprising(p.field+"."+name, "not-forwarded", "a route that answers by itself forwards nothing: the field has no effect", "remove it")
		}
	}
}

// maxBody is how many bytes of an answer of its own a proxy keeps; Istio sets it so too.
const maxBody = 1 << 20

func (h *httpTranslation) direct(field string, in *networking.HTTPDirectResponse) *model.Direct {
	d := &model.Direct{Status: in.GetStatus(), Body: in.GetBody().GetString_()}
	if b := in.GetBody().GetBytes(); len(b) > 0 {
		d.Body = string(b)
	}
	switch {
	case len(d.Body) > maxBody:
		h.n.refused(field+".body", "body-too-long", model.Degrades, fmt.Sprintf("a body has at most %d bytes: the answer has none", maxBody), "let a service answer")
		d.Body = ""
	case !utf8.ValidString(d.Body):
		h.n.refused(field+".body.bytes", "unsupported-body", model.Degrades, "the body is not UTF-8 text: the answer has none", "let a service answer")
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
func (h *httpTranslation) mirrors(p *placedRoute, client string) []model.Mirror {
	var out []model.Mirror
	in := p.in
	add := func(h *httpTranslation, field string, d *networking.Destination, share uint32) {
		b := h.backend(field, d, client, "it gets no copies")
		if b.Missing || share == 0 {
			return // nobody waits for the copies' answers
		}
		b.Weight = 1
		out = append(out, model.Mirror{Src: []model.Source{h.n.o.Source(Plane, field)}, Backend: b, PerMillion: share, Shadow: h.t.profile.shadowHosts})
	}
	if d := in.GetMirror(); d != nil {
		share := uint32(everything)
		switch {
		case in.GetMirrorPercentage() != nil:
			share = perMillion(in.GetMirrorPercentage())
		case in.GetMirrorPercent() != nil: // deprecated, still read
			share = in.GetMirrorPercent().GetValue() * perPercent // deprecated, still read
		}
		part, field := h.part(p, "mirror")
		add(part, field, d, share)
	}
	part, field := h.part(p, "mirrors")
	for i, m := range in.GetMirrors() {
		share := uint32(everything)
		if m.GetPercentage() != nil {
			share = perMillion(m.GetPercentage())
		}
		add(part, at(field, i)+".destination", m.GetDestination(), share)
	}
	return out
}

func perMillion(p *networking.Percent) uint32 { return uint32(math.Round(p.GetValue() * perPercent)) }
