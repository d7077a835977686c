// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"syscall"
	"testing"
	"time"

	"fairlead.io/fairlead/conformance/traffic"
)

// TestEventsLost stops a node's agent, so that nobody reads what the kernel tells, and has
// a stranger knock until the ring is full. What is lost is counted and named; all else is
// as it was.
func TestEventsLost(t *testing.T) {
	w := lives(t)
	s := w.storm(t)
	pid := w.daemon(t, "node-1", "agent")
	before := w.status(t, "node-1")
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stopped := true
	goOn := func() {
		if stopped {
			stopped = false
			if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(goOn)
	pod := w.podAddress(t, "back-a", false).String()
	flood := w.Client(t, "faults/stranger-b", []traffic.Stream{{Name: "flood", Kind: traffic.UDP, Addr: pod + ":5353", Keep: true, Workers: 60, Timeout: time.Millisecond, Forbid: true}})
	time.Sleep(2*pause() + 6*time.Second)
	f := flood()
	goOn()
	var after *status
	took := w.awaitStatus(t, "node-1", "word of lost events", func(s *status) bool {
		after = s
		return s.Flows.LostKernel > before.Flows.LostKernel && s.Kernel.Lost > before.Kernel.Lost
	})
	t.Logf("%d knocks; %d events were lost, which is told %v after the agent goes on", f.Sent["flood"], after.Kernel.Lost-before.Kernel.Lost, took.Round(time.Millisecond))
	if len(f.Violations) > 0 {
		t.Errorf("%d came through", len(f.Violations))
	}
	time.Sleep(pause())
	s.end().none("events lost")
}
