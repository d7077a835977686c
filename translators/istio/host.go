// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"cmp"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"fairlead.io/fairlead/translators"
	"fairlead.io/fairlead/translators/objects"
)

// fullName resolves a host as Istio does: a name without a dot is a service of the
// resource's namespace, anything else is taken as it is.
func (t *Translator) fullName(host, namespace string) string {
	if host == "" || strings.ContainsAny(host, ".*:") {
		return strings.ToLower(host)
	}
	return strings.ToLower(host) + "." + namespace + ".svc." + t.domain
}

// serviceName is the full name of a service.
func (t *Translator) serviceName(namespace, name string) string {
	return name + "." + namespace + ".svc." + t.domain
}

// serviceOf takes a full name apart; ok is false if it is not the name of a service
// of the cluster.
func (t *Translator) serviceOf(fqdn string) (namespace, name string, ok bool) {
	rest, ok := strings.CutSuffix(fqdn, ".svc."+t.domain)
	if !ok {
		return "", "", false
	}
	name, namespace, ok = strings.Cut(rest, ".")
	return namespace, name, ok && name != "" && namespace != "" && !strings.ContainsAny(rest, "*") && !strings.Contains(namespace, ".")
}

func isWildcard(host string) bool { return strings.HasPrefix(host, "*") }

// covers reports whether a host, which may be a wildcard, matches a full name. A
// wildcard is a suffix of the string: "*foo.com" covers "xfoo.com".
func covers(host, fqdn string) bool {
	if suffix, ok := strings.CutPrefix(host, "*"); ok {
		return strings.HasSuffix(fqdn, suffix)
	}
	return host == fqdn
}

// hostIndex gives the values under which hosts are found.
func (t *Translator) hostIndex(hosts []string, namespace string) []string {
	var out []string
	for _, h := range hosts {
		v := t.fullName(h, namespace)
		if isWildcard(v) {
			v = anyWildcard
		}
		if v != "" && !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

// candidate is a VirtualService that names a host.
type candidate struct {
	o     *objects.Object
	spec  *networking.VirtualService
	host  string // as resolved; exact or a wildcard
	field string // where it stands
	see   visibility
}

// candidates lists the VirtualServices for a name, oldest first, each with its most
// specific host.
func (t *Translator) candidates(r translators.Reader, fqdn string) []candidate {
	var out []candidate
	all := slices.Concat(r.Select(virtualServiceKind, byHost, fqdn), r.Select(virtualServiceKind, byHost, anyWildcard))
	slices.SortStableFunc(all, objects.CompareCreated)
	for _, o := range slices.Compact(all) {
		c := t.candidate(r, o)
		if !onMesh(c.spec) {
			continue
		}
		for i, h := range c.spec.GetHosts() {
			if h = t.fullName(h, o.Namespace); covers(h, fqdn) && moreSpecific(h, c.host) {
				c.host, c.field = h, at("spec.hosts", i)
			}
		}
		if c.host != "" {
			out = append(out, c)
		}
	}
	return out
}

func (t *Translator) candidate(r translators.Reader, o *objects.Object) candidate {
	spec := virtualServiceSpec(o)
	return candidate{o: o, spec: spec, see: exported(orDefault(spec.GetExportTo(), t.mesh(r).virtualServices), o.Namespace)}
}

// moreSpecific orders hosts that cover one name: exact first, then the longer.
func moreSpecific(a, b string) bool {
	if b == "" || isWildcard(a) != isWildcard(b) {
		return b == "" || !isWildcard(a)
	}
	return len(a) > len(b)
}

// competing leaves those that can serve the name: all that name it exactly, oldest
// first; without one, the oldest of the most specific wildcard. One without a valid version
// comes after those that have one: it takes the place of none of them.
func competing(cs []candidate) []candidate {
	cs = slices.Clone(cs)
	slices.SortStableFunc(cs, func(a, b candidate) int { return cmp.Compare(rank(a.o), rank(b.o)) })
	exact := slices.DeleteFunc(slices.Clone(cs), func(c candidate) bool { return isWildcard(c.host) })
	if len(exact) > 0 || len(cs) == 0 {
		return exact
	}
	best := cs[0]
	for _, c := range cs[1:] {
		if moreSpecific(c.host, best.host) {
			best = c
		}
	}
	return []candidate{best}
}

const meshGateway = "mesh"

// onMesh reports whether the VirtualService applies to clients in the mesh.
func onMesh(vs *networking.VirtualService) bool {
	return len(vs.GetGateways()) == 0 || slices.Contains(vs.GetGateways(), meshGateway)
}

// onlyMesh reports whether it applies to no other clients.
func onlyMesh(vs *networking.VirtualService) bool {
	return !slices.ContainsFunc(vs.GetGateways(), func(g string) bool { return g != meshGateway })
}

// visibility is what exportTo says.
type visibility struct {
	public     bool
	namespaces []string // if not public
}

// orDefault is what the mesh says of exportTo where an object says nothing.
func orDefault(exportTo, mesh []string) []string {
	if len(exportTo) > 0 {
		return exportTo
	}
	return mesh
}

func exported(exportTo []string, own string) visibility {
	if len(exportTo) == 0 || slices.Contains(exportTo, "*") {
		return visibility{public: true}
	}
	var v visibility
	for _, e := range exportTo {
		if e == "." {
			e = own
		}
		if e != "~" && !slices.Contains(v.namespaces, e) {
			v.namespaces = append(v.namespaces, e)
		}
	}
	slices.Sort(v.namespaces)
	return v
}

func (v visibility) to(namespace string) bool {
	return v.public || slices.Contains(v.namespaces, namespace)
}

// private reports whether the object is for its own namespace alone: those come
// before others of the same clients.
func (v visibility) private(own string) bool {
	return !v.public && len(v.namespaces) == 1 && v.namespaces[0] == own
}

// rank is after whom an object comes.
func rank(o *objects.Object) int {
	if o.Invalid {
		return 1
	}
	return 0
}
