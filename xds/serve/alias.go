// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"fmt"
	"strconv"
	"strings"

	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"fairlead.io/fairlead/xds"
)

// Clients of a lazy server know a route table by its name or by "<name>~<n>". To
// take a table from Envoy its scopes are pointed at another of its names: that is
// an update in place, so that requests which come meanwhile wait for the table
// instead of missing their scope. Which table a name means is in the name alone,
// whatever there is in the store and whoever served the client before.

// alias is the nth name of a table. A table whose own name looks like an alias
// never goes by that.
func alias(table string, n int) string {
	if n == 0 && !isAlias(table) {
		return table
	}
	return table + "~" + strconv.Itoa(n)
}

// tableOf is the table that a name means.
func tableOf(name string) string {
	if isAlias(name) {
		return name[:strings.LastIndexByte(name, '~')]
	}
	return name
}

func isAlias(name string) bool {
	i := strings.LastIndexByte(name, '~')
	return i >= 0 && i < len(name)-1 && strings.Trim(name[i+1:], "0123456789") == ""
}

// variant is the form in which a client has the scopes of a table.
type variant struct {
	n     int  // the table's name
	eager bool // the client asks for the table at once, not with the first request
}

// version of a scope in this form. It tells the form, so that what a client has is
// known when it comes back, also to another server.
func (v variant) version(of string) string {
	s := of + "~" + strconv.Itoa(v.n)
	if v.eager {
		s += "!"
	}
	return s
}

// variantOf is the form in a scope's version; false if there is none.
func variantOf(version string) (variant, bool) {
	rest, eager := strings.CutSuffix(version, "!")
	i := strings.LastIndexByte(rest, '~')
	n, err := strconv.Atoi(rest[i+1:])
	return variant{n, eager}, i >= 0 && err == nil && n >= 0
}

// scope is a scope in this form.
func (v variant) scope(r *xds.Resource) (*xds.Resource, error) {
	var m route.ScopedRouteConfiguration
	if err := proto.Unmarshal(r.Body, &m); err != nil {
		return nil, fmt.Errorf("read scope %q: %w", r.Name, err)
	}
	m.OnDemand = !v.eager
	if m.RouteConfigurationName != "" {
		m.RouteConfigurationName = alias(m.RouteConfigurationName, v.n)
	}
	return remade(r, r.Name, v.version(r.Version), &m)
}

// renamed is a route table under another name.
func renamed(r *xds.Resource, name string) (*xds.Resource, error) {
	var m route.RouteConfiguration
	if err := proto.Unmarshal(r.Body, &m); err != nil {
		return nil, fmt.Errorf("read routes %q: %w", r.Name, err)
	}
	m.Name = name
	return remade(r, name, r.Version, &m)
}

func remade(r *xds.Resource, name, version string, m proto.Message) (*xds.Resource, error) {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("marshal %s %q: %w", xds.Short(r.Type), name, err)
	}
	return &xds.Resource{Type: r.Type, Name: name, Version: version, Body: body}, nil
}
