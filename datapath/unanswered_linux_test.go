// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/model/plan"
)

// Mute has the kernel answer no question about interfaces, and the datapath look at all.
func (h *Helper) Mute(mute bool, _ *None) error {
	d := h.datapath
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kernel = kernelInterfaces()
	if mute {
		d.kernel = interfaces{
			func(int) (netlink.Link, error) { return nil, unix.ENOBUFS },
			func(string) (netlink.Link, error) { return nil, unix.ENOBUFS },
		}
	}
	d.pods.kernel = d.kernel
	d.lookAtAll()
	return nil
}

// While the kernel does not say whether an interface is there, what stands in its way stays.
func TestUnansweredIsNotGone(t *testing.T) {
	n := newNetwork(t)
	p := n.start("a")
	call[None](p, "Open", n.options("a"))
	t.Cleanup(func() {
		call[None](p, "Close", None{})
		call[None](p, "Uninstall", n.options("a"))
	})
	w := &world{network: n, proc: map[string]*process{"a": p}}
	pod := Planned{Pods: []*plan.Pod{{Addr: n.hosts["a1"].v4, Name: "ns/a1", Set: 1}}}
	call[None](p, "Sync", pod)
	ready := func(st Status) string {
		for _, p := range st.Pods {
			if !p.Ready {
				return p.Reason
			}
		}
		return ""
	}
	w.wait("a", ready)
	programs := func() map[string]int { return call[Host](p, "Host", n.hosts["a"].cgroup).Programs }
	before := programs()
	call[None](p, "Mute", true)
	if got := programs(); got["lxa1"] != before["lxa1"] || got["eth0"] != before["eth0"] || before["lxa1"] == 0 || before["eth0"] == 0 {
		t.Errorf("programs were %v, are %v", before, got)
	}
	st := call[Status](p, "Status", None{})
	if why := ready(st); !strings.Contains(why, "no buffer space") {
		t.Errorf("the pod is not ready because %q", why)
	}
	for _, m := range st.Maps {
		if m.Name == mapPods && m.Entries != 1 {
			t.Errorf("%+v", m)
		}
	}
	call[None](p, "Mute", false)
	w.wait("a", ready)

	// One that is gone is told from that.
	call[None](p, "Mute", true)
	call[None](p, "Sync", Planned{})
	call[None](p, "Mute", false)
	w.wait("a", func(Status) string {
		if left := programs()["lxa1"]; left > 0 {
			return "it has programs"
		}
		return ""
	})
}
