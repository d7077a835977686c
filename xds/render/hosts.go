// SPDX-License-Identifier: Apache-2.0

package render

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthz "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// What the authority server is told of the frontend that a request came to, as
// context extensions of the check.
const (
	PortExtension    = "port"    // of Elsewhere, in decimal digits
	UnknownExtension = "unknown" // of Elsewhere
)

// NoHost stands for the host of HTTP/1.0 requests that have none. They are for the
// address that they were sent to.
const NoHost = "none.invalid"

// virtualHosts of a table: one for everything, or one for the frontend's own names
// and one whose requests are looked up.
func virtualHosts(t *plan.RouteTable, routes []*route.Route) ([]*route.VirtualHost, error) {
	if t.Elsewhere == nil {
		if len(t.Hosts) > 0 {
			return nil, fmt.Errorf("hosts, but nothing said of others")
		}
		return []*route.VirtualHost{ownHost("*", []string{"*"}, routes)}, nil
	}
	if len(t.Hosts) == 0 {
		if len(routes) > 0 {
			return nil, fmt.Errorf("routes without hosts where every request is looked up")
		}
		e, err := elsewhere(t)
		return []*route.VirtualHost{e}, err
	}
	domains, err := names(slices.Concat(t.Hosts, []string{NoHost}), isHost)
	if err != nil {
		return nil, err
	}
	e, err := elsewhere(t)
	return []*route.VirtualHost{ownHost("own", domains, routes), e}, err
}

// notInChain keeps the authority filter out of the chain. It comes too late for the
// request that loads the table, whose chain was made before: the filter then asks,
// without the extensions of elsewhere, and is told to go on. To say in each table
// that it shall not ask would be a quarter of a small table's bytes.
var notInChain = map[string]*anypb.Any{AuthorityFilter: pack(&route.FilterConfig{Disabled: true})}

func ownHost(name string, domains []string, routes []*route.Route) *route.VirtualHost {
	h := &route.VirtualHost{Name: name, Domains: domains, Routes: routes, TypedPerFilterConfig: notInChain}
	commonRetry(h)
	return h
}

// elsewhere takes requests for other hosts to the authority filter. The routes are for
// what comes back from there without another scope, or came from another scope
// because of a name that this table does not have; clients that are told something else
// have routes of their own.
func elsewhere(t *plan.RouteTable) (*route.VirtualHost, error) {
	told := func(unknown model.Unknown) map[string]*anypb.Any {
		return map[string]*anypb.Any{AuthorityFilter: pack(&extauthz.ExtAuthzPerRoute{
			Override: &extauthz.ExtAuthzPerRoute_CheckSettings{CheckSettings: &extauthz.CheckSettings{ContextExtensions: map[string]string{
				PortExtension:    strconv.Itoa(int(t.Elsewhere.Port)),
				UnknownExtension: string(unknown),
			}}},
		})}
	}
	out := &route.VirtualHost{Name: "*", Domains: []string{"*"}, TypedPerFilterConfig: told(t.Elsewhere.Unknown)}
	add := func(from plan.UnknownFrom, config map[string]*anypb.Any) error {
		m, err := routeMatch(&plan.Route{Match: model.RouteMatch{SourceNamespace: from.SourceNamespace}, SourceSelects: from.SourceSelects})
		if err != nil {
			return err
		}
		out.Routes = append(out.Routes, &route.Route{
			Name: "elsewhere", Match: m, Action: directResponse(http.StatusMisdirectedRequest, ""), TypedPerFilterConfig: config,
		})
		return nil
	}
	for _, from := range t.Elsewhere.From {
		if err := add(from, told(from.Unknown)); err != nil {
			return nil, err
		}
	}
	return out, add(plan.UnknownFrom{}, nil)
}

// names checks names, exact or with "*." in front, and gives each once, in the form
// in which Envoy compares them.
func names(list []string, exact func(string) bool) ([]string, error) {
	var out []string
	for _, n := range list {
		n = strings.TrimSuffix(strings.ToLower(n), ".")
		if suffix, wild := strings.CutPrefix(n, "*."); wild && !isDNSName(suffix) || !wild && !exact(n) {
			return nil, fmt.Errorf("%q is no host", n)
		}
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out, nil
}

// isHost reports whether a request may have it for a host: a name, an address, or an
// IPv6 address in brackets.
func isHost(s string) bool {
	if in, ok := strings.CutPrefix(s, "["); ok {
		in, ok = strings.CutSuffix(in, "]")
		a, err := netip.ParseAddr(in)
		return ok && err == nil && a.Is6() && a.Zone() == ""
	}
	return isDNSName(s)
}

// isDNSName is lenient: names with underscores are asked for.
func isDNSName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}
