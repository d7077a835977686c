// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"testing"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// What an observed pod's policy keeps out goes in, and is told. Once it is enforced, what is
// open is judged by the policy of now, and what begins at once; and back.
func TestObserved(t *testing.T) {
	w := newWorld(t, false)
	onward := map[string]string{}
	for _, a := range []netip.Addr{w.hosts["a2"].v4, w.hosts["a2"].v6} {
		onward[at(a, 8080)] = "original"
	}
	call[None](w.proc["a"], "Redirected", Proxy{Port: inPort, Name: "inbound", Onward: onward})
	set := func(observed bool, action plan.Action) {
		w.set("a", func(p *Planned) {
			p.govern("a2", setA2, &plan.Verdict{Any: true, Port: 8080, Proto: model.TCP, Action: action, Rule: 77}, &plan.Verdict{Any: true, Action: plan.Deny, Rule: 78})
			for _, row := range p.Pods {
				row.Observed = observed && row.Name == "ns/a2"
			}
		})
	}
	told := func(verdict, reason string, rule uint64, atLeast int) {
		t.Helper()
		var got []Flow
		for _, f := range w.flows("a", intoWeb) {
			if f.Verdict == verdict && f.Reason == reason && f.Rule == rule {
				got = append(got, f)
			}
		}
		if len(got) < atLeast {
			t.Errorf("%d flows %s (%s) by %d, want %d", len(got), verdict, reason, rule, atLeast)
		}
	}
	addrs := []netip.Addr{w.hosts["a2"].v4, w.hosts["a2"].v6}
	for action, after := range map[plan.Action]string{plan.Check: "the proxy", plan.Deny: "nobody"} {
		set(true, action)
		w.mustDial("a1", Client{Network: "tcp", Addr: at(addrs[0], 8080)})
		w.flows("a", anyFlow)
		for _, from := range []string{"a1", "b1"} {
			for _, a := range addrs {
				got := w.mustDial(from, Client{Network: "tcp", Addr: at(a, 8080), Keep: string(action) + a.String()})
				if got.Server != "a2" || got.Seen != got.Local {
					t.Errorf("%s, observed: %s dials %s: %+v", action, from, a, got)
				}
				if got := w.mustDial(from, Client{Network: "udp", Addr: at(a, 8080)}); got.Server != "a2" {
					t.Errorf("%s, observed: %s sends to %s: %+v", action, from, a, got)
				}
			}
		}
		if action == plan.Check {
			told(Forwarded, WouldProxy, 77, 4)
		} else {
			told(Audited, "policy", 77, 4)
		}
		set(false, action)
		time.Sleep(turnTime + 2*retryEvery)
		for _, from := range []string{"a1", "b1"} {
			for _, a := range addrs {
				if got, err := try[Answer](w.proc[from], "Ask", string(action)+a.String()); err == nil {
					t.Errorf("%s, enforced: %s goes on to ask %s: %+v", action, from, a, got)
				}
				got, err := w.dial(from, Client{Network: "tcp", Addr: at(a, 8080), Wait: time.Second})
				if passed := err == nil && got.Server == "a2" && got.Seen != got.Local; passed != (after == "the proxy") {
					t.Errorf("%s, enforced: %s dials %s: %+v, %v; want %s", action, from, a, got, err, after)
				}
			}
		}
		set(true, action)
		for _, from := range []string{"a1", "b1"} {
			if got := w.mustDial(from, Client{Network: "tcp", Addr: at(addrs[0], 8080)}); got.Server != "a2" || got.Seen != got.Local {
				t.Errorf("%s, observed again: %s: %+v", action, from, got)
			}
		}
	}
}
