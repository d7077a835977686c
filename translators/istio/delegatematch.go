// SPDX-License-Identifier: Apache-2.0

package istio

import (
	"maps"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

// mergeMatches joins the matches of a route with those of the one that delegates to it:
// every pair of which the one narrows the other. Each must narrow some, or ok is false.
// As in Istio: pilot/pkg/model/virtualservice.go, mergeHTTPMatchRequests.
func mergeMatches(root, leaf []*networking.HTTPMatchRequest) (out []*networking.HTTPMatchRequest, ok bool) {
	if len(root) == 0 {
		return leaf, true
	}
	for _, l := range leaf {
		found := false
		for _, r := range root {
			if narrows(r, l) {
				out = append(out, joinMatch(r, l))
				found = true
			}
		}
		if !found {
			return nil, false
		}
	}
	return out, true
}

// joinMatch has the conditions of both; of two about one thing, the leaf's.
func joinMatch(root, leaf *networking.HTTPMatchRequest) *networking.HTTPMatchRequest {
	both := func(a, b map[string]*networking.StringMatch) map[string]*networking.StringMatch {
		out := map[string]*networking.StringMatch{}
		maps.Copy(out, a)
		maps.Copy(out, b)
		return out
	}
	out := &networking.HTTPMatchRequest{
		Name: leaf.GetName(), Uri: or(leaf.GetUri(), root.GetUri()), Scheme: or(leaf.GetScheme(), root.GetScheme()),
		Method: or(leaf.GetMethod(), root.GetMethod()), Authority: or(leaf.GetAuthority(), root.GetAuthority()),
		Headers: both(root.GetHeaders(), leaf.GetHeaders()), WithoutHeaders: both(root.GetWithoutHeaders(), leaf.GetWithoutHeaders()),
		QueryParams: both(root.GetQueryParams(), leaf.GetQueryParams()), IgnoreUriCase: leaf.GetIgnoreUriCase(),
		Port: leaf.GetPort(), SourceNamespace: leaf.GetSourceNamespace(), Gateways: leaf.GetGateways(), StatPrefix: leaf.GetStatPrefix(),
		SourceLabels: map[string]string{},
	}
	maps.Copy(out.SourceLabels, root.GetSourceLabels())
	maps.Copy(out.SourceLabels, leaf.GetSourceLabels())
	if out.Port == 0 {
		out.Port = root.GetPort()
	}
	if out.SourceNamespace == "" {
		out.SourceNamespace = root.GetSourceNamespace()
	}
	if len(out.Gateways) == 0 {
		out.Gateways = root.GetGateways()
	}
	if out.StatPrefix == "" {
		out.StatPrefix = root.GetStatPrefix()
	}
	return out
}

func or(a, b *networking.StringMatch) *networking.StringMatch {
	if a != nil {
		return a
	}
	return b
}

// narrows reports whether a match can stand within one of the route that delegates.
func narrows(root, leaf *networking.HTTPMatchRequest) bool {
	pairs := func(root, leaf map[string]*networking.StringMatch) bool {
		for key, l := range leaf {
			if !within(root[key], l) {
				return false
			}
		}
		return true
	}
	if !within(root.GetUri(), leaf.GetUri()) || !within(root.GetScheme(), leaf.GetScheme()) ||
		!within(root.GetMethod(), leaf.GetMethod()) || !within(root.GetAuthority(), leaf.GetAuthority()) ||
		!pairs(root.GetHeaders(), leaf.GetHeaders()) || !pairs(root.GetWithoutHeaders(), leaf.GetWithoutHeaders()) ||
		!pairs(root.GetQueryParams(), leaf.GetQueryParams()) || root.GetIgnoreUriCase() != leaf.GetIgnoreUriCase() {
		return false
	}
	if root.GetPort() > 0 && leaf.GetPort() > 0 && root.GetPort() != leaf.GetPort() {
		return false
	}
	if root.GetSourceNamespace() != "" && leaf.GetSourceNamespace() != root.GetSourceNamespace() {
		return false
	}
	for key, l := range leaf.GetSourceLabels() {
		if v, ok := root.GetSourceLabels()[key]; ok && v != l {
			return false
		}
	}
	if len(root.GetGateways()) == 0 || len(leaf.GetGateways()) == 0 {
		return true
	}
	return len(leaf.GetGateways()) <= len(root.GetGateways()) &&
		!slices.ContainsFunc(leaf.GetGateways(), func(g string) bool { return !slices.Contains(root.GetGateways(), g) })
}

// within reports whether a condition can stand within the one of the route that
// delegates. With an expression on either side it cannot; one that is not given is no
// hindrance. An empty one asks for presence, and Istio takes it for a conflict.
func within(root, leaf *networking.StringMatch) bool {
	if root == nil || leaf == nil {
		return true
	}
	given := func(m *networking.StringMatch) bool {
		return m.GetExact() != "" || m.GetPrefix() != "" || m.GetRegex() != ""
	}
	if root.GetRegex() != "" && given(leaf) || leaf.GetRegex() != "" && given(root) {
		return false
	}
	if exact := root.GetExact(); exact != "" {
		return leaf.GetPrefix() == "" && leaf.GetExact() == exact
	}
	if prefix := root.GetPrefix(); prefix != "" {
		switch {
		case leaf.GetPrefix() != "":
			return strings.HasPrefix(leaf.GetPrefix(), prefix)
		case leaf.GetExact() != "":
			return strings.HasPrefix(leaf.GetExact(), prefix)
		}
	}
	return false
}
