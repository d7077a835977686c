// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/model/merge"
	"fairlead.io/fairlead/model/plan"
	"fairlead.io/fairlead/translators"
)

// Tables are those of the configuration of the node that the source is on; see
// pipeline.Pipeline.
type Tables interface {
	Get(t incr.Table, key string) any
	Rows(t incr.Table) []incr.Row
}

// tracer is one trace.
type tracer struct {
	Tables
	pods map[netip.Addr]*model.Workload
	from []netip.Addr // all addresses of the source
	q    *request
	out  *Answer

	backends func(cluster string) string // in words; nil until it is asked
}

// Follow tells what becomes of a query. The error is a QueryError.
func Follow(t Tables, q Query) (*Answer, error) {
	r, err := q.parse()
	if err != nil {
		return nil, err
	}
	tr := &tracer{Tables: t, pods: map[netip.Addr]*model.Workload{}, q: r, out: &Answer{Query: q}}
	for _, row := range t.Rows(translators.Workloads) {
		if w := row.Value.(*model.Workload); !w.HostNetwork {
			for _, a := range w.Addresses {
				tr.pods[a] = w
			}
		}
	}
	if err := tr.source(q); err != nil {
		return nil, err
	}
	if err := tr.destination(q); err != nil {
		return nil, err
	}
	tr.follow()
	tr.out.Outcomes = joined(tr.out.Outcomes)
	return tr.out, nil
}

func (t *tracer) step(sources []model.Source, format string, a ...any) {
	t.out.Steps = append(t.out.Steps, Step{fmt.Sprintf(format, a...), sources})
}

// destination finds the address that is dialled.
func (t *tracer) destination(q Query) error {
	addr := q.To
	if a, err := netip.ParseAddr(t.q.host); err == nil && !addr.IsValid() {
		addr = a
	}
	if addr.IsValid() {
		t.out.Destination = netip.AddrPortFrom(addr.Unmap(), t.q.port)
		return nil
	}
	s := t.named(strings.TrimSuffix(t.q.host, "."))
	if s == nil {
		return nil // any address
	}
	addrs := s.VIPs
	if len(addrs) == 0 {
		addrs = t.endpointAddrs(s)
	}
	if len(addrs) == 0 {
		if s.Reach == model.ReachAddresses {
			t.step([]model.Source{s.Src}, "%s has no addresses: its name leads nowhere", s.Key())
		}
		return nil
	}
	a := ofFamily(addrs, q.V6)
	if own := ofFamily(t.from, a.Is6()); own.Is6() == a.Is6() {
		t.out.Source.Addr = own
	} else {
		return queryError("%s has no address of the family of %s", s.Key(), own)
	}
	port := t.q.port
	if len(s.VIPs) == 0 { // a client of a headless service dials the endpoint's own port
		port = t.targetPort(s, a)
	}
	t.out.Destination = netip.AddrPortFrom(a, port)
	return nil
}

// named is the service that a client of the source's namespace means by a name.
func (t *tracer) named(name string) *model.Service {
	own, _, _ := strings.Cut(t.out.Source.Pod, "/")
	for _, n := range []string{name + "." + own, name} {
		for _, row := range t.Rows(translators.Services) {
			if s := row.Value.(*model.Service); slices.Contains(s.Hosts, n) {
				return s
			}
		}
	}
	return nil
}

// endpointAddrs are the addresses that a headless service's name resolves to.
func (t *tracer) endpointAddrs(s *model.Service) []netip.Addr {
	var out []netip.Addr
	for _, p := range t.endpointPorts(s) {
		for _, e := range p.Backends {
			if e.Addr.IsValid() {
				out = append(out, e.Addr)
			}
		}
	}
	return out
}

func (t *tracer) endpointPorts(s *model.Service) []model.EndpointsPort {
	if e, _ := t.Get(translators.Endpoints, s.Key()).(*model.Endpoints); e != nil {
		return e.Ports
	}
	return nil
}

func (t *tracer) targetPort(s *model.Service, a netip.Addr) uint16 {
	for _, p := range t.endpointPorts(s) {
		for _, e := range p.Backends {
			if p.Port == t.q.port && e.Addr == a {
				return e.Port
			}
		}
	}
	return t.q.port
}

// follow goes from the source to whoever gets it.
func (t *tracer) follow() {
	proto := model.TCP
	if t.q.kind == datagram {
		proto = model.UDP
	}
	dst := t.out.Destination
	s := t.kernelService(dst, proto)
	switch {
	case s == nil && !dst.IsValid():
		t.step(nil, "nobody is known to have %s: it goes where its name resolves to", t.q.host)
		t.end(Outcome{Verdict: Reached, Why: "nothing here has a say in it"})
		return
	case s == nil && proto == model.TCP && t.isHeld(dst.Addr()):
		t.end(Outcome{Verdict: Lost, Why: "no service has the address and port, and the pod may connect to services alone"})
		return
	case s == nil && t.service(dst.Addr()) != "" && t.pods[dst.Addr()] == nil:
		t.end(Outcome{Verdict: Lost, Why: fmt.Sprintf("%s, which has %s, has no port %d of %s; it has %s", t.service(dst.Addr()), dst.Addr(), dst.Port(), proto, t.portsAt(dst.Addr()))})
		return
	case s == nil:
		t.step(nil, "no service that is steered has %s: it goes there as it is", dst)
		t.direct(1, []plan.KernelBackend{{Addr: dst, Weight: 1}}, "nothing routes it", t.unchanged())
		return
	}
	t.out.Service, t.out.Mode = s.Name, s.Mode
	switch {
	case s.Mode == plan.Kernel && s.Routed != nil && !t.out.Source.Captured:
		t.step(nil, "%s is %s: the kernel chooses an endpoint of %s, whatever its routes", t.who(), t.uncaptured(), s.Name)
	case s.Mode == plan.Kernel && s.Routed != nil:
		t.step(t.led(s), "%s is %s: the kernel chooses the endpoint by its routes", dst, s.Name)
	case s.Mode == plan.Kernel:
		t.step(nil, "%s is %s: the kernel chooses the endpoint", dst, s.Name)
	case !t.out.Source.Captured:
		t.step(nil, "%s is %s: the kernel chooses the endpoint of %s", t.who(), t.uncaptured(), s.Name)
	default:
		t.listener(s)
		return
	}
	t.balanced(s, dst)
}

// who is the source in a sentence.
func (t *tracer) who() string {
	s := t.out.Source
	return cmp.Or(s.Pod, s.Node, s.Addr.String())
}

// uncaptured says why what the source sends is not routed.
func (t *tracer) uncaptured() string {
	if t.out.Source.Observed {
		return "observed"
	}
	return "not captured"
}

// balanced is what the kernel does at connect.
func (t *tracer) balanced(s *plan.Service, dst netip.AddrPort) {
	to, routed := s.BackendsOf(t.out.Source.Captured), t.out.Source.Captured && s.Routed != nil
	switch {
	case s.Direct || s.Addr.IsUnspecified():
		t.direct(1, []plan.KernelBackend{{Addr: dst, Weight: 1}}, "the client has chosen the address", t.unchanged())
	case len(to) == 0 && routed:
		t.end(Outcome{Verdict: Lost, Why: "the routes of " + s.Name + " lead to no endpoints", By: t.led(s)})
	case len(to) == 0:
		t.end(Outcome{Verdict: Lost, Why: s.Name + " has no endpoints"})
	case routed:
		t.direct(1, to, "an endpoint that the routes of "+s.Name+" lead to", t.unchanged())
	default:
		t.direct(1, to, "an endpoint of "+s.Name, t.unchanged())
	}
}

// led names what leads connections to a service elsewhere.
func (t *tracer) led(s *plan.Service) []model.Source {
	if f, _ := t.Get(merge.Frontends, fmt.Sprintf("%s:%d", s.Name, s.Port)).(*model.Frontend); f != nil {
		return f.Src
	}
	return nil
}

// kernelService is the row that the kernel finds for an address.
func (t *tracer) kernelService(dst netip.AddrPort, proto model.Protocol) *plan.Service {
	if dst.IsValid() {
		if s, ok := t.Get(plan.Services, (&plan.Service{Addr: dst.Addr(), Port: dst.Port(), Protocol: proto}).Key()).(*plan.Service); ok {
			return s
		}
		if t.known(dst.Addr()) {
			return nil
		}
	}
	if !t.out.Source.Captured {
		return nil
	}
	if s := t.inRange(dst, proto); s != nil {
		return s
	}
	anyone := netip.IPv4Unspecified()
	if t.out.Source.Addr.Is6() {
		anyone = netip.IPv6Unspecified()
	}
	s, _ := t.Get(plan.Services, (&plan.Service{Addr: anyone, Port: t.q.port, Protocol: proto}).Key()).(*plan.Service)
	return s
}

// known reports whether an address is a pod's, a node's or a service's, or kept for pods.
func (t *tracer) known(a netip.Addr) bool {
	if t.Get(plan.Addresses, a.String()) != nil {
		return true
	}
	if p := t.prefix(a); p != nil && p.Unassigned {
		return true
	}
	return t.service(a) != ""
}

// service names the one that has a virtual address.
func (t *tracer) service(a netip.Addr) string {
	for _, row := range t.Rows(plan.Services) {
		if s := row.Value.(*plan.Service); s.Addr == a && !s.Direct {
			return s.Name
		}
	}
	return ""
}

// portsAt are those of the service that has an address.
func (t *tracer) portsAt(a netip.Addr) string {
	var out []string
	for _, row := range t.Rows(plan.Services) {
		if s := row.Value.(*plan.Service); s.Addr == a && !s.Direct {
			out = append(out, fmt.Sprintf("%d/%s", s.Port, s.Protocol))
		}
	}
	return strings.Join(out, ", ")
}

// end adds an outcome; its share is all if it says none.
func (t *tracer) end(o Outcome) {
	if o.Share == 0 {
		o.Share = 1
	}
	t.out.Outcomes = append(t.out.Outcomes, o)
}

// joined adds up outcomes that differ by their shares alone.
func joined(in []Outcome) []Outcome {
	var out []Outcome
	for _, o := range in {
		bare := o
		bare.Share = 0
		i := slices.IndexFunc(out, func(x Outcome) bool {
			x.Share = 0
			return model.Hash(x) == model.Hash(bare)
		})
		if i < 0 {
			out = append(out, o)
		} else {
			out[i].Share += o.Share
		}
	}
	return out
}
