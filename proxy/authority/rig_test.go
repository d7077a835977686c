// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/render"
)

// rendered renders rows as the agent does.
func rendered(t testing.TB, rows ...any) []xds.Resource {
	t.Helper()
	var out []xds.Resource
	for _, row := range rows {
		var r xds.Resource
		var err error
		switch row := row.(type) {
		case *plan.RouteTable:
			r, err = render.RouteTable(row)
		case *plan.Scope:
			r, err = render.Scope(row)
		default:
			t.Fatalf("row %T", row)
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

// service are the rows of a service's port as the plan makes them, for each address.
func service(ns, name string, port uint16, vips ...string) []any {
	full := name + "." + ns + ".svc.cluster.local"
	hosts := []string{full, name + "." + ns + ".svc", name + "." + ns, name}
	for _, v := range vips {
		if strings.Contains(v, ":") {
			v = "[" + v + "]"
		}
		hosts = append(hosts, v)
	}
	var rows []any
	for _, v := range vips {
		a := netip.MustParseAddr(v)
		table := fmt.Sprintf("%s/%s:%d", ns, name, port)
		if a.Is6() {
			table += "@6"
		}
		rows = append(rows,
			&plan.RouteTable{Name: table, Hosts: hosts, Elsewhere: &plan.Elsewhere{Port: port, Unknown: model.UnknownPass}},
			&plan.Scope{Key: plan.DestinationKey(netip.AddrPortFrom(a, port)), RouteTable: table})
	}
	return rows
}

// headless are those of a headless service's port, whose pods have another.
func headless(ns, name string, port, target uint16, pods ...string) []any {
	full := name + "." + ns + ".svc.cluster.local"
	table := fmt.Sprintf("%s/%s:%d", ns, name, port)
	short := name + "." + ns
	hosts := []string{full, short + ".svc", short, name, "*." + full, "*." + short + ".svc", "*." + short, "*." + name}
	elsewhere := &plan.Elsewhere{Port: port, Unknown: model.UnknownPass}
	rows := []any{
		&plan.RouteTable{Name: table, Hosts: hosts, Elsewhere: elsewhere},
		&plan.RouteTable{Name: table + "@6", Hosts: hosts, Elsewhere: elsewhere},
		&plan.Scope{Key: plan.HostScopeKey(full, port, false), RouteTable: table},
		&plan.Scope{Key: plan.HostScopeKey(full, port, true), RouteTable: table + "@6"},
	}
	for _, p := range pods {
		a := netip.AddrPortFrom(netip.MustParseAddr(p), target)
		if a.Addr().Is6() {
			table += "@6"
		}
		rows = append(rows, &plan.Scope{Key: plan.DestinationKey(a), RouteTable: table})
	}
	return rows
}

// external are those of a host without service.
func external(ns, host string, port uint16) []any {
	table := fmt.Sprintf("%s/host/%s:%d", ns, host, port)
	return []any{
		&plan.RouteTable{Name: table}, &plan.RouteTable{Name: table + "@6"},
		&plan.Scope{Key: plan.HostScopeKey(host, port, false), RouteTable: table},
		&plan.Scope{Key: plan.HostScopeKey(host, port, true), RouteTable: table + "@6"},
	}
}

// other are rows that no host leads to.
func other() []any {
	in, smi := netip.MustParseAddrPort("10.244.1.2:80"), netip.MustParseAddrPort("10.96.0.4:80")
	return []any{
		&plan.RouteTable{Name: "in/web"}, &plan.Scope{Key: plan.InboundKey(in), RouteTable: "in/web"},
		&plan.RouteTable{Name: "tcp/db"}, &plan.Scope{Key: "tcp|10.96.0.3:80", RouteTable: "tcp/db"},
		&plan.RouteTable{Name: "smi/web:80"}, &plan.Scope{Key: plan.DestinationKey(smi), RouteTable: "smi/web:80"},
		&plan.RouteTable{Name: "any:80", Elsewhere: &plan.Elsewhere{Port: 80, Unknown: model.UnknownPass}},
		&plan.Scope{Key: plan.AnyKey(80), RouteTable: "any:80"},
	}
}

func rows(parts ...[]any) []any { return slices.Concat(parts...) }

func indexOf(t testing.TB, rs ...xds.Resource) *Index {
	t.Helper()
	x := NewIndex()
	for _, r := range rs {
		if err := x.Set(r); err != nil {
			t.Fatal(err)
		}
	}
	return x
}

// dump is all that an index holds, in lines.
func (x *Index) dump() string {
	var out []string
	for n, t := range x.tables {
		line := "table " + n
		if n != t.name {
			line += " is " + t.name
		}
		if t.naming != nil {
			line += fmt.Sprintf(" %d %q %q", t.naming.port, t.naming.names, t.naming.short)
		}
		out = append(out, line+fmt.Sprintf(" %q", t.keys))
	}
	for k, t := range x.scopes {
		out = append(out, fmt.Sprintf("scope %s %s %v", k, t.name, x.tables[t.name] == t))
	}
	for n, all := range x.names {
		line := fmt.Sprintf("name %s %d", n.host, n.port)
		for _, c := range all {
			line += fmt.Sprintf(" %s×%d %v", c.table.name, c.n, x.tables[c.table.name] == c.table)
		}
		out = append(out, line)
	}
	for r := range x.latest {
		out = append(out, fmt.Sprint("waits ", r))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// envoy is what Envoy would do with resources, by its own rules, read from them anew.
type envoy struct {
	tables map[string]*route.RouteConfiguration
	scopes map[string]string
}

func envoyWith(t testing.TB, rs map[resource]xds.Resource) envoy {
	t.Helper()
	e := envoy{map[string]*route.RouteConfiguration{}, map[string]string{}}
	for r := range maps.Values(rs) {
		switch r.Type {
		case xds.RouteType:
			m := &route.RouteConfiguration{}
			if err := proto.Unmarshal(r.Body, m); err != nil {
				t.Fatal(err)
			}
			e.tables[m.GetName()] = m
		case xds.ScopeType:
			m := &route.ScopedRouteConfiguration{}
			if err := proto.Unmarshal(r.Body, m); err != nil {
				t.Fatal(err)
			}
			e.scopes[m.GetKey().GetFragments()[0].GetStringKey()] = m.GetRouteConfigurationName()
		}
	}
	return e
}

// vhost is the name of the virtual host that a request for a host gets.
func (e envoy) vhost(table, host string) string {
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host = host[:i]
	}
	host = strings.ToLower(host)
	best, name := -1, ""
	for _, v := range e.tables[table].GetVirtualHosts() {
		for _, d := range v.GetDomains() {
			switch suffix, wild := strings.CutPrefix(d, "*"); {
			case d == host:
				return v.GetName()
			case wild && strings.HasSuffix(host, suffix) && (len(host) > len(suffix) || suffix == "") && len(suffix) > best:
				best, name = len(suffix), v.GetName()
			}
		}
	}
	return name
}
