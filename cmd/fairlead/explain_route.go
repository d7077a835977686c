// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

func matchText(m *model.RouteMatch) string {
	var out []string
	add := func(what string, s *model.StringMatch) {
		if s != nil {
			out = append(out, what+" "+stringText(*s))
		}
	}
	add("path", m.Path)
	add("method", m.Method)
	add("scheme", m.Scheme)
	add("authority", m.Authority)
	for _, h := range m.Headers {
		out = append(out, "header "+namedText(h))
	}
	for _, q := range m.Query {
		out = append(out, "query "+namedText(q))
	}
	if m.SourceNamespace != "" {
		out = append(out, "from namespace "+m.SourceNamespace)
	}
	for _, k := range slices.Sorted(maps.Keys(m.SourceLabels)) {
		out = append(out, fmt.Sprintf("from %s=%s", k, m.SourceLabels[k]))
	}
	if len(out) == 0 {
		return "everything"
	}
	return strings.Join(out, ", ")
}

func stringText(s model.StringMatch) string {
	if s.Kind == model.Present {
		return "is there"
	}
	text := fmt.Sprintf("%s %q", s.Kind, s.Value)
	if s.IgnoreCase {
		text += " in any case"
	}
	return text
}

func namedText(m model.NamedMatch) string {
	if m.Not {
		return m.Name + " not " + stringText(m.Match)
	}
	return m.Name + " " + stringText(m.Match)
}

// actionText is what a route does; backend gives the names of its clusters in words.
func actionText(r *plan.Route, backend func(cluster string) string) string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if f := r.Fault; f != nil {
		out = append(out, f.Words()...)
	}
	if r.CORS != nil && r.Direct == nil && r.Redirect == nil {
		out = append(out, corsText(r.CORS))
	}
	switch {
	case r.Direct != nil:
		say("answers %d", r.Direct.Status)
	case r.Redirect != nil:
		out = append(out, redirectText(r.Redirect))
	case r.Original:
		say("where the client was going")
	case len(r.Clusters) == 0:
		say("answers 503")
	case len(r.Clusters) == 1:
		out = append(out, shareText(r.Clusters[0], backend))
	default:
		total := uint64(0)
		for _, c := range r.Clusters {
			total += uint64(c.Weight)
		}
		out = append(out, joinWords(r.Clusters, ", ", func(c plan.WeightedCluster) string {
			return fmt.Sprintf("%.4g %% %s", 100*float64(c.Weight)/float64(total), shareText(c, backend))
		}))
	}
	if w := r.Rewrite; w != nil {
		switch {
		case w.PathRegex != nil:
			say("path %q becomes %q", w.PathRegex.Match, w.PathRegex.Replacement)
		case w.FullPath != "":
			say("path becomes %q", w.FullPath)
		case w.Path != "":
			say("path becomes %q", w.Path)
		}
		if w.Authority != "" {
			say("host becomes %q", w.Authority)
		}
	}
	if r.Timeout > 0 {
		say("timeout %s", r.Timeout)
	}
	if r.IdleTimeout > 0 {
		say("timeout %s without a byte", r.IdleTimeout)
	}
	if r.Retry != nil {
		out = append(out, retryText(r.Retry))
	}
	for _, m := range r.Mirrors {
		say("%s copied to %s", model.Percent(m.PerMillion), backend(m.Cluster))
	}
	if !r.RequestHeaders.IsZero() {
		say("request headers edited")
	}
	if !r.ResponseHeaders.IsZero() {
		say("answer's headers edited")
	}
	return strings.Join(out, "; ")
}

func shareText(c plan.WeightedCluster, backend func(string) string) string {
	if c.Status != 0 {
		return fmt.Sprintf("answers %d", c.Status)
	}
	return backend(c.Name)
}

func corsText(c *model.CORS) string {
	if len(c.Origins) == 0 {
		return "CORS for no origin"
	}
	return "CORS for origin " + joinWords(c.Origins, " or ", stringText)
}

func redirectText(r *model.Redirect) string {
	out := []string{fmt.Sprintf("redirects with %d", r.Status)}
	for _, part := range []struct{ name, value string }{{"scheme", r.Scheme}, {"host", r.Host}, {"path", r.Path}} {
		if part.value != "" {
			out = append(out, fmt.Sprintf("%s %q", part.name, part.value))
		}
	}
	if r.Port != 0 {
		out = append(out, fmt.Sprintf("port %d", r.Port))
	}
	if r.Prefix != nil {
		out = append(out, fmt.Sprintf("what matched becomes %q", *r.Prefix))
	}
	return strings.Join(out, ", ")
}

func retryText(r *model.Retry) string {
	on := slices.Clone(r.On)
	for _, c := range r.StatusCodes {
		on = append(on, fmt.Sprint(c))
	}
	text := fmt.Sprintf("%d retries on %s", r.Attempts, strings.Join(on, ","))
	if r.MaxBody > 0 {
		text += fmt.Sprintf(" of bodies up to %d bytes", r.MaxBody)
	}
	return text
}
