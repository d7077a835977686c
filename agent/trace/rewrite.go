// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// sending is a request as a route sends it on.
type sending struct {
	kind  kind
	q     plan.Request
	edits []model.HeaderEdit // in the order in which they are done
}

// rewritten is the request behind a route's own edits.
func rewritten(r *plan.Route, q *plan.Request) *sending {
	s := &sending{q: *q}
	s.q.Headers = slices.Clone(q.Headers)
	if w := r.Rewrite; w != nil {
		s.q.Path = RewrittenPath(w, r.Match.Path, q.Path)
		if w.Authority != "" {
			s.q.Authority = w.Authority
		}
	}
	s.edit(r.RequestHeaders)
	if r.Rewrite != nil && r.Rewrite.Authority != "" {
		s.q.Authority = r.Rewrite.Authority
	}
	return s
}

// behind adds what a share of the route edits.
func (s *sending) behind(c *plan.WeightedCluster) *sending {
	if c.RequestHeaders.IsZero() {
		return s
	}
	out := &sending{kind: s.kind, q: s.q, edits: slices.Clone(s.edits)}
	out.q.Headers = slices.Clone(s.q.Headers)
	authority := s.q.Authority
	set := slices.ContainsFunc(s.edits, func(e model.HeaderEdit) bool {
		return slices.ContainsFunc(e.Set, func(h model.Header) bool { return h.Name == ":authority" })
	})
	out.edit(c.RequestHeaders)
	if set {
		out.q.Authority = authority // the route's own stands
	}
	return out
}

func (s *sending) edit(e model.HeaderEdit) {
	if e.IsZero() {
		return
	}
	s.edits = append(s.edits, e)
	drop := func(name string) {
		s.q.Headers = slices.DeleteFunc(s.q.Headers, func(h model.Header) bool { return h.Name == name })
	}
	for _, n := range e.Remove {
		drop(n)
	}
	for _, h := range e.Set {
		if h.Name == ":authority" {
			s.q.Authority = h.Value
			continue
		}
		drop(h.Name)
		s.q.Headers = append(s.q.Headers, h)
	}
	s.q.Headers = append(s.q.Headers, e.Add...)
}

// seen is what an endpoint sees of it.
func (s *sending) seen() *Sent {
	if s.kind == connection || s.kind == datagram {
		return nil
	}
	out := &Sent{Authority: s.q.Authority, Path: s.q.Path}
	if s.q.Query != "" {
		out.Path += "?" + s.q.Query
	}
	for _, e := range s.edits {
		for _, h := range e.Set {
			if h.Name != ":authority" {
				out.Set = append(out.Set, h)
			}
		}
		out.Added = append(out.Added, e.Add...)
		out.Removed = append(out.Removed, e.Remove...)
	}
	return out
}

// RewrittenPath is what a rewrite makes of a path that a match (nil: any) takes.
func RewrittenPath(w *model.Rewrite, m *model.StringMatch, path string) string {
	switch {
	case w.PathRegex != nil:
		re, err := regexp.Compile(w.PathRegex.Match)
		if err != nil {
			return path
		}
		return re.ReplaceAllString(path, goReferences(w.PathRegex.Replacement))
	case w.FullPath != "":
		return w.FullPath
	case w.Path == "":
		return path
	case m != nil && m.Kind == model.Prefix:
		return w.Path + path[min(len(m.Value), len(path)):]
	case m != nil && m.Kind == model.Segments:
		return segmentsReplaced(m.Value, w.Path, path)
	}
	return w.Path
}

// segmentsReplaced puts other segments in place of a prefix; see model.Rewrite.
func segmentsReplaced(prefix, by, path string) string {
	rest := path[min(len(strings.TrimSuffix(prefix, "/")), len(path)):]
	return cmp.Or(strings.TrimRight(by, "/")+rest, "/")
}

// goReferences turns RE2's \1 into Go's ${1}, and keeps dollar signs as they are.
func goReferences(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '$':
			b.WriteString("$$")
		case s[i] == '\\' && i+1 < len(s):
			i++
			if s[i] >= '0' && s[i] <= '9' {
				b.WriteString("${" + string(s[i]) + "}")
			} else {
				b.WriteByte(s[i])
			}
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}
