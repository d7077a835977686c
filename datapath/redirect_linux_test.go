// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// capture sends a pod's requests to the outbound listener.
func (p *Planned) capture(pod string) {
	for _, row := range p.Pods {
		if row.Name == "ns/"+pod {
			row.Listeners = map[plan.Mode]string{plan.HTTP: outbound}
		}
	}
}

// govern gives a pod a policy set.
func (p *Planned) govern(pod string, set uint64, verdicts ...*plan.Verdict) {
	for _, row := range p.Pods {
		if row.Name == "ns/"+pod {
			row.Set = set
		}
	}
	for _, v := range verdicts {
		v.Set = set
		p.Verdicts = append(p.Verdicts, v)
	}
}

func (w *world) flows(node string, want func(Flow) bool) []Flow {
	w.t.Helper()
	return slices.DeleteFunc(call[[]Flow](w.proc[node], "Flows", None{}), func(f Flow) bool { return !want(f) })
}

// intoWeb are flows to the pods' port, without packets that were refused for want of a
// check: connections that tests before have made end late, and a dial whose packets are
// refused fails by itself.
func intoWeb(f Flow) bool { return f.Destination.Port() == 8080 && f.Reason != "unchecked" }

// Pods that are captured keep a routed service's address and meet the proxy under
// it; everybody else is balanced.
func testOutbound(t *testing.T, w *world) {
	vips := []string{"10.96.0.2:80", "[fd96::2]:80"}
	onward := map[string]string{"[fd96::3]:80": at(w.hosts["b1"].v6, 8080), "10.96.0.3:80": at(w.hosts["b1"].v4, 8080),
		"[fd96::4]:80": at(w.hosts["a2"].v6, 8080), "10.96.0.4:80": at(w.hosts["a2"].v4, 8080),
		"[fd96::5]:80": at(w.hosts["a1"].v6, 8080), "10.96.0.5:80": at(w.hosts["a1"].v4, 8080)}
	call[None](w.proc["a"], "Redirected", Proxy{Port: outPort, Name: "proxy", Onward: onward})
	services := func(p *Planned) {
		for _, n := range []string{"2", "3", "4", "5"} {
			for _, vip := range []string{"10.96.0." + n, "fd96::" + n} {
				p.Services = append(p.Services, w.service(vip, 80, model.TCP, plan.HTTP, "b1"))
			}
		}
	}
	w.set("a", func(p *Planned) { services(p); p.capture("a1") })
	w.set("b", services)
	w.ready()
	w.flows("a", anyFlow)
	for _, vip := range vips {
		got := w.mustDial("a1", Client{Network: "tcp", Addr: vip})
		if got.Server != "proxy" || got.At != vip || got.Seen != got.Local || got.Peer != vip {
			t.Errorf("captured pod dials %s: %+v", vip, got)
		}
		for _, other := range []string{"a2", "a", "b", "b1"} {
			if got := w.mustDial(other, Client{Network: "tcp", Addr: vip}); got.Server != "b1" || got.Peer != vip {
				t.Errorf("%s is not captured and dials %s: %+v", other, vip, got)
			}
		}
	}
	got := w.flows("a", func(f Flow) bool { return f.Verdict == Redirected })
	if len(got) != len(vips) {
		t.Fatalf("%d flows were redirected, want %d: %+v", len(got), len(vips), got)
	}
	f := got[0]
	if f.Reason != "outbound" || f.Direction != FromPod || f.ProxyPort != outPort || f.Destination != netip.MustParseAddrPort(vips[0]) ||
		f.Source.Addr() != w.hosts["a1"].v4 || time.Since(f.Time).Abs() > time.Minute {
		t.Errorf("flow %+v", f)
	}
	// The server sees the client's own address; so does a client that is its own server.
	for vip, to := range map[string]string{
		"10.96.0.3:80": "b1", "[fd96::3]:80": "b1", "10.96.0.4:80": "a2", "[fd96::4]:80": "a2",
	} {
		got := w.mustDial("a1", Client{Network: "tcp", Addr: vip})
		if got.Server != to || addrOf(got.Seen) != addrOf(got.Local) || got.Peer != vip {
			t.Errorf("captured pod dials %s through the proxy: %+v", vip, got)
		}
	}
	for _, vip := range []string{"10.96.0.5:80", "[fd96::5]:80"} {
		for range 20 {
			if got := w.mustDial("a1", Client{Network: "tcp", Addr: vip}); got.Server != "a1" {
				t.Errorf("a pod dials itself by %s: %+v", vip, got)
			}
		}
	}
}

func anyFlow(Flow) bool { return true }

// refused: the client was told, it did not wait in vain.
func refused(err error) bool { return strings.Contains(err.Error(), unix.ECONNREFUSED.Error()) }

// The port of a listener may come later, and go.
func testCaptureComesAndGoes(t *testing.T, w *world) {
	vip := "10.96.0.2:80"
	server := func() string { return w.mustDial("a1", Client{Network: "tcp", Addr: vip}).Server }
	edit := func(port uint16) {
		w.set("a", func(p *Planned) {
			p.Services = append(p.Services, w.service("10.96.0.2", 80, model.TCP, plan.HTTP, "b1"))
			p.capture("a1")
			p.Ports[outbound] = port
		})
	}
	edit(0)
	if got := server(); got != "b1" {
		t.Errorf("no port yet: %s answers", got)
	}
	st := call[Status](w.proc["a"], "Status", None{})
	if st.Pods[0].Name != "ns/a1" || st.Pods[0].Ready || st.Pods[0].Reason == "" {
		t.Errorf("no port yet: %+v", st.Pods[0])
	}
	edit(outPort)
	w.ready()
	if got := server(); got != "proxy" {
		t.Errorf("with a port: %s answers", got)
	}
	kept := w.mustDial("a1", Client{Network: "tcp", Addr: vip, Keep: "captured"})
	edit(0)
	if got := server(); got != "b1" {
		t.Errorf("port is gone: %s answers", got)
	}
	if got := call[Answer](w.proc["a1"], "Ask", "captured"); got.Server != kept.Server {
		t.Errorf("a connection that was redirected: %+v, before %+v", got, kept)
	}
	edit(outPort + 50) // nobody listens there
	w.ready()
	if got, err := w.dial("a1", Client{Network: "tcp", Addr: vip, Wait: 300 * time.Millisecond}); err == nil {
		t.Errorf("nobody listens: %+v", got)
	}
	if st := call[Status](w.proc["a"], "Status", None{}); st.Counters["no-proxy"] == 0 {
		t.Errorf("nobody listens: %v", st.Counters)
	}
}

// What must be checked meets the node's inbound port, unless a proxy has checked it.
func testInbound(t *testing.T, w *world) {
	onward := map[string]string{}
	for _, h := range []string{"a1", "a2"} {
		onward[at(w.hosts[h].v4, 8080)], onward[at(w.hosts[h].v6, 8080)] = "original", "original"
	}
	call[None](w.proc["a"], "Redirected", Proxy{Port: inPort, Name: "inbound", Onward: onward})
	w.set("a", func(p *Planned) {
		p.govern("a2", setA2, &plan.Verdict{Any: true, Port: 8080, Proto: model.TCP, Action: plan.Check, Rule: 77})
	})
	w.set("b", nil)
	w.flows("a", anyFlow)
	for _, from := range []string{"a1", "b1", "b", "a"} { // the last by way of loopback
		for _, a := range []netip.Addr{w.hosts["a2"].v4, w.hosts["a2"].v6} {
			got := w.mustDial(from, Client{Network: "tcp", Addr: at(a, 8080)})
			if got.Server != "a2" || addrOf(got.Seen) != addrOf(got.Local) || got.Seen == got.Local {
				t.Errorf("%s dials what is checked: %+v", from, got)
			}
		}
	}
	flows := w.flows("a", func(f Flow) bool { return f.Reason == "inbound" || f.Reason == "checked" })
	if n := len(flows); n != 16 { // each connection is redirected, then let in
		t.Errorf("%d flows, want 16: %+v", n, flows)
	}
	for _, f := range flows {
		if f.Rule != 77 || f.Set != setA2 {
			t.Errorf("flow %+v", f)
		}
	}
	// Another node's proxy is believed by its source port, from addresses that are managed.
	checked := Client{Network: "tcp", Addr: at(w.hosts["a2"].v4, 8080), From: at(w.hosts["b1"].v4, 61005)}
	if got := w.mustDial("b", checked); got.Seen != got.Local {
		t.Errorf("the other node's proxy has checked: %+v", got)
	}
	w.set("a", func(p *Planned) {
		p.govern("a2", setA2, &plan.Verdict{Any: true, Port: 8080, Proto: model.TCP, Action: plan.Refuse})
	})
	if got, err := w.dial("b", checked); err == nil && got.Seen == got.Local {
		t.Errorf("what is refused passes directly: %+v", got)
	}
}

// A proxy that has judged the destination's policy is believed on its own node and,
// for addresses of pods that are managed, on others: one pass is enough.
func testChecked(t *testing.T, w *world) {
	vips := map[string]string{"10.96.0.6:80": at(w.hosts["a2"].v4, 8080), "[fd96::6]:80": at(w.hosts["a2"].v6, 8080)}
	call[None](w.proc["b"], "Redirected", Proxy{Port: outPort, Name: "proxy", Onward: vips})
	call[None](w.proc["a"], "Redirected", Proxy{Port: outPort + 10, Name: "proxy", Onward: vips})
	service := func(p *Planned) {
		p.Services = append(p.Services, w.service("10.96.0.6", 80, model.TCP, plan.HTTP, "a2"), w.service("fd96::6", 80, model.TCP, plan.HTTP, "a2"))
	}
	w.set("a", func(p *Planned) {
		service(p)
		p.capture("a1")
		p.Ports[outbound] = outPort + 10
		p.govern("a2", setA2, &plan.Verdict{Any: true, Port: 8080, Proto: model.TCP, Action: plan.Check})
	})
	w.set("b", func(p *Planned) { service(p); p.capture("b1") })
	w.ready()
	w.flows("a", anyFlow)
	for _, from := range []string{"a1", "b1"} {
		for vip := range vips {
			got := w.mustDial(from, Client{Network: "tcp", Addr: vip})
			if got.Server != "a2" || addrOf(got.Seen) != addrOf(got.Local) || got.Seen == got.Local {
				t.Errorf("%s dials %s: %+v", from, vip, got)
			}
		}
	}
	reasons := map[string]int{}
	for _, f := range w.flows("a", intoWeb) {
		reasons[f.Reason]++
	}
	if diff := cmp.Diff(map[string]int{"checked": 4}, reasons); diff != "" {
		t.Errorf("on the way into a2: %s", diff)
	}
}

// A proxy that has not judged it meets the inbound listener of its own node, as that of
// others: its connection to itself is under the addresses of two pods.
func testUnchecked(t *testing.T, w *world) {
	vips := map[string]string{"10.96.0.7:80": at(w.hosts["a2"].v4, 8080), "[fd96::7]:80": at(w.hosts["a2"].v6, 8080)}
	call[None](w.proc["a"], "Redirected", Proxy{Port: outPort + 20, Name: "proxy", Onward: vips, Unchecked: true})
	w.set("a", func(p *Planned) {
		p.Services = append(p.Services, w.service("10.96.0.7", 80, model.TCP, plan.HTTP, "a2"), w.service("fd96::7", 80, model.TCP, plan.HTTP, "a2"))
		p.capture("a1")
		p.Ports[outbound] = outPort + 20
		p.govern("a2", setA2, &plan.Verdict{Any: true, Port: 8080, Proto: model.TCP, Action: plan.Check})
	})
	w.ready()
	for vip := range vips {
		for n := range 3 {
			got := w.mustDial("a1", Client{Network: "tcp", Addr: vip, Keep: vip})
			if got.Server != "a2" || addrOf(got.Seen) != addrOf(got.Local) {
				t.Errorf("a1 dials %s: %+v", vip, got)
			}
			if got := call[Answer](w.proc["a1"], "Ask", vip); got.Server != "a2" {
				t.Errorf("connection %d to %s asks again: %+v", n, vip, got)
			}
		}
	}
	reasons := map[string]int{}
	for _, f := range w.flows("a", intoWeb) {
		reasons[f.Reason]++
	}
	if diff := cmp.Diff(map[string]int{"inbound": 6, "checked": 6}, reasons); diff != "" {
		t.Errorf("on the way into a2: %s", diff)
	}
}

// The pod's policy is judged on the way in, whoever sends.
func testPolicy(t *testing.T, w *world) {
	w.set("a", nil)
	kept := Client{Network: "tcp", Addr: at(w.hosts["a2"].v4, 8080), Keep: "judged"}
	before := w.mustDial("b1", kept).Local
	w.set("a", func(p *Planned) {
		p.govern("a2", setA2,
			&plan.Verdict{Class: class("a1"), Port: 8080, Proto: model.TCP, Action: plan.Allow},
			&plan.Verdict{Class: class("b1"), Port: 8080, Proto: model.UDP, Action: plan.Allow},
			&plan.Verdict{Class: class("b1"), Port: 8080, Proto: model.TCP, Action: plan.Deny, Rule: 5})
	})
	w.flows("a", anyFlow)
	for _, c := range []struct {
		from, network string
		allowed       bool
	}{
		{"a1", "tcp", true}, {"a1", "udp", false}, {"b1", "udp", true}, {"b1", "tcp", false}, {"a", "tcp", false}, {"b", "tcp", false},
	} {
		for _, a := range []netip.Addr{w.hosts["a2"].v4, w.hosts["a2"].v6} {
			got, err := w.dial(c.from, Client{Network: c.network, Addr: at(a, 8080), Wait: 300 * time.Millisecond})
			if (err == nil) != c.allowed {
				t.Errorf("%s dials %s %s: %+v, %v; allowed: %v", c.from, c.network, a, got, err, c.allowed)
			}
			if err != nil && c.network == "tcp" && !refused(err) {
				t.Errorf("%s dials %s and is not told that it may not: %v", c.from, a, err)
			}
		}
	}
	if got := w.flows("a", func(f Flow) bool {
		return f.Rule == 5 && f.Reason == "policy" && f.Source.String() != before // which ends as it can
	}); len(got) != 2 {
		t.Errorf("%d flows were denied by the rule, want 2", len(got))
	}
	// An open connection is judged by the policy of now.
	if got, err := try[Answer](w.proc["b1"], "Ask", "judged"); err == nil {
		t.Errorf("an open connection passes: %+v", got)
	}
	// What the pod itself opens is answered.
	for _, network := range []string{"tcp", "udp"} {
		w.mustDial("a2", Client{Network: network, Addr: at(w.hosts["b1"].v4, 8080)})
		w.mustDial("a2", Client{Network: network, Addr: at(w.hosts["b1"].v6, 8080)})
	}
	w.set("a", nil)
	w.mustDial("b1", Client{Network: "tcp", Addr: at(w.hosts["a2"].v4, 8080)})
}

// The node's own processes may reach declared probe ports.
func testProbes(t *testing.T, w *world) {
	w.set("a", func(p *Planned) {
		p.govern("a2", setA2)
		for _, row := range p.Pods {
			row.ProbePorts = []uint16{9, 8080}
		}
	})
	to := Client{Network: "tcp", Addr: at(w.hosts["a2"].v4, 8080), Wait: 300 * time.Millisecond}
	w.mustDial("a", to)
	for _, from := range []string{"a1", "b"} {
		if got, err := w.dial(from, to); err == nil {
			t.Errorf("%s reaches a probe port: %+v", from, got)
		}
	}
	w.set("a", func(p *Planned) {
		p.Pods[0].ProbePorts = []uint16{1, 2, 3, 4, 5, 6, 7, 8, 9}
	})
	if st := call[Status](w.proc["a"], "Status", None{}); st.Pods[0].Warning == "" || !st.Pods[0].Ready {
		t.Errorf("nine probe ports: %+v", st.Pods[0])
	}
}

// A pod has its own addresses and no others, and not the proxy's source ports.
func testSpoof(t *testing.T, w *world) {
	w.set("a", nil)
	count := func(reason string) uint64 {
		return call[Status](w.proc["a"], "Status", None{}).Counters[reason]
	}
	for _, c := range []struct {
		reason string
		from   netip.Addr
		port   uint16
	}{
		{"spoofed", w.hosts["a2"].v4, 5000}, {"spoofed", w.hosts["b1"].v6, 5000}, {"spoofed", netip.MustParseAddr("10.1.2.3"), 5000},
		{"reserved-port", w.hosts["a1"].v4, 61000}, {"reserved-port", w.hosts["a1"].v6, 65535},
	} {
		to := w.hosts["b1"].v4
		if c.from.Is6() {
			to = w.hosts["b1"].v6
		}
		before := count(c.reason)
		if got, err := w.dial("a1", Client{Network: "tcp", Addr: at(to, 8080), From: at(c.from, c.port), Wait: 200 * time.Millisecond}); err == nil {
			t.Errorf("a1 dials from %s port %d: %+v", c.from, c.port, got)
		}
		if count(c.reason) == before {
			t.Errorf("a1 dials from %s port %d: %s does not count it", c.from, c.port, c.reason)
		}
	}
	// A pod may serve such a port.
	call[None](w.proc["a1"], "Listen", Server{Network: "tcp4", Addr: "0.0.0.0:62000", Name: "high"})
	for _, from := range []string{"a", "a2", "b", "b1"} {
		if got, err := w.dial(from, Client{Network: "tcp", Addr: at(w.hosts["a1"].v4, 62000)}); err != nil {
			t.Errorf("%s dials a high port: %+v, %v", from, got, err)
		}
	}
}
