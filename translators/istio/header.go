// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"maps"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/model"
)

type side int

const (
	requestSide side = iota
	responseSide
)

const authorityHeader = ":authority"

// isAuthority reports whether a request header stands for the host.
func isAuthority(name string) bool {
	return strings.EqualFold(name, "host") || strings.EqualFold(name, authorityHeader)
}

// edit translates header operations. The host, which Istio rewrites apart from the
// headers, is returned by itself.
func (h *httpTranslation) edit(field string, in *networking.Headers_HeaderOperations, s side) (e model.HeaderEdit, authority string) {
	if in == nil {
		return e, ""
	}
	values := func(field string, in map[string]string) []model.Header {
		byName := map[string]string{}
		for _, name := range slices.Sorted(maps.Keys(in)) { // of two spellings the later stands
			value, ok := literal(in[name])
			switch {
			case !ok:
				h.n.refused(entry(field, name), "unsupported-format", model.Degrades,
					"values with % are formats of Envoy's, which are not supported: the header is removed instead", "write %% for the character %")
				e.Remove = append(e.Remove, strings.ToLower(name))
			case s == requestSide && isAuthority(name):
				authority = value
			default:
				byName[strings.ToLower(name)] = value
			}
		}
		var out []model.Header
		for _, name := range slices.Sorted(maps.Keys(byName)) {
			out = append(out, model.Header{Name: name, Value: byName[name]})
		}
		return out
	}
	e.Add = values(field+".add", in.GetAdd())
	added := authority
	authority = ""
	e.Set = values(field+".set", in.GetSet())
	if authority == "" {
		authority = added // what is set beats what is added
	}
	for i, name := range in.GetRemove() {
		if strings.HasPrefix(name, ":") || isAuthority(name) {
			h.n.surprising(at(field+".remove", i), "not-removable", "Istio never removes the host or a pseudo header; nor is it here", "remove the entry")
			continue
		}
		e.Remove = append(e.Remove, strings.ToLower(name))
	}
	slices.Sort(e.Remove)
	e.Remove = slices.Compact(e.Remove)
	if len(e.Remove) == 0 {
		e.Remove = nil
	}
	return e, authority
}

// literal reads a header value, which is a format string of Envoy's in Istio; ok is
// false if it has a command.
func literal(s string) (string, bool) {
	plain := strings.ReplaceAll(s, "%%", "")
	return strings.ReplaceAll(s, "%%", "%"), !strings.Contains(plain, "%")
}

// setAuthority makes the host part of a destination's own edits.
func setAuthority(e model.HeaderEdit, authority string) model.HeaderEdit {
	e.Set = append([]model.Header{{Name: authorityHeader, Value: authority}}, e.Set...)
	slices.SortFunc(e.Set, func(a, b model.Header) int { return strings.Compare(a.Name, b.Name) })
	return e
}

// fold moves the edits of a route's only destination to the route, after its own.
// The host is rewritten by the route if both say how.
func (h *httpTranslation) fold(r *model.Route) {
	b := &r.Backends[0]
	own := b.RequestHeaders
	if i := slices.IndexFunc(own.Set, func(x model.Header) bool { return x.Name == authorityHeader }); i >= 0 {
		authority := own.Set[i].Value
		own.Set = slices.Delete(slices.Clone(own.Set), i, i+1)
		if r.Rewrite == nil {
			r.Rewrite = &model.Rewrite{}
		}
		if r.Rewrite.Authority == "" {
			r.Rewrite.Authority = authority
		}
	}
	r.RequestHeaders = then(r.RequestHeaders, own)
	r.ResponseHeaders = then(r.ResponseHeaders, b.ResponseHeaders)
	b.RequestHeaders, b.ResponseHeaders = model.HeaderEdit{}, model.HeaderEdit{}
}

// then is one edit after another, as one. Removals come first in both, as in Envoy.
func then(first, second model.HeaderEdit) model.HeaderEdit {
	set := map[string]string{}
	for _, x := range slices.Concat(first.Set, second.Set) {
		set[x.Name] = x.Value
	}
	out := model.HeaderEdit{}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		out.Set = append(out.Set, model.Header{Name: name, Value: set[name]})
	}
	for _, x := range first.Add {
		overwritten := slices.ContainsFunc(second.Set, func(y model.Header) bool { return y.Name == x.Name })
		if !overwritten {
			out.Add = append(out.Add, x)
		}
	}
	out.Add = append(out.Add, second.Add...)
	slices.SortStableFunc(out.Add, func(a, b model.Header) int { return strings.Compare(a.Name, b.Name) })
	out.Remove = slices.Concat(first.Remove, second.Remove)
	slices.Sort(out.Remove)
	out.Remove = slices.Compact(out.Remove)
	if len(out.Remove) == 0 {
		out.Remove = nil
	}
	return out
}
