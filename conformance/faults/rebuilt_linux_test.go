// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/conformance/traffic"
	"fairlead.io/fairlead/lab"
)

// TestNodeRebuilt takes everything of Fairlead's from a node whose pods run on, as if it had
// never been there, and installs it anew while a stranger knocks at its pods and clients use
// them. The programs judge from the first packet that they see: once the stranger was
// refused, nothing of his comes through any more, while policy, services and Envoy are still
// on their way. (That pods which start are guarded before their first packet is the plugin's
// doing: conformance/kubernetes, TestPodsStartGuarded.)
func TestNodeRebuilt(t *testing.T) {
	w := lives(t)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	envoy := w.envoyOf(t, "node-1")
	for _, what := range []string{"agent", "proxy"} {
		if err := lab.Stop(ctx, w.Name, "node-1", what, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Kill(envoy, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	dir := w.RunDir("node-1")
	pins := filepath.Join(dir, "bpf")
	if err := unix.Unmount(pins, 0); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := os.RemoveAll(filepath.Join(dir, f.Name())); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(pins, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("bpf", pins, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	const ms = time.Millisecond
	var knocks []traffic.Stream
	for _, six := range []bool{false, true} {
		host := w.podAddress(t, "back-a", six)
		addr := host.String()
		if six {
			addr = "[" + addr + "]"
		}
		knocks = append(knocks,
			traffic.Stream{Name: "stranger, fresh", Kind: traffic.TCP, Addr: addr + ":9000", Workers: 2, Every: 2 * ms, Timeout: 300 * ms, Forbid: true},
			traffic.Stream{Name: "stranger, long", Kind: traffic.TCP, Addr: addr + ":9000", Keep: true, Workers: 2, Every: 2 * ms, Timeout: 300 * ms, Forbid: true},
			traffic.Stream{Name: "stranger, requests", Addr: addr + ":8080", Host: "web", Method: "GET", Path: "/api/x", Keep: true, Workers: 2, Every: 2 * ms, Timeout: 300 * ms, Forbid: true})
	}
	stranger := w.Client(t, "faults/stranger-b", knocks)
	time.Sleep(2 * time.Second)
	began := time.Now()
	for _, what := range []string{"agent", "proxy"} {
		if err := lab.Start(ctx, w.Name, "node-1", what); err != nil {
			t.Fatal(err)
		}
	}
	w.mend(t)
	ready := time.Now()
	time.Sleep(pause())
	r := stranger()
	// Without Fairlead there is no policy: that is what the stranger was let in by, and it
	// shows that he knocks.
	let := map[string]time.Time{}
	for _, v := range r.Violations {
		if v.Ended.After(let[v.Stream]) {
			let[v.Stream] = v.Ended
		}
	}
	if len(let) != 3 {
		t.Errorf("the stranger was let in nowhere before: %v", let)
	}
	last := time.Time{}
	for what, at := range let {
		t.Logf("%s: let in for the last time %v after the agent was started", what, at.Sub(began).Round(ms))
		if at.After(last) {
			last = at
		}
		if at.After(ready) {
			t.Errorf("%s: let in %v after the node was ready", what, at.Sub(ready))
		}
	}
	// The three kinds end at one stroke: the programs come with their policy, not before.
	for what, at := range let {
		if last.Sub(at) > time.Second {
			t.Errorf("%s ended %v before the last one: policy came in parts", what, last.Sub(at))
		}
	}
	t.Logf("the node was ready after %v", ready.Sub(began).Round(ms))
	s := w.storm(t)
	time.Sleep(pause())
	s.end().none("rebuilt")
}
