// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// Proxy ports, classes and policy sets of the tests.
const (
	outPort  = 15100
	inPort   = 15101
	outbound = "out/http/x"

	setA2 = 1
	setB1 = 2
)

// world is the network with a process for each host and the datapath open on both
// nodes. Each pod serves TCP and UDP on port 8080 under its name.
type world struct {
	*network
	proc   map[string]*process
	plan   map[string]Planned // by node
	before Host               // node b before its datapath was opened
	outer  *world             // of the whole test
}

func newWorld(t *testing.T, bridged bool) *world {
	t.Helper()
	return newWorldOf(t, bridged, nil)
}

// newWorldOf is newWorld with maps of these sizes.
func newWorldOf(t *testing.T, bridged bool, sizes map[string]uint32) *world {
	t.Helper()
	w := &world{network: newNetworkWith(t, bridged), proc: map[string]*process{}, plan: map[string]Planned{}}
	for name := range w.hosts {
		w.proc[name] = w.start(name)
	}
	for _, pod := range []string{"a1", "a2", "b1"} {
		for _, network := range []string{"tcp", "udp"} {
			call[None](w.proc[pod], "Listen", Server{Network: network + "4", Addr: "0.0.0.0:8080", Name: pod})
			call[None](w.proc[pod], "Listen", Server{Network: network + "6", Addr: "[::]:8080", Name: pod})
		}
	}
	w.before = call[Host](w.proc["b"], "Host", w.hosts["b"].cgroup)
	for _, node := range []string{"a", "b"} {
		o := w.options(node)
		o.MapSizes = sizes
		call[None](w.proc[node], "Open", o)
		w.plan[node] = w.basePlan(node)
		call[None](w.proc[node], "Sync", w.plan[node])
	}
	w.ready()
	return w
}

// basePlan knows every pod and node, and nobody is governed or captured.
func (w *world) basePlan(node string) Planned {
	p := Planned{Ports: map[string]uint16{outbound: outPort}, Inbound: inPort}
	for _, name := range []string{"a", "b", "a1", "a2", "b1"} {
		h := w.hosts[name]
		for _, a := range []netip.Addr{h.v4, h.v6} {
			p.Addresses = append(p.Addresses, &plan.Address{Addr: a, Class: class(name), Managed: len(name) > 1, Node: len(name) == 1})
			if len(name) > 1 && name[:1] == node {
				p.Pods = append(p.Pods, &plan.Pod{Addr: a, Name: "ns/" + name})
			}
		}
	}
	return p
}

// class is a host's own, 0 for nodes.
func class(name string) uint64 {
	return uint64(slices.Index([]string{"a1", "a2", "b1"}, name) + 1)
}

// set applies an edited copy of the base plan to a node.
func (w *world) set(node string, edit func(p *Planned)) {
	w.t.Helper()
	p := w.basePlan(node)
	if edit != nil {
		edit(&p)
	}
	w.plan[node] = p
	call[None](w.proc[node], "Apply", p)
}

// ready waits until no pod is pending.
func (w *world) ready() {
	w.t.Helper()
	for _, node := range []string{"a", "b"} {
		w.wait(node, func(st Status) string {
			for _, p := range st.Pods {
				if !p.Ready {
					return fmt.Sprintf("pod %s: %s", p.Name, p.Reason)
				}
			}
			return ""
		})
	}
}

// wait asks for a node's status until there is nothing to object to.
func (w *world) wait(node string, objection func(Status) string) {
	w.t.Helper()
	var why string
	for start := time.Now(); time.Since(start) < 5*time.Second; time.Sleep(50 * time.Millisecond) {
		if why = objection(call[Status](w.proc[node], "Status", None{})); why == "" {
			return
		}
	}
	w.t.Fatalf("node %s: %s", node, why)
}

func (w *world) dial(from string, c Client) (Answer, error) {
	w.t.Helper()
	return try[Answer](w.proc[from], "Dial", c)
}

func (w *world) mustDial(from string, c Client) Answer {
	w.t.Helper()
	a, err := w.dial(from, c)
	if err != nil {
		w.t.Fatalf("%s dials %+v: %v\n%s", from, c, err, w.drops())
	}
	return a
}

// drops is what both nodes count, for messages.
func (w *world) drops() string {
	var out []string
	for _, node := range []string{"a", "b"} {
		out = append(out, fmt.Sprintf("node %s: %v", node, call[Status](w.proc[node], "Status", None{}).Counters))
	}
	return strings.Join(out, "\n")
}

func at(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }

func mustAddr(s string) netip.Addr { return netip.MustParseAddr(s) }

func addrOf(addrPort string) string { return netip.MustParseAddrPort(addrPort).Addr().Unmap().String() }

// service is served by pods on port 8080.
func (w *world) service(addr string, port uint16, proto model.Protocol, mode plan.Mode, pods ...string) *plan.Service {
	s := &plan.Service{Addr: netip.MustParseAddr(addr), Port: port, Protocol: proto, Mode: mode}
	for _, name := range pods {
		a := w.hosts[name].v4
		if s.Addr.Is6() {
			a = w.hosts[name].v6
		}
		s.Backends = append(s.Backends, plan.KernelBackend{Addr: netip.AddrPortFrom(a, 8080), Weight: 1})
	}
	return s
}

func TestLive(t *testing.T) { live(t, false) }

// The same with pods on a bridge.
func TestLiveBridged(t *testing.T) { live(t, true) }

func live(t *testing.T, bridged bool) {
	w := newWorld(t, bridged)
	for _, c := range []struct {
		name string
		run  func(*testing.T, *world)
	}{
		{"plain", testPlain},
		{"balance", testBalance},
		{"affinity", testAffinity},
		{"outbound", testOutbound},
		{"capture comes and goes", testCaptureComesAndGoes},
		{"routed", testRouted},
		{"modes", testModes},
		{"direct", testDirect},
		{"any", testAny},
		{"ranges", testRanges},
		{"inbound", testInbound},
		{"node ports", testNodePorts},
		{"held", testHeld},
		{"checked", testChecked},
		{"unchecked", testUnchecked},
		{"policy", testPolicy},
		{"probes", testProbes},
		{"spoof", testSpoof},
		{"no writes", testNoWrites},
		{"banks", testBanks},
		{"take over", testTakeOver},
		{"earlier layouts", testEarlierLayouts},
		{"pods come and go", testPodsComeAndGo},
		{"pending", testPending},
		{"others", testOthers},
		{"repair", testRepair},
		{"uninstall", testUninstall},
		{"uplink", testUplink},
	} {
		if !t.Run(c.name, func(t *testing.T) { c.run(t, w.in(t)) }) {
			t.Fatalf("the rest needs what %s has shown", c.name)
		}
	}
}

// in reports to a subtest.
func (w *world) in(t *testing.T) *world {
	out := *w
	out.outer = w
	n := *w.network
	n.t = t
	out.network, out.proc = &n, map[string]*process{}
	for name, p := range w.proc {
		out.proc[name] = &process{t: t, Client: p.Client, cmd: p.cmd}
	}
	return &out
}

// Without rules everybody reaches everybody.
func testPlain(t *testing.T, w *world) {
	for _, from := range []string{"a", "b", "a1", "a2", "b1"} {
		for _, to := range []string{"a1", "a2", "b1"} {
			for _, network := range []string{"tcp", "udp"} {
				for _, a := range []netip.Addr{w.hosts[to].v4, w.hosts[to].v6} {
					got := w.mustDial(from, Client{Network: network, Addr: at(a, 8080)})
					if got.Server != to {
						t.Errorf("%s dials %s of %s: %s answers", from, network, to, got.Server)
					}
				}
			}
		}
	}
}

// dials are enough that one of two backends is not left out by chance.
const dials = 24

// Services are balanced where they are dialled, and look like services.
func testBalance(t *testing.T, w *world) {
	for _, node := range []string{"a", "b"} {
		w.set(node, func(p *Planned) {
			for _, vip := range []string{"10.96.0.1", "fd96::1"} {
				p.Services = append(p.Services,
					w.service(vip, 80, model.TCP, plan.Kernel, "a1", "b1"),
					w.service(vip, 53, model.UDP, plan.Kernel, "a1", "b1"),
					w.service(vip, 81, model.TCP, plan.Kernel))
			}
		})
	}
	for _, from := range []string{"a", "b", "a1", "a2", "b1"} {
		for _, c := range []Client{
			{Network: "tcp", Addr: "10.96.0.1:80"},
			{Network: "tcp", Addr: "[fd96::1]:80"},
			{Network: "tcp", Addr: "[::ffff:10.96.0.1]:80", Mapped: true},
			{Network: "udp", Addr: "10.96.0.1:53"},
			{Network: "udp", Addr: "[fd96::1]:53"},
			{Network: "udp", Addr: "[::ffff:10.96.0.1]:53", Mapped: true},
		} {
			served := map[string]bool{}
			for range dials {
				got := w.mustDial(from, c)
				served[got.Server] = true
				if want := addrOf(c.Addr); addrOf(got.Peer) != want {
					t.Errorf("%s dials %s: its peer is %s", from, c.Addr, got.Peer)
				}
			}
			if len(served) < 2 {
				t.Errorf("%s dials %s %d times: only %v answers", from, c.Addr, dials, served)
			}
		}
		for _, got := range call[[]string](w.proc[from], "Datagrams", []string{"10.96.0.1:53", "[fd96::1]:53", "10.96.0.1:53"}) {
			if !strings.HasSuffix(got, ":53") || !strings.Contains(got, "96::1") && !strings.Contains(got, "10.96.0.1") {
				t.Errorf("a datagram is answered as %s", got)
			}
		}
		if got, err := w.dial(from, Client{Network: "tcp", Addr: "10.96.0.1:81"}); err == nil || !refused(err) {
			t.Errorf("%s dials a service without backends: %+v, %v", from, got, err)
		}
	}
}

// A client keeps its backend; which one differs between clients.
func testAffinity(t *testing.T, w *world) {
	w.set("a", func(p *Planned) {
		s := w.service("10.96.0.1", 80, model.TCP, plan.Kernel, "a1", "a2", "b1")
		s.Affinity = time.Minute
		p.Services = append(p.Services, s)
	})
	for _, from := range []string{"a", "a1", "a2"} {
		served := map[string]int{}
		for range dials {
			served[w.mustDial(from, Client{Network: "tcp", Addr: "10.96.0.1:80"}).Server]++
		}
		if len(served) != 1 {
			t.Errorf("%s is served by %v", from, served)
		}
	}
}
