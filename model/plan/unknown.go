// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
)

// defaults are those that hold for a frontend of a namespace, nil if there are none.
func (c *compiler) defaults(key, namespace string) *model.Defaults {
	n, _ := c.r.Get(namespaces, namespace).(*model.Namespace)
	return defaultsOf(c.r, key, n)
}

// unknownFrom are the clients of a frontend for whom something else becomes of hosts that
// nobody knows.
func (c *compiler) unknownFrom(key, namespace string) []UnknownFrom {
	d := c.defaults(key, namespace)
	if d == nil {
		return nil
	}
	return selected(d.UnknownFrom)
}

// exceptions are the clients for whom something else than unknown becomes of what nobody
// knows at addresses that are everybody's. Where namespaces are of several planes, each
// has what its own says: one plane's service must not open what another plane closes to
// its clients, nor close what it leaves open.
func (c *compiler) exceptions(unknown model.Unknown) []model.UnknownFrom {
	var out []model.UnknownFrom
	var only *model.Defaults
	several := false
	for _, row := range c.r.All(namespaces) {
		n := row.Value.(*model.Namespace)
		d := defaultsOf(c.r, "", n)
		if d == nil {
			continue
		}
		several = several || only != nil && only != d
		only = d
		for _, u := range d.UnknownFrom {
			if u.SourceNamespace == "" || u.SourceNamespace == n.Name {
				u.SourceNamespace = n.Name
				out = append(out, u)
			}
		}
		if u := choiceOf(c.r, "", n.Name, nil).Unknown; u != unknown {
			out = append(out, model.UnknownFrom{SourceNamespace: n.Name, Unknown: u})
		}
	}
	switch {
	case several:
		return out
	case only != nil:
		return only.UnknownFrom
	}
	return nil
}

// selected has clients' labels as predicates.
func selected(in []model.UnknownFrom) []UnknownFrom {
	var out []UnknownFrom
	for _, u := range in {
		from := UnknownFrom{SourceNamespace: u.SourceNamespace, Unknown: u.Unknown}
		if len(u.SourceLabels) > 0 {
			from.SourceSelects = predicateID(u.SourceLabels)
		}
		out = append(out, from)
	}
	return out
}

// unknownTo is what becomes of hosts that nobody knows for one client, "" if the plane of
// its namespace has no exception for it.
func unknownTo(r getter, w *model.Workload) model.Unknown {
	n, _ := r.Get(namespaces, w.Namespace).(*model.Namespace)
	d := defaultsOf(r, "", n)
	if d == nil {
		return ""
	}
	for _, u := range d.UnknownFrom {
		if (u.SourceNamespace == "" || u.SourceNamespace == w.Namespace) && hasLabels(w.Labels, u.SourceLabels) {
			return u.Unknown
		}
	}
	return ""
}

// UnknownSources tells who has it that what a workload sends to hosts that nobody knows is
// refused, in requests to a frontend (ns/name:port), or "" for connections to what is no
// service's; nil: they are not refused, or nobody has said so.
func UnknownSources(t getter, w *model.Workload, frontend string) []model.Source {
	namespace := w.Namespace
	if ns, _, ok := strings.Cut(frontend, "/"); ok {
		namespace = ns
	}
	n, _ := t.Get(namespaces, namespace).(*model.Namespace)
	d := defaultsOf(t, frontend, n)
	if d != nil {
		for _, u := range d.UnknownFrom {
			if (u.SourceNamespace == "" || u.SourceNamespace == w.Namespace) && hasLabels(w.Labels, u.SourceLabels) {
				switch {
				case u.Unknown != model.UnknownRefuse:
					return nil
				case len(u.Src) > 0:
					return u.Src
				}
				return d.Src
			}
		}
	}
	switch c := choiceOf(t, frontend, namespace, nil); {
	case c.Unknown != model.UnknownRefuse:
		return nil
	case n != nil && n.Choice.Unknown == model.UnknownRefuse:
		return []model.Source{n.Src}
	case d != nil:
		return d.Src
	}
	return nil
}

// unknownStage gives the predicates of the planes' exceptions.
func unknownStage() incr.Stage {
	return incr.Stage{Name: "plan/unknown",
		Keys: map[incr.Table]func(string, any) []string{defaults: self("")},
		Compute: func(r *incr.Reader, key string) []incr.Row {
			d, _ := r.Get(defaults, key).(*model.Defaults)
			if d == nil {
				return nil
			}
			var out []incr.Row
			for _, u := range d.UnknownFrom {
				if len(u.SourceLabels) > 0 {
					out = append(out, incr.Row{Table: predicates, Key: predicateID(u.SourceLabels), Value: u.SourceLabels})
				}
			}
			return unique(out)
		}}
}
