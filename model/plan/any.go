// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/merge"
)

// Indexes of services.
const (
	byVIP     = "vip"
	byAnyPort = "anyport" // of those that are got at by more than their addresses
)

func indexReach(s *incr.Store) {
	s.Index(services, byVIP, func(_ string, v any) []string {
		var out []string
		for _, a := range v.(*model.Service).VIPs {
			out = append(out, a.String())
		}
		return out
	})
	s.Index(services, byAnyPort, func(_ string, v any) []string { return anyPorts(v.(*model.Service)) })
}

// anyPorts are the ports of a service that are served at other addresses than its own.
func anyPorts(s *model.Service) []string {
	if s.Reach == model.ReachAddresses && len(s.Ranges) == 0 {
		return nil
	}
	var out []string
	for _, p := range s.Ports {
		if p.Protocol == model.TCP {
			out = append(out, strconv.Itoa(int(p.Port)))
		}
	}
	return out
}

// anyStage takes what captured pods send to addresses that nobody is known to have, or
// that are in a service's range, to where it is told apart: requests by their authority,
// TLS by its server name, and else by the port.
func (b *builder) anyStage() incr.Stage {
	return incr.Stage{Name: "plan/any",
		Keys: map[incr.Table]func(string, any) []string{
			merge.Frontends: func(_ string, v any) []string {
				f := v.(*model.Frontend)
				if f.Host == "" {
					return nil
				}
				return []string{strconv.Itoa(int(f.Port))}
			},
			services: func(_ string, v any) []string { return anyPorts(v.(*model.Service)) },
		},
		Compute: func(r *incr.Reader, key string) []incr.Row {
			port, err := strconv.ParseUint(key, 10, 16)
			if err != nil {
				return nil
			}
			c := &compiler{r: r, node: b.node}
			a := c.anyPort(uint16(port))
			c.anywhere(a)
			c.ranges(a)
			c.putTunnels(a.ways)
			if len(c.found) > 0 {
				c.put(Diagnostics, "any:"+key, c.found)
			}
			return unique(c.rows)
		}}
}

// anyPort is a port at addresses that nobody is known to have, with all who have a say.
type anyPort struct {
	port    uint16
	unknown model.Unknown // what becomes of hosts and names that are nobody's there
	from    []model.UnknownFrom
	http    bool           // somebody has requests there that are told apart by their host
	detect  *servicePort   // the first whose requests are not
	streams []*servicePort // of those with connections, in order; anywhere
	inRange []*servicePort // with ranges, likewise
	wait    time.Duration
	ways    []*tunnelled // of all connections, as they are computed
}

func (c *compiler) anyPort(port uint16) *anyPort {
	// The addresses are everybody's: hosts that are in nobody's configuration are
	// refused there only if all who have a say refuse them.
	a := &anyPort{port: port, unknown: model.UnknownRefuse}
	said := false
	say := func(key, namespace string, f *model.Frontend) {
		said = true
		if choiceOf(c.r, key, namespace, f).Unknown != model.UnknownRefuse {
			a.unknown = model.UnknownPass
		}
	}
	key := strconv.Itoa(int(port))
	for _, row := range c.r.Select(merge.Frontends, byPort, key) {
		f := row.Value.(*model.Frontend)
		a.http = true
		say(row.Key, f.Namespace, f)
	}
	for _, row := range c.r.Select(services, byAnyPort, key) {
		s := row.Value.(*model.Service)
		p := portOf(c.r, s, *s.Port(port))
		say(p.key, s.Namespace, p.frontend)
		if len(s.Ranges) > 0 && !p.app.IsHTTP() {
			a.inRange = append(a.inRange, p)
		}
		switch {
		case s.Reach == model.ReachAddresses:
		case p.app.IsHTTP():
			a.http = true
		case s.Reach != model.ReachAnywhere:
		default:
			a.streams = append(a.streams, p)
			if p.app == model.AppDetect && a.detect == nil {
				a.detect = p
			}
		}
	}
	if !said {
		a.unknown = model.UnknownPass
	}
	a.from = c.exceptions(a.unknown)
	return a
}

// anywhere takes what is sent to the port at addresses of no range.
func (c *compiler) anywhere(a *anyPort) {
	mode := Any
	switch {
	case !a.http && len(a.streams) == 0:
		return
	case a.http && len(a.streams) == 0:
	case !a.http && a.detect == nil && !readsNames(a.streams):
		mode = AnyOpaque
	default:
		mode = AnyDetect
		for _, p := range a.streams {
			if p.app == model.AppDetect && !longer(a.wait, detectTimeout(p.frontend)) {
				a.wait = detectTimeout(p.frontend)
			}
		}
	}
	c.need(mode, a.wait)
	for _, all := range wholeFamilies {
		s := &Service{Addr: all.Addr(), Port: a.port, Protocol: model.TCP, Name: "any", Mode: mode}
		c.put(Services, s.Key(), s)
		if mode != Any {
			c.v6 = all.Addr().Is6()
			c.anyStreams(a, a.streams, mode, all)
		}
	}
	c.v6 = false
	if mode == AnyOpaque {
		return
	}
	t := &RouteTable{Name: fmt.Sprintf("any:%d", a.port), Elsewhere: &Elsewhere{Port: a.port, Unknown: a.unknown, From: selected(a.from)}}
	if a.detect != nil && !a.http {
		// As in Istio, whatever host is asked.
		t.Elsewhere = nil
		t.Routes = c.requests(a.detect).Routes
	}
	c.lead(AnyKey(a.port), t)
}

// wholeFamilies are all addresses.
var wholeFamilies = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}

// readsNames reports whether ports have routes by server name.
func readsNames(ports []*servicePort) bool {
	return slices.ContainsFunc(ports, func(p *servicePort) bool {
		return slices.ContainsFunc(p.connectionRoutes(), func(r model.ConnectionRoute) bool { return len(r.ServerNames) > 0 })
	})
}

// ranges take what is sent to the port at addresses of services' ranges.
func (c *compiler) ranges(a *anyPort) {
	byRange := map[netip.Prefix][]*servicePort{}
	for _, p := range a.inRange {
		for _, r := range p.service.Ranges {
			byRange[r] = append(byRange[r], p)
		}
	}
	for _, r := range sortedPrefixes(byRange) {
		ports, mode := byRange[r], AnyOpaque
		if readsNames(ports) {
			mode = AnyDetect
		}
		c.need(mode, a.wait)
		c.put(anyRanges, r.String(), r)
		s := &Service{Addr: r.Addr(), Bits: uint8(r.Bits()), Port: a.port, Protocol: model.TCP, Name: ports[0].service.Key(), Mode: mode, Direct: true}
		c.put(Services, s.Key(), s)
		c.v6 = r.Addr().Is6()
		c.anyStreams(a, ports, mode, r)
	}
}

func sortedPrefixes(in map[netip.Prefix][]*servicePort) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(in))
	for p := range in {
		out = append(out, p)
	}
	slices.SortFunc(out, comparePrefixes)
	return out
}

// anyStreams puts the clusters of connections to the port in a range. What none of the
// services takes goes on to where it was going, or is closed.
func (c *compiler) anyStreams(a *anyPort, ports []*servicePort, mode Mode, in netip.Prefix) {
	read := TLS
	if mode == AnyOpaque {
		read = Opaque
	}
	var routes []model.ConnectionRoute
	var whole *servicePort
	for _, p := range ports {
		c.untimed(p)
		for _, r := range c.readable(p, p.connectionRoutes(), read) {
			if r.Original && len(r.ServerNames) == 0 && r.SourceNamespace == "" && len(r.SourceLabels) == 0 {
				continue // as for all that nobody takes
			}
			if len(r.ServerNames) == 0 {
				if whole != nil && whole != p {
					c.say(sharedPort(a, p, whole))
				}
				whole = cmp.Or(whole, p)
			}
			routes = append(routes, r)
		}
	}
	for _, u := range a.from {
		routes = append(routes, model.ConnectionRoute{SourceNamespace: u.SourceNamespace, SourceLabels: u.SourceLabels, Original: u.Unknown == model.UnknownPass})
	}
	routes = append(routes, model.ConnectionRoute{Original: a.unknown == model.UnknownPass})
	a.ways = append(a.ways, c.streams(routes, mode, inRange(in, a.port))...)
}

func sharedPort(a *anyPort, p, first *servicePort) model.Diagnostic {
	return model.Diagnostic{Source: p.service.Src, Code: "shared-port", Effect: model.Degrades, Outcome: model.Approximated,
		Message: fmt.Sprintf("%s and %s have no address that tells them apart: connections to port %d go to the former where both are meant", first.service.Key(), p.service.Key(), a.port),
		Advice:  "give them addresses"}
}

// rangesOf are those that services have.
func rangesOf(r *incr.Reader) []netip.Prefix {
	var out []netip.Prefix
	for _, row := range r.All(anyRanges) {
		out = append(out, row.Value.(netip.Prefix))
	}
	slices.SortFunc(out, comparePrefixes)
	return out
}

// declared computes what captured clients get of a port of a service that is there for
// them alone.
func (c *compiler) declared(p *servicePort) {
	if p.port.Protocol != model.TCP {
		return
	}
	mode := Kernel
	for _, vip := range p.service.VIPs {
		if c.isTaken(p, vip) {
			continue
		}
		if mode == Kernel {
			mode = c.mode(p)
		}
		c.v6 = vip.Is6()
		e := &Service{Addr: vip, Port: p.port.Port, Protocol: model.TCP, Name: p.service.Key(), Mode: mode, Direct: true}
		c.put(Services, e.Key(), e)
		dst := netip.AddrPortFrom(vip, p.port.Port)
		if p.app.HasRequests() {
			c.lead(DestinationKey(dst), c.requests(p))
		}
		if !p.app.IsHTTP() {
			c.connections(p, mode, dst)
		}
	}
	if !p.app.IsHTTP() || p.service.Reach == model.ReachAddresses {
		return
	}
	for _, h := range p.service.Hosts {
		for _, c.v6 = range []bool{false, true} {
			c.lead(HostScopeKey(h, p.port.Port, c.v6), c.requests(p))
		}
	}
}

// isTaken reports whether an address and port are another service's, of Kubernetes or the
// first by its key. Requests find theirs by their authority all the same.
func (c *compiler) isTaken(p *servicePort, vip netip.Addr) bool {
	for _, row := range c.r.Select(services, byVIP, vip.String()) {
		s := row.Value.(*model.Service)
		if s.Port(p.port.Port) == nil || s.MeshOnly && strings.Compare(row.Key, p.service.Key()) >= 0 {
			continue
		}
		if !p.app.IsHTTP() || !s.MeshOnly {
			c.say(model.Diagnostic{Source: p.service.Src, Code: "shared-address", Effect: model.Degrades, Outcome: model.Approximated,
				Message: fmt.Sprintf("%s has %s, too: what is sent there to port %d goes to that one", row.Key, vip, p.port.Port),
				Advice:  "give each its own address"})
		}
		return true
	}
	return false
}
