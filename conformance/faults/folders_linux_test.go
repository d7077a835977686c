// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fairlead.io/fairlead/conformance/twonodes"
	"fairlead.io/fairlead/lab"
)

// daemon is the process of a node's agent or proxy.
func (w *world) daemon(t *testing.T, node, what string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(w.Status.Run, "lab.json"))
	if err != nil {
		t.Fatal(err)
	}
	var record struct{ Daemons map[string]struct{ PID int } }
	if err := json.Unmarshal(b, &record); err != nil {
		t.Fatal(err)
	}
	pid := record.Daemons[node+"/"+what].PID
	if pid == 0 {
		t.Fatalf("%s has no %s", node, what)
	}
	return pid
}

// log is what a node's processes have said.
func (w *world) log(t *testing.T, node string) string {
	t.Helper()
	var out strings.Builder
	if err := lab.Logs(context.Background(), w.Name, "node/"+node, false, &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestPinsGone unmounts the BPF file system under a node's agent and proxy. It is named;
// what is in the kernel goes on and takes changes. Mounted again, with an agent that was
// started anew, all is as it was.
func TestPinsGone(t *testing.T) {
	w := lives(t)
	s := w.storm(t)
	time.Sleep(pause())
	pins := filepath.Join(w.RunDir("node-1"), "bpf")
	// The proxy has a mount of its own.
	inProxy := exec.Command("nsenter", "--mount", "--target", fmt.Sprint(w.daemon(t, "node-1", "proxy")), "umount", pins)
	if out, err := inProxy.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := unix.Unmount(pins, 0); err != nil {
		t.Fatal(err)
	}
	mounted := false
	mount := func() {
		if !mounted {
			mounted = true
			if err := unix.Mount("bpf", pins, "bpf", 0, ""); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(mount)
	named := w.awaitStatus(t, "node-1", "that the pins are gone", func(s *status) bool {
		for _, n := range s.Kernel.Host {
			if !n.OK && strings.Contains(n.Detail, "was the BPF file system unmounted?") {
				return true
			}
		}
		return false
	})
	time.Sleep(pause())
	w.Change(t, lab.Apply, narrow) // it takes changes
	began := time.Now()
	for w.passes(t, "client-a", "/api/x") && time.Since(began) < 5*time.Second {
	}
	took := time.Since(began)
	w.Change(t, lab.Delete, narrow)
	w.answered(t, "faults/client-a", "web", 80, twonodes.Patience)
	t.Logf("named after %v; a policy that narrowed held after %v", named.Round(time.Millisecond), took.Round(time.Millisecond))
	if took > revokeBound {
		t.Error("too late")
	}
	until := time.Now()
	a := s.end()
	a.want("pins gone", func(f failure) bool {
		return f.Ended.After(began.Add(-time.Second)) && f.Began.Before(until) && a.narrowed(f)
	})
	// And back.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := lab.Stop(ctx, w.Name, "node-1", "agent", syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	mount()
	// Its proxy has to see the mount, too.
	if err := lab.Stop(ctx, w.Name, "node-1", "proxy", syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	w.mend(t)
	for _, n := range w.status(t, "node-1").Kernel.Host {
		if !n.OK {
			t.Errorf("%+v", n)
		}
	}
	s = w.storm(t)
	time.Sleep(pause())
	s.end().none("pins are back")
}
