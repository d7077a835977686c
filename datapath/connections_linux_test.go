// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// TestConnectionsFull has more connections than the maps of connections have room for. They
// push out the oldest, so that all are made; one that is used all the while is answered to
// the end, at pods that let nobody in; and what is forbidden stays so.
func TestConnectionsFull(t *testing.T) {
	const room, many = 1024, 4000
	w := newWorldOf(t, false, map[string]uint32{mapConntrack: room, mapReverse: room})
	const vip = "10.96.0.9"
	w.set("a", func(p *Planned) {
		p.govern("a2", setA2, &plan.Verdict{Class: class("b1"), Port: 8080, Proto: model.TCP, Action: plan.Allow})
	})
	w.set("b", func(p *Planned) {
		p.govern("b1", setB1) // nobody: what comes back has to be known
		p.Services = append(p.Services, w.service(vip, 80, model.TCP, plan.Kernel, "a2"))
	})
	w.mustDial("b1", Client{Network: "tcp", Addr: vip + ":80", Keep: "long"})
	idle := Client{Network: "tcp", Addr: vip + ":80", Keep: "idle"}
	w.mustDial("b1", idle)
	begin := time.Now()
	for i := range many {
		w.mustDial("b1", Client{Network: "tcp", Addr: vip + ":80"})
		if i%20 == 0 {
			if _, err := try[Answer](w.proc["b1"], "Ask", "long"); err != nil {
				t.Fatalf("after %d others, the one in use: %v", i, err)
			}
		}
		if i%400 == 0 {
			for _, c := range []Client{
				{Network: "udp", Addr: at(w.hosts["a2"].v4, 8080), Wait: 100 * time.Millisecond},
			} {
				if got, err := w.dial("b1", c); err == nil {
					t.Errorf("after %d others, forbidden: %+v", i, got)
				}
			}
			if got, err := w.dial("a1", Client{Network: "tcp", Addr: at(w.hosts["b1"].v4, 8080), Wait: 100 * time.Millisecond}); err == nil {
				t.Errorf("after %d others, forbidden: %+v", i, got)
			}
		}
	}
	t.Logf("%d connections in %v", many, time.Since(begin).Round(time.Millisecond))
	for _, m := range call[Status](w.proc["b"], "Status", None{}).Maps {
		if m.Name == mapConntrack || m.Name == mapReverse {
			t.Logf("%s: %d of %d", m.Name, m.Entries, m.Max)
			if m.Max != room || m.Entries > room || m.Entries < room/4 {
				t.Errorf("%s: %d of %d", m.Name, m.Entries, m.Max)
			}
		}
	}
	_, err := try[Answer](w.proc["b1"], "Ask", "idle")
	t.Logf("one that was idle: %v", err)
}
