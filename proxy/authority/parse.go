// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthz "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/render"
)

// naming is what a route table says about names.
type naming struct {
	// port is the frontend's; 0: requests are not routed by authority here, and
	// the table takes whatever host is asked.
	port uint16
	// names that the frontend has, as they are indexed, sorted: a suffix without its
	// star. Short ones, of one label, are apart: they are nobody's by themselves.
	names []string
	short []string
}

func (n *naming) equal(o *naming) bool {
	return n.port == o.port && slices.Equal(n.names, o.names) && slices.Equal(n.short, o.short)
}

// takes reports whether Envoy finds one of the table's own virtual hosts for a host.
func (n *naming) takes(sent string) bool {
	if n.port == 0 {
		return true
	}
	if contains(n.names, sent) || contains(n.short, sent) {
		return true
	}
	for suffix := range suffixes(sent) {
		if contains(n.names, suffix) || contains(n.short, suffix) {
			return true
		}
	}
	return false
}

func contains(sorted []string, s string) bool {
	_, ok := slices.BinarySearch(sorted, s)
	return ok
}

// suffixes yields ".b.c" and ".c" of "a.b.c": what a "*" may stand before. As in
// Envoy, a star stands for something.
func suffixes(name string) func(func(string) bool) {
	return func(yield func(string) bool) {
		if strings.HasPrefix(name, "[") {
			return
		}
		for i := 1; i < len(name); i++ {
			if name[i] == '.' && !yield(name[i:]) {
				return
			}
		}
	}
}

// Field numbers of messages that are walked through without decoding them: routes
// are most of a table, and none of our business.
var (
	tableHosts    = field(&route.RouteConfiguration{}, "virtual_hosts")
	hostDomains   = field(&route.VirtualHost{}, "domains")
	hostFilters   = field(&route.VirtualHost{}, "typed_per_filter_config")
	scopeTable    = field(&route.ScopedRouteConfiguration{}, "route_configuration_name")
	mapKey        = protowire.Number(1)
	mapValue      = protowire.Number(2)
	authzTypeName = (&extauthz.ExtAuthzPerRoute{}).ProtoReflect().Descriptor().FullName()
)

func field(m proto.Message, name protoreflect.Name) protowire.Number {
	return m.ProtoReflect().Descriptor().Fields().ByName(name).Number()
}

// each calls f for every field of a message that has a length.
func each(b []byte, f func(protowire.Number, []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
				return protowire.ParseError(n)
			}
			b = b[n:]
			continue
		}
		v, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if err := f(num, v); err != nil {
			return err
		}
	}
	return nil
}

// parseTable reads the names of a RouteConfiguration: the domains of virtual hosts
// beside the one for all others, which says the port.
func parseTable(r xds.Resource) (*naming, error) {
	out := &naming{}
	var domains [][]byte
	err := each(r.Body, func(num protowire.Number, vhost []byte) error {
		if num != tableHosts {
			return nil
		}
		var filters [][]byte
		others := false
		err := each(vhost, func(num protowire.Number, b []byte) error {
			switch num {
			case hostDomains:
				if string(b) == "*" {
					others = true
				} else {
					domains = append(domains, b)
				}
			case hostFilters:
				filters = append(filters, b)
			}
			return nil
		})
		if err != nil || !others {
			return err
		}
		out.port, err = portOf(filters)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read route table %s: %w", r.Name, err)
	}
	if out.port != 0 {
		out.add(domains)
	}
	return out, nil
}

// portOf is the port of the frontend, which the virtual host for all other hosts
// tells the resolver; 0: that is not asked.
func portOf(filters [][]byte) (uint16, error) {
	for _, b := range filters {
		var key string
		var value []byte
		err := each(b, func(num protowire.Number, b []byte) error {
			switch num {
			case mapKey:
				key = string(b)
			case mapValue:
				value = b
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
		if key != render.AuthorityFilter {
			continue
		}
		var packed anypb.Any
		if err := proto.Unmarshal(value, &packed); err != nil {
			return 0, err
		}
		if packed.MessageName() != authzTypeName {
			return 0, nil
		}
		var config extauthz.ExtAuthzPerRoute
		if err := packed.UnmarshalTo(&config); err != nil {
			return 0, err
		}
		said, ok := config.GetCheckSettings().GetContextExtensions()[render.PortExtension]
		if !ok {
			return 0, nil
		}
		return parsePort(said)
	}
	return 0, nil
}

var errPort = errors.New("a port is a number from 1 to 65535")

func parsePort(s string) (uint16, error) {
	p, err := strconv.ParseUint(s, 10, 16)
	if err != nil || p == 0 {
		return 0, fmt.Errorf("port %q: %w", s, errPort)
	}
	return uint16(p), nil
}

// add takes domains over that can be a name. They share memory. The host of requests
// that have none is everybody's.
func (n *naming) add(domains [][]byte) {
	var all strings.Builder
	for _, d := range domains {
		all.Write(d)
	}
	rest := all.String()
	names := make([]string, 0, len(domains))
	for _, b := range domains {
		d := rest[:len(b)]
		rest = rest[len(b):]
		if s, ok := indexed(d); ok && s != render.NoHost {
			names = append(names, s)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		if short := isShort(a); short != isShort(b) {
			if short {
				return 1
			}
			return -1
		}
		return cmp.Compare(a, b)
	})
	names = slices.Compact(names)
	i := 0
	for i < len(names) && !isShort(names[i]) {
		i++
	}
	n.names, n.short = names[:i:i], names[i:]
}

// isShort reports whether an indexed name means something in a namespace only.
func isShort(name string) bool { return isBare(strings.TrimPrefix(name, ".")) }

// indexed is a domain as it is looked up: ".suffix" for "*.suffix".
func indexed(domain string) (string, bool) {
	if s, ok := strings.CutPrefix(domain, "*."); ok {
		return domain[1:], isName(s)
	}
	if strings.HasPrefix(domain, "[") {
		h, ok := parseHost6(domain)
		return domain, ok && h.name == domain
	}
	return domain, isName(domain)
}

// target is what a scope's key says if a host may lead to it.
type target struct {
	v6 bool
	// host and port of a key that is a name itself; else empty.
	host string
	port uint16
}

// parseTarget reads a key; false: no host leads there.
func parseTarget(key string) (target, bool) {
	if rest, ok := strings.CutPrefix(key, hostPrefix); ok {
		rest, v6 := strings.CutSuffix(rest, "@6")
		i := strings.LastIndexByte(rest, ':')
		if i < 0 {
			return target{}, false
		}
		port, err := parsePort(rest[i+1:])
		if err != nil {
			return target{}, false
		}
		name, ok := indexed(rest[:i])
		return target{v6, name, port}, ok && plan.HostScopeKey(rest[:i], port, v6) == key
	}
	if key == "" || (key[0] < '0' || key[0] > '9') && key[0] != '[' {
		return target{}, false
	}
	dst, err := parseDestination(key)
	return target{v6: dst.Addr().Is6()}, err == nil
}

// tableOf is the route table that a ScopedRouteConfiguration leads to.
func tableOf(r xds.Resource) (string, error) {
	name := ""
	err := each(r.Body, func(num protowire.Number, b []byte) error {
		if num == scopeTable {
			name = string(b)
		}
		return nil
	})
	if err == nil && name == "" {
		err = errors.New("it leads nowhere")
	}
	if err != nil {
		return "", fmt.Errorf("read scope %s: %w", r.Name, err)
	}
	return name, nil
}
