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
	"fairlead.io/fairlead/proxy"
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

// TestRunFolderEmptied removes all that is in a node's run folder under its agent and proxy. The
// agent ends and says why; the next one, and the proxy, make all anew.
func TestRunFolderEmptied(t *testing.T) {
	w := lives(t)
	s := w.storm(t)
	time.Sleep(pause())
	pid, agent := w.envoyOf(t, "node-1"), w.daemon(t, "node-1", "agent")
	entries, err := os.ReadDir(w.RunDir("node-1"))
	if err != nil {
		t.Fatal(err)
	}
	removed := time.Now()
	for _, e := range entries {
		if e.Name() == "bpf" { // a mount: TestPinsGone
			continue
		}
		if err := os.RemoveAll(filepath.Join(w.RunDir("node-1"), e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	for syscall.Kill(agent, 0) == nil && time.Since(removed) < twonodes.Patience {
		time.Sleep(10 * time.Millisecond)
	}
	ended := time.Since(removed)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := lab.Start(ctx, w.Name, "node-1", "agent"); err != nil {
		t.Fatal(err)
	}
	w.awaitStatus(t, "node-1", "the same Envoy", func(s *status) bool {
		return s.Proxy != nil && s.Proxy.Envoy.PID == pid && s.Proxy.Envoy.Connected
	})
	back := time.Since(removed)
	// It takes changes, though nobody can ask that Envoy.
	narrows := time.Now()
	w.Change(t, lab.Apply, narrow)
	narrowed := time.Now()
	for w.passes(t, "client-a", "/api/x") && time.Since(narrowed) < 5*time.Second {
	}
	if held := time.Since(narrowed); held > revokeBound {
		t.Errorf("a policy that narrowed held after %v", held)
	}
	w.Change(t, lab.Delete, narrow)
	w.answered(t, "faults/client-a", "web", 80, twonodes.Patience)
	until := time.Now()
	// What the word about it advises: with the next Envoy there is an admin socket again. The
	// one before cannot be told to drain, for want of one: what is open through it ends.
	done, err := proxy.Replace(ctx, w.RunDir("node-1"), true)
	if err != nil || done.State != proxy.ReplacementDone {
		t.Errorf("%+v %v", done, err)
	}
	replaced := time.Now()
	w.awaitEnvoys(t)
	time.Sleep(pause())
	a := s.end()
	cut := 0
	a.want("run folder emptied", func(f failure) bool {
		if needs(f, byProxy) && f.Opened.Before(replaced) && f.Ended.After(until) {
			cut++
			return true
		}
		return f.Ended.After(narrows) && f.Began.Before(until) && a.narrowed(f)
	})
	t.Logf("the agent ended after %v; the next one had the same Envoy after %v; %d that were open through it failed when it was replaced",
		ended.Round(time.Millisecond), back.Round(time.Millisecond), cut)
	if !strings.Contains(w.log(t, "node-1"), "somebody has removed") {
		t.Error("the agent does not say why it ended")
	}
	for _, n := range w.status(t, "node-1").Kernel.Host {
		if !n.OK {
			t.Errorf("%+v", n)
		}
	}
}
