// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"sync"
	"testing"
	"time"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/plan"
)

// What no proxy takes is refused by the client's try 3 s after its first, wherever it comes
// from: a captured pod, a pod and a process of the node, another node, and by a node port.
func testHeld(t *testing.T, w *world) {
	w.translate(t)
	const nobody = outPort + 70
	w.set("a", func(p *Planned) {
		p.Services = append(p.Services, w.service("10.96.1.9", 80, model.TCP, plan.HTTP, "b1"), w.service("fd96::19", 80, model.TCP, plan.HTTP, "b1"))
		p.capture("a1")
		p.Ports[outbound], p.Inbound = nobody, nobody+1
		p.govern("a2", setA2, &plan.Verdict{Any: true, Port: 8080, Proto: model.TCP, Action: plan.Check})
	})
	w.set("b", nil)
	w.ready()
	before := w.counter("a", proxyAbsent)
	var dials [][2]string
	for _, addr := range []string{"10.96.1.9:80", "[fd96::19]:80"} {
		dials = append(dials, [2]string{"a1", addr})
	}
	for _, from := range []string{"a1", "a", "b1", "b"} {
		dials = append(dials, [2]string{from, at(w.hosts["a2"].v4, 8080)}, [2]string{from, at(w.hosts["a2"].v6, 8080)})
	}
	for _, from := range []string{"a1", "b"} {
		for _, port := range []string{masquerading, keeping} {
			dials = append(dials, [2]string{from, w.hosts["a"].v4.String() + ":" + port}, [2]string{from, "[" + w.hosts["a"].v6.String() + "]:" + port})
		}
	}
	var all sync.WaitGroup
	for _, d := range dials {
		all.Go(func() {
			begin := time.Now()
			got, err := w.dial(d[0], Client{Network: "tcp", Addr: d[1], Wait: 10 * time.Second})
			took := time.Since(begin)
			if err == nil || !refused(err) || took < 2900*time.Millisecond || took > 4*time.Second {
				t.Errorf("%s dials %s: %+v, %v after %v; want it refused after 3 s", d[0], d[1], got, err, took)
			}
		})
	}
	all.Wait()
	if n := int(w.counter("a", proxyAbsent) - before); n != len(dials) {
		t.Errorf("%d connections were refused, the kernel counts %d", len(dials), n)
	}
}
