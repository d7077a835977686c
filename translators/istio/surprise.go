// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"fmt"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/model"
)

// judgePrefix notes a prefix that takes, without being one of whole segments, what a later
// route asks for: "/web" takes "/website", too.
func (h *httpTranslation) judgePrefix(m placedMatch, later []placedRoute) {
	path := m.match.Path
	rest := m.match
	if rest.Path = nil; path == nil || path.Kind != model.Prefix || path.IgnoreCase || strings.HasSuffix(path.Value, "/") || !isCatchAll(rest, h.client) || len(rest.SourceLabels) > 0 {
		return
	}
	for _, l := range later {
		for i, lm := range l.in.GetMatch() {
			want := lm.GetUri().GetExact()
			if want == "" {
				want = lm.GetUri().GetPrefix()
			}
			if tail, ok := strings.CutPrefix(want, path.Value); ok && tail != "" && tail[0] != '/' && tail[0] != '?' {
				n, field := l.match(i)
				n.surprising(field+".uri", "unreachable-route",
					fmt.Sprintf("port %d: the prefix %s of %s takes it first: prefixes are compared by letters, not by segments", h.port, path.Value, m.field), "put this route first, or end the prefix with a slash")
			}
		}
	}
}

// judgeRetries notes a policy that says how to retry and not how often, which turns
// retries off. Who has written the number means it.
func (h *httpTranslation) judgeRetries(p *placedRoute) {
	if p.in.GetRetries() == nil || p.in.GetRetries().GetAttempts() != 0 {
		return
	}
	part, field := h.part(p, "retries")
	_, written := part.n.o.Place.Lines[field+".attempts"]
	if !written && part.n.o.Place.Lines != nil {
		part.n.surprising(field, "no-attempts", "attempts are not given, which is none: requests are not retried, by default either", "write attempts")
	}
}

// judgeExpression notes an expression that no path can match: it has to match the whole,
// which begins with a slash.
func (h *httpTranslation) judgeExpression(field string, in *networking.StringMatch, path *model.StringMatch) {
	if in.GetRegex() != "" && path != nil && (path.Kind == model.Exact || path.Kind == model.Prefix) && !strings.HasPrefix(path.Value, "/") {
		h.n.surprising(field+".regex", "never-matches", "an expression is compared with the whole path, which begins with a slash: this one never matches", "begin it with a slash, or with .*")
	}
}
