// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"slices"
	"strings"
)

// trustDomains are the mesh's own and its aliases: who has one of them is meant by
// policies that name another. "cluster.local" is always one of those. As in Istio:
// pilot/pkg/security/trustdomain/bundle.go.
type trustDomains []string

func (m *meshConfig) trustDomains() trustDomains {
	return append(trustDomains{m.trustDomain}, m.trustDomainAliases...)
}

// own is that of the mesh's workloads.
func (d trustDomains) own() string { return d[0] }

// principals gives, for each that names one of the domains, those of all of them.
func (d trustDomains) principals(in []string) []string {
	var out []string
	for _, p := range in {
		parts := strings.Split(p, "/")
		if len(parts) != 5 || parts[0] == "*" || parts[0] != defaultTrustDomain && !slices.ContainsFunc(d, func(own string) bool { return named(parts[0], own) }) {
			out = append(out, p)
			continue
		}
		for _, own := range d {
			if as := p; !named(parts[0], own) {
				out = append(out, own+"/"+strings.Join(parts[1:], "/"))
			} else if !slices.Contains(out, as) {
				out = append(out, as)
			}
		}
	}
	return out
}

// named reports whether a domain that may begin with "*" stands for another.
func named(domain, own string) bool {
	if suffix, ok := strings.CutPrefix(domain, "*"); ok {
		return strings.HasSuffix(own, suffix)
	}
	return domain == own
}

// expand gives all of the domains where one of them is named.
func (d trustDomains) expand(in []string) []string {
	var out []string
	for _, v := range in {
		if slices.Contains(d, v) {
			out = append(out, d...)
		} else {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
